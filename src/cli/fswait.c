/* SPDX-License-Identifier: MIT */
#include "fswait.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define FSWAIT_NAP_MS 150

static int64_t fswait_now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Whether seconds have gone by since *since_ms, which starts now when it is 0. */
static bool fswait_lasted(int64_t *since_ms, int64_t seconds)
{
	int64_t now_ms = fswait_now_ms();
	if (*since_ms == 0)
		*since_ms = now_ms;
	return now_ms - *since_ms >= seconds * 1000;
}

/* Asks for the status. 0 and a new reference; -errno. */
static int fswait_ask(const struct ctl_instance *instance, json_t **ret_status)
{
	struct ctl_client *client = NULL;
	struct err err = ERR_INIT;
	json_t *request = json_pack("{s:s}", "request", "status");
	if (request == NULL)
		return -ENOMEM;
	int r = ctl_connect(instance, &client, &err);
	if (r == 0)
		r = ctl_call(client, request, FSWAIT_SILENCE_S, ret_status, &err);
	ctl_disconnect(client);
	json_decref(request);
	return r;
}

static bool fswait_is_over(struct fswait *wait, const json_t *status)
{
	const char *state = ctl_string(status, "state");
	uint64_t era;
	if (state != NULL && strcmp(state, "frozen") == 0) {
		wait->moving_ms = 0;
		return wait->frozen_era != 0 && ctl_u64(status, "frozen_era", &era) == 0 && era != wait->frozen_era;
	}
	if (state != NULL && (strcmp(state, "freezing") == 0 || strcmp(state, "thawing") == 0))
		return fswait_lasted(&wait->moving_ms, FSWAIT_MOVING_S);
	return true;
}

static void fswait_look(struct fswait *wait)
{
	json_t *status = NULL;
	int64_t asked_ms = fswait_now_ms();
	int r = fswait_ask(wait->instance, &status);
	if (r == 0) {
		wait->silent_ms = 0;
		wait->is_over = fswait_is_over(wait, status);
		json_decref(status);
		return;
	}
	/* No socket, nobody who listens, or by now another user's: the instance has ended. */
	if (r == -ENOENT || r == -ECONNREFUSED || r == -EPERM) {
		wait->is_over = true;
		return;
	}
	if (wait->silent_ms == 0)
		wait->silent_ms = asked_ms;
	wait->is_over = fswait_lasted(&wait->silent_ms, FSWAIT_SILENCE_S);
}

void fswait_all(struct fswait *waits, unsigned int nr)
{
	const struct timespec nap = { .tv_nsec = FSWAIT_NAP_MS * 1000000L };
	for (;;) {
		unsigned int nr_left = 0;
		for (unsigned int i = 0; i < nr; i++) {
			if (!waits[i].is_over)
				fswait_look(&waits[i]);
			nr_left += !waits[i].is_over;
		}
		if (nr_left == 0)
			return;
		nanosleep(&nap, NULL);
	}
}
