/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local APIC: SDM 3A chapter 11 ("Advanced Programmable Interrupt Controller").
 *
 * An interrupt passes IRR -> (priority above PPR, lapic_ack) -> ISR -> EOI.
 * `pending` is derived from IRR, ISR, TPR and the PIC's INT at the end of every
 * operation that changes one of them; it is what vCPUs look at without the lock,
 * and its rise is what kicks them.
 *
 * ExtINT.  The PIC's INT is wired to LINT0 of every LAPIC.  A LAPIC takes it
 *  - when LINT0 is unmasked in ExtINT mode, or
 *  - when it is globally disabled and is the bootstrap processor's, LINT0 being
 *    the CPU's INTR then (SDM 3A 11.4.3), or
 *  - when an IOAPIC entry or MSI of mode ExtINT told it to.
 * The bootstrap processor's LINT0 comes out of reset in ExtINT mode, unmasked:
 * firmware leaves it that way (virtual wire mode, MP spec 3.6.2.2), and a kernel
 * that is loaded directly finds what firmware would have left.  It works before
 * the LAPIC is enabled by software, too.
 *
 * Timer.  All times are virtual nanoseconds; the current count is computed when
 * it is read.  Only the vCPU's thread fires it, in lapic_timer_poll, which the
 * host calls after the kick that arm_timer promised.
 *
 * The page is where APIC_BASE says, in the router's window there; RAM at that
 * address hides it, though (SDM 3A 11.4.5 has the APIC win).
 *
 * Not modelled: SMIs, the CMCI entry, bus arbitration (delivery is immediate, so
 * "send pending" is never seen).  The ID is read-only.
 */
#include "dev/irq/lapic.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "dev/irq/ioapic.h"
#include "dev/irq/irq.h"
#include "dev/irq/pic.h"

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

#define MSR_APIC_BASE    0x1bu
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_X2APIC       0x800u

#define BASE_BSP    (1ull << 8)
#define BASE_EXTD   (1ull << 10)
#define BASE_ENABLE (1ull << 11)

/* Version 0x14, EOI-broadcast suppression, highest LVT entry (SDM 3A 11.4.8) */
#define VERSION (0x14u | (LVT_COUNT - 1) << 16 | 1u << 24)

#define SVR_ENABLE   (1u << 8)
#define SVR_SUPPRESS (1u << 12)
#define SVR_WRITABLE (0xffu | SVR_ENABLE | SVR_SUPPRESS | 1u << 9)

#define LVT_MASKED     (1u << 16)
#define LVT_LEVEL      (1u << 15)
#define LVT_REMOTE_IRR (1u << 14)
#define LVT_MODE(v)    ((v) >> 8 & 7)
#define TIMER_MODE(v)  ((v) >> 17 & 3)

enum { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_TSC_DEADLINE };

static const uint32_t lvt_writable[LVT_COUNT] = {
	[LVT_TIMER] = 0x700ff, [LVT_THERMAL] = 0x107ff, [LVT_PERF] = 0x107ff,
	[LVT_LINT0] = 0x1a7ff, [LVT_LINT1] = 0x1a7ff,   [LVT_ERROR] = 0x100ff,
};

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

enum { SHORTHAND_NONE, SHORTHAND_SELF, SHORTHAND_ALL, SHORTHAND_OTHERS };

/* A periodic timer faster than this would leave the guest no time for anything else, and us neither. */
#define MIN_PERIOD_NS 20000

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

/* ---- bit vectors of 256 ---- */

static bool vec_test(const uint32_t *v, unsigned n)
{
	return v[n / 32] >> n % 32 & 1;
}

static void vec_set(uint32_t *v, unsigned n)
{
	v[n / 32] |= 1u << n % 32;
}

static void vec_clear(uint32_t *v, unsigned n)
{
	v[n / 32] &= ~(1u << n % 32);
}

static int vec_highest(const uint32_t *v)
{
	for (int i = 7; i >= 0; i--)
		if (v[i])
			return i * 32 + 31 - __builtin_clz(v[i]);
	return -1;
}

/* ---- modes and priority ---- */

static bool hw_enabled(const struct lapic *l)
{
	return l->apic_base & BASE_ENABLE;
}

static bool x2apic(const struct lapic *l)
{
	return (l->apic_base & (BASE_ENABLE | BASE_EXTD)) == (BASE_ENABLE | BASE_EXTD);
}

bool lapic_enabled_locked(const struct lapic *l)
{
	return hw_enabled(l) && (l->svr & SVR_ENABLE);
}

uint8_t lapic_ppr_locked(const struct lapic *l)
{
	int isr = vec_highest(l->isr);
	uint8_t class = isr < 0 ? 0 : isr & 0xf0;

	return (l->tpr & 0xf0) >= class ? l->tpr : class;
}

static bool ext_waits(const struct lapic *l)
{
	if (!l->lint0)
		return false;
	if (!hw_enabled(l))
		return l->is_bsp;
	return l->ext_latched ||
	       (!(l->lvt[LVT_LINT0] & LVT_MASKED) && LVT_MODE(l->lvt[LVT_LINT0]) == IRQ_MODE_EXTINT);
}

static bool fixed_waits(const struct lapic *l)
{
	int irr = vec_highest(l->irr);

	return hw_enabled(l) && irr >= 0 && (irr & 0xf0) > (lapic_ppr_locked(l) & 0xf0);
}

void lapic_update_locked(struct lapic *l)
{
	bool now = ext_waits(l) || fixed_waits(l);
	bool was = atomic_exchange(&l->pending, now);

	if (now && !was)
		l->host.kick(l->host.opaque);
}

bool lapic_irq_pending(const struct lapic *l)
{
	return atomic_load_explicit(&l->pending, memory_order_acquire);
}

/* ---- accepting ---- */

static void lvt_fire(struct lapic *l, unsigned n);

static void esr_error(struct lapic *l, uint32_t bit)
{
	bool fresh = !(l->esr_next & bit);

	l->esr_next |= bit;
	/* The guard ends the recursion of an error entry whose own vector is illegal. */
	if (fresh)
		lvt_fire(l, LVT_ERROR);
}

static bool accept_fixed(struct lapic *l, uint8_t vector, bool level)
{
	if (!lapic_enabled_locked(l))
		return false;
	if (vector < 16) {
		esr_error(l, ESR_RECEIVE_VECTOR);
		return false;
	}
	vec_set(l->irr, vector);
	if (level)
		vec_set(l->tmr, vector);
	else
		vec_clear(l->tmr, vector);
	lapic_update_locked(l);
	return true;
}

static bool accept(struct lapic *l, unsigned mode, uint8_t vector, bool level)
{
	if (!hw_enabled(l))
		return false;
	switch (mode) {
	case IRQ_MODE_FIXED:
	case IRQ_MODE_LOWEST:
		return accept_fixed(l, vector, level);
	case IRQ_MODE_NMI:
		l->host.init_sipi_nmi(l->host.opaque, LAPIC_EVENT_NMI, 0);
		return true;
	case IRQ_MODE_INIT:
		l->host.init_sipi_nmi(l->host.opaque, LAPIC_EVENT_INIT, 0);
		return true;
	case IRQ_MODE_SIPI:
		l->host.init_sipi_nmi(l->host.opaque, LAPIC_EVENT_SIPI, vector);
		return true;
	case IRQ_MODE_EXTINT:
		l->ext_latched = true;
		lapic_update_locked(l);
		return true;
	default: /* SMI and reserved */
		return false;
	}
}

bool lapic_accept_locked(struct lapic *l, const struct irq_message *m)
{
	return accept(l, m->mode, m->vector, m->level);
}

/* An event at a local pin or source. */
static void lvt_fire(struct lapic *l, unsigned n)
{
	uint32_t v = l->lvt[n];
	unsigned mode = n == LVT_TIMER || n == LVT_ERROR ? IRQ_MODE_FIXED : LVT_MODE(v);

	if ((v & LVT_MASKED) || mode == IRQ_MODE_EXTINT || mode == IRQ_MODE_LOWEST || mode == IRQ_MODE_SIPI)
		return; /* ExtINT follows the pin's level; the other two are not for local sources */
	accept(l, mode, v, false);
}

static void lint0_level(struct lapic *l)
{
	uint32_t *v = &l->lvt[LVT_LINT0];

	if (l->lint0 && !(*v & (LVT_MASKED | LVT_REMOTE_IRR)) && accept_fixed(l, *v, true))
		*v |= LVT_REMOTE_IRR;
}

static bool lint0_is_level(const struct lapic *l)
{
	return (l->lvt[LVT_LINT0] & LVT_LEVEL) && LVT_MODE(l->lvt[LVT_LINT0]) == IRQ_MODE_FIXED;
}

void lapic_lint0_locked(struct lapic *l, bool level)
{
	bool rise = level && !l->lint0;

	l->lint0 = level;
	if (!level)
		l->ext_latched = false; /* the PIC withdrew its request */
	if (rise && hw_enabled(l)) {
		if (lint0_is_level(l))
			lint0_level(l);
		else
			lvt_fire(l, LVT_LINT0);
	}
	lapic_update_locked(l);
}

void lapic_lint1_pulse_locked(struct lapic *l)
{
	if (hw_enabled(l))
		lvt_fire(l, LVT_LINT1);
	else if (l->is_bsp) /* LINT1 is the CPU's NMI pin then */
		l->host.init_sipi_nmi(l->host.opaque, LAPIC_EVENT_NMI, 0);
}

void lapic_raise_perf(struct lapic *l)
{
	mutex_lock(&l->router->lock);
	lvt_fire(l, LVT_PERF);
	l->lvt[LVT_PERF] |= LVT_MASKED;
	mutex_unlock(&l->router->lock);
}

void lapic_raise_thermal(struct lapic *l)
{
	mutex_lock(&l->router->lock);
	lvt_fire(l, LVT_THERMAL);
	mutex_unlock(&l->router->lock);
}

/* ---- destinations (SDM 3A 11.6.2) ---- */

static uint32_t x2apic_ldr(const struct lapic *l)
{
	return (l->id >> 4) << 16 | 1u << (l->id & 15);
}

static bool match_logical(const struct lapic *l, uint32_t dest)
{
	uint8_t ldr = l->ldr >> 24;

	if (x2apic(l)) {
		uint32_t mine = x2apic_ldr(l);

		return mine >> 16 == dest >> 16 && (mine & dest & 0xffff);
	}
	if (dest > 0xff)
		return false;
	if (l->dfr >> 28 == 0xf)
		return ldr & dest;
	return l->dfr >> 28 == 0 && ldr >> 4 == dest >> 4 && (ldr & dest & 0xf);
}

bool lapic_matches_locked(const struct lapic *l, const struct irq_message *m)
{
	if (m->dest == (m->x2apic ? UINT32_MAX : 0xff))
		return true;
	return m->logical ? match_logical(l, m->dest) : m->dest == l->id;
}

/* ---- sending ---- */

static void icr_send(struct lapic *l)
{
	unsigned shorthand = ICR_SHORTHAND(l->icr);
	struct irq_message m = {
		.dest = x2apic(l) ? l->icr_high : l->icr_high >> 24,
		.logical = l->icr & ICR_LOGICAL,
		.x2apic = x2apic(l),
		.mode = ICR_MODE(l->icr),
		.vector = l->icr & ICR_VECTOR,
	};

	/* INIT level de-assert only synchronised arbitration IDs (SDM 3A 11.6.1); the rest is always edge. */
	if (m.mode == IRQ_MODE_INIT && (l->icr & (ICR_LEVEL | ICR_ASSERT)) == ICR_LEVEL)
		return;
	if (m.mode == IRQ_MODE_EXTINT || m.mode == IRQ_MODE_RESERVED)
		return;
	if (m.mode <= IRQ_MODE_LOWEST && m.vector < 16) {
		esr_error(l, ESR_SEND_VECTOR);
		return;
	}
	if (shorthand == SHORTHAND_NONE) {
		irq_deliver_locked(l->router, &m, NULL);
		return;
	}
	if (shorthand == SHORTHAND_SELF) { /* fixed only (SDM 3A table 11-3) */
		if (m.mode == IRQ_MODE_FIXED)
			lapic_accept_locked(l, &m);
		return;
	}
	/* A CPU cannot reset itself with "all including self" (SDM 3A table 11-3). */
	if (shorthand == SHORTHAND_ALL && (m.mode == IRQ_MODE_INIT || m.mode == IRQ_MODE_SIPI))
		return;
	m.dest = m.x2apic ? UINT32_MAX : 0xff;
	irq_deliver_locked(l->router, &m, shorthand == SHORTHAND_OTHERS ? l : NULL);
}

int64_t lapic_pv_ipi(struct lapic *l, const uint64_t bitmap[2], unsigned width, uint64_t min, uint64_t icr)
{
	struct irq_message m = {
		.x2apic = true, .mode = ICR_MODE(icr), .vector = icr & ICR_VECTOR, .level = icr & ICR_LEVEL
	};
	int64_t n = 0;

	/* Destinations are the bitmap's alone; what an IPI cannot carry it does not carry here. */
	if ((icr & (ICR_LOGICAL | 3u << 18)) || m.mode == IRQ_MODE_INIT || m.mode == IRQ_MODE_SIPI ||
	    m.mode == IRQ_MODE_EXTINT || m.mode == IRQ_MODE_RESERVED)
		return -22; /* KVM_EINVAL */
	mutex_lock(&l->router->lock);
	for (unsigned i = 0; i < 2 * width && min < IRQ_MAX_LAPICS; i++, min++) {
		m.dest = (uint32_t)min;
		if (bitmap[i / width] >> i % width & 1)
			n += irq_deliver_locked(l->router, &m, NULL);
	}
	mutex_unlock(&l->router->lock);
	return n;
}

/* ---- acknowledge and EOI ---- */

int lapic_ack(struct lapic *l)
{
	int vector = -1;

	if (!lapic_irq_pending(l))
		return -1;
	mutex_lock(&l->router->lock);
	/* What the flag said may have gone meanwhile. */
	if (ext_waits(l)) {
		l->ext_latched = false;
		vector = pic_ack_locked(l->router->pic);
	} else if (fixed_waits(l)) {
		vector = vec_highest(l->irr);
		vec_clear(l->irr, vector);
		vec_set(l->isr, vector);
	}
	lapic_update_locked(l);
	mutex_unlock(&l->router->lock);
	return vector;
}

static void eoi(struct lapic *l)
{
	int vector = vec_highest(l->isr);

	if (vector < 0)
		return;
	vec_clear(l->isr, vector);
	if (vec_test(l->tmr, vector)) {
		if ((l->lvt[LVT_LINT0] & (LVT_REMOTE_IRR | 0xff)) == (LVT_REMOTE_IRR | (uint32_t)vector)) {
			l->lvt[LVT_LINT0] &= ~LVT_REMOTE_IRR;
			lint0_level(l);
		}
		if (!(l->svr & SVR_SUPPRESS))
			irq_eoi_locked(l->router, vector);
	}
	lapic_update_locked(l);
}

/* ---- timer ---- */

static uint32_t timer_divisor(const struct lapic *l)
{
	unsigned code = (l->timer_divide & 3) | (l->timer_divide >> 1 & 4);

	return code == 7 ? 1 : 2u << code; /* SDM 3A figure 11-10 */
}

static int64_t timer_period(const struct lapic *l)
{
	return (int64_t)l->timer_initial * timer_divisor(l);
}

static unsigned timer_mode(const struct lapic *l)
{
	return TIMER_MODE(l->lvt[LVT_TIMER]);
}

/* The virtual time at which the TSC will show the deadline, rounded up; past ones give now. */
static int64_t tsc_deadline_ns(const struct lapic *l, int64_t now)
{
	uint64_t tsc = l->host.tsc_now(l->host.opaque), left;
	unsigned __int128 ns;

	if (tsc >= l->tsc_deadline)
		return now;
	left = l->tsc_deadline - tsc;
	ns = ((unsigned __int128)left * 1000000 + l->host.tsc_khz - 1) / l->host.tsc_khz;
	return ns > (uint64_t)(INT64_MAX - 1 - now) ? INT64_MAX - 1 : now + (int64_t)ns;
}

/* Fires what is due at `now` and works out the next deadline. */
static void timer_advance(struct lapic *l, int64_t now)
{
	if (timer_mode(l) == TIMER_TSC_DEADLINE) {
		if (!l->tsc_deadline) {
			l->timer_deadline = INT64_MAX;
			return;
		}
		/* Computed anew each time: the guest may have moved its TSC. */
		l->timer_deadline = tsc_deadline_ns(l, now);
		if (l->timer_deadline > now)
			return;
		l->tsc_deadline = 0;
		l->timer_deadline = INT64_MAX;
		lvt_fire(l, LVT_TIMER);
		return;
	}
	if (l->timer_deadline > now)
		return;
	if (timer_mode(l) == TIMER_PERIODIC && l->timer_initial) {
		int64_t period = timer_period(l);

		/* Expiries that nobody came to see merge into one, as they would in IRR. */
		l->timer_deadline += ((now - l->timer_deadline) / period + 1) * period;
	} else {
		l->timer_deadline = INT64_MAX;
	}
	lvt_fire(l, LVT_TIMER);
}

static uint32_t timer_current(const struct lapic *l, int64_t now)
{
	int64_t left;

	if (timer_mode(l) == TIMER_TSC_DEADLINE || l->timer_deadline == INT64_MAX)
		return 0;
	left = l->timer_deadline - now;
	if (left <= 0) {
		if (timer_mode(l) != TIMER_PERIODIC || !l->timer_initial)
			return 0;
		left = timer_period(l) - -left % timer_period(l);
	}
	left = (left + timer_divisor(l) - 1) / timer_divisor(l);
	return left > l->timer_initial ? l->timer_initial : left;
}

/* When the host should kick us, given that a masked entry has nothing to say. */
static int64_t timer_wanted(const struct lapic *l, int64_t now)
{
	if (l->timer_deadline == INT64_MAX || !hw_enabled(l))
		return INT64_MAX;
	if (timer_mode(l) != TIMER_TSC_DEADLINE && (l->lvt[LVT_TIMER] & LVT_MASKED))
		return INT64_MAX;
	if (timer_mode(l) == TIMER_PERIODIC && timer_period(l) < MIN_PERIOD_NS &&
	    l->timer_deadline < now + MIN_PERIOD_NS)
		return now + MIN_PERIOD_NS;
	return l->timer_deadline;
}

static int64_t now_ns(const struct lapic *l)
{
	return clock_now_ns(l->host.clock);
}

/* Tells the host, if it is news. Without the lock. */
static void timer_arm(struct lapic *l, bool force)
{
	int64_t want = timer_wanted(l, now_ns(l));

	if (want == l->armed && !force)
		return;
	l->armed = want;
	l->host.arm_timer(l->host.opaque, want);
}

void lapic_timer_poll(struct lapic *l)
{
	int64_t now = now_ns(l);
	bool due = l->armed <= now;

	/* In deadline mode even without a deadline due: a moved TSC moves it. */
	if (!due && timer_mode(l) != TIMER_TSC_DEADLINE)
		return;
	mutex_lock(&l->router->lock);
	timer_advance(l, now);
	mutex_unlock(&l->router->lock);
	timer_arm(l, due); /* a deadline that passed disarmed the host */
}

void lapic_clock_changed(struct lapic *l)
{
	int64_t now = now_ns(l);

	/* The TSC did not stand still with the clock. What is past fires in the vCPU's thread. */
	if (timer_mode(l) == TIMER_TSC_DEADLINE && l->tsc_deadline)
		l->timer_deadline = tsc_deadline_ns(l, now);
	timer_arm(l, true);
}

static void timer_start(struct lapic *l, uint32_t initial)
{
	if (timer_mode(l) == TIMER_TSC_DEADLINE)
		return; /* writes to the initial count are ignored (SDM 3A 11.5.4.1) */
	l->timer_initial = initial;
	l->timer_deadline = initial ? now_ns(l) + timer_period(l) : INT64_MAX;
}

static void timer_set_divide(struct lapic *l, uint32_t v)
{
	int64_t now = now_ns(l);
	uint32_t left;

	timer_advance(l, now);
	left = timer_current(l, now);
	l->timer_divide = v & 0xb;
	if (left)
		l->timer_deadline = now + (int64_t)left * timer_divisor(l);
}

static void lvt_timer_write(struct lapic *l, uint32_t v)
{
	unsigned old = timer_mode(l);

	/* What expired under the old setting is dealt with under the old setting. */
	timer_advance(l, now_ns(l));
	if (TIMER_MODE(v) == 3 || (TIMER_MODE(v) == TIMER_TSC_DEADLINE && !l->host.tsc_khz))
		v &= ~(2u << 17); /* no such mode here */
	l->lvt[LVT_TIMER] = v;
	/* SDM 3A 11.5.4.1: a change to or from TSC-deadline mode disarms. */
	if ((old == TIMER_TSC_DEADLINE) != (timer_mode(l) == TIMER_TSC_DEADLINE)) {
		l->timer_deadline = INT64_MAX;
		l->timer_initial = 0;
		l->tsc_deadline = 0;
	}
}

static int tsc_deadline_write(struct lapic *l, uint64_t v)
{
	if (!l->host.tsc_khz)
		return -1;
	mutex_lock(&l->router->lock);
	if (timer_mode(l) == TIMER_TSC_DEADLINE && hw_enabled(l)) {
		l->tsc_deadline = v;
		timer_advance(l, now_ns(l));
	}
	mutex_unlock(&l->router->lock);
	timer_arm(l, false);
	return 0;
}

/* ---- registers ---- */

static void lvt_write(struct lapic *l, unsigned n, uint32_t v)
{
	v &= lvt_writable[n];
	if (!(l->svr & SVR_ENABLE))
		v |= LVT_MASKED; /* SDM 3A 11.4.7.2 */
	if (n == LVT_TIMER) {
		lvt_timer_write(l, v);
		return;
	}
	if (n == LVT_LINT0) {
		if ((v & LVT_LEVEL) && LVT_MODE(v) == IRQ_MODE_FIXED)
			v |= l->lvt[n] & LVT_REMOTE_IRR;
		l->lvt[n] = v;
		if (lint0_is_level(l) && hw_enabled(l))
			lint0_level(l);
	}
	l->lvt[n] = n == LVT_LINT0 ? l->lvt[n] : v;
	lapic_update_locked(l);
}

static void svr_write(struct lapic *l, uint32_t v)
{
	bool was = l->svr & SVR_ENABLE;

	l->svr = v & SVR_WRITABLE;
	if (!(v & SVR_ENABLE)) {
		timer_advance(l, now_ns(l));
		for (unsigned i = 0; i < LVT_COUNT; i++)
			l->lvt[i] |= LVT_MASKED;
	}
	lapic_update_locked(l);
	if (!was && (v & SVR_ENABLE))
		ioapic_retry_locked(l->router->ioapic);
}

static void esr_write(struct lapic *l)
{
	l->esr = l->esr_next;
	l->esr_next = 0;
}

/* Reads a register that both modes have. False: there is none to read. */
static bool reg_read(struct lapic *l, unsigned reg, uint32_t *v)
{
	switch (reg) {
	case REG_ID:
		*v = x2apic(l) ? l->id : l->id << 24;
		return true;
	case REG_VERSION:
		*v = VERSION;
		return true;
	case REG_TPR:
		*v = l->tpr;
		return true;
	case REG_PPR:
		*v = lapic_ppr_locked(l);
		return true;
	case REG_LDR:
		*v = x2apic(l) ? x2apic_ldr(l) : l->ldr;
		return true;
	case REG_SVR:
		*v = l->svr;
		return true;
	case REG_ISR ... REG_ISR + 7:
		*v = l->isr[reg - REG_ISR];
		return true;
	case REG_TMR ... REG_TMR + 7:
		*v = l->tmr[reg - REG_TMR];
		return true;
	case REG_IRR ... REG_IRR + 7:
		*v = l->irr[reg - REG_IRR];
		return true;
	case REG_ESR:
		*v = l->esr;
		return true;
	case REG_ICR:
		*v = l->icr;
		return true;
	case REG_LVT_TIMER ... REG_LVT_ERROR:
		*v = l->lvt[reg - REG_LVT_TIMER];
		return true;
	case REG_TIMER_INITIAL:
		*v = l->timer_initial;
		return true;
	case REG_TIMER_CURRENT:
		*v = timer_current(l, now_ns(l));
		return true;
	case REG_TIMER_DIVIDE:
		*v = l->timer_divide;
		return true;
	default:
		return false;
	}
}

/* Writes a register that both modes have. False: there is none to write. */
static bool reg_write(struct lapic *l, unsigned reg, uint32_t v)
{
	switch (reg) {
	case REG_TPR:
		l->tpr = v & 0xff;
		lapic_update_locked(l);
		return true;
	case REG_EOI:
		eoi(l);
		return true;
	case REG_SVR:
		svr_write(l, v);
		return true;
	case REG_ESR:
		esr_write(l);
		return true;
	case REG_ICR:
		l->icr = v & ICR_WRITABLE;
		icr_send(l);
		return true;
	case REG_LVT_TIMER ... REG_LVT_ERROR:
		lvt_write(l, reg - REG_LVT_TIMER, v);
		return true;
	case REG_TIMER_INITIAL:
		timer_start(l, v);
		return true;
	case REG_TIMER_DIVIDE:
		timer_set_divide(l, v);
		return true;
	default:
		return false;
	}
}

/* ---- the xAPIC page ---- */

static bool page_decoded(const struct lapic *l)
{
	return hw_enabled(l) && !x2apic(l);
}

uint64_t lapic_page(const struct lapic *l)
{
	return l->apic_base & ~0xfffull;
}

uint64_t lapic_mmio_read(struct lapic *l, uint64_t offset, unsigned size)
{
	unsigned reg = offset >> 4 & 0xff;
	uint32_t v = 0;

	(void)size;
	if (!page_decoded(l))
		return UINT64_MAX;
	if (offset & 0xc)
		return 0; /* registers are the first dword of 16 bytes */
	mutex_lock(&l->router->lock);
	if (reg == REG_DFR)
		v = l->dfr;
	else if (reg == REG_ICR_HIGH)
		v = l->icr_high;
	else if (reg == REG_APR)
		v = lapic_ppr_locked(l);
	else if (reg != REG_RRD && reg != REG_EOI && !reg_read(l, reg, &v))
		esr_error(l, ESR_REGISTER);
	mutex_unlock(&l->router->lock);
	return v >> 8 * (offset & 3);
}

static void page_write_locked(struct lapic *l, unsigned reg, uint32_t v)
{
	switch (reg) {
	case REG_LDR:
		l->ldr = v & 0xff000000u;
		break;
	case REG_DFR:
		l->dfr = v | 0x0fffffffu;
		break;
	case REG_ICR_HIGH:
		l->icr_high = v & 0xff000000u;
		break;
	case REG_ID:
	case REG_VERSION:
	case REG_APR:
	case REG_PPR:
	case REG_RRD:
	case REG_ISR ... REG_IRR + 7:
	case REG_TIMER_CURRENT:
		break; /* read-only */
	default:
		if (!reg_write(l, reg, v))
			esr_error(l, ESR_REGISTER);
		break;
	}
}

/* Registers that take part in the timer: after writing them the host may need re-arming. */
static bool timer_register(unsigned reg)
{
	return reg == REG_LVT_TIMER || reg == REG_TIMER_INITIAL || reg == REG_TIMER_DIVIDE || reg == REG_SVR;
}

void lapic_mmio_write(struct lapic *l, uint64_t offset, uint64_t value, unsigned size)
{
	unsigned reg = offset >> 4 & 0xff;

	/* Narrow or misaligned stores are undefined (SDM 3A 11.4.1): they do nothing here. */
	if (!page_decoded(l) || (offset & 0xf) || size < 4)
		return;
	mutex_lock(&l->router->lock);
	page_write_locked(l, reg, value);
	mutex_unlock(&l->router->lock);
	if (timer_register(reg))
		timer_arm(l, false);
}

/* ---- MSRs ---- */

static int x2apic_read(struct lapic *l, unsigned reg, uint64_t *value)
{
	uint32_t v;

	if (!x2apic(l) || !reg_read(l, reg, &v))
		return -1;
	*value = reg == REG_ICR ? (uint64_t)l->icr_high << 32 | v : v;
	return 0;
}

/* Bits that may be 1, per register; the rest is #GP (SDM 3A 11.12.1.3). */
static uint64_t x2apic_writable(unsigned reg)
{
	switch (reg) {
	case REG_TPR:
	case REG_SELF_IPI:
		return 0xff;
	case REG_EOI:
	case REG_ESR:
		return 0;
	case REG_SVR:
		return SVR_WRITABLE;
	case REG_ICR:
		return 0xffffffff00000000ull | ICR_WRITABLE;
	case REG_LVT_TIMER ... REG_LVT_ERROR:
		/* Delivery status and remote IRR are read-only: what was read may be written back. */
		return lvt_writable[reg - REG_LVT_TIMER] | 1u << 12 | LVT_REMOTE_IRR;
	case REG_TIMER_INITIAL:
		return UINT32_MAX;
	default:
		return 0xb; /* divide */
	}
}

static int x2apic_write(struct lapic *l, unsigned reg, uint64_t value)
{
	bool writable = reg == REG_TPR || reg == REG_EOI || reg == REG_SVR || reg == REG_ESR ||
			reg == REG_ICR || (reg >= REG_LVT_TIMER && reg <= REG_TIMER_INITIAL) ||
			reg == REG_TIMER_DIVIDE || reg == REG_SELF_IPI;

	if (!x2apic(l) || !writable || (value & ~x2apic_writable(reg)))
		return -1;
	if (reg == REG_ICR)
		l->icr_high = value >> 32;
	if (reg != REG_SELF_IPI)
		reg_write(l, reg, value);
	else if (value < 16)
		esr_error(l, ESR_SEND_VECTOR);
	else
		accept_fixed(l, value, false);
	return 0;
}

static void reset_registers(struct lapic *l)
{
	l->tpr = l->ldr = l->esr = l->esr_next = l->icr = l->icr_high = 0;
	l->dfr = UINT32_MAX;
	l->svr = 0xff;
	for (unsigned i = 0; i < LVT_COUNT; i++)
		l->lvt[i] = LVT_MASKED;
	if (l->is_bsp)
		l->lvt[LVT_LINT0] = IRQ_MODE_EXTINT << 8;
	memset(l->irr, 0, sizeof(l->irr));
	memset(l->isr, 0, sizeof(l->isr));
	memset(l->tmr, 0, sizeof(l->tmr));
	l->ext_latched = false;
	l->timer_initial = l->timer_divide = 0;
	l->timer_deadline = INT64_MAX;
	l->tsc_deadline = 0;
}

/* The mode transitions of SDM 3A figure 11-30. */
static bool base_allowed(const struct lapic *l, uint64_t v)
{
	unsigned bits = l->host.phys_bits ? l->host.phys_bits : 52;
	bool en = v & BASE_ENABLE, extd = v & BASE_EXTD;

	if (v & (0x2ffull & ~BASE_BSP) || v >> bits)
		return false;
	if (extd && (!en || l->host.no_x2apic))
		return false;
	if (extd && !hw_enabled(l))
		return false;               /* disabled -> x2APIC */
	return !(x2apic(l) && en && !extd); /* x2APIC -> xAPIC */
}

static int base_write(struct lapic *l, uint64_t v)
{
	if (!base_allowed(l, v))
		return -1;
	mutex_lock(&l->router->lock);
	if (hw_enabled(l) && !(v & BASE_ENABLE)) {
		reset_registers(l); /* SDM 3A 11.4.3: its state is lost */
	} else if (!x2apic(l) && (v & BASE_EXTD)) {
		l->icr_high = 0;
	}
	l->apic_base = v;
	lapic_update_locked(l);
	mutex_unlock(&l->router->lock);
	timer_arm(l, false);
	if (page_decoded(l)) {
		mutex_lock(l->router->board->io_lock);
		irq_router_lapic_page(l->router, lapic_page(l));
		mutex_unlock(l->router->board->io_lock);
	}
	return 0;
}

int lapic_msr_read(struct lapic *l, uint32_t index, uint64_t *value)
{
	int rc = 0;

	if (index == MSR_APIC_BASE) {
		*value = l->apic_base;
		return 0;
	}
	if (index == MSR_TSC_DEADLINE) {
		if (!l->host.tsc_khz)
			return -1;
		/* A deadline that passed reads as 0 even before the timer was polled. */
		*value = l->tsc_deadline > l->host.tsc_now(l->host.opaque) ? l->tsc_deadline : 0;
		return 0;
	}
	if (index < MSR_X2APIC || index > MSR_X2APIC + 0xff)
		return -1;
	mutex_lock(&l->router->lock);
	rc = x2apic_read(l, index - MSR_X2APIC, value);
	mutex_unlock(&l->router->lock);
	return rc;
}

int lapic_msr_write(struct lapic *l, uint32_t index, uint64_t value)
{
	unsigned reg = index - MSR_X2APIC;
	int rc;

	if (index == MSR_APIC_BASE)
		return base_write(l, value);
	if (index == MSR_TSC_DEADLINE)
		return tsc_deadline_write(l, value);
	if (index < MSR_X2APIC || index > MSR_X2APIC + 0xff)
		return -1;
	mutex_lock(&l->router->lock);
	rc = x2apic_write(l, reg, value);
	mutex_unlock(&l->router->lock);
	if (!rc && timer_register(reg))
		timer_arm(l, false);
	return rc;
}

uint8_t lapic_cr8_read(struct lapic *l)
{
	return l->tpr >> 4; /* written only by this thread */
}

void lapic_cr8_write(struct lapic *l, uint8_t value)
{
	mutex_lock(&l->router->lock);
	l->tpr = (value & 0xf) << 4;
	lapic_update_locked(l);
	mutex_unlock(&l->router->lock);
}

/* ---- what the engine calls ---- */

static bool board_pending(void *opaque)
{
	return lapic_irq_pending(opaque);
}

static int board_ack(void *opaque)
{
	return lapic_ack(opaque);
}

static int board_msr_read(void *opaque, uint32_t index, uint64_t *value)
{
	return lapic_msr_read(opaque, index, value);
}

static int board_msr_write(void *opaque, uint32_t index, uint64_t value)
{
	return lapic_msr_write(opaque, index, value);
}

static uint8_t board_cr8_read(void *opaque)
{
	return lapic_cr8_read(opaque);
}

static void board_cr8_write(void *opaque, uint8_t value)
{
	lapic_cr8_write(opaque, value);
}

void lapic_fill_board(struct lapic *l, struct vcpu_board *board)
{
	*board = (struct vcpu_board){ .opaque = l,
				      .irq_pending = board_pending,
				      .irq_ack = board_ack,
				      .msr_read = board_msr_read,
				      .msr_write = board_msr_write,
				      .cr8_read = board_cr8_read,
				      .cr8_write = board_cr8_write };
}

/* ---- reset, state ---- */

void lapic_init(struct lapic *l)
{
	mutex_lock(&l->router->lock);
	reset_registers(l);
	lapic_update_locked(l);
	mutex_unlock(&l->router->lock);
	timer_arm(l, true);
}

static void lapic_reset(struct device *d)
{
	struct lapic *l = (struct lapic *)d;

	mutex_lock(&l->router->lock);
	l->apic_base = LAPIC_BASE | BASE_ENABLE | (l->is_bsp ? BASE_BSP : 0);
	mutex_unlock(&l->router->lock);
	lapic_init(l);
}

static bool state_possible(const struct lapic *l)
{
	for (unsigned i = 0; i < LVT_COUNT; i++)
		if (l->lvt[i] & ~(lvt_writable[i] | LVT_REMOTE_IRR))
			return false;
	if (timer_mode(l) == 3 || (timer_mode(l) == TIMER_TSC_DEADLINE && !l->host.tsc_khz))
		return false;
	/* Far enough from both ends that sums with it cannot overflow. */
	if (l->timer_deadline != INT64_MAX && (l->timer_deadline < 0 || l->timer_deadline > INT64_MAX / 2))
		return false;
	if ((l->apic_base & BASE_EXTD) && (!hw_enabled(l) || l->host.no_x2apic))
		return false;
	return !((l->irr[0] | l->isr[0]) & 0xffff);
}

static int lapic_loaded(void *obj, struct error *err)
{
	struct lapic *l = obj;

	if (!state_possible(l))
		return error_set(
		    err, EINVAL,
		    "the saved state of the local APIC %u does not fit this machine; it is damaged or "
		    "was saved with another CPU model",
		    l->id);
	l->tpr &= 0xff;
	l->timer_divide &= 0xb;
	l->svr &= SVR_WRITABLE;
	if (page_decoded(l))
		irq_router_lapic_page(l->router, lapic_page(l));
	mutex_lock(&l->router->lock);
	atomic_store(&l->pending, false); /* so that something pending kicks */
	lapic_update_locked(l);
	mutex_unlock(&l->router->lock);
	timer_arm(l, true);
	return 0;
}

static const struct state_field lapic_fields[] = {
	F_U64(struct lapic, apic_base),    F_U32(struct lapic, tpr),
	F_U32(struct lapic, ldr),          F_U32(struct lapic, dfr),
	F_U32(struct lapic, svr),          F_U32(struct lapic, esr),
	F_U32(struct lapic, esr_next),     F_U32(struct lapic, icr),
	F_U32(struct lapic, icr_high),     F_U32S(struct lapic, lvt, LVT_COUNT),
	F_U32S(struct lapic, irr, 8),      F_U32S(struct lapic, isr, 8),
	F_U32S(struct lapic, tmr, 8),      F_BOOL(struct lapic, ext_latched),
	F_BOOL(struct lapic, lint0),       F_U32(struct lapic, timer_initial),
	F_U32(struct lapic, timer_divide), F_U64(struct lapic, timer_deadline),
	F_U64(struct lapic, tsc_deadline), F_END,
};
static const struct state_table lapic_state = { "lapic", 1, lapic_fields, lapic_loaded };

static void lapic_free(struct device *d)
{
	struct lapic *l = (struct lapic *)d;
	struct irq_router *r = l->router;

	mutex_lock(&r->lock);
	for (unsigned i = 0; i < r->nr_lapics; i++)
		if (r->lapic[i] == l) {
			r->nr_lapics--;
			memmove(&r->lapic[i], &r->lapic[i + 1], (r->nr_lapics - i) * sizeof(r->lapic[0]));
			break;
		}
	mutex_unlock(&r->lock);
	free(l);
}

static const struct device_class lapic_class = { "lapic", lapic_reset, &lapic_state, lapic_free };

uint32_t lapic_id(const struct lapic *l)
{
	return l->id;
}

int lapic_new(struct board *b, struct irq_router *r, uint32_t apic_id, const struct lapic_host *host,
	      struct lapic **ret, struct error *err)
{
	struct lapic *l;

	/* 0xff is the broadcast destination of 8-bit messages. */
	if (r->nr_lapics == IRQ_MAX_LAPICS || apic_id >= 0xff)
		return error_set(err, ENOSPC, "more than %u vCPUs are not possible; give fewer", 0xffu);
	l = calloc(1, sizeof(*l));
	if (!l)
		return error_set(err, ENOMEM, "no memory for a local APIC; free some and try again");
	l->router = r;
	l->host = *host;
	l->id = apic_id;
	l->is_bsp = r->nr_lapics == 0;
	l->apic_base = LAPIC_BASE | BASE_ENABLE | (l->is_bsp ? BASE_BSP : 0);
	l->armed = INT64_MAX;
	reset_registers(l);
	r->lapic[r->nr_lapics++] = l;
	board_add(b, &l->dev, &lapic_class, r->nr_lapics - 1);
	*ret = l;
	return 0;
}
