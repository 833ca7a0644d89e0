/* SPDX-License-Identifier: Apache-2.0 */
/* The PC's two 8237A DMA controllers with their page registers. */
#ifndef SILL_DEV_PC_DMA_H
#define SILL_DEV_PC_DMA_H

#include "dev/device.h"

struct dma;

#define DMA_CHANNELS 8 /* 0-3 by bytes, 5-7 by words; 4 is the cascade */

/* Ports 00-0f, c0-df, 81-8f. On the board's list. 0 or -errno. */
int dma_new(struct board *b, struct dma **ret, struct error *err);
/* The channel is set up and unmasked: a transfer would move something. */
bool dma_ready(const struct dma *d, unsigned channel);
/*
 * For the device on a channel: moves up to len bytes between buf and where the channel points, in the
 * direction that the device means; if the channel is programmed for another, nothing is written anywhere (a
 * verify transfer) but it counts. Returns the number of bytes; *tc: that was the last (terminal count).
 */
uint32_t dma_transfer(struct dma *d, unsigned channel, bool to_memory, uint8_t *buf, uint32_t len, bool *tc);
/* fn is called when the channel is unmasked. */
void dma_set_listener(struct dma *d, unsigned channel, void (*fn)(void *opaque), void *opaque);

#endif
