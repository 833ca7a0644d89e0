/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/usb/usb.h"

#include <string.h>

#include "base/util.h"

/* Standard requests (USB 2.0 table 9-4) */
enum {
	GET_STATUS = 0,
	CLEAR_FEATURE = 1,
	SET_FEATURE = 3,
	SET_ADDRESS = 5,
	GET_DESCRIPTOR = 6,
	GET_CONFIGURATION = 8,
	SET_CONFIGURATION = 9,
	GET_INTERFACE = 10,
	SET_INTERFACE = 11
};
#define FEATURE_HALT   0
#define RECIPIENT      0x1f
#define RECIPIENT_EP   2
#define LANGUAGE       0x0409 /* English (United States) */
#define ATTRIBUTES     7      /* offset in a configuration descriptor */
#define SELF_POWERED   0x40
#define MAX_STRING_LEN 126

static int give(const void *p, size_t len, const struct usb_setup *s, uint8_t *data)
{
	size_t n = min_u64(len, s->length);

	memcpy(data, p, n);
	return (int)n;
}

static const char *string_at(const struct usb_device *d, unsigned index)
{
	unsigned i = 1;

	for (; d->desc->strings[i - 1]; i++)
		if (i == index)
			return d->desc->strings[i - 1];
	return i == index ? d->serial : NULL;
}

static int get_string(const struct usb_device *d, unsigned index, const struct usb_setup *s, uint8_t *data)
{
	uint8_t buf[2 + 2 * MAX_STRING_LEN] = { 4, USB_DT_STRING, LANGUAGE & 0xff, LANGUAGE >> 8 };
	const char *text;

	if (!index)
		return give(buf, 4, s, data);
	text = string_at(d, index);
	if (!text)
		return -1;
	size_t n = min_u64(strlen(text), MAX_STRING_LEN);
	for (size_t i = 0; i < n; i++) {
		buf[2 + 2 * i] = (uint8_t)text[i];
		buf[3 + 2 * i] = 0;
	}
	buf[0] = (uint8_t)(2 + 2 * n);
	return give(buf, buf[0], s, data);
}

/* What a high-speed device would be at full speed: the same. */
static int get_qualifier(const struct usb_device *d, const struct usb_setup *s, uint8_t *data)
{
	const uint8_t *p = d->desc->device;
	uint8_t q[10] = { 10, USB_DT_QUALIFIER, p[2], p[3], p[4], p[5], p[6], p[7], p[17], 0 };

	return d->speed == USB_SPEED_HIGH ? give(q, sizeof(q), s, data) : -1;
}

static int get_descriptor(const struct usb_device *d, const struct usb_setup *s, uint8_t *data)
{
	switch (s->value >> 8) {
	case USB_DT_DEVICE:
		return give(d->desc->device, 18, s, data);
	case USB_DT_CONFIG:
		return s->value & 0xff ? -1 : give(d->desc->config, d->desc->config_len, s, data);
	case USB_DT_STRING:
		return get_string(d, s->value & 0xff, s, data);
	case USB_DT_QUALIFIER:
		return get_qualifier(d, s, data);
	default:
		return -1;
	}
}

static uint32_t endpoint_bit(uint16_t index)
{
	return 1u << ((index & 15) + (index & USB_IN ? 16 : 0));
}

static int get_status(const struct usb_device *d, const struct usb_setup *s, uint8_t *data)
{
	uint8_t status[2] = { 0 };

	if ((s->type & RECIPIENT) == 0)
		status[0] = d->desc->config[ATTRIBUTES] & SELF_POWERED ? 1 : 0;
	else if ((s->type & RECIPIENT) == RECIPIENT_EP)
		status[0] = d->halted & endpoint_bit(s->index) ? 1 : 0;
	return give(status, sizeof(status), s, data);
}

static int set_configuration(struct usb_device *d, uint16_t value)
{
	if (value > 1)
		return -1;
	usb_bus_reset(d);
	d->configuration = (uint8_t)value;
	return 0;
}

static int feature(struct usb_device *d, const struct usb_setup *s, bool set)
{
	if ((s->type & RECIPIENT) != RECIPIENT_EP) /* remote wakeup and test modes: nothing to do */
		return 0;
	if (s->value != FEATURE_HALT)
		return -1;
	if (set)
		d->halted |= endpoint_bit(s->index);
	else
		d->halted &= ~endpoint_bit(s->index);
	return 0;
}

static int standard(struct usb_device *d, const struct usb_setup *s, uint8_t *data)
{
	switch (s->request) {
	case GET_STATUS:
		return get_status(d, s, data);
	case CLEAR_FEATURE:
	case SET_FEATURE:
		return feature(d, s, s->request == SET_FEATURE);
	case SET_ADDRESS: /* the host keeps it */
		return 0;
	case GET_DESCRIPTOR:
		/* Those of an interface are its class' business. */
		return (s->type & RECIPIENT) == 0 ? get_descriptor(d, s, data) : -2;
	case GET_CONFIGURATION:
		return give(&d->configuration, 1, s, data);
	case SET_CONFIGURATION:
		return set_configuration(d, s->value);
	case GET_INTERFACE:
		return give("", 1, s, data);
	case SET_INTERFACE:
		return s->value ? -1 : 0;
	default:
		return -1;
	}
}

int usb_control(struct usb_device *d, const uint8_t raw[8], uint8_t *data)
{
	struct usb_setup s = { .type = raw[0],
			       .request = raw[1],
			       .value = (uint16_t)(raw[2] | raw[3] << 8),
			       .index = (uint16_t)(raw[4] | raw[5] << 8),
			       .length = (uint16_t)(raw[6] | raw[7] << 8) };
	int r = -2;

	if (s.length > USB_MAX_CONTROL) {
		if (!(s.type & USB_IN))
			return -1;
		s.length = USB_MAX_CONTROL; /* no answer is as long */
	}
	if ((s.type & USB_TYPE) == 0)
		r = standard(d, &s, data);
	if (r == -2)
		r = d->ops->control ? d->ops->control(d, &s, data) : -1;
	return r < 0 ? -1 : r;
}

enum usb_result usb_transfer(struct usb_device *d, struct usb_transfer *t)
{
	t->actual = 0;
	if (!d->configuration || (d->halted & endpoint_bit(t->endpoint | (t->in ? USB_IN : 0))))
		return USB_STALL;
	return d->ops->transfer(d, t);
}

void usb_halt(struct usb_device *d, unsigned endpoint, bool in)
{
	d->halted |= endpoint_bit((uint16_t)(endpoint | (in ? USB_IN : 0)));
}

void usb_drain(struct usb_device *d)
{
	if (d->ops->drain)
		d->ops->drain(d);
}

void usb_bus_reset(struct usb_device *d)
{
	usb_drain(d);
	d->configuration = 0;
	d->halted = 0;
	if (d->ops->bus_reset)
		d->ops->bus_reset(d);
}

void usb_wakeup(struct usb_device *d, unsigned endpoint)
{
	if (d->host.wakeup)
		d->host.wakeup(d->host.opaque, d, endpoint);
}

bool usb_is_live(const struct usb_device *d)
{
	return d->configuration && d->host.running && d->host.running(d->host.opaque);
}
