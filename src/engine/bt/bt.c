/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bt engine: creation, the run loop, host signals.
 *
 * Memory of a vCPU, one mapping:
 *
 *	[ guard page | host stack for helpers | struct vcpu ]
 *
 * Translated code runs with RSP = the struct's address, so helpers' frames lie
 * below it.  Signal handlers run on an alternate stack, because the guest's
 * code may be interrupted anywhere.
 *
 * A kick is a flag and a signal.  The flag is looked at wherever C code runs;
 * the signal makes translated code, which never looks, reach C code soon
 * (t1.c, t1_signal).  The vCPU's timer is a POSIX timer that sends the same
 * signal, so an expiring LAPIC timer needs no other thread.
 */
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/thread.h"
#include "base/util.h"
#include "engine/bt/bt.h"
#include "engine/bt/interp.h"
#include "engine/bt/lockstep.h"
#include "engine/bt/mmu.h"
#include "engine/bt/native.h"
#include "engine/bt/t1.h"
#include "engine/bt/t2.h"

#define HELPER_STACK MIB(1)
#define KICK_SIGNAL  (SIGRTMIN + 2)

static __thread struct vcpu *current_vcpu;

/* ---- signals ---- */

static struct sigaction old_action[65];
static pthread_once_t signals_once = PTHREAD_ONCE_INIT;

static void kick_handler(int sig, siginfo_t *si, void *ctx)
{
	struct vcpu *v = current_vcpu;

	(void)sig;
	if (!v)
		return;
	if (si->si_code == SI_TIMER && v->t2 && si->si_value.sival_ptr == v->t2 && !t2_hold_over(v))
		return;
	atomic_store_explicit(&v->kick, 1, memory_order_relaxed);
	t1_kick_signal(v, ctx);
	if (v->t2_pid)
		stub_kick(v->t2_pid);
}

/* Not ours: what would have happened without us. */
static void chain(int sig, siginfo_t *si, void *ctx)
{
	struct sigaction *o = &old_action[sig];

	if (o->sa_flags & SA_SIGINFO) {
		o->sa_sigaction(sig, si, ctx);
	} else if (o->sa_handler != SIG_DFL && o->sa_handler != SIG_IGN) {
		o->sa_handler(sig);
	} else {
		signal(sig, SIG_DFL);
		raise(sig);
	}
}

static void fault_handler(int sig, siginfo_t *si, void *ctx)
{
	ucontext_t *uc = ctx;
	greg_t *r = uc->uc_mcontext.gregs;
	struct vcpu *v = current_vcpu;
	uint64_t rip = (uint64_t)r[REG_RIP];

	if (v) {
		if (sig == SIGSEGV && t2_cpuid_signal(v, uc))
			return;
		v->fault_trapno = (uint64_t)r[REG_TRAPNO];
		v->fault_addr = (uint64_t)si->si_addr;
		if (interp_owns_code(v, rip) ||
		    (rip >= (uint64_t)native_code_start && rip < (uint64_t)native_code_end)) {
			r[REG_RIP] = (greg_t)native_fault;
			r[REG_EFL] &= ~(greg_t)(FLAG_TF | FLAG_DF | FLAG_AC);
			return;
		}
		if (t1_fault_signal(v, uc))
			return;
	}
	chain(sig, si, ctx);
}

static void install_signals(void)
{
	static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP };
	struct sigaction sa = { .sa_flags = SA_SIGINFO | SA_ONSTACK };

	sigemptyset(&sa.sa_mask);
	sigaddset(&sa.sa_mask, KICK_SIGNAL);
	sa.sa_sigaction = fault_handler;
	for (unsigned i = 0; i < ARRAY_SIZE(faults); i++)
		sigaction(faults[i], &sa, &old_action[faults[i]]);
	sa.sa_sigaction = kick_handler;
	sigaction(KICK_SIGNAL, &sa, &old_action[KICK_SIGNAL]);
}

/* ---- creation ---- */

static void code_written(void *opaque, void *host, uint64_t len)
{
	struct engine_vm *vm = opaque;

	/* A device wrote, in one page: who has translated from there forgets it. */
	bt_post_each(vm, atomic_load(&vm->page_vcpus[mem_page_number(vm->mem, host)].code), host, len);
}

static void layout_changed(void *opaque)
{
	struct engine_vm *vm = opaque;

	/* Code is kept by what memory it lies in, so that stays; where memory is seen does not. */
	bt_post_each(vm, ~0u, NULL, 0);
}

static int bt_vm_new(struct mem *m, unsigned nr_vcpus, const struct engine_option *o, struct engine_vm **ret,
		     struct error *err)
{
	struct engine_vm *vm = calloc(1, sizeof *vm);
	struct mem_notifier n = { .code_written = code_written, .layout_changed = layout_changed };

	if (!vm)
		return error_set(err, ENOMEM, "out of memory for the engine");
	if (nr_vcpus > ARRAY_SIZE(vm->vcpus)) {
		free(vm);
		return error_set(err, EINVAL,
				 "%u vCPUs are more than the %zu that the engine runs: lower --cpus",
				 nr_vcpus, ARRAY_SIZE(vm->vcpus));
	}
	if (o && stress_parse(o->stress, &vm->stress, err)) {
		free(vm);
		return -EINVAL;
	}
	vm->mem = m;
	mutex_init(&vm->lock, LOCK_RANK_ENGINE, "engine");
	vm->host_cpus = thread_processors();
	vm->use_t1 = !(o && o->tier && !strcmp(o->tier, "interp"));
	vm->use_t2 = !o || !o->tier || !strcmp(o->tier, "auto");
	vm->lockstep = o && o->tier && !strcmp(o->tier, "lockstep");
	vm->code_cache_size = o && o->code_cache_size ? o->code_cache_size : MIB(64);
	n.opaque = vm;
	vm->page_vcpus_size = mem_nr_pages(m) * sizeof *vm->page_vcpus;
	vm->page_vcpus = mmap(NULL, vm->page_vcpus_size, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (vm->page_vcpus == MAP_FAILED) {
		mutex_destroy(&vm->lock);
		free(vm);
		return error_set(err, ENOMEM, "out of memory for the engine");
	}
	mem_set_notifier(m, &n);
	pthread_once(&signals_once, install_signals);
	*ret = vm;
	return 0;
}

static void bt_vm_free(struct engine_vm *vm)
{
	struct mem_notifier none = { 0 };

	if (!vm)
		return;
	mem_set_notifier(vm->mem, &none);
	munmap(vm->page_vcpus, vm->page_vcpus_size);
	mutex_destroy(&vm->lock);
	free(vm);
}

static void bt_vcpu_free(struct vcpu *v)
{
	if (!v)
		return;
	if (v->vm)
		v->vm->vcpus[v->index] = NULL;
	if (v->has_timer)
		timer_delete(v->timer);
	if (v->has_stress_timer)
		timer_delete(v->stress_timer);
	t2_free(v);
	t1_free(v);
	lockstep_free(v);
	interp_free(v);
	if (v->asids)
		munmap(v->asids, sizeof(struct asid) * ASID_SLOTS);
	munmap(v->map, v->map_size);
}

/* CR4 bits that go with the model's features (SDM 3A 2.5). */
static uint64_t cr4_valid(const struct cpu_model *m)
{
	struct cpuid_context c = { 0 };
	struct cpuid_regs l1 = cpuid_query(m, &c, 1, 0), l7 = cpuid_query(m, &c, 7, 0);
	/* No VME, which no model offers. */
	uint64_t ok =
	    CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT;

	if (l1.ecx >> 26 & 1)
		ok |= CR4_OSXSAVE;
	if (l1.ecx >> 17 & 1)
		ok |= CR4_PCIDE;
	if (l7.ebx & 1)
		ok |= CR4_FSGSBASE;
	if (l7.ebx >> 7 & 1)
		ok |= CR4_SMEP;
	if (l7.ebx >> 20 & 1)
		ok |= CR4_SMAP;
	if (l7.ecx >> 2 & 1)
		ok |= CR4_UMIP;
	return ok;
}

static int bt_vcpu_new(struct engine_vm *vm, const struct vcpu_config *c, struct vcpu **ret,
		       struct error *err)
{
	size_t struct_size = align_up(sizeof(struct vcpu), 4096);
	size_t size = HELPER_STACK + struct_size;
	uint8_t *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct vcpu *v;

	if (map == MAP_FAILED)
		return error_set(err, ENOMEM, "out of memory for a vCPU");
	mprotect(map, 4096, PROT_NONE);
	v = (struct vcpu *)(map + HELPER_STACK);
	v->map = map;
	v->map_size = size;
	v->vm = vm;
	v->mem = c->mem;
	v->model = c->model;
	v->board = c->board;
	v->alone = vm->lockstep || vm->stress.flush;
	v->apic_id = c->apic_id;
	/* A model without XSAVE still has x87 and SSE registers. */
	v->xmask = c->model->xcr0_mask ? c->model->xcr0_mask : 3;
	v->cr4_valid = cr4_valid(c->model);
	v->phys_mask = (1ull << c->model->phys_bits) - 1;
	v->asids = mmap(NULL, sizeof(struct asid) * ASID_SLOTS, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (v->asids == MAP_FAILED)
		v->asids = NULL;
	if (!v->asids || interp_init(v) || (vm->lockstep && lockstep_init(v)) ||
	    (vm->use_t1 && t1_init(v, vm->code_cache_size)) || (vm->use_t2 && t2_init(v))) {
		v->vm = NULL;
		bt_vcpu_free(v);
		return error_set(err, ENOMEM, "out of memory for a vCPU");
	}
	for (int i = 0; i < ASID_SLOTS; i++) {
		/* Empty is not all zeros. */
		for (int m = 0; m < TLB_MODES; m++) {
			v->asids[i].tlb_touched[m].n = TOUCHED_MAX + 1;
			v->asids[i].has_victims[m] = true;
		}
		for (int m = 0; m < 2; m++)
			v->asids[i].jc_touched[m].n = TOUCHED_MAX + 1;
	}
	mmu_init(v);
	x86_state_reset(&v->st);
	mmu_select(v, true);
	while (v->index < 16 && vm->vcpus[v->index])
		v->index++;
	vm->vcpus[v->index] = v;
	if (v->index >= vm->nr_vcpus)
		vm->nr_vcpus = v->index + 1;
	*ret = v;
	return 0;
}

int bt_new_timer(struct vcpu *v, void *tag, timer_t *ret)
{
	struct sigevent ev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = KICK_SIGNAL };

	ev.sigev_value.sival_ptr = tag;
	ev._sigev_un._tid = v->tid;
	return timer_create(CLOCK_MONOTONIC, &ev, ret);
}

static int bt_thread_init(struct vcpu *v, struct error *err)
{
	stack_t ss = { .ss_size = KIB(64) };
	sigset_t set;

	ss.ss_sp = mmap(NULL, ss.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ss.ss_sp == MAP_FAILED || sigaltstack(&ss, NULL))
		return error_set(err, ENOMEM, "out of memory for a signal stack");
	current_vcpu = v;
	v->thread = pthread_self();
	v->tid = (int)syscall(SYS_gettid);
	if (bt_new_timer(v, NULL, &v->timer))
		return error_set(err, errno, "cannot create the vCPU's timer: %s", strerror(errno));
	v->has_timer = true;
	if (v->vm->stress.kick_us) {
		struct timespec every = { .tv_sec = v->vm->stress.kick_us / 1000000,
					  .tv_nsec = v->vm->stress.kick_us % 1000000 * 1000 };
		struct itimerspec it = { .it_interval = every, .it_value = every };

		if (bt_new_timer(v, NULL, &v->stress_timer))
			return error_set(err, errno, "cannot create the vCPU's timer: %s", strerror(errno));
		v->has_stress_timer = true;
		timer_settime(v->stress_timer, 0, &it, NULL);
	}
	sigemptyset(&set);
	sigaddset(&set, KICK_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	return 0;
}

/* ---- kicks, sleeping, the timer ---- */

static void bt_kick(struct vcpu *v)
{
	if (atomic_exchange(&v->kick, 1) == 0 || v->in_t1) {
		if (__atomic_load_n(&v->polling, __ATOMIC_SEQ_CST))
			return;
		if (v->tid && v != current_vcpu)
			syscall(SYS_tgkill, getpid(), v->tid, KICK_SIGNAL);
		syscall(SYS_futex, &v->kick, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	}
}

/*
 * Going to sleep and being woken costs tens of microseconds where the host's
 * processor sleeps deeply.  A guest that waits for a disk or the network often
 * waits for less, so a processor to spare is used to look out for a while: for as
 * long as that has been of use lately.
 */
#define POLL_FIRST_US 10
#define POLL_MOST_US  100

static bool poll_kick(struct vcpu *v)
{
	uint64_t end = __builtin_ia32_rdtsc() + v->poll_ticks;

	if (!v->poll_ticks)
		return false;
	__atomic_store_n(&v->polling, 1, __ATOMIC_SEQ_CST);
	while (!atomic_load_explicit(&v->kick, memory_order_relaxed) && __builtin_ia32_rdtsc() < end)
		__builtin_ia32_pause();
	/* Who kicks after this sends its signal; who did before is seen by the caller. */
	__atomic_store_n(&v->polling, 0, __ATOMIC_SEQ_CST);
	return atomic_load(&v->kick);
}

static void sleep_until_kicked(struct vcpu *v)
{
	while (!atomic_load(&v->kick))
		syscall(SYS_futex, &v->kick, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
}

static void bt_wait(struct vcpu *v)
{
	uint64_t us = v->model->tsc_khz / 1000, begin, slept;

	if (v->st.wait_sipi) {
		sleep_until_kicked(v);
		/* It does not come by the run loop, which takes kicks back. */
		atomic_store(&v->kick, 0);
		return;
	}
	if (atomic_load(&v->kick) || poll_kick(v))
		return;
	begin = __builtin_ia32_rdtsc();
	sleep_until_kicked(v);
	slept = __builtin_ia32_rdtsc() - begin;
	if (slept > 2 * POLL_MOST_US * us || v->vm->nr_vcpus >= v->vm->host_cpus)
		v->poll_ticks = 0;
	else if (!v->poll_ticks)
		v->poll_ticks = POLL_FIRST_US * us;
	else if (v->poll_ticks < POLL_MOST_US * us)
		v->poll_ticks *= 2;
}

static void bt_arm_timer(struct vcpu *v, int64_t host_ns)
{
	struct itimerspec it = { 0 };

	if (!v->has_timer)
		return;
	if (host_ns != INT64_MAX) {
		if (host_ns < 1)
			host_ns = 1;
		it.it_value.tv_sec = host_ns / 1000000000;
		it.it_value.tv_nsec = host_ns % 1000000000;
	}
	timer_settime(v->timer, TIMER_ABSTIME, &it, NULL);
}

/* ---- running ---- */

static void lock_posts(struct vcpu *v)
{
	while (atomic_exchange_explicit(&v->post_lock, 1, memory_order_acquire))
		__builtin_ia32_pause();
}

static void unlock_posts(struct vcpu *v)
{
	atomic_store_explicit(&v->post_lock, 0, memory_order_release);
}

static void serve_posted(struct vcpu *v)
{
	struct posted list[ARRAY_SIZE(v->posted)];
	uint32_t n, overflow;

	lock_posts(v);
	n = v->n_posted;
	overflow = v->overflow;
	memcpy(list, v->posted, sizeof list);
	v->n_posted = v->overflow = 0;
	unlock_posts(v);
	if (overflow) {
		mmu_flush_all(v);
		t2_protect_all(v);
	}
	if (overflow & BT_POST_CODE)
		t1_flush(v);
	for (uint32_t i = 0; i < n; i++) {
		if (!list[i].host) {
			mmu_flush_all(v);
		} else if (list[i].len) {
			t1_invalidate(v, list[i].host, list[i].len);
		} else {
			mmu_protect_page(v, list[i].host);
			t2_protect_page(v, list[i].host);
			atomic_fetch_and(&bt_page_vcpus(v, list[i].host)->writers, (uint16_t)~bt_self(v));
		}
	}
	/* Only now may those go on who wait. What was posted meanwhile keeps the flag up. */
	lock_posts(v);
	if (!v->n_posted && !v->overflow)
		atomic_fetch_and(&v->request, ~BT_REQ_POSTED);
	unlock_posts(v);
}

void bt_relax(unsigned spin)
{
	if (spin > 200)
		sched_yield();
	else
		__builtin_ia32_pause();
}

/* Of a vCPU that waits for others, who may wait for it to serve what they posted.  Not for it to stand still:
 * whoever stopped the world may be who waits here. */
static void await_others(struct vcpu *v, unsigned spin)
{
	if (atomic_load_explicit(&v->request, memory_order_relaxed) & BT_REQ_POSTED)
		serve_posted(v);
	bt_relax(spin);
}

/* A safe point while another vCPU has stopped the world. */
static void stand_still(struct vcpu *v)
{
	_Atomic uint32_t *stopper = &v->vm->stopper;

	atomic_fetch_and(&v->request, ~BT_REQ_STOP);
	do {
		atomic_store(&v->stopped, 1);
		for (unsigned spin = 0; atomic_load(stopper); spin++)
			await_others(v, spin);
		atomic_store(&v->stopped, 0);
		/* The next one may have seen us stand still just before. */
	} while (atomic_load(stopper));
}

void bt_serve(struct vcpu *v)
{
	if (atomic_load(&v->request) & BT_REQ_POSTED)
		serve_posted(v);
	if (atomic_load(&v->request) & BT_REQ_STOP)
		stand_still(v);
}

/* Does a post say what another says already, or can be made to say? Stores to one page follow each other. */
static bool merge(struct posted *p, const void *host, uint64_t len)
{
	uint64_t page = (uint64_t)host & PAGE_MASK, first = (uint64_t)p->host, start = (uint64_t)host, end;

	if (p->host == host && p->len == len)
		return true;
	if (!p->len || !len || (first & PAGE_MASK) != page || first + p->len > page + PAGE_SIZE ||
	    start + len > page + PAGE_SIZE)
		return false;
	end = max_u64(first + p->len, start + len);
	p->host = first < start ? p->host : host;
	p->len = end - (uint64_t)p->host;
	return true;
}

void bt_post(struct vcpu *to, const void *host, uint64_t len)
{
	bool added = false;
	uint32_t n;

	/* A short list under a spin flag; when it is full, all that could be of the kind goes. */
	lock_posts(to);
	for (n = 0; n < to->n_posted; n++)
		if (merge(&to->posted[n], host, len))
			break;
	if (n == ARRAY_SIZE(to->posted)) {
		to->overflow |= !host ? BT_POST_LAYOUT : len ? BT_POST_CODE : BT_POST_TAGS;
	} else if (n == to->n_posted) {
		to->posted[n] = (struct posted){ host, len };
		to->n_posted = n + 1;
		added = true;
	}
	atomic_fetch_or(&to->request, BT_REQ_POSTED);
	unlock_posts(to);
	/* Who is to drop blocks even if it is halted: stores to the page are slow until it has. */
	if ((added && len) || atomic_load(&to->running))
		bt_kick(to);
}

void bt_post_each(struct engine_vm *vm, uint32_t mask, const void *host, uint64_t len)
{
	for (unsigned i = 0; i < vm->nr_vcpus; i++)
		if ((mask >> i & 1) && vm->vcpus[i])
			bt_post(vm->vcpus[i], host, len);
}

void bt_sync(struct vcpu *v, uint32_t mask)
{
	for (unsigned i = 0; mask >> i; i++) {
		struct vcpu *o = v->vm->vcpus[i];

		if (!(mask >> i & 1) || !o)
			continue;
		for (unsigned spin = 0;
		     atomic_load(&o->running) && (atomic_load(&o->request) & BT_REQ_POSTED); spin++)
			await_others(v, spin);
	}
}

void bt_stop_others(struct vcpu *v)
{
	struct engine_vm *vm = v->vm;
	uint32_t none = 0;

	while (!atomic_compare_exchange_strong(&vm->stopper, &none, v->index + 1)) {
		none = 0;
		stand_still(v);
	}
	for (unsigned i = 0; i < vm->nr_vcpus; i++) {
		struct vcpu *o = vm->vcpus[i];

		if (!o || o == v)
			continue;
		atomic_fetch_or(&o->request, BT_REQ_STOP);
		/* Who is not running looks at its requests before it does. */
		if (atomic_load(&o->running))
			bt_kick(o);
	}
	for (unsigned i = 0; i < vm->nr_vcpus; i++) {
		struct vcpu *o = vm->vcpus[i];

		for (unsigned spin = 0; o && o != v && atomic_load(&o->running) && !atomic_load(&o->stopped);
		     spin++)
			await_others(v, spin);
	}
}

void bt_resume_others(struct vcpu *v)
{
	atomic_store(&v->vm->stopper, 0);
}

static void interp_timed(struct vcpu *v)
{
	int64_t start = (int64_t)__builtin_ia32_rdtsc();

	interp_run_until_event(v);
	v->stats.interp_ns += (int64_t)__builtin_ia32_rdtsc() - start;
}

static enum vcpu_exit run_loop(struct vcpu *v)
{
	struct x86_state *s = &v->st;

	for (;;) {
		bt_serve(v);
		if (event_pending(v))
			event_deliver(v);
		v->irq_request = v->board.irq_pending && v->board.irq_pending(v->board.opaque);
		if (s->shutdown)
			return VCPU_EXIT_SHUTDOWN;
		if (v->error[0])
			return VCPU_EXIT_ERROR;
		if (atomic_exchange(&v->kick, 0)) {
			v->stats.kicks++;
			return VCPU_EXIT_KICKED;
		}
		if (s->halted) {
			v->stats.halts++;
			return VCPU_EXIT_HALTED;
		}
		if (v->vm->use_t1)
			t1_run(v);
		else
			interp_timed(v);
	}
}

static enum vcpu_exit bt_run(struct vcpu *v)
{
	enum vcpu_exit r;

	/* From here on others wait for us. */
	atomic_store(&v->running, 1);
	if (v->lockstep)
		lockstep_take_turn(v);
	bt_serve(v);
	r = run_loop(v);
	if (v->lockstep)
		lockstep_end_turn(v);
	if (r == VCPU_EXIT_HALTED)
		t2_idle(v);
	atomic_store(&v->running, 0);
	return r;
}

static struct x86_state *bt_state(struct vcpu *v)
{
	return &v->st;
}

static void bt_state_changed(struct vcpu *v)
{
	uint64_t apic_base;

	v->dr_watch = v->st.dr7 & 0xff;
	v->apic_off = v->board.msr_read && !v->board.msr_read(v->board.opaque, MSR_APIC_BASE, &apic_base) &&
		      !(apic_base & APIC_BASE_ENABLE);
	if ((v->st.cr0 & CR0_PG) && (v->st.cr4 & CR4_PAE) && !(v->st.efer & EFER_LMA))
		mmu_load_pdptes(v, v->st.cr3);
	mmu_flush_all(v);
	mmu_select(v, true);
}

static int64_t ticks_ns(const struct vcpu *v, int64_t ticks)
{
	return (int64_t)((__int128)ticks * 1000000 / v->model->tsc_khz);
}

static void bt_stats(struct vcpu *v, struct engine_stats *ret)
{
	*ret = v->stats;
	interp_stats(v, ret);
	ret->interp_ns = ticks_ns(v, ret->interp_ns);
	ret->t1_ns = ticks_ns(v, ret->t1_ns);
	ret->t2_ns = ticks_ns(v, ret->t2_ns);
	ret->t2_own_ns = ticks_ns(v, ret->t2_own_ns);
	ret->t2_map_ns = ticks_ns(v, ret->t2_map_ns);
	ret->translate_ns = ticks_ns(v, ret->translate_ns);
}

static const char *bt_error(struct vcpu *v)
{
	return v->error;
}

void bt_code_written(struct vcpu *v, const void *host, uint64_t len);
void bt_code_written(struct vcpu *v, const void *host, uint64_t len)
{
	struct engine_vm *vm = v->vm;
	uint64_t first, last;
	uint32_t mask = 0;

	if (!vm->use_t1)
		return;
	t1_invalidate(v, host, len);
	/* What was written is visible before the look at who translates: they enter themselves, then read. */
	atomic_thread_fence(memory_order_seq_cst);
	/* Others must have forgotten the old code before this vCPU goes on and tells them of the new. */
	first = mem_page_number(v->mem, host);
	last = first + ((((uint64_t)host & 0xfff) + len - 1) / PAGE_SIZE);
	for (uint64_t p = first; p <= last; p++)
		mask |= atomic_load(&vm->page_vcpus[p].code);
	mask &= ~(uint32_t)bt_self(v);
	bt_post_each(vm, mask, host, len);
	bt_sync(v, mask);
}

const struct engine_ops engine_bt = {
	.name = "bt",
	.vm_new = bt_vm_new,
	.vm_free = bt_vm_free,
	.vcpu_new = bt_vcpu_new,
	.vcpu_free = bt_vcpu_free,
	.vcpu_thread_init = bt_thread_init,
	.vcpu_run = bt_run,
	.vcpu_kick = bt_kick,
	.vcpu_wait = bt_wait,
	.vcpu_arm_timer = bt_arm_timer,
	.vcpu_state = bt_state,
	.vcpu_state_changed = bt_state_changed,
	.vcpu_stats = bt_stats,
	.vcpu_error = bt_error,
};
