/* SPDX-License-Identifier: Apache-2.0 */
/* Packet helpers and constants for the backends. */
#ifndef SILL_NET_INTERNAL_H
#define SILL_NET_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

#include "net/net.h"

/* The user network, host byte order. */
#define NET_USER_NET     0x0a000200u
#define NET_USER_MASK    0xffffff00u
#define NET_USER_GATEWAY 0x0a000202u
#define NET_USER_DNS     0x0a000203u
#define NET_USER_GUEST   0x0a00020fu

/* Gives a frame to the card. False: it has no room. [io] */
static inline bool net_deliver(struct net *n, const uint8_t *frame, size_t len,
			       const struct net_frame_info *info)
{
	bool (*receive)(void *, const uint8_t *, size_t, const struct net_frame_info *) =
	    __atomic_load_n(&n->client.receive, __ATOMIC_ACQUIRE);

	return !receive || receive(__atomic_load_n(&n->client.opaque, __ATOMIC_ACQUIRE), frame, len, info);
}

#endif
