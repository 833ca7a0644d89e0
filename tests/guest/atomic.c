/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locked operations of four processors on one operand: aligned, across a cache line, and across two pages
 * that are no neighbours in memory.
 */
#include "lib.h"

static uint64_t *at;
static uint32_t failures, times;
static uint8_t far_page[4096] __attribute__((aligned(4096)));

static void add(unsigned cpu)
{
	(void)cpu;
	for (unsigned i = 0; i < times; i++) {
		uint64_t one = 1;

		switch (i & 3) {
		case 0:
			__asm__ volatile("lock incq %0" : "+m"(*at)::"memory", "cc");
			break;
		case 1:
			__asm__ volatile("lock xaddq %0, %1" : "+r"(one), "+m"(*at)::"memory", "cc");
			break;
		case 2:
			__asm__ volatile("lock addq $1, %0" : "+m"(*at)::"memory", "cc");
			break;
		default:
			for (;;) {
				uint64_t old = *(volatile uint64_t *)at, seen = old;

				__asm__ volatile("lock cmpxchgq %2, %1"
						 : "+a"(seen), "+m"(*at)
						 : "r"(old + 1)
						 : "memory", "cc");
				if (seen == old)
					break;
			}
		}
	}
}

/* Halves that are written together are found together. */
static void halves(unsigned cpu)
{
	for (unsigned i = 0; i < times / 2; i++) {
		uint64_t v = cpu * times + i;

		v |= v << 32;
		__asm__ volatile("xchgq %0, %1" : "+r"(v), "+m"(*at)::"memory");
		if (v >> 32 != (uint32_t)v)
			__atomic_fetch_add(&failures, 1, __ATOMIC_SEQ_CST);
	}
}

/* Bits 0..31 each flipped an even number of times, by bit operations across the boundary. */
static void flip(unsigned cpu)
{
	for (unsigned i = 0; i < times; i++)
		__asm__ volatile("lock btcq %1, %0"
				 : "+m"(*at)
				 : "r"((uint64_t)((i * 7 + cpu) & 63))
				 : "memory", "cc");
	for (unsigned i = 0; i < times; i++)
		__asm__ volatile("lock btcq %1, %0"
				 : "+m"(*at)
				 : "r"((uint64_t)((i * 7 + cpu) & 63))
				 : "memory", "cc");
}

static void all(const char *where, uint64_t p, uint32_t n)
{
	print("ok ");
	print(where);
	print("\n");
	at = (uint64_t *)p;
	times = n;
	*at = 0;
	on_all_cpus(add);
	expect("additions", *at, (uint64_t)times * cpus_up);
	*at = 0;
	failures = 0;
	on_all_cpus(halves);
	expect("exchanges torn", failures, 0);
	*at = 0x123456789abcdef0;
	on_all_cpus(flip);
	expect("bits flipped twice", *at, 0x123456789abcdef0);
}

void guest_main(void)
{
	make_window();
	map(0, page_a, 3);
	map(1, (uint64_t)far_page == (uint64_t)page_a + 4096 ? page_b : far_page, 3);
	start_cpus(cpus_present());
	all("aligned", WINDOW + 64, 4000);
	all("across a line", WINDOW + 128 - 3, 1000);
	for (unsigned k = 1; k < 8; k += 3)
		all("across a page", WINDOW + 4096 - k, 120);
}
