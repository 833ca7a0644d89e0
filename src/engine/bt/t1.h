/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tier 1: translated code. The block cache (cache.c), the translator
 * (translate.c), the way in and out of translated code (t1.c, t1_asm.S).
 */
#ifndef SILL_ENGINE_BT_T1_H
#define SILL_ENGINE_BT_T1_H

#include <ucontext.h>

#include "engine/bt/vcpu.h"

int t1_init(struct vcpu *v, uint64_t code_size);
void t1_free(struct vcpu *v);

/* Runs the guest from st.rip until there is something for the run loop: a kick, an event, HLT, shutdown. */
void t1_run(struct vcpu *v);

/* Signal handlers' part; async-signal-safe. The second returns true if the fault was translated code's. */
void t1_kick_signal(struct vcpu *v, ucontext_t *uc);
bool t1_fault_signal(struct vcpu *v, ucontext_t *uc);

/* Drops this vCPU's blocks made from [host, host+len). vCPU's thread. */
void t1_invalidate(struct vcpu *v, const void *host, uint64_t len);
/* Drops all of them. */
void t1_flush(struct vcpu *v);

#endif
