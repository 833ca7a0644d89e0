/* SPDX-License-Identifier: Apache-2.0 */
/* The local APIC (lapic.c), its timer (lapic_timer.c) and its MSRs (lapic_msr.c). */
#ifndef SILL_DEV_IRQ_LAPIC_INTERNAL_H
#define SILL_DEV_IRQ_LAPIC_INTERNAL_H

#include <stdatomic.h>

#include "dev/irq/irq.h"
#include "dev/irq/lapic.h"

/* Register numbers: xAPIC offset >> 4, x2APIC MSR - 0x800 (SDM 3A table 11-6) */
enum {
	REG_ID = 0x02,
	REG_VERSION = 0x03,
	REG_TPR = 0x08,
	REG_APR = 0x09,
	REG_PPR = 0x0a,
	REG_EOI = 0x0b,
	REG_RRD = 0x0c,
	REG_LDR = 0x0d,
	REG_DFR = 0x0e,
	REG_SVR = 0x0f,
	REG_ISR = 0x10,
	REG_TMR = 0x18,
	REG_IRR = 0x20,
	REG_ESR = 0x28,
	REG_ICR = 0x30,
	REG_ICR_HIGH = 0x31,
	REG_LVT_TIMER = 0x32,
	REG_LVT_THERMAL = 0x33,
	REG_LVT_PERF = 0x34,
	REG_LVT_LINT0 = 0x35,
	REG_LVT_LINT1 = 0x36,
	REG_LVT_ERROR = 0x37,
	REG_TIMER_INITIAL = 0x38,
	REG_TIMER_CURRENT = 0x39,
	REG_TIMER_DIVIDE = 0x3e,
	REG_SELF_IPI = 0x3f,
};
enum { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };

#define BASE_BSP    (1ull << 8)
#define BASE_EXTD   (1ull << 10)
#define BASE_ENABLE (1ull << 11)

#define SVR_ENABLE   (1u << 8)
#define SVR_SUPPRESS (1u << 12)
#define SVR_WRITABLE (0xffu | SVR_ENABLE | SVR_SUPPRESS | 1u << 9)

#define LVT_MASKED     (1u << 16)
#define LVT_LEVEL      (1u << 15)
#define LVT_REMOTE_IRR (1u << 14)
#define LVT_MODE(v)    ((v) >> 8 & 7)
#define TIMER_MODE(v)  ((v) >> 17 & 3)

enum { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_TSC_DEADLINE };

/* Error status (SDM 3A 11.5.3) */
#define ESR_SEND_VECTOR    (1u << 5)
#define ESR_RECEIVE_VECTOR (1u << 6)
#define ESR_REGISTER       (1u << 7)

/* ICR (SDM 3A 11.6.1) */
#define ICR_VECTOR       0xffu
#define ICR_MODE(v)      ((v) >> 8 & 7)
#define ICR_LOGICAL      (1u << 11)
#define ICR_ASSERT       (1u << 14)
#define ICR_LEVEL        (1u << 15)
#define ICR_SHORTHAND(v) ((v) >> 18 & 3)
#define ICR_WRITABLE     0x000ccfffu

struct lapic {
	struct device dev;
	struct irq_router *router;
	struct lapic_host host;
	uint32_t id;
	bool is_bsp;

	uint64_t apic_base;
	uint32_t tpr, ldr, dfr, svr;
	uint32_t esr, esr_next; /* what is read; what the next write latches */
	uint32_t icr, icr_high;
	uint32_t lvt[LVT_COUNT];
	uint32_t irr[8], isr[8], tmr[8];
	bool ext_latched; /* an ExtINT message waits */
	bool lint0;       /* level of the PIC's INT */

	/* vCPU's thread */
	uint32_t timer_initial, timer_divide;
	int64_t timer_deadline; /* virtual ns of the next expiry, INT64_MAX when none */
	uint64_t tsc_deadline;
	int64_t armed; /* what the host was told last */

	atomic_bool pending;
};

static inline bool lapic_hw_enabled(const struct lapic *l)
{
	return l->apic_base & BASE_ENABLE;
}

static inline bool lapic_x2apic(const struct lapic *l)
{
	return (l->apic_base & (BASE_ENABLE | BASE_EXTD)) == (BASE_ENABLE | BASE_EXTD);
}

/* Is its page there? */
static inline bool lapic_page_decoded(const struct lapic *l)
{
	return lapic_hw_enabled(l) && !lapic_x2apic(l);
}

static inline int64_t lapic_now_ns(const struct lapic *l)
{
	return clock_now_ns(l->host.clock);
}

static inline unsigned lapic_timer_mode(const struct lapic *l)
{
	return TIMER_MODE(l->lvt[LVT_TIMER]);
}

/* ---- lapic.c; _locked: with the router's lock held ---- */

/* The bits of each LVT entry that the guest may set. */
extern const uint32_t lapic_lvt_writable[LVT_COUNT];

/* An event at the local pin or source of LVT entry n. */
void lapic_lvt_fire_locked(struct lapic *l, unsigned n);
/* Sets an ESR_* bit for the next latching, and fires the error entry if it is new. */
void lapic_esr_error_locked(struct lapic *l, uint32_t bit);
/* True if the LAPIC took the vector. */
bool lapic_accept_fixed_locked(struct lapic *l, uint8_t vector, bool level);
/* A register of the page that is nothing but what was written (lapic_gpr.c); false: none of these. */
bool lapic_plain_register(const struct lapic *l, unsigned reg, uint32_t *v);
/* Registers that both modes have, as the MSRs of x2APIC mode show them. vCPU's thread. False: there is none
 * to read, or to write. */
bool lapic_reg_read_locked(struct lapic *l, unsigned reg, uint32_t *v);
bool lapic_reg_write_locked(struct lapic *l, unsigned reg, uint32_t v);
/* To what they are after INIT. */
void lapic_reset_registers_locked(struct lapic *l);

/* ---- lapic_timer.c; vCPU's thread ---- */

/* True if the host may need re-arming after a write to this register. */
bool lapic_timer_register(unsigned reg);
/* Fires what is due at `now` and works out the next deadline. */
void lapic_timer_advance_locked(struct lapic *l, int64_t now);
/* The current count. */
uint32_t lapic_timer_current(const struct lapic *l, int64_t now);
/* Writes of the initial count, the divide register, the LVT entry (v: checked as every entry is). */
void lapic_timer_start_locked(struct lapic *l, uint32_t initial);
void lapic_timer_set_divide_locked(struct lapic *l, uint32_t v);
void lapic_timer_lvt_write_locked(struct lapic *l, uint32_t v);
/* WRMSR of the TSC deadline, without the lock: 0, or -1 if this machine has none. */
int lapic_tsc_deadline_write(struct lapic *l, uint64_t v);
/* Tells the host when to kick the vCPU, if that is news or `force`. Without the lock. */
void lapic_timer_arm(struct lapic *l, bool force);

#endif
