/* SPDX-License-Identifier: MIT */
/*
 * options - the command line of eraimgfs, and of its other name mount.fuse.eraimgfs, which mount(8) calls.
 *
 * Two steps: fs_options_parse() looks at the words alone, fs_options_resolve() at the files that they name.
 */
#ifndef DAEMON_OPTIONS_H
#define DAEMON_OPTIONS_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define FS_THREADS_DEFAULT 4u
#define FS_THREADS_MAX 64u
#define FS_INTENT_DEFAULT (UINT64_C(4) << 20)
#define FS_INTENT_MAX_DEFAULT (UINT64_C(8) << 30)

struct fs_options {
	/* As given; after fs_options_resolve() absolute and without symlinks. Strings are owned. */
	char *image;
	char *mountpoint; /* absolute after fs_mount_check() */
	char *metadata; /* NULL before fs_options_resolve(): IMAGE.era */
	char *control; /* NULL: beside the registry entry */
	char *fsname; /* NULL before fs_options_resolve(): the image */
	char *subtype; /* NULL: eraimgfs */
	char *flags; /* what the kernel is told, "nodev,noexec" in the order given; NULL: none */
	char *image_name; /* base name of IMAGE as given: the file's name in a mount point that is a directory */

	uint64_t block_size; /* bytes, 0: not given */
	uint64_t intent; /* bytes, 0: off */
	uint64_t intent_max; /* bytes, UINT64_MAX: unlimited */
	unsigned int threads;
	bool no_create;
	bool read_only;
	bool mark_all;
	bool resize;
	bool takeover;
	bool allow_other;
	bool allow_root;
	bool default_permissions;

	bool foreground;
	bool debug; /* implies foreground */
	bool fake; /* mount -f: check the words, do nothing */
	bool help; /* -h or -V came first: nothing else counts */
	bool version;
};

/* 0, or -EINVAL with exit ERR_EXIT_USAGE (-ENOMEM: ERR_EXIT_FAILED). fs_options_release() in any case. Not reentrant:
 * getopt(3). Where argv[0]'s base name starts with "mount.", -f, -n, -s, -v, -t mean what mount(8) means by them. */
int fs_options_parse(int argc, char **argv, struct fs_options *ret_options, struct err *err);

/* Makes the names of image, metadata and control socket absolute; the mount point is mount.c's. Changes nothing. The
 * image must exist. 0 or -errno with err. */
int fs_options_resolve(struct fs_options *options, struct err *err);

void fs_options_release(struct fs_options *options);

/* For --help. */
const char *fs_options_help(void);

#endif
