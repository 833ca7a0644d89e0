/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a serial port's bytes go: the standard input and output, a file, a
 * socket, or nowhere.
 *
 * On standard input, Ctrl-A is an escape: Ctrl-A x ends the VM, Ctrl-A h shows
 * help, Ctrl-A Ctrl-A sends one Ctrl-A.  It works when standard input is a
 * terminal; a pipe's bytes all go to the guest.
 *
 * Everything is called with the I/O lock held, except console_free.
 */
#ifndef SILL_VM_CONSOLE_H
#define SILL_VM_CONSOLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/loop.h"
#include "vm/config.h"

struct console;

/* The port: room() bytes may be given to receive(). [io] */
struct console_client {
	size_t (*room)(void *opaque);
	void (*receive)(void *opaque, const uint8_t *p, size_t n);
	void *opaque;
};

/* quit(opaque): the user typed Ctrl-A x; may be NULL. path: for files and sockets. 0 or -errno. */
int console_new(struct loop *l, enum vm_serial kind, const char *path, void (*quit)(void *), void *opaque,
		struct console **ret, struct error *err);
/* Without the lock, after the loop has ended: writes out what is left. NULL is allowed. */
void console_free(struct console *c);
/* Connects the port and starts to read. */
void console_set_client(struct console *c, const struct console_client *client);
/* Bytes from the port. What a slow reader does not take is kept up to a limit, then lost as on a wire. */
void console_write(struct console *c, const uint8_t *p, size_t n);
/* The port has room again. */
void console_rx_ready(struct console *c);

#endif
