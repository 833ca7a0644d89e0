/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vector memory accesses that touch only some of their elements: gathers,
 * scatters, masked moves.
 *
 * Each element is an access of its own, and those that are masked off cannot
 * fault (SDM 2, "AVX-512 fault suppression").  Gathers are done wholly here;
 * for other masked instructions the enabled elements are fetched into a buffer,
 * the processor executes the instruction on it, and they are written back.
 */
#include "engine/bt/interp_internal.h"

void xsave_spell_out(const struct vcpu *v, uint8_t *x)
{
	uint64_t bv;

	memcpy(&bv, x + 512, 8);
	if (!(bv & 1)) {
		memset(x, 0, 24);
		x[0] = 0x7f;
		x[1] = 3;
		memset(x + 32, 0, 128);
	}
	if (!(bv & 2))
		memset(x + 160, 0, 256);
	for (unsigned i = 2; i < 63; i++) {
		const struct cpuid_regs *d = &v->model->host_d[i];

		if (d->eax && !(bv >> i & 1) && d->ebx + d->eax <= X86_XSAVE_MAX)
			memset(x + d->ebx, 0, d->eax);
	}
}

/* Makes every component of the state's image explicit, so that registers can be read and written in place. */
static void image_expand(struct vcpu *v)
{
	uint8_t *x = v->st.xsave;
	uint64_t bv;

	xsave_spell_out(v, x);
	memcpy(&bv, x + 512, 8);
	bv |= v->xmask;
	memcpy(x + 512, &bv, 8);
}

/* The byte at `off` of vector register r; valid up to the next multiple of 16. */
static uint8_t *vec(struct vcpu *v, unsigned r, unsigned off)
{
	const struct cpuid_regs *d = v->model->host_d;
	uint8_t *x = v->st.xsave;

	if (r >= 16)
		return x + d[7].ebx + 64 * (r - 16) + off;
	if (off < 16)
		return x + 160 + 16 * r + off;
	if (off < 32)
		return x + d[2].ebx + 16 * r + off - 16;
	return x + d[6].ebx + 32 * r + off - 32;
}

static uint64_t opmask(struct vcpu *v, unsigned k)
{
	uint64_t m;

	memcpy(&m, v->st.xsave + v->model->host_d[5].ebx + 8 * k, 8);
	return m;
}

static void set_opmask(struct vcpu *v, unsigned k, uint64_t m)
{
	memcpy(v->st.xsave + v->model->host_d[5].ebx + 8 * k, &m, 8);
}

/* Zeroes bytes [from, to) of a register, as far as the model has them. */
static void vec_clear(struct vcpu *v, unsigned r, unsigned from)
{
	unsigned to = (v->model->xcr0_mask & 0xe0) ? 64 : (v->model->xcr0_mask & 4) ? 32 : 16;

	for (unsigned i = from; i < to; i++)
		*vec(v, r, i) = 0;
}

static bool index_is_qword(uint16_t m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_VGATHERQPS:
	case ZYDIS_MNEMONIC_VGATHERQPD:
	case ZYDIS_MNEMONIC_VPGATHERQD:
	case ZYDIS_MNEMONIC_VPGATHERQQ:
	case ZYDIS_MNEMONIC_VSCATTERQPS:
	case ZYDIS_MNEMONIC_VSCATTERQPD:
	case ZYDIS_MNEMONIC_VPSCATTERQD:
	case ZYDIS_MNEMONIC_VPSCATTERQQ:
		return true;
	default:
		return false;
	}
}

static bool is_gather(uint16_t m, bool *scatter)
{
	switch (m) {
	case ZYDIS_MNEMONIC_VGATHERDPS:
	case ZYDIS_MNEMONIC_VGATHERDPD:
	case ZYDIS_MNEMONIC_VGATHERQPS:
	case ZYDIS_MNEMONIC_VGATHERQPD:
	case ZYDIS_MNEMONIC_VPGATHERDD:
	case ZYDIS_MNEMONIC_VPGATHERDQ:
	case ZYDIS_MNEMONIC_VPGATHERQD:
	case ZYDIS_MNEMONIC_VPGATHERQQ:
		*scatter = false;
		return true;
	case ZYDIS_MNEMONIC_VSCATTERDPS:
	case ZYDIS_MNEMONIC_VSCATTERDPD:
	case ZYDIS_MNEMONIC_VSCATTERQPS:
	case ZYDIS_MNEMONIC_VSCATTERQPD:
	case ZYDIS_MNEMONIC_VPSCATTERDD:
	case ZYDIS_MNEMONIC_VPSCATTERDQ:
	case ZYDIS_MNEMONIC_VPSCATTERQD:
	case ZYDIS_MNEMONIC_VPSCATTERQQ:
		*scatter = true;
		return true;
	default:
		return false;
	}
}

/* Elements are done in order and committed one by one: a fault leaves those before it done and unmasked. */
static int gather(struct vcpu *v, const struct insn *in, bool scatter)
{
	bool vex = in->enc == ZYDIS_INSTRUCTION_ENCODING_VEX;
	unsigned isz = index_is_qword(in->mnemonic) ? 8 : 4, esz = in->mem_elem;
	unsigned data = in->ops[scatter ? 2 : 0].reg, mreg = in->ops[vex ? 2 : 1].reg;
	unsigned n;

	image_expand(v);
	if (!esz || !in->vec_len)
		return exc_ud(v);
	n = in->vec_len / (isz > esz ? isz : esz);
	/* The three registers of a gather must differ. */
	if (!scatter && (data == in->vsib_index || (vex && (mreg == data || mreg == in->vsib_index))))
		return exc_ud(v);
	for (unsigned i = 0; i < n; i++) {
		uint64_t off = (uint64_t)in->disp, val = 0;
		int64_t index;
		bool on = vex ? *vec(v, mreg, i * esz + esz - 1) & 0x80 : opmask(v, mreg) >> i & 1;

		if (on) {
			if (isz == 8) {
				memcpy(&index, vec(v, in->vsib_index, i * 8), 8);
			} else {
				int32_t i32;

				memcpy(&i32, vec(v, in->vsib_index, i * 4), 4);
				index = i32;
			}
			if (in->base != REG_NONE)
				off += v->st.gpr[in->base];
			off = (off + (uint64_t)index * in->scale) & size_mask(in->addrsize);
			if (scatter) {
				memcpy(&val, vec(v, data, i * esz), esz);
				if (vmem_write(v, in->seg, off, &val, esz))
					return -1;
			} else {
				if (vmem_read(v, in->seg, off, &val, esz))
					return -1;
				memcpy(vec(v, data, i * esz), &val, esz);
			}
		}
		if (vex)
			memset(vec(v, mreg, i * esz), 0, esz);
		else
			set_opmask(v, mreg, opmask(v, mreg) & ~(1ull << i));
	}
	if (vex)
		vec_clear(v, mreg, 0);
	else
		set_opmask(v, mreg, 0);
	if (!scatter)
		vec_clear(v, data, n * esz);
	return 0;
}

/* MMX register k: the image holds the x87 registers from TOP on. Valid until TOP changes. */
static uint8_t *mmx_reg(struct vcpu *v, unsigned k)
{
	return v->st.xsave + 32 + 16 * ((k - (v->st.xsave[3] >> 3)) & 7);
}

/* MASKMOVQ, (V)MASKMOVDQU: bytes to DS:rDI. */
static int maskmov(struct vcpu *v, const struct insn *in)
{
	bool mmx = in->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ;
	unsigned n = mmx ? 8 : 16, a, b, top = v->st.xsave[3] >> 3 & 7;
	uint64_t off = v->st.gpr[RDI] & size_mask(in->addrsize);

	image_expand(v);
	/* Operands in order of appearance; the memory operand is implicit. */
	a = in->modrm >> 3 & 7;
	b = in->modrm & 7;
	if (!mmx) {
		bool vex = in->enc == ZYDIS_INSTRUCTION_ENCODING_VEX;
		const uint8_t *p = in->bytes + in->vex_off;

		a |= (vex ? ~p[1] >> 7 & 1u : in->rex_r) << 3;
		b |= (vex ? (p[0] == 0xc5 ? 0 : ~p[1] >> 5 & 1u) : in->rex_b) << 3;
	}
	for (int pass = 0; pass < 2; pass++)
		for (unsigned i = 0; i < n; i++) {
			const uint8_t *src = mmx ? mmx_reg(v, a) + i : vec(v, a, i);
			const uint8_t *mask = mmx ? mmx_reg(v, b) + i : vec(v, b, i);
			uint64_t at = (off + i) & size_mask(in->addrsize);

			if (!(*mask & 0x80))
				continue;
			if (pass ? vmem_write(v, in->seg, at, src, 1) : vmem_probe_write(v, in->seg, at, 1))
				return -1;
		}
	if (mmx) { /* as any MMX instruction: TOP 0, all registers valid */
		uint8_t st[128];

		memcpy(st, v->st.xsave + 32, 128);
		for (unsigned i = 0; i < 8; i++)
			memcpy(v->st.xsave + 32 + 16 * i, st + 16 * ((i - top) & 7), 16);
		v->st.xsave[3] &= (uint8_t)~0x38;
		v->st.xsave[4] = 0xff;
	}
	return 0;
}

/* Which elements of a masked operand are accessed. */
static uint64_t enabled(struct vcpu *v, const struct insn *in, unsigned n)
{
	uint64_t m = 0;

	image_expand(v);
	if (in->enc == ZYDIS_INSTRUCTION_ENCODING_VEX) {
		for (unsigned i = 0; i < n; i++)
			if (*vec(v, in->mask_reg, i * in->mem_elem + in->mem_elem - 1) & 0x80)
				m |= 1ull << i;
		return m;
	}
	m = opmask(v, in->mask_reg);
	if (in->mem_packed) {
		unsigned total = in->vec_len / in->mem_elem;

		if (total < 64)
			m &= (1ull << total) - 1;
		n = (unsigned)__builtin_popcountll(m);
		return n >= 64 ? ~0ull : (1ull << n) - 1;
	}
	if (n == 1 && (in->mem_feeds || !in->mem_scalar)) {
		/* A broadcast: accessed if any element that it feeds is enabled. */
		unsigned total = in->mem_feeds ? in->mem_feeds : 1;

		if (!in->mem_feeds && in->nops && in->ops[0].cls >= ZYDIS_REGCLASS_XMM && in->vec_len)
			total = in->vec_len / in->mem_elem;

		return total < 64 ? !!(m & ((1ull << total) - 1)) : !!m;
	}
	if (in->mem_tuple && n > 1 && in->vec_len / in->mem_elem <= 64) {
		/* A broadcast of several. */
		uint64_t fed = m;

		m = 0;
		for (unsigned i = 0; i < in->vec_len / in->mem_elem; i++)
			m |= (fed >> i & 1) << i % n;
		return m;
	}
	return n >= 64 ? m : m & ((1ull << n) - 1);
}

int masked_open(struct vcpu *v, const struct insn *in, uint64_t off, struct mref *m)
{
	unsigned e = in->mem_elem ? in->mem_elem : in->mem_size, n = in->mem_size / e;
	uint64_t on = enabled(v, in, n), lin;

	/* Keep the guest's alignment within 64 bytes: VMOVAPS checks it. */
	uint8_t *buf =
	    m->buf + ((off + (in->seg >= SEG_FS || !is_code64(v) ? v->st.seg[in->seg].base : 0)) & 63);

	/*
	 * If all of it can be read, that is all there is to it, however the mask's bits correspond to
	 * elements (broadcasts of several, conversions). Else, those that are enabled decide.
	 */
	if (!in->mem_write && !in->mem_packed && in->mem_size <= 64) {
		if (!seg_linear(v, in->seg, off, in->mem_size, ACC_R, &lin) &&
		    !mref_open(v, lin, in->mem_size, true, false, m))
			return 0;
		v->exc.present = false;
	}
	memset(m->buf, 0, sizeof m->buf);
	m->host = buf;
	m->lin = off;
	m->size = in->mem_size;
	m->skip = on;
	m->write = false;
	for (unsigned i = 0; i < n; i++) {
		if (!(on >> i & 1))
			continue;
		if (in->mem_write ? vmem_probe_write(v, in->seg, off + i * e, e)
				  : seg_linear(v, in->seg, off + i * e, e, ACC_R, &lin))
			return -1;
		if (vmem_read(v, in->seg, off + i * e, buf + i * e, e))
			return -1;
	}
	return 0;
}

int masked_close(struct vcpu *v, const struct insn *in, struct mref *m)
{
	unsigned e = in->mem_elem ? in->mem_elem : in->mem_size, n = in->mem_size / e;

	if (!in->mem_write)
		return 0;
	for (unsigned i = 0; i < n; i++)
		if ((m->skip >> i & 1) &&
		    vmem_write(v, in->seg, m->lin + i * e, (uint8_t *)m->host + i * e, e))
			return -1;
	return 0;
}

int interp_vector(struct vcpu *v, const struct insn *in)
{
	bool scatter;

	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_MASKMOVQ:
	case ZYDIS_MNEMONIC_MASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVDQU:
		return maskmov(v, in);
	default:
		return in->mem_vsib && is_gather(in->mnemonic, &scatter) ? gather(v, in, scatter) : 1;
	}
}
