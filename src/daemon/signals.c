/* SPDX-License-Identifier: MIT */
/*
 * The main thread's wait. SIGTERM, SIGINT and SIGHUP are blocked everywhere and come through a descriptor.
 *
 *     serving --signal--> unmount --done--> the workers end --> return
 *                            | busy
 *                            v
 *                         detach; serve until the kernel lets go, a second signal, or LEAVE_S  --> return
 */
#include "fs.h"

#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <syslog.h>
#include <unistd.h>

/* How long a detached mount is still served after a signal. */
#define LEAVE_S 60
#define LEAVE_FROZEN_MS 200

static sigset_t signals_of_interest(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	return set;
}

int fs_signals_block(struct err *err)
{
	sigset_t set = signals_of_interest();
	/* A client or a log reader that goes away is an error of that write, not our end. */
	struct sigaction ignore = { .sa_handler = SIG_IGN };
	int r = -pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (r == 0 && sigaction(SIGPIPE, &ignore, NULL) < 0)
		r = -errno;
	return r == 0 ? 0 : err_set(err, r, "cannot handle signals: %s", strerror(-r));
}

int64_t fs_now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

bool fs_signals_nap(unsigned int ms)
{
	sigset_t set = signals_of_interest();
	struct timespec nap = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };
	return sigtimedwait(&set, NULL, &nap) > 0;
}

/* The name of the signal that came, NULL when there is none after all. */
static const char *signals_read(int signal_fd)
{
	struct signalfd_siginfo info;
	if (read(signal_fd, &info, sizeof(info)) != sizeof(info))
		return NULL;
	return strsignal((int)info.ssi_signo);
}

/* The way out after the first signal; ends with the workers (true), or with patience. */
static bool signals_leave(const struct fs *fs, struct pollfd fds[2])
{
	fs_mount_leave(fs);
	/* Whoever waits in the gate of a frozen image would wait on, and holds the mount: leave at once, they get EIO. */
	int64_t deadline_ms = fs_now_ms() + (fs_has_given_up(fs) ? LEAVE_FROZEN_MS : LEAVE_S * 1000);
	for (;;) {
		int64_t left_ms = deadline_ms - fs_now_ms();
		int nr = poll(fds, 2, left_ms > 0 ? (int)left_ms : 0);
		if (nr < 0 && errno == EINTR)
			continue;
		if (fds[0].revents != 0)
			return true;
		if (nr <= 0)
			break;
		const char *name = signals_read(fds[1].fd);
		if (name != NULL) {
			log_write(LOG_WARNING, "%s: %s again: ending with files still open", fs->options.mountpoint,
				name);
			return false;
		}
	}
	log_write(LOG_WARNING, "%s: still in use: ending with files still open", fs->options.mountpoint);
	return false;
}

bool fs_signals_wait(const struct fs *fs)
{
	sigset_t set = signals_of_interest();
	struct pollfd fds[] = {
		{ .fd = fs_loop_ended_fd(fs->loop), .events = POLLIN },
		/* Where this fails there are no signals, only the unmount: poll(2) passes over -1. */
		{ .fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), .events = POLLIN },
	};
	const char *name = NULL;
	while (fds[0].revents == 0 && name == NULL) {
		if (poll(fds, 2, -1) > 0)
			name = signals_read(fds[1].fd);
	}
	bool has_ended = fds[0].revents != 0;
	if (!has_ended) {
		/* Said afterwards: a log on an image that is frozen would wait for us. */
		has_ended = signals_leave(fs, fds);
		log_write(LOG_NOTICE, "%s: ended by %s", fs->options.mountpoint, name);
	}
	if (fds[1].fd >= 0)
		close(fds[1].fd);
	return has_ended;
}
