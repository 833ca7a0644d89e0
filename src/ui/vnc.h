/* SPDX-License-Identifier: Apache-2.0 */
/* A VNC server (RFC 6143) for one display. */
#ifndef SILL_UI_VNC_H
#define SILL_UI_VNC_H

#include "base/error.h"
#include "base/loop.h"
#include "ui/display.h"
#include "ui/input.h"

struct vnc;

struct vnc_config {
	const char *address;  /* ADDR:PORT, :PORT (loopback), unix:PATH; [ADDR]:PORT for IPv6 */
	const char *password; /* NULL: none; VNC looks at the first 8 characters */
};

#define VNC_MAX_CLIENTS 16

/* Listens. d and in outlive it. [io, or before vCPUs run] 0 or -errno with one sentence. */
int vnc_new(struct loop *l, const struct vnc_config *c, const char *name, struct display *d, struct input *in,
	    struct vnc **ret, struct error *err);
/* [io] NULL is allowed. */
void vnc_free(struct vnc *v);

/* ---- for tests and the fuzzer ---- */
/* [io] Serves a connected stream socket, which it then owns. 0 or -errno. */
int vnc_add_client(struct vnc *v, int fd);

#endif
