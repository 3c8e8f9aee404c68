/* SPDX-License-Identifier: MIT */
/* line - JSON lines over a socket, private to the layer: both sides read and write with it. */
#ifndef CONTROL_LINE_H
#define CONTROL_LINE_H

#include "control/ctl.h"

struct line_reader {
	int fd;
	size_t len; /* bytes in text */
	size_t taken; /* bytes of them that the line last given back took, with its newline */
	char text[CTL_LINE_MAX];
};

void line_reader_init(struct line_reader *reader, int fd);

/*
 * The next line, without its newline; valid until the next call. timeout_ms counts for the line whole, so that one byte
 * now and then keeps nobody waiting; -1: for ever. 1; 0 at the end of the stream (half a line is nothing); -ETIMEDOUT;
 * -EMSGSIZE: no newline within CTL_LINE_MAX bytes; -errno.
 */
int line_read(struct line_reader *reader, int timeout_ms, const char **ret_line, size_t *ret_len);

/* Writes object as one line. 0; -EMSGSIZE: longer than CTL_LINE_MAX, nothing written; -EILSEQ: a string in it is not
 * UTF-8, nothing written; -errno. */
int line_write(int fd, const json_t *object);

/* The object that a line is, a new reference; NULL when it is none. */
json_t *line_parse(const char *line, size_t len);

#endif
