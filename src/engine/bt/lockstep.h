/* SPDX-License-Identifier: Apache-2.0 */
/* Interpreter against translator, block by block. See lockstep.c. */
#ifndef SILL_ENGINE_BT_LOCKSTEP_H
#define SILL_ENGINE_BT_LOCKSTEP_H

#include "engine/bt/cache.h"

int lockstep_init(struct vcpu *v);
void lockstep_free(struct vcpu *v);
/* Before translated block b runs: what the interpreter makes of it. The state is as before afterwards. */
void lockstep_reference(struct vcpu *v, const struct block *b);
/* After it ran: 0, or -1 with v->error set. */
int lockstep_compare(struct vcpu *v, const struct block *b);

#endif
