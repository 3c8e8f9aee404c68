/* SPDX-License-Identifier: MIT */
/* era - what can be asked of an instance. */
#include "core_private.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

bool core_has_database(const struct era *era)
{
	struct stat st;
	return stat(era->metadata_path, &st) == 0 && st.st_dev == era->database_dev && st.st_ino == era->database_ino;
}

void core_notice(struct era *era, const char *format, ...)
{
	char text[PATH_MAX + 512];
	va_list args;

	if (!era->notice)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	era->notice(text, era->notice_arg);
}

struct img *era_image(struct era *era)
{
	return era->image;
}

void era_get_status(struct era *era, struct era_status *ret_status)
{
	struct era_status *s = ret_status;

	memset(s, 0, sizeof(*s));
	metalock_urgent(era);
	const struct meta_super *super = era->meta ? meta_super(era->meta) : &era->at_rest;
	s->state = state_now(era);
	snprintf(s->failure, sizeof(s->failure), "%s", era->failure);
	memcpy(s->uuid, super->uuid, sizeof(s->uuid));
	s->block_size = super->block_size;
	s->image_size = super->image_size;
	s->nr_blocks = super->nr_blocks;
	s->current_era = super->durable_era;
	s->generation = super->generation;
	s->wal_frames = era->meta ? meta_wal_frames(era->meta) : 0;
	s->frozen_era = era->frozen_era;
	if (era->has_intents && era->plane) {
		uint64_t extent_bytes = super->block_size << era->intents.extent_shift;
		s->intent_bytes = extent_bytes;
		s->intent_max_bytes = era->intents.max == UINT64_MAX ? UINT64_MAX : era->intents.max * extent_bytes;
		s->open_intents = era->plane->nr_armed + era->intents.old_only;
		s->is_exact_after_kill = session_slot_is_whole(era->session, era->plane->slot) &&
					 (!era->old_plane || session_slot_is_whole(era->session, era->old_plane->slot));
	}
	if (era->thaw_at_ms > 0) {
		int64_t left_ms = era->thaw_at_ms - watch_now_ms();
		s->thaw_in_s = left_ms > 0 ? (unsigned int)((left_ms + 999) / 1000) : 1;
	}
	s->auto_thaws = era->auto_thaws;
	snprintf(s->auto_thaw_reason, sizeof(s->auto_thaw_reason), "%s", era->auto_thaw_reason);
	metalock_release(era);

	s->read_only = era->read_only;
	s->image_is_device = era->image->is_device;
	pthread_mutex_lock(&era->park_lock);
	s->parked = era->nr_waiting;
	pthread_mutex_unlock(&era->park_lock);
	s->commits = atomic_load_explicit(&era->nr_commits, memory_order_relaxed);
	s->committed_requests = atomic_load_explicit(&era->nr_committed_requests, memory_order_relaxed);
	s->checkpoints = atomic_load_explicit(&era->nr_checkpoints, memory_order_relaxed);
	s->digest_steps = atomic_load_explicit(&era->nr_digest_steps, memory_order_relaxed);
}
