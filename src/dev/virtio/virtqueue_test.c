/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "dev/virtio/test_driver.h"

/* A device that takes chains only when the test says so. */
struct dummy {
	struct virtio_device v;
	unsigned notified, stopped;
};

static void dummy_config(struct virtio_device *v, uint8_t *buf)
{
	(void)v;
	memcpy(buf, "\x11\x22\x33\x44\x55", 5);
}

static void dummy_notify(struct virtio_device *v, unsigned queue)
{
	(void)queue;
	((struct dummy *)v)->notified++;
}

static void dummy_stop(struct virtio_device *v)
{
	((struct dummy *)v)->stopped++;
}

static const struct virtio_ops dummy_ops = {
	.id = 42, .config_get = dummy_config, .notify = dummy_notify, .stop = dummy_stop
};

static void dummy_reset(struct device *d)
{
	virtio_reset((struct virtio_device *)d);
}

static void dummy_free(struct device *d)
{
	virtio_fini((struct virtio_device *)d);
	free(d);
}

static int dummy_loaded(void *obj, struct error *err)
{
	return virtio_loaded(obj, err);
}

static const struct state_field dummy_fields[] = { VIRTIO_FIELDS(struct dummy, v), F_END };
static const struct state_table dummy_state = { "dummy", 1, dummy_fields, dummy_loaded };
static const struct device_class dummy_class = { "dummy", dummy_reset, &dummy_state, dummy_free };

static int setup(void **state)
{
	struct test_driver *t = malloc(sizeof(*t));
	struct dummy *d = calloc(1, sizeof(*d));

	td_init(t);
	assert_int_equal(virtio_init(&d->v, &t->board, &dummy_ops, &dummy_class, 0, 1u << 3, 2, 64, 5), 0);
	td_attach(t, &d->v);
	*state = t;
	return 0;
}

static int teardown(void **state)
{
	td_fini(*state);
	free(*state);
	return 0;
}

static void start(struct test_driver *t, uint64_t features)
{
	assert_int_equal(td_start(t, features, 16),
			 VIRTIO_S_ACKNOWLEDGE | VIRTIO_S_DRIVER | VIRTIO_S_FEATURES_OK | VIRTIO_S_DRIVER_OK);
}

static void test_negotiation(void **state)
{
	struct test_driver *t = *state;
	struct virtio_device *v = t->v;

	assert_int_equal(virtio_host_features(v, 0), 1u << 3 | 1u << 28 | 1u << 29);
	assert_int_equal(virtio_host_features(v, 1), 1);
	assert_int_equal(virtio_host_features(v, 2), 0);
	/* Not offered; legacy; DRIVER_OK without FEATURES_OK. */
	assert_false(td_start(t, 1u << 4, 16) & VIRTIO_S_FEATURES_OK);
	virtio_set_status(v, 0);
	virtio_set_status(v, VIRTIO_S_FEATURES_OK);
	assert_int_equal(v->status, 0);
	virtio_set_status(v, VIRTIO_S_DRIVER_OK);
	assert_int_equal(v->status, 0);
	/* NEEDS_RESET is not the driver's to set; accepted features stay. */
	start(t, 1u << 3);
	virtio_set_driver_features(v, 0, 0);
	assert_true(virtio_has(v, 1u << 3));
	virtio_set_status(v, v->status | VIRTIO_S_NEEDS_RESET);
	assert_false(td_is_broken(t));
	virtio_set_status(v, VIRTIO_S_ACKNOWLEDGE); /* takes nothing away */
	assert_true(virtio_running(v));
	/* Configuration space and its end */
	assert_int_equal(virtio_config_read(v, 0, 4), 0x44332211);
	assert_int_equal(virtio_config_read(v, 3, 4), 0x5544);
	assert_int_equal(virtio_config_read(v, 5, 1), 0);
	assert_int_equal(virtio_config_read(v, 255, 4), 0);
	assert_int_equal(virtio_config_read(v, 0xfffffffc, 4), 0);
	virtio_config_write(v, 0, 1, 4);
	virtio_set_status(v, 0);
	assert_int_equal(v->features, 0);
	assert_false(v->vq[0].enabled);
}

static void test_chain(void **state)
{
	struct test_driver *t = *state;
	struct virtqueue *q = &t->v->vq[0];
	struct vq_elem e;

	start(t, 0);
	assert_int_equal(vq_pop(q, &e), 0);
	td_desc(t, 0, 3, TD_DATA, 10, TD_NEXT, 5);
	td_desc(t, 0, 5, TD_DATA + 0x1000, 20, TD_NEXT | TD_WRITE, 1);
	td_desc(t, 0, 1, TD_DATA + 0x2000, 0, TD_NEXT | TD_WRITE, 2); /* empty: allowed, no segment */
	td_desc(t, 0, 2, TD_DATA + 0x3000, 30, TD_WRITE, 0);
	td_kick(t, 0, 3);
	assert_int_equal(((struct dummy *)t->v)->notified, 2 + 1); /* DRIVER_OK notifies both queues */
	assert_int_equal(vq_pop(q, &e), 1);
	assert_int_equal(e.head, 3);
	assert_int_equal(e.nout, 1);
	assert_int_equal(e.nin, 2);
	assert_int_equal(e.out_len, 10);
	assert_int_equal(e.in_len, 50);
	assert_ptr_equal(e.in[1].iov_base, mem_ram_ptr(t->mem, GPA(TD_DATA + 0x3000), 30));
	vq_push(q, e.head, 33);
	vq_notify(q);
	assert_int_equal(td_used_idx(t, 0), 1);
	assert_int_equal(td_used_id(t, 0, 0), 3);
	assert_int_equal(td_used_len(t, 0, 0), 33);
	assert_int_equal(t->irqs[0], 1);
	/* The driver does not want to be interrupted. */
	td_put(t, td_avail(0), &(uint16_t){ 1 }, 2);
	td_offer(t, 0, 3);
	assert_int_equal(vq_pop(q, &e), 1);
	vq_push(q, e.head, 0);
	vq_notify(q);
	assert_int_equal(t->irqs[0], 1);
	/* Put back, and taken again. */
	td_offer(t, 0, 2);
	assert_int_equal(vq_pop(q, &e), 1);
	vq_rewind(q, 1);
	assert_int_equal(vq_pop(q, &e), 1);
	assert_int_equal(e.head, 2);
}

/* The ring indices run over 2^16 several times. */
static void test_wrap(void **state)
{
	struct test_driver *t = *state;
	struct virtqueue *q = &t->v->vq[1];
	struct vq_elem e;

	start(t, VIRTIO_F_EVENT_IDX);
	for (unsigned i = 0; i < 16; i++)
		td_desc(t, 1, i, TD_DATA + i, 1, TD_WRITE, 0);
	for (unsigned i = 0; i < 140000; i++) {
		td_offer(t, 1, (uint16_t)(i * 7 % 16));
		assert_int_equal(vq_pop(q, &e), 1);
		assert_int_equal(e.head, i * 7 % 16);
		assert_int_equal(vq_pop(q, &e), 0);
		vq_push(q, e.head, 1);
		assert_int_equal(td_used_idx(t, 1), (uint16_t)(i + 1));
		assert_int_equal(td_used_id(t, 1, i), i * 7 % 16);
	}
}

static void test_event_idx(void **state)
{
	struct test_driver *t = *state;
	struct virtqueue *q = &t->v->vq[0];
	uint64_t used_event = td_avail(0) + 4 + 2 * 16, avail_event = td_used(0) + 4 + 8 * 16;
	struct vq_elem e;
	uint16_t v;

	start(t, VIRTIO_F_EVENT_IDX);
	td_desc(t, 0, 0, TD_DATA, 1, TD_WRITE, 0);
	/* Interrupt me at entry 2: entries 0 and 1 must not, except the first, when nothing is known yet. */
	td_put(t, used_event, &(uint16_t){ 2 }, 2);
	for (unsigned i = 0; i < 5; i++) {
		td_offer(t, 0, 0);
		assert_int_equal(vq_pop(q, &e), 1);
		vq_push(q, e.head, 0);
		vq_notify(q);
		assert_int_equal(t->irqs[0], i < 2 ? 1 : 2);
	}
	/* A batch that runs over the event interrupts once. */
	td_put(t, used_event, &(uint16_t){ 6 }, 2);
	for (unsigned i = 0; i < 4; i++) {
		td_offer(t, 0, 0);
		assert_int_equal(vq_pop(q, &e), 1);
		vq_push(q, e.head, 0);
	}
	vq_notify(q);
	assert_int_equal(t->irqs[0], 3);
	vq_notify(q);
	assert_int_equal(t->irqs[0], 3);
	assert_false(vq_listen(q));
	td_get(t, avail_event, &v, 2);
	assert_int_equal(v, 9);
	td_offer(t, 0, 0);
	assert_true(vq_listen(q));
}

static void test_silence(void **state)
{
	struct test_driver *t = *state;
	struct virtqueue *q = &t->v->vq[0];
	uint16_t flags;

	start(t, 0);
	vq_silence(q);
	td_get(t, td_used(0), &flags, 2);
	assert_int_equal(flags, 1);
	assert_false(vq_listen(q));
	td_get(t, td_used(0), &flags, 2);
	assert_int_equal(flags, 0);
}

static void test_indirect(void **state)
{
	struct test_driver *t = *state;
	struct virtqueue *q = &t->v->vq[0];
	struct td_desc table[3] = {
		{ TD_DATA, 8, TD_NEXT, 2 },
		{ TD_DATA + 100, 7, TD_WRITE, 0 },
		{ TD_DATA + 50, 9, TD_NEXT | TD_WRITE, 1 },
	};
	struct vq_elem e;

	start(t, VIRTIO_F_INDIRECT_DESC);
	td_put(t, TD_DATA + 0x1000, table, sizeof(table));
	td_desc(t, 0, 0, TD_DATA + 0x1000, sizeof(table), TD_INDIRECT, 0);
	td_offer(t, 0, 0);
	assert_int_equal(vq_pop(q, &e), 1);
	assert_int_equal(e.nout, 1);
	assert_int_equal(e.nin, 2);
	assert_int_equal(e.in_len, 16);
}

/* Everything that must break the device: what to put into the rings. */
enum hostile {
	H_LOOP,
	H_SELF,
	H_NEXT_RANGE,
	H_HEAD_RANGE,
	H_JUMP,
	H_JUMP_BACK,
	H_NOT_RAM,
	H_ACROSS_END,
	H_WRAP_ADDR,
	H_READ_AFTER_WRITE,
	H_INDIRECT_NOT_NEGOTIATED,
	H_INDIRECT_NESTED,
	H_INDIRECT_NEXT,
	H_INDIRECT_EMPTY,
	H_INDIRECT_ODD,
	H_INDIRECT_LOOP,
	H_INDIRECT_RANGE,
	H_INDIRECT_NOT_RAM,
	H_INDIRECT_HUGE,
	H_INDIRECT_UNALIGNED,
	H_TOO_LONG,
	H_COUNT,
};

static void put_table(struct test_driver *t, const struct td_desc *d, size_t n)
{
	td_put(t, TD_DATA + 0x1000, d, n * sizeof(*d));
	td_desc(t, 0, 0, TD_DATA + 0x1000, (uint32_t)(n * sizeof(*d)), TD_INDIRECT, 0);
}

static void prepare(struct test_driver *t, enum hostile h)
{
	uint16_t jump;

	td_desc(t, 0, 0, TD_DATA, 8, 0, 0);
	switch (h) {
	case H_LOOP:
		td_desc(t, 0, 0, TD_DATA, 8, TD_NEXT, 1);
		td_desc(t, 0, 1, TD_DATA, 8, TD_NEXT, 0);
		break;
	case H_SELF:
		td_desc(t, 0, 0, TD_DATA, 0, TD_NEXT, 0);
		break;
	case H_NEXT_RANGE:
		td_desc(t, 0, 0, TD_DATA, 8, TD_NEXT, 16);
		break;
	case H_HEAD_RANGE:
		td_offer(t, 0, 16);
		return;
	case H_JUMP:
	case H_JUMP_BACK:
		jump = h == H_JUMP ? 17 : 0xffff;
		td_put(t, td_avail(0) + 2, &jump, 2);
		return;
	case H_NOT_RAM:
		td_desc(t, 0, 0, TD_RAM, 8, 0, 0);
		break;
	case H_ACROSS_END:
		td_desc(t, 0, 0, TD_RAM - 4, 8, 0, 0);
		break;
	case H_WRAP_ADDR:
		td_desc(t, 0, 0, UINT64_MAX - 3, 8, 0, 0);
		break;
	case H_READ_AFTER_WRITE:
		td_desc(t, 0, 0, TD_DATA, 8, TD_NEXT | TD_WRITE, 1);
		td_desc(t, 0, 1, TD_DATA, 8, 0, 0);
		break;
	case H_INDIRECT_NESTED:
		put_table(t, &(struct td_desc){ TD_DATA + 0x1000, 16, TD_INDIRECT, 0 }, 1);
		break;
	case H_INDIRECT_NOT_NEGOTIATED:
		put_table(t, &(struct td_desc){ TD_DATA, 16, 0, 0 }, 1);
		break;
	case H_INDIRECT_NEXT:
		put_table(t, &(struct td_desc){ TD_DATA, 16, 0, 0 }, 1);
		td_desc(t, 0, 0, TD_DATA + 0x1000, 16, TD_INDIRECT | TD_NEXT, 1);
		break;
	case H_INDIRECT_EMPTY:
		td_desc(t, 0, 0, TD_DATA, 0, TD_INDIRECT, 0);
		break;
	case H_INDIRECT_ODD:
		td_desc(t, 0, 0, TD_DATA, 24, TD_INDIRECT, 0);
		break;
	case H_INDIRECT_LOOP:
		put_table(t, &(struct td_desc){ TD_DATA, 16, TD_NEXT, 0 }, 1);
		break;
	case H_INDIRECT_RANGE:
		put_table(t, &(struct td_desc){ TD_DATA, 16, TD_NEXT, 1 }, 1);
		break;
	case H_INDIRECT_NOT_RAM:
		td_desc(t, 0, 0, TD_RAM - 16, 32, TD_INDIRECT, 0);
		break;
	case H_INDIRECT_HUGE:
		td_desc(t, 0, 0, TD_DATA, 16 * 1025, TD_INDIRECT, 0);
		break;
	case H_INDIRECT_UNALIGNED:
		td_desc(t, 0, 0, TD_DATA + 1, 16, TD_INDIRECT, 0);
		break;
	case H_TOO_LONG: { /* two buffers of 4 GiB - 1 do not fit into RAM: the address stops them first */
		struct td_desc d[2] = { { TD_DATA, UINT32_MAX, TD_NEXT, 1 }, { TD_DATA, UINT32_MAX, 0, 0 } };
		put_table(t, d, 2);
		break;
	}
	case H_COUNT:
		break;
	}
	td_offer(t, 0, 0);
}

static void test_hostile(void **state)
{
	struct test_driver *t = *state;
	struct vq_elem e;

	for (enum hostile h = 0; h < H_COUNT; h++) {
		unsigned before = t->config_irqs;

		start(t, h == H_INDIRECT_NOT_NEGOTIATED ? 0 : VIRTIO_F_INDIRECT_DESC);
		prepare(t, h);
		assert_int_equal(vq_pop(&t->v->vq[0], &e), -EPROTO);
		assert_true(td_is_broken(t));
		assert_int_equal(t->config_irqs, before + 1);
		/* Nothing more happens until the reset. */
		assert_int_equal(vq_pop(&t->v->vq[0], &e), 0);
		vq_notify(&t->v->vq[0]);
		assert_int_equal(t->irqs[0], 0);
	}
}

static void test_bad_queues(void **state)
{
	struct test_driver *t = *state;
	const struct {
		uint64_t desc, avail, used;
		uint16_t size;
	} bad[] = {
		{ TD_RING(0) + 8, td_avail(0), td_used(0), 16 },
		{ TD_RING(0), td_avail(0) + 1, td_used(0), 16 },
		{ TD_RING(0), td_avail(0), td_used(0) + 2, 16 },
		{ TD_RING(0), td_avail(0), td_used(0), 0 },
		{ TD_RING(0), td_avail(0), td_used(0), 15 },
		{ TD_RING(0), td_avail(0), td_used(0), 128 },
		{ TD_RAM - 16, td_avail(0), td_used(0), 16 },
		{ TD_RING(0), TD_RAM - 16, td_used(0), 16 },
		{ TD_RING(0), td_avail(0), UINT64_MAX - 3, 16 },
		{ TD_RING(0), td_avail(0), TD_RAM - 4, 16 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		struct virtqueue *q = &t->v->vq[0];
		struct vq_elem e;

		virtio_set_status(t->v, 0);
		virtio_set_driver_features(t->v, 1, 1);
		virtio_set_status(t->v, VIRTIO_S_DRIVER | VIRTIO_S_FEATURES_OK);
		q->desc = bad[i].desc;
		q->avail = bad[i].avail;
		q->used = bad[i].used;
		q->size = bad[i].size;
		virtio_queue_enable(t->v, 0);
		virtio_set_status(t->v, VIRTIO_S_DRIVER_OK | t->v->status);
		assert_true(td_is_broken(t));
		assert_false(q->enabled);
		assert_int_equal(vq_pop(q, &e), 0);
		virtio_notify(t->v, 0);
		assert_false(vq_listen(q));
		vq_silence(q);
		vq_push(q, 0, 0);
	}
	virtio_queue_enable(t->v, 2);
	virtio_queue_enable(t->v, 70000);
	virtio_notify(t->v, 70000);
}

static void test_save_load(void **state)
{
	struct test_driver *t = *state;
	struct virtqueue *q = &t->v->vq[0];
	struct state_buf b = { 0 };
	struct virtqueue saved;
	struct error err;
	struct vq_elem e;
	uint64_t good_desc;

	start(t, 1u << 3);
	td_desc(t, 0, 0, TD_DATA, 1, TD_WRITE, 0);
	td_offer(t, 0, 0);
	td_offer(t, 0, 0);
	assert_int_equal(vq_pop(q, &e), 1);
	vq_push(q, e.head, 1);
	saved = *q;
	assert_int_equal(state_save(&b, &dummy_state, 0, t->v), 0);
	virtio_reset(t->v);
	assert_null(q->desc_p);
	assert_int_equal(state_load(&b, &dummy_state, 0, t->v, &err), 0);
	assert_memory_equal(q, &saved, sizeof(saved));
	assert_true(virtio_running(t->v));
	/* What was available when it was saved is seen again. */
	((struct dummy *)t->v)->notified = 0;
	td_run(t, 1);
	assert_int_equal(((struct dummy *)t->v)->notified, 1);
	assert_int_equal(vq_pop(q, &e), 1);
	assert_int_equal(vq_pop(q, &e), 0);

	/* Streams that cannot be right */
	good_desc = q->desc;
	q->desc = TD_RAM;
	b.len = b.pos = 0;
	assert_int_equal(state_save(&b, &dummy_state, 0, t->v), 0);
	assert_int_equal(state_load(&b, &dummy_state, 0, t->v, &err), -EINVAL);
	assert_non_null(strstr(err.message, "queue 0"));
	q->desc = good_desc;
	t->v->features |= 1u << 9;
	b.len = b.pos = 0;
	assert_int_equal(state_save(&b, &dummy_state, 0, t->v), 0);
	assert_int_equal(state_load(&b, &dummy_state, 0, t->v, &err), -EINVAL);
	assert_non_null(strstr(err.message, "features"));
	state_buf_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_negotiation, setup, teardown),
		cmocka_unit_test_setup_teardown(test_chain, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wrap, setup, teardown),
		cmocka_unit_test_setup_teardown(test_event_idx, setup, teardown),
		cmocka_unit_test_setup_teardown(test_silence, setup, teardown),
		cmocka_unit_test_setup_teardown(test_indirect, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_queues, setup, teardown),
		cmocka_unit_test_setup_teardown(test_save_load, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
