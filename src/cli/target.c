/* SPDX-License-Identifier: MIT */
#include "target.h"

#include "instances.h"

#include "base/cleanup.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define TARGET_NAP_MS 20
#define TARGET_NAPS 100

#define TARGET_VARIABLE "ERAIMGFS_TARGET"
#define TARGET_SQLITE_MAGIC "SQLite format 3" /* with its NUL */

/* How long an instance that starts or stops is waited for. */
#define TARGET_PATIENCE_MS 20000
#define TARGET_NAP_MS 20

static int target_no_memory(struct err *err)
{
	return err_set(err, -ENOMEM, "out of memory");
}

/* No word names a target, and the caller has several instances or none. */
static int target_refuse_choice(const struct instances *instances, unsigned int nr_own, struct err *err)
{
	if (instances->nr == 0)
		return err_set_exit(err, ERR_EXIT_USAGE, -EINVAL,
			"no TARGET is given and no instance is live: name a mount point, an image or its metadata");
	CLEANUP_FREE char *names = NULL;
	size_t size;
	FILE *stream = open_memstream(&names, &size);
	if (stream == NULL)
		return target_no_memory(err);
	for (size_t i = 0; i < instances->nr; i++)
		fprintf(stream, "%s%s", i > 0 ? ", " : "", instances->items[i].mountpoint);
	if (fclose(stream) != 0)
		return target_no_memory(err);
	return err_set_exit(err, ERR_EXIT_USAGE, -EINVAL, "no TARGET is given and %s live: %s",
		nr_own > 0 ? "several instances are" : "only instances of other users are", names);
}

/* Root sees other users' instances, but none of them goes without saying. */
static int target_find_only(struct target *target, struct err *err)
{
	struct instances instances;
	int r = instances_load(&instances, err);
	if (r < 0)
		return r;
	unsigned int nr_own = 0;
	for (size_t i = 0; i < instances.nr; i++) {
		if (instances.items[i].uid == geteuid() && nr_own++ == 0)
			target->instance = instances.items[i];
	}
	if (nr_own == 1) {
		target->live = true;
		target->name = strdup(target->instance.mountpoint);
		r = target->name != NULL ? 0 : target_no_memory(err);
	} else {
		r = target_refuse_choice(&instances, nr_own, err);
	}
	instances_clear(&instances);
	return r;
}

/* A plain read: allowed, as this process has no SQLite connection open yet. 1, 0 or -errno. */
static int target_is_sqlite(const char *path)
{
	/* It may be a pipe: do not wait for its writer. */
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return -errno;
	char magic[sizeof(TARGET_SQLITE_MAGIC)];
	struct stat st;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return 0;
	ssize_t n = io_pread_full(fd, magic, sizeof(magic), 0);
	if (n < 0)
		return (int)n;
	return n == sizeof(magic) && memcmp(magic, TARGET_SQLITE_MAGIC, sizeof(magic)) == 0;
}

/*
 * An instance holds an OFD write lock on DATABASE.lock for life. 0: nobody does. -EAGAIN: one of ours does, which no run
 * folder lists, as it is starting or stopping. Only asked, never taken: an instance that starts now must not find it busy.
 */
static int target_check_unlocked(const char *database, struct err *err)
{
	CLEANUP_FREE char *resolved = realpath(database, NULL);
	CLEANUP_FREE char *path = NULL;
	if (resolved == NULL)
		return err_set(err, -errno, "%s: %m", database);
	if (asprintf(&path, "%s.lock", resolved) < 0) {
		path = NULL;
		return target_no_memory(err);
	}
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT)
		return 0;
	struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1 };
	if (fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type == F_UNLCK)
		return 0;
	struct stat st;
	if (fd >= 0 && lock.l_type != F_UNLCK && fstat(fd, &st) == 0 && (st.st_uid == geteuid() || geteuid() == 0))
		return err_set_exit(err, ERR_EXIT_REFUSED, -EAGAIN,
			"%s: is in use by an eraimgfs that is starting, stopping or has another run folder: try again",
			database);
	if (fd >= 0 || errno == EACCES)
		return err_set_exit(err, ERR_EXIT_REFUSED, -EBUSY,
			"%s: is in use by another user's eraimgfs (run era-cli as that user or as root)", database);
	return err_set(err, -errno, "%s: cannot tell whether the metadata is in use: %m", path);
}

/* PATH.era in *ret_database when it exists, else NULL there. 0 or -ENOMEM. */
static int target_find_beside(const char *path, char **ret_database)
{
	char *database;
	if (asprintf(&database, "%s.era", path) < 0)
		return -ENOMEM;
	if (access(database, F_OK) == 0) {
		*ret_database = database;
	} else {
		free(database);
		*ret_database = NULL;
	}
	return 0;
}

/* Fills database and image of a target that is not live. */
static int target_find_offline(struct target *target, struct err *err)
{
	int r = target_is_sqlite(target->name);
	if (r < 0 && r != -ENOENT && r != -ENOTDIR)
		return err_set(err, r, "%s: %s", target->name, strerror(-r));
	char *resolved = realpath(target->name, NULL);
	if (r == 1 && resolved != NULL) {
		target->database = resolved;
		return 0;
	}
	/* eraimgfs follows symlinks before it appends .era. An image that is away still has its metadata's name. */
	target->image = resolved;
	r = resolved != NULL ? target_find_beside(resolved, &target->database) : 0;
	if (r == 0 && target->database == NULL)
		r = target_find_beside(target->name, &target->database);
	if (r < 0)
		return target_no_memory(err);
	if (target->database != NULL)
		return 0;
	return err_set(err, -ENOENT,
		"%s: %s, and there is no %s.era: mount the image first (eraimgfs IMAGE MOUNTPOINT), or name its metadata",
		target->name, resolved != NULL ? "no live instance and no metadata" : "does not exist",
		resolved != NULL ? resolved : target->name);
}

/* Live, or at rest and in nobody's hands; -EAGAIN while it is neither. */
static int target_look(struct target *target, struct err *err)
{
	int r = ctl_resolve(target->name, &target->instance, err);
	if (r < 0)
		return r;
	target->live = r == 1;
	if (target->live)
		return 0;
	free(target->database);
	free(target->image);
	target->database = target->image = NULL;
	r = target_find_offline(target, err);
	return r < 0 ? r : target_check_unlocked(target->database, err);
}

/* Who asks right after an umount meets an instance that still writes its last commit: it is waited for. */
static int target_find_named(struct target *target, struct err *err)
{
	const struct timespec nap = { .tv_nsec = TARGET_NAP_MS * 1000000L };
	int r = target_look(target, err);
	for (int naps = 0; r == -EAGAIN && naps < TARGET_PATIENCE_MS / TARGET_NAP_MS; naps++) {
		nanosleep(&nap, NULL);
		r = target_look(target, err);
	}
	return r;
}

int target_find(const char *text, struct target **ret_target, struct err *err)
{
	struct target *target = calloc(1, sizeof(*target));
	if (target == NULL)
		return target_no_memory(err);
	const char *preset = getenv(TARGET_VARIABLE);
	if (text == NULL && preset != NULL && preset[0] != '\0')
		text = preset;
	int r;
	if (text != NULL) {
		target->name = strdup(text);
		r = target->name != NULL ? target_find_named(target, err) : target_no_memory(err);
	} else {
		r = target_find_only(target, err);
	}
	if (r == 0 && target->live) {
		target->database = strdup(target->instance.metadata);
		r = target->database != NULL ? 0 : target_no_memory(err);
	}
	if (r < 0) {
		target_free(target);
		return r;
	}
	*ret_target = target;
	return 0;
}

void target_free(struct target *target)
{
	if (target == NULL)
		return;
	free(target->name);
	free(target->database);
	free(target->image);
	free(target);
}

int target_require_live(const struct target *target, const char *deed, struct err *err)
{
	if (target->live)
		return 0;
	return err_set(err, -ENOTCONN, "%s: is not mounted: %s needs a live instance: mount it with eraimgfs first",
		target->name, deed);
}

int target_call(
	const struct target *target, json_t *request, unsigned int timeout_s, json_t **ret_reply, struct err *err)
{
	struct ctl_client *client = NULL;
	int r;
	if (request == NULL)
		return target_no_memory(err);
	r = ctl_connect(&target->instance, &client, err);
	if (r == 0)
		r = ctl_call(client, request, timeout_s, ret_reply, err);
	if (r < 0)
		target_explain(target, timeout_s, err);
	ctl_disconnect(client);
	json_decref(request);
	return r;
}

int target_explain(const struct target *target, unsigned int timeout_s, struct err *err)
{
	if (err->code != -ETIMEDOUT)
		return err_prefix(err, "%s", target->name);
	return err_set(err, err->code,
		"%s: its instance (process %d) does not answer within %u s: is it stopped, or is its disk stuck?",
		target->name, (int)target->instance.pid, timeout_s);
}

/* From which era on the intents of a live target need not be counted. One that does not say is answered for by its intents. */
static uint64_t target_settle(const struct target *target)
{
	struct err ignored = ERR_INIT;
	uint64_t from = UINT64_MAX;
	json_t *reply;
	if (target_call(target, json_pack("{s:s}", "request", "settle"), TARGET_REPLY_S, &reply, &ignored) < 0)
		return UINT64_MAX;
	if (ctl_u64(reply, "settled_from", &from) < 0)
		from = UINT64_MAX;
	json_decref(reply);
	return from;
}

int target_read(const struct target *target, struct meta_reader **ret_reader, struct err *err)
{
	/* A snapshot has a name of its own; it does not answer for an image. */
	bool names_database = !target->live && target->image == NULL;
	const struct timespec nap = { .tv_nsec = TARGET_NAP_MS * 1000000L };
	for (int i = 0;; i++) {
		/* First: what it has committed by then is in the snapshot. */
		uint64_t settled_from = target->live ? target_settle(target) : UINT64_MAX;
		int r = (names_database ? meta_reader_open_any : meta_reader_open)(target->database, ret_reader, err);
		if (r < 0)
			return r;
		const struct meta_super *super = meta_reader_super(*ret_reader);
		bool is_whole = super->durable_era == super->current_era;
		/* In the midst of a checkpoint the marks of the last era are on their way, and the new one is not to be
		 * shown yet: soon it is over. Else intents count. */
		if (target->live && !is_whole && i < TARGET_NAPS) {
			meta_reader_close(*ret_reader);
			nanosleep(&nap, NULL);
			continue;
		}
		meta_reader_trust(*ret_reader, is_whole ? settled_from : UINT64_MAX);
		return 0;
	}
}
