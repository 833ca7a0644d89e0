/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dev/irq/ioapic.h"
#include "dev/irq/irq.h"
#include "dev/irq/lapic.h"
#include "dev/irq/pic.h"

#define PIN_PIC  0
#define PIN_IRQ0 2
#define PIN_PIRQ 16

/* Memory-write messages (SDM 3A 11.11) */
#define MSI_ADDRESS_BASE    0xfee00000ull
#define MSI_ADDRESS_LOGICAL (1u << 2)
#define MSI_DATA_ASSERT     (1u << 14)
#define MSI_DATA_LEVEL      (1u << 15)

/* ---- lines ---- */

/* A PIC pin hears its ISA source and the PIRQ lines that are routed to it. */
static void drive_pic(struct irq_router *r, unsigned irq)
{
	bool level = r->isa_levels & 1u << irq;

	for (unsigned p = 0; p < IRQ_PIRQ_COUNT; p++)
		if (r->pirq_pic[p] == irq && (r->pirq_levels & 1u << p))
			level = true;
	pic_set_irq_locked(r->pic, irq, level);
}

void irq_router_set_isa(struct irq_router *r, unsigned irq, bool level)
{
	if (irq >= IRQ_ISA_COUNT || irq == 2)
		return;
	mutex_lock(&r->lock);
	r->isa_levels = level ? r->isa_levels | 1u << irq : r->isa_levels & ~(1u << irq);
	drive_pic(r, irq);
	ioapic_set_pin_locked(r->ioapic, irq ? irq : PIN_IRQ0, level);
	mutex_unlock(&r->lock);
}

void irq_router_set_pirq(struct irq_router *r, unsigned line, bool level)
{
	if (line >= IRQ_PIRQ_COUNT)
		return;
	mutex_lock(&r->lock);
	r->pirq_levels = level ? r->pirq_levels | 1u << line : r->pirq_levels & ~(1u << line);
	if (r->pirq_pic[line] < IRQ_ISA_COUNT)
		drive_pic(r, r->pirq_pic[line]);
	ioapic_set_pin_locked(r->ioapic, PIN_PIRQ + line, level);
	mutex_unlock(&r->lock);
}

/* The pins that the PIIX3's route registers allow (290550 §2.2.11): 3..7, 9..12, 14, 15. */
static uint8_t valid_route(uint8_t irq)
{
	return irq < IRQ_ISA_COUNT && (0xdef8u & 1u << irq) ? irq : IRQ_PIRQ_OFF;
}

void irq_router_route_pirq(struct irq_router *r, unsigned line, uint8_t irq)
{
	uint8_t old;

	if (line >= IRQ_PIRQ_COUNT)
		return;
	mutex_lock(&r->lock);
	old = r->pirq_pic[line];
	r->pirq_pic[line] = valid_route(irq);
	if (old < IRQ_ISA_COUNT)
		drive_pic(r, old);
	if (r->pirq_pic[line] < IRQ_ISA_COUNT)
		drive_pic(r, r->pirq_pic[line]);
	mutex_unlock(&r->lock);
}

enum irq_state irq_router_isa_state(struct irq_router *r, unsigned irq)
{
	enum irq_state s;

	mutex_lock(&r->lock);
	s = ioapic_pin_state_locked(r->ioapic, irq ? irq : PIN_IRQ0);
	if (s == IRQ_MASKED)
		s = pic_irq_state_locked(r->pic, irq);
	mutex_unlock(&r->lock);
	return s;
}

static enum irq_state line_state(void *opaque, unsigned pin)
{
	return irq_router_isa_state(opaque, pin);
}

static void line_set(void *opaque, unsigned pin, bool level)
{
	irq_router_set_isa(opaque, pin, level);
}

struct irq_line irq_router_isa_line(struct irq_router *r, unsigned irq)
{
	return (struct irq_line){ .set = line_set, .state = line_state, .opaque = r, .pin = irq };
}

static enum irq_state pin_state(void *opaque, unsigned pin)
{
	struct irq_router *r = opaque;
	enum irq_state s;

	mutex_lock(&r->lock);
	s = ioapic_pin_state_locked(r->ioapic, pin);
	mutex_unlock(&r->lock);
	return s;
}

static void pin_set(void *opaque, unsigned pin, bool level)
{
	struct irq_router *r = opaque;

	mutex_lock(&r->lock);
	ioapic_set_pin_locked(r->ioapic, pin, level);
	mutex_unlock(&r->lock);
}

struct irq_line irq_router_ioapic_line(struct irq_router *r, unsigned pin)
{
	return (struct irq_line){ .set = pin_set, .state = pin_state, .opaque = r, .pin = pin };
}

void irq_router_nmi(struct irq_router *r)
{
	mutex_lock(&r->lock);
	for (unsigned i = 0; i < r->nr_lapics; i++)
		lapic_lint1_pulse_locked(r->lapic[i]);
	mutex_unlock(&r->lock);
}

/* ---- messages ---- */

/*
 * The candidate with the lowest processor priority; the rotor picks among equals, as the arbitration priority
 * would (SDM 3A 11.6.2.4).
 */
static struct lapic *lowest_priority(struct irq_router *r, const struct irq_message *m,
				     const struct lapic *except)
{
	struct lapic *best = NULL;
	uint8_t best_ppr = 0;

	for (unsigned i = 0; i < r->nr_lapics; i++) {
		struct lapic *l = r->lapic[(r->rotor + i) % r->nr_lapics];

		if (l == except || !lapic_enabled_locked(l) || !lapic_matches_locked(l, m))
			continue;
		if (!best || lapic_ppr_locked(l) < best_ppr) {
			best = l;
			best_ppr = lapic_ppr_locked(l);
		}
	}
	if (best)
		r->rotor = (r->rotor + 1) % r->nr_lapics;
	return best;
}

unsigned irq_deliver_locked(struct irq_router *r, const struct irq_message *m, const struct lapic *except)
{
	unsigned taken = 0;

	if (m->mode == IRQ_MODE_LOWEST) {
		struct lapic *l = lowest_priority(r, m, except);

		return l && lapic_accept_locked(l, m);
	}
	for (unsigned i = 0; i < r->nr_lapics; i++) {
		struct lapic *l = r->lapic[i];

		if (l != except && lapic_matches_locked(l, m))
			taken += lapic_accept_locked(l, m);
	}
	return taken;
}

int msi_send(struct irq_router *r, uint64_t address, uint32_t data)
{
	struct irq_message m = {
		.dest = address >> 12 & 0xff,
		.logical = address & MSI_ADDRESS_LOGICAL,
		.level = data & MSI_DATA_LEVEL,
		.mode = data >> 8 & 7,
		.vector = data & 0xff,
	};

	if ((address & ~0xfffffull) != MSI_ADDRESS_BASE)
		return -EINVAL;
	if (m.level && !(data & MSI_DATA_ASSERT))
		return 0; /* a level's end: nobody here keeps it */
	mutex_lock(&r->lock);
	irq_deliver_locked(r, &m, NULL);
	mutex_unlock(&r->lock);
	return 0;
}

enum irq_state irq_message_state_locked(const struct irq_router *r, const struct irq_message *m)
{
	enum irq_state most = IRQ_IDLE;

	if (m->mode > IRQ_MODE_LOWEST)
		return IRQ_IDLE;
	for (unsigned i = 0; i < r->nr_lapics; i++) {
		enum irq_state s = lapic_matches_locked(r->lapic[i], m)
				       ? lapic_vector_state_locked(r->lapic[i], m->vector)
				       : IRQ_IDLE;

		most = s > most ? s : most;
	}
	return most;
}

void irq_pic_output_locked(struct irq_router *r, bool level)
{
	for (unsigned i = 0; i < r->nr_lapics; i++)
		lapic_lint0_locked(r->lapic[i], level);
	if (r->ioapic)
		ioapic_set_pin_locked(r->ioapic, PIN_PIC, level);
}

void irq_eoi_locked(struct irq_router *r, uint8_t vector)
{
	ioapic_eoi_locked(r->ioapic, vector);
}

/* ---- the LAPIC window ---- */

void irq_router_set_current(struct irq_router *r, struct lapic *(*current)(void *), void *opaque)
{
	r->current = current;
	r->current_opaque = opaque;
}

static struct lapic *current_lapic(struct irq_router *r)
{
	if (r->current)
		return r->current(r->current_opaque);
	return r->nr_lapics ? r->lapic[0] : NULL;
}

static uint64_t page_read(struct irq_router *r, uint64_t page, uint64_t offset, unsigned size)
{
	struct lapic *l = current_lapic(r);

	return l && lapic_page(l) == page ? lapic_mmio_read(l, offset, size) : UINT64_MAX;
}

static void page_write(struct irq_router *r, uint64_t page, uint64_t offset, uint64_t value, unsigned size)
{
	struct lapic *l = current_lapic(r);

	if (l && lapic_page(l) == page)
		lapic_mmio_write(l, offset, value, size);
}

static uint64_t window_read(void *opaque, uint64_t offset, unsigned size)
{
	return page_read(opaque, LAPIC_BASE, offset, size);
}

static void window_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	page_write(opaque, LAPIC_BASE, offset, value, size);
}

static uint64_t moved_read(void *opaque, uint64_t offset, unsigned size)
{
	struct irq_router *r = opaque;

	return page_read(r, r->moved_region.base, offset, size);
}

static void moved_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct irq_router *r = opaque;

	page_write(r, r->moved_region.base, offset, value, size);
}

void irq_router_lapic_page(struct irq_router *r, uint64_t page)
{
	if (page == LAPIC_BASE || (r->moved_region.size && page == r->moved_region.base))
		return;
	if (r->moved_region.size)
		mem_unmap_mmio(r->board->mem, &r->moved_region);
	r->moved_region = (struct io_region){ .name = "lapic-moved",
					      .base = page,
					      .size = LAPIC_SIZE,
					      .read = moved_read,
					      .write = moved_write,
					      .opaque = r,
					      .unlocked = true,
					      .max_size = 4 };
	mem_map_mmio(r->board->mem, &r->moved_region);
}

/* ---- reset, state ---- */

static void router_reset(struct device *d)
{
	struct irq_router *r = (struct irq_router *)d;

	mutex_lock(&r->lock);
	r->rotor = 0;
	mutex_unlock(&r->lock);
	/* The levels belong to the devices; the routes to the PIIX3, which resets them to "off". */
	for (unsigned p = 0; p < IRQ_PIRQ_COUNT; p++)
		irq_router_route_pirq(r, p, IRQ_PIRQ_OFF);
}

static int router_loaded(void *obj, struct error *err)
{
	struct irq_router *r = obj;

	(void)err;
	for (unsigned p = 0; p < IRQ_PIRQ_COUNT; p++)
		r->pirq_pic[p] = valid_route(r->pirq_pic[p]);
	if (r->nr_lapics)
		r->rotor %= r->nr_lapics;
	return 0;
}

static const struct state_field router_fields[] = {
	F_U32(struct irq_router, isa_levels),
	F_U8(struct irq_router, pirq_levels),
	F_U8S(struct irq_router, pirq_pic, IRQ_PIRQ_COUNT),
	F_U32(struct irq_router, rotor),
	F_END,
};
static const struct state_table router_state = { "irq-router", 1, router_fields, router_loaded };

static void router_free(struct device *d)
{
	struct irq_router *r = (struct irq_router *)d;

	mem_unmap_mmio(r->board->mem, &r->lapic_region);
	if (r->moved_region.size)
		mem_unmap_mmio(r->board->mem, &r->moved_region);
	mutex_destroy(&r->lock);
	free(r);
}

static const struct device_class router_class = { "irq-router", router_reset, &router_state, router_free };

int irq_router_new(struct board *b, struct irq_router **ret, struct error *err)
{
	struct irq_router *r = calloc(1, sizeof(*r));
	int rc;

	if (!r)
		return error_set(err, ENOMEM,
				 "no memory for the interrupt controllers; free some and try again");
	r->board = b;
	mutex_init(&r->lock, LOCK_RANK_IRQ, "irq");
	memset(r->pirq_pic, IRQ_PIRQ_OFF, sizeof(r->pirq_pic));
	r->lapic_region = (struct io_region){ .name = "lapic",
					      .base = LAPIC_BASE,
					      .size = LAPIC_SIZE,
					      .read = window_read,
					      .write = window_write,
					      .opaque = r,
					      .unlocked = true,
					      .max_size = 4 };
	mem_map_mmio(b->mem, &r->lapic_region);
	/* First on the list, so that it is freed after the chips that use its lock. */
	board_add(b, &r->dev, &router_class, 0);
	rc = pic_new(b, r, &r->pic, err);
	if (!rc)
		rc = ioapic_new(b, r, &r->ioapic, err);
	if (rc)
		return rc; /* the board frees what it has */
	*ret = r;
	return 0;
}
