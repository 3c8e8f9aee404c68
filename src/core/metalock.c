/* SPDX-License-Identifier: MIT */
/*
 * metalock - the one mutex of the metadata, with the digest behind everybody else.
 *
 * Whoever a writer or a person waits for raises meta_urgent before it takes the mutex; the digest takes it only when
 * nobody does, so a writer waits for one step of the digest at the most. So that an endless load cannot starve the digest,
 * it takes a turn all the same after METALOCK_PATIENCE_MS. Who has many steps to make, and a person waiting, lets others in
 * between two of them, and waits METALOCK_STEP_MS at the most.
 */
#include "core_private.h"

#include <errno.h>
#include <time.h>

#define METALOCK_PATIENCE_MS 50
#define METALOCK_STEP_MS 2

void metalock_urgent(struct era *era)
{
	atomic_fetch_add(&era->meta_urgent, 1);
	pthread_mutex_lock(&era->meta_lock);
	atomic_fetch_sub(&era->meta_urgent, 1);
}

/* Behind who is urgent, for so long. */
static void metalock_patient(struct era *era, long patience_ms)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += patience_ms * 1000000L;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_nsec -= 1000000000L;
		until.tv_sec++;
	}
	pthread_mutex_lock(&era->meta_lock);
	while (atomic_load(&era->meta_urgent) > 0 &&
		pthread_cond_timedwait(&era->meta_turn, &era->meta_lock, &until) != ETIMEDOUT)
		;
}

void metalock_digest(struct era *era)
{
	metalock_patient(era, METALOCK_PATIENCE_MS);
}

void metalock_behind(struct era *era)
{
	metalock_patient(era, METALOCK_STEP_MS);
}

void metalock_release(struct era *era)
{
	pthread_cond_signal(&era->meta_turn);
	pthread_mutex_unlock(&era->meta_lock);
}
