/* SPDX-License-Identifier: MIT */
/*
 * The workers: each reads a request from the kernel into its own buffer and handles it. libfuse's own loop adds and
 * ends threads as it sees fit; a fixed number was faster, and can be joined before anything that it uses goes away.
 */
#include "fs.h"

#include "base/log.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <syslog.h>
#include <unistd.h>

/* Between two kicks at a worker that does not end. */
#define LOOP_KICK_NS (20 * 1000 * 1000)

struct fs_loop {
	struct fuse_session *session;
	int ended_fd;
	_Atomic int error;
	unsigned int nr_threads;
	pthread_t threads[FS_THREADS_MAX];
};

static void loop_on_kick(int signal_nr)
{
}

static void *loop_worker(void *arg)
{
	struct fs_loop *loop = arg;
	struct fuse_buf buf = { 0 };
	sigset_t kick;
	sigemptyset(&kick);
	sigaddset(&kick, SIGUSR1);
	pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
	while (!fuse_session_exited(loop->session)) {
		int r = fuse_session_receive_buf(loop->session, &buf);
		if (r == -EINTR || r == -EAGAIN)
			continue;
		if (r < 0) {
			log_write(LOG_ERR, "reading requests from the kernel: %s", strerror(-r));
			atomic_store(&loop->error, r);
		}
		if (r <= 0)
			break;
		fuse_session_process_buf(loop->session, &buf);
	}
	free(buf.mem);
	/* Can fail only when the counter is full, and then it is readable as well. */
	eventfd_write(loop->ended_fd, 1);
	return NULL;
}

int fs_loop_start(struct fs *fs, unsigned int nr_threads, struct fs_loop **ret_loop, struct err *err)
{
	/* Without SA_RESTART: its only use is to end a read(2). */
	struct sigaction action = { .sa_handler = loop_on_kick };
	if (sigaction(SIGUSR1, &action, NULL) < 0)
		return err_set(err, -errno, "cannot handle signals: %m");
	struct fs_loop *loop = calloc(1, sizeof(*loop));
	if (loop == NULL)
		return err_set(err, -ENOMEM, "not enough memory");
	loop->session = fs->session;
	loop->ended_fd = eventfd(0, EFD_CLOEXEC);
	int r = loop->ended_fd < 0 ? -errno : 0;
	while (r == 0 && loop->nr_threads < nr_threads) {
		r = -pthread_create(&loop->threads[loop->nr_threads], NULL, loop_worker, loop);
		if (r == 0)
			loop->nr_threads++;
	}
	if (r < 0) {
		fs_loop_stop(loop);
		return err_set(err, r, "cannot start %u threads: %s", nr_threads, strerror(-r));
	}
	*ret_loop = loop;
	return 0;
}

int fs_loop_ended_fd(const struct fs_loop *loop)
{
	return loop->ended_fd;
}

/* A kick that comes just before the worker enters read(2) is lost: so more than one. */
static void loop_join(pthread_t thread)
{
	struct timespec until;
	do {
		pthread_kill(thread, SIGUSR1);
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += LOOP_KICK_NS;
		if (until.tv_nsec >= 1000000000) {
			until.tv_nsec -= 1000000000;
			until.tv_sec++;
		}
	} while (pthread_timedjoin_np(thread, NULL, &until) == ETIMEDOUT);
}

int fs_loop_stop(struct fs_loop *loop)
{
	if (loop == NULL)
		return 0;
	fuse_session_exit(loop->session);
	for (unsigned int i = 0; i < loop->nr_threads; i++)
		loop_join(loop->threads[i]);
	int r = atomic_load(&loop->error);
	if (loop->ended_fd >= 0)
		close(loop->ended_fd);
	free(loop);
	return r;
}
