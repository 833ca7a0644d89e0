/* SPDX-License-Identifier: Apache-2.0 */
/* The 8254 interval timer (ports 40..43) and port 61, which gates its channel 2. */
#ifndef SILL_DEV_TIMER_PIT_H
#define SILL_DEV_TIMER_PIT_H

#include "dev/device.h"

struct pit;

#define PIT_HZ 1193182u

/* irq0: the line that channel 0's output drives. On the board's list. 0 or -errno. */
int pit_new(struct board *b, struct irq_line irq0, struct pit **ret, struct error *err);

#endif
