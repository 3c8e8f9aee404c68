/* SPDX-License-Identifier: MIT */
/* num - strict numbers, sizes and UUIDs from text, and back. No locale, no leading space or sign, nothing left over. */
#ifndef BASE_NUM_H
#define BASE_NUM_H

#include <stddef.h>
#include <stdint.h>

#define NUM_UUID_TEXT 37 /* bytes of a UUID as text, with its NUL */

/* Decimal digits only. 0, -EINVAL (not a number), -ERANGE (more than 64 bits). */
int num_parse_u64(const char *text, uint64_t *ret_value);

/* Decimal digits with an optional suffix K, M, G or T (either case, powers of 1024). Errors as num_parse_u64. */
int num_parse_size(const char *text, uint64_t *ret_bytes);

/* 16 random bytes as a version 4 UUID (libuuid). */
void num_uuid_new(uint8_t ret_uuid[16]);

/* Lower case, 8-4-4-4-12. */
void num_uuid_format(const uint8_t uuid[16], char ret_text[NUM_UUID_TEXT]);

/* 0 or -EINVAL. */
int num_uuid_parse(const char *text, uint8_t ret_uuid[16]);

/* Lower-case hex of len bytes into ret_text, which holds 2 * len + 1 bytes. */
void num_hex_format(const void *bytes, size_t len, char *ret_text);

#endif
