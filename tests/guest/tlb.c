/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLB torture: random changes of page-table entries, with and without invalidation, under several PCIDs, with
 * global and large pages; each access is compared with a model of what the manual lets a processor have
 * cached (SDM 3A 4.10).
 *
 * The model keeps, for each PCID and page, the entries that may be cached: all values since the last
 * invalidation that covered it. An access must do what one of them says, and if there is only the current
 * one, exactly that, A and D bits included.
 */
#include "lib.h"

#define PAGES  8 /* of 4 KiB, at WINDOW; page PAGES is 2 MiB behind it */
#define FRAMES 4
#define PCIDS  3
#define KEEP   6
#define ROUNDS 30000

#define P    1ull
#define W    2ull
#define U    4ull
#define A    0x20ull
#define D    0x40ull
#define PS   0x80ull
#define G    0x100ull
#define NX   (1ull << 63)
#define ADDR 0x000ffffffffff000ull

static uint8_t frame[FRAMES][4096] __attribute__((aligned(4096)));
static uint8_t big[2][2u << 20] __attribute__((aligned(2u << 20)));

struct cached {
	uint64_t e[KEEP];
	unsigned n;
	bool used; /* one may be cached with A or D set that memory has lost */
};

static struct cached model[PCIDS][PAGES + 1];
static unsigned pcid;
static bool have_pcid;
static uint64_t seed = 1;
static unsigned wrong;

static unsigned below(unsigned n)
{
	return (unsigned)(next_random(&seed) % n);
}

static uint64_t *entry(unsigned page)
{
	return page < PAGES ? &window_pt[page] : &window_pd[1];
}

static uint64_t address(unsigned page)
{
	return page < PAGES ? WINDOW + page * 4096ull : WINDOW + (2u << 20);
}

/* What is current, without A and D, which the processor sets. */
static uint64_t plain(unsigned page)
{
	return *entry(page) & ~(A | D);
}

static void forget(struct cached *c, unsigned page, bool keep_global)
{
	unsigned n = 0;

	for (unsigned i = 0; i < c->n; i++)
		if (keep_global && (c->e[i] & G))
			c->e[n++] = c->e[i];
	c->n = n;
	c->used &= n > 0;
	for (unsigned i = 0; i < n; i++)
		if (c->e[i] == plain(page))
			return;
	c->e[c->n++] = plain(page);
}

static void note(unsigned page)
{
	for (unsigned k = 0; k < PCIDS; k++) {
		struct cached *c = &model[k][page];
		unsigned i = 0;

		c->used = true;
		while (i < c->n && c->e[i] != plain(page))
			i++;
		if (i == c->n)
			c->e[c->n++] = plain(page);
	}
}

static void load_cr3(unsigned next, bool keep)
{
	uint64_t v = (uint64_t)pml4 | (have_pcid ? next : 0);

	pcid = have_pcid ? next : 0;
	WRITE_CR(3, v | (have_pcid && keep ? NX : 0));
	if (!have_pcid || !keep)
		for (unsigned p = 0; p <= PAGES; p++)
			forget(&model[pcid][p], p, true);
}

static void flush_everything(void)
{
	WRITE_CR(4, READ_CR(4) ^ 0x80);
	WRITE_CR(4, READ_CR(4) ^ 0x80);
	for (unsigned k = 0; k < PCIDS; k++)
		for (unsigned p = 0; p <= PAGES; p++)
			forget(&model[k][p], p, false);
}

static void invalidate(unsigned page)
{
	invlpg(address(page) + below(page < PAGES ? 4096 : 2u << 20));
	/* Global entries of the address go whatever PCID they are of; the others of other PCIDs may stay. */
	for (unsigned k = 0; k < PCIDS; k++) {
		struct cached *c = &model[k][page];
		unsigned n = 0;

		if (k == pcid) {
			forget(c, page, false);
			continue;
		}
		for (unsigned i = 0; i < c->n; i++)
			if (!(c->e[i] & G))
				c->e[n++] = c->e[i];
		c->n = n;
		note(page);
	}
}

static void change(unsigned page)
{
	static const uint64_t bits[] = { P | W,      P | W,          P, P | W | U, P | U,
					 P | W | NX, P | W | U | NX, 0, P | W | G, P | G };
	uint64_t e = bits[below(sizeof bits / 8)];

	if (page < PAGES)
		e |= (uint64_t)frame[below(FRAMES)];
	else
		e |= (uint64_t)big[below(2)] | PS;
	for (unsigned k = 0; k < PCIDS; k++)
		if (model[k][page].n >= KEEP - 1) {
			*entry(page) = e;
			flush_everything();
			return;
		}
	__atomic_store_n(entry(page), e, __ATOMIC_SEQ_CST);
	note(page);
	switch (below(4)) {
	case 0: /* no invalidation at all */
		break;
	case 1:
		load_cr3(pcid, false);
		break;
	default:
		invalidate(page);
	}
}

enum { READ, WRITE, EXEC, KINDS };

static uint64_t got;

static void do_read(uint64_t va)
{
	got = *(volatile uint64_t *)va;
}

static void do_write(uint64_t va)
{
	*(volatile uint64_t *)(va + 64) = seed;
}

/* The same relative to RSP (#PF has a stack of its own). */
static void do_read_stack(uint64_t va)
{
	uint64_t sp;

	__asm__ volatile("mov %%rsp, %1; mov %2, %%rsp; pop %0; mov %1, %%rsp"
			 : "=&r"(got), "=&r"(sp)
			 : "r"(va)
			 : "memory");
}

static void do_write_stack(uint64_t va)
{
	uint64_t sp;

	__asm__ volatile("mov %%rsp, %0; lea 72(%1), %%rsp; push %2; mov %0, %%rsp"
			 : "=&r"(sp)
			 : "r"(va), "r"(seed)
			 : "memory");
}

static void do_exec(uint64_t va)
{
	got = ((uint64_t(*)(void))(va + 16))();
}

static void do_read_ac(uint64_t va)
{
	__asm__ volatile("stac");
	got = *(volatile uint64_t *)va;
	__asm__ volatile("clac");
}

static void do_read_ac_stack(uint64_t va)
{
	__asm__ volatile("stac");
	do_read_stack(va);
	__asm__ volatile("clac");
}

static void do_user(uint64_t va)
{
	enter_user(va + 32, 0, 2);
}

/* What entry e says: -1, or the error code of the fault. */
static int verdict(uint64_t e, int kind, bool user, bool ac)
{
	int err = (kind == WRITE ? 2 : 0) | (user ? 4 : 0) | (kind == EXEC ? 16 : 0);
	bool ok = e & P;

	if (ok) {
		err |= 1;
		if (user)
			ok = (e & U) && !(kind == WRITE && !(e & W)) && !(kind == EXEC && (e & NX));
		else
			ok = !((e & U) && (kind == EXEC || !ac)) && !(kind == WRITE && !(e & W)) &&
			     !(kind == EXEC && (e & NX));
	}
	return ok ? -1 : err;
}

static uint64_t target(unsigned page, uint64_t e)
{
	return page < PAGES ? e & ADDR : e & ADDR & ~0x1fffffull;
}

static void complain(const char *what, unsigned page, uint64_t x, uint64_t y)
{
	if (++wrong > 5)
		return;
	print("FAIL ");
	print(what);
	print(" page ");
	print_hex(page);
	print(" entry ");
	print_hex(*entry(page));
	print(": ");
	print_hex(x);
	print(" ");
	print_hex(y);
	print(" seed ");
	print_hex(seed);
	print("\n");
}

static void access(unsigned page)
{
	int kind = (int)below(KINDS), r;
	bool stack = below(2), user = below(4) == 0, ac = !user && kind == READ && below(3) == 0,
	     right = false;
	struct cached *c = &model[pcid][page];
	uint64_t before = *entry(page), after, where;
	static void (*const reads[2][2])(uint64_t) = { { do_read, do_read_stack },
						       { do_read_ac, do_read_ac_stack } };
	void (*fn)(uint64_t) = kind == READ    ? reads[ac][stack]
			       : kind == WRITE ? (stack ? do_write_stack : do_write)
					       : do_exec;

	if (user) { /* runs there: INT3, which says by its frame where it was */
		kind = EXEC;
		fn = do_user;
	}
	got = 0;
	r = try_call(fn, address(page));
	if (user && r == 3) {
		/* Which frame was it? Its bytes say, read by the kernel's own mapping through every
		 * candidate. */
		r = -1;
	} else if (r >= 0 && r != 14) {
		complain("exception", page, (uint64_t)r, last.rip);
		return;
	}
	after = *entry(page);
	for (unsigned i = 0; i < c->n; i++) {
		int v = verdict(c->e[i], kind, user, ac);

		if (r == 14) {
			right |= v >= 0 && (uint64_t)v == last.error;
			continue;
		}
		if (v >= 0)
			continue;
		where = target(page, c->e[i]);
		right |= user || (kind == READ && got == where) ||
			 (kind == EXEC && got == (where & 0xffffffff)) ||
			 (kind == WRITE && *(uint64_t *)(where + 64) == seed);
	}
	if (!right)
		complain("outcome", page, r == 14 ? last.error : got, (uint64_t)r);
	if (r == 14 && last_cr2 - address(page) >= 4096)
		complain("cr2", page, last_cr2, address(page));
	if (r == 14 && after != before)
		complain("A or D by a fault", page, before, after);
	if ((after ^ before) & ~(A | D))
		complain("other bits", page, before, after);
	if (c->n == 1 && !c->used && r == -1 && (!(after & A) || (kind == WRITE && !(after & D))))
		complain("A and D", page, before, after);
	if (kind != WRITE && ((after ^ before) & D))
		complain("D without a write", page, before, after);
}

/*
 * A page that RSP points into, before and after what must make the processor forget it, with no other stack
 * in between. `first` and `second` are what is popped; va the page, to the value that the change writes.
 */
static uint64_t first, second, to, plain_flags = 2;

#define AROUND(before, between, access)                                                                      \
	__asm__ volatile("mov %%rsp, %%r8; " before "mov %2, %%rsp; pop %0; " between                        \
			 "mov %2, %%rsp; " access "; mov %%r8, %%rsp"                                        \
			 : "=&r"(first), "=&r"(second)                                                       \
			 : "r"(va), "r"(to), "r"(&window_pt[0]), "r"(READ_CR(3)), "r"(&plain_flags)          \
			 : "r8", "memory", "cc")

static void around_invlpg(uint64_t va)
{
	AROUND("", "mov %3, (%4); invlpg (%2); ", "pop %1");
}
static void around_cr3(uint64_t va)
{
	AROUND("", "mov %3, (%4); mov %5, %%cr3; ", "pop %1");
}
static void around_push(uint64_t va)
{
	AROUND("", "mov %3, (%4); invlpg (%2); ", "pop %1; push %0");
}
static void around_clac(uint64_t va)
{
	AROUND("stac; ", "clac; ", "pop %1");
}
static void around_popf(uint64_t va)
{
	AROUND("stac; ", "mov %6, %%rsp; popf; ", "pop %1");
}

/* r: the exception that try_call must see. */
static void check_stack(const char *name, void (*fn)(uint64_t), uint64_t old, uint64_t new, int r,
			uint64_t error)
{
	int seen;

	map(0, 0, old);
	first = second = 0;
	to = new;
	seen = try_call(fn, WINDOW);
	__asm__ volatile("clac");
	expect(name, (uint64_t)(int64_t)seen, (uint64_t)(int64_t)r);
	if (r == 14) {
		expect("error code", last.error, error);
		return;
	}
	expect("before", first, old & ADDR);
	expect("after", second, new &ADDR);
}

static void stacks(void)
{
	/* Dirty: what can be written without more ado. */
	uint64_t one = (uint64_t)frame[0] | P | W | A | D, other = (uint64_t)frame[1] | P | W;

	for (int i = 0; i < 3; i++) {
		check_stack("RSP and INVLPG", around_invlpg, one, other, -1, 0);
		check_stack("RSP and a missing page", around_invlpg, one, 0, 14, 0);
		check_stack("RSP and CR3", around_cr3, one, other, -1, 0);
		check_stack("RSP and a read-only page", around_push, one, other & ~W, 14, 3);
		check_stack("RSP and CLAC", around_clac, one | U, 0, 14, 1);
		check_stack("RSP and POPF", around_popf, one | U, 0, 14, 1);
	}
}

void guest_main(void)
{
	uint32_t a = 1, b, cx = 0, dx;
	static const uint8_t code[] = { 0xb8, 0, 0, 0, 0, 0xc3 };

	set_gate(14, stubs[14], 1, 0);
	make_window();
	for (unsigned i = 0; i < FRAMES + 2; i++) {
		uint8_t *f = i < FRAMES ? frame[i] : big[i - FRAMES];

		*(uint64_t *)f = (uint64_t)f;
		for (unsigned k = 0; k < 6; k++)
			f[16 + k] = code[k];
		*(uint32_t *)(f + 17) = (uint32_t)(uint64_t)f;
		f[32] = 0xcc;
	}
	window_pd[1] = (uint64_t)big[0] | PS | P | W;
	for (unsigned p = 0; p < PAGES; p++)
		window_pt[p] = (uint64_t)frame[0] | P | W;
	__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(cx), "=d"(dx));
	have_pcid = cx >> 17 & 1;
	WRITE_CR(4, READ_CR(4) | 3u << 20 | (have_pcid ? 1u << 17 : 0)); /* SMEP, SMAP, PCIDE */
	stacks();
	window_pt[0] = (uint64_t)frame[0] | P | W;
	flush_everything();
	for (unsigned i = 0; i < ROUNDS && wrong < 5; i++) {
		unsigned page = below(PAGES + 1), what = below(16);

		if (what < 3)
			change(page);
		else if (what == 3)
			load_cr3(below(PCIDS), below(2));
		else if (what == 4 && below(8) == 0)
			flush_everything();
		else
			access(page);
	}
	expect("wrong accesses", wrong, 0);
}
