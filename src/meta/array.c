/* SPDX-License-Identifier: MIT */
/*
 * The eras of one chunk as bytes: eraimgfs-metadata(5), ERA ARRAY.
 *
 *	u8 width (0, 1, 2, 4 or 8), u64 base, then width bytes a block, all little-endian.
 *	A value of 0 is a block that was never written, v > 0 is era base + v - 1.
 *	Width 0 has no values: all blocks have era base, or none has one where base is 0.
 */
#include "meta_private.h"

#include <endian.h>
#include <string.h>

#define HEADER 9

static unsigned int width_of(uint64_t greatest_value)
{
	return greatest_value <= UINT8_MAX    ? 1
	       : greatest_value <= UINT16_MAX ? 2
	       : greatest_value <= UINT32_MAX ? 4
					      : 8;
}

size_t array_encode(const uint64_t *eras, unsigned int nr, uint8_t blob[ARRAY_BLOB_MAX], uint64_t *ret_newest)
{
	uint64_t newest = 0;
	uint64_t oldest = 0; /* of those that were written */
	bool uniform = true;
	for (unsigned int i = 0; i < nr; i++) {
		if (eras[i] > newest)
			newest = eras[i];
		if (eras[i] && (!oldest || eras[i] < oldest))
			oldest = eras[i];
		uniform = uniform && eras[i] == eras[0];
	}
	*ret_newest = newest;

	unsigned int width = uniform ? 0 : width_of(newest - oldest + 1);
	uint64_t le_base = htole64(oldest);
	blob[0] = (uint8_t)width;
	memcpy(&blob[1], &le_base, sizeof(le_base));
	for (unsigned int i = 0; width && i < nr; i++) {
		uint64_t value = htole64(eras[i] ? eras[i] - oldest + 1 : 0);
		memcpy(&blob[HEADER + i * width], &value, width);
	}
	return HEADER + (size_t)width * nr;
}

bool array_decode(const uint8_t *blob, size_t len, unsigned int nr, uint64_t *ret_eras, uint64_t *ret_newest)
{
	if (len < HEADER)
		return false;
	unsigned int width = blob[0];
	uint64_t base;
	memcpy(&base, &blob[1], sizeof(base));
	base = le64toh(base);
	if (width > 8 || (width & (width - 1)) || len != HEADER + (size_t)width * nr || base > ERA_MAX ||
		(width && !base))
		return false;

	*ret_newest = 0;
	for (unsigned int i = 0; i < nr; i++) {
		uint64_t value = 0;
		memcpy(&value, &blob[HEADER + i * width], width);
		value = width ? le64toh(value) : base ? 1 : 0;
		if (value > ERA_MAX - base + 1)
			return false;
		ret_eras[i] = value ? base + value - 1 : 0;
		if (ret_eras[i] > *ret_newest)
			*ret_newest = ret_eras[i];
	}
	return true;
}
