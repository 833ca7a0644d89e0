/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PCI bus: PCI Local Bus Specification 3.0, configuration mechanism #1.
 *
 * A device's `config` is the truth; after each guest write the parts with
 * effects are re-derived from it (BAR mappings, INTx, MSI-X), comparing with what
 * is in force, so that nothing depends on which bytes were written in what order.
 *
 * A BAR is decoded when its command bit is set and its address is neither zero
 * nor the all-ones pattern of sizing; drivers that size with decoding on would
 * otherwise have windows jump over other devices for an instant.
 *
 * INTx levels of devices that share a PIRQ line are OR-ed by looking at all of
 * them: there are few, and a sum that is never kept cannot go wrong on load.
 */
#include "dev/pci/pci.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "dev/irq/irq.h"
#include "dev/irq/pic.h"

#define CONFIG_ADDRESS 0xcf8
#define CONFIG_DATA    0xcfc
#define CONFIG_ENABLE  0x80000000u

/* The PIIX3's reset control register lies within the address port's dword (290550 §2.5.4). */
#define RESET_OFFSET 1
#define RESET_CPU    0x04
#define RESET_HARD   0x02

#define BAR_IO       0x1u
#define BAR_MEM64    0x4u
#define BAR_PREFETCH 0x8u

#define MSIX_CAP_LEN    12
#define MSIX_CONTROL    2 /* offset in the capability */
#define MSIX_ENABLE     0x8000u
#define MSIX_MASK_ALL   0x4000u
#define MSIX_PBA        0x800u
#define MSIX_ENTRY_CTRL 12
#define MSIX_ENTRY_MASK 1u
#define CAPS_START      0x40
#define PCI_COMMAND_BITS                                                                                     \
	(PCI_COMMAND_IO | PCI_COMMAND_MEM | PCI_COMMAND_MASTER | PCI_COMMAND_PARITY | PCI_COMMAND_SERR |     \
	 PCI_COMMAND_INTX_OFF)

struct pci_bus {
	struct device dev;
	struct board *board;
	struct irq_router *router;
	struct pci_device *devices;
	uint32_t address;
	uint8_t reset_control;
	struct io_region address_port, data_port;
};

/* ---- config bytes ---- */

uint32_t pci_config_get(const struct pci_device *d, unsigned offset, unsigned size)
{
	uint32_t v = 0;

	for (unsigned i = 0; i < size && offset + i < sizeof(d->config); i++)
		v |= (uint32_t)d->config[offset + i] << 8 * i;
	return v;
}

static void put(uint8_t *bytes, unsigned offset, uint32_t value, unsigned size)
{
	for (unsigned i = 0; i < size && offset + i < 256; i++)
		bytes[offset + i] = value >> 8 * i;
}

void pci_config_set(struct pci_device *d, unsigned offset, uint32_t value, unsigned size)
{
	put(d->config, offset, value, size);
}

static uint16_t command(const struct pci_device *d)
{
	return pci_config_get(d, PCI_COMMAND, 2);
}

struct board *pci_board(const struct pci_device *d)
{
	return d->bus->board;
}

struct irq_router *pci_router(const struct pci_bus *bus)
{
	return bus->router;
}

/* ---- BARs ---- */

static bool bar_is_io(const struct pci_bar *b)
{
	return b->type == PCI_BAR_IO;
}

static bool bar_is_64(const struct pci_bar *b)
{
	return b->type == PCI_BAR_MEM64 || b->type == PCI_BAR_MEM64_PREFETCH;
}

static uint64_t bar_address(const struct pci_device *d, unsigned nr)
{
	const struct pci_bar *b = &d->bar[nr];
	uint64_t v = pci_config_get(d, PCI_BAR0 + 4 * nr, 4);

	if (bar_is_64(b))
		v |= (uint64_t)pci_config_get(d, PCI_BAR0 + 4 * nr + 4, 4) << 32;
	return v & ~(b->size - 1);
}

static bool bar_decoded(const struct pci_device *d, unsigned nr)
{
	const struct pci_bar *b = &d->bar[nr];
	uint64_t a = bar_address(d, nr);
	uint64_t sizing = (bar_is_64(b) ? UINT64_MAX : UINT32_MAX) & ~(b->size - 1);

	if (!(command(d) & (bar_is_io(b) ? PCI_COMMAND_IO : PCI_COMMAND_MEM)) || !a || a == sizing)
		return false;
	/* Half of a 64-bit BAR sized: just as absurd an address. */
	if (bar_is_64(b) && (a >> 52))
		return false;
	return !bar_is_io(b) || a + b->size <= 0x10000;
}

static void bar_unmap(struct pci_device *d, unsigned nr)
{
	struct pci_bar *b = &d->bar[nr];

	if (!b->used || !b->region->mapped)
		return;
	if (bar_is_io(b))
		mem_unmap_pio(d->bus->board->mem, b->region);
	else
		mem_unmap_mmio(d->bus->board->mem, b->region);
}

/* The expansion ROM's BAR has an enable bit of its own (PCI 3.0 §6.2.5.2). */
static void rom_update(struct pci_device *d)
{
	struct pci_bar *b = &d->rom;
	uint32_t v = pci_config_get(d, PCI_ROM, 4);
	uint64_t a = v & ~(uint32_t)(b->size - 1);

	if (!b->used)
		return;
	bool want = (v & 1) && (command(d) & PCI_COMMAND_MEM) && a && a != (~(uint32_t)(b->size - 1));
	if (want == b->region->mapped && (!want || b->region->base == a))
		return;
	mem_unmap_mmio(d->bus->board->mem, b->region);
	b->region->base = a;
	if (want)
		mem_map_mmio(d->bus->board->mem, b->region);
}

static void bars_update(struct pci_device *d)
{
	rom_update(d);
	for (unsigned i = 0; i < PCI_NR_BARS; i++) {
		struct pci_bar *b = &d->bar[i];
		bool want = b->used && bar_decoded(d, i);
		uint64_t a = b->used ? bar_address(d, i) : 0;

		if (!b->used || (want == b->region->mapped && (!want || b->region->base == a)))
			continue;
		bar_unmap(d, i);
		if (!want)
			continue;
		b->region->base = a;
		if (bar_is_io(b))
			mem_map_pio(d->bus->board->mem, b->region);
		else
			mem_map_mmio(d->bus->board->mem, b->region);
	}
}

int pci_add_bar(struct pci_device *d, unsigned nr, enum pci_bar_type type, uint64_t size,
		struct io_region *region)
{
	bool io = type == PCI_BAR_IO, wide = type == PCI_BAR_MEM64 || type == PCI_BAR_MEM64_PREFETCH;
	unsigned last = nr + wide;

	if (last >= PCI_NR_BARS || !size || (size & (size - 1)) || size < (io ? 4u : 16u) ||
	    size > (io ? 256u : 0x40000000u))
		return -EINVAL;
	/* Neither half may be taken, nor be the upper half of the one before. */
	if (d->bar[nr].used || d->bar[last].used || (nr && d->bar[nr - 1].used && bar_is_64(&d->bar[nr - 1])))
		return -EINVAL;
	region->size = size;
	region->base = 0;
	d->bar[nr] = (struct pci_bar){ .used = true, .type = type, .size = size, .region = region };
	uint32_t flags =
	    (io ? BAR_IO : 0) | (wide ? BAR_MEM64 : 0) |
	    (type == PCI_BAR_MEM64_PREFETCH || type == PCI_BAR_MEM32_PREFETCH ? BAR_PREFETCH : 0);
	put(d->config, PCI_BAR0 + 4 * nr, flags, 4);
	put(d->wmask, PCI_BAR0 + 4 * nr, ~(uint32_t)(size - 1) & ~(io ? 3u : 15u), 4);
	if (wide)
		put(d->wmask, PCI_BAR0 + 4 * nr + 4, UINT32_MAX, 4);
	return 0;
}

int pci_add_rom(struct pci_device *d, uint64_t size, struct io_region *region)
{
	if (d->rom.used || size < 2048 || (size & (size - 1)) || size > 0x1000000)
		return -EINVAL;
	region->size = size;
	region->base = 0;
	d->rom = (struct pci_bar){ .used = true, .type = PCI_BAR_MEM32, .size = size, .region = region };
	put(d->wmask, PCI_ROM, ~(uint32_t)(size - 1) | 1, 4);
	return 0;
}

bool pci_bar_mapped(const struct pci_device *d, unsigned nr, uint64_t *addr)
{
	if (nr >= PCI_NR_BARS || !d->bar[nr].used || !d->bar[nr].region->mapped)
		return false;
	*addr = d->bar[nr].region->base;
	return true;
}

/* ---- capabilities ---- */

int pci_add_cap(struct pci_device *d, uint8_t id, unsigned len)
{
	unsigned at = d->next_cap, room = align_up(len, 4);

	if (len < 2 || at + room > sizeof(d->config))
		return -ENOSPC;
	d->config[at] = id;
	d->config[at + 1] = 0;
	/* Hang it behind the last one. */
	unsigned prev = PCI_CAP_PTR;
	while (d->config[prev])
		prev = d->config[prev] + 1;
	d->config[prev] = at;
	d->config[PCI_STATUS] |= PCI_STATUS_CAPS;
	d->next_cap = at + room > 0xff ? 0xff : at + room;
	return at;
}

/* ---- INTx ---- */

static bool intx_asserts(const struct pci_device *d)
{
	return d->intx_level && d->config[PCI_INT_PIN] && !(command(d) & PCI_COMMAND_INTX_OFF);
}

static void intx_update(struct pci_device *d)
{
	struct pci_bus *bus = d->bus;
	bool level = false;

	d->config[PCI_STATUS] &= ~PCI_STATUS_INTX;
	if (d->intx_level)
		d->config[PCI_STATUS] |= PCI_STATUS_INTX;
	if (!d->config[PCI_INT_PIN])
		return;
	unsigned line = pci_pirq(d->devfn, d->config[PCI_INT_PIN]);
	for (const struct pci_device *o = bus->devices; o; o = o->next)
		if (intx_asserts(o) && pci_pirq(o->devfn, o->config[PCI_INT_PIN]) == line)
			level = true;
	irq_router_set_pirq(bus->router, line, level);
}

void pci_intx_set(struct pci_device *d, bool level)
{
	if (!d->config[PCI_INT_PIN] || d->intx_level == level)
		return;
	d->intx_level = level;
	intx_update(d);
}

/* ---- MSI-X ---- */

static uint16_t msix_control(const struct pci_device *d)
{
	return d->msix_vectors ? pci_config_get(d, d->msix_cap + MSIX_CONTROL, 2) : 0;
}

bool pci_msix_enabled(const struct pci_device *d)
{
	return msix_control(d) & MSIX_ENABLE;
}

static uint32_t msix_entry(const struct pci_device *d, unsigned vector, unsigned offset)
{
	uint32_t v;

	memcpy(&v, &d->msix_table[vector * 16 + offset], 4);
	return v;
}

static bool msix_masked(const struct pci_device *d, unsigned vector)
{
	return (msix_control(d) & MSIX_MASK_ALL) || !pci_bus_master(d) ||
	       (msix_entry(d, vector, MSIX_ENTRY_CTRL) & MSIX_ENTRY_MASK);
}

static void msix_send(struct pci_device *d, unsigned vector)
{
	uint64_t address = msix_entry(d, vector, 0) | (uint64_t)msix_entry(d, vector, 4) << 32;
	uint32_t data = msix_entry(d, vector, 8);

	/* The message is a memory write: elsewhere than at the LAPICs it lands in RAM or nowhere. */
	if (msi_send(d->bus->router, address, data) < 0)
		pci_dma_write(d, GPA(address), &data, sizeof(data));
}

void pci_msix_notify(struct pci_device *d, unsigned vector)
{
	if (vector >= d->msix_vectors || !pci_msix_enabled(d))
		return;
	if (msix_masked(d, vector))
		d->msix_pending |= 1ull << vector;
	else
		msix_send(d, vector);
}

/* Sends what became unmasked. */
static void msix_update(struct pci_device *d)
{
	if (!pci_msix_enabled(d))
		return;
	for (unsigned v = 0; d->msix_pending && v < d->msix_vectors; v++) {
		if (!(d->msix_pending & 1ull << v) || msix_masked(d, v))
			continue;
		d->msix_pending &= ~(1ull << v);
		msix_send(d, v);
	}
}

static uint64_t msix_read(void *opaque, uint64_t offset, unsigned size)
{
	const struct pci_device *d = opaque;
	uint64_t v = 0;

	if (offset + size <= d->msix_vectors * 16u)
		memcpy(&v, &d->msix_table[offset], size);
	else if (offset >= MSIX_PBA && offset + size <= MSIX_PBA + 8)
		memcpy(&v, (const char *)&d->msix_pending + (offset - MSIX_PBA), size);
	return v;
}

static void msix_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pci_device *d = opaque;

	if (offset + size > d->msix_vectors * 16u)
		return; /* the PBA is read-only */
	memcpy(&d->msix_table[offset], &value, size);
	unsigned entry = offset & ~15u;
	d->msix_table[entry] &= ~3; /* messages are dword-aligned */
	d->msix_table[entry + MSIX_ENTRY_CTRL] &= MSIX_ENTRY_MASK;
	memset(&d->msix_table[entry + MSIX_ENTRY_CTRL + 1], 0, 3);
	msix_update(d);
}

static void msix_reset(struct pci_device *d)
{
	memset(d->msix_table, 0, sizeof(d->msix_table));
	for (unsigned v = 0; v < d->msix_vectors; v++)
		d->msix_table[v * 16 + MSIX_ENTRY_CTRL] = MSIX_ENTRY_MASK;
	d->msix_pending = 0;
}

int pci_msix_init(struct pci_device *d, unsigned nvectors, unsigned bar)
{
	if (!nvectors || nvectors > PCI_MSIX_MAX || d->msix_vectors)
		return -EINVAL;
	int cap = pci_add_cap(d, PCI_CAP_ID_MSIX, MSIX_CAP_LEN);
	if (cap < 0)
		return cap;
	d->msix_region = (struct io_region){
		.name = "msix", .read = msix_read, .write = msix_write, .opaque = d, .max_size = 4
	};
	int r = pci_add_bar(d, bar, PCI_BAR_MEM32, PCI_MSIX_BAR_SIZE, &d->msix_region);
	if (r < 0)
		return r;
	d->msix_cap = cap;
	d->msix_vectors = nvectors;
	put(d->config, cap + MSIX_CONTROL, nvectors - 1, 2);
	put(d->wmask, cap + MSIX_CONTROL, MSIX_ENABLE | MSIX_MASK_ALL, 2);
	put(d->config, cap + 4, bar, 4);
	put(d->config, cap + 8, MSIX_PBA | bar, 4);
	msix_reset(d);
	return 0;
}

/* ---- DMA ---- */

bool pci_bus_master(const struct pci_device *d)
{
	return command(d) & PCI_COMMAND_MASTER;
}

int pci_dma_read(struct pci_device *d, gpa_t gpa, void *buf, uint64_t len)
{
	return pci_bus_master(d) ? mem_read(d->bus->board->mem, gpa, buf, len) : -EACCES;
}

int pci_dma_write(struct pci_device *d, gpa_t gpa, const void *buf, uint64_t len)
{
	return pci_bus_master(d) ? mem_write(d->bus->board->mem, gpa, buf, len) : -EACCES;
}

void *pci_dma_ptr(struct pci_device *d, gpa_t gpa, uint64_t len)
{
	return pci_bus_master(d) ? mem_ram_ptr(d->bus->board->mem, gpa, len) : NULL;
}

/* ---- configuration accesses ---- */

static struct pci_device *find(const struct pci_bus *bus, uint8_t devfn)
{
	for (struct pci_device *d = bus->devices; d; d = d->next)
		if (d->devfn == devfn)
			return d;
	return NULL;
}

/* Accesses that the ports cannot make are not made here either. */
static bool config_access_valid(unsigned offset, unsigned size)
{
	return (size == 1 || size == 2 || size == 4) && offset < 256 && (offset & 3) + size <= 4;
}

static void refresh(struct pci_device *d)
{
	bars_update(d);
	intx_update(d);
	msix_update(d);
}

uint32_t pci_bus_config_read(struct pci_bus *bus, uint8_t devfn, unsigned offset, unsigned size)
{
	struct pci_device *d = find(bus, devfn);

	if (!d || !config_access_valid(offset, size))
		return UINT32_MAX;
	if (d->config_read)
		d->config_read(d, offset, size);
	return pci_config_get(d, offset, size);
}

void pci_bus_config_write(struct pci_bus *bus, uint8_t devfn, unsigned offset, uint32_t value, unsigned size)
{
	struct pci_device *d = find(bus, devfn);

	if (!d || !config_access_valid(offset, size))
		return;
	for (unsigned i = 0; i < size; i++) {
		uint8_t *c = &d->config[offset + i], v = value >> 8 * i;
		uint8_t w = d->wmask[offset + i];

		*c = (*c & ~w) | (v & w);
		*c &= ~(v & d->w1cmask[offset + i]);
	}
	refresh(d);
	if (d->config_written)
		d->config_written(d, offset, size);
}

static bool selected(const struct pci_bus *bus, uint8_t *devfn)
{
	*devfn = bus->address >> 8;
	return (bus->address & CONFIG_ENABLE) && !(bus->address & 0x00ff0000u); /* only bus 0 exists */
}

static uint64_t data_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pci_bus *bus = opaque;
	uint8_t devfn;

	if (!selected(bus, &devfn))
		return UINT32_MAX;
	return pci_bus_config_read(bus, devfn, (bus->address & 0xfc) + offset, size);
}

static void data_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pci_bus *bus = opaque;
	uint8_t devfn;

	if (selected(bus, &devfn))
		pci_bus_config_write(bus, devfn, (bus->address & 0xfc) + offset, value, size);
}

/* Only dwords reach the address register (PCI 3.0 §3.2.2.3.2); bytes go through to what lies at the port. */
static uint64_t address_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pci_bus *bus = opaque;

	if (size == 4)
		return bus->address;
	return size == 1 && offset == RESET_OFFSET ? bus->reset_control : UINT32_MAX;
}

static void address_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pci_bus *bus = opaque;

	if (size == 4) {
		bus->address = value & 0x80fffffcu;
	} else if (size == 1 && offset == RESET_OFFSET) {
		/* The rise of bit 2 resets: with bit 1 the board, without it the processor (290550 §2.5.3).
		 */
		bool rise = (value & RESET_CPU) && !(bus->reset_control & RESET_CPU);

		bus->reset_control = value & (RESET_CPU | RESET_HARD);
		if (rise)
			board_ask(bus->board, value & RESET_HARD ? BOARD_RESET : BOARD_INIT);
	}
}

/* ---- devices on the bus ---- */

struct pci_device *pci_newest(struct pci_bus *bus)
{
	struct pci_device *d = bus->devices;

	while (d->next)
		d = d->next;
	return d;
}

static int choose_devfn(const struct pci_bus *bus, int devfn)
{
	if (devfn != PCI_DEVFN_ANY)
		return devfn < 0 || devfn > 255 || find(bus, devfn) ? -EBUSY : devfn;
	for (unsigned slot = 3; slot < 32; slot++)
		if (!find(bus, PCI_DEVFN(slot, 0)))
			return PCI_DEVFN(slot, 0);
	return -ENOSPC;
}

static void fill_header(struct pci_device *d, const struct pci_ids *ids)
{
	put(d->config, PCI_VENDOR_ID, ids->vendor, 2);
	put(d->config, PCI_DEVICE_ID, ids->device, 2);
	put(d->config, PCI_CLASS_PROG, ids->class_code, 3);
	d->config[PCI_REVISION_ID] = ids->revision;
	put(d->config, PCI_SUBSYS_VENDOR, ids->subsys_vendor, 2);
	put(d->config, PCI_SUBSYS_ID, ids->subsys, 2);
	d->config[PCI_INT_PIN] = ids->intx_pin <= 4 ? ids->intx_pin : 0;
	put(d->wmask, PCI_COMMAND, PCI_COMMAND_BITS, 2);
	d->wmask[PCI_CACHE_LINE_SIZE] = 0xff;
	d->wmask[PCI_LATENCY_TIMER] = 0xff;
	d->wmask[PCI_INT_LINE] = 0xff;
}

int pci_device_init(struct pci_device *d, struct pci_bus *bus, int devfn, const struct pci_ids *ids,
		    const struct device_class *cls, uint32_t instance, struct error *err)
{
	int at = choose_devfn(bus, devfn);

	if (at == -ENOSPC)
		return error_set(err, ENOSPC, "no PCI slot is left for %s; give fewer devices", cls->name);
	if (at < 0)
		return error_set(err, EBUSY, "PCI slot %d.%d, asked for by %s, is taken; choose another",
				 devfn >> 3 & 31, devfn & 7, cls->name);
	d->bus = bus;
	d->devfn = at;
	d->next_cap = CAPS_START;
	fill_header(d, ids);
	struct pci_device **p = &bus->devices;
	while (*p)
		p = &(*p)->next;
	d->next = NULL;
	*p = d;
	board_add(bus->board, &d->dev, cls, instance);
	return 0;
}

void pci_device_fini(struct pci_device *d)
{
	if (!d->bus)
		return;
	if (d->rom.used)
		mem_unmap_mmio(d->bus->board->mem, d->rom.region);
	for (unsigned i = 0; i < PCI_NR_BARS; i++)
		bar_unmap(d, i);
	pci_intx_set(d, false);
	for (struct pci_device **p = &d->bus->devices; *p; p = &(*p)->next)
		if (*p == d) {
			*p = d->next;
			break;
		}
	d->bus = NULL;
}

void pci_device_reset(struct pci_device *d)
{
	for (unsigned i = 0; i < sizeof(d->config); i++)
		d->config[i] = (d->config[i] & ~(d->wmask[i] | d->w1cmask[i])) | (d->preset[i] & d->wmask[i]);
	d->intx_level = false;
	if (d->msix_vectors)
		msix_reset(d);
	refresh(d);
}

int pci_device_loaded(struct pci_device *d, struct error *err)
{
	for (unsigned i = 0; i < PCI_NR_BARS; i++) {
		const struct pci_bar *b = &d->bar[i];

		if (b->used && (d->config[PCI_BAR0 + 4 * i] & BAR_IO) != (bar_is_io(b) ? BAR_IO : 0))
			return error_set(
			    err, EINVAL,
			    "the saved PCI configuration of %s does not fit the device; it is damaged",
			    d->dev.cls->name);
	}
	for (unsigned v = 0; v < d->msix_vectors; v++) {
		uint8_t *e = &d->msix_table[v * 16];

		e[0] &= ~3;
		e[MSIX_ENTRY_CTRL] &= MSIX_ENTRY_MASK;
	}
	/* Levels and pending messages are in the interrupt controllers' own state: drive nothing here. */
	bars_update(d);
	return 0;
}

/* ---- resources ---- */

#define FIRST_WINDOW 0xc0000000ull

uint64_t pci_window_start(const struct pci_bus *bus)
{
	uint64_t low = align_up(mem_low_ram_size(bus->board->mem), 0x1000);

	return max_u64(low, FIRST_WINDOW);
}

/* What remains of the two windows. */
struct window {
	uint64_t mem, io;
};

static bool place(struct pci_device *d, unsigned nr, struct window *w)
{
	struct pci_bar *b = &d->bar[nr];
	/* A page each: then guests may map one device's registers without its neighbour's. */
	uint64_t size = bar_is_io(b) ? b->size : max_u64(b->size, PAGE_SIZE);
	uint64_t *next = bar_is_io(b) ? &w->io : &w->mem;
	uint64_t a = align_up(*next, size), last = bar_is_io(b) ? 0xffff : PCI_WINDOW_LAST;

	if (a + size - 1 > last)
		return false;
	*next = a + size;
	put(d->config, PCI_BAR0 + 4 * nr, a | (d->config[PCI_BAR0 + 4 * nr] & 15), 4);
	if (bar_is_64(b))
		put(d->config, PCI_BAR0 + 4 * nr + 4, 0, 4);
	return true;
}

/* Large ones first, so that alignment wastes nothing between them. */
static bool place_all(struct pci_bus *bus, struct window *w)
{
	for (uint64_t size = 0x40000000; size; size >>= 1)
		for (struct pci_device *d = bus->devices; d; d = d->next)
			for (unsigned i = 0; i < PCI_NR_BARS; i++)
				if (d->bar[i].used && d->bar[i].size == size && !place(d, i, w))
					return false;
	return true;
}

int pci_assign_resources(struct pci_bus *bus, struct error *err)
{
	static const uint8_t route[IRQ_PIRQ_COUNT] = { 10, 11, 10, 11 };
	struct window w = { .mem = pci_window_start(bus), .io = PCI_IO_START };

	if (!place_all(bus, &w))
		return error_set(err, ENOSPC,
				 "the PCI devices' windows do not fit below 4 GiB; give fewer devices");
	for (struct pci_device *d = bus->devices; d; d = d->next) {
		uint8_t pin = d->config[PCI_INT_PIN];

		if (pin)
			d->config[PCI_INT_LINE] = route[pci_pirq(d->devfn, pin)];
		d->config[PCI_COMMAND] |= PCI_COMMAND_IO | PCI_COMMAND_MEM;
		refresh(d);
		if (d->config_written)
			d->config_written(d, PCI_COMMAND, 2);
	}
	for (unsigned p = 0; p < IRQ_PIRQ_COUNT; p++) {
		irq_router_route_pirq(bus->router, p, route[p]);
		/* Let the PIIX3's route register, if there is one, say the same. */
		pci_bus_config_write(bus, PCI_DEVFN(1, 0), 0x60 + p, route[p], 1);
		pic_set_level_triggered(bus->router->pic, route[p], true);
	}
	return 0;
}

/* ---- reset, state of the bus itself ---- */

static void bus_reset(struct device *dev)
{
	struct pci_bus *bus = (struct pci_bus *)dev;

	bus->address = 0;
	bus->reset_control = 0;
}

static const struct state_field bus_fields[] = { F_U32(struct pci_bus, address),
						 F_U8(struct pci_bus, reset_control), F_END };
static const struct state_table bus_state = { "pci-bus", 1, bus_fields, NULL };

static void bus_free(struct device *dev)
{
	struct pci_bus *bus = (struct pci_bus *)dev;

	mem_unmap_pio(bus->board->mem, &bus->address_port);
	mem_unmap_pio(bus->board->mem, &bus->data_port);
	free(bus);
}

static const struct device_class bus_class = { "pci-bus", bus_reset, &bus_state, bus_free };

int pci_bus_new(struct board *b, struct irq_router *router, struct pci_bus **ret, struct error *err)
{
	struct pci_bus *bus = calloc(1, sizeof(*bus));

	if (!bus)
		return error_set(err, ENOMEM, "no memory for the PCI bus; free some and try again");
	bus->board = b;
	bus->router = router;
	bus->address_port = (struct io_region){ .name = "pci-address",
						.base = CONFIG_ADDRESS,
						.size = 4,
						.read = address_read,
						.write = address_write,
						.opaque = bus };
	bus->data_port = (struct io_region){ .name = "pci-data",
					     .base = CONFIG_DATA,
					     .size = 4,
					     .read = data_read,
					     .write = data_write,
					     .opaque = bus };
	mem_map_pio(b->mem, &bus->address_port);
	mem_map_pio(b->mem, &bus->data_port);
	board_add(b, &bus->dev, &bus_class, 0);
	*ret = bus;
	return 0;
}
