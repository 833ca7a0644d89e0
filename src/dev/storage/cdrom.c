/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands of a CD-ROM drive (SCSI MMC-3, SPC-2, INF-8090) that BIOSes, boot
 * loaders and operating systems send: a data disc of one track in mode 1.
 */
#include "dev/storage/cdrom.h"

#include <string.h>

#include "base/util.h"

/* Sense keys and additional codes (SPC-2 §7.20.2) */
enum { KEY_NONE = 0, KEY_NOT_READY = 2, KEY_MEDIUM = 3, KEY_ILLEGAL = 5, KEY_ATTENTION = 6 };
#define ASC_UNRECOVERED       0x11
#define ASC_INVALID_COMMAND   0x20
#define ASC_OUT_OF_RANGE      0x21
#define ASC_INVALID_FIELD     0x24
#define ASC_CHANGED           0x28
#define ASC_NO_MEDIUM         0x3a
#define ASC_REMOVAL_PREVENTED 0x53

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

static uint32_t get16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t get32(const uint8_t *p)
{
	return get16(p) << 16 | get16(p + 2);
}

static void sense(struct cdrom *cd, struct cd_answer *a, uint8_t key, uint8_t asc, uint8_t ascq)
{
	cd->sense_key = key;
	cd->asc = asc;
	cd->ascq = ascq;
	a->failed = true;
}

static uint32_t sectors(const struct cdrom *cd)
{
	return cd->block ? (uint32_t)min_u64(block_size(cd->block) / CD_SECTOR, UINT32_MAX) : 0;
}

static void reply_up_to(struct cd_answer *a, uint32_t have, uint32_t wanted)
{
	a->reply_len = have < wanted ? have : wanted;
}

static void request_sense(struct cdrom *cd, const uint8_t *c, uint8_t *r, struct cd_answer *a)
{
	r[0] = 0x70; /* current, fixed format */
	r[2] = cd->sense_key;
	r[7] = 10;
	r[12] = cd->asc;
	r[13] = cd->ascq;
	cd->sense_key = cd->asc = cd->ascq = 0;
	reply_up_to(a, 18, c[4]);
}

static void inquiry(const uint8_t *c, uint8_t *r, struct cd_answer *a)
{
	r[0] = 5;    /* CD */
	r[1] = 0x80; /* removable */
	r[3] = 0x21; /* ATAPI */
	r[4] = 31;
	memcpy(r + 8, "SILL    ", 8);
	memcpy(r + 16, "CD-ROM          ", 16);
	memcpy(r + 32, "1   ", 4);
	reply_up_to(a, 36, c[3] ? get16(c + 3) : c[4]);
}

static void mode_sense(const struct cdrom *cd, const uint8_t *c, uint8_t *r, struct cd_answer *a, bool ten)
{
	uint8_t page = c[2] & 0x3f;
	uint32_t n = ten ? 8 : 4, wanted = ten ? get16(c + 7) : c[4];

	if (page == 0x01 || page == 0x3f) { /* error recovery */
		r[n] = 0x01;
		r[n + 1] = 6;
		r[n + 3] = 5;
		n += 8;
	}
	if (page == 0x2a || page == 0x3f) { /* capabilities */
		uint8_t *p = r + n;

		p[0] = 0x2a;
		p[1] = 0x12;
		p[2] = 0x3b; /* reads CD-R, CD-RW, DVD-ROM... */
		p[4] = 0x70;
		p[6] = (uint8_t)(0x29 | (cd->locked ? 2 : 0)); /* tray, eject, lock */
		put16(p + 8, 706);                             /* speed, KB/s */
		put16(p + 10, 2);
		put16(p + 12, 512);
		put16(p + 14, 706);
		n += 20;
	}
	if (ten)
		put16(r, n - 2);
	else
		r[0] = (uint8_t)(n - 1);
	r[ten ? 2 : 1] = cd->block ? 1 : 0x70; /* medium: data disc, none */
	reply_up_to(a, n, wanted);
}

static void put_address(uint8_t *p, uint32_t lba, bool msf)
{
	if (!msf) {
		put32(p, lba);
		return;
	}
	lba += 150;
	p[0] = 0;
	p[1] = (uint8_t)(lba / 75 / 60);
	p[2] = (uint8_t)(lba / 75 % 60);
	p[3] = (uint8_t)(lba % 75);
}

static void read_toc(struct cdrom *cd, const uint8_t *c, uint8_t *r, struct cd_answer *a)
{
	bool msf = c[1] & 2;
	uint8_t format = c[2] & 0x0f ? c[2] & 0x0f : c[9] >> 6, first = c[6];
	uint32_t n = 4;

	switch (format) {
	case 0: /* tracks */
		if (first > 1 && first != 0xaa) {
			sense(cd, a, KEY_ILLEGAL, ASC_INVALID_FIELD, 0);
			return;
		}
		r[2] = r[3] = 1;
		if (first <= 1) {
			r[n + 1] = 0x14; /* data track */
			r[n + 2] = 1;
			put_address(r + n + 4, 0, msf);
			n += 8;
		}
		r[n + 1] = 0x14;
		r[n + 2] = 0xaa;
		put_address(r + n + 4, sectors(cd), msf);
		n += 8;
		break;
	case 1: /* session */
		r[2] = r[3] = 1;
		r[n + 1] = 0x14;
		r[n + 2] = 1;
		put_address(r + n + 4, 0, msf);
		n += 8;
		break;
	case 2: /* raw: lead-in points for first, last, lead-out, track 1 */
		r[2] = r[3] = 1;
		for (unsigned i = 0; i < 4; i++, n += 11) {
			static const uint8_t point[4] = { 0xa0, 0xa1, 0xa2, 1 };

			r[n] = 1;
			r[n + 1] = 0x14;
			r[n + 3] = point[i];
			if (i < 2)
				r[n + 8] = 1;
			else
				put_address(r + n + 7, i == 2 ? sectors(cd) : 0, true);
		}
		break;
	default:
		sense(cd, a, KEY_ILLEGAL, ASC_INVALID_FIELD, 0);
		return;
	}
	put16(r, n - 2);
	reply_up_to(a, n, get16(c + 7));
}

static uint32_t feature(uint8_t *p, uint16_t code, uint8_t flags, uint8_t len)
{
	put16(p, code);
	p[2] = flags;
	p[3] = len;
	return 4u + len;
}

static void get_configuration(const struct cdrom *cd, const uint8_t *c, uint8_t *r, struct cd_answer *a)
{
	uint32_t n = 8, wanted = get16(c + 7);
	uint16_t profile = !cd->block ? 0 : sectors(cd) > 405000 ? 0x10 : 0x08; /* DVD-ROM, CD-ROM */

	put16(r + 6, profile);
	put16(r + n + 4, 0x10);
	put16(r + n + 8, 0x08);
	r[n + 6] = profile == 0x10;
	r[n + 10] = profile == 0x08;
	n += feature(r + n, 0, 3, 8); /* profile list */
	put32(r + n + 4, 2);          /* ATAPI */
	n += feature(r + n, 1, 0x0b, 8);
	r[n + 4] = 0x29; /* removable medium: tray, eject, lock */
	n += feature(r + n, 3, 0x03, 4);
	put32(r + n + 4, CD_SECTOR);
	put16(r + n + 8, 0x10);
	n += feature(r + n, 0x10, 0x01, 8); /* random readable */
	n += feature(r + n, 0x1e, 0x08 | 0x01, 4);
	put32(r, n - 4);
	reply_up_to(a, n, wanted);
}

static void get_event(struct cdrom *cd, const uint8_t *c, uint8_t *r, struct cd_answer *a)
{
	uint32_t n = 4;

	if (!(c[1] & 1)) { /* there is no asynchronous way */
		sense(cd, a, KEY_ILLEGAL, ASC_INVALID_FIELD, 0);
		return;
	}
	r[3] = 0x10; /* supported: media */
	if (c[4] & 0x10) {
		static const uint8_t codes[] = { 0, 1, 2, 3 };

		r[2] = 4;
		r[4] = codes[cd->event & 3];
		r[5] = cd->block ? 2 : 0; /* medium present, tray closed */
		n = 8;
		cd->event = CD_EVENT_NONE;
	} else {
		r[2] = 0x80;
	}
	put16(r, n - 2);
	reply_up_to(a, n, get16(c + 7));
}

static void start_stop(struct cdrom *cd, const uint8_t *c, struct cd_answer *a)
{
	bool load_eject = c[4] & 2, start = c[4] & 1;

	if (!load_eject)
		return;
	if (!start && cd->locked)
		sense(cd, a, cd->block ? KEY_ILLEGAL : KEY_NOT_READY, ASC_REMOVAL_PREVENTED, 2);
	else if (start)
		a->load = true;
	else
		a->eject = true;
}

static void read_disc(struct cdrom *cd, uint32_t lba, uint32_t n, struct cd_answer *a)
{
	if (lba > sectors(cd) || n > sectors(cd) - lba) {
		sense(cd, a, KEY_ILLEGAL, ASC_OUT_OF_RANGE, 0);
		return;
	}
	a->offset = (uint64_t)lba * CD_SECTOR;
	a->len = (uint64_t)n * CD_SECTOR;
}

/* READ CD: user data of mode 1 sectors is all that an image has. */
static void read_cd(struct cdrom *cd, const uint8_t *c, struct cd_answer *a)
{
	uint32_t n = (uint32_t)c[6] << 16 | get16(c + 7);

	if (!n || !(c[9] & 0xf8))
		return;
	if ((c[9] & 0xf8) != 0x10)
		sense(cd, a, KEY_ILLEGAL, ASC_INVALID_FIELD, 0);
	else
		read_disc(cd, get32(c + 2), n, a);
}

static void read_disc_information(const uint8_t *c, uint8_t *r, struct cd_answer *a)
{
	put16(r, 32);
	r[2] = 0x0e; /* complete, last session complete */
	r[3] = r[4] = r[5] = r[6] = 1;
	r[7] = 0x20; /* unrestricted use */
	reply_up_to(a, 34, get16(c + 7));
}

static void read_track_information(struct cdrom *cd, const uint8_t *c, uint8_t *r, struct cd_answer *a)
{
	put16(r, 26);
	r[2] = r[3] = 1;
	r[5] = 4; /* data */
	r[6] = 1;
	put32(r + 24, sectors(cd));
	reply_up_to(a, 28, get16(c + 7));
}

static bool needs_medium(uint8_t op)
{
	switch (op) {
	case 0x00: /* TEST UNIT READY */
	case 0x25: /* READ CAPACITY */
	case 0x28: /* READ(10) */
	case 0x2b: /* SEEK(10) */
	case 0x42: /* READ SUB-CHANNEL */
	case 0x43: /* READ TOC */
	case 0x51: /* READ DISC INFORMATION */
	case 0x52: /* READ TRACK INFORMATION */
	case 0xa8: /* READ(12) */
	case 0xb9: /* READ CD MSF */
	case 0xbe: /* READ CD */
		return true;
	default:
		return false;
	}
}

/* A pending unit attention goes before everything but INQUIRY, REQUEST SENSE and the event poll. */
static bool told_of_change(struct cdrom *cd, uint8_t op, struct cd_answer *a)
{
	if (!cd->changed || op == 0x12 || op == 0x03 || op == 0x4a || op == 0x46)
		return false;
	cd->changed = false;
	sense(cd, a, KEY_ATTENTION, ASC_CHANGED, 0);
	return true;
}

void cdrom_command(struct cdrom *cd, const uint8_t c[12], uint8_t *r, struct cd_answer *a)
{
	*a = (struct cd_answer){ 0 };
	memset(r, 0, CD_REPLY);
	if (told_of_change(cd, c[0], a))
		return;
	if (needs_medium(c[0]) && !cd->block) {
		sense(cd, a, KEY_NOT_READY, ASC_NO_MEDIUM, 0);
		return;
	}
	switch (c[0]) {
	case 0x00:
	case 0x2b:
	case 0x35: /* SYNCHRONIZE CACHE */
	case 0xbb: /* SET CD SPEED */
		break;
	case 0x03:
		request_sense(cd, c, r, a);
		break;
	case 0x12:
		inquiry(c, r, a);
		break;
	case 0x1a:
	case 0x5a:
		mode_sense(cd, c, r, a, c[0] == 0x5a);
		break;
	case 0x1b:
		start_stop(cd, c, a);
		break;
	case 0x1e: /* PREVENT ALLOW MEDIUM REMOVAL */
		cd->locked = c[4] & 1;
		break;
	case 0x25:
		put32(r, sectors(cd) - 1);
		put32(r + 4, CD_SECTOR);
		a->reply_len = 8;
		break;
	case 0x28:
		read_disc(cd, get32(c + 2), get16(c + 7), a);
		break;
	case 0x42:
		r[1] = 0x15; /* no audio status */
		reply_up_to(a, 4, get16(c + 7));
		break;
	case 0x43:
		read_toc(cd, c, r, a);
		break;
	case 0x46:
		get_configuration(cd, c, r, a);
		break;
	case 0x4a:
		get_event(cd, c, r, a);
		break;
	case 0x51:
		read_disc_information(c, r, a);
		break;
	case 0x52:
		read_track_information(cd, c, r, a);
		break;
	case 0xa8:
		read_disc(cd, get32(c + 2), get32(c + 6), a);
		break;
	case 0xbd: /* MECHANISM STATUS */
		reply_up_to(a, 8, get16(c + 8));
		break;
	case 0xbe:
		read_cd(cd, c, a);
		break;
	default:
		sense(cd, a, KEY_ILLEGAL, ASC_INVALID_COMMAND, 0);
		break;
	}
}

void cdrom_change(struct cdrom *cd, struct block *block)
{
	cd->block = block;
	cd->event = block ? CD_EVENT_NEW_MEDIA : CD_EVENT_REMOVAL;
	cd->changed = block != NULL;
	cd->locked = false;
}

void cdrom_read_failed(struct cdrom *cd)
{
	cd->sense_key = KEY_MEDIUM;
	cd->asc = ASC_UNRECOVERED;
	cd->ascq = 0;
}
