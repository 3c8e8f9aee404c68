/* SPDX-License-Identifier: MIT */
/*
 * Several instances are ended together: all gates are closed, one after the other in the order of their UUIDs, so that
 * two clients that name the same instances cannot wait for each other; then all commit. A gate is held by its
 * connection, so whatever ends this process opens them.
 */
#include "commands.h"
#include "options.h"
#include "out.h"
#include "since.h"
#include "target.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char checkpoint_help[] =
	"Usage: era-cli checkpoint [--label NAME] [--cursor] [TARGET...]\n"
	"\n"
	"Ends the current era of each TARGET, all at one point in time, and prints the\n"
	"era that starts: what is written from now on is in it. Of several targets it\n"
	"prints TARGET<tab>ERA, a line each, and nothing when one of them failed.\n"
	"\n"
	"      --label NAME  name the new era as well\n"
	"      --cursor      print UUID:ERA, which other metadata cannot be mistaken for\n"
	"  -h, --help        print this help\n";

enum { CHECKPOINT_LABEL = OPTIONS_LONG_ONLY, CHECKPOINT_CURSOR };

struct member {
	struct target *target;
	/* The member that stands for the instance: itself, or an earlier one that names the same. */
	struct member *same;
	struct ctl_client *client; /* of those that stand for themselves */
	uint64_t era;
};

struct group {
	struct member *members; /* as the user named them */
	unsigned int nr_members;
	struct member **order; /* one an instance, as their gates are closed */
	unsigned int nr_order;
	const char *label; /* NULL: none */
};

static int group_find_targets(struct group *group, const char *const *names, struct err *err)
{
	for (unsigned int i = 0; i < group->nr_members; i++) {
		struct member *member = &group->members[i];
		int r = target_find(names[i], &member->target, err);
		if (r == 0)
			r = target_require_live(member->target, "a checkpoint", err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int group_compare(const void *a, const void *b)
{
	const struct ctl_instance *left = &(*(struct member *const *)a)->target->instance;
	const struct ctl_instance *right = &(*(struct member *const *)b)->target->instance;
	int by_uuid = strcmp(left->uuid, right->uuid);
	return by_uuid != 0 ? by_uuid : strcmp(left->nonce, right->nonce);
}

/* Collapses names of the same instance, and sorts. */
static void group_make_order(struct group *group)
{
	for (unsigned int i = 0; i < group->nr_members; i++) {
		struct member *member = &group->members[i];
		member->same = member;
		for (unsigned int j = 0; j < group->nr_order; j++) {
			if (strcmp(group->order[j]->target->instance.nonce, member->target->instance.nonce) == 0)
				member->same = group->order[j];
		}
		if (member->same == member)
			group->order[group->nr_order++] = member;
	}
	qsort(group->order, group->nr_order, sizeof(group->order[0]), group_compare);
}

/* Flushes what the kernel holds of the mounted file. The daemon cannot: it must not touch its own mount. */
static int checkpoint_flush(const struct target *target, struct err *err)
{
	const char *path = target->instance.file;
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	/* Root may not look into a user's mount. Every open of ours is direct: there is nothing to flush then. */
	if (fd < 0 && errno == EACCES)
		return 0;
	/* Detached: the path shows what lies below the mount, or a dead one. */
	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ENOTCONN))
		return 0;
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(err, -errno, "%s: cannot open %s to flush it: %m", target->name, path);
	if (st.st_dev != target->instance.mount_dev)
		return 0;
	if (fsync(fd) < 0)
		return err_set(err, -errno, "%s: cannot flush %s: %m", target->name, path);
	return 0;
}

/* Does the instance answer at all? To flush the file of one that is stopped would hang without an end. */
static int checkpoint_probe(const struct target *target, struct err *err)
{
	json_t *reply = NULL;
	int r = target_call(target, json_pack("{s:s}", "request", "status"), TARGET_REPLY_S, &reply, err);
	json_decref(reply);
	return r;
}

static int group_prepare(struct group *group, struct err *err)
{
	int r = 0;
	for (unsigned int i = 0; r == 0 && i < group->nr_order; i++) {
		r = checkpoint_probe(group->order[i]->target, err);
		if (r == 0)
			r = checkpoint_flush(group->order[i]->target, err);
	}
	for (unsigned int i = 0; r == 0 && i < group->nr_order; i++) {
		struct member *member = group->order[i];
		r = ctl_connect(&member->target->instance, &member->client, err);
		if (r < 0)
			err_prefix(err, "%s", member->target->name);
	}
	return r;
}

static int group_close_gates(struct group *group, struct err *err)
{
	json_t *request = json_pack("{s:s}", "request", "gate");
	int r = request != NULL ? 0 : err_set(err, -ENOMEM, "out of memory");
	for (unsigned int i = 0; r == 0 && i < group->nr_order; i++) {
		json_t *reply = NULL;
		r = ctl_call(group->order[i]->client, request, TARGET_CHECKPOINT_S, &reply, err);
		if (r < 0)
			target_explain(group->order[i]->target, TARGET_CHECKPOINT_S, err);
		json_decref(reply);
	}
	json_decref(request);
	return r;
}

static int member_receive(struct member *member, struct err *err)
{
	json_t *reply = NULL;
	int r = ctl_receive(member->client, TARGET_CHECKPOINT_S, &reply, err);
	if (r < 0)
		target_explain(member->target, TARGET_CHECKPOINT_S, err);
	else if (ctl_u64(reply, "era", &member->era) < 0)
		r = err_set(err, -EPROTO, "%s: its instance answered what is no reply", member->target->name);
	json_decref(reply);
	return r;
}

/* Asks all before it waits for any: no gate stays closed for the time of another's fsync. */
static int group_commit(struct group *group, struct err *err)
{
	json_t *request = json_pack("{s:s}", "request", "checkpoint");
	int r = request != NULL ? 0 : -ENOMEM;
	if (r == 0 && group->label != NULL)
		r = json_object_set_new(request, "label", json_string(group->label));
	if (r != 0)
		r = err_set(err, -ENOMEM, "out of memory");
	for (unsigned int i = 0; r == 0 && i < group->nr_order; i++)
		r = ctl_send(group->order[i]->client, request, err);
	json_decref(request);
	for (unsigned int i = 0; r == 0 && i < group->nr_order; i++)
		r = member_receive(group->order[i], err);
	return r;
}

static int group_print(const struct group *group, bool cursor, struct err *err)
{
	char *text = NULL;
	size_t size;
	FILE *stream = open_memstream(&text, &size);
	if (stream == NULL)
		return err_set(err, -ENOMEM, "out of memory");
	for (unsigned int i = 0; i < group->nr_members; i++) {
		const struct member *member = &group->members[i];
		if (group->nr_members > 1) {
			out_name(stream, member->target->name);
			fputc('\t', stream);
		}
		if (cursor)
			fprintf(stream, "%s:", member->target->instance.uuid);
		fprintf(stream, "%" PRIu64 "\n", member->same->era);
	}
	int r = fclose(stream) == 0 ? out_print(text, err) : err_set(err, -ENOMEM, "out of memory");
	free(text);
	return r;
}

static int group_checkpoint(struct group *group, const char *const *names, bool cursor, struct err *err)
{
	group->members = calloc(group->nr_members, sizeof(*group->members));
	group->order = calloc(group->nr_members, sizeof(*group->order));
	if (group->members == NULL || group->order == NULL)
		return err_set(err, -ENOMEM, "out of memory");
	int r = group_find_targets(group, names, err);
	if (r < 0)
		return r;
	group_make_order(group);
	r = group_prepare(group, err);
	if (r == 0 && group->nr_order > 1)
		r = group_close_gates(group, err);
	if (r == 0)
		r = group_commit(group, err);
	return r == 0 ? group_print(group, cursor, err) : r;
}

static void group_clear(struct group *group)
{
	for (unsigned int i = 0; group->members != NULL && i < group->nr_members; i++) {
		ctl_disconnect(group->members[i].client);
		target_free(group->members[i].target);
	}
	free(group->members);
	free(group->order);
}

static int checkpoint_run(int argc, char **argv, struct err *err)
{
	static const struct option longs[] = {
		{ "label", required_argument, NULL, CHECKPOINT_LABEL },
		{ "cursor", no_argument, NULL, CHECKPOINT_CURSOR },
		OPTIONS_HELP,
		OPTIONS_END,
	};
	struct group group = { 0 };
	bool cursor = false;
	int c;
	while ((c = options_next(argc, argv, ":h", longs, err)) != -1) {
		if (c == '?')
			return err->code;
		if (c == 'h')
			return out_print(checkpoint_help, err);
		if (c == CHECKPOINT_LABEL)
			group.label = optarg;
		else
			cursor = true;
	}
	if (group.label != NULL && since_check_label(group.label, err) < 0)
		return err->code;
	/* Without a name there is still one member: the target that goes without saying. */
	const char *const nobody[] = { NULL };
	bool named = optind < argc;
	group.nr_members = named ? (unsigned int)(argc - optind) : 1;
	int r = group_checkpoint(&group, named ? (const char *const *)&argv[optind] : nobody, cursor, err);
	group_clear(&group);
	return r;
}

const struct command cmd_checkpoint = {
	.name = "checkpoint",
	.summary = "end the current era and start the next",
	.help = checkpoint_help,
	.run = checkpoint_run,
};
