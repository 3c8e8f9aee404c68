/* SPDX-License-Identifier: MIT */
#include "commands.h"
#include "options.h"
#include "point.h"

#include "base/log.h"
#include "base/num.h"

#include <errno.h>
#include <syslog.h>

static const char freeze_help[] = "Usage: era-cli freeze [--timeout SECONDS] [--clone FILE] [--fsfreeze DIR]...\n"
				  "                      [TARGET...]\n"
				  "\n"
				  "Ends the current era of each TARGET, all at one point in time, and leaves image\n"
				  "and metadata as they are, complete and in nobody's hands: writers wait until\n"
				  "'era-cli thaw'. Prints the era that ended; of several targets TARGET<tab>ERA, a\n"
				  "line each. When one of them fails, none is frozen and nothing is printed.\n"
				  "\n"
				  "      --timeout SECONDS   thaw by itself after that time (60); 0: never\n"
				  "      --clone FILE        replace FILE by a copy of the image as it is at that\n"
				  "                          point, which shares its blocks; of one TARGET\n"
				  "      --fsfreeze DIR      freeze the file system mounted at DIR as well, until\n"
				  "                          the thaw, so that its files are whole\n"
				  "  -h, --help              print this help\n"
				  "\n"
				  "A copy made meanwhile is valid only if 'era-cli thaw --era ERA' succeeds.\n";

enum { FREEZE_TIMEOUT = OPTIONS_LONG_ONLY };

static int freeze_parse_timeout(const char *text, unsigned int *ret_timeout_s, struct err *err)
{
	uint64_t timeout_s;
	int r = num_parse_u64(text, &timeout_s);
	if (r < 0 || timeout_s > CTL_FREEZE_TIMEOUT_MAX_S)
		return err_set_exit(err, ERR_EXIT_USAGE, r < 0 ? r : -ERANGE,
			"freeze: '%s' is no timeout: whole seconds from 0 (none) to %d", text,
			CTL_FREEZE_TIMEOUT_MAX_S);
	*ret_timeout_s = (unsigned int)timeout_s;
	return 0;
}

static int freeze_parse_options(
	int argc, char **argv, struct point *point, unsigned int *ret_timeout_s, bool *ret_help, struct err *err)
{
	static const struct option longs[] = {
		{ "timeout", required_argument, NULL, FREEZE_TIMEOUT },
		POINT_OPTIONS,
		OPTIONS_HELP,
		OPTIONS_END,
	};
	int c, r = 0;
	*ret_timeout_s = CTL_FREEZE_TIMEOUT_S;
	*ret_help = false;
	while (r == 0 && (c = options_next(argc, argv, ":h", longs, err)) != -1) {
		if (c == '?')
			r = err->code;
		else if (c == 'h')
			*ret_help = true;
		else if (c == FREEZE_TIMEOUT)
			r = freeze_parse_timeout(optarg, ret_timeout_s, err);
		else
			r = point_set(point, c, optarg, err);
	}
	return r;
}

/* Those that froze are thawed, but not those that another client froze since. */
static void freeze_undo(const struct group *group)
{
	for (unsigned int i = 0; i < group->nr_order; i++) {
		const struct member *member = group->order[i];
		struct err err = ERR_INIT;
		json_t *reply = NULL;
		if (!member->done)
			continue;
		json_t *request = json_pack("{s:s, s:I}", "request", "thaw", "era", (json_int_t)member->era);
		if (target_call(member->target, request, TARGET_CHECKPOINT_S, &reply, &err) < 0)
			log_write(LOG_ERR, "%s", err.text);
		json_decref(reply);
	}
}

static int freeze_take(
	struct point *point, unsigned int timeout_s, const char *const *names, unsigned int nr_names, struct err *err)
{
	json_t *request = json_pack("{s:s, s:I}", "request", "freeze", "timeout", (json_int_t)timeout_s);
	int r = point_take(point, POINT_OF_FREEZE, names, nr_names, request, err);
	if (r == 0)
		r = point_keep_clone(point, err);
	if (r == 0 && point->fsguard != NULL)
		r = fsguard_leave(point->fsguard, err);
	/* Who did not get the eras cannot thaw: nothing may stay frozen then. */
	if (r == 0)
		r = group_print(&point->group, false, err);
	if (r == 0)
		return 0;
	freeze_undo(&point->group);
	return point_thaw(point, r, err);
}

static int freeze_run(int argc, char **argv, struct err *err)
{
	struct point point = { 0 };
	unsigned int timeout_s;
	bool help;
	int r = freeze_parse_options(argc, argv, &point, &timeout_s, &help, err);
	if (r == 0 && help)
		r = out_print(freeze_help, err);
	else if (r == 0)
		r = freeze_take(
			&point, timeout_s, (const char *const *)&argv[optind], (unsigned int)(argc - optind), err);
	point_clear(&point);
	return r;
}

const struct command cmd_freeze = {
	.name = "freeze",
	.summary = "end the current era and let nothing change until the thaw",
	.help = freeze_help,
	.run = freeze_run,
};
