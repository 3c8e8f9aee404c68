/* SPDX-License-Identifier: MIT */
/* Two instances, one image: who may have it, and that the other one changes nothing any more. */
#include "core_freeze.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NR_BLOCKS 64
#define IMAGE_SIZE (NR_BLOCKS * CORE_BLOCK)

static struct era_config takeover_of(const struct core_env *env)
{
	struct era_config config = core_config(env);
	config.takeover = true;
	return config;
}

/* An instance that has written to blocks 0 to 9, and is frozen. */
static struct era *open_and_freeze(const struct core_env *env, unsigned int timeout_s, uint64_t *ret_era)
{
	struct era *era = core_open(env);
	for (uint64_t block = 0; block < 10; block++)
		core_touch(era, block, 1);
	*ret_era = core_freeze(era, timeout_s);
	return era;
}

static void expect_names_generation(const char *text, uint64_t generation)
{
	char want[64];
	snprintf(want, sizeof(want), "generation %llu", (unsigned long long)generation);
	expect_msg(strstr(text, want) != NULL, "does not name %s: %s", want, text);
}

/* --- a takeover, and what is left of the old one --- */

START_TEST(test_a_takeover_fences_the_old_instance)
{
	struct core_env env;
	struct core_req req, flush;
	struct core_rest rest;
	struct err err = ERR_INIT;
	const uint8_t byte = 9;
	uint64_t n;
	core_env_init(&env, IMAGE_SIZE);
	struct era *old = open_and_freeze(&env, 0, &n);
	uint64_t generation = core_status(old).generation;
	core_req_start(&req, old, 20, &byte);
	struct era_config config = takeover_of(&env);
	config.intent_bytes = 0; /* its own thread must not write while the old one is looked at */
	struct era *era = core_open_with(&config);
	struct era_status status = core_status(era);
	expect_eq(status.generation, generation + 1);
	expect_eq(status.current_era, n + 1);
	core_touch(era, 30, 1);
	core_await_digest(era, 1);

	expect_eq(core_req_end(&req), -EIO); /* it has looked */
	status = core_status(old);
	expect_eq(status.state, ERA_FENCED);
	expect_names_generation(status.failure, generation + 1);
	core_rest_open(&rest, &env);
	core_rest_take(&rest);
	expect_gt(rest.wal_size, 0); /* else there is nothing that a stop could write back */
	core_thaw_refused(old, n, -ESTALE, ERR_EXIT_REFUSED, &err);
	expect_names_generation(err.text, generation + 1);
	core_changes_refused(old, -ESTALE);
	expect_eq(core_write(old, 0, &byte, 1), -EIO);
	core_req_init(&flush, old, CORE_FLUSH, 0, 0);
	core_req_submit(&flush);
	expect_eq(core_req_end(&flush), -EIO);
	core_rest_check(&rest, "calls of a fenced instance");
	core_close(old);
	core_rest_check(&rest, "the stop of a fenced instance");

	core_touch(era, 31, 1);
	expect_eq(core_checkpoint(era), n + 2);
	for (uint64_t block = 0; block < 10; block++)
		expect(core_has(env.db, n, block) && !core_has(env.db, n + 1, block));
	expect(core_has(env.db, n + 1, 30) && core_has(env.db, n + 1, 31) && !core_has(env.db, n + 1, 20));
	core_close(era);
}
END_TEST

/* The image was changed meanwhile, so that the successor starts anew, with another UUID. */
START_TEST(test_a_takeover_that_starts_anew_fences_too)
{
	struct core_env env;
	struct core_req req;
	struct core_rest rest;
	const uint8_t byte = 9;
	uint64_t n;
	core_env_init(&env, IMAGE_SIZE);
	struct era *old = open_and_freeze(&env, 0, &n);
	core_req_start(&req, old, 20, &byte);
	core_set_mtime(env.image, 10);
	struct era_config config = takeover_of(&env);
	core_open_refused(&config, -ESTALE, NULL);
	config.mark_all = true;
	config.intent_bytes = 0; /* as above */
	struct era *era = core_open_with(&config);
	core_touch(era, 30, 1);
	core_await_digest(era, 1);
	expect_eq(core_req_end(&req), -EIO);
	expect_eq(core_state(old), ERA_FENCED);
	core_rest_open(&rest, &env);
	core_rest_take(&rest);
	core_thaw_refused(old, n, -ESTALE, ERR_EXIT_REFUSED, NULL);
	core_close(old);
	core_rest_check(&rest, "the stop of a fenced instance");
	core_close(era);
}
END_TEST

START_TEST(test_without_takeover_an_owner_that_lives_is_refused)
{
	struct core_env env;
	struct core_rest rest;
	struct err err = ERR_INIT;
	uint64_t n;
	core_env_init(&env, IMAGE_SIZE);
	struct era *old = open_and_freeze(&env, 0, &n);
	struct era_config config = core_config(&env);
	core_rest_open(&rest, &env);
	core_rest_take(&rest);
	core_open_refused(&config, -EBUSY, &err);
	expect_eq(err.exit, ERR_EXIT_REFUSED);
	expect(strstr(err.text, "takeover") != NULL);
	config.read_only = true;
	core_open_refused(&config, -EBUSY, &err);
	expect_eq(err.exit, ERR_EXIT_REFUSED);
	core_rest_check(&rest, "an open that was refused");
	core_rest_is_whole(&rest, "an open that was refused");

	core_thaw(old, n); /* and a running one cannot be taken over from */
	core_touch(old, 40, 1);
	core_await_digest(old, 2);
	core_rest_take(&rest);
	config = takeover_of(&env);
	core_open_refused(&config, -EBUSY, &err);
	expect_eq(err.exit, ERR_EXIT_REFUSED);
	core_rest_check(&rest, "a takeover of a running instance");
	core_touch(old, 41, 1);
	core_close(old);
}
END_TEST

START_TEST(test_an_image_that_is_frozen_is_refused_to_other_metadata)
{
	struct core_env env;
	struct core_rest rest;
	struct err err = ERR_INIT;
	char other[340];
	uint64_t n;
	core_env_init(&env, IMAGE_SIZE);
	struct era *old = open_and_freeze(&env, 0, &n);
	core_rest_open(&rest, &env);
	core_rest_take(&rest);
	snprintf(other, sizeof(other), "%s/other.era", env.dir);
	struct era_config config = takeover_of(&env);
	config.metadata_path = other;
	config.takeover = _i == 1;
	core_open_refused(&config, -EBUSY, &err);
	expect_eq(err.exit, ERR_EXIT_REFUSED);
	expect_msg(access(other, F_OK) < 0, "an open that was refused left %s behind", other);
	core_rest_check(&rest, "an open that was refused");
	core_thaw(old, n);
	core_close(old);
}
END_TEST

START_TEST(test_a_fenced_instance_keeps_nobody_away)
{
	struct core_env env;
	struct core_req req;
	const uint8_t byte = 9;
	uint64_t n;
	core_env_init(&env, IMAGE_SIZE);
	struct era *old = open_and_freeze(&env, 0, &n);
	struct era_config config = takeover_of(&env);
	core_req_start(&req, old, 20, &byte);
	struct era *era = core_open_with(&config);
	core_touch(era, 30, 1);
	if (_i == 0)
		expect_eq(core_req_end(&req), -EIO);
	core_close(era);
	era = core_open(&env); /* with no word of a takeover */
	expect_eq(core_era(era), n + 2);
	core_touch(era, 31, 1);
	if (_i == 1)
		expect_eq(core_req_end(&req), -EIO);
	expect_eq(core_state(old), ERA_FENCED);
	core_close(old);
	core_touch(era, 32, 1);
	core_close(era);
	for (uint64_t block = 30; block < 33; block++)
		expect(core_has(env.db, n + 1, block));
}
END_TEST

/* --- a takeover between the thaw's start and its locks --- */

struct intruder {
	const struct core_env *env;
	bool writes;
	bool stays;
	bool has_been;
	struct era *era; /* that of the takeover, where it stays */
	uint64_t generation;
};

static int intrude(struct core_fault *fault)
{
	struct intruder *intruder = fault->arg;
	if (intruder->has_been)
		return 0;
	intruder->has_been = true;
	struct era_config config = takeover_of(intruder->env);
	struct era *era = core_open_with(&config);
	intruder->generation = core_status(era).generation;
	if (intruder->writes)
		core_touch(era, 30, 1);
	core_await_digest(era, 1);
	if (intruder->stays)
		intruder->era = era;
	else
		core_close(era);
	return 0;
}

/* Bit 0: the other writes; bit 1: it stays; bit 2: it is the deadline that thaws. */
START_TEST(test_a_takeover_while_the_thaw_takes_its_locks)
{
	struct core_env env;
	struct core_req req;
	struct core_rest rest;
	struct err err = ERR_INIT;
	const uint8_t byte = 9;
	core_env_init(&env, IMAGE_SIZE);
	struct intruder intruder = { .env = &env, .writes = _i & 1, .stays = _i & 2 };
	struct era_config config = core_config(&env);
	struct core_fault *image = core_fault_new(env.image);
	image->arg = &intruder;
	image->on_relock = intrude;
	config.image = &image->img;
	struct era *old = core_open_with(&config);
	core_touch(old, 1, 1);
	uint64_t n = core_freeze(old, _i & 4 ? 1 : 0);
	core_req_start(&req, old, 20, &byte);
	if (!(_i & 4)) {
		core_thaw_refused(old, n, -ESTALE, ERR_EXIT_REFUSED, &err);
		expect_names_generation(err.text, intruder.generation);
	}
	expect_eq(core_req_end(&req), -EIO);
	expect(intruder.has_been);
	expect_eq(core_state(old), ERA_FENCED);
	expect_eq(core_status(old).auto_thaws, 0);
	core_rest_open(&rest, &env);
	core_rest_take(&rest);
	core_thaw_refused(old, n, -ESTALE, ERR_EXIT_REFUSED, NULL);
	core_close(old);
	core_rest_check(&rest, "the stop of an instance whose thaw came too late");
	struct era *era = intruder.era != NULL ? intruder.era : core_open(&env);
	expect(core_has(env.db, n + 1, 30) == intruder.writes);
	core_touch(era, 31, 1);
	core_close(era);
	expect(core_has(env.db, n, 1) && core_has(env.db, n + 1, 31) && !core_has(env.db, n + 1, 20));
}
END_TEST

/* --- copies --- */

static void copy_env(const struct core_env *from, const struct core_env *to)
{
	core_copy_file(from->image, to->image);
	core_put_mtime(to->image, core_mtime(from->image)); /* as cp -a does */
	core_copy_db(from->db, to->db);
}

START_TEST(test_a_copy_of_both_goes_its_own_way)
{
	struct core_env env, copy;
	uint64_t n;
	core_env_init(&env, IMAGE_SIZE);
	core_env_init(&copy, IMAGE_SIZE);
	struct era *old = open_and_freeze(&env, 0, &n);
	copy_env(&env, &copy);
	struct era_config config = core_config(&copy);
	config.run_dir = env.run;
	struct era *era = core_open_with(&config);
	expect_eq(core_era(era), n + 1);
	core_touch(era, 30, 1);
	core_thaw(old, n);
	core_touch(old, 40, 1);
	if (_i == 1)
		core_close(era);
	core_touch(old, 41, 1);
	expect_eq(core_checkpoint(old), n + 2);
	if (_i == 0) {
		core_touch(era, 31, 1);
		core_close(era);
	}
	core_close(old);
	for (uint64_t block = 0; block < 10; block++) {
		expect(core_has(env.db, n, block) && !core_has(env.db, n + 1, block));
		expect(core_has(copy.db, n, block) && !core_has(copy.db, n + 1, block));
	}
	expect(core_has(copy.db, n + 1, 30) && !core_has(copy.db, n + 1, 40) && !core_has(copy.db, n + 1, 41));
	expect(core_has(env.db, n + 1, 40) && core_has(env.db, n + 1, 41) && !core_has(env.db, n + 1, 30));
}
END_TEST

/* An instance on a copy of the database, but on the very image. */
START_TEST(test_a_copied_database_on_the_same_image)
{
	struct core_env env, copy;
	struct core_rest rest;
	struct err err = ERR_INIT;
	bool writes = _i == 1;
	uint64_t n;
	core_env_init(&env, IMAGE_SIZE);
	copy = env;
	snprintf(copy.db, sizeof(copy.db), "%s/copy.era", env.dir);
	struct era *old = open_and_freeze(&env, 0, &n);
	core_copy_db(env.db, copy.db);
	core_rest_open(&rest, &env);
	core_rest_take(&rest);
	struct era_config config = core_config(&copy);
	core_open_refused(&config, -EBUSY, &err);
	expect_eq(err.exit, ERR_EXIT_REFUSED);
	config = takeover_of(&copy);
	struct era *era = core_open_with(&config);
	core_thaw_refused(old, n, -EBUSY, ERR_EXIT_REFUSED, NULL);
	if (writes)
		core_touch(era, 30, 1);
	core_close(era);
	if (writes) {
		core_thaw_refused(old, n, -ESTALE, ERR_EXIT_FAILED, NULL);
		expect_eq(core_state(old), ERA_FROZEN);
		core_rest_check_db(&rest, "a takeover by a copied database, and a thaw that was refused");
	} else {
		core_rest_check(&rest, "a takeover by a copied database");
		core_thaw(old, n);
		core_touch(old, 31, 1);
		expect(core_has(env.db, n + 1, 31));
	}
	core_close(old);
	if (writes) {
		core_rest_check_db(&rest, "the stop of an instance whose image another has changed");
		config = core_config(&env);
		core_open_refused(&config, -ESTALE, NULL);
	}
}
END_TEST

/* --- two processes --- */

enum word {
	OPEN,
	TAKE_OVER,
	TOUCH,
	FREEZE,
	AWAIT_FENCE,
	CLOSE,
};

/* A process with an instance that does as it is told. The one who tells has none, and may look at the files. */
struct player {
	pid_t pid;
	int in;
	int out;
};

static void await_fence(struct era *era)
{
	struct core_req req;
	const uint8_t byte = 9;
	core_req_init(&req, era, CORE_WRITE, 20 * CORE_BLOCK, 1);
	req.data = &byte;
	core_req_submit(&req);
	expect_eq(core_req_end(&req), -EIO);
	expect_eq(core_state(era), ERA_FENCED);
}

static _Noreturn void play(const struct core_env *env, int in, int out)
{
	struct era_config config = core_config(env);
	struct era *era = NULL;
	uint64_t word;
	for (bool is_over = false; !is_over && read(in, &word, sizeof(word)) == sizeof(word);) {
		config.takeover = (word & 0xff) == TAKE_OVER;
		switch ((enum word)(word & 0xff)) {
		case OPEN:
		case TAKE_OVER:
			/* Its own thread must not write while the test sees to it that the old one does not. */
			if (config.takeover)
				config.intent_bytes = 0;
			era = core_open_with(&config);
			core_await_digest(era, 1);
			break;
		case TOUCH:
			core_touch(era, word >> 8, 1);
			break;
		case FREEZE:
			core_freeze(era, 0);
			break;
		case AWAIT_FENCE:
			await_fence(era);
			break;
		case CLOSE:
			core_close(era);
			era = NULL;
			is_over = true;
			break;
		}
		uint64_t now = era != NULL ? core_era(era) : 0;
		expect_eq(write(out, &now, sizeof(now)), sizeof(now));
	}
	_exit(0);
}

static void player_start(struct player *player, const struct core_env *env)
{
	int to[2], from[2];
	expect_eq(pipe2(to, O_CLOEXEC), 0);
	expect_eq(pipe2(from, O_CLOEXEC), 0);
	player->pid = core_fork();
	if (player->pid == 0)
		play(env, to[0], from[1]);
	player->in = from[0];
	player->out = to[1];
	close(to[0]);
	close(from[1]);
}

/* The current era of its instance, after that. */
static uint64_t tell(struct player *player, enum word word, uint64_t block)
{
	uint64_t what = block << 8 | word, now = 0;
	expect_eq(write(player->out, &what, sizeof(what)), sizeof(what));
	expect_msg(read(player->in, &now, sizeof(now)) == sizeof(now), "a player has ended: see above");
	return now;
}

static void end(struct player *player, bool by_kill)
{
	if (by_kill) {
		core_kill(player->pid);
	} else {
		tell(player, CLOSE, 0);
		core_join(player->pid);
	}
	close(player->out);
	close(player->in);
}

/* Bit 0: the successor ends first; bits 1 and 2: the old one, the successor is killed; bit 3: the old one has not
 * looked. */
START_TEST(test_either_may_end_first_and_by_any_way)
{
	struct core_env env;
	struct player old, next;
	struct core_rest rest;
	bool next_first = _i & 1, kill_old = _i & 2, kill_next = _i & 4, looks = !(_i & 8);
	core_env_init(&env, IMAGE_SIZE);
	player_start(&old, &env);
	player_start(&next, &env);
	tell(&old, OPEN, 0);
	tell(&old, TOUCH, 1);
	uint64_t now = tell(&old, FREEZE, 0);
	expect_eq(tell(&next, TAKE_OVER, 0), now);
	tell(&next, TOUCH, 30);
	if (looks)
		tell(&old, AWAIT_FENCE, 0);
	core_rest_open(&rest, &env);
	core_rest_take(&rest);
	expect_gt(rest.wal_size, 0);
	if (next_first) {
		end(&next, kill_next);
		if (kill_next)
			core_rest_check(&rest, "kill -9 of the successor");
		core_rest_take(&rest);
	}
	end(&old, kill_old);
	core_rest_check(&rest, kill_old ? "kill -9 of the old instance" : "the stop of the old instance");
	if (!next_first) {
		tell(&next, TOUCH, 31);
		end(&next, kill_next);
	}
	struct era *era = core_open(&env);
	expect_ge(core_era(era), now + 1);
	expect(core_has(env.db, now - 1, 1) && !core_has(env.db, now, 1));
	expect(core_has(env.db, now, 30) && core_has(env.db, now, 31) == !next_first);
	core_close(era);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("era_handover");
	TCase *tcase = tcase_create("handover");
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, test_a_takeover_fences_the_old_instance);
	tcase_add_test(tcase, test_a_takeover_that_starts_anew_fences_too);
	tcase_add_test(tcase, test_without_takeover_an_owner_that_lives_is_refused);
	tcase_add_loop_test(tcase, test_an_image_that_is_frozen_is_refused_to_other_metadata, 0, 2);
	tcase_add_loop_test(tcase, test_a_fenced_instance_keeps_nobody_away, 0, 2);
	tcase_add_loop_test(tcase, test_a_takeover_while_the_thaw_takes_its_locks, 0, 8);
	tcase_add_loop_test(tcase, test_a_copy_of_both_goes_its_own_way, 0, 2);
	tcase_add_loop_test(tcase, test_a_copied_database_on_the_same_image, 0, 2);
	tcase_add_loop_test(tcase, test_either_may_end_first_and_by_any_way, 0, 16);
	suite_add_tcase(suite, tcase);
	return core_main(suite);
}
