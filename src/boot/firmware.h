/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Firmware images: which files make up the ROM that a machine starts from.
 *
 *  - bios: SeaBIOS, one image that ends at 4 GiB; its last 128 KiB are seen below 1 MiB too.
 *  - uefi: OVMF, a code image below 4 GiB and below it a store of variables that belongs to the VM and
 *    survives it. It is a file of the VM's own, made from the package's template at the first start.
 *  - a path: an image like the first.
 */
#ifndef SILL_BOOT_FIRMWARE_H
#define SILL_BOOT_FIRMWARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define FIRMWARE_MAX_SIZE (16u << 20)
#define FIRMWARE_GRAIN    4096u

struct firmware {
	char *path;
	uint8_t *code; /* size is a multiple of FIRMWARE_GRAIN */
	size_t code_size;
	/* The variable store: its content, and the file that it is kept in (locked); fd -1: there is none. */
	int vars_fd;
	char *vars_path;
	uint8_t *vars;
	size_t vars_size;
};

/*
 * folder: where packages have their data (FIRMWARE_SHARE). what: "bios", "uefi", "uefi-secure" (Microsoft's
 * keys enrolled, Secure Boot on) or a path. vars: the variable store's file, or NULL for the VM's own, which
 * vm_name names. 0 or -errno with one sentence.
 */
#define FIRMWARE_SHARE "/usr/share/"
int firmware_open(const char *folder, const char *what, const char *vars, const char *vm_name,
		  struct firmware **ret, struct error *err);
/* An option ROM (malloc'd) that a package has in a folder. 0 or -errno with one sentence. */
#define FIRMWARE_SEABIOS_FOLDER FIRMWARE_SHARE "seabios/"
int firmware_read_rom(const char *folder, const char *name, const char *package, uint8_t **ret,
		      size_t *ret_size, struct error *err);
void firmware_free(struct firmware *f);

#endif
