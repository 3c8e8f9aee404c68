/* SPDX-License-Identifier: MIT */
#include "control/ctl.h"

#include <errno.h>

const char *ctl_string(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

int ctl_u64(const json_t *object, const char *key, uint64_t *ret_value)
{
	const json_t *value = json_object_get(object, key);
	if (value == NULL)
		return -ENOENT;
	if (!json_is_integer(value) || json_integer_value(value) < 0)
		return -EINVAL;
	*ret_value = (uint64_t)json_integer_value(value);
	return 0;
}
