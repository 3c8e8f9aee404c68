/* SPDX-License-Identifier: MIT */
/*
 * truth - what the history up to an entry of the log demands of whatever wakes up there.
 *
 * Positions are numbers that grow with the history; an entry's position is its index, plus what came before the log.
 */
#ifndef TESTS_CRASH_TRUTH_H
#define TESTS_CRASH_TRUTH_H

#include "log.h"

#define CRASH_BLOCK UINT64_C(4096)
#define CRASH_BLOCKS_MAX 68u
#define CRASH_IMAGE_MAX (CRASH_BLOCKS_MAX * CRASH_BLOCK)
#define CRASH_SECTOR 512u
#define CRASH_SECTORS_MAX (CRASH_IMAGE_MAX / CRASH_SECTOR)

/* A set of blocks. */
struct blocks {
	uint64_t words[(CRASH_BLOCKS_MAX + 63) / 64];
};

static inline bool blocks_has(const struct blocks *blocks, uint64_t block)
{
	return blocks->words[block / 64] >> (block % 64) & 1;
}

static inline void blocks_add(struct blocks *blocks, uint64_t block)
{
	blocks->words[block / 64] |= UINT64_C(1) << (block % 64);
}

struct truth_image {
	uint8_t bytes[CRASH_IMAGE_MAX];
	uint64_t size;
};

/* An era that somebody has seen. */
struct truth_era {
	uint64_t era;
	uint64_t asked_at; /* a write that was over by then is in an earlier era */
	uint64_t shown_at; /* a copy of the image may have been taken from then on */
};

/* A write: of a client, or what an open with -o resize or after a failed fsync marks. */
struct truth_request {
	struct blocks blocks;
	uint64_t begun_at;
	uint64_t over_at; /* UINT64_MAX: it is under way */
	uint32_t ref; /* of its begin */
};

#define TRUTH_ASKED_MAX 32

struct truth_label {
	char name[LOG_NAME_MAX + 1];
	uint64_t era; /* acknowledged; 0: there is none */
	uint64_t asked[TRUTH_ASKED_MAX]; /* what may have taken its place since: asked for, and not acknowledged */
	unsigned int nr_asked;
};

#define TRUTH_ERAS_MAX 400
#define TRUTH_REQUESTS_MAX 2000
#define TRUTH_LABELS_MAX 16

struct truth {
	struct truth_image image; /* as the page cache shows it */
	/* A resize from outside, until an instance has opened it: what clients know is the image before. */
	bool is_resizing;
	struct truth_image unresized;
	int image_file; /* its number in the log; -1: none yet */
	uint64_t changed_at[CRASH_BLOCKS_MAX]; /* the last change of each block that clients could see */
	uint64_t touched_at[CRASH_SECTORS_MAX]; /* the last write to each sector */

	struct truth_era eras[TRUTH_ERAS_MAX];
	unsigned int nr_eras;
	uint64_t newest_era; /* of those */

	struct truth_request requests[TRUTH_REQUESTS_MAX];
	unsigned int nr_requests;

	struct truth_label labels[TRUTH_LABELS_MAX];
	unsigned int nr_labels;

	struct truth_image synced; /* durable since the last acknowledgement of that: as it was when it was asked for */
	uint64_t synced_at; /* when it was asked for; 0: never */
	uint64_t asked_at; /* the same of what was asked for last, and is not acknowledged */
	struct truth_image asked;

	char snapshot[LOG_NAME_MAX + 1]; /* a file that must be there; "" */
	bool has_failed; /* an fsync has failed, and nothing has opened it since */
	bool is_frozen; /* nothing may change */
	bool is_opening; /* an instance has not answered yet */
	uint64_t opening_at;
	uint64_t opened_size; /* the image's size at the last open that answered */
	char flaw[256]; /* what the history itself has done wrong; "" */
};

struct truth *truth_new(void);
struct truth *truth_clone(const struct truth *truth);
void truth_free(struct truth *truth);

/* The entry index of log happens at position at. Drop-cache entries need `content`, the image as it is seen after that. */
void truth_feed(struct truth *truth, const struct log *log, uint32_t index, uint64_t at, const uint8_t *content,
	size_t content_size);

/* Blocks that `since era` must have, when the image has woken up as it is in `woken`. */
void truth_must(const struct truth *truth, const struct truth_era *era, const struct truth_image *woken,
	struct blocks *ret_blocks);

/* Blocks that it may have at most: those of writes that were not over when the era was asked for. */
void truth_may(const struct truth *truth, uint64_t asked_at, struct blocks *ret_blocks);

/* The first sector whose acknowledged content is not in woken; -1: all is there. */
int64_t truth_lost_sector(const struct truth *truth, const struct truth_image *woken);

/* The machine stops at that position: what was under way is over. */
void truth_stop(struct truth *truth, uint64_t at);

/* Marks what an instance marks when it opens an image whose size was old_size, or after a failed fsync; position at. */
void truth_note_open(struct truth *truth, uint64_t old_size, uint64_t new_size, uint64_t begun_at, uint64_t over_at);

#endif
