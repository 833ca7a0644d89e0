/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The graphics card's picture: pixels from guest memory into resources, and
 * from the resource shown, with the cursor over it, to the display.  What the
 * guest flushes is only noted; viewers fetch it when they can show it.
 */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "dev/virtio/virtio_gpu_internal.h"

/* Where a format has red, green, blue and alpha: numbers of bytes; 4: none (§5.7.6.8). */
static const struct {
	uint32_t format;
	uint8_t r, g, b, a;
} formats[] = {
	{ 1, 2, 1, 0, 3 },  { 2, 2, 1, 0, 4 },  { 3, 1, 2, 3, 0 },   { 4, 1, 2, 3, 4 },
	{ 67, 0, 1, 2, 3 }, { 68, 3, 2, 1, 4 }, { 121, 3, 2, 1, 0 }, { 134, 0, 1, 2, 4 },
};

static int find_format(uint32_t format)
{
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
		if (formats[i].format == format)
			return (int)i;
	return -1;
}

bool gpu_format_known(uint32_t format)
{
	return find_format(format) >= 0;
}

static void convert(uint32_t *p, unsigned n, uint32_t format)
{
	int f = find_format(format);

	if (format == 1 || f < 0)
		return;
	for (unsigned i = 0; i < n; i++) {
		uint8_t b[5];

		memcpy(b, &p[i], 4);
		b[4] = 0xff;
		p[i] = (uint32_t)b[formats[f].a] << 24 | (uint32_t)b[formats[f].r] << 16 |
		       (uint32_t)b[formats[f].g] << 8 | b[formats[f].b];
	}
}

/* ---- guest memory ---- */

/* A walk along a resource's pieces, for offsets that grow. */
struct walk {
	const struct virtio_gpu *g;
	uint32_t i, end;
	uint64_t base; /* offset at which piece i begins */
};

static bool walk_read(struct walk *w, uint64_t offset, void *buf, uint64_t len)
{
	uint8_t *p = buf;

	while (len) {
		while (w->i < w->end && offset - w->base >= w->g->entry_len[w->i])
			w->base += w->g->entry_len[w->i++];
		if (w->i >= w->end)
			return false;
		uint64_t in = offset - w->base, n = min_u64(len, w->g->entry_len[w->i] - in);
		if (mem_read(w->g->v.board->mem, GPA(w->g->entry_addr[w->i] + in), p, n))
			return false;
		p += n;
		offset += n;
		len -= n;
	}
	return true;
}

bool gpu_transfer(struct virtio_gpu *g, int r, const struct gpu_rect *rect, uint64_t offset)
{
	struct walk w = { g, g->first[r], g->first[r] + g->count[r], 0 };
	uint64_t stride = (uint64_t)g->width[r] * 4;

	if (offset > UINT64_MAX / 2)
		return false;
	g->moved += (uint64_t)rect->w * rect->h * 4;
	for (uint32_t y = 0; y < rect->h; y++) {
		uint32_t *to = g->pixels[r] + (size_t)(rect->y + y) * g->width[r] + rect->x;

		if (!walk_read(&w, offset + y * stride, to, (uint64_t)rect->w * 4))
			return false;
		convert(to, rect->w, g->format[r]);
	}
	return true;
}

/* ---- the picture ---- */

/* In the picture's coordinates, which may lie outside of it. */
static void add_dirty(struct virtio_gpu *g, int64_t x0, int64_t y0, int64_t x1, int64_t y1)
{
	x0 = x0 < 0 ? 0 : x0;
	y0 = y0 < 0 ? 0 : y0;
	x1 = x1 > g->screen_w ? g->screen_w : x1;
	y1 = y1 > g->screen_h ? g->screen_h : y1;
	if (x0 >= x1 || y0 >= y1)
		return;
	bool none = g->dirty_x0 >= g->dirty_x1;
	g->dirty_x0 = none ? (uint32_t)x0 : (uint32_t)min_u64(g->dirty_x0, (uint64_t)x0);
	g->dirty_y0 = none ? (uint32_t)y0 : (uint32_t)min_u64(g->dirty_y0, (uint64_t)y0);
	g->dirty_x1 = none ? (uint32_t)x1 : (uint32_t)max_u64(g->dirty_x1, (uint64_t)x1);
	g->dirty_y1 = none ? (uint32_t)y1 : (uint32_t)max_u64(g->dirty_y1, (uint64_t)y1);
}

void gpu_dirty(struct virtio_gpu *g, const struct gpu_rect *rect)
{
	int64_t x = (int64_t)rect->x - g->scanout.x, y = (int64_t)rect->y - g->scanout.y;

	add_dirty(g, x, y, x + rect->w, y + rect->h);
}

void gpu_dirty_cursor(struct virtio_gpu *g)
{
	int64_t x = (int64_t)g->cursor_x - g->hot_x, y = (int64_t)g->cursor_y - g->hot_y;

	add_dirty(g, x, y, x + GPU_CURSOR_SIZE, y + GPU_CURSOR_SIZE);
}

bool gpu_resize(struct virtio_gpu *g, uint32_t w, uint32_t h)
{
	if (!g->screen || w != g->screen_w || h != g->screen_h) {
		uint32_t *screen = calloc((size_t)w * h, sizeof(*screen));

		if (!screen)
			return false;
		free(g->screen);
		g->screen = screen;
		g->screen_w = g->display->width = w;
		g->screen_h = g->display->height = h;
		g->display->pixels = screen;
		g->dirty_x0 = g->dirty_x1 = 0;
		display_resized(g->display);
	}
	add_dirty(g, 0, 0, w, h);
	return true;
}

static uint32_t blend(uint32_t under, uint32_t over)
{
	uint32_t a = over >> 24, r = 0;

	for (unsigned shift = 0; shift < 24; shift += 8) {
		uint32_t o = over >> shift & 255, u = under >> shift & 255;

		r |= (o * a + u * (255 - a) + 127) / 255 << shift;
	}
	return r;
}

static void draw_cursor(struct virtio_gpu *g)
{
	int64_t x0 = (int64_t)g->cursor_x - g->hot_x, y0 = (int64_t)g->cursor_y - g->hot_y;

	for (int64_t j = 0; j < GPU_CURSOR_SIZE; j++) {
		for (int64_t i = 0; i < GPU_CURSOR_SIZE; i++) {
			int64_t x = x0 + i, y = y0 + j;

			if (x < g->dirty_x0 || x >= g->dirty_x1 || y < g->dirty_y0 || y >= g->dirty_y1)
				continue;
			uint32_t *p = g->screen + (size_t)y * g->screen_w + x;
			*p = blend(*p, g->cursor[j * GPU_CURSOR_SIZE + i]);
		}
	}
}

void gpu_refresh(void *opaque, bool all)
{
	struct virtio_gpu *g = opaque;
	int r = gpu_find(g, g->scanout_id);

	if (all)
		add_dirty(g, 0, 0, g->screen_w, g->screen_h);
	if (g->dirty_x0 >= g->dirty_x1)
		return;
	uint32_t w = g->dirty_x1 - g->dirty_x0, h = g->dirty_y1 - g->dirty_y0;
	for (uint32_t y = g->dirty_y0; y < g->dirty_y1; y++) {
		uint32_t *to = g->screen + (size_t)y * g->screen_w + g->dirty_x0;

		if (r < 0) {
			memset(to, 0, w * sizeof(*to));
			continue;
		}
		const uint32_t *from =
		    g->pixels[r] + (size_t)(g->scanout.y + y) * g->width[r] + g->scanout.x + g->dirty_x0;
		for (uint32_t x = 0; x < w; x++)
			to[x] = from[x] & 0xffffff;
	}
	if (g->cursor_id && r >= 0)
		draw_cursor(g);
	display_updated(g->display, g->dirty_x0, g->dirty_y0, w, h);
	g->dirty_x0 = g->dirty_x1 = 0;
}

/* ---- EDID (VESA E-EDID standard, release A2) ---- */

static void timing(uint8_t *p)
{
	const unsigned hblank = 160, hfront = 48, hsync = 32, vblank = 23, vfront = 3, vsync = 6; /* CVT-RB */
	unsigned clock = (GPU_WIDTH + hblank) * (GPU_HEIGHT + vblank) * 60 / 10000;
	unsigned mm_w = GPU_WIDTH * 254 / 960, mm_h = GPU_HEIGHT * 254 / 960; /* at 96 dots an inch */

	p[0] = (uint8_t)clock;
	p[1] = (uint8_t)(clock >> 8);
	p[2] = (uint8_t)GPU_WIDTH;
	p[3] = (uint8_t)hblank;
	p[4] = (uint8_t)(GPU_WIDTH >> 8 << 4 | hblank >> 8);
	p[5] = (uint8_t)GPU_HEIGHT;
	p[6] = (uint8_t)vblank;
	p[7] = (uint8_t)(GPU_HEIGHT >> 8 << 4 | vblank >> 8);
	p[8] = (uint8_t)hfront;
	p[9] = (uint8_t)hsync;
	p[10] = (uint8_t)(vfront << 4 | vsync);
	p[12] = (uint8_t)mm_w;
	p[13] = (uint8_t)mm_h;
	p[14] = (uint8_t)(mm_w >> 8 << 4 | mm_h >> 8);
	p[17] = 0x1a; /* digital, separate syncs: horizontal positive, vertical negative */
}

void gpu_edid(uint8_t edid[GPU_EDID_SIZE])
{
	static const uint8_t head[] = {
		0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, /* "SIL", product 1, serial 1, made in 2026 */
		0x4d, 0x2c, 0x01, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 36,   1, 4, /* version 1.4 */
		0xa0, 34,   21,   120,  0x06, /* digital, 8 bits; cm; gamma 2.2; sRGB, first timing is
						 preferred */
		0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54, /* sRGB's primaries */
		0x21, 0x08, 0x00, /* 640x480, 800x600, 1024x768 at 60 Hz */
	};
	static const uint8_t range[] = { 0,  0, 0,    0xfd, 0,    50,   75,   30,   100,
					 30, 0, 0x0a, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20 };
	static const uint8_t name[] = { 0,    0,    0,    0xfc, 0,    'S',  'i',  'l',  'l',
					0x0a, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20 };
	uint8_t sum = 0;

	memset(edid, 0, GPU_EDID_SIZE);
	memcpy(edid, head, sizeof(head));
	memset(edid + 38, 1, 16); /* no standard timings */
	timing(edid + 54);
	memcpy(edid + 72, range, sizeof(range));
	memcpy(edid + 90, name, sizeof(name));
	edid[108 + 3] = 0x10; /* nothing in the fourth descriptor */
	for (unsigned i = 0; i < GPU_EDID_SIZE - 1; i++)
		sum = (uint8_t)(sum + edid[i]);
	edid[GPU_EDID_SIZE - 1] = (uint8_t)-sum;
}
