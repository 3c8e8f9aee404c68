/* SPDX-License-Identifier: MIT */
/*
 * Requests that change the image, and fsync: each becomes a struct era_req, and is answered when the core says that
 * it is over, on whatever thread that is.
 *
 *     handler -> era_submit -> apply* -> done -> reply                         on the worker, nothing waits
 *                    \-> park ... apply* (core's thread) -> done -> reply       had to wait
 *                          \-> on_interrupt -> era_cancel() is true -> reply EINTR
 *
 * Who replies. done() is called exactly once, or never where era_cancel() returned true; each of these two replies once
 * and frees the request, and nothing else replies.
 *
 * Why no use after free. libfuse (3.14, lib/fuse_lowlevel.c) calls on_interrupt with the request's own lock held
 * and reads its function and argument under that lock; fuse_req_interrupt_func() takes the same lock. So when
 * done() has taken the function back, no callback runs, none will start, and the request can be freed. Where
 * on_interrupt wins instead, the core has given the request up: no done() is under way or will come, nobody else
 * knows of it. libfuse holds a reference on its own fuse_req_t while the callback runs, so that replying from
 * inside it is fine.
 *
 * park() is called by the core with no lock held: on_interrupt may be called from within fuse_req_interrupt_func()
 * (the interrupt was there first), and takes the core's lock while it holds libfuse's. era_cancel() then finds a
 * request that is not parked yet, returns false, and the core ends it with done(-EINTR).
 */
#include "fs.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>

/* Most bytes of one copy_file_range(2): the reply counts in 32 bits. */
#define FS_COPY_MAX (UINT64_C(1) << 30)

struct fs_request {
	struct era_req era; /* first: the core hands back a pointer to it */
	struct fs *fs;
	fuse_req_t req;
	uint64_t nr_done; /* bytes written or copied so far */
	const char *data; /* of a write: the worker's buffer, once parked own_data */
	char *own_data;
	uint64_t copy_from; /* of a copy: offset of the source */
	int mode; /* of an fallocate */
	bool is_sync; /* of a write: durable before the reply */
	bool has_interrupt; /* on_interrupt is set */
};

static struct fs_request *request_of(struct era_req *era)
{
	return (struct fs_request *)era;
}

static void request_free(struct fs_request *request)
{
	free(request->own_data);
	free(request);
}

static void on_interrupt(fuse_req_t req, void *data)
{
	struct fs_request *request = data;
	if (!era_cancel(request->fs->era, &request->era))
		return;
	fuse_reply_err(req, EINTR);
	request_free(request);
}

/* The core is done with it: from here on this thread is the only one that knows it. */
static void request_take_back(struct fs_request *request)
{
	if (request->has_interrupt)
		fuse_req_interrupt_func(request->req, NULL, NULL);
	request->has_interrupt = false;
}

static void request_end(struct fs_request *request, int error)
{
	request_take_back(request);
	fuse_reply_err(request->req, -error);
	request_free(request);
}

/* For what answers with a number of bytes: what was done before the error counts, as in write(2). */
static void request_end_count(struct fs_request *request, int error)
{
	request_take_back(request);
	if (error < 0 && request->nr_done == 0)
		fuse_reply_err(request->req, -error);
	else
		fuse_reply_write(request->req, request->nr_done);
	request_free(request);
}

static int request_park(struct era_req *era)
{
	struct fs_request *request = request_of(era);
	request->has_interrupt = true;
	fuse_req_interrupt_func(request->req, on_interrupt, request);
	return 0;
}

/* An fsync runs at once and is short: it cannot be taken back. */
static int request_park_flush(struct era_req *era)
{
	return 0;
}

static void request_submit(fuse_req_t req, const struct fs_request *template)
{
	struct fs_request *request = malloc(sizeof(*request));
	if (request == NULL) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	*request = *template;
	request->fs = fuse_req_userdata(req);
	request->req = req;
	era_submit(request->fs->era, &request->era);
}

/* --- fsync --- */

static void fsync_done(struct era_req *era, int error)
{
	request_end(request_of(era), error);
}

static const struct era_req_ops fsync_ops = { .park = request_park_flush, .done = fsync_done };

void fs_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	request_submit(req, &(struct fs_request){ .era = { .ops = &fsync_ops, .kind = ERA_REQ_FLUSH } });
}

/* --- write --- */

static int write_apply(struct era_req *era, uint64_t offset, uint64_t len)
{
	struct fs_request *request = request_of(era);
	fs_times_forget(request->fs);
	ssize_t n = img_pwrite(request->fs->image, request->data + (offset - era->offset), len, offset);
	if (n < 0)
		return (int)n;
	request->nr_done += (uint64_t)n;
	return (uint64_t)n == len ? 0 : -EIO;
}

/* The worker's buffer is used for its next request. */
static int write_park(struct era_req *era)
{
	struct fs_request *request = request_of(era);
	request->own_data = malloc(era->len);
	if (request->own_data == NULL)
		return -ENOMEM;
	memcpy(request->own_data, request->data, era->len);
	request->data = request->own_data;
	return request_park(era);
}

/* The bytes are written, but not for sure: no count makes up for that. */
static void write_synced(struct era_req *era, int error)
{
	if (error < 0)
		request_end(request_of(era), error);
	else
		request_end_count(request_of(era), 0);
}

static const struct era_req_ops write_sync_ops = { .park = request_park_flush, .done = write_synced };

static void write_done(struct era_req *era, int error)
{
	struct fs_request *request = request_of(era);
	if (!request->is_sync || request->nr_done == 0) {
		request_end_count(request, error);
		return;
	}
	request_take_back(request);
	request->era = (struct era_req){ .ops = &write_sync_ops, .kind = ERA_REQ_FLUSH };
	era_submit(request->fs->era, &request->era);
}

static const struct era_req_ops write_ops = { .apply = write_apply, .park = write_park, .done = write_done };

void fs_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t offset, struct fuse_file_info *fi)
{
	const struct fs *fs = fuse_req_userdata(req);
	uint64_t begin = (uint64_t)offset, end = fs->image->size_bytes;
	if (size == 0) {
		fuse_reply_write(req, 0);
		return;
	}
	if (begin >= end) {
		fuse_reply_err(req, EFBIG);
		return;
	}
	request_submit(req,
		&(struct fs_request){
			.era = {
				.ops = &write_ops,
				.kind = ERA_REQ_WRITE,
				.offset = begin,
				.len = size < end - begin ? size : end - begin,
			},
			.data = buf,
			/* A direct write of a file opened with O_DSYNC, or of a mount with "sync", is followed by no
			 * FSYNC: the kernel leaves it to us. (O_SYNC includes O_DSYNC.) */
			.is_sync = (fi->flags & O_DSYNC) != 0,
		});
}

/* --- fallocate --- */

static int fallocate_apply(struct era_req *era, uint64_t offset, uint64_t len)
{
	struct fs_request *request = request_of(era);
	fs_times_forget(request->fs);
	return img_fallocate(request->fs->image, request->mode, offset, len);
}

static void fallocate_done(struct era_req *era, int error)
{
	request_end(request_of(era), error);
}

static const struct era_req_ops fallocate_ops = {
	.apply = fallocate_apply,
	.park = request_park,
	.done = fallocate_done,
};

/* The kind of a mode, -EOPNOTSUPP for one that is not known. */
static int fallocate_kind(int mode, enum era_req_kind *ret_kind)
{
	switch (mode) {
	case 0:
	case FALLOC_FL_KEEP_SIZE:
		*ret_kind = ERA_REQ_ALLOCATE;
		return 0;
	case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
	case FALLOC_FL_ZERO_RANGE:
	case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
		*ret_kind = ERA_REQ_WRITE;
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

void fs_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *fi)
{
	const struct fs *fs = fuse_req_userdata(req);
	uint64_t size = fs->image->size_bytes, begin = (uint64_t)offset, end;
	struct fs_request request = { .era = { .ops = &fallocate_ops, .offset = begin }, .mode = mode };
	bool keep_size = (mode & FALLOC_FL_KEEP_SIZE) != 0;
	int r = fallocate_kind(mode, &request.era.kind);
	if (r == 0 && (offset < 0 || length <= 0))
		r = -EINVAL;
	if (r == 0 && (__builtin_add_overflow(begin, (uint64_t)length, &end) || end > INT64_MAX ||
			      (end > size && !keep_size)))
		r = -EFBIG;
	/* With KEEP_SIZE what lies beyond the end is nobody's: nothing to do is done. */
	if (r < 0 || begin >= size) {
		fuse_reply_err(req, -r);
		return;
	}
	request.era.len = (end < size ? end : size) - begin;
	request_submit(req, &request);
}

/* --- copy_file_range --- */

static int copy_apply(struct era_req *era, uint64_t offset, uint64_t len)
{
	struct fs_request *request = request_of(era);
	fs_times_forget(request->fs);
	ssize_t n = img_copy(request->fs->image, request->copy_from + (offset - era->offset), offset, len);
	if (n < 0)
		return (int)n;
	request->nr_done += (uint64_t)n;
	return (uint64_t)n == len ? 0 : -EIO;
}

static void copy_done(struct era_req *era, int error)
{
	request_end_count(request_of(era), error);
}

static const struct era_req_ops copy_ops = { .apply = copy_apply, .park = request_park, .done = copy_done };

void fs_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in,
	fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out, size_t len, int flags)
{
	const struct fs *fs = fuse_req_userdata(req);
	uint64_t size = fs->image->size_bytes, from = (uint64_t)off_in, to = (uint64_t)off_out, count = len;
	if (flags != 0) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	if (count == 0 || from >= size) {
		fuse_reply_write(req, 0);
		return;
	}
	if (to >= size) {
		fuse_reply_err(req, EFBIG);
		return;
	}
	uint64_t room = size - (from > to ? from : to);
	count = count < room ? count : room;
	if (from < to + count && to < from + count) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	count = count < FS_COPY_MAX ? count : FS_COPY_MAX;
	request_submit(req, &(struct fs_request){
				    .era = { .ops = &copy_ops, .kind = ERA_REQ_WRITE, .offset = to, .len = count },
				    .copy_from = from,
			    });
}
