/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/pc/testdev.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define ECHO_PORT   0xe0u
#define FLUSH_PORT  0xe4u
#define BYTE_PORT   0xe8u
#define IRQ_PORT    0x2000u
#define IRQ_LINES   16
#define MEMORY      0xff000000ull
#define MEMORY_SIZE 0x10000u

struct testdev {
	struct device dev;
	struct board *board;
	struct irq_router *router;
	uint32_t echo;
	uint8_t memory[MEMORY_SIZE];
	struct io_region ports[3], irq_ports, mmio;
};

static uint64_t echo_read(void *opaque, uint64_t offset, unsigned size)
{
	struct testdev *t = opaque;

	(void)size;
	return t->echo >> 8 * (offset & 3);
}

static void echo_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct testdev *t = opaque;
	unsigned shift = 8 * (offset & 3);
	uint32_t mask = (size < 4 ? (1u << 8 * size) - 1 : ~0u) << shift;

	t->echo = (t->echo & ~mask) | ((uint32_t)value << shift & mask);
}

static uint64_t nothing_read(void *opaque, uint64_t offset, unsigned size)
{
	(void)opaque;
	(void)offset;
	(void)size;
	return 0;
}

static void nothing_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	(void)opaque;
	(void)offset;
	(void)value;
	(void)size;
}

static void irq_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct testdev *t = opaque;

	(void)size;
	irq_router_set_isa(t->router, (unsigned)offset, value & 1);
}

/* The dispatcher has checked that [offset, offset + size) is inside. */
static uint64_t memory_read(void *opaque, uint64_t offset, unsigned size)
{
	struct testdev *t = opaque;
	uint64_t v = 0;

	memcpy(&v, t->memory + offset, size);
	return v;
}

static void memory_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct testdev *t = opaque;

	memcpy(t->memory + offset, &value, size);
}

static void testdev_reset(struct device *d)
{
	struct testdev *t = (struct testdev *)d;

	t->echo = 0;
	memset(t->memory, 0, sizeof(t->memory));
}

static const struct state_field testdev_fields[] = { F_U32(struct testdev, echo),
						     F_BYTES(struct testdev, memory), F_END };
static const struct state_table testdev_state = { "testdev", 1, testdev_fields, NULL };

static void testdev_free(struct device *d)
{
	struct testdev *t = (struct testdev *)d;

	for (unsigned i = 0; i < ARRAY_SIZE(t->ports); i++)
		mem_unmap_pio(t->board->mem, &t->ports[i]);
	mem_unmap_pio(t->board->mem, &t->irq_ports);
	mem_unmap_mmio(t->board->mem, &t->mmio);
	free(t);
}

static const struct device_class testdev_class = { "testdev", testdev_reset, &testdev_state, testdev_free };

static struct io_region region(struct testdev *t, uint64_t base, uint64_t size,
			       uint64_t (*read)(void *, uint64_t, unsigned),
			       void (*write)(void *, uint64_t, uint64_t, unsigned))
{
	return (struct io_region){
		.name = "testdev", .base = base, .size = size, .read = read, .write = write, .opaque = t
	};
}

int testdev_new(struct board *b, struct irq_router *router, struct testdev **ret, struct error *err)
{
	struct testdev *t = calloc(1, sizeof(*t));

	if (!t)
		return error_set(err, ENOMEM, "no memory for the test device; free some and try again");
	t->board = b;
	t->router = router;
	t->ports[0] = region(t, ECHO_PORT, 4, echo_read, echo_write);
	t->ports[1] = region(t, FLUSH_PORT, 4, nothing_read, nothing_write);
	t->ports[2] = region(t, BYTE_PORT, 1, echo_read, echo_write);
	for (unsigned i = 0; i < ARRAY_SIZE(t->ports); i++)
		mem_map_pio(b->mem, &t->ports[i]);
	t->irq_ports = region(t, IRQ_PORT, IRQ_LINES, nothing_read, irq_write);
	mem_map_pio(b->mem, &t->irq_ports);
	t->mmio = region(t, MEMORY, MEMORY_SIZE, memory_read, memory_write);
	mem_map_mmio(b->mem, &t->mmio);
	board_add(b, &t->dev, &testdev_class, 0);
	*ret = t;
	return 0;
}
