/* SPDX-License-Identifier: MIT */
#include "core_freeze.h"

#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define IMAGE_READ_MAX (16 << 20)

struct era_status core_status(struct era *era)
{
	struct era_status status;
	era_get_status(era, &status);
	return status;
}

enum era_state core_state(struct era *era)
{
	return core_status(era).state;
}

uint64_t core_freeze(struct era *era, unsigned int timeout_s)
{
	struct err err = ERR_INIT;
	uint64_t before = core_era(era), frozen = 0;
	int error = era_freeze(era, timeout_s, &frozen, &err);
	expect_msg(error == 0, "era_freeze: %d: %s", error, err.text);
	expect_ge(frozen, before);
	return frozen;
}

uint64_t core_thaw(struct era *era, uint64_t frozen_era)
{
	struct err err = ERR_INIT;
	uint64_t now = 0;
	int error = era_thaw(era, frozen_era, &now, &err);
	expect_msg(error == 0, "era_thaw: %d: %s", error, err.text);
	if (frozen_era)
		expect_eq(now, frozen_era + 1);
	return now;
}

void core_expect_refused(int error, const struct err *err, int code, enum err_exit exit)
{
	expect_msg(error < 0, "was done (%d), and must be refused with %s", error, strerror(-code));
	expect_msg(error == code, "refused with %d, not %d: %s", error, code, err->text);
	expect_eq(err->code, code);
	expect_msg(err->exit == exit, "exit %d, not %d: %s", err->exit, exit, err->text);
	expect_msg(err->text[0] != '\0' && strchr(err->text, '\n') == NULL, "not one line of text: '%s'", err->text);
}

void core_thaw_refused(struct era *era, uint64_t frozen_era, int code, enum err_exit exit, struct err *ret_err)
{
	struct err err = ERR_INIT;
	uint64_t now = 0;
	int error = era_thaw(era, frozen_era, &now, &err);
	expect_msg(error < 0, "thawed what must be refused, into era %llu", (unsigned long long)now);
	core_expect_refused(error, &err, code, exit);
	if (ret_err)
		*ret_err = err;
}

void core_changes_refused(struct era *era, int code)
{
	uint64_t now = 0;
	struct err err[4] = { ERR_INIT, ERR_INIT, ERR_INIT, ERR_INIT };
	core_expect_refused(era_checkpoint(era, NULL, &now, &err[0]), &err[0], code, ERR_EXIT_REFUSED);
	core_expect_refused(era_label_set(era, "nightly", 0, &now, &err[1]), &err[1], code, ERR_EXIT_REFUSED);
	core_expect_refused(era_label_remove(era, "nightly", &err[2]), &err[2], code, ERR_EXIT_REFUSED);
	core_expect_refused(era_freeze(era, 0, &now, &err[3]), &err[3], code, ERR_EXIT_REFUSED);
}

void core_await_digest(struct era *era, uint64_t nr_steps)
{
	for (struct era_status status = core_status(era); status.digest_steps < nr_steps; status = core_status(era)) {
		expect_msg(status.state == ERA_RUNNING, "%s: %s", era_state_name(status.state), status.failure);
		usleep(1000);
	}
}

void core_req_start(struct core_req *req, struct era *era, uint64_t block, const uint8_t *byte)
{
	core_req_init(req, era, CORE_WRITE, block * CORE_BLOCK, 1);
	req->data = byte;
	core_req_submit(req);
	expect_msg(!core_req_is_over(req), "a write did not wait");
	expect_eq(atomic_load(&req->nr_applies), 0);
}

int core_req_end(struct core_req *req)
{
	int error = core_req_wait(req);
	core_req_destroy(req);
	return error;
}

/* FNV-1a, 0 for an empty file. */
static uint64_t hash_fd(int fd)
{
	uint64_t hash = 0;
	uint8_t buf[65536];
	for (uint64_t at = 0;;) {
		ssize_t len = io_pread_full(fd, buf, sizeof(buf), at);
		expect_ge(len, 0);
		if (len == 0)
			return hash;
		for (ssize_t i = 0; i < len; i++)
			hash = (hash ^ buf[i]) * UINT64_C(1099511628211) + 1;
		at += (uint64_t)len;
	}
}

static struct stat stat_of(int fd)
{
	struct stat st;
	expect_eq(fstat(fd, &st), 0);
	return st;
}

/* Of a huge image the mtime must do. */
static uint64_t image_hash(int fd)
{
	return stat_of(fd).st_size <= IMAGE_READ_MAX ? hash_fd(fd) : 0;
}

static void wal_of(const struct core_env *env, uint64_t *ret_size, uint64_t *ret_hash)
{
	char path[340];
	snprintf(path, sizeof(path), "%s-wal", env->db);
	*ret_size = core_file_size(path);
	*ret_hash = *ret_size > 0 ? core_file_hash(path) : 0; /* SQLite has no locks on it */
}

void core_rest_open(struct core_rest *rest, const struct core_env *env)
{
	rest->env = env;
	rest->db_fd = open(env->db, O_RDONLY | O_CLOEXEC);
	rest->image_fd = open(env->image, O_RDONLY | O_CLOEXEC);
	expect(rest->db_fd >= 0 && rest->image_fd >= 0);
}

void core_rest_take(struct core_rest *rest)
{
	rest->db = hash_fd(rest->db_fd);
	rest->image = image_hash(rest->image_fd);
	rest->db_mtime = stat_of(rest->db_fd).st_mtim;
	rest->image_mtime = stat_of(rest->image_fd).st_mtim;
	wal_of(rest->env, &rest->wal_size, &rest->wal);
}

static bool same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

void core_rest_check_db(const struct core_rest *rest, const char *when)
{
	uint64_t size, wal;
	wal_of(rest->env, &size, &wal);
	expect_msg(size == rest->wal_size && wal == rest->wal, "%s: the -wal had %llu bytes, and has %llu, or others",
		when, (unsigned long long)rest->wal_size, (unsigned long long)size);
	expect_msg(hash_fd(rest->db_fd) == rest->db, "%s: the database file has other bytes", when);
	expect_msg(
		same_time(stat_of(rest->db_fd).st_mtim, rest->db_mtime), "%s: the database file was written to", when);
}

void core_rest_check(const struct core_rest *rest, const char *when)
{
	core_rest_check_db(rest, when);
	expect_msg(image_hash(rest->image_fd) == rest->image &&
			   same_time(stat_of(rest->image_fd).st_mtim, rest->image_mtime),
		"%s: the image was changed", when);
}

void core_rest_is_whole(const struct core_rest *rest, const char *when)
{
	uint64_t size, wal;
	wal_of(rest->env, &size, &wal);
	expect_msg(size == 0, "%s: the -wal has %llu bytes, so the database file is not whole", when,
		(unsigned long long)size);
}

void core_runs_on(struct era *era, const struct core_env *env)
{
	expect_eq(core_state(era), ERA_RUNNING);
	uint64_t now = core_era(era);
	core_touch(era, 33, 1); /* the gate is open */
	expect(core_has(env->db, now, 33));
	expect_gt(core_checkpoint(era), now);
}
