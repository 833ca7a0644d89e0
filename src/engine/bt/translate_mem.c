/* SPDX-License-Identifier: Apache-2.0 */
/* The translator: ways out of a block, memory operands. */
#include <string.h>

#include "engine/bt/translate_internal.h"

/* A code address into a host register; flags survive. */
void tr_emit_pc(struct tr *t, unsigned reg, uint64_t va)
{
	if (!t->pic) {
		emit_mov_imm(&t->e, reg, va);
		return;
	}
	emit_load(&t->e, reg, VCPU, OFF(page_va));
	emit_lea(&t->e, t->mode, reg, reg, EMIT_NO_REG, 1, (int32_t)(va - (t->b->va & PAGE_MASK)));
}

/* ---- exits ---- */

static struct cold *add_cold(struct tr *t, enum cold_kind kind)
{
	struct cold *c = &t->cold[t->n_cold++];

	memset(c, 0, sizeof *c);
	c->kind = kind;
	c->redo_flags = tr_redo_only(t);
	if (c->redo_flags)
		c->redo = t->redo;
	return c;
}

/* The current instruction may fault in the host: where the handler goes if the flags are to be made then. */
void tr_fault_flags(struct tr *t)
{
	if (!tr_redo_only(t))
		return;
	if (!t->redo_cold)
		add_cold(t, COLD_REDO);
	t->redo_cold = t->redo_cold ? t->redo_cold : t->n_cold;
	t->map[t->i].redo = (uint16_t)t->redo_cold;
}

void tr_rel32_here(struct tr *t, uint8_t *at)
{
	int32_t rel = (int32_t)(t->e.p - (at + 4));

	memcpy(at, &rel, 4);
}

static uint8_t *emit_rel32(struct tr *t)
{
	uint8_t *p = t->e.p;

	emit4(&t->e, 0);
	return p;
}

/* A jump (opcode already emitted) to va: an exit that can be linked where va lies in the same page. */
void tr_exit_jump(struct tr *t, uint64_t va)
{
	struct cold *c = add_cold(t, COLD_EXIT);

	c->patch = emit_rel32(t);
	t->exits[t->n_exits] = (struct block_exit){
		.patch = c->patch,
		.target = va,
		.from = t->b,
		.in_host = t->where & IN_HOST,
		.in_mem = t->where & IN_MEM,
		.same_page = ((va ^ t->b->va) & PAGE_MASK) == 0,
		.carry_put = t->carry_put && (t->where & IN_HOST),
	};
	c->rip = va;
	c->exit = t->n_exits++;
	c->save_flags = !(t->where & IN_MEM);
}

/* Unconditional exit to a known address. */
void tr_exit_to(struct tr *t, uint64_t va)
{
	tr_flags_for_exit(t);
	emit1(&t->e, 0xe9);
	tr_exit_jump(t, va);
	t->ended = true;
}

/* Exit to the address in T0; the flags are brought to memory. */
void tr_exit_indirect(struct tr *t, int32_t rsp)
{
	tr_flags_to_mem(t, true);
	if (t->seg)
		tr_seg_place(t);
	if (t->mode == 8) {
		emit_store_imm(&t->e, 4, VCPU, OFF(origin), 0); /* filled in when the record has its place */
		t->origin_patch = t->e.p - 4;
		t->origin =
		    (struct origin){ .from = t->b, .guest_off = (uint16_t)(t->va - t->b->va), .rsp = -rsp };
	}
	emit_jmp(&t->e, t->v->cache->stub_lookup);
	t->ended = true;
}

uint64_t tr_pc_mask(const struct tr *t, uint64_t pc)
{
	return t->mode == 8 || t->seg ? pc : (uint32_t)pc;
}

/* The record of the current instruction, for t1_special. */
static unsigned add_special(struct tr *t, const struct insn *in)
{
	struct special *sp = &t->specials[t->n_specials].record;

	memset(sp, 0, sizeof *sp);
	sp->in = *in;
	sp->pic = t->pic;
	sp->rip = t->pic ? t->va & 0xfff : tr_ip(t, t->va);
	sp->next = t->pic ? sp->rip + in->len : tr_ip(t, tr_pc_mask(t, t->va + in->len));
	sp->mask = t->mode == 8 ? ~0ull : 0xffffffffu;
	return t->n_specials++;
}

/* The way to C for the common ones; NULL: the general one. */
static const char *quick_thunk(const struct tr *t, const struct insn *in)
{
	if (t->mode != 8)
		return NULL;
	if (in->mnemonic == ZYDIS_MNEMONIC_SYSCALL)
		return t1_syscall_thunk;
	if (in->mnemonic == ZYDIS_MNEMONIC_SYSRET && in->rex_w && !(t->flags & BLOCK_USER))
		return t1_sysret_thunk;
	return NULL;
}

void tr_special_here(struct tr *t, unsigned k)
{
	const char *quick = quick_thunk(t, &t->specials[k].record.in);

	emit1(&t->e, 0x49); /* mov r13, imm64: filled in when the record has its place */
	emit1(&t->e, 0xbd);
	t->specials[k].patch = t->e.p;
	emit8(&t->e, 0);
	if (quick) {
		emit_mov_imm(&t->e, T1, (uint64_t)quick);
		emit_jmp_reg(&t->e, T1);
	} else {
		emit_jmp_mem(&t->e, VCPU, OFF(special_thunk));
	}
}

/* Ends the block with the current instruction, which C does (t1_special). */
void tr_exit_special(struct tr *t, const struct insn *in)
{
	tr_flags_to_mem(t, false);
	tr_special_here(t, add_special(t, in));
	t->ended = true;
}

uint8_t *tr_to_special(struct tr *t, const struct insn *in)
{
	uint8_t *over, *place;
	struct cold *c;

	/* The last is for an instruction that ends the block. */
	if (t->n_specials + 1 >= MAX_SPECIALS)
		return NULL;
	tr_spare_flags(t, t->live[t->i]);
	over = emit_short(&t->e, 0xeb); /* jmp over */
	place = emit_here(&t->e);
	emit1(&t->e, 0xe9);
	c = add_cold(t, COLD_SPECIAL);
	c->patch = emit_rel32(t);
	c->exit = add_special(t, in);
	emit_short_here(&t->e, over);
	return place;
}

/* Ends the block behind STI: the interpreter does one more instruction before anything may interrupt. */
void tr_exit_sti(struct tr *t)
{
	tr_flags_to_mem(t, false);
	tr_emit_pc(t, T0, t->va);
	emit_jmp(&t->e, t->v->cache->stub_sti);
	t->ended = true;
}

/* Ends the block before the current instruction, which the interpreter does. */
void tr_exit_interp(struct tr *t)
{
	struct cold *c;

	tr_flags_for_exit(t);
	c = add_cold(t, COLD_INTERP);
	emit1(&t->e, 0xe9);
	c->patch = emit_rel32(t);
	c->rip = t->va;
	c->save_flags = !(t->where & IN_MEM);
	t->ended = true;
}

void tr_interp_jump(struct tr *t)
{
	struct cold *c = add_cold(t, COLD_INTERP);

	c->patch = emit_rel32(t);
	c->rip = t->va;
}

/* ---- registers ---- */

/* Host register that holds guest register r, or EMIT_NO_REG for R13..R15. */
unsigned tr_host_reg(unsigned r)
{
	return r == RSP ? GSP : r >= R13 ? EMIT_NO_REG : r;
}

/* ---- memory ---- */

bool tr_fits32(int64_t x)
{
	return x == (int32_t)x;
}

struct ea tr_insn_operand(const struct tr *t, const struct insn *in)
{
	struct ea a = { .scale = in->scale, .disp = in->disp, .addrsize = in->addrsize };

	a.base = in->base == REG_NONE ? EMIT_NO_REG : in->base;
	a.index = in->index == REG_NONE ? EMIT_NO_REG : in->index;
	a.seg = in->seg >= SEG_FS || t->seg ? in->seg : SEG_DS;
	if (in->base == REG_PC) {
		a.base = EMIT_NO_REG;
		a.pcrel = true;
		a.disp += (int64_t)(t->va + in->len);
		if (in->addrsize == 4)
			a.disp = (uint32_t)a.disp;
	}
	if (a.base == EMIT_NO_REG && a.index == EMIT_NO_REG) {
		a.absolute = true;
		if (in->addrsize == 2)
			a.disp = (uint16_t)a.disp;
		else if (t->mode == 4 || in->addrsize == 4)
			a.disp = (uint32_t)a.disp;
	}
	return a;
}

void tr_emit_address(struct tr *t, const struct ea *a, unsigned dst, unsigned size)
{
	struct emit *e = &t->e;
	unsigned b = EMIT_NO_REG, x = EMIT_NO_REG;

	if (a->absolute) {
		if (a->pcrel)
			tr_emit_pc(t, dst, (uint64_t)a->disp);
		else
			emit_mov_imm(e, dst, size == 8 ? (uint64_t)a->disp : (uint32_t)a->disp);
		if (a->pcrel && t->mode == 8 && size == 4) /* relative to EIP: 32 bits */
			emit_op_reg(e, 4, OP_MOV_STORE, dst, dst);
		return;
	}
	if (a->base != EMIT_NO_REG) {
		b = tr_host_reg(a->base);
		if (b == EMIT_NO_REG) {
			emit_load(e, T0, VCPU, OFF_GPR(a->base));
			b = T0;
		}
	}
	if (a->index != EMIT_NO_REG) {
		x = tr_host_reg(a->index);
		if (x == EMIT_NO_REG) {
			emit_load(e, T1, VCPU, OFF_GPR(a->index));
			x = T1;
		}
	}
	if (a->addrsize == 2 && x == EMIT_NO_REG && !a->disp) {
		tr_zero_extend16(t, dst, b);
	} else if (x == EMIT_NO_REG && !a->disp) {
		emit_op_reg(e, size, OP_MOV_STORE, b, dst); /* which the processor does by renaming */
	} else {
		emit_lea(e, size, dst, b, x, a->scale, (int32_t)a->disp);
		if (a->addrsize == 2)
			tr_zero_extend16(t, dst, dst);
	}
}

void tr_emit_ea(struct tr *t, const struct ea *a)
{
	tr_emit_address(t, a, T0, a->addrsize == 8 ? 8 : 4);
	if (a->seg >= SEG_FS)
		emit_op_mem(&t->e, t->mode == 8 ? 8 : 4, OP_ADD_LOAD, T0, VCPU, OFF_SEG(a->seg));
}

/*
 * Can everything that in names relative to RIP be named by a 32-bit offset from
 * the page? A branch or operand almost 2 GiB away cannot.
 */
bool tr_in_reach(const struct tr *t, const struct insn *in)
{
	int64_t d = (int64_t)(t->va & 0xfff) + in->len;

	if (!t->pic || t->mode == 4)
		return true;
	if (in->imm_relative)
		d += in->imm[0];
	else if (in->base == REG_PC)
		d += in->disp;
	return tr_fits32(d);
}

static uint32_t miss_info(const struct tr *t, unsigned size, uint32_t how)
{
	return size | how | (uint32_t)(t->va - t->b->va) << 16;
}

static int32_t tag_offset(bool write)
{
	return write ? offsetof(struct tlb_entry, tag_w) : offsetof(struct tlb_entry, tag_r);
}

/* The operand is [base + disp] with a base that the host has in a register: the addend can be its index. */
static bool plain_base(const struct tr *t, const struct ea *a)
{
	return a->base != EMIT_NO_REG && tr_host_reg(a->base) != EMIT_NO_REG && a->index == EMIT_NO_REG &&
	       a->seg == SEG_DS && a->addrsize == 8 && t->mode == 8;
}

/*
 * Accesses relative to RSP mostly hit the page of the last one. Its address and addend are kept apart
 * (v->stack_page), so that this is found out in four instructions, and the access itself does not wait for
 * any but the last of them.
 */
static bool is_stack(const struct tr *t, const struct ea *a)
{
	const struct insn *in = &t->in[t->i];
	uint8_t high[4];

	/* An access at NO_STACK faults in the host, which must find all registers in their places. */
	return a->base == RSP && plain_base(t, a) && !in->high8 && tr_high_data_regs(in, high) <= 1;
}

static int32_t stack_field(const struct tr *t, size_t field)
{
	return OFF(stack_page[0]) + (int32_t)field +
	       (t->flags & BLOCK_USER ? (int32_t)sizeof(struct stack_page) : 0);
}

static int32_t stack_tag(const struct tr *t)
{
	return stack_field(t, offsetof(struct stack_page, tag));
}

static int32_t stack_addend(const struct tr *t)
{
	return stack_field(t, offsetof(struct stack_page, addend));
}

/* The comparison of the offset in a page that T0 is if its tag matched, and the opcode of the jump if not. */
static void compare_offset(struct emit *e, unsigned size)
{
	emit_bytes(e, "\x49\x81\xfd", 3); /* cmp r13, imm32 */
	emit4(e, PAGE_SIZE - size);
	emit1(e, 0x0f); /* ja */
	emit1(e, 0x87);
}

void tr_tag_check(struct tr *t, unsigned size, bool write)
{
	struct emit *e = &t->e;

	if (t->v->cache->rorx) {
		emit_bytes(e, "\xc4\x43\xfb\xf0\xf5\x07",
			   6); /* rorx r14, r13, 7: the mask takes care of the rest */
	} else {
		emit_mov(e, T1, T0);
		emit_bytes(e, "\x49\xc1\xee\x07", 4); /* shr r14, 7 */
	}
	emit_bytes(e, "\x41\x81\xe6", 3); /* and r14d, imm32 */
	emit4(e, (TLB_SIZE - 1) << 5);
	emit_op_mem(e, 8, OP_ADD_LOAD, T1, VCPU, OFF(tlb_base));
	emit_op_mem(e, 8, OP_XOR_LOAD, T0, T1, tag_offset(write));
	compare_offset(e, size);
}

/* Goes on behind the hot part's check, with the addend in T1. */
static void stack_found(struct tr *t, const struct cold *x)
{
	emit_load(&t->e, T1, T1, offsetof(struct tlb_entry, addend));
	emit_jmp(&t->e, x->after);
}

void tr_stack_missed(struct tr *t, struct cold *x)
{
	struct emit *e = &t->e;
	uint8_t *keep = NULL;

	emit_op_mem(e, 8, OP_XOR_LOAD, T0, VCPU, stack_tag(t));
	tr_tag_check(t, x->size, true);
	x->patch = emit_rel32(t);
	/* What only EFLAGS.AC allows must not outlive it. */
	if ((t->flags & (BLOCK_USER | BLOCK_SMAP)) == BLOCK_SMAP) {
		emit1(e, 0x80); /* cmp byte [acflag], 0 */
		emit_mem(e, 7, VCPU, EMIT_NO_REG, 1, OFF(acflag));
		emit1(e, 0);
		keep = emit_short(e, 0x75); /* jne keep */
	}
	emit_load(e, T0, T1, tag_offset(true));
	emit_store(e, T0, VCPU, stack_tag(t));
	emit_load(e, T0, T1, offsetof(struct tlb_entry, addend));
	emit_store(e, T0, VCPU, stack_addend(t));
	if (keep)
		emit_short_here(e, keep);
	stack_found(t, x);
	if (x->tag == tag_offset(true))
		return;
	/* One that can only be read does not become the stack's. */
	tr_rel32_here(t, x->patch);
	emit_op_mem(e, 8, OP_XOR_LOAD, T0, T1, tag_offset(true));
	emit_op_mem(e, 8, OP_XOR_LOAD, T0, T1, x->tag);
	compare_offset(e, x->size);
	x->patch = emit_rel32(t);
	stack_found(t, x);
}

/* The check of the address in T0 and its cold part, which the caller completes. Afterwards T1 is the TLB's
 * entry, or if `stack` the addend. */
static struct cold *check(struct tr *t, enum cold_kind kind, uint8_t *start, bool stack, unsigned size,
			  bool write)
{
	struct emit *e = &t->e;
	struct cold *c;

	if (stack) {
		emit_op_mem(e, 8, OP_XOR_LOAD, T0, VCPU, stack_tag(t));
		compare_offset(e, size);
	} else {
		tr_tag_check(t, size, write);
	}
	c = add_cold(t, kind);
	c->patch = emit_rel32(t);
	c->retry = start;
	c->tag = tag_offset(write);
	c->stack = stack;
	c->size = (uint16_t)size;
	if (stack)
		emit_load(e, T1, VCPU, stack_addend(t));
	c->after = emit_here(e);
	return c;
}

void tr_check_address(struct tr *t, uint8_t *start, unsigned size, uint32_t how)
{
	check(t, COLD_MISS, start, false, size, how & MISS_WRITE)->info = miss_info(t, size, how);
}

void tr_check_range(struct tr *t, uint8_t *start, const struct ea *a, unsigned size, bool write, bool any)
{
	bool stack = is_stack(t, a);
	struct cold *c = check(t, COLD_GROUP, start, stack, size, any);

	if (!stack)
		emit_load(&t->e, T1, T1, offsetof(struct tlb_entry, addend));
	c->info = miss_info(t, (size + 15) / 16,
			    MISS_GROUP | (write ? MISS_WRITE : 0) | (any ? MISS_GROUP_ANY : 0));
	c->rip = t->va;
	c->exit = t->n_exits;
	t->exits[t->n_exits++] = (struct block_exit){
		.target = t->va, .from = t->b, .in_mem = true, .same_page = true, .no_group = true
	};
}

unsigned tr_check(struct tr *t, const struct ea *a, unsigned size, uint32_t how, uint32_t live,
		  struct host_mem *m)
{
	struct emit *e = &t->e;
	unsigned free_reg;
	bool stack = is_stack(t, a);
	uint8_t *start;

	if (tr_group(t, a, how & MISS_WRITE, live, m, &free_reg)) {
		tr_fault_flags(t);
		return free_reg;
	}
	tr_use_t1(t);
	tr_spare_flags(t, live);
	tr_fault_flags(t);
	start = emit_here(e);
	if (t->seg)
		tr_seg_address(t, a, size, how & MISS_WRITE);
	else
		tr_emit_ea(t, a);
	check(t, COLD_MISS, start, stack, size, how & MISS_WRITE)->info = miss_info(t, size, how);
	if (plain_base(t, a)) {
		if (!stack)
			emit_load(e, T1, T1, offsetof(struct tlb_entry, addend));
		*m = (struct host_mem){ .base = (uint8_t)tr_host_reg(a->base),
					.index = T1,
					.scale = 1,
					.disp = (int32_t)a->disp };
		return T0;
	}
	emit_op_mem(e, 8, OP_ADD_LOAD, T0, T1, offsetof(struct tlb_entry, page));
	*m = (struct host_mem){ .base = T0, .index = EMIT_NO_REG, .scale = 1, .disp = 0 };
	return T1;
}
