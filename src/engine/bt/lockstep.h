/* SPDX-License-Identifier: Apache-2.0 */
/* Interpreter against translator, block by block. See lockstep.c. */
#ifndef SILL_ENGINE_BT_LOCKSTEP_H
#define SILL_ENGINE_BT_LOCKSTEP_H

#include "engine/bt/cache.h"

int lockstep_init(struct vcpu *v);
void lockstep_free(struct vcpu *v);
/*
 * Of several vCPUs one executes at a time: others would change memory between the two executions of a block.
 * Waiting for one's turn is a safe point (bt.h).
 */
void lockstep_take_turn(struct vcpu *v);
void lockstep_end_turn(struct vcpu *v);
/* Between blocks: lets others have theirs now and then. True: that was a safe point, blocks may be gone. */
bool lockstep_next_turn(struct vcpu *v);
/* Before translated block b runs: what the interpreter makes of it. The state is as before afterwards. */
void lockstep_reference(struct vcpu *v, const struct block *b);
/* After it ran: 0, or -1 with v->error set. */
int lockstep_compare(struct vcpu *v, const struct block *b);

#endif
