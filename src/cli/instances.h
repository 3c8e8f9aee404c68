/* SPDX-License-Identifier: MIT */
/* instances - all live instances, by mount point. */
#ifndef CLI_INSTANCES_H
#define CLI_INSTANCES_H

#include "control/ctl.h"

struct instances {
	struct ctl_instance *items;
	size_t nr;
};

/* 0, or -errno with nothing to free. */
int instances_load(struct instances *ret_instances, struct err *err);
void instances_clear(struct instances *instances);

#endif
