/* SPDX-License-Identifier: MIT */
#include "base/log.h"

#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#define LOG_LINE_MAX 2048

/* Where messages go is a property of the process. Written before threads are started, but for to_syslog. */
static struct {
	const char *name;
	bool debug;
	_Atomic bool to_syslog;
} log_target;

void log_init(const char *name, bool debug)
{
	log_target.name = name;
	log_target.debug = debug;
}

void log_to_syslog(void)
{
	openlog(log_target.name, LOG_PID, LOG_DAEMON);
	log_target.to_syslog = true;
}

static void log_to_stderr(const char *text)
{
	const char *name = log_target.name != NULL ? log_target.name : program_invocation_short_name;
	char line[LOG_LINE_MAX];
	int len = snprintf(line, sizeof(line), "%s: %s\n", name, text);
	if (len < 0)
		return;
	size_t line_len = (size_t)len;
	if (line_len >= sizeof(line)) {
		line_len = sizeof(line) - 1;
		line[line_len - 1] = '\n';
	}
	/* One write a line, so that lines of several threads and processes do not mix. There is nowhere to tell of a
	 * failure. */
	ssize_t done = write(STDERR_FILENO, line, line_len);
	(void)done;
}

void log_write(int level, const char *format, ...)
{
	if (level == LOG_DEBUG && !log_target.debug)
		return;
	int saved_errno = errno;
	char text[LOG_LINE_MAX];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	err_one_line(text);
	if (log_target.to_syslog)
		syslog(level, "%s", text);
	else
		log_to_stderr(text);
	errno = saved_errno;
}
