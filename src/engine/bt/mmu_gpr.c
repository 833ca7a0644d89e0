/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page walk and the soft TLB.
 *
 * A walk reads the guest's tables where they are and sets accessed and dirty
 * bits with a compare-and-swap, so a guest that edits an entry on another vCPU
 * never loses its edit.  What a TLB entry may promise:
 *
 *  1. tag_r: the page is readable in this table's mode and its A bit is set.
 *  2. tag_w: writable in this mode, D set, no translated code in the page
 *     (MEM_PAGE_CODE clear), no watchpoint on it.
 *  3. An itlb entry: executable in this mode.
 *  4. Only memory has entries; MMIO, and writing to ROM, always take the slow path.
 *  5. Debug breakpoints on data keep their pages out of the table.
 *
 * Every fault is raised from a fresh walk: guests upgrade permissions without
 * flushing (SDM 3A 4.10.4.3), so a stale refusal must never reach them.
 *
 * Global pages are kept per PCID slot like the rest, but for supervisor mode with
 * SMAP, whose one table all PCIDs share (struct asid); INVLPG removes an address from
 * every slot, which is more than the manual demands and so allowed.
 */
#include "engine/bt/bt.h"
#include "engine/bt/mmu.h"
#include "engine/bt/t2.h"

#include "base/util.h"

#define FOLLOWING 7 /* enter_following: pages */

static int page_fault(struct vcpu *v, uint64_t va, unsigned acc, uint32_t bits)
{
	uint32_t err = bits;

	if (acc & ACC_W)
		err |= PF_W;
	if (acc & ACC_USER)
		err |= PF_U;
	if ((acc & ACC_X) && ((v->st.cr4 & CR4_SMEP) || ((v->st.cr4 & CR4_PAE) && (v->st.efer & EFER_NXE))))
		err |= PF_I;
	v->exc = (struct exception){
		.vector = EXC_PF, .has_error = true, .error = err, .cr2 = va, .present = true
	};
	return -1;
}

static uint64_t *pte_ptr64(struct vcpu *v, uint64_t pa)
{
	bool readonly;

	return mem_cpu_ptr(v->mem, GPA(pa), 8, &readonly);
}

/* Firmware may have tables in ROM, where the bits cannot be set: the walk goes on without. */
static bool in_rom(struct vcpu *v, const void *p)
{
	return mem_in_block(v->mem, p);
}

/* Sets bits in a table entry unless it changed meanwhile; false: walk again. */
static bool pte_set64(struct vcpu *v, uint64_t *p, uint64_t old, uint64_t bits)
{
	if ((old & bits) == bits || in_rom(v, p))
		return true;
	return __atomic_compare_exchange_n(p, &old, old | bits, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static bool pte_set32(struct vcpu *v, uint32_t *p, uint32_t old, uint32_t bits)
{
	if ((old & bits) == bits || in_rom(v, p))
		return true;
	return __atomic_compare_exchange_n(p, &old, old | bits, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* The permission check at the leaf (SDM 3A 4.6). */
static bool allowed(struct vcpu *v, unsigned acc, const struct walk *w)
{
	const struct x86_state *s = &v->st;

	if (acc & ACC_USER) {
		if (!w->user)
			return false;
		if ((acc & ACC_W) && !w->writable)
			return false;
	} else {
		if ((acc & ACC_X) && w->user && (s->cr4 & CR4_SMEP))
			return false;
		if (!(acc & ACC_X) && w->user && (s->cr4 & CR4_SMAP) &&
		    ((acc & ACC_IMPLICIT) || !(s->rflags & FLAG_AC)))
			return false;
		if ((acc & ACC_W) && !w->writable && (s->cr0 & CR0_WP))
			return false;
	}
	return !((acc & ACC_X) && w->nx);
}

static int walk64(struct vcpu *v, uint64_t va, unsigned acc, struct walk *w)
{
	struct x86_state *s = &v->st;
	bool nxe = s->efer & EFER_NXE;
	uint64_t rsvd = PA_MASK & ~v->phys_mask;
	uint64_t *ptr[4];
	uint64_t val[4];
	int level, n;
	uint64_t table;
	bool lm = s->efer & EFER_LMA;

	if (!nxe)
		rsvd |= PTE_NX;
retry:
	w->writable = w->user = true;
	w->nx = false;
	n = 0;
	if (lm) {
		level = 3;
		table = s->cr3 & v->phys_mask & PA_MASK;
	} else {
		uint64_t e = v->pdpte[(va >> 30) & 3];

		if (!(e & PTE_P))
			return page_fault(v, va, acc, 0);
		level = 1;
		table = e & v->phys_mask & PA_MASK;
	}
	for (;; level--) {
		uint64_t e;

		ptr[n] = pte_ptr64(v, table + ((va >> (12 + 9 * level)) & 511) * 8);
		if (!ptr[n])
			return page_fault(v, va, acc, PF_P | PF_RSVD);
		e = val[n] = __atomic_load_n(ptr[n], __ATOMIC_RELAXED);
		n++;
		if (!(e & PTE_P))
			return page_fault(v, va, acc, 0);
		if (e & (lm ? rsvd : rsvd | (PA_MASK & ~v->phys_mask) | 0x7ff0000000000000ull))
			return page_fault(v, va, acc, PF_P | PF_RSVD);
		if (level == 3 && (e & PTE_PS))
			return page_fault(v, va, acc, PF_P | PF_RSVD);
		w->writable &= !!(e & PTE_W);
		w->user &= !!(e & PTE_U);
		w->nx |= nxe && (e & PTE_NX);
		if (level == 0 || (level < 3 && (e & PTE_PS)))
			break;
		table = e & PA_MASK;
	}
	w->page_size = PAGE_SIZE << (9 * level);
	if (level > 0 && (val[n - 1] & (w->page_size - 1) & PA_MASK & ~0x1000ull))
		return page_fault(v, va, acc, PF_P | PF_RSVD);
	w->global = (val[n - 1] & PTE_G) && (s->cr4 & CR4_PGE);
	if (!allowed(v, acc, w))
		return page_fault(v, va, acc, PF_P);
	if (!(acc & ACC_PROBE)) {
		for (int i = 0; i < n; i++) {
			uint64_t bits = PTE_A;

			if (i == n - 1 && (acc & ACC_W))
				bits |= PTE_D;
			if (!pte_set64(v, ptr[i], val[i], bits))
				goto retry;
		}
	}
	w->dirty = (acc & ACC_W) || (val[n - 1] & PTE_D);
	w->pa = (val[n - 1] & PA_MASK & ~(w->page_size - 1)) | (va & (w->page_size - 1));
	return 0;
}

static int walk32(struct vcpu *v, uint64_t va, unsigned acc, struct walk *w)
{
	struct x86_state *s = &v->st;
	uint32_t *pde, *pte = NULL, d, t = 0;
	bool readonly;

retry:
	pde = mem_cpu_ptr(v->mem, GPA((s->cr3 & 0xfffff000u) + ((va >> 22) & 1023) * 4), 4, &readonly);
	if (!pde)
		return page_fault(v, va, acc, PF_P | PF_RSVD);
	d = __atomic_load_n(pde, __ATOMIC_RELAXED);
	if (!(d & PTE_P))
		return page_fault(v, va, acc, 0);
	w->nx = false;
	if ((d & PTE_PS) && (s->cr4 & CR4_PSE)) {
		uint64_t base = (d & 0xffc00000u) | ((uint64_t)(d & 0x1fe000u) << 19);

		if (d & 0x200000u)
			return page_fault(v, va, acc, PF_P | PF_RSVD);
		w->page_size = 4u << 20;
		w->writable = d & PTE_W;
		w->user = d & PTE_U;
		w->global = (d & PTE_G) && (s->cr4 & CR4_PGE);
		if (!allowed(v, acc, w))
			return page_fault(v, va, acc, PF_P);
		if (!(acc & ACC_PROBE) && !pte_set32(v, pde, d, PTE_A | ((acc & ACC_W) ? PTE_D : 0)))
			goto retry;
		w->dirty = (acc & ACC_W) || (d & PTE_D);
		w->pa = base | (va & 0x3fffff);
		return 0;
	}
	pte = mem_cpu_ptr(v->mem, GPA((d & 0xfffff000u) + ((va >> 12) & 1023) * 4), 4, &readonly);
	if (!pte)
		return page_fault(v, va, acc, PF_P | PF_RSVD);
	t = __atomic_load_n(pte, __ATOMIC_RELAXED);
	if (!(t & PTE_P))
		return page_fault(v, va, acc, 0);
	w->page_size = PAGE_SIZE;
	w->writable = d & t & PTE_W;
	w->user = d & t & PTE_U;
	w->global = (t & PTE_G) && (s->cr4 & CR4_PGE);
	if (!allowed(v, acc, w))
		return page_fault(v, va, acc, PF_P);
	if (!(acc & ACC_PROBE)) {
		if (!pte_set32(v, pde, d, PTE_A))
			goto retry;
		if (!pte_set32(v, pte, t, PTE_A | ((acc & ACC_W) ? PTE_D : 0)))
			goto retry;
	}
	w->dirty = (acc & ACC_W) || (t & PTE_D);
	w->pa = (t & 0xfffff000u) | (va & 0xfff);
	return 0;
}

int mmu_walk(struct vcpu *v, uint64_t va, unsigned acc, struct walk *w)
{
	if (!(v->st.cr0 & CR0_PG)) {
		*w = (struct walk){ .pa = va & 0xffffffffu,
				    .page_size = PAGE_SIZE,
				    .writable = true,
				    .user = true,
				    .dirty = true };
		return 0;
	}
	if (v->st.cr4 & CR4_PAE)
		return walk64(v, va, acc, w);
	return walk32(v, va & 0xffffffffu, acc, w);
}

int mmu_load_pdptes(struct vcpu *v, uint64_t cr3)
{
	uint64_t e[4];

	for (int i = 0; i < 4; i++) {
		uint64_t *p = pte_ptr64(v, (cr3 & 0xffffffe0u) + 8 * i);

		e[i] = p ? __atomic_load_n(p, __ATOMIC_RELAXED) : 0;
		if ((e[i] & PTE_P) && (e[i] & (0x1e6ull | ~(v->phys_mask | 0xfff))))
			return -1;
	}
	for (int i = 0; i < 4; i++)
		v->pdpte[i] = e[i];
	return 0;
}

unsigned mmu_acc(const struct vcpu *v)
{
	return x86_cpl(&v->st) == 3 ? ACC_USER : 0;
}

static enum tlb_mode mode_of(const struct vcpu *v, unsigned acc)
{
	if (acc & ACC_USER)
		return TLB_U;
	if ((v->st.cr4 & CR4_SMAP) && ((acc & ACC_IMPLICIT) || !(v->st.rflags & FLAG_AC)))
		return TLB_K;
	return TLB_KAC;
}

/* Where translations for a mode, code of a privilege level, are cached. */
static struct asid *tlb_holder(const struct vcpu *v, enum tlb_mode m)
{
	return m == TLB_K ? &v->asids[ASID_SHARED] : v->asid;
}

static struct asid *code_holder(const struct vcpu *v, bool user)
{
	return user ? v->asid : &v->asids[ASID_SHARED];
}

static struct itlb_entry *itlb_entry(const struct vcpu *v, bool user, uint64_t va)
{
	return &code_holder(v, user)->itlb[user][(va >> 12) & (ITLB_SIZE - 1)];
}

static unsigned tlb_index(uint64_t va)
{
	return (va >> 12) & (TLB_SIZE - 1);
}

static void large_note(struct vcpu *v, uint64_t va)
{
	unsigned h = (unsigned)((va >> 21) ^ (va >> 33)) & 4095;

	v->large_filter[h >> 6] |= 1ull << (h & 63);
}

static bool large_maybe(const struct vcpu *v, uint64_t va)
{
	unsigned h = (unsigned)((va >> 21) ^ (va >> 33)) & 4095;

	return v->large_filter[h >> 6] >> (h & 63) & 1;
}

/* The hash sets of pages in struct asid. */
static unsigned page_bit(uint64_t page)
{
	return (unsigned)(page >> 12 ^ page >> (12 + PAGE_FILTER_BITS)) & ((1u << PAGE_FILTER_BITS) - 1);
}

static void note_page(uint64_t *set, uint64_t page)
{
	unsigned h = page_bit(page);

	set[h >> 6] |= 1ull << (h & 63);
}

static bool page_maybe(const uint64_t *set, uint64_t page)
{
	unsigned h = page_bit(page);

	return set[h >> 6] >> (h & 63) & 1;
}

static void note_exec(struct asid *a, uint64_t va)
{
	note_page(a->exec_pages, va);
	if ((va & 0xfff) > PAGE_SIZE - 15)
		note_exec(a, (va | 0xfff) + 1);
}

/* Supervisor code at va, whose translation was just looked up: is it in a global page? */
static bool exec_global(const struct vcpu *v, uint64_t va)
{
	const struct itlb_entry *x = itlb_entry(v, false, va);

	return x->global && x->tag == (va & PAGE_MASK);
}

void mmu_jc_enter(struct vcpu *v, bool user, uint64_t pc, uint64_t va, void *code, bool crosses)
{
	struct asid *a = code_holder(v, user);
	unsigned i = jc_index(pc);
	struct jc_entry *j = &a->jc[user][i];

	/* The one that it drives out goes to its second place, if this is its first. */
	if (j->code && j->va != pc && jc_index(j->va) == i) {
		a->jc[user][i ^ 1] = *j;
		touch(&a->jc_touched[user], i ^ 1);
		if (!user && a->local_jc.n)
			touch(&a->local_jc, i ^ 1);
	}
	*j = (struct jc_entry){ pc, code };
	touch(&a->jc_touched[user], i);
	note_exec(a, va);
	if (!user && !(exec_global(v, va) && (!crosses || exec_global(v, (va | 0xfff) + 1))))
		touch(&a->local_jc, i);
}

/* True if a data breakpoint may lie in the page: such pages stay out of the TLB. */
static bool watched(const struct vcpu *v, uint64_t va)
{
	if (!v->dr_watch)
		return false;
	for (int i = 0; i < 4; i++) {
		if (!(v->st.dr7 >> (2 * i) & 3) || !(v->st.dr7 >> (16 + 4 * i) & 3))
			continue;
		if (((v->st.dr[i] ^ va) & PAGE_MASK) == 0 || (((v->st.dr[i] + 7) ^ va) & PAGE_MASK) == 0)
			return true;
	}
	return false;
}

/*
 * Two pages whose numbers end alike have one place.  Kernels have such pairs, the same
 * memory in their image and in their map of all memory, and would walk the page tables
 * at each use of one after the other.  So what is displaced stays near, and is exchanged
 * when it is wanted.  Any invalidation of a table forgets its victims.
 */
static struct tlb_entry *victim_place(struct asid *a, enum tlb_mode m, uint64_t page)
{
	return &a->victim[m][(page >> 12 ^ page >> 24 ^ page >> 36) % VICTIMS];
}

static void clear_victims(struct asid *a, enum tlb_mode m)
{
	for (unsigned k = 0; a->has_victims[m] && k < VICTIMS; k++)
		a->victim[m][k].tag_r = a->victim[m][k].tag_w = ~0ull;
	a->has_victims[m] = false;
}

/* The entry with index i is about to be displaced. */
static void put_victim(struct asid *a, enum tlb_mode m, const struct tlb_entry *e, unsigned i)
{
	uint64_t page = e->tag_r != no_tag(i) ? e->tag_r : e->tag_w;

	if (page == no_tag(i))
		return;
	a->has_victims[m] = true;
	*victim_place(a, m, page) = *e;
}

/* Puts the victim for page, if it is one that allows this, in its place e. */
static bool swap_victim(struct asid *a, enum tlb_mode m, struct tlb_entry *e, unsigned i, uint64_t page,
			bool write)
{
	struct tlb_entry *p = victim_place(a, m, page), found = *p;

	if ((write ? found.tag_w : found.tag_r) != page)
		return false;
	p->tag_r = p->tag_w = ~0ull;
	put_victim(a, m, e, i);
	if (found.tag_r != page)
		found.tag_r = no_tag(i);
	if (found.tag_w != page)
		found.tag_w = no_tag(i);
	*e = found;
	return true;
}

static void clear_tlb(struct asid *a, enum tlb_mode m)
{
	struct touched *t = &a->tlb_touched[m];

	clear_victims(a, m);
	if (t->n > TOUCHED_MAX) {
		for (unsigned i = 0; i < TLB_SIZE; i++)
			tlb_entry_clear(&a->tlb[m][i], i);
		for (unsigned i = 0; i < ARRAY_SIZE(a->written_pages[m]); i++)
			a->written_pages[m][i] = 0;
	} else {
		for (unsigned k = 0; k < t->n; k++)
			tlb_entry_clear(&a->tlb[m][t->index[k]], t->index[k]);
	}
	t->n = 0;
}

static void clear_itlb(struct asid *a)
{
	for (int m = 0; m < 2; m++)
		for (unsigned i = 0; i < ITLB_SIZE; i++)
			a->itlb[m][i].tag = ~0ull;
}

static void fill(struct vcpu *v, uint64_t va, unsigned acc, const struct walk *w, void *host_page,
		 uint8_t flags)
{
	enum tlb_mode mode = mode_of(v, acc);
	unsigned i = tlb_index(va);
	struct asid *holder = tlb_holder(v, mode);
	struct tlb_entry *e = &holder->tlb[mode][i];
	uint64_t page = va & PAGE_MASK;
	uint64_t addend = (uint64_t)host_page - page;
	bool other = e->tag_r != page && e->tag_w != page;
	unsigned a = acc & (ACC_USER | ACC_IMPLICIT);

	if (w->page_size > PAGE_SIZE)
		large_note(v, va);
	v->stats.tlb_fills++;
	if (v->vm->stress.tiny_tlb && (acc & ACC_X))
		clear_itlb(code_holder(v, a));
	if (v->vm->stress.tiny_tlb && !(acc & ACC_X))
		for (int m = 0; m < TLB_MODES; m++)
			clear_tlb(tlb_holder(v, m), m);
	if (acc & ACC_X) {
		*itlb_entry(v, a & ACC_USER, va) =
		    (struct itlb_entry){ .tag = page, .page = (uint64_t)host_page, .global = w->global };
		if (!a && !w->global)
			code_holder(v, false)->local_itlb = true;
		return;
	}
	if (other)
		put_victim(holder, mode, e, i);
	if (other || e->addend != addend)
		tlb_entry_clear(e, i);
	touch(&holder->tlb_touched[mode], i);
	if (mode == TLB_K && !w->global)
		touch(&holder->local_tlb, i);
	e->addend = addend;
	e->page = (uint64_t)host_page;
	if (watched(v, va)) {
		tlb_entry_clear(e, i);
		return;
	}
	if (allowed(v, a, w))
		e->tag_r = page;
	if (w->dirty && !(flags & MEM_PAGE_CODE) && allowed(v, a | ACC_W, w)) {
		e->tag_w = page;
		note_page(holder->written_pages[mode], e->page);
	} else if (e->tag_w == page)
		e->tag_w = no_tag(i);
}

/* The TLB entry for a page of memory whose translation was just looked up; ret: the page's flags. */
static uint8_t enter_page(struct vcpu *v, uint64_t va, unsigned acc, const struct walk *w, void *host_page)
{
	uint8_t flags;

	if (!(acc & ACC_X) && (w->dirty || (acc & ACC_W)))
		bt_enter_writer(v, host_page);
	flags = __atomic_load_n(mem_page_flags(v->mem, host_page), __ATOMIC_SEQ_CST);
	if (!(acc & ACC_PROBE))
		fill(v, va, acc, w, host_page, flags);
	return flags;
}

/*
 * Kernels clear and copy page after page of what their allocators give out in order, through a map of all
 * memory in large pages. So where the second of two neighbours in one large page has just been entered, those
 * that follow are, too, as far as they are memory that the host has provided.
 */
static void enter_following(struct vcpu *v, uint64_t va, unsigned acc, const struct walk *w, uint8_t *host)
{
	uint64_t *last = &v->last_large[mode_of(v, acc)], page = va & PAGE_MASK, pa = w->pa & PAGE_MASK;
	bool sequel = *last + PAGE_SIZE == page;

	*last = page;
	if (!sequel || v->vm->stress.tiny_tlb)
		return;
	for (unsigned i = 1; i <= FOLLOWING; i++) {
		uint64_t next = page + i * PAGE_SIZE;
		bool readonly;

		if (!(next & (w->page_size - 1)))
			return;
		host += PAGE_SIZE;
		pa += PAGE_SIZE;
		if (mem_cpu_ptr(v->mem, GPA(pa), PAGE_SIZE, &readonly) != host || readonly ||
		    !mem_ready(v->mem, mem_page_number(v->mem, host)))
			return;
		enter_page(v, next, acc, w, host);
		*last = next;
	}
}

int mmu_host(struct vcpu *v, uint64_t va, unsigned acc, void **ret, uint64_t *pa, bool *code)
{
	struct walk w;
	unsigned i = tlb_index(va);
	enum tlb_mode mode = mode_of(v, acc);
	struct asid *holder = tlb_holder(v, mode);
	struct tlb_entry *e = &holder->tlb[mode][i];
	uint64_t page = va & PAGE_MASK;
	uint64_t tag = (acc & ACC_W) ? e->tag_w : e->tag_r;
	uint8_t *host;
	uint8_t flags;
	bool readonly;

	if (acc & ACC_X) {
		struct itlb_entry *x = itlb_entry(v, acc & ACC_USER, va);

		if (x->tag == page) {
			*ret = (void *)(x->page + (va & 0xfff));
			*code = false;
			return 0;
		}
	} else if (tag == page || swap_victim(holder, mode, e, i, page, acc & ACC_W)) {
		*ret = (void *)(va + e->addend);
		*code = false;
		return 0;
	}
	if (mmu_walk(v, va, acc, &w))
		return -1;
	*pa = w.pa;
	*code = false;
	host = mem_cpu_ptr(v->mem, GPA(w.pa & PAGE_MASK), PAGE_SIZE, &readonly);
	if (!host || (readonly && (acc & ACC_W))) {
		*ret = NULL;
		return 0;
	}
	w.dirty &= !readonly;
	mem_provide(v->mem, host, PAGE_SIZE);
	flags = enter_page(v, va, acc, &w, host);
	if (w.page_size > PAGE_SIZE && !(acc & (ACC_X | ACC_PROBE)))
		enter_following(v, va, acc, &w, host);
	*ret = host + (va & 0xfff);
	*code = (acc & ACC_W) && (flags & MEM_PAGE_CODE);
	return 0;
}

/* ---- invalidation ---- */

/* With every other invalidation: what is known of the stack is taken from the TLB. */
static void forget_stack(struct vcpu *v)
{
	for (int user = 0; user < 2; user++)
		v->stack_page[user] = (struct stack_page){ .tag = NO_STACK };
}

void mmu_init(struct vcpu *v)
{
	v->asids[ASID_SHARED].valid = true;
	v->asids[ASID_SHARED].pcid = 0xffff; /* nobody's */
	v->asid = &v->asids[0];
	forget_stack(v);
}

static void clear_jc(struct asid *a)
{
	if (!a->jc_touched[0].n && !a->jc_touched[1].n)
		return;
	for (unsigned i = 0; i < ARRAY_SIZE(a->exec_pages); i++)
		a->exec_pages[i] = 0;
	for (int m = 0; m < 2; m++) {
		struct touched *t = &a->jc_touched[m];

		for (unsigned i = 0; t->n > TOUCHED_MAX && i < JC_SIZE; i++)
			jc_clear(&a->jc[m][i], i);
		for (unsigned k = 0; t->n <= TOUCHED_MAX && k < t->n; k++)
			jc_clear(&a->jc[m][t->index[k]], t->index[k]);
		t->n = 0;
	}
}

/* What the shared one has of pages that are not global; and the stack pages, which may be some. */
static void drop_local(struct vcpu *v)
{
	struct asid *a = &v->asids[ASID_SHARED];

	forget_stack(v);
	clear_victims(a, TLB_K);
	if (a->local_tlb.n > TOUCHED_MAX)
		clear_tlb(a, TLB_K);
	else
		for (unsigned k = 0; k < a->local_tlb.n; k++)
			tlb_entry_clear(&a->tlb[TLB_K][a->local_tlb.index[k]], a->local_tlb.index[k]);
	if (a->local_jc.n > TOUCHED_MAX)
		clear_jc(a);
	else
		for (unsigned k = 0; k < a->local_jc.n; k++)
			jc_clear(&a->jc[0][a->local_jc.index[k]], a->local_jc.index[k]);
	if (a->local_itlb)
		clear_itlb(a);
	a->local_tlb.n = a->local_jc.n = 0;
	a->local_itlb = false;
}

static void asid_clear(struct asid *a)
{
	clear_itlb(a);
	for (int m = 0; m < TLB_MODES; m++)
		clear_tlb(a, m);
	clear_jc(a);
}

void mmu_stress_flush(struct vcpu *v)
{
	asid_clear(v->asid);
	asid_clear(&v->asids[ASID_SHARED]);
	forget_stack(v);
}

static void drop_all(struct vcpu *v)
{
	for (int i = 0; i < PCID_SLOTS; i++) {
		struct asid *a = &v->asids[i];

		if (a->valid)
			asid_clear(a);
		if (a != v->asid)
			a->valid = false;
	}
	asid_clear(&v->asids[ASID_SHARED]);
	drop_local(v);
	for (unsigned i = 0; i < 64; i++)
		v->large_filter[i] = 0;
	v->global_gen++;
	v->stats.flushes++;
}

void mmu_flush_all(struct vcpu *v)
{
	drop_all(v);
	t2_flush_all(v);
}

static void drop_pcid(struct vcpu *v, uint16_t pcid)
{
	drop_local(v);
	for (int i = 0; i < PCID_SLOTS; i++)
		if (v->asids[i].valid && v->asids[i].pcid == pcid) {
			asid_clear(&v->asids[i]);
			v->stats.flushes++;
		}
}

void mmu_flush_pcid(struct vcpu *v, uint16_t pcid)
{
	drop_pcid(v, pcid);
	t2_flush_pcid(v, pcid);
}

static void jc_forget(struct jc_entry *j, unsigned i, uint64_t page)
{
	/* Blocks that begin at the end of the page before may go on in this one. The lower half is the
	 * address in the place of segmented code; other code may be forgotten in vain. */
	if ((uint32_t)j->va + 15 - (uint32_t)page < PAGE_SIZE + 15)
		jc_clear(j, i);
}

static void jc_forget_page(struct asid *a, uint64_t page)
{
	/* jc_index keeps the places of a page together. */
	unsigned first = jc_index(page) & ~(unsigned)(PAGE_SIZE - 1);

	_Static_assert(JC_SIZE % PAGE_SIZE == 0 && JC_SHIFT <= 12, "a page has one part of the jump cache");
	for (int m = 0; m < 2; m++) {
		const struct touched *t = &a->jc_touched[m];

		if (t->n <= TOUCHED_MAX) {
			for (unsigned k = 0; k < t->n; k++)
				jc_forget(&a->jc[m][t->index[k]], t->index[k], page);
			continue;
		}
		for (unsigned i = first; i < first + PAGE_SIZE; i++)
			jc_forget(&a->jc[m][i], i, page);
		for (uint64_t va = page - 15; va != page; va++) {
			unsigned i = jc_index(va);

			jc_forget(&a->jc[m][i], i, page);
			jc_forget(&a->jc[m][i ^ 1], i ^ 1, page);
		}
	}
}

static void invlpg_slot(struct asid *a, uint64_t va)
{
	unsigned i = tlb_index(va);
	uint64_t page = va & PAGE_MASK;

	for (int m = 0; m < TLB_MODES; m++) {
		struct tlb_entry *e = &a->tlb[m][i];

		clear_victims(a, m);
		if (e->tag_r == page || e->tag_w == page)
			tlb_entry_clear(e, i);
	}
	for (int m = 0; m < 2; m++)
		if (a->itlb[m][i & (ITLB_SIZE - 1)].tag == page)
			a->itlb[m][i & (ITLB_SIZE - 1)].tag = ~0ull;
	if (page_maybe(a->exec_pages, va))
		jc_forget_page(a, page);
}

void mmu_invlpg(struct vcpu *v, uint64_t va)
{
	t2_invlpg(v, va);
	if (large_maybe(v, va)) {
		drop_all(v);
		return;
	}
	forget_stack(v);
	for (int i = 0; i < ASID_SLOTS; i++)
		if (v->asids[i].valid)
			invlpg_slot(&v->asids[i], va);
}

void mmu_invlpg_pcid(struct vcpu *v, uint16_t pcid, uint64_t va)
{
	t2_invlpg_pcid(v, pcid, va);
	if (large_maybe(v, va)) {
		drop_pcid(v, pcid);
		return;
	}
	forget_stack(v);
	for (int i = 0; i < ASID_SLOTS; i++)
		if (v->asids[i].valid && (v->asids[i].pcid == pcid || i == ASID_SHARED))
			invlpg_slot(&v->asids[i], va);
}

void mmu_select(struct vcpu *v, bool flush)
{
	uint16_t pcid = (v->st.cr4 & CR4_PCIDE) ? v->st.cr3 & 0xfff : 0;
	struct asid *victim = NULL;

	for (int i = 0; i < PCID_SLOTS; i++) {
		struct asid *a = &v->asids[i];

		if (a->valid && a->pcid == pcid) {
			if (flush)
				asid_clear(a);
			victim = a;
			goto found;
		}
		if (!victim || !a->valid || (victim->valid && a->last_used < victim->last_used))
			victim = a;
	}
	victim->valid = true;
	victim->pcid = pcid;
	asid_clear(victim);
found:
	victim->last_used = ++v->asid_clock;
	v->asid = victim;
	for (int m = 0; m < TLB_MODES; m++)
		v->tlb_ptr[m] = (uint64_t)tlb_holder(v, m)->tlb[m];
	drop_local(v);
	if (flush)
		v->stats.flushes++;
	t2_root_loaded(v, flush);
	mmu_set_mode(v);
}

void mmu_set_mode(struct vcpu *v)
{
	unsigned acc = mmu_acc(v);

	t2_mode(v, acc & ACC_USER);
	v->tlb_base = v->tlb_ptr[mode_of(v, acc)];
	v->jc_base = (uint64_t)code_holder(v, acc & ACC_USER)->jc[!!(acc & ACC_USER)];
	/* User code that belongs into a stub comes out at its next lookup. */
	if ((acc & ACC_USER) && t2_wants(v))
		v->jc_base = v->empty_jc;
}

/* Looks through a table for one page; what passes by shows which write tags are left. */
static void protect_in_table(struct asid *a, enum tlb_mode m, uint64_t host_page)
{
	struct tlb_entry *t = a->tlb[m];

	clear_victims(a, m);
	for (unsigned i = 0; i < ARRAY_SIZE(a->written_pages[m]); i++)
		a->written_pages[m][i] = 0;
	for (unsigned i = 0; i < TLB_SIZE; i++) {
		if (t[i].tag_w == no_tag(i))
			continue;
		if (t[i].page == host_page)
			t[i].tag_w = no_tag(i);
		else
			note_page(a->written_pages[m], t[i].page);
	}
}

void mmu_protect_page(struct vcpu *v, const void *host)
{
	forget_stack(v);
	for (int s = 0; s < ASID_SLOTS; s++)
		for (int m = 0; m < TLB_MODES; m++)
			if (v->asids[s].valid && page_maybe(v->asids[s].written_pages[m], (uint64_t)host))
				protect_in_table(&v->asids[s], m, (uint64_t)host);
}

void mmu_flush_jc(struct vcpu *v)
{
	for (int s = 0; s < ASID_SLOTS; s++)
		if (v->asids[s].valid)
			clear_jc(&v->asids[s]);
}
