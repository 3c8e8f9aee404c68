/* SPDX-License-Identifier: MIT */
/*
 * What write.c holds, without the tracker: each request goes straight to the image, on the worker that has read it.
 * Linked with the daemon's other files, and in write.c's place.
 */
#include "fs.h"

#include <errno.h>
#include <fcntl.h>

void fs_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct fs *fs = fuse_req_userdata(req);
	fs_times_forget(fs);
	ssize_t n = img_pwrite(fs->image, buf, size, (uint64_t)offset);
	if (n > 0 && (fi->flags & O_DSYNC) != 0) {
		int r = img_flush(fs->image);
		n = r < 0 ? r : n;
	}
	if (n < 0)
		fuse_reply_err(req, (int)-n);
	else
		fuse_reply_write(req, (size_t)n);
}

void fs_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct fs *fs = fuse_req_userdata(req);
	fuse_reply_err(req, -img_flush(fs->image));
}

void fs_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *fi)
{
	struct fs *fs = fuse_req_userdata(req);
	fs_times_forget(fs);
	fuse_reply_err(req, -img_fallocate(fs->image, mode, (uint64_t)offset, (uint64_t)length));
}

/* The kernel copies by reading and writing. */
void fs_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in,
	fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out, size_t len, int flags)
{
	fuse_reply_err(req, ENOSYS);
}
