/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registers of a LAPIC's page whose reading is nothing but a load: what the
 * processor itself wrote last.  Old kernels ask for the ID at each lock that they
 * take; translated code comes here without leaving (general-regs-only), and takes no
 * lock, since only the vCPU's own thread writes them.
 */
#include "dev/irq/lapic_internal.h"

uint64_t lapic_page(const struct lapic *l)
{
	return l->apic_base & ~0xfffull;
}

bool lapic_plain_register(const struct lapic *l, unsigned reg, uint32_t *v)
{
	switch (reg) {
	case REG_ID:
		*v = l->id << 24;
		return true;
	case REG_TPR:
		*v = l->tpr;
		return true;
	case REG_LDR:
		*v = l->ldr;
		return true;
	case REG_DFR:
		*v = l->dfr;
		return true;
	case REG_SVR:
		*v = l->svr;
		return true;
	case REG_ICR:
		*v = l->icr;
		return true;
	case REG_ICR_HIGH:
		*v = l->icr_high;
		return true;
	default:
		return false;
	}
}

bool lapic_peek(const struct lapic *l, uint64_t pa, uint32_t *v)
{
	return lapic_page_decoded(l) && (pa & ~0xfffull) == lapic_page(l) && !(pa & 15) &&
	       lapic_plain_register(l, pa >> 4 & 0xff, v);
}
