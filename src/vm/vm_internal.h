/* SPDX-License-Identifier: Apache-2.0 */
/* The machine's parts as vm.c (the machine), cpu.c (its processors) and board.c (its devices) share them. */
#ifndef SILL_VM_INTERNAL_H
#define SILL_VM_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "block/block.h"
#include "boot/boot.h"
#include "dev/chardev.h"
#include "dev/device.h"
#include "dev/irq/irq.h"
#include "dev/irq/lapic.h"
#include "dev/kvmclock.h"
#include "dev/pc/fwcfg.h"
#include "dev/pci/pci.h"
#include "dev/storage/cdrom.h"
#include "engine/engine.h"
#include "net/net.h"
#include "ui/display.h"
#include "ui/input.h"
#include "ui/vnc.h"
#include "ui/window.h"
#include "vm/control.h"
#include "vm/vm.h"

/* What other vCPUs and devices want of a vCPU; bits of vm_cpu.events. */
enum {
	CPU_EVENT_INIT = 1,
	CPU_EVENT_SIPI = 2,
	CPU_EVENT_NMI = 4,
	CPU_EVENT_NMI2 = 8, /* a second one before the first was taken */
};

struct vm_cpu {
	struct vm *vm;
	unsigned index;
	struct vcpu *vcpu;
	struct lapic *lapic;
	pthread_t thread;
	bool started;     /* the thread exists */
	int schedstat_fd; /* -1: the host does not tell how long the thread waited */
	atomic_uint events;
	atomic_uint sipi_vector;
};

struct vm {
	const struct vm_config *config;
	const struct engine_ops *ops;
	struct engine_vm *engine;
	struct cpu_model model;

	struct mutex lock;    /* LOCK_RANK_VM: parking, the end */
	struct mutex io_lock; /* LOCK_RANK_IO */
	struct clock clock;
	struct loop *loop;
	struct mem *mem;
	struct board board;

	struct irq_router *router;
	struct pci_bus *pci;
	struct kvmclock *kvmclock;
	struct rtc *rtc;
	struct ferr *ferr;
	struct fwcfg *fwcfg;
	struct chardev *console, *serial2, *parallel; /* NULL: nothing is connected */
	struct block *blocks[VM_MAX_DISKS];
	struct vm_cd {
		struct cdrom *drive; /* NULL: there is no such drive */
		struct block *block; /* NULL: it is empty */
		char *path;          /* of the disc */
	} cds[VM_MAX_CDS];
	struct ide *ide; /* controllers are there if something is plugged in */
	struct ahci *ahci;
	bool ide_used[4]; /* IDE_DRIVES */
	struct virtio_device *scsi;
	struct pci_device *scsi_fn;
	struct xhci *xhci;
	struct block *floppies[VM_MAX_FLOPPIES];
	unsigned ahci_used, scsi_used;
	struct net *net;
	struct boot_image *image;  /* direct boot */
	struct firmware *firmware; /* or firmware */
	struct io_region boot_rom; /* the network card's; direct boot: what is in place of a BIOS */
	struct chardev *debugcon;  /* what that writes to its debug port; may be NULL */
	bool has_i8042, has_vga;
	struct display display; /* pixels NULL: there is none */
	struct input input;
	struct vnc *vnc;
	struct window *window;
	struct control *control; /* NULL: none */
	struct acpi_pm *acpi_pm;
	bool paused;                         /* [io] the main thread changes it */
	atomic_bool want_paused;             /* what it should be */
	char boot_paths[VM_BOOT_KINDS][512]; /* by rank in the boot order: paths, each with a newline */

	struct vm_cpu *cpus; /* nr_cpus of them */
	unsigned nr_cpus;

	/*
	 * Parking: vCPU threads run while `park` is false. vm_park sets it, kicks
	 * them and waits until all are parked; `ending` then makes them leave.
	 * `park` may become true again at any time (vm_post_event), so those that
	 * wait watch `round`, which only vm_unpark changes.
	 */
	atomic_bool park;
	unsigned round;        /* [lock] */
	bool ending;           /* [lock] */
	unsigned nr_parked;    /* [lock] in this round */
	unsigned nr_threads;   /* [lock] */
	pthread_cond_t parked; /* nr_parked or nr_threads changed */
	pthread_cond_t resume; /* round or ending changed */

	/* What ends or restarts the VM: the first one counts; but vm_quit is not lost in a restart. */
	atomic_int event;
	atomic_bool quit;
	struct error why; /* [lock] for VM_END_CRASH, VM_END_ERROR */

	/* Of the main thread: how triple faults that restart the guest are told from one that never ends. */
	int64_t started_ns; /* virtual time of the last start */
	unsigned early_faults;
};

/* Values of vm.event beside enum vm_end + 1. */
#define VM_EVENT_NONE   0
#define VM_EVENT(end)   ((int)(end) + 1)
#define VM_EVENT_RESET  100 /* the guest asks for it */
#define VM_EVENT_INIT   103 /* likewise, by a reset of its processors only */
#define VM_EVENT_BUTTON 101 /* the user does */
#define VM_EVENT_SHUTDOWN                                                                                    \
	102 /* a processor shut down by a triple fault, which a PC's chipset answers with a reset */

/* Asks for the end or a reset: stops the vCPUs and the loop. Any thread, async-signal-safe if why is NULL. */
void vm_post_event(struct vm *vm, int event, const char *why);

/* Pauses the VM or lets it go on, soon; control_state_changed tells when. Any thread. */
void vm_want_paused(struct vm *vm, bool paused);
/* The engine's statistics of a vCPU, counter by counter; false: no more. */
bool vm_stat(struct vm *vm, unsigned cpu, unsigned counter, const char **name, uint64_t *value);

/* cpu.c */
int vm_cpus_new(struct vm *vm, struct error *err);
void vm_cpus_free(struct vm *vm);
/* As in struct vcpu_board; opaque is the struct vm_cpu (cpu_gpr.c). */
bool vm_cpu_peek(void *opaque, uint64_t pa, uint32_t *value);
int vm_cpus_start(struct vm *vm, struct error *err);
/* To RESET, application processors waiting for their start-up IPI. While parked or before the start. */
void vm_cpus_reset(struct vm *vm);
/* Their INIT pins are pulled. Any thread. */
void vm_cpus_init(struct vm *vm);
/* Waits until no vCPU runs; lets them run; makes their threads end (while parked). Without the I/O lock. */
void vm_park(struct vm *vm);
void vm_unpark(struct vm *vm);
void vm_cpus_stop(struct vm *vm);
void vm_kick_all(struct vm *vm);

/* firmware.c: reads the image; puts it on the board (*ret: the ROM, NULL without firmware); fw_cfg's files */
int vm_firmware_open(struct vm *vm, struct error *err);
int vm_firmware_add_rom(struct vm *vm, struct mem_block **ret, struct error *err);
/* Gives the network card added last the ROM by which firmware boots from it, if it is to. */
int vm_firmware_add_boot_rom(struct vm *vm, const char *name, struct error *err);
int vm_firmware_describe(struct vm *vm, struct fwcfg *f, struct error *err);
/* Says where firmware finds a device that it can boot from; those of one kind in the order of calls. */
void vm_boot_path(struct vm *vm, enum vm_boot kind, const char *path);
/* The same for something on a PCI function: its type, and the path from there on. */
void vm_boot_path_pci(struct vm *vm, enum vm_boot kind, const struct pci_device *fn, const char *type,
		      const char *rest);

/* board_storage.c: the USB controller, once; disks and CD drives; what is in flight finishes; closes the
 * images, after the devices. */
int vm_usb_new(struct vm *vm, struct error *err);
/* The floppy controller, if there is a diskette; in CMOS too. */
struct dma;
int vm_floppies_new(struct vm *vm, struct dma *dma, struct error *err);
int vm_storage_new(struct vm *vm, struct error *err);
void vm_storage_drain(struct vm *vm);
void vm_storage_close(struct vm *vm);
/* [io] Puts a disc into a drive, path NULL: takes it out. 0 or -errno with one sentence; the drive is as
 * before. */
int vm_cd_insert(struct vm *vm, struct vm_cd *cd, const char *path, struct error *err);

/* board.c; without the I/O lock, which backends take themselves */
int vm_board_new(struct vm *vm, struct error *err);
void vm_board_free(struct vm *vm);

#endif
