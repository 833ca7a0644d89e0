/* SPDX-License-Identifier: Apache-2.0 */
/* Finding and linking blocks, from within translated code: general-regs-only. */
#include "engine/bt/bt.h"
#include "engine/bt/cache.h"
#include "engine/bt/mmu.h"
#include "engine/bt/t1_internal.h"
#include "engine/bt/t2.h"

/* Blocks that lie near each other run after one another: their places share a cache line. */
unsigned cache_hash(uint64_t pa, uint64_t va, uint32_t flags)
{
	uint64_t h = ((pa >> 7) ^ (block_is_pic(flags) ? 0 : va >> 7 << 17) ^ flags) * 0x9e3779b97f4a7c15ull;

	return (unsigned)(h >> (64 - CACHE_HASH_BITS + 3)) << 3 | (pa >> 4 & 7);
}

bool cache_valid(struct vcpu *v, struct block *b, uint64_t va)
{
	uint64_t pa;
	void *host;
	bool dummy;

	if (!b->page2)
		return true;
	if (mmu_host(v, (pc_linear(b->flags, va) | 0xfff) + 1, ACC_X | mmu_acc(v), &host, &pa, &dummy)) {
		v->exc.present = false;
		return false;
	}
	return host == b->page2;
}

struct block *cache_find(struct vcpu *v, uint64_t pa, uint64_t va, uint32_t flags)
{
	struct block *b = v->cache->hash[cache_hash(pa, va, flags)];

	while (b && (b->pa != pa || b->flags != flags || (b->va != va && !block_is_pic(flags)) ||
		     !cache_valid(v, b, va)))
		b = b->hash_next;
	return b;
}

static unsigned page_hash(const void *host)
{
	return (unsigned)(((uint64_t)host >> 12) * 0x9e3779b97f4a7c15ull >> 50);
}

struct code_page **cache_page_slot(struct bt_cache *c, const uint8_t *host_page)
{
	struct code_page **p = &c->pages[page_hash(host_page)];

	while (*p && (*p)->host != host_page)
		p = &(*p)->next;
	return p;
}

uint64_t cache_granules(unsigned off, unsigned len)
{
	unsigned first = off / GRANULE, last = (off + len - 1) / GRANULE;

	return (last == 63 ? ~0ull : (1ull << (last + 1)) - 1) & ~((1ull << first) - 1);
}

bool cache_stormy(struct vcpu *v, const uint8_t *host)
{
	unsigned off = (uint64_t)host & 0xfff, g = off / GRANULE;
	const struct code_page *p = *cache_page_slot(v->cache, host - off);

	return p && p->storm && p->storm->drops[g] >= STORM_DROPS &&
	       __builtin_ia32_rdtsc() - p->storm->last[g] < STORM_PAUSE;
}

bool cache_may_write(struct vcpu *v, const uint8_t *host, unsigned len)
{
	unsigned off = (uint64_t)host & 0xfff;
	const uint8_t *page = host - off;
	_Atomic uint16_t *mask = &bt_page_vcpus(v, page)->code;
	uint16_t others = (uint16_t)~bt_self(v);
	uint8_t *flags = mem_page_flags(v->mem, page);
	const struct code_page *p;

	if (!v->cache || (atomic_load_explicit(mask, memory_order_relaxed) & others))
		return false;
	p = *cache_page_slot(v->cache, page);
	if (p && (p->granules & cache_granules(off, len)))
		return false;
	/* Another vCPU that translates from here now either sees this mark, and waits for our next safe
	 * point, or we see its bit. */
	if (!(__atomic_load_n(flags, __ATOMIC_RELAXED) & MEM_PAGE_MIXED))
		__atomic_or_fetch(flags, MEM_PAGE_MIXED, __ATOMIC_SEQ_CST);
	return !(atomic_load(mask) & others);
}

typedef int32_t __attribute__((aligned(1), may_alias)) unaligned_i32;

void cache_patch(struct bt_cache *c, struct block_exit *e, const uint8_t *target)
{
	/* rel32 counts from the end of the field, in the executable view. */
	int32_t rel = (int32_t)(target - (c->rx + (e->patch - c->rw) + 4));

	*(unaligned_i32 *)e->patch = rel;
}

static const uint8_t *entry_for(const struct block_exit *e, const struct block *to)
{
	if (to == e->from && e->carry_put && to->entry_loop)
		return to->entry_loop;
	return e->in_mem && (!e->in_host || to->wants_mem) ? to->entry_m : to->entry_h;
}

void cache_link(struct vcpu *v, struct block_exit *e, struct block *to)
{
	if (e->to || e->from->dead || to->dead)
		return;
	e->to = to;
	e->next_in = to->in;
	to->in = e;
	cache_patch(v->cache, e, entry_for(e, to));
}

/* True if both addresses lie in one large global page, whose translation outlives CR3 loads (SDM
 * 3A 4.10.2.4). */
static bool same_global_page(struct vcpu *v, uint64_t a, uint64_t b)
{
	struct walk w;

	if ((a ^ b) & ~0x1fffffull)
		return false;
	if (mmu_walk(v, b, ACC_X | ACC_PROBE | mmu_acc(v), &w)) {
		v->exc.present = false;
		return false;
	}
	return w.global && w.page_size >= 0x200000;
}

void cache_jc_enter(struct vcpu *v, struct block *b, uint64_t va)
{
	mmu_jc_enter(v, b->flags & BLOCK_USER, va, pc_linear(b->flags, va), b->entry_jc, b->page2);
}

uint64_t cache_rip(const struct vcpu *v, const struct block *b, uint64_t off)
{
	return (block_is_pic(b->flags) ? v->page_va + (b->va & 0xfff) : pc_rip(b->flags, b->va)) + off;
}

/* Does exit e lead to b, entered at va, as long as e's block is entered at the same page? */
static bool leads_to(const struct block_exit *e, const struct block *b, uint64_t va)
{
	if (((e->from->flags ^ b->flags) & ~(uint32_t)BLOCK_NOGROUP) ||
	    e->no_group != !!(b->flags & BLOCK_NOGROUP) || e->from->dead || e->to)
		return false;
	if (!block_is_pic(b->flags))
		return e->target == va;
	return e->same_page && ((e->target ^ va) & 0xfff) == 0 && ((e->from->pa ^ b->pa) >> 12) == 0;
}

/* From now on e goes through the jump cache by itself. */
static void go_by_lookup(struct bt_cache *c, struct block_exit *e)
{
	*(unaligned_i32 *)e->way = (int32_t)(c->stub_lookup - (c->rx + (e->way - c->rw) + 4));
}

void cache_follow(struct vcpu *v, struct block_exit *e, struct block *b, uint64_t va)
{
	struct bt_cache *c = v->cache;

	if (!e || !leads_to(e, b, va)) {
		cache_jc_enter(v, b, va);
	} else if (e->same_page && !b->page2) {
		cache_link(v, e, b);
	} else if (!(b->flags & (BLOCK_USER | BLOCK_SEG)) && same_global_page(v, e->from->va, b->va) &&
		   same_global_page(v, b->va, b->va + b->guest_len - 1)) {
		/* As good as a TLB entry of a global page, and forgotten when those are. */
		cache_link(v, e, b);
		if (!e->in_global) {
			e->in_global = true;
			e->next_global = c->global_links;
			c->global_links = e;
		}
	} else {
		if (!e->no_group)
			go_by_lookup(c, e);
		cache_jc_enter(v, b, va);
	}
}

void *t1_find(struct vcpu *v, uint64_t va, struct block_exit *e)
{
	uint64_t pa;
	uint32_t flags = v->cur_flags | (e && e->no_group ? BLOCK_NOGROUP : 0);
	struct block *b;
	void *host;
	bool dummy;

	v->stats.lookups++;
	if (v->alone || (v->cache->global_links && v->global_gen != v->links_gen))
		return NULL;
	if ((v->cur_flags & BLOCK_USER) && t2_wants_at(v, va))
		return NULL;
	if (!(v->cur_flags & (BLOCK_32 | BLOCK_SEG)) && !canonical(va))
		return NULL;
	if (mmu_host(v, pc_linear(flags, va), ACC_X | mmu_acc(v), &host, &pa, &dummy)) {
		v->exc.present = false;
		return NULL;
	}
	if (!host)
		return NULL;
	b = cache_find(v, mem_ptr_to_gpa(v->mem, host).v, va, flags);
	if (!b || !b->n_insns)
		return NULL;
	cache_follow(v, e, b, va);
	return b->entry_jc;
}

struct block *cache_find_host(struct bt_cache *c, uint64_t pc)
{
	size_t lo = 0, hi = c->n_order;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if ((uint64_t)c->order[mid]->code <= pc)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (!lo)
		return NULL;
	return pc < (uint64_t)c->order[lo - 1]->code + c->order[lo - 1]->code_size ? c->order[lo - 1] : NULL;
}
