/* SPDX-License-Identifier: Apache-2.0 */
/* The debug port (402) that firmware writes its log to, a character at a time. */
#ifndef SILL_DEV_PC_DEBUGCON_H
#define SILL_DEV_PC_DEBUGCON_H

#include "dev/chardev.h"
#include "dev/device.h"

struct debugcon;
#define DEBUGCON_PORT 0x402u
/* out: where it goes; the caller's, outlives the device. */
int debugcon_new(struct board *b, struct chardev *out, struct debugcon **ret, struct error *err);

#endif
