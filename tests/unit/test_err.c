/* SPDX-License-Identifier: MIT */
#include "testdir.h"

#include "base/err.h"

#include <errno.h>
#include <string.h>

START_TEST(set_fills_and_returns_code)
{
	struct err err = ERR_INIT;
	ck_assert_int_eq(err_set(&err, -ENOENT, "%s: %d", "vm.img", 7), -ENOENT);
	ck_assert_int_eq(err.code, -ENOENT);
	ck_assert_int_eq(err.exit, ERR_EXIT_FAILED);
	ck_assert_str_eq(err.text, "vm.img: 7");

	ck_assert_int_eq(err_set_exit(&err, ERR_EXIT_REFUSED, -EBUSY, "busy"), -EBUSY);
	ck_assert_int_eq(err.code, -EBUSY);
	ck_assert_int_eq(err.exit, ERR_EXIT_REFUSED);
	ck_assert_str_eq(err.text, "busy");
}
END_TEST

START_TEST(null_is_fine)
{
	ck_assert_int_eq(err_set(NULL, -EIO, "x"), -EIO);
	ck_assert_int_eq(err_set_exit(NULL, ERR_EXIT_USAGE, -EINVAL, "x"), -EINVAL);
}
END_TEST

START_TEST(prefix_keeps_code_and_exit)
{
	struct err err = ERR_INIT;
	err_set_exit(&err, ERR_EXIT_UNKNOWN, -ESTALE, "era 9 has not begun");
	ck_assert_int_eq(err_prefix(&err, "%s", "/mnt/vm"), -ESTALE);
	ck_assert_str_eq(err.text, "/mnt/vm: era 9 has not begun");
	ck_assert_int_eq(err.exit, ERR_EXIT_UNKNOWN);
}
END_TEST

START_TEST(own_text_may_be_an_argument)
{
	struct err err = ERR_INIT;
	err_set(&err, -EIO, "inner");
	err_set(&err, -EIO, "outer: %s", err.text);
	ck_assert_str_eq(err.text, "outer: inner");
}
END_TEST

START_TEST(control_characters_cannot_break_the_line)
{
	struct err err = ERR_INIT;
	err_set(&err, -EIO, "a\nb\033[2Jc\x7f \xc3\xa4");
	ck_assert_str_eq(err.text, "a?b?[2Jc? \xc3\xa4");
}
END_TEST

/* A long text is cut between characters, wherever the limit falls. */
START_TEST(cut_is_valid_utf8)
{
	char longer[3000];
	for (size_t lead = 0; lead < 4; lead++) {
		memset(longer, 'x', lead);
		for (size_t i = lead; i + 3 < sizeof(longer); i += 3)
			memcpy(longer + i, "\xe2\x82\xac", 4);
		struct err err = ERR_INIT;
		err_set(&err, -EIO, "%s", longer);
		size_t len = strlen(err.text);
		ck_assert_uint_ge(len, sizeof(err.text) - 4);
		ck_assert_uint_eq((len - lead) % 3, 0);
		ck_assert_mem_eq(err.text, longer, len);

		err_prefix(&err, "%s", longer);
		len = strlen(err.text);
		ck_assert_uint_ge(len, sizeof(err.text) - 4);
		ck_assert_uint_eq((len - lead) % 3, 0);
	}
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("err");
	tcase_add_test(tcase, set_fills_and_returns_code);
	tcase_add_test(tcase, null_is_fine);
	tcase_add_test(tcase, prefix_keeps_code_and_exit);
	tcase_add_test(tcase, own_text_may_be_an_argument);
	tcase_add_test(tcase, control_characters_cannot_break_the_line);
	tcase_add_test(tcase, cut_is_valid_utf8);
	return testdir_main("err", tcase);
}
