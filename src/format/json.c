/* SPDX-License-Identifier: MIT */
/*
 * json: one object. Its head is jansson's; the two arrays are streamed beside it, as they may be longer than memory: an
 * extent is two integers, which JSON writes as C does.
 */
#include "writers.h"

#include "base/num.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>

static int json_head(const struct fmt_since *answer, FILE *out)
{
	uint64_t blocks, bytes;
	fmt_count(answer, &blocks, &bytes);
	char uuid[NUM_UUID_TEXT];
	num_uuid_format(answer->uuid, uuid);
	bool exact = answer->conservative == NULL || bm_count(answer->conservative) == 0;
	json_t *head = json_pack("{s:s, s:I, s:I, s:I, s:I, s:b, s:I, s:I}", "uuid", uuid, "block_size",
		(json_int_t)answer->block_size, "image_size", (json_int_t)answer->image_size, "since",
		(json_int_t)answer->since, "current_era", (json_int_t)answer->current_era, "exact", exact, "blocks",
		(json_int_t)blocks, "bytes", (json_int_t)bytes);
	if (head == NULL)
		return -ENOMEM;
	errno = 0;
	int r = json_dumpf(head, out, JSON_COMPACT | JSON_EMBED);
	if (r < 0)
		r = errno != 0 ? -errno : -EIO;
	json_decref(head);
	return r;
}

/* ,"NAME":[{...},...] with an extent a line. blocks may be NULL: none. */
static int json_extents(const struct fmt_since *answer, const char *name, const struct bm *blocks, FILE *out)
{
	if (fprintf(out, ",\"%s\":[", name) < 0)
		return -errno;
	uint64_t at = 0, offset, length;
	const char *before = "\n";
	while (blocks != NULL && fmt_next_extent(answer, blocks, &at, &offset, &length)) {
		if (fprintf(out, "%s{\"offset\":%" PRIu64 ",\"length\":%" PRIu64 "}", before, offset, length) < 0)
			return -errno;
		before = ",\n";
	}
	return fputc(']', out) != EOF ? 0 : -errno;
}

int fmt_write_json(const struct fmt_since *answer, FILE *out)
{
	if (fputc('{', out) == EOF)
		return -errno;
	int r = json_head(answer, out);
	if (r == 0)
		r = json_extents(answer, "extents", answer->blocks, out);
	if (r == 0)
		r = json_extents(answer, "conservative", answer->conservative, out);
	if (r == 0 && fputs("}\n", out) < 0)
		r = -errno;
	return r;
}
