/* SPDX-License-Identifier: MIT */
/*
 * gate - many writers through, one switch of eras at a time.
 *
 * The reader side of a lock that is made for its readers: a counter per processor, each in a cache line of its own, so that
 * two writers on two processors share nothing. Entering never waits: a closed gate says so, and the request is parked.
 *
 * The counters lie in the session file, with the time of the last change that went through each: who comes after a kill -9
 * can tell our own last write from one that somebody made behind our back.
 *
 * Why close() misses nobody: enter() raises its counter, then reads `closed`; close() sets `closed`, then reads the
 * counters; all four are sequentially consistent, so at least one of the two sees the other. A request leaves through
 * the counter by which it came in, so no counter falls below the requests that it holds.
 */
#ifndef CORE_GATE_H
#define CORE_GATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define GATE_SHARDS 64u

struct gate_shard {
	_Alignas(64) _Atomic uint64_t inside; /* requests that may be changing the image */
	_Atomic uint64_t changed_ns; /* wall clock after the last change, ns since 1970 */
};

struct gate {
	_Atomic bool closed;
	struct gate_shard *shards; /* GATE_SHARDS of them, zeroed, that outlive the gate; set before its first use */
	pthread_mutex_t lock;
	pthread_cond_t left; /* under lock: somebody left while the gate was closed */
};

int gate_init(struct gate *gate);
void gate_clear(struct gate *gate);

/* A ticket >= 0 for gate_leave(), or -EAGAIN when the gate is closed. Any thread, never waits. */
int gate_enter(struct gate *gate);
void gate_leave(struct gate *gate, int ticket);

/* The image was (or may have been) changed. Before gate_leave(). */
void gate_note_change(struct gate *gate, int ticket);

/* The latest change of all; *ret_inside whether somebody is inside. */
uint64_t gate_last_change(const struct gate_shard *shards, bool *ret_inside);

/* Closes the gate and waits until nobody is inside. deadline is of CLOCK_MONOTONIC; NULL: for ever. 0, or -ETIMEDOUT with
 * the gate open again. One caller at a time (the switch lock). */
int gate_close(struct gate *gate, const struct timespec *deadline);
void gate_open(struct gate *gate);

static inline bool gate_is_closed(struct gate *gate)
{
	return atomic_load(&gate->closed);
}

#endif
