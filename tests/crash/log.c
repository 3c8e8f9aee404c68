/* SPDX-License-Identifier: MIT */
#include "log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define LOG_MAGIC "eraimgfs crash log 1\n"

static const char *const kind_names[NR_LOG_KINDS] = {
	[LOG_BASE] = "machine starts",
	[LOG_BASE_FILE] = "there is",
	[LOG_WRITE] = "write",
	[LOG_ZERO] = "zero",
	[LOG_TRUNCATE] = "truncate",
	[LOG_CREATE] = "create",
	[LOG_UNLINK] = "unlink",
	[LOG_RENAME] = "rename",
	[LOG_SYNC_BEGIN] = "fsync begins",
	[LOG_SYNC_END] = "fsync ends",
	[LOG_SYNC_FAILED] = "fsync fails",
	[LOG_DROP_CACHE] = "cache dropped",
	[LOG_LIFE] = "= opens",
	[LOG_DEATH] = "= gone",
	[LOG_REQUEST] = "= request",
	[LOG_REQUEST_DONE] = "= request done",
	[LOG_ASK] = "= asked",
	[LOG_SHOWN] = "= era shown",
	[LOG_SYNCED] = "= durable",
	[LOG_LABEL_ASK] = "= label asked",
	[LOG_LABEL] = "= label set",
	[LOG_FROZEN] = "= frozen",
	[LOG_THAWING] = "= thawing",
	[LOG_SNAPSHOT] = "= snapshot made",
};

struct log *log_new(void)
{
	struct log *log = mmap(NULL, sizeof(*log) + LOG_DATA_MAX, PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (log == MAP_FAILED) {
		perror("no memory for a log");
		exit(EXIT_FAILURE);
	}
	return log;
}

void log_free(struct log *log)
{
	if (log)
		munmap(log, sizeof(*log) + LOG_DATA_MAX);
}

uint32_t log_add(struct log *log, const struct log_entry *entry, const void *data)
{
	if (log->nr == LOG_ENTRIES_MAX || log->used + entry->len > LOG_DATA_MAX) {
		fprintf(stderr, "the log is full\n");
		exit(EXIT_FAILURE);
	}
	struct log_entry *at = &log->entries[log->nr];
	*at = *entry;
	if (data) {
		at->data = log->used;
		memcpy(log->data + log->used, data, entry->len);
		log->used += entry->len;
	}
	return log->nr++;
}

const char *log_kind_name(enum log_kind kind)
{
	return kind < NR_LOG_KINDS ? kind_names[kind] : "?";
}

/* The name that a file had last. */
static const char *file_name(const struct log *log, uint32_t before, uint8_t file)
{
	if (file == LOG_DIR)
		return "the folder";
	const char *name = "";
	for (uint32_t i = 0; i < before; i++) {
		const struct log_entry *entry = &log->entries[i];
		if ((entry->kind == LOG_CREATE || entry->kind == LOG_BASE_FILE) && entry->file == file)
			name = entry->text;
		if (entry->kind == LOG_RENAME && strcmp(name, entry->text) == 0)
			name = (const char *)log->data + entry->data;
	}
	return name;
}

void log_describe(const struct log *log, uint32_t index, char *ret_text, size_t size)
{
	const struct log_entry *entry = &log->entries[index];
	const char *name = entry->kind < LOG_LIFE ? file_name(log, index + 1, entry->file) : "";
	int at = snprintf(ret_text, size, "%u: %s %s", index, log_kind_name(entry->kind),
		entry->text[0] != '\0' ? entry->text : name);
	switch (entry->kind) {
	case LOG_WRITE:
	case LOG_ZERO:
	case LOG_REQUEST:
		snprintf(ret_text + at, size - (size_t)at, " [%llu, +%llu)", (unsigned long long)entry->offset,
			(unsigned long long)entry->len);
		break;
	case LOG_TRUNCATE:
		snprintf(ret_text + at, size - (size_t)at, " to %llu", (unsigned long long)entry->offset);
		break;
	case LOG_RENAME:
		snprintf(ret_text + at, size - (size_t)at, " to %s", (const char *)log->data + entry->data);
		break;
	case LOG_SHOWN:
	case LOG_LABEL_ASK:
		snprintf(ret_text + at, size - (size_t)at, " %llu", (unsigned long long)entry->value);
		break;
	default:
		break;
	}
}

uint64_t log_fingerprint(const struct log *log)
{
	uint64_t hash = UINT64_C(14695981039346656037);
	for (uint32_t i = 0; i < log->nr; i++) {
		const struct log_entry *entry = &log->entries[i];
		uint64_t parts[] = { entry->kind, entry->file, entry->offset, entry->len };
		for (size_t k = 0; k < sizeof(parts) / sizeof(parts[0]); k++)
			hash = (hash ^ parts[k]) * UINT64_C(1099511628211);
	}
	return hash;
}

bool log_save(const struct log *log, const char *path)
{
	FILE *file = fopen(path, "w");
	if (!file)
		return false;
	bool good = fputs(LOG_MAGIC, file) >= 0 && fwrite(&log->nr, sizeof(log->nr), 1, file) == 1 &&
		    fwrite(&log->used, sizeof(log->used), 1, file) == 1 &&
		    fwrite(log->entries, sizeof(log->entries[0]), log->nr, file) == log->nr &&
		    fwrite(log->data, 1, log->used, file) == log->used;
	return fclose(file) == 0 && good;
}

struct log *log_load(const char *path)
{
	char magic[sizeof(LOG_MAGIC)] = "";
	struct log *log = log_new();
	FILE *file = fopen(path, "r");
	bool good = file && fread(magic, 1, sizeof(magic) - 1, file) == sizeof(magic) - 1 &&
		    strcmp(magic, LOG_MAGIC) == 0 && fread(&log->nr, sizeof(log->nr), 1, file) == 1 &&
		    fread(&log->used, sizeof(log->used), 1, file) == 1 && log->nr <= LOG_ENTRIES_MAX &&
		    log->used <= LOG_DATA_MAX &&
		    fread(log->entries, sizeof(log->entries[0]), log->nr, file) == log->nr &&
		    fread(log->data, 1, log->used, file) == log->used;
	if (file)
		fclose(file);
	if (good)
		return log;
	log_free(log);
	return NULL;
}
