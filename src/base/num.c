/* SPDX-License-Identifier: MIT */
#include "base/num.h"

#include <errno.h>
#include <stdbool.h>
#include <uuid/uuid.h>

_Static_assert(UUID_STR_LEN == NUM_UUID_TEXT, "a UUID's text has one length");

/* Reads the digits at *text and moves it behind them. strtoull() would take spaces, signs and "0x". */
static int num_take_digits(const char **text, uint64_t *ret_value)
{
	const char *c = *text;
	uint64_t value = 0;
	if (*c < '0' || *c > '9')
		return -EINVAL;
	bool overflow = false;
	for (; *c >= '0' && *c <= '9'; c++) {
		overflow |= __builtin_mul_overflow(value, UINT64_C(10), &value);
		overflow |= __builtin_add_overflow(value, (uint64_t)(*c - '0'), &value);
	}
	*text = c;
	*ret_value = value;
	return overflow ? -ERANGE : 0;
}

int num_parse_u64(const char *text, uint64_t *ret_value)
{
	uint64_t value;
	int r = num_take_digits(&text, &value);
	if (r == -EINVAL || *text != '\0')
		return -EINVAL;
	if (r < 0)
		return r;
	*ret_value = value;
	return 0;
}

/* Power of two of a suffix, -1 when it is none. */
static int num_suffix_shift(char suffix)
{
	switch (suffix) {
	case 'k':
	case 'K':
		return 10;
	case 'm':
	case 'M':
		return 20;
	case 'g':
	case 'G':
		return 30;
	case 't':
	case 'T':
		return 40;
	default:
		return -1;
	}
}

int num_parse_size(const char *text, uint64_t *ret_bytes)
{
	uint64_t value;
	int r = num_take_digits(&text, &value);
	if (r == -EINVAL)
		return r;
	int shift = 0;
	if (*text != '\0') {
		shift = num_suffix_shift(*text);
		if (shift < 0 || text[1] != '\0')
			return -EINVAL;
	}
	if (r < 0 || value > UINT64_MAX >> shift)
		return -ERANGE;
	*ret_bytes = value << shift;
	return 0;
}

void num_uuid_new(uint8_t ret_uuid[16])
{
	uuid_generate_random(ret_uuid);
}

void num_uuid_format(const uint8_t uuid[16], char ret_text[NUM_UUID_TEXT])
{
	uuid_unparse_lower(uuid, ret_text);
}

int num_uuid_parse(const char *text, uint8_t ret_uuid[16])
{
	return uuid_parse(text, ret_uuid) == 0 ? 0 : -EINVAL;
}

void num_hex_format(const void *bytes, size_t len, char *ret_text)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *byte = bytes;
	for (size_t i = 0; i < len; i++) {
		*ret_text++ = digits[byte[i] >> 4];
		*ret_text++ = digits[byte[i] & 0xf];
	}
	*ret_text = '\0';
}
