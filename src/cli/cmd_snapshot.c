/* SPDX-License-Identifier: MIT */
#include "commands.h"
#include "guard.h"
#include "options.h"
#include "out.h"
#include "target.h"

#include "meta/copy.h"

#include <errno.h>

static const char snapshot_help[] = "Usage: era-cli snapshot -o FILE [TARGET]\n"
				    "\n"
				    "Copies the metadata, of one instant, into a database of its own: a TARGET for\n"
				    "since and dump that no image can be mounted with.\n"
				    "\n"
				    "  -o, --output FILE   make FILE, or replace an older snapshot\n"
				    "  -h, --help          print this help\n";

static int snapshot_take(const struct target *target, const char *output, struct err *err)
{
	struct meta_reader *reader;
	int r = guard_output(output, "-o names the file for the snapshot", target, err);
	if (r == 0)
		r = target_read(target, &reader, err);
	if (r < 0)
		return r;
	r = meta_reader_snapshot(reader, output, err);
	meta_reader_close(reader);
	return r;
}

static int snapshot_run(int argc, char **argv, struct err *err)
{
	static const struct option longs[] = {
		{ "output", required_argument, NULL, 'o' },
		OPTIONS_HELP,
		OPTIONS_END,
	};
	const char *output = NULL;
	int c;
	while ((c = options_next(argc, argv, ":o:h", longs, err)) != -1) {
		if (c == '?')
			return err->code;
		if (c == 'h')
			return out_print(snapshot_help, err);
		output = optarg;
	}
	struct target *target;
	int r = options_check_operands(argc, argv, 0, 1, NULL, err);
	if (r == 0)
		r = options_check_database(argv, output, "-o FILE", err);
	if (r == 0)
		r = target_find(options_operand(argc, argv, 0), &target, err);
	if (r < 0)
		return r;
	r = snapshot_take(target, output, err);
	target_free(target);
	return r;
}

const struct command cmd_snapshot = {
	.name = "snapshot",
	.summary = "copy the metadata for since and dump",
	.help = snapshot_help,
	.run = snapshot_run,
};
