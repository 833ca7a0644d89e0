/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What clients say: the handshake, then keys, the pointer, and requests for
 * updates.  Nothing of it is trusted: messages are parsed as they arrive from a
 * bounded buffer, lengths are checked before anything is done with them, and who
 * breaks the protocol is dropped.
 */
#include <nettle/des.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/log.h"
#include "base/util.h"
#include "ui/keymap.h"
#include "ui/vnc_internal.h"

#include <linux/input-event-codes.h>

#define CUT_MAX (1u << 20)

/* ---- messages from the client ---- */

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static void key(struct vnc_client *c, uint16_t code, bool down)
{
	if (!code || code >= 8 * sizeof(c->keys))
		return;
	if (down)
		c->keys[code / 8] |= (uint8_t)(1u << (code % 8));
	else
		c->keys[code / 8] &= (uint8_t) ~(1u << (code % 8));
	input_key(c->vnc->input, code, down);
}

static bool held(const struct vnc_client *c, uint16_t code)
{
	return c->keys[code / 8] >> (code % 8) & 1;
}

/* What a client without a Shift key of its own (or a script) types as an upper-case character needs Shift. */
static void keysym(struct vnc_client *c, uint32_t sym, bool down)
{
	bool shift;
	uint16_t code = keymap_keysym(sym, &shift);
	if (!code)
		return;
	bool is_held = held(c, KEY_LEFTSHIFT) || held(c, KEY_RIGHTSHIFT);
	bool letter = (sym >= 'A' && sym <= 'Z') || (sym >= 'a' && sym <= 'z');
	if (down && shift && !is_held && !letter) {
		c->shift_added = true;
		key(c, KEY_LEFTSHIFT, true);
	} else if (down && shift && !is_held && letter && !held(c, KEY_CAPSLOCK)) {
		c->shift_added = true;
		key(c, KEY_LEFTSHIFT, true);
	}
	key(c, code, down);
	if (!down && c->shift_added && code != KEY_LEFTSHIFT) {
		c->shift_added = false;
		key(c, KEY_LEFTSHIFT, false);
	}
}

void vnc_release_keys(struct vnc_client *c)
{
	for (unsigned i = 0; i < 8 * sizeof(c->keys); i++)
		if (held(c, (uint16_t)i))
			key(c, (uint16_t)i, false);
}

static void pointer(struct vnc_client *c, unsigned mask, unsigned x, unsigned y)
{
	const struct display *d = c->vnc->display;
	unsigned buttons =
	    (mask & 1 ? INPUT_LEFT : 0u) | (mask & 2 ? INPUT_MIDDLE : 0u) | (mask & 4 ? INPUT_RIGHT : 0u);
	unsigned pressed = mask & ~c->buttons;
	int wheel = (pressed & 8 ? 1 : 0) - (pressed & 16 ? 1 : 0);
	c->buttons = mask;
	if (!d->width || !d->height)
		return;
	x = (unsigned)min_u64(x, d->width - 1);
	y = (unsigned)min_u64(y, d->height - 1);
	input_pointer(c->vnc->input, (int)((uint64_t)x * INPUT_ABS_MAX / max_u64(d->width - 1, 1)),
		      (int)((uint64_t)y * INPUT_ABS_MAX / max_u64(d->height - 1, 1)), wheel, buttons,
		      d->width, d->height);
}

static void set_format(struct vnc_client *c, const uint8_t *p)
{
	struct vnc_format f = { .bpp = p[0],
				.depth = p[1],
				.big_endian = p[2],
				.true_colour = p[3],
				.max = { get16(p + 4), get16(p + 6), get16(p + 8) },
				.shift = { p[10], p[11], p[12] } };
	bool ok = (f.bpp == 8 || f.bpp == 16 || f.bpp == 32) && f.true_colour;
	for (unsigned i = 0; i < 3; i++)
		ok = ok && f.shift[i] < 32 && f.max[i] <= 255 && !((uint64_t)f.max[i] << f.shift[i] >> f.bpp);
	if (!ok) {
		vnc_drop(c, "it asked for a pixel format that is not true colour of 8, 16 or 32 bits");
		return;
	}
	c->format = f;
	vnc_mark_all(c);
}

static void set_encodings(struct vnc_client *c, const uint8_t *p, unsigned n)
{
	c->zrle = c->desktop_size = c->ext_key = false;
	for (unsigned i = 0; i < n; i++) {
		int32_t e = (int32_t)get32(p + 4 * i);
		c->zrle |= e == ENC_ZRLE;
		c->desktop_size |= e == ENC_DESKTOP_SIZE;
		if (e == ENC_EXT_KEY && !c->ext_key) {
			c->ext_key = true;
			/* A rectangle without content says that we understand the extension. */
			vnc_put8(c, 0);
			vnc_put8(c, 0);
			vnc_put16(c, 1);
			vnc_begin_rect(c, 0, 0, c->width, c->height, ENC_EXT_KEY);
		}
	}
	if (c->zrle && !c->z_ready)
		c->z_ready = deflateInit(&c->z, 1) == Z_OK;
	vnc_flush(c);
}

static void request_update(struct vnc_client *c, const uint8_t *p)
{
	if (!p[1])
		vnc_mark(c, get16(p + 2), get16(p + 4), get16(p + 6), get16(p + 8));
	c->wants = true;
}

/* The extension's key numbers are set 1 codes; E0 ones have bit 7. Those below 89 are Linux's. */
static uint16_t from_xt(uint32_t xt)
{
	static const struct {
		uint8_t xt;
		uint16_t code;
	} extended[] = {
		{ 0x9c, KEY_KPENTER },  { 0x9d, KEY_RIGHTCTRL }, { 0xb5, KEY_KPSLASH }, { 0xb7, KEY_SYSRQ },
		{ 0xb8, KEY_RIGHTALT }, { 0xc6, KEY_PAUSE },     { 0xc7, KEY_HOME },    { 0xc8, KEY_UP },
		{ 0xc9, KEY_PAGEUP },   { 0xcb, KEY_LEFT },      { 0xcd, KEY_RIGHT },   { 0xcf, KEY_END },
		{ 0xd0, KEY_DOWN },     { 0xd1, KEY_PAGEDOWN },  { 0xd2, KEY_INSERT },  { 0xd3, KEY_DELETE },
		{ 0xdb, KEY_LEFTMETA }, { 0xdc, KEY_RIGHTMETA }, { 0xdd, KEY_COMPOSE },
	};
	for (size_t i = 0; i < ARRAY_SIZE(extended); i++)
		if (extended[i].xt == xt)
			return extended[i].code;
	return xt && xt <= KEY_F12 ? (uint16_t)xt : 0;
}

/* One message if it is there whole: returns its length, or 0. */
static size_t message(struct vnc_client *c, const uint8_t *p, size_t n)
{
	switch (p[0]) {
	case 0: /* SetPixelFormat */
		if (n < 20)
			return 0;
		set_format(c, p + 4);
		return 20;
	case 2: /* SetEncodings */
		if (n < 4)
			return 0;
		if (4u + 4u * get16(p + 2) > IN_MAX) {
			vnc_drop(c, "it names too many encodings");
			return 0;
		}
		if (n < 4u + 4u * get16(p + 2))
			return 0;
		set_encodings(c, p + 4, get16(p + 2));
		return 4u + 4u * get16(p + 2);
	case 3: /* FramebufferUpdateRequest */
		if (n < 10)
			return 0;
		request_update(c, p);
		return 10;
	case 4: /* KeyEvent */
		if (n < 8)
			return 0;
		keysym(c, get32(p + 4), p[1]);
		return 8;
	case 5: /* PointerEvent */
		if (n < 6)
			return 0;
		pointer(c, p[1], get16(p + 2), get16(p + 4));
		return 6;
	case 6: /* ClientCutText: guests have no clipboard here */
		if (n < 8)
			return 0;
		/* Extended clipboard sends a negative length. */
		c->skip = (int32_t)get32(p + 4) < 0 ? 0u - get32(p + 4) : get32(p + 4);
		if (c->skip > CUT_MAX)
			vnc_drop(c, "its clipboard is too big");
		return 8;
	case 255: /* QEMU's extension: a key event with the key's own number */
		if (n < 12)
			return 0;
		if (p[1] != 0) {
			vnc_drop(c, "it sent a message that is not known");
			return 0;
		}
		key(c, from_xt(get32(p + 8)), get16(p + 2) != 0);
		return 12;
	default:
		vnc_drop(c, "it sent a message that is not known");
		return 0;
	}
}

/* ---- handshake ---- */

static void send_reason(struct vnc_client *c, const char *why)
{
	vnc_put32(c, (uint32_t)strlen(why));
	vnc_put(c, why, strlen(why));
}

static void authenticated(struct vnc_client *c)
{
	/* 3.3 and 3.7 say nothing where there is nothing to authenticate. */
	if (c->minor >= 8 || c->vnc->has_password)
		vnc_put32(c, 0);
	c->state = WAIT_INIT;
}

static void send_challenge(struct vnc_client *c)
{
	if (getrandom(c->challenge, sizeof(c->challenge), 0) != sizeof(c->challenge)) {
		vnc_drop(c, "the host gives no random numbers");
		return;
	}
	vnc_put(c, c->challenge, sizeof(c->challenge));
	c->state = WAIT_AUTH;
}

static size_t got_version(struct vnc_client *c, const uint8_t *p, size_t n)
{
	unsigned major, minor;
	char text[13] = "";
	if (n < 12)
		return 0;
	memcpy(text, p, 12);
	if (sscanf(text, "RFB %3u.%3u\n", &major, &minor) != 2 || major < 3) {
		vnc_drop(c, "it does not speak the VNC protocol");
		return 0;
	}
	c->minor = major > 3 || minor >= 8 ? 8 : minor == 7 ? 7 : 3;
	uint8_t type = c->vnc->has_password ? 2 : 1;
	if (c->minor == 3) {
		vnc_put32(c, type);
		if (type == 2)
			send_challenge(c);
		else
			c->state = WAIT_INIT;
	} else {
		vnc_put8(c, 1);
		vnc_put8(c, type);
		c->state = WAIT_SECURITY;
	}
	return 12;
}

static size_t got_security(struct vnc_client *c, const uint8_t *p)
{
	if (p[0] != (c->vnc->has_password ? 2 : 1)) {
		vnc_drop(c, "it chose a kind of security that was not offered");
		return 0;
	}
	if (c->vnc->has_password)
		send_challenge(c);
	else
		authenticated(c);
	return 1;
}

/* DES with the password as its key, the bits of each byte reversed (RFC 6143 §7.2.2). */
static bool response_right(const struct vnc_client *c, const uint8_t *response)
{
	uint8_t des_key[8], want[16], differ = 0;
	struct des_ctx des;
	for (unsigned i = 0; i < 8; i++) {
		uint8_t v = (uint8_t)c->vnc->password[i], r = 0;
		for (unsigned k = 0; k < 8; k++)
			r = (uint8_t)(r | (v >> k & 1) << (7 - k));
		des_key[i] = r;
	}
	des_set_key(&des, des_key); /* says whether the key is weak, which is the user's choice */
	des_encrypt(&des, sizeof(want), want, c->challenge);
	for (unsigned i = 0; i < sizeof(want); i++)
		differ |= want[i] ^ response[i];
	return !differ;
}

static size_t got_auth(struct vnc_client *c, const uint8_t *p, size_t n)
{
	if (n < 16)
		return 0;
	if (response_right(c, p)) {
		authenticated(c);
		return 16;
	}
	vnc_put32(c, 1);
	if (c->minor >= 8)
		send_reason(c, "wrong password");
	vnc_flush(c);
	vnc_drop(c, "wrong password");
	return 0;
}

static void send_init(struct vnc_client *c)
{
	const struct display *d = c->vnc->display;
	const struct vnc_format *f = &c->format;
	static const uint8_t pad[3];
	c->width = d->width;
	c->height = d->height;
	vnc_put16(c, (uint16_t)d->width);
	vnc_put16(c, (uint16_t)d->height);
	vnc_put8(c, f->bpp);
	vnc_put8(c, f->depth);
	vnc_put8(c, f->big_endian);
	vnc_put8(c, f->true_colour);
	for (unsigned i = 0; i < 3; i++)
		vnc_put16(c, f->max[i]);
	vnc_put(c, f->shift, 3);
	vnc_put(c, pad, 3);
	send_reason(c, c->vnc->name);
	c->state = RUNNING;
	c->resized = false;
	loop_timer_cancel(&c->timeout);
	vnc_mark_all(c);
}

static size_t handle(struct vnc_client *c, const uint8_t *p, size_t n)
{
	switch (c->state) {
	case WAIT_VERSION:
		return got_version(c, p, n);
	case WAIT_SECURITY:
		return got_security(c, p);
	case WAIT_AUTH:
		return got_auth(c, p, n);
	case WAIT_INIT: /* shared or not: all are */
		send_init(c);
		return 1;
	case RUNNING:
		return message(c, p, n);
	case DEAD:
		break;
	}
	return 0;
}

void vnc_consume(struct vnc_client *c)
{
	size_t at = 0;
	while (c->state != DEAD && at < c->in_len) {
		if (c->skip) {
			size_t n = min_u64(c->skip, c->in_len - at);
			c->skip -= n;
			at += n;
			continue;
		}
		size_t n = handle(c, c->in + at, c->in_len - at);
		if (!n)
			break;
		at += n;
	}
	memmove(c->in, c->in + at, c->in_len - at);
	c->in_len -= at;
}
