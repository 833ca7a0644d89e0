/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is wired to what: one PC with an i440FX host bridge, a PIIX3 ISA bridge
 * and a PIIX4 power-management function, PC timers, serial and parallel ports, and virtio
 * devices from PCI slot 3 up, in this order: USB and disks (board_storage.c), network, entropy.
 *
 * The order of construction is the order of reset, save and load; it is part of
 * the saved state's format.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "boot/firmware.h"
#include "boot/image.h"
#include "dev/display/vga.h"
#include "dev/input/i8042.h"
#include "dev/net/e1000.h"
#include "dev/pc/acpi_pm.h"
#include "dev/pc/debug_exit.h"
#include "dev/pc/debugcon.h"
#include "dev/pc/dma.h"
#include "dev/pc/ferr.h"
#include "dev/pc/parallel.h"
#include "dev/pc/pvpanic.h"
#include "dev/pc/serial.h"
#include "dev/pc/sysctl.h"
#include "dev/pc/testdev.h"
#include "dev/pci/pci.h"
#include "dev/timer/hpet.h"
#include "dev/timer/pit.h"
#include "dev/timer/rtc.h"
#include "dev/virtio/virtio_gpu.h"
#include "dev/virtio/virtio_input.h"
#include "dev/virtio/virtio_net.h"
#include "dev/virtio/virtio_pci.h"
#include "dev/virtio/virtio_rng.h"
#include "vm/vm_internal.h"

/* PCI class codes (PCI Code and ID Assignment 1.11) */
#define CLASS_NETWORK 0x020000
#define CLASS_DISPLAY 0x038000
#define CLASS_INPUT   0x098000
#define CLASS_OTHER   0x00ff00

#define COM1_BASE 0x3f8
#define COM1_IRQ  4
#define COM2_BASE 0x2f8
#define COM2_IRQ  3

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

static int open_serial(struct vm *vm, enum vm_serial kind, const char *path, struct chardev **ret,
		       struct error *err)
{
	switch (kind) {
	case VM_SERIAL_STDIO:
		return chardev_stdio_new(vm->loop, console_escape, vm, ret, err);
	case VM_SERIAL_FILE:
		return chardev_file_new(vm->loop, path, ret, err);
	case VM_SERIAL_UNIX:
		return chardev_unix_new(vm->loop, path, ret, err);
	case VM_SERIAL_NONE:
		break;
	}
	return 0;
}

/* Two serial ports and a parallel one, whatever is connected to them. */
static int add_ports(struct vm *vm, struct error *err)
{
	const struct vm_config *c = vm->config;
	struct board *b = &vm->board;
	struct serial *serial;
	struct parallel *parallel;
	int r = open_serial(vm, c->serial, c->serial_path, &vm->console, err);
	if (!r)
		r = serial_new(b, COM1_BASE, irq_router_isa_line(vm->router, COM1_IRQ), vm->console, 0,
			       &serial, err);
	if (!r)
		r = open_serial(vm, c->serial2, c->serial2_path, &vm->serial2, err);
	if (!r)
		r = serial_new(b, COM2_BASE, irq_router_isa_line(vm->router, COM2_IRQ), vm->serial2, 1,
			       &serial, err);
	if (!r && c->parallel)
		r = chardev_file_new(vm->loop, c->parallel, &vm->parallel, err);
	if (!r)
		r = parallel_new(b, irq_router_isa_line(vm->router, 7), vm->parallel, &parallel, err);
	return r;
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

/* What is on the ISA bus. */
static int add_isa(struct vm *vm, struct error *err)
{
	struct board *b = &vm->board;
	struct hpet *hpet;
	struct pit *pit;
	struct sysctl *sysctl;
	struct i8042 *i8042;
	struct pvpanic *pvpanic;
	struct debug_exit *debug_exit;
	struct debugcon *debugcon;
	struct testdev *testdev;
	struct dma *dma;
	int r = hpet_new(b, vm->router, &hpet, err);
	if (!r)
		r = pit_new(b, hpet_pit_line(hpet), &pit, err);
	if (!r)
		r = rtc_new(b, hpet_rtc_line(hpet), &vm->rtc, err);
	if (!r)
		r = ferr_new(b, irq_router_isa_line(vm->router, 13), &vm->ferr, err);
	if (!r)
		r = add_ports(vm, err);
	if (!r)
		r = sysctl_new(b, vm->has_i8042, &sysctl, err);
	if (!r && vm->has_i8042)
		r = i8042_new(b, irq_router_isa_line(vm->router, 1), irq_router_isa_line(vm->router, 12),
			      sysctl, &vm->input, &i8042, err);
	if (!r)
		r = dma_new(b, &dma, err);
	if (!r)
		r = vm_floppies_new(vm, dma, err);
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

static int add_vga(struct vm *vm, struct error *err)
{
	_cleanup_free_ uint8_t *rom = NULL;
	size_t rom_size = 0;
	struct vga *vga;
	/* A kernel that is booted directly drives the card itself, but for Multiboot's, which begin with
	 * text. */
	bool text = !vm->firmware && vm->image->is_multiboot;
	int r = vm->firmware || text ? firmware_read_rom(FIRMWARE_SEABIOS_FOLDER, "vgabios-stdvga.bin",
							 "seabios", &rom, &rom_size, err)
				     : 0;
	if (r && text)
		log_warn("the screen's characters will be blank: %s", err ? err->message : strerror(-r));
	else if (r)
		return r;
	r = vga_new(&vm->board, vm->pci, text ? NULL : rom, text ? 0 : rom_size, &vm->display, &vga, err);
	if (!r && text)
		vga_begin_with_text(vga, rom, rom_size);
	return r;
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
		vm_boot_path_pci(vm, VM_BOOT_NETWORK, pci_newest(vm->pci), "ethernet", "/ethernet-phy@0");
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
	bool typed_at = vm->firmware || shown || vm->config->vga == VM_VGA_VIRTIO;
	/* Multiboot kernels know PCs that have one, and wait for it. */
	vm->has_i8042 = typed_at || vm->image->is_multiboot;
	vm->has_vga = (vm->firmware || shown) && vm->config->vga == VM_VGA_STD;
	int r = add_chipset(vm, err);
	if (!r)
		r = add_isa(vm, err);
	if (!r)
		r = add_display(vm, err);
	if (!r && typed_at && !vm->config->no_usb)
		r = vm_usb_new(vm, err);
	if (!r)
		r = vm_storage_new(vm, err);
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
	vm_storage_drain(vm);
	board_free_devices(&vm->board);
	vm_storage_close(vm);
	chardev_free(vm->console);
	chardev_free(vm->serial2);
	chardev_free(vm->parallel);
	chardev_free(vm->debugcon);
	mutex_unlock(&vm->io_lock);
	net_free(vm->net); /* without the lock: it waits for its thread */
	vm->net = NULL;
	vm->console = vm->serial2 = vm->parallel = vm->debugcon = NULL;
}
