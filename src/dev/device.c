/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/device.h"

void board_add(struct board *b, struct device *d, const struct device_class *cls, uint32_t instance)
{
	struct device **p = &b->devices;

	d->cls = cls;
	d->instance = instance;
	d->next = NULL;
	while (*p)
		p = &(*p)->next;
	*p = d;
}

void board_reset(struct board *b)
{
	for (struct device *d = b->devices; d; d = d->next)
		if (d->cls->reset)
			d->cls->reset(d);
}

/* The list is singly linked: taking the last one each time is quadratic in some thirty devices. */
void board_free_devices(struct board *b)
{
	while (b->devices) {
		struct device **p = &b->devices;
		struct device *d;

		while ((*p)->next)
			p = &(*p)->next;
		d = *p;
		*p = NULL;
		if (d->cls->free)
			d->cls->free(d);
	}
}
