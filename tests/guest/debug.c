/* SPDX-License-Identifier: Apache-2.0 */
/* Single-step and the debug registers. */
#include "lib.h"

static volatile unsigned steps;
static volatile uint64_t dr6, where[64];
static uint64_t watched;

#define READ_DR6()                                                                                           \
	({                                                                                                   \
		uint64_t v_;                                                                                 \
		__asm__ volatile("mov %%dr6, %0" : "=r"(v_));                                                \
		v_;                                                                                          \
	})

static bool on_debug(struct frame *f)
{
	if (f->vector != 1)
		return false;
	dr6 = READ_DR6();
	__asm__ volatile("mov %0, %%dr6" ::"r"(0xffff0ff0ull));
	where[steps++ & 63] = f->rip;
	f->rflags |= 0x10000;
	return true;
}

static void set_dr7(uint64_t v)
{
	__asm__ volatile("mov %0, %%dr7" ::"r"(v));
}

static void __attribute__((noinline)) target(void)
{
	__asm__ volatile("nop; nop");
}

static void gd(uint64_t x)
{
	(void)x;
	READ_DR6();
}

void guest_main(void)
{
	uint64_t ss = 0x18;

	hook = on_debug;
	__asm__ volatile(
	    "pushf; orl $0x100, (%%rsp); popf; nop; nop; nop; pushf; andl $~0x100, (%%rsp); popf" ::
		: "memory", "cc");
	expect("steps", steps, 6);
	expect("DR6.BS", dr6 & 0x4000, 0x4000);
	steps = 0;
	/* MOV SS holds the trap back by one instruction. */
	__asm__ volatile(
	    "pushf; orl $0x100, (%%rsp); popf; mov %0, %%ss; nop; nop; pushf; andl $~0x100, (%%rsp); popf" ::
		"r"(ss)
	    : "memory", "cc");
	expect("steps with MOV SS", steps, 5);
	steps = 0;
	__asm__ volatile("mov %0, %%dr0" ::"r"(target));
	set_dr7(0x402);
	target();
	target();
	expect("code breakpoints", steps, 2);
	expect("at", where[0], (uint64_t)target);
	expect("DR6.B0", dr6 & 0xf, 1);
	set_dr7(0x400);
	steps = 0;
	__asm__ volatile("mov %0, %%dr1" ::"r"(&watched));
	set_dr7(0x400 | 8 | 1 << 20 | 3 << 22); /* writes, 4 bytes */
	*(volatile uint64_t *)&watched = 1;
	(void)*(volatile uint64_t *)&watched;
	expect("data breakpoint on writes", steps, 1);
	expect("DR6.B1", dr6 & 0xf, 2);
	set_dr7(0x400 | 8 | 3 << 20 | 3 << 22);
	(void)*(volatile uint64_t *)&watched;
	expect("on reads", steps, 2);
	__asm__ volatile("push %%rcx; lock incl (%0); pop %%rcx" ::"r"(&watched) : "memory", "cc");
	expect("on a locked operation", steps, 3);
	set_dr7(0x400);
	steps = 0;
	set_dr7(0x2400);
	hook = 0;
	expect("general detect", (uint64_t)try_call(gd, 0), 1);
	expect("DR6.BD", READ_DR6() & 0x2000, 0x2000);
}
