/* SPDX-License-Identifier: MIT */
/*
 * life - runs a workload and leaves its log.
 *
 * Each life of an instance is a process of its own, so that a kill -9 is one: the image's page cache, the session file and all
 * else that the kernel keeps are then as they would be.
 */
#ifndef TESTS_CRASH_LIFE_H
#define TESTS_CRASH_LIFE_H

#include "log.h"
#include "workload.h"

/* Where a workload, or a state, has its files. */
struct scene {
	char dir[200]; /* what a power loss hits: image, image.era and its companions */
	char run[220]; /* in memory: the run folder, the boot id */
	char image[220];
	char db[220];
};

/* Makes the folders below `base`. */
void scene_make(struct scene *scene, const char *base);
void scene_clear_run(const struct scene *scene);
struct era_config scene_config(const struct scene *scene, enum crash_mode mode);

/* True with *ret_log; or a text in ret_failure, and the log as far as it went. */
bool life_record(const struct workload *workload, const struct scene *scene, struct log *ret_log, char *ret_failure,
	size_t size);

#endif
