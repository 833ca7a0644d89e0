/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio input devices (virtio 1.2 §5.8): a keyboard and a tablet.
 *
 * The driver reads what the device is like by writing a selection into the
 * configuration and reading the answer; it gives empty buffers in queue 0, each
 * for one event as Linux' evdev has them, and says in queue 1 which lamps are
 * on, which is thrown away.  Events that find no buffer wait in a small queue;
 * when that is full, what is new is lost, whole reports at a time.
 */
#include "dev/virtio/virtio_input.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/iov.h"
#include "base/util.h"

#include <linux/input-event-codes.h>

#define QUEUE_SIZE  64u
#define WAITING     64u
#define BUS_VIRTUAL 6 /* of input.h */

/* Selections (§5.8.2) */
#define CFG_ID_NAME   0x01
#define CFG_ID_SERIAL 0x02
#define CFG_ID_DEVIDS 0x03
#define CFG_EV_BITS   0x11
#define CFG_ABS_INFO  0x12

struct input_config {
	uint8_t select, subsel, size, reserved[5];
	uint8_t u[128];
};

struct input_event_le {
	uint16_t type, code;
	uint32_t value;
};

struct virtio_input {
	struct virtio_device v;
	struct input *input;
	struct input_sink sink;
	enum virtio_input_kind kind;
	uint8_t select, subsel;
	uint8_t keys[32]; /* held down, as the guest knows it: bit by code */
	uint8_t buttons;
	/* Waiting events, from `head` on, in a ring: type and code in one word. */
	uint32_t head, count;
	uint32_t type_code[WAITING], value[WAITING];
};

/* ---- events ---- */

static void deliver(struct virtio_input *i)
{
	struct virtqueue *q = &i->v.vq[0];
	bool any = false;
	struct vq_elem e;

	while (i->count && virtio_running(&i->v) && q->enabled && vq_pop(q, &e) > 0) {
		struct input_event_le event = { (uint16_t)(i->type_code[i->head] >> 16),
						(uint16_t)i->type_code[i->head], i->value[i->head] };
		size_t n = iov_from_buf(e.in, e.nin, 0, &event, sizeof(event));

		vq_written(q, e.in, e.nin, n);
		vq_push(q, e.head, (uint32_t)n);
		i->head = (i->head + 1) % WAITING;
		i->count--;
		any = true;
	}
	if (any)
		vq_notify(q);
	/* A notification of new buffers matters only while something waits. */
	if (i->count && q->enabled && vq_listen(q))
		virtio_kick_later(&i->v);
	else if (!i->count && q->enabled)
		vq_silence(q);
}

static bool room(const struct virtio_input *i, unsigned n)
{
	return i->count + n <= WAITING;
}

static void put(struct virtio_input *i, uint16_t type, uint16_t code, int32_t value)
{
	uint32_t at = (i->head + i->count++) % WAITING;

	i->type_code[at] = (uint32_t)type << 16 | code;
	i->value[at] = (uint32_t)value;
}

static enum input_want wants(void *opaque)
{
	const struct virtio_input *i = opaque;

	return virtio_running(&i->v) && i->v.vq[0].enabled ? INPUT_FIRST : INPUT_OFF;
}

static void key(void *opaque, uint16_t code, bool down)
{
	struct virtio_input *i = opaque;
	bool was_down;

	if (code >= 8 * sizeof(i->keys) || !room(i, 2))
		return;
	was_down = i->keys[code / 8] >> (code % 8) & 1;
	if (!down && !was_down)
		return;
	if (down)
		i->keys[code / 8] |= (uint8_t)(1u << (code % 8));
	else
		i->keys[code / 8] &= (uint8_t) ~(1u << (code % 8));
	put(i, EV_KEY, code, down ? was_down ? 2 : 1 : 0); /* 2: repeated */
	put(i, EV_SYN, SYN_REPORT, 0);
	deliver(i);
}

static void absolute(void *opaque, int x, int y, int wheel, unsigned buttons)
{
	static const struct {
		unsigned bit;
		uint16_t code;
	} names[] = { { INPUT_LEFT, BTN_LEFT }, { INPUT_RIGHT, BTN_RIGHT }, { INPUT_MIDDLE, BTN_MIDDLE } };
	struct virtio_input *i = opaque;

	if (!room(i, 4 + ARRAY_SIZE(names)))
		return;
	put(i, EV_ABS, ABS_X, x);
	put(i, EV_ABS, ABS_Y, y);
	for (size_t n = 0; n < ARRAY_SIZE(names); n++)
		if ((buttons ^ i->buttons) & names[n].bit)
			put(i, EV_KEY, names[n].code, buttons & names[n].bit ? 1 : 0);
	if (wheel)
		put(i, EV_REL, REL_WHEEL, wheel);
	put(i, EV_SYN, SYN_REPORT, 0);
	i->buttons = (uint8_t)buttons;
	deliver(i);
}

static void input_notify(struct virtio_device *v, unsigned queue)
{
	struct virtqueue *q = &v->vq[queue];
	unsigned left = 2 * QUEUE_SIZE;
	bool any = false;
	struct vq_elem e;

	if (queue == 0) {
		deliver((struct virtio_input *)v);
		return;
	}
	while (left-- && vq_pop(q, &e) > 0) {
		vq_push(q, e.head, 0);
		any = true;
	}
	if (any)
		vq_notify(q);
	if (vq_listen(q))
		virtio_kick_later(v);
}

/* ---- configuration ---- */

static void set_bit(uint8_t *bits, unsigned n)
{
	bits[n / 8] |= (uint8_t)(1u << (n % 8));
}

/* Which events of a type there are. */
static void event_bits(const struct virtio_input *i, unsigned type, uint8_t *bits)
{
	if (i->kind == VIRTIO_INPUT_KEYBOARD && type == EV_KEY) {
		for (unsigned code = KEY_ESC; code < 8 * sizeof(i->keys) - 1; code++)
			set_bit(bits, code);
	} else if (i->kind == VIRTIO_INPUT_KEYBOARD && (type == EV_REP || type == EV_LED)) {
		/* The guest repeats by itself; num, caps and scroll lock. */
		for (unsigned n = 0; n < (type == EV_REP ? 2u : 3u); n++)
			set_bit(bits, n);
	} else if (i->kind == VIRTIO_INPUT_TABLET && type == EV_KEY) {
		set_bit(bits, BTN_LEFT);
		set_bit(bits, BTN_RIGHT);
		set_bit(bits, BTN_MIDDLE);
	} else if (i->kind == VIRTIO_INPUT_TABLET && type == EV_REL) {
		set_bit(bits, REL_WHEEL);
	} else if (i->kind == VIRTIO_INPUT_TABLET && type == EV_ABS) {
		set_bit(bits, ABS_X);
		set_bit(bits, ABS_Y);
	}
}

static void input_config_get(struct virtio_device *v, uint8_t *buf)
{
	struct virtio_input *i = (struct virtio_input *)v;
	const char *name = i->kind == VIRTIO_INPUT_KEYBOARD ? "Sill virtio keyboard" : "Sill virtio tablet";
	const uint16_t ids[4] = { BUS_VIRTUAL, 0x5311, (uint16_t)(i->kind + 1), 1 };
	const uint32_t abs[5] = { 0, INPUT_ABS_MAX };
	struct input_config c = { .select = i->select, .subsel = i->subsel };

	switch (i->select) {
	case CFG_ID_NAME:
		c.size = (uint8_t)strlen(name);
		memcpy(c.u, name, c.size);
		break;
	case CFG_ID_SERIAL:
		c.size = 1;
		c.u[0] = '0';
		break;
	case CFG_ID_DEVIDS:
		c.size = sizeof(ids);
		memcpy(c.u, ids, sizeof(ids));
		break;
	case CFG_EV_BITS:
		event_bits(i, i->subsel, c.u);
		for (unsigned n = 0; n < sizeof(c.u); n++)
			if (c.u[n])
				c.size = (uint8_t)(n + 1);
		break;
	case CFG_ABS_INFO:
		if (i->kind != VIRTIO_INPUT_TABLET || i->subsel > ABS_Y)
			break;
		c.size = sizeof(abs);
		memcpy(c.u, abs, sizeof(abs));
		break;
	}
	memcpy(buf, &c, sizeof(c));
}

static void input_config_set(struct virtio_device *v, unsigned offset, uint32_t value, unsigned size)
{
	struct virtio_input *i = (struct virtio_input *)v;

	for (unsigned n = 0; n < size; n++, value >>= 8) {
		if (offset + n == 0)
			i->select = (uint8_t)value;
		else if (offset + n == 1)
			i->subsel = (uint8_t)value;
	}
}

static void input_stop(struct virtio_device *v)
{
	struct virtio_input *i = (struct virtio_input *)v;

	i->select = i->subsel = i->buttons = 0;
	i->head = i->count = 0;
	memset(i->keys, 0, sizeof(i->keys));
}

static const struct virtio_ops input_ops = {
	.id = VIRTIO_ID_INPUT,
	.config_get = input_config_get,
	.config_set = input_config_set,
	.notify = input_notify,
	.stop = input_stop,
};

/* ---- life ---- */

static void input_reset(struct device *d)
{
	virtio_reset((struct virtio_device *)d);
}

static int input_loaded(void *obj, struct error *err)
{
	struct virtio_input *i = obj;

	if (i->head >= WAITING || i->count > WAITING)
		return error_set(err, EINVAL,
				 "the saved state of an input device is impossible; it is damaged");
	return virtio_loaded(&i->v, err);
}

static void input_free(struct device *d)
{
	struct virtio_input *i = (struct virtio_input *)d;

	input_remove(i->input, &i->sink);
	virtio_reset(&i->v);
	virtio_fini(&i->v);
	free(i);
}

static const struct state_field input_fields[] = {
	VIRTIO_FIELDS(struct virtio_input, v),       F_U8(struct virtio_input, select),
	F_U8(struct virtio_input, subsel),           F_BYTES(struct virtio_input, keys),
	F_U8(struct virtio_input, buttons),          F_U32(struct virtio_input, head),
	F_U32(struct virtio_input, count),           F_U32S(struct virtio_input, type_code, WAITING),
	F_U32S(struct virtio_input, value, WAITING), F_END,
};
static const struct state_table input_state = { "virtio-input", 1, input_fields, input_loaded };
static const struct device_class input_class = { "virtio-input", input_reset, &input_state, input_free };

int virtio_input_new(struct board *b, struct input *in, enum virtio_input_kind kind, uint32_t instance,
		     struct virtio_device **ret, struct error *err)
{
	struct virtio_input *i = calloc(1, sizeof(*i));

	if (!i || virtio_init(&i->v, b, &input_ops, &input_class, instance, 0, 2, QUEUE_SIZE,
			      sizeof(struct input_config))) {
		free(i);
		return error_set(err, ENOMEM, "not enough memory for a virtio input device");
	}
	i->input = in;
	i->kind = kind;
	i->sink = (struct input_sink){ .wants = wants, .opaque = i };
	if (kind == VIRTIO_INPUT_KEYBOARD) {
		i->sink.takes = INPUT_KEYS;
		i->sink.key = key;
	} else {
		i->sink.takes = INPUT_ABSOLUTE;
		i->sink.absolute = absolute;
	}
	input_add(in, &i->sink);
	*ret = &i->v;
	return 0;
}
