/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All disk controllers on one board: bytes become port and register accesses, and
 * what the controllers find in memory.  An image of commands, rings and tables at
 * fixed places is written by the input too.  Each operation is one byte of opcode
 * and a few of operands; past the end of the input operands are zero.
 */
#include <linux/input-event-codes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/util.h"
#include "dev/irq/irq.h"
#include "dev/pc/dma.h"
#include "dev/pc/parallel.h"
#include "dev/pci/pci.h"
#include "dev/storage/ahci.h"
#include "dev/storage/fdc.h"
#include "dev/storage/ide.h"
#include "dev/usb/hid.h"
#include "dev/usb/msc.h"
#include "dev/usb/xhci.h"
#include "dev/virtio/virtio_pci.h"
#include "dev/virtio/virtio_scsi.h"
#include "fuzz_input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RAM       MIB(1)
#define MAX_OPS   600
#define NR_BLOCKS 8
#define DISK_SIZE (1440u << 10)

struct fuzz {
	struct fuzz_input in;
	struct mutex io;
	struct clock clock;
	struct board b;
	struct irq_router *router;
	struct pci_bus *bus;
	struct input input;
	struct block *block[NR_BLOCKS];
	unsigned nr_blocks;
	struct ahci *ahci;
	struct xhci *xhci;
	struct virtio_device *scsi;
	struct cdrom *cd[2];
	uint64_t bar[3]; /* of AHCI, xHCI, SCSI */
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

static struct block *disk(struct fuzz *f, bool readonly)
{
	char path[32];
	int fd = memfd_create("disk", 0);

	if (fd < 0 || ftruncate(fd, DISK_SIZE) < 0)
		abort();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (block_open(f->b.loop, path, readonly, BLOCK_FORMAT_RAW, &f->block[f->nr_blocks], NULL) < 0)
		abort();
	close(fd);
	return f->block[f->nr_blocks++];
}

static struct irq_line isa(struct fuzz *f, unsigned n)
{
	return irq_router_isa_line(f->router, n);
}

static int add_isa(struct fuzz *f)
{
	struct dma *dma;
	struct fdc *fdc;
	struct ide *ide;
	struct parallel *parallel;

	if (dma_new(&f->b, &dma, NULL) < 0 || fdc_new(&f->b, isa(f, 6), dma, &fdc, NULL) < 0 ||
	    fdc_insert(fdc, 0, disk(f, false), "", NULL) < 0 ||
	    parallel_new(&f->b, isa(f, 7), NULL, &parallel, NULL) < 0 ||
	    ide_new(&f->b, f->bus, isa(f, 14), isa(f, 15), &ide, NULL) < 0)
		return -1;
	ide_add_disk(ide, 0, disk(f, false), "a");
	f->cd[0] = &ide_add_cd(ide, 2, disk(f, true), "b")->cd;
	return 0;
}

static int add_pci(struct fuzz *f)
{
	struct usb_device *d;
	struct scsi_device *unit;

	if (ahci_new(&f->b, f->bus, &f->ahci, NULL) < 0 || xhci_new(&f->b, f->bus, &f->xhci, NULL) < 0)
		return -1;
	ahci_add_disk(f->ahci, 0, disk(f, false), "c");
	f->cd[1] = &ahci_add_cd(f->ahci, 1, disk(f, true), "d")->cd;
	if (usb_keyboard_new(&f->b, &f->input, &d, NULL) < 0 || !xhci_plug(f->xhci, d) ||
	    usb_tablet_new(&f->b, &f->input, &d, NULL) < 0 || !xhci_plug(f->xhci, d) ||
	    usb_msc_new(&f->b, false, disk(f, false), "e", 0, &d, &unit, NULL) < 0 || !xhci_plug(f->xhci, d))
		return -1;
	if (virtio_scsi_new(&f->b, &f->scsi, NULL) < 0 ||
	    virtio_pci_new(f->bus, PCI_DEVFN_ANY, f->scsi, VIRTIO_SCSI_PCI_CLASS, 0, NULL) < 0)
		return -1;
	virtio_scsi_add(f->scsi, 0, false, disk(f, false), "f");
	virtio_scsi_add(f->scsi, 1, true, disk(f, true), "g");
	return 0;
}

/* Addresses, and leave to use them, as firmware gives both. */
static void assign(struct fuzz *f)
{
	pci_assign_resources(f->bus, NULL);
	for (unsigned slot = 1; slot < 8; slot++)
		pci_bus_config_write(f->bus, slot == 1 ? PCI_DEVFN(1, 1) : PCI_DEVFN(slot, 0), PCI_COMMAND, 7,
				     2);
	pci_bar_mapped(ahci_pci(f->ahci), 5, &f->bar[0]);
	pci_bar_mapped(xhci_pci(f->xhci), 0, &f->bar[1]);
	pci_bar_mapped(pci_newest(f->bus), 4, &f->bar[2]);
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
	    add_isa(f) < 0 || add_pci(f) < 0)
		abort(); /* of our own host, not of the input */
	mutex_lock(&f->io);
	board_reset(&f->b);
	assign(f);
	mutex_unlock(&f->io);
}

/* ---- operations ---- */

static uint16_t port(struct fuzz *f)
{
	static const uint16_t base[] = { 0x1f0, 0x170, 0x3f6, 0x376, 0x3f0, 0x378, 0x00, 0xc0, 0x81, 0xc000 };
	uint8_t v = u8(f);

	return (uint16_t)(base[(v >> 4) % ARRAY_SIZE(base)] + (v & 15));
}

static gpa_t address(struct fuzz *f)
{
	uint32_t v = u16(f);

	return GPA(f->bar[(v >> 14) % 3] + (v & 0x3fff));
}

static void drain(struct fuzz *f)
{
	for (unsigned i = 0; i < f->nr_blocks; i++)
		block_drain(f->block[i]);
}

/* Saves everything, lets the input damage a few bytes, and loads what can be loaded. */
static void save_and_load(struct fuzz *f)
{
	struct state_buf s = { 0 };

	drain(f);
	fuzz_save(&f->b, &f->in, &s);
	fuzz_load(&f->b, &s);
}

static void under_io_lock(struct fuzz *f, uint8_t op)
{
	uint8_t v;

	mutex_lock(&f->io);
	switch (op) {
	case 0:
		input_key(&f->input, u8(f), u8(f) & 1);
		break;
	case 1:
		input_pointer(&f->input, (int)u16(f), (int)u16(f), 0, u8(f), 640, 480);
		break;
	case 2:
		v = u8(f);
		cdrom_change(f->cd[v & 1], v & 2 ? f->block[0] : NULL);
		break;
	case 3:
		save_and_load(f);
		break;
	case 4:
		drain(f);
		break;
	case 5:
		board_reset(&f->b);
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
	case 2: /* as REP INS and OUTS do */
		p = port(f);
		for (unsigned n = u8(f); n; n--)
			mem_pio_read(f->b.mem, p, size == 8 ? 4 : size);
		break;
	case 3:
		p = port(f);
		for (unsigned n = u8(f); n; n--)
			mem_pio_write(f->b.mem, p, n * 0x01010101u, size == 8 ? 4 : size);
		break;
	case 4:
	case 5:
	case 6:
		a = address(f);
		mem_mmio_write(f->b.mem, a, op & 0x80 ? u32(f) : u16(f), size < 4 ? 4 : size);
		break;
	case 7:
		mem_mmio_read(f->b.mem, address(f), size);
		break;
	case 8:
	case 9:
		fuzz_fill(f->b.mem, &f->in, 16);
		break;
	case 10:
		fuzz_fill(f->b.mem, &f->in, 64);
		break;
	case 11:
		fuzz_fill(f->b.mem, &f->in, 32);
		break;
	case 12:
		fuzz_run_loop(f->b.loop);
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
	drain(&f);
	board_free_devices(&f.b);
	for (unsigned i = 0; i < f.nr_blocks; i++)
		block_close(f.block[i]);
	mutex_unlock(&f.io);
	loop_free(f.b.loop);
	mem_free(f.b.mem);
	mutex_destroy(&f.io);
	return 0;
}
