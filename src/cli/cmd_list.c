/* SPDX-License-Identifier: MIT */
#include "commands.h"
#include "instances.h"
#include "options.h"
#include "out.h"

#include "base/cleanup.h"

#include <errno.h>
#include <stdlib.h>

static const char list_help[] = "Usage: era-cli list [--json]\n"
				"\n"
				"Lists the live instances that the caller may talk to (root: all), a line each:\n"
				"MOUNTPOINT<tab>IMAGE<tab>UUID<tab>PID.\n"
				"\n"
				"      --json   an array of objects instead\n"
				"  -h, --help   print this help\n";

static int list_write_json(const struct instances *instances, FILE *stream)
{
	json_t *list = json_array();
	int r = list != NULL ? 0 : -ENOMEM;
	for (size_t i = 0; r == 0 && i < instances->nr; i++) {
		const struct ctl_instance *it = &instances->items[i];
		r = json_array_append_new(list,
			json_pack("{s:s, s:s, s:s, s:I, s:s, s:s, s:s, s:b}", "mountpoint", it->mountpoint, "image",
				it->image, "uuid", it->uuid, "pid", (json_int_t)it->pid, "file", it->file, "metadata",
				it->metadata, "socket", it->socket, "read_only", it->read_only));
	}
	if (r == 0)
		r = json_dumpf(list, stream, JSON_INDENT(2));
	fputc('\n', stream);
	json_decref(list);
	return r == 0 ? 0 : -ENOMEM;
}

static int list_write_text(const struct instances *instances, FILE *stream)
{
	for (size_t i = 0; i < instances->nr; i++) {
		out_name(stream, instances->items[i].mountpoint);
		fputc('\t', stream);
		out_name(stream, instances->items[i].image);
		fprintf(stream, "\t%s\t%d\n", instances->items[i].uuid, (int)instances->items[i].pid);
	}
	return 0;
}

static int list_print(const struct instances *instances, bool json, struct err *err)
{
	char *text = NULL;
	size_t size;
	FILE *stream = open_memstream(&text, &size);
	int r = stream != NULL ? 0 : -ENOMEM;
	if (r == 0)
		r = json ? list_write_json(instances, stream) : list_write_text(instances, stream);
	if (stream != NULL && fclose(stream) != 0)
		r = -ENOMEM;
	r = r == 0 ? out_print(text, err) : err_set(err, r, "out of memory");
	free(text);
	return r;
}

static int list_run(int argc, char **argv, struct err *err)
{
	static const struct option longs[] = { { "json", no_argument, NULL, OPTIONS_LONG_ONLY }, OPTIONS_HELP,
		OPTIONS_END };
	bool json = false;
	int c;
	while ((c = options_next(argc, argv, ":h", longs, err)) != -1) {
		if (c == '?')
			return err->code;
		if (c == 'h')
			return out_print(list_help, err);
		json = true;
	}
	struct instances instances;
	int r = options_check_operands(argc, argv, 0, 0, NULL, err);
	if (r == 0)
		r = instances_load(&instances, err);
	if (r < 0)
		return r;
	r = list_print(&instances, json, err);
	instances_clear(&instances);
	return r;
}

const struct command cmd_list = {
	.name = "list",
	.summary = "list the live instances",
	.help = list_help,
	.run = list_run,
};
