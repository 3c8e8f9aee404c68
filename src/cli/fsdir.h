/* SPDX-License-Identifier: MIT */
/* fsdir - a file system that is to be frozen (FIFREEZE), by the folder at which it is mounted. */
#ifndef CLI_FSDIR_H
#define CLI_FSDIR_H

#include "control/ctl.h"

struct fsdir {
	const char *name; /* as the user gave it, borrowed */
	int fd; /* the folder; closed by fsdir_close() */
	dev_t dev; /* its st_dev */
	dev_t mount_dev; /* what mountinfo(5) says: another number where subvolumes have st_dev of their own */
};

/* Opens name and makes sure that it is where a file system is mounted that can be frozen. 0 or -errno. */
int fsdir_open(const char *name, struct fsdir *ret_dir, struct err *err);
void fsdir_close(struct fsdir *dir);

bool fsdir_is_same(const struct fsdir *dir, const struct fsdir *other);

/* Whether the folder that holds path (absolute) lies on dir's file system. */
bool fsdir_holds(const struct fsdir *dir, const char *path);

/* -EDEADLK when something that instance must write to while it is frozen lies on dir's file system. */
int fsdir_check_instance(const struct fsdir *dir, const struct ctl_instance *instance, struct err *err);

/* 0 or -errno, for fsdir_explain_freeze(). Waits until all that was written is on the device. */
int fsdir_freeze(const struct fsdir *dir);
int fsdir_thaw(const struct fsdir *dir);

/* Fill err and return code. */
int fsdir_explain_freeze(const struct fsdir *dir, int code, struct err *err);
int fsdir_explain_thaw(const struct fsdir *dir, int code, struct err *err);

#endif
