/* SPDX-License-Identifier: MIT */
/* era-cli dump, restore and snapshot, on metadata at rest and of instances that the test plays. */
#include "cli_fixture.h"

/* NAME.era of so many bytes with a history in odd places; floor_era as given. */
static void make_odd(const char *name, uint64_t bytes, uint64_t floor_era)
{
	uint64_t nr = (bytes + BLOCK - 1) / BLOCK;
	struct meta *meta = create(name, UUID_A, bytes, nr);
	meta_pending(meta)->floor_era = floor_era;
	for (uint64_t era = 1; era <= 5; era++) {
		for (uint64_t block = nr - 1;; block /= 2 + era) {
			uint64_t words[BM_CHUNK_WORDS] = { 0 };
			words[block % BM_CHUNK_BITS / 64] = UINT64_C(1) << block % 64;
			ck_assert_int_eq(meta_writeset_or(meta, era, block / BM_CHUNK_BITS, words), 0);
			if (block == 0)
				break;
		}
	}
	ck_assert_int_eq(meta_commit(meta), 0);
	bool more = true;
	while (more) {
		ck_assert_int_eq(meta_begin(meta, META_LAZY), 0);
		ck_assert_int_eq(meta_digest(meta, 3, 2, &more), 0);
		ck_assert_int_eq(meta_commit(meta), 0);
	}
	meta_close(meta);
}

START_TEST(test_identity)
{
	static const uint64_t bytes[] = { 1, BLOCK, BLOCK + 1, 63 * BLOCK, 64 * BLOCK, 65 * BLOCK - 7, 4095 * BLOCK,
		4096 * BLOCK, 4097 * BLOCK, UINT64_C(9000) * BLOCK + 1 };
	begin("identity");
	for (size_t i = 0; i < sizeof(bytes) / sizeof(bytes[0]); i++) {
		for (uint64_t floor_era = 0; floor_era < 3; floor_era += 2) {
			make_odd("a", bytes[i], floor_era);
			ck_assert_int_eq(
				sh("for l in '' --logical; do"
				   " $E dump $l a.era >1.xml && $E restore -i 1.xml -o b.era && $E check b.era &&"
				   " $E dump $l b.era >2.xml && cmp 1.xml 2.xml &&"
				   " for n in 0 1 2 3 4 5; do"
				   "  $E since $n --format xml a.era >1.since && $E since $n --format xml b.era >2.since &&"
				   "  cmp 1.since 2.since || exit 1;"
				   " done; rm b.era || exit 1; done"),
				0);
			ck_assert_str_eq(out_text, "");
			ck_assert_int_eq(sh("xmllint --noout 1.xml && grep -c '<era ' 1.xml"), 0);
			ck_assert_uint_eq(strtoull(out_text, NULL, 10), (bytes[i] + BLOCK - 1) / BLOCK);
			ck_assert_int_eq(sh("rm a.era a.era-*"), 0);
		}
	}
	expect_output(sh("ls -A | grep -c new- || :"), "0\n");
}
END_TEST

START_TEST(test_dump)
{
	begin("dump");
	make_pair("a", UUID_A, 0, true);
	static const char wanted[] =
		"<superblock uuid=\"" UUID_A "\" block_size=\"8\" nr_blocks=\"10\" current_era=\"5\">\n  <era_array>\n"
		"    <era block=\"0\" era=\"2\"/>\n    <era block=\"1\" era=\"2\"/>\n"
		"    <era block=\"2\" era=\"0\"/>\n    <era block=\"3\" era=\"0\"/>\n"
		"    <era block=\"4\" era=\"0\"/>\n    <era block=\"5\" era=\"5\"/>\n"
		"    <era block=\"6\" era=\"0\"/>\n    <era block=\"7\" era=\"0\"/>\n"
		"    <era block=\"8\" era=\"4\"/>\n    <era block=\"9\" era=\"4\"/>\n"
		"  </era_array>\n</superblock>\n";
	expect_output(sh("$E dump --logical a"), wanted);
	touch("x", "old");
	expect_output(sh("$E dump --logical -o x a.era"), "");
	expect_file("x", wanted);
	/* A writeset for each era, the current one included, every block written out. */
	expect_output(sh("$E dump a | grep -A6 '<writeset era=.5'"),
		"  <writeset era=\"5\" nr_bits=\"10\">\n    <bit block=\"0\" value=\"false\"/>\n"
		"    <bit block=\"1\" value=\"false\"/>\n    <bit block=\"2\" value=\"false\"/>\n"
		"    <bit block=\"3\" value=\"false\"/>\n    <bit block=\"4\" value=\"false\"/>\n"
		"    <bit block=\"5\" value=\"true\"/>\n");
	/* The image may be away or another: the metadata say what they say. */
	expect_output(sh("mv a b && touch a && $E dump --logical a"), wanted);
	expect_error(sh("$E dump -o b.era-wal --logical b"), 1, "b.era");
	expect_error(sh("$E dump -o a.era a"), 2, "a.era");
	expect_error(sh("$E dump -o a a"), 2, "-o names the file for the XML");
	expect_error(sh("$E dump a a"), 2, "a");
	expect_error(sh("$E dump >/dev/full a"), 1, "standard output");
	ck_assert_int_eq(sh("{ $E dump a; echo $? >status; } | true"), 0);
	ck_assert_str_eq(err_text, "");
	expect_error(sh("$E dump -o no/such a"), 1, "no/such");
}
END_TEST

START_TEST(test_great_era)
{
	begin("great_era");
	struct meta *meta = create("a", UUID_A, IMAGE_SIZE, NR_BLOCKS);
	meta_pending(meta)->current_era = UINT32_MAX;
	write_blocks(meta, UINT32_MAX, 3, 4);
	ck_assert_int_eq(meta_commit(meta), 0);
	ck_assert_int_eq(sh("$E dump a.era >1.xml && $E restore -i 1.xml -o b.era && $E dump b.era | cmp - 1.xml"), 0);
	ck_assert_int_eq(meta_begin(meta, META_FULL), 0);
	meta_pending(meta)->current_era = UINT64_C(1) << 32;
	ck_assert_int_eq(meta_commit(meta), 0);
	meta_close(meta);
	touch("x", "old");
	expect_error(sh("$E dump -o x a.era"), 1, "4294967296");
	expect_file("x", "old");
}
END_TEST

/* Nothing is printed of metadata that are not sound. */
START_TEST(test_damaged)
{
	begin("damaged");
	make_pair("a", UUID_A, 0, true);
	ck_assert_int_eq(sh("sqlite3 a.era \"UPDATE writeset_chunk SET bits = zeroblob(512) WHERE era = 5\""), 0);
	expect_error(sh("$E dump a"), 1, "damaged");
	expect_error(sh("$E dump --logical a"), 1, "damaged");
	expect_error(sh("$E snapshot -o s a"), 1, "damaged");
	ck_assert_int_eq(sh("test ! -e s"), 0);
}
END_TEST

#define XML(uuid, era)                                                                                                 \
	"<superblock uuid=\"" uuid "\" block_size=\"8\" nr_blocks=\"10\" current_era=\"" era "\">"                     \
	"<era_array><era block=\"3\" era=\"2\"/></era_array></superblock>"

START_TEST(test_restore)
{
	begin("restore");
	touch("x", XML(UUID_B, "3"));
	ck_assert_int_eq(sh("$E restore -i x -o a.era"), 0);
	ck_assert_str_eq(out_text, "");
	ck_assert_ptr_nonnull(strstr(err_text, "snapshot"));
	/* The same history: the UUID, and so the cursors, stay. */
	expect_output(sh("$E since " UUID_B ":2 a.era"), "12288\t4096\n");
	expect_error(sh("$E since " UUID_A ":2 a.era"), 5, "cursor");
	expect_output(sh("stat -c %%a a.era && ls -A"), "600\na.era\nx\n");
	/* An image's own metadata it is not. */
	make_image("a");
	expect_error(sh("$E since 1 a"), 1, "snapshot");
	expect_error(sh("$E status a"), 1, "snapshot");
	expect_error(sh("$E restore -i x -o a.era"), 1, "exists");
	/* What has no UUID gets one, each time another. */
	touch("n", XML("", "3"));
	ck_assert_int_eq(sh("$E restore -i - -o 1 <n && $E restore -i - -o 2 <n && $E status 1 | grep uuid >1.u &&"
			    " $E status 2 | grep uuid >2.u && ! cmp -s 1.u 2.u"),
		0);
	touch("z", XML("00000000-0000-0000-0000-000000000000", "3"));
	ck_assert_int_eq(sh("$E restore -i z -o 3 && ! $E status 3 | grep 00000000-0000"), 0);
	/* Refused: nothing is left of it. */
	touch("bad", XML("", "1"));
	expect_error(sh("$E restore -i bad -o 4"), 1, "line 1");
	expect_error(sh("$E restore -i no -o 4"), 1, "no");
	expect_error(sh("$E restore -i x -o no/4"), 1, "no");
	touch("odd", "<superblock uuid=\"\" block_size=\"1\" nr_blocks=\"10\" current_era=\"1\"/>");
	expect_error(sh("$E restore -i odd -o 4"), 1, "4 KiB");
	expect_error(sh("$E restore -i x"), 2, "-o DATABASE");
	expect_error(sh("$E restore -o 4"), 2, "-i XML");
	expect_error(sh("$E restore -i x -o 4 5"), 2, "5");
	expect_output(sh("ls -A | grep -e 4 -e new- || :"), "");
}
END_TEST

START_TEST(test_restore_image)
{
	begin("restore_image");
	make_image("a");
	touch("x", XML(UUID_B, "3"));
	ck_assert_int_eq(sh("$E restore -i x -o a.era --image a"), 0);
	ck_assert_ptr_nonnull(strstr(err_text, "new UUID"));
	expect_output(sh("$E check a"), "");
	expect_output(sh("$E since 2 a"), "12288\t4096\n");
	expect_output(sh("$E since 0 --count a"), "10\t36964\n");
	/* They may go another way than those that the XML is of: eras that were shown there are not theirs. */
	expect_error(sh("$E since " UUID_B ":2 a"), 5, "cursor");
	ck_assert_int_eq(sh("$E status a | grep 'clean: true'"), 0);
	/* Written to afterwards. */
	ck_assert_int_eq(sh("touch -d '1 hour ago' a"), 0);
	expect_error(sh("$E since 2 a"), 5, "modified");

	make_image("b");
	ck_assert_int_eq(sh("truncate -s +1M b"), 0);
	expect_error(sh("$E restore -i x -o b.era --image b"), 1, "10 blocks");
	expect_error(sh("$E restore -i x -o b.era --image no"), 1, "no");
	expect_error(sh("$E restore -i x -o b.era --image ."), 1, "cannot be used");
	/* Written to in this second, for all that a coarse clock can tell. */
	make_image("c");
	ck_assert_int_eq(sh("touch -d @$(date +%%s) c"), 0);
	expect_error(sh("$E restore -i x -o c.era --image c"), 1, "just now");
	ck_assert_int_eq(sh("touch -d @$(($(date +%%s) - 60)) c && $E restore -i x -o c.era --image c"), 0);

	/* Metadata of that name have shown era 7: the XML is older than what it would replace. */
	make_image("d");
	struct meta_super super = { .commit_counter = 9, .current_era = 7 };
	ck_assert_int_eq(num_uuid_parse(UUID_B, super.uuid), 0);
	ck_assert_int_eq(meta_witness_write("d.era", &super), 0);
	expect_error(sh("$E restore -i x -o d.era --image d"), 1, "era 7");
	ck_assert_int_eq(sh("$E restore -i x -o d.era && $E since " UUID_B ":2 d.era && rm d.era"), 0);
	touch("y", XML(UUID_B, "7"));
	ck_assert_int_eq(sh("$E restore -i y -o d.era --image d && $E since 2 d && $E check d"), 0);
	expect_output(sh("ls -A | grep -e b.era -e new- || :"), "");
}
END_TEST

START_TEST(test_snapshot)
{
	begin("snapshot");
	make_pair("a", UUID_A, 0, true);
	expect_output(sh("$E snapshot -o s a"), "");
	ck_assert_int_eq(sh("for n in 0 1 2 3 4 5 monday " UUID_A ":3; do"
			    " $E since $n a >1 && $E since $n s >2 && cmp 1 2 || exit 1; done;"
			    " $E dump a >1 && $E dump s >2 && cmp 1 2 && $E check s"),
		0);
	expect_error(sh("$E since 6 s"), 5, "era 6");
	ck_assert_int_eq(sh("$E status s | grep 'snapshot: true'"), 0);
	expect_output(sh("stat -c %%a s && ls s-wal s-shm 2>/dev/null || :"), "600\n");
	/* Read where nothing can be written, and it changes by that as little as its folder. */
	ck_assert_int_eq(
		sh("sha256sum s >1 && mkdir ro && cp s ro && chmod 500 ro && $E since 1 ro/s && ls ro | cmp - /dev/stdin <<e\n"
		   "s\ne\n"
		   "chmod 700 ro && sha256sum -c 1"),
		0);
	/* An older snapshot is replaced, all else is not. */
	expect_output(sh("$E snapshot -o s a"), "");
	make_pair("b", UUID_B, 0, true);
	touch("file", "text");
	expect_error(sh("$E snapshot -o b.era a"), 1, "exists");
	expect_error(sh("$E snapshot -o b a"), 1, "exists");
	expect_error(sh("$E snapshot -o file a"), 1, "exists");
	expect_error(sh("$E snapshot -o a.era a"), 2, "-o names the file for the snapshot");
	expect_error(sh("$E snapshot -o a a"), 2, "-o names the file for the snapshot");
	expect_error(sh("$E snapshot -o a.era-wal a"), 2, "-o names the file for the snapshot");
	expect_error(sh("$E snapshot -o no/s a"), 1, "no");
	expect_error(sh("$E snapshot -o t s"), 1, "copy the file");
	expect_error(sh("$E snapshot a"), 2, "-o FILE");
	expect_error(sh("$E snapshot -o - a"), 2, "standard output");
	expect_error(sh("$E restore -i file -o -"), 2, "standard output");
	touch("t-wal", "left");
	expect_error(sh("$E snapshot -o t a"), 1, "t-wal");
	expect_file("file", "text");
	/* In the place of the metadata it does not answer for the image. */
	expect_output(sh("rm a.era-wal a.era-shm && cp s a.era"), "");
	expect_error(sh("$E since 1 a"), 1, "snapshot");
	expect_error(sh("$E check a"), 1, "snapshot");
	expect_output(sh("ls -A | grep new- || :"), "");
}
END_TEST

int main(void)
{
	setenv("E", getenv("ERA_CLI"), 1); /* for the commands of the tests */
	TCase *tcase = tcase_create("cli_copy");
	tcase_add_unchecked_fixture(tcase, testdir_setup, testdir_teardown);
	tcase_set_timeout(tcase, 240);
	tcase_add_test(tcase, test_identity);
	tcase_add_test(tcase, test_dump);
	tcase_add_test(tcase, test_great_era);
	tcase_add_test(tcase, test_damaged);
	tcase_add_test(tcase, test_restore);
	tcase_add_test(tcase, test_restore_image);
	tcase_add_test(tcase, test_snapshot);
	return testdir_main("cli_copy", tcase);
}
