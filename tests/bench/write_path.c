/* SPDX-License-Identifier: MIT */
/*
 * write_path - one thread re-writes 4 KiB, COUNT times, from the handler of the FUSE request to its reply, with neither
 * kernel nor libfuse in between: for counting instructions. Linked twice, with the daemon's write.c and with plain_ops.c.
 *
 *     valgrind --tool=callgrind --collect-atstart=no --toggle-collect=fs_write write_path FOLDER COUNT
 *
 * The image's pwrite does nothing. The few functions of libfuse that a write calls are defined here, and come before
 * those of the library.
 */
#include "core_util.h"
#include "fs.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define NR_BLOCKS 1024
#define TRACKED_BLOCK UINT64_C(65536)
#define WRITE_BYTES 4096

/* What libfuse hands from handler to reply. */
struct fuse_req {
	struct fs *fs;
	unsigned long nr_replies; /* with all bytes written */
};

void *fuse_req_userdata(fuse_req_t req)
{
	return req->fs;
}

int fuse_reply_write(fuse_req_t req, size_t count)
{
	req->nr_replies += count == WRITE_BYTES;
	return 0;
}

int fuse_reply_err(fuse_req_t req, int error)
{
	return 0;
}

static ssize_t write_nothing(struct core_fault *fault, const void *buf, size_t len, uint64_t offset)
{
	return (ssize_t)len;
}

int main(int argc, char **argv)
{
	static const char data[WRITE_BYTES];
	struct core_env env;
	struct fs fs = { 0 };
	struct fuse_req req = { .fs = &fs };
	struct fuse_file_info fi = { 0 };
	char dir[256];
	unsigned long count = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;

	if (count == 0) {
		fprintf(stderr, "Usage: write_path FOLDER COUNT\n");
		return 2;
	}
	snprintf(dir, sizeof(dir), "%s/write-path.XXXXXX", argv[1]);
	expect(mkdtemp(dir) != NULL);
	core_env_init_at(&env, dir, NR_BLOCKS * TRACKED_BLOCK);
	struct core_fault *image = core_fault_new(env.image);
	image->on_pwrite = write_nothing;
	struct era_config config = core_config(&env);
	config.image = &image->img;
	config.block_size = TRACKED_BLOCK;
	config.intent_bytes = 4 << 20; /* as the daemon has it */
	fs.era = core_open_with(&config);
	fs.image = era_image(fs.era);
	for (uint64_t block = 0; block < NR_BLOCKS; block++)
		expect_eq(core_write(fs.era, block * TRACKED_BLOCK, data, sizeof(data)), 0);
	for (unsigned long i = 0; i < count; i++) {
		off_t offset = (off_t)(i * 7919 % NR_BLOCKS * TRACKED_BLOCK);
		fs_write(&req, FUSE_ROOT_ID, data, sizeof(data), offset, &fi);
		/* Over before fs_write() returned: nothing was parked. */
		expect_eq(req.nr_replies, i + 1);
	}
	core_close(fs.era);
	core_empty_dir(env.run);
	rmdir(env.run);
	core_empty_dir(dir);
	rmdir(dir);
	return 0;
}
