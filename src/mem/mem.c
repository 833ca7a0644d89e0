/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dispatch looks regions up in an immutable, sorted array of the intervals that
 * are visible (overlaps resolved).  Mapping a region builds a new array and
 * publishes it by pointer:
 *
 *  1. Only the holder of the I/O lock (or the thread that builds the VM)
 *     publishes, so under the lock the current array stays.
 *  2. A vCPU that does not hold it counts itself in `readers` while it looks;
 *     the old array is freed once a publisher has seen the count at zero after
 *     publishing.  Looking takes no lock, so a publisher never waits long.
 *
 * A locked region is looked up once without the lock (to learn that it is
 * locked) and again under it, because a BAR may have moved in between.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "mem/mem_internal.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

/* ---- construction ---- */

static int make_memfd(uint64_t size)
{
	/* Stubs of other engines map this memory executable; kernels before 6.3 know no MFD_EXEC and need
	 * none. */
	int fd = memfd_create("sill-ram", MFD_CLOEXEC | MFD_EXEC);
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("sill-ram", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)size) < 0) {
		int r = -errno;
		close(fd);
		return r;
	}
	return fd;
}

/* Maps the RAM aligned for huge pages, with an inaccessible guard around it. */
static int map_ram(struct mem *m)
{
	m->reserved_size = m->map_size + 2 * HUGE_SIZE;
	void *p = mmap(NULL, m->reserved_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return -errno;
	m->reserved = p;
	uint8_t *ram = (uint8_t *)align_up((uintptr_t)p + PAGE_SIZE, HUGE_SIZE);
	p = mmap(ram, m->map_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, m->fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	m->ram = ram;
	madvise(ram, m->ram_size, MADV_HUGEPAGE); /* best effort: shmem huge pages may be off */
	return 0;
}

/* What each page below 1 MiB is: RAM, unless a region lies over it. */
static void update_low(struct mem *m)
{
	for (unsigned p = 0; p < LOW_PAGES; p++) {
		uint64_t gpa = p * PAGE_SIZE, is = gpa < m->low_size ? gpa : LOW_NONE;
		for (const struct io_region *r = m->mmio.regions; r; r = r->next) {
			if (!r->over_ram || gpa < r->base || gpa - r->base >= r->size)
				continue;
			is = LOW_NONE;
			if (r->block)
				is = (r->block->offset + r->block_offset + gpa - r->base) |
				     (r->readonly ? LOW_READONLY : 0);
			break;
		}
		atomic_store_explicit(&m->low[p], is, memory_order_relaxed);
	}
}

int mem_new(uint64_t ram_size, struct mutex *io_lock, struct mem **ret, struct error *err)
{
	if (ram_size < MIB(1) || ram_size % PAGE_SIZE || ram_size >> 46)
		return error_set(
		    err, EINVAL,
		    "a memory size of %llu bytes is not possible; give a multiple of 4K from 1M up",
		    (unsigned long long)ram_size);
	struct mem *m = calloc(1, sizeof(*m));
	if (!m)
		return error_set(err, ENOMEM, "no memory for the address space; free some and try again");
	m->io_lock = io_lock;
	m->ram_size = ram_size;
	m->low_size = min_u64(ram_size, MEM_LOW_MAX);
	m->map_size = ram_size + MEM_BLOCKS_MAX;
	m->ram_block = (struct mem_block){ .mem = m, .name = "ram", .size = ram_size };
	m->mmio.max_size = 8;
	m->pio.max_size = 4;
	atomic_init(&m->a20_mask, UINT64_MAX);
	update_low(m);
	m->fd = make_memfd(m->map_size);
	int r = m->fd < 0 ? m->fd : map_ram(m);
	if (!r) {
		void *flags = mmap(NULL, mem_nr_pages(m), PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (flags == MAP_FAILED)
			r = -errno;
		else
			m->flags = flags;
	}
	if (r) {
		mem_free(m);
		return error_set(err, -r, "cannot map %llu MiB of guest memory (%s); give the VM less",
				 (unsigned long long)(ram_size >> 20), strerror(-r));
	}
	*ret = m;
	return 0;
}

void mem_free(struct mem *m)
{
	if (!m)
		return;
	mem_ahead_stop(m);
	mem_huge_stop(m);
	if (m->flags)
		munmap(m->flags, mem_nr_pages(m));
	if (m->reserved)
		munmap(m->reserved, m->reserved_size);
	if (m->fd >= 0)
		close(m->fd);
	free(atomic_load(&m->mmio.snap));
	free(atomic_load(&m->pio.snap));
	while (m->blocks) {
		struct mem_block *b = m->blocks;
		m->blocks = b->next;
		free(b);
	}
	free(m);
}

int mem_block_new(struct mem *m, const char *name, uint64_t size, struct mem_block **ret, struct error *err)
{
	if (!size || size % PAGE_SIZE || size > MEM_BLOCKS_MAX - m->blocks_used)
		return error_set(
		    err, ENOSPC,
		    "%s: %llu bytes of memory beside RAM are not possible; %llu are left, in pages", name,
		    (unsigned long long)size, (unsigned long long)(MEM_BLOCKS_MAX - m->blocks_used));
	struct mem_block *b = calloc(1, sizeof(*b));
	if (!b)
		return error_set(err, ENOMEM, "no memory for %s; free some and try again", name);
	*b = (struct mem_block){ m, m->blocks, name, m->ram_size + m->blocks_used, size };
	m->blocks = b;
	m->blocks_used += size;
	*ret = b;
	return 0;
}

uint8_t *mem_block_ptr(struct mem_block *b)
{
	return b->mem->ram + b->offset;
}

void mem_block_clear(struct mem_block *b)
{
	/* Pages that nobody has touched stay so; the others are given back. */
	if (madvise(mem_block_ptr(b), b->size, MADV_REMOVE) < 0)
		memset(mem_block_ptr(b), 0, b->size);
}

uint64_t mem_block_size(const struct mem_block *b)
{
	return b->size;
}

struct mem_block *mem_ram_as_block(struct mem *m)
{
	return &m->ram_block;
}

uint64_t mem_nr_pages(const struct mem *m)
{
	return m->map_size / PAGE_SIZE;
}

uint64_t mem_ram_size(const struct mem *m)
{
	return m->ram_size;
}

uint64_t mem_low_ram_size(const struct mem *m)
{
	return m->low_size;
}

uint64_t mem_high_ram_size(const struct mem *m)
{
	return m->ram_size - m->low_size;
}

int mem_ram_fd(const struct mem *m)
{
	return m->fd;
}

void *mem_ram_base(struct mem *m)
{
	return m->ram;
}

void mem_set_notifier(struct mem *m, const struct mem_notifier *n)
{
	m->notifier = *n;
}

/* ---- RAM ---- */

/*
 * Copies as the guest's processor would access: an aligned 2, 4 or 8 bytes in
 * one piece, since a vCPU may look at a ring's index at the same moment.
 */
static void copy_in(void *dst, const void *src, uint64_t len)
{
	if (len == 2 && (uintptr_t)src % 2 == 0) {
		uint16_t v = __atomic_load_n((const uint16_t *)src, __ATOMIC_RELAXED);
		memcpy(dst, &v, 2);
	} else if (len == 4 && (uintptr_t)src % 4 == 0) {
		uint32_t v = __atomic_load_n((const uint32_t *)src, __ATOMIC_RELAXED);
		memcpy(dst, &v, 4);
	} else if (len == 8 && (uintptr_t)src % 8 == 0) {
		uint64_t v = __atomic_load_n((const uint64_t *)src, __ATOMIC_RELAXED);
		memcpy(dst, &v, 8);
	} else {
		memcpy(dst, src, len);
	}
}

static void copy_out(void *dst, const void *src, uint64_t len)
{
	if (len == 2 && (uintptr_t)dst % 2 == 0) {
		uint16_t v;
		memcpy(&v, src, 2);
		__atomic_store_n((uint16_t *)dst, v, __ATOMIC_RELAXED);
	} else if (len == 4 && (uintptr_t)dst % 4 == 0) {
		uint32_t v;
		memcpy(&v, src, 4);
		__atomic_store_n((uint32_t *)dst, v, __ATOMIC_RELAXED);
	} else if (len == 8 && (uintptr_t)dst % 8 == 0) {
		uint64_t v;
		memcpy(&v, src, 8);
		__atomic_store_n((uint64_t *)dst, v, __ATOMIC_RELAXED);
	} else {
		memcpy(dst, src, len);
	}
}

int mem_read(struct mem *m, gpa_t gpa, void *buf, uint64_t len)
{
	bool readonly;
	uint64_t off = mem_offset(m, gpa.v, len, &readonly);
	if (off == UINT64_MAX)
		return -EFAULT;
	copy_in(buf, m->ram + off, len);
	return 0;
}

/* The data must be visible before the flags are looked at: the engine sets CODE, then reads the code. */
static void fence(void)
{
	atomic_thread_fence(memory_order_seq_cst);
}

static void note_written(struct mem *m, uint64_t off, uint64_t len)
{
	if (!len)
		return;
	for (uint64_t page = off / PAGE_SIZE; page <= (off + len - 1) / PAGE_SIZE; page++) {
		uint8_t flags = __atomic_load_n(&m->flags[page], __ATOMIC_RELAXED);
		if (!(flags & MEM_PAGE_DIRTY))
			__atomic_or_fetch(&m->flags[page], MEM_PAGE_DIRTY, __ATOMIC_RELAXED);
		if ((flags & MEM_PAGE_CODE) && m->notifier.code_written) {
			uint64_t first = max_u64(off, page * PAGE_SIZE);
			uint64_t end = min_u64(off + len, (page + 1) * PAGE_SIZE);
			m->notifier.code_written(m->notifier.opaque, m->ram + first, end - first);
		}
	}
}

static void written(struct mem *m, uint64_t off, uint64_t len)
{
	fence();
	note_written(m, off, len);
}

int mem_write(struct mem *m, gpa_t gpa, const void *buf, uint64_t len)
{
	bool readonly;
	uint64_t off = mem_offset(m, gpa.v, len, &readonly);
	if (off == UINT64_MAX || readonly)
		return -EFAULT;
	copy_out(m->ram + off, buf, len);
	written(m, off, len);
	return 0;
}

void mem_written(struct mem *m, gpa_t gpa, uint64_t len)
{
	uint64_t off = mem_ram_offset(m, gpa.v, len);
	if (off != UINT64_MAX)
		written(m, off, len);
}

void mem_written_pieces(struct mem *m, const struct iovec *iov, unsigned cnt, uint64_t len)
{
	/* Once: it waits until the last of the data has left the processor. */
	fence();
	for (unsigned i = 0; i < cnt && len; i++) {
		uint64_t n = min_u64(iov[i].iov_len, len);
		uint64_t off = mem_ram_offset(m, mem_ptr_to_gpa(m, iov[i].iov_base).v, n);

		if (off != UINT64_MAX)
			note_written(m, off, n);
		len -= n;
	}
}

void mem_block_written(struct mem_block *b, uint64_t offset, uint64_t len)
{
	if (offset < b->size && len <= b->size - offset)
		written(b->mem, b->offset + offset, len);
}

/* ---- regions ---- */

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static struct io_region *topmost(const struct space *s, uint64_t addr)
{
	for (struct io_region *r = s->regions; r; r = r->next)
		if (addr >= r->base && addr - r->base < r->size)
			return r;
	return NULL;
}

/* Cuts the address space at every region's ends; each piece belongs to the latest region over it. */
static struct snapshot *build_snapshot(const struct space *s)
{
	unsigned n = 0;
	for (struct io_region *r = s->regions; r; r = r->next)
		n++;
	struct snapshot *snap = malloc(sizeof(*snap) + 2 * n * sizeof(struct interval));
	_cleanup_free_ uint64_t *cuts = malloc((2 * n + 1) * sizeof(*cuts));
	if (!snap || !cuts) {
		free(snap);
		return NULL;
	}
	unsigned nr_cuts = 0;
	for (struct io_region *r = s->regions; r; r = r->next) {
		cuts[nr_cuts++] = r->base;
		if (r->base + r->size) /* zero: the region ends with the address space */
			cuts[nr_cuts++] = r->base + r->size;
	}
	qsort(cuts, nr_cuts, sizeof(*cuts), compare_u64);
	snap->nr = 0;
	for (unsigned i = 0; i < nr_cuts; i++) {
		if (i && cuts[i] == cuts[i - 1])
			continue;
		struct io_region *r = topmost(s, cuts[i]);
		if (!r)
			continue;
		unsigned j = i + 1;
		while (j < nr_cuts && cuts[j] == cuts[i])
			j++;
		uint64_t last = j < nr_cuts ? cuts[j] - 1 : UINT64_MAX;
		struct interval *prev = snap->nr ? &snap->at[snap->nr - 1] : NULL;
		if (prev && prev->r == r && prev->last + 1 == cuts[i])
			prev->last = last;
		else
			snap->at[snap->nr++] = (struct interval){ cuts[i], last, r };
	}
	return snap;
}

static bool publish(struct space *s)
{
	struct snapshot *fresh = build_snapshot(s);
	if (!fresh)
		return false;
	struct snapshot *old = atomic_exchange(&s->snap, fresh);
	while (atomic_load(&s->readers))
		sched_yield();
	free(old);
	return true;
}

static void layout_changed(struct mem *m)
{
	if (m->notifier.layout_changed)
		m->notifier.layout_changed(m->notifier.opaque);
}

/* A region came or went; those that are or hide memory matter to the engine. */
static void memory_moved(struct mem *m, const struct io_region *r)
{
	if (r->over_ram)
		update_low(m);
	if (r->over_ram || r->block)
		layout_changed(m);
}

void mem_set_a20(struct mem *m, bool on)
{
	uint64_t mask = on ? UINT64_MAX : ~(uint64_t)MIB(1);
	if (atomic_exchange(&m->a20_mask, mask) != mask)
		layout_changed(m);
}

static void unlink_region(struct space *s, struct io_region *r)
{
	for (struct io_region **p = &s->regions; *p; p = &(*p)->next) {
		if (*p == r) {
			*p = r->next;
			break;
		}
	}
	r->next = NULL;
	r->mapped = false;
}

static void map_region(struct mem *m, struct space *s, struct io_region *r)
{
	if (r->mapped)
		unlink_region(s, r);
	if (!r->size || (r->base + r->size && r->base + r->size < r->base))
		return; /* nothing, or past the end of the address space: not visible */
	r->next = s->regions;
	s->regions = r;
	r->mapped = true;
	if (!publish(s))
		unlink_region(s, r); /* no memory: the guest finds nothing there */
	memory_moved(m, r);
}

static void unmap_region(struct mem *m, struct space *s, struct io_region *r)
{
	if (!r->mapped)
		return;
	unlink_region(s, r);
	if (publish(s)) {
		memory_moved(m, r);
		return;
	}
	/* No memory for a new array: take the region out of the old one in place; r stays valid for readers.
	 */
	struct snapshot *snap = atomic_load(&s->snap);
	for (unsigned i = 0; i < snap->nr; i++)
		if (snap->at[i].r == r)
			__atomic_store_n(&snap->at[i].r, NULL, __ATOMIC_RELEASE);
	memory_moved(m, r);
}

void mem_map_mmio(struct mem *m, struct io_region *r)
{
	map_region(m, &m->mmio, r);
}

void mem_unmap_mmio(struct mem *m, struct io_region *r)
{
	unmap_region(m, &m->mmio, r);
}

void mem_map_pio(struct mem *m, struct io_region *r)
{
	map_region(m, &m->pio, r);
}

void mem_unmap_pio(struct mem *m, struct io_region *r)
{
	unmap_region(m, &m->pio, r);
}

/* ---- access ---- */

/* What a lookup found, copied out so that it outlives the array. */
struct target {
	struct io_region r;
	uint64_t last; /* of the interval */
	bool found;
};

static struct target find_target(struct space *s, uint64_t addr)
{
	struct target t = { .found = false };
	const struct interval *i = mem_find_interval(atomic_load(&s->snap), addr);
	struct io_region *r = i ? __atomic_load_n(&i->r, __ATOMIC_ACQUIRE) : NULL;
	if (r) {
		t.r = *r;
		t.last = i->last;
		t.found = true;
	}
	return t;
}

static struct target find_unlocked(struct space *s, uint64_t addr)
{
	atomic_fetch_add(&s->readers, 1);
	struct target t = find_target(s, addr);
	atomic_fetch_sub(&s->readers, 1);
	return t;
}

static uint64_t ones(unsigned size)
{
	return size == 8 ? UINT64_MAX : ((uint64_t)1 << (8 * size)) - 1;
}

/* The largest naturally aligned piece at addr, within size bytes, the interval and the handler's limit. */
static unsigned piece_size(const struct space *s, const struct target *t, uint64_t addr, unsigned size)
{
	unsigned max = t->found && t->r.max_size ? t->r.max_size : s->max_size;
	unsigned n = 1;
	bool unaligned = t->found && t->r.unaligned;
	while (n * 2 <= size && n * 2 <= max && (unaligned || addr % (n * 2) == 0) &&
	       !(t->found && t->last - addr < n * 2 - 1))
		n *= 2;
	return n;
}

/* One piece of at most `size` bytes: reads into or writes from *value; returns how many bytes it took. */
static unsigned access_piece(struct mem *m, struct space *s, uint64_t addr, uint64_t *value, unsigned size,
			     bool is_write)
{
	struct target t = find_unlocked(s, addr);
	bool locked = false;
	while (t.found && !t.r.unlocked && !locked) {
		mutex_lock(m->io_lock);
		t = find_target(s, addr);
		locked = t.found && !t.r.unlocked;
		if (!locked)
			mutex_unlock(m->io_lock); /* it moved away */
	}
	unsigned n = piece_size(s, &t, addr, size);
	if (!is_write)
		*value = ones(n);
	if (t.found) {
		uint64_t off = addr - t.r.base;
		if (is_write && t.r.write)
			t.r.write(t.r.opaque, off, *value & ones(n), n);
		else if (!is_write && t.r.read)
			*value = t.r.read(t.r.opaque, off, n) & ones(n);
	}
	if (locked)
		mutex_unlock(m->io_lock);
	return n;
}

static uint64_t space_read(struct mem *m, struct space *s, uint64_t addr, unsigned size)
{
	uint64_t value = 0;
	for (unsigned done = 0; done < size;) {
		uint64_t part;
		unsigned n = access_piece(m, s, addr + done, &part, size - done, false);
		value |= part << (8 * done);
		done += n;
	}
	return value;
}

static void space_write(struct mem *m, struct space *s, uint64_t addr, uint64_t value, unsigned size)
{
	for (unsigned done = 0; done < size;) {
		uint64_t part = value >> (8 * done);
		done += access_piece(m, s, addr + done, &part, size - done, true);
	}
}

/* Bytes of [gpa, gpa+size) that are memory go there. */
static bool touches_memory(struct mem *m, uint64_t gpa, unsigned size, bool *readonly)
{
	return mem_offset(m, gpa, 1, readonly) != UINT64_MAX ||
	       mem_offset(m, gpa + size - 1, 1, readonly) != UINT64_MAX;
}

uint64_t mem_mmio_read(struct mem *m, gpa_t gpa, unsigned size)
{
	bool readonly;
	gpa = GPA(mem_cpu_address(m, gpa.v));
	if (!touches_memory(m, gpa.v, size, &readonly))
		return space_read(m, &m->mmio, gpa.v, size);
	uint64_t value = 0;
	if (mem_read(m, gpa, &value, size) == 0)
		return value;
	for (unsigned i = 0; i < size; i++) {
		uint8_t byte;
		if (mem_read(m, GPA(gpa.v + i), &byte, 1) < 0)
			byte = (uint8_t)space_read(m, &m->mmio, gpa.v + i, 1);
		value |= (uint64_t)byte << (8 * i);
	}
	return value;
}

void mem_mmio_write(struct mem *m, gpa_t gpa, uint64_t value, unsigned size)
{
	bool readonly;
	gpa = GPA(mem_cpu_address(m, gpa.v));
	if (!touches_memory(m, gpa.v, size, &readonly) || readonly) {
		space_write(m, &m->mmio, gpa.v, value, size);
		return;
	}
	if (mem_write(m, gpa, &value, size) == 0)
		return;
	for (unsigned i = 0; i < size; i++) {
		uint8_t byte = (uint8_t)(value >> (8 * i));
		if (mem_write(m, GPA(gpa.v + i), &byte, 1) < 0)
			space_write(m, &m->mmio, gpa.v + i, byte, 1);
	}
}

uint32_t mem_pio_read(struct mem *m, uint16_t port, unsigned size)
{
	/* Past port 0xffff there is nothing: pieces beyond find no region. */
	return (uint32_t)space_read(m, &m->pio, port, size);
}

void mem_pio_write(struct mem *m, uint16_t port, uint32_t value, unsigned size)
{
	space_write(m, &m->pio, port, value, size);
}
