/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The terminal while a guest's serial console is on it: raw, so that every key
 * reaches the guest, and always put back: at exit, on a fatal signal, when
 * stopped and continued.  The one thing of a process that VMs must share.
 */
#ifndef SILL_CLI_TERMINAL_H
#define SILL_CLI_TERMINAL_H

#include "base/error.h"

/* Makes standard input raw if it is a terminal of ours in the foreground; else does nothing. 0 or -errno. */
int terminal_raw(struct error *err);
/* Puts it back. May be called any number of times; async-signal-safe. */
void terminal_restore(void);

#endif
