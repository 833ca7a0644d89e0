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
		return t->flags & BLOCK_X87;
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
	bool half = in->opsize == 2; /* the upper bits stay */

	tr_emit_address(t, &a, half || h == EMIT_NO_REG ? T0 : h, size);
	if (half) {
		emit1(&t->e, 0x66);
		if (h == EMIT_NO_REG)
			emit_op_mem(&t->e, 4, OP_MOV_STORE, T0, VCPU, OFF_GPR(dst));
		else
			emit_op_reg(&t->e, 4, OP_MOV_STORE, T0, h);
	} else if (h == EMIT_NO_REG) {
		emit_store(&t->e, T0, VCPU, OFF_GPR(dst));
	}
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
	skip = emit_short(e, 0x74); /* je over */
	tr_emit_pc(t, T0, tr_pc_mask(t, t->va + in->len));
	emit_jmp(e, t->v->cache->stub_sti);
	emit_short_here(e, skip);
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

	if (in->ops[1].cls != ZYDIS_REGCLASS_SEGMENT || (in->opsize == 2 && !in->has_mem && !t->seg))
		return false;
	if (in->has_mem) {
		struct ea a = tr_insn_operand(t, in);

		h = tr_check(t, &a, 2, MISS_WRITE, t->live[t->i], &m);
	} else {
		h = tr_host_reg(r) == EMIT_NO_REG ? T0 : tr_host_reg(r);
		if (in->opsize == 2) { /* the upper half stays */
			tr_load_selector(t, T0, in->ops[1].reg);
			emit1(&t->e, 0x66);
			emit_op_reg(&t->e, 4, OP_MOV_STORE, T0, h);
			return true;
		}
	}
	tr_load_selector(t, h, in->ops[1].reg);
	if (in->has_mem) {
		tr_mem_op(t, 2, OP_MOV_STORE, h, &m);
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
		return tr_jump(t, in) || tr_far(t, in);
	case ZYDIS_MNEMONIC_CALL:
		return tr_call(t, in) || tr_far(t, in);
	case ZYDIS_MNEMONIC_RET:
		return tr_ret(t, in) || tr_far(t, in);
	case ZYDIS_MNEMONIC_PUSHA:
	case ZYDIS_MNEMONIC_PUSHAD:
		return tr_all_registers(t, true);
	case ZYDIS_MNEMONIC_POPA:
	case ZYDIS_MNEMONIC_POPAD:
		return tr_all_registers(t, false);
	case ZYDIS_MNEMONIC_LES:
		return tr_load_pointer(t, in, SEG_ES);
	case ZYDIS_MNEMONIC_LDS:
		return tr_load_pointer(t, in, SEG_DS);
	case ZYDIS_MNEMONIC_LFS:
		return tr_load_pointer(t, in, SEG_FS);
	case ZYDIS_MNEMONIC_LGS:
		return tr_load_pointer(t, in, SEG_GS);
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
	case ZYDIS_MNEMONIC_PUSHF:
	case ZYDIS_MNEMONIC_PUSHFQ:
	case ZYDIS_MNEMONIC_PUSHFD:
		/* In virtual-8086 mode IOPL decides. */
		if (t->seg ? t->real && (t->flags & BLOCK_USER) : in->opsize != t->mode)
			return false;
		tr_pushf(t, in->opsize);
		return true;
	case ZYDIS_MNEMONIC_MOV:
		if (tr_mov_from_seg(t, in) || tr_mov_to_seg(t, in))
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
		if (tr_string(t, in) || tr_seg_string(t, in))
			return true;
		break;
	}
	if (in->imm_relative && tr_jcc(t, in))
		return true;
	return !(t->flags & BLOCK_USER) && tr_kernel(t, in);
}
