/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segmented code: random instructions in real mode, with limits left over from protected mode, in 16-bit and
 * 32-bit protected segments and in virtual-8086 mode, by the interpreter and by translated code (twice: the
 * second time its blocks are linked).  Registers, flags, segment registers, memory and exceptions must be the
 * same.  Much lies where something ends: offsets near 0xffff, code that runs up to IP's end or a page's,
 * segments with small limits, of other types, or null.
 *
 * As for the native oracle, SILL_SEED=N starts with, and without SILL_ORACLE_SECONDS runs only, that case.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/util.h"
#include "engine/bt/mmu.h"
#include "engine/bt/oracle.h"

#define RAM    (MIB(1) + 0x10000) /* what selectors reach */
#define SEEN   0x40000u           /* that much is set up; the rest is zeros */
#define PAGES  (RAM / PAGE_SIZE)
#define BATCH  32
#define RUNS   2
#define HLTS   0x500u /* a HLT for each vector, two bytes apart */
#define GDT    0x800u
#define IDT    0x900u
#define TSS    0xa00u
#define KSTACK 0xf00u /* of CPL 0 for virtual-8086 mode */
#define USED   0x1000u
#define ITEMS  14
#define GUESTS 3
/* Longer than any case that ends takes. */
#define PATIENCE_NS 30000000

enum mode { REAL, UNREAL, PROT16, PROT32, V86, MODES };
static const char *const mode_names[] = { "real", "unreal", "16-bit protected", "32-bit protected",
					  "virtual-8086" };

struct test {
	uint64_t seed;
	enum mode mode;
	uint8_t code[ITEMS * 15 + 1];
	unsigned len;
	uint32_t undefined; /* flags that some instruction leaves so */
	struct x86_state st;
	uint8_t mem[SEEN];
};

struct result {
	uint64_t gpr[16], rip, rflags, cr2;
	struct x86_seg seg[SEG_COUNT];
	int exit;
	bool endless;
	uint64_t page[PAGES]; /* hashes */
};

struct guest {
	const char *tier;
	struct mutex lock;
	struct mem *m;
	struct engine_vm *vm;
	struct vcpu *v;
	uint8_t *ram;
	pthread_t thread;
	struct test job;
	uint8_t xsave[X86_XSAVE_MAX]; /* as after reset */
	uint64_t first;
	struct result out[BATCH][RUNS];
};

static struct cpu_model model;
static struct guest guests[GUESTS];
static pthread_barrier_t start, done;
static bool quit;
static unsigned batch;

/* ---- the generator; deterministic by seed, in each guest's thread ---- */

struct gen {
	uint64_t rng;
};

static uint64_t rnd(struct gen *g)
{
	return oracle_random(&g->rng);
}

static unsigned below(struct gen *g, unsigned n)
{
	return (unsigned)(rnd(g) % n);
}

static bool chance(struct gen *g, unsigned percent)
{
	return below(g, 100) < percent;
}

static uint32_t number(struct gen *g)
{
	uint32_t high = chance(g, 30) ? (uint32_t)rnd(g) << 16 : 0;

	switch (below(g, 6)) {
	case 0:
		return (uint32_t)rnd(g);
	case 1:
		return high | (0xfff0 + below(g, 16));
	case 2:
		return high | (below(g, 16) * PAGE_SIZE + PAGE_SIZE - below(g, 12)) % 0x10000;
	case 3:
		return 8 * below(g, 10); /* a selector */
	default:
		return high | below(g, 0x10000);
	}
}

/* What this machine has not, what never comes back, what differs by nature, and what is not of this test. */
static bool unwanted(const struct insn *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_HLT:
	case ZYDIS_MNEMONIC_RDTSC:
	case ZYDIS_MNEMONIC_RDTSCP:
	case ZYDIS_MNEMONIC_RDRAND:
	case ZYDIS_MNEMONIC_RDSEED:
	case ZYDIS_MNEMONIC_RDPMC:
	case ZYDIS_MNEMONIC_RDPID:
	case ZYDIS_MNEMONIC_LGDT:
	case ZYDIS_MNEMONIC_LIDT:
	case ZYDIS_MNEMONIC_LMSW:
	case ZYDIS_MNEMONIC_RDMSR:
	case ZYDIS_MNEMONIC_WRMSR:
	case ZYDIS_MNEMONIC_CPUID:
	case ZYDIS_MNEMONIC_SALC: /* decoders do not say that it reads CF */
	case ZYDIS_MNEMONIC_POPF:
	case ZYDIS_MNEMONIC_POPFD:
	case ZYDIS_MNEMONIC_IRET:
	case ZYDIS_MNEMONIC_IRETD:
	case ZYDIS_MNEMONIC_VMCALL:
	case ZYDIS_MNEMONIC_VMMCALL:
	case ZYDIS_MNEMONIC_MONITOR:
	case ZYDIS_MNEMONIC_MWAIT:
		return true;
	default:
		break;
	}
	for (unsigned i = 0; i < 2; i++)
		if (in->ops[i].cls == ZYDIS_REGCLASS_CONTROL || in->ops[i].cls == ZYDIS_REGCLASS_DEBUG)
			return true;
	return in->unit != UNIT_INT || in->cls == INSN_UD;
}

static const uint8_t second_bytes[] = { 0x02, 0x03, 0x40, 0x42, 0x44, 0x4f, 0x82, 0x83, 0x84,
					0x85, 0x8c, 0x90, 0x94, 0x95, 0xa0, 0xa1, 0xa3, 0xa4,
					0xa8, 0xa9, 0xab, 0xac, 0xaf, 0xb0, 0xb1, 0xb2, 0xb4,
					0xb5, 0xb6, 0xb7, 0xba, 0xbe, 0xbf, 0xc0, 0xc1, 0xc8 };
/* Worth more than their share. */
static const uint8_t frequent[] = { 0x06, 0x07, 0x16, 0x17, 0x1e, 0x1f, 0x50, 0x54, 0x58, 0x5c,
				    0x68, 0x6a, 0x72, 0x75, 0x88, 0x89, 0x8a, 0x8b, 0x8c, 0x8e,
				    0x8d, 0x8e, 0xa0, 0xa3, 0xa4, 0xa5, 0xaa, 0xab, 0xac, 0xad,
				    0xc2, 0xc3, 0xc4, 0xc5, 0xc9, 0xe0, 0xe1, 0xe2, 0xe3, 0xe8,
				    0xe9, 0xeb, 0xff, 0xff, 0x9c, 0x60, 0x61, 0xc8, 0xd7, 0x8f };

static unsigned instruction(struct gen *g, const struct test *j, uint8_t *p, struct insn *in)
{
	static const uint8_t segs[] = { 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65 };
	unsigned size = j->mode == PROT32 ? 4 : 2;
	bool real = j->mode == REAL || j->mode == UNREAL || j->mode == V86;

	for (;;) {
		unsigned n = 0;

		if (chance(g, 20))
			p[n++] = 0x66;
		if (chance(g, size == 2 ? 20 : 8))
			p[n++] = 0x67;
		if (chance(g, 20))
			p[n++] = segs[below(g, sizeof segs)];
		if (chance(g, 4))
			p[n++] = chance(g, 50) ? 0xf2 : 0xf3;
		if (chance(g, 2))
			p[n++] = 0xf0;
		if (chance(g, 15)) {
			p[n++] = 0x0f;
			p[n++] = second_bytes[below(g, sizeof second_bytes)];
		} else {
			p[n++] = chance(g, 50) ? frequent[below(g, sizeof frequent)] : (uint8_t)rnd(g);
		}
		while (n < 15)
			p[n++] = (uint8_t)rnd(g);
		if (insn_decode(p, 15, size, real, in) != DECODE_OK)
			continue;
		if (unwanted(in) && !(in->cls == INSN_UD && chance(g, 2)))
			continue;
		if (in->flags_read & j->undefined)
			continue;
		/* Forwards, mostly to where something is; there may be instructions that begin elsewhere. */
		if (in->imm_relative) {
			memset(p + in->imm_off, 0, in->imm_len);
			p[in->imm_off] = (uint8_t)below(g, 24);
			if (in->imm_len > 1 && chance(g, 4))
				p[in->imm_off + 1] = (uint8_t)rnd(g);
		}
		return in->len;
	}
}

static void put64(uint8_t *p, uint64_t val)
{
	memcpy(p, &val, 8);
}

static uint64_t descriptor(uint32_t base, uint32_t limit, unsigned access, unsigned flags)
{
	return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)access << 40 |
	       (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)flags << 52 | (uint64_t)(base >> 24) << 56;
}

static void tables(struct test *j)
{
	uint8_t *m = j->mem;
	bool prot = j->mode == PROT16 || j->mode == PROT32 || j->mode == V86;

	memset(m, 0, USED);
	memset(m + HLTS, 0xf4, 0x200);
	for (unsigned i = 0; i < 256; i++) { /* CS:IP */
		m[4 * i] = (uint8_t)(2 * i);
		m[4 * i + 1] = (uint8_t)(2 * i >> 8);
		m[4 * i + 2] = HLTS >> 4;
	}
	put64(m + GDT + 0x08, descriptor(0x8000, 0xffff, 0x9b, 0));    /* code, 16 bits */
	put64(m + GDT + 0x10, descriptor(0x9008, 0xffff, 0x93, 0));    /* data */
	put64(m + GDT + 0x18, descriptor(0x5003, 0x8fff, 0x91, 0));    /* read-only */
	put64(m + GDT + 0x20, descriptor(0x4000, 0x0fff, 0x97, 0));    /* expand-down */
	put64(m + GDT + 0x28, descriptor(0x2000, 0xfffff, 0x93, 0xc)); /* 4 GiB, but not flat */
	put64(m + GDT + 0x30, descriptor(0, 0xfffff, 0x9b, 0xc));      /* flat: code, data */
	put64(m + GDT + 0x38, descriptor(0, 0xfffff, 0x93, 0xc));
	put64(m + GDT + 0x40, descriptor(0x3000, 0xffff, 0x92, 0)); /* not accessed yet */
	put64(m + GDT + 0x48, descriptor(0x6000, 0x00ff, 0x99, 0)); /* not readable */
	if (!prot)
		return;
	for (unsigned i = 0; i < 32; i++)
		put64(m + IDT + 8 * i, (HLTS + 2 * i) | 0x30u << 16 | 0x8e00ull << 32);
	memcpy(m + TSS + 4, &(uint32_t){ KSTACK }, 4);
	m[TSS + 8] = 0x38;
	m[TSS + 0x66] = 0xff;
	m[TSS + 0x67] = 0xff;
}

static uint32_t limit(struct gen *g)
{
	static const uint32_t limits[] = { 0xffff, 0xffff, 0xffff, 0xffffffff, 0x1ffff,
					   0x7fff, 0xfff,  0xfffe, 0,          0x10000 };

	return chance(g, 4) ? (uint32_t)rnd(g) & 0x1ffff : limits[below(g, ARRAY_SIZE(limits))];
}

static void segments(struct gen *g, struct test *j)
{
	struct x86_state *s = &j->st;
	bool prot = j->mode == PROT16 || j->mode == PROT32;
	unsigned dpl = j->mode == V86 ? 3 << 5 : 0;

	for (unsigned i = 0; i < SEG_COUNT; i++) {
		struct x86_seg *x = &s->seg[i];
		uint32_t sel = below(g, 0x2f00);

		*x = (struct x86_seg){ .sel = (uint16_t)sel,
				       .attr = (uint16_t)(SEG_P | SEG_S | 3 | dpl),
				       .limit = 0xffff,
				       .base = sel << 4 };
		if (chance(g, 20)) { /* other segments' memory */
			x->sel = s->seg[SEG_ES].sel;
			x->base = s->seg[SEG_ES].base;
		}
		if (j->mode == UNREAL && i != SEG_CS)
			x->limit = limit(g);
		if (!prot)
			continue;
		x->sel = (uint16_t)(8 * (1 + below(g, 9)));
		if (i == SEG_CS) {
			static const uint8_t types[] = { 0xb, 0xb, 0xb, 9, 0xf };

			x->attr = (uint16_t)(SEG_P | SEG_S | types[below(g, sizeof types)]);
			x->limit = j->mode == PROT32 || chance(g, 20) ? 0xffffffff : 0xffff;
			if (j->mode == PROT32)
				x->attr |= SEG_DB;
			if (chance(g, 3))
				x->base += below(g, 16);
			continue;
		}
		x->base = below(g, 0x2f000);
		x->limit = limit(g);
		if (i == SEG_SS || chance(g, 70))
			x->attr = SEG_P | SEG_S | 3;
		else if (chance(g, 20))
			*x = (struct x86_seg){ 0 };
		else
			x->attr = (uint16_t)(SEG_P | SEG_S | below(g, 16));
		if (chance(g, 30))
			x->attr |= SEG_DB;
	}
}

/* Where the code begins: anywhere, at a page's end, or so that it runs into IP's. */
static uint32_t place(struct gen *g, const struct test *j)
{
	uint32_t base = (uint32_t)j->st.seg[SEG_CS].base, ip;

	for (;;) {
		ip = chance(g, 15)   ? 0xffff - below(g, 60)
		     : chance(g, 20) ? ((below(g, 16) * PAGE_SIZE - below(g, 60)) - base) & 0xffff
				     : below(g, 0x10000);
		if (base + ip >= USED && base + ip + j->len < SEEN)
			return ip;
	}
}

static void generate(struct test *j, uint64_t seed)
{
	struct gen g = { .rng = seed };
	struct x86_state *s = &j->st;
	unsigned n = 1 + below(&g, ITEMS);
	struct insn in;
	uint64_t *words = (uint64_t *)j->mem;

	j->seed = seed;
	j->mode = (enum mode)below(&g, MODES);
	j->len = 0;
	j->undefined = 0;
	for (unsigned i = 0; i < SEEN / 8; i++) { /* HLTs mostly, where lost code ends */
		uint64_t r = rnd(&g);

		words[i] = r % 3 ? 0xf4f4f4f4f4f4f4f4 : r;
	}
	/* DIV, after which the flags mean nothing, is only where it is known to be. */
	for (unsigned i = 0; i < SEEN; i++)
		if ((j->mem[i] & 0xfe) == 0xf6)
			j->mem[i] = 0xf4;
	tables(j);
	memset(s, 0, sizeof *s);
	for (unsigned i = 0; i < 8; i++)
		s->gpr[i] = number(&g);
	segments(&g, j);
	for (unsigned i = 0; i < n; i++) {
		uint8_t b[15];
		unsigned len;

		do
			len = instruction(&g, j, b, &in);
		while (i + 1 < n &&
		       (in.mnemonic == ZYDIS_MNEMONIC_DIV || in.mnemonic == ZYDIS_MNEMONIC_IDIV));
		memcpy(j->code + j->len, b, len);
		j->len += len;
		j->undefined |= in.flags_undefined;
	}
	j->code[j->len++] = 0xf4;
	s->rip = place(&g, j);
	memcpy(j->mem + s->seg[SEG_CS].base + s->rip, j->code, j->len);
	s->rflags = FLAG_R1 | ((uint64_t)rnd(&g) & FLAGS_ARITH) | (chance(&g, 10) ? FLAG_DF : 0);
	if (j->mode == V86)
		s->rflags |= FLAG_VM | (chance(&g, 70) ? FLAG_IOPL : 0);
	s->cr0 = CR0_ET | (j->mode >= PROT16 ? CR0_PE : 0);
	s->dr6 = 0xffff0ff0;
	s->dr7 = 0x400;
	s->xcr0 = 1;
	s->gdtr = (struct x86_dtable){ GDT, 0x4f };
	s->idtr = (struct x86_dtable){ j->mode >= PROT16 ? IDT : 0, j->mode >= PROT16 ? 0xff : 0x3ff };
	s->tr = (struct x86_seg){ .sel = 0x50, .attr = SEG_P | 0xb, .limit = 0x67, .base = TSS };
}

/* ---- running it ---- */

static uint64_t hash(const uint8_t *p)
{
	const uint64_t *w = (const uint64_t *)p;
	uint64_t h = 0;

	for (unsigned i = 0; i < PAGE_SIZE / 8; i++)
		h = (h ^ w[i]) * 0x9e3779b97f4a7c15ull;
	return h;
}

/* The undefined flags of what an exception has pushed become 0. */
static void clear_frame(struct guest *g, const struct test *j, const struct x86_state *s)
{
	uint64_t vector = (s->seg[SEG_CS].base + s->rip - 1 - HLTS) / 2, at;
	bool error = vector == EXC_DF || (vector >= EXC_TS && vector <= EXC_PF) || vector == EXC_AC;
	uint32_t sp = (uint32_t)s->gpr[RSP];

	if (vector >= 32)
		return;
	if (!(s->seg[SEG_SS].attr & SEG_DB))
		sp &= 0xffff;
	at = s->seg[SEG_SS].base + sp + (j->mode >= PROT16 ? 8 + 4 * error : 4);
	if (at + 2 <= RAM) {
		g->ram[at] &= (uint8_t)~j->undefined;
		g->ram[at + 1] &= (uint8_t) ~(j->undefined >> 8);
	}
}

static void run(struct guest *g, const struct test *j, struct result *o)
{
	struct x86_state *s = engine_bt.vcpu_state(g->v);
	struct timespec t;
	enum vcpu_exit e;
	static const uint8_t zeros[PAGE_SIZE];

	for (unsigned i = 0; i < SEEN; i += 64)
		if (memcmp(g->ram + i, j->mem + i, 64)) {
			memcpy(g->ram + i, j->mem + i, 64);
			mem_written(g->m, GPA(i), 64);
		}
	for (unsigned i = SEEN; i < RAM; i += PAGE_SIZE)
		if (memcmp(g->ram + i, zeros, PAGE_SIZE)) {
			memset(g->ram + i, 0, PAGE_SIZE);
			mem_written(g->m, GPA(i), PAGE_SIZE);
		}
	*s = j->st;
	memcpy(s->xsave, g->xsave, sizeof s->xsave);
	engine_bt.vcpu_state_changed(g->v);
	clock_gettime(CLOCK_MONOTONIC, &t);
	engine_bt.vcpu_arm_timer(g->v, t.tv_sec * 1000000000ll + t.tv_nsec + PATIENCE_NS);
	do {
		struct timespec u;

		e = engine_bt.vcpu_run(g->v);
		clock_gettime(CLOCK_MONOTONIC, &u);
		o->endless = (u.tv_sec - t.tv_sec) * 1000000000ll + u.tv_nsec - t.tv_nsec > PATIENCE_NS / 2;
	} while (e == VCPU_EXIT_KICKED && !o->endless);
	clear_frame(g, j, s);
	memcpy(o->gpr, s->gpr, sizeof o->gpr);
	memcpy(o->seg, s->seg, sizeof o->seg);
	o->rip = s->rip;
	o->rflags = s->rflags & ~(uint64_t)(j->undefined | FLAG_RF);
	o->cr2 = s->cr2;
	o->exit = (int)e;
	if (e == VCPU_EXIT_ERROR) {
		printf("%s: %s\n", g->tier, engine_bt.vcpu_error(g->v));
		g->v->error[0] = 0;
	}
	for (unsigned i = 0; i < PAGES; i++)
		o->page[i] = hash(g->ram + i * PAGE_SIZE);
}

static void *worker(void *arg)
{
	struct guest *g = arg;
	struct error err;

	if (engine_bt.vcpu_thread_init(g->v, &err))
		abort();
	for (;;) {
		pthread_barrier_wait(&start);
		if (quit)
			return NULL;
		for (unsigned i = 0; i < batch; i++) {
			generate(&g->job, g->first + i);
			for (unsigned r = 0; r < (g == guests ? 1 : RUNS); r++)
				run(g, &g->job, &g->out[i][r]);
		}
		pthread_barrier_wait(&done);
	}
}

static const struct {
	const char *tier, *stress;
} kinds[GUESTS] = { { "interp", NULL }, { "t1", NULL }, { "t1", "one-insn,tiny-tlb" } };

static bool guest_new(struct guest *g, const char *tier, const char *stress)
{
	struct engine_option o = { .tier = tier, .code_cache_size = MIB(8), .stress = stress };
	struct vcpu_config c = { .model = &model };
	struct error err;

	g->tier = tier;
	mutex_init(&g->lock, LOCK_RANK_IO, "io");
	if (mem_new(RAM, &g->lock, &g->m, &err) || engine_bt.vm_new(g->m, 1, &o, &g->vm, &err))
		return false;
	g->ram = mem_ram_ptr(g->m, GPA(0), RAM);
	c.mem = g->m;
	if (engine_bt.vcpu_new(g->vm, &c, &g->v, &err))
		return false;
	memcpy(g->xsave, engine_bt.vcpu_state(g->v)->xsave, sizeof g->xsave);
	return true;
}

/* ---- comparison ---- */

static bool same(const struct result *a, const struct result *b, char why[200])
{
	static const char *const names[] = { "eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi" };

#define DIFFER(...) return snprintf(why, 200, __VA_ARGS__), false
	if (a->endless || b->endless)
		return true;
	if (a->exit != b->exit)
		DIFFER("ends with %d, not %d", b->exit, a->exit);
	if (a->exit != VCPU_EXIT_HALTED)
		return true;
	if (a->rip != b->rip || a->seg[SEG_CS].base != b->seg[SEG_CS].base)
		DIFFER("halts at %#llx:%#llx, not %#llx:%#llx", (unsigned long long)b->seg[SEG_CS].base,
		       (unsigned long long)b->rip, (unsigned long long)a->seg[SEG_CS].base,
		       (unsigned long long)a->rip);
	for (unsigned i = 0; i < 8; i++)
		if (a->gpr[i] != b->gpr[i])
			DIFFER("%s is %#llx, not %#llx", names[i], (unsigned long long)b->gpr[i],
			       (unsigned long long)a->gpr[i]);
	if (a->rflags != b->rflags)
		DIFFER("flags are %#llx, not %#llx", (unsigned long long)b->rflags,
		       (unsigned long long)a->rflags);
	for (unsigned i = 0; i < SEG_COUNT; i++)
		if (memcmp(&a->seg[i], &b->seg[i], sizeof a->seg[i]))
			DIFFER("segment register %u is %#x at %#llx, not %#x at %#llx", i, b->seg[i].sel,
			       (unsigned long long)b->seg[i].base, a->seg[i].sel,
			       (unsigned long long)a->seg[i].base);
	for (unsigned i = 0; i < PAGES; i++)
		if (a->page[i] != b->page[i])
			DIFFER("memory differs in page %#x", i);
	return true;
#undef DIFFER
}

static void report(uint64_t seed, unsigned r, const char *stress, const char *why)
{
	static struct test j;
	unsigned size, at = 0;
	struct insn in;

	generate(&j, seed);
	size = j.mode == PROT32 ? 4 : 2;
	printf("seed %llu, %s mode, run %u%s%s: %s\n", (unsigned long long)seed, mode_names[j.mode], r,
	       stress ? " under stress " : "", stress ? stress : "", why);
	printf(" cs %#llx ip %#llx flags %#llx\n", (unsigned long long)j.st.seg[SEG_CS].base,
	       (unsigned long long)j.st.rip, (unsigned long long)j.st.rflags);
	for (unsigned i = 0; i < 8; i++)
		printf(" %08llx", (unsigned long long)j.st.gpr[i]);
	for (unsigned i = 0; i < SEG_COUNT; i++)
		printf("%s %04x:%llx+%x/%x", i ? "" : "\n", j.st.seg[i].sel,
		       (unsigned long long)j.st.seg[i].base, j.st.seg[i].limit, j.st.seg[i].attr);
	printf("\n");
	while (at < j.len && insn_decode(j.code + at, j.len - at, size, j.mode != PROT16 && j.mode != PROT32,
					 &in) == DECODE_OK) {
		printf("  %04llx ", (unsigned long long)j.st.rip + at);
		for (unsigned i = 0; i < in.len; i++)
			printf(" %02x", j.code[at + i]);
		printf("  %s\n", ZydisMnemonicGetString((ZydisMnemonic)in.mnemonic));
		at += in.len;
	}
}

/* Did some guest see another result of case i of the batch than the interpreter? */
static bool differs(uint64_t seed, unsigned i)
{
	char why[200];

	for (unsigned k = 1; k < GUESTS; k++)
		for (unsigned r = 0; r < RUNS; r++)
			if (!same(&guests[0].out[i][0], &guests[k].out[i][r], why)) {
				report(seed, r, kinds[k].stress, why);
				return true;
			}
	return false;
}

int main(void)
{
	const char *seed_text = getenv("SILL_SEED"), *s = getenv("SILL_ORACLE_SECONDS");
	double seconds = s ? strtod(s, NULL) : seed_text ? 0 : 10, t0 = oracle_now();
	uint64_t seed = seed_text ? strtoull(seed_text, NULL, 0) : 1, cases = 0, endless = 0, halts = 0;
	struct engine_stats stats = { 0 };
	unsigned failures = 0;

	if (cpu_model_new("host", 1, &model, NULL)) {
		printf("no CPU model for this host\n");
		return 77;
	}
	for (unsigned k = 0; k < GUESTS; k++)
		if (!guest_new(&guests[k], kinds[k].tier, kinds[k].stress))
			return 1;
	pthread_barrier_init(&start, NULL, GUESTS + 1);
	pthread_barrier_init(&done, NULL, GUESTS + 1);
	for (unsigned k = 0; k < GUESTS; k++)
		pthread_create(&guests[k].thread, NULL, worker, &guests[k]);
	do {
		batch = seed_text && !s ? 1 : BATCH;
		for (unsigned k = 0; k < GUESTS; k++)
			guests[k].first = seed;
		pthread_barrier_wait(&start);
		pthread_barrier_wait(&done);
		for (unsigned i = 0; i < batch; i++) {
			cases++;
			endless += guests[0].out[i][0].endless;
			halts += guests[0].out[i][0].exit == VCPU_EXIT_HALTED;
			failures += differs(seed + i, i);
		}
		seed += batch;
	} while (failures < 30 && oracle_now() - t0 < seconds);
	quit = true;
	pthread_barrier_wait(&start);
	engine_bt.vcpu_stats(guests[1].v, &stats);
	printf("%llu cases, %llu ran to a HLT, %llu without end, %llu instructions interpreted in %llu runs "
	       "of T1, %u differences\n",
	       (unsigned long long)cases, (unsigned long long)halts, (unsigned long long)endless,
	       (unsigned long long)stats.interp_insns, (unsigned long long)cases * RUNS, failures);
	for (unsigned k = 0; k < GUESTS; k++) {
		pthread_join(guests[k].thread, NULL);
		engine_bt.vcpu_free(guests[k].v);
		engine_bt.vm_free(guests[k].vm);
		mem_free(guests[k].m);
	}
	return failures != 0;
}
