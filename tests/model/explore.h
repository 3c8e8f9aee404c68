/* SPDX-License-Identifier: MIT */
/*
 * explore - visits every state that a small model can reach, breadth first, so that the trace to a bad one is a shortest.
 */
#ifndef TESTS_MODEL_EXPLORE_H
#define TESTS_MODEL_EXPLORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum explore_move {
	EXPLORE_NONE, /* the action is not possible in this state */
	EXPLORE_MOVED,
	EXPLORE_LUCK, /* moved, but by something that nobody may wait for (a kill, a person) */
};

/* arg is handed to each call. */
struct explore_model {
	size_t state_size; /* bytes, of a struct without padding: states are compared by memcmp() */
	unsigned int nr_actions;
	/* Takes the action, in place. What it leaves in *state where it returns EXPLORE_NONE is thrown away. */
	enum explore_move (*move)(void *arg, void *state, unsigned int action);
	/* NULL, or the property that the state breaks. */
	const char *(*check)(void *arg, const void *state);
	/* Nobody waits. From every state such a one must be in reach without luck. */
	bool (*is_settled)(void *arg, const void *state);
	const char *stuck; /* the name of that property */
	/* One line without its end: what the action does in this state. */
	void (*describe)(void *arg, const void *state, unsigned int action, FILE *out);
	void *arg;
};

struct explore_result {
	const char *broken; /* NULL: every state that can be reached was visited, and none is bad */
	size_t nr_states; /* that were visited */
	unsigned int trace_len; /* actions to the bad state */
};

/* trace, if not NULL, is told the way to the bad state. Ends the process when memory runs out. */
struct explore_result explore(const struct explore_model *model, const void *initial, FILE *trace);

/* The main() of a test of nr variants of a model: runs all of them, or with "--trace NAME" the one of that name, which tells its
 * way. run returns whether the variant does what is expected of it. What main() returns. */
int explore_main(int argc, char **argv, size_t nr, const char *(*name_of)(size_t variant),
	bool (*run)(size_t variant, FILE *trace));

#endif
