/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/bt/cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "engine/bt/bt.h"
#include "engine/bt/mmu.h"
#include "engine/bt/t2.h"

#define CODE_RESERVE 65536 /* no block is larger */
#define META_RESERVE 65536
#define POPULATE     (256u << 10)

static int map_arena(struct bt_cache *c, size_t size)
{
	int fd = memfd_create("sill-code", MFD_CLOEXEC | 0x10u /* MFD_EXEC */);

	if (fd < 0)
		fd = memfd_create("sill-code", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	/* Code, then the blocks' records: one file, so that a glance at the process tells the cache's size.
	 */
	if (ftruncate(fd, (off_t)(2 * size))) {
		close(fd);
		return -errno;
	}
	c->rw = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	c->rx = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	c->meta = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)size);
	close(fd);
	if (c->rw == MAP_FAILED || c->rx == MAP_FAILED || c->meta == MAP_FAILED)
		return -ENOMEM;
	c->size = c->meta_size = size;
	return 0;
}

int cache_init(struct vcpu *v, uint64_t size)
{
	struct bt_cache *c = calloc(1, sizeof *c);

	if (!c)
		return -ENOMEM;
	v->cache = c;
	c->rorx = __builtin_cpu_supports("bmi2");
	if (map_arena(c, size))
		return -ENOMEM;
	c->max_order = size / 64;
	c->order = mmap(NULL, c->max_order * sizeof *c->order, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	c->hash = mmap(NULL, CACHE_HASH_SIZE * sizeof *c->hash, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	c->pages = calloc(CACHE_PAGES, sizeof *c->pages);
	c->empty_jc = aligned_alloc(64, JC_SIZE * sizeof *c->empty_jc);
	c->tr = translate_new();
	c->decoder = decode_cache_new(v->model);
	if (c->order == MAP_FAILED || c->hash == MAP_FAILED || !c->pages || !c->empty_jc || !c->tr ||
	    !c->decoder)
		return -ENOMEM;
	for (unsigned i = 0; i < JC_SIZE; i++)
		jc_clear(&c->empty_jc[i], i);
	v->empty_jc = (uint64_t)c->empty_jc;
	translate_stubs(v);
	c->start = c->used;
	return 0;
}

/* What mmap returned, or NULL. */
static void unmap(void *p, size_t size)
{
	if (p && p != MAP_FAILED)
		munmap(p, size);
}

void cache_free(struct vcpu *v)
{
	struct bt_cache *c = v->cache;

	if (!c)
		return;
	unmap(c->rw, c->size);
	unmap(c->rx, c->size);
	unmap(c->meta, c->meta_size);
	unmap(c->order, c->max_order * sizeof *c->order);
	unmap(c->hash, CACHE_HASH_SIZE * sizeof *c->hash);
	free(c->pages);
	free(c->empty_jc);
	free(c->tr);
	decode_cache_free(c->decoder);
	free(c);
	v->cache = NULL;
}

void *cache_alloc(struct bt_cache *c, size_t n)
{
	void *p = c->meta + c->meta_used;

	c->meta_used += align_up(n, 64);
	memset(p, 0, n);
	return p;
}

/* Has the kernel provide the next piece of an arena at once, rather than by a page fault for each page. */
static void populate(uint8_t *base, size_t need, size_t size, size_t *ready, int advice)
{
	size_t n;

	if (need <= *ready || *ready >= size)
		return;
	n = min_u64(POPULATE, size - *ready);
	madvise(base + *ready, n, advice); /* if it cannot, faults do it */
	*ready += n;
}

void cache_make_room(struct vcpu *v)
{
	struct bt_cache *c = v->cache;

	if (c->used + CODE_RESERVE > c->size || c->meta_used + META_RESERVE > c->meta_size ||
	    c->n_order + 1 > c->max_order)
		cache_flush(v);
	populate(c->rw, c->used + CODE_RESERVE, c->size, &c->ready_rw, MADV_POPULATE_WRITE);
	populate(c->rx, c->used + CODE_RESERVE, c->size, &c->ready_rx, MADV_POPULATE_READ);
	populate(c->meta, c->meta_used + META_RESERVE, c->meta_size, &c->ready_meta, MADV_POPULATE_WRITE);
}

static void note_candidate(struct bt_cache *c, const uint8_t *page)
{
	for (unsigned i = 0; i < c->n_candidates; i++)
		if (c->candidates[i] == page)
			return;
	/* A page too many stays watched, which only costs time. */
	if (c->n_candidates < ARRAY_SIZE(c->candidates))
		c->candidates[c->n_candidates++] = page;
}

bool cache_watch(struct vcpu *v, const uint8_t *host_page)
{
	struct engine_vm *vm = v->vm;
	struct bt_cache *c = v->cache;
	struct page_vcpus *page = bt_page_vcpus(v, host_page);
	uint8_t *flags = mem_page_flags(v->mem, host_page);
	uint16_t mine = bt_self(v), writers;

	/* Only this thread takes the bit away, and the page's flag stays as long as one is set. */
	if (atomic_load_explicit(&page->code, memory_order_relaxed) & mine)
		return false;
	note_candidate(c, host_page);
	mutex_lock(&vm->lock);
	atomic_fetch_or(&page->code, mine);
	__atomic_fetch_or(flags, MEM_PAGE_CODE, __ATOMIC_SEQ_CST);
	mutex_unlock(&vm->lock);
	/* Write tags of before go, here and elsewhere, before the page is read. Those who write beside
	 * another vCPU's code (cache_may_write) look anew, too; who has been asked already may not have
	 * answered yet. */
	mmu_protect_page(v, host_page);
	t2_protect_page(v, host_page);
	writers = (uint16_t)(atomic_load(&page->writers) & ~mine);
	bt_post_each(vm, writers, host_page, 0);
	bt_sync(v, writers);
	return writers;
}

/* The vCPU has no blocks from the page any more. */
static void unwatch(struct vcpu *v, const uint8_t *host_page)
{
	_Atomic uint16_t *mask = &bt_page_vcpus(v, host_page)->code;
	uint16_t mine = bt_self(v);

	mutex_lock(&v->vm->lock);
	if ((atomic_fetch_and(mask, (uint16_t)~mine) & ~mine) == 0)
		__atomic_and_fetch(mem_page_flags(v->mem, host_page),
				   (uint8_t) ~(MEM_PAGE_CODE | MEM_PAGE_MIXED), __ATOMIC_SEQ_CST);
	mutex_unlock(&v->vm->lock);
}

void cache_settle(struct vcpu *v)
{
	struct bt_cache *c = v->cache;

	while (c->n_candidates) {
		const uint8_t *page = c->candidates[--c->n_candidates];
		const struct code_page *p = *cache_page_slot(c, page);

		if (!p || (!p->first && !p->first2))
			unwatch(v, page);
	}
}

static struct code_page *page_record(struct bt_cache *c, const uint8_t *host_page)
{
	struct code_page **p = cache_page_slot(c, host_page);

	if (!*p) {
		*p = cache_alloc(c, sizeof **p);
		(*p)->host = host_page;
	}
	return *p;
}

void cache_add(struct vcpu *v, struct block *b, void *host_page)
{
	struct bt_cache *c = v->cache;
	unsigned h = cache_hash(b->pa, b->va, b->flags);
	struct code_page *p = page_record(c, host_page);

	b->hash_next = c->hash[h];
	c->hash[h] = b;
	b->page = host_page;
	b->page_next = p->first;
	p->first = b;
	p->granules |= b->granules;
	if (b->page2) {
		p = page_record(c, b->page2);
		b->page2_next = p->first2;
		p->first2 = b;
		p->granules |= b->granules2;
	}
	if (!b->n_insns)
		return;
	c->order[c->n_order++] = b;
	v->stats.blocks++;
	v->stats.guest_insns_translated += b->n_insns;
	v->stats.code_bytes += b->code_size;
}

void cache_unlink_exit(struct bt_cache *c, struct block_exit *e)
{
	struct block_exit **p;

	if (!e->to)
		return;
	for (p = &e->to->in; *p; p = &(*p)->next_in)
		if (*p == e) {
			*p = e->next_in;
			break;
		}
	e->to = NULL;
	cache_patch(c, e, e->cold);
}

void cache_unlink_all(struct bt_cache *c, struct block *b)
{
	for (unsigned i = 0; i < b->n_exits; i++)
		cache_unlink_exit(c, &b->exits[i]);
}

/* Takes a block out of everything but the lists of its pages. */
static void kill_block(struct vcpu *v, struct block *b)
{
	struct bt_cache *c = v->cache;
	struct block **p = &c->hash[cache_hash(b->pa, b->va, b->flags)];

	uint8_t *entry;
	int32_t rel;

	while (*p && *p != b)
		p = &(*p)->hash_next;
	if (*p)
		*p = b->hash_next;
	while (b->in)
		cache_unlink_exit(c, b->in);
	cache_unlink_all(c, b);
	b->dead = true;
	if (!b->n_insns)
		return;
	/* Jump-cache entries may still lead here: from now on they look up anew. */
	entry = c->rw + (b->entry_jc - c->rx);
	rel = (int32_t)(c->stub_find - (b->entry_jc + 5));
	entry[0] = 0xe9;
	memcpy(entry + 1, &rel, 4);
	v->stats.invalidations++;
}

/* Takes a block that is dropped through one of its pages off the list of the other: page2, or that it begins
 * in. */
static void leave_page(struct vcpu *v, struct block *b, bool second)
{
	const uint8_t *page = second ? b->page2 : b->page;
	struct code_page *cp = page ? *cache_page_slot(v->cache, page) : NULL;
	struct block **p;

	if (!cp)
		return;
	p = second ? &cp->first2 : &cp->first;
	while (*p && *p != b)
		p = second ? &(*p)->page2_next : &(*p)->page_next;
	if (*p)
		*p = second ? b->page2_next : b->page_next;
	if (!cp->first && !cp->first2) {
		cp->granules = 0;
		unwatch(v, page);
	}
}

/* Translations that depend on these granules are dropped. */
static void note_storm(struct vcpu *v, struct code_page *cp, uint64_t mask)
{
	struct bt_cache *c = v->cache;
	uint64_t now = __builtin_ia32_rdtsc();

	if (x86_long_mode(&v->st))
		return;
	if (!cp->storm && c->meta_used + 2 * sizeof *cp->storm <= c->meta_size)
		cp->storm = cache_alloc(c, sizeof *cp->storm);
	for (mask &= cp->granules; cp->storm && mask; mask &= mask - 1) {
		unsigned g = (unsigned)__builtin_ctzll(mask);

		if (now - cp->storm->last[g] > STORM_WINDOW)
			cp->storm->drops[g] = 0;
		cp->storm->last[g] = now;
		if (cp->storm->drops[g] < STORM_DROPS)
			cp->storm->drops[g]++;
	}
}

static void invalidate_page(struct vcpu *v, const uint8_t *page, unsigned off, unsigned len)
{
	struct code_page **slot = cache_page_slot(v->cache, page), *cp = *slot;
	uint64_t mask = cache_granules(off, len);
	struct block **p;
	uint64_t left = 0;

	if (!cp || !(cp->granules & mask))
		return;
	note_storm(v, cp, mask);
	for (p = &cp->first; *p;) {
		struct block *b = *p;

		if (b->granules & mask) {
			*p = b->page_next;
			leave_page(v, b, true);
			kill_block(v, b);
		} else {
			left |= b->granules;
			p = &b->page_next;
		}
	}
	for (p = &cp->first2; *p;) {
		struct block *b = *p;

		if (b->granules2 & mask) {
			*p = b->page2_next;
			leave_page(v, b, false);
			kill_block(v, b);
		} else {
			left |= b->granules2;
			p = &b->page2_next;
		}
	}
	cp->granules = left;
	if (!cp->first && !cp->first2)
		unwatch(v, page);
}

void cache_invalidate(struct vcpu *v, const void *host, uint64_t len)
{
	const uint8_t *p = host;

	while (len) {
		unsigned off = (uint64_t)p & 0xfff;
		unsigned n = (unsigned)min_u64(len, PAGE_SIZE - off);

		invalidate_page(v, p - off, off, n);
		p += n;
		len -= n;
	}
}

void cache_flush(struct vcpu *v)
{
	struct bt_cache *c = v->cache;

	for (unsigned i = 0; i < CACHE_PAGES; i++)
		for (struct code_page *p = c->pages[i]; p; p = p->next)
			unwatch(v, p->host);
	memset(c->hash, 0, CACHE_HASH_SIZE * sizeof *c->hash);
	memset(c->pages, 0, CACHE_PAGES * sizeof *c->pages);
	c->used = c->start;
	c->meta_used = 0;
	c->n_order = 0;
	c->generation++;
	c->global_links = NULL;
	mmu_flush_jc(v);
}

void cache_unlink_global(struct bt_cache *c)
{
	while (c->global_links) {
		struct block_exit *e = c->global_links;

		c->global_links = e->next_global;
		e->next_global = NULL;
		e->in_global = false;
		cache_unlink_exit(c, e);
	}
}
