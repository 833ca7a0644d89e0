/* SPDX-License-Identifier: Apache-2.0 */
/* The controller in parts: registers and events (xhci.c), commands (xhci_cmd.c), transfers (xhci_ring.c). */
#ifndef SILL_DEV_USB_XHCI_INTERNAL_H
#define SILL_DEV_USB_XHCI_INTERNAL_H

#include "dev/pci/pci.h"
#include "dev/pci/sg.h"
#include "dev/usb/usb.h"
#include "dev/usb/xhci.h"

#define XHCI_SLOTS     16u /* numbered from 1 */
#define XHCI_ENDPOINTS 32u /* device context indices: 1 the default pipe, then 2n + (in) */
#define XHCI_PORTS     (XHCI_USB2_PORTS + XHCI_USB3_PORTS)
#define XHCI_BACKLOG   512u /* events that the event ring has no room for */
#define XHCI_TD_TRBS   256u /* longest transfer descriptor */

/* Completion codes (§6.4.5) */
enum {
	CC_SUCCESS = 1,
	CC_TRANSACTION = 4,
	CC_TRB = 5,
	CC_STALL = 6,
	CC_NO_SLOTS = 9,
	CC_SLOT_DISABLED = 11,
	CC_EP_DISABLED = 12,
	CC_SHORT = 13,
	CC_PARAMETER = 17,
	CC_CONTEXT_STATE = 19,
	CC_RING_STOPPED = 24,
	CC_STOPPED = 26,
};

/* TRB types (§6.4.6) */
enum {
	TRB_NORMAL = 1,
	TRB_SETUP = 2,
	TRB_DATA = 3,
	TRB_STATUS = 4,
	TRB_LINK = 6,
	TRB_EVENT_DATA = 7,
	TRB_NOOP = 8,
	TRB_ENABLE_SLOT = 9,
	TRB_DISABLE_SLOT = 10,
	TRB_ADDRESS_DEVICE = 11,
	TRB_CONFIGURE = 12,
	TRB_EVALUATE = 13,
	TRB_RESET_EP = 14,
	TRB_STOP_EP = 15,
	TRB_SET_DEQUEUE = 16,
	TRB_RESET_DEVICE = 17,
	TRB_NOOP_COMMAND = 23,
	TRB_TRANSFER_EVENT = 32,
	TRB_COMMAND_EVENT = 33,
	TRB_PORT_EVENT = 34,
};

/* TRB control bits */
#define TRB_CYCLE   0x001u
#define TRB_TOGGLE  0x002u /* in a link */
#define TRB_ISP     0x004u
#define TRB_ED      0x004u /* in an event */
#define TRB_CHAIN   0x010u
#define TRB_IOC     0x020u
#define TRB_IDT     0x040u
#define TRB_BSR     0x200u
#define TRB_DC      0x200u
#define TRB_DIR_IN  0x10000u
#define TRB_TYPE(t) ((t)->control >> 10 & 63)
#define TRB_EP(t)   ((t)->control >> 16 & 31)
#define TRB_SLOT(t) ((t)->control >> 24)
#define TRB_LEN(t)  ((t)->status & 0x1ffff)

struct xhci_trb {
	uint64_t parameter;
	uint32_t status, control;
};

/* Endpoint states (§6.2.3) */
enum { EP_DISABLED, EP_RUNNING, EP_HALTED, EP_STOPPED, EP_ERROR };
/* Slot states (§6.2.2) */
enum { SLOT_DISABLED, SLOT_DEFAULT, SLOT_ADDRESSED, SLOT_CONFIGURED };

/* A transfer descriptor that a device works on. */
struct xhci_td {
	struct xhci *x;
	unsigned slot, ep;
	struct usb_transfer t;
	struct sg sg;
	struct iovec *iov;
	uint64_t deq; /* where the ring goes on */
	uint8_t cycle;
	bool dropped; /* nobody waits for it any more */
	unsigned nr;
	struct {
		uint64_t addr;
		struct xhci_trb trb;
	} trbs[];
};

struct xhci {
	struct pci_device pci;
	struct board *board;
	struct io_region regs;
	struct usb_device *device[XHCI_PORTS + 1];          /* by port */
	struct loop_work work;                              /* goes on with what was cut short */
	struct xhci_td *td[XHCI_SLOTS + 1][XHCI_ENDPOINTS]; /* in flight */

	/* state */
	uint32_t usbcmd, usbsts, dnctrl, config;
	uint64_t crcr, dcbaap; /* crcr: the command ring's dequeue pointer, bit 0 its cycle state */
	bool command_ring;     /* it runs */
	uint32_t portsc[XHCI_PORTS + 1];
	uint32_t iman, imod, erstsz;
	uint64_t erstba, erdp;
	/* The event ring: the segment that is written now, and the place in it. */
	uint32_t er_segment, er_index;
	uint8_t er_cycle;
	uint64_t backlog[2 * XHCI_BACKLOG]; /* TRBs without cycle bits */
	uint32_t backlog_head, backlog_count;
	uint64_t stale; /* ports with an event to come, when there is room */

	uint8_t slot_enabled[XHCI_SLOTS + 1], slot_state[XHCI_SLOTS + 1], slot_port[XHCI_SLOTS + 1];
	uint64_t slot_context[XHCI_SLOTS + 1];
	uint8_t ep_state[XHCI_SLOTS + 1][XHCI_ENDPOINTS], ep_cycle[XHCI_SLOTS + 1][XHCI_ENDPOINTS];
	uint64_t ep_deq[XHCI_SLOTS + 1][XHCI_ENDPOINTS];
	/* The control transfer under way: its setup packet, and whether the device has had it. */
	uint8_t setup[XHCI_SLOTS + 1][8];
	uint8_t setup_state[XHCI_SLOTS + 1]; /* enum xhci_setup */
};

enum xhci_setup { SETUP_NONE, SETUP_WAITS, SETUP_DONE };

/* xhci.c */
bool xhci_is_running(const struct xhci *x);
/* Sends an event, or keeps it until there is room. */
void xhci_event(struct xhci *x, struct xhci_trb e);
/* Is there room for more events? Else nothing new is begun. */
bool xhci_has_room(const struct xhci *x);
/* Reads the TRB at *addr if its cycle bit says that it is there, and passes over links. False: none. */
bool xhci_fetch(struct xhci *x, uint64_t *addr, uint8_t *cycle, struct xhci_trb *trb);
void xhci_work_later(struct xhci *x);
struct usb_device *xhci_device(struct xhci *x, unsigned slot); /* NULL: none */

/* xhci_cmd.c */
void xhci_run_commands(struct xhci *x);
void xhci_disable_slot(struct xhci *x, unsigned slot);
/* Writes an endpoint's state and place into its context. */
void xhci_put_endpoint(struct xhci *x, unsigned slot, unsigned ep);

/* xhci_ring.c */
void xhci_run_endpoint(struct xhci *x, unsigned slot, unsigned ep);
void xhci_run_all(struct xhci *x);
/* What a device still works on is waited for and forgotten. */
void xhci_drop_endpoint(struct xhci *x, unsigned slot, unsigned ep);

#endif
