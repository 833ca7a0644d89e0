/* SPDX-License-Identifier: Apache-2.0 */
/*
 * USB Mass Storage Class, Bulk-Only Transport 1.0, with the SCSI command set:
 *
 *	COMMAND -> DATA_OUT or DATA_IN (if the host expects data) -> STATUS -> COMMAND
 *
 * Reads and writes of the medium stream: each transfer of the data phase is one
 * request to the backend, straight from or to the host's memory.  Any other
 * command's data passes through a buffer; one with data from the host starts when
 * they are all there.
 *
 * A data phase that has less than the host expects ends with a short transfer,
 * one that has more is cut, and the residue says so.  A command wrapper that is
 * none halts both pipes until the host resets the transport (§6.6.1).
 */
#include "dev/usb/msc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/iov.h"
#include "base/util.h"

#define PIPE_IN  1u
#define PIPE_OUT 2u

#define CBW_SIZE      31u
#define CBW_SIGNATURE 0x43425355u
#define CBW_IN        0x80
#define CSW_SIZE      13u
#define CSW_SIGNATURE 0x53425355u
#define BUFFER        4096u /* longest parameter list or answer */

/* Class requests (§3) */
#define GET_MAX_LUN 0xfe
#define BULK_RESET  0xff

enum phase { COMMAND, DATA_OUT, DATA_IN, STATUS };
enum { PASSED, FAILED, PHASE_ERROR };

struct msc {
	struct usb_device usb;
	struct scsi_device scsi;

	/* state */
	uint8_t phase; /* enum phase */
	bool streams;  /* the data phase is the medium's */
	bool broken;   /* until the transport is reset */
	bool fua;
	bool run; /* DATA_OUT: the command waits for its data */
	uint8_t status;
	uint32_t tag;
	uint32_t expected;     /* by the host; what is left of it */
	uint32_t residue;      /* of it that was no data */
	uint64_t offset, left; /* of the medium */
	uint32_t at, have;     /* of buf */
	uint8_t cdb[16];
	uint8_t buf[BUFFER];

	/* not saved: nothing is in flight then */
	struct usb_transfer *current; /* one that waits for the backend */
	bool task_runs;
	struct usb_transfer *waiting; /* one that waits for the task's end */
	struct scsi_task task;
	struct iovec task_iov;
	struct block_req req;
	bool inline_done, in_submit;
	enum usb_result inline_result;
};

/* ---- descriptors ---- */

static const char *const strings[] = { "Sill", "USB Storage", NULL };

static const uint8_t device_descriptor[18] = { 18,   USB_DT_DEVICE, 0x00, 0x02, 0, 0, 0, 64, 0xf4,
					       0x46, 0x01,          0x00, 0x00, 1, 1, 2, 3,  1 };

static const uint8_t config_descriptor[] = {
	9,
	USB_DT_CONFIG,
	32,
	0,
	1,
	1,
	0,
	0xc0,
	0, /* self-powered */
	9,
	USB_DT_INTERFACE,
	0,
	0,
	2,
	8,
	0x06,
	0x50,
	0, /* SCSI, bulk-only */
	7,
	USB_DT_ENDPOINT,
	USB_IN | PIPE_IN,
	2,
	0,
	2,
	0, /* bulk, 512 bytes */
	7,
	USB_DT_ENDPOINT,
	PIPE_OUT,
	2,
	0,
	2,
	0,
};

static const struct usb_descriptors descriptors = { device_descriptor, config_descriptor,
						    sizeof(config_descriptor), strings };

/* ---- commands ---- */

static void to_status(struct msc *m, uint8_t status)
{
	m->phase = STATUS;
	m->status = status;
	m->residue += m->expected;
	m->expected = 0;
}

static enum usb_result give_status(struct msc *m, struct usb_transfer *t)
{
	uint32_t words[3] = { CSW_SIGNATURE, m->tag, m->residue };
	uint8_t csw[CSW_SIZE];

	memcpy(csw, words, 12);
	csw[12] = m->status;
	t->actual = iov_from_buf(t->iov, t->iovcnt, 0, csw, sizeof(csw));
	m->phase = COMMAND;
	m->offset = m->left = 0;
	return USB_OK;
}

static enum usb_result give_buffer(struct msc *m, struct usb_transfer *t)
{
	uint32_t n = (uint32_t)min_u64(min_u64(t->len, m->expected), m->have - m->at);

	t->actual = iov_from_buf(t->iov, t->iovcnt, 0, m->buf + m->at, n);
	m->at += n;
	m->expected -= n;
	/* A short transfer ends the phase; so does the last byte that the host expects. */
	if (n < t->len || !m->expected)
		to_status(m, m->status);
	return USB_OK;
}

static void task_done(struct scsi_task *t)
{
	struct msc *m = container_of(t, struct msc, task);
	struct usb_transfer *w = m->waiting;

	m->task_runs = false;
	m->status = t->status == SCSI_GOOD ? PASSED : FAILED;
	m->have = t->status == SCSI_GOOD && t->in_len ? (uint32_t)t->moved : 0;
	m->at = 0;
	if (m->phase == DATA_OUT || !m->expected)
		to_status(m, m->status);
	m->waiting = NULL;
	if (w)
		w->done(w, m->phase == STATUS ? give_status(m, w) : give_buffer(m, w));
}

/* Runs the command in cdb as a task on the buffer. */
static void start_task(struct msc *m, bool out)
{
	m->task = (struct scsi_task){ .dev = &m->scsi, .done = task_done };
	memcpy(m->task.cdb, m->cdb, sizeof(m->cdb));
	m->task_iov = (struct iovec){ m->buf, out ? m->have : min_u64(m->expected, BUFFER) };
	if (out) {
		m->task.out = &m->task_iov;
		m->task.nout = 1;
		m->task.out_len = m->task_iov.iov_len;
	} else {
		m->task.in = &m->task_iov;
		m->task.nin = 1;
		m->task.in_len = m->task_iov.iov_len;
	}
	m->task_runs = true;
	scsi_start(&m->task);
}

static enum usb_result bad_wrapper(struct msc *m)
{
	m->broken = true;
	usb_halt(&m->usb, PIPE_IN, true);
	usb_halt(&m->usb, PIPE_OUT, false);
	return USB_STALL;
}

static enum usb_result take_command(struct msc *m, struct usb_transfer *t)
{
	uint8_t cbw[CBW_SIZE + 1];
	struct scsi_transfer x;
	uint32_t signature;
	bool in;

	if (m->broken || iov_to_buf(t->iov, t->iovcnt, 0, cbw, sizeof(cbw)) != CBW_SIZE)
		return bad_wrapper(m);
	memcpy(&signature, cbw, 4);
	if (signature != CBW_SIGNATURE || (cbw[13] & 15) || cbw[14] < 1 || cbw[14] > 16)
		return bad_wrapper(m);
	t->actual = CBW_SIZE;
	memcpy(&m->tag, cbw + 4, 4);
	memcpy(&m->expected, cbw + 8, 4);
	in = cbw[12] & CBW_IN;
	memset(m->cdb, 0, sizeof(m->cdb));
	memcpy(m->cdb, cbw + 15, cbw[14]);
	m->residue = 0;
	m->status = PASSED;
	m->at = m->have = 0;
	m->run = m->fua = false;
	m->streams = scsi_transfer(&m->scsi, m->cdb, &x);
	m->phase = in ? DATA_IN : DATA_OUT;
	if (m->streams) {
		m->offset = x.offset;
		m->left = min_u64(x.len, m->expected);
		m->fua = x.fua;
		if (x.write == in || !m->expected) { /* the other way than the host wants it */
			m->left = 0;
			m->status = PHASE_ERROR;
			if (!m->expected)
				to_status(m, PHASE_ERROR);
		}
	} else if (!in && m->expected) {
		m->run = true;
	} else {
		start_task(m, false);
	}
	return USB_OK;
}

/* ---- the data phase ---- */

static void io_done(struct block_req *r, int result)
{
	struct msc *m = container_of(r, struct msc, req);
	struct usb_transfer *t = m->current;
	uint64_t n = t->actual;

	m->current = NULL;
	if (result) {
		scsi_transfer_failed(&m->scsi, result);
		m->status = FAILED;
		m->left = 0;
		if (r->op == BLOCK_READ)
			t->actual = 0;
		to_status(m, FAILED);
	} else if (r->op != BLOCK_FLUSH) {
		m->offset += n;
		m->left -= n;
		m->expected -= (uint32_t)n;
		if (!m->expected || (r->op == BLOCK_READ && n < t->len))
			to_status(m, m->status);
	}
	if (m->in_submit)
		m->inline_done = true;
	else
		t->done(t, USB_OK);
}

/* One request for one transfer of n bytes; the transfer has at least as many. */
static enum usb_result stream(struct msc *m, struct usb_transfer *t, enum block_op op, uint64_t n)
{
	iov_cut_back(t->iov, &t->iovcnt, t->len - n);
	t->actual = n;
	m->current = t;
	m->req = (struct block_req){
		.op = op, .offset = m->offset, .len = n, .iov = t->iov, .iovcnt = t->iovcnt, .done = io_done
	};
	m->inline_done = false;
	m->in_submit = true;
	block_submit(scsi_medium(&m->scsi), &m->req);
	m->in_submit = false;
	return m->inline_done ? USB_OK : USB_PENDING;
}

static enum usb_result data_in(struct msc *m, struct usb_transfer *t)
{
	if (m->task_runs) {
		m->waiting = t;
		return USB_PENDING;
	}
	if (!m->streams)
		return give_buffer(m, t);
	uint64_t n = min_u64(t->len, m->left);
	if (!n || !scsi_medium(&m->scsi)) { /* no more, or the disc is gone: a short end */
		if (n) {
			scsi_transfer_failed(&m->scsi, -EIO);
			m->status = FAILED;
		}
		to_status(m, m->status);
		return USB_OK;
	}
	return stream(m, t, BLOCK_READ, n);
}

static enum usb_result data_out(struct msc *m, struct usb_transfer *t)
{
	uint32_t n = (uint32_t)min_u64(t->len, m->expected);

	if (m->streams && m->left) {
		uint64_t k = min_u64(n, m->left);

		/* What the host sends beyond the command's data is taken with the last of it. */
		m->residue += n - (uint32_t)k;
		m->expected -= n - (uint32_t)k;
		return stream(m, t, BLOCK_WRITE, k);
	}
	t->actual = n;
	m->expected -= n;
	if (m->run) {
		uint32_t k = (uint32_t)min_u64(n, BUFFER - m->have);

		iov_to_buf(t->iov, t->iovcnt, 0, m->buf + m->have, k);
		m->have += k;
		if (!m->expected)
			start_task(m, true);
	} else {
		m->residue += n;
		if (!m->expected)
			to_status(m, m->status);
	}
	return USB_OK;
}

/* Before the status of a write with FUA, the medium has the data. */
static enum usb_result status(struct msc *m, struct usb_transfer *t)
{
	if (m->fua && m->status == PASSED) {
		m->fua = false;
		memset(m->cdb, 0, sizeof(m->cdb));
		m->cdb[0] = 0x35; /* SYNCHRONIZE CACHE */
		start_task(m, false);
	}
	if (m->task_runs) {
		m->waiting = t;
		return USB_PENDING;
	}
	return give_status(m, t);
}

static enum usb_result msc_transfer(struct usb_device *d, struct usb_transfer *t)
{
	struct msc *m = (struct msc *)d;

	if (t->endpoint != (t->in ? PIPE_IN : PIPE_OUT) || m->current || m->waiting)
		return USB_STALL;
	if (t->in && m->phase == DATA_IN)
		return data_in(m, t);
	if (t->in && (m->phase == STATUS || (m->phase == DATA_OUT && m->task_runs)))
		return status(m, t);
	if (!t->in && m->phase == DATA_OUT && !m->task_runs)
		return data_out(m, t);
	if (!t->in && m->phase == COMMAND)
		return take_command(m, t);
	return t->in && m->phase == COMMAND && !m->broken ? USB_NAK : USB_STALL;
}

/* ---- life ---- */

static void msc_drain(struct usb_device *d)
{
	struct msc *m = (struct msc *)d;

	if (m->current || m->task_runs)
		block_drain(scsi_medium(&m->scsi));
}

static void transport_reset(struct msc *m)
{
	m->phase = COMMAND;
	m->streams = m->broken = m->run = m->fua = false;
	m->status = PASSED;
	m->tag = m->expected = m->residue = m->at = m->have = 0;
	m->offset = m->left = 0;
}

static int msc_control(struct usb_device *d, const struct usb_setup *s, uint8_t *data)
{
	struct msc *m = (struct msc *)d;

	if ((s->type & USB_TYPE) != USB_CLASS)
		return -1;
	if (s->request == GET_MAX_LUN && (s->type & USB_IN) && s->length) {
		data[0] = 0;
		return 1;
	}
	if (s->request == BULK_RESET && !(s->type & USB_IN)) {
		msc_drain(d);
		transport_reset(m);
		return 0;
	}
	return -1;
}

static void msc_bus_reset(struct usb_device *d)
{
	transport_reset((struct msc *)d);
}

static const struct usb_ops ops = {
	.control = msc_control, .transfer = msc_transfer, .bus_reset = msc_bus_reset, .drain = msc_drain
};

static void msc_reset(struct device *d)
{
	usb_bus_reset((struct usb_device *)d);
	scsi_reset(&((struct msc *)d)->scsi);
}

static int msc_loaded(void *obj, struct error *err)
{
	struct msc *m = obj;
	struct block *b = scsi_medium(&m->scsi);
	uint64_t size = b ? block_size(b) : 0;

	if (m->phase > STATUS || m->have > BUFFER || m->at > m->have || m->usb.configuration > 1 ||
	    m->offset > size || m->left > size - m->offset)
		return error_set(err, EINVAL, "the saved state of a USB disk is impossible; it is damaged");
	return 0;
}

static const struct state_field msc_fields[] = { USB_DEVICE_FIELDS(struct msc, usb),
						 SCSI_FIELDS(struct msc, scsi),
						 F_U8(struct msc, phase),
						 F_BOOL(struct msc, streams),
						 F_BOOL(struct msc, broken),
						 F_BOOL(struct msc, fua),
						 F_BOOL(struct msc, run),
						 F_U8(struct msc, status),
						 F_U32(struct msc, tag),
						 F_U32(struct msc, expected),
						 F_U32(struct msc, residue),
						 F_U64(struct msc, offset),
						 F_U64(struct msc, left),
						 F_U32(struct msc, at),
						 F_U32(struct msc, have),
						 F_BYTES(struct msc, cdb),
						 F_BYTES(struct msc, buf),
						 F_END };
static const struct state_table msc_state = { "usb-storage", 1, msc_fields, msc_loaded };

static void msc_free(struct device *d)
{
	free(d);
}

static const struct device_class msc_class = { "usb-storage", msc_reset, &msc_state, msc_free };

int usb_msc_new(struct board *b, bool is_cd, struct block *block, const char *serial, uint32_t instance,
		struct usb_device **ret, struct scsi_device **scsi, struct error *err)
{
	struct msc *m = calloc(1, sizeof(*m));

	if (!m)
		return error_set(err, ENOMEM, "no memory for a USB disk; free some and try again");
	m->usb.ops = &ops;
	m->usb.desc = &descriptors;
	m->usb.speed = USB_SPEED_HIGH;
	strncpy(m->scsi.serial, serial, sizeof(m->scsi.serial) - 1);
	m->usb.serial = m->scsi.serial;
	m->scsi.is_cd = is_cd;
	m->scsi.keeps_sense = true;
	if (is_cd)
		m->scsi.cd.block = block;
	else
		m->scsi.block = block;
	board_add(b, &m->usb.dev, &msc_class, instance);
	*ret = &m->usb;
	*scsi = &m->scsi;
	return 0;
}
