/* SPDX-License-Identifier: MIT */
/*
 * Slots of the session's file: the memory of bitmaps that a kill -9 leaves behind.
 *
 * A page that is touched and is not there would be a SIGBUS where the file system is full. So each chunk is allocated in
 * the file before its memory is given out; where that fails it comes from the heap, and the slot says that it is partial
 * before anybody can set a bit in it.
 */
#include "session_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/vfs.h>

#define CHUNK_BYTES (BM_CHUNK_WORDS * sizeof(uint64_t))

int session_slots_init(struct session *s)
{
	struct statfs fs;

	for (unsigned int i = 0; i < SESSION_SLOTS; i++) {
		s->spare[i].session = s;
		s->spare[i].slot = i;
		pthread_mutex_init(&s->spare[i].lock, NULL);
	}
	s->has_slots = true;
	if (fstatfs(s->fd, &fs) < 0)
		return -errno;
	s->is_in_memory = fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC;
	return 0;
}

static void spare_clear(struct session_spare *spare)
{
	uint64_t nr_chunks = spare->chunks ? bm_nr_chunks(spare->session->page->plane_bits) : 0;

	for (uint64_t i = 0; i < nr_chunks; i++)
		free(spare->chunks[i]);
	free(spare->chunks);
	spare->chunks = NULL;
}

void session_slots_clear(struct session *s)
{
	for (unsigned int i = 0; s->has_slots && i < SESSION_SLOTS; i++) {
		spare_clear(&s->spare[i]);
		pthread_mutex_destroy(&s->spare[i].lock);
	}
}

static void *spare_chunk(struct session_spare *spare, uint64_t chunk)
{
	struct session *s = spare->session;

	/* First: what is set in the heap is not in the file. */
	atomic_store(&s->page->slots[spare->slot].is_partial, 1);
	pthread_mutex_lock(&spare->lock);
	if (!spare->chunks)
		spare->chunks = calloc(bm_nr_chunks(s->page->plane_bits), sizeof(*spare->chunks));
	if (spare->chunks && !spare->chunks[chunk])
		spare->chunks[chunk] = calloc(1, CHUNK_BYTES);
	void *memory = spare->chunks ? spare->chunks[chunk] : NULL;
	pthread_mutex_unlock(&spare->lock);
	return memory;
}

static void *slot_chunk(void *arg, uint64_t chunk)
{
	struct session_spare *spare = arg;
	struct session *s = spare->session;
	off_t at = (off_t)(session_slot_at(s->page->plane_bits, spare->slot) + chunk * CHUNK_BYTES);

	if (!s->is_in_memory || fallocate(s->fd, 0, at, CHUNK_BYTES) < 0)
		return spare_chunk(spare, chunk);
	return (char *)s->page + at;
}

static void slot_empty(struct session *s, unsigned int slot)
{
	off_t at = (off_t)session_slot_at(s->page->plane_bits, slot);

	spare_clear(&s->spare[slot]);
	/* Where that fails, old bits stay under the new name: more is reported, not less. */
	fallocate(
		s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, (off_t)session_slot_bytes(s->page->plane_bits));
}

void session_slot_take(struct session *s, unsigned int slot, uint64_t era, struct bm_store *ret_store)
{
	struct session_slot *header = &s->page->slots[slot];

	slot_empty(s, slot);
	atomic_store(&header->is_partial, s->is_in_memory ? 0 : 1);
	/* Last: whoever comes after a kill -9 finds it empty, or not named. */
	atomic_store(&header->era, era);
	*ret_store = (struct bm_store){ .chunk = slot_chunk, .arg = &s->spare[slot] };
}

void session_slot_release(struct session *s, unsigned int slot)
{
	atomic_store(&s->page->slots[slot].era, 0);
	slot_empty(s, slot);
}

bool session_slot_is_whole(struct session *s, unsigned int slot)
{
	return atomic_load(&s->page->slots[slot].is_partial) == 0;
}
