/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of this folder. */
#ifndef SILL_MEM_MEM_INTERNAL_H
#define SILL_MEM_MEM_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "mem/mem.h"

#define HIGH_BASE 0x100000000ull
/* The host provides memory in pieces, and puts a chunk together when so many of its pieces are there. */
#define PIECE_SIZE 0x10000ull
#define HUGE_SIZE  0x200000ull
#define HUGE_RIPE  (HUGE_SIZE / PIECE_SIZE / 2)

struct interval {
	uint64_t first, last; /* inclusive: a region may end at the top of the address space */
	struct io_region *r;
};

struct snapshot {
	unsigned nr;
	struct interval at[];
};

struct mem_block {
	struct mem *mem;
	struct mem_block *next;
	const char *name;
	uint64_t offset, size; /* in the mapping */
};

/* What is below 1 MiB, page by page: an offset in the mapping, and: */
#define LOW_PAGES    256u
#define LOW_NONE     1u /* no memory: devices or nothing */
#define LOW_READONLY 2u

struct space {
	struct io_region *regions; /* latest first; [io lock] */
	_Atomic(struct snapshot *) snap;
	atomic_uint readers;
	uint8_t max_size;
};

/* See huge.c. */
struct mem_huge {
	_Atomic uint8_t
	    *pieces; /* of each whole chunk of RAM: how many were provided; NULL: nobody wants to know */
	uint64_t nr_chunks;
	_Atomic uint32_t ripe; /* counts chunks that became ripe; a futex */
	_Atomic uint32_t quit; /* a futex, too */
	bool started;
	pthread_t thread;
};

/* See ahead.c. */
struct mem_ahead {
	_Atomic uint64_t want;   /* first page << 16 | pages */
	_Atomic uint32_t posted; /* a futex: grows with each new want */
	atomic_bool quit;
	bool started;
	pthread_t thread;
};

struct mem {
	struct mutex *io_lock;
	uint64_t ram_size, low_size;
	uint64_t map_size; /* RAM and after it the blocks */
	_Atomic uint64_t low[LOW_PAGES];
	_Atomic uint64_t a20_mask; /* what the processors' addresses are ANDed with */
	struct mem_block ram_block, *blocks;
	uint64_t blocks_used; /* bytes after RAM */
	int fd;
	uint8_t *ram;
	void *reserved; /* the address range that holds ram, guards included */
	size_t reserved_size;
	uint8_t *flags; /* one byte per page of ram; updated atomically */
	struct space mmio, pio;
	struct mem_notifier notifier;
	struct mem_huge huge;
	struct mem_ahead ahead;
};

/* The offset in the mapping of [gpa, gpa+len), or UINT64_MAX if that is not all writable RAM in one piece. */
uint64_t mem_ram_offset(const struct mem *m, uint64_t gpa, uint64_t len);
/* The same for memory of any kind. */
uint64_t mem_offset(struct mem *m, uint64_t gpa, uint64_t len, bool *readonly);
void mem_huge_stop(struct mem *m);
void mem_ahead_stop(struct mem *m);
/* Has the host provide the piece that begins with page `first`. General-regs-only. */
void mem_provide_piece(struct mem *m, uint64_t first);
/* Futexes of this folder's threads: waits until the word is not `seen` any more, or for so long (0: for
 * ever). */
void mem_wait_on(_Atomic uint32_t *word, uint32_t seen, int64_t ns);
void mem_wake(_Atomic uint32_t *word);
/* An address as it leaves a processor: behind the A20 gate. */
uint64_t mem_cpu_address(const struct mem *m, uint64_t pa);
const struct interval *mem_find_interval(const struct snapshot *s, uint64_t addr);

#endif
