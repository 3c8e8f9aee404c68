/* SPDX-License-Identifier: MIT */
#include "../../src/daemon/options.h"
#include "testdir.h"

#include <errno.h>
#include <string.h>

#define MAX_WORDS 16

static struct fs_options options;

/* Parses a command line that is given as words parted by single spaces. */
static int parse(const char *line, struct err *err)
{
	char copy[512];
	char *argv[MAX_WORDS + 1] = { NULL };
	int argc = 0;
	ck_assert_int_lt(snprintf(copy, sizeof(copy), "%s", line), (int)sizeof(copy));
	char *rest = copy;
	for (char *word = strsep(&rest, " "); word != NULL && argc < MAX_WORDS; word = strsep(&rest, " "))
		argv[argc++] = word;
	fs_options_release(&options);
	return fs_options_parse(argc, argv, &options, err);
}

static void parse_ok(const char *line)
{
	struct err err = ERR_INIT;
	ck_assert_msg(parse(line, &err) == 0, "%s: %s", line, err.text);
}

START_TEST(defaults)
{
	parse_ok("eraimgfs img mnt");
	ck_assert_str_eq(options.image, "img");
	ck_assert_str_eq(options.mountpoint, "mnt");
	ck_assert_uint_eq(options.threads, 4);
	ck_assert_uint_eq(options.block_size, 0);
	ck_assert(!options.read_only && !options.no_create && !options.mark_all && !options.resize);
	ck_assert(!options.allow_other && !options.allow_root && !options.default_permissions);
	ck_assert(!options.foreground && !options.debug && !options.fake && !options.help && !options.version);
	ck_assert_ptr_null(options.metadata);
	ck_assert_ptr_null(options.control);
	ck_assert_ptr_null(options.fsname);
	ck_assert_ptr_null(options.subtype);
	ck_assert_ptr_null(options.flags);
}
END_TEST

START_TEST(every_option)
{
	parse_ok(
		"eraimgfs -o metadata=/m,nocreate,block_size=4K,bypass=mark-all img -f -o control=/c,resize,threads=64 "
		"mnt -oallow_other,allow_root,default_permissions,fsname=x,subtype=y");
	ck_assert_str_eq(options.image, "img");
	ck_assert_str_eq(options.mountpoint, "mnt");
	ck_assert_str_eq(options.metadata, "/m");
	ck_assert_str_eq(options.control, "/c");
	ck_assert_str_eq(options.fsname, "x");
	ck_assert_str_eq(options.subtype, "y");
	ck_assert_uint_eq(options.block_size, 4096);
	ck_assert_uint_eq(options.threads, 64);
	ck_assert(options.no_create && options.mark_all && options.resize && options.foreground && !options.debug);
	ck_assert(options.allow_other && options.allow_root && options.default_permissions);
}
END_TEST

START_TEST(intents)
{
	parse_ok("eraimgfs img mnt");
	ck_assert_uint_eq(options.intent, 4 << 20);
	ck_assert_uint_eq(options.intent_max, UINT64_C(8) << 30);
	parse_ok("eraimgfs img mnt -o intent=off");
	ck_assert_uint_eq(options.intent, 0);
	ck_assert_uint_eq(options.intent_max, UINT64_C(8) << 30);
	parse_ok("eraimgfs img mnt -o intent=off,intent=256K,intent_max=1G,intent_max=unlimited");
	ck_assert_uint_eq(options.intent, 256 << 10);
	ck_assert(options.intent_max == UINT64_MAX);
	parse_ok("eraimgfs img mnt -o intent=4096,intent_max=4K");
	ck_assert_uint_eq(options.intent, 4096);
	ck_assert_uint_eq(options.intent_max, 4096);
	parse_ok("eraimgfs img mnt -o intent=9223372036854775807,intent_max=unlimited");
	ck_assert_uint_eq(options.intent, INT64_MAX);
}
END_TEST

START_TEST(debug_is_foreground)
{
	parse_ok("eraimgfs -d img mnt");
	ck_assert(options.debug && options.foreground);
}
END_TEST

/* Who takes metadata over writes to them. */
START_TEST(takeover_is_not_for_readers)
{
	struct err err = ERR_INIT;
	parse_ok("eraimgfs img mnt -o takeover");
	ck_assert(options.takeover);
	ck_assert_int_eq(parse("eraimgfs img mnt -o takeover,ro", &err), -EINVAL);
	ck_assert_int_eq(err.exit, ERR_EXIT_USAGE);
	ck_assert_msg(strstr(err.text, "takeover") != NULL, "%s", err.text);
}
END_TEST

START_TEST(last_wins)
{
	parse_ok("eraimgfs img mnt -o metadata=/a,ro,bypass=mark-all,threads=1 "
		 "-o metadata=/b,rw,bypass=refuse,threads=2");
	ck_assert_str_eq(options.metadata, "/b");
	ck_assert(!options.read_only && !options.mark_all);
	ck_assert_uint_eq(options.threads, 2);
	ck_assert_str_eq(options.flags, "ro,rw");
}
END_TEST

START_TEST(kernel_flags)
{
	parse_ok("eraimgfs img mnt -o rw,dev,suid,noexec,sync,dirsync,noatime");
	ck_assert_str_eq(options.flags, "rw,dev,suid,noexec,sync,dirsync,noatime");
	parse_ok("eraimgfs img mnt -o ro,nodev,nosuid,exec,async,atime");
	ck_assert_str_eq(options.flags, "ro,nodev,nosuid,exec,async,atime");
	ck_assert(options.read_only);
}
END_TEST

START_TEST(ignored)
{
	parse_ok("eraimgfs img mnt -o defaults,auto,noauto,user,nouser,users,nofail,_netdev,,relatime,"
		 "x-a.b=c,comment=d,user=e");
	ck_assert_ptr_null(options.flags);
}
END_TEST

START_TEST(escapes)
{
	parse_ok("eraimgfs img mnt -o metadata=/a\\,b\\\\c,ro");
	ck_assert_str_eq(options.metadata, "/a,b\\c");
	ck_assert(options.read_only);
	parse_ok("eraimgfs img mnt -o fsname=a=b");
	ck_assert_str_eq(options.fsname, "a=b");
	parse_ok("eraimgfs -o ro -- -img -mnt");
	ck_assert_str_eq(options.image, "-img");
	ck_assert_str_eq(options.mountpoint, "-mnt");
}
END_TEST

START_TEST(mount_helper)
{
	parse_ok("/sbin/mount.fuse.eraimgfs img mnt -n -s -v -r -t fuse.eraimgfs -o noauto");
	ck_assert(options.read_only && !options.foreground && !options.fake);
	parse_ok("/sbin/mount.fuse.eraimgfs img mnt -f");
	ck_assert(options.fake && !options.foreground);
	parse_ok("/sbin/mount.fuse.eraimgfs img mnt -r -w");
	ck_assert(!options.read_only);
}
END_TEST

START_TEST(help_and_version)
{
	parse_ok("eraimgfs --help");
	ck_assert(options.help);
	parse_ok("eraimgfs -h img");
	ck_assert(options.help);
	parse_ok("eraimgfs -V");
	ck_assert(options.version);
	parse_ok("eraimgfs --version --nonsense");
	ck_assert(options.version);
	const char *line = fs_options_help();
	for (size_t len; *line != '\0'; line += len + 1) {
		len = strcspn(line, "\n");
		ck_assert_msg(len <= 80, "%.*s", (int)len, line);
	}
}
END_TEST

START_TEST(refused)
{
	static const struct {
		const char *line;
		const char *names; /* what the error must name */
	} cases[] = {
		{ "eraimgfs", "IMAGE" },
		{ "eraimgfs img", "MOUNTPOINT" },
		{ "eraimgfs img mnt more", "more than" },
		{ "eraimgfs img mnt -x", "-x" },
		{ "eraimgfs img mnt -s", "-s" },
		{ "eraimgfs img mnt --nonsense", "--nonsense" },
		{ "eraimgfs img mnt -o", "-o" },
		{ "eraimgfs img mnt -o nonsense", "nonsense" },
		{ "eraimgfs img mnt -o nonsense=1", "nonsense" },
		{ "eraimgfs img mnt -o Ro", "Ro" },
		{ "eraimgfs img mnt -o takeover=1", "takeover" },
		{ "eraimgfs img mnt -o intent", "intent" },
		{ "eraimgfs img mnt -o intent=", "intent: must be off or a size" },
		{ "eraimgfs img mnt -o intent=0", "intent: must be off or a size" },
		{ "eraimgfs img mnt -o intent=4095", "intent: must be off or a size" },
		{ "eraimgfs img mnt -o intent=-4M", "intent: must be off or a size" },
		{ "eraimgfs img mnt -o intent=unlimited", "intent: must be off or a size" },
		{ "eraimgfs img mnt -o intent=Off", "intent: must be off or a size" },
		{ "eraimgfs img mnt -o intent=9223372036854775808", "intent: must be off or a size" },
		{ "eraimgfs img mnt -o intent=99999999999999999999", "intent: must be off or a size" },
		{ "eraimgfs img mnt -o intent_max", "intent_max" },
		{ "eraimgfs img mnt -o intent_max=off", "intent_max: must be unlimited or a size" },
		{ "eraimgfs img mnt -o intent_max=0", "intent_max: must be unlimited or a size" },
		{ "eraimgfs img mnt -o intent_max=4095", "intent_max: must be unlimited or a size" },
		{ "eraimgfs img mnt -o intent=1G,intent_max=4M", "intent_max: is less than one intent" },
		{ "eraimgfs img mnt -o intent_max=1M", "intent_max: is less than one intent" },
		{ "eraimgfs img mnt -o intent_max=8X", "intent_max: must be unlimited or a size" },
		{ "eraimgfs img mnt -o ro=1", "ro" },
		{ "eraimgfs img mnt -o nocreate=", "nocreate" },
		{ "eraimgfs img mnt -o metadata", "metadata" },
		{ "eraimgfs img mnt -o metadata=", "metadata" },
		{ "eraimgfs img mnt -o control=", "control" },
		{ "eraimgfs img mnt -o bypass", "bypass" },
		{ "eraimgfs img mnt -o bypass=mark_all", "bypass" },
		{ "eraimgfs img mnt -o threads=0", "threads" },
		{ "eraimgfs img mnt -o threads=65", "threads" },
		{ "eraimgfs img mnt -o threads=-1", "threads" },
		{ "eraimgfs img mnt -o threads=4x", "threads" },
		{ "eraimgfs img mnt -o block_size=0", "block_size" },
		{ "eraimgfs img mnt -o block_size=4095", "block_size" },
		{ "eraimgfs img mnt -o block_size=2048", "block_size" },
		{ "eraimgfs img mnt -o block_size=4097", "block_size" },
		{ "eraimgfs img mnt -o block_size=6K", "block_size" },
		{ "eraimgfs img mnt -o block_size=1025M", "block_size" },
		{ "eraimgfs img mnt -o block_size=99999999999999999999", "block_size" },
		{ "eraimgfs img mnt -o block_size=big", "block_size" },
		{ "eraimgfs img mnt -o block_size=-4096", "block_size" },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct err err = ERR_INIT;
		ck_assert_msg(parse(cases[i].line, &err) == -EINVAL, "\"%s\" was taken", cases[i].line);
		ck_assert_int_eq(err.exit, ERR_EXIT_USAGE);
		ck_assert_msg(strstr(err.text, cases[i].names) != NULL, "\"%s\": %s", cases[i].line, err.text);
		ck_assert_msg(strstr(err.text, "eraimgfs --help") != NULL, "\"%s\": %s", cases[i].line, err.text);
	}
}
END_TEST

START_TEST(block_size_bounds)
{
	parse_ok("eraimgfs img mnt -o block_size=4096");
	ck_assert_uint_eq(options.block_size, 4096);
	parse_ok("eraimgfs img mnt -o block_size=12K");
	ck_assert_uint_eq(options.block_size, 12288);
	parse_ok("eraimgfs img mnt -o block_size=1G");
	ck_assert_uint_eq(options.block_size, 1u << 30);
}
END_TEST

/* Two names of one image, and of one database, come out as the same. */
START_TEST(resolve)
{
	char folder[PATH_MAX], expected[PATH_MAX + 16];
	ck_assert_ptr_nonnull(realpath(testdir, folder));
	ck_assert_int_eq(chdir(testdir), 0);
	FILE *file = fopen("disk,a", "w");
	ck_assert_ptr_nonnull(file);
	fclose(file);
	ck_assert_int_eq(symlink("disk,a", "link"), 0);

	struct err err = ERR_INIT;
	parse_ok("eraimgfs link mnt");
	ck_assert_int_eq(fs_options_resolve(&options, &err), 0);
	snprintf(expected, sizeof(expected), "%s/disk,a", folder);
	ck_assert_str_eq(options.image, expected);
	ck_assert_str_eq(options.fsname, expected);
	ck_assert_str_eq(options.image_name, "link");
	snprintf(expected, sizeof(expected), "%s/disk,a.era", folder);
	ck_assert_str_eq(options.metadata, expected);

	parse_ok("eraimgfs link mnt -o metadata=link,control=./c,fsname=f");
	ck_assert_int_eq(fs_options_resolve(&options, &err), 0);
	snprintf(expected, sizeof(expected), "%s/disk,a", folder);
	ck_assert_str_eq(options.metadata, expected);
	snprintf(expected, sizeof(expected), "%s/c", folder);
	ck_assert_str_eq(options.control, expected);
	ck_assert_str_eq(options.fsname, "f");

	parse_ok("eraimgfs missing mnt");
	ck_assert_int_eq(fs_options_resolve(&options, &err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, "missing"));
	ck_assert_int_eq(err.exit, ERR_EXIT_FAILED);
	parse_ok("eraimgfs link mnt -o metadata=nowhere/x");
	ck_assert_int_eq(fs_options_resolve(&options, &err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, "nowhere/x"));
}
END_TEST

static void release(void)
{
	fs_options_release(&options);
}

int main(void)
{
	TCase *tcase = tcase_create("options");
	tcase_add_unchecked_fixture(tcase, testdir_setup, testdir_teardown);
	tcase_add_checked_fixture(tcase, NULL, release);
	tcase_add_test(tcase, defaults);
	tcase_add_test(tcase, every_option);
	tcase_add_test(tcase, intents);
	tcase_add_test(tcase, debug_is_foreground);
	tcase_add_test(tcase, takeover_is_not_for_readers);
	tcase_add_test(tcase, last_wins);
	tcase_add_test(tcase, kernel_flags);
	tcase_add_test(tcase, ignored);
	tcase_add_test(tcase, escapes);
	tcase_add_test(tcase, mount_helper);
	tcase_add_test(tcase, help_and_version);
	tcase_add_test(tcase, refused);
	tcase_add_test(tcase, block_size_bounds);
	tcase_add_test(tcase, resolve);
	return testdir_main("options", tcase);
}
