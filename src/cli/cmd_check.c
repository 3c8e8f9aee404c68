/* SPDX-License-Identifier: MIT */
#include "binding.h"
#include "commands.h"
#include "options.h"
#include "out.h"
#include "target.h"

#include <errno.h>
#include <stdlib.h>

static const char check_help[] = "Usage: era-cli check [TARGET]\n"
				 "\n"
				 "Verifies the metadata; where they are not in use, that they are no older copy;\n"
				 "and where TARGET is an image that is not mounted, that it is the one that they\n"
				 "were written for. Prints findings, one a line, and fails (1) when there are any.\n"
				 "\n"
				 "  -h, --help   print this help\n";

struct check {
	FILE *stream; /* of memory */
	unsigned int nr_findings;
};

static void check_finding(const char *text, void *arg)
{
	struct check *check = arg;
	fprintf(check->stream, "%s\n", text);
	check->nr_findings++;
}

static int check_all(const struct target *target, struct check *check, struct err *err)
{
	struct meta_reader *reader;
	int r = target_read(target, &reader, err);
	if (r < 0)
		return r;
	r = meta_reader_check(reader, check_finding, check, err);
	if (r >= 0 && !target->live)
		r = binding_check(target, meta_reader_super(reader), false, check_finding, check, err);
	meta_reader_close(reader);
	return r < 0 ? r : 0;
}

static int check_target(const struct target *target, struct err *err)
{
	char *text = NULL;
	size_t size;
	struct check check = { .stream = open_memstream(&text, &size) };
	if (check.stream == NULL)
		return err_set(err, -ENOMEM, "out of memory");
	int r = check_all(target, &check, err);
	if (fclose(check.stream) != 0 && r == 0)
		r = err_set(err, -ENOMEM, "out of memory");
	if (r == 0)
		r = out_print(text, err);
	free(text);
	return r == 0 && check.nr_findings > 0 ? ERR_EXIT_FAILED : r;
}

static int check_run(int argc, char **argv, struct err *err)
{
	static const struct option longs[] = { OPTIONS_HELP, OPTIONS_END };
	int c;
	while ((c = options_next(argc, argv, ":h", longs, err)) != -1) {
		if (c == '?')
			return err->code;
		return out_print(check_help, err);
	}
	struct target *target;
	int r = options_check_operands(argc, argv, 0, 1, NULL, err);
	if (r == 0)
		r = target_find(options_operand(argc, argv, 0), &target, err);
	if (r < 0)
		return r;
	r = check_target(target, err);
	target_free(target);
	return r;
}

const struct command cmd_check = {
	.name = "check",
	.summary = "verify metadata, and that the image is theirs",
	.help = check_help,
	.run = check_run,
};
