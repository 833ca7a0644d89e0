/* SPDX-License-Identifier: Apache-2.0 */
/* Between the translator and the assembly. */
#ifndef SILL_ENGINE_BT_T1_INTERNAL_H
#define SILL_ENGINE_BT_T1_INTERNAL_H

#include "engine/bt/decode.h"
#include "engine/bt/vcpu.h"

/* t1_asm.S */
void t1_enter(struct vcpu *v);
extern const char t1_special_thunk[], t1_special_check[], t1_special_end[];

/* An instruction that ends a block and is done by C, as translated code hands it over. */
struct special {
	struct insn in;
	uint64_t rip, next; /* addresses; pic: offsets from page_va */
	uint64_t mask;      /* of an address in this code */
	bool pic;
	uint8_t group; /* of the function that does it; t1_special's */
};
/* Both return the code to go on with, or NULL with exit_reason: leave. Registers are in st. */
void *t1_special(struct vcpu *v, struct special *sp);
void *t1_fault(struct vcpu *v, uint64_t host_pc, uint64_t guest_off);

/*
 * SYSCALL and SYSRET in 64-bit code, likewise, but with only the registers in st that C functions may change:
 * for programs that do little between them. Both return the code to go on with, or t1_exit, with the exit's
 * reason in any case; or NULL: the guest's state is as it was, t1_special must do it.
 */
void *t1_syscall(struct vcpu *v, struct special *sp);
void *t1_sysret(struct vcpu *v, struct special *sp);
extern const char t1_syscall_thunk[], t1_sysret_thunk[], t1_quick_check[], t1_quick_end[];

/* What segmented code needs beside them. */
void t1_segments(struct vcpu *v);
/* Arithmetic flags, IF, DF and AC between st.rflags and the fields that translated code uses; on the way out
 * also st.rip, which such code leaves as a place. */
void t1_sync_in(struct vcpu *v);
void t1_sync_out(struct vcpu *v);
/* Can translated code run in the current mode, and under which BLOCK_* flags? */
bool t1_mode_flags(struct vcpu *v, uint32_t *ret);

struct block_exit;
/* Code for guest address va (entry with flags in memory), or NULL: leave. e: the exit that led here, or NULL.
 */
void *t1_find(struct vcpu *v, uint64_t va, struct block_exit *e);
extern const char t1_find_thunk[], t1_find_check[], t1_find_end[];
extern const char t1_enter_check[], t1_enter_end[], t1_exit[], t1_slow_thunk[], t1_slow_check[],
    t1_slow_end[];

/*
 * Slow path of a memory access (t1_gpr.c): va missed; info: size in bits 7:0, MISS_* flags, bits 31:16 the
 * instruction's offset in its block. 0: the TLB has the page now, or, with direct_skip set, `direct` says
 * where the access goes (a group is to be left); else the interpreter must do the instruction.
 */
#define MISS_WRITE 0x100u
/* t1_slow_mem must not fill the TLB on its own: with a mask, the access may not touch the page at all. */
#define MISS_MASKED    0x200u
#define MISS_LOCKED    0x400u  /* an atomic access */
#define MISS_GROUP     0x800u  /* a group's range: size counts 16 bytes; MISS_WRITE is its first member's */
#define MISS_GROUP_ANY 0x1000u /* some member writes */
#define MISS_STATE     0x2000u /* a fault may change vector state: the interpreter's */
#define DIRECT_SKIP    5u      /* a jump: what lies between the call to slow_mem and the direct way */
uint64_t t1_slow_mem(struct vcpu *v, uint64_t va, uint32_t info);

#endif
