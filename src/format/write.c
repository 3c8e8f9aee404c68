/* SPDX-License-Identifier: MIT */
/* The table of formats. */
#include "writers.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

static const struct {
	const char *name;
	int (*write)(const struct fmt_since *answer, FILE *out);
} fmt_formats[] = {
	[FMT_TEXT] = { "text", fmt_write_text },
	[FMT_JSON] = { "json", fmt_write_json },
	[FMT_XML] = { "xml", fmt_write_xml },
	[FMT_RBD] = { "rbd", fmt_write_rbd },
};

int fmt_parse_kind(const char *name, enum fmt_kind *ret_kind)
{
	for (size_t i = 0; i < sizeof(fmt_formats) / sizeof(fmt_formats[0]); i++) {
		if (strcmp(name, fmt_formats[i].name) == 0) {
			*ret_kind = (enum fmt_kind)i;
			return 0;
		}
	}
	return -EINVAL;
}

int fmt_write_since(const struct fmt_since *answer, enum fmt_kind kind, FILE *out)
{
	int r = fmt_formats[kind].write(answer, out);
	if (r < 0)
		return r;
	/* A full disk often shows only here. */
	if (fflush(out) != 0)
		return -errno;
	return ferror(out) ? -EIO : 0;
}
