/* SPDX-License-Identifier: MIT */
/* binding - are metadata at rest, and the image beside them, as the last instance left them? */
#ifndef CLI_BINDING_H
#define CLI_BINDING_H

#include "target.h"

/*
 * Tells of each thing for which a mount of a target that is not live would be refused: super lacks commits that the
 * witness saw; the image, where it is known, has another kind or size, was modified after a clean stop, is older than
 * when an instance that was killed started, or was modified later than that is known to have written. Changes may be missing from every answer then. Returns the number of findings, or -errno when it could not look. size_alone: of the
 * kind and size only, which is all that a list of every block depends on.
 */
int binding_check(const struct target *target, const struct meta_super *super, bool size_alone,
	void (*finding)(const char *text, void *arg), void *arg, struct err *err);

/* -EBUSY with exit ERR_EXIT_REFUSED when an instance has the image. */
int binding_check_free(const char *image, struct err *err);

/* Binds super, whose geometry is set, to the image as it stands now, after an fsync of it: as a clean stop does. -EINVAL
 * when it has another number of blocks. */
int binding_take(const char *image, struct meta_super *super, struct err *err);

#endif
