/* SPDX-License-Identifier: Apache-2.0 */
/* The firmware hub: ROM that ends at 4 GiB, and flash memory below it that keeps the firmware's variables. */
#ifndef SILL_DEV_PC_ROM_H
#define SILL_DEV_PC_ROM_H

#include "dev/device.h"

struct rom;
struct flash;

/* ROM of `size` bytes (a multiple of 4 KiB, up to 16 MiB), copied from data, ending at 4 GiB. */
int rom_new(struct board *b, const uint8_t *data, size_t size, struct rom **ret, struct error *err);
/* Its memory, for who shows parts of it elsewhere. */
struct mem_block *rom_block(struct rom *r);

/*
 * Flash of `size` bytes at base with data as its content. fd: the file that holds it and gets every change;
 * the caller's, open until the device is freed. name: of that file, for messages.
 */
int flash_new(struct board *b, gpa_t base, const uint8_t *data, size_t size, int fd, const char *name,
	      struct flash **ret, struct error *err);

#endif
