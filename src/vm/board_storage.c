/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks and CD drives: images, and the controllers that they are plugged into,
 * each of which is there if something is plugged in.  Controllers come in the
 * order in which the disks ask for them, CD drives first.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "dev/storage/ahci.h"
#include "dev/storage/fdc.h"
#include "dev/storage/ide.h"
#include "dev/timer/rtc.h"
#include "dev/usb/hid.h"
#include "dev/usb/msc.h"
#include "dev/usb/xhci.h"
#include "dev/virtio/virtio_blk.h"
#include "dev/virtio/virtio_pci.h"
#include "dev/virtio/virtio_scsi.h"
#include "vm/vm_internal.h"

_Static_assert(VIRTIO_SCSI_TARGETS >= VM_MAX_DISKS + VM_MAX_CDS, "a target for every drive");

#define CLASS_DISK 0x010000 /* PCI Code and ID Assignment 1.11 */

/* What is plugged into some bus. */
struct drive {
	const char *option, *path; /* for messages; path: NULL for a drive without a disc */
	enum vm_bus bus;
	enum vm_boot kind;
	struct block *block;
	bool is_cd;
	unsigned instance;
	char serial[21];
	/* answers, for CDs: */
	struct cdrom *cd;
	void (**tray)(void *opaque, bool eject);
	void **tray_opaque;
};

static int no_room(const struct drive *d, const char *what, struct error *err)
{
	return error_set(err, ENOSPC, "%s %s: %s; use another bus", d->option, d->path ? d->path : "", what);
}

static void is_ata_cd(struct drive *d, struct ata_drive *drive)
{
	d->cd = &drive->cd;
	d->tray = &drive->tray;
	d->tray_opaque = &drive->tray_opaque;
}

static void is_scsi(struct drive *d, struct scsi_device *device)
{
	d->cd = &device->cd;
	d->tray = &device->tray;
	d->tray_opaque = &device->tray_opaque;
}

/* ---- IDE: the first free of the places on the cables, disks and CDs from different ends ---- */

/* The BIOS's setup of old PCs: disks of type 47, with their geometry. Systems that ask no further look here.
 */
static void note_in_cmos(struct vm *vm, unsigned nr, struct ata_geometry g)
{
	const uint8_t low = (uint8_t)g.cylinders, high = (uint8_t)(g.cylinders >> 8);
	const uint8_t table[9] = { low, high, g.heads,  0xff, 0xff, (uint8_t)(g.heads > 8 ? 0xc8 : 0xc0),
				   low, high, g.sectors };
	rtc_set_cmos(vm->rtc, 0x12, nr ? 0xff : 0xf0);
	rtc_set_cmos(vm->rtc, (uint8_t)(0x19 + nr), 47);
	for (unsigned i = 0; i < sizeof(table); i++)
		rtc_set_cmos(vm->rtc, (uint8_t)(0x1b + 9 * nr + i), table[i]);
}

static int plug_ide(struct vm *vm, struct drive *d, struct error *err)
{
	static const uint8_t order[2][IDE_DRIVES] = { { 0, 1, 3, 2 }, { 2, 3, 1, 0 } };
	struct ata_geometry geometry = { 0 };
	char path[64];
	unsigned i = 0, place;
	int r = vm->ide ? 0
			: ide_new(&vm->board, vm->pci, irq_router_isa_line(vm->router, 14),
				  irq_router_isa_line(vm->router, 15), &vm->ide, err);
	if (r)
		return r;
	while (i < IDE_DRIVES && vm->ide_used[order[d->is_cd][i]])
		i++;
	if (i == IDE_DRIVES)
		return no_room(d, "the IDE controller has room for four drives, CDs counted", err);
	place = order[d->is_cd][i];
	vm->ide_used[place] = true;
	if (d->is_cd)
		is_ata_cd(d, ide_add_cd(vm->ide, place, d->block, d->serial));
	else
		geometry = ata_geometry(ide_add_disk(vm->ide, place, d->block, d->serial));
	if (!d->is_cd && place < 2)
		note_in_cmos(vm, place, geometry);
	snprintf(path, sizeof(path), "/pci@i0cf8/ide@1,1/drive@%x/disk@%x", place / 2, place % 2);
	vm_boot_path(vm, d->kind, path);
	return 0;
}

/* ---- AHCI ---- */

static int plug_ahci(struct vm *vm, struct drive *d, struct error *err)
{
	char path[32];
	unsigned port = vm->ahci_used;
	int r = vm->ahci ? 0 : ahci_new(&vm->board, vm->pci, &vm->ahci, err);
	if (r)
		return r;
	if (port == AHCI_PORTS)
		return no_room(d, "the AHCI controller has room for six drives, CDs counted", err);
	vm->ahci_used++;
	if (d->is_cd)
		is_ata_cd(d, ahci_add_cd(vm->ahci, port, d->block, d->serial));
	else
		ahci_add_disk(vm->ahci, port, d->block, d->serial);
	snprintf(path, sizeof(path), "/drive@%x/disk@0", port);
	vm_boot_path_pci(vm, d->kind, ahci_pci(vm->ahci), "pci8086,2922", path);
	return 0;
}

/* ---- SCSI: a target for each ---- */

static int plug_scsi(struct vm *vm, struct drive *d, struct error *err)
{
	char path[32];
	unsigned target = vm->scsi_used;
	int r = 0;
	if (!vm->scsi) {
		r = virtio_scsi_new(&vm->board, &vm->scsi, err);
		if (!r)
			r = virtio_pci_new(vm->pci, PCI_DEVFN_ANY, vm->scsi, VIRTIO_SCSI_PCI_CLASS,
					   d->instance, err);
		if (!r)
			vm->scsi_fn = pci_newest(vm->pci);
	}
	if (r)
		return r;
	/* There are as many targets as a machine can have drives. */
	vm->scsi_used++;
	is_scsi(d, virtio_scsi_add(vm->scsi, target, d->is_cd, d->block, d->serial));
	snprintf(path, sizeof(path), "/channel@0/disk@%x,0", target);
	vm_boot_path_pci(vm, d->kind, vm->scsi_fn, "scsi", path);
	return 0;
}

/* ---- USB: keyboard and tablet where there is a screen, then drives ---- */

static int plug_usb_device(struct vm *vm, struct usb_device *d, const char *what, unsigned *port,
			   struct error *err)
{
	*port = xhci_plug(vm->xhci, d);
	return *port ? 0
		     : error_set(err, ENOSPC,
				 "%s: the USB controller has room for %d devices, keyboard and tablet "
				 "counted; use another bus",
				 what, XHCI_USB2_PORTS);
}

int vm_usb_new(struct vm *vm, struct error *err)
{
	struct usb_device *keyboard, *tablet;
	unsigned port;
	int r = vm->xhci ? 0 : xhci_new(&vm->board, vm->pci, &vm->xhci, err);
	if (r || !vm->has_vga)
		return r;
	r = usb_keyboard_new(&vm->board, &vm->input, &keyboard, err);
	if (!r)
		r = plug_usb_device(vm, keyboard, "keyboard", &port, err);
	if (!r)
		r = usb_tablet_new(&vm->board, &vm->input, &tablet, err);
	return r ? r : plug_usb_device(vm, tablet, "tablet", &port, err);
}

static int plug_usb(struct vm *vm, struct drive *d, struct error *err)
{
	char path[64];
	unsigned port;
	struct usb_device *device;
	struct scsi_device *scsi;
	int r = vm->xhci ? 0 : vm_usb_new(vm, err);
	if (!r)
		r = usb_msc_new(&vm->board, d->is_cd, d->block, d->serial, d->instance, &device, &scsi, err);
	if (!r)
		r = plug_usb_device(vm, device, d->path, &port, err);
	if (r)
		return r;
	is_scsi(d, scsi);
	snprintf(path, sizeof(path), "/storage@%x/channel@0/disk@0,0", port);
	vm_boot_path_pci(vm, d->kind, xhci_pci(vm->xhci), "usb", path);
	return 0;
}

/* ---- virtio: a function for each disk ---- */

static int plug_virtio(struct vm *vm, struct drive *d, struct error *err)
{
	struct virtio_device *v;
	int r = virtio_blk_new(&vm->board, d->block, d->serial, 1, d->instance, &v, err);
	if (!r)
		r = virtio_pci_new(vm->pci, PCI_DEVFN_ANY, v, CLASS_DISK, d->instance, err);
	if (!r)
		vm_boot_path_pci(vm, d->kind, pci_newest(vm->pci), "scsi", "/disk@0,0");
	return r;
}

static int plug(struct vm *vm, struct drive *d, struct error *err)
{
	switch (d->bus) {
	case VM_BUS_IDE:
		return plug_ide(vm, d, err);
	case VM_BUS_AHCI:
		return plug_ahci(vm, d, err);
	case VM_BUS_SCSI:
		return plug_scsi(vm, d, err);
	case VM_BUS_USB:
		return plug_usb(vm, d, err);
	case VM_BUS_VIRTIO:
		break;
	}
	return plug_virtio(vm, d, err);
}

/* ---- CDs ---- */

/* A guest that asks for an open tray gets one; what was in it is closed when the VM ends. */
static void cd_tray(void *opaque, bool eject)
{
	struct vm_cd *cd = opaque;
	if (eject)
		cdrom_change(cd->drive, NULL);
	else if (cd->block && !cd->drive->block)
		cdrom_change(cd->drive, cd->block);
}

/* A disc image: what holds no sector is refused, what is no file system of a CD is pointed out. */
static int cd_open(struct vm *vm, const char *path, struct block **ret, struct error *err)
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
	block_extend(*ret, align_up(block_size(*ret), CD_SECTOR));
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	if (!f || fseek(f, 16 * CD_SECTOR + 1, SEEK_SET) < 0 || fread(id, 1, sizeof(id), f) != sizeof(id) ||
	    memcmp(id, "CD001", sizeof(id)) != 0)
		log_warn("%s: no ISO 9660 file system on it; guests may not be able to read this disc", path);
	return 0;
}

/* disc: NULL for an empty drive on the IDE controller. */
static int add_cd(struct vm *vm, unsigned i, const struct vm_disk *disc, struct error *err)
{
	struct vm_cd *cd = &vm->cds[i];
	struct drive d = { .option = "--cdrom",
			   .path = disc ? disc->path : NULL,
			   .bus = disc ? disc->bus : VM_BUS_IDE,
			   .kind = VM_BOOT_CDROM,
			   .is_cd = true,
			   .instance = VM_MAX_DISKS + i };
	int r = disc ? cd_open(vm, disc->path, &cd->block, err) : 0;
	if (!r && disc && !(cd->path = strdup(disc->path)))
		r = error_set(err, ENOMEM, "no memory; free some and try again");
	if (r)
		return r;
	d.block = cd->block;
	snprintf(d.serial, sizeof(d.serial), "sill-cd%u", i);
	r = plug(vm, &d, err);
	if (r)
		return r;
	cd->drive = d.cd;
	*d.tray = cd_tray;
	*d.tray_opaque = cd;
	return 0;
}

int vm_cd_insert(struct vm *vm, struct vm_cd *cd, const char *path, struct error *err)
{
	struct block *block = NULL;
	char *copy = path ? strdup(path) : NULL;
	int r = path && !copy ? error_set(err, ENOMEM, "no memory; free some and try again") : 0;
	if (!r && path)
		r = cd_open(vm, path, &block, err);
	if (r) {
		free(copy);
		return r;
	}
	if (cd->block)
		block_drain(cd->block);
	cdrom_change(cd->drive, block);
	block_close(cd->block);
	free(cd->path);
	cd->block = block;
	cd->path = copy;
	return 0;
}

/* ---- floppies ---- */

int vm_floppies_new(struct vm *vm, struct dma *dma, struct error *err)
{
	const struct vm_config *c = vm->config;
	struct fdc *fdc;
	char path[64];
	if (!c->nr_floppies)
		return 0;
	int r = fdc_new(&vm->board, irq_router_isa_line(vm->router, 6), dma, &fdc, err);
	for (unsigned i = 0; !r && i < c->nr_floppies; i++) {
		const struct vm_disk *d = &c->floppies[i];
		r = block_open(vm->loop, d->path, d->readonly, BLOCK_FORMAT_RAW, &vm->floppies[i], err);
		if (!r)
			r = fdc_insert(fdc, i, vm->floppies[i], d->path, err);
		snprintf(path, sizeof(path), "/pci@i0cf8/isa@1/fdc@03f0/floppy@%u", i);
		vm_boot_path(vm, VM_BOOT_FLOPPY, path);
	}
	if (r)
		return r;
	rtc_set_cmos(vm->rtc, 0x10, fdc_cmos_types(fdc));
	rtc_set_cmos(vm->rtc, 0x14,
		     (uint8_t)(0x03 | (c->nr_floppies - 1) << 6)); /* equipment: floppies, FPU */
	return 0;
}

/* ---- all of them ---- */

static int add_disk(struct vm *vm, unsigned i, struct error *err)
{
	const struct vm_disk *c = &vm->config->disks[i];
	struct drive d = {
		.option = "--disk", .path = c->path, .bus = c->bus, .kind = VM_BOOT_DISK, .instance = i
	};
	int r = block_open(vm->loop, c->path, c->readonly, BLOCK_FORMAT_RAW, &vm->blocks[i], err);
	if (r)
		return r;
	d.block = vm->blocks[i];
	snprintf(d.serial, sizeof(d.serial), "sill-disk%u", i);
	return plug(vm, &d, err);
}

int vm_storage_new(struct vm *vm, struct error *err)
{
	const struct vm_config *c = vm->config;
	int r = 0;
	for (unsigned i = 0; !r && i < c->nr_cds; i++)
		r = add_cd(vm, i, &c->cds[i], err);
	/* Firmware's machine always has a drive to put a disc into. */
	if (!r && vm->firmware && !c->nr_cds)
		r = add_cd(vm, 0, NULL, err);
	for (unsigned i = 0; !r && i < c->nr_disks; i++)
		r = add_disk(vm, i, err);
	return r;
}

void vm_storage_drain(struct vm *vm)
{
	for (unsigned i = 0; i < VM_MAX_DISKS; i++)
		if (vm->blocks[i])
			block_drain(vm->blocks[i]);
	for (unsigned i = 0; i < VM_MAX_CDS; i++)
		if (vm->cds[i].block)
			block_drain(vm->cds[i].block);
	for (unsigned i = 0; i < VM_MAX_FLOPPIES; i++)
		if (vm->floppies[i])
			block_drain(vm->floppies[i]);
}

void vm_storage_close(struct vm *vm)
{
	for (unsigned i = 0; i < VM_MAX_CDS; i++) {
		block_close(vm->cds[i].block);
		free(vm->cds[i].path);
	}
	memset(vm->cds, 0, sizeof(vm->cds));
	for (unsigned i = 0; i < VM_MAX_DISKS; i++)
		block_close(vm->blocks[i]);
	memset(vm->blocks, 0, sizeof(vm->blocks));
	for (unsigned i = 0; i < VM_MAX_FLOPPIES; i++)
		block_close(vm->floppies[i]);
	memset(vm->floppies, 0, sizeof(vm->floppies));
}
