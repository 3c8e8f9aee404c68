/* SPDX-License-Identifier: MIT */
/* scale - metadata of large images, for since_scale. */
#ifndef BENCH_SCALE_H
#define BENCH_SCALE_H

#include "base/err.h"
#include "meta/meta.h"

#include <stdint.h>

#define STEPS_MAX 1000000

enum pattern {
	SOME, /* 1 % of the blocks, at random */
	SPARSE, /* a few blocks in each of some thousand chunks */
	DENSE, /* three quarters of the blocks, at random */
	WHOLE,
};

struct shape {
	const char *name;
	uint64_t nr_blocks;
	uint64_t nr_eras;
	enum pattern pattern;
};

struct bench {
	struct shape shape;
	char db[512];
	uint64_t era; /* to ask for */
	uint64_t nr_rows; /* of all writesets */
	uint64_t random;
};

/* What a child has to say. */
struct report {
	int64_t ns;
	int64_t cpu_ns; /* says more where others keep the machine busy */
	uint64_t blocks;
	uint64_t read_bytes;
	uint64_t rows; /* that scale_build() wrote */
	uint64_t steps;
	int64_t longest_write_back_ns;
	unsigned int wal_frames;
	int64_t step_ns[STEPS_MAX];
};

/* Where r is an error: says so and ends the process. err may be NULL. */
void scale_must(int r, const struct err *err, const char *what);

/* Writes the WAL back, whole, and closes. */
void scale_close(struct meta *meta);

/* Makes bench->db: eras 1 to nr_eras, nothing digested, and the current one with nothing in it. */
void scale_build(struct bench *bench, struct report *report);

#endif
