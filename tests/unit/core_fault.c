/* SPDX-License-Identifier: MIT */
/* The image with hooks of core_util.h. */
#include "core_util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct core_fault *fault_of(struct img *img)
{
	return (struct core_fault *)img;
}

static ssize_t fault_pread(struct img *img, void *buf, size_t len, uint64_t offset)
{
	struct core_fault *fault = fault_of(img);
	atomic_fetch_add(&fault->nr_preads, 1);
	return fault->on_pread != NULL ? fault->on_pread(fault, buf, len, offset)
				       : img_pread(fault->real, buf, len, offset);
}

static ssize_t fault_pwrite(struct img *img, const void *buf, size_t len, uint64_t offset)
{
	struct core_fault *fault = fault_of(img);
	atomic_fetch_add(&fault->nr_pwrites, 1);
	return fault->on_pwrite != NULL ? fault->on_pwrite(fault, buf, len, offset)
					: img_pwrite(fault->real, buf, len, offset);
}

static int fault_fallocate(struct img *img, int mode, uint64_t offset, uint64_t len)
{
	struct core_fault *fault = fault_of(img);
	return fault->on_fallocate != NULL ? fault->on_fallocate(fault, mode, offset, len)
					   : img_fallocate(fault->real, mode, offset, len);
}

static ssize_t fault_copy(struct img *img, uint64_t from, uint64_t to, size_t len)
{
	return img_copy(fault_of(img)->real, from, to, len);
}

static int64_t fault_seek(struct img *img, uint64_t offset, int whence)
{
	return img_seek(fault_of(img)->real, offset, whence);
}

static int fault_flush(struct img *img)
{
	struct core_fault *fault = fault_of(img);
	atomic_fetch_add(&fault->nr_flushes, 1);
	return fault->on_flush != NULL ? fault->on_flush(fault) : img_flush(fault->real);
}

static int fault_drop_cache(struct img *img)
{
	struct core_fault *fault = fault_of(img);
	atomic_fetch_add(&fault->nr_drops, 1);
	if (atomic_load(&fault->nr_preads) == 0)
		atomic_fetch_add(&fault->drops_before_read, 1);
	return fault->on_drop_cache != NULL ? fault->on_drop_cache(fault) : img_drop_cache(fault->real);
}

static int fault_stat(struct img *img, struct stat *ret_stat)
{
	return img_stat(fault_of(img)->real, ret_stat);
}

static int fault_set_mtime(struct img *img, struct timespec mtime)
{
	return img_set_mtime(fault_of(img)->real, mtime);
}

static int fault_statvfs(struct img *img, struct statvfs *ret_stat)
{
	return img_statvfs(fault_of(img)->real, ret_stat);
}

static int fault_clone(struct img *img, int fd)
{
	struct core_fault *fault = fault_of(img);
	return fault->on_clone != NULL ? fault->on_clone(fault, fd) : img_clone(fault->real, fd);
}

static void fault_unlock(struct img *img)
{
	img_unlock(fault_of(img)->real);
}

static int fault_relock(struct img *img, struct err *err)
{
	struct core_fault *fault = fault_of(img);
	int r = fault->on_relock != NULL ? fault->on_relock(fault) : 0;
	if (r < 0)
		return err_set_exit(
			err, r == -EBUSY ? ERR_EXIT_REFUSED : ERR_EXIT_FAILED, r, "image: hook: %s", strerror(-r));
	return img_relock(fault->real, err);
}

static int fault_measure(struct img *img, uint64_t *ret_size_bytes)
{
	return img_measure(fault_of(img)->real, ret_size_bytes);
}

static void fault_close(struct img *img)
{
	img_close(fault_of(img)->real);
	free(img);
}

static const struct img_ops fault_ops = {
	.pread = fault_pread,
	.pwrite = fault_pwrite,
	.fallocate = fault_fallocate,
	.copy = fault_copy,
	.seek = fault_seek,
	.flush = fault_flush,
	.drop_cache = fault_drop_cache,
	.stat = fault_stat,
	.set_mtime = fault_set_mtime,
	.statvfs = fault_statvfs,
	.measure = fault_measure,
	.clone = fault_clone,
	.unlock = fault_unlock,
	.relock = fault_relock,
	.close = fault_close,
};

struct core_fault *core_fault_new(const char *path)
{
	struct core_fault *fault = calloc(1, sizeof(*fault));
	expect(fault != NULL);
	struct err err = ERR_INIT;
	int error = img_open(path, false, &fault->real, &err);
	expect_msg(error == 0, "img_open: %s", err.text);
	fault->img = *fault->real;
	fault->img.ops = &fault_ops;
	return fault;
}

void core_hold_init(struct core_hold *hold)
{
	pthread_mutex_init(&hold->lock, NULL);
	pthread_cond_init(&hold->changed, NULL);
	hold->reached = hold->released = false;
}

void core_hold_here(struct core_hold *hold)
{
	pthread_mutex_lock(&hold->lock);
	hold->reached = true;
	pthread_cond_broadcast(&hold->changed);
	while (!hold->released)
		pthread_cond_wait(&hold->changed, &hold->lock);
	pthread_mutex_unlock(&hold->lock);
}

void core_hold_wait(struct core_hold *hold)
{
	pthread_mutex_lock(&hold->lock);
	while (!hold->reached)
		pthread_cond_wait(&hold->changed, &hold->lock);
	pthread_mutex_unlock(&hold->lock);
}

void core_hold_release(struct core_hold *hold)
{
	pthread_mutex_lock(&hold->lock);
	hold->released = true;
	pthread_cond_broadcast(&hold->changed);
	pthread_mutex_unlock(&hold->lock);
}
