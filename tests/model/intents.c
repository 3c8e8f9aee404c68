/* SPDX-License-Identifier: MIT */
/*
 * intents - the protocol by which a first write passes on the durable intent of its whole extent, before its own
 * mark is.
 *
 * A block's bit in `set` says: written, or about to be. Its bit in `committed` says: its mark is in the database,
 * go. An extent is `armed` while an intent for it, in this era, is in the database, durable: a writer who has set
 * its bit and sees armed *after that* may go. The mark follows in a lazy commit, without an fsync. `set` lies in
 * shared memory, in a slot that is labelled with its era, and survives a kill -9; the rest is in the heap.
 *
 * Writers take the gate and never the metadata mutex. Each of these is one section under the mutex, between whose
 * steps they move (intents_right below has the steps; * is an fsync):
 *
 *     arm          commit* the intent; armed
 *     exact        take the blocks of who is parked; commit* their marks; committed
 *     sweep        collect set & ~committed of the armed extents; commit the marks; committed, of what was collected
 *     drop         clear armed; collect the extent; commit its marks and the intent's removal; committed
 *     checkpoint   (gate closed and empty) label the other slot; commit* the new era; new plane, hot armed (gate open)
 *                  settle: collect the old plane; commit its marks; then commit the removal of its intents; free its slot
 *                  (image fsynced, no mutex) commit* durable_era; answer
 *     query        as a sweep, of both planes; then the reader's snapshot, which ignores the intents of the asked one
 *     recovery     image fsynced; commit*: bits of the slots as marks of the era on their label, instead of that era's
 *                  intents, and a new era
 *
 * Where an order matters, why, and the variant of test_intents.c that shows what happens otherwise:
 *
 *        interleaving                          why it does no harm                  otherwise
 *   ---- ------------------------------------  -----------------------------------  -------------------------------------
 *    1.  a drop clears armed and collects;     it looks at armed once more, and     armed-is-looked-at-before-the-bit-is-
 *        the writer sets its bit after that    parks                                set-only
 *    2.  and a second writer finds the bit     it looks at armed all the same       a-bit-that-is-set-needs-no-second-
 *        set                                                                        look,
 *                                                                                   one-plane-for-set-and-committed
 *    3.  and a sweep comes before that second  the extent was not armed when the    sweep-of-what-was-not-armed,
 *        look; another writer takes the fast   sweep began: its bits are neither    query-publishes-what-was-not-armed
 *        path; power loss keeps the drop       committed nor published
 *        alone
 *    4.  a drop collects; the writer sets its  armed is cleared first               drop-collects-before-armed-is-clear
 *        bit and still sees armed; the intent
 *        goes
 *    5.  the WAL is cut between a drop's       they are one transaction (or the     drop-without-the-bits,
 *        removal and its marks                 marks are in an earlier one)         drop-commits-its-marks-last
 *    6.  a bit is set between collect and      what was collected is published,     sweep-publishes-what-is-set-now
 *        publish                               not what is set
 *    7.  a lazy commit finds no space          nothing is published; armed is set   a-failed-commit-is-published,
 *                                              again, for a live answer has no      sweep-publishes-before-its-commit,
 *                                              bits of an extent that is not        failed-drop-stays-clear
 *    8.  power loss takes back an arm or an    it has an fsync, and publishes       arm-without-fsync,
 *        exact commit                          after it                             armed-before-its-commit,
 *                                                                                   exact-commit-without-fsync,
 *                                                                                   exact-commit-published-before
 *    9.  the era is switched between a commit  publishing is part of the section    armed-after-unlock,
 *        and what it publishes                                                      exact-commit-published-after-unlock,
 *                                                                                   sweep-commits-after-unlock,
 *                                                                                   sweep-publishes-after-unlock
 *   10.  the era is switched between a         the gate is closed and empty, and    the-looks-are-outside-the-gate,
 *        writer's look and its pwrite          opens on the new plane               the-gate-is-left-before-the-write,
 *                                                                                   switch-with-writers-inside,
 *                                                                                   switch-opens-the-gate-before-the-new-
 *                                                                                   plane
 *   11.  a write in the new era; power loss    its plane starts with nothing        switch-without-fsync,
 *                                              committed, and armed only where the  hot-extents-without-intents,
 *                                              switch's commit* has intents         committed-outlives-its-era
 *   12.  power loss after the switch and       the old intents stay until the       switch-drops-the-old-intents,
 *        before the old plane is settled       marks are before their removal in    old-intents-removed-before-the-marks,
 *                                              the WAL, and no drop of the new era  drop-of-every-era
 *                                              takes them
 *   13.  power loss takes back data of the     the image is fsynced after the       shown-before-the-image-is-synced,
 *        old era                               switch and before the era is shown   image-synced-before-the-switch
 *   14.  an era is answered, and power is      durable_era is committed* before     answered-before-the-era-is-durable,
 *        lost                                                                       durable-era-without-fsync
 *   15.  the digest takes the era that ended   it is settled before durable_era     shown-before-settled
 *                                              passes it
 *   16.  a query, bits in both planes          it settles both before the           query-does-not-settle,
 *                                              snapshot; who cannot settle counts   query-looks-before-it-settles,
 *                                              the intents                          query-settles-the-new-plane-alone,
 *                                                                                   query-ignores-the-blur
 *   17.  kill -9 after the label, before the   a slot is for the era on its label,  recovery-takes-the-newest-slot,
 *        switch's commit                       and above current_era for none       recovery-takes-every-slot-for-the-
 *                                                                                   current-era
 *   18.  kill -9 in a switch, or while it      each era has its slot: cleared and   slot-labelled-after-the-commit,
 *        settles                               labelled before its commit, free     slot-used-again-with-its-bits,
 *                                              only after its marks                 slot-given-away-before-its-bits-are-
 *                                                                                   collected,
 *                                                                                   slot-given-away-before-its-bits-are-
 *                                                                                   committed
 *   19.  kill -9 after a pwrite                the bit was set before it            the-bit-is-set-after-the-write
 *   20.  power loss, then recovery             an intent without a slot stays: it   recovery-removes-intents-without-a-
 *                                              is all that is known, and no mark    slot,
 *                                                                                   recovery-turns-intents-into-marks
 *   21.  a crash in the recovery from a kill   fsync of the image; then bits,       recovery-begins-an-era-before-the-
 *        -9                                    removal and new era in one commit*;  image-is-synced,
 *                                              the slots until then                 recovery-removes-intents-first,
 *                                                                                   recovery-forgets-the-slots-first,
 *                                                                                   recovery-without-fsync
 *   22.  a writer parks after its extent was   the committer wakes whoever is       who-waits-where-it-is-armed-is-passed-
 *        armed                                 parked, armed or not                 over
 *
 * That a drop's marks come in a commit before the removal's, that the old plane is settled under one lock, and that
 * armed is looked at after the bit is set alone, is safe: those variants break nothing.
 *
 * What the properties look at: each state is judged by what a crash at that instant would leave (find_broken()), so
 * a trace ends before the crash that would show. Crashes and recoveries are steps as well: kill -9, also between a
 * commit's write and its fsync, and power loss, in a recovery too. `durable` is the database that power loss leaves:
 * where a lazy commit has not reached the disk, no later one has, until the next fsync; that is every cut of the
 * WAL.
 *
 * Exact means: nothing is in the answer for which no writer had set its bit, or was parked when an exact commit took
 * it. So a write that parked with its bit set, because armed went away between its looks, is in the answer although
 * it may never have been made. (Without the first look at armed that is so of every parked write; it is safe.)
 *
 * Left out: more than two writers, blocks of different words of a bitmap (collecting is one step), arming several
 * extents in one commit, a commit with an fsync that finds no space (the write or the checkpoint fails), marks that
 * a switch makes for those who wait, failed fsyncs, freeze and takeover (handover.c), a lost session file (to
 * recovery it is a power loss that takes nothing back), the digest itself.
 */
#include "daemon.h"

#include <string.h>

const enum step *const intents_right[NR_PROCS] = {
	[PROC_WRITE] = STEPS(
		STEP_ENTER, STEP_LOOK_COMMITTED, STEP_LOOK_ARMED, STEP_SET, STEP_LOOK_ARMED, STEP_PWRITE, STEP_LEAVE),
	[PROC_ARM] = STEPS(STEP_LOCK, STEP_COMMIT_ARM, STEP_PUBLISH_ARMED),
	[PROC_EXACT] = STEPS(STEP_LOCK, STEP_TAKE_PARKED, STEP_COMMIT_EXACT, STEP_PUBLISH),
	[PROC_SWEEP] = STEPS(STEP_LOCK, STEP_COLLECT, STEP_COMMIT_MARKS, STEP_PUBLISH),
	[PROC_DROP] = STEPS(STEP_LOCK, STEP_CLEAR_ARMED, STEP_COLLECT_EXTENT, STEP_COMMIT_DROP, STEP_PUBLISH),
	[PROC_CHECKPOINT] = STEPS(STEP_CLOSE_GATE, STEP_DRAIN, STEP_LOCK, STEP_LABEL, STEP_COMMIT_SWITCH, STEP_REPLACE,
		STEP_UNLOCK, STEP_OPEN_GATE, STEP_LOCK, STEP_COLLECT_OLD, STEP_COMMIT_MARKS, STEP_PUBLISH, STEP_UNLOCK,
		STEP_LOCK, STEP_COMMIT_OLD_REMOVAL, STEP_FREE, STEP_UNLOCK, STEP_FSYNC, STEP_LOCK, STEP_COMMIT_DURABLE,
		STEP_UNLOCK, STEP_ANSWER),
	[PROC_QUERY] = STEPS(
		STEP_ASK, STEP_LOCK, STEP_COLLECT_BOTH, STEP_COMMIT_MARKS, STEP_PUBLISH, STEP_UNLOCK, STEP_SNAPSHOT),
	[PROC_RECOVER] = STEPS(STEP_FSYNC, STEP_COMMIT_RECOVERY, STEP_START),
};

const char P_POWER[] = "the database alone has every changed block, also after a power loss";
const char P_BARRIER[] = "no power loss takes back data of an era before the one that was shown";
const char P_KILL[] = "database and slots have every changed block after kill -9";
const char P_QUERY[] = "a live answer has what was written before it was asked";
const char P_ANSWERED[] = "an era that was answered stays";
const char P_DIGEST[] = "an era that may be digested is settled";
const char P_EXACT[] = "with the slots, the answer after kill -9 is exact";
const char P_LABEL[] = "what a power loss blurs is an intent, not a mark";
const char P_STUCK[] = "nobody waits for ever";

static const char *const step_names[NR_STEPS] = {
	[STEP_END] = "end",
	[STEP_ENTER] = "enter the gate, or park",
	[STEP_LOOK_COMMITTED] = "look at committed",
	[STEP_LOOK_SET] = "look at set",
	[STEP_LOOK_ARMED] = "look at armed",
	[STEP_SET] = "set the bit",
	[STEP_SET_OR_GO] = "set the bit, or find it set",
	[STEP_PWRITE] = "pwrite",
	[STEP_LEAVE] = "leave the gate",
	[STEP_LOCK] = "lock",
	[STEP_UNLOCK] = "unlock",
	[STEP_TAKE_PARKED] = "take who is parked",
	[STEP_CLEAR_ARMED] = "clear armed",
	[STEP_COLLECT] = "collect the armed extents",
	[STEP_COLLECT_ALL] = "collect all extents",
	[STEP_COLLECT_EXTENT] = "collect the extent",
	[STEP_COLLECT_OLD] = "collect the old plane",
	[STEP_COLLECT_BOTH] = "collect both planes",
	[STEP_PUBLISH] = "publish what was collected",
	[STEP_PUBLISH_SET] = "publish what is set",
	[STEP_PUBLISH_ARMED] = "publish armed",
	[STEP_CLOSE_GATE] = "close the gate",
	[STEP_DRAIN] = "drain the gate",
	[STEP_LABEL] = "label the other slot",
	[STEP_REPLACE] = "replace the plane",
	[STEP_OPEN_GATE] = "open the gate",
	[STEP_FREE] = "free the old slot",
	[STEP_FSYNC] = "fsync the image",
	[STEP_ANSWER] = "answer",
	[STEP_ASK] = "ask",
	[STEP_SNAPSHOT] = "take the snapshot",
	[STEP_FORGET_SLOTS] = "forget the slots",
	[STEP_START] = "start",
	[STEP_COMMIT_ARM] = "commit the intent",
	[STEP_COMMIT_EXACT] = "commit marks of the parked",
	[STEP_COMMIT_SWITCH] = "commit the new era",
	[STEP_COMMIT_DURABLE] = "commit durable_era",
	[STEP_COMMIT_RECOVERY] = "commit what is recovered",
	[STEP_COMMIT_RECOVERY_REMOVAL] = "commit the removal of intents with a slot",
	[STEP_COMMIT_MARKS] = "commit marks",
	[STEP_COMMIT_DROP] = "commit marks and the intent's removal",
	[STEP_COMMIT_REMOVAL] = "commit the intent's removal",
	[STEP_COMMIT_OLD_REMOVAL] = "commit the removal of the old intents",
};
static const char *const proc_names[NR_PROCS] = { "", "write", "arm", "exact commit", "sweep", "drop", "checkpoint",
	"query", "recovery" };

/* Nobody may wait for a crash, a full disk, another write, a person, or what the background does at its leisure. */
static bool is_luck(const struct state *s, unsigned int action)
{
	if (action >= BEGIN_ARM && action < BEGIN_DROP)
		return !writers_wait(s, action - BEGIN_ARM);
	return (action >= BEGIN_WRITE && action < DO_THREAD) || (action >= DO_FAIL && action != BEGIN_EXACT);
}

static enum explore_move move(void *arg, void *state, unsigned int action)
{
	struct state *s = state;

	bool luck = is_luck(s, action);
	if (!daemon_act(arg, s, action))
		return EXPLORE_NONE;
	if (s->shown < s->answered)
		s->shown = s->answered;
	if (s->shown < s->db.durable_era)
		s->shown = s->db.durable_era;
	crash_forget(s);
	return luck ? EXPLORE_LUCK : EXPLORE_MOVED;
}

/* The answer by base has the blocks since era. */
static bool has_all(const struct base *base, unsigned int era, uint8_t blocks)
{
	return (blocks & ~base_since(base, era)) == 0;
}

static bool has_all_written(const struct state *s, const struct base *base)
{
	for (unsigned int b = 0; b < NR_BLOCKS; b++)
		if (s->wrote[b] && !has_all(base, s->wrote[b], (uint8_t)(1u << b)))
			return false;
	return true;
}

static bool has_untouched(const struct state *s, const struct base *base)
{
	for (int era = 0; era < NR_ERAS; era++)
		if (base->marks[era] & ~s->touched[era])
			return true;
	return false;
}

static bool has_intents(const struct base *base, unsigned int era)
{
	for (; era < NR_ERAS; era++)
		if (base->intents[era])
			return true;
	return false;
}

/* The digest may take every era before durable_era. (What blurs is of a session before this one: recovery begins an era.) */
static bool has_unsettled(const struct state *s, const struct base *base)
{
	for (unsigned int era = base->first; era < base->durable_era; era++)
		if (base->intents[era] || s->slots[NOW].label == era || s->slots[OLD].label == era)
			return true;
	return false;
}

/* What a crash at this instant would leave: as an offline reader sees it at once, and as recovery leaves it. */
static const char *find_broken(const struct run *run, const struct state *s)
{
	static const struct slot no_slots[NR_PLANES];
	const struct base killed = base_recovered(run, &s->db, s->slots);
	const struct base cut = base_recovered(run, &s->durable, no_slots);

	if (s->broken)
		return P_QUERY;
	if (!has_all_written(s, &killed))
		return P_KILL;
	if (!has_all_written(s, &s->db) || !has_all_written(s, &s->durable) || !has_all_written(s, &cut))
		return P_POWER;
	if (!has_all(&s->durable, s->shown, s->unsynced) || !has_all(&cut, s->shown, s->unsynced))
		return P_BARRIER;
	if (s->answered > s->db.durable_era || s->answered > s->durable.durable_era)
		return P_ANSWERED;
	if (has_unsettled(s, &s->db) || has_unsettled(s, &s->durable))
		return P_DIGEST;
	if (run->variant->inexact)
		return NULL;
	if (has_untouched(s, &cut))
		return P_LABEL;
	return !s->lost && (has_untouched(s, &killed) || has_intents(&killed, s->db.first)) ? P_EXACT : NULL;
}

static const char *check(void *arg, const void *state)
{
	struct run *run = arg;
	const struct state *s = state;

	if (s->threads[SWITCHER].proc != PROC_RECOVER && has_intents(&s->db, 0) && !has_intents(&s->db, s->db.first))
		run->seen |= SIGHT_BLUR;
	return find_broken(run, s);
}

static bool is_settled(void *arg, const void *state)
{
	const struct state *s = state;

	for (int w = 0; w < NR_WRITERS; w++)
		if (s->writers[w].state != IDLE)
			return false;
	for (int t = 0; t < NR_THREADS; t++)
		if (s->threads[t].proc)
			return false;
	return true;
}

static void describe_thread(const struct run *run, const struct thread *thread, bool begins, FILE *out)
{
	unsigned int at = thread->at;
	enum step step = daemon_next_step(run, thread->proc, at);

	while (step == STEP_DRAIN || step == STEP_LOCK || step == STEP_ASK) {
		enum step next = daemon_next_step(run, thread->proc, ++at);
		if (begins && next >= STEP_COMMIT_ARM)
			break;
		step = next;
	}
	fprintf(out, "%s: %s", proc_names[thread->proc], step_names[step]);
}

static void describe(void *arg, const void *state, unsigned int action, FILE *out)
{
	static const char *const names[] = { "a sweep begins", "a checkpoint begins: the gate is closed",
		"a checkpoint begins, nothing is hot: the gate is closed", "a query begins: it has collected",
		"kill -9", "kill -9 within a commit", "power loss" };
	const struct state *s = state;

	if (action < BEGIN_WRITE) {
		const struct writer *me = &s->writers[action];
		fprintf(out, "writer %u of block %d: %s", action + 1, me->block,
			step_names[daemon_next_step(arg, PROC_WRITE, me->at)]);
	} else if (action < DO_THREAD) {
		unsigned int number = action - BEGIN_WRITE;
		fprintf(out, "writer %u of block %u: %s", number / NR_BLOCKS + 1, number % NR_BLOCKS,
			step_names[daemon_next_step(arg, PROC_WRITE, 0)]);
	} else if (action < BEGIN_ARM) {
		unsigned int number = (action - DO_THREAD) % NR_THREADS;
		describe_thread(arg, &s->threads[number], false, out);
		fputs(action < DO_BEHIND ? "" : action < DO_FAIL ? " (not on disk yet)" : " (no space)", out);
	} else if (action < BEGIN_EXACT) {
		bool drop = action >= BEGIN_DROP;
		struct thread thread = { .proc = drop ? PROC_DROP : PROC_ARM };
		fprintf(out, "extent %u: ", (action - BEGIN_ARM) % NR_EXTENTS);
		describe_thread(arg, &thread, true, out);
	} else if (action == BEGIN_EXACT) {
		describe_thread(arg, &(struct thread){ .proc = PROC_EXACT }, true, out);
	} else {
		fputs(names[action - BEGIN_SWEEP], out);
	}
}

struct explore_result intents_explore(
	const struct world *world, const struct variant *variant, unsigned int *ret_seen, FILE *trace)
{
	struct run run = { .world = world, .variant = variant };
	struct state initial = {
		.gate = 1, .checkpoints = world->checkpoints, .crashes = world->crashes, .shown = 1, .answered = 1
	};
	struct explore_model model = { .state_size = sizeof(initial),
		.nr_actions = NR_ACTIONS,
		.move = move,
		.check = check,
		.is_settled = is_settled,
		.stuck = P_STUCK,
		.describe = describe,
		.arg = &run };

	initial.db.current = initial.db.durable_era = initial.db.first = 1;
	initial.durable = initial.db;
	initial.slots[NOW].label = 1;
	struct explore_result result = explore(&model, &initial, trace);
	*ret_seen = run.seen;
	return result;
}
