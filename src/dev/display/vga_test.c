/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "dev/display/vga_internal.h"
#include "dev/test_board.h"

static struct test_board t;
static struct pci_bus *bus;
static struct vga *v;
static struct display d;
static unsigned updates, resizes, last[4];

static void resized(void *opaque, struct display *x)
{
	(void)opaque;
	(void)x;
	resizes++;
}

static void updated(void *opaque, struct display *x, unsigned px, unsigned py, unsigned w, unsigned h)
{
	(void)opaque;
	assert_true(px + w <= x->width && py + h <= x->height && w && h);
	updates++;
	last[0] = px;
	last[1] = py;
	last[2] = w;
	last[3] = h;
}

static struct display_viewer viewer = { .resized = resized, .updated = updated };

static void config(unsigned offset, uint32_t value, unsigned size)
{
	pci_bus_config_write(bus, PCI_DEVFN(2, 0), offset, value, size);
}

static int setup(void **state)
{
	static const uint8_t rom[1024] = { 0x55, 0xaa, 2 };

	(void)state;
	updates = resizes = 0;
	d = (struct display){ 0 };
	test_board_init(&t);
	assert_int_equal(pci_bus_new(&t.b, t.router, &bus, NULL), 0);
	assert_int_equal(vga_new(&t.b, bus, rom, sizeof(rom), &d, &v, NULL), 0);
	display_add_viewer(&d, &viewer);
	config(PCI_BAR0, 0xe0000000, 4);
	config(PCI_BAR0 + 8, 0xe1000000, 4);
	config(PCI_ROM, 0xe2000001, 4);
	config(PCI_COMMAND, 3, 2);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	test_board_fini(&t);
	return 0;
}

static void indexed(uint16_t port, uint8_t index, uint8_t value)
{
	test_out(&t, port, index, 1);
	test_out(&t, port + 1, value, 1);
}

static void attribute(uint8_t index, uint8_t value)
{
	test_in(&t, 0x3da, 1);
	test_out(&t, 0x3c0, index, 1);
	test_out(&t, 0x3c0, value, 1);
	test_in(&t, 0x3da, 1);
	test_out(&t, 0x3c0, 0x20, 1); /* the screen on */
}

/* The usual colours in the first DAC entries: bit 0 blue, 1 green, 2 red. */
static void palette(void)
{
	test_out(&t, 0x3c8, 0, 1);
	for (unsigned i = 0; i < 16; i++) {
		test_out(&t, 0x3c9, i & 4 ? 63 : 0, 1);
		test_out(&t, 0x3c9, i & 2 ? 63 : 0, 1);
		test_out(&t, 0x3c9, i & 1 ? 63 : 0, 1);
	}
	for (uint8_t i = 0; i < 16; i++)
		attribute(i, i);
}

/* 80 columns of 8 dots, 25 rows of 16 lines. */
static void text_mode(void)
{
	test_out(&t, 0x3c2, 0x67, 1);
	indexed(0x3c4, 1, 0x01);
	indexed(0x3c4, 2, 0x03);
	indexed(0x3c4, 4, 0x02);
	indexed(0x3ce, 5, 0x10);
	indexed(0x3ce, 6, 0x0e);
	indexed(0x3ce, 8, 0xff);
	indexed(0x3d4, 0x11, 0);
	indexed(0x3d4, 1, 79);
	indexed(0x3d4, 7, 0x02);
	indexed(0x3d4, 9, 0x4f);
	indexed(0x3d4, 0x0a, 0x20);
	indexed(0x3d4, 0x12, 399 & 0xff);
	indexed(0x3d4, 0x13, 40);
	indexed(0x3d4, 0x17, 0xa3);
	indexed(0x3d4, 0x18, 0xff);
	indexed(0x3d4, 7, 0x12);
	attribute(0x10, 0);
	attribute(0x12, 15);
	palette();
}

static uint32_t pixel(unsigned x, unsigned y)
{
	return d.pixels[y * d.width + x];
}

static void text(void **state)
{
	(void)state;
	text_mode();
	/* A letter in plane 2: its left half is set. */
	for (unsigned i = 0; i < 16; i++)
		v->vram[('A' * 32 + i) * 4 + 2] = 0xf0;
	mem_mmio_write(t.b.mem, GPA(0xb8000), 'A' | 0x14 << 8, 2); /* red on blue */
	mem_mmio_write(t.b.mem, GPA(0xb8000 + 162), 'A' | 0x02 << 8, 2);
	assert_int_equal(mem_mmio_read(t.b.mem, GPA(0xb8000), 2), 'A' | 0x14 << 8);
	display_refresh(&d, false);
	assert_int_equal(d.width, 640);
	assert_int_equal(d.height, 400);
	assert_int_equal(resizes, 1);
	assert_int_equal(pixel(0, 0), 0xff0000);
	assert_int_equal(pixel(4, 0), 0x0000ff);
	assert_int_equal(pixel(8, 16), 0x00ff00);
	assert_int_equal(pixel(12, 31), 0);
	char *s = vga_text(v);
	assert_memory_equal(s, "A\n A\n\n", 6);
	free(s);
	/* Only what changed is reported. */
	updates = 0;
	display_refresh(&d, false);
	assert_int_equal(updates, 0);
	mem_mmio_write(t.b.mem, GPA(0xb8000 + 160 * 10 + 20), 'A' | 0x0700, 2);
	display_refresh(&d, false);
	assert_int_equal(updates, 1);
	assert_true(last[0] == 80 && last[1] == 160 && last[2] == 4 && last[3] == 16);
	/* The cursor. */
	indexed(0x3d4, 0x0a, 14);
	indexed(0x3d4, 0x0b, 15);
	indexed(0x3d4, 0x0e, 0);
	indexed(0x3d4, 0x0f, 0);
	t.clock.stopped_ns = 0;
	display_refresh(&d, false);
	assert_int_equal(pixel(7, 14), 0xff0000);
	assert_int_equal(pixel(7, 13), 0x0000ff);
}

/* 40 columns: each dot is two pixels wide, to panning too. */
static void wide_text(void **state)
{
	(void)state;
	text_mode();
	indexed(0x3c4, 1, 0x09);
	indexed(0x3d4, 1, 39);
	indexed(0x3d4, 0x13, 20);
	for (unsigned i = 0; i < 16; i++)
		v->vram[('A' * 32 + i) * 4 + 2] = 0xf0;
	mem_mmio_write(t.b.mem, GPA(0xb8000), 'A' | 0x14 << 8, 2);
	mem_mmio_write(t.b.mem, GPA(0xb8000 + 78), 'A' | 0x14 << 8, 2);
	display_refresh(&d, false);
	assert_int_equal(d.width, 640);
	for (unsigned i = 0; i < 640; i += 624) {
		assert_int_equal(pixel(i, 0), 0xff0000);
		assert_int_equal(pixel(i + 7, 0), 0xff0000);
		assert_int_equal(pixel(i + 8, 0), 0x0000ff);
		assert_int_equal(pixel(i + 15, 0), 0x0000ff);
	}
	assert_int_equal(pixel(16, 0), 0);
	attribute(0x33, 1);
	display_refresh(&d, false);
	assert_int_equal(pixel(5, 0), 0xff0000);
	assert_int_equal(pixel(6, 0), 0x0000ff);
}

/* As a BIOS leaves it: what is written to b8000 is on the screen. */
static void begins_with_text(void **state)
{
	static uint8_t bios[8192];
	uint8_t *font = bios + 1000;

	(void)state;
	memcpy(font + 16, "\0\0\x7e\x81\xa5\x81\x81\xbd\x99\x81\x81\x7e\0\0\0", 16);
	font['A' * 16 + 3] = 0x40;
	vga_begin_with_text(v, bios, sizeof(bios));
	board_reset(&t.b);
	config(PCI_COMMAND, 3, 2);
	mem_mmio_write(t.b.mem, GPA(0xb8000 + 2 * 81), 0x1441, 2);
	char *text = vga_text(v);
	assert_memory_equal(text, "\n A\n", 4);
	free(text);
	vga_refresh(v, true);
	assert_int_equal(d.width, 720);
	assert_int_equal(d.height, 400);
	assert_int_equal(d.pixels[(16 + 3) * 720 + 9], 0x0000aa);
	assert_int_equal(d.pixels[(16 + 3) * 720 + 10], 0xaa0000);
}

static void planar(void **state)
{
	(void)state;
	text_mode();
	indexed(0x3c4, 2, 0x0f);
	indexed(0x3c4, 4, 0x06);
	indexed(0x3ce, 5, 0x00);
	indexed(0x3ce, 6, 0x05);
	indexed(0x3d4, 9, 0x40);
	indexed(0x3d4, 0x17, 0xe3);
	/* Set/reset in colour 5 through the bit mask. */
	indexed(0x3ce, 0, 5);
	indexed(0x3ce, 1, 15);
	indexed(0x3ce, 8, 0x80);
	mem_mmio_read(t.b.mem, GPA(0xa0000), 1);
	mem_mmio_write(t.b.mem, GPA(0xa0000), 0, 1);
	display_refresh(&d, false);
	assert_int_equal(pixel(0, 0), 0xff00ff);
	assert_int_equal(pixel(1, 0), 0);
	assert_int_equal(v->vram[0], 0x80);
	assert_int_equal(v->vram[1], 0);
	assert_int_equal(v->vram[2], 0x80);
	/* Write mode 1 copies what the latches hold; mode 2 takes a colour; read mode 1 compares. */
	indexed(0x3ce, 5, 1);
	mem_mmio_read(t.b.mem, GPA(0xa0000), 1);
	mem_mmio_write(t.b.mem, GPA(0xa0050), 0, 1);
	display_refresh(&d, false);
	assert_int_equal(pixel(0, 1), 0xff00ff);
	indexed(0x3ce, 5, 2);
	indexed(0x3ce, 8, 0xff);
	mem_mmio_write(t.b.mem, GPA(0xa0001), 2, 1);
	display_refresh(&d, false);
	assert_int_equal(pixel(8, 0), 0x00ff00);
	indexed(0x3ce, 5, 8);
	indexed(0x3ce, 2, 5);
	indexed(0x3ce, 7, 15);
	assert_int_equal(mem_mmio_read(t.b.mem, GPA(0xa0000), 1), 0x80);
	/* Split at line 50, and moved by a pixel: both parts, or the upper one alone. */
	indexed(0x3d4, 7, 0x0f);
	indexed(0x3d4, 9, 0);
	indexed(0x3d4, 0x18, 49);
	attribute(0x33, 1);
	display_refresh(&d, false);
	assert_int_equal(pixel(7, 0), 0x00ff00);
	assert_int_equal(pixel(7, 50), 0x00ff00);
	attribute(0x30, 0x21);
	display_refresh(&d, false);
	assert_int_equal(pixel(7, 0), 0x00ff00);
	assert_int_equal(pixel(7, 50), 0);
	assert_int_equal(pixel(8, 50), 0x00ff00);
}

static void mode_13h(void **state)
{
	(void)state;
	bool readonly;

	text_mode();
	indexed(0x3c4, 2, 0x0f);
	indexed(0x3c4, 4, 0x0e);
	indexed(0x3ce, 5, 0x40);
	indexed(0x3ce, 6, 0x05);
	indexed(0x3d4, 9, 0x41);
	/* Plain memory now: the processor writes it without asking us. */
	uint8_t *p = mem_cpu_ptr(t.b.mem, GPA(0xa0000), 1, &readonly);
	assert_ptr_equal(p, v->vram);
	p[1] = 4;
	p[320] = 2;
	display_refresh(&d, false);
	assert_int_equal(pixel(0, 0), 0);
	assert_int_equal(pixel(2, 0), 0xff0000);
	assert_int_equal(pixel(3, 1), 0xff0000);
	assert_int_equal(pixel(0, 2), 0x00ff00);
	indexed(0x3c4, 2, 0x01);
	assert_null(mem_cpu_ptr(t.b.mem, GPA(0xa0000), 1, &readonly));
}

static void vbe(uint16_t index, uint16_t value)
{
	test_out(&t, 0x1ce, index, 2);
	test_out(&t, 0x1cf, value, 2);
}

static void bochs_vbe(void **state)
{
	(void)state;
	bool readonly;
	uint8_t *lfb = mem_cpu_ptr(t.b.mem, GPA(0xe0000000), 4096, &readonly);

	assert_ptr_equal(lfb, v->vram);
	vbe(VBE_ID, 0xb0c5);
	assert_int_equal(test_in(&t, 0x1cf, 2), 0xb0c5);
	vbe(VBE_XRES, 1024);
	vbe(VBE_YRES, 768);
	vbe(VBE_BPP, 32);
	vbe(VBE_ENABLE, VBE_ENABLED | VBE_LFB);
	memcpy(lfb + 4 * (1024 * 5 + 7), "\x33\x22\x11", 4);
	display_refresh(&d, false);
	assert_int_equal(d.width, 1024);
	assert_int_equal(d.height, 768);
	assert_int_equal(pixel(7, 5), 0x112233);
	/* By BAR 2: 16 bits a pixel, a virtual width, panning. */
	mem_mmio_write(t.b.mem, GPA(0xe1000508), 0, 2);
	mem_mmio_write(t.b.mem, GPA(0xe1000506), 16, 2);
	mem_mmio_write(t.b.mem, GPA(0xe1000502), 640, 2);
	mem_mmio_write(t.b.mem, GPA(0xe1000504), 480, 2);
	mem_mmio_write(t.b.mem, GPA(0xe1000508), 0x41, 2);
	mem_mmio_write(t.b.mem, GPA(0xe100050c), 800, 2);
	mem_mmio_write(t.b.mem, GPA(0xe1000510), 2, 2);
	mem_mmio_write(t.b.mem, GPA(0xe1000512), 1, 2);
	memcpy(lfb + 2 * (800 + 2), "\x00\xf8", 2);
	display_refresh(&d, false);
	assert_int_equal(d.width, 640);
	assert_int_equal(pixel(0, 0), 0xff0000);
	/* A bank at a0000. */
	vbe(VBE_BANK, 3);
	assert_ptr_equal(mem_cpu_ptr(t.b.mem, GPA(0xa0000), 1, &readonly), v->vram + 0x30000);
	/* Too big is made to fit; nonsense does no harm. */
	vbe(VBE_ENABLE, 0);
	vbe(VBE_XRES, 65535);
	vbe(VBE_YRES, 65535);
	vbe(VBE_BPP, 32);
	vbe(VBE_ENABLE, VBE_ENABLED);
	vbe(VBE_X_OFFSET, 65535);
	vbe(VBE_Y_OFFSET, 65535);
	display_refresh(&d, false);
	assert_true((uint64_t)d.width * d.height * 4 <= VGA_VRAM_SIZE);
	assert_int_equal(mem_mmio_read(t.b.mem, GPA(0xe2000000), 2), 0xaa55);
}

static void hostile(void **state)
{
	(void)state;
	uint32_t x = 99;

	for (int i = 0; i < 60000; i++) {
		x = x * 1664525 + 1013904223;
		uint32_t y = x * 2654435761u;
		switch (x >> 28 & 7) {
		case 0:
		case 1:
			test_out(&t, (uint16_t)(0x3b0 + (x >> 20 & 0x2f)), y >> 8, 1 + (x >> 19 & 1));
			break;
		case 2:
			test_in(&t, (uint16_t)(0x3b0 + (x >> 20 & 0x2f)), 1);
			break;
		case 3:
			vbe(x >> 20 & 15, (uint16_t)(y >> 12));
			break;
		case 4:
			mem_mmio_write(t.b.mem, GPA(0xa0000 + (y & 0x1ffff)), x, 1u << (x >> 26 & 3));
			break;
		case 5:
			mem_mmio_read(t.b.mem, GPA(0xa0000 + (y & 0x1ffff)), 4);
			break;
		default:
			if (!(x & 0x3f00))
				display_refresh(&d, x >> 27 & 1);
			break;
		}
	}
	board_reset(&t.b);
	display_refresh(&d, true);
}

static void save_and_load(void **state)
{
	(void)state;
	const struct state_table *table = v->pci.dev.cls->state;
	struct state_buf b = { 0 };
	struct error err;

	text_mode();
	v->vram[0] = 'Z';
	assert_int_equal(state_save(&b, table, 0, v), 0);
	text_mode();
	indexed(0x3d4, 1, 39);
	indexed(0x3ce, 6, 5);
	assert_int_equal(state_load(&b, table, 0, v, &err), 0);
	display_refresh(&d, false);
	assert_int_equal(d.width, 640);
	char *s = vga_text(v);
	assert_int_equal(s[0], 'Z');
	free(s);
	state_buf_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(text, setup, teardown),
		cmocka_unit_test_setup_teardown(begins_with_text, setup, teardown),
		cmocka_unit_test_setup_teardown(wide_text, setup, teardown),
		cmocka_unit_test_setup_teardown(planar, setup, teardown),
		cmocka_unit_test_setup_teardown(mode_13h, setup, teardown),
		cmocka_unit_test_setup_teardown(bochs_vbe, setup, teardown),
		cmocka_unit_test_setup_teardown(hostile, setup, teardown),
		cmocka_unit_test_setup_teardown(save_and_load, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
