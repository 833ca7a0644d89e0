/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/pc/debug_exit.h"

#include <errno.h>
#include <stdlib.h>

struct debug_exit {
	struct device dev;
	struct board *board;
	struct io_region port;
};

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
	(void)opaque;
	(void)offset;
	(void)size;
	return 0;
}

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct debug_exit *d = opaque;

	(void)offset;
	(void)size;
	d->board->exit_status = (uint8_t)(value << 1 | 1);
	board_ask(d->board, BOARD_EXIT);
}

static void debug_exit_reset(struct device *d)
{
	(void)d;
}

static void debug_exit_free(struct device *dev)
{
	struct debug_exit *d = (struct debug_exit *)dev;

	mem_unmap_pio(d->board->mem, &d->port);
	free(d);
}

static const struct state_field debug_exit_fields[] = { F_END };
static const struct state_table debug_exit_state = { "debug-exit", 1, debug_exit_fields, NULL };
static const struct device_class debug_exit_class = { "debug-exit", debug_exit_reset, &debug_exit_state,
						      debug_exit_free };

int debug_exit_new(struct board *b, uint16_t port, struct debug_exit **ret, struct error *err)
{
	struct debug_exit *d = calloc(1, sizeof(*d));

	if (!d)
		return error_set(err, ENOMEM, "no memory for the debug exit port; free some and try again");
	d->board = b;
	d->port = (struct io_region){ .name = "debug-exit",
				      .base = port,
				      .size = 4,
				      .read = port_read,
				      .write = port_write,
				      .opaque = d };
	mem_map_pio(b->mem, &d->port);
	board_add(b, &d->dev, &debug_exit_class, 0);
	*ret = d;
	return 0;
}
