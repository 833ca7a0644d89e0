/* SPDX-License-Identifier: Apache-2.0 */
/* The 8042 keyboard controller (ports 60 and 64) with a PS/2 keyboard and mouse. */
#ifndef SILL_DEV_INPUT_I8042_H
#define SILL_DEV_INPUT_I8042_H

#include "dev/device.h"
#include "ui/input.h"

struct i8042;
struct sysctl;

/* irq1, irq12: keyboard's and mouse's lines. sysctl: has the A20 gate. in: whose events they send. Both
 * outlive the device. */
int i8042_new(struct board *b, struct irq_line irq1, struct irq_line irq12, struct sysctl *sysctl,
	      struct input *in, struct i8042 **ret, struct error *err);

#endif
