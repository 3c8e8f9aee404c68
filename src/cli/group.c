/* SPDX-License-Identifier: MIT */
#include "group.h"

#include "flush.h"
#include "out.h"

#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

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

int group_find(struct group *group, const char *const *names, unsigned int nr, const char *deed, struct err *err)
{
	group->nr_members = nr > 0 ? nr : 1;
	group->members = calloc(group->nr_members, sizeof(*group->members));
	group->order = calloc(group->nr_members, sizeof(struct member *));
	if (group->members == NULL || group->order == NULL)
		return err_set(err, -ENOMEM, "out of memory");
	for (unsigned int i = 0; i < group->nr_members; i++) {
		struct member *member = &group->members[i];
		int r = target_find(nr > 0 ? names[i] : NULL, &member->target, err);
		if (r == 0)
			r = target_require_live(member->target, deed, err);
		if (r < 0)
			return r;
	}
	group_make_order(group);
	return 0;
}

void group_clear(struct group *group)
{
	for (unsigned int i = 0; group->members != NULL && i < group->nr_members; i++) {
		ctl_disconnect(group->members[i].client);
		target_free(group->members[i].target);
	}
	free(group->members);
	free(group->order);
	*group = (struct group){ 0 };
}

int group_probe(const struct group *group, struct err *err)
{
	int r = 0;
	for (unsigned int i = 0; r == 0 && i < group->nr_order; i++)
		r = flush_probe(group->order[i]->target, err);
	return r;
}

int group_flush(const struct group *group, struct err *err)
{
	int r = 0;
	for (unsigned int i = 0; r == 0 && i < group->nr_order; i++)
		r = flush_mounted(group->order[i]->target, err);
	return r;
}

static int member_connect(struct member *member, struct err *err)
{
	if (member->client != NULL)
		return 0;
	int r = ctl_connect(&member->target->instance, &member->client, err);
	return r < 0 ? err_prefix(err, "%s", member->target->name) : 0;
}

int group_close_gates(struct group *group, struct err *err)
{
	json_t *request = json_pack("{s:s}", "request", "gate");
	int r = request != NULL ? 0 : err_set(err, -ENOMEM, "out of memory");
	for (unsigned int i = 0; r == 0 && i < group->nr_order; i++) {
		struct member *member = group->order[i];
		json_t *reply = NULL;
		r = member_connect(member, err);
		if (r < 0)
			break;
		r = ctl_call(member->client, request, TARGET_CHECKPOINT_S, &reply, err);
		if (r < 0)
			target_explain(member->target, TARGET_CHECKPOINT_S, err);
		json_decref(reply);
	}
	json_decref(request);
	return r;
}

static int member_send(struct member *member, const json_t *request, int fd, struct err *err)
{
	member->done = false;
	int r = member_connect(member, err);
	if (r == 0) {
		r = ctl_send(member->client, request, fd, err);
		if (r < 0)
			err_prefix(err, "%s", member->target->name);
	}
	member->asked = r == 0;
	return r;
}

static int member_receive(struct member *member, bool wants_era, struct err *err)
{
	json_t *reply = NULL;
	int r = ctl_receive(member->client, TARGET_CHECKPOINT_S, &reply, err);
	if (r < 0)
		target_explain(member->target, TARGET_CHECKPOINT_S, err);
	else if (wants_era && ctl_u64(reply, "era", &member->era) < 0)
		r = err_set(err, -EPROTO, "%s: its instance answered what is no reply", member->target->name);
	member->done = r == 0 && wants_era;
	json_decref(reply);
	return r;
}

/* Keeps the first error, which is told last. */
static int group_note(int first, int r, const struct err *member_err, struct err *err)
{
	if (r == 0)
		return first;
	if (first == 0)
		*err = *member_err;
	else
		log_write(LOG_ERR, "%s", member_err->text);
	return first == 0 ? r : first;
}

int group_ask(struct group *group, json_t *request, int fd, bool wants_era, struct err *err)
{
	if (request == NULL)
		return err_set(err, -ENOMEM, "out of memory");
	int first = 0;
	for (unsigned int i = 0; i < group->nr_order; i++) {
		struct err member_err = ERR_INIT;
		first = group_note(first, member_send(group->order[i], request, fd, &member_err), &member_err, err);
	}
	json_decref(request);
	for (unsigned int i = 0; i < group->nr_order; i++) {
		struct err member_err = ERR_INIT;
		if (group->order[i]->asked)
			first = group_note(
				first, member_receive(group->order[i], wants_era, &member_err), &member_err, err);
	}
	return first;
}

void group_disconnect(struct group *group)
{
	for (unsigned int i = 0; i < group->nr_order; i++) {
		ctl_disconnect(group->order[i]->client);
		group->order[i]->client = NULL;
	}
}

int group_print(const struct group *group, bool cursor, struct err *err)
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
