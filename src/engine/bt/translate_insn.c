/* SPDX-License-Identifier: Apache-2.0 */
/* The translator: one instruction at a time. */
#include "base/util.h"
#include "engine/bt/translate_internal.h"

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

bool tr_is_bit_string(const struct insn *in)
{
	return in->has_mem && in->map == ZYDIS_OPCODE_MAP_0F &&
	       in->enc == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
	       (in->opcode == 0xa3 || in->opcode == 0xab || in->opcode == 0xb3 || in->opcode == 0xbb);
}

unsigned tr_high_data_regs(const struct insn *in, uint8_t regs[4])
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
bool tr_can_copy(const struct tr *t, const struct insn *in)
{
	uint8_t high[4];
	unsigned n_high, free_regs;

	if (t->v->lockstep &&
	    (in->mnemonic == ZYDIS_MNEMONIC_RDRAND || in->mnemonic == ZYDIS_MNEMONIC_RDSEED))
		return false;
	/* The interpreter keeps the host addresses that they store from the guest. */
	if (in->mnemonic == ZYDIS_MNEMONIC_FNSTENV || in->mnemonic == ZYDIS_MNEMONIC_FNSAVE)
		return false;
	if (in->cls != INSN_NATIVE || !unit_allowed(t, in) || in->mem_vsib)
		return false;
	if (in->has_mem && (in->mem_size == 0 || in->mem_size > 128))
		return false;
	/* AH..BH cannot be named together with R15, where guest RSP is (MOVZX ESP, AH). */
	if (in->high8 && !in->has_mem && ((in->regs_read | in->regs_written) & 1u << RSP))
		return false;
	n_high = tr_high_data_regs(in, high);
	free_regs = in->has_mem ? 1 : 2;
	/* One register more can be borrowed where the instruction cannot fault with it borrowed. */
	return n_high <= free_regs || (n_high == free_regs + 1 && in->unit == UNIT_INT && !in->lock);
}

/*
 * BT, BTS, BTR, BTC with a register offset address a bit string (SDM 2A): the
 * word that holds the bit is found here, and the instruction then gets the
 * offset within that word.
 */
bool tr_bit_string(struct tr *t, const struct insn *in)
{
	struct emit *e = &t->e;
	struct ea a = tr_insn_operand(t, in);
	struct host_mem m;
	unsigned bit = in->ops[1].reg, h = tr_host_reg(bit), wide = in->opsize == 8;
	uint8_t *start;
	unsigned sh = in->opsize == 8 ? 6 : 5;
	bool write = in->opcode != 0xa3;

	if (in->opsize == 2 || t->mode != 8 || in->addrsize != 8)
		return false;
	tr_spare_flags(t, t->live[t->i]);
	start = emit_here(e);
	tr_emit_ea(t, &a);
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
	tr_check_address(t, start, in->opsize, (write ? MISS_WRITE : 0) | (in->lock ? MISS_LOCKED : 0));
	emit_op_mem(e, 8, OP_ADD_LOAD, T0, T1, offsetof(struct tlb_entry, page));
	m = (struct host_mem){ .base = T0, .index = EMIT_NO_REG, .scale = 1 };
	if (h == EMIT_NO_REG)
		emit_op_mem(e, in->opsize, OP_MOV_LOAD, T1, VCPU, OFF_GPR(bit));
	else
		emit_op_reg(e, in->opsize, OP_MOV_STORE, h, T1);
	emit_bytes(e, "\x41\x83\xe6", 3); /* and r14d, width - 1 */
	emit1(e, (uint8_t)(in->opsize * 8 - 1));
	tr_want_flags(t, true); /* they keep all but CF */
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

/*
 * One of RBX..RDI that the instruction does not use, its value put into scratch[3]: none of them is an
 * implicit operand of anything but string instructions and CMPXCHG8B/16B.
 */
static uint8_t borrow(struct tr *t, const struct insn *in)
{
	uint32_t busy = in->regs_read | in->regs_written | 1u << RSP;
	uint8_t r = RBX;

	/* For AH..BH it is borrowed when the flags are where they are wanted, and few registers would do. */
	if ((t->where & CAN_REDO) && !in->high8)
		busy |= t->redo.inputs;
	for (int k = 0; k < 3; k++)
		if (in->ops[k].high8)
			busy |= 1u << in->ops[k].reg;
	while (busy >> r & 1)
		r++;
	emit_store(&t->e, r, VCPU, OFF(scratch[3]));
	return r;
}

void tr_copy_insn(struct tr *t, const struct insn *in)
{
	uint8_t map[16], high[4];
	uint32_t live_after = t->live[t->i + 1];
	struct host_mem m = { .base = T0, .index = EMIT_NO_REG, .scale = 1 };
	unsigned n_high = tr_high_data_regs(in, high), free_reg = T0;
	uint8_t scratch[3], borrowed = EMIT_NO_REG;

	for (unsigned r = 0; r < 16; r++)
		map[r] = (uint8_t)r;
	map[RSP] = GSP;
	if (in->has_mem) {
		struct ea a = tr_insn_operand(t, in);
		uint32_t how = (in->mem_write ? MISS_WRITE : 0) | (in->mem_masked ? MISS_MASKED : 0) |
			       (in->store_state ? MISS_STATE : 0) |
			       (in->lock || in->mnemonic == ZYDIS_MNEMONIC_XCHG ? MISS_LOCKED : 0);

		free_reg = tr_check(t, &a, in->mem_size, how, t->live[t->i], &m);
	}
	scratch[0] = (uint8_t)free_reg;
	scratch[1] = T1;
	if (n_high > (in->has_mem ? 1u : 2u)) {
		borrowed = borrow(t, in);
		scratch[in->has_mem ? 1 : 2] = borrowed;
	}
	for (unsigned k = 0; k < n_high; k++) {
		map[high[k]] = scratch[k];
		if (in->regs_read >> high[k] & 1)
			emit_load(&t->e, scratch[k], VCPU, OFF_GPR(high[k]));
	}
	if (in->flags_read ||
	    ((in->flags_written | in->flags_undefined) && (live_after & ~tr_insn_kills(t, in))))
		tr_want_flags(t, in->has_mem || n_high);
	t->map[t->i].in_host = t->where & IN_HOST;
	if (in->unit != UNIT_INT || in->mnemonic == ZYDIS_MNEMONIC_DIV || in->mnemonic == ZYDIS_MNEMONIC_IDIV)
		tr_fault_flags(t);
	if (in->high8 && in->has_mem) {
		/* AH..BH cannot be named together with T0 and T1 either. */
		borrowed = borrow(t, in);
		emit_lea(&t->e, 8, borrowed, m.base, m.index, m.scale, m.disp);
		m = (struct host_mem){ .base = borrowed, .index = EMIT_NO_REG, .scale = 1 };
	}
	if (!reencode(&t->e, in, map, &m)) { /* cannot be: AH..BH have the registers that they need */
		if (borrowed != EMIT_NO_REG)
			emit_load(&t->e, borrowed, VCPU, OFF(scratch[3]));
		tr_exit_interp(t);
		return;
	}
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
	struct ea a = tr_insn_operand(t, in);
	unsigned dst = in->ops[0].reg, h = tr_host_reg(dst);
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
	tr_emit_ea(t, &a);
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

/* Pushes guest register `val`, the immediate, the code address, or scratch[1]. */
static void push_host(struct tr *t, enum push_what what, int64_t val)
{
	struct emit *e = &t->e;
	unsigned size = t->mode, free_reg;
	struct ea a = stack_ea(t, RSP, -(int32_t)size);
	struct host_mem m;

	free_reg = tr_check(t, &a, size, MISS_WRITE, t->live[t->i], &m);
	if ((what == PUSH_IMM || (what == PUSH_PC && !t->pic)) && tr_fits32(size == 4 ? (int32_t)val : val)) {
		emit_rex(e, size == 8, 0, m.index, m.base, false);
		emit1(e, 0xc7);
		emit_mem(e, 0, m.base, m.index, m.scale, m.disp);
		emit4(e, (uint32_t)val);
	} else {
		if (what == PUSH_REG && tr_host_reg((unsigned)val) != EMIT_NO_REG)
			free_reg = tr_host_reg((unsigned)val);
		else if (what == PUSH_REG)
			emit_load(e, free_reg, VCPU, OFF_GPR(val));
		else if (what == PUSH_SCRATCH)
			emit_load(e, free_reg, VCPU, OFF(scratch[1]));
		else if (what == PUSH_PC)
			tr_emit_pc(t, free_reg, (uint64_t)val);
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
		struct ea a = tr_insn_operand(t, in);
		struct host_mem m;
		unsigned r;

		r = tr_check(t, &a, t->mode, 0, t->live[t->i], &m);
		emit_mem_op(t, t->mode, OP_MOV_LOAD, r, &m);
		emit_store(e, r, VCPU, OFF(scratch[1]));
		push_host(t, PUSH_SCRATCH, 0);
		return true;
	}
	if (in->ops[0].cls == ZYDIS_REGCLASS_SEGMENT)
		return false;
	push_host(t, PUSH_REG, in->ops[0].reg);
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
	dst = tr_host_reg(in->ops[0].reg);
	r = tr_check(t, &a, t->mode, 0, t->live[t->i], &m);
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
	r = tr_check(t, &a, t->mode, 0, t->live[t->i], &m);
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
		struct ea a = tr_insn_operand(t, in);
		struct host_mem m;

		tr_check(t, &a, t->mode, 0, FLAGS_ARITH, &m);
		emit_mem_op(t, t->mode, OP_MOV_LOAD, T0, &m);
		return true;
	}
	r = tr_host_reg(in->ops[0].reg);
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
		tr_exit_to(t, tr_pc_mask(t, t->va + in->len + (uint64_t)in->imm[0]));
		return true;
	}
	if (!load_target(t, in))
		return false;
	tr_exit_indirect(t, 0);
	return true;
}

static bool tr_call(struct tr *t, const struct insn *in)
{
	uint64_t next = tr_pc_mask(t, t->va + in->len);

	if (in->far || (in->imm_relative && in->opsize == 2))
		return false;
	if (in->imm_relative) {
		push_host(t, PUSH_PC, (int64_t)next);
		tr_exit_to(t, tr_pc_mask(t, next + (uint64_t)in->imm[0]));
		return true;
	}
	if (!load_target(t, in))
		return false;
	emit_store(&t->e, T0, VCPU, OFF(scratch[2]));
	push_host(t, PUSH_PC, (int64_t)next);
	emit_load(&t->e, T0, VCPU, OFF(scratch[2]));
	tr_exit_indirect(t, -(int32_t)t->mode);
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
	tr_check(t, &a, t->mode, 0, FLAGS_ARITH, &m);
	emit_mem_op(t, t->mode, OP_MOV_LOAD, T0, &m);
	emit_lea(&t->e, t->mode, GSP, GSP, EMIT_NO_REG, 1, (int32_t)(t->mode + release));
	tr_exit_indirect(t, (int32_t)(t->mode + release));
	return true;
}

static bool tr_jcc(struct tr *t, const struct insn *in)
{
	struct emit *e = &t->e;
	uint64_t target = tr_pc_mask(t, t->va + in->len + (uint64_t)in->imm[0]);
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
		tr_flags_for_exit(t);
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
		tr_exit_jump(t, target);
		return true;
	}
	default:
		break;
	}
	tr_want_flags(t, false);
	emit1(e, 0x0f);
	emit1(e, (uint8_t)(0x80 | in->cond));
	tr_exit_jump(t, target);
	return true;
}

static void store_byte(struct tr *t, int32_t off, uint8_t val)
{
	emit_store_imm8(&t->e, VCPU, off, val);
}

static bool tr_rdtsc(struct tr *t, bool p)
{
	struct emit *e = &t->e;

	if (!(t->flags & BLOCK_TSC) || t->v->lockstep || !t->v->cache->rorx)
		return false;
	if (p)
		emit_bytes(e, "\x0f\x01\xf9", 3);
	else
		emit_bytes(e, "\x0f\x31", 2);
	/* RORX and LEA leave the flags alone; RDX's upper half is zero after RDTSC. */
	emit_bytes(e, "\xc4\x63\xfb\xf0\xea\x20", 6); /* rorx r13, rdx, 32 */
	emit_lea(e, 8, T0, T0, RAX, 1, 0);
	emit_load(e, T1, VCPU, OFF(st.tsc_offset));
	emit_lea(e, 8, T0, T0, T1, 1, 0);
	emit_op_reg(e, 4, OP_MOV_STORE, T0, RAX);
	emit_bytes(e, "\xc4\xc3\xfb\xf0\xd5\x20", 6); /* rorx rdx, r13, 32 */
	emit_op_reg(e, 4, OP_MOV_STORE, RDX, RDX);
	if (p)
		emit_op_mem(e, 4, OP_MOV_LOAD, RCX, VCPU, OFF(st.tsc_aux));
	return true;
}

static void tr_pushf(struct tr *t)
{
	struct emit *e = &t->e;
	static const struct {
		int32_t off;
		uint8_t shift;
	} bits[] = { { OFF(iflag), 9 }, { OFF(dflag), 10 }, { OFF(acflag), 18 }, { OFF(t1_flags), 11 } };

	tr_flags_to_mem(t, false);
	t->where &= ~(unsigned)IN_HOST;
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

/*
 * The instruction after STI belongs to its shadow: neither an interrupt nor an
 * NMI may come between the two, or a guest that halts with STI; HLT sleeps
 * through what it waits for.  Kicks are seen at a block's exits, hence STI is
 * in one block with the instruction after it; where it is the last,
 * tr_exit_sti has that one interpreted.
 */
static bool tr_sti(struct tr *t, const struct insn *in)
{
	struct emit *e = &t->e;
	uint8_t *skip;

	tr_flags_to_mem(t, false);
	t->where &= ~(unsigned)IN_HOST;
	store_byte(t, OFF(iflag), 1);
	emit1(e, 0x83); /* cmp dword [irq_request], 0 */
	emit_mem(e, 7, VCPU, EMIT_NO_REG, 1, OFF(irq_request));
	emit1(e, 0);
	emit1(e, 0x74); /* je over */
	skip = e->p;
	emit1(e, 0);
	tr_emit_pc(t, T0, tr_pc_mask(t, t->va + in->len));
	emit_jmp(e, t->v->cache->stub_sti);
	*skip = (uint8_t)(e->p - skip - 1);
	return true;
}

/* MOV from CR0, CR2, CR3, CR4. */
static bool tr_mov_from_cr(struct tr *t, const struct insn *in)
{
	int32_t off;
	unsigned h = tr_host_reg(in->ops[0].reg);

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

/* MOV r32/64, Sreg, and to memory. */
static bool tr_mov_from_seg(struct tr *t, const struct insn *in)
{
	unsigned r = in->ops[0].reg, h;
	struct host_mem m;

	if (in->ops[1].cls != ZYDIS_REGCLASS_SEGMENT || (in->opsize == 2 && !in->has_mem))
		return false;
	if (in->has_mem) {
		struct ea a = tr_insn_operand(t, in);

		h = tr_check(t, &a, 2, MISS_WRITE, t->live[t->i], &m);
	} else {
		h = tr_host_reg(r) == EMIT_NO_REG ? T0 : tr_host_reg(r);
	}
	emit_rex(&t->e, 0, h, EMIT_NO_REG, VCPU, false);
	emit_bytes(&t->e, "\x0f\xb7", 2); /* movzx */
	emit_mem(&t->e, h, VCPU, EMIT_NO_REG, 1,
		 (int32_t)(offsetof(struct vcpu, st.seg) + in->ops[1].reg * sizeof(struct x86_seg) +
			   offsetof(struct x86_seg, sel)));
	if (in->has_mem) {
		emit1(&t->e, 0x66);
		emit_mem_op(t, 4, OP_MOV_STORE, h, &m);
	} else if (h == T0)
		emit_store(&t->e, T0, VCPU, OFF_GPR(r));
	return true;
}

/* RDFSBASE and RDGSBASE. */
static bool tr_read_base(struct tr *t, const struct insn *in, unsigned seg)
{
	unsigned r = in->ops[0].reg, h = tr_host_reg(r);

	if (!(t->flags & BLOCK_FSGS) || t->mode != 8)
		return false;
	if (h == EMIT_NO_REG)
		h = T0;
	emit_op_mem(&t->e, in->opsize, OP_MOV_LOAD, h, VCPU, OFF_SEG(seg));
	if (h == T0)
		emit_store(&t->e, T0, VCPU, OFF_GPR(r));
	return true;
}

/* WRFSBASE and WRGSBASE. What is not canonical is C's. */
static bool tr_write_base(struct tr *t, const struct insn *in, unsigned seg)
{
	unsigned r = in->ops[0].reg, h = tr_host_reg(r);
	struct emit *e = &t->e;
	uint8_t *slow = NULL;

	if (!(t->flags & BLOCK_FSGS) || t->mode != 8 || (in->opsize == 8 && !(slow = tr_to_special(t, in))))
		return false;
	if (h == EMIT_NO_REG) {
		h = T0;
		emit_load(e, T0, VCPU, OFF_GPR(r));
	}
	if (in->opsize == 8) {
		emit_mov(e, T1, h);
		emit_bytes(e, "\x49\xc1\xe6\x10\x49\xc1\xfe\x10", 8); /* shl r14, 16; sar r14, 16 */
		emit_op_reg(e, 8, 0x39, h, T1);                       /* cmp r14, h */
		emit_jcc(e, 5, slow);                                 /* jne */
	} else {
		emit_op_reg(e, 4, OP_MOV_STORE, h, T0);
		h = T0;
	}
	emit_store(e, h, VCPU, OFF_SEG(seg));
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

bool tr_special(struct tr *t, const struct insn *in)
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
		return tr_rdtsc(t, false);
	case ZYDIS_MNEMONIC_RDTSCP:
		return tr_rdtsc(t, true);
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
		return tr_read_base(t, in, SEG_FS);
	case ZYDIS_MNEMONIC_RDGSBASE:
		return tr_read_base(t, in, SEG_GS);
	case ZYDIS_MNEMONIC_WRFSBASE:
		return tr_write_base(t, in, SEG_FS);
	case ZYDIS_MNEMONIC_WRGSBASE:
		return tr_write_base(t, in, SEG_GS);
	default:
		if (tr_string(t, in))
			return true;
		break;
	}
	if (in->imm_relative && tr_jcc(t, in))
		return true;
	return !(t->flags & BLOCK_USER) && tr_kernel(t, in);
}
