/* SPDX-License-Identifier: Apache-2.0 */
/* The odd reset and A20 ports of the PC: 92 and 64. */
#ifndef SILL_DEV_PC_SYSCTL_H
#define SILL_DEV_PC_SYSCTL_H

#include "dev/device.h"

struct sysctl;

/* has_i8042: another device has port 64. On the board's list. 0 or -errno. */
int sysctl_new(struct board *b, bool has_i8042, struct sysctl **ret, struct error *err);

/* The A20 gate, which other devices have on a pin too. */
void sysctl_set_a20(struct sysctl *s, bool on);
bool sysctl_a20(const struct sysctl *s);

#endif
