/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PC's parallel port in its standard and PS/2 modes (IEEE 1284-1994 annex C,
 * IBM PS/2 Hardware Interface Technical Reference, "Parallel port controller").
 *
 * The printer takes the byte in the data register when strobe goes active, is busy
 * until it has room for another, and acknowledges; if the host wants that, by an
 * interrupt.
 */
#include "dev/pc/parallel.h"

#include <errno.h>
#include <stdlib.h>

#include "base/util.h"

#define BASE 0x378
enum { DATA, STATUS, CONTROL, NR_PORTS };

#define STATUS_READY      0x80 /* not busy */
#define STATUS_IDLE       0xdf /* no acknowledge, selected, paper, no error; unused bits are 1 */
#define STATUS_NO_PRINTER 0x7f /* what open lines read as */
#define CONTROL_STROBE    0x01
#define CONTROL_IRQ       0x10
#define CONTROL_INPUT     0x20 /* PS/2: the data lines are the peripheral's */

struct parallel {
	struct device dev;
	struct board *board;
	struct irq_line irq;
	struct chardev *chr;
	struct io_region ports;
	uint8_t data, control;
	uint8_t latch; /* the byte that the printer has no room for yet */
	bool busy;
};

/* Prints what is latched, if there is room. */
static void print(struct parallel *p)
{
	if (chardev_write(p->chr, &p->latch, 1) != 1)
		return;
	p->busy = false;
	if (p->control & CONTROL_IRQ) {
		irq_set(&p->irq, true);
		irq_set(&p->irq, false);
	}
}

static void writable(void *opaque)
{
	struct parallel *p = opaque;

	if (p->busy)
		print(p);
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
	const struct parallel *p = opaque;

	(void)size;
	switch (offset) {
	case DATA:
		return p->control & CONTROL_INPUT ? 0xff : p->data;
	case STATUS:
		if (!p->chr)
			return STATUS_NO_PRINTER;
		return p->busy ? STATUS_IDLE & ~STATUS_READY : STATUS_IDLE;
	default:
		return p->control | 0xc0;
	}
}

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct parallel *p = opaque;
	uint8_t old = p->control;

	(void)size;
	if (offset == DATA) {
		p->data = (uint8_t)value;
		return;
	}
	if (offset != CONTROL)
		return;
	p->control = value & 0x3f;
	if (p->chr && !(old & CONTROL_STROBE) && (value & CONTROL_STROBE) && !p->busy) {
		p->latch = p->data;
		p->busy = true;
		print(p);
	}
}

static void parallel_reset(struct device *d)
{
	struct parallel *p = (struct parallel *)d;

	p->data = p->latch = 0;
	p->control = 0x0c; /* selected, not initialising */
	p->busy = false;
}

static int parallel_loaded(void *obj, struct error *err)
{
	(void)err;
	writable(obj);
	return 0;
}

static const struct state_field parallel_fields[] = { F_U8(struct parallel, data),
						      F_U8(struct parallel, control),
						      F_U8(struct parallel, latch),
						      F_BOOL(struct parallel, busy), F_END };
static const struct state_table parallel_state = { "parallel", 1, parallel_fields, parallel_loaded };

static void parallel_free(struct device *d)
{
	struct parallel *p = (struct parallel *)d;

	if (p->chr)
		chardev_set_reader(p->chr, NULL);
	mem_unmap_pio(p->board->mem, &p->ports);
	free(p);
}

static const struct device_class parallel_class = { "parallel", parallel_reset, &parallel_state,
						    parallel_free };

int parallel_new(struct board *b, struct irq_line irq7, struct chardev *chr, struct parallel **ret,
		 struct error *err)
{
	struct parallel *p = calloc(1, sizeof(*p));

	if (!p)
		return error_set(err, ENOMEM, "no memory for the parallel port; free some and try again");
	p->board = b;
	p->irq = irq7;
	p->chr = chr;
	p->ports = (struct io_region){ .name = "parallel",
				       .base = BASE,
				       .size = NR_PORTS,
				       .read = port_read,
				       .write = port_write,
				       .opaque = p,
				       .max_size = 1 };
	mem_map_pio(b->mem, &p->ports);
	if (chr)
		chardev_set_reader(chr, &(struct chardev_reader){ .writable = writable, .opaque = p });
	parallel_reset(&p->dev);
	board_add(b, &p->dev, &parallel_class, 0);
	*ret = p;
	return 0;
}
