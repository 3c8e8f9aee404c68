/* SPDX-License-Identifier: MIT */
/*
 * digest - the background thread that folds archived writesets into the era array.
 *
 * One step is one small transaction: some rows of the oldest archived writeset go into the array and out of the writeset,
 * together. A crash between steps loses nothing, one within a step undoes it whole, so steps need no fsync of their own
 * (META_LAZY): the WAL keeps their order before any later commit. After a step with rows left the thread goes on by
 * itself; digest_stop() ends that and joins it, so that nothing of it can come later.
 *
 * Only eras below durable_era are digested: a failed fsync of the image may take back the data of later ones, and recovery
 * needs their writesets whole.
 *
 * The thread also writes the WAL back when it has grown: on the same connection, between steps.
 */
#include "core_private.h"

#include <errno.h>
#include <string.h>
#include <time.h>

/* A step's rows start here and are adapted so that a step stays well below 5 ms. */
#define DIGEST_ROWS_FIRST 8u
#define DIGEST_ROWS_MAX 256u
#define DIGEST_STEP_NS_MAX 4000000
#define DIGEST_STEP_NS_LOW 1500000

/* New WAL frames (4 KiB each) after which the WAL is written back. */
#define DIGEST_WAL_FRAMES 1000u

/* How long to wait before a step that found no space is tried again. */
#define DIGEST_RETRY_S 1

static int64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Counted from where the last write-back ended: a reader's snapshot can keep the WAL from starting over, and then each
 * attempt costs an fsync for nothing. */
bool digest_wal_is_due(struct era *era)
{
	unsigned int frames = era->meta ? meta_wal_frames(era->meta) : 0;
	if (frames < era->wal_written_back)
		era->wal_written_back = 0;
	return frames > era->wal_written_back + DIGEST_WAL_FRAMES;
}

/* One transaction. 1: more is left; 0: all is digested; -errno. Under meta_lock. */
static int digest_step(struct era *era, unsigned int nr_rows)
{
	uint64_t below = meta_super(era->meta)->durable_era;
	bool more = false;

	if (era->digested_below == below)
		return 0;
	int r = meta_begin(era->meta, META_LAZY);
	if (r < 0)
		return r;
	r = meta_digest(era->meta, below, nr_rows, &more);
	if (r < 0) {
		meta_rollback(era->meta);
		return r;
	}
	r = era_commit(era, "a digest step");
	if (r < 0)
		return r;
	if (!more)
		era->digested_below = below;
	atomic_fetch_add_explicit(&era->nr_digest_steps, 1, memory_order_relaxed);
	return more;
}

/* Errors that left nothing behind and may be gone a moment later: no space, no memory, another program's lock. */
static bool may_pass(int error)
{
	return error == -ENOSPC || error == -ENOMEM || error == -EBUSY;
}

/* Under meta_lock. An fsync of the -wal that failed has marked its pages clean: later commits would be durable behind a
 * hole, where no recovery finds them. */
static void write_wal_back(struct era *era)
{
	int r = meta_wal_checkpoint(era->meta, META_WAL_PASSIVE);
	if (r < 0 && !may_pass(r))
		era_fail_locked(era, "write-back of the metadata's WAL failed (%s)", strerror(-r));
	era->wal_written_back = meta_wal_frames(era->meta);
}

/* What was written under intents. 0 or -EAGAIN. */
static int digest_settle(struct era *era)
{
	if (state_now(era) > ERA_FREEZING)
		return 0;
	int r = settle_turn(era);
	if (r == 0 || may_pass(r))
		return r == 0 ? 0 : -EAGAIN;
	era_fail(era, "the marks of what was written cannot be recorded (%s)", strerror(-r));
	return 0;
}

/* One turn with the metadata: 1 to be called again at once, 0 to wait for a kick, -EAGAIN to wait and try again. */
static int digest_turn(struct era *era, unsigned int *nr_rows)
{
	int settled = digest_settle(era);

	metalock_digest(era);
	/* Dead; or in a thaw that is not finished, which a stray kick has come into. */
	if (state_now(era) > ERA_FREEZING) {
		metalock_release(era);
		return 0;
	}
	int64_t begun = now_ns();
	int r = digest_step(era, *nr_rows);
	int64_t took = now_ns() - begun;
	if (took > DIGEST_STEP_NS_MAX && *nr_rows > 1)
		*nr_rows /= 2;
	else if (took < DIGEST_STEP_NS_LOW && *nr_rows < DIGEST_ROWS_MAX)
		*nr_rows *= 2;
	if (r < 0 && !may_pass(r))
		era_fail_locked(era, "digest of the metadata failed (%s)", strerror(-r));
	else if (digest_wal_is_due(era))
		write_wal_back(era);
	metalock_release(era);
	if (r == 0)
		return settled;
	return r > 0 ? r : may_pass(r) ? -EAGAIN : 0;
}

/* When to go on without a kick, ms of CLOCK_MONOTONIC; INT64_MAX: never. */
static int64_t digest_wakes_ms(struct era *era, int r)
{
	int64_t retry_ms = watch_now_ms() + DIGEST_RETRY_S * 1000;
	int64_t settle_ms = settle_due_ms(era);

	return r == 0 || settle_ms < retry_ms ? settle_ms : retry_ms;
}

/* Waits until there is work, or for a while after r == -EAGAIN. False: stop. */
static bool digest_wait(struct era *era, int r)
{
	int64_t until_ms = digest_wakes_ms(era, r);
	struct timespec until = { .tv_sec = until_ms / 1000, .tv_nsec = until_ms % 1000 * 1000000 };

	pthread_mutex_lock(&era->digest_lock);
	if (r <= 0) {
		era->digest_busy = false;
		pthread_cond_broadcast(&era->digest_idle);
	}
	while (!era->digest_stop && !era->digest_kicked && r <= 0) {
		if (until_ms == INT64_MAX)
			pthread_cond_wait(&era->digest_wanted, &era->digest_lock);
		else if (pthread_cond_timedwait(&era->digest_wanted, &era->digest_lock, &until) == ETIMEDOUT)
			break;
	}
	era->digest_kicked = false;
	bool go_on = !era->digest_stop;
	era->digest_busy = go_on;
	if (!go_on)
		pthread_cond_broadcast(&era->digest_idle);
	pthread_mutex_unlock(&era->digest_lock);
	return go_on;
}

static void *digest_thread(void *arg)
{
	struct era *era = arg;
	unsigned int nr_rows = DIGEST_ROWS_FIRST;
	int r = 0;

	while (digest_wait(era, r))
		r = digest_turn(era, &nr_rows);
	return NULL;
}

int digest_start(struct era *era)
{
	/* A kick may come from anybody, also of before a freeze. */
	pthread_mutex_lock(&era->digest_lock);
	era->digest_stop = era->digest_kicked = era->digest_busy = false;
	pthread_mutex_unlock(&era->digest_lock);
	int r = -pthread_create(&era->digester, NULL, digest_thread, era);
	era->digester_runs = r == 0;
	return r;
}

void digest_stop(struct era *era)
{
	if (!era->digester_runs)
		return;
	pthread_mutex_lock(&era->digest_lock);
	era->digest_stop = true;
	pthread_cond_signal(&era->digest_wanted);
	pthread_mutex_unlock(&era->digest_lock);
	pthread_join(era->digester, NULL);
	era->digester_runs = false;
}

void digest_kick(struct era *era)
{
	pthread_mutex_lock(&era->digest_lock);
	era->digest_kicked = true;
	pthread_cond_signal(&era->digest_wanted);
	pthread_mutex_unlock(&era->digest_lock);
}

void digest_work_off(struct era *era, unsigned int limit_s)
{
	struct timespec until;
	int r = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += limit_s;
	pthread_mutex_lock(&era->digest_lock);
	while ((era->digest_kicked || era->digest_busy) && !era->digest_stop && r == 0)
		r = pthread_cond_timedwait(&era->digest_idle, &era->digest_lock, &until);
	pthread_mutex_unlock(&era->digest_lock);
}
