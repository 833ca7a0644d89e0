/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SCSI logical units, whatever they are plugged into: disks (SBC-3) and CD-ROM
 * drives (MMC, by cdrom.c).
 *
 * A transport fills a struct scsi_task and starts it; `done` is called once, maybe
 * before scsi_start returns.  The medium's data moves straight between the backend
 * and the transport's memory.  Any number of tasks may be in flight.  All under the
 * I/O lock.
 */
#ifndef SILL_DEV_STORAGE_SCSI_H
#define SILL_DEV_STORAGE_SCSI_H

#include <sys/uio.h>

#include "block/block.h"
#include "dev/storage/cdrom.h"

#define SCSI_SENSE 18u /* bytes of sense data, fixed format */

enum { SCSI_GOOD = 0x00, SCSI_CHECK_CONDITION = 0x02 };

struct scsi_device {
	struct block *block; /* a disk's; a CD's is in cd */
	bool is_cd;
	struct cdrom cd;
	/* What START STOP UNIT asks for: the machine opens and closes trays. */
	void (*tray)(void *opaque, bool eject);
	void *tray_opaque;
	char serial[21];
	/* The transport does not hand over sense data with the status: REQUEST SENSE will ask for it. */
	bool keeps_sense;
	uint8_t sense_key, asc, ascq; /* a disk's, kept */
};

struct scsi_task {
	struct scsi_device *dev;
	uint8_t cdb[16];
	uint32_t lun; /* there is only unit 0 */
	/* Memory for the data, valid until `done`; the iovecs may be altered. */
	struct iovec *out, *in; /* from the host, to the host */
	unsigned nout, nin;
	uint64_t out_len, in_len;
	void (*done)(struct scsi_task *t);
	/* results */
	uint8_t status;
	uint64_t moved; /* bytes of data, in whichever direction */
	uint8_t sense[SCSI_SENSE];
	/* private */
	void (*after)(struct scsi_task *t);
	struct block_req req;
	struct iovec iov;
	bool fua;
	uint8_t *buf; /* a list of ranges, or a repeated sector */
	uint32_t at, count;
	uint64_t offset, left;
};

/* The command's sense data, status and so on are reset; the rest of the task is the caller's. */
void scsi_start(struct scsi_task *t);

/*
 * Is the command a read or write of the medium that can be done?  Then the transport may move the data
 * itself, in pieces, with the block of scsi_medium.  False: start it as a task, which will say what is wrong.
 */
struct scsi_transfer {
	bool write, fua;
	uint64_t offset, len;
};
bool scsi_transfer(struct scsi_device *d, const uint8_t cdb[16], struct scsi_transfer *ret);
struct block *scsi_medium(const struct scsi_device *d);
/* Such a piece failed: sense data for the next REQUEST SENSE. */
void scsi_transfer_failed(struct scsi_device *d, int result);
void scsi_reset(struct scsi_device *d);

#define SCSI_FIELDS(S, m)                                                                                    \
	F_U8(S, m.sense_key), F_U8(S, m.asc), F_U8(S, m.ascq), F_BOOL(S, m.cd.locked),                       \
	    F_BOOL(S, m.cd.changed), F_U8(S, m.cd.event), F_U8(S, m.cd.sense_key), F_U8(S, m.cd.asc),        \
	    F_U8(S, m.cd.ascq)

#endif
