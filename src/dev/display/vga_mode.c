/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text mode that a BIOS leaves behind, mode 3 (IBM VGA technical reference, "BIOS video modes"): for
 * kernels that are loaded without firmware and write to b8000 at once, as Multiboot's specification lets
 * them.
 *
 * The characters' shapes are the VGA BIOS's, if there is one: its font of 16 lines is known by the first two
 * characters, nothing and a face.
 */
#include <string.h>

#include "dev/display/vga_internal.h"

#define FONT_LINES 16

static const uint8_t sequencer[] = { 0x03, 0x00, 0x03, 0x00, 0x02 };
static const uint8_t crtc[] = { 0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00,
				0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff };
static const uint8_t graphics[] = { 0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0e, 0x00, 0xff };
static const uint8_t attributes[] = { 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a,
				      0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c, 0x00, 0x0f, 0x08, 0x00 };

void vga_begin_with_text(struct vga *v, const uint8_t *bios, size_t size)
{
	static const uint8_t first[2 * FONT_LINES] = {
		[FONT_LINES + 2] = 0x7e, 0x81, 0xa5, 0x81, 0x81, 0xbd, 0x99, 0x81, 0x81, 0x7e
	};

	v->begin_with_text = true;
	for (size_t at = 0; at + sizeof(v->font) <= size; at++) {
		if (memcmp(bios + at, first, sizeof(first)) != 0)
			continue;
		memcpy(v->font, bios + at, sizeof(v->font));
		break;
	}
}

void vga_text_mode(struct vga *v)
{
	v->misc = 0x67;
	memcpy(v->sr, sequencer, sizeof(sequencer));
	memcpy(v->cr, crtc, sizeof(crtc));
	memcpy(v->gr, graphics, sizeof(graphics));
	memcpy(v->ar, attributes, sizeof(attributes));
	v->ar_index = 0x20; /* the screen is on */
	/* 64 colours: a strong and a weak bit each for red, green, blue. */
	for (unsigned i = 0; i < 64; i++)
		for (unsigned k = 0; k < 3; k++)
			v->dac[3 * i + k] = (uint8_t)((i >> (2 - k) & 1) * 0x2a + (i >> (5 - k) & 1) * 0x15);
	for (unsigned i = 0; i < 0x4000; i++) {
		v->vram[4 * i] = ' ';
		v->vram[4 * i + 1] = 0x07;
	}
	for (unsigned i = 0; i < sizeof(v->font); i++)
		v->vram[4 * (i / FONT_LINES * 32 + i % FONT_LINES) + 2] = v->font[i];
}
