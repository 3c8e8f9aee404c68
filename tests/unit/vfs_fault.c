/* SPDX-License-Identifier: MIT */
#include "vfs_fault.h"

#include "core_util.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Locks of the -shm, by SQLite's file format (walformat.html, "WAL Locks"). */
#define SHM_LOCK_WRITE 0
#define SHM_LOCK_CHECKPOINT 1

struct range {
	sqlite3_int64 offset;
	int len;
};

/* One of the two files that are watched. */
struct disk {
	int durable_fd; /* what a power loss leaves; -1: nobody asked */
	struct range *unsynced;
	unsigned int nr_unsynced;
	unsigned int room;
};

struct vfs_fault {
	sqlite3_vfs vfs; /* pAppData is this */
	sqlite3_vfs *real;
	char path[320];
	struct vfs_hooks hooks;
	atomic_int nr_checkpoints; /* under way */
	pthread_mutex_t lock;
	struct disk disks[2]; /* under lock */
};

struct file {
	sqlite3_file base; /* first */
	struct vfs_fault *fault;
	enum vfs_file kind;
	sqlite3_file *real; /* behind this */
};

static struct file *file_of(sqlite3_file *base)
{
	return (struct file *)base;
}

static sqlite3_file *real_of(sqlite3_file *base)
{
	return file_of(base)->real;
}

static int file_close(sqlite3_file *base)
{
	return real_of(base)->pMethods->xClose(real_of(base));
}

static int file_read(sqlite3_file *base, void *buf, int len, sqlite3_int64 offset)
{
	return real_of(base)->pMethods->xRead(real_of(base), buf, len, offset);
}

static void disk_add(struct disk *disk, sqlite3_int64 offset, int len)
{
	if (disk->nr_unsynced == disk->room) {
		disk->room = disk->room ? 2 * disk->room : 64;
		disk->unsynced = reallocarray(disk->unsynced, disk->room, sizeof(*disk->unsynced));
		expect(disk->unsynced != NULL);
	}
	disk->unsynced[disk->nr_unsynced++] = (struct range){ offset, len };
}

static int file_write(sqlite3_file *base, const void *buf, int len, sqlite3_int64 offset)
{
	struct file *file = file_of(base);
	int rc = file->real->pMethods->xWrite(file->real, buf, len, offset);
	if (rc == SQLITE_OK && file->kind != VFS_OTHER) {
		pthread_mutex_lock(&file->fault->lock);
		disk_add(&file->fault->disks[file->kind], offset, len);
		pthread_mutex_unlock(&file->fault->lock);
	}
	return rc;
}

static int file_truncate(sqlite3_file *base, sqlite3_int64 size)
{
	struct file *file = file_of(base);
	int rc = file->real->pMethods->xTruncate(file->real, size);
	if (rc == SQLITE_OK && file->kind != VFS_OTHER && file->fault->disks[file->kind].durable_fd >= 0)
		expect_eq(ftruncate(file->fault->disks[file->kind].durable_fd, size), 0);
	return rc;
}

/* Read through the open file: another descriptor's close() would drop SQLite's locks. */
static void disk_sync(struct disk *disk, struct file *file)
{
	char buf[65536];

	for (unsigned int i = 0; disk->durable_fd >= 0 && i < disk->nr_unsynced; i++) {
		struct range range = disk->unsynced[i];
		expect_le(range.len, sizeof(buf));
		/* Truncated meanwhile: nothing is there to become durable. */
		if (file_read(&file->base, buf, range.len, range.offset) == SQLITE_OK)
			expect_eq(pwrite(disk->durable_fd, buf, (size_t)range.len, range.offset), range.len);
	}
}

static int file_sync(sqlite3_file *base, int flags)
{
	struct file *file = file_of(base);
	struct vfs_fault *fault = file->fault;

	if (file->kind == VFS_OTHER)
		return file->real->pMethods->xSync(file->real, flags);
	int rc = fault->hooks.on_sync ? fault->hooks.on_sync(fault, file->kind, fault->hooks.arg) : SQLITE_OK;
	bool lost = rc != SQLITE_OK;
	if (!lost)
		rc = file->real->pMethods->xSync(file->real, flags);
	pthread_mutex_lock(&fault->lock);
	struct disk *disk = &fault->disks[file->kind];
	if (!lost)
		disk_sync(disk, file);
	disk->nr_unsynced = 0;
	pthread_mutex_unlock(&fault->lock);
	return rc;
}

static int file_size(sqlite3_file *base, sqlite3_int64 *ret_size)
{
	return real_of(base)->pMethods->xFileSize(real_of(base), ret_size);
}

static int file_lock(sqlite3_file *base, int level)
{
	return real_of(base)->pMethods->xLock(real_of(base), level);
}

static int file_unlock(sqlite3_file *base, int level)
{
	return real_of(base)->pMethods->xUnlock(real_of(base), level);
}

static int file_check_reserved(sqlite3_file *base, int *ret_reserved)
{
	return real_of(base)->pMethods->xCheckReservedLock(real_of(base), ret_reserved);
}

static int file_control(sqlite3_file *base, int op, void *arg)
{
	return real_of(base)->pMethods->xFileControl(real_of(base), op, arg);
}

static int file_sector_size(sqlite3_file *base)
{
	return real_of(base)->pMethods->xSectorSize(real_of(base));
}

static int file_characteristics(sqlite3_file *base)
{
	return real_of(base)->pMethods->xDeviceCharacteristics(real_of(base));
}

static int file_shm_map(sqlite3_file *base, int page, int size, int extend, void volatile **ret_page)
{
	return real_of(base)->pMethods->xShmMap(real_of(base), page, size, extend, ret_page);
}

static int file_shm_lock(sqlite3_file *base, int first, int nr, int flags)
{
	struct file *file = file_of(base);
	struct vfs_fault *fault = file->fault;
	bool watched = file->kind == VFS_DB && nr == 1 && (flags & SQLITE_SHM_EXCLUSIVE);

	if (watched && first == SHM_LOCK_WRITE && (flags & SQLITE_SHM_LOCK) && fault->hooks.on_write_lock)
		fault->hooks.on_write_lock(fault, fault->hooks.arg);
	int rc = file->real->pMethods->xShmLock(file->real, first, nr, flags);
	if (watched && first == SHM_LOCK_CHECKPOINT && rc == SQLITE_OK)
		atomic_fetch_add(&fault->nr_checkpoints, (flags & SQLITE_SHM_LOCK) ? 1 : -1);
	return rc;
}

static void file_shm_barrier(sqlite3_file *base)
{
	real_of(base)->pMethods->xShmBarrier(real_of(base));
}

static int file_shm_unmap(sqlite3_file *base, int remove)
{
	return real_of(base)->pMethods->xShmUnmap(real_of(base), remove);
}

/* Version 2: without xFetch all reads and writes come through here. */
static const sqlite3_io_methods file_methods = {
	.iVersion = 2,
	.xClose = file_close,
	.xRead = file_read,
	.xWrite = file_write,
	.xTruncate = file_truncate,
	.xSync = file_sync,
	.xFileSize = file_size,
	.xLock = file_lock,
	.xUnlock = file_unlock,
	.xCheckReservedLock = file_check_reserved,
	.xFileControl = file_control,
	.xSectorSize = file_sector_size,
	.xDeviceCharacteristics = file_characteristics,
	.xShmMap = file_shm_map,
	.xShmLock = file_shm_lock,
	.xShmBarrier = file_shm_barrier,
	.xShmUnmap = file_shm_unmap,
};

static enum vfs_file kind_of(const struct vfs_fault *fault, const char *name)
{
	size_t len = strlen(fault->path);
	if (name == NULL || strncmp(name, fault->path, len) != 0)
		return VFS_OTHER;
	return name[len] == '\0' ? VFS_DB : strcmp(name + len, "-wal") == 0 ? VFS_WAL : VFS_OTHER;
}

static int fault_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *base, int flags, int *ret_flags)
{
	struct vfs_fault *fault = vfs->pAppData;
	struct file *file = file_of(base);

	file->fault = fault;
	file->kind = kind_of(fault, name);
	file->real = (sqlite3_file *)(file + 1);
	int rc = fault->real->xOpen(fault->real, name, file->real, flags, ret_flags);
	base->pMethods = file->real->pMethods ? &file_methods : NULL;
	return rc;
}

struct vfs_fault *vfs_fault_new(const char *path, struct vfs_hooks hooks)
{
	struct vfs_fault *fault = calloc(1, sizeof(*fault));
	expect(fault != NULL);
	fault->real = sqlite3_vfs_find(NULL);
	fault->vfs = *fault->real; /* all but files: those of the real one, which look at no more than their vfs */
	fault->vfs.szOsFile += (int)sizeof(struct file);
	fault->vfs.zName = "vfs_fault";
	fault->vfs.pNext = NULL;
	fault->vfs.pAppData = fault;
	fault->vfs.xOpen = fault_open;
	snprintf(fault->path, sizeof(fault->path), "%s", path);
	fault->hooks = hooks;
	pthread_mutex_init(&fault->lock, NULL);
	fault->disks[VFS_DB].durable_fd = fault->disks[VFS_WAL].durable_fd = -1;
	expect_eq(sqlite3_vfs_register(&fault->vfs, 1), SQLITE_OK);
	return fault;
}

void vfs_fault_keep_durable(struct vfs_fault *fault, const char *path)
{
	static const char *const suffixes[] = { [VFS_DB] = "", [VFS_WAL] = "-wal" };

	core_copy_db(fault->path, path);
	for (int i = 0; i < 2; i++) {
		char name[340];
		snprintf(name, sizeof(name), "%s%s", path, suffixes[i]);
		fault->disks[i].durable_fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		expect_ge(fault->disks[i].durable_fd, 0);
	}
}

bool vfs_fault_in_checkpoint(struct vfs_fault *fault)
{
	return atomic_load(&fault->nr_checkpoints) > 0;
}

unsigned int vfs_fault_nr_unsynced(struct vfs_fault *fault, enum vfs_file file)
{
	pthread_mutex_lock(&fault->lock);
	unsigned int nr = fault->disks[file].nr_unsynced;
	pthread_mutex_unlock(&fault->lock);
	return nr;
}
