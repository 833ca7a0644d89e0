/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hardware task switches (SDM 3A chapter 8), by JMP, CALL, interrupt or IRET, with
 * 32-bit and 16-bit TSSs. There are none in IA-32e mode.
 *
 * A switch has two halves. Up to `switched` everything that can be wrong with the
 * new TSS is found and the old task is saved; a fault is the old task's, at the
 * instruction that switches. From then on the state is the new task's, and what
 * its selectors are good for faults there, as #TS mostly, before its first
 * instruction. The old registers are gone by then, so unlike everywhere else a
 * fault does not leave things as they were, and the whole is done by the
 * interpreter proper (needs_full).
 */
#include "engine/bt/seg_internal.h"

/* Offsets in a 32-bit TSS (SDM 3A 8.2.1) and a 16-bit one (8.6). */
static int save_task(struct vcpu *v, uint64_t next, uint64_t flags)
{
	struct x86_state *s = &v->st;
	uint64_t base = s->tr.base;

	if (s->tr.attr & 8) {
		uint32_t w[16];

		w[0] = (uint32_t)next;
		w[1] = (uint32_t)flags;
		for (int i = 0; i < 8; i++)
			w[2 + i] = (uint32_t)s->gpr[i];
		for (int i = 0; i < 6; i++)
			w[10 + i] = s->seg[i].sel;
		return lin_write(v, base + 0x20, w, sizeof w, ACC_IMPLICIT);
	}
	uint16_t h[14];

	h[0] = (uint16_t)next;
	h[1] = (uint16_t)flags;
	for (int i = 0; i < 8; i++)
		h[2 + i] = (uint16_t)s->gpr[i];
	for (int i = 0; i < 4; i++)
		h[10 + i] = s->seg[i].sel;
	return lin_write(v, base + 0x0e, h, sizeof h, ACC_IMPLICIT);
}

/* A segment of the new task: faults are #TS and happen in its context. */
static int task_segment(struct vcpu *v, unsigned seg, uint16_t sel, unsigned level)
{
	struct descriptor d;

	if (is_v86(v)) {
		seg_load_real(v, seg, sel);
		return 0;
	}
	if (seg == SEG_SS)
		return check_stack_segment(v, sel, level, EXC_TS, &v->st.seg[SEG_SS]);
	if (sel_null(sel)) {
		if (seg == SEG_CS)
			return exc_err(v, EXC_TS, 0);
		seg_null(&v->st.seg[seg], sel);
		return 0;
	}
	if (desc_read(v, sel, EXC_TS, &d))
		return -1;
	if (seg == SEG_CS) {
		if (!d_code(&d) || (d_conforming(&d) ? d_dpl(&d) > (sel & 3u) : d_dpl(&d) != (sel & 3u)))
			return exc_err(v, EXC_TS, sel & ~3u);
	} else if (!(d.attr & SEG_S) || ((d.attr & 8) && !(d.attr & 2)) ||
		   (!(d_code(&d) && d_conforming(&d)) && (d_dpl(&d) < level || d_dpl(&d) < (sel & 3u)))) {
		return exc_err(v, EXC_TS, sel & ~3u);
	}
	if (!d_present(&d))
		return exc_err(v, EXC_NP, sel & ~3u);
	if (desc_set_accessed(v, &d))
		return -1;
	seg_from_desc(&v->st.seg[seg], sel, &d);
	return 0;
}

int task_switch(struct vcpu *v, uint16_t sel, enum task_reason why, uint64_t next, bool has_error,
		uint32_t error)
{
	struct x86_state *s = &v->st;
	uint8_t vec = why == TASK_IRET ? EXC_TS : EXC_GP;
	struct descriptor d, old;
	uint64_t flags = s->rflags;
	uint32_t w[26] = { 0 };
	uint16_t h[22] = { 0 }, segs[6] = { 0 }, ldt, backlink = s->tr.sel;
	bool is32;
	unsigned type, level;

	if (needs_full(v)) /* it writes here and there, and could not give up half-way */
		return -1;
	if (sel_null(sel) || (sel & 4))
		return exc_err(v, vec, sel & ~3u);
	if (desc_read(v, sel, vec, &d))
		return -1;
	type = d.attr & 0x1f;
	if (why == TASK_IRET ? type != SYS_TSS_BUSY && type != SYS_TSS16_BUSY
			     : type != SYS_TSS_AVAIL && type != SYS_TSS16_AVAIL)
		return exc_err(v, vec, sel & ~3u);
	if (!d_present(&d))
		return exc_err(v, EXC_NP, sel & ~3u);
	is32 = type & 8;
	if (d.limit < (is32 ? 0x67u : 0x2bu))
		return exc_err(v, EXC_TS, sel & ~3u);
	if (is32 ? lin_read(v, d.base, w, sizeof w, ACC_IMPLICIT)
		 : lin_read(v, d.base, h, sizeof h, ACC_IMPLICIT))
		return -1;
	if (why == TASK_JMP || why == TASK_IRET) {
		if (desc_read(v, s->tr.sel, EXC_TS, &old) || tss_mark(v, &old, false))
			return -1;
	}
	if (why == TASK_IRET)
		flags &= ~(uint64_t)FLAG_NT;
	if (save_task(v, next, flags))
		return -1;
	if (why == TASK_CALL || why == TASK_INT) {
		if (lin_write(v, d.base, &backlink, 2, ACC_IMPLICIT))
			return -1;
	}
	if (why != TASK_IRET && tss_mark(v, &d, true))
		return -1;
	/* The switch is done: from here on, faults belong to the new task. */
	v->switched = true;
	seg_from_desc(&s->tr, sel, &d);
	s->tr.attr |= 2;
	s->cr0 |= CR0_TS;
	if (is32) {
		if (s->cr0 & CR0_PG) {
			s->cr3 = w[7];
			if (s->cr4 & CR4_PAE)
				mmu_load_pdptes(v, s->cr3);
			mmu_select(v, true);
		}
		s->rip = w[8];
		flags = w[9];
		for (int i = 0; i < 8; i++)
			s->gpr[i] = w[10 + i];
		for (int i = 0; i < 6; i++)
			segs[i] = (uint16_t)w[18 + i];
		ldt = (uint16_t)w[24];
	} else {
		s->rip = h[7];
		flags = h[8];
		for (int i = 0; i < 8; i++)
			s->gpr[i] = h[9 + i] | 0xffff0000u;
		for (int i = 0; i < 4; i++)
			segs[i] = h[17 + i];
		ldt = h[21];
	}
	if (why == TASK_CALL || why == TASK_INT)
		flags |= FLAG_NT;
	s->rflags = (flags & (FLAGS_ARITH | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT | FLAG_RF |
			      FLAG_AC | FLAG_ID | (is32 ? FLAG_VM : 0))) |
		    FLAG_R1;
	s->dr7 &= ~0x155ull; /* local breakpoints */
	v->dr_watch = s->dr7 & 0xff;
	for (int i = 0; i < 6; i++)
		s->seg[i].sel = segs[i];
	level = is_v86(v) ? 3 : segs[SEG_CS] & 3;
	s->seg[SEG_SS].attr = (uint16_t)((s->seg[SEG_SS].attr & ~0x60u) | level << 5);
	if (ldt & 4)
		return exc_err(v, EXC_TS, ldt & ~3u);
	if (load_ldtr(v, ldt)) {
		v->exc.vector = EXC_TS;
		return -1;
	}
	if (task_segment(v, SEG_CS, segs[SEG_CS], level) || task_segment(v, SEG_SS, segs[SEG_SS], level) ||
	    task_segment(v, SEG_DS, segs[SEG_DS], level) || task_segment(v, SEG_ES, segs[SEG_ES], level) ||
	    task_segment(v, SEG_FS, segs[SEG_FS], level) || task_segment(v, SEG_GS, segs[SEG_GS], level)) {
		mode_changed(v);
		return -1;
	}
	mode_changed(v);
	if (has_error && push_val(v, error, is32 ? 4 : 2))
		return -1;
	if (s->rip > s->seg[SEG_CS].limit)
		return exc_gp(v, 0);
	if (is32 && (w[25] & 1)) {
		v->exc = (struct exception){ .vector = EXC_DB, .present = true, .dr6 = 1u << 15 };
		return -1;
	}
	return 0;
}
