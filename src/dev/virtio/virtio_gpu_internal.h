/* SPDX-License-Identifier: Apache-2.0 */
/* The graphics card's state, shared by its commands (virtio_gpu.c) and the picture (virtio_gpu_draw.c). */
#ifndef SILL_DEV_VIRTIO_GPU_INTERNAL_H
#define SILL_DEV_VIRTIO_GPU_INTERNAL_H

#include "dev/virtio/virtio_gpu.h"

#define GPU_RESOURCES 128u
#define GPU_ENTRIES                                                                                          \
	32768u /* of guest memory, for all resources together: one each page of four big screens */
#define GPU_MAX_PIXELS  (32u << 20)
#define GPU_CURSOR_SIZE 64u
#define GPU_WIDTH       1280u /* what the EDID prefers */
#define GPU_HEIGHT      800u
#define GPU_EDID_SIZE   128u

struct gpu_rect {
	uint32_t x, y, w, h;
};

struct virtio_gpu {
	struct virtio_device v;
	struct display *display;

	/* Resources: id 0 is a free place. Entry i of a resource is first[r] + i in the table of pieces. */
	uint32_t id[GPU_RESOURCES], format[GPU_RESOURCES], width[GPU_RESOURCES], height[GPU_RESOURCES];
	uint32_t first[GPU_RESOURCES], count[GPU_RESOURCES];
	uint64_t entry_addr[GPU_ENTRIES];
	uint32_t entry_len[GPU_ENTRIES];
	uint32_t nr_entries;
	uint32_t scanout_id; /* of the resource shown; 0: none */
	struct gpu_rect scanout;
	uint32_t cursor_id, cursor_x, cursor_y, hot_x, hot_y; /* cursor_id 0: no cursor */

	/* derived */
	uint32_t *pixels[GPU_RESOURCES]; /* 0xAARRGGBB */
	uint64_t total_pixels;
	uint32_t cursor[GPU_CURSOR_SIZE * GPU_CURSOR_SIZE];
	uint64_t moved; /* bytes, since it began to serve */

	/* The picture: the scanout with the cursor; what of it is to be drawn anew. */
	uint32_t *screen;
	uint32_t screen_w, screen_h;
	uint32_t dirty_x0, dirty_y0, dirty_x1, dirty_y1;
};

/* The place of a resource; -1: there is none of that id. */
int gpu_find(const struct virtio_gpu *g, uint32_t id);
/* Reads a rectangle, which lies within the resource, from guest memory from `offset` on. False: beyond it. */
bool gpu_transfer(struct virtio_gpu *g, int r, const struct gpu_rect *rect, uint64_t offset);
bool gpu_format_known(uint32_t format);
/* The scanout's rectangle, in the resource's coordinates, is to be drawn anew. */
void gpu_dirty(struct virtio_gpu *g, const struct gpu_rect *rect);
/* Around the cursor. */
void gpu_dirty_cursor(struct virtio_gpu *g);
/* Gives the picture a size and makes all of it dirty. False: no memory, it stays as it was. */
bool gpu_resize(struct virtio_gpu *g, uint32_t w, uint32_t h);
void gpu_refresh(void *opaque, bool all);
void gpu_edid(uint8_t edid[GPU_EDID_SIZE]);

#endif
