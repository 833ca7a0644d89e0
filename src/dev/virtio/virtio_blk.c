/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio block device (virtio 1.2 §5.2).
 *
 * A request is a chain: a 16-byte header to read (type, sector), the data, and
 * one byte to write the status into.  A notification is served in the vCPU's
 * own thread: the queue is emptied into the block backend, whose callbacks
 * bring the answers, some of them (cached reads) before the notification
 * returns.  Requests therefore come back in any order.
 *
 * As many requests are in flight per queue as it has entries, no more, whatever
 * the guest writes into the ring; the rest waits for completions.
 *
 * Before the device's state is saved, the backend is drained (block_drain), so
 * the state holds no requests.
 */
#include "dev/virtio/virtio_blk.h"

#include <errno.h>
#include <string.h>

#include "base/iov.h"
#include "base/util.h"

#define QUEUE_SIZE 512u
#define SERIAL_LEN 20u

/* Features (§5.2.3) */
#define F_SEG_MAX      (1ull << 2)
#define F_RO           (1ull << 5)
#define F_BLK_SIZE     (1ull << 6)
#define F_FLUSH        (1ull << 9)
#define F_TOPOLOGY     (1ull << 10)
#define F_MQ           (1ull << 12)
#define F_DISCARD      (1ull << 13)
#define F_WRITE_ZEROES (1ull << 14)

/* Request types and status (§5.2.6) */
#define T_IN           0u
#define T_OUT          1u
#define T_FLUSH        4u
#define T_GET_ID       8u
#define T_DISCARD      11u
#define T_WRITE_ZEROES 13u
#define S_OK           0u
#define S_IOERR        1u
#define S_UNSUPP       2u

#define WRITE_ZEROES_UNMAP  1u
#define MAX_DISCARD_SECTORS (GIB(1) / BLOCK_SECTOR)
/* Where the file system has no zeroing this much is written, so keep it shorter. */
#define MAX_ZEROES_SECTORS (MIB(64) / BLOCK_SECTOR)

struct blk_header {
	uint32_t type, reserved;
	uint64_t sector;
};

struct blk_range {
	uint64_t sector;
	uint32_t sectors, flags;
};

/* Configuration space (§5.2.4) */
struct blk_config {
	uint64_t capacity;
	uint32_t size_max, seg_max;
	uint16_t cylinders;
	uint8_t heads, sectors;
	uint32_t blk_size;
	uint8_t physical_block_exp, alignment_offset;
	uint16_t min_io_size;
	uint32_t opt_io_size;
	uint8_t writeback, unused0;
	uint16_t num_queues;
	uint32_t max_discard_sectors, max_discard_seg, discard_sector_alignment;
	uint32_t max_write_zeroes_sectors, max_write_zeroes_seg;
	uint8_t write_zeroes_may_unmap, unused1[3];
} __attribute__((packed));

struct virtio_blk {
	struct virtio_device v;
	struct block *block;
	char serial[SERIAL_LEN];
	unsigned in_flight[VIRTIO_MAX_QUEUES];
	bool serving[VIRTIO_MAX_QUEUES]; /* in serve(): completions need not serve again, nor interrupt one by
					    one */
	bool stopping;
};

struct blk_req {
	struct block_req r;
	struct virtio_blk *b;
	unsigned queue;
	uint16_t head;
	uint8_t *status;
	uint64_t in_len; /* device-writable bytes but for the status */
	unsigned ndata;  /* in the arrays below */
	/* For mem_written: block may alter r.iov. Both point into `segs`. */
	struct iovec *orig;
	struct iovec segs[];
};

static void serve(struct virtio_blk *b, unsigned queue);

/* Status byte, used ring. No interrupt yet. */
static void answer(struct virtio_blk *b, unsigned queue, uint16_t head, uint8_t *status_p, uint8_t status,
		   uint64_t data_written)
{
	struct virtqueue *q = &b->v.vq[queue];
	struct iovec iov = { status_p, 1 };

	*status_p = status;
	vq_written(q, &iov, 1, 1);
	vq_push(q, head, (uint32_t)(data_written + 1));
}

static void request_done(struct block_req *r, int result)
{
	struct blk_req *req = container_of(r, struct blk_req, r);
	struct virtio_blk *b = req->b;
	unsigned queue = req->queue;
	struct virtqueue *q = &b->v.vq[queue];
	uint64_t written = 0;
	uint8_t status = S_OK;

	b->in_flight[queue]--;
	if (result == -EOPNOTSUPP)
		status = S_UNSUPP;
	else if (result)
		status = S_IOERR;
	if (r->op == BLOCK_READ) {
		/* Also after an error: some of it may have arrived. Also while stopping: the pages changed.
		 */
		vq_written(q, req->orig, req->ndata, UINT64_MAX);
		written = req->in_len;
	}
	if (!b->stopping)
		answer(b, queue, req->head, req->status, status, written);
	free(req);
	if (b->stopping || b->serving[queue])
		return;
	vq_notify(q);
	serve(b, queue);
}

/* Discard and write-zeroes: one range (§5.2.6). Returns a status other than OK if it cannot be done. */
static uint8_t parse_range(struct virtio_blk *b, const struct vq_elem *e, bool zeroes, struct block_req *r)
{
	uint64_t capacity = block_size(b->block) / BLOCK_SECTOR;
	uint64_t max = zeroes ? MAX_ZEROES_SECTORS : MAX_DISCARD_SECTORS;
	struct blk_range range;

	if (e->out_len != sizeof(range) ||
	    iov_to_buf(e->out, e->nout, 0, &range, sizeof(range)) != sizeof(range))
		return S_IOERR;
	if (range.flags & ~(zeroes ? WRITE_ZEROES_UNMAP : 0u))
		return S_UNSUPP;
	if (range.sectors > max || range.sector > capacity || range.sectors > capacity - range.sector)
		return S_IOERR;
	r->op = zeroes ? BLOCK_ZEROES : BLOCK_DISCARD;
	r->unmap = range.flags & WRITE_ZEROES_UNMAP;
	r->offset = range.sector * BLOCK_SECTOR;
	r->len = (uint64_t)range.sectors * BLOCK_SECTOR;
	return S_OK;
}

/* Fills r for a header and the data (header and status already cut off); *data: which buffers it moves. */
static uint8_t parse(struct virtio_blk *b, const struct blk_header *h, const struct vq_elem *e,
		     struct block_req *r, struct iovec **data, unsigned *ndata)
{
	uint64_t capacity = block_size(b->block) / BLOCK_SECTOR;
	uint64_t len;

	switch (h->type) {
	case T_IN:
	case T_OUT:
		len = h->type == T_IN ? e->in_len : e->out_len;
		if (len % BLOCK_SECTOR || h->sector > capacity || len / BLOCK_SECTOR > capacity - h->sector)
			return S_IOERR;
		if (h->type == T_OUT && block_readonly(b->block))
			return S_IOERR;
		r->op = h->type == T_IN ? BLOCK_READ : BLOCK_WRITE;
		r->offset = h->sector * BLOCK_SECTOR;
		r->len = len;
		*data = h->type == T_IN ? e->in : e->out;
		*ndata = h->type == T_IN ? e->nin : e->nout;
		return S_OK;
	case T_FLUSH:
		r->op = BLOCK_FLUSH;
		return S_OK;
	case T_DISCARD:
	case T_WRITE_ZEROES:
		if (block_readonly(b->block))
			return S_IOERR;
		return parse_range(b, e, h->type == T_WRITE_ZEROES, r);
	default:
		return S_UNSUPP;
	}
}

static void get_id(struct virtio_blk *b, struct virtqueue *q, struct vq_elem *e, uint8_t *status)
{
	uint64_t n = iov_from_buf(e->in, e->nin, 0, b->serial, SERIAL_LEN);

	vq_written(q, e->in, e->nin, n);
	answer(b, q->index, e->head, status, S_OK, n);
}

static void start_request(struct virtio_blk *b, unsigned queue, struct vq_elem *e)
{
	struct virtqueue *q = &b->v.vq[queue];
	struct block_req r = { 0 };
	struct iovec *data = NULL, last;
	unsigned ndata = 0;
	struct blk_header h;
	struct blk_req *req;
	uint8_t *status_p, status;

	if (e->in_len < 1 || e->out_len < sizeof(h)) {
		virtio_broken(&b->v, "a block request without room for header or status");
		return;
	}
	iov_to_buf(e->out, e->nout, 0, &h, sizeof(h));
	iov_cut_front(&e->out, &e->nout, sizeof(h));
	e->out_len -= sizeof(h);
	last = e->in[e->nin - 1];
	status_p = (uint8_t *)last.iov_base + last.iov_len - 1;
	iov_cut_back(e->in, &e->nin, 1);
	e->in_len--;

	if (h.type == T_GET_ID) {
		get_id(b, q, e, status_p);
		return;
	}
	status = parse(b, &h, e, &r, &data, &ndata);
	if (status != S_OK) {
		answer(b, queue, e->head, status_p, status, 0);
		return;
	}
	req = calloc(1, sizeof(*req) + 2 * ndata * sizeof(struct iovec));
	if (!req) {
		answer(b, queue, e->head, status_p, S_IOERR, 0);
		return;
	}
	req->r = r;
	req->r.iov = req->segs;
	req->r.iovcnt = ndata;
	req->r.done = request_done;
	req->b = b;
	req->queue = queue;
	req->head = e->head;
	req->status = status_p;
	req->in_len = e->in_len;
	req->ndata = ndata;
	req->orig = req->segs + ndata;
	if (ndata) {
		memcpy(req->segs, data, ndata * sizeof(*data));
		memcpy(req->orig, data, ndata * sizeof(*data));
	}
	b->in_flight[queue]++;
	block_submit(b->block, &req->r);
}

/* Takes what is available, up to a queueful in flight, and at most twice that for one notification. */
static void serve(struct virtio_blk *b, unsigned queue)
{
	struct virtqueue *q = &b->v.vq[queue];
	unsigned budget = 2u * q->size;
	uint16_t used_before = q->used_idx;
	struct vq_elem e;

	if (b->stopping || b->serving[queue])
		return;
	b->serving[queue] = true;
	vq_silence(q);
	do {
		while (budget && b->in_flight[queue] < q->size && vq_pop(q, &e) > 0) {
			start_request(b, queue, &e);
			budget--;
		}
		/* Full: completions come back here, and no notification is needed until then. */
		if (b->in_flight[queue] >= q->size || !virtio_running(&b->v))
			break;
		if (!budget) {
			virtio_kick_later(&b->v);
			break;
		}
	} while (vq_listen(q));
	b->serving[queue] = false;
	if (q->used_idx != used_before)
		vq_notify(q);
}

static void blk_notify(struct virtio_device *v, unsigned queue)
{
	serve((struct virtio_blk *)v, queue);
}

static void blk_stop(struct virtio_device *v)
{
	struct virtio_blk *b = (struct virtio_blk *)v;

	b->stopping = true;
	for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++) {
		if (b->in_flight[i]) {
			block_drain(b->block);
			break;
		}
	}
	b->stopping = false;
}

static void blk_config_get(struct virtio_device *v, uint8_t *buf)
{
	struct virtio_blk *b = (struct virtio_blk *)v;
	struct blk_config c = {
		.capacity = block_size(b->block) / BLOCK_SECTOR,
		.seg_max = QUEUE_SIZE - 2, /* header and status take one each */
		.blk_size = BLOCK_SECTOR,
		.physical_block_exp = 3, /* 4 KiB: what the host's page cache works in */
		.min_io_size = 8,
		.num_queues = (uint16_t)v->nqueues,
		.max_discard_sectors = MAX_DISCARD_SECTORS,
		.max_discard_seg = 1,
		.discard_sector_alignment = 8,
		.max_write_zeroes_sectors = MAX_ZEROES_SECTORS,
		.max_write_zeroes_seg = 1,
		.write_zeroes_may_unmap = 1,
	};

	memcpy(buf, &c, sizeof(c));
}

static const struct virtio_ops blk_ops = {
	.id = VIRTIO_ID_BLK,
	.config_get = blk_config_get,
	.notify = blk_notify,
	.stop = blk_stop,
};

static void blk_reset(struct device *d)
{
	virtio_reset((struct virtio_device *)d);
}

static int blk_loaded(void *obj, struct error *err)
{
	return virtio_loaded(obj, err);
}

static void blk_free(struct device *d)
{
	struct virtio_device *v = (struct virtio_device *)d;

	virtio_reset(v);
	virtio_fini(v);
	free(v);
}

static const struct state_field blk_fields[] = { VIRTIO_FIELDS(struct virtio_blk, v), F_END };
static const struct state_table blk_state = { "virtio-blk", 1, blk_fields, blk_loaded };
static const struct device_class blk_class = { "virtio-blk", blk_reset, &blk_state, blk_free };

int virtio_blk_new(struct board *board, struct block *block, const char *serial, unsigned nqueues,
		   uint32_t instance, struct virtio_device **ret, struct error *err)
{
	uint64_t features = F_SEG_MAX | F_BLK_SIZE | F_FLUSH | F_TOPOLOGY;
	struct virtio_blk *b = calloc(1, sizeof(*b));

	if (!b || nqueues < 1 || nqueues > VIRTIO_MAX_QUEUES) {
		free(b);
		return b ? error_set(err, EINVAL, "a disk has 1 to %u queues, not %u", VIRTIO_MAX_QUEUES,
				     nqueues)
			 : error_set(err, ENOMEM, "not enough memory for a virtio disk");
	}
	features |= block_readonly(block) ? F_RO : F_DISCARD | F_WRITE_ZEROES;
	if (nqueues > 1)
		features |= F_MQ;
	b->block = block;
	if (serial)
		memcpy(b->serial, serial, strnlen(serial, SERIAL_LEN));
	if (virtio_init(&b->v, board, &blk_ops, &blk_class, instance, features, nqueues, QUEUE_SIZE,
			sizeof(struct blk_config))) {
		free(b);
		return error_set(err, ENOMEM, "not enough memory for a virtio disk");
	}
	*ret = &b->v;
	return 0;
}

void virtio_blk_resized(struct virtio_device *v)
{
	virtio_config_changed(v);
}
