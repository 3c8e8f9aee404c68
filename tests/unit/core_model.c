/* SPDX-License-Identifier: MIT */
#include "core_model.h"

#include "base/cleanup.h"
#include "base/io.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define WHOLE_MAX (UINT64_C(16) << 20) /* an image up to this size is one window */
#define WINDOW_BYTES (UINT64_C(256) << 10)
#define PUNCH_BYTES (UINT64_C(5) << 30) /* more than ERA_PIECE_BLOCKS of 4 KiB */
#define SHOWN_DIFFS 10

/* splitmix64 */
uint64_t model_random(uint64_t *state)
{
	uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

uint64_t model_below(uint64_t *state, uint64_t below)
{
	return model_random(state) % below;
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static void *reserve(uint64_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	expect(memory != MAP_FAILED);
	return memory;
}

static void init_windows(struct model *model, uint64_t *random)
{
	if (model->image_size <= WHOLE_MAX) {
		model->nr_windows = 1;
		model->windows[0] = (struct model_range){ 0, model->image_size };
		return;
	}
	/* One in each twelfth of the image: around a block border, but for the first and the last. */
	uint64_t step = model->image_size / MODEL_WINDOWS;
	model->nr_windows = MODEL_WINDOWS;
	for (uint64_t i = 0; i < MODEL_WINDOWS; i++) {
		uint64_t begin = i * step;
		uint64_t border = (begin + model_below(random, step / 2)) / model->block_size * model->block_size;
		if (i > 0 && i < MODEL_WINDOWS - 1 && border > begin + WINDOW_BYTES &&
			border < begin + step - WINDOW_BYTES)
			begin = border - WINDOW_BYTES / 2;
		if (i == MODEL_WINDOWS - 1)
			begin = model->image_size - WINDOW_BYTES;
		model->windows[i] = (struct model_range){ begin, begin + WINDOW_BYTES };
	}
	uint64_t begin = model->image_size / 2 / model->block_size * model->block_size;
	model->punch_region = (struct model_range){ begin, min_u64(begin + PUNCH_BYTES, model->image_size) };
}

void model_init(struct model *model, const struct model_geometry *geometry, uint64_t *random)
{
	memset(model, 0, sizeof(*model));
	model->block_size = geometry->block_size;
	model->image_size = geometry->image_size;
	model->nr_blocks = (geometry->image_size + geometry->block_size - 1) / geometry->block_size;
	model->last_era = reserve(model->nr_blocks * sizeof(*model->last_era));
	model->bytes = reserve(model->image_size);
	init_windows(model, random);
}

void model_free(struct model *model)
{
	munmap(model->last_era, model->nr_blocks * sizeof(*model->last_era));
	munmap(model->bytes, model->image_size);
}

/* A range of 1 to max bytes inside of `in`; often at the border of a block, or a byte beside it. */
static struct model_range pick_range(const struct model *model, struct model_range in, uint64_t max, uint64_t *random)
{
	uint64_t size = in.end - in.begin;
	uint64_t begin = in.begin + model_below(random, size);
	if (model_below(random, 3) == 0) {
		uint64_t border = begin / model->block_size * model->block_size;
		int64_t beside = (int64_t)model_below(random, 3) - 1;
		if (border > in.begin)
			begin = min_u64(border + (uint64_t)beside, in.end - 1);
	}
	uint64_t len = 1 + model_below(random, min_u64(max, in.end - begin));
	switch (model_below(random, 4)) {
	case 0:
		len = min_u64(1 + model_below(random, 32), len);
		break;
	case 1: /* up to the border of a block */
		len = min_u64(
			len + (model->block_size - (begin + len) % model->block_size), min_u64(max, in.end - begin));
		break;
	}
	return (struct model_range){ begin, begin + len };
}

static struct model_range pick_write(const struct model *model, uint64_t *random)
{
	struct model_range window = model->windows[model_below(random, model->nr_windows)];
	uint64_t max =
		model_below(random, 8) == 0 ? MODEL_WRITE_MAX : min_u64(MODEL_WRITE_MAX, 5 * model->block_size / 2);
	return pick_range(model, window, max, random);
}

/* Writes of one burst do not overlap: what two of them leave would be anybody's guess. */
static void pick_burst(const struct model *model, uint64_t *random, struct model_op *op)
{
	struct model_range window = model->windows[model_below(random, model->nr_windows)];
	op->nr = 2 + (unsigned int)model_below(random, MODEL_BURST - 1);
	uint64_t part = (window.end - window.begin) / op->nr;
	if (part == 0) {
		op->nr = 1;
		part = window.end - window.begin;
	}
	for (unsigned int i = 0; i < op->nr; i++) {
		struct model_range in = { window.begin + i * part, window.begin + (i + 1) * part };
		op->ranges[i] = pick_range(model, in, 20000, random);
	}
}

static void pick_copy(const struct model *model, uint64_t *random, struct model_op *op)
{
	struct model_range from = pick_write(model, random), to = pick_write(model, random);
	uint64_t len = min_u64(from.end - from.begin, to.end - to.begin);
	op->from = from.begin;
	op->ranges[0] = (struct model_range){ to.begin, to.begin + len };
	if (op->from < to.begin + len && to.begin < op->from + len)
		op->kind = MODEL_WRITE; /* ranges of a copy may not overlap */
}

static enum model_kind pick_kind(uint64_t *random)
{
	static const struct {
		enum model_kind kind;
		unsigned int share;
	} table[] = {
		{ MODEL_WRITE, 560 },
		{ MODEL_BURST_OF_WRITES, 120 },
		{ MODEL_PUNCH, 60 },
		{ MODEL_ZERO, 50 },
		{ MODEL_COPY, 60 },
		{ MODEL_FSYNC, 30 },
		{ MODEL_CHECKPOINT, 50 },
		{ MODEL_CHECKPOINT_LABEL, 10 },
		{ MODEL_LABEL, 20 },
		{ MODEL_UNLABEL, 10 },
		{ MODEL_SINCE, 30 },
	};
	uint64_t at = model_below(random, 1000);
	size_t i = 0;
	while (at >= table[i].share)
		at -= table[i++].share;
	return table[i].kind;
}

void model_pick_op(const struct model *model, uint64_t *random, struct model_op *ret_op)
{
	*ret_op = (struct model_op){ .kind = pick_kind(random), .nr = 1, .seed = model_random(random) };
	ret_op->arg = model_random(random);
	ret_op->ranges[0] = pick_write(model, random);
	if (ret_op->kind == MODEL_BURST_OF_WRITES)
		pick_burst(model, random, ret_op);
	else if (ret_op->kind == MODEL_COPY)
		pick_copy(model, random, ret_op);
	else if (ret_op->kind == MODEL_PUNCH && model->punch_region.end > 0 && model_below(random, 8) == 0)
		ret_op->ranges[0] = pick_range(model, model->punch_region, UINT64_MAX, random);
	if (ret_op->kind >= MODEL_FSYNC)
		ret_op->nr = 0;
}

void model_fill(const struct model_op *op, unsigned int i, uint8_t *ret_bytes)
{
	uint64_t state = op->seed + i;
	uint64_t len = op->ranges[i].end - op->ranges[i].begin;
	for (uint64_t at = 0; at < len; at += 8) {
		uint64_t word = model_random(&state);
		memcpy(ret_bytes + at, &word, min_u64(8, len - at));
	}
}

static bool op_writes_zeros(const struct model_op *op)
{
	return op->kind == MODEL_PUNCH || op->kind == MODEL_ZERO;
}

/* The bytes of range i after the op; malloc'ed, NULL: zeros. */
static uint8_t *new_bytes(const struct model *model, const struct model_op *op, unsigned int i)
{
	if (op_writes_zeros(op))
		return NULL;
	uint64_t len = op->ranges[i].end - op->ranges[i].begin;
	uint8_t *bytes = malloc(len);
	expect(bytes != NULL);
	if (op->kind == MODEL_COPY)
		memcpy(bytes, model->bytes + op->from, len);
	else
		model_fill(op, i, bytes);
	return bytes;
}

/* The n-th piece of range that lies in a window; outside of them all is zero for ever. */
static bool window_piece(const struct model *model, struct model_range range, unsigned int n, struct model_range *ret)
{
	ret->begin = max_u64(range.begin, model->windows[n].begin);
	ret->end = min_u64(range.end, model->windows[n].end);
	return ret->begin < ret->end;
}

void model_apply_range(struct model *model, const struct model_op *op, unsigned int i)
{
	struct model_range range = op->ranges[i], piece;
	uint8_t *bytes = new_bytes(model, op, i);
	for (unsigned int n = 0; n < model->nr_windows; n++) {
		if (!window_piece(model, range, n, &piece))
			continue;
		if (bytes != NULL)
			memcpy(model->bytes + piece.begin, bytes + (piece.begin - range.begin),
				piece.end - piece.begin);
		else
			memset(model->bytes + piece.begin, 0, piece.end - piece.begin);
	}
	free(bytes);
	for (uint64_t block = range.begin / model->block_size; block <= (range.end - 1) / model->block_size; block++)
		model->last_era[block] = (uint32_t)model->era;
}

void model_apply(struct model *model, const struct model_op *op)
{
	for (unsigned int i = 0; i < op->nr; i++)
		model_apply_range(model, op, i);
	uint64_t label = op->arg % MODEL_LABELS;
	if (op->kind == MODEL_CHECKPOINT || op->kind == MODEL_CHECKPOINT_LABEL)
		model->era++;
	if (op->kind == MODEL_CHECKPOINT_LABEL || op->kind == MODEL_LABEL)
		model->label_eras[label] = model->era;
	if (op->kind == MODEL_UNLABEL)
		model->label_eras[label] = 0;
}

/* One block's piece of a range that was in flight. */
static bool absorb_piece(
	struct model *model, struct model_range piece, const uint8_t *bytes, const uint8_t *now, bool reported)
{
	uint8_t *old = model->bytes + piece.begin;
	for (uint64_t at = 0; at < piece.end - piece.begin; at++) {
		if (now[at] != old[at] && now[at] != (bytes != NULL ? bytes[at] : 0)) {
			fprintf(stderr, "byte %llu is neither old nor new\n", (unsigned long long)(piece.begin + at));
			return false;
		}
		if (now[at] != old[at] && !reported) {
			fprintf(stderr, "MISSING: block %llu was changed in flight and is not reported\n",
				(unsigned long long)(piece.begin / model->block_size));
			return false;
		}
	}
	memcpy(old, now, piece.end - piece.begin);
	return true;
}

bool model_absorb(
	struct model *model, const struct model_op *op, unsigned int i, int image_fd, const struct core_since *since)
{
	struct model_range range = op->ranges[i];
	CLEANUP_FREE uint8_t *bytes = new_bytes(model, op, i);
	CLEANUP_FREE uint8_t *now = malloc(WHOLE_MAX);
	bool good = true;
	for (unsigned int n = 0; n < model->nr_windows; n++) {
		struct model_range piece;
		if (!window_piece(model, range, n, &piece))
			continue;
		for (uint64_t end = piece.end; good && piece.begin < end; piece.begin = piece.end) {
			uint64_t block = piece.begin / model->block_size;
			piece.end = min_u64(end, (block + 1) * model->block_size);
			size_t len = piece.end - piece.begin;
			good = len <= WHOLE_MAX && io_pread_full(image_fd, now, len, piece.begin) == (ssize_t)len &&
			       absorb_piece(model, piece, bytes != NULL ? bytes + (piece.begin - range.begin) : NULL,
				       now, core_since_has(since, block));
		}
	}
	for (uint64_t block = range.begin / model->block_size; block <= (range.end - 1) / model->block_size; block++)
		if (core_since_has(since, block))
			model->last_era[block] = (uint32_t)model->era;
	return good;
}

static void show_diff(const struct model *model, uint64_t block, uint64_t era, unsigned int *nr_diffs)
{
	if ((*nr_diffs)++ < SHOWN_DIFFS)
		fprintf(stderr, "%s since %llu: block %llu, last written in era %u\n",
			model->last_era[block] >= era ? "MISSING" : "too much", (unsigned long long)era,
			(unsigned long long)block, model->last_era[block]);
}

/* Blocks of a region that the answer must hold. */
static void check_region(const struct model *model, const struct core_since *since, uint64_t era,
	struct model_range region, unsigned int *nr_diffs)
{
	if (region.begin >= region.end)
		return;
	for (uint64_t block = region.begin / model->block_size; block <= (region.end - 1) / model->block_size; block++)
		if (model->last_era[block] >= era && !core_since_has(since, block))
			show_diff(model, block, era, nr_diffs);
}

bool model_check_since(const struct model *model, const struct core_since *since, uint64_t era)
{
	unsigned int nr_diffs = 0;
	uint64_t begin, end = 0;
	if (since->super.nr_blocks != model->nr_blocks || since->super.block_size != model->block_size) {
		fprintf(stderr, "geometry: %llu blocks\n", (unsigned long long)since->super.nr_blocks);
		return false;
	}
	if (era == 0 || since->all)
		return era == 0 && since->all;
	while (nr_diffs < SHOWN_DIFFS && bm_next_run(since->blocks, end, &begin, &end))
		for (uint64_t block = begin; block < end && nr_diffs < SHOWN_DIFFS; block++)
			if (model->last_era[block] < era)
				show_diff(model, block, era, &nr_diffs);
	for (unsigned int i = 0; i < model->nr_windows; i++)
		check_region(model, since, era, model->windows[i], &nr_diffs);
	check_region(model, since, era, model->punch_region, &nr_diffs);
	return nr_diffs == 0;
}

static bool check_bytes(const struct model *model, int image_fd, struct model_range range)
{
	CLEANUP_FREE uint8_t *bytes = malloc(WINDOW_BYTES);
	for (uint64_t at = range.begin; at < range.end; at += WINDOW_BYTES) {
		size_t len = min_u64(WINDOW_BYTES, range.end - at);
		if (io_pread_full(image_fd, bytes, len, at) != (ssize_t)len ||
			memcmp(bytes, model->bytes + at, len) != 0) {
			fprintf(stderr, "the image differs in [%llu, +%zu)\n", (unsigned long long)at, len);
			return false;
		}
	}
	return true;
}

bool model_check_image(const struct model *model, int image_fd)
{
	uint64_t at = 0;
	for (unsigned int i = 0; i < model->nr_windows; i++) {
		const struct model_range *window = &model->windows[i];
		/* No data before the window: the next byte that is there is in it. */
		off_t data = lseek(image_fd, (off_t)at, SEEK_DATA);
		if (data >= 0 && (uint64_t)data < window->begin / 4096 * 4096) {
			fprintf(stderr, "data at %lld, where nothing was written\n", (long long)data);
			return false;
		}
		if (!check_bytes(model, image_fd, *window))
			return false;
		at = (window->end + 4095) / 4096 * 4096;
	}
	off_t data = at < model->image_size ? lseek(image_fd, (off_t)at, SEEK_DATA) : -1;
	if (data >= 0)
		fprintf(stderr, "data at %lld, where nothing was written\n", (long long)data);
	return data < 0;
}

const char *model_label_name(uint64_t label)
{
	static const char *const names[MODEL_LABELS] = { "nightly", "weekly", "_x", "a-b", "Z.9", "yearly" };
	return names[label % MODEL_LABELS];
}
