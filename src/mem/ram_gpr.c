/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From guest-physical address to memory and back. Translated code comes here, so: general-regs-only.
 *
 * Nearly every address is RAM above 1 MiB and found by two comparisons.  Below
 * that, where firmware's ROM, its shadow and the VGA window come and go, a table
 * says for each page what is there.  Blocks elsewhere (ROM below 4 GiB, video
 * memory in a BAR) are found among the regions.
 */
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/raw_syscall.h"
#include "mem/mem_internal.h"

/* look_ahead: after so many pieces in a row, so many pages more, inside a block as guests' allocators know
 * it. */
#define AHEAD_AFTER 3u
#define AHEAD_PAGES 128u
#define AHEAD_BLOCK 1024u
#define LOW_END     ((uint64_t)LOW_PAGES * PAGE_SIZE)

/* Below 1 MiB: pages that follow each other in the mapping too, and are all of one kind. */
static uint64_t low_offset(const struct mem *m, uint64_t gpa, uint64_t len, bool *readonly)
{
	uint64_t first = gpa / PAGE_SIZE, last = (gpa + len - 1) / PAGE_SIZE;
	uint64_t e = atomic_load_explicit(&m->low[first], memory_order_relaxed);

	if (e & LOW_NONE)
		return UINT64_MAX;
	for (uint64_t p = first + 1; p <= last; p++) {
		uint64_t is =
		    p < LOW_PAGES ? atomic_load_explicit(&m->low[p], memory_order_relaxed) : p * PAGE_SIZE;

		if (is != e + (p - first) * PAGE_SIZE)
			return UINT64_MAX;
		if (p == LOW_PAGES) /* RAM from there on */
			break;
	}
	*readonly = e & LOW_READONLY;
	return (e & PAGE_MASK) + (gpa & (PAGE_SIZE - 1));
}

static bool in_low(uint64_t gpa, uint64_t len)
{
	return gpa < LOW_END && len && len <= UINT64_MAX - gpa;
}

uint64_t mem_ram_offset(const struct mem *m, uint64_t gpa, uint64_t len)
{
	uint64_t high = m->ram_size - m->low_size;

	if (gpa < m->low_size) {
		if (len > m->low_size - gpa)
			return UINT64_MAX;
		if (in_low(gpa, len)) {
			bool readonly;
			uint64_t off = low_offset(m, gpa, len, &readonly);

			return off == UINT64_MAX || readonly ? UINT64_MAX : off;
		}
		return gpa;
	}
	if (gpa >= HIGH_BASE && gpa - HIGH_BASE < high && len <= high - (gpa - HIGH_BASE))
		return m->low_size + (gpa - HIGH_BASE);
	return UINT64_MAX;
}

/* A block seen somewhere above 1 MiB. */
static uint64_t block_offset(struct mem *m, uint64_t gpa, uint64_t len, bool *readonly)
{
	uint64_t off = UINT64_MAX;

	atomic_fetch_add(&m->mmio.readers, 1);
	const struct interval *i = mem_find_interval(atomic_load(&m->mmio.snap), gpa);
	const struct io_region *r = i ? __atomic_load_n(&i->r, __ATOMIC_ACQUIRE) : NULL;
	if (r && r->block && len && len - 1 <= i->last - gpa) {
		off = r->block->offset + r->block_offset + (gpa - r->base);
		*readonly = r->readonly;
	}
	atomic_fetch_sub(&m->mmio.readers, 1);
	return off;
}

uint64_t mem_offset(struct mem *m, uint64_t gpa, uint64_t len, bool *readonly)
{
	uint64_t off;

	*readonly = false;
	if (in_low(gpa, len) && len <= m->low_size && gpa <= m->low_size - len)
		return low_offset(m, gpa, len, readonly);
	off = mem_ram_offset(m, gpa, len);
	return off != UINT64_MAX ? off : block_offset(m, gpa, len, readonly);
}

const struct interval *mem_find_interval(const struct snapshot *s, uint64_t addr)
{
	unsigned lo = 0, hi = s ? s->nr : 0;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (addr < s->at[mid].first)
			hi = mid;
		else if (addr > s->at[mid].last)
			lo = mid + 1;
		else
			return &s->at[mid];
	}
	return NULL;
}

bool mem_is_ram(const struct mem *m, gpa_t gpa)
{
	return mem_ram_offset(m, gpa.v, 1) != UINT64_MAX;
}

void *mem_ram_ptr(struct mem *m, gpa_t gpa, uint64_t len)
{
	uint64_t off = mem_ram_offset(m, gpa.v, len);

	return off == UINT64_MAX ? NULL : m->ram + off;
}

uint64_t mem_cpu_address(const struct mem *m, uint64_t pa)
{
	return pa & atomic_load_explicit(&m->a20_mask, memory_order_relaxed);
}

void *mem_cpu_ptr(struct mem *m, gpa_t gpa, uint64_t len, bool *readonly)
{
	uint64_t off = mem_offset(m, mem_cpu_address(m, gpa.v), len, readonly);

	return off == UINT64_MAX ? NULL : m->ram + off;
}

uint64_t mem_page_number(const struct mem *m, const void *p)
{
	return (uint64_t)((const uint8_t *)p - m->ram) / PAGE_SIZE;
}

bool mem_in_block(const struct mem *m, const void *p)
{
	return (uint64_t)((const uint8_t *)p - m->ram) >= m->ram_size;
}

uint8_t *mem_page_flags(struct mem *m, const void *p)
{
	return &m->flags[mem_page_number(m, p)];
}

gpa_t mem_ptr_to_gpa(struct mem *m, const void *p)
{
	uint64_t off = (uint64_t)((const uint8_t *)p - m->ram);

	return GPA(off < m->low_size ? off : off - m->low_size + HIGH_BASE);
}

bool mem_ready(const struct mem *m, uint64_t page)
{
	return __atomic_load_n(&m->flags[page], __ATOMIC_RELAXED) & MEM_PAGE_READY;
}

/* One more piece of the chunk of 2 MiB is there: the thread that makes huge pages may want to know. */
static void count_piece(struct mem_huge *h, uint64_t page)
{
	uint64_t chunk = page / (HUGE_SIZE / PAGE_SIZE);

	if (!h->pieces || chunk >= h->nr_chunks)
		return;
	if (atomic_fetch_add_explicit(&h->pieces[chunk], 1, memory_order_relaxed) == HUGE_RIPE - 1) {
		atomic_fetch_add(&h->ripe, 1);
		raw_syscall4(SYS_futex, (unsigned long)&h->ripe, FUTEX_WAKE_PRIVATE, 1, 0);
	}
}

/* A piece, less at the mapping's end. */
void mem_provide_piece(struct mem *m, uint64_t first)
{
	uint64_t end = first + PIECE_SIZE / PAGE_SIZE, all = m->map_size / PAGE_SIZE;
	uint8_t before;

	if (end > all)
		end = all;
	/* If the host cannot (before Linux 5.14), faults do it page by page. */
	raw_syscall4(SYS_madvise, (unsigned long)(m->ram + first * PAGE_SIZE), (end - first) * PAGE_SIZE,
		     MADV_POPULATE_WRITE, 0);
	before = __atomic_fetch_or(&m->flags[first], MEM_PAGE_READY, __ATOMIC_RELAXED);
	for (uint64_t i = first + 1; i < end; i++)
		__atomic_or_fetch(&m->flags[i], MEM_PAGE_READY, __ATOMIC_RELAXED);
	if (!(before & MEM_PAGE_READY))
		count_piece(&m->huge, first);
}

/* A guest that fills fresh memory goes upwards: has the other thread do what comes after this piece. */
static void look_ahead(struct mem *m, uint64_t first)
{
	uint64_t per = PIECE_SIZE / PAGE_SIZE, from = first + per, end = (first | (AHEAD_BLOCK - 1)) + 1;

	if (!m->ahead.started || end > m->ram_size / PAGE_SIZE || from >= end || mem_ready(m, from))
		return;
	for (unsigned i = 1; i <= AHEAD_AFTER; i++)
		if (first < i * per || !mem_ready(m, first - i * per))
			return;
	if (end > from + AHEAD_PAGES)
		end = from + AHEAD_PAGES;
	atomic_store(&m->ahead.want, from << 16 | (end - from));
	atomic_fetch_add(&m->ahead.posted, 1);
	raw_syscall4(SYS_futex, (unsigned long)&m->ahead.posted, FUTEX_WAKE_PRIVATE, 1, 0);
}

void mem_provide(struct mem *m, const void *p, uint64_t len)
{
	uint64_t per = PIECE_SIZE / PAGE_SIZE, last = mem_page_number(m, (const uint8_t *)p + len - 1);

	for (uint64_t i = mem_page_number(m, p); i <= last; i = (i / per + 1) * per) {
		if (mem_ready(m, i))
			continue;
		look_ahead(m, i / per * per);
		mem_provide_piece(m, i / per * per);
	}
}
