/* SPDX-License-Identifier: MIT */
/*
 * The right protocol keeps every property in every state, and each wrong variant breaks the one that it is named with.
 *
 *     test_intents                  all
 *     test_intents --trace NAME     the shortest way to what the variant breaks
 */
#include "intents.h"

#include <string.h>

static const struct world worlds[] = {
	{ .name = "block", /* one block and a checkpoint */
		.blocks = { 1, 1 },
		.checkpoints = 1,
		.crashes = 2,
		.exact = true,
		.query = true },
	{ .name = "eras", /* one block, and a slot is used again */
		.blocks = { 1, 1 },
		.checkpoints = 2,
		.crashes = 2,
		.cold = true,
		.exact = true },
	{ .name = "blocks", /* two blocks of one extent */
		.blocks = { 3, 1 },
		.crashes = 2,
		.exact = true,
		.query = true },
	{ .name = "blocks-eras", /* and a checkpoint */ .blocks = { 1, 2 }, .checkpoints = 1, .crashes = 1 },
	{ .name = "extents", /* two extents */ .blocks = { 1, 4 }, .crashes = 1 },
	{ .name = "blur", /* a session and its checkpoint after a crash, and a crash of it */
		.blocks = { 1, 0 },
		.checkpoints = 1,
		.crashes = 2,
		.late = true,
		.query = true },
};
#define NR_WORLDS (sizeof(worlds) / sizeof(worlds[0]))
#define MUST_SEE                                                                                                       \
	(SIGHT_RECHECKED | SIGHT_FAST | SIGHT_UNSETTLED | SIGHT_TWO_SLOTS | SIGHT_BLUR | SIGHT_TWICE | SIGHT_CUT |     \
		SIGHT_FAILED | SIGHT_OLD_QUERY | SIGHT_EXACT)

/* A checkpoint's steps up to the new plane, from there until the old one is settled, and to the answer. */
#define SWITCH                                                                                                         \
	STEP_CLOSE_GATE, STEP_DRAIN, STEP_LOCK, STEP_LABEL, STEP_COMMIT_SWITCH, STEP_REPLACE, STEP_UNLOCK,             \
		STEP_OPEN_GATE
#define SETTLE                                                                                                         \
	STEP_LOCK, STEP_COLLECT_OLD, STEP_COMMIT_MARKS, STEP_PUBLISH, STEP_UNLOCK, STEP_LOCK, STEP_COMMIT_OLD_REMOVAL, \
		STEP_FREE, STEP_UNLOCK
#define SHOW STEP_LOCK, STEP_COMMIT_DURABLE, STEP_UNLOCK, STEP_ANSWER

static const struct variant variants[] = {
	{ .name = "right" },
	/* The writer */
	{ .name = "armed-is-looked-at-after-the-bit-is-set-only",
		.world = "block",
		.procs[PROC_WRITE] =
			STEPS(STEP_ENTER, STEP_LOOK_COMMITTED, STEP_SET, STEP_LOOK_ARMED, STEP_PWRITE, STEP_LEAVE) },
	{ .name = "armed-is-looked-at-before-the-bit-is-set-only",
		.world = "blocks",
		.breaks = P_POWER,
		.procs[PROC_WRITE] =
			STEPS(STEP_ENTER, STEP_LOOK_COMMITTED, STEP_LOOK_ARMED, STEP_SET, STEP_PWRITE, STEP_LEAVE) },
	{ .name = "a-bit-that-is-set-needs-no-second-look",
		.world = "blocks",
		.breaks = P_POWER,
		.procs[PROC_WRITE] = STEPS(STEP_ENTER, STEP_LOOK_COMMITTED, STEP_LOOK_ARMED, STEP_SET_OR_GO,
			STEP_LOOK_ARMED, STEP_PWRITE, STEP_LEAVE) },
	{ .name = "one-plane-for-set-and-committed",
		.world = "blocks",
		.breaks = P_POWER,
		.procs[PROC_WRITE] = STEPS(STEP_ENTER, STEP_LOOK_SET, STEP_LOOK_ARMED, STEP_SET, STEP_LOOK_ARMED,
			STEP_PWRITE, STEP_LEAVE) },
	{ .name = "the-bit-is-set-after-the-write",
		.world = "blocks",
		.breaks = P_KILL,
		.procs[PROC_WRITE] =
			STEPS(STEP_ENTER, STEP_LOOK_COMMITTED, STEP_LOOK_ARMED, STEP_PWRITE, STEP_SET, STEP_LEAVE) },
	{ .name = "the-looks-are-outside-the-gate",
		.world = "block",
		.breaks = P_KILL,
		.procs[PROC_WRITE] = STEPS(STEP_LOOK_COMMITTED, STEP_LOOK_ARMED, STEP_SET, STEP_LOOK_ARMED, STEP_ENTER,
			STEP_PWRITE, STEP_LEAVE) },
	{ .name = "the-gate-is-left-before-the-write",
		.world = "block",
		.breaks = P_KILL,
		.procs[PROC_WRITE] = STEPS(STEP_ENTER, STEP_LOOK_COMMITTED, STEP_LOOK_ARMED, STEP_SET, STEP_LOOK_ARMED,
			STEP_LEAVE, STEP_PWRITE) },
	/* The committer */
	{ .name = "arm-without-fsync", .world = "blocks", .breaks = P_POWER, .lazy = STEP_COMMIT_ARM },
	{ .name = "armed-before-its-commit",
		.world = "blocks",
		.breaks = P_POWER,
		.procs[PROC_ARM] = STEPS(STEP_LOCK, STEP_PUBLISH_ARMED, STEP_COMMIT_ARM) },
	{ .name = "armed-after-unlock",
		.world = "block",
		.breaks = P_POWER,
		.procs[PROC_ARM] = STEPS(STEP_LOCK, STEP_COMMIT_ARM, STEP_UNLOCK, STEP_PUBLISH_ARMED) },
	{ .name = "exact-commit-without-fsync", .world = "blocks", .breaks = P_POWER, .lazy = STEP_COMMIT_EXACT },
	{ .name = "exact-commit-published-before",
		.world = "blocks",
		.breaks = P_KILL,
		.procs[PROC_EXACT] = STEPS(STEP_LOCK, STEP_TAKE_PARKED, STEP_PUBLISH, STEP_COMMIT_EXACT) },
	{ .name = "exact-commit-published-after-unlock",
		.world = "block",
		.breaks = P_KILL,
		.procs[PROC_EXACT] = STEPS(STEP_LOCK, STEP_TAKE_PARKED, STEP_COMMIT_EXACT, STEP_UNLOCK, STEP_PUBLISH) },
	{ .name = "who-waits-where-it-is-armed-is-passed-over",
		.world = "extents",
		.breaks = P_STUCK,
		.faults = FAULT_ARMED_NEEDS_NOTHING },
	/* Sweeps */
	{ .name = "sweep-of-what-was-not-armed",
		.world = "blocks",
		.breaks = P_POWER,
		.procs[PROC_SWEEP] = STEPS(STEP_LOCK, STEP_COLLECT_ALL, STEP_COMMIT_MARKS, STEP_PUBLISH) },
	{ .name = "sweep-publishes-what-is-set-now",
		.world = "blocks",
		.breaks = P_POWER,
		.procs[PROC_SWEEP] = STEPS(STEP_LOCK, STEP_COLLECT, STEP_COMMIT_MARKS, STEP_PUBLISH_SET) },
	{ .name = "sweep-publishes-before-its-commit",
		.world = "blocks",
		.breaks = P_POWER,
		.procs[PROC_SWEEP] = STEPS(STEP_LOCK, STEP_COLLECT, STEP_PUBLISH, STEP_COMMIT_MARKS) },
	{ .name = "sweep-commits-after-unlock",
		.world = "block",
		.breaks = P_KILL,
		.inexact = true,
		.procs[PROC_SWEEP] = STEPS(STEP_LOCK, STEP_COLLECT, STEP_UNLOCK, STEP_COMMIT_MARKS, STEP_PUBLISH) },
	{ .name = "sweep-publishes-after-unlock",
		.world = "block",
		.breaks = P_KILL,
		.procs[PROC_SWEEP] = STEPS(STEP_LOCK, STEP_COLLECT, STEP_COMMIT_MARKS, STEP_UNLOCK, STEP_PUBLISH) },
	{ .name = "a-failed-commit-is-published",
		.world = "blocks",
		.breaks = P_POWER,
		.faults = FAULT_FAILED_PUBLISHES },
	/* Drops */
	{ .name = "drop-commits-its-marks-first",
		.world = "extents",
		.procs[PROC_DROP] = STEPS(STEP_LOCK, STEP_CLEAR_ARMED, STEP_COLLECT_EXTENT, STEP_COMMIT_MARKS,
			STEP_COMMIT_REMOVAL, STEP_PUBLISH) },
	{ .name = "drop-collects-before-armed-is-clear",
		.world = "blocks",
		.breaks = P_POWER,
		.procs[PROC_DROP] =
			STEPS(STEP_LOCK, STEP_COLLECT_EXTENT, STEP_CLEAR_ARMED, STEP_COMMIT_DROP, STEP_PUBLISH) },
	{ .name = "drop-without-the-bits",
		.world = "blocks",
		.breaks = P_POWER,
		.procs[PROC_DROP] =
			STEPS(STEP_LOCK, STEP_CLEAR_ARMED, STEP_COLLECT_EXTENT, STEP_COMMIT_REMOVAL, STEP_PUBLISH) },
	{ .name = "drop-commits-its-marks-last",
		.world = "blocks",
		.breaks = P_POWER,
		.procs[PROC_DROP] = STEPS(STEP_LOCK, STEP_CLEAR_ARMED, STEP_COLLECT_EXTENT, STEP_COMMIT_REMOVAL,
			STEP_COMMIT_MARKS, STEP_PUBLISH) },
	{ .name = "drop-of-every-era", .world = "block", .breaks = P_POWER, .faults = FAULT_DROP_ALL_ERAS },
	{ .name = "failed-drop-stays-clear", .world = "blocks", .breaks = P_QUERY, .faults = FAULT_FAILED_STAYS_CLEAR },
	/* The switch of eras */
	{ .name = "switch-with-writers-inside",
		.world = "block",
		.breaks = P_KILL,
		.procs[PROC_CHECKPOINT] = STEPS(STEP_CLOSE_GATE, STEP_LOCK, STEP_LABEL, STEP_COMMIT_SWITCH,
			STEP_REPLACE, STEP_UNLOCK, STEP_OPEN_GATE, SETTLE, STEP_FSYNC, SHOW) },
	{ .name = "switch-opens-the-gate-before-the-new-plane",
		.world = "block",
		.breaks = P_KILL,
		.procs[PROC_CHECKPOINT] = STEPS(STEP_CLOSE_GATE, STEP_DRAIN, STEP_LOCK, STEP_LABEL, STEP_COMMIT_SWITCH,
			STEP_OPEN_GATE, STEP_REPLACE, STEP_UNLOCK, SETTLE, STEP_FSYNC, SHOW) },
	{ .name = "switch-without-fsync", .world = "block", .breaks = P_POWER, .lazy = STEP_COMMIT_SWITCH },
	{ .name = "switch-drops-the-old-intents", .world = "block", .breaks = P_POWER, .faults = FAULT_SWITCH_DROPS },
	{ .name = "hot-extents-without-intents",
		.world = "block",
		.breaks = P_POWER,
		.faults = FAULT_HOT_WITHOUT_INTENTS },
	{ .name = "committed-outlives-its-era",
		.world = "block",
		.breaks = P_KILL,
		.faults = FAULT_SWITCH_KEEPS_COMMITTED },
	{ .name = "slot-labelled-after-the-commit",
		.world = "block",
		.breaks = P_EXACT,
		.procs[PROC_CHECKPOINT] = STEPS(STEP_CLOSE_GATE, STEP_DRAIN, STEP_LOCK, STEP_COMMIT_SWITCH, STEP_LABEL,
			STEP_REPLACE, STEP_UNLOCK, STEP_OPEN_GATE, SETTLE, STEP_FSYNC, SHOW) },
	{ .name = "slot-used-again-with-its-bits",
		.world = "eras",
		.breaks = P_EXACT,
		.faults = FAULT_SLOT_NOT_CLEARED },
	/* Settling the old plane */
	{ .name = "old-plane-settled-under-one-lock",
		.world = "block",
		.procs[PROC_CHECKPOINT] = STEPS(SWITCH, STEP_LOCK, STEP_COLLECT_OLD, STEP_COMMIT_MARKS,
			STEP_COMMIT_OLD_REMOVAL, STEP_FREE, STEP_UNLOCK, STEP_FSYNC, SHOW) },
	{ .name = "old-intents-removed-before-the-marks",
		.world = "block",
		.breaks = P_POWER,
		.procs[PROC_CHECKPOINT] = STEPS(SWITCH, STEP_LOCK, STEP_COLLECT_OLD, STEP_COMMIT_OLD_REMOVAL,
			STEP_COMMIT_MARKS, STEP_PUBLISH, STEP_FREE, STEP_UNLOCK, STEP_FSYNC, SHOW) },
	{ .name = "slot-given-away-before-its-bits-are-collected",
		.world = "block",
		.breaks = P_KILL,
		.inexact = true,
		.procs[PROC_CHECKPOINT] =
			STEPS(SWITCH, STEP_LOCK, STEP_FREE, STEP_UNLOCK, STEP_LOCK, STEP_COLLECT_OLD, STEP_COMMIT_MARKS,
				STEP_UNLOCK, STEP_LOCK, STEP_COMMIT_OLD_REMOVAL, STEP_UNLOCK, STEP_FSYNC, SHOW) },
	{ .name = "slot-given-away-before-its-bits-are-committed",
		.world = "block",
		.breaks = P_EXACT,
		.procs[PROC_CHECKPOINT] = STEPS(SWITCH, STEP_LOCK, STEP_COLLECT_OLD, STEP_FREE, STEP_COMMIT_MARKS,
			STEP_COMMIT_OLD_REMOVAL, STEP_UNLOCK, STEP_FSYNC, SHOW) },
	{ .name = "shown-before-settled",
		.world = "block",
		.breaks = P_DIGEST,
		.procs[PROC_CHECKPOINT] = STEPS(SWITCH, STEP_FSYNC, SHOW, SETTLE) },
	{ .name = "shown-before-the-image-is-synced",
		.world = "block",
		.breaks = P_BARRIER,
		.procs[PROC_CHECKPOINT] = STEPS(SWITCH, SETTLE, SHOW, STEP_FSYNC) },
	{ .name = "image-synced-before-the-switch",
		.world = "block",
		.breaks = P_BARRIER,
		.procs[PROC_CHECKPOINT] = STEPS(STEP_FSYNC, SWITCH, SETTLE, SHOW) },
	{ .name = "answered-before-the-era-is-durable",
		.world = "block",
		.breaks = P_ANSWERED,
		.procs[PROC_CHECKPOINT] =
			STEPS(SWITCH, SETTLE, STEP_FSYNC, STEP_ANSWER, STEP_LOCK, STEP_COMMIT_DURABLE) },
	{ .name = "durable-era-without-fsync", .world = "block", .breaks = P_ANSWERED, .lazy = STEP_COMMIT_DURABLE },
	/* Queries */
	{ .name = "query-does-not-settle",
		.world = "blocks",
		.breaks = P_QUERY,
		.procs[PROC_QUERY] = STEPS(STEP_ASK, STEP_SNAPSHOT) },
	{ .name = "query-looks-before-it-settles",
		.world = "blocks",
		.breaks = P_QUERY,
		.procs[PROC_QUERY] =
			STEPS(STEP_ASK, STEP_SNAPSHOT, STEP_LOCK, STEP_COLLECT_BOTH, STEP_COMMIT_MARKS, STEP_PUBLISH) },
	{ .name = "query-settles-the-new-plane-alone",
		.world = "block",
		.breaks = P_QUERY,
		.procs[PROC_QUERY] = STEPS(STEP_ASK, STEP_LOCK, STEP_COLLECT, STEP_COMMIT_MARKS, STEP_PUBLISH,
			STEP_UNLOCK, STEP_SNAPSHOT) },
	{ .name = "query-publishes-what-was-not-armed",
		.world = "blocks",
		.breaks = P_POWER,
		.procs[PROC_QUERY] = STEPS(STEP_ASK, STEP_LOCK, STEP_COLLECT_ALL, STEP_COMMIT_MARKS, STEP_PUBLISH,
			STEP_UNLOCK, STEP_SNAPSHOT) },
	{ .name = "query-ignores-the-blur", .world = "blur", .breaks = P_QUERY, .faults = FAULT_IGNORE_BLUR },
	/* Recovery */
	{ .name = "recovery-removes-intents-without-a-slot",
		.world = "blocks",
		.breaks = P_POWER,
		.faults = FAULT_RECOVER_NO_SLOT },
	{ .name = "recovery-takes-the-newest-slot",
		.world = "block",
		.breaks = P_KILL,
		.faults = FAULT_RECOVER_NEWEST_SLOT },
	{ .name = "recovery-takes-every-slot-for-the-current-era",
		.world = "block",
		.breaks = P_EXACT,
		.faults = FAULT_RECOVER_ANY_SLOT },
	{ .name = "recovery-removes-intents-first",
		.world = "blocks",
		.breaks = P_POWER,
		.procs[PROC_RECOVER] =
			STEPS(STEP_FSYNC, STEP_COMMIT_RECOVERY_REMOVAL, STEP_COMMIT_RECOVERY, STEP_START) },
	{ .name = "recovery-forgets-the-slots-first",
		.world = "blocks",
		.breaks = P_EXACT,
		.procs[PROC_RECOVER] = STEPS(STEP_FSYNC, STEP_FORGET_SLOTS, STEP_COMMIT_RECOVERY, STEP_START) },
	{ .name = "recovery-begins-an-era-before-the-image-is-synced",
		.world = "blocks",
		.breaks = P_BARRIER,
		.procs[PROC_RECOVER] = STEPS(STEP_COMMIT_RECOVERY, STEP_FSYNC, STEP_START) },
	{ .name = "recovery-without-fsync", .world = "blocks", .breaks = P_ANSWERED, .lazy = STEP_COMMIT_RECOVERY },
	{ .name = "recovery-turns-intents-into-marks",
		.world = "blocks",
		.breaks = P_LABEL,
		.faults = FAULT_RECOVER_WHOLE },
};
#define NR_VARIANTS (sizeof(variants) / sizeof(variants[0]))

/* Whether the variant does what is expected of it. */
static bool run_variant(const struct variant *variant, FILE *trace)
{
	struct explore_result result = { 0 };
	unsigned int seen = 0;

	for (size_t i = 0; i < NR_WORLDS && !result.broken; i++) {
		unsigned int seen_here;
		if (variant->world && strcmp(variant->world, worlds[i].name) != 0)
			continue;
		result = intents_explore(&worlds[i], variant, &seen_here, trace);
		seen |= seen_here;
		printf("%s, %s: %zu states: ", variant->name, worlds[i].name, result.nr_states);
		if (result.broken)
			printf("after %u steps, not: %s\n", result.trace_len, result.broken);
		else
			printf("safe\n");
	}
	if (!variant->world && !result.broken && seen != MUST_SEE) {
		printf("%s: it is safe, but of what must be seen (%#x) only %#x was\n", variant->name, MUST_SEE, seen);
		return false;
	}
	if (variant->breaks != result.broken)
		printf("%s: WRONG, expected not: %s\n", variant->name, variant->breaks ? variant->breaks : "nothing");
	return variant->breaks == result.broken;
}

static const char *name_of(size_t variant)
{
	return variants[variant].name;
}

static bool run(size_t variant, FILE *trace)
{
	return run_variant(&variants[variant], trace);
}

int main(int argc, char **argv)
{
	return explore_main(argc, argv, NR_VARIANTS, name_of, run);
}
