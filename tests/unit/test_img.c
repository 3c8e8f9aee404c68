/* SPDX-License-Identifier: MIT */
/* Reading, writing and refusing. Who may use an image at the same time as whom is in test_img_loop.c. */
#include "testdir.h"

#include "image/img.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#define SIZE (256u * 1024u)

static void make_file(const char *name, off_t size)
{
	int fd = open(testdir_path(name), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, size), 0);
	close(fd);
}

static struct img *open_img(const char *path, bool read_only)
{
	struct img *img = NULL;
	struct err err = ERR_INIT;
	int r = img_open(path, read_only, &img, &err);
	ck_assert_msg(r == 0, "%s", err.text);
	return img;
}

static void expect_refused(const char *path, bool read_only, int code, const char *reason)
{
	struct img *img = NULL;
	struct err err = ERR_INIT;
	ck_assert_int_eq(img_open(path, read_only, &img, &err), code);
	ck_assert_ptr_null(img);
	ck_assert_int_eq(err.code, code);
	ck_assert_int_eq(err.exit, ERR_EXIT_FAILED);
	ck_assert_msg(strstr(err.text, path) == err.text && strstr(err.text, reason) != NULL, "%s", err.text);
}

START_TEST(what_is_no_image_is_refused)
{
	expect_refused(testdir_path("missing"), false, -ENOENT, "No such file");
	ck_assert_int_eq(access(testdir_path("missing"), F_OK), -1);
	expect_refused(testdir, false, -EISDIR, ": is a directory: name a disk image or a block device");
	ck_assert_int_eq(mkfifo(testdir_path("fifo"), 0600), 0);
	expect_refused(testdir_path("fifo"), false, -EINVAL, "is a FIFO");
	expect_refused(testdir_path("fifo"), true, -EINVAL, "is a FIFO");
	expect_refused("/dev/null", false, -EINVAL, "is a character device");
	make_file("empty", 0);
	expect_refused(testdir_path("empty"), false, -ENODATA, "is empty");

	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	ck_assert_int_lt(snprintf(address.sun_path, sizeof(address.sun_path), "%s", testdir_path("socket")),
		sizeof(address.sun_path));
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	expect_refused(testdir_path("socket"), false, -EINVAL, "is a socket");
	close(fd);
}
END_TEST

START_TEST(rights_are_asked_for)
{
	make_file("rights", SIZE);
	ck_assert_int_eq(chmod(testdir_path("rights"), 0400), 0);
	if (geteuid() == 0) {
		ck_assert_int_eq(chmod(testdir, 0755), 0);
		ck_assert_int_eq(chown(testdir_path("rights"), 65534, 65534), 0);
		testdir_become(65534);
	}
	expect_refused(testdir_path("rights"), false, -EACCES, "mount it with -o ro");
	img_close(open_img(testdir_path("rights"), true));
	ck_assert_int_eq(chmod(testdir_path("rights"), 0), 0);
	expect_refused(testdir_path("rights"), true, -EACCES, "cannot be opened");
	if (getuid() == 0)
		testdir_become(0);
}
END_TEST

START_TEST(reads_and_writes_within_the_image)
{
	char data[8192], back[8192];
	memset(data, 'd', sizeof(data));
	make_file("image", SIZE);
	struct img *img = open_img(testdir_path("image"), false);
	ck_assert_uint_eq(img->size_bytes, SIZE);
	ck_assert(!img->is_device);

	ck_assert_int_eq(img_pwrite(img, data, sizeof(data), 4000), sizeof(data));
	ck_assert_int_eq(img_pread(img, back, sizeof(back), 4000), sizeof(back));
	ck_assert_mem_eq(data, back, sizeof(data));
	/* At the end: clipped. Beyond: nothing to read, nowhere to write. */
	ck_assert_int_eq(img_pwrite(img, data, sizeof(data), SIZE - 100), 100);
	ck_assert_int_eq(img_pread(img, back, sizeof(back), SIZE - 100), 100);
	ck_assert_int_eq(img_pread(img, back, 1, SIZE), 0);
	ck_assert_int_eq(img_pread(img, back, 1, UINT64_MAX), 0);
	ck_assert_int_eq(img_pwrite(img, data, 1, SIZE), -EFBIG);
	ck_assert_int_eq(img_pwrite(img, data, 1, UINT64_MAX), -EFBIG);
	ck_assert_int_eq(img_flush(img), 0);
	ck_assert_int_eq(img_drop_cache(img), 0);

	struct stat st;
	struct statvfs vfs;
	ck_assert_int_eq(img_stat(img, &st), 0);
	ck_assert_int_eq(st.st_size, SIZE);
	ck_assert_int_eq(img_statvfs(img, &vfs), 0);
	ck_assert_uint_gt(vfs.f_bsize, 0);
	img_close(img);
	img_close(NULL);
}
END_TEST

START_TEST(read_only_changes_nothing)
{
	char byte = 'x';
	make_file("image", SIZE);
	struct img *img = open_img(testdir_path("image"), true);
	ck_assert(img->read_only);
	ck_assert_int_eq(img_pwrite(img, &byte, 1, 0), -EROFS);
	ck_assert_int_eq(img_fallocate(img, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), -EROFS);
	ck_assert_int_eq(img_copy(img, 0, 4096, 4096), -EROFS);
	ck_assert_int_eq(img_pread(img, &byte, 1, 0), 1);
	ck_assert_int_eq(byte, 0);
	img_close(img);
}
END_TEST

/* A memory file punches and seeks wherever the tests run. */
static struct img *open_memory(int *ret_fd)
{
	char path[64];
	*ret_fd = memfd_create("image", MFD_CLOEXEC);
	ck_assert_int_ge(*ret_fd, 0);
	ck_assert_int_eq(ftruncate(*ret_fd, SIZE), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", *ret_fd);
	return open_img(path, false);
}

START_TEST(fallocate_stays_within_the_image)
{
	int fd;
	struct img *img = open_memory(&fd);
	const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	char data[8192], back[8192], zeros[8192] = { 0 };
	memset(data, 'd', sizeof(data));
	ck_assert_int_eq(img_pwrite(img, data, sizeof(data), SIZE - sizeof(data)), sizeof(data));

	ck_assert_int_eq(img_fallocate(img, punch, SIZE - 4096, UINT64_C(1) << 40), 0);
	ck_assert_int_eq(img_pread(img, back, sizeof(back), SIZE - sizeof(back)), sizeof(back));
	ck_assert_mem_eq(back, data, 4096);
	ck_assert_mem_eq(back + 4096, zeros, 4096);
	ck_assert_int_eq(img_fallocate(img, punch, SIZE, 4096), 0);
	ck_assert_int_eq(img_fallocate(img, punch, UINT64_MAX - 10, UINT64_MAX), 0);

	ck_assert_int_eq(img_fallocate(img, 0, 0, SIZE), 0);
	ck_assert_int_eq(img_fallocate(img, 0, 0, SIZE + 1), -EFBIG);
	ck_assert_int_eq(img_fallocate(img, FALLOC_FL_KEEP_SIZE, SIZE, 1), -EFBIG);
	ck_assert_int_eq(img_fallocate(img, 0, UINT64_MAX, UINT64_MAX), -EFBIG);
	ck_assert_int_eq(img_fallocate(img, 0, 0, 0), -EINVAL);
	ck_assert_int_eq(img_fallocate(img, FALLOC_FL_COLLAPSE_RANGE, 0, 4096), -EOPNOTSUPP);
	ck_assert_int_eq(img_fallocate(img, FALLOC_FL_INSERT_RANGE, 0, 4096), -EOPNOTSUPP);
	struct stat st;
	ck_assert_int_eq(img_stat(img, &st), 0);
	ck_assert_int_eq(st.st_size, SIZE);
	img_close(img);
	close(fd);
}
END_TEST

START_TEST(seek_finds_data_and_holes)
{
	int fd;
	struct img *img = open_memory(&fd);
	char data[8192];
	memset(data, 'd', sizeof(data));
	ck_assert_int_eq(img_pwrite(img, data, sizeof(data), 65536), sizeof(data));
	ck_assert_int_eq(img_seek(img, 0, SEEK_DATA), 65536);
	ck_assert_int_eq(img_seek(img, 65540, SEEK_DATA), 65540);
	ck_assert_int_eq(img_seek(img, 65536, SEEK_HOLE), 65536 + 8192);
	ck_assert_int_eq(img_seek(img, 0, SEEK_HOLE), 0);
	ck_assert_int_eq(img_seek(img, 65536 + 8192, SEEK_DATA), -ENXIO);
	ck_assert_int_eq(img_seek(img, SIZE, SEEK_HOLE), -ENXIO);
	ck_assert_int_eq(img_seek(img, SIZE, SEEK_DATA), -ENXIO);
	ck_assert_int_eq(img_seek(img, 0, SEEK_SET), -EINVAL);
	/* Made larger behind our back: the image ends where it ended. */
	ck_assert_int_eq(ftruncate(fd, 2 * SIZE), 0);
	ck_assert_int_eq(pwrite(fd, data, 4096, SIZE + 4096), 4096);
	ck_assert_int_eq(img_seek(img, 65536 + 8192, SEEK_DATA), -ENXIO);
	ck_assert_int_eq(pwrite(fd, data, 8192, SIZE - 4096), 8192);
	ck_assert_int_eq(img_seek(img, SIZE - 4096, SEEK_HOLE), SIZE);
	img_close(img);
	close(fd);
}
END_TEST

static void fill(struct img *img)
{
	for (uint64_t at = 0; at < SIZE; at += sizeof(uint32_t)) {
		uint32_t word = (uint32_t)at * 2654435761u;
		ck_assert_int_eq(img_pwrite(img, &word, sizeof(word), at), sizeof(word));
	}
}

static void check_copy(struct img *img)
{
	static char before[SIZE], after[SIZE];
	fill(img);
	ck_assert_int_eq(img_pread(img, before, SIZE, 0), SIZE);
	ck_assert_int_eq(img_copy(img, 100, 131075, 100001), 100001);
	memcpy(before + 131075, before + 100, 100001);
	ck_assert_int_eq(img_pread(img, after, SIZE, 0), SIZE);
	ck_assert_mem_eq(before, after, SIZE);

	/* Clipped at the end of either range; never a byte beyond. */
	ck_assert_int_eq(img_copy(img, 0, SIZE - 4096, 8192), 4096);
	ck_assert_int_eq(img_copy(img, SIZE - 512, 0, 8192), 512);
	ck_assert_int_eq(img_copy(img, SIZE, 0, 8192), 0);
	ck_assert_int_eq(img_copy(img, 0, SIZE, 8192), -EFBIG);
	ck_assert_int_eq(img_copy(img, 0, 4096, 8192), -EINVAL);
	ck_assert_int_eq(img_copy(img, 4096, 0, 8192), -EINVAL);
	ck_assert_int_eq(img_copy(img, 0, 4096, 4096), 4096);
}

START_TEST(copies_within_a_file)
{
	make_file("image", SIZE);
	struct img *img = open_img(testdir_path("image"), false);
	check_copy(img);
	/* Made larger behind our back: the image ends where it ended. */
	ck_assert_int_eq(truncate(testdir_path("image"), 2 * SIZE), 0);
	ck_assert_int_eq(img_copy(img, SIZE - 512, 0, 8192), 512);
	ck_assert_int_eq(img_copy(img, SIZE, 0, 8192), 0);
	img_close(img);
}
END_TEST

/* A faulty image stacked on a real one: half of the first write lands, then the device is gone. */
struct faulty {
	struct img img;
	struct img *lower;
	bool is_broken;
};

static ssize_t faulty_pwrite(struct img *img, const void *buf, size_t len, uint64_t offset)
{
	struct faulty *faulty = (struct faulty *)img;
	if (faulty->is_broken)
		return -EIO;
	faulty->is_broken = true;
	return img_pwrite(faulty->lower, buf, len / 2, offset);
}

static void faulty_close(struct img *img)
{
	img_close(((struct faulty *)img)->lower);
}

START_TEST(partial_write_is_told)
{
	static const struct img_ops faulty_ops = { .pwrite = faulty_pwrite, .close = faulty_close };
	char data[8192], back[8192], zeros[4096] = { 0 };
	memset(data, 'd', sizeof(data));
	make_file("image", SIZE);
	struct faulty faulty = { .lower = open_img(testdir_path("image"), false) };
	faulty.img = (struct img){ .ops = &faulty_ops, .size_bytes = SIZE };
	ck_assert_int_eq(img_pwrite(&faulty.img, data, sizeof(data), 0), 4096);
	ck_assert_int_eq(img_pwrite(&faulty.img, data, sizeof(data), 0), -EIO);
	ck_assert_int_eq(img_pread(faulty.lower, back, sizeof(back), 0), sizeof(back));
	ck_assert_mem_eq(back, data, 4096);
	ck_assert_mem_eq(back + 4096, zeros, 4096);
	img_close(&faulty.img);
}
END_TEST

static void expect_relock(struct img *img, int code, enum err_exit exit_code)
{
	struct err err = ERR_INIT;
	ck_assert_msg(img_relock(img, &err) == code, "%d, %s", err.code, err.text);
	ck_assert_int_eq(err.exit, exit_code);
	ck_assert_int_eq(err.code, code);
}

START_TEST(without_its_lock_an_image_goes_on)
{
	char data[4096], back[4096];
	memset(data, 'd', sizeof(data));
	make_file("image", SIZE);
	struct img *img = open_img(testdir_path("image"), false);
	img_unlock(img);
	struct img *other = open_img(testdir_path("image"), false);
	struct err err = ERR_INIT;
	ck_assert_int_eq(img_relock(img, &err), -EBUSY);
	ck_assert_int_eq(err.exit, ERR_EXIT_REFUSED);
	ck_assert_msg(strstr(err.text, testdir_path("image")) == err.text && strstr(err.text, "in use") != NULL, "%s",
		err.text);

	ck_assert_int_eq(img_pwrite(other, data, sizeof(data), 4096), sizeof(data));
	ck_assert_int_eq(img_pread(img, back, sizeof(back), 4096), sizeof(back));
	ck_assert_mem_eq(data, back, sizeof(data));
	ck_assert_int_eq(img_pwrite(img, data, sizeof(data), 0), sizeof(data));
	ck_assert_int_eq(img_fallocate(img, FALLOC_FL_KEEP_SIZE, 0, SIZE), 0);
	ck_assert_int_eq(img_flush(img), 0);
	ck_assert_int_eq(img_seek(img, 0, SEEK_DATA), 0);
	img_close(other);

	/* More than once, and the other way round. */
	for (int i = 0; i < 3; i++) {
		expect_relock(img, 0, ERR_EXIT_DONE);
		ck_assert_int_eq(img_open(testdir_path("image"), false, &other, &err), -EBUSY);
		ck_assert_int_eq(img_pwrite(img, data, sizeof(data), 0), sizeof(data));
		ck_assert_int_eq(img_fallocate(img, FALLOC_FL_KEEP_SIZE, 0, SIZE), 0);
		img_unlock(img);
		img_close(open_img(testdir_path("image"), i == 0));
	}
	img_close(img);
	img_close(open_img(testdir_path("image"), false));

	img = open_img(testdir_path("image"), true);
	img_unlock(img);
	other = open_img(testdir_path("image"), true);
	expect_relock(img, -EBUSY, ERR_EXIT_REFUSED);
	img_close(other);
	expect_relock(img, 0, ERR_EXIT_DONE);
	img_close(img);
}
END_TEST

START_TEST(the_lock_is_taken_again_by_inode)
{
	make_file("image", SIZE);
	struct img *img = open_img(testdir_path("image"), false);
	img_unlock(img);
	ck_assert_int_eq(rename(testdir_path("image"), testdir_path("away")), 0);
	make_file("image", SIZE);
	/* Who has the name is nobody to us; who has the inode is. */
	struct img *other = open_img(testdir_path("image"), false);
	expect_relock(img, 0, ERR_EXIT_DONE);
	img_close(other);
	img_close(open_img(testdir_path("image"), false));
	struct err err = ERR_INIT;
	ck_assert_int_eq(img_open(testdir_path("away"), false, &other, &err), -EBUSY);
	img_unlock(img);
	other = open_img(testdir_path("away"), false);
	expect_relock(img, -EBUSY, ERR_EXIT_REFUSED);
	img_close(other);
	/* Nor need it have a name at all. */
	ck_assert_int_eq(unlink(testdir_path("away")), 0);
	expect_relock(img, 0, ERR_EXIT_DONE);
	img_close(img);
}
END_TEST

START_TEST(all_names_of_a_file_have_one_base)
{
	static const char *const names[] = { "image", "base-symlink", "base-hardlink" };
	struct stat st;
	make_file("image", SIZE);
	ck_assert_int_eq(stat(testdir_path("image"), &st), 0);
	ck_assert_int_eq(symlink("image", testdir_path("base-symlink")), 0);
	ck_assert_int_eq(link(testdir_path("image"), testdir_path("base-hardlink")), 0);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct img *img = open_img(testdir_path(names[i]), i == 0);
		ck_assert_uint_eq(img->base_dev, st.st_dev);
		ck_assert_uint_eq(img->base_ino, st.st_ino);
		img_close(img);
	}
}
END_TEST

/* Where clones can be made, test_img_loop.c makes one. */
START_TEST(a_clone_that_cannot_be_made_is_told)
{
	int fd;
	char byte = 'x';
	struct img *img = open_memory(&fd);
	int clone = memfd_create("clone", MFD_CLOEXEC);
	ck_assert_int_ge(clone, 0);
	int r = img_clone(img, clone);
	ck_assert_msg(r == -EOPNOTSUPP || r == -EXDEV || r == -EINVAL, "%s", strerror(-r));
	struct stat st;
	ck_assert_int_eq(fstat(clone, &st), 0);
	ck_assert_int_eq(st.st_size, 0);
	ck_assert_int_eq(img_pwrite(img, &byte, 1, 0), 1);
	ck_assert_int_eq(img_flush(img), 0);
	close(clone);
	img_close(img);
	close(fd);
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("img");
	tcase_add_unchecked_fixture(tcase, testdir_setup, testdir_teardown);
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, what_is_no_image_is_refused);
	tcase_add_test(tcase, rights_are_asked_for);
	tcase_add_test(tcase, reads_and_writes_within_the_image);
	tcase_add_test(tcase, read_only_changes_nothing);
	tcase_add_test(tcase, fallocate_stays_within_the_image);
	tcase_add_test(tcase, seek_finds_data_and_holes);
	tcase_add_test(tcase, copies_within_a_file);
	tcase_add_test(tcase, partial_write_is_told);
	tcase_add_test(tcase, without_its_lock_an_image_goes_on);
	tcase_add_test(tcase, the_lock_is_taken_again_by_inode);
	tcase_add_test(tcase, all_names_of_a_file_have_one_base);
	tcase_add_test(tcase, a_clone_that_cannot_be_made_is_told);
	return testdir_main("img", tcase);
}
