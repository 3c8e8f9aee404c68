/* SPDX-License-Identifier: MIT */
/* fswait - waits for the end of freezes, before FITHAW. */
#ifndef CLI_FSWAIT_H
#define CLI_FSWAIT_H

#include "control/ctl.h"

struct fswait {
	const struct ctl_instance *instance; /* borrowed */
	uint64_t frozen_era; /* of the freeze whose end is waited for; 0: of any */
	bool is_over;
	int64_t silent_ms; /* when it ceased to answer; 0: it answers */
	int64_t moving_ms; /* since when it is freezing or thawing; 0: it is not */
};

/*
 * Returns when none of the nr instances is frozen, freezing or thawing. One that is gone is not frozen. One that
 * gives no answer for FSWAIT_SILENCE_S, or is neither frozen nor not for FSWAIT_MOVING_S, is waited for no longer:
 * FITHAW may be what it waits for.
 */
#define FSWAIT_SILENCE_S 10
#define FSWAIT_MOVING_S 30
void fswait_all(struct fswait *waits, unsigned int nr);

#endif
