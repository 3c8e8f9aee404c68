/* SPDX-License-Identifier: MIT */
#include "entry.h"

#include "base/cleanup.h"
#include "base/io.h"
#include "base/mounts.h"
#include "base/num.h"
#include "base/run.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define ENTRY_MAX 65536
#define ENTRY_NONCE_LEN 32u

json_t *entry_to_json(const struct ctl_instance *instance)
{
	/* Some file systems use all 64 bits of an inode number, of which a JSON integer holds 63. */
	char ino[21];
	snprintf(ino, sizeof(ino), "%" PRIu64, instance->image_ino);
	return json_pack("{s:s, s:s, s:I, s:I, s:b, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:s, s:I, s:b}", "nonce",
		instance->nonce, "uuid", instance->uuid, "pid", (json_int_t)instance->pid, "pid_start",
		(json_int_t)instance->pid_start, "read_only", instance->read_only, "image", instance->image, "metadata",
		instance->metadata, "mountpoint", instance->mountpoint, "file", instance->file, "socket",
		instance->socket, "mount_dev", (json_int_t)instance->mount_dev, "image_dev",
		(json_int_t)instance->image_dev, "image_ino", ino, "generation", (json_int_t)instance->generation,
		"fenced", instance->fenced);
}

static bool entry_take_path(const json_t *json, const char *key, char ret_path[PATH_MAX])
{
	const char *path = ctl_string(json, key);
	if (path == NULL || path[0] != '/' || strlen(path) >= PATH_MAX)
		return false;
	strcpy(ret_path, path);
	return true;
}

static bool entry_take_id(const json_t *json, struct ctl_instance *ret_instance)
{
	const char *nonce = ctl_string(json, "nonce");
	const char *uuid = ctl_string(json, "uuid");
	uint8_t ignored[16];
	if (nonce == NULL || !entry_is_name(nonce, "") || uuid == NULL || num_uuid_parse(uuid, ignored) < 0)
		return false;
	strcpy(ret_instance->nonce, nonce);
	/* In the one form in which UUIDs are compared. */
	num_uuid_format(ignored, ret_instance->uuid);
	return true;
}

static bool entry_take_numbers(const json_t *json, struct ctl_instance *ret_instance)
{
	uint64_t pid;
	const char *ino = ctl_string(json, "image_ino");
	const json_t *read_only = json_object_get(json, "read_only"), *fenced = json_object_get(json, "fenced");
	if (ctl_u64(json, "pid", &pid) < 0 || pid == 0 || pid > INT_MAX || !json_is_boolean(read_only) ||
		!json_is_boolean(fenced))
		return false;
	ret_instance->fenced = json_is_true(fenced);
	ret_instance->pid = (pid_t)pid;
	ret_instance->read_only = json_is_true(read_only);
	return ctl_u64(json, "pid_start", &ret_instance->pid_start) == 0 &&
	       ctl_u64(json, "mount_dev", &ret_instance->mount_dev) == 0 &&
	       ctl_u64(json, "image_dev", &ret_instance->image_dev) == 0 && ino != NULL &&
	       num_parse_u64(ino, &ret_instance->image_ino) == 0 &&
	       ctl_u64(json, "generation", &ret_instance->generation) == 0;
}

static bool entry_from_json(const json_t *json, struct ctl_instance *ret_instance)
{
	return entry_take_id(json, ret_instance) && entry_take_numbers(json, ret_instance) &&
	       entry_take_path(json, "image", ret_instance->image) &&
	       entry_take_path(json, "metadata", ret_instance->metadata) &&
	       entry_take_path(json, "mountpoint", ret_instance->mountpoint) &&
	       entry_take_path(json, "file", ret_instance->file) &&
	       entry_take_path(json, "socket", ret_instance->socket);
}

int entry_read(int folder, const char *name, uid_t uid, struct ctl_instance *ret_instance)
{
	/* The folder may be another user's: no symlink, nothing that blocks, nothing huge. */
	CLEANUP_CLOSE int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size > ENTRY_MAX)
		return -EBADMSG;
	json_t *json = json_loadfd(fd, JSON_REJECT_DUPLICATES, NULL);
	*ret_instance = (struct ctl_instance){ .uid = uid };
	bool is_entry = entry_from_json(json, ret_instance) && strncmp(name, ret_instance->nonce, ENTRY_NONCE_LEN) == 0;
	json_decref(json);
	return is_entry ? 0 : -EBADMSG;
}

bool entry_is_alive(const struct ctl_instance *instance)
{
	uint64_t start;
	return run_process_start(instance->pid, &start) == 0 && start == instance->pid_start;
}

static bool entry_is_theirs(const char *path, uid_t uid)
{
	struct stat st;
	return stat(path, &st) == 0 && st.st_uid == uid;
}

/* The image must be the very file that it is known by; under a mount over itself it cannot be seen, and is known by that
 * mount alone. */
static bool entry_has_image(struct ctl_instance *instance)
{
	struct stat st;
	if (strcmp(instance->image, instance->mountpoint) == 0) {
		instance->image_dev = instance->image_ino = 0;
		return true;
	}
	return stat(instance->image, &st) == 0 && st.st_uid == instance->uid && st.st_dev == instance->image_dev &&
	       st.st_ino == instance->image_ino;
}

bool entry_is_credible(struct ctl_instance *instance)
{
	char process[32];
	size_t len = strlen(instance->mountpoint);
	snprintf(process, sizeof(process), "/proc/%d", (int)instance->pid);
	return entry_is_theirs(process, instance->uid) && entry_is_theirs(instance->metadata, instance->uid) &&
	       mounts_is_fuse_of(instance->mount_dev, instance->mountpoint, instance->uid) &&
	       strncmp(instance->file, instance->mountpoint, len) == 0 &&
	       (instance->file[len] == '\0' || instance->file[len] == '/') && entry_has_image(instance);
}

bool entry_is_name(const char *name, const char *suffix)
{
	return strspn(name, "0123456789abcdef") == ENTRY_NONCE_LEN && strcmp(name + ENTRY_NONCE_LEN, suffix) == 0;
}
