/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local APIC: one per vCPU, xAPIC and x2APIC modes (SDM 3A chapter 11).
 *
 * Threads.  The vCPU's own thread calls what reads and writes registers,
 * lapic_ack, lapic_timer_poll and lapic_init; any thread may raise interrupts
 * (through irq.h) and ask lapic_irq_pending.  State is guarded by the router's
 * lock; the timer's deadline is only touched by the vCPU's thread, or while the
 * vCPU does not run.
 *
 * A raise that makes lapic_irq_pending turn true calls host.kick, whichever
 * thread it happens in; the vCPU then finds it true until lapic_ack takes it or
 * the guest masks it.
 *
 * Time.  The timer's bus clock is 1 GHz: a count of 1 with divisor 1 is one
 * nanosecond of virtual time (LAPIC_TIMER_HZ, for CPUID 15h.ECX or the like).
 */
#ifndef SILL_DEV_IRQ_LAPIC_H
#define SILL_DEV_IRQ_LAPIC_H

#include "base/clock.h"
#include "dev/device.h"
#include "engine/engine.h"

struct irq_message;
struct irq_router;
struct lapic;

#define LAPIC_BASE     0xfee00000ull
#define LAPIC_SIZE     0x1000u
#define LAPIC_TIMER_HZ 1000000000u

enum lapic_event { LAPIC_EVENT_INIT, LAPIC_EVENT_SIPI, LAPIC_EVENT_NMI };

struct lapic_host {
	void *opaque;
	/* Makes the vCPU look soon. Any thread; the router's lock is held: takes none of rank <=
	 * LOCK_RANK_IRQ. */
	void (*kick)(void *opaque);
	/*
	 * Kicks the vCPU when the clock reaches virtual_ns; INT64_MAX disarms. Called in the vCPU's thread
	 * (or while it does not run) without locks.
	 */
	void (*arm_timer)(void *opaque, int64_t virtual_ns);
	/* The guest's TSC now. vCPU's thread, router's lock held. */
	uint64_t (*tsc_now)(void *opaque);
	uint32_t tsc_khz; /* 0: no TSC-deadline mode, MSR 0x6e0 is #GP */
	/*
	 * INIT, start-up IPI (vector: page number of the start address) or NMI arrived. Any thread, router's
	 * lock held: note it and kick. The vCPU's thread answers INIT with lapic_init besides resetting the
	 * CPU.
	 */
	void (*init_sipi_nmi)(void *opaque, enum lapic_event event, uint8_t vector);
	struct clock *clock;
	bool no_x2apic;    /* CPUID does not offer x2APIC */
	uint8_t phys_bits; /* MAXPHYADDR; 0: 52 */
};

/*
 * Makes the LAPIC of the next vCPU, whose x2APIC id is apic_id, and registers it with r and the board. The
 * first one made is the bootstrap processor's. 0, -ENOSPC (too many) or -ENOMEM.
 */
int lapic_new(struct board *b, struct irq_router *r, uint32_t apic_id, const struct lapic_host *host,
	      struct lapic **ret, struct error *err);
uint32_t lapic_id(const struct lapic *l);
/* Fills in the callbacks that the engine wants: opaque is the lapic. */
void lapic_fill_board(struct lapic *l, struct vcpu_board *board);

/* True if something waits that lapic_ack would give. Any thread, no lock. */
bool lapic_irq_pending(const struct lapic *l);
/* Takes the highest interrupt into service: its vector (the PIC's for ExtINT), or -1. vCPU's thread. */
int lapic_ack(struct lapic *l);
/* Fires what is due and re-arms the host's timer. vCPU's thread, after each kick. */
void lapic_timer_poll(struct lapic *l);
/*
 * Tells the host's timer anew: to be called for each LAPIC after the clock was started (on resume, after a
 * load), since a deadline given while it stood, or before, names the wrong moment. While the vCPU does not
 * run.
 */
void lapic_clock_changed(struct lapic *l);
/* The INIT reset: registers go to power-on values, the APIC ID and APIC_BASE stay (SDM 3A 11.4.7.3). vCPU's
 * thread. */
void lapic_init(struct lapic *l);

/*
 * KVM_HC_SEND_IPI (Linux, Documentation/virt/kvm/x86/hypercalls.rst): sends `icr` to the APIC IDs min + i of
 * the bits i in the two words, each `width` bits wide. The number of LAPICs that took it, or a negative
 * KVM error. vCPU's thread.
 */
int64_t lapic_pv_ipi(struct lapic *l, const uint64_t bitmap[2], unsigned width, uint64_t min, uint64_t icr);

/* Guest-physical address of its page. vCPU's thread. */
uint64_t lapic_page(const struct lapic *l);
/* Registers, as offsets into the xAPIC page; size 1, 2, 4. In x2APIC or disabled mode the page floats. vCPU's
 * thread. */
uint64_t lapic_mmio_read(struct lapic *l, uint64_t offset, unsigned size);
void lapic_mmio_write(struct lapic *l, uint64_t offset, uint64_t value, unsigned size);
/* A register at a guest-physical address, if all of it is to be read and that is nothing but a load. vCPU's
 * thread, general-regs-only. */
bool lapic_peek(const struct lapic *l, uint64_t pa, uint32_t *value);
/* MSRs 0x1b, 0x6e0 and 0x800..0x8ff: 0, or -1 for #GP (any other index too). vCPU's thread. */
int lapic_msr_read(struct lapic *l, uint32_t index, uint64_t *value);
int lapic_msr_write(struct lapic *l, uint32_t index, uint64_t value);
uint8_t lapic_cr8_read(struct lapic *l);
void lapic_cr8_write(struct lapic *l, uint8_t value);

/* Raises the LVT entry for performance counters (masks itself, SDM 3A 11.5.1) or the thermal sensor. Any
 * thread. */
void lapic_raise_perf(struct lapic *l);
void lapic_raise_thermal(struct lapic *l);

/* ---- for the router, with its lock held ---- */

bool lapic_matches_locked(const struct lapic *l, const struct irq_message *m);
/* True if the LAPIC took it. */
bool lapic_accept_locked(struct lapic *l, const struct irq_message *m);
/* For lowest-priority delivery: can it take a fixed interrupt, and its processor priority. */
bool lapic_enabled_locked(const struct lapic *l);
/* Of an edge-triggered vector: IRQ_PENDING, IRQ_SERVED or IRQ_IDLE. */
enum irq_state lapic_vector_state_locked(const struct lapic *l, uint8_t vector);
uint8_t lapic_ppr_locked(const struct lapic *l);
void lapic_lint0_locked(struct lapic *l, bool level);
void lapic_lint1_pulse_locked(struct lapic *l);
void lapic_update_locked(struct lapic *l);

#endif
