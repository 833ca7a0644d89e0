/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SILL_DEV_VIRTIO_GPU_H
#define SILL_DEV_VIRTIO_GPU_H

#include "dev/virtio/virtio.h"
#include "ui/display.h"

/* A virtio graphics card with one screen; d becomes its display and outlives it. 0 or -ENOMEM. */
int virtio_gpu_new(struct board *b, struct display *d, uint32_t instance, struct virtio_device **ret,
		   struct error *err);

#endif
