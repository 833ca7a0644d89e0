/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/loop.h"
#include "base/util.h"

struct fixture {
	struct clock clock;
	struct mutex lock;
	struct loop *loop;
	struct loop_timer timer[3];
	char order[16];
	struct loop_watch a, b;
	int pipe_a[2], pipe_b[2];
	int fired;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	clock_init(&f->clock);
	mutex_init(&f->lock, LOCK_RANK_IO, "io");
	assert_int_equal(loop_new(&f->clock, &f->lock, &f->loop, NULL), 0);
	assert_int_equal(pipe(f->pipe_a), 0);
	assert_int_equal(pipe(f->pipe_b), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	loop_free(f->loop);
	for (int i = 0; i < 2; i++) {
		close(f->pipe_a[i]);
		close(f->pipe_b[i]);
	}
	mutex_destroy(&f->lock);
	free(f);
	return 0;
}

static void fire_a(void *opaque)
{
	strcat(((struct fixture *)opaque)->order, "a");
}

static void fire_b(void *opaque)
{
	strcat(((struct fixture *)opaque)->order, "b");
}

static void fire_quit(void *opaque)
{
	struct fixture *f = opaque;
	assert_true(mutex_held(&f->lock));
	strcat(f->order, "q");
	loop_quit(f->loop);
}

static void timers_fire_in_order(void **state)
{
	struct fixture *f = *state;
	loop_timer_init(f->loop, &f->timer[0], fire_a, f);
	loop_timer_init(f->loop, &f->timer[1], fire_b, f);
	loop_timer_init(f->loop, &f->timer[2], fire_quit, f);
	int64_t now = clock_now_ns(&f->clock);
	mutex_lock(&f->lock);
	loop_timer_arm(&f->timer[2], now + 3000000);
	loop_timer_arm(&f->timer[1], now + 2000000);
	loop_timer_arm(&f->timer[0], now - 5); /* past: at once */
	loop_timer_arm(&f->timer[0], now + 1000000);
	mutex_unlock(&f->lock);
	loop_run(f->loop);
	assert_string_equal(f->order, "abq");
	assert_true(clock_now_ns(&f->clock) >= now + 3000000);
	assert_false(f->timer[0].armed);
}

static void cancelled_timer_is_silent(void **state)
{
	struct fixture *f = *state;
	loop_timer_init(f->loop, &f->timer[0], fire_a, f);
	loop_timer_init(f->loop, &f->timer[2], fire_quit, f);
	int64_t now = clock_now_ns(&f->clock);
	mutex_lock(&f->lock);
	loop_timer_arm(&f->timer[0], now + 1000);
	loop_timer_arm(&f->timer[2], now + 1000000);
	loop_timer_cancel(&f->timer[0]);
	loop_timer_cancel(&f->timer[0]);
	mutex_unlock(&f->lock);
	loop_run(f->loop);
	assert_string_equal(f->order, "q");
}

static void stopped_clock_holds_timers(void **state)
{
	struct fixture *f = *state;
	struct loop_work quit = { .fn = fire_quit, .opaque = f };
	loop_timer_init(f->loop, &f->timer[0], fire_a, f);
	mutex_lock(&f->lock);
	clock_stop(&f->clock);
	loop_clock_changed(f->loop);
	int64_t at = clock_now_ns(&f->clock);
	loop_timer_arm(&f->timer[0], at + 1000);
	mutex_unlock(&f->lock);
	usleep(2000);
	assert_int_equal(clock_now_ns(&f->clock), at);
	loop_post(f->loop, &quit);
	loop_run(f->loop);
	assert_string_equal(f->order, "q");
	assert_true(f->timer[0].armed);

	f->order[0] = 0;
	loop_timer_init(f->loop, &f->timer[2], fire_quit, f);
	mutex_lock(&f->lock);
	clock_start(&f->clock);
	loop_clock_changed(f->loop);
	loop_timer_arm(&f->timer[2], at + 1000000);
	mutex_unlock(&f->lock);
	loop_run(f->loop);
	assert_string_equal(f->order, "aq");
}

static void post_b(void *opaque)
{
	struct fixture *f = opaque;
	strcat(f->order, "b");
	loop_quit(f->loop);
}

static void work_runs_once_per_post(void **state)
{
	struct fixture *f = *state;
	struct loop_work a = { .fn = fire_a, .opaque = f }, b = { .fn = post_b, .opaque = f };
	loop_post(f->loop, &a);
	loop_post(f->loop, &a);
	loop_post(f->loop, &b);
	loop_run(f->loop);
	assert_string_equal(f->order, "ab");
	f->order[0] = 0;
	loop_post(f->loop, &a);
	loop_post(f->loop, &b);
	loop_run(f->loop);
	assert_string_equal(f->order, "ab");
}

/* Both pipes are ready; whichever watch runs first deletes the other, which must not run then. */
static void watch_fired(void *opaque, uint32_t events)
{
	struct fixture *f = opaque;
	assert_true(events & EPOLLIN);
	f->fired++;
	loop_watch_del(f->loop, &f->a);
	loop_watch_del(f->loop, &f->b);
	loop_quit(f->loop);
}

static void deleted_watch_is_silent(void **state)
{
	struct fixture *f = *state;
	f->a = (struct loop_watch){ .fd = f->pipe_a[0], .events = EPOLLIN, .fn = watch_fired, .opaque = f };
	f->b = (struct loop_watch){ .fd = f->pipe_b[0], .events = 0, .fn = watch_fired, .opaque = f };
	mutex_lock(&f->lock);
	assert_int_equal(loop_watch_add(f->loop, &f->a), 0);
	assert_int_equal(loop_watch_add(f->loop, &f->b), 0);
	assert_int_equal(loop_watch_add(f->loop, &f->b), -EEXIST);
	assert_int_equal(loop_watch_mod(f->loop, &f->b, EPOLLIN), 0);
	mutex_unlock(&f->lock);
	assert_int_equal(write(f->pipe_a[1], "x", 1), 1);
	assert_int_equal(write(f->pipe_b[1], "x", 1), 1);
	loop_run(f->loop);
	assert_int_equal(f->fired, 1);
	assert_false(f->b.active);
	assert_int_equal(loop_watch_mod(f->loop, &f->b, EPOLLIN), -ENOENT);
}

static void log_level_filters(void **state)
{
	(void)state;
	int saved = dup(STDERR_FILENO), p[2];
	assert_int_equal(pipe(p), 0);
	dup2(p[1], STDERR_FILENO);
	log_info("not shown %d", 1);
	log_warn("shown %d", 2);
	char big[4000];
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = 0;
	log_error("%s", big);
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(p[1]);
	char buf[8192];
	ssize_t n = read(p[0], buf, sizeof(buf));
	close(p[0]);
	assert_memory_equal(buf, "sill: shown 2\n", 14);
	assert_true(n > 14 && n < 1100);
	assert_int_equal(buf[n - 1], '\n');
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(timers_fire_in_order, setup, teardown),
		cmocka_unit_test_setup_teardown(cancelled_timer_is_silent, setup, teardown),
		cmocka_unit_test_setup_teardown(stopped_clock_holds_timers, setup, teardown),
		cmocka_unit_test_setup_teardown(work_runs_once_per_post, setup, teardown),
		cmocka_unit_test_setup_teardown(deleted_watch_is_silent, setup, teardown),
		cmocka_unit_test(log_level_filters),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
