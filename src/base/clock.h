/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VM's clock: the one source of time for every device and engine.
 *
 * Virtual time is nanoseconds since the VM was created; it runs with the host's
 * CLOCK_MONOTONIC while the VM runs and stands still while it is paused.  A
 * saved VM saves it.  Devices never ask the host for the time themselves, so a
 * record/replay log can sit here.
 */
#ifndef SILL_BASE_CLOCK_H
#define SILL_BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

struct clock {
	int64_t offset_ns;  /* virtual = host monotonic + offset, while running */
	int64_t stopped_ns; /* the virtual time at which it stands, while stopped */
	bool running;
};

/* Starts at virtual time 0, running. */
void clock_init(struct clock *c);
/* Virtual nanoseconds since the VM's creation. Any thread. */
int64_t clock_now_ns(const struct clock *c);
/* Wall-clock nanoseconds since the Unix epoch (host CLOCK_REALTIME), for the RTC and paravirtual wall clock.
 */
int64_t clock_wall_ns(const struct clock *c);
/* The host CLOCK_MONOTONIC value at which the virtual clock will show virtual_ns. Only while running. */
int64_t clock_to_host_ns(const struct clock *c, int64_t virtual_ns);
void clock_stop(struct clock *c);
void clock_start(struct clock *c);

#endif
