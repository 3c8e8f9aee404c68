/* SPDX-License-Identifier: MIT */
/*
 * log - everything that reached the disk's door, and everything that was acknowledged, in one total order.
 *
 * A log begins with what the disk held (LOG_BASE and its LOG_BASE_FILEs). Then come the changes of files and names, in the
 * order in which the page cache saw them, the fsyncs, each as a begin and an end, and marks: what was asked for and what was
 * answered. A power cut inside a history is a LOG_BASE again.
 *
 * Files are numbered as they appear; a name is a name in the one folder that is recorded.
 */
#ifndef TESTS_CRASH_LOG_H
#define TESTS_CRASH_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOG_ENTRIES_MAX (1u << 17)
#define LOG_DATA_MAX (UINT64_C(1) << 30) /* reserved, not used */
#define LOG_FILES_MAX 250
#define LOG_DIR 255 /* the folder itself, where a file's number stands */
#define LOG_NAME_MAX 63

enum log_kind {
	/* The disk. */
	LOG_BASE, /* the machine starts: the disk holds the files that follow, and nothing is pending */
	LOG_BASE_FILE, /* file, its name (text), its content (data, len), mtime */
	LOG_WRITE, /* file, offset, len, data */
	LOG_ZERO, /* file, offset, len: punched or zeroed */
	LOG_TRUNCATE, /* file, offset: the new size */
	LOG_CREATE, /* file, text: its name */
	LOG_UNLINK, /* text */
	LOG_RENAME, /* text: from; data: to, len bytes with a NUL; it may replace */
	LOG_SYNC_BEGIN, /* file or LOG_DIR */
	LOG_SYNC_END, /* ref: its begin */
	LOG_SYNC_FAILED, /* ref: its begin. What was pending is clean in the cache, and may be lost */
	LOG_DROP_CACHE, /* file: what a failed fsync has lost is seen from now on */

	/* Marks. A mark that answers refers to the one that asked. */
	LOG_LIFE, /* an instance is about to open; value: 1 when its predecessor's image may have changed size */
	LOG_DEATH, /* the process is gone: whatever was under way never ends */
	LOG_REQUEST, /* a write of [offset, offset + len) begins */
	LOG_REQUEST_DONE, /* ref */
	LOG_ASK, /* something that shows an era, or makes the image durable, begins */
	LOG_SHOWN, /* ref: its ask. value: an era that somebody has seen */
	LOG_SYNCED, /* ref: its ask. All that was written before it is durable: an fsync, a checkpoint, a freeze, a stop */
	LOG_LABEL_ASK, /* text; value: the era, 0 when it is removed */
	LOG_LABEL, /* ref: its ask */
	LOG_FROZEN, /* the instance has given everything up */
	LOG_THAWING, /* somebody begins to take it back */
	LOG_SNAPSHOT, /* text: a file that was made whole */
	NR_LOG_KINDS,
};

struct log_entry {
	uint8_t kind;
	uint8_t file;
	uint32_t
		ref; /* index of another entry; for a mark by another process than the asker's, of the last that asked */
	uint64_t offset, len;
	uint64_t data; /* in the log's data */
	uint64_t value;
	int64_t mtime_ns; /* of the file, after the change */
	char text[LOG_NAME_MAX + 1];
};

struct log {
	uint32_t nr;
	uint64_t used; /* bytes of data */
	struct log_entry entries[LOG_ENTRIES_MAX];
	uint8_t data[]; /* LOG_DATA_MAX */
};

/* In memory that children share, mostly untouched. Ends the program where there is none. */
struct log *log_new(void);
void log_free(struct log *log);

/* Appends an entry with a copy of len bytes of data (may be NULL). Its index. The caller keeps others out. */
uint32_t log_add(struct log *log, const struct log_entry *entry, const void *data);

const char *log_kind_name(enum log_kind kind);

/* One line about an entry, for a person. */
void log_describe(const struct log *log, uint32_t index, char *ret_text, size_t size);

/* A number that two equal histories share: kinds, files, places, and no content. */
uint64_t log_fingerprint(const struct log *log);

/* Whole, to a file and from one. */
bool log_save(const struct log *log, const char *path);
struct log *log_load(const char *path);

#endif
