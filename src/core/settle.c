/* SPDX-License-Identifier: MIT */
/*
 * settle - what was written under an intent gets its mark, and the intent goes.
 *
 * A section, under meta_lock: disarm what is of no use any more; collect the bits of all extents that were armed when the
 * section began; one transaction adds the marks and takes those intents back; then exactly the collected bits are
 * published as committed. The transaction need not be durable (META_LAZY): a power loss that takes it back leaves the intents
 * that it removed, and one that keeps it has the marks. Bits of extents that were not armed when the section began are not
 * collected: no durable intent stands for them, and published they would let a second writer pass on a mark that a power loss
 * can take back.
 */
#include "core_private.h"

#include "base/plant.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SETTLE_ROWS 64u /* most rows of marks in a section: well below 5 ms */
#define SETTLE_CHUNKS 2048u /* most chunks that it looks at: likewise */
#define SETTLE_PERIOD_MS 1000
#define SETTLE_URGENT_MS 20 /* between two looks where there is no room for more intents */
#define SETTLE_SHARE 20 /* of its time, the thread settles one part in so many */

enum settle_what {
	SETTLE_KEEP, /* marks alone */
	SETTLE_DROP, /* and intents of no use go */
	SETTLE_ALL, /* all bits, armed or not, of a plane that nobody writes to */
};

struct settle_row {
	uint64_t chunk;
	uint64_t words[BM_CHUNK_WORDS];
};

struct section {
	struct era *era;
	struct plane *plane;
	enum settle_what what;
	struct settle_row rows[SETTLE_ROWS];
	unsigned int nr_rows;
	struct marks dropped; /* extents */
};

static uint64_t nr_chunks(const struct plane *plane)
{
	return bm_nr_chunks(bm_nr_bits(plane->committed));
}

/* The blocks of extent, as a mask of their chunk's words. */
static void mask_extent(const struct plane *plane, uint64_t extent, uint64_t *mask)
{
	uint64_t begin, end;

	plane_extent_blocks(plane, extent, &begin, &end);
	bm_words_set(mask, begin % BM_CHUNK_BITS, (end - 1) % BM_CHUNK_BITS + 1);
}

/* Is an intent of no use any more: each block has its bit in known, or nobody writes there? */
static bool is_useless(const struct section *s, uint64_t extent, const uint64_t *known)
{
	uint64_t begin, end;

	plane_extent_blocks(s->plane, extent, &begin, &end);
	return bm_words_all(known, begin % BM_CHUNK_BITS, (end - 1) % BM_CHUNK_BITS + 1) ||
	       intents_is_cold(&s->era->intents, extent);
}

/* Masks the armed extents of the chunk; disarms those of no use, before anything is collected. 0 or -ENOMEM. */
static int section_mask(struct section *s, uint64_t chunk, uint64_t *ret_mask)
{
	struct plane *plane = s->plane;
	uint64_t known[BM_CHUNK_WORDS], committed[BM_CHUNK_WORDS];
	uint64_t extent = plane_extent_of(plane, chunk * BM_CHUNK_BITS);
	uint64_t end = extent + (BM_CHUNK_BITS >> plane->extent_shift);
	int r = 0;

	end = end < bm_nr_bits(plane->armed) ? end : bm_nr_bits(plane->armed);
	bm_copy_chunk(plane->set, chunk, known);
	bm_copy_chunk(plane->committed, chunk, committed);
	for (unsigned int i = 0; i < BM_CHUNK_WORDS; i++)
		known[i] |= committed[i];
	memset(ret_mask, 0, BM_CHUNK_WORDS * sizeof(*ret_mask));
	for (; r == 0 && extent < end; extent++) {
		if (!bm_test_range(plane->armed, extent, extent + 1))
			continue;
		mask_extent(plane, extent, ret_mask);
		if (s->what != SETTLE_DROP || !is_useless(s, extent, known))
			continue;
		r = marks_add(&s->dropped, extent, extent + 1);
		if (r == 0 && !PLANTED(COLLECT_FIRST))
			plane_disarm(plane, extent);
	}
	return r;
}

/* Collects one chunk. 0 or -ENOMEM. */
static int section_chunk(struct section *s, uint64_t chunk)
{
	struct settle_row *row = &s->rows[s->nr_rows];
	uint64_t mask[BM_CHUNK_WORDS];
	uint64_t any = 0;

	int r = s->what == SETTLE_ALL ? 0 : section_mask(s, chunk, mask);
	if (r < 0 || !plane_collect(s->plane, chunk, row->words))
		return r;
	for (unsigned int i = 0; i < BM_CHUNK_WORDS; i++) {
		if (s->what != SETTLE_ALL && !PLANTED(SETTLE_UNARMED))
			row->words[i] &= mask[i];
		any |= row->words[i];
	}
	row->chunk = chunk;
	s->nr_rows += any != 0;
	return 0;
}

static int drop_intents(uint64_t chunk, const uint64_t *words, void *arg)
{
	const struct section *s = arg;
	return meta_intent_clear(s->era->meta, s->plane->era, UINT64_C(1) << s->plane->extent_shift, chunk, words);
}

/* Inside a transaction. */
static int section_write(struct section *s)
{
	int r = 0;

	for (unsigned int i = 0; r == 0 && i < s->nr_rows && !PLANTED(DROP_WITHOUT_MARKS); i++)
		r = meta_writeset_or(s->era->meta, s->plane->era, s->rows[i].chunk, s->rows[i].words);
	return r < 0 ? r : marks_each_chunk(&s->dropped, drop_intents, s);
}

static int section_commit(struct section *s)
{
	struct era *era = s->era;

	if (s->nr_rows == 0 && s->dropped.nr == 0)
		return 0;
	int r = meta_begin(era->meta, META_LAZY);
	if (r < 0)
		return r;
	r = section_write(s);
	if (r < 0) {
		meta_rollback(era->meta);
		return r;
	}
	/* Guards nothing by itself: until it is durable the intents that it takes back stand for its marks. */
	return era_commit(era, "marks of what was written");
}

/* After the commit: what was collected is committed. After its failure nothing was, and the intents still stand: they are
 * armed again, for a live answer takes the bits of armed extents alone. */
static int section_end(struct section *s, int r)
{
	bool is_committed = r == 0;

	for (unsigned int i = 0; r == 0 && i < s->nr_rows; i++)
		r = bm_or_chunk(s->plane->committed, s->rows[i].chunk, s->rows[i].words);
	for (size_t i = 0; !is_committed && i < s->dropped.nr; i++)
		plane_arm(s->plane, s->dropped.list[i].begin, s->dropped.list[i].end);
	if (PLANTED(COLLECT_FIRST) && is_committed)
		for (size_t i = 0; i < s->dropped.nr; i++)
			for (uint64_t j = s->dropped.list[i].begin; j < s->dropped.list[i].end; j++)
				plane_disarm(s->plane, j);
	s->nr_rows = 0;
	marks_reset(&s->dropped);
	return r;
}

/* On to the next chunk with something armed. */
static uint64_t next_armed_chunk(const struct plane *plane, uint64_t chunk)
{
	uint64_t extent;

	if (!bm_next_bit(plane->armed, plane_extent_of(plane, chunk * BM_CHUNK_BITS), &extent))
		return nr_chunks(plane);
	return (extent << plane->extent_shift) / BM_CHUNK_BITS;
}

/* One section, from chunk *at on, which is moved. 0 or -errno. Under meta_lock. */
static int section_run(struct section *s, uint64_t *at)
{
	uint64_t end = nr_chunks(s->plane);
	int r = 0;

	for (unsigned int i = 0; r == 0 && i < SETTLE_CHUNKS && s->nr_rows < SETTLE_ROWS; i++) {
		if (s->what != SETTLE_ALL && *at < end)
			*at = next_armed_chunk(s->plane, *at);
		if (*at >= end)
			break;
		r = section_chunk(s, *at);
		(*at)++;
	}
	return section_end(s, r < 0 ? r : section_commit(s));
}

static struct section *section_new(struct era *era, struct plane *plane, enum settle_what what)
{
	struct section *s = calloc(1, sizeof(*s));
	if (s) {
		s->era = era;
		s->plane = plane;
		s->what = what;
	}
	return s;
}

static void section_free(struct section *s)
{
	marks_free(&s->dropped);
	free(s);
}

int settle_whole(struct era *era, struct plane *plane)
{
	uint64_t words[BM_CHUNK_WORDS];
	int r = 0;

	if (!plane->set)
		return 0;
	for (uint64_t chunk = 0; r == 0 && chunk < nr_chunks(plane); chunk++)
		if (plane_collect(plane, chunk, words))
			r = meta_writeset_or(era->meta, plane->era, chunk, words);
	return r < 0 ? r : meta_intent_drop(era->meta, plane->era, plane->era + 1);
}

/* The plane that is settled: the current one, or the old one while there is one. Under meta_lock. */
static struct plane *which_plane(struct era *era, enum settle_what what)
{
	return what == SETTLE_ALL ? era->old_plane : era->plane;
}

/* All sections of one of the planes, which may be replaced or go meanwhile: then all that was in it has been settled by who
 * did that, or it has become the old one. -EAGAIN: a freeze has done that, and has given the metadata up. */
static int settle_plane(struct era *era, enum settle_what what, void (*lock)(struct era *era))
{
	struct section *s = section_new(era, NULL, what);
	uint64_t at = 0, of_era = 0;
	bool more = true;
	int r = s ? 0 : -ENOMEM;

	while (r == 0 && more) {
		lock(era);
		s->plane = which_plane(era, what);
		more = s->plane && s->plane->set;
		if (era_is_dead(era))
			r = -EIO;
		else if (!era->meta)
			r = -EAGAIN;
		if (r == 0 && more) {
			at = s->plane->era == of_era ? at : 0;
			of_era = s->plane->era;
			r = section_run(s, &at);
			more = at < nr_chunks(s->plane);
		}
		if (what == SETTLE_DROP && !more && era->plane->nr_armed == 0)
			atomic_store(&era->intents.any, false);
		metalock_release(era);
	}
	if (s)
		section_free(s);
	return r;
}

/* All marks are in: the intents of the old era stand for nothing. Under meta_lock. */
static int old_finish(struct era *era)
{
	int r = meta_begin(era->meta, META_LAZY);
	if (r < 0)
		return r;
	r = meta_intent_drop(era->meta, era->old_plane->era, era->old_plane->era + 1);
	if (r < 0)
		meta_rollback(era->meta);
	else
		/* Guards nothing by itself: until it is durable the marks are reported twice over. */
		r = era_commit(era, "the end of an era's intents");
	return r;
}

int settle_old(struct era *era)
{
	struct plane *plane = era->old_plane; /* changed under switch_lock alone */

	if (!plane)
		return 0;
	int r = plane->set ? settle_plane(era, SETTLE_ALL, metalock_behind) : 0;
	metalock_urgent(era);
	if (r == 0 && plane->set)
		r = era_is_dead(era) ? -EIO : old_finish(era);
	if (r == 0) {
		era->old_plane = NULL;
		era->intents.old_only = 0;
	}
	metalock_release(era);
	if (r == 0)
		plane_free(plane);
	return r;
}

int64_t settle_due_ms(struct era *era)
{
	if (!era->has_intents || !atomic_load(&era->intents.any) || state_now(era) > ERA_FREEZING)
		return INT64_MAX;
	return atomic_load(&era->intents.wanted) ? era->settle_urgent_ms : era->settle_at_ms;
}

int settle_turn(struct era *era)
{
	struct intents *intents = &era->intents;
	int64_t begun_ms = watch_now_ms();

	if (begun_ms < settle_due_ms(era))
		return 0;
	atomic_store(&intents->wanted, false);
	if (begun_ms >= era->epoch_at_ms) {
		uint16_t epoch = (uint16_t)(atomic_load(&intents->epoch) + 1);
		atomic_store(&intents->epoch, epoch ? epoch : 1);
		era->epoch_at_ms = begun_ms + SETTLE_PERIOD_MS;
	}
	int r = settle_plane(era, SETTLE_DROP, metalock_digest);
	int64_t took_ms = watch_now_ms() - begun_ms;
	int64_t pause_ms = took_ms * SETTLE_SHARE;
	era->settle_urgent_ms = watch_now_ms() + (pause_ms > SETTLE_URGENT_MS ? pause_ms : SETTLE_URGENT_MS);
	era->settle_at_ms = watch_now_ms() + (pause_ms > SETTLE_PERIOD_MS ? pause_ms : SETTLE_PERIOD_MS);
	return r;
}

int era_settle(struct era *era, uint64_t *ret_from)
{
	*ret_from = UINT64_MAX;
	metalock_urgent(era);
	/* What is frozen has no intents of ours, and may have those of who has taken it over. */
	bool is_running = era->meta != NULL && !era_is_dead(era);
	metalock_release(era);
	if (!is_running) {
		*ret_from = PLANTED(TRUST_FROZEN) ? era->first_era : UINT64_MAX;
		return 0;
	}
	/* The current plane first: should its era end meanwhile, it is the old one by then. */
	int r = era->has_intents ? settle_plane(era, SETTLE_KEEP, metalock_behind) : 0;
	if (r == 0 && era->has_intents)
		r = settle_plane(era, SETTLE_ALL, metalock_behind);
	if (r == -EAGAIN) /* frozen by now */
		return 0;
	if (r == 0)
		*ret_from = era->first_era;
	return r;
}
