/* SPDX-License-Identifier: Apache-2.0 */
/* The VGA's registers and memory, shared by what the guest does to it (vga.c) and the picture (vga_draw.c).
 */
#ifndef SILL_DEV_DISPLAY_VGA_INTERNAL_H
#define SILL_DEV_DISPLAY_VGA_INTERNAL_H

#include "dev/display/vga.h"
#include "dev/pci/pci.h"

#define VGA_VRAM_SIZE (16u << 20)

/* Bochs VBE extensions: register indices and bits of ENABLE */
enum {
	VBE_ID,
	VBE_XRES,
	VBE_YRES,
	VBE_BPP,
	VBE_ENABLE,
	VBE_BANK,
	VBE_VIRT_WIDTH,
	VBE_VIRT_HEIGHT,
	VBE_X_OFFSET,
	VBE_Y_OFFSET,
	VBE_MEMORY_64K,
	VBE_REGS
};
#define VBE_ENABLED  0x01
#define VBE_GETCAPS  0x02
#define VBE_8BIT_DAC 0x20
#define VBE_LFB      0x40
#define VBE_NOCLEAR  0x80

struct vga {
	struct pci_device pci;
	struct board *board;
	struct display *display;
	struct mem_block *vram_block, *rom_block;
	uint8_t *vram; /* planes interleaved: byte 4n + p is byte n of plane p */
	struct io_region lfb, window, ports, vbe_ports, regs, rom;

	uint8_t misc, feature;
	uint8_t sr_index, gr_index, cr_index, ar_index;
	bool ar_flip; /* the next write to 3c0 is data */
	uint8_t sr[8], gr[16], cr[0x20], ar[0x20];
	uint8_t latch[4];
	uint8_t dac[768], dac_mask, dac_read, dac_write, dac_sub, dac_state, dac_cache[3];
	uint16_t vbe_index, vbe[VBE_REGS];

	/* What vga_begin_with_text set up. */
	bool begin_with_text;
	uint8_t font[256 * 16];

	/* The picture as last shown. */
	uint32_t *pixels;
	unsigned width, height;
};

/* What the display shows now. */
unsigned vga_vbe_bytes_per_line(const struct vga *v);
void vga_refresh(void *opaque, bool all);
char *vga_text(void *opaque);
/* Registers and memory as a BIOS leaves them in mode 3. */
void vga_text_mode(struct vga *v);

#endif
