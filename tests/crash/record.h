/* SPDX-License-Identifier: MIT */
/*
 * record - writes the log of log.h while instances run.
 *
 * The calls of libc that change files or make them durable are defined once more in this program (record.c), where both our
 * own code and SQLite's library find them first: one mechanism sees all of it, the image, the database, its -wal, the witness,
 * renames and fsyncs of folders. Each call is carried out and logged under one lock, so that the order in the log is the order
 * in the page cache. An fsync is a begin and an end: what comes between them was not waited for.
 *
 * The machine is played too: its boot id, when it started (CLOCK_BOOTTIME), a kill -9 after the n-th entry, an fsync that
 * fails.
 */
#ifndef TESTS_CRASH_RECORD_H
#define TESTS_CRASH_RECORD_H

#include "log.h"

#include <pthread.h>
#include <sys/types.h>

struct record_file {
	ino_t ino; /* 0: gone */
	char name[LOG_NAME_MAX + 1];
};

/* In memory that children share. */
struct record {
	struct log *log;
	pthread_mutex_t lock;
	bool on;
	dev_t dev;
	ino_t dir_ino;
	char dir[256];
	struct record_file files[LOG_FILES_MAX];
	unsigned int nr_files;
	uint32_t kill_at; /* the process ends itself when the log has so many entries; 0: never */
	char failing[LOG_NAME_MAX + 1]; /* the next fsync of the file of that name fails; "": none does */
	uint32_t last_ask; /* of the marks */
};

struct record *record_new(struct log *log);
void record_free(struct record *record);

/* Records dir from now on, beginning with a LOG_BASE and what lies in it. */
void record_start(struct record *record, const char *dir);
void record_stop(void);
/* After the process that recorded was killed: nobody is inside any more. */
void record_recover(struct record *record);

/* Called whenever an fsync of a file of that name is about to begin, on the thread that asks for it. NULL: none. */
void record_on_sync(void (*hook)(const char *name, void *arg), void *arg);

/* Appends a mark. Its index; 0 when nothing is recorded. */
uint32_t record_mark(enum log_kind kind, uint32_t ref, uint64_t value, const char *text);
uint32_t record_request(uint64_t offset, uint64_t len);

/* Calls by the tests themselves that are to be recorded as the disk's (a resize from outside). */
void record_truncate(const char *path, uint64_t size);

/* From now on the machine has another boot id, and has started just now. dir is where a file for that goes. */
void machine_boot(const char *dir);

#endif
