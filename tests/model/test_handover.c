/* SPDX-License-Identifier: MIT */
/*
 * The right protocol keeps every property in every state, and each wrong variant breaks the one that it is named with.
 *
 *     test_handover                  all
 *     test_handover --trace NAME     the shortest way to what the variant breaks
 */
#include "handover.h"

#include <string.h>

static const struct world worlds[] = {
	{ .name = "copy", /* C runs on a copy that was made while A was frozen */
		.database = { ORIGINAL, ORIGINAL, COPY },
		.writes = { 2, 0, 1 },
		.digests = { 1, 0, 0 },
		.freezes = { 2, 0, 0 },
		.lives = { 0, 0, 1 } },
	{ .name = "takeover", /* B takes over, or inherits, and may freeze itself */
		.database = { ORIGINAL, ORIGINAL, ORIGINAL },
		.writes = { 2, 1, 0 },
		.digests = { 1, 1, 0 },
		.freezes = { 2, 1, 0 },
		.lives = { 0, 1, 0 } },
	{ .name = "heirs", /* C takes over from A or B */
		.database = { ORIGINAL, ORIGINAL, ORIGINAL },
		.writes = { 1, 1, 1 },
		.digests = { 0, 0, 0 },
		.freezes = { 1, 1, 0 },
		.lives = { 0, 1, 1 } },
};
#define NR_WORLDS (sizeof(worlds) / sizeof(worlds[0]))
#define MUST_SEE                                                                                                       \
	(SIGHT_TAKEN_OVER | SIGHT_FENCED | SIGHT_REFUSED | SIGHT_THAWED | SIGHT_INHERITED | SIGHT_SECOND_FREEZE)

static const struct variant variants[] = {
	{ .name = "right" },
	{ .name = "thaw-checks-before-locks",
		.world = "takeover",
		.breaks = P_MARKS,
		.procs[PROC_THAW] = STEPS(STEP_READ, STEP_COMPARE, STEP_COMPARE_IMAGE, STEP_TAKE_IMAGE,
			STEP_TAKE_DATABASE, STEP_COMMIT_OPEN, STEP_START_DIGEST, STEP_OPEN_GATE) },
	{ .name = "takeover-checks-before-locks",
		.world = "takeover",
		.breaks = P_MARKS,
		.procs[PROC_OPEN] = STEPS(STEP_READ, STEP_CHECK_OWNER, STEP_CHECK_BINDING, STEP_TAKE_IMAGE,
			STEP_TAKE_DATABASE, STEP_COMMIT_SESSION, STEP_START_DIGEST, STEP_OPEN_GATE) },
	{ .name = "thaw-locks-the-image-only",
		.world = "takeover",
		.breaks = P_LOCKS,
		.procs[PROC_THAW] = STEPS(STEP_TAKE_IMAGE, STEP_READ, STEP_COMPARE, STEP_COMPARE_IMAGE,
			STEP_COMMIT_OPEN, STEP_START_DIGEST, STEP_OPEN_GATE) },
	{ .name = "thaw-locks-the-database-only",
		.world = "copy",
		.breaks = P_LOCKS,
		.procs[PROC_THAW] = STEPS(STEP_TAKE_DATABASE, STEP_READ, STEP_COMPARE, STEP_COMPARE_IMAGE,
			STEP_COMMIT_OPEN, STEP_START_DIGEST, STEP_OPEN_GATE) },
	{ .name = "thaw-opens-the-gate-before-its-commit",
		.world = "takeover",
		.breaks = P_MARKS,
		.procs[PROC_THAW] = STEPS(STEP_TAKE_IMAGE, STEP_TAKE_DATABASE, STEP_READ, STEP_COMPARE,
			STEP_COMPARE_IMAGE, STEP_OPEN_GATE, STEP_COMMIT_OPEN, STEP_START_DIGEST) },
	{ .name = "thaw-compares-nothing",
		.world = "takeover",
		.breaks = P_ANSWER,
		.procs[PROC_THAW] = STEPS(STEP_TAKE_IMAGE, STEP_TAKE_DATABASE, STEP_READ, STEP_COMMIT_OPEN,
			STEP_START_DIGEST, STEP_OPEN_GATE) },
	{ .name = "thaw-ignores-the-image",
		.world = "copy",
		.breaks = P_ANSWER,
		.procs[PROC_THAW] = STEPS(STEP_TAKE_IMAGE, STEP_TAKE_DATABASE, STEP_READ, STEP_COMPARE,
			STEP_COMMIT_OPEN, STEP_START_DIGEST, STEP_OPEN_GATE) },
	{ .name = "thaw-ignores-the-era", .world = "takeover", .breaks = P_ANSWER, .faults = FAULT_ANY_ERA },
	{ .name = "busy-keeps-the-image-lock",
		.world = "takeover",
		.breaks = P_LEAK,
		.faults = FAULT_BUSY_KEEPS_IMAGE },
	{ .name = "refused-thaw-stays-frozen", .world = "copy", .breaks = P_STUCK, .faults = FAULT_REFUSED_WAITS },
	{ .name = "deadline-thaws-without-the-switch-lock",
		.world = "takeover",
		.breaks = P_LOCKS,
		.faults = FAULT_DEADLINE_UNLOCKED },
	{ .name = "frozen-never-polls", .world = "takeover", .breaks = P_STUCK, .faults = FAULT_NO_POLL },
	{ .name = "fence-leaves-writers-waiting",
		.world = "takeover",
		.breaks = P_STUCK,
		.faults = FAULT_FENCED_WAITS },
	{ .name = "freeze-drops-locks-before-commit",
		.world = "takeover",
		.breaks = P_LOCKS,
		.procs[PROC_FREEZE] = STEPS(STEP_CLOSE_GATE, STEP_DRAIN, STEP_JOIN_DIGEST, STEP_DROP_DATABASE,
			STEP_DROP_IMAGE, STEP_COMMIT_FROZEN, STEP_TRUNCATE, STEP_ANSWER) },
	{ .name = "freeze-commits-before-join",
		.world = "takeover",
		.breaks = P_STILL,
		.procs[PROC_FREEZE] = STEPS(STEP_CLOSE_GATE, STEP_DRAIN, STEP_COMMIT_FROZEN, STEP_JOIN_DIGEST,
			STEP_TRUNCATE, STEP_DROP_DATABASE, STEP_DROP_IMAGE, STEP_ANSWER) },
	{ .name = "freeze-never-joins",
		.world = "takeover",
		.breaks = P_LOCKS,
		.procs[PROC_FREEZE] = STEPS(STEP_CLOSE_GATE, STEP_DRAIN, STEP_COMMIT_FROZEN, STEP_TRUNCATE,
			STEP_DROP_DATABASE, STEP_DROP_IMAGE, STEP_ANSWER) },
	{ .name = "freeze-does-not-drain",
		.world = "takeover",
		.breaks = P_LOCKS,
		.procs[PROC_FREEZE] = STEPS(STEP_CLOSE_GATE, STEP_JOIN_DIGEST, STEP_COMMIT_FROZEN, STEP_TRUNCATE,
			STEP_DROP_DATABASE, STEP_DROP_IMAGE, STEP_ANSWER) },
	{ .name = "freeze-leaves-a-wal",
		.world = "takeover",
		.breaks = P_STILL,
		.procs[PROC_FREEZE] = STEPS(STEP_CLOSE_GATE, STEP_DRAIN, STEP_JOIN_DIGEST, STEP_COMMIT_FROZEN,
			STEP_DROP_DATABASE, STEP_DROP_IMAGE, STEP_ANSWER) },
	{ .name = "failed-freeze-stays-frozen-in-the-database",
		.world = "takeover",
		.breaks = P_MARKS,
		.procs[PROC_UNFREEZE] = STEPS(STEP_START_DIGEST, STEP_OPEN_GATE) },
	{ .name = "frozen-stops-with-a-checkpoint",
		.world = "takeover",
		.breaks = P_LOCKS,
		.procs[PROC_STOP_FROZEN] = STEPS(STEP_TRUNCATE, STEP_EXIT) },
	{ .name = "fenced-stops-with-a-checkpoint",
		.world = "takeover",
		.breaks = P_FENCED,
		.procs[PROC_STOP_FENCED] = STEPS(STEP_TRUNCATE, STEP_EXIT) },
	{ .name = "takeover-without-an-owner-check",
		.world = "takeover",
		.breaks = P_STUCK,
		.procs[PROC_OPEN] = STEPS(STEP_TAKE_IMAGE, STEP_TAKE_DATABASE, STEP_READ, STEP_CHECK_BINDING,
			STEP_COMMIT_SESSION, STEP_START_DIGEST, STEP_OPEN_GATE) },
	/* The poll is blind to this one. (A thaw that compares the generation alone, where each takeover raises it, is safe:
	 * nonce and counter are compared for metadata that were put back from a copy, which no generation tells.) */
	{ .name = "takeover-keeps-the-generation",
		.world = "takeover",
		.breaks = P_STUCK,
		.procs[PROC_OPEN] = STEPS(STEP_TAKE_IMAGE, STEP_TAKE_DATABASE, STEP_READ, STEP_CHECK_OWNER,
			STEP_CHECK_BINDING, STEP_COMMIT_SAME_GENERATION, STEP_START_DIGEST, STEP_OPEN_GATE) },
	{ .name = "takeover-keeps-the-generation-and-thaw-compares-nothing-else",
		.world = "takeover",
		.breaks = P_ANSWER,
		.procs[PROC_OPEN] = STEPS(STEP_TAKE_IMAGE, STEP_TAKE_DATABASE, STEP_READ, STEP_CHECK_OWNER,
			STEP_CHECK_BINDING, STEP_COMMIT_SAME_GENERATION, STEP_START_DIGEST, STEP_OPEN_GATE),
		.procs[PROC_THAW] = STEPS(STEP_TAKE_IMAGE, STEP_TAKE_DATABASE, STEP_READ, STEP_COMPARE_GENERATION,
			STEP_COMPARE_IMAGE, STEP_COMMIT_OPEN, STEP_START_DIGEST, STEP_OPEN_GATE) },
};
#define NR_VARIANTS (sizeof(variants) / sizeof(variants[0]))

/* Whether the variant does what is expected of it. */
static bool run_variant(const struct variant *variant, FILE *trace)
{
	struct explore_result result = { 0 };
	unsigned int seen = 0;

	for (size_t i = 0; i < NR_WORLDS && !result.broken; i++) {
		unsigned int seen_here;
		if (variant->world && strcmp(variant->world, worlds[i].name) != 0)
			continue;
		result = handover_explore(&worlds[i], variant, &seen_here, trace);
		seen |= seen_here;
		printf("%s, %s: %zu states: ", variant->name, worlds[i].name, result.nr_states);
		if (result.broken)
			printf("after %u steps, not: %s\n", result.trace_len, result.broken);
		else
			printf("safe\n");
	}
	if (!variant->breaks && !result.broken && seen != MUST_SEE) {
		printf("%s: it is safe, but of what must be seen (%#x) only %#x was\n", variant->name, MUST_SEE, seen);
		return false;
	}
	if (variant->breaks != result.broken)
		printf("%s: WRONG, expected not: %s\n", variant->name, variant->breaks ? variant->breaks : "nothing");
	return variant->breaks == result.broken;
}

static const char *name_of(size_t variant)
{
	return variants[variant].name;
}

static bool run(size_t variant, FILE *trace)
{
	return run_variant(&variants[variant], trace);
}

int main(int argc, char **argv)
{
	return explore_main(argc, argv, NR_VARIANTS, name_of, run);
}
