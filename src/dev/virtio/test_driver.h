/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio driver in a few lines, for tests and fuzzers: a board with a little
 * RAM, a transport that counts interrupts, and rings at fixed places.
 *
 * Queue i has its descriptors, available and used ring in the 64 KiB from
 * TD_RING(i) on; buffers may lie from TD_DATA up.
 */
#ifndef SILL_DEV_VIRTIO_TEST_DRIVER_H
#define SILL_DEV_VIRTIO_TEST_DRIVER_H

#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "dev/virtio/virtio.h"

#define TD_RAM     MIB(4)
#define TD_RING(i) (0x10000ull * ((i) + 1))
#define TD_DATA    0x100000ull

#define TD_NEXT     1u
#define TD_WRITE    2u
#define TD_INDIRECT 4u

struct test_driver {
	struct clock clock;
	struct mutex lock;
	struct loop *loop;
	struct mem *mem;
	struct board board;
	struct virtio_device *v;
	unsigned irqs[VIRTIO_MAX_QUEUES], config_irqs;
	uint16_t size, avail_idx[VIRTIO_MAX_QUEUES];
	struct loop_timer quit;
};

static inline void td_queue_irq(void *opaque, unsigned queue)
{
	((struct test_driver *)opaque)->irqs[queue]++;
}

static inline void td_config_irq(void *opaque)
{
	((struct test_driver *)opaque)->config_irqs++;
}

static inline void td_quit(void *opaque)
{
	loop_quit(opaque);
}

/* Leaves the I/O lock held, as everything below needs it. */
static inline void td_init(struct test_driver *t)
{
	memset(t, 0, sizeof(*t));
	clock_init(&t->clock);
	mutex_init(&t->lock, LOCK_RANK_IO, "io");
	if (loop_new(&t->clock, &t->lock, &t->loop, NULL) || mem_new(TD_RAM, &t->lock, &t->mem, NULL))
		abort();
	t->board = (struct board){ .mem = t->mem, .loop = t->loop, .clock = &t->clock, .io_lock = &t->lock };
	loop_timer_init(t->loop, &t->quit, td_quit, t->loop);
	mutex_lock(&t->lock);
}

static inline void td_attach(struct test_driver *t, struct virtio_device *v)
{
	t->v = v;
	virtio_set_transport(v, &(struct virtio_transport){ td_queue_irq, td_config_irq, t });
}

/* Frees the board's devices too. */
static inline void td_fini(struct test_driver *t)
{
	board_free_devices(&t->board);
	mutex_unlock(&t->lock);
	loop_free(t->loop);
	mem_free(t->mem);
	mutex_destroy(&t->lock);
}

/* Lets the event loop run for so many milliseconds; 0: for what is posted already. */
static inline void td_run(struct test_driver *t, int ms)
{
	loop_timer_arm(&t->quit, clock_now_ns(&t->clock) + ms * 1000000ll);
	mutex_unlock(&t->lock);
	loop_run(t->loop);
	mutex_lock(&t->lock);
}

static inline void td_put(struct test_driver *t, uint64_t gpa, const void *data, size_t len)
{
	if (mem_write(t->mem, GPA(gpa), data, len))
		abort();
}

static inline void td_get(struct test_driver *t, uint64_t gpa, void *data, size_t len)
{
	if (mem_read(t->mem, GPA(gpa), data, len))
		abort();
}

static inline uint64_t td_avail(unsigned q)
{
	return TD_RING(q) + 0x8000;
}

static inline uint64_t td_used(unsigned q)
{
	return TD_RING(q) + 0xa000;
}

/* Through the status dance up to DRIVER_OK, with queues of `size`. Returns the status read back. */
static inline uint8_t td_start(struct test_driver *t, uint64_t features, uint16_t size)
{
	struct virtio_device *v = t->v;

	virtio_set_status(v, 0);
	virtio_set_status(v, VIRTIO_S_ACKNOWLEDGE);
	virtio_set_status(v, VIRTIO_S_ACKNOWLEDGE | VIRTIO_S_DRIVER);
	features |= VIRTIO_F_VERSION_1;
	virtio_set_driver_features(v, 0, (uint32_t)features);
	virtio_set_driver_features(v, 1, (uint32_t)(features >> 32));
	virtio_set_status(v, v->status | VIRTIO_S_FEATURES_OK);
	if (!(v->status & VIRTIO_S_FEATURES_OK))
		return v->status;
	t->size = size;
	for (unsigned i = 0; i < v->nqueues; i++) {
		memset(mem_ram_ptr(t->mem, GPA(TD_RING(i)), 0x10000), 0, 0x10000);
		t->avail_idx[i] = 0;
		v->vq[i].size = size;
		v->vq[i].desc = TD_RING(i);
		v->vq[i].avail = td_avail(i);
		v->vq[i].used = td_used(i);
		virtio_queue_enable(v, i);
	}
	virtio_set_status(v, v->status | VIRTIO_S_DRIVER_OK);
	return v->status;
}

struct td_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

static inline void td_desc(struct test_driver *t, unsigned q, unsigned i, uint64_t addr, uint32_t len,
			   uint16_t flags, uint16_t next)
{
	struct td_desc d = { addr, len, flags, next };

	td_put(t, TD_RING(q) + i * sizeof(d), &d, sizeof(d));
}

/* Makes a chain available, without notifying. */
static inline void td_offer(struct test_driver *t, unsigned q, uint16_t head)
{
	td_put(t, td_avail(q) + 4 + 2u * (t->avail_idx[q] % t->size), &head, 2);
	t->avail_idx[q]++;
	td_put(t, td_avail(q) + 2, &t->avail_idx[q], 2);
}

static inline void td_kick(struct test_driver *t, unsigned q, uint16_t head)
{
	td_offer(t, q, head);
	virtio_notify(t->v, q);
}

static inline uint16_t td_used_idx(struct test_driver *t, unsigned q)
{
	uint16_t idx;

	td_get(t, td_used(q) + 2, &idx, 2);
	return idx;
}

/* Entry n (0 = the first ever) of the used ring. */
static inline uint32_t td_used_id(struct test_driver *t, unsigned q, unsigned n)
{
	uint32_t id;

	td_get(t, td_used(q) + 4 + 8ull * (n % t->size), &id, 4);
	return id;
}

static inline uint32_t td_used_len(struct test_driver *t, unsigned q, unsigned n)
{
	uint32_t len;

	td_get(t, td_used(q) + 8 + 8ull * (n % t->size), &len, 4);
	return len;
}

static inline bool td_is_broken(struct test_driver *t)
{
	return t->v->status & VIRTIO_S_NEEDS_RESET;
}

#endif
