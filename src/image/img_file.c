/* SPDX-License-Identifier: MIT */
/* The image proper: a regular file or a block device of this machine. */
#include "img_lock.h"

#include "base/io.h"
#include "image/img.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <unistd.h>

#define IMG_COPY_STEP (64 * 1024)

struct img_file {
	struct img img;
	int fd;
	/* For fallocate. While the image is locked, the open file of the lock: through any other the kernel gives -EBUSY
	 * where pages of a claimed device are dirty. Without the lock, that of fd. */
	int claim_fd;
	struct img_lock lock;
};

static struct img_file *img_file(struct img *img)
{
	return (struct img_file *)img;
}

static ssize_t img_file_pread(struct img *img, void *buf, size_t len, uint64_t offset)
{
	return io_pread_full(img_file(img)->fd, buf, len, offset);
}

static ssize_t img_file_pwrite(struct img *img, const void *buf, size_t len, uint64_t offset)
{
	return io_pwrite_full(img_file(img)->fd, buf, len, offset);
}

static int img_file_fallocate(struct img *img, int mode, uint64_t offset, uint64_t len)
{
	int r;
	do {
		r = fallocate(img_file(img)->claim_fd, mode, (off_t)offset, (off_t)len);
	} while (r < 0 && errno == EINTR);
	return r == 0 ? 0 : -errno;
}

/* Where the kernel cannot copy: through a small buffer. Bytes copied, or -errno when none were. */
static ssize_t img_file_copy_by_hand(int fd, uint64_t from, uint64_t to, size_t len)
{
	char buf[IMG_COPY_STEP];
	size_t done = 0;
	while (done < len) {
		size_t step = len - done < sizeof(buf) ? len - done : sizeof(buf);
		ssize_t n = io_pread_full(fd, buf, step, from + done);
		if (n > 0)
			n = io_pwrite_full(fd, buf, (size_t)n, to + done);
		if (n < 0 && done == 0)
			return n;
		if (n > 0)
			done += (size_t)n;
		if (n < (ssize_t)step)
			break;
	}
	return (ssize_t)done;
}

static bool img_file_cannot_copy(int error)
{
	return error == EXDEV || error == EINVAL || error == EOPNOTSUPP || error == ENOSYS;
}

static ssize_t img_file_copy(struct img *img, uint64_t from, uint64_t to, size_t len)
{
	int fd = img_file(img)->fd;
	size_t done = 0;
	while (done < len) {
		off_t in = (off_t)(from + done), out = (off_t)(to + done);
		ssize_t n = copy_file_range(fd, &in, fd, &out, len - done, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && done == 0)
			return img_file_cannot_copy(errno) ? img_file_copy_by_hand(fd, from, to, len) : -errno;
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static int64_t img_file_seek(struct img *img, uint64_t offset, int whence)
{
	off_t found = img->is_device ? -1 : lseek(img_file(img)->fd, (off_t)offset, whence);
	if (found >= 0)
		return found;
	/* Where nobody can tell, a hole must not be made up: a backup would skip it. */
	if (img->is_device || errno == EINVAL || errno == EOPNOTSUPP)
		return whence == SEEK_DATA ? (int64_t)offset : (int64_t)img->size_bytes;
	return -errno;
}

static int img_file_flush(struct img *img)
{
	/* Guards against a power loss that takes image data which an fsync, a checkpoint or a freeze has answered for. */
	return fsync(img_file(img)->fd) == 0 ? 0 : -errno;
}

static int img_file_drop_cache(struct img *img)
{
	/* The ioctl wants CAP_SYS_ADMIN; who may only use the device still has the advice. */
	if (img->is_device && ioctl(img_file(img)->fd, BLKFLSBUF, 0) == 0)
		return 0;
	return -posix_fadvise(img_file(img)->fd, 0, 0, POSIX_FADV_DONTNEED);
}

static int img_file_set_mtime(struct img *img, struct timespec mtime)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, mtime };
	return futimens(img_file(img)->fd, times) == 0 ? 0 : -errno;
}

static int img_file_stat(struct img *img, struct stat *ret_stat)
{
	return fstat(img_file(img)->fd, ret_stat) == 0 ? 0 : -errno;
}

static int img_file_measure(struct img *img, uint64_t *ret_size_bytes)
{
	struct stat st;
	if (img->is_device)
		return ioctl(img_file(img)->fd, BLKGETSIZE64, ret_size_bytes) == 0 ? 0 : -errno;
	if (fstat(img_file(img)->fd, &st) < 0)
		return -errno;
	*ret_size_bytes = (uint64_t)st.st_size;
	return 0;
}

static int img_file_statvfs(struct img *img, struct statvfs *ret_stat)
{
	return fstatvfs(img_file(img)->fd, ret_stat) == 0 ? 0 : -errno;
}

static int img_file_clone(struct img *img, int fd)
{
	int r;
	do {
		r = ioctl(fd, FICLONE, img_file(img)->fd);
	} while (r < 0 && errno == EINTR);
	return r == 0 ? 0 : -errno;
}

static void img_file_unlock(struct img *img)
{
	struct img_file *file = img_file(img);
	/* Never closed, so that no other file can get its number under a call that is late. */
	dup3(file->fd, file->claim_fd, O_CLOEXEC);
	img_lock_drop(&file->lock);
}

static int img_file_relock(struct img *img, struct err *err)
{
	struct img_file *file = img_file(img);
	int r = img_lock_take(&file->lock, file->fd, img->read_only, err);
	if (r == 0)
		dup3(file->lock.levels[0].fd, file->claim_fd, O_CLOEXEC);
	return r;
}

static void img_file_close(struct img *img)
{
	struct img_file *file = img_file(img);
	if (file->claim_fd >= 0)
		close(file->claim_fd);
	if (file->fd >= 0)
		close(file->fd);
	img_lock_release(&file->lock);
	free(file);
}

static const struct img_ops img_file_ops = {
	.pread = img_file_pread,
	.pwrite = img_file_pwrite,
	.fallocate = img_file_fallocate,
	.copy = img_file_copy,
	.seek = img_file_seek,
	.flush = img_file_flush,
	.drop_cache = img_file_drop_cache,
	.set_mtime = img_file_set_mtime,
	.stat = img_file_stat,
	.statvfs = img_file_statvfs,
	.measure = img_file_measure,
	.clone = img_file_clone,
	.unlock = img_file_unlock,
	.relock = img_file_relock,
	.close = img_file_close,
};

/* What a thing that cannot be an image is called; NULL for what can. */
static const char *img_file_unfit_kind(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
	case S_IFBLK:
		return NULL;
	case S_IFDIR:
		return "a directory";
	case S_IFIFO:
		return "a FIFO";
	case S_IFSOCK:
		return "a socket";
	case S_IFCHR:
		return "a character device";
	default:
		return "neither a file nor a device";
	}
}

/* Looks at path without opening it: an open of a FIFO would block, one of a tape would rewind it. */
static int img_file_look(const char *path, int *ret_path_fd, struct stat *ret_stat, struct err *err)
{
	int path_fd = open(path, O_PATH | O_CLOEXEC);
	if (path_fd < 0 && errno == ENOTCONN)
		return err_set(err, -errno, "%s: is on a mount whose daemon is gone: umount that mount first", path);
	if (path_fd < 0)
		return err_set(err, -errno, "%s: %m: name a disk image or a block device", path);
	int r = 0;
	if (fstat(path_fd, ret_stat) < 0)
		r = err_set(err, -errno, "%s: %m: name a disk image or a block device", path);
	const char *kind = r == 0 ? img_file_unfit_kind(ret_stat->st_mode) : NULL;
	if (kind != NULL)
		r = err_set(err, S_ISDIR(ret_stat->st_mode) ? -EISDIR : -EINVAL,
			"%s: is %s: name a disk image or a block device", path, kind);
	if (r == 0)
		r = img_lock_check_mount(ret_stat->st_dev, path, err);
	if (r < 0) {
		close(path_fd);
		return r;
	}
	*ret_path_fd = path_fd;
	return 0;
}

/* Whether mtimes there may be given by a server's clock. (Magic numbers of statfs(2) that linux/magic.h lacks in places.) */
static bool img_file_has_foreign_clock(int fd)
{
	static const uint32_t magic[] = {
		NFS_SUPER_MAGIC,
		SMB_SUPER_MAGIC,
		SMB2_SUPER_MAGIC,
		CIFS_SUPER_MAGIC,
		V9FS_MAGIC,
		CEPH_SUPER_MAGIC,
		AFS_SUPER_MAGIC,
		AFS_FS_MAGIC,
		CODA_SUPER_MAGIC,
		OCFS2_SUPER_MAGIC,
		FUSE_SUPER_MAGIC,
		0x01161970 /* GFS2 */,
		0x0bd00bd0 /* Lustre */,
	};
	struct statfs fs;
	if (fstatfs(fd, &fs) < 0)
		return true;
	for (size_t i = 0; i < sizeof(magic) / sizeof(magic[0]); i++) {
		if ((uint32_t)fs.f_type == magic[i])
			return true;
	}
	return false;
}

static int img_file_inspect(struct img_file *file, const char *path, struct err *err)
{
	int is_read_only = 0;
	/* The kernel opens a write-protected device for writing, and fails the writes. */
	if (file->img.is_device && !file->img.read_only && ioctl(file->fd, BLKROGET, &is_read_only) == 0 &&
		is_read_only)
		return err_set(err, -EROFS,
			"%s: the device is write-protected: allow writes with blockdev(8) --setrw, or mount it with -o ro",
			path);
	int r = img_file_measure(&file->img, &file->img.size_bytes);
	if (r < 0)
		return err_set(err, r, "%s: cannot tell its size: %s", path, strerror(-r));
	file->img.has_foreign_clock = img_file_has_foreign_clock(file->fd);
	if (file->img.size_bytes == 0)
		return err_set(err, -ENODATA, "%s: is empty: %s", path,
			file->img.is_device ? "attach something to the device first"
					    : "give it a size first, with truncate(1) or qemu-img(1)");
	return 0;
}

static int img_file_open(struct img_file *file, struct err *err)
{
	const struct img_lock_level *level = &file->lock.levels[0];
	return img_lock_open(level->path_fd, level->name, file->img.read_only, false, &file->fd, err);
}

static int img_file_open_locked(struct img_file *file, struct err *err)
{
	int r = 0;
	/* A file is locked by the open file of its I/O; a device that another has claimed stays untouched. */
	if (!file->img.is_device)
		r = img_file_open(file, err);
	if (r == 0)
		r = img_lock_take(&file->lock, file->fd, file->img.read_only, err);
	if (r == 0 && file->img.is_device)
		r = img_file_open(file, err);
	if (r < 0)
		return r;
	const struct img_lock_level *level = &file->lock.levels[0];
	file->claim_fd = fcntl(level->fd, F_DUPFD_CLOEXEC, 0);
	if (file->claim_fd < 0)
		return err_set(err, -errno, "%s: cannot be opened: %m", level->name);
	const struct stat *base = img_lock_base(&file->lock);
	file->img.base_dev = S_ISBLK(base->st_mode) ? 0 : base->st_dev;
	file->img.base_ino = S_ISBLK(base->st_mode) ? base->st_rdev : base->st_ino;
	return 0;
}

int img_open(const char *path, bool read_only, struct img **ret_img, struct err *err)
{
	int path_fd = -1;
	struct stat st;
	int r = img_file_look(path, &path_fd, &st, err);
	if (r < 0)
		return r;
	struct img_file *file = calloc(1, sizeof(*file));
	if (file == NULL) {
		close(path_fd);
		return err_set(err, -ENOMEM, "%s: not enough memory", path);
	}
	file->img.ops = &img_file_ops;
	file->img.is_device = S_ISBLK(st.st_mode);
	file->img.read_only = read_only;
	file->fd = file->claim_fd = -1;
	r = img_lock_init(&file->lock, path_fd, path, &st, err);
	if (r == 0)
		r = img_file_open_locked(file, err);
	/* Only now: whoever held the lock before may have resized the image. */
	if (r == 0)
		r = img_file_inspect(file, path, err);
	if (r < 0) {
		img_close(&file->img);
		return r;
	}
	*ret_img = &file->img;
	return 0;
}
