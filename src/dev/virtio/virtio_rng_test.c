/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "dev/virtio/test_driver.h"
#include "dev/virtio/virtio_rng.h"

static int setup(void **state)
{
	struct test_driver *t = calloc(1, sizeof(*t));
	struct virtio_device *v;

	td_init(t);
	assert_int_equal(virtio_rng_new(&t->board, 0, &v, NULL), 0);
	td_attach(t, v);
	*state = t;
	return 0;
}

static int teardown(void **state)
{
	td_fini(*state);
	free(*state);
	return 0;
}

static void test_fill(void **state)
{
	struct test_driver *t = *state;
	uint8_t a[64], b[64] = { 0 };

	td_start(t, 0, 8);
	td_desc(t, 0, 0, TD_DATA, 40, TD_WRITE | TD_NEXT, 1);
	td_desc(t, 0, 1, TD_DATA + 40, 24, TD_WRITE, 0);
	td_kick(t, 0, 0);
	assert_int_equal(td_used_idx(t, 0), 1);
	assert_int_equal(td_used_len(t, 0, 0), 64);
	assert_int_equal(t->irqs[0], 1);
	td_get(t, TD_DATA, a, 64);
	assert_memory_not_equal(a, b, 40);
	assert_memory_not_equal(a + 40, b, 24);
	assert_memory_not_equal(a, a + 32, 32);
	td_get(t, TD_DATA + 64, b, 1);
	assert_int_equal(b[0], 0);
	/* Only read-only buffers: given back empty. */
	td_desc(t, 0, 0, TD_DATA, 40, 0, 0);
	td_kick(t, 0, 0);
	assert_int_equal(td_used_idx(t, 0), 2);
	assert_int_equal(td_used_len(t, 0, 1), 0);
}

/* A guest that wants too much at once waits for the rest. */
static void test_rate(void **state)
{
	struct test_driver *t = *state;

	td_start(t, 0, 8);
	for (unsigned i = 0; i < 4; i++) {
		td_desc(t, 0, i, TD_DATA, 12 << 10, TD_WRITE, 0);
		td_offer(t, 0, (uint16_t)i);
	}
	clock_stop(&t->clock);
	for (unsigned i = 0; i < 1000; i++)
		virtio_notify(t->v, 0);
	clock_start(&t->clock);
	loop_clock_changed(t->loop);
	assert_int_equal(td_used_idx(t, 0), 2);
	assert_int_equal(td_used_len(t, 0, 0), 12 << 10);
	assert_int_equal(td_used_len(t, 0, 1), 4 << 10); /* short, as §5.4.6 allows */
	td_run(t, 20);
	assert_int_equal(td_used_idx(t, 0), 4);
	assert_int_equal(td_used_len(t, 0, 2), 12 << 10);
}

static void test_reset_save_load(void **state)
{
	struct test_driver *t = *state;
	const struct device *d = &t->v->dev;
	struct state_buf b = { 0 };
	struct error err;

	td_start(t, 0, 8);
	for (unsigned i = 0; i < 4; i++) {
		td_desc(t, 0, i, TD_DATA, 16 << 10, TD_WRITE, 0);
		td_offer(t, 0, (uint16_t)i);
	}
	virtio_notify(t->v, 0);
	assert_int_equal(td_used_idx(t, 0), 1);
	assert_int_equal(state_save(&b, d->cls->state, 0, d), 0);
	d->cls->reset(&t->v->dev);
	td_run(t, 10);
	assert_int_equal(td_used_idx(t, 0), 1);
	assert_int_equal(state_load(&b, d->cls->state, 0, t->v, &err), 0);
	td_run(t, 30);
	assert_int_equal(td_used_idx(t, 0), 4);
	state_buf_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_fill, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rate, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reset_save_load, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
