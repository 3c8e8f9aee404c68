/* SPDX-License-Identifier: MIT */
/* out - where data goes: stdout, or a file that is replaced whole or not at all. */
#ifndef CLI_OUT_H
#define CLI_OUT_H

#include "base/err.h"

#include <stdio.h>

struct out {
	FILE *stream; /* to write to; errors may wait for out_finish() */
	char *path; /* the file to replace; NULL: stream is all there is */
	char *temp; /* where its new content is until then */
	const char *name; /* for errors */
};

/* path NULL or "-": stdout. A device, pipe or the like is written to; a regular file, or one that does not exist yet,
 * is replaced by out_finish(), keeping its mode. 0 or -errno. */
int out_open(const char *path, struct out *ret_out, struct err *err);

/* All is written: makes sure of it and puts the file in its place. Frees out whatever is returned. When writing to
 * stdout fails because its reader has gone, -EPIPE. */
int out_finish(struct out *out, struct err *err);

/* Leaves an old file as it was. */
void out_abandon(struct out *out);

/* Prints text on stdout, once, as the last thing that a command does. 0 or -errno. */
int out_print(const char *text, struct err *err);

/* A name inside a line: control characters and backslashes as \ooo, as /proc/mounts does. */
void out_name(FILE *stream, const char *name);

#endif
