/* SPDX-License-Identifier: MIT */
#include "options.h"

#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#define OPTIONS_SEE "see 'era-cli --help' and 'era-cli %s --help'"

/* optopt is a short option that nobody knows; in "-1" it is most likely a negative number. */
static int options_unknown_short(char **argv, struct err *err)
{
	if (isdigit(optopt))
		return err_set_exit(err, ERR_EXIT_USAGE, -EINVAL,
			"%s: '-%c' is no option, and an era cannot be negative: " OPTIONS_SEE, argv[0], optopt,
			argv[0]);
	return err_set_exit(
		err, ERR_EXIT_USAGE, -EINVAL, "%s: unknown option '-%c': " OPTIONS_SEE, argv[0], optopt, argv[0]);
}

int options_next(int argc, char **argv, const char *shorts, const struct option *longs, struct err *err)
{
	opterr = 0;
	int c = getopt_long(argc, argv, shorts, longs, NULL);
	if (c != '?' && c != ':')
		return c;
	const char *what = "unknown or ambiguous option";
	if (c == ':')
		what = "an argument is missing after option";
	else if (optopt >= OPTIONS_LONG_ONLY || (optopt != 0 && strchr(shorts, optopt) != NULL))
		what = "no argument is taken by option";
	else if (optopt != 0) {
		options_unknown_short(argv, err);
		return '?';
	}
	err_set_exit(
		err, ERR_EXIT_USAGE, -EINVAL, "%s: %s '%s': " OPTIONS_SEE, argv[0], what, argv[optind - 1], argv[0]);
	return '?';
}

int options_check_operands(int argc, char **argv, int min, int max, const char *missing, struct err *err)
{
	if (argc - optind < min)
		return err_set_exit(
			err, ERR_EXIT_USAGE, -EINVAL, "%s: %s is missing: " OPTIONS_SEE, argv[0], missing, argv[0]);
	if (argc - optind > max)
		return err_set_exit(err, ERR_EXIT_USAGE, -EINVAL, "%s: '%s' is one word too many: " OPTIONS_SEE,
			argv[0], argv[optind + max], argv[0]);
	return 0;
}

const char *options_operand(int argc, char **argv, int n)
{
	return optind + n < argc ? argv[optind + n] : NULL;
}

int options_check_database(char **argv, const char *file, const char *missing, struct err *err)
{
	if (file == NULL)
		return err_set_exit(err, ERR_EXIT_USAGE, -EINVAL, "%s: %s is missing", argv[0], missing);
	if (strcmp(file, "-") == 0)
		return err_set_exit(err, ERR_EXIT_USAGE, -EINVAL, "%s: %s: a database cannot go to standard output",
			argv[0], missing);
	return 0;
}
