/* SPDX-License-Identifier: Apache-2.0 */
/* The floppy disk controller. */
#ifndef SILL_DEV_STORAGE_FDC_H
#define SILL_DEV_STORAGE_FDC_H

#include "block/block.h"
#include "dev/device.h"
#include "dev/pc/dma.h"

struct fdc;

#define FDC_DRIVES 2

/* Ports 3f0-3f5 and 3f7, DMA channel 2. On the board's list, with empty drives. 0 or -errno. */
int fdc_new(struct board *b, struct irq_line irq6, struct dma *dma, struct fdc **ret, struct error *err);
/*
 * Before the vCPUs run: puts a diskette into drive nr. The image's size says what kind of one; path is for
 * the sentence if it is none. The block stays the caller's, outlives the controller, and is drained before
 * saving.
 */
int fdc_insert(struct fdc *f, unsigned nr, struct block *block, const char *path, struct error *err);
/* The drives' types as CMOS byte 10 has them: the first in the high half. */
uint8_t fdc_cmos_types(const struct fdc *f);

#endif
