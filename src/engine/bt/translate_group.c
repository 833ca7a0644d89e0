/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The translator: groups of memory accesses that one check covers.
 *
 * Code saves registers in runs of PUSH, and reads one field of a structure after
 * another, or copies fields from one structure to another.  Accesses relative to one
 * base register that does not change in between (RSP's changes by PUSH, POP and
 * constants are known) lie close together, mostly in one page.  So the first of them
 * checks the whole range, and the others find what to add to a guest address in T1
 * (host R14) or, where something else has used that meanwhile, in the group's slot
 * (v->group).
 *
 *  1. The check demands that the range lies in one page that may be read, and
 *     written if a member writes before the first branch.  No member behind a
 *     branch writes unless one before it does, so a page that is only read is
 *     not asked for more than it gives.
 *  2. A miss does for the page what the first member, which certainly executes,
 *     would do: it sets A, and D only if that one writes.  If the range then
 *     passes, the group goes on; else (it crosses a page, a later member would
 *     fault, set D, write to code or meet a device) the block is left before the
 *     first member, to a block without groups (BLOCK_NOGROUP), where each
 *     member has its own check and its own exception.
 *  3. Between the first member and the last the vCPU is in this block or in the slow
 *     path of one of its accesses, so nothing can take the page's translation back: what
 *     invalidates it ends a block, other vCPUs' requests are served outside, and a TLB may
 *     keep what another entry's fill has displaced.  STAC and CLAC, which change the table,
 *     end a group.
 *  4. Several groups may be open at once; t->in_t1 says whose addend T1 holds.  All that
 *     uses T1 for something else says so by tr_use_t1.
 *  5. Members are checked already, so they do not touch the host's flags.
 */
#include "engine/bt/translate_internal.h"

#define MAX_SPAN 2032 /* of a group, in bytes; a multiple of 16 */

/* What an instruction does to memory and to its base register. */
struct access {
	unsigned base;
	int64_t lo;
	unsigned size;
	bool write;
	int64_t moves; /* by so much it changes the base, RSP, afterwards */
	bool last;     /* the base is another value then */
};

static unsigned nr_high(const struct insn *in)
{
	uint8_t regs[4];

	return tr_high_data_regs(in, regs);
}

static bool stack_access(const struct tr *t, const struct insn *in, struct access *a)
{
	bool reg = in->nops && in->ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		   in->ops[0].cls != ZYDIS_REGCLASS_SEGMENT;

	*a = (struct access){ .base = RSP, .size = 8 };
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_PUSH:
		if (in->opsize != 8 || (!reg && in->ops[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE))
			return false;
		a->lo = a->moves = -8;
		a->write = true;
		return true;
	case ZYDIS_MNEMONIC_POP:
		a->moves = 8;
		a->last = reg && in->ops[0].reg == RSP;
		return in->opsize == 8 && reg;
	case ZYDIS_MNEMONIC_CALL:
		a->lo = -8;
		a->write = a->last = true;
		return !in->far && !in->has_mem && in->opsize != 2 && tr_in_reach(t, in);
	case ZYDIS_MNEMONIC_RET:
		a->last = true;
		return !in->far && in->opsize != 2;
	default:
		return false;
	}
}

/* The access of instruction i, if it may be in a group. */
static bool access_of(const struct tr *t, unsigned i, struct access *a)
{
	const struct insn *in = &t->in[i];

	if (in->cls == INSN_SPECIAL)
		return stack_access(t, in, a);
	if (!in->has_mem || in->base >= 16 || in->index != REG_NONE || in->seg >= SEG_FS ||
	    in->addrsize != 8 || in->mem_masked || in->mem_size > 64 || tr_is_bit_string(in) ||
	    !tr_can_copy(t, in))
		return false;
	/* T0 holds the base or a data register. */
	if (nr_high(in) + (in->base >= R13) > 1)
		return false;
	*a = (struct access){
		.base = in->base,
		.lo = in->disp,
		.size = in->mem_size,
		.write = in->mem_write,
		.last = in->regs_written >> in->base & 1,
	};
	return true;
}

/* Does instruction i leave the base alone, and can more members come behind it? What it adds to RSP goes to
 * *moves. */
static bool passes(const struct tr *t, unsigned i, unsigned base, int64_t *moves, bool *branch)
{
	const struct insn *in = &t->in[i];
	struct access a;

	*moves = 0;
	if (in->cls == INSN_NOP)
		return true;
	if (in->cls == INSN_SPECIAL) {
		if (in->mnemonic == ZYDIS_MNEMONIC_LEA)
			return in->ops[0].reg != base && tr_in_reach(t, in);
		if (in->mnemonic == ZYDIS_MNEMONIC_PUSH || in->mnemonic == ZYDIS_MNEMONIC_POP)
			return stack_access(t, in, &a) && !(in->regs_written >> base & 1);
		*branch = true;
		return in->imm_relative && in->flags_read && in->mnemonic != ZYDIS_MNEMONIC_LOOPE &&
		       in->mnemonic != ZYDIS_MNEMONIC_LOOPNE && tr_in_reach(t, in);
	}
	if (!tr_can_copy(t, in) || !tr_in_reach(t, in) || tr_is_bit_string(in))
		return false;
	if (!(in->regs_written >> base & 1))
		return true;
	if (base != RSP || in->has_mem || in->opsize != 8 || in->nops < 2 ||
	    in->ops[1].type != ZYDIS_OPERAND_TYPE_IMMEDIATE || !in->imm_signed || in->ops[0].reg != RSP)
		return false;
	*moves = in->mnemonic == ZYDIS_MNEMONIC_ADD ? in->imm[0] : -in->imm[0];
	return in->mnemonic == ZYDIS_MNEMONIC_ADD || in->mnemonic == ZYDIS_MNEMONIC_SUB;
}

/* Does instruction i, which is in no group, leave T1 alone? */
static bool spares_t1(const struct insn *in)
{
	if (in->cls == INSN_NOP || (in->cls == INSN_SPECIAL && in->imm_relative && in->flags_read))
		return true;
	if (in->mnemonic == ZYDIS_MNEMONIC_LEA)
		return in->index == REG_NONE || in->index < R13;
	return in->cls == INSN_NATIVE && !in->has_mem && nr_high(in) <= 1;
}

/* The group that begins with the current instruction; false: it would have this member only. */
static bool plan(const struct tr *t, struct access *whole, struct group *g)
{
	struct access a;
	int64_t moved = 0, step, lo, hi;
	bool branch = false;

	if (t->mode != 8 || (t->flags & BLOCK_NOGROUP) || !access_of(t, t->i, &a) || a.last)
		return false;
	*whole = a;
	lo = a.lo;
	hi = a.lo + a.size;
	moved = a.moves;
	*g = (struct group){ .members = 1ull << t->i, .last = t->i };
	for (unsigned i = t->i + 1; i < t->n; i++) {
		if (access_of(t, i, &a) && a.base == whole->base) {
			int64_t low = moved + a.lo, high = low + a.size;

			low = low < lo ? low : lo;
			high = high > hi ? high : hi;
			if (high - low > MAX_SPAN || (branch && a.write && !whole->write))
				break;
			lo = low;
			hi = high;
			whole->write |= a.write;
			moved += a.moves;
			g->members |= 1ull << i;
			g->last = i;
			if (a.last)
				break;
		} else if (passes(t, i, whole->base, &step, &branch)) {
			moved += step;
		} else {
			break;
		}
	}
	/* Is T1 used for something else before the last? */
	for (unsigned i = t->i + 1; i < g->last; i++)
		g->slot |= !(g->members >> i & 1) && !spares_t1(&t->in[i]);
	whole->lo = lo;
	whole->size = (unsigned)(hi - lo);
	return g->last > t->i && tr_fits32(lo);
}

/* The open group whose member the current instruction's access relative to `base` is; NULL: none. */
static struct group *find(struct tr *t, unsigned base)
{
	struct access a;

	for (unsigned k = 0; k < MAX_GROUPS; k++) {
		struct group *g = &t->groups[k];

		if (g->members >> t->i & 1 && access_of(t, t->i, &a) && a.base == base)
			return g;
	}
	return NULL;
}

static struct group *unused(struct tr *t)
{
	for (unsigned k = 0; k < MAX_GROUPS; k++)
		if (!t->groups[k].members || t->groups[k].last < t->i)
			return &t->groups[k];
	return NULL;
}

static int32_t slot_of(const struct tr *t, const struct group *g)
{
	return OFF(group[0]) + 8 * (int32_t)(g - t->groups);
}

/* Checks the group's whole range; afterwards T1 is its addend. */
static void begin(struct tr *t, const struct ea *a, const struct access *whole, bool write, uint32_t live,
		  struct group *g)
{
	struct ea range = *a;
	uint8_t *start;

	tr_use_t1(t);
	tr_spare_flags(t, live);
	start = emit_here(&t->e);
	range.disp = whole->lo;
	tr_emit_ea(t, &range);
	tr_check_range(t, start, &range, whole->size, write, whole->write);
	if (g->slot)
		emit_store(&t->e, T1, VCPU, slot_of(t, g));
}

/* The member's operand: T1 is what to add to its address. */
static unsigned member(struct tr *t, const struct ea *a, struct host_mem *m)
{
	unsigned base = tr_host_reg(a->base);
	bool high = base == EMIT_NO_REG;

	if (high) {
		emit_load(&t->e, T0, VCPU, OFF_GPR(a->base));
		base = T0;
	}
	*m = (struct host_mem){ .base = (uint8_t)base, .index = T1, .scale = 1, .disp = (int32_t)a->disp };
	return high ? EMIT_NO_REG : T0;
}

bool tr_group(struct tr *t, const struct ea *a, bool write, uint32_t live, struct host_mem *m,
	      unsigned *free_reg)
{
	struct group *g, new;
	struct access whole;

	if (a->base == EMIT_NO_REG || a->index != EMIT_NO_REG || a->seg != SEG_DS)
		return false;
	g = find(t, a->base);
	if (!g) {
		g = unused(t);
		if (!g || !plan(t, &whole, &new))
			return false;
		*g = new;
		begin(t, a, &whole, write, live, g);
	} else if (t->in_t1 != g) {
		if (!g->slot)
			return false;
		emit_load(&t->e, T1, VCPU, slot_of(t, g));
	}
	t->in_t1 = g;
	*free_reg = member(t, a, m);
	return true;
}

void tr_use_t1(struct tr *t)
{
	t->in_t1 = NULL;
}

void tr_group_after(struct tr *t, const struct insn *in)
{
	for (unsigned k = 0; k < MAX_GROUPS; k++)
		if (t->groups[k].members >> t->i & 1)
			return;
	if (!spares_t1(in))
		tr_use_t1(t);
}
