/* SPDX-License-Identifier: Apache-2.0 */
/* Exceptions and what they push; double fault; system calls; canonical checks; LOCK; alignment. */
#include "lib.h"

static uint8_t user_stack[4096] __attribute__((aligned(4096)));

static void op_div(uint64_t x)
{
	__asm__ volatile("div %%cl" ::"a"(1), "c"(x) : "rdx");
}

static void op_ud(uint64_t x)
{
	(void)x;
	__asm__ volatile("ud2");
}

static void op_lock(uint64_t x)
{
	(void)x;
	__asm__ volatile(".byte 0xf0, 0x01, 0xc0"); /* lock add eax, eax */
}

static void op_read(uint64_t va)
{
	*(volatile uint64_t *)va;
}

static void op_push(uint64_t va)
{
	__asm__ volatile("mov %%rsp, %%rbx; mov %0, %%rsp; push %%rax; mov %%rbx, %%rsp" ::"r"(va) : "rbx");
}

static void op_jump(uint64_t va)
{
	((void (*)(void))va)();
}

static uint64_t rsp_before;

static void op_return(uint64_t va)
{
	__asm__ volatile("push %1; mov %%rsp, %0; ret" : "=m"(rsp_before) : "r"(va));
}

static void op_call(uint64_t va)
{
	__asm__ volatile("mov %%rsp, %0; call *%1" : "=m"(rsp_before) : "r"(va));
}

/* The flags of a sum, whose register goes on being used, before a store that faults. */
static void op_sum(uint64_t va)
{
	__asm__ volatile(
	    "mov $0x7fffffff, %%ecx; add $1, %%ecx; mov %%ecx, (%0); mov $5, %%ecx; add $1, %%ecx" ::"r"(va)
	    : "rcx", "cc", "memory");
}

/* And of DEC, which leaves the carry as it was. */
static void op_dec(uint64_t va)
{
	__asm__ volatile("mov $1, %%ecx; stc; dec %%ecx; mov %%ecx, (%0); xor %%ecx, %%ecx" ::"r"(va)
			 : "rcx", "cc", "memory");
}

static void op_ds(uint64_t sel)
{
	__asm__ volatile("mov %0, %%ds" ::"r"((uint32_t)sel));
}

static void op_int(uint64_t x)
{
	(void)x;
	__asm__ volatile("int $0x3e");
}

static void op_msr(uint64_t x)
{
	wrmsr(0xc0000100, x);
}

static void op_cr0(uint64_t x)
{
	WRITE_CR(0, x);
}

static void op_gate_gone(uint64_t x)
{
	uint64_t save = idt[16 * 6 + 5];

	(void)x;
	idt[16 * 6 + 5] = 0x0e; /* #UD's gate not present, and #NP's too: double fault */
	idt[16 * 11 + 5] = 0x0e;
	__asm__ volatile("ud2");
	idt[16 * 6 + 5] = (uint8_t)save;
}

static void user(uint64_t rflags)
{
	enter_user(WINDOW, WINDOW + 0x1ff0, rflags);
}

static int user_code(const char *bytes, unsigned n, uint64_t rflags)
{
	for (unsigned i = 0; i < n; i++)
		page_a[i] = (uint8_t)bytes[i];
	return try_call(user, rflags);
}
#define USER(s, fl) (uint64_t)(int64_t) user_code(s, sizeof s - 1, fl)

void guest_main(void)
{
	make_window();
	map(0, page_a, 7);
	map(1, user_stack, 7);
	expect("#DE", (uint64_t)try_call(op_div, 0), 0);
	expect("#DE on overflow", (uint64_t)try_call(op_div, 0), 0);
	expect("#UD", (uint64_t)try_call(op_ud, 0), 6);
	expect("RIP at the fault", *(uint16_t *)last.rip, 0x0b0f);
	expect("RF in the pushed flags", last.rflags >> 16 & 1, 1);
	expect("LOCK on a register", (uint64_t)try_call(op_lock, 0), 6);
	expect("non-canonical read", (uint64_t)try_call(op_read, 0x800000000000), 13);
	expect("non-canonical push", (uint64_t)try_call(op_push, 0x800000000100), 12);
	expect("non-canonical jump", (uint64_t)try_call(op_jump, 0x800000000000), 13);
	expect("non-canonical return", (uint64_t)try_call(op_return, 0x800000000000), 13);
	expect("RIP is that of RET", *(uint8_t *)last.rip, 0xc3);
	expect("and RSP as before it", last.rsp, rsp_before);
	expect("non-canonical call", (uint64_t)try_call(op_call, 0x800000000000), 13);
	expect("RIP is that of CALL", *(uint8_t *)last.rip, 0xff);
	expect("and RSP as before it", last.rsp, rsp_before);
	expect("store after a sum", (uint64_t)try_call(op_sum, 0x800000000000), 13);
	expect("its flags: OF, SF, AF, PF", last.rflags & 0x8d5, 0x894);
	expect("store after DEC", (uint64_t)try_call(op_dec, 0x800000000000), 13);
	expect("its flags: ZF, PF, CF", last.rflags & 0x8d5, 0x045);
	expect("selector beyond the GDT", (uint64_t)try_call(op_ds, 0x1230), 13);
	expect("its error code", last.error, 0x1230);
	expect("INT n without a gate's limit", (uint64_t)try_call(op_int, 0), 62);
	expect("non-canonical FS base", (uint64_t)try_call(op_msr, 1ull << 47), 13);
	expect("CR0 with PG and no PE", (uint64_t)try_call(op_cr0, READ_CR(0) & ~1ull), 13);
	expect("double fault", (uint64_t)try_call(op_gate_gone, 0), 8);
	idt[16 * 6 + 5] = 0x8e;
	idt[16 * 11 + 5] = 0x8e;
	/* User mode. */
	expect("HLT", USER("\xf4", 2), 13);
	expect("CLI with IOPL 0", USER("\xfa", 2), 13);
	expect("CLI with IOPL 3", USER("\xfa\xcc", 0x3002), 3);
	expect("INT 0x3e, whose gate has DPL 0", USER("\xcd\x3e", 2), 13);
	expect("its error code", last.error, 0x3e * 8 + 2);
	expect("INT 0x3f, DPL 3", USER("\xcd\x3f", 2), 63);
	expect("return address", last.rip, WINDOW + 2);
	expect("SS", last.ss, 0x2b);
	WRITE_CR(0, READ_CR(0) | 1 << 18);
	/* mov eax, [rsp-7] */
	expect("#AC", USER("\x8b\x44\x24\xf9\xcc", 0x40002), 17);
	expect("no #AC without the flag", USER("\x8b\x44\x24\xf9\xcc", 2), 3);
	WRITE_CR(0, READ_CR(0) & ~(1ull << 18));
	/* POPF in user mode does not change IF or IOPL: push 0x3200; popf; pushf; pop rax; int3 */
	expect("POPF", USER("\x68\x00\x32\x00\x00\x9d\x9c\x58\xcc", 2), 3);
	expect("keeps IF and IOPL", last.rax & 0x3200, 0);
	/* SYSCALL */
	wrmsr(0xc0000081, 0x0018001000000000ull | 0x0020ull << 48);
	wrmsr(0xc0000081, 0x10ull << 32 | 0x20ull << 48);
	wrmsr(0xc0000082, (uint64_t)try_fault);
	wrmsr(0xc0000084, 0x700);
	last_vector = 77;
	{
		/* The handler is try_fault itself, with the stack as try_call left it: mov rsp, [try_rsp];
		 * jmp. */
		static uint8_t entry[32];
		uint8_t *p = entry;
		uint32_t a = (uint32_t)(uint64_t)&try_rsp;

		*p++ = 0x48;
		*p++ = 0x8b;
		*p++ = 0x24;
		*p++ = 0x25;
		__builtin_memcpy(p, &a, 4);
		p += 4;
		*p++ = 0x48;
		*p++ = 0xc7;
		*p++ = 0xc0;
		a = (uint32_t)(uint64_t)try_fault;
		__builtin_memcpy(p, &a, 4);
		p += 4;
		*p++ = 0xff;
		*p++ = 0xe0;
		wrmsr(0xc0000082, (uint64_t)entry);
		expect("SYSCALL", USER("\x0f\x05", 2), 77);
	}
}
