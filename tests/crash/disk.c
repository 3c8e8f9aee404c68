/* SPDX-License-Identifier: MIT */
#include "disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct content {
	uint8_t *bytes;
	size_t size;
	size_t room;
	int64_t mtime_ns;
	bool lies; /* see disk_cache_lies() */
};

struct name {
	char text[LOG_NAME_MAX + 1];
	uint8_t file;
};

struct names {
	unsigned int nr;
	struct name list[LOG_FILES_MAX];
};

struct pending {
	uint32_t index;
	bool is_orphan; /* an fsync of it has failed: none that comes later answers for it */
};

struct disk {
	const struct log *log;
	uint32_t at;
	struct content files[LOG_FILES_MAX]; /* durable */
	struct names names; /* durable */
	struct pending *pending;
	unsigned int nr_pending;
	unsigned int room;
};

/* --- random --- */

uint64_t crash_random(uint64_t *state)
{
	uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

uint64_t crash_below(uint64_t *state, uint64_t below)
{
	return crash_random(state) % below;
}

/* --- contents --- */

static void *need(void *memory)
{
	if (!memory) {
		fprintf(stderr, "out of memory\n");
		exit(EXIT_FAILURE);
	}
	return memory;
}

static void content_resize(struct content *c, size_t size)
{
	if (size > c->room) {
		c->room = size + size / 4 + 4096;
		c->bytes = need(realloc(c->bytes, c->room));
	}
	if (size > c->size)
		memset(c->bytes + c->size, 0, size - c->size);
	c->size = size;
}

static void content_put(struct content *c, size_t at, const uint8_t *bytes, size_t len)
{
	if (at + len > c->size)
		content_resize(c, at + len);
	if (len > 0)
		memcpy(c->bytes + at, bytes, len);
}

static void content_tear(struct content *c, const struct log *log, const struct log_entry *entry, struct fated fated)
{
	size_t unit = fated.fate == FATE_TORN_512 ? 512 : 4096;
	size_t end = entry->offset + entry->len;
	for (size_t at = entry->offset, upto; at < end; at = upto) {
		upto = (at / unit + 1) * unit < end ? (at / unit + 1) * unit : end;
		if (fated.mask >> (at / unit % 64) & 1)
			content_put(c, at, log->data + entry->data + (at - entry->offset), upto - at);
	}
}

static void content_apply(struct content *c, const struct log *log, struct fated fated)
{
	const struct log_entry *entry = &log->entries[fated.index];
	size_t end = entry->offset + entry->len;

	if (fated.fate == FATE_LOST)
		return;
	c->mtime_ns = entry->mtime_ns;
	if (fated.fate == FATE_GROWN) {
		if (entry->kind == LOG_WRITE && end > c->size)
			content_resize(c, end);
		return;
	}
	if (entry->kind == LOG_TRUNCATE)
		content_resize(c, entry->offset);
	else if (entry->kind == LOG_ZERO && entry->offset < c->size)
		memset(c->bytes + entry->offset, 0, (end < c->size ? end : c->size) - entry->offset);
	else if (entry->kind == LOG_WRITE && fated.fate == FATE_KEPT)
		content_put(c, entry->offset, log->data + entry->data, entry->len);
	else if (entry->kind == LOG_WRITE)
		content_tear(c, log, entry, fated);
}

static struct content content_clone(const struct content *from)
{
	struct content c = *from;
	c.room = c.size + 4096;
	c.bytes = need(malloc(c.room));
	if (c.size > 0)
		memcpy(c.bytes, from->bytes, c.size);
	return c;
}

/* --- names --- */

static bool is_name_change(const struct log_entry *entry)
{
	return entry->kind == LOG_CREATE || entry->kind == LOG_UNLINK || entry->kind == LOG_RENAME;
}

static bool is_data_change(const struct log_entry *entry)
{
	return entry->kind == LOG_WRITE || entry->kind == LOG_ZERO || entry->kind == LOG_TRUNCATE;
}

static struct name *names_find(const struct names *names, const char *text)
{
	for (unsigned int i = 0; i < names->nr; i++)
		if (strcmp(names->list[i].text, text) == 0)
			return (struct name *)&names->list[i];
	return NULL;
}

static void names_remove(struct names *names, const char *text)
{
	struct name *name = names_find(names, text);
	if (name)
		*name = names->list[--names->nr];
}

static void names_add(struct names *names, const char *text, uint8_t file)
{
	names_remove(names, text);
	struct name *name = &names->list[names->nr++];
	snprintf(name->text, sizeof(name->text), "%s", text);
	name->file = file;
}

static void names_apply(struct names *names, const struct log *log, const struct log_entry *entry)
{
	if (entry->kind == LOG_CREATE)
		names_add(names, entry->text, entry->file);
	if (entry->kind == LOG_UNLINK)
		names_remove(names, entry->text);
	if (entry->kind == LOG_RENAME) {
		const struct name *from = names_find(names, entry->text);
		if (!from)
			return;
		uint8_t file = from->file;
		names_remove(names, entry->text);
		names_add(names, (const char *)log->data + entry->data, file);
	}
}

static bool touches_name(const struct log *log, const struct log_entry *entry, const char *name)
{
	return strcmp(entry->text, name) == 0 ||
	       (entry->kind == LOG_RENAME && strcmp((const char *)log->data + entry->data, name) == 0);
}

/* --- forward --- */

struct disk *disk_new(const struct log *log)
{
	struct disk *disk = need(calloc(1, sizeof(*disk)));
	disk->log = log;
	return disk;
}

struct disk *disk_clone(const struct disk *disk)
{
	struct disk *clone = need(malloc(sizeof(*clone)));
	*clone = *disk;
	for (unsigned int i = 0; i < LOG_FILES_MAX; i++)
		if (disk->files[i].bytes)
			clone->files[i] = content_clone(&disk->files[i]);
	clone->room = disk->nr_pending + 16;
	clone->pending = need(malloc(clone->room * sizeof(*clone->pending)));
	if (disk->nr_pending > 0)
		memcpy(clone->pending, disk->pending, disk->nr_pending * sizeof(*clone->pending));
	return clone;
}

void disk_free(struct disk *disk)
{
	if (!disk)
		return;
	for (unsigned int i = 0; i < LOG_FILES_MAX; i++)
		free(disk->files[i].bytes);
	free(disk->pending);
	free(disk);
}

static void disk_restart(struct disk *disk)
{
	for (unsigned int i = 0; i < LOG_FILES_MAX; i++) {
		free(disk->files[i].bytes);
		disk->files[i] = (struct content){ 0 };
	}
	disk->names.nr = 0;
	disk->nr_pending = 0;
}

static void disk_take_base(struct disk *disk, const struct log_entry *entry)
{
	content_put(&disk->files[entry->file], 0, disk->log->data + entry->data, entry->len);
	disk->files[entry->file].mtime_ns = entry->mtime_ns;
	names_add(&disk->names, entry->text, entry->file);
}

static void disk_add_pending(struct disk *disk, uint32_t index)
{
	if (disk->nr_pending == disk->room) {
		disk->room = disk->room ? 2 * disk->room : 64;
		disk->pending = need(reallocarray(disk->pending, disk->room, sizeof(*disk->pending)));
	}
	disk->pending[disk->nr_pending++] = (struct pending){ .index = index };
}

static bool is_of(const struct log_entry *entry, uint8_t file)
{
	return file == LOG_DIR ? is_name_change(entry) : is_data_change(entry) && entry->file == file;
}

/* An fsync of file, begun at entry `begin`, is over. */
static void disk_synced(struct disk *disk, uint8_t file, uint32_t begin)
{
	unsigned int nr = 0;
	for (unsigned int i = 0; i < disk->nr_pending; i++) {
		struct pending p = disk->pending[i];
		const struct log_entry *entry = &disk->log->entries[p.index];
		if (p.index > begin || !is_of(entry, file)) {
			disk->pending[nr++] = p;
		} else if (is_name_change(entry)) {
			names_apply(&disk->names, disk->log, entry);
		} else if (p.is_orphan) {
			disk->files[file].lies = true;
		} else {
			content_apply(&disk->files[file], disk->log, (struct fated){ .index = p.index });
			/* Where nothing is left, nothing that was lost is shown. */
			if (disk->files[file].size == 0)
				disk->files[file].lies = false;
		}
	}
	disk->nr_pending = nr;
	/* What the inode says goes with it, also where data was lost. */
	if (file != LOG_DIR)
		disk->files[file].mtime_ns = disk->log->entries[begin].mtime_ns;
}

static void disk_sync_failed(struct disk *disk, uint8_t file, uint32_t begin)
{
	for (unsigned int i = 0; i < disk->nr_pending; i++)
		if (disk->pending[i].index < begin && is_of(&disk->log->entries[disk->pending[i].index], file))
			disk->pending[i].is_orphan = true;
}

static void disk_drop_orphans(struct disk *disk, uint8_t file)
{
	unsigned int nr = 0;
	for (unsigned int i = 0; i < disk->nr_pending; i++) {
		struct pending p = disk->pending[i];
		if (!p.is_orphan || !is_of(&disk->log->entries[p.index], file))
			disk->pending[nr++] = p;
	}
	disk->nr_pending = nr;
	disk->files[file].lies = false;
}

void disk_advance(struct disk *disk, uint32_t to)
{
	for (; disk->at < to; disk->at++) {
		const struct log_entry *entry = &disk->log->entries[disk->at];
		if (entry->kind == LOG_BASE)
			disk_restart(disk);
		else if (entry->kind == LOG_BASE_FILE)
			disk_take_base(disk, entry);
		else if (is_name_change(entry) || is_data_change(entry))
			disk_add_pending(disk, disk->at);
		else if (entry->kind == LOG_SYNC_END)
			disk_synced(disk, entry->file, entry->ref);
		else if (entry->kind == LOG_SYNC_FAILED)
			disk_sync_failed(disk, entry->file, entry->ref);
		else if (entry->kind == LOG_DROP_CACHE)
			disk_drop_orphans(disk, entry->file);
		/* A file that is made begins empty. */
		if (entry->kind == LOG_CREATE)
			disk->files[entry->file].mtime_ns = entry->mtime_ns;
	}
}

uint8_t *disk_content(struct disk *disk, uint8_t file, size_t *ret_size)
{
	struct content c = content_clone(&disk->files[file]);
	for (unsigned int i = 0; i < disk->nr_pending; i++)
		if (is_of(&disk->log->entries[disk->pending[i].index], file))
			content_apply(&c, disk->log, (struct fated){ .index = disk->pending[i].index });
	*ret_size = c.size;
	return c.bytes;
}

bool disk_cache_lies(const struct disk *disk, uint8_t file)
{
	return disk->files[file].lies;
}

bool disk_has_pending_metadata(const struct disk *disk)
{
	const struct name *image = names_find(&disk->names, "image");
	for (unsigned int i = 0; i < disk->nr_pending; i++) {
		const struct log_entry *entry = &disk->log->entries[disk->pending[i].index];
		if (is_data_change(entry) && (!image || entry->file != image->file))
			return true;
	}
	return false;
}

/* --- fates --- */

static struct fated choose_one(
	enum fate_style style, unsigned int share, bool file_is_kept, bool is_image, uint64_t *random)
{
	struct fated f = { .fate = FATE_LOST };
	switch (style) {
	case FATES_ALL_LOST:
	case NR_FATE_STYLES:
		break;
	case FATES_ALL_KEPT:
		f.fate = FATE_KEPT;
		break;
	case FATES_BY_FILE:
		f.fate = file_is_kept ? FATE_KEPT : FATE_LOST;
		break;
	case FATES_IMAGE_KEPT:
		f.fate = is_image ? FATE_KEPT : FATE_LOST;
		break;
	case FATES_IMAGE_LOST:
		f.fate = !is_image ? FATE_KEPT : share == 7 ? FATE_GROWN : FATE_LOST;
		break;
	case FATES_TORN:
		if (crash_below(random, 3) == 0) {
			f.fate = crash_below(random, 2) ? FATE_TORN_512 : FATE_TORN_4096;
			f.mask = crash_random(random);
			break;
		}
		/* fall through */
	case FATES_SUBSET:
		f.fate = crash_below(random, 8) < share ? FATE_KEPT
			 : crash_below(random, 8) == 0  ? FATE_GROWN
							: FATE_LOST;
	}
	return f;
}

void fates_choose(struct disk *disk, enum fate_style style, uint64_t *random, struct fates *ret_fates)
{
	static const unsigned int shares[] = { 1, 4, 7 };
	const struct name *image = names_find(&disk->names, "image");
	uint64_t kept_files[LOG_DIR / 64 + 1];
	unsigned int share = shares[crash_below(random, 3)];

	for (size_t i = 0; i < sizeof(kept_files) / sizeof(kept_files[0]); i++)
		kept_files[i] = crash_random(random);
	ret_fates->nr = disk->nr_pending;
	ret_fates->list = need(calloc(disk->nr_pending + 1, sizeof(*ret_fates->list)));
	for (unsigned int i = 0; i < disk->nr_pending; i++) {
		const struct log_entry *entry = &disk->log->entries[disk->pending[i].index];
		uint8_t file = is_name_change(entry) ? LOG_DIR : entry->file;
		bool is_image = image && file == image->file;
		struct fated f = choose_one(style, share, kept_files[file / 64] >> (file % 64) & 1, is_image, random);
		f.index = disk->pending[i].index;
		ret_fates->list[i] = f;
	}
	fates_settle(disk, ret_fates);
}

void fates_copy(const struct fates *from, struct fates *ret_fates)
{
	ret_fates->nr = from->nr;
	ret_fates->list = need(malloc((from->nr + 1) * sizeof(*from->list)));
	memcpy(ret_fates->list, from->list, from->nr * sizeof(*from->list));
}

void fates_clear(struct fates *fates)
{
	free(fates->list);
	*fates = (struct fates){ 0 };
}

/* Is there a lost change before i that change i builds on? */
static bool builds_on_lost(const struct disk *disk, const struct fates *fates, unsigned int i)
{
	const struct log *log = disk->log;
	const struct log_entry *entry = &log->entries[fates->list[i].index];
	for (unsigned int k = 0; k < i; k++) {
		const struct log_entry *earlier = &log->entries[fates->list[k].index];
		if (fates->list[k].fate != FATE_LOST)
			continue;
		if (is_name_change(entry) && is_name_change(earlier) &&
			(touches_name(log, earlier, entry->text) ||
				(entry->kind == LOG_RENAME &&
					touches_name(log, earlier, (const char *)log->data + entry->data))))
			return true;
		if (is_data_change(entry) && earlier->kind == LOG_TRUNCATE && earlier->file == entry->file)
			return true;
	}
	return false;
}

void fates_settle(const struct disk *disk, struct fates *fates)
{
	for (unsigned int i = 0; i < fates->nr; i++) {
		struct fated *f = &fates->list[i];
		const struct log_entry *entry = &disk->log->entries[f->index];
		if (entry->kind != LOG_WRITE && f->fate != FATE_LOST)
			f->fate = f->fate == FATE_GROWN ? FATE_LOST : FATE_KEPT;
		if (builds_on_lost(disk, fates, i))
			f->fate = FATE_LOST;
	}
}

/* --- waking up --- */

void disk_wake(const struct disk *disk, const struct fates *fates, struct woken *ret_woken)
{
	struct names names = disk->names;
	for (unsigned int i = 0; i < fates->nr; i++) {
		const struct log_entry *entry = &disk->log->entries[fates->list[i].index];
		if (is_name_change(entry) && fates->list[i].fate == FATE_KEPT)
			names_apply(&names, disk->log, entry);
	}
	ret_woken->nr = names.nr;
	for (unsigned int n = 0; n < names.nr; n++) {
		struct woken_file *file = &ret_woken->files[n];
		struct content c = content_clone(&disk->files[names.list[n].file]);
		for (unsigned int i = 0; i < fates->nr; i++)
			if (is_of(&disk->log->entries[fates->list[i].index], names.list[n].file))
				content_apply(&c, disk->log, fates->list[i]);
		memcpy(file->name, names.list[n].text, sizeof(file->name));
		file->bytes = c.bytes;
		file->size = c.size;
		file->mtime_ns = c.mtime_ns;
	}
}

void woken_clear(struct woken *woken)
{
	for (unsigned int i = 0; i < woken->nr; i++)
		free(woken->files[i].bytes);
	woken->nr = 0;
}

const struct woken_file *woken_find(const struct woken *woken, const char *name)
{
	for (unsigned int i = 0; i < woken->nr; i++)
		if (strcmp(woken->files[i].name, name) == 0)
			return &woken->files[i];
	return NULL;
}

static void empty_folder(const char *dir)
{
	DIR *folder = opendir(dir);
	if (!folder) {
		perror(dir);
		exit(EXIT_FAILURE);
	}
	for (const struct dirent *entry; (entry = readdir(folder));)
		if (entry->d_type == DT_REG)
			unlinkat(dirfd(folder), entry->d_name, 0);
	closedir(folder);
}

void woken_write(const struct woken *woken, const char *dir)
{
	empty_folder(dir);
	for (unsigned int i = 0; i < woken->nr; i++) {
		const struct woken_file *file = &woken->files[i];
		char path[600];
		struct timespec times[2] = { { .tv_nsec = UTIME_OMIT },
			{ .tv_sec = file->mtime_ns / 1000000000, .tv_nsec = file->mtime_ns % 1000000000 } };
		snprintf(path, sizeof(path), "%s/%s", dir, file->name);
		int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd < 0 || pwrite(fd, file->bytes, file->size, 0) != (ssize_t)file->size ||
			futimens(fd, times) < 0) {
			perror(path);
			exit(EXIT_FAILURE);
		}
		close(fd);
	}
}
