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
 *
 * *ret_file is the open file that came along with the line, the caller's to close, or -1, which it is also unless 1 is
 * given back. -EPROTO: more than one came, or one of which nobody can say to which line it belongs; -EMFILE: there is no
 * descriptor free for it. With ret_file NULL no file is taken: the kernel drops those that come.
 */
int line_read(struct line_reader *reader, int timeout_ms, const char **ret_line, size_t *ret_len, int *ret_file);

/* Writes object as one line, with the open file if it is not -1. 0; -EMSGSIZE: longer than CTL_LINE_MAX, nothing
 * written; -EILSEQ: a string in it is not UTF-8, nothing written; -errno. */
int line_write(int fd, const json_t *object, int file);

/* The object that a line is, a new reference; NULL when it is none. */
json_t *line_parse(const char *line, size_t len);

#endif
