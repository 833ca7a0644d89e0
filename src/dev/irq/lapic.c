/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local APIC: SDM 3A chapter 11 ("Advanced Programmable Interrupt Controller").
 * Here are interrupts on their way through it, its registers and the xAPIC page;
 * the timer is in lapic_timer.c, access by MSR in lapic_msr.c.
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
 * The page is where APIC_BASE says, in the router's window there; RAM at that
 * address hides it, though (SDM 3A 11.4.5 has the APIC win).
 *
 * Not modelled: SMIs, the CMCI entry, bus arbitration (delivery is immediate, so
 * "send pending" is never seen).  The ID is read-only.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "dev/irq/ioapic.h"
#include "dev/irq/lapic_internal.h"
#include "dev/irq/pic.h"

/* Version 0x14, EOI-broadcast suppression, highest LVT entry (SDM 3A 11.4.8) */
#define VERSION (0x14u | (LVT_COUNT - 1) << 16 | 1u << 24)

const uint32_t lapic_lvt_writable[LVT_COUNT] = {
	[LVT_TIMER] = 0x700ff, [LVT_THERMAL] = 0x107ff, [LVT_PERF] = 0x107ff,
	[LVT_LINT0] = 0x1a7ff, [LVT_LINT1] = 0x1a7ff,   [LVT_ERROR] = 0x100ff,
};

enum { SHORTHAND_NONE, SHORTHAND_SELF, SHORTHAND_ALL, SHORTHAND_OTHERS };

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

bool lapic_enabled_locked(const struct lapic *l)
{
	return lapic_hw_enabled(l) && (l->svr & SVR_ENABLE);
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
	if (!lapic_hw_enabled(l))
		return l->is_bsp;
	return l->ext_latched ||
	       (!(l->lvt[LVT_LINT0] & LVT_MASKED) && LVT_MODE(l->lvt[LVT_LINT0]) == IRQ_MODE_EXTINT);
}

static bool fixed_waits(const struct lapic *l)
{
	int irr = vec_highest(l->irr);

	return lapic_hw_enabled(l) && irr >= 0 && (irr & 0xf0) > (lapic_ppr_locked(l) & 0xf0);
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

void lapic_esr_error_locked(struct lapic *l, uint32_t bit)
{
	bool fresh = !(l->esr_next & bit);

	l->esr_next |= bit;
	/* The guard ends the recursion of an error entry whose own vector is illegal. */
	if (fresh)
		lapic_lvt_fire_locked(l, LVT_ERROR);
}

bool lapic_accept_fixed_locked(struct lapic *l, uint8_t vector, bool level)
{
	if (!lapic_enabled_locked(l))
		return false;
	if (vector < 16) {
		lapic_esr_error_locked(l, ESR_RECEIVE_VECTOR);
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
	if (!lapic_hw_enabled(l))
		return false;
	switch (mode) {
	case IRQ_MODE_FIXED:
	case IRQ_MODE_LOWEST:
		return lapic_accept_fixed_locked(l, vector, level);
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

void lapic_lvt_fire_locked(struct lapic *l, unsigned n)
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

	if (l->lint0 && !(*v & (LVT_MASKED | LVT_REMOTE_IRR)) && lapic_accept_fixed_locked(l, *v, true))
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
	if (rise && lapic_hw_enabled(l)) {
		if (lint0_is_level(l))
			lint0_level(l);
		else
			lapic_lvt_fire_locked(l, LVT_LINT0);
	}
	lapic_update_locked(l);
}

void lapic_lint1_pulse_locked(struct lapic *l)
{
	if (lapic_hw_enabled(l))
		lapic_lvt_fire_locked(l, LVT_LINT1);
	else if (l->is_bsp) /* LINT1 is the CPU's NMI pin then */
		l->host.init_sipi_nmi(l->host.opaque, LAPIC_EVENT_NMI, 0);
}

void lapic_raise_perf(struct lapic *l)
{
	mutex_lock(&l->router->lock);
	lapic_lvt_fire_locked(l, LVT_PERF);
	l->lvt[LVT_PERF] |= LVT_MASKED;
	mutex_unlock(&l->router->lock);
}

void lapic_raise_thermal(struct lapic *l)
{
	mutex_lock(&l->router->lock);
	lapic_lvt_fire_locked(l, LVT_THERMAL);
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

	if (lapic_x2apic(l)) {
		uint32_t mine = x2apic_ldr(l);

		return mine >> 16 == dest >> 16 && (mine & dest & 0xffff);
	}
	if (dest > 0xff)
		return false;
	if (l->dfr >> 28 == 0xf)
		return ldr & dest;
	return l->dfr >> 28 == 0 && ldr >> 4 == dest >> 4 && (ldr & dest & 0xf);
}

enum irq_state lapic_vector_state_locked(const struct lapic *l, uint8_t vector)
{
	uint32_t bit = 1u << (vector & 31);

	return l->irr[vector >> 5] & bit ? IRQ_PENDING : l->isr[vector >> 5] & bit ? IRQ_SERVED : IRQ_IDLE;
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
		.dest = lapic_x2apic(l) ? l->icr_high : l->icr_high >> 24,
		.logical = l->icr & ICR_LOGICAL,
		.x2apic = lapic_x2apic(l),
		.mode = ICR_MODE(l->icr),
		.vector = l->icr & ICR_VECTOR,
	};

	/* INIT level de-assert only synchronised arbitration IDs (SDM 3A 11.6.1); the rest is always edge. */
	if (m.mode == IRQ_MODE_INIT && (l->icr & (ICR_LEVEL | ICR_ASSERT)) == ICR_LEVEL)
		return;
	if (m.mode == IRQ_MODE_EXTINT || m.mode == IRQ_MODE_RESERVED)
		return;
	if (m.mode <= IRQ_MODE_LOWEST && m.vector < 16) {
		lapic_esr_error_locked(l, ESR_SEND_VECTOR);
		return;
	}
	if (shorthand == SHORTHAND_NONE) {
		irq_deliver_locked(l->router, &m, NULL);
		return;
	}
	/* Fixed only (SDM 3A table 11-3); test suites count on INIT, which KVM and QEMU let through. */
	if (shorthand == SHORTHAND_SELF) {
		if (m.mode == IRQ_MODE_FIXED || m.mode == IRQ_MODE_INIT)
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

/* ---- registers ---- */

static void lvt_write(struct lapic *l, unsigned n, uint32_t v)
{
	v &= lapic_lvt_writable[n];
	if (!(l->svr & SVR_ENABLE))
		v |= LVT_MASKED; /* SDM 3A 11.4.7.2 */
	if (n == LVT_TIMER) {
		lapic_timer_lvt_write_locked(l, v);
		return;
	}
	if (n == LVT_LINT0) {
		if ((v & LVT_LEVEL) && LVT_MODE(v) == IRQ_MODE_FIXED)
			v |= l->lvt[n] & LVT_REMOTE_IRR;
		l->lvt[n] = v;
		if (lint0_is_level(l) && lapic_hw_enabled(l))
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
		lapic_timer_advance_locked(l, lapic_now_ns(l));
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

bool lapic_reg_read_locked(struct lapic *l, unsigned reg, uint32_t *v)
{
	switch (reg) {
	case REG_ID:
		*v = l->id;
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
		*v = x2apic_ldr(l);
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
		*v = lapic_timer_current(l, lapic_now_ns(l));
		return true;
	case REG_TIMER_DIVIDE:
		*v = l->timer_divide;
		return true;
	default:
		return false;
	}
}

bool lapic_reg_write_locked(struct lapic *l, unsigned reg, uint32_t v)
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
		lapic_timer_start_locked(l, v);
		return true;
	case REG_TIMER_DIVIDE:
		lapic_timer_set_divide_locked(l, v);
		return true;
	default:
		return false;
	}
}

/* ---- the xAPIC page ---- */

uint64_t lapic_mmio_read(struct lapic *l, uint64_t offset, unsigned size)
{
	unsigned reg = offset >> 4 & 0xff;
	uint32_t v = 0;

	(void)size;
	if (!lapic_page_decoded(l))
		return UINT64_MAX;
	if (offset & 0xc)
		return 0; /* registers are the first dword of 16 bytes */
	mutex_lock(&l->router->lock);
	if (reg == REG_APR)
		v = lapic_ppr_locked(l);
	else if (reg != REG_RRD && reg != REG_EOI && !lapic_plain_register(l, reg, &v) &&
		 !lapic_reg_read_locked(l, reg, &v))
		lapic_esr_error_locked(l, ESR_REGISTER);
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
		if (!lapic_reg_write_locked(l, reg, v))
			lapic_esr_error_locked(l, ESR_REGISTER);
		break;
	}
}

void lapic_mmio_write(struct lapic *l, uint64_t offset, uint64_t value, unsigned size)
{
	unsigned reg = offset >> 4 & 0xff;

	/* Narrow or misaligned stores are undefined (SDM 3A 11.4.1): they do nothing here. */
	if (!lapic_page_decoded(l) || (offset & 0xf) || size < 4)
		return;
	mutex_lock(&l->router->lock);
	page_write_locked(l, reg, value);
	mutex_unlock(&l->router->lock);
	if (lapic_timer_register(reg))
		lapic_timer_arm(l, false);
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

void lapic_reset_registers_locked(struct lapic *l)
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

void lapic_init(struct lapic *l)
{
	mutex_lock(&l->router->lock);
	lapic_reset_registers_locked(l);
	lapic_update_locked(l);
	mutex_unlock(&l->router->lock);
	lapic_timer_arm(l, true);
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
		if (l->lvt[i] & ~(lapic_lvt_writable[i] | LVT_REMOTE_IRR))
			return false;
	if (lapic_timer_mode(l) == 3 || (lapic_timer_mode(l) == TIMER_TSC_DEADLINE && !l->host.tsc_khz))
		return false;
	/* Far enough from both ends that sums with it cannot overflow. */
	if (l->timer_deadline != INT64_MAX && (l->timer_deadline < 0 || l->timer_deadline > INT64_MAX / 2))
		return false;
	if ((l->apic_base & BASE_EXTD) && (!lapic_hw_enabled(l) || l->host.no_x2apic))
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
	if (lapic_page_decoded(l))
		irq_router_lapic_page(l->router, lapic_page(l));
	mutex_lock(&l->router->lock);
	atomic_store(&l->pending, false); /* so that something pending kicks */
	lapic_update_locked(l);
	mutex_unlock(&l->router->lock);
	lapic_timer_arm(l, true);
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
	lapic_reset_registers_locked(l);
	r->lapic[r->nr_lapics++] = l;
	board_add(b, &l->dev, &lapic_class, r->nr_lapics - 1);
	*ret = l;
	return 0;
}
