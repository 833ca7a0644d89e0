/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transfer rings (xHCI 1.1 §4.9 to §4.11).
 *
 * A transfer descriptor (TRBs linked by their chain bits) is taken as one transfer.
 * The ring's dequeue pointer moves on when it has ended; a device that has nothing
 * now (NAK) leaves it where it is, and the descriptor is read again when the device
 * calls.  So nothing has to be remembered of descriptors that wait, and the guest
 * may change its mind about them whenever the endpoint is stopped.
 *
 * A control transfer is two or three descriptors: setup, data, status.  The device
 * gets the request with the data stage, or with the status stage if there is none.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/iov.h"
#include "base/util.h"
#include "dev/usb/xhci_internal.h"

#define MAX_BURST 64u /* descriptors in one go */

/* ---- descriptors ---- */

static bool has_data(const struct xhci_trb *t)
{
	return TRB_TYPE(t) == TRB_NORMAL || TRB_TYPE(t) == TRB_DATA;
}

static void free_td(struct xhci_td *td)
{
	sg_free(&td->sg);
	free(td->iov);
	free(td);
}

/* Reads the next descriptor. NULL: it is not there, or not all of it; or *bad. */
static struct xhci_td *fetch_td(struct xhci *x, unsigned slot, unsigned ep, bool *bad)
{
	struct xhci_td *td;
	uint64_t at = x->ep_deq[slot][ep];
	uint8_t cycle = x->ep_cycle[slot][ep];
	struct xhci_trb t;
	unsigned room = 8;

	*bad = false;
	if (!xhci_fetch(x, &at, &cycle, &t))
		return NULL;
	td = calloc(1, sizeof(*td) + room * sizeof(td->trbs[0]));
	for (bool chain = true; td && chain;) {
		if (td->nr == room) {
			struct xhci_td *bigger =
			    room < XHCI_TD_TRBS ? realloc(td, sizeof(*td) + 2 * room * sizeof(td->trbs[0]))
						: NULL;

			if (!bigger) {
				*bad = true;
				free(td);
				return NULL;
			}
			td = bigger;
			room *= 2;
		}
		td->trbs[td->nr].addr = at;
		td->trbs[td->nr++].trb = t;
		at += sizeof(t);
		chain = t.control & TRB_CHAIN;
		if (chain && !xhci_fetch(x, &at, &cycle, &t)) { /* the rest is still to come */
			free(td);
			return NULL;
		}
	}
	if (!td) {
		*bad = true;
		return NULL;
	}
	td->x = x;
	td->slot = slot;
	td->ep = ep;
	td->deq = at;
	td->cycle = cycle;
	return td;
}

/* The memory that the descriptor's TRBs name; immediate data lie in the TRB itself. */
static bool gather(struct xhci *x, struct xhci_td *td)
{
	for (unsigned i = 0; i < td->nr; i++) {
		const struct xhci_trb *t = &td->trbs[i].trb;
		uint32_t len = TRB_LEN(t);
		bool immediate = t->control & TRB_IDT;

		if (!has_data(t) || !len)
			continue;
		if (immediate && len > 8)
			return false;
		if (sg_add(&td->sg, &x->pci, GPA(immediate ? td->trbs[i].addr : t->parameter), len) < 0)
			return false;
	}
	if (!td->sg.nr)
		return true;
	td->iov = sg_copy(&td->sg);
	return td->iov != NULL;
}

/* ---- ends ---- */

static void transfer_event(struct xhci_td *td, unsigned i, unsigned code, uint32_t len, uint32_t *sum)
{
	const struct xhci_trb *t = &td->trbs[i].trb;
	struct xhci_trb e = { .parameter = td->trbs[i].addr,
			      .status = code << 24 | len,
			      .control = td->slot << 24 | td->ep << 16 | TRB_TRANSFER_EVENT << 10 };

	if (TRB_TYPE(t) == TRB_EVENT_DATA) {
		e.parameter = t->parameter;
		e.status = code << 24 | (*sum & 0xffffff);
		e.control |= TRB_ED;
		*sum = 0;
	}
	xhci_event(td->x, e);
}

/* The events that a descriptor's TRBs ask for, after `actual` bytes were moved (§4.10.1). */
static void report(struct xhci_td *td, uint64_t actual)
{
	uint32_t sum = 0;
	bool is_short = false, told = false;

	for (unsigned i = 0; i < td->nr; i++) {
		const struct xhci_trb *t = &td->trbs[i].trb;
		uint32_t len = has_data(t) ? TRB_LEN(t) : 0, got = (uint32_t)min_u64(len, actual);
		bool first_short = !is_short && got < len;

		actual -= got;
		sum += got;
		is_short |= got < len;
		if (!is_short && (t->control & TRB_IOC))
			transfer_event(td, i, CC_SUCCESS, 0, &sum);
		else if (is_short && !told &&
			 ((t->control & TRB_IOC) || (first_short && (t->control & TRB_ISP)))) {
			transfer_event(td, i, CC_SHORT, len - got, &sum);
			told = true;
		}
	}
}

/* An error: an event whatever the TRBs ask for, and the endpoint halts where it is. */
static void halt(struct xhci_td *td, unsigned code, unsigned state)
{
	struct xhci *x = td->x;
	uint32_t sum = 0;

	x->ep_state[td->slot][td->ep] = (uint8_t)state;
	transfer_event(td, td->nr - 1, code, TRB_LEN(&td->trbs[td->nr - 1].trb), &sum);
	xhci_put_endpoint(x, td->slot, td->ep);
}

static void advance(struct xhci_td *td)
{
	td->x->ep_deq[td->slot][td->ep] = td->deq;
	td->x->ep_cycle[td->slot][td->ep] = td->cycle;
}

static void end_td(struct xhci_td *td, enum usb_result r)
{
	if (td->t.in)
		sg_written(&td->sg, &td->x->pci, r == USB_OK ? td->t.actual : UINT64_MAX);
	if (r == USB_OK) {
		advance(td);
		report(td, td->t.actual);
	} else {
		halt(td, CC_STALL, EP_HALTED);
	}
}

/* A device answered later. */
static void td_done(struct usb_transfer *t, enum usb_result r)
{
	struct xhci_td *td = container_of(t, struct xhci_td, t);
	struct xhci *x = td->x;
	unsigned slot = td->slot, ep = td->ep;
	bool dropped = td->dropped;

	x->td[slot][ep] = NULL;
	if (!dropped)
		end_td(td, r);
	else if (t->in)
		sg_written(&td->sg, &x->pci, UINT64_MAX);
	free_td(td);
	if (!dropped)
		xhci_run_endpoint(x, slot, ep);
}

void xhci_drop_endpoint(struct xhci *x, unsigned slot, unsigned ep)
{
	struct xhci_td *td = x->td[slot][ep];
	struct usb_device *d = xhci_device(x, slot);

	if (!td || !d)
		return;
	td->dropped = true;
	usb_drain(d);
}

/* ---- the default pipe ---- */

static bool setup_in(const uint8_t *setup)
{
	return setup[0] & USB_IN;
}

static unsigned setup_length(const uint8_t *setup)
{
	return setup[6] | (unsigned)setup[7] << 8;
}

static enum usb_result data_stage(struct xhci *x, struct xhci_td *td, struct usb_device *d)
{
	uint8_t *setup = x->setup[td->slot], data[USB_MAX_CONTROL];
	unsigned want = (unsigned)min_u64(setup_length(setup), sizeof(data));
	bool in = setup_in(setup);
	int r;

	if (x->setup_state[td->slot] != SETUP_WAITS)
		return USB_STALL;
	x->setup_state[td->slot] = SETUP_DONE;
	memset(data, 0, want);
	if (!in && iov_to_buf(td->sg.iov, td->sg.nr, 0, data, want) != want)
		return USB_STALL;
	r = usb_control(d, setup, data);
	if (r < 0)
		return USB_STALL;
	td->t.in = in;
	td->t.actual = in ? iov_from_buf(td->sg.iov, td->sg.nr, 0, data, (size_t)r) : td->sg.len;
	return USB_OK;
}

static enum usb_result status_stage(struct xhci *x, struct xhci_td *td, struct usb_device *d)
{
	uint8_t data[USB_MAX_CONTROL] = { 0 };
	uint8_t state = x->setup_state[td->slot];

	x->setup_state[td->slot] = SETUP_NONE;
	if (state == SETUP_DONE)
		return USB_OK;
	if (state == SETUP_NONE)
		return USB_STALL;
	/* A request without data; or with data that nobody fetched. */
	return usb_control(d, x->setup[td->slot], data) < 0 ? USB_STALL : USB_OK;
}

static enum usb_result control_td(struct xhci *x, struct xhci_td *td, struct usb_device *d)
{
	const struct xhci_trb *t = &td->trbs[0].trb;

	switch (TRB_TYPE(t)) {
	case TRB_SETUP:
		for (unsigned i = 0; i < 8; i++)
			x->setup[td->slot][i] = (uint8_t)(t->parameter >> (8 * i));
		x->setup_state[td->slot] = SETUP_WAITS;
		return USB_OK;
	case TRB_DATA:
	case TRB_NORMAL:
		return data_stage(x, td, d);
	case TRB_STATUS:
		return status_stage(x, td, d);
	default:
		return USB_OK;
	}
}

/* ---- rings ---- */

/* Begins one descriptor. False: the endpoint can do no more now. */
static bool run_td(struct xhci *x, unsigned slot, unsigned ep, struct usb_device *d)
{
	enum usb_result r;
	bool bad;
	struct xhci_td *td = fetch_td(x, slot, ep, &bad);

	if (bad) {
		x->ep_state[slot][ep] = EP_ERROR;
		xhci_put_endpoint(x, slot, ep);
	}
	if (!td)
		return false;
	if (!gather(x, td)) {
		halt(td, CC_TRB, EP_ERROR);
		free_td(td);
		return false;
	}
	td->t = (struct usb_transfer){ .endpoint = (uint8_t)(ep >> 1),
				       .in = ep & 1,
				       .iov = td->iov,
				       .iovcnt = td->sg.nr,
				       .len = td->sg.len,
				       .done = td_done };
	if (ep == 1) {
		td->t.in = false;
		r = control_td(x, td, d);
	} else if (TRB_TYPE(&td->trbs[0].trb) == TRB_NOOP) {
		r = USB_OK;
	} else {
		x->td[slot][ep] = td;
		r = usb_transfer(d, &td->t);
		if (r == USB_PENDING)
			return false;
		x->td[slot][ep] = NULL;
	}
	if (r != USB_NAK)
		end_td(td, r);
	free_td(td);
	return r == USB_OK;
}

void xhci_run_endpoint(struct xhci *x, unsigned slot, unsigned ep)
{
	struct usb_device *d;

	for (unsigned i = 0;; i++) {
		d = xhci_device(x, slot);
		if (!d || !xhci_is_running(x) || x->ep_state[slot][ep] != EP_RUNNING || x->td[slot][ep] ||
		    !xhci_has_room(x))
			return;
		if (i == MAX_BURST) {
			xhci_work_later(x);
			return;
		}
		if (!run_td(x, slot, ep, d))
			return;
	}
}

void xhci_run_all(struct xhci *x)
{
	for (unsigned slot = 1; slot <= XHCI_SLOTS; slot++)
		for (unsigned ep = 1; x->slot_enabled[slot] && ep < XHCI_ENDPOINTS; ep++)
			xhci_run_endpoint(x, slot, ep);
}
