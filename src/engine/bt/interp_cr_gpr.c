/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control registers, debug registers and XCR0 (SDM 3A 2.5, 2.6 and 4.1; 3B 18.2).
 *
 * A write first makes all its checks, PAE's four page-directory pointers among
 * them, since loading those may fail; then it changes the register and whatever
 * depends on it: EFER.LMA, the soft TLB, the mode that mode_changed works out.
 * CR8 is the LAPIC's TPR and needs ordinary C.
 */
#include "engine/bt/interp_internal.h"

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
	/* Without paging PE and WP change no translation, and BIOS calls change PE all the time. */
	if (((old ^ val) & CR0_PG) || (((old ^ val) & (CR0_PE | CR0_WP)) && (val & CR0_PG)))
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

int interp_mov_cr(struct vcpu *v, const struct insn *in)
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

int interp_lmsw(struct vcpu *v, uint16_t w)
{
	/* LMSW can set PE but not clear it. */
	return cr0_write(v, (v->st.cr0 & ~0xeull) | (w & 0xf));
}

/* ---- debug registers ---- */

int interp_mov_dr(struct vcpu *v, const struct insn *in)
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

/* ---- XCR0 ---- */

int interp_xgetbv(struct vcpu *v)
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

int interp_xsetbv(struct vcpu *v)
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
