/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/test_board.h"
#include "dev/timer/hpet.h"
#include "dev/timer/pit.h"
#include "dev/timer/rtc.h"

#define CONFIG    0x010
#define STATUS    0x020
#define COUNTER   0x0f0
#define T(n, reg) (0x100 + 0x20 * (n) + (reg))
#define CMP       8

#define ENABLE 1
#define LEGACY 2

#define T_LEVEL    0x0002
#define T_ENABLE   0x0004
#define T_PERIODIC 0x0008
#define T_SET      0x0040
#define T_32       0x0100
#define ROUTE(pin) ((pin) << 9)

#define MS 1000000ll

static struct test_board t;

/* As on the machine: the PIT's and the RTC's lines go through the HPET. Pin n has vector 0x40 + n, and the
 * PIT's is masked. */
static int setup(void **state)
{
	struct hpet *h;
	struct pit *pit;
	struct rtc *rtc;

	(void)state;
	test_board_init(&t);
	assert_int_equal(hpet_new(&t.b, t.router, &h, NULL), 0);
	assert_int_equal(pit_new(&t.b, hpet_pit_line(h), &pit, NULL), 0);
	assert_int_equal(rtc_new(&t.b, hpet_rtc_line(h), &rtc, NULL), 0);
	test_lapic_write(&t, 0xf0, 0x1ff);
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
		test_rte(&t, pin, pin == 2 ? 0x10000 : 0x40 + pin, 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	test_board_fini(&t);
	return 0;
}

static uint64_t rd(unsigned reg)
{
	return mem_mmio_read(t.b.mem, GPA(HPET_BASE + reg), 8);
}

static uint32_t rd32(unsigned reg)
{
	return (uint32_t)mem_mmio_read(t.b.mem, GPA(HPET_BASE + reg), 4);
}

static void wr(unsigned reg, uint64_t v)
{
	mem_mmio_write(t.b.mem, GPA(HPET_BASE + reg), v, 8);
}

static void wr32(unsigned reg, uint32_t v)
{
	mem_mmio_write(t.b.mem, GPA(HPET_BASE + reg), v, 4);
}

/* The pin whose interrupt the processor takes now, or -1. */
static int take(void)
{
	int v = lapic_ack(t.cpu[0].lapic);

	if (v >= 0)
		test_lapic_write(&t, 0xb0, 0);
	return v < 0 ? -1 : v - 0x40;
}

/* Lets time pass without the loop, and has the device notice. */
static void pass(int64_t ns)
{
	test_advance(&t, ns);
	rd(STATUS);
}

static void registers(void **state)
{
	(void)state;
	assert_int_equal(rd(0), 0x009896808086a201);
	assert_int_equal(rd32(4), 10000000);
	for (unsigned n = 0; n < 3; n++) {
		assert_int_equal(rd(T(n, 0)), 0x00f0000000000030);
		assert_int_equal(rd(T(n, CMP)), UINT64_MAX);
		assert_int_equal(rd(T(n, 16)), 0);
	}
	assert_int_equal(rd(T(3, 0)), 0);
	assert_int_equal(rd(0x3f8), 0);
	wr(0, 0);
	assert_int_equal(rd32(0), 0x8086a201);
	wr(CONFIG, UINT64_MAX);
	assert_int_equal(rd(CONFIG), ENABLE | LEGACY);
	/* What is no route is not taken, nor what is no bit. */
	wr(T(1, 0), T_LEVEL | T_32 | ROUTE(21));
	wr(T(1, 0), ~(uint64_t)0);
	assert_int_equal(rd32(T(1, 0)), 0x017e | ROUTE(21));
	wr(T(1, 0), ROUTE(2));
	assert_int_equal(rd32(T(1, 0)), 0x0030 | ROUTE(21));
	/* Less than a dword is read, not written. */
	mem_mmio_write(t.b.mem, GPA(HPET_BASE + CONFIG), 0, 1);
	mem_mmio_write(t.b.mem, GPA(HPET_BASE + CONFIG), 0, 2);
	assert_int_equal(mem_mmio_read(t.b.mem, GPA(HPET_BASE + CONFIG), 1), ENABLE | LEGACY);
	assert_int_equal(mem_mmio_read(t.b.mem, GPA(HPET_BASE + 2), 2), 0x8086);
}

static void counter(void **state)
{
	(void)state;
	test_advance(&t, MS);
	assert_int_equal(rd(COUNTER), 0);
	wr(CONFIG, ENABLE);
	test_advance(&t, MS + 9);
	assert_int_equal(rd(COUNTER), 100000);
	test_advance(&t, 1);
	assert_int_equal(rd(COUNTER), 100001);
	wr(CONFIG, 0);
	test_advance(&t, MS);
	assert_int_equal(rd(COUNTER), 100001);
	wr32(COUNTER + 4, 1);
	wr32(COUNTER, 0xffffffff);
	assert_int_equal(rd(COUNTER), 0x1ffffffff);
	wr(CONFIG, ENABLE);
	test_advance(&t, 20);
	assert_int_equal(rd32(COUNTER), 1);
	assert_int_equal(rd32(COUNTER + 4), 2);
	wr(COUNTER, UINT64_MAX);
	test_advance(&t, 10);
	assert_int_equal(rd(COUNTER), 0);
}

static void one_shot(void **state)
{
	(void)state;
	wr(CONFIG, ENABLE);
	wr(T(2, 0), T_ENABLE | ROUTE(23));
	wr(T(2, CMP), 1000);
	pass(9999);
	assert_int_equal(take(), -1);
	pass(1);
	assert_int_equal(take(), 23);
	assert_int_equal(rd(STATUS), 0);
	assert_int_equal(rd(T(2, CMP)), 1000);
	pass(60000 * MS);
	assert_int_equal(take(), -1);
	/* Written too late: at once. Written for good, as to be out of the way: never. */
	wr(T(2, CMP), rd(COUNTER) - 5);
	assert_int_equal(take(), 23);
	wr(T(2, CMP), UINT64_MAX);
	wr(T(2, CMP), 0);
	pass(60000 * MS);
	assert_int_equal(take(), -1);
	/* 32 bits match each time they come round. */
	wr(T(2, 0), T_ENABLE | T_32 | ROUTE(23));
	wr(T(2, CMP), (rd(COUNTER) & 0xffffffff) + (7ull << 32) + 100);
	assert_int_equal(rd(T(2, CMP)) >> 32, 0);
	pass(1000);
	assert_int_equal(take(), 23);
	pass((10ll << 32) - 10);
	assert_int_equal(take(), -1);
	pass(10);
	assert_int_equal(take(), 23);
	/* Neither a timer that is off nor one without a route interrupts. */
	wr(T(2, 0), ROUTE(23));
	wr(T(2, CMP), rd(COUNTER));
	wr(T(1, 0), T_ENABLE);
	wr(T(1, CMP), rd(COUNTER));
	assert_int_equal(take(), -1);
}

/* The host's timer, not only the guest's accesses. */
static void the_loop_wakes(void **state)
{
	(void)state;
	wr(CONFIG, ENABLE);
	wr(T(1, 0), T_ENABLE | ROUTE(22));
	wr(T(1, CMP), 10000 * MS / 10);
	test_run(&t, MS);
	assert_int_equal(take(), -1);
	test_run(&t, 10000 * MS);
	assert_int_equal(take(), 22);
	/* Off, the counter stands, and so do the timers. */
	wr(T(1, CMP), rd(COUNTER) + 100);
	wr(CONFIG, 0);
	test_run(&t, MS);
	assert_int_equal(take(), -1);
	wr(CONFIG, ENABLE);
	test_run(&t, MS);
	assert_int_equal(take(), 22);
}

static void level(void **state)
{
	(void)state;
	test_rte(&t, 20, 0x8000 | 0x54, 0);
	wr(CONFIG, ENABLE);
	wr(T(0, 0), T_LEVEL | ROUTE(20));
	wr(T(0, CMP), 10);
	pass(1000);
	assert_int_equal(rd(STATUS), 1); /* without an interrupt, which comes when it is allowed */
	assert_int_equal(take(), -1);
	wr(T(0, 0), T_LEVEL | T_ENABLE | ROUTE(20));
	assert_int_equal(take(), 20);
	assert_int_equal(take(), 20); /* still there */
	wr(CONFIG, 0);
	take();
	assert_int_equal(take(), -1);
	assert_int_equal(rd(STATUS), 1);
	wr(CONFIG, ENABLE);
	assert_int_equal(take(), 20);
	wr(STATUS, 6);
	assert_int_equal(rd(STATUS), 1);
	/* Two on a line. */
	wr(T(1, 0), T_LEVEL | T_ENABLE | ROUTE(20));
	wr(T(1, CMP), rd(COUNTER));
	assert_int_equal(rd(STATUS), 3);
	wr(STATUS, 1);
	take();
	assert_int_equal(take(), 20);
	wr32(STATUS, 2);
	take();
	assert_int_equal(take(), -1);
	assert_int_equal(rd(STATUS), 0);
}

static void periodic(void **state)
{
	(void)state;
	wr(T(0, 0), T_ENABLE | T_PERIODIC | T_SET | ROUTE(20));
	wr(T(0, CMP), 150000);
	assert_int_equal(rd32(T(0, 0)) & T_SET, 0);
	wr(T(0, CMP), 100000);
	assert_int_equal(rd(T(0, CMP)), 150000);
	wr(CONFIG, ENABLE);
	pass(MS);
	assert_int_equal(take(), -1);
	pass(MS / 2);
	assert_int_equal(take(), 20);
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(rd(T(0, CMP)), 250000 + i * 100000);
		pass(MS);
		assert_int_equal(take(), 20);
		assert_int_equal(take(), -1);
	}
	/* By halves, as the specification has it. */
	wr(CONFIG, 0);
	wr32(T(0, 0), T_PERIODIC | T_SET);
	wr32(T(0, CMP), 0x1000);
	wr32(T(0, 0), T_PERIODIC | T_SET);
	wr32(T(0, CMP + 4), 0x20);
	assert_int_equal(rd(T(0, CMP)), 0x2000001000);
	/* 32 bits go round. */
	wr(COUNTER, 0xffff0000);
	wr(T(0, 0), T_ENABLE | T_PERIODIC | T_SET | T_32 | ROUTE(20));
	wr(T(0, CMP), 0xffff8000);
	wr(T(0, CMP), 0x10000);
	wr(CONFIG, ENABLE);
	pass(0x80000);
	assert_int_equal(take(), 20);
	assert_int_equal(rd(T(0, CMP)), 0x8000);
	pass(0xa0000);
	assert_int_equal(take(), 20);
}

/* What came while the guest did not look is given later, one after another, but not without end. */
static void owed(void **state)
{
	unsigned n = 0;

	(void)state;
	wr(T(0, 0), T_ENABLE | T_PERIODIC | T_SET | ROUTE(20));
	wr(T(0, CMP), 100000);
	wr(CONFIG, ENABLE);
	pass(5 * MS); /* 1 given, 4 owed */
	assert_int_equal(take(), 20);
	assert_int_equal(take(), -1);
	for (unsigned i = 0; i < 20; i++) {
		pass(MS / 2);
		n += take() == 20;
	}
	assert_int_equal(n, 14);
	pass(100000 * MS);
	for (n = 0; n < 5000 && take() == 20; n++)
		pass(MS / 2);
	assert_in_range(n, 1900, 2100); /* a second's, and what came while they were made up for */
	/* A guest that does not want them is owed none. */
	test_rte(&t, 20, 0x10000, 0);
	pass(5 * MS);
	test_rte(&t, 20, 0x54, 0);
	while (take() >= 0)
		;
	pass(MS / 2);
	n = take() == 20;
	pass(MS / 2);
	n += take() == 20;
	assert_int_equal(n, 1);
}

static void short_periods_are_held_down(void **state)
{
	static const uint64_t periods[] = { 0, 1, 2, 4999 };

	(void)state;
	for (unsigned p = 0; p < ARRAY_SIZE(periods); p++) {
		unsigned n = 0;

		wr(CONFIG, 0);
		wr(T(0, 0), T_ENABLE | T_PERIODIC | T_SET | ROUTE(20));
		wr(T(0, CMP), 1);
		wr(T(0, CMP), periods[p]);
		wr(COUNTER, 0);
		wr(CONFIG, ENABLE);
		for (unsigned i = 0; i < 10000; i++) {
			pass(1000);
			n += take() == 20;
		}
		assert_in_range(n, 1, 201);
		test_run(&t, 1000 * MS);
		take();
	}
}

static void legacy_replacement(void **state)
{
	unsigned pit = 0;

	(void)state;
	test_rte(&t, 2, 0x42, 0);
	test_out(&t, 0x43, 0x34, 1); /* the PIT at 1 kHz, the RTC at 1,024 Hz */
	test_out(&t, 0x40, 0xa9, 1);
	test_out(&t, 0x40, 0x04, 1);
	test_out(&t, 0x70, 0x0b, 1);
	test_out(&t, 0x71, 0x42, 1);
	test_run(&t, 2 * MS);
	for (int pin; (pin = take()) >= 0;) {
		assert_true(pin == 2 || pin == 8);
		pit |= pin == 2 ? 1 : 2;
	}
	assert_int_equal(pit, 3);

	wr(CONFIG, LEGACY); /* not before the counter runs */
	test_out(&t, 0x70, 0x0c, 1);
	test_in(&t, 0x71, 1);
	test_run(&t, 2 * MS);
	assert_int_equal(take(), 8);
	assert_int_equal(take(), 2);
	wr(CONFIG, LEGACY | ENABLE);
	while (take() >= 0)
		;
	for (unsigned i = 0; i < 5; i++) {
		test_out(&t, 0x70, 0x0c, 1);
		test_in(&t, 0x71, 1);
		test_run(&t, 2 * MS);
		assert_int_equal(take(), -1);
	}
	wr(T(0, 0), T_ENABLE | ROUTE(20));
	wr(T(1, 0), T_ENABLE | ROUTE(20));
	wr(T(2, 0), T_ENABLE | ROUTE(20));
	wr(T(0, CMP), rd(COUNTER));
	assert_int_equal(take(), 2);
	wr(T(1, CMP), rd(COUNTER));
	assert_int_equal(take(), 8);
	wr(T(2, CMP), rd(COUNTER));
	assert_int_equal(take(), 20);
	/* The PIC's IRQ 0, too. */
	test_rte(&t, 2, 0x10000, 0);
	test_pic_init(&t, 0xfe, 0xff);
	wr(T(0, CMP), rd(COUNTER));
	mutex_lock(&t.router->lock);
	assert_int_equal(pic_ack_locked(t.router->pic), 0x20);
	mutex_unlock(&t.router->lock);
	test_out(&t, 0x20, 0x20, 1);
	test_out(&t, 0x21, 0xff, 1);
	test_rte(&t, 2, 0x42, 0);
	/* And back. The RTC's line was high all the time. */
	wr(CONFIG, ENABLE);
	assert_int_equal(take(), 8);
	test_run(&t, 3 * MS);
	assert_int_equal(take(), 2);
}

static void reset(void **state)
{
	(void)state;
	wr(CONFIG, ENABLE | LEGACY);
	wr(T(0, 0), T_ENABLE | T_LEVEL | ROUTE(20));
	wr(T(0, CMP), rd(COUNTER));
	wr(T(1, 0), T_ENABLE | T_PERIODIC | T_SET | ROUTE(21));
	wr(T(1, CMP), 100000);
	pass(20 * MS);
	assert_int_equal(rd(STATUS), 1);
	board_reset(&t.b);
	assert_int_equal(rd(CONFIG), 0);
	assert_int_equal(rd(STATUS), 0);
	assert_int_equal(rd(COUNTER), 0);
	for (unsigned n = 0; n < 3; n++) {
		assert_int_equal(rd(T(n, 0)), 0x00f0000000000030);
		assert_int_equal(rd(T(n, CMP)), UINT64_MAX);
	}
	test_lapic_write(&t, 0xf0, 0x1ff);
	test_rte(&t, 21, 0x55, 0);
	test_rte(&t, 20, 0x54, 0);
	test_run(&t, 20 * MS);
	assert_int_equal(take(), -1);
}

/* A match that was due when the state was saved comes after it was loaded. */
static void saved_while_due(void **state)
{
	(void)state;
	wr(CONFIG, ENABLE);
	wr(T(2, 0), T_ENABLE | ROUTE(23));
	wr(T(2, CMP), 1000);
	test_advance(&t, MS);
	test_round_trip(&t);
	assert_int_equal(take(), -1);
	test_run(&t, 0);
	assert_int_equal(take(), 23);
	assert_in_range(rd(COUNTER), 100000, 100000 + 10000 * MS / 10);
}

static void hostile_writes_and_round_trip(void **state)
{
	static const uint16_t regs[] = { 0x000, 0x010, 0x020, 0x0f0, 0x100, 0x108, 0x110, 0x120,
					 0x128, 0x140, 0x148, 0x160, 0x168, 0x3f8, 0x010, 0x0f0 };
	uint64_t x = 5;

	(void)state;
	for (unsigned i = 0; i < 50000; i++) {
		uint64_t v;
		unsigned size;
		gpa_t at;

		x = x * 6364136223846793005 + 1442695040888963407;
		v = x >> (x >> 58) | (x & 1ull << 40 ? 0 : UINT64_MAX << (x >> 52 & 63));
		size = 1u << (x >> 36 & 3);
		at = GPA(HPET_BASE + regs[x >> 32 & 15] + (size < 8 ? x >> 33 & 4 : 0));
		mem_mmio_write(t.b.mem, at, v, size);
		mem_mmio_read(t.b.mem, at, size);
		if (!(x >> 20 & 0xf))
			test_advance(&t, x >> 45 & 0xfffff);
		if (!(x >> 20 & 0x3ff))
			test_advance(&t, x & 0xffffffffff);
		if (!(x >> 20 & 0x7ff))
			test_run(&t, 0);
	}
	test_round_trip(&t);
}

/* State that no guest can make is refused or harmless. */
static void damaged_state(void **state)
{
	struct device *d = t.b.devices;
	struct state_buf good = { 0 };
	uint64_t x = 9;

	(void)state;
	while (strcmp(d->cls->name, "hpet") != 0)
		d = d->next;
	wr(CONFIG, ENABLE);
	wr(T(0, 0), T_ENABLE | T_PERIODIC | T_SET | ROUTE(20));
	wr(T(0, CMP), 100000);
	assert_int_equal(state_save(&good, d->cls->state, 0, d), 0);
	for (unsigned i = 0; i < 3000; i++) {
		struct state_buf b = good;

		b.data = malloc(good.len);
		assert_non_null(b.data);
		memcpy(b.data, good.data, good.len);
		x = x * 6364136223846793005 + 1442695040888963407;
		b.data[(x >> 33) % good.len] = (uint8_t)(x >> 20);
		b.data[(x >> 40) % good.len] = (uint8_t)(x >> 25);
		if (state_load(&b, d->cls->state, 0, d, NULL) == 0)
			pass(MS);
		free(b.data);
	}
	state_buf_free(&good);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(registers),
		TEST(counter),
		TEST(one_shot),
		TEST(the_loop_wakes),
		TEST(level),
		TEST(periodic),
		TEST(owed),
		TEST(short_periods_are_held_down),
		TEST(legacy_replacement),
		TEST(reset),
		TEST(saved_while_due),
		TEST(hostile_writes_and_round_trip),
		TEST(damaged_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
