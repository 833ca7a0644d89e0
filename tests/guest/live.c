/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What translated code has C do while the vector registers are the guest's: XSAVE and XRSTOR, FNSTENV, stores
 * across pages that are no neighbours; and AH..BH with memory operands, RDTSCP.
 */
#include "lib.h"

#define ROUNDS 50 /* an instruction is interpreted before it is translated, and known to both afterwards */

static uint8_t two_pages[8192] __attribute__((aligned(4096)));
static uint8_t pattern[64] __attribute__((aligned(64)));
static uint64_t xcr0;
static unsigned failed;

static void check(bool ok, const char *what, uint64_t where)
{
	if (ok || failed++ > 10)
		return;
	print("FAIL ");
	print(what);
	print(" ");
	print_hex(where);
	print("\n");
}

static void done(const char *name)
{
	expect(name, failed, 0);
	failed = 0;
}

/* ---- XSAVE ---- */

static void load_registers(bool x87)
{
	__asm__ volatile("fninit" ::: "memory");
	if (x87)
		__asm__ volatile("fld1" ::: "memory");
	if (xcr0 & 4)
		__asm__ volatile("vmovdqu %0, %%ymm0" ::"m"(pattern));
	else
		__asm__ volatile("movdqu %0, %%xmm0" ::"m"(pattern));
}

static void spoil_registers(void)
{
	__asm__ volatile("fninit; fldz; fldz; fldz" ::: "memory");
	if (xcr0 & 4)
		__asm__ volatile(
		    "vpcmpeqd %%xmm0, %%xmm0, %%xmm0; vinsertf128 $1, %%xmm0, %%ymm0, %%ymm0" ::);
	else
		__asm__ volatile("pcmpeqd %%xmm0, %%xmm0" ::);
}

static void save(uint8_t *p, uint64_t mask, bool compact)
{
	if (compact)
		__asm__ volatile("xsavec64 (%0)" ::"r"(p), "a"((uint32_t)mask), "d"(0) : "memory");
	else
		__asm__ volatile("xsave64 (%0)" ::"r"(p), "a"((uint32_t)mask), "d"(0) : "memory");
}

static void restore(uint8_t *p, uint64_t mask)
{
	__asm__ volatile("xrstor64 (%0)" ::"r"(p), "a"((uint32_t)mask), "d"(0) : "memory");
}

static bool all(const uint8_t *p, unsigned n, uint8_t v)
{
	while (n)
		if (p[--n] != v)
			return false;
	return true;
}

static bool same(const uint8_t *a, const uint8_t *b, unsigned n)
{
	while (n--)
		if (a[n] != b[n])
			return false;
	return true;
}

static void check_image(uint8_t *p, uint64_t mask, bool compact, bool x87, uint64_t where)
{
	uint64_t bv = *(uint64_t *)(p + 512), comp = *(uint64_t *)(p + 520), m = mask & xcr0;
	bool fp = (m & 1) && (!compact || (bv & 1));

	check(!(bv & ~m), "XSTATE_BV", where);
	check(!x87 || !(m & 1) || (bv & 1), "XSTATE_BV, x87", where);
	check((bv & 2) == (m & 2), "XSTATE_BV, SSE", where);
	check(comp == (compact ? m | 1ull << 63 : 0), "XCOMP_BV", where);
	check(all(p + 528, 48, 0), "reserved bytes of the header", where);
	check(fp ? all(p + 6, 18, 0) : all(p, 24, 0xcc), "FOP, FIP, FDP", where);
	if (fp && x87)
		check(p[0] == 0x7f && p[32 + 9] == 0x3f && p[32 + 8] == 0xff, "x87", where);
	if (!fp)
		check(all(p + 32, 128, 0xcc), "x87 written", where);
	check(m & 2 ? same(p + 160, pattern, 16) : all(p + 160, 16, 0xcc), "SSE", where);
	if (m & 4)
		check(same(p + 576, pattern + 16, 16), "AVX", where);
	else if (m < 8)
		check(all(p + 576, 512, 0xcc), "AVX written", where);
}

static void check_registers(uint64_t m, bool x87, uint64_t where)
{
	uint8_t now[32] __attribute__((aligned(32)));
	uint16_t status;

	if (xcr0 & 4)
		__asm__ volatile("vmovdqu %%ymm0, %0" : "=m"(now));
	else
		__asm__ volatile("movdqu %%xmm0, %0" : "=m"(*(uint8_t(*)[16])now));
	__asm__ volatile("fnstsw %0" : "=a"(status));
	check(m & 2 ? same(now, pattern, 16) : all(now, 16, 0xff), "SSE restored", where);
	if (xcr0 & 4)
		check(m & 4 ? same(now + 16, pattern + 16, 16) : all(now + 16, 16, 0xff), "AVX restored",
		      where);
	check((status >> 11 & 7) == (m & 1 ? (x87 ? 7 : 0) : 5), "x87 restored", where);
}

static void clear_image(uint8_t *p)
{
	for (unsigned i = 0; i < 2800; i++)
		p[i] = i >= 512 && i < 576 ? 0 : 0xcc;
	*(uint32_t *)(p + 24) = 0x1f80;
}

static void images(const char *name, uint8_t *p)
{
	static const uint8_t masks[] = { 7, 1, 2, 3, 6, 0xe7 };

	for (unsigned n = 0; n < 4 * sizeof masks * 8; n++) {
		uint64_t mask = masks[n % sizeof masks], where = (uint64_t)p | mask << 48;
		bool compact = n / sizeof masks & 1, x87 = n / sizeof masks & 2;

		clear_image(p);
		load_registers(x87);
		save(p, mask, compact);
		check_image(p, mask, compact, x87, where);
		spoil_registers();
		restore(p, mask);
		check_registers(mask & xcr0, x87, where);
	}
	done(name);
}

static void restore_it(uint64_t p)
{
	restore((uint8_t *)p, 7);
}

static void save_it(uint64_t p)
{
	save((uint8_t *)p, 7, false);
}

static void bad_images(void)
{
	uint8_t *p = page_a, *w = (uint8_t *)WINDOW + 0x8e00;

	for (int i = 0; i < ROUNDS; i++) {
		clear_image(p);
		save(p, 7, false);
		check(try_call(restore_it, (uint64_t)p) == -1, "a good image", 0);
		p[519] = 0x80;
		check(try_call(restore_it, (uint64_t)p) == 13, "a component that is not there", 0);
		p[519] = 0;
		p[530] = 1;
		check(try_call(restore_it, (uint64_t)p) == 13, "a reserved byte of the header", 0);
		p[530] = 0;
		p[27] = 1;
		check(try_call(restore_it, (uint64_t)p) == 13, "a reserved bit of MXCSR", 0);
		p[27] = 0;
		check(try_call(restore_it, (uint64_t)p + 8) == 13, "an image that is not aligned", 0);
		map(8, two_pages, 3);
		map(9, two_pages + 4096, 3);
		clear_image(w);
		save(w, 7, false);
		map(9, two_pages + 4096, 0);
		check(try_call(restore_it, (uint64_t)w) == 14 && last_cr2 >> 12 == (uint64_t)(w + 4096) >> 12,
		      "a second page that is not there", 0);
		check(try_call(save_it, (uint64_t)w) == 14, "the same, saving", 0);
		map(9, two_pages + 4096, 1);
		check(try_call(restore_it, (uint64_t)w) == -1, "a second page to read only", 0);
	}
	done("images that fault");
}

/* ---- stores across pages ---- */

static uint8_t *const edge = (uint8_t *)WINDOW + 0x4000;

static void store_it(uint64_t x)
{
	__asm__ volatile("movq %0, -3(%1)" ::"r"(x), "r"(edge) : "memory");
}

static void push_it(uint64_t x)
{
	__asm__ volatile("mov %%rsp, %%rbx; lea 4(%1), %%rsp; push %0; mov %%rsp, %%rcx; mov %%rbx, %%rsp"
			 : "+a"(x)
			 : "d"(edge)
			 : "rbx", "rcx", "memory");
}

static uint64_t at_edge(int off)
{
	uint64_t x = 0;

	for (int i = 8; i-- > 0;)
		x = x << 8 | *(volatile uint8_t *)(edge + off + i);
	return x;
}

static void stores(void)
{
	uint64_t seed = 1;

	map(3, page_b, 3);
	map(4, page_a, 3);
	load_registers(true);
	for (int i = 0; i < ROUNDS; i++) {
		uint64_t x = next_random(&seed), y = next_random(&seed), old;
		uint8_t zero;

		store_it(x);
		check(at_edge(-3) == x, "MOV", x);
		__asm__ volatile("movq %0, -3(%1)" ::"r"(x), "r"(edge) : "memory");
		__asm__ volatile("addq %1, -3(%2); setz %0" : "=r"(zero) : "r"(-x), "r"(edge) : "memory");
		check(at_edge(-3) == 0 && zero == 1, "ADD", x);
		__asm__ volatile("movl %k0, -1(%1)" ::"r"(y), "r"(edge) : "memory");
		check((uint32_t)at_edge(-1) == (uint32_t)y, "MOV 4", y);
		old = x;
		__asm__ volatile("lock xaddq %0, -5(%1)" : "+r"(old) : "r"(edge) : "memory");
		check(at_edge(-5) == old + x, "LOCK XADD", x);
		__asm__ volatile("xchgq %0, -5(%1)" : "+r"(y) : "r"(edge) : "memory");
		check(y == old + x, "XCHG", x);
		__asm__ volatile("movdqu %%xmm0, -7(%0)" ::"r"(edge) : "memory");
		check(at_edge(-7) == *(uint64_t *)pattern && at_edge(1) == *(uint64_t *)(pattern + 8),
		      "MOVDQU", x);
		push_it(x);
		check(at_edge(-4) == x, "PUSH", x);
		/* A second page that faults: nothing is written. */
		map(4, page_a, i & 1 ? 1 : 0);
		WRITE_CR(0, READ_CR(0) | 0x10000);
		check(try_call(store_it, ~x) == 14 && last_cr2 == (uint64_t)edge, "MOV that faults",
		      last_cr2);
		map(4, page_a, 3);
		check(at_edge(-4) == x, "nothing written", x);
	}
	check_registers(7, true, 0);
	done("stores across pages");
}

/* ---- AH..BH ---- */

static void high_bytes(void)
{
	static volatile uint8_t m[16];
	uint64_t seed = 2;

	for (int i = 0; i < ROUNDS; i++) {
		uint64_t a = next_random(&seed), b = next_random(&seed), c = b, d = a, f;
		uint8_t ah = (uint8_t)(a >> 8), bh = (uint8_t)(b >> 8);

		__asm__ volatile("movb %%ah, (%1)" ::"a"(a), "S"(m) : "memory");
		check(m[0] == ah, "MOV to memory", a);
		__asm__ volatile("stc; adcb %%bh, (%1); pushfq; pop %0"
				 : "=r"(f)
				 : "S"(m), "b"(b)
				 : "memory", "cc");
		check(m[0] == (uint8_t)(ah + bh + 1) && (f & 1) == (unsigned)(ah + bh + 1) >> 8, "ADC", f);
		__asm__ volatile("push %0; movb %%ah, (%%rsp); movb 1(%%rsp), %%ch; pop %0"
				 : "+d"(d), "+c"(c)
				 : "a"(a)
				 : "memory");
		check(d == ((a & ~0xffull) | ah), "MOV on the stack", d);
		check(c == ((b & ~0xff00ull) | ah << 8), "MOV to CH", c);
		m[3] = 0x5a;
		__asm__ volatile("xchgb %%dh, 3(%1)" : "+d"(d) : "S"(m) : "memory");
		check(m[3] == ah && (d >> 8 & 0xff) == 0x5a, "XCHG", d);
		m[4] = (uint8_t)a;
		__asm__ volatile("lock cmpxchgb %%bh, (%1, %2)"
				 : "+a"(a)
				 : "D"(m), "S"(4ull), "b"(b)
				 : "memory", "cc");
		check(m[4] == bh, "CMPXCHG", b);
	}
	done("AH..BH and memory");
}

/* FNSTENV of a known state, to `at`; the last instruction's place is zeros, exceptions are masked afterwards.
 */
static void environment(const char *name, uint8_t *at)
{
	static const uint32_t want[7] = { 0xffff0340, 0xffff3800, 0xffff3fff };
	static const uint16_t unmasked = 0x340;

	for (int i = 0; i < ROUNDS; i++) {
		uint32_t env[7];
		uint16_t after;

		for (unsigned k = 0; k < sizeof env; k++)
			at[k] = 0xaa;
		__asm__ volatile("fninit; fld1; fldcw %2; fnstenv %0; fnstcw %1"
				 : "=m"(*(uint8_t(*)[28])at), "=m"(after)
				 : "m"(unmasked));
		for (unsigned k = 0; k < sizeof env; k++)
			((uint8_t *)env)[k] = at[k];
		for (unsigned k = 0; k < 7; k++)
			check((env[k] | (k < 3 ? 0xffff0000 : 0)) == want[k], name, k);
		check(after == 0x37f, "masked", after);
		__asm__ volatile("fldenv %1; fnstcw %0" : "=m"(after) : "m"(*(uint8_t(*)[28])at));
		check(after == 0x340, "FLDENV", after);
	}
	done(name);
}

static void time_stamps(void)
{
	uint64_t last_tsc = 0;

	wrmsr(0xc0000103, 0x12345678);
	for (int i = 0; i < ROUNDS; i++) {
		uint64_t a, d, c = ~0ull, a2, d2;

		__asm__ volatile("rdtscp; mov %%rax, %%rsi; mov %%rdx, %%rdi; rdtsc"
				 : "=S"(a), "=D"(d), "+c"(c), "=a"(a2), "=d"(d2));
		check(c == 0x12345678, "TSC_AUX", c);
		check(!(a >> 32) && !(d >> 32), "upper halves", a);
		check((a | d << 32) >= last_tsc && (a2 | d2 << 32) >= (a | d << 32), "order", a);
		last_tsc = a2 | d2 << 32;
	}
	done("RDTSCP");
}

void guest_main(void)
{
	uint32_t a = 0xd, b, c = 0, d;

	__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
	xcr0 = a & 0xe7;
	if ((xcr0 & 0xe0) != 0xe0)
		xcr0 &= 7;
	WRITE_CR(4, READ_CR(4) | 1 << 18);
	__asm__ volatile("xsetbv" ::"a"((uint32_t)xcr0), "d"(0), "c"(0));
	for (unsigned i = 0; i < sizeof pattern; i++)
		pattern[i] = (uint8_t)(i * 37 + 1);
	make_window();
	map(1, page_b, 3);
	map(2, page_a, 3);
	images("images in a page", page_a);
	images("images in neighbours", two_pages + 0xe00);
	images("images in pages apart, header in the first", (uint8_t *)WINDOW + 0x1d80);
	images("images in pages apart, header in the second", (uint8_t *)WINDOW + 0x1e40);
	bad_images();
	environment("FNSTENV", page_a + 100);
	environment("FNSTENV across pages apart", (uint8_t *)WINDOW + 0x1ff0);
	stores();
	high_bytes();
	time_stamps();
}
