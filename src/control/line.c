/* SPDX-License-Identifier: MIT */
#include "line.h"

#include "base/cleanup.h"
#include "base/io.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

void line_reader_init(struct line_reader *reader, int fd)
{
	reader->fd = fd;
	reader->len = 0;
	reader->taken = 0;
}

static int64_t line_now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* 1 when fd can be read, -ETIMEDOUT, -errno. deadline_ms -1: none. */
static int line_wait(int fd, int64_t deadline_ms)
{
	for (;;) {
		int64_t left = -1;
		if (deadline_ms >= 0) {
			left = deadline_ms - line_now_ms();
			left = left > 0 ? left : 0;
		}
		struct pollfd wanted = { .fd = fd, .events = POLLIN };
		int r = poll(&wanted, 1, (int)left);
		if (r > 0)
			return 1;
		if (r == 0)
			return -ETIMEDOUT;
		if (errno != EINTR)
			return -errno;
	}
}

/*
 * The file that came with the nr_bytes last received, in *file, which keeps it also when an error is given back.
 *
 * Whose is it? The kernel ends a receive behind the message that carries a file (unix(7)), but puts what was sent before
 * it in front: so the last of the bytes was sent together with the file. It is the line's that is being read if no
 * newline comes before that byte. Else somebody has sent on without waiting for the reply, and it may be the next one's.
 */
static int line_take_file(struct msghdr *message, const char *bytes, size_t nr_bytes, int *file)
{
	const struct cmsghdr *rights = CMSG_FIRSTHDR(message);
	bool is_second = *file >= 0;
	/* Nothing but files can come: no other option of the socket is on. */
	if (rights != NULL) {
		int received;
		memcpy(&received, CMSG_DATA(rights), sizeof(received));
		if (is_second)
			close(received);
		else
			*file = received;
	}
	/* What did not fit was closed by the kernel. */
	bool is_cut = (message->msg_flags & MSG_CTRUNC) != 0;
	if (rights == NULL)
		return is_cut ? -EMFILE : 0;
	return is_second || is_cut || (nr_bytes > 1 && memchr(bytes, '\n', nr_bytes - 1) != NULL) ? -EPROTO : 0;
}

/* Receives what is there. Bytes, 0 at the end of the stream, -errno. file NULL: none is taken. */
static ssize_t line_receive(struct line_reader *reader, int *file)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec part = { .iov_base = reader->text + reader->len, .iov_len = sizeof(reader->text) - reader->len };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
	if (file != NULL) {
		message.msg_control = &control;
		/* Not CMSG_SPACE: its padding is room for a second one. */
		message.msg_controllen = CMSG_LEN(sizeof(int));
	}
	ssize_t n = recvmsg(reader->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0)
		return -errno;
	int r = file != NULL ? line_take_file(&message, part.iov_base, (size_t)n, file) : 0;
	if (r < 0)
		return r;
	reader->len += (size_t)n;
	return n;
}

static int line_read_with(struct line_reader *reader, int timeout_ms, const char **ret_line, size_t *ret_len, int *file)
{
	reader->len -= reader->taken;
	memmove(reader->text, reader->text + reader->taken, reader->len);
	reader->taken = 0;

	int64_t deadline_ms = timeout_ms >= 0 ? line_now_ms() + timeout_ms : -1;
	size_t searched = 0;
	for (;;) {
		const char *newline = memchr(reader->text + searched, '\n', reader->len - searched);
		if (newline != NULL) {
			*ret_line = reader->text;
			*ret_len = (size_t)(newline - reader->text);
			reader->taken = *ret_len + 1;
			return 1;
		}
		searched = reader->len;
		if (reader->len == sizeof(reader->text))
			return -EMSGSIZE;
		int r = line_wait(reader->fd, deadline_ms);
		if (r < 0)
			return r;
		ssize_t n = line_receive(reader, file);
		if (n == 0)
			return 0;
		if (n < 0 && n != -EINTR && n != -EAGAIN)
			return (int)n;
	}
}

int line_read(struct line_reader *reader, int timeout_ms, const char **ret_line, size_t *ret_len, int *ret_file)
{
	if (ret_file == NULL)
		return line_read_with(reader, timeout_ms, ret_line, ret_len, NULL);
	*ret_file = -1;
	int r = line_read_with(reader, timeout_ms, ret_line, ret_len, ret_file);
	if (r <= 0 && *ret_file >= 0) {
		close(*ret_file);
		*ret_file = -1;
	}
	return r;
}

/* Sends the first bytes of text, and file with them. How many, or -errno. */
static ssize_t line_send_file(int fd, const char *text, size_t len, int file)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { .bytes = { 0 } };
	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&control.header), &file, sizeof(file));
	struct iovec part = { .iov_base = (void *)text, .iov_len = len };
	struct msghdr message = {
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control.bytes),
	};
	for (;;) {
		ssize_t n = sendmsg(fd, &message, MSG_NOSIGNAL);
		if (n >= 0 || errno != EINTR)
			return n >= 0 ? n : -errno;
	}
}

int line_write(int fd, const json_t *object, int file)
{
	CLEANUP_FREE char *text = json_dumps(object, JSON_COMPACT);
	if (text == NULL)
		return -EILSEQ;
	size_t len = strlen(text);
	if (len + 1 > CTL_LINE_MAX)
		return -EMSGSIZE;
	text[len] = '\n';
	ssize_t sent = file >= 0 ? line_send_file(fd, text, len + 1, file) : 0;
	if (sent < 0)
		return (int)sent;
	return io_write_all(fd, text + sent, len + 1 - (size_t)sent);
}

json_t *line_parse(const char *line, size_t len)
{
	json_t *object = json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL);
	if (json_is_object(object))
		return object;
	json_decref(object);
	return NULL;
}
