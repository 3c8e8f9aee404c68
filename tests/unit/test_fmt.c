/* SPDX-License-Identifier: MIT */
#include "testdir.h"

#include "base/num.h"
#include "format/fmt.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#define UUID "01234567-89ab-cdef-0123-456789abcdef"

/* nr_blocks blocks of 4 KiB, the last of 100 bytes. */
static struct fmt_since make_answer(uint64_t nr_blocks)
{
	struct bm *blocks;
	struct fmt_since answer = {
		.block_size = 4096, .image_size = (nr_blocks - 1) * 4096 + 100, .since = 3, .current_era = 7
	};
	ck_assert_int_eq(num_uuid_parse(UUID, answer.uuid), 0);
	ck_assert_int_eq(bm_new(nr_blocks, &blocks), 0);
	answer.blocks = blocks;
	return answer;
}

static void mark(const struct bm *bm, uint64_t begin, uint64_t end)
{
	ck_assert_int_eq(bm_set_range((struct bm *)bm, begin, end), 0);
}

static void drop(struct fmt_since *answer)
{
	bm_free((struct bm *)answer->blocks);
	bm_free((struct bm *)answer->conservative);
}

static char *written(const struct fmt_since *answer, enum fmt_kind kind)
{
	char *text;
	size_t size;
	FILE *stream = open_memstream(&text, &size);
	ck_assert_int_eq(fmt_write_since(answer, kind, stream), 0);
	ck_assert_int_eq(fclose(stream), 0);
	return text;
}

static void expect(const struct fmt_since *answer, enum fmt_kind kind, const char *golden)
{
	char *text = written(answer, kind);
	ck_assert_str_eq(text, golden);
	free(text);
}

START_TEST(test_kinds)
{
	static const char *const names[] = { "text", "json", "xml", "rbd" };
	enum fmt_kind kind;
	for (int i = 0; i < 4; i++) {
		ck_assert_int_eq(fmt_parse_kind(names[i], &kind), 0);
		ck_assert_int_eq(kind, i);
	}
	ck_assert_int_eq(fmt_parse_kind("TEXT", &kind), -EINVAL);
	ck_assert_int_eq(fmt_parse_kind("", &kind), -EINVAL);
}
END_TEST

START_TEST(test_empty)
{
	struct fmt_since answer = make_answer(10);
	uint64_t blocks, bytes;
	expect(&answer, FMT_TEXT, "");
	expect(&answer, FMT_XML, "<blocks>\n</blocks>\n");
	expect(&answer, FMT_RBD, "[]\n");
	expect(&answer, FMT_JSON,
		"{\"uuid\":\"" UUID "\",\"block_size\":4096,\"image_size\":36964,\"since\":3,\"current_era\":7,"
		"\"exact\":true,\"blocks\":0,\"bytes\":0,\"extents\":[],\"conservative\":[]}\n");
	fmt_count(&answer, &blocks, &bytes);
	ck_assert_uint_eq(blocks, 0);
	ck_assert_uint_eq(bytes, 0);
	drop(&answer);
}
END_TEST

START_TEST(test_golden)
{
	struct fmt_since answer = make_answer(10);
	struct bm *conservative;
	mark(answer.blocks, 0, 2);
	mark(answer.blocks, 5, 6);
	mark(answer.blocks, 8, 10);
	ck_assert_int_eq(bm_new(10, &conservative), 0);
	mark(conservative, 9, 10);
	answer.conservative = conservative;

	expect(&answer, FMT_TEXT, "0\t8192\n20480\t4096\n32768\t4196\n");
	expect(&answer, FMT_XML,
		"<blocks>\n  <range begin=\"0\" end=\"2\"/>\n  <block block=\"5\"/>\n  <range begin=\"8\" end=\"10\"/>\n</blocks>\n");
	expect(&answer, FMT_RBD,
		"[{\"offset\":0,\"length\":8192,\"exists\":\"true\"},\n{\"offset\":20480,\"length\":4096,\"exists\":\"true\"},\n"
		"{\"offset\":32768,\"length\":4196,\"exists\":\"true\"}]\n");
	expect(&answer, FMT_JSON,
		"{\"uuid\":\"" UUID "\",\"block_size\":4096,\"image_size\":36964,\"since\":3,\"current_era\":7,"
		"\"exact\":false,\"blocks\":5,\"bytes\":16484,\"extents\":[\n{\"offset\":0,\"length\":8192},\n"
		"{\"offset\":20480,\"length\":4096},\n{\"offset\":32768,\"length\":4196}],\"conservative\":[\n"
		"{\"offset\":36864,\"length\":100}]}\n");
	drop(&answer);
}
END_TEST

START_TEST(test_json_is_json)
{
	struct fmt_since answer = make_answer(3 * BM_CHUNK_BITS);
	for (uint64_t i = 0; i < 3 * BM_CHUNK_BITS; i += 2)
		mark(answer.blocks, i, i + 1);
	char *text = written(&answer, FMT_JSON);
	json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	ck_assert_uint_eq(json_array_size(json_object_get(json, "extents")), 3 * BM_CHUNK_BITS / 2);
	json_decref(json);
	free(text);
	text = written(&answer, FMT_RBD);
	json = json_loads(text, 0, NULL);
	ck_assert_uint_eq(json_array_size(json), 3 * BM_CHUNK_BITS / 2);
	json_decref(json);
	free(text);
	drop(&answer);
}
END_TEST

/* One run over two borders of chunks is one extent. */
START_TEST(test_merged_over_chunks)
{
	struct fmt_since answer = make_answer(3 * BM_CHUNK_BITS);
	mark(answer.blocks, BM_CHUNK_BITS - 1, 2 * BM_CHUNK_BITS + 1);
	expect(&answer, FMT_TEXT, "16773120\t16785408\n");
	expect(&answer, FMT_XML, "<blocks>\n  <range begin=\"4095\" end=\"8193\"/>\n</blocks>\n");
	drop(&answer);
}
END_TEST

/* All blocks are the image to the byte, whatever the geometry. */
START_TEST(test_all)
{
	static const uint64_t geometries[] = { 1, 2, 63, 64, 65, 4095, 4096, 4097 };
	for (size_t i = 0; i < sizeof(geometries) / sizeof(geometries[0]); i++) {
		struct fmt_since answer = make_answer(geometries[i]);
		char line[64];
		uint64_t blocks, bytes;
		mark(answer.blocks, 0, geometries[i]);
		snprintf(line, sizeof(line), "0\t%llu\n", (unsigned long long)answer.image_size);
		expect(&answer, FMT_TEXT, line);
		fmt_count(&answer, &blocks, &bytes);
		ck_assert_uint_eq(blocks, geometries[i]);
		ck_assert_uint_eq(bytes, answer.image_size);
		drop(&answer);
	}
}
END_TEST

/* The greatest image that there is: no sum leaves 64 bits. */
START_TEST(test_greatest)
{
	struct fmt_since answer = make_answer(BM_MAX_BITS);
	answer.block_size = UINT64_C(1) << 30;
	answer.image_size = BM_MAX_BITS << 30;
	mark(answer.blocks, BM_MAX_BITS - 1, BM_MAX_BITS);
	expect(&answer, FMT_TEXT, "2305843007066210304\t1073741824\n");
	drop(&answer);
}
END_TEST

/* From the middle of an extent, and from the end of a partial last block. */
START_TEST(test_next_extent)
{
	struct fmt_since answer = make_answer(10);
	uint64_t at = 4100, offset, length;
	mark(answer.blocks, 0, 2);
	mark(answer.blocks, 9, 10);
	ck_assert(fmt_next_extent(&answer, answer.blocks, &at, &offset, &length));
	ck_assert_uint_eq(offset, 4100);
	ck_assert_uint_eq(length, 4092);
	ck_assert_uint_eq(at, 8192);
	ck_assert(fmt_next_extent(&answer, answer.blocks, &at, &offset, &length));
	ck_assert_uint_eq(offset, 36864);
	ck_assert_uint_eq(length, 100);
	ck_assert(!fmt_next_extent(&answer, answer.blocks, &at, &offset, &length));
	drop(&answer);
}
END_TEST

START_TEST(test_full_disk)
{
	struct fmt_since answer = make_answer(10);
	mark(answer.blocks, 0, 2);
	for (int kind = FMT_TEXT; kind <= FMT_RBD; kind++) {
		FILE *full = fopen("/dev/full", "w");
		ck_assert_ptr_nonnull(full);
		ck_assert_int_eq(fmt_write_since(&answer, (enum fmt_kind)kind, full), -ENOSPC);
		/* Nothing was ever written, so closing fails again. */
		fclose(full);
		full = fopen("/dev/full", "w");
		setvbuf(full, NULL, _IONBF, 0);
		ck_assert_int_eq(fmt_write_since(&answer, (enum fmt_kind)kind, full), -ENOSPC);
		fclose(full);
	}
	drop(&answer);
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("fmt");
	tcase_add_test(tcase, test_kinds);
	tcase_add_test(tcase, test_empty);
	tcase_add_test(tcase, test_golden);
	tcase_add_test(tcase, test_json_is_json);
	tcase_add_test(tcase, test_merged_over_chunks);
	tcase_add_test(tcase, test_all);
	tcase_add_test(tcase, test_greatest);
	tcase_add_test(tcase, test_next_extent);
	tcase_add_test(tcase, test_full_disk);
	return testdir_main("fmt", tcase);
}
