/* SPDX-License-Identifier: MIT */
/* options - getopt_long(3) with this program's error texts. */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include "base/err.h"

#include <getopt.h>

/* Values of options without a short form start here. */
#define OPTIONS_LONG_ONLY 256

#define OPTIONS_HELP                                                                                                   \
	{                                                                                                              \
		"help", no_argument, NULL, 'h'                                                                         \
	}
#define OPTIONS_END                                                                                                    \
	{                                                                                                              \
		0                                                                                                      \
	}

/* The next option, -1 after the last, '?' with err filled when it is off. shorts starts with ':'. */
int options_next(int argc, char **argv, const char *shorts, const struct option *longs, struct err *err);

/* Between min and max operands must be left (from optind on); their names are for the error. 0 or -EINVAL. */
int options_check_operands(int argc, char **argv, int min, int max, const char *missing, struct err *err);

/* Operand n (from 0) after the options, NULL when there is none. */
const char *options_operand(int argc, char **argv, int n);

/* That file, the value of an option, is given and is not "-": a database is no stream. 0 or -EINVAL; missing is the option
 * for the error. */
int options_check_database(char **argv, const char *file, const char *missing, struct err *err);

#endif
