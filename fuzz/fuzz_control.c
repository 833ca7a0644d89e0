/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of the control socket, on a VM without processors: after the first
 * byte, which says what the VM has and whether the client reads its answers, the
 * input is what the client sends.  After each 64 bytes keys are typed, and the VM
 * pauses or goes on if it was asked to.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "dev/pc/acpi_pm.h"
#include "vm/vm_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_INPUT 8192u

enum { NO_SCREEN = 1, NO_KEYBOARD = 2, READS_NOTHING = 4, NO_DRIVE = 8, LOCKED = 16 };

static uint32_t pixels[32 * 16];

static char *screen_text(void *opaque)
{
	(void)opaque;
	return strdup("C:\\>");
}

static void make_vm(struct vm *vm, const struct vm_config *config, const struct engine_ops *ops,
		    unsigned flags)
{
	vm->config = config;
	vm->ops = ops;
	mutex_init(&vm->lock, LOCK_RANK_VM, "vm");
	mutex_init(&vm->io_lock, LOCK_RANK_IO, "io");
	clock_init(&vm->clock);
	clock_stop(&vm->clock);
	vm->board.clock = &vm->clock;
	vm->board.io_lock = &vm->io_lock;
	if (mem_new(MIB(1), &vm->io_lock, &vm->mem, NULL) < 0 ||
	    loop_new(&vm->clock, &vm->io_lock, &vm->loop, NULL) < 0)
		abort(); /* of our own host, not of the input */
	vm->board.mem = vm->mem;
	vm->board.loop = vm->loop;
	if (irq_router_new(&vm->board, &vm->router, NULL) < 0 ||
	    acpi_pm_new(&vm->board, irq_router_isa_line(vm->router, ACPI_SCI_IRQ), &vm->acpi_pm, NULL) < 0)
		abort();
	vm->has_i8042 = !(flags & NO_KEYBOARD);
	if (!(flags & NO_SCREEN))
		vm->display =
		    (struct display){ .width = 32, .height = 16, .pixels = pixels, .text = screen_text };
}

static void quit(void *opaque)
{
	loop_quit(opaque);
}

/* Lets the loop and the main thread do what there is to do. */
static void run(struct vm *vm)
{
	struct loop_work w = { .fn = quit, .opaque = vm->loop };

	for (unsigned i = 0; i < 8; i++) {
		vm->clock.stopped_ns += 10000000;
		loop_clock_changed(vm->loop);
		mutex_unlock(&vm->io_lock);
		loop_post(vm->loop, &w);
		loop_run(vm->loop);
		mutex_lock(&vm->io_lock);
		if (atomic_load(&vm->want_paused) == vm->paused)
			continue;
		vm->paused = !vm->paused;
		control_state_changed(vm->control);
	}
	loop_unpost(vm->loop, &w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct engine_ops ops = { .name = "none" };
	static char nothing[65536];
	struct vm_config config = { .name = "fuzz", .memory = MIB(1) };
	struct vm *vm = calloc(1, sizeof(*vm));
	struct cdrom drive = { 0 };
	unsigned flags = size ? data[0] : 0;
	char path[64];
	int fd[2];

	if (!vm || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd))
		abort();
	make_vm(vm, &config, &ops, flags);
	drive.locked = flags & LOCKED;
	if (!(flags & NO_DRIVE))
		vm->cds[0].drive = &drive;
	snprintf(path, sizeof(path), "/tmp/sill-fuzz-%d.control", (int)getpid());
	mutex_lock(&vm->io_lock);
	if (control_new(vm, path, &vm->control, NULL) || control_add_client(vm->control, fd[0]))
		abort();
	for (size_t at = 1; at < size && at < MAX_INPUT; at += 64) {
		if (send(fd[1], data + at, min_u64(64, size - at), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			break; /* it was thrown out */
		run(vm);
		while (!(flags & READS_NOTHING) && recv(fd[1], nothing, sizeof(nothing), MSG_DONTWAIT) > 0)
			continue;
	}
	control_free(vm->control);
	if (vm->cds[0].drive)
		vm_cd_insert(vm, &vm->cds[0], NULL, NULL);
	close(fd[1]);
	board_free_devices(&vm->board);
	mutex_unlock(&vm->io_lock);
	loop_free(vm->loop);
	mem_free(vm->mem);
	mutex_destroy(&vm->io_lock);
	mutex_destroy(&vm->lock);
	free(vm);
	return 0;
}
