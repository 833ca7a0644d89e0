/* SPDX-License-Identifier: Apache-2.0 */
/* The local APIC's timer and self-interrupts, priorities, interrupt shadows. */
#include "lib.h"

#define APIC   ((volatile uint32_t *)0xfee00000)
#define REG(x) APIC[(x) / 4]

static volatile uint64_t order[16], at;
static volatile unsigned n;

static bool on_irq(struct frame *f)
{
	if (f->vector < 32)
		return false;
	order[n++ & 15] = f->vector;
	at = f->rip;
	REG(0xb0) = 0;
	return true;
}

static void wait_for(unsigned vector, unsigned times)
{
	for (uint64_t i = 0; i < 2000000000 && count[vector] < times; i++)
		__asm__ volatile("sti; hlt; cli");
}

static void self_ipi(unsigned vector)
{
	REG(0x300) = 0x40000 | vector;
}

/* Interrupts that arrive while STI runs, rather than wait for it, respect its shadow too. */
static void shadow_race(void)
{
	uint64_t start = count[43], early = 0, behind;

	REG(0x320) = 43 | 0x20000;
	REG(0x380) = 500000;
	for (uint64_t i = 0; i < 200000000 && count[43] < start + 200; i++) {
		at = 0;
		__asm__ volatile(
		    "lea 1f(%%rip), %0; .rept 20; nop; .endr; sti; 1: nop; .rept 20; nop; .endr; cli"
		    : "=r"(behind)::"memory");
		early += at == behind;
	}
	REG(0x320) = 0x10000;
	expect("interrupts all the while", count[43] >= start + 200, 1);
	expect("none directly behind STI", early, 0);
}

static __attribute__((noinline)) uint64_t rdtsc(void)
{
	uint32_t a, d;

	__asm__ volatile("rdtsc" : "=a"(a), "=d"(d));
	return a | (uint64_t)d << 32;
}

/* The same RDTSC before and after the counter is moved (SDM 3B 18.17.3). */
static void tsc_moves(void)
{
	uint64_t before = rdtsc(), now;

	for (unsigned i = 0; i < 1000; i++)
		before = rdtsc();
	wrmsr(0x10, 1000);
	now = rdtsc();
	expect("TSC as written", now >= 1000 && now < 1ull << 40, 1);
	expect("TSC_ADJUST moves with it", rdmsr(0x3b) != 0, 1);
	wrmsr(0x3b, 0);
	now = rdtsc();
	expect("back by TSC_ADJUST", now > before && now - before < 1ull << 40, 1);
}

void guest_main(void)
{
	uint64_t r;

	hook = on_irq;
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	REG(0xf0) = 0x1ff;
	REG(0x3e0) = 0xb;
	REG(0x320) = 40;
	REG(0x380) = 100000;
	wait_for(40, 1);
	expect("timer, one-shot", count[40], 1);
	expect("has run out", REG(0x390), 0);
	REG(0x320) = 41 | 0x20000;
	REG(0x380) = 100000;
	wait_for(41, 5);
	REG(0x380) = 0;
	expect("timer, periodic", count[41] >= 5, 1);
	REG(0x320) = 42 | 0x40000;
	wrmsr(0x6e0, rdtsc() + 1000000);
	wait_for(42, 1);
	expect("timer, TSC deadline", count[42], 1);
	expect("deadline is cleared", rdmsr(0x6e0), 0);
	n = 0;
	self_ipi(0x31);
	self_ipi(0x3c);
	self_ipi(0x35);
	expect("nothing with IF clear", n, 0);
	__asm__ volatile("sti; nop; nop; nop; nop; cli");
	expect("three taken", n, 3);
	expect("highest first", order[0] << 16 | order[1] << 8 | order[2], 0x3c3531);
	n = 0;
	WRITE_CR(8, 3);
	self_ipi(0x35);
	__asm__ volatile("sti; nop; nop; cli");
	expect("held back by CR8", n, 0);
	WRITE_CR(8, 0);
	__asm__ volatile("sti; nop; nop; cli");
	expect("then taken", n, 1);
	n = 0;
	self_ipi(0x36);
	__asm__ volatile("lea 1f(%%rip), %0; sti; nop; 1: nop; cli" : "=r"(r));
	expect("STI's shadow is one instruction", at, r);
	n = 0;
	self_ipi(0x37);
	__asm__ volatile("sti; cli; nop; nop");
	expect("STI; CLI lets nothing in", n, 0);
	__asm__ volatile("lea 1f(%%rip), %0; mov %%ss, %%eax; sti; mov %%eax, %%ss; nop; 1: nop; cli"
			 : "=r"(r)::"rax");
	expect("taken after MOV SS's successor", n, 1);
	shadow_race();
	tsc_moves();
}
