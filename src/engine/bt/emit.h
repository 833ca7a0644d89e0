/* SPDX-License-Identifier: Apache-2.0 */
/* Writing host machine code: a cursor and the few instructions that the engine itself needs. */
#ifndef SILL_ENGINE_BT_EMIT_H
#define SILL_ENGINE_BT_EMIT_H

#include <string.h>

#include "x86/state.h"

/* p: where bytes are written (the writable view); the code runs at p + exec_delta. */
struct emit {
	uint8_t *p, *end;
	intptr_t exec_delta;
};

static inline void *emit_here(const struct emit *e)
{
	return e->p + e->exec_delta;
}

static inline void emit1(struct emit *e, uint8_t b)
{
	*e->p++ = b;
}

static inline void emit4(struct emit *e, uint32_t v)
{
	memcpy(e->p, &v, 4);
	e->p += 4;
}

static inline void emit8(struct emit *e, uint64_t v)
{
	memcpy(e->p, &v, 8);
	e->p += 8;
}

static inline void emit_bytes(struct emit *e, const void *b, size_t n)
{
	memcpy(e->p, b, n);
	e->p += n;
}

/* ModRM (+SIB, disp) for reg, [base + index*scale + disp]; base may be REG_NONE_BASE for absolute disp32. */
#define EMIT_NO_REG 0xff
static inline void emit_mem(struct emit *e, unsigned reg, unsigned base, unsigned index, unsigned scale,
			    int32_t disp)
{
	unsigned ss = scale == 8 ? 3 : scale == 4 ? 2 : scale == 2 ? 1 : 0;
	unsigned mod;

	reg &= 7;
	if (base == EMIT_NO_REG) { /* [index*scale + disp32] or [disp32] */
		emit1(e, (uint8_t)(reg << 3 | 4));
		emit1(e, (uint8_t)(ss << 6 | (index == EMIT_NO_REG ? 4 : index & 7) << 3 | 5));
		emit4(e, (uint32_t)disp);
		return;
	}
	mod = disp == 0 && (base & 7) != 5 ? 0 : disp >= -128 && disp <= 127 ? 1 : 2;
	if (index != EMIT_NO_REG || (base & 7) == 4) {
		emit1(e, (uint8_t)(mod << 6 | reg << 3 | 4));
		emit1(e, (uint8_t)(ss << 6 | (index == EMIT_NO_REG ? 4 : index & 7) << 3 | (base & 7)));
	} else {
		emit1(e, (uint8_t)(mod << 6 | reg << 3 | (base & 7)));
	}
	if (mod == 1)
		emit1(e, (uint8_t)disp);
	else if (mod == 2)
		emit4(e, (uint32_t)disp);
}

static inline void emit_rex(struct emit *e, unsigned w, unsigned reg, unsigned index, unsigned base,
			    bool force)
{
	unsigned rex = 0x40 | w << 3 | ((reg >> 3) & 1) << 2 |
		       (index == EMIT_NO_REG ? 0 : ((index >> 3) & 1) << 1) |
		       (base == EMIT_NO_REG ? 0 : (base >> 3) & 1);

	if (rex != 0x40 || force)
		emit1(e, (uint8_t)rex);
}

/* op reg, [base+disp] with a one-byte opcode; size 4 or 8. */
static inline void emit_op_mem(struct emit *e, unsigned size, uint8_t op, unsigned reg, unsigned base,
			       int32_t disp)
{
	emit_rex(e, size == 8, reg, EMIT_NO_REG, base, false);
	emit1(e, op);
	emit_mem(e, reg, base, EMIT_NO_REG, 1, disp);
}

/* op rm, reg (register forms). */
static inline void emit_op_reg(struct emit *e, unsigned size, uint8_t op, unsigned reg, unsigned rm)
{
	emit_rex(e, size == 8, reg, EMIT_NO_REG, rm, false);
	emit1(e, op);
	emit1(e, (uint8_t)(0xc0 | (reg & 7) << 3 | (rm & 7)));
}

#define OP_MOV_LOAD  0x8b
#define OP_MOV_STORE 0x89
#define OP_LEA       0x8d
#define OP_ADD_LOAD  0x03
#define OP_XOR_LOAD  0x33
#define OP_CMP_LOAD  0x3b

static inline void emit_load(struct emit *e, unsigned reg, unsigned base, int32_t disp)
{
	emit_op_mem(e, 8, OP_MOV_LOAD, reg, base, disp);
}

static inline void emit_store(struct emit *e, unsigned reg, unsigned base, int32_t disp)
{
	emit_op_mem(e, 8, OP_MOV_STORE, reg, base, disp);
}

static inline void emit_mov(struct emit *e, unsigned dst, unsigned src)
{
	emit_op_reg(e, 8, OP_MOV_STORE, src, dst);
}

static inline void emit_lea(struct emit *e, unsigned size, unsigned dst, unsigned base, unsigned index,
			    unsigned scale, int32_t disp)
{
	emit_rex(e, size == 8, dst, index, base, false);
	emit1(e, OP_LEA);
	emit_mem(e, dst, base, index, scale, disp);
}

/* The shortest form that sets the whole register and leaves the flags alone. */
static inline void emit_mov_imm(struct emit *e, unsigned reg, uint64_t v)
{
	if (v <= 0xffffffffu) {
		emit_rex(e, 0, 0, EMIT_NO_REG, reg, false);
		emit1(e, (uint8_t)(0xb8 | (reg & 7)));
		emit4(e, (uint32_t)v);
	} else if ((int64_t)v == (int32_t)v) {
		emit_rex(e, 1, 0, EMIT_NO_REG, reg, false);
		emit1(e, 0xc7);
		emit1(e, (uint8_t)(0xc0 | (reg & 7)));
		emit4(e, (uint32_t)v);
	} else {
		emit_rex(e, 1, 0, EMIT_NO_REG, reg, false);
		emit1(e, (uint8_t)(0xb8 | (reg & 7)));
		emit8(e, v);
	}
}

/* mov qword/dword [base+disp], imm32 (sign-extended for 8). */
static inline void emit_store_imm(struct emit *e, unsigned size, unsigned base, int32_t disp, int32_t imm)
{
	emit_rex(e, size == 8, 0, EMIT_NO_REG, base, false);
	emit1(e, 0xc7);
	emit_mem(e, 0, base, EMIT_NO_REG, 1, disp);
	emit4(e, (uint32_t)imm);
}

static inline void emit_store_imm8(struct emit *e, unsigned base, int32_t disp, uint8_t imm)
{
	emit_rex(e, 0, 0, EMIT_NO_REG, base, false);
	emit1(e, 0xc6);
	emit_mem(e, 0, base, EMIT_NO_REG, 1, disp);
	emit1(e, imm);
}

/* Direct jumps and calls: target is an executable address. */
static inline void emit_jmp(struct emit *e, const void *target)
{
	emit1(e, 0xe9);
	emit4(e, (uint32_t)((const uint8_t *)target - ((uint8_t *)emit_here(e) + 4)));
}

static inline void emit_jcc(struct emit *e, unsigned cc, const void *target)
{
	emit1(e, 0x0f);
	emit1(e, (uint8_t)(0x80 | cc));
	emit4(e, (uint32_t)((const uint8_t *)target - ((uint8_t *)emit_here(e) + 4)));
}

/* A jump over at most 127 bytes that follow: its place, for emit_short_here. opcode: 0xeb, 0x70 + condition,
 * 0xe3. */
static inline uint8_t *emit_short(struct emit *e, uint8_t opcode)
{
	emit1(e, opcode);
	emit1(e, 0);
	return e->p - 1;
}

static inline void emit_short_here(struct emit *e, uint8_t *at)
{
	*at = (uint8_t)(e->p - at - 1);
}

static inline void emit_jmp_mem(struct emit *e, unsigned base, int32_t disp)
{
	emit_rex(e, 0, 4, EMIT_NO_REG, base, false);
	emit1(e, 0xff);
	emit_mem(e, 4, base, EMIT_NO_REG, 1, disp);
}

static inline void emit_jmp_reg(struct emit *e, unsigned reg)
{
	emit_op_reg(e, 4, 0xff, 4, reg);
}

static inline void emit_call_mem(struct emit *e, unsigned base, int32_t disp)
{
	emit_rex(e, 0, 2, EMIT_NO_REG, base, false);
	emit1(e, 0xff);
	emit_mem(e, 2, base, EMIT_NO_REG, 1, disp);
}

#endif
