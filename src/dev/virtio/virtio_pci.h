/* SPDX-License-Identifier: Apache-2.0 */
/* The PCI transport of virtio 1.2 (§4.1), modern only: it makes one PCI function for a virtio device. */
#ifndef SILL_DEV_VIRTIO_PCI_H
#define SILL_DEV_VIRTIO_PCI_H

#include "dev/pci/pci.h"
#include "dev/virtio/virtio.h"

/*
 * Puts v on the bus as 1af4:(1040 + type), with one MSI-X vector per queue and
 * one for configuration changes, and INTA for drivers without MSI-X. class_code
 * as in struct pci_ids. devfn: see pci_device_init. The device must be made
 * (and so be on the board's list) before its transport, which never touches it
 * after the board has begun to free. 0 or -errno.
 */
int virtio_pci_new(struct pci_bus *bus, int devfn, struct virtio_device *v, uint32_t class_code,
		   uint32_t instance, struct error *err);

#endif
