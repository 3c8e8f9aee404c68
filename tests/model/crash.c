/* SPDX-License-Identifier: MIT */
#include "daemon.h"

#include <string.h>

uint8_t blocks_of(uint8_t extents)
{
	return (uint8_t)((extents & 1 ? 3 : 0) | (extents & 2 ? 4 : 0));
}

uint8_t base_since(const struct base *base, unsigned int era)
{
	uint8_t blocks = 0;

	for (; era < NR_ERAS; era++)
		blocks |= base->marks[era] | blocks_of(base->intents[era]);
	return blocks;
}

static void take_slots_wrongly(const struct run *run, struct base *base, const struct slot *slots)
{
	const struct slot *newest = slots[NOW].label > slots[OLD].label ? &slots[NOW] : &slots[OLD];
	const struct slot *other = newest == &slots[NOW] ? &slots[OLD] : &slots[NOW];
	uint8_t *marks = &base->marks[base->current];

	*marks |= newest->set;
	if (run->variant->faults & FAULT_RECOVER_ANY_SLOT)
		*marks |= other->set;
	else
		marks[-1] |= other->set;
	if (newest->label)
		for (unsigned int era = base->first; era < NR_ERAS; era++)
			base->intents[era] = 0;
}

/* As the recovery's transaction leaves it. */
struct base base_recovered(const struct run *run, const struct base *base, const struct slot *slots)
{
	unsigned int faults = run->variant->faults;
	struct base next = *base;

	if (faults & (FAULT_RECOVER_NEWEST_SLOT | FAULT_RECOVER_ANY_SLOT)) {
		take_slots_wrongly(run, &next, slots);
	} else {
		for (int i = 0; i < NR_PLANES; i++) {
			unsigned int era = slots[i].label;
			if (era == 0 || era > base->current)
				continue;
			next.marks[era] |= slots[i].set;
			next.intents[era] = 0;
		}
	}
	for (unsigned int era = base->first; era <= base->current; era++) {
		if (faults & FAULT_RECOVER_WHOLE)
			next.marks[era] |= blocks_of(next.intents[era]);
		if (faults & (FAULT_RECOVER_NO_SLOT | FAULT_RECOVER_WHOLE))
			next.intents[era] = 0;
	}
	next.current = next.durable_era = next.first = (uint8_t)(base->current + 1);
	return next;
}

static void switch_era(const struct run *run, const struct state *s, const struct thread *thread, struct base *next)
{
	if (run->variant->faults & FAULT_SWITCH_DROPS)
		next->intents[next->current] = 0;
	next->current++;
	if (!(run->variant->faults & FAULT_HOT_WITHOUT_INTENTS))
		next->intents[next->current] = s->planes[NOW].armed & thread->arg;
}

struct base base_after(const struct run *run, const struct state *s, const struct thread *thread, enum step step)
{
	struct base next = s->db;
	uint8_t *marks = &next.marks[next.current];
	uint8_t *intents = &next.intents[next.current];
	uint8_t extent = (uint8_t)(1 << thread->arg);

	switch (step) {
	case STEP_COMMIT_ARM:
		*intents |= extent;
		break;
	case STEP_COMMIT_DROP:
	case STEP_COMMIT_REMOVAL:
		*intents &= (uint8_t)~extent;
		for (int era = 0; era < NR_ERAS && run->variant->faults & FAULT_DROP_ALL_ERAS; era++)
			next.intents[era] &= (uint8_t)~extent;
		if (step == STEP_COMMIT_DROP)
			*marks |= thread->bits[NOW];
		break;
	case STEP_COMMIT_SWITCH:
		switch_era(run, s, thread, &next);
		break;
	case STEP_COMMIT_OLD_REMOVAL:
		intents[-1] = 0;
		break;
	case STEP_COMMIT_DURABLE:
		next.durable_era = next.current;
		break;
	case STEP_COMMIT_RECOVERY:
		return base_recovered(run, &s->db, s->slots);
	case STEP_COMMIT_RECOVERY_REMOVAL:
		for (int i = 0; i < NR_PLANES; i++)
			next.intents[s->slots[i].label] = 0;
		break;
	default: /* STEP_COMMIT_MARKS, STEP_COMMIT_EXACT */
		marks[0] |= thread->bits[NOW];
		marks[-1] |= thread->bits[OLD];
	}
	return next;
}

void crash_commit(
	const struct run *run, struct state *s, const struct thread *thread, enum step step, bool full, bool behind)
{
	bool was_behind = memcmp(&s->db, &s->durable, sizeof(s->db)) != 0;

	s->db = base_after(run, s, thread, step);
	if (full || (!was_behind && !behind))
		s->durable = s->db;
	if (step == STEP_COMMIT_EXACT)
		s->touched[s->db.current] |= thread->bits[NOW];
	if (step == STEP_COMMIT_RECOVERY) {
		/* The session's file was made before, and counts from now on. */
		memset(s->slots, 0, sizeof(s->slots));
		s->slots[NOW].label = s->db.current;
		s->lost = 0;
	}
}

/* Nothing ever removes a mark: what has one that power loss leaves is in the answer for good. (An intent may be removed.) So
 * the write need not be known any more, nor the mark, when no newer write can need it. */
void crash_forget(struct state *s)
{
	for (unsigned int era = 1; era < NR_ERAS; era++) {
		uint8_t sure = s->db.marks[era] & s->durable.marks[era];
		for (int b = 0; b < NR_BLOCKS; b++)
			if (sure & (1 << b) && s->wrote[b] <= era)
				s->wrote[b] = 0;
		for (int b = 0; b < NR_BLOCKS; b++)
			if (s->db.marks[era] & (1 << b) && s->asked[b] <= era)
				s->asked[b] = 0;
		if (era >= s->shown || s->slots[NOW].label == era || s->slots[OLD].label == era)
			continue;
		s->db.marks[era] &= (uint8_t)~sure;
		s->durable.marks[era] &= (uint8_t)~sure;
		s->touched[era] &= (uint8_t)~sure;
	}
}

/* What is in the heap is gone. The recovery begins. */
static void end_process(const struct run *run, struct state *s)
{
	memset(s->planes, 0, sizeof(s->planes));
	memset(s->writers, 0, sizeof(s->writers));
	memset(s->threads, 0, sizeof(s->threads));
	memset(s->asked, 0, sizeof(s->asked));
	s->gate = s->mutex = 0;
	s->threads[SWITCHER].proc = PROC_RECOVER;
	s->crashes--;
	if (!run->world->late)
		s->checkpoints = 0;
}

static void lose_power(struct run *run, struct state *s)
{
	if (memcmp(&s->db, &s->durable, sizeof(s->db)) != 0)
		run->seen |= SIGHT_CUT;
	s->db = s->durable;
	memset(s->slots, 0, sizeof(s->slots));
	s->lost = 1;
	/* Such a block has changed since any era was seen: it may be what it was before its last writes. */
	for (int b = 0; b < NR_BLOCKS; b++)
		if (s->unsynced & (1 << b) && s->wrote[b] < s->shown)
			s->wrote[b] = s->shown;
	s->unsynced = 0;
	memcpy(s->touched, s->db.marks, sizeof(s->touched)); /* nobody knows more of them from now on */
}

/* The FULL commit that holder of the mutex, or the recovery, is about to make; false: there is none. */
static bool tear_commit(const struct run *run, struct state *s)
{
	for (int t = 0; t < NR_THREADS; t++) {
		const struct thread *thread = &s->threads[t];
		enum step step = daemon_next_step(run, thread->proc, thread->at);
		if (step == STEP_LOCK && s->mutex == 0)
			step = daemon_next_step(run, thread->proc, thread->at + 1u);
		if (step < STEP_COMMIT_ARM || step >= STEP_COMMIT_MARKS)
			continue;
		crash_commit(run, s, thread, step, false, true);
		return true;
	}
	return false;
}

bool crash_act(struct run *run, struct state *s, unsigned int action)
{
	bool recovering = s->threads[SWITCHER].proc == PROC_RECOVER;
	bool first = s->crashes == run->world->crashes;

	if (s->crashes == 0 || (!first && !recovering && !run->world->late))
		return false;
	if (action == DO_TORN_KILL && !tear_commit(run, s))
		return false;
	if (recovering)
		run->seen |= SIGHT_TWICE;
	if (action == DO_POWER_LOSS)
		lose_power(run, s);
	else if (s->slots[NOW].label && s->slots[OLD].label)
		run->seen |= SIGHT_TWO_SLOTS;
	end_process(run, s);
	return true;
}
