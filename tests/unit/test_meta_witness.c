/* SPDX-License-Identifier: MIT */
/* The witness beside the database: two slots, torn ones, those of other databases. */
#include "meta_fixture.h"

#include <fcntl.h>

#define SLOT_OFFSET 512 /* of the second one */
#define SLOT_BYTES 56

static const uint8_t uuid_a[16] = { 0xa };
static const uint8_t uuid_b[16] = { 0xb };

static void witness_write(const uint8_t uuid[16], uint64_t commit_counter, uint64_t era)
{
	struct meta_super super = { .commit_counter = commit_counter, .current_era = era };
	memcpy(super.uuid, uuid, sizeof(super.uuid));
	ck_assert_int_eq(meta_witness_write(fixture_path("w.era"), &super), 0);
}

/* What it must say; found 0 goes with zeros. */
static void expect_witness(const uint8_t *uuid, int found, uint64_t commit_counter, uint64_t era)
{
	struct meta_witness witness = { .commit_counter = 77, .era = 77 };
	ck_assert_int_eq(meta_witness_read(fixture_path("w.era"), uuid, &witness), found);
	ck_assert_uint_eq(witness.commit_counter, commit_counter);
	ck_assert_uint_eq(witness.era, era);
}

static void witness_clear(void)
{
	ck_assert(unlink(fixture_path("w.era.witness")) == 0 || errno == ENOENT);
}

static void flip_byte(unsigned int slot, unsigned int at)
{
	int fd = open(fixture_path("w.era.witness"), O_RDWR | O_CLOEXEC);
	uint8_t byte;
	ck_assert_int_eq(pread(fd, &byte, 1, slot * SLOT_OFFSET + at), 1);
	byte ^= 0x10;
	ck_assert_int_eq(pwrite(fd, &byte, 1, slot * SLOT_OFFSET + at), 1);
	close(fd);
}

START_TEST(test_write_and_read)
{
	witness_clear();
	expect_witness(uuid_a, 0, 0, 0);
	expect_witness(NULL, 0, 0, 0);
	for (uint64_t i = 1; i <= 5; i++) {
		witness_write(uuid_a, 10 * i, i);
		expect_witness(uuid_a, 1, 10 * i, i);
		expect_witness(NULL, 1, 10 * i, i);
		expect_witness(uuid_b, 0, 0, 0);
	}
	ck_assert_int_eq(fixture_size(fixture_path("w.era"), ".witness"), SLOT_OFFSET + SLOT_BYTES);
}
END_TEST

START_TEST(test_torn_slot)
{
	for (unsigned int at = 0; at < SLOT_BYTES; at++) {
		witness_clear();
		witness_write(uuid_a, 5, 2); /* slot 0 */
		witness_write(uuid_a, 9, 3); /* slot 1 */
		flip_byte(0, at);
		expect_witness(uuid_a, 1, 9, 3);
		flip_byte(1, at);
		expect_witness(uuid_a, 0, 0, 0);
		expect_witness(NULL, 0, 0, 0);
		flip_byte(0, at);
		expect_witness(uuid_a, 1, 5, 2);

		/* The next one goes over the torn slot, never over the last good one. */
		witness_write(uuid_a, 12, 4);
		expect_witness(uuid_a, 1, 12, 4);
		flip_byte(1, at);
		expect_witness(uuid_a, 1, 5, 2);
	}
}
END_TEST

START_TEST(test_cut_file)
{
	for (off_t size = 0; size < SLOT_OFFSET + SLOT_BYTES; size += 11) {
		witness_clear();
		witness_write(uuid_a, 5, 2);
		witness_write(uuid_a, 9, 3);
		ck_assert_int_eq(truncate(fixture_path("w.era.witness"), size), 0);
		bool first = size >= SLOT_BYTES;
		expect_witness(uuid_a, first, first ? 5 : 0, first ? 2 : 0);
		witness_write(uuid_a, 12, 4);
		expect_witness(uuid_a, 1, 12, 4);
	}
}
END_TEST

/* A database that was made anew counts from 1: the slots of the one before it are ahead by far, and say nothing. */
START_TEST(test_foreign_slot)
{
	unsigned int foreign = (unsigned int)_i;
	witness_clear();
	for (unsigned int i = 0; i < 2 + foreign; i++) /* the older one, which goes first, is in slot 0 or in slot 1 */
		witness_write(uuid_a, 50 + i, 20);
	expect_witness(uuid_b, 0, 0, 0);
	witness_write(uuid_b, 1, 1);
	expect_witness(uuid_b, 1, 1, 1);
	/* The second goes over what is left of the other, so that there are two of ours from now on. */
	witness_write(uuid_b, 3, 2);
	expect_witness(uuid_b, 1, 3, 2);
	expect_witness(uuid_a, 0, 0, 0);
	flip_byte(1, 3);
	expect_witness(uuid_b, 1, 1, 1);
	witness_write(uuid_b, 4, 3);
	expect_witness(uuid_b, 1, 4, 3);
	flip_byte(1, 4);
	expect_witness(uuid_b, 1, 1, 1);
}
END_TEST

/* One foreign, one ours, in both orders: ours is read, and not written over. */
START_TEST(test_foreign_and_ours)
{
	witness_clear();
	if (_i == 0) {
		witness_write(uuid_a, 80, 20); /* slot 0 */
		witness_write(uuid_a, 90, 20); /* slot 1 */
		witness_write(uuid_b, 7, 1); /* the first that is foreign to it: slot 0 */
	} else {
		witness_write(uuid_b, 6, 1); /* slot 0 */
		witness_write(uuid_b, 7, 1); /* slot 1 */
		witness_write(uuid_a, 90, 20); /* slot 0 */
	}
	expect_witness(uuid_b, 1, 7, 1);
	expect_witness(uuid_a, 1, 90, 20);
	expect_witness(NULL, 1, 90, 20);
	witness_write(uuid_b, 8, 2);
	expect_witness(uuid_b, 1, 8, 2);
	flip_byte(_i == 0 ? 1 : 0, 40); /* torn: the one before it must have been kept */
	expect_witness(uuid_b, 1, 7, 1);
}
END_TEST

/* Whoever asks for any database of that name gets the greatest of each, also where they are of two. */
START_TEST(test_any_uuid)
{
	witness_clear();
	witness_write(uuid_a, 2, 19);
	witness_write(uuid_a, 3, 20);
	witness_write(uuid_b, 99, 4);
	expect_witness(NULL, 1, 99, 20);
	expect_witness(uuid_a, 1, 3, 20);
	expect_witness(uuid_b, 1, 99, 4);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("meta_witness");
	TCase *tcase = tcase_create("meta_witness");
	tcase_set_timeout(tcase, 60);
	tcase_add_unchecked_fixture(tcase, fixture_setup, fixture_teardown);
	tcase_add_test(tcase, test_write_and_read);
	tcase_add_test(tcase, test_torn_slot);
	tcase_add_test(tcase, test_cut_file);
	tcase_add_loop_test(tcase, test_foreign_slot, 0, 2);
	tcase_add_loop_test(tcase, test_foreign_and_ours, 0, 2);
	tcase_add_test(tcase, test_any_uuid);
	suite_add_tcase(suite, tcase);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
