/* SPDX-License-Identifier: Apache-2.0 */
#include "ui/display.h"

void display_add_viewer(struct display *d, struct display_viewer *v)
{
	v->next = d->viewers;
	d->viewers = v;
}

void display_remove_viewer(struct display *d, struct display_viewer *v)
{
	for (struct display_viewer **p = &d->viewers; *p; p = &(*p)->next) {
		if (*p == v) {
			*p = v->next;
			return;
		}
	}
}

void display_refresh(struct display *d, bool all)
{
	if (d->refresh)
		d->refresh(d->opaque, all);
}

void display_resized(struct display *d)
{
	for (struct display_viewer *v = d->viewers; v; v = v->next)
		v->resized(v->opaque, d);
}

void display_updated(struct display *d, unsigned x, unsigned y, unsigned w, unsigned h)
{
	for (struct display_viewer *v = d->viewers; v; v = v->next)
		v->updated(v->opaque, d, x, y, w, h);
}
