/* SPDX-License-Identifier: Apache-2.0 */
/* CPUID models: what processor the guest sees. Named and masked, so that a VM can move. */
#ifndef SILL_X86_CPUID_H
#define SILL_X86_CPUID_H

#include "base/error.h"
#include "x86/types.h"

struct cpuid_regs {
	uint32_t eax, ebx, ecx, edx;
};

struct cpu_model {
	char name[16];
	uint64_t xcr0_mask;  /* XCR0 bits that the guest may set */
	uint32_t xsave_size; /* bytes of the standard-format image for xcr0_mask */
	unsigned phys_bits;
	unsigned nr_vcpus;
	uint32_t tsc_khz;
	bool vendor_intel; /* else AMD: as the host */
	/* basic leaves 0..0x1f (sub-leaf 0 unless computed), 0x40000000.., 0x80000000..; private */
	struct cpuid_regs host_d[64]; /* leaf 0xd sub-leaves as the host has them */
	struct cpuid_regs basic[0x20], ext[0x20];
	struct cpuid_regs leaf4[8]; /* caches, while it lasts */
	struct cpuid_regs leaf7_1, leaf7_2, kvm[2], timing;
};

/* name: "host", "v2", "v3". Masks what Sill does not offer (VMX/SVM, MWAIT, AMX, XSAVES, TSX, ...). */
int cpu_model_new(const char *name, unsigned nr_vcpus, struct cpu_model *ret, struct error *err);

/*
 * Reduces the physical-address bits to what a machine with `memory` bytes of RAM has use for, 40 at least:
 * firmware makes page tables for all addresses that there can be, and 46 bits are a quarter of a gigabyte of
 * them.
 */
void cpu_model_fit_memory(struct cpu_model *m, uint64_t memory);

/* What the guest sees of the running vCPU, needed for the leaves that depend on it. */
struct cpuid_context {
	uint32_t apic_id;
	uint64_t cr4, xcr0;
	bool apic_off; /* disabled in its base MSR */
};
struct cpuid_regs cpuid_query(const struct cpu_model *m, const struct cpuid_context *c, uint32_t leaf,
			      uint32_t subleaf);

/* The host's TSC frequency in kHz: CPUID 0x15/0x16/0x40000010 where present, else measured once (20 ms). */
uint32_t tsc_khz_host(void);

#endif
