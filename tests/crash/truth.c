/* SPDX-License-Identifier: MIT */
#include "truth.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct truth *truth_new(void)
{
	struct truth *truth = calloc(1, sizeof(*truth));
	if (!truth)
		exit(EXIT_FAILURE);
	truth->image_file = -1;
	return truth;
}

struct truth *truth_clone(const struct truth *truth)
{
	struct truth *clone = malloc(sizeof(*clone));
	if (!clone)
		exit(EXIT_FAILURE);
	memcpy(clone, truth, sizeof(*clone));
	return clone;
}

void truth_free(struct truth *truth)
{
	free(truth);
}

static void flaw(struct truth *truth, const char *text, const struct log *log, uint32_t index)
{
	char entry[160];
	if (truth->flaw[0] != '\0')
		return;
	log_describe(log, index, entry, sizeof(entry));
	snprintf(truth->flaw, sizeof(truth->flaw), "%s: %s", text, entry);
}

/* --- the image --- */

/* The piece of a block that lies inside an image of that size; its length, 0: none. */
static size_t block_len(uint64_t size, uint64_t block)
{
	uint64_t begin = block * CRASH_BLOCK;
	if (begin >= size)
		return 0;
	return (size_t)(size - begin < CRASH_BLOCK ? size - begin : CRASH_BLOCK);
}

static bool block_differs(const struct truth_image *a, const struct truth_image *b, uint64_t block)
{
	size_t len = block_len(a->size, block);
	return len != block_len(b->size, block) ||
	       memcmp(a->bytes + block * CRASH_BLOCK, b->bytes + block * CRASH_BLOCK, len) != 0;
}

static void note_changes(struct truth *truth, const struct truth_image *before, uint64_t at)
{
	for (uint64_t block = 0; block < CRASH_BLOCKS_MAX; block++)
		if (block_differs(before, &truth->image, block))
			truth->changed_at[block] = at;
}

static void touch(struct truth *truth, uint64_t begin, uint64_t end, uint64_t at)
{
	for (uint64_t sector = begin / CRASH_SECTOR; sector * CRASH_SECTOR < end && sector < CRASH_SECTORS_MAX;
		sector++)
		truth->touched_at[sector] = at;
}

static void put_image(struct truth *truth, const uint8_t *bytes, uint64_t size)
{
	memset(truth->image.bytes, 0, sizeof(truth->image.bytes));
	memcpy(truth->image.bytes, bytes, size);
	truth->image.size = size;
}

static void change_image(struct truth *truth, const struct log *log, const struct log_entry *entry, uint64_t at)
{
	uint64_t offset = entry->offset, end = entry->offset + entry->len;

	if (entry->kind == LOG_TRUNCATE) {
		uint64_t smaller = offset < truth->image.size ? offset : truth->image.size;
		memset(truth->image.bytes + smaller, 0, CRASH_IMAGE_MAX - smaller);
		touch(truth, smaller, CRASH_IMAGE_MAX, at);
		truth->image.size = offset;
		return;
	}
	touch(truth, offset, end, at);
	if (entry->kind == LOG_ZERO) {
		memset(truth->image.bytes + offset, 0, entry->len);
		return;
	}
	memcpy(truth->image.bytes + offset, log->data + entry->data, entry->len);
	if (end > truth->image.size)
		truth->image.size = end;
}

/* --- marks --- */

static struct truth_request *add_request(struct truth *truth, uint64_t begun_at, uint64_t over_at, uint32_t ref)
{
	if (truth->nr_requests == TRUTH_REQUESTS_MAX) {
		fprintf(stderr, "too many requests\n");
		exit(EXIT_FAILURE);
	}
	struct truth_request *request = &truth->requests[truth->nr_requests++];
	*request = (struct truth_request){ .begun_at = begun_at, .over_at = over_at, .ref = ref };
	return request;
}

static void end_requests(struct truth *truth, uint64_t at)
{
	for (unsigned int i = 0; i < truth->nr_requests; i++)
		if (truth->requests[i].over_at == UINT64_MAX)
			truth->requests[i].over_at = at;
}

void truth_stop(struct truth *truth, uint64_t at)
{
	end_requests(truth, at);
	truth->is_frozen = truth->is_opening = false;
}

static void show_era(
	struct truth *truth, uint64_t era, uint64_t asked_at, uint64_t at, const struct log *log, uint32_t index)
{
	if (era < truth->newest_era)
		flaw(truth, "the era went back", log, index);
	for (unsigned int i = 0; i < truth->nr_eras; i++)
		if (truth->eras[i].era == era)
			return;
	if (truth->nr_eras == TRUTH_ERAS_MAX) {
		fprintf(stderr, "too many eras\n");
		exit(EXIT_FAILURE);
	}
	truth->eras[truth->nr_eras++] = (struct truth_era){ .era = era, .asked_at = asked_at, .shown_at = at };
	if (era > truth->newest_era)
		truth->newest_era = era;
}

void truth_note_open(struct truth *truth, uint64_t old_size, uint64_t new_size, uint64_t begun_at, uint64_t over_at)
{
	/* -o resize: the last block of the smaller size, and what is new. */
	if (old_size != 0 && old_size != new_size) {
		struct truth_request *request = add_request(truth, begun_at, over_at, 0);
		uint64_t smaller = old_size < new_size ? old_size : new_size;
		for (uint64_t block = (smaller - 1) / CRASH_BLOCK; block * CRASH_BLOCK < new_size; block++)
			blocks_add(&request->blocks, block);
	}
	/* After a failed fsync: all of the eras whose data nobody vouches for, from the newest that was shown on. */
	if (truth->has_failed && truth->nr_eras > 0) {
		struct blocks doubtful;
		truth_may(truth, truth->eras[truth->nr_eras - 1].asked_at, &doubtful);
		add_request(truth, begun_at, over_at, 0)->blocks = doubtful;
	}
	truth->has_failed = false;
	truth->opened_size = new_size;
}

static struct truth_label *find_label(struct truth *truth, const char *name)
{
	for (unsigned int i = 0; i < truth->nr_labels; i++)
		if (strcmp(truth->labels[i].name, name) == 0)
			return &truth->labels[i];
	if (truth->nr_labels == TRUTH_LABELS_MAX)
		exit(EXIT_FAILURE);
	struct truth_label *label = &truth->labels[truth->nr_labels++];
	*label = (struct truth_label){ 0 };
	snprintf(label->name, sizeof(label->name), "%s", name);
	return label;
}

static void feed_request(struct truth *truth, const struct log_entry *entry, uint32_t index, uint64_t at)
{
	struct truth_request *request = add_request(truth, at, UINT64_MAX, index);
	for (uint64_t block = entry->offset / CRASH_BLOCK; block * CRASH_BLOCK < entry->offset + entry->len; block++)
		blocks_add(&request->blocks, block);
}

static void feed_request_done(struct truth *truth, uint32_t ref, uint64_t at)
{
	for (unsigned int i = truth->nr_requests; i-- > 0;)
		if (truth->requests[i].ref == ref && truth->requests[i].over_at == UINT64_MAX) {
			truth->requests[i].over_at = at;
			return;
		}
}

static void feed_mark(struct truth *truth, const struct log *log, uint32_t index, uint64_t at)
{
	const struct log_entry *entry = &log->entries[index];
	/* The log's own begin, at - index, is where its references count from. */
	uint64_t ref_at = at - index + entry->ref;
	struct truth_label *label;

	switch (entry->kind) {
	case LOG_LIFE:
		truth->is_opening = true;
		truth->opening_at = at;
		break;
	case LOG_DEATH:
		truth_stop(truth, at);
		break;
	case LOG_REQUEST:
		feed_request(truth, entry, index, at);
		break;
	case LOG_REQUEST_DONE:
		feed_request_done(truth, entry->ref, at);
		break;
	case LOG_ASK:
		truth->asked_at = at;
		truth->asked = truth->image;
		break;
	case LOG_SHOWN:
		if (truth->is_opening)
			truth_note_open(truth, truth->opened_size, truth->image.size, truth->opening_at, at);
		if (truth->is_resizing)
			note_changes(truth, &truth->unresized, at);
		truth->is_resizing = false;
		truth->is_opening = false;
		show_era(truth, entry->value, ref_at, at, log, index);
		break;
	case LOG_SYNCED:
		if (truth->asked_at == ref_at) {
			truth->synced = truth->asked;
			truth->synced_at = ref_at;
		}
		break;
	case LOG_LABEL_ASK:
		label = find_label(truth, entry->text);
		if (label->nr_asked == TRUTH_ASKED_MAX)
			exit(EXIT_FAILURE);
		label->asked[label->nr_asked++] = entry->value;
		break;
	case LOG_LABEL:
		label = find_label(truth, log->entries[entry->ref].text);
		label->era = log->entries[entry->ref].value;
		label->nr_asked = 0;
		break;
	case LOG_FROZEN:
		truth->is_frozen = true;
		break;
	case LOG_THAWING:
		truth->is_frozen = false;
		break;
	case LOG_SNAPSHOT:
		memcpy(truth->snapshot, entry->text, sizeof(truth->snapshot));
		break;
	}
}

void truth_feed(struct truth *truth, const struct log *log, uint32_t index, uint64_t at, const uint8_t *content,
	size_t content_size)
{
	const struct log_entry *entry = &log->entries[index];
	bool is_image = entry->file == truth->image_file && entry->kind >= LOG_WRITE && entry->kind <= LOG_TRUNCATE;

	if (entry->kind >= LOG_LIFE) {
		feed_mark(truth, log, index, at);
		return;
	}
	if (truth->is_frozen && entry->kind >= LOG_WRITE && entry->kind <= LOG_RENAME)
		flaw(truth, "something was changed although it is frozen", log, index);
	if (entry->kind == LOG_BASE)
		truth_stop(truth, at);
	bool is_base = entry->kind == LOG_BASE_FILE && strcmp(entry->text, "image") == 0;
	bool is_dropped = entry->kind == LOG_DROP_CACHE && entry->file == truth->image_file;
	if (entry->kind == LOG_SYNC_FAILED)
		truth->has_failed = true;
	if (!is_image && !is_base && !is_dropped)
		return;
	struct truth_image *before = malloc(sizeof(*before));
	if (!before)
		exit(EXIT_FAILURE);
	*before = truth->image;
	if (truth->is_resizing)
		*before = truth->unresized;
	if (is_base) {
		truth->is_resizing = false;
		truth->image_file = entry->file;
		put_image(truth, log->data + entry->data, entry->len);
	} else if (is_dropped) {
		put_image(truth, content, content_size);
		for (uint64_t offset = 0; offset < CRASH_IMAGE_MAX; offset += CRASH_SECTOR)
			if (memcmp(before->bytes + offset, truth->image.bytes + offset, CRASH_SECTOR) != 0)
				touch(truth, offset, offset + 1, at);
	} else {
		change_image(truth, log, entry, at);
		truth->is_resizing |= entry->kind == LOG_TRUNCATE;
	}
	if (truth->is_resizing)
		truth->unresized = *before;
	else
		note_changes(truth, before, at);
	free(before);
}

/* --- what is demanded --- */

void truth_must(const struct truth *truth, const struct truth_era *era, const struct truth_image *woken,
	struct blocks *ret_blocks)
{
	const struct truth_image *seen = truth->is_resizing ? &truth->unresized : &truth->image;

	*ret_blocks = (struct blocks){ 0 };
	/* Whatever a copy took from when the era was shown until the end, it had one of the contents of that time. Where there
	 * were two, the woken one differs from one of them; where there was one, it is compared. */
	for (uint64_t block = 0; block * CRASH_BLOCK < woken->size; block++)
		if (truth->changed_at[block] > era->shown_at || block_differs(seen, woken, block))
			blocks_add(ret_blocks, block);
}

void truth_may(const struct truth *truth, uint64_t asked_at, struct blocks *ret_blocks)
{
	*ret_blocks = (struct blocks){ 0 };
	for (unsigned int i = 0; i < truth->nr_requests; i++)
		if (truth->requests[i].over_at > asked_at)
			for (unsigned int w = 0; w < sizeof(ret_blocks->words) / sizeof(ret_blocks->words[0]); w++)
				ret_blocks->words[w] |= truth->requests[i].blocks.words[w];
}

int64_t truth_lost_sector(const struct truth *truth, const struct truth_image *woken)
{
	if (truth->synced_at == 0)
		return -1;
	for (uint64_t sector = 0; sector * CRASH_SECTOR < truth->synced.size; sector++) {
		uint64_t begin = sector * CRASH_SECTOR;
		uint64_t len = truth->synced.size - begin < CRASH_SECTOR ? truth->synced.size - begin : CRASH_SECTOR;
		if (truth->touched_at[sector] > truth->synced_at)
			continue;
		if (begin + len > woken->size || memcmp(truth->synced.bytes + begin, woken->bytes + begin, len) != 0)
			return (int64_t)sector;
	}
	return -1;
}
