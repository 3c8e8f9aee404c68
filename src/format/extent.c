/* SPDX-License-Identifier: MIT */
/* From blocks to byte extents: the one place that clamps the partial last block. */
#include "format/fmt.h"

bool fmt_next_extent(const struct fmt_since *answer, const struct bm *blocks, uint64_t *offset, uint64_t *ret_offset,
	uint64_t *ret_length)
{
	uint64_t first, behind;
	/* The end of the image can lie inside the last block, which is over then and must not be found again. */
	if (*offset >= answer->image_size || !bm_next_run(blocks, *offset / answer->block_size, &first, &behind))
		return false;
	uint64_t begin = first * answer->block_size;
	uint64_t end = behind * answer->block_size;
	if (begin < *offset)
		begin = *offset;
	if (end > answer->image_size)
		end = answer->image_size;
	if (begin >= end)
		return false;
	*offset = end;
	*ret_offset = begin;
	*ret_length = end - begin;
	return true;
}

void fmt_count(const struct fmt_since *answer, uint64_t *ret_blocks, uint64_t *ret_bytes)
{
	uint64_t at = 0, offset, length;
	uint64_t bytes = 0;
	while (fmt_next_extent(answer, answer->blocks, &at, &offset, &length))
		bytes += length;
	*ret_blocks = bm_count(answer->blocks);
	*ret_bytes = bytes;
}
