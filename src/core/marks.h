/* SPDX-License-Identifier: MIT */
/* marks - ranges of blocks (or of extents) on their way into rows of the database. */
#ifndef CORE_MARKS_H
#define CORE_MARKS_H

#include <stddef.h>
#include <stdint.h>

/* [begin, end), within one chunk of a bitmap. */
struct mark {
	uint64_t begin;
	uint64_t end;
};

/* Zero at first. They may overlap. */
struct marks {
	struct mark *list;
	size_t nr;
	size_t room;
};

/* [begin, end) of any length. 0 or -ENOMEM, with a part of it added. */
int marks_add(struct marks *marks, uint64_t begin, uint64_t end);

/* Sorts them, and calls put once for each chunk, with all their bits in it. A non-zero return ends it and is given back. */
int marks_each_chunk(struct marks *marks, int (*put)(uint64_t chunk, const uint64_t *words, void *arg), void *arg);

/* Keeps the list's memory. */
static inline void marks_reset(struct marks *marks)
{
	marks->nr = 0;
}

void marks_free(struct marks *marks);

#endif
