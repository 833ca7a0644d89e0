/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments: descriptors, segment loads, far transfers, IRET (SDM 2A/2B the
 * instructions' pages; SDM 3A chapters 3 and 5). Task switches: task_gpr.c.
 *
 * Order matters everywhere here: all checks and all memory reads come before
 * the first change of state, so that a fault leaves the instruction restartable.
 */
#include "engine/bt/seg_internal.h"

int desc_read(struct vcpu *v, uint16_t sel, uint8_t vec, struct descriptor *d)
{
	struct x86_state *s = &v->st;
	uint64_t base = s->gdtr.base, limit = s->gdtr.limit;
	uint32_t w[2];

	if (sel & 4) {
		if (!(s->ldtr.attr & SEG_P))
			return exc_err(v, vec, sel & ~3u);
		base = s->ldtr.base;
		limit = s->ldtr.limit;
	}
	if ((sel & ~7u) + 7 > limit)
		return exc_err(v, vec, sel & ~3u);
	d->addr = base + (sel & ~7u);
	if (lin_read(v, d->addr, w, 8, ACC_IMPLICIT))
		return -1;
	d->lo = w[0];
	d->hi = w[1];
	d->attr = (w[1] >> 8) & 0xf0ff;
	d->limit = (w[0] & 0xffff) | (w[1] & 0xf0000);
	if (d->attr & SEG_G)
		d->limit = d->limit << 12 | 0xfff;
	d->base = w[0] >> 16 | (w[1] & 0xff) << 16 | (w[1] & 0xff000000u);
	return 0;
}

/* System descriptors are 16 bytes in IA-32e mode: adds the upper half of the base (and of a gate's offset, in
 * *hi2). */
static int desc_read_upper(struct vcpu *v, uint16_t sel, uint8_t vec, struct descriptor *d, uint32_t *hi2)
{
	uint64_t limit = sel & 4 ? v->st.ldtr.limit : v->st.gdtr.limit;
	uint32_t w[2];

	if ((sel & ~7u) + 15 > limit)
		return exc_err(v, vec, sel & ~3u);
	if (lin_read(v, d->addr + 8, w, 8, ACC_IMPLICIT))
		return -1;
	if (w[1] & 0x1f00)
		return exc_err(v, vec, sel & ~3u);
	d->base |= (uint64_t)w[0] << 32;
	*hi2 = w[0];
	return 0;
}

int desc_set_accessed(struct vcpu *v, struct descriptor *d)
{
	uint8_t b;

	if (d->attr & 1)
		return 0;
	if (lin_read(v, d->addr + 5, &b, 1, ACC_IMPLICIT))
		return -1;
	b |= 1;
	if (lin_write(v, d->addr + 5, &b, 1, ACC_IMPLICIT))
		return -1;
	d->attr |= 1;
	return 0;
}

void seg_from_desc(struct x86_seg *s, uint16_t sel, const struct descriptor *d)
{
	s->sel = sel;
	s->attr = d->attr;
	s->limit = d->limit;
	s->base = d->base;
}

void seg_load_real(struct vcpu *v, unsigned seg, uint16_t sel)
{
	struct x86_seg *s = &v->st.seg[seg];

	s->sel = sel;
	s->base = (uint64_t)sel << 4;
	if (is_v86(v)) {
		s->limit = 0xffff;
		s->attr = SEG_P | SEG_S | 3 | 3 << 5;
	} else if (seg == SEG_CS) {
		/* The hidden limit and attributes survive in real mode, but CS becomes usable code. */
		s->attr = SEG_P | SEG_S | 3 | (s->attr & SEG_DB);
	}
}

int check_stack_segment(struct vcpu *v, uint16_t sel, unsigned level, uint8_t vec, struct x86_seg *ret)
{
	struct descriptor d;

	if (sel_null(sel))
		return exc_err(v, vec, vec == EXC_GP ? 0 : sel & ~3u);
	if (desc_read(v, sel, vec, &d))
		return -1;
	if ((sel & 3u) != level || d_dpl(&d) != level || !(d.attr & SEG_S) || (d.attr & 8) || !(d.attr & 2))
		return exc_err(v, vec, sel & ~3u);
	if (!d_present(&d))
		return exc_err(v, EXC_SS, sel & ~3u);
	if (desc_set_accessed(v, &d))
		return -1;
	seg_from_desc(ret, sel, &d);
	return 0;
}

int seg_load(struct vcpu *v, unsigned seg, uint16_t sel)
{
	struct x86_seg *s = &v->st.seg[seg];
	struct descriptor d;

	if (!is_protected(v)) {
		seg_load_real(v, seg, sel);
		return 0;
	}
	if (seg == SEG_SS) {
		struct x86_seg n;

		if (sel_null(sel) && is_code64(v) && cpl(v) < 3 && (sel & 3u) == cpl(v)) {
			seg_null(s, sel);
			s->attr = (uint16_t)(cpl(v) << 5); /* CPL stays readable from SS.DPL */
			return 0;
		}
		if (check_stack_segment(v, sel, cpl(v), EXC_GP, &n))
			return -1;
		*s = n;
		return 0;
	}
	if (sel_null(sel)) {
		seg_null(s, sel);
		return 0;
	}
	if (desc_read(v, sel, EXC_GP, &d))
		return -1;
	if (!(d.attr & SEG_S) || ((d.attr & 8) && !(d.attr & 2)))
		return exc_gp(v, sel & ~3u);
	if (!(d_code(&d) && d_conforming(&d)) && (d_dpl(&d) < cpl(v) || d_dpl(&d) < (sel & 3u)))
		return exc_gp(v, sel & ~3u);
	if (!d_present(&d))
		return exc_err(v, EXC_NP, sel & ~3u);
	if (desc_set_accessed(v, &d))
		return -1;
	seg_from_desc(s, sel, &d);
	return 0;
}

int load_ldtr(struct vcpu *v, uint16_t sel)
{
	struct descriptor d;
	uint32_t hi2;

	if (sel_null(sel)) {
		seg_null(&v->st.ldtr, sel);
		return 0;
	}
	if (sel & 4)
		return exc_gp(v, sel & ~3u);
	if (desc_read(v, sel, EXC_GP, &d))
		return -1;
	if ((d.attr & 0x1f) != SYS_LDT)
		return exc_gp(v, sel & ~3u);
	if (!d_present(&d))
		return exc_err(v, EXC_NP, sel & ~3u);
	if (x86_long_mode(&v->st) && desc_read_upper(v, sel, EXC_GP, &d, &hi2))
		return -1;
	if (!canonical(d.base))
		return exc_gp(v, sel & ~3u);
	seg_from_desc(&v->st.ldtr, sel, &d);
	return 0;
}

int tss_mark(struct vcpu *v, const struct descriptor *d, bool busy)
{
	uint8_t b;

	if (lin_read(v, d->addr + 5, &b, 1, ACC_IMPLICIT))
		return -1;
	b = busy ? b | 2 : b & ~2;
	return lin_write(v, d->addr + 5, &b, 1, ACC_IMPLICIT);
}

int load_tr(struct vcpu *v, uint16_t sel)
{
	struct descriptor d;
	uint32_t hi2;
	unsigned type;

	if (sel_null(sel))
		return exc_gp(v, 0);
	if (sel & 4)
		return exc_gp(v, sel & ~3u);
	if (desc_read(v, sel, EXC_GP, &d))
		return -1;
	type = d.attr & 0x1f;
	if (type != SYS_TSS_AVAIL && !(type == SYS_TSS16_AVAIL && !x86_long_mode(&v->st)))
		return exc_gp(v, sel & ~3u);
	if (!d_present(&d))
		return exc_err(v, EXC_NP, sel & ~3u);
	if (x86_long_mode(&v->st) && desc_read_upper(v, sel, EXC_GP, &d, &hi2))
		return -1;
	if (!canonical(d.base))
		return exc_gp(v, sel & ~3u);
	if (tss_mark(v, &d, true))
		return -1;
	seg_from_desc(&v->st.tr, sel, &d);
	v->st.tr.attr |= 2;
	return 0;
}

int tss_stack(struct vcpu *v, unsigned level, unsigned ist, uint16_t *ss, uint64_t *sp, uint8_t *vec)
{
	struct x86_seg *tr = &v->st.tr;
	uint32_t off;

	*vec = EXC_TS;
	if (x86_long_mode(&v->st)) {
		off = ist ? 0x24 + 8 * (ist - 1) : 4 + 8 * level;
		if (off + 7 > tr->limit)
			return exc_err(v, EXC_TS, tr->sel & ~3u);
		if (lin_read(v, tr->base + off, sp, 8, ACC_IMPLICIT))
			return -1;
		if (!canonical(*sp))
			return exc_err(v, EXC_SS, 0);
		*ss = (uint16_t)level;
		return 0;
	}
	if (tr->attr & 8) {
		uint32_t w[2] = { 0, 0 };

		off = 4 + 8 * level;
		if (off + 5 > tr->limit)
			return exc_err(v, EXC_TS, tr->sel & ~3u);
		if (lin_read(v, tr->base + off, w, 6, ACC_IMPLICIT))
			return -1;
		*sp = w[0];
		*ss = (uint16_t)w[1];
	} else {
		uint16_t h[2];

		off = 2 + 4 * level;
		if (off + 3 > tr->limit)
			return exc_err(v, EXC_TS, tr->sel & ~3u);
		if (lin_read(v, tr->base + off, h, 4, ACC_IMPLICIT))
			return -1;
		*sp = h[0];
		*ss = h[1];
	}
	return 0;
}

/* The checks that JMP, CALL and RET share for a code segment, and those for a target in it. */
static int check_code_segment(struct vcpu *v, uint16_t sel, const struct descriptor *d)
{
	if (!d_present(d))
		return exc_err(v, EXC_NP, sel & ~3u);
	if (x86_long_mode(&v->st) && (d->attr & SEG_L) && (d->attr & SEG_DB))
		return exc_gp(v, sel & ~3u);
	return 0;
}

static int check_code_offset(struct vcpu *v, const struct descriptor *d, uint64_t off)
{
	/* Compatibility mode gets 32 bits of a 64-bit offset. */
	bool ok = x86_long_mode(&v->st) && (d->attr & SEG_L) ? canonical(off) : (uint32_t)off <= d->limit;

	return ok ? 0 : exc_gp(v, 0);
}

static int check_code_target(struct vcpu *v, uint16_t sel, const struct descriptor *d, uint64_t off)
{
	return check_code_segment(v, sel, d) || check_code_offset(v, d, off) ? -1 : 0;
}

static void set_cs(struct vcpu *v, uint16_t sel, struct descriptor *d, unsigned level, uint64_t rip)
{
	seg_from_desc(&v->st.seg[SEG_CS], (uint16_t)((sel & ~3u) | level), d);
	v->st.rip = is_code64(v) ? rip : (uint32_t)rip;
	mode_changed(v);
}

/* Direct far JMP or CALL to a code segment: privilege checks of SDM 3A 5.8.1. */
static int check_direct(struct vcpu *v, uint16_t sel, const struct descriptor *d)
{
	if (d_conforming(d)) {
		if (d_dpl(d) > cpl(v))
			return exc_gp(v, sel & ~3u);
	} else if ((sel & 3u) > cpl(v) || d_dpl(d) != cpl(v)) {
		return exc_gp(v, sel & ~3u);
	}
	return 0;
}

struct gate {
	uint16_t sel;
	uint64_t off;
	unsigned size;  /* 2, 4, 8 */
	unsigned count; /* parameters */
};

static int read_gate(struct vcpu *v, uint16_t sel, struct descriptor *d, struct gate *g)
{
	unsigned type = d->attr & 0x1f;
	uint32_t hi2 = 0;

	if (d_dpl(d) < cpl(v) || d_dpl(d) < (sel & 3u))
		return exc_gp(v, sel & ~3u);
	if (!d_present(d))
		return exc_err(v, EXC_NP, sel & ~3u);
	if (x86_long_mode(&v->st) && desc_read_upper(v, sel, EXC_GP, d, &hi2))
		return -1;
	g->sel = d->lo >> 16;
	g->off = (d->lo & 0xffff) | (d->hi & 0xffff0000u);
	g->count = d->hi & 31;
	g->size = 4;
	if (type == SYS_CALL16) {
		g->off &= 0xffff;
		g->size = 2;
	}
	if (x86_long_mode(&v->st)) {
		g->off |= (uint64_t)hi2 << 32;
		g->size = 8;
		g->count = 0;
	}
	return 0;
}

/* The code segment that a call gate names. */
static int gate_target(struct vcpu *v, const struct gate *g, struct descriptor *cs)
{
	if (sel_null(g->sel))
		return exc_gp(v, 0);
	if (desc_read(v, g->sel, EXC_GP, cs))
		return -1;
	if (!d_code(cs) || d_dpl(cs) > cpl(v))
		return exc_gp(v, g->sel & ~3u);
	if (x86_long_mode(&v->st) && (!(cs->attr & SEG_L) || (cs->attr & SEG_DB)))
		return exc_gp(v, g->sel & ~3u);
	return check_code_target(v, g->sel, cs, g->off);
}

int far_jump(struct vcpu *v, uint16_t sel, uint64_t off, unsigned opsize, uint64_t next)
{
	struct descriptor d;
	unsigned type;

	off &= size_mask(opsize);
	if (!is_protected(v)) {
		if (off > v->st.seg[SEG_CS].limit)
			return exc_gp(v, 0);
		seg_load_real(v, SEG_CS, sel);
		v->st.rip = off;
		mode_changed(v);
		return 0;
	}
	if (sel_null(sel))
		return exc_gp(v, 0);
	if (desc_read(v, sel, EXC_GP, &d))
		return -1;
	if (d.attr & SEG_S) {
		if (!d_code(&d))
			return exc_gp(v, sel & ~3u);
		if (check_direct(v, sel, &d) || check_code_target(v, sel, &d, off) ||
		    desc_set_accessed(v, &d))
			return -1;
		set_cs(v, sel, &d, cpl(v), off);
		return 0;
	}
	type = d.attr & 0xf;
	if (type == SYS_CALL || (type == SYS_CALL16 && !x86_long_mode(&v->st))) {
		struct gate g;
		struct descriptor cs;

		if (read_gate(v, sel, &d, &g) || gate_target(v, &g, &cs))
			return -1;
		if (!d_conforming(&cs) && d_dpl(&cs) != cpl(v))
			return exc_gp(v, g.sel & ~3u);
		if (desc_set_accessed(v, &cs))
			return -1;
		set_cs(v, g.sel, &cs, cpl(v), g.off);
		return 0;
	}
	if (x86_long_mode(&v->st))
		return exc_gp(v, sel & ~3u);
	if (type == SYS_TASK_GATE || type == SYS_TSS_AVAIL || type == SYS_TSS16_AVAIL) {
		if (d_dpl(&d) < cpl(v) || d_dpl(&d) < (sel & 3u))
			return exc_gp(v, sel & ~3u);
		if (!d_present(&d))
			return exc_err(v, EXC_NP, sel & ~3u);
		return task_switch(v, type == SYS_TASK_GATE ? (uint16_t)(d.lo >> 16) : sel, TASK_JMP, next,
				   false, 0);
	}
	return exc_gp(v, sel & ~3u);
}

/*
 * Writes n values of `size` bytes below *sp, top first, on a stack segment that may not be loaded yet;
 * code64: in IA-32e mode, where it is flat. err: the error code if they do not fit.
 */
static int push_on(struct vcpu *v, const struct x86_seg *ss, bool code64, uint64_t *sp, const uint64_t *val,
		   unsigned n, unsigned size, unsigned level, uint32_t err)
{
	uint64_t mask = code64 ? ~0ull : (ss->attr & SEG_DB) ? 0xffffffffu : 0xffff;
	struct x86_seg old = v->st.seg[SEG_SS];
	uint64_t p = *sp;
	int r = 0;

	for (unsigned i = 0; i < n && !r; i++) {
		uint64_t lin;

		p = (p - size) & mask;
		if (mask == ~0ull) {
			if (!canonical(p) || !canonical(p + size - 1)) {
				r = exc_err(v, EXC_SS, err);
				break;
			}
			lin = p;
		} else {
			v->st.seg[SEG_SS] = *ss;
			r = seg_linear(v, SEG_SS, p, size, ACC_W, &lin);
			v->st.seg[SEG_SS] = old;
			if (r) {
				r = exc_err(v, EXC_SS, err);
				break;
			}
		}
		r = lin_write(v, lin, &val[i], size, level == 3 ? ACC_USER : 0);
	}
	if (!r)
		*sp = p;
	return r;
}

static int call_gate(struct vcpu *v, uint16_t sel, struct descriptor *d, uint64_t next)
{
	struct gate g;
	struct descriptor cs;
	struct x86_seg ss = { 0 };
	uint64_t vals[4 + 31], sp, params[31];
	uint16_t new_ss;
	unsigned level, n = 0;
	uint8_t vec;

	if (read_gate(v, sel, d, &g) || gate_target(v, &g, &cs))
		return -1;
	level = d_conforming(&cs) ? cpl(v) : d_dpl(&cs);
	if (level == cpl(v)) {
		uint64_t cs_rip[2] = { v->st.seg[SEG_CS].sel, next };

		sp = v->st.gpr[RSP];
		if (push_on(v, &v->st.seg[SEG_SS], x86_long_mode(&v->st), &sp, cs_rip, 2, g.size, level, 0) ||
		    desc_set_accessed(v, &cs))
			return -1;
		addr_set(v, RSP, stack_width(v), sp);
		set_cs(v, g.sel, &cs, level, g.off);
		return 0;
	}
	if (tss_stack(v, level, 0, &new_ss, &sp, &vec))
		return -1;
	if (x86_long_mode(&v->st)) {
		seg_null(&ss, new_ss);
		ss.attr = (uint16_t)(level << 5);
	} else if (check_stack_segment(v, new_ss, level, EXC_TS, &ss)) {
		return -1;
	}
	for (unsigned i = 0; i < g.count; i++) {
		uint64_t off = (v->st.gpr[RSP] + i * g.size) & size_mask(stack_width(v));

		params[i] = 0;
		if (vmem_read(v, SEG_SS, off, &params[i], g.size))
			return -1;
	}
	vals[n++] = v->st.seg[SEG_SS].sel;
	vals[n++] = v->st.gpr[RSP];
	for (unsigned i = g.count; i > 0; i--)
		vals[n++] = params[i - 1];
	vals[n++] = v->st.seg[SEG_CS].sel;
	vals[n++] = next;
	if (push_on(v, &ss, x86_long_mode(&v->st), &sp, vals, n, g.size, level, ss.sel & ~3u) ||
	    desc_set_accessed(v, &cs))
		return -1;
	v->st.seg[SEG_SS] = ss;
	v->st.gpr[RSP] = sp;
	set_cs(v, g.sel, &cs, level, g.off);
	return 0;
}

int far_call(struct vcpu *v, uint16_t sel, uint64_t off, unsigned opsize, uint64_t next)
{
	struct descriptor d;
	uint64_t vals[2] = { v->st.seg[SEG_CS].sel, next }, sp = v->st.gpr[RSP];
	unsigned type;

	off &= size_mask(opsize);
	if (!is_protected(v)) {
		if (off > v->st.seg[SEG_CS].limit)
			return exc_gp(v, 0);
		if (push_on(v, &v->st.seg[SEG_SS], is_code64(v), &sp, vals, 2, opsize, cpl(v), 0))
			return -1;
		addr_set(v, RSP, stack_width(v), sp);
		seg_load_real(v, SEG_CS, sel);
		v->st.rip = off;
		mode_changed(v);
		return 0;
	}
	if (sel_null(sel))
		return exc_gp(v, 0);
	if (desc_read(v, sel, EXC_GP, &d))
		return -1;
	if (d.attr & SEG_S) {
		if (!d_code(&d))
			return exc_gp(v, sel & ~3u);
		/* The return address is on the stack before the offset is looked at. */
		if (check_direct(v, sel, &d) || check_code_segment(v, sel, &d) ||
		    push_on(v, &v->st.seg[SEG_SS], is_code64(v), &sp, vals, 2, opsize, cpl(v), 0) ||
		    check_code_offset(v, &d, off) || desc_set_accessed(v, &d))
			return -1;
		addr_set(v, RSP, stack_width(v), sp);
		set_cs(v, sel, &d, cpl(v), off);
		return 0;
	}
	type = d.attr & 0xf;
	if (type == SYS_CALL || (type == SYS_CALL16 && !x86_long_mode(&v->st)))
		return call_gate(v, sel, &d, next);
	if (x86_long_mode(&v->st))
		return exc_gp(v, sel & ~3u);
	if (type == SYS_TASK_GATE || type == SYS_TSS_AVAIL || type == SYS_TSS16_AVAIL) {
		if (d_dpl(&d) < cpl(v) || d_dpl(&d) < (sel & 3u))
			return exc_gp(v, sel & ~3u);
		if (!d_present(&d))
			return exc_err(v, EXC_NP, sel & ~3u);
		return task_switch(v, type == SYS_TASK_GATE ? (uint16_t)(d.lo >> 16) : sel, TASK_CALL, next,
				   false, 0);
	}
	return exc_gp(v, sel & ~3u);
}

/* Data segments that the new, lower privilege may not see become null (SDM 2B RET, IRET). */
static void drop_segments(struct vcpu *v, unsigned level)
{
	static const uint8_t data[4] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };

	for (int i = 0; i < 4; i++) {
		struct x86_seg *s = &v->st.seg[data[i]];
		bool conforming_code = (s->attr & (SEG_S | 0xc)) == (SEG_S | 0xc);

		/* What is null becomes 0, whatever its RPL. The hidden base stays: in 64-bit mode GS may be
		 * null and have one. */
		if (!(s->attr & SEG_P)) {
			s->sel = 0;
		} else if (!conforming_code && SEG_DPL(s->attr) < level) {
			s->sel = 0;
			s->attr = 0;
		}
	}
}

/* Reads n values from the stack at offset `skip` without moving RSP. */
static int peek(struct vcpu *v, uint64_t *val, unsigned n, unsigned size, uint64_t skip)
{
	unsigned w = stack_width(v);

	for (unsigned i = 0; i < n; i++) {
		val[i] = 0;
		if (vmem_read(v, SEG_SS, (v->st.gpr[RSP] + skip + i * size) & size_mask(w), &val[i], size))
			return -1;
	}
	return 0;
}

/* The new CS of RET and IRET. Its offset is looked at last, behind the new SS. */
static int ret_code(struct vcpu *v, uint16_t sel, struct descriptor *d)
{
	unsigned rpl = sel & 3;

	if (sel_null(sel))
		return exc_gp(v, 0);
	if (desc_read(v, sel, EXC_GP, d))
		return -1;
	if (!d_code(d) || rpl < cpl(v) || (d_conforming(d) ? d_dpl(d) > rpl : d_dpl(d) != rpl))
		return exc_gp(v, sel & ~3u);
	return check_code_segment(v, sel, d);
}

/* The new SS when returning outward, or on any IRET in 64-bit mode. null_ok: 64-bit target below ring 3. */
static int ret_stack(struct vcpu *v, uint16_t sel, unsigned rpl, bool null_ok, struct x86_seg *ss)
{
	if (sel_null(sel) && null_ok) {
		seg_null(ss, sel);
		ss->attr = (uint16_t)(rpl << 5);
		return 0;
	}
	return check_stack_segment(v, sel, rpl, EXC_GP, ss);
}

/* RIP, CS and, for IRET, RFLAGS. Intel's processors read them in reverse, which shows where two would fault.
 */
static int peek_frame(struct vcpu *v, uint64_t *val, unsigned n, unsigned size)
{
	if (!peek(v, val, n, size, 0))
		return 0;
	if (v->model->vendor_intel)
		while (n > 0 && !peek(v, val, 1, size, (n - 1) * size))
			n--;
	return -1;
}

int far_ret(struct vcpu *v, unsigned opsize, unsigned release)
{
	uint64_t val[2], st[2];
	struct descriptor cs;
	struct x86_seg ss;
	uint16_t sel;
	unsigned rpl;

	if (peek_frame(v, val, 2, opsize))
		return -1;
	sel = (uint16_t)val[1];
	if (!is_protected(v)) {
		if (val[0] > v->st.seg[SEG_CS].limit)
			return exc_gp(v, 0);
		addr_set(v, RSP, stack_width(v), v->st.gpr[RSP] + 2 * opsize + release);
		seg_load_real(v, SEG_CS, sel);
		v->st.rip = val[0];
		mode_changed(v);
		return 0;
	}
	if (ret_code(v, sel, &cs))
		return -1;
	rpl = sel & 3;
	if (rpl == cpl(v)) {
		if (check_code_offset(v, &cs, val[0]) || desc_set_accessed(v, &cs))
			return -1;
		addr_set(v, RSP, stack_width(v), v->st.gpr[RSP] + 2 * opsize + release);
		set_cs(v, sel, &cs, rpl, val[0]);
		return 0;
	}
	if (peek(v, st, 2, opsize, 2 * opsize + release))
		return -1;
	if (ret_stack(v, (uint16_t)st[1], rpl, x86_long_mode(&v->st) && (cs.attr & SEG_L) && rpl < 3, &ss) ||
	    check_code_offset(v, &cs, val[0]) || desc_set_accessed(v, &cs))
		return -1;
	v->st.seg[SEG_SS] = ss;
	set_cs(v, sel, &cs, rpl, val[0]);
	addr_set(v, RSP, stack_width(v), st[0] + release);
	drop_segments(v, rpl);
	mode_changed(v);
	return 0;
}

/* IRET from protected mode to virtual-8086 mode. */
static int iret_v86(struct vcpu *v, const uint64_t val[3])
{
	uint64_t more[6];

	if (peek(v, more, 6, 4, 12))
		return -1;
	if (val[0] > 0xffff)
		return exc_gp(v, 0);
	flags_write(v, val[2], ~0ull);
	v->st.rflags |= FLAG_VM;
	v->st.gpr[RSP] = (uint32_t)more[0];
	seg_load_real(v, SEG_CS, (uint16_t)val[1]);
	seg_load_real(v, SEG_SS, (uint16_t)more[1]);
	seg_load_real(v, SEG_ES, (uint16_t)more[2]);
	seg_load_real(v, SEG_DS, (uint16_t)more[3]);
	seg_load_real(v, SEG_FS, (uint16_t)more[4]);
	seg_load_real(v, SEG_GS, (uint16_t)more[5]);
	v->st.rip = val[0];
	mode_changed(v);
	return 0;
}

int iret(struct vcpu *v, unsigned opsize)
{
	struct x86_state *s = &v->st;
	bool lm = x86_long_mode(s);
	uint64_t val[5], mask;
	struct descriptor cs;
	struct x86_seg ss;
	uint16_t sel;
	unsigned rpl, old = cpl(v);
	bool outward;

	if (is_v86(v)) {
		if (iopl(v) < 3)
			return exc_gp(v, 0);
	}
	if (!is_protected(v)) {
		if (peek_frame(v, val, 3, opsize))
			return -1;
		if (val[0] > s->seg[SEG_CS].limit)
			return exc_gp(v, 0);
		addr_set(v, RSP, stack_width(v), s->gpr[RSP] + 3 * opsize);
		mask = FLAGS_ARITH | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_NT | FLAG_RF | FLAG_AC | FLAG_ID;
		if (!is_v86(v))
			mask |= FLAG_IOPL;
		if (opsize == 2)
			mask &= 0xffff;
		seg_load_real(v, SEG_CS, (uint16_t)val[1]);
		s->rip = val[0];
		flags_write(v, val[2], mask);
		s->nmi_blocked = false;
		mode_changed(v);
		return 0;
	}
	if (s->rflags & FLAG_NT) {
		uint16_t link;

		if (lm)
			return exc_gp(v, 0);
		if (lin_read(v, s->tr.base, &link, 2, ACC_IMPLICIT))
			return -1;
		return task_switch(v, link, TASK_IRET, s->rip, false, 0);
	}
	if (peek_frame(v, val, 3, opsize))
		return -1;
	if (!lm && opsize == 4 && (val[2] & FLAG_VM) && old == 0) {
		s->nmi_blocked = false;
		return iret_v86(v, val);
	}
	sel = (uint16_t)val[1];
	if (ret_code(v, sel, &cs))
		return -1;
	rpl = sel & 3;
	outward = rpl > old || is_code64(v);
	if (outward) {
		if (peek(v, val + 3, 2, opsize, 3 * opsize))
			return -1;
		if (ret_stack(v, (uint16_t)val[4], rpl, lm && (cs.attr & SEG_L) && rpl < 3, &ss))
			return -1;
	}
	if (check_code_offset(v, &cs, val[0]) || desc_set_accessed(v, &cs))
		return -1;
	mask = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_RF | FLAG_AC | FLAG_ID;
	if (old <= iopl(v))
		mask |= FLAG_IF;
	if (old == 0)
		mask |= FLAG_IOPL | FLAG_VIF | FLAG_VIP;
	if (opsize == 2)
		mask &= 0xffff;
	if (!outward)
		addr_set(v, RSP, stack_width(v), s->gpr[RSP] + 3 * opsize);
	else
		s->seg[SEG_SS] = ss;
	flags_write(v, val[2], mask);
	s->nmi_blocked = false;
	set_cs(v, sel, &cs, rpl, val[0]);
	if (outward) {
		addr_set(v, RSP, is_code64(v) ? 8 : stack_width(v), val[3]);
		if (rpl > old)
			drop_segments(v, rpl);
		mode_changed(v);
	}
	return 0;
}
