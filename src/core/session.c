/* SPDX-License-Identifier: MIT */
#include "session.h"

#include "base/cleanup.h"
#include "base/io.h"
#include "base/num.h"
#include "base/run.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SESSION_MAGIC "eraimgfs session 1"
#define SESSION_SUFFIX ".session"
#define SESSION_BYTES 8192
#define SESSION_SHARDS_AT 4096
#define SESSION_BEAT_S 1

struct session_page {
	char magic[24];
	struct session_key key;
	uint64_t pid;
	_Atomic uint64_t given_up;
	_Atomic uint64_t heartbeat_ns;
	_Atomic uint64_t commit_counter;
	_Atomic uint64_t era;
	_Atomic uint64_t failed;
	_Atomic uint64_t start_mtime_ns;
	_Atomic uint64_t seen_mtime_ns;
	_Atomic uint64_t foreign_write;
};
_Static_assert(sizeof(struct session_page) <= SESSION_SHARDS_AT, "one page");
_Static_assert(SESSION_SHARDS_AT + GATE_SHARDS * sizeof(struct gate_shard) == SESSION_BYTES, "and one of counters");

/* An mtime is taken from a clock that ticks every 10 ms at the slowest, ours a moment later. */
#define SESSION_TICK_NS UINT64_C(50000000)

struct session {
	char path[PATH_MAX];
	int fd; /* holds the lock */
	struct session_page *page;
	struct img *image;
	bool beating;
	pthread_t beat;
	pthread_mutex_t lock;
	pthread_cond_t stop; /* under lock */
	bool stopping; /* under lock */
	bool watching; /* under lock: looks at the image's mtime */
};

static uint64_t wall_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int session_path(const char *dir, const uint8_t nonce[16], char ret_path[PATH_MAX])
{
	char hex[33];
	num_hex_format(nonce, 16, hex);
	int n = snprintf(ret_path, PATH_MAX, "%s/%s" SESSION_SUFFIX, dir, hex);
	return n < PATH_MAX ? 0 : -ENAMETOOLONG;
}

struct gate_shard *session_shards(struct session *s)
{
	return (struct gate_shard *)((char *)s->page + SESSION_SHARDS_AT);
}

bool session_explains(uint64_t last_change_ns, uint64_t start_mtime_ns, uint64_t mtime_ns)
{
	return mtime_ns <= start_mtime_ns || mtime_ns <= last_change_ns + SESSION_TICK_NS;
}

static int image_mtime(struct img *image, uint64_t *ret_mtime_ns)
{
	struct stat st;
	int r = img_stat(image, &st);
	*ret_mtime_ns = (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec;
	return r;
}

/* Is the image's mtime one of ours? While somebody is in the gate, or was between two looks, that cannot be told. */
static void session_watch_image(struct session *s)
{
	bool inside, inside_after;
	uint64_t mtime_ns;

	if (s->image->is_device || s->image->has_foreign_clock)
		return;
	uint64_t last = gate_last_change(session_shards(s), &inside);
	if (inside || image_mtime(s->image, &mtime_ns) < 0)
		return;
	uint64_t last_after = gate_last_change(session_shards(s), &inside_after);
	if (inside_after || last_after != last)
		return;
	if (!session_explains(last, atomic_load(&s->page->start_mtime_ns), mtime_ns))
		atomic_store(&s->page->foreign_write, 1);
	/* The last, not the latest: the clock may be set back. */
	atomic_store(&s->page->seen_mtime_ns, mtime_ns);
}

int session_image_is_ours(struct session *s, uint64_t *ret_mtime_ns)
{
	bool inside;

	int r = image_mtime(s->image, ret_mtime_ns);
	if (r < 0)
		return r;
	if (s->image->is_device || s->image->has_foreign_clock)
		return 1;
	uint64_t last = gate_last_change(session_shards(s), &inside);
	return atomic_load(&s->page->foreign_write) == 0 &&
	       session_explains(last, atomic_load(&s->page->start_mtime_ns), *ret_mtime_ns);
}

static void *session_beat(void *arg)
{
	struct session *s = arg;

	pthread_mutex_lock(&s->lock);
	while (!s->stopping) {
		if (s->watching)
			session_watch_image(s);
		atomic_store(&s->page->heartbeat_ns, wall_ns());
		struct timespec until;
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += SESSION_BEAT_S;
		pthread_cond_timedwait(&s->stop, &s->lock, &until);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* As it is now. */
static int session_take_mtime(struct session *s)
{
	uint64_t mtime_ns;

	int r = image_mtime(s->image, &mtime_ns);
	if (r < 0)
		return r;
	atomic_store(&s->page->start_mtime_ns, mtime_ns);
	atomic_store(&s->page->seen_mtime_ns, mtime_ns);
	return 0;
}

static int session_map(struct session *s, const struct session_key *key)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	s->fd = open(s->path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (s->fd < 0)
		return -errno;
	if (fcntl(s->fd, F_OFD_SETLK, &whole) < 0)
		return -errno;
	/* A page that is not there when it is touched would be a SIGBUS: a full file system must say so here. */
	int r = -posix_fallocate(s->fd, 0, SESSION_BYTES);
	if (r < 0)
		return r;
	void *page = mmap(NULL, SESSION_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
	if (page == MAP_FAILED)
		return -errno;
	s->page = page;
	s->page->key = *key;
	s->page->pid = (uint64_t)getpid();
	atomic_store(&s->page->heartbeat_ns, wall_ns());
	r = session_take_mtime(s);
	if (r < 0)
		return r;
	memcpy(s->page->magic, SESSION_MAGIC, sizeof(SESSION_MAGIC));
	return 0;
}

int session_start(const char *dir, const struct session_key *key, struct img *image, struct session **ret_session,
	struct err *err)
{
	struct session *s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(err, -ENOMEM, "out of memory");
	s->fd = -1;
	s->image = image;
	s->watching = true;

	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->stop, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&s->lock, NULL);

	int r = session_path(dir, key->nonce, s->path);
	if (r == 0)
		r = session_map(s, key);
	if (r == 0) {
		r = -pthread_create(&s->beat, NULL, session_beat, s);
		s->beating = r == 0;
	}
	if (r < 0) {
		err_set(err, r, "%s: cannot make the session file: %s", s->path, strerror(-r));
		session_stop(s, false);
		return r;
	}
	*ret_session = s;
	return 0;
}

void session_stop(struct session *s, bool leave)
{
	if (!s)
		return;
	if (s->beating) {
		pthread_mutex_lock(&s->lock);
		s->stopping = true;
		pthread_cond_signal(&s->stop);
		pthread_mutex_unlock(&s->lock);
		pthread_join(s->beat, NULL);
	}
	if (s->page)
		munmap(s->page, SESSION_BYTES);
	if (s->fd >= 0) {
		if (!leave)
			unlink(s->path);
		close(s->fd);
	}
	pthread_cond_destroy(&s->stop);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

void session_set_commit(struct session *s, uint64_t commit_counter, uint64_t era)
{
	atomic_store(&s->page->era, era);
	atomic_store(&s->page->commit_counter, commit_counter);
}

void session_hold(struct session *s)
{
	pthread_mutex_lock(&s->lock);
	s->watching = false;
	pthread_mutex_unlock(&s->lock);
}

void session_go_on(struct session *s, int64_t mtime_ns)
{
	pthread_mutex_lock(&s->lock);
	atomic_store(&s->page->start_mtime_ns, (uint64_t)mtime_ns);
	atomic_store(&s->page->seen_mtime_ns, (uint64_t)mtime_ns);
	s->watching = true;
	pthread_mutex_unlock(&s->lock);
}

int session_set_mtime(struct session *s, struct timespec mtime)
{
	pthread_mutex_lock(&s->lock);
	/* First: whoever comes after a kill -9 in between finds an mtime that is not older than the last one seen. */
	atomic_store(&s->page->seen_mtime_ns, (uint64_t)mtime.tv_sec * 1000000000u + (uint64_t)mtime.tv_nsec);
	int r = img_set_mtime(s->image, mtime);
	pthread_mutex_unlock(&s->lock);
	return r;
}

void session_renew(struct session *s, const uint8_t nonce[16])
{
	memcpy(s->page->key.nonce, nonce, sizeof(s->page->key.nonce));
}

void session_give_up(struct session *s)
{
	atomic_store(&s->page->given_up, 1);
}

void session_set_failed(struct session *s)
{
	atomic_store(&s->page->failed, 1);
}

struct session_file {
	struct session_page page;
	struct gate_shard shards[GATE_SHARDS];
};

struct session_search {
	const struct session_key *key;
	uid_t owner;
	bool image_is_device;
	struct session_trace *trace; /* NULL: remove what is found */
};

/* Reads one session file. True when it is one, of this boot and of a user who may have written one. */
static bool session_read(int fd, const struct session_search *search, struct session_file *ret_file)
{
	struct session_page *page = &ret_file->page;
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
		(st.st_uid != 0 && st.st_uid != geteuid() && st.st_uid != search->owner))
		return false;
	if (io_pread_full(fd, page, sizeof(*page), 0) != (ssize_t)sizeof(*page) ||
		io_pread_full(fd, ret_file->shards, sizeof(ret_file->shards), SESSION_SHARDS_AT) !=
			(ssize_t)sizeof(ret_file->shards) ||
		memcmp(page->magic, SESSION_MAGIC, sizeof(SESSION_MAGIC)) != 0)
		return false;
	return memcmp(page->key.boot_id, search->key->boot_id, sizeof(page->key.boot_id)) == 0;
}

static bool session_has_uuid(const struct session_page *page, const struct session_key *key)
{
	return memcmp(page->key.uuid, key->uuid, sizeof(key->uuid)) == 0;
}

/* The very session that had the database last; of a copy of the database too. */
static bool session_is_last(const struct session_page *page, const struct session_key *key)
{
	return session_has_uuid(page, key) && memcmp(page->key.nonce, key->nonce, sizeof(key->nonce)) == 0;
}

static bool session_has_database(const struct session_page *page, const struct session_key *key)
{
	return session_has_uuid(page, key) && page->key.database_dev == key->database_dev &&
	       page->key.database_ino == key->database_ino;
}

static bool session_has_image(const struct session_page *page, const struct session_key *key)
{
	return page->key.image_dev == key->image_dev && page->key.image_ino == key->image_ino;
}

/* Of a session that lives although both locks are in the searcher's hands. */
static void session_take_living(
	const struct session_page *page, const struct session_search *search, struct session_trace *trace)
{
	bool has_database = session_has_database(page, search->key);

	trace->kin_seen |= session_has_uuid(page, search->key);
	if (page->given_up || (!has_database && !session_has_image(page, search->key)))
		return;
	/* A copy of the database counts as the owner's where the image's mtime will tell a thaw that it was used. */
	if (session_is_last(page, search->key) && (has_database || !search->image_is_device))
		trace->owner_pid = page->pid;
	else if (!has_database)
		trace->stranger_pid = page->pid;
}

static void session_take(const struct session_file *file, const struct session_key *key, struct session_trace *trace)
{
	const struct session_page *page = &file->page;

	if (session_is_last(page, key)) {
		trace->found = true;
		trace->heartbeat_ns = page->heartbeat_ns;
		trace->changed_ns = gate_last_change(file->shards, &trace->was_writing);
		trace->start_mtime_ns = page->start_mtime_ns;
		trace->seen_mtime_ns = page->seen_mtime_ns;
	}
	/* Of any session: one that died in its recovery never got its nonce into the database. */
	trace->failed |= page->failed != 0;
	trace->foreign_write |= page->foreign_write != 0;
	if (page->commit_counter > trace->commit_counter)
		trace->commit_counter = page->commit_counter;
	if (page->era > trace->era)
		trace->era = page->era;
}

static void session_look(int folder, const char *name, const struct session_search *search)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	struct session_file file;
	CLEANUP_CLOSE int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0 || !session_read(fd, search, &file))
		return;
	bool lives = fcntl(fd, F_OFD_GETLK, &whole) < 0 || whole.l_type != F_UNLCK;
	if (search->trace && lives)
		session_take_living(&file.page, search, search->trace);
	if (!session_has_database(&file.page, search->key))
		return;
	if (search->trace)
		session_take(&file, search->key, search->trace);
	else if (!lives)
		unlinkat(folder, name, 0);
}

static int session_look_in(const char *path, void *arg)
{
	const struct dirent *entry;

	DIR *dir = opendir(path);
	if (!dir)
		return errno == ENOMEM || errno == EMFILE || errno == ENFILE ? -errno : 0;
	while ((entry = readdir(dir))) {
		size_t len = strlen(entry->d_name);
		if (len > sizeof(SESSION_SUFFIX) &&
			strcmp(entry->d_name + len + 1 - sizeof(SESSION_SUFFIX), SESSION_SUFFIX) == 0)
			session_look(dirfd(dir), entry->d_name, arg);
	}
	closedir(dir);
	return 0;
}

int session_find(const char *own_dir, const struct session_key *key, uid_t owner, bool image_is_device,
	struct session_trace *ret_trace)
{
	struct session_search search = {
		.key = key, .owner = owner, .image_is_device = image_is_device, .trace = ret_trace
	};

	memset(ret_trace, 0, sizeof(*ret_trace));
	int r = session_look_in(own_dir, &search);
	return r < 0 ? r : run_each_dir(session_look_in, &search);
}

void session_forget(const char *own_dir, const struct session_key *key, uid_t owner)
{
	struct session_search search = { .key = key, .owner = owner };
	session_look_in(own_dir, &search);
	run_each_dir(session_look_in, &search);
}
