/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The translator: guest code, a block at a time, into host code.
 *
 * A block starts anywhere, runs in one page, goes on past conditional branches
 * (their taken side is an exit) and ends at an unconditional transfer, at an
 * instruction that the interpreter must do, at the page's end or at MAX_INSNS.
 *
 * Registers, as in t1_asm.S: RAX..R12 in place, guest RSP in R15, guest R13..R15
 * in memory, host R13 and R14 scratch, RSP = struct vcpu.
 *
 * Flags.  The guest's arithmetic flags live in host RFLAGS.  The TLB check
 * destroys those, so where they are needed later they are first saved to
 * t1_flags (LAHF, SETO) and fetched back (ADD, SAHF) before the next
 * instruction that reads them or changes only some.  Where each point of the
 * block has them is known while translating (`where`).  A block has two
 * entries, for predecessors that have them in RFLAGS and in memory.  Flags that
 * every path overwrites before anything reads them or can fault are not saved; to
 * know that, the code at branch targets in the same page is looked at, and those
 * bytes then belong to what the block depends on. So an exception's frame shows
 * the flags that the processor would; an interrupt's may show others of those that
 * are dead.
 *
 * Memory.  `check` puts the address into R13 and the TLB entry into R14 and
 * compares; the access then goes to [guest address + addend] where the operand
 * has a base register alone, else to [page + offset].  A miss goes to the
 * block's cold part, which calls t1_slow_mem and tries again.
 *
 * Position.  A user block may run at any virtual address that its page is
 * mapped at (shared libraries under ASLR), so it has no address of its own: the
 * page's address is in page_va, set by the way in through the jump cache, and
 * everything relative to RIP is computed from that.  Kernel code stays where it
 * is, and its addresses are constants.
 *
 * Precision.  An instruction commits nothing before its last check; so a fault
 * (found by the slow path, or raised by the processor in the copied
 * instruction) leaves the state of the instruction's start, and the interpreter
 * then executes it again to raise the exception.  The `map` of a block gives
 * the guest instruction for a host address.
 *
 * What is not translated ends the block with an exit to the interpreter.
 */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "engine/bt/bt.h"
#include "engine/bt/interp_internal.h"
#include "engine/bt/translate_internal.h"

/* ---- liveness ---- */

/* Instructions that are special but, translated, neither look at the flags nor change them. */
static bool ignores_flags(const struct insn *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_LEA:
	case ZYDIS_MNEMONIC_PUSH:
	case ZYDIS_MNEMONIC_POP:
	case ZYDIS_MNEMONIC_LEAVE:
	case ZYDIS_MNEMONIC_JMP:
	case ZYDIS_MNEMONIC_CALL:
	case ZYDIS_MNEMONIC_RET:
	case ZYDIS_MNEMONIC_CLD:
	case ZYDIS_MNEMONIC_STD:
	case ZYDIS_MNEMONIC_CLI:
	case ZYDIS_MNEMONIC_STI:
	case ZYDIS_MNEMONIC_CLAC:
	case ZYDIS_MNEMONIC_STAC:
	case ZYDIS_MNEMONIC_SWAPGS:
	case ZYDIS_MNEMONIC_RDTSC:
	case ZYDIS_MNEMONIC_RDFSBASE:
	case ZYDIS_MNEMONIC_RDGSBASE:
	case ZYDIS_MNEMONIC_MOV:
		return true;
	default:
		return in->imm_relative && in->flags_written == 0;
	}
}

/*
 * C code gets all flags: it may push them (INT3, PUSHF, SYSCALL) or leave them
 * as they were although the instruction is one that writes them (REP CMPS with
 * a count of zero).
 */
/*
 * An exception at the instruction pushes RFLAGS, so all flags must be right
 * before it: memory accesses, division, x87 and SIMD, and all that C does.
 */
static bool can_fault(const struct insn *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_LEA:
	case ZYDIS_MNEMONIC_CLD:
	case ZYDIS_MNEMONIC_STD:
		return false;
	default:
		break;
	}
	/* Near branches push nothing; where they lead is looked at on its own. */
	if (in->cls == INSN_NOP || (in->imm_relative && in->mnemonic != ZYDIS_MNEMONIC_CALL))
		return false;
	return in->has_mem || in->cls != INSN_NATIVE || in->unit != UNIT_INT ||
	       in->mnemonic == ZYDIS_MNEMONIC_DIV || in->mnemonic == ZYDIS_MNEMONIC_IDIV;
}

static uint32_t insn_reads(const struct insn *in)
{
	if (can_fault(in))
		return FLAGS_ARITH;
	if (in->cls == INSN_SPECIAL && !ignores_flags(in))
		return FLAGS_ARITH;
	return in->flags_read;
}

/*
 * Flags that the instruction overwrites whatever they were. What the manual
 * leaves undefined counts, except in lockstep: processors have habits there
 * (some keep the old value), and the interpreter shows them.
 */
uint32_t tr_insn_kills(const struct tr *t, const struct insn *in)
{
	return (in->flags_written | (t->v->lockstep ? 0 : in->flags_undefined)) &
	       ~(in->flags_read | in->flags_passed);
}

/* The instruction at an offset in the block's page. */
static int decode_at(const struct tr *t, unsigned off, struct insn *in)
{
	return decode_cached(t->v->cache->decoder, t->page + off, PAGE_SIZE - off, t->mode, t->real, in);
}

/* Does an instruction at this offset in the page lie where code changes too often? */
static bool stormy(const struct tr *t, unsigned off, unsigned len)
{
	unsigned last = off + len - 1;

	return cache_stormy(t->v, t->page + off) || (last < PAGE_SIZE && cache_stormy(t->v, t->page + last));
}

/* Which flags the code at va (same page) may read before writing them. Its bytes become a dependency. */
static uint32_t live_at(struct tr *t, uint64_t va)
{
	uint32_t live = 0, written = 0;
	struct insn in;

	/* Lockstep compares all flags at every exit. */
	if (((va ^ t->b->va) & PAGE_MASK) || t->v->lockstep)
		return FLAGS_ARITH;
	for (int k = 0; k < 6; k++) {
		unsigned off = va & 0xfff, last;

		if (((va ^ t->b->va) & PAGE_MASK) || decode_at(t, off, &in) != DECODE_OK ||
		    !tr_goes_on(t, va, in.len) || stormy(t, off, in.len))
			break;
		last = off + in.len - 1;
		for (unsigned g = off / GRANULE; g <= last / GRANULE && g < 64; g++)
			t->b->granules |= 1ull << g;
		live |= insn_reads(&in) & ~written;
		written |= tr_insn_kills(t, &in);
		if (written == FLAGS_ARITH)
			return live;
		if (in.cls == INSN_SPECIAL && in.mnemonic != ZYDIS_MNEMONIC_PUSH &&
		    in.mnemonic != ZYDIS_MNEMONIC_POP && in.mnemonic != ZYDIS_MNEMONIC_LEA)
			break;
		va += in.len;
	}
	return live | (FLAGS_ARITH & ~written);
}

/* ---- the block ---- */

static bool ends_block(const struct insn *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_JMP:
	case ZYDIS_MNEMONIC_CALL:
	case ZYDIS_MNEMONIC_RET:
		return true;
	default:
		/* What the translator certainly leaves to the interpreter. */
		return in->cls == INSN_UD;
	}
}

/* What t1_special can always refuse is better left to the interpreter at once. */
static bool special_in_c(const struct insn *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_IN:
	case ZYDIS_MNEMONIC_OUT:
	case ZYDIS_MNEMONIC_HLT:
		return false;
	default:
		return (in->unit == UNIT_INT && !in->mem_vsib) || interp_fpstate_is_live(in);
	}
}

/* An instruction that goes on in the next page. False if that cannot be fetched: the interpreter will raise
 * the fault. */
static bool decode_across(struct tr *t, uint64_t va, struct insn *in)
{
	unsigned n = PAGE_SIZE - (va & 0xfff), last;
	uint64_t next = t->seg ? (uint32_t)va + (uint64_t)n : tr_pc_mask(t, va + n), pa;
	uint8_t buf[16] = { 0 };
	void *host;
	bool dummy;

	if ((t->mode == 8 && !canonical(next)) || (t->seg && next > 0xffffffff) ||
	    mmu_host(t->v, next, ACC_X | mmu_acc(t->v), &host, &pa, &dummy)) {
		t->v->exc.present = false;
		return false;
	}
	if (!host)
		return false;
	if (cache_stormy(t->v, host))
		return false;
	if (cache_watch(t->v, host)) {
		t->waited = true;
		return false;
	}
	memcpy(buf, t->page + (va & 0xfff), n);
	memcpy(buf + n, host, 15 - n);
	if (decode_cached(t->v->cache->decoder, buf, 15, t->mode, t->real, in) != DECODE_OK)
		return false;
	t->b->page2 = host;
	last = in->len - n - 1;
	for (unsigned g = 0; g <= last / GRANULE; g++)
		t->b->granules2 |= 1ull << g;
	return true;
}

/* Decodes the block's instructions and computes which flags are needed before each. */
static void collect(struct tr *t)
{
	uint64_t va = t->b->va;
	unsigned max = t->v->vm->stress.one_insn ? 1 : MAX_INSNS;
	uint32_t live;

	while (t->n < max) {
		unsigned off = va & 0xfff;
		struct insn *in = &t->in[t->n];
		unsigned last;

		int r;

		if ((va ^ t->b->va) & PAGE_MASK)
			break;
		r = decode_at(t, off, in);
		/* One that goes on in the next page has a block of its own: INVLPG of that page finds those
		 * that begin right before it. */
		if (r == DECODE_MORE && t->n)
			break;
		if (r == DECODE_MORE && decode_across(t, va, in))
			r = DECODE_OK;
		if (r != DECODE_OK || !tr_goes_on(t, va, in->len) || stormy(t, off, in->len))
			break;
		last = off + in->len - 1;
		for (unsigned g = off / GRANULE; g <= last / GRANULE && g < 64; g++)
			t->b->granules |= 1ull << g;
		t->n++;
		va += in->len;
		if (ends_block(in) || t->b->page2)
			break;
	}
	if (!t->n)
		return;
	/* After the last instruction: where does it go? */
	live = FLAGS_ARITH;
	if (t->in[t->n - 1].mnemonic == ZYDIS_MNEMONIC_JMP && t->in[t->n - 1].imm_relative)
		live = live_at(t, tr_target(t, &t->in[t->n - 1], va));
	t->live[t->n] = live;
	for (unsigned i = t->n; i-- > 0;) {
		struct insn *in = &t->in[i];

		va -= in->len;
		/* STI may leave to the interpreter, which is shown all flags. */
		if (in->mnemonic == ZYDIS_MNEMONIC_STI)
			t->live[i + 1] = FLAGS_ARITH;
		live = t->live[i + 1];
		if (in->cls == INSN_SPECIAL && in->imm_relative && !ends_block(in))
			live |= live_at(t, tr_target(t, in, va + in->len));
		live &= ~tr_insn_kills(t, in);
		live |= insn_reads(in);
		if (t->v->lockstep)
			live = FLAGS_ARITH;
		/* Whatever leaves to the interpreter shows it all flags. */
		if (in->cls == INSN_UD)
			live = FLAGS_ARITH;
		t->live[i] = live;
	}
}

/* The way of exit x out of the block while it is not linked. */
static void emit_link(struct tr *t, const struct cold *x)
{
	tr_emit_pc(t, T0, x->rip);
	emit_mov_imm(&t->e, T1, (uint64_t)&t->b->exits[x->exit]);
	emit_jmp(&t->e, t->v->cache->stub_link);
}

/* Flags that were not saved: T1 is free. */
static void emit_redo(struct tr *t, const struct cold *x)
{
	if (!x->redo_flags)
		return;
	tr_redo_flags(t, &x->redo, T1);
	tr_save_flags(t, true);
}

static void emit_cold(struct tr *t)
{
	struct emit *e = &t->e;
	struct bt_cache *c = t->v->cache;

	for (unsigned k = 0; k < t->n_cold; k++) {
		struct cold *x = &t->cold[k];
		uint8_t *here;

		if (x->stack) {
			tr_rel32_here(t, x->patch);
			tr_stack_missed(t, x);
		}
		here = emit_here(e);
		if (x->patch)
			tr_rel32_here(t, x->patch);
		switch (x->kind) {
		case COLD_MISS:
			emit_op_mem(e, 8, OP_XOR_LOAD, T0, T1, x->tag);
			emit_redo(t, x);
			emit_mov_imm(e, T1, x->info);
			emit_call_mem(e, VCPU, OFF(slow_mem));
			emit_jmp(e, x->retry);
			/* t1_slow_thunk returns here if the access has a place that the TLB must not keep. */
			if (x->stack) {
				emit_load(e, T1, VCPU, OFF(direct.addend));
			} else {
				emit_load(e, T0, VCPU, OFF(direct_offset));
				emit_lea(e, 8, T1, VCPU, EMIT_NO_REG, 1, OFF(direct));
			}
			emit_jmp(e, x->after);
			break;
		case COLD_GROUP: {
			struct block_exit *out = &t->exits[x->exit];

			/*
			 * Once the way to the block without groups is linked, each miss takes it at once, or
			 * when the flags are where that expects them.
			 */
			out->patch = x->patch;
			out->cold = here;
			emit_op_mem(e, 8, OP_XOR_LOAD, T0, T1, x->tag);
			if (x->redo_flags) {
				emit_redo(t, x);
				emit1(e, 0xe9);
				out->patch = e->p;
				emit4(e, 0);
				out->cold = emit_here(e);
			}
			emit_mov_imm(e, T1, x->info);
			emit_call_mem(e, VCPU, OFF(slow_mem));
			emit_jmp(e, x->retry);
			/* Here if the group is to be left. */
			emit_link(t, x);
			break;
		}
		case COLD_EXIT:
			t->exits[x->exit].cold = here;
			if (x->save_flags)
				tr_save_flags(t, true);
			if (t->pic && !t->exits[x->exit].same_page) {
				/* Never linked: the pages need not stay neighbours. */
				tr_emit_pc(t, T0, x->rip);
				if (t->mode == 8)
					emit_store_imm(e, 4, VCPU, OFF(origin), 0);
				emit_jmp(e, c->stub_lookup);
				break;
			}
			emit_link(t, x);
			t->exits[x->exit].way = e->p - 4;
			break;
		case COLD_INTERP:
			emit_redo(t, x);
			if (x->save_flags)
				tr_save_flags(t, true);
			tr_emit_pc(t, T0, x->rip);
			emit_jmp(e, c->stub_interp);
			break;
		case COLD_SPECIAL:
			emit_redo(t, x);
			tr_special_here(t, x->exit);
			break;
		case COLD_REDO:
			x->at = (uint16_t)(here - t->b->code);
			emit_redo(t, x);
			emit_mov_imm(e, T1, (uint64_t)t1_exit);
			emit_jmp_reg(e, T1);
			break;
		}
	}
}

/* One instruction; false: the interpreter must do it. */
static bool translate_insn(struct tr *t, const struct insn *in)
{
	bool ok;

	if (in->cls == INSN_NOP)
		return true;
	if (!tr_in_reach(t, in) ||
	    (in->has_mem && !t->seg &&
	     (in->addrsize == 2 || (t->mode == 4 && in->seg == SEG_CS && in->mem_write) ||
	      (in->seg == SEG_FS && (t->flags & BLOCK_NO_FS)) ||
	      (in->seg == SEG_GS && (t->flags & BLOCK_NO_GS)))))
		ok = false;
	else if (tr_is_bit_string(in))
		ok = tr_bit_string(t, in);
	else if ((ok = tr_can_copy(t, in)))
		tr_copy_insn(t, in);
	else
		ok = in->cls == INSN_SPECIAL && tr_special(t, in);
	if (!ok && (in->cls == INSN_SPECIAL || (in->cls == INSN_NATIVE && interp_fpstate_is_live(in))) &&
	    !t->ended && special_in_c(in) && !t->v->lockstep) {
		tr_exit_special(t, in);
		ok = true;
	}
	return ok;
}

/* The block's hot part. False: its very first instruction must be interpreted, there is nothing to keep. */
static bool emit_hot(struct tr *t)
{
	struct block *b = t->b;

	for (; t->i < t->n && !t->ended; t->i++) {
		struct insn *in = &t->in[t->i];
		struct insn_map *m = &t->map[t->i];

		if (t->n_cold + (t->seg ? 10u : 6u) > MAX_COLD || t->n_exits + 2 > MAX_EXITS)
			break;
		m->in_host = false;
		m->redo = 0;
		m->string = false;
		tr_before_insn(t, in);
		if (!translate_insn(t, in)) {
			if (t->i)
				tr_exit_interp(t);
			break;
		}
		b->vector |= in->unit != UNIT_INT;
		tr_after_insn(t, in);
		tr_group_after(t, in);
		m->host_end = (uint16_t)((uint8_t *)emit_here(&t->e) - b->code);
		m->guest_off = (uint16_t)(t->va - b->va);
		t->va = tr_pc_mask(t, t->va + in->len);
	}
	if (!t->i)
		return false;
	b->guest_len = (uint16_t)(t->va - b->va);
	if (!t->ended && (t->in[t->i - 1].mnemonic == ZYDIS_MNEMONIC_STI || t->shadow == t->i))
		tr_exit_sti(t);
	else if (!t->ended)
		tr_exit_to(t, t->va);
	return true;
}

/*
 * Where should the flags be when the block begins? In memory if it will put them
 * there anyway, for an instruction that may fault or that C does, before it reads or
 * changes any.
 */
static bool begins_in_mem(const struct tr *t)
{
	for (unsigned i = 0; i < t->n; i++) {
		const struct insn *in = &t->in[i];

		if (in->cls == INSN_NOP || in->mnemonic == ZYDIS_MNEMONIC_LEA)
			continue;
		if (in->has_mem || (in->cls != INSN_NATIVE && !(in->imm_relative && in->flags_read)))
			return true;
		if (in->flags_read | in->flags_written | in->flags_undefined)
			return false;
	}
	return true;
}

/*
 * Two entries for two places where the flags may be, and the one of the jump cache;
 * they come together with the flags where the block wants them.
 */
static void emit_entries(struct tr *t)
{
	struct block *b = t->b;
	struct emit *e = &t->e;
	uint8_t *over = NULL;

	b->code = emit_here(e);
	b->wants_mem = t->n && t->live[0] && begins_in_mem(t);
	if (b->wants_mem) {
		b->entry_h = emit_here(e);
		tr_save_flags(t, true);
		if (t->pic)
			over = emit_short(e, 0xeb); /* jmp over */
	}
	b->entry_jc = emit_here(e);
	if (t->pic) {
		emit_mov(e, T1, T0);
		emit_bytes(e, "\x49\x81\xe6", 3); /* and r14, imm32 */
		emit4(e, 0xfffff000u);
		emit_store(e, T1, VCPU, OFF(page_va));
	}
	b->entry_m = emit_here(e);
	if (over)
		emit_short_here(e, over);
	t->where = IN_MEM;
	if (b->wants_mem)
		return;
	if (t->n && t->live[0])
		tr_load_flags(t, true);
	b->entry_h = emit_here(e);
	t->where = IN_HOST;
	if (tr_loop_keeps_carry(t)) {
		tr_put_carry(t);
		b->entry_loop = emit_here(e);
	}
}

/* Copies what belongs to the finished block to where it stays. */
static void keep_records(struct tr *t)
{
	struct bt_cache *c = t->v->cache;
	struct block *b = t->b;

	/* emit_cold has written the exits' addresses into the code: right behind the block. */
	cache_alloc(c, sizeof *b->exits * t->n_exits);
	memcpy(b->exits, t->exits, sizeof *b->exits * t->n_exits);
	for (unsigned i = 0; i < t->i; i++)
		if (t->map[i].redo)
			t->map[i].redo = t->cold[t->map[i].redo - 1].at;
	b->map = cache_alloc(c, sizeof *b->map * t->i);
	memcpy(b->map, t->map, sizeof *b->map * t->i);
	if (t->origin_patch) {
		struct origin *o = cache_alloc(c, sizeof *o);
		uint32_t off = (uint32_t)((uint8_t *)o - c->meta);

		*o = t->origin;
		memcpy(t->origin_patch, &off, 4);
	}
	for (unsigned i = 0; i < t->n_specials; i++) {
		struct special *sp = cache_alloc(c, sizeof *sp);

		*sp = t->specials[i].record;
		memcpy(t->specials[i].patch, &sp, 8);
	}
	b->n_insns = (uint16_t)t->i;
	b->n_exits = (uint16_t)t->n_exits;
	b->code_size = (uint32_t)((uint8_t *)emit_here(&t->e) - b->code);
	c->used = align_up((uint64_t)(t->e.p - c->rw), 16);
}

struct block *translate(struct vcpu *v, uint64_t va, uint64_t pa, const uint8_t *p, uint32_t flags)
{
	struct bt_cache *c = v->cache;
	struct tr *t = c->tr;
	uint32_t generation;
	size_t before, after;

	memset(t, 0, offsetof(struct tr, in));
	t->v = v;
	t->flags = flags;
	t->mode = (flags & BLOCK_32) ? 4 : 8;
	t->stack = t->mode;
	t->pic = block_is_pic(flags);
	if (flags & BLOCK_SEG) {
		t->seg = true;
		t->real = va >> 32 & PC_REAL;
		t->mode = va >> 32 & PC_CODE32 ? 4 : 2;
		t->stack = va >> 32 & PC_STACK32 ? 4 : 2;
		t->cs_base = pc_base(va);
		if (t->real) /* AVX is #UD there (SDM 2A 2.4) */
			t->flags &= ~(uint32_t)(BLOCK_AVX | BLOCK_AVX512);
	}
	t->page = p - (va & 0xfff);
	t->va = va;
	/* In this order: making room may forget all pages that are watched. */
	cache_make_room(v);
	/* While it waits, what is posted to it may take the watch away. */
	while (cache_watch(v, t->page))
		;
	before = c->meta_used;
	t->b = cache_alloc(c, sizeof *t->b);
	after = c->meta_used;
	t->b->pa = pa;
	t->b->va = va;
	t->b->flags = flags;
	t->b->exits = (struct block_exit *)(c->meta + c->meta_used);
	generation = c->generation;
	collect(t);
	c->again = t->waited;
	if (t->waited) {
		/* What was decoded before the wait may be stale, b's place another's. */
		if (generation == c->generation && c->meta_used == after)
			c->meta_used = before;
		return NULL;
	}
	t->e = (struct emit){ .p = c->rw + c->used, .end = c->rw + c->size, .exec_delta = c->rx - c->rw };
	emit_entries(t);
	if (!emit_hot(t)) {
		if (t->n)
			cache_add(v, t->b, (void *)t->page);
		else
			c->meta_used = before;
		return NULL;
	}
	emit_cold(t);
	keep_records(t);
	cache_add(v, t->b, (void *)t->page);
	return t->b;
}

struct tr *translate_new(void)
{
	return malloc(sizeof(struct tr));
}

/* Stores a known exit reason and leaves. */
static void emit_leave(struct emit *e, enum t1_exit why)
{
	emit_store_imm(e, 8, VCPU, OFF(exit_reason), why);
	emit_mov_imm(e, T1, (uint64_t)t1_exit);
	emit_jmp_reg(e, T1);
}

void translate_stubs(struct vcpu *v)
{
	struct bt_cache *c = v->cache;
	struct emit e = { .p = c->rw + c->used, .exec_delta = c->rx - c->rw };
	uint8_t *second, *miss;

	/* Jump to guest address T0, flags in memory. Restartable while T0 stands. */
	c->stub_lookup = emit_here(&e);
	emit_op_reg(&e, 4, OP_MOV_STORE, T0, T1);
	emit_bytes(&e, "\x41\xc1\xee", 3); /* shr r14d, imm8 */
	emit1(&e, JC_SHIFT);
	emit_op_reg(&e, 4, 0x31, T0, T1);  /* xor r14d, r13d */
	emit_bytes(&e, "\x41\x81\xe6", 3); /* and r14d, imm32 */
	emit4(&e, JC_SIZE - 1);
	emit_bytes(&e, "\x41\xc1\xe6\x04", 4); /* shl r14d, 4 */
	emit_op_mem(&e, 8, OP_ADD_LOAD, T1, VCPU, OFF(jc_base));
	emit_op_mem(&e, 8, OP_CMP_LOAD, T0, T1, offsetof(struct jc_entry, va));
	second = emit_short(&e, 0x75); /* jne second place */
	emit_jmp_mem(&e, T1, offsetof(struct jc_entry, code));
	emit_short_here(&e, second);
	emit_bytes(&e, "\x49\x83\xf6\x10", 4); /* xor r14, 16 */
	emit_op_mem(&e, 8, OP_CMP_LOAD, T0, T1, offsetof(struct jc_entry, va));
	miss = emit_short(&e, 0x75); /* jne miss */
	emit_jmp_mem(&e, T1, offsetof(struct jc_entry, code));
	c->stub_lookup_end = emit_here(&e);
	emit_short_here(&e, miss);
	/* Jump to guest address T0, slowly. */
	c->stub_find = emit_here(&e);
	emit_bytes(&e, "\x45\x31\xf6", 3); /* xor r14d, r14d */

	/* T0: guest address; T1: the exit. */
	c->stub_link = emit_here(&e);
	emit_jmp_mem(&e, VCPU, OFF(find_thunk));

	c->stub_interp = emit_here(&e);
	emit_store(&e, T0, VCPU, OFF(st.rip));
	emit_leave(&e, T1_EXIT_INTERP);

	c->stub_sti = emit_here(&e);
	emit_store(&e, T0, VCPU, OFF(st.rip));
	emit_leave(&e, T1_EXIT_STI);

	c->used = align_up((uint64_t)(e.p - c->rw), 64);
}
