/* SPDX-License-Identifier: MIT */
/* since - the answer to "which blocks were written since then?". */
#ifndef CLI_SINCE_H
#define CLI_SINCE_H

#include "target.h"

#include "format/fmt.h"

/* A point in time, as the user names it. */
struct since_point {
	enum { SINCE_ERA, SINCE_CURSOR, SINCE_LABEL } kind;
	uint64_t era; /* of an era or a cursor */
	uint8_t uuid[16]; /* of a cursor */
	const char *label; /* borrowed from the text */
};

/* 0, or -EINVAL/-ERANGE with exit ERR_EXIT_USAGE. */
int since_parse_point(const char *text, struct since_point *ret_point, struct err *err);

/* The era that text is, for an option. Errors as since_parse_point(). */
int since_parse_era(const char *text, uint64_t *ret_era, struct err *err);

/* 0, or -EINVAL with exit ERR_EXIT_USAGE when name cannot be a label. */
int since_check_label(const char *name, struct err *err);

struct since {
	struct fmt_since answer; /* points into the rest */
	struct bm *blocks;
	struct bm *conservative; /* NULL when the answer is exact */
};

/* The whole answer, of one instant. 0, or -errno with nothing to free: exit ERR_EXIT_UNKNOWN when the point is not
 * known here, so that only a full backup is right. */
int since_ask(const struct target *target, const struct since_point *point, struct since *ret_since, struct err *err);
void since_clear(struct since *since);

#endif
