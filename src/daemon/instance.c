/* SPDX-License-Identifier: MIT */
/*
 * The instance, from its name to its workers.
 *
 *     name and describe it           nothing is changed yet; what can be refused is refused here
 *     control socket                 ctl_server_start(); "is starting" is its only answer
 *     lock, open, recover            era_open(); from here on a failed start has had effects
 *     mount                          fs_mount()
 *     registry entry                 ctl_registry_write()
 *     workers                        fs_loop_start()
 *
 * and the same backwards: each stage joins its threads before what they use goes away.
 */
#include "fs.h"

#include "base/io.h"
#include "base/log.h"
#include "base/mounts.h"
#include "base/num.h"
#include "base/run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <syslog.h>
#include <unistd.h>

/* How long an instance that stops is waited for: its umount(8) returns before its last commit. */
#define INSTANCE_PATIENCE_MS 20000
#define INSTANCE_NAP_MS 20

/* Loop devices that may stand on each other; the core refuses more. */
#define INSTANCE_LOOP_DEPTH 8

static void instance_notice(const char *text, void *arg)
{
	log_write(LOG_NOTICE, "%s", text);
}

/* Our names for image and metadata are another's now. */
static void instance_fenced(void *arg)
{
	struct fs *fs = arg;
	struct err err = ERR_INIT;
	pthread_mutex_lock(&fs->registry_lock);
	fs->instance.fenced = true;
	int r = fs->registered ? ctl_registry_write(fs->run_dir, &fs->instance, &err) : 0;
	pthread_mutex_unlock(&fs->registry_lock);
	if (r < 0)
		log_write(LOG_WARNING, "%s", err.text);
}

/* --- describe --- */

/* A path into one of the entry's members. */
static int describe_path(char ret_path[PATH_MAX], const char *folder, const char *name, struct err *err)
{
	int len = snprintf(ret_path, PATH_MAX, "%s%s%s", folder, name[0] != '\0' ? "/" : "", name);
	return len < PATH_MAX ? 0 : err_set(err, -ENAMETOOLONG, "%s: the path is too long", folder);
}

/* Fills the registry entry with what is known before the metadata and the mount are: all but their ids. */
static int instance_describe(struct fs *fs, struct err *err)
{
	const struct fs_options *options = &fs->options;
	struct ctl_instance *instance = &fs->instance;
	num_uuid_new(fs->nonce);
	num_hex_format(fs->nonce, sizeof(fs->nonce), instance->nonce);
	instance->pid = getpid();
	instance->read_only = options->read_only;
	int r = run_process_start(instance->pid, &instance->pid_start);
	if (r < 0)
		return err_set(err, r, "%s: cannot describe this instance: %s", options->image, strerror(-r));

	char socket_name[sizeof(instance->nonce) + sizeof(".sock")];
	snprintf(socket_name, sizeof(socket_name), "%s.sock", instance->nonce);
	r = describe_path(instance->image, options->image, "", err);
	if (r == 0)
		r = describe_path(instance->metadata, options->metadata, "", err);
	if (r == 0)
		r = describe_path(instance->mountpoint, options->mountpoint, "", err);
	if (r == 0)
		r = describe_path(instance->file, options->mountpoint, fs->is_dir ? options->image_name : "", err);
	if (r == 0 && options->control != NULL)
		r = describe_path(instance->socket, options->control, "", err);
	else if (r == 0)
		r = describe_path(instance->socket, fs->run_dir, socket_name, err);
	return r == 0 ? ctl_registry_can_write(instance, err) : r;
}

/* What only the open image and metadata tell. Lets the control socket answer. */
static int instance_complete(struct fs *fs, struct err *err)
{
	struct era_status status;
	struct stat st;
	era_get_status(fs->era, &status);
	num_uuid_format(status.uuid, fs->instance.uuid);
	fs->instance.generation = status.generation;
	int r = img_stat(fs->image, &st);
	if (r < 0)
		return err_set(err, r, "%s: cannot describe this instance: %s", fs->options.image, strerror(-r));
	fs->instance.image_dev = st.st_dev;
	fs->instance.image_ino = st.st_ino;
	atomic_store(&fs->is_open, true);
	return 0;
}

/* --- open --- */

static int instance_open(struct fs *fs, struct err *err)
{
	const struct fs_options *options = &fs->options;
	const struct era_config config = {
		.image_path = options->image,
		.metadata_path = options->metadata,
		.run_dir = fs->run_dir,
		.nonce = fs->nonce,
		.read_only = options->read_only,
		.create = !options->no_create,
		.mark_all = options->mark_all,
		.resize = options->resize,
		.takeover = options->takeover,
		.block_size = options->block_size,
		.nr_completers = options->threads,
		.intent_bytes = options->intent,
		.intent_max_bytes = options->intent_max,
		.notice = instance_notice,
		.fenced = instance_fenced,
		.notice_arg = fs,
	};
	int r = era_open(&config, &fs->era, err);
	if (r < 0)
		return r;
	fs->image = era_image(fs->era);
	return instance_complete(fs, err);
}

static int instance_listen_and_open(struct fs *fs, struct err *err)
{
	if (fs->server == NULL) {
		struct ctl_handler handler = fs_control_handler(fs);
		int r = ctl_server_start(fs->instance.socket, &handler, &fs->server, err);
		if (r < 0)
			return r;
	}
	return instance_open(fs, err);
}

/* --- wait for one that stops --- */

/* What path stands on: the file beneath the loop devices, if there are some. */
static bool find_base(const char *path, struct stat *ret_st)
{
	char attr[64], below[PATH_MAX];
	if (stat(path, ret_st) < 0)
		return false;
	for (int depth = 0; S_ISBLK(ret_st->st_mode) && depth < INSTANCE_LOOP_DEPTH; depth++) {
		snprintf(attr, sizeof(attr), "/sys/dev/block/%u:%u/loop/backing_file", major(ret_st->st_rdev),
			minor(ret_st->st_rdev));
		if (io_read_text(attr, below, sizeof(below)) < 0 || stat(below, ret_st) < 0)
			break;
	}
	return true;
}

static bool is_attached(const struct ctl_instance *instance)
{
	dev_t found;
	return instance->mount_dev != 0 && mounts_find(NULL, (dev_t)instance->mount_dev, &found);
}

struct holder_search {
	const struct ctl_instance *own;
	bool have_base;
	struct stat base; /* of our image */
};

/* 1: instance is mounted, and has our socket or what our image stands on. */
static int holder_visit(const struct ctl_instance *instance, void *arg)
{
	const struct holder_search *search = arg;
	struct stat base;
	if (instance->fenced || !is_attached(instance))
		return 0;
	if (strcmp(instance->socket, search->own->socket) == 0)
		return 1;
	/* Mounted over itself its image cannot be seen; ctl_resolve() knows that one. */
	return search->have_base && strcmp(instance->image, instance->mountpoint) != 0 &&
	       find_base(instance->image, &base) && base.st_dev == search->base.st_dev &&
	       base.st_ino == search->base.st_ino;
}

/* Whether a live instance that is mounted has what we want: it will not let go. */
static bool is_held_by_mounted(const struct fs *fs)
{
	const char *const names[] = { fs->options.image, fs->options.metadata };
	struct holder_search search = { .own = &fs->instance };
	struct ctl_instance holder;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		int r = ctl_resolve(names[i], &holder, NULL);
		if (r < 0 || (r == 1 && is_attached(&holder)))
			return true;
	}
	search.have_base = find_base(fs->options.image, &search.base);
	return ctl_registry_each(holder_visit, &search) != 0;
}

/* Opens. Where that is in the hands of an instance that has been unmounted and still stops, or of a program that we do not
 * know, tries again for a while. */
static int instance_acquire(struct fs *fs, struct err *err)
{
	int64_t deadline_ms = fs_now_ms() + INSTANCE_PATIENCE_MS;
	for (;;) {
		int r = instance_listen_and_open(fs, err);
		bool is_busy = (r == -EBUSY && err->exit == ERR_EXIT_REFUSED) || r == -EADDRINUSE;
		if (!is_busy || fs_now_ms() >= deadline_ms || is_held_by_mounted(fs))
			return r;
		/* Who presses ^C now wants no mount; err says what it waited for. */
		if (fs_signals_nap(INSTANCE_NAP_MS))
			return r;
	}
}

/* --- start and stop --- */

int fs_start(struct fs *fs, struct err *err)
{
	int r = fs_signals_block(err);
	if (r == 0)
		r = run_own_dir(fs->run_dir, err);
	if (r == 0)
		r = instance_describe(fs, err);
	if (r < 0)
		return r;
	r = -pthread_key_create(&fs->read_buffers, free);
	if (r < 0)
		return err_set(err, r, "cannot start: %s", strerror(-r));
	fs->have_read_buffers = true;
	r = instance_acquire(fs, err);
	if (r == 0)
		r = fs_mount(fs, err);
	if (r < 0)
		return r;
	fs->instance.mount_dev = atomic_load(&fs->mount_dev);
	pthread_mutex_lock(&fs->registry_lock);
	r = ctl_registry_write(fs->run_dir, &fs->instance, err);
	fs->registered = r == 0;
	pthread_mutex_unlock(&fs->registry_lock);
	if (r == 0)
		r = fs_loop_start(fs, fs->options.threads, &fs->loop, err);
	return r;
}

/* Frozen or fenced: writers may wait for ever, and nothing is ours to finish. */
bool fs_has_given_up(const struct fs *fs)
{
	struct era_status status;
	era_get_status(fs->era, &status);
	return status.state == ERA_FROZEN || status.state == ERA_THAWING || status.state == ERA_FENCED;
}

int fs_stop(struct fs *fs, struct err *err)
{
	pthread_mutex_lock(&fs->registry_lock);
	if (fs->registered)
		ctl_registry_remove(fs->run_dir, fs->instance.nonce);
	fs->registered = false;
	pthread_mutex_unlock(&fs->registry_lock);
	/* Nobody freezes it any more. */
	ctl_server_stop(fs->server);
	/* A worker may wait for room among those that wait. */
	if (fs->era != NULL && fs_has_given_up(fs))
		era_stop_waiting(fs->era);
	int r = fs_loop_stop(fs->loop);
	if (r < 0)
		err_set(err, r, "%s: stopped by an error of /dev/fuse: %s", fs->options.mountpoint, strerror(-r));
	/* Completes all requests that wait: their replies need the session. */
	struct err close_err = ERR_INIT;
	int closed = era_close(fs->era, &close_err);
	if (closed < 0) {
		r = closed;
		*err = close_err;
	}
	if (fs->session != NULL) {
		if (fs->mounted)
			fuse_session_unmount(fs->session);
		fuse_session_destroy(fs->session);
	}
	if (fs->have_read_buffers)
		pthread_key_delete(fs->read_buffers);
	pthread_mutex_destroy(&fs->times.lock);
	pthread_mutex_destroy(&fs->registry_lock);
	return r;
}
