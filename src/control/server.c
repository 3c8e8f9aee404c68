/* SPDX-License-Identifier: MIT */
/*
 * The server: one thread accepts, one thread a connection serves it.
 *
 * A connection's thread ends by itself, marks its slot as ended and is joined by the accepting thread before the slot
 * is used again, or by ctl_server_stop(). A slot's descriptor is closed by its own thread, under the lock, so that stop
 * never shuts down a descriptor that means something else by now.
 */
#include "connection.h"
#include "socket.h"

#include "control/ctl.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#define SERVER_BACKLOG 64
#define SERVER_SEND_S 5 /* a reader that is slower than this loses its connection */
#define SERVER_RETRY_MS 100 /* between tries to accept while descriptors are short */

enum slot_state {
	SLOT_FREE, /* no thread */
	SLOT_SERVING, /* its thread runs, fd is open */
	SLOT_ENDED, /* its thread is about to end and waits to be joined; fd is closed */
};

/* The accepting thread writes to a slot whose thread does not run; while it runs, state and fd are under server->lock.
 * */
struct slot {
	struct ctl_server *server;
	enum slot_state state;
	int fd;
	pthread_t thread;
};

struct ctl_server {
	struct ctl_handler handler;
	char *path;
	dev_t dev; /* of the socket as it was bound, so that another's in its place is not removed */
	ino_t ino;
	int listener;
	int stop; /* eventfd: readable once the server is to stop */
	pthread_t acceptor;
	pthread_mutex_t lock;
	struct slot slots[CTL_CONNECTIONS_MAX];
};

static void *slot_main(void *arg)
{
	struct slot *slot = arg;
	struct ctl_server *server = slot->server;
	/* fd is written before the thread is made and by the thread itself alone. */
	connection_serve(slot->fd, &server->handler);
	pthread_mutex_lock(&server->lock);
	close(slot->fd);
	slot->fd = -1;
	slot->state = SLOT_ENDED;
	pthread_mutex_unlock(&server->lock);
	return NULL;
}

/* A slot that nobody uses, its last thread joined; NULL when all are in use. Accepting thread only. */
static struct slot *server_find_slot(struct ctl_server *server)
{
	for (unsigned int i = 0; i < CTL_CONNECTIONS_MAX; i++) {
		struct slot *slot = &server->slots[i];
		pthread_mutex_lock(&server->lock);
		enum slot_state state = slot->state;
		pthread_mutex_unlock(&server->lock);
		if (state == SLOT_SERVING)
			continue;
		if (state == SLOT_ENDED)
			pthread_join(slot->thread, NULL);
		slot->state = SLOT_FREE;
		return slot;
	}
	return NULL;
}

/* Only root and the user that the server runs as. */
static bool server_may_talk(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return false;
	return peer.uid == 0 || peer.uid == geteuid();
}

/* Gives the connection to a thread, or refuses and closes it. */
static void server_take(struct ctl_server *server, int fd)
{
	if (!server_may_talk(fd)) {
		connection_refuse(fd, ERR_EXIT_REFUSED,
			"this instance belongs to another user: run era-cli as that user or as root");
		close(fd);
		return;
	}
	struct slot *slot = server_find_slot(server);
	if (slot == NULL) {
		connection_refuse(fd, ERR_EXIT_FAILED, "the instance is busy: too many clients at once: try again");
		close(fd);
		return;
	}
	struct timeval limit = { .tv_sec = SERVER_SEND_S };
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0) {
		close(fd);
		return;
	}
	slot->fd = fd;
	slot->state = SLOT_SERVING;
	if (pthread_create(&slot->thread, NULL, slot_main, slot) != 0) {
		slot->state = SLOT_FREE;
		slot->fd = -1;
		connection_refuse(fd, ERR_EXIT_FAILED, "the instance cannot start a thread: try again");
		close(fd);
	}
}

static void *server_main(void *arg)
{
	struct ctl_server *server = arg;
	struct pollfd wanted[] = {
		{ .fd = server->stop, .events = POLLIN },
		{ .fd = server->listener, .events = POLLIN },
	};
	for (;;) {
		if (poll(wanted, 2, -1) < 0)
			continue;
		if (wanted[0].revents != 0)
			return NULL;
		int fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			server_take(server, fd);
		else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
			/* The listener stays readable: do not spin until some are free again. */
			poll(wanted, 1, SERVER_RETRY_MS);
	}
}

/* Removes a socket at path to which nobody listens. 0 when path is free now. */
static int server_clear_stale(const char *path, struct err *err)
{
	struct stat st;
	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : err_set(err, -errno, "%s: %m", path);
	if (!S_ISSOCK(st.st_mode))
		return err_set(err, -EEXIST, "%s: exists and is not a socket: remove it or choose another path", path);
	int fd = socket_connect(path);
	if (fd >= 0)
		close(fd);
	/* A full backlog (EAGAIN) is somebody too. */
	if (fd != -ECONNREFUSED)
		return err_set(err, -EADDRINUSE, "%s: another instance listens there: choose another path", path);
	if (unlink(path) < 0 && errno != ENOENT)
		return err_set(err, -errno, "%s: cannot remove the stale socket: %m", path);
	return 0;
}

static int server_bind(struct ctl_server *server, struct err *err)
{
	int r = server_clear_stale(server->path, err);
	if (r < 0)
		return r;
	server->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (server->listener < 0)
		return err_set(err, -errno, "%s: cannot make a socket: %m", server->path);
	struct sockaddr_un address;
	int folder;
	r = socket_address(server->path, &address, &folder);
	if (r < 0)
		return err_set(err, r, "%s: cannot be a socket's name: %s", server->path, strerror(-r));
	/* bind() gives the name the mode of the socket, less the umask: so there is no moment in which it is open to
	 * others. chmod() puts back what the umask took. */
	struct stat st;
	r = fchmod(server->listener, 0600);
	if (r == 0)
		r = bind(server->listener, (struct sockaddr *)&address, sizeof(address));
	if (r == 0)
		r = lstat(address.sun_path, &st);
	if (r == 0) {
		server->dev = st.st_dev;
		server->ino = st.st_ino;
		r = chmod(address.sun_path, 0600);
	}
	if (r == 0)
		r = listen(server->listener, SERVER_BACKLOG);
	if (r < 0)
		r = err_set(err, -errno, "%s: cannot bind the control socket: %m", server->path);
	if (folder >= 0)
		close(folder);
	return r;
}

/* Frees a server without threads, and removes its socket if it has one. */
static void server_free(struct ctl_server *server)
{
	struct stat st;
	if (server->ino != 0 && lstat(server->path, &st) == 0 && st.st_dev == server->dev && st.st_ino == server->ino)
		unlink(server->path);
	if (server->listener >= 0)
		close(server->listener);
	if (server->stop >= 0)
		close(server->stop);
	pthread_mutex_destroy(&server->lock);
	free(server->path);
	free(server);
}

/* Signals are for the threads that the program chose, not for ours. */
static int server_start_acceptor(struct ctl_server *server)
{
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int r = pthread_create(&server->acceptor, NULL, server_main, server);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -r;
}

int ctl_server_start(
	const char *socket, const struct ctl_handler *handler, struct ctl_server **ret_server, struct err *err)
{
	struct ctl_server *server = calloc(1, sizeof(*server));
	if (server == NULL)
		return err_set(err, -ENOMEM, "%s: out of memory", socket);
	server->handler = *handler;
	server->listener = -1;
	pthread_mutex_init(&server->lock, NULL);
	for (unsigned int i = 0; i < CTL_CONNECTIONS_MAX; i++)
		server->slots[i] = (struct slot){ .server = server, .fd = -1 };
	server->path = strdup(socket);
	server->stop = eventfd(0, EFD_CLOEXEC);
	int r = 0;
	if (server->path == NULL || server->stop < 0)
		r = err_set(err, server->path == NULL ? -ENOMEM : -errno, "%s: cannot start the control server: %m",
			socket);
	if (r == 0)
		r = server_bind(server, err);
	if (r == 0) {
		r = server_start_acceptor(server);
		if (r < 0)
			err_set(err, r, "%s: cannot start a thread: %s", socket, strerror(-r));
	}
	if (r < 0) {
		server_free(server);
		return r;
	}
	*ret_server = server;
	return 0;
}

void ctl_server_stop(struct ctl_server *server)
{
	if (server == NULL)
		return;
	eventfd_write(server->stop, 1);
	pthread_join(server->acceptor, NULL);
	/* No slot gains a thread any more. */
	pthread_mutex_lock(&server->lock);
	for (unsigned int i = 0; i < CTL_CONNECTIONS_MAX; i++) {
		if (server->slots[i].state == SLOT_SERVING)
			shutdown(server->slots[i].fd, SHUT_RDWR);
	}
	pthread_mutex_unlock(&server->lock);
	for (unsigned int i = 0; i < CTL_CONNECTIONS_MAX; i++) {
		struct slot *slot = &server->slots[i];
		pthread_mutex_lock(&server->lock);
		enum slot_state state = slot->state;
		pthread_mutex_unlock(&server->lock);
		if (state != SLOT_FREE)
			pthread_join(slot->thread, NULL);
	}
	server_free(server);
}
