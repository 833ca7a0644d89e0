/* SPDX-License-Identifier: Apache-2.0 */
/* How a PC reports x87 errors: FERR#, IRQ 13, ports F0 and F1, IGNNE#. */
#ifndef SILL_DEV_PC_FERR_H
#define SILL_DEV_PC_FERR_H

#include "dev/device.h"

struct ferr;

/* irq13: its line. On the board's list. 0 or -errno. */
int ferr_new(struct board *b, struct irq_line irq13, struct ferr **ret, struct error *err);
/* The bootstrap processor drives FERR#. Returns IGNNE#: it is to go on in spite of the error. [io lock] */
bool ferr_set(struct ferr *f, bool asserted);

#endif
