/* SPDX-License-Identifier: MIT */
/*
 * A live instance is asked first and its database read afterwards: what the instance counts as written when it answers
 * is in the database by then, and the snapshot is of a later instant. Its current era is the newest one that may be
 * shown; a later one in the snapshot may have image data that a power loss takes back.
 */
#include "since.h"

#include "binding.h"

#include "base/num.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define SINCE_FULL "take a full backup"

int since_parse_era(const char *text, uint64_t *ret_era, struct err *err)
{
	if (text[0] == '-')
		return err_set_exit(err, ERR_EXIT_USAGE, -EINVAL, "'%s': an era cannot be negative", text);
	int r = num_parse_u64(text, ret_era);
	if (r == -ERANGE)
		return err_set_exit(err, ERR_EXIT_USAGE, r, "'%s': too great a number for an era", text);
	if (r < 0)
		return err_set_exit(err, ERR_EXIT_USAGE, r, "'%s': is not the number of an era", text);
	return 0;
}

int since_check_label(const char *name, struct err *err)
{
	if (meta_label_is_valid(name))
		return 0;
	return err_set_exit(err, ERR_EXIT_USAGE, -EINVAL,
		"'%s': cannot be a label: a letter or underscore, then letters, digits, '.', '_' or '-', at most %d in all",
		name, META_LABEL_MAX);
}

static int since_parse_cursor(const char *text, const char *colon, struct since_point *ret_point, struct err *err)
{
	char uuid[NUM_UUID_TEXT];
	ret_point->kind = SINCE_CURSOR;
	if ((size_t)(colon - text) == sizeof(uuid) - 1) {
		memcpy(uuid, text, sizeof(uuid) - 1);
		uuid[sizeof(uuid) - 1] = '\0';
		if (num_uuid_parse(uuid, ret_point->uuid) == 0)
			return since_parse_era(colon + 1, &ret_point->era, err);
	}
	return err_set_exit(
		err, ERR_EXIT_USAGE, -EINVAL, "'%s': is no cursor: what stands before the colon is no UUID", text);
}

int since_parse_point(const char *text, struct since_point *ret_point, struct err *err)
{
	*ret_point = (struct since_point){ .kind = SINCE_ERA };
	const char *colon = strchr(text, ':');
	if (colon != NULL)
		return since_parse_cursor(text, colon, ret_point, err);
	if (text[0] == '-' || (text[0] != '\0' && text[strspn(text, "0123456789")] == '\0'))
		return since_parse_era(text, &ret_point->era, err);
	if (!meta_label_is_valid(text))
		return err_set_exit(err, ERR_EXIT_USAGE, -EINVAL,
			"'%s': is neither the number of an era, nor a cursor (UUID:ERA), nor a label", text);
	ret_point->kind = SINCE_LABEL;
	ret_point->label = text;
	return 0;
}

/* What a live instance says of itself, or what the database at rest does. */
struct since_now {
	uint8_t uuid[16];
	uint64_t current_era; /* the newest that may be shown */
	uint64_t settled_from; /* see meta_reader_trust(); UINT64_MAX: nothing is */
};

/* Asks the live target; *ret_path is malloc'ed. */
static int since_query(const struct target *target, struct since_now *ret_now, char **ret_path, struct err *err)
{
	json_t *reply;
	int r = target_call(target, json_pack("{s:s}", "request", "query"), TARGET_REPLY_S, &reply, err);
	if (r < 0)
		return r;
	const char *uuid = ctl_string(reply, "uuid");
	const char *path = ctl_string(reply, "metadata");
	if (uuid == NULL || path == NULL || num_uuid_parse(uuid, ret_now->uuid) < 0 ||
		ctl_u64(reply, "current_era", &ret_now->current_era) < 0)
		r = err_set(err, -EPROTO, "%s: its instance answered what is no reply: is it of another version?",
			target->name);
	if (ctl_u64(reply, "settled_from", &ret_now->settled_from) < 0)
		ret_now->settled_from = UINT64_MAX;
	if (r == 0) {
		*ret_path = strdup(path);
		r = *ret_path != NULL ? 0 : err_set(err, -ENOMEM, "out of memory");
	}
	json_decref(reply);
	return r;
}

/* The era that point means in this database. 0 or -errno. */
static int since_find_era(const struct target *target, const struct since_point *point, struct meta_reader *reader,
	uint64_t *ret_era, struct err *err)
{
	const struct meta_super *super = meta_reader_super(reader);
	*ret_era = point->era;
	if (point->kind == SINCE_CURSOR && memcmp(point->uuid, super->uuid, sizeof(super->uuid)) != 0) {
		char theirs[NUM_UUID_TEXT], ours[NUM_UUID_TEXT];
		num_uuid_format(point->uuid, theirs);
		num_uuid_format(super->uuid, ours);
		return err_set_exit(err, ERR_EXIT_UNKNOWN, -ESTALE,
			"%s: the cursor is of other metadata (%s; here it is %s): " SINCE_FULL, target->name, theirs,
			ours);
	}
	if (point->kind != SINCE_LABEL)
		return 0;
	int r = meta_reader_label(reader, point->label, ret_era, err);
	if (r == -ENOENT)
		return err_set_exit(err, ERR_EXIT_UNKNOWN, r, "%s: there is no label '%s': " SINCE_FULL, target->name,
			point->label);
	return r;
}

/* *ret_bm is all blocks that are not in blocks; NULL when there are none. */
static int since_complement(const struct bm *blocks, struct bm **ret_bm)
{
	struct bm *rest = NULL;
	*ret_bm = NULL;
	uint64_t nr = bm_nr_bits(blocks);
	uint64_t at = 0, begin, end;
	int r = 0;
	while (r == 0 && at < nr) {
		if (!bm_next_run(blocks, at, &begin, &end))
			begin = end = nr;
		if (at < begin && rest == NULL)
			r = bm_new(nr, &rest);
		if (at < begin && r == 0)
			r = bm_set_range(rest, at, begin);
		at = end;
	}
	if (r < 0) {
		bm_free(rest);
		return r;
	}
	*ret_bm = rest;
	return 0;
}

/* blocks gets what more has. */
static int since_unite(struct bm *blocks, const struct bm *more)
{
	uint64_t at = 0, begin, end;
	int r = 0;
	while (r == 0 && bm_next_run(more, at, &begin, &end)) {
		r = bm_set_range(blocks, begin, end);
		at = end;
	}
	return r;
}

/* Fills blocks and conservative for era. */
static int since_collect(struct meta_reader *reader, uint64_t era, struct since *since, struct err *err)
{
	const struct meta_super *super = meta_reader_super(reader);
	int r = 0;
	bool is_whole = era == 0 || super->floor_era >= era;
	if (era > 0) {
		r = meta_reader_since(reader, era, &since->blocks, &since->conservative, err);
		if (r < 0)
			return r;
	} else {
		r = bm_new(super->nr_blocks, &since->blocks);
	}
	if (r == 0 && era > 0 && is_whole) {
		/* Every block counts as written in floor_era; those that are not listed are merely feared to be. */
		bm_free(since->conservative);
		r = since_complement(since->blocks, &since->conservative);
	}
	if (r == 0 && is_whole)
		r = bm_set_range(since->blocks, 0, super->nr_blocks);
	else if (r == 0 && since->conservative != NULL)
		r = since_unite(since->blocks, since->conservative);
	return r < 0 ? err_set(err, r, "cannot gather the blocks: %s", strerror(-r)) : 0;
}

/* One finding is enough to say why: the last, which weighs most. */
static void since_refuse_binding(const char *text, void *arg)
{
	err_set_exit(arg, ERR_EXIT_UNKNOWN, -ESTALE, "%s", text);
}

/* Metadata at rest that a mount would refuse do not know all changes. */
static int since_check_binding(
	const struct target *target, const struct meta_super *super, uint64_t era, struct err *err)
{
	int r = target->live ? 0 : binding_check(target, super, era == 0, since_refuse_binding, err, err);
	return r > 0 ? -ESTALE : r;
}

static int since_answer(const struct target *target, const struct since_point *point, const struct since_now *now,
	struct meta_reader *reader, struct since *since, struct err *err)
{
	const struct meta_super *super = meta_reader_super(reader);
	uint64_t era;
	int r = since_find_era(target, point, reader, &era, err);
	if (r < 0)
		return r;
	if (era > now->current_era)
		return err_set_exit(err, ERR_EXIT_UNKNOWN, -EDOM,
			"%s: era %" PRIu64 " has not begun (current era is %" PRIu64 "): " SINCE_FULL, target->name,
			era, now->current_era);
	r = since_check_binding(target, super, era, err);
	if (r < 0)
		return r;
	r = since_collect(reader, era, since, err);
	since->answer = (struct fmt_since){
		.block_size = super->block_size,
		.image_size = super->image_size,
		.since = era,
		.current_era = now->current_era,
		.blocks = since->blocks,
		.conservative = since->conservative,
	};
	memcpy(since->answer.uuid, super->uuid, sizeof(super->uuid));
	return r;
}

/* One try. -EAGAIN (err set): the instance's answer and the database do not belong together. */
static int since_try(const struct target *target, const struct since_point *point, struct since *since, struct err *err)
{
	struct since_now now;
	char *path = NULL;
	struct meta_reader *reader = NULL;
	int r = target->live ? since_query(target, &now, &path, err) : 0;
	if (r == 0)
		r = path != NULL ? meta_reader_open(path, &reader, err) : target_read(target, &reader, err);
	if (r < 0)
		goto out;
	const struct meta_super *super = meta_reader_super(reader);
	if (target->live)
		meta_reader_trust(reader, now.settled_from);
	if (!target->live) {
		memcpy(now.uuid, super->uuid, sizeof(now.uuid));
		now.current_era = super->durable_era;
	}
	if (memcmp(now.uuid, super->uuid, sizeof(now.uuid)) != 0) {
		r = err_set(err, -EAGAIN, "%s: %s is not the metadata that its instance has open: was it replaced?",
			target->name, path);
		goto out;
	}
	r = since_answer(target, point, &now, reader, since, err);
out:
	meta_reader_close(reader);
	free(path);
	return r;
}

int since_ask(const struct target *target, const struct since_point *point, struct since *ret_since, struct err *err)
{
	struct since since = { 0 };
	int r = since_try(target, point, &since, err);
	/* Once more: an instance may have started anew between its answer and our look, or beside metadata that were at
	 * rest (-ESTALE: what it changes is recorded). A label may name an era that has begun in between (-EDOM). */
	if (r == -EAGAIN || r == -ESTALE || (r == -EDOM && point->kind == SINCE_LABEL))
		r = since_try(target, point, &since, err);
	if (r < 0) {
		since_clear(&since);
		return r;
	}
	*ret_since = since;
	return 0;
}

void since_clear(struct since *since)
{
	bm_free(since->blocks);
	bm_free(since->conservative);
	*since = (struct since){ 0 };
}
