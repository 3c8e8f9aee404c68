/* SPDX-License-Identifier: MIT */
#include "point.h"

#include "guard.h"

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>

int point_set(struct point *point, int c, const char *argument, struct err *err)
{
	if (c == POINT_CLONE) {
		point->clone_file = argument;
		return 0;
	}
	const char **dirs = reallocarray(point->dirs, point->nr_dirs + 1, sizeof(*dirs));
	if (dirs == NULL)
		return err_set(err, -ENOMEM, "out of memory");
	point->dirs = dirs;
	dirs[point->nr_dirs++] = argument;
	return 0;
}

/* Would the copy's file be made or renamed where writers wait? path is absolute. */
static int point_check_clone_place(const struct point *point, const char *path, struct err *err)
{
	const struct ctl_instance *instance = &point->group.order[0]->target->instance;
	CLEANUP_FREE char *folder = strndup(path, (size_t)(strrchr(path, '/') - path + 1));
	if (folder == NULL)
		return err_set(err, -ENOMEM, "out of memory");
	struct stat st;
	if (stat(folder, &st) == 0 && st.st_dev == instance->mount_dev)
		return err_set_exit(err, ERR_EXIT_USAGE, -EINVAL,
			"--clone %s: is on the mounted image itself: name a file beside the image %s",
			point->clone_file, instance->image);
	if (point->fsguard != NULL && fsguard_holds(point->fsguard, path))
		return err_set_exit(err, ERR_EXIT_USAGE, -EINVAL,
			"--clone %s: is on a file system that --fsfreeze freezes: name a file beside the image %s",
			point->clone_file, instance->image);
	return 0;
}

/* Where there is a regular file, or none, at the user's name: its absolute path, which out_open() will replace. */
static int point_find_clone(const struct point *point, char **ret_path, struct err *err)
{
	const char *file = point->clone_file;
	struct stat st;
	if (stat(file, &st) == 0 && !S_ISREG(st.st_mode))
		return err_set_exit(
			err, ERR_EXIT_USAGE, -EINVAL, "--clone %s: is not a regular file: name another", file);
	char *path = realpath(file, NULL);
	if (path == NULL) {
		int r = io_absolute(file, &path);
		if (r < 0)
			return err_set(err, r, "%s: %s", file, strerror(-r));
	}
	*ret_path = path;
	return 0;
}

static int point_open_clone(struct point *point, struct err *err)
{
	char *path = NULL;
	int r = guard_output(
		point->clone_file, "--clone names the file for the copy", point->group.order[0]->target, err);
	if (r == 0)
		r = point_find_clone(point, &path, err);
	if (r < 0)
		return r;
	r = point_check_clone_place(point, path, err);
	free(path);
	return r < 0 ? r : out_open(point->clone_file, &point->clone, err);
}

/* Targets and their state, and all that can be refused, before anything is held up. */
static int point_prepare(
	struct point *point, enum point_kind kind, const char *const *names, unsigned int nr_names, struct err *err)
{
	struct group *group = &point->group;
	int r = group_find(group, names, nr_names, kind == POINT_OF_FREEZE ? "a freeze" : "a checkpoint", err);
	if (r == 0)
		r = group_probe(group, err);
	if (r == 0 && point->nr_dirs > 0)
		r = fsguard_new(point->dirs, point->nr_dirs, group, &point->fsguard, err);
	if (r == 0 && point->clone_file != NULL)
		r = point_open_clone(point, err);
	if (r == 0 && kind == POINT_OF_FREEZE) {
		r = group_ask(group, json_pack("{s:s}", "request", "freeze-prepare"), -1, false, err);
		group_disconnect(group);
	}
	return r;
}

int point_take(struct point *point, enum point_kind kind, const char *const *names, unsigned int nr_names,
	json_t *request, struct err *err)
{
	struct group *group = &point->group;
	int r = request != NULL ? 0 : err_set(err, -ENOMEM, "out of memory");
	if (r == 0 && point->clone_file != NULL && (nr_names > 1 || strcmp(point->clone_file, "-") == 0))
		r = err_set_exit(err, ERR_EXIT_USAGE, -EINVAL,
			"--clone FILE takes a file, and exactly one TARGET: see 'era-cli --help'");
	if (r == 0)
		r = point_prepare(point, kind, names, nr_names, err);
	if (r == 0 && point->fsguard != NULL)
		r = fsguard_freeze(point->fsguard, err);
	if (r == 0)
		r = group_flush(group, err);
	if (r == 0)
		r = group_close_gates(group, err);
	if (r == 0)
		return group_ask(
			group, request, point->clone.stream != NULL ? fileno(point->clone.stream) : -1, true, err);
	json_decref(request);
	return r;
}

int point_thaw(struct point *point, int r, struct err *err)
{
	struct err thaw_err = ERR_INIT;
	/* A gate that is still closed would be what FITHAW waits for. */
	group_disconnect(&point->group);
	int thawed = point->fsguard != NULL ? fsguard_thaw(point->fsguard, &thaw_err) : 0;
	if (thawed == 0)
		return r;
	if (r == 0) {
		*err = thaw_err;
		return thawed;
	}
	log_write(LOG_ERR, "%s", thaw_err.text);
	return r;
}

int point_keep_clone(struct point *point, struct err *err)
{
	return point->clone.stream != NULL ? out_finish(&point->clone, err) : 0;
}

void point_clear(struct point *point)
{
	out_abandon(&point->clone);
	fsguard_free(point->fsguard);
	group_clear(&point->group);
	free(point->dirs);
}
