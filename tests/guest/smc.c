/* SPDX-License-Identifier: Apache-2.0 */
/* Code that changes: by ordinary stores, string stores, locked operations, through another mapping, across
 * pages. */
#include "lib.h"

typedef uint32_t (*code)(void);

static void make(uint8_t *p, uint32_t value)
{
	p[0] = 0xb8; /* mov eax, value; ret */
	__builtin_memcpy(p + 1, &value, 4);
	p[5] = 0xc3;
}

static uint8_t two_pages[8192] __attribute__((aligned(4096)));

void guest_main(void)
{
	uint8_t *p = page_a;
	code f = (code)(uint64_t)p;
	uint32_t r;

	make_window();
	make(p, 1);
	expect("first", f(), 1);
	make(p, 2);
	expect("store", f(), 2);
	for (uint32_t i = 0; i < 1000; i++) {
		make(p, i);
		if (f() != i) {
			expect("a thousand times", f(), i);
			return;
		}
	}
	expect("a thousand times", 0, 0);
	{
		static const uint8_t other[6] = { 0xb8, 0x44, 0x33, 0x22, 0x11, 0xc3 };
		void *d = p;
		const void *s = other;
		uint64_t n = 6;

		__asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n)::"memory");
		expect("REP MOVS", f(), 0x11223344);
	}
	{
		void *d = p + 1;
		uint64_t n = 4;

		__asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(0x5a) : "memory");
		expect("REP STOS", f(), 0x5a5a5a5a);
	}
	{
		uint32_t old = 0x5a5a5a5a;

		__asm__ volatile("lock cmpxchgl %2, %1"
				 : "+a"(old), "+m"(*(uint32_t *)(p + 1))
				 : "r"(77)
				 : "memory");
		expect("LOCK CMPXCHG", f(), 77);
		__asm__ volatile("lock xaddl %0, %1" : "+r"(old), "+m"(*(uint32_t *)(p + 1))::"memory");
		expect("LOCK XADD", f(), 0x5a5a5a5a + 77);
	}
	map(7, page_a, 3);
	make((uint8_t *)WINDOW + 0x7000, 99);
	expect("through another mapping", f(), 99);
	make(p, 100);
	expect("the other mapping sees it", ((code)(WINDOW + 0x7000))(), 100);
	/* An instruction across two pages, each half changed. */
	for (unsigned k = 1; k < 5; k++) {
		uint8_t *q = two_pages + 4096 - k;

		make(q, 0x01010101);
		r = ((code)(uint64_t)q)();
		expect("across pages", r, 0x01010101);
		q[1] = 2;
		expect("first half", ((code)(uint64_t)q)(), 0x01010102);
		q[4] = 3;
		expect("second half", ((code)(uint64_t)q)(), 0x03010102);
	}
	/* The second page mapped elsewhere: the same bytes before it, others in it. */
	for (unsigned i = 0; i < 4096; i++)
		page_b[i] = two_pages[4096 + i];
	map(8, two_pages, 3);
	map(9, two_pages + 4096, 3);
	{
		code g = (code)(WINDOW + 0x9000 - 4);

		r = g();
		page_b[0] = 9;
		map(9, page_b, 3);
		expect("second page remapped", g() >> 24, 9);
		/* The same for code that begins long before the page's end: 40 NOPs in front. */
		for (unsigned i = 0; i < 40; i++)
			two_pages[4096 - 44 + i] = 0x90;
		two_pages[4096] = 5;
		g = (code)(WINDOW + 0x9000 - 44);
		for (unsigned i = 0; i < 10; i++)
			r = g();
		expect("from before", r >> 24, 9);
		map(9, two_pages + 4096, 3); /* nothing is written any more */
		expect("second page remapped, from before", g() >> 24, 5);
	}
	/* The block itself: its next instruction changes. mov byte [rip+1], 7; mov eax, 0; ret */
	{
		static const uint8_t self[] = { 0xc6, 0x05, 1, 0, 0, 0, 7, 0xb8, 0, 0, 0, 0, 0xc3 };

		for (unsigned round = 0; round < 3; round++) {
			for (unsigned i = 0; i < sizeof self; i++)
				p[i] = self[i];
			expect("same block", f(), 7);
		}
	}
	/* The same by a repeated string instruction: mov ecx,4; lea rdi,[rip+5]; mov al,1; rep stosb; mov
	 * eax,0; ret */
	{
		static const uint8_t self[] = { 0xb9, 4,    0, 0,    0,    0x48, 0x8d, 0x3d, 5, 0, 0,
						0,    0xb0, 1, 0xf3, 0xaa, 0xb8, 0,    0,    0, 0, 0xc3 };

		for (unsigned i = 0; i < sizeof self; i++)
			p[i] = self[i];
		__asm__ volatile("call *%1" : "=a"(r) : "r"(p) : "rcx", "rdi", "memory");
		expect("same block by REP STOS", r, 0x01010101);
	}
}
