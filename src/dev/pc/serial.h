/* SPDX-License-Identifier: Apache-2.0 */
/* 16550A serial ports. */
#ifndef SILL_DEV_PC_SERIAL_H
#define SILL_DEV_PC_SERIAL_H

#include "dev/chardev.h"
#include "dev/device.h"

struct serial;

/*
 * A port of 8 addresses at base (3f8, 2f8, 3e8, 2e8 by custom, with IRQ 4, 3, 4, 3). chr may be NULL (nothing
 * connected) and stays the caller's; it must outlive the port. instance: 0 for the first. On the board's
 * list. 0 or -errno.
 */
int serial_new(struct board *b, uint16_t base, struct irq_line irq, struct chardev *chr, uint32_t instance,
	       struct serial **ret, struct error *err);

#endif
