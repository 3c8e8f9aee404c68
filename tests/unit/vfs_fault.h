/* SPDX-License-Identifier: MIT */
/*
 * vfs_fault - SQLite's file system with hooks, and with a power that can be cut.
 *
 * Becomes the default VFS of this process: connections that are opened from then on pass through it. Only one database and
 * its -wal are watched; all else goes straight through.
 */
#ifndef TESTS_VFS_FAULT_H
#define TESTS_VFS_FAULT_H

#include <sqlite3.h>
#include <stdbool.h>

enum vfs_file {
	VFS_DB,
	VFS_WAL,
	VFS_OTHER,
};

struct vfs_fault;

/* A hook that is NULL lets all through. Set them before the database is opened; any thread calls them. */
struct vfs_hooks {
	/* Before an fsync. SQLITE_OK: it is done; a code: it fails with that, and what it should have made durable never
	 * will be: as the kernel does, later ones take it for clean. */
	int (*on_sync)(struct vfs_fault *vfs, enum vfs_file file, void *arg);
	/* A connection of this process is about to ask for the lock of the one who writes (BEGIN IMMEDIATE). */
	void (*on_write_lock)(struct vfs_fault *vfs, void *arg);
	void *arg;
};

/* path: the database, absolute, without symlinks. For the life of the process. */
struct vfs_fault *vfs_fault_new(const char *path, struct vfs_hooks hooks);

/* From now on `path` and `path`-wal are what a power loss would leave: begun as copies, then changed by each fsync that
 * succeeds. A truncation is durable at once. No connection may be open. */
void vfs_fault_keep_durable(struct vfs_fault *vfs, const char *path);

/* A WAL checkpoint is under way (of any connection through this VFS). */
bool vfs_fault_in_checkpoint(struct vfs_fault *vfs);

/* Writes to file that no fsync has made durable. */
unsigned int vfs_fault_nr_unsynced(struct vfs_fault *vfs, enum vfs_file file);

#endif
