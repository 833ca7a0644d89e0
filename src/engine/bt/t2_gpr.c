/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of T2 that runs inside T1: what user code costs there, and what the
 * guest invalidates.  Nothing here touches a stub; notes are taken, which t2_run
 * reads before the stub runs again.
 */
#include "engine/bt/t2.h"

#include <sys/syscall.h>

#include "base/raw_syscall.h"
#include "engine/bt/mmu.h"

/* How much longer user code takes in T1, about. */
#define T1_SLOWER 3
/* One of so many short stretches is measured. */
#define T2_SAMPLE 8
/* Stretches in T1 that the timer watches after one that was too long; what is too long, in long_ticks. */
#define T2_SURPRISES 32
#define T2_PATIENCE  8

static uint64_t root_of(const struct vcpu *v)
{
	return v->st.cr3 & v->phys_mask & ~0xfffull;
}

/* The record of a root: its own, or that of the least recently used without a stub. */
static struct t2_space *find_space(struct t2 *t, uint64_t root)
{
	struct t2_space *set = &t->spaces[(root >> 12 ^ root >> 18) % T2_SETS * T2_WAYS], *victim = NULL;

	for (int i = 0; i < T2_WAYS; i++) {
		if (set[i].root == root)
			return &set[i];
		if (!set[i].map && (!victim || set[i].last_used < victim->last_used))
			victim = &set[i];
	}
	if (!victim)
		return NULL;
	*victim = (struct t2_space){ .root = root };
	return victim;
}

void t2_root_loaded(struct vcpu *v, bool flush)
{
	struct t2 *t = v->t2;
	struct t2_space *s;

	if (!t)
		return;
	s = NULL;
	if ((v->st.cr0 & CR0_PG) && (v->st.efer & EFER_LMA))
		s = find_space(t, root_of(v));
	t->space = s;
	if (!s)
		return;
	s->last_used = ++t->clock;
	s->pcid = (v->st.cr4 & CR4_PCIDE) ? v->st.cr3 & 0xfff : 0;
	s->stale |= flush;
}

/*
 * Reading the clock costs as much as a short stretch.  Where those after the
 * same cause have been far from being worth a stub, only some are measured.
 */
static bool worth_measuring(struct t2 *t)
{
	const struct t2_space *s = t->space;

	return !s || s->expect[t->cause] >= t->long_ticks / 4 || (++t->sample % T2_SAMPLE) == 0;
}

/* The stretch of user code that ends now. */
static void account(struct t2 *t, struct t2_space *s)
{
	uint64_t spent, length;
	uint32_t *e = &s->expect[t->cause];

	if (!t->since)
		return;
	spent = __builtin_ia32_rdtsc() - t->since;
	length = t->direct ? t->direct_ticks : spent / T1_SLOWER;
	if (!s->on && spent >= t->long_ticks) {
		s->long_ticks += spent;
		s->look |= s->long_ticks >= t->promote_ticks << s->backoff;
	}
	/* No stretch counts for so much that a few short ones would not outweigh it. */
	if (length > 4 * t->long_ticks)
		length = 4 * t->long_ticks;
	*e = (uint32_t)((int64_t)*e + ((int64_t)length - (int64_t)*e) / 4);
}

/* The stretch that begins stays in T1: has the timer look after it, if such a one was long lately. */
static void watch_hold(struct vcpu *v)
{
	struct t2 *t = v->t2;
	struct itimerspec when = { 0 };

	t->watched = false;
	if (!t->hold || !t->space->surprise[t->cause] || t->armed)
		return;
	when.it_value.tv_nsec = (long)(t->long_ticks * T2_PATIENCE * 1000000 / v->model->tsc_khz);
	if (!when.it_value.tv_nsec || when.it_value.tv_nsec > 999999999)
		return;
	if (!t->since)
		t->since = __builtin_ia32_rdtsc();
	/* First: on a busy host its signal may be here before the call has returned. */
	t->armed = t->watched = true;
	if (raw_syscall4(SYS_timer_settime, (unsigned long)t->timer, 0, (unsigned long)&when, 0))
		t->armed = t->watched = false;
}

bool t2_hold_over(struct vcpu *v)
{
	struct t2 *t = v->t2;
	/* While the vCPU is parked another thread may change it. */
	struct t2_space *s = __atomic_load_n(&t->space, __ATOMIC_RELAXED);

	t->armed = false;
	if (!t->user || !t->watched || !t->hold || !s)
		return false;
	t->hold = false;
	s->surprise[t->cause] = T2_SURPRISES;
	return true;
}

/* A stretch that stayed in T1 ends: may there be long ones among those after the same cause? */
static void learn(struct t2 *t, struct t2_space *s, bool by_irq)
{
	uint8_t *n = &s->surprise[t->cause];

	if (t->watched && *n)
		--*n;
	else if (by_irq && !*n)
		*n = 1;
}

void t2_mode(struct vcpu *v, bool user)
{
	struct t2 *t = v->t2;

	if (!t || user == t->user)
		return;
	t->user = user;
	if (user) {
		t->since = worth_measuring(t) ? __builtin_ia32_rdtsc() : 0;
		t->direct = false;
		t->direct_ticks = 0;
		if (t->always || t->flip) {
			t->hold = t->flip && !t->hold;
			if (t->space)
				t->space->look = true;
			return;
		}
		/* After a fault there is also a page to map. */
		t->hold = t->space && t->space->on &&
			  t->space->expect[t->cause] < t->long_ticks << (t->cause == T2_CAUSE_FAULT);
		watch_hold(v);
		return;
	}
	if (t->space)
		account(t, t->space);
	if (t->space && t->hold)
		learn(t, t->space, v->t2_cause == T2_CAUSE_IRQ);
	/* One that an interrupt ended may have been long: the next will be measured. */
	if (v->t2_cause == T2_CAUSE_IRQ)
		t->sample = T2_SAMPLE - 1;
	t->cause = v->t2_cause;
}

static void note(struct t2_space *s, uint64_t va)
{
	if (!s->map || s->stale)
		return;
	if (s->n_invals == T2_INVALS)
		s->stale = true;
	else
		s->invals[s->n_invals++] = va;
}

static void each(struct t2 *t, bool any, uint16_t pcid, bool one, uint64_t va)
{
	for (int i = 0; i < T2_SETS * T2_WAYS; i++) {
		struct t2_space *s = &t->spaces[i];

		if (!s->map || (!any && s->pcid != pcid))
			continue;
		if (one)
			note(s, va);
		else
			s->stale = true;
	}
}

void t2_invlpg(struct vcpu *v, uint64_t va)
{
	struct t2 *t = v->t2;

	/* Global translations go from every PCID (SDM 3A 4.10.4.1). */
	if (t && t->globals)
		each(t, true, 0, true, va);
	else if (t && t->space)
		note(t->space, va);
}

void t2_flush_all(struct vcpu *v)
{
	if (v->t2 && v->t2->n_maps)
		each(v->t2, true, 0, false, 0);
}

void t2_flush_pcid(struct vcpu *v, uint16_t pcid)
{
	if (v->t2 && v->t2->n_maps)
		each(v->t2, false, pcid, false, 0);
}

void t2_invlpg_pcid(struct vcpu *v, uint16_t pcid, uint64_t va)
{
	if (v->t2 && v->t2->n_maps)
		each(v->t2, false, pcid, true, va);
}
