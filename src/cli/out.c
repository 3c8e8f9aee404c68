/* SPDX-License-Identifier: MIT */
#include "out.h"

#include "base/cleanup.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

static int out_fail(const struct out *out, int code, struct err *err)
{
	return err_set(err, code, "%s: cannot write: %s", out->name, strerror(-code));
}

/* The mode that open(2) would give a new file. This process has one thread. */
static mode_t out_new_mode(void)
{
	mode_t mask = umask(0);
	umask(mask);
	return 0666 & ~mask;
}

/* Something is at path that cannot be replaced by a file: a device, a pipe. */
static int out_open_special(struct out *out, const char *path)
{
	out->stream = fopen(path, "we");
	return out->stream != NULL ? 0 : -errno;
}

/* Opens a temporary file in the folder of path, which is the target of symlinks already. */
static int out_open_temp(struct out *out, const char *path, mode_t mode)
{
	const char *slash = strrchr(path, '/');
	int folder_len = slash != NULL ? (int)(slash - path + 1) : 0;
	out->path = strdup(path);
	if (out->path == NULL || asprintf(&out->temp, "%.*s.era-cli.XXXXXX", folder_len, path) < 0) {
		out->temp = NULL;
		return -ENOMEM;
	}
	int fd = mkostemp(out->temp, O_CLOEXEC);
	if (fd < 0) {
		int r = -errno;
		free(out->temp);
		out->temp = NULL;
		return r;
	}
	out->stream = fchmod(fd, mode) == 0 ? fdopen(fd, "w") : NULL;
	if (out->stream != NULL)
		return 0;
	int r = -errno;
	close(fd);
	return r;
}

int out_open(const char *path, struct out *ret_out, struct err *err)
{
	*ret_out = (struct out){ .name = path };
	if (path == NULL || strcmp(path, "-") == 0) {
		*ret_out = (struct out){ .stream = stdout, .name = "standard output" };
		return 0;
	}
	struct stat st;
	int r;
	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
		r = out_open_special(ret_out, path);
	} else {
		/* Through a symlink its target is replaced, not the link. */
		CLEANUP_FREE char *target = realpath(path, NULL);
		r = out_open_temp(
			ret_out, target != NULL ? target : path, target != NULL ? st.st_mode & 0777 : out_new_mode());
	}
	if (r < 0) {
		out_fail(ret_out, r, err);
		out_abandon(ret_out);
	}
	return r;
}

void out_abandon(struct out *out)
{
	if (out->stream != NULL && out->stream != stdout)
		fclose(out->stream);
	if (out->temp != NULL)
		unlink(out->temp);
	free(out->temp);
	free(out->path);
	*out = (struct out){ 0 };
}

int out_finish(struct out *out, struct err *err)
{
	int r = fflush(out->stream) == 0 ? 0 : -errno;
	if (r == 0 && ferror(out->stream))
		r = -EIO;
	/* Guards against a power loss after the rename that keeps the name and forgets the content. */
	if (r == 0 && out->path != NULL && fsync(fileno(out->stream)) < 0)
		r = -errno;
	/* Some file systems tell of a full disk only here. */
	if (fclose(out->stream) != 0 && r == 0)
		r = -errno;
	out->stream = NULL;
	if (r == 0 && out->path != NULL) {
		r = rename(out->temp, out->path) == 0 ? 0 : -errno;
		if (r == 0) {
			free(out->temp);
			out->temp = NULL;
			/* Guards against a power loss that brings the old file back after we said that it is new. */
			r = io_sync_parent(out->path);
		}
	}
	if (r < 0)
		out_fail(out, r, err);
	out_abandon(out);
	return r;
}

int out_print(const char *text, struct err *err)
{
	struct out out;
	int r = out_open(NULL, &out, err);
	if (r < 0)
		return r;
	/* An error stays with the stream. */
	fputs(text, out.stream);
	return out_finish(&out, err);
}

void out_name(FILE *stream, const char *name)
{
	for (const unsigned char *c = (const unsigned char *)name; *c != '\0'; c++) {
		if (*c < 0x20 || *c == 0x7f || *c == '\\')
			fprintf(stream, "\\%03o", *c);
		else
			fputc(*c, stream);
	}
}
