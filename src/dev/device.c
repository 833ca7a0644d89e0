/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/device.h"

void board_add(struct board *b, struct device *d, const struct device_class *cls, uint32_t instance)
{
	d->cls = cls;
	d->instance = instance;
	d->next = NULL;
	struct device **p = &b->devices;
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

void board_free_devices(struct board *b)
{
	while (b->devices) {
		struct device **p = &b->devices;
		while ((*p)->next)
			p = &(*p)->next;
		struct device *last = *p;
		*p = NULL;
		if (last->cls->free)
			last->cls->free(last);
	}
}
