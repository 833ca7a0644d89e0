/* SPDX-License-Identifier: Apache-2.0 */
/*
 * USB devices, as a host controller talks to them (USB 2.0 chapters 8 and 9).
 *
 * A device model embeds struct usb_device first (it begins with struct device, so
 * the class' functions get a pointer to all of them) and implements struct
 * usb_ops.  usb_control answers the standard requests from the descriptors; what
 * is left goes to the device.
 *
 * A transfer is all that a host wants moved at once: the device takes or gives up
 * to its length.  It answers at once, or later by `done`, or not now
 * (USB_NAK): then it calls usb_wakeup when there is something, and the host asks
 * again.  There is one transfer at a time on an endpoint.  All under the I/O lock.
 */
#ifndef SILL_DEV_USB_USB_H
#define SILL_DEV_USB_USB_H

#include <sys/uio.h>

#include "dev/device.h"

#define USB_MAX_CONTROL 4096u /* longest data stage of a control transfer that is possible */

/* As xHCI numbers them */
enum usb_speed { USB_SPEED_FULL = 1, USB_SPEED_LOW, USB_SPEED_HIGH, USB_SPEED_SUPER };

enum usb_result { USB_OK, USB_NAK, USB_STALL, USB_PENDING };

/* bmRequestType: direction, type, recipient */
#define USB_IN        0x80
#define USB_TYPE      0x60
#define USB_CLASS     0x20
#define USB_INTERFACE 0x01

/* Descriptor types */
enum { USB_DT_DEVICE = 1, USB_DT_CONFIG, USB_DT_STRING, USB_DT_INTERFACE, USB_DT_ENDPOINT, USB_DT_QUALIFIER };

struct usb_setup {
	uint8_t type, request;
	uint16_t value, index, length;
};

struct usb_transfer {
	uint8_t endpoint; /* number, 1..15 */
	bool in;          /* to the host */
	/* Memory, valid until completion; the iovecs may be altered. */
	struct iovec *iov;
	unsigned iovcnt;
	uint64_t len;
	uint64_t actual;                                         /* the device's answer; for USB_OK */
	void (*done)(struct usb_transfer *t, enum usb_result r); /* after USB_PENDING */
};

struct usb_device;

struct usb_ops {
	/* Class and other requests; data has room for setup->length bytes, or holds them. Bytes to the host
	 * (0 for the other direction), or -1: stall. May be NULL. */
	int (*control)(struct usb_device *d, const struct usb_setup *setup, uint8_t *data);
	enum usb_result (*transfer)(struct usb_device *d, struct usb_transfer *t);
	/* Port reset, and SET_CONFIGURATION (configured anew). May be NULL. */
	void (*bus_reset)(struct usb_device *d);
	/* Waits until no transfer is in flight. May be NULL: none ever is. */
	void (*drain)(struct usb_device *d);
};

struct usb_descriptors {
	const uint8_t *device; /* 18 bytes */
	const uint8_t *config; /* with all that belongs to it */
	uint16_t config_len;
	const char *const *strings; /* from index 1 on; NULL ends the list */
};

/* What a device is plugged into. */
struct usb_host {
	void (*wakeup)(void *opaque, struct usb_device *d, unsigned endpoint);
	/* The host is switched on: it polls its devices. */
	bool (*running)(void *opaque);
	void *opaque;
};

struct usb_device {
	struct device dev;
	const struct usb_ops *ops;
	const struct usb_descriptors *desc;
	uint8_t speed; /* enum usb_speed */
	uint8_t port;  /* of the host, from 1 */
	struct usb_host host;
	const char *serial; /* the string after the last one; may be NULL */

	/* state */
	uint8_t configuration; /* 0: not configured */
	uint32_t halted;       /* endpoints that stall: bit n out, bit 16 + n in */
};

#define USB_DEVICE_FIELDS(S, m) F_U8(S, m.configuration), F_U32(S, m.halted)

/* The default pipe. Bytes to the host or 0, -1: stall. data: USB_MAX_CONTROL bytes. */
int usb_control(struct usb_device *d, const uint8_t setup[8], uint8_t *data);
/* Any other endpoint. */
enum usb_result usb_transfer(struct usb_device *d, struct usb_transfer *t);
void usb_halt(struct usb_device *d, unsigned endpoint, bool in);
void usb_bus_reset(struct usb_device *d);
void usb_drain(struct usb_device *d);
/* For device models: there is data on an IN endpoint that was answered with NAK. */
void usb_wakeup(struct usb_device *d, unsigned endpoint);
/* The guest has configured the device and its host runs. */
bool usb_is_live(const struct usb_device *d);

#endif
