/* SPDX-License-Identifier: Apache-2.0 */
/* Packet helpers and constants for the backends. */
#ifndef SILL_NET_INTERNAL_H
#define SILL_NET_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

/* The user network, host byte order. */
#define NET_USER_NET     0x0a000200u
#define NET_USER_MASK    0xffffff00u
#define NET_USER_GATEWAY 0x0a000202u
#define NET_USER_DNS     0x0a000203u
#define NET_USER_GUEST   0x0a00020fu

#endif
