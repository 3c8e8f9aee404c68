/* SPDX-License-Identifier: MIT */
#include "instances.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int instances_add(const struct ctl_instance *instance, void *arg)
{
	struct instances *instances = arg;
	struct ctl_instance *items = reallocarray(instances->items, instances->nr + 1, sizeof(*items));
	if (items == NULL)
		return -ENOMEM;
	instances->items = items;
	items[instances->nr++] = *instance;
	return 0;
}

static int instances_compare(const void *a, const void *b)
{
	const struct ctl_instance *left = a, *right = b;
	int by_mountpoint = strcmp(left->mountpoint, right->mountpoint);
	return by_mountpoint != 0 ? by_mountpoint : strcmp(left->nonce, right->nonce);
}

int instances_load(struct instances *ret_instances, struct err *err)
{
	struct instances instances = { 0 };
	int r = ctl_registry_each(instances_add, &instances);
	if (r < 0) {
		instances_clear(&instances);
		return err_set(err, r, "cannot look into the run folder for live instances: %s", strerror(-r));
	}
	if (instances.nr > 1)
		qsort(instances.items, instances.nr, sizeof(*instances.items), instances_compare);
	*ret_instances = instances;
	return 0;
}

void instances_clear(struct instances *instances)
{
	free(instances->items);
	*instances = (struct instances){ 0 };
}
