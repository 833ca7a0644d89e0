/* SPDX-License-Identifier: Apache-2.0 */
/* A driver for the controller in a few lines: port 1 a keyboard, port 2 a disk. */
#include <linux/input-event-codes.h>

#include "dev/storage/test_disk.h"
#include "dev/usb/hid.h"
#include "dev/usb/msc.h"
#include "dev/usb/xhci.h"

#define DCBAA          0x10000u
#define COMMANDS       0x11000u
#define ERST           0x12000u
#define EVENTS         0x13000u
#define NEVENTS        32u
#define INPUT          0x14000u
#define CONTEXT(slot)  (0x18000u + (slot)*0x1000u)
#define RING(slot, ep) (0x40000u + ((slot)*8u + (ep)) * 0x1000u)
#define BUF            0x100000u

enum { OP = 0x40, PORTSC = 0x440, RT = 0x1020, DB = 0x2000 };
enum { CYCLE = 1, TOGGLE = 2, ISP = 4, CHAIN = 16, IOC = 32, IDT = 64 };

struct trb {
	uint64_t parameter;
	uint32_t status, control;
};

static struct test_storage s;
static struct input in;
static struct xhci *xhci;
static uint64_t base;
static unsigned event_at, command_at, ring_at[3][8];
static bool event_cycle;

static uint32_t rd(unsigned reg)
{
	return (uint32_t)mem_mmio_read(s.t.b.mem, GPA(base + reg), 4);
}

static void wr(unsigned reg, uint32_t v)
{
	mem_mmio_write(s.t.b.mem, GPA(base + reg), v, 4);
}

static void start(void)
{
	wr(OP, 2);
	memset(ts_ram(&s, DCBAA, 0x70000), 0, 0x70000);
	event_at = command_at = 0;
	memset(ring_at, 0, sizeof(ring_at));
	event_cycle = true;
	wr(OP + 0x38, 8);
	wr(OP + 0x30, DCBAA);
	wr(OP + 0x18, COMMANDS | 1);
	ts_put(&s, ERST, EVENTS);
	ts_put(&s, ERST + 8, NEVENTS);
	wr(RT + 8, 1);
	wr(RT + 0x18, EVENTS);
	wr(RT + 0x10, ERST);
	wr(RT + 0x14, 0);
	wr(RT, 2);
	wr(OP, 5);
}

static int setup(void **state)
{
	struct usb_device *d;
	struct scsi_device *unit;

	(void)state;
	ts_init(&s);
	in = (struct input){ 0 };
	assert_int_equal(xhci_new(&s.t.b, s.bus, &xhci, NULL), 0);
	assert_int_equal(usb_keyboard_new(&s.t.b, &in, &d, NULL), 0);
	assert_int_equal(xhci_plug(xhci, d), 1);
	assert_int_equal(usb_msc_new(&s.t.b, false, ts_disk(&s, false), "serial", 0, &d, &unit, NULL), 0);
	assert_int_equal(xhci_plug(xhci, d), 2);
	ts_start(&s);
	assert_true(pci_bar_mapped(xhci_pci(xhci), 0, &base));
	start();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	ts_fini(&s);
	return 0;
}

/* The next event, or one of type 0. */
static struct trb next_event(void)
{
	struct trb e;

	memcpy(&e, ts_ram(&s, EVENTS + 16 * event_at, 16), 16);
	if ((e.control & CYCLE) != event_cycle)
		return (struct trb){ 0 };
	if (++event_at == NEVENTS) {
		event_at = 0;
		event_cycle = !event_cycle;
	}
	wr(RT + 0x18, (EVENTS + 16 * event_at) | 8);
	return e;
}

static unsigned type(struct trb e)
{
	return e.control >> 10 & 63;
}

static unsigned code(struct trb e)
{
	return e.status >> 24;
}

static void put_trb(uint64_t at, struct trb t)
{
	memcpy(ts_ram(&s, at, 16), &t, 16);
}

/* Executes a command; its completion event. */
static struct trb command(uint64_t parameter, uint32_t kind, uint32_t flags)
{
	struct trb e;

	put_trb(COMMANDS + 16 * command_at++, (struct trb){ parameter, 0, kind << 10 | flags | CYCLE });
	wr(DB, 0);
	do
		e = next_event();
	while (type(e) == 34);
	assert_int_equal(type(e), 33);
	assert_int_equal(e.parameter, COMMANDS + 16 * (command_at - 1));
	return e;
}

static void queue(unsigned slot, unsigned ep, uint64_t parameter, uint32_t len, uint32_t kind, uint32_t flags)
{
	put_trb(RING(slot, ep) + 16 * ring_at[slot][ep]++,
		(struct trb){ parameter, len, kind << 10 | flags | CYCLE });
}

static void ring(unsigned slot, unsigned ep)
{
	wr(DB + 4 * slot, ep);
	ts_settle(&s);
}

static void input_context(unsigned i, unsigned dword, uint32_t v)
{
	ts_put(&s, INPUT + 32 * i + 4 * dword, v);
}

/* Resets a port, makes a slot for what is there, gives it an address. */
static unsigned address(unsigned port)
{
	struct trb e;
	unsigned slot;

	wr(PORTSC + 16 * (port - 1), 0x210);
	assert_int_equal(rd(PORTSC + 16 * (port - 1)) & 0x200e03, 0x200e03 & rd(PORTSC + 16 * (port - 1)));
	assert_true(rd(PORTSC + 16 * (port - 1)) & 2);
	e = command(0, 9, 0);
	assert_int_equal(code(e), 1);
	slot = e.control >> 24;
	ts_put(&s, DCBAA + 8 * slot, CONTEXT(slot));
	memset(ts_ram(&s, INPUT, 0x800), 0, 0x800);
	input_context(0, 1, 3);
	input_context(1, 0, 1u << 27 | 3u << 20);
	input_context(1, 1, port << 16);
	input_context(2, 1, 4 << 3 | 64 << 16);
	input_context(2, 2, RING(slot, 1) | 1);
	assert_int_equal(code(command(INPUT, 11, slot << 24)), 1);
	assert_int_equal(ts_get(&s, CONTEXT(slot) + 12), 2u << 27 | slot);
	return slot;
}

static struct trb control_transfer(unsigned slot, uint64_t setup_packet, uint32_t len)
{
	struct trb e;

	queue(slot, 1, setup_packet, 8, 2, IDT | (len ? 3 << 16 : 0));
	if (len)
		queue(slot, 1, BUF, len, 3, ISP | 1 << 16);
	queue(slot, 1, 0, 0, 4, IOC | (len ? 0 : 1 << 16));
	ring(slot, 1);
	e = next_event();
	if (type(e) == 32 && code(e) == 13) /* short data, then the status stage */
		e = next_event();
	return e;
}

/* dci: endpoint; kind: 7 interrupt in, 6 bulk in, 2 bulk out */
static void configure(unsigned slot, unsigned dci, unsigned kind)
{
	memset(ts_ram(&s, INPUT, 0x800), 0, 0x800);
	input_context(0, 1, 1 | 1u << dci);
	input_context(1, 0, dci << 27);
	input_context(dci + 1, 1, kind << 3 | 512u << 16);
	input_context(dci + 1, 2, RING(slot, dci) | 1);
	assert_int_equal(code(command(INPUT, 12, slot << 24)), 1);
	assert_int_equal(ts_get(&s, CONTEXT(slot) + 32 * dci) & 7, 1);
}

#define SET_CONFIGURATION 0x0000000000010900ull
#define GET_DEVICE        0x0012000001000680ull

static void registers(void **state)
{
	(void)state;
	assert_int_equal(rd(0) & 0xff, 0x40);
	assert_int_equal(rd(4) >> 24, XHCI_USB2_PORTS + XHCI_USB3_PORTS);
	assert_int_equal(rd(OP + 4) & 1, 0);
	assert_int_equal(rd(PORTSC) & 0x201, 0x201);
	assert_int_equal(rd(PORTSC + 32) & 1, 0);
	/* Both connections were told of as soon as it ran. */
	test_run(&s.t, 0);
	struct trb e = next_event();
	assert_int_equal(type(e), 34);
	assert_int_equal(e.parameter >> 24, 1);
	e = next_event();
	assert_int_equal(e.parameter >> 24, 2);
	assert_int_equal(type(next_event()), 0);
	wr(PORTSC, 0x20200);
	assert_int_equal(rd(PORTSC) & 0x20000, 0);
	assert_int_equal(mem_mmio_read(s.t.b.mem, GPA(base + 0x10), 8), 0x200000080001ull);
}

static void commands(void **state)
{
	(void)state;
	assert_int_equal(code(command(0, 23, 0)), 1);
	assert_int_equal(code(command(0, 63, 0)), 11);
	assert_int_equal(code(command(0, 10, 5 << 24)), 11); /* slot not enabled */
	for (unsigned i = 1; i <= 8; i++)
		assert_int_equal(command(0, 9, 0).control >> 24, i);
	assert_int_equal(code(command(0, 9, 0)), 9); /* no more than the guest wanted */
	for (uint32_t i = 1; i <= 8; i++)
		assert_int_equal(code(command(0, 10, i << 24)), 1);
	unsigned slot = address(1);
	assert_int_equal(code(command(0, 15, slot << 24 | 3 << 16)), 12); /* endpoint is not there */
	assert_int_equal(code(command(0, 15, slot << 24)), 5);
	assert_int_equal(code(command(0, 14, slot << 24 | 1 << 16)), 19); /* it is not halted */
	assert_int_equal(code(command(0, 15, slot << 24 | 1 << 16)), 1);
	assert_int_equal(ts_get(&s, CONTEXT(slot) + 32) & 7, 3);
	assert_int_equal(code(command(RING(slot, 1) | 1, 16, slot << 24 | 1 << 16)), 1);
	input_context(0, 1, 2);
	input_context(2, 1, 4 << 3 | 8 << 16);
	assert_int_equal(code(command(INPUT, 13, slot << 24)), 1);
	assert_int_equal(ts_get(&s, CONTEXT(slot) + 36) >> 16, 8);
	assert_int_equal(code(command(0, 17, slot << 24)), 1);
	assert_int_equal(ts_get(&s, CONTEXT(slot) + 12), 1u << 27);
	/* Two slots for one port; a port without a device. */
	unsigned other = command(0, 9, 0).control >> 24;
	ts_put(&s, DCBAA + 8 * other, CONTEXT(other));
	input_context(0, 1, 3);
	input_context(1, 1, 1 << 16);
	assert_int_equal(code(command(INPUT, 11, other << 24)), 17);
	input_context(1, 1, 5 << 16);
	assert_int_equal(code(command(INPUT, 11, other << 24)), 4);
	input_context(1, 1, 77 << 16);
	assert_int_equal(code(command(INPUT, 11, other << 24)), 17);
	assert_int_equal(code(command(0xfffffff0, 11, other << 24)), 5);
}

static void control_pipe(void **state)
{
	(void)state;
	unsigned slot = address(1);
	struct trb e = control_transfer(slot, GET_DEVICE, 18);
	assert_int_equal(type(e), 32);
	assert_int_equal(code(e), 1);
	assert_int_equal(e.control >> 24, slot);
	assert_int_equal(ts_get(&s, BUF) & 0xffff, 0x0112);
	/* More room than data. */
	e = control_transfer(slot, GET_DEVICE | 0xffffull << 48, 64);
	assert_int_equal(code(e), 1);
	assert_int_equal(code(control_transfer(slot, SET_CONFIGURATION, 0)), 1);
	/* A request that there is not: the pipe halts, and goes on when told to. */
	e = control_transfer(slot, 0x5500, 0);
	assert_int_equal(code(e), 6);
	assert_int_equal(ts_get(&s, CONTEXT(slot) + 32) & 7, 2);
	assert_int_equal(code(command(0, 14, slot << 24 | 1 << 16)), 1);
	assert_int_equal(code(command((RING(slot, 1) + 16 * ring_at[slot][1]) | 1, 16, slot << 24 | 1 << 16)),
			 1);
	assert_int_equal(code(control_transfer(slot, SET_CONFIGURATION, 0)), 1);
}

static void interrupt_pipe(void **state)
{
	(void)state;
	unsigned slot = address(1);
	assert_int_equal(code(control_transfer(slot, SET_CONFIGURATION, 0)), 1);
	configure(slot, 3, 7);
	queue(slot, 3, BUF, 8, 1, IOC | ISP);
	ring(slot, 3);
	assert_int_equal(type(next_event()), 0); /* it waits for a key */
	mutex_lock(&s.t.io);
	input_key(&in, KEY_C, true);
	mutex_unlock(&s.t.io);
	struct trb e = next_event();
	assert_int_equal(type(e), 32);
	assert_int_equal(code(e), 1);
	assert_int_equal(e.control >> 16 & 31, 3);
	assert_int_equal(ts_get(&s, BUF), 0x00060000);
	/* Stopped while it waits. */
	queue(slot, 3, BUF, 8, 1, IOC | ISP);
	ring(slot, 3);
	put_trb(COMMANDS + 16 * command_at++, (struct trb){ 0, 0, 15 << 10 | slot << 24 | 3 << 16 | CYCLE });
	wr(DB, 0);
	e = next_event();
	assert_int_equal(type(e), 32);
	assert_int_equal(code(e), 26);
	assert_int_equal(code(next_event()), 1);
	mutex_lock(&s.t.io);
	input_key(&in, KEY_C, false);
	mutex_unlock(&s.t.io);
	assert_int_equal(type(next_event()), 0);
	ring(slot, 3);
	assert_int_equal(code(next_event()), 1);
}

static void cbw(uint64_t at, uint8_t op, uint32_t lba, uint16_t count, bool to_host)
{
	uint8_t *p = ts_ram(&s, at, 31);

	memset(p, 0, 31);
	memcpy(p, "USBC", 4);
	p[9] = (uint8_t)(count << 1);
	p[10] = (uint8_t)(count >> 7);
	p[12] = to_host ? 0x80 : 0;
	p[14] = 10;
	p[15] = op;
	p[19] = (uint8_t)(lba >> 8);
	p[20] = (uint8_t)lba;
	p[22] = (uint8_t)(count >> 8);
	p[23] = (uint8_t)count;
}

static void bulk_pipes(void **state)
{
	(void)state;
	unsigned slot = address(2);
	assert_int_equal(code(control_transfer(slot, SET_CONFIGURATION, 0)), 1);
	configure(slot, 3, 6);
	configure(slot, 4, 2);
	/* A read of 130 sectors into three pieces, with a link between them. */
	cbw(BUF, 0x28, 100, 130, true);
	queue(slot, 4, BUF, 31, 1, IOC);
	queue(slot, 3, BUF + 0x10000, 0x8000, 1, CHAIN);
	queue(slot, 3, BUF + 0x20000, 0x8000, 1, CHAIN);
	queue(slot, 3, RING(slot, 3) + 0x100, 0, 6, CHAIN);
	ring_at[slot][3] = 16;
	queue(slot, 3, BUF + 0x30000, 0x400, 1, IOC | ISP);
	queue(slot, 3, BUF + 0x100, 13, 1, IOC);
	ring(slot, 4);
	ring(slot, 3);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(code(next_event()), 1);
	assert_int_equal(ts_get(&s, BUF + 0x10000), 100);
	assert_int_equal(ts_get(&s, BUF + 0x20000), 164);
	assert_int_equal(ts_get(&s, BUF + 0x303fc), 229);
	assert_int_equal(ts_get(&s, BUF + 0x100), 0x53425355);
	assert_int_equal(ts_get(&s, BUF + 0x10c) & 0xff, 0);
	/* A short read: the event says how much was left. */
	cbw(BUF, 0x28, 100, 1, true);
	queue(slot, 4, BUF, 31, 1, IOC);
	queue(slot, 3, BUF + 0x10000, 0x1000, 1, IOC | ISP);
	ring(slot, 4);
	ring(slot, 3);
	assert_int_equal(code(next_event()), 1);
	struct trb e = next_event();
	assert_int_equal(code(e), 13);
	assert_int_equal(e.status & 0xffffff, 0x1000 - 512);
}

/* Events wait while the ring is full, and none is lost. */
static void full_event_ring(void **state)
{
	(void)state;
	start();
	for (unsigned i = 0; i < 100; i++)
		put_trb(COMMANDS + 16 * i, (struct trb){ 0, 0, 23 << 10 | CYCLE });
	wr(DB, 0);
	unsigned seen = 0, ports = 0;
	for (unsigned i = 0; i < 1000 && seen + ports < 102; i++) {
		struct trb e = next_event();

		if (type(e) == 33)
			assert_int_equal(e.parameter, COMMANDS + 16 * seen++);
		else if (type(e) == 34)
			ports++;
		else
			test_run(&s.t, 0);
	}
	assert_int_equal(seen, 100);
	assert_int_equal(type(next_event()), 0);
}

static void hostile(void **state)
{
	uint32_t x = 11;

	(void)state;
	/* Rings that lead into themselves, or out of memory. */
	for (unsigned i = 0; i < 4; i++) {
		start();
		put_trb(COMMANDS, (struct trb){ i & 1 ? COMMANDS : 0xfffffff0, 0,
						6 << 10 | CYCLE | (i & 2 ? TOGGLE : 0) });
		wr(DB, 0);
	}
	start();
	/* A ring of commands without end: each pass is cut, and goes on later. */
	put_trb(COMMANDS, (struct trb){ 0, 0, 23 << 10 | CYCLE });
	put_trb(COMMANDS + 16, (struct trb){ COMMANDS, 0, 6 << 10 | CYCLE });
	wr(DB, 0);
	start();
	unsigned slot = address(2);
	control_transfer(slot, SET_CONFIGURATION, 0);
	configure(slot, 3, 6);
	configure(slot, 4, 2);
	/* A descriptor without end; one whose memory is none; immediate data that are too long. */
	for (unsigned i = 0; i < 200; i++)
		put_trb(RING(slot, 4) + 16 * i, (struct trb){ BUF, 1, 1 << 10 | CHAIN | CYCLE });
	put_trb(RING(slot, 4) + 16 * 200, (struct trb){ RING(slot, 4), 0, 6 << 10 | CYCLE });
	ring(slot, 4);
	put_trb(RING(slot, 3), (struct trb){ 0xffffff000, 64, 1 << 10 | CYCLE });
	ring(slot, 3);
	assert_int_equal(code(next_event()), 5);
	assert_int_equal(ts_get(&s, CONTEXT(slot) + 32 * 3) & 7, 4);
	for (unsigned i = 0; i < 60000; i++) {
		x = x * 1664525 + 1013904223;
		uint32_t v = x >> 28 ? x & 0x1ffff : x * 2654435761u;
		static const uint16_t regs[] = { OP,        OP + 4,    OP + 0x18,   OP + 0x30,
						 OP + 0x38, PORTSC,    PORTSC + 16, RT,
						 RT + 8,    RT + 0x10, RT + 0x14,   RT + 0x18,
						 DB,        DB,        DB + 4,      DB + 8 };

		if (x >> 29 < 3)
			ts_put(&s, DCBAA + (x >> 3 & 0x7fffc), v);
		mem_mmio_write(s.t.b.mem, GPA(base + regs[x >> 12 & 15]), x >> 16 & 1 ? v : x >> 25, 4);
		if ((x >> 5 & 0x3ff) == 0) {
			ts_settle(&s);
			start();
		}
	}
	ts_settle(&s);
	test_run(&s.t, 0);
}

static void round_trip(void **state)
{
	(void)state;
	unsigned slot = address(1);
	control_transfer(slot, SET_CONFIGURATION, 0);
	configure(slot, 3, 7);
	queue(slot, 3, BUF, 8, 1, IOC | ISP);
	ring(slot, 3);
	mutex_lock(&s.t.io);
	test_round_trip(&s.t);
	input_key(&in, KEY_D, true);
	mutex_unlock(&s.t.io);
	assert_int_equal(code(next_event()), 1);
	assert_int_equal(ts_get(&s, BUF), 0x00070000);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(registers),  T(commands),        T(control_pipe), T(interrupt_pipe),
		T(bulk_pipes), T(full_event_ring), T(hostile),      T(round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
