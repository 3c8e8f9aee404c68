/* SPDX-License-Identifier: MIT */
#include "base/err.h"

#include <assert.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

static bool err_is_continuation(char c)
{
	return ((unsigned char)c & 0xc0) == 0x80;
}

void err_one_line(char *text)
{
	for (char *c = text; *c != '\0'; c++) {
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	}
}

/* Copies what fits of text, never half a UTF-8 character. */
static void err_take_text(struct err *err, const char *text)
{
	size_t len = strlen(text);
	if (len >= sizeof(err->text)) {
		len = sizeof(err->text) - 1;
		while (len > 0 && err_is_continuation(text[len]))
			len--;
	}
	memcpy(err->text, text, len);
	err->text[len] = '\0';
	err_one_line(err->text);
}

__attribute__((format(printf, 4, 0))) static int err_set_va(
	struct err *err, enum err_exit exit, int code, const char *format, va_list args)
{
	assert(code < 0);
	if (err == NULL)
		return code;
	/* Formatted apart, as err->text may be among the arguments; larger, so that a cut is seen. */
	char text[2 * sizeof(err->text)];
	vsnprintf(text, sizeof(text), format, args);
	err_take_text(err, text);
	err->code = code;
	err->exit = exit;
	return code;
}

int err_set(struct err *err, int code, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	err_set_va(err, ERR_EXIT_FAILED, code, format, args);
	va_end(args);
	return code;
}

int err_set_exit(struct err *err, enum err_exit exit, int code, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	err_set_va(err, exit, code, format, args);
	va_end(args);
	return code;
}

int err_prefix(struct err *err, const char *format, ...)
{
	assert(err != NULL && err->code < 0);
	char prefix[2 * sizeof(err->text)];
	va_list args;
	va_start(args, format);
	vsnprintf(prefix, sizeof(prefix), format, args);
	va_end(args);

	char text[sizeof(prefix) + 2 + sizeof(err->text)];
	snprintf(text, sizeof(text), "%s: %s", prefix, err->text);
	err_take_text(err, text);
	return err->code;
}
