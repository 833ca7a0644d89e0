/* SPDX-License-Identifier: Apache-2.0 */
/* The floppy controller (fdc.c) and its data commands (fdc_data.c). */
#ifndef SILL_DEV_STORAGE_FDC_INTERNAL_H
#define SILL_DEV_STORAGE_FDC_INTERNAL_H

#include <sys/uio.h>

#include "dev/storage/fdc.h"

#define SECTOR      512u
#define MAX_STRETCH (2 * 48 * SECTOR)
#define DMA_CHANNEL 2

/* Status bytes */
#define ST0_ABNORMAL 0x40
#define ST0_INVALID  0x80
#define ST0_POLLING  0xc0
#define ST0_SEEK_END 0x20
#define ST0_NO_TRACK 0x10 /* no track 0: equipment check */
#define ST1_END      0x80 /* beyond the last sector */
#define ST1_NO_DATA  0x04
#define ST1_PROTECT  0x02
#define ST1_NO_MARK  0x01
#define ST2_CYLINDER 0x10
#define ST3_PROTECT  0x40
#define ST3_READY    0x20
#define ST3_TRACK0   0x10
#define ST3_TWO_SIDE 0x08

/* Command bits */
#define MULTI_TRACK 0x80

enum phase { COMMAND, EXECUTION, RESULT };
enum command {
	READ_TRACK = 0x02,
	SPECIFY = 0x03,
	SENSE_DRIVE = 0x04,
	WRITE_DATA = 0x05,
	READ_DATA = 0x06,
	RECALIBRATE = 0x07,
	SENSE_INTERRUPT = 0x08,
	WRITE_DELETED = 0x09,
	READ_ID = 0x0a,
	READ_DELETED = 0x0c,
	FORMAT_TRACK = 0x0d,
	DUMPREG = 0x0e,
	SEEK = 0x0f,
	VERSION = 0x10,
	PERPENDICULAR = 0x12,
	CONFIGURE = 0x13,
	LOCK = 0x14,
	VERIFY = 0x16,
};

struct fdc_format {
	uint16_t sectors; /* all of them */
	uint8_t cylinders, per_track, heads;
	uint8_t rate;  /* code of the data rate */
	uint8_t drive; /* type of drive for CMOS */
};

struct fdc_drive {
	struct block *block; /* NULL: empty */
	const struct fdc_format *format;
	/* state */
	uint8_t cylinder; /* where the heads are */
	bool changed;     /* the change line: until the heads move with a diskette in */
};

struct fdc {
	struct device dev;
	struct board *board;
	struct irq_line irq;
	struct dma *dma;
	struct io_region ports, dir_port;
	struct fdc_drive drive[FDC_DRIVES];

	/* state */
	uint8_t dor, tdr, rate;
	uint8_t phase;           /* enum phase */
	uint8_t command[9], len; /* bytes so far */
	uint8_t result[10], result_len, result_at;
	uint8_t specify[2], config, pretrk, perpendicular;
	bool lock, irq_up;
	uint8_t
	    pending; /* SENSE INTERRUPT answers to come: bits 0-3 after reset, 4-7 after a seek, by drive */
	uint8_t st0[4]; /* of those */
	/* Data command: the sector that is next, the stretch in buf, how much of it has moved. */
	uint8_t cyl, head, sector;
	uint32_t filled, at;
	bool writing, busy; /* busy: the backend works */
	uint8_t buf[MAX_STRETCH];

	/* not saved: nothing is in flight then */
	struct block_req req;
	struct iovec iov;
	bool stopping;
};

static inline unsigned fdc_opcode(const struct fdc *f)
{
	return f->command[0] & 31;
}

/* The number of the drive that the command names. */
static inline unsigned fdc_selected(const struct fdc *f)
{
	return f->command[1] & 3;
}

/* NULL: there is no such drive. */
static inline struct fdc_drive *fdc_drive(struct fdc *f, unsigned nr)
{
	return nr < FDC_DRIVES ? &f->drive[nr] : NULL;
}

/* SPECIFY said so; else the host moves each byte. */
static inline bool fdc_by_dma(const struct fdc *f)
{
	return !(f->specify[1] & 1);
}

/* ---- fdc.c ---- */

void fdc_set_irq(struct fdc *f, bool up);
/* Enters the result phase with these n bytes. */
void fdc_give(struct fdc *f, const uint8_t *bytes, unsigned n);

/* ---- fdc_data.c ---- */

/* Execute the command in f->command: data commands, FORMAT TRACK, READ ID. */
void fdc_begin_data(struct fdc *f);
void fdc_begin_format(struct fdc *f);
void fdc_read_id(struct fdc *f);
/* Moves what can be moved now; called again when the backend, DMA or the host is ready. */
void fdc_transfer(struct fdc *f);
/* `moved` bytes of the stretch went to or from the host; tc: the host wants no more. */
void fdc_progress(struct fdc *f, uint32_t moved, bool tc);
/* Sends the first len bytes of buf, filled up to whole sectors, to the medium; tc as above. */
void fdc_write_sectors(struct fdc *f, uint32_t len, bool tc);

#endif
