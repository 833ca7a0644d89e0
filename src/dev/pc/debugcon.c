/* SPDX-License-Identifier: Apache-2.0 */
/* Reading gives E9h, by which firmware sees that somebody listens (as with Bochs' port E9). */
#include "dev/pc/debugcon.h"

#include <errno.h>
#include <stdlib.h>

struct debugcon {
	struct device dev;
	struct board *board;
	struct chardev *out;
	struct io_region port;
};

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
	(void)opaque;
	(void)offset;
	(void)size;
	return 0xe9;
}

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct debugcon *d = opaque;
	char c = (char)value;

	(void)offset;
	(void)size;
	chardev_write(d->out, &c, 1);
}

static void debugcon_reset(struct device *d)
{
	(void)d;
}

static void debugcon_free(struct device *dev)
{
	struct debugcon *d = (struct debugcon *)dev;

	mem_unmap_pio(d->board->mem, &d->port);
	free(d);
}

static const struct state_field debugcon_fields[] = { F_END };
static const struct state_table debugcon_state = { "debugcon", 1, debugcon_fields, NULL };
static const struct device_class debugcon_class = { "debugcon", debugcon_reset, &debugcon_state,
						    debugcon_free };

int debugcon_new(struct board *b, struct chardev *out, struct debugcon **ret, struct error *err)
{
	struct debugcon *d = calloc(1, sizeof(*d));

	if (!d)
		return error_set(err, ENOMEM, "no memory for the debug port; free some and try again");
	d->board = b;
	d->out = out;
	d->port = (struct io_region){ .name = "debugcon",
				      .base = DEBUGCON_PORT,
				      .size = 1,
				      .read = port_read,
				      .write = port_write,
				      .opaque = d,
				      .max_size = 1 };
	mem_map_pio(b->mem, &d->port);
	board_add(b, &d->dev, &debugcon_class, 0);
	*ret = d;
	return 0;
}
