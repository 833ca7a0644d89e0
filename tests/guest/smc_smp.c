/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Code that another processor changes (SDM 3A 9.1.3), with the serialising instruction that the manual asks
 * for, by INT3 patching, which needs none between its steps, and by a device.
 */
#include "lib.h"

typedef uint32_t (*code)(void);

#define TIMES 160

static volatile uint32_t turn, wrong, stop, breakpoints;
static uint8_t *place; /* where it is written; called at page_a */
static struct barrier gate;

static void serialise(void)
{
	uint32_t a = 0, b, c = 0, d;

	__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d)::"memory");
}

static void make(uint8_t *p, uint32_t value)
{
	p[0] = 0xb8; /* mov eax, value; ret */
	__builtin_memcpy(p + 1, &value, 4);
	p[5] = 0xc3;
}

/* One writes, the others wait for the word that it is done, serialise, and must run what was written. */
static void handed_over(unsigned cpu)
{
	for (uint32_t i = 1; i <= TIMES; i++) {
		meet(&gate, cpus_up);
		if (cpu == i % cpus_up) {
			make(place, i * 0x01010101u);
			__atomic_store_n(&turn, i, __ATOMIC_RELEASE);
		}
		while (__atomic_load_n(&turn, __ATOMIC_ACQUIRE) != i)
			relax();
		serialise();
		if (((code)(uint64_t)page_a)() != i * 0x01010101u)
			__atomic_fetch_add(&wrong, 1, __ATOMIC_SEQ_CST);
	}
}

/*
 * A five-byte instruction is replaced under processors that run it, the way kernels do: INT3 over its first
 * byte, the rest, then the first byte. For who meets the INT3 its handler does what the instruction did. Each
 * must see old or new, no mixture.
 */
static bool in_its_place(struct frame *f)
{
	if (f->vector != 3)
		return false;
	__atomic_fetch_add(&breakpoints, 1, __ATOMIC_SEQ_CST);
	f->rax = 0x11111111;
	f->rip += 4;
	return true;
}

static volatile uint32_t acks, ack_round;

static void all_serialise(void)
{
	uint32_t round = ack_round + 1;

	acks = 0;
	__atomic_store_n(&ack_round, round, __ATOMIC_SEQ_CST);
	while (acks < cpus_up - 1)
		relax();
}

static void patched(unsigned cpu)
{
	uint32_t seen = ack_round;

	meet(&gate, cpus_up);
	if (cpu) {
		while (!stop) {
			uint32_t v;

			if (ack_round != seen) {
				seen = ack_round;
				serialise();
				__atomic_fetch_add(&acks, 1, __ATOMIC_SEQ_CST);
			}
			v = ((code)(uint64_t)page_a)();
			if (v != 0x11111111 && v != 0x22222222)
				__atomic_fetch_add(&wrong, 1, __ATOMIC_SEQ_CST);
		}
		/* The last change is everybody's by now. */
		serialise();
		if (((code)(uint64_t)page_a)() != 0x22222222)
			__atomic_fetch_add(&wrong, 1, __ATOMIC_SEQ_CST);
		return;
	}
	for (unsigned i = 0; i < TIMES / 5; i++) {
		*(volatile uint8_t *)place = 0xcc;
		all_serialise();
		for (unsigned k = 1; k < 5; k++)
			((volatile uint8_t *)place)[k] = i & 1 ? 0x22 : 0x11;
		all_serialise();
		*(volatile uint8_t *)place = 0xb8;
		all_serialise();
	}
	stop = 1;
}

/* fw_cfg's DMA (Linux, Documentation/firmware-guide; QEMU, docs/specs/fw_cfg): the signature, into code. */
static uint32_t by_device(void *to)
{
	static struct {
		uint32_t control, length;
		uint64_t address;
	} __attribute__((packed, aligned(16))) c;

	c.control = __builtin_bswap32(0u << 16 | 8 | 2); /* select item 0, read */
	c.length = __builtin_bswap32(4);
	c.address = __builtin_bswap64((uint64_t)to);
	__asm__ volatile("outl %0, %1" ::"a"(0), "d"((uint16_t)0x514) : "memory");
	__asm__ volatile("outl %0, %1" ::"a"(__builtin_bswap32((uint32_t)(uint64_t)&c)), "d"((uint16_t)0x518)
			 : "memory");
	while (*(volatile uint32_t *)&c.control & ~__builtin_bswap32(1))
		relax();
	return *(volatile uint32_t *)&c.control;
}

static void run_dma_code(unsigned cpu)
{
	uint32_t want = 0x554d4551; /* "QEMU" */

	make(page_a, 5);
	for (unsigned i = 0; i < 50; i++) {
		meet(&gate, cpus_up);
		if (!cpu)
			make(page_a, i);
		meet(&gate, cpus_up);
		serialise();
		if (((code)(uint64_t)page_a)() != i)
			__atomic_fetch_add(&wrong, 1, __ATOMIC_SEQ_CST);
		meet(&gate, cpus_up);
		if (!cpu && by_device(page_a + 1))
			wrong += 1000;
		meet(&gate, cpus_up);
		serialise();
		if (((code)(uint64_t)page_a)() != want)
			__atomic_fetch_add(&wrong, 1, __ATOMIC_SEQ_CST);
	}
}

/*
 * A page behind code is data: what looks like code that goes on in it, but is never reached, must not make
 * stores to it slow for long.
 */
static uint8_t beside[3 * 4096] __attribute__((aligned(4096)));

static void run_to_the_end(unsigned cpu)
{
	/* ret; xor eax, eax; jz to the ret; the first byte of an instruction */
	static const uint8_t insns[] = { 0xc3, 0x31, 0xc0, 0x74, 0xfb, 0x62 };
	uint8_t *end = beside + 4096 - sizeof insns;

	if (!cpu)
		for (unsigned i = 0; i < sizeof insns; i++)
			((volatile uint8_t *)end)[i] = insns[i];
	meet(&gate, cpus_up);
	serialise();
	if (cpu == 1)
		((code)(uint64_t)(end + 1))();
	meet(&gate, cpus_up);
}

static uint64_t store_time(volatile uint8_t *p)
{
	uint64_t best = ~0ull, t;

	for (unsigned i = 0; i < 10; i++) {
		t = __builtin_ia32_rdtsc();
		for (unsigned k = 0; k < 10000; k++)
			p[k & 0xff] = (uint8_t)k;
		t = __builtin_ia32_rdtsc() - t;
		best = t < best ? t : best;
	}
	return best;
}

static void stores_beside(void)
{
	uint64_t there, elsewhere;

	for (volatile uint8_t *p = beside; p < beside + sizeof beside; p++)
		*p = 0xff;
	on_all_cpus(run_to_the_end);
	there = store_time(beside + 4096);
	elsewhere = store_time(beside + 2 * 4096);
	expect("stores beside code", there > 20 * elsewhere ? there / elsewhere : 0, 0);
}

void guest_main(void)
{
	make_window();
	map(3, page_a, 3);
	start_cpus(cpus_present());
	place = page_a;
	on_all_cpus(handed_over);
	expect("handed over", wrong, 0);
	place = (uint8_t *)WINDOW + 3 * 4096;
	turn = wrong = 0;
	on_all_cpus(handed_over);
	expect("handed over, written elsewhere", wrong, 0);
	for (unsigned k = 0; k < 2; k++) {
		make(page_a, 0x22222222);
		wrong = stop = 0;
		place = k ? (uint8_t *)WINDOW + 3 * 4096 : page_a;
		hook = in_its_place;
		on_all_cpus(patched);
		hook = 0;
		expect(k ? "INT3 patching, written elsewhere" : "INT3 patching", wrong, 0);
	}
	print(breakpoints ? "breakpoints were met\n" : "no breakpoint was met\n");
	wrong = 0;
	on_all_cpus(run_dma_code);
	expect("code by DMA", wrong, 0);
	stores_beside();
}
