/* SPDX-License-Identifier: Apache-2.0 */
/* A USB 3 host controller (xHCI). */
#ifndef SILL_DEV_USB_XHCI_H
#define SILL_DEV_USB_XHCI_H

#include "dev/usb/usb.h"

struct pci_bus;
struct pci_device;
struct xhci;

#define XHCI_USB2_PORTS 8 /* from 1 on; devices go there */
#define XHCI_USB3_PORTS 4

/* In the first free slot, with nothing plugged in. 0 or -errno. */
int xhci_new(struct board *b, struct pci_bus *bus, struct xhci **ret, struct error *err);
struct pci_device *xhci_pci(struct xhci *x); /* its function */
/* Before the vCPUs run: plugs a device into the next free port; returns its number, 0: there is none. */
unsigned xhci_plug(struct xhci *x, struct usb_device *d);

#endif
