/* SPDX-License-Identifier: MIT */
/*
 * commit - the group commit: marks become durable, then visible.
 *
 * One thread takes all requests that wait, sorts the blocks that they touch, ORs them into the current era's writeset in
 * one transaction and commits it with FULL durability. Only after the COMMIT has returned are exactly those blocks set in
 * `committed`: what passes on a bit there is covered by a mark that no crash can take back. (A bit set before its COMMIT
 * would let a second write to the block overtake the first one's pending commit: dm-era's kernel fix 2099b145.)
 *
 * While requests of one batch wait for the disk, the next batch gathers: the more writers, the more share a commit.
 */
#include "core_private.h"

#include "base/plant.h"

#include <errno.h>
#include <stdlib.h>

/* Most rows (chunks) in one commit; what is beyond waits for the next, so that no commit takes long. */
#define COMMIT_ROWS_MAX 512u

/* Likewise for what a switch of eras carries over, with all writers waiting. */
#define CARRY_ROWS_MAX 64u

static void words_set(uint64_t *words, uint64_t begin, uint64_t end)
{
	for (uint64_t bit = begin; bit < end;) {
		uint64_t upto = (bit / 64 + 1) * 64 < end ? (bit / 64 + 1) * 64 : end;
		uint64_t nr = upto - bit;
		uint64_t mask = nr == 64 ? UINT64_MAX : (UINT64_C(1) << nr) - 1;
		words[bit / 64] |= mask << (bit % 64);
		bit = upto;
	}
}

static uint64_t chunk_end(uint64_t block)
{
	return (block / BM_CHUNK_BITS + 1) * BM_CHUNK_BITS;
}

int commit_mark_range(struct meta *meta, uint64_t era_nr, uint64_t begin, uint64_t end)
{
	for (uint64_t upto; begin < end; begin = upto) {
		uint64_t words[BM_CHUNK_WORDS] = { 0 };
		upto = chunk_end(begin) < end ? chunk_end(begin) : end;
		words_set(words, begin % BM_CHUNK_BITS, (upto - 1) % BM_CHUNK_BITS + 1);
		int r = meta_writeset_or(meta, era_nr, begin / BM_CHUNK_BITS, words);
		if (r < 0)
			return r;
	}
	return 0;
}

static int marks_add(struct marks *marks, uint64_t begin, uint64_t end)
{
	if (marks->nr == marks->room) {
		size_t room = marks->room ? marks->room * 2 : 64;
		struct mark *list = reallocarray(marks->list, room, sizeof(*list));
		if (!list)
			return -ENOMEM;
		marks->list = list;
		marks->room = room;
	}
	marks->list[marks->nr++] = (struct mark){ begin, end };
	return 0;
}

/* Adds what req still needs marked in the era whose plane this is. Under meta_lock. */
static int marks_add_request(
	struct marks *marks, const struct era *era, const struct bm *plane, const struct era_req *req)
{
	uint64_t offset, len;

	if (req->kind != ERA_REQ_WRITE)
		return 0;
	request_piece(era, req, &offset, &len);
	uint64_t begin = offset / era->block_size;
	uint64_t end = PLANTED(MARK_FIRST) ? begin + 1 : (offset + len - 1) / era->block_size + 1;
	for (uint64_t upto; begin < end; begin = upto) {
		upto = chunk_end(begin) < end ? chunk_end(begin) : end;
		if (bm_test_range(plane, begin, upto))
			continue;
		int r = marks_add(marks, begin, upto);
		if (r < 0)
			return r;
	}
	return 0;
}

static int mark_compare(const void *a, const void *b)
{
	const struct mark *x = a, *y = b;
	return (x->begin > y->begin) - (x->begin < y->begin);
}

/* Sorts the marks and ORs them into era_nr's writeset, a row once. */
static int marks_write(struct marks *marks, struct meta *meta, uint64_t era_nr)
{
	if (marks->nr > 0)
		qsort(marks->list, marks->nr, sizeof(*marks->list), mark_compare);
	for (size_t i = 0; i < marks->nr;) {
		uint64_t chunk = marks->list[i].begin / BM_CHUNK_BITS;
		uint64_t words[BM_CHUNK_WORDS] = { 0 };
		for (; i < marks->nr && marks->list[i].begin / BM_CHUNK_BITS == chunk; i++)
			words_set(words, marks->list[i].begin % BM_CHUNK_BITS,
				(marks->list[i].end - 1) % BM_CHUNK_BITS + 1);
		int r = meta_writeset_or(meta, era_nr, chunk, words);
		if (r < 0)
			return r;
	}
	return 0;
}

int commit_publish(struct era *era, const struct marks *marks)
{
	int r = 0;
	for (size_t i = 0; i < marks->nr && r == 0; i++)
		r = bm_set_range(era->committed, marks->list[i].begin, marks->list[i].end);
	return r;
}

struct carry {
	struct era *era;
	struct marks *marks;
};

static int carry_request(const struct era_req *req, void *arg)
{
	struct carry *carry = arg;
	if (carry->marks->nr >= CARRY_ROWS_MAX)
		return 1;
	return marks_add_request(carry->marks, carry->era, carry->era->next_committed, req);
}

int commit_carry_over(struct era *era, uint64_t new_era, struct marks *ret_marks)
{
	struct carry carry = { .era = era, .marks = ret_marks };
	request_each_waiting(era, carry_request, &carry);
	return marks_write(ret_marks, era->meta, new_era);
}

/* Makes the marks durable, then visible. Under meta_lock. */
static int marks_commit(struct marks *marks, struct era *era)
{
	int r = meta_begin(era->meta, META_FULL);
	if (r < 0)
		return r;
	r = marks_write(marks, era->meta, meta_super(era->meta)->current_era);
	if (PLANTED(EARLY_PUBLISH) && r == 0)
		r = commit_publish(era, marks);
	if (r < 0) {
		meta_rollback(era->meta);
		return r;
	}
	/* Guards against a crash between here and the image's write: from now on it finds these blocks marked. */
	r = era_commit(era, "marks");
	if (r < 0)
		return r;
	atomic_fetch_add_explicit(&era->nr_commits, 1, memory_order_relaxed);
	return commit_publish(era, marks);
}

/* Moves requests from the front of rest to *ret_group until a commit is full; collects their marks. */
static int commit_collect(
	struct era *era, struct era_list *rest, struct era_list *ret_group, uint64_t *ret_nr, struct marks *marks)
{
	uint64_t nr = 0;
	int r = 0;

	*ret_group = *rest;
	for (struct era_req *req = rest->head; req; req = req->next) {
		r = marks_add_request(marks, era, era->committed, req);
		nr++;
		if (r == 0 && marks->nr < COMMIT_ROWS_MAX && req->next)
			continue;
		rest->head = req->next;
		if (req->next)
			req->next->prev = NULL;
		else
			rest->tail = NULL;
		ret_group->tail = req;
		req->next = NULL;
		break;
	}
	*ret_nr = nr;
	return r;
}

void *commit_thread(void *arg)
{
	struct era *era = arg;
	struct marks marks = { 0 };
	struct era_list rest, group;

	while (request_take_parked(era, &rest)) {
		while (rest.head) {
			uint64_t nr;
			marks.nr = 0;
			metalock_urgent(era);
			/* A checkpoint carries over what waits, and not what is in our hands; a freeze has made, or is about to
			 * make, its last commit. */
			if (gate_is_closed(&era->gate)) {
				metalock_release(era);
				request_give_back(era, &rest);
				break;
			}
			int r = commit_collect(era, &rest, &group, &nr, &marks);
			if (era_is_dead(era))
				r = -EIO;
			if (r == 0 && marks.nr > 0) {
				r = marks_commit(&marks, era);
				atomic_fetch_add_explicit(&era->nr_committed_requests, nr, memory_order_relaxed);
			}
			bool wal_is_due = digest_wal_is_due(era);
			metalock_release(era);
			if (wal_is_due)
				digest_kick(era);
			if (r < 0)
				request_end_all(era, &group, r);
			else
				request_give_ready(era, &group);
		}
	}
	free(marks.list);
	return NULL;
}
