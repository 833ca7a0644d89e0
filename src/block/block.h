/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Block backends: one small asynchronous interface to a disk image.
 *
 * A caller fills a struct block_req, submits it, and is called back exactly
 * once, under the I/O lock: in the event loop's thread, in block_drain, or
 * within block_submit itself when the data was at hand (a read that the host's
 * page cache satisfies is not worth a thread switch).  Requests may complete
 * in any order; a flush covers the writes whose callbacks ran before it was
 * submitted, as the virtio and ATA specifications ask and no more.
 *
 * Data goes straight to and from the memory that the iovecs point at (guest
 * RAM).  Who owns that memory must tell src/mem of the change (mem_written) in
 * the callback, before the guest learns of the completion; this folder knows
 * nothing of guests.
 *
 * The work is done by a few threads per disk, made when first needed.
 */
#ifndef SILL_BLOCK_BLOCK_H
#define SILL_BLOCK_BLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/loop.h"

#define BLOCK_SECTOR 512u

enum block_format { BLOCK_FORMAT_RAW };

enum block_op {
	BLOCK_READ,
	BLOCK_WRITE,
	BLOCK_FLUSH,   /* written data reaches stable storage */
	BLOCK_DISCARD, /* the range's content no longer matters; a hint */
	BLOCK_ZEROES,  /* the range reads as zeroes */
};

struct block_req {
	enum block_op op;
	bool unmap; /* BLOCK_ZEROES: the space may be given back */
	/* All four may be altered until completion. */
	uint64_t offset;   /* bytes; unused by BLOCK_FLUSH */
	uint64_t len;      /* bytes; for reads and writes the iovecs' sum */
	struct iovec *iov; /* memory that stays valid until completion */
	unsigned iovcnt;
	/* result: 0 or -errno. The request is the caller's again. [io] */
	void (*done)(struct block_req *r, int result);
	void *opaque;
	/* private to src/block */
	struct crew *crew; /* others share the work */
	int result;
	struct block_req *next;
};

struct block;

/*
 * Opens a disk image and locks it: exclusively, or shared with other readers if
 * readonly.  loop: where completions are delivered; it must outlive the block.
 * Failures that a person causes (missing file, no permission, directory, file
 * in use, too short) are one sentence in err.  0 or -errno.
 */
int block_open(struct loop *loop, const char *path, bool readonly, enum block_format format,
	       struct block **ret, struct error *err);
/* [io] Drains, stops the threads, closes. NULL is allowed. */
void block_close(struct block *b);

/* Size in bytes as the guest sees it: a multiple of BLOCK_SECTOR, at least one sector. */
uint64_t block_size(const struct block *b);
/*
 * Before the first request: makes the disk at least as large, a multiple of BLOCK_SECTOR. What the
 * file lacks reads as zeroes, and a write there makes the file longer.
 */
void block_extend(struct block *b, uint64_t size);
bool block_readonly(const struct block *b);

/*
 * [io] Starts a request; see above for when `done` runs. A range outside the
 * disk completes with -EINVAL, a change of a read-only disk with -EROFS.
 */
void block_submit(struct block *b, struct block_req *r);
/*
 * [io] Waits until nothing is in flight, running callbacks meanwhile. A
 * callback that submits more prolongs it. For reset, saving and quitting.
 */
void block_drain(struct block *b);
/* [io] Requests submitted whose callback has not run yet. */
unsigned block_in_flight(const struct block *b);

#endif
