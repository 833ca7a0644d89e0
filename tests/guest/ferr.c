/* SPDX-License-Identifier: Apache-2.0 */
/* x87 errors: #MF with CR0.NE; without it FERR#, IRQ 13, port F0 and IGNNE# (SDM 1 8.7, D.2). */
#include "lib.h"

#define APIC   ((volatile uint32_t *)0xfee00000)
#define REG(x) APIC[(x) / 4]
#define IOAPIC ((volatile uint32_t *)0xfec00000)

#define IRQ13 45
#define TIMER 46

#define FSW_ZE 0x0004
#define FSW_ES 0x0080

static volatile uint64_t at; /* where IRQ 13 came */
static volatile uint64_t timer_at;
static volatile uint16_t seen; /* the status word in the handler */
static volatile bool clears, writes_f0, waits;

static uint16_t status(void)
{
	uint16_t v;

	__asm__ volatile("fnstsw %0" : "=a"(v));
	return v;
}

static void ioapic(unsigned index, uint32_t v)
{
	IOAPIC[0] = index;
	IOAPIC[4] = v;
}

static void route(bool masked)
{
	ioapic(0x10 + 2 * 13, IRQ13 | (masked ? 0x10000 : 0));
}

static bool on_irq(struct frame *f)
{
	if (f->vector == IRQ13) {
		at = f->rip;
		seen = status();
		if (writes_f0)
			outb(0xf0, 0);
		if (waits) /* IGNNE# lets it */
			__asm__ volatile("fwait; fld1; fstp %st(0); fwait");
		if (clears)
			__asm__ volatile("fnclex");
		REG(0xb0) = 0;
		return true;
	}
	return false;
}

static void set_ne(bool on)
{
	WRITE_CR(0, on ? READ_CR(0) | 0x20 : READ_CR(0) & ~0x20ull);
}

/* 1 / 0 with that unmasked: the error waits. */
static void divide(void)
{
	static const uint16_t cw = 0x37b;

	__asm__ volatile("fninit; fldcw %0; fld1; fldz; fdivrp" ::"m"(cw));
}

static void fwait_at(uint64_t *label)
{
	__asm__ volatile("lea 1f(%%rip), %%rax; mov %%rax, %0; 1: fwait" : "=m"(*label)::"rax");
}

static void fault_fwait(uint64_t where)
{
	divide();
	fwait_at((uint64_t *)where);
}

static void sti(void)
{
	__asm__ volatile("sti; nop");
}

static void cli(void)
{
	__asm__ volatile("cli");
}

static void reset_counts(void)
{
	count[IRQ13] = count[TIMER] = count[16] = 0;
	at = timer_at = 0;
}

static void numeric_errors(void)
{
	uint64_t label = 0;

	set_ne(true);
	reset_counts();
	expect("NE: #MF", (uint64_t)try_call(fault_fwait, (uint64_t)&label), 16);
	expect("NE: of the instruction that waits", last.rip, label);
	expect("NE: no IRQ 13", count[IRQ13], 0);
	__asm__ volatile("fninit");
}

/* The usual handler: many times, so that translated code is what meets the error. */
static void irq13(void)
{
	uint64_t label = 0, wrong = 0;

	set_ne(false);
	reset_counts();
	clears = writes_f0 = true;
	sti();
	for (unsigned i = 0; i < 2000; i++) {
		divide();
		fwait_at(&label);
		wrong += at != label || !(seen & FSW_ES) || (status() & FSW_ES) || count[IRQ13] != i + 1;
	}
	cli();
	expect("no NE: IRQ 13 each time", count[IRQ13], 2000);
	expect("no NE: before the instruction that waits", wrong, 0);
	expect("no NE: no #MF", count[16], 0);
}

static void other_waiters(void)
{
	uint64_t label;
	static double x, one = 1;
	static uint32_t env[7];

	reset_counts();
	sti();
	divide();
	__asm__ volatile("lea 1f(%%rip), %0; 1: fldl %1; fstpl %2" : "=r"(label) : "m"(one), "m"(x));
	expect("a load waits", at, label);
	expect("and is executed afterwards", *(uint64_t *)&x, 0x3ff0000000000000);
	divide();
	__asm__ volatile("lea 1f(%%rip), %0; 1: movd %%eax, %%mm0; emms" : "=r"(label));
	expect("MMX waits", at, label);
	expect("two interrupts", count[IRQ13], 2);
	divide();
	__asm__ volatile("movaps %%xmm0, %%xmm1; fnstsw %%ax; fnstenv %0; fnclex" : "=m"(env)::"rax");
	__asm__ volatile("fwait");
	expect("others do not wait", count[IRQ13], 2);
	expect("the environment shows the error", env[1] & (FSW_ES | FSW_ZE), FSW_ES | FSW_ZE);
	cli();
}

/* Between the write to F0 and the end of the error, nothing waits; a new error is a new interrupt. */
static void ignne(void)
{
	uint64_t label;
	static double x, two = 2;
	static const uint16_t masked = 0x37f;

	reset_counts();
	clears = false;
	waits = true;
	sti();
	divide();
	fwait_at(&label);
	expect("in the handler and behind it nothing waits", count[IRQ13], 1);
	__asm__ volatile("fldl %1; fadd %%st(0); fstpl %0" : "=m"(x) : "m"(two));
	expect("arithmetic in spite of the error", *(uint64_t *)&x, 0x4010000000000000);
	expect("which is still there", status() & (FSW_ES | FSW_ZE), FSW_ES | FSW_ZE);
	/* Masking it is enough. */
	__asm__ volatile("fldcw %0" ::"m"(masked));
	expect("masked", status() & (FSW_ES | FSW_ZE), FSW_ZE);
	divide();
	fwait_at(&label);
	expect("a new error interrupts", count[IRQ13], 2);
	__asm__ volatile("fnclex");
	divide();
	fwait_at(&label);
	expect("and so does another", count[IRQ13], 3);
	__asm__ volatile("fninit");
	waits = false;
	clears = true;
	cli();
}

static bool on_timer_clears(struct frame *f)
{
	if (f->vector != TIMER)
		return on_irq(f);
	timer_at = f->rip;
	__asm__ volatile("fnclex");
	outb(0xf0, 0);
	REG(0xb0) = 0;
	return true;
}

/* IRQ 13 masked: the processor stands before the instruction, until another interrupt comes. */
static void stands_until_interrupted(void)
{
	uint64_t label = 0;

	reset_counts();
	route(true);
	hook = on_timer_clears;
	REG(0x320) = TIMER;
	REG(0x380) = 20000000;
	sti();
	divide();
	fwait_at(&label);
	cli();
	expect("stood until the timer", timer_at, label);
	expect("IRQ 13 was masked", count[IRQ13], 0);
	hook = on_irq;
	route(false);
}

void guest_main(void)
{
	hook = on_irq;
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	REG(0xf0) = 0x1ff;
	REG(0x3e0) = 0xb;
	ioapic(0x11 + 2 * 13, 0);
	route(false);
	numeric_errors();
	irq13();
	other_waiters();
	ignne();
	stands_until_interrupted();
	irq13();
	numeric_errors();
}
