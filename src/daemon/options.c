/* SPDX-License-Identifier: MIT */
#include "options.h"

#include "base/io.h"
#include "base/num.h"
#include "core/era.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FS_TRY_HELP "see eraimgfs --help"

static const char fs_help[] = "Usage: eraimgfs IMAGE MOUNTPOINT [-o OPT[,OPT...]]... [-f] [-d]\n"
			      "Mount IMAGE, a raw disk image or a block device, as a file, and record in which\n"
			      "era each of its blocks was written, so that a backup copies only what changed.\n"
			      "\n"
			      "A MOUNTPOINT that is a directory then holds one file with IMAGE's base name; one\n"
			      "that is a regular file becomes the image, and may be IMAGE itself.\n"
			      "\n"
			      "  -o OPT,...            mount options, see below\n"
			      "  -f                    stay in the foreground, messages on standard error\n"
			      "  -d                    the same, and show each FUSE request\n"
			      "  -h, --help            show this help and exit\n"
			      "  -V, --version         show the version and exit\n"
			      "\n"
			      "Mount options:\n"
			      "  metadata=PATH         the metadata database (IMAGE.era)\n"
			      "  nocreate              fail where there is no database\n"
			      "  block_size=SIZE       tracking unit at creation, 4K to 1G (64K)\n"
			      "  ro                    read-only\n"
			      "  bypass=refuse|mark-all\n"
			      "                        image changed behind the tracker, or metadata damaged:\n"
			      "                        refuse, or start anew with every block marked (refuse)\n"
			      "  resize                accept an image that changed size\n"
			      "  intent=SIZE|off       bytes that one write intent stands for; off: each first\n"
			      "                        write to a block in an era waits for a commit (4M)\n"
			      "  intent_max=SIZE|unlimited\n"
			      "                        most bytes that a power loss may blur (8G)\n"
			      "  takeover              take metadata that a living instance has frozen\n"
			      "  control=PATH          control socket (in the run folder)\n"
			      "  threads=N             FUSE worker threads, 1 to 64 (4)\n"
			      "  allow_other           let other users in; adds default_permissions\n"
			      "  allow_root            let root in; adds default_permissions\n"
			      "  default_permissions   the kernel checks the file's mode\n"
			      "  fsname=NAME           source that mount(8) shows (IMAGE)\n"
			      "  subtype=NAME          type that mount(8) shows after \"fuse.\" (eraimgfs)\n"
			      "  nodev, nosuid, noexec, sync, noatime ... as for every file system\n"
			      "\n"
			      "SIZE takes the suffixes K, M and G (powers of 1024). A comma or a backslash in a\n"
			      "value is written with a backslash before it. Unmount with umount MOUNTPOINT, as\n"
			      "an ordinary user with fusermount3 -u MOUNTPOINT. See eraimgfs(8).\n";

const char *fs_options_help(void)
{
	return fs_help;
}

enum option_kind {
	OPTION_STRING, /* name=VALUE into a char * */
	OPTION_TRUE, /* sets a bool */
	OPTION_BLOCK_SIZE,
	OPTION_THREADS,
	OPTION_BYPASS,
	OPTION_INTENT,
	OPTION_INTENT_MAX,
	OPTION_FLAG, /* passed on to the kernel */
	OPTION_IGNORED, /* mount(8)'s own */
	OPTION_IGNORED_VALUE, /* the same, with a value */
};

struct option_row {
	const char *name;
	enum option_kind kind;
	size_t offset;
};

#define MEMBER(m) offsetof(struct fs_options, m)

static const struct option_row option_rows[] = {
	{ "metadata", OPTION_STRING, MEMBER(metadata) },
	{ "control", OPTION_STRING, MEMBER(control) },
	{ "fsname", OPTION_STRING, MEMBER(fsname) },
	{ "subtype", OPTION_STRING, MEMBER(subtype) },
	{ "nocreate", OPTION_TRUE, MEMBER(no_create) },
	{ "resize", OPTION_TRUE, MEMBER(resize) },
	{ "takeover", OPTION_TRUE, MEMBER(takeover) },
	{ "allow_other", OPTION_TRUE, MEMBER(allow_other) },
	{ "allow_root", OPTION_TRUE, MEMBER(allow_root) },
	{ "default_permissions", OPTION_TRUE, MEMBER(default_permissions) },
	{ "block_size", OPTION_BLOCK_SIZE, 0 },
	{ "threads", OPTION_THREADS, 0 },
	{ "bypass", OPTION_BYPASS, 0 },
	{ "intent", OPTION_INTENT, 0 },
	{ "intent_max", OPTION_INTENT_MAX, 0 },
	{ "ro", OPTION_FLAG, 0 },
	{ "rw", OPTION_FLAG, 0 },
	{ "dev", OPTION_FLAG, 0 },
	{ "nodev", OPTION_FLAG, 0 },
	{ "suid", OPTION_FLAG, 0 },
	{ "nosuid", OPTION_FLAG, 0 },
	{ "exec", OPTION_FLAG, 0 },
	{ "noexec", OPTION_FLAG, 0 },
	{ "sync", OPTION_FLAG, 0 },
	{ "async", OPTION_FLAG, 0 },
	{ "dirsync", OPTION_FLAG, 0 },
	{ "atime", OPTION_FLAG, 0 },
	{ "noatime", OPTION_FLAG, 0 },
	{ "defaults", OPTION_IGNORED, 0 },
	{ "auto", OPTION_IGNORED, 0 },
	{ "noauto", OPTION_IGNORED, 0 },
	{ "user", OPTION_IGNORED, 0 },
	{ "nouser", OPTION_IGNORED, 0 },
	{ "users", OPTION_IGNORED, 0 },
	{ "owner", OPTION_IGNORED, 0 },
	{ "group", OPTION_IGNORED, 0 },
	{ "nofail", OPTION_IGNORED, 0 },
	{ "_netdev", OPTION_IGNORED, 0 },
	/* Access times of the image are not kept at all. */
	{ "relatime", OPTION_IGNORED, 0 },
	{ "norelatime", OPTION_IGNORED, 0 },
	{ "strictatime", OPTION_IGNORED, 0 },
	{ "nostrictatime", OPTION_IGNORED, 0 },
	{ "lazytime", OPTION_IGNORED, 0 },
	{ "nolazytime", OPTION_IGNORED, 0 },
	{ "diratime", OPTION_IGNORED, 0 },
	{ "nodiratime", OPTION_IGNORED, 0 },
	/* mount(8) run by a user for an fstab line with "user" names him. */
	{ "user", OPTION_IGNORED_VALUE, 0 },
	{ "comment", OPTION_IGNORED_VALUE, 0 },
};

static int usage_error(struct err *err, const char *what, const char *why)
{
	return err_set_exit(err, ERR_EXIT_USAGE, -EINVAL, "option %s: %s: " FS_TRY_HELP, what, why);
}

static int no_memory(struct err *err)
{
	return err_set(err, -ENOMEM, "not enough memory");
}

static int set_string(char **string, const char *value, struct err *err)
{
	char *copy = strdup(value);
	if (copy == NULL)
		return no_memory(err);
	free(*string);
	*string = copy;
	return 0;
}

static int add_flag(struct fs_options *options, const char *flag, struct err *err)
{
	char *flags;
	if (options->flags == NULL)
		return set_string(&options->flags, flag, err);
	if (asprintf(&flags, "%s,%s", options->flags, flag) < 0)
		return no_memory(err);
	free(options->flags);
	options->flags = flags;
	return 0;
}

static int parse_block_size(struct fs_options *options, const char *value, struct err *err)
{
	uint64_t bytes;
	int r = num_parse_size(value, &bytes);
	if (r == -EINVAL)
		return usage_error(err, "block_size", "not a size, give one like 64K");
	if (r < 0 || bytes < ERA_BLOCK_SIZE_MIN || bytes > ERA_BLOCK_SIZE_MAX)
		return usage_error(err, "block_size", "must be from 4K to 1G");
	if (bytes % ERA_BLOCK_SIZE_MIN != 0)
		return usage_error(err, "block_size", "must be a multiple of 4K");
	options->block_size = bytes;
	return 0;
}

static int parse_threads(struct fs_options *options, const char *value, struct err *err)
{
	uint64_t threads;
	if (num_parse_u64(value, &threads) < 0 || threads < 1 || threads > FS_THREADS_MAX)
		return usage_error(err, "threads", "must be a number from 1 to 64");
	options->threads = (unsigned int)threads;
	return 0;
}

static int parse_bypass(struct fs_options *options, const char *value, struct err *err)
{
	options->mark_all = strcmp(value, "mark-all") == 0;
	if (!options->mark_all && strcmp(value, "refuse") != 0)
		return usage_error(err, "bypass", "must be refuse or mark-all");
	return 0;
}

/* A size, or the word that stands for word_value. */
static int parse_intent(const char *name, const char *value, const char *word, uint64_t word_value, uint64_t *ret_bytes,
	struct err *err)
{
	char why[64];
	*ret_bytes = word_value;
	if (strcmp(value, word) == 0)
		return 0;
	snprintf(why, sizeof(why), "must be %s or a size of at least 4K, like 4M", word);
	if (num_parse_size(value, ret_bytes) < 0 || *ret_bytes < ERA_BLOCK_SIZE_MIN || *ret_bytes > INT64_MAX)
		return usage_error(err, name, why);
	return 0;
}

static int apply_row(struct fs_options *options, const struct option_row *row, const char *value, struct err *err)
{
	char *member = (char *)options + row->offset;
	switch (row->kind) {
	case OPTION_STRING:
		if (value[0] == '\0')
			return usage_error(err, row->name, "its value is empty");
		return set_string((char **)member, value, err);
	case OPTION_TRUE:
		*(bool *)member = true;
		return 0;
	case OPTION_BLOCK_SIZE:
		return parse_block_size(options, value, err);
	case OPTION_THREADS:
		return parse_threads(options, value, err);
	case OPTION_BYPASS:
		return parse_bypass(options, value, err);
	case OPTION_INTENT:
		return parse_intent(row->name, value, "off", 0, &options->intent, err);
	case OPTION_INTENT_MAX:
		return parse_intent(row->name, value, "unlimited", UINT64_MAX, &options->intent_max, err);
	case OPTION_FLAG:
		if (strcmp(row->name, "ro") == 0 || strcmp(row->name, "rw") == 0)
			options->read_only = row->name[1] == 'o';
		return add_flag(options, row->name, err);
	case OPTION_IGNORED:
	case OPTION_IGNORED_VALUE:
		return 0;
	}
	return 0;
}

static bool takes_value(enum option_kind kind)
{
	return kind != OPTION_TRUE && kind != OPTION_FLAG && kind != OPTION_IGNORED;
}

/* One option, "name" or "name=value", already without escapes. */
static int parse_one(struct fs_options *options, char *text, struct err *err)
{
	/* "x-systemd.automount" and the like are for others that read fstab. */
	if (text[0] == '\0' || strncmp(text, "x-", 2) == 0 || strncmp(text, "X-", 2) == 0)
		return 0;
	char *value = strchr(text, '=');
	if (value != NULL)
		*value++ = '\0';
	const char *problem = "is not known";
	for (size_t i = 0; i < sizeof(option_rows) / sizeof(option_rows[0]); i++) {
		const struct option_row *row = &option_rows[i];
		if (strcmp(row->name, text) != 0)
			continue;
		if (takes_value(row->kind) == (value != NULL))
			return apply_row(options, row, value, err);
		problem = value != NULL ? "takes no value" : "needs a value";
	}
	return usage_error(err, text, problem);
}

/* A list as -o takes it: commas part the options, a backslash takes the next character as it is. */
static int parse_list(struct fs_options *options, const char *list, struct err *err)
{
	char *text = malloc(strlen(list) + 1);
	if (text == NULL)
		return no_memory(err);
	int r = 0;
	while (r == 0) {
		size_t len = 0;
		for (; *list != '\0' && *list != ','; list++) {
			if (list[0] == '\\' && list[1] != '\0')
				list++;
			text[len++] = *list;
		}
		text[len] = '\0';
		r = parse_one(options, text, err);
		if (*list++ == '\0')
			break;
	}
	free(text);
	return r;
}

/* A letter or a long option that getopt(3) does not know, or one without its argument. */
static int refuse_word(int c, char **argv, struct err *err)
{
	char letter[] = { '-', (char)optopt, '\0' };
	const char *word = optopt != 0 ? letter : argv[optind - 1];
	return usage_error(err, word, c == ':' ? "needs an argument" : "is not known");
}

static int parse_word(struct fs_options *options, int c, bool is_helper, char **argv, struct err *err)
{
	switch (c) {
	case 'o':
		return parse_list(options, optarg, err);
	case 'r':
		return parse_list(options, "ro", err);
	case 'w':
		return parse_list(options, "rw", err);
	case 'd':
		options->debug = true;
		options->foreground = true;
		return 0;
	case 'f':
		options->foreground |= !is_helper;
		options->fake |= is_helper;
		return 0;
	case 'h':
		options->help = true;
		return 0;
	case 'V':
		options->version = true;
		return 0;
	case 'n': /* no mtab: there is none */
	case 's': /* sloppy */
	case 't': /* the type, by which mount(8) found us */
	case 'v':
		return 0;
	default:
		return refuse_word(c, argv, err);
	}
}

int fs_options_parse(int argc, char **argv, struct fs_options *ret_options, struct err *err)
{
	static const struct option long_options[] = {
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	bool is_helper = strncmp(basename(argv[0]), "mount.", 6) == 0;

	*ret_options = (struct fs_options){
		.threads = FS_THREADS_DEFAULT,
		.intent = FS_INTENT_DEFAULT,
		.intent_max = FS_INTENT_MAX_DEFAULT,
	};
	optind = 0; /* from the start, also when called again */
	opterr = 0;
	for (;;) {
		int c = getopt_long(argc, argv, is_helper ? ":o:rwfnsvt:dhV" : ":o:rwfdhV", long_options, NULL);
		if (c == -1)
			break;
		int r = parse_word(ret_options, c, is_helper, argv, err);
		if (r < 0)
			return r;
		if (ret_options->help || ret_options->version)
			return 0;
	}
	if (argc - optind != 2)
		return err_set_exit(err, ERR_EXIT_USAGE, -EINVAL, "%s: " FS_TRY_HELP,
			argc - optind < 2 ? "give an IMAGE and a MOUNTPOINT" : "more than an IMAGE and a MOUNTPOINT");
	if (ret_options->intent > 0 && ret_options->intent_max < ret_options->intent)
		return usage_error(err, "intent_max", "is less than one intent: raise it, or give intent=off");
	if (ret_options->takeover && ret_options->read_only)
		return err_set_exit(err, ERR_EXIT_USAGE, -EINVAL,
			"takeover: who takes metadata over writes to them: leave ro or takeover out");
	int r = set_string(&ret_options->image, argv[optind], err);
	if (r == 0)
		r = set_string(&ret_options->mountpoint, argv[optind + 1], err);
	return r;
}

/* The file that *path names, symlinks followed where it exists: two names of one database must meet. */
static int resolve_file(char **path, struct err *err)
{
	char *resolved = realpath(*path, NULL);
	int r = resolved != NULL ? 0 : -errno;
	if (r == -ENOENT)
		r = io_absolute(*path, &resolved);
	if (r < 0)
		return err_set(err, r, "%s: %s: its folder must exist and be reachable", *path, strerror(-r));
	free(*path);
	*path = resolved;
	return 0;
}

static int resolve_image(struct fs_options *options, struct err *err)
{
	char *resolved = realpath(options->image, NULL);
	if (resolved == NULL)
		return err_set(err, -errno, "%s: %m: name a disk image or a block device", options->image);
	options->image_name = strdup(basename(options->image));
	free(options->image);
	options->image = resolved;
	return options->image_name != NULL ? 0 : no_memory(err);
}

int fs_options_resolve(struct fs_options *options, struct err *err)
{
	int r = resolve_image(options, err);
	if (r < 0)
		return r;
	if (options->metadata == NULL && asprintf(&options->metadata, "%s.era", options->image) < 0) {
		options->metadata = NULL;
		return no_memory(err);
	}
	r = resolve_file(&options->metadata, err);
	if (r == 0 && options->control != NULL)
		r = resolve_file(&options->control, err);
	if (r == 0 && options->fsname == NULL)
		r = set_string(&options->fsname, options->image, err);
	return r;
}

void fs_options_release(struct fs_options *options)
{
	free(options->image);
	free(options->mountpoint);
	free(options->metadata);
	free(options->control);
	free(options->fsname);
	free(options->subtype);
	free(options->flags);
	free(options->image_name);
	*options = (struct fs_options){ 0 };
}
