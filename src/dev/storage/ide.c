/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 82371SB PIIX3 IDE function (290550 §2.3; "Programming Interface for Bus Master
 * IDE Controller" 1.0), in compatibility mode: 1f0/3f6/IRQ 14 and 170/376/IRQ 15.
 *
 * A channel has one set of registers that both drives hear; the device register
 * says which of them answers.  Reading the status register takes the interrupt
 * back.  DMA moves a drive's piece as soon as the drive has one and the host has
 * set the start bit, whichever comes last.
 */
#include "dev/storage/ide.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "dev/pci/pci.h"

/* Command block registers */
enum { REG_DATA, REG_ERROR, REG_COUNT, REG_LBA0, REG_LBA1, REG_LBA2, REG_DEVICE, REG_STATUS };

#define CONTROL_NIEN 0x02
#define CONTROL_SRST 0x04
#define CONTROL_HOB  0x80

/* Bus master registers, 8 bytes a channel */
#define BM_COMMAND   0
#define BM_STATUS    2
#define BM_PRDT      4
#define BM_START     0x01
#define BM_TO_MEMORY 0x08
#define BMS_ACTIVE   0x01
#define BMS_ERROR    0x02
#define BMS_IRQ      0x04
#define BMS_DRIVES   0x60 /* software's notes: drives can do DMA */
#define PRD_END      0x8000
#define MAX_PRDS     8192 /* a table of 64 KiB */

/* PIIX3 configuration */
#define IDETIM    0x40 /* two words */
#define IDETIM_ON 0x8000

struct channel {
	struct ide *ide;
	unsigned nr;
	struct irq_line irq;
	struct ata_drive drive[2];
	uint8_t selected, control;
	bool irq_up;
	uint8_t bm_command, bm_status;
	uint32_t prdt, prd_at;       /* table; how many of its entries have been used up */
	uint32_t prd_addr, prd_left; /* of the current entry */
	bool prd_last;
	bool dma_ready; /* the drive has a piece */
	struct io_region ports, control_port;
};

struct ide {
	struct pci_device pci;
	struct board *board;
	struct channel channel[2];
	struct io_region bm;
};

/* ---- interrupts ---- */

static void update_irq(struct channel *c)
{
	irq_set(&c->irq, c->irq_up && !(c->control & CONTROL_NIEN));
}

static void raise_irq(struct channel *c)
{
	c->irq_up = true;
	c->bm_status |= BMS_IRQ;
	update_irq(c);
}

static struct ata_drive *selected(struct channel *c)
{
	return &c->drive[c->selected];
}

/* ---- DMA ---- */

/* Makes the next entry of the table current; false: there is none. */
static bool next_prd(struct channel *c)
{
	uint32_t entry[2];

	if (c->prd_last || c->prd_at >= MAX_PRDS ||
	    pci_dma_read(&c->ide->pci, GPA((uint64_t)c->prdt + 8ull * c->prd_at), entry, sizeof(entry)) < 0)
		return false;
	c->prd_at++;
	c->prd_addr = entry[0] & ~1u;
	c->prd_left = entry[1] & 0xfffe;
	c->prd_left = c->prd_left ? c->prd_left : 0x10000;
	c->prd_last = entry[1] >> 16 & PRD_END;
	return true;
}

/* Moves n bytes between the drive's buffer and memory. */
static bool move(struct channel *c, uint8_t *p, uint32_t n, bool to_memory)
{
	while (n) {
		if (!c->prd_left && !next_prd(c))
			return false;
		uint32_t k = (uint32_t)min_u64(n, c->prd_left);
		int r = to_memory ? pci_dma_write(&c->ide->pci, GPA(c->prd_addr), p, k)
				  : pci_dma_read(&c->ide->pci, GPA(c->prd_addr), p, k);
		if (r < 0)
			return false;
		c->prd_addr += k;
		c->prd_left -= k;
		p += k;
		n -= k;
	}
	return true;
}

static void run_dma(struct channel *c)
{
	struct ata_drive *d = selected(c);

	if (!c->dma_ready || !(c->bm_status & BMS_ACTIVE))
		return;
	c->dma_ready = false;
	if (move(c, d->buf + d->at, d->piece, !d->is_write)) {
		ata_piece_moved(d);
		return;
	}
	c->bm_status = (uint8_t)((c->bm_status & ~BMS_ACTIVE) | BMS_ERROR);
	ata_abort(d);
}

/* ---- what drives say ---- */

static void on_drq(void *opaque, struct ata_drive *d, bool irq)
{
	(void)d;
	if (irq)
		raise_irq(opaque);
}

static void on_dma(void *opaque, struct ata_drive *d)
{
	struct channel *c = opaque;

	if (d != selected(c))
		return;
	c->dma_ready = true;
	run_dma(c);
}

static void on_done(void *opaque, struct ata_drive *d)
{
	struct channel *c = opaque;

	/* Active goes when the last entry is used up; then "interrupt" alone says that all is well. */
	if (d->is_dma && c->prd_last && !c->prd_left)
		c->bm_status &= (uint8_t)~BMS_ACTIVE;
	raise_irq(c);
}

static const struct ata_ops ops = { .drq = on_drq, .dma = on_dma, .done = on_done };

/* ---- data port ---- */

static bool data_phase(const struct ata_drive *d, bool in)
{
	if (d->is_dma)
		return false;
	return in ? d->phase == ATA_IN : d->phase == ATA_OUT || d->phase == ATA_PACKET;
}

static uint64_t data_read(struct ata_drive *d, unsigned size)
{
	uint64_t v = 0;

	if (!data_phase(d, true))
		return 0;
	for (unsigned i = 0; i < size && d->pos < d->piece; i++)
		v |= (uint64_t)d->buf[d->at + d->pos++] << (8 * i);
	if (d->pos == d->piece)
		ata_piece_moved(d);
	return v;
}

static void data_write(struct ata_drive *d, uint64_t value, unsigned size)
{
	if (!data_phase(d, false))
		return;
	for (unsigned i = 0; i < size && d->pos < d->piece; i++) {
		uint8_t v = (uint8_t)(value >> (8 * i));

		if (d->phase == ATA_PACKET)
			d->packet[d->pos++] = v;
		else
			d->buf[d->at + d->pos++] = v;
	}
	if (d->pos < d->piece)
		return;
	if (d->phase == ATA_PACKET)
		ata_packet(d);
	else
		ata_piece_moved(d);
}

/* ---- registers ---- */

static uint8_t read_status(const struct channel *c)
{
	const struct ata_drive *d = &c->drive[c->selected];

	if (c->control & CONTROL_SRST)
		return ATA_BSY;
	/* Nobody drives the bus, or a lone master answers for the missing slave with zeros. */
	if (!ata_present(d))
		return 0;
	return d->status;
}

static uint8_t register_read(struct channel *c, unsigned reg)
{
	const struct ata_drive *d = selected(c);
	bool hob = c->control & CONTROL_HOB;

	if (!ata_present(&c->drive[0]) && !ata_present(&c->drive[1]))
		return reg == REG_STATUS ? 0 : 0xff;
	switch (reg) {
	case REG_ERROR:
		return ata_present(d) ? d->error : 0;
	case REG_COUNT:
		return hob ? d->count_hob : d->count;
	case REG_LBA0:
	case REG_LBA1:
	case REG_LBA2:
		if (!ata_present(d))
			return 0;
		return hob ? d->lba_hob[reg - REG_LBA0] : d->lba[reg - REG_LBA0];
	case REG_DEVICE:
		return (uint8_t)(d->device | 0xa0 | (c->selected ? 0x10 : 0));
	default:
		c->irq_up = false;
		update_irq(c);
		return read_status(c);
	}
}

static uint64_t ports_read(void *opaque, uint64_t offset, unsigned size)
{
	struct channel *c = opaque;
	uint64_t v = 0;

	if (offset == REG_DATA)
		return data_read(selected(c), size);
	for (unsigned i = 0; i < size; i++)
		v |= (uint64_t)register_read(c, (unsigned)offset + i) << (8 * i);
	return v;
}

/* Both drives hear what is written; the old value becomes the high-order byte of a 48-bit command. */
static void register_write(struct channel *c, unsigned reg, uint8_t v)
{
	if (reg == REG_STATUS) {
		c->irq_up = false;
		update_irq(c);
		if (v == 0x90) { /* the diagnostic is for both; the master answers */
			c->selected = 0;
			if (ata_present(&c->drive[0]))
				ata_command(&c->drive[0], v);
		} else if (ata_present(selected(c))) {
			ata_command(selected(c), v);
		}
		return;
	}
	c->control &= (uint8_t)~CONTROL_HOB;
	for (unsigned i = 0; i < 2; i++) {
		struct ata_drive *d = &c->drive[i];

		switch (reg) {
		case REG_ERROR:
			d->feature_hob = d->feature;
			d->feature = v;
			break;
		case REG_COUNT:
			d->count_hob = d->count;
			d->count = v;
			break;
		case REG_DEVICE:
			d->device = v;
			break;
		default:
			d->lba_hob[reg - REG_LBA0] = d->lba[reg - REG_LBA0];
			d->lba[reg - REG_LBA0] = v;
			break;
		}
	}
	if (reg == REG_DEVICE)
		c->selected = v >> 4 & 1;
}

static void ports_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct channel *c = opaque;

	if (offset == REG_DATA) {
		data_write(selected(c), value, size);
		return;
	}
	/* A busy drive's registers are not to be written. */
	if (selected(c)->phase == ATA_BUSY && offset != REG_STATUS)
		return;
	for (unsigned i = 0; i < size; i++)
		register_write(c, (unsigned)offset + i, (uint8_t)(value >> (8 * i)));
}

static void reset_drives(struct channel *c)
{
	for (unsigned i = 0; i < 2; i++)
		ata_reset(&c->drive[i]);
	c->selected = 0;
	c->dma_ready = c->irq_up = false;
	update_irq(c);
}

static uint64_t control_read(void *opaque, uint64_t offset, unsigned size)
{
	(void)offset;
	(void)size;
	return read_status(opaque);
}

static void control_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct channel *c = opaque;
	uint8_t old = c->control;

	(void)offset;
	(void)size;
	c->control = (uint8_t)value;
	if (!(old & CONTROL_SRST) && (value & CONTROL_SRST))
		reset_drives(c);
	update_irq(c);
}

/* ---- bus master registers ---- */

static uint64_t bm_read(void *opaque, uint64_t offset, unsigned size)
{
	struct ide *ide = opaque;
	uint8_t bytes[16] = { 0 };
	uint64_t v = 0;

	for (unsigned i = 0; i < 2; i++) {
		const struct channel *c = &ide->channel[i];
		uint8_t *p = bytes + 8 * i;

		p[BM_COMMAND] = c->bm_command;
		p[BM_STATUS] = c->bm_status;
		memcpy(p + BM_PRDT, &c->prdt, 4);
	}
	memcpy(&v, bytes + offset, size);
	return v;
}

static void write_command(struct channel *c, uint8_t v)
{
	bool started = !(c->bm_command & BM_START) && (v & BM_START);

	c->bm_command = v & (BM_START | BM_TO_MEMORY);
	if (started) {
		c->prd_at = c->prd_left = 0;
		c->prd_last = false;
		c->bm_status |= BMS_ACTIVE;
		run_dma(c);
	} else if (!(v & BM_START)) {
		c->bm_status &= (uint8_t)~BMS_ACTIVE;
	}
}

static void bm_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct ide *ide = opaque;

	for (unsigned i = 0; i < size; i++) {
		struct channel *c = &ide->channel[(offset + i) / 8];
		unsigned reg = (offset + i) % 8;
		uint8_t v = (uint8_t)(value >> (8 * i));

		if (reg == BM_COMMAND)
			write_command(c, v);
		else if (reg == BM_STATUS)
			c->bm_status = (uint8_t)((c->bm_status & ~(v & (BMS_ERROR | BMS_IRQ)) & ~BMS_DRIVES) |
						 (v & BMS_DRIVES));
		else if (reg >= BM_PRDT)
			c->prdt = (c->prdt & ~(0xffu << 8 * (reg - BM_PRDT))) | (uint32_t)v
										    << 8 * (reg - BM_PRDT);
		c->prdt &= ~3u;
	}
}

/* ---- life ---- */

static void ide_reset(struct device *dev)
{
	struct ide *ide = (struct ide *)dev;

	pci_device_reset(&ide->pci);
	for (unsigned i = 0; i < 2; i++) {
		struct channel *c = &ide->channel[i];

		c->control = c->bm_command = c->bm_status = 0;
		c->prdt = c->prd_at = c->prd_addr = c->prd_left = 0;
		c->prd_last = false;
		reset_drives(c);
	}
}

static int ide_loaded(void *obj, struct error *err)
{
	struct ide *ide = obj;

	for (unsigned i = 0; i < 2; i++) {
		const struct channel *c = &ide->channel[i];

		if (c->selected > 1 || !ata_state_ok(&c->drive[0]) || !ata_state_ok(&c->drive[1]) ||
		    c->prd_left > 0x10000)
			return error_set(
			    err, EINVAL,
			    "the saved state of the IDE controller is impossible; it is damaged");
	}
	return pci_device_loaded(&ide->pci, err);
}

#define CHANNEL_FIELDS(n)                                                                                    \
	F_U8(struct ide, channel[n].selected), F_U8(struct ide, channel[n].control),                         \
	    F_BOOL(struct ide, channel[n].irq_up), F_U8(struct ide, channel[n].bm_command),                  \
	    F_U8(struct ide, channel[n].bm_status), F_U32(struct ide, channel[n].prdt),                      \
	    F_U32(struct ide, channel[n].prd_at), F_U32(struct ide, channel[n].prd_addr),                    \
	    F_U32(struct ide, channel[n].prd_left), F_BOOL(struct ide, channel[n].prd_last),                 \
	    F_BOOL(struct ide, channel[n].dma_ready), ATA_FIELDS(struct ide, channel[n].drive[0]),           \
	    ATA_FIELDS(struct ide, channel[n].drive[1])

static const struct state_field ide_fields[] = { PCI_DEVICE_FIELDS(struct ide, pci), CHANNEL_FIELDS(0),
						 CHANNEL_FIELDS(1), F_END };
static const struct state_table ide_state = { "ide", 1, ide_fields, ide_loaded };

static void ide_free(struct device *dev)
{
	struct ide *ide = (struct ide *)dev;

	for (unsigned i = 0; i < 2; i++) {
		mem_unmap_pio(ide->board->mem, &ide->channel[i].ports);
		mem_unmap_pio(ide->board->mem, &ide->channel[i].control_port);
	}
	pci_device_fini(&ide->pci);
	free(ide);
}

static const struct device_class ide_class = { "ide", ide_reset, &ide_state, ide_free };

static void channel_init(struct ide *ide, unsigned nr, struct irq_line irq)
{
	struct channel *c = &ide->channel[nr];

	c->ide = ide;
	c->nr = nr;
	c->irq = irq;
	for (unsigned i = 0; i < 2; i++)
		ata_init(&c->drive[i], &ops, c);
	c->ports = (struct io_region){ .name = "ide",
				       .base = nr ? 0x170 : 0x1f0,
				       .size = 8,
				       .read = ports_read,
				       .write = ports_write,
				       .opaque = c };
	c->control_port = (struct io_region){ .name = "ide-control",
					      .base = nr ? 0x376 : 0x3f6,
					      .size = 1,
					      .read = control_read,
					      .write = control_write,
					      .opaque = c,
					      .max_size = 1 };
	mem_map_pio(ide->board->mem, &c->ports);
	mem_map_pio(ide->board->mem, &c->control_port);
}

int ide_new(struct board *b, struct pci_bus *bus, struct irq_line irq14, struct irq_line irq15,
	    struct ide **ret, struct error *err)
{
	static const struct pci_ids ids = { .vendor = 0x8086, .device = 0x7010, .class_code = 0x010180 };
	struct ide *ide = calloc(1, sizeof(*ide));

	if (!ide)
		return error_set(err, ENOMEM, "no memory for the IDE controller; free some and try again");
	ide->board = b;
	int r = pci_device_init(&ide->pci, bus, PCI_DEVFN(1, 1), &ids, &ide_class, 0, err);
	if (r < 0) {
		free(ide);
		return r;
	}
	ide->bm = (struct io_region){ .name = "ide-bm", .read = bm_read, .write = bm_write, .opaque = ide };
	pci_add_bar(&ide->pci, 4, PCI_BAR_IO, 16, &ide->bm);
	/* Timing: kept and read back; both channels begin switched on. */
	memset(&ide->pci.wmask[IDETIM], 0xff, 5);
	for (unsigned i = 0; i < 2; i++)
		ide->pci.preset[IDETIM + 2 * i + 1] = IDETIM_ON >> 8;
	channel_init(ide, 0, irq14);
	channel_init(ide, 1, irq15);
	pci_device_reset(&ide->pci);
	*ret = ide;
	return 0;
}

static struct ata_drive *drive(struct ide *ide, unsigned nr)
{
	return &ide->channel[nr / 2].drive[nr % 2];
}

struct ata_drive *ide_add_disk(struct ide *ide, unsigned nr, struct block *block, const char *serial)
{
	struct ata_drive *d = drive(ide, nr);

	d->block = block;
	strncpy(d->serial, serial, sizeof(d->serial) - 1);
	ata_reset(d);
	return d;
}

struct ata_drive *ide_add_cd(struct ide *ide, unsigned nr, struct block *block, const char *serial)
{
	struct ata_drive *d = drive(ide, nr);

	d->is_cd = true;
	d->cd.block = block;
	strncpy(d->serial, serial, sizeof(d->serial) - 1);
	ata_reset(d);
	return d;
}
