/* SPDX-License-Identifier: Apache-2.0 */
/* USB keyboard and tablet. */
#ifndef SILL_DEV_USB_HID_H
#define SILL_DEV_USB_HID_H

#include "dev/usb/usb.h"
#include "ui/input.h"

/* On the board's list, and sinks of `in`, from the latest on. 0 or -errno. */
int usb_keyboard_new(struct board *b, struct input *in, struct usb_device **ret, struct error *err);
int usb_tablet_new(struct board *b, struct input *in, struct usb_device **ret, struct error *err);

#endif
