/* SPDX-License-Identifier: Apache-2.0 */
/* A VGA with Bochs' VBE extensions on PCI: 1234:1111, what firmware and drivers know as "stdvga". */
#ifndef SILL_DEV_DISPLAY_VGA_H
#define SILL_DEV_DISPLAY_VGA_H

#include "dev/device.h"
#include "ui/display.h"

struct pci_bus;
struct vga;

/*
 * rom: its BIOS of rom_size bytes (up to 128 KiB), copied; NULL: none. d becomes this device's display and
 * outlives it. 0 or -errno.
 */
int vga_new(struct board *b, struct pci_bus *bus, const uint8_t *rom, size_t rom_size, struct display *d,
	    struct vga **ret, struct error *err);
/* Before the first reset: each leaves text mode, with the font of that VGA BIOS (NULL, 0: blank characters).
 */
void vga_begin_with_text(struct vga *v, const uint8_t *bios, size_t size);

#endif
