/* SPDX-License-Identifier: Apache-2.0 */
/* A serial ATA controller with an AHCI interface. */
#ifndef SILL_DEV_STORAGE_AHCI_H
#define SILL_DEV_STORAGE_AHCI_H

#include "dev/device.h"
#include "dev/storage/ata.h"

struct ahci;
struct pci_bus;
struct pci_device;

#define AHCI_PORTS 6

/* In the first free slot, without drives. 0 or -errno. */
int ahci_new(struct board *b, struct pci_bus *bus, struct ahci **ret, struct error *err);
struct pci_device *ahci_pci(struct ahci *h); /* its function */
/* Before the vCPUs run: plugs a disk into port nr (0..5), or a CD drive with a disc in it (NULL: none). */
void ahci_add_disk(struct ahci *h, unsigned nr, struct block *block, const char *serial);
struct ata_drive *ahci_add_cd(struct ahci *h, unsigned nr, struct block *block, const char *serial);

#endif
