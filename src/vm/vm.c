/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The main thread runs the event loop.  What ends or restarts the VM is an
 * event (vm_post_event): it stops the loop and parks the vCPUs, then the main
 * thread, holding no lock, does the rest with the whole machine standing still.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "base/log.h"
#include "base/util.h"
#include "boot/acpi.h"
#include "boot/firmware.h"
#include "dev/pc/acpi_pm.h"
#include "dev/timer/rtc.h"
#include "vm/vm_internal.h"

/* A guest that shuts down by a triple fault so many times in a row, each soon after its start, gets nowhere.
 */
#define MAX_EARLY_FAULTS 4
#define EARLY_NS         2000000000

static const struct engine_ops *const engines[] = { &engine_bt };

static const struct engine_ops *find_engine(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(engines); i++)
		if (!strcmp(name, "auto") || !strcmp(name, engines[i]->name))
			return engines[i];
	return NULL;
}

/* ---- events ---- */

void vm_post_event(struct vm *vm, int event, const char *why)
{
	int none = VM_EVENT_NONE;
	if (why) {
		mutex_lock(&vm->lock);
		if (atomic_compare_exchange_strong(&vm->event, &none, event))
			error_set(&vm->why, EIO, "%s", why);
		mutex_unlock(&vm->lock);
	} else {
		atomic_compare_exchange_strong(&vm->event, &none, event);
	}
	/* The guest must not go on for long after, say, its power-off. */
	atomic_store(&vm->park, true);
	vm_kick_all(vm);
	loop_quit(vm->loop);
}

/*
 * Does a reset of the processors let a directly booted system go on, where it has told the BIOS (CMOS byte
 * 0F, boot/linux.c)?  That is how programs for the 80286 come back from protected mode.  Otherwise, firmware
 * would start from the beginning: that is a reset.  [io lock]
 */
static bool resumes(struct vm *vm)
{
	uint8_t code = rtc_cmos(vm->rtc, RTC_SHUTDOWN);

	return !vm->firmware && (code == 0x05 || code == 0x0a);
}

static void board_request(void *opaque, enum board_request what)
{
	struct vm *vm = opaque;
	switch (what) {
	case BOARD_POWEROFF:
		vm_post_event(vm, VM_EVENT(VM_END_POWEROFF), NULL);
		break;
	case BOARD_RESET:
		vm_post_event(vm, VM_EVENT_RESET, NULL);
		break;
	case BOARD_INIT:
		if (resumes(vm))
			vm_cpus_init(vm);
		else
			vm_post_event(vm, VM_EVENT_INIT, NULL);
		break;
	case BOARD_EXIT:
		vm_post_event(vm, VM_EVENT(VM_END_STATUS), NULL);
		break;
	case BOARD_PANIC:
		/* No sentence here: this runs under the I/O lock, above vm->lock's rank. */
		vm_post_event(vm, VM_EVENT(VM_END_CRASH), NULL);
		break;
	}
}

void vm_quit(struct vm *vm)
{
	atomic_store(&vm->quit, true);
	vm_post_event(vm, VM_EVENT(VM_END_QUIT), NULL);
}

/* ---- life ---- */

/* What firmware and boot loader would leave behind, and the kernel at its entry. */
static int boot_directly(struct vm *vm, struct error *err)
{
	struct boot_config config = { .cmdline = vm->config->cmdline };
	uint64_t high_end = GIB(4) + mem_high_ram_size(vm->mem);
	for (unsigned i = 0; i < vm->nr_cpus; i++)
		boot_firmware_state(vm->ops->vcpu_state(vm->cpus[i].vcpu), vm->model.phys_bits);
	mutex_lock(&vm->io_lock);
	int r = pci_assign_resources(vm->pci, err);
	mutex_unlock(&vm->io_lock);
	if (r)
		return r;
	struct acpi_config acpi = {
		.nr_cpus = vm->nr_cpus,
		.pci_mem_start = pci_window_start(vm->pci),
		.pci_mem64_start = align_up(high_end, GIB(1)),
		.pci_mem64_size = GIB(16),
		.pvpanic = true,
		.fw_cfg = true,
		.pm_base = ACPI_PM_BASE,
		.i8042 = vm->has_i8042,
		.vga = vm->has_vga,
		.com2 = true,
		.parallel = true,
		.floppy = vm->config->nr_floppies > 0,
	};
	if (acpi.pci_mem64_start + acpi.pci_mem64_size > 1ull << vm->model.phys_bits)
		acpi.pci_mem64_size = 0;
	r = acpi_build(vm->mem, &acpi, &config.rsdp, err);
	if (!r)
		r = boot_linux(vm->mem, vm->image, &config, vm->ops->vcpu_state(vm->cpus[0].vcpu), err);
	if (!r)
		vm->ops->vcpu_state_changed(vm->cpus[0].vcpu);
	return r;
}

/* Everything to its power-on state, and the boot processor at firmware's or the kernel's entry. While no vCPU
 * runs. */
static int start_guest(struct vm *vm, bool soft, struct error *err)
{
	mutex_lock(&vm->io_lock);
	vm->board.soft_reset = soft && !vm->firmware;
	board_reset(&vm->board);
	vm->started_ns = clock_now_ns(&vm->clock);
	mutex_unlock(&vm->io_lock);
	mutex_lock(&vm->lock);
	error_set(&vm->why, EIO, "the guest's kernel panicked"); /* unless an event says something else */
	mutex_unlock(&vm->lock);
	vm_cpus_reset(vm);
	return vm->firmware ? 0 : boot_directly(vm, err);
}

void vm_want_paused(struct vm *vm, bool paused)
{
	atomic_store(&vm->want_paused, paused);
	if (paused) {
		atomic_store(&vm->park, true);
		vm_kick_all(vm);
	}
	loop_quit(vm->loop);
}

static void set_time_running(struct vm *vm, bool running);

/* Does what vm_want_paused asked for. */
static void pause_or_resume(struct vm *vm)
{
	bool paused = atomic_load(&vm->want_paused);
	if (paused) {
		vm_park(vm);
		set_time_running(vm, false);
	} else {
		set_time_running(vm, true);
		vm_unpark(vm);
	}
	mutex_lock(&vm->io_lock);
	vm->paused = paused;
	if (vm->net)
		net_set_running(vm->net, !paused);
	control_state_changed(vm->control);
	window_set_paused(vm->window, paused);
	mutex_unlock(&vm->io_lock);
}

/* Runs the loop until an event, which may come in a paused VM too; returns it. */
static int wait_for_event(struct vm *vm)
{
	while (atomic_load(&vm->event) == VM_EVENT_NONE) {
		if (atomic_load(&vm->want_paused) != vm->paused)
			pause_or_resume(vm);
		else
			loop_run(vm->loop);
	}
	vm_park(vm);
	return atomic_load(&vm->event);
}

/* Virtual time stands still while the machine does, or is not there yet. */
static void set_time_running(struct vm *vm, bool running)
{
	mutex_lock(&vm->io_lock);
	if (running)
		clock_start(&vm->clock);
	else
		clock_stop(&vm->clock);
	loop_clock_changed(vm->loop);
	kvmclock_clock_changed(vm->kvmclock);
	for (unsigned i = 0; running && i < vm->nr_cpus; i++)
		lapic_clock_changed(vm->cpus[i].lapic);
	mutex_unlock(&vm->io_lock);
}

/*
 * May the guest go on after a triple fault?  Firmware and systems use it to restart, and programs for the
 * 80286, which has no other way, to come back from protected mode: they write CMOS's shutdown byte before.
 * But a system that faults over and over as soon as it starts will do so for ever.
 */
static bool survives_shutdown(struct vm *vm)
{
	mutex_lock(&vm->io_lock);
	bool early = clock_now_ns(&vm->clock) - vm->started_ns < EARLY_NS;
	bool wanted = vm->firmware && rtc_cmos(vm->rtc, RTC_SHUTDOWN);
	mutex_unlock(&vm->io_lock);
	mutex_lock(&vm->lock);
	struct error why = vm->why;
	mutex_unlock(&vm->lock);
	if (vm->config->no_reboot)
		return false;
	if (wanted)
		return true;
	vm->early_faults = early ? vm->early_faults + 1 : 0;
	if (vm->early_faults == MAX_EARLY_FAULTS) {
		mutex_lock(&vm->lock);
		error_set(&vm->why, EIO, "%s, for the %dth time within %d seconds of its start", why.message,
			  MAX_EARLY_FAULTS, EARLY_NS / 1000000000);
		mutex_unlock(&vm->lock);
		return false;
	}
	log_warn("%s: %s, the machine is reset", vm->config->name, why.message);
	return true;
}

/* Does an event make the machine start again? What it ends with otherwise replaces *event. */
static bool restarts(struct vm *vm, int *event)
{
	switch (*event) {
	case VM_EVENT_SHUTDOWN:
		if (survives_shutdown(vm))
			return true;
		*event = VM_EVENT(VM_END_CRASH);
		return false;
	case VM_EVENT_RESET:
	case VM_EVENT_INIT:
		vm->early_faults = 0;
		if (!vm->config->no_reboot)
			return true;
		*event = VM_EVENT(VM_END_RESET);
		return false;
	case VM_EVENT_BUTTON:
		vm->early_faults = 0;
		return true;
	default:
		return false;
	}
}

/* The event has been dealt with: the vCPUs go on, but in a paused VM. */
static void let_go(struct vm *vm)
{
	atomic_store(&vm->event, VM_EVENT_NONE);
	if (!vm->paused)
		vm_unpark(vm);
	if (atomic_load(&vm->quit))
		vm_quit(vm);
}

/* Was the triple fault a system's way back from protected mode? Then it is on that way. */
static bool resume(struct vm *vm)
{
	mutex_lock(&vm->io_lock);
	bool yes = resumes(vm);
	mutex_unlock(&vm->io_lock);
	if (!yes)
		return false;
	vm_cpus_init(vm);
	let_go(vm);
	return true;
}

static int restart(struct vm *vm, bool soft, struct error *err)
{
	log_info("%s: the guest restarts", vm->config->name);
	set_time_running(vm, false);
	int r = start_guest(vm, soft, err);
	if (r)
		return r;
	if (!vm->paused)
		set_time_running(vm, true);
	let_go(vm);
	return 0;
}

enum vm_end vm_run(struct vm *vm, struct error *why)
{
	int event = VM_EVENT(VM_END_ERROR);
	int r = start_guest(vm, false, why);
	if (!r) {
		set_time_running(vm, true);
		r = vm_cpus_start(vm, why);
	}
	while (!r) {
		event = wait_for_event(vm);
		if (event == VM_EVENT_SHUTDOWN && resume(vm))
			continue;
		if (!restarts(vm, &event))
			break;
		r = restart(vm, event == VM_EVENT_INIT, why);
	}
	vm_cpus_stop(vm);
	set_time_running(vm, false);
	if (r)
		return VM_END_ERROR;
	if (why)
		*why = vm->why;
	return (enum vm_end)(event - 1);
}

/* ---- assembly ---- */

static int check_memory(const struct vm *vm, struct error *err)
{
	/* The PCI window above RAM needs addresses too. */
	unsigned bits = vm->model.phys_bits;
	if (GIB(4) + vm->config->memory > 1ull << bits)
		return error_set(
		    err, EINVAL,
		    "--memory %lluM: the processor model %s has %u address bits; give at most %lluG",
		    (unsigned long long)(vm->config->memory >> 20), vm->model.name, bits,
		    (1ull << (bits - 30)) - 4);
	/* Guest memory is given as it is touched, so more than is free may do; more than there is cannot. */
	struct sysinfo host;
	if (sysinfo(&host) == 0) {
		uint64_t most = ((uint64_t)host.totalram + host.totalswap) * host.mem_unit;
		if (vm->config->memory > most)
			return error_set(
			    err, ENOMEM, "--memory %lluM: this host has %lluM of memory and swap; give less",
			    (unsigned long long)(vm->config->memory >> 20), (unsigned long long)(most >> 20));
	}
	return 0;
}

static int assemble(struct vm *vm, struct error *err)
{
	const struct vm_config *c = vm->config;
	struct engine_option option = { .tier = c->tier, .stress = c->stress };
	vm->ops = find_engine(c->engine);
	if (!vm->ops)
		return error_set(err, EINVAL, "--engine %s: not known; give auto or bt", c->engine);
	int r =
	    c->firmware ? vm_firmware_open(vm, err) : boot_image_open(c->kernel, c->initrd, &vm->image, err);
	for (unsigned i = 0; !r && i < c->nr_modules; i++)
		r = boot_image_add_module(vm->image, c->modules[i], err);
	if (!r)
		r = cpu_model_new(c->cpu, c->nr_cpus, &vm->model, err);
	if (!r) {
		cpu_model_fit_memory(&vm->model, c->memory);
		r = check_memory(vm, err);
	}
	if (r)
		return r;
	kvmclock_cpuid(vm->model.kvm);
	r = loop_new(&vm->clock, &vm->io_lock, &vm->loop, err);
	if (!r)
		r = mem_new(c->memory, &vm->io_lock, &vm->mem, err);
	if (!r)
		r = vm->ops->vm_new(vm->mem, c->nr_cpus, &option, &vm->engine, err);
	if (r)
		return r;
	mem_huge_start(vm->mem);
	/* With no processor to spare it would only take a vCPU's. */
	if (get_nprocs() > (int)c->nr_cpus)
		mem_ahead_start(vm->mem);
	vm->board = (struct board){
		.mem = vm->mem,
		.loop = vm->loop,
		.clock = &vm->clock,
		.io_lock = &vm->io_lock,
		.request = board_request,
		.request_opaque = vm,
	};
	return vm_board_new(vm, err);
}

int vm_new(const struct vm_config *config, struct vm **ret, struct error *err)
{
	struct vm *vm = calloc(1, sizeof(*vm));
	if (!vm)
		return error_set(err, ENOMEM, "no memory for the VM; free some and try again");
	vm->config = config;
	mutex_init(&vm->lock, LOCK_RANK_VM, "vm");
	mutex_init(&vm->io_lock, LOCK_RANK_IO, "io");
	pthread_cond_init(&vm->parked, NULL);
	pthread_cond_init(&vm->resume, NULL);
	clock_init(&vm->clock);
	clock_stop(&vm->clock); /* until the guest runs */
	int r = assemble(vm, err);
	if (r)
		vm_free(vm);
	else
		*ret = vm;
	return r;
}

void vm_free(struct vm *vm)
{
	if (!vm)
		return;
	vm_board_free(vm);
	vm_cpus_free(vm);
	if (vm->engine)
		vm->ops->vm_free(vm->engine);
	mem_free(vm->mem);
	loop_free(vm->loop);
	boot_image_free(vm->image);
	firmware_free(vm->firmware);
	pthread_cond_destroy(&vm->parked);
	pthread_cond_destroy(&vm->resume);
	mutex_destroy(&vm->io_lock);
	mutex_destroy(&vm->lock);
	free(vm);
}

uint8_t vm_exit_status(const struct vm *vm)
{
	return vm->board.exit_status;
}

/* ---- statistics ---- */

#define COUNTER(member)                                                                                      \
	{                                                                                                    \
#member, offsetof(struct engine_stats, member)                                               \
	}

static const struct {
	const char *name;
	size_t offset;
} counters[] = {
	COUNTER(exits),      COUNTER(mmio_exits),    COUNTER(pio_exits),      COUNTER(halts),
	COUNTER(kicks),      COUNTER(irqs),          COUNTER(blocks),         COUNTER(guest_insns_translated),
	COUNTER(code_bytes), COUNTER(invalidations), COUNTER(flushes),        COUNTER(interp_insns),
	COUNTER(tlb_fills),  COUNTER(lookups),       COUNTER(exceptions),     COUNTER(interp_ns),
	COUNTER(t1_ns),      COUNTER(t2_ns),         COUNTER(t2_promotions),  COUNTER(t2_demotions),
	COUNTER(t2_stops),   COUNTER(t2_syscalls),   COUNTER(t2_faults),      COUNTER(t2_maps),
	COUNTER(t2_unfit),   COUNTER(t2_breaks),     COUNTER(t2_let_in),      COUNTER(t2_own_ns),
	COUNTER(t2_map_ns),  COUNTER(translate_ns),  COUNTER(lockstep_insns),
};

bool vm_stat(struct vm *vm, unsigned cpu, unsigned counter, const char **name, uint64_t *value)
{
	struct engine_stats stats = { 0 };
	if (counter >= ARRAY_SIZE(counters))
		return false;
	vm->ops->vcpu_stats(vm->cpus[cpu].vcpu, &stats);
	*name = counters[counter].name;
	memcpy(value, (const char *)&stats + counters[counter].offset, sizeof(*value));
	return true;
}

/* Resident memory by what it is for: guest RAM, code cache (code and block records), the monitor itself. */
static void print_memory(struct vm *vm, FILE *f)
{
	_cleanup_fclose_ FILE *maps = fopen("/proc/self/smaps", "re");
	enum { RAM, CODE, REST, NR } what = REST;
	unsigned long long sum[NR] = { 0 }, huge = 0, kib, from, to;
	bool counted = true;
	char line[512], perms[5];

	while (maps && fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%llx-%llx %4s", &from, &to, perms) == 3) {
			what = strstr(line, "sill-ram") ? RAM : strstr(line, "sill-code") ? CODE : REST;
			/* The code arena is mapped twice, writable and executable. */
			counted = what != CODE || perms[1] == 'w';
		} else if (counted && sscanf(line, "Rss: %llu kB", &kib) == 1) {
			sum[what] += kib;
		} else if (what == RAM && sscanf(line, "ShmemPmdMapped: %llu kB", &kib) == 1) {
			huge += kib;
		}
	}
	fprintf(f, "%s: memory in MiB: guest %llu (huge pages %llu), code cache %llu, monitor %llu\n",
		vm->config->name, sum[RAM] >> 10, huge >> 10, sum[CODE] >> 10, sum[REST] >> 10);
}

void vm_print_stats(struct vm *vm, FILE *f)
{
	for (unsigned i = 0; i < vm->nr_cpus; i++) {
		struct engine_stats stats = { 0 };
		vm->ops->vcpu_stats(vm->cpus[i].vcpu, &stats);
		fprintf(f, "%s: vCPU %u (engine %s)\n", vm->config->name, i, vm->ops->name);
		for (size_t j = 0; j < ARRAY_SIZE(counters); j++) {
			uint64_t v;
			memcpy(&v, (const char *)&stats + counters[j].offset, sizeof(v));
			fprintf(f, "  %-24s %20llu\n", counters[j].name, (unsigned long long)v);
		}
		fprintf(f, "  interpreted most        ");
		for (size_t j = 0; j < ARRAY_SIZE(stats.interp_top) && stats.interp_top[j].count; j++)
			fprintf(f, " %s %llu", stats.interp_top[j].name,
				(unsigned long long)stats.interp_top[j].count);
		fputc('\n', f);
	}
	print_memory(vm, f);
}
