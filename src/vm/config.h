/* SPDX-License-Identifier: Apache-2.0 */
/* What a VM is made of. Plain data: strings belong to the caller and outlive the VM. */
#ifndef SILL_VM_CONFIG_H
#define SILL_VM_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "net/net.h"

#define VM_MAX_CPUS     16
#define VM_MAX_DISKS    16
#define VM_MAX_CDS      3
#define VM_MAX_FLOPPIES 2
#define VM_MAX_MODULES  15
#define VM_MIN_MEMORY   (16ull << 20)
#define VM_MAX_MEMORY   (1ull << 40)

/* What firmware tries, in its order. */
enum vm_boot { VM_BOOT_NONE, VM_BOOT_DISK, VM_BOOT_CDROM, VM_BOOT_FLOPPY, VM_BOOT_NETWORK };
#define VM_BOOT_KINDS 4

enum vm_vga { VM_VGA_STD, VM_VGA_VIRTIO, VM_VGA_NONE };

enum vm_nic { VM_NIC_VIRTIO, VM_NIC_E1000 };

enum vm_bus { VM_BUS_VIRTIO, VM_BUS_IDE, VM_BUS_AHCI, VM_BUS_SCSI, VM_BUS_USB };

struct vm_disk {
	char *path; /* allocated */
	bool readonly;
	enum vm_bus bus;
};

enum vm_serial { VM_SERIAL_STDIO, VM_SERIAL_NONE, VM_SERIAL_FILE, VM_SERIAL_UNIX };

struct vm_config {
	const char *name;
	const char *engine;                    /* "auto", "bt" */
	const char *tier;                      /* "auto", "interp", "t1" */
	const char *cpu;                       /* "host", "v2", "v3" */
	unsigned nr_cpus;                      /* 1..VM_MAX_CPUS */
	uint64_t memory;                       /* bytes, a multiple of 1 MiB */
	const char *kernel, *initrd, *cmdline; /* initrd may be NULL; kernel is, where there is firmware */
	const char *modules[VM_MAX_MODULES];   /* "FILE[ ARGUMENTS]" for a Multiboot kernel */
	unsigned nr_modules;
	const char *firmware;             /* "bios", "uefi", "uefi-secure", a path; NULL: direct boot */
	const char *firmware_vars;        /* the variable store's file; NULL: the VM's own */
	const char *firmware_log;         /* file for what firmware writes to the debug port; NULL: none */
	enum vm_boot boot[VM_BOOT_KINDS]; /* VM_BOOT_NONE: no more */
	bool boot_menu;
	struct vm_disk disks[VM_MAX_DISKS];
	unsigned nr_disks;
	struct vm_disk cds[VM_MAX_CDS]; /* discs in drives of their own; read-only whatever is said */
	unsigned nr_cds;
	struct vm_disk floppies[VM_MAX_FLOPPIES];
	unsigned nr_floppies;
	const char *vnc;          /* address of the VNC server; NULL: none */
	const char *vnc_password; /* NULL: none */
	bool window;              /* the screen in a window */
	enum vm_vga vga;
	bool virtio_input; /* a virtio keyboard and tablet beside the PS/2 ones */
	bool net;          /* a network card, behind user-mode NAT */
	struct net_user_config net_user;
	enum vm_nic nic;
	bool no_usb;         /* no USB controller */
	uint16_t debug_exit; /* port of the debug exit device; 0: none */
	bool testdev;        /* the test suites' device */
	bool no_reboot;      /* a reset by the guest ends the VM */
	const char *stress;  /* for the engine's tests; NULL: none */
	const char *control; /* path of the control socket; NULL: none */
	enum vm_serial serial;
	const char *serial_path;
	enum vm_serial serial2; /* COM2; not stdio */
	const char *serial2_path;
	const char *parallel; /* file that the parallel port prints into; NULL: nothing is connected */
};

#endif
