/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intel 8259A (order number 231468) as a cascaded pair: master at 20/21, slave
 * at a0/a1 on the master's IR2; the PIIX3's ELCR at 4d0/4d1 (290550 §2.5.2)
 * selects edge or level per pin and so replaces ICW1's LTIM bit.
 *
 * IRR of an edge pin is a latch that the rising edge sets and INTA clears; IRR
 * of a level pin follows the pin.  Requests that are unmasked and beat what is in
 * service raise INT.  Two-chip details: the slave's INT is the master's IR2;
 * when the slave's request has gone by the time of INTA it answers with IRQ 15
 * while the master holds IR2 in service, and software must EOI the master alone.
 *
 * INT falls with INTA and rises again if another request waits, so that who
 * listens for edges on it (LINT0 or IOAPIC pin 0) sees each.
 *
 * Not modelled: the MCS-80 vectors, buffered mode (wiring only), and the window
 * in which an edge pin that falls before INTA turns into IRQ 7: such an edge stays
 * latched, as chipsets do it.
 */
#include "dev/irq/pic.h"

#include <errno.h>
#include <stdlib.h>

#include "base/util.h"
#include "dev/irq/irq.h"

/* ICW1 */
#define ICW1_IC4    0x01
#define ICW1_SNGL   0x02
#define ICW1_SELECT 0x10
/* ICW4 */
#define ICW4_AEOI 0x02
#define ICW4_SFNM 0x10
/* OCW3 */
#define OCW3_SELECT 0x08
#define OCW3_POLL   0x04
#define OCW3_RR     0x02
#define OCW3_RIS    0x01
#define OCW3_ESMM   0x40
#define OCW3_SMM    0x20

#define CASCADE 2
/* IRQ 0, 1, 2 and 8, 13 are edge by their nature (290550 §2.5.2). */
#define ELCR_MASK_MASTER 0xf8
#define ELCR_MASK_SLAVE  0xde

enum { INIT_DONE, INIT_ICW2, INIT_ICW3, INIT_ICW4 };

struct pic_chip {
	uint8_t irr, isr, imr;
	uint8_t lines; /* the pins' levels */
	uint8_t elcr;
	uint8_t base;   /* vector of IR0: T7..T3 of ICW2 */
	uint8_t bottom; /* the lowest-priority pin; the next one is the highest */
	uint8_t init;   /* the ICW that A0=1 expects */
	bool init_icw4, init_single;
	bool read_isr, poll, special_mask;
	bool aeoi, rotate_aeoi, sfnm;
};

struct pic {
	struct device dev;
	struct irq_router *router;
	struct board *board;
	struct pic_chip chip[2]; /* master, slave */
	bool out;                /* master's INT */
	struct io_region ports[2], elcr;
};

/* Position of the highest-priority bit in mask, counted from the top priority (0), or 8. */
static unsigned priority(const struct pic_chip *c, uint8_t mask)
{
	unsigned n = 0;

	if (!mask)
		return 8;
	while (!(mask & 1u << ((c->bottom + 1 + n) & 7)))
		n++;
	return n;
}

static unsigned pin_at(const struct pic_chip *c, unsigned prio)
{
	return (c->bottom + 1 + prio) & 7;
}

/* The pin that should interrupt now, or -1. */
static int chip_request(const struct pic *p, unsigned which)
{
	const struct pic_chip *c = &p->chip[which];
	unsigned prio = priority(c, c->irr & ~c->imr);
	uint8_t isr = c->isr;

	if (prio == 8 || c->init != INIT_DONE)
		return -1;
	if (c->special_mask)
		isr &= ~c->imr;
	/* Special fully nested: a slave in service does not lock out its own higher requests. */
	if (c->sfnm && which == 0)
		isr &= ~(1u << CASCADE);
	return prio < priority(c, isr) ? (int)pin_at(c, prio) : -1;
}

static void chip_set_line(struct pic_chip *c, unsigned pin, bool level)
{
	uint8_t bit = 1u << pin;

	if (c->elcr & bit)
		c->irr = level ? c->irr | bit : c->irr & ~bit;
	else if (level && !(c->lines & bit))
		c->irr |= bit;
	c->lines = level ? c->lines | bit : c->lines & ~bit;
}

static void pic_update(struct pic *p)
{
	bool out;

	chip_set_line(&p->chip[0], CASCADE, chip_request(p, 1) >= 0);
	out = chip_request(p, 0) >= 0;
	if (out != p->out) {
		p->out = out;
		irq_pic_output_locked(p->router, out);
	}
}

/* INT drops for an instant, so that a request that still waits makes a new edge. */
static void pic_drop_output(struct pic *p)
{
	if (p->out) {
		p->out = false;
		irq_pic_output_locked(p->router, false);
	}
}

void pic_set_irq_locked(struct pic *p, unsigned irq, bool level)
{
	if (irq >= 16 || irq == CASCADE)
		return;
	chip_set_line(&p->chip[irq >> 3], irq & 7, level);
	pic_update(p);
}

enum irq_state pic_irq_state_locked(const struct pic *p, unsigned irq)
{
	const struct pic_chip *c = &p->chip[irq >> 3 & 1];
	uint8_t bit = 1u << (irq & 7);

	return c->imr & bit ? IRQ_MASKED : c->irr & bit ? IRQ_PENDING : c->isr & bit ? IRQ_SERVED : IRQ_IDLE;
}

bool pic_output_locked(const struct pic *p)
{
	return p->out;
}

static void chip_take(struct pic_chip *c, unsigned pin)
{
	uint8_t bit = 1u << pin;

	if (!(c->elcr & bit))
		c->irr &= ~bit;
	if (!c->aeoi)
		c->isr |= bit;
	else if (c->rotate_aeoi)
		c->bottom = pin;
}

uint8_t pic_ack_locked(struct pic *p)
{
	int pin = chip_request(p, 0);
	uint8_t vector;

	if (pin < 0)
		return p->chip[0].base | 7;
	chip_take(&p->chip[0], pin);
	vector = p->chip[0].base | pin;
	if (pin == CASCADE) {
		int spin = chip_request(p, 1);

		if (spin >= 0)
			chip_take(&p->chip[1], spin);
		vector = p->chip[1].base | (spin >= 0 ? spin : 7);
		/* The slave's INT fell with INTA: let the master latch it anew if it rises again. */
		p->chip[0].lines &= ~(1u << CASCADE);
	}
	pic_drop_output(p);
	pic_update(p);
	return vector;
}

/* ---- registers ---- */

static void chip_icw1(struct pic_chip *c, uint8_t v)
{
	/* 8259A "Initialization Command Words 1 and 2": edge sense, IMR, priorities, special mask and read
	 * select reset. */
	c->irr &= c->elcr;
	c->isr = 0;
	c->imr = 0;
	c->bottom = 7;
	c->special_mask = false;
	c->read_isr = false;
	c->poll = false;
	c->aeoi = c->rotate_aeoi = c->sfnm = false;
	c->init_icw4 = v & ICW1_IC4;
	c->init_single = v & ICW1_SNGL;
	c->init = INIT_ICW2;
}

static void chip_eoi(struct pic_chip *c, unsigned pin, bool rotate)
{
	c->isr &= ~(1u << pin);
	if (rotate)
		c->bottom = pin;
}

static void chip_ocw2(struct pic_chip *c, uint8_t v)
{
	unsigned pin = v & 7, prio;

	switch (v >> 5) {
	case 0: /* rotate in automatic EOI: clear */
	case 4: /* ... set */
		c->rotate_aeoi = v & 0x80;
		break;
	case 1: /* non-specific EOI */
	case 5: /* ... and rotate */
		prio = priority(c, c->special_mask ? c->isr & ~c->imr : c->isr);
		if (prio < 8)
			chip_eoi(c, pin_at(c, prio), v & 0x80);
		break;
	case 3: /* specific EOI */
	case 7: /* ... and rotate */
		chip_eoi(c, pin, v & 0x80);
		break;
	case 6: /* set priority */
		c->bottom = pin;
		break;
	default:
		break;
	}
}

static void chip_ocw3(struct pic_chip *c, uint8_t v)
{
	if (v & OCW3_ESMM)
		c->special_mask = v & OCW3_SMM;
	if (v & OCW3_POLL)
		c->poll = true;
	else if (v & OCW3_RR)
		c->read_isr = v & OCW3_RIS;
}

static void chip_data(struct pic_chip *c, uint8_t v)
{
	switch (c->init) {
	case INIT_ICW2:
		c->base = v & 0xf8;
		c->init = !c->init_single ? INIT_ICW3 : c->init_icw4 ? INIT_ICW4 : INIT_DONE;
		break;
	case INIT_ICW3: /* the wiring is fixed, whatever the guest says */
		c->init = c->init_icw4 ? INIT_ICW4 : INIT_DONE;
		break;
	case INIT_ICW4:
		c->aeoi = v & ICW4_AEOI;
		c->sfnm = v & ICW4_SFNM;
		c->init = INIT_DONE;
		break;
	default:
		c->imr = v;
		break;
	}
}

static void chip_write(struct pic *p, unsigned which, uint64_t offset, uint8_t v)
{
	struct pic_chip *c = &p->chip[which];

	mutex_lock(&p->router->lock);
	if (offset)
		chip_data(c, v);
	else if (v & ICW1_SELECT)
		chip_icw1(c, v);
	else if (v & OCW3_SELECT)
		chip_ocw3(c, v);
	else
		chip_ocw2(c, v);
	pic_update(p);
	mutex_unlock(&p->router->lock);
}

/* A read after OCW3's P bit acts as INTA and gives the pin with bit 7, or 0 (8259A "Poll Command"). */
static uint8_t chip_poll(struct pic *p, unsigned which)
{
	int pin = chip_request(p, which);

	p->chip[which].poll = false;
	if (pin < 0)
		return 0;
	chip_take(&p->chip[which], pin);
	if (which)
		p->chip[0].lines &= ~(1u << CASCADE);
	else
		pic_drop_output(p);
	pic_update(p);
	return 0x80 | pin;
}

static uint64_t chip_read(struct pic *p, unsigned which, uint64_t offset)
{
	struct pic_chip *c = &p->chip[which];
	uint8_t v;

	mutex_lock(&p->router->lock);
	if (c->poll)
		v = chip_poll(p, which);
	else if (offset)
		v = c->imr;
	else
		v = c->read_isr ? c->isr : c->irr;
	mutex_unlock(&p->router->lock);
	return v;
}

static uint64_t master_read(void *opaque, uint64_t offset, unsigned size)
{
	(void)size;
	return chip_read(opaque, 0, offset);
}

static void master_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	(void)size;
	chip_write(opaque, 0, offset, value);
}

static uint64_t slave_read(void *opaque, uint64_t offset, unsigned size)
{
	(void)size;
	return chip_read(opaque, 1, offset);
}

static void slave_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	(void)size;
	chip_write(opaque, 1, offset, value);
}

static void elcr_set_locked(struct pic *p, unsigned which, uint8_t v)
{
	struct pic_chip *c = &p->chip[which];
	uint8_t changed;

	v &= which ? ELCR_MASK_SLAVE : ELCR_MASK_MASTER;
	changed = v ^ c->elcr;
	c->elcr = v;
	/* A pin that became level shows its level; one that became edge waits for an edge. */
	c->irr = (c->irr & ~changed) | (c->lines & changed & v);
	pic_update(p);
}

static uint64_t elcr_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pic *p = opaque;

	(void)size;
	return p->chip[offset & 1].elcr;
}

static void elcr_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pic *p = opaque;

	(void)size;
	mutex_lock(&p->router->lock);
	elcr_set_locked(p, offset & 1, value);
	mutex_unlock(&p->router->lock);
}

void pic_set_level_triggered(struct pic *p, unsigned irq, bool level_triggered)
{
	uint8_t bit = 1u << (irq & 7);

	if (irq >= 16)
		return;
	mutex_lock(&p->router->lock);
	elcr_set_locked(p, irq >> 3,
			level_triggered ? p->chip[irq >> 3].elcr | bit : p->chip[irq >> 3].elcr & ~bit);
	mutex_unlock(&p->router->lock);
}

/* ---- reset, state ---- */

/* Masked and with the vectors of nobody until the guest initialises them. Devices lower their own lines in
 * their resets. */
static void pic_reset(struct device *d)
{
	struct pic *p = (struct pic *)d;

	mutex_lock(&p->router->lock);
	for (unsigned i = 0; i < 2; i++)
		p->chip[i] = (struct pic_chip){ .imr = 0xff, .bottom = 7, .lines = p->chip[i].lines };
	pic_update(p);
	mutex_unlock(&p->router->lock);
}

static int pic_loaded(void *obj, struct error *err)
{
	struct pic *p = obj;

	for (unsigned i = 0; i < 2; i++) {
		struct pic_chip *c = &p->chip[i];

		if (c->bottom > 7 || c->init > INIT_ICW4)
			return error_set(err, EINVAL,
					 "the saved state of the interrupt controller (pic) is impossible; "
					 "the file is damaged");
		c->base &= 0xf8;
		c->elcr &= i ? ELCR_MASK_SLAVE : ELCR_MASK_MASTER;
	}
	return 0;
}

#define CHIP_FIELDS(n)                                                                                       \
	F_U8(struct pic, chip[n].irr), F_U8(struct pic, chip[n].isr), F_U8(struct pic, chip[n].imr),         \
	    F_U8(struct pic, chip[n].lines), F_U8(struct pic, chip[n].elcr), F_U8(struct pic, chip[n].base), \
	    F_U8(struct pic, chip[n].bottom), F_U8(struct pic, chip[n].init),                                \
	    F_BOOL(struct pic, chip[n].init_icw4), F_BOOL(struct pic, chip[n].init_single),                  \
	    F_BOOL(struct pic, chip[n].read_isr), F_BOOL(struct pic, chip[n].poll),                          \
	    F_BOOL(struct pic, chip[n].special_mask), F_BOOL(struct pic, chip[n].aeoi),                      \
	    F_BOOL(struct pic, chip[n].rotate_aeoi), F_BOOL(struct pic, chip[n].sfnm)

static const struct state_field pic_fields[] = { CHIP_FIELDS(0), CHIP_FIELDS(1), F_BOOL(struct pic, out),
						 F_END };
static const struct state_table pic_state = { "pic", 1, pic_fields, pic_loaded };

static void pic_free(struct device *d)
{
	struct pic *p = (struct pic *)d;

	mem_unmap_pio(p->board->mem, &p->ports[0]);
	mem_unmap_pio(p->board->mem, &p->ports[1]);
	mem_unmap_pio(p->board->mem, &p->elcr);
	free(p);
}

static const struct device_class pic_class = { "pic", pic_reset, &pic_state, pic_free };

static void pic_map(struct pic *p, struct io_region *r, uint16_t base,
		    uint64_t (*read)(void *, uint64_t, unsigned),
		    void (*write)(void *, uint64_t, uint64_t, unsigned))
{
	*r = (struct io_region){ .name = "pic",
				 .base = base,
				 .size = 2,
				 .read = read,
				 .write = write,
				 .opaque = p,
				 .unlocked = true,
				 .max_size = 1 };
	mem_map_pio(p->board->mem, r);
}

int pic_new(struct board *b, struct irq_router *r, struct pic **ret, struct error *err)
{
	struct pic *p = calloc(1, sizeof(*p));

	if (!p)
		return error_set(err, ENOMEM, "out of memory for the interrupt controller");
	p->router = r;
	p->board = b;
	for (unsigned i = 0; i < 2; i++)
		p->chip[i] = (struct pic_chip){ .imr = 0xff, .bottom = 7 };
	pic_map(p, &p->ports[0], 0x20, master_read, master_write);
	pic_map(p, &p->ports[1], 0xa0, slave_read, slave_write);
	pic_map(p, &p->elcr, 0x4d0, elcr_read, elcr_write);
	board_add(b, &p->dev, &pic_class, 0);
	*ret = p;
	return 0;
}
