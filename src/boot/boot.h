/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Direct kernel boot: what firmware and boot loader would leave behind, without
 * running either.
 *
 * Five ways into a kernel, chosen by what the file is:
 *
 *  - bzImage whose payload we can decompress (xz, gzip, zstd, lzma): its
 *    vmlinux is loaded where it was linked and entered at its 64-bit entry.
 *    That saves running the decompressor in the guest.  The kernel is not
 *    relocated, so KASLR is off and the kernel is told so.
 *  - a bzImage that is a 32-bit kernel: loaded as it is and entered at its 32-bit entry.
 *  - any other 64-bit bzImage: loaded as it is and entered at its own 64-bit
 *    entry; it decompresses (and relocates) itself.
 *  - a file with a Multiboot header (multiboot.c): hobby kernels, Xen, test suites.
 *  - any other ELF file: by PVH if it has the note (32-bit entry, Xen's
 *    hvm/start_info.h), else as a vmlinux at its 64-bit entry.
 *
 * Each of them may be compressed by gzip as a whole.
 *
 * Guest-physical memory below 1 MiB, as laid out here:
 *
 *	0x00000  interrupt vectors     0x00400  BIOS data area
 *	0x01000  GDT                   0x08000  boot_params or hvm_start_info
 *	0x02000  PML4, PDPT, 4 PDs     0x10000  command line
 *	0x9fc00  reserved (EBDA)       0xe0000  ACPI tables (boot/acpi.h)
 *	0xffe60  in place of a BIOS; the processor, when it is reset, finds it below 4 GiB (BOOT_ROM_ALIAS)
 */
#ifndef SILL_BOOT_BOOT_H
#define SILL_BOOT_BOOT_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "mem/mem.h"

struct boot_image;
struct x86_state;

/* Where the last 64 KiB of the first MiB are to be seen, too, read-only. */
#define BOOT_ROM       0xf0000u
#define BOOT_ROM_ALIAS 0xffff0000u
#define BOOT_ROM_SIZE  0x10000u

/*
 * Reads and checks a kernel, and opens an initrd (NULL: none).  The files stay
 * open, so that the VM can be reset even if others take their names meanwhile; the
 * kernel's content is in memory until the first boot, and then read again for each.
 * 0 or -errno with a sentence that names the file.
 */
int boot_image_open(const char *kernel_path, const char *initrd_path, struct boot_image **ret,
		    struct error *err);
/* Opens a module for a Multiboot kernel: "FILE" or "FILE ARGUMENTS". Those added come before the initrd. */
int boot_image_add_module(struct boot_image *b, const char *module, struct error *err);
void boot_image_free(struct boot_image *b);

/* The same from a kernel in memory (copied), for tests and the fuzzer. */
int boot_image_parse(const char *name, const uint8_t *data, size_t size, struct boot_image **ret,
		     struct error *err);

struct boot_config {
	const char *cmdline;
	gpa_t rsdp; /* from acpi_build; 0: none */
};

/* Sets registers that firmware sets on every processor after reset: the MTRRs. phys_bits: of the CPU model.
 */
void boot_firmware_state(struct x86_state *s, unsigned phys_bits);

/*
 * Loads the image and puts the boot processor (in RESET state) at its entry.
 * Called again after each reset.  0, or -errno with a sentence: does not fit
 * in the VM's memory, command line too long, ...; the guest must not run then.
 */
int boot_linux(struct mem *m, struct boot_image *b, const struct boot_config *c, struct x86_state *s,
	       struct error *err);

#endif
