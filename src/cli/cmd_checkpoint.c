/* SPDX-License-Identifier: MIT */
#include "commands.h"
#include "options.h"
#include "point.h"
#include "since.h"

#include <errno.h>

static const char checkpoint_help[] =
	"Usage: era-cli checkpoint [--label NAME] [--cursor] [--clone FILE]\n"
	"                          [--fsfreeze DIR]... [TARGET...]\n"
	"\n"
	"Ends the current era of each TARGET, all at one point in time, and prints the\n"
	"era that starts: what is written from now on is in it. Of several targets it\n"
	"prints TARGET<tab>ERA, a line each, and nothing when one of them failed.\n"
	"\n"
	"      --label NAME     name the new era as well\n"
	"      --cursor         print UUID:ERA, which other metadata are not mistaken for\n"
	"      --clone FILE     replace FILE by a copy of the image as it is then, which\n"
	"                       shares its blocks; of one TARGET\n"
	"      --fsfreeze DIR   freeze the file system mounted at DIR until then, so that\n"
	"                       its files are whole\n"
	"  -h, --help           print this help\n";

enum { CHECKPOINT_LABEL = OPTIONS_LONG_ONLY, CHECKPOINT_CURSOR };

struct checkpoint_options {
	const char *label; /* NULL: none */
	bool cursor;
	bool help;
};

static int checkpoint_parse_options(
	int argc, char **argv, struct point *point, struct checkpoint_options *ret_options, struct err *err)
{
	static const struct option longs[] = {
		{ "label", required_argument, NULL, CHECKPOINT_LABEL },
		{ "cursor", no_argument, NULL, CHECKPOINT_CURSOR },
		POINT_OPTIONS,
		OPTIONS_HELP,
		OPTIONS_END,
	};
	int c, r = 0;
	*ret_options = (struct checkpoint_options){ 0 };
	while (r == 0 && (c = options_next(argc, argv, ":h", longs, err)) != -1) {
		if (c == '?')
			r = err->code;
		else if (c == 'h')
			ret_options->help = true;
		else if (c == CHECKPOINT_LABEL)
			ret_options->label = optarg;
		else if (c == CHECKPOINT_CURSOR)
			ret_options->cursor = true;
		else
			r = point_set(point, c, optarg, err);
	}
	return r == 0 && ret_options->label != NULL ? since_check_label(ret_options->label, err) : r;
}

static int checkpoint_take(struct point *point, const struct checkpoint_options *options, const char *const *names,
	unsigned int nr_names, struct err *err)
{
	json_t *request = options->label != NULL
				  ? json_pack("{s:s, s:s}", "request", "checkpoint", "label", options->label)
				  : json_pack("{s:s}", "request", "checkpoint");
	int r = point_take(point, POINT_OF_CHECKPOINT, names, nr_names, request, err);
	r = point_thaw(point, r, err);
	if (r == 0)
		r = point_keep_clone(point, err);
	return r == 0 ? group_print(&point->group, options->cursor, err) : r;
}

static int checkpoint_run(int argc, char **argv, struct err *err)
{
	struct point point = { 0 };
	struct checkpoint_options options;
	int r = checkpoint_parse_options(argc, argv, &point, &options, err);
	if (r == 0 && options.help)
		r = out_print(checkpoint_help, err);
	else if (r == 0)
		r = checkpoint_take(
			&point, &options, (const char *const *)&argv[optind], (unsigned int)(argc - optind), err);
	point_clear(&point);
	return r;
}

const struct command cmd_checkpoint = {
	.name = "checkpoint",
	.summary = "end the current era and start the next",
	.help = checkpoint_help,
	.run = checkpoint_run,
};
