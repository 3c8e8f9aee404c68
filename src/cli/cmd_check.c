/* SPDX-License-Identifier: MIT */
#include "commands.h"
#include "options.h"
#include "out.h"
#include "target.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

static const char check_help[] = "Usage: era-cli check [TARGET]\n"
				 "\n"
				 "Verifies the metadata; and where TARGET is an image that is not mounted, that\n"
				 "it is the image that they were written for. Prints findings, one a line, and\n"
				 "fails (1) when there are any.\n"
				 "\n"
				 "  -h, --help   print this help\n";

struct check {
	FILE *stream; /* of memory */
	unsigned int nr_findings;
};

static void check_finding(const char *text, void *arg)
{
	struct check *check = arg;
	fprintf(check->stream, "%s\n", text);
	check->nr_findings++;
}

/* Size and kind of an image. 0 or -errno. */
static int check_stat_image(const char *path, struct stat *ret_stat, uint64_t *ret_size)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 || fstat(fd, ret_stat) < 0)
		return -errno;
	*ret_size = (uint64_t)ret_stat->st_size;
	if (S_ISBLK(ret_stat->st_mode) && ioctl(fd, BLKGETSIZE64, ret_size) < 0)
		return -errno;
	return 0;
}

/* Does the image at rest look as the metadata left it? */
static int check_binding(struct check *check, const char *image, const struct meta_super *super, struct err *err)
{
	struct stat st;
	uint64_t size;
	int r = check_stat_image(image, &st, &size);
	if (r < 0)
		return err_set(err, r, "%s: cannot look at the image: %s", image, strerror(-r));
	if (size != super->image_size) {
		fprintf(check->stream,
			"%s: has %" PRIu64 " bytes, the metadata are of an image with %" PRIu64
			": mount it with -o resize if it was resized, with -o bypass=mark-all if it is another image\n",
			image, size, super->image_size);
		check->nr_findings++;
	}
	int64_t mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
	/* A device has no usable mtime, and an image that was not stopped in order has none on record. */
	if (S_ISREG(st.st_mode) && !super->image_is_device && super->state == META_CLEAN &&
		mtime_ns != super->image_mtime_ns) {
		fprintf(check->stream,
			"%s: was modified while it was not mounted, so that changes are not recorded: mount it with -o bypass=mark-all and take a full backup\n",
			image);
		check->nr_findings++;
	}
	return 0;
}

static int check_all(const struct target *target, struct check *check, struct err *err)
{
	struct meta_reader *reader;
	int r = meta_reader_open(target->database, &reader, err);
	if (r < 0)
		return r;
	r = meta_reader_check(reader, check_finding, check, err);
	if (r >= 0 && target->image != NULL)
		r = check_binding(check, target->image, meta_reader_super(reader), err);
	meta_reader_close(reader);
	return r < 0 ? r : 0;
}

static int check_target(const struct target *target, struct err *err)
{
	char *text = NULL;
	size_t size;
	struct check check = { .stream = open_memstream(&text, &size) };
	if (check.stream == NULL)
		return err_set(err, -ENOMEM, "out of memory");
	int r = check_all(target, &check, err);
	if (fclose(check.stream) != 0 && r == 0)
		r = err_set(err, -ENOMEM, "out of memory");
	if (r == 0)
		r = out_print(text, err);
	free(text);
	return r == 0 && check.nr_findings > 0 ? ERR_EXIT_FAILED : r;
}

static int check_run(int argc, char **argv, struct err *err)
{
	static const struct option longs[] = { OPTIONS_HELP, OPTIONS_END };
	int c;
	while ((c = options_next(argc, argv, ":h", longs, err)) != -1) {
		if (c == '?')
			return err->code;
		return out_print(check_help, err);
	}
	struct target *target;
	int r = options_check_operands(argc, argv, 0, 1, NULL, err);
	if (r == 0)
		r = target_find(options_operand(argc, argv, 0), &target, err);
	if (r < 0)
		return r;
	r = check_target(target, err);
	target_free(target);
	return r;
}

const struct command cmd_check = {
	.name = "check",
	.summary = "verify metadata, and that the image is theirs",
	.help = check_help,
	.run = check_run,
};
