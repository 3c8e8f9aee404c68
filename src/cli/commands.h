/* SPDX-License-Identifier: MIT */
/*
 * commands - the table's rows, one file a command.
 *
 * run() gets its own argv (argv[0] is the command's name). It returns what the program exits with, or -errno with err
 * filled, which main() prints. What it prints to stdout it prints when the whole of it exists (out.h).
 */
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

#include "base/err.h"

struct command {
	const char *name;
	const char *summary; /* for the program's help */
	const char *help; /* its own, at most 80 columns */
	int (*run)(int argc, char **argv, struct err *err);
};

extern const struct command cmd_check, cmd_checkpoint, cmd_dump, cmd_freeze, cmd_label, cmd_list, cmd_restore,
	cmd_since, cmd_snapshot, cmd_status, cmd_thaw;

#endif
