/* SPDX-License-Identifier: MIT */
/* What the tests of era-cli share: the program itself ($ERA_CLI, in commands $E), images with metadata at rest, and
 * instances that the test plays. */
#ifndef CLI_FIXTURE_H
#define CLI_FIXTURE_H

#include "testdir.h"

#include "base/num.h"
#include "base/run.h"
#include "control/ctl.h"
#include "meta/meta.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>

#define UUID_A "0a234567-89ab-cdef-0123-456789abcdef"
#define UUID_B "0b234567-89ab-cdef-0123-456789abcdef"
#define BLOCK 4096
#define NR_BLOCKS 10
#define IMAGE_SIZE (9 * BLOCK + 100)

static char run_dir[PATH_MAX / 2 + 16], files[PATH_MAX / 2 + 16];

/* What the last run of the program left. */
static char out_text[65536], err_text[65536];

static inline void begin(const char *name)
{
	snprintf(run_dir, sizeof(run_dir), "%s/run-%s", testdir, name);
	snprintf(files, sizeof(files), "%s/files-%s", testdir, name);
	ck_assert_int_eq(mkdir(run_dir, 0700), 0);
	ck_assert_int_eq(mkdir(files, 0700), 0);
	ck_assert_int_eq(chdir(files), 0);
	ck_assert_int_eq(setenv("ERAIMGFS_RUN_DIR", run_dir, 1), 0);
	ck_assert_int_eq(unsetenv("ERAIMGFS_TARGET"), 0);
}

static inline void read_back(int fd, char *ret_text, size_t size)
{
	ssize_t n = pread(fd, ret_text, size - 1, 0);
	ck_assert_int_ge(n, 0);
	ret_text[n] = '\0';
	close(fd);
}

/* Runs a shell command in which $E is the program; stdout and stderr are kept. Returns its exit status. */
__attribute__((format(printf, 1, 2))) static inline int sh(const char *format, ...)
{
	char command[4096];
	va_list args;
	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	FILE *out = tmpfile(), *err = tmpfile();
	/* Not fork(): the threads of a played instance may hold the allocator's lock at that instant. */
	char *argv[] = { "sh", "-c", command, NULL };
	posix_spawn_file_actions_t actions;
	pid_t child;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fileno(out), STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&actions, fileno(err), STDERR_FILENO);
	ck_assert_int_eq(posix_spawn(&child, "/bin/sh", &actions, NULL, argv, environ), 0);
	posix_spawn_file_actions_destroy(&actions);
	int status;
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	read_back(dup(fileno(out)), out_text, sizeof(out_text));
	read_back(dup(fileno(err)), err_text, sizeof(err_text));
	fclose(out);
	fclose(err);
	ck_assert_msg(WIFEXITED(status), "%s: died", command);
	return WEXITSTATUS(status);
}

/* Of a failure: nothing on stdout, one line on stderr that has the words. */
static inline void expect_error(int status, int wanted, const char *words)
{
	ck_assert_msg(status == wanted, "exit %d instead of %d: %s%s", status, wanted, out_text, err_text);
	ck_assert_str_eq(out_text, "");
	ck_assert_msg(strncmp(err_text, "era-cli: ", 9) == 0, "%s", err_text);
	ck_assert_msg(strstr(err_text, words) != NULL, "'%s' is not in: %s", words, err_text);
	ck_assert_ptr_eq(strchr(err_text, '\n'), err_text + strlen(err_text) - 1);
}

static inline void expect_output(int status, const char *text)
{
	ck_assert_msg(status == 0, "exit %d: %s", status, err_text);
	ck_assert_str_eq(out_text, text);
	ck_assert_str_eq(err_text, "");
}

static inline void touch(const char *name, const char *text)
{
	FILE *file = fopen(name, "w");
	ck_assert_ptr_nonnull(file);
	fputs(text, file);
	ck_assert_int_eq(fclose(file), 0);
}

static inline void expect_file(const char *name, const char *text)
{
	char content[4096];
	int fd = open(name, O_RDONLY);
	ck_assert_msg(fd >= 0, "%s: %m", name);
	read_back(fd, content, sizeof(content));
	ck_assert_str_eq(content, text);
}

static inline void make_image(const char *name)
{
	touch(name, "");
	ck_assert_int_eq(truncate(name, IMAGE_SIZE), 0);
}

/* Blocks begin..end of era. */
static inline void write_blocks(struct meta *meta, uint64_t era, unsigned int begin_block, unsigned int end_block)
{
	uint64_t words[BM_CHUNK_WORDS] = { 0 };
	for (unsigned int i = begin_block; i < end_block; i++)
		words[0] |= UINT64_C(1) << i;
	ck_assert_int_eq(meta_writeset_or(meta, era, 0, words), 0);
}

/* Metadata of image, open in a transaction: era 5 is current and may be shown, nothing was written. */
static inline struct meta *create(const char *image, const char *uuid, uint64_t image_size, uint64_t nr_blocks)
{
	char database[PATH_MAX];
	struct err err = ERR_INIT;
	struct meta *meta;
	struct meta_super super = { .block_size = BLOCK, .image_size = image_size, .nr_blocks = nr_blocks };
	ck_assert_int_eq(num_uuid_parse(uuid, super.uuid), 0);
	snprintf(database, sizeof(database), "%s.era", image);
	ck_assert_msg(meta_create(database, &super, &err) == 0, "%s", err.text);
	ck_assert_msg(meta_open(database, &meta, &err) == 0, "%s", err.text);
	ck_assert_int_eq(meta_begin(meta, META_FULL), 0);
	struct meta_super *pending = meta_pending(meta);
	pending->current_era = pending->durable_era = 5;
	pending->generation = 1;
	return meta;
}

/*
 * IMAGE and its metadata: era 5 is current and may be shown; blocks 0 and 1 were written in era 2, the last two in era
 * 4, block 5 in era 5. Label "monday" is era 4.
 */
static inline void make_pair(const char *image, const char *uuid, uint64_t floor_era, bool clean)
{
	struct stat st;
	make_image(image);
	ck_assert_int_eq(stat(image, &st), 0);
	struct meta *meta = create(image, uuid, IMAGE_SIZE, NR_BLOCKS);
	struct meta_super *pending = meta_pending(meta);
	pending->floor_era = floor_era;
	pending->state = clean ? META_CLEAN : META_OPEN;
	ck_assert_int_eq(run_boot_id(pending->boot_id), 0);
	if (clean)
		pending->image_mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
	write_blocks(meta, 2, 0, 2);
	write_blocks(meta, 4, 8, 10);
	write_blocks(meta, 5, 5, 6);
	ck_assert_int_eq(meta_label_set(meta, "monday", 4), 0);
	ck_assert_int_eq(meta_label_set(meta, "friday", 1), 0);
	ck_assert_int_eq(meta_commit(meta), 0);
	meta_close(meta);
}

/* --- instances that this test plays --- */

struct played {
	struct ctl_instance instance;
	struct ctl_server *server;
	const char *fails; /* this request does */
	char word; /* of this instance in the log */
	uint64_t era;
	uint64_t frozen_era; /* 0: runs */
	uint64_t timeout_s; /* of the last freeze */
	/* Called with each request before it is answered, without the lock: may wait. */
	void (*hook)(struct played *played, const char *word);
};

/*
 * What all of them were asked, in order, as two letters each: the instance's, and P freeze-prepare, G gate, C
 * checkpoint, L checkpoint with a label, F freeze, T thaw, '.' a gate let go of with its connection, d a descriptor
 * that came with the request which is next. The lock also guards what the test changes of an instance while it is
 * played.
 */
static struct {
	pthread_mutex_t lock;
	char text[256];
	unsigned int statuses;
} asked = { .lock = PTHREAD_MUTEX_INITIALIZER };

static inline void ask_log(const struct played *played, char what)
{
	size_t len = strlen(asked.text);
	snprintf(asked.text + len, sizeof(asked.text) - len, "%c%c ", played->word, what);
}

/* A copy, good until the next call. */
static inline const char *asked_so_far(void)
{
	static char text[sizeof(asked.text)];
	pthread_mutex_lock(&asked.lock);
	strcpy(text, asked.text);
	pthread_mutex_unlock(&asked.lock);
	return text;
}

/* The same, and forgets it. */
static inline const char *asked_since(void)
{
	const char *text = asked_so_far();
	pthread_mutex_lock(&asked.lock);
	asked.text[0] = '\0';
	pthread_mutex_unlock(&asked.lock);
	return text;
}

static inline unsigned int asked_statuses(void)
{
	pthread_mutex_lock(&asked.lock);
	unsigned int statuses = asked.statuses;
	pthread_mutex_unlock(&asked.lock);
	return statuses;
}

static inline void change(struct played *played, uint64_t era, const char *fails, const char *metadata)
{
	pthread_mutex_lock(&asked.lock);
	played->era = era;
	played->fails = fails;
	if (metadata != NULL)
		strcpy(played->instance.metadata, metadata);
	pthread_mutex_unlock(&asked.lock);
}

static inline void set_frozen(struct played *played, uint64_t frozen_era)
{
	pthread_mutex_lock(&asked.lock);
	played->frozen_era = frozen_era;
	pthread_mutex_unlock(&asked.lock);
}

static inline json_t *played_status(struct played *played)
{
	asked.statuses++;
	json_t *status = json_pack("{s:s, s:s, s:I}", "state", played->frozen_era != 0 ? "frozen" : "running", "uuid",
		played->instance.uuid, "current_era", (json_int_t)played->era);
	if (played->frozen_era != 0)
		json_object_set_new(status, "frozen_era", json_integer((json_int_t)played->frozen_era));
	return status;
}

/* Of the requests that end an era, or a freeze. NULL: of the others, or refused, with err. */
static inline json_t *played_switch(
	struct played *played, const char *word, void **state, const json_t *request, int fd, struct err *err)
{
	uint64_t era;
	bool freezes = strcmp(word, "freeze") == 0;
	if (strcmp(word, "thaw") == 0) {
		ask_log(played, 'T');
		if (played->frozen_era == 0 || (ctl_u64(request, "era", &era) == 0 && era != played->frozen_era)) {
			err_set(err, -ENOTSUP, "it is not frozen so");
			return NULL;
		}
		played->frozen_era = 0;
		return json_pack("{s:I}", "era", (json_int_t)played->era);
	}
	if (!freezes && strcmp(word, "checkpoint") != 0)
		return NULL;
	if (fd >= 0) {
		ask_log(played, 'd');
		if (write(fd, "clone", 5) != 5)
			return NULL;
	}
	/* The gate was for this. */
	*state = NULL;
	ask_log(played, freezes ? 'F' : ctl_string(request, "label") != NULL ? 'L' : 'C');
	era = played->era++;
	if (!freezes)
		return json_pack("{s:I}", "era", (json_int_t)played->era);
	played->frozen_era = era;
	ctl_u64(request, "timeout", &played->timeout_s);
	return json_pack("{s:I}", "era", (json_int_t)era);
}

static inline int played_answer(
	struct played *played, void **state, const json_t *request, int fd, json_t **ret_reply, struct err *err)
{
	const char *word = ctl_string(request, "request");
	uint64_t era = played->era;
	if (played->fails != NULL && strcmp(word, played->fails) == 0)
		return err_set_exit(err, ERR_EXIT_REFUSED, -EIO, "it does not want to");
	*ret_reply = played_switch(played, word, state, request, fd, err);
	if (*ret_reply == NULL && err->code != 0)
		return err->code;
	if (strcmp(word, "status") == 0)
		*ret_reply = played_status(played);
	if (strcmp(word, "query") == 0)
		*ret_reply = json_pack("{s:s, s:I, s:s, s:b}", "uuid", played->instance.uuid, "current_era",
			(json_int_t)played->era, "metadata", played->instance.metadata, "read_only", 0);
	if (strcmp(word, "freeze-prepare") == 0) {
		ask_log(played, 'P');
		*ret_reply = json_object();
	}
	if (strcmp(word, "gate") == 0) {
		*state = played;
		ask_log(played, 'G');
		*ret_reply = json_object();
	}
	if (strcmp(word, "label-add") == 0) {
		ctl_u64(request, "era", &era);
		*ret_reply = json_pack("{s:I}", "era", (json_int_t)era);
	}
	if (strcmp(word, "label-remove") == 0)
		*ret_reply = json_object();
	return *ret_reply != NULL ? 0 : err_set(err, -EINVAL, "unknown request");
}

static inline int played_handle(
	void *arg, void **state, const json_t *request, int fd, json_t **ret_reply, struct err *err)
{
	struct played *played = arg;
	if (played->hook != NULL)
		played->hook(played, ctl_string(request, "request"));
	pthread_mutex_lock(&asked.lock);
	int r = played_answer(played, state, request, fd, ret_reply, err);
	pthread_mutex_unlock(&asked.lock);
	return r;
}

static inline void played_closed(void *arg, void *state)
{
	pthread_mutex_lock(&asked.lock);
	if (state != NULL)
		ask_log(state, '.');
	pthread_mutex_unlock(&asked.lock);
}

/* Plays the instance of an image that make_pair() made, at mount point mnt-WORD. */
static inline struct played *play(char word, const char *image, const char *uuid)
{
	struct played *played = calloc(1, sizeof(*played));
	struct ctl_instance *it = &played->instance;
	struct err err = ERR_INIT;
	struct stat st;
	played->word = word;
	played->era = 5;
	memset(it->nonce, word, 32);
	strcpy(it->uuid, uuid);
	it->pid = getpid();
	ck_assert_int_eq(run_process_start(it->pid, &it->pid_start), 0);
	snprintf(it->image, PATH_MAX, "%s/%s", files, image);
	snprintf(it->metadata, PATH_MAX, "%s/%s.era", files, image);
	snprintf(it->mountpoint, PATH_MAX, "%s/mnt-%c", files, word);
	strcpy(it->file, it->image);
	snprintf(it->socket, PATH_MAX, "%s/%s.sock", run_dir, it->nonce);
	it->mount_dev = UINT64_C(0x7ffffffffffff);
	ck_assert_int_eq(stat(it->image, &st), 0);
	it->image_dev = st.st_dev;
	it->image_ino = st.st_ino;
	const struct ctl_handler handler = { .handle = played_handle, .closed = played_closed, .arg = played };
	ck_assert_msg(ctl_server_start(it->socket, &handler, &played->server, &err) == 0, "%s", err.text);
	ck_assert_msg(ctl_registry_write(run_dir, it, &err) == 0, "%s", err.text);
	return played;
}

static inline void stop(struct played *played)
{
	ctl_registry_remove(run_dir, played->instance.nonce);
	ctl_server_stop(played->server);
	free(played);
}

#endif
