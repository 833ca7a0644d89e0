/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SILL_DEV_VIRTIO_SCSI_H
#define SILL_DEV_VIRTIO_SCSI_H

#include "dev/storage/scsi.h"
#include "dev/virtio/virtio.h"

#define VIRTIO_SCSI_TARGETS   20
#define VIRTIO_SCSI_PCI_CLASS 0x010000u /* mass storage, SCSI */

/* A SCSI host bus adapter on b, without targets. 0 or -errno. */
int virtio_scsi_new(struct board *b, struct virtio_device **ret, struct error *err);
/*
 * Before the vCPUs run: target nr (0..VIRTIO_SCSI_TARGETS - 1) is a disk, or a CD drive with a disc in it
 * (NULL: none), with one logical unit. block stays the caller's, outlives the adapter, and is drained before
 * saving.
 */
struct scsi_device *virtio_scsi_add(struct virtio_device *v, unsigned nr, bool is_cd, struct block *block,
				    const char *serial);

#endif
