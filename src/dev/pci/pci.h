/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PCI: one bus (0), conventional configuration space (256 bytes), configuration
 * mechanism #1 at ports cf8/cfc (PCI 3.0 §3.2.2.3.2, §6).
 *
 * For device authors.  A device embeds struct pci_device as its first member
 * (which embeds struct device first, so the class' functions get a pointer to
 * both):
 *
 *	struct foo {
 *		struct pci_device pci;
 *		struct io_region regs;
 *		uint32_t x;
 *	};
 *
 *	static void foo_reset(struct device *d)
 *	{
 *		struct foo *f = (struct foo *)d;
 *
 *		pci_device_reset(&f->pci);
 *		f->x = 0;
 *	}
 *	static int foo_loaded(void *obj, struct error *err)
 *	{
 *		struct foo *f = obj;
 *
 *		... check x ...
 *		return pci_device_loaded(&f->pci, err); // last: it maps the BARs
 *	}
 *	static const struct state_field foo_fields[] = { PCI_DEVICE_FIELDS(struct foo, pci), F_U32(struct foo,
 *x), F_END }; static const struct state_table foo_state = { "foo", 1, foo_fields, foo_loaded }; static void
 *foo_free(struct device *d) { pci_device_fini((struct pci_device *)d); free(d); } static const struct
 *device_class foo_class = { "foo", foo_reset, &foo_state, foo_free };
 *
 *	foo_new(): pci_device_init(&f->pci, bus, PCI_DEVFN_ANY, &ids, &foo_class, 0, err);
 *	           f->regs = (struct io_region){ .name = "foo", .read = ..., .write = ..., .opaque = f };
 *	           pci_add_bar(&f->pci, 0, PCI_BAR_MEM32, 0x1000, &f->regs);
 *	           pci_msix_init(&f->pci, 3, 1);
 *	           off = pci_add_cap(&f->pci, PCI_CAP_ID_VNDR, 16); fill f->pci.config[off + 2 ...]
 *
 * All of that happens before the vCPUs run.  Everything here is called with the
 * I/O lock held (device handlers and loop callbacks hold it already), or before
 * the vCPUs run.
 *
 * A device may keep the configuration bytes that differ from zero after reset
 * in `config` at construction: pci_device_init .. pci_add_* fill `config` and
 * `wmask`, and pci_device_reset clears just what the guest can write there
 * (wmask and w1cmask bits), then restores `preset` bits.
 */
#ifndef SILL_DEV_PCI_PCI_H
#define SILL_DEV_PCI_PCI_H

#include "base/error.h"
#include "dev/device.h"
#include "mem/mem.h"
#include "x86/types.h"

struct acpi_pm;
struct irq_router;
struct pci_bus;
struct pci_device;

/* Type-0 header (PCI 3.0 §6.1) */
#define PCI_VENDOR_ID       0x00
#define PCI_DEVICE_ID       0x02
#define PCI_COMMAND         0x04
#define PCI_STATUS          0x06
#define PCI_REVISION_ID     0x08
#define PCI_CLASS_PROG      0x09 /* 3 bytes: programming interface, subclass, class */
#define PCI_CACHE_LINE_SIZE 0x0c
#define PCI_LATENCY_TIMER   0x0d
#define PCI_HEADER_TYPE     0x0e
#define PCI_BAR0            0x10
#define PCI_SUBSYS_VENDOR   0x2c
#define PCI_SUBSYS_ID       0x2e
#define PCI_ROM             0x30
#define PCI_CAP_PTR         0x34
#define PCI_INT_LINE        0x3c
#define PCI_INT_PIN         0x3d

#define PCI_COMMAND_IO       0x0001u
#define PCI_COMMAND_MEM      0x0002u
#define PCI_COMMAND_MASTER   0x0004u
#define PCI_COMMAND_PARITY   0x0040u
#define PCI_COMMAND_SERR     0x0100u
#define PCI_COMMAND_INTX_OFF 0x0400u
#define PCI_STATUS_INTX      0x0008u
#define PCI_STATUS_CAPS      0x0010u
#define PCI_HEADER_MULTI     0x80u
#define PCI_CAP_ID_MSIX      0x11
#define PCI_CAP_ID_VNDR      0x09
#define PCI_NR_BARS          6
#define PCI_MSIX_MAX         64 /* vectors per device: table at 0x000 and PBA at 0x800 of the BAR page */
#define PCI_MSIX_BAR_SIZE    0x1000u
#define PCI_DEVFN(slot, fn)  ((uint8_t)((slot) << 3 | (fn)))
#define PCI_DEVFN_ANY        (-1) /* the first free slot from 3 up, function 0 */

enum pci_bar_type {
	PCI_BAR_IO,
	PCI_BAR_MEM32,
	PCI_BAR_MEM64,
	PCI_BAR_MEM64_PREFETCH,
	PCI_BAR_MEM32_PREFETCH
};

struct pci_ids {
	uint16_t vendor, device;
	uint32_t class_code; /* 24 bits: class << 16 | subclass << 8 | programming interface */
	uint8_t revision;
	uint16_t subsys_vendor, subsys;
	uint8_t intx_pin; /* 0: none, 1..4: INTA..INTD */
};

struct pci_bar {
	bool used;
	uint8_t type;             /* enum pci_bar_type */
	uint64_t size;            /* power of two */
	struct io_region *region; /* owner: the device (or pci.c for MSI-X); base and size are set by pci.c */
};

struct pci_device {
	struct device dev;
	struct pci_bus *bus;
	struct pci_device *next; /* bus list */
	uint8_t devfn;
	struct pci_bar bar[PCI_NR_BARS];
	struct pci_bar rom; /* the expansion ROM's */
	uint8_t next_cap;   /* where the next capability goes */

	uint8_t config[256];  /* what the guest reads */
	uint8_t wmask[256];   /* bits that the guest can write */
	uint8_t w1cmask[256]; /* bits that a guest's 1 clears */
	uint8_t preset[256];  /* values of writable bits after reset */

	/*
	 * Hooks, may be NULL. config_read runs before `len` bytes at `offset` are read from `config`, so the
	 * device can refresh them; config_written runs after a guest write has been merged into `config`
	 * (BARs, MSI-X and INTx have taken effect by then). They may use `config` directly.
	 */
	void (*config_read)(struct pci_device *d, unsigned offset, unsigned len);
	void (*config_written)(struct pci_device *d, unsigned offset, unsigned len);

	bool intx_level; /* what the device asks of its INTx pin, before the INTx-disable bit */

	/* MSI-X (PCI 3.0 §6.8.2) */
	uint16_t msix_vectors; /* 0: no capability */
	uint8_t msix_cap;      /* offset of the capability */
	uint8_t msix_table[PCI_MSIX_MAX * 16];
	uint64_t msix_pending;
	struct io_region msix_region;
};

/* The part of a device's field table that pci.c needs: PCI_DEVICE_FIELDS(struct foo, pci). */
#define PCI_DEVICE_FIELDS(S, m)                                                                              \
	F_BYTES(S, m.config), F_BOOL(S, m.intx_level), F_BYTES(S, m.msix_table), F_U64(S, m.msix_pending)

/* ---- for device authors ---- */

/*
 * Puts d (zeroed but for what the author keeps beside it) on the bus and on the board's device list.
 * devfn: PCI_DEVFN(slot, fn) or PCI_DEVFN_ANY. 0, -EBUSY (slot taken) or -ENOSPC (bus full).
 */
int pci_device_init(struct pci_device *d, struct pci_bus *bus, int devfn, const struct pci_ids *ids,
		    const struct device_class *cls, uint32_t instance, struct error *err);
/* Unmaps BARs, lowers INTx and takes the device off the bus (not off the board's list). */
void pci_device_fini(struct pci_device *d);
/* To power-on: BARs unset and unmapped, command 0, MSI-X off and masked, INTx low. Call first in the class'
 * reset. */
void pci_device_reset(struct pci_device *d);
/* After load: validates, maps the BARs as config says. Call last in the table's `loaded`. 0 or -EINVAL. */
int pci_device_loaded(struct pci_device *d, struct error *err);

/*
 * Declares BAR nr (0..5; a 64-bit BAR takes nr and nr+1). size is a power of two: >= 16 for memory, 4..256
 * for I/O. region's name, handlers and opaque are the author's; base and size are set here. 0 or -EINVAL.
 */
int pci_add_bar(struct pci_device *d, unsigned nr, enum pci_bar_type type, uint64_t size,
		struct io_region *region);
/* Adds an expansion ROM of size bytes (a power of two, >= 2048): region shows it where the ROM BAR says. */
int pci_add_rom(struct pci_device *d, uint64_t size, struct io_region *region);
/* True while the BAR is decoded; then *addr is its address. */
bool pci_bar_mapped(const struct pci_device *d, unsigned nr, uint64_t *addr);

/*
 * Adds a capability of len bytes in all (id and next pointer included, >= 2), read-only but for what the
 * author then sets in wmask. Returns its offset in config, or -ENOSPC. Capabilities are listed in the order
 * of adding.
 */
int pci_add_cap(struct pci_device *d, uint8_t id, unsigned len);

/* Adds MSI-X with nvectors (1..PCI_MSIX_MAX), table and PBA in a 4 KiB memory BAR nr of its own. 0 or -errno.
 */
int pci_msix_init(struct pci_device *d, unsigned nvectors, unsigned bar);
bool pci_msix_enabled(const struct pci_device *d);
/* Sends the message of a vector, or makes it pending if masked; nothing if MSI-X is off or vector out of
 * range. */
void pci_msix_notify(struct pci_device *d, unsigned vector);

/* Drives the device's INTx pin (level); ignored for devices without a pin. */
void pci_intx_set(struct pci_device *d, bool level);

/* DMA, gated by bus-master enable. 0, -EACCES (bus mastering off) or -EFAULT (not RAM). */
int pci_dma_read(struct pci_device *d, gpa_t gpa, void *buf, uint64_t len);
int pci_dma_write(struct pci_device *d, gpa_t gpa, const void *buf, uint64_t len);
/* As mem_ram_ptr: NULL if bus mastering is off too. After writing through it call mem_written. */
void *pci_dma_ptr(struct pci_device *d, gpa_t gpa, uint64_t len);
bool pci_bus_master(const struct pci_device *d);

/* Little-endian access to config, for authors. offset + size <= 256. */
uint32_t pci_config_get(const struct pci_device *d, unsigned offset, unsigned size);
void pci_config_set(struct pci_device *d, unsigned offset, uint32_t value, unsigned size);

struct board *pci_board(const struct pci_device *d);
struct irq_router *pci_router(const struct pci_bus *bus);

/* ---- for the machine ---- */

/* Makes bus 0: ports cf8..cff (and the reset control register cf9 among them), on the board's device list.
 * INTx and MSIs go to router. 0 or -errno. */
int pci_bus_new(struct board *b, struct irq_router *router, struct pci_bus **ret, struct error *err);
/*
 * What firmware would do, for direct kernel boot: gives every BAR an address (memory from
 * max(low RAM, 0xc0000000) .. 0xfebfffff, I/O from 0xc000), sets command I/O + memory decoding, interrupt
 * line, PIRQ routing and ELCR. Call after each board_reset. -ENOSPC if the window is too small.
 */
int pci_assign_resources(struct pci_bus *bus, struct error *err);
/* The function that was added last; the bus is not empty. */
struct pci_device *pci_newest(struct pci_bus *bus);
/* First address above RAM that BARs may use, and the last byte, for the ACPI _CRS. */
uint64_t pci_window_start(const struct pci_bus *bus);
#define PCI_WINDOW_LAST 0xfebfffffull
#define PCI_IO_START    0xc000u

/* PIRQ line (0..3, GSI 16+line) of a device's pin (1..4): (slot + pin - 1) & 3. */
static inline unsigned pci_pirq(uint8_t devfn, unsigned pin)
{
	return ((devfn >> 3) + pin - 1) & 3;
}

/* Configuration accesses by address, for the config ports, fuzzers and tests. size 1, 2, 4; must not cross a
 * dword. */
uint32_t pci_bus_config_read(struct pci_bus *bus, uint8_t devfn, unsigned offset, unsigned size);
void pci_bus_config_write(struct pci_bus *bus, uint8_t devfn, unsigned offset, uint32_t value, unsigned size);

/* The chipset's own functions: host bridge 8086:1237 at 00:00.0, ISA bridge 8086:7000 at 00:01.0, PM
 * 8086:7113 at 00:01.3. */
/* rom: the firmware, which is seen below 1 MiB until PAM registers say otherwise; NULL: there is none. */
int i440fx_new(struct pci_bus *bus, struct mem *m, struct mem_block *rom, struct error *err);
int piix3_new(struct pci_bus *bus, struct error *err);
/* firmware: it sets the registers' place; else they have theirs after reset. */
int piix4_pm_new(struct pci_bus *bus, struct acpi_pm *pm, bool firmware, struct error *err);

#endif
