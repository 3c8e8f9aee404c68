/* SPDX-License-Identifier: MIT */
/* fmt - answers written out: extents as text, JSON, era_invalidate's XML, rbd diff's JSON. */
#ifndef FORMAT_FMT_H
#define FORMAT_FMT_H

#include "base/bitmap.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* The answer to `since`: everything that any format prints. */
struct fmt_since {
	uint8_t uuid[16];
	uint64_t block_size; /* bytes */
	uint64_t image_size; /* bytes; extents are clamped to it */
	uint64_t since; /* the era asked for */
	uint64_t current_era;
	const struct bm *blocks; /* the answer, in blocks */
	const struct bm
		*conservative; /* the part of it that is only feared to have changed; NULL: none, the answer is exact */
};

enum fmt_kind { FMT_TEXT, FMT_JSON, FMT_XML, FMT_RBD };

/* "text", "json", "xml", "rbd". 0 or -EINVAL. */
int fmt_parse_kind(const char *name, enum fmt_kind *ret_kind);

/* The next extent at or after *offset, in bytes, merged and clamped; moves *offset behind it. False at the end. */
bool fmt_next_extent(const struct fmt_since *answer, const struct bm *blocks, uint64_t *offset, uint64_t *ret_offset,
	uint64_t *ret_length);

/* Writes the whole answer. Streamed: memory does not grow with the extents. 0 or -errno (from out's error). */
int fmt_write_since(const struct fmt_since *answer, enum fmt_kind kind, FILE *out);

/* Blocks and bytes of the answer (bytes clamped to the image). */
void fmt_count(const struct fmt_since *answer, uint64_t *ret_blocks, uint64_t *ret_bytes);

#endif
