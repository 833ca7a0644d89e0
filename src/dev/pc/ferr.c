/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The coprocessor error register of the PIIX3 (290550 §2.5.9; SDM 1 appendix D
 * has the circuit).  When the processor asserts FERR#, IRQ 13 rises and stays.  A
 * write to port F0, whatever the value, takes it back, and asserts IGNNE# until
 * FERR# is gone: so the interrupt's handler can use the FPU before it has dealt
 * with the error.
 *
 * On the AT, port F1 reset the coprocessor, which took its error back.  Nothing
 * can reset a processor's own FPU from outside, so here it does as F0 does.
 */
#include "dev/pc/ferr.h"

#include <errno.h>
#include <stdlib.h>

#define PORT 0xf0

struct ferr {
	struct device dev;
	struct board *board;
	struct irq_line irq13;
	bool asserted, irq, ignne;
	struct io_region ports;
};

static void set_irq(struct ferr *f, bool level)
{
	f->irq = level;
	irq_set(&f->irq13, level);
}

bool ferr_set(struct ferr *f, bool asserted)
{
	if (asserted && !f->asserted)
		set_irq(f, true);
	f->asserted = asserted;
	if (!asserted)
		f->ignne = false;
	return f->ignne;
}

static void ports_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct ferr *f = opaque;

	(void)offset;
	(void)value;
	(void)size;
	set_irq(f, false);
	f->ignne = f->asserted;
}

static void ferr_reset(struct device *d)
{
	struct ferr *f = (struct ferr *)d;

	f->asserted = f->ignne = false;
	set_irq(f, false);
}

static const struct state_field ferr_fields[] = {
	F_BOOL(struct ferr, asserted),
	F_BOOL(struct ferr, irq),
	F_BOOL(struct ferr, ignne),
	F_END,
};
static const struct state_table ferr_state = { "ferr", 1, ferr_fields, NULL };

static void ferr_free(struct device *d)
{
	struct ferr *f = (struct ferr *)d;

	mem_unmap_pio(f->board->mem, &f->ports);
	free(f);
}

static const struct device_class ferr_class = { "ferr", ferr_reset, &ferr_state, ferr_free };

int ferr_new(struct board *b, struct irq_line irq13, struct ferr **ret, struct error *err)
{
	struct ferr *f = calloc(1, sizeof(*f));

	if (!f)
		return error_set(err, ENOMEM,
				 "no memory for the coprocessor's port; free some and try again");
	f->board = b;
	f->irq13 = irq13;
	f->ports = (struct io_region){
		.name = "ferr", .base = PORT, .size = 2, .write = ports_write, .opaque = f, .max_size = 1
	};
	mem_map_pio(b->mem, &f->ports);
	board_add(b, &f->dev, &ferr_class, 0);
	*ret = f;
	return 0;
}
