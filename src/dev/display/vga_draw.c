/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VGA's picture.
 *
 * Each refresh draws line after line into a buffer and compares it with what was
 * last shown: what differs is copied and reported.  That needs no record of what
 * the guest wrote (nor traps on its writes), cannot miss anything, and costs
 * a millisecond for a big picture.
 *
 * Modes of the VGA itself are drawn as its hardware scans them: a memory address
 * counter goes along the line, a row counter says which line of a character row
 * it is, and the CRTC's mode control register may put row counter bits into the
 * address (CGA's interleaved banks, Hercules').
 */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "dev/display/vga_internal.h"

#define MAX_LINE (DISPLAY_MAX_WIDTH + 64)

/* What one refresh goes by. */
struct scan {
	struct vga *v;
	unsigned width, height;
	uint32_t palette[256]; /* by DAC index */
	uint32_t colour[16];   /* by attribute */
	uint32_t line[MAX_LINE];
	/* VGA modes */
	uint32_t base;   /* address counter at the line's start, in cells of four planes */
	unsigned row;    /* row counter within a character row */
	unsigned repeat; /* double scan: the line is drawn once more */
	bool split;      /* below the line compare */
	bool blink_on;   /* blinking characters are shown, the cursor too */
};

/* ---- colours ---- */

static void make_palette(struct scan *s)
{
	const struct vga *v = s->v;
	bool eight = v->vbe[VBE_ENABLE] & VBE_8BIT_DAC;

	for (unsigned i = 0; i < 256; i++) {
		const uint8_t *c = &v->dac[3 * i];
		uint32_t rgb = 0;

		for (unsigned k = 0; k < 3; k++)
			rgb = rgb << 8 | (eight ? c[k] : (uint32_t)(c[k] << 2 | c[k] >> 4));
		s->palette[i] = rgb;
	}
	for (unsigned i = 0; i < 16; i++) {
		unsigned index = v->ar[i];

		if (v->ar[0x10] & 0x80)
			index = (index & 0x0f) | (v->ar[0x14] & 3u) << 4;
		index |= (v->ar[0x14] & 0x0cu) << 4;
		s->colour[i] = s->palette[index & v->dac_mask];
	}
}

/* ---- VBE modes ---- */

static void draw_vbe_line(struct scan *s, unsigned y)
{
	const struct vga *v = s->v;
	unsigned bpp = v->vbe[VBE_BPP], line = vga_vbe_bytes_per_line(v);
	uint64_t x0 = v->vbe[VBE_X_OFFSET], y0 = (uint64_t)y + v->vbe[VBE_Y_OFFSET];
	uint64_t bytes = bpp == 4 ? 0 : (bpp + 7) / 8, at = y0 * line + x0 * bytes;

	if (bpp == 4) {
		at = y0 * line * 4 + x0 / 8 * 4;
		for (unsigned x = 0; x < s->width; x++) {
			uint64_t cell = at + x / 8 * 4;
			unsigned c = 0;

			for (unsigned p = 0; p < 4 && cell + 3 < VGA_VRAM_SIZE; p++)
				c |= (v->vram[cell + p] >> (7 - x % 8) & 1u) << p;
			s->line[x] = s->colour[c];
		}
		return;
	}
	if (at + s->width * bytes > VGA_VRAM_SIZE) {
		memset(s->line, 0, s->width * sizeof(*s->line));
		return;
	}
	const uint8_t *p = v->vram + at;
	if (bpp == 32) {
		/* What big consoles and desktops use: two pixels at a time; the width is a multiple of 8. */
		for (unsigned x = 0; x < s->width; x += 2, p += 8) {
			uint64_t two;

			memcpy(&two, p, sizeof(two));
			two &= 0x00ffffff00ffffff;
			memcpy(&s->line[x], &two, sizeof(two));
		}
		return;
	}
	for (unsigned x = 0; x < s->width; x++, p += bytes) {
		unsigned w;

		switch (bpp) {
		case 8:
			s->line[x] = s->palette[*p & v->dac_mask];
			break;
		case 15:
			w = p[0] | (unsigned)p[1] << 8;
			s->line[x] = (w & 0x7c00) << 9 | (w & 0x03e0) << 6 | (w & 0x1f) << 3;
			s->line[x] |= s->line[x] >> 5 & 0x070707;
			break;
		case 16:
			w = p[0] | (unsigned)p[1] << 8;
			s->line[x] = (w & 0xf800) << 8 | (w & 0x07e0) << 5 | (w & 0x1f) << 3;
			s->line[x] |= (s->line[x] >> 5 & 0x070007) | (s->line[x] >> 6 & 0x000300);
			break;
		default:
			s->line[x] = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16;
			break;
		}
	}
}

/* ---- VGA modes ---- */

static const uint8_t *cell_at(const struct vga *v, uint32_t cell)
{
	return v->vram + (size_t)(cell % (VGA_VRAM_SIZE / 16)) * 4; /* 256 KiB in each plane at most */
}

/* The address of the counter's value, as mode control (17h) and the row counter have it. */
static uint32_t address(const struct scan *s, uint32_t counter)
{
	const struct vga *v = s->v;
	uint8_t mode = v->cr[0x17];
	uint32_t a = counter;

	/* Byte, word and doubleword modes only rotate what the guest's own addressing has rotated already;
	 * the interleaved planes hold both alike. What remains are the bits from the row counter. */
	unsigned shift = mode & 0x40 ? 13 : 12;
	if (!(mode & 1))
		a = (a & ~(1u << shift)) | (s->row & 1) << shift;
	if (!(mode & 2))
		a = (a & ~(2u << shift)) | (s->row >> 1 & 1) << (shift + 1);
	return a;
}

static unsigned char_height(const struct vga *v)
{
	return (v->cr[9] & 0x1fu) + 1;
}

static unsigned char_width(const struct vga *v)
{
	return v->sr[1] & 1 ? 8 : 9;
}

/* How many of the picture's pixels a dot has: two where the sequencer halves the dot clock. In 256 colours
 * the dots are counted before they become pixels. */
static unsigned dot_width(const struct vga *v)
{
	return (v->sr[1] & 8) && !(v->gr[5] & 0x40) ? 2 : 1;
}

/* Where a font begins in plane 2 (sequencer register 3). */
static uint32_t font_cell(unsigned select)
{
	return (select & 3) * 0x4000 + (select >> 2 & 1) * 0x2000;
}

static void draw_text_line(struct scan *s)
{
	const struct vga *v = s->v;
	unsigned columns = v->cr[1] + 1u, w = char_width(v), n = 0;
	uint8_t sr3 = v->sr[3];
	uint32_t font_b = font_cell((sr3 & 3) | (sr3 >> 2 & 4)),
		 font_a = font_cell((sr3 >> 2 & 3) | (sr3 >> 3 & 4));
	uint32_t cursor = (uint32_t)v->cr[0x0e] << 8 | v->cr[0x0f];
	bool blink = v->ar[0x10] & 8, mono = v->ar[0x10] & 2;
	bool cursor_row = !(v->cr[0x0a] & 0x20) && s->blink_on && s->row >= (v->cr[0x0a] & 0x1fu) &&
			  s->row <= (v->cr[0x0b] & 0x1fu);

	for (unsigned i = 0; i <= columns && n + 9 < MAX_LINE; i++) {
		const uint8_t *cell = cell_at(v, s->base + i);
		uint8_t ch = cell[0], attr = cell[1];
		uint8_t bits = cell_at(v, (attr & 8 ? font_a : font_b) + ch * 32u + s->row)[2];
		unsigned fg = attr & 15, bg = attr >> 4;

		if (blink) {
			if ((attr & 0x80) && !s->blink_on)
				bits = 0;
			bg &= 7;
		}
		if (mono && (attr & 7) == 1 && s->row == (v->cr[0x14] & 0x1fu))
			bits = 0xff;
		if (cursor_row && s->base + i == cursor)
			bits = 0xff;
		for (unsigned k = 0; k < 8; k++)
			s->line[n++] = s->colour[bits >> (7 - k) & 1 ? fg : bg];
		if (w == 9) {
			bool line_graphics = (v->ar[0x10] & 4) && ch >= 0xc0 && ch <= 0xdf;
			bool whole = cursor_row && s->base + i == cursor;

			s->line[n++] = s->colour[((line_graphics || whole) && (bits & 1)) ? fg : bg];
		}
	}
	if (dot_width(v) == 2) { /* 40 columns */
		if (n > MAX_LINE / 2)
			n = MAX_LINE / 2;
		while (n-- > 0)
			s->line[2 * n] = s->line[2 * n + 1] = s->line[n];
	}
}

static void draw_planar_line(struct scan *s)
{
	const struct vga *v = s->v;
	unsigned n = 0, dots = dot_width(v), enable = v->ar[0x12] & 15u;

	for (unsigned i = 0; n < s->width + 16 && n + 16 < MAX_LINE; i++) {
		const uint8_t *c = cell_at(v, address(s, s->base + i));

		for (unsigned k = 8; k-- > 0;) {
			unsigned a = (c[0] >> k & 1u) | (c[1] >> k & 1u) << 1 | (c[2] >> k & 1u) << 2 |
				     (c[3] >> k & 1u) << 3;
			for (unsigned d = 0; d < dots; d++)
				s->line[n++] = s->colour[a & enable];
		}
	}
}

/* Four colours in CGA's way: bytes from planes 0 and 1 in turn, two bits a pixel. */
static void draw_cga_line(struct scan *s)
{
	const struct vga *v = s->v;
	unsigned n = 0, dots = dot_width(v), enable = v->ar[0x12] & 15u;

	for (unsigned i = 0; n < s->width + 16 && n + 32 < MAX_LINE; i++) {
		const uint8_t *c = cell_at(v, address(s, s->base + i));

		for (unsigned half = 0; half < 2; half++)
			for (unsigned k = 4; k-- > 0;) {
				unsigned a = (c[half] >> (2 * k) & 3u) | (c[half + 2] >> (2 * k) & 3u) << 2;
				for (unsigned d = 0; d < dots; d++)
					s->line[n++] = s->colour[a & enable];
			}
	}
}

static void draw_256_line(struct scan *s)
{
	const struct vga *v = s->v;
	unsigned n = 0;

	for (unsigned i = 0; n < s->width + 16 && n + 8 < MAX_LINE; i++) {
		const uint8_t *c = cell_at(v, address(s, s->base + i));

		for (unsigned p = 0; p < 4; p++) {
			s->line[n++] = s->palette[c[p] & v->dac_mask];
			s->line[n++] = s->palette[c[p] & v->dac_mask];
		}
	}
}

static bool is_text(const struct vga *v)
{
	return !(v->gr[6] & 1);
}

static bool is_blank(const struct vga *v)
{
	return !(v->ar_index & 0x20) || (v->sr[1] & 0x20);
}

static uint32_t start_address(const struct vga *v)
{
	uint32_t a = (uint32_t)v->cr[0x0c] << 8 | v->cr[0x0d];

	return a + (is_text(v) ? 0 : v->cr[8] >> 5 & 3u);
}

/* The counter's step from row to row: register 13h counts units of the addressing mode; a cell is four bytes
 * of the array. */
static uint32_t row_step(const struct vga *v)
{
	return (uint32_t)v->cr[0x13] * 2;
}

static void draw_vga_line(struct scan *s)
{
	const struct vga *v = s->v;
	unsigned pan = v->ar[0x13] & 15u;

	if (is_text(v)) {
		draw_text_line(s);
		pan = char_width(v) == 9 ? (pan + 1) % 9 : pan & 7;
	} else if (v->gr[5] & 0x40) {
		draw_256_line(s);
	} else if (v->gr[5] & 0x20) {
		draw_cga_line(s);
		pan &= 7;
	} else {
		draw_planar_line(s);
		pan &= 7;
	}
	pan *= dot_width(v);
	/* A split screen's lower part may stand still (attribute register 10h, pixel panning compatibility).
	 */
	if (pan && !(s->split && (v->ar[0x10] & 0x20)))
		memmove(s->line, s->line + pan, s->width * sizeof(*s->line));
}

static void next_vga_line(struct scan *s, unsigned y)
{
	const struct vga *v = s->v;
	unsigned compare = v->cr[0x18] | (v->cr[7] & 0x10u) << 4 | (v->cr[9] & 0x40u) << 3;

	if (y == compare) { /* split screen: the rest begins at 0 */
		s->base = 0;
		s->row = s->repeat = 0;
		s->split = true;
		return;
	}
	if ((v->cr[9] & 0x80) && !s->repeat) {
		s->repeat = 1;
		return;
	}
	s->repeat = 0;
	if (++s->row < char_height(v))
		return;
	s->row = 0;
	s->base += row_step(v);
}

/* ---- as text ---- */

/* IBM's code page 437, which text modes begin with: the upper half as Unicode. */
static const uint16_t cp437[128] = {
	0x00c7, 0x00fc, 0x00e9, 0x00e2, 0x00e4, 0x00e0, 0x00e5, 0x00e7, 0x00ea, 0x00eb, 0x00e8, 0x00ef,
	0x00ee, 0x00ec, 0x00c4, 0x00c5, 0x00c9, 0x00e6, 0x00c6, 0x00f4, 0x00f6, 0x00f2, 0x00fb, 0x00f9,
	0x00ff, 0x00d6, 0x00dc, 0x00a2, 0x00a3, 0x00a5, 0x20a7, 0x0192, 0x00e1, 0x00ed, 0x00f3, 0x00fa,
	0x00f1, 0x00d1, 0x00aa, 0x00ba, 0x00bf, 0x2310, 0x00ac, 0x00bd, 0x00bc, 0x00a1, 0x00ab, 0x00bb,
	0x2591, 0x2592, 0x2593, 0x2502, 0x2524, 0x2561, 0x2562, 0x2556, 0x2555, 0x2563, 0x2551, 0x2557,
	0x255d, 0x255c, 0x255b, 0x2510, 0x2514, 0x2534, 0x252c, 0x251c, 0x2500, 0x253c, 0x255e, 0x255f,
	0x255a, 0x2554, 0x2569, 0x2566, 0x2560, 0x2550, 0x256c, 0x2567, 0x2568, 0x2564, 0x2565, 0x2559,
	0x2558, 0x2552, 0x2553, 0x256b, 0x256a, 0x2518, 0x250c, 0x2588, 0x2584, 0x258c, 0x2590, 0x2580,
	0x03b1, 0x00df, 0x0393, 0x03c0, 0x03a3, 0x03c3, 0x00b5, 0x03c4, 0x03a6, 0x0398, 0x03a9, 0x03b4,
	0x221e, 0x03c6, 0x03b5, 0x2229, 0x2261, 0x00b1, 0x2265, 0x2264, 0x2320, 0x2321, 0x00f7, 0x2248,
	0x00b0, 0x2219, 0x00b7, 0x221a, 0x207f, 0x00b2, 0x25a0, 0x00a0,
};

static char *put_utf8(char *p, unsigned c)
{
	if (c < 0x80) {
		*p++ = (char)c;
	} else if (c < 0x800) {
		*p++ = (char)(0xc0 | c >> 6);
		*p++ = (char)(0x80 | (c & 63));
	} else {
		*p++ = (char)(0xe0 | c >> 12);
		*p++ = (char)(0x80 | (c >> 6 & 63));
		*p++ = (char)(0x80 | (c & 63));
	}
	return p;
}

char *vga_text(void *opaque)
{
	const struct vga *v = opaque;
	unsigned columns = v->cr[1] + 1u,
		 lines = (v->cr[0x12] | (v->cr[7] & 2u) << 7 | (v->cr[7] & 0x40u) << 3) + 1;
	unsigned rows = lines / char_height(v);
	uint32_t base = start_address(v);

	if ((v->vbe[VBE_ENABLE] & VBE_ENABLED) || !is_text(v) || is_blank(v))
		return NULL;
	char *text = malloc((size_t)rows * (columns * 3 + 1) + 1), *p = text;
	for (unsigned y = 0; text && y < rows; y++) {
		char *end = p; /* behind the last that is no blank */
		for (unsigned x = 0; x < columns; x++) {
			uint8_t ch = cell_at(v, base + x)[0];

			p = put_utf8(p, ch >= 0x80 ? cp437[ch - 0x80] : ch < 0x20 || ch == 0x7f ? ' ' : ch);
			if (ch > 0x20 && ch != 0xff)
				end = p;
		}
		p = end;
		*p++ = '\n';
		base += row_step(v);
	}
	if (text)
		*p = 0;
	return text;
}

/* ---- the whole picture ---- */

static void geometry(struct scan *s)
{
	const struct vga *v = s->v;

	if (v->vbe[VBE_ENABLE] & VBE_ENABLED) {
		s->width = v->vbe[VBE_XRES];
		s->height = v->vbe[VBE_YRES];
		return;
	}
	s->width = (v->cr[1] + 1u) * (is_text(v) ? char_width(v) : 8) * dot_width(v);
	s->height = (v->cr[0x12] | (v->cr[7] & 2u) << 7 | (v->cr[7] & 0x40u) << 3) + 1;
	if (is_blank(v) || s->width < 64 || s->height < 64) { /* not set up yet */
		s->width = v->width;
		s->height = v->height;
	}
}

/* A picture of the new size; false: no memory, the old one stays. */
static bool resize(struct scan *s)
{
	struct vga *v = s->v;
	uint32_t *pixels = calloc((size_t)s->width * s->height, sizeof(*pixels));

	if (!pixels)
		return false;
	free(v->pixels);
	v->pixels = pixels;
	v->width = s->width;
	v->height = s->height;
	v->display->width = s->width;
	v->display->height = s->height;
	v->display->pixels = pixels;
	display_resized(v->display);
	return true;
}

/* The lines that changed, gathered until some that did not come between. */
struct dirty {
	unsigned first_y, end_y, first_x, end_x;
};

static void report(struct vga *v, struct dirty *d)
{
	if (d->end_y > d->first_y)
		display_updated(v->display, d->first_x, d->first_y, d->end_x - d->first_x,
				d->end_y - d->first_y);
	*d = (struct dirty){ 0 };
}

static void show_line(struct scan *s, unsigned y, bool all, struct dirty *d)
{
	struct vga *v = s->v;
	uint32_t *old = v->pixels + (size_t)y * s->width;
	unsigned a = 0, b = s->width;

	if (!all) {
		if (!memcmp(old, s->line, s->width * sizeof(*old))) {
			if (d->end_y && y >= d->end_y + 8)
				report(v, d);
			return;
		}
		while (old[a] == s->line[a])
			a++;
		while (old[b - 1] == s->line[b - 1])
			b--;
	}
	memcpy(old + a, s->line + a, (b - a) * sizeof(*old));
	if (!d->end_y)
		*d = (struct dirty){ y, y, a, b };
	d->end_y = y + 1;
	d->first_x = a < d->first_x ? a : d->first_x;
	d->end_x = b > d->end_x ? b : d->end_x;
}

void vga_refresh(void *opaque, bool all)
{
	struct vga *v = opaque;
	struct scan s;
	struct dirty d = { 0 };
	bool vbe = v->vbe[VBE_ENABLE] & VBE_ENABLED;

	s.v = v;
	geometry(&s);
	if (s.width != v->width || s.height != v->height) {
		if (!resize(&s))
			return;
		all = true;
	}
	make_palette(&s);
	s.base = start_address(v);
	s.row = is_text(v) ? v->cr[8] & 0x1fu : 0;
	s.repeat = 0;
	s.split = false;
	s.blink_on = clock_now_ns(v->board->clock) / 266666667 % 2 == 0;
	for (unsigned y = 0; y < s.height; y++) {
		if (vbe)
			draw_vbe_line(&s, y);
		else if (is_blank(v))
			memset(s.line, 0, s.width * sizeof(*s.line));
		else
			draw_vga_line(&s);
		show_line(&s, y, all, &d);
		next_vga_line(&s, y);
	}
	report(v, &d);
}
