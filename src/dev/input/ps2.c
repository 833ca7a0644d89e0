/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IBM PS/2 keyboard (Personal System/2 hardware interface technical reference,
 * "Keyboard") and a mouse with Microsoft's IntelliMouse extensions.
 *
 * Keys come as Linux codes and leave as scan codes.  Set 1 is what the tables
 * hold, since it is the most regular: Linux codes up to 88 are set 1 codes.  Set
 * 2 is found by the inverse of the controller's own translation table, and set 3
 * likewise except that it has no prefixes.
 *
 * A mouse keeps adding up movement while its queue is not empty, so a slow guest
 * sees fewer, larger packets, not late ones.
 */
#include "dev/input/ps2.h"

#include <linux/input-event-codes.h>
#include <string.h>

#include "base/util.h"

#define ACK    0xfa
#define RESEND 0xfe
#define BAT_OK 0xaa

/* ---- queue ---- */

static bool queue_put(struct ps2_device *d, const uint8_t *p, unsigned n)
{
	struct ps2_queue *q = &d->queue;

	if (q->count + n > PS2_QUEUE)
		return false;
	for (unsigned i = 0; i < n; i++)
		q->data[(q->head + q->count++) % PS2_QUEUE] = p[i];
	d->ready(d->opaque);
	return true;
}

static void put(struct ps2_device *d, uint8_t v)
{
	queue_put(d, &v, 1);
}

/* Answers displace what was waiting. */
static void drop(struct ps2_device *d)
{
	d->queue.count = 0;
}

bool ps2_pending(const struct ps2_device *d)
{
	return d->queue.count > 0;
}

uint8_t ps2_next(struct ps2_device *d)
{
	struct ps2_queue *q = &d->queue;

	d->last = q->data[q->head];
	q->head = (uint16_t)((q->head + 1) % PS2_QUEUE);
	q->count--;
	return d->last;
}

/* ---- scan codes ---- */

/* The 8042's translation from set 2 to set 1 (IBM's table); 0x80 and up pass but for 83 and 84. */
static const uint8_t set2_to_set1[128] = {
	0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59,
	0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b,
	0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d,
	0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f,
	0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61,
	0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76,
	0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f,
	0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
};

uint8_t ps2_translate(uint8_t v)
{
	if (v < 0x80)
		return set2_to_set1[v];
	return v == 0x83 ? 0x41 : v == 0x84 ? 0x54 : v;
}

static uint8_t set1_to_set2(uint8_t set1)
{
	if (set1 == 0x41) /* F7 is 83, not 02 */
		return 0x83;
	if (set1 == 0x54)
		return 0x84;
	for (unsigned i = 1; i < 128; i++)
		if (set2_to_set1[i] == set1)
			return (uint8_t)i;
	return 0;
}

/* Keys with the prefix E0: Linux code, set 1 code. */
static const struct {
	uint16_t code;
	uint8_t set1;
} extended[] = {
	{ KEY_KPENTER, 0x1c },   { KEY_RIGHTCTRL, 0x1d }, { KEY_KPSLASH, 0x35 },    { KEY_SYSRQ, 0x37 },
	{ KEY_RIGHTALT, 0x38 },  { KEY_HOME, 0x47 },      { KEY_UP, 0x48 },         { KEY_PAGEUP, 0x49 },
	{ KEY_LEFT, 0x4b },      { KEY_RIGHT, 0x4d },     { KEY_END, 0x4f },        { KEY_DOWN, 0x50 },
	{ KEY_PAGEDOWN, 0x51 },  { KEY_INSERT, 0x52 },    { KEY_DELETE, 0x53 },     { KEY_LEFTMETA, 0x5b },
	{ KEY_RIGHTMETA, 0x5c }, { KEY_COMPOSE, 0x5d },   { KEY_POWER, 0x5e },      { KEY_SLEEP, 0x5f },
	{ KEY_WAKEUP, 0x63 },    { KEY_MUTE, 0x20 },      { KEY_VOLUMEDOWN, 0x2e }, { KEY_VOLUMEUP, 0x30 },
};

/* The set 1 code of a key; *prefix: E0 goes before it. 0: PS/2 has no such key. */
static uint8_t set1_of(uint16_t code, bool *prefix)
{
	for (size_t i = 0; i < ARRAY_SIZE(extended); i++) {
		if (extended[i].code != code)
			continue;
		*prefix = true;
		return extended[i].set1;
	}
	*prefix = false;
	switch (code) {
	case KEY_RO:
		return 0x73;
	case KEY_KATAKANAHIRAGANA:
		return 0x70;
	case KEY_HENKAN:
		return 0x79;
	case KEY_MUHENKAN:
		return 0x7b;
	case KEY_YEN:
		return 0x7d;
	default:
		return code <= KEY_F12 ? (uint8_t)code : 0;
	}
}

static bool is_down(const struct ps2_keyboard *k, uint16_t code)
{
	return k->down[code / 8] >> (code % 8) & 1;
}

/* Pause, or Break with Ctrl. It goes up at once. */
static unsigned encode_pause(const struct ps2_keyboard *k, uint8_t *out)
{
	static const struct {
		uint8_t n, bytes[8];
	} codes[2][2] = { { { 6, { 0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5 } },
			    { 8, { 0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77 } } },
			  { { 4, { 0xe0, 0x46, 0xe0, 0xc6 } }, { 5, { 0xe0, 0x7e, 0xe0, 0xf0, 0x7e } } } };
	bool ctrl = is_down(k, KEY_LEFTCTRL) || is_down(k, KEY_RIGHTCTRL), other_set = k->set != 1;
	unsigned n = codes[ctrl][other_set].n;

	memcpy(out, codes[ctrl][other_set].bytes, n);
	return n;
}

static unsigned encode(const struct ps2_keyboard *k, uint16_t code, bool down, uint8_t *out)
{
	bool prefix;
	uint8_t set1;
	unsigned n = 0;

	if (code == KEY_PAUSE)
		return down ? encode_pause(k, out) : 0;
	set1 = set1_of(code, &prefix);
	if (!set1)
		return 0;
	if (code == KEY_SYSRQ && k->set != 3 && (is_down(k, KEY_LEFTALT) || is_down(k, KEY_RIGHTALT))) {
		set1 = 0x54; /* Print with Alt */
		prefix = false;
	}
	if (prefix && k->set != 3)
		out[n++] = 0xe0;
	if (k->set == 1) {
		out[n++] = (uint8_t)(set1 | (down ? 0 : 0x80));
		return n;
	}
	if (!down)
		out[n++] = 0xf0;
	out[n++] = set1_to_set2(set1);
	return n;
}

/* ---- keyboard ---- */

static enum input_want keyboard_wants(void *opaque)
{
	const struct ps2_keyboard *k = opaque;

	if (!k->scanning)
		return INPUT_OFF;
	return k->dev.heard(k->dev.opaque) ? INPUT_FIRST : INPUT_SECOND;
}

static void keyboard_key(void *opaque, uint16_t code, bool down)
{
	struct ps2_keyboard *k = opaque;
	uint8_t bytes[8];
	unsigned n;

	if (code >= 256 || (!down && !is_down(k, code)))
		return;
	n = encode(k, code, down, bytes);
	if (!n || !queue_put(&k->dev, bytes, n))
		return;
	if (down)
		k->down[code / 8] |= (uint8_t)(1u << (code % 8));
	else
		k->down[code / 8] &= (uint8_t) ~(1u << (code % 8));
}

static void keyboard_defaults(struct ps2_keyboard *k)
{
	k->set = 2;
	k->typematic = 0x2b;
	memset(k->down, 0, sizeof(k->down));
}

void ps2_keyboard_reset(struct ps2_keyboard *k)
{
	keyboard_defaults(k);
	k->scanning = true;
	k->leds = 0;
	k->dev.command = 0;
	k->dev.queue = (struct ps2_queue){ 0 };
}

void ps2_keyboard_init(struct ps2_keyboard *k, void (*ready)(void *opaque), bool (*heard)(void *opaque),
		       void *opaque)
{
	k->dev.ready = ready;
	k->dev.heard = heard;
	k->dev.opaque = opaque;
	k->sink = (struct input_sink){
		.takes = INPUT_KEYS, .wants = keyboard_wants, .key = keyboard_key, .opaque = k
	};
	ps2_keyboard_reset(k);
}

static void keyboard_parameter(struct ps2_keyboard *k, uint8_t command, uint8_t v)
{
	switch (command) {
	case 0xed:
		k->leds = v & 7;
		break;
	case 0xf0:
		if (v > 3) {
			put(&k->dev, RESEND);
			return;
		}
		put(&k->dev, ACK);
		if (!v)
			put(&k->dev, k->set);
		else
			k->set = v;
		return;
	case 0xf3:
		k->typematic = v & 0x7f;
		break;
	}
	put(&k->dev, ACK);
}

void ps2_keyboard_write(struct ps2_keyboard *k, uint8_t v)
{
	uint8_t command = k->dev.command;

	k->dev.command = 0;
	if (command && v < 0x80) {
		keyboard_parameter(k, command, v);
		return;
	}
	if (v != 0xfe)
		drop(&k->dev);
	switch (v) {
	case 0xed: /* LEDs */
	case 0xf0: /* scan code set */
	case 0xf3: /* typematic rate */
		k->dev.command = v;
		put(&k->dev, ACK);
		break;
	case 0xee: /* echo */
		put(&k->dev, v);
		break;
	case 0xf2: /* identify */
		put(&k->dev, ACK);
		put(&k->dev, 0xab);
		put(&k->dev, 0x83);
		break;
	case 0xf4: /* enable */
		k->scanning = true;
		put(&k->dev, ACK);
		break;
	case 0xf5: /* defaults and disable */
	case 0xf6: /* defaults */
		keyboard_defaults(k);
		k->scanning = v == 0xf6;
		put(&k->dev, ACK);
		break;
	case 0xf7: /* set 3: what keys do; all of them make and break here */
	case 0xf8:
	case 0xf9:
	case 0xfa:
		put(&k->dev, ACK);
		break;
	case 0xfe:
		put(&k->dev, k->dev.last);
		break;
	case 0xff:
		ps2_keyboard_reset(k);
		put(&k->dev, ACK);
		put(&k->dev, BAT_OK);
		break;
	default:
		put(&k->dev, RESEND);
		break;
	}
}

/* ---- mouse ---- */

static int32_t clamp(int32_t v, int32_t lo, int32_t hi)
{
	return v < lo ? lo : v > hi ? hi : v;
}

/* One packet of what has not been reported. False: no room. */
static bool send_packet(struct ps2_mouse *m)
{
	int32_t dx = clamp(m->dx, -255, 255), dy = clamp(m->dy, -255, 255), dz = clamp(m->dz, -8, 7);
	uint8_t p[4] = { (uint8_t)(0x08 | (m->buttons & 7) | (dx < 0 ? 0x10 : 0) | (dy < 0 ? 0x20 : 0)),
			 (uint8_t)dx, (uint8_t)dy, (uint8_t)dz };

	if (m->id == 4)
		p[3] = (uint8_t)(dz & 0x0f);
	unsigned n = m->id ? 4 : 3;

	if (m->dev.queue.count + n > PS2_QUEUE)
		return false;
	/* Before it is queued: that may make room, and bring us here again. */
	m->dx -= dx;
	m->dy -= dy;
	m->dz = m->id ? m->dz - dz : 0;
	m->sent_buttons = m->buttons;
	return queue_put(&m->dev, p, n);
}

void ps2_mouse_report(struct ps2_mouse *m)
{
	while (m->reporting && !m->remote && m->dev.queue.count < 16 &&
	       (m->dx || m->dy || m->dz || m->buttons != m->sent_buttons))
		if (!send_packet(m))
			break;
}

static enum input_want mouse_wants(void *opaque)
{
	const struct ps2_mouse *m = opaque;

	return m->reporting || m->remote ? INPUT_FIRST : INPUT_OFF;
}

static void mouse_move(void *opaque, int dx, int dy, int wheel, unsigned buttons)
{
	struct ps2_mouse *m = opaque;

	m->dx = clamp(m->dx + clamp(dx, -4096, 4096), -4096, 4096);
	m->dy = clamp(m->dy - clamp(dy, -4096, 4096), -4096, 4096); /* up is positive here */
	m->dz = clamp(m->dz - clamp(wheel, -64, 64), -64, 64);
	m->buttons = buttons & 7;
	ps2_mouse_report(m);
}

static void mouse_defaults(struct ps2_mouse *m)
{
	m->reporting = m->remote = m->scaling = m->wrap = false;
	m->resolution = 2;
	m->rate = 100;
	m->dx = m->dy = m->dz = 0;
	m->sent_buttons = m->buttons;
}

void ps2_mouse_reset(struct ps2_mouse *m)
{
	mouse_defaults(m);
	m->id = 0;
	memset(m->knock, 0, sizeof(m->knock));
	m->dev.command = 0;
	m->dev.queue = (struct ps2_queue){ 0 };
}

void ps2_mouse_init(struct ps2_mouse *m, void (*ready)(void *opaque), void *opaque)
{
	m->dev.ready = ready;
	m->dev.opaque = opaque;
	m->sink = (struct input_sink){
		.takes = INPUT_RELATIVE, .wants = mouse_wants, .relative = mouse_move, .opaque = m
	};
	ps2_mouse_reset(m);
}

/* Setting the rates 200, 100, 80 (or 200, 200, 80) before identifying asks for the wheel. */
static void knock(struct ps2_mouse *m, uint8_t rate)
{
	m->knock[0] = m->knock[1];
	m->knock[1] = m->knock[2];
	m->knock[2] = rate;
	if (m->knock[0] == 200 && m->knock[2] == 80 && (m->knock[1] == 100 || m->knock[1] == 200))
		m->id = m->knock[1] == 100 ? 3 : m->id ? 4 : 0;
}

static void mouse_parameter(struct ps2_mouse *m, uint8_t command, uint8_t v)
{
	if (command == 0xe8) {
		m->resolution = v & 3;
	} else {
		m->rate = v;
		knock(m, v);
	}
	put(&m->dev, ACK);
}

static void mouse_status(struct ps2_mouse *m)
{
	uint8_t left = m->buttons & INPUT_LEFT ? 4 : 0, right = m->buttons & INPUT_RIGHT ? 1 : 0;
	uint8_t middle = m->buttons & INPUT_MIDDLE ? 2 : 0;

	put(&m->dev, (uint8_t)((m->remote ? 0x40 : 0) | (m->reporting ? 0x20 : 0) | (m->scaling ? 0x10 : 0) |
			       left | middle | right));
	put(&m->dev, m->resolution);
	put(&m->dev, m->rate);
}

static void mouse_command(struct ps2_mouse *m, uint8_t v)
{
	if (v == 0xff) { /* which empties the queue */
		ps2_mouse_reset(m);
		put(&m->dev, ACK);
		put(&m->dev, BAT_OK);
		put(&m->dev, 0);
		return;
	}
	put(&m->dev, ACK);
	switch (v) {
	case 0xe6:
	case 0xe7:
		m->scaling = v == 0xe7;
		break;
	case 0xe8: /* resolution */
	case 0xf3: /* sample rate */
		m->dev.command = v;
		break;
	case 0xe9:
		mouse_status(m);
		break;
	case 0xea: /* stream mode */
		m->remote = false;
		break;
	case 0xeb: /* read data */
		send_packet(m);
		break;
	case 0xec: /* end of wrap mode */
		break;
	case 0xee:
		m->wrap = true;
		break;
	case 0xf0:
		m->remote = true;
		break;
	case 0xf2:
		put(&m->dev, m->id);
		break;
	case 0xf4:
		m->reporting = true;
		break;
	case 0xf5:
		m->reporting = false;
		break;
	case 0xf6:
		mouse_defaults(m);
		break;
	}
}

void ps2_mouse_write(struct ps2_mouse *m, uint8_t v)
{
	uint8_t command = m->dev.command;

	m->dev.command = 0;
	if (m->wrap && v != 0xec && v != 0xff) {
		put(&m->dev, v);
		return;
	}
	m->wrap = false;
	if (command) {
		mouse_parameter(m, command, v);
		return;
	}
	if (v == 0xfe) {
		put(&m->dev, m->dev.last);
		return;
	}
	drop(&m->dev);
	if (v < 0xe6 || (v > 0xf0 && v < 0xf2) || v == 0xed || v == 0xef || (v > 0xf6 && v < 0xfe))
		put(&m->dev, RESEND);
	else
		mouse_command(m, v);
}
