/* SPDX-License-Identifier: MIT */
#include "base/mounts.h"

#include "base/cleanup.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

/* Undoes mountinfo's octal escapes (space, tab, newline, backslash), in place. */
static void mounts_unescape(char *text)
{
	char *to = text;
	for (const char *from = text; *from != '\0'; to++) {
		unsigned int code;
		if (from[0] == '\\' && sscanf(from + 1, "%3o", &code) == 1) {
			*to = (char)code;
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = '\0';
}

/* Takes a line of proc(5) apart: id, parent, device, root within it, mount point, its options, optional fields, a hyphen,
 * type, source, options of the file system. */
static bool mounts_parse(char *line, struct mounts_entry *ret_entry)
{
	unsigned int major_nr, minor_nr;
	int at = 0, end = 0, type = 0, type_end = 0, options = 0;

	if (sscanf(line, "%*d %*d %u:%u %*s %n%*s%n", &major_nr, &minor_nr, &at, &end) != 2 || end == 0)
		return false;
	char *tail = strstr(line + end, " - ");
	if (tail == NULL)
		return false;
	sscanf(tail, " - %n%*s%n %*s %n", &type, &type_end, &options);
	if (options == 0)
		return false;
	line[end] = '\0';
	mounts_unescape(line + at);
	tail[type_end] = '\0';
	tail[options + (int)strcspn(tail + options, " \n")] = '\0';
	*ret_entry = (struct mounts_entry){
		.dev = makedev(major_nr, minor_nr),
		.path = line + at,
		.type = tail + type,
		.options = tail + options,
	};
	return true;
}

int mounts_each(int (*visit)(const struct mounts_entry *entry, void *arg), void *arg)
{
	FILE *mounts = fopen("/proc/self/mountinfo", "re");
	if (mounts == NULL)
		return -errno;
	CLEANUP_FREE char *line = NULL;
	size_t size = 0;
	int r = 0;
	while (r == 0 && getline(&line, &size, mounts) >= 0) {
		struct mounts_entry entry;
		if (mounts_parse(line, &entry))
			r = visit(&entry, arg);
	}
	if (r == 0 && ferror(mounts))
		r = -EIO;
	fclose(mounts);
	return r;
}

struct mounts_type {
	dev_t dev;
	char *text;
	size_t size;
};

static int mounts_visit_type(const struct mounts_entry *entry, void *arg)
{
	const struct mounts_type *type = arg;
	if (entry->dev != type->dev)
		return 0;
	return (size_t)snprintf(type->text, type->size, "%s", entry->type) < type->size ? 1 : -E2BIG;
}

int mounts_fs_type(dev_t dev, char *ret_type, size_t size)
{
	struct mounts_type type = { .dev = dev, .text = ret_type, .size = size };
	int r = mounts_each(mounts_visit_type, &type);
	return r == 0 ? -ENOENT : r < 0 ? r : 0;
}

struct mounts_search {
	const char *path;
	dev_t dev;
	const char *uid_option; /* NULL: any file system */
	bool found;
	dev_t found_dev;
};

static bool mounts_has_option(const char *options, const char *option)
{
	size_t len = strlen(option);
	for (const char *at = options; at != NULL; at = strchr(at, ',')) {
		at += *at == ',';
		if (strncmp(at, option, len) == 0 && (at[len] == ',' || at[len] == '\0'))
			return true;
	}
	return false;
}

static int mounts_visit_search(const struct mounts_entry *entry, void *arg)
{
	struct mounts_search *search = arg;
	if ((search->path != NULL && strcmp(entry->path, search->path) != 0) ||
		(search->dev != 0 && entry->dev != search->dev))
		return 0;
	if (search->uid_option != NULL &&
		(strncmp(entry->type, "fuse", 4) != 0 || !mounts_has_option(entry->options, search->uid_option)))
		return 0;
	search->found = true;
	search->found_dev = entry->dev;
	return 0;
}

bool mounts_find(const char *path, dev_t dev, dev_t *ret_dev)
{
	struct mounts_search search = { .path = path, .dev = dev };
	if (mounts_each(mounts_visit_search, &search) < 0 || !search.found)
		return false;
	*ret_dev = search.found_dev;
	return true;
}

bool mounts_is_fuse_of(dev_t dev, const char *path, uid_t uid)
{
	char option[32];
	snprintf(option, sizeof(option), "user_id=%u", (unsigned int)uid);
	struct mounts_search search = { .path = path, .dev = dev, .uid_option = option };
	return mounts_each(mounts_visit_search, &search) == 0 && search.found;
}
