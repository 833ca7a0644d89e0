/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a port executes commands (AHCI 1.3.1 §5, Serial ATA 3.0 §10).
 *
 * Commands without queueing go to the drive one at a time: its registers are
 * loaded from the command FIS, and each piece of data that it offers is moved at
 * once through the command's table of regions.  READ and WRITE FPDMA QUEUED do
 * not use the drive's buffer: up to 32 of them are requests to the backend whose
 * memory is the guest's.  The two kinds do not mix; a command waits until those
 * of the other kind have ended.
 *
 * After an error a port does nothing until the host has cleared ST, which is also
 * what makes it forget commands.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "dev/storage/ahci_internal.h"

/* Types of FIS (SATA 3.0 §10.3), and where they are received (AHCI §4.2.1) */
#define FIS_H2D     0x27
#define FIS_D2H     0x34
#define FIS_PIO     0x5f
#define FIS_BITS    0xa1
#define AT_PIO      0x20
#define AT_D2H      0x40
#define AT_BITS     0x58
#define FIS_IRQ     0x40
#define FIS_TO_HOST 0x20

/* Command header (§4.2.2) */
#define HEADER_SIZE     32u
#define HEADER_ATAPI    0x0020u
#define HEADER_PRDTL(h) ((h) >> 16)
#define TABLE_ACMD      0x40u
#define TABLE_PRDT      0x80u

#define FPDMA_READ  0x60
#define FPDMA_WRITE 0x61

/* ---- FISes to the host ---- */

static void send_fis(struct ahci_port *p, unsigned at, const uint8_t *fis, unsigned len)
{
	if (p->cmd & CMD_FR)
		pci_dma_write(&p->ahci->pci, GPA(p->fb + at), fis, len);
}

static void set_taskfile(struct ahci_port *p)
{
	p->tfd = (uint32_t)p->drive.error << 8 | p->drive.status;
}

static void put_registers(const struct ata_drive *d, uint8_t *fis)
{
	fis[2] = d->status;
	fis[3] = d->error;
	memcpy(fis + 4, d->lba, 3);
	fis[7] = d->device;
	memcpy(fis + 8, d->lba_hob, 3);
	fis[12] = d->count;
	fis[13] = d->count_hob;
}

void ahci_send_registers(struct ahci_port *p, uint32_t is)
{
	uint8_t fis[20] = { FIS_D2H, is ? FIS_IRQ : 0 };

	put_registers(&p->drive, fis);
	send_fis(p, AT_D2H, fis, sizeof(fis));
	set_taskfile(p);
	ahci_raise(p, is | (p->drive.status & ATA_ERR ? IS_TFE : 0));
}

/* Before each piece of programmed I/O. The last one's carries the status that the command ends with. */
static void send_pio_setup(struct ahci_port *p, bool to_host, uint8_t final_status, uint32_t len)
{
	uint8_t fis[20] = { FIS_PIO, (uint8_t)(FIS_IRQ | (to_host ? FIS_TO_HOST : 0)) };

	put_registers(&p->drive, fis);
	fis[15] = final_status;
	fis[16] = (uint8_t)len;
	fis[17] = (uint8_t)(len >> 8);
	send_fis(p, AT_PIO, fis, sizeof(fis));
	ahci_raise(p, IS_PS);
}

static void send_bits(struct ahci_port *p, uint32_t done, bool error)
{
	uint8_t status = error ? ATA_DRDY | ATA_ERR : ATA_DRDY, code = error ? ATA_UNC : 0;
	uint8_t fis[8] = { FIS_BITS, FIS_IRQ, status & 0x77, code };

	memcpy(fis + 4, &done, 4);
	send_fis(p, AT_BITS, fis, sizeof(fis));
	p->tfd = (uint32_t)code << 8 | status | ATA_DSC;
	ahci_raise(p, IS_SDB | (error ? IS_TFE : 0));
}

/* ---- commands as the host lays them out ---- */

static bool fetch(struct ahci_port *p, unsigned slot, struct ahci_command *c)
{
	struct pci_device *pci = &p->ahci->pci;
	uint32_t header[4];
	unsigned len;

	*c = (struct ahci_command){ 0 };
	if (pci_dma_read(pci, GPA(p->clb + slot * HEADER_SIZE), header, sizeof(header)) < 0)
		return false;
	c->header = header[0];
	c->table = ((uint64_t)header[3] << 32 | header[2]) & ~0x7full;
	len = (c->header & 31) * 4;
	return len >= 20 && len <= sizeof(c->fis) && pci_dma_read(pci, GPA(c->table), c->fis, len) == 0 &&
	       c->fis[0] == FIS_H2D;
}

static bool region(struct ahci_port *p, const struct ahci_command *c, uint32_t i, uint64_t *addr,
		   uint32_t *len)
{
	uint32_t prd[4];

	if (i >= HEADER_PRDTL(c->header) ||
	    pci_dma_read(&p->ahci->pci, GPA(c->table + TABLE_PRDT + 16ull * i), prd, sizeof(prd)) < 0)
		return false;
	*addr = ((uint64_t)prd[1] << 32 | prd[0]) & ~1ull;
	*len = (prd[3] & 0x3fffff) + 1;
	return true;
}

/* Moves n bytes between the drive's buffer and the next of the command's regions. What finds no region any
 * more is dropped, or zero, as drives transfer more than hosts asked for (a CD's answers). */
static bool move(struct ahci_port *p, uint8_t *data, uint32_t n, bool to_host)
{
	struct ahci_command *c = &p->command;

	while (n) {
		if (!c->prd_left) {
			if (c->prd_at >= HEADER_PRDTL(c->header)) {
				if (!to_host)
					memset(data, 0, n);
				return true;
			}
			if (!region(p, c, c->prd_at++, &c->prd_addr, &c->prd_left))
				return false;
		}
		uint32_t k = (uint32_t)min_u64(n, c->prd_left);
		int r = to_host ? pci_dma_write(&p->ahci->pci, GPA(c->prd_addr), data, k)
				: pci_dma_read(&p->ahci->pci, GPA(c->prd_addr), data, k);

		if (r < 0)
			return false;
		c->prd_addr += k;
		c->prd_left -= k;
		c->moved += k;
		data += k;
		n -= k;
	}
	return true;
}

/* ---- commands without queueing ---- */

static void end_command(struct ahci_port *p)
{
	unsigned slot = (unsigned)p->current;

	p->current = -1;
	p->ci &= ~(1u << slot);
	pci_dma_write(&p->ahci->pci, GPA(p->clb + slot * HEADER_SIZE + 4), &p->command.moved, 4);
}

static void on_done(void *opaque, struct ata_drive *d)
{
	struct ahci_port *p = opaque;

	if (p->current < 0 || p->stopping)
		return;
	p->failed = d->status & ATA_ERR;
	if (p->failed) { /* the slot stays issued, so that the host sees which one it was */
		unsigned slot = (unsigned)p->current;

		p->current = -1;
		p->cmd = (p->cmd & ~CMD_CCS) | slot << 8;
	} else {
		end_command(p);
	}
	ahci_send_registers(p, IS_DHR);
	ahci_run(p);
}

static void move_failed(struct ahci_port *p)
{
	ahci_raise(p, IS_HBF);
	ata_abort(&p->drive);
}

static void on_dma(void *opaque, struct ata_drive *d)
{
	struct ahci_port *p = opaque;

	if (p->current < 0 || p->stopping)
		return;
	if (move(p, d->buf + d->at, d->piece, !d->is_write))
		ata_piece_moved(d);
	else
		move_failed(p);
}

static void on_drq(void *opaque, struct ata_drive *d, bool irq)
{
	struct ahci_port *p = opaque;
	bool to_host = d->phase == ATA_IN;

	(void)irq;
	if (p->current < 0 || p->stopping)
		return;
	if (d->phase == ATA_PACKET) {
		send_pio_setup(p, false, ATA_BSY, sizeof(d->packet));
		if (pci_dma_read(&p->ahci->pci, GPA(p->command.table + TABLE_ACMD), d->packet,
				 sizeof(d->packet)) < 0)
			move_failed(p);
		else
			ata_packet(d);
		return;
	}
	bool last =
	    to_host && !d->is_cd && d->at + d->piece == d->filled && d->left <= (d->reply ? 0 : d->filled);
	send_pio_setup(p, to_host, last ? ATA_DRDY | ATA_DSC : ATA_BSY, d->piece);
	if (!move(p, d->buf + d->at, d->piece, to_host)) {
		move_failed(p);
		return;
	}
	ata_piece_moved(d);
	/* A programmed read ends without a word, with the state that its last setup FIS announced. */
	if (p->current >= 0 && d->phase == ATA_IDLE) {
		end_command(p);
		set_taskfile(p);
		ahci_run(p);
	}
}

static const struct ata_ops ops = { .drq = on_drq, .dma = on_dma, .done = on_done };

/* A FIS that only writes the control register: software reset has two of them (SATA 3.0 §13.1). */
static void control(struct ahci_port *p, uint8_t value)
{
	bool reset = value & 4;

	end_command(p);
	if (reset) {
		p->in_reset = true;
		p->tfd |= ATA_BSY;
	} else if (p->in_reset) {
		p->in_reset = false;
		ata_reset(&p->drive);
		ahci_send_registers(p, 0);
	}
}

static void start_command(struct ahci_port *p, unsigned slot)
{
	struct ata_drive *d = &p->drive;
	const uint8_t *fis = p->command.fis;

	p->current = (int)slot;
	if (!(fis[1] & 0x80)) {
		control(p, fis[15]);
		return;
	}
	d->feature = fis[3];
	memcpy(d->lba, fis + 4, 3);
	d->device = fis[7];
	memcpy(d->lba_hob, fis + 8, 3);
	d->feature_hob = fis[11];
	d->count = fis[12];
	d->count_hob = fis[13];
	p->tfd |= ATA_BSY;
	ata_command(d, fis[2]);
	if (p->current == (int)slot && d->phase == ATA_IDLE) { /* DEVICE RESET has no interrupt */
		end_command(p);
		set_taskfile(p);
	}
}

/* ---- queued commands ---- */

static void queued_done(struct block_req *r, int result)
{
	struct ahci_slot *s = r->opaque;
	struct ahci_port *p = s->port;
	unsigned nr = (unsigned)(s - p->slot);

	if (!s->write)
		sg_written(&s->sg, &p->ahci->pci, UINT64_MAX);
	if (!result && s->fua && s->req.op == BLOCK_WRITE && !p->stopping) {
		s->req = (struct block_req){ .op = BLOCK_FLUSH, .done = queued_done, .opaque = s };
		block_submit(p->drive.block, &s->req);
		return;
	}
	free(s->iov);
	sg_free(&s->sg);
	s->iov = NULL;
	s->busy = false;
	p->nr_queued--;
	if (p->stopping || p->failed)
		return;
	if (result) {
		p->failed = true;
		p->drive.failed_tag = (uint8_t)nr;
		p->drive.failed_lba = s->lba;
		p->drive.failed_count = s->count;
		send_bits(p, 0, true);
		return;
	}
	p->sact &= ~(1u << nr);
	send_bits(p, 1u << nr, false);
	ahci_run(p);
}

/* The whole of a queued command's memory. */
static bool gather(struct ahci_port *p, const struct ahci_command *c, struct sg *sg, uint64_t want)
{
	for (uint32_t i = 0; sg->len < want; i++) {
		uint64_t addr;
		uint32_t len;

		if (!region(p, c, i, &addr, &len) ||
		    sg_add(sg, &p->ahci->pci, GPA(addr), min_u64(len, want - sg->len)) < 0)
			return false;
	}
	return true;
}

/* The drive takes the command off the link (a register FIS without ERR), or refuses it. */
static void refuse_queued(struct ahci_port *p, struct ahci_slot *s, unsigned nr, uint8_t error)
{
	sg_free(&s->sg);
	p->failed = true;
	p->cmd = (p->cmd & ~CMD_CCS) | nr << 8;
	p->drive.failed_tag = ATA_NO_TAG;
	p->drive.status = ATA_DRDY | ATA_DSC | ATA_ERR;
	p->drive.error = error;
	ahci_send_registers(p, IS_DHR);
}

static void start_queued(struct ahci_port *p, unsigned nr, const struct ahci_command *c)
{
	struct ahci_slot *s = &p->slot[nr];
	const uint8_t *f = c->fis;
	uint64_t sectors = block_size(p->drive.block) / BLOCK_SECTOR;

	s->lba = (uint64_t)f[10] << 40 | (uint64_t)f[9] << 32 | (uint64_t)f[8] << 24 | (uint64_t)f[6] << 16 |
		 (uint64_t)f[5] << 8 | f[4];
	s->count = (uint32_t)f[11] << 8 | f[3];
	s->count = s->count ? s->count : 65536;
	s->write = f[2] == FPDMA_WRITE;
	s->fua = s->write && (f[7] & 0x80);
	s->sg = (struct sg){ 0 };
	if (f[12] >> 3 != nr || !(p->sact >> nr & 1) || s->busy ||
	    (s->write && block_readonly(p->drive.block))) {
		refuse_queued(p, s, nr, ATA_ABRT);
		return;
	}
	if (s->lba >= sectors || s->count > sectors - s->lba) {
		refuse_queued(p, s, nr, ATA_IDNF);
		return;
	}
	if (!gather(p, c, &s->sg, (uint64_t)s->count * BLOCK_SECTOR) || !(s->iov = sg_copy(&s->sg))) {
		ahci_raise(p, IS_HBF);
		refuse_queued(p, s, nr, ATA_ABRT);
		return;
	}
	p->ci &= ~(1u << nr);
	s->busy = true;
	p->nr_queued++;
	s->req = (struct block_req){ .op = s->write ? BLOCK_WRITE : BLOCK_READ,
				     .offset = s->lba * BLOCK_SECTOR,
				     .len = s->sg.len,
				     .iov = s->iov,
				     .iovcnt = s->sg.nr,
				     .done = queued_done,
				     .opaque = s };
	block_submit(p->drive.block, &s->req);
}

/* ---- the queue ---- */

/* Starts the command in a slot. False: it must wait. */
static bool start(struct ahci_port *p, unsigned slot)
{
	struct ahci_command c;

	if (!fetch(p, slot, &c)) {
		p->failed = true;
		p->cmd = (p->cmd & ~CMD_CCS) | slot << 8;
		p->tfd = (uint32_t)ATA_ABRT << 8 | ATA_DRDY | ATA_ERR;
		ahci_raise(p, IS_HBF | IS_TFE);
		return true;
	}
	bool queued =
	    !p->drive.is_cd && (c.fis[1] & 0x80) && (c.fis[2] == FPDMA_READ || c.fis[2] == FPDMA_WRITE);
	if (queued) {
		start_queued(p, slot, &c);
		return true;
	}
	if (p->nr_queued)
		return false;
	p->command = c;
	start_command(p, slot);
	return true;
}

void ahci_run(struct ahci_port *p)
{
	if (p->running || p->stopping)
		return;
	p->running = true;
	/* Each slot that is started leaves `ci`, or is the current one, or ends it all: so this ends. */
	for (unsigned slot = 0; slot < AHCI_SLOTS; slot++) {
		if (p->current >= 0 || p->failed || !(p->cmd & CMD_CR) || !ata_present(&p->drive))
			break;
		if ((p->ci >> slot & 1) && !start(p, slot))
			break;
	}
	p->running = false;
}

void ahci_stop(struct ahci_port *p)
{
	p->stopping = true;
	if (p->nr_queued)
		block_drain(p->drive.block);
	if (p->drive.in_flight || p->drive.phase != ATA_IDLE)
		ata_reset(&p->drive);
	p->stopping = false;
	p->current = -1;
	p->failed = p->in_reset = false;
	p->ci = p->sact = 0;
}

void ahci_port_init(struct ahci_port *p)
{
	p->current = -1;
	for (unsigned i = 0; i < AHCI_SLOTS; i++)
		p->slot[i].port = p;
	p->drive.queue_depth = AHCI_SLOTS;
	ata_init(&p->drive, &ops, p);
}
