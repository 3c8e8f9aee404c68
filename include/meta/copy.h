/* SPDX-License-Identifier: MIT */
/* copy - metadata out of a database whole, and into a new one. Rows are handed over a chunk at a time (base/bitmap.h):
 * no call needs memory that grows with the image. */
#ifndef META_COPY_H
#define META_COPY_H

#include "meta/meta.h"

/* What a reader's snapshot holds. They return 0; -errno ends the visit and is given back. */
struct meta_visitor {
	/* A writeset begins. They ascend by era; the current one is the last. */
	int (*writeset)(uint64_t era, void *arg);
	/* Its chunks, ascending, none left out: bit i of words is block first + i, of nr. */
	int (*bits)(uint64_t first, unsigned int nr, const uint64_t *words, void *arg);
	/* Then the era array, whole and ascending: eras[i] is of block first + i; 0: never. No era is below floor_era. */
	int (*eras)(uint64_t first, unsigned int nr, const uint64_t *eras, void *arg);
};

/* logical: no writesets; the era array has them folded in, a block with the newest era it is known with. 0 or -errno: -EUCLEAN when a row is damaged. err is filled for its own errors and for a visitor's below 0. */
int meta_reader_visit(
	struct meta_reader *reader, bool logical, const struct meta_visitor *visitor, void *arg, struct err *err);

/*
 * Writes what the reader sees to path, as a database in state META_SNAPSHOT: whole or not at all, verified, durable,
 * complete without a -wal. It takes the place of an older snapshot of that name; -EEXIST when something else has it.
 * Refused as by meta_create(): -ENOTSUP, -ENOTEMPTY and so on.
 */
int meta_reader_snapshot(struct meta_reader *reader, const char *path, struct err *err);

struct meta_build;

/*
 * Begins a database that will be path, filled by the calls below and given its name by meta_build_finish(). super gives
 * uuid, geometry, eras, binding and the state that it ends with: META_CLEAN or META_SNAPSHOT. Until then it is a temporary
 * file beside path. -EEXIST when path exists; refused as by meta_create(). The caller need hold no lock.
 */
int meta_build_begin(const char *path, const struct meta_super *super, struct meta_build **ret_build, struct err *err);

/* A chunk of era's writeset / of the era array. Eras are 1 to current_era (0 in eras: never), and no bit or era is at
 * nr_blocks or beyond. 0 or -errno; the build is to be abandoned then. */
int meta_build_bits(struct meta_build *build, uint64_t era, uint64_t chunk, const uint64_t *words, struct err *err);
int meta_build_eras(struct meta_build *build, uint64_t chunk, const uint64_t *eras, struct err *err);

/* Makes it durable and gives it its name. Frees build whatever is returned. -EEXIST when path was made meanwhile. */
int meta_build_finish(struct meta_build *build, struct err *err);

/* Leaves no trace. NULL is fine. */
void meta_build_abandon(struct meta_build *build);

#endif
