/* SPDX-License-Identifier: Apache-2.0 */
/* What a disk format implements, and what it may know of struct block. */
#ifndef SILL_BLOCK_INTERNAL_H
#define SILL_BLOCK_INTERNAL_H

#include "block/block.h"

struct block_driver {
	const char *name;
	/* fd: the open, locked file, owned by block.c. Sets *ret_size (bytes). Reads beyond it, which block.c
	 * allows in the last sector and after block_extend, give zeroes. 0/-errno. */
	int (*open)(int fd, const char *path, bool readonly, void **ret_state, uint64_t *ret_size,
		    struct error *err);
	void (*close)(void *state);
	/* Does the request, blocking; several threads at once. 0 or -errno. May alter r->iov. */
	int (*run)(void *state, struct block_req *r);
	/*
	 * Does the request if that needs no waiting: 0 done, -EAGAIN to have it
	 * run() in a thread, other -errno failed. May be NULL.
	 */
	int (*try_now)(void *state, struct block_req *r);
	/* Would two writes at once only wait for each other? */
	bool (*one_writer)(void *state);
};

extern const struct block_driver block_raw;

#endif
