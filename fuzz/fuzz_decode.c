/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decoder and the re-encoder: first byte says the mode, the rest is code.
 * What comes out of re-encoding must be the same instruction with the same
 * operand widths, in 64-bit code.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/bt/decode.h"
#include "engine/bt/reencode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool decode64(const uint8_t *p, size_t n, ZydisDecodedInstruction *z, ZydisDecodedOperand *op)
{
	ZydisDecoder d;

	ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, p, n, z, op));
}

static void check_reencoding(const struct insn *in)
{
	static const uint8_t swapped[16] = { RAX, RCX, RDX, RBX, RDI, RBP, RSI, RSP,
					     R8,  R9,  R10, R11, R12, R13, R15, R14 };
	struct host_mem m = { .base = RBX, .index = EMIT_NO_REG, .scale = 1 };
	uint8_t identity[16], out[64];
	ZydisDecodedInstruction z;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];

	for (unsigned i = 0; i < 16; i++)
		identity[i] = (uint8_t)i;
	for (unsigned form = 0; form < 4; form++) {
		struct emit e = { .p = out };
		unsigned n;

		if (form & 2) /* an operand as the translator makes them */
			m = (struct host_mem){ .base = R13, .index = R14, .scale = 1, .disp = 8 };
		memset(out, 0xcc, sizeof out);
		if (!reencode(&e, in, form & 1 ? swapped : identity, &m)) {
			/* Only AH..BH next to a register that needs REX have no encoding. */
			if (!in->high8 || e.p != out)
				abort();
			continue;
		}
		n = (unsigned)(e.p - out);
		if (n > REENCODE_MAX || !decode64(out, n, &z, op) || z.length != n)
			abort();
		if (z.mnemonic != in->mnemonic)
			abort();
		for (unsigned k = 0, j = 0; k < z.operand_count_visible && j < in->nops; k++) {
			if (op[k].type == ZYDIS_OPERAND_TYPE_MEMORY) {
				if (in->has_mem && op[k].size / 8 != in->mem_size)
					abort();
				if (op[k].mem.base != (form & 2 ? ZYDIS_REGISTER_R13 : ZYDIS_REGISTER_RBX))
					abort();
			}
			if (op[k].type != (ZydisOperandType)in->ops[j].type)
				abort();
			if (op[k].type == ZYDIS_OPERAND_TYPE_REGISTER && op[k].size / 8 != in->ops[j].size)
				abort();
			j++;
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t modes[4] = { 8, 4, 2, 2 };
	struct insn in;
	unsigned mode;
	int r;

	if (size < 2)
		return 0;
	mode = data[0] & 3;
	r = insn_decode(data + 1, size - 1, modes[mode], mode == 3, &in);
	if (r != DECODE_OK)
		return 0;
	if (!in.len || in.len > 15 || in.len > size - 1 || memcmp(in.bytes, data + 1, in.len))
		abort();
	if (in.imm_off + in.imm_len > in.len || (in.base != REG_NONE && in.base > REG_PC) ||
	    (in.index != REG_NONE && in.index > 15) || in.seg > SEG_GS)
		abort();
	if (in.cls == INSN_NATIVE)
		check_reencoding(&in);
	return 0;
}
