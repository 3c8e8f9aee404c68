/* SPDX-License-Identifier: MIT */
#include "socket.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

int socket_address(const char *path, struct sockaddr_un *ret_address, int *ret_folder)
{
	*ret_address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	*ret_folder = -1;
	size_t len = strlen(path);
	if (len < sizeof(ret_address->sun_path)) {
		memcpy(ret_address->sun_path, path, len + 1);
		return 0;
	}
	const char *name = strrchr(path, '/');
	if (name == NULL)
		return -ENAMETOOLONG;
	name++;
	CLEANUP_FREE char *folder = strndup(path, (size_t)(name - path));
	if (folder == NULL)
		return -ENOMEM;
	int fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int n = snprintf(ret_address->sun_path, sizeof(ret_address->sun_path), "/proc/self/fd/%d/%s", fd, name);
	if ((size_t)n >= sizeof(ret_address->sun_path)) {
		close(fd);
		return -ENAMETOOLONG;
	}
	*ret_folder = fd;
	return 0;
}

int socket_connect(const char *path)
{
	struct sockaddr_un address;
	CLEANUP_CLOSE int folder = -1;
	int r = socket_address(path, &address, &folder);
	if (r < 0)
		return r;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	return fd;
}
