/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/test_board.h"

static struct test_board t;

static int setup(void **state)
{
	(void)state;
	test_board_init(&t);
	test_pic_init(&t, 0, 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	test_board_fini(&t);
	return 0;
}

static void line(unsigned irq, bool level)
{
	irq_router_set_isa(t.router, irq, level);
}

static void pulse(unsigned irq)
{
	line(irq, true);
	line(irq, false);
}

static int ack(void)
{
	return lapic_ack(t.cpu[0].lapic);
}

/* Straight from the chip, whether or not it asks. */
static int raw_ack(void)
{
	mutex_lock(&t.router->lock);
	int v = pic_ack_locked(t.router->pic);
	mutex_unlock(&t.router->lock);
	return v;
}

static uint8_t read_isr(uint16_t port)
{
	test_out(&t, port, 0x0b, 1);
	return test_in(&t, port, 1);
}

static uint8_t read_irr(uint16_t port)
{
	test_out(&t, port, 0x0a, 1);
	return test_in(&t, port, 1);
}

static void eoi(uint16_t port)
{
	test_out(&t, port, 0x20, 1);
}

static void edge_is_latched_once(void **state)
{
	(void)state;
	line(4, true);
	assert_true(lapic_irq_pending(t.cpu[0].lapic));
	assert_int_equal(ack(), 0x24);
	assert_int_equal(read_isr(0x20), 0x10);
	eoi(0x20);
	assert_int_equal(ack(), -1); /* still high: no new edge */
	line(4, false);
	line(4, true);
	assert_int_equal(ack(), 0x24);
}

static void level_follows_the_pin(void **state)
{
	(void)state;
	test_out(&t, 0x4d1, 0xff, 1);
	assert_int_equal(test_in(&t, 0x4d1, 1), 0xde); /* 8 and 13 cannot be level */
	test_out(&t, 0x4d0, 0xff, 1);
	assert_int_equal(test_in(&t, 0x4d0, 1), 0xf8);
	line(11, true);
	assert_int_equal(ack(), 0x2b);
	eoi(0xa0);
	eoi(0x20);
	assert_int_equal(ack(), 0x2b); /* still asserted */
	line(11, false);
	eoi(0xa0);
	eoi(0x20);
	assert_int_equal(ack(), -1);
	assert_int_equal(read_irr(0xa0), 0);
}

static void priorities_nest(void **state)
{
	(void)state;
	pulse(5);
	assert_int_equal(ack(), 0x25);
	pulse(6);
	assert_int_equal(ack(), -1);
	pulse(1);
	assert_int_equal(ack(), 0x21);
	eoi(0x20); /* non-specific: the highest in service, IRQ 1 */
	assert_int_equal(read_isr(0x20), 0x20);
	eoi(0x20);
	assert_int_equal(ack(), 0x26);
}

static void rotation(void **state)
{
	(void)state;
	test_out(&t, 0x20, 0xc0 | 3, 1); /* IRQ 3 lowest: 4 is the highest */
	pulse(0);
	pulse(4);
	assert_int_equal(ack(), 0x24);
	test_out(&t, 0x20, 0xa0, 1); /* rotate on non-specific EOI: 4 lowest, 5 highest */
	pulse(4);
	pulse(5);
	assert_int_equal(ack(), 0x25);
	test_out(&t, 0x20, 0xe0 | 5, 1); /* rotate on specific EOI: 6 highest, 0 before 4 */
	assert_int_equal(ack(), 0x20);
	test_out(&t, 0x20, 0x60 | 0, 1);
	assert_int_equal(ack(), 0x24);
}

static void automatic_eoi(void **state)
{
	static const uint8_t icw[4] = { 0x11, 0x20, 0x04, 0x03 };

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		test_out(&t, 0x20 + (i > 0), icw[i], 1);
	pulse(3);
	assert_int_equal(ack(), 0x23);
	assert_int_equal(read_isr(0x20), 0);
	test_out(&t, 0x20, 0x80, 1); /* rotate in automatic EOI */
	pulse(3);
	assert_int_equal(ack(), 0x23);
	pulse(3);
	pulse(4);
	assert_int_equal(ack(), 0x24); /* 3 went to the bottom */
}

static void special_mask_mode(void **state)
{
	(void)state;
	pulse(2 + 1);
	assert_int_equal(ack(), 0x23);
	pulse(6);
	assert_int_equal(ack(), -1);
	test_out(&t, 0x21, 0x08, 1);
	test_out(&t, 0x20, 0x68, 1); /* special mask on: a masked one in service locks out nobody */
	assert_int_equal(ack(), 0x26);
	eoi(0x20); /* non-specific leaves the masked IRQ 3 alone */
	assert_int_equal(read_isr(0x20), 0x08);
	test_out(&t, 0x20, 0x48, 1);
	eoi(0x20);
	assert_int_equal(read_isr(0x20), 0);
}

static void special_fully_nested(void **state)
{
	static const uint8_t icw[4] = { 0x11, 0x20, 0x04, 0x11 }, slave[4] = { 0x11, 0x28, 0x02, 0x01 };

	(void)state;
	pulse(12);
	assert_int_equal(ack(), 0x2c);
	pulse(9);
	assert_int_equal(ack(), -1); /* the cascade is in service */
	for (unsigned i = 0; i < 4; i++)
		test_out(&t, 0x20 + (i > 0), icw[i], 1);
	for (unsigned i = 0; i < 4; i++)
		test_out(&t, 0xa0 + (i > 0), slave[i], 1);
	pulse(12);
	assert_int_equal(ack(), 0x2c);
	pulse(9);
	assert_int_equal(ack(), 0x29);
}

static void polling(void **state)
{
	(void)state;
	test_out(&t, 0x20, 0x0c, 1);
	assert_int_equal(test_in(&t, 0x20, 1), 0);
	pulse(6);
	test_out(&t, 0x20, 0x0c, 1);
	assert_int_equal(test_in(&t, 0x20, 1), 0x86);
	assert_int_equal(read_isr(0x20), 0x40);
	assert_false(lapic_irq_pending(t.cpu[0].lapic));
}

static void spurious(void **state)
{
	(void)state;
	assert_int_equal(raw_ack(), 0x27);
	assert_int_equal(read_isr(0x20), 0);
	/* The slave's level request goes while the master still has it latched. */
	test_out(&t, 0x4d1, 0x08, 1);
	line(11, true);
	line(11, false);
	assert_int_equal(ack(), 0x2f);
	assert_int_equal(read_isr(0x20), 0x04);
	assert_int_equal(read_isr(0xa0), 0);
}

static void masks(void **state)
{
	(void)state;
	test_out(&t, 0x21, 0xff, 1);
	pulse(3);
	assert_int_equal(ack(), -1);
	assert_int_equal(read_irr(0x20), 0x08);
	assert_int_equal(test_in(&t, 0x21, 1), 0xff);
	test_out(&t, 0x21, 0xf7, 1);
	assert_int_equal(ack(), 0x23);
	assert_int_equal(ack(), -1);
}

static void half_initialised_is_silent(void **state)
{
	(void)state;
	test_out(&t, 0x20, 0x11, 1);
	pulse(1);
	assert_int_equal(ack(), -1);
	test_out(&t, 0x21, 0x40, 1);
	test_out(&t, 0x21, 0x04, 1);
	test_out(&t, 0x21, 0x01, 1);
	assert_int_equal(ack(), 0x41);
}

static void pirq_routes(void **state)
{
	(void)state;
	test_out(&t, 0x4d1, 0x0c, 1);
	irq_router_route_pirq(t.router, 0, 10);
	irq_router_route_pirq(t.router, 2, 10);
	irq_router_set_pirq(t.router, 0, true);
	irq_router_set_pirq(t.router, 2, true);
	irq_router_set_pirq(t.router, 0, false);
	assert_int_equal(ack(), 0x2a);         /* shared: the other one holds it */
	irq_router_route_pirq(t.router, 2, 8); /* not a pin that PIRQs reach */
	eoi(0xa0);
	eoi(0x20);
	assert_int_equal(ack(), -1);
	irq_router_route_pirq(t.router, 2, 11);
	assert_int_equal(ack(), 0x2b);
	irq_router_set_pirq(t.router, 77, true);
	irq_router_set_isa(t.router, 77, true);
}

static void hostile_writes_and_round_trip(void **state)
{
	uint32_t x = 1;

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		static const uint16_t ports[] = { 0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1 };

		x = x * 1664525 + 1013904223;
		line(x >> 10 & 15, x >> 9 & 1);
		test_out(&t, ports[(x >> 20) % 6], x >> 24, 1u << (x >> 16 & 1));
		test_in(&t, ports[(x >> 12) % 6], 1);
		if (x >> 31)
			ack();
	}
	test_round_trip(&t);
	board_reset(&t.b);
	assert_int_equal(test_in(&t, 0x21, 1), 0xff);
	assert_int_equal(test_in(&t, 0x4d0, 1), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(edge_is_latched_once),
		T(level_follows_the_pin),
		T(priorities_nest),
		T(rotation),
		T(automatic_eoi),
		T(special_mask_mode),
		T(special_fully_nested),
		T(polling),
		T(spurious),
		T(masks),
		T(half_initialised_is_silent),
		T(pirq_routes),
		T(hostile_writes_and_round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
