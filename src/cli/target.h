/* SPDX-License-Identifier: MIT */
/* target - what a command is about: a live instance, or a database at rest. */
#ifndef CLI_TARGET_H
#define CLI_TARGET_H

#include "control/ctl.h"
#include "meta/meta.h"

/* How long an instance may take, in seconds: for what it answers from memory or with one commit, and for what may fsync
 * all that was written since the last time. A longer silence means that it hangs. */
#define TARGET_REPLY_S 30
#define TARGET_CHECKPOINT_S 600

struct target {
	char *name; /* as the user gave it, for output and errors */
	bool live;
	struct ctl_instance instance; /* when live */
	char *database; /* path of the metadata, live or not */
	char *image; /* when not live and known; else NULL */
};

/*
 * Finds text's target; NULL: $ERAIMGFS_TARGET, else the caller's only live instance. 0 or -errno: no such thing, a dead mount,
 * or a database that another user's instance has open (exit ERR_EXIT_REFUSED).
 */
int target_find(const char *text, struct target **ret_target, struct err *err);
void target_free(struct target *target);

/* 0 when live; else -ENOTCONN with err: deed says what needs it to be mounted. */
int target_require_live(const struct target *target, const char *deed, struct err *err);

/* One request to a live target, on a connection of its own. Takes request over, NULL (out of memory) too. timeout_s as
 * in ctl_call(). */
int target_call(
	const struct target *target, json_t *request, unsigned int timeout_s, json_t **ret_reply, struct err *err);

/* Puts the target's name before err. A reply that did not come in time gets a text of its own. Returns err->code. */
int target_explain(const struct target *target, unsigned int timeout_s, struct err *err);

/* A snapshot of the target's database. */
int target_read(const struct target *target, struct meta_reader **ret_reader, struct err *err);

#endif
