/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tier 2: direct execution of user code.
 *
 * Hot user code (CPL 3, 64-bit and compatibility mode) runs unmodified in a stub
 * process (stub.h), whose mappings of guest RAM play the part of the TLB.  Each
 * vCPU has stubs of its own, one per page-table root, as each processor has a
 * TLB of its own: what the guest does to keep TLBs coherent (INVLPG, CR3 loads,
 * shoot-down by IPI) does the same here, and no lock is needed.
 *
 * Policy (t2_gpr.c, t2.c).  A switch between the guest's kernel, in T1, and user
 * code in a stub costs some ten microseconds, where T1 alone takes none.  So there
 * are two decisions.  A root is promoted (gets a stub) once it has spent more time
 * in long stretches of user code than a stub and its mappings cost: short-lived
 * processes never see one.  And of a promoted root, each stretch runs where it is
 * expected to be cheaper: what the stretches after each system call, after
 * faults, and after interrupts have cost in T1 and in the stub is remembered, as a
 * branch predictor remembers branches, and now and then the other way is tried: how
 * much longer code takes in T1 depends on the code, from a twentieth (instructions
 * for SHA-256) to four times.  A stretch that was expected to be short and proves
 * long is in T1 until the guest's next timer interrupt and corrects the expectation.
 * Where that has happened lately (threads that hand work to each other: most waits
 * are short, some long) a timer ends it sooner.  So does, once it has been done
 * twice, code that T1 has to translate first: a compiler is at its end before it has
 * run most of its code again.  Mapping pages counts for neither side: what is mapped
 * serves later stretches, too.  A root that its stub's last runs
 * have cost more than they gained nevertheless is demoted, for twice as long each time.  And a program
 * whose processes ended before their stubs had gained what they cost has to have run
 * longer the next time (struct t2_program).
 *
 * Coherence (t2_map.c).  Pages are mapped when code in the stub first faults on
 * them, with neighbours that the guest has used.  Guest page tables are not
 * write-protected.  Each mapping remembers the entries it came from; INVLPG
 * compares one, a CR3 load that flushes compares all, and mappings whose entries
 * have changed are removed before the stub runs again.
 *
 * What T1 does for T2.  Every stop of a stub leaves the guest's state at an
 * instruction boundary, and whatever stopped it is done by T1 or the interpreter:
 * they execute the system call, or the faulting instruction again and find the
 * exact exception.  Nothing is derived from what the host says about the fault,
 * except which page to map.
 */
#ifndef SILL_ENGINE_BT_T2_H
#define SILL_ENGINE_BT_T2_H

#include <ucontext.h>

#include "engine/bt/stub.h"
#include "engine/bt/vcpu.h"

#define T2_SETS   64
#define T2_WAYS   4
#define T2_INVALS 16

struct t2_map;

/* What a stretch of user code followed. */
enum t2_cause {
	T2_CAUSE_IRQ,
	T2_CAUSE_FAULT,
	T2_CAUSE_SYSCALL = T2_CAUSE_FAULT + 32,
	T2_CAUSES = T2_CAUSE_SYSCALL + 128,
};
/* A fault, told by the instruction: what a garbage collector touches for the first time it soon leaves for
 * the next page, which is another matter than a program that comes to use a variable. */
static inline uint8_t t2_fault_cause(const struct x86_state *s)
{
	return T2_CAUSE_FAULT + ((uint32_t)s->rip * 0x9e3779b9u >> 27);
}
static inline bool t2_is_fault(uint8_t cause)
{
	return cause >= T2_CAUSE_FAULT && cause < T2_CAUSE_SYSCALL;
}
/* A system call, told by its number and the thread (FS base) that makes it: a futex that a helper waits at is
 * another matter than that of the thread that it helps. */
static inline uint8_t t2_syscall_cause(const struct x86_state *s)
{
	uint32_t thread = (uint32_t)(s->seg[SEG_FS].base >> 6) * 0x9e3779b9u;

	return T2_CAUSE_SYSCALL + ((s->gpr[RAX] ^ thread >> 25) & 127);
}

/* What is known of the stretches of user code after one cause. Times are in ticks. */
struct t2_expect {
	uint32_t length;  /* at the processor's own speed */
	uint32_t ways;    /* to the stub and back; 0: not known */
	uint16_t slower;  /* T1 takes so many 256ths of `length`; 0: not known */
	uint8_t surprise; /* so many more stretches in T1 are watched by the timer */
	/* The other way is tried after `left` stretches, for some in a row: then 0 and less. */
	int16_t left, wait; /* wait: what `left` began with */
	bool to_t1;         /* which way that is */
	uint8_t n_tried;    /* so many were measured, ... */
	uint32_t tried;     /* ... and took so long together */
};

/* What user code takes in T1, in 256ths of what it takes natively, while that is not known. */
#define T2_T1_SLOWER (3 * 256)
static inline uint64_t t2_slower(const struct t2_expect *e)
{
	return e->slower ? e->slower : T2_T1_SLOWER;
}

/* What a stretch is there for; the first of a trial finds caches cold, and is not learnt from. */
enum t2_trial { T2_NO_TRIAL, T2_TRIAL_COLD, T2_TRIAL };

/*
 * What is known of a program, told by its lowest page: promotion waits for twice as
 * long `patience` times.  Starting Python, or gcc's preprocessor, takes long enough for a
 * stub, but most of it is spent where the stub stops; compiling is the same program.
 */
struct t2_program {
	uint64_t page; /* guest-physical */
	uint8_t patience;
};
#define T2_PROGRAMS 64u

/* What is known of one page-table root. */
struct t2_space {
	uint64_t root;     /* its guest-physical address; 0: unused */
	uint64_t identity; /* its first user entry: tells a new process in old tables */
	uint64_t last_used;
	uint64_t long_ticks; /* T1 time in long stretches of user code since counting began */
	uint64_t program;    /* its lowest page, see struct t2_program */
	int64_t gain;        /* of this process by its stub, in ticks, as far as can be told */
	int64_t credit;      /* what it may still lose, not counting mapping */
	int64_t window_gain; /* gain since window_start; strikes: windows without one in a row */
	uint64_t window_start;
	unsigned strikes;
	uint16_t pcid;
	uint8_t backoff; /* thresholds are doubled so many times: for the program's patience, and demotions */
	bool look;       /* time to decide about promotion */
	bool on;         /* user code of this root runs in a stub */
	bool stale;      /* the guest flushed: compare all entries */
	uint8_t n_invals;
	uint64_t invals[T2_INVALS]; /* addresses that the guest invalidated */
	struct t2_expect expect[T2_CAUSES];
	struct t2_map *map; /* stub and mappings, kept over a demotion */
};

#define NO_PAGE 1 /* no page begins there */

struct t2 {
	struct stub_host host;
	struct t2_space *space; /* of the current CR3 */
	struct t2_space spaces[T2_SETS * T2_WAYS];
	struct t2_program programs[T2_PROGRAMS]; /* by hash */
	uint64_t clock;
	uint64_t since;        /* TSC when the current stretch of user code began in T1; 0: is not measured */
	uint8_t sample;        /* counts stretches, see worth_measuring */
	bool user;             /* in one */
	bool direct;           /* part of it ran in a stub, ... */
	uint64_t direct_ticks; /* ... for so much processor time, ... */
	uint64_t t1_ticks;     /* ... after so much in T1; */
	uint64_t mapped_ticks; /* ... so much went into mapping pages, which is done once */
	enum t2_trial trial;
	uint8_t cause;       /* of it */
	bool hold;           /* until the kernel is entered user code stays in T1 */
	uint64_t unfit_page; /* likewise while it stays in this page, which is not for stubs; else NO_PAGE */
	uint8_t cold;        /* blocks that were translated meanwhile */
	timer_t timer;       /* ends a hold that takes too long (t2_hold_over); made with `started` */
	bool armed, watched; /* it runs; it does for the current stretch */
	bool always, flip;   /* --stress: every stretch, or every other, in a stub */
	bool globals;        /* a stub has, or had, a page from a global entry */
	bool started, failed;
	bool excused; /* the last run of a stub is not judged */
	unsigned n_maps;
	uint64_t switch_ticks; /* a stub's stop and its resumption at best */
	uint64_t long_ticks;   /* the same with what goes with it: stretches from there on count as long */
	uint64_t promote_ticks, pin_ticks, window_ticks; /* see t2.c */
	int64_t credit_ticks, max_credit_ticks;          /* likewise */
	uint64_t *written; /* bit per RAM page: some map of this vCPU has it writable */
	uint32_t max_mappings;
	uint32_t window;            /* pages looked at around a fault: a power of two */
	uint64_t call_ns, fault_ns; /* processor time of a stub that goes into a stop, by a fault */
	struct t2_scanned *scanned; /* t2_scan.c */
	uint8_t *image;             /* last XSAVE image exchanged with `image_of` */
	const struct stub *image_of;
	bool cpuid_can;        /* t2_cpuid.c: the host's processor can make CPUID fault */
	bool cpuid_faults;     /* in the vCPU's thread it does */
	uint64_t cpuid_needed; /* TSC when a stub that needs it last ran */
};

/* 0 or -ENOMEM. */
int t2_init(struct vcpu *v);
/* Any thread, once the vCPU's does not run any more. */
void t2_free(struct vcpu *v);

enum t2_verdict {
	T2_DONE,    /* the run loop should look at events */
	T2_T1,      /* go on at RIP in T1 */
	T2_T1_PAGE, /* and stay there while code stays in this page (unfit_page) */
	T2_INTERP,  /* interpret the instruction at RIP */
};
/* User code is about to run at st.rip, state is whole. */
enum t2_verdict t2_run(struct vcpu *v);

/* Should t1_run ask t2_run? And should T1's user code leave at its next lookup? */
static inline bool t2_wants(const struct vcpu *v)
{
	return v->t2 && v->t2->space && (v->t2->space->on || v->t2->space->look) && !v->t2->hold;
}

/* Likewise of user code at pc. */
static inline bool t2_wants_at(const struct vcpu *v, uint64_t pc)
{
	return t2_wants(v) && (pc & PAGE_MASK) != v->t2->unfit_page;
}

/* T1 had no translation of user code that is about to run. */
void t2_translated(struct vcpu *v);
/* The timer's signal: is there anything to do? Async-signal-safe. */
bool t2_hold_over(struct vcpu *v);
/* A fault in the vCPU's thread: was it CPUID, and has it been done? Async-signal-safe. */
bool t2_cpuid_signal(struct vcpu *v, ucontext_t *uc);
/* The thread is about to sleep, or to be descheduled for other work. */
void t2_idle(struct vcpu *v);

/* ---- hooks for gpr code ---- */

/* CR3 (or what goes with it) was loaded; flush: its TLB entries go. */
void t2_root_loaded(struct vcpu *v, bool flush);
/* The privilege level may have changed. */
void t2_mode(struct vcpu *v, bool user);
void t2_invlpg(struct vcpu *v, uint64_t va);
void t2_flush_all(struct vcpu *v);
void t2_flush_pcid(struct vcpu *v, uint16_t pcid);
void t2_invlpg_pcid(struct vcpu *v, uint16_t pcid, uint64_t va);

/* Makes the RAM page at host (all pages) read-only in all of this vCPU's stubs. Ordinary code. */
void t2_protect_page(struct vcpu *v, const void *host);
void t2_protect_all(struct vcpu *v);

#endif
