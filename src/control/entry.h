/* SPDX-License-Identifier: MIT */
/* entry - one file of the registry, private to the layer. */
#ifndef CONTROL_ENTRY_H
#define CONTROL_ENTRY_H

#include "control/ctl.h"

/* A new reference; NULL when a name is not UTF-8, as JSON must be, or memory is short. */
json_t *entry_to_json(const struct ctl_instance *instance);

/* Reads folder/name, of a folder of uid's. 0; -EBADMSG: it is no entry, or not that of the nonce which its name says; -errno. */
int entry_read(int folder, const char *name, uid_t uid, struct ctl_instance *ret_instance);

/* Whether the process that wrote it still runs. */
bool entry_is_alive(const struct ctl_instance *instance);

/* Whether what it claims is its user's: the process, image and metadata, and a FUSE mount of his at that place. Else a user
 * could have root ask his own program about root's image. */
bool entry_is_credible(struct ctl_instance *instance);

/* Whether name is "NONCE" and suffix. */
bool entry_is_name(const char *name, const char *suffix);

#endif
