/* SPDX-License-Identifier: Apache-2.0 */
/*
 * epoll carries everything: the watches, one timerfd for the earliest timer,
 * and one eventfd for posted work and for loop_quit.
 *
 * epoll_wait runs without the I/O lock, so a watch may be deleted (and its file
 * descriptor reused) between its return and the dispatch.  Events therefore
 * name a descriptor and a generation, never a pointer; the table that turns
 * them into watches is only touched under the lock.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/util.h"

#define EVENTS_PER_WAIT 32
#define KEY_TIMER       UINT64_MAX
#define KEY_WAKE        (UINT64_MAX - 1)

struct slot {
	struct loop_watch *watch;
	uint32_t generation;
};

struct loop {
	struct clock *clock;
	struct mutex *io_lock;
	int epfd, timerfd, wakefd;
	atomic_bool quit;

	/* [io lock] */
	struct slot *slots; /* by file descriptor */
	unsigned nr_slots;
	uint32_t generation;
	struct loop_timer *timers; /* sorted by deadline */

	/* work_lock */
	struct mutex work_lock;
	struct loop_work *work_head, **work_tail;
};

static int epoll_control(struct loop *l, int op, int fd, uint32_t events, uint64_t key)
{
	struct epoll_event ev = { .events = events, .data.u64 = key };
	return epoll_ctl(l->epfd, op, fd, &ev) < 0 ? -errno : 0;
}

int loop_new(struct clock *clock, struct mutex *io_lock, struct loop **ret, struct error *err)
{
	struct loop *l = calloc(1, sizeof(*l));
	if (!l)
		return error_set(err, ENOMEM, "no memory for the event loop; free some and try again");
	l->clock = clock;
	l->io_lock = io_lock;
	l->work_tail = &l->work_head;
	mutex_init(&l->work_lock, LOCK_RANK_LOOP, "loop work");
	l->epfd = epoll_create1(EPOLL_CLOEXEC);
	l->timerfd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	l->wakefd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int r = -EMFILE;
	if (l->epfd >= 0 && l->timerfd >= 0 && l->wakefd >= 0) {
		r = epoll_control(l, EPOLL_CTL_ADD, l->timerfd, EPOLLIN, KEY_TIMER);
		if (!r)
			r = epoll_control(l, EPOLL_CTL_ADD, l->wakefd, EPOLLIN, KEY_WAKE);
	}
	if (r) {
		loop_free(l);
		return error_set(err, -r, "cannot set up the event loop (%s); raise the limit on open files",
				 strerror(-r));
	}
	*ret = l;
	return 0;
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	if (l->epfd >= 0)
		close(l->epfd);
	if (l->timerfd >= 0)
		close(l->timerfd);
	if (l->wakefd >= 0)
		close(l->wakefd);
	mutex_destroy(&l->work_lock);
	free(l->slots);
	free(l);
}

struct clock *loop_clock(struct loop *l)
{
	return l->clock;
}

static void wake(struct loop *l)
{
	uint64_t one = 1;
	if (write(l->wakefd, &one, sizeof(one)) < 0)
		return; /* EAGAIN: the counter is full, so it is awake already */
}

void loop_quit(struct loop *l)
{
	int saved = errno; /* may run in a signal handler */
	atomic_store(&l->quit, true);
	wake(l);
	errno = saved;
}

/* ---- watches ---- */

static int grow_slots(struct loop *l, unsigned fd)
{
	if (fd < l->nr_slots)
		return 0;
	unsigned nr = fd + 32;
	struct slot *s = realloc(l->slots, nr * sizeof(*s));
	if (!s)
		return -ENOMEM;
	memset(s + l->nr_slots, 0, (nr - l->nr_slots) * sizeof(*s));
	l->slots = s;
	l->nr_slots = nr;
	return 0;
}

static uint64_t watch_key(struct loop *l, int fd)
{
	/* The top generation values are left to KEY_TIMER and KEY_WAKE. */
	return (uint64_t)l->slots[fd].generation << 32 | (uint32_t)fd;
}

int loop_watch_add(struct loop *l, struct loop_watch *w)
{
	if (w->fd < 0)
		return -EBADF;
	int r = grow_slots(l, (unsigned)w->fd);
	if (r)
		return r;
	struct slot *s = &l->slots[w->fd];
	if (s->watch)
		return -EEXIST;
	l->generation = (l->generation + 1) & 0x7fffffff;
	s->generation = l->generation;
	r = epoll_control(l, EPOLL_CTL_ADD, w->fd, w->events, watch_key(l, w->fd));
	if (r)
		return r;
	s->watch = w;
	w->active = true;
	w->dead = false;
	return 0;
}

int loop_watch_mod(struct loop *l, struct loop_watch *w, uint32_t events)
{
	if (!w->active)
		return -ENOENT;
	if (w->events == events)
		return 0;
	int r = epoll_control(l, EPOLL_CTL_MOD, w->fd, events, watch_key(l, w->fd));
	if (!r)
		w->events = events;
	return r;
}

void loop_watch_del(struct loop *l, struct loop_watch *w)
{
	if (!w->active)
		return;
	epoll_control(l, EPOLL_CTL_DEL, w->fd, 0, 0);
	l->slots[w->fd].watch = NULL;
	w->active = false;
	w->dead = true;
}

static void dispatch_watch(struct loop *l, const struct epoll_event *ev)
{
	uint32_t fd = (uint32_t)ev->data.u64;
	uint32_t generation = (uint32_t)(ev->data.u64 >> 32);
	if (fd >= l->nr_slots || !l->slots[fd].watch || l->slots[fd].generation != generation)
		return; /* deleted meanwhile */
	struct loop_watch *w = l->slots[fd].watch;
	w->fn(w->opaque, ev->events);
}

/* ---- timers ---- */

static void set_timerfd(struct loop *l)
{
	struct itimerspec its = { 0 };
	if (l->timers && l->clock->running) {
		int64_t host = clock_to_host_ns(l->clock, l->timers->deadline_ns);
		if (host < 1)
			host = 1; /* zero would disarm */
		its.it_value.tv_sec = host / 1000000000;
		its.it_value.tv_nsec = host % 1000000000;
	}
	timerfd_settime(l->timerfd, TFD_TIMER_ABSTIME, &its, NULL);
}

void loop_clock_changed(struct loop *l)
{
	set_timerfd(l);
}

void loop_timer_init(struct loop *l, struct loop_timer *t, void (*fn)(void *), void *opaque)
{
	*t = (struct loop_timer){ .loop = l, .fn = fn, .opaque = opaque };
}

static void timer_unlink(struct loop_timer *t)
{
	for (struct loop_timer **p = &t->loop->timers; *p; p = &(*p)->next) {
		if (*p == t) {
			*p = t->next;
			break;
		}
	}
	t->next = NULL;
	t->armed = false;
}

void loop_timer_arm(struct loop_timer *t, int64_t deadline_ns)
{
	struct loop *l = t->loop;
	struct loop_timer *first = l->timers;
	if (t->armed)
		timer_unlink(t);
	t->deadline_ns = deadline_ns;
	t->armed = true;
	struct loop_timer **p = &l->timers;
	while (*p && (*p)->deadline_ns <= deadline_ns)
		p = &(*p)->next;
	t->next = *p;
	*p = t;
	if (l->timers != first || first == t)
		set_timerfd(l);
}

void loop_timer_cancel(struct loop_timer *t)
{
	if (!t->armed)
		return;
	bool first = t->loop->timers == t;
	timer_unlink(t);
	if (first)
		set_timerfd(t->loop);
}

static void dispatch_timers(struct loop *l)
{
	uint64_t expirations;
	if (read(l->timerfd, &expirations, sizeof(expirations)) < 0)
		expirations = 0; /* re-armed meanwhile: the list decides anyway */

	/* Only what was due at the start: a timer that re-arms itself in the past must not starve the rest.
	 */
	int64_t now = clock_now_ns(l->clock);
	for (unsigned budget = 64; budget && l->timers && l->timers->deadline_ns <= now; budget--) {
		struct loop_timer *t = l->timers;
		timer_unlink(t);
		t->fn(t->opaque);
	}
	set_timerfd(l);
}

/* ---- posted work ---- */

void loop_post(struct loop *l, struct loop_work *w)
{
	mutex_lock(&l->work_lock);
	bool first = !w->queued;
	if (first) {
		w->queued = true;
		w->next = NULL;
		*l->work_tail = w;
		l->work_tail = &w->next;
	}
	mutex_unlock(&l->work_lock);
	if (first)
		wake(l);
}

void loop_unpost(struct loop *l, struct loop_work *w)
{
	mutex_lock(&l->work_lock);
	if (w->queued) {
		struct loop_work **p = &l->work_head;
		while (*p != w)
			p = &(*p)->next;
		*p = w->next;
		if (l->work_tail == &w->next)
			l->work_tail = p;
		w->queued = false;
	}
	mutex_unlock(&l->work_lock);
}

static void dispatch_work(struct loop *l)
{
	uint64_t count;
	if (read(l->wakefd, &count, sizeof(count)) < 0)
		count = 0;

	/* What is posted from now on is for the next round. */
	mutex_lock(&l->work_lock);
	struct loop_work **end = l->work_tail;
	mutex_unlock(&l->work_lock);
	for (bool last = false; !last;) {
		mutex_lock(&l->work_lock);
		struct loop_work *w = l->work_head;
		if (!w) {
			mutex_unlock(&l->work_lock);
			return;
		}
		last = &w->next == end;
		l->work_head = w->next;
		if (!l->work_head)
			l->work_tail = &l->work_head;
		w->queued = false;
		mutex_unlock(&l->work_lock);
		w->fn(w->opaque); /* may free w */
	}
}

void loop_run(struct loop *l)
{
	while (!atomic_load(&l->quit)) {
		struct epoll_event events[EVENTS_PER_WAIT];
		int n = epoll_wait(l->epfd, events, EVENTS_PER_WAIT, -1);
		if (n < 0)
			continue; /* EINTR: a signal handler may have asked to quit */
		mutex_lock(l->io_lock);
		for (int i = 0; i < n; i++) {
			if (events[i].data.u64 == KEY_TIMER)
				dispatch_timers(l);
			else if (events[i].data.u64 == KEY_WAKE)
				dispatch_work(l);
			else
				dispatch_watch(l, &events[i]);
		}
		mutex_unlock(l->io_lock);
	}
	atomic_store(&l->quit, false);
}
