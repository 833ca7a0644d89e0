/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The translator: the stack, and near branches.
 *
 * In 64-bit and flat code their operand size is the code's.  In segmented code
 * (translate_seg.c) operand, address and stack size are three things: a push in a
 * 16-bit segment may be one of 32 bits on a stack of 16, whose pointer wraps and
 * leaves the upper half of ESP alone.
 */
#include "base/util.h"
#include "engine/bt/translate_internal.h"

/* ---- the stack ---- */

/* What the instruction moves, or loads into the instruction pointer: in segmented code its operand size. */
static unsigned operand_size(const struct tr *t, const struct insn *in)
{
	return t->seg ? in->opsize : t->mode;
}

struct ea tr_stack_ea(const struct tr *t, unsigned base, int32_t disp)
{
	return (struct ea){ .base = base,
			    .index = EMIT_NO_REG,
			    .scale = 1,
			    .disp = disp,
			    .seg = t->seg ? SEG_SS : SEG_DS,
			    .addrsize = t->stack };
}

void tr_mem_op(struct tr *t, unsigned size, uint8_t op, unsigned reg, const struct host_mem *m)
{
	if (size == 2)
		emit1(&t->e, 0x66);
	emit_rex(&t->e, size == 8, reg, m->index, m->base, false);
	emit1(&t->e, op);
	emit_mem(&t->e, reg, m->base, m->index, m->scale, m->disp);
}

void tr_move_op(struct tr *t, unsigned size, bool store, unsigned reg, const struct host_mem *m)
{
	uint8_t op = store ? 0x88 : 0x8a;

	tr_mem_op(t, size, size == 1 ? op : op + 1, reg, m);
}

void tr_set_sp(struct tr *t, unsigned from, int32_t delta)
{
	if (t->stack == 2)
		emit1(&t->e, 0x66);
	emit_lea(&t->e, t->stack, GSP, from == RSP ? GSP : from, EMIT_NO_REG, 1, delta);
}

/* Reads `size` bytes, zero-extended, into a scratch register. */
static void load_scratch(struct tr *t, unsigned size, unsigned reg, const struct host_mem *m)
{
	if (size > 2) {
		tr_mem_op(t, size, OP_MOV_LOAD, reg, m);
		return;
	}
	emit_rex(&t->e, 0, reg, m->index, m->base, false);
	emit_bytes(&t->e, "\x0f\xb7", 2); /* movzx */
	emit_mem(&t->e, reg, m->base, m->index, m->scale, m->disp);
}

enum push_what { PUSH_REG, PUSH_IMM, PUSH_PC, PUSH_SCRATCH, PUSH_SEG };

/* Pushes guest register `val`, the immediate, the code address, scratch[1], or a segment register. */
static void push_host(struct tr *t, unsigned size, enum push_what what, int64_t val)
{
	struct emit *e = &t->e;
	unsigned free_reg;
	struct ea a = tr_stack_ea(t, RSP, -(int32_t)size);
	struct host_mem m;

	free_reg = tr_check(t, &a, size, MISS_WRITE, t->live[t->i], &m);
	if (what == PUSH_PC)
		val = (int64_t)tr_ip(t, (uint64_t)val);
	if ((what == PUSH_IMM || (what == PUSH_PC && !t->pic)) && tr_fits32(size == 8 ? val : (int32_t)val)) {
		tr_mem_op(t, size, 0xc7, 0, &m);
		emit_bytes(e, &val, size == 2 ? 2 : 4);
	} else {
		if (what == PUSH_REG && tr_host_reg((unsigned)val) != EMIT_NO_REG)
			free_reg = tr_host_reg((unsigned)val);
		else if (what == PUSH_REG)
			emit_load(e, free_reg, VCPU, OFF_GPR(val));
		else if (what == PUSH_SCRATCH)
			emit_load(e, free_reg, VCPU, OFF(scratch[1]));
		else if (what == PUSH_PC)
			tr_emit_pc(t, free_reg, (uint64_t)val);
		else if (what == PUSH_SEG)
			tr_load_selector(t, free_reg, (unsigned)val);
		else
			emit_mov_imm(e, free_reg, (uint64_t)val);
		tr_mem_op(t, size, OP_MOV_STORE, free_reg, &m);
	}
	tr_set_sp(t, RSP, -(int32_t)size);
}

bool tr_push(struct tr *t, const struct insn *in)
{
	unsigned size = operand_size(t, in);
	struct emit *e = &t->e;

	if (in->opsize != size)
		return false;
	if (in->ops[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		push_host(t, size, PUSH_IMM, in->imm[0]);
		return true;
	}
	if (in->has_mem) {
		struct ea a = tr_insn_operand(t, in);
		struct host_mem m;
		unsigned r;

		r = tr_check(t, &a, size, 0, t->live[t->i], &m);
		tr_mem_op(t, size, OP_MOV_LOAD, r, &m);
		emit_store(e, r, VCPU, OFF(scratch[1]));
		push_host(t, size, PUSH_SCRATCH, 0);
		return true;
	}
	if (in->ops[0].cls == ZYDIS_REGCLASS_SEGMENT) {
		/* What is written above the selector is the vendor's affair (do_push). */
		if (size != 2)
			return false;
		push_host(t, size, PUSH_SEG, in->ops[0].reg);
		return true;
	}
	push_host(t, size, PUSH_REG, in->ops[0].reg);
	return true;
}

bool tr_pop(struct tr *t, const struct insn *in)
{
	struct emit *e = &t->e;
	struct ea a = tr_stack_ea(t, RSP, 0);
	struct host_mem m;
	unsigned r, dst, size = operand_size(t, in);

	if (in->opsize != size || in->ops[0].type != ZYDIS_OPERAND_TYPE_REGISTER)
		return false;
	if (in->ops[0].cls == ZYDIS_REGCLASS_SEGMENT) {
		if (!tr_loads_selector(t, in->ops[0].reg))
			return false;
		tr_check(t, &a, size, 0, t->live[t->i], &m);
		load_scratch(t, 2, T0, &m);
		tr_set_selector(t, in->ops[0].reg);
		tr_set_sp(t, RSP, (int32_t)size);
		return true;
	}
	dst = tr_host_reg(in->ops[0].reg);
	r = tr_check(t, &a, size, 0, t->live[t->i], &m);
	if (dst == EMIT_NO_REG) {
		tr_mem_op(t, size, OP_MOV_LOAD, r, &m);
		emit_store(e, r, VCPU, OFF_GPR(in->ops[0].reg));
	} else if (dst == GSP && size < t->stack) {
		/* POP SP on a stack of 32 bits: the upper half is that of the pointer moved on. */
		tr_mem_op(t, size, OP_MOV_LOAD, r, &m);
		tr_set_sp(t, RSP, (int32_t)size);
		emit1(e, 0x66);
		emit_op_reg(e, 4, OP_MOV_STORE, r, GSP);
	} else {
		tr_mem_op(t, size, OP_MOV_LOAD, dst, &m);
	}
	if (dst != GSP)
		tr_set_sp(t, RSP, (int32_t)size);
	return true;
}

bool tr_leave(struct tr *t, const struct insn *in)
{
	struct ea a = tr_stack_ea(t, RBP, 0);
	struct host_mem m;
	unsigned r, size = operand_size(t, in);

	if (in->opsize != size)
		return false;
	r = tr_check(t, &a, size, 0, t->live[t->i], &m);
	tr_mem_op(t, size, OP_MOV_LOAD, r, &m);
	tr_set_sp(t, RBP, (int32_t)size);
	if (size == 2)
		emit1(&t->e, 0x66);
	emit_op_reg(&t->e, size, OP_MOV_STORE, r, RBP);
	return true;
}

void tr_pushf(struct tr *t, unsigned size)
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
	push_host(t, size, PUSH_SCRATCH, 0);
}

/* ---- near branches ---- */

/* The width of what is loaded into the instruction pointer; 0: not translated. */
static unsigned branch_size(const struct tr *t, const struct insn *in)
{
	if (in->far || (!t->seg && in->opsize == 2))
		return 0;
	return operand_size(t, in);
}

/* Where a branch goes that has a displacement; false: out of the segment, which is its fault. */
static bool near_target(const struct tr *t, const struct insn *in, uint64_t *ret)
{
	*ret = tr_target(t, in, t->va + in->len);
	return tr_ip_valid(t, *ret);
}

/* The target of an indirect JMP or CALL into T0. */
static bool load_target(struct tr *t, const struct insn *in)
{
	unsigned r, size = operand_size(t, in);

	if (in->opsize != size && t->mode == 4)
		return false;
	if (!in->has_mem && t->seg && size > t->mode) /* the flags are not spared */
		return false;
	if (in->has_mem) {
		struct ea a = tr_insn_operand(t, in);
		struct host_mem m;

		tr_check(t, &a, size, 0, FLAGS_ARITH, &m);
		load_scratch(t, size, T0, &m);
	} else {
		r = tr_host_reg(in->ops[0].reg);
		if (r == EMIT_NO_REG)
			emit_load(&t->e, T0, VCPU, OFF_GPR(in->ops[0].reg));
		else if (size == 2)
			tr_zero_extend16(t, T0, r);
		else
			emit_op_reg(&t->e, size, OP_MOV_STORE, r, T0);
	}
	tr_check_ip(t, size);
	return true;
}

bool tr_jump(struct tr *t, const struct insn *in)
{
	uint64_t to;

	if (in->far)
		return false;
	if (in->imm_relative) {
		if (!branch_size(t, in) || !near_target(t, in, &to))
			return false;
		tr_exit_to(t, to);
		return true;
	}
	if (!load_target(t, in))
		return false;
	tr_exit_indirect(t, 0);
	return true;
}

bool tr_call(struct tr *t, const struct insn *in)
{
	uint64_t next = tr_pc_mask(t, t->va + in->len), to;
	unsigned size = operand_size(t, in);

	if (in->far || (in->imm_relative && !branch_size(t, in)))
		return false;
	if (in->imm_relative) {
		if (!near_target(t, in, &to))
			return false;
		push_host(t, size, PUSH_PC, (int64_t)next);
		tr_exit_to(t, to);
		return true;
	}
	if (!load_target(t, in))
		return false;
	emit_store(&t->e, T0, VCPU, OFF(scratch[2]));
	push_host(t, size, PUSH_PC, (int64_t)next);
	emit_load(&t->e, T0, VCPU, OFF(scratch[2]));
	tr_exit_indirect(t, -(int32_t)t->mode);
	return true;
}

bool tr_ret(struct tr *t, const struct insn *in)
{
	struct ea a = tr_stack_ea(t, RSP, 0);
	struct host_mem m;
	unsigned size = branch_size(t, in);
	unsigned release =
	    in->nops && in->ops[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? (uint16_t)in->imm[0] : 0;

	if (!size)
		return false;
	tr_check(t, &a, size, 0, FLAGS_ARITH, &m);
	load_scratch(t, size, T0, &m);
	tr_check_ip(t, size);
	tr_set_sp(t, RSP, (int32_t)(size + release));
	tr_exit_indirect(t, (int32_t)(size + release));
	return true;
}

/* One that looks at CX alone has no form in 64-bit code: all of RCX is made that. */
static void jump_unless_cx(struct tr *t, const struct insn *in, uint64_t target)
{
	bool counts = in->mnemonic != ZYDIS_MNEMONIC_JCXZ, also_zf = in->flags_read;
	struct emit *e = &t->e;
	uint8_t *zero, *over = NULL;

	if (also_zf)
		tr_want_flags(t, false);
	else
		tr_flags_for_exit(t);
	if (counts) {
		emit1(e, 0x66);
		emit_lea(e, 4, RCX, RCX, EMIT_NO_REG, 1, -1);
	}
	emit_mov(e, T0, RCX);
	tr_zero_extend16(t, RCX, RCX);
	zero = emit_short(e, 0xe3); /* jrcxz zero */
	emit_mov(e, RCX, T0);
	if (also_zf || !counts) /* jmp over, jne over, je over */
		over = emit_short(e, !counts ? 0xeb : in->mnemonic == ZYDIS_MNEMONIC_LOOPE ? 0x75 : 0x74);
	if (counts) {
		emit1(e, 0xe9);
		tr_exit_jump(t, target);
	}
	emit_short_here(e, zero);
	emit_mov(e, RCX, T0);
	if (!counts) {
		emit1(e, 0xe9);
		tr_exit_jump(t, target);
	}
	if (over)
		emit_short_here(e, over);
}

bool tr_jcc(struct tr *t, const struct insn *in)
{
	struct emit *e = &t->e;
	uint64_t target;
	bool loop = in->mnemonic == ZYDIS_MNEMONIC_LOOP;

	if (!in->imm_relative || (!t->seg && t->mode == 4 && in->opsize == 2) || !near_target(t, in, &target))
		return false;
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_LOOPE:
	case ZYDIS_MNEMONIC_LOOPNE:
	case ZYDIS_MNEMONIC_JCXZ:
		if (!t->seg || in->addrsize != 2)
			return false;
		jump_unless_cx(t, in, target);
		return true;
	case ZYDIS_MNEMONIC_LOOP:
	case ZYDIS_MNEMONIC_JECXZ:
	case ZYDIS_MNEMONIC_JRCXZ: {
		if (in->addrsize == 2) {
			if (!t->seg)
				return false;
			jump_unless_cx(t, in, target);
			return true;
		}
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
