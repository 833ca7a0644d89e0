/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by mem.c and ram_gpr.c. */
#ifndef SILL_MEM_MEM_INTERNAL_H
#define SILL_MEM_MEM_INTERNAL_H

#include <stdatomic.h>

#include "mem/mem.h"

#define HIGH_BASE 0x100000000ull

struct interval {
	uint64_t first, last; /* inclusive: a region may end at the top of the address space */
	struct io_region *r;
};

struct snapshot {
	unsigned nr;
	struct interval at[];
};

struct space {
	struct io_region *regions; /* latest first; [io lock] */
	_Atomic(struct snapshot *) snap;
	atomic_uint readers;
	uint8_t max_size;
};

struct mem {
	struct mutex *io_lock;
	uint64_t ram_size, low_size;
	int fd;
	uint8_t *ram;
	void *reserved; /* the address range that holds ram, guards included */
	size_t reserved_size;
	uint8_t *flags; /* one byte per page of ram; updated atomically */
	struct space mmio, pio;
	struct mem_notifier notifier;
};

/* The offset in the mapping of [gpa, gpa+len), or UINT64_MAX if that is not all RAM in one piece. */
uint64_t mem_ram_offset(const struct mem *m, uint64_t gpa, uint64_t len);

#endif
