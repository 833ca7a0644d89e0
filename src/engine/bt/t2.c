/* SPDX-License-Identifier: Apache-2.0 */
/*
 * T2's policy and the way between st and a stub's registers.  See t2.h.
 */
/* It defines names that are ours too. */
#include <sys/user.h>
#undef PAGE_SIZE
#undef PAGE_MASK

#include "engine/bt/t2.h"

#include <asm/ldt.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>

#include "base/log.h"
#include "base/util.h"
#include "engine/bt/bt.h"
#include "engine/bt/interp_internal.h"
#include "engine/bt/mmu.h"
#include "engine/bt/t2_internal.h"

#ifndef PTRACE_SET_THREAD_AREA
#define PTRACE_SET_THREAD_AREA 26
#endif

#define MAX_MAPS 48 /* stubs per vCPU */

/* In microseconds of TSC time. */
#define PROMOTE_AFTER 2000 /* T1 time in long stretches of user code that a root must have spent */
#define SWITCH_GUESS  10   /* what a switch costs, before it is measured */
#define PIN_PERIOD    100000
#define CREDIT        500  /* that a stub may lose, not counting mapping, ... */
#define MAX_CREDIT    5000 /* ... beyond what it has gained before, of which so much counts */
/* Thresholds are doubled so many times at most. A stub that is out of credit has lost less than a
 * millisecond, so that may be tried again soon; windows without a gain cost 200 of them. */
#define MAX_BACKOFF    8
#define CREDIT_BACKOFF 4
#define MAX_PATIENCE   4
/* More counts for so many long_ticks, since the host had something else to do: the ways to the stub and back;
 * mapping pages. */
#define LONGEST_WAYS    4
#define LONGEST_MAPPING 64
#define LONGEST_BREAK   16 /* in faults: a stop by a breakpoint, or by CPUID */
#define TIME_WINDOW     50000
#define STRIKES         4

/* The host's selectors for user code (those of every Linux kernel), and the first of its TLS entries. */
#define HOST_CS64 0x33
#define HOST_CS32 0x23
#define HOST_DS   0x2b
#define HOST_TLS  12

static int64_t ticks(void)
{
	return (int64_t)__builtin_ia32_rdtsc();
}

int t2_init(struct vcpu *v)
{
	struct t2 *t = calloc(1, sizeof(*t));
	uint64_t us = v->model->tsc_khz / 1000;
	FILE *f;

	if (!t)
		return -ENOMEM;
	t->host.cpu = -1;
	t->promote_ticks = PROMOTE_AFTER * us;
	t->switch_ticks = t->long_ticks = SWITCH_GUESS * us;
	t->window_ticks = TIME_WINDOW * us;
	t->credit_ticks = (int64_t)(CREDIT * us);
	t->max_credit_ticks = (int64_t)(MAX_CREDIT * us);
	t->pin_ticks = PIN_PERIOD * us;
	t->max_mappings = 65530;
	f = fopen("/proc/sys/vm/max_map_count", "re");
	if (f) {
		if (fscanf(f, "%u", &t->max_mappings) != 1 || t->max_mappings < 1024)
			t->max_mappings = 1024;
		fclose(f);
	}
	t->max_mappings -= t->max_mappings / 16;
	if (v->vm->stress.vma_cap)
		t->max_mappings = v->vm->stress.vma_cap;
	/* An instruction may need eight pages at once, each may split a mapping: they must fit, whatever
	 * comes with each. */
	t->window = 32;
	while (t->window > 1 && t->window * 24 > t->max_mappings)
		t->window /= 2;
	t->always = v->vm->stress.direct;
	t->flip = v->vm->stress.tier_flip;
	v->t2 = t;
	return 0;
}

/* All that stubs need, but for what t2_free frees in any case. 0, or -1 with err. */
static int set_up(struct vcpu *v, struct error *err)
{
	struct t2 *t = v->t2;

	t->written = calloc(mem_nr_pages(v->mem) / 64 + 1, sizeof(uint64_t));
	t->scanned = t2_scanned_new();
	t->image = aligned_alloc(64, X86_XSAVE_MAX);
	if (!t->written || !t->scanned || !t->image)
		return error_set(err, ENOMEM, "out of memory");
	if (stub_host_init(&t->host, mem_ram_fd(v->mem), err))
		return -1;
	if (t->host.xsize > X86_XSAVE_MAX)
		error_set(err, ENOTSUP, "the processor's state has %u bytes", (unsigned)t->host.xsize);
	else if (bt_new_timer(v, t, &t->timer))
		error_set(err, errno, "cannot create a timer: %s", strerror(errno));
	else
		return 0;
	stub_host_free(&t->host);
	return -1;
}

/* The first time that a stub is wanted. False: T1 only, from now on. */
static bool start(struct vcpu *v)
{
	struct t2 *t = v->t2;
	struct error err = { 0 };

	if (t->started || t->failed)
		return t->started;
	if (set_up(v, &err)) {
		log_warn("no direct execution, programs run slower: %s", err.message);
		t->failed = true;
		return false;
	}
	t->host.bound = v->vm->bound;
	stub_round_trip(&t->host, &t->switch_ticks, &t->call_ns, &t->fault_ns);
	t->long_ticks = t->switch_ticks * 3 / 2;
	t2_cpuid_init(v);
	t->started = true;
	return true;
}

void t2_free(struct vcpu *v)
{
	struct t2 *t = v->t2;

	if (!t)
		return;
	for (int i = 0; i < T2_SETS * T2_WAYS; i++)
		t2_map_free(v, &t->spaces[i]);
	if (t->started) {
		timer_delete(t->timer);
		stub_host_free(&t->host);
	}
	free(t->written);
	free(t->image);
	free(t->scanned);
	free(t);
	v->t2 = NULL;
}

void t2_idle(struct vcpu *v)
{
	if (!v->t2)
		return;
	t2_cpuid_idle(v);
	stub_unpin(&v->t2->host);
}

/* ---- policy ---- */

static void count_afresh(struct t2 *t, struct t2_space *s)
{
	s->long_ticks = 0;
	s->credit = t->credit_ticks;
	s->look = false;
	/* Of the current stretch nothing is learnt: part of it was ours. */
	t->since = 0;
}

/* Under test the policy is the test's. */
static bool stressed(const struct vcpu *v)
{
	return v->t2->always || v->t2->flip;
}

static void demote(struct vcpu *v, struct t2_space *s, unsigned max_backoff)
{
	s->on = false;
	if (s->backoff < max_backoff)
		s->backoff++;
	count_afresh(v->t2, s);
	v->stats.t2_demotions++;
}

static struct t2_program *program_of(struct t2 *t, uint64_t page)
{
	struct t2_program *p = &t->programs[(page >> 12 ^ page >> 18) % T2_PROGRAMS];

	if (p->page != page)
		*p = (struct t2_program){ .page = page };
	return p;
}

/* The process that had a stub, or more than one in turn, has ended. */
static void learn_of_program(struct t2 *t, struct t2_space *s)
{
	struct t2_program *p = program_of(t, s->program);

	if (s->gain > 0)
		p->patience /= 2;
	else
		p->patience += p->patience < MAX_PATIENCE;
	s->gain = 0;
}

/*
 * Most of what was mapped is not any more: another process has taken the tables
 * over.  Nothing of what was learnt holds for it, and it may be short-lived.
 */
static void retire(struct vcpu *v, struct t2_space *s)
{
	learn_of_program(v->t2, s);
	s->on = false;
	s->identity = 0;
	s->backoff = 0;
	memset(s->expect, 0, sizeof(s->expect));
	s->map->pages = s->map->lost = 0;
	count_afresh(v->t2, s);
	v->stats.t2_demotions++;
}

/* The stub failed: without it. */
static void give_up(struct vcpu *v, struct t2_space *s)
{
	t2_map_free(v, s);
	demote(v, s, MAX_BACKOFF);
}

static void evict_oldest(struct vcpu *v)
{
	struct t2 *t = v->t2;
	struct t2_space *oldest = NULL;

	for (int i = 0; i < T2_SETS * T2_WAYS; i++) {
		struct t2_space *s = &t->spaces[i];

		if (s->map && s != t->space && (!oldest || s->last_used < oldest->last_used))
			oldest = s;
	}
	if (oldest) {
		t2_map_free(v, oldest);
		oldest->on = false;
	}
}

/* User code of the current root has run long enough in T1 to ask. */
static void promote(struct vcpu *v, struct t2_space *s)
{
	struct t2 *t = v->t2;
	uint64_t identity = t2_identity(v, s->root), begin;

	if (identity != s->identity && !stressed(v)) {
		/* Another process than the one that the counting began with, or the first look at it. */
		if (s->identity && s->gain)
			learn_of_program(t, s);
		s->identity = identity;
		s->program = t2_first_page(v, s->root);
		s->backoff = program_of(t, s->program)->patience;
		s->gain = 0;
		count_afresh(t, s);
		return;
	}
	count_afresh(t, s);
	if (!start(v))
		return;
	begin = (uint64_t)ticks();
	if (!s->map) {
		if (t->n_maps >= MAX_MAPS)
			evict_oldest(v);
		s->map = t2_map_new(v);
		if (!s->map) {
			s->backoff = MAX_BACKOFF;
			return;
		}
		s->stale = false;
		s->n_invals = 0;
	}
	s->window_start = (uint64_t)ticks();
	s->window_gain = 0;
	s->strikes = 0;
	s->on = true;
	s->gain -= ticks() - (int64_t)begin;
	v->stats.t2_promotions++;
}

/*
 * Of the ticks since `begin`, `direct` were the program's in the stub, `mapped` went into mapping pages, the
 * rest into the ways.  Has the stub gained anything lately?  Not where code that must not run there stops it
 * every few microseconds; nor if for some time nothing but mapping is done.
 */
static void judge(struct vcpu *v, struct t2_space *s, uint64_t begin, uint64_t direct, uint64_t mapped)
{
	struct t2 *t = v->t2;
	uint64_t now = (uint64_t)ticks();
	uint64_t saved = direct * (t2_slower(&s->expect[t->cause]) - 256) / 256;
	uint64_t spent = now - begin;
	uint64_t ways = min_u64(spent - min_u64(direct + mapped, spent), LONGEST_WAYS * t->long_ticks);
	int64_t gain = (int64_t)saved - (int64_t)ways;
	bool idle = false;

	mapped = min_u64(mapped, LONGEST_MAPPING * t->long_ticks);
	s->gain += gain - (int64_t)mapped;
	s->window_gain += gain - (int64_t)mapped;
	s->credit = min_i64(s->credit + gain, t->max_credit_ticks);
	if (now - s->window_start >= t->window_ticks) {
		s->strikes = s->window_gain < 0 ? s->strikes + 1 : 0;
		s->backoff -= s->backoff && s->window_gain > 0;
		s->window_gain = 0;
		s->window_start = now;
		idle = s->strikes == STRIKES;
	}
	if ((s->credit < 0 || idle) && s->on && !stressed(v))
		demote(v, s, idle ? MAX_BACKOFF : CREDIT_BACKOFF);
}

/* ---- registers ---- */

static bool flat_data(const struct x86_seg *s)
{
	return s->sel == HOST_DS && (s->attr & (SEG_P | SEG_DB)) == (SEG_P | SEG_DB) && !s->base &&
	       s->limit == 0xffffffffu;
}

/* DS or ES as the host's descriptors have it: null, or the flat data segment. */
static bool data_ok(const struct x86_seg *s)
{
	return s->sel == 0 || flat_data(s);
}

/* The guest's TLS entry of this selector, as its table has it now. False: it is none that a host process can
 * have. */
static bool guest_tls(struct vcpu *v, uint16_t sel, struct x86_seg *ret)
{
	const unsigned fixed = SEG_P | 3 << 5 | SEG_S | 8 | SEG_L | SEG_DB;
	struct descriptor d;

	*ret = (struct x86_seg){ 0 };
	if ((sel & 7) != 3 || (sel >> 3) - HOST_TLS >= T2_TLS_NR)
		return false;
	if (desc_read(v, sel, EXC_GP, &d)) {
		v->exc.present = false;
		return false;
	}
	/* Data for CPL 3, of 32 bits. */
	if ((d.attr & fixed) != (SEG_P | 3 << 5 | SEG_S | SEG_DB))
		return false;
	d.attr |= 1; /* accessed */
	seg_from_desc(ret, sel, &d);
	return true;
}

static bool same_segment(const struct x86_seg *a, const struct x86_seg *b)
{
	return a->base == b->base && a->limit == b->limit && a->attr == b->attr;
}

/*
 * FS or GS: also a TLS entry, if the table still says the same, for the program may load it again.  In 64-bit
 * mode only the base counts, and that is the register's own.
 */
static bool extra_ok(struct vcpu *v, const struct x86_seg *s)
{
	struct x86_seg d;

	if (data_ok(s))
		return true;
	return guest_tls(v, s->sel, &d) && (x86_code64(&v->st) || same_segment(&d, s));
}

/* Can the current state be that of a host process? */
static bool representable(struct vcpu *v)
{
	const struct x86_state *s = &v->st;
	const uint64_t bad = FLAG_TF | FLAG_IOPL | FLAG_VM | FLAG_AC | FLAG_RF;
	const struct x86_seg *cs = &s->seg[SEG_CS];

	if ((s->rflags & bad) || !(s->rflags & FLAG_IF) || s->shadow || v->dr_watch || (s->cr4 & CR4_TSD))
		return false;
	/* The host gives its processes no bases in the upper half, though they may set them by WRGSBASE. */
	if (s->seg[SEG_FS].base >= STUB_VA_END || s->seg[SEG_GS].base >= STUB_VA_END)
		return false;
	if ((s->cr0 & (CR0_TS | CR0_EM)) || s->ferr || !(s->cr4 & CR4_OSXSAVE) ||
	    s->xcr0 != v->model->xcr0_mask)
		return false;
	if (cs->attr & SEG_L) {
		if (cs->sel != HOST_CS64 || s->rip >= STUB_VA_END)
			return false;
	} else if (cs->sel != HOST_CS32 || cs->base || cs->limit != 0xffffffffu || !(cs->attr & SEG_DB)) {
		return false;
	}
	if (s->seg[SEG_SS].sel != HOST_DS || (!(cs->attr & SEG_L) && !flat_data(&s->seg[SEG_SS])))
		return false;
	return data_ok(&s->seg[SEG_DS]) && data_ok(&s->seg[SEG_ES]) && extra_ok(v, &s->seg[SEG_FS]) &&
	       extra_ok(v, &s->seg[SEG_GS]);
}

/*
 * Gives the stub the guest's TLS entries: those that FS and GS were loaded from, and those that it had
 * before, for what the program loads in it must be what the guest's table says now.  An entry that it never
 * had faults.
 */
static bool set_tls(struct vcpu *v, struct t2_map *m)
{
	const struct x86_seg *fs = &v->st.seg[SEG_FS], *gs = &v->st.seg[SEG_GS];

	for (unsigned i = 0; i < T2_TLS_NR; i++) {
		const uint16_t sel = (uint16_t)((HOST_TLS + i) << 3 | 3);
		struct x86_seg *has = &m->tls[i], want;
		struct user_desc d = { .entry_number = HOST_TLS + i,
				       .read_exec_only = 1,
				       .seg_not_present = 1 };

		if (!has->attr && fs->sel != sel && gs->sel != sel)
			continue;
		if (guest_tls(v, sel, &want)) {
			if (same_segment(&want, has))
				continue;
			d.base_addr = (uint32_t)want.base;
			d.limit = want.attr & SEG_G ? want.limit >> 12 : want.limit;
			d.seg_32bit = 1;
			d.contents = !!(want.attr & 4);
			d.read_exec_only = !(want.attr & 2);
			d.limit_in_pages = !!(want.attr & SEG_G);
			d.seg_not_present = 0;
			d.useable = !!(want.attr & SEG_AVL);
		} else if (!has->attr) {
			continue;
		}
		if (ptrace((enum __ptrace_request)PTRACE_SET_THREAD_AREA, m->stub.pid,
			   (void *)(uint64_t)d.entry_number, &d))
			return false;
		*has = want;
	}
	return true;
}

static void regs_out(const struct x86_state *s, struct user_regs_struct *r)
{
	*r = (struct user_regs_struct){
		.rax = s->gpr[RAX],
		.rcx = s->gpr[RCX],
		.rdx = s->gpr[RDX],
		.rbx = s->gpr[RBX],
		.rsp = s->gpr[RSP],
		.rbp = s->gpr[RBP],
		.rsi = s->gpr[RSI],
		.rdi = s->gpr[RDI],
		.r8 = s->gpr[R8],
		.r9 = s->gpr[R9],
		.r10 = s->gpr[R10],
		.r11 = s->gpr[R11],
		.r12 = s->gpr[R12],
		.r13 = s->gpr[R13],
		.r14 = s->gpr[R14],
		.r15 = s->gpr[R15],
		.rip = s->rip,
		.eflags = s->rflags,
		.cs = s->seg[SEG_CS].sel,
		.ss = HOST_DS,
		.ds = s->seg[SEG_DS].sel,
		.es = s->seg[SEG_ES].sel,
		.fs = s->seg[SEG_FS].sel,
		.gs = s->seg[SEG_GS].sel,
		.fs_base = s->seg[SEG_FS].base,
		.gs_base = s->seg[SEG_GS].base,
	};
}

/* A segment register that the program loaded in the stub: from the guest's tables, as T1 would have. */
static void reload(struct vcpu *v, unsigned seg, uint16_t sel)
{
	if (v->st.seg[seg].sel == sel)
		return;
	if (seg_load(v, seg, sel)) {
		/* The host had it and the guest does not (any more): null, as after a failed IRET. */
		v->exc.present = false;
		seg_load(v, seg, 0);
	}
}

static void regs_in(struct vcpu *v, const struct user_regs_struct *r)
{
	const uint64_t user = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_RF | FLAG_AC | FLAG_ID;
	struct x86_state *s = &v->st;

	s->gpr[RAX] = r->rax;
	s->gpr[RCX] = r->rcx;
	s->gpr[RDX] = r->rdx;
	s->gpr[RBX] = r->rbx;
	s->gpr[RSP] = r->rsp;
	s->gpr[RBP] = r->rbp;
	s->gpr[RSI] = r->rsi;
	s->gpr[RDI] = r->rdi;
	s->gpr[R8] = r->r8;
	s->gpr[R9] = r->r9;
	s->gpr[R10] = r->r10;
	s->gpr[R11] = r->r11;
	s->gpr[R12] = r->r12;
	s->gpr[R13] = r->r13;
	s->gpr[R14] = r->r14;
	s->gpr[R15] = r->r15;
	s->rip = r->rip;
	s->rflags = (s->rflags & ~user) | (r->eflags & user);
	reload(v, SEG_DS, (uint16_t)r->ds);
	reload(v, SEG_ES, (uint16_t)r->es);
	reload(v, SEG_SS, (uint16_t)r->ss);
	reload(v, SEG_FS, (uint16_t)r->fs);
	reload(v, SEG_GS, (uint16_t)r->gs);
	s->seg[SEG_FS].base = r->fs_base;
	s->seg[SEG_GS].base = r->gs_base;
	if ((uint16_t)r->cs != s->seg[SEG_CS].sel) {
		/* A far transfer between 64-bit and compatibility code. */
		struct descriptor d;

		if (!desc_read(v, (uint16_t)r->cs, EXC_GP, &d))
			seg_from_desc(&s->seg[SEG_CS], (uint16_t)r->cs, &d);
		v->exc.present = false;
		mode_changed(v);
	}
}

/* ---- stops ---- */

/*
 * A trap leaves RIP after the instruction; T1 is to execute it: step back to its
 * start.  What stands there decides, so a wrong guess only costs time.
 */
static bool step_back(struct vcpu *v, const uint8_t *want, unsigned n)
{
	uint8_t b[2];

	if (lin_read(v, v->st.rip - n, b, n, ACC_USER | ACC_R | ACC_PROBE)) {
		v->exc.present = false;
		return false;
	}
	if (memcmp(b, want, n))
		return false;
	v->st.rip -= n;
	return true;
}

/*
 * INTO and INT 4 trap, and look like a #GP of the instruction behind them.  The
 * wrong guess is the guest's loss, so the code must say so.
 */
static void step_back_overflow(struct vcpu *v)
{
	static const uint8_t into = 0xce, int_4[] = { 0xcd, 0x04 };

	if (t2_behind(v, int_4, 2))
		v->st.rip -= 2;
	else if (!x86_code64(&v->st) && (v->st.rflags & FLAG_OF) && t2_behind(v, &into, 1))
		v->st.rip -= 1;
}

/* SIGTRAP: INT3, INT1, or a single step that the program armed itself by POPF. */
static enum t2_verdict stopped_trap(struct vcpu *v, const struct stub_event *ev)
{
	static const uint8_t int3 = 0xcc, int1 = 0xf1, int_3[] = { 0xcd, 0x03 };

	/* Before an instruction that must not run here (t2_map.c). */
	if (ev->code == TRAP_HWBKPT) {
		v->stats.t2_breaks++;
		return T2_T1;
	}
	if (ev->code == TRAP_TRACE || (v->st.rflags & FLAG_TF)) {
		v->exc = (struct exception){ .vector = EXC_DB, .dr6 = 1u << 14, .present = true };
		event_exception(v);
		return T2_DONE;
	}
	if (!step_back(v, &int3, 1) && !step_back(v, &int1, 1))
		step_back(v, int_3, 2);
	return T2_T1;
}

/* SIGSYS: the host's vsyscall page was called, and the host has already returned from it. */
static enum t2_verdict stopped_vsyscall(struct vcpu *v, const struct stub_event *ev)
{
	static const int calls[] = { 96 /* gettimeofday */, 201 /* time */, 309 /* getcpu */ };

	for (unsigned i = 0; i < ARRAY_SIZE(calls); i++)
		if (ev->syscall == calls[i]) {
			v->st.rip = 0xffffffffff600000ull + (uint64_t)i * 1024;
			v->st.gpr[RSP] -= 8;
		}
	return T2_T1;
}

/* Without an address it is no page fault. */
static bool has_address(const struct stub_event *ev)
{
	if (ev->sig == SIGBUS)
		return ev->code == BUS_ADRERR; /* mapped ahead, and not let in */
	return ev->code == SEGV_MAPERR || ev->code == SEGV_ACCERR;
}

static enum t2_verdict stopped_fault(struct vcpu *v, struct t2_space *s, const struct stub_event *ev,
				     bool *again)
{
	enum t2_fault f;

	*again = false;
	if (!has_address(ev)) {
		step_back_overflow(v);
		return T2_T1;
	}
	f = t2_map_fault(v, s, ev->addr, v->st.rip);
	if (f == T2_NOT_HERE && t2_map_unfit_due(v, s->map, ev->addr))
		f = t2_map_unfit_again(v, s, ev->addr);
	switch (f) {
	case T2_MAPPED:
		v->stats.t2_maps++;
		*again = true;
		return T2_T1;
	case T2_DEVICE:
		return T2_INTERP;
	case T2_BROKEN:
		give_up(v, s);
		return T2_T1;
	case T2_NOT_HERE:
		v->stats.t2_unfit++;
		/* If there are many more, CPUID will be made to fault, and it will have been worth it. */
		v->t2->excused = v->t2->cpuid_can && !s->map->needs_cpuid;
		return T2_T1;
	case T2_GUESTS:
		break;
	}
	v->stats.t2_faults++;
	s->map->retry_va = ev->addr;
	return T2_T1;
}

/* The stub was killed: the state of the program in it is lost. */
static enum t2_verdict stopped_dead(struct vcpu *v, struct t2_space *s)
{
	snprintf(v->error, sizeof(v->error),
		 "the process that ran the guest's program was killed (out of memory on the host?)");
	give_up(v, s);
	return T2_DONE;
}

/*
 * Processor time of a stub that goes into this stop, of the `ns` that it used.  A breakpoint's cannot be
 * measured beforehand: where the host's own hypervisor watches the debug registers it depends on how long ago
 * they were used.  Nor can that of CPUID, which a hypervisor has to make fault.  So it is taken to be the
 * least that there was lately, within reason.
 */
static uint64_t stop_cost(const struct t2 *t, struct t2_map *m, const struct stub_event *ev, uint64_t ns)
{
	uint64_t *least;

	if (ev->stop != STUB_SIGNAL)
		return t->call_ns;
	if (ev->code == TRAP_HWBKPT)
		least = &m->break_ns;
	else if (ev->sig == SIGSEGV && !has_address(ev) && m->needs_cpuid)
		least = &m->cpuid_ns;
	else
		return t->fault_ns;
	*least = *least ? min_u64(*least + *least / 64 + 1, ns) : ns;
	return max_u64(min_u64(*least, LONGEST_BREAK * t->fault_ns), t->fault_ns);
}

/* TSC ticks that guest code in the stub has run until this stop. */
static uint64_t used_ticks(const struct vcpu *v, struct t2_map *m, const struct stub_event *ev)
{
	uint64_t now = stub_cpu_ns(&m->stub), ns = now - m->stub.cpu_ns;

	m->stub.cpu_ns = now;
	ns -= min_u64(stop_cost(v->t2, m, ev, ns), ns);
	return ns * v->model->tsc_khz / 1000000;
}

/* Runs the stub until it stops once. *again: go on in it. */
static enum t2_verdict run_once(struct vcpu *v, struct t2_space *s, bool *again)
{
	static const uint8_t syscall_insn[] = { 0x0f, 0x05 }, int80[] = { 0xcd, 0x80 };
	struct t2 *t = v->t2;
	struct t2_map *m = s->map;
	struct user_regs_struct regs;
	struct stub_event ev;
	int64_t begin, spent;
	uint64_t used;

	*again = false;
	stub_pin(&t->host, &m->stub, ticks(), (int64_t)t->pin_ticks);
	if (!set_tls(v, m) || !t2_cpuid_before_run(v, m)) {
		give_up(v, s);
		return T2_T1;
	}
	if (t->image_of != &m->stub || memcmp(t->image, v->st.xsave, t->host.xsize)) {
		if (stub_xstate_set(&t->host, &m->stub, v->st.xsave)) {
			give_up(v, s);
			return T2_T1;
		}
	}
	regs_out(&v->st, &regs);
	begin = ticks();
	stub_run(&m->stub, &regs, &v->t2_pid, (const volatile uint32_t *)&v->kick, &ev);
	spent = ticks() - begin;
	t->direct = true;
	used = used_ticks(v, m, &ev);
	t->direct_ticks += used;
	v->stats.t2_own_ns += (int64_t)used;
	v->stats.t2_ns += spent;
	v->stats.t2_stops++;
	if (ev.stop == STUB_REFUSED) {
		give_up(v, s);
		return T2_T1;
	}
	if (ev.stop == STUB_DEAD || stub_xstate_get(&t->host, &m->stub, v->st.xsave))
		return stopped_dead(v, s);
	/* What Linux keeps in the bytes that the processor leaves alone. */
	memset(v->st.xsave + 464, 0, 48);
	memcpy(t->image, v->st.xsave, t->host.xsize);
	t->image_of = &m->stub;
	regs_in(v, &regs);
	switch (ev.stop) {
	case STUB_KICKED:
		return T2_DONE;
	case STUB_SYSCALL:
		v->stats.t2_syscalls++;
		v->st.gpr[RAX] = regs.orig_rax;
		if (!step_back(v, syscall_insn, 2))
			step_back(v, int80, 2);
		break;
	default:
		if (ev.sig == SIGSEGV || (ev.sig == SIGBUS && has_address(&ev)))
			return stopped_fault(v, s, &ev, again);
		if (ev.sig == SIGTRAP)
			return stopped_trap(v, &ev);
		if (ev.sig == SIGSYS)
			return stopped_vsyscall(v, &ev);
		break;
	}
	return T2_T1;
}

static void count_mapping(struct vcpu *v, uint64_t spent)
{
	v->t2->mapped_ticks += spent;
	v->stats.t2_map_ns += (int64_t)spent;
}

static enum t2_verdict stay_in_page(struct vcpu *v)
{
	v->t2->unfit_page = v->st.rip & PAGE_MASK;
	return T2_T1_PAGE;
}

/* As t2_run, of a root with a stub. */
static enum t2_verdict run_direct(struct vcpu *v, struct t2_space *s)
{
	struct t2 *t = v->t2;
	enum t2_verdict r = T2_T1;
	uint64_t begin, direct;
	bool again = true, unfit;

	while (again) {
		if (atomic_load_explicit(&v->kick, memory_order_relaxed) ||
		    atomic_load_explicit(&v->request, memory_order_relaxed))
			return T2_DONE;
		if (!s->on || !representable(v))
			return T2_T1;
		unfit = t2_map_unfit(s->map, v->st.rip);
		if (unfit && !t2_map_unfit_due(v, s->map, v->st.rip))
			return stay_in_page(v);
		if ((s->stale || s->n_invals || s->map->n_pending) && !t2_map_sync(v, s)) {
			give_up(v, s);
			return T2_T1;
		}
		if (s->map->lost * 4 > s->map->pages && s->map->pages >= 8 && !stressed(v)) {
			retire(v, s);
			return T2_T1;
		}
		if (unfit) {
			enum t2_fault f = t2_map_unfit_again(v, s, v->st.rip);

			if (f == T2_BROKEN)
				give_up(v, s);
			if (f != T2_MAPPED)
				return stay_in_page(v);
		}
		if (s->map->retry_va) {
			begin = (uint64_t)ticks();
			if (t2_map_retry(v, s) == T2_BROKEN) {
				give_up(v, s);
				return T2_T1;
			}
			count_mapping(v, (uint64_t)ticks() - begin);
		}
		begin = (uint64_t)ticks();
		direct = t->direct_ticks;
		r = run_once(v, s, &again);
		if (again)
			count_mapping(v, (uint64_t)ticks() - begin - (t->direct_ticks - direct));
	}
	return r;
}

enum t2_verdict t2_run(struct vcpu *v)
{
	struct t2 *t = v->t2;
	struct t2_space *s = t->space;
	uint64_t begin = (uint64_t)ticks(), direct, mapped, stops = v->stats.t2_stops;
	enum t2_verdict r;

	if (!t->direct)
		t->t1_ticks = t->since ? begin - t->since : 0;
	if (s->look && !s->on)
		promote(v, s);
	if (!s->on)
		return T2_T1;
	if (!representable(v)) {
		t->hold = true;
		return T2_T1;
	}
	begin = (uint64_t)ticks();
	direct = t->direct_ticks;
	mapped = t->mapped_ticks;
	t->excused = false;
	r = run_direct(v, s);
	if (v->stats.t2_stops != stops && !t->excused)
		judge(v, s, begin, t->direct_ticks - direct, t->mapped_ticks - mapped);
	return r;
}
