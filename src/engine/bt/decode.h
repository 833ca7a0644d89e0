/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoded instructions.
 *
 * Zydis does the decoding; this is what the interpreter and the translator need
 * of its answer, in a form small enough to cache.  Every instruction falls into
 * one class:
 *
 *   INSN_NATIVE   ordinary: the processor executes it, on the guest's registers
 *                 and a host pointer (reencode.h rewrites its operands);
 *   INSN_SPECIAL  system, control-flow, segment, stack and string instructions:
 *                 semantics in C (interp_*.c), by mnemonic;
 *   INSN_NOP      does nothing that a guest can see (NOP, PREFETCH, ENDBR...);
 *   INSN_UD       not offered: #UD.
 */
#ifndef SILL_ENGINE_BT_DECODE_H
#define SILL_ENGINE_BT_DECODE_H

#include <Zydis/Zydis.h>

#include "x86/cpuid.h"
#include "x86/state.h"

enum insn_class { INSN_NATIVE, INSN_SPECIAL, INSN_NOP, INSN_UD };

/* Which state an instruction needs enabled (CR0.EM/TS, CR4, XCR0). */
enum insn_unit { UNIT_INT, UNIT_X87, UNIT_MMX, UNIT_SSE, UNIT_AVX, UNIT_AVX512, UNIT_FXSAVE, UNIT_XSAVE };

/* Where a register operand is encoded, for reencode.h. */
enum {
	GPR_IN_REG = 1,    /* modrm.reg is a general register */
	GPR_IN_RM = 2,     /* modrm.rm, mod == 3, likewise */
	GPR_IN_VVVV = 4,   /* VEX.vvvv likewise */
	GPR_IN_OPCODE = 8, /* opcode bits 2:0 likewise */
};

#define REG_NONE 0xff
#define REG_PC   16

struct insn {
	uint8_t bytes[15];
	uint8_t len;
	uint16_t mnemonic; /* ZydisMnemonic */
	uint8_t cls;       /* enum insn_class */
	uint8_t isa;       /* ZydisISAExt */
	uint8_t unit;      /* enum insn_unit */
	uint8_t mode;      /* 2, 4 or 8: code size in bytes */
	uint8_t opsize;    /* effective operand size in bytes */
	uint8_t addrsize;  /* effective address size in bytes */
	uint8_t stacksize; /* effective stack-pointer width (from SS.B) in bytes */

	/* memory operand */
	bool has_mem, mem_read, mem_write, mem_vsib, mem_masked, mem_packed;
	bool mem_scalar;    /* mem_masked: bit 0 of the mask alone counts */
	bool mem_tuple;     /* one or more elements that are broadcast */
	uint8_t mem_feeds;  /* a broadcast of one element: to so many; else 0 */
	uint8_t vsib_index; /* vector register that indexes */
	uint8_t mask_reg;   /* mem_masked: opmask register, or vector register for VEX; packed: elements are
			       contiguous */
	uint8_t vec_len;    /* vector length in bytes */
	uint8_t seg;        /* SEG_* */
	uint8_t base, index, scale;
	uint16_t mem_size; /* bytes */
	uint8_t mem_elem;  /* element size in bytes */
	bool store_state;  /* x87 or SSE state may change though the store faults (interp.c) */
	int64_t disp;

	/* immediates (up to two, e.g. ENTER, far pointers) */
	int64_t imm[2];
	bool imm_relative;

	/* prefixes */
	bool lock, rep, repne; /* rep: F3, for string instructions */
	bool far;

	/* encoding */
	uint8_t enc; /* ZydisInstructionEncoding */
	uint8_t map; /* ZydisOpcodeMap */
	uint8_t opcode, modrm;
	bool has_modrm, need66, needf2, needf3, moffs;
	uint8_t rex_w, rex_r, rex_x, rex_b;
	uint8_t vex_off;                     /* of the VEX or EVEX prefix within bytes[] */
	uint8_t imm_off, imm_len;            /* trailing immediate bytes within bytes[] */
	bool imm_is4;                        /* the immediate names a vector register (bits 7:4) */
	uint8_t gpr_where;                   /* GPR_IN_* */
	uint8_t vvvv;                        /* register number */
	bool high8;                          /* uses AH, CH, DH or BH */
	bool reg8;                           /* a byte-register operand: SPL..DIL need REX */
	uint16_t regs_read, regs_written;    /* general registers, address registers included in read */
	uint16_t fixed_read, fixed_written;  /* of these, those that are not named in the encoding */
	uint8_t fields_read, fields_written; /* GPR_IN_*: fields that name a register that is */
	bool imm_signed;                     /* imm[0] is sign-extended */
	uint32_t flags_read, flags_written, flags_undefined; /* of FLAGS_ARITH */
	uint32_t flags_passed; /* of those written and undefined: may stay what they were (insn_count) */
	bool counts;           /* a shift or rotation of a general register or of memory */
	uint8_t cond;          /* for Jcc, SETcc, CMOVcc: the condition code */

	/* explicit operands for the special instructions */
	uint8_t nops;
	struct {
		uint8_t type; /* ZydisOperandType */
		uint8_t reg;  /* general register number, or SEG_*, CRn, DRn */
		uint8_t cls;  /* ZydisRegisterClass */
		uint8_t size; /* bytes */
		bool high8;
		uint8_t encoding;
	} ops[3];
};

enum { DECODE_OK = 0, DECODE_MORE = 1, DECODE_UD = 2, DECODE_TOO_LONG = 3 };

/*
 * Decodes from code[0..n). mode: 2, 4, 8 (code size); real: real-address or
 * virtual-8086 mode; stack32 says SS.B.  DECODE_MORE: the instruction goes on
 * past n.
 */
int insn_decode(const uint8_t *code, size_t n, unsigned mode, bool real, struct insn *ret);

/* By zero they leave the flags alone: fills in flags_passed of an instruction that counts, whose immediate is
 * known (SDM 2B: SAL/SAR/SHL/SHR, RCL/RCR/ROL/ROR, SHLD, SHRD). */
void insn_count(struct insn *in);

/*
 * What the CPU model makes of a decoded instruction: extensions that it lacks
 * are #UD, or (LZCNT, TZCNT) what they were before. Extensions that XCR0 or CR4
 * can switch off are not looked at here.
 */
void insn_restrict(struct insn *in, const struct cpu_model *m);

#endif
