/* SPDX-License-Identifier: MIT */
#include "connection.h"

#include "line.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* An error reply, a new reference. Texts may name files, whose names need not be UTF-8 as JSON must be. */
static json_t *connection_error(enum err_exit exit, const char *text)
{
	json_t *reply = json_pack("{s:b, s:i, s:s}", "ok", 0, "exit", (int)exit, "error", text);
	if (reply != NULL)
		return reply;
	char ascii[sizeof(((struct err *)NULL)->text)];
	size_t len = 0;
	for (; text[len] != '\0' && len < sizeof(ascii) - 1; len++)
		ascii[len] = (char)((unsigned char)text[len] < 0x80 ? text[len] : '?');
	ascii[len] = '\0';
	return json_pack("{s:b, s:i, s:s}", "ok", 0, "exit", (int)exit, "error", ascii);
}

static int connection_reply_error(int fd, enum err_exit exit, const char *text)
{
	json_t *reply = connection_error(exit, text);
	int r = reply != NULL ? line_write(fd, reply, -1) : -ENOMEM;
	json_decref(reply);
	return r;
}

void connection_refuse(int fd, enum err_exit exit, const char *text)
{
	/* What can be sent at once: the buffer of a fresh connection is empty. */
	int flags = fcntl(fd, F_GETFL);
	if (flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0)
		connection_reply_error(fd, exit, text);
}

/* Has the request handled and the reply sent, and closes file. Non-zero ends the connection. */
static int connection_handle(int fd, const struct ctl_handler *handler, void **state, const json_t *request, int file)
{
	struct err err = ERR_INIT;
	json_t *reply = NULL;
	int r = handler->handle(handler->arg, state, request, file, &reply, &err);
	/* Before the reply: who has it may unmount what the file is on. */
	if (file >= 0)
		close(file);
	if (r < 0)
		return connection_reply_error(
			fd, err.code != 0 ? err.exit : ERR_EXIT_FAILED, err.code != 0 ? err.text : strerror(-r));
	r = json_object_set_new(reply, "ok", json_true());
	r = r == 0 ? line_write(fd, reply, -1) : -ENOMEM;
	json_decref(reply);
	/* It was done, and the client does not know. */
	if (r < 0 && handler->lost != NULL)
		handler->lost(handler->arg, *state);
	if (r == -EMSGSIZE || r == -EILSEQ || r == -ENOMEM)
		r = connection_reply_error(
			fd, ERR_EXIT_FAILED, "the reply cannot be sent: a name in it is too long or not UTF-8");
	return r;
}

/* Reads and answers one request. Non-zero ends the connection. */
static int connection_step(struct line_reader *reader, const struct ctl_handler *handler, void **state)
{
	const char *line;
	size_t len;
	int file;
	int r = line_read(reader, CTL_IDLE_S * 1000, &line, &len, &file);
	/* unix(7): the client was closed with a reply that it had not read. */
	if (r == -ECONNRESET && handler->lost != NULL)
		handler->lost(handler->arg, *state);
	if (r == -EMSGSIZE)
		connection_reply_error(reader->fd, ERR_EXIT_FAILED, "the request is too long");
	if (r == -EPROTO)
		connection_reply_error(reader->fd, ERR_EXIT_FAILED,
			"a request may bring one open file along, once the reply to the one before was read");
	if (r == -EMFILE)
		connection_reply_error(reader->fd, ERR_EXIT_FAILED,
			"the instance cannot take the open file that came with the request: it has too many open: try again");
	if (r <= 0)
		return -ECONNABORTED;
	json_t *request = line_parse(line, len);
	if (request == NULL) {
		if (file >= 0)
			close(file);
		connection_reply_error(reader->fd, ERR_EXIT_FAILED, "the request is not a JSON object");
		return -EBADMSG;
	}
	r = connection_handle(reader->fd, handler, state, request, file);
	json_decref(request);
	return r;
}

void connection_serve(int fd, const struct ctl_handler *handler)
{
	void *state = NULL;
	/* Too large for the stack of a thread that calls on into the core. */
	struct line_reader *reader = malloc(sizeof(*reader));
	if (reader != NULL) {
		line_reader_init(reader, fd);
		while (connection_step(reader, handler, &state) == 0)
			;
	} else {
		connection_reply_error(fd, ERR_EXIT_FAILED, "out of memory");
	}
	free(reader);
	handler->closed(handler->arg, state);
}
