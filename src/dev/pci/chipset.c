/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The chipset as configuration space shows it: 82441FX host bridge (290549),
 * 82371SB PIIX3 ISA bridge (290550) and the power-management function of the
 * 82371AB PIIX4 (290562).
 *
 * The host bridge's PAM registers say for each piece of c0000..fffff whether reads
 * and writes go to RAM or to the bus, where e0000..fffff shows the firmware's last
 * 128 KiB.  Without firmware they begin as firmware leaves them: all RAM.  There is
 * no system management mode: SMRAM is kept and read back, and the PM function says
 * that firmware has installed its handler already.  The PIIX3's PIRQ route registers
 * do route.  The PM function says where acpi_pm.c's registers are, and moves them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dev/irq/irq.h"
#include "dev/pc/acpi_pm.h"
#include "dev/pci/pci.h"

/* 82441FX (290549 §3.2) */
#define PAM0  0x59 /* .. 0x5f */
#define SMRAM 0x72

/* PIIX3 (290550 §2.2) */
#define PIRQ_ROUTE 0x60 /* .. 0x63 */
#define XBCS       0x4e
#define TOM        0x69
#define DLC        0x82

/* PIIX4 function 3 (290562 §6.1) */
#define PMBASE    0x40
#define DEVACTB   0x58 /* .. 0x5b; bit 25: APMC_EN */
#define PMREGMISC 0x80

struct chip {
	struct pci_device pci;
	struct irq_router *router;
	struct acpi_pm *pm;
};

static const struct state_field chip_fields[] = { PCI_DEVICE_FIELDS(struct chip, pci), F_END };

static void chip_reset(struct device *d)
{
	pci_device_reset((struct pci_device *)d);
}

static void chip_free(struct device *d)
{
	pci_device_fini((struct pci_device *)d);
	free(d);
}

static int chip_loaded(void *obj, struct error *err)
{
	struct chip *c = obj;

	return pci_device_loaded(&c->pci, err);
}

/* A function in the making: the caller sets registers, class and place. */
static int chip_new(struct pci_bus *bus, uint8_t devfn, const struct pci_ids *ids,
		    const struct device_class *cls, struct chip **ret, struct error *err)
{
	struct chip *c = calloc(1, sizeof(*c));

	if (!c)
		return error_set(err, ENOMEM, "no memory for %s; free some and try again", cls->name);
	int r = pci_device_init(&c->pci, bus, devfn, ids, cls, 0, err);
	if (r < 0) {
		free(c);
		return r;
	}
	*ret = c;
	return 0;
}

/* ---- 00:00.0 host bridge ---- */

#define PAM_SEGMENTS 13
#define PAM_READ     1 /* reads go to RAM */
#define PAM_WRITE    2
#define ISA_ROM      0xe0000u
#define ISA_ROM_SIZE 0x20000u

struct i440fx {
	struct pci_device pci;
	struct mem *mem;
	struct mem_block *rom;
	struct pam {
		struct i440fx *owner;
		struct io_region region;
		uint8_t now; /* PAM_* bits in effect */
	} pam[PAM_SEGMENTS];
};

/* The register's four bits for a segment: PAM0's upper half is f0000, then 16 KiB each from c0000. */
static uint8_t pam_bits(const struct i440fx *h, unsigned i)
{
	unsigned nibble = i + 1;

	return h->pci.config[PAM0 + nibble / 2] >> (nibble % 2 * 4) & (PAM_READ | PAM_WRITE);
}

/* Writes that go to RAM though reads do not. */
static void pam_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pam *p = opaque;
	struct mem_block *ram = mem_ram_as_block(p->owner->mem);
	uint64_t at = p->region.base + offset;

	for (unsigned i = 0; i < size; i++)
		mem_block_ptr(ram)[at + i] = (uint8_t)(value >> (8 * i));
	mem_block_written(ram, at, size);
}

static void pam_apply(struct pam *p, uint8_t bits)
{
	struct i440fx *h = p->owner;
	struct io_region *r = &p->region;

	if (bits == p->now)
		return;
	p->now = bits;
	mem_unmap_mmio(h->mem, r);
	if (bits == (PAM_READ | PAM_WRITE))
		return; /* RAM as it is */
	r->block = NULL;
	r->readonly = true;
	if (bits & PAM_READ) {
		r->block = mem_ram_as_block(h->mem);
		r->block_offset = r->base;
	} else if (h->rom && r->base >= ISA_ROM && mem_block_size(h->rom) >= ISA_ROM_SIZE) {
		r->block = h->rom;
		r->block_offset = mem_block_size(h->rom) - ISA_ROM_SIZE + (r->base - ISA_ROM);
	} else if (h->rom && r->base >= 0x100000 - mem_block_size(h->rom)) {
		r->block = h->rom; /* firmware of less than 128 KiB */
		r->block_offset = r->base - (0x100000 - mem_block_size(h->rom));
	}
	r->write = bits & PAM_WRITE ? pam_write : NULL;
	mem_map_mmio(h->mem, r);
}

static void pam_update(struct i440fx *h)
{
	for (unsigned i = 0; i < PAM_SEGMENTS; i++)
		pam_apply(&h->pam[i], pam_bits(h, i));
}

static void i440fx_written(struct pci_device *d, unsigned offset, unsigned len)
{
	if (offset < PAM0 + 7 && offset + len > PAM0)
		pam_update((struct i440fx *)d);
}

static void i440fx_reset(struct device *d)
{
	pci_device_reset((struct pci_device *)d);
	pam_update((struct i440fx *)d);
}

static int i440fx_loaded(void *obj, struct error *err)
{
	struct i440fx *h = obj;

	pam_update(h);
	return pci_device_loaded(&h->pci, err);
}

static void i440fx_free(struct device *d)
{
	struct i440fx *h = (struct i440fx *)d;

	for (unsigned i = 0; i < PAM_SEGMENTS; i++)
		mem_unmap_mmio(h->mem, &h->pam[i].region);
	pci_device_fini(&h->pci);
	free(h);
}

static const struct state_field i440fx_fields[] = { PCI_DEVICE_FIELDS(struct i440fx, pci), F_END };
static const struct state_table i440fx_state = { "i440fx", 1, i440fx_fields, i440fx_loaded };
static const struct device_class i440fx_class = { "i440fx", i440fx_reset, &i440fx_state, i440fx_free };

int i440fx_new(struct pci_bus *bus, struct mem *m, struct mem_block *rom, struct error *err)
{
	/* The subsystem is how SeaBIOS and OVMF know a virtual machine from real hardware. */
	static const struct pci_ids ids = { .vendor = 0x8086,
					    .device = 0x1237,
					    .class_code = 0x060000,
					    .revision = 2,
					    .subsys_vendor = 0x1af4,
					    .subsys = 0x1100 };
	struct i440fx *h = calloc(1, sizeof(*h));

	if (!h)
		return error_set(err, ENOMEM, "no memory for i440fx; free some and try again");
	h->mem = m;
	h->rom = rom;
	for (unsigned i = 0; i < PAM_SEGMENTS; i++) {
		struct pam *p = &h->pam[i];

		*p = (struct pam){ .owner = h, .now = PAM_READ | PAM_WRITE };
		p->region = (struct io_region){ .name = "pam",
						.base = i ? 0xc0000 + (i - 1) * 0x4000 : 0xf0000,
						.size = i ? 0x4000 : 0x10000,
						.opaque = p,
						.over_ram = true };
	}
	int r = pci_device_init(&h->pci, bus, PCI_DEVFN(0, 0), &ids, &i440fx_class, 0, err);
	if (r < 0) {
		free(h);
		return r;
	}
	memset(&h->pci.wmask[PAM0], 0x33, 7);
	h->pci.wmask[PAM0] = 0x30;
	if (!rom)
		memcpy(&h->pci.preset[PAM0], &h->pci.wmask[PAM0], 7);
	h->pci.wmask[SMRAM] = 0x78;
	h->pci.config[SMRAM] = h->pci.preset[SMRAM] = 0x02;
	h->pci.config_written = i440fx_written;
	i440fx_reset(&h->pci.dev);
	return 0;
}

/* ---- 00:01.0 ISA bridge ---- */

static void piix3_route(struct chip *c)
{
	for (unsigned p = 0; p < IRQ_PIRQ_COUNT; p++) {
		uint8_t v = c->pci.config[PIRQ_ROUTE + p];

		/* Bit 7 set: not routed (290550 §2.2.11); IRQ_PIRQ_OFF is that bit. */
		irq_router_route_pirq(c->router, p, v & 0x80 ? IRQ_PIRQ_OFF : v & 0x0f);
	}
}

static void piix3_written(struct pci_device *d, unsigned offset, unsigned len)
{
	if (offset < PIRQ_ROUTE + IRQ_PIRQ_COUNT && offset + len > PIRQ_ROUTE)
		piix3_route((struct chip *)d);
}

static void piix3_reset(struct device *d)
{
	chip_reset(d);
	piix3_route((struct chip *)d);
}

static const struct state_table piix3_state = { "piix3", 1, chip_fields, chip_loaded };
static const struct device_class piix3_class = { "piix3", piix3_reset, &piix3_state, chip_free };

int piix3_new(struct pci_bus *bus, struct error *err)
{
	static const struct pci_ids ids = { .vendor = 0x8086, .device = 0x7000, .class_code = 0x060100 };
	struct chip *c;
	int r = chip_new(bus, PCI_DEVFN(1, 0), &ids, &piix3_class, &c, err);

	if (r < 0)
		return r;
	struct pci_device *d = &c->pci;
	c->router = pci_router(bus);
	d->config[PCI_HEADER_TYPE] = PCI_HEADER_MULTI;
	memset(&d->wmask[PIRQ_ROUTE], 0x8f, IRQ_PIRQ_COUNT);
	memset(&d->preset[PIRQ_ROUTE], 0x80, IRQ_PIRQ_COUNT);
	d->wmask[XBCS] = d->wmask[XBCS + 1] = 0xff;
	d->preset[XBCS] = 0x03;
	d->wmask[TOM] = 0xfe;
	d->preset[TOM] = 0x02;
	d->wmask[DLC] = 0x0f;
	d->config_written = piix3_written;
	piix3_reset(&d->dev);
	return 0;
}

/* ---- 00:01.3 power management ---- */

static void pm_update(struct chip *c)
{
	uint16_t base = pci_config_get(&c->pci, PMBASE, 2) & 0xffc0;

	acpi_pm_set_base(c->pm, c->pci.config[PMREGMISC] & 1 ? base : 0);
}

static void pm_written(struct pci_device *d, unsigned offset, unsigned len)
{
	if ((offset < PMBASE + 4 && offset + len > PMBASE) ||
	    (offset <= PMREGMISC && offset + len > PMREGMISC))
		pm_update((struct chip *)d);
}

static void pm_reset(struct device *d)
{
	chip_reset(d);
	pm_update((struct chip *)d);
}

static int pm_loaded(void *obj, struct error *err)
{
	pm_update(obj);
	return chip_loaded(obj, err);
}

static const struct state_table pm_state = { "piix4-pm", 1, chip_fields, pm_loaded };
static const struct device_class pm_class = { "piix4-pm", pm_reset, &pm_state, chip_free };

int piix4_pm_new(struct pci_bus *bus, struct acpi_pm *pm, bool firmware, struct error *err)
{
	static const struct pci_ids ids = {
		.vendor = 0x8086, .device = 0x7113, .class_code = 0x068000, .revision = 3
	};
	struct chip *c;
	int r = chip_new(bus, PCI_DEVFN(1, 3), &ids, &pm_class, &c, err);

	if (r < 0)
		return r;
	c->pm = pm;
	c->pci.config[PMBASE] = 1; /* I/O space */
	c->pci.wmask[PMBASE] = 0xc0;
	c->pci.wmask[PMBASE + 1] = 0xff;
	c->pci.wmask[PMREGMISC] = 1; /* is it decoded? */
	if (!firmware) {
		c->pci.preset[PMBASE + 1] = ACPI_PM_BASE >> 8;
		c->pci.preset[PMREGMISC] = 1;
	}
	c->pci.config_written = pm_written;
	c->pci.config[DEVACTB + 3] = 0x02; /* SMIs by port b2 are set up already */
	pm_reset(&c->pci.dev);
	return 0;
}
