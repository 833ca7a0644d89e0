/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 82077AA floppy disk controller in AT mode (Intel 290166), with two drives whose
 * diskettes have 512-byte sectors in standard formats.
 *
 *	COMMAND (bytes come in) -> EXECUTION (data) -> RESULT (bytes go out) -> COMMAND
 *
 * Here are registers, reset and the commands that move heads and ask questions;
 * those that touch the medium are in fdc_data.c.  Heads move in no time, and
 * motors need not turn.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "dev/storage/fdc_internal.h"

/* Registers */
enum { SRA, SRB, DOR, TDR, MSR, FIFO };
#define DOR_SELECT 0x03
#define DOR_RUN    0x04 /* not in reset */
#define DOR_DMA    0x08 /* interrupt and DMA requests reach the bus */
#define DSR_RESET  0x80
#define MSR_RQM    0x80
#define MSR_DIO    0x40 /* to the host */
#define MSR_NDMA   0x20
#define MSR_BUSY   0x10
#define DIR_CHANGE 0x80

static const struct fdc_format formats[] = {
	{ 2880, 80, 18, 2, 0, 4 },
	{ 5760, 80, 36, 2, 3, 5 },
	{ 2400, 80, 15, 2, 0, 2 },
	{ 1440, 80, 9, 2, 2, 3 },
	{ 1280, 80, 8, 2, 2, 3 },
	/* More on the same diskette: DMF, and what Linux's superformat makes. */
	{ 3360, 80, 21, 2, 0, 4 },
	{ 3444, 82, 21, 2, 0, 4 },
	{ 2952, 82, 18, 2, 0, 4 },
	{ 2988, 83, 18, 2, 0, 4 },
	{ 3200, 80, 20, 2, 0, 4 },
	{ 3486, 83, 21, 2, 0, 4 },
	{ 3520, 80, 22, 2, 0, 4 },
	{ 3680, 80, 23, 2, 0, 4 },
	{ 3840, 80, 24, 2, 0, 4 },
	{ 6240, 80, 39, 2, 3, 5 },
	{ 6400, 80, 40, 2, 3, 5 },
	{ 7040, 80, 44, 2, 3, 5 },
	{ 7680, 80, 48, 2, 3, 5 },
	{ 720, 40, 9, 2, 2, 1 },
	/* Of the first PCs, in a drive for 360K. */
	{ 640, 40, 8, 2, 2, 1 },
	{ 360, 40, 9, 1, 2, 1 },
	{ 320, 40, 8, 1, 2, 1 },
};

/* ---- interrupts, results ---- */

static void update_irq(struct fdc *f)
{
	irq_set(&f->irq, f->irq_up && (f->dor & DOR_DMA));
}

void fdc_set_irq(struct fdc *f, bool up)
{
	f->irq_up = up;
	update_irq(f);
}

static void to_command(struct fdc *f)
{
	f->phase = COMMAND;
	f->len = f->result_len = f->result_at = 0;
}

void fdc_give(struct fdc *f, const uint8_t *bytes, unsigned n)
{
	memcpy(f->result, bytes, n);
	f->result_len = (uint8_t)n;
	f->result_at = 0;
	f->phase = RESULT;
}

static void invalid(struct fdc *f)
{
	fdc_give(f, (uint8_t[]){ ST0_INVALID }, 1);
}

/* ---- commands without data ---- */

static void seek_to(struct fdc *f, unsigned nr, uint8_t cylinder)
{
	struct fdc_drive *d = fdc_drive(f, nr);
	uint8_t st0 = (uint8_t)(ST0_SEEK_END | (f->command[1] & 7));

	if (d) {
		d->cylinder = cylinder;
		if (d->block)
			d->changed = false;
	} else if (fdc_opcode(f) == RECALIBRATE) {
		st0 |= ST0_ABNORMAL | ST0_NO_TRACK;
	}
	f->st0[nr] = st0;
	f->pending = (uint8_t)((f->pending & ~(1u << nr)) | 0x10u << nr);
	to_command(f);
	fdc_set_irq(f, true);
}

static void seek(struct fdc *f)
{
	struct fdc_drive *d = fdc_drive(f, fdc_selected(f));
	int target = f->command[2];

	if (f->command[0] & 0x80) /* relative */
		target = (d ? d->cylinder : 0) + (f->command[0] & 0x40 ? target : -target);
	target = target < 0 ? 0 : target > 255 ? 255 : target;
	seek_to(f, fdc_selected(f), (uint8_t)target);
}

static void sense_interrupt(struct fdc *f)
{
	for (unsigned nr = 0; nr < 4; nr++) {
		struct fdc_drive *d = fdc_drive(f, nr);

		if (!(f->pending & 0x11u << nr))
			continue;
		f->pending &= (uint8_t) ~(0x11u << nr);
		fdc_set_irq(f, f->pending & 0xf0); /* another drive has sought too */
		fdc_give(f, (uint8_t[]){ f->st0[nr], d ? d->cylinder : 0 }, 2);
		return;
	}
	invalid(f);
}

static void sense_drive(struct fdc *f)
{
	struct fdc_drive *d = fdc_drive(f, fdc_selected(f));
	uint8_t st3 = (uint8_t)(ST3_TWO_SIDE | ST3_READY | (f->command[1] & 7));

	if (d && !d->cylinder)
		st3 |= ST3_TRACK0;
	if (d && d->block && block_readonly(d->block))
		st3 |= ST3_PROTECT;
	fdc_give(f, &st3, 1);
}

static void dump_registers(struct fdc *f)
{
	uint8_t r[10] = { f->drive[0].cylinder,
			  f->drive[1].cylinder,
			  0,
			  0,
			  f->specify[0],
			  f->specify[1],
			  f->command[6],
			  (uint8_t)(f->lock << 7 | (f->perpendicular & 0x7f)),
			  f->config,
			  f->pretrk };

	fdc_give(f, r, sizeof(r));
}

/* The length of a command by its first byte. */
static unsigned command_length(uint8_t first)
{
	switch (first & 31) {
	case READ_TRACK:
	case WRITE_DATA:
	case READ_DATA:
	case WRITE_DELETED:
	case READ_DELETED:
	case VERIFY:
		return 9;
	case FORMAT_TRACK:
		return 6;
	case CONFIGURE:
		return 4;
	case SPECIFY:
	case SEEK:
		return 3;
	case SENSE_DRIVE:
	case RECALIBRATE:
	case READ_ID:
	case PERPENDICULAR:
		return 2;
	default:
		return 1;
	}
}

static void execute(struct fdc *f)
{
	switch (fdc_opcode(f)) {
	case READ_TRACK:
	case WRITE_DATA:
	case READ_DATA:
	case WRITE_DELETED:
	case READ_DELETED:
	case VERIFY:
		fdc_begin_data(f);
		break;
	case FORMAT_TRACK:
		fdc_begin_format(f);
		break;
	case READ_ID:
		fdc_read_id(f);
		break;
	case SPECIFY:
		memcpy(f->specify, f->command + 1, 2);
		to_command(f);
		break;
	case CONFIGURE:
		f->config = f->command[2];
		f->pretrk = f->command[3];
		to_command(f);
		break;
	case PERPENDICULAR:
		f->perpendicular = f->command[1];
		to_command(f);
		break;
	case RECALIBRATE:
		seek_to(f, fdc_selected(f), 0);
		break;
	case SEEK:
		seek(f);
		break;
	case SENSE_INTERRUPT:
		sense_interrupt(f);
		break;
	case SENSE_DRIVE:
		sense_drive(f);
		break;
	case DUMPREG:
		dump_registers(f);
		break;
	case VERSION:
		fdc_give(f, (uint8_t[]){ 0x90 }, 1);
		break;
	case LOCK:
		f->lock = f->command[0] & 0x80;
		fdc_give(f, (uint8_t[]){ (uint8_t)(f->lock << 4) }, 1);
		break;
	default:
		invalid(f);
		break;
	}
}

/* ---- reset ---- */

/* hard: by the pin, which also undoes what LOCK keeps. */
static void reset(struct fdc *f, bool hard)
{
	if (f->busy) {
		f->stopping = true;
		block_drain(f->drive[fdc_selected(f)].block);
		f->stopping = false;
		f->busy = false;
	}
	if (hard)
		f->lock = false;
	if (!f->lock) {
		f->config = 0x20; /* no FIFO; drives are polled */
		f->pretrk = 0;
	}
	to_command(f);
	memset(f->command, 0, sizeof(f->command));
	f->filled = f->at = 0;
	f->writing = false;
	f->perpendicular = 0;
	f->pending = 0;
	fdc_set_irq(f, false);
}

/*
 * Out of reset: all four drives are polled, and found changed. With polling switched off (and locked) the
 * manual promises no interrupt, but drivers that switch it off, Linux's too, wait for one.
 */
static void come_out(struct fdc *f)
{
	for (unsigned i = 0; i < 4; i++)
		f->st0[i] = (uint8_t)(ST0_POLLING | i);
	f->pending = 15;
	fdc_set_irq(f, true);
}

static void write_dor(struct fdc *f, uint8_t v)
{
	uint8_t old = f->dor;

	f->dor = v;
	if ((old & DOR_RUN) && !(v & DOR_RUN))
		reset(f, false);
	else if (!(old & DOR_RUN) && (v & DOR_RUN))
		come_out(f);
	update_irq(f);
}

/* ---- registers ---- */

static uint8_t read_msr(const struct fdc *f)
{
	uint8_t v = 0;

	if (!(f->dor & DOR_RUN))
		return 0;
	for (unsigned i = 0; i < 4; i++) /* drives that have sought are busy until that was asked for */
		v |= (uint8_t)((f->pending >> (4 + i) & 1) << i);
	if (f->phase == EXECUTION) {
		v |= MSR_BUSY;
		if (!fdc_by_dma(f) && !f->busy)
			v |= MSR_RQM | MSR_NDMA | (f->writing ? 0 : MSR_DIO);
	} else {
		v |= MSR_RQM | (f->phase == RESULT ? MSR_DIO | MSR_BUSY : f->len ? MSR_BUSY : 0);
	}
	return v;
}

static uint8_t read_fifo(struct fdc *f)
{
	uint8_t v;

	if (f->phase == EXECUTION && !fdc_by_dma(f) && !f->writing && !f->busy && f->at < f->filled) {
		v = f->buf[f->at];
		fdc_set_irq(f, false);
		fdc_progress(f, 1, false);
		return v;
	}
	if (f->phase != RESULT)
		return 0;
	if (fdc_opcode(f) != SENSE_INTERRUPT)
		fdc_set_irq(f, false);
	v = f->result[f->result_at++];
	if (f->result_at == f->result_len)
		to_command(f);
	return v;
}

static void write_fifo(struct fdc *f, uint8_t v)
{
	if (!(f->dor & DOR_RUN))
		return;
	if (f->phase == EXECUTION && !fdc_by_dma(f) && f->writing && !f->busy) {
		f->buf[f->at++] = v;
		fdc_set_irq(f, false);
		if (f->at == SECTOR)
			fdc_write_sectors(f, SECTOR, false);
		return;
	}
	if (f->phase != COMMAND)
		return;
	f->command[f->len++] = v;
	if (f->len == command_length(f->command[0]))
		execute(f);
}

static uint8_t read_dir(const struct fdc *f)
{
	unsigned nr = f->dor & DOR_SELECT;
	const struct fdc_drive *d = nr < FDC_DRIVES ? &f->drive[nr] : NULL;

	/* The line is the selected drive's whose motor turns; an empty drive always says so. */
	if (!d || !d->format || !(f->dor >> (4 + nr) & 1))
		return 0;
	return !d->block || d->changed ? DIR_CHANGE : 0;
}

static uint64_t ports_read(void *opaque, uint64_t offset, unsigned size)
{
	struct fdc *f = opaque;

	(void)size;
	switch (offset) {
	case SRA:
		return (f->irq_up ? 0x80 : 0) | (f->drive[f->dor & 1].cylinder ? 0 : 0x10) | 0x40;
	case SRB:
		return 0xc0 | (f->dor >> 4 & 3) | (f->dor & 1) << 5;
	case DOR:
		return f->dor;
	case TDR:
		return f->tdr;
	case MSR:
		return read_msr(f);
	default:
		return read_fifo(f);
	}
}

static void ports_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct fdc *f = opaque;
	uint8_t v = (uint8_t)value;

	(void)size;
	switch (offset) {
	case DOR:
		write_dor(f, v);
		break;
	case TDR:
		f->tdr = v & 3;
		break;
	case MSR: /* data rate select */
		f->rate = v & 3;
		if (v & DSR_RESET) {
			reset(f, false);
			if (f->dor & DOR_RUN)
				come_out(f);
		}
		break;
	case FIFO:
		write_fifo(f, v);
		break;
	}
}

static uint64_t dir_read(void *opaque, uint64_t offset, unsigned size)
{
	(void)offset;
	(void)size;
	return read_dir(opaque);
}

static void ccr_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	(void)offset;
	(void)size;
	((struct fdc *)opaque)->rate = value & 3;
}

static void dma_opened(void *opaque)
{
	struct fdc *f = opaque;

	if (f->phase == EXECUTION && fdc_by_dma(f))
		fdc_transfer(f);
}

/* ---- life ---- */

static void fdc_reset(struct device *dev)
{
	struct fdc *f = (struct fdc *)dev;

	reset(f, true);
	f->dor = f->tdr = 0;
	f->rate = 2;
	memset(f->specify, 0, sizeof(f->specify));
	for (unsigned i = 0; i < FDC_DRIVES; i++) {
		f->drive[i].cylinder = 0;
		f->drive[i].changed = true;
	}
	update_irq(f);
}

static int fdc_loaded(void *obj, struct error *err)
{
	struct fdc *f = obj;
	const struct fdc_drive *d = fdc_drive(f, fdc_selected(f));
	bool bad = f->phase > RESULT || f->len > sizeof(f->command) || f->result_len > sizeof(f->result) ||
		   f->result_at > f->result_len || f->filled > MAX_STRETCH ||
		   (f->phase == RESULT && f->result_at == f->result_len) ||
		   (f->phase == COMMAND && f->len && f->len >= command_length(f->command[0]));

	if (f->phase == EXECUTION)
		bad |= !d || !d->block || f->cyl >= d->format->cylinders ||
		       d->cylinder >= d->format->cylinders || f->head >= d->format->heads || !f->sector ||
		       f->sector > d->format->per_track ||
		       (f->writing ? f->filled || f->at >= SECTOR : f->at > f->filled);
	if (bad)
		return error_set(err, EINVAL,
				 "the saved state of the floppy controller is impossible; it is damaged");
	f->busy = false;
	return 0;
}

static const struct state_field fdc_fields[] = { F_U8(struct fdc, dor),
						 F_U8(struct fdc, tdr),
						 F_U8(struct fdc, rate),
						 F_U8(struct fdc, phase),
						 F_BYTES(struct fdc, command),
						 F_U8(struct fdc, len),
						 F_BYTES(struct fdc, result),
						 F_U8(struct fdc, result_len),
						 F_U8(struct fdc, result_at),
						 F_BYTES(struct fdc, specify),
						 F_U8(struct fdc, config),
						 F_U8(struct fdc, pretrk),
						 F_U8(struct fdc, perpendicular),
						 F_BOOL(struct fdc, lock),
						 F_BOOL(struct fdc, irq_up),
						 F_U8(struct fdc, pending),
						 F_BYTES(struct fdc, st0),
						 F_U8(struct fdc, cyl),
						 F_U8(struct fdc, head),
						 F_U8(struct fdc, sector),
						 F_U32(struct fdc, filled),
						 F_U32(struct fdc, at),
						 F_BOOL(struct fdc, writing),
						 F_BYTES(struct fdc, buf),
						 F_U8(struct fdc, drive[0].cylinder),
						 F_BOOL(struct fdc, drive[0].changed),
						 F_U8(struct fdc, drive[1].cylinder),
						 F_BOOL(struct fdc, drive[1].changed),
						 F_END };
static const struct state_table fdc_state = { "fdc", 1, fdc_fields, fdc_loaded };

static void fdc_free(struct device *dev)
{
	struct fdc *f = (struct fdc *)dev;

	if (f->busy) {
		f->stopping = true;
		block_drain(f->drive[fdc_selected(f)].block);
	}
	dma_set_listener(f->dma, DMA_CHANNEL, NULL, NULL);
	mem_unmap_pio(f->board->mem, &f->ports);
	mem_unmap_pio(f->board->mem, &f->dir_port);
	free(f);
}

static const struct device_class fdc_class = { "fdc", fdc_reset, &fdc_state, fdc_free };

int fdc_new(struct board *b, struct irq_line irq6, struct dma *dma, struct fdc **ret, struct error *err)
{
	struct fdc *f = calloc(1, sizeof(*f));

	if (!f)
		return error_set(err, ENOMEM, "no memory for the floppy controller; free some and try again");
	f->board = b;
	f->irq = irq6;
	f->dma = dma;
	f->ports = (struct io_region){ .name = "fdc",
				       .base = 0x3f0,
				       .size = 6,
				       .read = ports_read,
				       .write = ports_write,
				       .opaque = f,
				       .max_size = 1 };
	/* 3f6 belongs to the IDE controller. */
	f->dir_port = (struct io_region){
		.name = "fdc-dir", .base = 0x3f7, .size = 1, .read = dir_read, .write = ccr_write, .opaque = f
	};
	mem_map_pio(b->mem, &f->ports);
	mem_map_pio(b->mem, &f->dir_port);
	dma_set_listener(dma, DMA_CHANNEL, dma_opened, f);
	fdc_reset(&f->dev);
	board_add(b, &f->dev, &fdc_class, 0);
	*ret = f;
	return 0;
}

static const struct fdc_format *format_of(uint64_t size)
{
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
		if (size == (uint64_t)formats[i].sectors * SECTOR)
			return &formats[i];
	/* What a small system's build leaves behind: the start of a diskette. */
	return size < (uint64_t)formats[0].sectors * SECTOR ? &formats[0] : NULL;
}

int fdc_insert(struct fdc *f, unsigned nr, struct block *block, const char *path, struct error *err)
{
	const struct fdc_format *format = format_of(block_size(block));

	if (!format)
		return error_set(
		    err, EINVAL,
		    "--floppy %s: %llu bytes are no diskette; give an image of up to 1440K, or of "
		    "one of the sizes that man sill lists (truncate -s 1440K makes an empty one)",
		    path, (unsigned long long)block_size(block));
	if (block_size(block) < (uint64_t)format->sectors * SECTOR)
		log_warn("--floppy %s: %llu bytes are taken for the start of a diskette of %uK", path,
			 (unsigned long long)block_size(block), format->sectors / 2);
	block_extend(block, (uint64_t)format->sectors * SECTOR);
	f->drive[nr].block = block;
	f->drive[nr].format = format;
	return 0;
}

uint8_t fdc_cmos_types(const struct fdc *f)
{
	uint8_t types = 0;

	for (unsigned i = 0; i < FDC_DRIVES; i++)
		if (f->drive[i].format)
			types |= (uint8_t)(f->drive[i].format->drive << (i ? 0 : 4));
	return types;
}
