/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoding by example.
 *
 * What Zydis says of an instruction depends on its prefixes, its opcode and, for
 * the opcodes that are groups, on modrm.reg; and on whether modrm.rm is memory.
 * That is the instruction's `shape`.  The rest of the encoding only fills in
 * numbers: registers, displacement, immediate.  So the first instruction of a
 * shape is decoded by Zydis and its struct insn kept; for the next, that is
 * copied and the numbers are put in.  No table here says what an instruction
 * does; what is known here of opcodes is which have a modrm byte and which are
 * groups.
 *
 * Left to Zydis each time: other modes than 64-bit, VEX and EVEX, the maps
 * 0F38 and 0F3A, address-size prefixes, repeated or misplaced prefixes, AH..BH,
 * and operands whose registers are numbered by other rules (segment, control,
 * x87, MMX).  `generic` refuses what does not fit, so a shape is kept only
 * where the rules here give back the very example.  decode_test.c compares the
 * answers with Zydis's for all opcodes, prefixes and modrm bytes.
 */
#include "engine/bt/decode_cache.h"

#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define SHAPE_BITS 10

struct shape {
	uint32_t key;        /* 0: empty */
	uint8_t byte_fields; /* GPR_IN_*: that name byte registers */
	struct insn in;      /* the example */
};

struct decode_cache {
	const struct cpu_model *model;
	struct shape shape[1 << SHAPE_BITS];
};

/* The bits of a shape's key, above the opcode. */
enum {
	KEY_0F = 1 << 8,
	KEY_66 = 1 << 9,
	KEY_F2 = 1 << 10,
	KEY_F3 = 1 << 11,
	KEY_REPS = KEY_F2 | KEY_F3,
	KEY_LOCK = 1 << 12,
	KEY_REX = 1 << 13,
	KEY_REX_W = 1 << 14,
	KEY_FS = 1 << 15,
	KEY_GS = 1 << 16,
	KEY_NULL_SEG = 1 << 17, /* an override of another segment: no effect in 64-bit mode */
	KEY_SEGS = KEY_FS | KEY_GS | KEY_NULL_SEG,
	KEY_REGISTER = 1 << 18, /* modrm.mod is 3 */
	KEY_REG_SHIFT = 19,     /* groups: modrm.reg */
	KEY_RM_SHIFT = 22,      /* modrm.rm where that, too, tells instructions apart */
	KEY_VALID = 1 << 30,
};

enum {
	MODRM = 1,
	GROUP = 2 | MODRM,
	EXACT = 4 | GROUP, /* with mod == 3, rm tells instructions apart */
	ZYDIS = 8,         /* not done here */
};

static const uint8_t opcodes[2][256] = {
	{
	    [0x00 ... 0x03] = MODRM, [0x08 ... 0x0b] = MODRM, [0x10 ... 0x13] = MODRM,
	    [0x18 ... 0x1b] = MODRM, [0x20 ... 0x23] = MODRM, [0x28 ... 0x2b] = MODRM,
	    [0x30 ... 0x33] = MODRM, [0x38 ... 0x3b] = MODRM, [0x62] = ZYDIS,
	    [0x63] = MODRM,          [0x67] = ZYDIS,          [0x69] = MODRM,
	    [0x6b] = MODRM,          [0x80 ... 0x83] = GROUP, [0x84 ... 0x8e] = MODRM,
	    [0x8f] = ZYDIS,          [0xa0 ... 0xa3] = ZYDIS, [0xc0 ... 0xc1] = GROUP,
	    [0xc4 ... 0xc5] = ZYDIS, [0xc6 ... 0xc7] = EXACT, [0xd0 ... 0xd3] = GROUP,
	    [0xd8 ... 0xdf] = EXACT, [0xf6 ... 0xf7] = GROUP, [0xfe ... 0xff] = GROUP,
	},
	{
	    [0x00] = GROUP,          [0x01] = EXACT,          [0x02 ... 0x03] = MODRM,
	    [0x0d] = GROUP,          [0x0f] = ZYDIS,          [0x10 ... 0x17] = MODRM,
	    [0x18 ... 0x1d] = GROUP, [0x1e] = EXACT,          [0x1f] = GROUP,
	    [0x20 ... 0x27] = ZYDIS, [0x28 ... 0x2f] = MODRM, [0x38 ... 0x3f] = ZYDIS,
	    [0x40 ... 0x70] = MODRM, [0x71 ... 0x73] = GROUP, [0x74 ... 0x76] = MODRM,
	    [0x78 ... 0x79] = ZYDIS, [0x7a ... 0x7f] = MODRM, [0x90 ... 0x9f] = MODRM,
	    [0xa3 ... 0xa5] = MODRM, [0xab] = MODRM,          [0xac ... 0xad] = MODRM,
	    [0xae] = EXACT,          [0xaf ... 0xb9] = MODRM, [0xba] = GROUP,
	    [0xbb ... 0xc6] = MODRM, [0xc7] = EXACT,          [0xd0 ... 0xff] = MODRM,
	},
};

/* An encoding taken apart. */
struct parts {
	uint32_t key;
	uint8_t opcode, modrm, sib, rex;
	bool has_modrm;
	uint8_t disp_off, disp_len;
	uint8_t imm_off; /* the length but for the immediate */
};

/* The KEY_* bit of a legacy prefix, or 0. */
static uint32_t prefix(uint8_t b)
{
	switch (b) {
	case 0x66:
		return KEY_66;
	case 0xf2:
		return KEY_F2;
	case 0xf3:
		return KEY_F3;
	case 0xf0:
		return KEY_LOCK;
	case 0x64:
		return KEY_FS;
	case 0x65:
		return KEY_GS;
	case 0x26:
	case 0x2e:
	case 0x36:
	case 0x3e:
		return KEY_NULL_SEG;
	default:
		return 0;
	}
}

static void take_modrm(struct parts *p, const uint8_t *code, unsigned i, uint8_t kind)
{
	unsigned mod = code[i] >> 6, rm = code[i] & 7;

	p->has_modrm = true;
	p->modrm = code[i++];
	if ((kind & GROUP) == GROUP)
		p->key |= (uint32_t)(p->modrm >> 3 & 7) << KEY_REG_SHIFT;
	if (mod == 3) {
		p->key |= KEY_REGISTER;
		if ((kind & EXACT) == EXACT)
			p->key |= rm << KEY_RM_SHIFT;
	} else {
		if (rm == 4)
			p->sib = code[i++];
		if (mod == 1)
			p->disp_len = 1;
		else if (mod == 2 || rm == 5 || (rm == 4 && (p->sib & 7) == 5))
			p->disp_len = 4;
	}
	p->disp_off = (uint8_t)i;
	p->imm_off = (uint8_t)(i + p->disp_len);
}

/* False: an encoding that is left to Zydis. Looks at up to 12 bytes. */
static bool take_apart(const uint8_t *code, struct parts *p)
{
	uint32_t bit;
	uint8_t kind;
	unsigned i = 0;

	*p = (struct parts){ .key = KEY_VALID };
	while ((bit = prefix(code[i]))) {
		/* Of two segments, and of REP and REPNE, the last counts. */
		if ((p->key & bit) || ((bit & KEY_SEGS) && (p->key & KEY_SEGS)) ||
		    ((bit & KEY_REPS) && (p->key & KEY_REPS)) || i == 3)
			return false;
		p->key |= bit;
		i++;
	}
	if ((code[i] & 0xf0) == 0x40) {
		p->rex = code[i++];
		p->key |= KEY_REX | (p->rex & 8 ? KEY_REX_W : 0);
		if ((code[i] & 0xf0) == 0x40 || prefix(code[i]) || code[i] == 0x90)
			return false;
	}
	if (code[i] == 0x0f) {
		p->key |= KEY_0F;
		i++;
	}
	p->opcode = code[i++];
	p->key |= p->opcode;
	kind = opcodes[!!(p->key & KEY_0F)][p->opcode];
	if (kind == ZYDIS)
		return false;
	p->imm_off = (uint8_t)i;
	if (kind & MODRM)
		take_modrm(p, code, i, kind);
	return true;
}

static int64_t number(const uint8_t *p, unsigned len, bool is_signed)
{
	uint64_t x = 0;

	memcpy(&x, p, len);
	return is_signed && len && len < 8 ? (int64_t)(x << (64 - 8 * len)) >> (64 - 8 * len) : (int64_t)x;
}

/* The bytes and, behind them, their number. */
static void put_bytes(struct insn *in, const uint8_t *code, unsigned len)
{
	uint64_t w[2];

	_Static_assert(offsetof(struct insn, bytes) == 0 && offsetof(struct insn, len) == 15, "one store");
	memcpy(w, code, 16);
	w[0] &= len < 8 ? (1ull << (8 * len)) - 1 : ~0ull;
	w[1] &= len <= 8 ? 0 : (1ull << (8 * (len - 8))) - 1;
	w[1] |= (uint64_t)len << 56;
	memcpy(in, w, 16);
}

static void put_memory(struct insn *in, const struct parts *p, const uint8_t *code)
{
	unsigned mod = p->modrm >> 6, rm = p->modrm & 7, x = p->rex >> 1 & 1, b = p->rex & 1;

	in->base = in->index = REG_NONE;
	in->scale = 1;
	if (rm == 4) {
		unsigned index = (p->sib >> 3 & 7) | x << 3;

		if (index != RSP) {
			in->index = (uint8_t)index;
			in->scale = (uint8_t)(1 << (p->sib >> 6));
			in->regs_read |= 1u << index;
		}
		rm = p->sib & 7;
		if (rm != 5 || mod)
			in->base = (uint8_t)(rm | b << 3);
	} else {
		in->base = mod == 0 && rm == 5 ? REG_PC : (uint8_t)(rm | b << 3);
	}
	if (in->base < 16)
		in->regs_read |= 1u << in->base;
	in->disp = number(code + p->disp_off, p->disp_len, true);
	in->seg = p->key & KEY_FS                      ? SEG_FS
		  : p->key & KEY_GS                    ? SEG_GS
		  : in->base == RSP || in->base == RBP ? SEG_SS
						       : SEG_DS;
}

/* The instruction at code as a variant of the example. False: its registers follow other rules. */
static bool fill(const struct shape *s, const struct parts *p, const uint8_t *code, struct insn *in)
{
	uint8_t reg = (p->modrm >> 3 & 7) | (p->rex & 4) << 1, rm = (p->modrm & 7) | (p->rex & 1) << 3;
	uint8_t low = (p->opcode & 7) | (p->rex & 1) << 3;

	/* Without REX they are AH..BH. */
	if (s->byte_fields && !(p->key & KEY_REX) &&
	    (((s->byte_fields & GPR_IN_REG) && reg >= 4) || ((s->byte_fields & GPR_IN_RM) && rm >= 4) ||
	     ((s->byte_fields & GPR_IN_OPCODE) && low >= 4)))
		return false;
	if (p->imm_off + s->in.imm_len > 15)
		return false;
	*in = s->in;
	put_bytes(in, code, p->imm_off + in->imm_len);
	in->modrm = p->modrm;
	in->rex_r = p->rex >> 2 & 1;
	in->rex_x = p->rex >> 1 & 1;
	in->rex_b = p->rex & 1;
	in->imm_off = p->imm_off;
	in->regs_read = in->fixed_read;
	in->regs_written = in->fixed_written;
	for (unsigned k = 0; k < in->nops; k++) {
		uint8_t r, field;

		if (in->ops[k].type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		switch (in->ops[k].encoding) {
		case ZYDIS_OPERAND_ENCODING_MODRM_REG:
			r = reg;
			field = GPR_IN_REG;
			break;
		case ZYDIS_OPERAND_ENCODING_MODRM_RM:
			r = rm;
			field = GPR_IN_RM;
			break;
		case ZYDIS_OPERAND_ENCODING_OPCODE:
			r = low;
			field = GPR_IN_OPCODE;
			break;
		default:
			continue;
		}
		in->ops[k].reg = r;
		in->regs_read |= in->fields_read & field ? 1u << r : 0;
		in->regs_written |= in->fields_written & field ? 1u << r : 0;
	}
	if (p->has_modrm && !(p->key & KEY_REGISTER))
		put_memory(in, p, code);
	if (in->imm_len)
		in->imm[0] = number(code + p->imm_off, in->imm_len, in->imm_signed);
	if (in->counts)
		insn_count(in);
	return true;
}

/* Do the numbers of all variants of this example follow the rules above? */
static bool generic(const struct parts *p, const struct insn *in)
{
	unsigned immediates = 0;

	if (in->enc != ZYDIS_INSTRUCTION_ENCODING_LEGACY || in->addrsize != 8 || in->high8 || in->far ||
	    in->has_modrm != p->has_modrm || p->imm_off + in->imm_len != in->len)
		return false;
	if (p->has_modrm && !(p->key & KEY_REGISTER) && !in->has_mem)
		return false;
	for (unsigned k = 0; k < in->nops; k++) {
		bool gpr = in->ops[k].cls >= ZYDIS_REGCLASS_GPR8 && in->ops[k].cls <= ZYDIS_REGCLASS_GPR64;

		immediates += in->ops[k].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
		if (in->ops[k].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    in->ops[k].encoding != ZYDIS_OPERAND_ENCODING_NONE && !gpr &&
		    in->ops[k].cls != ZYDIS_REGCLASS_XMM)
			return false;
	}
	return immediates <= 1;
}

static uint8_t byte_fields(const struct insn *in)
{
	uint8_t fields = 0;

	for (unsigned k = 0; k < in->nops; k++)
		if (in->ops[k].type == ZYDIS_OPERAND_TYPE_REGISTER && in->ops[k].cls == ZYDIS_REGCLASS_GPR8)
			fields |= in->ops[k].encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG  ? GPR_IN_REG
				  : in->ops[k].encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM ? GPR_IN_RM
				  : in->ops[k].encoding == ZYDIS_OPERAND_ENCODING_OPCODE   ? GPR_IN_OPCODE
											   : 0;
	return fields;
}

/* Keeps the example if its own numbers, put into it, change nothing. */
static void learn(struct shape *s, const struct parts *p, const uint8_t *code, const struct insn *in)
{
	struct shape new = { .key = p->key, .byte_fields = byte_fields(in), .in = *in };
	struct insn again;

	if (generic(p, in) && fill(&new, p, code, &again) && !memcmp(&again, in, sizeof again))
		*s = new;
}

int decode_cached(struct decode_cache *d, const uint8_t *code, size_t n, unsigned mode, bool real,
		  struct insn *in)
{
	struct parts p;
	struct shape *s = NULL;
	uint8_t bytes[16];
	int r;

	/* A copy: another vCPU may be writing there. */
	if (mode == 8 && n >= sizeof bytes && take_apart(memcpy(bytes, code, sizeof bytes), &p)) {
		s = &d->shape[p.key * 0x9e3779b1u >> (32 - SHAPE_BITS)];
		if (s->key == p.key && fill(s, &p, bytes, in))
			return DECODE_OK;
	}
	r = insn_decode(code, n, mode, real, in);
	if (r != DECODE_OK)
		return r;
	insn_restrict(in, d->model);
	if (s && s->key != p.key)
		learn(s, &p, bytes, in);
	return DECODE_OK;
}

struct decode_cache *decode_cache_new(const struct cpu_model *m)
{
	struct decode_cache *d = calloc(1, sizeof *d);

	if (d)
		d->model = m;
	return d;
}

void decode_cache_free(struct decode_cache *d)
{
	free(d);
}
