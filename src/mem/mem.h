/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest-physical memory: RAM, MMIO and port I/O.
 *
 * RAM is one memfd, mapped once in this process; guest-physical RAM is a few
 * ranges that lie at offsets in it (below the 32-bit PCI hole, and above
 * 4 GiB).  After RAM lie blocks: ROM and video memory, which regions show
 * somewhere in the address space.  What is not memory is MMIO, dispatched to the
 * region registered for it; reads of nothing give all ones, writes vanish, as on
 * a PC bus.
 *
 * Three kinds of access:
 *  - The engine turns guest pages into host pointers itself (mem_ram_ptr) and
 *    honours the per-page flags below.
 *  - Devices read and write guest memory with mem_read/mem_write (DMA).  These
 *    honour the page flags too: a write to a page from which code was
 *    translated tells the engine.
 *  - vCPUs reach devices by mem_mmio_* and mem_pio_*, which take the I/O lock
 *    around the handler, unless the region is marked unlocked.
 *
 * The RAM and region layout is fixed before the vCPUs run, except for regions
 * that move (PCI BARs): those change under the I/O lock and the engine is told
 * through the notifier.
 */
#ifndef SILL_MEM_MEM_H
#define SILL_MEM_MEM_H

#include <sys/uio.h>

#include "base/error.h"
#include "base/lock.h"
#include "x86/types.h"

struct mem;

/* ---- construction ---- */

/*
 * Makes an address space with ram_size bytes of RAM (a multiple of 4 KiB, at
 * least 1 MiB): up to MEM_LOW_MAX below 4 GiB, the rest from 4 GiB up.
 * io_lock is taken around device handlers; it must outlive the mem.
 */
#define MEM_LOW_MAX 0xc0000000ull /* RAM below 4 GiB ends at most here; PCI hole follows */
int mem_new(uint64_t ram_size, struct mutex *io_lock, struct mem **ret, struct error *err);
void mem_free(struct mem *m);
uint64_t mem_ram_size(const struct mem *m);
uint64_t mem_low_ram_size(const struct mem *m);  /* bytes of RAM below 4 GiB */
uint64_t mem_high_ram_size(const struct mem *m); /* bytes of RAM from 4 GiB up */
int mem_ram_fd(const struct mem *m);             /* the memfd, for other processes to map */
uint64_t mem_nr_pages(const struct mem *m);      /* of the mapping: RAM and blocks */

/* ---- MMIO and ports ---- */

/*
 * A device's window on memory or ports. Handlers get the offset from the
 * region's start and a size of 1, 2, 4 or 8 (ports: 1, 2, 4), naturally
 * aligned in the address space. An access is cut so that it never crosses the
 * region's end; reads return the value in the low bits. Accesses above max_size
 * are split. Handlers run under the I/O lock, or without it if `unlocked` (then
 * they do their own locking, and may still be entered by a vCPU that looked the
 * region up just before it was unmapped).
 */
struct io_region {
	const char *name;
	uint64_t base, size;
	uint64_t (*read)(void *opaque, uint64_t offset, unsigned size);
	void (*write)(void *opaque, uint64_t offset, uint64_t value, unsigned size);
	void *opaque;
	bool unlocked;
	uint8_t max_size; /* 0: 8 (MMIO) or 4 (ports) */
	bool unaligned;   /* handlers get accesses as they come, aligned or not */
	/*
	 * Memory regions only. block: the region is memory, not a device: from block_offset on, `size` bytes
	 * (page-aligned, all three) of the block are seen there, and code runs there as from RAM. Reads never
	 * come to `read`; writes go to the block or, if it is readonly, to `write` (or nowhere if that is
	 * NULL). over_ram: hides RAM; such a region lies below 1 MiB.
	 */
	struct mem_block *block;
	uint64_t block_offset;
	bool readonly, over_ram;
	/* private to mem */
	bool mapped;
	struct io_region *next;
};
/*
 * Memory beside RAM: ROM, video memory. It lies in the same mapping and file as RAM, so the engine treats it
 * alike. size: a multiple of 4 KiB; all blocks together at most MEM_BLOCKS_MAX. Zeroed; given back by
 * mem_free. Before vCPUs run. 0 or -errno.
 */
#define MEM_BLOCKS_MAX (128ull << 20)
struct mem_block;
int mem_block_new(struct mem *m, const char *name, uint64_t size, struct mem_block **ret, struct error *err);
/* What it holds. Who writes here tells mem_block_written if the guest could run code from it. */
uint8_t *mem_block_ptr(struct mem_block *b);
/* Makes it all zeros. While no vCPU runs, or as device memory that no code runs from. */
void mem_block_clear(struct mem_block *b);
uint64_t mem_block_size(const struct mem_block *b);
void mem_block_written(struct mem_block *b, uint64_t offset, uint64_t len);

/* RAM itself as a block, for regions that show it in other ways (read-only); block_offset is an offset in
 * RAM. */
struct mem_block *mem_ram_as_block(struct mem *m);
/* The A20 gate: while it is off, bit 20 of the processors' addresses is 0. It begins on. [io] */
void mem_set_a20(struct mem *m, bool on);

/* Maps/unmaps a region (caller keeps ownership). Later-mapped regions hide earlier ones; RAM hides them all
 * but those with over_ram.
 * [io lock, or before vCPUs run] */
void mem_map_mmio(struct mem *m, struct io_region *r);
void mem_unmap_mmio(struct mem *m, struct io_region *r);
void mem_map_pio(struct mem *m, struct io_region *r);
void mem_unmap_pio(struct mem *m, struct io_region *r);

/* Called by the engine for the vCPU, without the I/O lock. size 1, 2, 4, 8. */
uint64_t mem_mmio_read(struct mem *m, gpa_t gpa, unsigned size);
void mem_mmio_write(struct mem *m, gpa_t gpa, uint64_t value, unsigned size);
uint32_t mem_pio_read(struct mem *m, uint16_t port, unsigned size);
void mem_pio_write(struct mem *m, uint16_t port, uint32_t value, unsigned size);

/* ---- guest memory from devices and loaders (any thread) ---- */

/* Copies; ranges that are not wholly RAM fail with -EFAULT and copy nothing. Writes mark pages dirty and tell
 * the engine of changed code. */
int mem_read(struct mem *m, gpa_t gpa, void *buf, uint64_t len);
int mem_write(struct mem *m, gpa_t gpa, const void *buf, uint64_t len);
/*
 * Pointer to [gpa, gpa+len) if it is wholly RAM and contiguous in the mapping, else NULL.
 * For reading freely; after writing through it call mem_written, or code that the guest
 * runs from there goes stale.
 */
void *mem_ram_ptr(struct mem *m, gpa_t gpa, uint64_t len);
void mem_written(struct mem *m, gpa_t gpa, uint64_t len);
/* The same, and cheaper than one by one, for the first len bytes of a list of such pointers. */
void mem_written_pieces(struct mem *m, const struct iovec *iov, unsigned cnt, uint64_t len);

/* ---- for engines ---- */

enum {
	MEM_PAGE_CODE = 1,  /* some vCPU has translated code from this page */
	MEM_PAGE_DIRTY = 2, /* written since the dirty log was last read */
	MEM_PAGE_MIXED = 4, /* the engine's: with MEM_PAGE_CODE, data is written between the code */
	MEM_PAGE_READY = 8, /* the host was asked to provide it (mem_provide) */
};
/*
 * What a processor finds at an address (A20 is looked at): a pointer to memory of any kind, RAM or block, if
 * [gpa, gpa+len) is contiguous there; NULL: devices. readonly: writes must go by mem_mmio_write.
 */
void *mem_cpu_ptr(struct mem *m, gpa_t gpa, uint64_t len, bool *readonly);
/* Is p, which mem_cpu_ptr gave, in a block, not in RAM? */
bool mem_in_block(const struct mem *m, const void *p);
/* The flag byte of the page that holds host pointer p (from mem_ram_ptr or mem_cpu_ptr). Update atomically.
 */
uint8_t *mem_page_flags(struct mem *m, const void *p);
/* Base of the mapping, a page's number in it, and a name for a host pointer within it that nothing else in
 * the VM has: the guest-physical address for RAM, something above all RAM for blocks. */
void *mem_ram_base(struct mem *m);
uint64_t mem_page_number(const struct mem *m, const void *p);
gpa_t mem_ptr_to_gpa(struct mem *m, const void *p);

/*
 * Has the host provide the pages of [p, p+len) and around, which are about to be touched, at once: a fault
 * for each would take twice the time. What it has provided already costs a look at a flag for each 64 KiB. p
 * is a pointer from mem_ram_ptr or mem_cpu_ptr, len > 0. Any thread; general-regs-only.
 */
void mem_provide(struct mem *m, const void *p, uint64_t len);
/* Was the host asked to provide the page of that number (mem_page_number)? Any thread; general-regs-only. */
bool mem_ready(const struct mem *m, uint64_t page);
/* Starts a thread that does so ahead of a guest that fills memory. Before the vCPUs run; mem_free ends it. */
void mem_ahead_start(struct mem *m);
/* From now on, memory that has been provided is put into huge pages where the host lets us; until mem_free.
 * Starts a thread; without it all goes on, slower. */
void mem_huge_start(struct mem *m);

/*
 * Told of writes (by devices) to pages with MEM_PAGE_CODE, which host points at (none crosses a page), and
 * when memory appeared, vanished or changed its kind at some address.
 */
struct mem_notifier {
	void (*code_written)(void *opaque, void *host, uint64_t len);
	void (*layout_changed)(void *opaque);
	void *opaque;
};
void mem_set_notifier(struct mem *m, const struct mem_notifier *n);

/* True if [gpa, gpa+1) is writable RAM. */
bool mem_is_ram(const struct mem *m, gpa_t gpa);

#endif
