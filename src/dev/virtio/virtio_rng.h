/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SILL_DEV_VIRTIO_RNG_H
#define SILL_DEV_VIRTIO_RNG_H

#include "dev/virtio/virtio.h"

/* Makes a virtio entropy source on b, fed by the host's getrandom. 0 or -errno. */
int virtio_rng_new(struct board *b, uint32_t instance, struct virtio_device **ret, struct error *err);

#define VIRTIO_RNG_PCI_CLASS 0x00ff00u

#endif
