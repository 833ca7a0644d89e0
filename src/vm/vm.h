/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtual machine: assembly, life, end.
 *
 *	vm_new     opens and checks everything; nothing runs yet
 *	vm_run     loads the kernel and runs until the guest or vm_quit ends it
 *	vm_free    stops what is left and gives everything back
 */
#ifndef SILL_VM_VM_H
#define SILL_VM_VM_H

#include <stdio.h>

#include "base/error.h"
#include "vm/config.h"

struct vm;

enum vm_end {
	VM_END_POWEROFF, /* the guest switched itself off */
	VM_END_CRASH,    /* the guest crashed; why is one sentence */
	VM_END_RESET,    /* the guest asked for a reset, which config->no_reboot makes the end */
	VM_END_QUIT,     /* vm_quit */
	VM_END_USER,     /* Ctrl-A x on the console */
	VM_END_STATUS,   /* the guest ended it through the debug exit port: vm_exit_status */
	VM_END_ERROR,    /* Sill cannot go on; why is one sentence */
};

/* config stays the caller's and must outlive the VM. 0 or -errno with one sentence. */
int vm_new(const struct vm_config *config, struct vm **ret, struct error *err);
/* Runs in the calling thread until the end. why: filled for VM_END_CRASH and VM_END_ERROR. */
enum vm_end vm_run(struct vm *vm, struct error *why);
/* Makes vm_run return VM_END_QUIT soon. Any thread; async-signal-safe. */
void vm_quit(struct vm *vm);
void vm_free(struct vm *vm);
uint8_t vm_exit_status(const struct vm *vm);

/* What the engine did, for people; after vm_run. */
void vm_print_stats(struct vm *vm, FILE *f);

#endif
