/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A direct-access block device (SPC-4, SBC-3) with a write cache, thin provisioning
 * (UNMAP, WRITE SAME with the unmap bit) and no reservations; and what turns a CD's
 * packet commands into the same kind of task.
 *
 * A command either ends within scsi_start, or its task waits for the backend; then
 * `after` says how it goes on.
 */
#include "dev/storage/scsi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/iov.h"
#include "base/util.h"

/* Sense keys and additional codes (SPC-4 §4.5.6, annex D) */
enum { KEY_NONE = 0, KEY_NOT_READY = 2, KEY_MEDIUM = 3, KEY_ILLEGAL = 5, KEY_PROTECT = 7, KEY_ABORTED = 0xb };
#define ASC_WRITE_FAULT     0x03
#define ASC_UNRECOVERED     0x11
#define ASC_LIST_LENGTH     0x1a
#define ASC_INVALID_COMMAND 0x20
#define ASC_OUT_OF_RANGE    0x21
#define ASC_INVALID_FIELD   0x24
#define ASC_NO_UNIT         0x25
#define ASC_PROTECTED       0x27
#define ASC_INTERNAL        0x44

#define MAX_RANGES  256u                     /* of an UNMAP */
#define MAX_SAME    (MIB(64) / BLOCK_SECTOR) /* sectors of a WRITE SAME */
#define SAME_BUFFER (256u << 10)
#define REPLY_SIZE  CD_REPLY
#define FUA         0x08
#define UNMAP_BIT   0x08

static uint32_t get16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t get32(const uint8_t *p)
{
	return get16(p) << 16 | get16(p + 2);
}

static uint64_t get64(const uint8_t *p)
{
	return (uint64_t)get32(p) << 32 | get32(p + 4);
}

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

static void put64(uint8_t *p, uint64_t v)
{
	put32(p, (uint32_t)(v >> 32));
	put32(p + 4, (uint32_t)v);
}

struct block *scsi_medium(const struct scsi_device *d)
{
	return d->is_cd ? d->cd.block : d->block;
}

static uint64_t sectors(const struct scsi_device *d)
{
	return block_size(d->block) / BLOCK_SECTOR;
}

/* ---- ends ---- */

static void finish(struct scsi_task *t)
{
	free(t->buf);
	t->buf = NULL;
	t->done(t);
}

static void put_sense(uint8_t *p, uint8_t key, uint8_t asc, uint8_t ascq)
{
	memset(p, 0, SCSI_SENSE);
	p[0] = 0x70; /* current, fixed format */
	p[2] = key;
	p[7] = SCSI_SENSE - 8;
	p[12] = asc;
	p[13] = ascq;
}

static void fail(struct scsi_task *t, uint8_t key, uint8_t asc)
{
	struct scsi_device *d = t->dev;

	t->status = SCSI_CHECK_CONDITION;
	t->moved = 0;
	put_sense(t->sense, key, asc, 0);
	if (d->keeps_sense) {
		d->sense_key = key;
		d->asc = asc;
		d->ascq = 0;
	}
	finish(t);
}

/* A CD keeps its sense data itself. */
static void fail_cd(struct scsi_task *t)
{
	struct cdrom *cd = &t->dev->cd;

	t->status = SCSI_CHECK_CONDITION;
	t->moved = 0;
	put_sense(t->sense, cd->sense_key, cd->asc, cd->ascq);
	if (!t->dev->keeps_sense)
		cd->sense_key = cd->asc = cd->ascq = 0;
	finish(t);
}

static void fail_io(struct scsi_task *t, int result)
{
	if (t->dev->is_cd) {
		cdrom_read_failed(&t->dev->cd);
		fail_cd(t);
	} else if (result == -EROFS) {
		fail(t, KEY_PROTECT, ASC_PROTECTED);
	} else {
		fail(t, KEY_MEDIUM, t->req.op == BLOCK_READ ? ASC_UNRECOVERED : ASC_WRITE_FAULT);
	}
}

static void reply(struct scsi_task *t, const uint8_t *p, uint32_t len, uint32_t wanted)
{
	t->moved = iov_from_buf(t->in, t->nin, 0, p, min_u64(len, wanted));
	finish(t);
}

/* ---- the backend ---- */

static void io_done(struct block_req *r, int result)
{
	struct scsi_task *t = container_of(r, struct scsi_task, req);

	if (result && r->op != BLOCK_DISCARD)
		fail_io(t, result);
	else
		t->after(t);
}

static void submit(struct scsi_task *t, enum block_op op, uint64_t offset, uint64_t len, struct iovec *iov,
		   unsigned n, void (*after)(struct scsi_task *t))
{
	t->after = after;
	t->req = (struct block_req){
		.op = op, .offset = offset, .len = len, .iov = iov, .iovcnt = n, .done = io_done
	};
	t->req.unmap = t->cdb[1] & UNMAP_BIT;
	block_submit(scsi_medium(t->dev), &t->req);
}

static void after_write(struct scsi_task *t)
{
	if (t->fua)
		submit(t, BLOCK_FLUSH, 0, 0, NULL, 0, finish);
	else
		finish(t);
}

/* ---- what the device says of itself ---- */

static uint32_t vpd_limits(const struct scsi_device *d, uint8_t *r)
{
	r[4] = 1;        /* WRITE SAME of nothing is refused */
	put16(r + 6, 8); /* optimal granularity: what the host's page cache works in */
	if (!block_readonly(d->block)) {
		put32(r + 20, UINT32_MAX); /* sectors and ranges of an UNMAP */
		put32(r + 24, MAX_RANGES);
		put32(r + 28, 8);
		put64(r + 36, MAX_SAME);
	}
	return 64;
}

/* Vital product data (SPC-4 §7.8, SBC-3 §6.5). 0: no such page. */
static uint32_t vpd(const struct scsi_device *d, uint8_t page, uint8_t *r)
{
	static const uint8_t pages[] = { 0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2 };
	uint32_t n = (uint32_t)strlen(d->serial);

	r[1] = page;
	switch (page) {
	case 0x00:
		memcpy(r + 4, pages, sizeof(pages));
		n = 4 + sizeof(pages);
		break;
	case 0x80: /* serial number */
		memcpy(r + 4, d->serial, n);
		n += 4;
		break;
	case 0x83: /* identification: vendor and serial number */
		r[4] = 2;
		r[5] = 1;
		r[7] = (uint8_t)(8 + n);
		memcpy(r + 8, "SILL    ", 8);
		memcpy(r + 16, d->serial, n);
		n += 16;
		break;
	case 0xb0:
		n = vpd_limits(d, r);
		break;
	case 0xb1: /* medium: does not rotate */
		put16(r + 4, 1);
		n = 64;
		break;
	case 0xb2: /* UNMAP, WRITE SAME (16) and (10) unmap; thin */
		r[5] = block_readonly(d->block) ? 0 : 0xe0;
		r[6] = block_readonly(d->block) ? 0 : 2;
		n = 8;
		break;
	default:
		return 0;
	}
	put16(r + 2, n - 4);
	return n;
}

static void inquiry(struct scsi_task *t, uint8_t *r)
{
	uint32_t n = 36;

	if (t->lun) {
		r[0] = 0x7f; /* no such unit */
	} else if (t->cdb[1] & 1) {
		n = vpd(t->dev, t->cdb[2], r);
		if (!n) {
			fail(t, KEY_ILLEGAL, ASC_INVALID_FIELD);
			return;
		}
		reply(t, r, n, get16(t->cdb + 3));
		return;
	} else if (t->cdb[2]) {
		fail(t, KEY_ILLEGAL, ASC_INVALID_FIELD);
		return;
	}
	r[2] = 6; /* SPC-4 */
	r[3] = 2;
	r[4] = 31;
	r[7] = 2; /* commands are queued */
	memcpy(r + 8, "SILL    ", 8);
	memcpy(r + 16, "HARDDISK        ", 16);
	memcpy(r + 32, "1   ", 4);
	reply(t, r, n, get16(t->cdb + 3));
}

static void request_sense(struct scsi_task *t, uint8_t *r)
{
	struct scsi_device *d = t->dev;

	if (t->lun) {
		put_sense(r, KEY_ILLEGAL, ASC_NO_UNIT, 0);
	} else {
		put_sense(r, d->sense_key, d->asc, d->ascq);
		d->sense_key = d->asc = d->ascq = 0;
	}
	reply(t, r, SCSI_SENSE, t->cdb[4]);
}

/* The list holds the one unit there is. */
static void report_luns(struct scsi_task *t, uint8_t *r)
{
	put32(r, 8);
	reply(t, r, 16, get32(t->cdb + 6));
}

static void capacity10(struct scsi_task *t, uint8_t *r)
{
	put32(r, (uint32_t)min_u64(sectors(t->dev) - 1, UINT32_MAX));
	put32(r + 4, BLOCK_SECTOR);
	reply(t, r, 8, 8);
}

static void capacity16(struct scsi_task *t, uint8_t *r)
{
	if ((t->cdb[1] & 31) != 0x10) {
		fail(t, KEY_ILLEGAL, ASC_INVALID_FIELD);
		return;
	}
	put64(r, sectors(t->dev) - 1);
	put32(r + 8, BLOCK_SECTOR);
	r[13] = 3;                                        /* 8 sectors are one physical block */
	r[14] = block_readonly(t->dev->block) ? 0 : 0x80; /* thin */
	reply(t, r, 32, get32(t->cdb + 10));
}

/* Pages: error recovery, caching, control. changeable: nothing is. 0: no such page. */
static uint32_t mode_pages(uint8_t *r, uint8_t page, bool changeable)
{
	uint32_t n = 0;

	if (page == 0x01 || page == 0x3f) {
		r[n] = 0x01;
		r[n + 1] = 10;
		n += 12;
	}
	if (page == 0x08 || page == 0x3f) {
		r[n] = 0x08;
		r[n + 1] = 18;
		r[n + 2] = changeable ? 0 : 4; /* the write cache is on */
		n += 20;
	}
	if (page == 0x0a || page == 0x3f) {
		r[n] = 0x0a;
		r[n + 1] = 10;
		n += 12;
	}
	return n;
}

static void mode_sense(struct scsi_task *t, uint8_t *r)
{
	bool ten = t->cdb[0] == 0x5a, descriptor = !(t->cdb[1] & 8);
	uint8_t control = t->cdb[2] >> 6;
	uint32_t n = ten ? 8 : 4, pages;

	if (control == 3) { /* saved values: there are none */
		fail(t, KEY_ILLEGAL, 0x39);
		return;
	}
	r[ten ? 3 : 2] = (uint8_t)(0x10 | (block_readonly(t->dev->block) ? 0x80 : 0)); /* FUA; protected */
	if (descriptor) {
		put32(r + n, (uint32_t)min_u64(sectors(t->dev), UINT32_MAX));
		put32(r + n + 4, BLOCK_SECTOR);
		if (!ten && sectors(t->dev) > 0xffffff)
			put32(r + n, 0xffffff);
		r[ten ? 7 : 3] = 8;
		n += 8;
	}
	pages = mode_pages(r + n, t->cdb[2] & 0x3f, control == 1);
	if (!pages) {
		fail(t, KEY_ILLEGAL, ASC_INVALID_FIELD);
		return;
	}
	n += pages;
	if (ten)
		put16(r, n - 2);
	else
		r[0] = (uint8_t)(n - 1);
	reply(t, r, n, ten ? get16(t->cdb + 7) : t->cdb[4]);
}

/* ---- transfers ---- */

/* Address and length of the commands that have them (SBC-3 §5): 6, 10, 12 and 16 bytes long. */
static void place(const uint8_t *c, uint64_t *lba, uint64_t *n)
{
	switch (c[0] >> 5) {
	case 0:
		*lba = (uint64_t)(c[1] & 31) << 16 | get16(c + 2);
		*n = c[4] ? c[4] : 256;
		break;
	case 4:
		*lba = get64(c + 2);
		*n = get32(c + 10);
		break;
	case 5:
		*lba = get32(c + 2);
		*n = get32(c + 6);
		break;
	default:
		*lba = get32(c + 2);
		*n = get16(c + 7);
		break;
	}
}

static bool on_disk(const struct scsi_device *d, uint64_t lba, uint64_t n)
{
	return lba <= sectors(d) && n <= sectors(d) - lba;
}

static bool is_read(uint8_t op)
{
	return op == 0x08 || op == 0x28 || op == 0xa8 || op == 0x88;
}

/* WRITE, and WRITE AND VERIFY */
static bool is_write(uint8_t op)
{
	return op == 0x0a || op == 0x2a || op == 0xaa || op == 0x8a || op == 0x2e || op == 0xae || op == 0x8e;
}

static bool cd_transfer(struct scsi_device *d, const uint8_t *cdb, struct scsi_transfer *ret)
{
	uint8_t r[CD_REPLY];
	struct cd_answer a;

	/* Only what has no side effect before it is known whether it can be done. */
	if (!d->cd.block || d->cd.changed || (cdb[0] != 0x28 && cdb[0] != 0xa8))
		return false;
	cdrom_command(&d->cd, cdb, r, &a);
	*ret = (struct scsi_transfer){ .offset = a.offset, .len = a.len };
	return !a.failed && a.len;
}

bool scsi_transfer(struct scsi_device *d, const uint8_t cdb[16], struct scsi_transfer *ret)
{
	uint64_t lba, n;

	if (d->is_cd)
		return cd_transfer(d, cdb, ret);
	if (!is_read(cdb[0]) && !is_write(cdb[0]))
		return false;
	place(cdb, &lba, &n);
	if (!n || !on_disk(d, lba, n) || (is_write(cdb[0]) && block_readonly(d->block)))
		return false;
	ret->write = is_write(cdb[0]);
	ret->fua = ret->write && ((cdb[0] >= 0x20 && (cdb[1] & FUA)) || (cdb[0] & 0x0f) == 0x0e);
	ret->offset = lba * BLOCK_SECTOR;
	ret->len = n * BLOCK_SECTOR;
	return true;
}

void scsi_transfer_failed(struct scsi_device *d, int result)
{
	if (d->is_cd) {
		cdrom_read_failed(&d->cd);
		return;
	}
	d->sense_key = result == -EROFS ? KEY_PROTECT : KEY_MEDIUM;
	d->asc = result == -EROFS ? ASC_PROTECTED : ASC_UNRECOVERED;
	d->ascq = 0;
}

static void read_medium(struct scsi_task *t, uint64_t offset, uint64_t len)
{
	len = min_u64(len, t->in_len);
	iov_cut_back(t->in, &t->nin, t->in_len - len);
	t->moved = len;
	submit(t, BLOCK_READ, offset, len, t->in, t->nin, finish);
}

static void read_write(struct scsi_task *t)
{
	struct scsi_device *d = t->dev;
	struct scsi_transfer x;
	uint64_t lba, n;

	place(t->cdb, &lba, &n);
	if (!on_disk(d, lba, n)) {
		fail(t, KEY_ILLEGAL, ASC_OUT_OF_RANGE);
	} else if (is_write(t->cdb[0]) && block_readonly(d->block)) {
		fail(t, KEY_PROTECT, ASC_PROTECTED);
	} else if (!n) {
		finish(t);
	} else if (!scsi_transfer(d, t->cdb, &x) || (x.write && t->out_len < x.len)) {
		fail(t, KEY_ILLEGAL, ASC_INVALID_FIELD);
	} else if (x.write) {
		iov_cut_back(t->out, &t->nout, t->out_len - x.len);
		t->moved = x.len;
		t->fua = x.fua;
		submit(t, BLOCK_WRITE, x.offset, x.len, t->out, t->nout, after_write);
	} else {
		read_medium(t, x.offset, x.len);
	}
}

/* VERIFY without comparison: is it there? */
static void verify(struct scsi_task *t)
{
	uint64_t lba, n;

	place(t->cdb, &lba, &n);
	if (t->cdb[1] & 6)
		fail(t, KEY_ILLEGAL, ASC_INVALID_FIELD);
	else if (!on_disk(t->dev, lba, n))
		fail(t, KEY_ILLEGAL, ASC_OUT_OF_RANGE);
	else
		finish(t);
}

/* ---- UNMAP ---- */

static void next_range(struct scsi_task *t)
{
	while (t->at < t->count) {
		const uint8_t *p = t->buf + 16 * t->at++;
		uint64_t lba = get64(p), n = get32(p + 8);

		if (n) {
			submit(t, BLOCK_DISCARD, lba * BLOCK_SECTOR, n * BLOCK_SECTOR, NULL, 0, next_range);
			return;
		}
	}
	finish(t);
}

static void unmap(struct scsi_task *t)
{
	uint32_t len = get16(t->cdb + 7), list;
	uint8_t header[8];

	if (block_readonly(t->dev->block)) {
		fail(t, KEY_PROTECT, ASC_PROTECTED);
		return;
	}
	if (len < sizeof(header)) { /* nothing to do, or half a header */
		if (len)
			fail(t, KEY_ILLEGAL, ASC_LIST_LENGTH);
		else
			finish(t);
		return;
	}
	if (iov_to_buf(t->out, t->nout, 0, header, sizeof(header)) != sizeof(header)) {
		fail(t, KEY_ILLEGAL, ASC_LIST_LENGTH);
		return;
	}
	list = (uint32_t)min_u64(get16(header + 2), len - sizeof(header)) & ~15u;
	t->count = list / 16;
	if (t->count > MAX_RANGES) {
		fail(t, KEY_ILLEGAL, 0x26); /* invalid field in the list */
		return;
	}
	t->buf = malloc(list ? list : 1);
	if (!t->buf || iov_to_buf(t->out, t->nout, sizeof(header), t->buf, list) != list) {
		fail(t, t->buf ? KEY_ILLEGAL : KEY_ABORTED, t->buf ? ASC_LIST_LENGTH : ASC_INTERNAL);
		return;
	}
	for (uint32_t i = 0; i < t->count; i++) {
		if (!on_disk(t->dev, get64(t->buf + 16 * i), get32(t->buf + 16 * i + 8))) {
			fail(t, KEY_ILLEGAL, ASC_OUT_OF_RANGE);
			return;
		}
	}
	t->moved = len;
	t->at = 0;
	next_range(t);
}

/* ---- WRITE SAME ---- */

static void write_same_more(struct scsi_task *t)
{
	uint64_t offset = t->offset, n = min_u64(t->left, SAME_BUFFER);

	if (!n) {
		finish(t);
		return;
	}
	t->offset += n;
	t->left -= n;
	t->iov = (struct iovec){ t->buf, n };
	submit(t, BLOCK_WRITE, offset, n, &t->iov, 1, write_same_more);
}

static void write_same(struct scsi_task *t)
{
	static const uint8_t zeroes[BLOCK_SECTOR];
	uint8_t sector[BLOCK_SECTOR] = { 0 };
	bool no_data = t->cdb[0] == 0x93 && (t->cdb[1] & 1);
	uint64_t lba, n;

	place(t->cdb, &lba, &n);
	if (block_readonly(t->dev->block)) {
		fail(t, KEY_PROTECT, ASC_PROTECTED);
		return;
	}
	if (!n || n > MAX_SAME || (t->cdb[1] & 0xf6 & ~(UNMAP_BIT | 0x10))) {
		fail(t, KEY_ILLEGAL, ASC_INVALID_FIELD);
		return;
	}
	if (!on_disk(t->dev, lba, n)) {
		fail(t, KEY_ILLEGAL, ASC_OUT_OF_RANGE);
		return;
	}
	if (!no_data && iov_to_buf(t->out, t->nout, 0, sector, sizeof(sector)) != sizeof(sector)) {
		fail(t, KEY_ILLEGAL, ASC_INVALID_FIELD);
		return;
	}
	t->moved = no_data ? 0 : sizeof(sector);
	t->offset = lba * BLOCK_SECTOR;
	t->left = n * BLOCK_SECTOR;
	if (!memcmp(sector, zeroes, sizeof(sector))) {
		submit(t, BLOCK_ZEROES, t->offset, t->left, NULL, 0, finish);
		return;
	}
	t->buf = malloc(SAME_BUFFER);
	if (!t->buf) {
		fail(t, KEY_ABORTED, ASC_INTERNAL);
		return;
	}
	for (uint32_t i = 0; i < SAME_BUFFER; i += BLOCK_SECTOR)
		memcpy(t->buf + i, sector, sizeof(sector));
	write_same_more(t);
}

/* ---- commands ---- */

static void cd_command(struct scsi_task *t, uint8_t *r)
{
	struct scsi_device *d = t->dev;
	struct cd_answer a;

	cdrom_command(&d->cd, t->cdb, r, &a);
	if ((a.eject || a.load) && d->tray)
		d->tray(d->tray_opaque, a.eject);
	if (a.failed)
		fail_cd(t);
	else if (a.len)
		read_medium(t, a.offset, a.len);
	else
		reply(t, r, a.reply_len, a.reply_len);
}

static void disk_command(struct scsi_task *t, uint8_t *r)
{
	uint8_t op = t->cdb[0];

	if (is_read(op) || is_write(op)) {
		read_write(t);
		return;
	}
	switch (op) {
	case 0x00: /* TEST UNIT READY */
	case 0x1b: /* START STOP UNIT */
	case 0x1e: /* PREVENT ALLOW MEDIUM REMOVAL */
		finish(t);
		break;
	case 0x1a:
	case 0x5a:
		mode_sense(t, r);
		break;
	case 0x25:
		capacity10(t, r);
		break;
	case 0x2b: /* SEEK (10) */
	case 0x2f:
	case 0xaf:
	case 0x8f:
		verify(t);
		break;
	case 0x35:
	case 0x91:
		submit(t, BLOCK_FLUSH, 0, 0, NULL, 0, finish);
		break;
	case 0x41:
	case 0x93:
		write_same(t);
		break;
	case 0x42:
		unmap(t);
		break;
	case 0x9e:
		capacity16(t, r);
		break;
	default:
		fail(t, KEY_ILLEGAL, ASC_INVALID_COMMAND);
		break;
	}
}

void scsi_start(struct scsi_task *t)
{
	uint8_t r[REPLY_SIZE] = { 0 }, op = t->cdb[0];

	t->status = SCSI_GOOD;
	t->moved = 0;
	t->buf = NULL;
	t->fua = false;
	if (op == 0xa0)
		report_luns(t, r);
	else if (op == 0x12 && (!t->dev->is_cd || t->lun))
		inquiry(t, r);
	else if (op == 0x03 && (!t->dev->is_cd || t->lun))
		request_sense(t, r);
	else if (t->lun)
		fail(t, KEY_ILLEGAL, ASC_NO_UNIT);
	else if (t->dev->is_cd)
		cd_command(t, r);
	else
		disk_command(t, r);
}

void scsi_reset(struct scsi_device *d)
{
	d->sense_key = d->asc = d->ascq = 0;
	d->cd.sense_key = d->cd.asc = d->cd.ascq = 0;
	d->cd.locked = false;
}
