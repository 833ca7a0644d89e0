/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The chipset as configuration space shows it: 82441FX host bridge (290549),
 * 82371SB PIIX3 ISA bridge (290550) and the power-management function of the
 * 82371AB PIIX4 (290562).
 *
 * The host bridge's PAM and SMRAM registers are kept and read back, but c0000..
 * fffff is RAM whatever they say.  The PIIX3's PIRQ route registers do route.  The
 * PM function says where acpi_pm.c's registers are; it cannot move them.
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
#define PMREGMISC 0x80

struct chip {
	struct pci_device pci;
	struct irq_router *router;
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

static const struct state_table i440fx_state = { "i440fx", 1, chip_fields, chip_loaded };
static const struct device_class i440fx_class = { "i440fx", chip_reset, &i440fx_state, chip_free };

int i440fx_new(struct pci_bus *bus, struct error *err)
{
	static const struct pci_ids ids = {
		.vendor = 0x8086, .device = 0x1237, .class_code = 0x060000, .revision = 2
	};
	struct chip *c;
	int r = chip_new(bus, PCI_DEVFN(0, 0), &ids, &i440fx_class, &c, err);

	if (r < 0)
		return r;
	memset(&c->pci.wmask[PAM0], 0x33, 7);
	c->pci.wmask[PAM0] = 0x30;
	c->pci.wmask[SMRAM] = 0x78;
	c->pci.config[SMRAM] = c->pci.preset[SMRAM] = 0x02;
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

static const struct state_table pm_state = { "piix4-pm", 1, chip_fields, chip_loaded };
static const struct device_class pm_class = { "piix4-pm", chip_reset, &pm_state, chip_free };

int piix4_pm_new(struct pci_bus *bus, struct error *err)
{
	static const struct pci_ids ids = {
		.vendor = 0x8086, .device = 0x7113, .class_code = 0x068000, .revision = 3
	};
	struct chip *c;
	int r = chip_new(bus, PCI_DEVFN(1, 3), &ids, &pm_class, &c, err);

	if (r < 0)
		return r;
	pci_config_set(&c->pci, PMBASE, ACPI_PM_BASE | 1, 4);
	c->pci.config[PMREGMISC] = 1; /* the I/O space is enabled */
	return 0;
}
