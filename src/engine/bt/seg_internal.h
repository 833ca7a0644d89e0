/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors, for segment loads and far transfers (seg_gpr.c) and task switches (task_gpr.c). */
#ifndef SILL_ENGINE_BT_SEG_INTERNAL_H
#define SILL_ENGINE_BT_SEG_INTERNAL_H

#include "engine/bt/interp_internal.h"

/* Types of system descriptors (SDM 3A table 3-2) */
#define SYS_TSS16_AVAIL 1
#define SYS_LDT         2
#define SYS_TSS16_BUSY  3
#define SYS_CALL16      4
#define SYS_TASK_GATE   5
#define SYS_TSS_AVAIL   9
#define SYS_TSS_BUSY    11
#define SYS_CALL        12

static inline bool d_code(const struct descriptor *d)
{
	return (d->attr & (SEG_S | 8)) == (SEG_S | 8);
}

static inline bool d_conforming(const struct descriptor *d)
{
	return d->attr & 4;
}

static inline unsigned d_dpl(const struct descriptor *d)
{
	return SEG_DPL(d->attr);
}

static inline bool d_present(const struct descriptor *d)
{
	return d->attr & SEG_P;
}

/* Null in 64-bit mode is fine for data segments: it is remembered as unusable. */
static inline void seg_null(struct x86_seg *s, uint16_t sel)
{
	s->sel = sel;
	s->attr = 0;
	s->limit = 0;
	s->base = 0;
}

/* Sets or clears the busy bit of a TSS's descriptor in memory. -1: page fault. */
int tss_mark(struct vcpu *v, const struct descriptor *d, bool busy);

#endif
