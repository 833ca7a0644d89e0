/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio SCSI host device (virtio 1.2 §5.6): control, event and one request
 * queue; up to 20 targets, each with logical unit 0.
 *
 * A request is a chain: header and command to read, data to read, response and
 * sense data to write, data to write.  Commands are started in the vCPU's own
 * thread and come back in any order; as many are in flight as the queue has
 * entries.  Targets are there from the start, so nothing ever happens that the
 * event queue would tell of, and its features are not offered.
 *
 * Task management waits until the target's commands have ended, which is what the
 * initiator may expect of commands that were too far on to be aborted.
 */
#include "dev/virtio/virtio_scsi.h"

#include <errno.h>
#include <string.h>

#include "base/iov.h"
#include "base/util.h"

#define QUEUE_SIZE 256u
#define MAX_EXTRA  256u /* for sense and command sizes that a driver may ask for */

enum { Q_CONTROL, Q_EVENT, Q_REQUEST, NR_QUEUES };

/* Configuration space (§5.6.4) */
struct scsi_config {
	uint32_t num_queues, seg_max, max_sectors, cmd_per_lun, event_info_size, sense_size, cdb_size;
	uint16_t max_channel, max_target;
	uint32_t max_lun;
} __attribute__((packed));

#define SENSE_SIZE 96u /* defaults */
#define CDB_SIZE   32u

/* Responses (§5.6.6.1) */
enum {
	RSP_OK = 0,
	RSP_BAD_TARGET = 3,
	RSP_FAILURE = 9,
	RSP_REJECTED = 11,
	RSP_INCORRECT_LUN = 12,
};

struct request_header {
	uint8_t lun[8];
	uint64_t tag;
	uint8_t attribute, priority, crn;
} __attribute__((packed));

struct response_header {
	uint32_t sense_len, residual;
	uint16_t qualifier;
	uint8_t status, response;
} __attribute__((packed));

struct virtio_scsi {
	struct virtio_device v;
	struct scsi_device target[VIRTIO_SCSI_TARGETS];
	bool present[VIRTIO_SCSI_TARGETS];
	uint32_t sense_size, cdb_size;
	unsigned in_flight;
	bool serving, stopping;
};

struct scsi_req {
	struct scsi_task t;
	struct virtio_scsi *s;
	uint16_t head;
	unsigned nin;
	struct iovec *in; /* all that the device may write, unaltered */
	struct iovec segs[];
};

static void serve(struct virtio_scsi *s);

static uint32_t response_size(const struct virtio_scsi *s)
{
	return (uint32_t)sizeof(struct response_header) + s->sense_size;
}

/* ---- requests ---- */

/* Response, used ring; data: bytes of it that were written behind the response. */
static void answer(struct virtio_scsi *s, uint16_t head, const struct iovec *in, unsigned nin,
		   const struct response_header *h, const uint8_t *sense, uint64_t data)
{
	struct virtqueue *q = &s->v.vq[Q_REQUEST];
	uint64_t written = response_size(s) + data;

	iov_from_buf(in, nin, 0, h, sizeof(*h));
	if (h->sense_len)
		iov_from_buf(in, nin, sizeof(*h), sense, h->sense_len);
	vq_written(q, in, nin, written);
	vq_push(q, head, (uint32_t)written);
}

static void task_done(struct scsi_task *t)
{
	struct scsi_req *r = container_of(t, struct scsi_req, t);
	struct virtio_scsi *s = r->s;
	struct response_header h = { .status = t->status };
	uint64_t total = t->out_len ? t->out_len : t->in_len, in = t->out_len ? 0 : t->moved;

	s->in_flight--;
	h.residual = (uint32_t)(total - min_u64(t->moved, total));
	if (t->status == SCSI_CHECK_CONDITION)
		h.sense_len = (uint32_t)min_u64(SCSI_SENSE, s->sense_size);
	if (s->stopping)
		vq_written(&s->v.vq[Q_REQUEST], r->in, r->nin, UINT64_MAX);
	else
		answer(s, r->head, r->in, r->nin, &h, t->sense, t->status ? t->in_len : in);
	free(r);
	if (s->stopping || s->serving)
		return;
	vq_notify(&s->v.vq[Q_REQUEST]);
	serve(s);
}

/* The target that an address names (§5.6.6.1); NULL: none. */
static struct scsi_device *find_target(struct virtio_scsi *s, const uint8_t lun[8], uint32_t *unit)
{
	*unit = (uint32_t)(lun[2] & 0x3f) << 8 | lun[3];
	if (lun[0] != 1 || lun[1] >= VIRTIO_SCSI_TARGETS || !s->present[lun[1]])
		return NULL;
	return &s->target[lun[1]];
}

static void start_request(struct virtio_scsi *s, struct vq_elem *e)
{
	uint32_t response = response_size(s);
	struct request_header h;
	struct response_header bad = { .response = RSP_BAD_TARGET };
	struct scsi_device *target;
	struct scsi_req *r;
	struct scsi_task *t;
	uint32_t unit;

	if (e->out_len < sizeof(h) + s->cdb_size || e->in_len < response) {
		virtio_broken(&s->v, "a SCSI request without room for header or response");
		return;
	}
	iov_to_buf(e->out, e->nout, 0, &h, sizeof(h));
	target = find_target(s, h.lun, &unit);
	r = target ? calloc(1, sizeof(*r) + (2 * e->nin + e->nout) * sizeof(struct iovec)) : NULL;
	if (!r) {
		bad.response = target ? RSP_FAILURE : RSP_BAD_TARGET;
		answer(s, e->head, e->in, e->nin, &bad, NULL, 0);
		return;
	}
	r->s = s;
	r->head = e->head;
	r->nin = e->nin;
	r->in = r->segs;
	memcpy(r->in, e->in, e->nin * sizeof(struct iovec));
	t = &r->t;
	iov_to_buf(e->out, e->nout, sizeof(h), t->cdb, min_u64(sizeof(t->cdb), s->cdb_size));
	iov_cut_front(&e->out, &e->nout, sizeof(h) + s->cdb_size);
	iov_cut_front(&e->in, &e->nin, response);
	t->dev = target;
	t->lun = unit;
	t->done = task_done;
	t->in = r->segs + r->nin;
	t->nin = e->nin;
	t->in_len = e->in_len - response;
	t->out = t->in + e->nin;
	t->nout = e->nout;
	t->out_len = e->out_len - sizeof(h) - s->cdb_size;
	memcpy(t->in, e->in, e->nin * sizeof(struct iovec));
	memcpy(t->out, e->out, e->nout * sizeof(struct iovec));
	s->in_flight++;
	scsi_start(t);
}

/* Takes what is available, up to a queueful in flight, and at most twice that for one notification. */
static void serve(struct virtio_scsi *s)
{
	struct virtqueue *q = &s->v.vq[Q_REQUEST];
	unsigned budget = 2u * q->size;
	uint16_t used_before = q->used_idx;
	struct vq_elem e;

	if (s->stopping || s->serving)
		return;
	s->serving = true;
	vq_silence(q);
	do {
		while (budget && s->in_flight < q->size && vq_pop(q, &e) > 0) {
			start_request(s, &e);
			budget--;
		}
		if (s->in_flight >= q->size || !virtio_running(&s->v))
			break;
		if (!budget) {
			virtio_kick_later(&s->v);
			break;
		}
	} while (vq_listen(q));
	s->serving = false;
	if (q->used_idx != used_before)
		vq_notify(q);
}

/* ---- the control queue (§5.6.6.2) ---- */

enum { T_TMF, T_QUERY, T_SUBSCRIBE };
enum { TMF_CLEAR_ACA = 2, TMF_QUERY_TASK = 6, TMF_QUERY_TASK_SET = 7 };

static void drain(struct virtio_scsi *s, struct scsi_device *target)
{
	struct block *b = scsi_medium(target);

	if (b && s->in_flight)
		block_drain(b);
}

static uint8_t task_management(struct virtio_scsi *s, uint32_t what, const uint8_t lun[8])
{
	uint32_t unit;
	struct scsi_device *target = find_target(s, lun, &unit);

	if (!target)
		return RSP_BAD_TARGET;
	if (unit)
		return RSP_INCORRECT_LUN;
	if (what == TMF_CLEAR_ACA || what > TMF_QUERY_TASK_SET)
		return RSP_REJECTED;
	drain(s, target);
	return RSP_OK;
}

static void control(struct virtio_scsi *s, struct vq_elem *e)
{
	struct virtqueue *q = &s->v.vq[Q_CONTROL];
	uint8_t lun[8] = { 0 };
	uint32_t type = UINT32_MAX, what = 0, n = 1;
	struct {
		uint32_t events;
		uint8_t response;
	} __attribute__((packed)) r = { 0, RSP_OK };

	iov_to_buf(e->out, e->nout, 0, &type, 4);
	if (type == T_TMF) {
		iov_to_buf(e->out, e->nout, 4, &what, 4);
		iov_to_buf(e->out, e->nout, 8, lun, sizeof(lun));
		r.response = task_management(s, what, lun);
		iov_from_buf(e->in, e->nin, 0, &r.response, 1);
	} else { /* there are no asynchronous notifications */
		r.response = type <= T_SUBSCRIBE ? RSP_OK : RSP_FAILURE;
		n = sizeof(r);
		iov_from_buf(e->in, e->nin, 0, &r, sizeof(r));
	}
	n = (uint32_t)min_u64(n, e->in_len);
	vq_written(q, e->in, e->nin, n);
	vq_push(q, e->head, n);
}

static void serve_control(struct virtio_scsi *s)
{
	struct virtqueue *q = &s->v.vq[Q_CONTROL];
	struct vq_elem e;
	unsigned budget = q->size;

	for (; budget && vq_pop(q, &e) > 0; budget--)
		control(s, &e);
	vq_notify(q);
	if (!budget)
		virtio_kick_later(&s->v);
}

static void scsi_notify(struct virtio_device *v, unsigned queue)
{
	struct virtio_scsi *s = (struct virtio_scsi *)v;

	if (queue == Q_REQUEST)
		serve(s);
	else if (queue == Q_CONTROL)
		serve_control(s);
}

static void scsi_stop(struct virtio_device *v)
{
	struct virtio_scsi *s = (struct virtio_scsi *)v;

	s->stopping = true;
	for (unsigned i = 0; i < VIRTIO_SCSI_TARGETS; i++)
		if (s->present[i])
			drain(s, &s->target[i]);
	s->stopping = false;
	s->sense_size = SENSE_SIZE;
	s->cdb_size = CDB_SIZE;
}

/* ---- configuration ---- */

static void scsi_config_get(struct virtio_device *v, uint8_t *buf)
{
	const struct virtio_scsi *s = (struct virtio_scsi *)v;
	struct scsi_config c = {
		.num_queues = 1,
		.seg_max = QUEUE_SIZE - 2, /* header and response take one each */
		.max_sectors = 0xffff,
		.cmd_per_lun = QUEUE_SIZE / 2,
		.event_info_size = 16,
		.sense_size = s->sense_size,
		.cdb_size = s->cdb_size,
		.max_target = VIRTIO_SCSI_TARGETS - 1,
	};

	memcpy(buf, &c, sizeof(c));
}

static void scsi_config_set(struct virtio_device *v, unsigned offset, uint32_t value, unsigned size)
{
	struct virtio_scsi *s = (struct virtio_scsi *)v;

	if (size != 4 || value > MAX_EXTRA)
		return;
	if (offset == offsetof(struct scsi_config, sense_size))
		s->sense_size = value;
	else if (offset == offsetof(struct scsi_config, cdb_size))
		s->cdb_size = value;
}

static const struct virtio_ops scsi_ops = {
	.id = VIRTIO_ID_SCSI,
	.config_get = scsi_config_get,
	.config_set = scsi_config_set,
	.notify = scsi_notify,
	.stop = scsi_stop,
};

/* ---- life ---- */

static void virtio_scsi_reset(struct device *d)
{
	struct virtio_scsi *s = (struct virtio_scsi *)d;

	virtio_reset(&s->v);
	for (unsigned i = 0; i < VIRTIO_SCSI_TARGETS; i++)
		scsi_reset(&s->target[i]);
}

static int virtio_scsi_loaded(void *obj, struct error *err)
{
	struct virtio_scsi *s = obj;

	if (s->sense_size > MAX_EXTRA || s->cdb_size > MAX_EXTRA)
		return error_set(err, EINVAL,
				 "the saved state of the SCSI adapter is impossible; it is damaged");
	return virtio_loaded(&s->v, err);
}

static void virtio_scsi_free(struct device *d)
{
	struct virtio_device *v = (struct virtio_device *)d;

	virtio_reset(v);
	virtio_fini(v);
	free(v);
}

#define TARGET(n) SCSI_FIELDS(struct virtio_scsi, target[n])
static const struct state_field scsi_fields[] = { VIRTIO_FIELDS(struct virtio_scsi, v),
						  F_U32(struct virtio_scsi, sense_size),
						  F_U32(struct virtio_scsi, cdb_size),
						  TARGET(0),
						  TARGET(1),
						  TARGET(2),
						  TARGET(3),
						  TARGET(4),
						  TARGET(5),
						  TARGET(6),
						  TARGET(7),
						  TARGET(8),
						  TARGET(9),
						  TARGET(10),
						  TARGET(11),
						  TARGET(12),
						  TARGET(13),
						  TARGET(14),
						  TARGET(15),
						  TARGET(16),
						  TARGET(17),
						  TARGET(18),
						  TARGET(19),
						  F_END };
static const struct state_table scsi_state = { "virtio-scsi", 1, scsi_fields, virtio_scsi_loaded };
static const struct device_class scsi_class = { "virtio-scsi", virtio_scsi_reset, &scsi_state,
						virtio_scsi_free };

int virtio_scsi_new(struct board *board, struct virtio_device **ret, struct error *err)
{
	struct virtio_scsi *s = calloc(1, sizeof(*s));

	if (!s || virtio_init(&s->v, board, &scsi_ops, &scsi_class, 0, 0, NR_QUEUES, QUEUE_SIZE,
			      sizeof(struct scsi_config))) {
		free(s);
		return error_set(err, ENOMEM, "no memory for the SCSI adapter; free some and try again");
	}
	s->sense_size = SENSE_SIZE;
	s->cdb_size = CDB_SIZE;
	*ret = &s->v;
	return 0;
}

struct scsi_device *virtio_scsi_add(struct virtio_device *v, unsigned nr, bool is_cd, struct block *block,
				    const char *serial)
{
	struct virtio_scsi *s = (struct virtio_scsi *)v;
	struct scsi_device *d = &s->target[nr];

	s->present[nr] = true;
	d->is_cd = is_cd;
	if (is_cd)
		d->cd.block = block;
	else
		d->block = block;
	strncpy(d->serial, serial, sizeof(d->serial) - 1);
	return d;
}
