/* SPDX-License-Identifier: MIT */
/*
 * Era XML in, by expat.
 *
 * The elements, and where each may stand; all attributes are required, and there are no others:
 *
 *     superblock      at the top: uuid block_size nr_blocks current_era
 *       writeset      in superblock, any number: era nr_bits
 *         bit         in writeset: block value
 *         marked      in writeset: block_begin len
 *       era_array     in superblock, at most one
 *         era         in era_array: block era
 *
 * Blocks ascend within their parent, and so do the writesets: that proves without memory that nothing is told twice. One
 * chunk is gathered at a time, and handed over when the next one begins or the parent ends.
 */
#include "base/num.h"
#include "format/era_xml.h"

#include <errno.h>
#include <expat.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR 512
#define READ_BYTES 4096
/* What expat may hold back: the tag, text or comment that it has not seen the end of. */
#define UNFINISHED_MAX (16 * READ_BYTES)
#define MAX_ATTRIBUTES 4

enum place { AT_TOP, IN_SUPER, IN_WRITESET, IN_ARRAY, IN_BIT, IN_MARKED, IN_ERA, BEHIND };

struct era_reader {
	XML_Parser parser;
	const struct fmt_era_sink *sink;
	void *arg;
	const char *name;
	struct err *err;
	int r; /* of the first failure */

	enum place place;
	size_t unfinished; /* bytes since expat told of anything */
	struct fmt_era_super super;
	bool has_array;
	uint64_t last_writeset; /* the newest so far */

	uint64_t nr_bits; /* of the writeset */
	uint64_t next; /* lowest block that may follow in this parent */
	uint64_t chunk; /* that is gathered */
	bool gathered; /* anything */
	uint64_t words[BM_CHUNK_WORDS];
	uint64_t eras[BM_CHUNK_BITS];
};

struct element {
	const char *name;
	enum place parent;
	enum place place;
	const char *attributes[MAX_ATTRIBUTES];
	void (*begin)(struct era_reader *reader, const char *const *values);
};

__attribute__((format(printf, 2, 3))) static void refuse(struct era_reader *reader, const char *format, ...)
{
	char text[512];
	va_list args;

	if (reader->r < 0)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	reader->r = err_set(reader->err, -EINVAL, "%s: line %" PRIu64 ": %s: it is no era XML that can be restored",
		reader->name, (uint64_t)XML_GetCurrentLineNumber(reader->parser), text);
	XML_StopParser(reader->parser, XML_FALSE);
}

static void stop(struct era_reader *reader, int r)
{
	if (r == 0 || reader->r < 0)
		return;
	reader->r = r;
	XML_StopParser(reader->parser, XML_FALSE);
}

/* A number from min to max. */
static bool number(
	struct era_reader *reader, const char *what, const char *text, uint64_t min, uint64_t max, uint64_t *ret_value)
{
	if (num_parse_u64(text, ret_value) == 0 && *ret_value >= min && *ret_value <= max)
		return true;
	refuse(reader, "%s is '%.32s', not a number from %" PRIu64 " to %" PRIu64, what, text, min, max);
	return false;
}

/* Hands over what was gathered. */
static void flush(struct era_reader *reader)
{
	if (!reader->gathered || reader->r < 0)
		return;
	reader->gathered = false;
	if (reader->place == IN_ARRAY) {
		stop(reader, reader->sink->eras(reader->chunk, reader->eras, reader->arg, reader->err));
		memset(reader->eras, 0, sizeof(reader->eras));
	} else {
		stop(reader, reader->sink->bits(
				     reader->last_writeset, reader->chunk, reader->words, reader->arg, reader->err));
		memset(reader->words, 0, sizeof(reader->words));
	}
}

/* Block is to be gathered: its chunk is the one. */
static void turn_to(struct era_reader *reader, uint64_t block)
{
	if (reader->chunk != block / BM_CHUNK_BITS)
		flush(reader);
	reader->chunk = block / BM_CHUNK_BITS;
	reader->gathered = true;
}

/* Of blocks up to nr: the next of this parent. */
static bool block_number(
	struct era_reader *reader, const char *what, const char *text, uint64_t nr, uint64_t *ret_block)
{
	if (!number(reader, what, text, 0, nr - 1, ret_block))
		return false;
	if (*ret_block >= reader->next)
		return true;
	refuse(reader, "block %" PRIu64 " is told twice, or out of order", *ret_block);
	return false;
}

static void begin_super(struct era_reader *reader, const char *const *values)
{
	struct fmt_era_super *super = &reader->super;
	uint64_t sectors;

	if (strlen(values[0]) > FMT_ERA_UUID_MAX) {
		refuse(reader, "uuid is longer than %d bytes", FMT_ERA_UUID_MAX);
		return;
	}
	strcpy(super->uuid, values[0]);
	if (!number(reader, "block_size", values[1], 1, UINT32_MAX, &sectors) ||
		!number(reader, "nr_blocks", values[2], 1, BM_MAX_BITS, &super->nr_blocks) ||
		!number(reader, "current_era", values[3], 0, FMT_ERA_MAX, &super->current_era))
		return;
	super->block_size = sectors * SECTOR;
	stop(reader, reader->sink->super(super, reader->arg, reader->err));
}

static void begin_writeset(struct era_reader *reader, const char *const *values)
{
	uint64_t era;

	if (!number(reader, "the writeset's era", values[0], 1, reader->super.current_era, &era) ||
		!number(reader, "nr_bits", values[1], 1, reader->super.nr_blocks, &reader->nr_bits))
		return;
	if (era <= reader->last_writeset) {
		refuse(reader, "writeset %" PRIu64 " is told twice, or out of order", era);
		return;
	}
	reader->last_writeset = era;
	reader->next = 0;
}

static void begin_bit(struct era_reader *reader, const char *const *values)
{
	uint64_t block;

	if (!block_number(reader, "block", values[0], reader->nr_bits, &block))
		return;
	reader->next = block + 1;
	if (strcmp(values[1], "true") == 0) {
		turn_to(reader, block);
		reader->words[block % BM_CHUNK_BITS / 64] |= UINT64_C(1) << block % 64;
	} else if (strcmp(values[1], "false") != 0) {
		refuse(reader, "value is '%.32s', neither true nor false", values[1]);
	}
}

static void begin_marked(struct era_reader *reader, const char *const *values)
{
	uint64_t block, len;

	if (!block_number(reader, "block_begin", values[0], reader->nr_bits, &block) ||
		!number(reader, "len", values[1], 0, reader->nr_bits - block, &len))
		return;
	reader->next = block + len;
	/* A run may be all blocks: a word at a time. */
	for (uint64_t end = block + len; block < end && reader->r == 0;) {
		uint64_t behind = (block / 64 + 1) * 64;
		uint64_t nr = (behind < end ? behind : end) - block;
		uint64_t ones = nr == 64 ? UINT64_MAX : (UINT64_C(1) << nr) - 1;
		turn_to(reader, block);
		reader->words[block % BM_CHUNK_BITS / 64] |= ones << block % 64;
		block += nr;
	}
}

static void begin_array(struct era_reader *reader, const char *const *values)
{
	if (reader->has_array)
		refuse(reader, "there is a second era_array");
	reader->has_array = true;
	reader->next = 0;
}

static void begin_era(struct era_reader *reader, const char *const *values)
{
	uint64_t block, era;

	if (!block_number(reader, "block", values[0], reader->super.nr_blocks, &block) ||
		!number(reader, "the block's era", values[1], 0, reader->super.current_era, &era))
		return;
	reader->next = block + 1;
	if (era == 0)
		return;
	turn_to(reader, block);
	reader->eras[block % BM_CHUNK_BITS] = era;
}

static const struct element elements[] = {
	{ "superblock", AT_TOP, IN_SUPER, { "uuid", "block_size", "nr_blocks", "current_era" }, begin_super },
	{ "writeset", IN_SUPER, IN_WRITESET, { "era", "nr_bits" }, begin_writeset },
	{ "bit", IN_WRITESET, IN_BIT, { "block", "value" }, begin_bit },
	{ "marked", IN_WRITESET, IN_MARKED, { "block_begin", "len" }, begin_marked },
	{ "era_array", IN_SUPER, IN_ARRAY, { 0 }, begin_array },
	{ "era", IN_ARRAY, IN_ERA, { "block", "era" }, begin_era },
};
#define NR_ELEMENTS (sizeof(elements) / sizeof(elements[0]))

/* The values in the order of the table. expat refuses an attribute that is given twice. */
static bool take_attributes(struct era_reader *reader, const struct element *element, const char **given,
	const char *ret_values[MAX_ATTRIBUTES])
{
	unsigned int nr_known = 0;

	for (int i = 0; i < MAX_ATTRIBUTES && element->attributes[i]; i++) {
		for (int k = 0; given[k] && !ret_values[i]; k += 2) {
			if (strcmp(given[k], element->attributes[i]) == 0)
				ret_values[i] = given[k + 1];
		}
		if (!ret_values[i]) {
			refuse(reader, "%s lacks %s", element->name, element->attributes[i]);
			return false;
		}
		nr_known++;
	}
	if (!given[2 * nr_known])
		return true;
	refuse(reader, "%s has an attribute too many", element->name);
	return false;
}

static void XMLCALL on_start(void *arg, const char *name, const char **attributes)
{
	struct era_reader *reader = arg;
	const char *values[MAX_ATTRIBUTES] = { 0 };

	reader->unfinished = 0;
	if (reader->r < 0)
		return;
	for (size_t i = 0; i < NR_ELEMENTS; i++) {
		const struct element *element = &elements[i];
		if (element->parent != reader->place || strcmp(name, element->name) != 0)
			continue;
		if (take_attributes(reader, element, attributes, values))
			element->begin(reader, values);
		reader->place = element->place;
		return;
	}
	refuse(reader, "<%.32s> does not belong here", name);
}

static void XMLCALL on_end(void *arg, const char *name)
{
	struct era_reader *reader = arg;

	reader->unfinished = 0;
	if (reader->r < 0)
		return;
	if (reader->place == IN_WRITESET || reader->place == IN_ARRAY)
		flush(reader);
	for (size_t i = 0; i < NR_ELEMENTS; i++) {
		if (elements[i].place == reader->place) {
			reader->place = elements[i].parent == AT_TOP ? BEHIND : elements[i].parent;
			return;
		}
	}
}

static void XMLCALL on_text(void *arg, const char *text, int len)
{
	struct era_reader *reader = arg;

	reader->unfinished = 0;
	for (int i = 0; i < len; i++) {
		if (!strchr(" \t\r\n", text[i]) || text[i] == '\0') {
			refuse(reader, "there is text between the elements");
			return;
		}
	}
}

static void XMLCALL on_comment(void *arg, const char *text)
{
	((struct era_reader *)arg)->unfinished = 0;
}

static void XMLCALL on_doctype(void *arg, const char *name, const char *sysid, const char *pubid, int has_internal)
{
	refuse(arg, "it has a document type");
}

static void XMLCALL on_instruction(void *arg, const char *target, const char *data)
{
	refuse(arg, "it has a processing instruction");
}

static int parse(struct era_reader *reader, FILE *in)
{
	for (;;) {
		void *buffer = XML_GetBuffer(reader->parser, READ_BYTES);
		if (!buffer)
			return err_set(reader->err, -ENOMEM, "out of memory");
		errno = 0;
		size_t n = fread(buffer, 1, READ_BYTES, in);
		if (ferror(in)) {
			int r = errno ? -errno : -EIO;
			return err_set(reader->err, r, "%s: cannot be read: %s", reader->name, strerror(-r));
		}
		bool last = n < READ_BYTES;
		reader->unfinished += n;
		enum XML_Status status = XML_ParseBuffer(reader->parser, (int)n, last);
		if (reader->r < 0)
			return reader->r;
		if (status != XML_STATUS_OK) {
			refuse(reader, "%s", XML_ErrorString(XML_GetErrorCode(reader->parser)));
			return reader->r;
		}
		if (last)
			return 0;
		if (reader->unfinished > UNFINISHED_MAX) {
			refuse(reader, "a tag or a comment is longer than %d bytes", UNFINISHED_MAX);
			return reader->r;
		}
	}
}

int fmt_era_read(FILE *in, const char *name, const struct fmt_era_sink *sink, void *arg, struct err *err)
{
	struct err own = ERR_INIT;
	struct era_reader *reader = calloc(1, sizeof(*reader));
	if (!reader)
		return err_set(err, -ENOMEM, "out of memory");
	reader->sink = sink;
	reader->arg = arg;
	reader->name = name;
	reader->err = err ? err : &own;
	reader->parser = XML_ParserCreate(NULL);
	int r = -ENOMEM;
	if (reader->parser) {
		XML_SetUserData(reader->parser, reader);
		XML_SetElementHandler(reader->parser, on_start, on_end);
		XML_SetCharacterDataHandler(reader->parser, on_text);
		XML_SetCommentHandler(reader->parser, on_comment);
		XML_SetStartDoctypeDeclHandler(reader->parser, on_doctype);
		XML_SetProcessingInstructionHandler(reader->parser, on_instruction);
		r = parse(reader, in);
		XML_ParserFree(reader->parser);
	} else {
		err_set(err, r, "out of memory");
	}
	free(reader);
	return r;
}
