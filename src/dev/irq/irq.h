/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interrupt fabric: who is wired to what.
 *
 *	ISA IRQ n ----+--> PIC pin n ------ INT --+--> LINT0 of every LAPIC
 *	              |                           +--> IOAPIC pin 0 (ExtINT)
 *	              +--> IOAPIC pin n (IRQ 0: pin 2; IRQ 2 is the cascade)
 *	PIRQ line p --+--> IOAPIC pin 16 + p
 *	              +--> PIC pin pirq_pic[p] (PIIX3 route register)
 *	HPET -> IOAPIC pins 20..23
 *	MSI, IPI, IOAPIC message -> the LAPICs that its destination names
 *
 * One lock of rank LOCK_RANK_IRQ guards the PIC, the IOAPIC and all LAPICs: an
 * EOI at a LAPIC goes on to the IOAPIC, which may send again to any LAPIC, and
 * an acknowledge goes on to the PIC, so that locks per chip would have to nest
 * in both directions.  Only lapic_irq_pending, which vCPUs ask all the time,
 * goes without it.
 *
 * Order of construction: irq_router_new (makes PIC and IOAPIC), then one
 * lapic_new per vCPU, before any vCPU runs.
 */
#ifndef SILL_DEV_IRQ_IRQ_H
#define SILL_DEV_IRQ_IRQ_H

#include "dev/device.h"

struct ioapic;
struct lapic;
struct pic;

#define IRQ_ISA_COUNT  16
#define IRQ_PIRQ_COUNT 4
#define IRQ_PIRQ_OFF   0x80 /* pirq_pic: this line reaches no PIC pin */
#define IRQ_MAX_LAPICS 256

/* Delivery modes as the IOAPIC, the ICR and MSIs encode them (SDM 3A 11.6.1) */
enum irq_mode {
	IRQ_MODE_FIXED,
	IRQ_MODE_LOWEST,
	IRQ_MODE_SMI,
	IRQ_MODE_RESERVED,
	IRQ_MODE_NMI,
	IRQ_MODE_INIT,
	IRQ_MODE_SIPI,
	IRQ_MODE_EXTINT,
};

struct irq_message {
	uint32_t dest; /* 8 bits unless x2apic */
	bool logical;
	bool x2apic;  /* dest is a 32-bit x2APIC destination (sent by a LAPIC in that mode) */
	bool level;   /* trigger mode */
	uint8_t mode; /* enum irq_mode */
	uint8_t vector;
};

struct irq_router {
	struct device dev;
	struct board *board;
	struct mutex lock; /* LOCK_RANK_IRQ: everything below, and the chips' state */
	struct pic *pic;
	struct ioapic *ioapic;
	struct lapic *lapic[IRQ_MAX_LAPICS];
	unsigned nr_lapics;
	uint32_t isa_levels; /* bit n: ISA source n asserts */
	uint8_t pirq_levels; /* bit p: some PCI device asserts line p */
	uint8_t pirq_pic[IRQ_PIRQ_COUNT];
	uint32_t rotor; /* breaks ties of lowest-priority delivery */
	/* Which LAPIC the calling thread's MMIO access goes to (see irq_router_set_current). */
	struct lapic *(*current)(void *opaque);
	void *current_opaque;
	struct io_region lapic_region; /* at LAPIC_BASE */
	struct io_region moved_region; /* where some LAPIC was moved last; size 0: none was */
};

/* Makes the router, its PIC (ports) and IOAPIC (0xfec00000) and the LAPIC window (0xfee00000). 0 or -errno.
 */
int irq_router_new(struct board *b, struct irq_router **ret, struct error *err);
/*
 * current(opaque) returns the LAPIC of the vCPU whose thread calls, or NULL (accesses then float). Without a
 * function the window belongs to LAPIC 0. Before vCPUs run.
 */
void irq_router_set_current(struct irq_router *r, struct lapic *(*current)(void *), void *opaque);

/* A LAPIC's page is at `page` now. There is one window besides the usual: one page for all that move. [io
 * lock, or before vCPUs run] */
void irq_router_lapic_page(struct irq_router *r, uint64_t page);

/* An ISA interrupt line, 0..15, as devices hold it. */
struct irq_line irq_router_isa_line(struct irq_router *r, unsigned irq);
/* An IOAPIC pin that no ISA or PIRQ line is wired to, 20..23, as a device holds it. */
struct irq_line irq_router_ioapic_line(struct irq_router *r, unsigned pin);
/* Drives ISA IRQ n / PIRQ line p (0..3); the caller has OR-ed the sources of a line. Any thread. */
void irq_router_set_isa(struct irq_router *r, unsigned irq, bool level);
void irq_router_set_pirq(struct irq_router *r, unsigned line, bool level);
/* What an edge of ISA IRQ n would meet: at the IOAPIC, or at the PIC where that is masked. Any thread. */
enum irq_state irq_router_isa_state(struct irq_router *r, unsigned irq);
/* Connects PIRQ line p to PIC pin `irq`; IRQ_PIRQ_OFF or an impossible pin (0, 1, 2, 8, 13) disconnects. Any
 * thread. */
void irq_router_route_pirq(struct irq_router *r, unsigned line, uint8_t irq);
/* Pulses LINT1 (NMI) of every LAPIC. Any thread. */
void irq_router_nmi(struct irq_router *r);

/* Delivers the memory write (address, data) as a message. 0, or -EINVAL if the address is not 0xfeexxxxx. Any
 * thread. */
int msi_send(struct irq_router *r, uint64_t address, uint32_t data);

/* ---- between the chips; r->lock held ---- */

/* Number of LAPICs that took the message. from is left out if it is not NULL. */
unsigned irq_deliver_locked(struct irq_router *r, const struct irq_message *m, const struct lapic *except);
/* Whether the LAPICs that would get the message have yet to deal with an earlier one of the same vector. */
enum irq_state irq_message_state_locked(const struct irq_router *r, const struct irq_message *m);
/* The PIC's INT output changed. */
void irq_pic_output_locked(struct irq_router *r, bool level);
/* A LAPIC finished a level-triggered vector. */
void irq_eoi_locked(struct irq_router *r, uint8_t vector);

#endif
