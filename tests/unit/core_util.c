/* SPDX-License-Identifier: MIT */
#include "core_util.h"

#include "base/cleanup.h"
#include "base/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/falloc.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CORE_DIR_VAR "ERA_TEST_DIR"

void core_fail(const char *file, int line, const char *format, ...)
{
	char text[1024];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	fprintf(stderr, "%s:%d: %s\n", file, line, text);
	fflush(NULL);
	ck_abort_msg("%s:%d: %s", file, line, text);
	abort();
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static void remove_tree(const char *path)
{
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

static int run_suite(SRunner *runner)
{
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* Until the child is over; what asks us to stop is passed on to it (libcheck then ends its tests). */
static int wait_for_suite(pid_t pid, const sigset_t *signals)
{
	int status;
	while (waitpid(pid, &status, WNOHANG) == 0) {
		int sig;
		if (sigwait(signals, &sig) == 0 && sig != SIGCHLD)
			kill(pid, SIGTERM);
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILURE;
}

int core_main(Suite *suite)
{
	const char *tmp = getenv("TMPDIR");
	char dir[200];
	snprintf(dir, sizeof(dir), "%s/era-test-XXXXXX",
		access("/dev/shm", W_OK) == 0 ? "/dev/shm"
		: tmp                         ? tmp
					      : "/tmp");
	/* The machine's own run folders are none of our business: "all run folders" are this one. */
	if (mkdtemp(dir) == NULL || setenv(CORE_DIR_VAR, dir, 1) != 0 || setenv("ERAIMGFS_RUN_DIR", dir, 1) != 0) {
		perror(dir);
		return EXIT_FAILURE;
	}
	sigset_t signals, before;
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &signals, &before);
	int code = EXIT_FAILURE;
	fflush(NULL);
	SRunner *runner = srunner_create(suite);
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		setpgid(0, 0); /* libcheck passes a SIGTERM on to its process group: not to who started us */
		sigprocmask(SIG_SETMASK, &before, NULL);
		exit(run_suite(runner));
	}
	if (pid > 0)
		code = wait_for_suite(pid, &signals);
	srunner_free(runner);
	remove_tree(dir);
	return code;
}

void core_env_init_at(struct core_env *env, const char *dir, uint64_t image_size)
{
	snprintf(env->dir, sizeof(env->dir), "%s", dir);
	snprintf(env->image, sizeof(env->image), "%s/image", env->dir);
	snprintf(env->db, sizeof(env->db), "%s/image.era", env->dir);
	snprintf(env->run, sizeof(env->run), "%s/run", env->dir);
	expect_eq(mkdir(env->run, 0700), 0);
	CLEANUP_CLOSE int fd = open(env->image, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	expect_ge(fd, 0);
	expect_msg(ftruncate(fd, (off_t)image_size) == 0, "%s of %llu bytes: %s (another file system by TMPDIR may do)",
		env->image, (unsigned long long)image_size, strerror(errno));
}

void core_env_init(struct core_env *env, uint64_t image_size)
{
	char dir[sizeof(env->dir)];
	snprintf(dir, sizeof(dir), "%s/XXXXXX", getenv(CORE_DIR_VAR));
	expect(mkdtemp(dir) != NULL);
	core_env_init_at(env, dir, image_size);
}

/* Bytes of an intent that the run of a test asks for; 0: none. */
static uint64_t wanted_intent(void)
{
	const char *text = getenv(CORE_INTENT_VAR);
	return text != NULL ? strtoull(text, NULL, 10) : 0;
}

struct era_config core_config(const struct core_env *env)
{
	return (struct era_config){
		.image_path = env->image,
		.metadata_path = env->db,
		.run_dir = env->run,
		.create = true,
		.block_size = CORE_BLOCK,
		.nr_completers = 2,
		.intent_bytes = wanted_intent(),
		.intent_max_bytes = UINT64_MAX,
	};
}

struct era *core_open_with(const struct era_config *config)
{
	struct err err = ERR_INIT;
	struct era *era = NULL;
	int error = era_open(config, &era, &err);
	expect_msg(error == 0, "era_open: %d: %s", error, err.text);
	expect(era != NULL);
	return era;
}

struct era *core_open(const struct core_env *env)
{
	struct era_config config = core_config(env);
	return core_open_with(&config);
}

void core_close(struct era *era)
{
	struct err err = ERR_INIT;
	int error = era_close(era, &err);
	expect_msg(error == 0, "era_close: %d: %s", error, err.text);
}

void core_open_refused(const struct era_config *config, int code, struct err *ret_err)
{
	struct err err = ERR_INIT;
	struct era *era = NULL;
	int error = era_open(config, &era, &err);
	expect_msg(error < 0, "opened what must be refused");
	expect_msg(code == 0 || error == code, "refused with %d, not %d: %s", error, code, err.text);
	expect_eq(err.code, error);
	expect_msg(err.text[0] != '\0' && strchr(err.text, '\n') == NULL, "not one line of text: '%s'", err.text);
	if (ret_err != NULL)
		*ret_err = err;
}

uint64_t core_era(struct era *era)
{
	struct era_status status;
	era_get_status(era, &status);
	return status.current_era;
}

uint64_t core_checkpoint(struct era *era)
{
	struct err err = ERR_INIT;
	uint64_t before = core_era(era), now = 0;
	int error = era_checkpoint(era, NULL, &now, &err);
	expect_msg(error == 0, "era_checkpoint: %d: %s", error, err.text);
	expect_gt(now, before);
	expect_ge(core_era(era), now);
	return now;
}

static int apply_zero(struct core_req *req, uint64_t offset, uint64_t len)
{
	struct img *img = era_image(req->era);
	int error = img_fallocate(img, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, len);
	if (error != -EOPNOTSUPP)
		return error;
	static const uint8_t zeros[65536];
	while (len > 0) {
		size_t piece = len < sizeof(zeros) ? (size_t)len : sizeof(zeros);
		ssize_t written = img_pwrite(img, zeros, piece, offset);
		if (written < 0)
			return (int)written;
		offset += (uint64_t)written;
		len -= (uint64_t)written;
	}
	return 0;
}

static int req_apply(struct era_req *base, uint64_t offset, uint64_t len)
{
	struct core_req *req = (struct core_req *)base;
	struct img *img = era_image(req->era);
	uint64_t begin = offset - base->offset;
	ssize_t moved;
	atomic_fetch_add(&req->nr_applies, 1);
	switch (req->op) {
	case CORE_WRITE:
		moved = img_pwrite(img, req->data + begin, len, offset);
		return moved < 0 ? (int)moved : (uint64_t)moved < len ? -EIO : 0;
	case CORE_COPY:
		moved = img_copy(img, req->copy_from + begin, offset, len);
		return moved < 0 ? (int)moved : (uint64_t)moved < len ? -EIO : 0;
	case CORE_PUNCH:
		return img_fallocate(img, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len);
	case CORE_ZERO:
		return apply_zero(req, offset, len);
	case CORE_ALLOCATE:
		return img_fallocate(img, FALLOC_FL_KEEP_SIZE, offset, len);
	case CORE_FLUSH:
		break;
	}
	return -ENOSYS; /* apply of a flush is a bug of the core */
}

static int req_park(struct era_req *base)
{
	struct core_req *req = (struct core_req *)base;
	atomic_fetch_add(&req->nr_parks, 1);
	return req->park_error;
}

static void req_done(struct era_req *base, int error)
{
	struct core_req *req = (struct core_req *)base;
	pthread_mutex_lock(&req->lock);
	req->nr_done++;
	req->error = error;
	pthread_cond_broadcast(&req->over);
	pthread_mutex_unlock(&req->lock);
}

void core_req_init(struct core_req *req, struct era *era, enum core_op op, uint64_t offset, uint64_t len)
{
	static const struct era_req_ops ops = { .apply = req_apply, .park = req_park, .done = req_done };
	memset(req, 0, sizeof(*req));
	req->req.ops = &ops;
	req->req.kind = op == CORE_FLUSH ? ERA_REQ_FLUSH : op == CORE_ALLOCATE ? ERA_REQ_ALLOCATE : ERA_REQ_WRITE;
	req->req.offset = offset;
	req->req.len = len;
	req->era = era;
	req->op = op;
	pthread_mutex_init(&req->lock, NULL);
	pthread_cond_init(&req->over, NULL);
}

void core_req_submit(struct core_req *req)
{
	era_submit(req->era, &req->req);
}

int core_req_wait(struct core_req *req)
{
	pthread_mutex_lock(&req->lock);
	while (req->nr_done == 0)
		pthread_cond_wait(&req->over, &req->lock);
	int error = req->error;
	unsigned int nr_done = req->nr_done;
	pthread_mutex_unlock(&req->lock);
	expect_eq(nr_done, 1);
	expect_le(atomic_load(&req->nr_parks), 1);
	return error;
}

bool core_req_is_over(struct core_req *req)
{
	pthread_mutex_lock(&req->lock);
	bool over = req->nr_done > 0;
	pthread_mutex_unlock(&req->lock);
	return over;
}

void core_req_destroy(struct core_req *req)
{
	pthread_mutex_destroy(&req->lock);
	pthread_cond_destroy(&req->over);
}

/* On the heap, so that a sanitizer sees a core that looks at a request after its end. */
static int run_one(struct era *era, enum core_op op, uint64_t offset, const void *data, uint64_t len)
{
	struct core_req *req = malloc(sizeof(*req));
	core_req_init(req, era, op, offset, len);
	req->data = data;
	core_req_submit(req);
	int error = core_req_wait(req);
	core_req_destroy(req);
	free(req);
	return error;
}

int core_write(struct era *era, uint64_t offset, const void *data, uint64_t len)
{
	return run_one(era, CORE_WRITE, offset, data, len);
}

int core_punch(struct era *era, uint64_t offset, uint64_t len)
{
	return run_one(era, CORE_PUNCH, offset, NULL, len);
}

int core_fsync(struct era *era)
{
	return run_one(era, CORE_FLUSH, 0, NULL, 0);
}

void core_touch(struct era *era, uint64_t block, uint8_t value)
{
	struct era_status status;
	era_get_status(era, &status);
	expect_eq(core_write(era, block * status.block_size, &value, 1), 0);
}

/* Who has which database open in this process: a reader asks its instance first, as era-cli does. */
static struct {
	pthread_mutex_t lock;
	struct {
		struct era *era; /* NULL: free */
		char *db;
	} list[CORE_LIVE_MAX];
} live = { .lock = PTHREAD_MUTEX_INITIALIZER };

int __real_era_open(const struct era_config *config, struct era **ret_era, struct err *err);
int __wrap_era_open(const struct era_config *config, struct era **ret_era, struct err *err);
int __real_era_close(struct era *era, struct err *err);
int __wrap_era_close(struct era *era, struct err *err);

int __wrap_era_open(const struct era_config *config, struct era **ret_era, struct err *err)
{
	int error = __real_era_open(config, ret_era, err);
	if (error < 0)
		return error;
	unsigned int i = 0;
	pthread_mutex_lock(&live.lock);
	while (i < CORE_LIVE_MAX && live.list[i].era != NULL)
		i++;
	expect_lt(i, CORE_LIVE_MAX);
	live.list[i].era = *ret_era;
	live.list[i].db = strdup(config->metadata_path);
	pthread_mutex_unlock(&live.lock);
	return 0;
}

int __wrap_era_close(struct era *era, struct err *err)
{
	pthread_mutex_lock(&live.lock);
	for (unsigned int i = 0; era != NULL && i < CORE_LIVE_MAX; i++) {
		if (live.list[i].era != era)
			continue;
		live.list[i].era = NULL;
		free(live.list[i].db);
	}
	pthread_mutex_unlock(&live.lock);
	return __real_era_close(era, err);
}

static void forget_live(void)
{
	memset(live.list, 0, sizeof(live.list));
	pthread_mutex_init(&live.lock, NULL);
}

/* What may be trusted of the database, see meta_reader_trust(). */
static uint64_t settle_live(const char *db)
{
	uint64_t from = UINT64_MAX;
	pthread_mutex_lock(&live.lock);
	for (unsigned int i = 0; i < CORE_LIVE_MAX; i++) {
		uint64_t its = UINT64_MAX;
		if (live.list[i].era == NULL || strcmp(live.list[i].db, db) != 0)
			continue;
		if (era_settle(live.list[i].era, &its) == 0 && its < from)
			from = its;
	}
	pthread_mutex_unlock(&live.lock);
	return from;
}

int core_since_try(const char *db, uint64_t era, struct core_since *ret_since)
{
	struct err err = ERR_INIT;
	struct meta_reader *reader;
	uint64_t settled_from = settle_live(db);
	int error = meta_reader_open(db, &reader, &err);
	expect_msg(error == 0, "meta_reader_open: %d: %s", error, err.text);
	meta_reader_trust(reader, settled_from);
	*ret_since = (struct core_since){ .super = *meta_reader_super(reader) };
	ret_since->all = era <= ret_since->super.floor_era; /* also era 0 */
	if (era > ret_since->super.durable_era) {
		error = -ERANGE;
	} else if (!ret_since->all) {
		error = meta_reader_since(reader, era, &ret_since->blocks, NULL, &err);
		expect_msg(error == 0, "meta_reader_since: %d: %s", error, err.text);
	}
	meta_reader_close(reader);
	return error;
}

struct core_since core_since(const char *db, uint64_t era)
{
	struct core_since since;
	expect_eq(core_since_try(db, era, &since), 0);
	return since;
}

bool core_since_has(const struct core_since *since, uint64_t block)
{
	expect_lt(block, since->super.nr_blocks);
	return since->all || bm_test_range(since->blocks, block, block + 1);
}

void core_since_free(struct core_since *since)
{
	bm_free(since->blocks);
	since->blocks = NULL;
}

bool core_has(const char *db, uint64_t era, uint64_t block)
{
	struct core_since since = core_since(db, era);
	bool has = core_since_has(&since, block);
	core_since_free(&since);
	return has;
}

pid_t core_fork(void)
{
	fflush(NULL);
	pid_t pid = fork();
	expect_ge(pid, 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		forget_live();
	}
	return pid;
}

void core_join(pid_t pid)
{
	int status;
	expect_eq(waitpid(pid, &status, 0), pid);
	expect_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child ended with status %#x", status);
}

void core_kill(pid_t pid)
{
	int status;
	expect_eq(kill(pid, SIGKILL), 0);
	expect_eq(waitpid(pid, &status, 0), pid);
	expect_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "child ended with status %#x", status);
}

uint64_t core_file_size(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

void core_copy_file(const char *from, const char *to)
{
	CLEANUP_CLOSE int in = open(from, O_RDONLY | O_CLOEXEC);
	CLEANUP_CLOSE int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	expect_msg(in >= 0 && out >= 0, "%s to %s: %s", from, to, strerror(errno));
	static char buf[65536];
	for (uint64_t at = 0;;) {
		ssize_t len = io_pread_full(in, buf, sizeof(buf), at);
		expect_ge(len, 0);
		if (len == 0)
			return;
		expect_eq(io_pwrite_full(out, buf, (size_t)len, at), len);
		at += (uint64_t)len;
	}
}

void core_copy_db(const char *from, const char *to)
{
	char wal_from[300], wal_to[300];
	snprintf(wal_from, sizeof(wal_from), "%s-wal", from);
	snprintf(wal_to, sizeof(wal_to), "%s-wal", to);
	core_copy_file(from, to);
	if (access(wal_from, F_OK) == 0)
		core_copy_file(wal_from, wal_to);
	else
		unlink(wal_to);
}

/* FNV-1a: any difference will do. */
uint64_t core_file_hash(const char *path)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	expect_msg(fd >= 0, "%s: %s", path, strerror(errno));
	uint64_t hash = UINT64_C(14695981039346656037);
	uint8_t buf[4096];
	for (uint64_t at = 0;;) {
		ssize_t len = io_pread_full(fd, buf, sizeof(buf), at);
		expect_ge(len, 0);
		if (len == 0)
			return hash;
		for (ssize_t i = 0; i < len; i++)
			hash = (hash ^ buf[i]) * UINT64_C(1099511628211);
		at += (uint64_t)len;
	}
}

uint8_t core_image_byte(const char *path, uint64_t offset)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t byte;
	expect_eq(io_pread_full(fd, &byte, 1, offset), 1);
	return byte;
}

void core_set_mtime(const char *path, int64_t seconds_from_now)
{
	struct timespec times[2];
	clock_gettime(CLOCK_REALTIME, &times[0]);
	times[0].tv_sec += seconds_from_now;
	times[1] = times[0];
	expect_eq(utimensat(AT_FDCWD, path, times, 0), 0);
}

struct timespec core_mtime(const char *path)
{
	struct stat st;
	expect_eq(stat(path, &st), 0);
	return st.st_mtim;
}

void core_put_mtime(const char *path, struct timespec mtime)
{
	struct timespec times[2] = { mtime, mtime };
	expect_eq(utimensat(AT_FDCWD, path, times, 0), 0);
}

void core_empty_dir(const char *path)
{
	DIR *dir = opendir(path);
	expect(dir != NULL);
	for (const struct dirent *entry; (entry = readdir(dir)) != NULL;)
		if (entry->d_name[0] != '.')
			expect_eq(unlinkat(dirfd(dir), entry->d_name, 0), 0);
	closedir(dir);
}

/* id is root inside; NULL: no groups to set, without which the kernel takes no map of groups. */
static void write_id_map(const char *path, const unsigned int *id)
{
	char text[64] = "deny";
	int len = id != NULL ? snprintf(text, sizeof(text), "0 %u 1", *id) : 4;
	CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
	expect_msg(fd >= 0 && write(fd, text, (size_t)len) == len, "%s: %s", path, strerror(errno));
}

void core_private_mounts(void)
{
	unsigned int uid = geteuid(), gid = getegid();
	expect_msg(unshare(uid == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER) == 0,
		"no mount namespace of our own (run it as root, or allow user namespaces): %s", strerror(errno));
	if (uid != 0) {
		write_id_map("/proc/self/setgroups", NULL);
		write_id_map("/proc/self/uid_map", &uid);
		write_id_map("/proc/self/gid_map", &gid);
	}
	expect_eq(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
}

void core_mount_tmpfs(const char *path, const char *options)
{
	expect_msg(mount("tmpfs", path, "tmpfs", 0, options) == 0, "tmpfs on %s: %s", path, strerror(errno));
}

void core_fill(const char *path)
{
	CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	expect_ge(fd, 0);
	static const char page[4096] = "x";
	while (write(fd, page, sizeof(page)) > 0)
		;
	expect_eq(errno, ENOSPC);
}
