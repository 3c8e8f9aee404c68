/* SPDX-License-Identifier: MIT */
/*
 * plainfs - a file mounted by the FUSE stack of eraimgfs, but without the tracker: what FUSE itself costs.
 *
 *     plainfs IMAGE MOUNTPOINT [-o OPT,...]    (eraimgfs's own; stays in the foreground)
 *
 * The daemon's mount.c, loop.c, ops.c, options.c and signals.c as they are; plain_ops.c takes the place of write.c, this
 * file that of main.c and instance.c. So the two differ in nothing but the way from fs_write() to the image.
 */
#include "fs.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>
#include <syslog.h>

bool fs_has_given_up(const struct fs *fs)
{
	return false;
}

static int plainfs_start(struct fs *fs, struct err *err)
{
	int r = fs_signals_block(err);
	if (r == 0)
		r = fs_mount_check(&fs->options, &fs->is_dir, err);
	if (r == 0)
		r = fs_options_resolve(&fs->options, err);
	if (r == 0)
		r = img_open(fs->options.image, false, &fs->image, err);
	if (r < 0)
		return r;
	r = -pthread_key_create(&fs->read_buffers, free);
	if (r < 0)
		return err_set(err, r, "cannot start: %s", strerror(-r));
	fs->have_read_buffers = true;
	r = fs_mount(fs, err);
	return r == 0 ? fs_loop_start(fs, fs->options.threads, &fs->loop, err) : r;
}

static void plainfs_stop(struct fs *fs)
{
	fs_loop_stop(fs->loop);
	if (fs->session != NULL) {
		if (fs->mounted)
			fuse_session_unmount(fs->session);
		fuse_session_destroy(fs->session);
	}
	img_close(fs->image);
	if (fs->have_read_buffers)
		pthread_key_delete(fs->read_buffers);
}

int main(int argc, char **argv)
{
	struct fs fs = { .times.lock = PTHREAD_MUTEX_INITIALIZER };
	struct err err = ERR_INIT;
	log_init("plainfs", false);
	int r = fs_options_parse(argc, argv, &fs.options, &err);
	if (r == 0)
		r = plainfs_start(&fs, &err);
	if (r == 0)
		fs.mounted = fs_signals_wait(&fs);
	else
		log_write(LOG_ERR, "%s", err.text);
	plainfs_stop(&fs);
	fs_options_release(&fs.options);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
