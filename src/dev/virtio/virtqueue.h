/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Split virtqueues, device side (virtio 1.2 §2.7).
 *
 * A queue is three areas in guest memory: a table of descriptors (address,
 * length, flags, next), the available ring in which the driver puts heads of
 * descriptor chains, and the used ring in which the device gives them back.
 * Indices run freely modulo 2^16.
 *
 *	vq_pop    takes the next chain and checks it whole
 *	vq_push   gives it back, with the number of bytes written
 *	vq_notify interrupts the driver, unless it asked not to be
 *
 * or, for several chains that must appear at once (network receive): vq_pop
 * several times, vq_fill for each, vq_flush; vq_rewind to put them back.
 *
 * Everything that the guest can change under our hands is read once.  Rubbish
 * (an index out of range, a chain that loops or is too long, a buffer outside
 * RAM, read-only after write-only descriptors, more available than the queue
 * holds) breaks the device: virtio_broken.
 */
#ifndef SILL_DEV_VIRTIO_VIRTQUEUE_H
#define SILL_DEV_VIRTIO_VIRTQUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "state/fields.h"

#define VQ_MAX_SIZE 1024u
#define VQ_MAX_SEGS 1024u /* buffers in one chain */

struct virtio_device;
struct vq_desc;
struct vq_avail;
struct vq_used;

struct virtqueue {
	struct virtio_device *v;
	unsigned index;
	uint16_t max_size;

	/* state; desc, avail, used: guest-physical addresses */
	uint64_t desc, avail, used;
	uint16_t size, vector;
	uint16_t last_avail, used_idx;
	uint16_t signalled_used; /* used_idx when the driver was last interrupted */
	bool signalled_valid, enabled;
	bool silent; /* the driver need not notify now */

	/* derived; NULL while not enabled */
	struct vq_desc *desc_p;
	struct vq_avail *avail_p;
	struct vq_used *used_p;
	struct iovec *iov; /* VQ_MAX_SEGS: the segments of the chain last popped */
};

#define VIRTQUEUE_FIELDS(S, q)                                                                               \
	F_U64(S, q.desc), F_U64(S, q.avail), F_U64(S, q.used), F_U16(S, q.size), F_U16(S, q.vector),         \
	    F_U16(S, q.last_avail), F_U16(S, q.used_idx), F_U16(S, q.signalled_used),                        \
	    F_BOOL(S, q.signalled_valid), F_BOOL(S, q.enabled), F_BOOL(S, q.silent)

/* One chain. The iovecs are valid until the next vq_pop of the queue and may be altered. */
struct vq_elem {
	uint16_t head;
	unsigned nout, nin;
	struct iovec *out, *in;   /* out: device reads; in: device writes */
	uint64_t out_len, in_len; /* sums */
};

int vq_init(struct virtqueue *q, struct virtio_device *v, unsigned index, uint16_t max_size);
void vq_fini(struct virtqueue *q);
void vq_reset(struct virtqueue *q);
/* Finds the three areas in RAM. 0, -EINVAL (size or alignment) or -EFAULT. */
int vq_map(struct virtqueue *q);
void vq_unmap(struct virtqueue *q);

/* 1: *e is the next chain; 0: none; -EPROTO: the device is broken now; */
int vq_pop(struct virtqueue *q, struct vq_elem *e);
/* True if vq_pop would find something (or trouble). */
bool vq_pending(const struct virtqueue *q);
/* Puts the last n popped chains back. */
void vq_rewind(struct virtqueue *q, uint16_t n);
/* Returns a chain: written = bytes the device wrote, from the start of the in-buffers. */
void vq_push(struct virtqueue *q, uint16_t head, uint32_t written);
/* The same in two steps: vq_fill of the nth (from 0) chain of a batch, then vq_flush of all. */
void vq_fill(struct virtqueue *q, uint16_t nth, uint16_t head, uint32_t written);
void vq_flush(struct virtqueue *q, uint16_t count);
/* Tells src/mem that the first len bytes of these (guest RAM) buffers were written. Before vq_push. */
void vq_written(struct virtqueue *q, const struct iovec *iov, unsigned cnt, uint64_t len);
/* Interrupts the driver if it wants that for what was pushed since the last time. */
void vq_notify(struct virtqueue *q);
/*
 * Asks the driver to notify us of new buffers, or not to. vq_listen returns
 * true if there are buffers already: then go on with them.
 */
void vq_silence(struct virtqueue *q);
bool vq_listen(struct virtqueue *q);
/*
 * The same for one who found too few and put them back: wants to hear of
 * buffers beyond available index `seen`. True if there are some already.
 */
bool vq_listen_beyond(struct virtqueue *q, uint16_t seen);

#endif
