/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranked locks.
 *
 * Every mutex has a rank; a thread may only take a lock of a higher rank than
 * all that it holds.  Debug builds (NDEBUG unset) check that and abort with
 * both names, so a deadlock shows the first time that the order is wrong, not
 * the first time that it bites.
 */
#ifndef SILL_BASE_LOCK_H
#define SILL_BASE_LOCK_H

#include <pthread.h>

enum lock_rank {
	LOCK_RANK_VM = 10,     /* vm->lock: lifecycle */
	LOCK_RANK_IO = 20,     /* device state: MMIO/PIO dispatch, event-loop callbacks */
	LOCK_RANK_LOOP = 30,   /* the event loop's own lists */
	LOCK_RANK_IRQ = 40,    /* interrupt controllers' state shared with vCPU threads */
	LOCK_RANK_MEM = 50,    /* guest-memory notifiers, dirty log */
	LOCK_RANK_ENGINE = 60, /* engine-internal */
	LOCK_RANK_LEAF = 90,   /* nothing is taken under it */
};

struct mutex {
	pthread_mutex_t m;
	enum lock_rank rank;
	const char *name;
};

void mutex_init(struct mutex *m, enum lock_rank rank, const char *name);
void mutex_destroy(struct mutex *m);
void mutex_lock(struct mutex *m);
void mutex_unlock(struct mutex *m);
/* True if the calling thread holds m (debug builds; always true under NDEBUG). For assertions of our own
 * invariants. */
int mutex_held(const struct mutex *m);

#endif
