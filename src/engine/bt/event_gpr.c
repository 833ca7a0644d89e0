/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events: exceptions, interrupts and software interrupts through the IVT or
 * IDT (SDM 3A chapter 6), with double and triple faults.
 */
#include "base/log.h"
#include "engine/bt/interp_internal.h"
#include "engine/bt/t2.h"

/* Real mode: IVT entries of 4 bytes. */
static int deliver_real(struct vcpu *v, uint8_t vector, uint64_t ret)
{
	struct x86_state *s = &v->st;
	uint16_t e[2];
	unsigned w = stack_width(v);
	uint64_t sp = s->gpr[RSP];
	uint16_t frame[3] = { (uint16_t)s->rflags, s->seg[SEG_CS].sel, (uint16_t)ret };

	if (vector * 4 + 3 > s->idtr.limit)
		return exc_gp(v, vector * 8 + 2);
	if (lin_read(v, (uint32_t)(s->idtr.base + vector * 4), e, 4, ACC_IMPLICIT))
		return -1;
	for (int i = 0; i < 3; i++) {
		sp = (sp - 2) & size_mask(w);
		if (vmem_write(v, SEG_SS, sp, &frame[i], 2))
			return -1;
	}
	addr_set(v, RSP, w, sp);
	s->rflags &= ~(uint64_t)(FLAG_IF | FLAG_TF | FLAG_AC | FLAG_RF);
	seg_load_real(v, SEG_CS, e[1]);
	s->rip = e[0];
	mode_changed(v);
	return 0;
}

struct frame {
	uint64_t val[12];
	unsigned n, size;
};

static void frame_push(struct frame *f, uint64_t x)
{
	f->val[f->n++] = x;
}

/* Writes the frame downwards from sp on stack segment ss at privilege `level`. err: #SS's error code. */
static int frame_write(struct vcpu *v, const struct frame *f, const struct x86_seg *ss, uint64_t *sp,
		       unsigned level, uint32_t err)
{
	bool lm = x86_long_mode(&v->st);
	uint64_t mask = lm ? ~0ull : (ss->attr & SEG_DB) ? 0xffffffffu : 0xffff;
	struct x86_seg old = v->st.seg[SEG_SS];
	uint64_t p = *sp;

	for (unsigned i = 0; i < f->n; i++) {
		uint64_t lin;
		int r = 0;

		p = (p - f->size) & mask;
		if (lm) {
			if (!canonical(p) || !canonical(p + 7))
				return exc_err(v, EXC_SS, 0);
			lin = p;
		} else {
			v->st.seg[SEG_SS] = *ss;
			r = seg_linear(v, SEG_SS, p, f->size, ACC_W, &lin);
			v->st.seg[SEG_SS] = old;
			if (r) {
				v->exc.error = err;
				return -1;
			}
		}
		if (lin_write(v, lin, &f->val[i], f->size, level == 3 ? ACC_USER : 0))
			return -1;
	}
	*sp = p;
	return 0;
}

/* Protected and IA-32e mode. ext: the EXT bit of error codes; soft: gate DPL is checked. */
static int deliver_protected(struct vcpu *v, uint8_t vector, bool soft, bool has_error, uint32_t error,
			     uint64_t ret, uint32_t ext)
{
	struct x86_state *s = &v->st;
	bool lm = x86_long_mode(s);
	unsigned entry = lm ? 16 : 8;
	uint32_t g[4] = { 0 };
	uint32_t sel_err = vector * 8 + 2 + ext;
	unsigned type, level, ist = 0, old = cpl(v);
	struct descriptor cs;
	struct x86_seg ss = s->seg[SEG_SS];
	struct frame f = { .n = 0 };
	uint64_t off, sp = s->gpr[RSP];
	uint16_t sel, new_ss = 0;
	uint8_t vec;
	bool v86 = is_v86(v);

	if ((uint32_t)vector * entry + entry - 1 > s->idtr.limit)
		return exc_gp(v, sel_err);
	if (lin_read(v, s->idtr.base + vector * entry, g, entry, ACC_IMPLICIT))
		return -1;
	type = g[1] >> 8 & 0x1f;
	if (lm ? type != 14 && type != 15 : type != 5 && type != 6 && type != 7 && type != 14 && type != 15)
		return exc_gp(v, sel_err);
	if (soft && (g[1] >> 13 & 3) < old)
		return exc_gp(v, sel_err);
	if (!(g[1] >> 15 & 1))
		return exc_err(v, EXC_NP, sel_err);
	sel = (uint16_t)(g[0] >> 16);
	if (type == 5)
		return task_switch(v, sel, TASK_INT, ret, has_error, error);
	off = (g[0] & 0xffff) | (g[1] & 0xffff0000u);
	if (lm) {
		off |= (uint64_t)g[2] << 32;
		ist = g[1] & 7;
	} else if (type < 14) {
		off &= 0xffff;
	}
	if (sel_null(sel))
		return exc_gp(v, ext);
	if (desc_read(v, sel, EXC_GP, &cs)) {
		if (v->exc.vector == EXC_GP)
			v->exc.error |= ext;
		return -1;
	}
	if ((cs.attr & (SEG_S | 8)) != (SEG_S | 8) || SEG_DPL(cs.attr) > old)
		return exc_gp(v, (sel & ~3u) + ext);
	if (!(cs.attr & SEG_P))
		return exc_err(v, EXC_NP, (sel & ~3u) + ext);
	if (lm && (!(cs.attr & SEG_L) || (cs.attr & SEG_DB)))
		return exc_gp(v, (sel & ~3u) + ext);
	level = (cs.attr & 4) ? old : SEG_DPL(cs.attr);
	if (v86 && level != 0)
		return exc_gp(v, (sel & ~3u) + ext);
	f.size = lm ? 8 : type >= 14 ? 4 : 2;
	if (level < old || ist) {
		if (tss_stack(v, level, ist, &new_ss, &sp, &vec)) {
			v->exc.error |= ext;
			return -1;
		}
		if (lm) {
			ss = (struct x86_seg){ .sel = (uint16_t)level, .attr = (uint16_t)(level << 5) };
			if (level == old)
				ss = s->seg[SEG_SS];
		} else if (check_stack_segment(v, new_ss, level, EXC_TS, &ss)) {
			v->exc.error |= ext;
			return -1;
		}
	}
	if (lm)
		sp &= ~15ull;
	else if (!canonical(off) || off > cs.limit)
		return exc_gp(v, ext);
	if (lm && !canonical(off))
		return exc_gp(v, ext);
	if (v86) {
		frame_push(&f, s->seg[SEG_GS].sel);
		frame_push(&f, s->seg[SEG_FS].sel);
		frame_push(&f, s->seg[SEG_DS].sel);
		frame_push(&f, s->seg[SEG_ES].sel);
	}
	if (lm || level < old) {
		frame_push(&f, s->seg[SEG_SS].sel);
		frame_push(&f, s->gpr[RSP]);
	}
	frame_push(&f, s->rflags);
	frame_push(&f, s->seg[SEG_CS].sel);
	frame_push(&f, ret);
	if (has_error)
		frame_push(&f, error);
	if (frame_write(v, &f, &ss, &sp, level, level < old ? ss.sel & ~3u : 0)) {
		if (v->exc.vector != EXC_PF)
			v->exc.error |= ext;
		return -1;
	}
	if (desc_set_accessed(v, &cs))
		return -1;
	/* Nothing can fail from here. */
	s->seg[SEG_SS] = ss;
	if (lm)
		s->gpr[RSP] = sp;
	else
		reg_set(v, RSP, (ss.attr & SEG_DB) ? 4 : 2, sp);
	s->rflags &= ~(uint64_t)(FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM);
	if (!(type & 1))
		s->rflags &= ~(uint64_t)FLAG_IF;
	if (v86) {
		static const uint8_t data[4] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };

		for (int i = 0; i < 4; i++)
			s->seg[data[i]] = (struct x86_seg){ 0 };
	}
	seg_from_desc(&s->seg[SEG_CS], (uint16_t)((sel & ~3u) | level), &cs);
	s->rip = off;
	mode_changed(v);
	return 0;
}

static int deliver(struct vcpu *v, uint8_t vector, bool soft, bool has_error, uint32_t error, uint64_t ret,
		   uint32_t ext)
{
	if (!(v->st.cr0 & CR0_PE))
		return deliver_real(v, vector, ret);
	return deliver_protected(v, vector, soft, has_error, error, ret, ext);
}

/* SDM 3A table 6-5: which second exception makes a double fault. */
static bool contributory(uint8_t vec)
{
	return vec == EXC_DE || (vec >= EXC_TS && vec <= EXC_GP);
}

static bool double_fault(uint8_t first, uint8_t second)
{
	if (contributory(first))
		return contributory(second);
	if (first == EXC_PF)
		return second == EXC_PF || contributory(second);
	return false;
}

void event_exception(struct vcpu *v)
{
	struct x86_state *s = &v->st;
	struct exception e = v->exc;
	/* A fault on the way is reported with the state from before the event. */
	uint64_t ret = s->rip;

	v->t2_cause = t2_fault_cause(&v->st);
	s->halted = false;
	/* Task gates to tasks whose T bit is set can lead in a circle, which nothing interrupts. */
	for (unsigned round = 0;; round++) {
		if (round == 32) {
			s->shutdown = true;
			return;
		}
		v->stats.exceptions++;
		v->exc.present = false;
		if (!v->in_gpr && log_get_level() >= LOG_LEVEL_DEBUG)
			log_debug("exception %u error %#x cr2 %#llx at %04x:%#llx rsp %#llx", e.vector,
				  e.error, (unsigned long long)e.cr2, s->seg[SEG_CS].sel,
				  (unsigned long long)ret, (unsigned long long)s->gpr[RSP]);
		if (e.vector == EXC_PF)
			s->cr2 = e.cr2;
		if (e.vector == EXC_DB) {
			s->dr6 = (s->dr6 & ~0xfull) | e.dr6;
			s->dr7 &= ~(1ull << 13);
			if (e.dr6 & 1u << 13) /* general detect, the one other fault among them */
				s->rflags |= FLAG_RF;
		} else if (e.vector != EXC_BP && e.vector != EXC_OF) {
			/* Faults save RF set, so that an instruction breakpoint is not met twice. */
			s->rflags |= FLAG_RF;
		}
		v->switched = false;
		if (!deliver(v, e.vector, false, e.has_error && (s->cr0 & CR0_PE), e.error, ret,
			     1 & !e.soft)) {
			s->shadow = 0;
			return;
		}
		if (v->bail)
			return;
		if (v->switched)
			ret = s->rip;
		if (e.vector == EXC_DF) {
			s->shutdown = true;
			return;
		}
		if (double_fault(e.vector, v->exc.vector))
			e = (struct exception){
				.vector = EXC_DF, .has_error = true, .error = 0, .present = true
			};
		else
			e = v->exc;
	}
}

void event_interrupt(struct vcpu *v, uint8_t vector)
{
	v->st.halted = false;
	v->st.shadow = 0;
	v->stats.irqs++;
	v->t2_cause = T2_CAUSE_IRQ;
	if (deliver(v, vector, false, false, 0, v->st.rip, 1))
		event_exception(v);
}

int event_software(struct vcpu *v, uint8_t vector, uint64_t next, bool int1)
{
	/* INT n in virtual-8086 mode needs IOPL 3 (without VME); INT3 and INTO do not. */
	v->st.rflags &= ~(uint64_t)FLAG_RF;
	v->t2_cause = t2_syscall_cause(&v->st);
	if (int1)
		v->st.dr7 &= ~(1ull << 13);
	return deliver(v, vector, !int1, false, 0, next, int1 ? 1 : 0);
}

bool event_pending(struct vcpu *v)
{
	struct x86_state *s = &v->st;

	if (s->shadow)
		return false;
	if (s->nmi_pending && !s->nmi_blocked)
		return true;
	return (s->rflags & FLAG_IF) && v->board.irq_pending && v->board.irq_pending(v->board.opaque);
}

void event_deliver(struct vcpu *v)
{
	struct x86_state *s = &v->st;
	int vec;

	if (s->shadow)
		return;
	if (s->nmi_pending && !s->nmi_blocked) {
		s->nmi_pending--;
		s->nmi_blocked = true;
		event_interrupt(v, EXC_NMI);
		return;
	}
	if (!(s->rflags & FLAG_IF))
		return;
	vec = v->board.irq_ack(v->board.opaque);
	if (vec >= 0)
		event_interrupt(v, (uint8_t)vec);
}
