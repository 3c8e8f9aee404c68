/* SPDX-License-Identifier: MIT */
#include "judge.h"

#include "record.h"

#include "base/bitmap.h"
#include "meta/copy.h"
#include "meta/meta.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- histories --- */

void history_begin(struct history *history, const struct log *log)
{
	*history = (struct history){ .log = log, .disk = disk_new(log), .truth = truth_new() };
}

void history_end(struct history *history)
{
	disk_free(history->disk);
	truth_free(history->truth);
	*history = (struct history){ 0 };
}

void history_advance(struct history *history, uint32_t to)
{
	for (; history->at < to; history->at++) {
		const struct log_entry *entry = &history->log->entries[history->at];
		uint8_t *content = NULL;
		size_t size = 0;
		disk_advance(history->disk, history->at + 1);
		if (entry->kind == LOG_DROP_CACHE)
			content = disk_content(history->disk, entry->file, &size);
		truth_feed(history->truth, history->log, history->at, history->base + history->at, content, size);
		free(content);
	}
}

/* --- findings --- */

static bool __attribute__((format(printf, 2, 3))) fail(struct check *check, const char *format, ...)
{
	va_list args;
	if (check->failure[0] != '\0')
		return false;
	va_start(args, format);
	vsnprintf(check->failure, sizeof(check->failure), format, args);
	va_end(args);
	return false;
}

static void first_finding(const char *text, void *arg)
{
	char *first = arg;
	if (first[0] == '\0')
		snprintf(first, 256, "%s", text);
}

/* --- answers --- */

struct answer {
	struct blocks known; /* to have been written */
	struct blocks feared; /* the others: labelled conservative */
};

static void take_blocks(struct bm *bm, struct blocks *ret_blocks)
{
	uint64_t begin, end = 0;

	*ret_blocks = (struct blocks){ 0 };
	while (bm && bm_next_run(bm, end, &begin, &end))
		for (uint64_t block = begin; block < end && block < CRASH_BLOCKS_MAX; block++)
			blocks_add(ret_blocks, block);
	bm_free(bm);
}

static bool read_since(struct check *check, struct meta_reader *reader, uint64_t era, struct answer *ret_answer)
{
	struct err err = ERR_INIT;
	struct bm *known, *feared;

	int r = meta_reader_since(reader, era, &known, &feared, &err);
	if (r < 0)
		return fail(check, "O1: since %" PRIu64 ": %s", era, err.text);
	if (feared && check->mode == MODE_MARKS) {
		bm_free(known);
		bm_free(feared);
		return fail(check, "O4: since %" PRIu64 " is conservative without an intent", era);
	}
	take_blocks(known, &ret_answer->known);
	take_blocks(feared, &ret_answer->feared);
	return true;
}

/* A mark is one block, and made for a write. What intents stand for is labelled, and may be more. */
static bool compare_answer(struct check *check, uint64_t era, const struct blocks *must, const struct answer *answer,
	const struct blocks *may, const char *who)
{
	const struct blocks *is = &answer->known;

	for (uint64_t block = 0; block < CRASH_BLOCKS_MAX; block++) {
		if (blocks_has(must, block) && !blocks_has(is, block) && !blocks_has(&answer->feared, block))
			return fail(check,
				"O2: MISSING: block %" PRIu64 " has changed, and is not in since %" PRIu64 "%s", block,
				era, who);
		if (may && blocks_has(is, block) && !blocks_has(may, block) && !blocks_has(must, block))
			return fail(check,
				"O4: block %" PRIu64 " is in since %" PRIu64
				"%s, and no write of that time may have touched it",
				block, era, who);
	}
	return true;
}

static bool check_answers(struct check *check, const struct truth *truth, const struct truth_image *woken,
	struct meta_reader *reader, const char *who)
{
	const struct meta_super *super = meta_reader_super(reader);

	if (super->durable_era < truth->newest_era)
		return fail(check, "O5: era %" PRIu64 " was shown, and the current one is %" PRIu64 "%s",
			truth->newest_era, super->durable_era, who);
	for (unsigned int i = 0; i < truth->nr_eras; i++) {
		const struct truth_era *era = &truth->eras[i];
		struct blocks must, may;
		struct answer is;
		if (era->era <= super->floor_era)
			return fail(check, "O4: every block is in since %" PRIu64 "%s", era->era, who);
		truth_must(truth, era, woken, &must);
		truth_may(truth, era->asked_at, &may);
		if (!read_since(check, reader, era->era, &is) ||
			!compare_answer(check, era->era, &must, &is, &may, who))
			return false;
	}
	return true;
}

static bool check_labels(struct check *check, const struct truth *truth, struct meta_reader *reader, const char *who)
{
	for (unsigned int i = 0; i < truth->nr_labels; i++) {
		const struct truth_label *label = &truth->labels[i];
		struct err err = ERR_INIT;
		uint64_t era = 0;
		int r = meta_reader_label(reader, label->name, &era, &err);
		if (r < 0 && r != -ENOENT)
			return fail(check, "O1: label %s: %s", label->name, err.text);
		bool good = era == label->era;
		for (unsigned int k = 0; k < label->nr_asked; k++)
			good |= era == label->asked[k];
		if (!good)
			return fail(check, "O5: label %s names era %" PRIu64 ", and was set to %" PRIu64 "%s",
				label->name, era, label->era, who);
	}
	return true;
}

static bool check_database(struct check *check, const struct truth *truth, const struct truth_image *woken,
	const char *who, uint64_t *ret_era)
{
	char finding[256] = "";
	struct err err = ERR_INIT;
	struct meta_reader *reader;

	int r = meta_reader_open(check->scene->db, &reader, &err);
	if (r < 0)
		return fail(check, "O1: cannot be read%s: %s", who, err.text);
	*ret_era = meta_reader_super(reader)->durable_era;
	r = meta_reader_check(reader, first_finding, finding, &err);
	bool good = true;
	if (r != 0)
		good = fail(check, "O1: check finds%s: %s", who, r < 0 ? err.text : finding);
	good = good && check_answers(check, truth, woken, reader, who) && check_labels(check, truth, reader, who);
	meta_reader_close(reader);
	return good;
}

/* Since the era that recovery has begun nobody has written. */
static bool check_new_era(struct check *check, const struct truth *truth, uint64_t era)
{
	struct err err = ERR_INIT;
	struct meta_reader *reader;
	struct blocks may, none = { 0 };
	struct answer is;

	int r = meta_reader_open(check->scene->db, &reader, &err);
	if (r < 0)
		return fail(check, "O1: cannot be read: %s", err.text);
	bool good = read_since(check, reader, era, &is);
	/* What the opening itself has marked came last. */
	truth_may(truth, UINT64_MAX - 1, &may);
	good = good && compare_answer(check, era, &none, &is, &may, " (the new era)");
	meta_reader_close(reader);
	return good;
}

static bool check_snapshot(struct check *check, const struct truth *truth)
{
	char path[300];
	struct err err = ERR_INIT;
	struct meta_reader *reader;

	if (truth->snapshot[0] == '\0')
		return true;
	snprintf(path, sizeof(path), "%s/%s", check->scene->dir, truth->snapshot);
	int r = meta_reader_open_any(path, &reader, &err);
	if (r < 0)
		return fail(check, "O5: a snapshot that was made is not there: %s", err.text);
	bool good = meta_reader_super(reader)->state == META_SNAPSHOT ||
		    fail(check, "O5: %s is no snapshot", truth->snapshot);
	meta_reader_close(reader);
	return good;
}

/* --- one state --- */

static void take_image(const struct woken *woken, struct truth_image *ret_image)
{
	const struct woken_file *file = woken_find(woken, "image");
	if (!file || file->size > CRASH_IMAGE_MAX) {
		fprintf(stderr, "a state without an image: the harness is wrong\n");
		abort();
	}
	memcpy(ret_image->bytes, file->bytes, file->size);
	memset(ret_image->bytes + file->size, 0, CRASH_IMAGE_MAX - file->size);
	ret_image->size = file->size;
}

static bool check_before(struct check *check, const struct truth *truth, const struct truth_image *woken)
{
	uint64_t era;
	int64_t lost = truth_lost_sector(truth, woken);

	if (truth->flaw[0] != '\0')
		return fail(check, "the history itself is wrong: %s", truth->flaw);
	if (lost >= 0)
		return fail(
			check, "O3: bytes at %" PRId64 " were made durable, and are not there", lost * CRASH_SECTOR);
	/* A resize is known once somebody has opened it. */
	if (!check->looks_before || truth->nr_eras == 0 || woken->size != truth->opened_size ||
		truth->image.size != truth->opened_size)
		return true;
	return check_database(check, truth, woken, " (before recovery)", &era) && check_snapshot(check, truth);
}

/* Opens, checks, stops. With a record that runs, marks go into it. */
static bool check_recovery(struct check *check, struct truth *truth, const struct truth_image *woken)
{
	struct err err = ERR_INIT;
	struct era_status status;
	struct era *era = NULL;
	uint64_t now, reader_era = 0;
	struct era_config config = scene_config(check->scene, check->mode);

	config.create = truth->nr_eras == 0;
	config.resize = true;
	record_mark(LOG_LIFE, 0, 0, NULL);
	uint32_t ask = record_mark(LOG_ASK, 0, 0, NULL);
	int r = era_open(&config, &era, &err);
	if (r < 0)
		return fail(check, "%s: it is refused: %s", r == -ENOENT ? "O5" : "O1", err.text);
	era_get_status(era, &status);
	now = status.current_era;
	record_mark(LOG_SHOWN, ask, now, NULL);
	record_mark(LOG_SYNCED, ask, 0, NULL);
	/* All that the recovery has marked was asked for after all else. */
	truth_note_open(truth, truth->opened_size, woken->size, UINT64_MAX - 1, UINT64_MAX);
	bool good = check_database(check, truth, woken, "", &reader_era) && check_new_era(check, truth, now) &&
		    check_snapshot(check, truth);
	if (good && reader_era != now)
		good = fail(check, "O5: the instance says era %" PRIu64 ", the database %" PRIu64, now, reader_era);
	ask = record_mark(LOG_ASK, 0, 0, NULL);
	r = era_close(era, &err);
	if (r < 0)
		good = fail(check, "the stop after the recovery: %s", err.text);
	record_mark(LOG_SYNCED, ask, 0, NULL);
	record_mark(LOG_DEATH, 0, 0, NULL);
	return good;
}

static void wake_up(const struct check *check, const struct woken *woken)
{
	woken_write(woken, check->scene->dir);
	scene_clear_run(check->scene);
	machine_boot(check->scene->run);
}

/* O6: the recovery was recorded; it loses its power too. */
static bool check_cut_recovery(struct check *check, const struct history *outer, const struct log *log)
{
	struct fates fates;
	struct history inner = { .log = log, .disk = disk_new(log), .truth = truth_clone(outer->truth) };
	char failure[sizeof(check->failure)];
	uint32_t nr_base = 1;

	while (nr_base < log->nr && log->entries[nr_base].kind == LOG_BASE_FILE)
		nr_base++;
	inner.base = outer->base + outer->at;
	history_advance(&inner, nr_base + (uint32_t)crash_below(&check->random, log->nr - nr_base + 1));
	fates_choose(inner.disk, (enum fate_style)crash_below(&check->random, NR_FATE_STYLES), &check->random, &fates);
	check->cuts_recovery = false;
	bool good = check_state(check, &inner, &fates);
	check->cuts_recovery = true;
	if (!good) {
		memcpy(failure, check->failure, sizeof(failure));
		snprintf(check->failure, sizeof(check->failure),
			"O6: the recovery lost its power at entry %u of %u (%u changes pending): %.800s", inner.at,
			log->nr, fates.nr, failure);
	}
	fates_clear(&fates);
	history_end(&inner);
	return good;
}

bool check_state(struct check *check, const struct history *history, const struct fates *fates)
{
	struct woken woken;
	struct truth_image *image = malloc(sizeof(*image));
	struct truth *truth = truth_clone(history->truth);
	struct log *log = check->cuts_recovery ? log_new() : NULL;

	if (!image)
		exit(EXIT_FAILURE);
	disk_wake(history->disk, fates, &woken);
	take_image(&woken, image);
	wake_up(check, &woken);
	truth_stop(truth, history->base + history->at);
	bool good = check_before(check, truth, image);
	if (good && log) {
		struct record *record = record_new(log);
		record_start(record, check->scene->dir);
		good = check_recovery(check, truth, image);
		record_stop();
		record_free(record);
		good = good && check_cut_recovery(check, history, log);
	} else if (good) {
		good = check_recovery(check, truth, image);
	}
	log_free(log);
	woken_clear(&woken);
	truth_free(truth);
	free(image);
	return good;
}
