/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/bt/reencode.h"

struct fields {
	unsigned reg, rm, vvvv; /* full register numbers */
	bool rm_is_mem;
	bool low_op; /* register in the opcode's low bits, number in rm */
	uint8_t opcode;
};

/* INC/DEC r (40..4F), MOV moffs (A0..A3) and the 82 group have other encodings in 64-bit mode. */
static void legacy_fixups(const struct insn *in, const uint8_t map[16], struct fields *f)
{
	if (in->enc != ZYDIS_INSTRUCTION_ENCODING_LEGACY || in->map != ZYDIS_OPCODE_MAP_DEFAULT)
		return;
	if (in->mode != 8 && in->opcode >= 0x40 && in->opcode <= 0x4f) {
		f->rm = map[in->opcode & 7];
		f->reg = (in->opcode >> 3) & 1;
		f->opcode = 0xff;
		f->low_op = false;
	} else if (in->moffs) {
		static const uint8_t modrm_form[4] = { 0x8a, 0x8b, 0x88, 0x89 };

		f->opcode = modrm_form[in->opcode & 3];
		f->reg = map[RAX];
		f->rm_is_mem = true;
	} else if (in->opcode == 0x82) {
		f->opcode = 0x80;
	}
}

static bool is_incdec(const struct insn *in)
{
	return in->enc == ZYDIS_INSTRUCTION_ENCODING_LEGACY && in->map == ZYDIS_OPCODE_MAP_DEFAULT &&
	       in->mode != 8 && in->opcode >= 0x40 && in->opcode <= 0x4f;
}

static void emit_tail(struct emit *e, const struct insn *in, const struct fields *f,
		      const struct host_mem *mem, bool modrm)
{
	if (modrm) {
		if (f->rm_is_mem) {
			unsigned reg = f->reg & 7;

			/* EVEX scales an 8-bit displacement: keep to none or 32 bits there. */
			if (in->enc == ZYDIS_INSTRUCTION_ENCODING_EVEX && mem->disp) {
				bool sib = mem->index != EMIT_NO_REG || (mem->base & 7) == 4;

				emit1(e, (uint8_t)(0x80 | reg << 3 | (sib ? 4 : mem->base & 7)));
				if (sib)
					emit1(e, (uint8_t)((mem->scale == 8   ? 3
							    : mem->scale == 4 ? 2
							    : mem->scale == 2 ? 1
									      : 0)
							       << 6 |
							   (mem->index == EMIT_NO_REG ? 4 : mem->index & 7)
							       << 3 |
							   (mem->base & 7)));
				emit4(e, (uint32_t)mem->disp);
			} else {
				emit_mem(e, reg, mem->base, mem->index, mem->scale, mem->disp);
			}
		} else {
			emit1(e, (uint8_t)(0xc0 | (f->reg & 7) << 3 | (f->rm & 7)));
		}
	}
	if (in->imm_is4 && in->mode != 8) /* a register number, whose bit 3 counts in 64-bit code only */
		emit1(e, in->bytes[in->imm_off] & 0x7f);
	else
		emit_bytes(e, in->bytes + in->imm_off, in->imm_len);
}

static bool reencode_legacy(struct emit *e, const struct insn *in, const struct fields *f,
			    const struct host_mem *mem)
{
	unsigned base = f->rm_is_mem ? mem->base : f->rm;
	unsigned index = f->rm_is_mem ? mem->index : EMIT_NO_REG;
	bool modrm = in->has_modrm || in->moffs || is_incdec(in);
	/* AH..BH exclude REX, so with them a number of 4..7 is never SPL..DIL. */
	bool force = in->reg8 && !in->high8 &&
		     ((f->reg >= 4 && f->reg < 8 && (in->gpr_where & GPR_IN_REG)) ||
		      (f->rm >= 4 && f->rm < 8 && (in->gpr_where & (GPR_IN_RM | GPR_IN_OPCODE))));
	uint8_t rex = (uint8_t)(0x40 | in->rex_w << 3 | (modrm ? ((f->reg >> 3) & 1) << 2 : 0) |
				(index == EMIT_NO_REG ? 0 : ((index >> 3) & 1) << 1) |
				((modrm || f->low_op) ? (base >> 3) & 1 : 0));

	if (in->high8 && rex != 0x40)
		return false;
	if (in->lock)
		emit1(e, 0xf0);
	if (in->need66)
		emit1(e, 0x66);
	if (in->needf2)
		emit1(e, 0xf2);
	if (in->needf3)
		emit1(e, 0xf3);
	if (rex != 0x40 || force)
		emit1(e, rex);
	switch (in->map) {
	case ZYDIS_OPCODE_MAP_0F:
		emit1(e, 0x0f);
		break;
	case ZYDIS_OPCODE_MAP_0F38:
		emit1(e, 0x0f);
		emit1(e, 0x38);
		break;
	case ZYDIS_OPCODE_MAP_0F3A:
		emit1(e, 0x0f);
		emit1(e, 0x3a);
		break;
	default:
		break;
	}
	emit1(e, f->low_op ? (uint8_t)((f->opcode & 0xf8) | (f->rm & 7)) : f->opcode);
	emit_tail(e, in, f, mem, modrm);
	return true;
}

/* Outside 64-bit mode W is ignored where it would choose a 64-bit general operand. */
static bool ignores_w(const struct insn *in)
{
	if (in->mode == 8)
		return false;
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_VCVTSI2SS:
	case ZYDIS_MNEMONIC_VCVTSI2SD:
	case ZYDIS_MNEMONIC_VCVTUSI2SS:
	case ZYDIS_MNEMONIC_VCVTUSI2SD:
	case ZYDIS_MNEMONIC_VMOVD:
	case ZYDIS_MNEMONIC_VPINSRD:
	case ZYDIS_MNEMONIC_VPEXTRD:
		return true;
	default:
		return in->gpr_where && in->unit == UNIT_INT;
	}
}

static bool reencode_vex(struct emit *e, const struct insn *in, const struct fields *f,
			 const struct host_mem *mem)
{
	const uint8_t *v = in->bytes + in->vex_off;
	unsigned base = f->rm_is_mem ? mem->base : f->rm;
	unsigned x = f->rm_is_mem && mem->index != EMIT_NO_REG ? mem->index >> 3 & 1 : 0;
	uint8_t mmmmm = v[0] == 0xc5 ? 1 : v[1] & 0x1f;
	uint8_t w = v[0] == 0xc5 || ignores_w(in) ? 0 : v[2] & 0x80;
	uint8_t lpp = (v[0] == 0xc5 ? v[1] : v[2]) & 7;

	emit1(e, 0xc4);
	emit1(e, (uint8_t)((~f->reg >> 3 & 1) << 7 | (x ^ 1) << 6 | (~base >> 3 & 1) << 5 | mmmmm));
	emit1(e, (uint8_t)(w | (~f->vvvv & 15) << 3 | lpp));
	emit1(e, f->opcode);
	emit_tail(e, in, f, mem, in->has_modrm);
	return true;
}

static bool reencode_evex(struct emit *e, const struct insn *in, const struct fields *f,
			  const struct host_mem *mem)
{
	const uint8_t *v = in->bytes + in->vex_off;
	/* Reserved bits, which name R16..R31 where a later processor has them, as they must be without. */
	uint8_t p0 = v[1] & 0xf7, p1 = v[2] | 4, p2 = v[3];

	if (in->mode != 8) {
		/* Registers 0..7 only: the further bits (stored inverted) are ignored there. */
		p0 |= 0xf0;
		p1 |= 0x40;
		p2 |= 0x08;
		if (ignores_w(in))
			p1 &= 0x7f;
	}
	if (f->rm_is_mem) {
		unsigned x = mem->index != EMIT_NO_REG ? mem->index >> 3 & 1 : 0;

		p0 = (uint8_t)((p0 & ~0x60) | (x ^ 1) << 6 | (~mem->base >> 3 & 1) << 5);
	} else if (in->gpr_where & GPR_IN_RM) {
		p0 = (uint8_t)((p0 & ~0x60) | 0x40 | (~f->rm >> 3 & 1) << 5);
	}
	if (in->gpr_where & GPR_IN_REG)
		p0 = (uint8_t)((p0 & ~0x90) | 0x10 | (~f->reg >> 3 & 1) << 7);
	if (in->gpr_where & GPR_IN_VVVV)
		p1 = (uint8_t)((p1 & ~0x78) | (~f->vvvv & 15) << 3);
	emit1(e, 0x62);
	emit1(e, p0);
	emit1(e, p1);
	emit1(e, p2);
	emit1(e, f->opcode);
	emit_tail(e, in, f, mem, in->has_modrm);
	return true;
}

bool reencode(struct emit *e, const struct insn *in, const uint8_t map[16], const struct host_mem *mem)
{
	struct fields f = { .opcode = in->opcode };
	const uint8_t *v = in->bytes + in->vex_off;
	unsigned r = in->rex_r, b = in->rex_b;

	if (in->enc == ZYDIS_INSTRUCTION_ENCODING_VEX) {
		r = ~v[1] >> 7 & 1;
		b = v[0] == 0xc5 ? 0 : ~v[1] >> 5 & 1;
		f.vvvv = ~(v[0] == 0xc5 ? v[1] : v[2]) >> 3 & 15;
	} else if (in->enc == ZYDIS_INSTRUCTION_ENCODING_EVEX) {
		r = ~v[1] >> 7 & 1;
		b = ~v[1] >> 5 & 1;
	}
	if (in->mode != 8)
		r = b = 0;
	f.rm_is_mem = in->has_modrm && (in->modrm >> 6) != 3;
	f.reg = (in->modrm >> 3 & 7) | r << 3;
	f.rm = (in->modrm & 7) | b << 3;
	if (in->mode != 8 && in->enc == ZYDIS_INSTRUCTION_ENCODING_VEX)
		f.vvvv &= 7;
	/* AH..BH are named 4..7 without REX and keep their number; others go through the map. */
	if ((in->gpr_where & GPR_IN_REG) &&
	    !(in->high8 && !in->rex_w && f.reg >= 4 && f.reg < 8 &&
	      in->ops[in->ops[0].encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG ? 0 : 1].high8))
		f.reg = map[f.reg];
	if ((in->gpr_where & GPR_IN_RM) && !f.rm_is_mem &&
	    !(in->high8 && in->ops[in->ops[0].encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM ? 0 : 1].high8))
		f.rm = map[f.rm];
	if (in->gpr_where & GPR_IN_VVVV)
		f.vvvv = map[in->vvvv];
	if (in->gpr_where & GPR_IN_OPCODE) {
		f.low_op = true;
		f.rm = (in->opcode & 7) | b << 3;
		if (!in->high8)
			f.rm = map[f.rm];
	}
	legacy_fixups(in, map, &f);
	if (in->enc == ZYDIS_INSTRUCTION_ENCODING_VEX)
		return reencode_vex(e, in, &f, mem);
	if (in->enc == ZYDIS_INSTRUCTION_ENCODING_EVEX)
		return reencode_evex(e, in, &f, mem);
	return reencode_legacy(e, in, &f, mem);
}
