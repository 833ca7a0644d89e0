/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Huge pages for guest memory.
 *
 * Guest memory is shared (stubs map it too), and hosts give shared memory pages
 * of 4 KiB unless their administrator says otherwise.  A guest whose memory lies
 * in such pages misses the processor's TLB as often as a program does, even where
 * its own tables map 2 MiB at once, and each piece of it costs faults in every
 * stub.  But a process may ask for what it has to be put together
 * (MADV_COLLAPSE, Linux 6.1), whatever the host's default.  Only ripe chunks of
 * 2 MiB are: those of which half has been provided, so that a guest takes at
 * most twice the memory that it touches, and in practice hardly more.
 *
 * The work is done by a thread beside the vCPUs, which learns of ripe chunks by a
 * counter that mem_provide moves (a futex).  A vCPU that touches a chunk meanwhile
 * waits for it in the host's page fault.  A chunk takes a third of a millisecond
 * where the host has such pages, but ten times that where it is a virtual machine
 * whose own free memory was given back; so the thread rests twenty times as long
 * as it worked.  A VM that runs for seconds is not disturbed, one that runs for
 * hours gets there soon enough.
 *
 * The host may refuse: for a while (pages are locked or pinned, no free 2 MiB)
 * and then is asked some times more; or for good (older Linux), and the thread
 * ends.  Nothing depends on it but speed.
 */
#include <errno.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/thread.h"
#include "base/util.h"
#include "mem/mem_internal.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define TRIES      5 /* so often the host is asked for one chunk */
#define RETRY_NS   1000000000ll
#define STACK_SIZE KIB(256)
#define REST       20 /* times the work */

enum { CHUNK_DONE = 0xff }; /* in tries[] */

void mem_wait_on(_Atomic uint32_t *word, uint32_t seen, int64_t ns)
{
	struct timespec t = { ns / 1000000000, ns % 1000000000 };

	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, ns ? &t : NULL, NULL, 0);
}

void mem_wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

/* The host's answer (0 or -errno), after a rest. */
static int collapse(struct mem *m, uint64_t chunk)
{
	int64_t start = now_ns();
	int r = madvise(m->ram + chunk * HUGE_SIZE, HUGE_SIZE, MADV_COLLAPSE) ? -errno : 0;

	mem_wait_on(&m->huge.quit, 0, (now_ns() - start) * REST);
	return r;
}

/* Goes over all chunks once. True: some are to be tried again. */
static bool collapse_ripe(struct mem *m, uint8_t *tries)
{
	struct mem_huge *h = &m->huge;
	bool again = false;

	for (uint64_t i = 0; i < h->nr_chunks && !atomic_load(&h->quit); i++) {
		if (atomic_load_explicit(&h->pieces[i], memory_order_relaxed) < HUGE_RIPE ||
		    tries[i] == CHUNK_DONE)
			continue;
		switch (collapse(m, i)) {
		case -EAGAIN:
		case -EBUSY:
		case -ENOMEM:
		case -EINTR:
			if (++tries[i] == TRIES)
				tries[i] = CHUNK_DONE;
			else
				again = true;
			break;
		case -EINVAL:
			/* Not for this mapping, or not known to this host at all. */
			atomic_store(&h->quit, 1);
			break;
		default:
			tries[i] = CHUNK_DONE;
		}
	}
	return again;
}

static void *huge_thread(void *opaque)
{
	struct mem *m = opaque;
	struct mem_huge *h = &m->huge;
	uint8_t *tries = calloc(h->nr_chunks, 1);

	while (tries && !atomic_load(&h->quit)) {
		uint32_t seen = atomic_load(&h->ripe);
		bool again = collapse_ripe(m, tries);

		if (again)
			mem_wait_on(&h->quit, 0, RETRY_NS);
		else
			mem_wait_on(&h->ripe, seen, 0);
	}
	free(tries);
	return NULL;
}

void mem_huge_start(struct mem *m)
{
	struct mem_huge *h = &m->huge;

	h->nr_chunks = m->ram_size / HUGE_SIZE;
	h->pieces = h->nr_chunks ? calloc(h->nr_chunks, 1) : NULL;
	if (h->pieces && thread_start(&h->thread, "sill-huge", STACK_SIZE, huge_thread, m) == 0)
		h->started = true;
}

void mem_huge_stop(struct mem *m)
{
	struct mem_huge *h = &m->huge;

	if (h->started) {
		atomic_store(&h->quit, 1);
		atomic_fetch_add(&h->ripe, 1);
		mem_wake(&h->quit);
		mem_wake(&h->ripe);
		pthread_join(h->thread, NULL);
	}
	free(h->pieces);
	h->pieces = NULL;
}
