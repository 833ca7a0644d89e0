/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio 1.2 devices, without their transport.
 *
 * A virtio device is a set of queues in guest memory, a feature negotiation and
 * a small configuration space.  The driver sets status bits in order:
 *
 *	0 -> ACKNOWLEDGE -> DRIVER -> (features) -> FEATURES_OK -> (queues) -> DRIVER_OK
 *
 * and writes 0 to go back to the start (§2.1, §3.1).  Queues are served only
 * from DRIVER_OK on.  A device that finds rubbish in a queue sets
 * DEVICE_NEEDS_RESET, tells the driver by a configuration interrupt, and does
 * nothing more until it is reset (§2.1.2): that is the answer to every
 * malformed ring here.
 *
 * A device model embeds struct virtio_device first (it begins with struct
 * device, so the class' functions get a pointer to all three), and implements
 * struct virtio_ops.  A transport (virtio_pci.c) turns register accesses into
 * the virtio_* calls below and interrupts into its own.
 *
 * Everything here runs under the I/O lock.
 */
#ifndef SILL_DEV_VIRTIO_VIRTIO_H
#define SILL_DEV_VIRTIO_VIRTIO_H

#include <stdbool.h>
#include <stdint.h>

#include "dev/device.h"
#include "dev/virtio/virtqueue.h"

#define VIRTIO_MAX_QUEUES 4u
#define VIRTIO_NO_VECTOR  0xffffu

/* Device types (§5) */
#define VIRTIO_ID_NET   1
#define VIRTIO_ID_BLK   2
#define VIRTIO_ID_RNG   4
#define VIRTIO_ID_SCSI  8
#define VIRTIO_ID_GPU   16
#define VIRTIO_ID_INPUT 18

/* Status bits (§2.1) */
#define VIRTIO_S_ACKNOWLEDGE 1u
#define VIRTIO_S_DRIVER      2u
#define VIRTIO_S_DRIVER_OK   4u
#define VIRTIO_S_FEATURES_OK 8u
#define VIRTIO_S_NEEDS_RESET 64u
#define VIRTIO_S_FAILED      128u

/* Feature bits of the common part (§6) */
#define VIRTIO_F_INDIRECT_DESC (1ull << 28)
#define VIRTIO_F_EVENT_IDX     (1ull << 29)
#define VIRTIO_F_VERSION_1     (1ull << 32)

struct virtio_device;

struct virtio_ops {
	uint16_t id;
	/* Fills buf with the configuration space, config_len bytes, little-endian. */
	void (*config_get)(struct virtio_device *v, uint8_t *buf);
	/* The driver wrote size (1, 2, 4) bytes at offset, within config_len. May be NULL: read-only. */
	void (*config_set)(struct virtio_device *v, unsigned offset, uint32_t value, unsigned size);
	/* May refuse a set of features (already a subset of those offered). May be NULL. */
	bool (*features_ok)(struct virtio_device *v, uint64_t features);
	/* The driver made buffers available in an enabled queue; also called for each at DRIVER_OK. */
	void (*notify)(struct virtio_device *v, unsigned queue);
	/* Stop: finish or forget everything in flight; queues are about to be cleared. May be NULL. */
	void (*stop)(struct virtio_device *v);
};

struct virtio_transport {
	void (*queue_irq)(void *opaque, unsigned queue);
	void (*config_irq)(void *opaque);
	void *opaque;
};

struct virtio_device {
	struct device dev;
	const struct virtio_ops *ops;
	struct board *board;
	struct virtio_transport transport;
	uint64_t host_features; /* offered */
	unsigned nqueues, config_len;
	bool dma_off; /* the transport's: the guest forbids us its memory now (PCI bus mastering) */
	struct loop_work kick_work; /* notifies all queues from the event loop */

	/* state */
	uint64_t features; /* accepted by the driver */
	uint8_t status, config_generation;
	struct virtqueue vq[VIRTIO_MAX_QUEUES];
};

/* The part of a device's field table that virtio.c needs: VIRTIO_FIELDS(struct foo, v). */
#define VIRTIO_FIELDS(S, m)                                                                                  \
	F_U64(S, m.features), F_U8(S, m.status), F_U8(S, m.config_generation), VIRTQUEUE_FIELDS(S, m.vq[0]), \
	    VIRTQUEUE_FIELDS(S, m.vq[1]), VIRTQUEUE_FIELDS(S, m.vq[2]), VIRTQUEUE_FIELDS(S, m.vq[3])

/* ---- for device models ---- */

/*
 * Puts v on the board's list. Adds the common features to host_features; all
 * queues get max_size (a power of two, at most VQ_MAX_SIZE). 0 or -ENOMEM (then nothing is left).
 */
int virtio_init(struct virtio_device *v, struct board *b, const struct virtio_ops *ops,
		const struct device_class *cls, uint32_t instance, uint64_t host_features, unsigned nqueues,
		uint16_t max_size, unsigned config_len);
void virtio_fini(struct virtio_device *v);
/* Calls ops->stop, then clears status, features and queues. For the class' reset and for the driver's. */
void virtio_reset(struct virtio_device *v);
/* Last in the table's `loaded`: checks everything and maps the rings. 0 or -EINVAL. */
int virtio_loaded(struct virtio_device *v, struct error *err);
/* Queues may be served: DRIVER_OK, not broken, and memory may be accessed. */
bool virtio_running(const struct virtio_device *v);
static inline bool virtio_has(const struct virtio_device *v, uint64_t feature)
{
	return (v->features & feature) != 0;
}
/* The device's configuration changed: new generation, interrupt. */
void virtio_config_changed(struct virtio_device *v);
/* The guest broke a rule: DEVICE_NEEDS_RESET. why: for the debug log. */
void virtio_broken(struct virtio_device *v, const char *why);
/* Calls ops->notify for queues with buffers, from the event loop: to go on with what was cut short. */
void virtio_kick_later(struct virtio_device *v);

/* ---- for transports ---- */

void virtio_set_transport(struct virtio_device *v, const struct virtio_transport *t);
/* Device status (§2.1): 0 resets. */
void virtio_set_status(struct virtio_device *v, uint8_t status);
/* Half h (0, 1) of the features; anything else reads 0. Writes count only before FEATURES_OK. */
uint32_t virtio_host_features(const struct virtio_device *v, uint32_t h);
uint32_t virtio_driver_features(const struct virtio_device *v, uint32_t h);
void virtio_set_driver_features(struct virtio_device *v, uint32_t h, uint32_t value);
/* Device configuration; beyond its end reads give 0 and writes vanish. size 1, 2, 4. */
uint32_t virtio_config_read(struct virtio_device *v, unsigned offset, unsigned size);
void virtio_config_write(struct virtio_device *v, unsigned offset, uint32_t value, unsigned size);
/* The driver's queue notification; ignored if the queue is not there or not live. */
void virtio_notify(struct virtio_device *v, unsigned queue);
/* queue_enable = 1. */
void virtio_queue_enable(struct virtio_device *v, unsigned queue);

#endif
