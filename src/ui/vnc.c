/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The protocol has the client ask: each FramebufferUpdateRequest is answered by
 * one update, when something changed.  Every client has a map of the 16x16 tiles
 * that changed since its last update.  A timer asks the display for changes some
 * 30 times a second, but only while a client waits for some and has read what it
 * was sent before: nobody watching, or a slow link, costs nothing and buffers
 * nothing.
 *
 * Encodings: raw, and ZRLE with solid, packed-palette and raw tiles, which is
 * small for text.  A client on this host gets raw pixels even if it can do
 * better: copying is cheaper than compressing.
 *
 * Clients are not trusted: input is parsed as it arrives from a bounded buffer,
 * lengths are checked before anything is done with them, who does not
 * authenticate in time is dropped, and so is who breaks the protocol.
 */
#include "ui/vnc.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nettle/des.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <zlib.h>

#include "base/log.h"
#include "base/util.h"
#include "ui/keymap.h"

#include <linux/input-event-codes.h>

#define REFRESH_NS   33333333
#define HANDSHAKE_NS (30 * 1000000000ll)
#define TILE         16u
#define TILES_X      (DISPLAY_MAX_WIDTH / TILE)
#define TILES_Y      (DISPLAY_MAX_HEIGHT / TILE)
#define IN_MAX       4096u
#define CUT_MAX      (1u << 20)
#define ZRLE_TILE    64u

enum { ENC_RAW = 0, ENC_ZRLE = 16, ENC_DESKTOP_SIZE = -223, ENC_EXT_KEY = -258 };

enum state { WAIT_VERSION, WAIT_SECURITY, WAIT_AUTH, WAIT_INIT, RUNNING, DEAD };

struct format {
	uint8_t bpp, depth, big_endian, true_colour;
	uint16_t max[3];
	uint8_t shift[3];
};

struct client {
	struct vnc *vnc;
	struct client *next;
	int fd;
	struct loop_watch watch;
	struct loop_timer timeout; /* until the handshake is over */
	enum state state;
	unsigned minor; /* protocol 3.minor */
	uint8_t challenge[16];
	bool local;

	uint8_t in[IN_MAX];
	size_t in_len;
	uint64_t skip; /* bytes of clipboard text that are still to be thrown away */
	uint8_t *out;
	size_t out_len, out_pos, out_cap;

	struct format format;
	bool zrle, desktop_size, ext_key;
	z_stream z;
	bool z_ready;
	bool wants;             /* an update was asked for */
	bool resized;           /* the client has to be told of a new size */
	unsigned width, height; /* as the client knows them */
	uint64_t dirty[TILES_Y][TILES_X / 64];
	bool any_dirty;
	unsigned buttons;
	uint8_t keys[64]; /* that this client holds down */
	bool shift_added; /* we pressed Shift on its behalf */
};

struct vnc {
	struct loop *loop;
	struct display *display;
	struct display_viewer viewer;
	struct input *input;
	char *name, *unix_path;
	char password[8];
	bool has_password;
	int fd;
	struct loop_watch watch;
	struct loop_timer timer;
	struct client *clients;
	unsigned nr_clients;
};

/* ---- output ---- */

static void drop(struct client *c, const char *why)
{
	if (c->state == DEAD)
		return;
	if (why)
		log_info("a VNC client is disconnected: %s", why);
	c->state = DEAD; /* reap frees it when nothing uses it any more */
	loop_timer_cancel(&c->timeout);
}

static bool reserve(struct client *c, size_t n)
{
	if (c->out_len + n <= c->out_cap)
		return true;
	size_t cap = max_u64(c->out_cap * 2, c->out_len + n);
	uint8_t *p = realloc(c->out, cap);
	if (!p) {
		drop(c, "no memory for its picture");
		return false;
	}
	c->out = p;
	c->out_cap = cap;
	return true;
}

static void put(struct client *c, const void *p, size_t n)
{
	if (!reserve(c, n))
		return;
	memcpy(c->out + c->out_len, p, n);
	c->out_len += n;
}

static void put8(struct client *c, uint8_t v)
{
	put(c, &v, 1);
}

static void put16(struct client *c, uint16_t v)
{
	v = htobe16(v);
	put(c, &v, 2);
}

static void put32(struct client *c, uint32_t v)
{
	v = htobe32(v);
	put(c, &v, 4);
}

static void flush(struct client *c)
{
	while (c->state != DEAD && c->out_pos < c->out_len) {
		ssize_t n =
		    send(c->fd, c->out + c->out_pos, c->out_len - c->out_pos, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n > 0)
			c->out_pos += (size_t)n;
		else if (n < 0 && errno == EINTR)
			continue;
		else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			break;
		else
			drop(c, NULL);
	}
	if (c->out_pos == c->out_len)
		c->out_pos = c->out_len = 0;
	if (c->state != DEAD)
		loop_watch_mod(c->vnc->loop, &c->watch, EPOLLIN | (c->out_len ? EPOLLOUT : 0u));
}

/* ---- pixels ---- */

static const struct format our_format = { 32, 24, 0, 1, { 255, 255, 255 }, { 16, 8, 0 } };

static bool same_format(const struct format *f)
{
	return f->bpp == 32 && !f->big_endian && f->max[0] == 255 && f->max[1] == 255 && f->max[2] == 255 &&
	       f->shift[0] == 16 && f->shift[1] == 8 && f->shift[2] == 0;
}

static uint32_t convert(const struct format *f, uint32_t rgb)
{
	uint32_t r = rgb >> 16 & 255, g = rgb >> 8 & 255, b = rgb & 255;
	return (r * f->max[0] + 127) / 255 << f->shift[0] | (g * f->max[1] + 127) / 255 << f->shift[1] |
	       (b * f->max[2] + 127) / 255 << f->shift[2];
}

/* Writes a pixel of n bytes as the client wants it. */
static uint8_t *store(const struct format *f, uint8_t *p, uint32_t v, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		p[f->big_endian ? n - 1 - i : i] = (uint8_t)(v >> (8 * i));
	return p + n;
}

/* ZRLE's compressed pixel: three bytes if the colours fit into three of the four (RFC 6143 §7.7.5). */
struct cpixel {
	unsigned size, drop; /* drop: low byte left out */
};

static struct cpixel cpixel(const struct format *f)
{
	uint32_t used = 0;
	for (unsigned i = 0; i < 3; i++)
		used |= (uint32_t)f->max[i] << f->shift[i];
	if (f->bpp == 32 && f->depth <= 24 && !(used & 0xff000000))
		return (struct cpixel){ 3, 0 };
	if (f->bpp == 32 && f->depth <= 24 && !(used & 0xff))
		return (struct cpixel){ 3, 1 };
	return (struct cpixel){ f->bpp / 8u, 0 };
}

static uint8_t *store_cpixel(const struct client *c, uint8_t *p, uint32_t rgb, struct cpixel cp)
{
	uint32_t v = same_format(&c->format) ? rgb : convert(&c->format, rgb);
	return store(&c->format, p, cp.drop ? v >> 8 : v, cp.size);
}

static void send_raw(struct client *c, unsigned x, unsigned y, unsigned w, unsigned h)
{
	const struct display *d = c->vnc->display;
	unsigned n = c->format.bpp / 8u;
	if (!reserve(c, (size_t)w * h * n))
		return;
	uint8_t *p = c->out + c->out_len;
	for (unsigned j = 0; j < h; j++) {
		const uint32_t *row = d->pixels + (size_t)(y + j) * d->width + x;
		if (same_format(&c->format)) {
			memcpy(p, row, (size_t)w * 4);
			p += (size_t)w * 4;
			continue;
		}
		for (unsigned i = 0; i < w; i++)
			p = store(&c->format, p, convert(&c->format, row[i]), n);
	}
	c->out_len = (size_t)(p - c->out);
}

/* ---- ZRLE ---- */

struct palette {
	unsigned nr;
	uint32_t colour[16];
};

static int palette_index(struct palette *p, uint32_t rgb)
{
	for (unsigned i = 0; i < p->nr; i++)
		if (p->colour[i] == rgb)
			return (int)i;
	if (p->nr == ARRAY_SIZE(p->colour))
		return -1;
	p->colour[p->nr] = rgb;
	return (int)p->nr++;
}

/* Encodes one tile of at most 64x64; buf has room for the raw form. Returns its end. */
static uint8_t *encode_tile(const struct client *c, uint8_t *buf, const uint32_t *pixels, unsigned stride,
			    unsigned w, unsigned h)
{
	struct cpixel cp = cpixel(&c->format);
	struct palette pal = { 0 };
	uint8_t index[ZRLE_TILE * ZRLE_TILE], *p = buf;
	bool fits = true;
	uint32_t last = ~pixels[0];
	int at = 0;
	for (unsigned y = 0; y < h && fits; y++)
		for (unsigned x = 0; x < w && fits; x++) {
			uint32_t rgb = pixels[(size_t)y * stride + x];
			if (rgb != last) {
				at = palette_index(&pal, rgb);
				last = rgb;
				fits = at >= 0;
			}
			index[y * w + x] = (uint8_t)at;
		}
	if (!fits) {
		*p++ = 0;
		for (unsigned y = 0; y < h; y++)
			for (unsigned x = 0; x < w; x++)
				p = store_cpixel(c, p, pixels[(size_t)y * stride + x], cp);
		return p;
	}
	*p++ = (uint8_t)pal.nr;
	for (unsigned i = 0; i < pal.nr; i++)
		p = store_cpixel(c, p, pal.colour[i], cp);
	if (pal.nr == 1)
		return p;
	unsigned bits = pal.nr == 2 ? 1 : pal.nr <= 4 ? 2 : 4;
	for (unsigned y = 0; y < h; y++) {
		unsigned acc = 0, have = 0;
		for (unsigned x = 0; x < w; x++) {
			acc = acc << bits | index[y * w + x];
			have += bits;
			if (have == 8) {
				*p++ = (uint8_t)acc;
				acc = have = 0;
			}
		}
		if (have)
			*p++ = (uint8_t)(acc << (8 - have));
	}
	return p;
}

static bool deflate_into(struct client *c, const uint8_t *p, size_t n, int how)
{
	c->z.next_in = (Bytef *)p;
	c->z.avail_in = (uInt)n;
	do {
		if (!reserve(c, 16384))
			return false;
		c->z.next_out = c->out + c->out_len;
		c->z.avail_out = (uInt)(c->out_cap - c->out_len);
		int r = deflate(&c->z, how);
		c->out_len = c->out_cap - c->z.avail_out;
		if (r != Z_OK && r != Z_BUF_ERROR) {
			drop(c, "its picture cannot be compressed");
			return false;
		}
	} while (c->z.avail_in || !c->z.avail_out);
	return true;
}

static void send_zrle(struct client *c, unsigned x, unsigned y, unsigned w, unsigned h)
{
	const struct display *d = c->vnc->display;
	uint8_t tile[ZRLE_TILE * ZRLE_TILE * 4 + 64];
	size_t length_at = c->out_len;
	put32(c, 0);
	for (unsigned ty = 0; ty < h; ty += ZRLE_TILE)
		for (unsigned tx = 0; tx < w; tx += ZRLE_TILE) {
			unsigned tw = (unsigned)min_u64(ZRLE_TILE, w - tx),
				 th = (unsigned)min_u64(ZRLE_TILE, h - ty);
			const uint32_t *p = d->pixels + (size_t)(y + ty) * d->width + x + tx;
			uint8_t *end = encode_tile(c, tile, p, d->width, tw, th);
			if (!deflate_into(c, tile, (size_t)(end - tile), Z_NO_FLUSH))
				return;
		}
	if (!deflate_into(c, NULL, 0, Z_SYNC_FLUSH))
		return;
	uint32_t n = htobe32((uint32_t)(c->out_len - length_at - 4));
	memcpy(c->out + length_at, &n, 4);
}

/* ---- updates ---- */

static bool tile_dirty(const struct client *c, unsigned tx, unsigned ty)
{
	return c->dirty[ty][tx / 64] >> (tx % 64) & 1;
}

static void mark(struct client *c, unsigned x, unsigned y, unsigned w, unsigned h)
{
	const struct display *d = c->vnc->display;
	if (x >= d->width || y >= d->height || !w || !h)
		return;
	w = (unsigned)min_u64(w, d->width - x);
	h = (unsigned)min_u64(h, d->height - y);
	for (unsigned ty = y / TILE; ty <= (y + h - 1) / TILE; ty++)
		for (unsigned tx = x / TILE; tx <= (x + w - 1) / TILE; tx++)
			c->dirty[ty][tx / 64] |= 1ull << (tx % 64);
	c->any_dirty = true;
}

static void begin_rect(struct client *c, unsigned x, unsigned y, unsigned w, unsigned h, int encoding)
{
	put16(c, (uint16_t)x);
	put16(c, (uint16_t)y);
	put16(c, (uint16_t)w);
	put16(c, (uint16_t)h);
	put32(c, (uint32_t)encoding);
}

/* The size of the run of dirty tiles at (tx, ty), as far down as all its rows are dirty; takes them off the
 * map. */
static void take_rect(struct client *c, unsigned tx, unsigned ty, unsigned nx, unsigned ny, unsigned *w,
		      unsigned *h)
{
	unsigned ex = tx, ey = ty;
	while (ex < nx && tile_dirty(c, ex, ty))
		ex++;
	for (bool whole = true; whole && ey < ny;) {
		for (unsigned i = tx; i < ex && whole; i++)
			whole = tile_dirty(c, i, ey);
		ey += whole;
	}
	for (unsigned j = ty; j < ey; j++)
		for (unsigned i = tx; i < ex; i++)
			c->dirty[j][i / 64] &= ~(1ull << (i % 64));
	*w = ex - tx;
	*h = ey - ty;
}

static unsigned send_dirty(struct client *c)
{
	const struct display *d = c->vnc->display;
	unsigned nx = (d->width + TILE - 1) / TILE, ny = (d->height + TILE - 1) / TILE, rects = 0;
	bool zrle = c->zrle && c->z_ready && !c->local;
	for (unsigned ty = 0; ty < ny; ty++)
		for (unsigned tx = 0; tx < nx && c->state != DEAD; tx++) {
			unsigned w, h;
			if (!c->dirty[ty][tx / 64]) {
				tx |= 63;
				continue;
			}
			if (!tile_dirty(c, tx, ty))
				continue;
			take_rect(c, tx, ty, nx, ny, &w, &h);
			unsigned px = tx * TILE, py = ty * TILE;
			unsigned pw = (unsigned)min_u64(w * TILE, d->width - px);
			unsigned ph = (unsigned)min_u64(h * TILE, d->height - py);
			begin_rect(c, px, py, pw, ph, zrle ? ENC_ZRLE : ENC_RAW);
			if (zrle)
				send_zrle(c, px, py, pw, ph);
			else
				send_raw(c, px, py, pw, ph);
			rects++;
		}
	return rects;
}

static void mark_all(struct client *c)
{
	mark(c, 0, 0, c->vnc->display->width, c->vnc->display->height);
}

/* A client that cannot follow a new size sees what it has room for: it is told nothing, so it must go. */
static void send_size(struct client *c)
{
	const struct display *d = c->vnc->display;
	c->resized = false;
	if (c->width == d->width && c->height == d->height)
		return;
	if (!c->desktop_size) {
		drop(c, "it cannot follow the screen to another size; use a viewer that can");
		return;
	}
	put8(c, 0);
	put8(c, 0);
	put16(c, 1);
	begin_rect(c, 0, 0, d->width, d->height, ENC_DESKTOP_SIZE);
	c->width = d->width;
	c->height = d->height;
	c->wants = false;
	memset(c->dirty, 0, sizeof(c->dirty));
	mark_all(c);
}

static void update(struct client *c)
{
	if (c->state != RUNNING || !c->wants || c->out_len)
		return;
	if (c->resized) {
		send_size(c);
		flush(c);
		return;
	}
	if (!c->any_dirty)
		return;
	size_t count_at = c->out_len + 2;
	put8(c, 0);
	put8(c, 0);
	put16(c, 0);
	uint16_t rects = htobe16((uint16_t)send_dirty(c));
	if (c->state == DEAD)
		return;
	memcpy(c->out + count_at, &rects, 2);
	c->any_dirty = false;
	c->wants = false;
	flush(c);
}

static void reap(struct vnc *v);

static void refresh_timer(void *opaque)
{
	struct vnc *v = opaque;
	bool wanted = false;
	for (struct client *c = v->clients; c; c = c->next)
		wanted |= c->state == RUNNING && c->wants && !c->out_len;
	if (wanted) {
		display_refresh(v->display, false);
		for (struct client *c = v->clients; c; c = c->next)
			update(c);
	}
	reap(v);
	if (v->clients)
		loop_timer_arm(&v->timer, clock_now_ns(loop_clock(v->loop)) + REFRESH_NS);
}

static void viewer_updated(void *opaque, struct display *d, unsigned x, unsigned y, unsigned w, unsigned h)
{
	struct vnc *v = opaque;
	(void)d;
	for (struct client *c = v->clients; c; c = c->next)
		mark(c, x, y, w, h);
}

static void viewer_resized(void *opaque, struct display *d)
{
	struct vnc *v = opaque;
	(void)d;
	for (struct client *c = v->clients; c; c = c->next) {
		c->resized = true;
		memset(c->dirty, 0, sizeof(c->dirty));
		mark_all(c);
	}
}

/* ---- messages from the client ---- */

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static void key(struct client *c, uint16_t code, bool down)
{
	if (!code || code >= 8 * sizeof(c->keys))
		return;
	if (down)
		c->keys[code / 8] |= (uint8_t)(1u << (code % 8));
	else
		c->keys[code / 8] &= (uint8_t) ~(1u << (code % 8));
	input_key(c->vnc->input, code, down);
}

static bool held(const struct client *c, uint16_t code)
{
	return c->keys[code / 8] >> (code % 8) & 1;
}

/* What a client without a Shift key of its own (or a script) types as an upper-case character needs Shift. */
static void keysym(struct client *c, uint32_t sym, bool down)
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

static void release_keys(struct client *c)
{
	for (unsigned i = 0; i < 8 * sizeof(c->keys); i++)
		if (held(c, (uint16_t)i))
			key(c, (uint16_t)i, false);
}

static void pointer(struct client *c, unsigned mask, unsigned x, unsigned y)
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

static void set_format(struct client *c, const uint8_t *p)
{
	struct format f = { .bpp = p[0],
			    .depth = p[1],
			    .big_endian = p[2],
			    .true_colour = p[3],
			    .max = { get16(p + 4), get16(p + 6), get16(p + 8) },
			    .shift = { p[10], p[11], p[12] } };
	bool ok = (f.bpp == 8 || f.bpp == 16 || f.bpp == 32) && f.true_colour;
	for (unsigned i = 0; i < 3; i++)
		ok = ok && f.shift[i] < 32 && f.max[i] <= 255 && !((uint64_t)f.max[i] << f.shift[i] >> f.bpp);
	if (!ok) {
		drop(c, "it asked for a pixel format that is not true colour of 8, 16 or 32 bits");
		return;
	}
	c->format = f;
	mark_all(c);
}

static void set_encodings(struct client *c, const uint8_t *p, unsigned n)
{
	c->zrle = c->desktop_size = c->ext_key = false;
	for (unsigned i = 0; i < n; i++) {
		int32_t e = (int32_t)get32(p + 4 * i);
		c->zrle |= e == ENC_ZRLE;
		c->desktop_size |= e == ENC_DESKTOP_SIZE;
		if (e == ENC_EXT_KEY && !c->ext_key) {
			c->ext_key = true;
			/* A rectangle without content says that we understand the extension. */
			put8(c, 0);
			put8(c, 0);
			put16(c, 1);
			begin_rect(c, 0, 0, c->width, c->height, ENC_EXT_KEY);
		}
	}
	if (c->zrle && !c->z_ready)
		c->z_ready = deflateInit(&c->z, 1) == Z_OK;
	flush(c);
}

static void request_update(struct client *c, const uint8_t *p)
{
	if (!p[1])
		mark(c, get16(p + 2), get16(p + 4), get16(p + 6), get16(p + 8));
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
static size_t message(struct client *c, const uint8_t *p, size_t n)
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
			drop(c, "it names too many encodings");
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
			drop(c, "its clipboard is too big");
		return 8;
	case 255: /* QEMU's extension: a key event with the key's own number */
		if (n < 12)
			return 0;
		if (p[1] != 0) {
			drop(c, "it sent a message that is not known");
			return 0;
		}
		key(c, from_xt(get32(p + 8)), get16(p + 2) != 0);
		return 12;
	default:
		drop(c, "it sent a message that is not known");
		return 0;
	}
}

/* ---- handshake ---- */

static void send_reason(struct client *c, const char *why)
{
	put32(c, (uint32_t)strlen(why));
	put(c, why, strlen(why));
}

static void authenticated(struct client *c)
{
	/* 3.3 and 3.7 say nothing where there is nothing to authenticate. */
	if (c->minor >= 8 || c->vnc->has_password)
		put32(c, 0);
	c->state = WAIT_INIT;
}

static void send_challenge(struct client *c)
{
	if (getrandom(c->challenge, sizeof(c->challenge), 0) != sizeof(c->challenge)) {
		drop(c, "the host gives no random numbers");
		return;
	}
	put(c, c->challenge, sizeof(c->challenge));
	c->state = WAIT_AUTH;
}

static size_t got_version(struct client *c, const uint8_t *p, size_t n)
{
	unsigned major, minor;
	char text[13] = "";
	if (n < 12)
		return 0;
	memcpy(text, p, 12);
	if (sscanf(text, "RFB %3u.%3u\n", &major, &minor) != 2 || major < 3) {
		drop(c, "it does not speak the VNC protocol");
		return 0;
	}
	c->minor = major > 3 || minor >= 8 ? 8 : minor == 7 ? 7 : 3;
	uint8_t type = c->vnc->has_password ? 2 : 1;
	if (c->minor == 3) {
		put32(c, type);
		if (type == 2)
			send_challenge(c);
		else
			c->state = WAIT_INIT;
	} else {
		put8(c, 1);
		put8(c, type);
		c->state = WAIT_SECURITY;
	}
	return 12;
}

static size_t got_security(struct client *c, const uint8_t *p)
{
	if (p[0] != (c->vnc->has_password ? 2 : 1)) {
		drop(c, "it chose a kind of security that was not offered");
		return 0;
	}
	if (c->vnc->has_password)
		send_challenge(c);
	else
		authenticated(c);
	return 1;
}

/* DES with the password as its key, the bits of each byte reversed (RFC 6143 §7.2.2). */
static bool response_right(const struct client *c, const uint8_t *response)
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

static size_t got_auth(struct client *c, const uint8_t *p, size_t n)
{
	if (n < 16)
		return 0;
	if (response_right(c, p)) {
		authenticated(c);
		return 16;
	}
	put32(c, 1);
	if (c->minor >= 8)
		send_reason(c, "wrong password");
	flush(c);
	drop(c, "wrong password");
	return 0;
}

static void send_init(struct client *c)
{
	const struct display *d = c->vnc->display;
	const struct format *f = &c->format;
	static const uint8_t pad[3];
	c->width = d->width;
	c->height = d->height;
	put16(c, (uint16_t)d->width);
	put16(c, (uint16_t)d->height);
	put8(c, f->bpp);
	put8(c, f->depth);
	put8(c, f->big_endian);
	put8(c, f->true_colour);
	for (unsigned i = 0; i < 3; i++)
		put16(c, f->max[i]);
	put(c, f->shift, 3);
	put(c, pad, 3);
	send_reason(c, c->vnc->name);
	c->state = RUNNING;
	c->resized = false;
	loop_timer_cancel(&c->timeout);
	mark_all(c);
}

static size_t handle(struct client *c, const uint8_t *p, size_t n)
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

/* ---- connections ---- */

static void consume(struct client *c)
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

static void client_event(void *opaque, uint32_t events)
{
	struct client *c = opaque;
	struct vnc *v = c->vnc;
	(void)events;
	if (c->state != DEAD) {
		ssize_t n = recv(c->fd, c->in + c->in_len, IN_MAX - c->in_len, MSG_DONTWAIT);
		if (n > 0) {
			c->in_len += (size_t)n;
			consume(c);
		} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
			drop(c, NULL);
		}
	}
	if (c->state != DEAD)
		flush(c);
	update(c); /* what is known to have changed; the timer looks for more */
	reap(v);
}

static void handshake_timeout(void *opaque)
{
	struct client *c = opaque;
	struct vnc *v = c->vnc;
	drop(c, "it did not finish connecting within half a minute");
	reap(v);
}

static void client_free(struct client *c)
{
	release_keys(c);
	loop_timer_cancel(&c->timeout);
	loop_watch_del(c->vnc->loop, &c->watch);
	close(c->fd);
	if (c->z_ready)
		deflateEnd(&c->z);
	free(c->out);
	free(c);
}

static void reap(struct vnc *v)
{
	for (struct client **p = &v->clients; *p;) {
		struct client *c = *p;
		if (c->state != DEAD) {
			p = &c->next;
			continue;
		}
		*p = c->next;
		v->nr_clients--;
		client_free(c);
	}
}

static bool is_local(int fd)
{
	struct sockaddr_storage a;
	socklen_t n = sizeof(a);
	if (getpeername(fd, (struct sockaddr *)&a, &n) < 0)
		return true;
	if (a.ss_family == AF_INET)
		return ntohl(((struct sockaddr_in *)&a)->sin_addr.s_addr) >> 24 == 127;
	if (a.ss_family == AF_INET6)
		return IN6_IS_ADDR_LOOPBACK(&((struct sockaddr_in6 *)&a)->sin6_addr);
	return true;
}

int vnc_add_client(struct vnc *v, int fd)
{
	struct client *c = v->nr_clients < VNC_MAX_CLIENTS ? calloc(1, sizeof(*c)) : NULL;
	int one = 1;
	if (!c) {
		log_warn("a VNC client is refused: there are %u already", v->nr_clients);
		close(fd);
		return -EAGAIN;
	}
	fcntl(fd, F_SETFL, O_NONBLOCK);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	c->vnc = v;
	c->fd = fd;
	c->format = our_format;
	c->local = is_local(fd);
	c->watch = (struct loop_watch){ .fd = fd, .events = EPOLLIN, .fn = client_event, .opaque = c };
	int r = loop_watch_add(v->loop, &c->watch);
	if (r < 0) {
		close(fd);
		free(c);
		return r;
	}
	loop_timer_init(v->loop, &c->timeout, handshake_timeout, c);
	loop_timer_arm(&c->timeout, clock_now_ns(loop_clock(v->loop)) + HANDSHAKE_NS);
	c->next = v->clients;
	v->clients = c;
	v->nr_clients++;
	put(c, "RFB 003.008\n", 12);
	flush(c);
	loop_timer_arm(&v->timer, clock_now_ns(loop_clock(v->loop)) + REFRESH_NS);
	return 0;
}

static void accept_event(void *opaque, uint32_t events)
{
	struct vnc *v = opaque;
	(void)events;
	int fd = accept4(v->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0)
		vnc_add_client(v, fd);
}

/* ---- listening ---- */

static int listen_unix(struct vnc *v, const char *path, struct error *err)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct stat st;
	if (strlen(path) >= sizeof(a.sun_path))
		return error_set(err, ENAMETOOLONG,
				 "--display vnc=unix:%s: the path is too long for a socket", path);
	strcpy(a.sun_path, path);
	v->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (v->fd >= 0 && !lstat(path, &st) && S_ISSOCK(st.st_mode) &&
	    connect(v->fd, (struct sockaddr *)&a, sizeof(a)) < 0 && errno == ECONNREFUSED)
		unlink(path); /* left behind by a process that is gone */
	mode_t old = umask(0177);
	int r = v->fd < 0 || bind(v->fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(v->fd, 8) < 0
		    ? -errno
		    : 0;
	umask(old);
	if (r)
		return error_set(err, -r, "--display vnc=unix:%s: cannot listen there: %s", path,
				 strerror(-r));
	v->unix_path = strdup(path);
	return 0;
}

static int listen_tcp(struct vnc *v, const char *text, struct error *err)
{
	char host[256] = "127.0.0.1";
	const char *colon = strrchr(text, ':'), *port = colon ? colon + 1 : text;
	size_t len = colon ? (size_t)(colon - text) : 0;
	char *end;
	unsigned long number = strtoul(port, &end, 10);
	struct addrinfo hints = { .ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM },
			*found;
	if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
		text++;
		len -= 2;
	}
	if (!*port || *end || number < 1 || number > 65535 || len >= sizeof(host))
		return error_set(err, EINVAL,
				 "--display vnc=%s: no address; give ADDR:PORT, :PORT or unix:PATH", text);
	if (len)
		snprintf(host, sizeof(host), "%.*s", (int)len, text);
	int r = getaddrinfo(host, port, &hints, &found);
	if (r)
		return error_set(err, EINVAL, "--display vnc=%s: %s", text, gai_strerror(r));
	int one = 1;
	v->fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (v->fd >= 0)
		setsockopt(v->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	r = v->fd < 0 || bind(v->fd, found->ai_addr, found->ai_addrlen) < 0 || listen(v->fd, 8) < 0 ? -errno
												    : 0;
	freeaddrinfo(found);
	if (r == -EADDRINUSE)
		return error_set(err, EADDRINUSE, "--display vnc=%s: port %lu is in use; choose another",
				 text, number);
	return r ? error_set(err, -r, "--display vnc=%s: cannot listen there: %s", text, strerror(-r)) : 0;
}

int vnc_new(struct loop *l, const struct vnc_config *c, const char *name, struct display *d, struct input *in,
	    struct vnc **ret, struct error *err)
{
	struct vnc *v = calloc(1, sizeof(*v));
	if (!v || !(v->name = strdup(name))) {
		free(v);
		return error_set(err, ENOMEM, "no memory for the VNC server; free some and try again");
	}
	v->loop = l;
	v->display = d;
	v->input = in;
	v->fd = -1;
	if (c->password) {
		v->has_password = true;
		memcpy(v->password, c->password, strnlen(c->password, sizeof(v->password)));
	}
	loop_timer_init(l, &v->timer, refresh_timer, v);
	int r = 0;
	if (c->address)
		r = strncmp(c->address, "unix:", 5) ? listen_tcp(v, c->address, err)
						    : listen_unix(v, c->address + 5, err);
	if (!r && v->fd >= 0) {
		v->watch =
		    (struct loop_watch){ .fd = v->fd, .events = EPOLLIN, .fn = accept_event, .opaque = v };
		r = loop_watch_add(l, &v->watch);
		if (r)
			error_set(err, -r, "the VNC server cannot wait for clients: %s", strerror(-r));
	}
	if (r) {
		if (v->fd >= 0)
			close(v->fd);
		free(v->unix_path);
		free(v->name);
		free(v);
		return r;
	}
	v->viewer =
	    (struct display_viewer){ .resized = viewer_resized, .updated = viewer_updated, .opaque = v };
	display_add_viewer(d, &v->viewer);
	*ret = v;
	return 0;
}

void vnc_free(struct vnc *v)
{
	if (!v)
		return;
	display_remove_viewer(v->display, &v->viewer);
	for (struct client *c = v->clients; c; c = c->next)
		drop(c, NULL);
	reap(v);
	loop_timer_cancel(&v->timer);
	if (v->fd >= 0) {
		loop_watch_del(v->loop, &v->watch);
		close(v->fd);
	}
	if (v->unix_path)
		unlink(v->unix_path);
	free(v->unix_path);
	free(v->name);
	free(v);
}
