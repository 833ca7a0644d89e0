/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A port by which test programs end the machine with a status: what QEMU calls
 * isa-debug-exit, and test suites for virtual machines expect.
 */
#ifndef SILL_DEV_PC_DEBUG_EXIT_H
#define SILL_DEV_PC_DEBUG_EXIT_H

#include "dev/device.h"

struct debug_exit;

/* Four ports from `port` on. A write of v ends the machine with exit status v << 1 | 1. 0 or -errno. */
int debug_exit_new(struct board *b, uint16_t port, struct debug_exit **ret, struct error *err);

#endif
