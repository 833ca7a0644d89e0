/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command ring (xHCI 1.1 §4.6): device slots and endpoint contexts.
 *
 * The guest owns the contexts in its memory and may write what it likes there; what
 * the controller relies on (states, ring places, the port) it keeps itself, and
 * only shows there.
 */
#include <string.h>

#include "base/util.h"
#include "dev/usb/xhci_internal.h"

#define CONTEXT   32u /* bytes */
#define MAX_BURST 64u /* commands in one go */

/* Endpoint types (§6.2.3) */
enum {
	EP_ISOCH_OUT = 1,
	EP_BULK_OUT,
	EP_INTERRUPT_OUT,
	EP_CONTROL,
	EP_ISOCH_IN,
	EP_BULK_IN,
	EP_INTERRUPT_IN
};

static bool read_context(struct xhci *x, uint64_t base, unsigned i, uint32_t c[8])
{
	return pci_dma_read(&x->pci, GPA(base + (uint64_t)i * CONTEXT), c, CONTEXT) == 0;
}

static bool write_context(struct xhci *x, uint64_t base, unsigned i, const uint32_t c[8])
{
	return pci_dma_write(&x->pci, GPA(base + (uint64_t)i * CONTEXT), c, CONTEXT) == 0;
}

void xhci_put_endpoint(struct xhci *x, unsigned slot, unsigned ep)
{
	uint64_t at = x->slot_context[slot];
	uint32_t c[8];

	if (!read_context(x, at, ep, c))
		return;
	c[0] = (c[0] & ~7u) | x->ep_state[slot][ep];
	c[2] = (uint32_t)(x->ep_deq[slot][ep] & ~15ull) | x->ep_cycle[slot][ep];
	c[3] = (uint32_t)(x->ep_deq[slot][ep] >> 32);
	write_context(x, at, ep, c);
}

static void put_slot_state(struct xhci *x, unsigned slot, unsigned state)
{
	uint64_t at = x->slot_context[slot];
	uint32_t c[8];

	x->slot_state[slot] = (uint8_t)state;
	if (!read_context(x, at, 0, c))
		return;
	c[3] = state << 27 | (state >= SLOT_ADDRESSED ? slot : 0); /* a slot's number serves as address */
	write_context(x, at, 0, c);
}

static void disable_endpoint(struct xhci *x, unsigned slot, unsigned ep)
{
	xhci_drop_endpoint(x, slot, ep);
	x->ep_state[slot][ep] = EP_DISABLED;
	x->ep_deq[slot][ep] = 0;
	x->ep_cycle[slot][ep] = 0;
}

void xhci_disable_slot(struct xhci *x, unsigned slot)
{
	for (unsigned ep = 1; ep < XHCI_ENDPOINTS; ep++)
		disable_endpoint(x, slot, ep);
	x->slot_enabled[slot] = x->slot_state[slot] = x->slot_port[slot] = 0;
	x->slot_context[slot] = 0;
	x->setup_state[slot] = SETUP_NONE;
}

/* Makes an endpoint as its input context says. */
static bool enable_endpoint(struct xhci *x, unsigned slot, unsigned ep, uint32_t c[8])
{
	unsigned type = c[1] >> 3 & 7;
	bool in = ep & 1;

	if (ep == 1 ? type != EP_CONTROL
		    : type != (in ? EP_BULK_IN : EP_BULK_OUT) &&
			  type != (in ? EP_INTERRUPT_IN : EP_INTERRUPT_OUT))
		return false;
	if (c[0] & 0x7c00) /* streams */
		return false;
	disable_endpoint(x, slot, ep);
	x->ep_state[slot][ep] = EP_RUNNING;
	x->ep_deq[slot][ep] = ((uint64_t)c[3] << 32 | c[2]) & ~15ull;
	x->ep_cycle[slot][ep] = c[2] & 1;
	c[0] = (c[0] & ~7u) | EP_RUNNING;
	return write_context(x, x->slot_context[slot], ep, c);
}

/* ---- commands, each with its completion code ---- */

static unsigned enable_slot(struct xhci *x, unsigned *slot)
{
	unsigned most = (unsigned)min_u64(x->config & 0xff, XHCI_SLOTS);

	for (unsigned s = 1; s <= most; s++) {
		if (x->slot_enabled[s])
			continue;
		x->slot_enabled[s] = 1;
		*slot = s;
		return CC_SUCCESS;
	}
	return CC_NO_SLOTS;
}

static unsigned address_device(struct xhci *x, unsigned slot, uint64_t input, bool block_request)
{
	uint32_t control[8], s[8], ep0[8];
	uint64_t context;
	unsigned port;

	if (pci_dma_read(&x->pci, GPA(x->dcbaap + 8ull * slot), &context, 8) < 0 ||
	    !read_context(x, input, 0, control) || !read_context(x, input, 1, s) ||
	    !read_context(x, input, 2, ep0))
		return CC_TRB;
	if (control[0] || (control[1] & 3) != 3)
		return CC_PARAMETER;
	port = s[1] >> 16 & 0xff;
	if (!port || port > XHCI_PORTS || (s[0] & 0xfffff)) /* there are no hubs */
		return CC_PARAMETER;
	if (x->slot_state[slot] >= SLOT_ADDRESSED || (block_request && x->slot_state[slot] == SLOT_DEFAULT))
		return CC_CONTEXT_STATE;
	for (unsigned other = 1; other <= XHCI_SLOTS; other++)
		if (other != slot && x->slot_port[other] == port)
			return CC_PARAMETER;
	if (!x->device[port] || !(x->portsc[port] & 2))
		return CC_TRANSACTION;
	x->slot_port[slot] = (uint8_t)port;
	x->slot_context[slot] = context & ~63ull;
	if (!write_context(x, x->slot_context[slot], 0, s))
		return CC_TRB;
	x->setup_state[slot] = SETUP_NONE;
	if (!enable_endpoint(x, slot, 1, ep0))
		return CC_PARAMETER;
	put_slot_state(x, slot, block_request ? SLOT_DEFAULT : SLOT_ADDRESSED);
	return CC_SUCCESS;
}

static unsigned deconfigure(struct xhci *x, unsigned slot)
{
	for (unsigned ep = 2; ep < XHCI_ENDPOINTS; ep++) {
		disable_endpoint(x, slot, ep);
		xhci_put_endpoint(x, slot, ep);
	}
	put_slot_state(x, slot, SLOT_ADDRESSED);
	return CC_SUCCESS;
}

static unsigned configure_endpoints(struct xhci *x, unsigned slot, uint64_t input, bool all_off)
{
	uint32_t control[8], s[8], out[8], c[8];

	if (x->slot_state[slot] < SLOT_ADDRESSED)
		return CC_CONTEXT_STATE;
	if (all_off)
		return deconfigure(x, slot);
	if (!read_context(x, input, 0, control) || !read_context(x, input, 1, s) ||
	    !read_context(x, x->slot_context[slot], 0, out))
		return CC_TRB;
	if ((control[0] & 3) || (control[1] & 3) != 1)
		return CC_PARAMETER;
	for (unsigned ep = 2; ep < XHCI_ENDPOINTS; ep++) {
		if (control[0] >> ep & 1) {
			disable_endpoint(x, slot, ep);
			xhci_put_endpoint(x, slot, ep);
		}
		if (!(control[1] >> ep & 1))
			continue;
		if (!read_context(x, input, ep + 1, c))
			return CC_TRB;
		if (!enable_endpoint(x, slot, ep, c))
			return CC_PARAMETER;
	}
	out[0] = (out[0] & ~(31u << 27)) | (s[0] & 31u << 27); /* how many contexts are valid */
	write_context(x, x->slot_context[slot], 0, out);
	put_slot_state(x, slot, SLOT_CONFIGURED);
	return CC_SUCCESS;
}

/* Latency, interrupter; packet size of the default pipe. None of them changes what we do. */
static unsigned evaluate_context(struct xhci *x, unsigned slot, uint64_t input)
{
	uint32_t control[8], in[8], out[8];

	if (x->slot_state[slot] < SLOT_DEFAULT)
		return CC_CONTEXT_STATE;
	if (!read_context(x, input, 0, control))
		return CC_TRB;
	if (control[0] || (control[1] & ~3u))
		return CC_PARAMETER;
	if (control[1] & 1) {
		if (!read_context(x, input, 1, in) || !read_context(x, x->slot_context[slot], 0, out))
			return CC_TRB;
		out[1] = (out[1] & ~0xffffu) | (in[1] & 0xffff);
		out[2] = (out[2] & ~0xffc00000u) | (in[2] & 0xffc00000u);
		write_context(x, x->slot_context[slot], 0, out);
	}
	if (control[1] & 2) {
		if (!read_context(x, input, 2, in) || !read_context(x, x->slot_context[slot], 1, out))
			return CC_TRB;
		out[1] = (out[1] & 0xffffu) | (in[1] & 0xffff0000u);
		write_context(x, x->slot_context[slot], 1, out);
	}
	return CC_SUCCESS;
}

static unsigned reset_endpoint(struct xhci *x, unsigned slot, unsigned ep)
{
	if (x->ep_state[slot][ep] != EP_HALTED)
		return CC_CONTEXT_STATE;
	x->ep_state[slot][ep] = EP_STOPPED;
	if (ep == 1)
		x->setup_state[slot] = SETUP_NONE;
	xhci_put_endpoint(x, slot, ep);
	return CC_SUCCESS;
}

/* A transfer that was under way is told of (§4.6.9). */
static void report_stopped(struct xhci *x, unsigned slot, unsigned ep)
{
	uint64_t at = x->ep_deq[slot][ep];
	uint8_t cycle = x->ep_cycle[slot][ep];
	struct xhci_trb trb;

	if (!xhci_fetch(x, &at, &cycle, &trb))
		return;
	xhci_event(x, (struct xhci_trb){ .parameter = at,
					 .status = (uint32_t)CC_STOPPED << 24 | TRB_LEN(&trb),
					 .control = slot << 24 | ep << 16 | TRB_TRANSFER_EVENT << 10 });
}

static unsigned stop_endpoint(struct xhci *x, unsigned slot, unsigned ep)
{
	if (x->ep_state[slot][ep] != EP_RUNNING)
		return x->ep_state[slot][ep] == EP_DISABLED ? CC_EP_DISABLED : CC_CONTEXT_STATE;
	xhci_drop_endpoint(x, slot, ep);
	report_stopped(x, slot, ep);
	x->ep_state[slot][ep] = EP_STOPPED;
	xhci_put_endpoint(x, slot, ep);
	return CC_SUCCESS;
}

static unsigned set_dequeue(struct xhci *x, unsigned slot, unsigned ep, uint64_t pointer)
{
	if (x->ep_state[slot][ep] != EP_STOPPED && x->ep_state[slot][ep] != EP_ERROR)
		return CC_CONTEXT_STATE;
	x->ep_state[slot][ep] = EP_STOPPED;
	x->ep_deq[slot][ep] = pointer & ~15ull;
	x->ep_cycle[slot][ep] = pointer & 1;
	if (ep == 1)
		x->setup_state[slot] = SETUP_NONE;
	xhci_put_endpoint(x, slot, ep);
	return CC_SUCCESS;
}

static unsigned reset_device(struct xhci *x, unsigned slot)
{
	if (x->slot_state[slot] < SLOT_ADDRESSED)
		return CC_CONTEXT_STATE;
	for (unsigned ep = 2; ep < XHCI_ENDPOINTS; ep++) {
		disable_endpoint(x, slot, ep);
		xhci_put_endpoint(x, slot, ep);
	}
	put_slot_state(x, slot, SLOT_DEFAULT);
	return CC_SUCCESS;
}

static unsigned slot_command(struct xhci *x, const struct xhci_trb *t, unsigned slot)
{
	unsigned ep = TRB_EP(t);
	uint64_t input = t->parameter & ~15ull;

	if (!slot || slot > XHCI_SLOTS || !x->slot_enabled[slot])
		return CC_SLOT_DISABLED;
	if (TRB_TYPE(t) >= TRB_RESET_EP && TRB_TYPE(t) <= TRB_SET_DEQUEUE && (!ep || ep >= XHCI_ENDPOINTS))
		return CC_TRB;
	switch (TRB_TYPE(t)) {
	case TRB_DISABLE_SLOT:
		put_slot_state(x, slot, SLOT_DISABLED);
		xhci_disable_slot(x, slot);
		return CC_SUCCESS;
	case TRB_ADDRESS_DEVICE:
		return address_device(x, slot, input, t->control & TRB_BSR);
	case TRB_CONFIGURE:
		return configure_endpoints(x, slot, input, t->control & TRB_DC);
	case TRB_EVALUATE:
		return evaluate_context(x, slot, input);
	case TRB_RESET_EP:
		return reset_endpoint(x, slot, ep);
	case TRB_STOP_EP:
		return stop_endpoint(x, slot, ep);
	case TRB_SET_DEQUEUE:
		return set_dequeue(x, slot, ep, t->parameter);
	case TRB_RESET_DEVICE:
		return reset_device(x, slot);
	default:
		return CC_TRB;
	}
}

static void execute(struct xhci *x, uint64_t at, const struct xhci_trb *t)
{
	unsigned slot = TRB_SLOT(t), code;

	switch (TRB_TYPE(t)) {
	case TRB_NOOP_COMMAND:
		code = CC_SUCCESS;
		break;
	case TRB_ENABLE_SLOT:
		slot = 0;
		code = enable_slot(x, &slot);
		break;
	default:
		code = slot_command(x, t, slot);
		break;
	}
	xhci_event(x, (struct xhci_trb){ .parameter = at,
					 .status = code << 24,
					 .control = slot << 24 | TRB_COMMAND_EVENT << 10 });
}

void xhci_run_commands(struct xhci *x)
{
	uint64_t at = x->crcr & ~15ull;
	uint8_t cycle = x->crcr & 1;
	struct xhci_trb t;

	for (unsigned i = 0; x->command_ring && xhci_is_running(x); i++) {
		if (i == MAX_BURST) {
			xhci_work_later(x);
			break;
		}
		if (!xhci_has_room(x) || !xhci_fetch(x, &at, &cycle, &t))
			break;
		uint64_t here = at;

		at += sizeof(t);
		x->crcr = at | cycle;
		execute(x, here, &t);
	}
}
