/* SPDX-License-Identifier: Apache-2.0 */
/*
 * REP STOS and REP MOVS with constant counts, as compilers clear and copy small structures: within a page,
 * across pages that are no neighbours in memory, with source and destination that overlap, backwards, with
 * flags that must survive, and where a page is missing half-way.
 */
#include "lib.h"

#define SPAN 8192u /* the window's first two pages */

static uint8_t want[SPAN] __attribute__((aligned(8))), init[SPAN] __attribute__((aligned(8)));

struct state {
	uint64_t rax, rcx, rsi, rdi, flags;
};

/* `mov ecx, count` and the instruction, in one block, between STC and PUSHF. */
#define CASE(name, insn, count)                                                                              \
	static void name(struct state *s)                                                                    \
	{                                                                                                    \
		__asm__ volatile("stc; mov $" #count ", %%ecx; rep " insn "; pushf; pop %0"                  \
				 : "=&r"(s->flags), "=c"(s->rcx), "+S"(s->rsi), "+D"(s->rdi)                 \
				 : "a"(s->rax)                                                               \
				 : "memory", "cc");                                                          \
	}
#define CASES(n)                                                                                             \
	CASE(stosb_##n, "stosb", n)                                                                          \
	CASE(stosw_##n, "stosw", n)                                                                          \
	CASE(stosl_##n, "stosl", n)                                                                          \
	CASE(stosq_##n, "stosq", n)                                                                          \
	CASE(movsb_##n, "movsb", n)                                                                          \
	CASE(movsw_##n, "movsw", n)                                                                          \
	CASE(movsl_##n, "movsl", n)                                                                          \
	CASE(movsq_##n, "movsq", n)
CASES(0)
CASES(1)
CASES(5)
CASES(16)
CASES(17)

#define ROW(n)                                                                                               \
	{                                                                                                    \
		n,                                                                                           \
		{                                                                                            \
			stosb_##n, stosw_##n, stosl_##n, stosq_##n, movsb_##n, movsw_##n, movsl_##n,         \
			    movsq_##n                                                                        \
		}                                                                                            \
	}
static const struct {
	unsigned count;
	void (*fn[8])(struct state *);
} rows[] = { ROW(0), ROW(1), ROW(5), ROW(16), ROW(17) };

static uint8_t *window(unsigned off)
{
	return (uint8_t *)WINDOW + off;
}

static void fill_window(void)
{
	for (unsigned i = 0; i < SPAN; i += 8)
		*(volatile uint64_t *)window(i) = *(uint64_t *)(want + i) = *(uint64_t *)(init + i);
}

static bool same(void)
{
	for (unsigned i = 0; i < SPAN; i += 8)
		if (*(volatile uint64_t *)window(i) != *(uint64_t *)(want + i))
			return false;
	return true;
}

/* What the manual says, a byte at a time, in `want`. */
static void model(unsigned count, unsigned size, bool movs, unsigned from, unsigned to, uint64_t rax,
		  bool back)
{
	uint8_t unit[8];

	for (unsigned k = 0; k < count; k++) {
		unsigned step = back ? 0u - k * size : k * size;

		for (unsigned i = 0; i < size; i++)
			unit[i] = movs ? want[from + step + i] : (uint8_t)(rax >> 8 * i);
		for (unsigned i = 0; i < size; i++)
			want[to + step + i] = unit[i];
	}
}

static unsigned check(unsigned row, unsigned which, unsigned from, unsigned to, bool back)
{
	unsigned count = rows[row].count, size = 1u << (which & 3);
	uint64_t delta = (back ? 0 - (uint64_t)count : count) * size;
	bool movs = which & 4;
	struct state s = { .rax = 0x1122334455667788ull,
			   .rsi = (uint64_t)window(from),
			   .rdi = (uint64_t)window(to) };

	fill_window();
	model(count, size, movs, from, to, s.rax, back);
	if (back)
		__asm__ volatile("std");
	rows[row].fn[which](&s);
	__asm__ volatile("cld");
	return !same() || s.rcx || s.rdi != (uint64_t)window(to) + delta ||
	       s.rsi != (uint64_t)window(from) + (movs ? delta : 0) || !(s.flags & 1) ||
	       !(s.flags & 0x400) != !back;
}

static void clear_missing(uint64_t at)
{
	__asm__ volatile("mov $9, %%ecx; xor %%eax, %%eax; rep stosq" : "+D"(at)::"rax", "rcx", "memory");
}

static void copy_missing(uint64_t at)
{
	uint64_t from = WINDOW;

	__asm__ volatile("mov $9, %%ecx; rep movsq" : "+D"(at), "+S"(from)::"rcx", "memory");
}

static void missing(void (*fn)(uint64_t), const char *name)
{
	fill_window();
	map(1, 0, 0);
	expect(name, (uint64_t)try_call(fn, WINDOW + 4096 - 24), 14);
	expect("elements left", last.rcx, 6);
	expect("where", last.rdi, WINDOW + 4096);
	expect("error code", last.error, 2);
	expect("cr2", last_cr2, WINDOW + 4096);
	map(1, page_a, 3);
}

void guest_main(void)
{
	uint64_t seed = 7;
	unsigned wrong = 0, page_end = 0, backwards = 0, overlaps = 0;

	make_window();
	map(0, page_b, 3);
	map(1, page_a, 3);
	for (unsigned i = 0; i < SPAN; i++)
		init[i] = (uint8_t)next_random(&seed);
	for (unsigned row = 0; row < sizeof rows / sizeof *rows; row++)
		for (unsigned which = 0; which < 8; which++) {
			wrong += check(row, which, 256, 1024 + row, false);
			overlaps += check(row, which, 512, 513, false) + check(row, which, 520, 512, false);
			backwards +=
			    check(row, which, 1024, 2048, true) + check(row, which, 1024, 1025, true);
			for (unsigned d = 1; d <= 136; d += 9)
				page_end += check(row, which, 256, 4096 - d, false) +
					    check(row, which, 4096 - d, 256, false);
		}
	expect("within a page", wrong, 0);
	expect("overlapping", overlaps, 0);
	expect("backwards", backwards, 0);
	expect("across pages", page_end, 0);
	missing(clear_missing, "STOS into a missing page");
	missing(copy_missing, "MOVS into a missing page");
}
