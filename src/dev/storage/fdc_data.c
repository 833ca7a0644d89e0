/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The floppy controller's commands that touch the medium: READ, WRITE, VERIFY,
 * READ TRACK, FORMAT TRACK, READ ID (Intel 290166).
 *
 * The medium is read a stretch of sectors at a time: what is left of the track, or
 * of the cylinder for multi-track commands, which go on with the next cylinder if
 * their last sector is beyond the track's.  By DMA a stretch moves at once; by
 * programmed I/O byte by byte.  What is written is collected in `buf` and goes out
 * in whole sectors.  A diskette at another data rate than the controller's has no
 * address marks.
 *
 * One request to the backend is under way at most (`busy`); fdc_transfer goes on
 * from wherever the command is, whoever calls it: the backend's completion, the
 * DMA controller when the channel opens, or the start of the command.
 */
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "dev/storage/fdc_internal.h"

/* The end of a data command: three status bytes and the place. */
static void end(struct fdc *f, uint8_t st0, uint8_t st1, uint8_t st2)
{
	uint8_t r[7] = {
		(uint8_t)(st0 | f->head << 2 | fdc_selected(f)), st1, st2, f->cyl, f->head, f->sector, 2
	};

	fdc_give(f, r, sizeof(r));
	fdc_set_irq(f, true);
}

/* ---- the medium ---- */

/* The drive with a diskette that the heads can read; NULL: the command has ended. */
static struct fdc_drive *readable(struct fdc *f)
{
	struct fdc_drive *d = fdc_drive(f, fdc_selected(f));

	if (d && d->block && f->rate == d->format->rate)
		return d;
	end(f, ST0_ABNORMAL, ST1_NO_MARK, 0);
	return NULL;
}

static unsigned last_sector(const struct fdc *f, const struct fdc_drive *d)
{
	unsigned eot = f->command[6];

	return eot < d->format->per_track ? eot : d->format->per_track;
}

/* Is the next sector on the track under the heads? False: the command has ended. */
static bool on_track(struct fdc *f, const struct fdc_drive *d)
{
	if (f->cyl != d->cylinder || d->cylinder >= d->format->cylinders) {
		end(f, ST0_ABNORMAL, ST1_NO_DATA, ST2_CYLINDER);
		return false;
	}
	if (f->head >= d->format->heads || !f->sector || f->sector > d->format->per_track ||
	    f->command[5] != 2) {
		end(f, ST0_ABNORMAL, ST1_NO_DATA, 0);
		return false;
	}
	return true;
}

static uint64_t offset_of(const struct fdc *f, const struct fdc_drive *d)
{
	return (((uint64_t)f->cyl * d->format->heads + f->head) * d->format->per_track + f->sector - 1) *
	       SECTOR;
}

/* After a sector: the next one. False: the command's last track is at its end. */
static bool next_sector(struct fdc *f, const struct fdc_drive *d)
{
	if (f->sector < last_sector(f, d)) {
		f->sector++;
		return true;
	}
	f->sector = 1;
	if ((f->command[0] & MULTI_TRACK) && f->head + 1 < d->format->heads) {
		f->head = 1;
		return true;
	}
	if (f->command[0] & MULTI_TRACK)
		f->head = 0;
	f->cyl++;
	/*
	 * A track never has a sector that is beyond its last one, and what the chip does when it looks for
	 * that is an error. SeaBIOS asks so for whatever INT 13h asks of it, and boot sectors that load all
	 * of a system at once count on getting it. SeaBIOS also thinks that the heads are then where they
	 * were before, so that is where they are.
	 */
	return (f->command[0] & MULTI_TRACK) && f->command[6] > d->format->per_track &&
	       f->cyl < d->format->cylinders;
}

/* How many bytes from the next sector on the command can reach. */
static uint32_t stretch(const struct fdc *f, const struct fdc_drive *d)
{
	unsigned last = last_sector(f, d), n = f->sector <= last ? last - f->sector + 1u : 1;

	if ((f->command[0] & MULTI_TRACK) && f->head + 1 < d->format->heads && last == d->format->per_track)
		n += last;
	return n * SECTOR;
}

static void io_done(struct block_req *r, int result)
{
	struct fdc *f = container_of(r, struct fdc, req);

	f->busy = false;
	if (f->stopping)
		return;
	if (result) {
		end(f, ST0_ABNORMAL, result == -EROFS ? ST1_PROTECT : 0x20, result == -EROFS ? 0 : 0x20);
		return;
	}
	fdc_transfer(f);
}

static void submit(struct fdc *f, struct fdc_drive *d, enum block_op op, uint32_t len)
{
	f->iov = (struct iovec){ f->buf, len };
	f->req = (struct block_req){
		.op = op, .offset = offset_of(f, d), .len = len, .iov = &f->iov, .iovcnt = 1, .done = io_done
	};
	f->busy = true;
	block_submit(d->block, &f->req);
}

/* ---- data commands ---- */

static void read_stretch(struct fdc *f, struct fdc_drive *d)
{
	f->at = 0;
	f->filled = stretch(f, d);
	submit(f, d, BLOCK_READ, f->filled);
}

void fdc_progress(struct fdc *f, uint32_t moved, bool tc)
{
	struct fdc_drive *d = &f->drive[fdc_selected(f)];
	uint32_t before = f->at / SECTOR;
	bool more = true;

	f->at += moved;
	/* A sector that terminal count cut short counts whole. */
	uint32_t after = tc ? (f->at + SECTOR - 1) / SECTOR : f->at / SECTOR;
	for (uint32_t i = before; i < after; i++)
		more = next_sector(f, d);
	if (tc)
		end(f, 0, 0, 0);
	else if (!more)
		end(f, ST0_ABNORMAL, ST1_END, 0);
	else if (f->at == f->filled && !f->writing)
		read_stretch(f, d);
}

/* Writes are collected here, sector by sector, and go out when a sector is full or the host is done. */
void fdc_write_sectors(struct fdc *f, uint32_t len, bool tc)
{
	struct fdc_drive *d = &f->drive[fdc_selected(f)];
	uint32_t whole = (uint32_t)align_up(len, SECTOR);

	memset(f->buf + len, 0, whole - len);
	f->filled = whole;
	f->at = tc ? UINT32_MAX : 0; /* what fdc_transfer() finds when the backend is done */
	submit(f, d, BLOCK_WRITE, whole);
}

void fdc_transfer(struct fdc *f)
{
	bool tc;

	if (f->phase != EXECUTION || f->busy)
		return;
	if (f->writing && f->filled) { /* the medium has it */
		uint32_t len = f->filled;

		tc = f->at == UINT32_MAX;
		f->filled = f->at = 0;
		fdc_progress(f, len, tc);
		f->at = 0;
		if (f->phase != EXECUTION)
			return;
	}
	if (fdc_opcode(f) == VERIFY) { /* as many sectors as there are; nothing moves */
		fdc_progress(f, f->filled, true);
		return;
	}
	if (!fdc_by_dma(f)) {
		fdc_set_irq(f, true); /* for each byte; drivers look at RQM */
		return;
	}
	if (!dma_ready(f->dma, DMA_CHANNEL))
		return;
	if (!f->writing) {
		uint32_t n = dma_transfer(f->dma, DMA_CHANNEL, true, f->buf + f->at, f->filled - f->at, &tc);

		if (n)
			fdc_progress(f, n, tc);
		return;
	}
	uint32_t room = stretch(f, &f->drive[fdc_selected(f)]);
	uint32_t n = dma_transfer(f->dma, DMA_CHANNEL, false, f->buf, room, &tc);
	if (n)
		fdc_write_sectors(f, n, tc);
}

void fdc_begin_data(struct fdc *f)
{
	struct fdc_drive *d;

	f->cyl = f->command[2];
	f->head = f->command[3];
	f->sector = fdc_opcode(f) == READ_TRACK ? 1 : f->command[4];
	f->writing = fdc_opcode(f) == WRITE_DATA || fdc_opcode(f) == WRITE_DELETED;
	f->filled = f->at = 0;
	d = readable(f);
	if (!d)
		return;
	/* Implied seek, as if CONFIGURE had asked for it: there are drivers that never seek. */
	if (f->cyl < d->format->cylinders) {
		d->cylinder = f->cyl;
		d->changed = false;
	}
	if (!on_track(f, d))
		return;
	if (f->writing && block_readonly(d->block)) {
		end(f, ST0_ABNORMAL, ST1_PROTECT, 0);
		return;
	}
	f->phase = EXECUTION;
	if (f->writing)
		fdc_transfer(f);
	else
		read_stretch(f, d);
}

/* Four bytes for each sector come from the host: its address. The track is filled with one byte. */
void fdc_begin_format(struct fdc *f)
{
	struct fdc_drive *d;
	uint8_t ids[4 * 64];
	uint32_t n = f->command[3];
	bool tc;

	f->head = f->command[1] >> 2 & 1;
	f->sector = 1;
	f->writing = true;
	f->filled = f->at = 0;
	d = readable(f);
	if (!d)
		return;
	f->cyl = d->cylinder;
	if (block_readonly(d->block)) {
		end(f, ST0_ABNORMAL, ST1_PROTECT, 0);
		return;
	}
	if (f->command[2] != 2 || n != d->format->per_track || d->cylinder >= d->format->cylinders ||
	    f->head >= d->format->heads) {
		end(f, ST0_ABNORMAL, ST1_NO_MARK, 0);
		return;
	}
	if (fdc_by_dma(f))
		dma_transfer(f->dma, DMA_CHANNEL, false, ids, 4 * n, &tc);
	f->phase = EXECUTION;
	memset(f->buf, f->command[5], n * SECTOR);
	/* As if the host had sent the sectors and said that these are all. */
	f->command[6] = (uint8_t)n;
	f->command[0] &= (uint8_t)~MULTI_TRACK;
	fdc_write_sectors(f, n * SECTOR, true);
}

void fdc_read_id(struct fdc *f)
{
	struct fdc_drive *d;

	f->cyl = 0;
	f->head = f->command[1] >> 2 & 1;
	f->sector = 1;
	d = readable(f);
	if (!d)
		return;
	f->cyl = d->cylinder;
	if (d->cylinder >= d->format->cylinders || f->head >= d->format->heads)
		end(f, ST0_ABNORMAL, ST1_NO_MARK, 0);
	else
		end(f, 0, 0, 0);
}
