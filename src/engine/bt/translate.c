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
 * every path overwrites before reading are not saved; to know that, the code at
 * branch targets in the same page is looked at, and those bytes then belong to
 * what the block depends on.
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
#include "engine/bt/cache.h"
#include "engine/bt/mmu.h"
#include "engine/bt/reencode.h"
#include "engine/bt/t1_internal.h"

#define MAX_INSNS 48
#define MAX_COLD  192
#define MAX_EXITS 64

#define T0   R13 /* host scratch */
#define T1   R14
#define GSP  R15 /* guest RSP */
#define VCPU RSP

#define OFF(field) ((int32_t)offsetof(struct vcpu, field))
#define OFF_GPR(r) (OFF(st.gpr) + 8 * (int32_t)(r))
#define OFF_SEG(s)                                                                                           \
	((int32_t)(offsetof(struct vcpu, st.seg) + (s) * sizeof(struct x86_seg) +                            \
		   offsetof(struct x86_seg, base)))

enum where { IN_HOST = 1, IN_MEM = 2 };

enum cold_kind { COLD_MISS, COLD_EXIT, COLD_INTERP };

struct cold {
	enum cold_kind kind;
	uint8_t *patch;  /* rel32 in the hot part */
	uint8_t *retry;  /* COLD_MISS: executable address to try again */
	uint32_t info;   /* COLD_MISS: for t1_slow_mem */
	int32_t tag;     /* COLD_MISS: offset of the tag in the entry, to undo the XOR */
	uint64_t rip;    /* COLD_EXIT, COLD_INTERP */
	unsigned exit;   /* COLD_EXIT: index */
	bool save_flags; /* COLD_INTERP, COLD_EXIT: flags are in RFLAGS only */
};

struct tr {
	struct vcpu *v;
	struct emit e;
	struct block *b;
	const uint8_t *page; /* host address of the page */
	uint64_t va;         /* of the current instruction */
	unsigned mode;       /* 8 or 4 */
	bool pic;            /* position-independent: see the essay */
	unsigned where;      /* enum where bits: where valid flags are */
	uint32_t flags;      /* BLOCK_* */
	struct insn in[MAX_INSNS];
	uint32_t live[MAX_INSNS + 1]; /* flags needed before instruction i */
	unsigned n, i;
	struct cold cold[MAX_COLD];
	unsigned n_cold;
	struct block_exit exits[MAX_EXITS];
	uint64_t exit_rip[MAX_EXITS];
	unsigned n_exits;
	struct insn_map map[MAX_INSNS];
	struct special special;
	uint8_t *special_patch; /* where its address goes; NULL: none */
	bool ended;
};

/* A code address into a host register; flags survive. */
static void emit_pc(struct tr *t, unsigned reg, uint64_t va)
{
	if (!t->pic) {
		emit_mov_imm(&t->e, reg, va);
		return;
	}
	emit_load(&t->e, reg, VCPU, OFF(page_va));
	emit_lea(&t->e, t->mode, reg, reg, EMIT_NO_REG, 1, (int32_t)(va - (t->b->va & PAGE_MASK)));
}

/* ---- flags ---- */

static void save_flags(struct tr *t)
{
	struct emit *e = &t->e;

	emit_store(e, RAX, VCPU, OFF(scratch[0]));
	emit1(e, 0x9f);                   /* lahf */
	emit_bytes(e, "\x0f\x90\xc0", 3); /* seto al */
	emit1(e, 0x66);
	emit_op_mem(e, 4, OP_MOV_STORE, RAX, VCPU, OFF(t1_flags));
	emit_load(e, RAX, VCPU, OFF(scratch[0]));
}

static void load_flags(struct tr *t)
{
	struct emit *e = &t->e;

	emit_store(e, RAX, VCPU, OFF(scratch[0]));
	emit1(e, 0x0f); /* movzx eax, word */
	emit1(e, 0xb7);
	emit_mem(e, RAX, VCPU, EMIT_NO_REG, 1, OFF(t1_flags));
	emit_bytes(e, "\x04\x7f\x9e", 3); /* add al, 7f; sahf */
	emit_load(e, RAX, VCPU, OFF(scratch[0]));
}

/* Before host flags are destroyed while `needed` of them are wanted later. */
static void spare_flags(struct tr *t, uint32_t needed)
{
	if (needed && !(t->where & IN_MEM)) {
		save_flags(t);
		t->where |= IN_MEM;
	}
	t->where &= ~(unsigned)IN_HOST;
}

/* Before an instruction that needs the flags in RFLAGS. */
static void want_flags(struct tr *t)
{
	if (!(t->where & IN_HOST)) {
		load_flags(t);
		t->where |= IN_HOST;
	}
}

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
static uint32_t insn_reads(const struct insn *in)
{
	if (in->cls == INSN_SPECIAL && !ignores_flags(in))
		return FLAGS_ARITH;
	return in->flags_read;
}

/*
 * Flags that the instruction overwrites whatever they were. What the manual
 * leaves undefined counts, except in lockstep: processors have habits there
 * (some keep the old value), and the interpreter shows them.
 */
static uint32_t insn_kills(const struct tr *t, const struct insn *in)
{
	return (in->flags_written | (t->v->lockstep ? 0 : in->flags_undefined)) & ~in->flags_read;
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

		if (((va ^ t->b->va) & PAGE_MASK) ||
		    insn_decode(t->page + off, PAGE_SIZE - off, t->mode, false, &in) != DECODE_OK)
			break;
		last = off + in.len - 1;
		for (unsigned g = off / 128; g <= last / 128; g++)
			t->b->granules |= 1u << g;
		live |= insn_reads(&in) & ~written;
		written |= insn_kills(t, &in);
		if (written == FLAGS_ARITH)
			return live;
		if (in.cls == INSN_SPECIAL && in.mnemonic != ZYDIS_MNEMONIC_PUSH &&
		    in.mnemonic != ZYDIS_MNEMONIC_POP && in.mnemonic != ZYDIS_MNEMONIC_LEA)
			break;
		va += in.len;
	}
	return live | (FLAGS_ARITH & ~written);
}

/* ---- exits ---- */

static struct cold *add_cold(struct tr *t, enum cold_kind kind)
{
	struct cold *c = &t->cold[t->n_cold++];

	memset(c, 0, sizeof *c);
	c->kind = kind;
	return c;
}

static uint8_t *emit_rel32(struct tr *t)
{
	uint8_t *p = t->e.p;

	emit4(&t->e, 0);
	return p;
}

/* A jump (opcode already emitted) to va: an exit that can be linked where va lies in the same page. */
static void exit_jump(struct tr *t, uint64_t va)
{
	struct cold *c = add_cold(t, COLD_EXIT);
	struct block_exit *x = &t->exits[t->n_exits];

	x->patch = c->patch = emit_rel32(t);
	x->target = va;
	x->flags_in_mem = !(t->where & IN_HOST);
	x->same_page = ((va ^ t->b->va) & PAGE_MASK) == 0;
	c->rip = va;
	c->exit = t->n_exits++;
	c->save_flags = !(t->where & IN_MEM);
}

/* Unconditional exit to a known address. */
static void exit_to(struct tr *t, uint64_t va)
{
	emit1(&t->e, 0xe9);
	exit_jump(t, va);
	t->ended = true;
}

/* Exit to the address in T0; the flags are brought to memory. */
static void exit_indirect(struct tr *t)
{
	spare_flags(t, FLAGS_ARITH);
	emit_jmp(&t->e, t->v->cache->stub_lookup);
	t->ended = true;
}

static uint64_t pc_mask(const struct tr *t, uint64_t pc)
{
	return t->mode == 8 ? pc : (uint32_t)pc;
}

/* Ends the block with the current instruction, which C does (t1_special). */
static void exit_special(struct tr *t, const struct insn *in)
{
	struct special *sp = &t->special;

	sp->in = *in;
	sp->pic = t->pic;
	sp->rip = t->pic ? t->va & 0xfff : t->va;
	sp->next = t->pic ? sp->rip + in->len : pc_mask(t, t->va + in->len);
	sp->mask = t->mode == 8 ? ~0ull : 0xffffffffu;
	spare_flags(t, FLAGS_ARITH);
	emit1(&t->e, 0x49); /* mov r13, imm64: filled in when the record has its place */
	emit1(&t->e, 0xbd);
	t->special_patch = t->e.p;
	emit8(&t->e, 0);
	emit_jmp_mem(&t->e, VCPU, OFF(special_thunk));
	t->ended = true;
}

/* Ends the block before the current instruction, which the interpreter does. */
static void exit_interp(struct tr *t)
{
	struct cold *c = add_cold(t, COLD_INTERP);

	emit1(&t->e, 0xe9);
	c->patch = emit_rel32(t);
	c->rip = t->va;
	c->save_flags = !(t->where & IN_MEM);
	t->ended = true;
}

/* ---- registers ---- */

/* Host register that holds guest register r, or EMIT_NO_REG for R13..R15. */
static unsigned host_reg(unsigned r)
{
	return r == RSP ? GSP : r >= R13 ? EMIT_NO_REG : r;
}

/* ---- memory ---- */

/* A memory operand in terms of the guest. */
struct ea {
	unsigned base, index; /* guest registers or EMIT_NO_REG */
	unsigned scale;
	int64_t disp;
	unsigned seg; /* SEG_FS, SEG_GS, or SEG_DS for none */
	unsigned addrsize;
	bool absolute; /* disp is the whole linear offset */
	bool pcrel;    /* and it is relative to RIP */
};

static bool fits32(int64_t x)
{
	return x == (int32_t)x;
}

static struct ea insn_operand(const struct tr *t, const struct insn *in)
{
	struct ea a = { .scale = in->scale, .disp = in->disp, .addrsize = in->addrsize };

	a.base = in->base == REG_NONE ? EMIT_NO_REG : in->base;
	a.index = in->index == REG_NONE ? EMIT_NO_REG : in->index;
	a.seg = in->seg >= SEG_FS ? in->seg : SEG_DS;
	if (in->base == REG_PC) {
		a.base = EMIT_NO_REG;
		a.pcrel = true;
		a.disp += (int64_t)(t->va + in->len);
		if (in->addrsize == 4)
			a.disp = (uint32_t)a.disp;
	}
	if (a.base == EMIT_NO_REG && a.index == EMIT_NO_REG) {
		a.absolute = true;
		if (t->mode == 4)
			a.disp = (uint32_t)a.disp;
	}
	return a;
}

/* The effective address (with segment base) into host register `dst` (T0). Flags survive only without a
 * segment. */
static void emit_ea(struct tr *t, const struct ea *a)
{
	struct emit *e = &t->e;
	unsigned size = a->addrsize == 8 ? 8 : 4;
	unsigned b = EMIT_NO_REG, x = EMIT_NO_REG;

	if (a->absolute) {
		if (a->pcrel)
			emit_pc(t, T0, (uint64_t)a->disp);
		else
			emit_mov_imm(e, T0, (uint64_t)a->disp);
	} else {
		if (a->base != EMIT_NO_REG) {
			b = host_reg(a->base);
			if (b == EMIT_NO_REG) {
				emit_load(e, T0, VCPU, OFF_GPR(a->base));
				b = T0;
			}
		}
		if (a->index != EMIT_NO_REG) {
			x = host_reg(a->index);
			if (x == EMIT_NO_REG) {
				emit_load(e, T1, VCPU, OFF_GPR(a->index));
				x = T1;
			}
		}
		emit_lea(e, size, T0, b, x, a->scale, (int32_t)a->disp);
	}
	if (a->seg >= SEG_FS) {
		if (t->mode == 8)
			emit_op_mem(e, 8, OP_ADD_LOAD, T0, VCPU, OFF_SEG(a->seg));
		else
			emit_op_mem(e, 4, OP_ADD_LOAD, T0, VCPU, OFF_SEG(a->seg));
	}
}

/*
 * Can everything that in names relative to RIP be named by a 32-bit offset from
 * the page? A branch or operand almost 2 GiB away cannot.
 */
static bool in_reach(const struct tr *t, const struct insn *in)
{
	int64_t d = (int64_t)(t->va & 0xfff) + in->len;

	if (!t->pic || t->mode == 4)
		return true;
	if (in->imm_relative)
		d += in->imm[0];
	else if (in->base == REG_PC)
		d += in->disp;
	return fits32(d);
}

/* t1_slow_mem must not fill the TLB on its own: with a mask, the access may not touch the page at all. */
#define MISS_MASKED 0x200u

static uint32_t miss_info(const struct tr *t, unsigned size, bool write)
{
	return size | (write ? 0x100u : 0) | (uint32_t)(t->va - t->b->va) << 16;
}

/* The TLB check of the address in T0; afterwards T1 is its entry and T0 the offset in the page. A miss goes
 * back to `start`. */
static void check_address(struct tr *t, uint8_t *start, unsigned size, bool write)
{
	struct emit *e = &t->e;
	int32_t tag = write ? offsetof(struct tlb_entry, tag_w) : offsetof(struct tlb_entry, tag_r);
	struct cold *c;

	emit_mov(e, T1, T0);
	emit_bytes(e, "\x49\xc1\xee\x07", 4); /* shr r14, 7 */
	emit_bytes(e, "\x41\x81\xe6", 3);     /* and r14d, imm32 */
	emit4(e, (TLB_SIZE - 1) << 5);
	emit_op_mem(e, 8, OP_ADD_LOAD, T1, VCPU, OFF(tlb_base));
	emit_op_mem(e, 8, OP_XOR_LOAD, T0, T1, tag);
	emit_bytes(e, "\x49\x81\xfd", 3); /* cmp r13, imm32 */
	emit4(e, PAGE_SIZE - size);
	emit1(e, 0x0f); /* ja */
	emit1(e, 0x87);
	c = add_cold(t, COLD_MISS);
	c->patch = emit_rel32(t);
	c->retry = start;
	c->info = miss_info(t, size, write);
	c->tag = tag;
}

/*
 * The TLB check for [a, a+size). Afterwards *m is the host operand and the
 * return value the one scratch register that is free. Destroys host flags.
 */
static unsigned check(struct tr *t, const struct ea *a, unsigned size, bool write, struct host_mem *m)
{
	struct emit *e = &t->e;
	uint8_t *start = emit_here(e);
	unsigned base;

	emit_ea(t, a);
	check_address(t, start, size, write);
	base = a->base == EMIT_NO_REG ? EMIT_NO_REG : host_reg(a->base);
	if (base != EMIT_NO_REG && a->index == EMIT_NO_REG && a->seg == SEG_DS && a->addrsize == 8 &&
	    t->mode == 8) {
		emit_load(e, T1, T1, offsetof(struct tlb_entry, addend));
		*m = (struct host_mem){
			.base = (uint8_t)base, .index = T1, .scale = 1, .disp = (int32_t)a->disp
		};
		return T0;
	}
	emit_op_mem(e, 8, OP_ADD_LOAD, T0, T1, offsetof(struct tlb_entry, page));
	*m = (struct host_mem){ .base = T0, .index = EMIT_NO_REG, .scale = 1, .disp = 0 };
	return T1;
}

/* ---- ordinary instructions ---- */

static bool unit_allowed(const struct tr *t, const struct insn *in)
{
	switch (in->unit) {
	case UNIT_INT:
		return true;
	case UNIT_X87:
	case UNIT_MMX:
	case UNIT_SSE:
		return t->flags & BLOCK_SSE;
	case UNIT_AVX:
		return t->flags & BLOCK_AVX;
	case UNIT_AVX512:
		return t->flags & BLOCK_AVX512;
	default:
		return false;
	}
}

static bool is_bit_string(const struct insn *in)
{
	return in->has_mem && in->map == ZYDIS_OPCODE_MAP_0F &&
	       in->enc == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
	       (in->opcode == 0xa3 || in->opcode == 0xab || in->opcode == 0xb3 || in->opcode == 0xbb);
}

/* Guest R13..R15 that the instruction uses as data (not in its address). */
static unsigned high_data_regs(const struct insn *in, uint8_t regs[4])
{
	uint32_t used = 0;
	unsigned n = 0;

	for (int k = 0; k < 3; k++)
		if (in->ops[k].type == ZYDIS_OPERAND_TYPE_REGISTER && in->ops[k].cls >= ZYDIS_REGCLASS_GPR8 &&
		    in->ops[k].cls <= ZYDIS_REGCLASS_GPR64 && in->ops[k].reg >= R13 && in->ops[k].reg < 16)
			used |= 1u << in->ops[k].reg;
	for (unsigned r = R13; r <= R15; r++)
		if (used >> r & 1)
			regs[n++] = (uint8_t)r;
	return n;
}

/* True if ordinary instruction `in` can be copied. */
static bool can_copy(const struct tr *t, const struct insn *in)
{
	uint8_t high[4];
	unsigned n_high, free_regs;

	if (t->v->lockstep &&
	    (in->mnemonic == ZYDIS_MNEMONIC_RDRAND || in->mnemonic == ZYDIS_MNEMONIC_RDSEED))
		return false;
	if (in->cls != INSN_NATIVE || !unit_allowed(t, in) || in->mem_vsib)
		return false;
	if (in->has_mem && (in->mem_size == 0 || in->mem_size > 128 || in->high8))
		return false;
	/* AH..BH cannot be named together with R15, where guest RSP is (MOVZX ESP, AH). */
	if (in->high8 && ((in->regs_read | in->regs_written) & 1u << RSP))
		return false;
	n_high = high_data_regs(in, high);
	free_regs = in->has_mem ? 1 : 2;
	/* One register more can be borrowed where the instruction cannot fault with it borrowed. */
	return n_high <= free_regs || (n_high == free_regs + 1 && in->unit == UNIT_INT && !in->lock);
}

/*
 * BT, BTS, BTR, BTC with a register offset address a bit string (SDM 2A): the
 * word that holds the bit is found here, and the instruction then gets the
 * offset within that word.
 */
static bool tr_bit_string(struct tr *t, const struct insn *in)
{
	struct emit *e = &t->e;
	struct ea a = insn_operand(t, in);
	struct host_mem m;
	unsigned bit = in->ops[1].reg, h = host_reg(bit), wide = in->opsize == 8;
	uint8_t *start;
	unsigned sh = in->opsize == 8 ? 6 : 5;
	bool write = in->opcode != 0xa3;

	if (in->opsize == 2 || t->mode != 8 || in->addrsize != 8)
		return false;
	spare_flags(t, t->live[t->i]);
	start = emit_here(e);
	emit_ea(t, &a);
	if (h == EMIT_NO_REG) {
		emit_op_mem(e, in->opsize, wide ? OP_MOV_LOAD : 0x8b, T1, VCPU, OFF_GPR(bit));
		if (!wide)
			emit_bytes(e, "\x4d\x63\xf6", 3); /* movsxd r14, r14d */
	} else {
		emit_rex(e, 1, T1, EMIT_NO_REG, h, false);
		emit1(e, wide ? 0x8b : 0x63); /* mov or movsxd r14, h */
		emit1(e, (uint8_t)(0xc0 | (T1 & 7) << 3 | (h & 7)));
	}
	emit_bytes(e, "\x49\xc1\xfe", 3); /* sar r14, imm8 */
	emit1(e, (uint8_t)sh);
	emit_lea(e, 8, T0, T0, T1, in->opsize, 0);
	check_address(t, start, in->opsize, write);
	emit_op_mem(e, 8, OP_ADD_LOAD, T0, T1, offsetof(struct tlb_entry, page));
	m = (struct host_mem){ .base = T0, .index = EMIT_NO_REG, .scale = 1 };
	if (h == EMIT_NO_REG)
		emit_op_mem(e, in->opsize, OP_MOV_LOAD, T1, VCPU, OFF_GPR(bit));
	else
		emit_op_reg(e, in->opsize, OP_MOV_STORE, h, T1);
	emit_bytes(e, "\x41\x83\xe6", 3); /* and r14d, width - 1 */
	emit1(e, (uint8_t)(in->opsize * 8 - 1));
	want_flags(t); /* they keep all but CF */
	t->map[t->i].in_host = true;
	if (in->lock)
		emit1(e, 0xf0);
	emit_rex(e, wide, T1, m.index, m.base, false);
	emit1(e, 0x0f);
	emit1(e, in->opcode);
	emit_mem(e, T1, m.base, m.index, m.scale, m.disp);
	t->where = IN_HOST;
	return true;
}

static void copy_insn(struct tr *t, const struct insn *in)
{
	uint8_t map[16], high[4];
	uint32_t live_after = t->live[t->i + 1];
	struct host_mem m = { .base = T0, .index = EMIT_NO_REG, .scale = 1 };
	unsigned n_high = high_data_regs(in, high), free_reg = T0;
	uint8_t scratch[3], borrowed = EMIT_NO_REG;

	for (unsigned r = 0; r < 16; r++)
		map[r] = (uint8_t)r;
	map[RSP] = GSP;
	if (in->has_mem) {
		struct ea a = insn_operand(t, in);

		spare_flags(t, t->live[t->i]);
		free_reg = check(t, &a, in->mem_size, in->mem_write, &m);
		if (in->mem_masked)
			t->cold[t->n_cold - 1].info |= MISS_MASKED;
	}
	scratch[0] = (uint8_t)free_reg;
	scratch[1] = T1;
	if (n_high > (in->has_mem ? 1u : 2u)) {
		/* RBX..RDI are no implicit operands of anything but string instructions and CMPXCHG8B/16B. */
		uint32_t busy = in->regs_read | in->regs_written | 1u << RSP;

		for (borrowed = RBX; busy >> borrowed & 1; borrowed++)
			;
		emit_store(&t->e, borrowed, VCPU, OFF(scratch[3]));
		scratch[in->has_mem ? 1 : 2] = borrowed;
	}
	for (unsigned k = 0; k < n_high; k++) {
		map[high[k]] = scratch[k];
		if (in->regs_read >> high[k] & 1)
			emit_load(&t->e, scratch[k], VCPU, OFF_GPR(high[k]));
	}
	if (in->flags_read ||
	    ((in->flags_written | in->flags_undefined) && (live_after & ~insn_kills(t, in))))
		want_flags(t);
	t->map[t->i].in_host = t->where & IN_HOST;
	reencode(&t->e, in, map, &m);
	for (unsigned k = 0; k < n_high; k++)
		if (in->regs_written >> high[k] & 1)
			emit_store(&t->e, scratch[k], VCPU, OFF_GPR(high[k]));
	if (borrowed != EMIT_NO_REG)
		emit_load(&t->e, borrowed, VCPU, OFF(scratch[3]));
	if (in->flags_written | in->flags_undefined)
		t->where = IN_HOST;
}

/* ---- special instructions ---- */

static void tr_lea(struct tr *t, const struct insn *in)
{
	struct ea a = insn_operand(t, in);
	unsigned dst = in->ops[0].reg, h = host_reg(dst);
	unsigned size = in->opsize == 8 && in->addrsize == 8 ? 8 : 4;

	a.seg = SEG_DS;
	if (a.absolute && !a.pcrel && in->opsize != 2) {
		uint64_t x = (uint64_t)a.disp;

		if (in->opsize == 4 || in->addrsize == 4)
			x = (uint32_t)x;
		emit_mov_imm(&t->e, h == EMIT_NO_REG ? T0 : h, x);
		if (h == EMIT_NO_REG)
			emit_store(&t->e, T0, VCPU, OFF_GPR(dst));
		return;
	}
	emit_ea(t, &a);
	if (in->opsize == 2) {
		/* Keep the upper bits: a 16-bit move. */
		if (h == EMIT_NO_REG) {
			emit1(&t->e, 0x66);
			emit_op_mem(&t->e, 4, OP_MOV_STORE, T0, VCPU, OFF_GPR(dst));
		} else {
			emit1(&t->e, 0x66);
			emit_op_reg(&t->e, 4, OP_MOV_STORE, T0, h);
		}
		return;
	}
	if (h == EMIT_NO_REG) {
		if (size == 4)
			emit_op_reg(&t->e, 4, OP_MOV_STORE, T0, T0);
		emit_store(&t->e, T0, VCPU, OFF_GPR(dst));
	} else {
		emit_op_reg(&t->e, size, OP_MOV_STORE, T0, h);
	}
}

static struct ea stack_ea(const struct tr *t, unsigned base, int32_t disp)
{
	return (struct ea){ .base = base,
			    .index = EMIT_NO_REG,
			    .scale = 1,
			    .disp = disp,
			    .seg = SEG_DS,
			    .addrsize = t->mode };
}

static void emit_mem_op(struct tr *t, unsigned size, uint8_t op, unsigned reg, const struct host_mem *m)
{
	emit_rex(&t->e, size == 8, reg, m->index, m->base, false);
	emit1(&t->e, op);
	emit_mem(&t->e, reg, m->base, m->index, m->scale, m->disp);
}

enum push_what { PUSH_REG, PUSH_IMM, PUSH_PC, PUSH_SCRATCH };

/* Pushes host register `val`, the immediate, the code address, or scratch[1]. */
static void push_host(struct tr *t, enum push_what what, int64_t val)
{
	struct emit *e = &t->e;
	unsigned size = t->mode, free_reg;
	struct ea a = stack_ea(t, RSP, -(int32_t)size);
	struct host_mem m;

	spare_flags(t, t->live[t->i + 1]);
	free_reg = check(t, &a, size, true, &m);
	if ((what == PUSH_IMM || (what == PUSH_PC && !t->pic)) && fits32(size == 4 ? (int32_t)val : val)) {
		emit_rex(e, size == 8, 0, m.index, m.base, false);
		emit1(e, 0xc7);
		emit_mem(e, 0, m.base, m.index, m.scale, m.disp);
		emit4(e, (uint32_t)val);
	} else {
		if (what == PUSH_REG)
			free_reg = (unsigned)val;
		else if (what == PUSH_SCRATCH)
			emit_load(e, free_reg, VCPU, OFF(scratch[1]));
		else if (what == PUSH_PC)
			emit_pc(t, free_reg, (uint64_t)val);
		else
			emit_mov_imm(e, free_reg, (uint64_t)val);
		emit_mem_op(t, size, OP_MOV_STORE, free_reg, &m);
	}
	emit_lea(e, size, GSP, GSP, EMIT_NO_REG, 1, -(int32_t)size);
}

static bool tr_push(struct tr *t, const struct insn *in)
{
	struct emit *e = &t->e;

	if (in->opsize != t->mode)
		return false;
	if (in->ops[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		push_host(t, PUSH_IMM, in->imm[0]);
		return true;
	}
	if (in->has_mem) {
		struct ea a = insn_operand(t, in);
		struct host_mem m;
		unsigned r;

		spare_flags(t, t->live[t->i]);
		r = check(t, &a, t->mode, false, &m);
		emit_mem_op(t, t->mode, OP_MOV_LOAD, r, &m);
		emit_store(e, r, VCPU, OFF(scratch[1]));
		push_host(t, PUSH_SCRATCH, 0);
		return true;
	}
	if (in->ops[0].cls == ZYDIS_REGCLASS_SEGMENT)
		return false;
	if (host_reg(in->ops[0].reg) == EMIT_NO_REG) {
		emit_load(e, T0, VCPU, OFF_GPR(in->ops[0].reg));
		emit_store(e, T0, VCPU, OFF(scratch[1]));
		push_host(t, PUSH_SCRATCH, 0);
	} else {
		push_host(t, PUSH_REG, host_reg(in->ops[0].reg));
	}
	return true;
}

static bool tr_pop(struct tr *t, const struct insn *in)
{
	struct emit *e = &t->e;
	struct ea a = stack_ea(t, RSP, 0);
	struct host_mem m;
	unsigned r, dst;

	if (in->opsize != t->mode || in->ops[0].type != ZYDIS_OPERAND_TYPE_REGISTER ||
	    in->ops[0].cls == ZYDIS_REGCLASS_SEGMENT)
		return false;
	dst = host_reg(in->ops[0].reg);
	spare_flags(t, t->live[t->i + 1]);
	r = check(t, &a, t->mode, false, &m);
	if (dst == EMIT_NO_REG) {
		emit_mem_op(t, t->mode, OP_MOV_LOAD, r, &m);
		emit_store(e, r, VCPU, OFF_GPR(in->ops[0].reg));
	} else {
		emit_mem_op(t, t->mode, OP_MOV_LOAD, dst, &m);
	}
	if (dst != GSP)
		emit_lea(e, t->mode, GSP, GSP, EMIT_NO_REG, 1, (int32_t)t->mode);
	return true;
}

static bool tr_leave(struct tr *t, const struct insn *in)
{
	struct ea a = stack_ea(t, RBP, 0);
	struct host_mem m;
	unsigned r;

	if (in->opsize != t->mode)
		return false;
	spare_flags(t, t->live[t->i + 1]);
	r = check(t, &a, t->mode, false, &m);
	emit_mem_op(t, t->mode, OP_MOV_LOAD, r, &m);
	emit_lea(&t->e, t->mode, GSP, RBP, EMIT_NO_REG, 1, (int32_t)t->mode);
	emit_op_reg(&t->e, t->mode, OP_MOV_STORE, r, RBP);
	return true;
}

/* The target of an indirect JMP or CALL into T0 (after scratch[2] for CALL's push). */
static bool load_target(struct tr *t, const struct insn *in)
{
	unsigned r;

	if (in->opsize != t->mode && t->mode == 4)
		return false;
	if (in->has_mem) {
		struct ea a = insn_operand(t, in);
		struct host_mem m;

		spare_flags(t, FLAGS_ARITH);
		r = check(t, &a, t->mode, false, &m);
		emit_mem_op(t, t->mode, OP_MOV_LOAD, T0, &m);
		return true;
	}
	r = host_reg(in->ops[0].reg);
	if (r == EMIT_NO_REG)
		emit_load(&t->e, T0, VCPU, OFF_GPR(in->ops[0].reg));
	else
		emit_op_reg(&t->e, t->mode, OP_MOV_STORE, r, T0);
	return true;
}

static bool tr_jump(struct tr *t, const struct insn *in)
{
	if (in->far)
		return false;
	if (in->imm_relative) {
		if (in->opsize == 2)
			return false;
		exit_to(t, pc_mask(t, t->va + in->len + (uint64_t)in->imm[0]));
		return true;
	}
	if (!load_target(t, in))
		return false;
	exit_indirect(t);
	return true;
}

static bool tr_call(struct tr *t, const struct insn *in)
{
	uint64_t next = pc_mask(t, t->va + in->len);

	if (in->far || (in->imm_relative && in->opsize == 2))
		return false;
	if (in->imm_relative) {
		push_host(t, PUSH_PC, (int64_t)next);
		exit_to(t, pc_mask(t, next + (uint64_t)in->imm[0]));
		return true;
	}
	if (!load_target(t, in))
		return false;
	emit_store(&t->e, T0, VCPU, OFF(scratch[2]));
	push_host(t, PUSH_PC, (int64_t)next);
	emit_load(&t->e, T0, VCPU, OFF(scratch[2]));
	exit_indirect(t);
	return true;
}

static bool tr_ret(struct tr *t, const struct insn *in)
{
	struct ea a = stack_ea(t, RSP, 0);
	struct host_mem m;
	unsigned release =
	    in->nops && in->ops[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? (uint16_t)in->imm[0] : 0;

	if (in->far || (in->opsize == 2))
		return false;
	spare_flags(t, FLAGS_ARITH);
	check(t, &a, t->mode, false, &m);
	emit_mem_op(t, t->mode, OP_MOV_LOAD, T0, &m);
	emit_lea(&t->e, t->mode, GSP, GSP, EMIT_NO_REG, 1, (int32_t)(t->mode + release));
	exit_indirect(t);
	return true;
}

static bool tr_jcc(struct tr *t, const struct insn *in)
{
	struct emit *e = &t->e;
	uint64_t target = pc_mask(t, t->va + in->len + (uint64_t)in->imm[0]);
	bool loop = in->mnemonic == ZYDIS_MNEMONIC_LOOP;

	if (!in->imm_relative || (t->mode == 4 && in->opsize == 2))
		return false;
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_LOOPE:
	case ZYDIS_MNEMONIC_LOOPNE:
	case ZYDIS_MNEMONIC_JCXZ:
		return false;
	case ZYDIS_MNEMONIC_LOOP:
	case ZYDIS_MNEMONIC_JECXZ:
	case ZYDIS_MNEMONIC_JRCXZ: {
		uint8_t *skip;

		if (in->addrsize == 2)
			return false;
		if (loop)
			emit_lea(e, in->addrsize, RCX, RCX, EMIT_NO_REG, 1, -1);
		if (in->addrsize == 4)
			emit1(e, 0x67);
		emit1(e, 0xe3); /* j(r/e)cxz */
		emit1(e, loop ? 5 : 2);
		if (!loop) { /* jump over the exit unless zero */
			emit1(e, 0xeb);
			emit1(e, 5);
		}
		skip = e->p;
		(void)skip;
		emit1(e, 0xe9);
		exit_jump(t, target);
		return true;
	}
	default:
		break;
	}
	want_flags(t);
	emit1(e, 0x0f);
	emit1(e, (uint8_t)(0x80 | in->cond));
	exit_jump(t, target);
	return true;
}

static void store_byte(struct tr *t, int32_t off, uint8_t val)
{
	emit_store_imm8(&t->e, VCPU, off, val);
}

static bool tr_rdtsc(struct tr *t)
{
	struct emit *e = &t->e;

	if (!(t->flags & BLOCK_TSC) || t->v->lockstep)
		return false;
	emit_bytes(e, "\x0f\x31", 2);
	if (t->v->st.tsc_offset) {
		/* RORX and LEA leave the flags alone; RDX's upper half is zero after RDTSC. */
		emit_bytes(e, "\xc4\x63\xfb\xf0\xea\x20", 6); /* rorx r13, rdx, 32 */
		emit_lea(e, 8, T0, T0, RAX, 1, 0);
		emit_load(e, T1, VCPU, OFF(st.tsc_offset));
		emit_lea(e, 8, T0, T0, T1, 1, 0);
		emit_op_reg(e, 4, OP_MOV_STORE, T0, RAX);
		emit_bytes(e, "\xc4\xc3\xfb\xf0\xd5\x20", 6); /* rorx rdx, r13, 32 */
		emit_op_reg(e, 4, OP_MOV_STORE, RDX, RDX);
	}
	return true;
}

static void tr_pushf(struct tr *t)
{
	struct emit *e = &t->e;
	static const struct {
		int32_t off;
		uint8_t shift;
	} bits[] = { { OFF(iflag), 9 }, { OFF(dflag), 10 }, { OFF(acflag), 18 }, { OFF(t1_flags), 11 } };

	spare_flags(t, FLAGS_ARITH);
	emit_bytes(e, "\x44\x0f\xb6", 3); /* movzx r13d, byte [AH image] */
	emit_mem(e, T0, VCPU, EMIT_NO_REG, 1, OFF(t1_flags) + 1);
	emit_op_mem(e, 8, 0x0b, T0, VCPU, OFF(sysflags)); /* or */
	for (unsigned k = 0; k < ARRAY_SIZE(bits); k++) {
		emit_bytes(e, "\x44\x0f\xb6", 3); /* movzx r14d, byte */
		emit_mem(e, T1, VCPU, EMIT_NO_REG, 1, bits[k].off);
		emit_bytes(e, "\x41\xc1\xe6", 3); /* shl r14d, imm8 */
		emit1(e, bits[k].shift);
		emit_bytes(e, "\x4d\x09\xf5", 3); /* or r13, r14 */
	}
	emit_store(e, T0, VCPU, OFF(scratch[1]));
	push_host(t, PUSH_SCRATCH, 0);
}

static bool tr_sti(struct tr *t, const struct insn *in)
{
	struct emit *e = &t->e;
	uint64_t next = pc_mask(t, t->va + in->len);
	uint8_t *skip;

	spare_flags(t, t->live[t->i + 1]);
	store_byte(t, OFF(iflag), 1);
	emit1(e, 0x83); /* cmp dword [irq_request], 0 */
	emit_mem(e, 7, VCPU, EMIT_NO_REG, 1, OFF(irq_request));
	emit1(e, 0);
	emit1(e, 0x74); /* je over */
	skip = e->p;
	emit1(e, 0);
	emit_mov_imm(e, T0, next);
	emit_jmp(e, t->v->cache->stub_sti);
	*skip = (uint8_t)(e->p - skip - 1);
	exit_to(t, next);
	return true;
}

/* MOV from CR0, CR2, CR3, CR4. */
static bool tr_mov_from_cr(struct tr *t, const struct insn *in)
{
	int32_t off;
	unsigned h = host_reg(in->ops[0].reg);

	if (in->ops[1].cls != ZYDIS_REGCLASS_CONTROL)
		return false;
	switch (in->ops[1].reg) {
	case 0:
		off = OFF(st.cr0);
		break;
	case 2:
		off = OFF(st.cr2);
		break;
	case 3:
		off = OFF(st.cr3);
		break;
	case 4:
		off = OFF(st.cr4);
		break;
	default:
		return false;
	}
	if (t->mode != 8)
		return false;
	emit_load(&t->e, h == EMIT_NO_REG ? T0 : h, VCPU, off);
	if (h == EMIT_NO_REG)
		emit_store(&t->e, T0, VCPU, OFF_GPR(in->ops[0].reg));
	return true;
}

/* MOV r32/64, Sreg. */
static bool tr_mov_from_seg(struct tr *t, const struct insn *in)
{
	unsigned r = in->ops[0].reg, h;

	if (in->ops[1].cls != ZYDIS_REGCLASS_SEGMENT || in->has_mem || in->opsize == 2)
		return false;
	h = host_reg(r) == EMIT_NO_REG ? T0 : host_reg(r);
	emit_rex(&t->e, 0, h, EMIT_NO_REG, VCPU, false);
	emit_bytes(&t->e, "\x0f\xb7", 2); /* movzx */
	emit_mem(&t->e, h, VCPU, EMIT_NO_REG, 1,
		 (int32_t)(offsetof(struct vcpu, st.seg) + in->ops[1].reg * sizeof(struct x86_seg) +
			   offsetof(struct x86_seg, sel)));
	if (h == T0)
		emit_store(&t->e, T0, VCPU, OFF_GPR(r));
	return true;
}

static bool tr_fsgsbase(struct tr *t, const struct insn *in, unsigned seg, bool write)
{
	unsigned r = in->ops[0].reg, h = host_reg(r);
	struct emit *e = &t->e;

	if (!(t->flags & BLOCK_FSGS) || t->mode != 8 || (write && in->opsize == 8))
		return false;
	if (h == EMIT_NO_REG) {
		h = T0;
		if (write)
			emit_load(e, T0, VCPU, OFF_GPR(r));
	}
	if (write) {
		emit_op_reg(e, 4, OP_MOV_STORE, h, T0);
		emit_store(e, T0, VCPU, OFF_SEG(seg));
		return true;
	}
	emit_op_mem(e, in->opsize, OP_MOV_LOAD, h, VCPU, OFF_SEG(seg));
	if (h == T0)
		emit_store(e, T0, VCPU, OFF_GPR(r));
	return true;
}

static bool tr_kernel(struct tr *t, const struct insn *in)
{
	struct emit *e = &t->e;

	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_CLI:
		store_byte(t, OFF(iflag), 0);
		return true;
	case ZYDIS_MNEMONIC_STI:
		return tr_sti(t, in);
	case ZYDIS_MNEMONIC_CLAC:
	case ZYDIS_MNEMONIC_STAC: {
		bool stac = in->mnemonic == ZYDIS_MNEMONIC_STAC;

		if (!(t->flags & BLOCK_SMAP))
			return false;
		store_byte(t, OFF(acflag), stac);
		emit_load(e, T0, VCPU, stac ? OFF(tlb_ptr[TLB_KAC]) : OFF(tlb_ptr[TLB_K]));
		emit_store(e, T0, VCPU, OFF(tlb_base));
		return true;
	}
	case ZYDIS_MNEMONIC_SWAPGS:
		if (t->mode != 8)
			return false;
		emit_load(e, T0, VCPU, OFF_SEG(SEG_GS));
		emit_load(e, T1, VCPU, OFF(st.kernel_gs_base));
		emit_store(e, T0, VCPU, OFF(st.kernel_gs_base));
		emit_store(e, T1, VCPU, OFF_SEG(SEG_GS));
		return true;
	case ZYDIS_MNEMONIC_MOV:
		return tr_mov_from_cr(t, in);
	default:
		return false;
	}
}

static bool tr_special(struct tr *t, const struct insn *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_LEA:
		tr_lea(t, in);
		return true;
	case ZYDIS_MNEMONIC_PUSH:
		return tr_push(t, in);
	case ZYDIS_MNEMONIC_POP:
		return tr_pop(t, in);
	case ZYDIS_MNEMONIC_LEAVE:
		return tr_leave(t, in);
	case ZYDIS_MNEMONIC_JMP:
		return tr_jump(t, in);
	case ZYDIS_MNEMONIC_CALL:
		return tr_call(t, in);
	case ZYDIS_MNEMONIC_RET:
		return tr_ret(t, in);
	case ZYDIS_MNEMONIC_CLD:
		store_byte(t, OFF(dflag), 0);
		return true;
	case ZYDIS_MNEMONIC_STD:
		store_byte(t, OFF(dflag), 1);
		return true;
	case ZYDIS_MNEMONIC_RDTSC:
		return tr_rdtsc(t);
	case ZYDIS_MNEMONIC_PUSHFQ:
	case ZYDIS_MNEMONIC_PUSHFD:
		if (in->opsize != t->mode)
			return false;
		tr_pushf(t);
		return true;
	case ZYDIS_MNEMONIC_MOV:
		if (tr_mov_from_seg(t, in))
			return true;
		break;
	case ZYDIS_MNEMONIC_RDFSBASE:
		return tr_fsgsbase(t, in, SEG_FS, false);
	case ZYDIS_MNEMONIC_RDGSBASE:
		return tr_fsgsbase(t, in, SEG_GS, false);
	default:
		break;
	}
	if (in->imm_relative && tr_jcc(t, in))
		return true;
	return !(t->flags & BLOCK_USER) && tr_kernel(t, in);
}

/* ---- the block ---- */

static bool ends_block(const struct insn *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_JMP:
	case ZYDIS_MNEMONIC_CALL:
	case ZYDIS_MNEMONIC_RET:
	case ZYDIS_MNEMONIC_STI:
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
	case ZYDIS_MNEMONIC_CPUID:
	case ZYDIS_MNEMONIC_HLT:
		return false;
	default:
		return in->unit == UNIT_INT && !in->mem_vsib;
	}
}

/* An instruction that goes on in the next page. False if that cannot be fetched: the interpreter will raise
 * the fault. */
static bool decode_across(struct tr *t, uint64_t va, struct insn *in)
{
	unsigned n = PAGE_SIZE - (va & 0xfff), last;
	uint64_t next = pc_mask(t, va + n), pa;
	uint8_t buf[16] = { 0 };
	void *host;
	bool dummy;

	if ((t->mode == 8 && !canonical(next)) ||
	    mmu_host(t->v, next, ACC_X | mmu_acc(t->v), &host, &pa, &dummy)) {
		t->v->exc.present = false;
		return false;
	}
	if (!host)
		return false;
	cache_watch(t->v, host);
	memcpy(buf, t->page + (va & 0xfff), n);
	memcpy(buf + n, host, 15 - n);
	if (insn_decode(buf, 15, t->mode, false, in) != DECODE_OK)
		return false;
	t->b->page2 = host;
	last = in->len - n - 1;
	for (unsigned g = 0; g <= last / 128; g++)
		t->b->granules2 |= 1u << g;
	return true;
}

/* Decodes the block's instructions and computes which flags are needed before each. */
static void collect(struct tr *t)
{
	uint64_t va = t->b->va;
	uint32_t live;

	while (t->n < MAX_INSNS) {
		unsigned off = va & 0xfff;
		struct insn *in = &t->in[t->n];
		unsigned last;

		int r;

		if ((va ^ t->b->va) & PAGE_MASK)
			break;
		r = insn_decode(t->page + off, PAGE_SIZE - off, t->mode, false, in);
		if (r == DECODE_MORE && decode_across(t, va, in))
			r = DECODE_OK;
		if (r != DECODE_OK)
			break;
		insn_restrict(in, t->v->model);
		last = off + in->len - 1;
		for (unsigned g = off / 128; g <= last / 128 && g < 32; g++)
			t->b->granules |= 1u << g;
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
		live = live_at(t, va + (uint64_t)t->in[t->n - 1].imm[0]);
	t->live[t->n] = live;
	for (unsigned i = t->n; i-- > 0;) {
		struct insn *in = &t->in[i];

		va -= in->len;
		live = t->live[i + 1];
		if (in->cls == INSN_SPECIAL && in->imm_relative && !ends_block(in))
			live |= live_at(t, va + in->len + (uint64_t)in->imm[0]);
		live &= ~insn_kills(t, in);
		live |= insn_reads(in);
		if (t->v->lockstep)
			live = FLAGS_ARITH;
		/* Whatever leaves to the interpreter shows it all flags. */
		if (in->cls == INSN_UD)
			live = FLAGS_ARITH;
		t->live[i] = live;
	}
}

static void emit_cold(struct tr *t)
{
	struct emit *e = &t->e;
	struct bt_cache *c = t->v->cache;

	for (unsigned k = 0; k < t->n_cold; k++) {
		struct cold *x = &t->cold[k];
		uint8_t *here = emit_here(e);
		int32_t rel = (int32_t)(here - (x->patch + e->exec_delta + 4));

		memcpy(x->patch, &rel, 4);
		switch (x->kind) {
		case COLD_MISS:
			emit_op_mem(e, 8, OP_XOR_LOAD, T0, T1, x->tag);
			emit_mov_imm(e, T1, x->info);
			emit_call_mem(e, VCPU, OFF(slow_mem));
			emit_jmp(e, x->retry);
			break;
		case COLD_EXIT:
			t->exits[x->exit].cold = here;
			if ((t->flags & BLOCK_USER) && !t->exits[x->exit].same_page) {
				/* Never linked: the pages need not stay neighbours. */
				if (x->save_flags)
					save_flags(t);
				emit_pc(t, T0, x->rip);
				emit_jmp(e, c->stub_lookup);
				break;
			}
			if (x->save_flags)
				save_flags(t);
			emit_pc(t, T0, x->rip);
			emit_mov_imm(e, T1, (uint64_t)&t->b->exits[x->exit]);
			emit_jmp(e, c->stub_link);
			if (t->exits[x->exit].same_page)
				break;
			t->exits[x->exit].cold_lookup = emit_here(e);
			if (x->save_flags)
				save_flags(t);
			emit_pc(t, T0, x->rip);
			emit_jmp(e, c->stub_lookup);
			break;
		case COLD_INTERP:
			if (x->save_flags)
				save_flags(t);
			emit_pc(t, T0, x->rip);
			emit_jmp(e, c->stub_interp);
			break;
		}
	}
}

struct block *translate(struct vcpu *v, uint64_t va, uint64_t pa, const uint8_t *p, uint32_t flags)
{
	struct bt_cache *c = v->cache;
	struct tr *t = calloc(1, sizeof *t);
	struct block *b;
	uint64_t end;

	if (!t)
		return NULL;
	cache_watch(v, p - (va & 0xfff));
	cache_make_room(v);
	b = cache_alloc(c, sizeof *b);
	b->pa = pa;
	b->va = va;
	b->flags = flags;
	t->v = v;
	t->b = b;
	t->flags = flags;
	t->mode = (flags & BLOCK_32) ? 4 : 8;
	t->page = p - (va & 0xfff);
	t->va = va;
	collect(t);
	b->exits = cache_alloc(c, sizeof *b->exits * MAX_EXITS);
	t->e = (struct emit){ .p = c->rw + c->used, .end = c->rw + c->size, .exec_delta = c->rx - c->rw };
	t->pic = flags & BLOCK_USER;
	b->code = emit_here(&t->e);
	b->entry_jc = emit_here(&t->e);
	if (flags & BLOCK_USER) {
		emit_mov(&t->e, T1, T0);
		emit_bytes(&t->e, "\x49\x81\xe6", 3); /* and r14, imm32 */
		emit4(&t->e, 0xfffff000u);
		emit_store(&t->e, T1, VCPU, OFF(page_va));
	}
	b->entry_m = emit_here(&t->e);
	if (t->n && t->live[0])
		load_flags(t);
	b->entry_h = emit_here(&t->e);
	t->where = IN_HOST;
	for (t->i = 0; t->i < t->n && !t->ended; t->i++) {
		struct insn *in = &t->in[t->i];
		bool ok = true;

		if (t->n_cold + 4 > MAX_COLD || t->n_exits + 2 > MAX_EXITS) {
			exit_to(t, t->va);
			break;
		}
		if (in->cls == INSN_NOP)
			;
		else if (!in_reach(t, in) ||
			 (in->has_mem &&
			  (in->addrsize == 2 || (t->mode == 4 && in->seg == SEG_CS && in->mem_write) ||
			   (in->seg >= SEG_FS && (flags & BLOCK_NULL_FSGS)))))
			ok = false;
		else if (is_bit_string(in))
			ok = tr_bit_string(t, in);
		else if (can_copy(t, in))
			copy_insn(t, in);
		else
			ok = in->cls == INSN_SPECIAL && tr_special(t, in);
		if (!ok && in->cls == INSN_SPECIAL && !t->ended && special_in_c(in) && !v->lockstep) {
			exit_special(t, in);
			ok = true;
		}
		if (!ok) {
			if (t->i == 0) {
				/* Nothing to translate: remember nothing, interpret. */
				c->meta_used = (size_t)((uint8_t *)b - c->meta);
				free(t);
				return NULL;
			}
			exit_interp(t);
			break;
		}
		b->vector |= in->unit != UNIT_INT;
		t->map[t->i].host_end = (uint16_t)((uint8_t *)emit_here(&t->e) - b->code);
		t->map[t->i].guest_off = (uint16_t)(t->va - va);
		t->va = pc_mask(t, t->va + in->len);
	}
	if (!t->i) {
		c->meta_used = (size_t)((uint8_t *)b - c->meta);
		free(t);
		return NULL;
	}
	end = t->va;
	if (!t->ended)
		exit_to(t, end);
	emit_cold(t);
	b->guest_len = (uint16_t)(end - va);
	b->n_insns = (uint16_t)t->i;
	b->n_exits = (uint16_t)t->n_exits;
	memcpy(b->exits, t->exits, sizeof *b->exits * t->n_exits);
	for (unsigned k = 0; k < t->n_exits; k++)
		b->exits[k].from = b;
	c->meta_used = (size_t)((uint8_t *)(b->exits + t->n_exits) - c->meta);
	c->meta_used = align_up(c->meta_used, 16);
	b->map = cache_alloc(c, sizeof *b->map * t->i);
	memcpy(b->map, t->map, sizeof *b->map * t->i);
	if (t->special_patch) {
		struct special *sp = cache_alloc(c, sizeof *sp);

		*sp = t->special;
		memcpy(t->special_patch, &sp, 8);
	}
	b->code_size = (uint32_t)((uint8_t *)emit_here(&t->e) - b->code);
	c->used = align_up((uint64_t)(t->e.p - c->rw), 16);
	free(t);
	cache_add(v, b, (void *)(p - (va & 0xfff)));
	return b;
}

/* Stores a known exit reason and leaves. */
static void emit_leave(struct emit *e, enum t1_exit why)
{
	emit_store_imm(e, 8, VCPU, OFF(exit_reason), why);
	emit_mov_imm(e, T1, (uint64_t)t1_exit);
	emit_op_reg(e, 4, 0xff, 4, T1); /* jmp r14 */
}

void translate_stubs(struct vcpu *v)
{
	struct bt_cache *c = v->cache;
	struct emit e = { .p = c->rw + c->used, .exec_delta = c->rx - c->rw };
	uint8_t *miss;

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
	emit1(&e, 0x75); /* jne miss */
	miss = e.p;
	emit1(&e, 0);
	emit_jmp_mem(&e, T1, offsetof(struct jc_entry, code));
	c->stub_lookup_end = emit_here(&e);
	*miss = (uint8_t)(e.p - miss - 1);
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
