/* SPDX-License-Identifier: Apache-2.0 */
/* Page faults' error codes, A and D, NX, WP, SMEP, SMAP, stale and flushed TLB entries, PCID. */
#include "lib.h"

static volatile uint64_t *const w = (volatile uint64_t *)WINDOW;

static void read_at(uint64_t va)
{
	*(volatile uint64_t *)va;
}

static void write_at(uint64_t va)
{
	*(volatile uint64_t *)va = 5;
}

static void run_at(uint64_t va)
{
	((void (*)(void))va)();
}

static void user_at(uint64_t va)
{
	enter_user(va, WINDOW + 0x2ff0, 2);
}

static uint64_t fault(void (*fn)(uint64_t), uint64_t va)
{
	last.error = 0x999;
	return try_call(fn, va) == 14 ? last.error : (uint64_t)last_vector << 32 | 0x999;
}

void guest_main(void)
{
	make_window();
	page_a[0] = 0xc3; /* ret */
	page_b[0] = 0xcc;
	expect("read of nothing", fault(read_at, WINDOW + 0x5008), 0);
	expect("its CR2", last_cr2, WINDOW + 0x5008);
	expect("write of nothing", fault(write_at, WINDOW + 0x5000), 2);
	expect("execution of nothing", fault(run_at, WINDOW + 0x5000), 0x10);
	map(0, page_a, 1);
	expect("write to read-only", fault(write_at, WINDOW), 3);
	expect("A after reads only", (read_at(WINDOW), window_pt[0] & 0x60), 0x20);
	WRITE_CR(0, READ_CR(0) & ~0x10000ull);
	expect("WP=0 lets the supervisor write", (uint64_t)try_call(write_at, WINDOW), (uint64_t)-1);
	expect("which sets D", window_pt[0] & 0x40, 0x40);
	WRITE_CR(0, READ_CR(0) | 0x10000);
	expect("WP=1 again", fault(write_at, WINDOW), 3);
	page_a[0] = 0xc3;
	map(0, page_a, 3 | 1ull << 63);
	expect("NX", fault(run_at, WINDOW), 0x11);
	map(0, page_a, 3);
	expect("no NX", (uint64_t)try_call(run_at, WINDOW), (uint64_t)-1);
	map(0, page_a, 3 | 1ull << 51);
	expect("reserved bit", fault(read_at, WINDOW), 9);
	/* From user mode. */
	map(0, page_a, 3);
	map(2, page_b, 7);
	expect("user at a supervisor page", fault(user_at, WINDOW), 0x15);
	map(1, page_b, 7);
	expect("user INT3", (uint64_t)try_call(user_at, WINDOW + 0x1000), 3);
	expect("with CS", last.cs, 0x33);
	/* SMEP and SMAP. */
	WRITE_CR(4, READ_CR(4) | 1 << 20);
	expect("SMEP", fault(run_at, WINDOW + 0x1000), 0x11);
	WRITE_CR(4, READ_CR(4) | 1 << 21);
	expect("SMAP read", fault(read_at, WINDOW + 0x1000), 1);
	expect("SMAP write", fault(write_at, WINDOW + 0x1008), 3);
	__asm__ volatile("stac");
	read_at(WINDOW + 0x1000);
	__asm__ volatile("clac");
	expect("SMAP again after CLAC", fault(read_at, WINDOW + 0x1000), 1);
	WRITE_CR(4, READ_CR(4) & ~(3ull << 20));
	/* The TLB: a changed entry counts after INVLPG, after a CR3 write (not if global), after toggling
	 * PGE. */
	*(uint64_t *)page_a = 0xaaaa;
	*(uint64_t *)page_b = 0xbbbb;
	map(3, page_a, 3);
	expect("first mapping", w[0x600], 0xaaaa);
	map(3, page_b, 3);
	expect("after INVLPG", w[0x600], 0xbbbb);
	window_pt[3] = (uint64_t)page_a | 3;
	WRITE_CR(3, READ_CR(3));
	expect("after CR3", w[0x600], 0xaaaa);
	map(3, page_a, 0x103);
	(void)w[0x600];
	window_pt[3] = (uint64_t)page_b | 0x103;
	WRITE_CR(4, READ_CR(4) ^ 0x80);
	WRITE_CR(4, READ_CR(4) ^ 0x80);
	expect("global, after CR4.PGE", w[0x600], 0xbbbb);
	/* D is set by a write after reads. */
	map(4, page_a, 3);
	(void)w[0x800];
	w[0x800] = 1;
	expect("A and D", window_pt[4] & 0x60, 0x60);
	/* A write to a page made read-only after it was written. */
	map(4, page_a, 1);
	expect("made read-only", fault(write_at, WINDOW + 0x4000), 3);
	expect("access across into nothing", fault(read_at, WINDOW + 0x4ffc), 0);
	expect("its CR2", last_cr2, WINDOW + 0x5000);
	/* PCID: entries of one are not seen by another, and survive. */
	WRITE_CR(4, READ_CR(4) | 1 << 17);
	map(6, page_a, 3);
	*(uint64_t *)page_a = 0x1111;
	*(uint64_t *)page_b = 0x2222;
	expect("PCID 0", w[0xc00], 0x1111);
	WRITE_CR(3, READ_CR(3) | 1);
	window_pt[6] = (uint64_t)page_b | 3;
	expect("PCID 1 walks anew", w[0xc00], 0x2222);
	WRITE_CR(3, READ_CR(3) & ~0xfffull);
	expect("PCID 0 flushed by its load", w[0xc00], 0x2222);
	WRITE_CR(3, READ_CR(3) & ~0xfffull);
	WRITE_CR(4, READ_CR(4) & ~(1ull << 17));
}
