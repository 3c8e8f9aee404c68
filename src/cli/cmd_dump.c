/* SPDX-License-Identifier: MIT */
/*
 * What the metadata say, as XML. Rows go from the database to the output a chunk at a time; so that nothing is printed of
 * metadata that are not sound, all of them are verified first, in the same snapshot.
 */
#include "commands.h"
#include "guard.h"
#include "options.h"
#include "out.h"
#include "target.h"

#include "base/num.h"
#include "format/era_xml.h"
#include "meta/copy.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static const char dump_help[] = "Usage: era-cli dump [OPTIONS] [TARGET]\n"
				"\n"
				"Prints the metadata as XML, in the form of era_dump: for each block the eras in\n"
				"which it was written, those of the current era included.\n"
				"\n"
				"      --logical       only the newest era of each block\n"
				"  -o, --output FILE   replace FILE, whole or not at all; - is standard output\n"
				"  -h, --help          print this help\n";

enum { DUMP_OPTION_LOGICAL = OPTIONS_LONG_ONLY };

struct dump {
	FILE *stream;
	uint64_t nr_blocks;
	bool in_writeset;
	bool in_array;
	int write_error; /* -errno */
};

static int dump_wrote(struct dump *dump, int r)
{
	if (r < 0)
		dump->write_error = r;
	return r;
}

static int dump_end_writeset(struct dump *dump)
{
	bool due = dump->in_writeset;
	dump->in_writeset = false;
	return due ? fmt_era_write_writeset_end(dump->stream) : 0;
}

static int dump_writeset(uint64_t era, void *arg)
{
	struct dump *dump = arg;
	int r = dump_end_writeset(dump);
	dump->in_writeset = true;
	if (r == 0)
		r = fmt_era_write_writeset(era, dump->nr_blocks, dump->stream);
	return dump_wrote(dump, r);
}

static int dump_bits(uint64_t first, unsigned int nr, const uint64_t *words, void *arg)
{
	struct dump *dump = arg;
	return dump_wrote(dump, fmt_era_write_bits(first, nr, words, dump->stream));
}

static int dump_eras(uint64_t first, unsigned int nr, const uint64_t *eras, void *arg)
{
	struct dump *dump = arg;
	int r = dump_end_writeset(dump);
	if (r == 0 && !dump->in_array)
		r = fmt_era_write_array(dump->stream);
	dump->in_array = true;
	if (r == 0)
		r = fmt_era_write_eras(first, nr, eras, dump->stream);
	return dump_wrote(dump, r);
}

static void dump_refuse(const char *text, void *arg)
{
	err_set(arg, -EUCLEAN, "%s", text);
}

static int dump_verify(const struct target *target, struct meta_reader *reader, struct err *err)
{
	const struct meta_super *super = meta_reader_super(reader);
	if (super->current_era > FMT_ERA_MAX)
		return err_set(err, -ERANGE,
			"%s: its current era is %" PRIu64 ", and eras of this XML end at %" PRIu64
			": it cannot be dumped",
			target->name, super->current_era, FMT_ERA_MAX);
	int found = meta_reader_check(reader, dump_refuse, err, err);
	if (found > 0)
		return err_prefix(err, "%s: damaged", target->name);
	return found;
}

static int dump_write(struct meta_reader *reader, bool logical, struct out *out, struct err *err)
{
	static const struct meta_visitor visitor = { dump_writeset, dump_bits, dump_eras };
	const struct meta_super *super = meta_reader_super(reader);
	struct dump dump = { .stream = out->stream, .nr_blocks = super->nr_blocks };
	struct fmt_era_super head = {
		.block_size = super->block_size,
		.nr_blocks = super->nr_blocks,
		.current_era = super->current_era,
	};
	num_uuid_format(super->uuid, head.uuid);
	int r = dump_wrote(&dump, fmt_era_write_super(&head, out->stream));
	if (r == 0)
		r = meta_reader_visit(reader, logical, &visitor, &dump, err);
	if (r == 0)
		r = dump_wrote(&dump, fmt_era_write_end(out->stream));
	if (dump.write_error < 0)
		return err_set(err, dump.write_error, "%s: cannot write: %s", out->name, strerror(-dump.write_error));
	return r;
}

static int dump_target(const struct target *target, const char *output, bool logical, struct err *err)
{
	struct meta_reader *reader;
	struct out out;
	int r = target_read(target, &reader, err);
	if (r < 0)
		return r;
	r = dump_verify(target, reader, err);
	if (r == 0)
		r = out_open(output, &out, err);
	if (r < 0) {
		meta_reader_close(reader);
		return r;
	}
	r = dump_write(reader, logical, &out, err);
	meta_reader_close(reader);
	if (r == 0)
		return out_finish(&out, err);
	out_abandon(&out);
	return r;
}

static int dump_run(int argc, char **argv, struct err *err)
{
	static const struct option longs[] = {
		{ "logical", no_argument, NULL, DUMP_OPTION_LOGICAL },
		{ "output", required_argument, NULL, 'o' },
		OPTIONS_HELP,
		OPTIONS_END,
	};
	const char *output = NULL;
	bool logical = false;
	int c;
	while ((c = options_next(argc, argv, ":o:h", longs, err)) != -1) {
		if (c == '?')
			return err->code;
		if (c == 'h')
			return out_print(dump_help, err);
		if (c == 'o')
			output = optarg;
		else
			logical = true;
	}
	struct target *target;
	int r = options_check_operands(argc, argv, 0, 1, NULL, err);
	if (r == 0)
		r = target_find(options_operand(argc, argv, 0), &target, err);
	if (r < 0)
		return r;
	r = guard_output(output, "-o names the file for the XML", target, err);
	if (r == 0)
		r = dump_target(target, output, logical, err);
	target_free(target);
	return r;
}

const struct command cmd_dump = {
	.name = "dump",
	.summary = "print the metadata as XML",
	.help = dump_help,
	.run = dump_run,
};
