/* SPDX-License-Identifier: Apache-2.0 */
/*
 * C that translated code calls while guest vector registers are live:
 * general-regs-only.
 *
 * Special instructions and page faults are done here, with the interpreter's
 * own semantic functions, on the guest's general registers as the assembly has
 * stored them in st; what these cannot do without ordinary C (needs_full) goes
 * out to the interpreter.
 */
#include "base/util.h"
#include "engine/bt/cache.h"
#include "engine/bt/interp_internal.h"
#include "engine/bt/t1_internal.h"
#include "engine/bt/t2.h"

void t1_sync_in(struct vcpu *v)
{
	uint64_t f = v->st.rflags;

	v->t1_flags = (f & 0xff) << 8 | (f >> 11 & 1);
	v->iflag = f >> 9 & 1;
	v->dflag = f >> 10 & 1;
	v->acflag = f >> 18 & 1;
	v->sysflags = f & ~(uint64_t)(FLAGS_ARITH | FLAG_IF | FLAG_DF | FLAG_AC | FLAG_RF | FLAG_VM);
}

void t1_sync_out(struct vcpu *v)
{
	uint64_t f = v->st.rflags & ~(uint64_t)(FLAGS_ARITH | FLAG_IF | FLAG_DF | FLAG_AC);

	f |= (v->t1_flags >> 8 & (FLAGS_ARITH & 0xff)) | (v->t1_flags & 1) << 11;
	f |= (uint64_t)v->iflag << 9 | (uint64_t)v->dflag << 10 | (uint64_t)v->acflag << 18 | FLAG_R1;
	v->st.rflags = f;
	/* No instruction pointer of segmented code has an upper half, all its places have. */
	if ((v->cur_flags & BLOCK_SEG) && v->st.rip >> 32)
		v->st.rip = pc_rip(v->cur_flags, v->st.rip);
}

/* Flat: base 0, limit 4 GiB, present, of the right kind. */
static bool flat(const struct x86_seg *s, bool write)
{
	if (!(s->attr & SEG_P) || s->base || s->limit != 0xffffffffu)
		return false;
	return !write || ((s->attr & 0xa) == 2 && !(s->attr & 4));
}

/* A writable data segment of 4 GiB, wherever it begins. */
static bool flat_but_base(const struct x86_seg *s)
{
	return (s->attr & SEG_P) && s->limit == 0xffffffffu && (s->attr & 0xa) == 2 && !(s->attr & 4);
}

/* Those of segments in 32-bit code; false: not flat. */
static bool segment_flags(const struct x86_state *s, uint32_t *f)
{
	if (!(s->seg[SEG_CS].attr & SEG_DB) || !(s->seg[SEG_SS].attr & SEG_DB))
		return false;
	if (!flat(&s->seg[SEG_CS], false) || !flat(&s->seg[SEG_SS], true) || !flat(&s->seg[SEG_DS], true) ||
	    !flat(&s->seg[SEG_ES], true))
		return false;
	/* FS and GS may have a base, but no limit to check; unused ones may be null. */
	/* What FS and GS are not fit for, their users find out in the interpreter. */
	if (!flat_but_base(&s->seg[SEG_FS]))
		*f |= BLOCK_NO_FS;
	if (!flat_but_base(&s->seg[SEG_GS]))
		*f |= BLOCK_NO_GS;
	*f |= BLOCK_32;
	return true;
}

/* Bytes of the segment that can be read, or written, from its beginning on (SDM 3A 5.3, 5.5); 0: not so
 * easily. */
static uint64_t segment_end(const struct x86_state *s, unsigned i, bool write)
{
	const struct x86_seg *x = &s->seg[i];

	if ((x->attr & 0xc) == 4) /* expand-down */
		return 0;
	if (x86_protected(s)) {
		if (!(x->attr & SEG_P))
			return 0;
		if (write ? (x->attr & 8) || !(x->attr & 2) : (x->attr & 0xa) == 8)
			return 0;
	}
	return (uint64_t)x->limit + 1;
}

void t1_segments(struct vcpu *v)
{
	for (unsigned i = 0; i < SEG_COUNT; i++)
		for (int write = 0; write < 2; write++)
			v->seg_end[write][i] = segment_end(&v->st, i, write);
}

/* Segmented code that is translated (translate_seg.c). */
static bool segmented(const struct x86_state *s)
{
	const struct x86_seg *cs = &s->seg[SEG_CS];

	if (x86_long_mode(s) || (cs->base & 15))
		return false;
	if (cs->attr & SEG_DB ? !x86_protected(s) || cs->limit != 0xffffffffu
			      : cs->limit < 0xffff || s->rip > 0xffff)
		return false;
	/* Code that uses others than such segments would come out at each access. */
	return segment_end(s, SEG_SS, true) && (s->seg[SEG_DS].attr & 0xc) != 4 &&
	       (s->seg[SEG_ES].attr & 0xc) != 4;
}

/* Those of control registers. */
static uint32_t control_flags(const struct x86_state *s, bool user)
{
	uint32_t f = user ? BLOCK_USER : 0;

	if (!(s->cr0 & (CR0_EM | CR0_TS)) && !s->ferr)
		f |= BLOCK_X87;
	if ((f & BLOCK_X87) && (s->cr4 & CR4_OSFXSR)) {
		f |= BLOCK_SSE;
		if ((s->cr4 & CR4_OSXSAVE) && (s->xcr0 & 6) == 6)
			f |= BLOCK_AVX;
		if ((s->cr4 & CR4_OSXSAVE) && (s->xcr0 & 0xe6) == 0xe6)
			f |= BLOCK_AVX512;
	}
	if (s->cr4 & CR4_SMAP)
		f |= BLOCK_SMAP;
	if (!user || !(s->cr4 & CR4_TSD))
		f |= BLOCK_TSC;
	if (s->cr4 & CR4_FSGSBASE)
		f |= BLOCK_FSGS;
	if (s->efer & EFER_LMA)
		f |= BLOCK_LONG;
	if (s->cr0 & CR0_PG)
		f |= BLOCK_PAGING;
	return f;
}

/* Can translated code run here, and under which mode flags? */
bool t1_mode_flags(struct vcpu *v, uint32_t *ret)
{
	struct x86_state *s = &v->st;
	struct control_cache *c = &v->control;
	bool user = x86_cpl(s) == 3;
	uint32_t segments = 0;

	if ((s->rflags & FLAG_TF) || v->dr_watch || s->shadow)
		return false;
	if ((s->rflags & FLAG_AC) && user && (s->cr0 & CR0_AM))
		return false;
	if (!x86_code64(s) && (!x86_protected(s) || !segment_flags(s, &segments))) {
		if (!segmented(s))
			return false;
		segments = BLOCK_SEG;
	}
	if (x86_cpl(s) == 1 || x86_cpl(s) == 2)
		return false;
	if (c->cr0 != s->cr0 || c->cr4 != s->cr4 || c->efer != s->efer || c->xcr0 != s->xcr0 ||
	    c->ferr != s->ferr)
		*c = (struct control_cache){ .cr0 = s->cr0,
					     .cr4 = s->cr4,
					     .efer = s->efer,
					     .xcr0 = s->xcr0,
					     .ferr = s->ferr,
					     .flags = { control_flags(s, false), control_flags(s, true) } };
	*ret = c->flags[user] | segments;
	return true;
}

/* Sends one access to host memory that no TLB entry stands for. */
static uint64_t go_direct(struct vcpu *v, uint64_t va, uint8_t *host)
{
	v->direct_offset = va & 0xfff;
	v->direct.addend = (uint64_t)host - va;
	v->direct.page = (uint64_t)host - v->direct_offset;
	v->direct_skip = DIRECT_SKIP;
	return 0;
}

/*
 * An access across a page's end.  Where the pages are neighbours in the host too,
 * it can be done as it is, unless it is atomic (hosts may forbid that).  Else a
 * read gets a copy, which is no less atomic than the real thing; a write is the
 * interpreter's, as is whatever faults.
 */
static uint64_t slow_crossing(struct vcpu *v, uint64_t va, unsigned size, unsigned acc, uint32_t info)
{
	unsigned first = PAGE_SIZE - (va & 0xfff);
	bool code, code2;
	void *host, *host2;
	uint64_t pa;

	if (!canonical(va + size) || (info & MISS_LOCKED) ||
	    ((v->cur_flags & (BLOCK_32 | BLOCK_SEG)) && va + size > 1ull << 32))
		return 1;
	if (mmu_host(v, va, acc, &host, &pa, &code) || mmu_host(v, va + first, acc, &host2, &pa, &code2)) {
		v->exc.present = false;
		return 1;
	}
	if (!host || !host2 || code || code2)
		return 1;
	if ((uint8_t *)host + first == (uint8_t *)host2)
		return go_direct(v, va, host);
	if (acc & ACC_W)
		return 1;
	/* The copy lies like the original within a cache line, for instructions that want alignment. */
	uint8_t *copy = v->crossing + (va & 63);

	for (unsigned i = 0; i < size; i++)
		copy[i] = i < first ? ((uint8_t *)host)[i] : ((uint8_t *)host2)[i - first];
	return go_direct(v, va, copy);
}

/* The range of a group (translate_group.c): a miss does what its first member would. */
static uint64_t slow_group(struct vcpu *v, uint64_t va, unsigned size, unsigned acc, bool any_writes)
{
	const struct tlb_entry *e = (struct tlb_entry *)v->tlb_base + (va >> 12) % TLB_SIZE;
	bool code;
	void *host;
	uint64_t pa;

	v->direct_skip = DIRECT_SKIP;
	if (!canonical(va) || v->dr_watch || (va & 0xfff) + size > PAGE_SIZE)
		return 0;
	if (mmu_host(v, va, acc, &host, &pa, &code)) {
		v->exc.present = false;
		return 0;
	}
	if ((any_writes ? e->tag_w : e->tag_r) == (va & PAGE_MASK))
		v->direct_skip = 0;
	return 0;
}

uint64_t t1_slow_mem(struct vcpu *v, uint64_t va, uint32_t info)
{
	unsigned size = info & 0xff, acc = mmu_acc(v) | ((info & MISS_WRITE) ? ACC_W : ACC_R);
	uint32_t value;
	uint64_t pa;
	void *host;
	bool code;

	/* Non-canonical addresses, devices and faults are for t1_fault and the interpreter. */
	v->fault_info = 0;
	v->direct_skip = 0;
	v->st.rflags = (v->st.rflags & ~(uint64_t)FLAG_AC) | (v->acflag ? FLAG_AC : 0);
	if (info & MISS_GROUP)
		return slow_group(v, va, size * 16, acc, info & MISS_GROUP_ANY);
	if (!size || !canonical(va) || v->dr_watch || (info & MISS_MASKED))
		return 1;
	if ((va & 0xfff) + size > PAGE_SIZE)
		return slow_crossing(v, va, size, acc, info);
	if (mmu_host(v, va, acc, &host, &pa, &code)) {
		v->fault_info = !(info & MISS_STATE);
		return 1;
	}
	if (host && code && cache_may_write(v, host, size))
		return go_direct(v, va, host);
	/* Lockstep's reference stops before devices. */
	if (!host && size == 4 && !(info & (MISS_WRITE | MISS_LOCKED)) && !v->lockstep && v->board.peek &&
	    v->board.peek(v->board.opaque, pa, &value)) {
		uint32_t *copy = (uint32_t *)(void *)(v->crossing + (va & 60));

		*copy = value;
		v->stats.mmio_exits++;
		return go_direct(v, va, (uint8_t *)copy);
	}
	return !host || code;
}

/* Is there something for the run loop before translated code goes on under these mode flags? */
static bool must_leave(const struct vcpu *v, uint32_t flags)
{
	const struct x86_state *s = &v->st;

	return (v->irq_request && (s->rflags & FLAG_IF)) || (s->nmi_pending && !s->nmi_blocked) ||
	       flags != v->jc_flags[block_class(flags)] || v->links_gen != v->global_gen || v->alone ||
	       ((flags & BLOCK_USER) && t2_wants_at(v, pc_of(v, flags)));
}

/* By the jump cache, or else as t1_find. */
static void *code_at(struct vcpu *v, uint64_t pc)
{
	const struct jc_entry *j = (struct jc_entry *)v->jc_base + jc_index(pc);

	return j->va == pc ? j->code : t1_find(v, pc, NULL);
}

/* Where to go on at st.rip: code, or NULL with the exit's reason. real: the instruction was one of real or
 * virtual-8086 mode; if it still is that, no segment has got another limit or type. */
static void *resume(struct vcpu *v, bool real)
{
	struct x86_state *s = &v->st;
	uint32_t flags;

	v->exit_reason = T1_EXIT_DISPATCH;
	if (s->halted || s->shutdown || s->shadow || v->exc.dr6)
		return NULL;
	if (!v->dr_watch)
		s->rflags &= ~(uint64_t)FLAG_RF;
	if (!t1_mode_flags(v, &flags) || must_leave(v, flags))
		return NULL;
	v->cur_flags = flags;
	t1_sync_in(v);
	if ((flags & BLOCK_SEG) && (!real || x86_protected(s)))
		t1_segments(v);
	return code_at(v, pc_of(v, flags));
}

/* By the function whose instruction it is, which is known after the first time. */
static int execute(struct vcpu *v, struct special *sp)
{
	static int (*const groups[])(struct vcpu *, const struct insn *) = { interp_control, interp_string,
									     interp_system,
									     interp_fpstate_live };
	int r = 1;

	for (; sp->group < ARRAY_SIZE(groups); sp->group++) {
		r = groups[sp->group](v, &sp->in);
		if (r != 1)
			return r;
	}
	sp->group = 0;
	return r;
}

/* One of its addresses, as RIP. */
static uint64_t place(const struct vcpu *v, const struct special *sp, uint64_t at)
{
	return (at + (sp->pic ? v->page_va : 0)) & sp->mask;
}

void *t1_special(struct vcpu *v, struct special *sp)
{
	struct x86_state *s = &v->st;
	const struct insn *in = &sp->in;
	bool real = !x86_protected(s);
	int r;

	t1_sync_out(v);
	v->insn_rip = place(v, sp, sp->rip);
	s->rip = place(v, sp, sp->next);
	v->exc.present = false;
	v->exc.dr6 = 0;
	v->exc.soft = false;
	v->switched = false;
	v->in_gpr = true;
	/* A SYSRET that sets TF traps by it at once, which interp_step knows. */
	v->bail = in->mnemonic == ZYDIS_MNEMONIC_SYSRET && (s->gpr[R11] & FLAG_TF);
	r = v->bail ? -1 : execute(v, sp);
	if (r) {
		if (!v->switched)
			s->rip = v->insn_rip;
		if (r < 0 && !v->bail)
			event_exception(v);
		if (r > 0 || v->bail) {
			s->rip = v->insn_rip;
			v->in_gpr = v->bail = false;
			v->exit_reason = T1_EXIT_INTERP;
			return NULL;
		}
	}
	v->in_gpr = false;
	return resume(v, real);
}

/* Behind a change between user and supervisor in 64-bit code whose rflags and rip are whole in st: in which
 * translated code goes on. */
static void *go_on(struct vcpu *v, bool user)
{
	uint32_t flags = v->control.flags[user];
	void *code = NULL;

	v->exit_reason = T1_EXIT_DISPATCH;
	t1_sync_in(v);
	v->cur_flags = flags;
	if (!must_leave(v, flags))
		code = code_at(v, v->st.rip);
	return code ? code : (void *)t1_exit;
}

void *t1_syscall(struct vcpu *v, struct special *sp)
{
	t1_sync_out(v);
	v->st.rip = place(v, sp, sp->next);
	return interp_syscall(v) ? NULL : go_on(v, false);
}

void *t1_sysret(struct vcpu *v, struct special *sp)
{
	(void)sp;
	if (v->st.gpr[R11] & (FLAG_TF | FLAG_AC))
		return NULL;
	t1_sync_out(v);
	return interp_sysret(v, true) ? NULL : go_on(v, true);
}

void *t1_fault(struct vcpu *v, uint64_t host_pc, uint64_t guest_off)
{
	struct block *b = cache_find_host(v->cache, host_pc);

	t1_sync_out(v);
	v->st.rip = cache_rip(v, b, guest_off);
	v->exit_reason = T1_EXIT_INTERP;
	if (!v->fault_info || v->lockstep)
		return NULL;
	/* v->exc still holds the #PF that the slow path found. */
	v->in_gpr = true;
	v->bail = false;
	v->exc.dr6 = 0;
	event_exception(v);
	v->in_gpr = false;
	if (v->bail) {
		v->bail = false;
		v->st.rip = cache_rip(v, b, guest_off);
		return NULL;
	}
	return resume(v, false);
}
