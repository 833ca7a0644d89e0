/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State images: FXSAVE, XSAVE and their restores (SDM 1 chapter 13).
 *
 * The processor itself makes and checks the images, in a bounce buffer, with
 * the guest's state loaded (native.S); what is left here is which bytes of
 * guest memory an image covers, and that the host's instruction and data
 * pointers, which mean nothing to the guest, do not leak out.
 */
#include "engine/bt/interp_internal.h"

static int run_image(struct vcpu *v, const char *code, void *buf, uint64_t mask)
{
	struct native_frame f = { .flags = FLAG_R1 };

	f.r[RDI] = (uint64_t)buf;
	f.r[RAX] = (uint32_t)mask;
	f.r[RDX] = mask >> 32;
	f.code = (void *)code;
	f.xsave = v->st.xsave;
	f.xmask = v->xmask;
	if (native_call(&f))
		return exc_gp(v, 0);
	return 0;
}

static int fxsave(struct vcpu *v, const struct insn *in, bool save)
{
	uint8_t buf[512] __attribute__((aligned(64)));
	uint64_t ea = insn_ea(v, in), lin;
	bool w = in->rex_w;

	if (seg_linear(v, in->seg, ea, 512, save ? ACC_W : ACC_R, &lin))
		return -1;
	if (lin & 15)
		return exc_gp(v, 0);
	if (lin_read(v, lin, buf, 512, mmu_acc(v)))
		return -1;
	if (!save)
		return run_image(v, w ? native_fxrstor64 : native_fxrstor, buf, 0);
	if (run_image(v, w ? native_fxsave64 : native_fxsave, buf, 0))
		return -1;
	xsave_scrub(buf);
	return lin_write(v, lin, buf, 512, mmu_acc(v));
}

static int xsave(struct vcpu *v, const struct insn *in, bool compact)
{
	uint8_t buf[X86_XSAVE_MAX] __attribute__((aligned(64)));
	uint64_t ea = insn_ea(v, in), lin;
	uint64_t rfbm = ((uint32_t)v->st.gpr[RAX] | v->st.gpr[RDX] << 32) & v->st.xcr0;
	unsigned n = compact ? xsave_compact_size(v, rfbm) : xsave_standard_size(v, rfbm);
	bool w = in->rex_w;

	if (seg_linear(v, in->seg, ea, n, ACC_W, &lin))
		return -1;
	if (lin & 63)
		return exc_gp(v, 0);
	memset(buf, 0, sizeof buf);
	if (lin_read(v, lin, buf, n, mmu_acc(v)))
		return -1;
	if (run_image(v,
		      compact ? (w ? native_xsavec64 : native_xsavec) : (w ? native_xsave64 : native_xsave),
		      buf, rfbm))
		return -1;
	if (rfbm & 1)
		xsave_scrub(buf);
	return lin_write(v, lin, buf, n, mmu_acc(v));
}

static int xrstor(struct vcpu *v, const struct insn *in)
{
	uint8_t buf[X86_XSAVE_MAX] __attribute__((aligned(64)));
	uint64_t ea = insn_ea(v, in), lin, bv, comp;
	uint64_t rfbm = ((uint32_t)v->st.gpr[RAX] | v->st.gpr[RDX] << 32) & v->st.xcr0;
	unsigned n;

	if (seg_linear(v, in->seg, ea, 576, ACC_R, &lin))
		return -1;
	if (lin & 63)
		return exc_gp(v, 0);
	if (lin_read(v, lin, buf, 576, mmu_acc(v)))
		return -1;
	memcpy(&bv, buf + 512, 8);
	memcpy(&comp, buf + 520, 8);
	/* The host may allow components that this guest does not have. */
	if ((bv | (comp & ~(1ull << 63))) & ~v->st.xcr0)
		return exc_gp(v, 0);
	n = comp >> 63 ? xsave_compact_size(v, comp & ~(1ull << 63)) : xsave_standard_size(v, bv & rfbm);
	if (n > 576 && (seg_linear(v, in->seg, ea, n, ACC_R, &lin) ||
			lin_read(v, lin + 576, buf + 576, n - 576, mmu_acc(v))))
		return -1;
	return run_image(v, in->rex_w ? native_xrstor64 : native_xrstor, buf, rfbm);
}

int interp_fpstate(struct vcpu *v, const struct insn *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_FXSAVE:
	case ZYDIS_MNEMONIC_FXSAVE64:
		return fxsave(v, in, true);
	case ZYDIS_MNEMONIC_FXRSTOR:
	case ZYDIS_MNEMONIC_FXRSTOR64:
		return fxsave(v, in, false);
	case ZYDIS_MNEMONIC_XSAVE:
	case ZYDIS_MNEMONIC_XSAVE64:
	case ZYDIS_MNEMONIC_XSAVEOPT:
	case ZYDIS_MNEMONIC_XSAVEOPT64:
		return xsave(v, in, false);
	case ZYDIS_MNEMONIC_XSAVEC:
	case ZYDIS_MNEMONIC_XSAVEC64:
		return xsave(v, in, true);
	case ZYDIS_MNEMONIC_XRSTOR:
	case ZYDIS_MNEMONIC_XRSTOR64:
		return xrstor(v, in);
	default:
		return 1;
	}
}
