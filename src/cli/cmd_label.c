/* SPDX-License-Identifier: MIT */
#include "commands.h"
#include "options.h"
#include "out.h"
#include "since.h"
#include "target.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char label_help[] = "Usage: era-cli label add NAME [--era N] [TARGET]\n"
				 "       era-cli label list [TARGET]\n"
				 "       era-cli label rm NAME [TARGET]\n"
				 "\n"
				 "Names eras, for `era-cli since NAME`. add prints NAME<tab>ERA and moves a label\n"
				 "that exists; list prints such a line for each label; rm forgets one.\n"
				 "\n"
				 "      --era N  the era to name, at most the current one, which is the default\n"
				 "  -h, --help   print this help\n"
				 "\n"
				 "NAME is a letter or underscore, then letters, digits, '.', '_' or '-', at most\n"
				 "64 in all.\n";

struct label_options {
	const char *era; /* NULL: none was given */
	bool help;
};

static json_t *label_add_request(const char *name, const uint64_t *era)
{
	json_t *request = json_pack("{s:s, s:s}", "request", "label-add", "name", name);
	if (request != NULL && era != NULL)
		json_object_set_new(request, "era", json_integer((json_int_t)*era));
	return request;
}

static int label_add(int argc, char **argv, const struct label_options *options, struct err *err)
{
	uint64_t era;
	int r = options_check_operands(argc, argv, 2, 3, "NAME", err);
	if (r == 0)
		r = since_check_label(options_operand(argc, argv, 1), err);
	if (r == 0 && options->era != NULL)
		r = since_parse_era(options->era, &era, err);
	if (r == 0 && options->era != NULL && (era == 0 || era > INT64_MAX))
		r = err_set_exit(err, ERR_EXIT_USAGE, -ERANGE, "'%s': eras count from 1 to 2^63 - 1", options->era);
	if (r < 0)
		return r;

	struct target *target;
	json_t *reply = NULL;
	const char *name = options_operand(argc, argv, 1);
	r = target_find(options_operand(argc, argv, 2), &target, err);
	if (r < 0)
		return r;
	r = target_require_live(target, "setting a label", err);
	if (r == 0)
		r = target_call(target, label_add_request(name, options->era != NULL ? &era : NULL), TARGET_REPLY_S,
			&reply, err);
	if (r == 0 && ctl_u64(reply, "era", &era) < 0)
		r = err_set(err, -EPROTO, "%s: its instance answered what is no reply", target->name);
	json_decref(reply);
	target_free(target);
	if (r < 0)
		return r;
	char line[META_LABEL_MAX + 32];
	snprintf(line, sizeof(line), "%s\t%" PRIu64 "\n", name, era);
	return out_print(line, err);
}

static int label_remove(int argc, char **argv, struct err *err)
{
	int r = options_check_operands(argc, argv, 2, 3, "NAME", err);
	if (r == 0)
		r = since_check_label(options_operand(argc, argv, 1), err);
	if (r < 0)
		return r;
	struct target *target;
	json_t *reply = NULL;
	r = target_find(options_operand(argc, argv, 2), &target, err);
	if (r < 0)
		return r;
	r = target_require_live(target, "removing a label", err);
	if (r == 0)
		r = target_call(target,
			json_pack("{s:s, s:s}", "request", "label-remove", "name", options_operand(argc, argv, 1)),
			TARGET_REPLY_S, &reply, err);
	json_decref(reply);
	target_free(target);
	return r;
}

static int label_write(const char *name, uint64_t era, void *arg)
{
	FILE *stream = arg;
	fprintf(stream, "%s\t%" PRIu64 "\n", name, era);
	return 0;
}

static int label_list(int argc, char **argv, struct err *err)
{
	struct target *target;
	struct meta_reader *reader = NULL;
	char *text = NULL;
	size_t size;
	int r = options_check_operands(argc, argv, 1, 2, NULL, err);
	if (r == 0)
		r = target_find(options_operand(argc, argv, 1), &target, err);
	if (r < 0)
		return r;
	FILE *stream = open_memstream(&text, &size);
	r = stream != NULL ? target_read(target, &reader, err) : err_set(err, -ENOMEM, "out of memory");
	if (r == 0)
		r = meta_reader_labels(reader, label_write, stream, err);
	meta_reader_close(reader);
	if (stream != NULL && fclose(stream) != 0 && r == 0)
		r = err_set(err, -ENOMEM, "out of memory");
	if (r == 0)
		r = out_print(text, err);
	free(text);
	target_free(target);
	return r;
}

static int label_parse_options(int argc, char **argv, struct label_options *ret_options, struct err *err)
{
	static const struct option longs[] = { { "era", required_argument, NULL, OPTIONS_LONG_ONLY }, OPTIONS_HELP,
		OPTIONS_END };
	*ret_options = (struct label_options){ 0 };
	int c;
	while ((c = options_next(argc, argv, ":h", longs, err)) != -1) {
		if (c == '?')
			return err->code;
		if (c == 'h')
			ret_options->help = true;
		else
			ret_options->era = optarg;
	}
	return 0;
}

static int label_run(int argc, char **argv, struct err *err)
{
	struct label_options options;
	int r = label_parse_options(argc, argv, &options, err);
	if (r < 0)
		return r;
	if (options.help)
		return out_print(label_help, err);
	const char *verb = options_operand(argc, argv, 0);
	if (verb != NULL && strcmp(verb, "add") == 0)
		return label_add(argc, argv, &options, err);
	if (options.era != NULL)
		return err_set_exit(
			err, ERR_EXIT_USAGE, -EINVAL, "label: --era goes with add alone: see 'era-cli --help'");
	if (verb != NULL && strcmp(verb, "list") == 0)
		return label_list(argc, argv, err);
	if (verb != NULL && strcmp(verb, "rm") == 0)
		return label_remove(argc, argv, err);
	return err_set_exit(err, ERR_EXIT_USAGE, -EINVAL,
		"label: add, list or rm must follow: see 'era-cli --help' and 'era-cli label --help'");
}

const struct command cmd_label = {
	.name = "label",
	.summary = "add, list or remove names of eras",
	.help = label_help,
	.run = label_run,
};
