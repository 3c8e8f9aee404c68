/* SPDX-License-Identifier: MIT */
/*
 * core_model - the naive model that test_era_model holds the core against: for each block its last era, and the bytes.
 *
 * Images of terabytes are modelled too: memory is reserved, not filled, and bytes are written in a few windows alone;
 * one more region, of whole blocks, is only ever punched.
 */
#ifndef TESTS_CORE_MODEL_H
#define TESTS_CORE_MODEL_H

#include "core_util.h"

#define MODEL_WINDOWS 12
#define MODEL_LABELS 6
#define MODEL_BURST 4
#define MODEL_WRITE_MAX (128 * 1024)

struct model_geometry {
	const char *name;
	uint64_t block_size;
	uint64_t image_size;
	unsigned int share; /* of 1000 operations */
};

struct model_range {
	uint64_t begin;
	uint64_t end; /* bytes */
};

struct model {
	uint64_t block_size;
	uint64_t image_size;
	uint64_t nr_blocks;
	uint64_t era; /* the newest that was shown; what is written now is written in it */
	uint32_t *last_era; /* of each block, 0: never */
	uint8_t *bytes; /* the image's */
	unsigned int nr_windows;
	struct model_range windows[MODEL_WINDOWS]; /* where bytes are written, disjoint */
	struct model_range punch_region; /* empty where the windows are the whole image */
	uint64_t label_eras[MODEL_LABELS]; /* 0: no such label */
};

enum model_kind {
	MODEL_WRITE,
	MODEL_PUNCH,
	MODEL_ZERO,
	MODEL_COPY,
	MODEL_BURST_OF_WRITES, /* several at a time */
	MODEL_FSYNC,
	MODEL_CHECKPOINT,
	MODEL_CHECKPOINT_LABEL,
	MODEL_LABEL,
	MODEL_UNLABEL,
	MODEL_SINCE,
};

struct model_op {
	enum model_kind kind;
	unsigned int nr; /* ranges in use */
	struct model_range ranges[MODEL_BURST];
	uint64_t from; /* COPY */
	uint64_t seed; /* of what is written */
	uint64_t arg; /* a label, an era */
};

uint64_t model_random(uint64_t *state);
/* Uniform in [0, below). */
uint64_t model_below(uint64_t *state, uint64_t below);

void model_init(struct model *model, const struct model_geometry *geometry, uint64_t *random);
void model_free(struct model *model);

void model_pick_op(const struct model *model, uint64_t *random, struct model_op *ret_op);

/* What range number i of op writes; NULL: zeros, or COPY. */
void model_fill(const struct model_op *op, unsigned int i, uint8_t *ret_bytes);

/* The whole op, or one range of it, came to pass. */
void model_apply(struct model *model, const struct model_op *op);
void model_apply_range(struct model *model, const struct model_op *op, unsigned int i);

/* Range i of op was in flight when the process was killed: takes over what the image and the answer of since(era of
 * then) hold, after checking that they hold the old or the new bytes and no new byte in a block that is not reported.
 * False, and a text on stderr, where they do not. */
bool model_absorb(
	struct model *model, const struct model_op *op, unsigned int i, int image_fd, const struct core_since *since);

/* Exact equality of the answer of since(era). */
bool model_check_since(const struct model *model, const struct core_since *since, uint64_t era);

/* The image's bytes: the windows, and that there is nothing outside of them. */
bool model_check_image(const struct model *model, int image_fd);

const char *model_label_name(uint64_t label);

#endif
