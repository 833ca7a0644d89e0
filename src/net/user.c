/* SPDX-License-Identifier: Apache-2.0 */
/*
 * User-mode NAT on libslirp.
 *
 * slirp is not thread-safe and is only entered under the I/O lock: from vCPU
 * threads (frames that the guest sends go through slirp_input right there, and
 * mostly end in a send() on a host socket without any delay), and from one
 * thread of its own, which waits for the sockets:
 *
 *	lock; slirp_pollfds_fill; unlock; poll; lock; slirp_pollfds_poll; ...
 *
 * While it waits, what the guest sends may change what is worth waiting for.
 * net_flush finds out: mostly it is the same as before, or, as after an
 * acknowledgement that makes room for more, it is there already.  Then it is dealt
 * with at once, which spares two wake-ups; where another is to be waited for, the
 * thread is woken by an eventfd, once per sleep.  slirp keeps the poll indices of
 * its sockets; when others than the thread's have been given out meanwhile, or the
 * results that it comes back with may have been dealt with (`stale`), it asks anew.
 *
 * TCP connections that the guest opens are mostly tcp.c's: user_send shows it each
 * frame first, and the thread waits for its sockets too, behind one descriptor.  What
 * follows is about slirp's own.
 *
 * Large segments.  slirp's TCP ends both sides of every connection, so the
 * segment size between it and the guest is nobody else's concern.  slirp is told
 * of a large MTU; for connections that the guest opens it takes its segment size
 * from that (it never looks at the MSS option of the guest's SYN once it had to
 * wait for the host's connect), and for those that the host opens the option in
 * the guest's SYN-ACK is raised on its way in.  If the card takes large segments
 * (big_rx) it gets them as they are, to be presented as gso_size pieces; if not,
 * they are cut into ordinary ones here.  Anything else that became too long for
 * an ordinary network (UDP, ICMP) is cut into IP fragments.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <slirp/libslirp.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/log.h"
#include "base/thread.h"
#include "base/util.h"
#include "net/net.h"
#include "net/net_internal.h"
#include "net/packet.h"
#include "net/tcp.h"

/*
 * A sender may hold back less than a full segment when the window is smaller
 * (RFC 1122 4.2.3.4), and a receiver does not announce every growth of the
 * window (4.2.3.3): a segment close to the 64 KiB that slirp's windows can say
 * would have both wait for each other.  A quarter of that is safe, and as fast.
 */
#define BIG_MSS     (1460u * 11u)
#define SLIRP_MTU   (BIG_MSS + 40u)
#define GSO_SIZE    1460u
#define MAX_BACKLOG 512u
/* So many frames wait for the card that slirp need not make more yet. */
#define PAUSE_BACKLOG    128u
#define PAUSE_TIMEOUT_MS 20
/* So often net_flush looks whether there is more, before it leaves that to the thread. */
#define FLUSH_ROUNDS 4u

/* The first of a pollset's descriptors: kick_fd, and tcp's */
#define OURS 2u

struct backlog_frame {
	struct backlog_frame *next;
	struct net_frame_info info;
	size_t len;
	uint8_t data[];
};

struct net_user {
	struct net n;
	struct loop *loop;
	struct mutex *io_lock;
	Slirp *slirp;
	struct tcp *tcp; /* NULL: slirp does all TCP */
	pthread_t thread;
	bool thread_runs;
	int kick_fd;

	/* All of it: I/O lock. */
	bool stop, running;
	bool sleeping;    /* the thread is in poll() and nobody has kicked it yet */
	bool stale;       /* and what it comes back with is not to be given to slirp */
	bool reopened;    /* a socket was opened or closed: the same number may mean another */
	int64_t wakes_ns; /* when it will wake by itself */
	struct pollset {
		struct pollfd *fds;
		unsigned n, cap;
	} waits, now; /* what it waits for ([OURS] on: slirp's; while sleeping only revents change), would
			 wait for */
	struct pollset *set; /* the one that is being filled or read */
	struct backlog_frame *backlog, **backlog_tail;
	unsigned nbacklog;
};

static void kick(struct net_user *u)
{
	uint64_t one = 1;

	if (!u->sleeping)
		return;
	u->sleeping = false;
	if (write(u->kick_fd, &one, sizeof(one)) < 0)
		return; /* the counter is full: it is awake */
}

/* ---- to the guest ---- */

static void deliver(struct net_user *u, const uint8_t *frame, size_t len, const struct net_frame_info *info)
{
	struct backlog_frame *f;

	if (!u->backlog && u->running && net_deliver(&u->n, frame, len, info))
		return;
	if (u->nbacklog >= MAX_BACKLOG)
		return; /* lost, as on a wire; TCP will notice */
	f = malloc(sizeof(*f) + len);
	if (!f)
		return;
	f->next = NULL;
	f->info = *info;
	f->len = len;
	memcpy(f->data, frame, len);
	*u->backlog_tail = f;
	u->backlog_tail = &f->next;
	u->nbacklog++;
}

static void drop_backlog(struct net_user *u)
{
	while (u->backlog) {
		struct backlog_frame *f = u->backlog;

		u->backlog = f->next;
		free(f);
	}
	u->backlog_tail = &u->backlog;
	u->nbacklog = 0;
}

static void flush_backlog(struct net_user *u)
{
	while (u->backlog && u->running) {
		struct backlog_frame *f = u->backlog;

		if (u->n.client.receive &&
		    !u->n.client.receive(u->n.client.opaque, f->data, f->len, &f->info))
			return;
		u->backlog = f->next;
		if (!u->backlog)
			u->backlog_tail = &u->backlog;
		u->nbacklog--;
		free(f);
	}
}

static void emit_piece(void *opaque, const uint8_t *frame, size_t len)
{
	deliver(opaque, frame, len, &(struct net_frame_info){ 0 });
}

static ssize_t cb_send_packet(const void *buf, size_t len, void *opaque)
{
	struct net_user *u = opaque;
	struct net_frame_info info = { 0 };
	struct packet_tcp t;

	if (len < NET_ETH_HEADER || len > NET_FRAME_MAX)
		return (ssize_t)len;
	if (len > NET_FRAME_USUAL) {
		if (!packet_find_tcp4(buf, len, &t)) {
			packet_fragment4(buf, len, emit_piece, u);
			return (ssize_t)len;
		}
		if (!u->n.big_rx) {
			packet_segment4(buf, len, GSO_SIZE, emit_piece, u);
			return (ssize_t)len;
		}
		info.gso_size = GSO_SIZE;
	}
	deliver(u, buf, len, &info);
	return (ssize_t)len;
}

/* ---- tcp's callbacks ---- */

static bool cb_tcp_deliver(void *opaque, const uint8_t *head, size_t head_len, const uint8_t *body,
			   size_t body_len, uint16_t gso_size)
{
	struct net_user *u = opaque;
	struct net_frame_info info = { .gso_size = gso_size, .body = body, .body_len = body_len };

	return u->running && net_deliver(&u->n, head, head_len, &info);
}

static bool cb_tcp_big(void *opaque)
{
	return ((struct net_user *)opaque)->n.big_rx;
}

static void cb_tcp_pass(void *opaque, const uint8_t *frame, size_t len)
{
	struct net_user *u = opaque;

	slirp_input(u->slirp, frame, (int)len);
	kick(u);
}

static const struct tcp_ops tcp_callbacks = { cb_tcp_deliver, cb_tcp_big, cb_tcp_pass };

/* ---- slirp's other callbacks ---- */

static void cb_guest_error(const char *msg, void *opaque)
{
	(void)opaque;
	log_debug("user network: %s", msg);
}

static int64_t cb_clock_get_ns(void *opaque)
{
	struct net_user *u = opaque;

	return clock_now_ns(loop_clock(u->loop));
}

struct user_timer {
	struct loop_timer t;
	struct net_user *u;
	SlirpTimerId id;
	void *cb_opaque;
};

static void timer_fired(void *opaque)
{
	struct user_timer *t = opaque;

	slirp_handle_timer(t->u->slirp, t->id, t->cb_opaque);
}

static void *cb_timer_new_opaque(SlirpTimerId id, void *cb_opaque, void *opaque)
{
	struct net_user *u = opaque;
	struct user_timer *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	loop_timer_init(u->loop, &t->t, timer_fired, t);
	t->u = u;
	t->id = id;
	t->cb_opaque = cb_opaque;
	return t;
}

static void cb_timer_free(void *timer, void *opaque)
{
	struct user_timer *t = timer;

	(void)opaque;
	if (!t)
		return;
	loop_timer_cancel(&t->t);
	free(t);
}

static void cb_timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
	struct user_timer *t = timer;

	(void)opaque;
	if (t && expire_ms >= 0 && expire_ms < INT64_MAX / 1000000)
		loop_timer_arm(&t->t, expire_ms * 1000000);
}

static void cb_poll_fd(int fd, void *opaque)
{
	struct net_user *u = opaque;

	(void)fd;
	u->reopened = true;
}

static void cb_notify(void *opaque)
{
	kick(opaque);
}

static const SlirpCb callbacks = {
	.send_packet = cb_send_packet,
	.guest_error = cb_guest_error,
	.clock_get_ns = cb_clock_get_ns,
	.timer_free = cb_timer_free,
	.timer_mod = cb_timer_mod,
	.register_poll_fd = cb_poll_fd,
	.unregister_poll_fd = cb_poll_fd,
	.notify = cb_notify,
	.timer_new_opaque = cb_timer_new_opaque,
};

/* ---- the thread ---- */

static int add_poll(int fd, int events, void *opaque)
{
	struct pollset *s = ((struct net_user *)opaque)->set;
	short ev = 0;

	if (s->n == s->cap) {
		unsigned cap = s->cap * 2;
		struct pollfd *fds = realloc(s->fds, cap * sizeof(*fds));

		if (!fds)
			return -1; /* that socket waits for a better time */
		s->fds = fds;
		s->cap = cap;
	}
	if (events & SLIRP_POLL_IN)
		ev |= POLLIN;
	if (events & SLIRP_POLL_OUT)
		ev |= POLLOUT;
	if (events & SLIRP_POLL_PRI)
		ev |= POLLPRI;
	s->fds[s->n] = (struct pollfd){ .fd = fd, .events = ev };
	return (int)s->n++;
}

static int get_revents(int idx, void *opaque)
{
	struct pollset *s = ((struct net_user *)opaque)->set;
	int ret = 0;
	short ev;

	if (idx < (int)OURS || (unsigned)idx >= s->n)
		return 0;
	ev = s->fds[idx].revents;
	if (ev & POLLIN)
		ret |= SLIRP_POLL_IN;
	if (ev & POLLOUT)
		ret |= SLIRP_POLL_OUT;
	if (ev & POLLPRI)
		ret |= SLIRP_POLL_PRI;
	if (ev & POLLERR)
		ret |= SLIRP_POLL_ERR;
	if (ev & POLLHUP)
		ret |= SLIRP_POLL_HUP;
	return ret;
}

static bool active(const struct net_user *u)
{
	return u->running && u->nbacklog < PAUSE_BACKLOG;
}

/* What slirp would wait for now, into s; for so many milliseconds, -1: without end. */
static int fill(struct net_user *u, struct pollset *s)
{
	uint32_t ms = UINT32_MAX;

	s->n = OURS;
	s->fds[0] = (struct pollfd){ .fd = u->kick_fd, .events = POLLIN };
	s->fds[1] = (struct pollfd){ .fd = u->tcp && u->running ? tcp_fd(u->tcp) : -1, .events = POLLIN };
	u->set = s;
	if (active(u))
		slirp_pollfds_fill(u->slirp, &ms, add_poll, u);
	else if (u->running)
		ms = PAUSE_TIMEOUT_MS;
	return ms > INT32_MAX ? -1 : (int)ms;
}

static int64_t deadline(const struct net_user *u, int ms)
{
	return ms < 0 ? INT64_MAX : clock_now_ns(loop_clock(u->loop)) + (int64_t)ms * 1000000;
}

/* What poll() has found in s. */
static void dispatch(struct net_user *u, struct pollset *s, bool error)
{
	u->set = s;
	slirp_pollfds_poll(u->slirp, error, get_revents, u);
}

static void *user_thread(void *opaque)
{
	struct net_user *u = opaque;

	mutex_lock(u->io_lock);
	while (!u->stop) {
		bool was_active = active(u);
		int ms = fill(u, &u->waits), n;
		uint64_t kicks;

		u->wakes_ns = deadline(u, ms);
		u->sleeping = true;
		u->stale = u->reopened = false;
		mutex_unlock(u->io_lock);
		n = poll(u->waits.fds, u->waits.n, ms);
		mutex_lock(u->io_lock);
		u->sleeping = false;
		if (n > 0 && (u->waits.fds[0].revents & POLLIN) &&
		    read(u->kick_fd, &kicks, sizeof(kicks)) < 0)
			continue;
		if (u->stop || !u->running)
			continue;
		if (was_active && !u->stale) {
			dispatch(u, &u->waits, n < 0);
		} else {
			/* The card has not made room for a while, or another thread has looked at the
			 * sockets. Go on without: slirp's timers must run, and the card may only look full.
			 */
			u->waits.n = OURS;
			dispatch(u, &u->waits, true);
		}
		if (u->tcp && (u->waits.fds[1].revents & POLLIN))
			tcp_serve(u->tcp);
	}
	mutex_unlock(u->io_lock);
	return NULL;
}

/* ---- the backend ---- */

static void user_send(struct net *n, const uint8_t *frame, size_t len)
{
	struct net_user *u = container_of(n, struct net_user, n);
	uint8_t syn[NET_FRAME_USUAL], ra[PACKET_RA_SIZE];

	if (!u->running)
		return;
	if (u->tcp) {
		struct iovec all = { (void *)(uintptr_t)frame, len };

		if (tcp_input(u->tcp, frame, len, &all, 1, true))
			return;
	}
	if (n->big_rx && len <= sizeof(syn)) {
		struct packet_tcp t;

		/* Only a SYN has the option; do not copy the others. */
		if (packet_find_tcp4(frame, len, &t) && (frame[t.tcp + 13] & 0x02)) {
			memcpy(syn, frame, len);
			packet_raise_mss(syn, len, BIG_MSS);
			frame = syn;
		}
	}
	/* slirp does IPv6 only whole; guests that ask for a router wait long for silence. */
	if (packet_answer_rs(frame, len, ra)) {
		deliver(u, ra, sizeof(ra), &(struct net_frame_info){ 0 });
		return;
	}
	slirp_input(u->slirp, frame, (int)len);
}

static bool user_send_pieces(struct net *n, const uint8_t *head, size_t len, struct iovec *iov, unsigned cnt)
{
	struct net_user *u = container_of(n, struct net_user, n);

	return !u->running || (u->tcp && tcp_input(u->tcp, head, len, iov, cnt, false));
}

/* Would the thread wait for the same as it does? */
static bool waits_right(const struct net_user *u, int ms)
{
	const struct pollset *a = &u->waits, *b = &u->now;

	if (u->reopened || a->n != b->n || deadline(u, ms) < u->wakes_ns - 1000000)
		return false;
	for (unsigned i = 0; i < a->n; i++)
		if (a->fds[i].fd != b->fds[i].fd || a->fds[i].events != b->fds[i].events)
			return false;
	return true;
}

static void user_flush(struct net *n)
{
	struct net_user *u = container_of(n, struct net_user, n);

	if (u->tcp)
		tcp_flush(u->tcp);
	if (!u->sleeping)
		return;
	for (unsigned rounds = 0; active(u) && rounds < FLUSH_ROUNDS; rounds++) {
		if (waits_right(u, fill(u, &u->now)))
			return;
		u->stale = true;
		if (poll(u->now.fds + OURS, u->now.n - OURS, 0) <= 0)
			break;
		dispatch(u, &u->now, false);
	}
	kick(u);
}

static void user_rx_ready(struct net *n)
{
	struct net_user *u = container_of(n, struct net_user, n);
	bool was_paused = u->nbacklog >= PAUSE_BACKLOG;

	flush_backlog(u);
	if (u->tcp && !u->backlog)
		tcp_room(u->tcp);
	if (was_paused && u->nbacklog < PAUSE_BACKLOG)
		kick(u);
}

static void user_set_running(struct net *n, bool running)
{
	struct net_user *u = container_of(n, struct net_user, n);

	u->running = running;
	if (running)
		user_rx_ready(n);
	kick(u);
}

static void user_free(struct net *n)
{
	struct net_user *u = container_of(n, struct net_user, n);

	if (u->thread_runs) {
		mutex_lock(u->io_lock);
		u->stop = true;
		kick(u);
		mutex_unlock(u->io_lock);
		pthread_join(u->thread, NULL);
	}
	mutex_lock(u->io_lock);
	u->n.client = (struct net_client){ 0 };
	tcp_free(u->tcp);
	if (u->slirp)
		slirp_cleanup(u->slirp);
	drop_backlog(u);
	mutex_unlock(u->io_lock);
	if (u->kick_fd >= 0)
		close(u->kick_fd);
	free(u->waits.fds);
	free(u->now.fds);
	free(u);
}

static const struct net_ops user_ops = {
	.name = "user",
	.big_tx = true,
	.send = user_send,
	.send_pieces = user_send_pieces,
	.flush = user_flush,
	.rx_ready = user_rx_ready,
	.set_running = user_set_running,
	.free = user_free,
};

static int add_forwards(struct net_user *u, const struct net_user_config *cfg, struct error *err)
{
	for (unsigned i = 0; i < cfg->nr_fwd; i++) {
		const struct net_user_fwd *f = &cfg->fwd[i];
		const char *proto = f->udp ? "UDP" : "TCP";
		char addr[INET_ADDRSTRLEN] = "?";
		int code;

		errno = 0;
		if (slirp_add_hostfwd(u->slirp, f->udp, f->host_addr, f->host_port, f->guest_addr,
				      f->guest_port) == 0)
			continue;
		code = errno ? errno : EIO;
		inet_ntop(AF_INET, &f->host_addr, addr, sizeof(addr));
		switch (code) {
		case EADDRINUSE:
			return error_set(err, code,
					 "hostfwd: %s port %u on %s is taken by another program: choose "
					 "another port, or stop "
					 "that program",
					 proto, f->host_port, addr);
		case EACCES:
		case EPERM:
			return error_set(
			    err, code,
			    "hostfwd: no permission for %s port %u on %s: choose a port from 1024 up", proto,
			    f->host_port, addr);
		case EADDRNOTAVAIL:
			return error_set(
			    err, code,
			    "hostfwd: %s is not an address of this host: use 127.0.0.1, or 0.0.0.0 for all",
			    addr);
		default:
			return error_set(err, code, "hostfwd: cannot listen on %s port %u of %s: %s", proto,
					 f->host_port, addr, strerror(code));
		}
	}
	return 0;
}

static int start_thread(struct net_user *u)
{
	int r = thread_start(&u->thread, "sill-net", 0, user_thread, u);

	u->thread_runs = r == 0;
	return r;
}

/* slirp writes to sockets whose peer may be gone: the process must not die of that. */
static void ignore_sigpipe(void)
{
	struct sigaction sa;

	if (sigaction(SIGPIPE, NULL, &sa) == 0 && sa.sa_handler == SIG_DFL) {
		sa.sa_handler = SIG_IGN;
		sigaction(SIGPIPE, &sa, NULL);
	}
}

int net_user_new(struct loop *loop, struct mutex *io_lock, const struct net_user_config *cfg,
		 struct net **ret, struct error *err)
{
	SlirpConfig sc = {
		.version = 4,
		.restricted = cfg->restricted,
		.in_enabled = true,
		.vnetwork = { htonl(NET_USER_NET) },
		.vnetmask = { htonl(NET_USER_MASK) },
		.vhost = { htonl(NET_USER_GATEWAY) },
		.vdhcp_start = { htonl(NET_USER_GUEST) },
		.vnameserver = { htonl(NET_USER_DNS) },
		.if_mtu = SLIRP_MTU,
		.if_mru = SLIRP_MTU,
		.tftp_path = cfg->tftp[0] ? cfg->tftp : NULL,
		.bootfile = cfg->bootfile[0] ? cfg->bootfile : NULL,
	};
	struct net_user *u;
	int rc;

	if (cfg->tftp[0] && access(cfg->tftp, R_OK | X_OK) < 0)
		return error_set(err, errno, "tftp=%s: %s; give a folder that can be read", cfg->tftp,
				 strerror(errno));
	u = calloc(1, sizeof(*u));
	if (!u)
		return error_set(err, ENOMEM, "not enough memory for the user network");
	u->n.ops = &user_ops;
	u->n.link_up = true;
	u->loop = loop;
	u->io_lock = io_lock;
	u->running = true;
	u->backlog_tail = &u->backlog;
	u->waits.cap = u->now.cap = 16;
	u->waits.fds = calloc(u->waits.cap, sizeof(*u->waits.fds));
	u->now.fds = calloc(u->now.cap, sizeof(*u->now.fds));
	u->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!u->waits.fds || !u->now.fds || u->kick_fd < 0) {
		rc =
		    error_set(err, u->waits.fds && u->now.fds ? errno : ENOMEM,
			      "cannot start the user network: out of memory or file descriptors (ulimit -n)");
		user_free(&u->n);
		return rc;
	}
	ignore_sigpipe();
	mutex_lock(io_lock);
	u->slirp = slirp_new(&sc, &callbacks, u);
	rc = u->slirp
		 ? add_forwards(u, cfg, err)
		 : error_set(err, EIO, "cannot start the user network (libslirp %s)", slirp_version_string());
	/* A restricted guest's connections are slirp's to refuse. */
	if (!rc && !cfg->restricted) {
		rc = tcp_new(loop, io_lock, &tcp_callbacks, u, &u->tcp);
		if (rc)
			error_set(err, -rc, "cannot start the user network: %s", strerror(-rc));
	}
	mutex_unlock(io_lock);
	if (!rc) {
		rc = start_thread(u);
		if (rc)
			error_set(err, -rc, "cannot start the user network's thread: %s", strerror(-rc));
	}
	if (rc) {
		user_free(&u->n);
		return rc;
	}
	*ret = &u->n;
	return 0;
}
