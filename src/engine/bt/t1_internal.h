/* SPDX-License-Identifier: Apache-2.0 */
/* Between the translator and the assembly. */
#ifndef SILL_ENGINE_BT_T1_INTERNAL_H
#define SILL_ENGINE_BT_T1_INTERNAL_H

#include "engine/bt/vcpu.h"

/* t1_asm.S */
void t1_enter(struct vcpu *v);
extern const char t1_enter_check[], t1_enter_end[], t1_exit[], t1_slow_thunk[], t1_slow_check[], t1_slow_end[];

/*
 * Slow path of a memory access (t1_gpr.c): va missed; info: size in bits 7:0,
 * bit 8 a write, bits 31:16 the instruction's offset in its block. 0: the TLB
 * has the page now; else the interpreter must do the instruction.
 */
uint64_t t1_slow_mem(struct vcpu *v, uint64_t va, uint32_t info);

#endif
