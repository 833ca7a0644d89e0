/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SILL_DEV_VIRTIO_NET_H
#define SILL_DEV_VIRTIO_NET_H

#include "dev/virtio/virtio.h"
#include "net/net.h"

/*
 * Makes a virtio network card on b, plugged into net (the caller's, which must
 * outlive the device). mac: unicast. 0 or -errno.
 */
int virtio_net_new(struct board *b, struct net *net, const uint8_t mac[6], uint32_t instance,
		   struct virtio_device **ret, struct error *err);
/* [io] Pulls the cable or plugs it in: the guest is told. */
void virtio_net_set_link(struct virtio_device *v, bool up);

#define VIRTIO_NET_PCI_CLASS 0x020000u

#endif
