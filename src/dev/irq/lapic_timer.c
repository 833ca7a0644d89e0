/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local APIC's timer (SDM 3A 11.5.4): one-shot, periodic, TSC-deadline.
 *
 * All times are virtual nanoseconds.  Nothing counts: `timer_deadline` is when the
 * count will reach zero, and the current count is computed from it when it is
 * read.  In TSC-deadline mode it is computed anew from the guest's TSC each time.
 *
 * Only the vCPU's thread fires the timer, in lapic_timer_poll, which the host
 * calls after the kick that arm_timer promised.  `armed` is what the host was told
 * last, so that it is told only news.  A write that changes mode or divisor
 * first deals with what expired under the old one (lapic_timer_advance_locked),
 * and its caller arms the host when the lock is free.
 */
#include "dev/irq/lapic_internal.h"

/* A periodic timer faster than this would leave the guest no time for anything else, and us neither. */
#define MIN_PERIOD_NS 20000

bool lapic_timer_register(unsigned reg)
{
	return reg == REG_LVT_TIMER || reg == REG_TIMER_INITIAL || reg == REG_TIMER_DIVIDE || reg == REG_SVR;
}

static uint32_t timer_divisor(const struct lapic *l)
{
	unsigned code = (l->timer_divide & 3) | (l->timer_divide >> 1 & 4);

	return code == 7 ? 1 : 2u << code; /* SDM 3A figure 11-10 */
}

static int64_t timer_period(const struct lapic *l)
{
	return (int64_t)l->timer_initial * timer_divisor(l);
}

/* The virtual time at which the TSC will show the deadline, rounded up; past ones give now. */
static int64_t tsc_deadline_ns(const struct lapic *l, int64_t now)
{
	uint64_t tsc = l->host.tsc_now(l->host.opaque), left;
	unsigned __int128 ns;

	if (tsc >= l->tsc_deadline)
		return now;
	left = l->tsc_deadline - tsc;
	ns = ((unsigned __int128)left * 1000000 + l->host.tsc_khz - 1) / l->host.tsc_khz;
	return ns > (uint64_t)(INT64_MAX - 1 - now) ? INT64_MAX - 1 : now + (int64_t)ns;
}

void lapic_timer_advance_locked(struct lapic *l, int64_t now)
{
	if (lapic_timer_mode(l) == TIMER_TSC_DEADLINE) {
		if (!l->tsc_deadline) {
			l->timer_deadline = INT64_MAX;
			return;
		}
		/* Computed anew each time: the guest may have moved its TSC. */
		l->timer_deadline = tsc_deadline_ns(l, now);
		if (l->timer_deadline > now)
			return;
		l->tsc_deadline = 0;
		l->timer_deadline = INT64_MAX;
		lapic_lvt_fire_locked(l, LVT_TIMER);
		return;
	}
	if (l->timer_deadline > now)
		return;
	if (lapic_timer_mode(l) == TIMER_PERIODIC && l->timer_initial) {
		int64_t period = timer_period(l);

		/* Expiries that nobody came to see merge into one, as they would in IRR. */
		l->timer_deadline += ((now - l->timer_deadline) / period + 1) * period;
	} else {
		l->timer_deadline = INT64_MAX;
	}
	lapic_lvt_fire_locked(l, LVT_TIMER);
}

uint32_t lapic_timer_current(const struct lapic *l, int64_t now)
{
	int64_t left;

	if (lapic_timer_mode(l) == TIMER_TSC_DEADLINE || l->timer_deadline == INT64_MAX)
		return 0;
	left = l->timer_deadline - now;
	if (left <= 0) {
		if (lapic_timer_mode(l) != TIMER_PERIODIC || !l->timer_initial)
			return 0;
		left = timer_period(l) - -left % timer_period(l);
	}
	left = (left + timer_divisor(l) - 1) / timer_divisor(l);
	return left > l->timer_initial ? l->timer_initial : left;
}

/* When the host should kick us, given that a masked entry has nothing to say. */
static int64_t timer_wanted(const struct lapic *l, int64_t now)
{
	if (l->timer_deadline == INT64_MAX || !lapic_hw_enabled(l))
		return INT64_MAX;
	if (lapic_timer_mode(l) != TIMER_TSC_DEADLINE && (l->lvt[LVT_TIMER] & LVT_MASKED))
		return INT64_MAX;
	if (lapic_timer_mode(l) == TIMER_PERIODIC && timer_period(l) < MIN_PERIOD_NS &&
	    l->timer_deadline < now + MIN_PERIOD_NS)
		return now + MIN_PERIOD_NS;
	return l->timer_deadline;
}

void lapic_timer_arm(struct lapic *l, bool force)
{
	int64_t want = timer_wanted(l, lapic_now_ns(l));

	if (want == l->armed && !force)
		return;
	l->armed = want;
	l->host.arm_timer(l->host.opaque, want);
}

void lapic_timer_poll(struct lapic *l)
{
	int64_t now = lapic_now_ns(l);
	bool due = l->armed <= now;

	/* In deadline mode even without a deadline due: a moved TSC moves it. */
	if (!due && lapic_timer_mode(l) != TIMER_TSC_DEADLINE)
		return;
	mutex_lock(&l->router->lock);
	lapic_timer_advance_locked(l, now);
	mutex_unlock(&l->router->lock);
	lapic_timer_arm(l, due); /* a deadline that passed disarmed the host */
}

void lapic_clock_changed(struct lapic *l)
{
	int64_t now = lapic_now_ns(l);

	/* The TSC did not stand still with the clock. What is past fires in the vCPU's thread. */
	if (lapic_timer_mode(l) == TIMER_TSC_DEADLINE && l->tsc_deadline)
		l->timer_deadline = tsc_deadline_ns(l, now);
	lapic_timer_arm(l, true);
}

void lapic_timer_start_locked(struct lapic *l, uint32_t initial)
{
	if (lapic_timer_mode(l) == TIMER_TSC_DEADLINE)
		return; /* writes to the initial count are ignored (SDM 3A 11.5.4.1) */
	l->timer_initial = initial;
	l->timer_deadline = initial ? lapic_now_ns(l) + timer_period(l) : INT64_MAX;
}

void lapic_timer_set_divide_locked(struct lapic *l, uint32_t v)
{
	int64_t now = lapic_now_ns(l);
	uint32_t left;

	lapic_timer_advance_locked(l, now);
	left = lapic_timer_current(l, now);
	l->timer_divide = v & 0xb;
	if (left)
		l->timer_deadline = now + (int64_t)left * timer_divisor(l);
}

void lapic_timer_lvt_write_locked(struct lapic *l, uint32_t v)
{
	unsigned old = lapic_timer_mode(l);

	/* What expired under the old setting is dealt with under the old setting. */
	lapic_timer_advance_locked(l, lapic_now_ns(l));
	if (TIMER_MODE(v) == 3 || (TIMER_MODE(v) == TIMER_TSC_DEADLINE && !l->host.tsc_khz))
		v &= ~(2u << 17); /* no such mode here */
	l->lvt[LVT_TIMER] = v;
	/* SDM 3A 11.5.4.1: a change to or from TSC-deadline mode disarms. */
	if ((old == TIMER_TSC_DEADLINE) != (lapic_timer_mode(l) == TIMER_TSC_DEADLINE)) {
		l->timer_deadline = INT64_MAX;
		l->timer_initial = 0;
		l->tsc_deadline = 0;
	}
}

int lapic_tsc_deadline_write(struct lapic *l, uint64_t v)
{
	if (!l->host.tsc_khz)
		return -1;
	mutex_lock(&l->router->lock);
	if (lapic_timer_mode(l) == TIMER_TSC_DEADLINE && lapic_hw_enabled(l)) {
		l->tsc_deadline = v;
		lapic_timer_advance_locked(l, lapic_now_ns(l));
	}
	mutex_unlock(&l->router->lock);
	lapic_timer_arm(l, false);
	return 0;
}
