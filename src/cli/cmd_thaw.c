/* SPDX-License-Identifier: MIT */
#include "commands.h"
#include "group.h"
#include "options.h"
#include "out.h"
#include "since.h"

#include <errno.h>

static const char thaw_help[] = "Usage: era-cli thaw [--era ERA] [--cursor] [TARGET...]\n"
				"\n"
				"Lets the writers of each TARGET go on, and prints the era that they write in; of\n"
				"several targets TARGET<tab>ERA, a line each. All are tried; nothing is printed\n"
				"when one of them failed.\n"
				"\n"
				"      --era ERA   only the freeze that printed ERA; of one TARGET\n"
				"      --cursor    print UUID:ERA, which other metadata cannot be mistaken for\n"
				"  -h, --help      print this help\n";

enum { THAW_ERA = OPTIONS_LONG_ONLY, THAW_CURSOR };

static int thaw_parse_era(const char *text, uint64_t *ret_era, struct err *err)
{
	int r = since_parse_era(text, ret_era, err);
	if (r == 0 && (*ret_era == 0 || *ret_era > INT64_MAX))
		r = err_set_exit(err, ERR_EXIT_USAGE, -ERANGE, "'%s': no freeze ends such an era", text);
	return r;
}

/* era 0: whichever freeze holds. */
static int thaw_group(const char *const *names, unsigned int nr_names, uint64_t era, bool cursor, struct err *err)
{
	struct group group = { 0 };
	int r = group_find(&group, names, nr_names, "a thaw", err);
	if (r == 0) {
		json_t *request = era > 0 ? json_pack("{s:s, s:I}", "request", "thaw", "era", (json_int_t)era)
					  : json_pack("{s:s}", "request", "thaw");
		r = group_ask(&group, request, -1, true, err);
	}
	if (r == 0)
		r = group_print(&group, cursor, err);
	group_clear(&group);
	return r;
}

static int thaw_run(int argc, char **argv, struct err *err)
{
	static const struct option longs[] = {
		{ "era", required_argument, NULL, THAW_ERA },
		{ "cursor", no_argument, NULL, THAW_CURSOR },
		OPTIONS_HELP,
		OPTIONS_END,
	};
	uint64_t era = 0;
	bool cursor = false;
	int c;
	while ((c = options_next(argc, argv, ":h", longs, err)) != -1) {
		if (c == '?')
			return err->code;
		if (c == 'h')
			return out_print(thaw_help, err);
		if (c == THAW_CURSOR)
			cursor = true;
		else if (thaw_parse_era(optarg, &era, err) < 0)
			return err->code;
	}
	if (era > 0 && argc - optind > 1)
		return err_set_exit(err, ERR_EXIT_USAGE, -EINVAL,
			"thaw: --era takes exactly one TARGET, as each has eras of its own: see 'era-cli thaw --help'");
	return thaw_group((const char *const *)&argv[optind], (unsigned int)(argc - optind), era, cursor, err);
}

const struct command cmd_thaw = {
	.name = "thaw",
	.summary = "end a freeze",
	.help = thaw_help,
	.run = thaw_run,
};
