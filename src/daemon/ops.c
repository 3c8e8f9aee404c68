/* SPDX-License-Identifier: MIT */
/*
 * The FUSE operations that change no content. Inode numbers are constants; there are no file handles, so nothing
 * has to be kept between OPEN and RELEASE.
 *
 * What is left out on purpose: access, ioctl, locks and extended attributes. The kernel asks once, gets ENOSYS from
 * libfuse and never asks again: no I/O costs a request beside its READ or WRITE.
 */
#include "fs.h"

#include "base/plant.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* Seconds that the kernel may keep names and attributes: the size never changes, times may lag. */
#define FS_TIMEOUT_S 1.0
#define FS_FILE_INO_IN_DIR 2

static struct fs *fs_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

fuse_ino_t fs_file_ino(const struct fs *fs)
{
	return fs->is_dir ? FS_FILE_INO_IN_DIR : FUSE_ROOT_ID;
}

void fs_times_forget(struct fs *fs)
{
	/* Looked at first: all writers share this cache line. */
	if (atomic_load_explicit(&fs->times.are_set, memory_order_relaxed))
		atomic_store_explicit(&fs->times.are_set, false, memory_order_relaxed);
}

static void fs_init(void *userdata, struct fuse_conn_info *conn)
{
	/* With ATOMIC_O_TRUNC an open with O_TRUNC would never come by setattr, which refuses it. Splicing was slower
	 * than copying in every case that was measured. A write-back cache would leave dirty pages behind a
	 * checkpoint. */
	conn->want &= ~(FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE |
			FUSE_CAP_WRITEBACK_CACHE);
	conn->want |= conn->capable & (FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS);
#ifdef FUSE_CAP_DIRECT_IO_ALLOW_MMAP
	conn->want |= conn->capable & FUSE_CAP_DIRECT_IO_ALLOW_MMAP;
#endif
	conn->max_write = FS_IO_MAX;
	conn->max_read = FS_IO_MAX;
	/* Above the depth at which clients write: requests that wait for a checkpoint must not keep reads out. */
	conn->max_background = 256;
	conn->congestion_threshold = 192;
}

/* --- attributes --- */

static void stat_directory(const struct stat *image, struct stat *ret_stat)
{
	*ret_stat = (struct stat){
		.st_ino = FUSE_ROOT_ID,
		.st_mode = S_IFDIR | 0555,
		.st_nlink = 2,
		.st_uid = image->st_uid,
		.st_gid = image->st_gid,
		.st_blksize = 4096,
		.st_atim = image->st_atim,
		.st_mtim = image->st_mtim,
		.st_ctim = image->st_ctim,
	};
}

static void stat_file(struct fs *fs, const struct stat *image, struct stat *ret_stat)
{
	*ret_stat = *image;
	ret_stat->st_ino = fs_file_ino(fs);
	ret_stat->st_mode = S_IFREG | (image->st_mode & 07777);
	ret_stat->st_nlink = 1;
	ret_stat->st_rdev = 0;
	ret_stat->st_size = (off_t)fs->image->size_bytes;
	ret_stat->st_blksize = 4096;
	if (fs->image->is_device)
		ret_stat->st_blocks = (blkcnt_t)(fs->image->size_bytes / 512);
	if (!atomic_load_explicit(&fs->times.are_set, memory_order_relaxed))
		return;
	pthread_mutex_lock(&fs->times.lock);
	ret_stat->st_atim = fs->times.atime;
	ret_stat->st_mtim = fs->times.mtime;
	ret_stat->st_ctim = fs->times.ctime;
	pthread_mutex_unlock(&fs->times.lock);
}

static int fs_stat(struct fs *fs, fuse_ino_t ino, struct stat *ret_stat)
{
	struct stat image;
	int r = img_stat(fs->image, &image);
	if (r < 0)
		return r;
	if (ino == fs_file_ino(fs))
		stat_file(fs, &image, ret_stat);
	else
		stat_directory(&image, ret_stat);
	return 0;
}

static void fs_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;
	int r = fs_stat(fs_of(req), ino, &st);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_attr(req, &st, FS_TIMEOUT_S);
}

static void fs_set_times(struct fs *fs, const struct stat *now, const struct stat *wanted, int to_set)
{
	struct timespec clock;
	clock_gettime(CLOCK_REALTIME, &clock);
	pthread_mutex_lock(&fs->times.lock);
	fs->times.atime = now->st_atim;
	fs->times.mtime = now->st_mtim;
	if ((to_set & FUSE_SET_ATTR_ATIME) != 0)
		fs->times.atime = (to_set & FUSE_SET_ATTR_ATIME_NOW) != 0 ? clock : wanted->st_atim;
	if ((to_set & FUSE_SET_ATTR_MTIME) != 0)
		fs->times.mtime = (to_set & FUSE_SET_ATTR_MTIME_NOW) != 0 ? clock : wanted->st_mtim;
	fs->times.ctime = clock;
	pthread_mutex_unlock(&fs->times.lock);
	atomic_store_explicit(&fs->times.are_set, true, memory_order_relaxed);
}

static void fs_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	const int times = FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME;
	struct fs *fs = fs_of(req);
	struct stat st;
	int r = fs_stat(fs, ino, &st);
	if (r == 0 && ((to_set & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) != 0 ||
			      ino != fs_file_ino(fs)))
		r = -EPERM;
	/* The size is era-cli resize's. To set the present one is what truncating copies do at their end. */
	if (r == 0 && (to_set & FUSE_SET_ATTR_SIZE) != 0 && attr->st_size != st.st_size)
		r = -EPERM;
	if (r == 0 && (to_set & times) != 0) {
		fs_set_times(fs, &st, attr, to_set);
		r = fs_stat(fs, ino, &st);
	}
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_attr(req, &st, FS_TIMEOUT_S);
}

static void fs_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs st;
	int r = img_statvfs(fs_of(req)->image, &st);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_statfs(req, &st);
}

/* --- names --- */

static void fs_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fs *fs = fs_of(req);
	struct fuse_entry_param entry = {
		.ino = FS_FILE_INO_IN_DIR,
		.attr_timeout = FS_TIMEOUT_S,
		.entry_timeout = FS_TIMEOUT_S,
	};
	int r = fs->is_dir && parent == FUSE_ROOT_ID && strcmp(name, fs->options.image_name) == 0 ? 0 : -ENOENT;
	if (r == 0)
		r = fs_stat(fs, entry.ino, &entry.attr);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_entry(req, &entry);
}

static void fs_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	const struct {
		const char *name;
		struct stat st; /* only st_ino and the type are looked at */
	} entries[] = {
		{ ".", { .st_ino = FUSE_ROOT_ID, .st_mode = S_IFDIR } },
		{ "..", { .st_ino = FUSE_ROOT_ID, .st_mode = S_IFDIR } },
		{ fs->options.image_name, { .st_ino = FS_FILE_INO_IN_DIR, .st_mode = S_IFREG } },
	};
	char buf[2048];
	size_t room = size < sizeof(buf) ? size : sizeof(buf), used = 0;
	for (off_t i = offset; i < (off_t)(sizeof(entries) / sizeof(entries[0])); i++) {
		size_t len = fuse_add_direntry(req, buf + used, room - used, entries[i].name, &entries[i].st, i + 1);
		if (len > room - used)
			break;
		used += len;
	}
	fuse_reply_buf(req, buf, used);
}

static void fs_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	fuse_reply_err(req, EPERM);
}

static void fs_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	fuse_reply_err(req, EPERM);
}

static void fs_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	fuse_reply_err(req, EPERM);
}

static void fs_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	fuse_reply_err(req, EPERM);
}

static void fs_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	fuse_reply_err(req, EPERM);
}

/* unlink and rmdir */
static void fs_remove(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	fuse_reply_err(req, EPERM);
}

static void fs_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
	unsigned int flags)
{
	fuse_reply_err(req, EPERM);
}

/* --- the open file --- */

/* Every open is direct: cached and direct opens mixed on one file corrupt data (kernel 6.1), and dirty pages in the
 * kernel would be behind a checkpoint's back. The answer is written by hand, because struct fuse_file_info of libfuse
 * 3.14 has no member for parallel direct writes; fuse_reply_buf() sends what fuse_reply_open() would. A kernel that does
 * not know a flag passes over it. */
static void fs_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fuse_open_out out = {
		.open_flags =
			FOPEN_KEEP_CACHE | (PLANTED(CACHED_OPEN) ? 0 : FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES),
	};
	if (fs_of(req)->options.read_only && (fi->flags & O_ACCMODE) != O_RDONLY)
		fuse_reply_err(req, EROFS);
	else
		fuse_reply_buf(req, (const char *)&out, sizeof(out));
}

/* The calling worker's buffer; freed when the worker ends. */
static char *fs_read_buffer(struct fs *fs)
{
	char *buf = pthread_getspecific(fs->read_buffers);
	if (buf != NULL)
		return buf;
	buf = malloc(FS_IO_MAX);
	if (buf != NULL && pthread_setspecific(fs->read_buffers, buf) != 0) {
		free(buf);
		return NULL;
	}
	return buf;
}

static void fs_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	char *buf = fs_read_buffer(fs);
	ssize_t n = buf == NULL ? -ENOMEM
				: img_pread(fs->image, buf, size < FS_IO_MAX ? size : FS_IO_MAX, (uint64_t)offset);
	if (n < 0)
		fuse_reply_err(req, (int)-n);
	else
		fuse_reply_buf(req, buf, (size_t)n);
}

static void fs_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
	int64_t found = img_seek(fs_of(req)->image, (uint64_t)offset, whence);
	if (found < 0)
		fuse_reply_err(req, (int)-found);
	else
		fuse_reply_lseek(req, found);
}

/* close(2) of a file without a cache has nothing left to write. */
static void fs_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fuse_reply_err(req, 0);
}

const struct fuse_lowlevel_ops fs_ops = {
	.init = fs_init,
	.lookup = fs_lookup,
	.getattr = fs_getattr,
	.setattr = fs_setattr,
	.statfs = fs_statfs,
	.readdir = fs_readdir,
	.create = fs_create,
	.mknod = fs_mknod,
	.mkdir = fs_mkdir,
	.symlink = fs_symlink,
	.link = fs_link,
	.unlink = fs_remove,
	.rmdir = fs_remove,
	.rename = fs_rename,
	.open = fs_open,
	.read = fs_read,
	.write = fs_write,
	.flush = fs_flush,
	.fsync = fs_fsync,
	.fsyncdir = fs_fsync,
	.fallocate = fs_fallocate,
	.copy_file_range = fs_copy_file_range,
	.lseek = fs_lseek,
};
