/* SPDX-License-Identifier: MIT */
#include "session_file.h"

#include "base/num.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SESSION_BEAT_S 1

/* An mtime is taken from a clock that ticks every 10 ms at the slowest, ours a moment later. */
#define SESSION_TICK_NS UINT64_C(50000000)

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

static int session_map(struct session *s, const struct session_key *key, uint64_t plane_bits)
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
	/* What lies beyond the file's end is there once a slot asks for it, and is not touched before. */
	s->map_bytes = plane_bits > 0 ? session_slot_at(plane_bits, SESSION_SLOTS) : SESSION_BYTES;
	void *page = mmap(NULL, s->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, s->fd, 0);
	if (page == MAP_FAILED)
		return -errno;
	s->page = page;
	s->page->plane_bits = plane_bits;
	s->page->key = *key;
	s->page->pid = (uint64_t)getpid();
	atomic_store(&s->page->heartbeat_ns, wall_ns());
	r = session_take_mtime(s);
	if (r < 0)
		return r;
	memcpy(s->page->magic, SESSION_MAGIC, sizeof(SESSION_MAGIC));
	return 0;
}

int session_start(const char *dir, const struct session_key *key, struct img *image, uint64_t plane_bits,
	struct session **ret_session, struct err *err)
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
		r = session_map(s, key, plane_bits);
	if (r == 0)
		r = session_slots_init(s);
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
	session_slots_clear(s);
	if (s->page)
		munmap(s->page, s->map_bytes);
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
