/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio entropy device (virtio 1.2 §5.4): the driver gives empty buffers,
 * the device fills them with random bytes.
 *
 * The host's generator does some hundred MiB/s, under the I/O lock; so that a
 * guest cannot keep the other devices waiting with it, at most BURST bytes are
 * made at a time, PERIOD_NS apart.
 */
#include "dev/virtio/virtio_rng.h"

#include <errno.h>
#include <sys/random.h>

#include "base/util.h"

#define QUEUE_SIZE 8u
#define BURST      KIB(16)
#define PERIOD_NS  2000000

struct virtio_rng {
	struct virtio_device v;
	struct loop_timer timer;
	int64_t next_ns; /* virtual time of the next burst; needs no saving: at worst it comes early */
};

/* Fills a chain up to max bytes. Returns the number. */
static uint64_t fill(struct virtqueue *q, const struct vq_elem *e, uint64_t max)
{
	uint64_t done = 0;

	for (unsigned i = 0; i < e->nin && done < max; i++) {
		size_t len = (size_t)min_u64(e->in[i].iov_len, max - done);

		for (size_t n = 0; n < len;) {
			ssize_t r = getrandom((uint8_t *)e->in[i].iov_base + n, min_u64(len - n, 256), 0);

			if (r < 0 && errno != EINTR)
				goto out; /* cannot happen once the host has booted */
			if (r > 0) {
				n += (size_t)r;
				done += (uint64_t)r;
			}
		}
	}
out:
	vq_written(q, e->in, e->nin, done);
	return done;
}

static void serve(struct virtio_rng *r)
{
	struct virtqueue *q = &r->v.vq[0];
	int64_t now = clock_now_ns(r->v.board->clock);
	unsigned chains = QUEUE_SIZE;
	uint64_t left = BURST;
	bool any = false;
	struct vq_elem e;

	if (r->timer.armed)
		return;
	if (now < r->next_ns) {
		loop_timer_arm(&r->timer, r->next_ns);
		return;
	}
	while (left && chains && vq_pop(q, &e) > 0) {
		uint64_t n = fill(q, &e, left);

		vq_push(q, e.head, (uint32_t)n);
		left -= n;
		chains--;
		any = true;
	}
	if (any)
		vq_notify(q);
	if (!left || !chains) {
		r->next_ns = now + PERIOD_NS;
		loop_timer_arm(&r->timer, r->next_ns);
	} else if (vq_listen(q)) {
		virtio_kick_later(&r->v);
	}
}

static void timer_fired(void *opaque)
{
	struct virtio_rng *r = opaque;

	virtio_notify(&r->v, 0);
}

static void rng_notify(struct virtio_device *v, unsigned queue)
{
	(void)queue;
	serve((struct virtio_rng *)v);
}

static void rng_stop(struct virtio_device *v)
{
	loop_timer_cancel(&((struct virtio_rng *)v)->timer);
}

static void rng_config_get(struct virtio_device *v, uint8_t *buf)
{
	(void)v;
	(void)buf;
}

static const struct virtio_ops rng_ops = {
	.id = VIRTIO_ID_RNG,
	.config_get = rng_config_get,
	.notify = rng_notify,
	.stop = rng_stop,
};

static void rng_reset(struct device *d)
{
	virtio_reset((struct virtio_device *)d);
	((struct virtio_rng *)d)->next_ns = 0;
}

static int rng_loaded(void *obj, struct error *err)
{
	return virtio_loaded(obj, err);
}

static void rng_free(struct device *d)
{
	struct virtio_device *v = (struct virtio_device *)d;

	virtio_reset(v);
	virtio_fini(v);
	free(v);
}

static const struct state_field rng_fields[] = { VIRTIO_FIELDS(struct virtio_rng, v), F_END };
static const struct state_table rng_state = { "virtio-rng", 1, rng_fields, rng_loaded };
static const struct device_class rng_class = { "virtio-rng", rng_reset, &rng_state, rng_free };

int virtio_rng_new(struct board *b, uint32_t instance, struct virtio_device **ret, struct error *err)
{
	struct virtio_rng *r = calloc(1, sizeof(*r));

	if (!r || virtio_init(&r->v, b, &rng_ops, &rng_class, instance, 0, 1, QUEUE_SIZE, 0)) {
		free(r);
		return error_set(err, ENOMEM, "not enough memory for a virtio entropy device");
	}
	loop_timer_init(b->loop, &r->timer, timer_fired, r);
	*ret = &r->v;
	return 0;
}
