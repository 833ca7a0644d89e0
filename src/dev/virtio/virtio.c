/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/virtio/virtio.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"

#define CONFIG_MAX 256u

static void kick_all(struct virtio_device *v)
{
	for (unsigned i = 0; i < v->nqueues; i++)
		virtio_notify(v, i);
}

static void kick_work(void *opaque)
{
	struct virtio_device *v = opaque;

	for (unsigned i = 0; i < v->nqueues; i++)
		if (vq_pending(&v->vq[i]))
			virtio_notify(v, i);
}

int virtio_init(struct virtio_device *v, struct board *b, const struct virtio_ops *ops,
		const struct device_class *cls, uint32_t instance, uint64_t host_features, unsigned nqueues,
		uint16_t max_size, unsigned config_len)
{
	v->ops = ops;
	v->board = b;
	v->host_features = host_features | VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX;
	v->nqueues = nqueues;
	v->config_len = config_len;
	v->kick_work = (struct loop_work){ .fn = kick_work, .opaque = v };
	for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++) {
		if (vq_init(&v->vq[i], v, i, max_size)) {
			virtio_fini(v);
			return -ENOMEM;
		}
	}
	board_add(b, &v->dev, cls, instance);
	return 0;
}

void virtio_fini(struct virtio_device *v)
{
	loop_unpost(v->board->loop, &v->kick_work);
	for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++)
		vq_fini(&v->vq[i]);
}

void virtio_set_transport(struct virtio_device *v, const struct virtio_transport *t)
{
	v->transport = *t;
}

void virtio_reset(struct virtio_device *v)
{
	/* Status first: what ops->stop completes must neither start new work nor interrupt. */
	v->status = 0;
	if (v->ops->stop)
		v->ops->stop(v);
	v->features = 0;
	v->config_generation = 0;
	loop_unpost(v->board->loop, &v->kick_work);
	for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++)
		vq_reset(&v->vq[i]);
}

bool virtio_running(const struct virtio_device *v)
{
	return (v->status & (VIRTIO_S_DRIVER_OK | VIRTIO_S_NEEDS_RESET)) == VIRTIO_S_DRIVER_OK && !v->dma_off;
}

void virtio_config_changed(struct virtio_device *v)
{
	v->config_generation++;
	if (v->status & VIRTIO_S_DRIVER_OK)
		v->transport.config_irq(v->transport.opaque);
}

void virtio_broken(struct virtio_device *v, const char *why)
{
	if (v->status & VIRTIO_S_NEEDS_RESET)
		return;
	log_debug("%s %u: the driver gave %s; the device needs a reset", v->dev.cls->name, v->dev.instance,
		  why);
	v->status |= VIRTIO_S_NEEDS_RESET;
	if (v->status & VIRTIO_S_DRIVER_OK)
		virtio_config_changed(v);
}

void virtio_kick_later(struct virtio_device *v)
{
	loop_post(v->board->loop, &v->kick_work);
}

/* ---- negotiation ---- */

static bool features_acceptable(struct virtio_device *v)
{
	if (v->features & ~v->host_features || !virtio_has(v, VIRTIO_F_VERSION_1))
		return false; /* §2.2.2, §6.2: there is no legacy mode here */
	return !v->ops->features_ok || v->ops->features_ok(v, v->features);
}

void virtio_set_status(struct virtio_device *v, uint8_t status)
{
	uint8_t set = status & (uint8_t)~v->status;

	if (status == 0) {
		virtio_reset(v);
		return;
	}
	/* Only a reset takes bits away (§2.1.1); NEEDS_RESET is ours. */
	set &= (uint8_t)~VIRTIO_S_NEEDS_RESET;
	if ((set & VIRTIO_S_FEATURES_OK) && !features_acceptable(v))
		set &= (uint8_t)~VIRTIO_S_FEATURES_OK;
	if ((set & VIRTIO_S_DRIVER_OK) && !((v->status | set) & VIRTIO_S_FEATURES_OK))
		set &= (uint8_t)~VIRTIO_S_DRIVER_OK;
	v->status |= set;
	/* Buffers may have been put there, and even announced, before. */
	if ((set & VIRTIO_S_DRIVER_OK) && virtio_running(v))
		kick_all(v);
}

uint32_t virtio_host_features(const struct virtio_device *v, uint32_t h)
{
	return h < 2 ? (uint32_t)(v->host_features >> (32 * h)) : 0;
}

uint32_t virtio_driver_features(const struct virtio_device *v, uint32_t h)
{
	return h < 2 ? (uint32_t)(v->features >> (32 * h)) : 0;
}

void virtio_set_driver_features(struct virtio_device *v, uint32_t h, uint32_t value)
{
	if (h >= 2 || (v->status & VIRTIO_S_FEATURES_OK))
		return;
	v->features = (v->features & ~(0xffffffffull << (32 * h))) | (uint64_t)value << (32 * h);
}

void virtio_queue_enable(struct virtio_device *v, unsigned queue)
{
	struct virtqueue *q;

	if (queue >= v->nqueues || v->vq[queue].enabled)
		return;
	q = &v->vq[queue];
	if (vq_map(q)) {
		virtio_broken(v, "a queue that is not in RAM, or misaligned");
		return;
	}
	q->enabled = true;
}

void virtio_notify(struct virtio_device *v, unsigned queue)
{
	if (queue < v->nqueues && v->vq[queue].enabled && virtio_running(v))
		v->ops->notify(v, queue);
}

/* ---- configuration space ---- */

uint32_t virtio_config_read(struct virtio_device *v, unsigned offset, unsigned size)
{
	uint8_t buf[CONFIG_MAX + 4] = { 0 };
	uint32_t value = 0;

	if (offset >= CONFIG_MAX)
		return 0;
	v->ops->config_get(v, buf);
	memset(buf + v->config_len, 0, sizeof(buf) - v->config_len);
	memcpy(&value, buf + offset, size <= 4 ? size : 4);
	return value;
}

void virtio_config_write(struct virtio_device *v, unsigned offset, uint32_t value, unsigned size)
{
	if (v->ops->config_set && offset < v->config_len && size <= v->config_len - offset)
		v->ops->config_set(v, offset, value, size);
}

/* ---- state ---- */

/* Refused: the old fields come back, for which the rings were not checked. They stay unmapped until a reset.
 */
static int refuse(struct virtio_device *v)
{
	for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++)
		vq_unmap(&v->vq[i]);
	return -EINVAL;
}

int virtio_loaded(struct virtio_device *v, struct error *err)
{
	if (v->features & ~v->host_features) {
		error_set(
		    err, EINVAL,
		    "saved state of %s %u: its guest uses features 0x%llx that this device does not offer: "
		    "start the VM with the configuration it was saved with",
		    v->dev.cls->name, v->dev.instance, (unsigned long long)(v->features & ~v->host_features));
		return refuse(v);
	}
	for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++) {
		struct virtqueue *q = &v->vq[i];

		vq_unmap(q);
		if (q->enabled && (i >= v->nqueues || vq_map(q))) {
			error_set(err, EINVAL,
				  "saved state of %s %u: queue %u is impossible: the file is damaged, or the "
				  "VM had "
				  "another size of memory",
				  v->dev.cls->name, v->dev.instance, i);
			return refuse(v);
		}
		if (!q->enabled && (q->size == 0 || q->size > q->max_size || (q->size & (q->size - 1))))
			q->size = q->max_size;
	}
	/* What the device had not got round to, it finds in the rings. */
	virtio_kick_later(v);
	return 0;
}
