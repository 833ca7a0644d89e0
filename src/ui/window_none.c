/* SPDX-License-Identifier: Apache-2.0 */
/* Where Sill is built without SDL. */
#include <errno.h>

#include "ui/window.h"

int window_new(struct loop *l, const struct window_config *c, struct display *d, struct input *in,
	       struct window **ret, struct error *err)
{
	(void)l;
	(void)c;
	(void)d;
	(void)in;
	(void)ret;
	return error_set(err, ENOTSUP,
			 "--display window: this Sill was built without it; install libsdl2-dev and build "
			 "again, or use --display vnc=:5900");
}

void window_set_paused(struct window *w, bool paused)
{
	(void)w;
	(void)paused;
}

void window_free(struct window *w)
{
	(void)w;
}
