/* SPDX-License-Identifier: MIT */
/*
 * core_util - what the tests of the core share: a folder with an image and metadata, requests that wait for their end,
 * answers of since, an image with hooks, processes that are killed.
 *
 * All of it asserts for itself (libcheck): a test only calls it.
 */
#ifndef TESTS_CORE_UTIL_H
#define TESTS_CORE_UTIL_H

#include "base/bitmap.h"
#include "core/era.h"
#include "image/img.h"
#include "meta/meta.h"

#include <check.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * As ck_assert*(), with numbers of any width; but libcheck hears of failures alone. Its macros write a message for each
 * assertion, which a kill -9 tears and threads mix up.
 */
#define expect_msg(condition, ...)                                                                                     \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			core_fail(__FILE__, __LINE__, __VA_ARGS__);                                                    \
	} while (0)
#define expect(condition) expect_msg(condition, "%s", #condition)
#define expect_cmp(a, op, b, text_a, text_b)                                                                           \
	do {                                                                                                           \
		long long expect_a = (long long)(a), expect_b = (long long)(b);                                        \
		expect_msg(expect_a op expect_b, "%s " #op " %s: %lld, %lld", text_a, text_b, expect_a, expect_b);     \
	} while (0)
#define expect_eq(a, b) expect_cmp(a, ==, b, #a, #b)
#define expect_ne(a, b) expect_cmp(a, !=, b, #a, #b)
#define expect_lt(a, b) expect_cmp(a, <, b, #a, #b)
#define expect_le(a, b) expect_cmp(a, <=, b, #a, #b)
#define expect_gt(a, b) expect_cmp(a, >, b, #a, #b)
#define expect_ge(a, b) expect_cmp(a, >=, b, #a, #b)

/* Ends the test, or a child of it, as failed. Any thread. */
_Noreturn void core_fail(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Bytes of an intent for tests that do not say (core_config()); unset: no intents. */
#define CORE_INTENT_VAR "ERA_TEST_INTENT"
#define CORE_LIVE_MAX 16u /* instances of one process */

#define CORE_BLOCK UINT64_C(4096) /* block size of the tests that do not care */

/* Runs the suite in a child and removes what it left, however it ended. What main() returns. */
int core_main(Suite *suite);

/* An image, metadata and a run folder, in a folder of their own on tmpfs where there is one. */
struct core_env {
	char dir[256];
	char image[320];
	char db[320];
	char run[320];
};

void core_env_init(struct core_env *env, uint64_t image_size);

/* The same with the folder dir, which exists and is empty (a mount of the test's own). */
void core_env_init_at(struct core_env *env, const char *dir, uint64_t image_size);

/* Create, CORE_BLOCK, two completers, notices dropped. */
struct era_config core_config(const struct core_env *env);

struct era *core_open_with(const struct era_config *config);
struct era *core_open(const struct core_env *env);
void core_close(struct era *era);

/* Opening must fail with code and give a text; *ret_err may be NULL. */
void core_open_refused(const struct era_config *config, int code, struct err *ret_err);

uint64_t core_era(struct era *era);
uint64_t core_checkpoint(struct era *era);

/* A request that can be waited for. */
enum core_op {
	CORE_WRITE,
	CORE_PUNCH,
	CORE_ZERO,
	CORE_COPY,
	CORE_ALLOCATE,
	CORE_FLUSH,
};

struct core_req {
	struct era_req req; /* first: the core's pointer is ours */
	struct era *era;
	enum core_op op;
	const uint8_t *data;
	uint64_t copy_from;
	int park_error; /* what park() says */
	atomic_uint nr_parks;
	atomic_uint nr_applies;

	pthread_mutex_t lock;
	pthread_cond_t over;
	unsigned int nr_done; /* under lock */
	int error;
};

void core_req_init(struct core_req *req, struct era *era, enum core_op op, uint64_t offset, uint64_t len);
void core_req_submit(struct core_req *req);
/* The request's error, when it is over; it must have been over once. */
int core_req_wait(struct core_req *req);
bool core_req_is_over(struct core_req *req);
void core_req_destroy(struct core_req *req);

/* Submit and wait: 0 or -errno. */
int core_write(struct era *era, uint64_t offset, const void *data, uint64_t len);
int core_punch(struct era *era, uint64_t offset, uint64_t len);
int core_fsync(struct era *era);
/* Writes one byte into a block; must succeed. */
void core_touch(struct era *era, uint64_t block, uint8_t value);

/* What `since` says: the reader's answer with the rules that stand above it (0 and the floor mean every block). */
struct core_since {
	bool all;
	struct bm *blocks;
	struct meta_super super;
};

/* -ERANGE when era has not been shown. */
int core_since_try(const char *db, uint64_t era, struct core_since *ret_since);
struct core_since core_since(const char *db, uint64_t era);
bool core_since_has(const struct core_since *since, uint64_t block);
void core_since_free(struct core_since *since);
/* One block of one answer. */
bool core_has(const char *db, uint64_t era, uint64_t block);

/* An image on top of the real one; a hook that is NULL is passed straight through. */
struct core_fault {
	struct img img; /* first */
	struct img *real;
	void *arg;
	ssize_t (*on_pwrite)(struct core_fault *fault, const void *buf, size_t len, uint64_t offset);
	ssize_t (*on_pread)(struct core_fault *fault, void *buf, size_t len, uint64_t offset);
	int (*on_flush)(struct core_fault *fault);
	int (*on_drop_cache)(struct core_fault *fault);
	int (*on_fallocate)(struct core_fault *fault, int mode, uint64_t offset, uint64_t len);
	int (*on_clone)(struct core_fault *fault, int fd);
	int (*on_relock)(struct core_fault *fault); /* comes before the real one; -errno: instead of it */
	atomic_uint nr_pwrites;
	atomic_uint nr_flushes;
	atomic_uint nr_preads;
	atomic_uint nr_drops;
	atomic_uint drops_before_read; /* drop_cache calls before the first pread */
};

/* Opens path; the core closes it with the era. */
struct core_fault *core_fault_new(const char *path);

/* Where a hook waits until the test has seen it there and lets it go. Zeroed, then core_hold_init(). */
struct core_hold {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool reached; /* under lock */
	bool released; /* under lock */
};

void core_hold_init(struct core_hold *hold);
/* The hook: says that it is here, and waits. Passes at once when it was released before. */
void core_hold_here(struct core_hold *hold);
/* The test. */
void core_hold_wait(struct core_hold *hold);
void core_hold_release(struct core_hold *hold);

/* fork; the child dies with this process. */
pid_t core_fork(void);
/* Waits for a child that must leave with 0. */
void core_join(pid_t pid);
/* kill -9 and reap. */
void core_kill(pid_t pid);

/* Whole files. */
void core_copy_file(const char *from, const char *to);
/* The database with its -wal, as it lies there (not -shm). */
void core_copy_db(const char *from, const char *to);
uint64_t core_file_hash(const char *path);
/* 0 when the file is missing. */
uint64_t core_file_size(const char *path);
uint8_t core_image_byte(const char *path, uint64_t offset);
void core_set_mtime(const char *path, int64_t seconds_from_now);
struct timespec core_mtime(const char *path);
void core_put_mtime(const char *path, struct timespec mtime);
void core_empty_dir(const char *path);

/* A mount namespace of our own: what is mounted in it is gone with this process. */
void core_private_mounts(void);
void core_mount_tmpfs(const char *path, const char *options);
/* Writes a file until nothing more fits. */
void core_fill(const char *path);

#endif
