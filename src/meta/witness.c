/* SPDX-License-Identifier: MIT */
/*
 * The witness: DATABASE.witness, what the database had at least reached, told by a file that is not the database.
 *
 * A database that was put back from an older copy is whole by all its own checksums, and yet it lacks commits; a damaged
 * frame in the middle of a -wal silently takes all later ones with it. Both are behind their witness.
 *
 * Two slots of a sector each are written in turn, so that one that is torn by a power loss leaves the other. A slot is
 * valid when its checksum is, and speaks of the database with its UUID alone.
 */
#include "meta_private.h"

#include "base/cleanup.h"
#include "base/io.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#define WITNESS_MAGIC "eraimgfs-wit-1\n"
#define WITNESS_SLOT 512

struct slot {
	char magic[16];
	uint8_t uuid[16];
	uint64_t commit_counter; /* little-endian, as era and checksum */
	uint64_t era;
	uint64_t checksum; /* XXH3 of all before it */
};

static uint64_t slot_checksum(const struct slot *slot)
{
	return htole64(XXH3_64bits(slot, offsetof(struct slot, checksum)));
}

static int witness_open(const char *path, int flags, int *ret_fd)
{
	CLEANUP_FREE char *name = place_name(path, ".witness");
	if (!name)
		return -ENOMEM;
	*ret_fd = open(name, flags | O_NOFOLLOW | O_CLOEXEC, 0600);
	return *ret_fd < 0 ? -errno : 0;
}

static int slot_read(int fd, unsigned int index, struct slot *ret_slot)
{
	ssize_t n = io_pread_full(fd, ret_slot, sizeof(*ret_slot), index * WITNESS_SLOT);
	if (n < 0)
		return (int)n;
	return n == (ssize_t)sizeof(*ret_slot) &&
	       memcmp(ret_slot->magic, WITNESS_MAGIC, sizeof(ret_slot->magic)) == 0 &&
	       ret_slot->checksum == slot_checksum(ret_slot);
}

int meta_witness_read(const char *path, const uint8_t *uuid, struct meta_witness *ret_witness)
{
	CLEANUP_CLOSE int fd = -1;
	int found = 0;

	*ret_witness = (struct meta_witness){ 0 };
	int r = witness_open(path, O_RDONLY, &fd);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	for (unsigned int i = 0; i < 2; i++) {
		struct slot slot;
		r = slot_read(fd, i, &slot);
		if (r < 0)
			return r;
		if (r == 0 || (uuid && memcmp(slot.uuid, uuid, sizeof(slot.uuid)) != 0))
			continue;
		found = 1;
		if (le64toh(slot.commit_counter) > ret_witness->commit_counter)
			ret_witness->commit_counter = le64toh(slot.commit_counter);
		if (le64toh(slot.era) > ret_witness->era)
			ret_witness->era = le64toh(slot.era);
	}
	return found;
}

/* The slot to write: one that is torn, or of an earlier UUID (it says nothing about this one), else the older one. */
static int slot_choose(int fd, const uint8_t uuid[16])
{
	uint64_t counter[2];
	for (unsigned int i = 0; i < 2; i++) {
		struct slot slot;
		int r = slot_read(fd, i, &slot);
		if (r < 0)
			return r;
		if (r == 0 || memcmp(slot.uuid, uuid, sizeof(slot.uuid)) != 0)
			return (int)i;
		counter[i] = le64toh(slot.commit_counter);
	}
	return counter[0] <= counter[1] ? 0 : 1;
}

int meta_witness_write(const char *path, const struct meta_super *super)
{
	CLEANUP_CLOSE int fd = -1;
	struct stat st;

	int r = witness_open(path, O_RDWR | O_CREAT, &fd);
	if (r == 0 && fstat(fd, &st) < 0)
		r = -errno;
	int index = r == 0 ? slot_choose(fd, super->uuid) : r;
	if (index < 0)
		return index;

	struct slot slot = {
		.magic = WITNESS_MAGIC,
		.commit_counter = htole64(super->commit_counter),
		.era = htole64(super->current_era),
	};
	memcpy(slot.uuid, super->uuid, sizeof(slot.uuid));
	slot.checksum = slot_checksum(&slot);
	ssize_t n = io_pwrite_full(fd, &slot, sizeof(slot), (uint64_t)index * WITNESS_SLOT);
	if (n < (ssize_t)sizeof(slot))
		return n < 0 ? (int)n : -ENOSPC;
	/* Guards against a power loss, a database put back from an older copy, and nobody left who knew better. */
	if (fdatasync(fd) < 0)
		return -errno;
	return st.st_size == 0 ? io_sync_parent(path) : 0;
}
