/* SPDX-License-Identifier: MIT */
/*
 * The witness: DATABASE.witness, what the database had at least reached, told by a file that is not the database.
 *
 * A database that was put back from an older copy is whole by all its own checksums, and yet it lacks commits; a damaged
 * frame in the middle of a -wal silently takes all later ones with it. Both are behind their witness.
 *
 * Two slots of a sector each are written in turn, so that one that is torn by a power loss leaves the other. A slot is
 * valid when its checksum is; the one with the greater counter counts.
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

/* The valid slot that counts. 1 and its index, or 0. */
static int witness_slot(int fd, struct slot *ret_slot, unsigned int *ret_index)
{
	int found = 0;
	for (unsigned int i = 0; i < 2; i++) {
		struct slot slot;
		ssize_t n = io_pread_full(fd, &slot, sizeof(slot), i * WITNESS_SLOT);
		if (n < 0)
			return (int)n;
		if (n < (ssize_t)sizeof(slot) || memcmp(slot.magic, WITNESS_MAGIC, sizeof(slot.magic)) != 0 ||
			slot.checksum != slot_checksum(&slot))
			continue;
		if (found && le64toh(slot.commit_counter) < le64toh(ret_slot->commit_counter))
			continue;
		*ret_slot = slot;
		*ret_index = i;
		found = 1;
	}
	return found;
}

int meta_witness_read(const char *path, struct meta_witness *ret_witness)
{
	CLEANUP_CLOSE int fd = -1;
	struct slot slot;
	unsigned int index;

	int r = witness_open(path, O_RDONLY, &fd);
	if (r == 0)
		r = witness_slot(fd, &slot, &index);
	if (r <= 0)
		return r == -ENOENT ? 0 : r;
	memcpy(ret_witness->uuid, slot.uuid, sizeof(slot.uuid));
	ret_witness->commit_counter = le64toh(slot.commit_counter);
	ret_witness->era = le64toh(slot.era);
	return 1;
}

int meta_witness_write(const char *path, const struct meta_super *super)
{
	CLEANUP_CLOSE int fd = -1;
	struct slot slot;
	unsigned int index = 1;

	int r = witness_open(path, O_RDWR | O_CREAT, &fd);
	if (r < 0)
		return r;
	r = witness_slot(fd, &slot, &index);
	if (r < 0)
		return r;
	bool is_new = r == 0;

	slot = (struct slot){
		.magic = WITNESS_MAGIC,
		.commit_counter = htole64(super->commit_counter),
		.era = htole64(super->current_era),
	};
	memcpy(slot.uuid, super->uuid, sizeof(slot.uuid));
	slot.checksum = slot_checksum(&slot);
	ssize_t n = io_pwrite_full(fd, &slot, sizeof(slot), (index ^ 1) * WITNESS_SLOT);
	if (n < (ssize_t)sizeof(slot))
		return n < 0 ? (int)n : -ENOSPC;
	/* Guards against a power loss, a database put back from an older copy, and nobody left who knew better. */
	if (fdatasync(fd) < 0)
		return -errno;
	return is_new ? io_sync_parent(path) : 0;
}
