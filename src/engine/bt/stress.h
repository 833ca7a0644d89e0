/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ways to make rare things frequent, for tests (--stress).  None of them may
 * change what a guest sees but for time.
 */
#ifndef SILL_ENGINE_BT_STRESS_H
#define SILL_ENGINE_BT_STRESS_H

#include <stdbool.h>

#include "base/error.h"

struct stress {
	bool direct;      /* T2: all user code runs in a stub, from the first instruction on */
	bool tier_flip;   /* T2: each stretch of user code runs in the other tier than the last */
	unsigned vma_cap; /* T2: a stub has at most so many mappings; 0: as many as the host allows */
	bool one_insn;    /* T1: blocks of one instruction */
	bool flush;       /* T1: each block comes out, and finds neither TLB entry nor link for the next */
	bool tiny_tlb;    /* the TLB has one entry */
	unsigned kick_us; /* each vCPU is kicked every so many microseconds; 0: only when there is reason */
};

/* Reads "direct,vma-cap=64,...". NULL or "": none. 0 or -EINVAL with a sentence. */
int stress_parse(const char *list, struct stress *ret, struct error *err);

#endif
