/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interpreter: complete, slow, obvious.
 *
 * One instruction at a time, in every mode.  It is the bring-up engine, what
 * runs the modes and instructions that are not worth translating, and the
 * oracle that the translator is compared with.  Ordinary code: the guest's
 * vector state is in st.xsave throughout.
 *
 * Semantic functions return 0, or -1 with v->exc set: then no register and no
 * memory has changed (except where the manual says otherwise, as between the
 * iterations of a repeated string instruction).
 */
#ifndef SILL_ENGINE_BT_INTERP_H
#define SILL_ENGINE_BT_INTERP_H

#include "engine/bt/decode.h"
#include "engine/bt/mmu.h"
#include "engine/bt/vcpu.h"

/* Executes one instruction at RIP, delivering the exception it raises, if any, and traps due after it. */
void interp_step(struct vcpu *v);
/* Only the instruction itself: 0; or -1 with v->exc (or, under v->in_gpr, v->bail; or neither, if the
 * processor stands before it, halted), RIP back at its start and nothing delivered. */
int interp_try(struct vcpu *v);
/* Runs until a kick, HLT, shutdown, or an event can be delivered. */
void interp_run_until_event(struct vcpu *v);
/* True if host address rip lies in code that the interpreter generated. Async-signal-safe. */
bool interp_owns_code(const struct vcpu *v, uint64_t rip);

/* Fills in interp_top. */
void interp_stats(const struct vcpu *v, struct engine_stats *ret);
/* Allocation of the decoded-instruction cache. 0 or -ENOMEM. */
int interp_init(struct vcpu *v);
void interp_free(struct vcpu *v);

/* ---- events (event.c) ---- */

/* Delivers v->exc to the guest: IDT, stack switch, double and triple faults (st.shutdown). */
void event_exception(struct vcpu *v);
/* Delivers an external interrupt or NMI at an instruction boundary. */
void event_interrupt(struct vcpu *v, uint8_t vector);
/* INT n, INT3, INTO, INT1: software interrupt with the return address after the instruction (rip already
 * advanced to `next`). */
int event_software(struct vcpu *v, uint8_t vector, uint64_t next, bool int1);
/* Anything deliverable now (NMI, interrupt with IF and no shadow)? */
bool event_pending(struct vcpu *v);
/* Takes and delivers it. */
void event_deliver(struct vcpu *v);

#endif
