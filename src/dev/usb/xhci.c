/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eXtensible Host Controller Interface 1.1: one interrupter, 16 device slots, ports
 * 1 to 8 for USB 2 and 9 to 12 for USB 3, no hubs, no streams, no isochronous
 * endpoints, no scratchpad.
 *
 * A device is there from the start or never.  After a controller reset its port
 * shows a connection, and a port reset enables it at once.
 *
 * Events that the event ring has no room for wait in a backlog, and as long as it
 * is not empty no command and no transfer is begun; so it stays small whatever the
 * guest does.
 */
#include "dev/usb/xhci.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "dev/usb/xhci_internal.h"

/* Places of the register groups */
enum { OPERATIONAL = 0x40, PORTS = 0x440, RUNTIME = 0x1000, INTERRUPTER = 0x1020, DOORBELLS = 0x2000 };
#define REGS_SIZE 0x4000u
#define EXT_CAPS  0x20u

/* Operational registers */
enum {
	USBCMD = 0x00,
	USBSTS = 0x04,
	PAGESIZE = 0x08,
	DNCTRL = 0x14,
	CRCR = 0x18,
	DCBAAP = 0x30,
	CONFIG = 0x38
};
#define CMD_RUN      0x0001u
#define CMD_RESET    0x0002u
#define CMD_INTE     0x0004u
#define CMD_WRITABLE 0x0c0du /* and HSEE, EWE, EU3S */
#define STS_HALTED   0x0001u
#define STS_EINT     0x0008u
#define STS_PCD      0x0010u
#define STS_RW1C     0x041cu
#define CRCR_CS      0x2u
#define CRCR_CA      0x4u
#define CRCR_CRR     0x8u

/* Interrupter registers */
enum { IMAN = 0x00, IMOD = 0x04, ERSTSZ = 0x08, ERSTBA = 0x10, ERDP = 0x18 };
#define IMAN_IP      0x1u
#define IMAN_IE      0x2u
#define ERDP_EHB     0x8u
#define MAX_SEGMENTS 16u

/* Port status and control (§5.4.8) */
#define PORT_CCS      0x00000001u
#define PORT_PED      0x00000002u
#define PORT_PR       0x00000010u
#define PORT_PLS(p)   ((p) >> 5 & 15)
#define PORT_PLS_MASK 0x000001e0u
#define PORT_PP       0x00000200u
#define PORT_SPEED    0x00003c00u
#define PORT_LWS      0x00010000u
#define PORT_CSC      0x00020000u
#define PORT_PEC      0x00040000u
#define PORT_PRC      0x00200000u
#define PORT_PLC      0x00400000u
#define PORT_RW1C     0x00fe0000u
#define PORT_WAKE     0x0e000000u
enum { PLS_U0 = 0, PLS_U3 = 3, PLS_RX_DETECT = 5, PLS_POLLING = 7, PLS_RESUME = 15 };

/* ---- interrupts and events ---- */

bool xhci_is_running(const struct xhci *x)
{
	return (x->usbcmd & CMD_RUN) && pci_bus_master(&x->pci);
}

static void update_irq(struct xhci *x)
{
	bool level = (x->iman & IMAN_IP) && (x->iman & IMAN_IE) && (x->usbcmd & CMD_INTE);

	if (!pci_msix_enabled(&x->pci)) {
		pci_intx_set(&x->pci, level);
		return;
	}
	pci_intx_set(&x->pci, false);
	if (level) { /* the message takes the pending bit along (§5.5.2.1) */
		x->iman &= ~IMAN_IP;
		pci_msix_notify(&x->pci, 0);
	}
}

static void raise_irq(struct xhci *x)
{
	x->usbsts |= STS_EINT;
	if (x->erdp & ERDP_EHB) /* the guest is at it */
		return;
	x->erdp |= ERDP_EHB;
	x->iman |= IMAN_IP;
	update_irq(x);
}

/* A segment of the event ring: its address and length in TRBs. */
static bool segment(struct xhci *x, uint32_t i, uint64_t *base, uint32_t *size)
{
	struct {
		uint64_t base;
		uint32_t size, reserved;
	} e;

	if (i >= x->erstsz || pci_dma_read(&x->pci, GPA(x->erstba + 16ull * i), &e, sizeof(e)) < 0)
		return false;
	*base = e.base & ~63ull;
	*size = e.size & 0xffff;
	return *size >= 16 && *size <= 4096; /* §6.5 */
}

/* Writes an event where the ring is now. False: it is full, or broken. */
static bool put_event(struct xhci *x, struct xhci_trb e)
{
	uint64_t base, next_base;
	uint32_t size, next_size, index = x->er_index + 1, seg = x->er_segment;

	if (!segment(x, seg, &base, &size) || x->er_index >= size)
		return false;
	next_base = base;
	if (index == size) {
		index = 0;
		seg = seg + 1 < x->erstsz ? seg + 1 : 0;
		if (!segment(x, seg, &next_base, &next_size))
			return false;
	}
	/* One place stays free: it tells a full ring from an empty one. */
	if (next_base + 16ull * index == (x->erdp & ~15ull))
		return false;
	e.control = (e.control & ~TRB_CYCLE) | x->er_cycle;
	/* The cycle bit last: it hands the event over. */
	if (pci_dma_write(&x->pci, GPA(base + 16ull * x->er_index), &e, 12) < 0 ||
	    pci_dma_write(&x->pci, GPA(base + 16ull * x->er_index + 12), &e.control, 4) < 0)
		return false;
	if (!index && !seg)
		x->er_cycle ^= 1;
	x->er_index = index;
	x->er_segment = seg;
	return true;
}

bool xhci_has_room(const struct xhci *x)
{
	return !x->backlog_count;
}

void xhci_event(struct xhci *x, struct xhci_trb e)
{
	if (!x->backlog_count && put_event(x, e)) {
		raise_irq(x);
		return;
	}
	if (x->backlog_count == XHCI_BACKLOG)
		return;
	uint32_t i = (x->backlog_head + x->backlog_count++) % XHCI_BACKLOG;
	x->backlog[2 * i] = e.parameter;
	x->backlog[2 * i + 1] = (uint64_t)e.control << 32 | e.status;
}

static void port_event(struct xhci *x, unsigned port)
{
	x->usbsts |= STS_PCD;
	if (!(x->usbcmd & CMD_RUN))
		return;
	if (!xhci_has_room(x)) {
		x->stale |= 1ull << port;
		return;
	}
	xhci_event(x, (struct xhci_trb){ .parameter = (uint64_t)port << 24,
					 .status = (uint32_t)CC_SUCCESS << 24,
					 .control = TRB_PORT_EVENT << 10 });
}

/* The guest took events off: there may be room for those that wait. */
static void drain_backlog(struct xhci *x)
{
	while (x->backlog_count) {
		uint32_t i = x->backlog_head;
		struct xhci_trb e = { x->backlog[2 * i], (uint32_t)x->backlog[2 * i + 1],
				      (uint32_t)(x->backlog[2 * i + 1] >> 32) };

		if (!put_event(x, e))
			return;
		x->backlog_head = (i + 1) % XHCI_BACKLOG;
		x->backlog_count--;
		raise_irq(x);
	}
	for (unsigned p = 1; p <= XHCI_PORTS && xhci_has_room(x); p++) {
		if (x->stale >> p & 1) {
			x->stale &= ~(1ull << p);
			port_event(x, p);
		}
	}
	xhci_work_later(x);
}

/* ---- rings ---- */

#define MAX_LINKS 4 /* in a row */

bool xhci_fetch(struct xhci *x, uint64_t *addr, uint8_t *cycle, struct xhci_trb *trb)
{
	uint64_t at = *addr;
	uint8_t c = *cycle;

	for (unsigned links = 0; links <= MAX_LINKS; links++) {
		if (pci_dma_read(&x->pci, GPA(at), trb, sizeof(*trb)) < 0 || (trb->control & TRB_CYCLE) != c)
			return false;
		if (TRB_TYPE(trb) != TRB_LINK) {
			*addr = at;
			*cycle = c;
			return true;
		}
		at = trb->parameter & ~15ull;
		if (trb->control & TRB_TOGGLE)
			c ^= 1;
	}
	return false;
}

struct usb_device *xhci_device(struct xhci *x, unsigned slot)
{
	return x->slot_port[slot] ? x->device[x->slot_port[slot]] : NULL;
}

static void do_work(void *opaque)
{
	struct xhci *x = opaque;

	xhci_run_commands(x);
	xhci_run_all(x);
}

void xhci_work_later(struct xhci *x)
{
	loop_post(x->board->loop, &x->work);
}

/* ---- ports ---- */

static void set_link(struct xhci *x, unsigned port, unsigned state)
{
	x->portsc[port] = (x->portsc[port] & ~PORT_PLS_MASK) | state << 5;
}

/* Power on, or a controller reset. */
static void port_init(struct xhci *x, unsigned port)
{
	struct usb_device *d = x->device[port];

	x->portsc[port] = PORT_PP;
	if (!d) {
		set_link(x, port, PLS_RX_DETECT);
		return;
	}
	x->portsc[port] |= PORT_CCS | PORT_CSC | (uint32_t)d->speed << 10;
	set_link(x, port, PLS_POLLING);
}

static void port_reset(struct xhci *x, unsigned port)
{
	struct usb_device *d = x->device[port];

	if (!d || !(x->portsc[port] & PORT_PP))
		return;
	for (unsigned slot = 1; slot <= XHCI_SLOTS; slot++)
		for (unsigned ep = 1; x->slot_port[slot] == port && ep < XHCI_ENDPOINTS; ep++)
			xhci_drop_endpoint(x, slot, ep);
	usb_bus_reset(d);
	x->portsc[port] |= PORT_PED | PORT_PRC;
	set_link(x, port, PLS_U0);
	port_event(x, port);
}

static void write_link(struct xhci *x, unsigned port, unsigned state)
{
	unsigned old = PORT_PLS(x->portsc[port]);

	if (!(x->portsc[port] & PORT_PED))
		return;
	if (state == PLS_U3 && old == PLS_U0) {
		set_link(x, port, PLS_U3);
	} else if (state == PLS_RESUME && old == PLS_U3) {
		set_link(x, port, PLS_RESUME);
	} else if (state == PLS_U0 && (old == PLS_U3 || old == PLS_RESUME)) {
		set_link(x, port, PLS_U0);
		x->portsc[port] |= PORT_PLC;
		port_event(x, port);
		xhci_work_later(x);
	}
}

static void write_portsc(struct xhci *x, unsigned port, uint32_t v)
{
	uint32_t *p = &x->portsc[port];

	*p &= ~(v & PORT_RW1C);
	*p = (*p & ~PORT_WAKE) | (v & PORT_WAKE);
	if (!(v & PORT_PP)) {
		*p &= ~(PORT_PP | PORT_PED | PORT_CCS | PORT_SPEED);
		set_link(x, port, 4); /* disabled */
		return;
	}
	if (!(*p & PORT_PP))
		port_init(x, port);
	if (v & PORT_PED)
		*p &= ~PORT_PED;
	if (v & PORT_LWS)
		write_link(x, port, PORT_PLS(v));
	if (v & PORT_PR)
		port_reset(x, port);
}

/* ---- registers ---- */

static void run_or_stop(struct xhci *x, bool run)
{
	if (!run) {
		for (unsigned slot = 1; slot <= XHCI_SLOTS; slot++)
			for (unsigned ep = 1; ep < XHCI_ENDPOINTS; ep++)
				xhci_drop_endpoint(x, slot, ep);
		x->command_ring = false;
		x->usbsts |= STS_HALTED;
		return;
	}
	x->usbsts &= ~STS_HALTED;
	for (unsigned p = 1; p <= XHCI_PORTS; p++) /* what changed while it stood still */
		if (x->portsc[p] & PORT_RW1C)
			port_event(x, p);
	xhci_work_later(x);
}

static void controller_reset(struct xhci *x)
{
	for (unsigned slot = 1; slot <= XHCI_SLOTS; slot++)
		xhci_disable_slot(x, slot);
	x->usbcmd = x->dnctrl = x->config = 0;
	x->usbsts = STS_HALTED;
	x->crcr = x->dcbaap = 0;
	x->command_ring = false;
	x->iman = x->erstsz = 0;
	x->imod = 4000;
	x->erstba = x->erdp = 0;
	x->er_segment = x->er_index = 0;
	x->er_cycle = 1;
	x->backlog_head = x->backlog_count = 0;
	x->stale = 0;
	memset(x->backlog, 0, sizeof(x->backlog));
	memset(x->setup, 0, sizeof(x->setup));
	for (unsigned p = 1; p <= XHCI_PORTS; p++) {
		if (x->device[p])
			usb_bus_reset(x->device[p]);
		port_init(x, p);
	}
	update_irq(x);
}

static void write_usbcmd(struct xhci *x, uint32_t v)
{
	bool was = x->usbcmd & CMD_RUN;

	if (v & CMD_RESET) {
		controller_reset(x);
		return;
	}
	x->usbcmd = v & CMD_WRITABLE;
	if (was != ((v & CMD_RUN) != 0))
		run_or_stop(x, v & CMD_RUN);
	update_irq(x);
}

static void write_crcr(struct xhci *x, uint32_t v, bool high)
{
	if (x->command_ring) {
		if (!high && (v & (CRCR_CS | CRCR_CA))) {
			x->command_ring = false;
			xhci_event(x, (struct xhci_trb){ .parameter = x->crcr & ~63ull,
							 .status = (uint32_t)CC_RING_STOPPED << 24,
							 .control = TRB_COMMAND_EVENT << 10 });
		}
		return;
	}
	if (high)
		x->crcr = (x->crcr & UINT32_MAX) | (uint64_t)v << 32;
	else
		x->crcr = (x->crcr & ~(uint64_t)UINT32_MAX) | (v & ~0x3eu);
}

static uint64_t half(uint64_t old, uint32_t v, bool high)
{
	return high ? (old & UINT32_MAX) | (uint64_t)v << 32 : (old & ~(uint64_t)UINT32_MAX) | v;
}

static void operational_write(struct xhci *x, unsigned reg, uint32_t v)
{
	switch (reg) {
	case USBCMD:
		write_usbcmd(x, v);
		break;
	case USBSTS:
		x->usbsts &= ~(v & STS_RW1C);
		break;
	case DNCTRL:
		x->dnctrl = v & 0xffff;
		break;
	case CRCR:
	case CRCR + 4:
		write_crcr(x, v, reg != CRCR);
		break;
	case DCBAAP:
	case DCBAAP + 4:
		x->dcbaap = half(x->dcbaap, reg == DCBAAP ? v & ~63u : v, reg != DCBAAP);
		break;
	case CONFIG:
		x->config = v & 0x3ff;
		break;
	}
}

static uint32_t operational_read(const struct xhci *x, unsigned reg)
{
	switch (reg) {
	case USBCMD:
		return x->usbcmd;
	case USBSTS:
		return x->usbsts;
	case PAGESIZE:
		return 1; /* 4 KiB */
	case DNCTRL:
		return x->dnctrl;
	case CRCR: /* the pointer reads as zero */
		return x->command_ring ? CRCR_CRR : 0;
	case DCBAAP:
		return (uint32_t)x->dcbaap;
	case DCBAAP + 4:
		return (uint32_t)(x->dcbaap >> 32);
	case CONFIG:
		return x->config;
	default:
		return 0;
	}
}

static void write_erdp(struct xhci *x, uint32_t v, bool high)
{
	uint64_t ehb = x->erdp & ERDP_EHB;

	if (!high && (v & ERDP_EHB))
		ehb = 0;
	x->erdp = half(x->erdp & ~(uint64_t)ERDP_EHB, high ? v : v & ~ERDP_EHB, high) | ehb;
	if (high)
		return;
	if (x->backlog_count || x->stale)
		drain_backlog(x);
	/* More came while the guest was at it: it is told again. */
	uint64_t base;
	uint32_t size;
	if (!(x->erdp & ERDP_EHB) && segment(x, x->er_segment, &base, &size) &&
	    base + 16ull * x->er_index != (x->erdp & ~15ull))
		raise_irq(x);
}

static void interrupter_write(struct xhci *x, unsigned reg, uint32_t v)
{
	switch (reg) {
	case IMAN:
		x->iman = (x->iman & ~(v & IMAN_IP) & ~IMAN_IE) | (v & IMAN_IE);
		update_irq(x);
		break;
	case IMOD:
		x->imod = v;
		break;
	case ERSTSZ:
		x->erstsz = (uint32_t)min_u64(v & 0xffff, MAX_SEGMENTS);
		break;
	case ERSTBA:
	case ERSTBA + 4:
		x->erstba = half(x->erstba, reg == ERSTBA ? v & ~63u : v, reg != ERSTBA);
		if (reg != ERSTBA) { /* the upper half begins a new ring */
			x->er_segment = x->er_index = 0;
			x->er_cycle = 1;
		}
		break;
	case ERDP:
	case ERDP + 4:
		write_erdp(x, v, reg != ERDP);
		break;
	}
}

static uint32_t interrupter_read(const struct xhci *x, unsigned reg)
{
	switch (reg) {
	case IMAN:
		return x->iman;
	case IMOD:
		return x->imod;
	case ERSTSZ:
		return x->erstsz;
	case ERSTBA:
		return (uint32_t)x->erstba;
	case ERSTBA + 4:
		return (uint32_t)(x->erstba >> 32);
	case ERDP:
		return (uint32_t)x->erdp;
	case ERDP + 4:
		return (uint32_t)(x->erdp >> 32);
	default:
		return 0;
	}
}

/* Capability registers and the two supported protocols (§5.3, §7.2), by dword. */
static const uint32_t capabilities[16] = {
	0x01100000u | OPERATIONAL,                        /* version 1.1; length */
	(uint32_t)XHCI_PORTS << 24 | 1 << 8 | XHCI_SLOTS, /* ports, interrupters, slots */
	4 << 4,                                           /* event ring segments: 2^4 */
	0,
	(EXT_CAPS >> 2) << 16 | 1, /* 64-bit addresses */
	DOORBELLS,
	RUNTIME,
	0,
	0x02000402, /* USB 2.0; the next one is 4 dwords on */
	0x20425355, /* "USB " */
	XHCI_USB2_PORTS << 8 | 1,
	0,
	0x03000002,
	0x20425355,
	XHCI_USB3_PORTS << 8 | (XHCI_USB2_PORTS + 1),
	0,
};

static uint32_t register_read(struct xhci *x, unsigned reg)
{
	if (reg < OPERATIONAL)
		return capabilities[reg / 4];
	if (reg < PORTS)
		return operational_read(x, reg - OPERATIONAL);
	if (reg < PORTS + 16 * XHCI_PORTS)
		return (reg & 15) == 0 ? x->portsc[(reg - PORTS) / 16 + 1] : 0;
	if (reg == RUNTIME) /* microframes */
		return x->usbcmd & CMD_RUN ? (uint32_t)(clock_now_ns(x->board->clock) / 125000) & 0x3fff : 0;
	if (reg >= INTERRUPTER && reg < INTERRUPTER + 32)
		return interrupter_read(x, reg - INTERRUPTER);
	return 0;
}

static void doorbell(struct xhci *x, unsigned slot, uint32_t v)
{
	if (!xhci_is_running(x))
		return;
	if (!slot) {
		if (!(v & 0xff)) {
			x->command_ring = true;
			xhci_run_commands(x);
		}
	} else if (slot <= XHCI_SLOTS && (v & 0xff) && (v & 0xff) < XHCI_ENDPOINTS) {
		unsigned ep = v & 0xff;

		if (x->ep_state[slot][ep] == EP_STOPPED) {
			x->ep_state[slot][ep] = EP_RUNNING;
			xhci_put_endpoint(x, slot, ep);
		}
		xhci_run_endpoint(x, slot, ep);
	}
}

static void register_write(struct xhci *x, unsigned reg, uint32_t v)
{
	if (reg >= OPERATIONAL && reg < PORTS)
		operational_write(x, reg - OPERATIONAL, v);
	else if (reg >= PORTS && reg < PORTS + 16 * XHCI_PORTS && (reg & 15) == 0)
		write_portsc(x, (reg - PORTS) / 16 + 1, v);
	else if (reg >= INTERRUPTER && reg < INTERRUPTER + 32)
		interrupter_write(x, reg - INTERRUPTER, v);
	else if (reg >= DOORBELLS && reg < DOORBELLS + 4 * 256)
		doorbell(x, (reg - DOORBELLS) / 4, v);
}

static uint64_t regs_read(void *opaque, uint64_t offset, unsigned size)
{
	struct xhci *x = opaque;
	uint64_t v = register_read(x, offset & ~3u) >> (8 * (offset & 3));

	if (size == 8)
		v |= (uint64_t)register_read(x, (offset & ~3u) + 4) << 32;
	return v;
}

/* Registers are written whole, pointers as one or as two halves, the low one first (§5.1). */
static void regs_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct xhci *x = opaque;

	if (size < 4 || (offset & 3))
		return;
	register_write(x, (unsigned)offset, (uint32_t)value);
	if (size == 8)
		register_write(x, (unsigned)offset + 4, (uint32_t)(value >> 32));
}

/* ---- life ---- */

static void wakeup(void *opaque, struct usb_device *d, unsigned endpoint)
{
	struct xhci *x = opaque;

	for (unsigned slot = 1; slot <= XHCI_SLOTS; slot++)
		if (x->slot_port[slot] == d->port)
			xhci_run_endpoint(x, slot, 2 * endpoint + 1);
}

static bool host_running(void *opaque)
{
	return xhci_is_running(opaque);
}

static void xhci_reset(struct device *dev)
{
	struct xhci *x = (struct xhci *)dev;

	pci_device_reset(&x->pci);
	controller_reset(x);
}

static int xhci_loaded(void *obj, struct error *err)
{
	struct xhci *x = obj;
	bool bad = x->erstsz > MAX_SEGMENTS || x->er_cycle > 1 || x->backlog_head >= XHCI_BACKLOG ||
		   x->backlog_count > XHCI_BACKLOG;

	for (unsigned s = 0; s <= XHCI_SLOTS; s++) {
		bad |= x->slot_port[s] > XHCI_PORTS || x->setup_state[s] > SETUP_DONE;
		for (unsigned e = 0; e < XHCI_ENDPOINTS; e++)
			bad |= x->ep_cycle[s][e] > 1 || x->ep_state[s][e] > EP_ERROR;
	}
	if (bad)
		return error_set(err, EINVAL,
				 "the saved state of the USB controller is impossible; it is damaged");
	int r = pci_device_loaded(&x->pci, err);
	if (!r)
		xhci_work_later(x);
	return r;
}

static const struct state_field xhci_fields[] = { PCI_DEVICE_FIELDS(struct xhci, pci),
						  F_U32(struct xhci, usbcmd),
						  F_U32(struct xhci, usbsts),
						  F_U32(struct xhci, dnctrl),
						  F_U32(struct xhci, config),
						  F_U64(struct xhci, crcr),
						  F_U64(struct xhci, dcbaap),
						  F_BOOL(struct xhci, command_ring),
						  F_U32S(struct xhci, portsc, XHCI_PORTS + 1),
						  F_U32(struct xhci, iman),
						  F_U32(struct xhci, imod),
						  F_U32(struct xhci, erstsz),
						  F_U64(struct xhci, erstba),
						  F_U64(struct xhci, erdp),
						  F_U32(struct xhci, er_segment),
						  F_U32(struct xhci, er_index),
						  F_U8(struct xhci, er_cycle),
						  F_U64S(struct xhci, backlog, 2 * XHCI_BACKLOG),
						  F_U32(struct xhci, backlog_head),
						  F_U32(struct xhci, backlog_count),
						  F_U64(struct xhci, stale),
						  F_BYTES(struct xhci, slot_enabled),
						  F_BYTES(struct xhci, slot_state),
						  F_BYTES(struct xhci, slot_port),
						  F_U64S(struct xhci, slot_context, XHCI_SLOTS + 1),
						  F_BYTES(struct xhci, ep_state),
						  F_BYTES(struct xhci, ep_cycle),
						  F_U64S(struct xhci, ep_deq,
							 (XHCI_SLOTS + 1) * XHCI_ENDPOINTS),
						  F_BYTES(struct xhci, setup),
						  F_BYTES(struct xhci, setup_state),
						  F_END };
static const struct state_table xhci_state = { "xhci", 1, xhci_fields, xhci_loaded };

static void xhci_free(struct device *dev)
{
	struct xhci *x = (struct xhci *)dev;

	/* Devices are newer, so they are gone, and with them what they had in flight. */
	loop_unpost(x->board->loop, &x->work);
	pci_device_fini(&x->pci);
	free(x);
}

static const struct device_class xhci_class = { "xhci", xhci_reset, &xhci_state, xhci_free };

int xhci_new(struct board *b, struct pci_bus *bus, struct xhci **ret, struct error *err)
{
	static const struct pci_ids ids = {
		.vendor = 0x1b36, .device = 0x000d, .class_code = 0x0c0330, .revision = 1, .intx_pin = 1
	};
	struct xhci *x = calloc(1, sizeof(*x));

	if (!x)
		return error_set(err, ENOMEM, "no memory for the USB controller; free some and try again");
	x->board = b;
	int r = pci_device_init(&x->pci, bus, PCI_DEVFN_ANY, &ids, &xhci_class, 0, err);
	if (r < 0) {
		free(x);
		return r;
	}
	x->regs = (struct io_region){ .name = "xhci", .read = regs_read, .write = regs_write, .opaque = x };
	x->work = (struct loop_work){ .fn = do_work, .opaque = x };
	pci_add_bar(&x->pci, 0, PCI_BAR_MEM64, REGS_SIZE, &x->regs);
	pci_msix_init(&x->pci, 1, 2);
	x->pci.config[0x60] = 0x30; /* serial bus release: USB 3.0 */
	x->pci.config[0x61] = 0x20; /* frame length */
	xhci_reset(&x->pci.dev);
	*ret = x;
	return 0;
}

struct pci_device *xhci_pci(struct xhci *x)
{
	return &x->pci;
}

unsigned xhci_plug(struct xhci *x, struct usb_device *d)
{
	unsigned port = 1;

	while (port <= XHCI_USB2_PORTS && x->device[port])
		port++;
	if (port > XHCI_USB2_PORTS)
		return 0;
	x->device[port] = d;
	d->port = (uint8_t)port;
	d->host = (struct usb_host){ .wakeup = wakeup, .running = host_running, .opaque = x };
	port_init(x, port);
	return port;
}
