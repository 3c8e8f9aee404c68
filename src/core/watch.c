/* SPDX-License-Identifier: MIT */
/*
 * watch - the thread that looks after a frozen instance.
 *
 * Once a second it looks for a takeover, so that writers that wait for a thaw which cannot come get their EIO. At the
 * deadline it thaws, the same way as everybody else and under the same lock: it does nothing that a thaw by a client, or
 * the stop, would have to fear. Where that fails for a reason that may pass (another program holds a lock, no space) it
 * tries again for WATCH_PATIENCE_S; a machine whose disk hangs for ever is not better than one whose disk fails.
 */
#include "core_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define WATCH_POLL_S 1
#define WATCH_PATIENCE_S 30

int64_t watch_now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* The deadline of the freeze that holds; 0: there is none. */
static int64_t watch_deadline(struct era *era)
{
	metalock_urgent(era);
	int64_t at_ms = state_now(era) == ERA_FROZEN ? era->thaw_at_ms : 0;
	metalock_release(era);
	return at_ms;
}

/* Under switch_lock, frozen, the deadline has passed. */
static void watch_thaw(struct era *era, int64_t deadline_ms)
{
	struct err why = ERR_INIT;
	uint64_t frozen_era = era->frozen_era;
	unsigned int timeout_s = era->freeze_timeout_s;

	int r = thaw_now(era, &why);
	if (state_now(era) == ERA_FENCED)
		return;
	metalock_urgent(era);
	if (r == 0) {
		era->auto_thaws++;
		snprintf(era->auto_thaw_reason, sizeof(era->auto_thaw_reason),
			"the freeze that answered %" PRIu64 " was not thawed within its %u s", frozen_era, timeout_s);
	} else if (r == -ESTALE || watch_now_ms() > deadline_ms + WATCH_PATIENCE_S * 1000) {
		era_fail_locked(era, "the deadline of a freeze has passed, and it %s", why.text);
	}
	if (r == 0)
		snprintf(era->news, sizeof(era->news), "thawed: %s", era->auto_thaw_reason);
	else if (era_is_dead(era))
		snprintf(era->news, sizeof(era->news), "%s: writes fail from now on", era->failure);
	metalock_release(era);
}

/* One look. */
static void watch_turn(struct era *era)
{
	pthread_mutex_lock(&era->switch_lock);
	int64_t deadline_ms = watch_deadline(era);
	if (deadline_ms > 0 && watch_now_ms() >= deadline_ms)
		watch_thaw(era, deadline_ms);
	else
		thaw_poll(era);
	thaw_unlock_and_tell(era);
}

static void *watch_thread(void *arg)
{
	struct era *era = arg;

	pthread_mutex_lock(&era->watch_lock);
	while (!era->watch_stop) {
		enum era_state state = state_now(era);
		if (state != ERA_FROZEN && state != ERA_THAWING && !era->watch_kicked) {
			pthread_cond_wait(&era->watch_wanted, &era->watch_lock);
			continue;
		}
		era->watch_kicked = false;
		pthread_mutex_unlock(&era->watch_lock);

		int64_t now_ms = watch_now_ms();
		int64_t deadline_ms = watch_deadline(era);
		int64_t until_ms = now_ms + WATCH_POLL_S * 1000;
		if (deadline_ms > now_ms && deadline_ms < until_ms)
			until_ms = deadline_ms;
		struct timespec until = { .tv_sec = until_ms / 1000, .tv_nsec = until_ms % 1000 * 1000000 };

		pthread_mutex_lock(&era->watch_lock);
		while (!era->watch_stop && !era->watch_kicked &&
			pthread_cond_timedwait(&era->watch_wanted, &era->watch_lock, &until) != ETIMEDOUT)
			;
		if (era->watch_stop)
			break;
		pthread_mutex_unlock(&era->watch_lock);
		watch_turn(era);
		pthread_mutex_lock(&era->watch_lock);
	}
	pthread_mutex_unlock(&era->watch_lock);
	return NULL;
}

void watch_kick(struct era *era)
{
	pthread_mutex_lock(&era->watch_lock);
	era->watch_kicked = true;
	pthread_cond_signal(&era->watch_wanted);
	pthread_mutex_unlock(&era->watch_lock);
}

int watch_start(struct era *era)
{
	int r = -pthread_create(&era->watcher, NULL, watch_thread, era);
	era->watcher_runs = r == 0;
	return r;
}

void watch_stop(struct era *era)
{
	if (!era->watcher_runs)
		return;
	pthread_mutex_lock(&era->watch_lock);
	era->watch_stop = true;
	pthread_cond_signal(&era->watch_wanted);
	pthread_mutex_unlock(&era->watch_lock);
	pthread_join(era->watcher, NULL);
	era->watcher_runs = false;
}
