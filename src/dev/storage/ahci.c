/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Serial ATA AHCI 1.3.1, as in Intel's ICH9 (316972 §15): six ports, 32 command
 * slots, native command queueing, 64-bit addresses, no port multipliers, no power
 * management.  Only the AHCI interface is there (CAP.SAM), no IDE one.
 *
 * A drive is there from the start or never.  After a reset of the controller or
 * of a port's link the link is up at once, and the drive's signature arrives as
 * soon as the host lets FISes in.  Commands: see ahci_cmd.c.
 */
#include "dev/storage/ahci.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "dev/storage/ahci_internal.h"

/* Generic host control */
enum { CAP = 0x00, GHC = 0x04, IS = 0x08, PI = 0x0c, VS = 0x10, PORTS = 0x100, PORT_SIZE = 0x80 };
#define REGS_SIZE 0x1000u
#define CAP_VALUE                                                                                            \
	(1u << 31 /* 64-bit */ | 1u << 30 /* NCQ */ | 1u << 24 /* CLO */ | 3u << 20 /* 6 Gbit/s */ |         \
	 1u << 18 /* AHCI only */ | (AHCI_SLOTS - 1) << 8 | (AHCI_PORTS - 1))
#define PI_VALUE ((1u << AHCI_PORTS) - 1)
#define VS_VALUE 0x00010301u
#define GHC_HR   0x00000001u
#define GHC_IE   0x00000002u
#define GHC_AE   0x80000000u

/* Port registers */
enum {
	CLB = 0x00,
	CLBU = 0x04,
	FB = 0x08,
	FBU = 0x0c,
	PIS = 0x10,
	PIE = 0x14,
	CMD = 0x18,
	TFD = 0x20,
	SIG = 0x24,
	SSTS = 0x28,
	SCTL = 0x2c,
	SERR = 0x30,
	SACT = 0x34,
	CI = 0x38
};
#define IE_WRITABLE 0x7dc000ffu
#define SSTS_UP     0x133u /* active, 6 Gbit/s, drive there and link established */
#define SIG_DISK    0x00000101u
#define SIG_CD      0xeb140101u
#define SERR_X      0x04000000u /* exchanged: the host is to look again */
#define TFD_NONE    0x7fu

/* ---- interrupts ---- */

/* event: something new happened, which a message tells of even if others are still unanswered. */
static void update_irq(struct ahci *h, bool event)
{
	bool level = h->is && (h->ghc & GHC_IE);

	pci_intx_set(&h->pci, level && !pci_msix_enabled(&h->pci));
	if (level && event && pci_msix_enabled(&h->pci))
		pci_msix_notify(&h->pci, 0);
}

static void update_port(struct ahci_port *p, bool event)
{
	struct ahci *h = p->ahci;

	if (p->is & p->ie)
		h->is |= 1u << p->nr;
	update_irq(h, event && (p->is & p->ie));
}

void ahci_raise(struct ahci_port *p, uint32_t is)
{
	p->is |= is;
	update_port(p, is & p->ie);
}

/* ---- the link ---- */

/* The drive is found by its signature, which comes as its first FIS. */
static void send_first_fis(struct ahci_port *p)
{
	if (!p->first_fis || !(p->cmd & CMD_FR))
		return;
	p->first_fis = false;
	ahci_send_registers(p, IS_DHR);
}

/* COMRESET, or power. */
static void reset_link(struct ahci_port *p)
{
	struct ata_drive *d = &p->drive;

	ahci_stop(p);
	ata_reset(d);
	if (!ata_present(d)) {
		p->ssts = 0;
		p->sig = UINT32_MAX;
		p->tfd = TFD_NONE;
		return;
	}
	p->ssts = SSTS_UP;
	p->sig = d->is_cd ? SIG_CD : SIG_DISK;
	p->tfd = (uint32_t)d->error << 8 | d->status;
	p->serr |= SERR_X;
	p->first_fis = true;
	ahci_raise(p, IS_PC);
	send_first_fis(p);
}

static void write_sctl(struct ahci_port *p, uint32_t v)
{
	uint32_t old = p->sctl & 15;

	p->sctl = v & 0xfff;
	if ((v & 15) == 1 && old != 1) { /* the link is held in reset */
		ahci_stop(p);
		p->ssts = 0;
		p->tfd = TFD_NONE;
	} else if ((v & 15) == 0 && old != 0) {
		reset_link(p);
	} else if ((v & 15) == 4) { /* off */
		ahci_stop(p);
		p->ssts = ata_present(&p->drive) ? 4 : 0;
	}
}

/* ---- registers ---- */

static void write_cmd(struct ahci_port *p, uint32_t v)
{
	uint32_t old = p->cmd;

	p->cmd =
	    (old & (CMD_CCS | CMD_CR | CMD_FR)) | CMD_SUD | CMD_POD | (v & (CMD_ST | CMD_FRE | CMD_WRITABLE));
	if (v & CMD_CLO)
		p->tfd &= ~(uint32_t)(ATA_BSY | ATA_DRQ);
	p->cmd = v & CMD_FRE ? p->cmd | CMD_FR : p->cmd & ~CMD_FR;
	send_first_fis(p);
	if ((v & CMD_ST) && !(old & CMD_ST)) {
		p->cmd = (p->cmd | CMD_CR) & ~CMD_CCS;
		ahci_run(p);
	} else if (!(v & CMD_ST) && (old & CMD_ST)) {
		p->cmd &= ~(CMD_CR | CMD_CCS);
		ahci_stop(p);
	}
}

static uint32_t port_read(const struct ahci_port *p, unsigned offset)
{
	switch (offset) {
	case CLB:
		return (uint32_t)p->clb;
	case CLBU:
		return (uint32_t)(p->clb >> 32);
	case FB:
		return (uint32_t)p->fb;
	case FBU:
		return (uint32_t)(p->fb >> 32);
	case PIS: /* PC shows what SERR says */
		return (p->is & ~IS_PC) | (p->serr & SERR_X ? IS_PC : 0);
	case PIE:
		return p->ie;
	case CMD:
		return p->cmd;
	case TFD:
		return p->tfd;
	case SIG:
		return p->sig;
	case SSTS:
		return p->ssts;
	case SCTL:
		return p->sctl;
	case SERR:
		return p->serr;
	case SACT:
		return p->sact;
	case CI:
		return p->ci;
	default:
		return 0;
	}
}

static uint64_t replace(uint64_t old, uint32_t v, bool high)
{
	return high ? (old & UINT32_MAX) | (uint64_t)v << 32 : (old & ~(uint64_t)UINT32_MAX) | v;
}

static void port_write(struct ahci_port *p, unsigned offset, uint32_t v)
{
	switch (offset) {
	case CLB:
	case CLBU:
		p->clb = replace(p->clb, offset == CLB ? v & ~0x3ffu : v, offset == CLBU);
		break;
	case FB:
	case FBU:
		p->fb = replace(p->fb, offset == FB ? v & ~0xffu : v, offset == FBU);
		break;
	case PIS:
		p->is &= ~(v & ~IS_PC);
		update_port(p, false);
		break;
	case PIE:
		p->ie = v & IE_WRITABLE;
		update_port(p, true);
		break;
	case CMD:
		write_cmd(p, v);
		break;
	case SCTL:
		write_sctl(p, v);
		break;
	case SERR:
		p->serr &= ~v;
		if (!(p->serr & SERR_X))
			p->is &= ~IS_PC;
		update_port(p, false);
		break;
	case SACT: /* only set, and only while commands are accepted */
		if (p->cmd & CMD_ST)
			p->sact |= v;
		break;
	case CI:
		if (p->cmd & CMD_ST) {
			p->ci |= v;
			ahci_run(p);
		}
		break;
	default:
		break;
	}
}

static void host_reset(struct ahci *h)
{
	h->ghc = GHC_AE;
	for (unsigned i = 0; i < AHCI_PORTS; i++) {
		struct ahci_port *p = &h->port[i];

		ahci_stop(p);
		p->clb = p->fb = 0;
		p->is = p->ie = p->sctl = p->serr = 0;
		p->cmd = CMD_SUD | CMD_POD;
		reset_link(p);
	}
	h->is = 0;
	update_irq(h, false);
}

static uint64_t regs_read(void *opaque, uint64_t offset, unsigned size)
{
	struct ahci *h = opaque;
	unsigned shift = 8 * (offset & 3), reg = offset & ~3u;
	uint32_t v = 0;

	(void)size;
	if (reg >= PORTS && (reg - PORTS) / PORT_SIZE < AHCI_PORTS)
		v = port_read(&h->port[(reg - PORTS) / PORT_SIZE], reg % PORT_SIZE);
	else if (reg == CAP)
		v = CAP_VALUE;
	else if (reg == GHC)
		v = h->ghc;
	else if (reg == IS)
		v = h->is;
	else if (reg == PI)
		v = PI_VALUE;
	else if (reg == VS)
		v = VS_VALUE;
	return v >> shift;
}

/* Registers are written whole (§3); what comes narrower is not for them. */
static void regs_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct ahci *h = opaque;
	uint32_t v = (uint32_t)value;

	if (size != 4)
		return;
	if (offset >= PORTS && (offset - PORTS) / PORT_SIZE < AHCI_PORTS) {
		port_write(&h->port[(offset - PORTS) / PORT_SIZE], offset % PORT_SIZE, v);
	} else if (offset == GHC) {
		if (v & GHC_HR) {
			host_reset(h);
			return;
		}
		h->ghc = GHC_AE | (v & GHC_IE);
		update_irq(h, true);
	} else if (offset == IS) {
		h->is &= ~v;
		for (unsigned i = 0; i < AHCI_PORTS; i++)
			if (h->port[i].is & h->port[i].ie)
				h->is |= 1u << i;
		update_irq(h, true);
	}
}

/* ---- life ---- */

static void ahci_reset(struct device *dev)
{
	struct ahci *h = (struct ahci *)dev;

	pci_device_reset(&h->pci);
	host_reset(h);
}

static int ahci_loaded(void *obj, struct error *err)
{
	struct ahci *h = obj;

	h->is &= PI_VALUE;
	for (unsigned i = 0; i < AHCI_PORTS; i++) {
		struct ahci_port *p = &h->port[i];
		struct ata_drive *d = &p->drive;

		d->phase = ATA_IDLE;
		p->current = -1;
		p->clb &= ~0x3ffull;
		p->fb &= ~0xffull;
		if (!ata_state_ok(d))
			return error_set(
			    err, EINVAL,
			    "the saved state of the AHCI controller is impossible; it is damaged");
	}
	return pci_device_loaded(&h->pci, err);
}

#define PORT_FIELDS(n)                                                                                       \
	F_U64(struct ahci, port[n].clb), F_U64(struct ahci, port[n].fb), F_U32(struct ahci, port[n].is),     \
	    F_U32(struct ahci, port[n].ie), F_U32(struct ahci, port[n].cmd),                                 \
	    F_U32(struct ahci, port[n].tfd), F_U32(struct ahci, port[n].sig),                                \
	    F_U32(struct ahci, port[n].ssts), F_U32(struct ahci, port[n].sctl),                              \
	    F_U32(struct ahci, port[n].serr), F_U32(struct ahci, port[n].sact),                              \
	    F_U32(struct ahci, port[n].ci), F_BOOL(struct ahci, port[n].first_fis),                          \
	    F_BOOL(struct ahci, port[n].in_reset), F_BOOL(struct ahci, port[n].failed),                      \
	    F_U8(struct ahci, port[n].drive.failed_tag), F_U64(struct ahci, port[n].drive.failed_lba),       \
	    F_U32(struct ahci, port[n].drive.failed_count), ATA_REGISTER_FIELDS(struct ahci, port[n].drive)

static const struct state_field ahci_fields[] = { PCI_DEVICE_FIELDS(struct ahci, pci),
						  F_U32(struct ahci, ghc),
						  F_U32(struct ahci, is),
						  PORT_FIELDS(0),
						  PORT_FIELDS(1),
						  PORT_FIELDS(2),
						  PORT_FIELDS(3),
						  PORT_FIELDS(4),
						  PORT_FIELDS(5),
						  F_END };
static const struct state_table ahci_state = { "ahci", 1, ahci_fields, ahci_loaded };

static void ahci_free(struct device *dev)
{
	struct ahci *h = (struct ahci *)dev;

	for (unsigned i = 0; i < AHCI_PORTS; i++)
		ahci_stop(&h->port[i]);
	pci_device_fini(&h->pci);
	free(h);
}

static const struct device_class ahci_class = { "ahci", ahci_reset, &ahci_state, ahci_free };

int ahci_new(struct board *b, struct pci_bus *bus, struct ahci **ret, struct error *err)
{
	static const struct pci_ids ids = {
		.vendor = 0x8086, .device = 0x2922, .class_code = 0x010601, .revision = 2, .intx_pin = 1
	};
	struct ahci *h = calloc(1, sizeof(*h));

	if (!h)
		return error_set(err, ENOMEM, "no memory for the AHCI controller; free some and try again");
	h->board = b;
	int r = pci_device_init(&h->pci, bus, PCI_DEVFN_ANY, &ids, &ahci_class, 0, err);
	if (r < 0) {
		free(h);
		return r;
	}
	h->regs = (struct io_region){
		.name = "ahci", .read = regs_read, .write = regs_write, .opaque = h, .max_size = 4
	};
	pci_add_bar(&h->pci, 5, PCI_BAR_MEM32, REGS_SIZE, &h->regs);
	pci_msix_init(&h->pci, 1, 0);
	for (unsigned i = 0; i < AHCI_PORTS; i++) {
		h->port[i].ahci = h;
		h->port[i].nr = i;
		ahci_port_init(&h->port[i]);
	}
	ahci_reset(&h->pci.dev);
	*ret = h;
	return 0;
}

struct pci_device *ahci_pci(struct ahci *h)
{
	return &h->pci;
}

void ahci_add_disk(struct ahci *h, unsigned nr, struct block *block, const char *serial)
{
	struct ata_drive *d = &h->port[nr].drive;

	d->block = block;
	strncpy(d->serial, serial, sizeof(d->serial) - 1);
	reset_link(&h->port[nr]);
}

struct ata_drive *ahci_add_cd(struct ahci *h, unsigned nr, struct block *block, const char *serial)
{
	struct ata_drive *d = &h->port[nr].drive;

	d->is_cd = true;
	d->cd.block = block;
	strncpy(d->serial, serial, sizeof(d->serial) - 1);
	reset_link(&h->port[nr]);
	return d;
}
