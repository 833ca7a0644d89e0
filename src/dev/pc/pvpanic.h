/* SPDX-License-Identifier: Apache-2.0 */
/* pvpanic: a port by which a guest says that it panicked. */
#ifndef SILL_DEV_PC_PVPANIC_H
#define SILL_DEV_PC_PVPANIC_H

#include "dev/device.h"

struct pvpanic;

#define PVPANIC_PORT 0x505u

/* On the board's list. 0 or -errno. */
int pvpanic_new(struct board *b, struct pvpanic **ret, struct error *err);

#endif
