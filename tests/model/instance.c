/* SPDX-License-Identifier: MIT */
#include "instance.h"

#include <string.h>

static struct database *database_of(const struct run *run, struct state *s, int i)
{
	return &s->databases[run->world->database[i]];
}

uint8_t instance_nonce(const struct state *s, int i)
{
	return (uint8_t)(s->instances[i].sessions * NR_INSTANCES + i);
}

enum step instance_next_step(const struct run *run, const struct thread *thread)
{
	const enum step *steps = run->variant->procs[thread->proc];
	return (steps ? steps : handover_right[thread->proc])[thread->at];
}

bool instance_is_idle(const struct instance *me)
{
	return !me->threads[CLIENT].proc && !me->threads[DEADLINE].proc;
}

static void break_property(struct state *s, uint8_t broken)
{
	s->broken = s->broken ? s->broken : broken;
}

/* Every change of the image, a database or its -wal passes here. The freezes of the others that it concerns are over. */
static void change(const struct run *run, struct state *s, int i, bool is_image)
{
	struct instance *me = &s->instances[i];

	if (me->state == FENCED || me->state == FAILED)
		break_property(s, BROKE_FENCED);
	if (s->image_lock != i + 1 || database_of(run, s, i)->lock != i + 1)
		break_property(s, BROKE_LOCKS);
	for (int j = 0; j < NR_INSTANCES; j++)
		if (j != i && (is_image || run->world->database[j] == run->world->database[i]))
			s->instances[j].held = 0;
}

static void commit(const struct run *run, struct state *s, int i, uint8_t state, bool new_session, bool new_generation)
{
	struct database *database = database_of(run, s, i);
	struct instance *me = &s->instances[i];

	change(run, s, i, false);
	if (me->view.counter != database->super.counter)
		break_property(s, BROKE_MARKS);
	me->sessions += new_session;
	me->view = (struct super){ .state = state,
		.generation = me->view.generation + new_generation,
		.counter = me->view.counter + 1,
		.nonce = new_session ? instance_nonce(s, i) : me->view.nonce };
	database->super = me->view;
	database->wal = 1;
	database->bound = state == OPEN ? 0 : s->image;
}

/* The thread gives up what it is at, and the locks that it has taken for it. */
static void give_up(const struct run *run, struct state *s, int i, struct thread *thread, bool keeps_image)
{
	if (thread->took & TOOK_DATABASE)
		database_of(run, s, i)->lock = 0;
	if ((thread->took & TOOK_IMAGE) && s->image_lock == i + 1 && !keeps_image)
		s->image_lock = 0;
	*thread = (struct thread){ 0 };
}

/* FENCED or FAILED: from now on nothing is the instance's own. What it believed is forgotten, so that states meet. */
static void lose(struct state *s, struct instance *me, uint8_t state)
{
	if (me->held)
		break_property(s, BROKE_FENCED); /* the freeze did hold */
	me->state = state;
	me->view = me->frozen = (struct super){ 0 };
	me->frozen_image = me->frozen_era = 0;
}

static struct instance what_outlives(const struct instance *me)
{
	return (struct instance){ .writes = me->writes,
		.digests = me->digests,
		.freezes = me->freezes,
		.lives = me->lives,
		.sessions = me->sessions };
}

static void end_process(const struct run *run, struct state *s, int i)
{
	struct instance *me = &s->instances[i];

	if (s->image_lock == i + 1)
		s->image_lock = 0;
	if (database_of(run, s, i)->lock == i + 1)
		database_of(run, s, i)->lock = 0;
	*me = me->lives ? what_outlives(me) : (struct instance){ 0 };
}

/* A live owner's metadata are only for a takeover, and only while frozen. A copy's owner cannot be seen to live: the session
 * file names the database by its inode. */
static bool may_open(const struct run *run, const struct state *s, int i, bool takeover)
{
	const struct super *view = &s->instances[i].view;

	for (int j = 0; j < NR_INSTANCES; j++)
		if (j != i && s->instances[j].state != OFF && view->nonce == instance_nonce(s, j) &&
			run->world->database[j] == run->world->database[i])
			return takeover && view->state == FROZEN_STATE;
	return true;
}

static bool is_bound(const struct state *s, const struct database *database)
{
	return database->super.state == OPEN ? (s->image & ~database->marks) == 0 : s->image == database->bound;
}

static void open_gate(struct state *s, struct instance *me, const struct thread *thread)
{
	if (thread->proc == PROC_THAW && (!me->held || (thread->want && thread->want != me->held)))
		break_property(s, BROKE_ANSWER);
	me->held = 0;
	me->frozen = (struct super){ 0 };
	me->frozen_image = me->frozen_era = 0;
	me->state = RUNNING;
	me->gate = 1;
}

/* Checks; false: it fails, and the thread has given up. */
static bool check_step(const struct run *run, struct state *s, int i, struct thread *thread, enum step step)
{
	struct instance *me = &s->instances[i];
	uint8_t lost = 0;

	if (step == STEP_COMPARE && memcmp(&me->view, &me->frozen, sizeof(me->view)) != 0)
		lost = FENCED;
	else if (step == STEP_COMPARE_GENERATION &&
		 (me->view.generation != me->frozen.generation || me->view.state != FROZEN_STATE))
		lost = FENCED;
	else if (step == STEP_COMPARE_IMAGE && s->image != me->frozen_image)
		lost = run->variant->faults & FAULT_REFUSED_WAITS ? FROZEN : FAILED;
	else if ((step != STEP_CHECK_OWNER || may_open(run, s, i, thread->want)) &&
		 (step != STEP_CHECK_BINDING || is_bound(s, database_of(run, s, i))))
		return true;
	give_up(run, s, i, thread, false);
	if (lost == FROZEN || !lost)
		me->view = me->frozen;
	else
		lose(s, me, lost);
	return false;
}

static void commit_step(const struct run *run, struct state *s, int i, const struct thread *thread, enum step step)
{
	struct instance *me = &s->instances[i];

	if (step == STEP_COMMIT_FROZEN) {
		commit(run, s, i, FROZEN_STATE, false, false);
		me->frozen = me->view;
		me->frozen_image = s->image;
		me->held = me->frozen_era = (uint8_t)(MAX_FREEZES - me->freezes);
	} else if (step == STEP_COMMIT_CLEAN) {
		commit(run, s, i, CLEAN, false, false);
	} else if (step == STEP_COMMIT_OPEN) {
		commit(run, s, i, OPEN, true, false);
	} else {
		commit(run, s, i, OPEN, true, thread->want && step == STEP_COMMIT_SESSION);
		me->state = RUNNING;
		me->lives--;
	}
}

/* false: it has to wait, or the thread has given up (and is at nothing any more). */
static bool take_step(const struct run *run, struct state *s, int i, struct thread *thread, enum step step)
{
	struct database *database = database_of(run, s, i);
	struct instance *me = &s->instances[i];

	switch (step) {
	case STEP_TAKE_IMAGE:
		if (s->image_lock && s->image_lock != i + 1) {
			give_up(run, s, i, thread, false);
			return false;
		}
		s->image_lock = (uint8_t)(i + 1);
		thread->took |= TOOK_IMAGE;
		break;
	case STEP_TAKE_DATABASE:
		if (database->lock) {
			give_up(run, s, i, thread, run->variant->faults & FAULT_BUSY_KEEPS_IMAGE);
			return false;
		}
		database->lock = (uint8_t)(i + 1);
		thread->took |= TOOK_DATABASE;
		break;
	case STEP_READ:
		me->view = database->super;
		break;
	case STEP_START_DIGEST:
	case STEP_JOIN_DIGEST:
		me->digest = step == STEP_START_DIGEST;
		break;
	case STEP_OPEN_GATE:
		open_gate(s, me, thread);
		break;
	case STEP_CLOSE_GATE:
		me->gate = 0;
		break;
	case STEP_DRAIN:
		return me->writer != INSIDE && me->writer != MARKED;
	case STEP_TRUNCATE:
		change(run, s, i, false);
		database->wal = 0;
		break;
	case STEP_DROP_DATABASE:
		database->lock = 0;
		break;
	case STEP_DROP_IMAGE:
		s->image_lock = 0;
		break;
	case STEP_ANSWER:
		me->state = FROZEN;
		break;
	case STEP_EXIT:
		end_process(run, s, i);
		return false;
	case STEP_COMMIT_SESSION:
	case STEP_COMMIT_SAME_GENERATION:
	case STEP_COMMIT_OPEN:
	case STEP_COMMIT_FROZEN:
	case STEP_COMMIT_CLEAN:
		commit_step(run, s, i, thread, step);
		break;
	default:
		return check_step(run, s, i, thread, step);
	}
	return true;
}

static bool go_on(const struct run *run, struct state *s, int i, struct thread *thread)
{
	if (!thread->proc)
		return false;
	if (take_step(run, s, i, thread, instance_next_step(run, thread))) {
		thread->at++;
		if (instance_next_step(run, thread) == STEP_END)
			*thread = (struct thread){ 0 };
		return true;
	}
	return !thread->proc; /* else it waits */
}

static bool begin(const struct run *run, struct instance *me, int at, enum procedure proc, uint8_t want)
{
	/* The switch lock: one thread at a time. */
	bool unlocked = run->variant->faults & FAULT_DEADLINE_UNLOCKED;
	if (unlocked ? me->threads[at].proc != PROC_NONE : !instance_is_idle(me))
		return false;
	me->threads[at].proc = (uint8_t)proc;
	me->threads[at].want = want;
	return true;
}

static bool begin_thaw(const struct run *run, struct instance *me, uint8_t era)
{
	bool any = (run->variant->faults & FAULT_ANY_ERA) && era < me->frozen_era;
	return me->state == FROZEN && (era == me->frozen_era || any) && begin(run, me, CLIENT, PROC_THAW, era);
}

static bool begin_stop(const struct run *run, struct instance *me)
{
	enum procedure proc = me->state == RUNNING  ? PROC_STOP
			      : me->state == FROZEN ? PROC_STOP_FROZEN
						    : PROC_STOP_FENCED;
	return me->state != OFF && me->state != DYING && instance_is_idle(me) && begin(run, me, CLIENT, proc, 0);
}

static bool begin_open(const struct run *run, struct state *s, int i, uint8_t takeover)
{
	struct instance *me = &s->instances[i];
	bool has_database = database_of(run, s, i)->super.state != NO_DATABASE;
	return me->state == OFF && me->lives > 0 && has_database && begin(run, me, CLIENT, PROC_OPEN, takeover);
}

static bool begin_freeze(const struct run *run, struct instance *me)
{
	if (me->state != RUNNING || !me->gate || me->freezes == 0 || !begin(run, me, CLIENT, PROC_FREEZE, 0))
		return false;
	me->freezes--;
	return true;
}

/* A write marks its block, then changes the image. */
static bool write_step(const struct run *run, struct state *s, int i)
{
	struct instance *me = &s->instances[i];
	uint8_t id = (uint8_t)(1 << (i * 2 + me->writes));

	switch (me->writer) {
	case IDLE:
		if (me->writes == 0 || (me->state != RUNNING && me->state != FROZEN))
			return false;
		me->writes--;
		me->writer = me->gate ? INSIDE : WAITING;
		return true;
	case WAITING:
		if ((me->state == FENCED || me->state == FAILED) && !(run->variant->faults & FAULT_FENCED_WAITS))
			me->writer = IDLE; /* EIO */
		else if (me->gate)
			me->writer = INSIDE;
		return me->writer != WAITING;
	case INSIDE:
		commit(run, s, i, OPEN, false, false);
		database_of(run, s, i)->marks |= id;
		me->writer = MARKED;
		return true;
	default:
		change(run, s, i, true);
		s->image |= id;
		me->writer = IDLE;
		return true;
	}
}

static bool digest_step(const struct run *run, struct state *s, int i)
{
	struct instance *me = &s->instances[i];

	if (!me->digest || me->digests == 0)
		return false;
	me->digests--;
	commit(run, s, i, me->view.state, false, false);
	return true;
}

static bool poll(const struct run *run, struct state *s, int i)
{
	struct instance *me = &s->instances[i];

	if (me->state != FROZEN || !instance_is_idle(me) || (run->variant->faults & FAULT_NO_POLL) ||
		database_of(run, s, i)->super.generation == me->frozen.generation)
		return false;
	lose(s, me, FENCED);
	return true;
}

/* cp(1), of the file alone, at any time while A is frozen. */
static bool copy(const struct run *run, struct state *s, int i)
{
	struct database *from = database_of(run, s, i);
	struct database *to = &s->databases[COPY];

	if (i != A || s->instances[A].state != FROZEN || from->super.state != FROZEN_STATE ||
		run->world->database[C] != COPY || to->super.state != NO_DATABASE)
		return false;
	*to = *from;
	to->lock = 0;
	return true;
}

static bool reader_in_the_way(const struct run *run, struct instance *me)
{
	struct thread *thread = &me->threads[CLIENT];

	if (thread->proc != PROC_FREEZE || instance_next_step(run, thread) != STEP_TRUNCATE)
		return false;
	*thread = (struct thread){ .proc = PROC_UNFREEZE };
	return true;
}

/* The kernel closes one descriptor after the other. */
static bool kill_process(const struct run *run, struct state *s, int i)
{
	struct instance *me = &s->instances[i];

	if (me->state == OFF && instance_is_idle(me))
		return false;
	if (me->state != DYING && s->image_lock == i + 1 && database_of(run, s, i)->lock == i + 1) {
		s->image_lock = 0;
		*me = what_outlives(me);
		me->state = DYING;
	} else {
		end_process(run, s, i);
	}
	return true;
}

bool instance_act(const struct run *run, struct state *s, int i, enum action action)
{
	struct instance *me = &s->instances[i];

	switch (action) {
	case DO_WRITE:
		return write_step(run, s, i);
	case DO_DIGEST:
		return digest_step(run, s, i);
	case DO_CLIENT:
		return go_on(run, s, i, &me->threads[CLIENT]);
	case DO_DEADLINE:
		return go_on(run, s, i, &me->threads[DEADLINE]);
	case DO_READER:
		return reader_in_the_way(run, me);
	case BEGIN_FREEZE:
		return begin_freeze(run, me);
	case BEGIN_THAW_1:
	case BEGIN_THAW_2:
		return begin_thaw(run, me, (uint8_t)(action - BEGIN_THAW_1 + 1));
	case BEGIN_DEADLINE:
		return me->state == FROZEN && begin(run, me, DEADLINE, PROC_THAW, 0);
	case BEGIN_STOP:
		return begin_stop(run, me);
	case BEGIN_OPEN:
	case BEGIN_TAKEOVER:
		return begin_open(run, s, i, action == BEGIN_TAKEOVER);
	case DO_POLL:
		return poll(run, s, i);
	case DO_COPY:
		return copy(run, s, i);
	default:
		return kill_process(run, s, i);
	}
}
