/* SPDX-License-Identifier: Apache-2.0 */
#include <time.h>
#include <unistd.h>

#include "dev/test_board.h"
#include "dev/timer/rtc.h"

static struct test_board t;
static struct rtc *rtc;
static unsigned rises;
static bool level;

static void line(void *opaque, unsigned pin, bool l)
{
	(void)opaque;
	(void)pin;
	rises += l && !level;
	level = l;
}

static int setup(void **state)
{
	(void)state;
	test_board_init(&t);
	rises = 0;
	level = false;
	assert_int_equal(rtc_new(&t.b, (struct irq_line){ .set = line }, &rtc, NULL), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	test_board_fini(&t);
	return 0;
}

static uint8_t rd(uint8_t i)
{
	test_out(&t, 0x70, i, 1);
	return test_in(&t, 0x71, 1);
}

static void wr(uint8_t i, uint8_t v)
{
	test_out(&t, 0x70, i, 1);
	test_out(&t, 0x71, v, 1);
}

static unsigned bcd(uint8_t v)
{
	return (v >> 4) * 10 + (v & 15);
}

/* The guest's time; reads again if a second passed in between. */
static time_t read_time(bool binary)
{
	struct tm tm = { 0 };
	uint8_t r[8];

	do {
		static const uint8_t regs[8] = { 0, 2, 4, 7, 8, 9, 0x32, 6 };

		for (unsigned i = 0; i < 8; i++) {
			uint8_t v = rd(regs[i]);

			r[i] = binary ? v : bcd(v);
		}
	} while (r[0] != (binary ? rd(0) : bcd(rd(0))));
	tm.tm_sec = r[0];
	tm.tm_min = r[1];
	tm.tm_hour = r[2];
	tm.tm_mday = r[3];
	tm.tm_mon = r[4] - 1;
	tm.tm_year = r[6] * 100 + r[5] - 1900;
	time_t s = timegm(&tm);
	assert_int_equal(r[7], tm.tm_wday + 1);
	return s;
}

/* By the precise clock: time() may be a timer interrupt late. */
static time_t host_time(void)
{
	return (time_t)(clock_wall_ns(&t.clock) / 1000000000);
}

/* Asked for before and after: a second may begin in between. */
static void expect_wall_clock(bool binary)
{
	time_t before = host_time(), shown = read_time(binary);

	assert_in_range(shown, before - 1, host_time());
}

static void shows_the_wall_clock(void **state)
{
	(void)state;
	expect_wall_clock(false);
	wr(0x0b, 0x06);
	expect_wall_clock(true);
	assert_int_equal(rd(0x0d), 0x80);
}

static void set_time(uint8_t mode)
{
	/* 2000-02-29 23:59:58, a Tuesday */
	static const uint8_t regs[7] = { 0, 2, 4, 7, 8, 9, 0x32 };
	static const uint8_t dec[7] = { 58, 59, 23, 29, 2, 0, 20 };
	static const uint8_t packed[7] = { 0x58, 0x59, 0x23, 0x29, 0x02, 0x00, 0x20 };

	wr(0x0b, 0x80 | mode);
	for (unsigned i = 0; i < 7; i++)
		wr(regs[i], mode & 4 ? dec[i] : packed[i]);
	wr(0x0b, mode);
}

static void can_be_set(void **state)
{
	(void)state;
	set_time(0x02);
	assert_in_range(read_time(false), 951868798, 951868799);
	set_time(0x06);
	assert_in_range(read_time(true), 951868798, 951868799);
	/* While SET the registers are memory. */
	wr(0x0b, 0x82);
	wr(0, 0x77);
	assert_int_equal(rd(0), 0x77);
	assert_int_equal(rd(0x0a) & 0x80, 0);
	wr(0x0b, 0x02);
	/* Leaving divider reset: the next second comes half a second later. */
	wr(0x0a, 0x70);
	wr(0, 0x10);
	wr(0x0a, 0x26);
	assert_int_equal(rd(0), 0x10);
}

/* Who waits for an update sees it, even if the processor did something else at that time. */
static void update_in_progress(void **state)
{
	(void)state;
	wr(0x0a, 0x70);
	wr(0x0a, 0x26);
	assert_int_equal(rd(0x0a), 0x26);
	usleep(600000);
	assert_int_equal(rd(0x0a), 0xa6);
	assert_int_equal(rd(0x0a), 0x26);
	wr(0x0b, 0x82);
	assert_int_equal(rd(0x0a), 0x26);
}

static void twelve_hours(void **state)
{
	(void)state;
	wr(0x0b, 0x80);
	wr(4, 0x92); /* 12 pm */
	wr(0x0b, 0x00);
	assert_int_equal(rd(4), 0x92);
	wr(0x0b, 0x02);
	assert_int_equal(rd(4), 0x12);
	wr(4, 0x00);
	wr(0x0b, 0x00);
	assert_int_equal(rd(4), 0x12); /* midnight is 12 am */
	wr(4, 0x81);
	wr(0x0b, 0x06);
	assert_int_equal(rd(4), 13);
}

static void periodic(void **state)
{
	(void)state;
	wr(0x0a, 0x26); /* 1024 Hz */
	wr(0x0b, 0x42);
	test_run(&t, 1000000);
	assert_true(level);
	assert_int_equal(rd(0x0c) & 0xc0, 0xc0);
	assert_false(level);
	assert_int_equal(rd(0x0c) & 0x80, 0);
	unsigned before = rises;
	test_run(&t, 100000000); /* merged, since nobody read the flag */
	assert_int_equal(rises, before + 1);
	/* Polled, without the interrupt. */
	wr(0x0b, 0x02);
	rd(0x0c);
	test_advance(&t, 2000000);
	assert_int_equal(rd(0x0c) & 0xc0, 0x40);
}

static void update_and_alarm(void **state)
{
	(void)state;
	set_time(0x02);
	rd(0x0c);
	wr(0x01, 0xff);
	wr(0x03, 0xff);
	wr(0x05, 0xff); /* every second */
	wr(0x0b, 0x32);
	/* Wall time is real here: wait for its second. */
	for (unsigned i = 0; i < 800 && !level; i++)
		test_run(&t, 0);
	assert_true(level);
	assert_int_equal(rd(0x0c) & 0xb0, 0xb0);
	wr(0x01, 0x75); /* a second that never comes */
	rd(0x0c);
	wr(0x0b, 0x22);
	test_run(&t, 0);
	assert_false(level);
}

static void memory_sizes(void **state)
{
	(void)state;
	assert_int_equal(rd(0x15) | rd(0x16) << 8, 640);
	assert_int_equal(rd(0x17) | rd(0x18) << 8, 1024);
	assert_int_equal(rd(0x34) | rd(0x35) << 8, 0);
	unsigned sum = 0;
	rtc_set_cmos(rtc, 0x20, 0xab);
	for (unsigned i = 0x10; i <= 0x2d; i++)
		sum += rd(i);
	assert_int_equal(rd(0x2e) << 8 | rd(0x2f), sum);
	rtc_set_cmos(rtc, 0x5f, 3);
	wr(0x60, 0x5a);
	board_reset(&t.b);
	assert_int_equal(rd(0x5f), 3);
	assert_int_equal(rd(0x60), 0x5a); /* the battery */
	test_out(&t, 0x70, 0x80, 1);
	assert_true(rtc_nmi_masked(rtc));
}

static void hostile_writes_and_round_trip(void **state)
{
	uint32_t x = 5;

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		x = x * 1664525 + 1013904223;
		wr(x >> 28 & 8 ? x >> 20 & 0x7f : x >> 20 & 0x0f, x >> 8);
		rd(x >> 16 & 0x3f);
		if (!(x & 0xf00))
			test_advance(&t, x);
	}
	wr(0x0b, 0x80); /* the wall clock would move between the two saves */
	wr(0x0a, 0x20);
	rd(0x0c);
	test_round_trip(&t);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(shows_the_wall_clock),
		T(can_be_set),
		T(update_in_progress),
		T(twelve_hours),
		T(periodic),
		T(update_and_alarm),
		T(memory_sizes),
		T(hostile_writes_and_round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
