/* SPDX-License-Identifier: MIT */
#include "testdir.h"

#include "base/num.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

START_TEST(u64)
{
	static const struct {
		const char *text;
		int result;
		uint64_t value;
	} cases[] = {
		{ "0", 0, 0 },
		{ "7", 0, 7 },
		{ "0007", 0, 7 },
		{ "18446744073709551615", 0, UINT64_MAX },
		{ "18446744073709551616", -ERANGE, 0 },
		{ "99999999999999999999999999", -ERANGE, 0 },
		{ "99999999999999999999999999x", -EINVAL, 0 },
		{ "", -EINVAL, 0 },
		{ " 1", -EINVAL, 0 },
		{ "1 ", -EINVAL, 0 },
		{ "1\n", -EINVAL, 0 },
		{ "+1", -EINVAL, 0 },
		{ "-1", -EINVAL, 0 },
		{ "0x10", -EINVAL, 0 },
		{ "1e3", -EINVAL, 0 },
		{ "1K", -EINVAL, 0 },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t value = 4711;
		ck_assert_msg(
			num_parse_u64(cases[i].text, &value) == cases[i].result, "result of \"%s\"", cases[i].text);
		uint64_t expected = cases[i].result == 0 ? cases[i].value : 4711;
		ck_assert_msg(value == expected, "value of \"%s\": %" PRIu64, cases[i].text, value);
	}
}
END_TEST

START_TEST(size)
{
	static const struct {
		const char *text;
		int result;
		uint64_t bytes;
	} cases[] = {
		{ "0", 0, 0 },
		{ "512", 0, 512 },
		{ "64K", 0, 65536 },
		{ "64k", 0, 65536 },
		{ "3M", 0, UINT64_C(3) << 20 },
		{ "3m", 0, UINT64_C(3) << 20 },
		{ "5G", 0, UINT64_C(5) << 30 },
		{ "5g", 0, UINT64_C(5) << 30 },
		{ "2T", 0, UINT64_C(2) << 40 },
		{ "2t", 0, UINT64_C(2) << 40 },
		{ "16777215T", 0, UINT64_C(16777215) << 40 },
		{ "16777216T", -ERANGE, 0 },
		{ "18446744073709551616K", -ERANGE, 0 },
		{ "18446744073709551616", -ERANGE, 0 },
		{ "18446744073709551616Q", -EINVAL, 0 },
		{ "K", -EINVAL, 0 },
		{ "", -EINVAL, 0 },
		{ "1KB", -EINVAL, 0 },
		{ "1KiB", -EINVAL, 0 },
		{ "1P", -EINVAL, 0 },
		{ "1.5G", -EINVAL, 0 },
		{ "-1K", -EINVAL, 0 },
		{ "1 K", -EINVAL, 0 },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t bytes = 4711;
		ck_assert_msg(
			num_parse_size(cases[i].text, &bytes) == cases[i].result, "result of \"%s\"", cases[i].text);
		uint64_t expected = cases[i].result == 0 ? cases[i].bytes : 4711;
		ck_assert_msg(bytes == expected, "value of \"%s\": %" PRIu64, cases[i].text, bytes);
	}
}
END_TEST

START_TEST(uuid)
{
	static const uint8_t known[16] = { 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0x4d, 0xef, 0x80, 0x11, 0x22, 0x33, 0x44,
		0x55, 0x66, 0xff };
	char text[NUM_UUID_TEXT];
	num_uuid_format(known, text);
	ck_assert_str_eq(text, "01234567-89ab-4def-8011-2233445566ff");

	uint8_t one[16], two[16], back[16];
	num_uuid_new(one);
	num_uuid_new(two);
	ck_assert_mem_ne(one, two, 16);
	ck_assert_uint_eq(one[6] >> 4, 4);
	ck_assert_uint_eq(one[8] >> 6, 2);
	num_uuid_format(one, text);
	ck_assert_int_eq(num_uuid_parse(text, back), 0);
	ck_assert_mem_eq(one, back, 16);

	static const char *const bad[] = { "", "01234567-89ab-4def-8011-2233445566f",
		"01234567-89ab-4def-8011-2233445566ff0", "01234567-89ab-4def-8011-2233445566fg",
		"0123456789ab4def80112233445566ff", " 1234567-89ab-4def-8011-2233445566ff",
		"{01234567-89ab-4def-8011-2233445566ff}" };
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(num_uuid_parse(bad[i], back) == -EINVAL, "\"%s\" was taken", bad[i]);
}
END_TEST

START_TEST(hex)
{
	char text[7];
	num_hex_format("\x00\x7f\xff", 3, text);
	ck_assert_str_eq(text, "007fff");
	num_hex_format("", 0, text);
	ck_assert_str_eq(text, "");
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("num");
	tcase_add_test(tcase, u64);
	tcase_add_test(tcase, size);
	tcase_add_test(tcase, uuid);
	tcase_add_test(tcase, hex);
	return testdir_main("num", tcase);
}
