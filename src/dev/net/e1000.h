/* SPDX-License-Identifier: Apache-2.0 */
/* Intel 82540EM Gigabit Ethernet controller (8086:100e). */
#ifndef SILL_DEV_NET_E1000_H
#define SILL_DEV_NET_E1000_H

#include "dev/device.h"
#include "net/net.h"

struct pci_bus;
struct pci_device;

/* net: what it is plugged into; the caller's, outlives it. *ret: its PCI function. 0 or -errno. */
int e1000_new(struct board *b, struct pci_bus *bus, struct net *net, const uint8_t mac[6], uint32_t instance,
	      struct pci_device **ret, struct error *err);

#endif
