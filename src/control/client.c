/* SPDX-License-Identifier: MIT */
#include "line.h"
#include "socket.h"

#include "control/ctl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct ctl_client {
	char *socket; /* for errors */
	struct line_reader reader;
};

/* 0 when the process that listens is uid's. */
static int client_check_peer(int fd, uid_t uid)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return -errno;
	return peer.uid == uid ? 0 : -EPERM;
}

int ctl_connect(const struct ctl_instance *instance, struct ctl_client **ret_client, struct err *err)
{
	const char *socket = instance->socket;
	struct ctl_client *client = malloc(sizeof(*client));
	char *name = strdup(socket);
	int fd = -1, r = -ENOMEM;
	if (client == NULL || name == NULL) {
		err_set(err, r, "%s: out of memory", socket);
		goto fail;
	}
	fd = socket_connect(socket);
	r = fd < 0 ? fd : client_check_peer(fd, instance->uid);
	if (r == -EPERM) {
		err_set(err, r, "%s: the socket is not that of user %u, who lists it: it is not asked", socket,
			(unsigned int)instance->uid);
		goto fail;
	}
	if (r < 0) {
		err_set(err, r, "%s: cannot reach the instance: %s: is its eraimgfs still running?", socket,
			strerror(-r));
		goto fail;
	}
	client->socket = name;
	line_reader_init(&client->reader, fd);
	*ret_client = client;
	return 0;
fail:
	if (fd >= 0)
		close(fd);
	free(name);
	free(client);
	return r;
}

void ctl_disconnect(struct ctl_client *client)
{
	if (client == NULL)
		return;
	close(client->reader.fd);
	free(client->socket);
	free(client);
}

int ctl_send(struct ctl_client *client, const json_t *request, int fd, struct err *err)
{
	int r = line_write(client->reader.fd, request, fd);
	/* A server that is busy or refuses us answers before it was asked, and closes: the reply says why. */
	if (r == 0 || r == -EPIPE || r == -ECONNRESET)
		return 0;
	return err_set(err, r, "%s: cannot send the request: %s", client->socket, strerror(-r));
}

/* Turns {"ok": false, ...} into err. */
static int client_take_error(const struct ctl_client *client, const json_t *reply, struct err *err)
{
	const char *text = ctl_string(reply, "error");
	uint64_t exit;
	if (text == NULL || ctl_u64(reply, "exit", &exit) < 0 || exit < ERR_EXIT_FAILED || exit > ERR_EXIT_UNKNOWN)
		return err_set(err, -EIO, "%s: the instance answered what is no reply", client->socket);
	return err_set_exit(err, (enum err_exit)exit, -EREMOTEIO, "%s", text);
}

int ctl_receive(struct ctl_client *client, unsigned int timeout_s, json_t **ret_reply, struct err *err)
{
	const char *line;
	size_t len;
	/* No reply brings a file. One that is taken nonetheless could be another user's trap for root: to close a file of a
	 * FUSE mount may wait for ever. */
	int r = line_read(&client->reader, timeout_s > 0 ? (int)timeout_s * 1000 : -1, &line, &len, NULL);
	if (r == -ETIMEDOUT)
		return err_set(err, r, "%s: no answer within %u s", client->socket, timeout_s);
	if (r <= 0)
		return err_set(err, -EIO,
			"%s: the instance ended the connection%s%s: what it was asked for may have been done or not",
			client->socket, r < 0 ? ": " : "", r < 0 ? strerror(-r) : "");
	json_t *reply = line_parse(line, len);
	if (json_is_true(json_object_get(reply, "ok"))) {
		*ret_reply = reply;
		return 0;
	}
	r = client_take_error(client, reply, err);
	json_decref(reply);
	return r;
}

int ctl_call(
	struct ctl_client *client, const json_t *request, unsigned int timeout_s, json_t **ret_reply, struct err *err)
{
	int r = ctl_send(client, request, -1, err);
	return r < 0 ? r : ctl_receive(client, timeout_s, ret_reply, err);
}
