/* SPDX-License-Identifier: MIT */
/* rbd: what `rbd diff --format json` prints, for Benji (--rbd-hints) and backy2 (-r). */
#include "writers.h"

#include <errno.h>
#include <inttypes.h>

int fmt_write_rbd(const struct fmt_since *answer, FILE *out)
{
	uint64_t at = 0, offset, length;
	const char *before = "[";
	while (fmt_next_extent(answer, answer->blocks, &at, &offset, &length)) {
		if (fprintf(out, "%s{\"offset\":%" PRIu64 ",\"length\":%" PRIu64 ",\"exists\":\"true\"}", before,
			    offset, length) < 0)
			return -errno;
		before = ",\n";
	}
	return fputs(at == 0 ? "[]\n" : "]\n", out) >= 0 ? 0 : -errno;
}
