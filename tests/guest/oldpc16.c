/* SPDX-License-Identifier: Apache-2.0 */
/* What systems of real mode ask the BIOS and do with the machine themselves. Compiled with -m16. */
#include "oldpc.h"

struct regs {
	uint32_t eax, ebx, ecx, edx, esi, edi, ebp;
	uint16_t ds, es;
	uint32_t eflags;
};

void bios(unsigned n, struct regs *r);
void unreal(void);
extern uint8_t boot_drive;
extern char on_irq0[], on_tick[], on_break[];
extern volatile uint32_t irq0_count, tick_count, break_count;

#define CARRY 1u
#define ZERO  0x40u
/* Below 64 KiB, where a segment of 0 reaches. */
#define NEAR ((uint8_t *)0x5000)

/* AX, BX, CX, DX; the rest is 0. */
static struct regs call(unsigned n, uint32_t ax, uint32_t bx, uint32_t cx, uint32_t dx)
{
	struct regs r = { .eax = ax, .ebx = bx, .ecx = cx, .edx = dx };

	bios(n, &r);
	return r;
}

/* Far memory, by limits that the BIOS may have taken back. */
static volatile uint8_t *far_bytes(uint32_t at)
{
	unreal();
	return bytes(at);
}

static void hook(unsigned n, const char *to, uint32_t *old)
{
	volatile uint32_t *vector = (volatile uint32_t *)bytes(4 * n);

	__asm__ volatile("cli");
	*old = *vector;
	*vector = (uint32_t)to;
	__asm__ volatile("sti");
}

static void unhook(unsigned n, uint32_t old)
{
	__asm__ volatile("cli");
	*(volatile uint32_t *)bytes(4 * n) = old;
	__asm__ volatile("sti");
}

static uint16_t key(void)
{
	return (uint16_t)call(0x16, 0, 0, 0, 0).eax;
}

/* ---- memory ---- */

static void memory(void)
{
	uint64_t usable = 0;
	unsigned entries = 0;
	struct regs r = { 0 };
	volatile uint8_t *p;

	expect_between("INT 12h: KiB of base memory", (uint16_t)call(0x12, 0, 0, 0, 0).eax, 600, 640);
	expect_between("INT 15h AH=88h: KiB of extended memory", (uint16_t)call(0x15, 0x8800, 0, 0, 0).eax,
		       14 * 1024, 0xffff);
	r = call(0x15, 0xe801, 0, 0, 0);
	expect("E801: KiB from 1 to 16 MiB", (uint16_t)r.eax, 0x3c00);
	expect_between("E801: 64 KiB above", (uint16_t)r.ebx, 47 * 16, 48 * 16);
	r = (struct regs){ 0 };
	do {
		r.eax = 0xe820;
		r.ecx = 20;
		r.edx = 0x534d4150;
		r.edi = (uint32_t)NEAR;
		bios(0x15, &r);
		if ((r.eflags & CARRY) || r.eax != 0x534d4150)
			break;
		entries++;
		if (NEAR[16] == 1)
			usable += *(uint64_t *)(NEAR + 8);
	} while (r.ebx);
	expect_between("E820: entries", entries, 4, 20);
	expect_between("E820: MiB of memory", (uint32_t)(usable >> 20), 62, 64);

	p = far_bytes(0x300000);
	*(volatile uint32_t *)p = 0x12345678;
	*(volatile uint32_t *)far_bytes(0x200000) = 0x9abcdef0;
	expect("unreal mode reaches 3 MiB", *(volatile uint32_t *)p, 0x12345678);
	/* INT 15h AH=87h moves between there and here. */
	for (unsigned i = 0; i < 48; i++)
		NEAR[i] = 0;
	uint64_t *gdt = (uint64_t *)NEAR;
	gdt[2] = 0x000093300000ffff;
	gdt[3] = 0x000093000000ffff | (uint64_t)0x6000 << 16;
	r = (struct regs){ .eax = 0x8700, .ecx = 2, .esi = (uint32_t)NEAR };
	bios(0x15, &r);
	expect("INT 15h AH=87h: moved", *(volatile uint32_t *)0x6000, 0x12345678);
	expect("and no error", r.eflags & CARRY, 0);
}

static bool a20_on(void)
{
	volatile uint8_t *low = far_bytes(0x6000), *high = bytes(0x106000);
	bool same;

	*low = 0x11;
	*high = 0x22;
	same = *low == 0x22;
	return !same;
}

static void kbc_wait(void)
{
	while (inb(0x64) & 2)
		;
}

static void a20_by_kbc(bool on)
{
	uint8_t port;

	__asm__ volatile("cli");
	kbc_wait();
	outb(0x64, 0xad);
	kbc_wait();
	outb(0x64, 0xd0);
	while (!(inb(0x64) & 1))
		;
	port = inb(0x60);
	kbc_wait();
	outb(0x64, 0xd1);
	kbc_wait();
	outb(0x60, on ? port | 2 : port & (uint8_t)~2);
	kbc_wait();
	outb(0x64, 0xae);
	kbc_wait();
	__asm__ volatile("sti");
}

static void a20(void)
{
	expect("A20 is on after the BIOS", a20_on(), true);
	a20_by_kbc(false);
	expect("A20 off by the keyboard controller", a20_on(), false);
	expect("port 92h says so", inb(0x92) & 2, 0);
	a20_by_kbc(true);
	expect("and on", a20_on(), true);
	outb(0x92, inb(0x92) & (uint8_t)~3);
	expect("A20 off by port 92h", a20_on(), false);
	a20_by_kbc(true);
	expect("and on by the keyboard controller", a20_on(), true);
	call(0x15, 0x2400, 0, 0, 0);
	expect("A20 off by INT 15h", a20_on(), false);
	call(0x15, 0x2401, 0, 0, 0);
	expect("and on by INT 15h", a20_on(), true);
}

/* ---- time ---- */

static uint32_t bios_ticks(void)
{
	struct regs r = call(0x1a, 0, 0, 0, 0);

	return (r.ecx & 0xffff) << 16 | (r.edx & 0xffff);
}

/* Waits for the clock's next second. */
static void next_second(void)
{
	while (!(cmos_read(0x0a) & 0x80))
		;
	while (cmos_read(0x0a) & 0x80)
		;
}

static void set_timer(uint8_t control, uint16_t count)
{
	outb(0x43, control);
	outb(0x40, (uint8_t)count);
	outb(0x40, (uint8_t)(count >> 8));
}

static void time_of_day(void)
{
	uint32_t old, t;
	struct regs r;

	next_second();
	t = bios_ticks();
	hook(0x1c, on_tick, &old);
	next_second();
	next_second();
	expect_between("ticks of INT 1Ah in 2 s", bios_ticks() - t, 20, 60);
	unhook(0x1c, old);
	expect_between("INT 1Ch", tick_count, 20, 60);
	/* A handler of our own, at 100 Hz. */
	hook(8, on_irq0, &old);
	set_timer(0x34, 11932);
	next_second();
	irq0_count = 0;
	next_second();
	expect_between("IRQ 0 at 100 Hz in 1 s", irq0_count, 20, 200);
	set_timer(0x36, 0);
	unhook(8, old);
	r = call(0x1a, 0x0200, 0, 0, 0);
	expect_between("INT 1Ah: hour", r.ecx >> 8 & 0xff, 0, 0x23);
	r = call(0x1a, 0x0400, 0, 0, 0);
	expect_between("INT 1Ah: century", r.ecx >> 8 & 0xff, 0x20, 0x21);
	t = bios_ticks();
	r = call(0x15, 0x8600, 0, 3, 0x0d40); /* 200 ms, by the clock's periodic interrupt */
	expect("INT 15h AH=86h waits", r.eflags & CARRY, 0);
	expect_between("for 200 ms", bios_ticks() - t, 3, 40);
}

/* ---- keyboard ---- */

static void keyboard(void)
{
	uint32_t old;

	print("send a\n");
	expect("INT 16h: a", key(), 0x1e61);
	print("send shift-f5\n");
	expect("INT 16h: Shift+F5", key(), 0x5800);
	print("send up\n");
	expect("INT 16h: up", key() & 0xff00, 0x4800);
	print("send caps_lock\n");
	while (!(call(0x16, 0x0200, 0, 0, 0).eax & 0x40))
		;
	print("send b\n");
	expect("INT 16h: B by Caps Lock", key(), 0x3042);
	expect("no key waits", call(0x16, 0x0100, 0, 0, 0).eflags & ZERO, ZERO);
	hook(0x1b, on_break, &old);
	print("send ctrl-pause\n");
	for (uint32_t t = bios_ticks(); !break_count && bios_ticks() - t < 90;)
		;
	expect("Ctrl+Break is INT 1Bh", break_count, 1);
	unhook(0x1b, old);
	call(0x16, 0x0100, 0, 0, 0).eflags &ZERO ? 0 : key(); /* it leaves a 0 */
}

/* ---- disks ---- */

static bool filled_with(const uint8_t *p, unsigned n, uint8_t v)
{
	while (n--)
		if (p[n] != v)
			return false;
	return true;
}

struct packet {
	uint8_t size, zero;
	uint16_t count, offset, segment;
	uint64_t lba;
};

static struct regs packet_call(unsigned function, uint8_t drive, uint64_t lba, uint16_t count)
{
	struct packet p = { 16, 0, count, (uint16_t)(uint32_t)NEAR, 0, lba };
	struct regs r = { .eax = function << 8, .edx = drive, .esi = (uint32_t)&p };

	bios(0x13, &r);
	return r;
}

/* The host wrote to each sector of the disks its number's low byte. */
static void disks(void)
{
	struct regs r = call(0x13, 0x0800, 0, 0, boot_drive);

	expect("started from drive", boot_drive, 0);
	expect("a diskette of 80 cylinders of 18 sectors", r.ecx & 0xffff, 0x4f12);
	expect("with 2 heads", r.edx >> 8 & 0xff, 1);
	expect("type 1440K", r.ebx & 0xff, 4);
	r = call(0x13, 0x0202, (uint32_t)NEAR, 0x2811, 0x0100);
	expect("2 sectors of the diskette are read by DMA", r.eax & 0xff00, 0);
	/* Cylinder 28h, head 1, sector 17: 1474 = 5c2h */
	expect("they are the right ones", filled_with(NEAR, 512, 0xc2) && filled_with(NEAR + 512, 512, 0xc3),
	       true);
	for (unsigned i = 0; i < 512; i++)
		NEAR[i] = 0x77;
	r = call(0x13, 0x0301, (uint32_t)NEAR, 0x2812, 0x0000);
	expect("a sector of the diskette is written", r.eax & 0xff00, 0);
	NEAR[0] = 0;
	r = call(0x13, 0x0201, (uint32_t)NEAR, 0x2812, 0x0000);
	expect("and read again", filled_with(NEAR, 512, 0x77), true);

	expect("CMOS: one hard disk", cmos_read(0x12), 0xf0);
	expect("CMOS: of 63 sectors and 16 heads", cmos_read(0x23) << 8 | cmos_read(0x1d), 0x3f10);
	r = call(0x13, 0x0800, 0, 0, 0x80);
	expect("one hard disk", r.edx & 0xff, 1);
	r = call(0x13, 0x0202, (uint32_t)NEAR, 0x0002, 0x0080);
	expect("INT 13h by cylinder, head and sector", r.eflags & CARRY, 0);
	expect("reads sectors 1 and 2", filled_with(NEAR, 512, 1) && filled_with(NEAR + 512, 512, 2), true);
	r = call(0x13, 0x4100, 0x55aa, 0, 0x80);
	expect("there are extensions", (r.eflags & CARRY) || (r.ebx & 0xffff) != 0xaa55, 0);
	r = packet_call(0x42, 0x80, 0x1234, 2);
	expect("INT 13h by block number", r.eflags & CARRY, 0);
	expect("reads the right ones", filled_with(NEAR, 512, 0x34) && filled_with(NEAR + 512, 512, 0x35),
	       true);
	for (unsigned i = 0; i < 1024; i++)
		NEAR[i] = 0x99;
	expect("and writes", packet_call(0x43, 0x80, 0x2000, 2).eflags & CARRY, 0);
	packet_call(0x42, 0x80, 0x1fff, 4);
	expect("those alone",
	       filled_with(NEAR, 512, 0xff) && filled_with(NEAR + 512, 1024, 0x99) &&
		   filled_with(NEAR + 1536, 512, 0x02),
	       true);
	expect_between("a block that is not there is refused",
		       packet_call(0x42, 0x80, 0x1000000, 1).eax >> 8 & 0xff, 1, 0xff);
}

/* ---- screen ---- */

static void text_mode(void)
{
	volatile uint8_t *screen;
	struct regs r;

	call(0x10, 3, 0, 0, 0);
	call(0x10, 0x0200, 0, 0, 0x0205);
	call(0x10, 0x0e58, 7, 0, 0);
	r = call(0x10, 0x0300, 0, 0, 0);
	expect("INT 10h: the cursor moved on", r.edx & 0xffff, 0x0206);
	screen = far_bytes(0xb8000 + 2 * (2 * 80 + 5));
	expect("and the letter is in memory", screen[0], 'X');
	call(0x10, 0x0200, 0, 0, 0x0a00);
	screen = far_bytes(0xb8000 + 2 * (10 * 80));
	screen[0] = 'Y';
	screen[1] = 0x1e;
	expect("what is in memory is on the screen", call(0x10, 0x0800, 0, 0, 0).eax & 0xffff, 0x1e59);
	call(0x10, 0x1112, 0, 0, 0); /* the 8x8 font: 50 lines */
	expect("50 lines", *(uint8_t *)bytes(0x484), 49);
	call(0x10, 3, 0, 0, 0);
}

/* Four planes, each pixel of a column of four in another: "mode X" with 320x240. */
static void mode_x(void)
{
	static const uint16_t crtc[] = { 0x0d06, 0x3e07, 0x4109, 0xea10, 0xac11,
					 0xdf12, 0x0014, 0xe715, 0x0616, 0xe317 };
	volatile uint8_t *screen;

	call(0x10, 0x13, 0, 0, 0);
	outw(0x3c4, 0x0604);
	outw(0x3c4, 0x0100);
	outb(0x3c2, 0xe3);
	outw(0x3c4, 0x0300);
	outb(0x3d4, 0x11);
	outb(0x3d5, inb(0x3d5) & 0x7f);
	for (unsigned i = 0; i < sizeof(crtc) / 2; i++)
		outw(0x3d4, crtc[i]);
	screen = far_bytes(0xa0000);
	outw(0x3c4, 0x0f02);
	for (unsigned i = 0; i < 80 * 240; i++)
		screen[i] = 0;
	for (unsigned plane = 0; plane < 4; plane++) {
		outw(0x3c4, (uint16_t)(0x0002 | 0x100 << plane));
		screen[80 * 100 + 10] = (uint8_t)(9 + plane);
	}
	outw(0x3ce, 0x0204);
	expect("mode X: plane 2 is read", screen[80 * 100 + 10], 11);
	/* Latches: four pixels are copied at once. */
	outw(0x3c4, 0x0f02);
	outw(0x3ce, 0x4105);
	screen[80 * 101 + 10] = screen[80 * 100 + 10];
	outw(0x3ce, 0x4005);
	print("look at mode X\n");
	key();
}

static void graphics(void)
{
	volatile uint8_t *screen;
	struct regs r;
	uint32_t lfb;

	call(0x10, 0x12, 0, 0, 0);
	call(0x10, 0x0c0d, 0, 321, 200);
	expect("mode 12h: a pixel is where it was put", call(0x10, 0x0d00, 0, 321, 200).eax & 0xff, 0x0d);
	screen = far_bytes(0xa0000 + 200 * 80 + 40);
	outw(0x3ce, 0x0805); /* read mode 1: which pixels have colour 13? */
	outw(0x3ce, 0x0d02);
	outw(0x3ce, 0x0f07);
	expect("mode 12h: found by its colour", screen[0], 0x40);
	call(0x10, 0x13, 0, 0, 0);
	far_bytes(0xa0000)[320 * 100 + 160] = 0x2a;
	expect("mode 13h: a byte is a pixel", call(0x10, 0x0d00, 0, 160, 100).eax & 0xff, 0x2a);
	print("look at mode 13h\n");
	key();
	mode_x();
	call(0x10, 5, 0, 0, 0);
	call(0x10, 0x0c02, 0, 100, 51);
	expect("mode 5: CGA's four colours", far_bytes(0xb8000 + 0x2000 + 25 * 80 + 25)[0], 0x80);

	for (unsigned i = 0; i < 512; i++)
		NEAR[i] = 0;
	*(uint32_t *)NEAR = 0x32454256; /* VBE2 */
	r = (struct regs){ .eax = 0x4f00, .edi = (uint32_t)NEAR };
	bios(0x10, &r);
	expect("VBE is there", r.eax & 0xffff, 0x004f);
	expect_between("its version", *(uint16_t *)(NEAR + 4), 0x0200, 0x0300);
	r = (struct regs){ .eax = 0x4f01, .ecx = 0x118, .edi = (uint32_t)NEAR };
	bios(0x10, &r);
	expect("mode 118h: width", *(uint16_t *)(NEAR + 18), 1024);
	expect("and height", *(uint16_t *)(NEAR + 20), 768);
	lfb = *(uint32_t *)(NEAR + 40);
	uint16_t pitch = *(uint16_t *)(NEAR + 16), depth = NEAR[25];
	expect("INT 10h AX=4F02h", call(0x10, 0x4f02, 0x4118, 0, 0).eax & 0xffff, 0x004f);
	screen = far_bytes(lfb + 300u * pitch + 500u * depth / 8);
	screen[0] = 0x33;
	screen[1] = 0x22;
	screen[2] = 0x11;
	print("look at mode 118h\n");
	key();
	/* Banks of 64 KiB: the second one has line 102, column 256. */
	expect("mode 101h", call(0x10, 0x4f02, 0x101, 0, 0).eax & 0xffff, 0x004f);
	call(0x10, 0x4f05, 0, 0, 1);
	far_bytes(0xa0000)[0] = 4;
	call(0x10, 0x4f05, 0, 0, 0);
	expect("another bank is elsewhere", far_bytes(0xa0000)[0], 0);
	print("look at mode 101h\n");
	key();
	call(0x10, 3, 0, 0, 0);
}

void main16(void)
{
	uint8_t stage = cmos_read(CMOS_STAGE);

	if (stage)
		return; /* main32 goes on */
	print("send what to do\n");
	if ((key() & 0xff) == 'a') { /* by APM: connect, enable, state "off" for all devices */
		call(0x15, 0x5300, 0, 0, 0);
		call(0x15, 0x5301, 0, 0, 0);
		call(0x15, 0x530e, 0, 0x0102, 0);
		call(0x15, 0x5308, 1, 1, 0);
		call(0x15, 0x5307, 1, 3, 0);
		print("FAIL still on after APM's power-off\n");
	}
	memory();
	a20();
	time_of_day();
	keyboard();
	disks();
	text_mode();
	graphics();
	print("real mode is done\n");
}

/* Real mode once more, after protected mode: the BIOS works as before. */
void main16_again(void)
{
	struct regs r;

	call(0x10, 0x0e21, 7, 0, 0);
	r = packet_call(0x42, 0x80, 0x1235, 1);
	expect("back in real mode: the BIOS reads the disk", (r.eflags & CARRY) || NEAR[0] != 0x35, 0);
	uint32_t t = bios_ticks();
	while (bios_ticks() == t)
		;
	print("ok back in real mode: the BIOS's clock goes on\n");
	cmos_write(CMOS_STAGE, 1);
	/* The way of many boot loaders. */
	__asm__ volatile("ljmp $0xffff, $0");
}
