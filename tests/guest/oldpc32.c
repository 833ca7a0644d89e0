/* SPDX-License-Identifier: Apache-2.0 */
/* What kernels of 32-bit protected mode do with a PC's devices, by their manuals and without the BIOS. */
#include "oldpc.h"

struct frame {
	uint32_t edi, esi, ebp, esp0, ebx, edx, ecx, eax, ds;
	uint32_t vector, error, eip, cs, eflags;
	uint32_t esp, ss, v_es, v_ds, v_fs, v_gs; /* from V86 */
};

struct v86_regs {
	uint32_t eax, ebx, ecx, edx, esi, edi, ebp, ds, es, ss, sp, cs, ip;
};

void on_vector(struct frame *f);
void other_main(void);
void back_to_real(void);
void v86(const struct v86_regs *r);
void v86_leave(void);
extern uint32_t stubs[64];
extern uint64_t tss_descriptor;
extern char other_start[], other_end[];
uint8_t tss[104 + 8192 + 1] __attribute__((aligned(8)));

static uint64_t idt[64];
static volatile uint32_t count[64]; /* interrupts by vector */
static volatile uint8_t last_scancode[8], mouse_bytes[8];
static volatile unsigned scancodes, mouse_count;
static volatile bool by_apic;

#define PIC1   0x20
#define PIC2   0xa0
#define EOI    0x20
#define IRQ(n) (0x20 + (n))
#define VM     0x20000u

/* ---- interrupts ---- */

static bool v86_monitor(struct frame *f);
static void v86_interrupt(struct frame *f);
static unsigned v86_waiting; /* interrupt requests that V86 mode has yet to take */

static void on_irq(struct frame *f, unsigned irq)
{
	if (f->eflags & VM) { /* the BIOS's handler takes it, and answers the PIC */
		v86_waiting |= 1u << irq;
		v86_interrupt(f);
		return;
	}
	switch (irq) {
	case 1: /* the PIC may have kept an edge whose byte was read */
		if (inb(0x64) & 1)
			last_scancode[scancodes++ & 7] = inb(0x60);
		break;
	case 8:
		cmos_read(0x0c);
		break;
	case 12:
		if (inb(0x64) & 1)
			mouse_bytes[mouse_count++ & 7] = inb(0x60);
		break;
	case 14:
		inb(0x1f7);
		break;
	case 15:
		inb(0x177);
		break;
	}
	if (by_apic) {
		*(volatile uint32_t *)bytes(0xfee000b0) = 0;
		return;
	}
	if (irq >= 8)
		outb(PIC2, EOI);
	outb(PIC1, EOI);
}

void on_vector(struct frame *f)
{
	count[f->vector]++;
	if (f->vector >= 0x20 && f->vector < 0x30) {
		on_irq(f, f->vector - 0x20);
		return;
	}
	if (f->vector >= 0x30) {
		*(volatile uint32_t *)bytes(0xfee000b0) = 0;
		return;
	}
	if (v86_monitor(f))
		return;
	print("FAIL exception ");
	print_hex(f->vector);
	print(" at ");
	print_hex(f->eip);
	print("\n");
	for (;;)
		__asm__ volatile("cli; hlt");
}

static void interrupts_on(void)
{
	__asm__ volatile("sti" ::: "memory");
}

static void interrupts_off(void)
{
	__asm__ volatile("cli" ::: "memory");
}

static void load_idt(uint16_t limit)
{
	struct {
		uint16_t limit;
		uint32_t base;
	} __attribute__((packed)) idtr = { limit, (uint32_t)idt };

	__asm__ volatile("lidt %0" ::"m"(idtr));
}

static void set_up(void)
{
	uint32_t t = (uint32_t)tss;

	for (unsigned i = 0; i < 64; i++)
		idt[i] =
		    (stubs[i] & 0xffff) | 0x08 << 16 | 0x8e00ull << 32 | (uint64_t)(stubs[i] >> 16) << 48;
	load_idt(sizeof(idt) - 1);
	tss_descriptor = (sizeof(tss) - 1) | (uint64_t)(t & 0xffffff) << 16 | 0x89ull << 40;
	*(uint32_t *)(tss + 8) = 0x10;
	*(uint16_t *)(tss + 102) = 104;
	tss[sizeof(tss) - 1] = 0xff;
	__asm__ volatile("ltr %w0" ::"r"(0x20));
}

static void pic_init(uint8_t first, uint8_t second)
{
	outb(PIC1, 0x11);
	outb(PIC2, 0x11);
	outb(PIC1 + 1, first);
	outb(PIC2 + 1, second);
	outb(PIC1 + 1, 4);
	outb(PIC2 + 1, 2);
	outb(PIC1 + 1, 1);
	outb(PIC2 + 1, 1);
	outb(PIC1 + 1, 0xff);
	outb(PIC2 + 1, 0xff);
}

/* Lets through the IRQs of which bits are set. */
static void only(uint16_t irqs)
{
	outb(PIC1 + 1, (uint8_t) ~(irqs | (irqs >> 8 ? 4 : 0)));
	outb(PIC2 + 1, (uint8_t) ~(irqs >> 8));
}

/* ---- timers ---- */

static uint64_t tsc(void)
{
	uint32_t a, d;

	__asm__ volatile("rdtsc" : "=a"(a), "=d"(d));
	return a | (uint64_t)d << 32;
}

/* By channel 2, gated and watched at port 61h, as kernels calibrate. */
static void delay_us(uint32_t us)
{
	while (us) {
		uint32_t part = us > 50000 ? 50000 : us, n = part * 1193 / 1000;

		outb(0x61, (inb(0x61) & 0xfc) | 1);
		outb(0x43, 0xb0);
		outb(0x42, (uint8_t)n);
		outb(0x42, (uint8_t)(n >> 8));
		while (!(inb(0x61) & 0x20))
			;
		us -= part;
	}
}

/* True: it came to at least n within that time. */
static bool wait_for(volatile uint32_t *counter, uint32_t n, uint32_t ms)
{
	for (; ms && *counter < n; ms--)
		delay_us(1000);
	return *counter >= n;
}

static uint16_t latched(void)
{
	uint8_t low;

	outb(0x43, 0x00);
	low = inb(0x40);
	return (uint16_t)(low | inb(0x40) << 8);
}

static void set_timer(uint8_t control, uint16_t n)
{
	outb(0x43, control);
	outb(0x40, (uint8_t)n);
	outb(0x40, (uint8_t)(n >> 8));
}

static void timers(void)
{
	uint16_t a, b;

	only(1);
	interrupts_on();
	count[IRQ(0)] = 0;
	set_timer(0x30, 11932);
	expect("PIT mode 0: no interrupt at once", count[IRQ(0)], 0);
	delay_us(50000);
	expect("PIT mode 0: one after 10 ms", count[IRQ(0)], 1);
	set_timer(0x34, 1193);
	count[IRQ(0)] = 0;
	delay_us(200000);
	expect_between("PIT mode 2 at 1 kHz: in 200 ms", count[IRQ(0)], 10, 205);
	set_timer(0x36, 1193);
	count[IRQ(0)] = 0;
	delay_us(200000);
	expect_between("PIT mode 3 at 1 kHz: in 200 ms", count[IRQ(0)], 10, 205);
	set_timer(0x34, 0);
	a = latched();
	b = latched();
	expect_between("PIT counts down", (uint16_t)(a - b), 1, 60000);
	outb(0x43, 0xe2); /* status of channel 0 */
	expect("PIT read-back: 16 bits, mode 2", inb(0x40) & 0x3f, 0x34);
	interrupts_off();
	only(0);

	/* Requests of masked lines wait; the PIC says so. */
	set_timer(0x30, 100);
	outb(PIC1, 0x0a);
	for (unsigned i = 0; i < 1000 && !(inb(PIC1) & 1); i++)
		delay_us(1000);
	expect("PIC: IRQ 0 is requested", inb(PIC1) & 1, 1);
	outb(PIC1, 0x0c);
	outb(PIC1 + 1, 0xfe);
	expect("PIC: the poll command answers with it", inb(PIC1), 0x80);
	outb(PIC1, 0x0b);
	expect("PIC: it is in service", inb(PIC1) & 1, 1);
	outb(PIC1, EOI);
	expect("PIC: until its end", inb(PIC1) & 1, 0);
	set_timer(0x36, 0);

	/* The clock's periodic interrupt: 1024 Hz, and the one of each second. */
	only(1 << 8);
	interrupts_on();
	cmos_write(0x8a & 0x7f, 0x26);
	cmos_read(0x0c);
	count[IRQ(8)] = 0;
	cmos_write(0x0b, cmos_read(0x0b) | 0x40);
	delay_us(500000);
	cmos_write(0x0b, cmos_read(0x0b) & (uint8_t)~0x40);
	expect_between("RTC at 1024 Hz: in 500 ms", count[IRQ(8)], 20, 600);
	count[IRQ(8)] = 0;
	cmos_write(0x0b, cmos_read(0x0b) | 0x10);
	expect("RTC: an interrupt each second", wait_for(&count[IRQ(8)], 2, 2500), true);
	cmos_write(0x0b, cmos_read(0x0b) & (uint8_t)~0x10);
	/* The alarm, in any second. */
	for (unsigned i = 1; i <= 5; i += 2)
		cmos_write((uint8_t)i, 0xc0);
	count[IRQ(8)] = 0;
	cmos_write(0x0b, cmos_read(0x0b) | 0x20);
	expect("RTC: the alarm", wait_for(&count[IRQ(8)], 1, 1500), true);
	cmos_write(0x0b, cmos_read(0x0b) & (uint8_t)~0x20);
	interrupts_off();
}

/* ---- PS/2 ---- */

static bool kbc_ready(uint8_t mask, uint8_t want)
{
	for (unsigned i = 0; i < 30000; i++) {
		if ((inb(0x64) & mask) == want)
			return true;
		delay_us(100);
	}
	return false;
}

static void kbc_command(uint8_t v)
{
	kbc_ready(2, 0);
	outb(0x64, v);
}

static void kbc_write(uint8_t v)
{
	kbc_ready(2, 0);
	outb(0x60, v);
}

static uint32_t kbc_read(void)
{
	return kbc_ready(1, 1) ? inb(0x60) : 0xffffffff;
}

static uint32_t kbc_ask(uint8_t command)
{
	kbc_command(command);
	return kbc_read();
}

static uint32_t keyboard_ask(uint8_t v)
{
	kbc_write(v);
	return kbc_read();
}

static uint32_t mouse_ask(uint8_t v)
{
	kbc_command(0xd4);
	kbc_write(v);
	return kbc_read();
}

static void set_command_byte(uint8_t v)
{
	kbc_command(0x60);
	kbc_write(v);
}

static void expect_keys(const char *what, uint8_t a, uint8_t b, uint8_t c)
{
	unsigned n = c ? 3 : 2;

	expect(what, kbc_read(), a);
	expect("  second byte", kbc_read(), b);
	if (n == 3)
		expect("  third byte", kbc_read(), c);
}

static void ps2(void)
{
	only(0);
	kbc_command(0xad);
	kbc_command(0xa7);
	while (inb(0x64) & 1)
		inb(0x60);
	expect("KBC: self-test", kbc_ask(0xaa), 0x55);
	expect("KBC: the keyboard's port", kbc_ask(0xab), 0);
	expect("KBC: the mouse's port", kbc_ask(0xa9), 0);
	expect("KBC: no password", kbc_ask(0xa4), 0xf1);
	set_command_byte(0x00); /* both on, no interrupts, no translation */
	expect("KBC: command byte", kbc_ask(0x20), 0x00);
	expect("keyboard: reset", keyboard_ask(0xff), 0xfa);
	expect("keyboard: its self-test", kbc_read(), 0xaa);
	expect("keyboard: echo", keyboard_ask(0xee), 0xee);
	expect("keyboard: identify", keyboard_ask(0xf2), 0xfa);
	expect("keyboard: ab", kbc_read(), 0xab);
	expect("keyboard: 83", kbc_read(), 0x83);
	expect("keyboard: lamps", keyboard_ask(0xed), 0xfa);
	expect("keyboard: all of them", keyboard_ask(7), 0xfa);
	expect("keyboard: typematic", keyboard_ask(0xf3), 0xfa);
	expect("keyboard: the fastest", keyboard_ask(0), 0xfa);
	expect("keyboard: which set?", keyboard_ask(0xf0), 0xfa);
	expect("keyboard: which set?", keyboard_ask(0), 0xfa);
	expect("keyboard: set 2", kbc_read(), 2);
	expect("keyboard: an unknown command", keyboard_ask(0xe5), 0xfe);
	print("send a\n");
	expect_keys("keyboard: A by set 2", 0x1c, 0xf0, 0x1c);
	keyboard_ask(0xf0);
	expect("keyboard: set 1", keyboard_ask(1), 0xfa);
	print("send a\n");
	expect_keys("keyboard: A by set 1", 0x1e, 0x9e, 0);
	keyboard_ask(0xf0);
	keyboard_ask(2);

	set_command_byte(0x41);
	scancodes = 0;
	only(1 << 1);
	interrupts_on();
	print("send a\n");
	for (unsigned i = 0; i < 10000 && scancodes < 2; i++)
		delay_us(1000);
	interrupts_off();
	expect("IRQ 1: twice", scancodes, 2);
	expect("IRQ 1: A, translated", last_scancode[0] << 8 | last_scancode[1], 0x1e9e);

	only(0);
	set_command_byte(0x00);
	expect("mouse: reset", mouse_ask(0xff), 0xfa);
	expect("mouse: its self-test", kbc_read(), 0xaa);
	expect("mouse: its kind", kbc_read(), 0);
	static const uint8_t knock[] = { 0xf3, 200, 0xf3, 100, 0xf3, 80, 0xf2 };
	for (unsigned i = 0; i < sizeof(knock); i++)
		expect("mouse: asked for its wheel", mouse_ask(knock[i]), 0xfa);
	expect("mouse: it has one", kbc_read(), 3);
	expect("mouse: reports", mouse_ask(0xf4), 0xfa);
	set_command_byte(0x03);
	only(1 << 12);
	mouse_count = 0;
	interrupts_on();
	print("move 5 -3\n");
	for (unsigned i = 0; i < 10000 && mouse_count < 4; i++)
		delay_us(1000);
	interrupts_off();
	expect("IRQ 12: a packet of 4", mouse_count, 4);
	expect("mouse: right and up", mouse_bytes[0] << 16 | mouse_bytes[1] << 8 | mouse_bytes[2], 0x080503);
	only(0);
	kbc_command(0xa7);
	set_command_byte(0x65);
}

/* ---- PCI ---- */

static uint32_t pci_address(unsigned slot, unsigned function, unsigned reg)
{
	return 0x80000000u | slot << 11 | function << 8 | reg;
}

static uint32_t pci_read(unsigned slot, unsigned function, unsigned reg)
{
	outl(0xcf8, pci_address(slot, function, reg));
	return inl(0xcfc);
}

static void pci_write(unsigned slot, unsigned function, unsigned reg, uint32_t v)
{
	outl(0xcf8, pci_address(slot, function, reg));
	outl(0xcfc, v);
}

static void pci(void)
{
	uint32_t old = inl(0xcf8);

	outl(0xcf8, 0x80000000);
	expect("PCI: mechanism 1 answers", inl(0xcf8), 0x80000000);
	outl(0xcf8, old);
	outb(0xcfb, 0);
	outb(0xcf8, 0);
	outb(0xcfa, 0);
	expect("PCI: there is no mechanism 2", inb(0xcf8) == 0 && inb(0xcfa) == 0, false);
	expect("PCI: the host bridge", pci_read(0, 0, 0), 0x12378086);
	expect("PCI: its class", pci_read(0, 0, 8) >> 16, 0x0600);
	expect("PCI: the IDE controller's class", pci_read(1, 1, 8) >> 8, 0x010180);
	expect("PCI: nothing there", pci_read(31, 7, 0), 0xffffffff);
	outl(0xcf8, pci_address(0, 0, 0));
	expect("PCI: a word of it", inw(0xcfe), 0x1237);
	expect("PCI: a byte of it", inb(0xcfd), 0x80);
}

/* ---- ATA ---- */

static uint32_t ata_wait(uint16_t base, uint8_t mask, uint8_t want)
{
	for (unsigned i = 0; i < 3000; i++) {
		uint8_t s = inb((uint16_t)(base + 0x206)); /* does not take the interrupt back */

		if ((s & mask) == want)
			return s;
		delay_us(1000);
	}
	return 0xffffffff;
}

static void ata_begin(uint32_t lba, uint8_t n, uint8_t command)
{
	outb(0x1f6, (uint8_t)(0xe0 | lba >> 24));
	outb(0x1f2, n);
	outb(0x1f3, (uint8_t)lba);
	outb(0x1f4, (uint8_t)(lba >> 8));
	outb(0x1f5, (uint8_t)(lba >> 16));
	count[IRQ(14)] = 0;
	outb(0x1f7, command);
}

static void read_words(uint16_t port, uint8_t *to, unsigned words)
{
	__asm__ volatile("rep insw" : "+D"(to), "+c"(words) : "d"(port) : "memory");
}

static void write_words(uint16_t port, const uint8_t *from, unsigned words)
{
	__asm__ volatile("rep outsw" : "+S"(from), "+c"(words) : "d"(port) : "memory");
}

static bool filled_with(const uint8_t *p, unsigned n, uint8_t v)
{
	while (n--)
		if (p[n] != v)
			return false;
	return true;
}

static void fill(uint8_t *p, unsigned n, uint8_t v)
{
	while (n--)
		p[n] = v;
}

static void ata_pio(void)
{
	uint8_t *b = bytes(BUFFER);

	outb(0x3f6, 0x04);
	delay_us(10);
	outb(0x3f6, 0x00);
	expect_between("ATA: ready after a reset", ata_wait(0x1f0, 0xc0, 0x40), 0, 0xff);
	expect("ATA: a disk's signature", inb(0x1f4) << 8 | inb(0x1f5), 0);
	outb(0x1f6, 0xf0);
	expect("ATA: no second drive", inb(0x1f7), 0);
	only(1 << 14);
	interrupts_on();
	ata_begin(0, 0, 0xec);
	expect("IDENTIFY: an interrupt", wait_for(&count[IRQ(14)], 1, 1000), true);
	read_words(0x1f0, b, 256);
	expect_between("IDENTIFY: sectors", *(uint32_t *)(b + 120), 16384, 16384);
	ata_begin(0x1230, 3, 0x20);
	for (unsigned i = 1; i <= 3; i++) {
		expect("READ SECTORS: an interrupt", wait_for(&count[IRQ(14)], i, 1000), true);
		read_words(0x1f0, b, 256);
		expect("READ SECTORS: the right one", filled_with(b, 512, (uint8_t)(0x2f + i)), true);
	}
	expect("READ SECTORS: and no more", inb(0x1f7) & 0x89, 0);
	ata_begin(0x3000, 2, 0x30);
	fill(b, 512, 0x5a);
	expect_between("WRITE SECTORS: the first without an interrupt", ata_wait(0x1f0, 0x88, 0x08), 0, 0xff);
	expect("  none came", count[IRQ(14)], 0);
	for (unsigned i = 1; i <= 2; i++) {
		write_words(0x1f0, b, 256);
		expect("WRITE SECTORS: an interrupt", wait_for(&count[IRQ(14)], i, 1000), true);
	}
	ata_begin(0x2fff, 4, 0xc4);
	fill(b, 2048, 0);
	expect("READ MULTIPLE: one interrupt", wait_for(&count[IRQ(14)], 1, 1000), true);
	read_words(0x1f0, b, 1024);
	expect("READ MULTIPLE: what was written",
	       filled_with(b, 512, 0xff) && filled_with(b + 512, 1024, 0x5a) && filled_with(b + 1536, 512, 2),
	       true);
	ata_begin(0x0ffffff, 1, 0x20);
	expect("beyond the end: an interrupt", wait_for(&count[IRQ(14)], 1, 1000), true);
	expect("beyond the end: an error", inb(0x1f7) & 0x89, 0x01);
	/* Interrupts can be switched off at the drive. */
	outb(0x3f6, 2);
	ata_begin(0, 1, 0x20);
	expect_between("nIEN: data comes", ata_wait(0x1f0, 0x88, 0x08), 0, 0xff);
	expect("nIEN: without interrupt", count[IRQ(14)], 0);
	read_words(0x1f0, b, 256);
	outb(0x3f6, 0);
	interrupts_off();
}

static void ata_dma(void)
{
	uint16_t bm = pci_read(1, 1, 0x20) & 0xfffc;
	uint32_t *table = (uint32_t *)bytes(BUFFER);
	uint8_t *b = bytes(BUFFER + 0x1000);

	pci_write(1, 1, 4, (pci_read(1, 1, 4) & 0xffff) | 5);
	fill(b, 0x3000, 0);
	table[0] = (uint32_t)b;
	table[1] = 512;
	table[2] = (uint32_t)b + 0x1000;
	table[3] = 1024 | 0x80000000;
	outl(bm + 4, (uint32_t)table);
	outb(bm + 2, 6);
	outb(bm, 8);
	only(1 << 14);
	interrupts_on();
	ata_begin(0x1240, 3, 0xc8);
	outb(bm, 9);
	expect("READ DMA: an interrupt", wait_for(&count[IRQ(14)], 1, 1000), true);
	expect("READ DMA: the controller's status", inb(bm + 2) & 7, 4);
	outb(bm, 0);
	outb(bm + 2, 6);
	expect("READ DMA: scattered",
	       filled_with(b, 512, 0x40) && filled_with(b + 0x1000, 512, 0x41) &&
		   filled_with(b + 0x1200, 512, 0x42) && filled_with(b + 512, 512, 0),
	       true);
	fill(b, 512, 0xa7);
	table[1] = 512 | 0x80000000;
	ata_begin(0x3100, 1, 0xca);
	outb(bm, 1);
	expect("WRITE DMA: an interrupt", wait_for(&count[IRQ(14)], 1, 1000), true);
	outb(bm, 0);
	outb(bm + 2, 6);
	ata_begin(0x3100, 1, 0x20);
	wait_for(&count[IRQ(14)], 1, 1000);
	read_words(0x1f0, b, 256);
	expect("WRITE DMA: read again", filled_with(b, 512, 0xa7), true);
	interrupts_off();
}

static void packet(const uint8_t *p, uint16_t limit)
{
	outb(0x176, 0xa0);
	outb(0x171, 0);
	outb(0x174, (uint8_t)limit);
	outb(0x175, (uint8_t)(limit >> 8));
	outb(0x177, 0xa0);
	expect_between("PACKET: wanted", ata_wait(0x170, 0x88, 0x08), 0, 0xff);
	expect("PACKET: a command, from the host", inb(0x172) & 3, 1);
	count[IRQ(15)] = 0;
	write_words(0x170, p, 6);
}

static void atapi(void)
{
	static const uint8_t read[12] = { 0x28, 0, 0, 0, 0, 16, 0, 0, 2 },
			     inquiry[12] = { 0x12, 0, 0, 0, 36 },
			     bad[12] = { 0x28, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 1 };
	uint8_t *b = bytes(BUFFER);
	unsigned got = 0;

	outb(0x176, 0xa0);
	outb(0x177, 0x08);
	delay_us(2000);
	expect("ATAPI: signature", inb(0x174) << 8 | inb(0x175), 0x14eb);
	only(1 << 15);
	interrupts_on();
	packet(inquiry, 36);
	expect("INQUIRY: an interrupt", wait_for(&count[IRQ(15)], 1, 1000), true);
	expect("INQUIRY: bytes", inb(0x174) | inb(0x175) << 8, 36);
	read_words(0x170, b, 18);
	expect("INQUIRY: a CD-ROM drive, removable", b[0] << 8 | b[1], 0x0580);
	expect("INQUIRY: another at the end", wait_for(&count[IRQ(15)], 2, 1000), true);
	expect("INQUIRY: done", inb(0x177) & 0x89, 0);
	packet(read, 2048);
	/* After a reset the first command says that: read again. */
	if (wait_for(&count[IRQ(15)], 1, 1000) && (inb(0x177) & 1))
		packet(read, 2048);
	for (unsigned i = 1; i <= 2; i++) {
		expect("READ(10): an interrupt", wait_for(&count[IRQ(15)], i, 1000), true);
		unsigned n = (unsigned)(inb(0x174) | inb(0x175) << 8);
		read_words(0x170, b + got, n / 2);
		got += n;
	}
	expect("READ(10): bytes", got, 4096);
	expect("READ(10): an ISO 9660 descriptor", *(uint32_t *)b, 0x30444301);
	expect("READ(10): the end", wait_for(&count[IRQ(15)], 3, 1000), true);
	packet(bad, 2048);
	expect("beyond the disc: an interrupt", wait_for(&count[IRQ(15)], 1, 1000), true);
	expect("beyond the disc: illegal request", inb(0x171) >> 4, 5);
	interrupts_off();
}

/* ---- floppy ---- */

static void fdc_out(uint8_t v)
{
	for (unsigned i = 0; i < 1000 && (inb(0x3f4) & 0xc0) != 0x80; i++)
		delay_us(10);
	outb(0x3f5, v);
}

static uint8_t fdc_in(void)
{
	for (unsigned i = 0; i < 1000 && (inb(0x3f4) & 0xc0) != 0xc0; i++)
		delay_us(10);
	return inb(0x3f5);
}

static void fdc_send(const uint8_t *p, unsigned n)
{
	count[IRQ(6)] = 0;
	while (n--)
		fdc_out(*p++);
}

/* SENSE INTERRUPT: ST0 and the cylinder. */
static uint32_t fdc_sense(void)
{
	uint32_t st0;

	fdc_out(0x08);
	st0 = fdc_in();
	return st0 << 8 | fdc_in();
}

static void isa_dma(uint32_t at, uint32_t n, uint8_t mode)
{
	outb(0x0a, 0x06);
	outb(0x0c, 0);
	outb(0x04, (uint8_t)at);
	outb(0x04, (uint8_t)(at >> 8));
	outb(0x81, (uint8_t)(at >> 16));
	outb(0x0c, 0);
	outb(0x05, (uint8_t)(n - 1));
	outb(0x05, (uint8_t)((n - 1) >> 8));
	outb(0x0b, mode);
	outb(0x0a, 0x02);
}

static void floppy(void)
{
	static const uint8_t specify[] = { 0x03, 0xdf, 0x02 }, seek[] = { 0x0f, 0, 60 },
			     recalibrate[] = { 0x07, 0 }, read[] = { 0xe6, 0, 60, 0, 3, 2, 18, 0x1b, 0xff };
	uint8_t *b = bytes(BUFFER);

	only(1 << 6);
	interrupts_on();
	count[IRQ(6)] = 0;
	outb(0x3f2, 0x00);
	delay_us(100);
	outb(0x3f2, 0x1c);
	outb(0x3f7, 0);
	expect("FDC: an interrupt after reset", wait_for(&count[IRQ(6)], 1, 1000), true);
	for (unsigned i = 0; i < 4; i++)
		expect("FDC: drives were polled", fdc_sense() >> 8, 0xc0 | i);
	fdc_send(specify, sizeof(specify));
	fdc_send(recalibrate, sizeof(recalibrate));
	expect("FDC: an interrupt", wait_for(&count[IRQ(6)], 1, 1000), true);
	expect("FDC: recalibrated", fdc_sense(), 0x2000);
	fdc_send(seek, sizeof(seek));
	expect("FDC: an interrupt", wait_for(&count[IRQ(6)], 1, 1000), true);
	expect("FDC: sought", fdc_sense(), 0x2000 | 60);
	isa_dma(BUFFER, 1024, 0x46);
	fdc_send(read, sizeof(read));
	expect("FDC: an interrupt", wait_for(&count[IRQ(6)], 1, 2000), true);
	expect("FDC: read", fdc_in() & 0xc0, 0);
	for (unsigned i = 0; i < 6; i++)
		fdc_in();
	/* Cylinder 60, sectors 3 and 4: 2162 = 872h */
	expect("FDC: the right sectors", filled_with(b, 512, 0x72) && filled_with(b + 512, 512, 0x73), true);
	expect("DMA: terminal count", inb(0x08) & 4, 4);
	outb(0x3f2, 0x0c);
	interrupts_off();
}

/* ---- serial ---- */

static void serial(void)
{
	unsigned n = 0;

	outb(0x2f9, 0);
	outb(0x2fb, 0x83);
	outb(0x2f8, 1);
	outb(0x2f9, 0);
	outb(0x2fb, 3);
	outb(0x2fa, 0xc7);
	expect("COM2: a 16550A with FIFOs", inb(0x2fa) & 0xc0, 0xc0);
	outb(0x2fc, 0x1b); /* loop */
	for (unsigned i = 0; i < 16; i++)
		outb(0x2f8, (uint8_t)(0x40 + i));
	delay_us(2000);
	while ((inb(0x2fd) & 1) && inb(0x2f8) == 0x40 + n)
		n++;
	expect("COM2: 16 bytes through the loop", n, 16);
	outb(0x2fc, 0x0b);
	only(1 << 3);
	count[IRQ(3)] = 0;
	interrupts_on();
	outb(0x2f9, 2);
	expect("COM2: empty is an interrupt", wait_for(&count[IRQ(3)], 1, 1000), true);
	expect("COM2: that one", inb(0x2fa), 0xc2);
	outb(0x2f8, 'x');
	expect("COM2: sent is another", wait_for(&count[IRQ(3)], 2, 1000), true);
	outb(0x2f9, 0);
	interrupts_off();
}

/* ---- tables in the BIOS's area ---- */

static bool same(const char *p, const char *s)
{
	while (*s)
		if (*p++ != *s++)
			return false;
	return true;
}

static uint8_t sum(const uint8_t *p, unsigned n)
{
	uint8_t s = 0;

	while (n--)
		s = (uint8_t)(s + p[n]);
	return s;
}

static const uint8_t *find(const char *signature, uint32_t length)
{
	for (uint32_t at = 0xe0000; at < 0x100000; at += 16)
		if (same((const char *)bytes(at), signature) && !sum(bytes(at), length))
			return bytes(at);
	return 0;
}

static uint32_t get32(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static const uint8_t *table(const uint8_t *rsdt, const char *signature)
{
	for (uint32_t i = 36; i < get32(rsdt + 4); i += 4) {
		const uint8_t *t = bytes(get32(rsdt + i));

		if (same((const char *)t, signature) && !sum(t, get32(t + 4)))
			return t;
	}
	return 0;
}

static const uint8_t *fadt;

static void acpi(void)
{
	const uint8_t *rsdp = find("RSD PTR ", 20), *madt;
	uint32_t cpus = 0, a;

	expect("RSD PTR is in the BIOS's area", rsdp != 0, true);
	if (!rsdp)
		return;
	const uint8_t *rsdt = bytes(get32(rsdp + 16));
	expect("RSDT", same((const char *)rsdt, "RSDT") && !sum(rsdt, get32(rsdt + 4)), true);
	fadt = table(rsdt, "FACP");
	madt = table(rsdt, "APIC");
	expect("FADT and MADT", fadt && madt, true);
	if (!fadt || !madt)
		return;
	for (const uint8_t *p = madt + 44; p < madt + get32(madt + 4); p += p[1])
		if (p[0] == 0 && (p[4] & 1))
			cpus++;
	expect("MADT: two processors", cpus, 2);
	uint16_t timer = (uint16_t)get32(fadt + 76);
	a = inl(timer);
	delay_us(100000);
	expect_between("PM timer: ticks in 100 ms", (inl(timer) - a) & 0xffffff, 357000, 8000000);
	expect("ACPI mode", inw((uint16_t)get32(fadt + 64)) & 1, 1);
	expect("the MP floating pointer", find("_MP_", 16) != 0, true);
	expect("SMBIOS", find("_SM_", 0x1f) != 0, true);
}

/* The power-off that small kernels have: the name _S5_ in the DSDT, and what follows it. */
static uint32_t sleep_type(void)
{
	const uint8_t *dsdt = bytes(get32(fadt + 40));

	for (uint32_t i = 36; i < get32(dsdt + 4); i++) {
		const uint8_t *p = dsdt + i;

		if (!same((const char *)p, "_S5_") || p[4] != 0x12)
			continue;
		p += 5;
		p += (p[0] >> 6) + 2; /* length, number of elements */
		return *p == 0x0a ? p[1] : *p;
	}
	return 0xffffffff;
}

/* ---- paging, APICs, another processor ---- */

static volatile uint32_t other_here;

void other_main(void)
{
	other_here = 1;
}

static uint32_t lapic_read(uint32_t reg)
{
	return *(volatile uint32_t *)bytes(0xfee00000 + reg);
}

static void lapic_write(uint32_t reg, uint32_t v)
{
	*(volatile uint32_t *)bytes(0xfee00000 + reg) = v;
}

static void ioapic_write(uint32_t reg, uint32_t v)
{
	*(volatile uint32_t *)bytes(0xfec00000) = reg;
	*(volatile uint32_t *)bytes(0xfec00010) = v;
}

static uint32_t ioapic_read(uint32_t reg)
{
	*(volatile uint32_t *)bytes(0xfec00000) = reg;
	return *(volatile uint32_t *)bytes(0xfec00010);
}

/* 4 MiB pages: all as it is, but the one at 80000000h, which is the first again. */
static void paging(void)
{
	uint32_t *directory = (uint32_t *)bytes(0x10000), v;

	for (uint32_t i = 0; i < 1024; i++)
		directory[i] = i << 22 | 0x87 | (i >= 0x3f0 ? 0x18 : 0);
	directory[0x200] = 0x83;
	__asm__ volatile(
	    "mov %%cr4, %0; or $0x10, %0; mov %0, %%cr4; mov %1, %%cr3; mov %%cr0, %0; or $0x80000000, %0;"
	    "mov %0, %%cr0"
	    : "=&r"(v)
	    : "r"(directory)
	    : "memory");
	*(volatile uint32_t *)bytes(BUFFER) = 0xfeedface;
	expect("4 MiB pages", *(volatile uint32_t *)bytes(0x80000000 + BUFFER), 0xfeedface);
	expect("dirty bit", directory[0] & 0x60, 0x60);
}

static void apics(void)
{
	uint8_t *to = bytes(0x6000);

	expect_between("local APIC: version", lapic_read(0x30) & 0xff, 0x10, 0x15);
	lapic_write(0xf0, 0x13f);
	lapic_write(0x80, 0);
	by_apic = true;
	interrupts_on();
	lapic_write(0x300, 0x00044030); /* to itself */
	expect("local APIC: an interrupt to itself", wait_for(&count[0x30], 1, 100), true);
	lapic_write(0x3e0, 0x0b);
	lapic_write(0x320, 0x31);
	lapic_write(0x380, 10000);
	expect("local APIC: its timer, once", wait_for(&count[0x31], 1, 1000), true);
	expect("local APIC: and it stands", lapic_read(0x390), 0);
	lapic_write(0x320, 0x10000);

	/* IRQ 0 comes in at pin 2 of the IOAPIC. */
	only(0);
	expect("IOAPIC: 24 pins", ioapic_read(1) >> 16 & 0xff, 23);
	count[IRQ(0)] = 0;
	ioapic_write(0x15, lapic_read(0x20) & 0xff000000);
	ioapic_write(0x14, IRQ(0));
	set_timer(0x34, 11932);
	expect("IOAPIC: the timer", wait_for(&count[IRQ(0)], 5, 1000), true);
	ioapic_write(0x14, 0x10000);
	set_timer(0x36, 0);

	for (char *p = other_start; p < other_end; p++)
		*to++ = (uint8_t)*p;
	lapic_write(0x310, 1 << 24);
	lapic_write(0x300, 0x0000c500);
	delay_us(10000);
	lapic_write(0x300, 0x00008500);
	for (unsigned i = 0; i < 2 && !other_here; i++) {
		lapic_write(0x310, 1 << 24);
		lapic_write(0x300, 0x00004606);
		delay_us(2000);
	}
	expect("INIT, start-up: another processor runs", wait_for(&other_here, 1, 1000), true);
	interrupts_off();
	by_apic = false;
}

/* ---- virtual-8086 mode: the BIOS as a task ---- */

static bool v86_flag; /* its idea of IF */
static uint32_t trapped_ports;
static struct frame v86_result;

static uint16_t *v86_stack(struct frame *f, int change)
{
	f->esp = (f->esp + (uint32_t)change) & 0xffff;
	return (uint16_t *)bytes((f->ss & 0xffff) * 16 + f->esp);
}

static void v86_push(struct frame *f, uint32_t v)
{
	*v86_stack(f, -2) = (uint16_t)v;
}

static uint16_t v86_pop(struct frame *f)
{
	uint16_t v = *v86_stack(f, 0);

	v86_stack(f, 2);
	return v;
}

static uint32_t v86_flags(const struct frame *f)
{
	return (f->eflags & ~0x200u) | (v86_flag ? 0x200 : 0);
}

static void v86_set_flags(struct frame *f, uint32_t v)
{
	v86_flag = v & 0x200;
	f->eflags = (f->eflags & 0xffff0000) | (v & 0x0cd5) | 0x202;
}

static void v86_reflect(struct frame *f, unsigned n)
{
	const uint16_t *vector = (const uint16_t *)bytes(4 * n);

	v86_push(f, v86_flags(f));
	v86_push(f, f->cs);
	v86_push(f, f->eip);
	v86_flag = false;
	f->eflags &= ~0x100u;
	f->eip = vector[0];
	f->cs = vector[1];
}

/* Lets the task take an interrupt, once it thinks that it may: the BIOS changes stacks with interrupts off.
 */
static void v86_interrupt(struct frame *f)
{
	for (unsigned irq = 0; v86_flag && irq < 16; irq++) {
		if (!(v86_waiting >> irq & 1))
			continue;
		v86_waiting &= ~(1u << irq);
		v86_reflect(f, irq < 8 ? 8 + irq : 0x70 + irq - 8);
	}
}

/* General protection faults of V86 mode: what I/O privilege 0 does not allow is done here. */
static bool v86_monitor(struct frame *f)
{
	const uint8_t *p = bytes((f->cs & 0xffff) * 16 + (f->eip & 0xffff)), *begin = p;
	bool wide = false;

	if (f->vector != 13 || !(f->eflags & VM))
		return false;
	for (; *p == 0x66 || *p == 0x67; p++)
		wide |= *p == 0x66;
	uint8_t op = *p++;
	if (op == 0xcd)
		p++;
	f->eip = (f->eip + (uint32_t)(p - begin)) & 0xffff;
	switch (op) {
	case 0xfa:
	case 0xfb:
		v86_flag = op == 0xfb;
		v86_interrupt(f);
		return true;
	case 0x9c:
		if (wide)
			v86_push(f, 0);
		v86_push(f, v86_flags(f));
		return true;
	case 0x9d:
		v86_set_flags(f, v86_pop(f));
		if (wide)
			v86_pop(f);
		v86_interrupt(f);
		return true;
	case 0xcd:
		v86_reflect(f, p[-1]);
		return true;
	case 0xcf:
		f->eip = v86_pop(f);
		if (wide)
			v86_pop(f);
		f->cs = v86_pop(f);
		if (wide)
			v86_pop(f);
		v86_set_flags(f, v86_pop(f));
		if (wide)
			v86_pop(f);
		v86_interrupt(f);
		return true;
	case 0xec: /* IN AL, DX and OUT DX, AL at ports that the bitmap keeps */
		trapped_ports++;
		f->eax = (f->eax & ~0xffu) | inb((uint16_t)f->edx);
		return true;
	case 0xee:
		trapped_ports++;
		outb((uint16_t)f->edx, (uint8_t)f->eax);
		return true;
	case 0xf4:
		if (begin == bytes(0x600)) { /* where our tasks end */
			v86_result = *f;
			v86_leave();
		}
		return true;
	default:
		return false;
	}
}

static void v86_int(unsigned n, struct v86_regs r)
{
	uint8_t *code = bytes(0x600);

	code[0] = 0xf4;
	code[1] = 0xcd;
	code[2] = (uint8_t)n;
	code[3] = 0xeb;
	code[4] = 0xfb;
	r.ss = 0;
	r.sp = 0x5000;
	r.cs = 0;
	r.ip = 0x601;
	v86_flag = true;
	interrupts_off();
	v86(&r);
}

static void v86_bios(void)
{
	static const uint8_t p[16] = { 16, 0, 1, 0, 0, 0x52, 0, 0, 0x36, 0x12 };
	uint8_t *packet = bytes(0x5100);

	for (unsigned i = 0; i < 16; i++)
		packet[i] = p[i];
	fill(bytes(0x5200), 512, 0);
	only(0xffff & ~(1 << 2));
	set_timer(0x36, 0);
	/* The VGA's palette port is not theirs. */
	tss[104 + 0x3c8 / 8] |= 1;
	tss[104 + 0x3c9 / 8] |= 2;
	v86_int(0x10, (struct v86_regs){ .eax = 0x13 });
	expect("V86: INT 10h sets mode 13h", *bytes(0x449), 0x13);
	expect_between("V86: and had to ask for the palette", trapped_ports, 256, 10000);
	v86_int(0x10, (struct v86_regs){ .eax = 3 });
	v86_int(0x13, (struct v86_regs){ .eax = 0x4200, .edx = 0x80, .esi = 0x5100 });
	expect("V86: INT 13h reads", v86_result.eflags & 1, 0);
	expect("V86: the right sector", filled_with(bytes(0x5200), 512, 0x36), true);
	v86_int(0x1a, (struct v86_regs){ .eax = 0 });
	uint32_t t = v86_result.edx & 0xffff, i = 0;
	do
		v86_int(0x1a, (struct v86_regs){ .eax = 0 });
	while ((v86_result.edx & 0xffff) == t && ++i < 30000);
	expect_between("V86: the timer's interrupts reach the BIOS", (v86_result.edx - t) & 0xffff, 1, 20);
	only(0);
}

/* ---- ends ---- */

static void triple_fault(void)
{
	load_idt(0);
	__asm__ volatile("int $3");
}

/* One of the ways to begin anew for each start, and the last is to power off. */
static void start_anew(uint8_t stage)
{
	cmos_write(CMOS_STAGE, (uint8_t)(stage + 1));
	switch (stage) {
	case 1:
		print("ok started anew by a jump to ffff:0\n");
		outb((uint16_t)get32(fadt + 120), fadt[128]);
		break;
	case 2:
		print("ok started anew by ACPI's reset register\n");
		outb(0xcf9, 2);
		outb(0xcf9, 6);
		break;
	case 3:
		print("ok started anew by port CF9h\n");
		kbc_command(0xfe);
		break;
	case 4:
		print("ok started anew by the keyboard controller\n");
		outb(0x92, inb(0x92) & 0xfe);
		outb(0x92, inb(0x92) | 1);
		break;
	case 5:
		print("ok started anew by port 92h\n");
		triple_fault();
		break;
	default:
		print("ok started anew by a triple fault\n");
		cmos_write(CMOS_STAGE, 0);
		expect_between("_S5_ is in the DSDT", sleep_type(), 0, 7);
		print("powering off\n");
		outw((uint16_t)get32(fadt + 64), (uint16_t)(0x2000 | sleep_type() << 10));
		break;
	}
	delay_us(1000000);
	print("FAIL still here\n");
	for (;;)
		__asm__ volatile("cli; hlt");
}

void main32(void)
{
	uint8_t stage = cmos_read(CMOS_STAGE);

	set_up();
	pic_init(0x20, 0x28);
	acpi();
	if (stage)
		start_anew(stage);
	timers();
	ps2();
	pci();
	ata_pio();
	ata_dma();
	atapi();
	floppy();
	serial();
	paging();
	apics();
	v86_bios();
	pic_init(0x08, 0x70);
	only(0xffff);
	back_to_real();
}
