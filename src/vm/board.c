/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is wired to what: one PC with an i440FX host bridge, a PIIX3 ISA bridge
 * and a PIIX4 power-management function, PC timers, one serial port, and virtio
 * devices from PCI slot 3 up, in this order: disks, network, entropy.
 *
 * The order of construction is the order of reset, save and load; it is part of
 * the saved state's format.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "boot/firmware.h"
#include "dev/display/vga.h"
#include "dev/input/i8042.h"
#include "dev/net/e1000.h"
#include "dev/pc/acpi_pm.h"
#include "dev/pc/debug_exit.h"
#include "dev/pc/debugcon.h"
#include "dev/pc/pvpanic.h"
#include "dev/pc/serial.h"
#include "dev/pc/sysctl.h"
#include "dev/pc/testdev.h"
#include "dev/pci/pci.h"
#include "dev/timer/pit.h"
#include "dev/timer/rtc.h"
#include "dev/virtio/virtio_blk.h"
#include "dev/virtio/virtio_gpu.h"
#include "dev/virtio/virtio_input.h"
#include "dev/virtio/virtio_net.h"
#include "dev/virtio/virtio_pci.h"
#include "dev/virtio/virtio_rng.h"
#include "vm/vm_internal.h"

/* PCI class codes (PCI Code and ID Assignment 1.11) */
#define CLASS_DISK    0x010000
#define CLASS_NETWORK 0x020000
#define CLASS_DISPLAY 0x038000
#define CLASS_INPUT   0x098000
#define CLASS_OTHER   0x00ff00

#define COM1_BASE 0x3f8
#define COM1_IRQ  4

static const char console_help[] = "\r\nCtrl-A x       end the VM at once\r\n"
				   "Ctrl-A h       this help\r\n"
				   "Ctrl-A Ctrl-A  send Ctrl-A\r\n";

static void console_escape(void *opaque, uint8_t key)
{
	struct vm *vm = opaque;
	if (key == 'x' || key == 'X')
		vm_post_event(vm, VM_EVENT(VM_END_USER), NULL);
	else if (key == 'h' || key == '?')
		chardev_write(vm->console, console_help, sizeof(console_help) - 1);
}

static int open_console(struct vm *vm, struct error *err)
{
	const char *path = vm->config->serial_path;
	switch (vm->config->serial) {
	case VM_SERIAL_STDIO:
		return chardev_stdio_new(vm->loop, console_escape, vm, &vm->console, err);
	case VM_SERIAL_FILE:
		return chardev_file_new(vm->loop, path, &vm->console, err);
	case VM_SERIAL_UNIX:
		return chardev_unix_new(vm->loop, path, &vm->console, err);
	case VM_SERIAL_NONE:
		break;
	}
	return 0;
}

/* What firmware asks the configuration device for. */
static int describe(struct vm *vm, struct fwcfg *f, struct error *err)
{
	uint16_t cpus = (uint16_t)vm->nr_cpus, yes = 1;
	uint64_t ram = vm->config->memory;
	int r = fwcfg_add_item(f, FWCFG_NB_CPUS, &cpus, sizeof(cpus), err);
	if (!r)
		r = fwcfg_add_item(f, FWCFG_MAX_CPUS, &cpus, sizeof(cpus), err);
	if (!r)
		r = fwcfg_add_item(f, FWCFG_RAM_SIZE, &ram, sizeof(ram), err);
	if (!r && !vm->has_vga)
		r = fwcfg_add_item(f, FWCFG_NOGRAPHIC, &yes, sizeof(yes), err);
	if (!r && vm->firmware)
		r = vm_firmware_describe(vm, f, err);
	return r;
}

/* The serial port and what else is on the ISA bus. */
static int add_isa(struct vm *vm, struct error *err)
{
	struct board *b = &vm->board;
	struct pit *pit;
	struct rtc *rtc;
	struct serial *serial;
	struct sysctl *sysctl;
	struct i8042 *i8042;
	struct pvpanic *pvpanic;
	struct debug_exit *debug_exit;
	struct debugcon *debugcon;
	struct testdev *testdev;
	int r = open_console(vm, err);
	if (!r)
		r = pit_new(b, irq_router_isa_line(vm->router, 0), &pit, err);
	if (!r)
		r = rtc_new(b, irq_router_isa_line(vm->router, 8), &rtc, err);
	if (!r)
		r = serial_new(b, COM1_BASE, irq_router_isa_line(vm->router, COM1_IRQ), vm->console, 0,
			       &serial, err);
	if (!r)
		r = sysctl_new(b, vm->has_i8042, &sysctl, err);
	if (!r && vm->has_i8042)
		r = i8042_new(b, irq_router_isa_line(vm->router, 1), irq_router_isa_line(vm->router, 12),
			      &vm->input, &i8042, err);
	if (!r)
		r = fwcfg_new(b, &vm->fwcfg, err);
	if (!r)
		r = pvpanic_new(b, &pvpanic, err);
	if (!r && vm->config->debug_exit)
		r = debug_exit_new(b, vm->config->debug_exit, &debug_exit, err);
	if (!r && vm->config->firmware_log)
		r = chardev_file_new(vm->loop, vm->config->firmware_log, &vm->debugcon, err);
	if (!r && vm->debugcon)
		r = debugcon_new(b, vm->debugcon, &debugcon, err);
	if (!r && vm->config->testdev)
		r = testdev_new(b, vm->router, &testdev, err);
	return r;
}

static int add_chipset(struct vm *vm, struct error *err)
{
	struct board *b = &vm->board;
	struct mem_block *rom = NULL;
	int r = irq_router_new(b, &vm->router, err);
	if (!r)
		r = vm_cpus_new(vm, err);
	if (!r)
		r = pci_bus_new(b, vm->router, &vm->pci, err);
	if (!r)
		r = vm_firmware_add_rom(vm, &rom, err);
	if (!r)
		r = i440fx_new(vm->pci, vm->mem, rom, err);
	if (!r)
		r = piix3_new(vm->pci, err);
	if (!r)
		r = acpi_pm_new(b, irq_router_isa_line(vm->router, ACPI_SCI_IRQ), &vm->acpi_pm, err);
	if (!r)
		r = piix4_pm_new(vm->pci, vm->acpi_pm, vm->firmware, err);
	if (!r)
		r = kvmclock_new(b, vm->nr_cpus, vm->model.tsc_khz, &vm->kvmclock, err);
	return r;
}

/* The path of something on the PCI function added last, for the boot order. */
static void boot_path(struct vm *vm, enum vm_boot kind, const char *type, const char *rest)
{
	char path[128], fn[8] = "";
	uint8_t devfn = pci_newest(vm->pci)->devfn;
	if (devfn & 7)
		snprintf(fn, sizeof(fn), ",%x", devfn & 7);
	snprintf(path, sizeof(path), "/pci@i0cf8/%s@%x%s%s", type, devfn >> 3, fn, rest);
	vm_boot_path(vm, kind, path);
}

/* The first free of the places on the IDE cables, in this order; -1: none. */
static int ide_place(struct vm *vm, const uint8_t order[IDE_DRIVES])
{
	for (unsigned i = 0; i < IDE_DRIVES; i++) {
		if (vm->ide_used[order[i]])
			continue;
		vm->ide_used[order[i]] = true;
		return order[i];
	}
	return -1;
}

static void ide_boot_path(struct vm *vm, enum vm_boot kind, int place)
{
	char path[64];
	snprintf(path, sizeof(path), "/pci@i0cf8/ide@1,1/drive@%x/disk@%x", place / 2, place % 2);
	vm_boot_path(vm, kind, path);
}

static int add_ide_disk(struct vm *vm, unsigned i, const char *serial, struct error *err)
{
	static const uint8_t order[IDE_DRIVES] = { 0, 1, 3, 2 };
	int place = ide_place(vm, order);
	if (place < 0)
		return error_set(
		    err, ENOSPC,
		    "--disk %s: the IDE controller has room for four drives, CDs counted; use bus=virtio",
		    vm->config->disks[i].path);
	ide_add_disk(vm->ide, (unsigned)place, vm->blocks[i], serial);
	ide_boot_path(vm, VM_BOOT_DISK, place);
	return 0;
}

/* A guest that asks for an open tray gets one; what was in it is closed when the VM ends. */
static void cd_tray(void *opaque, bool eject)
{
	struct vm_cd *cd = opaque;
	if (eject)
		cdrom_change(&cd->drive->cd, NULL);
	else if (cd->block && !cd->drive->cd.block)
		cdrom_change(&cd->drive->cd, cd->block);
}

static int add_cd(struct vm *vm, unsigned i, struct error *err)
{
	static const uint8_t order[IDE_DRIVES] = { 2, 3, 1, 0 };
	const char *path = vm->config->cds[i];
	struct vm_cd *cd = &vm->cds[i];
	char serial[21];
	int place = ide_place(vm, order), r = path ? vm_cd_open(vm, path, &cd->block, err) : 0;
	if (!r && path && !(cd->path = strdup(path)))
		r = error_set(err, ENOMEM, "no memory; free some and try again");
	if (r)
		return r;
	snprintf(serial, sizeof(serial), "sill-cd%u", i);
	cd->drive = ide_add_cd(vm->ide, (unsigned)place, cd->block, serial);
	cd->drive->tray = cd_tray;
	cd->drive->tray_opaque = cd;
	ide_boot_path(vm, VM_BOOT_CDROM, place);
	return 0;
}

static int add_ide(struct vm *vm, struct error *err)
{
	const struct vm_config *c = vm->config;
	/* Firmware's machine always has a drive to put a disc into. */
	unsigned nr_cds = vm->firmware && !c->nr_cds ? 1 : c->nr_cds;
	bool wanted = nr_cds > 0;
	int r = 0;
	for (unsigned i = 0; i < c->nr_disks; i++)
		wanted |= c->disks[i].bus == VM_BUS_IDE;
	if (wanted)
		r = ide_new(&vm->board, vm->pci, irq_router_isa_line(vm->router, 14),
			    irq_router_isa_line(vm->router, 15), &vm->ide, err);
	for (unsigned i = 0; !r && i < nr_cds; i++)
		r = add_cd(vm, i, err);
	return r;
}

/* A disc image: what holds no sector is refused, what is no file system of a CD is pointed out. */
int vm_cd_open(struct vm *vm, const char *path, struct block **ret, struct error *err)
{
	char id[5] = "";
	int r = block_open(vm->loop, path, true, BLOCK_FORMAT_RAW, ret, err);
	if (r)
		return r;
	if (block_size(*ret) < CD_SECTOR) {
		block_close(*ret);
		*ret = NULL;
		return error_set(err, EINVAL,
				 "%s: too short for a CD, which has sectors of 2048 bytes; give an ISO image",
				 path);
	}
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	if (!f || fseek(f, 16 * CD_SECTOR + 1, SEEK_SET) < 0 || fread(id, 1, sizeof(id), f) != sizeof(id) ||
	    memcmp(id, "CD001", sizeof(id)) != 0)
		log_warn("%s: no ISO 9660 file system on it; guests may not be able to read this disc", path);
	return 0;
}

int vm_cd_insert(struct vm *vm, struct vm_cd *cd, const char *path, struct error *err)
{
	struct block *block = NULL;
	char *copy = path ? strdup(path) : NULL;
	int r = path && !copy ? error_set(err, ENOMEM, "no memory; free some and try again") : 0;
	if (!r && path)
		r = vm_cd_open(vm, path, &block, err);
	if (r) {
		free(copy);
		return r;
	}
	if (cd->block)
		block_drain(cd->block);
	cdrom_change(&cd->drive->cd, block);
	block_close(cd->block);
	free(cd->path);
	cd->block = block;
	cd->path = copy;
	return 0;
}

static int add_disk(struct vm *vm, unsigned i, struct error *err)
{
	const struct vm_disk *d = &vm->config->disks[i];
	struct virtio_device *v;
	char serial[21];
	int r = block_open(vm->loop, d->path, d->readonly, BLOCK_FORMAT_RAW, &vm->blocks[i], err);
	if (r)
		return r;
	snprintf(serial, sizeof(serial), "sill-disk%u", i);
	if (d->bus == VM_BUS_IDE)
		return add_ide_disk(vm, i, serial, err);
	r = virtio_blk_new(&vm->board, vm->blocks[i], serial, 1, i, &v, err);
	if (!r)
		r = virtio_pci_new(vm->pci, PCI_DEVFN_ANY, v, CLASS_DISK, i, err);
	if (!r)
		boot_path(vm, VM_BOOT_DISK, "scsi", "/disk@0,0");
	return r;
}

static int add_vga(struct vm *vm, struct error *err)
{
	_cleanup_free_ uint8_t *rom = NULL;
	size_t rom_size = 0;
	struct vga *vga;
	/* A kernel that is booted directly drives the card itself. */
	int r = vm->firmware ? firmware_read_rom(FIRMWARE_SEABIOS_FOLDER, "vgabios-stdvga.bin", "seabios",
						 &rom, &rom_size, err)
			     : 0;
	return r ? r : vga_new(&vm->board, vm->pci, rom, rom_size, &vm->display, &vga, err);
}

static int add_gpu(struct vm *vm, struct error *err)
{
	struct virtio_device *v;
	int r = virtio_gpu_new(&vm->board, &vm->display, 0, &v, err);
	return r ? r : virtio_pci_new(vm->pci, PCI_DEVFN(2, 0), v, CLASS_DISPLAY, VM_MAX_DISKS + 2, err);
}

/* Closing the window presses the power button; closing it again pulls the plug. */
static void window_closed(void *opaque, bool again)
{
	struct vm *vm = opaque;
	if (again || vm->paused)
		vm_post_event(vm, VM_EVENT(VM_END_USER), NULL);
	else
		acpi_pm_power_button(vm->acpi_pm);
}

/* The screen, and who shows it. */
static int add_display(struct vm *vm, struct error *err)
{
	struct vnc_config vnc = { .address = vm->config->vnc, .password = vm->config->vnc_password };
	struct window_config window = { .title = vm->config->name, .closed = window_closed, .opaque = vm };
	int r = 0;
	if (vm->has_vga)
		r = add_vga(vm, err);
	else if (vm->config->vga == VM_VGA_VIRTIO)
		r = add_gpu(vm, err);
	if (!r && vm->config->vnc)
		r = vnc_new(vm->loop, &vnc, vm->config->name, &vm->display, &vm->input, &vm->vnc, err);
	if (!r && vm->config->window)
		r = window_new(vm->loop, &window, &vm->display, &vm->input, &vm->window, err);
	return r;
}

static int add_net(struct vm *vm, struct error *err)
{
	/* 52:54:00 is what virtual machines use; one card on a network of its own needs no unique address. */
	static const uint8_t mac[6] = { 0x52, 0x54, 0x00, 0x53, 0x49, 0x4c };
	struct virtio_device *v;
	struct pci_device *card;
	bool e1000 = vm->config->nic == VM_NIC_E1000;
	int r = net_user_new(vm->loop, &vm->io_lock, &vm->config->net_user, &vm->net, err);
	if (!r && e1000)
		r = e1000_new(&vm->board, vm->pci, vm->net, mac, 0, &card, err);
	if (!r && !e1000)
		r = virtio_net_new(&vm->board, vm->net, mac, 0, &v, err);
	if (!r && !e1000)
		r = virtio_pci_new(vm->pci, PCI_DEVFN_ANY, v, CLASS_NETWORK, VM_MAX_DISKS, err);
	if (!r)
		r = vm_firmware_add_boot_rom(vm, e1000 ? "efi-e1000.rom" : "efi-virtio.rom", err);
	if (!r)
		boot_path(vm, VM_BOOT_NETWORK, "ethernet", "/ethernet-phy@0");
	return r;
}

static int add_rng(struct vm *vm, struct error *err)
{
	struct virtio_device *v;
	int r = virtio_rng_new(&vm->board, 0, &v, err);
	return r ? r : virtio_pci_new(vm->pci, PCI_DEVFN_ANY, v, CLASS_OTHER, VM_MAX_DISKS + 1, err);
}

static int add_virtio_input(struct vm *vm, struct error *err)
{
	int r = 0;
	for (uint32_t i = 0; !r && i < 2; i++) {
		struct virtio_device *v;
		r = virtio_input_new(&vm->board, &vm->input, i ? VIRTIO_INPUT_TABLET : VIRTIO_INPUT_KEYBOARD,
				     i, &v, err);
		if (!r)
			r = virtio_pci_new(vm->pci, PCI_DEVFN_ANY, v, CLASS_INPUT, VM_MAX_DISKS + 3 + i, err);
	}
	return r;
}

int vm_board_new(struct vm *vm, struct error *err)
{
	bool shown = vm->config->vnc || vm->config->window;
	vm->has_i8042 = vm->firmware || shown || vm->config->vga == VM_VGA_VIRTIO;
	vm->has_vga = (vm->firmware || shown) && vm->config->vga == VM_VGA_STD;
	int r = add_chipset(vm, err);
	if (!r)
		r = add_isa(vm, err);
	if (!r)
		r = add_display(vm, err);
	if (!r)
		r = add_ide(vm, err);
	for (unsigned i = 0; !r && i < vm->config->nr_disks; i++)
		r = add_disk(vm, i, err);
	if (!r && vm->config->net)
		r = add_net(vm, err);
	if (!r)
		r = add_rng(vm, err);
	if (!r && vm->config->virtio_input)
		r = add_virtio_input(vm, err);
	if (!r)
		r = describe(vm, vm->fwcfg, err); /* when all is there */
	if (!r && vm->config->control)
		r = control_new(vm, vm->config->control, &vm->control, err);
	return r;
}

void vm_board_free(struct vm *vm)
{
	mutex_lock(&vm->io_lock);
	vnc_free(vm->vnc);
	window_free(vm->window);
	vm->window = NULL;
	control_free(vm->control);
	vm->vnc = NULL;
	vm->control = NULL;
	/* Backends finish what is in flight while the devices that asked still exist. */
	for (unsigned i = 0; i < VM_MAX_DISKS; i++)
		if (vm->blocks[i])
			block_drain(vm->blocks[i]);
	for (unsigned i = 0; i < VM_MAX_CDS; i++)
		if (vm->cds[i].block)
			block_drain(vm->cds[i].block);
	board_free_devices(&vm->board);
	for (unsigned i = 0; i < VM_MAX_CDS; i++) {
		block_close(vm->cds[i].block);
		free(vm->cds[i].path);
	}
	memset(vm->cds, 0, sizeof(vm->cds));
	for (unsigned i = 0; i < VM_MAX_DISKS; i++)
		block_close(vm->blocks[i]);
	chardev_free(vm->console);
	chardev_free(vm->debugcon);
	mutex_unlock(&vm->io_lock);
	net_free(vm->net); /* without the lock: it waits for its thread */
	vm->net = NULL;
	vm->console = vm->debugcon = NULL;
	memset(vm->blocks, 0, sizeof(vm->blocks));
}
