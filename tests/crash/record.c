/* SPDX-License-Identifier: MIT */
#include "record.h"

#include "disk.h"

#include "base/num.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BOOT_ID_PATH "/proc/sys/kernel/random/boot_id"

/* Of the process: the calls below have no argument that could lead to it. */
static struct {
	struct record *record;
	void (*on_sync)(const char *name, void *arg);
	void *arg;
	char boot_id_path[300];
	int64_t booted_ns; /* CLOCK_REALTIME; 0: as the real machine */
} wire;

static void die(const char *what)
{
	fprintf(stderr, "recording: %s: %s\n", what, strerror(errno));
	abort();
}

struct record *record_new(struct log *log)
{
	struct record *record = mmap(NULL, sizeof(*record), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (record == MAP_FAILED)
		die("no memory");
	record->log = log;
	record_recover(record);
	return record;
}

void record_free(struct record *record)
{
	munmap(record, sizeof(*record));
}

void record_recover(struct record *record)
{
	pthread_mutexattr_t attr;
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutex_init(&record->lock, &attr);
	pthread_mutexattr_destroy(&attr);
	record->kill_at = 0;
	record->failing[0] = '\0';
}

static bool is_recorded_name(const char *name)
{
	size_t len = strlen(name);
	return name[0] != '.' && len <= LOG_NAME_MAX && (len < 4 || strcmp(name + len - 4, "-shm") != 0);
}

/* fstat(), which takes the lock below. */
static int look(int fd, struct stat *ret_stat)
{
	return fstatat(fd, "", ret_stat, AT_EMPTY_PATH);
}

static int64_t mtime_of(const struct stat *st)
{
	return (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

static uint8_t add_file(struct record *record, const char *name, ino_t ino)
{
	if (record->nr_files == LOG_FILES_MAX)
		die("too many files");
	struct record_file *file = &record->files[record->nr_files];
	file->ino = ino;
	snprintf(file->name, sizeof(file->name), "%.*s", LOG_NAME_MAX, name);
	return (uint8_t)record->nr_files++;
}

/* A file of the folder, whole, as the disk's. */
static void add_base_file(struct record *record, const char *name)
{
	char path[600];
	struct stat st;
	snprintf(path, sizeof(path), "%s/%s", record->dir, name);
	int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || look(fd, &st) < 0)
		die(path);
	uint8_t *content = malloc((size_t)st.st_size + 1);
	if (!content || pread(fd, content, (size_t)st.st_size, 0) != st.st_size)
		die(path);
	close(fd);
	struct log_entry entry = { .kind = LOG_BASE_FILE, .len = (uint64_t)st.st_size, .mtime_ns = mtime_of(&st) };
	entry.file = add_file(record, name, st.st_ino);
	snprintf(entry.text, sizeof(entry.text), "%.*s", LOG_NAME_MAX, name);
	log_add(record->log, &entry, content);
	free(content);
}

void record_start(struct record *record, const char *dir)
{
	struct stat st;
	if (stat(dir, &st) < 0)
		die(dir);
	snprintf(record->dir, sizeof(record->dir), "%s", dir);
	record->dev = st.st_dev;
	record->dir_ino = st.st_ino;
	for (unsigned int i = 0; i < record->nr_files; i++)
		record->files[i].ino = 0;
	log_add(record->log, &(struct log_entry){ .kind = LOG_BASE }, NULL);
	DIR *folder = opendir(dir);
	if (!folder)
		die(dir);
	for (const struct dirent *entry; (entry = readdir(folder));)
		if (is_recorded_name(entry->d_name) && entry->d_type == DT_REG)
			add_base_file(record, entry->d_name);
	closedir(folder);
	wire.record = record;
	record->on = true;
}

void record_stop(void)
{
	if (wire.record)
		wire.record->on = false;
	wire.record = NULL;
}

void record_on_sync(void (*hook)(const char *name, void *arg), void *arg)
{
	wire.arg = arg;
	wire.on_sync = hook;
}

/* --- under the lock --- */

static struct record *enter(void)
{
	struct record *record = wire.record;
	if (!record || !record->on)
		return NULL;
	pthread_mutex_lock(&record->lock);
	return record;
}

static uint32_t append(struct record *record, const struct log_entry *entry, const void *data)
{
	uint32_t index = log_add(record->log, entry, data);
	/* Here, where no other thread is half way through a call. */
	if (record->kill_at && record->log->nr >= record->kill_at)
		kill(getpid(), SIGKILL);
	return index;
}

static void leave(struct record *record)
{
	if (record) {
		int saved = errno;
		pthread_mutex_unlock(&record->lock);
		errno = saved;
	}
}

/* The file that fd is; -1: none of ours. */
static int file_of(struct record *record, int fd, struct stat *ret_stat)
{
	int saved = errno;
	int found = -1;
	if (record && look(fd, ret_stat) == 0 && ret_stat->st_dev == record->dev) {
		if (ret_stat->st_ino == record->dir_ino)
			found = LOG_DIR;
		for (unsigned int i = 0; found < 0 && i < record->nr_files; i++)
			if (record->files[i].ino == ret_stat->st_ino)
				found = (int)i;
	}
	errno = saved;
	return found;
}

/* The name in our folder that path is; NULL: it is another's. */
static const char *name_of(struct record *record, const char *path)
{
	size_t len = strlen(record->dir);
	if (strncmp(path, record->dir, len) != 0 || path[len] != '/' || strchr(path + len + 1, '/') != NULL)
		return NULL;
	return is_recorded_name(path + len + 1) ? path + len + 1 : NULL;
}

static int file_by_name(struct record *record, const char *name)
{
	for (unsigned int i = record->nr_files; i-- > 0;)
		if (record->files[i].ino != 0 && strcmp(record->files[i].name, name) == 0)
			return (int)i;
	return -1;
}

static void note_file_change(struct record *record, int fd, struct log_entry entry, const void *data)
{
	struct stat st;
	int file = file_of(record, fd, &st);
	if (file < 0)
		return;
	entry.file = (uint8_t)file;
	entry.mtime_ns = mtime_of(&st);
	append(record, &entry, data);
}

static void note_created(struct record *record, int fd, const char *path)
{
	struct stat st;
	const char *name = name_of(record, path);
	int known = fd >= 0 && name ? file_of(record, fd, &st) : LOG_DIR;
	if (known == LOG_DIR || (known >= 0 && record->files[known].name[0] != '\0'))
		return;
	if (known >= 0) /* the inode of one that was removed, given out again */
		record->files[known].ino = 0;
	struct log_entry entry = { .kind = LOG_CREATE, .mtime_ns = mtime_of(&st) };
	entry.file = add_file(record, name, st.st_ino);
	snprintf(entry.text, sizeof(entry.text), "%s", name);
	append(record, &entry, NULL);
}

static void note_unlinked(struct record *record, const char *path)
{
	const char *name = name_of(record, path);
	int file = name ? file_by_name(record, name) : -1;
	if (file < 0)
		return;
	record->files[file].name[0] = '\0'; /* who has it open may go on with it */
	struct log_entry entry = { .kind = LOG_UNLINK };
	snprintf(entry.text, sizeof(entry.text), "%s", name);
	append(record, &entry, NULL);
}

static void note_renamed(struct record *record, const char *from, const char *to)
{
	const char *old = name_of(record, from), *new = name_of(record, to);
	if (!old && !new)
		return;
	int file = old ? file_by_name(record, old) : -1, replaced = new ? file_by_name(record, new) : -1;
	if (file < 0 || !new)
		die("a rename into the folder or out of it");
	if (replaced >= 0)
		record->files[replaced].name[0] = '\0';
	struct log_entry entry = { .kind = LOG_RENAME, .len = strlen(new) + 1 };
	snprintf(entry.text, sizeof(entry.text), "%s", old);
	snprintf(record->files[file].name, sizeof(record->files[file].name), "%s", new);
	append(record, &entry, new);
}

uint32_t record_mark(enum log_kind kind, uint32_t ref, uint64_t value, const char *text)
{
	struct record *record = enter();
	if (!record)
		return 0;
	struct log_entry entry = { .kind = (uint8_t)kind, .ref = ref, .value = value };
	snprintf(entry.text, sizeof(entry.text), "%s", text ? text : "");
	uint32_t index = append(record, &entry, NULL);
	if (kind == LOG_ASK)
		record->last_ask = index;
	leave(record);
	return index;
}

uint32_t record_request(uint64_t offset, uint64_t len)
{
	struct record *record = enter();
	if (!record)
		return 0;
	uint32_t index = append(record, &(struct log_entry){ .kind = LOG_REQUEST, .offset = offset, .len = len }, NULL);
	leave(record);
	return index;
}

void machine_boot(const char *dir)
{
	uint8_t id[16];
	char text[NUM_UUID_TEXT];
	struct timespec now;

	num_uuid_new(id);
	num_uuid_format(id, text);
	snprintf(wire.boot_id_path, sizeof(wire.boot_id_path), "%s/boot_id", dir);
	FILE *file = fopen(wire.boot_id_path, "w");
	if (!file || fprintf(file, "%s\n", text) < 0 || fclose(file) != 0)
		die(wire.boot_id_path);
	syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
	wire.booted_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void record_truncate(const char *path, uint64_t size)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
		die(path);
	close(fd);
}

/* --- the calls of libc, under the names that a program which is built for large files uses. Each acts by syscall(2). --- */

#define WIRE(result, symbol, ...)                                                                                      \
	result wire_##symbol(__VA_ARGS__) __asm__(#symbol) __attribute__((visibility("default"), used));               \
	result wire_##symbol(__VA_ARGS__)

static int really_open(int folder, const char *path, int flags, mode_t mode)
{
	struct record *record = NULL;
	if (folder == AT_FDCWD && wire.boot_id_path[0] != '\0' && strcmp(path, BOOT_ID_PATH) == 0)
		path = wire.boot_id_path;
	if (folder == AT_FDCWD && (flags & (O_CREAT | O_TRUNC)) != 0)
		record = enter();
	int fd = (int)syscall(SYS_openat, folder, path, flags | O_LARGEFILE, mode);
	if (record) {
		note_created(record, fd, path);
		struct log_entry cut = { .kind = LOG_TRUNCATE, .offset = 0 };
		if (fd >= 0 && (flags & O_TRUNC) != 0)
			note_file_change(record, fd, cut, NULL);
	}
	leave(record);
	return fd;
}

static mode_t mode_of(int flags, va_list args)
{
	return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(args, mode_t) : 0;
}

WIRE(int, open64, const char *path, int flags, ...)
{
	va_list args;
	va_start(args, flags);
	mode_t mode = mode_of(flags, args);
	va_end(args);
	return really_open(AT_FDCWD, path, flags, mode);
}

WIRE(int, openat64, int folder, const char *path, int flags, ...)
{
	va_list args;
	va_start(args, flags);
	mode_t mode = mode_of(flags, args);
	va_end(args);
	return really_open(folder, path, flags, mode);
}

WIRE(int, mkostemp64, char *template, int flags)
{
	int (*real)(char *, int) = (int (*)(char *, int))dlsym(RTLD_NEXT, "mkostemp64");
	struct record *record = enter();
	int fd = real(template, flags);
	if (record)
		note_created(record, fd, template);
	leave(record);
	return fd;
}

WIRE(ssize_t, pwrite64, int fd, const void *buf, size_t len, off_t offset)
{
	struct record *record = enter();
	ssize_t n = syscall(SYS_pwrite64, fd, buf, len, offset);
	if (record && n > 0)
		note_file_change(record, fd,
			(struct log_entry){ .kind = LOG_WRITE, .offset = (uint64_t)offset, .len = (uint64_t)n }, buf);
	leave(record);
	return n;
}

WIRE(ssize_t, write, int fd, const void *buf, size_t len)
{
	struct record *record = enter();
	struct stat st;
	int file = file_of(record, fd, &st);
	off_t at = file >= 0 ? (off_t)syscall(SYS_lseek, fd, 0, SEEK_CUR) : 0;
	ssize_t n = syscall(SYS_write, fd, buf, len);
	if (file >= 0 && n > 0)
		note_file_change(record, fd,
			(struct log_entry){ .kind = LOG_WRITE, .offset = (uint64_t)at, .len = (uint64_t)n }, buf);
	leave(record);
	return n;
}

WIRE(ssize_t, copy_file_range, int in, off_t *in_at, int out, off_t *out_at, size_t len, unsigned int flags)
{
	struct record *record = enter();
	off_t at = out_at ? *out_at : 0;
	ssize_t n = syscall(SYS_copy_file_range, in, in_at, out, out_at, len, flags);
	if (record && n > 0) {
		void *copied = malloc((size_t)n);
		if (!copied || pread(out, copied, (size_t)n, at) != n)
			die("copy_file_range");
		note_file_change(record, out,
			(struct log_entry){ .kind = LOG_WRITE, .offset = (uint64_t)at, .len = (uint64_t)n }, copied);
		free(copied);
	}
	leave(record);
	return n;
}

WIRE(int, ftruncate64, int fd, off_t size)
{
	struct record *record = enter();
	int r = (int)syscall(SYS_ftruncate, fd, size);
	if (record && r == 0)
		note_file_change(
			record, fd, (struct log_entry){ .kind = LOG_TRUNCATE, .offset = (uint64_t)size }, NULL);
	leave(record);
	return r;
}

WIRE(int, fallocate64, int fd, int mode, off_t offset, off_t len)
{
	struct record *record = enter();
	int r = (int)syscall(SYS_fallocate, fd, mode, offset, len);
	if (record && r == 0 && (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0)
		note_file_change(record, fd,
			(struct log_entry){ .kind = LOG_ZERO, .offset = (uint64_t)offset, .len = (uint64_t)len }, NULL);
	leave(record);
	return r;
}

/* A cache that is dropped is no change: who looks meanwhile waits for the lock (fstat64() below). */
static void show_content(int fd, const uint8_t *content, size_t size, const struct stat *st)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, st->st_mtim };
	if (size != (size_t)st->st_size || syscall(SYS_pwrite64, fd, content, size, 0) != (ssize_t)size ||
		futimens(fd, times) < 0)
		die("the cache cannot be dropped");
}

WIRE(int, fstat64, int fd, struct stat *ret_stat)
{
	struct record *record = enter();
	int r = look(fd, ret_stat);
	leave(record);
	return r;
}

/* The file's content as the disk has it is shown again, where an fsync of it has failed. */
WIRE(int, posix_fadvise64, int fd, off_t offset, off_t len, int advice)
{
	struct record *record = advice == POSIX_FADV_DONTNEED ? enter() : NULL;
	struct stat st;
	int file = file_of(record, fd, &st);
	if (file >= 0) {
		append(record, &(struct log_entry){ .kind = LOG_DROP_CACHE, .file = (uint8_t)file }, NULL);
		struct disk *disk = disk_new(record->log);
		disk_advance(disk, record->log->nr);
		size_t size;
		uint8_t *content = disk_content(disk, (uint8_t)file, &size);
		show_content(fd, content, size, &st);
		free(content);
		disk_free(disk);
	}
	leave(record);
	return syscall(SYS_fadvise64, fd, offset, len, advice) < 0 ? errno : 0;
}

static int sync_file(int fd, long call)
{
	struct stat st;
	char name[LOG_NAME_MAX + 1] = ".";
	struct record *record = enter();
	int file = file_of(record, fd, &st);
	if (file < 0) {
		leave(record);
		return (int)syscall(call, fd);
	}
	if (file != LOG_DIR)
		memcpy(name, record->files[file].name, sizeof(name));
	struct log_entry begin = { .kind = LOG_SYNC_BEGIN, .file = (uint8_t)file, .mtime_ns = mtime_of(&st) };
	uint32_t index = append(record, &begin, NULL);
	bool fails = strcmp(name, record->failing) == 0;
	if (fails)
		record->failing[0] = '\0';
	leave(record);

	if (wire.on_sync)
		wire.on_sync(name, wire.arg);

	record = enter();
	if (record)
		append(record,
			&(struct log_entry){
				.kind = fails ? LOG_SYNC_FAILED : LOG_SYNC_END, .file = (uint8_t)file, .ref = index },
			NULL);
	leave(record);
	errno = EIO;
	return fails ? -1 : 0;
}

WIRE(int, fsync, int fd)
{
	return sync_file(fd, SYS_fsync);
}

WIRE(int, fdatasync, int fd)
{
	return sync_file(fd, SYS_fdatasync);
}

WIRE(int, unlink, const char *path)
{
	struct record *record = enter();
	int r = (int)syscall(SYS_unlink, path);
	if (record && r == 0)
		note_unlinked(record, path);
	leave(record);
	return r;
}

WIRE(int, rename, const char *from, const char *to)
{
	struct record *record = enter();
	int r = (int)syscall(SYS_rename, from, to);
	if (record && r == 0)
		note_renamed(record, from, to);
	leave(record);
	return r;
}

WIRE(int, renameat2, int from_folder, const char *from, int to_folder, const char *to, unsigned int flags)
{
	struct record *record = enter();
	int r = (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
	if (record && r == 0)
		note_renamed(record, from, to);
	leave(record);
	return r;
}

WIRE(int, link, const char *from, const char *to)
{
	struct record *record = enter();
	if (record && (name_of(record, from) || name_of(record, to)))
		die("link() is not recorded: write that first");
	leave(record);
	return (int)syscall(SYS_link, from, to);
}

/* The machine started when machine_boot() said. */
WIRE(int, clock_gettime, clockid_t clock, struct timespec *ret_now)
{
	int r = (int)syscall(SYS_clock_gettime, clock, ret_now);
	if (r < 0 || clock != CLOCK_BOOTTIME || wire.booted_ns == 0)
		return r;
	syscall(SYS_clock_gettime, CLOCK_REALTIME, ret_now);
	int64_t up = (int64_t)ret_now->tv_sec * 1000000000 + ret_now->tv_nsec - wire.booted_ns;
	*ret_now = (struct timespec){ .tv_sec = up / 1000000000, .tv_nsec = up % 1000000000 };
	return 0;
}
