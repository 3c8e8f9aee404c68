/* SPDX-License-Identifier: MIT */
/*
 * fs - what the daemon's files share.
 *
 * Threads: the main thread starts, waits for a signal or the unmount, and stops (main.c, signals.c);
 * options.threads workers read requests from the kernel (loop.c); the core's threads end what was parked (write.c);
 * one thread a control connection (control.c). No worker waits for the gate, a commit or an fsync.
 */
#ifndef DAEMON_FS_H
#define DAEMON_FS_H

#include "options.h"

#include "base/err.h"
#include "control/ctl.h"
#include "core/era.h"

#include <fuse_lowlevel.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

/* Most bytes of one READ or WRITE. */
#define FS_IO_MAX (1024u * 1024u)

struct fs_loop;

/* Times that somebody set on the mounted file. They are shown until the next write, and never given to the backing
 * file: its mtime binds the metadata to it. */
struct fs_times {
	pthread_mutex_t lock; /* the times */
	_Atomic bool are_set;
	struct timespec atime, mtime, ctime;
};

struct fs {
	/* Fixed while it serves. */
	struct fs_options options;
	uint8_t nonce[16]; /* names the session */
	struct ctl_instance instance; /* the registry entry */
	char run_dir[PATH_MAX];
	/* Set before is_open, as are instance's ids. */
	struct era *era;
	struct img *image; /* the core's */
	bool is_dir; /* the mount point holds the file, instead of being it */
	struct fuse_session *session;
	struct ctl_server *server;
	struct fs_loop *loop;
	pthread_mutex_t registry_lock; /* registered, and its entry */
	bool registered;
	bool mounted; /* the session has to be taken off its mount point, if it is still there */
	pthread_key_t read_buffers; /* of the workers, FS_IO_MAX bytes each */
	bool have_read_buffers;

	_Atomic bool is_open; /* the control socket may answer */
	_Atomic uint64_t mount_dev; /* st_dev of the mount, 0 before there is one */
	struct fs_times times;
};

/* --- instance.c --- */

/* Everything from the control socket to the workers. Where somebody who is about to stop still has the image, the metadata
 * or the socket, it is waited for. 0 or -errno with err; fs_stop() in any case. Main thread. */
int fs_start(struct fs *fs, struct err *err);

/* Takes back whatever fs_start() did. 0, or -errno with err when the end was not in order. */
int fs_stop(struct fs *fs, struct err *err);

/* Frozen or fenced: nothing of image and metadata is this instance's to change. fs->era is there. */
bool fs_has_given_up(const struct fs *fs);

/* --- ops.c: every operation that changes no content --- */

extern const struct fuse_lowlevel_ops fs_ops;

/* The file's inode number; the root is FUSE_ROOT_ID, and may be the file. */
fuse_ino_t fs_file_ino(const struct fs *fs);

/* The content changed: times that were set are history. Any thread. */
void fs_times_forget(struct fs *fs);

/* --- write.c: the handlers of fs_ops that go through era_submit() --- */

void fs_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t offset, struct fuse_file_info *fi);
void fs_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void fs_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *fi);
void fs_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in,
	fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out, size_t len, int flags);

/* --- loop.c: the workers --- */

/* Starts nr_threads workers of fs->session. 0 or -errno. */
int fs_loop_start(struct fs *fs, unsigned int nr_threads, struct fs_loop **ret_loop, struct err *err);

/* Readable as soon as one worker has ended: unmounted, or an error that was logged. */
int fs_loop_ended_fd(const struct fs_loop *loop);

/* Ends the session for all workers, also those that wait for the kernel; joins them. NULL is fine. 0, or the -errno of
 * reading from the kernel. */
int fs_loop_stop(struct fs_loop *loop);

/* --- mount.c --- */

/* Is options->mountpoint fit to be mounted on, by this user, and can FUSE be used? Makes it absolute. Changes nothing. 0 or
 * -errno with err. */
int fs_mount_check(struct fs_options *options, bool *ret_is_dir, struct err *err);

/* Refuses metadata that the mount would hide. After fs_options_resolve(). */
int fs_mount_check_metadata(const struct fs_options *options, bool is_dir, struct err *err);

/* Makes fs->session and mounts it; sets fs->mount_dev. 0 or -errno with err, then nothing is mounted. */
int fs_mount(struct fs *fs, struct err *err);

/* False when no name leads to the mount any more: somebody detached it, and open files keep it alive. */
bool fs_mount_is_attached(const struct fs *fs);

/* Unmounts, or where that is busy detaches, saying so. Main thread. */
void fs_mount_leave(const struct fs *fs);

/* --- control.c --- */

/* The handler of the control server; its arg is fs. */
struct ctl_handler fs_control_handler(struct fs *fs);

/* --- signals.c --- */

/* Blocks the signals that end the daemon, for this thread and all that it starts. Before the first thread. */
int fs_signals_block(struct err *err);

/* Sleeps. True: a signal that ends the daemon has come. */
bool fs_signals_nap(unsigned int ms);

/* CLOCK_MONOTONIC. */
int64_t fs_now_ms(void);

/* Serves until the mount is gone. False: the way out after a signal took too long, and the kernel still has it. */
bool fs_signals_wait(const struct fs *fs);

#endif
