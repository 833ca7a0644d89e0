/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System instructions: descriptor tables, ports, system calls and what is too small for a file of its own.
 * interp_system sorts them all; MSRs are in interp_msr_gpr.c, control and debug registers in
 * interp_cr_gpr.c, what loading a segment register means in seg_gpr.c.
 */
#include <sys/syscall.h>

#include "engine/bt/bt.h"
#include "engine/bt/interp_internal.h"
#include "engine/bt/t2.h"

/* ---- segment registers ---- */

static int mov_seg(struct vcpu *v, const struct insn *in)
{
	if (in->ops[0].cls == ZYDIS_REGCLASS_SEGMENT) {
		unsigned seg = in->ops[0].reg;
		uint64_t sel = 0;

		if (seg == SEG_CS)
			return exc_ud(v);
		if (in->has_mem) {
			if (vmem_read(v, in->seg, insn_ea(v, in), &sel, 2))
				return -1;
		} else {
			sel = reg_get(v, in->ops[1].reg, 2);
		}
		if (seg_load(v, seg, (uint16_t)sel))
			return -1;
		if (seg == SEG_SS)
			v->st.shadow = X86_SHADOW_SS;
		mode_changed(v);
		return 0;
	}
	if (in->has_mem)
		return vmem_write(v, in->seg, insn_ea(v, in), &v->st.seg[in->ops[1].reg].sel, 2);
	reg_set(v, in->ops[0].reg, in->opsize, v->st.seg[in->ops[1].reg].sel);
	return 0;
}

static int load_far_pointer(struct vcpu *v, const struct insn *in, unsigned seg)
{
	uint8_t buf[10] = { 0 };
	uint64_t off = 0;
	uint16_t sel;

	if (vmem_read(v, in->seg, insn_ea(v, in), buf, in->opsize + 2))
		return -1;
	memcpy(&off, buf, in->opsize);
	memcpy(&sel, buf + in->opsize, 2);
	if (seg_load(v, seg, sel))
		return -1;
	reg_set(v, in->ops[0].reg, in->opsize, off);
	mode_changed(v);
	return 0;
}

/* ---- descriptor tables ---- */

static int store_dtable(struct vcpu *v, const struct insn *in, const struct x86_dtable *t)
{
	uint8_t buf[10];
	unsigned n = is_code64(v) ? 8 : 4;

	if ((v->st.cr4 & CR4_UMIP) && cpl(v))
		return exc_gp(v, 0);
	memcpy(buf, &t->limit, 2);
	memcpy(buf + 2, &t->base, n);
	return vmem_write(v, in->seg, insn_ea(v, in), buf, 2 + n);
}

static int load_dtable(struct vcpu *v, const struct insn *in, struct x86_dtable *t)
{
	uint8_t buf[10] = { 0 };
	unsigned n = is_code64(v) ? 8 : 4;
	uint64_t base = 0;

	if (cpl(v))
		return exc_gp(v, 0);
	if (vmem_read(v, in->seg, insn_ea(v, in), buf, 2 + n))
		return -1;
	memcpy(&base, buf + 2, n);
	if (!is_code64(v) && in->opsize == 2)
		base &= 0xffffff;
	if (!canonical(base))
		return exc_gp(v, 0);
	memcpy(&t->limit, buf, 2);
	t->base = base;
	return 0;
}

/* Stores a selector-sized value: 16 bits to memory, the operand size to a register. */
static int store_word(struct vcpu *v, const struct insn *in, uint64_t val)
{
	if ((v->st.cr4 & CR4_UMIP) && cpl(v))
		return exc_gp(v, 0);
	if (in->has_mem)
		return vmem_write(v, in->seg, insn_ea(v, in), &val, 2);
	reg_set(v, in->ops[0].reg, in->opsize, val);
	return 0;
}

static int fetch_word(struct vcpu *v, const struct insn *in, unsigned i, uint16_t *val)
{
	if (in->ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
		return vmem_read(v, in->seg, insn_ea(v, in), val, 2);
	*val = (uint16_t)v->st.gpr[in->ops[i].reg];
	return 0;
}

/* LAR, LSL, VERR, VERW: a selector that cannot be looked at clears ZF instead of faulting. */
static int inspect_selector(struct vcpu *v, const struct insn *in)
{
	unsigned last = in->nops ? in->nops - 1 : 0;
	struct descriptor d;
	uint16_t sel;
	bool ok = false, sys, code, conforming;
	unsigned type, dpl;

	if (!is_protected(v))
		return exc_ud(v);
	if (in->mnemonic == ZYDIS_MNEMONIC_VERR || in->mnemonic == ZYDIS_MNEMONIC_VERW)
		last = 0;
	else
		last = 1;
	if (fetch_word(v, in, last, &sel))
		return -1;
	if (!sel_null(sel)) {
		if (desc_read(v, sel, EXC_GP, &d)) {
			if (v->exc.vector == EXC_PF)
				return -1;
			v->exc.present = false;
			goto out;
		}
		type = d.attr & 0xf;
		sys = !(d.attr & SEG_S);
		code = !sys && (type & 8);
		conforming = code && (type & 4);
		dpl = SEG_DPL(d.attr);
		if (!conforming && (dpl < cpl(v) || dpl < (sel & 3u)))
			goto out;
		switch (in->mnemonic) {
		case ZYDIS_MNEMONIC_VERR:
			ok = !sys && (!code || (type & 2));
			break;
		case ZYDIS_MNEMONIC_VERW:
			ok = !sys && !code && (type & 2);
			break;
		case ZYDIS_MNEMONIC_LAR:
			ok = !sys ||
			     (x86_long_mode(&v->st) ? type == 2 || type == 9 || type == 11 || type == 12
						    : (0x1a3e >> type & 1));
			if (ok)
				reg_set(v, in->ops[0].reg, in->opsize, d.hi & 0xffff00);
			break;
		default:
			ok = !sys || (x86_long_mode(&v->st) ? type == 2 || type == 9 || type == 11
							    : (0x0a0e >> type & 1));
			if (ok)
				reg_set(v, in->ops[0].reg, in->opsize, d.limit);
			break;
		}
	}
out:
	v->st.rflags = (v->st.rflags & ~(uint64_t)FLAG_ZF) | (ok ? FLAG_ZF : 0);
	return 0;
}

static int do_arpl(struct vcpu *v, const struct insn *in)
{
	uint16_t dst, src = (uint16_t)v->st.gpr[in->ops[1].reg];
	bool adjust;

	if (!is_protected(v))
		return exc_ud(v);
	if (fetch_word(v, in, 0, &dst))
		return -1;
	adjust = (dst & 3) < (src & 3);
	if (adjust) {
		dst = (uint16_t)((dst & ~3) | (src & 3));
		if (in->has_mem) {
			if (vmem_write(v, in->seg, insn_ea(v, in), &dst, 2))
				return -1;
		} else {
			reg_set(v, in->ops[0].reg, 2, dst);
		}
	}
	v->st.rflags = (v->st.rflags & ~(uint64_t)FLAG_ZF) | (adjust ? FLAG_ZF : 0);
	return 0;
}

/* ---- ports ---- */

int io_permitted(struct vcpu *v, uint16_t port, unsigned size)
{
	struct x86_seg *tr = &v->st.tr;
	uint16_t map, bits;

	if (!(v->st.cr0 & CR0_PE) || (!is_v86(v) && cpl(v) <= (v->st.rflags >> 12 & 3)))
		return 0;
	if (!(tr->attr & SEG_P) || !(tr->attr & 8) || tr->limit < 0x67)
		return exc_gp(v, 0);
	if (lin_read(v, tr->base + 0x66, &map, 2, ACC_IMPLICIT))
		return -1;
	if ((uint32_t)map + port / 8 + 1 > tr->limit)
		return exc_gp(v, 0);
	if (lin_read(v, tr->base + map + port / 8, &bits, 2, ACC_IMPLICIT))
		return -1;
	if (bits >> (port & 7) & ((1u << size) - 1))
		return exc_gp(v, 0);
	return 0;
}

static int do_io(struct vcpu *v, const struct insn *in, bool out)
{
	bool imm = in->ops[out ? 0 : 1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
	uint16_t port = imm ? (uint8_t)in->imm[0] : (uint16_t)v->st.gpr[RDX];
	unsigned size = (in->opcode & 1) ? (in->opsize == 2 ? 2 : 4) : 1;

	if (needs_full(v) || io_permitted(v, port, size))
		return -1;
	v->stats.pio_exits++;
	if (out)
		mem_pio_write(v->mem, port, (uint32_t)reg_get(v, RAX, size), size);
	else
		reg_set(v, RAX, size, mem_pio_read(v->mem, port, size));
	return 0;
}

/* ---- system calls ---- */

static void flat_segments(struct vcpu *v, uint16_t cs, uint16_t ss, unsigned level, bool c64)
{
	struct x86_state *s = &v->st;

	s->seg[SEG_CS] = (struct x86_seg){
		.sel = cs,
		.limit = 0xffffffffu,
		.attr = (uint16_t)(SEG_P | SEG_S | 0xb | level << 5 | SEG_G | (c64 ? SEG_L : SEG_DB)),
	};
	s->seg[SEG_SS] = (struct x86_seg){
		.sel = ss,
		.limit = 0xffffffffu,
		.attr = (uint16_t)(SEG_P | SEG_S | 3 | level << 5 | SEG_G | SEG_DB),
	};
}

int interp_syscall(struct vcpu *v)
{
	struct x86_state *s = &v->st;
	uint16_t cs = (uint16_t)(s->star >> 32) & 0xfffc;

	if (!(s->efer & EFER_SCE) || !is_protected(v) || (!is_code64(v) && v->model->vendor_intel))
		return exc_ud(v);
	if (s->efer & EFER_LMA) {
		bool c64 = is_code64(v);

		v->t2_cause = t2_syscall_cause(s);
		s->gpr[RCX] = s->rip;
		s->gpr[R11] = s->rflags & ~(uint64_t)FLAG_RF;
		s->rip = c64 ? s->lstar : s->cstar;
		s->rflags = (s->rflags & ~(s->sfmask | FLAG_RF)) | FLAG_R1;
		flat_segments(v, cs, (uint16_t)(cs + 8), 0, true);
	} else {
		s->gpr[RCX] = (uint32_t)s->rip;
		s->rip = (uint32_t)s->star;
		s->rflags &= ~(uint64_t)(FLAG_VM | FLAG_IF | FLAG_RF);
		flat_segments(v, cs, (uint16_t)(cs + 8), 0, false);
	}
	mode_changed(v);
	return 0;
}

int interp_sysret(struct vcpu *v, bool to64)
{
	struct x86_state *s = &v->st;
	uint16_t base = (uint16_t)(s->star >> 48);

	if (!(s->efer & EFER_SCE) || !is_protected(v) || (!is_code64(v) && v->model->vendor_intel))
		return exc_ud(v);
	if (cpl(v))
		return exc_gp(v, 0);
	if (to64 && !canonical(s->gpr[RCX]))
		return exc_gp(v, 0);
	if (s->efer & EFER_LMA)
		s->rflags = (s->gpr[R11] & (FLAGS_ARITH | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT |
					    FLAG_AC | FLAG_VIF | FLAG_VIP | FLAG_ID)) |
			    FLAG_R1;
	else
		s->rflags |= FLAG_IF;
	s->rip = to64 ? s->gpr[RCX] : (uint32_t)s->gpr[RCX];
	flat_segments(v, (uint16_t)((to64 ? base + 16 : base) | 3), (uint16_t)((base + 8) | 3), 3, to64);
	mode_changed(v);
	return 0;
}

static int do_sysenter(struct vcpu *v)
{
	struct x86_state *s = &v->st;
	bool lm = s->efer & EFER_LMA;

	if (lm && !v->model->vendor_intel)
		return exc_ud(v);
	if (!(s->cr0 & CR0_PE) || !(s->sysenter_cs & 0xfffc))
		return exc_gp(v, 0);
	s->rflags &= ~(uint64_t)(FLAG_VM | FLAG_IF | FLAG_RF);
	s->rip = lm ? s->sysenter_eip : (uint32_t)s->sysenter_eip;
	s->gpr[RSP] = lm ? s->sysenter_esp : (uint32_t)s->sysenter_esp;
	flat_segments(v, (uint16_t)(s->sysenter_cs & 0xfffc), (uint16_t)((s->sysenter_cs & 0xfffc) + 8), 0,
		      lm);
	mode_changed(v);
	return 0;
}

static int do_sysexit(struct vcpu *v, const struct insn *in)
{
	struct x86_state *s = &v->st;
	bool to64 = in->rex_w;
	uint16_t base = (uint16_t)s->sysenter_cs;

	if ((s->efer & EFER_LMA) && !v->model->vendor_intel)
		return exc_ud(v);
	if (!(s->cr0 & CR0_PE) || cpl(v) || !(s->sysenter_cs & 0xfffc))
		return exc_gp(v, 0);
	if (to64 && (!canonical(s->gpr[RCX]) || !canonical(s->gpr[RDX])))
		return exc_gp(v, 0);
	s->rip = to64 ? s->gpr[RDX] : (uint32_t)s->gpr[RDX];
	s->gpr[RSP] = to64 ? s->gpr[RCX] : (uint32_t)s->gpr[RCX];
	flat_segments(v, (uint16_t)((base + (to64 ? 32 : 16)) | 3), (uint16_t)((base + (to64 ? 40 : 24)) | 3),
		      3, to64);
	mode_changed(v);
	return 0;
}

/* ---- the rest ---- */

static int do_rdtsc(struct vcpu *v, bool p)
{
	uint64_t t;

	if ((v->st.cr4 & CR4_TSD) && cpl(v) && (v->st.cr0 & CR0_PE))
		return exc_gp(v, 0);
	t = guest_tsc(v);
	v->st.gpr[RAX] = (uint32_t)t;
	v->st.gpr[RDX] = t >> 32;
	if (p)
		v->st.gpr[RCX] = (uint32_t)v->st.tsc_aux;
	return 0;
}

/* By KVM's convention: number in RAX, arguments in RBX, RCX, RDX, RSI (Linux,
 * Documentation/virt/kvm/x86/hypercalls.rst). */
static int do_hypercall(struct vcpu *v)
{
	struct x86_state *s = &v->st;
	unsigned size = is_code64(v) ? 8 : 4;
	uint64_t arg[4] = { s->gpr[RBX], s->gpr[RCX], s->gpr[RDX], s->gpr[RSI] };

	if (cpl(v)) {
		s->gpr[RAX] = (uint64_t)-1; /* -KVM_EPERM */
	} else if (!v->board.hypercall) {
		s->gpr[RAX] = (uint64_t)-1000; /* -KVM_ENOSYS */
	} else {
		if (needs_full(v))
			return -1;
		for (int i = 0; i < 4; i++)
			arg[i] &= size_mask(size);
		s->gpr[RAX] = v->board.hypercall(v->board.opaque, reg_get(v, RAX, size), arg, 8 * size);
	}
	s->gpr[RAX] &= size_mask(size);
	return 0;
}

static void do_cpuid(struct vcpu *v)
{
	struct cpuid_context c = {
		.apic_id = v->apic_id, .cr4 = v->st.cr4, .xcr0 = v->st.xcr0, .apic_off = v->apic_off
	};
	struct cpuid_regs r = cpuid_query(v->model, &c, (uint32_t)v->st.gpr[RAX], (uint32_t)v->st.gpr[RCX]);

	v->st.gpr[RAX] = r.eax;
	v->st.gpr[RBX] = r.ebx;
	v->st.gpr[RCX] = r.ecx;
	v->st.gpr[RDX] = r.edx;
}

static int do_invpcid(struct vcpu *v, const struct insn *in)
{
	uint64_t d[2], type;

	if (cpl(v))
		return exc_gp(v, 0);
	if (vmem_read(v, in->seg, insn_ea(v, in), d, 16))
		return -1;
	type = reg_get(v, in->ops[0].reg, is_code64(v) ? 8 : 4);
	if (type > 3 || d[0] >> 12 || (type < 2 && !(v->st.cr4 & CR4_PCIDE) && (d[0] & 0xfff)))
		return exc_gp(v, 0);
	switch (type) {
	case 0:
		if (!canonical(d[1]))
			return exc_gp(v, 0);
		mmu_invlpg_pcid(v, d[0] & 0xfff, d[1]);
		break;
	case 1:
		mmu_flush_pcid(v, d[0] & 0xfff);
		break;
	default:
		mmu_flush_all(v);
		break;
	}
	return 0;
}

static int do_fsgsbase(struct vcpu *v, const struct insn *in, unsigned seg, bool write)
{
	unsigned size = in->opsize == 8 ? 8 : 4; /* 66 means nothing */

	if (!(v->st.cr4 & CR4_FSGSBASE) || !is_code64(v))
		return exc_ud(v);
	if (!write) {
		reg_set(v, in->ops[0].reg, size, v->st.seg[seg].base);
		return 0;
	}
	if (!canonical(reg_get(v, in->ops[0].reg, size)))
		return exc_gp(v, 0);
	v->st.seg[seg].base = reg_get(v, in->ops[0].reg, size);
	return 0;
}

/* Loops that wait for another processor say PAUSE. After so many the other may be waiting for this host
 * processor. */
#define PAUSES_PER_YIELD 64

static int do_pause(struct vcpu *v)
{
	uint64_t nr = SYS_sched_yield;

	__builtin_ia32_pause();
	if (v->vm->nr_vcpus > 1 && ++v->pauses % PAUSES_PER_YIELD == 0)
		__asm__ volatile("syscall" : "+a"(nr) : : "rcx", "r11", "memory");
	return 0;
}

static int do_cli_sti(struct vcpu *v, bool sti)
{
	struct x86_state *s = &v->st;

	if ((s->cr0 & CR0_PE) && cpl(v) > (s->rflags >> 12 & 3))
		return exc_gp(v, 0);
	if (sti) {
		if (!(s->rflags & FLAG_IF))
			s->shadow = X86_SHADOW_STI;
		s->rflags |= FLAG_IF;
	} else {
		s->rflags &= ~(uint64_t)FLAG_IF;
	}
	return 0;
}

static int load_selector(struct vcpu *v, const struct insn *in, bool task)
{
	uint16_t sel;

	if (!is_protected(v))
		return exc_ud(v);
	if (cpl(v))
		return exc_gp(v, 0);
	if (fetch_word(v, in, 0, &sel))
		return -1;
	return task ? load_tr(v, sel) : load_ldtr(v, sel);
}

int interp_system(struct vcpu *v, const struct insn *in)
{
	struct x86_state *s = &v->st;
	uint64_t lin;
	uint16_t w;

	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_MOV:
		if (in->ops[0].cls == ZYDIS_REGCLASS_CONTROL || in->ops[1].cls == ZYDIS_REGCLASS_CONTROL)
			return interp_mov_cr(v, in);
		if (in->ops[0].cls == ZYDIS_REGCLASS_DEBUG || in->ops[1].cls == ZYDIS_REGCLASS_DEBUG)
			return interp_mov_dr(v, in);
		return mov_seg(v, in);
	case ZYDIS_MNEMONIC_LDS:
		return load_far_pointer(v, in, SEG_DS);
	case ZYDIS_MNEMONIC_LES:
		return load_far_pointer(v, in, SEG_ES);
	case ZYDIS_MNEMONIC_LFS:
		return load_far_pointer(v, in, SEG_FS);
	case ZYDIS_MNEMONIC_LGS:
		return load_far_pointer(v, in, SEG_GS);
	case ZYDIS_MNEMONIC_LSS:
		return load_far_pointer(v, in, SEG_SS);
	case ZYDIS_MNEMONIC_IN:
		return do_io(v, in, false);
	case ZYDIS_MNEMONIC_OUT:
		return do_io(v, in, true);
	case ZYDIS_MNEMONIC_CLI:
		return do_cli_sti(v, false);
	case ZYDIS_MNEMONIC_STI:
		return do_cli_sti(v, true);
	case ZYDIS_MNEMONIC_CLD:
		s->rflags &= ~(uint64_t)FLAG_DF;
		return 0;
	case ZYDIS_MNEMONIC_STD:
		s->rflags |= FLAG_DF;
		return 0;
	case ZYDIS_MNEMONIC_CLAC:
	case ZYDIS_MNEMONIC_STAC:
		if (!(v->cr4_valid & CR4_SMAP) || cpl(v))
			return exc_ud(v);
		if (in->mnemonic == ZYDIS_MNEMONIC_STAC)
			s->rflags |= FLAG_AC;
		else
			s->rflags &= ~(uint64_t)FLAG_AC;
		mode_changed(v);
		return 0;
	case ZYDIS_MNEMONIC_PAUSE:
		return do_pause(v);
	case ZYDIS_MNEMONIC_HLT:
		if (privileged(v))
			return -1;
		s->halted = true;
		return 0;
	case ZYDIS_MNEMONIC_LGDT:
		return load_dtable(v, in, &s->gdtr);
	case ZYDIS_MNEMONIC_LIDT:
		return load_dtable(v, in, &s->idtr);
	case ZYDIS_MNEMONIC_SGDT:
		return store_dtable(v, in, &s->gdtr);
	case ZYDIS_MNEMONIC_SIDT:
		return store_dtable(v, in, &s->idtr);
	case ZYDIS_MNEMONIC_LLDT:
		return load_selector(v, in, false);
	case ZYDIS_MNEMONIC_LTR:
		return load_selector(v, in, true);
	case ZYDIS_MNEMONIC_SLDT:
		return is_protected(v) ? store_word(v, in, s->ldtr.sel) : exc_ud(v);
	case ZYDIS_MNEMONIC_STR:
		return is_protected(v) ? store_word(v, in, s->tr.sel) : exc_ud(v);
	case ZYDIS_MNEMONIC_SMSW:
		return store_word(v, in, s->cr0);
	case ZYDIS_MNEMONIC_LMSW:
		if (privileged(v) || fetch_word(v, in, 0, &w))
			return -1;
		return interp_lmsw(v, w);
	case ZYDIS_MNEMONIC_CLTS:
		if (privileged(v))
			return -1;
		s->cr0 &= ~(uint64_t)CR0_TS;
		return 0;
	case ZYDIS_MNEMONIC_INVLPG:
		if (privileged(v))
			return -1;
		lin = insn_ea(v, in) + (is_code64(v) && in->seg < SEG_FS ? 0 : s->seg[in->seg].base);
		if (!is_code64(v))
			lin = (uint32_t)lin;
		if (canonical(lin))
			mmu_invlpg(v, lin);
		return 0;
	case ZYDIS_MNEMONIC_INVPCID:
		return do_invpcid(v, in);
	case ZYDIS_MNEMONIC_WBINVD:
	case ZYDIS_MNEMONIC_INVD:
		return privileged(v);
	case ZYDIS_MNEMONIC_RDMSR:
		return interp_msr(v, false);
	case ZYDIS_MNEMONIC_WRMSR:
		return interp_msr(v, true);
	case ZYDIS_MNEMONIC_RDTSC:
		return do_rdtsc(v, false);
	case ZYDIS_MNEMONIC_RDTSCP:
		return do_rdtsc(v, true);
	case ZYDIS_MNEMONIC_RDPID:
		reg_set(v, in->ops[0].reg, is_code64(v) ? 8 : 4, s->tsc_aux);
		return 0;
	case ZYDIS_MNEMONIC_RDPMC:
		return exc_gp(v, 0);
	case ZYDIS_MNEMONIC_CPUID:
		do_cpuid(v);
		return 0;
	case ZYDIS_MNEMONIC_XGETBV:
		return interp_xgetbv(v);
	case ZYDIS_MNEMONIC_XSETBV:
		return interp_xsetbv(v);
	case ZYDIS_MNEMONIC_SWAPGS: {
		uint64_t t = s->kernel_gs_base;

		if (!is_code64(v))
			return exc_ud(v);
		if (cpl(v))
			return exc_gp(v, 0);
		s->kernel_gs_base = s->seg[SEG_GS].base;
		s->seg[SEG_GS].base = t;
		return 0;
	}
	case ZYDIS_MNEMONIC_RDFSBASE:
		return do_fsgsbase(v, in, SEG_FS, false);
	case ZYDIS_MNEMONIC_RDGSBASE:
		return do_fsgsbase(v, in, SEG_GS, false);
	case ZYDIS_MNEMONIC_WRFSBASE:
		return do_fsgsbase(v, in, SEG_FS, true);
	case ZYDIS_MNEMONIC_WRGSBASE:
		return do_fsgsbase(v, in, SEG_GS, true);
	case ZYDIS_MNEMONIC_SYSCALL:
		return interp_syscall(v);
	case ZYDIS_MNEMONIC_SYSRET:
		return interp_sysret(v, in->rex_w);
	case ZYDIS_MNEMONIC_SYSENTER:
		return do_sysenter(v);
	case ZYDIS_MNEMONIC_SYSEXIT:
		return do_sysexit(v, in);
	case ZYDIS_MNEMONIC_LAR:
	case ZYDIS_MNEMONIC_LSL:
	case ZYDIS_MNEMONIC_VERR:
	case ZYDIS_MNEMONIC_VERW:
		return inspect_selector(v, in);
	case ZYDIS_MNEMONIC_ARPL:
		return do_arpl(v, in);
	case ZYDIS_MNEMONIC_VMCALL:
	case ZYDIS_MNEMONIC_VMMCALL:
		return do_hypercall(v);
	default:
		return 1;
	}
}
