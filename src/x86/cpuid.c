/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CPUID models (SDM 2A CPUID; AMD APM 3 appendix E).
 *
 * A model starts from the host's leaves, keeps the features that are listed
 * here and that the host has, and adds those that the engine implements itself
 * whatever the host (SMAP, PCID, x2APIC...).  "host" offers all of it, "v2" and
 * "v3" the x86-64 psABI levels, so that a VM can move between hosts.
 */
#include "x86/cpuid.h"

#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/util.h"

/* Leaf 1 ECX: user-visible features, by the model that first has them. */
#define L1C_V2                                                                                               \
	(BIT(0) | BIT(9) | BIT(13) | BIT(19) | BIT(20) | BIT(23)) /* SSE3 SSSE3 CX16 SSE4.1 SSE4.2 POPCNT */
#define L1C_V3   (L1C_V2 | BIT(12) | BIT(22) | BIT(26) | BIT(28) | BIT(29)) /* FMA MOVBE XSAVE AVX F16C */
#define L1C_HOST (L1C_V3 | BIT(1) | BIT(25) | BIT(30))                      /* PCLMUL AES RDRAND */
#define L1C_OURS (BIT(17) | BIT(21) | BIT(24) | BIT(31)) /* PCID x2APIC TSC-deadline hypervisor */
/* Leaf 1 EDX: FPU DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR PGE MCA CMOV PAT PSE36 CLFSH MMX FXSR SSE SSE2 */
#define L1D_ALL                                                                                              \
	(BIT(0) | BIT(2) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(7) | BIT(8) | BIT(9) | BIT(11) |          \
	 BIT(12) | BIT(13) | BIT(14) | BIT(15) | BIT(16) | BIT(17) | BIT(19) | BIT(23) | BIT(24) | BIT(25) | \
	 BIT(26))
/* Leaf 7 EBX */
#define L7B_V3 (BIT(3) | BIT(5) | BIT(8)) /* BMI1 AVX2 BMI2 */
#define L7B_HOST                                                                                             \
	(L7B_V3 | BIT(0) | BIT(9) | BIT(16) | BIT(17) | BIT(18) | BIT(19) | BIT(21) | BIT(23) | BIT(24) |    \
	 BIT(28) | BIT(29) | BIT(30) |                                                                       \
	 BIT(31)) /* FSGSBASE ERMS AVX512F/DQ RDSEED ADX IFMA CLFLUSHOPT CLWB CD SHA BW VL */
#define L7B_OURS   (BIT(1) | BIT(7) | BIT(10) | BIT(20)) /* TSC_ADJUST SMEP INVPCID SMAP */
#define L7B_AVX512 (BIT(16) | BIT(17) | BIT(21) | BIT(28) | BIT(30) | BIT(31))
/*
 * Not announced, though they work: RDTSCP and RDPID.  In a stub (engine/bt/t2.h) they would tell the host's
 * processor, so each has to be stopped at, and systems that find them announced read the clock by them.
 */
/* Leaf 7 ECX: VBMI VBMI2 GFNI VAES VPCLMULQDQ VNNI BITALG VPOPCNTDQ */
#define L7C_HOST   (BIT(1) | BIT(6) | BIT(8) | BIT(9) | BIT(10) | BIT(11) | BIT(12) | BIT(14))
#define L7C_OURS   BIT(2) /* UMIP */
#define L7C_AVX512 (BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14))
/* Leaf 7 EDX: FSRM, VP2INTERSECT; ours: ARCH_CAPABILITIES */
#define L7D_HOST   (BIT(4) | BIT(8))
#define L7D_OURS   (BIT(26) | BIT(29))
#define L7D_AVX512 BIT(8)
/* Leaf 7.1 EAX: AVX-VNNI, AVX512-BF16 */
#define L71A_HOST (BIT(4) | BIT(5))
/*
 * Leaf 7.2 EDX, ours: BHI_CTRL, MCDT_NO. Linux takes every Intel processor for one that needs branch history
 * cleared at each system call, by a loop of calls if there is no control bit for it.
 */
#define L72D_INTEL (BIT(4) | BIT(5))
/* 0x80000001 ECX: LAHF, LZCNT, SSE4A, misaligned SSE, 3DNow prefetch */
#define E1C_V2   BIT(0)
#define E1C_V3   (E1C_V2 | BIT(5))
#define E1C_HOST (E1C_V3 | BIT(6) | BIT(7) | BIT(8))
/* 0x80000001 EDX: SYSCALL NX MMXEXT PDPE1GB LM */
#define E1D_ALL (BIT(11) | BIT(20) | BIT(26) | BIT(29))
#define E1D_AMD (BIT(22))
#define E1D_DUP 0x0183f3ffu /* bits that AMD repeats from leaf 1 */

static struct cpuid_regs host_leaf(uint32_t leaf, uint32_t sub)
{
	struct cpuid_regs r;

	__cpuid_count(leaf, sub, r.eax, r.ebx, r.ecx, r.edx);
	return r;
}

static uint32_t measure_tsc_khz(void)
{
	struct timespec a, b;
	uint64_t ta, tb;
	int64_t ns;

	clock_gettime(CLOCK_MONOTONIC, &a);
	ta = __builtin_ia32_rdtsc();
	do {
		clock_gettime(CLOCK_MONOTONIC, &b);
		tb = __builtin_ia32_rdtsc();
		ns = (b.tv_sec - a.tv_sec) * 1000000000ll + b.tv_nsec - a.tv_nsec;
	} while (ns < 20000000);
	return (uint32_t)((unsigned __int128)(tb - ta) * 1000000 / (uint64_t)ns);
}

uint32_t tsc_khz_host(void)
{
	struct cpuid_regs r = host_leaf(0, 0);

	if (r.eax >= 0x15) {
		struct cpuid_regs t = host_leaf(0x15, 0);

		if (t.eax && t.ebx && t.ecx)
			return (uint32_t)((uint64_t)t.ecx * t.ebx / t.eax / 1000);
	}
	r = host_leaf(1, 0);
	if (r.ecx >> 31) {
		r = host_leaf(0x40000000, 0);
		if (r.eax >= 0x40000010 && r.eax < 0x40000100) {
			struct cpuid_regs t = host_leaf(0x40000010, 0);

			if (t.eax)
				return t.eax;
		}
	}
	return measure_tsc_khz();
}

enum level { LEVEL_V2, LEVEL_V3, LEVEL_HOST };

static uint32_t pick(enum level l, uint32_t v2, uint32_t v3, uint32_t host)
{
	return l == LEVEL_V2 ? v2 : l == LEVEL_V3 ? v3 : host;
}

static void set_brand(struct cpu_model *m, enum level l)
{
	char brand[48] = { 0 };

	if (l == LEVEL_HOST) {
		for (uint32_t i = 0; i < 3; i++)
			m->ext[2 + i] = host_leaf(0x80000002 + i, 0);
		return;
	}
	snprintf(brand, sizeof brand, "Sill x86-64-%s virtual CPU", m->name);
	memcpy(&m->ext[2], brand, 48);
}

static void basic_leaves(struct cpu_model *m, enum level l)
{
	struct cpuid_regs h = host_leaf(1, 0), *r = &m->basic[1];
	bool avx512;

	r->eax = l == LEVEL_HOST ? h.eax : m->vendor_intel ? 0x000306a9 : 0x00060fb1;
	r->ebx = 8 << 8 | (m->nr_vcpus & 0xff) << 16;
	r->ecx = (h.ecx & pick(l, L1C_V2, L1C_V3, L1C_HOST)) | L1C_OURS;
	r->edx = (h.edx & L1D_ALL) | BIT(9) | (m->nr_vcpus > 1 ? BIT(28) : 0);

	m->xcr0_mask = 0;
	if (r->ecx & BIT(26)) {
		struct cpuid_regs d = host_leaf(0xd, 0);

		m->xcr0_mask = d.eax & (l == LEVEL_HOST ? 0xe7u : 7u);
		if (!(r->ecx & BIT(28)))
			m->xcr0_mask &= 3;
		if ((m->xcr0_mask & 0xe0) != 0xe0)
			m->xcr0_mask &= 7;
	}
	avx512 = (m->xcr0_mask & 0xe0) == 0xe0;
	if (m->basic[0].eax >= 7) {
		struct cpuid_regs h7 = host_leaf(7, 0);

		r = &m->basic[7];
		r->ebx = (h7.ebx & pick(l, 0, L7B_V3, L7B_HOST)) | L7B_OURS;
		r->ecx = (h7.ecx & pick(l, 0, 0, L7C_HOST)) | L7C_OURS;
		r->edx = (h7.edx & pick(l, 0, 0, L7D_HOST)) | L7D_OURS;
		if (!avx512) {
			r->ebx &= ~L7B_AVX512;
			r->ecx &= ~L7C_AVX512;
			r->edx &= ~L7D_AVX512;
		}
		if (h7.eax >= 1 && l == LEVEL_HOST) {
			r->eax = 1;
			m->leaf7_1.eax = host_leaf(7, 1).eax & L71A_HOST;
			if (!avx512)
				m->leaf7_1.eax &= ~BIT(5);
		}
		if (m->vendor_intel) {
			r->eax = 2;
			m->leaf7_2.edx = L72D_INTEL;
		}
	}
	m->basic[2] = m->vendor_intel ? host_leaf(2, 0) : (struct cpuid_regs){ 0 };
	for (uint32_t i = 0; m->vendor_intel && i < ARRAY_SIZE(m->leaf4); i++)
		m->leaf4[i] = host_leaf(4, i);
}

static void xsave_leaves(struct cpu_model *m)
{
	m->xsave_size = 576;
	for (unsigned i = 0; i < 64; i++) {
		m->host_d[i] = (struct cpuid_regs){ 0 };
		if (i == 1)
			m->host_d[1].eax = host_leaf(0xd, 1).eax & 7; /* XSAVEOPT, XSAVEC, XGETBV1 */
		else if (i >= 2 && (m->xcr0_mask >> i & 1)) {
			m->host_d[i] = host_leaf(0xd, i);
			if (m->host_d[i].eax + m->host_d[i].ebx > m->xsave_size)
				m->xsave_size = m->host_d[i].eax + m->host_d[i].ebx;
		}
	}
}

static void ext_leaves(struct cpu_model *m, enum level l)
{
	struct cpuid_regs h = host_leaf(0x80000001, 0);
	uint32_t max = host_leaf(0x80000000, 0).eax;

	m->ext[0] = m->basic[0];
	m->ext[0].eax = 0x80000008;
	if (!m->vendor_intel && max >= 0x80000021)
		m->ext[0].eax = 0x80000021;
	m->ext[1].eax = m->basic[1].eax;
	m->ext[1].ecx = h.ecx & pick(l, E1C_V2, E1C_V3, E1C_HOST);
	if (!m->vendor_intel && m->nr_vcpus > 1)
		m->ext[1].ecx |= BIT(1); /* the logical CPUs are cores */
	m->ext[1].edx = (h.edx & E1D_ALL) | BIT(11) | BIT(20) | BIT(29);
	if (!m->vendor_intel)
		m->ext[1].edx |= (h.edx & E1D_AMD) | (m->basic[1].edx & E1D_DUP);
	set_brand(m, l);
	if (max >= 0x80000006) {
		m->ext[5] = host_leaf(0x80000005, 0);
		m->ext[6] = host_leaf(0x80000006, 0);
	}
	m->ext[7].edx = BIT(8); /* invariant TSC */
	m->phys_bits = max >= 0x80000008 ? host_leaf(0x80000008, 0).eax & 0xff : 36;
	if (m->phys_bits > 46)
		m->phys_bits = 46;
	m->ext[8].eax = m->phys_bits | 48 << 8;
	if (!m->vendor_intel) {
		m->ext[8].ebx = BIT(26); /* SSB_NO */
		m->ext[8].ecx = (m->nr_vcpus - 1) | 4 << 12;
	}
}

static void set_phys_bits(struct cpu_model *m, unsigned bits)
{
	m->phys_bits = bits;
	m->ext[8].eax = bits | 48 << 8;
}

void cpu_model_fit_memory(struct cpu_model *m, uint64_t memory)
{
	unsigned bits = 40;

	/* As much again for the windows of devices. */
	while (bits < m->phys_bits && memory >> (bits - 1))
		bits++;
	if (bits < m->phys_bits)
		set_phys_bits(m, bits);
}

int cpu_model_new(const char *name, unsigned nr_vcpus, struct cpu_model *m, struct error *err)
{
	struct cpuid_regs h = host_leaf(0, 0);
	enum level l;

	if (!strcmp(name, "host"))
		l = LEVEL_HOST;
	else if (!strcmp(name, "v2"))
		l = LEVEL_V2;
	else if (!strcmp(name, "v3"))
		l = LEVEL_V3;
	else
		return error_set(err, EINVAL, "unknown CPU model '%s': use host, v2 or v3", name);
	memset(m, 0, sizeof *m);
	snprintf(m->name, sizeof m->name, "%s", name);
	m->nr_vcpus = nr_vcpus;
	m->vendor_intel = h.ebx == 0x756e6547; /* "Genu" */
	m->basic[0] = h;
	m->basic[0].eax = h.eax < 0xd ? h.eax : 0x10;
	m->tsc_khz = tsc_khz_host();
	basic_leaves(m, l);
	xsave_leaves(m);
	ext_leaves(m, l);
	if (l == LEVEL_V3 && ((m->basic[1].ecx & L1C_V3) != L1C_V3 || (m->basic[7].ebx & L7B_V3) != L7B_V3))
		return error_set(
		    err, ENOTSUP,
		    "this host's processor is below x86-64-v3, so --cpu v3 cannot run here: use --cpu v2");
	return 0;
}
