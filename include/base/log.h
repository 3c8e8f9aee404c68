/* SPDX-License-Identifier: MIT */
/*
 * log - messages for the person who runs the program.
 *
 * Before log_to_syslog() lines go to stderr as "NAME: text"; afterwards to syslog(3), for a daemon without a terminal.
 * A message is one line: see err_one_line(). Data never goes through here. Any thread.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>

/* Levels as in syslog(3): LOG_ERR, LOG_WARNING, LOG_NOTICE, LOG_INFO, LOG_DEBUG of <syslog.h>.
 * LOG_DEBUG lines are dropped unless debugging was asked for. */
void log_write(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Called once, before threads are started. name must stay valid for the life of the process. */
void log_init(const char *name, bool debug);

/* From now on, write to syslog instead of stderr. Called once, after the daemon let go of its terminal. */
void log_to_syslog(void);

#endif
