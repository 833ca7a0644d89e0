/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rank check keeps, per thread, the list of mutexes that it holds.  Ranks
 * on the list rise strictly, so comparing with the last one would do if locks
 * were always released in reverse order; they need not be, so all are compared.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/lock.h"

#ifndef NDEBUG

#define HELD_MAX 16

static __thread const struct mutex *held[HELD_MAX];
static __thread unsigned nr_held;

static void check_rank(const struct mutex *m)
{
	for (unsigned i = 0; i < nr_held; i++) {
		if (held[i]->rank < m->rank)
			continue;
		fprintf(stderr, "sill: lock order: taking %s (rank %d) while holding %s (rank %d)\n", m->name,
			(int)m->rank, held[i]->name, (int)held[i]->rank);
		abort();
	}
	if (nr_held == HELD_MAX) {
		fprintf(stderr, "sill: lock order: a thread holds more than %d locks\n", HELD_MAX);
		abort();
	}
}

static void note_locked(const struct mutex *m)
{
	held[nr_held++] = m;
}

static void note_unlocked(const struct mutex *m)
{
	for (unsigned i = nr_held; i-- > 0;) {
		if (held[i] != m)
			continue;
		for (; i + 1 < nr_held; i++)
			held[i] = held[i + 1];
		nr_held--;
		return;
	}
	fprintf(stderr, "sill: lock order: releasing %s, which this thread does not hold\n", m->name);
	abort();
}

int mutex_held(const struct mutex *m)
{
	for (unsigned i = 0; i < nr_held; i++)
		if (held[i] == m)
			return 1;
	return 0;
}

#else

static void check_rank(const struct mutex *m)
{
	(void)m;
}

static void note_locked(const struct mutex *m)
{
	(void)m;
}

static void note_unlocked(const struct mutex *m)
{
	(void)m;
}

int mutex_held(const struct mutex *m)
{
	(void)m;
	return 1;
}

#endif

void mutex_init(struct mutex *m, enum lock_rank rank, const char *name)
{
	pthread_mutex_init(&m->m, NULL);
	m->rank = rank;
	m->name = name;
}

void mutex_destroy(struct mutex *m)
{
	pthread_mutex_destroy(&m->m);
}

void mutex_lock(struct mutex *m)
{
	check_rank(m);
	pthread_mutex_lock(&m->m);
	note_locked(m);
}

void mutex_unlock(struct mutex *m)
{
	note_unlocked(m);
	pthread_mutex_unlock(&m->m);
}
