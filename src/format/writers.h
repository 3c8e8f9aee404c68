/* SPDX-License-Identifier: MIT */
/* writers - one function a format, private to the layer. Each writes the whole answer: 0, or -errno of the first write
 * that failed. None flushes: fmt_write_since() does. */
#ifndef FORMAT_WRITERS_H
#define FORMAT_WRITERS_H

#include "format/fmt.h"

int fmt_write_text(const struct fmt_since *answer, FILE *out);
int fmt_write_json(const struct fmt_since *answer, FILE *out);
int fmt_write_xml(const struct fmt_since *answer, FILE *out);
int fmt_write_rbd(const struct fmt_since *answer, FILE *out);

#endif
