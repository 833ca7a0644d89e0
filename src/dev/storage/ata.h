/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ATA and ATAPI drives (ATA/ATAPI-7), as controllers see them: registers, commands,
 * and data that moves in pieces.
 *
 * A controller puts a command's parameters into the registers and calls
 * ata_command.  The drive then says by its `ops` what comes next: a piece of data
 * is in `buf` for the host or wanted from it (drq for programmed I/O, dma), or the
 * command is done.  When the controller has moved the piece, it calls
 * ata_piece_moved.  All under the I/O lock.
 */
#ifndef SILL_DEV_STORAGE_ATA_H
#define SILL_DEV_STORAGE_ATA_H

#include "block/block.h"
#include "dev/device.h"
#include "dev/storage/cdrom.h"

#define ATA_BUFFER (128u << 10)

/* Status and error registers */
#define ATA_BSY  0x80
#define ATA_DRDY 0x40
#define ATA_DF   0x20
#define ATA_DSC  0x10
#define ATA_DRQ  0x08
#define ATA_ERR  0x01
#define ATA_ABRT 0x04
#define ATA_IDNF 0x10
#define ATA_UNC  0x40

struct ata_drive;

struct ata_ops {
	/* A piece is there (or wanted). irq: the host is to be interrupted. */
	void (*drq)(void *opaque, struct ata_drive *d, bool irq);
	void (*dma)(void *opaque, struct ata_drive *d);
	void (*done)(void *opaque, struct ata_drive *d);
};

enum ata_phase { ATA_IDLE, ATA_BUSY, ATA_IN, ATA_OUT, ATA_PACKET };

struct ata_drive {
	const struct ata_ops *ops;
	void *opaque;
	struct block *block; /* a disk's; a CD's is in cd; NULL and !is_cd: there is no drive */
	bool is_cd;
	struct cdrom cd;
	/* What START STOP UNIT asks for: the machine opens and closes trays. */
	void (*tray)(void *opaque, bool eject);
	void *tray_opaque;
	char serial[21];
	/* On a serial ATA link: commands that the host may queue (the controller executes those); 0: none. */
	uint8_t queue_depth;

	/* The host's registers: low bytes, and the high ones of 48-bit commands. */
	uint8_t feature, count, lba[3], device, status, error, command;
	uint8_t count_hob, lba_hob[3], feature_hob;

	uint8_t phase; /* enum ata_phase */
	bool is_dma;   /* of the command in progress */
	bool is_write, lba48;
	uint8_t heads, sectors; /* how the host counts cylinders */
	uint8_t multiple;       /* sectors a piece for READ/WRITE MULTIPLE; 0: not set */
	uint8_t packet[12];
	uint16_t byte_limit; /* for a packet command's pieces */

	/* The transfer: bytes of the medium from offset on, all in all; what of it is in buf. */
	uint64_t offset, left;
	uint32_t filled; /* bytes in buf */
	uint32_t at;     /* of the piece in buf */
	uint32_t piece;  /* its length */
	uint32_t unit;   /* the most that a piece may have */
	uint32_t pos;    /* how much of the piece a controller that moves bytes has moved */
	bool reply;      /* buf has an answer, not the medium's data */
	uint8_t buf[ATA_BUFFER];

	struct block_req req;
	struct iovec iov;
	bool in_flight, stopping;
	bool moved, advancing; /* ata_piece_moved */

	/* The queued command that failed last, for the log that the host reads then. */
	uint8_t failed_tag; /* ATA_NO_TAG: none */
	uint64_t failed_lba;
	uint32_t failed_count;
};

#define ATA_NO_TAG 0xff

void ata_init(struct ata_drive *d, const struct ata_ops *ops, void *opaque);
bool ata_present(const struct ata_drive *d);
/* A disk's own geometry. */
struct ata_geometry {
	uint16_t cylinders;
	uint8_t heads, sectors;
} ata_geometry(const struct ata_drive *d);
/* Power-on or bus reset: waits for what is in flight, then signature and idle. */
void ata_reset(struct ata_drive *d);
void ata_command(struct ata_drive *d, uint8_t command);
void ata_piece_moved(struct ata_drive *d);
/* The packet that a drive in phase ATA_PACKET waits for is in d->packet. */
void ata_packet(struct ata_drive *d);
/* A piece cannot be moved (DMA out of bounds): ends the command with an error. */
void ata_abort(struct ata_drive *d);
/* Checks loaded state. */
bool ata_state_ok(const struct ata_drive *d);

/* Between commands, registers are all the state. */
#define ATA_REGISTER_FIELDS(S, m)                                                                            \
	F_BOOL(S, m.cd.locked), F_BOOL(S, m.cd.changed), F_U8(S, m.cd.event), F_U8(S, m.cd.sense_key),       \
	    F_U8(S, m.cd.asc), F_U8(S, m.cd.ascq), F_U8(S, m.feature), F_U8(S, m.count), F_BYTES(S, m.lba),  \
	    F_U8(S, m.device), F_U8(S, m.status), F_U8(S, m.error), F_U8(S, m.command),                      \
	    F_U8(S, m.count_hob), F_BYTES(S, m.lba_hob), F_U8(S, m.feature_hob), F_U8(S, m.multiple),        \
	    F_U8(S, m.heads), F_U8(S, m.sectors)

#define ATA_FIELDS(S, m)                                                                                     \
	ATA_REGISTER_FIELDS(S, m), F_U8(S, m.phase), F_BOOL(S, m.is_dma), F_BOOL(S, m.is_write),             \
	    F_BOOL(S, m.lba48), F_BYTES(S, m.packet), F_U16(S, m.byte_limit), F_U64(S, m.offset),            \
	    F_U64(S, m.left), F_U32(S, m.filled), F_U32(S, m.at), F_U32(S, m.piece), F_U32(S, m.unit),       \
	    F_U32(S, m.pos), F_BOOL(S, m.reply), F_BYTES(S, m.buf)

#endif
