/* SPDX-License-Identifier: MIT */
/* flush - what the kernel holds of a mounted file goes to its instance. */
#ifndef CLI_FLUSH_H
#define CLI_FLUSH_H

#include "target.h"

/*
 * Opens the mounted file of a live target, fsyncs and closes it, in a process of its own: where a freeze by somebody else
 * comes first and a write waits in it, the kernel lets the fsync wait until the thaw, and no signal ends that. 0; -EBUSY
 * with exit ERR_EXIT_REFUSED when it is frozen; -errno. Where the file is not to be reached there is nothing to flush.
 */
int flush_mounted(const struct target *target, struct err *err);

/* 0 when the target is running or failed; else it is refused, with exit ERR_EXIT_REFUSED. */
int flush_probe(const struct target *target, struct err *err);

#endif
