/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XSAVE, XSAVEC, XRSTOR and FNSTENV from translated code, while the guest's vector state is
 * live in the processor's registers: the instruction itself is executed, where the
 * image is if it lies in one piece in the host, else on a bounce buffer, of which
 * only the parts that it reads or writes are copied.
 *
 * Images that are not beyond doubt, and all that would raise an exception, are left
 * to the interpreter (interp_fpu.c).  XSAVEOPT is executed as XSAVE: what it leaves
 * out depends on where the processor last restored from, which with a bounce buffer
 * says nothing.
 */
#include "engine/bt/interp_internal.h"
#include "engine/bt/mmu.h"

#define LEGACY_AND_HEADER 576u
#define XSTATE_BV         512
#define XCOMP_BV          520
#define COMPACT           (1ull << 63)
#define LOW_COMPONENTS    0xffull
#define MXCSR_SURE        0xffbfu /* bits that every x86-64 processor has */

unsigned xsave_standard_size(const struct vcpu *v, uint64_t bv)
{
	unsigned n = LEGACY_AND_HEADER;

	for (int i = 2; i < 63 && bv >> i; i++)
		if (bv >> i & 1) {
			unsigned e = v->model->host_d[i].eax + v->model->host_d[i].ebx;

			n = e > n ? e : n;
		}
	return n;
}

/* Where component i lies in a compacted image of the components bv, and where the image ends. */
static unsigned compact_place(const struct vcpu *v, uint64_t bv, int i)
{
	unsigned n = LEGACY_AND_HEADER;

	for (int k = 2; k < 63 && bv >> k; k++)
		if (bv >> k & 1) {
			if (v->model->host_d[k].ecx & 2)
				n = (n + 63) & ~63u;
			if (k == i)
				return n;
			n += v->model->host_d[k].eax;
		}
	return n;
}

unsigned xsave_compact_size(const struct vcpu *v, uint64_t bv)
{
	return compact_place(v, bv, 63);
}

void xsave_scrub(uint8_t *image)
{
	memset(image + 6, 0, 18);
}

void fpu_env_scrub(uint8_t *env, const struct insn *in)
{
	if (in->need66)
		memset(env + 6, 0, 8);
	else
		memset(env + 12, 0, 16);
}

static uint64_t header(const uint8_t *image, unsigned off)
{
	uint64_t x;

	memcpy(&x, image + off, 8);
	return x;
}

/* The extended components in `which` of an image, its layout given by comp (0: standard), to or from the
 * guest. */
static int copy_components(struct vcpu *v, uint64_t lin, uint8_t *image, uint64_t which, uint64_t comp,
			   bool write)
{
	for (int i = 2; i < 63 && which >> i; i++) {
		unsigned at, n = v->model->host_d[i].eax;
		int r;

		if (!(which >> i & 1))
			continue;
		at = comp ? compact_place(v, comp, i) : v->model->host_d[i].ebx;
		if (at + n > X86_XSAVE_MAX)
			return 1;
		r = write ? lin_write(v, lin + at, image + at, n, mmu_acc(v))
			  : lin_read(v, lin + at, image + at, n, mmu_acc(v));
		if (r)
			return r;
	}
	return 0;
}

/* The host's address of [lin, lin+n), if it is memory in one piece there, and, for ACC_W, without code. */
static uint8_t *in_one_piece(struct vcpu *v, uint64_t lin, unsigned n, unsigned acc)
{
	uint8_t *start = NULL;

	for (uint64_t at = lin; at < lin + n; at = (at | 0xfff) + 1) {
		uint64_t pa;
		bool code;
		void *host;

		if (mmu_host(v, at, acc | mmu_acc(v), &host, &pa, &code)) {
			v->exc.present = false;
			return NULL;
		}
		if (!host || code || (start && (uint8_t *)host != start + (at - lin)))
			return NULL;
		if (!start)
			start = host;
	}
	return start;
}

static void execute_save(uint8_t *image, uint64_t rfbm, bool compact)
{
	if (compact)
		__asm__ volatile("xsavec64 %0"
				 : "+m"(*(uint8_t(*)[X86_XSAVE_MAX])image)
				 : "a"((uint32_t)rfbm), "d"(rfbm >> 32));
	else
		__asm__ volatile("xsave64 %0"
				 : "+m"(*(uint8_t(*)[X86_XSAVE_MAX])image)
				 : "a"((uint32_t)rfbm), "d"(rfbm >> 32));
}

/*
 * Saving to where the image is. Another vCPU may look on, and the host's addresses in FIP and FDP are not for
 * it to see, so the x87 registers' part is made elsewhere.
 */
static void save_there(struct vcpu *v, uint8_t *image, uint64_t rfbm, bool compact)
{
	uint8_t *buf = v->fp_image;
	uint64_t bv, comp;

	execute_save(image, rfbm & ~1ull, compact);
	if (!(rfbm & 1))
		return;
	execute_save(buf, 1, compact);
	bv = (header(image, XSTATE_BV) & ~1ull) | (header(buf, XSTATE_BV) & 1);
	memcpy(image + XSTATE_BV, &bv, 8);
	if (compact) {
		comp = rfbm | COMPACT;
		memcpy(image + XCOMP_BV, &comp, 8);
	}
	/* In their initial state, XSAVEC does not write them. */
	if (compact && !(bv & 1))
		return;
	xsave_scrub(buf);
	memcpy(image, buf, 24);
	memcpy(image + 32, buf + 32, 128);
}

/* Both ends of what will be written are writable RAM: afterwards no write faults. */
static bool writable(struct vcpu *v, uint64_t lin, unsigned n)
{
	for (unsigned k = 0; k < 2; k++) {
		uint64_t pa;
		bool code;
		void *host;

		if (mmu_host(v, k ? lin + n - 1 : lin, ACC_W | mmu_acc(v), &host, &pa, &code)) {
			v->exc.present = false;
			return false;
		}
		if (!host || code)
			return false;
	}
	return true;
}

static int save(struct vcpu *v, const struct insn *in, uint64_t rfbm, bool compact)
{
	uint64_t lin, comp = compact ? rfbm : 0;
	unsigned n = compact ? xsave_compact_size(v, rfbm) : xsave_standard_size(v, rfbm);
	uint8_t *buf = v->fp_image, *image;

	if (seg_linear(v, in->seg, insn_ea(v, in), n, ACC_W, &lin) || (lin & 63)) {
		v->exc.present = false;
		return 1;
	}
	image = in_one_piece(v, lin, n, ACC_W);
	if (image) {
		save_there(v, image, rfbm, compact);
		return 0;
	}
	if (!writable(v, lin, n) || lin_read(v, lin, buf, LEGACY_AND_HEADER, mmu_acc(v))) {
		v->exc.present = false;
		return 1;
	}
	execute_save(buf, rfbm, compact);
	if (rfbm & 1)
		xsave_scrub(buf);
	/* Components in their initial state have no place written by XSAVEC. */
	if (compact)
		rfbm &= header(buf, XSTATE_BV);
	if (lin_write(v, lin, buf, LEGACY_AND_HEADER, mmu_acc(v)))
		return -1;
	return copy_components(v, lin, buf, rfbm, comp, true);
}

/* XRSTOR of this legacy area and header certainly raises nothing (SDM 1 13.8). */
static bool sound(const struct vcpu *v, const uint8_t *image)
{
	uint64_t bv = header(image, XSTATE_BV), comp = header(image, XCOMP_BV), rest = 0;
	uint32_t mxcsr;

	memcpy(&mxcsr, image + 24, 4);
	for (unsigned i = XCOMP_BV + 8; i < LEGACY_AND_HEADER; i += 8)
		rest |= header(image, i);
	if (rest || (mxcsr & ~MXCSR_SURE) || (bv & ~v->st.xcr0))
		return false;
	return !comp || ((comp & COMPACT) && !(comp & ~COMPACT & ~v->st.xcr0) && !(bv & ~comp));
}

/*
 * XRSTOR from where the image is. Another vCPU may change it meanwhile, so this may fault, and however
 * components lie, what is read must be the guest's to read: the last page may be one of which nothing is
 * (and is marked as accessed, as processors may by speculation). 1: not so.
 */
static int restore_there(struct vcpu *v, uint64_t lin, uint64_t rfbm)
{
	struct native_frame f = { .flags = FLAG_R1, .code = (void *)native_xrstor64 };
	unsigned n = xsave_standard_size(v, rfbm), compact = xsave_compact_size(v, LOW_COMPONENTS);
	uint8_t *image = in_one_piece(v, lin, compact > n ? compact : n, ACC_R);

	if (!image || (rfbm & ~LOW_COMPONENTS) || !sound(v, image))
		return 1;
	f.r[RDI] = (uint64_t)image;
	f.r[RAX] = (uint32_t)rfbm;
	f.r[RDX] = rfbm >> 32;
	return native_call(&f);
}

static int restore(struct vcpu *v, const struct insn *in, uint64_t rfbm)
{
	uint8_t *buf = v->fp_image;
	uint64_t lin, bv, comp;
	int r;

	if (seg_linear(v, in->seg, insn_ea(v, in), LEGACY_AND_HEADER, ACC_R, &lin) || (lin & 63) ||
	    !canonical(lin + X86_XSAVE_MAX)) {
		v->exc.present = false;
		return 1;
	}
	if (!restore_there(v, lin, rfbm))
		return 0;
	if (lin_read(v, lin, buf, LEGACY_AND_HEADER, mmu_acc(v))) {
		v->exc.present = false;
		return 1;
	}
	if (!sound(v, buf))
		return 1;
	bv = header(buf, XSTATE_BV);
	comp = header(buf, XCOMP_BV) & ~COMPACT;
	r = copy_components(v, lin, buf, bv & rfbm, comp, false);
	if (r) {
		v->exc.present = false;
		return 1;
	}
	__asm__ volatile("xrstor64 %0" ::"m"(*(uint8_t(*)[X86_XSAVE_MAX])buf), "a"((uint32_t)rfbm),
			 "d"(rfbm >> 32));
	return 0;
}

/* FNSTENV: where the last x87 instruction was is the host's affair, so it goes by way of a copy. */
static int store_environment(struct vcpu *v, const struct insn *in)
{
	uint8_t env[28];
	uint64_t lin;

	if (in->mem_size != sizeof env || (v->st.cr0 & (CR0_TS | CR0_EM)))
		return 1;
	if (seg_linear(v, in->seg, insn_ea(v, in), sizeof env, ACC_W, &lin) ||
	    !writable(v, lin, sizeof env)) {
		v->exc.present = false;
		return 1;
	}
	__asm__ volatile("fnstenv %0" : "=m"(env));
	fpu_env_scrub(env, in);
	return lin_write(v, lin, env, sizeof env, mmu_acc(v));
}

bool interp_fpstate_is_live(const struct insn *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_XSAVE64:
	case ZYDIS_MNEMONIC_XSAVEOPT64:
	case ZYDIS_MNEMONIC_XSAVEC64:
	case ZYDIS_MNEMONIC_XRSTOR64:
		return true;
	default:
		return false;
	}
}

int interp_fpstate_live(struct vcpu *v, const struct insn *in)
{
	uint64_t rfbm = ((uint32_t)v->st.gpr[RAX] | v->st.gpr[RDX] << 32) & v->st.xcr0;

	if (v->st.ferr)
		return 1; /* the interpreter looks whether it takes the error back */
	if (in->mnemonic == ZYDIS_MNEMONIC_FNSTENV)
		return store_environment(v, in);
	if (!interp_fpstate_is_live(in) || !(v->st.cr4 & CR4_OSXSAVE) || (v->st.cr0 & CR0_TS))
		return 1;
	if (in->mnemonic == ZYDIS_MNEMONIC_XRSTOR64)
		return restore(v, in, rfbm);
	return save(v, in, rfbm, in->mnemonic == ZYDIS_MNEMONIC_XSAVEC64);
}
