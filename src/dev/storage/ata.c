/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Data goes through the drive's buffer of 128 KiB: a read fills it from the
 * backend, and the controller takes it in pieces; a write is handed over to the
 * backend piece by piece.  The buffer costs a copy, and makes a drive's behaviour
 * independent of where the host wants its data and when it comes for it.
 *
 * Interrupts as ATA-7 has them (§ 9): for data to the host before each piece, for
 * data from the host after each piece but before the first, at the end of
 * everything but a programmed read.
 */
#include "dev/storage/ata.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"

#define MAX_MULTIPLE 16u
#define HEADS        16u
#define SECTORS      63u

static uint64_t total_sectors(const struct ata_drive *d)
{
	return d->block ? block_size(d->block) / BLOCK_SECTOR : 0;
}

/*
 * Two at least: firmware keeps one for itself, and boots by cylinder, head and sector from images that
 * do not fill even the first.
 */
static unsigned cylinders_of(const struct ata_drive *d, unsigned track, unsigned most)
{
	return (unsigned)max_u64(min_u64(total_sectors(d) / track, most), 2);
}

static unsigned cylinders(const struct ata_drive *d)
{
	return cylinders_of(d, HEADS * SECTORS, 16383);
}

struct ata_geometry ata_geometry(const struct ata_drive *d)
{
	return (struct ata_geometry){ (uint16_t)cylinders(d), HEADS, SECTORS };
}

bool ata_present(const struct ata_drive *d)
{
	return d->is_cd || d->block;
}

/* ---- ends ---- */

static void finish(struct ata_drive *d)
{
	d->phase = ATA_IDLE;
	if (d->is_cd && d->command == 0xa0)
		d->count = 3; /* I/O, command: status (ATA-7 §9.8) */
	d->ops->done(d->opaque, d);
}

static void succeed(struct ata_drive *d)
{
	d->status = ATA_DRDY | ATA_DSC;
	d->error = 0;
	finish(d);
}

static void fail(struct ata_drive *d, uint8_t error)
{
	d->status = ATA_DRDY | ATA_DSC | ATA_ERR;
	d->error = error;
	finish(d);
}

void ata_abort(struct ata_drive *d)
{
	fail(d, ATA_ABRT);
}

/* A packet command's check condition: the sense key is in the error register. */
static void fail_packet(struct ata_drive *d)
{
	fail(d, (uint8_t)(d->cd.sense_key << 4 | ATA_ABRT));
}

/* ---- pieces ---- */

/* Offers the next piece of what is in the buffer. */
static void offer(struct ata_drive *d, bool irq)
{
	d->pos = 0;
	d->piece = (uint32_t)min_u64(d->unit, d->filled - d->at);
	d->phase = d->is_write ? ATA_OUT : ATA_IN;
	d->status = ATA_DRDY | ATA_DSC | ATA_DRQ;
	if (d->is_cd && d->command == 0xa0) {
		d->count = 2; /* data to the host */
		d->lba[1] = (uint8_t)d->piece;
		d->lba[2] = (uint8_t)(d->piece >> 8);
	}
	if (d->is_dma)
		d->ops->dma(d->opaque, d);
	else
		d->ops->drq(d->opaque, d, irq);
}

static struct block *medium(const struct ata_drive *d)
{
	return d->is_cd ? d->cd.block : d->block;
}

static void io_done(struct block_req *r, int result)
{
	struct ata_drive *d = r->opaque;

	d->in_flight = false;
	if (d->stopping)
		return;
	if (result && d->is_cd) {
		cdrom_read_failed(&d->cd);
		fail_packet(d);
	} else if (result) {
		fail(d, result == -EROFS ? ATA_ABRT : ATA_UNC);
	} else if (r->op == BLOCK_FLUSH) {
		succeed(d);
	} else if (!d->is_write) {
		offer(d, true);
	} else if (d->left) {
		d->filled = (uint32_t)min_u64(d->left, d->is_dma ? ATA_BUFFER : d->unit);
		d->at = 0;
		offer(d, true);
	} else {
		succeed(d);
	}
}

/* Starts an access to the medium at offset; it may end before this returns. */
static void submit(struct ata_drive *d, enum block_op op, uint64_t offset)
{
	struct block *b = medium(d);

	d->phase = ATA_BUSY;
	d->status = ATA_BSY;
	if (!b) { /* the medium was taken out meanwhile */
		cdrom_read_failed(&d->cd);
		fail_packet(d);
		return;
	}
	d->iov = (struct iovec){ d->buf, d->filled };
	d->req = (struct block_req){ .op = op,
				     .offset = offset,
				     .len = op == BLOCK_FLUSH ? 0 : d->filled,
				     .iov = &d->iov,
				     .iovcnt = op == BLOCK_FLUSH ? 0 : 1,
				     .done = io_done,
				     .opaque = d };
	d->in_flight = true;
	block_submit(b, &d->req);
}

/* Fills the buffer with what comes next of the medium. */
static void read_more(struct ata_drive *d)
{
	d->filled = (uint32_t)min_u64(d->left, ATA_BUFFER);
	d->at = 0;
	submit(d, BLOCK_READ, d->offset);
}

static void begin_read(struct ata_drive *d, uint64_t offset, uint64_t len, uint32_t unit)
{
	d->is_write = d->reply = false;
	d->offset = offset;
	d->left = len;
	d->unit = d->is_dma ? ATA_BUFFER : unit;
	read_more(d);
}

static void begin_write(struct ata_drive *d, uint64_t offset, uint64_t len, uint32_t unit)
{
	d->is_write = true;
	d->reply = false;
	d->offset = offset;
	d->left = len;
	d->unit = d->is_dma ? ATA_BUFFER : unit;
	d->filled = (uint32_t)min_u64(len, d->unit);
	d->at = 0;
	offer(d, false);
}

/* Something that the drive says of itself. */
static void begin_reply(struct ata_drive *d, uint32_t len, uint32_t unit)
{
	d->is_write = false;
	d->reply = true;
	d->left = 0;
	d->filled = len;
	d->at = 0;
	d->unit = unit;
	offer(d, true);
}

static void advance(struct ata_drive *d)
{
	if (d->is_write) {
		/* All of a write's buffer is one piece. */
		uint64_t offset = d->offset;

		d->offset += d->filled;
		d->left -= d->filled;
		submit(d, BLOCK_WRITE, offset);
		return;
	}
	d->at += d->piece;
	if (d->at < d->filled) {
		offer(d, true);
		return;
	}
	if (!d->reply) {
		d->offset += d->filled;
		d->left -= d->filled;
		if (d->left) {
			read_more(d);
			return;
		}
	}
	if (d->is_dma || d->command == 0xa0) {
		succeed(d);
		return;
	}
	/* A programmed read ends without a word. */
	d->status = ATA_DRDY | ATA_DSC;
	d->phase = ATA_IDLE;
}

/* By DMA from the page cache, one piece leads straight to the next: a loop, not a recursion as deep as the
 * transfer is long. */
void ata_piece_moved(struct ata_drive *d)
{
	d->moved = true;
	if (d->advancing)
		return;
	d->advancing = true;
	while (d->moved) {
		d->moved = false;
		advance(d);
	}
	d->advancing = false;
}

/* ---- IDENTIFY ---- */

static void put_word(struct ata_drive *d, unsigned i, uint32_t v)
{
	d->buf[2 * i] = (uint8_t)v;
	d->buf[2 * i + 1] = (uint8_t)(v >> 8);
}

/* Text has its bytes swapped within words, and is filled up with blanks. */
static void put_text(struct ata_drive *d, unsigned i, const char *s, unsigned words)
{
	size_t n = strlen(s);

	for (unsigned k = 0; k < 2 * words; k++)
		d->buf[2 * i + (k ^ 1)] = k < n ? (uint8_t)s[k] : ' ';
}

static void identify_common(struct ata_drive *d, const char *model)
{
	memset(d->buf, 0, 512);
	put_text(d, 10, d->serial, 10);
	put_text(d, 23, "1", 4);
	put_text(d, 27, model, 20);
	put_word(d, 49, 0x0300); /* LBA, DMA */
	put_word(d, 51, 0x0200);
	put_word(d, 53, 7);      /* words 54-58, 64-70, 88 are valid */
	put_word(d, 63, 0x0007); /* multiword DMA 0 to 2 */
	put_word(d, 64, 3);      /* PIO 3 and 4 */
	for (unsigned i = 65; i <= 68; i++)
		put_word(d, i, 120);
	put_word(d, 80, 0x00f0); /* ATA-4 to 7 */
	put_word(d, 88, 0x203f); /* Ultra DMA 0 to 5; 5 is selected */
	if (!d->queue_depth) {
		put_word(d, 93, 0x4000 | 0x2000 | 0x0003); /* reset result, of parallel ATA only */
		return;
	}
	put_word(d, 75, d->queue_depth - 1u);
	put_word(d, 76, 0x000e | (d->is_cd ? 0 : 0x0100)); /* 1.5, 3 and 6 Gbit/s; queued commands */
	put_word(d, 80, 0x01f0);                           /* ATA8-ACS too, which has the log of these */
}

static void identify_disk(struct ata_drive *d)
{
	uint64_t n = total_sectors(d), n28 = min_u64(n, 0x0fffffff);
	uint32_t track = (uint32_t)d->heads * d->sectors, now = cylinders_of(d, track, 65535);

	identify_common(d, "SILL HARDDISK");
	put_word(d, 0, 0x0040);
	put_word(d, 1, cylinders(d));
	put_word(d, 3, HEADS);
	put_word(d, 6, SECTORS);
	put_word(d, 47, 0x8000 | MAX_MULTIPLE);
	put_word(d, 54, now); /* as the host wants to count */
	put_word(d, 55, d->heads);
	put_word(d, 56, d->sectors);
	put_word(d, 57, now * track);
	put_word(d, 58, now * track >> 16);
	put_word(d, 59, d->multiple ? 0x100u | d->multiple : 0);
	put_word(d, 60, (uint32_t)n28);
	put_word(d, 61, (uint32_t)(n28 >> 16));
	put_word(d, 82, 0x4020);                                 /* NOP, write cache */
	put_word(d, 83, 0x4000 | 0x3400);                        /* FLUSH CACHE (EXT), 48-bit */
	put_word(d, 84, 0x4000 | (d->queue_depth ? 0x0020 : 0)); /* logs */
	put_word(d, 85, 0x4020);
	put_word(d, 86, 0x3400);
	put_word(d, 87, 0x4000 | (d->queue_depth ? 0x0020 : 0));
	for (unsigned i = 0; i < 4; i++)
		put_word(d, 100 + i, (uint32_t)(n >> (16 * i)));
	put_word(d, 222, 0x1020); /* serial ATA transport is possible too */
}

static void identify_cd(struct ata_drive *d)
{
	identify_common(d, "SILL CD-ROM");
	put_word(d, 0, 0x85c0);  /* ATAPI, CD-ROM, removable, 12-byte packets, quick DRQ */
	put_word(d, 82, 0x0210); /* PACKET, DEVICE RESET */
	put_word(d, 83, 0x4000);
	put_word(d, 84, 0x4000);
	put_word(d, 85, 0x0210);
	put_word(d, 87, 0x4000);
}

/* The signature by which a drive's kind is told after a reset (ATA-7 §5.15). */
static void signature(struct ata_drive *d)
{
	d->count = d->lba[0] = 1;
	d->lba[1] = d->is_cd ? 0x14 : 0;
	d->lba[2] = d->is_cd ? 0xeb : 0;
	d->device &= 0x10;
}

/* ---- commands ---- */

struct place {
	uint64_t lba;
	uint32_t sectors;
};

static struct place parameters(const struct ata_drive *d, bool lba48)
{
	struct place p;

	if (lba48) {
		p.lba = (uint64_t)d->lba_hob[2] << 40 | (uint64_t)d->lba_hob[1] << 32 |
			(uint64_t)d->lba_hob[0] << 24 | (uint64_t)d->lba[2] << 16 | d->lba[1] << 8 |
			d->lba[0];
		p.sectors = (uint32_t)d->count_hob << 8 | d->count;
		p.sectors = p.sectors ? p.sectors : 65536;
		return p;
	}
	p.sectors = d->count ? d->count : 256;
	if (d->device & 0x40)
		p.lba =
		    (uint64_t)(d->device & 15) << 24 | (uint64_t)d->lba[2] << 16 | d->lba[1] << 8 | d->lba[0];
	else if (!d->lba[0] || d->lba[0] > d->sectors || (d->device & 15) >= d->heads)
		p.lba = UINT64_MAX;
	else
		p.lba = ((uint64_t)(d->lba[2] << 8 | d->lba[1]) * d->heads + (d->device & 15)) * d->sectors +
			d->lba[0] - 1;
	return p;
}

/* False: the place is not on the disk, and the command has failed. */
static bool on_disk(struct ata_drive *d, struct place p)
{
	uint64_t n = total_sectors(d);

	if (p.lba < n && p.sectors <= n - p.lba)
		return true;
	fail(d, ATA_IDNF);
	return false;
}

static void transfer(struct ata_drive *d, bool write, bool dma, bool lba48, unsigned unit)
{
	struct place p = parameters(d, lba48);

	if (!on_disk(d, p))
		return;
	if (!unit) { /* READ MULTIPLE without SET MULTIPLE */
		fail(d, ATA_ABRT);
		return;
	}
	d->is_dma = dma;
	d->lba48 = lba48;
	if (write && block_readonly(d->block))
		fail(d, ATA_ABRT);
	else if (write)
		begin_write(d, p.lba * BLOCK_SECTOR, (uint64_t)p.sectors * BLOCK_SECTOR, unit * BLOCK_SECTOR);
	else
		begin_read(d, p.lba * BLOCK_SECTOR, (uint64_t)p.sectors * BLOCK_SECTOR, unit * BLOCK_SECTOR);
}

static void set_multiple(struct ata_drive *d)
{
	if (d->count > MAX_MULTIPLE || (d->count & (d->count - 1))) {
		fail(d, ATA_ABRT);
		return;
	}
	d->multiple = d->count;
	succeed(d);
}

static void native_max(struct ata_drive *d, bool lba48)
{
	uint64_t last = total_sectors(d) - 1;

	if (!lba48)
		last = min_u64(last, 0x0fffffff);
	for (unsigned i = 0; i < 3; i++) {
		d->lba[i] = (uint8_t)(last >> (8 * i));
		d->lba_hob[i] = (uint8_t)(last >> (24 + 8 * i));
	}
	if (!lba48)
		d->device = (uint8_t)((d->device & 0xf0) | (last >> 24 & 15));
	succeed(d);
}

static void set_features(struct ata_drive *d)
{
	switch (d->feature) {
	case 0x02: /* write cache on, off */
	case 0x82:
	case 0x03: /* transfer mode */
	case 0x05: /* power management */
	case 0x85:
	case 0x66: /* keep or restore settings at reset */
	case 0xcc:
	case 0x55: /* look-ahead */
	case 0xaa:
		succeed(d);
		break;
	default:
		fail(d, ATA_ABRT);
		break;
	}
}

/* READ LOG EXT: the directory of logs, and the one of queued commands' errors (ATA8-ACS, A.8). */
static void read_log(struct ata_drive *d, bool dma)
{
	uint8_t *p = d->buf, log = d->lba[0], sum = 0;

	if (!d->queue_depth || (log != 0 && log != 0x10) || d->lba[1] || d->lba_hob[1] || d->count != 1 ||
	    d->count_hob) {
		fail(d, ATA_ABRT);
		return;
	}
	memset(p, 0, 512);
	if (log == 0) {
		p[0] = 1;        /* version */
		p[2 * 0x10] = 1; /* pages of log 10 */
	} else if (d->failed_tag != ATA_NO_TAG) {
		p[0] = d->failed_tag;
		p[2] = ATA_DRDY | ATA_ERR;
		p[3] = ATA_UNC;
		for (unsigned i = 0; i < 3; i++) {
			p[4 + i] = (uint8_t)(d->failed_lba >> (8 * i));
			p[8 + i] = (uint8_t)(d->failed_lba >> (24 + 8 * i));
		}
		p[7] = 0x40;
		p[12] = (uint8_t)d->failed_count;
		p[13] = (uint8_t)(d->failed_count >> 8);
	} else {
		p[0] = 0x80; /* none of the queued ones */
	}
	for (unsigned i = 0; i < 511; i++)
		sum += p[i];
	p[511] = (uint8_t)-sum;
	d->failed_tag = ATA_NO_TAG;
	d->is_dma = dma;
	begin_reply(d, 512, 512);
}

static bool disk_command(struct ata_drive *d, uint8_t c)
{
	switch (c) {
	case 0x2f:
	case 0x47:
		read_log(d, c == 0x47);
		return true;
	case 0x20:
	case 0x21:
		transfer(d, false, false, false, 1);
		return true;
	case 0x24:
		transfer(d, false, false, true, 1);
		return true;
	case 0xc4:
		transfer(d, false, false, false, d->multiple);
		return true;
	case 0x29:
		transfer(d, false, false, true, d->multiple);
		return true;
	case 0x30:
	case 0x31:
		transfer(d, true, false, false, 1);
		return true;
	case 0x34:
		transfer(d, true, false, true, 1);
		return true;
	case 0xc5:
		transfer(d, true, false, false, d->multiple);
		return true;
	case 0x39:
		transfer(d, true, false, true, d->multiple);
		return true;
	case 0xc8:
	case 0xc9:
		transfer(d, false, true, false, 1);
		return true;
	case 0x25:
		transfer(d, false, true, true, 1);
		return true;
	case 0xca:
	case 0xcb:
		transfer(d, true, true, false, 1);
		return true;
	case 0x35:
		transfer(d, true, true, true, 1);
		return true;
	case 0x40: /* READ VERIFY, SEEK: is it there? */
	case 0x41:
	case 0x42:
	case 0x70:
		if (on_disk(d, c == 0x70 ? (struct place){ parameters(d, false).lba, 1 }
					 : parameters(d, c == 0x42)))
			succeed(d);
		return true;
	case 0x91: /* INITIALIZE DEVICE PARAMETERS */
		if (!d->count) {
			fail(d, ATA_ABRT);
			return true;
		}
		d->heads = (uint8_t)((d->device & 15) + 1);
		d->sectors = d->count;
		succeed(d);
		return true;
	case 0xc6:
		set_multiple(d);
		return true;
	case 0xe7:
	case 0xea:
		d->is_write = false;
		submit(d, BLOCK_FLUSH, 0);
		return true;
	case 0xec:
		identify_disk(d);
		begin_reply(d, 512, 512);
		return true;
	case 0xf8:
	case 0x27:
		native_max(d, c == 0x27);
		return true;
	default:
		if (c < 0x10 || c >= 0x20)
			return false;
		succeed(d); /* RECALIBRATE */
		return true;
	}
}

static bool cd_command(struct ata_drive *d, uint8_t c)
{
	switch (c) {
	case 0x08: /* DEVICE RESET: ends at once, without an interrupt */
		signature(d);
		d->status = 0;
		d->error = 1;
		d->phase = ATA_IDLE;
		return true;
	case 0xa0:
		d->is_dma = false;
		d->phase = ATA_PACKET;
		d->pos = 0;
		d->piece = sizeof(d->packet);
		d->count = 1; /* a command, from the host */
		d->byte_limit = (uint16_t)(d->lba[2] << 8 | d->lba[1]);
		d->status = ATA_DRDY | ATA_DSC | ATA_DRQ;
		d->ops->drq(d->opaque, d, false);
		return true;
	case 0xa1:
		identify_cd(d);
		begin_reply(d, 512, 512);
		return true;
	case 0xec: /* refused with the signature, by which the host knows better */
	case 0x20:
		signature(d);
		fail(d, ATA_ABRT);
		return true;
	default:
		return false;
	}
}

void ata_command(struct ata_drive *d, uint8_t c)
{
	/* A drive with a command in progress hears only DEVICE RESET. */
	if (d->in_flight || (d->phase != ATA_IDLE && c != 0x08 && (d->status & ATA_BSY)))
		return;
	d->command = c;
	d->error = 0;
	d->is_dma = false;
	if (d->is_cd ? cd_command(d, c) : disk_command(d, c))
		return;
	switch (c) {
	case 0x90: /* EXECUTE DEVICE DIAGNOSTIC */
		signature(d);
		d->error = 1;
		d->status = d->is_cd ? 0 : ATA_DRDY | ATA_DSC;
		d->phase = ATA_IDLE;
		d->ops->done(d->opaque, d);
		break;
	case 0xef:
		set_features(d);
		break;
	case 0xe5: /* CHECK POWER MODE: active */
		d->count = 0xff;
		succeed(d);
		break;
	case 0xe0:
	case 0xe1:
	case 0xe2:
	case 0xe3:
	case 0xe6:
	case 0xf5: /* SECURITY FREEZE LOCK */
		succeed(d);
		break;
	default:
		fail(d, ATA_ABRT);
		break;
	}
}

/* The packet is in d->packet. */
void ata_packet(struct ata_drive *d)
{
	struct cd_answer a;
	uint32_t limit = d->byte_limit ? d->byte_limit & ~1u : 0xfffe;

	d->is_dma = d->feature & 1;
	d->status = ATA_BSY;
	d->phase = ATA_BUSY;
	cdrom_command(&d->cd, d->packet, d->buf, &a);
	if ((a.eject || a.load) && d->tray)
		d->tray(d->tray_opaque, a.eject);
	if (a.failed)
		fail_packet(d);
	else if (a.len)
		begin_read(d, a.offset, a.len, max_u64(limit, 2));
	else if (a.reply_len)
		begin_reply(d, a.reply_len, d->is_dma ? ATA_BUFFER : (uint32_t)max_u64(limit, 2));
	else
		succeed(d);
}

/* ---- life ---- */

void ata_init(struct ata_drive *d, const struct ata_ops *ops, void *opaque)
{
	d->ops = ops;
	d->opaque = opaque;
	ata_reset(d);
}

void ata_reset(struct ata_drive *d)
{
	if (d->in_flight) {
		d->stopping = true;
		block_drain(medium(d));
		d->stopping = false;
		d->in_flight = false;
	}
	d->phase = ATA_IDLE;
	d->feature = d->command = d->count_hob = d->feature_hob = 0;
	memset(d->lba_hob, 0, sizeof(d->lba_hob));
	d->device = 0;
	signature(d);
	d->error = 1;
	d->status = d->is_cd || !ata_present(d) ? 0 : ATA_DRDY | ATA_DSC;
	d->is_dma = d->is_write = d->lba48 = d->reply = false;
	d->multiple = MAX_MULTIPLE;
	d->heads = HEADS;
	d->sectors = SECTORS;
	d->offset = d->left = d->filled = d->at = d->piece = d->pos = 0;
	d->unit = BLOCK_SECTOR;
	d->cd.sense_key = d->cd.asc = d->cd.ascq = 0;
	d->cd.locked = false;
	d->failed_tag = ATA_NO_TAG;
}

bool ata_state_ok(const struct ata_drive *d)
{
	if (d->phase > ATA_PACKET || d->phase == ATA_BUSY || d->filled > ATA_BUFFER || d->at > d->filled ||
	    (d->multiple & (d->multiple - 1)) || d->multiple > MAX_MULTIPLE || !d->heads || d->heads > 16 ||
	    !d->sectors || !d->unit || d->unit > ATA_BUFFER)
		return false;
	if (d->phase == ATA_PACKET)
		return d->piece == sizeof(d->packet) && d->pos <= d->piece;
	if (d->phase == ATA_IDLE)
		return true;
	uint64_t size = d->is_cd && d->cd.block ? block_size(d->cd.block) : total_sectors(d) * BLOCK_SECTOR;
	if (d->piece > d->filled - d->at || d->pos > d->piece)
		return false;
	return d->reply || (d->offset <= size && d->left <= size - d->offset && d->filled <= d->left);
}
