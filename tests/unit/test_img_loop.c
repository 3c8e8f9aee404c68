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

static void expect_relock_in_use(struct img *img)
{
	struct err err = ERR_INIT;
	ck_assert_int_eq(img_relock(img, &err), -EBUSY);
	ck_assert_int_eq(err.code, -EBUSY);
	ck_assert_int_eq(err.exit, ERR_EXIT_REFUSED);
	ck_assert_msg(strstr(err.text, "in use") != NULL, "%s", err.text);
}

static void relock(struct img *img)
{
	struct err err = ERR_INIT;
	ck_assert_msg(img_relock(img, &err) == 0, "%s", err.text);
}

/* Any change that goes to a device, with or without the claim. */
static void change(struct img *img)
{
	char data[4096], back[4096], zeros[4096] = { 0 };
	memset(data, 'd', sizeof(data));
	ck_assert_int_eq(img_pwrite(img, data, sizeof(data), 4096), sizeof(data));
	ck_assert_int_eq(img_pread(img, back, sizeof(back), 4096), sizeof(back));
	ck_assert_mem_eq(data, back, sizeof(data));
	/* While the page is dirty: then the kernel wants the claim. */
	ck_assert_int_eq(img_fallocate(img, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 4096, 4096), 0);
	ck_assert_int_eq(img_pread(img, back, sizeof(back), 4096), sizeof(back));
	ck_assert_mem_eq(zeros, back, sizeof(data));
	ck_assert_int_eq(img_flush(img), 0);
	ck_assert_int_eq(img_drop_cache(img), 0);
}

/* img, unlocked, and whoever opens path keep each other out. */
static void check_unlocked_meets(struct img *img, const char *path)
{
	change(img);
	struct img *other = open_img(path, false);
	expect_relock_in_use(img);
	img_close(other);
	relock(img);
	expect_in_use(path);
	change(img);
	img_unlock(img);
}

START_TEST(an_unlocked_device_is_free)
{
	make_file("image");
	struct loop loop = attach(testdir_path("image"), O_RDWR, 0);
	struct loop second = attach(testdir_path("image"), O_RDWR, 0);
	struct loop upper = attach(loop.path, O_RDWR, 0);
	struct img *img = open_img(loop.path, false);
	img_unlock(img);
	check_unlocked_meets(img, loop.path);
	check_unlocked_meets(img, testdir_path("image"));
	check_unlocked_meets(img, second.path);
	check_unlocked_meets(img, upper.path);

	/* Refused by the file below: the device has been let go again. */
	struct img *other = open_img(testdir_path("image"), false);
	expect_relock_in_use(img);
	int claim = open(loop.path, O_RDONLY | O_EXCL | O_CLOEXEC);
	ck_assert_int_ge(claim, 0);
	ck_assert_int_eq(flock(claim, LOCK_EX | LOCK_NB), 0);
	img_close(other);
	/* Claimed by somebody: the file below has not been locked. */
	expect_relock_in_use(img);
	img_close(open_img(testdir_path("image"), false));
	close(claim);
	relock(img);
	img_close(img);

	img = open_img(testdir_path("image"), false);
	img_unlock(img);
	check_unlocked_meets(img, loop.path);
	check_unlocked_meets(img, upper.path);
	img_close(img);
	img = open_img(upper.path, false);
	img_unlock(img);
	check_unlocked_meets(img, loop.path);
	check_unlocked_meets(img, second.path);
	check_unlocked_meets(img, testdir_path("image"));
	img_close(img);
	img_close(open_img(upper.path, false));
	close(upper.fd);
	close(second.fd);
	close(loop.fd);
}
END_TEST

static void expect_base(const char *path, uint64_t dev, uint64_t ino)
{
	struct img *img = open_img(path, true);
	ck_assert_uint_eq(img->base_dev, dev);
	ck_assert_uint_eq(img->base_ino, ino);
	img_close(img);
}

START_TEST(devices_have_the_base_of_their_file)
{
	struct stat st;
	make_file("image");
	ck_assert_int_eq(stat(testdir_path("image"), &st), 0);
	struct loop loop = attach(testdir_path("image"), O_RDWR, 0);
	struct loop upper = attach(loop.path, O_RDWR, 0);
	expect_base(testdir_path("image"), st.st_dev, st.st_ino);
	expect_base(loop.path, st.st_dev, st.st_ino);
	expect_base(upper.path, st.st_dev, st.st_ino);
	close(upper.fd);
	close(loop.fd);
}
END_TEST

/* Mounts a file system at path that nobody serves: who touches path waits. Goes with the process, or detached when the
 * descriptor is closed. -errno where there is no FUSE. */
static int mount_dead_fuse(const char *path)
{
	char options[128];
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	snprintf(options, sizeof(options), "fd=%d,rootmode=100000,user_id=0,group_id=0", fd);
	ck_assert_int_eq(mount("test", path, "fuse.eraimgfs", 0, options), 0);
	return fd;
}

START_TEST(relock_passes_by_what_is_mounted_over_the_image)
{
	make_file("image");
	struct loop loop = attach(testdir_path("image"), O_RDWR, 0);
	ck_assert_int_eq(unshare(CLONE_NEWNS), 0);
	ck_assert_int_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	for (int i = 0; i < 2; i++) {
		const char *path = i == 0 ? testdir_path("image") : loop.path;
		struct img *img = open_img(path, false);
		int fuse_fd = mount_dead_fuse(testdir_path("image"));
		if (fuse_fd < 0) {
			printf("img_loop: skipped: mounted over the image (no /dev/fuse: %s)\n", strerror(-fuse_fd));
			img_close(img);
			break;
		}
		img_unlock(img);
		relock(img);
		ck_assert_int_eq(umount2(testdir_path("image"), MNT_DETACH), 0);
		close(fuse_fd);
		expect_in_use(testdir_path("image"));
		img_close(img);
	}
	close(loop.fd);
}
END_TEST

/* Mounts an xfs of its own on dir, in a mount namespace of this process. False, with the reason printed, without xfs. */
static bool mount_xfs(const char *dir, struct loop *ret_loop)
{
	char command[PATH_MAX + 64];
	int fd = open(testdir_path("xfs"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, 320 << 20), 0);
	close(fd);
	snprintf(command, sizeof(command), "mkfs.xfs -q -m reflink=1 '%s'", testdir_path("xfs"));
	int status = system(command);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127) {
		printf("img_loop: skipped: clones (no mkfs.xfs)\n");
		return false;
	}
	ck_assert_int_eq(status, 0);
	*ret_loop = attach(testdir_path("xfs"), O_RDWR, 0);
	ck_assert_int_eq(mkdir(dir, 0700), 0);
	ck_assert_int_eq(unshare(CLONE_NEWNS), 0);
	ck_assert_int_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	if (mount(ret_loop->path, dir, "xfs", 0, NULL) == 0)
		return true;
	ck_assert_msg(errno == ENODEV, "mount: %s", strerror(errno));
	printf("img_loop: skipped: clones (the kernel has no xfs)\n");
	close(ret_loop->fd);
	return false;
}

static int create(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	return fd;
}

static void expect_bytes(int fd, char byte)
{
	static char back[SIZE], want[SIZE];
	struct stat st;
	memset(want, byte, SIZE);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_int_eq(st.st_size, SIZE);
	ck_assert_int_eq(pread(fd, back, SIZE, 0), SIZE);
	ck_assert_mem_eq(back, want, SIZE);
}

START_TEST(a_clone_stays_as_it_is)
{
	static char data[SIZE];
	struct loop loop;
	if (!mount_xfs(testdir_path("mnt"), &loop))
		return;
	make_file("mnt/image");
	struct img *img = open_img(testdir_path("mnt/image"), false);
	memset(data, 'a', SIZE);
	ck_assert_int_eq(img_pwrite(img, data, SIZE, 0), SIZE);
	/* With the data still in the cache. */
	int clone = create(testdir_path("mnt/clone"));
	ck_assert_int_eq(img_clone(img, clone), 0);
	expect_bytes(clone, 'a');
	memset(data, 'b', SIZE);
	ck_assert_int_eq(img_pwrite(img, data, SIZE, 0), SIZE);
	ck_assert_int_eq(img_flush(img), 0);
	expect_bytes(clone, 'a');
	int second = create(testdir_path("mnt/second"));
	ck_assert_int_eq(img_clone(img, second), 0);
	expect_bytes(second, 'b');
	close(second);
	close(clone);

	/* On another file system; without the lock; of an image that is read only; of a device. */
	int elsewhere = create(testdir_path("elsewhere"));
	ck_assert_int_eq(img_clone(img, elsewhere), -EXDEV);
	close(elsewhere);
	img_unlock(img);
	struct img *reader = open_img(testdir_path("mnt/image"), true);
	int third = create(testdir_path("mnt/third"));
	ck_assert_int_eq(img_clone(reader, third), 0);
	expect_bytes(third, 'b');
	ck_assert_int_eq(ftruncate(third, 0), 0);
	ck_assert_int_eq(img_clone(img, third), 0);
	expect_bytes(third, 'b');
	img_close(reader);
	img_close(img);
	struct loop image = attach(testdir_path("mnt/image"), O_RDWR, 0);
	img = open_img(image.path, false);
	int r = img_clone(img, third);
	ck_assert_msg(r == -EINVAL || r == -EXDEV || r == -EOPNOTSUPP, "%s", strerror(-r));
	expect_bytes(third, 'b');
	img_close(img);
	close(third);
	ck_assert_int_eq(ioctl(image.fd, LOOP_CLR_FD), 0);
	close(image.fd);
	ck_assert_int_eq(umount(testdir_path("mnt")), 0);
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
		tcase_add_test(tcase, an_unlocked_device_is_free);
		tcase_add_test(tcase, devices_have_the_base_of_their_file);
		tcase_add_test(tcase, relock_passes_by_what_is_mounted_over_the_image);
		tcase_add_test(tcase, a_clone_stays_as_it_is);
	} else {
		printf("img_loop: skipped: loop devices (needs root and /dev/loop-control)\n");
	}
	int result = testdir_main("img_loop", tcase);
	return is_loop_left() ? EXIT_FAILURE : result;
}
