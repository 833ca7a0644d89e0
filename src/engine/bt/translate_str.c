/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The translator: REP MOVS and REP STOS.
 *
 * Kernels clear and copy structures with them, mostly within a page.  Then the
 * processor executes the instruction as it is, on host addresses: RDI and RSI have
 * the TLB entries' addends added meanwhile.  All else goes to C (interp_str_gpr.c):
 * more than a page, or across one, backwards, a TLB miss, which C fills, so the
 * next time finds it.
 *
 * Compilers clear small structures so, too, with a count that is a constant.  A few
 * plain moves are cheaper then: the processor takes some 30 cycles to begin a REP.
 */
#include "engine/bt/translate_internal.h"

#define MAX_UNROLLED 16 /* moves in place of a REP */

/* The elements from the address in `reg` on lie in one page with a tag; T1 is what to add to the address.
 * count: 0: RCX's. */
static void check_run(struct tr *t, unsigned reg, unsigned size, unsigned count, bool write,
		      const uint8_t *slow)
{
	struct emit *e = &t->e;

	emit_op_reg(e, t->mode, OP_MOV_STORE, reg, T0);
	tr_tag_check(t, count ? count * size : 1, write);
	emit4(e, (uint32_t)(slow - ((uint8_t *)emit_here(e) + 4)));
	if (!count) {
		emit_lea(e, 8, T0, T0, RCX, size, 0);
		emit_bytes(e, "\x49\x81\xfd", 3); /* cmp r13, imm32 */
		emit4(e, PAGE_SIZE);
		emit_jcc(e, 7, slow); /* ja */
	}
	emit_load(e, T1, T1, offsetof(struct tlb_entry, addend));
}

/* The count, if it is a small constant; 0: it is not. */
static unsigned known_count(const struct tr *t)
{
	for (unsigned i = t->i; i-- > 0;) {
		const struct insn *in = &t->in[i];

		if (!(in->regs_written >> RCX & 1))
			continue;
		if (in->cls != INSN_NATIVE || in->mnemonic != ZYDIS_MNEMONIC_MOV || in->opsize < 4 ||
		    in->ops[1].type != ZYDIS_OPERAND_TYPE_IMMEDIATE || (uint64_t)in->imm[0] > MAX_UNROLLED)
			return 0;
		return (unsigned)in->imm[0];
	}
	return 0;
}

/* The elements one by one; the addends are in T0 (of RDI) and T1. RCX is the data's way. */
static void unrolled(struct tr *t, unsigned size, unsigned count, bool movs)
{
	struct emit *e = &t->e;

	for (unsigned k = 0; k < count; k++) {
		int32_t disp = (int32_t)(k * size);

		if (movs)
			tr_move_op(t, size, false, RCX,
				   &(struct host_mem){ .base = RSI, .index = T1, .scale = 1, .disp = disp });
		tr_move_op(t, size, true, movs ? RCX : RAX,
			   &(struct host_mem){ .base = RDI, .index = T0, .scale = 1, .disp = disp });
	}
	emit_mov_imm(e, RCX, 0);
	emit_lea(e, 8, RDI, RDI, EMIT_NO_REG, 1, (int32_t)(count * size));
	if (movs)
		emit_lea(e, 8, RSI, RSI, EMIT_NO_REG, 1, (int32_t)(count * size));
}

static bool wanted(const struct tr *t, const struct insn *in, bool *movs)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_MOVSB:
	case ZYDIS_MNEMONIC_MOVSW:
	case ZYDIS_MNEMONIC_MOVSD:
	case ZYDIS_MNEMONIC_MOVSQ:
		*movs = true;
		break;
	case ZYDIS_MNEMONIC_STOSB:
	case ZYDIS_MNEMONIC_STOSW:
	case ZYDIS_MNEMONIC_STOSD:
	case ZYDIS_MNEMONIC_STOSQ:
		*movs = false;
		break;
	default:
		return false;
	}
	/* MOVSD is also an SSE instruction. */
	if (in->cls != INSN_SPECIAL || (!in->rep && !in->repne) || in->addrsize != t->mode || t->seg ||
	    t->v->lockstep)
		return false;
	return !*movs || (in->seg < SEG_FS && (t->mode == 8 || in->seg != SEG_CS));
}

/* On the full registers: RDI and with MOVS RSI are guest addresses in 32-bit code, and so is their end. */
static void narrow(struct tr *t, bool movs)
{
	if (t->mode == 8)
		return;
	emit_op_reg(&t->e, 4, OP_MOV_STORE, RDI, RDI);
	if (movs)
		emit_op_reg(&t->e, 4, OP_MOV_STORE, RSI, RSI);
}

bool tr_string(struct tr *t, const struct insn *in)
{
	unsigned size = (in->opcode & 1) ? in->opsize : 1;
	struct emit *e = &t->e;
	uint8_t *slow, *none = NULL;
	unsigned count;
	bool movs;

	if (!wanted(t, in, &movs))
		return false;
	slow = tr_to_special(t, in);
	if (!slow)
		return false;
	tr_fault_flags(t);
	count = t->mode == 8 ? known_count(t) : 0;
	if (!count) {
		emit_op_reg(e, t->mode, 0x85, RCX, RCX); /* test rcx, rcx */
		emit1(e, 0x0f);                          /* je none */
		emit1(e, 0x84);
		none = e->p;
		emit4(e, 0);
		emit_rex(e, t->mode == 8, 0, EMIT_NO_REG, RCX, false);
		emit_bytes(e, "\x81\xf9", 2); /* cmp rcx, imm32 */
		emit4(e, PAGE_SIZE / size);
		emit_jcc(e, 7, slow);
	}
	emit1(e, 0x80); /* cmp byte [dflag], 0 */
	emit_mem(e, 7, VCPU, EMIT_NO_REG, 1, OFF(dflag));
	emit1(e, 0);
	emit_jcc(e, 5, slow);
	check_run(t, RDI, size, count, true, slow);
	if (movs) {
		emit_store(e, T1, VCPU, OFF(scratch[0]));
		check_run(t, RSI, size, count, false, slow);
		emit_load(e, T0, VCPU, OFF(scratch[0]));
	} else {
		emit_mov(e, T0, T1);
		emit_op_reg(e, 4, 0x31, T1, T1); /* xor r14d, r14d */
	}
	if (count) {
		unrolled(t, size, count, movs);
		return true;
	}
	/* From here T0 is in RDI and T1 in RSI (t1_fault_signal). */
	if (t->mode == 4)
		emit_op_reg(e, 4, OP_MOV_STORE, RCX, RCX);
	narrow(t, movs);
	emit_op_reg(e, 8, 0x01, T0, RDI); /* add rdi, r13 */
	if (movs)
		emit_op_reg(e, 8, 0x01, T1, RSI);
	if (size == 2)
		emit1(e, 0x66);
	emit1(e, 0xf3);
	emit_rex(e, size == 8, 0, EMIT_NO_REG, EMIT_NO_REG, false);
	emit1(e, (uint8_t)((movs ? 0xa4 : 0xaa) | (size > 1)));
	emit_op_reg(e, 8, 0x29, T0, RDI); /* sub rdi, r13 */
	if (movs)
		emit_op_reg(e, 8, 0x29, T1, RSI);
	narrow(t, movs);
	tr_rel32_here(t, none);
	t->map[t->i].string = true;
	return true;
}
