/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intel 82093AA (order number 290566) with the EOI register that later parts
 * (version 0x20) have at offset 0x40 (ICH9 datasheet 13.5.4).
 *
 * A pin is asserted or not: the polarity bit is kept for the guest and has no
 * effect, since devices here drive logical levels.  An edge pin sends at each rise
 * unless masked (then the edge is lost, 290566 §3.2.4); a level pin sends when
 * asserted and unmasked with remote IRR clear.  Remote IRR is set when a LAPIC
 * takes the message and cleared by the EOI for its vector, after which a pin
 * that is still asserted sends again.  A level message that no LAPIC took (all
 * disabled) is tried again when one is enabled.
 *
 * Pin 0 is the PIC's INT: with delivery mode ExtINT the LAPIC fetches the vector
 * from the PIC.
 */
#include "dev/irq/ioapic.h"

#include <errno.h>
#include <stdlib.h>

#include "dev/irq/irq.h"

#define REG_SELECT 0x00
#define REG_WINDOW 0x10
#define REG_EOI    0x40

#define INDEX_ID      0x00
#define INDEX_VERSION 0x01
#define INDEX_ARB     0x02
#define INDEX_TABLE   0x10

#define VERSION (0x20u | (IOAPIC_PINS - 1) << 16)
#define ID_MASK 0x0f000000u

/* Redirection entry (290566 §3.2.4) */
#define RTE_VECTOR     0xffull
#define RTE_MODE(e)    ((e) >> 8 & 7)
#define RTE_LOGICAL    (1ull << 11)
#define RTE_STATUS     (1ull << 12)
#define RTE_REMOTE_IRR (1ull << 14)
#define RTE_LEVEL      (1ull << 15)
#define RTE_MASKED     (1ull << 16)
#define RTE_DEST(e)    ((uint8_t)((e) >> 56))
#define RTE_WRITABLE   (0xff0000000001ffffull & ~(RTE_STATUS | RTE_REMOTE_IRR))

struct ioapic {
	struct device dev;
	struct irq_router *router;
	struct board *board;
	uint32_t id;
	uint8_t select;
	uint32_t levels; /* bit n: pin n is asserted */
	uint64_t rte[IOAPIC_PINS];
	struct io_region region;
};

static struct irq_message message(uint64_t e)
{
	return (struct irq_message){
		.dest = RTE_DEST(e),
		.logical = e & RTE_LOGICAL,
		.level = e & RTE_LEVEL,
		.mode = RTE_MODE(e),
		.vector = e & RTE_VECTOR,
	};
}

static bool send(struct ioapic *io, uint64_t e)
{
	struct irq_message m = message(e);

	/* All but fixed and lowest priority are edges, whatever the entry says (290566 §3.2.4 DELMOD). */
	if (m.mode > IRQ_MODE_LOWEST)
		m.level = false;
	return irq_deliver_locked(io->router, &m, NULL) > 0;
}

static void service_level(struct ioapic *io, unsigned pin)
{
	uint64_t *e = &io->rte[pin];

	if (!(io->levels & 1u << pin) || (*e & (RTE_MASKED | RTE_REMOTE_IRR)) || !(*e & RTE_LEVEL))
		return;
	if (send(io, *e) && RTE_MODE(*e) <= IRQ_MODE_LOWEST)
		*e |= RTE_REMOTE_IRR;
}

void ioapic_set_pin_locked(struct ioapic *io, unsigned pin, bool level)
{
	uint32_t bit;
	bool rise;

	if (pin >= IOAPIC_PINS)
		return;
	bit = 1u << pin;
	rise = level && !(io->levels & bit);
	io->levels = level ? io->levels | bit : io->levels & ~bit;
	if (!rise)
		return;
	if (io->rte[pin] & RTE_LEVEL)
		service_level(io, pin);
	else if (!(io->rte[pin] & RTE_MASKED))
		send(io, io->rte[pin]);
}

enum irq_state ioapic_pin_state_locked(const struct ioapic *io, unsigned pin)
{
	uint64_t e = io->rte[pin];
	struct irq_message m = message(e);

	return e & RTE_MASKED ? IRQ_MASKED : irq_message_state_locked(io->router, &m);
}

void ioapic_eoi_locked(struct ioapic *io, uint8_t vector)
{
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
		uint64_t *e = &io->rte[pin];

		if ((*e & RTE_LEVEL) && (*e & RTE_VECTOR) == vector) {
			*e &= ~RTE_REMOTE_IRR;
			service_level(io, pin);
		}
	}
}

void ioapic_retry_locked(struct ioapic *io)
{
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
		service_level(io, pin);
}

/* ---- registers ---- */

static uint32_t index_read(const struct ioapic *io, uint8_t index)
{
	if (index == INDEX_ID || index == INDEX_ARB)
		return io->id;
	if (index == INDEX_VERSION)
		return VERSION;
	if (index >= INDEX_TABLE && index < INDEX_TABLE + 2 * IOAPIC_PINS) {
		uint64_t e = io->rte[(index - INDEX_TABLE) / 2];

		return index & 1 ? e >> 32 : e;
	}
	return 0;
}

static void rte_write(struct ioapic *io, unsigned pin, bool high, uint32_t v)
{
	uint64_t *e = &io->rte[pin];
	uint64_t fresh = high ? (*e & 0xffffffffull) | (uint64_t)v << 32 : (*e & ~0xffffffffull) | v;

	*e = (*e & RTE_REMOTE_IRR) | (fresh & RTE_WRITABLE);
	/* Turning a pin to edge is how software forgets its remote IRR where there is no EOI register. */
	if (!(*e & RTE_LEVEL))
		*e &= ~RTE_REMOTE_IRR;
	service_level(io, pin);
}

static void index_write(struct ioapic *io, uint8_t index, uint32_t v)
{
	if (index == INDEX_ID)
		io->id = v & ID_MASK;
	else if (index >= INDEX_TABLE && index < INDEX_TABLE + 2 * IOAPIC_PINS)
		rte_write(io, (index - INDEX_TABLE) / 2, index & 1, v);
}

/* Registers are dwords; software may read parts of one. */
static uint64_t ioapic_read(void *opaque, uint64_t offset, unsigned size)
{
	struct ioapic *io = opaque;
	uint32_t v = 0;

	(void)size;
	mutex_lock(&io->router->lock);
	if ((offset & ~3ull) == REG_SELECT)
		v = io->select;
	else if ((offset & ~3ull) == REG_WINDOW)
		v = index_read(io, io->select);
	mutex_unlock(&io->router->lock);
	return v >> 8 * (offset & 3);
}

static void ioapic_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct ioapic *io = opaque;

	mutex_lock(&io->router->lock);
	if (offset == REG_SELECT)
		io->select = value;
	else if (offset == REG_WINDOW && size == 4)
		index_write(io, io->select, value);
	else if (offset == REG_EOI)
		ioapic_eoi_locked(io, value);
	mutex_unlock(&io->router->lock);
}

/* ---- reset, state ---- */

static void reset_locked(struct ioapic *io)
{
	io->id = 0;
	io->select = 0;
	for (unsigned i = 0; i < IOAPIC_PINS; i++)
		io->rte[i] = RTE_MASKED;
}

/* The pins' levels stay: those who drive them lower them in their own resets. */
static void ioapic_reset(struct device *d)
{
	struct ioapic *io = (struct ioapic *)d;

	mutex_lock(&io->router->lock);
	reset_locked(io);
	mutex_unlock(&io->router->lock);
}

static int ioapic_loaded(void *obj, struct error *err)
{
	struct ioapic *io = obj;

	(void)err;
	io->id &= ID_MASK;
	io->levels &= (1u << IOAPIC_PINS) - 1;
	for (unsigned i = 0; i < IOAPIC_PINS; i++)
		io->rte[i] &= RTE_WRITABLE | RTE_REMOTE_IRR;
	return 0;
}

static const struct state_field ioapic_fields[] = {
	F_U32(struct ioapic, id),
	F_U8(struct ioapic, select),
	F_U32(struct ioapic, levels),
	F_U64S(struct ioapic, rte, IOAPIC_PINS),
	F_END,
};
static const struct state_table ioapic_state = { "ioapic", 1, ioapic_fields, ioapic_loaded };

static void ioapic_free(struct device *d)
{
	struct ioapic *io = (struct ioapic *)d;

	mem_unmap_mmio(io->board->mem, &io->region);
	free(io);
}

static const struct device_class ioapic_class = { "ioapic", ioapic_reset, &ioapic_state, ioapic_free };

int ioapic_new(struct board *b, struct irq_router *r, struct ioapic **ret, struct error *err)
{
	struct ioapic *io = calloc(1, sizeof(*io));

	if (!io)
		return error_set(err, ENOMEM, "no memory for the I/O APIC; free some and try again");
	io->router = r;
	io->board = b;
	reset_locked(io);
	io->region = (struct io_region){ .name = "ioapic",
					 .base = IOAPIC_BASE,
					 .size = 0x1000,
					 .read = ioapic_read,
					 .write = ioapic_write,
					 .opaque = io,
					 .unlocked = true,
					 .max_size = 4 };
	mem_map_mmio(b->mem, &io->region);
	board_add(b, &io->dev, &ioapic_class, 0);
	*ret = io;
	return 0;
}
