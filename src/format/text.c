/* SPDX-License-Identifier: MIT */
/* text: "OFFSET<tab>LENGTH" in bytes, a line an extent. */
#include "writers.h"

#include <errno.h>
#include <inttypes.h>

int fmt_write_text(const struct fmt_since *answer, FILE *out)
{
	uint64_t at = 0, offset, length;
	while (fmt_next_extent(answer, answer->blocks, &at, &offset, &length)) {
		if (fprintf(out, "%" PRIu64 "\t%" PRIu64 "\n", offset, length) < 0)
			return -errno;
	}
	return 0;
}
