/* SPDX-License-Identifier: MIT */
#include "base/io.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>

ssize_t io_pread_full(int fd, void *buf, size_t len, uint64_t offset)
{
	size_t done = 0;
	while (done < len) {
		ssize_t n = pread(fd, (char *)buf + done, len - done, (off_t)(offset + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

ssize_t io_pwrite_full(int fd, const void *buf, size_t len, uint64_t offset)
{
	size_t done = 0;
	while (done < len) {
		ssize_t n = pwrite(fd, (const char *)buf + done, len - done, (off_t)(offset + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n > 0) {
			done += (size_t)n;
			continue;
		}
		if (done > 0)
			break;
		return n < 0 ? -errno : -EIO;
	}
	return (ssize_t)done;
}

int io_write_all(int fd, const void *buf, size_t len)
{
	bool is_socket = true;
	const char *pos = buf;
	while (len > 0) {
		ssize_t n = is_socket ? send(fd, pos, len, MSG_NOSIGNAL) : write(fd, pos, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == ENOTSOCK && is_socket) {
			is_socket = false;
			continue;
		}
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		pos += n;
		len -= (size_t)n;
	}
	return 0;
}

/* Bytes of path up to its last component, without the slashes between. 0: there is nothing before it. */
static size_t io_parent_len(const char *path, size_t path_len)
{
	while (path_len > 1 && path[path_len - 1] == '/')
		path_len--;
	while (path_len > 0 && path[path_len - 1] != '/')
		path_len--;
	while (path_len > 1 && path[path_len - 1] == '/')
		path_len--;
	return path_len;
}

int io_sync_parent(const char *path)
{
	size_t len = io_parent_len(path, strlen(path));
	CLEANUP_FREE char *parent = len > 0 ? strndup(path, len) : strdup(".");
	if (parent == NULL)
		return -ENOMEM;
	CLEANUP_CLOSE int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	/* Guards against a power loss that keeps the file's blocks and forgets its name. */
	return fsync(fd) == 0 ? 0 : -errno;
}

ssize_t io_read_text(const char *path, char *ret_text, size_t size)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	size_t len = 0;
	while (len < size) {
		ssize_t n = read(fd, ret_text + len, size - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += (size_t)n;
	}
	if (len == size)
		return -E2BIG;
	if (len > 0 && ret_text[len - 1] == '\n')
		len--;
	ret_text[len] = '\0';
	return (ssize_t)len;
}

void io_fill_standard(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		if (fcntl(fd, F_GETFD) < 0 && errno == EBADF &&
			open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
			abort();
	}
}

/* Whether the last component is "..", which only a full resolution can name. */
static bool io_ends_in_dotdot(const char *path, size_t len)
{
	return len >= 2 && memcmp(path + len - 2, "..", 2) == 0 && (len == 2 || path[len - 3] == '/');
}

int io_absolute(const char *path, char **ret_path)
{
	size_t len = strlen(path);
	if (len == 0)
		return -ENOENT;
	/* "mnt/" and "mnt/." name what "mnt" names. */
	while (len > 1 && (path[len - 1] == '/' || (path[len - 1] == '.' && path[len - 2] == '/')))
		len--;
	bool is_whole = (len == 1 && (path[0] == '.' || path[0] == '/')) || io_ends_in_dotdot(path, len);
	size_t parent_len = is_whole ? len : io_parent_len(path, len);
	CLEANUP_FREE char *parent = parent_len > 0 ? strndup(path, parent_len) : strdup(".");
	if (parent == NULL)
		return -ENOMEM;
	char *resolved = realpath(parent, NULL);
	if (resolved == NULL)
		return -errno;
	if (is_whole) {
		*ret_path = resolved;
		return 0;
	}
	const char *name = path + parent_len;
	while (*name == '/')
		name++;
	const char *slash = strcmp(resolved, "/") == 0 ? "" : "/";
	int n = asprintf(ret_path, "%s%s%.*s", resolved, slash, (int)(path + len - name), name);
	free(resolved);
	return n >= 0 ? 0 : -ENOMEM;
}
