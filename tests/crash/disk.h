/* SPDX-License-Identifier: MIT */
/*
 * disk - what a power loss leaves.
 *
 * A disk is brought forward through a log, entry by entry. It holds what is durable: all that an fsync has answered for. The
 * rest is pending, and each pending change has a fate of its own when the power goes: it is there, it is not, some sectors of
 * it are, or the file has only grown. Whatever is kept is kept in the order of the log.
 *
 * Rules that a journaling file system adds: a name that is created, removed or moved is there only if all earlier changes of
 * that name are; after a truncate that is lost, nothing later of that file is there.
 */
#ifndef TESTS_CRASH_DISK_H
#define TESTS_CRASH_DISK_H

#include "log.h"

struct disk;

struct disk *disk_new(const struct log *log);
struct disk *disk_clone(const struct disk *disk);
void disk_free(struct disk *disk);

/* Forward, so that the entries below `to` have happened. */
void disk_advance(struct disk *disk, uint32_t to);

/* A file as the page cache shows it; malloc'ed. */
uint8_t *disk_content(struct disk *disk, uint8_t file, size_t *ret_size);

/* True when the cache shows what the disk has lost and no later fsync will tell: an fsync that failed was tried again. */
bool disk_cache_lies(const struct disk *disk, uint8_t file);

/* True when something other than the image has changes that are not durable. */
bool disk_has_pending_metadata(const struct disk *disk);

enum fate {
	FATE_KEPT,
	FATE_LOST,
	FATE_TORN_512, /* the sectors in mask (by number, modulo 64) are there */
	FATE_TORN_4096, /* likewise, pages */
	FATE_GROWN, /* a write is lost, but the inode is there: the file's new size, and its mtime */
};

struct fated {
	uint32_t index; /* of the entry */
	enum fate fate;
	uint64_t mask;
};

/* One fate for each pending change, in order. */
struct fates {
	unsigned int nr;
	struct fated *list;
};

enum fate_style {
	FATES_ALL_LOST,
	FATES_ALL_KEPT,
	FATES_BY_FILE, /* a file's all or none */
	FATES_IMAGE_KEPT, /* the image's all, nothing else: what the metadata must not lack */
	FATES_IMAGE_LOST, /* the other way round */
	FATES_SUBSET, /* each by itself */
	FATES_TORN, /* likewise, and torn */
	NR_FATE_STYLES,
};

/* Chooses; release with fates_clear(). */
void fates_choose(struct disk *disk, enum fate_style style, uint64_t *random, struct fates *ret_fates);
void fates_copy(const struct fates *from, struct fates *ret_fates);
void fates_clear(struct fates *fates);
/* Makes them follow the rules above; changes fates that break one to lost. */
void fates_settle(const struct disk *disk, struct fates *fates);

struct woken_file {
	char name[LOG_NAME_MAX + 1];
	uint8_t *bytes;
	size_t size;
	int64_t mtime_ns;
};

/* What the machine wakes up with. */
struct woken {
	unsigned int nr;
	struct woken_file files[LOG_FILES_MAX];
};

void disk_wake(const struct disk *disk, const struct fates *fates, struct woken *ret_woken);
void woken_clear(struct woken *woken);
const struct woken_file *woken_find(const struct woken *woken, const char *name);
/* Replaces all that is in the folder (but for folders in it). */
void woken_write(const struct woken *woken, const char *dir);

/* splitmix64 */
uint64_t crash_random(uint64_t *state);
uint64_t crash_below(uint64_t *state, uint64_t below);

#endif
