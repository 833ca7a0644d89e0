/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "dev/test_board.h"

static struct test_board t;

#define LEVEL   0x8000u
#define MASKED  0x10000u
#define REMOTE  0x4000u
#define LOGICAL 0x800u
#define EXTINT  0x700u

static int setup(void **state)
{
	(void)state;
	test_board_init(&t);
	for (t.current = 0; t.current < TEST_CPUS; t.current++) {
		test_lapic_write(&t, 0xf0, 0x1ff);
		test_lapic_write(&t, 0xd0, 1u << (24 + t.current));
	}
	t.current = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	test_board_fini(&t);
	return 0;
}

static int ack(unsigned cpu)
{
	return lapic_ack(t.cpu[cpu].lapic);
}

static void eoi(unsigned cpu)
{
	t.current = cpu;
	test_lapic_write(&t, 0xb0, 0);
}

/* What a timer that must not lose edges asks: at the IOAPIC, and at the PIC where that is masked. */
static void state_of_a_line(void **state)
{
	(void)state;
	test_rte(&t, 2, 0x30, 1);
	assert_int_equal(irq_router_isa_state(t.router, 0), IRQ_IDLE);
	irq_router_set_isa(t.router, 0, true);
	assert_int_equal(irq_router_isa_state(t.router, 0), IRQ_PENDING);
	assert_int_equal(ack(1), 0x30);
	assert_int_equal(irq_router_isa_state(t.router, 0), IRQ_SERVED);
	eoi(1);
	assert_int_equal(irq_router_isa_state(t.router, 0), IRQ_IDLE);
	irq_router_set_isa(t.router, 0, false);
	test_rte(&t, 2, 0x30 | MASKED, 1);
	assert_int_equal(irq_router_isa_state(t.router, 0), IRQ_MASKED);
	test_pic_init(&t, 0xfe, 0xff);
	assert_int_equal(irq_router_isa_state(t.router, 0), IRQ_IDLE);
	irq_router_set_isa(t.router, 0, true);
	assert_int_equal(irq_router_isa_state(t.router, 0), IRQ_PENDING);
	mutex_lock(&t.router->lock);
	assert_int_equal(pic_ack_locked(t.router->pic), 0x20);
	mutex_unlock(&t.router->lock);
	assert_int_equal(irq_router_isa_state(t.router, 0), IRQ_SERVED);
	test_out(&t, 0x20, 0x20, 1);
	assert_int_equal(irq_router_isa_state(t.router, 0), IRQ_IDLE);
	irq_router_set_isa(t.router, 0, false);
}

static void registers(void **state)
{
	(void)state;
	assert_int_equal(test_ioapic_read(&t, 1), 0x00170020);
	test_ioapic_write(&t, 0, 0xffffffff);
	assert_int_equal(test_ioapic_read(&t, 0), 0x0f000000);
	assert_int_equal(test_ioapic_read(&t, 2), 0x0f000000);
	test_ioapic_write(&t, 1, 0);
	assert_int_equal(test_ioapic_read(&t, 1), 0x00170020);
	assert_int_equal(test_ioapic_read(&t, 0x10 + 2 * 23), MASKED);
	test_ioapic_write(&t, 0x10, 0xffffffff);
	assert_int_equal(test_ioapic_read(&t, 0x10),
			 0x1afff);               /* delivery status and remote IRR are read-only */
	test_ioapic_write(&t, 0x40, 0xffffffff); /* past the table */
	assert_int_equal(test_ioapic_read(&t, 0x40), 0);
	assert_int_equal(mem_mmio_read(t.b.mem, GPA(IOAPIC_BASE + 0xff0), 4), 0);
}

static void edge(void **state)
{
	(void)state;
	test_rte(&t, 4, 0x34, 1);
	irq_router_set_isa(t.router, 4, true);
	assert_int_equal(ack(0), -1);
	assert_int_equal(ack(1), 0x34);
	eoi(1);
	assert_int_equal(ack(1), -1);
	irq_router_set_isa(t.router, 4, false);
	irq_router_set_isa(t.router, 4, true);
	assert_int_equal(ack(1), 0x34);
	eoi(1);
	irq_router_set_isa(t.router, 4, false);
	test_rte(&t, 4, 0x34 | MASKED, 1);
	irq_router_set_isa(t.router, 4, true);
	test_rte(&t, 4, 0x34, 1);
	assert_int_equal(ack(1), -1); /* the edge came while masked: lost */
}

static void irq0_is_pin_2(void **state)
{
	(void)state;
	test_rte(&t, 2, 0x30, 0);
	irq_router_set_isa(t.router, 0, true);
	assert_int_equal(ack(0), 0x30);
}

static void level(void **state)
{
	(void)state;
	test_rte(&t, 16, 0x50 | LEVEL, 0);
	irq_router_set_pirq(t.router, 0, true);
	assert_int_equal(test_ioapic_read(&t, 0x10 + 32) & REMOTE, REMOTE);
	assert_int_equal(ack(0), 0x50);
	assert_int_equal(test_lapic_read(&t, 0x180 + 0x20), 1u << 16); /* TMR */
	eoi(0);
	assert_int_equal(ack(0), 0x50); /* still asserted */
	irq_router_set_pirq(t.router, 0, false);
	eoi(0);
	assert_int_equal(test_ioapic_read(&t, 0x10 + 32) & REMOTE, 0);
	assert_int_equal(ack(0), -1);
	test_rte(&t, 16, 0x50 | LEVEL | MASKED, 0);
	irq_router_set_pirq(t.router, 0, true);
	assert_int_equal(ack(0), -1);
	test_rte(&t, 16, 0x50 | LEVEL, 0); /* a level waits for the unmasking */
	assert_int_equal(ack(0), 0x50);
}

static void directed_eoi(void **state)
{
	(void)state;
	test_lapic_write(&t, 0xf0, 0x11ff); /* no broadcast */
	test_rte(&t, 17, 0x51 | LEVEL, 0);
	irq_router_set_pirq(t.router, 1, true);
	assert_int_equal(ack(0), 0x51);
	eoi(0);
	assert_int_equal(ack(0), -1);
	assert_int_equal(test_ioapic_read(&t, 0x10 + 34) & REMOTE, REMOTE);
	mem_mmio_write(t.b.mem, GPA(IOAPIC_BASE + 0x40), 0x51, 4);
	assert_int_equal(ack(0), 0x51);
	eoi(0);
	/* The old way: to edge and back. */
	test_rte(&t, 17, 0x51 | MASKED, 0);
	assert_int_equal(test_ioapic_read(&t, 0x10 + 34) & REMOTE, 0);
}

static void logical_and_lowest(void **state)
{
	(void)state;
	test_rte(&t, 5, 0x60 | LOGICAL, 0x03);
	irq_router_set_isa(t.router, 5, true);
	assert_int_equal(ack(0), 0x60);
	assert_int_equal(ack(1), 0x60);
	eoi(0);
	eoi(1);
	/* Lowest priority: only the one whose task priority is lower. */
	t.current = 0;
	test_lapic_write(&t, 0x80, 0x70);
	for (unsigned i = 0; i < 3; i++) {
		test_rte(&t, 6, 0x61 | LOGICAL | 0x100, 0x03);
		irq_router_set_isa(t.router, 6, true);
		irq_router_set_isa(t.router, 6, false);
		assert_int_equal(ack(0), -1);
		assert_int_equal(ack(1), 0x61);
		eoi(1);
	}
	/* Equals take turns. */
	t.current = 0;
	test_lapic_write(&t, 0x80, 0);
	unsigned got[2] = { 0, 0 };
	for (unsigned i = 0; i < 8; i++) {
		irq_router_set_isa(t.router, 6, true);
		irq_router_set_isa(t.router, 6, false);
		for (unsigned c = 0; c < 2; c++)
			if (ack(c) == 0x61) {
				got[c]++;
				eoi(c);
			}
	}
	assert_int_equal(got[0], 4);
	assert_int_equal(got[1], 4);
}

static void nobody_takes_it_now(void **state)
{
	(void)state;
	test_lapic_write(&t, 0xf0, 0xff); /* software-disabled */
	test_rte(&t, 18, 0x52 | LEVEL, 0);
	irq_router_set_pirq(t.router, 2, true);
	assert_int_equal(test_ioapic_read(&t, 0x10 + 36) & REMOTE, 0);
	test_lapic_write(&t, 0xf0, 0x1ff);
	assert_int_equal(ack(0), 0x52);
}

static void extint_on_pin_0(void **state)
{
	(void)state;
	test_lapic_write(&t, 0x350, 0x10700); /* LINT0 masked: only the IOAPIC's way is open */
	test_pic_init(&t, 0, 0);
	test_rte(&t, 0, EXTINT, 1);
	irq_router_set_isa(t.router, 1, true);
	assert_int_equal(ack(0), -1);
	assert_int_equal(ack(1), 0x21);
	assert_int_equal(ack(1), -1);
	test_out(&t, 0x20, 0x20, 1);
	irq_router_set_isa(t.router, 3, true);
	irq_router_set_isa(t.router, 4, true);
	assert_int_equal(ack(1), 0x23);
	test_out(&t, 0x20, 0x20, 1);
	assert_int_equal(ack(1), 0x24);
}

static void nmi_mode(void **state)
{
	(void)state;
	test_rte(&t, 7, 0x400, 0xff);
	irq_router_set_isa(t.router, 7, true);
	assert_int_equal(t.cpu[0].nmis, 1);
	assert_int_equal(t.cpu[1].nmis, 1);
}

static void msi(void **state)
{
	(void)state;
	assert_int_equal(msi_send(t.router, 0xfee01000, 0x4071), 0);
	assert_int_equal(ack(1), 0x71);
	assert_int_equal(msi_send(t.router, 0xfee02004, 0x4072), 0); /* logical 2 */
	assert_int_equal(ack(1), -1);                                /* 0x71 is in service and of its class */
	eoi(1);
	assert_int_equal(ack(1), 0x72);
	assert_int_equal(msi_send(t.router, 0xfedff000, 0), -EINVAL);
	assert_int_equal(msi_send(t.router, 0x1fee00000ull, 0), -EINVAL);
	assert_int_equal(msi_send(t.router, 0xfee00000, 0x8071), 0); /* level de-assert: nothing */
	assert_int_equal(msi_send(t.router, 0xfee00000, 0x0003), 0); /* illegal vector */
	assert_int_equal(ack(0), -1);
	test_lapic_write(&t, 0x280, 0);
	t.current = 0;
	test_lapic_write(&t, 0x280, 0);
	assert_int_equal(test_lapic_read(&t, 0x280), 0x40);
	for (uint32_t d = 0; d < 0x10000; d += 7)
		msi_send(t.router, 0xfee00000 | d << 3, d);
}

static void round_trip(void **state)
{
	uint32_t x = 7;

	(void)state;
	for (unsigned i = 0; i < 5000; i++) {
		x = x * 1664525 + 1013904223;
		test_ioapic_write(&t, x >> 24, x * 31);
		irq_router_set_isa(t.router, x >> 10 & 15, x >> 9 & 1);
		irq_router_set_pirq(t.router, x >> 15 & 3, x >> 14 & 1);
		mem_mmio_write(t.b.mem, GPA(IOAPIC_BASE + (x >> 20)), x, 1u << (x >> 5 & 3));
		mem_mmio_read(t.b.mem, GPA(IOAPIC_BASE + (x >> 20)), 1u << (x >> 5 & 3));
		ack(x & 1);
	}
	test_round_trip(&t);
	board_reset(&t.b);
	assert_int_equal(test_ioapic_read(&t, 0x10), MASKED);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(registers),
		T(edge),
		T(irq0_is_pin_2),
		T(state_of_a_line),
		T(level),
		T(directed_eoi),
		T(logical_and_lowest),
		T(nobody_takes_it_now),
		T(extint_on_pin_0),
		T(nmi_mode),
		T(msi),
		T(round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
