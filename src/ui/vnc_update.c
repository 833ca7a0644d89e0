/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What clients see.  Every client has a map of the 16x16 tiles that changed since
 * its last update; neighbouring tiles go out as one rectangle.
 *
 * Encodings: raw, and ZRLE with solid, packed-palette and raw tiles, which is
 * small for text.  A client on this host gets raw pixels even if it can do
 * better: copying is cheaper than compressing.
 */
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "ui/vnc_internal.h"

#define ZRLE_TILE 64u

/* ---- pixels ---- */

const struct vnc_format vnc_our_format = { 32, 24, 0, 1, { 255, 255, 255 }, { 16, 8, 0 } };

static bool same_format(const struct vnc_format *f)
{
	return f->bpp == 32 && !f->big_endian && f->max[0] == 255 && f->max[1] == 255 && f->max[2] == 255 &&
	       f->shift[0] == 16 && f->shift[1] == 8 && f->shift[2] == 0;
}

static uint32_t convert(const struct vnc_format *f, uint32_t rgb)
{
	uint32_t r = rgb >> 16 & 255, g = rgb >> 8 & 255, b = rgb & 255;
	return (r * f->max[0] + 127) / 255 << f->shift[0] | (g * f->max[1] + 127) / 255 << f->shift[1] |
	       (b * f->max[2] + 127) / 255 << f->shift[2];
}

/* Writes a pixel of n bytes as the client wants it. */
static uint8_t *store(const struct vnc_format *f, uint8_t *p, uint32_t v, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		p[f->big_endian ? n - 1 - i : i] = (uint8_t)(v >> (8 * i));
	return p + n;
}

/* ZRLE's compressed pixel: three bytes if the colours fit into three of the four (RFC 6143 §7.7.5). */
struct cpixel {
	unsigned size, drop; /* drop: low byte left out */
};

static struct cpixel cpixel(const struct vnc_format *f)
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

static uint8_t *store_cpixel(const struct vnc_client *c, uint8_t *p, uint32_t rgb, struct cpixel cp)
{
	uint32_t v = same_format(&c->format) ? rgb : convert(&c->format, rgb);
	return store(&c->format, p, cp.drop ? v >> 8 : v, cp.size);
}

static void send_raw(struct vnc_client *c, unsigned x, unsigned y, unsigned w, unsigned h)
{
	const struct display *d = c->vnc->display;
	unsigned n = c->format.bpp / 8u;
	if (!vnc_reserve(c, (size_t)w * h * n))
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
static uint8_t *encode_tile(const struct vnc_client *c, uint8_t *buf, const uint32_t *pixels, unsigned stride,
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

static bool deflate_into(struct vnc_client *c, const uint8_t *p, size_t n, int how)
{
	c->z.next_in = (Bytef *)p;
	c->z.avail_in = (uInt)n;
	do {
		if (!vnc_reserve(c, 16384))
			return false;
		c->z.next_out = c->out + c->out_len;
		c->z.avail_out = (uInt)(c->out_cap - c->out_len);
		int r = deflate(&c->z, how);
		c->out_len = c->out_cap - c->z.avail_out;
		if (r != Z_OK && r != Z_BUF_ERROR) {
			vnc_drop(c, "its picture cannot be compressed");
			return false;
		}
	} while (c->z.avail_in || !c->z.avail_out);
	return true;
}

static void send_zrle(struct vnc_client *c, unsigned x, unsigned y, unsigned w, unsigned h)
{
	const struct display *d = c->vnc->display;
	uint8_t tile[ZRLE_TILE * ZRLE_TILE * 4 + 64];
	size_t length_at = c->out_len;
	vnc_put32(c, 0);
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

static bool tile_dirty(const struct vnc_client *c, unsigned tx, unsigned ty)
{
	return c->dirty[ty][tx / 64] >> (tx % 64) & 1;
}

void vnc_mark(struct vnc_client *c, unsigned x, unsigned y, unsigned w, unsigned h)
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

void vnc_begin_rect(struct vnc_client *c, unsigned x, unsigned y, unsigned w, unsigned h, int encoding)
{
	vnc_put16(c, (uint16_t)x);
	vnc_put16(c, (uint16_t)y);
	vnc_put16(c, (uint16_t)w);
	vnc_put16(c, (uint16_t)h);
	vnc_put32(c, (uint32_t)encoding);
}

/* The size of the run of dirty tiles at (tx, ty), as far down as all its rows are dirty; takes them off the
 * map. */
static void take_rect(struct vnc_client *c, unsigned tx, unsigned ty, unsigned nx, unsigned ny, unsigned *w,
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

static unsigned send_dirty(struct vnc_client *c)
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
			vnc_begin_rect(c, px, py, pw, ph, zrle ? ENC_ZRLE : ENC_RAW);
			if (zrle)
				send_zrle(c, px, py, pw, ph);
			else
				send_raw(c, px, py, pw, ph);
			rects++;
		}
	return rects;
}

void vnc_mark_all(struct vnc_client *c)
{
	vnc_mark(c, 0, 0, c->vnc->display->width, c->vnc->display->height);
}

/* A client that cannot follow a new size sees what it has room for: it is told nothing, so it must go. */
static void send_size(struct vnc_client *c)
{
	const struct display *d = c->vnc->display;
	c->resized = false;
	if (c->width == d->width && c->height == d->height)
		return;
	if (!c->desktop_size) {
		vnc_drop(c, "it cannot follow the screen to another size; use a viewer that can");
		return;
	}
	vnc_put8(c, 0);
	vnc_put8(c, 0);
	vnc_put16(c, 1);
	vnc_begin_rect(c, 0, 0, d->width, d->height, ENC_DESKTOP_SIZE);
	c->width = d->width;
	c->height = d->height;
	c->wants = false;
	memset(c->dirty, 0, sizeof(c->dirty));
	vnc_mark_all(c);
}

void vnc_update(struct vnc_client *c)
{
	if (c->state != RUNNING || !c->wants || c->out_len)
		return;
	if (c->resized) {
		send_size(c);
		vnc_flush(c);
		return;
	}
	if (!c->any_dirty)
		return;
	size_t count_at = c->out_len + 2;
	vnc_put8(c, 0);
	vnc_put8(c, 0);
	vnc_put16(c, 0);
	uint16_t rects = htobe16((uint16_t)send_dirty(c));
	if (c->state == DEAD)
		return;
	memcpy(c->out + count_at, &rects, 2);
	c->any_dirty = false;
	c->wants = false;
	vnc_flush(c);
}

void vnc_refresh_timer(void *opaque)
{
	struct vnc *v = opaque;
	bool wanted = false;
	for (struct vnc_client *c = v->clients; c; c = c->next)
		wanted |= c->state == RUNNING && c->wants && !c->out_len;
	if (wanted) {
		display_refresh(v->display, false);
		for (struct vnc_client *c = v->clients; c; c = c->next)
			vnc_update(c);
	}
	vnc_reap(v);
	if (v->clients)
		loop_timer_arm(&v->timer, clock_now_ns(loop_clock(v->loop)) + VNC_REFRESH_NS);
}

void vnc_viewer_updated(void *opaque, struct display *d, unsigned x, unsigned y, unsigned w, unsigned h)
{
	struct vnc *v = opaque;
	(void)d;
	for (struct vnc_client *c = v->clients; c; c = c->next)
		vnc_mark(c, x, y, w, h);
}

void vnc_viewer_resized(void *opaque, struct display *d)
{
	struct vnc *v = opaque;
	(void)d;
	for (struct vnc_client *c = v->clients; c; c = c->next) {
		c->resized = true;
		memset(c->dirty, 0, sizeof(c->dirty));
		vnc_mark_all(c);
	}
}
