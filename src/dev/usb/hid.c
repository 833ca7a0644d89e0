/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Human interface devices (HID 1.11, HID Usage Tables 1.12): a keyboard with the
 * boot protocol's report, and a tablet with three buttons, absolute position and a
 * wheel.
 *
 * What a person does waits in a queue of events; each report to the host takes
 * one off.  If the host does not fetch them for a second, the device counts as
 * switched off and input goes elsewhere.
 */
#include "dev/usb/hid.h"

#include <errno.h>
#include <linux/input-event-codes.h>
#include <stdlib.h>
#include <string.h>

#include "base/iov.h"
#include "base/util.h"

#define QUEUE      512u
#define STALE_NS   1000000000 /* an event waited for so long: nobody fetches them */
#define REPORT_MAX 8u
#define ENDPOINT   1u

/* Class requests (HID 1.11 §7.2) */
enum {
	GET_REPORT = 0x01,
	GET_IDLE = 0x02,
	GET_PROTOCOL = 0x03,
	SET_REPORT = 0x09,
	SET_IDLE = 0x0a,
	SET_PROTOCOL = 0x0b
};
#define DT_HID    0x21
#define DT_REPORT 0x22

struct event {
	uint16_t a, b;   /* keyboard: usage, down; tablet: x, y */
	uint8_t buttons; /* tablet */
	int8_t wheel;
};

struct hid {
	struct usb_device usb;
	struct board *board;
	int64_t since; /* the oldest event waits at most since then */
	struct input *input;
	struct input_sink sink;
	bool tablet;
	const uint8_t *hid_descriptor, *report_descriptor;
	uint16_t report_descriptor_len;

	/* state */
	struct event queue[QUEUE];
	uint16_t head, count;
	uint8_t report[REPORT_MAX]; /* the last one */
	uint8_t keys[6], nr_keys, modifiers;
	uint8_t idle, protocol, leds;
	uint16_t x, y;   /* the tablet's latest */
	uint8_t buttons; /* likewise */
};

/* ---- descriptors ---- */

static const char *const keyboard_strings[] = { "Sill", "USB Keyboard", NULL };
static const char *const tablet_strings[] = { "Sill", "USB Tablet", NULL };

/* Vendor and product are those that emulated devices have, which drivers know to be without quirks. */
static const uint8_t keyboard_device[18] = { 18,   USB_DT_DEVICE, 0x00, 0x02, 0, 0, 0, 64, 0x27,
					     0x06, 0x01,          0x00, 0x00, 1, 1, 2, 3,  1 };
static const uint8_t tablet_device[18] = { 18,   USB_DT_DEVICE, 0x00, 0x02, 0, 0, 0, 64, 0x27,
					   0x06, 0x01,          0x00, 0x01, 1, 1, 2, 3,  1 };

/* Eight modifiers, a reserved byte, five LEDs, six keys: the boot report (HID 1.11 appendix B.1). */
static const uint8_t keyboard_report[] = { 0x05, 0x01, 0x09, 0x06, 0xa1, 0x01, 0x05, 0x07, 0x19, 0xe0, 0x29,
					   0xe7, 0x15, 0x00, 0x25, 0x01, 0x75, 0x01, 0x95, 0x08, 0x81, 0x02,
					   0x95, 0x01, 0x75, 0x08, 0x81, 0x01, 0x95, 0x05, 0x75, 0x01, 0x05,
					   0x08, 0x19, 0x01, 0x29, 0x05, 0x91, 0x02, 0x95, 0x01, 0x75, 0x03,
					   0x91, 0x01, 0x95, 0x06, 0x75, 0x08, 0x15, 0x00, 0x26, 0xff, 0x00,
					   0x05, 0x07, 0x19, 0x00, 0x2a, 0xff, 0x00, 0x81, 0x00, 0xc0 };

/* A mouse whose axes are absolute: three buttons and five bits of nothing, X, Y (16 bits), wheel. */
static const uint8_t tablet_report[] = { 0x05, 0x01, 0x09, 0x02, 0xa1, 0x01, 0x09, 0x01, 0xa1, 0x00, 0x05,
					 0x09, 0x19, 0x01, 0x29, 0x03, 0x15, 0x00, 0x25, 0x01, 0x95, 0x03,
					 0x75, 0x01, 0x81, 0x02, 0x95, 0x01, 0x75, 0x05, 0x81, 0x01, 0x05,
					 0x01, 0x09, 0x30, 0x09, 0x31, 0x15, 0x00, 0x26, 0xff, 0x7f, 0x35,
					 0x00, 0x46, 0xff, 0x7f, 0x75, 0x10, 0x95, 0x02, 0x81, 0x02, 0x09,
					 0x38, 0x15, 0x81, 0x25, 0x7f, 0x35, 0x00, 0x45, 0x00, 0x75, 0x08,
					 0x95, 0x01, 0x81, 0x06, 0xc0, 0xc0 };

/* Configuration, interface, HID, endpoint: interval 7 is 8 ms at high speed. */
#define HID_AT 18
#define HID_CONFIG(subclass, protocol, report, size)                                                         \
	{                                                                                                    \
		9, USB_DT_CONFIG, 34, 0, 1, 1, 0, 0xa0, 50, 9, USB_DT_INTERFACE, 0, 0, 1, 3, subclass,       \
		    protocol, 0, 9, DT_HID, 0x11, 0x01, 0, 1, DT_REPORT, sizeof(report), 0, 7,               \
		    USB_DT_ENDPOINT, USB_IN | ENDPOINT, 3, size, 0, 7                                        \
	}
static const uint8_t keyboard_config[] = HID_CONFIG(1, 1, keyboard_report, 8);
static const uint8_t tablet_config[] = HID_CONFIG(0, 0, tablet_report, 8);

static const struct usb_descriptors keyboard_descriptors = { keyboard_device, keyboard_config,
							     sizeof(keyboard_config), keyboard_strings };
static const struct usb_descriptors tablet_descriptors = { tablet_device, tablet_config,
							   sizeof(tablet_config), tablet_strings };

/* ---- events ---- */

static void push(struct hid *h, struct event e)
{
	if (h->count == QUEUE)
		return;
	if (!h->count)
		h->since = clock_now_ns(h->board->clock);
	h->queue[(h->head + h->count++) % QUEUE] = e;
	usb_wakeup(&h->usb, ENDPOINT);
}

/* The boot protocol is firmware's choice, which listens to PS/2 as well; what it starts may know only that.
 */
static enum input_want hid_wants(void *opaque)
{
	const struct hid *h = opaque;

	if (!usb_is_live(&h->usb) || (h->count && clock_now_ns(h->board->clock) - h->since >= STALE_NS))
		return INPUT_OFF;
	return h->protocol ? INPUT_FIRST : INPUT_SECOND;
}

/* ---- keyboard ---- */

/* Usages of keys by Linux code (Usage Tables §10): codes 1 to 88 and 96 to 127. */
static const uint8_t usages[128] = {
	[KEY_ESC] = 0x29,        [KEY_1] = 0x1e,          [KEY_2] = 0x1f,
	[KEY_3] = 0x20,          [KEY_4] = 0x21,          [KEY_5] = 0x22,
	[KEY_6] = 0x23,          [KEY_7] = 0x24,          [KEY_8] = 0x25,
	[KEY_9] = 0x26,          [KEY_0] = 0x27,          [KEY_MINUS] = 0x2d,
	[KEY_EQUAL] = 0x2e,      [KEY_BACKSPACE] = 0x2a,  [KEY_TAB] = 0x2b,
	[KEY_Q] = 0x14,          [KEY_W] = 0x1a,          [KEY_E] = 0x08,
	[KEY_R] = 0x15,          [KEY_T] = 0x17,          [KEY_Y] = 0x1c,
	[KEY_U] = 0x18,          [KEY_I] = 0x0c,          [KEY_O] = 0x12,
	[KEY_P] = 0x13,          [KEY_LEFTBRACE] = 0x2f,  [KEY_RIGHTBRACE] = 0x30,
	[KEY_ENTER] = 0x28,      [KEY_LEFTCTRL] = 0xe0,   [KEY_A] = 0x04,
	[KEY_S] = 0x16,          [KEY_D] = 0x07,          [KEY_F] = 0x09,
	[KEY_G] = 0x0a,          [KEY_H] = 0x0b,          [KEY_J] = 0x0d,
	[KEY_K] = 0x0e,          [KEY_L] = 0x0f,          [KEY_SEMICOLON] = 0x33,
	[KEY_APOSTROPHE] = 0x34, [KEY_GRAVE] = 0x35,      [KEY_LEFTSHIFT] = 0xe1,
	[KEY_BACKSLASH] = 0x31,  [KEY_Z] = 0x1d,          [KEY_X] = 0x1b,
	[KEY_C] = 0x06,          [KEY_V] = 0x19,          [KEY_B] = 0x05,
	[KEY_N] = 0x11,          [KEY_M] = 0x10,          [KEY_COMMA] = 0x36,
	[KEY_DOT] = 0x37,        [KEY_SLASH] = 0x38,      [KEY_RIGHTSHIFT] = 0xe5,
	[KEY_KPASTERISK] = 0x55, [KEY_LEFTALT] = 0xe2,    [KEY_SPACE] = 0x2c,
	[KEY_CAPSLOCK] = 0x39,   [KEY_F1] = 0x3a,         [KEY_F2] = 0x3b,
	[KEY_F3] = 0x3c,         [KEY_F4] = 0x3d,         [KEY_F5] = 0x3e,
	[KEY_F6] = 0x3f,         [KEY_F7] = 0x40,         [KEY_F8] = 0x41,
	[KEY_F9] = 0x42,         [KEY_F10] = 0x43,        [KEY_NUMLOCK] = 0x53,
	[KEY_SCROLLLOCK] = 0x47, [KEY_KP7] = 0x5f,        [KEY_KP8] = 0x60,
	[KEY_KP9] = 0x61,        [KEY_KPMINUS] = 0x56,    [KEY_KP4] = 0x5c,
	[KEY_KP5] = 0x5d,        [KEY_KP6] = 0x5e,        [KEY_KPPLUS] = 0x57,
	[KEY_KP1] = 0x59,        [KEY_KP2] = 0x5a,        [KEY_KP3] = 0x5b,
	[KEY_KP0] = 0x62,        [KEY_KPDOT] = 0x63,      [KEY_102ND] = 0x64,
	[KEY_F11] = 0x44,        [KEY_F12] = 0x45,        [KEY_RO] = 0x87,
	[KEY_HENKAN] = 0x8a,     [KEY_MUHENKAN] = 0x8b,   [KEY_KATAKANAHIRAGANA] = 0x88,
	[KEY_KPENTER] = 0x58,    [KEY_RIGHTCTRL] = 0xe4,  [KEY_KPSLASH] = 0x54,
	[KEY_SYSRQ] = 0x46,      [KEY_RIGHTALT] = 0xe6,   [KEY_HOME] = 0x4a,
	[KEY_UP] = 0x52,         [KEY_PAGEUP] = 0x4b,     [KEY_LEFT] = 0x50,
	[KEY_RIGHT] = 0x4f,      [KEY_END] = 0x4d,        [KEY_DOWN] = 0x51,
	[KEY_PAGEDOWN] = 0x4e,   [KEY_INSERT] = 0x49,     [KEY_DELETE] = 0x4c,
	[KEY_MUTE] = 0x7f,       [KEY_VOLUMEDOWN] = 0x81, [KEY_VOLUMEUP] = 0x80,
	[KEY_POWER] = 0x66,      [KEY_KPEQUAL] = 0x67,    [KEY_PAUSE] = 0x48,
	[KEY_YEN] = 0x89,        [KEY_LEFTMETA] = 0xe3,   [KEY_RIGHTMETA] = 0xe7,
	[KEY_COMPOSE] = 0x65,
};

static void key(void *opaque, uint16_t code, bool down)
{
	if (code < ARRAY_SIZE(usages) && usages[code])
		push(opaque, (struct event){ .a = usages[code], .b = down });
}

static void apply_key(struct hid *h, uint8_t usage, bool down)
{
	unsigned i = 0;

	if (usage >= 0xe0) {
		uint8_t bit = (uint8_t)(1u << (usage & 7));

		h->modifiers = down ? h->modifiers | bit : h->modifiers & ~bit;
		return;
	}
	while (i < h->nr_keys && h->keys[i] != usage)
		i++;
	if (down && i == h->nr_keys && h->nr_keys < sizeof(h->keys)) {
		h->keys[h->nr_keys++] = usage;
	} else if (!down && i < h->nr_keys) {
		memmove(h->keys + i, h->keys + i + 1, h->nr_keys - i - 1u);
		h->nr_keys--;
	}
}

static unsigned keyboard_make(struct hid *h)
{
	memset(h->report, 0, 8);
	h->report[0] = h->modifiers;
	memcpy(h->report + 2, h->keys, h->nr_keys);
	return 8;
}

/* ---- tablet ---- */

static void tablet_absolute(void *opaque, int x, int y, int wheel, unsigned buttons)
{
	struct hid *h = opaque;
	struct event *last = h->count ? &h->queue[(h->head + h->count - 1) % QUEUE] : NULL;
	struct event e = { .a = (uint16_t)(x < 0               ? 0
					   : x > INPUT_ABS_MAX ? INPUT_ABS_MAX
							       : x),
			   .b = (uint16_t)(y < 0               ? 0
					   : y > INPUT_ABS_MAX ? INPUT_ABS_MAX
							       : y),
			   .buttons = buttons & 7,
			   .wheel = (int8_t)(wheel < -127  ? -127
					     : wheel > 127 ? 127
							   : wheel) };

	/* Only where it ended counts of a movement that the host was too slow for. */
	if (last && last->buttons == e.buttons && !last->wheel && !e.wheel)
		*last = e;
	else
		push(h, e);
}

static unsigned tablet_make(struct hid *h, int8_t wheel)
{
	h->report[0] = h->buttons;
	h->report[1] = (uint8_t)h->x;
	h->report[2] = (uint8_t)(h->x >> 8);
	h->report[3] = (uint8_t)h->y;
	h->report[4] = (uint8_t)(h->y >> 8);
	h->report[5] = (uint8_t)wheel;
	return 6;
}

/* ---- the pipe ---- */

static unsigned current_report(struct hid *h, int8_t wheel)
{
	return h->tablet ? tablet_make(h, wheel) : keyboard_make(h);
}

static unsigned next_report(struct hid *h)
{
	struct event e = h->queue[h->head];

	h->head = (uint16_t)((h->head + 1) % QUEUE);
	h->count--;
	h->since = clock_now_ns(h->board->clock);
	if (h->tablet) {
		h->x = e.a;
		h->y = e.b;
		h->buttons = e.buttons;
	} else {
		apply_key(h, (uint8_t)e.a, e.b);
	}
	return current_report(h, e.wheel);
}

static enum usb_result hid_transfer(struct usb_device *d, struct usb_transfer *t)
{
	struct hid *h = (struct hid *)d;
	unsigned n;

	if (!t->in || t->endpoint != ENDPOINT)
		return USB_STALL;
	if (!h->count)
		return USB_NAK;
	n = next_report(h);
	t->actual = iov_from_buf(t->iov, t->iovcnt, 0, h->report, n);
	return USB_OK;
}

static int give(const void *p, size_t len, const struct usb_setup *s, uint8_t *data)
{
	size_t n = min_u64(len, s->length);

	memcpy(data, p, n);
	return (int)n;
}

static int hid_control(struct usb_device *d, const struct usb_setup *s, uint8_t *data)
{
	struct hid *h = (struct hid *)d;

	if ((s->type & USB_TYPE) == 0 && s->request == 6) { /* descriptors of the interface */
		if (s->value >> 8 == DT_HID)
			return give(h->hid_descriptor, 9, s, data);
		if (s->value >> 8 == DT_REPORT)
			return give(h->report_descriptor, h->report_descriptor_len, s, data);
		return -1;
	}
	if ((s->type & USB_TYPE) != USB_CLASS)
		return -1;
	switch (s->request) {
	case GET_REPORT: {
		unsigned n = current_report(h, 0);

		return give(h->report, n, s, data);
	}
	case GET_IDLE:
		return give(&h->idle, 1, s, data);
	case GET_PROTOCOL:
		return give(&h->protocol, 1, s, data);
	case SET_REPORT:
		if (s->length)
			h->leds = data[0] & 31;
		return 0;
	case SET_IDLE:
		h->idle = (uint8_t)(s->value >> 8);
		return 0;
	case SET_PROTOCOL: /* both protocols have the same report */
		h->protocol = s->value & 1;
		return 0;
	default:
		return -1;
	}
}

static void hid_bus_reset(struct usb_device *d)
{
	struct hid *h = (struct hid *)d;

	memset(h->queue, 0, sizeof(h->queue));
	h->head = h->count = 0;
	memset(h->report, 0, sizeof(h->report));
	memset(h->keys, 0, sizeof(h->keys));
	h->nr_keys = h->modifiers = h->leds = h->idle = 0;
	h->protocol = 1;
	h->buttons = 0;
}

static const struct usb_ops hid_ops = { .control = hid_control,
					.transfer = hid_transfer,
					.bus_reset = hid_bus_reset };

/* ---- life ---- */

static void hid_reset(struct device *d)
{
	usb_bus_reset((struct usb_device *)d);
}

static int hid_loaded(void *obj, struct error *err)
{
	struct hid *h = obj;

	if (h->head >= QUEUE || h->count > QUEUE || h->nr_keys > sizeof(h->keys) || h->usb.configuration > 1)
		return error_set(err, EINVAL,
				 "the saved state of a USB input device is impossible; it is damaged");
	return 0;
}

static void hid_free(struct device *d)
{
	struct hid *h = (struct hid *)d;

	input_remove(h->input, &h->sink);
	free(h);
}

static const struct state_field hid_fields[] = { USB_DEVICE_FIELDS(struct hid, usb),
						 F_BYTES(struct hid, queue),
						 F_U16(struct hid, head),
						 F_U16(struct hid, count),
						 F_BYTES(struct hid, report),
						 F_BYTES(struct hid, keys),
						 F_U8(struct hid, nr_keys),
						 F_U8(struct hid, modifiers),
						 F_U8(struct hid, idle),
						 F_U8(struct hid, protocol),
						 F_U8(struct hid, leds),
						 F_U16(struct hid, x),
						 F_U16(struct hid, y),
						 F_U8(struct hid, buttons),
						 F_END };
static const struct state_table keyboard_state = { "usb-keyboard", 1, hid_fields, hid_loaded };
static const struct state_table tablet_state = { "usb-tablet", 1, hid_fields, hid_loaded };
static const struct device_class keyboard_class = { "usb-keyboard", hid_reset, &keyboard_state, hid_free };
static const struct device_class tablet_class = { "usb-tablet", hid_reset, &tablet_state, hid_free };

static struct hid *new (struct board *b, struct input *in, const struct usb_descriptors *desc,
			const struct device_class *cls, struct error *err)
{
	struct hid *h = calloc(1, sizeof(*h));

	if (!h) {
		error_set(err, ENOMEM, "no memory for a USB input device; free some and try again");
		return NULL;
	}
	h->board = b;
	h->usb.ops = &hid_ops;
	h->usb.desc = desc;
	h->usb.speed = USB_SPEED_HIGH;
	h->usb.serial = "1";
	h->hid_descriptor = desc->config + HID_AT;
	h->input = in;
	h->sink = (struct input_sink){ .wants = hid_wants, .opaque = h };
	hid_bus_reset(&h->usb);
	board_add(b, &h->usb.dev, cls, 0);
	return h;
}

int usb_keyboard_new(struct board *b, struct input *in, struct usb_device **ret, struct error *err)
{
	struct hid *h = new (b, in, &keyboard_descriptors, &keyboard_class, err);

	if (!h)
		return -ENOMEM;
	h->report_descriptor = keyboard_report;
	h->report_descriptor_len = sizeof(keyboard_report);
	h->sink.takes = INPUT_KEYS;
	h->sink.key = key;
	input_add(in, &h->sink);
	*ret = &h->usb;
	return 0;
}

int usb_tablet_new(struct board *b, struct input *in, struct usb_device **ret, struct error *err)
{
	struct hid *h = new (b, in, &tablet_descriptors, &tablet_class, err);

	if (!h)
		return -ENOMEM;
	h->tablet = true;
	h->report_descriptor = tablet_report;
	h->report_descriptor_len = sizeof(tablet_report);
	h->sink.takes = INPUT_ABSOLUTE;
	h->sink.absolute = tablet_absolute;
	input_add(in, &h->sink);
	*ret = &h->usb;
	return 0;
}
