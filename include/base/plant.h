/* SPDX-License-Identifier: MIT */
/*
 * plant - named bugs, compiled in only where a build asks for one (meson -Dplant=NAME), so that the test which guards a
 * promise can be seen to catch its breach. `PLANTED(NAME)` is a constant 0 in every other build.
 *
 * The bugs, as meson names them:
 *     cached-open    opens are not direct
 *     early-publish  blocks are set in `committed` before the COMMIT
 *     mark-first     only the first block that a request touches is marked
 *     stale-plane    the switch of eras keeps the old era's `committed`
 *     no-drain       the switch of eras does not wait for writes in flight
 *     show-early     a checkpoint shows its era before the image's fsync
 *     retry-fsync    a failed fsync is forgotten
 *     lazy-marks     marks and intents that writers wait for are committed without an fsync
 *     one-look       a writer looks at `armed` before it sets its bit, and not after
 *     collect-first  an extent is disarmed after its bits were collected
 *     settle-unarmed bits are published whose extent was not armed
 *     drop-without-marks     an intent goes and the marks that it stood for are not made
 *     partial-whole  recovery takes a slot for whole that says that bits are missing
 *     trust-frozen   a frozen instance vouches for intents that may be another's
 *     lazy-switch    the new era is committed without an fsync
 *     data-first     the image is changed before its mark is committed
 *     reply-early    a checkpoint never waits for the image's fsync
 *     freeze-no-flush        a freeze does not fsync the image
 *     recover-no-flush       recovery does not fsync the image
 *     witness-first          a checkpoint's witness is written before the commit that it names
 *     witness-ignored        an open does not ask what others have seen
 *     no-dirsync             a new database's name is not made durable
 *     commit-before-join     a freeze commits, and then joins the digest thread
 *     join-requeued          a freeze waits for the digest's step, not for what it has queued for itself
 *     late-commit            a freeze commits once more, lazily, after its WAL checkpoint
 *     checkpoint-unverified  a freeze takes any WAL checkpoint for a whole one
 *     close-keeps-nothing    a freeze keeps its connection open, and closing one deletes the -wal
 *     read-before-lock       a thaw trusts what it knew before it had the locks
 *     fenced-checkpoint      the stop of an instance that gave everything up writes the WAL back
 */
#ifndef BASE_PLANT_H
#define BASE_PLANT_H

/* 1 where the macro is defined as 1, else 0 (the way of the kernel's IS_BUILTIN(), linux/kconfig.h). */
#define PLANTED(name) PLANT_IS_ONE(PLANT_##name)
#define PLANT_IS_ONE(value) PLANT_IS_ONE_(value)
#define PLANT_IS_ONE_(value) PLANT_IS_ONE__(PLANT_COMMA_##value)
#define PLANT_IS_ONE__(comma) PLANT_SECOND(comma 1, 0, 0)
#define PLANT_COMMA_1 0,
#define PLANT_SECOND(first, second, ...) second

#endif
