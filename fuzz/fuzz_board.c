/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The board without CPUs: bytes become port, memory and configuration accesses
 * to all its devices, interrupts, MSRs, passing time, resets, and saves and loads
 * of its state.  Each operation is one byte of opcode and a few of operands; past
 * the end of the input operands are zero.
 */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "dev/irq/ioapic.h"
#include "dev/irq/irq.h"
#include "dev/irq/lapic.h"
#include "dev/pc/acpi_pm.h"
#include "dev/pc/ferr.h"
#include "dev/pc/fwcfg.h"
#include "dev/pc/pvpanic.h"
#include "dev/pc/serial.h"
#include "dev/pc/sysctl.h"
#include "dev/pci/pci.h"
#include "dev/timer/hpet.h"
#include "dev/timer/pit.h"
#include "dev/timer/rtc.h"
#include "fuzz_input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CPUS    2
#define MAX_OPS 2000

struct card {
	struct pci_device pci;
	struct io_region regs, ports;
	uint32_t x;
};

struct fuzz {
	struct fuzz_input in;
	struct mutex io;
	struct clock clock;
	struct board b;
	struct irq_router *router;
	struct lapic *lapic[CPUS];
	unsigned current;
	struct pci_bus *bus;
	struct card *card;
	struct acpi_pm *pm;
	struct ferr *ferr;
	struct chardev chr;
	bool chr_full;
};

/* ---- input ---- */

static uint8_t u8(struct fuzz *f)
{
	return fuzz_u8(&f->in);
}

static uint32_t u32(struct fuzz *f)
{
	return fuzz_u32(&f->in);
}

/* ---- the board ---- */

static void kick(void *opaque)
{
	(void)opaque;
}

static void arm(void *opaque, int64_t ns)
{
	(void)opaque;
	(void)ns;
}

static uint64_t tsc(void *opaque)
{
	return (uint64_t)clock_now_ns(opaque) * 3;
}

static void event(void *opaque, enum lapic_event e, uint8_t vector)
{
	(void)opaque;
	(void)e;
	(void)vector;
}

static struct lapic *current(void *opaque)
{
	struct fuzz *f = opaque;

	return f->lapic[f->current];
}

static size_t chr_write(struct chardev *c, const uint8_t *buf, size_t len)
{
	(void)buf;
	return container_of(c, struct fuzz, chr)->chr_full ? 0 : len;
}

static void chr_ready(struct chardev *c, bool fresh)
{
	(void)c;
	(void)fresh;
}

static const struct chardev_ops chr_ops = { chr_write, chr_ready, NULL };

static uint64_t card_read(void *opaque, uint64_t offset, unsigned size)
{
	(void)size;
	return ((struct card *)opaque)->x ^ offset;
}

static void card_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct card *c = opaque;

	(void)size;
	c->x = (uint32_t)value;
	pci_dma_write(&c->pci, GPA(value << 4), &c->x, 4);
	if (offset & 4)
		pci_intx_set(&c->pci, value & 1);
}

static void card_reset(struct device *d)
{
	pci_device_reset((struct pci_device *)d);
}

static int card_loaded(void *obj, struct error *err)
{
	return pci_device_loaded(&((struct card *)obj)->pci, err);
}

static void card_free(struct device *d)
{
	pci_device_fini((struct pci_device *)d);
	free(d);
}

static const struct state_field card_fields[] = { PCI_DEVICE_FIELDS(struct card, pci), F_U32(struct card, x),
						  F_END };
static const struct state_table card_state = { "card", 1, card_fields, card_loaded };
static const struct device_class card_class = { "card", card_reset, &card_state, card_free };

static void add_card(struct fuzz *f)
{
	static const struct pci_ids ids = { .vendor = 0x1af4, .device = 0x1050, .intx_pin = 1 };
	struct card *c = calloc(1, sizeof(*c));

	if (!c || pci_device_init(&c->pci, f->bus, PCI_DEVFN_ANY, &ids, &card_class, 0, NULL) < 0)
		abort();
	c->regs = (struct io_region){ .name = "card", .read = card_read, .write = card_write, .opaque = c };
	c->ports = c->regs;
	pci_add_bar(&c->pci, 0, PCI_BAR_IO, 32, &c->ports);
	pci_msix_init(&c->pci, 4, 1);
	pci_add_bar(&c->pci, 2, PCI_BAR_MEM64, 0x1000, &c->regs);
	f->card = c;
}

static int add_lapics(struct fuzz *f)
{
	for (unsigned i = 0; i < CPUS; i++) {
		struct lapic_host h = { .opaque = &f->clock,
					.kick = kick,
					.arm_timer = arm,
					.tsc_now = tsc,
					.tsc_khz = 3000000,
					.init_sipi_nmi = event,
					.clock = &f->clock };

		if (lapic_new(&f->b, f->router, i, &h, &f->lapic[i], NULL) < 0)
			return -1;
	}
	irq_router_set_current(f->router, current, f);
	return 0;
}

static struct irq_line isa(struct fuzz *f, unsigned n)
{
	return irq_router_isa_line(f->router, n);
}

static int add_devices(struct fuzz *f)
{
	struct hpet *hpet;
	struct pit *pit;
	struct rtc *rtc;
	struct serial *serial;
	struct fwcfg *fwcfg;
	struct pvpanic *pvpanic;
	struct sysctl *sysctl;

	f->chr.ops = &chr_ops;
	if (hpet_new(&f->b, f->router, &hpet, NULL) < 0 ||
	    pit_new(&f->b, hpet_pit_line(hpet), &pit, NULL) < 0 ||
	    rtc_new(&f->b, hpet_rtc_line(hpet), &rtc, NULL) < 0 ||
	    serial_new(&f->b, 0x3f8, isa(f, 4), &f->chr, 0, &serial, NULL) < 0 ||
	    acpi_pm_new(&f->b, isa(f, 9), &f->pm, NULL) < 0 || fwcfg_new(&f->b, &fwcfg, NULL) < 0 ||
	    fwcfg_add_file(fwcfg, "file", "0123456789", 10, NULL) < 0 ||
	    ferr_new(&f->b, isa(f, 13), &f->ferr, NULL) < 0 || pvpanic_new(&f->b, &pvpanic, NULL) < 0 ||
	    sysctl_new(&f->b, true, &sysctl, NULL) < 0)
		return -1;
	if (pci_bus_new(&f->b, f->router, &f->bus, NULL) < 0 ||
	    i440fx_new(f->bus, f->b.mem, NULL, NULL) < 0 || piix3_new(f->bus, NULL) < 0 ||
	    piix4_pm_new(f->bus, f->pm, true, NULL) < 0)
		return -1;
	add_card(f);
	return 0;
}

static void make_board(struct fuzz *f)
{
	mutex_init(&f->io, LOCK_RANK_IO, "io");
	clock_init(&f->clock);
	clock_stop(&f->clock);
	f->clock.stopped_ns = 0;
	f->b.clock = &f->clock;
	f->b.io_lock = &f->io;
	if (mem_new(MIB(1), &f->io, &f->b.mem, NULL) < 0 ||
	    loop_new(&f->clock, &f->io, &f->b.loop, NULL) < 0 ||
	    irq_router_new(&f->b, &f->router, NULL) < 0 || add_lapics(f) < 0 || add_devices(f) < 0)
		abort(); /* of our own host, not of the input */
	board_reset(&f->b);
	pci_assign_resources(f->bus, NULL);
}

/* ---- operations ---- */

static uint16_t port(struct fuzz *f)
{
	static const uint16_t base[] = { 0x20, 0xa0,  0x4d0, 0x40,  0x61, 0x70, 0x3f8, 0x600, 0x608,  0x620,
					 0xb2, 0x510, 0x514, 0x505, 0x92, 0x64, 0xcf8, 0xcfc, 0xc000, 0xe8 };
	uint8_t which = u8(f), low = u8(f);

	if (which >= 0xf0)
		return (uint16_t)(which << 8 | low);
	return base[which % ARRAY_SIZE(base)] + (low & 0x1f);
}

static gpa_t address(struct fuzz *f)
{
	static const uint64_t base[] = { LAPIC_BASE, IOAPIC_BASE, 0xc0000000, 0xc0001000, 0xff000, 0 };
	uint8_t which = u8(f);
	uint32_t v = u32(f);

	if (which >= 0xf0)
		return GPA((uint64_t)v << (which & 15));
	if (which >= 0xe0) /* the registers that there are */
		return GPA(HPET_BASE + (v & 0x1ff));
	return GPA(base[which % ARRAY_SIZE(base)] + (v & 0x1fff));
}

static void run_loop(struct fuzz *f)
{
	clock_start(&f->clock);
	mutex_lock(&f->io);
	loop_clock_changed(f->b.loop);
	mutex_unlock(&f->io);
	fuzz_run_loop(f->b.loop);
	clock_stop(&f->clock);
}

static void pass_time(struct fuzz *f)
{
	uint8_t v = u8(f);

	f->clock.stopped_ns += (int64_t)(v & 7) << (v >> 3);
	if (u8(f) & 1)
		run_loop(f);
	for (unsigned i = 0; i < CPUS; i++)
		lapic_timer_poll(f->lapic[i]);
}

static void config_access(struct fuzz *f)
{
	uint8_t devfn = u8(f), offset = u8(f), how = u8(f);
	uint32_t v = u32(f);
	static const uint8_t devfns[] = { 0, 8, 11, 24 };
	unsigned size = 1u << how % 3;

	mem_pio_write(f->b.mem, 0xcf8, 0x80000000u | devfns[devfn % 4] << 8 | (offset & 0xfc), 4);
	if (how & 4)
		mem_pio_read(f->b.mem, 0xcfc + (offset & 3 & ~(size - 1)), size);
	else
		mem_pio_write(f->b.mem, 0xcfc + (offset & 3 & ~(size - 1)), v, size);
}

static void msr_access(struct fuzz *f)
{
	uint8_t how = u8(f), index = u8(f);
	uint64_t v = u32(f);
	uint32_t msr = how & 2 ? 0x800u + index : index & 1 ? 0x1b : 0x6e0;

	v |= (uint64_t)u32(f) << 32;
	if (how & 1)
		lapic_msr_write(f->lapic[f->current], msr, v);
	else
		lapic_msr_read(f->lapic[f->current], msr, &v);
}

/* Saves everything, lets the input damage a few bytes, and loads what can be loaded. */
static void save_and_load(struct fuzz *f)
{
	struct state_buf s = { 0 };

	fuzz_save(&f->b, &f->in, &s);
	mutex_lock(&f->io);
	fuzz_load(&f->b, &s);
	mutex_unlock(&f->io);
}

static void under_io_lock(struct fuzz *f, uint8_t op)
{
	mutex_lock(&f->io);
	switch (op) {
	case 0:
		pci_msix_notify(&f->card->pci, u8(f));
		break;
	case 1:
		pci_intx_set(&f->card->pci, u8(f) & 1);
		break;
	case 2:
		acpi_pm_power_button(f->pm);
		break;
	case 3:
		acpi_pm_gpe(f->pm, u8(f));
		break;
	case 4:
		f->chr_full = u8(f) & 1;
		f->chr.reader.writable(f->chr.reader.opaque);
		break;
	case 5: {
		uint8_t text[16] = { u8(f) };
		size_t room = f->chr.reader.room(f->chr.reader.opaque);

		if (room)
			f->chr.reader.read(f->chr.reader.opaque, text, min_u64(room, sizeof(text)));
		break;
	}
	case 6:
		pci_assign_resources(f->bus, NULL);
		break;
	default:
		board_reset(&f->b);
		break;
	}
	mutex_unlock(&f->io);
}

static void step(struct fuzz *f)
{
	uint8_t op = u8(f), how;
	uint64_t msi;
	uint32_t v;

	switch (op & 15) {
	case 0:
	case 1:
		how = op >> 4;
		v = port(f);
		mem_pio_write(f->b.mem, (uint16_t)v, u32(f), 1u << how % 3);
		break;
	case 2:
		mem_pio_read(f->b.mem, port(f), 1u << (op >> 4) % 3);
		break;
	case 3:
	case 4: {
		gpa_t a = address(f);

		mem_mmio_write(f->b.mem, a, (uint64_t)u32(f) << 32 | u32(f), 1u << (op >> 4 & 3));
		break;
	}
	case 5:
		mem_mmio_read(f->b.mem, address(f), 1u << (op >> 4 & 3));
		break;
	case 6:
		config_access(f);
		break;
	case 7:
		pass_time(f);
		break;
	case 8:
		how = u8(f);
		irq_router_set_isa(f->router, how & 15, how & 16);
		irq_router_set_pirq(f->router, how >> 5 & 3, how & 128);
		break;
	case 9:
		msi = 0xfee00000u | (u32(f) & 0xfffff);
		msi_send(f->router, msi, u32(f));
		break;
	case 10:
		msr_access(f);
		break;
	case 11:
		for (unsigned i = 0; i < CPUS; i++)
			lapic_ack(f->lapic[i]);
		irq_router_nmi(f->router);
		break;
	case 12:
		f->current = u8(f) % CPUS;
		lapic_cr8_write(f->lapic[f->current], u8(f));
		break;
	case 13:
		save_and_load(f);
		break;
	case 14:
		lapic_raise_perf(f->lapic[f->current]);
		lapic_raise_thermal(f->lapic[f->current]);
		mutex_lock(&f->io);
		ferr_set(f->ferr, op & 16);
		mutex_unlock(&f->io);
		if (op >> 4 == 15)
			lapic_init(f->lapic[f->current]);
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
	board_free_devices(&f.b);
	loop_free(f.b.loop);
	mem_free(f.b.mem);
	mutex_destroy(&f.io);
	return 0;
}
