/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SILL_DEV_VIRTIO_BLK_H
#define SILL_DEV_VIRTIO_BLK_H

#include "block/block.h"
#include "dev/virtio/virtio.h"

/*
 * Makes a virtio disk on b with nqueues (1..VIRTIO_MAX_QUEUES) request queues.
 * block: stays the caller's and must outlive the device; call block_drain on it
 * before saving. serial: up to 20 bytes that the guest can ask for, or NULL.
 * 0 or -errno.
 */
int virtio_blk_new(struct board *b, struct block *block, const char *serial, unsigned nqueues,
		   uint32_t instance, struct virtio_device **ret, struct error *err);
/* [io] The block's size changed: tells the guest. */
void virtio_blk_resized(struct virtio_device *v);

#define VIRTIO_BLK_PCI_CLASS 0x010000u /* mass storage, SCSI */

#endif
