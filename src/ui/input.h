/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between people and the guest's input devices.
 *
 * Whoever has a keyboard or pointer for the guest (a VNC client, the control
 * socket) calls input_key and its siblings; emulated devices (PS/2, USB,
 * virtio) register as sinks.  An event goes to one sink: the one registered
 * last that takes such events and that the guest has switched on, so a guest
 * with a driver for the USB tablet gets absolute positions and a guest without
 * gets PS/2.  One that only firmware seems to listen to comes second: BIOS
 * leaves a USB keyboard switched on to systems that know the PS/2 one alone.
 *
 * Keys are Linux input event codes (input-event-codes.h: KEY_A is 30), which
 * name positions on the keyboard, not characters.  Everything is called with
 * the I/O lock held.
 */
#ifndef SILL_UI_INPUT_H
#define SILL_UI_INPUT_H

#include <stdbool.h>
#include <stdint.h>

enum { INPUT_KEYS = 1, INPUT_RELATIVE = 2, INPUT_ABSOLUTE = 4 };
enum { INPUT_LEFT = 1, INPUT_RIGHT = 2, INPUT_MIDDLE = 4 };

#define INPUT_ABS_MAX 0x7fff /* absolute positions are 0..INPUT_ABS_MAX in both directions */

/* How much a sink wants events: not at all, if nobody else does, yes. */
enum input_want { INPUT_OFF, INPUT_SECOND, INPUT_FIRST };

struct input_sink {
	unsigned takes; /* INPUT_* bits */
	/* Has the guest switched the device on? NULL: INPUT_FIRST. */
	enum input_want (*wants)(void *opaque);
	void (*key)(void *opaque, uint16_t code, bool down);
	/* buttons: INPUT_LEFT... that are down; wheel: clicks, up is positive. dy: down is positive. */
	void (*relative)(void *opaque, int dx, int dy, int wheel, unsigned buttons);
	void (*absolute)(void *opaque, int x, int y, int wheel, unsigned buttons);
	void *opaque;
	struct input_sink *next; /* private */
};

#define INPUT_KEY_CODES 768 /* as Linux has */

struct input {
	struct input_sink *sinks; /* latest first */
	/* Who was told that a key went down: who is told that it comes up, whatever is switched on by then.
	 */
	struct input_sink *holder[INPUT_KEY_CODES];
	/* For relative sinks, which get the difference of absolute positions. */
	int x, y;
	bool have_position;
};

void input_add(struct input *in, struct input_sink *s);
void input_remove(struct input *in, struct input_sink *s);
void input_key(struct input *in, uint16_t code, bool down);
/*
 * The pointer at (x, y) in 0..INPUT_ABS_MAX over a screen of width x height pixels, which scale the movement
 * for a relative sink.
 */
void input_pointer(struct input *in, int x, int y, int wheel, unsigned buttons, unsigned width,
		   unsigned height);
void input_move(struct input *in, int dx, int dy, int wheel, unsigned buttons);
bool input_wants_absolute(const struct input *in);

#endif
