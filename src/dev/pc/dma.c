/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 8237A DMA controllers as IBM's PC/AT has them (Intel 231466; PC/AT Technical
 * Reference, "DMA controllers"): channels 0 to 3 move bytes, 5 to 7 words, 4 joins
 * the two.  A page register has the upper address bits of its channel; the counter
 * does not carry into it.
 *
 * A device that has data asks dma_transfer to move it at once, so the request lines
 * and the request register do nothing, and a transfer takes no time.
 */
#include "dev/pc/dma.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

/* Registers of a controller beyond the channels' */
enum {
	REG_COMMAND = 8, /* read: status */
	REG_REQUEST,
	REG_MASK,
	REG_MODE,
	REG_CLEAR_POINTER,
	REG_MASTER_CLEAR,
	REG_CLEAR_MASK,
	REG_ALL_MASKS
};
#define COMMAND_OFF 0x04
#define MODE_TYPE   0x0c
#define MODE_WRITE  0x04 /* to memory */
#define MODE_READ   0x08
#define MODE_AUTO   0x10
#define MODE_DOWN   0x20

struct controller {
	struct dma *dma;
	unsigned shift; /* 1: words, and registers at every second port */
	struct io_region ports;
	struct {
		uint16_t base_addr, base_count, addr, count;
		uint8_t mode;
		void (*unmasked)(void *opaque);
		void *opaque;
	} ch[4];
	uint8_t command, status, mask;
	bool high; /* the next byte of an address or count is the high one */
};

struct dma {
	struct device dev;
	struct board *board;
	struct controller chip[2];
	struct io_region page_ports;
	uint8_t pages[16]; /* by port; those without a channel are scratch */
};

/* Port (80 + n) of a channel's page register. */
static const uint8_t page_of[DMA_CHANNELS] = { 7, 3, 1, 2, 15, 11, 9, 10 };

/* ---- for devices ---- */

bool dma_ready(const struct dma *d, unsigned channel)
{
	const struct controller *c = &d->chip[channel / 4];

	return !(c->command & COMMAND_OFF) && !(c->mask >> (channel & 3) & 1);
}

/* Where the channel points; how many bytes from there on are in one piece. */
static uint64_t place(const struct dma *d, unsigned channel)
{
	const struct controller *c = &d->chip[channel / 4];
	uint64_t page = d->pages[page_of[channel]];
	uint64_t addr = c->ch[channel & 3].addr;

	return c->shift ? (page & 0xfe) << 16 | addr << 1 : page << 16 | addr;
}

static void move(struct dma *d, unsigned channel, bool to_memory, uint8_t *buf, uint32_t len)
{
	uint8_t type = d->chip[channel / 4].ch[channel & 3].mode & MODE_TYPE;
	gpa_t gpa = GPA(place(d, channel));

	if (to_memory && type == MODE_WRITE)
		mem_write(d->board->mem, gpa, buf, len);
	else if (!to_memory && (type != MODE_READ || mem_read(d->board->mem, gpa, buf, len) < 0))
		memset(buf, 0xff, len);
}

uint32_t dma_transfer(struct dma *d, unsigned channel, bool to_memory, uint8_t *buf, uint32_t len, bool *tc)
{
	struct controller *c = &d->chip[channel / 4];
	unsigned n = channel & 3, unit = 1u << c->shift;
	uint32_t done = 0;

	*tc = false;
	while (len - done >= unit && dma_ready(d, channel) && !*tc) {
		bool down = c->ch[n].mode & MODE_DOWN;
		/* Units until the count or the address wraps. */
		uint32_t k = down ? 1 : 0x10000u - c->ch[n].addr;

		k = (uint32_t)min_u64(min_u64(k, c->ch[n].count + 1u), (len - done) / unit);
		move(d, channel, to_memory, buf + done, k * unit);
		done += k * unit;
		c->ch[n].addr = (uint16_t)(down ? c->ch[n].addr - k : c->ch[n].addr + k);
		*tc = k == c->ch[n].count + 1u;
		c->ch[n].count = (uint16_t)(c->ch[n].count - k);
	}
	if (*tc) {
		c->status |= (uint8_t)(1u << n);
		if (c->ch[n].mode & MODE_AUTO) {
			c->ch[n].addr = c->ch[n].base_addr;
			c->ch[n].count = c->ch[n].base_count;
		} else {
			c->mask |= (uint8_t)(1u << n);
		}
	}
	return done;
}

void dma_set_listener(struct dma *d, unsigned channel, void (*fn)(void *opaque), void *opaque)
{
	d->chip[channel / 4].ch[channel & 3].unmasked = fn;
	d->chip[channel / 4].ch[channel & 3].opaque = opaque;
}

/* ---- registers ---- */

static void set_mask(struct controller *c, uint8_t mask)
{
	uint8_t opened = c->mask & ~mask;

	c->mask = mask & 15;
	for (unsigned n = 0; n < 4; n++)
		if ((opened >> n & 1) && c->ch[n].unmasked)
			c->ch[n].unmasked(c->ch[n].opaque);
}

static void master_clear(struct controller *c)
{
	c->command = c->status = 0;
	c->high = false;
	c->mask = 15;
}

static uint64_t chip_read(void *opaque, uint64_t offset, unsigned size)
{
	struct controller *c = opaque;
	unsigned reg = (unsigned)offset >> c->shift, n = reg / 2 & 3;
	uint8_t v = 0;

	(void)size;
	if (reg < 8) {
		uint16_t word = reg & 1 ? c->ch[n].count : c->ch[n].addr;

		v = (uint8_t)(c->high ? word >> 8 : word);
		c->high = !c->high;
	} else if (reg == REG_COMMAND) {
		v = c->status;
		c->status &= 0xf0;
	} else if (reg == REG_ALL_MASKS) {
		v = c->mask | 0xf0;
	}
	return v;
}

static void write_half(uint16_t *p, uint8_t v, bool high)
{
	*p = (uint16_t)(high ? (*p & 0xff) | v << 8 : (*p & 0xff00) | v);
}

static void chip_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct controller *c = opaque;
	unsigned reg = (unsigned)offset >> c->shift, n = reg / 2 & 3;
	uint8_t v = (uint8_t)value;

	(void)size;
	if (reg < 8) {
		write_half(reg & 1 ? &c->ch[n].base_count : &c->ch[n].base_addr, v, c->high);
		write_half(reg & 1 ? &c->ch[n].count : &c->ch[n].addr, v, c->high);
		c->high = !c->high;
		return;
	}
	switch (reg) {
	case REG_COMMAND:
		c->command = v;
		break;
	case REG_MASK:
		set_mask(c, (uint8_t)(v & 4 ? c->mask | 1u << (v & 3) : c->mask & ~(1u << (v & 3))));
		break;
	case REG_MODE:
		c->ch[v & 3].mode = v & ~3;
		break;
	case REG_CLEAR_POINTER:
		c->high = false;
		break;
	case REG_MASTER_CLEAR:
		master_clear(c);
		break;
	case REG_CLEAR_MASK:
		set_mask(c, 0);
		break;
	case REG_ALL_MASKS:
		set_mask(c, v & 15);
		break;
	}
}

static uint64_t page_read(void *opaque, uint64_t offset, unsigned size)
{
	(void)size;
	return ((struct dma *)opaque)->pages[(offset + 1) & 15];
}

static void page_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	(void)size;
	((struct dma *)opaque)->pages[(offset + 1) & 15] = (uint8_t)value;
}

/* ---- life ---- */

static void dma_reset(struct device *dev)
{
	struct dma *d = (struct dma *)dev;

	memset(d->pages, 0, sizeof(d->pages));
	for (unsigned i = 0; i < 2; i++) {
		master_clear(&d->chip[i]);
		for (unsigned n = 0; n < 4; n++) {
			d->chip[i].ch[n].mode = 0;
			d->chip[i].ch[n].addr = d->chip[i].ch[n].base_addr = 0;
			d->chip[i].ch[n].count = d->chip[i].ch[n].base_count = 0;
		}
	}
}

static int dma_loaded(void *obj, struct error *err)
{
	struct dma *d = obj;

	(void)err;
	d->chip[0].mask &= 15;
	d->chip[1].mask &= 15;
	return 0;
}

#define CH_FIELDS(i, n)                                                                                      \
	F_U16(struct dma, chip[i].ch[n].base_addr), F_U16(struct dma, chip[i].ch[n].base_count),             \
	    F_U16(struct dma, chip[i].ch[n].addr), F_U16(struct dma, chip[i].ch[n].count),                   \
	    F_U8(struct dma, chip[i].ch[n].mode)
#define CHIP_FIELDS(i)                                                                                       \
	F_U8(struct dma, chip[i].command), F_U8(struct dma, chip[i].status), F_U8(struct dma, chip[i].mask), \
	    F_BOOL(struct dma, chip[i].high), CH_FIELDS(i, 0), CH_FIELDS(i, 1), CH_FIELDS(i, 2),             \
	    CH_FIELDS(i, 3)

static const struct state_field dma_fields[] = { CHIP_FIELDS(0), CHIP_FIELDS(1), F_BYTES(struct dma, pages),
						 F_END };
static const struct state_table dma_state = { "dma", 1, dma_fields, dma_loaded };

static void dma_free(struct device *dev)
{
	struct dma *d = (struct dma *)dev;

	mem_unmap_pio(d->board->mem, &d->chip[0].ports);
	mem_unmap_pio(d->board->mem, &d->chip[1].ports);
	mem_unmap_pio(d->board->mem, &d->page_ports);
	free(d);
}

static const struct device_class dma_class = { "dma", dma_reset, &dma_state, dma_free };

int dma_new(struct board *b, struct dma **ret, struct error *err)
{
	struct dma *d = calloc(1, sizeof(*d));

	if (!d)
		return error_set(err, ENOMEM, "no memory for the DMA controllers; free some and try again");
	d->board = b;
	for (unsigned i = 0; i < 2; i++) {
		struct controller *c = &d->chip[i];

		c->dma = d;
		c->shift = i;
		c->ports = (struct io_region){ .name = "dma",
					       .base = i ? 0xc0 : 0x00,
					       .size = 16u << i,
					       .read = chip_read,
					       .write = chip_write,
					       .opaque = c,
					       .max_size = 1 };
		mem_map_pio(b->mem, &c->ports);
	}
	/* Port 80 is left out: systems write there to wait a little, or to say how far they are. */
	d->page_ports = (struct io_region){ .name = "dma-page",
					    .base = 0x81,
					    .size = 15,
					    .read = page_read,
					    .write = page_write,
					    .opaque = d,
					    .max_size = 1 };
	mem_map_pio(b->mem, &d->page_ports);
	dma_reset(&d->dev);
	board_add(b, &d->dev, &dma_class, 0);
	*ret = d;
	return 0;
}
