/* SPDX-License-Identifier: MIT */
#include "gate.h"

#include "base/plant.h"

#include <errno.h>
#include <sched.h>

int gate_init(struct gate *gate)
{
	pthread_condattr_t attr;
	int r = -pthread_condattr_init(&attr);
	if (r < 0)
		return r;
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	r = -pthread_cond_init(&gate->left, &attr);
	pthread_condattr_destroy(&attr);
	if (r < 0)
		return r;
	pthread_mutex_init(&gate->lock, NULL);
	atomic_init(&gate->closed, false);
	return 0;
}

void gate_clear(struct gate *gate)
{
	pthread_cond_destroy(&gate->left);
	pthread_mutex_destroy(&gate->lock);
}

int gate_enter(struct gate *gate)
{
	int cpu = sched_getcpu();
	int ticket = cpu > 0 ? cpu % (int)GATE_SHARDS : 0;

	atomic_fetch_add(&gate->shards[ticket].inside, 1);
	if (!atomic_load(&gate->closed))
		return ticket;
	gate_leave(gate, ticket);
	return -EAGAIN;
}

void gate_leave(struct gate *gate, int ticket)
{
	atomic_fetch_sub(&gate->shards[ticket].inside, 1);
	if (atomic_load(&gate->closed)) {
		pthread_mutex_lock(&gate->lock);
		pthread_cond_signal(&gate->left);
		pthread_mutex_unlock(&gate->lock);
	}
}

void gate_note_change(struct gate *gate, int ticket)
{
	struct gate_shard *shard = &gate->shards[ticket];
	struct timespec now;

	/* The clock that file systems take their mtimes from. */
	clock_gettime(CLOCK_REALTIME_COARSE, &now);
	uint64_t now_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	uint64_t last = atomic_load_explicit(&shard->changed_ns, memory_order_relaxed);
	while (last < now_ns && !atomic_compare_exchange_weak_explicit(
					&shard->changed_ns, &last, now_ns, memory_order_release, memory_order_relaxed))
		;
}

uint64_t gate_last_change(const struct gate_shard *shards, bool *ret_inside)
{
	uint64_t last = 0;

	*ret_inside = false;
	for (unsigned int i = 0; i < GATE_SHARDS; i++) {
		uint64_t changed = atomic_load(&shards[i].changed_ns);
		last = changed > last ? changed : last;
		*ret_inside |= atomic_load(&shards[i].inside) != 0;
	}
	return last;
}

static bool gate_is_empty(struct gate *gate)
{
	for (unsigned int i = 0; i < GATE_SHARDS; i++)
		if (atomic_load(&gate->shards[i].inside) != 0)
			return false;
	return true;
}

int gate_close(struct gate *gate, const struct timespec *deadline)
{
	int r = 0;

	pthread_mutex_lock(&gate->lock);
	atomic_store(&gate->closed, true);
	while (!gate_is_empty(gate) && r == 0 && !PLANTED(NO_DRAIN))
		r = deadline ? -pthread_cond_timedwait(&gate->left, &gate->lock, deadline)
			     : -pthread_cond_wait(&gate->left, &gate->lock);
	if (r < 0)
		atomic_store(&gate->closed, false);
	pthread_mutex_unlock(&gate->lock);
	return r;
}

void gate_open(struct gate *gate)
{
	atomic_store(&gate->closed, false);
}
