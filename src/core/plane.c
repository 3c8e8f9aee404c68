/* SPDX-License-Identifier: MIT */
#include "plane.h"

#include "base/plant.h"

#include <errno.h>
#include <stdlib.h>

int plane_new(uint64_t nr_blocks, uint64_t era, struct session *session, unsigned int slot, unsigned int extent_shift,
	struct plane **ret_plane)
{
	struct bm_store store;
	struct plane *plane = calloc(1, sizeof(*plane));

	if (!plane)
		return -ENOMEM;
	plane->era = era;
	plane->extent_shift = extent_shift;
	int r = bm_new(nr_blocks, &plane->committed);
	if (r == 0 && session) {
		plane->session = session;
		plane->slot = slot;
		session_slot_take(session, slot, era, &store);
		r = bm_new_in(nr_blocks, &store, &plane->set);
		if (r == 0)
			r = bm_new(((nr_blocks - 1) >> extent_shift) + 1, &plane->armed);
	}
	if (r < 0) {
		plane_free(plane);
		return r;
	}
	*ret_plane = plane;
	return 0;
}

void plane_leave(struct plane *plane)
{
	if (!plane)
		return;
	bm_free(plane->committed);
	bm_free(plane->set);
	bm_free(plane->armed);
	free(plane);
}

void plane_free(struct plane *plane)
{
	if (plane && plane->session)
		session_slot_release(plane->session, plane->slot);
	plane_leave(plane);
}

void plane_extent_blocks(const struct plane *plane, uint64_t extent, uint64_t *ret_begin, uint64_t *ret_end)
{
	uint64_t nr_blocks = bm_nr_bits(plane->committed);
	uint64_t end = (extent + 1) << plane->extent_shift;

	*ret_begin = extent << plane->extent_shift;
	*ret_end = end < nr_blocks ? end : nr_blocks;
}

static bool is_armed(const struct plane *plane, uint64_t extent)
{
	return bm_test_range(plane->armed, extent, extent + 1);
}

static uint64_t part_end(const struct plane *plane, uint64_t begin, uint64_t end)
{
	uint64_t extent_end = (plane_extent_of(plane, begin) + 1) << plane->extent_shift;
	return extent_end < end ? extent_end : end;
}

/* Extent by extent, with intents. */
static bool covers_parts(const struct plane *plane, uint64_t begin, uint64_t end)
{
	for (uint64_t upto; begin < end; begin = upto) {
		upto = part_end(plane, begin, end);
		if (!is_armed(plane, plane_extent_of(plane, begin)) && !bm_test_range(plane->committed, begin, upto))
			return false;
	}
	return true;
}

bool plane_covers(const struct plane *plane, uint64_t begin, uint64_t end)
{
	return bm_test_range(plane->committed, begin, end) || (plane->armed && covers_parts(plane, begin, end));
}

int plane_pass(struct plane *plane, uint64_t begin, uint64_t end)
{
	if (bm_test_range(plane->committed, begin, end))
		return 1;
	if (!plane->armed)
		return 0;
	/* Bits that are there already save the first look and the store, not the look after that: whose they are may not have
	 * passed yet. */
	if (bm_test_range(plane->set, begin, end))
		return PLANTED(ONE_LOOK) || covers_parts(plane, begin, end);
	if (!covers_parts(plane, begin, end))
		return 0;
	for (uint64_t at = begin, upto; at < end; at = upto) {
		upto = part_end(plane, at, end);
		if (bm_test_range(plane->committed, at, upto))
			continue;
		int r = bm_set_range(plane->set, at, upto);
		if (r < 0)
			return r;
	}
	return PLANTED(ONE_LOOK) || covers_parts(plane, begin, end);
}

int plane_arm(struct plane *plane, uint64_t first, uint64_t end)
{
	int r = 0;

	for (uint64_t extent = first; r == 0 && extent < end; extent++) {
		if (is_armed(plane, extent))
			continue;
		r = bm_set_range(plane->armed, extent, extent + 1);
		if (r == 0)
			plane->nr_armed++;
	}
	return r;
}

void plane_disarm(struct plane *plane, uint64_t extent)
{
	bm_clear_range(plane->armed, extent, extent + 1);
	plane->nr_armed--;
}

bool plane_collect(const struct plane *plane, uint64_t chunk, uint64_t ret_words[BM_CHUNK_WORDS])
{
	uint64_t known[BM_CHUNK_WORDS];
	uint64_t any = 0;

	if (!bm_copy_chunk(plane->set, chunk, ret_words))
		return false;
	bm_copy_chunk(plane->committed, chunk, known);
	for (unsigned int i = 0; i < BM_CHUNK_WORDS; i++) {
		ret_words[i] &= ~known[i];
		any |= ret_words[i];
	}
	return any != 0;
}
