/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pvpanic (QEMU's docs/specs/pvpanic): reading port 505 gives the events that are
 * understood, writing one reports it.  Bit 0: the guest panicked, which the machine
 * decides about (BOARD_PANIC).  Bit 1: it panicked and starts a crash kernel of its
 * own, which should not be disturbed: that is only logged.
 */
#include "dev/pc/pvpanic.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"

#define PANICKED     0x01
#define CRASH_LOADED 0x02

struct pvpanic {
	struct device dev;
	struct board *board;
	struct io_region port;
	bool told; /* one message per boot: a guest could write all day */
};

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
	(void)opaque;
	(void)offset;
	(void)size;
	return PANICKED | CRASH_LOADED;
}

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pvpanic *p = opaque;

	(void)offset;
	(void)size;
	if (value & PANICKED) {
		board_ask(p->board, BOARD_PANIC);
	} else if ((value & CRASH_LOADED) && !p->told) {
		p->told = true;
		log_warn("the guest panicked and starts its crash kernel");
	}
}

static void pvpanic_reset(struct device *d)
{
	((struct pvpanic *)d)->told = false;
}

static const struct state_field pvpanic_fields[] = { F_BOOL(struct pvpanic, told), F_END };
static const struct state_table pvpanic_state = { "pvpanic", 1, pvpanic_fields, NULL };

static void pvpanic_free(struct device *d)
{
	struct pvpanic *p = (struct pvpanic *)d;

	mem_unmap_pio(p->board->mem, &p->port);
	free(p);
}

static const struct device_class pvpanic_class = { "pvpanic", pvpanic_reset, &pvpanic_state, pvpanic_free };

int pvpanic_new(struct board *b, struct pvpanic **ret, struct error *err)
{
	struct pvpanic *p = calloc(1, sizeof(*p));

	if (!p)
		return error_set(err, ENOMEM, "no memory for pvpanic; free some and try again");
	p->board = b;
	p->port = (struct io_region){ .name = "pvpanic",
				      .base = PVPANIC_PORT,
				      .size = 1,
				      .read = port_read,
				      .write = port_write,
				      .opaque = p };
	mem_map_pio(b->mem, &p->port);
	board_add(b, &p->dev, &pvpanic_class, 0);
	*ret = p;
	return 0;
}
