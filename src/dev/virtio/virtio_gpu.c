/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio graphics card, 2D (virtio 1.2 §5.7): one screen, no 3D.
 *
 * The driver makes resources (pictures kept here), names the pieces of its
 * memory behind each, has rectangles copied from there, puts a resource on the
 * screen and says which parts of it to show.  Commands come in the control
 * queue, those for the cursor in a queue of their own; all are done at once and
 * in order, so a fence (§5.7.6.7) is nothing but its number given back.
 *
 * A guest can have 128 resources, and pixels, pieces and names are counted: what
 * is too much gets the error for "out of memory".  After COPY_MAX bytes copied
 * the rest of the queue waits for the event loop's next turn.
 *
 * Pixels are not saved: a load reads them again from the pieces.
 */
#include "dev/virtio/virtio_gpu.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/iov.h"
#include "base/util.h"
#include "dev/virtio/virtio_gpu_internal.h"

#define QUEUE_SIZE 256u
#define COPY_MAX   MIB(32)
#define COMMANDS   512u /* in one go */
#define MAX_SIDE   8192u

#define F_EDID (1ull << 1)

/* Requests and responses (§5.7.6.7) */
#define CMD_GET_DISPLAY_INFO   0x0100u
#define CMD_RESOURCE_CREATE_2D 0x0101u
#define CMD_RESOURCE_UNREF     0x0102u
#define CMD_SET_SCANOUT        0x0103u
#define CMD_RESOURCE_FLUSH     0x0104u
#define CMD_TRANSFER_TO_HOST   0x0105u
#define CMD_ATTACH_BACKING     0x0106u
#define CMD_DETACH_BACKING     0x0107u
#define CMD_GET_EDID           0x010au
#define CMD_UPDATE_CURSOR      0x0300u
#define CMD_MOVE_CURSOR        0x0301u
#define OK_NODATA              0x1100u
#define OK_DISPLAY_INFO        0x1101u
#define OK_EDID                0x1104u
#define ERR_UNSPEC             0x1200u
#define ERR_OUT_OF_MEMORY      0x1201u
#define ERR_SCANOUT            0x1202u
#define ERR_RESOURCE           0x1203u
#define ERR_PARAMETER          0x1205u

#define FLAG_FENCE 1u
#define SCANOUTS   16u /* places in the answer; there is one */

struct gpu_header {
	uint32_t type, flags;
	uint64_t fence_id;
	uint32_t ctx_id, ring_idx;
};

struct gpu_config {
	uint32_t events_read, events_clear, num_scanouts, num_capsets;
};

struct gpu_mode {
	struct gpu_rect rect;
	uint32_t enabled, flags;
};

union gpu_request {
	struct gpu_header header;
	struct {
		struct gpu_header header;
		uint32_t id, format, width, height;
	} create;
	struct {
		struct gpu_header header;
		uint32_t id, nr_entries;
	} resource; /* unref, attach, detach; id is the scanout's in get_edid */
	struct {
		struct gpu_header header;
		struct gpu_rect rect;
		uint32_t scanout, id;
	} set_scanout;
	struct {
		struct gpu_header header;
		struct gpu_rect rect;
		uint32_t id, padding;
	} flush;
	struct {
		struct gpu_header header;
		struct gpu_rect rect;
		uint64_t offset;
		uint32_t id, padding;
	} transfer;
	struct {
		struct gpu_header header;
		uint32_t scanout, x, y, padding;
		uint32_t id, hot_x, hot_y, padding2;
	} cursor;
};

struct gpu_reply {
	struct gpu_header header;
	union {
		struct gpu_mode modes[SCANOUTS];
		struct {
			uint32_t size, padding;
			uint8_t data[1024];
		} edid;
	};
	size_t len;
};

/* ---- resources ---- */

int gpu_find(const struct virtio_gpu *g, uint32_t id)
{
	for (unsigned r = 0; id && r < GPU_RESOURCES; r++)
		if (g->id[r] == id)
			return (int)r;
	return -1;
}

static bool within(const struct virtio_gpu *g, int r, const struct gpu_rect *c)
{
	return c->x <= g->width[r] && c->w <= g->width[r] - c->x && c->y <= g->height[r] &&
	       c->h <= g->height[r] - c->y;
}

static uint32_t create(struct virtio_gpu *g, uint32_t id, uint32_t format, uint32_t w, uint32_t h)
{
	unsigned r = 0;

	if (!id || gpu_find(g, id) >= 0)
		return ERR_RESOURCE;
	if (!gpu_format_known(format) || !w || !h)
		return ERR_PARAMETER;
	while (r < GPU_RESOURCES && g->id[r])
		r++;
	if (r == GPU_RESOURCES || w > MAX_SIDE || h > MAX_SIDE ||
	    (uint64_t)w * h > GPU_MAX_PIXELS - g->total_pixels)
		return ERR_OUT_OF_MEMORY;
	g->pixels[r] = calloc((size_t)w * h, sizeof(uint32_t));
	if (!g->pixels[r])
		return ERR_OUT_OF_MEMORY;
	g->total_pixels += (uint64_t)w * h;
	g->id[r] = id;
	g->format[r] = format;
	g->width[r] = w;
	g->height[r] = h;
	g->first[r] = g->count[r] = 0;
	return OK_NODATA;
}

/* The pieces behind it move up. */
static void detach(struct virtio_gpu *g, int r)
{
	uint32_t first = g->first[r], n = g->count[r], after = g->nr_entries - first - n;

	if (!n)
		return;
	memmove(&g->entry_addr[first], &g->entry_addr[first + n], after * sizeof(g->entry_addr[0]));
	memmove(&g->entry_len[first], &g->entry_len[first + n], after * sizeof(g->entry_len[0]));
	g->nr_entries -= n;
	g->first[r] = g->count[r] = 0;
	for (unsigned i = 0; i < GPU_RESOURCES; i++)
		if (g->count[i] && g->first[i] > first)
			g->first[i] -= n;
}

static void show_nothing(struct virtio_gpu *g)
{
	g->scanout_id = 0;
	g->scanout = (struct gpu_rect){ 0, 0, g->screen_w, g->screen_h };
	gpu_dirty(g, &g->scanout);
}

static void destroy(struct virtio_gpu *g, int r)
{
	if (g->scanout_id == g->id[r])
		show_nothing(g);
	detach(g, r);
	free(g->pixels[r]);
	g->pixels[r] = NULL;
	g->total_pixels -= (uint64_t)g->width[r] * g->height[r];
	g->id[r] = g->width[r] = g->height[r] = 0;
}

/* The request's list of pieces follows it in the chain. */
static uint32_t attach(struct virtio_gpu *g, int r, uint32_t n, const struct vq_elem *e)
{
	struct {
		uint64_t addr;
		uint32_t len, padding;
	} piece;
	size_t at = sizeof(struct gpu_header) + 8;

	if (g->count[r])
		return ERR_UNSPEC; /* it has some (§5.7.6.7: detach first) */
	if (!n || n > (e->out_len - at) / sizeof(piece))
		return ERR_PARAMETER;
	if (n > GPU_ENTRIES - g->nr_entries)
		return ERR_OUT_OF_MEMORY;
	for (uint32_t i = 0; i < n; i++) {
		iov_to_buf(e->out, e->nout, at + i * sizeof(piece), &piece, sizeof(piece));
		if (!mem_ram_ptr(g->v.board->mem, GPA(piece.addr), piece.len))
			return ERR_PARAMETER;
		g->entry_addr[g->nr_entries + i] = piece.addr;
		g->entry_len[g->nr_entries + i] = piece.len;
	}
	g->first[r] = g->nr_entries;
	g->count[r] = n;
	g->nr_entries += n;
	return OK_NODATA;
}

static uint32_t transfer(struct virtio_gpu *g, const struct gpu_rect *rect, uint64_t offset, uint32_t id)
{
	int r = gpu_find(g, id);

	if (r < 0)
		return ERR_RESOURCE;
	if (!within(g, r, rect) || !gpu_transfer(g, r, rect, offset))
		return ERR_PARAMETER;
	return OK_NODATA;
}

/* ---- the screen ---- */

static uint32_t set_scanout(struct virtio_gpu *g, const struct gpu_rect *rect, uint32_t scanout, uint32_t id)
{
	int r = gpu_find(g, id);

	if (scanout)
		return ERR_SCANOUT;
	if (!id) {
		show_nothing(g);
		return OK_NODATA;
	}
	if (r < 0)
		return ERR_RESOURCE;
	if (!rect->w || !rect->h || rect->w > DISPLAY_MAX_WIDTH || rect->h > DISPLAY_MAX_HEIGHT ||
	    !within(g, r, rect))
		return ERR_PARAMETER;
	if (!gpu_resize(g, rect->w, rect->h))
		return ERR_OUT_OF_MEMORY;
	g->scanout_id = id;
	g->scanout = *rect;
	return OK_NODATA;
}

static uint32_t flush(struct virtio_gpu *g, const struct gpu_rect *rect, uint32_t id)
{
	int r = gpu_find(g, id);

	if (r < 0)
		return ERR_RESOURCE;
	if (!within(g, r, rect))
		return ERR_PARAMETER;
	if (g->scanout_id == id)
		gpu_dirty(g, rect);
	return OK_NODATA;
}

static void load_cursor(struct virtio_gpu *g, int r)
{
	memset(g->cursor, 0, sizeof(g->cursor));
	for (uint32_t y = 0; r >= 0 && y < min_u64(g->height[r], GPU_CURSOR_SIZE); y++)
		memcpy(&g->cursor[y * GPU_CURSOR_SIZE], g->pixels[r] + (size_t)y * g->width[r],
		       min_u64(g->width[r], GPU_CURSOR_SIZE) * sizeof(uint32_t));
}

/* The picture is taken now: the resource may go while its cursor stays (§5.7.6.10). */
static uint32_t cursor(struct virtio_gpu *g, const union gpu_request *q)
{
	int r = gpu_find(g, q->cursor.id);

	if (q->cursor.scanout)
		return ERR_SCANOUT;
	gpu_dirty_cursor(g);
	if (q->header.type == CMD_UPDATE_CURSOR) {
		g->cursor_id = r >= 0 ? q->cursor.id : 0;
		g->hot_x = q->cursor.hot_x % GPU_CURSOR_SIZE;
		g->hot_y = q->cursor.hot_y % GPU_CURSOR_SIZE;
		load_cursor(g, r);
	}
	g->cursor_x = q->cursor.x;
	g->cursor_y = q->cursor.y;
	gpu_dirty_cursor(g);
	return OK_NODATA;
}

/* ---- queues ---- */

static uint32_t display_info(struct gpu_reply *a)
{
	memset(a->modes, 0, sizeof(a->modes));
	a->modes[0] = (struct gpu_mode){ { 0, 0, GPU_WIDTH, GPU_HEIGHT }, 1, 0 };
	a->len += sizeof(a->modes);
	return OK_DISPLAY_INFO;
}

static uint32_t edid(struct virtio_gpu *g, uint32_t scanout, struct gpu_reply *a)
{
	if (scanout || !virtio_has(&g->v, F_EDID))
		return ERR_PARAMETER;
	memset(&a->edid, 0, sizeof(a->edid));
	a->edid.size = GPU_EDID_SIZE;
	gpu_edid(a->edid.data);
	a->len += sizeof(a->edid);
	return OK_EDID;
}

/* q: the request's beginning, zeros where it was shorter. */
static uint32_t execute(struct virtio_gpu *g, const union gpu_request *q, const struct vq_elem *e,
			struct gpu_reply *a)
{
	int r = gpu_find(g, q->resource.id);

	switch (q->header.type) {
	case CMD_GET_DISPLAY_INFO:
		return display_info(a);
	case CMD_GET_EDID:
		return edid(g, q->resource.id, a);
	case CMD_RESOURCE_CREATE_2D:
		return create(g, q->create.id, q->create.format, q->create.width, q->create.height);
	case CMD_RESOURCE_UNREF:
		if (r >= 0)
			destroy(g, r);
		return r < 0 ? ERR_RESOURCE : OK_NODATA;
	case CMD_ATTACH_BACKING:
		return r < 0 ? ERR_RESOURCE : attach(g, r, q->resource.nr_entries, e);
	case CMD_DETACH_BACKING:
		if (r >= 0)
			detach(g, r);
		return r < 0 ? ERR_RESOURCE : OK_NODATA;
	case CMD_SET_SCANOUT:
		return set_scanout(g, &q->set_scanout.rect, q->set_scanout.scanout, q->set_scanout.id);
	case CMD_RESOURCE_FLUSH:
		return flush(g, &q->flush.rect, q->flush.id);
	case CMD_TRANSFER_TO_HOST:
		return transfer(g, &q->transfer.rect, q->transfer.offset, q->transfer.id);
	case CMD_UPDATE_CURSOR:
	case CMD_MOVE_CURSOR:
		return cursor(g, q);
	default:
		return ERR_UNSPEC;
	}
}

static void command(struct virtio_gpu *g, struct virtqueue *q, const struct vq_elem *e)
{
	union gpu_request request = { 0 };
	struct gpu_reply a;

	a.header = (struct gpu_header){ 0 };
	a.len = sizeof(a.header);
	if (iov_to_buf(e->out, e->nout, 0, &request, sizeof(request)) < sizeof(request.header))
		a.header.type = ERR_UNSPEC;
	else
		a.header.type = execute(g, &request, e, &a);
	if (request.header.flags & FLAG_FENCE) {
		a.header.flags = FLAG_FENCE;
		a.header.fence_id = request.header.fence_id;
		a.header.ctx_id = request.header.ctx_id;
	}
	size_t n = iov_from_buf(e->in, e->nin, 0, &a, a.len);
	vq_written(q, e->in, e->nin, n);
	vq_push(q, e->head, (uint32_t)n);
}

static void gpu_notify(struct virtio_device *v, unsigned queue)
{
	struct virtio_gpu *g = (struct virtio_gpu *)v;
	struct virtqueue *q = &v->vq[queue];
	unsigned left = COMMANDS;
	bool any = false;
	struct vq_elem e;

	g->moved = 0;
	while (left-- && g->moved < COPY_MAX && vq_pop(q, &e) > 0) {
		command(g, q, &e);
		any = true;
	}
	if (any)
		vq_notify(q);
	if (vq_listen(q))
		virtio_kick_later(v);
}

static void gpu_config_get(struct virtio_device *v, uint8_t *buf)
{
	struct gpu_config c = { .num_scanouts = 1 };

	(void)v;
	memcpy(buf, &c, sizeof(c));
}

static void gpu_stop(struct virtio_device *v)
{
	struct virtio_gpu *g = (struct virtio_gpu *)v;

	for (int r = 0; r < (int)GPU_RESOURCES; r++)
		if (g->id[r])
			destroy(g, r);
	g->nr_entries = 0;
	g->cursor_id = g->cursor_x = g->cursor_y = g->hot_x = g->hot_y = 0;
	show_nothing(g);
}

static const struct virtio_ops gpu_ops = {
	.id = VIRTIO_ID_GPU,
	.config_get = gpu_config_get,
	.notify = gpu_notify,
	.stop = gpu_stop,
};

/* ---- life ---- */

static void gpu_reset(struct device *d)
{
	virtio_reset((struct virtio_device *)d);
}

/* Numbers that a running device can have. */
static bool plausible(const struct virtio_gpu *g)
{
	uint64_t pixels = 0, entries = 0;

	for (int r = 0; r < (int)GPU_RESOURCES; r++) {
		if (!g->id[r] && (g->count[r] || g->width[r] || g->height[r]))
			return false;
		if (!g->id[r])
			continue;
		if (gpu_find(g, g->id[r]) != r || !gpu_format_known(g->format[r]) || !g->width[r] ||
		    !g->height[r] || g->width[r] > MAX_SIDE || g->height[r] > MAX_SIDE)
			return false;
		if (g->count[r] > GPU_ENTRIES || g->first[r] > GPU_ENTRIES - g->count[r])
			return false;
		pixels += (uint64_t)g->width[r] * g->height[r];
		entries += g->count[r];
	}
	if (pixels > GPU_MAX_PIXELS || entries != g->nr_entries || entries > GPU_ENTRIES)
		return false;
	for (int r = 0; r < (int)GPU_RESOURCES; r++)
		if (g->first[r] + g->count[r] > g->nr_entries)
			return false;
	int shown = gpu_find(g, g->scanout_id);
	if (g->scanout_id && (shown < 0 || !within(g, shown, &g->scanout)))
		return false;
	return g->scanout.w && g->scanout.h && g->scanout.w <= DISPLAY_MAX_WIDTH &&
	       g->scanout.h <= DISPLAY_MAX_HEIGHT && g->hot_x < GPU_CURSOR_SIZE && g->hot_y < GPU_CURSOR_SIZE;
}

static void free_pixels(uint32_t **pixels)
{
	for (unsigned r = 0; r < GPU_RESOURCES; r++) {
		free(pixels[r]);
		pixels[r] = NULL;
	}
}

/* All that is derived is made before anything is replaced, so that a refusal leaves the device as it was. */
static int gpu_loaded(void *obj, struct error *err)
{
	struct virtio_gpu *g = obj;
	uint32_t *pixels[GPU_RESOURCES] = { NULL };
	int rc = 0;

	if (!plausible(g))
		return error_set(err, EINVAL,
				 "the saved state of the graphics card is impossible; it is damaged");
	for (unsigned r = 0; r < GPU_RESOURCES && !rc; r++)
		if (g->id[r] && !(pixels[r] = calloc((size_t)g->width[r] * g->height[r], sizeof(uint32_t))))
			rc = error_set(err, ENOMEM, "no memory for the graphics card; free some");
	if (!rc)
		rc = virtio_loaded(&g->v, err);
	if (rc) {
		free_pixels(pixels);
		return rc;
	}
	free_pixels(g->pixels);
	memcpy(g->pixels, pixels, sizeof(pixels));
	g->total_pixels = 0;
	for (int r = 0; r < (int)GPU_RESOURCES; r++) {
		g->total_pixels += (uint64_t)g->width[r] * g->height[r];
		if (g->count[r])
			gpu_transfer(g, r, &(struct gpu_rect){ 0, 0, g->width[r], g->height[r] }, 0);
	}
	load_cursor(g, gpu_find(g, g->cursor_id));
	if (!gpu_resize(g, g->scanout.w, g->scanout.h))
		show_nothing(g);
	return 0;
}

static void gpu_free(struct device *d)
{
	struct virtio_gpu *g = (struct virtio_gpu *)d;

	virtio_reset(&g->v);
	virtio_fini(&g->v);
	g->display->refresh = NULL;
	g->display->pixels = NULL;
	free(g->screen);
	free(g);
}

static const struct state_field gpu_fields[] = {
	VIRTIO_FIELDS(struct virtio_gpu, v),
	F_U32S(struct virtio_gpu, id, GPU_RESOURCES),
	F_U32S(struct virtio_gpu, format, GPU_RESOURCES),
	F_U32S(struct virtio_gpu, width, GPU_RESOURCES),
	F_U32S(struct virtio_gpu, height, GPU_RESOURCES),
	F_U32S(struct virtio_gpu, first, GPU_RESOURCES),
	F_U32S(struct virtio_gpu, count, GPU_RESOURCES),
	F_U64S(struct virtio_gpu, entry_addr, GPU_ENTRIES),
	F_U32S(struct virtio_gpu, entry_len, GPU_ENTRIES),
	F_U32(struct virtio_gpu, nr_entries),
	F_U32(struct virtio_gpu, scanout_id),
	F_U32(struct virtio_gpu, scanout.x),
	F_U32(struct virtio_gpu, scanout.y),
	F_U32(struct virtio_gpu, scanout.w),
	F_U32(struct virtio_gpu, scanout.h),
	F_U32(struct virtio_gpu, cursor_id),
	F_U32(struct virtio_gpu, cursor_x),
	F_U32(struct virtio_gpu, cursor_y),
	F_U32(struct virtio_gpu, hot_x),
	F_U32(struct virtio_gpu, hot_y),
	F_END,
};
static const struct state_table gpu_state = { "virtio-gpu", 1, gpu_fields, gpu_loaded };
static const struct device_class gpu_class = { "virtio-gpu", gpu_reset, &gpu_state, gpu_free };

int virtio_gpu_new(struct board *b, struct display *d, uint32_t instance, struct virtio_device **ret,
		   struct error *err)
{
	struct virtio_gpu *g = calloc(1, sizeof(*g));

	if (g)
		g->display = d;
	if (!g || !gpu_resize(g, GPU_WIDTH, GPU_HEIGHT) ||
	    virtio_init(&g->v, b, &gpu_ops, &gpu_class, instance, F_EDID, 2, QUEUE_SIZE,
			sizeof(struct gpu_config))) {
		if (g)
			free(g->screen);
		free(g);
		return error_set(err, ENOMEM, "no memory for a graphics card; free some and try again");
	}
	d->refresh = gpu_refresh;
	d->text = NULL;
	d->opaque = g;
	show_nothing(g);
	*ret = &g->v;
	return 0;
}
