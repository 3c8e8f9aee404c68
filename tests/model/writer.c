/* SPDX-License-Identifier: MIT */
#include "daemon.h"

static uint8_t extent_of(unsigned int block)
{
	return block == 2 ? 1 : 0;
}

bool writers_wait(const struct state *s, unsigned int extent)
{
	for (int w = 0; w < NR_WRITERS; w++)
		if (s->writers[w].state == PARKED && extent_of(s->writers[w].block) == extent)
			return true;
	return false;
}

void writers_wake(struct state *s)
{
	for (int w = 0; w < NR_WRITERS; w++)
		if (s->writers[w].state == PARKED)
			s->writers[w].state = ACTIVE;
}

static void park(struct writer *me)
{
	*me = (struct writer){ .state = PARKED, .block = me->block };
}

static void go(const struct run *run, struct writer *me)
{
	while (daemon_next_step(run, PROC_WRITE, me->at) != STEP_PWRITE)
		me->at++;
}

static void change_image(struct run *run, struct state *s, const struct writer *me)
{
	uint8_t block = bit_of(me->block);

	s->wrote[me->block] = s->db.current;
	s->unsynced |= block;
	if (s->slots[OLD].label && s->slots[OLD].label < s->db.current)
		run->seen |= SIGHT_UNSETTLED;
	if ((s->planes[me->plane].committed & ~s->durable.marks[s->db.current] & block) != 0)
		run->seen |= SIGHT_FAST;
}

static bool set_bit(struct state *s, const struct writer *me)
{
	struct slot *slot = &s->slots[me->plane];
	uint8_t block = bit_of(me->block);
	bool was_set = slot->set & block;

	slot->set |= block;
	s->touched[slot->label] |= block;
	return was_set;
}

static void writer_step(struct run *run, struct state *s, struct writer *me)
{
	const struct plane *plane = &s->planes[me->plane];
	uint8_t block = bit_of(me->block);

	switch (daemon_next_step(run, PROC_WRITE, me->at++)) {
	case STEP_ENTER:
		me->inside = s->gate;
		me->plane = NOW;
		if (!s->gate)
			park(me);
		break;
	case STEP_LOOK_COMMITTED:
		if (plane->committed & block)
			go(run, me);
		break;
	case STEP_LOOK_SET:
		if (s->slots[me->plane].set & block)
			go(run, me);
		break;
	case STEP_LOOK_ARMED:
		if (plane->armed & bit_of(extent_of(me->block)))
			break;
		if (daemon_next_step(run, PROC_WRITE, me->at) == STEP_PWRITE)
			run->seen |= SIGHT_RECHECKED;
		park(me);
		break;
	case STEP_SET:
		set_bit(s, me);
		break;
	case STEP_SET_OR_GO:
		if (set_bit(s, me))
			go(run, me);
		break;
	case STEP_PWRITE:
		change_image(run, s, me);
		break;
	default:
		break;
	}
	if (daemon_next_step(run, PROC_WRITE, me->at) == STEP_LEAVE) {
		me->inside = 0;
		me->at++;
	}
	if (daemon_next_step(run, PROC_WRITE, me->at) == STEP_END)
		*me = (struct writer){ 0 };
}

bool writers_begin(struct run *run, struct state *s, unsigned int number)
{
	unsigned int w = number / NR_BLOCKS;
	uint8_t block = (uint8_t)(number % NR_BLOCKS);
	struct writer *me = &s->writers[w];

	if (me->state != IDLE || !(run->world->blocks[w] & bit_of(block)) || s->threads[SWITCHER].proc == PROC_RECOVER)
		return false;
	*me = (struct writer){ .state = ACTIVE, .block = block };
	writer_step(run, s, me);
	return true;
}

bool writers_go_on(struct run *run, struct state *s, unsigned int number)
{
	struct writer *me = &s->writers[number];

	if (me->state != ACTIVE)
		return false;
	writer_step(run, s, me);
	return true;
}

bool writers_are_inside(const struct state *s)
{
	for (int w = 0; w < NR_WRITERS; w++)
		if (s->writers[w].inside)
			return true;
	return false;
}
