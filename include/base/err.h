/* SPDX-License-Identifier: MIT */
/*
 * err - one error, told once.
 *
 * Functions return 0 (or a count) on success and -errno on failure. Where a person will read about the failure, the
 * function also takes a `struct err *` and fills it where the cause is known: the object, the cause, the way on, in one
 * line without a final newline. Only the end of an operation (a main(), a request handler) prints it.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

/* What a program exits with; the values are a contract with scripts, see era-cli(8). */
enum err_exit {
	ERR_EXIT_DONE = 0,
	ERR_EXIT_FAILED = 1, /* the operation failed */
	ERR_EXIT_USAGE = 2, /* the words of the call are off */
	ERR_EXIT_REFUSED = 3, /* frozen, fenced or owned by another */
	ERR_EXIT_INEXACT = 4, /* an exact answer was asked for and there is none */
	ERR_EXIT_UNKNOWN = 5, /* the point in time is not known here: a full backup is needed */
};

struct err {
	int code; /* negative errno, 0 when unset */
	enum err_exit exit; /* what the program should exit with */
	char text[1024]; /* one line, UTF-8, cut where it would not fit */
};

#define ERR_INIT ((struct err){ 0 })

/* Fills err (may be NULL) with exit ERR_EXIT_FAILED and returns code, so that a caller can `return err_set(...)`.
 * code is a negative errno. Any thread. */
int err_set(struct err *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The same with another exit code. */
int err_set_exit(struct err *err, enum err_exit exit, int code, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* Makes a message one line, in place. A file name may hold control characters: they must neither break the line nor reach a
 * terminal, and become question marks. */
void err_one_line(char *text);

/* Puts "PREFIX: " before the text of an error that is already set; returns err->code. */
int err_prefix(struct err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
