/* SPDX-License-Identifier: MIT */
/* xml: what era_invalidate of the thin-provisioning-tools prints (its Rust form). Numbers are blocks, end is exclusive,
 * a run of one is a <block>. */
#include "writers.h"

#include <errno.h>
#include <inttypes.h>

int fmt_write_xml(const struct fmt_since *answer, FILE *out)
{
	if (fputs("<blocks>\n", out) < 0)
		return -errno;
	uint64_t begin, end = 0;
	while (bm_next_run(answer->blocks, end, &begin, &end)) {
		int r;
		if (end - begin == 1)
			r = fprintf(out, "  <block block=\"%" PRIu64 "\"/>\n", begin);
		else
			r = fprintf(out, "  <range begin=\"%" PRIu64 "\" end=\"%" PRIu64 "\"/>\n", begin, end);
		if (r < 0)
			return -errno;
	}
	return fputs("</blocks>\n", out) >= 0 ? 0 : -errno;
}
