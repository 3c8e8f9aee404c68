/* SPDX-License-Identifier: MIT */
/* What sessions have left, and who of them lives: their files are found by what is in them. */
#include "session_file.h"

#include "base/cleanup.h"
#include "base/io.h"
#include "base/run.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

/* Where no descriptor can be had they count as lost: intents say more then. */
static void session_take_remains(int fd, const struct session_page *page, struct session_remains *remains)
{
	if (remains->plane_bits > 0 || page->plane_bits == 0 || page->plane_bits > BM_MAX_BITS)
		return;
	remains->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (remains->fd < 0)
		return;
	remains->plane_bits = page->plane_bits;
	for (unsigned int i = 0; i < SESSION_SLOTS; i++) {
		remains->era[i] = page->slots[i].era;
		remains->is_partial[i] = page->slots[i].is_partial != 0;
	}
}

void session_trace_clear(struct session_trace *trace)
{
	if (trace->remains.plane_bits > 0)
		close(trace->remains.fd);
	memset(trace, 0, sizeof(*trace));
}

int session_remains_visit(const struct session_remains *remains, unsigned int slot,
	int (*visit)(uint64_t chunk, const uint64_t *words, void *arg), void *arg)
{
	uint64_t words[BM_CHUNK_WORDS];
	off_t begin = (off_t)session_slot_at(remains->plane_bits, slot);
	off_t end = begin + (off_t)(bm_nr_chunks(remains->plane_bits) * sizeof(words));
	int r = 0;

	for (off_t at = begin; r == 0;) {
		at = lseek(remains->fd, at, SEEK_DATA);
		if (at < 0 && errno == ENXIO)
			return 0;
		if (at < 0)
			return -errno;
		if (at >= end)
			return 0;
		at -= (at - begin) % (off_t)sizeof(words);
		ssize_t n = io_pread_full(remains->fd, words, sizeof(words), (uint64_t)at);
		if (n < 0)
			return (int)n;
		/* The file may end within a page. */
		memset((char *)words + n, 0, sizeof(words) - (size_t)n);
		r = visit((uint64_t)(at - begin) / sizeof(words), words, arg);
		at += (off_t)sizeof(words);
	}
	return r;
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
	if (search->trace && !lives && session_is_last(&file.page, search->key))
		session_take_remains(fd, &file.page, &search->trace->remains);
	if (!search->trace && !lives)
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

	session_trace_clear(ret_trace);
	int r = session_look_in(own_dir, &search);
	return r < 0 ? r : run_each_dir(session_look_in, &search);
}

void session_forget(const char *own_dir, const struct session_key *key, uid_t owner)
{
	struct session_search search = { .key = key, .owner = owner };
	session_look_in(own_dir, &search);
	run_each_dir(session_look_in, &search);
}
