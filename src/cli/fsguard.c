/* SPDX-License-Identifier: MIT */
#include "fsguard.h"

#include "fswait.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <syslog.h>

enum fsguard_verb { FSGUARD_FREEZE, FSGUARD_ERA, FSGUARD_THAW };

/* A question, and its answer. */
struct fsguard_message {
	enum fsguard_verb verb;
	unsigned int index; /* of the folder or instance; in the answer to a thaw: of the folder that failed */
	uint64_t era;
	int result; /* 0 or -errno */
};

struct fsguard {
	const struct group *group;
	struct fswait *waits; /* one an instance, in the group's order */
	struct fsdir *dirs;
	unsigned int nr_dirs; /* open */
	unsigned int nr_frozen; /* of them, the first ones */
	int socket; /* to the other process, -1 before it is started */
	pid_t pid; /* of the guard */
};

int fsguard_new(const char *const *names, unsigned int nr_names, const struct group *group,
	struct fsguard **ret_fsguard, struct err *err)
{
	int r = 0;
	struct fsguard *fsguard = calloc(1, sizeof(*fsguard));
	if (fsguard == NULL)
		return err_set(err, -ENOMEM, "out of memory");
	fsguard->group = group;
	fsguard->socket = -1;
	fsguard->waits = calloc(group->nr_order, sizeof(*fsguard->waits));
	fsguard->dirs = calloc(nr_names, sizeof(*fsguard->dirs));
	if (fsguard->waits == NULL || fsguard->dirs == NULL)
		r = err_set(err, -ENOMEM, "out of memory");
	for (unsigned int i = 0; r == 0 && i < group->nr_order; i++)
		fsguard->waits[i].instance = &group->order[i]->target->instance;
	for (unsigned int i = 0; r == 0 && i < nr_names; i++) {
		struct fsdir *dir = &fsguard->dirs[i];
		r = fsdir_open(names[i], dir, err);
		if (r < 0)
			break;
		fsguard->nr_dirs++;
		for (unsigned int j = 0; r == 0 && j < i; j++) {
			if (fsdir_is_same(dir, &fsguard->dirs[j]))
				r = err_set_exit(err, ERR_EXIT_USAGE, -EINVAL,
					"--fsfreeze %s: is the same file system as %s: name it once", dir->name,
					fsguard->dirs[j].name);
		}
		for (unsigned int j = 0; r == 0 && j < group->nr_order; j++)
			r = fsdir_check_instance(dir, &group->order[j]->target->instance, err);
	}
	if (r < 0) {
		fsguard_free(fsguard);
		return r;
	}
	*ret_fsguard = fsguard;
	return 0;
}

void fsguard_free(struct fsguard *fsguard)
{
	if (fsguard == NULL)
		return;
	if (fsguard->socket >= 0)
		close(fsguard->socket);
	for (unsigned int i = 0; i < fsguard->nr_dirs; i++)
		fsdir_close(&fsguard->dirs[i]);
	free(fsguard->dirs);
	free(fsguard->waits);
	free(fsguard);
}

bool fsguard_holds(const struct fsguard *fsguard, const char *path)
{
	bool found = false;
	for (unsigned int i = 0; !found && i < fsguard->nr_dirs; i++)
		found = fsdir_holds(&fsguard->dirs[i], path);
	return found;
}

/* In reverse order, all of them. The first error, and whose it is. */
static int fsguard_thaw_dirs(struct fsguard *fsguard, unsigned int *ret_index)
{
	int first = 0;
	for (; fsguard->nr_frozen > 0; fsguard->nr_frozen--) {
		int r = fsdir_thaw(&fsguard->dirs[fsguard->nr_frozen - 1]);
		if (first == 0 && r < 0) {
			first = r;
			*ret_index = fsguard->nr_frozen - 1;
		}
	}
	return first;
}

/* --- the guard's process --- */

/* Leaves nothing of the caller open: who reads its output waits for the end of it, and a lock may go with a
 * descriptor. */
static void fsguard_close_others(const struct fsguard *fsguard)
{
	unsigned int from = STDERR_FILENO + 1;
	for (;;) {
		unsigned int kept = ~0U;
		for (unsigned int i = 0; i < fsguard->nr_dirs; i++) {
			unsigned int fd = (unsigned int)fsguard->dirs[i].fd;
			if (fd >= from && fd < kept)
				kept = fd;
		}
		if ((unsigned int)fsguard->socket >= from && (unsigned int)fsguard->socket < kept)
			kept = (unsigned int)fsguard->socket;
		if (kept > from)
			close_range(from, kept - 1, 0);
		if (kept == ~0U)
			break;
		from = kept + 1;
	}
}

/* 0 or -errno: then nothing must be frozen. */
static int fsguard_detach(struct fsguard *fsguard)
{
	static const int ignored[] = { SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGQUIT };
	for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
		signal(ignored[i], SIG_IGN);
	prctl(PR_SET_NAME, "era-cli-fsguard");
	if (setsid() < 0 || chdir("/") < 0)
		return -errno;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		if (null < 0 || dup2(null, fd) < 0)
			return -errno;
	}
	fsguard_close_others(fsguard);
	log_to_syslog();
	return 0;
}

static void fsguard_handle(struct fsguard *fsguard, struct fsguard_message *message)
{
	message->result = 0;
	if (message->verb == FSGUARD_ERA) {
		fsguard->waits[message->index].frozen_era = message->era;
		return;
	}
	message->result = fsdir_freeze(&fsguard->dirs[message->index]);
	if (message->result == 0)
		fsguard->nr_frozen++;
}

/* Serves until a thaw or the end of the connection. */
static void fsguard_serve(struct fsguard *fsguard)
{
	struct fsguard_message message;
	for (;;) {
		ssize_t n = recv(fsguard->socket, &message, sizeof(message), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n != sizeof(message) || message.verb == FSGUARD_THAW)
			return;
		fsguard_handle(fsguard, &message);
		/* Whether anybody hears it the next recv() tells. */
		send(fsguard->socket, &message, sizeof(message), MSG_NOSIGNAL);
	}
}

__attribute__((noreturn)) static void fsguard_main(struct fsguard *fsguard)
{
	if (fsguard_detach(fsguard) < 0)
		_exit(EXIT_FAILURE);
	fsguard_serve(fsguard);
	struct fsguard_message message = { .verb = FSGUARD_THAW };
	if (fsguard->nr_frozen > 0)
		fswait_all(fsguard->waits, fsguard->group->nr_order);
	message.result = fsguard_thaw_dirs(fsguard, &message.index);
	if (send(fsguard->socket, &message, sizeof(message), MSG_NOSIGNAL) < 0 && message.result < 0) {
		struct err err = ERR_INIT;
		fsdir_explain_thaw(&fsguard->dirs[message.index], message.result, &err);
		log_write(LOG_ERR, "%s", err.text);
	}
	_exit(EXIT_SUCCESS);
}

/* --- this process --- */

static int fsguard_start(struct fsguard *fsguard, struct err *err)
{
	int ends[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return err_set(err, -errno, "cannot make a socket for the guard of --fsfreeze: %m");
	pid_t pid = fork();
	if (pid == 0) {
		fsguard->socket = ends[1];
		fsguard_main(fsguard);
	}
	int r = pid > 0 ? 0 : err_set(err, -errno, "cannot start the guard of --fsfreeze: %m");
	close(ends[1]);
	if (r < 0) {
		close(ends[0]);
		return r;
	}
	fsguard->socket = ends[0];
	fsguard->pid = pid;
	return 0;
}

/* Asks the guard, and waits. -EPIPE: there is none any more. */
static int fsguard_ask(struct fsguard *fsguard, struct fsguard_message *message)
{
	ssize_t n = send(fsguard->socket, message, sizeof(*message), MSG_NOSIGNAL);
	while (n == sizeof(*message)) {
		n = recv(fsguard->socket, message, sizeof(*message), 0);
		if (n == sizeof(*message))
			return 0;
		if (n < 0 && errno == EINTR)
			n = sizeof(*message);
	}
	return -EPIPE;
}

static int fsguard_is_gone(struct err *err)
{
	return err_set(err, -EPIPE, "the guard of --fsfreeze (a process of era-cli) was killed: try again");
}

int fsguard_freeze(struct fsguard *fsguard, struct err *err)
{
	int r = fsguard_start(fsguard, err);
	for (unsigned int i = 0; r == 0 && i < fsguard->nr_dirs; i++) {
		struct fsguard_message message = { .verb = FSGUARD_FREEZE, .index = i };
		if (fsguard_ask(fsguard, &message) < 0) {
			/* Killed in FIFREEZE it may have frozen it before it was gone. */
			fsdir_thaw(&fsguard->dirs[i]);
			r = fsguard_is_gone(err);
		} else if (message.result < 0) {
			r = fsdir_explain_freeze(&fsguard->dirs[i], message.result, err);
		} else {
			fsguard->nr_frozen++;
		}
	}
	return r;
}

int fsguard_leave(struct fsguard *fsguard, struct err *err)
{
	for (unsigned int i = 0; i < fsguard->group->nr_order; i++) {
		struct fsguard_message message = {
			.verb = FSGUARD_ERA, .index = i, .era = fsguard->group->order[i]->era
		};
		if (fsguard_ask(fsguard, &message) < 0)
			return fsguard_is_gone(err);
	}
	return 0;
}

int fsguard_thaw(struct fsguard *fsguard, struct err *err)
{
	if (fsguard->socket < 0)
		return 0;
	struct fsguard_message message = { .verb = FSGUARD_THAW };
	int r = fsguard_ask(fsguard, &message);
	if (r < 0) {
		log_write(LOG_WARNING, "the guard of --fsfreeze (a process of era-cli) was killed: thawing without it");
		fswait_all(fsguard->waits, fsguard->group->nr_order);
		message.result = fsguard_thaw_dirs(fsguard, &message.index);
	}
	close(fsguard->socket);
	fsguard->socket = -1;
	fsguard->nr_frozen = 0;
	waitpid(fsguard->pid, NULL, 0);
	return message.result < 0 ? fsdir_explain_thaw(&fsguard->dirs[message.index], message.result, err) : 0;
}
