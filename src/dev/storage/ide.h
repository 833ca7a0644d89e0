/* SPDX-License-Identifier: Apache-2.0 */
/* The PIIX3's IDE function: two channels at their legacy ports, two drives each, bus-master DMA. */
#ifndef SILL_DEV_STORAGE_IDE_H
#define SILL_DEV_STORAGE_IDE_H

#include "dev/device.h"
#include "dev/storage/ata.h"

struct pci_bus;
struct ide;

#define IDE_DRIVES 4 /* primary master, primary slave, secondary master, secondary slave */

/* irq14, irq15: the channels' lines. At 00:01.1, without drives. 0 or -errno. */
int ide_new(struct board *b, struct pci_bus *bus, struct irq_line irq14, struct irq_line irq15,
	    struct ide **ret, struct error *err);
/* Before the vCPUs run: plugs a disk into place nr (0..3), or a CD drive with a disc in it (NULL: none). */
struct ata_drive *ide_add_disk(struct ide *i, unsigned nr, struct block *block, const char *serial);
struct ata_drive *ide_add_cd(struct ide *i, unsigned nr, struct block *block, const char *serial);

#endif
