/* SPDX-License-Identifier: MIT */
/*
 * era_xml - whole metadata as XML: what era_dump writes and era_restore reads (thin-provisioning-tools). Streamed both
 * ways, a chunk of blocks (base/bitmap.h) at a time.
 */
#ifndef FORMAT_ERA_XML_H
#define FORMAT_ERA_XML_H

#include "base/bitmap.h"
#include "base/err.h"

#include <stdint.h>
#include <stdio.h>

/* Eras of this format have 32 bits. */
#define FMT_ERA_MAX UINT64_C(0xffffffff)
#define FMT_ERA_UUID_MAX 128 /* bytes of the attribute, without NUL */

struct fmt_era_super {
	char uuid[FMT_ERA_UUID_MAX + 1]; /* any text, or none: the tools do not look at it */
	uint64_t block_size; /* bytes, a multiple of 512 */
	uint64_t nr_blocks;
	uint64_t current_era;
};

/* --- writing: super; for each writeset its begin, all blocks, its end; the same for the array; the end. 0 or -errno --- */

int fmt_era_write_super(const struct fmt_era_super *super, FILE *out);
int fmt_era_write_writeset(uint64_t era, uint64_t nr_bits, FILE *out);
int fmt_era_write_bits(uint64_t first, unsigned int nr, const uint64_t *words, FILE *out);
int fmt_era_write_writeset_end(FILE *out);
int fmt_era_write_array(FILE *out);
int fmt_era_write_eras(uint64_t first, unsigned int nr, const uint64_t *eras, FILE *out);
int fmt_era_write_end(FILE *out); /* of the array and of all */

/* --- reading --- */

/* What was read goes there, in the order of the file. They fill err and return -errno to end it. */
struct fmt_era_sink {
	/* First, and once. Eras below are 0 or 1 to current_era, blocks below nr_blocks. */
	int (*super)(const struct fmt_era_super *super, void *arg, struct err *err);
	/* BM_CHUNK_WORDS words of a writeset, any bit set; chunks ascend, eras too. */
	int (*bits)(uint64_t era, uint64_t chunk, const uint64_t *words, void *arg, struct err *err);
	/* BM_CHUNK_BITS eras of the array, any of them above 0; chunks ascend. */
	int (*eras)(uint64_t chunk, const uint64_t *eras, void *arg, struct err *err);
};

/*
 * Reads in to its end. Both ways to write a writeset are taken (<bit>, and <marked> of newer tools). 0; -EINVAL for what is
 * no era XML, or contradicts itself (err names line and cause; name is the file's), a sink's error, -errno. Whatever
 * comes in, memory is bounded: there are no DTD and no entities, and no tag is longer than some KiB.
 */
int fmt_era_read(FILE *in, const char *name, const struct fmt_era_sink *sink, void *arg, struct err *err);

#endif
