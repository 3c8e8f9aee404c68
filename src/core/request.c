/* SPDX-License-Identifier: MIT */
/*
 * request - from submission to completion.
 *
 *     era_submit: inside the gate, every block covered? -> apply -> done            (no lock, no allocation)
 *                   | no, or the gate is closed
 *                   v
 *                 parked -> committer: one COMMIT for all of them -> ready -> completer: inside the gate ... -> done
 *                   ^                                                          | the era was switched meanwhile
 *                   +----------------------------------------------------------+
 *
 * A request does not hold the gate while it waits: the switch of eras never waits for a commit of theirs. So each try
 * looks at the plane anew, inside the gate, and holds the gate until its change is in the image: the block is then
 * covered in the very era in which its bytes land.
 */
#include "core_private.h"

#include "base/plant.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

static void list_push(struct era_list *list, struct era_req *req)
{
	req->next = NULL;
	req->prev = list->tail;
	if (list->tail)
		list->tail->next = req;
	else
		list->head = req;
	list->tail = req;
}

static void list_remove(struct era_list *list, struct era_req *req)
{
	if (req->prev)
		req->prev->next = req->next;
	else
		list->head = req->next;
	if (req->next)
		req->next->prev = req->prev;
	else
		list->tail = req->prev;
	req->next = req->prev = NULL;
}

static struct era_req *list_pop(struct era_list *list)
{
	struct era_req *req = list->head;
	if (req)
		list_remove(list, req);
	return req;
}

void request_piece(const struct era *era, const struct era_req *req, uint64_t *ret_offset, uint64_t *ret_len)
{
	uint64_t offset = req->offset + req->done_bytes;
	uint64_t len = req->len - req->done_bytes;
	uint64_t piece_end = (offset / era->block_size + ERA_PIECE_BLOCKS) * era->block_size;

	*ret_offset = offset;
	*ret_len = len < piece_end - offset ? len : piece_end - offset;
}

/* Lets the committer arm the extents that a stream will come to. */
static void request_look_ahead(struct era *era, uint64_t begin, uint64_t end)
{
	pthread_mutex_lock(&era->park_lock);
	era->ahead = (struct ahead){ begin, end };
	pthread_cond_signal(&era->commit_wanted);
	pthread_mutex_unlock(&era->park_lock);
}

/* May the bytes from first to last be changed now? 1, 0 or -ENOMEM. Inside the gate. */
static int request_pass(struct era *era, uint64_t first, uint64_t last)
{
	uint64_t begin = first / era->block_size, end = last / era->block_size + 1;
	uint64_t ahead, ahead_end;

	int r = plane_pass(era->plane, begin, end);
	if (r == 1 && era->has_intents && intents_note_use(&era->intents, era->plane, begin, end, &ahead, &ahead_end))
		request_look_ahead(era, ahead, ahead_end);
	return r;
}

/* Tries the rest of req, piece by piece. True: it is over, with *ret_error. False: it must wait. */
static bool request_try(struct era *era, struct era_req *req, int *ret_error)
{
	do {
		uint64_t offset, len;
		request_piece(era, req, &offset, &len);

		int ticket = gate_enter(&era->gate);
		if (ticket < 0)
			return false;
		if (era_is_dead(era)) {
			gate_leave(&era->gate, ticket);
			*ret_error = -EIO;
			return true;
		}
		if (PLANTED(DATA_FIRST) && req->kind == ERA_REQ_WRITE)
			req->ops->apply(req, offset, len);
		if (req->kind == ERA_REQ_WRITE) {
			int r = request_pass(era, offset, PLANTED(MARK_FIRST) ? offset : offset + len - 1);
			if (r <= 0) {
				gate_leave(&era->gate, ticket);
				*ret_error = r;
				return r < 0;
			}
		}
		*ret_error = req->ops->apply(req, offset, len);
		gate_note_change(&era->gate, ticket);
		gate_leave(&era->gate, ticket);
		if (*ret_error < 0)
			return true;
		req->done_bytes += len;
	} while (req->done_bytes < req->len);
	return true;
}

/* Under park_lock. */
static void request_enqueue(struct era *era, struct era_req *req)
{
	req->state = ERA_REQ_PARKED;
	if (req->kind == ERA_REQ_FLUSH) {
		list_push(&era->flushes, req);
		pthread_cond_signal(&era->flush_wanted);
	} else {
		list_push(&era->parked, req);
		pthread_cond_signal(&era->commit_wanted);
	}
}

/* Parks req for the first time. 0, or -errno and req is still the caller's. */
static int request_park(struct era *era, struct era_req *req)
{
	int r = req->ops->park(req);
	if (r < 0)
		return r;

	pthread_mutex_lock(&era->park_lock);
	/* A flush holds no data, and may be the second half of a write on a completer, which must not wait for itself. While
	 * frozen, writes wait for so long that reads must not wait behind them. */
	while (req->kind != ERA_REQ_FLUSH && era->nr_waiting >= ERA_PARKED_MAX && !era->stopping &&
		state_now(era) == ERA_RUNNING && req->state == ERA_REQ_NEW)
		pthread_cond_wait(&era->room, &era->park_lock);
	if (req->state == ERA_REQ_CANCELLED)
		r = -EINTR;
	else if (era->stopping)
		r = -EIO;
	else {
		era->nr_waiting++;
		request_enqueue(era, req);
	}
	pthread_mutex_unlock(&era->park_lock);
	return r;
}

void era_submit(struct era *era, struct era_req *req)
{
	int error = 0;

	assert(req->kind == ERA_REQ_FLUSH || (req->len > 0 && req->offset + req->len <= era->image->size_bytes));
	if (era->read_only) {
		req->ops->done(req, req->kind == ERA_REQ_FLUSH ? 0 : -EROFS);
		return;
	}
	if (req->kind == ERA_REQ_FLUSH || !request_try(era, req, &error)) {
		error = request_park(era, req);
		if (error == 0)
			return;
	}
	req->ops->done(req, error);
}

static struct era_list *list_of(struct era *era, const struct era_req *req)
{
	if (req->kind == ERA_REQ_FLUSH)
		return &era->flushes;
	return req->ready ? &era->ready : &era->parked;
}

bool era_cancel(struct era *era, struct era_req *req)
{
	bool ours = false;

	pthread_mutex_lock(&era->park_lock);
	if (req->state == ERA_REQ_NEW) {
		req->state = ERA_REQ_CANCELLED;
		pthread_cond_broadcast(&era->room);
	} else if (req->state == ERA_REQ_PARKED && req->done_bytes == 0) {
		list_remove(list_of(era, req), req);
		req->state = ERA_REQ_CLAIMED;
		era->nr_waiting--;
		pthread_cond_signal(&era->room);
		ours = true;
	} else {
		req->cancel_wanted = true;
	}
	pthread_mutex_unlock(&era->park_lock);
	return ours;
}

bool request_take_parked(struct era *era, struct era_list *ret_batch, struct ahead *ret_ahead)
{
	pthread_mutex_lock(&era->park_lock);
	while (!era->stopping &&
		((!era->parked.head && era->ahead.begin == era->ahead.end) || gate_is_closed(&era->gate)))
		pthread_cond_wait(&era->commit_wanted, &era->park_lock);
	bool go_on = !era->stopping;
	*ret_batch = (struct era_list){ 0 };
	*ret_ahead = era->ahead;
	era->ahead = (struct ahead){ 0 };
	if (go_on) {
		*ret_batch = era->parked;
		era->parked = (struct era_list){ 0 };
		for (struct era_req *req = ret_batch->head; req; req = req->next)
			req->state = ERA_REQ_CLAIMED;
	}
	pthread_mutex_unlock(&era->park_lock);
	return go_on;
}

void request_give_ready(struct era *era, struct era_list *batch)
{
	struct era_req *req;

	pthread_mutex_lock(&era->park_lock);
	while ((req = list_pop(batch))) {
		req->state = ERA_REQ_PARKED;
		req->ready = true;
		list_push(&era->ready, req);
		pthread_cond_signal(&era->finish_wanted);
	}
	pthread_mutex_unlock(&era->park_lock);
}

/* One that was claimed is over: makes room for another. */
static void request_finish(struct era *era, struct era_req *req, int error)
{
	pthread_mutex_lock(&era->park_lock);
	era->nr_waiting--;
	pthread_cond_signal(&era->room);
	pthread_mutex_unlock(&era->park_lock);
	req->ops->done(req, error);
}

void request_end_all(struct era *era, struct era_list *batch, int error)
{
	struct era_req *req;
	while ((req = list_pop(batch)))
		request_finish(era, req, error);
}

/* The era was switched, or the gate closed, before req could use its mark. False: it was cancelled meanwhile, and is over
 * with *ret_error. */
static bool request_park_again(struct era *era, struct era_req *req, int *ret_error)
{
	pthread_mutex_lock(&era->park_lock);
	bool again = !req->cancel_wanted || req->done_bytes > 0;
	if (again)
		request_enqueue(era, req);
	else
		*ret_error = -EINTR;
	pthread_mutex_unlock(&era->park_lock);
	return again;
}

void request_give_back(struct era *era, struct era_list *batch)
{
	struct era_req *req;
	int error;

	while ((req = list_pop(batch)))
		if (!request_park_again(era, req, &error))
			request_finish(era, req, error);
}

static void *completer_thread(void *arg)
{
	struct era *era = arg;

	pthread_mutex_lock(&era->park_lock);
	for (;;) {
		struct era_req *req = list_pop(&era->ready);
		if (!req) {
			if (era->stopping)
				break;
			pthread_cond_wait(&era->finish_wanted, &era->park_lock);
			continue;
		}
		req->state = ERA_REQ_CLAIMED;
		req->ready = false;
		pthread_mutex_unlock(&era->park_lock);

		int error;
		if (request_try(era, req, &error) || !request_park_again(era, req, &error))
			request_finish(era, req, error);
		pthread_mutex_lock(&era->park_lock);
	}
	pthread_mutex_unlock(&era->park_lock);
	return NULL;
}

/* A thread of its own: an fsync may take seconds, and no write waits for one. All who wait share the next. */
static void *flusher_thread(void *arg)
{
	struct era *era = arg;

	pthread_mutex_lock(&era->park_lock);
	while (!era->stopping || era->flushes.head) {
		if (!era->flushes.head) {
			pthread_cond_wait(&era->flush_wanted, &era->park_lock);
			continue;
		}
		struct era_list batch = era->flushes;
		era->flushes = (struct era_list){ 0 };
		for (struct era_req *req = batch.head; req; req = req->next)
			req->state = ERA_REQ_CLAIMED;
		pthread_mutex_unlock(&era->park_lock);
		request_end_all(era, &batch, era_flush_image(era));
		pthread_mutex_lock(&era->park_lock);
	}
	pthread_mutex_unlock(&era->park_lock);
	return NULL;
}

void request_each_waiting(struct era *era, int (*visit)(const struct era_req *req, void *arg), void *arg)
{
	const struct era_list *lists[] = { &era->ready, &era->parked };
	int r = 0;

	pthread_mutex_lock(&era->park_lock);
	for (unsigned int i = 0; i < 2; i++)
		for (const struct era_req *req = lists[i]->head; req && r == 0; req = req->next)
			r = visit(req, arg);
	pthread_mutex_unlock(&era->park_lock);
}

void request_state_changed(struct era *era)
{
	pthread_mutex_lock(&era->park_lock);
	pthread_cond_broadcast(&era->room);
	pthread_mutex_unlock(&era->park_lock);
}

void request_gate_opened(struct era *era)
{
	struct era_req *req;

	/* To the completers first: the switch has carried over the marks of those that have waited longest. */
	pthread_mutex_lock(&era->park_lock);
	while ((req = list_pop(&era->parked))) {
		req->ready = true;
		list_push(&era->ready, req);
		pthread_cond_signal(&era->finish_wanted);
	}
	pthread_mutex_unlock(&era->park_lock);
}

int request_threads_start(struct era *era, unsigned int nr_completers)
{
	era->completers = calloc(nr_completers, sizeof(*era->completers));
	if (!era->completers)
		return -ENOMEM;
	for (; era->nr_completers < nr_completers; era->nr_completers++) {
		int r = -pthread_create(&era->completers[era->nr_completers], NULL, completer_thread, era);
		if (r < 0)
			return r;
	}
	int r = -pthread_create(&era->flusher, NULL, flusher_thread, era);
	era->flusher_runs = r == 0;
	if (r == 0) {
		r = -pthread_create(&era->committer, NULL, commit_thread, era);
		era->committer_runs = r == 0;
	}
	return r;
}

void era_stop_waiting(struct era *era)
{
	pthread_mutex_lock(&era->park_lock);
	era->stopping = true;
	pthread_cond_broadcast(&era->commit_wanted);
	pthread_cond_broadcast(&era->finish_wanted);
	pthread_cond_broadcast(&era->flush_wanted);
	pthread_cond_broadcast(&era->room);
	pthread_mutex_unlock(&era->park_lock);
}

void request_threads_stop(struct era *era)
{
	era_stop_waiting(era);

	/* The committer first: it hands its last batch to completers that still run. */
	if (era->committer_runs)
		pthread_join(era->committer, NULL);
	for (unsigned int i = 0; i < era->nr_completers; i++)
		pthread_join(era->completers[i], NULL);
	free(era->completers);
	/* Last: a write that was completed may have asked for its fsync. */
	if (era->flusher_runs)
		pthread_join(era->flusher, NULL);

	/* Completers put back what the closed gate did not let through. */
	struct era_list left[] = { era->parked, era->ready, era->flushes };
	era->parked = era->ready = era->flushes = (struct era_list){ 0 };
	for (unsigned int i = 0; i < 3; i++)
		request_end_all(era, &left[i], -EIO);
}
