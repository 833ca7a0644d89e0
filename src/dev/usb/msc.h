/* SPDX-License-Identifier: Apache-2.0 */
/* USB mass storage: a disk or a CD drive. */
#ifndef SILL_DEV_USB_MSC_H
#define SILL_DEV_USB_MSC_H

#include "dev/storage/scsi.h"
#include "dev/usb/usb.h"

/*
 * A disk, or a CD drive with a disc in it (block NULL: none). On the board's list. block stays the caller's,
 * outlives the device, and is drained before saving. *scsi: its logical unit. 0 or -errno.
 */
int usb_msc_new(struct board *b, bool is_cd, struct block *block, const char *serial, uint32_t instance,
		struct usb_device **ret, struct scsi_device **scsi, struct error *err);

#endif
