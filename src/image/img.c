/* SPDX-License-Identifier: MIT */
/* Dispatch: what holds for every image, real or faulty, is checked here once. */
#include "image/img.h"

#include <errno.h>
#include <linux/falloc.h>
#include <stddef.h>
#include <unistd.h>

#define IMG_FALLOCATE_MODES                                                                                            \
	(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE | FALLOC_FL_UNSHARE_RANGE)

/* The part of [offset, offset + len) that lies inside the image. */
static uint64_t img_clip(const struct img *img, uint64_t offset, uint64_t len)
{
	if (offset >= img->size_bytes)
		return 0;
	uint64_t left = img->size_bytes - offset;
	return len < left ? len : left;
}

ssize_t img_pread(struct img *img, void *buf, size_t len, uint64_t offset)
{
	size_t inside = (size_t)img_clip(img, offset, len);
	return inside > 0 ? img->ops->pread(img, buf, inside, offset) : 0;
}

ssize_t img_pwrite(struct img *img, const void *buf, size_t len, uint64_t offset)
{
	if (img->read_only)
		return -EROFS;
	if (offset >= img->size_bytes)
		return -EFBIG;
	size_t inside = (size_t)img_clip(img, offset, len);
	return inside > 0 ? img->ops->pwrite(img, buf, inside, offset) : 0;
}

int img_fallocate(struct img *img, int mode, uint64_t offset, uint64_t len)
{
	if (img->read_only)
		return -EROFS;
	if ((mode & ~IMG_FALLOCATE_MODES) != 0)
		return -EOPNOTSUPP;
	if (len == 0)
		return -EINVAL;
	uint64_t inside = img_clip(img, offset, len);
	/* There is nothing to punch beyond the end; any other mode would make the image larger. */
	if (inside < len && (mode & FALLOC_FL_PUNCH_HOLE) == 0)
		return -EFBIG;
	return inside > 0 ? img->ops->fallocate(img, mode, offset, inside) : 0;
}

ssize_t img_copy(struct img *img, uint64_t from, uint64_t to, size_t len)
{
	if (img->read_only)
		return -EROFS;
	if (to >= img->size_bytes)
		return -EFBIG;
	size_t inside = (size_t)img_clip(img, to, img_clip(img, from, len));
	if (inside == 0)
		return 0;
	if (from < to + inside && to < from + inside)
		return -EINVAL;
	return img->ops->copy(img, from, to, inside);
}

int64_t img_seek(struct img *img, uint64_t offset, int whence)
{
	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	if (offset >= img->size_bytes)
		return -ENXIO;
	int64_t found = img->ops->seek(img, offset, whence);
	/* A file that somebody made larger has no data that we know of there. */
	if (found < 0 || (uint64_t)found < img->size_bytes)
		return found;
	return whence == SEEK_HOLE ? (int64_t)img->size_bytes : -ENXIO;
}

int img_flush(struct img *img)
{
	return img->ops->flush(img);
}

int img_drop_cache(struct img *img)
{
	return img->ops->drop_cache(img);
}

int img_set_mtime(struct img *img, struct timespec mtime)
{
	return img->read_only ? -EROFS : img->ops->set_mtime(img, mtime);
}

int img_stat(struct img *img, struct stat *ret_stat)
{
	return img->ops->stat(img, ret_stat);
}

int img_statvfs(struct img *img, struct statvfs *ret_stat)
{
	return img->ops->statvfs(img, ret_stat);
}

int img_clone(struct img *img, int fd)
{
	return img->ops->clone(img, fd);
}

void img_unlock(struct img *img)
{
	img->ops->unlock(img);
}

int img_relock(struct img *img, struct err *err)
{
	return img->ops->relock(img, err);
}

void img_close(struct img *img)
{
	if (img != NULL)
		img->ops->close(img);
}

int img_measure(struct img *img, uint64_t *ret_size_bytes)
{
	return img->ops->measure(img, ret_size_bytes);
}
