/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The translator: segmented code, that is code of 16-bit segments (real mode,
 * virtual-8086 mode, protected mode) and 32-bit code whose segments are not flat.
 * Outside IA-32e mode only: what 64-bit systems run of this is rare, and interpreted.
 *
 *  1. Place.  Where a block's code lies is a linear address, as elsewhere, but what
 *     the code means depends on the segment, too: calls push IP, branches wrap in it.
 *     So a block's place (`pc`, in the jump cache, in links, in struct block) has CS's
 *     base in its upper half, beside the linear address in the lower; in the four
 *     bits that a base of whole paragraphs leaves, what else decides how code is read
 *     (PC_*, cache.h).  Far transfers therefore cost no more than a look into the jump
 *     cache, and flat code, whose upper half is 0, shares that without a conflict.
 *     C turns st.rip into a place on the way in and back on the way out.  CS with
 *     another base is the interpreter's.
 *  2. Operands.  offset = (base + index + displacement) modulo 2^16 or 2^32 by address
 *     size; linear address = (segment base + offset) modulo 2^32 (SDM 3A 3.3, 22.1.1).
 *     Bases change with each load of a segment register, so they are read at run time.
 *  3. Limits.  Each segment register has, for reading and for writing, the offset that
 *     no accessible byte reaches (v->seg_end): its limit + 1, or 0 if the segment is null,
 *     read-only (for writing), not readable or grows downwards.  C computes these on
 *     each way in (t1_gpr.c); one comparison per access then says that all of it lies
 *     inside.  Whatever does not is the interpreter's, which knows which exception
 *     it is, if any.
 *  4. CS's limit.  In 16-bit code it is at least 0xffff, and neither instructions nor
 *     branch targets lie above that: a block ends before an instruction that IP would
 *     leave 16 bits by, and a wider target is checked.  In 32-bit code it is 4 GiB.
 *  5. Stack.  t->stack is SS.B's width of the stack pointer (translate_ctl.c).
 *  6. In real and virtual-8086 mode segment registers are loaded here, and far branches done:
 *     the base is 16 times the selector and the rest stays (SDM 3A 21.1.1).  In protected
 *     mode C does both.  MOV SS and POP SS hold interrupts off for one instruction: that one
 *     is in the same block, as behind STI, or the interpreter does it.
 *  7. What an instruction accesses in several pieces (PUSHA, the two words of a far pointer on
 *     the stack) is accessed in one, once it is certain that no address wraps between them.
 *
 * CLI, STI and PUSHF are done here in real mode and at CPL 0; in virtual-8086 mode, where
 * IOPL decides, by C.
 */
#include "engine/bt/translate_internal.h"

/* ---- the instruction pointer ---- */

uint64_t tr_ip(const struct tr *t, uint64_t pc)
{
	return t->seg ? (uint32_t)pc - t->cs_base : pc;
}

uint64_t tr_target(const struct tr *t, const struct insn *in, uint64_t next)
{
	uint32_t ip;

	if (!t->seg)
		return tr_pc_mask(t, next + (uint64_t)in->imm[0]);
	ip = (uint32_t)(tr_ip(t, next) + (uint64_t)in->imm[0]);
	if (in->opsize == 2)
		ip = (uint16_t)ip;
	return (t->b->va & ~0xffffffffull) | (t->cs_base + ip);
}

bool tr_ip_valid(const struct tr *t, uint64_t pc)
{
	return !t->seg || t->mode == 4 || tr_ip(t, pc) <= 0xffff;
}

bool tr_goes_on(const struct tr *t, uint64_t pc, unsigned len)
{
	return !t->seg || (tr_ip_valid(t, pc) && tr_ip(t, pc) + len <= (t->mode == 2 ? 0xffff : 0xffffffffu));
}

void tr_check_ip(struct tr *t, unsigned size)
{
	if (!t->seg || t->mode == 4 || size == 2)
		return;
	emit_bytes(&t->e, "\x41\x81\xfd\xff\xff", 5); /* cmp r13d, 0xffff */
	emit_bytes(&t->e, "\0\0\x0f\x87", 4);         /* ja */
	tr_interp_jump(t);
}

void tr_seg_place(struct tr *t)
{
	struct emit *e = &t->e;

	/* The sum may wrap at 4 GiB, and what is or-ed must not touch the flags. */
	emit_lea(e, 4, T0, T0, EMIT_NO_REG, 1, (int32_t)t->cs_base);
	emit_mov_imm(e, T1, t->b->va & ~0xffffffffull);
	emit_lea(e, 8, T0, T0, T1, 1, 0);
}

/* ---- operands ---- */

void tr_zero_extend16(struct tr *t, unsigned dst, unsigned src)
{
	emit_rex(&t->e, 0, dst, EMIT_NO_REG, src, false);
	emit_bytes(&t->e, "\x0f\xb7", 2); /* movzx dst, src:16 */
	emit1(&t->e, (uint8_t)(0xc0 | (dst & 7) << 3 | (src & 7)));
}

void tr_seg_address(struct tr *t, const struct ea *a, unsigned size, bool write)
{
	struct emit *e = &t->e;
	int32_t end = (int32_t)offsetof(struct vcpu, seg_end) + 8 * (int32_t)(SEG_COUNT * write + a->seg);
	struct ea offset = *a;

	offset.seg = SEG_DS;
	tr_emit_ea(t, &offset);
	if (size > 1)
		emit_lea(e, 8, T1, T0, EMIT_NO_REG, 1, (int32_t)size);
	emit_op_mem(e, 8, OP_CMP_LOAD, size > 1 ? T1 : T0, VCPU, end);
	emit1(e, 0x0f);
	emit1(e, size > 1 ? 0x87 : 0x83); /* ja, jae */
	tr_interp_jump(t);
	if (a->several && a->addrsize == 2) {
		emit_bytes(e, "\x41\x81\xfe\0\0\1\0", 7); /* cmp r14d, 0x10000 */
		emit_bytes(e, "\x0f\x87", 2);             /* ja */
		tr_interp_jump(t);
	}
	emit_op_mem(e, 4, OP_ADD_LOAD, T0, VCPU, OFF_SEG(a->seg));
}

/* ---- segment registers ---- */

static int32_t selector(unsigned seg)
{
	return (int32_t)(offsetof(struct vcpu, st.seg) + seg * sizeof(struct x86_seg) +
			 offsetof(struct x86_seg, sel));
}

void tr_load_selector(struct tr *t, unsigned reg, unsigned seg)
{
	emit_rex(&t->e, 0, reg, EMIT_NO_REG, VCPU, false);
	emit_bytes(&t->e, "\x0f\xb7", 2); /* movzx */
	emit_mem(&t->e, reg, VCPU, EMIT_NO_REG, 1, selector(seg));
}

bool tr_loads_selector(const struct tr *t, unsigned seg)
{
	if (!t->seg || !t->real || seg == SEG_CS)
		return false;
	return seg != SEG_SS || t->i + 1 < t->n;
}

void tr_set_selector(struct tr *t, unsigned seg)
{
	struct emit *e = &t->e;

	emit1(e, 0x66);
	emit_op_mem(e, 4, OP_MOV_STORE, T0, VCPU, selector(seg));
	/* times 16, without the flags */
	emit_lea(e, 4, T0, T0, T0, 1, 0);
	emit_lea(e, 4, T0, EMIT_NO_REG, T0, 8, 0);
	emit_store(e, T0, VCPU, OFF_SEG(seg));
	if (seg == SEG_SS)
		t->shadow = t->i + 1;
}

/* MOV to a segment register. */
bool tr_mov_to_seg(struct tr *t, const struct insn *in)
{
	unsigned seg = in->ops[0].reg;
	struct host_mem m;
	struct ea a;

	if (in->ops[0].cls != ZYDIS_REGCLASS_SEGMENT || !tr_loads_selector(t, seg))
		return false;
	if (in->has_mem) {
		a = tr_insn_operand(t, in);
		tr_check(t, &a, 2, 0, t->live[t->i], &m);
		emit_rex(&t->e, 0, T0, m.index, m.base, false);
		emit_bytes(&t->e, "\x0f\xb7", 2); /* movzx */
		emit_mem(&t->e, T0, m.base, m.index, m.scale, m.disp);
	} else {
		tr_use_t1(t);
		tr_zero_extend16(t, T0, tr_host_reg(in->ops[1].reg));
	}
	tr_set_selector(t, seg);
	return true;
}

/* ---- strings ---- */

static struct ea string_ea(const struct insn *in, unsigned reg, unsigned seg)
{
	return (
	    struct ea){ .base = reg, .index = EMIT_NO_REG, .scale = 1, .seg = seg, .addrsize = in->addrsize };
}

static void advance(struct tr *t, const struct insn *in, unsigned reg, unsigned size)
{
	if (in->addrsize == 2)
		emit1(&t->e, 0x66);
	emit_lea(&t->e, 4, reg, reg, EMIT_NO_REG, 1, (int32_t)size);
}

/* LODS, STOS and MOVS, once and forwards: old programs' loops are made of them. */
bool tr_seg_string(struct tr *t, const struct insn *in)
{
	unsigned size = (in->opcode & 1) ? in->opsize : 1, r;
	struct ea from = string_ea(in, RSI, in->seg), to = string_ea(in, RDI, SEG_ES);
	uint32_t live = t->live[t->i];
	bool loads = true, stores = true;
	struct host_mem m;
	uint8_t *slow;

	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_LODSB:
	case ZYDIS_MNEMONIC_LODSW:
	case ZYDIS_MNEMONIC_LODSD:
		stores = false;
		break;
	case ZYDIS_MNEMONIC_STOSB:
	case ZYDIS_MNEMONIC_STOSW:
	case ZYDIS_MNEMONIC_STOSD:
		loads = false;
		break;
	case ZYDIS_MNEMONIC_MOVSB:
	case ZYDIS_MNEMONIC_MOVSW:
	case ZYDIS_MNEMONIC_MOVSD:
		break;
	default:
		return false;
	}
	if (!t->seg || in->cls != INSN_SPECIAL || in->rep || in->repne)
		return false;
	slow = tr_to_special(t, in);
	if (!slow)
		return false;
	emit1(&t->e, 0x80); /* cmp byte [dflag], 0 */
	emit_mem(&t->e, 7, VCPU, EMIT_NO_REG, 1, OFF(dflag));
	emit1(&t->e, 0);
	emit_jcc(&t->e, 5, slow);
	if (loads) {
		r = tr_check(t, &from, size, 0, live, &m);
		tr_move_op(t, size, false, stores ? r : RAX, &m);
		if (stores)
			emit_store(&t->e, r, VCPU, OFF(scratch[1]));
	}
	if (stores) {
		r = tr_check(t, &to, size, MISS_WRITE, live, &m);
		if (loads)
			emit_load(&t->e, r, VCPU, OFF(scratch[1]));
		tr_move_op(t, size, true, loads ? r : RAX, &m);
		advance(t, in, RDI, size);
	}
	if (loads)
		advance(t, in, RSI, size);
	return true;
}

/* ---- far branches, in real and virtual-8086 mode (SDM 2A CALL, JMP; 2B RET) ---- */

static int32_t cs_field(size_t field)
{
	return (int32_t)(offsetof(struct vcpu, st.seg) + SEG_CS * sizeof(struct x86_seg) + field);
}

/* What loading CS sets beside selector and base (seg_load_real). Flags survive. */
static void set_cs_hidden(struct tr *t)
{
	bool v86 = t->flags & BLOCK_USER;
	uint16_t attr = SEG_P | SEG_S | 3 | (v86 ? 3 << 5 : 0);

	emit1(&t->e, 0x66);
	emit1(&t->e, 0xc7); /* mov word */
	emit_mem(&t->e, 0, VCPU, EMIT_NO_REG, 1, cs_field(offsetof(struct x86_seg, attr)));
	emit_bytes(&t->e, &attr, 2);
	if (v86)
		emit_store_imm(&t->e, 4, VCPU, cs_field(offsetof(struct x86_seg, limit)), 0xffff);
}

/* To the 16-bit offset and, in the upper half, selector that T1 holds; the flags are in memory. */
static void far_exit(struct tr *t)
{
	struct emit *e = &t->e;

	tr_zero_extend16(t, T0, T1);
	emit_bytes(e, "\x41\xc1\xee\x10", 4); /* shr r14d, 16 */
	emit1(e, 0x66);
	emit_op_mem(e, 4, OP_MOV_STORE, T1, VCPU, selector(SEG_CS));
	set_cs_hidden(t);
	emit_bytes(e, "\x41\xc1\xe6\x04", 4); /* shl r14d, 4 */
	emit_store(e, T1, VCPU, OFF_SEG(SEG_CS));
	emit_lea(e, 4, T0, T0, T1, 1, 0);
	emit_bytes(e, "\x41\x83\xce", 3); /* or r14d, imm8 */
	emit1(e, (uint8_t)(t->b->va >> 32 & 15));
	emit_bytes(e, "\x49\xc1\xe6\x20", 4); /* shl r14, 32 */
	emit_lea(e, 8, T0, T0, T1, 1, 0);
	emit_jmp(e, t->v->cache->stub_lookup);
	t->ended = true;
}

/* To a far pointer in the code. */
static void far_exit_to(struct tr *t, const struct insn *in)
{
	uint32_t sel = (uint16_t)in->imm[1], base = sel << 4;

	emit1(&t->e, 0x66);
	emit1(&t->e, 0xc7); /* mov word */
	emit_mem(&t->e, 0, VCPU, EMIT_NO_REG, 1, selector(SEG_CS));
	emit_bytes(&t->e, &sel, 2);
	set_cs_hidden(t);
	emit_store_imm(&t->e, 8, VCPU, OFF_SEG(SEG_CS), (int32_t)base);
	tr_exit_to(t, (uint64_t)(base | (t->b->va >> 32 & 15)) << 32 | (base + (uint16_t)in->imm[0]));
}

/* CS and IP onto the stack, by one store: they lie side by side. */
static void far_push(struct tr *t, const struct insn *in)
{
	uint32_t next = (uint32_t)tr_ip(t, t->va + in->len);
	struct ea a = tr_stack_ea(t, RSP, -4);
	struct host_mem m;
	unsigned r;

	a.several = true;
	r = tr_check(t, &a, 4, MISS_WRITE, FLAGS_ARITH, &m);

	tr_load_selector(t, r, SEG_CS);
	emit_bytes(&t->e, "\x41\xc1", 2); /* shl r, 16 */
	emit1(&t->e, (uint8_t)(0xe0 | (r & 7)));
	emit1(&t->e, 16);
	emit_bytes(&t->e, "\x41\x81", 2); /* or r, imm32 */
	emit1(&t->e, (uint8_t)(0xc8 | (r & 7)));
	emit4(&t->e, next);
	tr_mem_op(t, 4, OP_MOV_STORE, r, &m);
	tr_set_sp(t, RSP, -4);
}

bool tr_far(struct tr *t, const struct insn *in)
{
	bool call = in->mnemonic == ZYDIS_MNEMONIC_CALL, ret = in->mnemonic == ZYDIS_MNEMONIC_RET;
	unsigned release =
	    ret && in->nops && in->ops[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? (uint16_t)in->imm[0] : 0;
	struct ea a;
	struct host_mem m;

	if (!t->seg || !t->real || !in->far || in->opsize != 2)
		return false;
	if (!ret && !in->has_mem) {
		if (call)
			far_push(t, in);
		far_exit_to(t, in);
		return true;
	}
	a = ret ? tr_stack_ea(t, RSP, 0) : tr_insn_operand(t, in);
	a.several = ret;
	tr_check(t, &a, 4, 0, FLAGS_ARITH, &m);
	tr_flags_to_mem(t, true);
	tr_mem_op(t, 4, OP_MOV_LOAD, T1, &m);
	if (call) {
		emit_store(&t->e, T1, VCPU, OFF(scratch[2]));
		far_push(t, in);
		emit_load(&t->e, T1, VCPU, OFF(scratch[2]));
	}
	if (ret)
		tr_set_sp(t, RSP, (int32_t)(4 + release));
	far_exit(t);
	return true;
}

/* LDS, LES, LFS, LGS of a far pointer of 32 bits. */
bool tr_load_pointer(struct tr *t, const struct insn *in, unsigned seg)
{
	struct ea a = tr_insn_operand(t, in);
	struct host_mem m;

	if (!t->seg || !t->real || in->opsize != 2)
		return false;
	tr_check(t, &a, 4, 0, t->live[t->i], &m);
	tr_mem_op(t, 4, OP_MOV_LOAD, T0, &m);
	emit1(&t->e, 0x66);
	emit_op_reg(&t->e, 4, OP_MOV_STORE, T0, tr_host_reg(in->ops[0].reg));
	emit_bytes(&t->e, "\x41\xc1\xed\x10", 4); /* shr r13d, 16 */
	tr_set_selector(t, seg);
	return true;
}

/* PUSHA and POPA, whole or not at all. */
bool tr_all_registers(struct tr *t, bool push)
{
	unsigned size = t->in[t->i].opsize;
	struct ea a = tr_stack_ea(t, RSP, push ? -8 * (int32_t)size : 0);
	struct host_mem m;

	if (!t->seg)
		return false;
	a.several = true;
	tr_check(t, &a, 8 * size, push ? MISS_WRITE : 0, t->live[t->i], &m);
	for (unsigned i = 0; i < 8; i++) {
		unsigned r = 7 - i; /* DI lies lowest */

		if (r != RSP || push)
			tr_mem_op(t, size, push ? OP_MOV_STORE : OP_MOV_LOAD, tr_host_reg(r), &m);
		m.disp += (int32_t)size;
	}
	tr_set_sp(t, RSP, push ? -8 * (int32_t)size : 8 * (int32_t)size);
	return true;
}
