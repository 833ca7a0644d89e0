/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The firmware configuration device: named blobs that the machine hands to
 * firmware and kernels (QEMU's docs/specs/fw_cfg specify it).
 */
#ifndef SILL_DEV_PC_FWCFG_H
#define SILL_DEV_PC_FWCFG_H

#include "dev/device.h"

struct fwcfg;

#define FWCFG_PORT 0x510u /* selector (2 bytes), data at 0x511, DMA address at 0x514 (8 bytes) */

/* Well-known selectors that firmware asks for */
#define FWCFG_SIGNATURE  0x0000
#define FWCFG_ID         0x0001
#define FWCFG_RAM_SIZE   0x0003 /* u64 */
#define FWCFG_NOGRAPHIC  0x0004 /* u16 */
#define FWCFG_NB_CPUS    0x0005 /* u16 */
#define FWCFG_BOOT_MENU  0x000e /* u16 */
#define FWCFG_MAX_CPUS   0x000f /* u16 */
#define FWCFG_FILE_DIR   0x0019
#define FWCFG_FILE_FIRST 0x0020

/* Ports FWCFG_PORT .. +11; signature, ID and an empty directory. On the board's list. 0 or -errno. */
int fwcfg_new(struct board *b, struct fwcfg **ret, struct error *err);
/*
 * Both copy len bytes of data. The contents are fixed before the vCPUs run and are not part of the saved
 * state. -EEXIST, -EINVAL (name of more than 55 characters or empty, selector that is a file's or reserved),
 * -ENOMEM.
 */
int fwcfg_add_item(struct fwcfg *f, uint16_t selector, const void *data, size_t len, struct error *err);
/* [io] Other content for a file that is there, of the same length. */
void fwcfg_set_file(struct fwcfg *f, const char *name, const void *data, size_t len);
int fwcfg_add_file(struct fwcfg *f, const char *name, const void *data, size_t len, struct error *err);

#endif
