/* SPDX-License-Identifier: Apache-2.0 */
/* System instructions: control and debug registers, MSRs, descriptor tables, ports, system calls. */
#include <sys/syscall.h>

#include "engine/bt/bt.h"
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

static uint64_t guest_tsc(const struct vcpu *v)
{
	return __builtin_ia32_rdtsc() + v->st.tsc_offset;
}

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

/* ---- control registers ---- */

static int cr0_write(struct vcpu *v, uint64_t val)
{
	struct x86_state *s = &v->st;
	uint64_t old = s->cr0;
	const uint64_t known =
	    CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG;

	if (val >> 32)
		return exc_gp(v, 0);
	val = (val & known) | CR0_ET;
	if (((val & CR0_PG) && !(val & CR0_PE)) || ((val & CR0_NW) && !(val & CR0_CD)))
		return exc_gp(v, 0);
	if ((val & CR0_PG) && !(old & CR0_PG)) {
		if (s->efer & EFER_LME) {
			if (!(s->cr4 & CR4_PAE) || (s->seg[SEG_CS].attr & SEG_L))
				return exc_gp(v, 0);
		} else if ((s->cr4 & CR4_PAE) && mmu_load_pdptes(v, s->cr3)) {
			return exc_gp(v, 0);
		}
	} else if (!(val & CR0_PG) && (old & CR0_PG)) {
		if (is_code64(v) || (s->cr4 & CR4_PCIDE))
			return exc_gp(v, 0);
	} else if ((val & CR0_PG) && (s->cr4 & CR4_PAE) && !(s->efer & EFER_LMA) &&
		   ((val ^ old) & (CR0_CD | CR0_NW | CR0_PG)) && mmu_load_pdptes(v, s->cr3)) {
		return exc_gp(v, 0);
	}
	s->cr0 = val;
	if ((val & CR0_PG) && (s->efer & EFER_LME))
		s->efer |= EFER_LMA;
	else
		s->efer &= ~(uint64_t)EFER_LMA;
	if ((old ^ val) & (CR0_PE | CR0_PG | CR0_WP))
		mmu_flush_all(v);
	if ((old ^ val) & CR0_PE) {
		/* Entering or leaving protected mode: CPL is 0 until CS is loaded. */
		for (int i = 0; i < SEG_COUNT; i++)
			if (!(val & CR0_PE) && !(s->seg[i].attr & SEG_P))
				s->seg[i].attr = SEG_P | SEG_S | 3;
		if (val & CR0_PE)
			s->seg[SEG_SS].attr &= ~(uint16_t)0x60;
	}
	mode_changed(v);
	return 0;
}

static int cr3_write(struct vcpu *v, uint64_t val)
{
	struct x86_state *s = &v->st;
	bool noflush = false;

	if (s->efer & EFER_LMA) {
		if (s->cr4 & CR4_PCIDE) {
			noflush = val >> 63;
			val &= ~(1ull << 63);
		}
		if (val & ~(v->phys_mask | 0xfff))
			return exc_gp(v, 0);
	} else {
		val = (uint32_t)val;
		if ((s->cr0 & CR0_PG) && (s->cr4 & CR4_PAE) && mmu_load_pdptes(v, val))
			return exc_gp(v, 0);
	}
	s->cr3 = val;
	mmu_select(v, !noflush);
	return 0;
}

static int cr4_write(struct vcpu *v, uint64_t val)
{
	struct x86_state *s = &v->st;
	uint64_t old = s->cr4, diff = old ^ val;

	if (val & ~v->cr4_valid)
		return exc_gp(v, 0);
	if ((s->efer & EFER_LMA) && !(val & CR4_PAE))
		return exc_gp(v, 0);
	if ((diff & val & CR4_PCIDE) && (!(s->efer & EFER_LMA) || (s->cr3 & 0xfff)))
		return exc_gp(v, 0);
	if ((val & CR4_PAE) && (s->cr0 & CR0_PG) && !(s->efer & EFER_LMA) &&
	    (diff & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP))) {
		s->cr4 = val;
		if (mmu_load_pdptes(v, s->cr3)) {
			s->cr4 = old;
			return exc_gp(v, 0);
		}
	}
	s->cr4 = val;
	if (diff & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_PCIDE | CR4_SMEP | CR4_SMAP))
		mmu_flush_all(v);
	if (diff & CR4_PCIDE)
		mmu_select(v, true);
	mode_changed(v);
	return 0;
}

static int mov_cr(struct vcpu *v, const struct insn *in)
{
	bool to = in->ops[0].cls == ZYDIS_REGCLASS_CONTROL;
	unsigned cr = in->ops[to ? 0 : 1].reg, gpr = in->ops[to ? 1 : 0].reg;
	unsigned size = is_code64(v) ? 8 : 4;
	uint64_t val;

	if (cpl(v))
		return exc_gp(v, 0);
	if (cr == 8 && needs_full(v)) /* the LAPIC's */
		return -1;
	if (to) {
		val = reg_get(v, gpr, size);
		switch (cr) {
		case 0:
			return cr0_write(v, val);
		case 2:
			v->st.cr2 = val;
			return 0;
		case 3:
			return cr3_write(v, val);
		case 4:
			return cr4_write(v, val);
		case 8:
			if (val & ~15ull)
				return exc_gp(v, 0);
			v->st.cr8 = val;
			if (v->board.cr8_write)
				v->board.cr8_write(v->board.opaque, (uint8_t)val);
			return 0;
		default:
			return exc_ud(v);
		}
	}
	switch (cr) {
	case 0:
		val = v->st.cr0;
		break;
	case 2:
		val = v->st.cr2;
		break;
	case 3:
		val = v->st.cr3;
		break;
	case 4:
		val = v->st.cr4;
		break;
	case 8:
		val = v->board.cr8_read ? v->board.cr8_read(v->board.opaque) : v->st.cr8;
		break;
	default:
		return exc_ud(v);
	}
	reg_set(v, gpr, size, val);
	return 0;
}

static int mov_dr(struct vcpu *v, const struct insn *in)
{
	bool to = in->ops[0].cls == ZYDIS_REGCLASS_DEBUG;
	unsigned dr = in->ops[to ? 0 : 1].reg, gpr = in->ops[to ? 1 : 0].reg;
	unsigned size = is_code64(v) ? 8 : 4;
	struct x86_state *s = &v->st;
	uint64_t val = reg_get(v, gpr, size);

	if (dr > 7 || ((dr == 4 || dr == 5) && (s->cr4 & CR4_DE)))
		return exc_ud(v);
	if (cpl(v))
		return exc_gp(v, 0);
	if (s->dr7 & 1u << 13) {
		v->exc = (struct exception){ .vector = EXC_DB, .present = true, .dr6 = 1u << 13 };
		return -1;
	}
	if (dr == 4 || dr == 5)
		dr += 2;
	if (!to) {
		reg_set(v, gpr, size, dr < 4 ? s->dr[dr] : dr == 6 ? s->dr6 : s->dr7);
		return 0;
	}
	if (dr < 4) {
		s->dr[dr] = val;
	} else if (val >> 32) {
		return exc_gp(v, 0);
	} else if (dr == 6) {
		s->dr6 = (val & 0xe00f) | 0xffff0ff0;
	} else {
		s->dr7 = (val & 0xffff2bff) | 0x400;
	}
	/* Pages with a data breakpoint must leave the TLB, or come back. */
	v->dr_watch = s->dr7 & 0xff;
	mmu_flush_all(v);
	return 0;
}

static int mov_seg(struct vcpu *v, const struct insn *in)
{
	if (in->ops[0].cls == ZYDIS_REGCLASS_SEGMENT) {
		unsigned seg = in->ops[0].reg;
		uint64_t sel = 0;

		if (seg == SEG_CS)
			return exc_ud(v);
		if (in->has_mem) {
			if (vmem_read(v, in->seg, insn_ea(v, in), &sel, 2))
				return -1;
		} else {
			sel = reg_get(v, in->ops[1].reg, 2);
		}
		if (seg_load(v, seg, (uint16_t)sel))
			return -1;
		if (seg == SEG_SS)
			v->st.shadow = X86_SHADOW_SS;
		mode_changed(v);
		return 0;
	}
	if (in->has_mem)
		return vmem_write(v, in->seg, insn_ea(v, in), &v->st.seg[in->ops[1].reg].sel, 2);
	reg_set(v, in->ops[0].reg, in->opsize, v->st.seg[in->ops[1].reg].sel);
	return 0;
}

static int load_far_pointer(struct vcpu *v, const struct insn *in, unsigned seg)
{
	uint8_t buf[10] = { 0 };
	uint64_t off = 0;
	uint16_t sel;

	if (vmem_read(v, in->seg, insn_ea(v, in), buf, in->opsize + 2))
		return -1;
	memcpy(&off, buf, in->opsize);
	memcpy(&sel, buf + in->opsize, 2);
	if (seg_load(v, seg, sel))
		return -1;
	reg_set(v, in->ops[0].reg, in->opsize, off);
	mode_changed(v);
	return 0;
}

/* ---- descriptor tables ---- */

static int store_dtable(struct vcpu *v, const struct insn *in, const struct x86_dtable *t)
{
	uint8_t buf[10];
	unsigned n = is_code64(v) ? 8 : 4;

	if ((v->st.cr4 & CR4_UMIP) && cpl(v))
		return exc_gp(v, 0);
	memcpy(buf, &t->limit, 2);
	memcpy(buf + 2, &t->base, n);
	return vmem_write(v, in->seg, insn_ea(v, in), buf, 2 + n);
}

static int load_dtable(struct vcpu *v, const struct insn *in, struct x86_dtable *t)
{
	uint8_t buf[10] = { 0 };
	unsigned n = is_code64(v) ? 8 : 4;
	uint64_t base = 0;

	if (cpl(v))
		return exc_gp(v, 0);
	if (vmem_read(v, in->seg, insn_ea(v, in), buf, 2 + n))
		return -1;
	memcpy(&base, buf + 2, n);
	if (!is_code64(v) && in->opsize == 2)
		base &= 0xffffff;
	if (!canonical(base))
		return exc_gp(v, 0);
	memcpy(&t->limit, buf, 2);
	t->base = base;
	return 0;
}

/* Stores a selector-sized value: 16 bits to memory, the operand size to a register. */
static int store_word(struct vcpu *v, const struct insn *in, uint64_t val)
{
	if ((v->st.cr4 & CR4_UMIP) && cpl(v))
		return exc_gp(v, 0);
	if (in->has_mem)
		return vmem_write(v, in->seg, insn_ea(v, in), &val, 2);
	reg_set(v, in->ops[0].reg, in->opsize, val);
	return 0;
}

static int fetch_word(struct vcpu *v, const struct insn *in, unsigned i, uint16_t *val)
{
	if (in->ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
		return vmem_read(v, in->seg, insn_ea(v, in), val, 2);
	*val = (uint16_t)v->st.gpr[in->ops[i].reg];
	return 0;
}

/* LAR, LSL, VERR, VERW: a selector that cannot be looked at clears ZF instead of faulting. */
static int inspect_selector(struct vcpu *v, const struct insn *in)
{
	unsigned last = in->nops ? in->nops - 1 : 0;
	struct descriptor d;
	uint16_t sel;
	bool ok = false, sys, code, conforming;
	unsigned type, dpl;

	if (!is_protected(v))
		return exc_ud(v);
	if (in->mnemonic == ZYDIS_MNEMONIC_VERR || in->mnemonic == ZYDIS_MNEMONIC_VERW)
		last = 0;
	else
		last = 1;
	if (fetch_word(v, in, last, &sel))
		return -1;
	if (!sel_null(sel)) {
		if (desc_read(v, sel, EXC_GP, &d)) {
			if (v->exc.vector == EXC_PF)
				return -1;
			v->exc.present = false;
			goto out;
		}
		type = d.attr & 0xf;
		sys = !(d.attr & SEG_S);
		code = !sys && (type & 8);
		conforming = code && (type & 4);
		dpl = SEG_DPL(d.attr);
		if (!conforming && (dpl < cpl(v) || dpl < (sel & 3u)))
			goto out;
		switch (in->mnemonic) {
		case ZYDIS_MNEMONIC_VERR:
			ok = !sys && (!code || (type & 2));
			break;
		case ZYDIS_MNEMONIC_VERW:
			ok = !sys && !code && (type & 2);
			break;
		case ZYDIS_MNEMONIC_LAR:
			ok = !sys ||
			     (x86_long_mode(&v->st) ? type == 2 || type == 9 || type == 11 || type == 12
						    : (0x1a3e >> type & 1));
			if (ok)
				reg_set(v, in->ops[0].reg, in->opsize, d.hi & 0xffff00);
			break;
		default:
			ok = !sys || (x86_long_mode(&v->st) ? type == 2 || type == 9 || type == 11
							    : (0x0a0e >> type & 1));
			if (ok)
				reg_set(v, in->ops[0].reg, in->opsize, d.limit);
			break;
		}
	}
out:
	v->st.rflags = (v->st.rflags & ~(uint64_t)FLAG_ZF) | (ok ? FLAG_ZF : 0);
	return 0;
}

static int do_arpl(struct vcpu *v, const struct insn *in)
{
	uint16_t dst, src = (uint16_t)v->st.gpr[in->ops[1].reg];
	bool adjust;

	if (!is_protected(v))
		return exc_ud(v);
	if (fetch_word(v, in, 0, &dst))
		return -1;
	adjust = (dst & 3) < (src & 3);
	if (adjust) {
		dst = (uint16_t)((dst & ~3) | (src & 3));
		if (in->has_mem) {
			if (vmem_write(v, in->seg, insn_ea(v, in), &dst, 2))
				return -1;
		} else {
			reg_set(v, in->ops[0].reg, 2, dst);
		}
	}
	v->st.rflags = (v->st.rflags & ~(uint64_t)FLAG_ZF) | (adjust ? FLAG_ZF : 0);
	return 0;
}

/* ---- ports ---- */

int io_permitted(struct vcpu *v, uint16_t port, unsigned size);
int io_permitted(struct vcpu *v, uint16_t port, unsigned size)
{
	struct x86_seg *tr = &v->st.tr;
	uint16_t map, bits;

	if (!(v->st.cr0 & CR0_PE) || (!is_v86(v) && cpl(v) <= (v->st.rflags >> 12 & 3)))
		return 0;
	if (!(tr->attr & SEG_P) || !(tr->attr & 8) || tr->limit < 0x67)
		return exc_gp(v, 0);
	if (lin_read(v, tr->base + 0x66, &map, 2, ACC_IMPLICIT))
		return -1;
	if ((uint32_t)map + port / 8 + 1 > tr->limit)
		return exc_gp(v, 0);
	if (lin_read(v, tr->base + map + port / 8, &bits, 2, ACC_IMPLICIT))
		return -1;
	if (bits >> (port & 7) & ((1u << size) - 1))
		return exc_gp(v, 0);
	return 0;
}

static int do_io(struct vcpu *v, const struct insn *in, bool out)
{
	bool imm = in->ops[out ? 0 : 1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
	uint16_t port = imm ? (uint8_t)in->imm[0] : (uint16_t)v->st.gpr[RDX];
	unsigned size = (in->opcode & 1) ? (in->opsize == 2 ? 2 : 4) : 1;

	if (needs_full(v) || io_permitted(v, port, size))
		return -1;
	v->stats.pio_exits++;
	if (out)
		mem_pio_write(v->mem, port, (uint32_t)reg_get(v, RAX, size), size);
	else
		reg_set(v, RAX, size, mem_pio_read(v->mem, port, size));
	return 0;
}

/* ---- system calls ---- */

static void flat_segments(struct vcpu *v, uint16_t cs, uint16_t ss, unsigned level, bool c64)
{
	struct x86_state *s = &v->st;

	s->seg[SEG_CS] = (struct x86_seg){
		.sel = cs,
		.limit = 0xffffffffu,
		.attr = (uint16_t)(SEG_P | SEG_S | 0xb | level << 5 | SEG_G | (c64 ? SEG_L : SEG_DB)),
	};
	s->seg[SEG_SS] = (struct x86_seg){
		.sel = ss,
		.limit = 0xffffffffu,
		.attr = (uint16_t)(SEG_P | SEG_S | 3 | level << 5 | SEG_G | SEG_DB),
	};
}

static int do_syscall(struct vcpu *v)
{
	struct x86_state *s = &v->st;
	uint16_t cs = (uint16_t)(s->star >> 32) & 0xfffc;

	if (!(s->efer & EFER_SCE) || !is_protected(v) || (!is_code64(v) && v->model->vendor_intel))
		return exc_ud(v);
	if (s->efer & EFER_LMA) {
		bool c64 = is_code64(v);

		v->t2_cause = t2_syscall_cause(s->gpr[RAX]);
		s->gpr[RCX] = s->rip;
		s->gpr[R11] = s->rflags & ~(uint64_t)FLAG_RF;
		s->rip = c64 ? s->lstar : s->cstar;
		s->rflags = (s->rflags & ~(s->sfmask | FLAG_RF)) | FLAG_R1;
		flat_segments(v, cs, (uint16_t)(cs + 8), 0, true);
	} else {
		s->gpr[RCX] = (uint32_t)s->rip;
		s->rip = (uint32_t)s->star;
		s->rflags &= ~(uint64_t)(FLAG_VM | FLAG_IF | FLAG_RF);
		flat_segments(v, cs, (uint16_t)(cs + 8), 0, false);
	}
	mode_changed(v);
	return 0;
}

static int do_sysret(struct vcpu *v, const struct insn *in)
{
	struct x86_state *s = &v->st;
	bool to64 = in->rex_w;
	uint16_t base = (uint16_t)(s->star >> 48);

	if (!(s->efer & EFER_SCE) || !is_protected(v) || (!is_code64(v) && v->model->vendor_intel))
		return exc_ud(v);
	if (cpl(v))
		return exc_gp(v, 0);
	if (to64 && !canonical(s->gpr[RCX]))
		return exc_gp(v, 0);
	if (s->efer & EFER_LMA)
		s->rflags = (s->gpr[R11] & (FLAGS_ARITH | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT |
					    FLAG_AC | FLAG_VIF | FLAG_VIP | FLAG_ID)) |
			    FLAG_R1;
	else
		s->rflags |= FLAG_IF;
	s->rip = to64 ? s->gpr[RCX] : (uint32_t)s->gpr[RCX];
	flat_segments(v, (uint16_t)((to64 ? base + 16 : base) | 3), (uint16_t)((base + 8) | 3), 3, to64);
	mode_changed(v);
	return 0;
}

static int do_sysenter(struct vcpu *v)
{
	struct x86_state *s = &v->st;
	bool lm = s->efer & EFER_LMA;

	if (lm && !v->model->vendor_intel)
		return exc_ud(v);
	if (!(s->cr0 & CR0_PE) || !(s->sysenter_cs & 0xfffc))
		return exc_gp(v, 0);
	s->rflags &= ~(uint64_t)(FLAG_VM | FLAG_IF | FLAG_RF);
	s->rip = lm ? s->sysenter_eip : (uint32_t)s->sysenter_eip;
	s->gpr[RSP] = lm ? s->sysenter_esp : (uint32_t)s->sysenter_esp;
	flat_segments(v, (uint16_t)(s->sysenter_cs & 0xfffc), (uint16_t)((s->sysenter_cs & 0xfffc) + 8), 0,
		      lm);
	mode_changed(v);
	return 0;
}

static int do_sysexit(struct vcpu *v, const struct insn *in)
{
	struct x86_state *s = &v->st;
	bool to64 = in->rex_w;
	uint16_t base = (uint16_t)s->sysenter_cs;

	if ((s->efer & EFER_LMA) && !v->model->vendor_intel)
		return exc_ud(v);
	if (!(s->cr0 & CR0_PE) || cpl(v) || !(s->sysenter_cs & 0xfffc))
		return exc_gp(v, 0);
	if (to64 && (!canonical(s->gpr[RCX]) || !canonical(s->gpr[RDX])))
		return exc_gp(v, 0);
	s->rip = to64 ? s->gpr[RDX] : (uint32_t)s->gpr[RDX];
	s->gpr[RSP] = to64 ? s->gpr[RCX] : (uint32_t)s->gpr[RCX];
	flat_segments(v, (uint16_t)((base + (to64 ? 32 : 16)) | 3), (uint16_t)((base + (to64 ? 40 : 24)) | 3),
		      3, to64);
	mode_changed(v);
	return 0;
}

/* ---- the rest ---- */

static int do_rdtsc(struct vcpu *v, bool p)
{
	uint64_t t;

	if ((v->st.cr4 & CR4_TSD) && cpl(v) && (v->st.cr0 & CR0_PE))
		return exc_gp(v, 0);
	t = guest_tsc(v);
	v->st.gpr[RAX] = (uint32_t)t;
	v->st.gpr[RDX] = t >> 32;
	if (p)
		v->st.gpr[RCX] = (uint32_t)v->st.tsc_aux;
	return 0;
}

/* By KVM's convention: number in RAX, arguments in RBX, RCX, RDX, RSI (Linux,
 * Documentation/virt/kvm/x86/hypercalls.rst). */
static int do_hypercall(struct vcpu *v)
{
	struct x86_state *s = &v->st;
	unsigned size = is_code64(v) ? 8 : 4;
	uint64_t arg[4] = { s->gpr[RBX], s->gpr[RCX], s->gpr[RDX], s->gpr[RSI] };

	if (cpl(v)) {
		s->gpr[RAX] = (uint64_t)-1; /* -KVM_EPERM */
	} else if (!v->board.hypercall) {
		s->gpr[RAX] = (uint64_t)-1000; /* -KVM_ENOSYS */
	} else {
		if (needs_full(v))
			return -1;
		for (int i = 0; i < 4; i++)
			arg[i] &= size_mask(size);
		s->gpr[RAX] = v->board.hypercall(v->board.opaque, reg_get(v, RAX, size), arg, 8 * size);
	}
	s->gpr[RAX] &= size_mask(size);
	return 0;
}

static void do_cpuid(struct vcpu *v)
{
	struct cpuid_context c = {
		.apic_id = v->apic_id, .cr4 = v->st.cr4, .xcr0 = v->st.xcr0, .apic_off = v->apic_off
	};
	struct cpuid_regs r = cpuid_query(v->model, &c, (uint32_t)v->st.gpr[RAX], (uint32_t)v->st.gpr[RCX]);

	v->st.gpr[RAX] = r.eax;
	v->st.gpr[RBX] = r.ebx;
	v->st.gpr[RCX] = r.ecx;
	v->st.gpr[RDX] = r.edx;
}

static int do_xgetbv(struct vcpu *v)
{
	uint64_t val, bv;

	if (!(v->st.cr4 & CR4_OSXSAVE))
		return exc_ud(v);
	switch ((uint32_t)v->st.gpr[RCX]) {
	case 0:
		val = v->st.xcr0;
		break;
	case 1:
		if (!(v->model->host_d[1].eax & 4))
			return exc_gp(v, 0);
		if (v->in_gpr) { /* what is in use is in the processor's registers */
			uint32_t hi;

			__asm__ volatile("xgetbv" : "=a"(bv), "=d"(hi) : "c"(1));
		} else {
			memcpy(&bv, v->st.xsave + 512, 8);
		}
		val = v->st.xcr0 & bv;
		break;
	default:
		return exc_gp(v, 0);
	}
	v->st.gpr[RAX] = (uint32_t)val;
	v->st.gpr[RDX] = val >> 32;
	return 0;
}

static int do_xsetbv(struct vcpu *v)
{
	uint64_t val = (uint32_t)v->st.gpr[RAX] | v->st.gpr[RDX] << 32;

	if (!(v->st.cr4 & CR4_OSXSAVE))
		return exc_ud(v);
	if (cpl(v) || (uint32_t)v->st.gpr[RCX])
		return exc_gp(v, 0);
	if (!(val & 1) || (val & ~v->model->xcr0_mask) || ((val & 4) && !(val & 2)) ||
	    ((val & 0xe0) && ((val & 0xe0) != 0xe0 || (val & 6) != 6)))
		return exc_gp(v, 0);
	v->st.xcr0 = val;
	return 0;
}

static int do_invpcid(struct vcpu *v, const struct insn *in)
{
	uint64_t d[2], type;

	if (cpl(v))
		return exc_gp(v, 0);
	if (vmem_read(v, in->seg, insn_ea(v, in), d, 16))
		return -1;
	type = reg_get(v, in->ops[0].reg, is_code64(v) ? 8 : 4);
	if (type > 3 || d[0] >> 12 || (type < 2 && !(v->st.cr4 & CR4_PCIDE) && (d[0] & 0xfff)))
		return exc_gp(v, 0);
	switch (type) {
	case 0:
		if (!canonical(d[1]))
			return exc_gp(v, 0);
		mmu_invlpg_pcid(v, d[0] & 0xfff, d[1]);
		break;
	case 1:
		mmu_flush_pcid(v, d[0] & 0xfff);
		break;
	default:
		mmu_flush_all(v);
		break;
	}
	return 0;
}

static int do_fsgsbase(struct vcpu *v, const struct insn *in, unsigned seg, bool write)
{
	unsigned size = in->opsize == 8 ? 8 : 4; /* 66 means nothing */

	if (!(v->st.cr4 & CR4_FSGSBASE) || !is_code64(v))
		return exc_ud(v);
	if (!write) {
		reg_set(v, in->ops[0].reg, size, v->st.seg[seg].base);
		return 0;
	}
	if (!canonical(reg_get(v, in->ops[0].reg, size)))
		return exc_gp(v, 0);
	v->st.seg[seg].base = reg_get(v, in->ops[0].reg, size);
	return 0;
}

/* Loops that wait for another processor say PAUSE. After so many the other may be waiting for this host
 * processor. */
#define PAUSES_PER_YIELD 64

static int do_pause(struct vcpu *v)
{
	uint64_t nr = SYS_sched_yield;

	__builtin_ia32_pause();
	if (v->vm->nr_vcpus > 1 && ++v->pauses % PAUSES_PER_YIELD == 0)
		__asm__ volatile("syscall" : "+a"(nr) : : "rcx", "r11", "memory");
	return 0;
}

static int do_cli_sti(struct vcpu *v, bool sti)
{
	struct x86_state *s = &v->st;

	if ((s->cr0 & CR0_PE) && cpl(v) > (s->rflags >> 12 & 3))
		return exc_gp(v, 0);
	if (sti) {
		if (!(s->rflags & FLAG_IF))
			s->shadow = X86_SHADOW_STI;
		s->rflags |= FLAG_IF;
	} else {
		s->rflags &= ~(uint64_t)FLAG_IF;
	}
	return 0;
}

static int privileged(struct vcpu *v)
{
	return (v->st.cr0 & CR0_PE) && cpl(v) ? exc_gp(v, 0) : 0;
}

static int do_msr(struct vcpu *v, bool write)
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

static int load_selector(struct vcpu *v, const struct insn *in, bool task)
{
	uint16_t sel;

	if (!is_protected(v))
		return exc_ud(v);
	if (cpl(v))
		return exc_gp(v, 0);
	if (fetch_word(v, in, 0, &sel))
		return -1;
	return task ? load_tr(v, sel) : load_ldtr(v, sel);
}

int interp_system(struct vcpu *v, const struct insn *in)
{
	struct x86_state *s = &v->st;
	uint64_t lin;
	uint16_t w;

	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_MOV:
		if (in->ops[0].cls == ZYDIS_REGCLASS_CONTROL || in->ops[1].cls == ZYDIS_REGCLASS_CONTROL)
			return mov_cr(v, in);
		if (in->ops[0].cls == ZYDIS_REGCLASS_DEBUG || in->ops[1].cls == ZYDIS_REGCLASS_DEBUG)
			return mov_dr(v, in);
		return mov_seg(v, in);
	case ZYDIS_MNEMONIC_LDS:
		return load_far_pointer(v, in, SEG_DS);
	case ZYDIS_MNEMONIC_LES:
		return load_far_pointer(v, in, SEG_ES);
	case ZYDIS_MNEMONIC_LFS:
		return load_far_pointer(v, in, SEG_FS);
	case ZYDIS_MNEMONIC_LGS:
		return load_far_pointer(v, in, SEG_GS);
	case ZYDIS_MNEMONIC_LSS:
		return load_far_pointer(v, in, SEG_SS);
	case ZYDIS_MNEMONIC_IN:
		return do_io(v, in, false);
	case ZYDIS_MNEMONIC_OUT:
		return do_io(v, in, true);
	case ZYDIS_MNEMONIC_CLI:
		return do_cli_sti(v, false);
	case ZYDIS_MNEMONIC_STI:
		return do_cli_sti(v, true);
	case ZYDIS_MNEMONIC_CLD:
		s->rflags &= ~(uint64_t)FLAG_DF;
		return 0;
	case ZYDIS_MNEMONIC_STD:
		s->rflags |= FLAG_DF;
		return 0;
	case ZYDIS_MNEMONIC_CLAC:
	case ZYDIS_MNEMONIC_STAC:
		if (!(v->cr4_valid & CR4_SMAP) || cpl(v))
			return exc_ud(v);
		if (in->mnemonic == ZYDIS_MNEMONIC_STAC)
			s->rflags |= FLAG_AC;
		else
			s->rflags &= ~(uint64_t)FLAG_AC;
		mode_changed(v);
		return 0;
	case ZYDIS_MNEMONIC_PAUSE:
		return do_pause(v);
	case ZYDIS_MNEMONIC_HLT:
		if (privileged(v))
			return -1;
		s->halted = true;
		return 0;
	case ZYDIS_MNEMONIC_LGDT:
		return load_dtable(v, in, &s->gdtr);
	case ZYDIS_MNEMONIC_LIDT:
		return load_dtable(v, in, &s->idtr);
	case ZYDIS_MNEMONIC_SGDT:
		return store_dtable(v, in, &s->gdtr);
	case ZYDIS_MNEMONIC_SIDT:
		return store_dtable(v, in, &s->idtr);
	case ZYDIS_MNEMONIC_LLDT:
		return load_selector(v, in, false);
	case ZYDIS_MNEMONIC_LTR:
		return load_selector(v, in, true);
	case ZYDIS_MNEMONIC_SLDT:
		return is_protected(v) ? store_word(v, in, s->ldtr.sel) : exc_ud(v);
	case ZYDIS_MNEMONIC_STR:
		return is_protected(v) ? store_word(v, in, s->tr.sel) : exc_ud(v);
	case ZYDIS_MNEMONIC_SMSW:
		return store_word(v, in, s->cr0);
	case ZYDIS_MNEMONIC_LMSW:
		if (privileged(v) || fetch_word(v, in, 0, &w))
			return -1;
		/* LMSW can set PE but not clear it. */
		return cr0_write(v, (s->cr0 & ~0xeull) | (w & 0xf));
	case ZYDIS_MNEMONIC_CLTS:
		if (privileged(v))
			return -1;
		s->cr0 &= ~(uint64_t)CR0_TS;
		return 0;
	case ZYDIS_MNEMONIC_INVLPG:
		if (privileged(v))
			return -1;
		lin = insn_ea(v, in) + (is_code64(v) && in->seg < SEG_FS ? 0 : s->seg[in->seg].base);
		if (!is_code64(v))
			lin = (uint32_t)lin;
		if (canonical(lin))
			mmu_invlpg(v, lin);
		return 0;
	case ZYDIS_MNEMONIC_INVPCID:
		return do_invpcid(v, in);
	case ZYDIS_MNEMONIC_WBINVD:
	case ZYDIS_MNEMONIC_INVD:
		return privileged(v);
	case ZYDIS_MNEMONIC_RDMSR:
		return do_msr(v, false);
	case ZYDIS_MNEMONIC_WRMSR:
		return do_msr(v, true);
	case ZYDIS_MNEMONIC_RDTSC:
		return do_rdtsc(v, false);
	case ZYDIS_MNEMONIC_RDTSCP:
		return do_rdtsc(v, true);
	case ZYDIS_MNEMONIC_RDPID:
		reg_set(v, in->ops[0].reg, is_code64(v) ? 8 : 4, s->tsc_aux);
		return 0;
	case ZYDIS_MNEMONIC_RDPMC:
		return exc_gp(v, 0);
	case ZYDIS_MNEMONIC_CPUID:
		if (needs_full(v))
			return -1;
		do_cpuid(v);
		return 0;
	case ZYDIS_MNEMONIC_XGETBV:
		return do_xgetbv(v);
	case ZYDIS_MNEMONIC_XSETBV:
		return do_xsetbv(v);
	case ZYDIS_MNEMONIC_SWAPGS: {
		uint64_t t = s->kernel_gs_base;

		if (!is_code64(v))
			return exc_ud(v);
		if (cpl(v))
			return exc_gp(v, 0);
		s->kernel_gs_base = s->seg[SEG_GS].base;
		s->seg[SEG_GS].base = t;
		return 0;
	}
	case ZYDIS_MNEMONIC_RDFSBASE:
		return do_fsgsbase(v, in, SEG_FS, false);
	case ZYDIS_MNEMONIC_RDGSBASE:
		return do_fsgsbase(v, in, SEG_GS, false);
	case ZYDIS_MNEMONIC_WRFSBASE:
		return do_fsgsbase(v, in, SEG_FS, true);
	case ZYDIS_MNEMONIC_WRGSBASE:
		return do_fsgsbase(v, in, SEG_GS, true);
	case ZYDIS_MNEMONIC_SYSCALL:
		return do_syscall(v);
	case ZYDIS_MNEMONIC_SYSRET:
		return do_sysret(v, in);
	case ZYDIS_MNEMONIC_SYSENTER:
		return do_sysenter(v);
	case ZYDIS_MNEMONIC_SYSEXIT:
		return do_sysexit(v, in);
	case ZYDIS_MNEMONIC_LAR:
	case ZYDIS_MNEMONIC_LSL:
	case ZYDIS_MNEMONIC_VERR:
	case ZYDIS_MNEMONIC_VERW:
		return inspect_selector(v, in);
	case ZYDIS_MNEMONIC_ARPL:
		return do_arpl(v, in);
	case ZYDIS_MNEMONIC_VMCALL:
	case ZYDIS_MNEMONIC_VMMCALL:
		return do_hypercall(v);
	default:
		return 1;
	}
}
