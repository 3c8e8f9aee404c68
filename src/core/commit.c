/* SPDX-License-Identifier: MIT */
/*
 * commit - the group commit: marks and intents become durable, then visible.
 *
 * One thread takes all requests that wait and makes, in one transaction with FULL durability, what they need: an intent for
 * the extent of each (intents.h), or, without intents and where there is no room for more of them, a mark for each block
 * that it touches. Only after the COMMIT has returned are exactly those extents set in `armed`, and those blocks in
 * `committed`: what passes on a bit there is covered by what no crash can take back. (A bit set before its COMMIT would let a
 * second write to the block overtake the first one's pending commit: dm-era's kernel fix 2099b145.)
 *
 * While requests of one batch wait for the disk, the next batch gathers: the more writers, the more share a commit.
 */
#include "core_private.h"

#include "base/plant.h"

#include <errno.h>

/* Most rows (chunks) in one commit; what is beyond waits for the next, so that no commit takes long. */
#define COMMIT_ROWS_MAX 512u

/* Likewise for what a switch of eras carries over, with all writers waiting. */
#define CARRY_ROWS_MAX 64u

/* A request of more extents than that gets marks: one commit does as well, and blurs nothing. */
#define ARM_EXTENTS_MAX 4u

int commit_mark_range(struct meta *meta, uint64_t era_nr, uint64_t begin, uint64_t end)
{
	for (uint64_t upto; begin < end; begin = upto) {
		uint64_t words[BM_CHUNK_WORDS] = { 0 };
		upto = (begin / BM_CHUNK_BITS + 1) * BM_CHUNK_BITS;
		upto = upto < end ? upto : end;
		bm_words_set(words, begin % BM_CHUNK_BITS, (upto - 1) % BM_CHUNK_BITS + 1);
		int r = meta_writeset_or(meta, era_nr, begin / BM_CHUNK_BITS, words);
		if (r < 0)
			return r;
	}
	return 0;
}

void batch_free(struct batch *batch)
{
	marks_free(&batch->marks);
	marks_free(&batch->arming.extents);
}

static void batch_begin(struct batch *batch, struct era *era)
{
	marks_reset(&batch->marks);
	if (era->has_intents)
		intents_begin(&era->intents, &batch->arming);
}

/* Marks for those of blocks [begin, end) that have none in plane's era: by chunks, as they are rows. */
static int batch_mark(struct batch *batch, const struct plane *plane, uint64_t begin, uint64_t end)
{
	int r = 0;

	for (uint64_t upto; r == 0 && begin < end; begin = upto) {
		upto = (begin / BM_CHUNK_BITS + 1) * BM_CHUNK_BITS;
		upto = upto < end ? upto : end;
		if (!bm_test_range(plane->committed, begin, upto))
			r = marks_add(&batch->marks, begin, upto);
	}
	return r;
}

/* Intents for blocks [begin, end), or marks where there is no room for more intents. */
static int batch_arm(struct batch *batch, struct era *era, const struct plane *plane, uint64_t begin, uint64_t end)
{
	int r = 0;

	for (uint64_t upto; r >= 0 && begin < end; begin = upto) {
		uint64_t extent = plane_extent_of(plane, begin), extent_begin;
		plane_extent_blocks(plane, extent, &extent_begin, &upto);
		upto = upto < end ? upto : end;
		if (plane_covers(plane, begin, upto))
			continue;
		r = intents_plan(&era->intents, plane, extent, &batch->arming);
		if (r == 0)
			r = batch_mark(batch, plane, begin, upto);
	}
	return r < 0 ? r : 0;
}

/* Adds what req needs in plane's era before it may go on. Under meta_lock. */
static int batch_add_request(struct batch *batch, struct era *era, const struct plane *plane, const struct era_req *req)
{
	uint64_t offset, len;

	if (req->kind != ERA_REQ_WRITE)
		return 0;
	request_piece(era, req, &offset, &len);
	uint64_t begin = offset / era->block_size;
	uint64_t end = PLANTED(MARK_FIRST) ? begin + 1 : (offset + len - 1) / era->block_size + 1;
	if (plane_covers(plane, begin, end))
		return 0;
	if (!era->has_intents || plane_extent_of(plane, end - 1) - plane_extent_of(plane, begin) >= ARM_EXTENTS_MAX)
		return batch_mark(batch, plane, begin, end);
	return batch_arm(batch, era, plane, begin, end);
}

struct put {
	struct meta *meta;
	uint64_t era;
	uint64_t extent;
};

static int put_marks(uint64_t chunk, const uint64_t *words, void *arg)
{
	const struct put *put = arg;
	return meta_writeset_or(put->meta, put->era, chunk, words);
}

static int put_intents(uint64_t chunk, const uint64_t *words, void *arg)
{
	const struct put *put = arg;
	return meta_intent_or(put->meta, put->era, put->extent, chunk, words);
}

/* Inside a transaction. */
static int batch_write(struct batch *batch, struct meta *meta, const struct plane *plane)
{
	struct put put = { .meta = meta, .era = plane->era, .extent = UINT64_C(1) << plane->extent_shift };

	int r = marks_each_chunk(&batch->marks, put_marks, &put);
	return r < 0 ? r : marks_each_chunk(&batch->arming.extents, put_intents, &put);
}

int commit_publish(struct era *era, struct plane *plane, const struct batch *batch)
{
	int r = 0;

	for (size_t i = 0; i < batch->marks.nr && r == 0; i++)
		r = bm_set_range(plane->committed, batch->marks.list[i].begin, batch->marks.list[i].end);
	return r < 0 || !era->has_intents ? r : intents_publish(&era->intents, plane, &batch->arming);
}

struct carry {
	struct era *era;
	struct plane *plane;
	struct batch *batch;
	size_t nr_max; /* of runs in the batch */
};

static int carry_request(const struct era_req *req, void *arg)
{
	struct carry *carry = arg;
	if (carry->batch->marks.nr + carry->batch->arming.extents.nr >= carry->nr_max)
		return 1;
	return batch_add_request(carry->batch, carry->era, carry->plane, req);
}

int commit_carry_over(struct era *era, struct plane *plane, struct batch *batch)
{
	struct carry carry = {
		.era = era, .plane = plane, .batch = batch, .nr_max = batch->arming.extents.nr + CARRY_ROWS_MAX
	};
	request_each_waiting(era, carry_request, &carry);
	return batch_write(batch, era->meta, plane);
}

/* Makes the batch durable, then visible. Under meta_lock. */
static int batch_commit(struct batch *batch, struct era *era)
{
	int r = meta_begin(era->meta, PLANTED(LAZY_MARKS) ? META_LAZY : META_FULL);
	if (r < 0)
		return r;
	r = batch_write(batch, era->meta, era->plane);
	if (PLANTED(EARLY_PUBLISH) && r == 0)
		r = commit_publish(era, era->plane, batch);
	if (r < 0) {
		meta_rollback(era->meta);
		return r;
	}
	/* Guards against a crash between here and the image's write: from now on it finds these blocks marked, or an intent
	 * that counts for them. */
	r = era_commit(era, "marks");
	if (r < 0)
		return r;
	atomic_fetch_add_explicit(&era->nr_commits, 1, memory_order_relaxed);
	return commit_publish(era, era->plane, batch);
}

/* Moves requests from the front of rest to *ret_group until a commit is full; collects what they need. */
static int commit_collect(
	struct era *era, struct era_list *rest, struct era_list *ret_group, uint64_t *ret_nr, struct batch *batch)
{
	uint64_t nr = 0;
	int r = 0;

	*ret_group = *rest;
	for (struct era_req *req = rest->head; req; req = req->next) {
		r = batch_add_request(batch, era, era->plane, req);
		nr++;
		if (r == 0 && batch->marks.nr + batch->arming.extents.nr < COMMIT_ROWS_MAX && req->next)
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

/* One commit, for a group from the front of rest, and for the stream that is ahead. Under meta_lock. */
static int commit_turn(struct era *era, struct era_list *rest, struct era_list *ret_group, const struct ahead *ahead,
	struct batch *batch)
{
	uint64_t nr = 0;
	int r = 0;

	batch_begin(batch, era);
	*ret_group = (struct era_list){ 0 };
	if (rest->head)
		r = commit_collect(era, rest, ret_group, &nr, batch);
	if (r == 0 && ahead->begin < ahead->end)
		intents_plan_ahead(&era->intents, era->plane, ahead->begin, ahead->end, &batch->arming);
	if (era_is_dead(era))
		r = -EIO;
	if (r < 0 || (batch->marks.nr == 0 && batch->arming.extents.nr == 0))
		return r;
	r = batch_commit(batch, era);
	atomic_fetch_add_explicit(&era->nr_committed_requests, nr, memory_order_relaxed);
	return r;
}

void *commit_thread(void *arg)
{
	struct era *era = arg;
	struct batch batch = { 0 };
	struct era_list rest, group;
	struct ahead ahead;

	while (request_take_parked(era, &rest, &ahead)) {
		while (rest.head || ahead.begin < ahead.end) {
			metalock_urgent(era);
			/* A checkpoint carries over what waits, and not what is in our hands; a freeze has made, or is about to
			 * make, its last commit. */
			if (gate_is_closed(&era->gate)) {
				metalock_release(era);
				request_give_back(era, &rest);
				break;
			}
			bool was_any = era->has_intents && atomic_load(&era->intents.any);
			int r = commit_turn(era, &rest, &group, &ahead, &batch);
			bool is_due = digest_wal_is_due(era) ||
				      (era->has_intents && (atomic_load(&era->intents.any) != was_any ||
								   atomic_load(&era->intents.wanted)));
			metalock_release(era);
			ahead = (struct ahead){ 0 };
			if (is_due)
				digest_kick(era);
			if (r < 0)
				request_end_all(era, &group, r);
			else
				request_give_ready(era, &group);
		}
	}
	batch_free(&batch);
	return NULL;
}
