/* SPDX-License-Identifier: Apache-2.0 */
/* PS/2 keyboard and mouse, as what answers at the far end of the controller's two cables. */
#ifndef SILL_DEV_INPUT_PS2_H
#define SILL_DEV_INPUT_PS2_H

#include <stdbool.h>
#include <stdint.h>

#include "ui/input.h"

/* Bytes on their way to the controller; what does not fit is lost, as with a real keyboard's buffer. */
#define PS2_QUEUE 256
struct ps2_queue {
	uint8_t data[PS2_QUEUE];
	uint16_t head, count;
};

struct ps2_device {
	struct ps2_queue queue;
	/* The controller looks whether it can take a byte. */
	void (*ready)(void *opaque);
	/* Is the cable switched on, and is what was sent fetched? */
	bool (*heard)(void *opaque);
	void *opaque;
	uint8_t command; /* waits for its parameter; 0: none */
	uint8_t last;    /* byte sent, for RESEND */
};

struct ps2_keyboard {
	struct ps2_device dev;
	struct input_sink sink;
	bool scanning;
	uint8_t set; /* scan code set, 1 to 3 */
	uint8_t leds, typematic;
	uint8_t down[32]; /* keys by code, so that a release without a press is not sent */
};

struct ps2_mouse {
	struct ps2_device dev;
	struct input_sink sink;
	bool reporting, remote, scaling, wrap;
	uint8_t resolution, rate;
	uint8_t id;       /* 0 plain, 3 with a wheel, 4 with five buttons */
	uint8_t knock[3]; /* the last sample rates set: a sequence of them reveals the wheel */
	uint8_t buttons, sent_buttons;
	int32_t dx, dy, dz; /* moved, not yet reported */
};

void ps2_keyboard_init(struct ps2_keyboard *k, void (*ready)(void *opaque), bool (*heard)(void *opaque),
		       void *opaque);
void ps2_keyboard_reset(struct ps2_keyboard *k);
/* A byte from the host. */
void ps2_keyboard_write(struct ps2_keyboard *k, uint8_t v);

void ps2_mouse_init(struct ps2_mouse *m, void (*ready)(void *opaque), void *opaque);
void ps2_mouse_reset(struct ps2_mouse *m);
void ps2_mouse_write(struct ps2_mouse *m, uint8_t v);
/* There is room in the queue again: for the way that it had no room for. */
void ps2_mouse_report(struct ps2_mouse *m);

bool ps2_pending(const struct ps2_device *d);
/* Takes the next byte; only if one is pending. */
uint8_t ps2_next(struct ps2_device *d);

/* A byte of scan code set 2 as set 1, as the controller translates; see i8042.c. */
uint8_t ps2_translate(uint8_t set2);

#endif
