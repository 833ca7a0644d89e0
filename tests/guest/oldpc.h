/* SPDX-License-Identifier: Apache-2.0 */
/* What both halves of the old PC's test share: ports, and lines "ok ..." and "FAIL ..." on COM1. */
#ifndef SILL_GUEST_OLDPC_H
#define SILL_GUEST_OLDPC_H

#include <stdbool.h>
#include <stdint.h>

#include "print_hex.h"

void main16(void);
void main16_again(void);
void main32(void);

static inline void outb(uint16_t port, uint8_t v)
{
	__asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port) : "memory");
}

static inline uint8_t inb(uint16_t port)
{
	uint8_t v;

	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

static inline void outw(uint16_t port, uint16_t v)
{
	__asm__ volatile("outw %0, %1" ::"a"(v), "Nd"(port) : "memory");
}

static inline uint16_t inw(uint16_t port)
{
	uint16_t v;

	__asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

static inline void outl(uint16_t port, uint32_t v)
{
	__asm__ volatile("outl %0, %1" ::"a"(v), "Nd"(port) : "memory");
}

static inline uint32_t inl(uint16_t port)
{
	uint32_t v;

	__asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

static inline uint8_t cmos_read(uint8_t i)
{
	outb(0x70, i);
	return inb(0x71);
}

static inline void cmos_write(uint8_t i, uint8_t v)
{
	outb(0x70, i);
	outb(0x71, v);
}

static void print(const char *s)
{
	for (; *s; s++) {
		while (!(inb(0x3fd) & 0x20))
			;
		outb(0x3f8, (uint8_t)*s);
	}
}

/* Where a range is about time, it is wide: the host may be busy, and ticks that come too late become one. */
static void expect_between(const char *name, uint32_t got, uint32_t low, uint32_t high)
{
	bool ok = got >= low && got <= high;

	print(ok ? "ok " : "FAIL ");
	print(name);
	if (!ok) {
		print(": got ");
		print_hex(got);
		print(", want ");
		print_hex(low);
		if (high != low) {
			print(" to ");
			print_hex(high);
		}
	}
	print("\n");
}

static void expect(const char *name, uint32_t got, uint32_t want)
{
	expect_between(name, got, want, want);
}

/* The CMOS byte that says which way of starting anew was tried last. */
#define CMOS_STAGE 0x60

/* Addresses of buffers, outside of what is linked. */
#define BUFFER 0x20000u
#define OTHER  0x30000u

static inline uint8_t *bytes(uint32_t at)
{
	__asm__("" : "+r"(at));
	return (uint8_t *)at;
}

#endif
