/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The block cache: translated blocks, found by where their code lies in guest
 * memory, and the links between them.
 *
 * Each vCPU has a cache of its own, so nothing here is locked: only its thread
 * touches it (its kick signal too, but only while the thread is in translated
 * code, hence not in here).
 *
 *  1. A block is keyed by the physical address of its first instruction, by the
 *     mode flags that its code depends on, and, unless it is position-independent
 *     user code, by its place: RIP, or in segmented code (translate_seg.c) what
 *     stands for CS and IP.
 *  2. A page (host RAM page) with blocks has MEM_PAGE_CODE set and no write tag
 *     in any vCPU's TLB, so every write to it takes a path that comes to
 *     cache_invalidate of each vCPU that has blocks from it (bt.h).
 *  3. An exit that is linked jumps to its target's code; the target knows it
 *     (the `in` list) and unlinks it when it dies.
 *  4. Code is handed out in order from one arena; when that is full everything
 *     is dropped at once.
 */
#ifndef SILL_ENGINE_BT_CACHE_H
#define SILL_ENGINE_BT_CACHE_H

#include "engine/bt/decode_cache.h"
#include "engine/bt/vcpu.h"

/* Mode flags of a block: all that translation looks at besides the bytes. */
enum {
	BLOCK_USER = 1, /* CPL 3 */
	BLOCK_32 = 2,   /* compat or flat 32-bit code */
	BLOCK_SSE = 4,  /* MMX and SSE are enabled */
	BLOCK_AVX = 8,
	BLOCK_AVX512 = 16,
	BLOCK_SMAP = 32,
	BLOCK_TSC = 64,   /* RDTSC is allowed and needs no trap */
	BLOCK_FSGS = 128, /* CR4.FSGSBASE */
	BLOCK_LONG = 256, /* EFER.LMA */
	BLOCK_PAGING = 512,
	BLOCK_NO_FS = 1024, /* 32-bit code with FS null or not flat: its use is the interpreter's */
	BLOCK_NO_GS = 2048,
	BLOCK_NOGROUP = 4096, /* each access has a check of its own; not of the mode but of the way here */
	BLOCK_X87 = 16384,    /* x87 is enabled */
	BLOCK_SEG = 8192,     /* segmented code: 16-bit, or 32-bit that is not flat; its place says which */
};

/*
 * Places of segmented code: the linear address in the lower half; CS's base in the upper, and in its low four
 * bits, which are 0 in a base that is translated, these.
 */
#define PC_SEG     1u /* always: no place of flat code has the like */
#define PC_REAL    2u /* real or virtual-8086 mode */
#define PC_STACK32 4u /* SS.B */
#define PC_CODE32  8u /* CS.D */

static inline uint32_t pc_base(uint64_t pc)
{
	return (uint32_t)(pc >> 32) & ~15u;
}

/* The linear address of a place, and the instruction pointer there. */
static inline uint64_t pc_linear(uint32_t flags, uint64_t pc)
{
	return flags & BLOCK_SEG ? (uint32_t)pc : pc;
}
static inline uint64_t pc_rip(uint32_t flags, uint64_t pc)
{
	return flags & BLOCK_SEG ? (uint32_t)pc - pc_base(pc) : pc;
}

/* st.rip's place. */
static inline uint64_t pc_of(const struct vcpu *v, uint32_t flags)
{
	const struct x86_state *s = &v->st;
	uint32_t base = (uint32_t)s->seg[SEG_CS].base, bits = PC_SEG;

	if (!(flags & BLOCK_SEG))
		return s->rip;
	bits |= x86_protected(s) ? 0 : PC_REAL;
	bits |= s->seg[SEG_SS].attr & SEG_DB ? PC_STACK32 : 0;
	bits |= s->seg[SEG_CS].attr & SEG_DB ? PC_CODE32 : 0;
	return (uint64_t)(base | bits) << 32 | (base + (uint32_t)s->rip);
}

/* Position-independent: the same at every virtual address of its page. */
static inline bool block_is_pic(uint32_t flags)
{
	return (flags & (BLOCK_USER | BLOCK_SEG)) == BLOCK_USER;
}

/* Jump caches hold blocks of one set of mode flags for each of these. */
static inline unsigned block_class(uint32_t flags)
{
	return (flags & BLOCK_USER ? 1 : 0) | (flags & BLOCK_SEG ? 2 : 0);
}

#define GRANULE 64u /* bytes: the pieces of a page in which it is known what translations depend on */

struct block;

/* One direct way out of a block. */
struct block_exit {
	uint8_t *patch;  /* writable address of the rel32 to patch */
	uint8_t *cold;   /* executable address that the rel32 goes to while unlinked */
	uint64_t target; /* place */
	struct block *from;
	struct block *to; /* NULL: unlinked */
	struct block_exit *next_in;
	struct block_exit *next_global;
	uint8_t *way; /* writable address of the cold part's rel32: to stub_link, or to stub_lookup for a
			 target that must not be linked */
	bool in_host, in_mem; /* where the flags are, at least one: which entry of the target it takes */
	bool same_page;       /* may be linked for good: the target lies in the same page */
	bool no_group;        /* leads to the block at its target that has BLOCK_NOGROUP */
	bool carry_put;       /* with the flags in RFLAGS, CF is in v->no_carry as well */
	bool in_global;       /* on the list of links that live as long as a global TLB entry */
};

struct insn_map {
	uint16_t host_end;  /* code offset where this instruction's hot code ends */
	uint16_t guest_off; /* from the block's first byte */
	uint16_t redo; /* code offset of what brings the flags to memory if it faults; 0: they are there */
	bool string;   /* REP MOVS or STOS on host addresses (translate_str.c) */
	bool in_host;  /* while it executes, host RFLAGS hold the guest's flags */
};

/* An indirect jump, call or return, for a target that is not canonical: that is the instruction's fault. */
struct origin {
	struct block *from;
	uint16_t guest_off; /* of the instruction, from the block's first byte */
	int32_t rsp;        /* to be added to RSP to undo the instruction */
};

/* Without instructions: the first is the interpreter's, which is worth remembering, since to find out means
 * to decode what comes behind, too. */
struct block {
	/* What finding it looks at, in one cache line. */
	uint64_t pa, va;
	struct block *hash_next;
	uint8_t *entry_jc;    /* where the jump cache and C enter: guest address in R13, flags in t1_flags */
	const uint8_t *page2; /* its last instruction goes on in the next page: that page */
	uint32_t flags;
	bool dead;
	bool vector;    /* uses x87 or vector registers */
	bool wants_mem; /* entry_m is the shorter way in */
	uint16_t guest_len;
	uint16_t n_insns, n_exits;
	uint8_t *entry_h, *entry_m; /* entries with the flags in host RFLAGS, in t1_flags */
	uint8_t *entry_loop; /* from its own end, with the flags in RFLAGS and CF in v->no_carry; or NULL */

	uint8_t *code; /* executable start */
	uint32_t code_size;
	struct block_exit *exits, *in;
	struct insn_map *map;
	uint64_t granules, granules2; /* pieces of the page, of page2, that it depends on */
	const uint8_t *page;          /* that it begins in */
	struct block *page_next, *page2_next;
};

/*
 * Old programs change their own code, or keep what they write all the time beside it, and a translation costs
 * as much as to interpret it some hundred times.  A granule of which translations were dropped STORM_DROPS
 * times, each within STORM_WINDOW of the last, is left to the interpreter, and after STORM_PAUSE tried anew.
 * Outside IA-32e mode only: systems of today change code in many places, but not in one again and again.
 */
#define STORM_DROPS  8u
#define STORM_WINDOW (1ull << 26) /* TSC ticks: some 30 ms */
#define STORM_PAUSE  (1ull << 30)
struct storm {
	uint64_t last[PAGE_SIZE / GRANULE]; /* TSC */
	uint8_t drops[PAGE_SIZE / GRANULE];
};

/* What is known of a page of guest code: [PAGE_HASH of its host address]. */
struct code_page {
	const uint8_t *host;
	struct block *first;  /* that begin here */
	struct block *first2; /* that end here, having begun in another page */
	uint64_t granules;
	struct storm *storm; /* NULL: none seen */
	struct code_page *next;
};
struct tr;

struct bt_cache {
	uint8_t *rw, *rx;         /* the arena, twice: writable and executable */
	size_t size, used, start; /* start: after the shared stubs */
	struct block **hash;
	struct code_page **pages;
	uint8_t *meta; /* bump-allocated blocks, exits, maps */
	size_t meta_size, meta_used;
	size_t ready_rw, ready_rx, ready_meta; /* up to where the kernel was asked to provide memory */
	struct block **order;                  /* blocks by code address, for cache_find_host */
	size_t n_order, max_order;
	struct block_exit *global_links;
	struct jc_entry *empty_jc;
	/* the translator's */
	struct tr *tr;
	struct decode_cache *decoder;
	/* shared stubs, executable addresses */
	uint8_t *stub_lookup, *stub_lookup_end, *stub_find, *stub_link, *stub_interp, *stub_sti;
	uint32_t generation; /* counts whole flushes */
	/* Pages that were watched lately: are there blocks from them? (cache_settle) */
	const uint8_t *candidates[8];
	unsigned n_candidates;
	bool again; /* translate() made no block because it had to wait: the next try need not */
	bool rorx;  /* the host has BMI2 */
};

#define CACHE_PAGES 16384

/* Where the record of a page is linked in (NULL there: none). */
struct code_page **cache_page_slot(struct bt_cache *c, const uint8_t *host_page);
/* Is the code at this place in host memory better interpreted? */
bool cache_stormy(struct vcpu *v, const uint8_t *host);
/* The granules that [off, off+len) of a page touches; len > 0, all in the page. */
uint64_t cache_granules(unsigned off, unsigned len);
/*
 * May the guest write [host, host+len), in one page from which code was translated, without anybody being
 * told? Yes if no translation depends on these bytes: no other vCPU has any from the page, and this one's lie
 * elsewhere in it. Good for one access: the answer changes with the next translation.
 */
bool cache_may_write(struct vcpu *v, const uint8_t *host, unsigned len);

int cache_init(struct vcpu *v, uint64_t size);
void cache_free(struct vcpu *v);
struct block *cache_find(struct vcpu *v, uint64_t pa, uint64_t va, uint32_t flags);
/* Space for one more block and its code? If not, everything is flushed first. */
void cache_make_room(struct vcpu *v);
/* Metadata for a block; zeroed, aligned to a cache line. Never fails after cache_make_room. */
void *cache_alloc(struct bt_cache *c, size_t n);
/* Makes all vCPUs' writes to a RAM page known to this cache. Before the page is read for translation. True:
 * it has waited for other vCPUs and served their requests, and the cache may be another (even flushed). */
bool cache_watch(struct vcpu *v, const uint8_t *host_page);
/* After a block was sought: pages that were watched in vain are not any more, or stores to them would be slow
 * for ever. */
void cache_settle(struct vcpu *v);
/* Enters a finished block, or one without instructions; host_page is the RAM page that its code comes from.
 */
void cache_add(struct vcpu *v, struct block *b, void *host_page);
#define CACHE_HASH_BITS 18
#define CACHE_HASH_SIZE (1u << CACHE_HASH_BITS)
unsigned cache_hash(uint64_t pa, uint64_t va, uint32_t flags);
void cache_patch(struct bt_cache *c, struct block_exit *e, const uint8_t *target);
/* Makes the next way to b shorter: links exit e (may be NULL) where that is allowed, else enters b into the
 * jump cache. */
void cache_follow(struct vcpu *v, struct block_exit *e, struct block *b, uint64_t va);
void cache_jc_enter(struct vcpu *v, struct block *b, uint64_t va);
/* RIP at an offset in the block that runs (or ran last). */
uint64_t cache_rip(const struct vcpu *v, const struct block *b, uint64_t off);
/* Unlinks all links that rest on a global page. */
void cache_unlink_global(struct bt_cache *c);
void cache_link(struct vcpu *v, struct block_exit *e, struct block *to);
void cache_unlink_exit(struct bt_cache *c, struct block_exit *e);
/* Unlinks every exit of b. Async-signal-safe under the rule above. */
void cache_unlink_all(struct bt_cache *c, struct block *b);
void cache_invalidate(struct vcpu *v, const void *host, uint64_t len);
void cache_flush(struct vcpu *v);
/* The block whose code holds executable address pc, or NULL. */
struct block *cache_find_host(struct bt_cache *c, uint64_t pc);

/* Is b, whose first page was translated just now, still what va's code is? (Its second page may be mapped
 * elsewhere.) */
bool cache_valid(struct vcpu *v, struct block *b, uint64_t va);

/* translate.c: a block for the code at va (host address p, physical pa), entered into the cache. NULL: the
 * first instruction must be interpreted. */
struct block *translate(struct vcpu *v, uint64_t va, uint64_t pa, const uint8_t *p, uint32_t flags);
/* Scratch space for it, to be freed with free(); or NULL. */
struct tr *translate_new(void);
/* Emits the shared stubs at the arena's start. */
void translate_stubs(struct vcpu *v);

#endif
