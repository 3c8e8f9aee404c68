/* SPDX-License-Identifier: MIT */
/*
 * ctl - how era-cli and a live instance find and talk to each other.
 *
 * Dialogue. The client connects to the instance's Unix stream socket and sends one JSON object a line, at most
 * CTL_LINE_MAX bytes; the server answers each with one line:
 *
 *     {"request": "status"}                        {"ok": true, "state": "running", ...}
 *     {"request": "checkpoint", "label": "x"}      {"ok": true, "era": 7}
 *     {"request": "nonsense"}                      {"ok": false, "exit": 1, "error": "unknown request ..."}
 *
 * A request may bring one open file along (SCM_RIGHTS, with any byte of its line); more than one, or one before the
 * reply to an earlier request was read, ends the connection.
 *
 * A connection that is silent for CTL_IDLE_S between requests is closed, also in the middle of a line. What a
 * connection holds (a closed gate) is let go when it ends, however it ends.
 *
 * Only the instance's own user and root are served (SO_PEERCRED); the socket has mode 0600.
 *
 * The registry: one file NONCE.json a live instance, mode 0600, in its user's run folder (base/run.h), with a
 * struct ctl_instance; its socket is NONCE.sock beside it. Written whole or not at all. An entry whose process (pid and
 * start time) is gone is dead, and is passed over. So is, where root looks at another user's folder, an entry that claims
 * what is not that user's: the process, the image, the metadata and the mount must be his.
 */
#ifndef CONTROL_CTL_H
#define CONTROL_CTL_H

#include "base/err.h"

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define CTL_LINE_MAX 65536u
#define CTL_IDLE_S 5
#define CTL_FREEZE_TIMEOUT_S 60 /* of a freeze that says nothing else */
#define CTL_FREEZE_TIMEOUT_MAX_S (366 * 24 * 3600)
#define CTL_CONNECTIONS_MAX 64

struct ctl_instance {
	uid_t uid; /* whose run folder lists it; not in the file */
	char nonce[33]; /* hex, 32 digits */
	char uuid[37];
	pid_t pid;
	uint64_t pid_start; /* /proc/PID/stat field 22 */
	bool read_only;
	char image[PATH_MAX]; /* absolute */
	char metadata[PATH_MAX]; /* absolute */
	char mountpoint[PATH_MAX]; /* absolute */
	char file[PATH_MAX]; /* the mounted file: mountpoint itself, or the file in it */
	char socket[PATH_MAX];
	uint64_t mount_dev; /* st_dev of the mount */
	uint64_t image_dev, image_ino; /* of the backing image */
	bool fenced; /* another has taken image and metadata over: this one is found by its mount alone */
	uint64_t generation; /* of the metadata when it started: who took them over has the greater one */
};

/* Whether instance can be listed, whatever its ids: 0; -EILSEQ with err where a name is not UTF-8, as JSON must be. */
int ctl_registry_can_write(const struct ctl_instance *instance, struct err *err);

/* Writes instance's entry into dir, or removes it. 0 or -errno. */
int ctl_registry_write(const char *dir, const struct ctl_instance *instance, struct err *err);
void ctl_registry_remove(const char *dir, const char *nonce);

/* Calls visit for each live instance that the caller may look into (run_each_dir()). A non-zero return ends it and is
 * given back. Damaged and dead entries are passed over. */
int ctl_registry_each(int (*visit)(const struct ctl_instance *instance, void *arg), void *arg);

/*
 * Finds the live instance that target names: its mount point, its mounted file, its image (also by another name of the
 * same inode) or its metadata. Of several that have one image or metadata, as after a takeover, it is the one with the
 * greatest generation. 1 found, 0 not live, -errno with err. Looks at names before it touches the path, so that a dead
 * mount is no obstacle.
 */
int ctl_resolve(const char *target, struct ctl_instance *ret_instance, struct err *err);

/* --- client --- */

struct ctl_client;

/* Connects to instance's socket, and makes sure that it is its user's (SO_PEERCRED): an entry may name any socket. */
int ctl_connect(const struct ctl_instance *instance, struct ctl_client **ret_client, struct err *err);
void ctl_disconnect(struct ctl_client *client);

/* Sends request (borrowed) and waits for the reply, at most timeout_s (0: for ever). 0 and a new reference in
 * *ret_reply when it says ok; else its error in err (exit and text as the server gave them), or -EIO when the line
 * broke. */
int ctl_call(
	struct ctl_client *client, const json_t *request, unsigned int timeout_s, json_t **ret_reply, struct err *err);

/* The two halves of ctl_call(), for a client of several servers that asks all before it waits for any. Replies come in
 * the order of the requests. fd goes along with the request (SCM_RIGHTS); -1: none. */
int ctl_send(struct ctl_client *client, const json_t *request, int fd, struct err *err);
int ctl_receive(struct ctl_client *client, unsigned int timeout_s, json_t **ret_reply, struct err *err);

/* --- server --- */

struct ctl_server;

struct ctl_handler {
	/*
	 * One request of a connection, on that connection's thread. Returns 0 and a new reference to an object in
	 * *ret_reply ("ok" is added), or -errno with err filled. *state belongs to the connection, NULL at first. fd came with
	 * the request (-1: none did) and is closed after the call.
	 */
	int (*handle)(void *arg, void **state, const json_t *request, int fd, json_t **ret_reply, struct err *err);
	/* The reply to the request handled last could not be sent, or the client was closed without reading it: nobody knows of
	 * what it did. On the same thread, before closed. May be NULL. */
	void (*lost)(void *arg, void *state);
	/* The connection ended; lets go of state (NULL when handle left it so). Once a connection, on the same thread,
	 * after its last handle. */
	void (*closed)(void *arg, void *state);
	void *arg;
};

/* Binds the socket (a stale one, to which nobody listens, is replaced; a live one is -EADDRINUSE) and serves it, a
 * thread a connection. handler is copied. */
int ctl_server_start(
	const char *socket, const struct ctl_handler *handler, struct ctl_server **ret_server, struct err *err);

/* Closes all connections, waits for their handlers, removes the socket. NULL is fine. */
void ctl_server_stop(struct ctl_server *server);

/* --- words of the grammar, for both sides --- */

/* String member key of object, or NULL. */
const char *ctl_string(const json_t *object, const char *key);

/* Unsigned member: 0 and *ret_value; -ENOENT missing; -EINVAL not an integer >= 0. Eras are JSON integers (at most
 * 2^63 - 1). */
int ctl_u64(const json_t *object, const char *key, uint64_t *ret_value);

#endif
