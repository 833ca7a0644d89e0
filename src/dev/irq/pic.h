/* SPDX-License-Identifier: Apache-2.0 */
/* The PC's pair of 8259A interrupt controllers with the PIIX3's edge/level registers. */
#ifndef SILL_DEV_IRQ_PIC_H
#define SILL_DEV_IRQ_PIC_H

#include "dev/device.h"

struct irq_router;
struct pic;

/* Ports 20/21, a0/a1, 4d0/4d1. Registered with the board; r's lock guards it. 0 or -errno. */
int pic_new(struct board *b, struct irq_router *r, struct pic **ret, struct error *err);

/* All with the router's lock held. */
void pic_set_irq_locked(struct pic *p, unsigned irq, bool level); /* 0..15; 2 is the cascade: ignored */
bool pic_output_locked(const struct pic *p);
enum irq_state pic_irq_state_locked(const struct pic *p, unsigned irq); /* for an edge-triggered pin */
/* The two INTA cycles: a vector. With nothing pending it is IRQ 7's (or IRQ 15's) and no bit is in service.
 */
uint8_t pic_ack_locked(struct pic *p);

/* Takes the lock. What firmware does: marks an IRQ level-triggered (or edge). Impossible IRQs are ignored. */
void pic_set_level_triggered(struct pic *p, unsigned irq, bool level_triggered);

#endif
