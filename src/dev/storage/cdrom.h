/* SPDX-License-Identifier: Apache-2.0 */
/* A CD-ROM drive as SCSI multimedia commands see it, whatever it is plugged into. */
#ifndef SILL_DEV_STORAGE_CDROM_H
#define SILL_DEV_STORAGE_CDROM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "block/block.h"

#define CD_SECTOR 2048u
#define CD_REPLY  512u /* longest answer that is not the disc's data */

struct cdrom {
	struct block *block; /* NULL: the tray is empty */
	bool locked;         /* the guest prevents removal */
	bool changed;        /* to be told once: the medium may have changed */
	uint8_t event;       /* for GET EVENT STATUS: enum cd_event */
	uint8_t sense_key, asc, ascq;
};

enum cd_event { CD_EVENT_NONE, CD_EVENT_EJECT_REQUEST, CD_EVENT_NEW_MEDIA, CD_EVENT_REMOVAL };

/* What a command asks of the transport. */
struct cd_answer {
	bool failed;          /* check condition: the sense data says why */
	uint64_t offset, len; /* len > 0: so many bytes of the disc from offset on */
	uint32_t reply_len;   /* else: so many bytes of the reply buffer */
	bool eject, load;     /* START STOP UNIT */
};

/* [io] Executes a command packet; reply has room for CD_REPLY bytes. */
void cdrom_command(struct cdrom *cd, const uint8_t packet[12], uint8_t *reply, struct cd_answer *answer);
/* [io] Another medium, or none. The caller keeps both blocks. */
void cdrom_change(struct cdrom *cd, struct block *block);
/* Sense data after a read of the disc failed. */
void cdrom_read_failed(struct cdrom *cd);

#endif
