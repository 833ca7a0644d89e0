/* SPDX-License-Identifier: Apache-2.0 */
/*
 * String instructions.
 *
 * A repeated one works through a page at a time with the host's own repeated
 * instruction, commits RSI/RDI/RCX after each chunk, and lets interrupts in
 * between: it is then restarted at the same RIP, as on hardware.
 */
#include "base/util.h"
#include "engine/bt/interp_internal.h"

struct str {
	unsigned size; /* element */
	unsigned addr; /* address size */
	unsigned seg;  /* source segment */
	int64_t step;  /* +size or -size */
	bool rep, src, dst, io;
	uint64_t count;
};

static uint64_t si(const struct vcpu *v, const struct str *s)
{
	return v->st.gpr[RSI] & size_mask(s->addr);
}

static uint64_t di(const struct vcpu *v, const struct str *s)
{
	return v->st.gpr[RDI] & size_mask(s->addr);
}

static void advance(struct vcpu *v, const struct str *s, uint64_t n)
{
	if (s->src)
		addr_set(v, RSI, s->addr, v->st.gpr[RSI] + (uint64_t)s->step * n);
	if (s->dst)
		addr_set(v, RDI, s->addr, v->st.gpr[RDI] + (uint64_t)s->step * n);
	if (s->rep)
		addr_set(v, RCX, s->addr, v->st.gpr[RCX] - n);
}

/* Arithmetic flags of a - b, by the processor. */
static void compare(struct vcpu *v, uint64_t a, uint64_t b, unsigned size)
{
	uint64_t f;

	switch (size) {
	case 1:
		__asm__("cmpb %2, %1\n\tpushfq\n\tpopq %0"
			: "=r"(f)
			: "r"((uint8_t)a), "r"((uint8_t)b)
			: "cc");
		break;
	case 2:
		__asm__("cmpw %2, %1\n\tpushfq\n\tpopq %0"
			: "=r"(f)
			: "r"((uint16_t)a), "r"((uint16_t)b)
			: "cc");
		break;
	case 4:
		__asm__("cmpl %2, %1\n\tpushfq\n\tpopq %0"
			: "=r"(f)
			: "r"((uint32_t)a), "r"((uint32_t)b)
			: "cc");
		break;
	default:
		__asm__("cmpq %2, %1\n\tpushfq\n\tpopq %0" : "=r"(f) : "r"(a), "r"(b) : "cc");
		break;
	}
	v->st.rflags = (v->st.rflags & ~(uint64_t)FLAGS_ARITH) | (f & FLAGS_ARITH);
}

/* Elements that lie wholly in off's page from here on, at least 1 if the first does not cross; 0 if it
 * crosses. */
static uint64_t room(uint64_t lin, unsigned size)
{
	return (PAGE_SIZE - (lin & 0xfff)) / size;
}

/* How many elements from off stay inside the address size without wrapping. */
static uint64_t unwrapped(uint64_t off, const struct str *s)
{
	uint64_t m = size_mask(s->addr);

	return s->addr == 8 ? ~0ull : (m - off + 1) / s->size;
}

/* Host pointer for a forward run in one page; *n is cut to what fits. 1: no run possible (MMIO, page
 * crossing, watchpoints). */
static int run_ptr(struct vcpu *v, const struct str *s, unsigned seg, uint64_t off, unsigned acc, void **p,
		   bool *code, uint64_t *n)
{
	uint64_t lin, pa, fit;

	if (seg_linear(v, seg, off, s->size, acc, &lin))
		return -1;
	fit = min_u64(room(lin, s->size), unwrapped(off, s));
	if (!is_code64(v) && fit > 1) {
		/* Stay inside the segment: its last bytes go one by one. */
		uint64_t limit = v->st.seg[seg].limit;

		if ((v->st.seg[seg].attr & 0xc) == 4)
			fit = 1;
		else
			fit = min_u64(fit, (limit - off + 1) / s->size);
	}
	if (!fit || v->dr_watch)
		return 1;
	if (mmu_host(v, lin, mmu_acc(v) | acc, p, &pa, code))
		return -1;
	if (!*p)
		return 1;
	*n = min_u64(*n, fit);
	return 0;
}

static void host_movs(void *d, const void *s, uint64_t n, unsigned size)
{
	switch (size) {
	case 1:
		__asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n)::"memory");
		break;
	case 2:
		__asm__ volatile("rep movsw" : "+D"(d), "+S"(s), "+c"(n)::"memory");
		break;
	case 4:
		__asm__ volatile("rep movsl" : "+D"(d), "+S"(s), "+c"(n)::"memory");
		break;
	default:
		__asm__ volatile("rep movsq" : "+D"(d), "+S"(s), "+c"(n)::"memory");
		break;
	}
}

static void host_stos(void *d, uint64_t a, uint64_t n, unsigned size)
{
	switch (size) {
	case 1:
		__asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(a) : "memory");
		break;
	case 2:
		__asm__ volatile("rep stosw" : "+D"(d), "+c"(n) : "a"(a) : "memory");
		break;
	case 4:
		__asm__ volatile("rep stosl" : "+D"(d), "+c"(n) : "a"(a) : "memory");
		break;
	default:
		__asm__ volatile("rep stosq" : "+D"(d), "+c"(n) : "a"(a) : "memory");
		break;
	}
}

enum kind { K_MOVS, K_STOS, K_LODS, K_SCAS, K_CMPS, K_INS, K_OUTS };

/* One element, any memory. Sets *stop for the conditional repeats. */
static int one(struct vcpu *v, const struct insn *in, const struct str *s, enum kind k, bool *stop)
{
	uint64_t a = 0, b = 0;

	switch (k) {
	case K_MOVS:
		if (vmem_read(v, s->seg, si(v, s), &a, s->size) ||
		    vmem_write(v, SEG_ES, di(v, s), &a, s->size))
			return -1;
		break;
	case K_STOS:
		if (vmem_write(v, SEG_ES, di(v, s), &v->st.gpr[RAX], s->size))
			return -1;
		break;
	case K_LODS:
		if (vmem_read(v, s->seg, si(v, s), &a, s->size))
			return -1;
		reg_set(v, RAX, s->size, a);
		break;
	case K_SCAS:
		if (vmem_read(v, SEG_ES, di(v, s), &b, s->size))
			return -1;
		compare(v, v->st.gpr[RAX], b, s->size);
		break;
	case K_CMPS:
		if (vmem_read(v, s->seg, si(v, s), &a, s->size) ||
		    vmem_read(v, SEG_ES, di(v, s), &b, s->size))
			return -1;
		compare(v, a, b, s->size);
		break;
	case K_INS:
		if (vmem_probe_write(v, SEG_ES, di(v, s), s->size))
			return -1;
		a = mem_pio_read(v->mem, (uint16_t)v->st.gpr[RDX], s->size);
		v->stats.pio_exits++;
		if (vmem_write(v, SEG_ES, di(v, s), &a, s->size))
			return -1;
		break;
	case K_OUTS:
		if (vmem_read(v, s->seg, si(v, s), &a, s->size))
			return -1;
		mem_pio_write(v->mem, (uint16_t)v->st.gpr[RDX], (uint32_t)a, s->size);
		v->stats.pio_exits++;
		break;
	}
	if (s->rep && (k == K_SCAS || k == K_CMPS)) {
		bool zf = v->st.rflags & FLAG_ZF;

		*stop = in->repne ? zf : !zf;
	}
	advance(v, s, 1);
	return 0;
}

/* A run of MOVS or STOS inside one page each. 1: not possible. */
static int bulk(struct vcpu *v, const struct str *s, enum kind k)
{
	uint64_t n = min_u64(s->count, 4096);
	void *d = NULL, *p = NULL;
	bool dcode, scode;
	int r;

	if (k == K_MOVS) {
		r = run_ptr(v, s, s->seg, si(v, s), ACC_R, &p, &scode, &n);
		if (r)
			return r;
	}
	r = run_ptr(v, s, SEG_ES, di(v, s), ACC_W, &d, &dcode, &n);
	if (r)
		return r;
	if (dcode && needs_full(v))
		return -1;
	if (k == K_MOVS)
		host_movs(d, p, n, s->size);
	else
		host_stos(d, v->st.gpr[RAX], n, s->size);
	if (dcode)
		bt_code_written(v, d, n * s->size);
	advance(v, s, n);
	return 0;
}

/*
 * With a 32-bit address size in 64-bit code, Intel's processors clear the upper halves of the registers of a
 * repeated instruction at its start, of which the count may be zero and the first access may fault: the
 * count's always, the pointers' of MOVS and STOS.
 */
static void clear_upper(struct vcpu *v, const struct str *s, enum kind k)
{
	if (s->addr != 4 || !v->model->vendor_intel)
		return;
	v->st.gpr[RCX] = (uint32_t)v->st.gpr[RCX];
	if (k == K_MOVS)
		v->st.gpr[RSI] = (uint32_t)v->st.gpr[RSI];
	if (k == K_MOVS || k == K_STOS)
		v->st.gpr[RDI] = (uint32_t)v->st.gpr[RDI];
}

/*
 * SCAS and CMPS that a fault, a trap or an interrupt stops half-way show EFLAGS as before the instruction
 * (SDM 2B REP, of faults); AMD's processors show those of the last comparison.
 */
static void restore_flags(struct vcpu *v, uint64_t flags)
{
	if (v->model->vendor_intel)
		v->st.rflags = flags;
}

static int run(struct vcpu *v, const struct insn *in, struct str *s, enum kind k)
{
	uint64_t flags = v->st.rflags;
	bool stop = false;

	if (!s->rep)
		return one(v, in, s, k, &stop);
	clear_upper(v, s, k);
	for (;;) {
		int r = 1;

		s->count = reg_get(v, RCX, s->addr);
		if (!s->count || stop)
			return 0;
		if (s->step > 0 && (k == K_MOVS || k == K_STOS) && !(v->st.rflags & FLAG_TF))
			r = bulk(v, s, k);
		if (r == 1)
			r = one(v, in, s, k, &stop);
		if (r) {
			restore_flags(v, flags);
			return r;
		}
		if (stop || !reg_get(v, RCX, s->addr))
			return 0;
		if ((v->st.rflags & FLAG_TF) || atomic_load_explicit(&v->kick, memory_order_relaxed) ||
		    v->exc.dr6) {
			restore_flags(v, flags);
			v->st.rip = v->insn_rip;
			return 0;
		}
	}
}

int interp_string(struct vcpu *v, const struct insn *in)
{
	/* A segment prefix applies to the source. */
	struct str s = { .addr = in->addrsize, .seg = in->seg, .rep = in->rep || in->repne };
	enum kind k;

	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_MOVSB:
	case ZYDIS_MNEMONIC_MOVSW:
	case ZYDIS_MNEMONIC_MOVSD:
	case ZYDIS_MNEMONIC_MOVSQ:
		k = K_MOVS;
		break;
	case ZYDIS_MNEMONIC_STOSB:
	case ZYDIS_MNEMONIC_STOSW:
	case ZYDIS_MNEMONIC_STOSD:
	case ZYDIS_MNEMONIC_STOSQ:
		k = K_STOS;
		break;
	case ZYDIS_MNEMONIC_LODSB:
	case ZYDIS_MNEMONIC_LODSW:
	case ZYDIS_MNEMONIC_LODSD:
	case ZYDIS_MNEMONIC_LODSQ:
		k = K_LODS;
		break;
	case ZYDIS_MNEMONIC_SCASB:
	case ZYDIS_MNEMONIC_SCASW:
	case ZYDIS_MNEMONIC_SCASD:
	case ZYDIS_MNEMONIC_SCASQ:
		k = K_SCAS;
		break;
	case ZYDIS_MNEMONIC_CMPSB:
	case ZYDIS_MNEMONIC_CMPSW:
	case ZYDIS_MNEMONIC_CMPSD:
	case ZYDIS_MNEMONIC_CMPSQ:
		k = K_CMPS;
		break;
	case ZYDIS_MNEMONIC_INSB:
	case ZYDIS_MNEMONIC_INSW:
	case ZYDIS_MNEMONIC_INSD:
		k = K_INS;
		break;
	case ZYDIS_MNEMONIC_OUTSB:
	case ZYDIS_MNEMONIC_OUTSW:
	case ZYDIS_MNEMONIC_OUTSD:
		k = K_OUTS;
		break;
	default:
		return 1;
	}
	/* The opcodes' bit 0 says byte or operand size. */
	s.size = (in->opcode & 1) ? in->opsize : 1;
	if ((k == K_INS || k == K_OUTS) && s.size == 8)
		s.size = 4;
	s.src = k == K_MOVS || k == K_LODS || k == K_CMPS || k == K_OUTS;
	s.dst = k != K_LODS && k != K_OUTS;
	s.step = v->st.rflags & FLAG_DF ? -(int64_t)s.size : (int64_t)s.size;
	if ((k == K_INS || k == K_OUTS) && needs_full(v))
		return -1;
	if ((k == K_INS || k == K_OUTS) && io_permitted(v, (uint16_t)v->st.gpr[RDX], s.size))
		return -1;
	return run(v, in, &s, k);
}
