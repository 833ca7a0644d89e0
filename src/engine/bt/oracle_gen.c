/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random instruction sequences.
 *
 * Most instructions come from walking all opcode maps, prefixes and operand
 * forms in a shuffled order, with random registers; the rest are those that the
 * translator treats specially.  The generator keeps track of which registers
 * still hold pointers into the data area and small numbers, so that most memory
 * operands hit it; a few miss, for the faults' sake.
 */
#include <string.h>

#include "base/util.h"
#include "engine/bt/oracle.h"

struct gen {
	uint64_t rng;
	unsigned mode;
	uint32_t ptr, small; /* registers that hold pointers, small numbers */
	uint32_t undefined;  /* flags with no defined value here */
	unsigned last_base;  /* of a memory operand */
	unsigned other_base; /* of one before */
};

static uint64_t rnd(struct gen *g)
{
	return oracle_random(&g->rng);
}

static unsigned below(struct gen *g, unsigned n)
{
	return (unsigned)(rnd(g) % n);
}

static bool chance(struct gen *g, unsigned percent)
{
	return below(g, 100) < percent;
}

static unsigned pick(struct gen *g, uint32_t set)
{
	unsigned n = (unsigned)__builtin_popcount(set), k;

	if (!n)
		return below(g, g->mode == 8 ? 16 : 8);
	k = below(g, n);
	while (k--)
		set &= set - 1;
	return (unsigned)__builtin_ctz(set);
}

/* ---- operands ---- */

struct operand {
	unsigned mod, rm, base, index, scale;
	bool sib, rip;
	int32_t disp;
	unsigned disp_size;
};

static void mem_operand(struct gen *g, struct operand *o, bool vsib, unsigned vec_regs)
{
	bool wild = chance(g, 2);

	memset(o, 0, sizeof *o);
	/* The same base again and again, or two by turns, so that the translator finds groups. */
	if (!(g->ptr >> g->last_base & 1) || chance(g, 25)) {
		g->other_base = g->last_base;
		g->last_base = pick(g, g->ptr);
	} else if (g->ptr >> g->other_base & 1 && chance(g, 50)) {
		unsigned base = g->last_base;

		g->last_base = g->other_base;
		g->other_base = base;
	}
	o->base = wild ? below(g, g->mode == 8 ? 16 : 8) : g->last_base;
	o->disp = (int32_t)below(g, 64) - 32;
	o->disp_size = 1;
	if (chance(g, 20))
		o->disp = 0;
	if (!vsib && chance(g, 12)) {
		/* RIP-relative, or absolute in 32-bit code and through a SIB byte. */
		o->disp = (int32_t)(DATA_VA + below(g, DATA_SIZE - 64));
		o->disp_size = 4;
		o->mod = 0;
		o->rm = 5;
		o->rip = g->mode == 8;
		o->base = 0;
		if (g->mode == 8 && chance(g, 40)) {
			o->rip = false;
			o->sib = true;
			o->rm = 4;
			o->base = 5;
			o->index = 4;
		}
		return;
	}
	if (chance(g, 30)) {
		o->disp_size = 4;
		o->disp = (int32_t)below(g, 2048) - 1024;
	}
	o->sib = vsib || (o->base & 7) == 4 || chance(g, 25);
	if (o->sib) {
		o->index = vsib ? below(g, vec_regs) : chance(g, 60) && g->small ? pick(g, g->small) : 4;
		o->scale = below(g, 4);
		o->rm = 4;
	} else {
		o->rm = o->base;
	}
	if (o->disp == 0 && (o->base & 7) != 5 && chance(g, 70))
		o->disp_size = 0;
	o->mod = o->disp_size == 0 ? 0 : o->disp_size == 1 ? 1 : 2;
}

static unsigned put_operand(uint8_t *p, unsigned reg, const struct operand *o, unsigned *disp_at)
{
	unsigned n = 0;

	p[n++] = (uint8_t)(o->mod << 6 | (reg & 7) << 3 | (o->rm & 7));
	if (o->mod == 3)
		return n;
	if (o->sib)
		p[n++] = (uint8_t)(o->scale << 6 | (o->index & 7) << 3 | (o->base & 7));
	*disp_at = n;
	if (o->disp_size == 1)
		p[n++] = (uint8_t)o->disp;
	else if (o->disp_size == 4) {
		memcpy(p + n, &o->disp, 4);
		n += 4;
	}
	return n;
}

/* ---- which instructions may be compared ---- */

static bool allowed(const struct gen *g, const struct insn *in)
{
	if (in->cls == INSN_UD)
		return in->mnemonic == ZYDIS_MNEMONIC_UD2;
	if (in->imm_relative)
		return false;
	/* Segment bases: of 32-bit code's null FS and GS nothing is known. */
	if (g->mode == 4 && (in->bytes[0] == 0x64 || in->bytes[0] == 0x65))
		return false;
	/* Not a NOP everywhere: AMD's executes F3 REX.B 90 as XCHG. */
	if (in->mnemonic == ZYDIS_MNEMONIC_PAUSE && in->rex_b)
		return false;
	if (in->cls == INSN_NOP && in->map == ZYDIS_OPCODE_MAP_0F && in->opcode == 0x0d)
		return false;
	switch (in->mnemonic) {
	/* would enter the host's kernel, or are what ends a sequence */
	case ZYDIS_MNEMONIC_SYSCALL:
	case ZYDIS_MNEMONIC_SYSENTER:
	case ZYDIS_MNEMONIC_INT3:
	/* With AC in its frame and that misaligned, it faults (#AC) before AC is set: the host's kernel takes
	 * this for a split lock and has it tried again for ever. */
	case ZYDIS_MNEMONIC_IRET:
	case ZYDIS_MNEMONIC_IRETD:
	case ZYDIS_MNEMONIC_IRETQ:
	/* differ by nature: time, identity, descriptor tables, randomness */
	case ZYDIS_MNEMONIC_CPUID:
	case ZYDIS_MNEMONIC_RDTSC:
	case ZYDIS_MNEMONIC_RDTSCP:
	case ZYDIS_MNEMONIC_RDPID:
	case ZYDIS_MNEMONIC_RDRAND:
	case ZYDIS_MNEMONIC_RDSEED:
	case ZYDIS_MNEMONIC_XGETBV:
	case ZYDIS_MNEMONIC_SGDT:
	case ZYDIS_MNEMONIC_SIDT:
	case ZYDIS_MNEMONIC_SLDT:
	case ZYDIS_MNEMONIC_STR:
	case ZYDIS_MNEMONIC_SMSW:
	case ZYDIS_MNEMONIC_LFS:
	case ZYDIS_MNEMONIC_LGS:
	case ZYDIS_MNEMONIC_VMCALL:
	case ZYDIS_MNEMONIC_VMMCALL:
	/* hold addresses of the last x87 instruction */
	case ZYDIS_MNEMONIC_FXSAVE:
	case ZYDIS_MNEMONIC_FXSAVE64:
	case ZYDIS_MNEMONIC_FXRSTOR:
	case ZYDIS_MNEMONIC_FXRSTOR64:
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FNSAVE:
	case ZYDIS_MNEMONIC_XSAVE:
	case ZYDIS_MNEMONIC_XSAVE64:
	case ZYDIS_MNEMONIC_XSAVEC:
	case ZYDIS_MNEMONIC_XSAVEC64:
	case ZYDIS_MNEMONIC_XSAVEOPT:
	case ZYDIS_MNEMONIC_XSAVEOPT64:
	case ZYDIS_MNEMONIC_XRSTOR:
	case ZYDIS_MNEMONIC_XRSTOR64:
	case ZYDIS_MNEMONIC_XSAVES:
	case ZYDIS_MNEMONIC_XRSTORS:
		return false;
	/* Far ones mostly fail, at their selectors. */
	case ZYDIS_MNEMONIC_JMP:
	case ZYDIS_MNEMONIC_CALL:
	case ZYDIS_MNEMONIC_RET:
		return in->far;
	case ZYDIS_MNEMONIC_INT:
		return in->imm[0] != 0x80;
	case ZYDIS_MNEMONIC_MOV:
	case ZYDIS_MNEMONIC_POP:
		/* FS and GS are the process's own. */
		if (in->cls == INSN_SPECIAL && in->ops[0].cls == ZYDIS_REGCLASS_SEGMENT &&
		    (in->ops[0].reg == SEG_FS || in->ops[0].reg == SEG_GS))
			return false;
		break;
	default:
		break;
	}
	/* Reading a flag that has no defined value. */
	if (in->flags_read & g->undefined)
		return false;
	if (g->undefined && (in->mnemonic == ZYDIS_MNEMONIC_PUSHF || in->mnemonic == ZYDIS_MNEMONIC_PUSHFD ||
			     in->mnemonic == ZYDIS_MNEMONIC_PUSHFQ))
		return false;
	if (g->undefined && (in->mnemonic == ZYDIS_MNEMONIC_DAA || in->mnemonic == ZYDIS_MNEMONIC_DAS ||
			     in->mnemonic == ZYDIS_MNEMONIC_AAA || in->mnemonic == ZYDIS_MNEMONIC_AAS))
		return false;
	return true;
}

/* Decodes what stands in it, and if that may be used enters it: true. */
static bool accept(struct gen *g, struct item *it, const uint8_t *buf, unsigned disp_at,
		   const struct operand *o)
{
	struct insn in;
	uint32_t full;

	if (insn_decode(buf, 15, g->mode, false, &in) != DECODE_OK || !allowed(g, &in))
		return false;
	memcpy(it->bytes, buf, in.len);
	it->len = in.len;
	it->rip_at = 0;
	if (in.moffs) {
		uint64_t a = DATA_VA + below(g, DATA_SIZE - 16);

		memcpy(it->bytes + in.len - in.addrsize, &a, in.addrsize);
	}
	if (o && o->rip && in.has_mem && in.base == REG_PC) {
		it->rip_at = (uint8_t)disp_at;
		it->rip_target = (uint64_t)(uint32_t)o->disp;
	}
	it->reads = in.flags_read;
	if (in.mnemonic == ZYDIS_MNEMONIC_PUSHF || in.mnemonic == ZYDIS_MNEMONIC_PUSHFD ||
	    in.mnemonic == ZYDIS_MNEMONIC_PUSHFQ)
		it->reads = FLAGS_ARITH;
	it->kills = (in.flags_written | in.flags_undefined) & ~(in.flags_read | in.flags_passed);
	it->undefined = in.flags_undefined;
	it->masked = in.mem_masked;
	it->maskmov = in.mem_vsib || in.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ ||
		      in.mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU || in.mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU;
	it->bcd = in.mnemonic == ZYDIS_MNEMONIC_DAA || in.mnemonic == ZYDIS_MNEMONIC_DAS ||
		  in.mnemonic == ZYDIS_MNEMONIC_AAA || in.mnemonic == ZYDIS_MNEMONIC_AAS ||
		  in.mnemonic == ZYDIS_MNEMONIC_AAM || in.mnemonic == ZYDIS_MNEMONIC_AAD;
	it->defines = full = in.flags_written & ~in.flags_passed & ~in.flags_undefined;
	if (in.cls == INSN_SPECIAL && (in.rep || in.repne)) /* nothing is written when the count is zero */
		it->defines = it->kills = full = 0;
	g->undefined = (g->undefined & ~full) | in.flags_undefined;
	{
		uint32_t gone = in.regs_written;

		if (in.mnemonic == ZYDIS_MNEMONIC_PUSH || in.mnemonic == ZYDIS_MNEMONIC_POP ||
		    in.mnemonic == ZYDIS_MNEMONIC_PUSHFQ || in.mnemonic == ZYDIS_MNEMONIC_PUSHFD)
			gone &=
			    in.ops[0].reg == RSP && in.mnemonic == ZYDIS_MNEMONIC_POP ? ~0u : ~(1u << RSP);
		g->ptr &= ~gone;
		g->small &= ~gone;
	}
	return true;
}

/* ---- the walk over all encodings ---- */

static bool legacy(struct gen *g, struct item *it, unsigned map, unsigned op, unsigned prefix, bool w,
		   bool mem)
{
	static const uint8_t prefixes[4] = { 0, 0x66, 0xf2, 0xf3 };
	uint8_t b[32];
	unsigned n = 0, reg = below(g, g->mode == 8 ? 16 : 8), at = 0, rex, start;
	struct operand o = { .mod = 3, .rm = below(g, g->mode == 8 ? 16 : 8) };

	if (mem)
		mem_operand(g, &o, false, 16);
	for (unsigned i = 0; i < sizeof b; i++)
		b[i] = (uint8_t)rnd(g);
	if (chance(g, 3))
		b[n++] = chance(g, 50) ? 0x64 : 0x65;
	if (chance(g, 3))
		b[n++] = 0x67;
	if (mem && chance(g, 6))
		b[n++] = 0xf0;
	if (prefixes[prefix])
		b[n++] = prefixes[prefix];
	if (prefix >= 2 && chance(g, 5))
		b[n++] = 0x66;
	rex = (unsigned)w << 3 | (reg >> 3 & 1) << 2 | (o.sib ? (o.index >> 3 & 1) << 1 : 0) |
	      ((mem ? o.base : o.rm) >> 3 & 1);
	if (g->mode == 8 && (rex || chance(g, 40)))
		b[n++] = (uint8_t)(0x40 | rex);
	if (map >= 1)
		b[n++] = 0x0f;
	if (map == 2)
		b[n++] = 0x38;
	if (map == 3)
		b[n++] = 0x3a;
	b[n++] = (uint8_t)op;
	start = n;
	n += put_operand(b + n, reg, &o, &at);
	return accept(g, it, b, start + at, &o);
}

static bool vex(struct gen *g, struct item *it, unsigned map, unsigned op, unsigned pp, bool w, bool mem)
{
	uint8_t b[32];
	unsigned n = 0, top = g->mode == 8 ? 16 : 8, reg = below(g, top), v = below(g, top), at = 0, start;
	unsigned l = below(g, 2);
	struct operand o = { .mod = 3, .rm = below(g, top) };
	bool vsib = map == 2 && op >= 0x90 && op <= 0x93;

	if (mem)
		mem_operand(g, &o, vsib, top);
	if (chance(g, 40))
		v = 0;
	for (unsigned i = 0; i < sizeof b; i++)
		b[i] = (uint8_t)rnd(g);
	if (chance(g, 2))
		b[n++] = 0x67;
	if (map == 1 && !w && !(o.sib && o.index >= 8) && !((mem ? o.base : o.rm) >= 8) && chance(g, 50)) {
		b[n++] = 0xc5;
		b[n++] = (uint8_t)((reg < 8) << 7 | (~v & 15) << 3 | l << 2 | pp);
	} else {
		b[n++] = 0xc4;
		b[n++] = (uint8_t)((reg < 8) << 7 | !(o.sib && o.index >= 8) << 6 |
				   ((mem ? o.base : o.rm) < 8) << 5 | map);
		b[n++] = (uint8_t)(w << 7 | (~v & 15) << 3 | l << 2 | pp);
	}
	b[n++] = (uint8_t)op;
	start = n;
	n += put_operand(b + n, reg, &o, &at);
	return accept(g, it, b, start + at, &o);
}

static bool evex(struct gen *g, struct item *it, unsigned map, unsigned op, unsigned pp, bool w, bool mem)
{
	uint8_t b[32];
	unsigned n = 0, top = g->mode == 8 ? 32 : 8, reg = below(g, top), v = below(g, top), at = 0, start;
	unsigned rmx = below(g, top), l = below(g, 3), k = chance(g, 50) ? 0 : below(g, 8), x;
	struct operand o = { .mod = 3, .rm = rmx };
	bool z = k && chance(g, 50), bc = chance(g, 20);
	bool vsib = map == 2 && ((op >= 0x90 && op <= 0x93) || (op >= 0xa0 && op <= 0xa3));

	if (mem)
		mem_operand(g, &o, vsib, top < 16 ? top : 16);
	if (vsib) {
		k = 1 + below(g, 7);
		z = bc = false;
	}
	if (chance(g, 40) && !vsib)
		v = 0;
	for (unsigned i = 0; i < sizeof b; i++)
		b[i] = (uint8_t)rnd(g);
	x = mem ? (o.sib ? o.index >> 3 & 1 : 0) : rmx >> 4 & 1;
	b[n++] = 0x62;
	b[n++] =
	    (uint8_t)(!(reg & 8) << 7 | !x << 6 | !((mem ? o.base : rmx) & 8) << 5 | !(reg & 16) << 4 | map);
	b[n++] = (uint8_t)(w << 7 | (~v & 15) << 3 | 4 | pp);
	b[n++] = (uint8_t)(z << 7 | l << 5 | bc << 4 | !(v & 16) << 3 | k);
	b[n++] = (uint8_t)op;
	start = n;
	n += put_operand(b + n, reg, &o, &at);
	return accept(g, it, b, start + at, &o);
}

static bool walk(struct gen *g, struct item *it)
{
	unsigned op = below(g, 256), pp = below(g, 4), kind = below(g, 100);
	bool w = g->mode == 8 && chance(g, 50), mem = chance(g, 55);

	if (kind < 16)
		return legacy(g, it, 0, op, chance(g, 70) ? 0 : pp, w, mem);
	if (kind < 40)
		return legacy(g, it, 1, op, pp, w, mem);
	if (kind < 50)
		return legacy(g, it, 2, op, pp, w, mem);
	if (kind < 56)
		return legacy(g, it, 3, op, chance(g, 70) ? 1 : pp, w, mem);
	if (kind < 76)
		return vex(g, it, 1 + below(g, 3), op, pp, w, mem);
	return evex(g, it, chance(g, 90) ? 1 + below(g, 3) : 5 + below(g, 2), op, pp, w, mem);
}

/* ---- what integer code is mostly made of, and what the translator does itself ---- */

/* Arithmetic with registers and constants, whose flags the translator makes again where they are wanted. */
static bool flags_of_registers(struct gen *g, struct item *it)
{
	static const uint8_t ops[] = { 0xfe, 0xff, 0x84, 0x85, 0x80, 0x81, 0x83, 0xf6, 0xf7, 0xa8, 0xa9 };
	unsigned op = chance(g, 60) ? below(g, 0x40) : ops[below(g, ARRAY_SIZE(ops))];

	return legacy(g, it, 0, op, chance(g, 15), g->mode == 8 && chance(g, 45), false);
}

static bool integer(struct gen *g, struct item *it)
{
	static const uint8_t ops0[] = { 0x80, 0x81, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8b,
					0x8d, 0x8f, 0x98, 0x99, 0xa0, 0xa1, 0xa2, 0xa3, 0xa8, 0xa9, 0xb0,
					0xb8, 0xbc, 0xc0, 0xc1, 0xc6, 0xc7, 0xc8, 0xc9, 0xd0, 0xd1, 0xd2,
					0xd3, 0xd7, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfc, 0xfd, 0xfe, 0xff,
					0x9c, 0x9e, 0x9f, 0x63, 0x69, 0x6b, 0x6a, 0x68 };
	static const uint8_t ops1[] = { 0xa3, 0xab, 0xb3, 0xbb, 0xba, 0xa4, 0xa5, 0xac, 0xad,
					0xaf, 0xb0, 0xb1, 0xb6, 0xb7, 0xbe, 0xbf, 0xc0, 0xc1,
					0xc3, 0xc7, 0xc8, 0xcc, 0xbc, 0xbd, 0xb8 };
	static const uint8_t strings[] = { 0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf };
	bool w = g->mode == 8 && chance(g, 45), mem = chance(g, 55);
	unsigned kind = below(g, 100), p = chance(g, 15) ? 1 : 0;

	if (kind < 25)
		return legacy(g, it, 0, below(g, 0x40), p, w, mem);
	if (kind < 32)
		return legacy(g, it, 0, 0x50 + below(g, 16), p, w, false);
	if (kind < 60)
		return legacy(g, it, 0, ops0[below(g, sizeof ops0)], p, w, mem);
	if (kind < 80)
		return legacy(g, it, 1, ops1[below(g, sizeof ops1)], chance(g, 15) ? 1 + below(g, 3) : 0, w,
			      mem);
	if (kind < 90)
		return legacy(g, it, 1, (chance(g, 50) ? 0x40 : 0x90) + below(g, 16), p, w, mem);
	return legacy(g, it, 0, strings[below(g, sizeof strings)], chance(g, 60) ? 2 + below(g, 2) : p, w,
		      false);
}

/* A branch forward: Jcc, JMP, LOOP and kin, CALL. */
static bool branch(struct gen *g, struct item *it, unsigned i, unsigned n)
{
	unsigned kind = below(g, 10), k = 0;
	uint8_t op;

	if (g->undefined)
		return false; /* they would have to be tracked on both paths */
	memset(it, 0, sizeof *it);
	if (kind < 6) {
		static const uint32_t tested[8] = { FLAG_OF,           FLAG_CF,
						    FLAG_ZF,           FLAG_CF | FLAG_ZF,
						    FLAG_SF,           FLAG_PF,
						    FLAG_SF | FLAG_OF, FLAG_SF | FLAG_OF | FLAG_ZF };
		op = (uint8_t)(0x70 + below(g, 16));
		it->reads = tested[op >> 1 & 7];
	} else if (kind < 9) {
		op = (uint8_t)(0xe0 + below(g, 4));
		if (op < 0xe2)
			it->reads = FLAG_ZF;
		if (chance(g, 20))
			it->bytes[k++] = 0x67;
		if (op != 0xe3)
			g->small &= ~(1u << RCX), g->ptr &= ~(1u << RCX);
	} else {
		op = 0xeb;
	}
	it->bytes[k++] = op;
	it->rel_at = (uint8_t)k++;
	it->len = (uint8_t)k;
	it->rel_to = (uint8_t)(i + 1 + below(g, n - i));
	return true;
}

void oracle_layout(struct job *j)
{
	unsigned off = 0;

	for (unsigned i = 0; i < j->n; i++) {
		j->offset[i] = off;
		if (!j->item[i].dropped)
			off += j->item[i].len;
	}
	j->offset[j->n] = off;
	for (unsigned i = 0; i < j->n; i++) {
		struct item *it = &j->item[i];
		uint8_t *p = j->code + j->offset[i];

		if (it->dropped)
			continue;
		memcpy(p, it->bytes, it->len);
		if (it->rip_at) {
			int32_t d = (int32_t)(it->rip_target - (j->at + j->offset[i] + it->len));

			memcpy(p + it->rip_at, &d, 4);
		}
		if (it->rel_at)
			p[it->rel_at] = (uint8_t)(j->offset[it->rel_to] - (j->offset[i] + it->len));
	}
	j->code[off] = 0xcc;
	j->code_len = off + 1;
}

/* ---- state ---- */

static uint64_t interesting(struct gen *g)
{
	static const uint64_t some[] = { 0,
					 1,
					 2,
					 ~0ull,
					 0x7f,
					 0x80,
					 0xff,
					 0x7fff,
					 0x8000,
					 0xffff,
					 0x7fffffff,
					 0x80000000,
					 0xffffffff,
					 0x7fffffffffffffff,
					 0x8000000000000000,
					 0x100000000 };

	switch (below(g, 4)) {
	case 0:
		return some[below(g, ARRAY_SIZE(some))];
	case 1:
		return below(g, 256);
	case 2:
		return (uint64_t) - (int64_t)below(g, 256);
	default:
		return rnd(g);
	}
}

static void random_regs(struct gen *g, struct job *j)
{
	for (unsigned r = 0; r < 16; r++) {
		unsigned k = below(g, 10);

		if (r == RSP || k < 4) {
			j->gpr[r] = DATA_VA + 0x200 + below(g, 0x1c00);
			if (chance(g, 6))
				j->gpr[r] = DATA_VA +
					    (chance(g, 50)   ? 0
					     : chance(g, 50) ? 0x2000
							     : 0x1000) +
					    below(g, 33) - 16;
			if (chance(g, 60))
				j->gpr[r] &= r == RSP ? ~7ull : ~63ull;
			g->ptr |= 1u << r;
		} else if (k < 6) {
			j->gpr[r] = below(g, 40);
			g->small |= 1u << r;
		} else {
			j->gpr[r] = interesting(g);
		}
		if (g->mode == 4)
			j->gpr[r] = r < 8 ? (uint32_t)j->gpr[r] : 0;
	}
	/* String instructions. */
	if (chance(g, 60)) {
		j->gpr[RCX] = below(g, 40);
		g->small |= 1u << RCX;
		g->ptr &= ~(1u << RCX);
	}
	for (unsigned k = 0; k < 2; k++) {
		unsigned r = k ? RSI : RDI;

		if (chance(g, 60)) {
			j->gpr[r] = DATA_VA + 0x400 + below(g, 0x1800);
			g->ptr |= 1u << r;
			g->small &= ~(1u << r);
		}
	}
	g->small &= ~(1u << RSP);
	j->rflags = FLAG_R1 | FLAG_IF | (rnd(g) & FLAGS_ARITH) | (chance(g, 10) ? FLAG_DF : 0);
	j->fs = g->mode == 8 ? DATA_VA - j->gpr[RBX] + below(g, 0x2000) : 0;
	j->gs = g->mode == 8 ? below(g, 64) : 0;
	if (j->fs >> 47)
		j->fs = 0;
	if (g->mode == 4)
		j->fs = j->gs = 0;
}

static void random_lanes(struct gen *g, uint8_t *p, unsigned n)
{
	unsigned style = below(g, 5);

	for (unsigned i = 0; i < n; i += 4) {
		uint32_t x;
		float f;

		switch (style) {
		case 0:
			x = (uint32_t)rnd(g);
			break;
		case 1:
			x = below(g, 256);
			break;
		case 2:
			f = (float)below(g, 2000) / 16.0f - 60.0f;
			memcpy(&x, &f, 4);
			break;
		case 3:
			x = (uint32_t)interesting(g);
			break;
		default: /* doubles */
			x = i & 4 ? 0x3ff00000u + (below(g, 64) << 16) : (uint32_t)rnd(g) & 0xfffff000u;
		}
		memcpy(p + i, &x, 4);
	}
}

static void random_xsave(struct gen *g, struct job *j, const struct cpu_model *m)
{
	static const uint32_t nan_or_so[] = { 0x7fff, 0x3fff, 0x4002, 0xbfff, 0, 0x3fc0, 0x7ffe };
	uint8_t *x = j->xsave;
	uint64_t bv = 3 | (m->xcr0_mask & 4 ? 4 : 0) | (m->xcr0_mask & 0xe0);
	uint32_t mxcsr = 0x1f80, csr = (uint32_t)rnd(g);

	memset(x, 0, sizeof j->xsave);
	x[0] = 0x7f;
	x[1] = 3;
	if (chance(g, 30)) {
		x[0] = (uint8_t)(0x40 | (rnd(g) & 0x3f));
		x[1] = (uint8_t)(rnd(g) & 0x0f);
	}
	if (chance(g, 60)) {
		unsigned top = below(g, 8), k;

		x[3] = (uint8_t)(top << 3);
		x[4] = chance(g, 30) ? (uint8_t)rnd(g) : (uint8_t)(0xff << top);
		for (k = 0; k < 8; k++) {
			uint64_t man = rnd(g) | 1ull << 63;
			uint32_t e = nan_or_so[below(g, ARRAY_SIZE(nan_or_so))];

			if (chance(g, 30))
				e = (uint32_t)rnd(g) & 0xffff;
			if (!e)
				man = chance(g, 50) ? 0 : man >> 1;
			memcpy(x + 32 + 16 * k, &man, 8);
			memcpy(x + 40 + 16 * k, &e, 2);
		}
	}
	if (chance(g, 25))
		mxcsr = csr & 0xffff;
	memcpy(x + 24, &mxcsr, 4);
	for (unsigned r = 0; r < 16; r++) {
		random_lanes(g, x + 160 + 16 * r, 16);
		if (bv & 4)
			random_lanes(g, x + m->host_d[2].ebx + 16 * r, 16);
		if (bv & 0x40)
			random_lanes(g, x + m->host_d[6].ebx + 32 * r, 32);
		if (bv & 0x80)
			random_lanes(g, x + m->host_d[7].ebx + 64 * r, 64);
	}
	if (bv & 0x20)
		for (unsigned k = 0; k < 8; k++) {
			uint64_t v = chance(g, 20) ? 0 : chance(g, 30) ? rnd(g) & 0xff : rnd(g);

			memcpy(x + m->host_d[5].ebx + 8 * k, &v, 8);
		}
	memcpy(x + 512, &bv, 8);
}

void oracle_generate(struct job *j, uint64_t seed, uint64_t index, const struct cpu_model *model)
{
	struct gen g = { .rng = seed };
	unsigned style;

	memset(j, 0, offsetof(struct job, gpr));
	j->seed = seed;
	g.mode = j->mode = chance(&g, 25) ? 4 : 8;
	j->n = 1 + below(&g, MAX_SEQ);
	style = below(&g, 3); /* integer code, everything, a mixture */
	random_regs(&g, j);
	random_xsave(&g, j, model);
	for (unsigned i = 0; i < DATA_SIZE; i += 64)
		random_lanes(&g, j->data + i, 64);
	/* A place of its own for each, at any offset; some cross a page. */
	j->at = CODE_VA + 256 * (index % (CODE_SIZE / 256 - 1)) + below(&g, 64);
	for (unsigned i = 0; i < j->n;) {
		struct item *it = &j->item[i];
		bool ok;

		if (chance(&g, 12))
			ok = flags_of_registers(&g, it);
		else if (j->n > 1 && chance(&g, 8))
			ok = branch(&g, it, i, j->n);
		else if (style == 0 || (style == 2 && chance(&g, 50)))
			ok = integer(&g, it);
		else
			ok = walk(&g, it);
		if (ok)
			i++;
	}
	oracle_layout(j);
}
