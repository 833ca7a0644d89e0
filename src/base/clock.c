/* SPDX-License-Identifier: Apache-2.0 */
#include <time.h>

#include "base/clock.h"

static int64_t host_ns(clockid_t id)
{
	struct timespec ts;
	clock_gettime(id, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void clock_init(struct clock *c)
{
	c->offset_ns = -host_ns(CLOCK_MONOTONIC);
	c->stopped_ns = 0;
	c->running = true;
}

int64_t clock_now_ns(const struct clock *c)
{
	return c->running ? host_ns(CLOCK_MONOTONIC) + c->offset_ns : c->stopped_ns;
}

int64_t clock_wall_ns(const struct clock *c)
{
	(void)c; /* the guest's wall clock follows the host's, also across a pause */
	return host_ns(CLOCK_REALTIME);
}

int64_t clock_to_host_ns(const struct clock *c, int64_t virtual_ns)
{
	int64_t host;
	/* A deadline far in the future stays there instead of wrapping into the past. */
	if (__builtin_sub_overflow(virtual_ns, c->offset_ns, &host))
		return virtual_ns > 0 ? INT64_MAX : INT64_MIN;
	return host;
}

void clock_stop(struct clock *c)
{
	if (!c->running)
		return;
	c->stopped_ns = clock_now_ns(c);
	c->running = false;
}

void clock_start(struct clock *c)
{
	if (c->running)
		return;
	c->offset_ns = c->stopped_ns - host_ns(CLOCK_MONOTONIC);
	c->running = true;
}
