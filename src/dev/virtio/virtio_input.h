/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SILL_DEV_VIRTIO_INPUT_H
#define SILL_DEV_VIRTIO_INPUT_H

#include "dev/virtio/virtio.h"
#include "ui/input.h"

enum virtio_input_kind { VIRTIO_INPUT_KEYBOARD, VIRTIO_INPUT_TABLET };

/* A virtio keyboard or tablet, which gets its events from `in`. 0 or -ENOMEM. */
int virtio_input_new(struct board *b, struct input *in, enum virtio_input_kind kind, uint32_t instance,
		     struct virtio_device **ret, struct error *err);

#endif
