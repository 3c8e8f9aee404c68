/* SPDX-License-Identifier: MIT */
/*
 * A database out of XML.
 *
 * The XML tells nothing of an image, and nothing of what was written after it was made. So what comes of it is a snapshot:
 * for reading, with the UUID that the XML has, as it is a part of that history. Only who names an image vouches that this
 * is how it stands now, and gets metadata to go on with. These go another way than the old ones may have gone: eras that
 * were shown there are not theirs, so they have a new UUID.
 */
#include "binding.h"
#include "commands.h"
#include "guard.h"
#include "options.h"
#include "out.h"

#include "base/log.h"
#include "base/num.h"
#include "format/era_xml.h"
#include "meta/copy.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <syslog.h>

static const char restore_help[] = "Usage: era-cli restore -i XML -o DATABASE [--image IMAGE]\n"
				   "\n"
				   "Makes a database out of XML as dump and era_dump print it. Without an image it\n"
				   "is a snapshot, for since and dump.\n"
				   "\n"
				   "  -i, --input XML         the file to read; - is standard input\n"
				   "  -o, --output DATABASE   the database to make; it must not exist\n"
				   "      --image IMAGE       make it the metadata of IMAGE, which must not have been\n"
				   "                          written to since the XML was made\n"
				   "  -h, --help              print this help\n";

enum { RESTORE_OPTION_IMAGE = OPTIONS_LONG_ONLY };

struct restore {
	const char *input;
	const char *output;
	const char *image; /* NULL: none */
	struct meta_build *build;
	struct meta_super super;
};

static void restore_choose_uuid(const struct restore *restore, const char *text, uint8_t ret_uuid[16])
{
	static const uint8_t nil[16];
	/* That of a tool that knows none is no identity. */
	if (restore->image == NULL && num_uuid_parse(text, ret_uuid) == 0 && memcmp(ret_uuid, nil, sizeof(nil)) != 0)
		return;
	num_uuid_new(ret_uuid);
}

/* Metadata of that name have shown eras that the XML does not know: what was written in them would be missing. */
static int restore_check_witness(const struct restore *restore, struct err *err)
{
	struct meta_witness witness;
	int r = meta_witness_read(restore->output, NULL, &witness);
	if (r < 0)
		return err_set(err, r, "%s.witness: cannot be read: %s", restore->output, strerror(-r));
	if (witness.era <= restore->super.current_era)
		return 0;
	return err_set(err, -ESTALE,
		"%s: metadata of this name had reached era %" PRIu64 ", and the XML ends with era %" PRIu64
		": what was written since is not known: mount to create new ones with a full backup",
		restore->output, witness.era, restore->super.current_era);
}

static int restore_super(const struct fmt_era_super *xml, void *arg, struct err *err)
{
	struct restore *restore = arg;
	struct meta_super *super = &restore->super;
	*super = (struct meta_super){
		.block_size = xml->block_size,
		.image_size = xml->nr_blocks * xml->block_size,
		.nr_blocks = xml->nr_blocks,
		.current_era = xml->current_era,
		.durable_era = xml->current_era,
		.state = META_SNAPSHOT,
		.image_mtime_ns = META_MTIME_UNKNOWN,
	};
	restore_choose_uuid(restore, xml->uuid, super->uuid);
	int r = 0;
	/* Bound before the rest is read: whoever writes to it meanwhile shows by its mtime. */
	if (restore->image != NULL)
		r = binding_take(restore->image, super, err);
	if (r == 0 && restore->image != NULL)
		r = restore_check_witness(restore, err);
	return r < 0 ? r : meta_build_begin(restore->output, super, &restore->build, err);
}

static int restore_bits(uint64_t era, uint64_t chunk, const uint64_t *words, void *arg, struct err *err)
{
	struct restore *restore = arg;
	return meta_build_bits(restore->build, era, chunk, words, err);
}

static int restore_eras(uint64_t chunk, const uint64_t *eras, void *arg, struct err *err)
{
	struct restore *restore = arg;
	return meta_build_eras(restore->build, chunk, eras, err);
}

static void restore_tell(const struct restore *restore)
{
	char uuid[NUM_UUID_TEXT];
	num_uuid_format(restore->super.uuid, uuid);
	if (restore->image == NULL)
		log_write(LOG_NOTICE,
			"%s: is a snapshot, for since and dump: no image can be mounted with it (restore with --image for that)",
			restore->output);
	else
		log_write(
			LOG_NOTICE, "%s: has a new UUID, %s: older cursors need a full backup", restore->output, uuid);
}

static int restore_read(struct restore *restore, struct err *err)
{
	static const struct fmt_era_sink sink = { restore_super, restore_bits, restore_eras };
	bool standard = strcmp(restore->input, "-") == 0;
	const char *name = standard ? "standard input" : restore->input;
	FILE *in = standard ? stdin : fopen(restore->input, "re");
	if (in == NULL)
		return err_set(err, -errno, "%s: cannot be read: %m", name);
	int r = fmt_era_read(in, name, &sink, restore, err);
	if (!standard)
		fclose(in);
	return r;
}

static int restore_all(struct restore *restore, struct err *err)
{
	int r = guard_output(restore->output, "-o names the database to make", NULL, err);
	if (r == 0 && restore->image != NULL)
		r = binding_check_free(restore->image, err);
	if (r == 0)
		r = restore_read(restore, err);
	if (r < 0) {
		meta_build_abandon(restore->build);
		return r;
	}
	r = meta_build_finish(restore->build, err);
	if (r == 0)
		restore_tell(restore);
	return r;
}

static int restore_run(int argc, char **argv, struct err *err)
{
	static const struct option longs[] = {
		{ "input", required_argument, NULL, 'i' },
		{ "output", required_argument, NULL, 'o' },
		{ "image", required_argument, NULL, RESTORE_OPTION_IMAGE },
		OPTIONS_HELP,
		OPTIONS_END,
	};
	struct restore restore = { 0 };
	int c;
	while ((c = options_next(argc, argv, ":i:o:h", longs, err)) != -1) {
		if (c == '?')
			return err->code;
		if (c == 'h')
			return out_print(restore_help, err);
		if (c == 'i')
			restore.input = optarg;
		else if (c == 'o')
			restore.output = optarg;
		else
			restore.image = optarg;
	}
	int r = options_check_operands(argc, argv, 0, 0, NULL, err);
	if (r == 0 && restore.input == NULL)
		r = err_set_exit(err, ERR_EXIT_USAGE, -EINVAL, "restore: -i XML is missing");
	if (r == 0)
		r = options_check_database(argv, restore.output, "-o DATABASE", err);
	return r < 0 ? r : restore_all(&restore, err);
}

const struct command cmd_restore = {
	.name = "restore",
	.summary = "make a database out of XML",
	.help = restore_help,
	.run = restore_run,
};
