/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket: one JSON object a line in both directions.  docs/control.md
 * describes it for those who write clients.
 */
#ifndef SILL_VM_CONTROL_H
#define SILL_VM_CONTROL_H

#include "base/error.h"

struct vm;
struct control;

#define CONTROL_VERSION     1
#define CONTROL_MAX_CLIENTS 16

/* Listens at path, for this user alone. [io, or before vCPUs run] 0 or -errno with one sentence. */
int control_new(struct vm *vm, const char *path, struct control **ret, struct error *err);
/* [io] NULL is allowed. */
void control_free(struct control *c);
/* [io] The VM was paused or goes on: answers those who asked for it. */
void control_state_changed(struct control *c);
/* [io] For tests and the fuzzer: serves a connected socket, which it then owns. */
int control_add_client(struct control *c, int fd);

#endif
