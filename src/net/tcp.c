/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP connections that the guest opens, spliced to host sockets.
 *
 * slirp's TCP has 64 KiB windows and moves every byte four times on its way, all
 * of it under the I/O lock.  Here is a TCP of our own for the common case; what
 * it does not take (other addresses of the user network, more than MAX_FLOWS
 * connections, connections to the guest) stays slirp's.
 *
 *	guest -> host	sendmsg() of the guest's own buffers, in the vCPU's thread.
 *			What the socket does not take waits in `up`, whose free
 *			space is the window that the guest is told.
 *	host -> guest	the NAT's thread reads into `down`, without the I/O lock;
 *			from there segments of up to 64 KiB go to the card as far as
 *			the guest's window allows.  Data stay until acknowledged.
 *
 * The wire between guest and us loses nothing: a card without room refuses a frame
 * and we send it later.  So there is no congestion control, and recovery is the
 * simplest that is right: after three equal acknowledgements, or RTO_FIRST_NS and
 * longer and longer, everything unacknowledged is sent again.  Segments out of
 * order are not kept (RFC 9293 3.10.7.4 allows that): the guest sends them again.
 * Urgent data are ordinary data.
 *
 * States: CONNECTING (SYN seen, the host's connect under way), ACCEPTED (SYN-ACK
 * sent), OPEN.  The rest of RFC 9293's states are the four bits guest_fin, shut,
 * host_fin, fin_acked; a connection with all of them is over.  Nobody waits in
 * TIME-WAIT: a late segment of a guest finds slirp, which answers with RST.
 *
 * Memory: two rings per connection, allocated with the first byte and freed when
 * found empty and idle.  LARGE_FLOWS connections have RING_LARGE, others RING_SMALL:
 * 93 MiB if a guest fills all that it can open.
 *
 * Threads: everything under the I/O lock, but for recv() into `down`: meanwhile the
 * flow is `busy`, and neither the socket nor the ring may go (`dead`).
 */
#include "net/tcp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/iov.h"
#include "base/util.h"
#include "net/net_internal.h"
#include "net/packet.h"

#define MSS         1460u
#define MSS_LEAST   88u
#define MSS_DEFAULT 536u        /* RFC 9293 3.7.1 */
#define SEG_MAX     (44u * MSS) /* the most that an IP packet holds of whole pieces */
#define RING_LARGE  (16u * SEG_MAX)
#define RING_SMALL  SEG_MAX
#define MAX_FLOWS   512u
#define LARGE_FLOWS 16u
#define BUCKETS     256u
#define WSCALE      4u
#define PASSED      64u
#define READ_ROUNDS 8u

#define TICK_NS      100000000ll
#define SLOW_TICK_NS 30000000000ll
#define RTO_FIRST_NS 300000000ll
#define RTO_MOST_NS  30000000000ll
#define PASSED_NS    120000000000ll
#define IDLE_NS      7200000000000ll /* then we ask whether the guest is still there (RFC 9293 3.8.4) */
#define CONNECT_NS   120000000000ll
#define RETRIES      10u

#define HEAD_LEN 54u
#define FIN      0x01u
#define SYN      0x02u
#define RST      0x04u
#define PSH      0x08u
#define ACK      0x10u

struct ring {
	uint8_t *p;
	uint32_t cap, head, count;
};

struct key {
	uint32_t guest, host; /* addresses as in the packet */
	uint16_t guest_port, host_port;
};

enum flow_state { CONNECTING, ACCEPTED, OPEN };

struct flow {
	struct flow *hash_next, *ack_next;
	struct key key;
	unsigned slot;
	int fd;
	uint32_t interest; /* epoll's */
	enum flow_state state;
	bool busy, dead;
	bool ack_queued; /* in the list of flows with acknowledgements to send */
	bool ack_owed;   /* and no segment has carried it yet */
	bool want_room;  /* the card refused a frame */
	bool guest_fin, shut, host_fin, fin_sent, fin_acked;
	bool scaled; /* both sides do window scaling */
	uint8_t guest_shift;
	uint8_t guest_mac[6], our_mac[6];
	uint16_t mss; /* the guest's */

	/* from the guest */
	uint32_t rcv_nxt, rcv_adv; /* next; right edge of the window that it knows of */
	struct ring up;
	/* to the guest: `down` begins at una */
	uint32_t una, nxt, max; /* max: the highest nxt that ever was */
	uint32_t window, dup_acks, recover;
	bool recovering; /* until `recover` is acknowledged */
	bool lost;       /* timed out: one segment at a time until there is an answer */
	struct ring down;

	int64_t rto_at, rto_ns, heard_ns; /* rto_at 0: nothing to wait for */
	unsigned retries;
	size_t syn_len;
	uint8_t syn[NET_HEAD_MAX];
};

struct tcp {
	struct loop *loop;
	struct mutex *io_lock;
	const struct tcp_ops *ops;
	void *opaque;
	int epfd;
	struct loop_timer tick;
	struct flow *buckets[BUCKETS];
	struct flow *slots[MAX_FLOWS];
	uint32_t generations[MAX_FLOWS];
	unsigned nflows;
	struct flow *acks;
	/* SYNs that slirp got: it also gets those that repeat them. */
	struct {
		struct key key;
		int64_t until;
	} passed[PASSED];
	unsigned next_passed;
};

static int64_t now_ns(const struct tcp *t)
{
	return clock_now_ns(loop_clock(t->loop));
}

static bool before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

/* ---- rings ---- */

static bool ring_ready(struct ring *r)
{
	if (!r->p)
		r->p = malloc(r->cap);
	return r->p != NULL;
}

static void ring_release(struct ring *r)
{
	free(r->p);
	r->p = NULL;
	r->head = r->count = 0;
}

static uint32_t ring_space(const struct ring *r)
{
	return r->cap - r->count;
}

/* What lies in one piece from byte `offset` of the contents on, or, at their end, is free. */
static uint32_t ring_piece(const struct ring *r, uint32_t offset, uint8_t **ret)
{
	uint32_t at = (r->head + offset) % r->cap;

	*ret = r->p + at;
	return r->cap - at;
}

static void ring_drop(struct ring *r, uint32_t n)
{
	r->head = (r->head + n) % r->cap;
	r->count -= n;
}

/* ---- the table ---- */

static unsigned bucket(const struct key *k)
{
	uint64_t h =
	    ((uint64_t)k->host << 32 | (uint32_t)k->guest_port << 16 | k->host_port) * 0x9e3779b97f4a7c15ull;

	return (unsigned)(h >> 56) % BUCKETS;
}

static bool same_key(const struct key *a, const struct key *b)
{
	return a->guest == b->guest && a->host == b->host && a->guest_port == b->guest_port &&
	       a->host_port == b->host_port;
}

static struct flow *find(const struct tcp *t, const struct key *k)
{
	struct flow *f = t->buckets[bucket(k)];

	while (f && !same_key(&f->key, k))
		f = f->hash_next;
	return f;
}

static void destroy(struct flow *f)
{
	if (f->fd >= 0)
		close(f->fd);
	free(f->up.p);
	free(f->down.p);
	free(f);
}

/* The end of a flow; the guest has heard of it. */
static void end(struct tcp *t, struct flow *f)
{
	struct flow **p = &t->buckets[bucket(&f->key)];

	while (*p != f)
		p = &(*p)->hash_next;
	*p = f->hash_next;
	if (f->ack_queued) {
		for (p = &t->acks; *p != f;)
			p = &(*p)->ack_next;
		*p = f->ack_next;
	}
	if (f->interest)
		epoll_ctl(t->epfd, EPOLL_CTL_DEL, f->fd, NULL);
	t->slots[f->slot] = NULL;
	t->generations[f->slot]++;
	t->nflows--;
	if (f->busy)
		f->dead = true;
	else
		destroy(f);
}

/* The host's side is to see a reset. */
static void end_reset(struct tcp *t, struct flow *f)
{
	setsockopt(f->fd, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 0 }, sizeof(struct linger));
	end(t, f);
}

/* What epoll is to wait for. A flow that waits for nothing is taken out: EPOLLHUP comes unasked. */
static void update_interest(struct tcp *t, struct flow *f)
{
	struct epoll_event ev = { 0 };
	uint32_t space = ring_space(&f->down);

	if (f->state == CONNECTING || f->up.count)
		ev.events |= EPOLLOUT;
	/* Full and then half empty: waking the thread for each acknowledgement would cost more. */
	if (f->state == OPEN && !f->host_fin && space >= ((f->interest & EPOLLIN) ? 1 : f->down.cap / 2))
		ev.events |= EPOLLIN;
	if (ev.events == f->interest)
		return;
	ev.data.u64 = (uint64_t)t->generations[f->slot] << 32 | f->slot;
	if (epoll_ctl(t->epfd,
		      !ev.events    ? EPOLL_CTL_DEL
		      : f->interest ? EPOLL_CTL_MOD
				    : EPOLL_CTL_ADD,
		      f->fd, &ev) == 0)
		f->interest = ev.events;
}

/* ---- to the guest ---- */

static void arm_tick(struct tcp *t)
{
	int64_t at = now_ns(t) + TICK_NS;

	if (!t->tick.armed || t->tick.deadline_ns > at)
		loop_timer_arm(&t->tick, at);
}

static void arm_rto(struct tcp *t, struct flow *f)
{
	f->rto_at = now_ns(t) + f->rto_ns;
	arm_tick(t);
}

static uint16_t window_field(struct flow *f, bool syn)
{
	uint32_t w = f->guest_fin ? 0 : ring_space(&f->up);
	unsigned shift = f->scaled && !syn ? WSCALE : 0;

	if (w >> shift > 0xffff)
		w = 0xffffu << shift;
	w = w >> shift << shift;
	/* A window is not taken back (RFC 9293 3.8.6). */
	if (before(f->rcv_nxt + w, f->rcv_adv))
		w = f->rcv_adv - f->rcv_nxt;
	f->rcv_adv = f->rcv_nxt + (w >> shift << shift);
	return (uint16_t)(w >> shift);
}

/* Ethernet and IP. */
static void make_head(const struct flow *f, uint8_t *h, size_t tcp_len)
{
	memset(h, 0, HEAD_LEN);
	memcpy(h, f->guest_mac, 6);
	memcpy(h + 6, f->our_mac, 6);
	packet_put16(h + 12, 0x0800);
	h[14] = 0x45;
	packet_put16(h + 16, (uint16_t)(20 + tcp_len));
	packet_put16(h + 20, 0x4000); /* do not fragment */
	h[22] = 64;
	h[23] = 6;
	memcpy(h + 26, &f->key.host, 4);
	memcpy(h + 30, &f->key.guest, 4);
	packet_put16(h + 24, (uint16_t)~packet_sum(h + 14, 20, 0));
	packet_put16(h + 34, f->key.host_port);
	packet_put16(h + 36, f->key.guest_port);
	h[46] = 0x50;
}

/* One segment. False: the card has no room for it. */
static bool emit(struct tcp *t, struct flow *f, unsigned flags, uint32_t seq, const uint8_t *body, uint32_t n)
{
	uint8_t h[HEAD_LEN + MSS];
	uint32_t opt = flags & SYN ? (f->scaled ? 8 : 4) : 0, tcp_len = 20 + opt + n;
	bool done;

	make_head(f, h, tcp_len);
	packet_put32(h + 38, seq);
	if (flags & ACK)
		packet_put32(h + 42, f->rcv_nxt);
	h[46] = (uint8_t)((20 + opt) / 4 << 4);
	h[47] = (uint8_t)flags;
	packet_put16(h + 48, flags & RST ? 0 : window_field(f, flags & SYN));
	if (flags & SYN) {
		memcpy(h + HEAD_LEN, "\x02\x04\x00\x00\x01\x03\x03", 7);
		packet_put16(h + HEAD_LEN + 2, MSS);
		h[HEAD_LEN + 7] = WSCALE;
	}
	if (n > f->mss) {
		done = t->ops->deliver(t->opaque, h, HEAD_LEN, body, n, f->mss);
	} else {
		if (n)
			memcpy(h + HEAD_LEN + opt, body, n);
		packet_put16(h + 50,
			     (uint16_t)~packet_sum(h + 34, tcp_len, packet_sum(h + 26, 8, 6 + tcp_len)));
		done = t->ops->deliver(t->opaque, h, 34 + tcp_len, NULL, 0, 0);
	}
	if (!done)
		f->want_room = true;
	else if (flags & ACK)
		f->ack_owed = false;
	return done;
}

static void queue_ack(struct tcp *t, struct flow *f)
{
	f->ack_owed = true;
	if (f->ack_queued)
		return;
	f->ack_queued = true;
	f->ack_next = t->acks;
	t->acks = f;
}

/* Sends what the guest's window allows. */
static void send_data(struct tcp *t, struct flow *f)
{
	uint32_t most = t->ops->big(t->opaque) ? SEG_MAX / f->mss * f->mss : f->mss;

	if (f->state != OPEN)
		return;
	for (;;) {
		uint32_t sent = f->nxt - f->una, unsent, room, n;
		uint8_t *p;

		if (sent > f->down.count) /* and the FIN */
			break;
		if (f->lost && sent)
			break;
		unsent = f->down.count - sent;
		room = f->window > sent ? f->window - sent : 0;
		if (!unsent) {
			if (!f->host_fin || !room || !emit(t, f, FIN | ACK, f->nxt, NULL, 0))
				break;
			f->fin_sent = true;
			f->nxt++;
		} else {
			n = unsent < most ? unsent : most;
			/* Not a silly little piece (RFC 9293 3.8.6.2.1): there will be more room. */
			if (room < n && room < f->mss && sent)
				break;
			if (n > room)
				n = room;
			if (n) {
				uint32_t piece = ring_piece(&f->down, sent, &p);

				if (n > piece)
					n = piece;
			}
			if (!n || !emit(t, f, n == unsent ? ACK | PSH : ACK, f->nxt, p, n))
				break;
			f->nxt += n;
		}
		if (before(f->max, f->nxt))
			f->max = f->nxt;
	}
	/* For an acknowledgement, or for the window to open. */
	if (!f->rto_at && (f->nxt != f->una || f->down.count || (f->host_fin && !f->fin_acked)))
		arm_rto(t, f);
}

static void send_syn_ack(struct tcp *t, struct flow *f)
{
	if (emit(t, f, SYN | ACK, f->una - 1, NULL, 0))
		f->want_room = false;
	arm_rto(t, f);
}

/* Tells the guest that the connection is no more. */
static void abort_flow(struct tcp *t, struct flow *f)
{
	emit(t, f, RST | ACK, f->state == CONNECTING ? 0 : f->nxt, NULL, 0);
	end_reset(t, f);
}

/* An acknowledgement of a byte sent long ago: the guest answers with what it has. */
static void probe(struct tcp *t, struct flow *f)
{
	emit(t, f, ACK, f->una - 1, NULL, 0);
}

/* ---- guest to host ---- */

static void maybe_shut(struct flow *f)
{
	if (f->guest_fin && !f->up.count && !f->shut) {
		shutdown(f->fd, SHUT_WR);
		f->shut = true;
	}
}

/* True if the flow is over, and gone. */
static bool maybe_over(struct tcp *t, struct flow *f)
{
	if (!f->shut || !f->fin_acked)
		return false;
	if (f->ack_owed)
		emit(t, f, ACK, f->nxt, NULL, 0);
	end(t, f);
	return true;
}

/* What waits in `up`. False: the connection was reset. */
static bool flush_up(struct tcp *t, struct flow *f)
{
	while (f->up.count) {
		uint8_t *p;
		uint32_t piece = ring_piece(&f->up, 0, &p);
		ssize_t n =
		    send(f->fd, p, piece < f->up.count ? piece : f->up.count, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == ENOBUFS))
			break;
		if (n < 0)
			return false;
		ring_drop(&f->up, (uint32_t)n);
	}
	maybe_shut(f);
	/* The guest is told when the window has grown by half (RFC 9293 3.8.6.2.2). */
	if (!f->guest_fin && f->rcv_nxt + ring_space(&f->up) - f->rcv_adv >= f->up.cap / 2)
		queue_ack(t, f);
	return true;
}

/* Data in sequence. Returns how much was taken, -1 for a reset. */
static int64_t take_data(struct flow *f, struct iovec *iov, unsigned cnt, uint32_t len)
{
	uint32_t done = 0;

	if (!f->up.count) {
		struct msghdr m = { .msg_iov = iov, .msg_iovlen = cnt };
		ssize_t n;

		do
			n = sendmsg(f->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
		while (n < 0 && errno == EINTR);
		if (n < 0 && errno != EAGAIN && errno != ENOBUFS)
			return -1;
		done = n > 0 ? (uint32_t)n : 0;
		if (done == len)
			return done;
		iov_cut_front(&iov, &cnt, done);
	}
	if (!ring_ready(&f->up))
		return done;
	while (done < len && ring_space(&f->up)) {
		uint8_t *p;
		uint32_t n = ring_piece(&f->up, f->up.count, &p);

		if (n > ring_space(&f->up))
			n = ring_space(&f->up);
		if (n > len - done)
			n = len - done;
		n = (uint32_t)iov_to_buf(iov, cnt, 0, p, n);
		iov_cut_front(&iov, &cnt, n);
		f->up.count += n;
		done += n;
	}
	return done;
}

/* ---- segments from the guest ---- */

struct segment {
	const uint8_t *tcp;
	uint32_t seq, ack, len;
	unsigned flags;
	struct iovec *iov;
	unsigned cnt;
};

static void parse_options(struct flow *f, const uint8_t *opt, size_t len)
{
	f->mss = MSS_DEFAULT;
	for (size_t p = 0; p < len && opt[p] != 0;) {
		if (opt[p] == 1) {
			p++;
			continue;
		}
		if (p + 1 >= len || opt[p + 1] < 2 || opt[p + 1] > len - p)
			break;
		if (opt[p] == 2 && opt[p + 1] == 4) {
			f->mss = packet_get16(opt + p + 2);
		} else if (opt[p] == 3 && opt[p + 1] == 3) {
			f->scaled = true;
			f->guest_shift = opt[p + 2] < 14 ? opt[p + 2] : 14; /* RFC 7323 2.3 */
		}
		p += opt[p + 1];
	}
	if (f->mss > MSS)
		f->mss = MSS;
	if (f->mss < MSS_LEAST)
		f->mss = MSS_LEAST;
}

/* 0: under way or done; else what connect said. */
static int open_socket(struct flow *f)
{
	struct sockaddr_in sa = {
		.sin_family = AF_INET,
		.sin_port = htons(f->key.host_port),
		.sin_addr = { f->key.host == htonl(NET_USER_GATEWAY) ? htonl(INADDR_LOOPBACK) : f->key.host }
	};
	int one = 1;

	f->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (f->fd < 0)
		return errno;
	setsockopt(f->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* the guest's TCP has Nagle's rule */
	setsockopt(f->fd, SOL_SOCKET, SO_OOBINLINE, &one, sizeof(one));
	if (connect(f->fd, (struct sockaddr *)&sa, sizeof(sa)) == 0) {
		f->state = ACCEPTED;
		return 0;
	}
	return errno == EINPROGRESS ? 0 : errno;
}

static void remember_passed(struct tcp *t, const struct key *k)
{
	t->passed[t->next_passed].key = *k;
	t->passed[t->next_passed].until = now_ns(t) + PASSED_NS;
	t->next_passed = (t->next_passed + 1) % PASSED;
}

static bool was_passed(const struct tcp *t, const struct key *k)
{
	for (unsigned i = 0; i < PASSED; i++)
		if (same_key(&t->passed[i].key, k) && t->passed[i].until > now_ns(t))
			return true;
	return false;
}

/* A SYN. False: not for us. */
static bool open_flow(struct tcp *t, const struct key *k, const uint8_t *head, const struct packet_tcp *p,
		      const struct segment *s)
{
	unsigned slot = 0;
	struct flow *f;
	int rc;

	if (was_passed(t, k))
		return false;
	while (slot < MAX_FLOWS && t->slots[slot])
		slot++;
	f = slot < MAX_FLOWS ? calloc(1, sizeof(*f)) : NULL;
	if (!f) {
		remember_passed(t, k);
		return false;
	}
	f->key = *k;
	f->slot = slot;
	parse_options(f, s->tcp + 20, p->data - p->tcp - 20);
	memcpy(f->our_mac, head, 6);
	memcpy(f->guest_mac, head + 6, 6);
	f->syn_len = p->data;
	memcpy(f->syn, head, p->data);
	f->up.cap = f->down.cap = t->nflows < LARGE_FLOWS ? RING_LARGE : RING_SMALL;
	f->rcv_nxt = f->rcv_adv = s->seq + 1;
	f->window = packet_get16(s->tcp + 14);
	f->rto_ns = RTO_FIRST_NS;
	f->heard_ns = now_ns(t);
	if (getrandom(&f->una, sizeof(f->una), GRND_NONBLOCK) != sizeof(f->una))
		f->una = (uint32_t)(f->heard_ns >> 8); /* RFC 9293 3.4.1's clock */
	f->nxt = f->max = f->una;
	rc = open_socket(f);
	if (rc) {
		destroy(f);
		remember_passed(t, k);
		return false;
	}
	f->hash_next = t->buckets[bucket(k)];
	t->buckets[bucket(k)] = f;
	t->slots[slot] = f;
	t->nflows++;
	if (f->state == ACCEPTED)
		send_syn_ack(t, f);
	else
		f->rto_at = now_ns(t) + CONNECT_NS;
	arm_tick(t);
	update_interest(t, f);
	return true;
}

/* The host's connect has come to something. */
static void connected(struct tcp *t, struct flow *f)
{
	int e = 0;
	socklen_t len = sizeof(e);

	if (getsockopt(f->fd, SOL_SOCKET, SO_ERROR, &e, &len) < 0)
		e = errno;
	if (e == 0) {
		f->state = ACCEPTED;
		send_syn_ack(t, f);
		update_interest(t, f);
	} else if (e == ECONNREFUSED) {
		abort_flow(t, f);
	} else {
		/* slirp will find the same, and has the ICMP message that says it. */
		uint8_t syn[NET_HEAD_MAX];
		size_t n = f->syn_len;

		memcpy(syn, f->syn, n);
		remember_passed(t, &f->key);
		end(t, f);
		t->ops->pass(t->opaque, syn, n);
	}
}

/* The acknowledgement and the window. */
static void take_ack(struct tcp *t, struct flow *f, const struct segment *s)
{
	uint32_t window = (uint32_t)packet_get16(s->tcp + 14) << (f->scaled ? f->guest_shift : 0);
	uint32_t acked = s->ack - f->una;

	if (before(s->ack, f->una))
		return;
	if (before(f->max, s->ack)) { /* of what was never sent (RFC 9293 3.10.7.4) */
		queue_ack(t, f);
		return;
	}
	f->retries = 0;
	if (acked) {
		if (acked > f->down.count) {
			f->fin_acked = true;
			acked = f->down.count;
		}
		ring_drop(&f->down, acked);
		f->una = s->ack;
		if (before(f->nxt, f->una))
			f->nxt = f->una;
		f->dup_acks = 0;
		f->lost = false;
		if (f->recovering && !before(f->una, f->recover))
			f->recovering = false;
		f->rto_ns = RTO_FIRST_NS;
		f->rto_at = f->una == f->max ? 0 : now_ns(t) + f->rto_ns;
	} else if (!s->len && !(s->flags & FIN) && window == f->window && f->una != f->max) {
		/* The guest says so for each segment that it got behind a gap (RFC 5681 2). */
		if (++f->dup_acks == 3 && !f->recovering) {
			f->recovering = true;
			f->recover = f->max;
			f->nxt = f->una;
		}
	} else if (window && !f->window) {
		f->rto_ns = RTO_FIRST_NS;
		f->rto_at = 0;
	}
	f->window = window;
	/* It is still there, and there is nothing that it has not got. */
	if (f->una == f->max && !f->down.count && (!f->host_fin || f->fin_acked)) {
		f->rto_ns = RTO_FIRST_NS;
		f->rto_at = 0;
	}
}

/* Data and FIN. False: the connection was reset. */
static bool take_payload(struct tcp *t, struct flow *f, struct segment *s)
{
	uint32_t old = f->rcv_nxt - s->seq, len = s->len;
	bool fin = s->flags & FIN;
	int64_t n = 0;

	if (!len && !fin) {
		/* Nothing but an acknowledgement; a probe from outside the window wants an answer. */
		if (s->seq != f->rcv_nxt)
			queue_ack(t, f);
		return true;
	}
	queue_ack(t, f);
	if (before(f->rcv_nxt, s->seq) || f->guest_fin)
		return true; /* a gap, or nothing new */
	if (old > len)
		return true;
	iov_cut_front(&s->iov, &s->cnt, old);
	len -= old;
	if (len) {
		n = take_data(f, s->iov, s->cnt, len);
		if (n < 0)
			return false;
		f->rcv_nxt += (uint32_t)n;
	}
	if (fin && n == (int64_t)len) {
		f->rcv_nxt++;
		f->guest_fin = true;
		maybe_shut(f);
	}
	return true;
}

static void flow_input(struct tcp *t, struct flow *f, struct segment *s)
{
	f->heard_ns = now_ns(t);
	if (s->flags & RST) {
		/* RFC 5961 3.2, but that any place in the window will do: nobody else can send here. */
		if (f->state == CONNECTING || s->seq - f->rcv_nxt <= f->rcv_adv - f->rcv_nxt)
			end_reset(t, f);
		return;
	}
	if (f->state == CONNECTING)
		return; /* the SYN again */
	if (s->flags & SYN) {
		if (f->state == ACCEPTED && s->seq + 1 == f->rcv_nxt)
			send_syn_ack(t, f);
		else
			queue_ack(t, f); /* RFC 5961 4.2; of an old life: the guest will answer with RST */
		return;
	}
	if (!(s->flags & ACK))
		return;
	if (f->state == ACCEPTED) {
		if (s->ack != f->una)
			return;
		f->state = OPEN;
		f->rto_at = 0;
	}
	take_ack(t, f, s);
	if (!take_payload(t, f, s)) {
		abort_flow(t, f);
		return;
	}
	send_data(t, f);
	if (!maybe_over(t, f) && !f->busy)
		update_interest(t, f);
}

static bool ours(uint32_t host)
{
	uint32_t a = ntohl(host);

	if ((a & NET_USER_MASK) == NET_USER_NET)
		return a == NET_USER_GATEWAY;
	return a >> 24 != 0 && a >> 24 != 127 && a >> 28 < 14;
}

static bool checksum_ok(const uint8_t *head, const struct packet_tcp *p, const struct iovec *iov,
			unsigned cnt)
{
	uint32_t len = (uint32_t)(p->end - p->tcp);

	/* Only frames in one piece are looked at. */
	if (cnt != 1 || iov->iov_len < p->end)
		return true;
	return packet_sum((const uint8_t *)iov->iov_base + p->tcp, len,
			  packet_sum(head + p->ip + 12, 8, 6 + len)) == 0xffff;
}

bool tcp_input(struct tcp *t, const uint8_t *head, size_t len, struct iovec *iov, unsigned cnt, bool check)
{
	struct packet_tcp p;
	struct segment s;
	struct flow *f;
	struct key k;

	if (!packet_find_tcp4(head, len, &p))
		return false;
	memcpy(&k.guest, head + p.ip + 12, 4);
	memcpy(&k.host, head + p.ip + 16, 4);
	k.guest_port = packet_get16(head + p.tcp);
	k.host_port = packet_get16(head + p.tcp + 2);
	if (!ours(k.host))
		return false;
	s.tcp = head + p.tcp;
	s.seq = packet_get32(s.tcp + 4);
	s.ack = packet_get32(s.tcp + 8);
	s.flags = s.tcp[13];
	s.len = (uint32_t)(p.end - p.data);
	f = find(t, &k);
	if (!f && (s.flags & (SYN | ACK | RST | FIN)) != SYN)
		return false;
	if (packet_sum(head + p.ip, p.tcp - p.ip, 0) != 0xffff || (check && !checksum_ok(head, &p, iov, cnt)))
		return true; /* damaged: dropped */
	if (!f)
		return open_flow(t, &k, head, &p, &s);
	iov_cut_front(&iov, &cnt, p.data);
	iov_cut_back(iov, &cnt, len - p.end);
	s.iov = iov;
	s.cnt = cnt;
	flow_input(t, f, &s);
	return true;
}

void tcp_flush(struct tcp *t)
{
	while (t->acks) {
		struct flow *f = t->acks;

		t->acks = f->ack_next;
		f->ack_queued = false;
		/* Refused: tcp_room tries again. */
		if (f->ack_owed)
			emit(t, f, ACK, f->nxt, NULL, 0);
	}
}

void tcp_room(struct tcp *t)
{
	for (unsigned i = 0; i < MAX_FLOWS && t->nflows; i++) {
		struct flow *f = t->slots[i];

		if (!f || !f->want_room)
			continue;
		f->want_room = false;
		if (f->state == ACCEPTED)
			send_syn_ack(t, f);
		else if (f->state == OPEN && (!f->ack_owed || emit(t, f, ACK, f->nxt, NULL, 0)))
			send_data(t, f);
		if (f->want_room)
			return;
	}
}

/* ---- the sockets ---- */

/* Into the ring, without the lock. False: the flow is gone. */
static bool read_socket(struct tcp *t, struct flow *f)
{
	for (unsigned i = 0; i < READ_ROUNDS && !f->host_fin && ring_space(&f->down); i++) {
		uint32_t space = ring_space(&f->down), piece;
		ssize_t n;
		uint8_t *p;
		int e;

		if (!ring_ready(&f->down))
			break; /* when there is memory again */
		piece = ring_piece(&f->down, f->down.count, &p);
		if (piece > space)
			piece = space;
		f->busy = true;
		mutex_unlock(t->io_lock);
		n = recv(f->fd, p, piece, MSG_DONTWAIT);
		e = errno;
		mutex_lock(t->io_lock);
		f->busy = false;
		if (f->dead) {
			destroy(f);
			return false;
		}
		if (n < 0 && (e == EAGAIN || e == EINTR || e == ENOBUFS || e == ENOMEM))
			break;
		if (n < 0) {
			abort_flow(t, f);
			return false;
		}
		if (n == 0)
			f->host_fin = true;
		f->down.count += (uint32_t)n;
		send_data(t, f);
		if ((uint32_t)n < piece)
			break;
	}
	return true;
}

void tcp_serve(struct tcp *t)
{
	struct epoll_event ev[16];
	int n = epoll_wait(t->epfd, ev, ARRAY_SIZE(ev), 0);

	for (int i = 0; i < n; i++) {
		uint32_t slot = (uint32_t)ev[i].data.u64;
		struct flow *f = t->slots[slot];

		if (!f || t->generations[slot] != (uint32_t)(ev[i].data.u64 >> 32))
			continue; /* gone since */
		if (f->state == CONNECTING) {
			connected(t, f);
			continue;
		}
		if ((ev[i].events & (EPOLLOUT | EPOLLERR)) && !flush_up(t, f)) {
			abort_flow(t, f);
			continue;
		}
		if (f->state == OPEN && (ev[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP)) &&
		    !read_socket(t, f))
			continue;
		if (!maybe_over(t, f))
			update_interest(t, f);
	}
	tcp_flush(t);
}

/* ---- time ---- */

/* False: the flow is gone. */
static void flow_timeout(struct tcp *t, struct flow *f)
{
	if (f->state == CONNECTING || ++f->retries > RETRIES) {
		abort_flow(t, f);
		return;
	}
	f->rto_ns = f->rto_ns * 2 < RTO_MOST_NS ? f->rto_ns * 2 : RTO_MOST_NS;
	if (f->state == ACCEPTED) {
		send_syn_ack(t, f);
		return;
	}
	if (f->una != f->max) {
		f->nxt = f->una;
		f->lost = true;
		f->recovering = false;
		f->dup_acks = 0;
		f->rto_at = 0;
		send_data(t, f);
		/* A window that closed meanwhile */
		if (f->nxt == f->una)
			probe(t, f);
	} else {
		probe(t, f);
	}
	arm_rto(t, f);
}

static void tick(void *opaque)
{
	struct tcp *t = opaque;
	int64_t now = now_ns(t);
	bool soon = false;

	for (unsigned i = 0; i < MAX_FLOWS; i++) {
		struct flow *f = t->slots[i];

		if (!f)
			continue;
		if (!f->rto_at && now - f->heard_ns > IDLE_NS && f->state == OPEN)
			f->rto_at = now;
		if (!f->up.count)
			ring_release(&f->up);
		if (!f->down.count && !f->busy)
			ring_release(&f->down);
		soon = soon || f->rto_at || f->up.p || f->down.p;
		if (f->rto_at && now >= f->rto_at)
			flow_timeout(t, f);
	}
	if (t->nflows)
		loop_timer_arm(&t->tick, now + (soon ? TICK_NS : SLOW_TICK_NS));
}

/* ---- all of it ---- */

int tcp_fd(const struct tcp *t)
{
	return t->epfd;
}

int tcp_new(struct loop *loop, struct mutex *io_lock, const struct tcp_ops *ops, void *opaque,
	    struct tcp **ret)
{
	struct tcp *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	t->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (t->epfd < 0) {
		free(t);
		return -errno;
	}
	t->loop = loop;
	t->io_lock = io_lock;
	t->ops = ops;
	t->opaque = opaque;
	loop_timer_init(loop, &t->tick, tick, t);
	*ret = t;
	return 0;
}

void tcp_free(struct tcp *t)
{
	if (!t)
		return;
	for (unsigned i = 0; i < MAX_FLOWS; i++)
		if (t->slots[i])
			end_reset(t, t->slots[i]);
	loop_timer_cancel(&t->tick);
	close(t->epfd);
	free(t);
}
