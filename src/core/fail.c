/* SPDX-License-Identifier: MIT */
/*
 * fail - the state that only a restart leaves.
 *
 * After a failed fsync nobody knows what is on the disk: the kernel reports the error once, marks the pages clean, and
 * the next fsync returns 0. So no write and no fsync succeeds any more. The failure is left for recovery in the session
 * file (this boot) and, if that still works, in the database: recovery then drops the image's cache before anything reads
 * it, and marks the blocks of the eras that may be hit in the new era too.
 */
#include "core_private.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void __attribute__((format(printf, 2, 0))) fail_now(struct era *era, const char *format, va_list args)
{
	if (era_is_dead(era))
		return;
	vsnprintf(era->failure, sizeof(era->failure), format, args);
	/* What a freeze has given up is whole and durable: there is nothing to recover from. */
	if (era->session && era->meta)
		session_set_failed(era->session);
	bool was_frozen = state_now(era) == ERA_FROZEN;
	state_change(era, ERA_FAILED);
	/* Nobody will thaw it any more, and it stands in nobody's way. */
	if (was_frozen) {
		session_give_up(era->session);
		era->frozen_era = 0;
		era->thaw_at_ms = 0;
		switch_open_gate(era);
	}

	/* For a recovery on another boot, or without the session file. It is tried once; where it fails, the database
	 * is unclean all the same. */
	if (era->meta && meta_begin(era->meta, META_FULL) == 0) {
		meta_pending(era->meta)->state = META_FAILED;
		meta_commit(era->meta);
	}
}

void era_fail_locked(struct era *era, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	fail_now(era, format, args);
	va_end(args);
}

void era_fail(struct era *era, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	metalock_urgent(era);
	fail_now(era, format, args);
	metalock_release(era);
	va_end(args);
}

int era_commit(struct era *era, const char *what)
{
	int r = meta_commit(era->meta);

	if (r == 0) {
		const struct meta_super *super = meta_super(era->meta);
		session_set_commit(era->session, super->commit_counter, super->current_era);
	} else if (r != -ENOSPC) {
		era_fail_locked(era, "commit of %s failed (%s)", what, strerror(-r));
		r = -EIO;
	}
	return r;
}
