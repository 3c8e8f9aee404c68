/* SPDX-License-Identifier: MIT */
/*
 * flush - fsync of the image, and nobody who gets 0 from it by luck.
 *
 * The kernel reports a write-back error to one fsync of a descriptor. Were two to run at the same time, one would get the
 * error and the other a 0 over the same lost data. So there is one at a time: the first to ask runs it for all who have
 * asked by then, those who ask meanwhile share the next, and all of them see `failed`, which is set before it is over.
 */
#include "core_private.h"

#include "base/plant.h"

#include <errno.h>
#include <string.h>

int era_flush_image(struct era *era)
{
	enum era_state state = state_now(era);
	int r = 0;

	/* The freeze has flushed all that was written, and the image may be another's now. */
	if (state == ERA_FROZEN || state == ERA_THAWING)
		return 0;
	pthread_mutex_lock(&era->flush_lock);
	uint64_t mine = ++era->flushes_asked;
	while (era->flushes_done < mine) {
		if (era->flush_runs) {
			pthread_cond_wait(&era->flush_over, &era->flush_lock);
			continue;
		}
		uint64_t covered = era->flushes_asked;
		era->flush_runs = true;
		pthread_mutex_unlock(&era->flush_lock);
		if (!era_is_dead(era))
			r = img_flush(era->image);
		if (r < 0 && !PLANTED(RETRY_FSYNC))
			era_fail(era, "fsync of the image failed (%s)", strerror(-r));
		pthread_mutex_lock(&era->flush_lock);
		era->flush_runs = false;
		era->flushes_done = covered;
		pthread_cond_broadcast(&era->flush_over);
	}
	pthread_mutex_unlock(&era->flush_lock);
	return r < 0 || era_is_dead(era) ? -EIO : 0;
}
