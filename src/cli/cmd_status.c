/* SPDX-License-Identifier: MIT */
#include "commands.h"
#include "options.h"
#include "out.h"
#include "target.h"

#include "base/num.h"

#include <errno.h>
#include <stdlib.h>

static const char status_help[] = "Usage: era-cli status [--json] [TARGET]\n"
				  "\n"
				  "Tells the state of an instance, or of metadata at rest, as \"name: value\" lines.\n"
				  "\n"
				  "      --json   one object instead\n"
				  "  -h, --help   print this help\n";

/* A database at rest, told as an instance tells of itself. NULL: out of memory. */
static json_t *status_offline(const struct target *target, const struct meta_super *super)
{
	char uuid[NUM_UUID_TEXT];
	num_uuid_format(super->uuid, uuid);
	json_t *status =
		json_pack("{s:s, s:b, s:s}", "state", "offline", "clean", meta_is_at_rest(super->state), "uuid", uuid);
	int r = status != NULL ? 0 : -1;
	if (r == 0 && super->state == META_FROZEN)
		r = json_object_set_new(status, "frozen", json_true());
	if (r == 0 && super->state == META_SNAPSHOT)
		r = json_object_set_new(status, "snapshot", json_true());
	if (r == 0 && target->image != NULL)
		r = json_object_set_new(status, "image", json_string(target->image));
	json_t *rest = json_pack("{s:I, s:b, s:I, s:I, s:I, s:I, s:s}", "image_size", (json_int_t)super->image_size,
		"image_is_device", super->image_is_device, "block_size", (json_int_t)super->block_size, "nr_blocks",
		(json_int_t)super->nr_blocks, "current_era", (json_int_t)super->durable_era, "generation",
		(json_int_t)super->generation, "metadata", target->database);
	if (r == 0)
		r = json_object_update(status, rest);
	json_decref(rest);
	if (r == 0)
		return status;
	json_decref(status);
	return NULL;
}

/* What the database knows and its instance does not tell. */
static int status_add_stats(json_t *status, struct meta_reader *reader, struct err *err)
{
	const struct meta_super *super = meta_reader_super(reader);
	struct meta_stats stats;
	int r = meta_reader_stats(reader, &stats, err);
	if (r < 0)
		return r;
	json_t *more = json_pack("{s:I, s:I, s:I, s:I, s:b, s:b}", "archived_eras", (json_int_t)stats.archived_eras,
		"undigested_blocks", (json_int_t)stats.undigested_blocks, "blocks_in_current_era",
		(json_int_t)stats.current_blocks, "labels", (json_int_t)stats.labels, "exact",
		super->floor_era == 0 && stats.feared_eras == 0, "mtime_checked", !super->image_is_device);
	r = json_object_update(status, more);
	json_decref(more);
	return r == 0 ? 0 : err_set(err, -ENOMEM, "out of memory");
}

static int status_get(const struct target *target, json_t **ret_status, struct err *err)
{
	json_t *status = NULL;
	struct meta_reader *reader = NULL;
	int r = 0;
	if (target->live)
		r = target_call(target, json_pack("{s:s}", "request", "status"), TARGET_REPLY_S, &status, err);
	if (r == 0)
		r = target_read(target, &reader, err);
	if (r == 0 && target->live) {
		json_object_del(status, "ok");
	} else if (r == 0) {
		status = status_offline(target, meta_reader_super(reader));
		if (status == NULL)
			r = err_set(err, -EILSEQ, "%s: its name is not UTF-8, or out of memory", target->name);
	}
	if (r == 0)
		r = status_add_stats(status, reader, err);
	meta_reader_close(reader);
	if (r < 0) {
		json_decref(status);
		return r;
	}
	*ret_status = status;
	return 0;
}

static void status_write_text(json_t *status, FILE *stream)
{
	const char *name;
	json_t *value;
	json_object_foreach(status, name, value)
	{
		fprintf(stream, "%s: ", name);
		if (json_is_string(value))
			out_name(stream, json_string_value(value));
		else
			json_dumpf(value, stream, JSON_ENCODE_ANY | JSON_COMPACT);
		fputc('\n', stream);
	}
}

static int status_print(json_t *status, bool json, struct err *err)
{
	char *text = NULL;
	size_t size;
	FILE *stream = open_memstream(&text, &size);
	if (stream == NULL)
		return err_set(err, -ENOMEM, "out of memory");
	if (json) {
		json_dumpf(status, stream, JSON_INDENT(2));
		fputc('\n', stream);
	} else {
		status_write_text(status, stream);
	}
	/* The stream writes to memory: an error means that there is none, and fclose() tells of it. */
	int r = fclose(stream) == 0 ? out_print(text, err) : err_set(err, -ENOMEM, "out of memory");
	free(text);
	return r;
}

static int status_run(int argc, char **argv, struct err *err)
{
	static const struct option longs[] = { { "json", no_argument, NULL, OPTIONS_LONG_ONLY }, OPTIONS_HELP,
		OPTIONS_END };
	bool json = false;
	int c;
	while ((c = options_next(argc, argv, ":h", longs, err)) != -1) {
		if (c == '?')
			return err->code;
		if (c == 'h')
			return out_print(status_help, err);
		json = true;
	}
	struct target *target;
	json_t *status;
	int r = options_check_operands(argc, argv, 0, 1, NULL, err);
	if (r == 0)
		r = target_find(options_operand(argc, argv, 0), &target, err);
	if (r < 0)
		return r;
	r = status_get(target, &status, err);
	if (r == 0) {
		r = status_print(status, json, err);
		json_decref(status);
	}
	target_free(target);
	return r;
}

const struct command cmd_status = {
	.name = "status",
	.summary = "tell the state of an instance or of metadata at rest",
	.help = status_help,
	.run = status_run,
};
