/* SPDX-License-Identifier: MIT */
/* Era XML as era_dump writes it: no declaration, every block written out. A UUID needs no escapes: it comes from
 * num_uuid_format(). */
#include "format/era_xml.h"

#include <errno.h>
#include <inttypes.h>

#define SECTOR 512

int fmt_era_write_super(const struct fmt_era_super *super, FILE *out)
{
	int n = fprintf(out,
		"<superblock uuid=\"%s\" block_size=\"%" PRIu64 "\" nr_blocks=\"%" PRIu64 "\" current_era=\"%" PRIu64
		"\">\n",
		super->uuid, super->block_size / SECTOR, super->nr_blocks, super->current_era);
	return n < 0 ? -errno : 0;
}

int fmt_era_write_writeset(uint64_t era, uint64_t nr_bits, FILE *out)
{
	int n = fprintf(out, "  <writeset era=\"%" PRIu64 "\" nr_bits=\"%" PRIu64 "\">\n", era, nr_bits);
	return n < 0 ? -errno : 0;
}

int fmt_era_write_bits(uint64_t first, unsigned int nr, const uint64_t *words, FILE *out)
{
	for (unsigned int i = 0; i < nr; i++) {
		bool set = words[i / 64] >> i % 64 & 1;
		if (fprintf(out, "    <bit block=\"%" PRIu64 "\" value=\"%s\"/>\n", first + i, set ? "true" : "false") <
			0)
			return -errno;
	}
	return 0;
}

int fmt_era_write_writeset_end(FILE *out)
{
	return fputs("  </writeset>\n", out) < 0 ? -errno : 0;
}

int fmt_era_write_array(FILE *out)
{
	return fputs("  <era_array>\n", out) < 0 ? -errno : 0;
}

int fmt_era_write_eras(uint64_t first, unsigned int nr, const uint64_t *eras, FILE *out)
{
	for (unsigned int i = 0; i < nr; i++) {
		if (fprintf(out, "    <era block=\"%" PRIu64 "\" era=\"%" PRIu64 "\"/>\n", first + i, eras[i]) < 0)
			return -errno;
	}
	return 0;
}

int fmt_era_write_end(FILE *out)
{
	return fputs("  </era_array>\n</superblock>\n", out) < 0 ? -errno : 0;
}
