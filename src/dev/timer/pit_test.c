/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/test_board.h"
#include "dev/timer/pit.h"

static struct test_board t;
static unsigned rises; /* that the guest will see */
static bool level;
static enum irq_state line_state;

static void line(void *opaque, unsigned pin, bool l)
{
	(void)opaque;
	(void)pin;
	rises += l && !level && line_state != IRQ_PENDING;
	level = l;
}

static enum irq_state state_of_line(void *opaque, unsigned pin)
{
	(void)opaque;
	(void)pin;
	return line_state;
}

static int setup(void **state)
{
	struct pit *p;

	(void)state;
	test_board_init(&t);
	rises = 0;
	level = false;
	line_state = IRQ_IDLE;
	assert_int_equal(pit_new(&t.b, (struct irq_line){ .set = line, .state = state_of_line }, &p, NULL),
			 0);
	test_out(&t, 0x43, 0x30, 1); /* channel 0 quiet: mode 0 without a count */
	rises = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	test_board_fini(&t);
	return 0;
}

/* ns of n ticks, and a bit. */
static int64_t ticks(int64_t n)
{
	return (n * 1000000000 + PIT_HZ - 1) / PIT_HZ + 1;
}

static void program(unsigned ch, uint8_t mode, uint16_t n)
{
	test_out(&t, 0x43, ch << 6 | 0x30 | mode << 1, 1);
	test_out(&t, 0x40 + ch, n & 0xff, 1);
	test_out(&t, 0x40 + ch, n >> 8, 1);
}

static unsigned count(unsigned ch)
{
	unsigned lo;

	test_out(&t, 0x43, ch << 6, 1);
	lo = test_in(&t, 0x40 + ch, 1);
	return lo | test_in(&t, 0x40 + ch, 1) << 8;
}

static uint8_t status(unsigned ch)
{
	test_out(&t, 0x43, 0xe0 | 2u << ch, 1);
	return test_in(&t, 0x40 + ch, 1);
}

static bool out2(void)
{
	return test_in(&t, 0x61, 1) & 0x20;
}

/* What Linux' TSC calibration does. */
static void mode_0_on_channel_2(void **state)
{
	(void)state;
	test_out(&t, 0x61, 0x01, 1);
	program(2, 0, 1000);
	assert_false(out2());
	assert_int_equal(count(2), 1000);
	test_advance(&t, ticks(400));
	assert_int_equal(count(2), 600);
	test_out(&t, 0x61, 0, 1); /* gate low: it waits */
	test_advance(&t, ticks(5000));
	assert_int_equal(count(2), 600);
	test_out(&t, 0x61, 1, 1);
	test_advance(&t, ticks(599));
	assert_false(out2());
	test_advance(&t, ticks(1));
	assert_true(out2());
	test_advance(&t, ticks(1));
	assert_in_range(count(2), 0xfff0, 0xffff); /* goes on below zero */
	test_out(&t, 0x43, 0xb0, 1);
	assert_false(out2());
}

static void mode_1_wants_a_trigger(void **state)
{
	(void)state;
	program(2, 1, 100);
	assert_true(out2());
	test_advance(&t, ticks(500));
	assert_true(out2());
	test_out(&t, 0x61, 1, 1);
	assert_false(out2());
	test_advance(&t, ticks(50));
	test_out(&t, 0x61, 0, 1);
	test_out(&t, 0x61, 1, 1); /* again */
	test_advance(&t, ticks(99));
	assert_false(out2());
	test_advance(&t, ticks(2));
	assert_true(out2());
}

static void mode_2_and_new_counts(void **state)
{
	(void)state;
	test_out(&t, 0x61, 1, 1);
	program(2, 2, 100);
	test_advance(&t, ticks(99) - 1);
	assert_false(out2());
	assert_int_equal(count(2), 1);
	test_advance(&t, ticks(1) + 1);
	assert_true(out2());
	assert_int_equal(count(2), 100);
	test_out(&t, 0x42, 50, 1);
	test_out(&t, 0x42, 0, 1);
	test_advance(&t, ticks(60));
	assert_int_equal(status(2) & 0x40, 0x40); /* null count: it waits for the period's end */
	assert_int_equal(count(2), 40);
	test_advance(&t, ticks(42));
	assert_in_range(count(2), 45, 50);
	assert_int_equal(status(2) & 0x7f, 0x34);
}

static void mode_3_is_square(void **state)
{
	(void)state;
	test_out(&t, 0x61, 1, 1);
	program(2, 3, 100);
	test_advance(&t, ticks(49));
	assert_true(out2());
	test_advance(&t, ticks(2));
	assert_false(out2());
	assert_in_range(count(2), 94, 100);
	test_advance(&t, ticks(50));
	assert_true(out2());
	program(2, 7, 1); /* nonsense count */
	count(2);
	assert_int_equal(status(2) & 0x0e, 6);
}

static void modes_4_and_5_strobe(void **state)
{
	(void)state;
	test_out(&t, 0x61, 1, 1);
	program(2, 4, 100);
	test_advance(&t, ticks(100));
	assert_false(out2());
	test_advance(&t, ticks(1));
	assert_true(out2());
	test_out(&t, 0x61, 0, 1);
	program(2, 5, 100);
	test_advance(&t, ticks(100));
	assert_true(out2());
	test_out(&t, 0x61, 1, 1);
	test_advance(&t, ticks(100));
	assert_false(out2());
	test_advance(&t, ticks(1));
	assert_true(out2());
}

static void latches_and_read_back(void **state)
{
	(void)state;
	test_out(&t, 0x61, 1, 1);
	program(2, 2, 0); /* 65536 */
	test_advance(&t, ticks(1000));
	test_out(&t, 0x43, 0xc8, 1); /* count and status of channel 2 */
	test_advance(&t, ticks(1000));
	test_out(&t, 0x43, 0x80, 1); /* latched already: ignored */
	assert_int_equal(test_in(&t, 0x42, 1), 0xb4);
	unsigned v = test_in(&t, 0x42, 1);
	v |= test_in(&t, 0x42, 1) << 8;
	assert_int_equal(v, 65536 - 1000);
	v = test_in(&t, 0x42, 1); /* live again */
	v |= test_in(&t, 0x42, 1) << 8;
	assert_in_range(65536 - v, 2000, 2002);
	assert_int_equal(test_in(&t, 0x43, 1), 0xff);
}

static void bcd(void **state)
{
	(void)state;
	test_out(&t, 0x61, 1, 1);
	test_out(&t, 0x43, 0xb1, 1);
	test_out(&t, 0x42, 0x34, 1);
	test_out(&t, 0x42, 0x12, 1);
	assert_int_equal(count(2), 0x1234);
	test_advance(&t, ticks(235));
	assert_int_equal(count(2), 0x0999);
	test_advance(&t, ticks(1000));
	assert_in_range(count(2), 0x9990, 0x9999);
	test_out(&t, 0x43, 0xb5, 1);
	test_out(&t, 0x42, 0xff, 1);
	test_out(&t, 0x42, 0xff, 1); /* no digits at all */
	count(2);
}

static void one_byte_access(void **state)
{
	(void)state;
	test_out(&t, 0x61, 1, 1);
	test_out(&t, 0x43, 0x94, 1); /* channel 2, low byte, mode 2 */
	test_out(&t, 0x42, 200, 1);
	assert_int_equal(test_in(&t, 0x42, 1), 200);
	assert_int_equal(test_in(&t, 0x42, 1), 200);
	test_out(&t, 0x43, 0xa4, 1); /* high byte */
	test_out(&t, 0x42, 2, 1);
	assert_int_equal(test_in(&t, 0x42, 1), 2);
}

static void irq0(void **state)
{
	(void)state;
	program(0, 2, 11932); /* 10 ms */
	assert_true(level);
	rises = 0;
	test_run(&t, 10000000);
	assert_int_equal(rises, 1);
	test_run(&t, 10000000);
	assert_int_equal(rises, 2);
	program(0, 0, 11932);
	assert_false(level);
	rises = 0;
	test_run(&t, 10100000);
	assert_int_equal(rises, 1);
	assert_true(level);
	test_run(&t, 50000000);
	assert_int_equal(rises, 1);
	program(0, 2, 1); /* a storm: held down */
	rises = 0;
	test_run(&t, 0);
	assert_in_range(rises, 0, 200);
	program(0, 4, 1000);
	rises = 0;
	test_run(&t, 50000000);
	assert_int_equal(rises, 1);
}

/* While time goes on: the rise comes, however soon it is due. */
static void shortest_count(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 50; i++) {
		test_out(&t, 0x43, 0x30, 1);
		rises = 0;
		clock_start(&t.clock);
		test_out(&t, 0x40, 1, 1);
		test_out(&t, 0x40, 0, 1);
		clock_stop(&t.clock);
		test_run(&t, 0);
		assert_int_equal(rises, 1);
	}
}

/* Time is the host's in part: where it passes too fast for the guest, more gets lost than is owed. */
static void skip_if_late(int64_t start, int64_t planned)
{
	if (t.clock.stopped_ns - start < 2 * planned)
		return;
	print_message("skipped: the host is too busy to keep time\n");
	skip();
}

static void lost_rises_are_owed(void **state)
{
	int64_t begin = t.clock.stopped_ns;

	(void)state;
	program(0, 2, 11932); /* 10 ms */
	rises = 0;
	test_run(&t, 36000000); /* the loop is late for three */
	assert_int_equal(rises, 1);
	for (unsigned i = 0; i < 10; i++) /* steps of 3 ms and what the loop takes */
		test_run(&t, 3000000);
	skip_if_late(begin, 90000000);
	unsigned expected = (unsigned)((t.clock.stopped_ns - 1000000000) / 10000000);
	assert_in_range(rises, expected - 1, expected);
	/* The guest takes none for a while. */
	line_state = IRQ_PENDING;
	test_run(&t, 20000000);
	test_run(&t, 20000000);
	line_state = IRQ_IDLE;
	for (unsigned i = 0; i < 20; i++)
		test_run(&t, 3000000);
	skip_if_late(begin, 250000000);
	expected = (unsigned)((t.clock.stopped_ns - 1000000000) / 10000000);
	assert_in_range(rises, expected - 1, expected);
	/* One that is busy with the last gets no more than are due. */
	line_state = IRQ_PENDING;
	test_run(&t, 30000000);
	line_state = IRQ_SERVED;
	rises = 0;
	for (unsigned i = 0; i < 4; i++)
		test_run(&t, 8000000);
	assert_in_range(rises, 2, 5);
	/* No more than those of a second, and not one that is masked. */
	line_state = IRQ_PENDING;
	for (unsigned i = 0; i < 3; i++)
		test_run(&t, 1000000000);
	line_state = IRQ_IDLE;
	rises = 0;
	int64_t start = t.clock.stopped_ns;
	for (unsigned i = 0; i < 400; i++)
		test_run(&t, 3000000);
	skip_if_late(start, 2000000000);
	expected = (unsigned)((t.clock.stopped_ns - start) / 10000000) + 100;
	assert_in_range(rises, expected - 3, expected + 1);
	line_state = IRQ_MASKED;
	test_run(&t, 1000000000);
	line_state = IRQ_IDLE;
	rises = 0;
	start = t.clock.stopped_ns;
	test_run(&t, 0);
	test_run(&t, 6000000);
	assert_in_range(rises, 0, 1 + (t.clock.stopped_ns - start) / 10000000);
}

static void refresh_toggles(void **state)
{
	(void)state;
	uint8_t a = test_in(&t, 0x61, 1) & 0x10;

	test_advance(&t, 15085);
	assert_int_not_equal(test_in(&t, 0x61, 1) & 0x10, a);
	test_out(&t, 0x61, 0xff, 1);
	assert_int_equal(test_in(&t, 0x61, 1) & 0x0f, 0x0f);
}

static void hostile_writes_and_round_trip(void **state)
{
	uint32_t x = 3;

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		static const uint16_t ports[] = { 0x40, 0x41, 0x42, 0x43, 0x61 };

		x = x * 1664525 + 1013904223;
		test_out(&t, ports[(x >> 20) % 5], x >> 24, 1);
		test_in(&t, ports[(x >> 12) % 5], 1u << (x >> 16 & 1));
		test_advance(&t, x & 0x800 ? x : x & 0xff);
	}
	test_round_trip(&t);
	board_reset(&t.b);
	assert_int_equal(status(0) & 0x0e, 6);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(mode_0_on_channel_2),
		T(mode_1_wants_a_trigger),
		T(mode_2_and_new_counts),
		T(mode_3_is_square),
		T(modes_4_and_5_strobe),
		T(latches_and_read_back),
		T(bcd),
		T(one_byte_access),
		T(irq0),
		T(shortest_count),
		T(lost_rises_are_owed),
		T(refresh_toggles),
		T(hostile_writes_and_round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
