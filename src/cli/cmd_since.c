/* SPDX-License-Identifier: MIT */
#include "commands.h"
#include "guard.h"
#include "options.h"
#include "out.h"
#include "since.h"

#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <syslog.h>

static const char since_help[] = "Usage: era-cli since ERA|UUID:ERA|LABEL [OPTIONS] [TARGET]\n"
				 "\n"
				 "Lists what was written in the given era or later, as byte ranges that ascend, do\n"
				 "not touch and end with the image. Era 0 lists the whole image.\n"
				 "\n"
				 "      --format FORMAT   text (OFFSET<tab>LENGTH, the default), json, xml (as\n"
				 "                        era_invalidate writes) or rbd (as rbd diff does)\n"
				 "  -o, --output FILE     replace FILE, whole or not at all; - is standard output\n"
				 "      --count           print BLOCKS<tab>BYTES alone\n"
				 "      --require-exact   fail (4) when part of the answer is only feared\n"
				 "  -h, --help            print this help\n"
				 "\n"
				 "A point that is not known here fails with 5: a full backup is needed.\n";

enum { SINCE_OPTION_FORMAT = OPTIONS_LONG_ONLY, SINCE_OPTION_COUNT, SINCE_OPTION_REQUIRE_EXACT };

struct since_options {
	const char *format; /* NULL: none was given */
	enum fmt_kind kind;
	const char *output;
	bool count;
	bool require_exact;
	bool help;
};

static int since_parse_options(int argc, char **argv, struct since_options *ret_options, struct err *err)
{
	static const struct option longs[] = {
		{ "format", required_argument, NULL, SINCE_OPTION_FORMAT },
		{ "output", required_argument, NULL, 'o' },
		{ "count", no_argument, NULL, SINCE_OPTION_COUNT },
		{ "require-exact", no_argument, NULL, SINCE_OPTION_REQUIRE_EXACT },
		OPTIONS_HELP,
		OPTIONS_END,
	};
	*ret_options = (struct since_options){ .kind = FMT_TEXT };
	int c;
	while ((c = options_next(argc, argv, ":o:h", longs, err)) != -1) {
		if (c == '?')
			return err->code;
		if (c == SINCE_OPTION_FORMAT)
			ret_options->format = optarg;
		else if (c == 'o')
			ret_options->output = optarg;
		else if (c == SINCE_OPTION_COUNT)
			ret_options->count = true;
		else if (c == SINCE_OPTION_REQUIRE_EXACT)
			ret_options->require_exact = true;
		else
			ret_options->help = true;
	}
	if (ret_options->format != NULL && fmt_parse_kind(ret_options->format, &ret_options->kind) < 0)
		return err_set_exit(err, ERR_EXIT_USAGE, -EINVAL,
			"since: '%s' is no format: it is text, json, xml or rbd", ret_options->format);
	if (ret_options->format != NULL && ret_options->count)
		return err_set_exit(err, ERR_EXIT_USAGE, -EINVAL, "since: --count and --format exclude each other");
	return 0;
}

/* Only JSON carries what is conservative; who reads another format is told on stderr. */
static void since_tell_conservative(
	const struct since *since, const struct since_options *options, const struct target *target)
{
	if (since->conservative == NULL || (options->kind == FMT_JSON && !options->count))
		return;
	log_write(LOG_NOTICE,
		"%s: %" PRIu64 " of the blocks listed are only feared to have been written (--format json tells which)",
		target->name, bm_count(since->conservative));
}

static int since_write(const struct since *since, const struct since_options *options, struct err *err)
{
	struct out out;
	int r = out_open(options->output, &out, err);
	if (r < 0)
		return r;
	if (options->count) {
		uint64_t blocks, bytes;
		fmt_count(&since->answer, &blocks, &bytes);
		r = fprintf(out.stream, "%" PRIu64 "\t%" PRIu64 "\n", blocks, bytes) < 0 ? -errno : 0;
	} else {
		r = fmt_write_since(&since->answer, options->kind, out.stream);
	}
	if (r < 0) {
		err_set(err, r, "%s: cannot write: %s", out.name, strerror(-r));
		out_abandon(&out);
		return r;
	}
	return out_finish(&out, err);
}

static int since_run(int argc, char **argv, struct err *err)
{
	struct since_options options;
	struct since_point point;
	int r = since_parse_options(argc, argv, &options, err);
	if (r < 0)
		return r;
	if (options.help)
		return out_print(since_help, err);
	r = options_check_operands(argc, argv, 1, 2, "ERA, UUID:ERA or LABEL", err);
	if (r == 0)
		r = since_parse_point(options_operand(argc, argv, 0), &point, err);
	if (r < 0)
		return r;

	struct target *target;
	struct since since = { 0 };
	r = target_find(options_operand(argc, argv, 1), &target, err);
	if (r < 0)
		return r;
	r = guard_output(options.output, "-o names the file for the list", target, err);
	if (r == 0)
		r = since_ask(target, &point, &since, err);
	if (r == 0 && options.require_exact && since.conservative != NULL)
		r = err_set_exit(err, ERR_EXIT_INEXACT, -EDOM,
			"%s: there is no exact answer since era %" PRIu64 ": %" PRIu64
			" blocks are only feared to have been written: leave out --require-exact to copy them as well",
			target->name, since.answer.since, bm_count(since.conservative));
	if (r == 0) {
		since_tell_conservative(&since, &options, target);
		r = since_write(&since, &options, err);
	}
	since_clear(&since);
	target_free(target);
	return r;
}

const struct command cmd_since = {
	.name = "since",
	.summary = "list what was written in an era or later",
	.help = since_help,
	.run = since_run,
};
