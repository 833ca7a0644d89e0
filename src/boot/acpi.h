/* SPDX-License-Identifier: Apache-2.0 */
/* ACPI tables that describe the machine to the guest (ACPI 6.4 chapter 5). */
#ifndef SILL_BOOT_ACPI_H
#define SILL_BOOT_ACPI_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "mem/mem.h"

/* What the machine consists of, as far as the tables say so. */
struct acpi_config {
	unsigned nr_cpus;         /* local APIC ids are 0..nr_cpus-1 */
	uint64_t pci_mem_start;   /* first address of the 32-bit PCI window; it ends at 0xfebfffff */
	uint64_t pci_mem64_start; /* 64-bit PCI window; size 0: none */
	uint64_t pci_mem64_size;
	bool pvpanic, fw_cfg; /* present at ports 505 and 510 */
	bool i8042, vga, floppy, com2, parallel;
	uint16_t pm_base; /* ports of the power-management registers */
};

#define ACPI_RESET_PORT  0xcf9u /* the host bridge's reset control register */
#define ACPI_RESET_VALUE 0x06

#define ACPI_AREA      0xe0000u /* where the tables lie; reserved in the memory map */
#define ACPI_AREA_SIZE 0x20000u

/* Writes all tables to guest memory; *rsdp is their root. -ENOSPC only if there are more CPUs than 255. */
int acpi_build(struct mem *m, const struct acpi_config *c, gpa_t *rsdp, struct error *err);

/*
 * The same tables as files for firmware, which puts them where it likes: the RSDP, the rest, and the linker's
 * commands. Free with acpi_files_free. 0, -ENOSPC or -ENOMEM.
 */
#define ACPI_RSDP_SIZE   36u
#define ACPI_FILE_RSDP   "etc/acpi/rsdp"
#define ACPI_FILE_TABLES "etc/acpi/tables"
#define ACPI_FILE_LOADER "etc/table-loader"
struct acpi_files {
	uint8_t rsdp[ACPI_RSDP_SIZE];
	uint8_t *tables, *loader;
	size_t tables_len, loader_len;
};
int acpi_build_files(const struct acpi_config *c, struct acpi_files *ret, struct error *err);
void acpi_files_free(struct acpi_files *f);

#endif
