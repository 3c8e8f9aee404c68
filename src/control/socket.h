/* SPDX-License-Identifier: MIT */
/* socket - Unix socket names of any length, private to the layer. */
#ifndef CONTROL_SOCKET_H
#define CONTROL_SOCKET_H

#include <sys/socket.h>
#include <sys/un.h>

/*
 * Makes path an address. sun_path holds 107 bytes: a longer path is named through its folder's descriptor below
 * /proc/self/fd, which *ret_folder then is (else -1) and which stays open until bind() or connect() is done.
 * 0, -ENAMETOOLONG (the last component alone is too long) or -errno of the folder.
 */
int socket_address(const char *path, struct sockaddr_un *ret_address, int *ret_folder);

/* connect(2) to path. A descriptor or -errno. */
int socket_connect(const char *path);

#endif
