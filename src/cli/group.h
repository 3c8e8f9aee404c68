/* SPDX-License-Identifier: MIT */
/*
 * group - the targets of a command that takes several, and the requests that go to all of their instances.
 *
 * Names of one instance are one. Gates are closed in the order of UUIDs, so that two clients that name the same
 * instances cannot wait for each other. A gate is held by its connection: whatever ends this process opens it.
 */
#ifndef CLI_GROUP_H
#define CLI_GROUP_H

#include "target.h"

struct member {
	struct target *target;
	/* The member that stands for the instance: itself, or an earlier one that names the same. The rest is of
	 * those that stand for themselves. */
	struct member *same;
	struct ctl_client *client; /* NULL: not connected */
	bool asked; /* the last request of group_ask() went out */
	bool done; /* and was answered with era */
	uint64_t era;
};

struct group {
	struct member *members; /* as the user named them */
	unsigned int nr_members;
	struct member **order; /* one an instance, as their gates are closed */
	unsigned int nr_order;
};

/* Finds the live targets of nr names; nr 0: the one that goes without saying. deed is for the error when one is not
 * live. 0 or -errno; group_clear() is due in any case. */
int group_find(struct group *group, const char *const *names, unsigned int nr, const char *deed, struct err *err);
void group_clear(struct group *group);

/* Does each answer, and is it neither frozen nor fenced? To open the mounted file of one that is would hang. -EBUSY
 * with exit ERR_EXIT_REFUSED. */
int group_probe(const struct group *group, struct err *err);

/* Flushes what the kernel holds of each mounted file, and closes it: a daemon cannot, it must not touch its own
 * mount. */
int group_flush(const struct group *group, struct err *err);

/* Closes all gates, one after the other. */
int group_close_gates(struct group *group, struct err *err);

/*
 * Sends request (taken over; NULL: out of memory) to all, then waits for all: no gate stays closed for the time of
 * another's fsync. fd as in ctl_send(). All are tried, whatever fails: the first error is in err, others are logged.
 * wants_era: the reply must have one.
 */
int group_ask(struct group *group, json_t *request, int fd, bool wants_era, struct err *err);

/* Ends all connections: one that is idle is closed by the server before long. */
void group_disconnect(struct group *group);

/* Prints each era as a line; with more than one member behind the name and a tab; cursor: UUID:ERA. */
int group_print(const struct group *group, bool cursor, struct err *err);

#endif
