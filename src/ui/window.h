/* SPDX-License-Identifier: Apache-2.0 */
/* A window for one display, by SDL 2, which is loaded when the first window is made. */
#ifndef SILL_UI_WINDOW_H
#define SILL_UI_WINDOW_H

#include "base/error.h"
#include "base/loop.h"
#include "ui/display.h"
#include "ui/input.h"

struct window;

struct window_config {
	const char *title; /* the VM's name; outlives the window */
	/* The window was closed: once, and again within ten seconds of that. [io] */
	void (*closed)(void *opaque, bool again);
	void *opaque;
};

/*
 * d and in outlive it. 0 or -errno with one sentence: -ENOTSUP where Sill was built without SDL's headers,
 * -ENOENT without SDL here, -EIO without a screen. [io, or before vCPUs run; the event loop's thread]
 */
int window_new(struct loop *l, const struct window_config *c, struct display *d, struct input *in,
	       struct window **ret, struct error *err);
/* [io] For the title. NULL is allowed. */
void window_set_paused(struct window *w, bool paused);
/* [io] NULL is allowed. */
void window_free(struct window *w);

#endif
