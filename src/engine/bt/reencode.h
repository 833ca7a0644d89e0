/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Re-encoding an ordinary guest instruction for the host.
 *
 * The processor's own semantics are what we want, on other operands: general
 * registers are renamed by a map, the memory operand is replaced by a host
 * one, instructions of 16- and 32-bit code get their 64-bit encodings.
 * Everything else (opcode, prefixes that matter, immediates, vector registers,
 * masks) stays as the guest wrote it.
 */
#ifndef SILL_ENGINE_BT_REENCODE_H
#define SILL_ENGINE_BT_REENCODE_H

#include "engine/bt/decode.h"
#include "engine/bt/emit.h"

struct host_mem {
	uint8_t base, index, scale; /* host registers; index may be EMIT_NO_REG */
	int32_t disp;
};

#define REENCODE_MAX 32

/*
 * Appends in's host form. map[guest register] = host register; mem replaces
 * the memory operand (required if in->has_mem). False, with nothing emitted,
 * where no encoding exists: AH..BH together with a register that needs REX.
 */
bool reencode(struct emit *e, const struct insn *in, const uint8_t map[16], const struct host_mem *mem);

#endif
