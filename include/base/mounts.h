/* SPDX-License-Identifier: MIT */
/*
 * mounts - what is mounted where, from /proc/self/mountinfo: asks no file system anything, so that a mount that is dead or
 * frozen is no obstacle. Of several mounts on one path the last one is on top. Any thread.
 */
#ifndef BASE_MOUNTS_H
#define BASE_MOUNTS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* One mount, valid during the visit. */
struct mounts_entry {
	dev_t dev; /* st_dev of what is in it */
	const char *path; /* its mount point */
	const char *type; /* "ext4", "fuse.eraimgfs", "nfs4" */
	const char *options; /* of the file system, comma-separated: "rw,user_id=0,..." */
};

/* Visits all, oldest first; a non-zero return of visit ends it and is given back. 0 or -errno. */
int mounts_each(int (*visit)(const struct mounts_entry *entry, void *arg), void *arg);

/* File system type of the mount that has device dev. 0, -ENOENT when none has, -E2BIG when it does not fit, -errno. */
int mounts_fs_type(dev_t dev, char *ret_type, size_t size);

/* The mount on top at path (NULL: anywhere) with device dev (0: any). True when there is one. */
bool mounts_find(const char *path, dev_t dev, dev_t *ret_dev);

/* Whether a FUSE file system that uid mounted, with device dev, is at path. */
bool mounts_is_fuse_of(dev_t dev, const char *path, uid_t uid);

#endif
