/* SPDX-License-Identifier: MIT */
/*
 * The eras of one chunk as bytes: eraimgfs-metadata(5), ERA ARRAY.
 *
 *	u8 width (0, 1, 2, 4 or 8), u64 base, then width bytes a block, all little-endian.
 *	A value of 0 is a block that was never written, v > 0 is era base + v - 1.
 *	Width 0 has no values: all blocks have era base, or none has one where base is 0.
 *
 * Images have very many blocks. The loops over them are inlined into a switch, so that each is compiled for one width.
 */
#include "meta_private.h"

#include <endian.h>
#include <string.h>

#define HEADER 9
#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Eight bytes of 0 or 1, the first one lowest, times this have them as bits in the highest byte. */
#define GATHER UINT64_C(0x0102040810204080)

static unsigned int width_of(uint64_t greatest_value)
{
	return greatest_value <= UINT8_MAX    ? 1
	       : greatest_value <= UINT16_MAX ? 2
	       : greatest_value <= UINT32_MAX ? 4
					      : 8;
}

ALWAYS_INLINE uint64_t value_get(const uint8_t *values, unsigned int i, unsigned int width)
{
	uint64_t value = 0;
	memcpy(&value, &values[i * width], width);
	return le64toh(value);
}

ALWAYS_INLINE void pack(const uint64_t *eras, unsigned int nr, uint64_t before, unsigned int width, uint8_t *ret_values)
{
	for (unsigned int i = 0; i < nr; i++) {
		uint64_t value = htole64(eras[i] ? eras[i] - before : 0);
		memcpy(&ret_values[i * width], &value, width);
	}
}

ALWAYS_INLINE uint64_t unpack(
	const uint8_t *values, unsigned int nr, uint64_t before, unsigned int width, uint64_t *ret_eras)
{
	uint64_t greatest = 0;
	for (unsigned int i = 0; i < nr; i++) {
		uint64_t value = value_get(values, i, width);
		greatest = value > greatest ? value : greatest;
		ret_eras[i] = value ? before + value : 0;
	}
	return greatest;
}

static bool any_never_written(const uint64_t *eras, unsigned int nr)
{
	for (unsigned int i = 0; i < nr; i++) {
		if (!eras[i])
			return true;
	}
	return false;
}

size_t array_encode(const uint64_t *eras, unsigned int nr, uint8_t blob[ARRAY_BLOB_MAX], uint64_t *ret_newest)
{
	uint64_t newest = 0;
	uint64_t before = UINT64_MAX; /* one less than the oldest of those that were written */
	for (unsigned int i = 0; i < nr; i++) {
		newest = eras[i] > newest ? eras[i] : newest;
		before = eras[i] - 1 < before ? eras[i] - 1 : before; /* 0 - 1 is the greatest there is */
	}
	*ret_newest = newest;

	bool uniform = newest == 0 || (newest - before == 1 && !any_never_written(eras, nr));
	unsigned int width = uniform ? 0 : width_of(newest - before);
	uint64_t le_base = htole64(before + 1);
	blob[0] = (uint8_t)width;
	memcpy(&blob[1], &le_base, sizeof(le_base));
	switch (width) {
	case 1:
		pack(eras, nr, before, 1, &blob[HEADER]);
		break;
	case 2:
		pack(eras, nr, before, 2, &blob[HEADER]);
		break;
	case 4:
		pack(eras, nr, before, 4, &blob[HEADER]);
		break;
	case 8:
		pack(eras, nr, before, 8, &blob[HEADER]);
		break;
	}
	return HEADER + (size_t)width * nr;
}

/* The header alone. */
static bool head_decode(const uint8_t *blob, size_t len, unsigned int nr, unsigned int *ret_width, uint64_t *ret_base)
{
	if (len < HEADER)
		return false;
	unsigned int width = blob[0];
	uint64_t base;
	memcpy(&base, &blob[1], sizeof(base));
	base = le64toh(base);
	*ret_width = width;
	*ret_base = base;
	return width <= 8 && (width & (width - 1)) == 0 && len == HEADER + (size_t)width * nr && base <= ERA_MAX &&
	       (!width || base);
}

bool array_decode(const uint8_t *blob, size_t len, unsigned int nr, uint64_t *ret_eras, uint64_t *ret_newest)
{
	unsigned int width;
	uint64_t base, greatest;
	if (!head_decode(blob, len, nr, &width, &base))
		return false;

	const uint8_t *values = &blob[HEADER];
	switch (width) {
	case 1:
		greatest = unpack(values, nr, base - 1, 1, ret_eras);
		break;
	case 2:
		greatest = unpack(values, nr, base - 1, 2, ret_eras);
		break;
	case 4:
		greatest = unpack(values, nr, base - 1, 4, ret_eras);
		break;
	case 8:
		greatest = unpack(values, nr, base - 1, 8, ret_eras);
		break;
	default:
		greatest = base && nr;
		for (unsigned int i = 0; i < nr; i++)
			ret_eras[i] = base;
	}
	*ret_newest = greatest ? base + greatest - 1 : 0;
	return greatest <= ERA_MAX - base + 1;
}

/* Which of 64 values are least or greater. A value has the width's own type where that is narrow: many at a time. */
ALWAYS_INLINE uint64_t compare(const uint8_t *values, uint64_t least, unsigned int width)
{
	uint8_t hits[64];
	for (unsigned int i = 0; i < 64; i++) {
		if (width == 1)
			hits[i] = values[i] >= (uint8_t)least;
		else if (width == 2)
			hits[i] = (uint16_t)value_get(values, i, width) >= (uint16_t)least;
		else
			hits[i] = value_get(values, i, width) >= least;
	}

	uint64_t word = 0;
	for (unsigned int i = 0; i < 64; i += 8) {
		uint64_t eight;
		memcpy(&eight, &hits[i], sizeof(eight));
		word |= (le64toh(eight) * GATHER >> 56) << i;
	}
	return word;
}

static uint64_t compare_word(const uint8_t *values, uint64_t least, unsigned int width)
{
	switch (width) {
	case 1:
		return compare(values, least, 1);
	case 2:
		return compare(values, least, 2);
	case 4:
		return compare(values, least, 4);
	default:
		return compare(values, least, 8);
	}
}

bool array_since(const uint8_t *blob, size_t len, unsigned int nr, uint64_t era, uint64_t ret_words[BM_CHUNK_WORDS])
{
	unsigned int width;
	uint64_t base;
	if (!head_decode(blob, len, nr, &width, &base))
		return false;

	memset(ret_words, 0, CHUNK_BYTES);
	if (width == 0) {
		if (base && base >= era)
			memset(ret_words, 0xff, CHUNK_BYTES);
		chunk_trim(ret_words, nr);
		return true;
	}
	uint64_t least = era > base ? era - base + 1 : 1;
	if (width < 8 && least >> 8 * width)
		return true;
	unsigned int nr_whole = nr / 64;
	for (unsigned int i = 0; i < nr_whole; i++)
		ret_words[i] = compare_word(&blob[HEADER + i * 64 * width], least, width);
	if (nr % 64) {
		uint8_t last[64 * 8] = { 0 };
		memcpy(last, &blob[HEADER + nr_whole * 64 * width], nr % 64 * width);
		ret_words[nr_whole] = compare_word(last, least, width);
	}
	return true;
}
