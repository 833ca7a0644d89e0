/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between a graphics device and those who show or save its picture.
 *
 * The device (VGA, virtio-gpu) owns the pixels and draws only when asked:
 * display_refresh makes it bring `pixels` up to date and report what changed.
 * Viewers ask as often as they can show it, so a VM nobody looks at spends
 * nothing.  Everything is called with the I/O lock held.
 */
#ifndef SILL_UI_DISPLAY_H
#define SILL_UI_DISPLAY_H

#include <stdbool.h>
#include <stdint.h>

#define DISPLAY_MAX_WIDTH  4096u
#define DISPLAY_MAX_HEIGHT 4096u

struct display;

struct display_viewer {
	/* The picture's size or buffer changed; the whole of it is to be shown anew. */
	void (*resized)(void *opaque, struct display *d);
	/* Pixels of this rectangle changed. */
	void (*updated)(void *opaque, struct display *d, unsigned x, unsigned y, unsigned w, unsigned h);
	void *opaque;
	struct display_viewer *next; /* private */
};

struct display {
	unsigned width, height;
	uint32_t *pixels; /* 0x00RRGGBB, row after row without gaps; the device's; never NULL once a device is
			     there */
	/* The device's: draw what changed since the last call. all: whatever it thinks of the past. */
	void (*refresh)(void *opaque, bool all);
	/* What a text mode shows, as UTF-8 lines without trailing blanks (malloc'd); NULL: it shows graphics.
	 */
	char *(*text)(void *opaque);
	void *opaque;
	struct display_viewer *viewers;
};

/* ---- for viewers ---- */
void display_add_viewer(struct display *d, struct display_viewer *v);
void display_remove_viewer(struct display *d, struct display_viewer *v);
void display_refresh(struct display *d, bool all);

/* ---- for the device ---- */
/* After changing width, height or pixels. */
void display_resized(struct display *d);
void display_updated(struct display *d, unsigned x, unsigned y, unsigned w, unsigned h);

#endif
