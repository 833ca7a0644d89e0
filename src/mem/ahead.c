/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread that has the host provide guest memory before the guest gets there
 * (look_ahead in ram_gpr.c says what).  A fresh page costs the host 1 to 8 us, mostly
 * for finding and clearing it, which otherwise the vCPU waits for.
 */
#include "base/thread.h"
#include "base/util.h"
#include "mem/mem_internal.h"

#define STACK_SIZE KIB(256)

static void *ahead_thread(void *opaque)
{
	struct mem *m = opaque;
	uint32_t seen = 0;

	while (!atomic_load(&m->ahead.quit)) {
		uint64_t want, end;

		mem_wait_on(&m->ahead.posted, seen, 0);
		seen = atomic_load(&m->ahead.posted);
		want = atomic_load(&m->ahead.want);
		end = (want >> 16) + (want & 0xffff);
		for (uint64_t i = want >> 16; i < end && !atomic_load(&m->ahead.quit);
		     i += PIECE_SIZE / PAGE_SIZE)
			if (!mem_ready(m, i))
				mem_provide_piece(m, i);
	}
	return NULL;
}

void mem_ahead_start(struct mem *m)
{
	m->ahead.started = thread_start(&m->ahead.thread, "sill-mem", STACK_SIZE, ahead_thread, m) == 0;
}

void mem_ahead_stop(struct mem *m)
{
	if (!m->ahead.started)
		return;
	atomic_store(&m->ahead.quit, true);
	atomic_fetch_add(&m->ahead.posted, 1);
	mem_wake(&m->ahead.posted);
	pthread_join(m->ahead.thread, NULL);
	m->ahead.started = false;
}
