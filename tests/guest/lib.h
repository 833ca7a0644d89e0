/* SPDX-License-Identifier: Apache-2.0 */
/* What guest test programs share: console, exceptions, page tables. One .c file each, which includes this. */
#ifndef SILL_GUEST_LIB_H
#define SILL_GUEST_LIB_H

#include <stdbool.h>
#include <stdint.h>

#include "print_hex.h"

struct frame {
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
	uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

int try_call(void (*fn)(uint64_t), uint64_t arg);
void enter_user(uint64_t rip, uint64_t rsp, uint64_t rflags);
void setup_idt(void);
void on_exception(struct frame *f);
void guest_main(void);
void ap_main(unsigned cpu);
extern char try_fault[];
extern uint64_t stubs[64], pml4[512], pd[512], gdt[];

uint64_t try_rsp;
int last_vector;
struct frame last;
uint64_t last_cr2;
unsigned count[64];
bool (*hook)(struct frame *f); /* true: handled, go on */

static uint8_t idt[4096] __attribute__((aligned(16)));

static inline void outb(uint16_t port, uint8_t v)
{
	__asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port) : "memory");
}

static inline uint8_t inb(uint16_t port)
{
	uint8_t v;

	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static void print(const char *s)
{
	for (; *s; s++)
		outb(0x3f8, (uint8_t)*s);
}

static void expect(const char *name, uint64_t got, uint64_t want)
{
	print(got == want ? "ok " : "FAIL ");
	print(name);
	if (got != want) {
		print(": got ");
		print_hex(got);
		print(", want ");
		print_hex(want);
	}
	print("\n");
}

void on_exception(struct frame *f)
{
	uint64_t cr2;

	__asm__ volatile("mov %%cr2, %0" : "=r"(cr2));
	count[f->vector & 63]++;
	if (hook && hook(f))
		return;
	last = *f;
	last_vector = (int)f->vector;
	last_cr2 = cr2;
	if (!try_rsp) {
		print("FAIL unexpected exception ");
		print_hex(f->vector);
		print(" at ");
		print_hex(f->rip);
		print("\n");
		__asm__ volatile("outw %%ax, %%dx" ::"a"(0x2000), "d"(0x604));
		for (;;)
			__asm__ volatile("hlt");
	}
	f->rip = (uint64_t)try_fault;
	f->cs = 0x10;
	f->ss = 0x18;
	f->rsp = try_rsp;
	f->rflags = 2;
}

static void set_gate(unsigned v, uint64_t to, unsigned ist, unsigned dpl)
{
	uint64_t *g = (uint64_t *)(idt + 16 * v);

	g[0] = (to & 0xffff) | 0x100000 | (uint64_t)ist << 32 | (0x8eull | dpl << 5) << 40 |
	       (to >> 16 & 0xffff) << 48;
	g[1] = to >> 32;
}

struct {
	uint16_t limit;
	uint64_t base;
} __attribute__((packed)) idtr = { sizeof idt - 1, (uint64_t)idt };

void setup_idt(void)
{
	for (unsigned i = 0; i < 64; i++)
		set_gate(i, stubs[i], i == 8 || i == 12 ? 1 : 0, i == 3 || i == 63 ? 3 : 0);
	__asm__ volatile("lidt %0" ::"m"(idtr));
}

#define READ_CR(n)                                                                                           \
	({                                                                                                   \
		uint64_t v_;                                                                                 \
		__asm__ volatile("mov %%cr" #n ", %0" : "=r"(v_));                                           \
		v_;                                                                                          \
	})
#define WRITE_CR(n, v) __asm__ volatile("mov %0, %%cr" #n ::"r"((uint64_t)(v)) : "memory")

static inline uint64_t rdmsr(uint32_t n)
{
	uint32_t a, d;

	__asm__ volatile("rdmsr" : "=a"(a), "=d"(d) : "c"(n));
	return a | (uint64_t)d << 32;
}

static inline void wrmsr(uint32_t n, uint64_t v)
{
	__asm__ volatile("wrmsr" ::"c"(n), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory");
}

/* ---- several processors ---- */

#define MAX_CPUS 8
extern volatile uint32_t cpus_up;
extern char ap_boot[], ap_boot_end[];
static void (*volatile job)(unsigned cpu);
static volatile uint32_t job_number, job_done;

static inline void relax(void)
{
	__asm__ volatile("pause" ::: "memory");
}

void ap_main(unsigned cpu)
{
	uint32_t seen = 0;

	for (;;) {
		while (job_number == seen)
			relax();
		seen = job_number;
		job(cpu);
		__atomic_fetch_add(&job_done, 1, __ATOMIC_SEQ_CST);
	}
}

static void apic_write(unsigned reg, uint32_t v)
{
	*(volatile uint32_t *)(0xfee00000ull + reg) = v;
}

/* CPUID.0BH's level of processors in the package. */
static unsigned cpus_present(void)
{
	uint32_t a = 0xb, b, c = 1, d;

	__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
	return b & 0xffff;
}

/* Starts the application processors, of which there are n - 1. */
static void start_cpus(unsigned n)
{
	for (char *to = (char *)0x8000, *p = ap_boot; p < ap_boot_end; p++)
		*(volatile char *)to++ = *p;
	apic_write(0xf0, 0x1ff);
	apic_write(0x300, 0xc4500); /* INIT, then start-up at 0x8000, to all others */
	apic_write(0x300, 0xc4608);
	while (cpus_up < n)
		relax();
}

/* Has all processors call fn, this one as number 0, and waits for the last to return. */
static void on_all_cpus(void (*fn)(unsigned cpu))
{
	job = fn;
	job_done = 0;
	__atomic_fetch_add(&job_number, 1, __ATOMIC_SEQ_CST);
	fn(0);
	while (job_done < cpus_up - 1)
		relax();
}

/* Waits until `cpus` processors are here. */
struct barrier {
	volatile uint32_t in, round;
};

static void meet(struct barrier *b, uint32_t n)
{
	uint32_t round = b->round;

	if (__atomic_add_fetch(&b->in, 1, __ATOMIC_SEQ_CST) == n) {
		b->in = 0;
		__atomic_fetch_add(&b->round, 1, __ATOMIC_SEQ_CST);
		return;
	}
	while (b->round == round)
		relax();
}

static inline uint64_t next_random(uint64_t *x)
{
	uint64_t z = (*x += 0x9e3779b97f4a7c15ull);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/* A window of 4 KiB pages at 1 GiB, entries made by the program; user access is up to them. */
#define WINDOW 0x40000000ull
static uint64_t window_pd[512] __attribute__((aligned(4096)));
static uint64_t window_pt[512] __attribute__((aligned(4096)));
static uint8_t page_a[4096] __attribute__((aligned(4096)));
static uint8_t page_b[4096] __attribute__((aligned(4096)));

static void make_window(void)
{
	uint64_t *pdpt = (uint64_t *)(pml4[0] & ~0xfffull);

	pdpt[1] = (uint64_t)window_pd | 7;
	window_pd[0] = (uint64_t)window_pt | 7;
	WRITE_CR(3, READ_CR(3));
}

static inline void invlpg(uint64_t va)
{
	__asm__ volatile("invlpg (%0)" ::"r"(va) : "memory");
}

static void map(unsigned page, const void *to, uint64_t bits)
{
	window_pt[page] = (uint64_t)to | bits;
	invlpg(WINDOW + page * 4096ull);
}

#endif
