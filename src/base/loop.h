/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop: one thread that waits for files, timers and posted work.
 *
 * Callbacks run in the loop's thread with the VM's I/O lock (given to
 * loop_new) held, so a device's MMIO handlers (which run in vCPU threads under
 * the same lock) and its callbacks never run at once.  All functions may be
 * called from any thread; those marked [io] need the I/O lock held.
 */
#ifndef SILL_BASE_LOOP_H
#define SILL_BASE_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/lock.h"

struct loop;

int loop_new(struct clock *clock, struct mutex *io_lock, struct loop **ret, struct error *err);
void loop_free(struct loop *l);
/* Runs until loop_quit. Called without the I/O lock. */
void loop_run(struct loop *l);
/* Makes loop_run return soon. Any thread, async-signal-safe. */
void loop_quit(struct loop *l);

/* [io] File watches. events: EPOLLIN|EPOLLOUT. A watch belongs to the caller, who keeps it until
 * loop_watch_del. */
struct loop_watch {
	int fd;
	uint32_t events;
	void (*fn)(void *opaque, uint32_t events);
	void *opaque;
	bool active, dead;
	struct loop_watch *next_dead;
};
int loop_watch_add(struct loop *l, struct loop_watch *w);
int loop_watch_mod(struct loop *l, struct loop_watch *w, uint32_t events);
void loop_watch_del(struct loop *l, struct loop_watch *w);

/* [io] One-shot timers on virtual time. A timer belongs to the caller. */
struct loop_timer {
	struct loop *loop;
	int64_t deadline_ns; /* virtual; meaningful while armed */
	bool armed;
	void (*fn)(void *opaque);
	void *opaque;
	struct loop_timer *next;
};
void loop_timer_init(struct loop *l, struct loop_timer *t, void (*fn)(void *), void *opaque);
void loop_timer_arm(struct loop_timer *t,
		    int64_t deadline_ns); /* re-arms if armed; past deadlines fire at once */
void loop_timer_cancel(struct loop_timer *t);

/* Posted work: fn(opaque) runs once in the loop's thread under the I/O lock. Any thread, lock not needed. */
struct loop_work {
	void (*fn)(void *opaque);
	void *opaque;
	bool queued;
	struct loop_work *next;
};
void loop_post(struct loop *l, struct loop_work *w); /* no-op while already queued */
/* [io] Takes posted work back if it has not run yet: afterwards its memory may be freed. */
void loop_unpost(struct loop *l, struct loop_work *w);

/* The clock that this loop's timers use. */
struct clock *loop_clock(struct loop *l);
/* [io] To be called after the clock was stopped, started or set: timers follow it. */
void loop_clock_changed(struct loop *l);

#endif
