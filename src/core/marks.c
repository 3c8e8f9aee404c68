/* SPDX-License-Identifier: MIT */
#include "marks.h"

#include "base/bitmap.h"

#include <errno.h>
#include <stdlib.h>

int marks_add(struct marks *marks, uint64_t begin, uint64_t end)
{
	for (uint64_t upto; begin < end; begin = upto) {
		upto = (begin / BM_CHUNK_BITS + 1) * BM_CHUNK_BITS;
		upto = upto < end ? upto : end;
		struct mark *last = marks->nr > 0 ? &marks->list[marks->nr - 1] : NULL;
		if (last && last->end == begin && last->begin / BM_CHUNK_BITS == begin / BM_CHUNK_BITS) {
			last->end = upto;
			continue;
		}
		if (marks->nr == marks->room) {
			size_t room = marks->room ? marks->room * 2 : 64;
			struct mark *list = reallocarray(marks->list, room, sizeof(*list));
			if (!list)
				return -ENOMEM;
			marks->list = list;
			marks->room = room;
		}
		marks->list[marks->nr++] = (struct mark){ begin, upto };
	}
	return 0;
}

static int mark_compare(const void *a, const void *b)
{
	const struct mark *x = a, *y = b;
	return (x->begin > y->begin) - (x->begin < y->begin);
}

int marks_each_chunk(struct marks *marks, int (*put)(uint64_t chunk, const uint64_t *words, void *arg), void *arg)
{
	int r = 0;

	if (marks->nr > 0)
		qsort(marks->list, marks->nr, sizeof(*marks->list), mark_compare);
	for (size_t i = 0; r == 0 && i < marks->nr;) {
		uint64_t chunk = marks->list[i].begin / BM_CHUNK_BITS;
		uint64_t words[BM_CHUNK_WORDS] = { 0 };
		for (; i < marks->nr && marks->list[i].begin / BM_CHUNK_BITS == chunk; i++)
			bm_words_set(words, marks->list[i].begin % BM_CHUNK_BITS,
				(marks->list[i].end - 1) % BM_CHUNK_BITS + 1);
		r = put(chunk, words, arg);
	}
	return r;
}

void marks_free(struct marks *marks)
{
	free(marks->list);
	*marks = (struct marks){ 0 };
}
