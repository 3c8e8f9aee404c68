/* SPDX-License-Identifier: MIT */
/* io - small file helpers that are right about short transfers, EINTR and power loss. */
#ifndef BASE_IO_H
#define BASE_IO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Reads until len bytes, end of file or an error. Bytes read (short only at end of file) or -errno. */
ssize_t io_pread_full(int fd, void *buf, size_t len, uint64_t offset);

/* Writes until len bytes or an error. Bytes written (short only when an error came after some bytes were written, as
 * write(2) does), or -errno when nothing was. */
ssize_t io_pwrite_full(int fd, const void *buf, size_t len, uint64_t offset);

/* Writes all of it to a stream descriptor (pipe, socket, file at its position). 0 or -errno; never SIGPIPE on sockets. */
int io_write_all(int fd, const void *buf, size_t len);

/* fsync of the directory that holds path, so that a name made or moved in it survives a power loss. 0 or -errno. */
int io_sync_parent(const char *path);

/* Reads a small text file (e.g. below /proc or /sys) whole, strips the final newline, NUL-terminates.
 * Length or -errno; -E2BIG when it does not fit. */
ssize_t io_read_text(const char *path, char *ret_text, size_t size);

/* First thing in main(): opens /dev/null, in the direction that fails, on those of the descriptors 0 to 2 that the caller has
 * closed. The next file that is opened would take such a number, and messages would go into an image or a database. */
void io_fill_standard(void);

/* path made absolute with symlinks resolved in all but its last component, which need not exist: what names a file
 * without touching it (a mount point that is dead or frozen must not be touched). malloc'ed, 0 or -errno. */
int io_absolute(const char *path, char **ret_path);

#endif
