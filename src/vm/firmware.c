/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a machine that starts from firmware has and firmware asks for: ROM and
 * flash at the top of the first 4 GiB, and the configuration device's files
 * (memory map, ACPI tables, boot order, where the screen is).
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "boot/acpi.h"
#include "boot/firmware.h"
#include "dev/pc/acpi_pm.h"
#include "dev/pc/rom.h"
#include "vm/vm_internal.h"

int vm_firmware_open(struct vm *vm, struct error *err)
{
	const struct vm_config *c = vm->config;
	return firmware_open(FIRMWARE_SHARE, c->firmware, c->firmware_vars, c->name, &vm->firmware, err);
}

int vm_firmware_add_rom(struct vm *vm, struct mem_block **ret, struct error *err)
{
	struct board *b = &vm->board;
	struct firmware *f = vm->firmware;
	struct rom *rom;
	struct flash *flash;
	*ret = NULL;
	if (!f) {
		/* What direct boot leaves in place of a BIOS. */
		vm->boot_rom = (struct io_region){ .name = "boot",
						   .base = BOOT_ROM_ALIAS,
						   .size = BOOT_ROM_SIZE,
						   .block = mem_ram_as_block(vm->mem),
						   .block_offset = BOOT_ROM,
						   .readonly = true };
		mem_map_mmio(vm->mem, &vm->boot_rom);
		return 0;
	}
	int r = rom_new(b, f->code, f->code_size, &rom, err);
	if (!r && f->vars)
		r = flash_new(b, GPA(GIB(4) - f->code_size - f->vars_size), f->vars, f->vars_size, f->vars_fd,
			      f->vars_path, &flash, err);
	if (!r)
		*ret = rom_block(rom);
	return r;
}

/* Network boot costs start-up time, so the card has its ROM only where booting from it was asked for. */
static bool network_boots(const struct vm_config *c)
{
	for (unsigned i = 0; i < VM_BOOT_KINDS; i++)
		if (c->boot[i] == VM_BOOT_NETWORK)
			return true;
	return false;
}

int vm_firmware_add_boot_rom(struct vm *vm, const char *name, struct error *err)
{
	_cleanup_free_ uint8_t *data = NULL;
	struct mem_block *block;
	size_t size;
	uint64_t room = PAGE_SIZE;
	if (!vm->firmware || !network_boots(vm->config))
		return 0;
	int r = firmware_read_rom("/usr/lib/ipxe/qemu/", name, "ipxe-qemu", &data, &size, err);
	if (r)
		return r;
	while (room < size)
		room *= 2;
	r = mem_block_new(vm->mem, name, room, &block, err);
	if (r)
		return r;
	memcpy(mem_block_ptr(block), data, size);
	vm->boot_rom = (struct io_region){ .name = name, .block = block, .readonly = true };
	return pci_add_rom(pci_newest(vm->pci), room, &vm->boot_rom);
}

/* ---- files ---- */

static int add_memory_map(struct vm *vm, struct fwcfg *f, struct error *err)
{
	struct __attribute__((packed)) {
		uint64_t addr, size;
		uint32_t type; /* 1: RAM */
	} map[2] = { { 0, mem_low_ram_size(vm->mem), 1 }, { GIB(4), mem_high_ram_size(vm->mem), 1 } };
	return fwcfg_add_file(f, "etc/e820", map, map[1].size ? sizeof(map) : sizeof(map[0]), err);
}

static int build_acpi(struct vm *vm, uint16_t pm_base, struct acpi_files *ret, struct error *err)
{
	uint64_t high_end = align_up(GIB(4) + mem_high_ram_size(vm->mem), GIB(1));
	uint64_t top = 1ull << vm->model.phys_bits;
	struct acpi_config c = {
		.nr_cpus = vm->nr_cpus,
		/* Firmware puts windows where it likes above RAM. */
		.pci_mem_start = align_up(mem_low_ram_size(vm->mem), MIB(1)),
		.pci_mem64_start = high_end,
		.pci_mem64_size = top > high_end ? top - high_end : 0,
		.pm_base = pm_base ? pm_base : ACPI_PM_BASE,
		.pvpanic = true,
		.fw_cfg = true,
		.i8042 = vm->has_i8042,
		.vga = vm->has_vga,
		.com2 = true,
		.parallel = true,
		.floppy = vm->config->nr_floppies > 0,
	};
	return acpi_build_files(&c, ret, err);
}

/* Firmware chooses the ports of power management before it reads the tables, which name them. */
static void pm_moved(void *opaque, uint16_t base)
{
	struct vm *vm = opaque;
	struct acpi_files files;
	if (!base || build_acpi(vm, base, &files, NULL) < 0)
		return;
	fwcfg_set_file(vm->fwcfg, ACPI_FILE_TABLES, files.tables, files.tables_len);
	acpi_files_free(&files);
}

static int add_acpi(struct vm *vm, struct fwcfg *f, struct error *err)
{
	struct acpi_files files;
	int r = build_acpi(vm, 0, &files, err);
	if (r)
		return r;
	r = fwcfg_add_file(f, ACPI_FILE_RSDP, files.rsdp, sizeof(files.rsdp), err);
	if (!r)
		r = fwcfg_add_file(f, ACPI_FILE_TABLES, files.tables, files.tables_len, err);
	if (!r)
		r = fwcfg_add_file(f, ACPI_FILE_LOADER, files.loader, files.loader_len, err);
	if (!r)
		acpi_pm_on_move(vm->acpi_pm, pm_moved, vm);
	acpi_files_free(&files);
	return r;
}

/* Appends one device's path in the notation of Open Firmware. */
void vm_boot_path(struct vm *vm, enum vm_boot kind, const char *path)
{
	for (unsigned i = 0; i < VM_BOOT_KINDS; i++) {
		if (vm->config->boot[i] != kind)
			continue;
		size_t n = strlen(vm->boot_paths[i]);
		snprintf(vm->boot_paths[i] + n, sizeof(vm->boot_paths[i]) - n, "%s\n", path);
	}
}

void vm_boot_path_pci(struct vm *vm, enum vm_boot kind, const struct pci_device *fn, const char *type,
		      const char *rest)
{
	char path[128], nr[8] = "";
	if (fn->devfn & 7)
		snprintf(nr, sizeof(nr), ",%x", fn->devfn & 7);
	snprintf(path, sizeof(path), "/pci@i0cf8/%s@%x%s%s", type, fn->devfn >> 3, nr, rest);
	vm_boot_path(vm, kind, path);
}

static int add_boot_order(struct vm *vm, struct fwcfg *f, struct error *err)
{
	char order[sizeof(vm->boot_paths) + 1] = "";
	for (unsigned i = 0; i < VM_BOOT_KINDS; i++)
		strcat(order, vm->boot_paths[i]);
	int r = 0;
	if (order[0])
		r = fwcfg_add_file(f, "bootorder", order, strlen(order) + 1, err);
	uint16_t menu = vm->config->boot_menu ? 1 : 0;
	if (!r)
		r = fwcfg_add_item(f, FWCFG_BOOT_MENU, &menu, sizeof(menu), err);
	/* Time for a person to read "press ESC for boot menu" and do so. */
	uint16_t wait_ms = menu ? 5000 : 0;
	if (!r && menu)
		r = fwcfg_add_file(f, "etc/boot-menu-wait", &wait_ms, sizeof(wait_ms), err);
	return r;
}

int vm_firmware_describe(struct vm *vm, struct fwcfg *f, struct error *err)
{
	uint16_t com1 = 0x3f8;
	int r = add_memory_map(vm, f, err);
	if (!r)
		r = add_acpi(vm, f, err);
	if (!r)
		r = add_boot_order(vm, f, err);
	/* Where nobody sees the screen, SeaBIOS shows on the serial line what it writes there. */
	if (!r && !vm->config->vnc && !vm->config->window)
		r = fwcfg_add_file(f, "etc/sercon-port", &com1, sizeof(com1), err);
	return r;
}
