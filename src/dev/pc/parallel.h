/* SPDX-License-Identifier: Apache-2.0 */
/* The parallel port. */
#ifndef SILL_DEV_PC_PARALLEL_H
#define SILL_DEV_PC_PARALLEL_H

#include "dev/chardev.h"
#include "dev/device.h"

struct parallel;

/*
 * Ports 378-37a. chr is the printer (NULL: none is connected) and stays the caller's; it must outlive the
 * port. On the board's list. 0 or -errno.
 */
int parallel_new(struct board *b, struct irq_line irq7, struct chardev *chr, struct parallel **ret,
		 struct error *err);

#endif
