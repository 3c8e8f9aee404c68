/* SPDX-License-Identifier: MIT */
/*
 * handover - the protocol by which one image and its metadata pass from instance to instance.
 *
 * It stands for era_freeze_commit(), era_thaw() and the thread of deadline and poll (src/core/freeze.c, thaw.c), for
 * era_open() with takeover (open.c, bind.c, recover.c) and for era_close(). Each instance is a process of one writer, one
 * digest thread, one thread of its clients and one of its deadline; their steps interleave in every way, and a kill -9,
 * which drops the locks one by one, may come before each step. All instances run the same program:
 *
 *     OFF --open--> RUNNING --freeze--> FROZEN --thaw--> RUNNING
 *                                          |--- another has taken over (thaw, poll) --> FENCED
 *                                          `--- the image has changed (thaw) ---------> FAILED
 *
 * and stop or are killed from anywhere. The image is the set of writes that reached it; a database holds the set of writes
 * that it has a mark of. The image's lock is a flock on the descriptor that the process keeps for its reads, so a process
 * may take it twice and drops it at once; that of the database is on a file opened each time, so nobody takes it twice.
 *
 * A client's thaw that finds the image changed leaves it frozen, for the deadline to fail: here the first of them does.
 *
 * Left out: power loss and failing fsyncs (the crash tests' part), more blocks than one, eras (the N that a freeze answers
 * is here the freeze's number), a deadline that comes too early (it may come at any time), how bind.c tells that an image
 * has changed behind a dead owner (here it always can), a copy that is put in the original's place.
 */
#include "instance.h"

#include <string.h>

const enum step *const handover_right[NR_PROCS] = {
	[PROC_OPEN] = STEPS(STEP_TAKE_IMAGE, STEP_TAKE_DATABASE, STEP_READ, STEP_CHECK_OWNER, STEP_CHECK_BINDING,
		STEP_COMMIT_SESSION, STEP_START_DIGEST, STEP_OPEN_GATE),
	[PROC_FREEZE] = STEPS(STEP_CLOSE_GATE, STEP_DRAIN, STEP_JOIN_DIGEST, STEP_COMMIT_FROZEN, STEP_TRUNCATE,
		STEP_DROP_DATABASE, STEP_DROP_IMAGE, STEP_ANSWER),
	[PROC_UNFREEZE] = STEPS(STEP_COMMIT_OPEN, STEP_START_DIGEST, STEP_OPEN_GATE),
	[PROC_THAW] = STEPS(STEP_TAKE_IMAGE, STEP_TAKE_DATABASE, STEP_READ, STEP_COMPARE, STEP_COMPARE_IMAGE,
		STEP_COMMIT_OPEN, STEP_START_DIGEST, STEP_OPEN_GATE),
	[PROC_STOP] = STEPS(STEP_CLOSE_GATE, STEP_DRAIN, STEP_JOIN_DIGEST, STEP_COMMIT_CLEAN, STEP_TRUNCATE,
		STEP_DROP_DATABASE, STEP_DROP_IMAGE, STEP_EXIT),
	[PROC_STOP_FROZEN] = STEPS(STEP_EXIT),
	[PROC_STOP_FENCED] = STEPS(STEP_EXIT),
};

const char P_LOCKS[] = "nothing is changed without both locks";
const char P_MARKS[] = "no change of the image lacks its mark, no commit is based on a stale view";
const char P_FENCED[] = "a fenced or failed instance changes nothing, and has a reason";
const char P_ANSWER[] = "a thaw succeeds only where the freeze still held";
const char P_STILL[] = "a frozen database is whole and does not change";
const char P_LEAK[] = "who is not running holds no lock";
const char P_STUCK[] = "nobody waits for ever";

static const char *const broken_names[] = { NULL, P_LOCKS, P_MARKS, P_FENCED, P_ANSWER };

static const char *const step_names[] = { "end", "take the image's lock", "take the database's lock",
	"read the superblock", "compare it", "compare the generation", "compare the image", "check the owner",
	"check the binding", "commit a session", "commit a session, same generation", "commit OPEN", "commit FROZEN",
	"commit CLEAN", "start the digest", "join the digest", "open the gate", "close the gate", "drain the gate",
	"truncate the WAL", "drop the database's lock", "drop the image's lock", "answer", "exit" };
static const char *const proc_names[] = { "", "open", "freeze", "failed freeze", "thaw", "stop", "stop (frozen)",
	"stop (fenced)" };

static const char *const action_names[] = { "write", "digest", "client", "deadline", "freeze: a reader is in the way",
	"begin freeze", "begin thaw --era 1", "begin thaw --era 2", "begin the deadline's thaw", "begin stop",
	"begin open", "begin open -o takeover", "poll", "copy the database", "kill -9" };

/* Nobody may wait for a kill, a client's thaw or the stop of an instance; but who finds its image in use by a copy's
 * instance does wait for that one to stop. */
static bool is_luck(const struct run *run, const struct state *s, int i, enum action action)
{
	return (action == DO_KILL && s->instances[i].state != DYING) || action == BEGIN_THAW_1 ||
	       action == BEGIN_THAW_2 || (action == BEGIN_STOP && run->world->database[i] == ORIGINAL);
}

static enum explore_move move(void *arg, void *state, unsigned int number)
{
	const struct run *run = arg;
	int i = (int)(number / NR_ACTIONS);
	enum action action = number % NR_ACTIONS;

	bool luck = is_luck(run, state, i, action);
	if (!instance_act(run, state, i, action))
		return EXPLORE_NONE;
	return luck ? EXPLORE_LUCK : EXPLORE_MOVED;
}

static void look(struct run *run, const struct state *s)
{
	const struct instance *a = &s->instances[A];

	for (int i = B; i < NR_INSTANCES; i++) {
		const struct instance *other = &s->instances[i];
		if (other->writer == MARKED && a->state == FROZEN && run->world->database[i] == ORIGINAL)
			run->seen |= SIGHT_TAKEN_OVER;
		if (other->gate && a->gate == 0 && a->state == OFF && other->view.generation == 0)
			run->seen |= SIGHT_INHERITED;
	}
	run->seen |= a->state == FENCED ? SIGHT_FENCED : 0;
	run->seen |= a->state == FAILED ? SIGHT_REFUSED : 0;
	run->seen |= a->writer == MARKED && s->databases[COPY].super.state != NO_DATABASE ? SIGHT_THAWED : 0;
	run->seen |= a->held && a->sessions > 1 ? SIGHT_SECOND_FREEZE : 0;
}

static const char *check_instance(const struct run *run, const struct state *s, int i)
{
	const struct database *database = &s->databases[run->world->database[i]];
	const struct instance *me = &s->instances[i];
	bool holds_lock = s->image_lock == i + 1 || database->lock == i + 1;

	if (me->gate && (s->image_lock != i + 1 || database->lock != i + 1))
		return P_LOCKS;
	if (me->gate && (database->super.state != OPEN || memcmp(&me->view, &database->super, sizeof(me->view)) != 0 ||
				(s->image & ~database->marks) != 0))
		return P_MARKS;
	if (me->state == FROZEN && me->frozen.nonce == database->super.nonce &&
		(memcmp(&me->frozen, &database->super, sizeof(me->frozen)) != 0 || database->wal))
		return P_STILL;
	return holds_lock && me->state != RUNNING && me->state != DYING && instance_is_idle(me) ? P_LEAK : NULL;
}

static const char *check(void *arg, const void *state)
{
	const struct state *s = state;
	const char *broken = broken_names[s->broken];

	look(arg, s);
	for (int i = 0; i < NR_INSTANCES && !broken; i++)
		broken = check_instance(arg, s, i);
	return broken;
}

static bool is_settled(void *arg, const void *state)
{
	const struct state *s = state;

	for (int i = 0; i < NR_INSTANCES; i++)
		if (s->instances[i].writer != IDLE || !instance_is_idle(&s->instances[i]))
			return false;
	return true;
}

static void describe(void *arg, const void *state, unsigned int number, FILE *out)
{
	static const char *const write_names[] = { "a write comes", "the write that waits is let in or fails",
		"commit the mark", "change the image" };
	const struct state *s = state;
	unsigned int action = number % NR_ACTIONS;
	const struct instance *me = &s->instances[number / NR_ACTIONS];
	const struct thread *thread = &me->threads[action == DO_DEADLINE ? DEADLINE : CLIENT];

	fprintf(out, "%c  ", "ABC"[number / NR_ACTIONS]);
	if (action == DO_WRITE)
		fprintf(out, "writer: %s", write_names[me->writer]);
	else if (action == DO_CLIENT || action == DO_DEADLINE)
		fprintf(out, "%s's %s: %s", action_names[action], proc_names[thread->proc],
			step_names[instance_next_step(arg, thread)]);
	else if (action == DO_KILL && me->state == DYING)
		fputs("the kernel drops its other locks", out);
	else
		fputs(action_names[action], out);
}

struct explore_result handover_explore(
	const struct world *world, const struct variant *variant, unsigned int *ret_seen, FILE *trace)
{
	struct run run = { .world = world, .variant = variant };
	struct state initial = { .image_lock = A + 1 };
	struct instance *a = &initial.instances[A];
	struct explore_model model = { .state_size = sizeof(initial),
		.nr_actions = NR_INSTANCES * NR_ACTIONS,
		.move = move,
		.check = check,
		.is_settled = is_settled,
		.stuck = P_STUCK,
		.describe = describe,
		.arg = &run };

	for (int i = 0; i < NR_INSTANCES; i++) {
		struct instance *me = &initial.instances[i];
		me->writes = world->writes[i];
		me->digests = world->digests[i];
		me->freezes = world->freezes[i];
		me->lives = world->lives[i];
	}
	a->state = RUNNING;
	a->gate = a->digest = a->sessions = 1;
	a->view = (struct super){ .state = OPEN, .counter = 1, .nonce = instance_nonce(&initial, A) };
	initial.databases[ORIGINAL] = (struct database){ .super = a->view, .lock = A + 1 };
	struct explore_result result = explore(&model, &initial, trace);
	*ret_seen = run.seen;
	return result;
}
