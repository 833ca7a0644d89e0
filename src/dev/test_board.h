/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A board for unit tests: RAM, a loop, the interrupt controllers and two LAPICs
 * whose hosts note what they are told.  Time stands still until a test moves it.
 */
#ifndef SILL_DEV_TEST_BOARD_H
#define SILL_DEV_TEST_BOARD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "dev/device.h"
#include "dev/irq/ioapic.h"
#include "dev/irq/irq.h"
#include "dev/irq/lapic.h"
#include "dev/irq/pic.h"

#define TEST_CPUS 2
#define TEST_RAM  MIB(2)

struct test_cpu {
	struct lapic *lapic;
	struct clock *clock;
	unsigned kicks, inits, sipis, nmis;
	uint8_t sipi_vector;
	int64_t armed;
};

struct test_board {
	struct mutex io;
	struct clock clock;
	struct board b;
	struct irq_router *router;
	struct test_cpu cpu[TEST_CPUS];
	unsigned current;
	unsigned poweroffs, resets, inits, panics;
};

static inline void test_kick(void *opaque)
{
	((struct test_cpu *)opaque)->kicks++;
}

static inline void test_arm(void *opaque, int64_t ns)
{
	((struct test_cpu *)opaque)->armed = ns;
}

/* A TSC of 2 GHz. */
static inline uint64_t test_tsc(void *opaque)
{
	return (uint64_t)clock_now_ns(((struct test_cpu *)opaque)->clock) * 2;
}

static inline void test_event(void *opaque, enum lapic_event e, uint8_t vector)
{
	struct test_cpu *c = opaque;

	if (e == LAPIC_EVENT_INIT)
		c->inits++;
	else if (e == LAPIC_EVENT_NMI)
		c->nmis++;
	else {
		c->sipis++;
		c->sipi_vector = vector;
	}
}

static inline struct lapic *test_current(void *opaque)
{
	struct test_board *t = opaque;

	return t->cpu[t->current].lapic;
}

static inline void test_request(void *opaque, enum board_request what)
{
	struct test_board *t = opaque;

	if (what == BOARD_POWEROFF)
		t->poweroffs++;
	else if (what == BOARD_RESET)
		t->resets++;
	else if (what == BOARD_INIT)
		t->inits++;
	else
		t->panics++;
}

static inline void test_board_init(struct test_board *t)
{
	memset(t, 0, sizeof(*t));
	mutex_init(&t->io, LOCK_RANK_IO, "io");
	clock_init(&t->clock);
	clock_stop(&t->clock);
	t->clock.stopped_ns = 1000000000;
	assert_int_equal(mem_new(TEST_RAM, &t->io, &t->b.mem, NULL), 0);
	assert_int_equal(loop_new(&t->clock, &t->io, &t->b.loop, NULL), 0);
	t->b.clock = &t->clock;
	t->b.io_lock = &t->io;
	t->b.request = test_request;
	t->b.request_opaque = t;
	assert_int_equal(irq_router_new(&t->b, &t->router, NULL), 0);
	for (unsigned i = 0; i < TEST_CPUS; i++) {
		struct lapic_host h = { .opaque = &t->cpu[i],
					.kick = test_kick,
					.arm_timer = test_arm,
					.tsc_now = test_tsc,
					.tsc_khz = 2000000,
					.init_sipi_nmi = test_event,
					.clock = &t->clock };

		t->cpu[i].clock = &t->clock;
		t->cpu[i].armed = INT64_MAX;
		assert_int_equal(lapic_new(&t->b, t->router, i, &h, &t->cpu[i].lapic, NULL), 0);
	}
	irq_router_set_current(t->router, test_current, t);
}

static inline void test_board_fini(struct test_board *t)
{
	board_free_devices(&t->b);
	loop_free(t->b.loop);
	mem_free(t->b.mem);
	mutex_destroy(&t->io);
}

/* Lets virtual time pass without the loop. */
static inline void test_advance(struct test_board *t, int64_t ns)
{
	t->clock.stopped_ns += ns;
}

static inline void test_quit(void *opaque)
{
	loop_quit(opaque);
}

/* Lets ns pass and the loop's timers run; a few more milliseconds of real time go by. */
static inline void test_run(struct test_board *t, int64_t ns)
{
	struct loop_timer quit;

	t->clock.stopped_ns += ns;
	loop_timer_init(t->b.loop, &quit, test_quit, t->b.loop);
	clock_start(&t->clock);
	mutex_lock(&t->io);
	loop_clock_changed(t->b.loop);
	loop_timer_arm(&quit, clock_now_ns(&t->clock) + 2000000);
	mutex_unlock(&t->io);
	loop_run(t->b.loop);
	clock_stop(&t->clock);
}

static inline uint32_t test_in(struct test_board *t, uint16_t port, unsigned size)
{
	return mem_pio_read(t->b.mem, port, size);
}

static inline void test_out(struct test_board *t, uint16_t port, uint32_t v, unsigned size)
{
	mem_pio_write(t->b.mem, port, v, size);
}

static inline uint32_t test_lapic_read(struct test_board *t, unsigned offset)
{
	return (uint32_t)mem_mmio_read(t->b.mem, GPA(LAPIC_BASE + offset), 4);
}

static inline void test_lapic_write(struct test_board *t, unsigned offset, uint32_t v)
{
	mem_mmio_write(t->b.mem, GPA(LAPIC_BASE + offset), v, 4);
}

static inline uint32_t test_ioapic_read(struct test_board *t, unsigned index)
{
	mem_mmio_write(t->b.mem, GPA(IOAPIC_BASE), index, 4);
	return (uint32_t)mem_mmio_read(t->b.mem, GPA(IOAPIC_BASE + 0x10), 4);
}

static inline void test_ioapic_write(struct test_board *t, unsigned index, uint32_t v)
{
	mem_mmio_write(t->b.mem, GPA(IOAPIC_BASE), index, 4);
	mem_mmio_write(t->b.mem, GPA(IOAPIC_BASE + 0x10), v, 4);
}

static inline void test_rte(struct test_board *t, unsigned pin, uint32_t low, uint8_t dest)
{
	test_ioapic_write(t, 0x11 + 2 * pin, (uint32_t)dest << 24);
	test_ioapic_write(t, 0x10 + 2 * pin, low);
}

/* What firmware and every kernel do: both chips at 20.. and 28.., all masked but what `imr` leaves. */
static inline void test_pic_init(struct test_board *t, uint8_t master_imr, uint8_t slave_imr)
{
	static const uint8_t icw[2][4] = { { 0x11, 0x20, 0x04, 0x01 }, { 0x11, 0x28, 0x02, 0x01 } };
	static const uint16_t port[2] = { 0x20, 0xa0 };

	for (unsigned c = 0; c < 2; c++)
		for (unsigned i = 0; i < 4; i++)
			test_out(t, port[c] + (i > 0), icw[c][i], 1);
	test_out(t, 0x21, master_imr, 1);
	test_out(t, 0xa1, slave_imr, 1);
}

/* Saves every device, resets the board, loads, saves again: the two streams must be the same. */
static inline void test_round_trip(struct test_board *t)
{
	struct state_buf a = { 0 }, b = { 0 };

	for (struct device *d = t->b.devices; d; d = d->next)
		if (d->cls->state)
			assert_int_equal(state_save(&a, d->cls->state, d->instance, d), 0);
	board_reset(&t->b);
	for (struct device *d = t->b.devices; d; d = d->next) {
		struct error err = { "" };

		if (d->cls->state && state_load(&a, d->cls->state, d->instance, d, &err) < 0)
			fail_msg("%s: %s", d->cls->name, err.message);
	}
	for (struct device *d = t->b.devices; d; d = d->next)
		if (d->cls->state)
			assert_int_equal(state_save(&b, d->cls->state, d->instance, d), 0);
	assert_int_equal(a.len, b.len);
	assert_memory_equal(a.data, b.data, a.len);
	state_buf_free(&a);
	state_buf_free(&b);
}

#endif
