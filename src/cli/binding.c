/* SPDX-License-Identifier: MIT */
#include "binding.h"

#include "base/cleanup.h"
#include "base/run.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>

/* A file system that keeps whole seconds (or two of them) has its clock past an mtime by then. */
#define BINDING_COARSE_S 4

/* As in src/core/bind.c. */
#define BINDING_SLACK_NS INT64_C(2000000000)
#define BINDING_REMEDY "take a full backup (and mount with -o bypass=mark-all)"

struct binding {
	void (*finding)(const char *text, void *arg);
	void *arg;
	int nr_findings;
};

__attribute__((format(printf, 2, 3))) static void binding_tell(struct binding *binding, const char *format, ...)
{
	char text[PATH_MAX + 512];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	binding->finding(text, binding->arg);
	binding->nr_findings++;
}

int binding_check_free(const char *image, struct err *err)
{
	struct ctl_instance instance;
	int r = ctl_resolve(image, &instance, err);
	if (r <= 0)
		return r;
	return err_set_exit(
		err, ERR_EXIT_REFUSED, -EBUSY, "%s: is mounted on %s: unmount it first", image, instance.mountpoint);
}

/* Size, kind and mtime of the image that fd is open on, once all that was written to it is durable. */
static int binding_settle(int fd, struct stat *ret_stat, uint64_t *ret_size)
{
	/* Guards the eras that the metadata will show: a power loss must not take back what they tell of. */
	if (fsync(fd) < 0 || fstat(fd, ret_stat) < 0)
		return -errno;
	*ret_size = (uint64_t)ret_stat->st_size;
	if (S_ISBLK(ret_stat->st_mode))
		return ioctl(fd, BLKGETSIZE64, ret_size) < 0 ? -errno : 0;
	return S_ISREG(ret_stat->st_mode) ? 0 : -ENODEV;
}

int binding_take(const char *image, struct meta_super *super, struct err *err)
{
	struct stat st;
	uint64_t size;
	CLEANUP_CLOSE int fd = open(image, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	int r = fd < 0 ? -errno : binding_settle(fd, &st, &size);
	if (r < 0)
		return err_set(err, r, "%s: cannot be used as the image: %s", image, strerror(-r));
	if (size / super->block_size + (size % super->block_size != 0) != super->nr_blocks)
		return err_set(err, -EINVAL,
			"%s: has %" PRIu64 " bytes, which are not the %" PRIu64 " blocks of %" PRIu64
			" bytes of the XML: name the image that it is of",
			image, size, super->nr_blocks, super->block_size);
	/* Where the file system keeps whole seconds a write in this very second would not show later. */
	bool is_coarse = S_ISREG(st.st_mode) && st.st_mtim.tv_nsec == 0;
	if (is_coarse && time(NULL) - st.st_mtim.tv_sec < BINDING_COARSE_S)
		return err_set(
			err, -EAGAIN, "%s: was written to just now: try again in %d seconds", image, BINDING_COARSE_S);
	super->image_size = size;
	super->image_is_device = S_ISBLK(st.st_mode);
	super->image_mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
	super->state = META_CLEAN;
	return 0;
}

/* A file needs no permission to read it for this. 0 or -errno. */
static int binding_stat_image(const char *path, struct stat *ret_stat, uint64_t *ret_size)
{
	if (stat(path, ret_stat) < 0)
		return -errno;
	*ret_size = (uint64_t)ret_stat->st_size;
	if (!S_ISBLK(ret_stat->st_mode))
		return 0;
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	return fd >= 0 && ioctl(fd, BLKGETSIZE64, ret_size) == 0 ? 0 : -errno;
}

static int64_t binding_clock_ns(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/*
 * As a mount judges it (src/core/bind.c), but without the dead session's file: on the boot on which it died, its own last
 * writes cannot be told from somebody else's then, and both are refused. A mount can tell, and recovers. 0 or -errno.
 */
static int binding_mtime_finding(const struct meta_super *super, int64_t mtime_ns, const char **ret_finding)
{
	static const char modified[] = "was changed while it was not mounted: it was modified: " BINDING_REMEDY;
	uint8_t boot_id[16];

	if (meta_is_at_rest(super->state)) {
		*ret_finding = mtime_ns != super->image_mtime_ns ? modified : NULL;
		return 0;
	}
	int r = run_boot_id(boot_id);
	if (r < 0)
		return r;
	bool is_this_boot = memcmp(boot_id, super->boot_id, sizeof(boot_id)) == 0;
	int64_t started_ns = binding_clock_ns(CLOCK_REALTIME) - binding_clock_ns(CLOCK_BOOTTIME);
	if (mtime_ns < super->image_mtime_ns || (!is_this_boot && mtime_ns > started_ns))
		*ret_finding = modified;
	else if (is_this_boot && mtime_ns > (int64_t)super->committed_at_ns + BINDING_SLACK_NS)
		*ret_finding =
			"was modified after the last recorded change, by its eraimgfs, which did not stop in order, or "
			"by somebody else: mount it once, which can tell, or " BINDING_REMEDY;
	return 0;
}

static int binding_check_image(
	struct binding *binding, const char *image, const struct meta_super *super, bool size_alone, struct err *err)
{
	struct stat st;
	uint64_t size;
	int r = binding_stat_image(image, &st, &size);
	if (r < 0)
		return err_set(err, r, "%s: cannot look at the image: %s", image, strerror(-r));
	bool is_device = S_ISBLK(st.st_mode);
	if (is_device != super->image_is_device)
		binding_tell(binding, "%s: was changed while it was not mounted: it is %s now: " BINDING_REMEDY, image,
			is_device ? "a block device" : "no block device");
	if (size != super->image_size)
		binding_tell(binding,
			"%s: was changed while it was not mounted: it has %" PRIu64
			" bytes, its metadata are of %" PRIu64 ": " BINDING_REMEDY
			", or mount with -o resize if it was only resized",
			image, size, super->image_size);
	/* A device has no usable mtime. */
	if (size_alone || is_device || super->image_is_device)
		return 0;
	const char *finding = NULL;
	r = binding_mtime_finding(super, (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec, &finding);
	if (r < 0)
		return err_set(err, r, "%s: cannot tell when it was modified: %s", image, strerror(-r));
	if (finding != NULL)
		binding_tell(binding, "%s: %s", image, finding);
	return 0;
}

static int binding_check_witness(
	struct binding *binding, const char *database, const struct meta_super *super, struct err *err)
{
	struct meta_witness witness;
	if (super->state == META_SNAPSHOT) /* says itself that it is older */
		return 0;
	int r = meta_witness_read(database, super->uuid, &witness);
	if (r < 0)
		return err_set(err, r, "%s.witness: cannot be read: %s", database, strerror(-r));
	if (witness.commit_counter > super->commit_counter)
		binding_tell(binding,
			"%s: lacks commits (it was put back from an older copy, or its -wal was damaged): " BINDING_REMEDY,
			database);
	return 0;
}

int binding_check(const struct target *target, const struct meta_super *super, bool size_alone,
	void (*finding)(const char *text, void *arg), void *arg, struct err *err)
{
	struct binding binding = { .finding = finding, .arg = arg };
	int r = 0;
	if (target->image != NULL)
		r = binding_check_image(&binding, target->image, super, size_alone, err);
	if (r == 0 && !size_alone)
		r = binding_check_witness(&binding, target->database, super, err);
	return r < 0 ? r : binding.nr_findings;
}
