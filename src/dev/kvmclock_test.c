/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <x86intrin.h>

#include "base/util.h"
#include "dev/kvmclock.h"

#define PAGE_AT  0x5000u
#define STEAL_AT 0x6000u

struct fixture {
	struct mutex lock;
	struct clock clock;
	struct board board;
	struct kvmclock *k;
	uint32_t tsc_khz;
};

static uint32_t measure_tsc(const struct clock *c)
{
	int64_t ns = clock_now_ns(c);
	uint64_t tsc = __rdtsc();
	usleep(20000);
	return (uint32_t)((__rdtsc() - tsc) * 1000000 / (uint64_t)(clock_now_ns(c) - ns));
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	mutex_init(&f->lock, LOCK_RANK_IO, "io");
	clock_init(&f->clock);
	f->board.clock = &f->clock;
	f->board.io_lock = &f->lock;
	f->tsc_khz = measure_tsc(&f->clock);
	assert_int_equal(mem_new(MIB(1), &f->lock, &f->board.mem, NULL), 0);
	assert_int_equal(kvmclock_new(&f->board, 2, f->tsc_khz, &f->k, NULL), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	board_free_devices(&f->board);
	mem_free(f->board.mem);
	mutex_destroy(&f->lock);
	free(f);
	return 0;
}

/* What a guest computes from its page. */
static int64_t guest_time(struct fixture *f, uint64_t tsc_offset)
{
	uint8_t p[32];
	uint32_t version, mul;
	uint64_t stamp, system;
	assert_int_equal(mem_read(f->board.mem, GPA(PAGE_AT), p, sizeof(p)), 0);
	memcpy(&version, p, 4);
	memcpy(&stamp, p + 8, 8);
	memcpy(&system, p + 16, 8);
	memcpy(&mul, p + 24, 4);
	int8_t shift = (int8_t)p[28];
	assert_int_equal(version & 1, 0);
	assert_int_equal(p[29], 1);
	uint64_t delta = __rdtsc() + tsc_offset - stamp;
	delta = shift < 0 ? delta >> -shift : delta << shift;
	return (int64_t)(system + (uint64_t)((unsigned __int128)delta * mul >> 32));
}

static void assert_near(int64_t a, int64_t b, int64_t tolerance)
{
	if (a - b > tolerance || b - a > tolerance)
		fail_msg("%lld and %lld differ by more than %lld", (long long)a, (long long)b,
			 (long long)tolerance);
}

static void clock_follows_virtual_time(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(kvmclock_msr_write(f->k, 0, 12345, 0x4b564d01, PAGE_AT | 1), 0);
	assert_near(guest_time(f, 12345), clock_now_ns(&f->clock), 5000000);
	usleep(10000);
	assert_near(guest_time(f, 12345), clock_now_ns(&f->clock), 5000000);

	/* A pause is not seen. */
	mutex_lock(&f->lock);
	clock_stop(&f->clock);
	usleep(30000);
	clock_start(&f->clock);
	kvmclock_clock_changed(f->k);
	mutex_unlock(&f->lock);
	kvmclock_refresh(f->k, 0, 12345, 0);
	assert_near(guest_time(f, 12345), clock_now_ns(&f->clock), 5000000);

	uint64_t v = 0;
	assert_int_equal(kvmclock_msr_read(f->k, 0, 0x12, &v), 0);
	assert_int_equal(v, PAGE_AT | 1);
	assert_int_equal(kvmclock_msr_read(f->k, 1, 0x4b564d01, &v), 0);
	assert_int_equal(v, 0);
}

static void rate_is_exact(void **state)
{
	struct fixture *f = *state;
	static const uint32_t khz[] = {
		1, 999, 500000, 1000000, 1000001, 1999999, 2000000, 2596113, 5100000
	};
	for (size_t i = 0; i < ARRAY_SIZE(khz); i++) {
		struct kvmclock *k;
		uint8_t p[32];
		uint32_t mul;
		assert_int_equal(kvmclock_new(&f->board, 1, khz[i], &k, NULL), 0);
		assert_int_equal(kvmclock_msr_write(k, 0, 0, 0x12, PAGE_AT | 1), 0);
		assert_int_equal(mem_read(f->board.mem, GPA(PAGE_AT), p, sizeof(p)), 0);
		memcpy(&mul, p + 24, 4);
		int8_t shift = (int8_t)p[28];
		uint64_t second = (uint64_t)khz[i] * 1000;
		second = shift < 0 ? second >> -shift : second << shift;
		assert_near((int64_t)((unsigned __int128)second * mul >> 32), 1000000000, 1000);
	}
}

static void wall_clock(void **state)
{
	struct fixture *f = *state;
	uint32_t p[3];
	assert_int_equal(kvmclock_msr_write(f->k, 0, 0, 0x4b564d00, PAGE_AT), 0);
	assert_int_equal(mem_read(f->board.mem, GPA(PAGE_AT), p, sizeof(p)), 0);
	assert_int_equal(p[0], 2);
	assert_near(p[1] * 1000000000ll + p[2] + clock_now_ns(&f->clock), clock_wall_ns(&f->clock), 5000000);
}

static void steal_time(void **state)
{
	struct fixture *f = *state;
	uint64_t stolen;
	assert_false(kvmclock_wants_steal(f->k, 1));
	assert_int_equal(kvmclock_msr_write(f->k, 1, 0, 0x4b564d03, STEAL_AT | 3), -EINVAL);
	assert_int_equal(kvmclock_msr_write(f->k, 1, 0, 0x4b564d03, STEAL_AT | 1), 0);
	assert_true(kvmclock_wants_steal(f->k, 1));
	kvmclock_refresh(f->k, 1, 0, 100000000);
	kvmclock_refresh(f->k, 1, 0, 105000000);
	kvmclock_refresh(f->k, 1, 0, 105000001);
	assert_int_equal(mem_read(f->board.mem, GPA(STEAL_AT), &stolen, 8), 0);
	assert_int_equal(stolen, 5000000);
}

static void hostile_addresses(void **state)
{
	struct fixture *f = *state;
	static const uint64_t at[] = { UINT64_MAX, MIB(1) - 3, MIB(1), 0xfee00001, UINT64_MAX - 31 };
	static const uint32_t msr[] = { 0x11, 0x12, 0x4b564d00, 0x4b564d01, 0x4b564d03 };
	for (size_t i = 0; i < ARRAY_SIZE(at); i++)
		for (size_t j = 0; j < ARRAY_SIZE(msr); j++)
			kvmclock_msr_write(f->k, 1, 0, msr[j],
					   (at[i] | 1) & (msr[j] == 0x4b564d03 ? ~62ull : ~0ull));
	kvmclock_refresh(f->k, 1, 0, 1u << 30);
	uint64_t v;
	assert_int_equal(kvmclock_msr_read(f->k, 0, 0x4b564d02, &v), -ENOENT);
	assert_int_equal(kvmclock_msr_write(f->k, 0, 0, 0x1b, 0), -ENOENT);
}

static void reset_and_round_trip(void **state)
{
	struct fixture *f = *state;
	struct state_buf b = { 0 };
	uint64_t v;
	kvmclock_msr_write(f->k, 1, 0, 0x4b564d01, PAGE_AT | 1);
	const struct device_class *cls = f->board.devices->cls;
	assert_int_equal(state_save(&b, cls->state, 0, f->k), 0);
	board_reset(&f->board);
	kvmclock_msr_read(f->k, 1, 0x4b564d01, &v);
	assert_int_equal(v, 0);
	assert_int_equal(state_load(&b, cls->state, 0, f->k, NULL), 0);
	kvmclock_msr_read(f->k, 1, 0x4b564d01, &v);
	assert_int_equal(v, PAGE_AT | 1);
	state_buf_free(&b);

	struct cpuid_regs leaf[2];
	kvmclock_cpuid(leaf);
	assert_memory_equal(&leaf[0].ebx, "KVMK", 4);
	assert_true(leaf[1].eax & 1u << 24);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(clock_follows_virtual_time, setup, teardown),
		cmocka_unit_test_setup_teardown(rate_is_exact, setup, teardown),
		cmocka_unit_test_setup_teardown(wall_clock, setup, teardown),
		cmocka_unit_test_setup_teardown(steal_time, setup, teardown),
		cmocka_unit_test_setup_teardown(hostile_addresses, setup, teardown),
		cmocka_unit_test_setup_teardown(reset_and_round_trip, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
