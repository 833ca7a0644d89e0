/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The translator: where the guest's arithmetic flags are.
 *
 * They live in host RFLAGS, which a TLB check destroys.  Mostly nothing reads them
 * afterwards but the frame of an exception that the access may raise; so that must be
 * able to have them, at the least cost where there is none.  t->where says which of
 * these hold at the current point of the block:
 *
 *   IN_HOST  they are in RFLAGS;
 *   IN_MEM   they are in t1_flags (LAHF and SETO put them there, ADD and SAHF back);
 *   CAN_REDO the registers from which an instruction made them (t->redo) still hold
 *            what they held then: so the processor can make them again, without
 *            changing a register.
 *
 * CMP and TEST can simply be done again.  The result of AND, OR and XOR tells their
 * flags (TEST it with itself).  From the sum that ADD left, and its other operand, the
 * first is had back, and then added again; SUB likewise.  INC and DEC leave CF alone, which
 * is therefore put aside (v->no_carry); in a loop that never changes CF, only before it
 * (tr_loop_keeps_carry), or each turn would wait for the CF of the one before to come back from memory.
 * What has an operand in memory cannot be done again, that may change.
 *
 * While they can be made again nothing is saved before a check.  The cold part makes and
 * saves them before it calls C; for faults that the host's processor raises in a
 * copied instruction there is a piece of cold code of its own (COLD_REDO), to which
 * the signal's handler goes.
 */
#include "engine/bt/translate_internal.h"

/* ---- in memory ---- */

/*
 * RAX waits in T1, or where that is taken in memory, whose way back costs some
 * cycles on whatever uses RAX next.
 */
static void put_rax(struct tr *t, bool t1_free)
{
	if (t1_free)
		emit_mov(&t->e, T1, RAX);
	else
		emit_store(&t->e, RAX, VCPU, OFF(scratch[0]));
}

static void get_rax(struct tr *t, bool t1_free)
{
	if (t1_free)
		emit_mov(&t->e, RAX, T1);
	else
		emit_load(&t->e, RAX, VCPU, OFF(scratch[0]));
}

void tr_save_flags(struct tr *t, bool t1_free)
{
	struct emit *e = &t->e;

	put_rax(t, t1_free);
	emit1(e, 0x9f);                   /* lahf */
	emit_bytes(e, "\x0f\x90\xc0", 3); /* seto al */
	emit1(e, 0x66);
	emit_op_mem(e, 4, OP_MOV_STORE, RAX, VCPU, OFF(t1_flags));
	get_rax(t, t1_free);
}

void tr_load_flags(struct tr *t, bool t1_free)
{
	struct emit *e = &t->e;

	put_rax(t, t1_free);
	emit1(e, 0x0f); /* movzx eax, word */
	emit1(e, 0xb7);
	emit_mem(e, RAX, VCPU, EMIT_NO_REG, 1, OFF(t1_flags));
	emit_bytes(e, "\x04\x7f\x9e", 3); /* add al, 7f; sahf */
	get_rax(t, t1_free);
}

/* Is T1 between instructions anybody's? */
static bool t1_free(const struct tr *t)
{
	return !t->in_t1;
}

/* ---- made again ---- */

/* The register that `in` works on, into *r; false: AH..BH, or none. */
static bool target(const struct insn *in, struct redo *r)
{
	if (in->high8 || !in->nops || in->ops[0].type != ZYDIS_OPERAND_TYPE_REGISTER ||
	    in->ops[0].cls < ZYDIS_REGCLASS_GPR8 || in->ops[0].cls > ZYDIS_REGCLASS_GPR64)
		return false;
	r->size = in->ops[0].size;
	r->dst = in->ops[0].reg;
	r->src = REG_NONE;
	r->inputs = (uint16_t)(1u << r->dst);
	return true;
}

/* And the other operand; false: not a whole low register or a constant of 32 bits. */
static bool operands(const struct insn *in, struct redo *r)
{
	if (!target(in, r) || in->nops < 2)
		return false;
	if (in->ops[1].type == ZYDIS_OPERAND_TYPE_REGISTER) {
		r->src = in->ops[1].reg;
		return true;
	}
	r->imm = (int32_t)in->imm[0];
	return in->ops[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && (r->size < 8 || tr_fits32(in->imm[0])) &&
	       r->imm != INT32_MIN;
}

static bool is_step(const struct insn *in)
{
	return in->cls == INSN_NATIVE &&
	       (in->mnemonic == ZYDIS_MNEMONIC_INC || in->mnemonic == ZYDIS_MNEMONIC_DEC);
}

/* How the flags that `in` has just set can be made again. */
static bool describe(const struct insn *in, struct redo *r)
{
	bool ok, same;

	if (in->cls != INSN_NATIVE || in->unit != UNIT_INT || in->mem_write)
		return false;
	*r = (struct redo){ 0 };
	if (is_step(in)) {
		r->op = in->mnemonic == ZYDIS_MNEMONIC_INC ? REDO_INC : REDO_DEC;
		return target(in, r);
	}
	if (((in->flags_written | in->flags_undefined) & ~in->flags_read) != FLAGS_ARITH)
		return false;
	ok = operands(in, r);
	same = ok && r->src == r->dst;
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_CMP:
		r->op = REDO_CMP;
		break;
	case ZYDIS_MNEMONIC_TEST:
		r->op = REDO_TEST;
		break;
	case ZYDIS_MNEMONIC_ADD:
		r->op = REDO_ADD;
		ok = ok && !same;
		break;
	case ZYDIS_MNEMONIC_XOR:
	case ZYDIS_MNEMONIC_SUB:
		if (same) { /* zero, whatever it was: as after comparing anything with itself */
			r->op = REDO_CMP;
			r->size = 8;
			r->dst = r->src = RAX;
			r->inputs = 0;
			return true;
		}
		if (in->mnemonic == ZYDIS_MNEMONIC_SUB) {
			r->op = REDO_SUB;
			break;
		}
		/* fall through */
	case ZYDIS_MNEMONIC_AND:
	case ZYDIS_MNEMONIC_OR:
		ok = target(in, r);
		r->op = REDO_TEST;
		r->src = r->dst;
		return ok;
	default:
		return false;
	}
	r->inputs |= (uint16_t)(r->src == REG_NONE ? 0 : 1u << r->src);
	return ok && (tr_host_reg(r->src) != EMIT_NO_REG || r->src == r->dst || r->src == REG_NONE);
}

/* op src, dst (its form for 32-bit operands), and op imm, dst. */
static void emit_alu(struct emit *e, unsigned size, uint8_t op, unsigned src, unsigned dst)
{
	if (size == 2)
		emit1(e, 0x66);
	emit_rex(e, size == 8, src, EMIT_NO_REG, dst, size == 1);
	emit1(e, size == 1 ? op - 1 : op);
	emit1(e, (uint8_t)(0xc0 | (src & 7) << 3 | (dst & 7)));
}

static void emit_alu_imm(struct emit *e, unsigned size, uint8_t op, unsigned ext, unsigned dst, int32_t imm)
{
	if (size == 2)
		emit1(e, 0x66);
	emit_rex(e, size == 8, 0, EMIT_NO_REG, dst, size == 1);
	emit1(e, size == 1 ? op - 1 : op);
	emit1(e, (uint8_t)(0xc0 | ext << 3 | (dst & 7)));
	emit_bytes(e, &imm, size == 8 ? 4 : size);
}

/* A register in which neither operand is. */
static unsigned other_than(unsigned a, unsigned b)
{
	unsigned r = RAX;

	while (r == a || r == b)
		r++;
	return r;
}

void tr_redo_flags(struct tr *t, const struct redo *r, unsigned tmp)
{
	static const struct {
		uint8_t reg, imm, ext; /* opcodes */
	} ops[] = { [REDO_CMP] = { 0x39, 0x81, 7 }, [REDO_TEST] = { 0x85, 0xf7, 0 },
		    [REDO_ADD] = { 0x01, 0x81, 0 }, [REDO_SUB] = { 0x29, 0x81, 5 },
		    [REDO_INC] = { 0, 0xff, 0 },    [REDO_DEC] = { 0, 0xff, 1 } };
	struct emit *e = &t->e;
	bool one = r->op == REDO_INC || r->op == REDO_DEC;
	bool sum = one || r->op == REDO_ADD || r->op == REDO_SUB, lacks = tmp == EMIT_NO_REG;
	unsigned dst = tr_host_reg(r->dst), src = r->src == REG_NONE ? EMIT_NO_REG : tr_host_reg(r->src);
	bool high = dst == EMIT_NO_REG, borrow = (sum || high) && lacks;

	if (borrow) {
		tmp = other_than(dst, src);
		emit_store(e, tmp, VCPU, OFF(scratch[0]));
	}
	if (high) {
		emit_load(e, tmp, VCPU, OFF_GPR(r->dst));
		dst = tmp;
		if (r->src == r->dst)
			src = tmp;
	}
	if (one) {
		emit_lea(e, 8, tmp, dst, EMIT_NO_REG, 1, r->op == REDO_INC ? -1 : 1);
		dst = tmp;
		emit1(e, 0x80); /* cmp byte [no_carry], 1 */
		emit_mem(e, 7, VCPU, EMIT_NO_REG, 1, OFF(no_carry));
		emit1(e, 1);
	} else if (sum && r->src == REG_NONE) {
		emit_lea(e, 8, tmp, dst, EMIT_NO_REG, 1, r->op == REDO_ADD ? -r->imm : r->imm);
		dst = tmp;
	} else if (sum) {
		if (dst != tmp)
			emit_mov(e, tmp, dst);
		emit_alu(e, 8, r->op == REDO_ADD ? 0x29 : 0x01, src, tmp);
		dst = tmp;
	}
	if (one)
		emit_alu(e, r->size, ops[r->op].imm, ops[r->op].ext, dst);
	else if (r->src == REG_NONE)
		emit_alu_imm(e, r->size, ops[r->op].imm, ops[r->op].ext, dst, r->imm);
	else
		emit_alu(e, r->size, ops[r->op].reg, src, dst);
	if (borrow)
		emit_load(e, tmp, VCPU, OFF(scratch[0]));
}

bool tr_redo_only(const struct tr *t)
{
	return t->where == CAN_REDO;
}

/* They are nowhere but can be made: into RFLAGS. */
static void redo_here(struct tr *t, bool operands)
{
	tr_redo_flags(t, &t->redo, operands ? EMIT_NO_REG : T0);
	t->where |= IN_HOST;
}

/*
 * Should they be made again if anything wants them, rather than saved now? Not if from some point on they
 * cannot be while they are still wanted, or if they have to be in memory at the block's end. But who reads
 * them first wants them in RFLAGS, and the way there through memory takes long.
 */
static bool rather_redo(const struct tr *t)
{
	if (!(t->where & CAN_REDO))
		return false;
	for (unsigned i = t->i; i < t->n; i++) {
		const struct insn *in = &t->in[i];

		if (!t->live[i + 1] || ((in->flags_written | in->flags_undefined) && in->cls == INSN_NATIVE))
			return true;
		if ((in->cls == INSN_NATIVE || in->imm_relative) && in->flags_read)
			return true;
		if (in->regs_written & t->redo.inputs)
			return false;
		if (in->cls != INSN_SPECIAL || in->imm_relative)
			continue;
		switch (in->mnemonic) {
		case ZYDIS_MNEMONIC_PUSH:
		case ZYDIS_MNEMONIC_POP:
		case ZYDIS_MNEMONIC_LEA:
		case ZYDIS_MNEMONIC_LEAVE:
		case ZYDIS_MNEMONIC_MOV:
		case ZYDIS_MNEMONIC_CLI:
		case ZYDIS_MNEMONIC_CLAC:
		case ZYDIS_MNEMONIC_STAC:
		case ZYDIS_MNEMONIC_RDTSC:
			break;
		default:
			return false;
		}
	}
	return true;
}

void tr_before_insn(struct tr *t, const struct insn *in)
{
	if (!(t->where & CAN_REDO) || !(in->regs_written & t->redo.inputs) ||
	    !(t->live[t->i + 1] & ~tr_insn_kills(t, in)))
		return;
	tr_flags_for_exit(t);
	t->where &= ~(unsigned)CAN_REDO;
}

void tr_after_insn(struct tr *t, const struct insn *in)
{
	bool writes = in->flags_written | in->flags_undefined;

	if (writes || (in->regs_written & t->redo.inputs))
		t->where &= ~(unsigned)CAN_REDO;
	if ((in->flags_written | in->flags_undefined) & FLAG_CF)
		t->carry_put = false;
	if (writes && (t->where & IN_HOST) && describe(in, &t->redo)) {
		t->where |= CAN_REDO;
		t->redo_cold = 0;
	}
}

static bool needs_carry(const struct tr *t)
{
	return (t->redo.op == REDO_INC || t->redo.op == REDO_DEC) && !t->carry_put;
}

void tr_put_carry(struct tr *t)
{
	emit_bytes(&t->e, "\x0f\x93", 2); /* setnc */
	emit_mem(&t->e, 0, VCPU, EMIT_NO_REG, 1, OFF(no_carry));
	t->carry_put = true;
}

bool tr_loop_keeps_carry(const struct tr *t)
{
	uint64_t va = t->b->va;
	bool steps = false;

	for (unsigned i = 0; i < t->n; i++) {
		const struct insn *in = &t->in[i];

		va += in->len;
		if (in->cls == INSN_SPECIAL && in->imm_relative && in->flags_read &&
		    tr_target(t, in, va) == t->b->va)
			return steps;
		if (((in->flags_written | in->flags_undefined) & FLAG_CF) ||
		    (in->cls == INSN_SPECIAL && !in->imm_relative && in->mnemonic != ZYDIS_MNEMONIC_LEA))
			return false;
		steps |= is_step(in);
	}
	return false;
}

/* ---- what the block's code needs ---- */

void tr_spare_flags(struct tr *t, uint32_t needed)
{
	if (needed && !(t->where & IN_MEM)) {
		if (!rather_redo(t))
			tr_flags_to_mem(t, false);
		else if (needs_carry(t))
			tr_put_carry(t);
	}
	t->where &= ~(unsigned)IN_HOST;
}

void tr_flags_to_mem(struct tr *t, bool operands)
{
	if (t->where & IN_MEM)
		return;
	if (tr_redo_only(t))
		redo_here(t, operands);
	tr_save_flags(t, t1_free(t));
	t->where |= IN_MEM;
}

void tr_flags_for_exit(struct tr *t)
{
	if (tr_redo_only(t))
		redo_here(t, false);
}

void tr_want_flags(struct tr *t, bool operands)
{
	if (t->where & IN_HOST)
		return;
	if ((t->where & CAN_REDO) && !needs_carry(t)) {
		redo_here(t, operands);
	} else {
		tr_load_flags(t, !operands && t1_free(t));
		t->where |= IN_HOST;
	}
}
