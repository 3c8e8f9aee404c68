/* SPDX-License-Identifier: MIT */
/* guard - a list or a copy must not take the place of what it is about. */
#ifndef CLI_GUARD_H
#define CLI_GUARD_H

#include "target.h"

/* 0 when file (NULL or "-": standard output) may be written to. -EINVAL with exit ERR_EXIT_USAGE when it is the image
 * or the metadata of target (NULL: none) or of a live instance, or a file that goes with them, by any name; -errno. option says in
 * the error what it is for. Changes nothing. */
int guard_output(const char *file, const char *option, const struct target *target, struct err *err);

#endif
