/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From Zydis's answer to struct insn.  What belongs in which class is said by
 * the two tables here and nowhere else.
 */
#include "engine/bt/decode.h"

#include "base/util.h"

#include <string.h>

/* Semantics in C. Jcc, LOOP and string instructions are recognised by category. */
static const uint16_t special_list[] = {
	/* control flow */
	ZYDIS_MNEMONIC_CALL,
	ZYDIS_MNEMONIC_JMP,
	ZYDIS_MNEMONIC_RET,
	ZYDIS_MNEMONIC_IRET,
	ZYDIS_MNEMONIC_IRETD,
	ZYDIS_MNEMONIC_IRETQ,
	ZYDIS_MNEMONIC_INT,
	ZYDIS_MNEMONIC_INT1,
	ZYDIS_MNEMONIC_INT3,
	ZYDIS_MNEMONIC_INTO,
	ZYDIS_MNEMONIC_SYSCALL,
	ZYDIS_MNEMONIC_SYSRET,
	ZYDIS_MNEMONIC_SYSENTER,
	ZYDIS_MNEMONIC_SYSEXIT,
	ZYDIS_MNEMONIC_HLT,
	ZYDIS_MNEMONIC_PAUSE,
	/* stack */
	ZYDIS_MNEMONIC_PUSH,
	ZYDIS_MNEMONIC_POP,
	ZYDIS_MNEMONIC_PUSHA,
	ZYDIS_MNEMONIC_PUSHAD,
	ZYDIS_MNEMONIC_POPA,
	ZYDIS_MNEMONIC_POPAD,
	ZYDIS_MNEMONIC_PUSHF,
	ZYDIS_MNEMONIC_PUSHFD,
	ZYDIS_MNEMONIC_PUSHFQ,
	ZYDIS_MNEMONIC_POPF,
	ZYDIS_MNEMONIC_POPFD,
	ZYDIS_MNEMONIC_POPFQ,
	ZYDIS_MNEMONIC_ENTER,
	ZYDIS_MNEMONIC_LEAVE,
	/* system */
	ZYDIS_MNEMONIC_IN,
	ZYDIS_MNEMONIC_OUT,
	ZYDIS_MNEMONIC_CLI,
	ZYDIS_MNEMONIC_STI,
	ZYDIS_MNEMONIC_CLD,
	ZYDIS_MNEMONIC_STD,
	ZYDIS_MNEMONIC_CLAC,
	ZYDIS_MNEMONIC_STAC,
	ZYDIS_MNEMONIC_LGDT,
	ZYDIS_MNEMONIC_LIDT,
	ZYDIS_MNEMONIC_SGDT,
	ZYDIS_MNEMONIC_SIDT,
	ZYDIS_MNEMONIC_LLDT,
	ZYDIS_MNEMONIC_SLDT,
	ZYDIS_MNEMONIC_LTR,
	ZYDIS_MNEMONIC_STR,
	ZYDIS_MNEMONIC_LMSW,
	ZYDIS_MNEMONIC_SMSW,
	ZYDIS_MNEMONIC_CLTS,
	ZYDIS_MNEMONIC_INVLPG,
	ZYDIS_MNEMONIC_INVPCID,
	ZYDIS_MNEMONIC_WBINVD,
	ZYDIS_MNEMONIC_INVD,
	ZYDIS_MNEMONIC_RDMSR,
	ZYDIS_MNEMONIC_WRMSR,
	ZYDIS_MNEMONIC_RDTSC,
	ZYDIS_MNEMONIC_RDTSCP,
	ZYDIS_MNEMONIC_RDPMC,
	ZYDIS_MNEMONIC_CPUID,
	ZYDIS_MNEMONIC_XGETBV,
	ZYDIS_MNEMONIC_XSETBV,
	ZYDIS_MNEMONIC_SWAPGS,
	ZYDIS_MNEMONIC_RDFSBASE,
	ZYDIS_MNEMONIC_RDGSBASE,
	ZYDIS_MNEMONIC_WRFSBASE,
	ZYDIS_MNEMONIC_WRGSBASE,
	ZYDIS_MNEMONIC_RDPID,
	ZYDIS_MNEMONIC_LAR,
	ZYDIS_MNEMONIC_LSL,
	ZYDIS_MNEMONIC_VERR,
	ZYDIS_MNEMONIC_VERW,
	ZYDIS_MNEMONIC_ARPL,
	ZYDIS_MNEMONIC_VMMCALL,
	ZYDIS_MNEMONIC_VMCALL,
	/* segments */
	ZYDIS_MNEMONIC_LDS,
	ZYDIS_MNEMONIC_LES,
	ZYDIS_MNEMONIC_LFS,
	ZYDIS_MNEMONIC_LGS,
	ZYDIS_MNEMONIC_LSS,
	/* state images */
	ZYDIS_MNEMONIC_FXSAVE,
	ZYDIS_MNEMONIC_FXSAVE64,
	ZYDIS_MNEMONIC_FXRSTOR,
	ZYDIS_MNEMONIC_FXRSTOR64,
	ZYDIS_MNEMONIC_XSAVE,
	ZYDIS_MNEMONIC_XSAVE64,
	ZYDIS_MNEMONIC_XSAVEOPT,
	ZYDIS_MNEMONIC_XSAVEOPT64,
	ZYDIS_MNEMONIC_XSAVEC,
	ZYDIS_MNEMONIC_XSAVEC64,
	ZYDIS_MNEMONIC_XRSTOR,
	ZYDIS_MNEMONIC_XRSTOR64,
	/* odd ones */
	ZYDIS_MNEMONIC_LEA,
	ZYDIS_MNEMONIC_XLAT,
	ZYDIS_MNEMONIC_BOUND,
	ZYDIS_MNEMONIC_AAA,
	ZYDIS_MNEMONIC_AAS,
	ZYDIS_MNEMONIC_AAM,
	ZYDIS_MNEMONIC_AAD,
	ZYDIS_MNEMONIC_DAA,
	ZYDIS_MNEMONIC_DAS,
	ZYDIS_MNEMONIC_SALC,
	ZYDIS_MNEMONIC_MASKMOVQ,
	ZYDIS_MNEMONIC_MASKMOVDQU,
	ZYDIS_MNEMONIC_VMASKMOVDQU,
};

/* Not offered in any model, or not there for a guest: #UD. */
/* KVM's convention, which the hypervisor's CPUID leaves announce. */
static bool is_hypercall(ZydisMnemonic m)
{
	return m == ZYDIS_MNEMONIC_VMCALL || m == ZYDIS_MNEMONIC_VMMCALL;
}

static bool isa_refused(ZydisISAExt e)
{
	switch (e) {
	case ZYDIS_ISA_EXT_AMD3DNOW:
	case ZYDIS_ISA_EXT_AMX_BF16:
	case ZYDIS_ISA_EXT_AMX_INT8:
	case ZYDIS_ISA_EXT_AMX_TILE:
	case ZYDIS_ISA_EXT_AMD_INVLPGB:
	case ZYDIS_ISA_EXT_CLZERO:
	case ZYDIS_ISA_EXT_ENQCMD:
	case ZYDIS_ISA_EXT_HRESET:
	case ZYDIS_ISA_EXT_KEYLOCKER:
	case ZYDIS_ISA_EXT_KEYLOCKER_WIDE:
	case ZYDIS_ISA_EXT_KNC:
	case ZYDIS_ISA_EXT_KNCE:
	case ZYDIS_ISA_EXT_KNCV:
	case ZYDIS_ISA_EXT_MCOMMIT:
	case ZYDIS_ISA_EXT_MONITOR:
	case ZYDIS_ISA_EXT_MONITORX:
	case ZYDIS_ISA_EXT_MOVDIR: /* MOVDIR64B's register operand is an address, too */
	case ZYDIS_ISA_EXT_PADLOCK:
	case ZYDIS_ISA_EXT_PCONFIG:
	case ZYDIS_ISA_EXT_PKU:
	case ZYDIS_ISA_EXT_PT:
	case ZYDIS_ISA_EXT_RDPRU:
	case ZYDIS_ISA_EXT_RTM:
	case ZYDIS_ISA_EXT_SERIALIZE:
	case ZYDIS_ISA_EXT_SGX:
	case ZYDIS_ISA_EXT_SGX_ENCLV:
	case ZYDIS_ISA_EXT_SMX:
	case ZYDIS_ISA_EXT_SNP:
	case ZYDIS_ISA_EXT_SVM:
	case ZYDIS_ISA_EXT_TBM:
	case ZYDIS_ISA_EXT_TDX:
	case ZYDIS_ISA_EXT_TSX_LDTRK:
	case ZYDIS_ISA_EXT_UINTR:
	case ZYDIS_ISA_EXT_VMFUNC:
	case ZYDIS_ISA_EXT_WAITPKG:
	case ZYDIS_ISA_EXT_XOP:
	case ZYDIS_ISA_EXT_FMA4:
	case ZYDIS_ISA_EXT_XSAVES:
	case ZYDIS_ISA_EXT_VTX:
		return true;
	default:
		return false;
	}
}

/* Xeon Phi's own, which no processor has beside the rest of AVX-512. */
static bool set_refused(ZydisISASet s)
{
	switch (s) {
	case ZYDIS_ISA_SET_AVX512ER_512:
	case ZYDIS_ISA_SET_AVX512ER_SCALAR:
	case ZYDIS_ISA_SET_AVX512PF_512:
	case ZYDIS_ISA_SET_AVX512_4FMAPS_512:
	case ZYDIS_ISA_SET_AVX512_4FMAPS_SCALAR:
	case ZYDIS_ISA_SET_AVX512_4VNNIW_512:
		return true;
	default:
		return false;
	}
}

static bool is_special(uint16_t m)
{
	for (size_t i = 0; i < sizeof special_list / sizeof special_list[0]; i++)
		if (special_list[i] == m)
			return true;
	return false;
}

static bool is_nop(const ZydisDecodedInstruction *z)
{
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_NOP:
	case ZYDIS_MNEMONIC_ENDBR32:
	case ZYDIS_MNEMONIC_ENDBR64:
	case ZYDIS_MNEMONIC_CLDEMOTE:
	case ZYDIS_MNEMONIC_RDSSPD:
	case ZYDIS_MNEMONIC_RDSSPQ:
		return true;
	default:
		/* Bounds checking is never offered; its encodings are NOPs without it. */
		if (z->meta.isa_ext == ZYDIS_ISA_EXT_MPX)
			return true;
		return z->meta.category == ZYDIS_CATEGORY_PREFETCH ||
		       z->meta.category == ZYDIS_CATEGORY_PREFETCHWT1 ||
		       z->meta.category == ZYDIS_CATEGORY_WIDENOP ||
		       z->meta.isa_set == ZYDIS_ISA_SET_PREFETCH_NOP ||
		       z->meta.isa_set == ZYDIS_ISA_SET_FAT_NOP;
	}
}

/* EVEX instructions whose mask does not concern memory: the whole operand is accessed (SDM 2A 2.8, classes
 * "NF"). */
static bool access_unmasked(const ZydisDecodedInstruction *z)
{
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_VDBPSADBW:
	case ZYDIS_MNEMONIC_VCVTNE2PS2BF16:
	case ZYDIS_MNEMONIC_VGF2P8AFFINEQB:
	case ZYDIS_MNEMONIC_VGF2P8AFFINEINVQB:
		return true;
	default:
		break;
	}
	switch (z->meta.exception_class) {
	case ZYDIS_EXCEPTION_CLASS_E1NF:
	case ZYDIS_EXCEPTION_CLASS_E2NF:
	case ZYDIS_EXCEPTION_CLASS_E3NF:
	case ZYDIS_EXCEPTION_CLASS_E4NF:
	case ZYDIS_EXCEPTION_CLASS_E5NF:
	case ZYDIS_EXCEPTION_CLASS_E6NF:
	case ZYDIS_EXCEPTION_CLASS_E9NF:
	case ZYDIS_EXCEPTION_CLASS_E10NF:
	case ZYDIS_EXCEPTION_CLASS_E11NF:
		return true;
	default:
		return false;
	}
}

static uint8_t gpr_number(ZydisRegister r, bool *high8)
{
	ZydisRegisterClass c = ZydisRegisterGetClass(r);
	ZyanI8 id = ZydisRegisterGetId(r);

	if (r == ZYDIS_REGISTER_RIP || r == ZYDIS_REGISTER_EIP || r == ZYDIS_REGISTER_IP)
		return REG_PC;
	switch (c) {
	case ZYDIS_REGCLASS_GPR8:
		if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH) {
			*high8 = true;
			return r - ZYDIS_REGISTER_AH;
		}
		/* Zydis numbers AL..BL, AH..BH, SPL.. in one class. */
		if (r >= ZYDIS_REGISTER_AL && r <= ZYDIS_REGISTER_BL)
			return r - ZYDIS_REGISTER_AL;
		return 4 + (r - ZYDIS_REGISTER_SPL);
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
		return id;
	default:
		return REG_NONE;
	}
}

/* The segment of memory operands that are not written out (string instructions, XLAT, MASKMOVQ). */
static uint8_t implicit_seg(const ZydisDecodedInstruction *z, unsigned mode)
{
	uint8_t seg = SEG_DS;

	for (unsigned i = 0; i < z->raw.prefix_count; i++)
		switch (z->raw.prefixes[i].value) {
		case 0x26:
			seg = mode == 8 ? seg : SEG_ES;
			break;
		case 0x2e:
			seg = mode == 8 ? seg : SEG_CS;
			break;
		case 0x36:
			seg = mode == 8 ? seg : SEG_SS;
			break;
		case 0x3e:
			seg = mode == 8 ? seg : SEG_DS;
			break;
		case 0x64:
			seg = SEG_FS;
			break;
		case 0x65:
			seg = SEG_GS;
			break;
		default:
			break;
		}
	return seg;
}

static uint8_t seg_number(ZydisRegister r)
{
	switch (r) {
	case ZYDIS_REGISTER_ES:
		return SEG_ES;
	case ZYDIS_REGISTER_CS:
		return SEG_CS;
	case ZYDIS_REGISTER_SS:
		return SEG_SS;
	case ZYDIS_REGISTER_FS:
		return SEG_FS;
	case ZYDIS_REGISTER_GS:
		return SEG_GS;
	default:
		return SEG_DS;
	}
}

/* What is written may be left alone, so it is read, too. */
static void keep_target(struct insn *in)
{
	in->regs_read |= in->regs_written;
	in->fixed_read |= in->fixed_written;
	in->fields_read |= in->fields_written;
}

/* To how many elements a broadcast of one goes; 0: it is none. */
static uint8_t broadcast_from_one(ZydisBroadcastMode mode)
{
	switch (mode) {
	case ZYDIS_BROADCAST_MODE_1_TO_2:
		return 2;
	case ZYDIS_BROADCAST_MODE_1_TO_4:
		return 4;
	case ZYDIS_BROADCAST_MODE_1_TO_8:
		return 8;
	case ZYDIS_BROADCAST_MODE_1_TO_16:
		return 16;
	case ZYDIS_BROADCAST_MODE_1_TO_32:
		return 32;
	case ZYDIS_BROADCAST_MODE_1_TO_64:
		return 64;
	default:
		return 0;
	}
}

static uint8_t unit_of(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
	uint8_t unit = UNIT_INT;

	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_FXSAVE:
	case ZYDIS_MNEMONIC_FXSAVE64:
	case ZYDIS_MNEMONIC_FXRSTOR:
	case ZYDIS_MNEMONIC_FXRSTOR64:
		return UNIT_FXSAVE;
	case ZYDIS_MNEMONIC_XSAVE:
	case ZYDIS_MNEMONIC_XSAVE64:
	case ZYDIS_MNEMONIC_XSAVEOPT:
	case ZYDIS_MNEMONIC_XSAVEOPT64:
	case ZYDIS_MNEMONIC_XSAVEC:
	case ZYDIS_MNEMONIC_XSAVEC64:
	case ZYDIS_MNEMONIC_XRSTOR:
	case ZYDIS_MNEMONIC_XRSTOR64:
		return UNIT_XSAVE;
	case ZYDIS_MNEMONIC_LDMXCSR:
	case ZYDIS_MNEMONIC_STMXCSR:
		return UNIT_SSE;
	case ZYDIS_MNEMONIC_VLDMXCSR:
	case ZYDIS_MNEMONIC_VSTMXCSR:
	case ZYDIS_MNEMONIC_VZEROALL:
	case ZYDIS_MNEMONIC_VZEROUPPER:
		return UNIT_AVX;
	case ZYDIS_MNEMONIC_EMMS:
		return UNIT_MMX;
	default:
		break;
	}
	if (z->meta.isa_ext == ZYDIS_ISA_EXT_X87 || z->mnemonic == ZYDIS_MNEMONIC_FISTTP)
		return UNIT_X87;
	if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX)
		return UNIT_AVX512;
	for (unsigned i = 0; i < z->operand_count; i++) {
		ZydisRegisterClass c;

		if (op[i].type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		c = ZydisRegisterGetClass(op[i].reg.value);
		if (c == ZYDIS_REGCLASS_MASK)
			return UNIT_AVX512;
		if (c == ZYDIS_REGCLASS_ZMM)
			return UNIT_AVX512;
		if (c == ZYDIS_REGCLASS_YMM)
			unit = UNIT_AVX;
		else if (c == ZYDIS_REGCLASS_XMM && unit != UNIT_AVX)
			unit = z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX ? UNIT_AVX : UNIT_SSE;
		else if (c == ZYDIS_REGCLASS_MMX && unit == UNIT_INT)
			unit = UNIT_MMX;
	}
	/* Those with no vector register among their operands (CVTSS2SI r32, m32) still use MXCSR. */
	if (unit == UNIT_INT && z->meta.exception_class != ZYDIS_EXCEPTION_CLASS_NONE)
		switch (z->meta.isa_ext) {
		case ZYDIS_ISA_EXT_SSE:
		case ZYDIS_ISA_EXT_SSE2:
			unit = z->meta.isa_set == ZYDIS_ISA_SET_SSE2MMX ? UNIT_MMX : UNIT_SSE;
			break;
		case ZYDIS_ISA_EXT_AVX:
		case ZYDIS_ISA_EXT_AVX2:
			unit = UNIT_AVX;
			break;
		default:
			break;
		}
	return unit;
}

static bool size_scalable(const ZydisDecodedInstruction *z, uint8_t unit)
{
	if (unit != UNIT_INT && unit != UNIT_X87)
		return false;
	/* MOVNTI, fences and cache control: with 66 they are other instructions. */
	if (z->opcode_map == ZYDIS_OPCODE_MAP_0F && (z->opcode == 0xc3 || z->opcode == 0xae))
		return false;
	return z->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY;
}

/* The field that names an explicit operand's general register, as GPR_IN_*; 0: none. */
static uint8_t gpr_field(const ZydisDecodedOperand *o)
{
	if (o->visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT)
		return 0;
	switch (o->encoding) {
	case ZYDIS_OPERAND_ENCODING_MODRM_REG:
		return GPR_IN_REG;
	case ZYDIS_OPERAND_ENCODING_MODRM_RM:
		return GPR_IN_RM;
	case ZYDIS_OPERAND_ENCODING_NDSNDD:
		return GPR_IN_VVVV;
	case ZYDIS_OPERAND_ENCODING_OPCODE:
		return GPR_IN_OPCODE;
	default:
		return 0;
	}
}

static void use_gpr(struct insn *in, const ZydisDecodedOperand *o, uint8_t r)
{
	uint8_t field = gpr_field(o);
	bool wr = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;

	if ((o->actions & (ZYDIS_OPERAND_ACTION_MASK_READ | ZYDIS_OPERAND_ACTION_CONDWRITE)) ||
	    (wr && o->size < 32)) {
		in->regs_read |= 1u << r;
		in->fixed_read |= field ? 0 : 1u << r;
		in->fields_read |= field;
	}
	if (wr) {
		in->regs_written |= 1u << r;
		in->fixed_written |= field ? 0 : 1u << r;
		in->fields_written |= field;
	}
	in->gpr_where |= field;
	if (field == GPR_IN_VVVV)
		in->vvvv = r;
}

/* A register that makes a memory operand's address. */
static void use_address(struct insn *in, const ZydisDecodedOperand *o, ZydisRegister reg)
{
	bool high8;
	uint8_t r = reg == ZYDIS_REGISTER_NONE ? REG_NONE : gpr_number(reg, &high8);

	if (r >= 16)
		return;
	in->regs_read |= 1u << r;
	if (o->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM)
		in->fixed_read |= 1u << r;
}

static void read_operand(struct insn *in, const ZydisDecodedOperand *o)
{
	bool rd = o->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
	bool wr = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
	bool visible = o->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN;

	switch (o->type) {
	case ZYDIS_OPERAND_TYPE_REGISTER: {
		bool high8 = false;
		uint8_t r = gpr_number(o->reg.value, &high8);

		if (r < 16) {
			use_gpr(in, o, r);
			if (o->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT && o->size == 8 && !high8)
				in->reg8 = true;
			/* Hidden ones (LAHF, DIV r/m8) need no encoding that names AH. */
			in->high8 |= high8 && o->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT;
		}
		if (visible && in->nops < 3) {
			in->ops[in->nops].type = o->type;
			in->ops[in->nops].cls = ZydisRegisterGetClass(o->reg.value);
			in->ops[in->nops].size = o->size / 8;
			in->ops[in->nops].high8 = high8;
			in->ops[in->nops].encoding = o->encoding;
			switch (in->ops[in->nops].cls) {
			case ZYDIS_REGCLASS_SEGMENT:
				in->ops[in->nops].reg = seg_number(o->reg.value);
				break;
			case ZYDIS_REGCLASS_CONTROL:
			case ZYDIS_REGCLASS_DEBUG:
			case ZYDIS_REGCLASS_MMX:
			case ZYDIS_REGCLASS_XMM:
			case ZYDIS_REGCLASS_YMM:
			case ZYDIS_REGCLASS_ZMM:
			case ZYDIS_REGCLASS_MASK:
				in->ops[in->nops].reg = ZydisRegisterGetId(o->reg.value);
				break;
			default:
				in->ops[in->nops].reg = r;
			}
			in->nops++;
		}
		break;
	}
	case ZYDIS_OPERAND_TYPE_MEMORY: {
		bool dummy = false;

		use_address(in, o, o->mem.base);
		if (o->mem.type != ZYDIS_MEMOP_TYPE_VSIB)
			use_address(in, o, o->mem.index);
		if (!visible)
			break;
		in->has_mem = true;
		in->mem_read = rd;
		in->mem_write = wr;
		in->mem_vsib = o->mem.type == ZYDIS_MEMOP_TYPE_VSIB;
		in->seg = seg_number(o->mem.segment);
		in->base = o->mem.base == ZYDIS_REGISTER_NONE ? REG_NONE : gpr_number(o->mem.base, &dummy);
		in->index = o->mem.index == ZYDIS_REGISTER_NONE || in->mem_vsib
				? REG_NONE
				: gpr_number(o->mem.index, &dummy);
		if (in->mem_vsib)
			in->vsib_index = (uint8_t)ZydisRegisterGetId(o->mem.index);
		in->scale = o->mem.scale ? o->mem.scale : 1;
		in->disp = o->mem.disp.has_displacement ? o->mem.disp.value : 0;
		in->mem_size = o->size / 8;
		in->mem_elem = o->element_size / 8;
		if (o->encoding == ZYDIS_OPERAND_ENCODING_DISP16_32_64)
			in->moffs = true;
		if (in->nops < 3) {
			in->ops[in->nops].type = o->type;
			in->ops[in->nops].size = in->mem_size > 255 ? 255 : in->mem_size;
			in->nops++;
		}
		break;
	}
	case ZYDIS_OPERAND_TYPE_POINTER:
		in->imm[0] = o->ptr.offset;
		in->imm[1] = o->ptr.segment;
		if (in->nops < 3)
			in->ops[in->nops++].type = o->type;
		break;
	case ZYDIS_OPERAND_TYPE_IMMEDIATE:
		if (visible && in->nops < 3) {
			unsigned k = in->nops == 1 && in->ops[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;

			in->imm[k] = o->imm.is_signed ? o->imm.value.s : (int64_t)o->imm.value.u;
			in->imm_relative = o->imm.is_relative;
			in->imm_signed = o->imm.is_signed;
			in->ops[in->nops].type = o->type;
			in->ops[in->nops].size = o->size / 8;
			in->nops++;
		}
		break;
	default:
		break;
	}
}

void insn_count(struct insn *in)
{
	uint64_t count = in->imm_len ? (uint64_t)in->imm[0] & (in->opsize == 8 ? 63 : 31) : 1;
	bool two = in->map == ZYDIS_OPCODE_MAP_0F; /* SHLD, SHRD */
	bool by_cl = two ? in->opcode & 1 : (in->opcode & 0xfe) == 0xd2;

	/* Nor is it known what those of two registers do that shift by more than there is. */
	in->flags_passed =
	    by_cl || !count || (two && count > 8u * in->opsize) ? in->flags_written | in->flags_undefined : 0;
}

int insn_decode(const uint8_t *code, size_t n, unsigned mode, bool real, struct insn *in)
{
	ZydisDecoder d;
	ZydisDecodedInstruction z;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	ZyanStatus st;
	ZydisMachineMode mm = mode == 8   ? ZYDIS_MACHINE_MODE_LONG_64
			      : mode == 4 ? ZYDIS_MACHINE_MODE_LEGACY_32
			      : real      ? ZYDIS_MACHINE_MODE_REAL_16
					  : ZYDIS_MACHINE_MODE_LEGACY_16;

	ZydisDecoderInit(&d, mm,
			 mode == 8   ? ZYDIS_STACK_WIDTH_64
			 : mode == 4 ? ZYDIS_STACK_WIDTH_32
				     : ZYDIS_STACK_WIDTH_16);
	st = ZydisDecoderDecodeFull(&d, code, n > 15 ? 15 : n, &z, op);
	if (!ZYAN_SUCCESS(st)) {
		if (st == ZYDIS_STATUS_NO_MORE_DATA)
			return n >= 15 ? DECODE_TOO_LONG : DECODE_MORE;
		if (st == ZYDIS_STATUS_INSTRUCTION_TOO_LONG)
			return DECODE_TOO_LONG;
		return DECODE_UD;
	}
	/* Zydis 4.0 takes a SIB byte without a base for one with R13D, where REX.B and an address-size prefix
	 * meet (SDM 2A table 2-5: base 101 with mod 00 is a displacement, whatever REX.B). */
	if (mode == 8 && z.address_width == 32 && (z.attributes & ZYDIS_ATTRIB_HAS_SIB) &&
	    z.raw.modrm.mod == 0 && z.raw.sib.base == 5)
		for (unsigned i = 0; i < z.operand_count; i++)
			if (op[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
			    op[i].mem.base == ZYDIS_REGISTER_R13D) {
				op[i].mem.base = ZYDIS_REGISTER_NONE;
				op[i].mem.disp.has_displacement = true;
				op[i].mem.disp.value = z.raw.disp.value;
			}
	memset(in, 0, sizeof *in);
	memcpy(in->bytes, code, z.length);
	in->len = z.length;
	in->mnemonic = z.mnemonic;
	in->mode = mode;
	in->opsize = z.operand_width / 8;
	in->addrsize = z.address_width / 8;
	in->base = in->index = REG_NONE;
	in->seg = implicit_seg(&z, mode); /* a visible memory operand overwrites it */
	in->scale = 1;
	in->far = z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
	in->enc = z.encoding;
	in->map = z.opcode_map;
	in->opcode = z.opcode;
	in->has_modrm = z.attributes & ZYDIS_ATTRIB_HAS_MODRM;
	if (in->has_modrm)
		in->modrm = (uint8_t)(z.raw.modrm.mod << 6 | z.raw.modrm.reg << 3 | z.raw.modrm.rm);
	in->lock = z.attributes & ZYDIS_ATTRIB_HAS_LOCK;
	in->rep = z.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE);
	in->repne = z.attributes & ZYDIS_ATTRIB_HAS_REPNE;
	in->rex_w = z.raw.rex.W;
	in->rex_r = z.raw.rex.R;
	in->rex_x = z.raw.rex.X;
	in->rex_b = z.raw.rex.B;
	in->isa = (uint8_t)z.meta.isa_ext;
	in->unit = unit_of(&z, op);
	for (unsigned i = 0; i < z.raw.prefix_count; i++) {
		if (z.raw.prefixes[i].type != ZYDIS_PREFIX_TYPE_MANDATORY)
			continue;
		if (z.raw.prefixes[i].value == 0x66)
			in->need66 = true;
		else if (z.raw.prefixes[i].value == 0xf2)
			in->needf2 = true;
		else if (z.raw.prefixes[i].value == 0xf3)
			in->needf3 = true;
	}
	if (in->opsize == 2 && size_scalable(&z, in->unit))
		in->need66 = true;
	in->imm_off = z.length;
	for (int i = 0; i < 2; i++)
		if (z.raw.imm[i].size) {
			if (z.raw.imm[i].offset < in->imm_off)
				in->imm_off = z.raw.imm[i].offset;
			in->imm_len += z.raw.imm[i].size / 8;
		}
	if (z.cpu_flags) {
		in->flags_read = z.cpu_flags->tested & FLAGS_ARITH;
		in->flags_written =
		    (z.cpu_flags->modified | z.cpu_flags->set_0 | z.cpu_flags->set_1) & FLAGS_ARITH;
		in->flags_undefined = z.cpu_flags->undefined & FLAGS_ARITH;
	}
	in->counts = (z.meta.category == ZYDIS_CATEGORY_SHIFT || z.meta.category == ZYDIS_CATEGORY_ROTATE) &&
		     in->enc == ZYDIS_INSTRUCTION_ENCODING_LEGACY;
	if (z.raw.vex.offset || z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
		in->vex_off = z.raw.vex.offset;
	if (z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX)
		in->vex_off = z.raw.evex.offset;
	in->mem_masked = (z.avx.mask.reg != ZYDIS_REGISTER_NONE && z.avx.mask.reg != ZYDIS_REGISTER_K0) ||
			 z.mnemonic == ZYDIS_MNEMONIC_VMASKMOVPS || z.mnemonic == ZYDIS_MNEMONIC_VMASKMOVPD ||
			 z.mnemonic == ZYDIS_MNEMONIC_VPMASKMOVD || z.mnemonic == ZYDIS_MNEMONIC_VPMASKMOVQ;
	if (access_unmasked(&z))
		in->mem_masked = false;
	if (in->mem_masked) {
		in->mask_reg = in->enc == ZYDIS_INSTRUCTION_ENCODING_VEX
				   ? ~in->bytes[in->vex_off + 2] >> 3 & 15
				   : (uint8_t)ZydisRegisterGetId(z.avx.mask.reg);
		in->mem_packed =
		    z.meta.category == ZYDIS_CATEGORY_COMPRESS || z.meta.category == ZYDIS_CATEGORY_EXPAND;
	}
	in->mem_scalar = z.meta.exception_class == ZYDIS_EXCEPTION_CLASS_E3 ||
			 z.meta.exception_class == ZYDIS_EXCEPTION_CLASS_E10 ||
			 z.mnemonic == ZYDIS_MNEMONIC_VFPCLASSSS || z.mnemonic == ZYDIS_MNEMONIC_VFPCLASSSD ||
			 z.mnemonic == ZYDIS_MNEMONIC_VMOVSS || z.mnemonic == ZYDIS_MNEMONIC_VMOVSD ||
			 z.mnemonic == ZYDIS_MNEMONIC_VMOVSH;
	in->mem_tuple = z.avx.broadcast.is_static;
	in->mem_feeds = broadcast_from_one(z.avx.broadcast.mode);
	in->vec_len = (uint8_t)(z.avx.vector_length / 8);
	for (unsigned i = 0; i < z.operand_count; i++)
		read_operand(in, &op[i]);
	if (in->counts)
		insn_count(in);
	/* They leave the register alone where the operand is zero. */
	if (z.mnemonic == ZYDIS_MNEMONIC_BSF || z.mnemonic == ZYDIS_MNEMONIC_BSR)
		keep_target(in);
	/* IS4 operands name a vector register in the immediate byte. */
	if (in->enc != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
		for (unsigned i = 0; i < z.operand_count; i++)
			if (op[i].encoding == ZYDIS_OPERAND_ENCODING_IS4) {
				in->imm_off = z.length - 1;
				in->imm_len = 1;
				in->imm_is4 = true;
			}

	in->cond = in->opcode & 15;
	/* The other encodings (XOP, 3DNow!, MVEX) are of no model, and reencode() knows nothing of them. */
	if ((in->enc != ZYDIS_INSTRUCTION_ENCODING_LEGACY && in->enc != ZYDIS_INSTRUCTION_ENCODING_VEX &&
	     in->enc != ZYDIS_INSTRUCTION_ENCODING_EVEX) ||
	    (isa_refused(z.meta.isa_ext) && !is_hypercall(z.mnemonic)) || set_refused(z.meta.isa_set) ||
	    (z.meta.isa_ext == ZYDIS_ISA_EXT_CET && !is_nop(&z)) || z.mnemonic == ZYDIS_MNEMONIC_UD0 ||
	    z.mnemonic == ZYDIS_MNEMONIC_UD1 || z.mnemonic == ZYDIS_MNEMONIC_UD2 ||
	    z.mnemonic == ZYDIS_MNEMONIC_RSM) /* but in SMM */
		in->cls = INSN_UD;
	else if (is_nop(&z))
		in->cls = INSN_NOP;
	else if (is_special(z.mnemonic) || z.meta.category == ZYDIS_CATEGORY_COND_BR ||
		 z.meta.category == ZYDIS_CATEGORY_STRINGOP || z.meta.category == ZYDIS_CATEGORY_IOSTRINGOP ||
		 in->mem_vsib)
		in->cls = INSN_SPECIAL;
	else if (z.mnemonic == ZYDIS_MNEMONIC_MOV && in->nops == 2 &&
		 (in->ops[0].cls == ZYDIS_REGCLASS_SEGMENT || in->ops[0].cls == ZYDIS_REGCLASS_CONTROL ||
		  in->ops[0].cls == ZYDIS_REGCLASS_DEBUG || in->ops[1].cls == ZYDIS_REGCLASS_SEGMENT ||
		  in->ops[1].cls == ZYDIS_REGCLASS_CONTROL || in->ops[1].cls == ZYDIS_REGCLASS_DEBUG))
		in->cls = INSN_SPECIAL;
	else if (z.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED)
		in->cls = INSN_UD;
	else
		in->cls = INSN_NATIVE;
	/* Only the one memory operand that is written out gets a host pointer: nothing else may reach memory.
	 */
	if (in->cls == INSN_NATIVE)
		for (unsigned i = 0, seen = 0; i < z.operand_count; i++)
			if (op[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
			    (op[i].visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN || seen++))
				in->cls = INSN_UD;
	in->store_state = in->cls == INSN_NATIVE && in->has_mem && in->mem_write &&
			  (in->unit == UNIT_X87 || in->unit == UNIT_MMX ||
			   z.mnemonic == ZYDIS_MNEMONIC_VCVTPS2PH || z.mnemonic == ZYDIS_MNEMONIC_VCVTPS2PHX);
	return DECODE_OK;
}

/* Extensions without an enable bit of their own, and where CPUID says that they are there. */
static const struct {
	uint8_t isa;
	uint8_t leaf; /* 1, 7, or 0x81 for 0x80000001 */
	char reg;
	uint8_t bit;
} isa_cpuid[] = {
	{ ZYDIS_ISA_EXT_SSE3, 1, 'c', 0 },        { ZYDIS_ISA_EXT_PCLMULQDQ, 1, 'c', 1 },
	{ ZYDIS_ISA_EXT_SSSE3, 1, 'c', 9 },       { ZYDIS_ISA_EXT_SSE4, 1, 'c', 19 },
	{ ZYDIS_ISA_EXT_MOVBE, 1, 'c', 22 },      { ZYDIS_ISA_EXT_AES, 1, 'c', 25 },
	{ ZYDIS_ISA_EXT_RDRAND, 1, 'c', 30 },     { ZYDIS_ISA_EXT_BMI1, 7, 'b', 3 },
	{ ZYDIS_ISA_EXT_BMI2, 7, 'b', 8 },        { ZYDIS_ISA_EXT_RDSEED, 7, 'b', 18 },
	{ ZYDIS_ISA_EXT_ADOX_ADCX, 7, 'b', 19 },  { ZYDIS_ISA_EXT_CLFLUSHOPT, 7, 'b', 23 },
	{ ZYDIS_ISA_EXT_CLWB, 7, 'b', 24 },       { ZYDIS_ISA_EXT_SHA, 7, 'b', 29 },
	{ ZYDIS_ISA_EXT_GFNI, 7, 'c', 8 },        { ZYDIS_ISA_EXT_VAES, 7, 'c', 9 },
	{ ZYDIS_ISA_EXT_VPCLMULQDQ, 7, 'c', 10 }, { ZYDIS_ISA_EXT_FMA, 1, 'c', 12 },
	{ ZYDIS_ISA_EXT_LZCNT, 0x81, 'c', 5 },    { ZYDIS_ISA_EXT_SSE4A, 0x81, 'c', 6 },
	{ ZYDIS_ISA_EXT_F16C, 1, 'c', 29 },       { ZYDIS_ISA_EXT_AVX2, 7, 'b', 5 },
};

void insn_restrict(struct insn *in, const struct cpu_model *m)
{
	for (size_t i = 0; i < ARRAY_SIZE(isa_cpuid); i++) {
		const struct cpuid_regs *r;
		uint32_t word;

		if (isa_cpuid[i].isa != in->isa)
			continue;
		r = isa_cpuid[i].leaf == 1   ? &m->basic[1]
		    : isa_cpuid[i].leaf == 7 ? &m->basic[7]
					     : &m->ext[1];
		word = isa_cpuid[i].reg == 'b' ? r->ebx : isa_cpuid[i].reg == 'c' ? r->ecx : r->edx;
		if (word >> isa_cpuid[i].bit & 1)
			return;
		if (in->mnemonic == ZYDIS_MNEMONIC_LZCNT || in->mnemonic == ZYDIS_MNEMONIC_TZCNT) {
			/* REP BSR and REP BSF: the prefix means nothing, a zero source leaves the target
			 * alone. */
			in->needf3 = false;
			keep_target(in);
			in->flags_undefined = FLAGS_ARITH & ~FLAG_ZF;
			in->flags_written = FLAG_ZF;
			return;
		}
		in->cls = INSN_UD;
		return;
	}
}
