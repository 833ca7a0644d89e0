/* SPDX-License-Identifier: Apache-2.0 */
/* Between t2.c, t2_map.c and t2_scan.c. Ordinary code of the vCPU's thread. */
#ifndef SILL_ENGINE_BT_T2_INTERNAL_H
#define SILL_ENGINE_BT_T2_INTERNAL_H

#include "engine/bt/t2.h"

#define T2_MAX_PENDING 64
#define T2_TLS_NR      3

/* A stub and what is mapped in it. */
struct t2_map {
	struct stub stub;
	struct t2_region **regions; /* hash by address */
	unsigned hash_size;
	unsigned mappings;    /* at most so many in the host's count */
	unsigned pages, lost; /* at the last look at all entries: that were mapped; that had changed */
	uint64_t pending[T2_MAX_PENDING]; /* pages to unmap before the stub runs */
	unsigned n_pending;               /* more than fit: unmap everything */
	uint64_t retry_va;                /* the last fault passed to the guest; 0: none */
	struct t2_breaks {
		uint64_t va[STUB_BREAKPOINTS];             /* instructions that the stub stops at */
		bool spare[STUB_BREAKPOINTS];              /* others may have the breakpoint */
		unsigned given[STUB_BREAKPOINTS], n_given; /* in what order */
	} breaks;
	/* The least processor time lately that went into a stop by one, and by CPUID; 0 at first. */
	uint64_t break_ns, cpuid_ns;
	uint64_t guard;   /* the page that is to become executable with breakpoints */
	bool take;        /* and may take those of others */
	bool needs_cpuid; /* pages are executable that are fit only if CPUID faults (t2_cpuid.c) */
	unsigned unfit_stops;
	uint64_t unfit_since;
	struct x86_seg tls[T2_TLS_NR]; /* the stub's TLS entries; attr 0: none */
};

/* NULL if the host refuses. */
struct t2_map *t2_map_new(struct vcpu *v);
void t2_map_free(struct vcpu *v, struct t2_space *s);
/* Removes mappings whose page-table entries the guest has changed and invalidated. False: the stub is broken.
 */
bool t2_map_sync(struct vcpu *v, struct t2_space *s);

enum t2_fault {
	T2_MAPPED,   /* try again */
	T2_GUESTS,   /* the guest's to handle: it will fault in T1 too */
	T2_NOT_HERE, /* code that must not run in a stub */
	T2_DEVICE,   /* not RAM */
	T2_BROKEN,   /* the stub failed */
};
/* The stub faulted on va, executing at rip. */
enum t2_fault t2_map_fault(struct vcpu *v, struct t2_space *s, uint64_t va, uint64_t rip);
/* The guest may have mapped what faulted before: so may we, before the program faults on it again. */
enum t2_fault t2_map_retry(struct vcpu *v, struct t2_space *s);
/* Is the page at rip known to be unfit for a stub? */
bool t2_map_unfit(const struct t2_map *m, uint64_t rip);
/* The first present entry of the root's user half, or 0. */
uint64_t t2_identity(struct vcpu *v, uint64_t root);
/* The guest-physical address of the lowest user page (of the first tables), or 0: where programs begin as
 * they lie in files, it is the same in each process of a program. */
uint64_t t2_first_page(struct vcpu *v, uint64_t root);

/* Code wanted to run in an unfit page. Is it time to look at it again? */
bool t2_map_unfit_due(struct vcpu *v, struct t2_map *m, uint64_t rip);
/* Looks: it may be another by now, or worth breakpoints. T2_MAPPED: now code can run there. */
enum t2_fault t2_map_unfit_again(struct vcpu *v, struct t2_space *s, uint64_t rip);

/* What is known of pages looked at before, for t2->scanned; to be freed by free(). */
struct t2_scanned *t2_scanned_new(void);
/* Instructions in a page that the processor executes at CPL 3 but with an answer that is the host's. */
struct t2_found {
	uint16_t at[STUB_BREAKPOINTS]; /* where they begin */
	uint8_t n;
	uint8_t required; /* the first so many must not run; RDTSCP and RDPID behind them had better not */
	bool unfit;       /* there are others that must not run */
};
/* before: the page in front of it, or NULL. cpuid_faults: CPUID is none of them. */
struct t2_found t2_scan(const struct vcpu *v, const uint8_t *page, const uint8_t *before, bool cpuid_faults);

/* Is the instruction behind which RIP stands this one? As far as can be told from reading code backwards. */
bool t2_behind(struct vcpu *v, const uint8_t *insn, unsigned n);

/* ---- CPUID (t2_cpuid.c) ---- */

/* Once per vCPU, by its thread. */
void t2_cpuid_init(struct vcpu *v);
/* Code wanted to run in an unfit page again. True: from now on CPUID is to fault in this stub, and the page
 * may be fit. */
bool t2_cpuid_helps(struct vcpu *v, struct t2_map *m);
/* False: the stub is broken. */
bool t2_cpuid_before_run(struct vcpu *v, struct t2_map *m);
void t2_cpuid_idle(struct vcpu *v);

#endif
