/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is mapped in a stub, and keeping it in step with the guest's page tables.
 *
 * A region is 2 MiB of guest-virtual space: what one page of level-1 entries, or
 * one large page, maps.  It remembers the three entries above it and, for each
 * page mapped in the stub, the entry that it came from.  The rules are those of a
 * TLB: a mapping may be older than the guest's tables until the guest invalidates
 * it, and may never allow what the entry it came from did not.  So:
 *
 *  - readable: present and user at every level, accessed bit set;
 *  - writable: also writable at every level, dirty bit set, no translated code in
 *    the page (T1's stores to such pages drop that code; a stub's would not);
 *  - executable: NX clear at every level, nothing in it that t2_scan objects to.
 *
 * Memory that a guest gives its programs for the first time mostly lies in order in
 * guest-physical memory, too.  So with a writable page all of the region up to the
 * next page that is mapped is mapped ahead in the same order (stub_map_ahead), which
 * gives the stub nothing.  If the guest does map the next page there, by the rules
 * above, it is let in without a way to the gate.
 *
 * The host limits the number of mappings of a process.  Adjacent pages merge, but
 * guest-physical memory of a guest that has run for a while has no order, so each
 * page is counted as one.  Over the limit everything is unmapped.
 */
#include "engine/bt/t2_internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/util.h"
#include "engine/bt/bt.h"
#include "engine/bt/interp_internal.h"
#include "engine/bt/mmu.h"

/* What an entry says about what is mapped through it. */
#define PTE_MEANING (PTE_P | PTE_W | PTE_U | PTE_PS | PTE_NX | PA_MASK)

#define REGION_SHIFT 21
#define REGION_PAGES 512u
/* Below it the host lets nobody map (vm.mmap_min_addr). */
#define LOWEST_VA 0x10000ull

struct t2_region {
	uint64_t va;
	struct t2_region *next;
	uint64_t up[3];     /* entries of levels 4, 3, 2 that lead here; 0 below a large page */
	const uint64_t *pt; /* the level-1 entries; NULL: a large page */
	uint64_t mapped[REGION_PAGES / 64], writable[REGION_PAGES / 64], executable[REGION_PAGES / 64],
	    unfit[REGION_PAGES / 64];
	uint64_t entry[REGION_PAGES];
	uint32_t ahead[REGION_PAGES];  /* the page of RAM, from 1 on, that the stub has writable and mapped
					  ahead here, let in or not; 0: none */
	uint8_t shunned[REGION_PAGES]; /* so often code wanted to run in an unfit page, modulo 256 */
};

static bool bit_test(const uint64_t *map, uint64_t i)
{
	return map[i / 64] >> (i % 64) & 1;
}
static void bit_set(uint64_t *map, uint64_t i)
{
	map[i / 64] |= 1ull << (i % 64);
}
static void bit_clear(uint64_t *map, uint64_t i)
{
	map[i / 64] &= ~(1ull << (i % 64));
}

/* ---- the guest's tables ---- */

static const uint64_t *table(struct vcpu *v, uint64_t entry)
{
	return mem_ram_ptr(v->mem, GPA(entry & PA_MASK & v->phys_mask), PAGE_SIZE);
}

/* The entries above va's region, and its level-1 table. False: nothing there. */
static bool walk_upper(struct vcpu *v, uint64_t root, uint64_t va, uint64_t up[3], const uint64_t **pt)
{
	uint64_t e = root;

	memset(up, 0, 3 * sizeof(*up));
	*pt = NULL;
	for (int level = 0; level < 3; level++) {
		const uint64_t *t = table(v, e);

		if (!t)
			return false;
		e = up[level] = __atomic_load_n(&t[va >> (39 - 9 * level) & 511], __ATOMIC_RELAXED);
		if (!(e & PTE_P))
			return false;
		if (level && (e & PTE_PS))
			return true;
	}
	*pt = table(v, e);
	return *pt;
}

uint64_t t2_identity(struct vcpu *v, uint64_t root)
{
	const uint64_t *t = table(v, root);

	for (unsigned i = 0; t && i < 256; i++)
		if (t[i] & PTE_P)
			return t[i] & PA_MASK;
	return 0;
}

/* The first present page below `entry` of a table of this level, looking at *tables of them at most; or 0. */
static uint64_t first_page(struct vcpu *v, uint64_t entry, int level, unsigned *tables)
{
	const uint64_t *t = *tables ? table(v, entry) : NULL;
	uint64_t page = 0;

	if (!t)
		return 0;
	--*tables;
	for (unsigned i = 0; i < (level ? 512 : 256) && !page && *tables; i++) {
		uint64_t e = __atomic_load_n(&t[i], __ATOMIC_RELAXED);

		if (e & PTE_P)
			page = level == 3 || (level && (e & PTE_PS)) ? e & PA_MASK
								     : first_page(v, e, level + 1, tables);
	}
	return page;
}

uint64_t t2_first_page(struct vcpu *v, uint64_t root)
{
	unsigned tables = 16;

	return first_page(v, root, 0, &tables);
}

/* ---- regions ---- */

static unsigned hash(const struct t2_map *m, uint64_t va)
{
	return (unsigned)((va >> REGION_SHIFT) * 0x9e3779b97f4a7c15ull >> 40) & (m->hash_size - 1);
}

static struct t2_region *region_find(const struct t2_map *m, uint64_t va)
{
	struct t2_region *r = m->regions[hash(m, va)];

	va &= ~0ull << REGION_SHIFT;
	while (r && r->va != va)
		r = r->next;
	return r;
}

static void forget_all(struct t2_map *m)
{
	for (unsigned i = 0; i < m->hash_size; i++)
		while (m->regions[i]) {
			struct t2_region *r = m->regions[i];

			m->regions[i] = r->next;
			free(r);
		}
	m->mappings = 0;
	m->n_pending = 0;
}

/* Queues; the gate stays. False: the stub is broken. */
static bool unmap(struct t2 *t, struct t2_map *m, uint64_t va, uint64_t len)
{
	uint64_t end = va + len, gate_end = STUB_GATE + STUB_GATE_SIZE;

	if (t->host.n_calls + 2 > STUB_MAX_CALLS && stub_flush(&t->host, &m->stub))
		return false;
	if (end <= STUB_GATE || va >= gate_end)
		return !stub_unmap(&t->host, va, len);
	if (va < STUB_GATE)
		stub_unmap(&t->host, va, STUB_GATE - va);
	if (end > gate_end)
		stub_unmap(&t->host, gate_end, end - gate_end);
	return true;
}

static void page_forget(struct t2_region *r, unsigned i)
{
	bit_clear(r->mapped, i);
	bit_clear(r->writable, i);
	bit_clear(r->executable, i);
	bit_clear(r->unfit, i);
}

/* Does the stub have a mapping where page i of the region is? */
static bool is_used(const struct t2_region *r, unsigned i)
{
	return bit_test(r->mapped, i) || r->ahead[i];
}

/* Likewise page i of the region, and forgets it. */
static bool unmap_page(struct t2 *t, struct t2_map *m, struct t2_region *r, unsigned i)
{
	page_forget(r, i);
	r->ahead[i] = 0;
	/* Two remain where there was one. */
	if (i && i + 1 < REGION_PAGES && is_used(r, i - 1) && is_used(r, i + 1))
		m->mappings++;
	return unmap(t, m, r->va + (uint64_t)i * PAGE_SIZE, PAGE_SIZE);
}

/* Unmaps everything in the stub. */
static bool unmap_all(struct t2 *t, struct t2_map *m)
{
	forget_all(m);
	stub_drop_calls(&t->host);
	return unmap(t, m, 0, STUB_VA_END) && !stub_flush(&t->host, &m->stub);
}

static struct t2_region *region_get(struct vcpu *v, struct t2_space *s, uint64_t va)
{
	struct t2_map *m = s->map;
	struct t2_region *r = region_find(m, va);
	unsigned h = hash(m, va);

	if (r)
		return r;
	r = calloc(1, sizeof(*r));
	if (!r || !walk_upper(v, s->root, va, r->up, &r->pt)) {
		free(r);
		return NULL;
	}
	r->va = va & ~0ull << REGION_SHIFT;
	r->next = m->regions[h];
	m->regions[h] = r;
	return r;
}

struct t2_map *t2_map_new(struct vcpu *v)
{
	struct t2_map *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->hash_size = 1024;
	m->regions = calloc(m->hash_size, sizeof(struct t2_region *));
	if (!m->regions || stub_new(&v->t2->host, &m->stub)) {
		free(m->regions);
		free(m);
		return NULL;
	}
	v->t2->n_maps++;
	return m;
}

void t2_map_free(struct vcpu *v, struct t2_space *s)
{
	struct t2_map *m = s->map;

	if (!m)
		return;
	if (v->t2->image_of == &m->stub)
		v->t2->image_of = NULL;
	stub_kill(&m->stub);
	forget_all(m);
	free(m->regions);
	free(m);
	s->map = NULL;
	v->t2->n_maps--;
}

/* ---- invalidation ---- */

/* Does what page i of the region was mapped from still stand? */
static bool entry_stands(const struct t2_region *r, unsigned i, uint64_t now)
{
	return !((now ^ r->entry[i]) & PTE_MEANING) && (!bit_test(r->writable, i) || (now & PTE_D));
}

static unsigned population(const uint64_t *map)
{
	unsigned n = 0;

	for (unsigned i = 0; i < REGION_PAGES / 64; i++)
		n += (unsigned)__builtin_popcountll(map[i]);
	return n;
}

/* Removes what does not stand any more. False: the stub is broken. *gone: nothing of the region is left. */
static bool region_check(struct vcpu *v, struct t2_space *s, struct t2_region *r, bool *gone)
{
	struct t2 *t = v->t2;
	uint64_t up[3];
	const uint64_t *pt;
	bool same;

	*gone = false;
	same = walk_upper(v, s->root, r->va, up, &pt) && pt == r->pt;
	for (int i = 0; i < 3 && same; i++)
		same = !((up[i] ^ r->up[i]) & PTE_MEANING);
	/* A large page's dirty bit is in the last entry. */
	if (same && !r->pt && population(r->writable) && !((up[2] ? up[2] : up[1]) & PTE_D))
		same = false;
	s->map->pages += population(r->mapped);
	if (!same) {
		*gone = true;
		s->map->lost += population(r->mapped);
		return unmap(t, s->map, r->va, 1ull << REGION_SHIFT);
	}
	memcpy(r->up, up, sizeof(up));
	if (!r->pt || !memcmp(r->pt, r->entry, sizeof(r->entry)))
		return true;
	for (unsigned i = 0; i < REGION_PAGES; i++) {
		uint64_t now = __atomic_load_n(&r->pt[i], __ATOMIC_RELAXED);

		if (now == r->entry[i])
			continue;
		if (bit_test(r->mapped, i) && !entry_stands(r, i, now)) {
			s->map->lost++;
			if (!unmap_page(t, s->map, r, i))
				return false;
		}
		r->entry[i] = now;
	}
	return true;
}

static bool check_all(struct vcpu *v, struct t2_space *s)
{
	struct t2_map *m = s->map;

	for (unsigned h = 0; h < m->hash_size; h++)
		for (struct t2_region **p = &m->regions[h], *r; (r = *p);) {
			bool gone;

			if (!region_check(v, s, r, &gone))
				return false;
			if (gone) {
				*p = r->next;
				free(r);
			} else {
				p = &r->next;
			}
		}
	return true;
}

bool t2_map_sync(struct vcpu *v, struct t2_space *s)
{
	struct t2 *t = v->t2;
	struct t2_map *m = s->map;

	if (m->n_pending > T2_MAX_PENDING) {
		if (!unmap_all(t, m))
			return false;
	}
	for (unsigned i = 0; i < m->n_pending; i++)
		if (!unmap(t, m, m->pending[i], PAGE_SIZE))
			return false;
	m->n_pending = 0;
	m->pages = m->lost = 0;
	if (s->stale) {
		s->stale = false;
		if (!check_all(v, s))
			return false;
	} else {
		for (unsigned i = 0; i < s->n_invals; i++) {
			struct t2_region *r = region_find(m, s->invals[i]);
			bool gone;

			if (r && !region_check(v, s, r, &gone))
				return false;
			if (r && gone) {
				/* A whole table went: look at all, which also takes the region off the list.
				 */
				s->stale = true;
				return t2_map_sync(v, s);
			}
		}
	}
	s->n_invals = 0;
	return !stub_flush(&t->host, &m->stub);
}

/* Everything is to be unmapped before the stub runs again. */
static void drop_all(struct t2_map *m)
{
	m->n_pending = T2_MAX_PENDING + 1;
}

static void protect_in(struct t2_map *m, uint64_t gpa)
{
	for (unsigned h = 0; h < m->hash_size; h++)
		for (struct t2_region *r = m->regions[h]; r; r = r->next)
			for (unsigned w = 0; w < REGION_PAGES / 64; w++)
				for (uint64_t bits = r->writable[w]; bits; bits &= bits - 1) {
					unsigned i = w * 64 + (unsigned)__builtin_ctzll(bits);

					if ((r->entry[i] & PA_MASK) != gpa)
						continue;
					page_forget(r, i);
					r->ahead[i] = 0;
					if (m->n_pending <= T2_MAX_PENDING) {
						if (m->n_pending < T2_MAX_PENDING)
							m->pending[m->n_pending] =
							    r->va + (uint64_t)i * PAGE_SIZE;
						m->n_pending++;
					}
				}
}

void t2_protect_page(struct vcpu *v, const void *host)
{
	struct t2 *t = v->t2;
	uint64_t page = mem_page_number(v->mem, host);

	if (!t || !t->started || !bit_test(t->written, page))
		return;
	for (int i = 0; i < T2_SETS * T2_WAYS; i++)
		if (t->spaces[i].map)
			protect_in(t->spaces[i].map, mem_ptr_to_gpa(v->mem, host).v);
	bit_clear(t->written, page);
}

void t2_protect_all(struct vcpu *v)
{
	struct t2 *t = v->t2;

	for (int i = 0; t && i < T2_SETS * T2_WAYS; i++)
		if (t->spaces[i].map)
			drop_all(t->spaces[i].map);
}

/* ---- mapping ---- */

struct run {
	uint64_t va, offset, len;
	int prot;
	bool splits; /* lies in what was mapped ahead */
};

/* Queues the run, and maps so many pages behind it ahead. False: the stub is broken. */
static bool run_flush(struct t2 *t, struct t2_map *m, struct run *run, unsigned ahead)
{
	uint64_t len = run->len + (uint64_t)ahead * PAGE_SIZE;

	if (!run->len)
		return true;
	if (t->host.n_calls == STUB_MAX_CALLS && stub_flush(&t->host, &m->stub))
		return false;
	if (ahead)
		stub_map_ahead(&t->host, run->va, len, run->len, run->prot, run->offset);
	else
		stub_map(&t->host, run->va, len, run->prot, run->offset);
	m->mappings += run->splits ? 2 : 1;
	run->len = 0;
	return true;
}

/* ---- breakpoints on what must not run in a stub ---- */

static bool is_found(const struct t2_found *f, uint64_t off)
{
	bool found = false;

	for (unsigned i = 0; i < f->n; i++)
		found |= f->at[i] == off;
	return found;
}

/* Frees the breakpoints that are not wanted any more: of pages that are not executable, and in the one at va
 * of what is not among f. */
static void reclaim_breaks(struct t2_map *m, uint64_t va, const struct t2_found *f)
{
	for (unsigned i = 0; i < STUB_BREAKPOINTS; i++) {
		uint64_t at = m->breaks.va[i];
		struct t2_region *r = at ? region_find(m, at) : NULL;
		bool here = (at & PAGE_MASK) == va;

		if (here ? !is_found(f, at - va)
			 : !r || !bit_test(r->executable, at >> 12 & (REGION_PAGES - 1)))
			m->breaks.va[i] = m->breaks.spare[i] = 0;
	}
}

/* Where in the breakpoints is this one, or 0 for an unused one? STUB_BREAKPOINTS: nowhere. */
static unsigned find_break(const struct t2_breaks *b, uint64_t va)
{
	unsigned i = 0;

	while (i < STUB_BREAKPOINTS && b->va[i] != va)
		i++;
	return i;
}

static unsigned spare_break(const struct t2_breaks *b)
{
	unsigned i = 0;

	while (i < STUB_BREAKPOINTS && !b->spare[i])
		i++;
	return i;
}

/*
 * The breakpoint that was given first, outside the window of pages at va, whose mapping may be under way: its
 * page is not executable any more. STUB_BREAKPOINTS: there is none.
 */
static unsigned take_break(struct t2 *t, struct t2_map *m, struct t2_breaks *b, uint64_t va)
{
	unsigned k = STUB_BREAKPOINTS, page;
	struct t2_region *r;

	for (unsigned i = 0; i < STUB_BREAKPOINTS; i++)
		if ((b->va[i] ^ va) >= t->window * PAGE_SIZE &&
		    (k == STUB_BREAKPOINTS || b->given[i] < b->given[k]))
			k = i;
	r = k < STUB_BREAKPOINTS ? region_find(m, b->va[k]) : NULL;
	if (!r)
		return k;
	page = b->va[k] >> 12 & (REGION_PAGES - 1);
	return unmap_page(t, m, r, page) ? k : STUB_BREAKPOINTS;
}

/*
 * May the page at va be executable although these must not run in it?  Yes if they have breakpoints, or if it
 * is the one that these are wanted for and there are enough.  Spare ones get what is left, and lose it to
 * those that are required.
 */
static bool guarded(struct t2 *t, struct t2_map *m, uint64_t va, const struct t2_found *f)
{
	struct t2_breaks new;
	bool changed = false;

	if (f->unfit)
		return false;
	for (unsigned i = 0; i < f->required; i++)
		if (find_break(&m->breaks, va + f->at[i]) == STUB_BREAKPOINTS && m->guard != va)
			return false;
	reclaim_breaks(m, va, f);
	new = m->breaks;
	for (unsigned i = 0; i < f->n; i++) {
		unsigned k;

		if (find_break(&new, va + f->at[i]) < STUB_BREAKPOINTS)
			continue;
		k = find_break(&new, 0);
		if (k == STUB_BREAKPOINTS && i < f->required)
			k = spare_break(&new);
		if (k == STUB_BREAKPOINTS && i < f->required && m->take)
			k = take_break(t, m, &new, va);
		if (k == STUB_BREAKPOINTS && i < f->required)
			return false;
		if (k == STUB_BREAKPOINTS)
			break;
		new.va[k] = va + f->at[i];
		new.spare[k] = i >= f->required;
		new.given[k] = ++new.n_given;
		changed = true;
	}
	if (changed && stub_break(&m->stub, new.va)) {
		stub_break(&m->stub, m->breaks.va);
		return !f->required;
	}
	m->breaks = new;
	return true;
}

/* The page before va as user code would see it, or NULL. */
static const uint8_t *code_before(struct vcpu *v, uint64_t va)
{
	struct walk w;

	if (mmu_walk(v, va - PAGE_SIZE, ACC_USER | ACC_R | ACC_PROBE, &w)) {
		v->exc.present = false;
		return NULL;
	}
	return mem_ram_ptr(v->mem, GPA(w.pa & PAGE_MASK), PAGE_SIZE);
}

/* Maps page i of the region from RAM at gpa under the permissions of `entry` (all levels together). */
static bool map_page(struct vcpu *v, struct t2_map *m, struct t2_region *r, unsigned i, uint64_t gpa,
		     uint64_t entry, struct run *run)
{
	struct t2 *t = v->t2;
	uint8_t *host = mem_ram_ptr(v->mem, GPA(gpa), PAGE_SIZE);
	uint64_t va = r->va + (uint64_t)i * PAGE_SIZE, offset;
	int prot = PROT_READ;
	bool splits;

	if (!host || va < LOWEST_VA || va >= STUB_VA_END ||
	    (va >= STUB_GATE && va < STUB_GATE + STUB_GATE_SIZE))
		return true;
	offset = (uint64_t)(host - (uint8_t *)mem_ram_base(v->mem));
	t->globals |= !!(entry & PTE_G);
	page_forget(r, i);
	if (!(entry & PTE_NX)) {
		struct t2_found found = t2_scan(v, host, code_before(v, va), m->needs_cpuid);

		if ((found.n || found.unfit) && !guarded(t, m, va, &found))
			bit_set(r->unfit, i);
		else
			prot |= PROT_EXEC;
	}
	if ((entry & PTE_W) && (entry & PTE_D)) {
		bt_enter_writer(v, host);
		if (!(__atomic_load_n(mem_page_flags(v->mem, host), __ATOMIC_SEQ_CST) & MEM_PAGE_CODE)) {
			prot |= PROT_WRITE;
			bit_set(t->written, offset / PAGE_SIZE);
			bit_set(r->writable, i);
		}
	}
	bit_set(r->mapped, i);
	if (prot & PROT_EXEC)
		bit_set(r->executable, i);
	if (prot == (PROT_READ | PROT_WRITE) && r->ahead[i] == offset / PAGE_SIZE + 1 &&
	    stub_let_in(&m->stub, va, PAGE_SIZE) >= 0) {
		v->stats.t2_let_in++;
		return true;
	}
	splits = r->ahead[i];
	r->ahead[i] = 0;
	if (run->len && run->va + run->len == va && run->offset + run->len == offset && run->prot == prot) {
		run->len += PAGE_SIZE;
		return true;
	}
	if (!run_flush(t, m, run, 0))
		return false;
	*run = (struct run){ va, offset, PAGE_SIZE, prot, splits };
	return true;
}

/* The permissions of an entry under those above it, in the entry's own bits. */
static uint64_t combined(const struct vcpu *v, const struct t2_region *r, uint64_t entry)
{
	bool nxe = v->st.efer & EFER_NXE;

	for (int k = 0; k < 3 && r->up[k]; k++) {
		entry &= r->up[k] | ~(PTE_W | PTE_U);
		entry |= r->up[k] & PTE_NX;
	}
	return nxe ? entry : entry & ~PTE_NX;
}

/* Maps n pages of a large page's region from `first` on. */
static bool map_large(struct vcpu *v, struct t2_map *m, struct t2_region *r, unsigned first, unsigned n)
{
	uint64_t leaf = r->up[2] ? r->up[2] : r->up[1];
	uint64_t size = r->up[2] ? 1ull << 21 : 1ull << 30,
		 base = (leaf & PA_MASK & ~(size - 1)) | (r->va & (size - 1));
	struct run run = { 0 };

	/* The walk before has set its accessed and dirty bits. */
	leaf = combined(v, r, leaf);
	for (unsigned i = first; i < first + n; i++) {
		r->entry[i] = base + (uint64_t)i * PAGE_SIZE;
		if (!map_page(v, m, r, i, r->entry[i], leaf, &run))
			return false;
	}
	return run_flush(v->t2, m, &run, 0);
}

/* How many pages behind the run to map ahead: 0, or all of the region up to the next page that is mapped. */
static unsigned pages_ahead(const struct vcpu *v, const struct t2_map *m, const struct t2_region *r,
			    const struct run *run)
{
	uint64_t end = run->va + run->len, most = mem_nr_pages(v->mem) - (run->offset + run->len) / PAGE_SIZE;
	unsigned i = end >> 12 & (REGION_PAGES - 1), n = 0;

	if (m->stub.uffd < 0 || !run->len || run->prot != (PROT_READ | PROT_WRITE))
		return 0;
	/* The regions of the gate, and of the last page of user space, which is nobody's. */
	if ((r->va ^ STUB_GATE) >> REGION_SHIFT == 0 || (r->va ^ STUB_VA_END) >> REGION_SHIFT == 0)
		return 0;
	while (i && i + n < REGION_PAGES && n < most && !bit_test(r->mapped, i + n))
		n++;
	return n;
}

/* As run_flush, of the last run of a window. */
static bool run_flush_last(struct vcpu *v, struct t2_map *m, struct t2_region *r, struct run *run)
{
	unsigned ahead = pages_ahead(v, m, r, run), first = run->va >> 12 & (REGION_PAGES - 1);
	unsigned n = ahead ? (unsigned)(run->len / PAGE_SIZE) + ahead : 0;

	for (unsigned i = 0; i < n; i++)
		r->ahead[first + i] = (uint32_t)(run->offset / PAGE_SIZE) + i + 1;
	return run_flush(v->t2, m, run, ahead);
}

/* Page i is one that was mapped ahead and let in: has the host taken it away? Then so it has others. */
static bool let_in_again(struct t2_map *m, const struct t2_region *r, unsigned i)
{
	if (!r->ahead[i] || stub_let_in(&m->stub, r->va + (uint64_t)i * PAGE_SIZE, PAGE_SIZE) <= 0)
		return false;
	for (i = 0; i < REGION_PAGES; i++)
		if (bit_test(r->mapped, i) && r->ahead[i])
			stub_let_in(&m->stub, r->va + (uint64_t)i * PAGE_SIZE, PAGE_SIZE);
	return true;
}

static bool map_window(struct vcpu *v, struct t2_map *m, struct t2_region *r, unsigned at)
{
	struct run run = { 0 };
	unsigned window = v->t2->window, first = at & ~(window - 1);

	for (unsigned i = first; i < first + window; i++) {
		uint64_t e = __atomic_load_n(&r->pt[i], __ATOMIC_RELAXED), all = combined(v, r, e);

		if (i != at && (bit_test(r->mapped, i) || !(e & PTE_A)))
			continue;
		if (!(e & PTE_P) || !(all & PTE_U))
			continue;
		r->entry[i] = e;
		if (!map_page(v, m, r, i, e & PA_MASK & v->phys_mask, all, &run))
			return false;
	}
	/* The caller has forgotten the page; if it is not there any more, the stub may still have it. */
	if (!bit_test(r->mapped, at) && !unmap_page(v->t2, m, r, at))
		return false;
	return run_flush_last(v, m, r, &run);
}

enum t2_fault t2_map_retry(struct vcpu *v, struct t2_space *s)
{
	uint64_t va = s->map->retry_va;
	struct t2_region *r = region_find(s->map, va);

	s->map->retry_va = 0;
	if (r && bit_test(r->mapped, va >> 12 & (REGION_PAGES - 1)))
		return T2_MAPPED;
	return t2_map_fault(v, s, va, v->st.rip);
}

/* Each time that code has wanted to run in an unfit page so often, the page is looked at again, and may have
 * breakpoints. */
#define SHUNNED_STOPS 4
/* And so often, it takes them from others. */
#define TAKE_STOPS 64

bool t2_map_unfit_due(struct vcpu *v, struct t2_map *m, uint64_t rip)
{
	struct t2_region *r = region_find(m, rip);

	if (t2_cpuid_helps(v, m)) {
		/* All pages are to be looked at anew, and breakpoints at CPUIDs not to be kept. */
		drop_all(m);
		m->breaks = (struct t2_breaks){ 0 };
		stub_break(&m->stub, m->breaks.va);
		return false;
	}
	return r && ++r->shunned[rip >> 12 & (REGION_PAGES - 1)] % SHUNNED_STOPS == 0;
}

enum t2_fault t2_map_unfit_again(struct vcpu *v, struct t2_space *s, uint64_t rip)
{
	struct t2_region *r = region_find(s->map, rip);
	unsigned i = rip >> 12 & (REGION_PAGES - 1);
	bool ok;

	if (!r)
		return T2_NOT_HERE;
	/* What was not all there when the page was mapped, as where a program compiles as it runs, may be
	 * now. And breakpoints may have become free. */
	s->map->guard = rip & PAGE_MASK;
	s->map->take = r->shunned[i] % TAKE_STOPS == 0;
	page_forget(r, i);
	ok = r->pt ? map_window(v, s->map, r, i) : map_large(v, s->map, r, i, 1);
	ok = ok && !stub_flush(&v->t2->host, &s->map->stub);
	s->map->guard = 0;
	s->map->take = false;
	if (!ok)
		return T2_BROKEN;
	return bit_test(r->executable, i) ? T2_MAPPED : T2_NOT_HERE;
}

bool t2_map_unfit(const struct t2_map *m, uint64_t rip)
{
	struct t2_region *r = region_find(m, rip);

	return r && bit_test(r->unfit, rip >> 12 & (REGION_PAGES - 1));
}

/* Did the processor want to fetch code at va? */
static bool is_fetch(uint64_t va, uint64_t rip)
{
	return va - (rip & PAGE_MASK) < PAGE_SIZE || va == ((rip + 14) & PAGE_MASK);
}

enum t2_fault t2_map_fault(struct vcpu *v, struct t2_space *s, uint64_t va, uint64_t rip)
{
	struct t2 *t = v->t2;
	struct t2_map *m = s->map;
	struct t2_region *r = region_find(m, va);
	unsigned i = va >> 12 & (REGION_PAGES - 1), acc = ACC_USER | ACC_R;
	struct walk w;
	void *host;
	bool ok;

	if (va >= STUB_VA_END)
		return T2_GUESTS;
	if (r && bit_test(r->mapped, i)) {
		if (let_in_again(m, r, i))
			return T2_MAPPED;
		if (is_fetch(va, rip) && !bit_test(r->executable, i)) {
			if (bit_test(r->unfit, i))
				return T2_NOT_HERE;
			acc |= ACC_X;
		} else if (bit_test(r->writable, i)) {
			return T2_GUESTS;
		} else {
			acc |= ACC_W;
		}
	}
	if (mmu_walk(v, va, acc, &w)) {
		v->exc.present = false;
		return T2_GUESTS;
	}
	host = mem_ram_ptr(v->mem, GPA(w.pa & PAGE_MASK), PAGE_SIZE);
	if (!host)
		return T2_DEVICE;
	if ((acc & ACC_W) &&
	    (__atomic_load_n(mem_page_flags(v->mem, host), __ATOMIC_SEQ_CST) & MEM_PAGE_CODE)) {
		/* The page is data now: forget what was translated from it, or each store would come here. */
		bt_code_written(v, host, PAGE_SIZE);
	}
	/* The tables may have changed since the region was made, in ways that need no invalidation. */
	if (r) {
		bool gone;

		if (!region_check(v, s, r, &gone))
			return T2_BROKEN;
		if (gone) {
			s->stale = true;
			if (!t2_map_sync(v, s))
				return T2_BROKEN;
			r = NULL;
		} else {
			page_forget(r, i);
		}
	}
	if (m->mappings + 2 * t->window > t->max_mappings && !unmap_all(t, m))
		return T2_BROKEN;
	r = region_get(v, s, va);
	if (!r)
		return T2_GUESTS;
	ok = r->pt ? map_window(v, m, r, i) : map_large(v, m, r, 0, REGION_PAGES);
	if (!ok || stub_flush(&t->host, &m->stub))
		return T2_BROKEN;
	/* Still not what was asked for: T1 does the instruction, whatever the reason. */
	if (!bit_test((acc & ACC_W) ? r->writable : r->mapped, i))
		return T2_GUESTS;
	return T2_MAPPED;
}
