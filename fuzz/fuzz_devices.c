/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network card, VGA, keyboard controller, flash and debug port on one board:
 * bytes become register and port accesses, what the card finds in memory, frames
 * for it, keys, and what a viewer of the screen asks for.  Each operation is one
 * byte of opcode and a few of operands; past the end of the input operands are zero.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "dev/display/vga.h"
#include "dev/input/i8042.h"
#include "dev/irq/irq.h"
#include "dev/net/e1000.h"
#include "dev/pc/debugcon.h"
#include "dev/pc/rom.h"
#include "dev/pc/sysctl.h"
#include "dev/pci/pci.h"
#include "fuzz_input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RAM        MIB(1)
#define MAX_OPS    600
#define MAX_DRAWN  16 /* a picture may have 16 million pixels */
#define FLASH_SIZE (16u << 10)
#define FLASH      (GIB(4) - FLASH_SIZE - 0x1000)
#define FRAME_ROOM 2048u

struct wire {
	struct net n;
	bool waiting; /* the card had no room for the frame */
	size_t len;
	uint8_t frame[FRAME_ROOM];
};

struct fuzz {
	struct fuzz_input in;
	struct mutex io;
	struct clock clock;
	struct board b;
	struct irq_router *router;
	struct pci_bus *bus;
	struct wire wire;
	struct pci_device *e1000;
	struct display display;
	struct input input;
	struct chardev chr;
	int flash_fd;
	unsigned drawn;
	uint64_t bar[3]; /* the card's, VGA's memory, VGA's registers */
};

/* ---- input ---- */

static uint8_t u8(struct fuzz *f)
{
	return fuzz_u8(&f->in);
}

static uint32_t u16(struct fuzz *f)
{
	return fuzz_u16(&f->in);
}

static uint32_t u32(struct fuzz *f)
{
	return fuzz_u32(&f->in);
}

/* ---- the board ---- */

/* Looks at every byte, so that a sanitizer sees what is not there. */
static void wire_send(struct net *n, const uint8_t *frame, size_t len)
{
	struct wire *w = (struct wire *)n;

	w->len = min_u64(len, sizeof(w->frame));
	for (size_t i = 0; i < len; i++)
		w->frame[i % sizeof(w->frame)] = frame[i];
}

/* A copy of exactly its size, as a backend's may be. */
static void deliver(struct wire *w)
{
	static const struct net_frame_info info;
	uint8_t *copy = malloc(w->len);

	if (!copy)
		abort();
	memcpy(copy, w->frame, w->len);
	w->waiting = !w->n.client.receive(w->n.client.opaque, copy, w->len, &info);
	free(copy);
}

static void wire_ready(struct net *n)
{
	struct wire *w = (struct wire *)n;

	if (w->waiting && w->len >= NET_ETH_HEADER && n->client.receive)
		deliver(w);
}

static void wire_free(struct net *n)
{
	(void)n;
}

static const struct net_ops wire_ops[2] = {
	{ "small", false, wire_send, NULL, NULL, wire_ready, NULL, wire_free },
	{ "big", true, wire_send, NULL, NULL, wire_ready, NULL, wire_free },
};

static size_t chr_write(struct chardev *c, const uint8_t *buf, size_t len)
{
	(void)c;
	return buf[0] & 1 ? len : 0;
}

static void chr_ready(struct chardev *c, bool fresh)
{
	(void)c;
	(void)fresh;
}

static const struct chardev_ops chr_ops = { chr_write, chr_ready, NULL };

static int add_devices(struct fuzz *f)
{
	static const uint8_t mac[6] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 };
	static const uint8_t code[0x1000] = { 0x55, 0xaa, 8 };
	struct flash *flash;
	struct rom *rom;
	struct vga *vga;
	struct sysctl *sysctl;
	struct i8042 *kbd;
	struct debugcon *debugcon;
	uint8_t vars[FLASH_SIZE];

	memset(vars, 0xff, sizeof(vars));
	f->flash_fd = memfd_create("flash", 0);
	f->chr.ops = &chr_ops;
	f->wire.n.ops = &wire_ops[u8(f) & 1];
	f->wire.n.link_up = true;
	if (f->flash_fd < 0 || rom_new(&f->b, code, sizeof(code), &rom, NULL) < 0 ||
	    flash_new(&f->b, GPA(FLASH), vars, sizeof(vars), f->flash_fd, "vars", &flash, NULL) < 0 ||
	    debugcon_new(&f->b, &f->chr, &debugcon, NULL) < 0 || sysctl_new(&f->b, true, &sysctl, NULL) < 0 ||
	    i8042_new(&f->b, irq_router_isa_line(f->router, 1), irq_router_isa_line(f->router, 12), sysctl,
		      &f->input, &kbd, NULL) < 0 ||
	    vga_new(&f->b, f->bus, code, sizeof(code), &f->display, &vga, NULL) < 0)
		return -1;
	return e1000_new(&f->b, f->bus, &f->wire.n, mac, 0, &f->e1000, NULL);
}

/* Addresses, and leave to use them, as firmware gives both. */
static void assign(struct fuzz *f)
{
	pci_assign_resources(f->bus, NULL);
	pci_bus_config_write(f->bus, PCI_DEVFN(2, 0), PCI_COMMAND, 7, 2);
	pci_bus_config_write(f->bus, f->e1000->devfn, PCI_COMMAND, 7, 2);
	pci_bar_mapped(f->e1000, 0, &f->bar[0]);
	f->bar[1] = pci_bus_config_read(f->bus, PCI_DEVFN(2, 0), PCI_BAR0, 4) & ~15u;
	f->bar[2] = pci_bus_config_read(f->bus, PCI_DEVFN(2, 0), PCI_BAR0 + 8, 4) & ~15u;
}

static void make_board(struct fuzz *f)
{
	mutex_init(&f->io, LOCK_RANK_IO, "io");
	clock_init(&f->clock);
	clock_stop(&f->clock);
	f->b.clock = &f->clock;
	f->b.io_lock = &f->io;
	if (mem_new(RAM, &f->io, &f->b.mem, NULL) < 0 || loop_new(&f->clock, &f->io, &f->b.loop, NULL) < 0 ||
	    irq_router_new(&f->b, &f->router, NULL) < 0 || pci_bus_new(&f->b, f->router, &f->bus, NULL) < 0 ||
	    add_devices(f) < 0)
		abort(); /* of our own host, not of the input */
	mutex_lock(&f->io);
	board_reset(&f->b);
	assign(f);
	mutex_unlock(&f->io);
}

/* ---- operations ---- */

static uint16_t port(struct fuzz *f)
{
	static const uint16_t base[] = { 0x3c0, 0x3d0, 0x3b0, 0x60, 0x90, 0x400, 0x1ce, 0xc000 };
	uint8_t v = u8(f);

	return (uint16_t)(base[(v >> 4) % ARRAY_SIZE(base)] + (v & 15));
}

/* The card's registers with a meaning lie in a few places; anywhere else is rare. */
static gpa_t card_register(struct fuzz *f)
{
	static const uint16_t at[] = { 0x0000, 0x0010, 0x00c0, 0x0100, 0x0400, 0x2800, 0x3800, 0x4070,
				       0x5000, 0x5200, 0x5400, 0x5600, 0x0020, 0x0038, 0x5ff0, 0xfff0 };
	uint8_t v = u8(f);

	return GPA(f->bar[0] + at[v >> 4] + (v & 15) * 4 % 0x40);
}

static gpa_t address(struct fuzz *f)
{
	uint32_t v = u16(f);

	switch (v >> 13) {
	case 0:
	case 1:
		return GPA(0xa0000 + (v & 0x3fff) * 8);
	case 2:
	case 3:
		return GPA(f->bar[1] + (v & 0x3fff) * 0x400);
	case 4:
		return GPA(f->bar[2] + (v & 0xfff));
	case 5:
		return GPA(FLASH + (v & 0x1fff) * 3);
	case 6:
		return GPA(f->bar[0] + (v & 0x1fff) * 16);
	default: /* around ROM and flash */
		return GPA(FLASH + (v & 1) * FLASH_SIZE - (v >> 1 & 7));
	}
}

static void run_loop(struct fuzz *f)
{
	f->clock.stopped_ns += u8(f) * 1000000;
	mutex_lock(&f->io);
	loop_clock_changed(f->b.loop);
	mutex_unlock(&f->io);
	fuzz_run_loop(f->b.loop);
}

/* Saves everything, lets the input damage a few bytes, and loads what can be loaded. */
static void save_and_load(struct fuzz *f)
{
	struct state_buf s = { 0 };

	fuzz_save(&f->b, &f->in, &s);
	fuzz_load(&f->b, &s);
}

static void look(struct fuzz *f)
{
	char *text;

	if (f->drawn++ >= MAX_DRAWN)
		return;
	display_refresh(&f->display, u8(f) & 1);
	text = f->display.text ? f->display.text(f->display.opaque) : NULL;
	free(text);
}

static void frame(struct fuzz *f)
{
	static const uint8_t starts[4][14] = {
		{ 0x52, 0x54, 0, 0x12, 0x34, 0x56, [12] = 8 },
		{ 0x52, 0x54, 0, 0x12, 0x34, 0x56, [12] = 0x81 },
		{ 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, [12] = 8 },
		{ 1, 0, 0x5e, 0, 0, 1, [12] = 8 },
	};
	struct wire *w = &f->wire;
	unsigned v = u16(f), given = u8(f) & 63;

	w->len = 14 + (v & 0x3fff) % (NET_FRAME_USUAL + 8);
	memcpy(w->frame, starts[v >> 14], 14);
	for (unsigned i = 0; i < given; i++)
		w->frame[14 + i] = u8(f);
	deliver(w);
}

/* Bytes for rings and buffers. */
static void under_io_lock(struct fuzz *f, uint8_t op)
{
	mutex_lock(&f->io);
	switch (op) {
	case 0:
		input_key(&f->input, u16(f) & 0x1ff, u8(f) & 1);
		break;
	case 1:
		input_pointer(&f->input, (int)u16(f), (int)u16(f), (int8_t)u8(f), u8(f), 640, 480);
		break;
	case 2:
		input_move(&f->input, (int)u32(f), (int)u32(f), (int)u32(f), u8(f));
		break;
	case 3:
		save_and_load(f);
		break;
	case 4:
		look(f);
		break;
	case 5:
		board_reset(&f->b);
		break;
	case 6:
		frame(f);
		break;
	default:
		assign(f);
		break;
	}
	mutex_unlock(&f->io);
}

static void step(struct fuzz *f)
{
	uint8_t op = u8(f);
	unsigned size = 1u << (op >> 4 & 3);
	uint16_t p;
	gpa_t a;

	switch (op & 15) {
	case 0:
	case 1:
		p = port(f);
		mem_pio_write(f->b.mem, p, size == 1 ? u8(f) : u32(f), size == 8 ? 4 : size);
		break;
	case 2:
		mem_pio_read(f->b.mem, port(f), size == 8 ? 4 : size);
		break;
	case 3: /* VBE: index and value */
		mem_pio_write(f->b.mem, 0x1ce, u8(f) & 15, 2);
		mem_pio_write(f->b.mem, 0x1cf, u16(f), 2);
		break;
	case 4:
	case 5:
		a = card_register(f);
		mem_mmio_write(f->b.mem, a, op & 0x80 ? u32(f) : u16(f), size < 4 ? 4 : size);
		break;
	case 6:
		mem_mmio_read(f->b.mem, card_register(f), size);
		break;
	case 7:
		a = address(f);
		mem_mmio_write(f->b.mem, a, op & 0x80 ? u32(f) : u8(f), size);
		break;
	case 8:
		mem_mmio_read(f->b.mem, address(f), size);
		break;
	case 9: /* a command of flash, and its first byte */
		a = GPA(FLASH + u16(f) % FLASH_SIZE);
		mem_mmio_write(f->b.mem, a, u8(f), 1);
		mem_mmio_write(f->b.mem, a, u8(f), size);
		break;
	case 10:
		fuzz_fill(f->b.mem, &f->in, 16);
		break;
	case 11:
		fuzz_fill(f->b.mem, &f->in, 64);
		break;
	case 12:
		run_loop(f);
		break;
	default:
		under_io_lock(f, op >> 4 & 7);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz f = { .in = { data, size } };

	make_board(&f);
	for (unsigned i = 0; f.in.left && i < MAX_OPS; i++)
		step(&f);
	mutex_lock(&f.io);
	board_free_devices(&f.b);
	mutex_unlock(&f.io);
	close(f.flash_fd);
	loop_free(f.b.loop);
	mem_free(f.b.mem);
	mutex_destroy(&f.io);
	return 0;
}
