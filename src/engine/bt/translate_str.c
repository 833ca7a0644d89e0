/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The translator: REP MOVS and REP STOS.
 *
 * Kernels clear and copy structures with them, mostly within a page.  Then the
 * processor executes the instruction as it is, on host addresses: RDI and RSI have
 * the TLB entries' addends added meanwhile.  All else goes to C (interp_str_gpr.c):
 * more than a page, or across one, backwards, a TLB miss, which C fills, so the
 * next time finds it.
 */
#include "engine/bt/translate_internal.h"

/* The elements from the address in `reg` on lie in one page with a tag; T1 is what to add to the address. */
static void check_run(struct tr *t, unsigned reg, unsigned size, bool write, const uint8_t *slow)
{
	struct emit *e = &t->e;

	emit_op_reg(e, t->mode, OP_MOV_STORE, reg, T0);
	tr_tag_check(t, 1, write);
	emit4(e, (uint32_t)(slow - ((uint8_t *)emit_here(e) + 4)));
	emit_lea(e, 8, T0, T0, RCX, size, 0);
	emit_bytes(e, "\x49\x81\xfd", 3); /* cmp r13, imm32 */
	emit4(e, PAGE_SIZE);
	emit_jcc(e, 7, slow); /* ja */
	emit_load(e, T1, T1, offsetof(struct tlb_entry, addend));
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
	uint8_t *slow, *none;
	bool movs;

	if (!wanted(t, in, &movs))
		return false;
	slow = tr_to_special(t, in);
	if (!slow)
		return false;
	tr_fault_flags(t);
	emit_op_reg(e, t->mode, 0x85, RCX, RCX); /* test rcx, rcx */
	emit1(e, 0x0f);                          /* je none */
	emit1(e, 0x84);
	none = e->p;
	emit4(e, 0);
	emit_rex(e, t->mode == 8, 0, EMIT_NO_REG, RCX, false);
	emit_bytes(e, "\x81\xf9", 2); /* cmp rcx, imm32 */
	emit4(e, PAGE_SIZE / size);
	emit_jcc(e, 7, slow);
	emit1(e, 0x80); /* cmp byte [dflag], 0 */
	emit_mem(e, 7, VCPU, EMIT_NO_REG, 1, OFF(dflag));
	emit1(e, 0);
	emit_jcc(e, 5, slow);
	check_run(t, RDI, size, true, slow);
	if (movs) {
		emit_store(e, T1, VCPU, OFF(scratch[0]));
		check_run(t, RSI, size, false, slow);
		emit_load(e, T0, VCPU, OFF(scratch[0]));
	} else {
		emit_mov(e, T0, T1);
		emit_op_reg(e, 4, 0x31, T1, T1); /* xor r14d, r14d */
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
	memcpy(none, &(int32_t){ (int32_t)(e->p - none - 4) }, 4);
	t->map[t->i].string = true;
	return true;
}
