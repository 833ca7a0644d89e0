/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VGA (IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem") with
 * the display interface of Bochs (VBE "dispi").
 *
 * Where things are on PCI: BAR 0 the video memory, BAR 2 registers: at 400 the
 * ports 3c0..3df, at 500 the dispi registers as words, at 604 the byte order;
 * the ROM BAR has the BIOS.  The legacy ports and the window at a0000 answer as
 * long as the function decodes I/O and memory.
 *
 * Video memory is one array in which the four planes are interleaved byte by
 * byte.  Then "chain 4" modes and linear ones are plain memory, a latch is four
 * neighbours, and the odd/even addressing of text is a shift.  While the window
 * shows plain memory, it is mapped as such and costs nothing; else each access
 * comes here.
 */
#include "dev/display/vga_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define REGS_SIZE    0x1000u
#define WINDOW       0xa0000u
#define WINDOW_SIZE  0x20000u
#define PORTS        0x3b0u
#define PORTS_SIZE   0x30u
#define VBE_PORTS    0x1ceu
#define VBE_ID_VALUE 0xb0c5

#define MISC_COLOUR 0x01 /* CRTC at 3d4, not 3b4 */
#define SR4_CHAIN4  0x08
#define GR5_ODDEVEN 0x10

/* ---- the window at a0000 ---- */

static bool vbe_on(const struct vga *v)
{
	return v->vbe[VBE_ENABLE] & VBE_ENABLED;
}

/* Where byte `at` of the window lies in its 64 KiB or 32 KiB; false: not shown (graphics register 6). */
static bool window_offset(const struct vga *v, uint64_t *at)
{
	switch (v->gr[6] >> 2 & 3) {
	case 0:
		return true;
	case 1:
		if (*at >= 0x10000)
			return false;
		*at += (uint64_t)v->vbe[VBE_BANK] << 16;
		return true;
	case 2:
		*at -= 0x10000;
		return *at < 0x8000;
	default:
		*at -= 0x18000;
		return *at < 0x8000;
	}
}

static uint8_t window_read_byte(struct vga *v, uint64_t at)
{
	if (!window_offset(v, &at))
		return 0xff;
	if (v->sr[4] & SR4_CHAIN4)
		return at < VGA_VRAM_SIZE ? v->vram[at] : 0xff;
	if (v->gr[5] & GR5_ODDEVEN) {
		unsigned plane = (v->gr[4] & 2) | (at & 1);

		at = (at & ~1ull) << 1 | plane;
		return at < VGA_VRAM_SIZE ? v->vram[at] : 0xff;
	}
	if (at >= VGA_VRAM_SIZE / 4)
		return 0xff;
	memcpy(v->latch, v->vram + 4 * at, 4);
	if (!(v->gr[5] & 8))
		return v->latch[v->gr[4] & 3];
	/* Read mode 1: which pixels have the colour that is asked for? */
	uint8_t differ = 0;
	for (unsigned p = 0; p < 4; p++)
		if (v->gr[7] >> p & 1)
			differ |= v->latch[p] ^ (v->gr[2] >> p & 1 ? 0xff : 0);
	return (uint8_t)~differ;
}

/* The graphics controller's data path for one plane (write modes 0 to 3). */
static uint8_t plane_data(const struct vga *v, unsigned p, uint8_t data)
{
	unsigned rotate = v->gr[3] & 7, mode = v->gr[5] & 3;
	uint8_t mask = v->gr[8], set = v->gr[0] >> p & 1 ? 0xff : 0, x;
	uint8_t rotated = (uint8_t)(data >> rotate | data << (8 - rotate));

	switch (mode) {
	case 0:
		x = v->gr[1] >> p & 1 ? set : rotated;
		break;
	case 1:
		return v->latch[p];
	case 2:
		x = data >> p & 1 ? 0xff : 0;
		break;
	default:
		mask &= rotated;
		x = set;
		break;
	}
	switch (v->gr[3] >> 3 & 3) {
	case 1:
		x &= v->latch[p];
		break;
	case 2:
		x |= v->latch[p];
		break;
	case 3:
		x ^= v->latch[p];
		break;
	}
	return (uint8_t)((x & mask) | (v->latch[p] & ~mask));
}

static void window_write_byte(struct vga *v, uint64_t at, uint8_t data)
{
	if (!window_offset(v, &at))
		return;
	if (v->sr[4] & SR4_CHAIN4) {
		if (at < VGA_VRAM_SIZE && (v->sr[2] >> (at & 3) & 1))
			v->vram[at] = data;
	} else if (v->gr[5] & GR5_ODDEVEN) {
		unsigned plane = at & 1;

		if (!(v->sr[2] >> plane & 1))
			return;
		at = (at & ~1ull) << 1 | plane;
		if (at < VGA_VRAM_SIZE)
			v->vram[at] = data;
	} else if (at < VGA_VRAM_SIZE / 4) {
		for (unsigned p = 0; p < 4; p++)
			if (v->sr[2] >> p & 1)
				v->vram[4 * at + p] = plane_data(v, p, data);
	}
}

static uint64_t window_read(void *opaque, uint64_t offset, unsigned size)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)window_read_byte(opaque, offset + i) << (8 * i);
	return value;
}

static void window_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		window_write_byte(opaque, offset + i, (uint8_t)(value >> (8 * i)));
}

/* Maps the window as what it is now: nothing, plain memory, or something that has to come here. */
static void update_window(struct vga *v)
{
	struct io_region *r = &v->window;
	bool decoded = pci_config_get(&v->pci, PCI_COMMAND, 2) & PCI_COMMAND_MEM;
	uint64_t bank = (uint64_t)v->vbe[VBE_BANK] << 16, base = WINDOW, size = WINDOW_SIZE;
	struct mem_block *block = NULL;

	if ((v->sr[4] & SR4_CHAIN4) && (v->sr[2] & 15) == 15 && (v->gr[6] >> 2 & 3) == 1 &&
	    bank + 0x10000 <= VGA_VRAM_SIZE) {
		block = v->vram_block;
		size = 0x10000;
	}
	if (r->mapped == decoded && r->block == block && (!block || r->block_offset == bank))
		return;
	mem_unmap_mmio(v->board->mem, r);
	r->block = block;
	r->block_offset = block ? bank : 0;
	r->base = base;
	r->size = size;
	if (decoded)
		mem_map_mmio(v->board->mem, r);
}

/* ---- dispi ---- */

unsigned vga_vbe_bytes_per_line(const struct vga *v)
{
	unsigned width = v->vbe[VBE_VIRT_WIDTH], bpp = v->vbe[VBE_BPP];

	return bpp == 4 ? width / 2 : width * ((bpp + 7) / 8);
}

static bool bpp_ok(unsigned bpp)
{
	return bpp == 4 || bpp == 8 || bpp == 15 || bpp == 16 || bpp == 24 || bpp == 32;
}

/* Makes what the guest asked for possible: a picture that fits the memory. */
static void vbe_fix(struct vga *v)
{
	uint16_t *r = v->vbe;

	if (!bpp_ok(r[VBE_BPP]))
		r[VBE_BPP] = 8;
	r[VBE_XRES] = (uint16_t)min_u64(max_u64(r[VBE_XRES], 8), DISPLAY_MAX_WIDTH);
	r[VBE_YRES] = (uint16_t)min_u64(max_u64(r[VBE_YRES], 1), DISPLAY_MAX_HEIGHT);
	r[VBE_XRES] &= (uint16_t)~7;
	if (r[VBE_VIRT_WIDTH] < r[VBE_XRES])
		r[VBE_VIRT_WIDTH] = r[VBE_XRES];
	unsigned line = vga_vbe_bytes_per_line(v) * (r[VBE_BPP] == 4 ? 4 : 1);
	if ((uint64_t)line * r[VBE_YRES] > VGA_VRAM_SIZE) {
		r[VBE_VIRT_WIDTH] = r[VBE_XRES];
		line = vga_vbe_bytes_per_line(v) * (r[VBE_BPP] == 4 ? 4 : 1);
		if ((uint64_t)line * r[VBE_YRES] > VGA_VRAM_SIZE)
			r[VBE_YRES] = (uint16_t)(VGA_VRAM_SIZE / line);
	}
	r[VBE_VIRT_HEIGHT] = (uint16_t)min_u64(VGA_VRAM_SIZE / line, 0xffff);
}

/* The VGA's own registers as drivers expect them in such a mode: one linear window. */
static void vbe_enter(struct vga *v)
{
	bool planar = v->vbe[VBE_BPP] == 4;

	v->gr[6] = (uint8_t)((v->gr[6] & ~0x0c) | 0x05);
	v->gr[5] &= (uint8_t)~GR5_ODDEVEN;
	v->sr[4] = (uint8_t)(planar ? v->sr[4] & ~SR4_CHAIN4 : v->sr[4] | SR4_CHAIN4);
	v->sr[2] |= 0x0f;
	v->cr[0x17] |= 3;
	if (!(v->vbe[VBE_ENABLE] & VBE_NOCLEAR))
		memset(v->vram, 0, (size_t)vga_vbe_bytes_per_line(v) * (planar ? 4 : 1) * v->vbe[VBE_YRES]);
}

static uint16_t vbe_read(const struct vga *v, unsigned i)
{
	if (i >= VBE_REGS)
		return 0;
	if (v->vbe[VBE_ENABLE] & VBE_GETCAPS) {
		switch (i) {
		case VBE_XRES:
			return DISPLAY_MAX_WIDTH;
		case VBE_YRES:
			return DISPLAY_MAX_HEIGHT;
		case VBE_BPP:
			return 32;
		}
	}
	return i == VBE_MEMORY_64K ? VGA_VRAM_SIZE >> 16 : v->vbe[i];
}

static void vbe_write(struct vga *v, unsigned i, uint16_t value)
{
	bool was_on = vbe_on(v);

	switch (i) {
	case VBE_ID:
		if (value >= 0xb0c0 && value <= VBE_ID_VALUE)
			v->vbe[i] = value;
		break;
	case VBE_XRES:
	case VBE_YRES:
	case VBE_BPP:
		v->vbe[i] = value;
		if (was_on)
			vbe_fix(v);
		break;
	case VBE_ENABLE:
		v->vbe[i] = value;
		if ((value & VBE_ENABLED) && !was_on) {
			v->vbe[VBE_VIRT_WIDTH] = v->vbe[VBE_X_OFFSET] = v->vbe[VBE_Y_OFFSET] = 0;
			vbe_fix(v);
			vbe_enter(v);
		} else if (!(value & VBE_ENABLED)) {
			v->vbe[VBE_BANK] = 0;
		}
		break;
	case VBE_BANK:
		v->vbe[i] = (uint16_t)(value % (VGA_VRAM_SIZE >> 16));
		break;
	case VBE_VIRT_WIDTH:
		v->vbe[i] = value;
		vbe_fix(v);
		break;
	case VBE_X_OFFSET:
	case VBE_Y_OFFSET:
		v->vbe[i] = value;
		break;
	}
	update_window(v);
}

static uint64_t vbe_port_read(void *opaque, uint64_t offset, unsigned size)
{
	struct vga *v = opaque;

	(void)size;
	return offset == 0 ? v->vbe_index : offset <= 2 ? vbe_read(v, v->vbe_index) : 0xffff;
}

static void vbe_port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct vga *v = opaque;

	(void)size;
	if (offset == 0)
		v->vbe_index = (uint16_t)value;
	else if (offset <= 2) /* 1cf, and aligned at 1d0 */
		vbe_write(v, v->vbe_index, (uint16_t)value);
}

/* ---- the ports ---- */

/* Retrace as a monitor at 60 Hz with 449 lines would have it. */
static uint8_t input_status(const struct vga *v)
{
	const int64_t frame = 16666667, line = frame / 449;
	int64_t t = clock_now_ns(v->board->clock), in_frame = t % frame;
	bool vertical = in_frame >= line * 412 && in_frame < line * 414;
	bool blank = in_frame >= line * 400 || in_frame % line >= line * 4 / 5;

	return (uint8_t)((vertical ? 0x08 : 0) | (blank ? 0x01 : 0));
}

static uint8_t dac_read_data(struct vga *v)
{
	uint8_t value = v->dac[v->dac_read * 3 + v->dac_sub];

	if (++v->dac_sub == 3) {
		v->dac_sub = 0;
		v->dac_read++;
	}
	return value;
}

static void dac_write_data(struct vga *v, uint8_t value)
{
	v->dac_cache[v->dac_sub] = v->vbe[VBE_ENABLE] & VBE_8BIT_DAC ? value : value & 0x3f;
	if (++v->dac_sub == 3) {
		memcpy(&v->dac[v->dac_write * 3], v->dac_cache, 3);
		v->dac_sub = 0;
		v->dac_write++;
	}
}

static uint8_t port_read(struct vga *v, unsigned port)
{
	switch (port) {
	case 0x3c0:
		return v->ar_flip ? 0 : v->ar_index;
	case 0x3c1:
		return v->ar[v->ar_index & 0x1f];
	case 0x3c2: /* a monitor answers the switch sense */
		return 0x10;
	case 0x3c4:
		return v->sr_index;
	case 0x3c5:
		return v->sr[v->sr_index & 7];
	case 0x3c6:
		return v->dac_mask;
	case 0x3c7:
		return v->dac_state;
	case 0x3c8:
		return v->dac_write;
	case 0x3c9:
		return dac_read_data(v);
	case 0x3ca:
		return v->feature;
	case 0x3cc:
		return v->misc;
	case 0x3ce:
		return v->gr_index;
	case 0x3cf:
		return v->gr[v->gr_index & 15];
	case 0x3b4:
	case 0x3d4:
		return v->cr_index;
	case 0x3b5:
	case 0x3d5:
		return v->cr_index < sizeof(v->cr) ? v->cr[v->cr_index] : 0;
	case 0x3ba:
	case 0x3da:
		v->ar_flip = false;
		return input_status(v);
	default:
		return 0xff;
	}
}

static void attribute_write(struct vga *v, uint8_t value)
{
	static const uint8_t masks[0x15] = { 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f,
					     0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0xef, 0xff, 0x3f, 0x0f, 0x0f };
	unsigned i = v->ar_index & 0x1f;

	if (!v->ar_flip)
		v->ar_index = value & 0x3f;
	else if (i < sizeof(masks))
		v->ar[i] = value & masks[i];
	v->ar_flip = !v->ar_flip;
}

static void crtc_write(struct vga *v, uint8_t value)
{
	unsigned i = v->cr_index;

	if (i >= sizeof(v->cr))
		return;
	/* Registers 0 to 7 are protected by bit 7 of register 11h, but for the line compare bit in 7. */
	if ((v->cr[0x11] & 0x80) && i <= 7) {
		if (i == 7)
			v->cr[7] = (uint8_t)((v->cr[7] & ~0x10) | (value & 0x10));
		return;
	}
	v->cr[i] = value;
}

static void port_write(struct vga *v, unsigned port, uint8_t value)
{
	static const uint8_t sr_masks[8] = { 0x03, 0x3d, 0x0f, 0x3f, 0x0e, 0, 0, 0xff };
	static const uint8_t gr_masks[16] = { 0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff };

	switch (port) {
	case 0x3c0:
		attribute_write(v, value);
		break;
	case 0x3c2:
		v->misc = value & (uint8_t)~0x10;
		break;
	case 0x3c4:
		v->sr_index = value & 7;
		break;
	case 0x3c5:
		v->sr[v->sr_index] = value & sr_masks[v->sr_index];
		update_window(v);
		break;
	case 0x3c6:
		v->dac_mask = value;
		break;
	case 0x3c7:
		v->dac_read = value;
		v->dac_sub = 0;
		v->dac_state = 3;
		break;
	case 0x3c8:
		v->dac_write = value;
		v->dac_sub = 0;
		v->dac_state = 0;
		break;
	case 0x3c9:
		dac_write_data(v, value);
		break;
	case 0x3ce:
		v->gr_index = value & 15;
		break;
	case 0x3cf:
		v->gr[v->gr_index] = value & gr_masks[v->gr_index];
		update_window(v);
		break;
	case 0x3b4:
	case 0x3d4:
		v->cr_index = value;
		break;
	case 0x3b5:
	case 0x3d5:
		crtc_write(v, value);
		break;
	case 0x3ba:
	case 0x3da:
		v->feature = value & 0x10;
		break;
	}
}

/* One of the two places of the CRTC does not answer. */
static bool answers(const struct vga *v, unsigned port)
{
	if (port >= 0x3b0 && port <= 0x3bf)
		return !(v->misc & MISC_COLOUR);
	if (port >= 0x3d0)
		return v->misc & MISC_COLOUR;
	return true;
}

static uint64_t ports_read(void *opaque, uint64_t offset, unsigned size)
{
	struct vga *v = opaque;
	uint64_t value = 0;

	for (unsigned i = 0; i < size; i++) {
		unsigned port = PORTS + (unsigned)offset + i;
		uint8_t byte = answers(v, port) ? port_read(v, port) : 0xff;

		value |= (uint64_t)byte << (8 * i);
	}
	return value;
}

static void ports_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct vga *v = opaque;

	for (unsigned i = 0; i < size; i++) {
		unsigned port = PORTS + (unsigned)offset + i;

		if (answers(v, port))
			port_write(v, port, (uint8_t)(value >> (8 * i)));
	}
}

/* ---- BAR 2 ---- */

static uint64_t regs_read(void *opaque, uint64_t offset, unsigned size)
{
	struct vga *v = opaque;
	uint64_t value = 0;

	if (offset >= 0x400 && offset < 0x420)
		for (unsigned i = 0; i < size; i++)
			value |= (uint64_t)port_read(v, 0x3c0 + (unsigned)offset - 0x400 + i) << (8 * i);
	else if (offset >= 0x500 && offset < 0x500 + 2 * VBE_REGS)
		value = vbe_read(v, (unsigned)(offset - 0x500) / 2) >> (8 * (offset & 1));
	else if (offset == 0x600)
		value = 8; /* bytes of this block */
	else if (offset == 0x604)
		value = 0x1e1e1e1e; /* little-endian */
	return value;
}

static void regs_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct vga *v = opaque;

	if (offset >= 0x400 && offset < 0x420)
		for (unsigned i = 0; i < size; i++)
			port_write(v, 0x3c0 + (unsigned)offset - 0x400 + i, (uint8_t)(value >> (8 * i)));
	else if (offset >= 0x500 && offset < 0x500 + 2 * VBE_REGS && size >= 2 && !(offset & 1))
		vbe_write(v, (unsigned)(offset - 0x500) / 2, (uint16_t)value);
}

/* ---- life ---- */

static void config_written(struct pci_device *d, unsigned offset, unsigned len)
{
	struct vga *v = (struct vga *)d;
	bool io = pci_config_get(d, PCI_COMMAND, 2) & PCI_COMMAND_IO;

	(void)offset;
	(void)len;
	if (v->ports.mapped != io) {
		if (io) {
			mem_map_pio(v->board->mem, &v->ports);
			mem_map_pio(v->board->mem, &v->vbe_ports);
		} else {
			mem_unmap_pio(v->board->mem, &v->ports);
			mem_unmap_pio(v->board->mem, &v->vbe_ports);
		}
	}
	update_window(v);
}

static void vga_reset(struct device *d)
{
	struct vga *v = (struct vga *)d;

	pci_device_reset(&v->pci);
	v->misc = v->feature = 0;
	v->sr_index = v->gr_index = v->cr_index = v->ar_index = 0;
	v->ar_flip = false;
	memset(v->sr, 0, sizeof(v->sr));
	memset(v->gr, 0, sizeof(v->gr));
	memset(v->cr, 0, sizeof(v->cr));
	memset(v->ar, 0, sizeof(v->ar));
	memset(v->latch, 0, sizeof(v->latch));
	memset(v->dac, 0, sizeof(v->dac));
	v->dac_mask = 0xff;
	v->dac_read = v->dac_write = v->dac_sub = v->dac_state = 0;
	v->vbe_index = 0;
	memset(v->vbe, 0, sizeof(v->vbe));
	v->vbe[VBE_ID] = VBE_ID_VALUE;
	mem_block_clear(v->vram_block);
	if (v->begin_with_text)
		vga_text_mode(v);
	config_written(&v->pci, PCI_COMMAND, 2);
}

static int vga_loaded(void *obj, struct error *err)
{
	struct vga *v = obj;

	if (v->dac_sub > 2 || v->sr_index > 7 || v->gr_index > 15 || v->vbe[VBE_BANK] >= VGA_VRAM_SIZE >> 16)
		return error_set(err, EINVAL, "the saved state of the VGA is impossible; it is damaged");
	if (vbe_on(v))
		vbe_fix(v);
	int r = pci_device_loaded(&v->pci, err);
	config_written(&v->pci, PCI_COMMAND, 2);
	return r;
}

static const struct state_field vga_fields[] = {
	PCI_DEVICE_FIELDS(struct vga, pci),
	F_U8(struct vga, misc),
	F_U8(struct vga, feature),
	F_U8(struct vga, sr_index),
	F_U8(struct vga, gr_index),
	F_U8(struct vga, cr_index),
	F_U8(struct vga, ar_index),
	F_BOOL(struct vga, ar_flip),
	F_BYTES(struct vga, sr),
	F_BYTES(struct vga, gr),
	F_BYTES(struct vga, cr),
	F_BYTES(struct vga, ar),
	F_BYTES(struct vga, latch),
	F_BYTES(struct vga, dac),
	F_U8(struct vga, dac_mask),
	F_U8(struct vga, dac_read),
	F_U8(struct vga, dac_write),
	F_U8(struct vga, dac_sub),
	F_U8(struct vga, dac_state),
	F_BYTES(struct vga, dac_cache),
	F_U16(struct vga, vbe_index),
	FIELD_ARRAY_(struct vga, vbe, FIELD_U16, VBE_REGS, 1),
	F_END,
};
static const struct state_table vga_state = { "vga", 1, vga_fields, vga_loaded };

static void vga_free(struct device *d)
{
	struct vga *v = (struct vga *)d;

	mem_unmap_pio(v->board->mem, &v->ports);
	mem_unmap_pio(v->board->mem, &v->vbe_ports);
	mem_unmap_mmio(v->board->mem, &v->window);
	pci_device_fini(&v->pci);
	v->display->refresh = NULL;
	v->display->text = NULL;
	v->display->pixels = NULL;
	free(v->pixels);
	free(v);
}

static const struct device_class vga_class = { "vga", vga_reset, &vga_state, vga_free };

static void init_regions(struct vga *v)
{
	v->lfb = (struct io_region){ .name = "vga-memory", .block = v->vram_block };
	v->regs = (struct io_region){
		.name = "vga-regs", .read = regs_read, .write = regs_write, .opaque = v, .max_size = 4
	};
	v->window = (struct io_region){ .name = "vga-window",
					.base = WINDOW,
					.size = WINDOW_SIZE,
					.read = window_read,
					.write = window_write,
					.opaque = v,
					.over_ram = true };
	v->ports = (struct io_region){ .name = "vga",
				       .base = PORTS,
				       .size = PORTS_SIZE,
				       .read = ports_read,
				       .write = ports_write,
				       .opaque = v,
				       .max_size = 2 };
	v->vbe_ports = (struct io_region){ .name = "vga-vbe",
					   .base = VBE_PORTS,
					   .size = 4,
					   .unaligned = true, /* words at 1ce and 1cf */
					   .read = vbe_port_read,
					   .write = vbe_port_write,
					   .opaque = v,
					   .max_size = 2 };
}

static int add_memory(struct vga *v, const uint8_t *rom, size_t rom_size, struct error *err)
{
	uint64_t size = 2048;
	int r = mem_block_new(v->board->mem, "vga", VGA_VRAM_SIZE, &v->vram_block, err);

	if (r)
		return r;
	v->vram = mem_block_ptr(v->vram_block);
	init_regions(v);
	pci_add_bar(&v->pci, 0, PCI_BAR_MEM32_PREFETCH, VGA_VRAM_SIZE, &v->lfb);
	pci_add_bar(&v->pci, 2, PCI_BAR_MEM32, REGS_SIZE, &v->regs);
	if (!rom)
		return 0;
	while (size < rom_size)
		size *= 2;
	size = max_u64(size, PAGE_SIZE);
	r = mem_block_new(v->board->mem, "vga-rom", size, &v->rom_block, err);
	if (r)
		return r;
	memcpy(mem_block_ptr(v->rom_block), rom, rom_size);
	v->rom = (struct io_region){ .name = "vga-rom", .block = v->rom_block, .readonly = true };
	return pci_add_rom(&v->pci, size, &v->rom);
}

int vga_new(struct board *b, struct pci_bus *bus, const uint8_t *rom, size_t rom_size, struct display *d,
	    struct vga **ret, struct error *err)
{
	static const struct pci_ids ids = { .vendor = 0x1234,
					    .device = 0x1111,
					    .class_code = 0x030000,
					    .revision = 2,
					    .subsys_vendor = 0x1af4,
					    .subsys = 0x1100 };
	struct vga *v = calloc(1, sizeof(*v));
	uint32_t *pixels = calloc(720 * 400, sizeof(*pixels));

	if (!v || !pixels) {
		free(v);
		free(pixels);
		return error_set(err, ENOMEM, "no memory for the VGA; free some and try again");
	}
	v->board = b;
	v->display = d;
	v->pixels = pixels;
	v->width = 720;
	v->height = 400;
	int r = pci_device_init(&v->pci, bus, PCI_DEVFN(2, 0), &ids, &vga_class, 0, err);
	if (r < 0) {
		free(pixels);
		free(v);
		return r;
	}
	*d = (struct display){ .width = v->width,
			       .height = v->height,
			       .pixels = pixels,
			       .refresh = vga_refresh,
			       .text = vga_text,
			       .opaque = v,
			       .viewers = d->viewers };
	r = add_memory(v, rom, rom_size, err);
	if (r)
		return r; /* the board frees it */
	v->pci.config_written = config_written;
	vga_reset(&v->pci.dev);
	*ret = v;
	return 0;
}
