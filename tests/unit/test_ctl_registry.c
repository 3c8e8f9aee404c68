/* SPDX-License-Identifier: MIT */
#include "testdir.h"

#include "base/run.h"
#include "control/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>

#define NONCE_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define NONCE_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define NONCE_C "cccccccccccccccccccccccccccccccc"
#define UUID_A "0a234567-89ab-cdef-0123-456789abcdef"

/* Each test has its own run folder and its own folder of files. */
static char run_dir[PATH_MAX / 2 + 16], files[PATH_MAX / 2 + 16];

static void begin(const char *name)
{
	snprintf(run_dir, sizeof(run_dir), "%s/run-%s", testdir, name);
	snprintf(files, sizeof(files), "%s/files-%s", testdir, name);
	ck_assert_int_eq(mkdir(run_dir, 0700), 0);
	ck_assert_int_eq(mkdir(files, 0700), 0);
	ck_assert_int_eq(setenv("ERAIMGFS_RUN_DIR", run_dir, 1), 0);
}

static void touch(const char *folder, const char *name, const char *text)
{
	char path[PATH_MAX];
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	FILE *file = fopen(path, "w");
	ck_assert_ptr_nonnull(file);
	fputs(text, file);
	ck_assert_int_eq(fclose(file), 0);
}

static bool exists(const char *folder, const char *name)
{
	char path[PATH_MAX];
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return access(path, F_OK) == 0;
}

/* A live instance of ours, with an image and metadata that exist, and a mount that does not. */
static struct ctl_instance *make_instance(const char *nonce)
{
	struct ctl_instance *it = calloc(1, sizeof(*it));
	struct stat st;
	char name[64];
	snprintf(name, sizeof(name), "%.4s.img", nonce);
	touch(files, name, "image");
	snprintf(it->image, PATH_MAX, "%s/%s", files, name);
	ck_assert_int_eq(stat(it->image, &st), 0);
	snprintf(name, sizeof(name), "%.4s.img.era", nonce);
	touch(files, name, "metadata");
	snprintf(it->metadata, PATH_MAX, "%s/%s", files, name);
	strcpy(it->nonce, nonce);
	strcpy(it->uuid, UUID_A);
	it->pid = getpid();
	ck_assert_int_eq(run_process_start(it->pid, &it->pid_start), 0);
	it->read_only = true;
	snprintf(it->mountpoint, PATH_MAX, "%s/mnt-%.4s", files, nonce);
	snprintf(it->file, PATH_MAX, "%s/mnt-%.4s/%.4s.img", files, nonce, nonce);
	snprintf(it->socket, PATH_MAX, "%s/%s.sock", run_dir, nonce);
	it->mount_dev = UINT64_C(0x7ffffffffffff);
	it->image_dev = st.st_dev;
	it->image_ino = st.st_ino;
	it->generation = 1;
	return it;
}

static void write_entry(const struct ctl_instance *it)
{
	struct err err = ERR_INIT;
	ck_assert_msg(ctl_registry_write(run_dir, it, &err) == 0, "%s", err.text);
}

static int take_first(const struct ctl_instance *instance, void *arg)
{
	*(struct ctl_instance *)arg = *instance;
	return 7;
}

static int count_one(const struct ctl_instance *instance, void *arg)
{
	(*(int *)arg)++;
	return 0;
}

static int count(void)
{
	int nr = 0;
	ck_assert_int_eq(ctl_registry_each(count_one, &nr), 0);
	return nr;
}

START_TEST(test_round_trip)
{
	begin("round");
	ck_assert_int_eq(count(), 0);
	struct ctl_instance *it = make_instance(NONCE_A), *back = calloc(1, sizeof(*back));
	it->image_ino = UINT64_MAX - 3; /* some file systems use them all */
	it->generation = INT64_MAX; /* SQLite's greatest */
	write_entry(it);
	ck_assert_int_eq(count(), 1);
	ck_assert_int_eq(ctl_registry_each(take_first, back), 7);
	ck_assert_mem_eq(back, it, sizeof(*it));
	struct stat st;
	char path[PATH_MAX];
	snprintf(path, sizeof(path), "%s/" NONCE_A ".json", run_dir);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	/* Written again, it replaces itself. */
	strcat(it->mountpoint, "-moved");
	write_entry(it);
	ck_assert_int_eq(count(), 1);
	ctl_registry_remove(run_dir, NONCE_A);
	ck_assert_int_eq(count(), 0);
	ck_assert(!exists(run_dir, NONCE_A ".json"));
	ctl_registry_remove(run_dir, NONCE_A);
	free(it);
	free(back);
}
END_TEST

START_TEST(test_not_utf8)
{
	begin("utf8");
	struct ctl_instance *it = make_instance(NONCE_A);
	struct err err = ERR_INIT;
	strcat(it->image, "\xff");
	ck_assert_int_eq(ctl_registry_write(run_dir, it, &err), -EILSEQ);
	ck_assert_int_eq(ctl_registry_write("/nonexistent", it, &err), -ENOENT);
	ck_assert_int_eq(count(), 0);
	free(it);
}
END_TEST

/* Each member is needed, and of its kind. */
START_TEST(test_damaged)
{
	begin("damaged");
	struct ctl_instance *it = make_instance(NONCE_A);
	char path[PATH_MAX];
	snprintf(path, sizeof(path), "%s/" NONCE_A ".json", run_dir);
	write_entry(it);
	json_t *good = json_load_file(path, 0, NULL);
	ck_assert_uint_eq(json_object_size(good), 15);
	const char *key;
	json_t *value;
	json_object_foreach(good, key, value)
	{
		json_t *bad = json_copy(good);
		json_object_del(bad, key);
		ck_assert_int_eq(json_dump_file(bad, path, 0), 0);
		ck_assert_msg(count() == 0, "without %s", key);
		json_object_set_new(bad, key, json_null());
		ck_assert_int_eq(json_dump_file(bad, path, 0), 0);
		ck_assert_msg(count() == 0, "null %s", key);
		json_object_set_new(bad, key, json_string("no such thing"));
		ck_assert_int_eq(json_dump_file(bad, path, 0), 0);
		ck_assert_msg(count() == 0, "bad %s", key);
		json_decref(bad);
	}
	/* Cut at each byte. */
	char *text = json_dumps(good, 0);
	for (size_t len = strlen(text); len-- > 0;) {
		text[len] = '\0';
		touch(run_dir, NONCE_A ".json", text);
		ck_assert_int_eq(count(), 0);
	}
	free(text);
	/* Under another nonce's name, and under names that are none. */
	ck_assert_int_eq(json_dump_file(good, path, 0), 0);
	ck_assert_int_eq(count(), 1);
	char other[PATH_MAX];
	static const char *const names[] = { NONCE_B ".json", NONCE_A ".json.new", "x.json", ".json" };
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(other, sizeof(other), "%s/%s", run_dir, names[i]);
		ck_assert_int_eq(json_dump_file(good, other, 0), 0);
	}
	ck_assert_int_eq(count(), 1);
	/* A symlink, a pipe. */
	snprintf(other, sizeof(other), "%s/real", run_dir);
	ck_assert_int_eq(rename(path, other), 0);
	ck_assert_int_eq(symlink(other, path), 0);
	ck_assert_int_eq(count(), 0);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	ck_assert_int_eq(count(), 0);
	json_decref(good);
	free(it);
}
END_TEST

/* A process that is gone, one whose pid was given away again, and a zombie. */
START_TEST(test_dead)
{
	begin("dead");
	struct ctl_instance *live = make_instance(NONCE_A), *dead = make_instance(NONCE_B);
	int hold[2];
	ck_assert_int_eq(pipe(hold), 0);
	pid_t child = fork();
	if (child == 0) {
		char byte;
		close(hold[1]);
		_exit(read(hold[0], &byte, 1) == 0 ? 0 : 1);
	}
	dead->pid = child;
	ck_assert_int_eq(run_process_start(child, &dead->pid_start), 0);
	touch(run_dir, NONCE_B ".sock", "");
	write_entry(live);
	write_entry(dead);
	ck_assert_int_eq(count(), 2);

	dead->pid_start++;
	write_entry(dead);
	ck_assert_int_eq(count(), 1);
	dead->pid_start--;
	write_entry(dead);
	ck_assert_int_eq(count(), 2);

	close(hold[1]);
	siginfo_t info;
	ck_assert_int_eq(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
	ck_assert_int_eq(count(), 1);
	ck_assert_int_eq(waitpid(child, NULL, 0), child);
	ck_assert_int_eq(count(), 1);
	uint64_t start;
	ck_assert_int_eq(run_process_start(child, &start), -ENOENT);
	/* Looking changes nothing; who writes clears away what is dead, with its socket. */
	ck_assert(exists(run_dir, NONCE_B ".json"));
	touch(run_dir, NONCE_A ".sock", "");
	touch(run_dir, NONCE_B ".session", "");
	/* What was being written by who is dead, and by who is not. */
	char abandoned[96], under_way[96];
	snprintf(abandoned, sizeof(abandoned), NONCE_B ".json.%d.new", (int)child);
	snprintf(under_way, sizeof(under_way), NONCE_B ".json.%d.new", (int)getppid());
	touch(run_dir, abandoned, "{");
	touch(run_dir, under_way, "{");
	write_entry(live);
	ck_assert(!exists(run_dir, abandoned));
	ck_assert(exists(run_dir, under_way));
	ck_assert(!exists(run_dir, NONCE_B ".json"));
	ck_assert(exists(run_dir, NONCE_A ".json"));
	ck_assert(exists(run_dir, NONCE_A ".sock"));
	ck_assert(exists(run_dir, NONCE_B ".session"));
	free(live);
	free(dead);
}
END_TEST

static void expect_found(const char *target, const char *nonce)
{
	struct ctl_instance *found = calloc(1, sizeof(*found));
	struct err err = ERR_INIT;
	int r = ctl_resolve(target, found, &err);
	ck_assert_msg(r == 1, "%s: %d %s", target, r, err.text);
	ck_assert_str_eq(found->nonce, nonce);
	free(found);
}

static void expect_result(const char *target, int result)
{
	struct ctl_instance *found = calloc(1, sizeof(*found));
	struct err err = ERR_INIT;
	int r = ctl_resolve(target, found, &err);
	ck_assert_msg(r == result, "%s: %d %s", target, r, err.text);
	free(found);
}

START_TEST(test_resolve_names)
{
	begin("names");
	struct ctl_instance *a = make_instance(NONCE_A), *b = make_instance(NONCE_B);
	write_entry(a);
	write_entry(b);
	expect_found(a->mountpoint, NONCE_A);
	expect_found(b->mountpoint, NONCE_B);
	expect_found(b->file, NONCE_B);
	expect_found(b->image, NONCE_B);
	expect_found(b->metadata, NONCE_B);
	char path[PATH_MAX + 32];
	snprintf(path, sizeof(path), "%s//./", b->mountpoint);
	expect_found(path, NONCE_B);
	snprintf(path, sizeof(path), "%s/../files-names/bbbb.img", files);
	expect_found(path, NONCE_B);
	ck_assert_int_eq(chdir(files), 0);
	expect_found("mnt-aaaa", NONCE_A);
	expect_found("./bbbb.img.era", NONCE_B);
	expect_found("mnt-aaaa/aaaa.img", NONCE_A);
	expect_result("mnt-aaa", 0);
	expect_result("nothing/at/all", 0);
	expect_result("", -EINVAL);
	touch(files, "plain", "");
	expect_result("plain", 0);
	expect_result("plain/below", 0);
	free(a);
	free(b);
}
END_TEST

START_TEST(test_resolve_inodes)
{
	begin("inodes");
	struct ctl_instance *a = make_instance(NONCE_A), *b = make_instance(NONCE_B);
	write_entry(a);
	write_entry(b);
	ck_assert_int_eq(chdir(files), 0);
	ck_assert_int_eq(symlink("bbbb.img", "link.img"), 0);
	ck_assert_int_eq(link("bbbb.img", "hard.img"), 0);
	ck_assert_int_eq(symlink("bbbb.img.era", "link.era"), 0);
	ck_assert_int_eq(symlink(files, "../files-alias"), 0);
	expect_found("link.img", NONCE_B);
	expect_found("hard.img", NONCE_B);
	expect_found("link.era", NONCE_B);
	/* A symlink on the way to a mount point that is not there to be looked at. */
	expect_found("../files-alias/mnt-bbbb", NONCE_B);
	/* Anything on the mount. */
	struct stat st;
	ck_assert_int_eq(stat("/proc", &st), 0);
	a->mount_dev = st.st_dev;
	write_entry(a);
	expect_found("/proc/self/status", NONCE_A);
	free(a);
	free(b);
}
END_TEST

/* One mounted over another: what the path leads to decides, and where it cannot, nobody guesses. */
START_TEST(test_resolve_ambiguous)
{
	begin("ambiguous");
	struct ctl_instance *a = make_instance(NONCE_A), *b = make_instance(NONCE_B);
	struct stat st;
	strcpy(b->mountpoint, a->mountpoint);
	strcpy(b->file, a->file);
	write_entry(a);
	write_entry(b);
	expect_result(a->mountpoint, -ENOTUNIQ);
	ck_assert_int_eq(mkdir(a->mountpoint, 0700), 0);
	expect_result(a->mountpoint, -ENOTUNIQ);
	ck_assert_int_eq(stat(a->mountpoint, &st), 0);
	b->mount_dev = st.st_dev;
	write_entry(b);
	expect_found(a->mountpoint, NONCE_B);
	expect_found(a->metadata, NONCE_A);
	free(a);
	free(b);
}
END_TEST

/* b, of generation 2, took a's image and metadata over. */
static void take_over(struct ctl_instance *b, const struct ctl_instance *a)
{
	strcpy(b->image, a->image);
	strcpy(b->metadata, a->metadata);
	b->image_dev = a->image_dev;
	b->image_ino = a->image_ino;
	b->generation = 2;
}

/* Writes a and b, each in its turn as the one with the greater generation, so that no order of the entries decides. */
static void expect_heir(struct ctl_instance *a, struct ctl_instance *b, const char *target)
{
	a->generation = 1;
	b->generation = 2;
	write_entry(a);
	write_entry(b);
	expect_found(target, NONCE_B);
	a->generation = 3;
	write_entry(a);
	expect_found(target, NONCE_A);
}

static void expect_pair(struct ctl_instance *a, struct ctl_instance *b, const char *target, int result)
{
	write_entry(a);
	write_entry(b);
	expect_result(target, result);
}

START_TEST(test_resolve_takeover)
{
	begin("takeover");
	struct ctl_instance *a = make_instance(NONCE_A), *b = make_instance(NONCE_B);
	take_over(b, a);
	ck_assert_int_eq(chdir(files), 0);
	ck_assert_int_eq(symlink("aaaa.img", "link.img"), 0);
	ck_assert_int_eq(link("aaaa.img", "hard.img"), 0);
	ck_assert_int_eq(link("aaaa.img.era", "hard.era"), 0);
	const char *const targets[] = { a->image, a->metadata, "aaaa.img", "link.img", "hard.img", "hard.era" };
	for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
		expect_heir(a, b, targets[i]);
		/* Each keeps its own mount. */
		expect_found(a->mountpoint, NONCE_A);
		expect_found(b->mountpoint, NONCE_B);
		expect_found(a->file, NONCE_A);
		expect_found(b->file, NONCE_B);
		/* Of one generation, or of other metadata: nobody guesses. */
		b->generation = a->generation;
		expect_pair(a, b, targets[i], -ENOTUNIQ);
		b->generation++;
		b->uuid[0] = '1';
		expect_pair(a, b, targets[i], -ENOTUNIQ);
		b->uuid[0] = a->uuid[0];
	}
	/* An image by two nodes of one device: the metadata are one all the same. */
	b->image_ino++;
	expect_heir(a, b, a->metadata);
	b->image_ino--;
	/* The image is gone, its name is not. */
	ck_assert_int_eq(unlink("aaaa.img"), 0);
	expect_heir(a, b, a->image);
	/* Another file is there: whose name it is says nothing. */
	touch(files, "aaaa.img", "");
	expect_pair(a, b, a->image, -ENOTUNIQ);
	free(a);
	free(b);
}
END_TEST

/* The heir knows image and metadata by names of its own. */
/* Who is fenced has nothing but its mount, also when nobody else is left. */
START_TEST(test_resolve_fenced)
{
	begin("fenced");
	struct ctl_instance *it = make_instance(NONCE_A);
	write_entry(it);
	expect_found(it->image, NONCE_A);
	it->fenced = true;
	write_entry(it);
	expect_result(it->image, 0);
	expect_result(it->metadata, 0);
	expect_found(it->mountpoint, NONCE_A);
	expect_found(it->file, NONCE_A);
	free(it);
}
END_TEST

START_TEST(test_resolve_takeover_by_another_name)
{
	begin("renamed");
	struct ctl_instance *a = make_instance(NONCE_A), *b = make_instance(NONCE_B), *c = make_instance(NONCE_C);
	char *image = b->image;
	take_over(b, a);
	snprintf(image, PATH_MAX, "%s/hard.img", files);
	snprintf(b->metadata, PATH_MAX, "%s/hard.era", files);
	ck_assert_int_eq(link(a->image, b->image), 0);
	ck_assert_int_eq(link(a->metadata, b->metadata), 0);
	const char *const targets[] = { a->image, a->metadata, b->image, b->metadata };
	for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
		expect_heir(a, b, targets[i]);
		expect_found(b->mountpoint, NONCE_B);
		expect_found(b->file, NONCE_B);
	}
	/* Metadata of its own: no heir. */
	a->generation = 1;
	b->uuid[0] = '1';
	write_entry(b);
	write_entry(a);
	expect_found(a->image, NONCE_A);
	b->uuid[0] = a->uuid[0];
	/* Two heirs that nothing tells apart. */
	take_over(c, b);
	write_entry(c);
	expect_pair(a, b, a->image, -ENOTUNIQ);
	expect_found(a->mountpoint, NONCE_A);
	c->generation = 3;
	write_entry(c);
	expect_found(a->image, NONCE_C);
	/* A copy of the image with a copy of its metadata is another instance's. */
	unlink(b->image);
	touch(files, "hard.img", "copy");
	struct stat st;
	ck_assert_int_eq(stat(b->image, &st), 0);
	b->image_ino = c->image_ino = st.st_ino;
	write_entry(c);
	write_entry(b);
	expect_found(a->image, NONCE_A);
	expect_found(b->image, NONCE_C);
	free(a);
	free(b);
	free(c);
}
END_TEST

/* A name that is one's image and another's mount point is not decided by generations. */
START_TEST(test_resolve_mount_over_image)
{
	begin("over");
	struct ctl_instance *a = make_instance(NONCE_A), *b = make_instance(NONCE_B);
	take_over(b, a);
	strcpy(a->mountpoint, a->image);
	strcpy(a->file, a->image);
	expect_pair(a, b, a->image, -ENOTUNIQ);
	expect_found(a->metadata, NONCE_B);
	/* The path leads to a's mount, be it of an older generation. */
	struct stat st;
	ck_assert_int_eq(stat(a->image, &st), 0);
	a->mount_dev = st.st_dev;
	b->image_ino++;
	write_entry(a);
	write_entry(b);
	expect_found(a->image, NONCE_A);
	free(a);
	free(b);
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("ctl_registry");
	tcase_add_unchecked_fixture(tcase, testdir_setup, testdir_teardown);
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, test_round_trip);
	tcase_add_test(tcase, test_not_utf8);
	tcase_add_test(tcase, test_damaged);
	tcase_add_test(tcase, test_dead);
	tcase_add_test(tcase, test_resolve_names);
	tcase_add_test(tcase, test_resolve_inodes);
	tcase_add_test(tcase, test_resolve_ambiguous);
	tcase_add_test(tcase, test_resolve_takeover);
	tcase_add_test(tcase, test_resolve_takeover_by_another_name);
	tcase_add_test(tcase, test_resolve_fenced);
	tcase_add_test(tcase, test_resolve_mount_over_image);
	return testdir_main("ctl_registry", tcase);
}
