/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread per vCPU:
 *
 *	         +---- kick ----+
 *	         v              |
 *	parked? -> events -> waiting for SIPI? -> timer -> vcpu_run -> halted? wait
 *
 * A thread parks where it holds no lock and its vCPU is between instructions,
 * so whoever parked them all may look at and change everything.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <x86intrin.h>

#include "base/util.h"
#include "dev/pc/ferr.h"
#include "vm/vm_internal.h"

#define KVM_HC_SEND_IPI 10u

/* ---- what the LAPIC and the engine ask ---- */

static void post_cpu_event(struct vm_cpu *c, unsigned event)
{
	atomic_fetch_or(&c->events, event);
	c->vm->ops->vcpu_kick(c->vcpu);
}

static void host_kick(void *opaque)
{
	struct vm_cpu *c = opaque;
	c->vm->ops->vcpu_kick(c->vcpu);
}

static void host_arm_timer(void *opaque, int64_t virtual_ns)
{
	struct vm_cpu *c = opaque;
	int64_t host = INT64_MAX;
	if (virtual_ns != INT64_MAX && c->vm->clock.running)
		host = clock_to_host_ns(&c->vm->clock, virtual_ns);
	c->vm->ops->vcpu_arm_timer(c->vcpu, host);
}

static uint64_t tsc_offset(const struct vm_cpu *c)
{
	return c->vm->ops->vcpu_state(c->vcpu)->tsc_offset;
}

static uint64_t host_tsc_now(void *opaque)
{
	return __rdtsc() + tsc_offset(opaque);
}

static void host_init_sipi_nmi(void *opaque, enum lapic_event event, uint8_t vector)
{
	struct vm_cpu *c = opaque;
	switch (event) {
	case LAPIC_EVENT_INIT:
		post_cpu_event(c, CPU_EVENT_INIT);
		break;
	case LAPIC_EVENT_SIPI:
		atomic_store(&c->sipi_vector, vector);
		post_cpu_event(c, CPU_EVENT_SIPI);
		break;
	case LAPIC_EVENT_NMI:
		post_cpu_event(c, atomic_load(&c->events) & CPU_EVENT_NMI ? CPU_EVENT_NMI2 : CPU_EVENT_NMI);
		break;
	}
}

static bool board_irq_pending(void *opaque)
{
	return lapic_irq_pending(((struct vm_cpu *)opaque)->lapic);
}

static int board_irq_ack(void *opaque)
{
	return lapic_ack(((struct vm_cpu *)opaque)->lapic);
}

static int board_msr_read(void *opaque, uint32_t index, uint64_t *value)
{
	struct vm_cpu *c = opaque;
	int r = kvmclock_msr_read(c->vm->kvmclock, c->index, index, value);
	if (r == -ENOENT)
		r = lapic_msr_read(c->lapic, index, value);
	return r ? -1 : 0;
}

static int board_msr_write(void *opaque, uint32_t index, uint64_t value)
{
	struct vm_cpu *c = opaque;
	int r = lapic_msr_write(c->lapic, index, value);
	if (r)
		r = kvmclock_msr_write(c->vm->kvmclock, c->index, tsc_offset(c), index, value);
	return r ? -1 : 0;
}

static uint64_t board_hypercall(void *opaque, uint64_t nr, const uint64_t arg[4], unsigned width)
{
	struct vm_cpu *c = opaque;

	if (nr == KVM_HC_SEND_IPI)
		return (uint64_t)lapic_pv_ipi(c->lapic, arg, width, arg[2], arg[3]);
	return (uint64_t)-1000; /* -KVM_ENOSYS */
}

static uint8_t board_cr8_read(void *opaque)
{
	return lapic_cr8_read(((struct vm_cpu *)opaque)->lapic);
}

static void board_cr8_write(void *opaque, uint8_t value)
{
	lapic_cr8_write(((struct vm_cpu *)opaque)->lapic, value);
}

/* Only the bootstrap processor's pins are wired. */
static bool board_ferr(void *opaque, bool asserted)
{
	struct vm_cpu *c = opaque;
	bool ignored = false;

	if (c->index == 0) {
		mutex_lock(&c->vm->io_lock);
		ignored = ferr_set(c->vm->ferr, asserted);
		mutex_unlock(&c->vm->io_lock);
	}
	return ignored;
}

/* ---- the thread ---- */

static __thread struct vm_cpu *current_cpu;

static struct lapic *current_lapic(void *opaque)
{
	struct vm_cpu *c = current_cpu;
	return c && c->vm == opaque ? c->lapic : NULL;
}

/* False: the thread is to end. */
static bool park_if_asked(struct vm_cpu *c)
{
	struct vm *vm = c->vm;
	if (!atomic_load(&vm->park))
		return true;
	mutex_lock(&vm->lock);
	unsigned round = vm->round;
	vm->nr_parked++;
	pthread_cond_broadcast(&vm->parked);
	while (vm->round == round && !vm->ending)
		pthread_cond_wait(&vm->resume, &vm->lock.m);
	bool go_on = !vm->ending;
	mutex_unlock(&vm->lock);
	return go_on;
}

/* INIT (SDM 3A table 9-1): as RESET, but for what belongs to the package, the FPU's contents and the TSC. */
static void handle_init(struct vm_cpu *c, struct x86_state *s)
{
	struct x86_state *old = malloc(sizeof(*old));
	if (old)
		*old = *s;
	x86_state_reset(s);
	if (old) {
		memcpy(s->xsave, old->xsave, sizeof(s->xsave));
		memcpy(s->mtrr_fixed, old->mtrr_fixed, sizeof(s->mtrr_fixed));
		memcpy(s->mtrr_base, old->mtrr_base, sizeof(s->mtrr_base));
		memcpy(s->mtrr_mask, old->mtrr_mask, sizeof(s->mtrr_mask));
		s->mtrr_def_type = old->mtrr_def_type;
		s->pat = old->pat;
		s->ferr = old->ferr;
		s->xcr0 = old->xcr0;
		s->tsc_aux = old->tsc_aux;
		s->cr0 = (s->cr0 & ~(uint64_t)(CR0_CD | CR0_NW)) | (old->cr0 & (CR0_CD | CR0_NW));
	}
	free(old);
	s->wait_sipi = c->index != 0; /* the bootstrap processor starts again at the reset vector */
	lapic_init(c->lapic);
}

static void handle_sipi(struct vm_cpu *c, struct x86_state *s)
{
	if (!s->wait_sipi)
		return; /* SDM 3A 8.4.3: ignored by a processor that runs */
	unsigned vector = atomic_load(&c->sipi_vector);
	s->seg[SEG_CS].sel = (uint16_t)(vector << 8);
	s->seg[SEG_CS].base = (uint64_t)vector << 12;
	s->rip = 0;
	s->wait_sipi = false;
}

static void handle_events(struct vm_cpu *c)
{
	unsigned events = atomic_exchange(&c->events, 0);
	if (!events)
		return;
	struct x86_state *s = c->vm->ops->vcpu_state(c->vcpu);
	if (events & CPU_EVENT_INIT)
		handle_init(c, s);
	if (events & CPU_EVENT_SIPI)
		handle_sipi(c, s);
	if ((events & CPU_EVENT_NMI) && !s->wait_sipi)
		x86_nmi(s);
	if ((events & CPU_EVENT_NMI2) && !s->wait_sipi)
		x86_nmi(s);
	c->vm->ops->vcpu_state_changed(c->vcpu);
}

/* Nanoseconds that this thread was runnable but waited, from /proc (the second number of schedstat). */
static uint64_t run_delay(struct vm_cpu *c)
{
	char text[96];
	unsigned long long on_cpu, waited;
	ssize_t n = c->schedstat_fd < 0 ? -1 : pread(c->schedstat_fd, text, sizeof(text) - 1, 0);
	if (n <= 0)
		return 0;
	text[n] = 0;
	return sscanf(text, "%llu %llu", &on_cpu, &waited) == 2 ? waited : 0;
}

static void post_shutdown(struct vm_cpu *c)
{
	const struct x86_state *s = c->vm->ops->vcpu_state(c->vcpu);
	char why[96];
	snprintf(why, sizeof(why), "a triple fault of processor %u at %04x:%llx", c->index,
		 s->seg[SEG_CS].sel, (unsigned long long)s->rip);
	vm_post_event(c->vm, VM_EVENT_SHUTDOWN, why);
}

static void run_once(struct vm_cpu *c)
{
	struct vm *vm = c->vm;
	handle_events(c);
	if (vm->ops->vcpu_state(c->vcpu)->wait_sipi) {
		vm->ops->vcpu_wait(c->vcpu);
		return;
	}
	lapic_timer_poll(c->lapic);
	kvmclock_refresh(vm->kvmclock, c->index, tsc_offset(c),
			 kvmclock_wants_steal(vm->kvmclock, c->index) ? run_delay(c) : 0);
	switch (vm->ops->vcpu_run(c->vcpu)) {
	case VCPU_EXIT_KICKED:
		break;
	case VCPU_EXIT_HALTED:
		vm->ops->vcpu_wait(c->vcpu);
		break;
	case VCPU_EXIT_SHUTDOWN:
		post_shutdown(c);
		break;
	case VCPU_EXIT_ERROR:
		vm_post_event(vm, VM_EVENT(VM_END_ERROR), vm->ops->vcpu_error(c->vcpu));
		break;
	}
}

static void *cpu_thread(void *opaque)
{
	struct vm_cpu *c = opaque;
	struct vm *vm = c->vm;
	struct error err;
	char name[16];
	current_cpu = c;
	snprintf(name, sizeof(name), "sill-vcpu%u", c->index);
	pthread_setname_np(pthread_self(), name);
	c->schedstat_fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
	if (vm->ops->vcpu_thread_init(c->vcpu, &err) < 0)
		vm_post_event(vm, VM_EVENT(VM_END_ERROR), err.message);
	while (park_if_asked(c))
		run_once(c);
	if (c->schedstat_fd >= 0)
		close(c->schedstat_fd);
	mutex_lock(&vm->lock);
	vm->nr_threads--;
	pthread_cond_broadcast(&vm->parked);
	mutex_unlock(&vm->lock);
	return NULL;
}

/* ---- for vm.c ---- */

void vm_kick_all(struct vm *vm)
{
	for (unsigned i = 0; i < vm->nr_cpus; i++)
		if (vm->cpus[i].vcpu)
			vm->ops->vcpu_kick(vm->cpus[i].vcpu);
}

void vm_park(struct vm *vm)
{
	atomic_store(&vm->park, true);
	vm_kick_all(vm);
	mutex_lock(&vm->lock);
	while (vm->nr_parked < vm->nr_threads)
		pthread_cond_wait(&vm->parked, &vm->lock.m);
	mutex_unlock(&vm->lock);
}

void vm_unpark(struct vm *vm)
{
	mutex_lock(&vm->lock);
	atomic_store(&vm->park, false);
	vm->round++;
	vm->nr_parked = 0;
	pthread_cond_broadcast(&vm->resume);
	mutex_unlock(&vm->lock);
}

void vm_cpus_stop(struct vm *vm)
{
	vm_park(vm);
	mutex_lock(&vm->lock);
	vm->ending = true;
	pthread_cond_broadcast(&vm->resume);
	mutex_unlock(&vm->lock);
	for (unsigned i = 0; i < vm->nr_cpus; i++) {
		if (vm->cpus[i].started)
			pthread_join(vm->cpus[i].thread, NULL);
		vm->cpus[i].started = false;
	}
}

int vm_cpus_start(struct vm *vm, struct error *err)
{
	/* Signals that end the VM are for the main thread; engines unblock in vcpu_thread_init what they use.
	 */
	sigset_t block, old;
	sigemptyset(&block);
	sigaddset(&block, SIGTERM);
	sigaddset(&block, SIGINT);
	sigaddset(&block, SIGHUP);
	sigaddset(&block, SIGTSTP);
	sigaddset(&block, SIGCONT);
	sigaddset(&block, SIGWINCH);
	pthread_sigmask(SIG_BLOCK, &block, &old);
	int r = 0;
	for (unsigned i = 0; !r && i < vm->nr_cpus; i++) {
		struct vm_cpu *c = &vm->cpus[i];
		mutex_lock(&vm->lock);
		r = pthread_create(&c->thread, NULL, cpu_thread, c);
		if (!r) {
			c->started = true;
			vm->nr_threads++;
		}
		mutex_unlock(&vm->lock);
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return r ? error_set(err, r, "cannot start a thread for a processor (%s); give fewer --cpus",
			     strerror(r))
		 : 0;
}

void vm_cpus_reset(struct vm *vm)
{
	for (unsigned i = 0; i < vm->nr_cpus; i++) {
		struct vm_cpu *c = &vm->cpus[i];
		struct x86_state *s = vm->ops->vcpu_state(c->vcpu);
		atomic_store(&c->events, 0);
		x86_state_reset(s);
		s->wait_sipi = i != 0;
		vm->ops->vcpu_arm_timer(c->vcpu, INT64_MAX);
		vm->ops->vcpu_state_changed(c->vcpu);
	}
}

void vm_cpus_init(struct vm *vm)
{
	for (unsigned i = 0; i < vm->nr_cpus; i++)
		post_cpu_event(&vm->cpus[i], CPU_EVENT_INIT);
}

static int cpu_new(struct vm *vm, struct vm_cpu *c, struct error *err)
{
	struct vcpu_config config = {
		.mem = vm->mem,
		.model = &vm->model,
		.board = {
			.opaque = c,
			.irq_pending = board_irq_pending,
			.irq_ack = board_irq_ack,
			.msr_read = board_msr_read,
			.msr_write = board_msr_write,
			.cr8_read = board_cr8_read,
			.cr8_write = board_cr8_write,
			.hypercall = board_hypercall,
			.ferr = board_ferr,
			.peek = vm_cpu_peek,
		},
		.apic_id = c->index,
	};
	struct lapic_host host = {
		.opaque = c,
		.kick = host_kick,
		.arm_timer = host_arm_timer,
		.tsc_now = host_tsc_now,
		.tsc_khz = vm->model.tsc_khz,
		.init_sipi_nmi = host_init_sipi_nmi,
		.clock = &vm->clock,
		.phys_bits = (uint8_t)vm->model.phys_bits,
	};
	/* The vCPU first: making the LAPIC resets it, which arms the timer. */
	int r = vm->ops->vcpu_new(vm->engine, &config, &c->vcpu, err);
	if (!r)
		r = lapic_new(&vm->board, vm->router, c->index, &host, &c->lapic, err);
	return r;
}

int vm_cpus_new(struct vm *vm, struct error *err)
{
	vm->cpus = calloc(vm->config->nr_cpus, sizeof(*vm->cpus));
	if (!vm->cpus)
		return error_set(err, ENOMEM, "no memory for the processors; free some and try again");
	for (unsigned i = 0; i < vm->config->nr_cpus; i++) {
		vm->cpus[i].vm = vm;
		vm->cpus[i].index = i;
		vm->cpus[i].schedstat_fd = -1;
		vm->nr_cpus = i + 1;
		int r = cpu_new(vm, &vm->cpus[i], err);
		if (r)
			return r;
	}
	irq_router_set_current(vm->router, current_lapic, vm);
	return 0;
}

void vm_cpus_free(struct vm *vm)
{
	for (unsigned i = 0; i < vm->nr_cpus; i++)
		if (vm->cpus[i].vcpu)
			vm->ops->vcpu_free(vm->cpus[i].vcpu);
	free(vm->cpus);
	vm->cpus = NULL;
	vm->nr_cpus = 0;
}
