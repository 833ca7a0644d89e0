/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What CPUID answers.  Translated code comes here, for some programs ask all the time, so:
 * general-regs-only.
 */
#include "base/util.h"
#include "x86/cpuid.h"

/* KVM features: clocksource, no I/O delay, clocksource2, IPIs by hypercall, stable clock. */
#define KVM_FEATURES (BIT(0) | BIT(1) | BIT(3) | BIT(11) | BIT(24))

static uint32_t apic_id_shift(const struct cpu_model *m)
{
	uint32_t n = 0;

	while ((1u << n) < m->nr_vcpus)
		n++;
	return n;
}

static struct cpuid_regs leaf_d(const struct cpu_model *m, const struct cpuid_context *c, uint32_t sub)
{
	struct cpuid_regs r = { 0 };

	if (!m->xcr0_mask || sub > 63)
		return r;
	if (sub == 0) {
		r.eax = (uint32_t)m->xcr0_mask;
		r.ecx = m->xsave_size;
		r.ebx = 576;
		for (unsigned i = 2; i < 63; i++)
			if ((c->xcr0 >> i & 1) && m->host_d[i].eax + m->host_d[i].ebx > r.ebx)
				r.ebx = m->host_d[i].eax + m->host_d[i].ebx;
		return r;
	}
	if (sub == 1) {
		r.eax = m->host_d[1].eax;
		r.ebx = 576;
		for (unsigned i = 2; i < 63; i++)
			if (c->xcr0 >> i & 1) {
				if (m->host_d[i].ecx & 2)
					r.ebx = (r.ebx + 63) & ~63u;
				r.ebx += m->host_d[i].eax;
			}
		return r;
	}
	return m->host_d[sub];
}

struct cpuid_regs cpuid_query(const struct cpu_model *m, const struct cpuid_context *c, uint32_t leaf,
			      uint32_t sub)
{
	struct cpuid_regs r = { 0 };

	if (leaf == 0x40000000)
		return (struct cpuid_regs){ 0x40000010, 0x4b4d564b, 0x564b4d56, 0x4d };
	if (leaf == 0x40000001)
		return (struct cpuid_regs){ KVM_FEATURES, 0, 0, 0 };
	if (leaf == 0x40000010)
		return (struct cpuid_regs){ m->tsc_khz, 1000000, 0, 0 };
	if (leaf >= 0x40000000 && leaf < 0x80000000)
		return r;
	if (leaf >= 0x80000000) {
		if (leaf > m->ext[0].eax)
			return r;
		if (leaf == 0x80000021) {
			r.eax =
			    BIT(0) | BIT(2) | BIT(6) |
			    BIT(29); /* no nested breakpoints; LFENCE serialises; null clears base; SRSO_NO */
			return r;
		}
		return leaf < 0x80000020 ? m->ext[leaf & 0x1f] : r;
	}
	/* Intel answers a leaf beyond the last with the last; zeros are as good for AMD. */
	if (leaf > m->basic[0].eax)
		return r;
	switch (leaf) {
	case 1:
		r = m->basic[1];
		r.ebx |= c->apic_id << 24;
		if (c->cr4 & (1u << 18))
			r.ecx |= BIT(27);
		if (c->apic_off)
			r.edx &= ~BIT(9);
		return r;
	case 4:
		if (!m->vendor_intel)
			return r;
		r = sub < ARRAY_SIZE(m->leaf4) ? m->leaf4[sub] : r;
		if (r.eax & 0x1f) {
			r.eax &= 0x3fffu;
			r.eax |= (m->nr_vcpus - 1) << 26;
		}
		return r;
	case 7:
		return sub == 0 ? m->basic[7] : sub == 1 ? m->leaf7_1 : sub == 2 ? m->leaf7_2 : r;
	case 0xb:
		r.edx = c->apic_id;
		r.ecx = sub & 0xff;
		if (sub == 0) {
			r.ebx = 1;
			r.ecx |= 1 << 8;
		} else if (sub == 1) {
			r.eax = apic_id_shift(m);
			r.ebx = m->nr_vcpus;
			r.ecx |= 2 << 8;
		}
		return r;
	case 0xd:
		return leaf_d(m, c, sub);
	default:
		return leaf < 3 ? m->basic[leaf] : r;
	}
}
