/* SPDX-License-Identifier: MIT */
#include "entry.h"

#include "base/cleanup.h"
#include "base/io.h"
#include "base/run.h"
#include "control/ctl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define REGISTRY_SUFFIX ".json"

/* An entry that is being written: NONCE.json.PID.new. Whether its writer is gone. */
static bool registry_is_abandoned(const char *name)
{
	char nonce[33], rest[8];
	int pid;
	return sscanf(name, "%32[0-9a-f]" REGISTRY_SUFFIX ".%d.%7s", nonce, &pid, rest) == 3 && pid > 0 &&
	       strcmp(rest, "new") == 0 && kill(pid, 0) < 0 && errno == ESRCH;
}

/* Removes the entries of processes that are gone, with their sockets: who is killed leaves both. */
static void registry_sweep(int folder)
{
	int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	if (dir == NULL) {
		if (fd >= 0)
			close(fd);
		return;
	}
	struct ctl_instance instance;
	const struct dirent *item;
	while ((item = readdir(dir)) != NULL) {
		if (registry_is_abandoned(item->d_name))
			unlinkat(folder, item->d_name, 0);
		if (!entry_is_name(item->d_name, REGISTRY_SUFFIX) ||
			entry_read(folder, item->d_name, geteuid(), &instance) < 0 || entry_is_alive(&instance))
			continue;
		char socket[sizeof(instance.nonce) + sizeof(".sock")];
		snprintf(socket, sizeof(socket), "%s.sock", instance.nonce);
		unlinkat(folder, socket, 0);
		unlinkat(folder, item->d_name, 0);
	}
	closedir(dir);
}

/* Writes text as name, whole or not at all. */
static int registry_put(int folder, const char *name, const char *text)
{
	char temp[80];
	snprintf(temp, sizeof(temp), "%s.%d.new", name, (int)getpid());
	int fd = openat(folder, temp, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	/* No fsync: what a power loss takes from a run folder is what it should. */
	int r = io_write_all(fd, text, strlen(text));
	if (close(fd) < 0 && r == 0)
		r = -errno;
	if (r == 0 && renameat(folder, temp, folder, name) < 0)
		r = -errno;
	if (r < 0)
		unlinkat(folder, temp, 0);
	return r;
}

/* The entry's text, malloc'ed. */
static int registry_text(const struct ctl_instance *instance, char **ret_text, struct err *err)
{
	json_t *json = entry_to_json(instance);
	*ret_text = json != NULL ? json_dumps(json, JSON_INDENT(2)) : NULL;
	json_decref(json);
	if (*ret_text != NULL)
		return 0;
	return err_set(err, -EILSEQ,
		"%s: cannot be listed in the run folder: the name of its image, metadata, mount point or socket is not UTF-8",
		instance->mountpoint);
}

int ctl_registry_can_write(const struct ctl_instance *instance, struct err *err)
{
	CLEANUP_FREE char *text = NULL;
	return registry_text(instance, &text, err);
}

int ctl_registry_write(const char *dir, const struct ctl_instance *instance, struct err *err)
{
	CLEANUP_CLOSE int folder = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder < 0)
		return err_set(err, -errno, "%s: cannot open the run folder: %m", dir);
	registry_sweep(folder);

	CLEANUP_FREE char *text = NULL;
	int r = registry_text(instance, &text, err);
	if (r < 0)
		return r;
	char name[sizeof(instance->nonce) + sizeof(REGISTRY_SUFFIX)];
	snprintf(name, sizeof(name), "%s" REGISTRY_SUFFIX, instance->nonce);
	r = registry_put(folder, name, text);
	if (r < 0)
		return err_set(err, r, "%s/%s: cannot write the instance's entry: %s", dir, name, strerror(-r));
	return 0;
}

void ctl_registry_remove(const char *dir, const char *nonce)
{
	char path[PATH_MAX];
	if (snprintf(path, sizeof(path), "%s/%s" REGISTRY_SUFFIX, dir, nonce) < (int)sizeof(path))
		unlink(path);
}

struct registry_visit {
	int (*visit)(const struct ctl_instance *instance, void *arg);
	void *arg;
};

static int registry_visit_dir(const char *path, void *arg)
{
	const struct registry_visit *visit = arg;
	DIR *dir = opendir(path);
	if (dir == NULL)
		return 0;
	struct ctl_instance *instance = malloc(sizeof(*instance));
	struct stat st;
	int r = instance != NULL ? 0 : -ENOMEM;
	if (r == 0 && fstat(dirfd(dir), &st) < 0)
		r = -errno;
	const struct dirent *item;
	while (r == 0 && (item = readdir(dir)) != NULL) {
		if (entry_is_name(item->d_name, REGISTRY_SUFFIX) &&
			entry_read(dirfd(dir), item->d_name, st.st_uid, instance) == 0 && entry_is_alive(instance) &&
			(st.st_uid == geteuid() || entry_is_credible(instance)))
			r = visit->visit(instance, visit->arg);
	}
	free(instance);
	closedir(dir);
	return r;
}

int ctl_registry_each(int (*visit)(const struct ctl_instance *instance, void *arg), void *arg)
{
	struct registry_visit inner = { .visit = visit, .arg = arg };
	return run_each_dir(registry_visit_dir, &inner);
}
