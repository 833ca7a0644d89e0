/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Address translation: the page walk, the soft TLB, and guest-virtual memory
 * access (SDM 3A chapter 4).  General-regs-only code.
 */
#ifndef SILL_ENGINE_BT_MMU_H
#define SILL_ENGINE_BT_MMU_H

#include "engine/bt/vcpu.h"

enum {
	ACC_R = 0,
	ACC_W = 1,
	ACC_X = 2,
	ACC_USER = 4,     /* as CPL 3; else as supervisor */
	ACC_IMPLICIT = 8, /* descriptor tables and TSS: SMAP ignores EFLAGS.AC */
	ACC_PROBE = 16,   /* do not set A/D, do not fill the TLB */
};

/* Page-table entries (SDM 3A 4.5): what all levels have in common. */
#define PTE_P   1ull
#define PTE_W   2ull
#define PTE_U   4ull
#define PTE_A   0x20ull
#define PTE_D   0x40ull
#define PTE_PS  0x80ull
#define PTE_G   0x100ull
#define PTE_NX  (1ull << 63)
#define PA_MASK 0x000ffffffffff000ull

struct walk {
	uint64_t pa;        /* guest-physical address of the byte */
	uint64_t page_size; /* 4 KiB, 2 MiB, 4 MiB or 1 GiB; 4 KiB with paging off */
	bool writable, user, nx, global, dirty;
};

/* Walks for one byte; 0, or -1 with v->exc set to #PF (cr2 in the exception). */
int mmu_walk(struct vcpu *v, uint64_t va, unsigned acc, struct walk *w);

/*
 * Host pointer for [va, va+size), which must lie in one page; fills the TLB.
 * 0 and *ret; 0 and *ret == NULL with *pa set where the page is not memory (MMIO), or for ACC_W not writable;
 * or -1 with v->exc.  For ACC_W the page's translated code has NOT been
 * invalidated: the caller calls mmu_code_write after writing if *code.
 */
int mmu_host(struct vcpu *v, uint64_t va, unsigned acc, void **ret, uint64_t *pa, bool *code);

/* The access flags for an explicit data access of the current privilege level. */
unsigned mmu_acc(const struct vcpu *v);

/* Once, before anything else. */
void mmu_init(struct vcpu *v);

/* Invalidation. All act on this vCPU alone. */
void mmu_flush_all(struct vcpu *v); /* every PCID, global pages too */
void mmu_stress_flush(
    struct vcpu *v); /* what is cached for the current PCID, stubs aside: never wrong, for --stress */
void mmu_flush_pcid(struct vcpu *v, uint16_t pcid);
void mmu_invlpg(struct vcpu *v, uint64_t va);
void mmu_invlpg_pcid(struct vcpu *v, uint16_t pcid, uint64_t va);
/* Selects the tables for the current CR3/PCID; flush says whether its entries go. */
void mmu_select(struct vcpu *v, bool flush);
/* Sets tlb_base/jc_base from CPL, AC and SMAP. After any change of these. */
void mmu_set_mode(struct vcpu *v);
/* Takes write tags away from every entry that maps the RAM page at host (page aligned). */
void mmu_protect_page(struct vcpu *v, const void *host);
/* Enters code for place pc at va, whose translation was just looked up, into the jump cache; crosses: it goes
 * on in the next page. */
void mmu_jc_enter(struct vcpu *v, bool user, uint64_t pc, uint64_t va, void *code, bool crosses);
/* Forgets jump-cache entries. */
void mmu_flush_jc(struct vcpu *v);
/* Loads the four PAE PDPTEs from CR3; -1: reserved bits are set (#GP). */
int mmu_load_pdptes(struct vcpu *v, uint64_t cr3);

static inline void exc_set(struct vcpu *v, uint8_t vector, bool has_error, uint32_t error)
{
	v->exc =
	    (struct exception){ .vector = vector, .has_error = has_error, .error = error, .present = true };
}

/* Raises: sets v->exc and evaluates to -1, for `return exc_gp(v, 0)`. */
static inline int exc_err(struct vcpu *v, uint8_t vector, uint32_t error)
{
	exc_set(v, vector, true, error);
	return -1;
}
static inline int exc_gp(struct vcpu *v, uint32_t error)
{
	return exc_err(v, EXC_GP, error);
}
static inline int exc_ud(struct vcpu *v)
{
	exc_set(v, EXC_UD, false, 0);
	return -1;
}

static inline bool canonical(uint64_t va)
{
	return (uint64_t)((int64_t)(va << 16) >> 16) == va;
}

/* A tag that matches nothing: page 0 has index 0, so at other indices 0 does; index 0 takes page 1's. */
static inline uint64_t no_tag(unsigned index)
{
	return index ? 0 : PAGE_SIZE;
}

static inline void tlb_entry_clear(struct tlb_entry *e, unsigned index)
{
	e->tag_r = e->tag_w = no_tag(index);
	e->addend = e->page = 0;
}

#endif
