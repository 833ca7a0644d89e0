/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local APIC's MSRs: APIC_BASE with its modes, the registers in x2APIC mode
 * (SDM 3A 11.12), the TSC deadline; and CR8, which is the TPR's upper half.
 *
 * x2APIC registers are those of the xAPIC page, at MSR 800H plus offset / 16, and
 * most accesses go to the same functions.  What differs: ICR is one register of
 * 64 bits, LDR is read-only and follows from the ID, SELF IPI is new, DFR is gone,
 * and what would be ignored or set an error bit on the page is #GP, that is, -1.
 *
 * All of it runs in the vCPU's thread, and takes the router's lock itself.
 */
#include "dev/irq/lapic_internal.h"

#define MSR_APIC_BASE    0x1bu
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_X2APIC       0x800u

static int x2apic_read(struct lapic *l, unsigned reg, uint64_t *value)
{
	uint32_t v;

	if (!lapic_x2apic(l) || !lapic_reg_read_locked(l, reg, &v))
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
		return lapic_lvt_writable[reg - REG_LVT_TIMER] | 1u << 12 | LVT_REMOTE_IRR;
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

	if (!lapic_x2apic(l) || !writable || (value & ~x2apic_writable(reg)))
		return -1;
	if (reg == REG_ICR)
		l->icr_high = value >> 32;
	if (reg != REG_SELF_IPI)
		lapic_reg_write_locked(l, reg, value);
	else if (value < 16)
		lapic_esr_error_locked(l, ESR_SEND_VECTOR);
	else
		lapic_accept_fixed_locked(l, value, false);
	return 0;
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
	if (extd && !lapic_hw_enabled(l))
		return false;                     /* disabled -> x2APIC */
	return !(lapic_x2apic(l) && en && !extd); /* x2APIC -> xAPIC */
}

static int base_write(struct lapic *l, uint64_t v)
{
	if (!base_allowed(l, v))
		return -1;
	mutex_lock(&l->router->lock);
	if (lapic_hw_enabled(l) && !(v & BASE_ENABLE)) {
		lapic_reset_registers_locked(l); /* SDM 3A 11.4.3: its state is lost */
	} else if (!lapic_x2apic(l) && (v & BASE_EXTD)) {
		l->icr_high = 0;
	}
	l->apic_base = v;
	lapic_update_locked(l);
	mutex_unlock(&l->router->lock);
	lapic_timer_arm(l, false);
	if (lapic_page_decoded(l)) {
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
		return lapic_tsc_deadline_write(l, value);
	if (index < MSR_X2APIC || index > MSR_X2APIC + 0xff)
		return -1;
	mutex_lock(&l->router->lock);
	rc = x2apic_write(l, reg, value);
	mutex_unlock(&l->router->lock);
	if (!rc && lapic_timer_register(reg))
		lapic_timer_arm(l, false);
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
