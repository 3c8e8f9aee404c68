/* SPDX-License-Identifier: MIT */
/* Era XML: written as era_dump does, read strictly, and a corpus of what must be refused. */
#include "format/era_xml.h"

#include <check.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED
#endif

#define NR 9000 /* blocks: two whole chunks and a part of a third */

/* What came in. */
struct seen {
	struct fmt_era_super super;
	unsigned int nr_supers;
	unsigned int nr_calls;
	uint64_t last_chunk;
	uint8_t bits[8][NR]; /* by era */
	uint64_t eras[NR];
	int fail_at; /* the call that fails; 0: none */
};

static int seen_call(struct seen *seen, struct err *err)
{
	if (++seen->nr_calls == (unsigned int)seen->fail_at)
		return err_set(err, -ENOSPC, "no room");
	return 0;
}

static int on_super(const struct fmt_era_super *super, void *arg, struct err *err)
{
	struct seen *seen = arg;
	seen->super = *super;
	seen->nr_supers++;
	return seen_call(seen, err);
}

static int on_bits(uint64_t era, uint64_t chunk, const uint64_t *words, void *arg, struct err *err)
{
	struct seen *seen = arg;
	uint64_t any = 0;
	for (unsigned int i = 0; i < BM_CHUNK_BITS; i++) {
		if (!(words[i / 64] >> i % 64 & 1))
			continue;
		any = 1;
		ck_assert_uint_lt(chunk * BM_CHUNK_BITS + i, NR);
		ck_assert_uint_eq(seen->bits[era][chunk * BM_CHUNK_BITS + i]++, 0);
	}
	ck_assert(any);
	return seen_call(seen, err);
}

static int on_eras(uint64_t chunk, const uint64_t *eras, void *arg, struct err *err)
{
	struct seen *seen = arg;
	for (unsigned int i = 0; i < BM_CHUNK_BITS; i++) {
		if (eras[i] == 0)
			continue;
		ck_assert_uint_lt(chunk * BM_CHUNK_BITS + i, NR);
		ck_assert_uint_eq(seen->eras[chunk * BM_CHUNK_BITS + i], 0);
		seen->eras[chunk * BM_CHUNK_BITS + i] = eras[i];
	}
	return seen_call(seen, err);
}

static const struct fmt_era_sink sink = { on_super, on_bits, on_eras };

static int read_text(const char *text, size_t len, struct seen *seen, struct err *err)
{
	FILE *in = fmemopen((void *)text, len, "r");
	ck_assert_ptr_nonnull(in);
	int r = fmt_era_read(in, "test.xml", &sink, seen, err);
	fclose(in);
	return r;
}

static void expect_refused(const char *text, const char *words)
{
	struct seen *seen = calloc(1, sizeof(*seen));
	struct err err = ERR_INIT;
	int r = read_text(text, strlen(text), seen, &err);
	ck_assert_msg(r == -EINVAL, "%d for: %s", r, text);
	ck_assert_msg(strstr(err.text, words) && strstr(err.text, "test.xml"), "'%s' is not in '%s' for: %s", words,
		err.text, text);
	ck_assert_ptr_null(strchr(err.text, '\n'));
	free(seen);
}

static struct seen *expect_read(const char *text)
{
	struct seen *seen = calloc(1, sizeof(*seen));
	struct err err = ERR_INIT;
	int r = read_text(text, strlen(text), seen, &err);
	ck_assert_msg(r == 0, "%s: %s", text, err.text);
	ck_assert_uint_eq(seen->nr_supers, 1);
	return seen;
}

#define SUPER "<superblock uuid=\"\" block_size=\"8\" nr_blocks=\"9000\" current_era=\"5\">"
#define WS "<writeset era=\"3\" nr_bits=\"9000\">"
#define END "</superblock>"

START_TEST(test_write)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	struct fmt_era_super super = { .uuid = "u", .block_size = 65536, .nr_blocks = 3, .current_era = 4294967295 };
	uint64_t words[BM_CHUNK_WORDS] = { 5 };
	uint64_t eras[] = { 0, 4294967295, 1 };
	ck_assert_int_eq(fmt_era_write_super(&super, out), 0);
	ck_assert_int_eq(fmt_era_write_writeset(7, 3, out), 0);
	ck_assert_int_eq(fmt_era_write_bits(0, 3, words, out), 0);
	ck_assert_int_eq(fmt_era_write_writeset_end(out), 0);
	ck_assert_int_eq(fmt_era_write_array(out), 0);
	ck_assert_int_eq(fmt_era_write_eras(0, 3, eras, out), 0);
	ck_assert_int_eq(fmt_era_write_end(out), 0);
	fclose(out);
	ck_assert_str_eq(text, "<superblock uuid=\"u\" block_size=\"128\" nr_blocks=\"3\" current_era=\"4294967295\">\n"
			       "  <writeset era=\"7\" nr_bits=\"3\">\n"
			       "    <bit block=\"0\" value=\"true\"/>\n"
			       "    <bit block=\"1\" value=\"false\"/>\n"
			       "    <bit block=\"2\" value=\"true\"/>\n"
			       "  </writeset>\n"
			       "  <era_array>\n"
			       "    <era block=\"0\" era=\"0\"/>\n"
			       "    <era block=\"1\" era=\"4294967295\"/>\n"
			       "    <era block=\"2\" era=\"1\"/>\n"
			       "  </era_array>\n"
			       "</superblock>\n");
	free(text);
	out = fopen("/dev/full", "w");
	setvbuf(out, NULL, _IONBF, 0);
	ck_assert_int_eq(fmt_era_write_super(&super, out), -ENOSPC);
	ck_assert_int_eq(fmt_era_write_bits(0, 3, words, out), -ENOSPC);
	ck_assert_int_eq(fmt_era_write_eras(0, 3, eras, out), -ENOSPC);
	ck_assert_int_eq(fmt_era_write_end(out), -ENOSPC);
	fclose(out);
}
END_TEST

START_TEST(test_read)
{
	struct seen *seen = expect_read(
		"<?xml version=\"1.0\"?>\n<superblock current_era=\"5\" uuid=\"a&amp;b\" nr_blocks=\"9000\" block_size=\"8\">"
		"<!-- c --><era_array><era block=\"4095\" era=\"1\"/><era era=\"0\" block=\"4096\"/>"
		"<era block=\"8999\" era=\"5\"></era></era_array>\n" WS "<bit block=\"0\" value=\"true\"/>"
		"<bit block=\"1\" value=\"false\"/><bit block=\"8999\" value=\"true\"/></writeset>"
		"<writeset era=\"5\" nr_bits=\"1\"><bit value=\"true\" block=\"0\"/></writeset>" END
		"\n<!-- end -->\n");
	ck_assert_str_eq(seen->super.uuid, "a&b");
	ck_assert_uint_eq(seen->super.block_size, 4096);
	ck_assert_uint_eq(seen->super.nr_blocks, 9000);
	ck_assert_uint_eq(seen->super.current_era, 5);
	ck_assert_uint_eq(seen->eras[4095], 1);
	ck_assert_uint_eq(seen->eras[4096], 0);
	ck_assert_uint_eq(seen->eras[8999], 5);
	ck_assert(seen->bits[3][0] && !seen->bits[3][1] && seen->bits[3][8999] && seen->bits[5][0]);
	ck_assert_uint_eq(seen->nr_calls, 1 + 2 + 2 + 1);
	free(seen);
	free(expect_read(SUPER END));
	free(expect_read(SUPER WS "</writeset><era_array></era_array>" END));
}
END_TEST

/* Runs that begin and end anywhere around the borders of words and chunks. */
START_TEST(test_marked)
{
	static const unsigned int edges[] = { 0, 1, 62, 63, 64, 65, 127, 128, 129, 4032, 4095, 4096, 4097, 4160, 8191,
		8192, 8193, 8999 };
	static const unsigned int lengths[] = { 0, 1, 2, 63, 64, 65, 128, 4096, 4097, 8300 };
	for (size_t i = 0; i < sizeof(edges) / sizeof(edges[0]); i++) {
		for (size_t k = 0; k < sizeof(lengths) / sizeof(lengths[0]); k++) {
			unsigned int begin = edges[i];
			unsigned int end = begin + lengths[k];
			char text[512];
			if (end > NR)
				continue;
			snprintf(text, sizeof(text), SUPER WS "<marked block_begin=\"%u\" len=\"%u\"/></writeset>" END,
				begin, end - begin);
			struct seen *seen = expect_read(text);
			for (unsigned int b = 0; b < NR; b++)
				ck_assert_msg(
					seen->bits[3][b] == (b >= begin && b < end), "%u..%u: block %u", begin, end, b);
			free(seen);
		}
	}
	/* Two runs within one word, and both dialects in one writeset. */
	struct seen *seen = expect_read(SUPER WS
		"<marked block_begin=\"1\" len=\"2\"/><bit block=\"3\" value=\"false\"/><marked block_begin=\"5\" len=\"1\"/>"
		"</writeset>" END);
	for (unsigned int b = 0; b < NR; b++)
		ck_assert(seen->bits[3][b] == (b == 1 || b == 2 || b == 5));
	free(seen);
}
END_TEST

START_TEST(test_refused)
{
	static const char *const corpus[][2] = {
		{ "", "no element" },
		{ "x", "syntax" },
		{ "<superblock", "unclosed" },
		{ SUPER, "no element" },
		{ SUPER WS END, "mismatched" },
		{ SUPER END "x", "junk" },
		{ SUPER END SUPER END, "junk" },
		{ SUPER END "<?p x?>", "processing" },
		{ "<!DOCTYPE superblock>" SUPER END, "document type" },
		{ "<!DOCTYPE s [<!ENTITY a \"b\"><!ENTITY c \"&a;&a;\">]>" SUPER END, "document type" },
		{ "<!DOCTYPE s SYSTEM \"file:///etc/passwd\">" SUPER END, "document type" },
		{ SUPER "&x;" END, "undefined entity" },
		{ SUPER "text" END, "text" },
		{ SUPER "<![CDATA[x]]>" END, "text" },
		{ "<blocks></blocks>", "<blocks>" },
		{ "<writeset era=\"1\" nr_bits=\"1\"/>", "<writeset>" },
		{ SUPER SUPER END END, "<superblock>" },
		{ SUPER "<bit block=\"0\" value=\"true\"/>" END, "<bit>" },
		{ SUPER "<foo/>" END, "<foo>" },
		{ SUPER WS "<bit block=\"0\" value=\"true\"><bit block=\"1\" value=\"true\"/></bit></writeset>" END,
			"<bit>" },
		{ SUPER WS WS "</writeset></writeset>" END, "<writeset>" },
		{ SUPER WS "<era block=\"0\" era=\"1\"/></writeset>" END, "<era>" },
		{ SUPER "<era_array/><era_array/>" END, "second era_array" },
		{ "<superblock block_size=\"8\" nr_blocks=\"1\" current_era=\"5\"/>", "lacks uuid" },
		{ "<superblock uuid=\"\" block_size=\"8\" nr_blocks=\"1\"/>", "lacks current_era" },
		{ "<superblock uuid=\"\" uuid=\"\" block_size=\"8\" nr_blocks=\"1\" current_era=\"5\"/>", "duplicate" },
		{ "<superblock uuid=\"\" block_size=\"8\" nr_blocks=\"1\" current_era=\"5\" x=\"\"/>", "too many" },
		{ "<superblock uuid=\"\" block_size=\"0\" nr_blocks=\"1\" current_era=\"5\"/>", "block_size" },
		{ "<superblock uuid=\"\" block_size=\"99999999999999999999\" nr_blocks=\"1\" current_era=\"5\"/>",
			"block_size" },
		{ "<superblock uuid=\"\" block_size=\"4294967296\" nr_blocks=\"1\" current_era=\"5\"/>", "block_size" },
		{ "<superblock uuid=\"\" block_size=\"8\" nr_blocks=\"0\" current_era=\"5\"/>", "nr_blocks" },
		{ "<superblock uuid=\"\" block_size=\"8\" nr_blocks=\"2147483648\" current_era=\"5\"/>", "nr_blocks" },
		{ "<superblock uuid=\"\" block_size=\"8\" nr_blocks=\"-1\" current_era=\"5\"/>", "nr_blocks" },
		{ "<superblock uuid=\"\" block_size=\"8\" nr_blocks=\" 1\" current_era=\"5\"/>", "nr_blocks" },
		{ "<superblock uuid=\"\" block_size=\"8\" nr_blocks=\"0x10\" current_era=\"5\"/>", "nr_blocks" },
		{ "<superblock uuid=\"\" block_size=\"8\" nr_blocks=\"\" current_era=\"5\"/>", "nr_blocks" },
		{ "<superblock uuid=\"\" block_size=\"8\" nr_blocks=\"1\" current_era=\"4294967296\"/>",
			"current_era" },
		{ SUPER "<writeset era=\"6\" nr_bits=\"9000\"/>" END, "era is '6'" },
		{ SUPER "<writeset era=\"0\" nr_bits=\"9000\"/>" END, "era is '0'" },
		{ SUPER "<writeset era=\"1\" nr_bits=\"9001\"/>" END, "nr_bits" },
		{ SUPER "<writeset era=\"1\"/>" END, "lacks nr_bits" },
		{ SUPER WS "</writeset>" WS "</writeset>" END, "writeset 3" },
		{ SUPER WS "</writeset><writeset era=\"2\" nr_bits=\"9000\"/>" END, "writeset 2" },
		{ SUPER "<writeset era=\"1\" nr_bits=\"8\"><bit block=\"8\" value=\"true\"/></writeset>" END,
			"block is '8'" },
		{ SUPER WS "<bit block=\"9000\" value=\"true\"/></writeset>" END, "block is '9000'" },
		{ SUPER WS "<bit block=\"0\" value=\"1\"/></writeset>" END, "value is '1'" },
		{ SUPER WS "<bit block=\"0\" value=\"TRUE\"/></writeset>" END, "value is 'TRUE'" },
		{ SUPER WS "<bit block=\"7\" value=\"true\"/><bit block=\"7\" value=\"false\"/></writeset>" END,
			"block 7" },
		{ SUPER WS "<bit block=\"7\" value=\"true\"/><bit block=\"6\" value=\"true\"/></writeset>" END,
			"block 6" },
		{ SUPER WS "<marked block_begin=\"7\" len=\"3\"/><bit block=\"9\" value=\"false\"/></writeset>" END,
			"block 9" },
		{ SUPER WS "<marked block_begin=\"8999\" len=\"2\"/></writeset>" END, "len is '2'" },
		{ SUPER WS "<marked block_begin=\"1\" len=\"18446744073709551615\"/></writeset>" END, "len" },
		{ SUPER WS "<marked block_begin=\"18446744073709551615\" len=\"1\"/></writeset>" END, "block_begin" },
		{ SUPER "<era_array><era block=\"0\" era=\"6\"/></era_array>" END, "era is '6'" },
		{ SUPER "<era_array><era block=\"9000\" era=\"1\"/></era_array>" END, "block is '9000'" },
		{ SUPER "<era_array><era block=\"1\" era=\"1\"/><era block=\"1\" era=\"1\"/></era_array>" END,
			"block 1" },
		{ SUPER "<era_array><era block=\"1\" era=\"0\"/><era block=\"0\" era=\"1\"/></era_array>" END,
			"block 0" },
	};
	for (size_t i = 0; i < sizeof(corpus) / sizeof(corpus[0]); i++)
		expect_refused(corpus[i][0], corpus[i][1]);
}
END_TEST

/* Cut at each byte, and with each byte another: never more than what it was, never a crash. */
START_TEST(test_mangled)
{
	static const char whole[] = SUPER WS
		"<bit block=\"0\" value=\"true\"/></writeset><era_array><era block=\"5\" era=\"1\"/></era_array>" END;
	struct seen *seen = calloc(1, sizeof(*seen));
	for (size_t cut = 1; cut < sizeof(whole) - 1; cut++) {
		memset(seen, 0, sizeof(*seen));
		ck_assert_int_eq(read_text(whole, cut, seen, NULL), -EINVAL);
	}
	for (size_t i = 0; i < sizeof(whole) - 1; i++) {
		char copy[sizeof(whole)];
		for (unsigned int c = 0; c < 256; c += 5) {
			memcpy(copy, whole, sizeof(whole));
			copy[i] = (char)c;
			memset(seen, 0, sizeof(*seen));
			int r = read_text(copy, sizeof(whole) - 1, seen, NULL);
			ck_assert(r == 0 || r == -EINVAL);
		}
	}
	free(seen);
}
END_TEST

/* Tags, comments and attributes that do not end. */
START_TEST(test_endless)
{
	static const char *const heads[] = { "<superblock uuid=\"", "<!-- ", SUPER "<!--", SUPER WS "<bit block=\"",
		SUPER "<a", "<superblock uuid=\"\" " };
	struct rlimit limit = { 256u << 20, 256u << 20 };
	size_t size = 64u << 20;
	char *text = malloc(size + 1);
	ck_assert_ptr_nonnull(text);
#ifndef SANITIZED /* which map more than there is */
	ck_assert_int_eq(setrlimit(RLIMIT_AS, &limit), 0);
#endif
	(void)limit;
	for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
		memset(text, 'x', size);
		memcpy(text, heads[i], strlen(heads[i]));
		text[size] = '\0';
		expect_refused(text, "longer than");
	}
	free(text);
	/* A uuid that is no tag's length, but no uuid either. */
	char uuid[600] = "<superblock uuid=\"";
	memset(uuid + strlen(uuid), 'u', 300);
	strcat(uuid, "\" block_size=\"8\" nr_blocks=\"1\" current_era=\"1\"/>");
	expect_refused(uuid, "uuid is longer");
}
END_TEST

START_TEST(test_sink_fails)
{
	static const char text[] =
		SUPER WS "<bit block=\"0\" value=\"true\"/><bit block=\"5000\" value=\"true\"/></writeset>"
			 "<era_array><era block=\"5\" era=\"1\"/></era_array>" END;
	for (int at = 1; at <= 4; at++) {
		struct seen *seen = calloc(1, sizeof(*seen));
		struct err err = ERR_INIT;
		seen->fail_at = at;
		ck_assert_int_eq(read_text(text, sizeof(text) - 1, seen, &err), -ENOSPC);
		ck_assert_str_eq(err.text, "no room");
		ck_assert_uint_eq(seen->nr_calls, (unsigned int)at);
		free(seen);
	}
	FILE *in = fopen("/", "r");
	struct err err = ERR_INIT;
	ck_assert_ptr_nonnull(in);
	ck_assert_int_eq(fmt_era_read(in, "test.xml", &sink, NULL, &err), -EISDIR);
	fclose(in);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("era_xml");
	TCase *tcase = tcase_create("era_xml");
	tcase_set_timeout(tcase, 120);
	tcase_add_test(tcase, test_write);
	tcase_add_test(tcase, test_read);
	tcase_add_test(tcase, test_marked);
	tcase_add_test(tcase, test_refused);
	tcase_add_test(tcase, test_mangled);
	tcase_add_test(tcase, test_endless);
	tcase_add_test(tcase, test_sink_fails);
	suite_add_tcase(suite, tcase);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
