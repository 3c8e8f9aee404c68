/* SPDX-License-Identifier: MIT */
#include "explore.h"

#include <err.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define NOWHERE UINT32_MAX
#define NR_FIRST_SLOTS 4096u

struct edge {
	uint32_t from;
	uint32_t to;
};

struct visit {
	uint32_t parent;
	uint32_t action; /* that led here from parent */
};

struct space {
	const struct explore_model *model;
	char *states;
	struct visit *visits;
	uint32_t nr;
	uint32_t room;
	uint32_t *slots; /* hash table of indices; never more than half full */
	uint32_t nr_slots; /* a power of two */
	struct edge *edges; /* without luck */
	size_t nr_edges;
	size_t edges_room;
};

static void *resize(void *old, size_t nr, size_t size)
{
	void *memory = reallocarray(old, nr, size);
	if (!memory)
		errx(1, "out of memory");
	return memory;
}

static void *space_state(const struct space *space, uint32_t index)
{
	return space->states + (size_t)index * space->model->state_size;
}

/* Where the state stands in the table, or the free slot where it belongs. */
static uint32_t *space_slot(const struct space *space, const void *state)
{
	size_t size = space->model->state_size;
	uint32_t mask = space->nr_slots - 1;
	uint32_t at = (uint32_t)XXH3_64bits(state, size) & mask;

	while (space->slots[at] != NOWHERE && memcmp(space_state(space, space->slots[at]), state, size) != 0)
		at = (at + 1) & mask;
	return &space->slots[at];
}

static void space_grow(struct space *space)
{
	space->nr_slots = space->nr_slots ? space->nr_slots * 2 : NR_FIRST_SLOTS;
	space->room = space->nr_slots / 2;
	space->slots = resize(space->slots, space->nr_slots, sizeof(*space->slots));
	space->states = resize(space->states, space->room, space->model->state_size);
	space->visits = resize(space->visits, space->room, sizeof(*space->visits));
	memset(space->slots, 0xff, space->nr_slots * sizeof(*space->slots));
	for (uint32_t i = 0; i < space->nr; i++)
		*space_slot(space, space_state(space, i)) = i;
}

/* The index of the state; it is new when that is the last one. */
static uint32_t space_add(struct space *space, const void *state, uint32_t parent, uint32_t action)
{
	if (space->nr == space->room)
		space_grow(space);
	uint32_t *slot = space_slot(space, state);
	if (*slot == NOWHERE) {
		*slot = space->nr++;
		memcpy(space_state(space, *slot), state, space->model->state_size);
		space->visits[*slot] = (struct visit){ parent, action };
	}
	return *slot;
}

static void space_add_edge(struct space *space, uint32_t from, uint32_t to)
{
	if (space->nr_edges == space->edges_room) {
		space->edges_room = space->edges_room ? space->edges_room * 2 : NR_FIRST_SLOTS;
		space->edges = resize(space->edges, space->edges_room, sizeof(*space->edges));
	}
	space->edges[space->nr_edges++] = (struct edge){ from, to };
}

/* The first state from which no settled one is in reach, or NOWHERE. */
static uint32_t space_find_stuck(const struct space *space)
{
	const struct explore_model *model = space->model;
	bool *can_settle = resize(NULL, space->nr, sizeof(*can_settle));
	bool changed = true;
	uint32_t i;

	for (i = 0; i < space->nr; i++)
		can_settle[i] = model->is_settled(model->arg, space_state(space, i));
	while (changed) {
		changed = false;
		for (size_t e = space->nr_edges; e-- > 0;) {
			const struct edge *edge = &space->edges[e];
			if (can_settle[edge->to] && !can_settle[edge->from])
				can_settle[edge->from] = changed = true;
		}
	}
	for (i = 0; i < space->nr && can_settle[i]; i++)
		;
	free(can_settle);
	return i < space->nr ? i : NOWHERE;
}

/* Visits all that can be reached; stops at the first bad state and returns it, else NOWHERE. */
static uint32_t space_visit(struct space *space, const char **ret_broken)
{
	const struct explore_model *model = space->model;
	char *state = resize(NULL, 1, model->state_size);
	uint32_t bad = NOWHERE;

	for (uint32_t from = 0; from < space->nr && bad == NOWHERE; from++) {
		for (unsigned int action = 0; action < model->nr_actions && bad == NOWHERE; action++) {
			memcpy(state, space_state(space, from), model->state_size);
			enum explore_move move = model->move(model->arg, state, action);
			if (move == EXPLORE_NONE)
				continue;
			uint32_t nr = space->nr;
			uint32_t to = space_add(space, state, from, action);
			if (move == EXPLORE_MOVED && to != from)
				space_add_edge(space, from, to);
			if (to == nr && (*ret_broken = model->check(model->arg, state)))
				bad = to;
		}
	}
	free(state);
	return bad;
}

static unsigned int space_print_way(const struct space *space, uint32_t to, FILE *trace)
{
	const struct explore_model *model = space->model;
	const struct visit *visit = &space->visits[to];

	if (visit->parent == NOWHERE)
		return 0;
	unsigned int nr = space_print_way(space, visit->parent, trace) + 1;
	if (trace) {
		fprintf(trace, "%4u  ", nr);
		model->describe(model->arg, space_state(space, visit->parent), visit->action, trace);
		fputc('\n', trace);
	}
	return nr;
}

struct explore_result explore(const struct explore_model *model, const void *initial, FILE *trace)
{
	struct space space = { .model = model };
	struct explore_result result = { 0 };

	space_add(&space, initial, NOWHERE, 0);
	uint32_t bad = space_visit(&space, &result.broken);
	if (bad == NOWHERE) {
		bad = space_find_stuck(&space);
		result.broken = bad == NOWHERE ? NULL : model->stuck;
	}
	result.nr_states = space.nr;
	if (bad != NOWHERE)
		result.trace_len = space_print_way(&space, bad, trace);
	free(space.states);
	free(space.visits);
	free(space.slots);
	free(space.edges);
	return result;
}

int explore_main(int argc, char **argv, size_t nr, const char *(*name_of)(size_t variant),
	bool (*run)(size_t variant, FILE *trace))
{
	const char *name = argc == 3 && strcmp(argv[1], "--trace") == 0 ? argv[2] : NULL;
	bool found = false;
	bool good = true;

	if (argc > 1 && !name) {
		fprintf(stderr, "usage: %s [--trace VARIANT]\n", argv[0]);
		return EXIT_FAILURE;
	}
	for (size_t i = 0; i < nr; i++) {
		if (name && strcmp(name, name_of(i)) != 0)
			continue;
		found = true;
		good = run(i, name ? stdout : NULL) && good;
	}
	if (!found)
		fprintf(stderr, "%s: there is no variant of this name\n", name);
	return found && good ? EXIT_SUCCESS : EXIT_FAILURE;
}
