/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RDMSR and WRMSR (SDM 4, AMD's volume 2 chapter 15).
 *
 * Four kinds of register: those with effect here, most of them plain words of the
 * CPU state that system calls and segments read; those whose value does nothing in
 * this engine but must read back, as memory types; AMD's that system software
 * touches and that hold nothing; and the board's (APIC_BASE, x2APIC, paravirtual
 * clocks), which need ordinary C.  Any other is #GP, and so is a reserved bit.
 *
 * What no CPUID bit announces is not there either: has_speculation_msr.
 */
#include "engine/bt/interp_internal.h"
#include "engine/bt/t2.h"

#define MSR_TSC             0x10
#define MSR_PLATFORM_ID     0x17
#define MSR_FEATURE_CONTROL 0x3a
#define MSR_TSC_ADJUST      0x3b
#define MSR_SPEC_CTRL       0x48
#define MSR_PRED_CMD        0x49
#define MSR_UCODE_REV       0x8b
#define MSR_MTRRCAP         0xfe
#define MSR_ARCH_CAP        0x10a
#define MSR_FLUSH_CMD       0x10b
#define MSR_SYSENTER_CS     0x174
#define MSR_SYSENTER_ESP    0x175
#define MSR_SYSENTER_EIP    0x176
#define MSR_MCG_CAP         0x179
#define MSR_MCG_STATUS      0x17a
#define MSR_MISC_ENABLE     0x1a0
#define MSR_DEBUGCTL        0x1d9
#define MSR_MTRR_BASE       0x200
#define MSR_PAT             0x277
#define MSR_MTRR_DEF        0x2ff
#define MSR_EFER            0xc0000080
#define MSR_STAR            0xc0000081
#define MSR_LSTAR           0xc0000082
#define MSR_CSTAR           0xc0000083
#define MSR_SFMASK          0xc0000084
#define MSR_FS_BASE         0xc0000100
#define MSR_GS_BASE         0xc0000101
#define MSR_KERNEL_GS_BASE  0xc0000102
#define MSR_TSC_AUX         0xc0000103

/* RDCL_NO, IBRS_ALL, SKIP_L1DFL, SSB_NO, MDS_NO, IF_PSCHANGE_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO,
 * BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO */
#define ARCH_CAP_VALUE 0x400000000d10e17bull

static const uint16_t fixed_mtrr[11] = { 0x250, 0x258, 0x259, 0x268, 0x269, 0x26a,
					 0x26b, 0x26c, 0x26d, 0x26e, 0x26f };

static uint64_t *mtrr_slot(struct vcpu *v, uint32_t i)
{
	if (i >= MSR_MTRR_BASE && i < MSR_MTRR_BASE + 16)
		return (i & 1) ? &v->st.mtrr_mask[(i - MSR_MTRR_BASE) / 2]
			       : &v->st.mtrr_base[(i - MSR_MTRR_BASE) / 2];
	if (i == MSR_MTRR_DEF)
		return &v->st.mtrr_def_type;
	for (int k = 0; k < 11; k++)
		if (fixed_mtrr[k] == i)
			return &v->st.mtrr_fixed[k];
	return NULL;
}

/* Model-specific registers of AMD processors that system software touches and that hold nothing for a guest.
 */
static bool amd_quiet(uint32_t i)
{
	switch (i) {
	case 0xc0010000: /* PERF_CTL0..3, PERF_CTR0..3: every AMD64 processor has them; these count nothing */
	case 0xc0010001:
	case 0xc0010002:
	case 0xc0010003:
	case 0xc0010004:
	case 0xc0010005:
	case 0xc0010006:
	case 0xc0010007:
	case 0xc0010010: /* SYSCFG */
	case 0xc0010015: /* HWCR */
	case 0xc001001a: /* TOP_MEM */
	case 0xc001001d: /* TOP_MEM2 */
	case 0xc001001f: /* NB_CFG */
	case 0xc0010055: /* interrupt pending */
	case 0xc0010111: /* SMBASE */
	case 0xc0010112:
	case 0xc0010113:
	case 0xc0010114: /* VM_CR */
	case 0xc0010140: /* OSVW */
	case 0xc0010141:
	case 0xc0011020: /* LS_CFG */
	case 0xc0011021:
	case 0xc0011022: /* DC_CFG */
	case 0xc0011023:
	case 0xc0011029: /* DE_CFG */
	case 0xc001102a:
	case 0xc001102c:
		return true;
	default:
		return false;
	}
}

/* Those that exist only with their CPUID bits. */
static bool has_speculation_msr(const struct vcpu *v, uint32_t i)
{
	uint32_t edx7 = v->model->basic[7].edx, amd = v->model->ext[8].ebx;

	switch (i) {
	case MSR_SPEC_CTRL: /* IBRS, STIBP, SSBD; AMD's */
		return (edx7 & (1u << 26 | 1u << 27 | 1u << 31)) || (amd & (1u << 14 | 1u << 15 | 1u << 24));
	case MSR_PRED_CMD: /* IBPB */
		return (edx7 & 1u << 26) || (amd & 1u << 12);
	default: /* FLUSH_CMD: L1D_FLUSH */
		return edx7 & 1u << 28;
	}
}

static int msr_read(struct vcpu *v, uint32_t i, uint64_t *val)
{
	struct x86_state *s = &v->st;
	uint64_t *slot = mtrr_slot(v, i);

	if (slot) {
		*val = *slot;
		return 0;
	}
	switch (i) {
	case MSR_TSC:
		*val = guest_tsc(v);
		return 0;
	case MSR_TSC_ADJUST:
		*val = s->tsc_adjust;
		return 0;
	case MSR_SPEC_CTRL:
		*val = s->spec_ctrl;
		return has_speculation_msr(v, i) ? 0 : -1;
	case MSR_UCODE_REV:
		*val = v->model->vendor_intel ? 0xffffffffull << 32 : 0x01000065;
		return 0;
	case MSR_MTRRCAP:
		*val = 0x508;
		return 0;
	case MSR_ARCH_CAP:
		*val = ARCH_CAP_VALUE;
		return 0;
	case MSR_SYSENTER_CS:
		*val = s->sysenter_cs;
		return 0;
	case MSR_SYSENTER_ESP:
		*val = s->sysenter_esp;
		return 0;
	case MSR_SYSENTER_EIP:
		*val = s->sysenter_eip;
		return 0;
	case MSR_PLATFORM_ID:
	case MSR_MCG_CAP:
		*val = 0;
		return 0;
	case MSR_FEATURE_CONTROL: /* locked by firmware, VMX off */
		*val = v->model->vendor_intel;
		return 0;
	case MSR_MCG_STATUS:
		*val = s->mcg_status;
		return 0;
	case MSR_MISC_ENABLE:
		*val = s->misc_enable;
		return 0;
	case MSR_DEBUGCTL:
		*val = s->debugctl;
		return 0;
	case MSR_PAT:
		*val = s->pat;
		return 0;
	case MSR_EFER:
		*val = s->efer;
		return 0;
	case MSR_STAR:
		*val = s->star;
		return 0;
	case MSR_LSTAR:
		*val = s->lstar;
		return 0;
	case MSR_CSTAR:
		*val = s->cstar;
		return 0;
	case MSR_SFMASK:
		*val = s->sfmask;
		return 0;
	case MSR_FS_BASE:
		*val = s->seg[SEG_FS].base;
		return 0;
	case MSR_GS_BASE:
		*val = s->seg[SEG_GS].base;
		return 0;
	case MSR_KERNEL_GS_BASE:
		*val = s->kernel_gs_base;
		return 0;
	case MSR_TSC_AUX:
		*val = s->tsc_aux;
		return 0;
	default:
		if (amd_quiet(i) && !v->model->vendor_intel) {
			*val = i == 0xc0010015 ? 1u << 24 : 0; /* HWCR.TscFreqSel: the TSC counts at P0 */
			return 0;
		}
		if (needs_full(v))
			return -1;
		return v->board.msr_read && !v->board.msr_read(v->board.opaque, i, val) ? 0 : -1;
	}
}

static bool pat_valid(uint64_t x)
{
	for (int i = 0; i < 8; i++) {
		unsigned t = x >> (8 * i) & 0xff;

		if (t > 7 || t == 2 || t == 3)
			return false;
	}
	return true;
}

static bool mtrr_type_valid(uint64_t t)
{
	return t < 2 || (t >= 4 && t <= 6);
}

/* Reserved bits and types (SDM 3A 12.11.2). */
static bool mtrr_valid(const struct vcpu *v, uint32_t i, uint64_t val)
{
	if (i == MSR_MTRR_DEF)
		return !(val & ~0xcffull) && mtrr_type_valid(val & 0xff);
	if (i >= MSR_MTRR_BASE && i < MSR_MTRR_BASE + 16) {
		if (val & ~(v->phys_mask | 0xfff))
			return false;
		return (i & 1) ? !(val & 0x7ff) : !(val & 0xf00) && mtrr_type_valid(val & 0xff);
	}
	for (unsigned k = 0; k < 64; k += 8)
		if (!mtrr_type_valid(val >> k & 0xff))
			return false;
	return true;
}

static int efer_write(struct vcpu *v, uint64_t val)
{
	struct x86_state *s = &v->st;

	if (val & ~(uint64_t)(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE))
		return -1;
	if ((s->cr0 & CR0_PG) && ((val ^ s->efer) & EFER_LME))
		return -1;
	s->efer = (val & ~(uint64_t)EFER_LMA) | (s->efer & EFER_LMA);
	mmu_flush_all(v);
	return 0;
}

static int base_write(uint64_t *slot, uint64_t val)
{
	if (!canonical(val))
		return -1;
	*slot = val;
	return 0;
}

/* False: needs_full. Stubs execute RDTSC while the guest's TSC is the host's: that may be at an end. */
static bool move_tsc(struct vcpu *v, uint64_t by)
{
	uint64_t offset = v->st.tsc_offset + by;

	if (v->t2 && !offset != !v->st.tsc_offset) {
		if (needs_full(v))
			return false;
		t2_protect_all(v);
	}
	v->st.tsc_offset = offset;
	return true;
}

static int msr_write(struct vcpu *v, uint32_t i, uint64_t val)
{
	struct x86_state *s = &v->st;
	uint64_t *slot = mtrr_slot(v, i);

	if (slot) {
		/* Memory types do not matter here, but what was written must read back. */
		if (!mtrr_valid(v, i, val))
			return -1;
		*slot = val;
		return 0;
	}
	switch (i) {
	case MSR_TSC: /* what moves the one moves the other (SDM 3B 18.17.3) */
		val -= guest_tsc(v);
		if (!move_tsc(v, val))
			return -1;
		s->tsc_adjust += val;
		return 0;
	case MSR_TSC_ADJUST:
		if (!move_tsc(v, val - s->tsc_adjust))
			return -1;
		s->tsc_adjust = val;
		return 0;
	case MSR_SPEC_CTRL:
		if ((val & ~0x407ull) || !has_speculation_msr(v, i))
			return -1;
		s->spec_ctrl = val;
		return 0;
	case MSR_PRED_CMD:
	case MSR_FLUSH_CMD:
		return val <= 1 && has_speculation_msr(v, i) ? 0 : -1;
	case MSR_UCODE_REV:
		return 0;
	case MSR_SYSENTER_CS:
		s->sysenter_cs = val;
		return 0;
	case MSR_SYSENTER_ESP:
		return base_write(&s->sysenter_esp, val);
	case MSR_SYSENTER_EIP:
		return base_write(&s->sysenter_eip, val);
	case MSR_MCG_STATUS:
		s->mcg_status = val;
		return 0;
	case MSR_MISC_ENABLE:
		s->misc_enable = val;
		return 0;
	case MSR_DEBUGCTL:
		s->debugctl = val & 3;
		return 0;
	case MSR_PAT:
		if (!pat_valid(val))
			return -1;
		s->pat = val;
		return 0;
	case MSR_EFER:
		return efer_write(v, val);
	case MSR_STAR:
		s->star = val;
		return 0;
	case MSR_LSTAR:
		return base_write(&s->lstar, val);
	case MSR_CSTAR:
		return base_write(&s->cstar, val);
	case MSR_SFMASK:
		s->sfmask = (uint32_t)val;
		return 0;
	case MSR_FS_BASE:
		return base_write(&s->seg[SEG_FS].base, val);
	case MSR_GS_BASE:
		return base_write(&s->seg[SEG_GS].base, val);
	case MSR_KERNEL_GS_BASE:
		return base_write(&s->kernel_gs_base, val);
	case MSR_TSC_AUX:
		if (val >> 32)
			return -1;
		s->tsc_aux = val;
		return 0;
	default:
		if (amd_quiet(i) && !v->model->vendor_intel)
			return 0;
		if (needs_full(v))
			return -1;
		if (!v->board.msr_write || v->board.msr_write(v->board.opaque, i, val))
			return -1;
		if (i == MSR_APIC_BASE)
			v->apic_off = !(val & APIC_BASE_ENABLE);
		return 0;
	}
}

int interp_msr(struct vcpu *v, bool write)
{
	uint32_t i = (uint32_t)v->st.gpr[RCX];
	uint64_t val = 0;

	if (privileged(v))
		return -1;
	if (write) {
		val = (uint32_t)v->st.gpr[RAX] | v->st.gpr[RDX] << 32;
		if (msr_write(v, i, val))
			return exc_gp(v, 0);
		return 0;
	}
	if (msr_read(v, i, &val))
		return exc_gp(v, 0);
	v->st.gpr[RAX] = (uint32_t)val;
	v->st.gpr[RDX] = val >> 32;
	return 0;
}
