/* SPDX-License-Identifier: MIT */
#include "session.h"

#include "base/cleanup.h"
#include "base/io.h"
#include "base/num.h"
#include "base/run.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
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
#define SESSION_BYTES 4096
#define SESSION_BEAT_S 1

struct session_page {
	char magic[24];
	struct session_key key;
	_Atomic uint64_t heartbeat_ns;
	_Atomic uint64_t commit_counter;
	_Atomic uint64_t era;
	_Atomic uint64_t failed;
};
_Static_assert(sizeof(struct session_page) <= SESSION_BYTES, "one page");

struct session {
	char path[PATH_MAX];
	int fd; /* holds the lock */
	struct session_page *page;
	bool beating;
	pthread_t beat;
	pthread_mutex_t lock;
	pthread_cond_t stop; /* under lock */
	bool stopping; /* under lock */
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
	int n = snprintf(ret_path, PATH_MAX, "%s/%s.session", dir, hex);
	return n < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static void *session_beat(void *arg)
{
	struct session *s = arg;

	pthread_mutex_lock(&s->lock);
	while (!s->stopping) {
		atomic_store(&s->page->heartbeat_ns, wall_ns());
		struct timespec until;
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += SESSION_BEAT_S;
		pthread_cond_timedwait(&s->stop, &s->lock, &until);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
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
	atomic_store(&s->page->heartbeat_ns, wall_ns());
	memcpy(s->page->magic, SESSION_MAGIC, sizeof(SESSION_MAGIC));
	return 0;
}

int session_start(const char *dir, const struct session_key *key, struct session **ret_session, struct err *err)
{
	struct session *s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(err, -ENOMEM, "out of memory");
	s->fd = -1;

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

void session_set_failed(struct session *s)
{
	atomic_store(&s->page->failed, 1);
}

/* Opens one session file and reads it. 1 when it is of key's boot, UUID and database. */
static int session_read(const char *path, const struct session_key *key, struct session_page *ret_page, int *ret_fd)
{
	struct session_key theirs;

	*ret_fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (*ret_fd < 0 || io_pread_full(*ret_fd, ret_page, sizeof(*ret_page), 0) != (ssize_t)sizeof(*ret_page) ||
		memcmp(ret_page->magic, SESSION_MAGIC, sizeof(SESSION_MAGIC)) != 0)
		return 0;
	theirs = ret_page->key;
	memcpy(theirs.nonce, key->nonce, sizeof(theirs.nonce));
	return memcmp(&theirs, key, sizeof(theirs)) == 0;
}

struct session_search {
	const struct session_key *key;
	struct session_trace *trace; /* NULL: remove what is found */
};

static int session_look(const char *path, const struct session_search *search)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	struct session_trace *trace = search->trace;
	struct session_page page;
	CLEANUP_CLOSE int fd = -1;

	if (!session_read(path, search->key, &page, &fd))
		return 0;
	if (fcntl(fd, F_OFD_GETLK, &whole) < 0 || whole.l_type != F_UNLCK)
		return trace ? -EBUSY : 0;
	if (!trace) {
		unlink(path);
		return 0;
	}
	if (memcmp(page.key.nonce, search->key->nonce, sizeof(page.key.nonce)) == 0) {
		trace->found = true;
		trace->heartbeat_ns = page.heartbeat_ns;
	}
	/* Of any session: one that died in its recovery never got its nonce into the database. */
	if (page.failed)
		trace->failed = true;
	if (page.commit_counter > trace->commit_counter)
		trace->commit_counter = page.commit_counter;
	if (page.era > trace->era)
		trace->era = page.era;
	return 0;
}

static int session_look_in(const char *dir, void *arg)
{
	char pattern[PATH_MAX];
	glob_t names = { 0 };
	int r = 0;

	snprintf(pattern, sizeof(pattern), "%s/*.session", dir);
	if (glob(pattern, GLOB_NOSORT, NULL, &names) == GLOB_NOSPACE)
		r = -ENOMEM;
	for (size_t i = 0; i < names.gl_pathc && r == 0; i++)
		r = session_look(names.gl_pathv[i], arg);
	globfree(&names);
	return r;
}

int session_find(const char *own_dir, const struct session_key *key, struct session_trace *ret_trace)
{
	struct session_search search = { .key = key, .trace = ret_trace };
	memset(ret_trace, 0, sizeof(*ret_trace));
	int r = session_look_in(own_dir, &search);
	return r < 0 ? r : run_each_dir(session_look_in, &search);
}

void session_forget(const char *own_dir, const struct session_key *key)
{
	struct session_search search = { .key = key };
	session_look_in(own_dir, &search);
	run_each_dir(session_look_in, &search);
}
