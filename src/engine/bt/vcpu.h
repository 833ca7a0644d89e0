/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bt engine's vCPU: architectural state and everything that the
 * interpreter, the soft TLB and translated code keep beside it.
 *
 * While translated code runs, host RSP points at this struct and host calls
 * push below it: the struct is the top of a stack of its own (see bt.c).  So
 * each field that code touches is [rsp + disp], the same for every vCPU.
 *
 * Two kinds of C code touch a vCPU:
 *  - ordinary code, which runs while the guest's x87/SSE/AVX registers are
 *    saved in st.xsave (run loop, interpreter, translator, devices);
 *  - "gpr" code (files *_gpr.c, compiled general-regs-only, no libc), which
 *    translated code calls while the guest's vector registers are live in the
 *    host's.  Ordinary code may call gpr code, never the other way.
 */
#ifndef SILL_ENGINE_BT_VCPU_H
#define SILL_ENGINE_BT_VCPU_H

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "engine/engine.h"

#define MAX_GROUPS 4 /* of accesses, open at once in a block */

/* ---- soft TLB ---- */

#define TLB_BITS 13
#define TLB_SIZE (1u << TLB_BITS)
#define VICTIMS  32u

/*
 * One 4 KiB page. A tag is the page's virtual address, or an address with other
 * index bits (see tlb_entry_clear), which no lookup at this index matches. A
 * host pointer is guest address + addend, or page + offset in the page.
 */
struct tlb_entry {
	uint64_t tag_r, tag_w;
	uint64_t addend;
	uint64_t page; /* host address of the page: tag + addend */
};

/* Instruction fetch, looked at by C code only: tag and host page. */
struct itlb_entry {
	uint64_t tag, page;
	bool global;
};
#define ITLB_SIZE 256

/* As the tag of a stack_page: not canonical, nor is the host's address of what lies there, whatever the
 * addend. */
#define NO_STACK 0x8000000000000000ull

enum tlb_mode { TLB_U, TLB_K, TLB_KAC, TLB_MODES };

/* One entry of the jump cache: place of guest code (cache.h) to host code (flags-in-memory entry). An address
 * may be at its index i or, driven out from there by another, at i ^ 1. */
#define JC_BITS 14
#define JC_SIZE (1u << JC_BITS)
struct jc_entry {
	uint64_t va;
	void *code;
};

/* Function entries share their low bits, so those alone would be a poor index. Translated code computes the
 * same. */
#define JC_SHIFT 8
static inline unsigned jc_index(uint64_t va)
{
	return (unsigned)(va ^ va >> JC_SHIFT) & (JC_SIZE - 1);
}

/* An address that no lookup at index i or i ^ 1 has: non-canonical ones with another index. */
static inline void jc_clear(struct jc_entry *e, unsigned i)
{
	e->va = 0x8000000000000000ull | (i < 2 ? 2 : 0);
	e->code = NULL;
}

/*
 * The entries of a table that were filled since it was last emptied, so that
 * emptying one that was hardly used costs little. n over the array's size: any
 * may have been.
 */
#define TOUCHED_MAX 254
struct touched {
	uint32_t n;
	uint16_t index[TOUCHED_MAX];
};

static inline void touch(struct touched *t, unsigned index)
{
	if (t->n < TOUCHED_MAX)
		t->index[t->n] = (uint16_t)index;
	if (t->n <= TOUCHED_MAX)
		t->n++;
}

/*
 * Everything cached for one PCID.  One more is shared by all of them: what is
 * cached for supervisor mode, where user pages are absent (SMAP), is the same for
 * every PCID as far as it comes from global pages, and most does.  The rest of
 * it, the local entries, goes whenever CR3 is loaded.
 */
#define PCID_SLOTS       8
#define ASID_SLOTS       (PCID_SLOTS + 1)
#define ASID_SHARED      PCID_SLOTS
#define PAGE_FILTER_BITS 15
struct asid {
	struct tlb_entry tlb[TLB_MODES][TLB_SIZE];
	/* What other pages of the same index have displaced (mmu_gpr.c); without has_victims, none of them
	 * holds anything. */
	struct tlb_entry victim[TLB_MODES][VICTIMS];
	bool has_victims[TLB_MODES];
	struct itlb_entry itlb[2][ITLB_SIZE]; /* [CPL 3?] */
	struct jc_entry jc[2][JC_SIZE] __attribute__((aligned(64)));
	struct touched tlb_touched[TLB_MODES], jc_touched[2];
	struct touched local_tlb,
	    local_jc; /* of the shared one: entries that come from pages that are not global */
	bool local_itlb;
	/* Hash sets of the host pages that have (or had) a write tag in the table, see mmu_protect_page; and
	 * of the guest pages that the jump caches have (or had) entries for. */
	uint64_t written_pages[TLB_MODES][(1 << PAGE_FILTER_BITS) / 64];
	uint64_t exec_pages[(1 << PAGE_FILTER_BITS) / 64];
	uint64_t last_used;
	uint16_t pcid;
	bool valid;
};

/* An exception on its way to the guest. */
struct exception {
	uint8_t vector;
	bool has_error;
	bool soft; /* INT n, INT3, INTO: return address is after the instruction, gates' DPL is checked */
	bool present;
	uint32_t error;
	uint64_t cr2;
	uint64_t dr6; /* bits to set for #DB */
};

/* Why translated code came back (values also used in assembly). */
enum t1_exit {
	T1_EXIT_LINK = 0,   /* no code for rip yet; exit_arg: the struct block_exit that leads there, or 0 */
	T1_EXIT_INTERP = 2, /* interpret the instruction at rip */
	T1_EXIT_KICK = 3,   /* stop at rip */
	T1_EXIT_DISPATCH = 4, /* state changed; look up rip anew */
	T1_EXIT_STI = 5,      /* behind STI: one more instruction before an event */
};

/* Old contents of guest memory, so that lockstep can take back what the interpreter wrote. */
struct undo_log;

struct bt_cache;
struct icache;
struct engine_vm;

struct vcpu {
	/* --- hot, addressed by translated code --- */
	uint64_t tlb_base; /* host address of the current mode's TLB table */
	uint64_t jc_base;  /* likewise of the jump cache */
	uint64_t t1_flags; /* arithmetic flags while "in memory": AH image in bits 15:8, OF in bit 0 */
	uint64_t scratch[4];
	uint64_t group[MAX_GROUPS]; /* addends (translate_group.c) */
	uint64_t fault_info;        /* 1: v->exc is the access's #PF */
	uint64_t exit_reason, exit_arg;
	uint64_t host_rsp;
	uint8_t iflag;  /* RFLAGS.IF while translated code runs */
	uint8_t acflag; /* RFLAGS.AC */
	uint8_t dflag;  /* RFLAGS.DF */
	uint8_t in_t1;
	uint8_t needs_sync; /* on the way out: st.rflags is stale (t1_sync_out) */
	uint8_t no_carry;   /* the complement of a CF that was put aside (translate_flags.c) */
	uint32_t origin; /* struct origin of the last jump by a lookup in 64-bit code, in the cache's meta; 0:
			    none */
	uint64_t page_va;  /* user code: virtual address of the page that the block lies in */
	uint64_t t1_code;  /* where to enter */
	uint64_t sysflags; /* RFLAGS bits that translated code does not change, for PUSHF */
	uint64_t xmask;    /* XSAVE components of the guest */
	uint64_t empty_jc; /* a jump cache that always misses, for kicks */
	uint64_t slow_mem, find_thunk, special_thunk; /* asm thunks */
	_Atomic uint32_t kick;                        /* set by vcpu_kick, cleared by vcpu_run */
	uint32_t irq_request;                         /* nonzero: look for interrupts when IF allows */
	uint64_t tlb_ptr[TLB_MODES];                  /* tables of the current asid */
	/*
	 * Where an access that missed goes that the TLB must not keep (t1_slow_mem): in the form of an entry,
	 * and the offset in the page. direct_skip: 0, or how far behind the return address of the call to
	 * slow_mem the code is that goes there.
	 */
	uint64_t direct_skip, direct_offset;
	struct tlb_entry direct;
	/*
	 * The page that RSP pointed into lately, one for supervisor and one for user code: it may be read and
	 * written. The tag is its virtual address, to which addend is added; NO_STACK: none.
	 */
	struct stack_page {
		uint64_t tag, addend;
	} stack_page[2];
	uint64_t pad[2];
	struct x86_state st;

	/* --- warm --- */
	uint64_t last_large[TLB_MODES]; /* pages: entered last from a large page's translation (mmu_gpr.c) */
	uint64_t seg_end[2][SEG_COUNT]; /* [write] of segmented code's operands (translate_seg.c) */
	struct asid *asid, *asids;      /* current; the array of ASID_SLOTS */
	uint64_t asid_clock;
	uint64_t pdpte[4];         /* PAE page-directory pointers, loaded with CR3 */
	uint64_t large_filter[64]; /* hash set of 2 MiB regions with entries that came from large pages */
	struct exception exc;
	bool switched;      /* a task switch was done: what faults now does so at st.rip, in the new task */
	uint64_t insn_rip;  /* start of the instruction being interpreted */
	uint64_t cr4_valid; /* bits that the CPU model allows */
	uint64_t phys_mask; /* valid physical-address bits of a PTE */

	/* --- cold --- */
	struct engine_vm *vm;
	struct mem *mem;
	const struct cpu_model *model;
	struct vcpu_board board;
	uint32_t apic_id;
	bool apic_off; /* in its base MSR */
	unsigned index;
	struct bt_cache *cache;
	struct icache *icache;
	_Atomic uint32_t request; /* BT_REQ_* from other threads */
	pthread_t thread;
	int tid;
	timer_t timer, stress_timer;
	bool has_timer, has_stress_timer;
	struct t2 *t2;             /* NULL: no direct execution */
	uint32_t pauses;           /* PAUSE instructions, for yielding */
	uint8_t polling;           /* in bt_wait, looking at `kick`: needs no signal */
	uint64_t poll_ticks;       /* how long it looks before it sleeps */
	uint8_t t2_cause;          /* why the kernel was entered (enum t2_cause) */
	volatile pid_t t2_pid;     /* the stub that runs guest code now; 0: none */
	struct lockstep *lockstep; /* NULL unless that mode is on */
	struct undo_log *undo;     /* lockstep: log stores here; else NULL */
	bool in_gpr, bail;         /* see interp_internal.h: needs_full */
	uint32_t cur_flags;        /* mode flags of the code that runs */
	uint32_t global_gen,
	    links_gen; /* counts flushes of global TLB entries; the count that links were checked against */
	/* Mode flags that follow from control registers, by CPL 3; and the registers that they were found
	 * for. */
	struct control_cache {
		uint64_t cr0, cr4, efer, xcr0;
		bool ferr;
		uint32_t flags[2];
	} control;
	uint32_t jc_flags[4];       /* mode flags of the blocks in the jump caches, by block_class */
	_Atomic uint32_t running;   /* inside vcpu_run: may execute guest code before its next safe point */
	_Atomic uint32_t post_lock; /* spin flag for the two below */
	uint8_t fp_image[X86_XSAVE_MAX] __attribute__((aligned(64))); /* of an XSAVE or XRSTOR on its way */
	uint8_t crossing[256] __attribute__((aligned(64))); /* what a read across a page's end found */
	uint32_t n_posted;
	struct posted {
		const void *host;
		uint64_t len; /* 0: take the page's write tags away; else drop blocks */
	} posted[16];
	uint32_t overflow;        /* kinds (BT_POST_*) of those that found no room */
	_Atomic uint32_t stopped; /* waits at a safe point for vm->stopper to be done */
	bool alone;               /* each block comes back to the run loop: lockstep, stress */
	uint64_t held_dr6;        /* debug traps that MOV SS holds back */
	uint64_t dr_watch;        /* DR7 has enabled breakpoints */
	uint64_t fault_trapno;    /* host fault during a native instruction */
	uint64_t fault_addr;
	struct engine_stats stats;
	char error[200];
	void *map; /* mapping that holds stack + this struct */
	size_t map_size;
};

#define MSR_APIC_BASE    0x1b
#define APIC_BASE_ENABLE 0x800u

#define BT_REQ_POSTED 1u
#define BT_REQ_STOP   2u

#define BT_POST_TAGS   1u
#define BT_POST_CODE   2u
#define BT_POST_LAYOUT 4u

#endif
