/* SPDX-License-Identifier: MIT */
/*
 * Devices, and the one lock that all names of an image lead to.
 *
 * The loop devices are real. Each is attached with autoclear by a process that keeps it open, so that it goes whenever
 * that process goes, however the test ends. Mounts are made in a mount namespace of the test's process.
 */
#include "testdir.h"

#include "image/img.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/blkpg.h>
#include <linux/fuse.h>
#include <linux/loop.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/wait.h>

#define SIZE (4u * 1024u * 1024u)

struct loop {
	int fd;
	int number;
	char path[32];
};

static void make_file(const char *name)
{
	int fd = open(testdir_path(name), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, SIZE), 0);
	close(fd);
}

static struct loop attach(const char *path, int open_flags, uint32_t lo_flags)
{
	struct loop loop;
	int backing_fd = open(path, open_flags | O_CLOEXEC);
	ck_assert_int_ge(backing_fd, 0);
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	ck_assert_int_ge(control, 0);
	struct loop_config config = { .fd = (uint32_t)backing_fd, .info.lo_flags = LO_FLAGS_AUTOCLEAR | lo_flags };
	int r;
	do {
		loop.number = ioctl(control, LOOP_CTL_GET_FREE);
		ck_assert_int_ge(loop.number, 0);
		snprintf(loop.path, sizeof(loop.path), "/dev/loop%d", loop.number);
		loop.fd = open(loop.path, open_flags | O_CLOEXEC);
		ck_assert_int_ge(loop.fd, 0);
		r = ioctl(loop.fd, LOOP_CONFIGURE, &config);
		if (r < 0 && errno == EBUSY)
			close(loop.fd); /* another test was faster */
	} while (r < 0 && errno == EBUSY);
	ck_assert_msg(r == 0, "LOOP_CONFIGURE: %s", strerror(errno));
	close(control);
	close(backing_fd);
	return loop;
}

static struct img *open_img(const char *path, bool read_only)
{
	struct img *img = NULL;
	struct err err = ERR_INIT;
	int r = img_open(path, read_only, &img, &err);
	ck_assert_msg(r == 0, "%s", err.text);
	return img;
}

static void expect_refused(const char *path, int code, enum err_exit exit_code, const char *reason)
{
	struct img *img = NULL;
	struct err err = ERR_INIT;
	ck_assert_msg(img_open(path, false, &img, &err) == code, "%s: %d, %s", path, err.code, err.text);
	ck_assert_ptr_null(img);
	ck_assert_int_eq(err.exit, exit_code);
	ck_assert_msg(strstr(err.text, path) == err.text && strstr(err.text, reason) != NULL, "%s", err.text);
}

static void expect_in_use(const char *path)
{
	expect_refused(path, -EBUSY, ERR_EXIT_REFUSED, "era-cli list");
}

START_TEST(names_of_a_file_meet)
{
	make_file("image");
	make_file("other");
	ck_assert_int_eq(symlink("image", testdir_path("symlink")), 0);
	ck_assert_int_eq(link(testdir_path("image"), testdir_path("hardlink")), 0);
	struct img *img = open_img(testdir_path("symlink"), false);
	expect_in_use(testdir_path("image"));
	expect_in_use(testdir_path("symlink"));
	expect_in_use(testdir_path("hardlink"));
	img_close(open_img(testdir_path("other"), false));
	img_close(img);
	img_close(open_img(testdir_path("hardlink"), false));
	/* A reader counts as well. */
	img = open_img(testdir_path("image"), true);
	expect_in_use(testdir_path("image"));
	img_close(img);
	/* So does another program's lock. */
	int fd = open(testdir_path("image"), O_RDONLY | O_CLOEXEC);
	ck_assert_int_eq(flock(fd, LOCK_SH), 0);
	expect_in_use(testdir_path("image"));
	close(fd);
	img_close(open_img(testdir_path("image"), false));
}
END_TEST

START_TEST(loop_device_and_file_meet)
{
	make_file("image");
	struct loop loop = attach(testdir_path("image"), O_RDWR, 0);
	struct img *img = open_img(loop.path, false);
	ck_assert(img->is_device);
	ck_assert_uint_eq(img->size_bytes, SIZE);
	expect_in_use(testdir_path("image"));
	expect_in_use(loop.path);
	img_close(img);

	img = open_img(testdir_path("image"), false);
	expect_in_use(loop.path);
	img_close(img);
	img_close(open_img(loop.path, false));

	/* Two devices on one file, and a device on a device. */
	struct loop second = attach(testdir_path("image"), O_RDWR, 0);
	struct loop upper = attach(second.path, O_RDWR, 0);
	img = open_img(loop.path, false);
	expect_in_use(second.path);
	expect_in_use(upper.path);
	img_close(img);
	img = open_img(upper.path, false);
	expect_in_use(second.path);
	expect_in_use(loop.path);
	expect_in_use(testdir_path("image"));
	img_close(img);
	img_close(open_img(testdir_path("image"), false));
	close(upper.fd);
	close(second.fd);
	close(loop.fd);
}
END_TEST

START_TEST(nodes_of_a_device_meet)
{
	make_file("image");
	struct loop loop = attach(testdir_path("image"), O_RDWR, 0);
	struct stat st;
	ck_assert_int_eq(fstat(loop.fd, &st), 0);
	ck_assert_int_eq(mknod(testdir_path("node"), S_IFBLK | 0600, st.st_rdev), 0);
	int probe = open(testdir_path("node"), O_RDONLY | O_CLOEXEC);
	if (probe < 0 && errno == EACCES) {
		printf("img_loop: skipped: nodes of a device (%s is mounted nodev)\n", testdir);
		close(loop.fd);
		return;
	}
	close(probe);
	struct img *img = open_img(testdir_path("node"), false);
	expect_in_use(loop.path);
	img_close(img);
	img = open_img(loop.path, false);
	expect_in_use(testdir_path("node"));
	img_close(img);
	/* Claimed by somebody who takes no lock, as a mount does. */
	int claim = open(loop.path, O_RDONLY | O_EXCL | O_CLOEXEC);
	ck_assert_int_ge(claim, 0);
	expect_in_use(loop.path);
	close(claim);
	close(loop.fd);
}
END_TEST

START_TEST(partition_and_disk_and_file_meet)
{
	make_file("image");
	/* Scanned for partitions, so that the one below goes with the device. */
	struct loop loop = attach(testdir_path("image"), O_RDWR, LO_FLAGS_PARTSCAN);
	struct blkpg_partition partition = { .start = 1 << 20, .length = 1 << 20, .pno = 1 };
	struct blkpg_ioctl_arg add = { .op = BLKPG_ADD_PARTITION, .datalen = sizeof(partition), .data = &partition };
	ck_assert_int_eq(ioctl(loop.fd, BLKPG, &add), 0);
	char path[64];
	snprintf(path, sizeof(path), "%sp1", loop.path);
	struct img *img = open_img(path, false);
	ck_assert_uint_eq(img->size_bytes, 1 << 20);
	expect_in_use(loop.path);
	expect_in_use(testdir_path("image"));
	img_close(img);
	img = open_img(loop.path, false);
	expect_in_use(path);
	img_close(img);
	img = open_img(testdir_path("image"), false);
	expect_in_use(path);
	img_close(img);
	close(loop.fd);
}
END_TEST

START_TEST(lost_backing_file_is_refused)
{
	make_file("image");
	struct loop loop = attach(testdir_path("image"), O_RDWR, 0);
	ck_assert_int_eq(unlink(testdir_path("image")), 0);
	expect_refused(loop.path, -ENOENT, ERR_EXIT_FAILED, "backing file cannot be reached");
	close(loop.fd);

	/* Another file under the old name: sysfs says "image", the device says which inode. */
	make_file("image");
	loop = attach(testdir_path("image"), O_RDWR, 0);
	ck_assert_int_eq(unshare(CLONE_NEWNS), 0);
	ck_assert_int_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	make_file("impostor");
	ck_assert_int_eq(mount(testdir_path("impostor"), testdir_path("image"), NULL, MS_BIND, NULL), 0);
	expect_refused(loop.path, -ESTALE, ERR_EXIT_FAILED, "another file");
	ck_assert_int_eq(umount(testdir_path("image")), 0);
	img_close(open_img(loop.path, false));
	close(loop.fd);
}
END_TEST

START_TEST(a_device_reads_and_writes)
{
	char data[8192], back[8192], zeros[8192] = { 0 };
	struct stat st;
	struct statvfs vfs;
	memset(data, 'd', sizeof(data));
	make_file("image");
	struct loop loop = attach(testdir_path("image"), O_RDWR, 0);
	struct img *img = open_img(loop.path, false);
	ck_assert_int_eq(img_pwrite(img, data, sizeof(data), SIZE - 8191), 8191);
	ck_assert_int_eq(img_pwrite(img, data, sizeof(data), 0), sizeof(data));
	/* The kernel copies no ranges of devices: by hand. */
	ck_assert_int_eq(img_copy(img, 0, 100001, sizeof(data)), sizeof(data));
	ck_assert_int_eq(img_copy(img, 0, 1 << 20, 200000), 200000);
	ck_assert_int_eq(img_pread(img, back, sizeof(back), 100001), sizeof(back));
	ck_assert_mem_eq(data, back, sizeof(data));
	ck_assert_int_eq(img_pread(img, back, sizeof(back), (1 << 20) + 98304), sizeof(back));
	ck_assert_mem_ne(zeros, back, sizeof(back));
	/* All is data, and the only hole is at the end. */
	ck_assert_int_eq(img_seek(img, 2 << 20, SEEK_DATA), 2 << 20);
	ck_assert_int_eq(img_seek(img, 0, SEEK_HOLE), SIZE);
	ck_assert_int_eq(img_seek(img, SIZE, SEEK_DATA), -ENXIO);
	ck_assert_int_eq(img_fallocate(img, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, 4096), 0);
	ck_assert_int_eq(img_pread(img, back, sizeof(back), 0), sizeof(back));
	ck_assert_mem_eq(back, zeros, 4096);
	ck_assert_mem_eq(back + 4096, data, 4096);
	ck_assert_int_eq(img_fallocate(img, 0, 0, 4096), -EOPNOTSUPP);
	ck_assert_int_eq(img_stat(img, &st), 0);
	ck_assert(S_ISBLK(st.st_mode));
	ck_assert_int_eq(img_statvfs(img, &vfs), 0);
	ck_assert_int_eq(img_flush(img), 0);

	/* What changed below the cache is seen once the cache is dropped. */
	int fd = open(testdir_path("image"), O_WRONLY | O_CLOEXEC);
	ck_assert_int_eq(pwrite(fd, zeros, sizeof(zeros), 0), sizeof(zeros));
	ck_assert_int_eq(fsync(fd), 0);
	close(fd);
	ck_assert_int_eq(img_drop_cache(img), 0);
	ck_assert_int_eq(img_pread(img, back, sizeof(back), 0), sizeof(back));
	ck_assert_mem_eq(back, zeros, sizeof(back));
	img_close(img);
	close(loop.fd);
}
END_TEST

START_TEST(devices_that_cannot_be_used)
{
	make_file("image");
	struct loop loop = attach(testdir_path("image"), O_RDONLY, LO_FLAGS_READ_ONLY);
	expect_refused(loop.path, -EROFS, ERR_EXIT_FAILED, "write-protected");
	img_close(open_img(loop.path, true));
	ck_assert_int_eq(ioctl(loop.fd, LOOP_CLR_FD), 0);
	close(loop.fd);
}
END_TEST

/* The least of a FUSE file system: its root is a file of SIZE zeros that can be stat'ed. No open is answered but with
 * ENOSYS, which the kernel takes for "opens need no answer". Ends when the mount is gone. */
static void fuse_serve(int fd)
{
	static union {
		char bytes[1 << 18];
		struct fuse_in_header header;
	} in;
	while (read(fd, &in, sizeof(in)) > 0) {
		struct {
			struct fuse_out_header header;
			union {
				struct fuse_init_out init;
				struct fuse_attr_out attr;
			} u;
		} out = { .header.unique = in.header.unique };
		size_t len = 0;
		if (in.header.opcode == FUSE_INIT) {
			out.u.init =
				(struct fuse_init_out){ .major = FUSE_KERNEL_VERSION, .minor = 31, .max_write = 4096 };
			len = sizeof(out.u.init);
		} else if (in.header.opcode == FUSE_GETATTR) {
			out.u.attr.attr =
				(struct fuse_attr){ .ino = 1, .size = SIZE, .mode = S_IFREG | 0600, .nlink = 1 };
			len = sizeof(out.u.attr);
		} else {
			out.header.error = -ENOSYS;
		}
		out.header.len = (uint32_t)(sizeof(out.header) + len);
		if (in.header.opcode != FUSE_FORGET && write(fd, &out, out.header.len) < 0 && errno != ENOENT)
			break;
	}
}

/* The server is a process: the test's own would wait for itself when a failed test exits with files open on the mount.
 * It goes with the test. */
static pid_t fuse_start(int fd)
{
	pid_t server = fork();
	ck_assert_int_ge(server, 0);
	if (server != 0)
		return server;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	fuse_serve(fd);
	_exit(0);
}

START_TEST(a_mount_of_ours_is_refused)
{
	make_file("mounted");
	int fuse_fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fuse_fd < 0) {
		printf("img_loop: skipped: an image on a mount of eraimgfs (no /dev/fuse: %s)\n", strerror(errno));
		return;
	}
	char options[128];
	snprintf(options, sizeof(options), "fd=%d,rootmode=100000,user_id=0,group_id=0", fuse_fd);
	ck_assert_int_eq(unshare(CLONE_NEWNS), 0);
	ck_assert_int_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	ck_assert_int_eq(mount("test", testdir_path("mounted"), "fuse.eraimgfs", 0, options), 0);
	pid_t server = fuse_start(fuse_fd);
	close(fuse_fd);

	expect_refused(testdir_path("mounted"), -EINVAL, ERR_EXIT_FAILED, "is on a mount of eraimgfs");
	make_file("bound");
	ck_assert_int_eq(mount(testdir_path("mounted"), testdir_path("bound"), NULL, MS_BIND, NULL), 0);
	expect_refused(testdir_path("bound"), -EINVAL, ERR_EXIT_FAILED, "is on a mount of eraimgfs");
	ck_assert_int_eq(umount(testdir_path("bound")), 0);

	struct loop loop = attach(testdir_path("mounted"), O_RDWR, 0);
	expect_refused(loop.path, -EINVAL, ERR_EXIT_FAILED, "is on a mount of eraimgfs");
	/* Detached: the name shows the file below, the device still stands on the mount. */
	ck_assert_int_eq(umount2(testdir_path("mounted"), MNT_DETACH), 0);
	expect_refused(loop.path, -ESTALE, ERR_EXIT_FAILED, "another file");
	close(loop.fd);
	/* Gone with the last user of the detached mount. */
	ck_assert_int_eq(waitpid(server, NULL, 0), server);
}
END_TEST

/* Once the processes of the tests are gone, so are their loop devices. */
static bool is_loop_left(void)
{
	bool is_left = false;
	glob_t attrs;
	if (glob("/sys/block/loop*/loop/backing_file", 0, NULL, &attrs) != 0)
		return false;
	for (size_t i = 0; i < attrs.gl_pathc; i++) {
		char path[PATH_MAX];
		FILE *file = fopen(attrs.gl_pathv[i], "re");
		if (file == NULL)
			continue;
		if (fgets(path, sizeof(path), file) != NULL && strncmp(path, testdir, strlen(testdir)) == 0) {
			fprintf(stderr, "img_loop: left behind: %s: %s", attrs.gl_pathv[i], path);
			is_left = true;
		}
		fclose(file);
	}
	globfree(&attrs);
	return is_left;
}

int main(void)
{
	TCase *tcase = tcase_create("img_loop");
	tcase_add_unchecked_fixture(tcase, testdir_setup, testdir_teardown);
	tcase_set_timeout(tcase, 120);
	tcase_add_test(tcase, names_of_a_file_meet);
	if (geteuid() == 0 && access("/dev/loop-control", R_OK | W_OK) == 0) {
		tcase_add_test(tcase, loop_device_and_file_meet);
		tcase_add_test(tcase, nodes_of_a_device_meet);
		tcase_add_test(tcase, partition_and_disk_and_file_meet);
		tcase_add_test(tcase, lost_backing_file_is_refused);
		tcase_add_test(tcase, a_device_reads_and_writes);
		tcase_add_test(tcase, devices_that_cannot_be_used);
		tcase_add_test(tcase, a_mount_of_ours_is_refused);
	} else {
		printf("img_loop: skipped: loop devices (needs root and /dev/loop-control)\n");
	}
	int result = testdir_main("img_loop", tcase);
	return is_loop_left() ? EXIT_FAILURE : result;
}
