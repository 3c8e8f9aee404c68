/* SPDX-License-Identifier: MIT */
/*
 * state - what an instance has and may do, and how it gets from one state to another.
 *
 *     state    | gate    | digest thread | metadata | locks   | writes  | leaves for
 *     ---------+---------+---------------+----------+---------+---------+---------------------------------------------
 *     running  | open *  | runs          | open     | held    | go on   | freezing: a freeze has closed the gate
 *              |         |               |          |         |         | failed: an fsync or a commit failed
 *     freezing | closed  | runs, joined  | open     | held    | wait    | frozen
 *              |         |               |          |         |         | running: the freeze cannot be finished
 *              |         |               |          |         |         | failed
 *     frozen   | closed  | none          | closed   | dropped | wait    | thawing: a thaw, or the deadline
 *              |         |               |          |         |         | fenced: another instance took over
 *              |         |               |          |         |         | failed: the deadline has passed, and no thaw works
 *     thawing  | closed  | none, waits   | closed,  | taken   | wait    | running
 *              |         |               | open     |         |         | frozen: a lock is taken, the image was changed ...
 *              |         |               |          |         |         | failed: a commit failed
 *     failed   | open    | idle, or none | open, or none **   | EIO     |
 *     fenced   | open    | none          | closed   | dropped | EIO     |
 *
 *     *  closed for the moment of a checkpoint     ** as in the state that it was before
 *
 * Reads go on in all of them. Failed and fenced last until the process ends. Changes are made under meta_lock, those from
 * and to freezing, frozen and thawing also under switch_lock; the state is read without a lock.
 */
#include "core_private.h"

#include "base/plant.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define TO(state) (1u << (state))

static const unsigned int state_ways[] = {
	[ERA_RUNNING] = TO(ERA_FREEZING) | TO(ERA_FAILED),
	[ERA_FREEZING] = TO(ERA_FROZEN) | TO(ERA_RUNNING) | TO(ERA_FAILED),
	[ERA_FROZEN] = TO(ERA_THAWING) | TO(ERA_FENCED) | TO(ERA_FAILED),
	[ERA_THAWING] = TO(ERA_RUNNING) | TO(ERA_FROZEN) | TO(ERA_FAILED),
	[ERA_FAILED] = 0,
	[ERA_FENCED] = 0,
};

static const char *const state_names[] = {
	[ERA_RUNNING] = "running",
	[ERA_FREEZING] = "freezing",
	[ERA_FROZEN] = "frozen",
	[ERA_THAWING] = "thawing",
	[ERA_FAILED] = "failed",
	[ERA_FENCED] = "fenced",
};

const char *era_state_name(enum era_state state)
{
	return state_names[state];
}

/* The table's columns, for a state that has just been entered. Not for failed, which keeps what there was. */
static bool state_is_true(struct era *era, enum era_state state)
{
	bool is_ours = era->meta != NULL && era->database_lock >= 0;
	bool is_given_up = era->meta == NULL && era->database_lock < 0 && !era->digester_runs;

	switch (state) {
	case ERA_RUNNING:
		return is_ours && era->digester_runs;
	case ERA_FREEZING:
		return is_ours && era->digester_runs && gate_is_closed(&era->gate);
	case ERA_FROZEN:
	case ERA_THAWING:
		return is_given_up && gate_is_closed(&era->gate) && era->frozen_era > 0;
	case ERA_FENCED:
		return is_given_up;
	case ERA_FAILED:
		break;
	}
	return true;
}

void state_change(struct era *era, enum era_state to)
{
	assert(state_ways[state_now(era)] & TO(to));
	/* The planted bug is that the connection stays open. */
	assert(PLANTED(CLOSE_KEEPS_NOTHING) || state_is_true(era, to));
	atomic_store_explicit(&era->state, to, memory_order_release);
	request_state_changed(era);
}

int state_refuse_unless_running(struct era *era, struct err *err)
{
	if (era->read_only)
		return err_set(err, -EROFS, "the image is mounted read-only: its era does not change");
	switch (state_now(era)) {
	case ERA_RUNNING:
		break;
	case ERA_FREEZING:
		return err_set_exit(err, ERR_EXIT_REFUSED, -EBUSY, "is being frozen: thaw it first");
	case ERA_FROZEN:
	case ERA_THAWING:
		return err_set_exit(err, ERR_EXIT_REFUSED, -EBUSY, "is frozen: era-cli thaw lets it go on");
	case ERA_FAILED:
		return err_set(
			err, -EIO, "the instance has failed (%s): unmount and mount again to recover", era->failure);
	case ERA_FENCED:
		return err_set_exit(err, ERR_EXIT_REFUSED, -ESTALE, "is fenced: %s: unmount it", era->failure);
	}
	return 0;
}
