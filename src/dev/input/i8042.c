/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PS/2 keyboard controller (IBM PS/2 hardware interface technical reference,
 * "Keyboard and Auxiliary Device Controller").
 *
 * There is one output buffer.  A byte from either device, or an answer of the
 * controller itself, stays in it until the guest reads port 60; only then comes
 * the next one, and with it a new edge on IRQ 1 or 12.  Translation to scan code
 * set 1 happens on the way into the buffer, and the F0 that announces a release
 * becomes the next byte's bit 7.
 *
 * Output port bit 1 is the A20 gate, bit 0 the processor's reset line.
 */
#include "dev/input/i8042.h"

#include <errno.h>
#include <stdlib.h>

#include "dev/input/ps2.h"
#include "dev/pc/sysctl.h"

#define PORT_DATA    0x60
#define PORT_COMMAND 0x64

/* Status */
#define ST_OUT_FULL 0x01
#define ST_SYSTEM   0x04
#define ST_COMMAND  0x08
#define ST_UNLOCKED 0x10
#define ST_AUX      0x20

/* Command byte */
#define CB_IRQ1      0x01
#define CB_IRQ12     0x02
#define CB_SYSTEM    0x04
#define CB_NO_KBD    0x10
#define CB_NO_AUX    0x20
#define CB_TRANSLATE 0x40

/* Output port */
#define OUT_RESET 0x01 /* 0: the processor is held in reset */
#define OUT_A20   0x02
#define OUT_IRQ1  0x10
#define OUT_IRQ12 0x20

#define STALE_NS 1000000000 /* a byte waited for so long: nobody fetches it */

enum source { FROM_NOBODY, FROM_KEYBOARD, FROM_AUX, FROM_CONTROLLER };

struct i8042 {
	struct device dev;
	struct board *board;
	struct irq_line irq1, irq12;
	struct sysctl *sysctl; /* the A20 gate */
	struct input *input;
	struct ps2_keyboard keyboard;
	struct ps2_mouse mouse;
	struct io_region data, command_port;
	uint8_t command_byte, out_port;
	uint8_t pending;       /* command that waits for a byte at port 60; 0: none */
	uint8_t out, source;   /* the output buffer; enum source */
	bool aux_out;          /* it counts as the mouse's */
	bool last_was_command; /* status bit 3 */
	bool release;          /* translation: F0 was seen */
	int64_t since;         /* the byte for the guest has waited since then; not saved */
	uint8_t ram[32];
};

static void update_irq(struct i8042 *c)
{
	bool full = c->source != FROM_NOBODY;

	/* With the keyboard switched off, the controller's own answers are waited for by looking: an edge
	 * that the PIC keeps would have the BIOS take them for keys once it may. */
	irq_set(&c->irq1, full && !c->aux_out && (c->command_byte & (CB_IRQ1 | CB_NO_KBD)) == CB_IRQ1);
	irq_set(&c->irq12, full && c->aux_out && (c->command_byte & CB_IRQ12));
}

static void fill(struct i8042 *c, uint8_t v, enum source from, bool aux)
{
	c->out = v;
	c->source = from;
	c->aux_out = aux;
	c->since = clock_now_ns(c->board->clock);
	update_irq(c);
}

/* A keyboard's byte as the guest gets it; false: it became part of the next one. */
static bool translate(struct i8042 *c, uint8_t *v)
{
	if (!(c->command_byte & CB_TRANSLATE))
		return true;
	if (*v == 0xf0) {
		c->release = true;
		return false;
	}
	*v = (uint8_t)(ps2_translate(*v) | (c->release ? 0x80 : 0));
	c->release = false;
	return true;
}

/* Takes the next byte from a device if there is room. */
static void pump(struct i8042 *c)
{
	while (c->source == FROM_NOBODY && !(c->command_byte & CB_NO_KBD) && ps2_pending(&c->keyboard.dev)) {
		uint8_t v = ps2_next(&c->keyboard.dev);

		if (translate(c, &v))
			fill(c, v, FROM_KEYBOARD, false);
	}
	if (c->source == FROM_NOBODY && !(c->command_byte & CB_NO_AUX) && ps2_pending(&c->mouse.dev)) {
		fill(c, ps2_next(&c->mouse.dev), FROM_AUX, true);
		ps2_mouse_report(&c->mouse);
	}
}

static void device_ready(void *opaque)
{
	pump(opaque);
}

static bool keyboard_heard(void *opaque)
{
	const struct i8042 *c = opaque;

	return !(c->command_byte & CB_NO_KBD) &&
	       (c->source == FROM_NOBODY || clock_now_ns(c->board->clock) - c->since < STALE_NS);
}

/* The controller's own answers come before what devices have to say. */
static void answer(struct i8042 *c, uint8_t v, bool aux)
{
	fill(c, v, FROM_CONTROLLER, aux);
}

static void write_out_port(struct i8042 *c, uint8_t v)
{
	c->out_port = v;
	sysctl_set_a20(c->sysctl, v & OUT_A20);
	if (!(v & OUT_RESET))
		board_ask(c->board, BOARD_INIT);
}

static uint8_t read_out_port(const struct i8042 *c)
{
	uint8_t v = (uint8_t)((c->out_port & (OUT_RESET | 0xcc)) | (sysctl_a20(c->sysctl) ? OUT_A20 : 0));

	if (c->source != FROM_NOBODY)
		v |= c->aux_out ? OUT_IRQ12 : OUT_IRQ1;
	return v;
}

/* ---- ports ---- */

static uint64_t data_read(void *opaque, uint64_t offset, unsigned size)
{
	struct i8042 *c = opaque;
	uint8_t v = c->out;

	(void)offset;
	(void)size;
	c->source = FROM_NOBODY;
	update_irq(c);
	pump(c);
	return v;
}

static void set_command_byte(struct i8042 *c, uint8_t v)
{
	c->command_byte = v & 0x7f;
	update_irq(c);
	pump(c);
}

static void data_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct i8042 *c = opaque;
	uint8_t v = (uint8_t)value, pending = c->pending;

	(void)offset;
	(void)size;
	c->last_was_command = false;
	c->pending = 0;
	switch (pending) {
	case 0:
		set_command_byte(c, c->command_byte & (uint8_t)~CB_NO_KBD);
		ps2_keyboard_write(&c->keyboard, v);
		break;
	case 0x60:
		set_command_byte(c, v);
		break;
	case 0xd1:
		write_out_port(c, v);
		break;
	case 0xd2:
		answer(c, v, false);
		break;
	case 0xd3:
		answer(c, v, true);
		break;
	case 0xd4:
		set_command_byte(c, c->command_byte & (uint8_t)~CB_NO_AUX);
		ps2_mouse_write(&c->mouse, v);
		break;
	default: /* 61..7f */
		c->ram[pending & 31] = v;
		break;
	}
}

static uint64_t status_read(void *opaque, uint64_t offset, unsigned size)
{
	const struct i8042 *c = opaque;
	uint8_t v = ST_UNLOCKED | (c->command_byte & CB_SYSTEM ? ST_SYSTEM : 0);

	(void)offset;
	(void)size;
	if (c->source != FROM_NOBODY)
		v |= ST_OUT_FULL | (c->aux_out ? ST_AUX : 0);
	if (c->last_was_command)
		v |= ST_COMMAND;
	return v;
}

/* F0..FF pulse those of the four low output lines whose bit is 0: only the reset line does anything. */
static void pulse(struct i8042 *c, uint8_t v)
{
	if (!(v & OUT_RESET))
		board_ask(c->board, BOARD_INIT);
}

static void command_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct i8042 *c = opaque;
	uint8_t v = (uint8_t)value;

	(void)offset;
	(void)size;
	c->last_was_command = true;
	c->pending = 0;
	switch (v) {
	case 0x20:
		answer(c, c->command_byte, false);
		break;
	case 0x60:
	case 0xd1:
	case 0xd2:
	case 0xd3:
	case 0xd4:
		c->pending = v;
		break;
	case 0xa7:
	case 0xa8:
		set_command_byte(c, v == 0xa7 ? c->command_byte | CB_NO_AUX
					      : c->command_byte & (uint8_t)~CB_NO_AUX);
		break;
	case 0xa4: /* is there a password? */
		answer(c, 0xf1, false);
		break;
	case 0xa9: /* test of the mouse's port */
		answer(c, 0x00, false);
		break;
	case 0xaa: /* self-test */
		c->command_byte |= CB_SYSTEM;
		answer(c, 0x55, false);
		break;
	case 0xab:
		answer(c, 0x00, false);
		break;
	case 0xad:
	case 0xae:
		set_command_byte(c, v == 0xad ? c->command_byte | CB_NO_KBD
					      : c->command_byte & (uint8_t)~CB_NO_KBD);
		break;
	case 0xc0: /* input port: not locked, no manufacturing jumper */
		answer(c, 0xa0, false);
		break;
	case 0xd0:
		answer(c, read_out_port(c), false);
		break;
	case 0xdd: /* A20 off, on: a command of many clones */
	case 0xdf:
		write_out_port(c, v == 0xdf ? c->out_port | OUT_A20 : c->out_port & (uint8_t)~OUT_A20);
		break;
	default:
		if (v > 0x20 && v < 0x40)
			answer(c, c->ram[v & 31], false);
		else if (v > 0x60 && v < 0x80)
			c->pending = v;
		else if (v >= 0xf0)
			pulse(c, v);
		break;
	}
}

/* ---- reset, state ---- */

static void i8042_reset(struct device *d)
{
	struct i8042 *c = (struct i8042 *)d;

	c->command_byte = CB_IRQ1 | CB_IRQ12 | CB_TRANSLATE;
	c->out_port = OUT_RESET | OUT_A20;
	c->pending = c->source = c->out = 0;
	c->aux_out = c->last_was_command = c->release = false;
	ps2_keyboard_reset(&c->keyboard);
	ps2_mouse_reset(&c->mouse);
	update_irq(c);
}

static bool queue_ok(const struct ps2_queue *q)
{
	return q->head < PS2_QUEUE && q->count <= PS2_QUEUE;
}

static int i8042_loaded(void *obj, struct error *err)
{
	struct i8042 *c = obj;

	if (!queue_ok(&c->keyboard.dev.queue) || !queue_ok(&c->mouse.dev.queue) ||
	    c->source > FROM_CONTROLLER || c->keyboard.set < 1 || c->keyboard.set > 3 ||
	    (c->mouse.id && c->mouse.id != 3 && c->mouse.id != 4))
		return error_set(err, EINVAL,
				 "the saved state of the keyboard controller is impossible; it is damaged");
	c->since = clock_now_ns(c->board->clock);
	return 0;
}

#define DEVICE_FIELDS(d)                                                                                     \
	F_BYTES(struct i8042, d.dev.queue.data), F_U16(struct i8042, d.dev.queue.head),                      \
	    F_U16(struct i8042, d.dev.queue.count), F_U8(struct i8042, d.dev.command),                       \
	    F_U8(struct i8042, d.dev.last)

static const struct state_field i8042_fields[] = {
	F_U8(struct i8042, command_byte),
	F_U8(struct i8042, out_port),
	F_U8(struct i8042, pending),
	F_U8(struct i8042, out),
	F_U8(struct i8042, source),
	F_BOOL(struct i8042, aux_out),
	F_BOOL(struct i8042, last_was_command),
	F_BOOL(struct i8042, release),
	F_BYTES(struct i8042, ram),
	DEVICE_FIELDS(keyboard),
	F_BOOL(struct i8042, keyboard.scanning),
	F_U8(struct i8042, keyboard.set),
	F_U8(struct i8042, keyboard.leds),
	F_U8(struct i8042, keyboard.typematic),
	F_BYTES(struct i8042, keyboard.down),
	DEVICE_FIELDS(mouse),
	F_BOOL(struct i8042, mouse.reporting),
	F_BOOL(struct i8042, mouse.remote),
	F_BOOL(struct i8042, mouse.scaling),
	F_BOOL(struct i8042, mouse.wrap),
	F_U8(struct i8042, mouse.resolution),
	F_U8(struct i8042, mouse.rate),
	F_U8(struct i8042, mouse.id),
	F_BYTES(struct i8042, mouse.knock),
	F_U8(struct i8042, mouse.buttons),
	F_U8(struct i8042, mouse.sent_buttons),
	F_END,
};
static const struct state_table i8042_state = { "i8042", 1, i8042_fields, i8042_loaded };

static void i8042_free(struct device *d)
{
	struct i8042 *c = (struct i8042 *)d;

	input_remove(c->input, &c->keyboard.sink);
	input_remove(c->input, &c->mouse.sink);
	mem_unmap_pio(c->board->mem, &c->data);
	mem_unmap_pio(c->board->mem, &c->command_port);
	free(c);
}

static const struct device_class i8042_class = { "i8042", i8042_reset, &i8042_state, i8042_free };

int i8042_new(struct board *b, struct irq_line irq1, struct irq_line irq12, struct sysctl *sysctl,
	      struct input *in, struct i8042 **ret, struct error *err)
{
	struct i8042 *c = calloc(1, sizeof(*c));

	if (!c)
		return error_set(err, ENOMEM,
				 "no memory for the keyboard controller; free some and try again");
	c->board = b;
	c->irq1 = irq1;
	c->irq12 = irq12;
	c->sysctl = sysctl;
	c->input = in;
	ps2_keyboard_init(&c->keyboard, device_ready, keyboard_heard, c);
	ps2_mouse_init(&c->mouse, device_ready, c);
	c->data = (struct io_region){ .name = "i8042-data",
				      .base = PORT_DATA,
				      .size = 1,
				      .read = data_read,
				      .write = data_write,
				      .opaque = c,
				      .max_size = 1 };
	c->command_port = (struct io_region){ .name = "i8042-command",
					      .base = PORT_COMMAND,
					      .size = 1,
					      .read = status_read,
					      .write = command_write,
					      .opaque = c,
					      .max_size = 1 };
	mem_map_pio(b->mem, &c->data);
	mem_map_pio(b->mem, &c->command_port);
	input_add(in, &c->keyboard.sink);
	input_add(in, &c->mouse.sink);
	i8042_reset(&c->dev);
	board_add(b, &c->dev, &i8042_class, 0);
	*ret = c;
	return 0;
}
