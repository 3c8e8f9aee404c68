/* SPDX-License-Identifier: MIT */
#include "daemon.h"

#include <string.h>

enum step daemon_next_step(const struct run *run, unsigned int proc, unsigned int at)
{
	const enum step *steps = run->variant->procs[proc];

	if (proc == PROC_NONE)
		return STEP_END;
	return (steps ? steps : intents_right[proc])[at];
}

static void end_procedure(struct state *s, struct thread *thread)
{
	uint8_t number = (uint8_t)(thread - s->threads + 1);

	if (s->mutex == number)
		s->mutex = 0;
	if (thread->proc == PROC_ARM || thread->proc == PROC_EXACT)
		writers_wake(s);
	if (thread->proc == PROC_QUERY)
		memset(s->asked, 0, sizeof(s->asked));
	*thread = (struct thread){ 0 };
}

static uint8_t collect(const struct state *s, int plane, uint8_t extents)
{
	return s->slots[plane].set & (uint8_t)~s->planes[plane].committed & blocks_of(extents);
}

static void replace_plane(const struct run *run, struct state *s, const struct thread *thread)
{
	struct slot next = s->slots[OLD];
	bool keeps = run->variant->faults & FAULT_SWITCH_KEEPS_COMMITTED;

	s->slots[OLD] = s->slots[NOW];
	s->slots[NOW] = next;
	s->planes[OLD] = s->planes[NOW];
	s->planes[NOW].armed &= thread->arg;
	s->planes[NOW].committed = keeps ? s->planes[NOW].committed : 0;
	for (int w = 0; w < NR_WRITERS; w++)
		if (s->writers[w].inside) /* the right protocol has none */
			s->writers[w].plane = OLD;
}

/* All that was complete when the query was asked must be in its answer. */
static void take_snapshot(struct run *run, struct state *s, const struct thread *thread)
{
	struct base view = s->db;

	for (unsigned int era = 0; era < NR_ERAS; era++)
		if (!thread->arg && (era >= view.first || run->variant->faults & FAULT_IGNORE_BLUR))
			view.intents[era] = 0;
	for (unsigned int b = 0; b < NR_BLOCKS; b++)
		if (s->asked[b] && !(base_since(&view, s->asked[b]) & bit_of(b)))
			s->broken = 1;
}

static void take_collect_step(struct state *s, struct thread *thread, enum step step)
{
	const struct plane *now = &s->planes[NOW];

	thread->bits[NOW] = thread->bits[OLD] = 0;
	switch (step) {
	case STEP_TAKE_PARKED:
		for (int w = 0; w < NR_WRITERS; w++)
			if (s->writers[w].state == PARKED)
				thread->bits[NOW] |= bit_of(s->writers[w].block);
		break;
	case STEP_COLLECT_EXTENT:
		thread->bits[NOW] = collect(s, NOW, bit_of(thread->arg));
		break;
	case STEP_COLLECT_ALL:
		thread->bits[NOW] = collect(s, NOW, 0xff);
		break;
	case STEP_COLLECT_OLD:
		thread->bits[OLD] = collect(s, OLD, 0xff);
		break;
	case STEP_COLLECT_BOTH:
		thread->bits[OLD] = collect(s, OLD, s->planes[OLD].armed);
		/* fall through */
	default:
		thread->bits[NOW] = collect(s, NOW, now->armed);
	}
}

static void take_switch_step(const struct run *run, struct state *s, const struct thread *thread, enum step step)
{
	bool keeps_bits = run->variant->faults & FAULT_SLOT_NOT_CLEARED;

	switch (step) {
	case STEP_LABEL:
		s->slots[OLD].label = (uint8_t)(s->slots[NOW].label + 1);
		s->slots[OLD].set = keeps_bits ? s->slots[OLD].set : 0;
		break;
	case STEP_REPLACE:
		replace_plane(run, s, thread);
		break;
	case STEP_FREE:
		s->planes[OLD] = (struct plane){ 0 };
		s->slots[OLD] = (struct slot){ .set = keeps_bits ? s->slots[OLD].set : 0 };
		break;
	case STEP_CLOSE_GATE:
		s->gate = 0;
		break;
	case STEP_FSYNC:
		s->unsynced = 0;
		break;
	case STEP_FORGET_SLOTS:
		memset(s->slots, 0, sizeof(s->slots));
		break;
	case STEP_START:
		s->answered = s->db.current;
		s->gate = 1;
		break;
	case STEP_OPEN_GATE:
		s->gate = 1;
		writers_wake(s);
		break;
	default:
		s->answered = s->db.current;
	}
}

static bool is_full(const struct run *run, enum step step)
{
	return step < STEP_COMMIT_MARKS && step != run->variant->lazy;
}

/* false: it has to wait. */
static bool take_step(struct run *run, struct state *s, struct thread *thread, enum step step, bool behind)
{
	uint8_t number = (uint8_t)(thread - s->threads + 1);
	uint8_t extent = bit_of(thread->arg);

	switch (step) {
	case STEP_LOCK:
		if (s->mutex)
			return false;
		s->mutex = number;
		break;
	case STEP_UNLOCK:
		s->mutex = 0;
		break;
	case STEP_DRAIN:
		return !writers_are_inside(s);
	case STEP_CLEAR_ARMED:
		s->planes[NOW].armed &= (uint8_t)~extent;
		break;
	case STEP_PUBLISH_ARMED:
		s->planes[NOW].armed |= extent;
		break;
	case STEP_PUBLISH:
		s->planes[NOW].committed |= thread->bits[NOW];
		s->planes[OLD].committed |= thread->bits[OLD];
		thread->bits[NOW] = thread->bits[OLD] = 0;
		break;
	case STEP_PUBLISH_SET:
		s->planes[NOW].committed |= collect(s, NOW, s->planes[NOW].armed);
		break;
	case STEP_ASK:
		memcpy(s->asked, s->wrote, sizeof(s->asked));
		break;
	case STEP_SNAPSHOT:
		take_snapshot(run, s, thread);
		break;
	default:
		if (step >= STEP_COMMIT_ARM)
			crash_commit(run, s, thread, step, is_full(run, step), behind);
		else if (step == STEP_TAKE_PARKED || (step >= STEP_COLLECT && step <= STEP_COLLECT_BOTH))
			take_collect_step(s, thread, step);
		else
			take_switch_step(run, s, thread, step);
	}
	return true;
}

static bool is_before(enum step step)
{
	return step == STEP_DRAIN || step == STEP_LOCK || step == STEP_ASK;
}

/* One step, with those around it that nobody can tell from it. (A commit is no part of how a procedure begins: it may be
 * torn, or behind.) */
static bool go_on(struct run *run, struct state *s, struct thread *thread, bool begins, bool behind)
{
	enum step step = daemon_next_step(run, thread->proc, thread->at);

	if (step == STEP_END)
		return false;
	for (;; step = daemon_next_step(run, thread->proc, thread->at)) {
		bool lazy = step >= STEP_COMMIT_ARM && !is_full(run, step);
		bool is_behind = memcmp(&s->db, &s->durable, sizeof(s->db)) != 0;
		if (behind && !is_before(step) && (!lazy || is_behind))
			return false;
		if (!take_step(run, s, thread, step, behind))
			return false;
		thread->at++;
		if (!is_before(step) || (begins && daemon_next_step(run, thread->proc, thread->at) >= STEP_COMMIT_ARM))
			break;
	}
	while (daemon_next_step(run, thread->proc, thread->at) == STEP_UNLOCK) {
		s->mutex = 0;
		thread->at++;
	}
	if (daemon_next_step(run, thread->proc, thread->at) == STEP_END)
		end_procedure(s, thread);
	return true;
}

/* The background's sweeps and drops give up, a query answers without. (A checkpoint tries again.) */
static bool fail(struct run *run, struct state *s, struct thread *thread)
{
	enum step step = daemon_next_step(run, thread->proc, thread->at);
	bool drop = thread->proc == PROC_DROP;

	if (step < STEP_COMMIT_MARKS || thread->proc == PROC_CHECKPOINT)
		return false;
	run->seen |= SIGHT_FAILED;
	if (run->variant->faults & FAULT_FAILED_PUBLISHES)
		take_step(run, s, thread, STEP_PUBLISH, false);
	if (drop && !(run->variant->faults & FAULT_FAILED_STAYS_CLEAR))
		take_step(run, s, thread, STEP_PUBLISH_ARMED, false);
	if (thread->proc != PROC_QUERY) {
		end_procedure(s, thread);
		return true;
	}
	thread->arg = 1;
	thread->bits[NOW] = thread->bits[OLD] = 0;
	s->mutex = 0;
	while (daemon_next_step(run, PROC_QUERY, thread->at) != STEP_SNAPSHOT)
		thread->at++;
	return true;
}

static bool begin(struct run *run, struct state *s, int t, enum procedure proc, unsigned int arg)
{
	struct thread *thread = &s->threads[t];

	if (thread->proc || s->threads[SWITCHER].proc == PROC_RECOVER)
		return false;
	*thread = (struct thread){ .proc = (uint8_t)proc, .arg = (uint8_t)arg };
	return go_on(run, s, thread, true, false);
}

static bool begin_arm(struct run *run, struct state *s, unsigned int extent)
{
	bool armed = s->planes[NOW].armed & bit_of(extent);
	bool waiting = writers_wait(s, extent);
	uint8_t blocks = run->world->blocks[0] | run->world->blocks[1];

	if (!(blocks & blocks_of(bit_of(extent))) ||
		(armed && (!waiting || run->variant->faults & FAULT_ARMED_NEEDS_NOTHING)))
		return false;
	return begin(run, s, COMMITTER, PROC_ARM, extent);
}

static bool begin_exact(struct run *run, struct state *s)
{
	if (!run->world->exact || (!writers_wait(s, 0) && !writers_wait(s, 1)))
		return false;
	if (!begin(run, s, COMMITTER, PROC_EXACT, 0))
		return false;
	run->seen |= SIGHT_EXACT;
	return true;
}

static bool begin_checkpoint(struct run *run, struct state *s, uint8_t hot)
{
	if (s->checkpoints == 0 || (!hot && (!s->planes[NOW].armed || !run->world->cold)) ||
		!begin(run, s, SWITCHER, PROC_CHECKPOINT, hot))
		return false;
	s->checkpoints--;
	return true;
}

static bool begin_query(struct run *run, struct state *s)
{
	if (!run->world->query || !begin(run, s, QUERIER, PROC_QUERY, 0))
		return false;
	if (s->threads[QUERIER].bits[OLD])
		run->seen |= SIGHT_OLD_QUERY;
	return true;
}

bool daemon_act(struct run *run, struct state *s, unsigned int action)
{
	if (action < BEGIN_WRITE)
		return writers_go_on(run, s, action - DO_WRITER);
	if (action < DO_THREAD)
		return writers_begin(run, s, action - BEGIN_WRITE);
	if (action < DO_BEHIND)
		return go_on(run, s, &s->threads[action - DO_THREAD], false, false);
	if (action < DO_FAIL)
		return go_on(run, s, &s->threads[action - DO_BEHIND], false, true);
	if (action < BEGIN_ARM)
		return fail(run, s, &s->threads[action - DO_FAIL]);
	if (action < BEGIN_DROP)
		return begin_arm(run, s, action - BEGIN_ARM);
	if (action < BEGIN_EXACT)
		return s->planes[NOW].armed & bit_of(action - BEGIN_DROP) &&
		       begin(run, s, BACKGROUND, PROC_DROP, action - BEGIN_DROP);
	if (action == BEGIN_EXACT)
		return begin_exact(run, s);
	if (action == BEGIN_SWEEP)
		return begin(run, s, BACKGROUND, PROC_SWEEP, 0);
	if (action == BEGIN_QUERY)
		return begin_query(run, s);
	if (action == BEGIN_CHECKPOINT || action == BEGIN_COLD_CHECKPOINT)
		return begin_checkpoint(run, s, action == BEGIN_CHECKPOINT ? 3 : 0);
	return crash_act(run, s, action);
}
