/* SPDX-License-Identifier: MIT */
/* core_freeze - what the tests of freeze and handover share: calls that must succeed, or be refused; files at rest. */
#ifndef TESTS_CORE_FREEZE_H
#define TESTS_CORE_FREEZE_H

#include "core_util.h"

/* Each must succeed. *ret_era of the core; with the state that it must leave, and the era numbers that belong to it. */
uint64_t core_freeze(struct era *era, unsigned int timeout_s);
uint64_t core_thaw(struct era *era, uint64_t frozen_era);

struct era_status core_status(struct era *era);
enum era_state core_state(struct era *era);

/* A freeze failed: all is as if it had not been asked for, but perhaps for the era. */
void core_runs_on(struct era *era, const struct core_env *env);

/* error and err are of a call that was refused: with that code and exit, and one line of text. */
void core_expect_refused(int error, const struct err *err, int code, enum err_exit exit);
void core_thaw_refused(struct era *era, uint64_t frozen_era, int code, enum err_exit exit, struct err *ret_err);
/* Checkpoint, labels and freeze, each with that code and ERR_EXIT_REFUSED. */
void core_changes_refused(struct era *era, int code);

/* Waits until the digest has nothing left to do: from then on only requests change the database. */
void core_await_digest(struct era *era, uint64_t nr_steps);

/* A request that waits: submitted, and not over. */
void core_req_start(struct core_req *req, struct era *era, uint64_t block, const uint8_t *byte);
/* Its end. */
int core_req_end(struct core_req *req);

/*
 * The bytes of a database, its -wal and its image, to be held against what they are later. They are read by descriptors
 * that stay open until the process ends: a close() of the database would drop the locks that SQLite holds on it in this
 * process.
 */
struct core_rest {
	const struct core_env *env;
	int db_fd;
	int image_fd;
	uint64_t db, wal, wal_size, image;
	struct timespec db_mtime, image_mtime;
};

/* The database exists. */
void core_rest_open(struct core_rest *rest, const struct core_env *env);
void core_rest_take(struct core_rest *rest);
/* All is as it was taken; `when` says in the failure what came in between. */
void core_rest_check(const struct core_rest *rest, const char *when);
/* The same for database and -wal alone: the image is another's. */
void core_rest_check_db(const struct core_rest *rest, const char *when);
/* There is nothing but the database file. */
void core_rest_is_whole(const struct core_rest *rest, const char *when);

#endif
