/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "dev/virtio/test_driver.h"
#include "dev/virtio/virtio_input.h"

#include <linux/input-event-codes.h>

struct fixture {
	struct test_driver t;
	struct input input;
	struct virtio_device *keyboard, *tablet;
};

struct event {
	uint16_t type, code;
	uint32_t value;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	td_init(&f->t);
	assert_int_equal(
	    virtio_input_new(&f->t.board, &f->input, VIRTIO_INPUT_KEYBOARD, 0, &f->keyboard, NULL), 0);
	assert_int_equal(virtio_input_new(&f->t.board, &f->input, VIRTIO_INPUT_TABLET, 1, &f->tablet, NULL),
			 0);
	td_attach(&f->t, f->tablet);
	td_attach(&f->t, f->keyboard);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	td_fini(&f->t);
	free(f);
	return 0;
}

static void give_buffers(struct fixture *f, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		td_desc(&f->t, 0, i, TD_DATA + 8 * i, 8, TD_WRITE, 0);
		td_offer(&f->t, 0, (uint16_t)i);
	}
	virtio_notify(f->t.v, 0);
}

static void check_event(struct fixture *f, unsigned n, uint16_t type, uint16_t code, uint32_t value)
{
	struct event e;

	td_get(&f->t, TD_DATA + 8 * n, &e, sizeof(e));
	assert_int_equal(e.type, type);
	assert_int_equal(e.code, code);
	assert_int_equal(e.value, value);
}

static unsigned select_size(struct virtio_device *v, uint32_t select, uint32_t subsel)
{
	virtio_config_write(v, 0, select, 1);
	virtio_config_write(v, 1, subsel, 1);
	return virtio_config_read(v, 2, 1);
}

static void test_config(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(select_size(f->keyboard, 1, 0), strlen("Sill virtio keyboard"));
	assert_int_equal(virtio_config_read(f->keyboard, 8, 1), 'S');
	assert_true(select_size(f->keyboard, 0x11, EV_KEY) > 0);
	assert_true(virtio_config_read(f->keyboard, 8 + KEY_A / 8, 1) >> KEY_A % 8 & 1);
	assert_int_equal(select_size(f->keyboard, 0x11, EV_ABS), 0);
	assert_int_equal(select_size(f->keyboard, 0x12, ABS_X), 0);
	assert_int_equal(select_size(f->tablet, 0x12, ABS_Y), 20);
	assert_int_equal(virtio_config_read(f->tablet, 12, 4), INPUT_ABS_MAX);
	assert_int_equal(select_size(f->tablet, 0x12, 99), 0);
	assert_int_equal(select_size(f->tablet, 3, 0), 8);
	assert_int_equal(select_size(f->tablet, 0x77, 0xff), 0);
	virtio_config_write(f->tablet, 2, 0xffffffff, 4); /* read-only */
	assert_int_equal(virtio_config_read(f->tablet, 0, 1), 0x77);
}

static void test_keys(void **state)
{
	struct fixture *f = *state;

	input_key(&f->input, KEY_A, true); /* nobody there yet */
	td_start(&f->t, 0, 64);
	give_buffers(f, 8);
	input_key(&f->input, KEY_A, true);
	input_key(&f->input, KEY_A, true);
	input_key(&f->input, KEY_A, false);
	input_key(&f->input, KEY_A, false); /* was up */
	input_key(&f->input, 0xffff, true);
	assert_int_equal(td_used_idx(&f->t, 0), 6);
	check_event(f, 0, EV_KEY, KEY_A, 1);
	check_event(f, 1, EV_SYN, SYN_REPORT, 0);
	check_event(f, 2, EV_KEY, KEY_A, 2);
	check_event(f, 4, EV_KEY, KEY_A, 0);
	/* Without buffers they wait; beyond some they are lost in whole. */
	for (unsigned i = 0; i < 100; i++)
		input_key(&f->input, KEY_B, true);
	assert_int_equal(td_used_idx(&f->t, 0), 8);
	for (unsigned n = 0; n < 20; n++) {
		f->t.avail_idx[0] = (uint16_t)(8 + 8 * n);
		give_buffers(f, 8);
	}
	assert_int_equal(td_used_idx(&f->t, 0), 8 + 64);
}

static void test_tablet(void **state)
{
	struct fixture *f = *state;

	f->t.v = f->tablet;
	assert_false(input_wants_absolute(&f->input));
	td_start(&f->t, 0, 64);
	give_buffers(f, 16);
	assert_true(input_wants_absolute(&f->input));
	input_pointer(&f->input, 100, 200, 1, INPUT_LEFT, 800, 600);
	check_event(f, 0, EV_ABS, ABS_X, 100);
	check_event(f, 1, EV_ABS, ABS_Y, 200);
	check_event(f, 2, EV_KEY, BTN_LEFT, 1);
	check_event(f, 3, EV_REL, REL_WHEEL, 1);
	check_event(f, 4, EV_SYN, SYN_REPORT, 0);
	input_pointer(&f->input, 100, 200, 0, INPUT_RIGHT, 800, 600);
	check_event(f, 7, EV_KEY, BTN_LEFT, 0);
	check_event(f, 8, EV_KEY, BTN_RIGHT, 1);
}

static void test_hostile(void **state)
{
	struct fixture *f = *state;
	struct test_driver *t = &f->t;

	td_start(t, 0, 64);
	/* Buffers that are too short, read-only, and of the second queue */
	td_desc(t, 0, 0, TD_DATA, 3, TD_WRITE, 0);
	td_desc(t, 0, 1, TD_DATA, 8, 0, 0);
	td_offer(t, 0, 0);
	td_offer(t, 0, 1);
	virtio_notify(t->v, 0);
	input_key(&f->input, KEY_A, true);
	assert_int_equal(td_used_idx(t, 0), 2);
	assert_int_equal(td_used_len(t, 0, 0), 3);
	assert_int_equal(td_used_len(t, 0, 1), 0);
	td_desc(t, 1, 0, TD_DATA, 8, 0, 0);
	td_kick(t, 1, 0);
	assert_int_equal(td_used_idx(t, 1), 1);
	td_desc(t, 0, 2, UINT64_MAX - 4, 8, TD_WRITE, 0);
	td_offer(t, 0, 2);
	input_key(&f->input, KEY_A, false);
	assert_true(td_is_broken(t));
	input_key(&f->input, KEY_A, true);
}

static void test_save_load(void **state)
{
	struct fixture *f = *state;
	const struct device *d = &f->keyboard->dev;
	struct state_buf b = { 0 };
	struct error err;

	td_start(&f->t, 0, 64);
	input_key(&f->input, KEY_A, true);
	assert_int_equal(state_save(&b, d->cls->state, d->instance, d), 0);
	d->cls->reset(&f->keyboard->dev);
	assert_int_equal(state_load(&b, d->cls->state, d->instance, f->keyboard, &err), 0);
	give_buffers(f, 4);
	assert_int_equal(td_used_idx(&f->t, 0), 2);
	check_event(f, 0, EV_KEY, KEY_A, 1);
	/* It still knows that the key is down. */
	input_key(&f->input, KEY_A, false);
	check_event(f, 2, EV_KEY, KEY_A, 0);
	state_buf_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_config, setup, teardown),
		cmocka_unit_test_setup_teardown(test_keys, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tablet, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile, setup, teardown),
		cmocka_unit_test_setup_teardown(test_save_load, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
