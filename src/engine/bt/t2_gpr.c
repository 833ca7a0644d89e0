/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of T2 that runs inside T1: what user code costs there, and what the
 * guest invalidates.  Nothing here touches a stub; notes are taken, which t2_run
 * reads before the stub runs again.
 */
#include "engine/bt/t2.h"

#include <sys/syscall.h>

#include "base/raw_syscall.h"
#include "base/util.h"
#include "engine/bt/mmu.h"

/* What user code takes in T1, in 256ths of what it takes natively: at least and at most. */
#define T1_BEST  264
#define T1_WORST (5 * 256)
/* No stretch counts for more than so many long_ticks: a few short ones are to outweigh it. */
#define T2_LONGEST 4
/* The other way is tried for so many stretches in a row, each time after twice as many as before. */
#define T2_TRIES      4
#define T2_FIRST_WAIT 64
#define T2_LAST_WAIT  8192
/* At so many blocks that had to be translated a stretch leaves T1: they took about as long as a switch. */
#define T2_COLD 2
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

static uint64_t in_t1(const struct t2_expect *e)
{
	return e->length * t2_slower(e) / 256;
}

static uint64_t longest(const struct t2 *t)
{
	return T2_LONGEST * t->long_ticks;
}

/* So long that it may have been more, which is not counted. */
static bool near_longest(const struct t2 *t, uint64_t length)
{
	return length >= longest(t) / 4 * 3;
}

/*
 * Reading the clock costs as much as a short stretch.  Where those after the
 * same cause have been far from being worth a stub, only some are measured.
 */
static bool worth_measuring(struct t2 *t)
{
	const struct t2_expect *e = t->space ? &t->space->expect[t->cause] : NULL;

	return !e || in_t1(e) >= t->switch_ticks || (++t->sample % T2_SAMPLE) == 0;
}

/* A moving average. */
static uint64_t approach(uint64_t average, uint64_t next)
{
	return (uint64_t)((int64_t)average + ((int64_t)next - (int64_t)average) / 4);
}

/* While nothing is known of the ways to the stub, they count twice what they take at best, and after a fault
 * more: another is likely. */
static bool t1_is_cheaper(const struct t2 *t, const struct t2_expect *e)
{
	uint64_t ways = e->ways ? e->ways : 2 * t->long_ticks << t2_is_fault(t->cause);

	return in_t1(e) <= e->length + ways;
}

/* A stretch of a trial took so long. After the last: how much longer does T1 take? */
static void learn_from_trial(struct t2 *t, struct t2_expect *e, uint64_t took)
{
	uint64_t t1 = in_t1(e), length = e->length, now;
	bool cheaper = t1_is_cheaper(t, e);

	e->tried += (uint32_t)min_u64(took, longest(t) * T1_WORST / 256);
	if (++e->n_tried < T2_TRIES - 1)
		return;
	took = e->tried / e->n_tried;
	if (e->to_t1)
		t1 = took;
	else
		length = took;
	if (near_longest(t, length)) {
		/* Beyond what is counted they cannot be compared, but the ways hardly matter. */
		now = T2_T1_SLOWER;
	} else {
		now = length ? min_u64(t1 * 256 / length, T1_WORST) : T1_WORST;
		now = max_u64(now, T1_BEST);
	}
	e->slower = (uint16_t)((t2_slower(e) + now) / 2);
	if (!e->to_t1)
		e->length = (uint32_t)min_u64(t1 * 256 / e->slower, longest(t));
	if (t1_is_cheaper(t, e) != cheaper)
		e->wait = 0;
}

/* The stretch of user code that ends now. */
static void account(struct t2 *t, struct t2_space *s)
{
	struct t2_expect *e = &s->expect[t->cause];
	uint64_t spent, length, ways;
	bool begun_in_t1;

	if (!t->since)
		return;
	spent = __builtin_ia32_rdtsc() - t->since;
	if (!s->on && spent >= t->long_ticks) {
		s->long_ticks += spent;
		s->look |= s->long_ticks >= t->promote_ticks << s->backoff;
	}
	if (t->trial == T2_TRIAL_COLD)
		return;
	begun_in_t1 = t->direct && t->t1_ticks > t->switch_ticks;
	if (t->direct && !begun_in_t1) {
		ways = spent - min_u64(t->direct_ticks + t->mapped_ticks, spent);
		e->ways = (uint32_t)min_u64(e->ways ? approach(e->ways, ways) : ways, longest(t));
	}
	if (t->trial != T2_NO_TRIAL) {
		/* It may not have gone the way that was to be tried. */
		if (e->to_t1 ? !t->direct && !t->cold : t->direct && !begun_in_t1)
			learn_from_trial(t, e, t->direct ? t->direct_ticks : spent);
		return;
	}
	length = t->direct ? t->direct_ticks : spent * 256 / t2_slower(e);
	if (begun_in_t1)
		length += t->t1_ticks * 256 / t2_slower(e);
	e->length = (uint32_t)approach(e->length, min_u64(length, longest(t)));
}

/* Where the stretch that begins, of a root with a stub, is to run: T1? */
static bool prefers_t1(struct t2 *t, struct t2_expect *e)
{
	bool t1 = t1_is_cheaper(t, e);

	/* Not worth a trial: a stub would only lose; or they are so long that T1 could gain little. */
	if (t1 ? in_t1(e) < t->switch_ticks : near_longest(t, e->length))
		return t1;
	if (e->left > 1 - T2_TRIES && e->wait) {
		e->left--;
	} else {
		e->wait = e->wait ? (int16_t)min_u64((uint64_t)e->wait * 2, T2_LAST_WAIT) : T2_FIRST_WAIT;
		e->left = e->wait;
	}
	if (e->left > 0)
		return t1;
	if (e->left == 0) {
		e->to_t1 = !t1;
		e->n_tried = 0;
		e->tried = 0;
		t->trial = T2_TRIAL_COLD;
	} else {
		t->trial = T2_TRIAL;
	}
	if (!t->since)
		t->since = __builtin_ia32_rdtsc();
	return e->to_t1;
}

/* The stretch that begins stays in T1: has the timer look after it, if such a one was long lately. */
static void watch_hold(struct vcpu *v)
{
	struct t2 *t = v->t2;
	struct itimerspec when = { 0 };

	t->watched = false;
	if (!t->hold || t->armed || (!t->space->expect[t->cause].surprise && t->trial == T2_NO_TRIAL))
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
	s->expect[t->cause].surprise = T2_SURPRISES;
	return true;
}

void t2_translated(struct vcpu *v)
{
	struct t2 *t = v->t2;

	if (t && t->hold && t->space && t->space->on && !t->flip && ++t->cold >= T2_COLD)
		t->hold = false;
}

/* A stretch that stayed in T1 ends: may there be long ones among those after the same cause? */
static void learn(struct t2 *t, struct t2_space *s, bool by_irq)
{
	uint8_t *n = &s->expect[t->cause].surprise;

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
		t->trial = T2_NO_TRIAL;
		t->cold = 0;
		t->direct = false;
		t->direct_ticks = t->mapped_ticks = 0;
		t->unfit_page = NO_PAGE;
		if (t->always || t->flip) {
			t->hold = t->flip && !t->hold;
			if (t->space)
				t->space->look = true;
			return;
		}
		t->hold = t->space && t->space->on && prefers_t1(t, &t->space->expect[t->cause]);
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
