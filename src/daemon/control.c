/* SPDX-License-Identifier: MIT */
/*
 * Requests of the control socket, see control/ctl.h for how they travel.
 *
 *     status                     -> every number there is
 *     query                      -> what an answer to `since` needs; refused when fenced
 *     settle                     -> {"settled_from": era}: readers of the database may trust it, see era_settle()
 *     gate                       -> closes the gate until "checkpoint", "freeze" or the connection's end
 *     checkpoint [label]         -> {"era": new era}; closes the gate itself where this connection does not hold it
 *     freeze-prepare             -> what a freeze can do before the gate is closed
 *     freeze [timeout]           -> {"era": era that has ended}; prepares and closes the gate itself where it is not held
 *     thaw [era]                 -> {"era": current era}
 *     label-add name [era]       -> {"era": era that was named}
 *     label-remove name
 *
 * "checkpoint" and "freeze" take a file along, which becomes a clone of the image as it is at that point.
 * The one thing that a connection can hold is the closed gate. A freeze is held by nobody: it lasts until a thaw, by
 * whomever, or its deadline.
 */
#include "fs.h"

#include "base/log.h"
#include "base/num.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

struct control_connection {
	bool holds_gate; /* between era_checkpoint_begin() and commit or abort, all on the connection's thread */
	int fd; /* came with the request that is handled; -1: none */
	uint64_t frozen_era; /* what the request handled last has frozen; 0: nothing */
};

static int no_memory(struct err *err)
{
	return err_set(err, -ENOMEM, "not enough memory");
}

/* ret_reply from a json_pack() that may have failed. */
static int control_reply(json_t *reply, json_t **ret_reply, struct err *err)
{
	*ret_reply = reply;
	return reply != NULL ? 0 : no_memory(err);
}

static int bad_member(struct err *err, const char *key, const char *what)
{
	return err_set_exit(err, ERR_EXIT_USAGE, -EINVAL, "request: member \"%s\" must be %s", key, what);
}

/* The optional string key; NULL when it is missing. */
static int control_optional_string(const json_t *request, const char *key, const char **ret_text, struct err *err)
{
	*ret_text = ctl_string(request, key);
	if (*ret_text == NULL && json_object_get(request, key) != NULL)
		return bad_member(err, key, "a string");
	return 0;
}

static int status_add_intents(json_t *reply, const struct era_status *status)
{
	int r = json_object_set_new(reply, "intent_bytes", json_integer((json_int_t)status->intent_bytes));
	if (r < 0 || status->intent_bytes == 0)
		return r;
	json_t *more = json_pack("{sI sI sb}", "open_intents", (json_int_t)status->open_intents, "blurred_bytes_max",
		(json_int_t)(status->open_intents * status->intent_bytes), "exact_after_kill",
		status->is_exact_after_kill);
	r = json_object_update(reply, more);
	json_decref(more);
	if (r == 0)
		r = json_object_set_new(reply, "intent_max_bytes",
			status->intent_max_bytes == UINT64_MAX ? json_string("unlimited")
							       : json_integer((json_int_t)status->intent_max_bytes));
	return r;
}

static int control_status(struct fs *fs, struct control_connection *connection, const json_t *request,
	json_t **ret_reply, struct err *err)
{
	struct era_status status;
	era_get_status(fs->era, &status);
	/* clang-format off */
	json_t *reply = json_pack("{ss ss ss sI sb sI sI sI sI sb ss ss sI sI sI sI sI sI si}",
		"state", era_state_name(status.state),
		"uuid", fs->instance.uuid,
		"image", fs->instance.image,
		"image_size", (json_int_t)status.image_size,
		"image_is_device", status.image_is_device,
		"block_size", (json_int_t)status.block_size,
		"nr_blocks", (json_int_t)status.nr_blocks,
		"current_era", (json_int_t)status.current_era,
		"generation", (json_int_t)status.generation,
		"read_only", status.read_only,
		"metadata", fs->instance.metadata,
		"mountpoint", fs->instance.mountpoint,
		"parked_requests", (json_int_t)status.parked,
		"commits", (json_int_t)status.commits,
		"committed_requests", (json_int_t)status.committed_requests,
		"checkpoints", (json_int_t)status.checkpoints,
		"digest_steps", (json_int_t)status.digest_steps,
		"wal_frames", (json_int_t)status.wal_frames,
		"pid", (int)getpid());
	/* clang-format on */
	int r = reply != NULL ? 0 : -ENOMEM;
	if (r == 0)
		r = status_add_intents(reply, &status);
	if (r == 0 && status.failure[0] != '\0')
		r = json_object_set_new(reply, "failure", json_string(status.failure));
	if (r == 0 && status.frozen_era > 0)
		r = json_object_set_new(reply, "frozen_era", json_integer((json_int_t)status.frozen_era));
	if (r == 0 && status.thaw_in_s > 0)
		r = json_object_set_new(reply, "thaw_in_s", json_integer(status.thaw_in_s));
	if (r == 0)
		r = json_object_set_new(reply, "auto_thaws", json_integer((json_int_t)status.auto_thaws));
	if (r == 0 && status.auto_thaws > 0)
		r = json_object_set_new(reply, "auto_thaw_reason", json_string(status.auto_thaw_reason));
	if (r == 0 && atomic_load(&fs->mount_dev) != 0 && !fs_mount_is_attached(fs))
		r = json_object_set_new(reply, "detached", json_true());
	if (r < 0) {
		json_decref(reply);
		return no_memory(err);
	}
	*ret_reply = reply;
	return 0;
}

/* Takes reply (NULL: out of memory) and adds what readers need to know of intents. Where the marks cannot be made that is
 * nothing, and a reader counts each intent as its whole extent. */
static int control_settled(struct fs *fs, json_t *reply, json_t **ret_reply, struct err *err)
{
	uint64_t from;
	int r = era_settle(fs->era, &from);
	if (r == 0 && from <= INT64_MAX && reply != NULL)
		json_object_set_new(reply, "settled_from", json_integer((json_int_t)from));
	return control_reply(reply, ret_reply, err);
}

static int control_query(struct fs *fs, struct control_connection *connection, const json_t *request,
	json_t **ret_reply, struct err *err)
{
	struct era_status status;
	int r = era_check_answers(fs->era, err);
	if (r < 0)
		return r;
	/* Before the marks are made: what is written in an era that begins meanwhile is not asked for. */
	era_get_status(fs->era, &status);
	json_t *reply = json_pack("{ss sI ss sb}", "uuid", fs->instance.uuid, "current_era",
		(json_int_t)status.current_era, "metadata", fs->instance.metadata, "read_only", status.read_only);
	return control_settled(fs, reply, ret_reply, err);
}

static int control_settle(struct fs *fs, struct control_connection *connection, const json_t *request,
	json_t **ret_reply, struct err *err)
{
	return control_settled(fs, json_object(), ret_reply, err);
}

static int control_gate(struct fs *fs, struct control_connection *connection, const json_t *request, json_t **ret_reply,
	struct err *err)
{
	int r = era_checkpoint_begin(fs->era, err);
	if (r < 0)
		return r;
	connection->holds_gate = true;
	return control_reply(json_object(), ret_reply, err);
}

static int control_checkpoint(struct fs *fs, struct control_connection *connection, const json_t *request,
	json_t **ret_reply, struct err *err)
{
	const char *label;
	uint64_t era;
	int r = control_optional_string(request, "label", &label, err);
	if (r < 0)
		return r;
	if (!connection->holds_gate)
		r = era_checkpoint_begin(fs->era, err);
	if (r == 0)
		r = era_checkpoint_commit(fs->era, label, connection->fd, &era, err);
	/* Whatever commit returned, the gate is open again. */
	connection->holds_gate = false;
	if (r < 0)
		return r;
	return control_reply(json_pack("{sI}", "era", (json_int_t)era), ret_reply, err);
}

static int control_freeze_prepare(struct fs *fs, struct control_connection *connection, const json_t *request,
	json_t **ret_reply, struct err *err)
{
	int r = era_freeze_prepare(fs->era, err);
	return r < 0 ? r : control_reply(json_object(), ret_reply, err);
}

/* A freeze that nobody knows of is of no use, and may have no deadline. */
static void control_lost(void *arg, void *state)
{
	struct fs *fs = arg;
	const struct control_connection *connection = state;
	struct err err = ERR_INIT;
	uint64_t era;
	if (connection != NULL && connection->frozen_era > 0 &&
		era_thaw(fs->era, connection->frozen_era, &era, &err) == 0)
		log_write(LOG_NOTICE, "thawed: whoever froze it was gone before the answer");
}

static int control_freeze(struct fs *fs, struct control_connection *connection, const json_t *request,
	json_t **ret_reply, struct err *err)
{
	uint64_t timeout_s = CTL_FREEZE_TIMEOUT_S, era;
	int r = ctl_u64(request, "timeout", &timeout_s);
	if ((r < 0 && r != -ENOENT) || timeout_s > CTL_FREEZE_TIMEOUT_MAX_S)
		return bad_member(err, "timeout", "a number of seconds, at most a year");
	r = connection->holds_gate ? 0 : era_freeze_prepare(fs->era, err);
	if (r == 0 && !connection->holds_gate)
		r = era_checkpoint_begin(fs->era, err);
	if (r == 0)
		r = era_freeze_commit(fs->era, (unsigned int)timeout_s, connection->fd, &era, err);
	/* It is the freeze's now, or open again. */
	connection->holds_gate = false;
	if (r < 0)
		return r;
	connection->frozen_era = era;
	r = control_reply(json_pack("{sI}", "era", (json_int_t)era), ret_reply, err);
	if (r < 0)
		control_lost(fs, connection);
	return r;
}

static int control_thaw(struct fs *fs, struct control_connection *connection, const json_t *request, json_t **ret_reply,
	struct err *err)
{
	uint64_t frozen_era = 0, era;
	int r = ctl_u64(request, "era", &frozen_era);
	if ((r < 0 && r != -ENOENT) || (r == 0 && frozen_era == 0))
		return bad_member(err, "era", "a whole number above 0");
	r = era_thaw(fs->era, frozen_era, &era, err);
	return r < 0 ? r : control_reply(json_pack("{sI}", "era", (json_int_t)era), ret_reply, err);
}

static int control_label_add(struct fs *fs, struct control_connection *connection, const json_t *request,
	json_t **ret_reply, struct err *err)
{
	const char *name = ctl_string(request, "name");
	if (name == NULL)
		return bad_member(err, "name", "a string");
	uint64_t era = 0;
	int r = ctl_u64(request, "era", &era);
	if (r < 0 && r != -ENOENT)
		return bad_member(err, "era", "a whole number");
	r = era_label_set(fs->era, name, era, &era, err);
	if (r < 0)
		return r;
	return control_reply(json_pack("{sI}", "era", (json_int_t)era), ret_reply, err);
}

static int control_label_remove(struct fs *fs, struct control_connection *connection, const json_t *request,
	json_t **ret_reply, struct err *err)
{
	const char *name = ctl_string(request, "name");
	if (name == NULL)
		return bad_member(err, "name", "a string");
	int r = era_label_remove(fs->era, name, err);
	return r < 0 ? r : control_reply(json_object(), ret_reply, err);
}

static const struct {
	const char *name;
	int (*handle)(struct fs *fs, struct control_connection *connection, const json_t *request, json_t **ret_reply,
		struct err *err);
} control_requests[] = {
	{ "status", control_status },
	{ "query", control_query },
	{ "settle", control_settle },
	{ "checkpoint", control_checkpoint },
	{ "gate", control_gate },
	{ "freeze-prepare", control_freeze_prepare },
	{ "freeze", control_freeze },
	{ "thaw", control_thaw },
	{ "label-add", control_label_add },
	{ "label-remove", control_label_remove },
};

static int control_handle(void *arg, void **state, const json_t *request, int fd, json_t **ret_reply, struct err *err)
{
	if (*state == NULL)
		*state = calloc(1, sizeof(struct control_connection));
	if (*state == NULL)
		return no_memory(err);
	struct fs *fs = arg;
	if (!atomic_load(&fs->is_open))
		return err_set(err, -EAGAIN, "%s: its eraimgfs is starting: try again", fs->options.image);
	const char *name = ctl_string(request, "request");
	if (name == NULL)
		return bad_member(err, "request", "a string");
	/* A closed gate holds up all writers: no other request may make its time longer. */
	struct control_connection *connection = *state;
	connection->fd = fd;
	connection->frozen_era = 0;
	if (connection->holds_gate && strcmp(name, "checkpoint") != 0 && strcmp(name, "freeze") != 0) {
		era_checkpoint_abort(fs->era);
		connection->holds_gate = false;
		return err_set(err, -EPROTO,
			"after \"gate\" only \"checkpoint\" or \"freeze\" may come, not \"%s\": the gate is open again",
			name);
	}
	for (size_t i = 0; i < sizeof(control_requests) / sizeof(control_requests[0]); i++) {
		if (strcmp(name, control_requests[i].name) == 0)
			return control_requests[i].handle(fs, *state, request, ret_reply, err);
	}
	return err_set(err, -EOPNOTSUPP, "unknown request \"%s\": this eraimgfs is version %s", name, ERAIMGFS_VERSION);
}

static void control_closed(void *arg, void *state)
{
	struct fs *fs = arg;
	struct control_connection *connection = state;
	if (connection != NULL && connection->holds_gate)
		era_checkpoint_abort(fs->era);
	free(connection);
}

struct ctl_handler fs_control_handler(struct fs *fs)
{
	return (struct ctl_handler){
		.handle = control_handle, .lost = control_lost, .closed = control_closed, .arg = fs
	};
}
