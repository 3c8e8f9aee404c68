/* SPDX-License-Identifier: MIT */
#include "intents.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* A miss widens by 4 while the last one near it is not older. */
#define WIDEN_EPOCHS 2
#define WIDEN_LEVELS 3

/* A stream that has come within AHEAD_NEAR extents of what is not armed gets AHEAD_NR more. */
#define AHEAD_NEAR 8u
#define AHEAD_NR 32u

/* Tables of all extents: pages that nobody touches cost nothing. */
static int table_new(size_t bytes, void **ret_table)
{
	void *table = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (table == MAP_FAILED)
		return -ENOMEM;
	*ret_table = table;
	return 0;
}

unsigned int intents_shift(uint64_t block_size, uint64_t extent_bytes)
{
	unsigned int shift = 0;

	while (shift < 12 && (block_size << (shift + 1)) <= extent_bytes)
		shift++;
	return shift;
}

int intents_init(
	struct intents *intents, uint64_t nr_blocks, uint64_t block_size, uint64_t extent_bytes, uint64_t max_bytes)
{
	void *used, *regions;

	intents->extent_shift = intents_shift(block_size, extent_bytes);
	intents->nr_extents = ((nr_blocks - 1) >> intents->extent_shift) + 1;
	intents->max = max_bytes == UINT64_MAX ? UINT64_MAX : max_bytes / (block_size << intents->extent_shift);
	atomic_init(&intents->epoch, 1);
	intents->used_bytes = intents->nr_extents * sizeof(*intents->used);
	int r = table_new(intents->used_bytes, &used);
	if (r < 0)
		return r;
	intents->used = used;
	intents->regions_bytes = (intents->nr_extents / INTENT_REGION + 1) * sizeof(*intents->regions);
	r = table_new(intents->regions_bytes, &regions);
	if (r == 0)
		intents->regions = regions;
	return r;
}

void intents_clear(struct intents *intents)
{
	if (intents->used)
		munmap((void *)intents->used, intents->used_bytes);
	if (intents->regions)
		munmap(intents->regions, intents->regions_bytes);
}

/* Epochs since extent was written (or armed) last; a great number where it never was. */
static unsigned int age_of(const struct intents *intents, uint64_t extent)
{
	uint16_t used = atomic_load_explicit(&intents->used[extent], memory_order_relaxed);
	uint16_t epoch = atomic_load_explicit(&intents->epoch, memory_order_relaxed);

	return used == 0 ? UINT16_MAX : (uint16_t)(epoch - used);
}

bool intents_is_cold(const struct intents *intents, uint64_t extent)
{
	return age_of(intents, extent) > INTENT_COLD;
}

bool intents_note_use(struct intents *intents, const struct plane *plane, uint64_t begin, uint64_t end,
	uint64_t *ret_ahead, uint64_t *ret_ahead_end)
{
	uint16_t epoch = atomic_load_explicit(&intents->epoch, memory_order_relaxed);
	uint64_t last = plane_extent_of(plane, end - 1);

	/* Looked at first: all writers share these cache lines. */
	for (uint64_t extent = plane_extent_of(plane, begin); extent <= last; extent++)
		if (atomic_load_explicit(&intents->used[extent], memory_order_relaxed) != epoch)
			atomic_store_explicit(&intents->used[extent], epoch, memory_order_relaxed);
		else if (extent == last)
			return false;
	/* Once an extent and epoch: the one before it was written just now, and what comes is not armed far enough. */
	if (last == 0 || age_of(intents, last - 1) > 1 || last + AHEAD_NEAR >= intents->nr_extents ||
		bm_test_range(plane->armed, last + AHEAD_NEAR, last + AHEAD_NEAR + 1))
		return false;
	*ret_ahead = last + 1;
	*ret_ahead_end = last + 1 + AHEAD_NR < intents->nr_extents ? last + 1 + AHEAD_NR : intents->nr_extents;
	return true;
}

void intents_begin(struct intents *intents, struct arming *arming)
{
	intents->batch++;
	marks_reset(&arming->extents);
	arming->nr = 0;
}

static bool is_armed(const struct plane *plane, uint64_t extent)
{
	return bm_test_range(plane->armed, extent, extent + 1);
}

static uint64_t room_of(const struct intents *intents, const struct plane *plane, const struct arming *arming)
{
	uint64_t taken = plane->nr_armed + intents->old_only + arming->nr;
	return taken < intents->max ? intents->max - taken : 0;
}

static bool is_recent(const struct intents *intents, const struct intent_region *region)
{
	return region->epoch != 0 && (uint16_t)(intents->epoch - region->epoch) <= WIDEN_EPOCHS;
}

/* How many extents a miss in this region arms. */
static uint64_t region_width(const struct intents *intents, struct intent_region *region, bool is_first)
{
	if (is_recent(intents, region))
		region->level = (uint8_t)(region->level + (region->level < WIDEN_LEVELS));
	else
		/* A stream that comes from the region before goes on as wide. */
		region->level = !is_first && is_recent(intents, region - 1) && region[-1].level == WIDEN_LEVELS
					? WIDEN_LEVELS
					: 0;
	region->epoch = intents->epoch;
	return UINT64_C(1) << 2 * region->level;
}

int intents_plan(struct intents *intents, const struct plane *plane, uint64_t extent, struct arming *arming)
{
	struct intent_region *region = &intents->regions[extent / INTENT_REGION];
	uint64_t first = extent / INTENT_REGION * INTENT_REGION;
	uint64_t begin = extent, end = extent + 1;
	uint64_t room = room_of(intents, plane, arming);

	if (region->batch == intents->batch && extent >= first + region->begin && extent < first + region->end)
		return 1;
	if (room == 0) {
		atomic_store_explicit(&intents->wanted, true, memory_order_relaxed);
		return 0;
	}
	if (region->batch != intents->batch) {
		uint64_t width = region_width(intents, region, first == 0);
		width = width <= room ? width : 1;
		begin = extent / width * width;
		end = begin + width < intents->nr_extents ? begin + width : intents->nr_extents;
		region->batch = intents->batch;
		region->begin = (uint8_t)(begin - first);
		region->end = (uint8_t)(end - first);
	}
	int r = marks_add(&arming->extents, begin, end);
	for (uint64_t i = begin; r == 0 && i < end; i++)
		arming->nr += !is_armed(plane, i);
	return r < 0 ? r : 1;
}

void intents_plan_ahead(
	struct intents *intents, const struct plane *plane, uint64_t begin, uint64_t end, struct arming *arming)
{
	for (uint64_t i = begin; i < end && room_of(intents, plane, arming) > 0; i++) {
		if (is_armed(plane, i))
			continue;
		if (marks_add(&arming->extents, i, i + 1) < 0)
			break;
		arming->nr++;
	}
}

/* Plans what was written lately in the extents of one chunk of blocks, where those are that were written in this era. */
static int plan_hot_chunk(struct intents *intents, const struct plane *plane, uint64_t chunk, const uint64_t *written,
	uint64_t *not_armed, struct arming *arming)
{
	uint64_t first = plane_extent_of(plane, chunk * BM_CHUNK_BITS);
	uint64_t end = first + (BM_CHUNK_BITS >> plane->extent_shift);
	int r = 0;

	end = end < intents->nr_extents ? end : intents->nr_extents;
	for (uint64_t extent = first; r == 0 && extent < end; extent++) {
		uint64_t begin, blocks_end;
		plane_extent_blocks(plane, extent, &begin, &blocks_end);
		/* Armed extents that nobody has written to are not hot. */
		if (age_of(intents, extent) > INTENT_HOT ||
			!bm_words_any(written, begin % BM_CHUNK_BITS, (blocks_end - 1) % BM_CHUNK_BITS + 1))
			continue;
		/* What is armed in both eras is blurred once. */
		if (!is_armed(plane, extent) && (*not_armed)++ + plane->nr_armed >= intents->max)
			continue;
		r = marks_add(&arming->extents, extent, extent + 1);
		arming->nr++;
	}
	return r;
}

int intents_plan_hot(struct intents *intents, const struct plane *plane, struct arming *arming)
{
	uint64_t written[BM_CHUNK_WORDS], committed[BM_CHUNK_WORDS];
	uint64_t nr_chunks = bm_nr_chunks(bm_nr_bits(plane->committed));
	uint64_t not_armed = 0;
	int r = 0;

	for (uint64_t chunk = 0; r == 0 && chunk < nr_chunks; chunk++) {
		bool any = bm_copy_chunk(plane->set, chunk, written);
		if (!bm_copy_chunk(plane->committed, chunk, committed) && !any)
			continue;
		for (unsigned int i = 0; i < BM_CHUNK_WORDS; i++)
			written[i] |= committed[i];
		r = plan_hot_chunk(intents, plane, chunk, written, &not_armed, arming);
	}
	return r;
}

void intents_begin_era(
	struct intents *intents, const struct plane *plane, struct arming *hot, struct arming *ret_arming)
{
	intents->batch++;
	intents->old_only = plane->nr_armed;
	for (size_t i = 0; i < hot->extents.nr; i++)
		for (uint64_t extent = hot->extents.list[i].begin; extent < hot->extents.list[i].end; extent++)
			if (is_armed(plane, extent) && intents->old_only > 0)
				intents->old_only--;
	*ret_arming = *hot;
	*hot = (struct arming){ 0 };
}

int intents_publish(struct intents *intents, struct plane *plane, const struct arming *arming)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < arming->extents.nr; i++) {
		const struct mark *run = &arming->extents.list[i];
		for (uint64_t extent = run->begin; extent < run->end; extent++)
			if (intents_is_cold(intents, extent))
				atomic_store_explicit(&intents->used[extent], intents->epoch, memory_order_relaxed);
		r = plane_arm(plane, run->begin, run->end);
	}
	if (plane->nr_armed > 0)
		atomic_store(&intents->any, true);
	return r;
}
