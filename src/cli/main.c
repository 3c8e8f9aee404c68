/* SPDX-License-Identifier: MIT */
/* era-cli - asks and steers instances of eraimgfs, and reads their metadata. */
#include "commands.h"
#include "options.h"
#include "out.h"

#include "base/io.h"
#include "base/log.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

static const struct command *const commands[] = {
	&cmd_status,
	&cmd_list,
	&cmd_checkpoint,
	&cmd_freeze,
	&cmd_thaw,
	&cmd_since,
	&cmd_label,
	&cmd_dump,
	&cmd_restore,
	&cmd_snapshot,
	&cmd_check,
};

#define NR_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static const char help_head[] = "Usage: era-cli COMMAND [OPTIONS] [ARGS] [TARGET]\n"
				"\n"
				"Tells which blocks of an image were written, and when.\n"
				"\n";
static const char help_tail[] = "\n"
				"  -h, --help      print this help; after COMMAND, that of the command\n"
				"  -V, --version   print the version\n"
				"\n"
				"TARGET is a mount point, a mounted file, an image or its metadata; without one,\n"
				"$ERAIMGFS_TARGET, else the only live instance.\n"
				"\n"
				"Exit status: 0 done, 1 failed, 2 usage, 3 refused, 4 not exact, 5 the point in\n"
				"time is not known here: a full backup is needed. See era-cli(8).\n";

static int main_help(struct err *err)
{
	char *text = NULL;
	size_t size;
	FILE *stream = open_memstream(&text, &size);
	if (stream == NULL)
		return err_set(err, -ENOMEM, "out of memory");
	fputs(help_head, stream);
	for (size_t i = 0; i < NR_COMMANDS; i++)
		fprintf(stream, "  %-12s%s\n", commands[i]->name, commands[i]->summary);
	fputs(help_tail, stream);
	int r = fclose(stream) == 0 ? out_print(text, err) : err_set(err, -ENOMEM, "out of memory");
	free(text);
	return r;
}

static int main_run(int argc, char **argv, struct err *err)
{
	const char *word = argc > 1 ? argv[1] : NULL;
	if (word == NULL)
		return err_set_exit(err, ERR_EXIT_USAGE, -EINVAL, "a command is missing: see 'era-cli --help'");
	if (strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0)
		return main_help(err);
	if (strcmp(word, "-V") == 0 || strcmp(word, "--version") == 0)
		return out_print("era-cli (eraimgfs) " ERAIMGFS_VERSION "\n", err);
	for (size_t i = 0; i < NR_COMMANDS; i++) {
		if (strcmp(word, commands[i]->name) == 0)
			return commands[i]->run(argc - 1, argv + 1, err);
	}
	return err_set_exit(err, ERR_EXIT_USAGE, -EINVAL, "unknown %s '%s': see 'era-cli --help'",
		word[0] == '-' ? "option" : "command", word);
}

int main(int argc, char **argv)
{
	io_fill_standard();
	/* A reader that has gone is an error of write(2) like any other. */
	signal(SIGPIPE, SIG_IGN);
	log_init("era-cli", false);
	struct err err = ERR_INIT;
	int r = main_run(argc, argv, &err);
	if (r >= 0)
		return r;
	if (err.code == 0)
		err_set(&err, r, "%s", strerror(-r));
	/* Who closed the pipe knows. */
	if (err.code != -EPIPE)
		log_write(LOG_ERR, "%s", err.text);
	return (int)err.exit;
}
