/* SPDX-License-Identifier: MIT */
#include "workload.h"

#include "disk.h"
#include "truth.h"

#include <ctype.h>
#include <string.h>

static const struct {
	const char *name;
	unsigned int nr_args;
} step_table[NR_STEP_KINDS] = {
	[STEP_WRITE] = { "write", 3 },
	[STEP_ZERO] = { "zero", 2 },
	[STEP_PUNCH] = { "punch", 2 },
	[STEP_COPY] = { "copy", 3 },
	[STEP_FSYNC] = { "fsync", 0 },
	[STEP_CHECKPOINT] = { "checkpoint", 1 },
	[STEP_LABEL] = { "label", 1 },
	[STEP_UNLABEL] = { "unlabel", 1 },
	[STEP_BURST] = { "burst", 2 },
	[STEP_OVERTAKE] = { "overtake", 2 },
	[STEP_CARRY] = { "carry", 2 },
	[STEP_HOLD] = { "hold", 2 },
	[STEP_FREEZE] = { "freeze", 0 },
	[STEP_WAITING] = { "waiting", 3 },
	[STEP_THAW] = { "thaw", 0 },
	[STEP_TAKEOVER] = { "takeover", 0 },
	[STEP_SNAPSHOT] = { "snapshot", 0 },
	[STEP_FAIL] = { "fail", 1 },
	[STEP_STOP] = { "stop", 0 },
	[STEP_KILL] = { "kill", 1 },
	[STEP_KILL_OPENING] = { "kill-opening", 1 },
	[STEP_POWER_CUT] = { "power-cut", 1 },
	[STEP_RESIZE] = { "resize", 1 },
};

static const char *const mode_names[NR_CRASH_MODES] = {
	[MODE_MARKS] = "marks",
	[MODE_INTENTS] = "intents",
};

const char *mode_name(enum crash_mode mode)
{
	return mode_names[mode];
}

const char *label_name(uint64_t label)
{
	static const char *const names[] = { "none", "nightly", "weekly", "_x", "a-b" };
	return names[label % 5];
}

struct era_config workload_config(enum crash_mode mode)
{
	struct era_config config = { .block_size = CRASH_BLOCK, .nr_completers = 2 };

	if (mode == MODE_INTENTS) {
		config.intent_bytes = 4 * CRASH_BLOCK;
		config.intent_max_bytes = 6 * config.intent_bytes;
	}
	return config;
}

/* --- made up --- */

struct maker {
	struct workload *w;
	uint64_t random;
	uint64_t image_size; /* as it is by then */
};

static void add(struct maker *m, enum step_kind kind, uint64_t a, uint64_t b, uint64_t c)
{
	if (m->w->nr < WORKLOAD_STEPS_MAX)
		m->w->steps[m->w->nr++] = (struct step){ .kind = kind, .args = { a, b, c } };
}

static uint64_t below(struct maker *m, uint64_t n)
{
	return crash_below(&m->random, n);
}

static uint64_t a_seed(struct maker *m)
{
	return below(m, UINT64_C(1) << 32);
}

static uint64_t a_block(struct maker *m)
{
	/* Some are written again and again. */
	uint64_t nr_blocks = (m->image_size + CRASH_BLOCK - 1) / CRASH_BLOCK;
	return below(m, 3) == 0 ? below(m, nr_blocks < 6 ? nr_blocks : 6) : below(m, nr_blocks);
}

/* Odd sizes, borders of blocks and sectors, and the end of the image. */
static uint64_t a_range(struct maker *m, uint64_t *ret_len)
{
	static const uint64_t lens[] = { 1, 17, 512, 700, 4096, 4097, 5000, 9000, 16384 };
	uint64_t offset = a_block(m) * CRASH_BLOCK;
	if (below(m, 2) == 0)
		offset += below(m, CRASH_BLOCK);
	else if (below(m, 3) == 0 && offset > 0)
		offset -= 1;
	if (offset >= m->image_size)
		offset = m->image_size - 1;
	uint64_t len = lens[below(m, sizeof(lens) / sizeof(lens[0]))];
	*ret_len = len < m->image_size - offset ? len : m->image_size - offset;
	return offset;
}

static void add_range(struct maker *m, enum step_kind kind)
{
	uint64_t len, offset = a_range(m, &len);
	bool has_seed = kind == STEP_WRITE || kind == STEP_WAITING;
	add(m, kind, offset, len, has_seed ? a_seed(m) : 0);
}

static void add_copy(struct maker *m)
{
	uint64_t len_to, from, to = a_range(m, &len_to), len_from;
	from = a_range(m, &len_from);
	uint64_t len = len_to < len_from ? len_to : len_from;
	if (from < to + len && to < from + len)
		add_range(m, STEP_WRITE);
	else
		add(m, STEP_COPY, from, to, len);
}

static void add_any(struct maker *m)
{
	uint64_t at = below(m, 100);
	if (at < 52)
		add_range(m, STEP_WRITE);
	else if (at < 58)
		add_range(m, STEP_ZERO);
	else if (at < 63)
		add_range(m, STEP_PUNCH);
	else if (at < 69)
		add_copy(m);
	else if (at < 74)
		add(m, STEP_FSYNC, 0, 0, 0);
	else if (at < 84)
		add(m, STEP_CHECKPOINT, below(m, 3) == 0 ? 1 + below(m, 4) : 0, 0, 0);
	else if (at < 88)
		add(m, STEP_LABEL, 1 + below(m, 4), 0, 0);
	else if (at < 90)
		add(m, STEP_UNLABEL, 1 + below(m, 4), 0, 0);
	else
		add(m, STEP_BURST, 2 + below(m, 5), a_seed(m), 0);
}

/* Each life has these, so that each workload meets all of them. */
static void add_special(struct maker *m, unsigned int which)
{
	switch (which % 6) {
	case 0:
		add(m, STEP_CHECKPOINT, 0, 0, 0);
		add(m, STEP_OVERTAKE, a_block(m), a_seed(m), 0);
		break;
	case 1:
		add(m, STEP_CARRY, 1 + below(m, 4), a_seed(m), 0);
		break;
	case 2:
		add(m, STEP_HOLD, a_block(m), a_seed(m), 0);
		break;
	case 3:
		add_range(m, STEP_WRITE);
		add(m, STEP_FREEZE, 0, 0, 0);
		if (below(m, 2) == 0)
			add_range(m, STEP_WAITING);
		add(m, STEP_THAW, 0, 0, 0);
		break;
	case 4:
		add_range(m, STEP_WRITE);
		add(m, STEP_SNAPSHOT, 0, 0, 0);
		break;
	case 5:
		add_range(m, STEP_WRITE);
		add(m, STEP_FREEZE, 0, 0, 0);
		if (below(m, 2) == 0)
			add_range(m, STEP_WAITING);
		add(m, STEP_TAKEOVER, 0, 0, 0);
		break;
	}
}

static void add_resize(struct maker *m)
{
	add(m, STEP_STOP, 0, 0, 0);
	uint64_t size = (44 + below(m, 20)) * CRASH_BLOCK + (below(m, 3) > 0 ? below(m, CRASH_BLOCK) : 0);
	if (below(m, 4) == 0) /* within one block */
		size = m->image_size / CRASH_BLOCK * CRASH_BLOCK + 1 + below(m, CRASH_BLOCK - 1);
	add(m, STEP_RESIZE, size, 0, 0);
	m->image_size = size;
}

static void add_end(struct maker *m, unsigned int which)
{
	switch (which) {
	case 0:
		add(m, STEP_STOP, 0, 0, 0);
		break;
	case 1:
		add(m, STEP_KILL, 1 + below(m, 60), 0, 0);
		for (unsigned int i = 0; i < 8; i++)
			add_any(m);
		break;
	case 2:
		add(m, STEP_POWER_CUT, a_seed(m), 0, 0);
		break;
	case 3: /* and what comes after a failed fsync */
		add_range(m, STEP_WRITE);
		add(m, STEP_FAIL, below(m, 2), 0, 0);
		add(m, below(m, 2) ? STEP_FSYNC : STEP_CHECKPOINT, 0, 0, 0);
		add(m, STEP_FSYNC, 0, 0, 0);
		add_range(m, STEP_WRITE);
		add(m, below(m, 2) ? STEP_STOP : STEP_KILL, 1, 0, 0);
		break;
	case 4:
		add_resize(m);
		break;
	case 5:
		add(m, STEP_KILL_OPENING, 1 + below(m, 20), 0, 0);
		add(m, STEP_STOP, 0, 0, 0);
		break;
	}
}

#define LIVES 6u

void workload_make(uint64_t seed, enum crash_mode mode, struct workload *ret_workload)
{
	struct maker m = { .w = ret_workload, .random = seed * 77 + (uint64_t)mode };
	unsigned int deck[LIVES];

	*ret_workload = (struct workload){ .seed = seed, .mode = mode };
	ret_workload->settles = below(&m, 2) == 0;
	m.image_size = (48 + below(&m, 16)) * CRASH_BLOCK + below(&m, CRASH_BLOCK);
	ret_workload->image_size = m.image_size;
	for (unsigned int i = 0; i < LIVES; i++) {
		unsigned int k = (unsigned int)below(&m, i + 1);
		deck[i] = deck[k];
		deck[k] = i;
	}
	unsigned int first = (unsigned int)below(&m, 6);
	for (unsigned int life = 0; life < LIVES; life++) {
		for (unsigned int special = 0; special < 3; special++) {
			for (uint64_t i = 2 + below(&m, 4); i > 0; i--)
				add_any(&m);
			add_special(&m, first++);
		}
		add_any(&m);
		add_end(&m, deck[life]);
	}
}

/* --- as text --- */

static const struct {
	const char *name;
	size_t at;
} number_table[] = {
	{ "image", offsetof(struct workload, image_size) },
	{ "seed", offsetof(struct workload, seed) },
};

void workload_write(const struct workload *workload, FILE *file)
{
	fprintf(file, "image %llu\nseed %llu\nmode %s\nsettle %d\n", (unsigned long long)workload->image_size,
		(unsigned long long)workload->seed, mode_name(workload->mode), workload->settles);
	if (workload->nr_states > 0)
		fprintf(file, "states %u\n", workload->nr_states);
	for (unsigned int i = 0; i < workload->nr; i++) {
		const struct step *step = &workload->steps[i];
		fprintf(file, "%s", step_table[step->kind].name);
		for (unsigned int k = 0; k < step_table[step->kind].nr_args; k++)
			fprintf(file, " %llu", (unsigned long long)step->args[k]);
		fputc('\n', file);
	}
}

static bool read_step(struct workload *w, const char *name, const char *rest)
{
	for (unsigned int kind = 0; kind < NR_STEP_KINDS; kind++) {
		unsigned long long args[4] = { 0 };
		if (strcmp(step_table[kind].name, name) != 0)
			continue;
		int nr = sscanf(rest, "%llu %llu %llu %llu", &args[0], &args[1], &args[2], &args[3]);
		if ((nr < 0 ? 0 : nr) != (int)step_table[kind].nr_args || w->nr == WORKLOAD_STEPS_MAX)
			return false;
		w->steps[w->nr++] = (struct step){ (enum step_kind)kind, { args[0], args[1], args[2] } };
		return true;
	}
	return false;
}

static bool read_line(struct workload *w, const char *line)
{
	char name[32], word[32];
	int at = 0;
	unsigned long long number;

	if (sscanf(line, "%31s %n", name, &at) != 1 || name[0] == '#')
		return true;
	for (size_t i = 0; i < sizeof(number_table) / sizeof(number_table[0]); i++)
		if (strcmp(number_table[i].name, name) == 0) {
			bool good = sscanf(line + at, "%llu", &number) == 1;
			*(uint64_t *)((char *)w + number_table[i].at) = number;
			return good;
		}
	if (strcmp(name, "settle") == 0) {
		w->settles = line[at] == '1';
		return true;
	}
	if (strcmp(name, "states") == 0)
		return sscanf(line + at, "%u", &w->nr_states) == 1;
	if (strcmp(name, "mode") == 0 && sscanf(line + at, "%31s", word) == 1) {
		for (unsigned int mode = 0; mode < NR_CRASH_MODES; mode++)
			if (strcmp(mode_names[mode], word) == 0) {
				w->mode = (enum crash_mode)mode;
				return true;
			}
		return false;
	}
	return read_step(w, name, line + at);
}

bool workload_read(const char *path, struct workload *ret_workload)
{
	char line[256];
	unsigned int nr = 0;
	FILE *file = fopen(path, "r");
	if (!file) {
		perror(path);
		return false;
	}
	*ret_workload = (struct workload){ .seed = 1 };
	while (fgets(line, sizeof(line), file)) {
		nr++;
		if (read_line(ret_workload, line))
			continue;
		fprintf(stderr, "%s:%u: is not a step: %s", path, nr, line);
		fclose(file);
		return false;
	}
	fclose(file);
	if (ret_workload->image_size > 0 && ret_workload->image_size <= CRASH_IMAGE_MAX)
		return true;
	fprintf(stderr, "%s: needs \"image BYTES\", at most %llu\n", path, (unsigned long long)CRASH_IMAGE_MAX);
	return false;
}
