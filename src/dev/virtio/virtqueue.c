/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/virtio/virtqueue.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "dev/virtio/virtio.h"

/* §2.7.5, §2.7.6, §2.7.8: as they lie in memory, little-endian, as is every host that Sill runs on. */
struct vq_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};
#define DESC_NEXT     1u
#define DESC_WRITE    2u
#define DESC_INDIRECT 4u

struct vq_avail {
	uint16_t flags, idx;
	uint16_t ring[]; /* size entries, then used_event */
};
#define AVAIL_NO_INTERRUPT 1u

struct vq_used_elem {
	uint32_t id, len;
};

struct vq_used {
	uint16_t flags, idx;
	struct vq_used_elem ring[]; /* size entries, then avail_event */
};
#define USED_NO_NOTIFY 1u

/* The guest writes these while we look: each is read or written once, whole. */
#define load(p)     __atomic_load_n((p), __ATOMIC_RELAXED)
#define store(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)

int vq_init(struct virtqueue *q, struct virtio_device *v, unsigned index, uint16_t max_size)
{
	q->v = v;
	q->index = index;
	q->max_size = max_size;
	q->iov = calloc(VQ_MAX_SEGS, sizeof(*q->iov));
	vq_reset(q);
	return q->iov ? 0 : -ENOMEM;
}

void vq_fini(struct virtqueue *q)
{
	free(q->iov);
	q->iov = NULL;
}

void vq_unmap(struct virtqueue *q)
{
	q->desc_p = NULL;
	q->avail_p = NULL;
	q->used_p = NULL;
}

void vq_reset(struct virtqueue *q)
{
	q->desc = q->avail = q->used = 0;
	q->size = q->max_size;
	q->vector = VIRTIO_NO_VECTOR;
	q->last_avail = q->used_idx = q->signalled_used = 0;
	q->signalled_valid = q->enabled = q->silent = false;
	vq_unmap(q);
}

static size_t avail_bytes(const struct virtqueue *q)
{
	return sizeof(struct vq_avail) + 2u * q->size + 2;
}

static size_t used_bytes(const struct virtqueue *q)
{
	return sizeof(struct vq_used) + sizeof(struct vq_used_elem) * q->size + 2;
}

int vq_map(struct virtqueue *q)
{
	struct mem *m = q->v->board->mem;

	if (q->size == 0 || q->size > q->max_size || (q->size & (q->size - 1)))
		return -EINVAL;
	if (q->desc % 16 || q->avail % 2 || q->used % 4)
		return -EINVAL;
	q->desc_p = mem_ram_ptr(m, GPA(q->desc), sizeof(struct vq_desc) * q->size);
	q->avail_p = mem_ram_ptr(m, GPA(q->avail), avail_bytes(q));
	q->used_p = mem_ram_ptr(m, GPA(q->used), used_bytes(q));
	if (!q->desc_p || !q->avail_p || !q->used_p) {
		vq_unmap(q);
		return -EFAULT;
	}
	return 0;
}

/* ---- taking chains ---- */

static int broken(struct virtqueue *q, const char *why)
{
	virtio_broken(q->v, why);
	return -EPROTO;
}

bool vq_pending(const struct virtqueue *q)
{
	return q->avail_p && load(&q->avail_p->idx) != q->last_avail;
}

static struct vq_desc read_desc(const struct vq_desc *table, unsigned i)
{
	struct vq_desc d;

	d.addr = load(&table[i].addr);
	d.len = load(&table[i].len);
	d.flags = load(&table[i].flags);
	d.next = load(&table[i].next);
	return d;
}

/* Adds one buffer to e, whose segments grow from q->iov. */
static int add_segment(struct virtqueue *q, struct vq_elem *e, const struct vq_desc *d)
{
	unsigned n = e->nout + e->nin;
	void *p;

	if (d->flags & DESC_WRITE)
		e->in_len += d->len;
	else if (e->nin)
		return broken(q, "a device-readable buffer after a device-writable one");
	else
		e->out_len += d->len;
	if (e->in_len > UINT32_MAX || e->out_len > UINT32_MAX)
		return broken(q, "a chain of 4 GiB or more");
	if (d->len == 0)
		return 0;
	if (n == VQ_MAX_SEGS)
		return broken(q, "a chain of too many buffers");
	p = mem_ram_ptr(q->v->board->mem, GPA(d->addr), d->len);
	if (!p)
		return broken(q, "a buffer outside RAM");
	q->iov[n] = (struct iovec){ p, d->len };
	if (d->flags & DESC_WRITE) {
		e->nin++;
		/* Of a large one, who knows how much the device will write. */
		mem_provide(q->v->board->mem, p, min_u64(d->len, MIB(1)));
	} else {
		e->nout++;
	}
	return 0;
}

/* Walks a chain from table[i]; table has n entries, and so many steps end every chain that does not loop. */
static int walk(struct virtqueue *q, struct vq_elem *e, const struct vq_desc *table, unsigned n, unsigned i,
		bool in_indirect)
{
	for (unsigned steps = 0; steps < n; steps++) {
		struct vq_desc d = read_desc(table, i);
		int rc;

		if (d.flags & DESC_INDIRECT) {
			const struct vq_desc *inner;

			/* §2.7.5.3.1 */
			if (!virtio_has(q->v, VIRTIO_F_INDIRECT_DESC))
				return broken(q, "an indirect descriptor, which was not negotiated");
			if (in_indirect || (d.flags & DESC_NEXT))
				return broken(
				    q, "an indirect descriptor in an indirect table, or with a next one");
			if (d.len == 0 || d.len % sizeof(d) || d.len / sizeof(d) > VQ_MAX_SEGS)
				return broken(q, "an indirect table of impossible length");
			inner = mem_ram_ptr(q->v->board->mem, GPA(d.addr), d.len);
			if (!inner ||
			    d.addr % 8) /* the loads are atomic only if aligned; drivers align to 16 */
				return broken(q, "an indirect table outside RAM or unaligned");
			return walk(q, e, inner, d.len / (unsigned)sizeof(d), 0, true);
		}
		rc = add_segment(q, e, &d);
		if (rc)
			return rc;
		if (!(d.flags & DESC_NEXT))
			return 0;
		if (d.next >= n)
			return broken(q, "a descriptor index beyond the table");
		i = d.next;
	}
	return broken(q, "a chain of descriptors that loops");
}

int vq_pop(struct virtqueue *q, struct vq_elem *e)
{
	uint16_t waiting, head;
	struct vq_elem got = { 0 };
	int rc;

	if (!q->avail_p || !virtio_running(q->v))
		return 0;
	waiting = (uint16_t)(load(&q->avail_p->idx) - q->last_avail);
	if (waiting == 0)
		return 0;
	if (waiting > q->size)
		return broken(q, "an available index that jumps");
	/* The ring entry and the descriptors were written before the index. */
	atomic_thread_fence(memory_order_acquire);
	head = load(&q->avail_p->ring[q->last_avail % q->size]);
	if (head >= q->size)
		return broken(q, "a head beyond the descriptor table");
	rc = walk(q, &got, q->desc_p, q->size, head, false);
	if (rc)
		return rc;
	got.head = head;
	got.out = q->iov;
	got.in = q->iov + got.nout;
	q->last_avail++;
	*e = got;
	return 1;
}

void vq_rewind(struct virtqueue *q, uint16_t n)
{
	q->last_avail -= n;
}

/* ---- giving them back ---- */

void vq_written(struct virtqueue *q, const struct iovec *iov, unsigned cnt, uint64_t len)
{
	mem_written_pieces(q->v->board->mem, iov, cnt, len);
}

void vq_fill(struct virtqueue *q, uint16_t nth, uint16_t head, uint32_t written)
{
	struct vq_used_elem *u;

	if (!q->used_p)
		return;
	u = &q->used_p->ring[(uint16_t)(q->used_idx + nth) % q->size];
	store(&u->id, (uint32_t)head);
	store(&u->len, written);
}

static void used_written(struct virtqueue *q, unsigned first, unsigned count)
{
	mem_written(q->v->board->mem,
		    GPA(q->used + sizeof(struct vq_used) + first * sizeof(struct vq_used_elem)),
		    count * sizeof(struct vq_used_elem));
}

void vq_flush(struct virtqueue *q, uint16_t count)
{
	uint16_t old = q->used_idx;
	unsigned first, to_end;

	if (!q->used_p || !count)
		return;
	first = old % q->size;
	to_end = q->size - first;
	/* What vq_fill wrote, in one piece or two. */
	used_written(q, first, count < to_end ? count : to_end);
	if (count > to_end)
		used_written(q, 0, count - to_end);
	q->used_idx += count;
	__atomic_store_n(&q->used_p->idx, q->used_idx, __ATOMIC_RELEASE);
	mem_written(q->v->board->mem, GPA(q->used), sizeof(struct vq_used));
	/* Over 2^15 entries unsignalled, the comparison in vq_notify could no longer tell before from after.
	 */
	if ((uint16_t)(q->used_idx - q->signalled_used) < (uint16_t)(q->used_idx - old))
		q->signalled_valid = false;
}

void vq_push(struct virtqueue *q, uint16_t head, uint32_t written)
{
	vq_fill(q, 0, head, written);
	vq_flush(q, 1);
}

/* ---- notifications, both ways ---- */

static uint16_t *used_event(const struct virtqueue *q)
{
	return &q->avail_p->ring[q->size];
}

static uint16_t *avail_event(const struct virtqueue *q)
{
	return (uint16_t *)(void *)&q->used_p->ring[q->size];
}

static bool want_interrupt(struct virtqueue *q)
{
	uint16_t old = q->signalled_used, event;
	bool valid = q->signalled_valid;

	/* The driver enables interrupts and then looks at the index; we did the reverse (§2.7.7.2). */
	atomic_thread_fence(memory_order_seq_cst);
	if (!virtio_has(q->v, VIRTIO_F_EVENT_IDX))
		return !(load(&q->avail_p->flags) & AVAIL_NO_INTERRUPT);
	q->signalled_used = q->used_idx;
	q->signalled_valid = true;
	event = load(used_event(q));
	/* §2.7.7.1: is `event` among the entries from old up to used_idx - 1? */
	return !valid || (uint16_t)(q->used_idx - event - 1) < (uint16_t)(q->used_idx - old);
}

void vq_notify(struct virtqueue *q)
{
	if (q->used_p && virtio_running(q->v) && want_interrupt(q))
		q->v->transport.queue_irq(q->v->transport.opaque, q->index);
}

static void set_used_flags(struct virtqueue *q, uint16_t flags)
{
	store(&q->used_p->flags, flags);
	mem_written(q->v->board->mem, GPA(q->used), 2);
}

void vq_silence(struct virtqueue *q)
{
	if (!q->used_p || q->silent)
		return;
	q->silent = true;
	/* With event indices, an avail_event that is not moved on is silence enough. */
	if (!virtio_has(q->v, VIRTIO_F_EVENT_IDX))
		set_used_flags(q, USED_NO_NOTIFY);
}

bool vq_listen_beyond(struct virtqueue *q, uint16_t seen)
{
	if (!q->used_p)
		return false;
	if (virtio_has(q->v, VIRTIO_F_EVENT_IDX)) {
		store(avail_event(q), seen);
		mem_written(q->v->board->mem, GPA(q->used + used_bytes(q) - 2), 2);
	} else if (q->silent) {
		set_used_flags(q, 0);
	}
	q->silent = false;
	/* The driver advances the index and then looks at our wish; we did the reverse. */
	atomic_thread_fence(memory_order_seq_cst);
	return load(&q->avail_p->idx) != seen;
}

bool vq_listen(struct virtqueue *q)
{
	return vq_listen_beyond(q, q->last_avail);
}
