/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device for test suites of virtual machines: what QEMU calls pc-testdev.
 *
 *	ports 0xe0..0xe3, 0xe8   read back what was last written
 *	ports 0xe4..0xe7         take an address (of a page to forget); nothing happens
 *	ports 0x2000..0x200f     a write drives the ISA interrupt line of that number
 *	memory 0xff000000, 64 KiB  reads back what was written, each access one of the device's
 */
#ifndef SILL_DEV_PC_TESTDEV_H
#define SILL_DEV_PC_TESTDEV_H

#include "dev/irq/irq.h"

struct testdev;

int testdev_new(struct board *b, struct irq_router *router, struct testdev **ret, struct error *err);

#endif
