/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Resets of the processor that a system comes back from by CMOS byte 0F and the vector at 0x467, and one that
 * it does not. Memory survives each, so it holds how far this program has come.
 */
#include "lib.h"

#define CODE    0x700 /* what the vector leads to, in real mode */
#define VECTOR  (*(volatile uint32_t *)0x467)
#define STEP    (*(volatile uint8_t *)0x610)
#define RESUMED (*(volatile uint8_t *)0x611)
#define ISR     (*(volatile uint8_t *)0x612) /* as found in real mode */
#define CMOS    (*(volatile uint8_t *)0x613)

/* Counts, looks, and goes where the processor starts. */
__asm__(".code16\n"
	".globl resume, resume_end\n"
	"resume: incb %cs:0x611\n"
	"movb $0x0b, %al; outb %al, $0x20; inb $0x20, %al; movb %al, %cs:0x612\n"
	"movb $0x0f, %al; outb %al, $0x70; inb $0x71, %al; movb %al, %cs:0x613\n"
	"ljmp $0xffff, $0\n"
	"resume_end: .code64\n");
extern char resume[], resume_end[];

static void by_port_92(void)
{
	outb(0x92, inb(0x92) & ~1);
	outb(0x92, inb(0x92) | 1);
}

static void by_keyboard(void)
{
	outb(0x64, 0xfe);
}

static void by_chipset(void)
{
	outb(0xcf9, 0);
	outb(0xcf9, 4);
}

static void by_ipi(void)
{
	apic_write(0xf0, 0x1ff);
	apic_write(0x310, 0);
	apic_write(0x300, 0x4500);
}

static void by_triple_fault(void)
{
	static struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) none;

	__asm__ volatile("lidt %0; int3" ::"m"(none));
}

static const struct {
	const char *name;
	void (*reset)(void);
	uint8_t code;
} steps[] = {
	{ "port 92", by_port_92, 0x0a },
	{ "keyboard controller", by_keyboard, 0x0a },
	{ "port CF9", by_chipset, 0x0a },
	{ "INIT", by_ipi, 0x0a },
	{ "triple fault", by_triple_fault, 0x0a },
	{ "port 92, with an EOI", by_port_92, 0x05 },
	{ "port 92, from the beginning", by_port_92, 0x00 },
};
#define STEPS (sizeof(steps) / sizeof(steps[0]))

static void check(unsigned i)
{
	bool again = steps[i].code;

	print(steps[i].name);
	print(":\n");
	expect("resumed", RESUMED, again);
	if (!again)
		return;
	expect("the interrupt in service", ISR, steps[i].code == 0x05 ? 0 : 1);
	expect("the shutdown code is used up", CMOS, 0);
	if (steps[i].reset == by_port_92)
		expect("no hard reset", inb(0x92) & 1, 1);
}

/* IRQ 0 into service. */
static void take_irq0(void)
{
	static const uint8_t icw[] = { 0x20, 0x04, 0x01, 0xfe };

	outb(0x20, 0x11);
	for (unsigned i = 0; i < sizeof(icw); i++)
		outb(0x21, icw[i]);
	do {
		outb(0x20, 0x0c);
	} while (!(inb(0x20) & 0x80));
}

void guest_main(void)
{
	unsigned step = STEP;

	if (step)
		check(step - 1);
	if (step == STEPS)
		return;
	STEP = (uint8_t)(step + 1);
	RESUMED = 0;
	for (char *p = resume, *to = (char *)CODE; p < resume_end; p++)
		*(volatile char *)to++ = *p;
	VECTOR = CODE;
	take_irq0();
	outb(0x70, 0x0f);
	outb(0x71, steps[step].code);
	steps[step].reset();
	for (;;)
		__asm__ volatile("cli; hlt");
}
