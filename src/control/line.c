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

int line_read(struct line_reader *reader, int timeout_ms, const char **ret_line, size_t *ret_len)
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
		ssize_t n =
			recv(reader->fd, reader->text + reader->len, sizeof(reader->text) - reader->len, MSG_DONTWAIT);
		if (n == 0)
			return 0;
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return -errno;
		if (n > 0)
			reader->len += (size_t)n;
	}
}

int line_write(int fd, const json_t *object)
{
	CLEANUP_FREE char *text = json_dumps(object, JSON_COMPACT);
	if (text == NULL)
		return -EILSEQ;
	size_t len = strlen(text);
	if (len + 1 > CTL_LINE_MAX)
		return -EMSGSIZE;
	text[len] = '\n';
	return io_write_all(fd, text, len + 1);
}

json_t *line_parse(const char *line, size_t len)
{
	json_t *object = json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL);
	if (json_is_object(object))
		return object;
	json_decref(object);
	return NULL;
}
