/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio network device (virtio 1.2 §5.1): receive queue 0, transmit queue
 * 1, control queue 2.
 *
 * Transmit: a notification wakes the event loop, which serves the queue while
 * the guest goes on; meanwhile the driver need not notify, and its ring fills up.
 * (Serving it in the vCPU's thread, one frame at a time with an interrupt each, was
 * seven times slower for a guest that writes 1 KiB pieces.)  But frames that are so
 * short that they hardly carry data, acknowledgements above all, and large segments,
 * which fill a window, are sent at once: what answers them is what the guest waits
 * for, and two wake-ups of other threads take longer than all the rest of the way.
 * Each frame is gathered into a private buffer (the guest cannot change it any
 * more), its checksum is finished if the driver left that to us, and the
 * backend gets it.  A TCP segment beyond the MTU (HOST_TSO4) goes to the backend
 * as it is, if the backend says that it takes such: one pass through the
 * guest's network stack for up to 64 KiB, and three times the throughput.
 *
 * Receive: the backend calls net_receive, which fills one buffer, or several
 * with MRG_RXBUF.  Without enough room it refuses, asks the driver to notify us
 * of new buffers, and then lets the backend try again.  Large segments
 * (GUEST_TSO4) pass the other way: their header says in what size they might
 * have come, and their checksum is left at the pseudo-header's sum (§5.1.6.4).
 */
#include "dev/virtio/virtio_net.h"

#include <errno.h>
#include <string.h>

#include "base/iov.h"
#include "base/util.h"
#include "net/packet.h"

#define QUEUE_SIZE 256u
#define RX         0u
#define TX         1u
#define CTRL       2u
#define MAC_TABLE  64u
#define TX_BURST   64u /* frames sent before others get the I/O lock again */
#define TX_AT_ONCE 8u  /* short or large frames that the vCPU's thread sends */
#define TX_SHORT   128u
#define TX_LARGE   4096u
/* So long the driver may wait to hear that frames were sent: it gathers small writes meanwhile (TCP
 * autocorking). */
#define TX_COALESCE_NS 100000
/* Acknowledgements nobody waits for. */
#define TX_SHORT_COALESCE_NS 5000000

/* Features (§5.1.3) */
#define F_CSUM          (1ull << 0)
#define F_GUEST_CSUM    (1ull << 1)
#define F_MAC           (1ull << 5)
#define F_GUEST_TSO4    (1ull << 7)
#define F_HOST_TSO4     (1ull << 11)
#define F_MRG_RXBUF     (1ull << 15)
#define F_STATUS        (1ull << 16)
#define F_CTRL_VQ       (1ull << 17)
#define F_CTRL_RX       (1ull << 18)
#define F_CTRL_MAC_ADDR (1ull << 23)

#define STATUS_LINK_UP 1u

/* Packet header (§5.1.6) */
struct net_hdr {
	uint8_t flags, gso_type;
	uint16_t hdr_len, gso_size, csum_start, csum_offset, num_buffers;
};
#define HDR_LEN         12u
#define HDR_NUM_BUFFERS 10u
#define HDR_NEEDS_CSUM  1u
#define HDR_DATA_VALID  2u
#define GSO_NONE        0u
#define GSO_TCPV4       1u

/* Control queue (§5.1.6.5) */
#define CTRL_RX          0u
#define CTRL_RX_PROMISC  0u
#define CTRL_RX_ALLMULTI 1u
#define CTRL_MAC         1u
#define CTRL_MAC_TABLE   0u
#define CTRL_MAC_ADDR    1u
#define CTRL_OK          0u
#define CTRL_ERR         1u

struct net_config {
	uint8_t mac[6];
	uint16_t status;
} __attribute__((packed));

struct mac_table {
	uint8_t count;
	bool overflow; /* the driver had more than fit: take all of that kind */
	uint8_t mac[MAC_TABLE * 6];
};

struct virtio_net {
	struct virtio_device v;
	struct net *net;
	uint8_t first_mac[6];
	uint8_t tx_buf[NET_FRAME_MAX];
	struct loop_work tx_work;
	struct loop_timer tx_timer; /* armed: the driver is to hear of tx_unsignalled frames */
	unsigned tx_unsignalled;

	/* state */
	uint8_t mac[6];
	bool link_up, promisc, allmulti;
	struct mac_table uni, multi;
};

static struct virtio_net *to_net(struct virtio_device *v)
{
	return container_of(v, struct virtio_net, v);
}

/* ---- receive ---- */

static bool in_table(const struct mac_table *t, const uint8_t *mac)
{
	for (unsigned i = 0; i < t->count; i++)
		if (memcmp(t->mac + i * 6, mac, 6) == 0)
			return true;
	return t->overflow;
}

static bool wanted(const struct virtio_net *n, const uint8_t *dst)
{
	static const uint8_t broadcast[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

	if (n->promisc || memcmp(dst, broadcast, 6) == 0)
		return true;
	if (dst[0] & 1)
		return n->allmulti || in_table(&n->multi, dst);
	return memcmp(dst, n->mac, 6) == 0 || in_table(&n->uni, dst);
}

/*
 * Writes the packet header and, for a large segment, a copy of the frame's
 * headers with the checksum made partial. Returns the length, *skip: how much of
 * the frame is in it. 0 if the frame cannot be given to this driver.
 */
#define FRONT_MAX (HDR_LEN + NET_ETH_HEADER + 60 + 60)
static size_t make_front(const struct virtio_net *n, const uint8_t *frame, size_t len,
			 const struct net_frame_info *info, uint8_t *front, size_t *skip)
{
	struct net_hdr h = { .num_buffers = 1 };
	struct packet_tcp t;
	uint32_t tcp_len;

	*skip = 0;
	if (!info->gso_size) {
		h.flags = virtio_has(&n->v, F_GUEST_CSUM) ? HDR_DATA_VALID : 0;
		memcpy(front, &h, HDR_LEN);
		return HDR_LEN;
	}
	if (!virtio_has(&n->v, F_GUEST_TSO4) || !packet_find_tcp4(frame, len + info->body_len, &t))
		return 0;
	h.flags = HDR_NEEDS_CSUM;
	h.gso_type = GSO_TCPV4;
	h.gso_size = info->gso_size;
	h.hdr_len = (uint16_t)t.data;
	h.csum_start = (uint16_t)t.tcp;
	h.csum_offset = 16;
	memcpy(front, &h, HDR_LEN);
	memcpy(front + HDR_LEN, frame, t.data);
	tcp_len = (uint32_t)(t.end - t.tcp);
	packet_put16(front + HDR_LEN + t.tcp + 16, packet_sum(frame + t.ip + 12, 8, 6 + tcp_len));
	*skip = t.data;
	return HDR_LEN + t.data;
}

/* Copies bytes [offset, offset + e->in_len) of front and body into the chain. Returns the number. */
static size_t copy_piece(const struct vq_elem *e, size_t offset, const uint8_t *front, size_t front_len,
			 const uint8_t *body, size_t body_len)
{
	size_t done = 0;

	if (offset < front_len)
		done = iov_from_buf(e->in, e->nin, 0, front + offset, front_len - offset);
	if (offset + done >= front_len)
		done += iov_from_buf(e->in, e->nin, done, body + (offset + done - front_len),
				     body_len - (offset + done - front_len));
	return done;
}

/* The place of byte `offset` of the chain. */
static uint8_t *byte_at(const struct vq_elem *e, size_t offset)
{
	for (unsigned i = 0; i < e->nin; i++) {
		if (offset < e->in[i].iov_len)
			return (uint8_t *)e->in[i].iov_base + offset;
		offset -= e->in[i].iov_len;
	}
	return NULL;
}

/* What of the guest's memory was written for a frame, to be reported at once. */
struct written {
	struct iovec iov[32];
	unsigned n;
};

static void report(struct virtqueue *q, struct written *w)
{
	vq_written(q, w->iov, w->n, UINT64_MAX);
	w->n = 0;
}

static void add_written(struct virtqueue *q, struct written *w, const struct vq_elem *e, size_t len)
{
	for (unsigned i = 0; i < e->nin && len; i++) {
		struct iovec piece = e->in[i];

		if (piece.iov_len > len)
			piece.iov_len = len;
		if (w->n == ARRAY_SIZE(w->iov))
			report(q, w);
		w->iov[w->n++] = piece;
		len -= piece.iov_len;
	}
}

enum put_result { PUT_DONE, PUT_NO_ROOM, PUT_DROPPED };

/* Fills buffers, *ret_chains of them; gives none of them back yet. */
static enum put_result fill_buffers(struct virtio_net *n, const uint8_t *front, size_t front_len,
				    const uint8_t *body, size_t body_len, struct written *w,
				    uint16_t *ret_chains)
{
	struct virtqueue *q = &n->v.vq[RX];
	bool merge = virtio_has(&n->v, F_MRG_RXBUF);
	size_t total = front_len + body_len, offset = 0;
	uint8_t *count_p[2] = { NULL, NULL };
	uint16_t chains = 0;
	struct vq_elem e;

	for (*ret_chains = 0; offset < total; *ret_chains = chains) {
		size_t piece;
		int rc;

		if (chains == q->size || (chains && !merge))
			/* It will never fit (§5.1.6.3.1 asks the driver for larger ones): lose the frame. */
			return PUT_DROPPED;
		rc = vq_pop(q, &e);
		if (rc <= 0)
			return rc ? PUT_DROPPED : PUT_NO_ROOM;
		if (e.in_len == 0 || (chains == 0 && e.in_len < HDR_LEN)) {
			virtio_broken(&n->v, "a receive buffer without room for the header");
			return PUT_DROPPED;
		}
		piece = copy_piece(&e, offset, front, front_len, body, body_len);
		if (chains == 0) {
			count_p[0] = byte_at(&e, HDR_NUM_BUFFERS);
			count_p[1] = byte_at(&e, HDR_NUM_BUFFERS + 1);
		}
		add_written(q, w, &e, piece);
		vq_fill(q, chains, e.head, (uint32_t)piece);
		offset += piece;
		chains++;
	}
	if (chains > 1) {
		struct iovec iov[2] = { { count_p[0], 1 }, { count_p[1], 1 } };

		*count_p[0] = (uint8_t)chains;
		*count_p[1] = (uint8_t)(chains >> 8);
		add_written(q, w, &(struct vq_elem){ .in = iov, .nin = 2 }, 2);
	}
	return PUT_DONE;
}

/* *seen: if there is no room, the available index up to which there was none. */
static enum put_result put_frame(struct virtio_net *n, const uint8_t *front, size_t front_len,
				 const uint8_t *body, size_t body_len, uint16_t *seen)
{
	struct virtqueue *q = &n->v.vq[RX];
	struct written w = { .n = 0 };
	uint16_t chains;
	enum put_result r = fill_buffers(n, front, front_len, body, body_len, &w, &chains);

	report(q, &w);
	if (r != PUT_DONE) {
		*seen = q->last_avail;
		vq_rewind(q, chains);
		return r;
	}
	vq_flush(q, chains);
	vq_notify(q);
	return PUT_DONE;
}

/* From the backend. */
static bool net_receive(void *opaque, const uint8_t *frame, size_t len, const struct net_frame_info *info)
{
	struct virtio_net *n = opaque;
	uint8_t front[FRONT_MAX];
	size_t front_len, skip;

	if (!virtio_running(&n->v) || !n->v.vq[RX].enabled || !n->link_up || len < NET_ETH_HEADER ||
	    !wanted(n, frame))
		return true;
	front_len = make_front(n, frame, len, info, front, &skip);
	if (!front_len)
		return true;
	for (unsigned tries = 0; tries < 3; tries++) {
		const uint8_t *body = info->body ? info->body : frame + skip;
		size_t body_len = info->body ? info->body_len : len - skip;
		uint16_t seen = 0;

		if (put_frame(n, front, front_len, body, body_len, &seen) != PUT_NO_ROOM)
			return true;
		if (!vq_listen_beyond(&n->v.vq[RX], seen))
			return false;
	}
	/* Buffers keep arriving one by one, and a notification may just have been missed. */
	virtio_kick_later(&n->v);
	return false;
}

/* ---- transmit ---- */

/*
 * Straight from guest memory, if the backend can: no checksum and no copy but of
 * the headers, which must not change any more. False: it has to be gathered.
 */
static bool send_pieces(struct virtio_net *n, const struct net_hdr *h, struct vq_elem *e)
{
	if (e->out_len <= TX_SHORT || !(h->flags & HDR_NEEDS_CSUM))
		return false;
	iov_to_buf(e->out, e->nout, 0, n->tx_buf, NET_HEAD_MAX);
	return net_send_pieces(n->net, n->tx_buf, e->out_len, e->out, e->nout);
}

static void send_frame(struct virtio_net *n, struct vq_elem *e)
{
	struct net_hdr h;
	size_t len;

	if (e->out_len < HDR_LEN + NET_ETH_HEADER || e->out_len > HDR_LEN + sizeof(n->tx_buf) || !n->link_up)
		return;
	iov_to_buf(e->out, e->nout, 0, &h, HDR_LEN);
	iov_cut_front(&e->out, &e->nout, HDR_LEN);
	e->out_len -= HDR_LEN;
	len = e->out_len;
	if (h.gso_type == GSO_TCPV4) {
		if (!virtio_has(&n->v, F_HOST_TSO4))
			return;
	} else if (h.gso_type != GSO_NONE) {
		return; /* not negotiated */
	}
	if (len > NET_FRAME_USUAL + 4 && !net_big_tx(n->net)) /* + 4: a VLAN tag */
		return;
	if (send_pieces(n, &h, e))
		return;
	iov_to_buf(e->out, e->nout, 0, n->tx_buf, len);
	if ((h.flags & HDR_NEEDS_CSUM) && !packet_finish_csum(n->tx_buf, len, h.csum_start, h.csum_offset))
		return;
	net_send(n->net, n->tx_buf, len);
}

static void tx_interrupt(void *opaque)
{
	struct virtio_net *n = opaque;

	loop_timer_cancel(&n->tx_timer);
	n->tx_unsignalled = 0;
	vq_notify(&n->v.vq[TX]);
}

/* At the latest after so long. */
static void interrupt_in(struct virtio_net *n, int64_t ns)
{
	int64_t deadline = clock_now_ns(n->v.board->clock) + ns;

	if (!n->tx_timer.armed || n->tx_timer.deadline_ns > deadline)
		loop_timer_arm(&n->tx_timer, deadline);
}

/* Frames whose answer the guest waits for, in the vCPU's thread. False: there are others too. */
static bool send_now(struct virtio_net *n)
{
	struct virtqueue *q = &n->v.vq[TX];
	unsigned sent = 0;
	struct vq_elem e;

	do {
		while (sent < TX_AT_ONCE && vq_pop(q, &e) > 0) {
			if (e.out_len > HDR_LEN + TX_SHORT && e.out_len < TX_LARGE) {
				vq_rewind(q, 1);
				return false;
			}
			send_frame(n, &e);
			vq_push(q, e.head, 0);
			n->tx_unsignalled++;
			sent++;
		}
	} while (virtio_running(&n->v) && sent < TX_AT_ONCE && vq_listen(q));
	if (sent)
		net_flush(n->net);
	if (n->tx_unsignalled >= q->size / 4)
		tx_interrupt(n);
	else if (n->tx_unsignalled)
		interrupt_in(n, TX_SHORT_COALESCE_NS);
	return sent < TX_AT_ONCE || !virtio_running(&n->v);
}

static void serve_tx(void *opaque)
{
	struct virtio_net *n = opaque;
	struct virtqueue *q = &n->v.vq[TX];
	unsigned budget = TX_BURST;
	struct vq_elem e;

	vq_silence(q);
	do {
		while (budget && vq_pop(q, &e) > 0) {
			send_frame(n, &e);
			vq_push(q, e.head, 0);
			n->tx_unsignalled++;
			budget--;
		}
		if (!virtio_running(&n->v))
			return;
		if (!budget) {
			loop_post(n->v.board->loop, &n->tx_work);
			break;
		}
	} while (vq_listen(q));
	if (budget < TX_BURST)
		net_flush(n->net);
	if (n->tx_unsignalled >= q->size / 4)
		tx_interrupt(n);
	else if (n->tx_unsignalled)
		interrupt_in(n, TX_COALESCE_NS);
}

/* ---- control ---- */

/* Reads one table (count, then addresses) at *offset of the chain. */
static bool read_table(const struct vq_elem *e, size_t *offset, struct mac_table *t)
{
	uint32_t entries;

	*t = (struct mac_table){ 0 };
	if (iov_to_buf(e->out, e->nout, *offset, &entries, 4) != 4)
		return false;
	*offset += 4;
	if (entries > (e->out_len - *offset) / 6)
		return false;
	if (entries <= MAC_TABLE)
		t->count = (uint8_t)(iov_to_buf(e->out, e->nout, *offset, t->mac, entries * 6) / 6);
	else
		t->overflow = true;
	*offset += (size_t)entries * 6;
	return true;
}

static uint8_t control(struct virtio_net *n, const struct vq_elem *e)
{
	uint8_t cmd[3] = { 0 };
	struct mac_table uni, multi;
	size_t offset = 2;

	if (iov_to_buf(e->out, e->nout, 0, cmd, 3) < 3)
		return CTRL_ERR;
	if (cmd[0] == CTRL_RX && cmd[1] == CTRL_RX_PROMISC) {
		n->promisc = cmd[2] != 0;
		return CTRL_OK;
	}
	if (cmd[0] == CTRL_RX && cmd[1] == CTRL_RX_ALLMULTI) {
		n->allmulti = cmd[2] != 0;
		return CTRL_OK;
	}
	if (cmd[0] == CTRL_MAC && cmd[1] == CTRL_MAC_ADDR)
		return e->out_len == 2 + 6 && iov_to_buf(e->out, e->nout, 2, n->mac, 6) == 6 ? CTRL_OK
											     : CTRL_ERR;
	if (cmd[0] == CTRL_MAC && cmd[1] == CTRL_MAC_TABLE) {
		/* Both or neither. */
		if (!read_table(e, &offset, &uni) || !read_table(e, &offset, &multi))
			return CTRL_ERR;
		n->uni = uni;
		n->multi = multi;
		return CTRL_OK;
	}
	return CTRL_ERR;
}

static void serve_ctrl(struct virtio_net *n)
{
	struct virtqueue *q = &n->v.vq[CTRL];
	unsigned budget = q->size;
	bool any = false;
	struct vq_elem e;

	while (budget-- && vq_pop(q, &e) > 0) {
		uint8_t ack;

		if (e.in_len < 1) {
			virtio_broken(&n->v, "a network control command without room for the answer");
			return;
		}
		ack = control(n, &e);
		iov_from_buf(e.in, e.nin, 0, &ack, 1);
		vq_written(q, e.in, e.nin, 1);
		vq_push(q, e.head, 1);
		any = true;
	}
	if (any)
		vq_notify(q);
	if (vq_listen(q))
		virtio_kick_later(&n->v);
}

/* ---- the device ---- */

static void net_notify(struct virtio_device *v, unsigned queue)
{
	struct virtio_net *n = to_net(v);

	switch (queue) {
	case RX:
		vq_silence(&v->vq[RX]);
		net_rx_ready(n->net);
		break;
	case TX:
		if (!n->tx_work.queued && send_now(n))
			break;
		vq_silence(&v->vq[TX]);
		loop_post(v->board->loop, &n->tx_work);
		break;
	default:
		serve_ctrl(n);
	}
}

static bool net_features_ok(struct virtio_device *v, uint64_t features)
{
	/* §5.1.3.1: what depends on what. */
	if ((features & F_HOST_TSO4) && !(features & F_CSUM))
		return false;
	if ((features & F_GUEST_TSO4) && !(features & F_GUEST_CSUM))
		return false;
	if ((features & (F_CTRL_RX | F_CTRL_MAC_ADDR)) && !(features & F_CTRL_VQ))
		return false;
	net_set_big_rx(to_net(v)->net, features & F_GUEST_TSO4);
	return true;
}

/* What the driver sets by the control queue, and what a reset takes back. */
static void clear_filters(struct virtio_net *n)
{
	memcpy(n->mac, n->first_mac, 6);
	n->promisc = true; /* until the driver says what it wants */
	n->allmulti = false;
	n->uni = n->multi = (struct mac_table){ 0 };
}

static void net_stop(struct virtio_device *v)
{
	struct virtio_net *n = to_net(v);

	loop_unpost(v->board->loop, &n->tx_work);
	loop_timer_cancel(&n->tx_timer);
	n->tx_unsignalled = 0;
	net_set_big_rx(n->net, false);
	clear_filters(n);
}

static void net_config_get(struct virtio_device *v, uint8_t *buf)
{
	struct virtio_net *n = to_net(v);
	struct net_config c = { .status = n->link_up ? STATUS_LINK_UP : 0 };

	memcpy(c.mac, n->mac, 6);
	memcpy(buf, &c, sizeof(c));
}

static const struct virtio_ops net_ops = {
	.id = VIRTIO_ID_NET,
	.config_get = net_config_get,
	.features_ok = net_features_ok,
	.notify = net_notify,
	.stop = net_stop,
};

static void net_reset(struct device *d)
{
	virtio_reset((struct virtio_device *)d);
}

static int net_loaded(void *obj, struct error *err)
{
	struct virtio_net *n = obj;

	if (n->uni.count > MAC_TABLE || n->multi.count > MAC_TABLE)
		return error_set(err, EINVAL,
				 "saved state of %s %u: impossible filter table: the file is damaged",
				 n->v.dev.cls->name, n->v.dev.instance);
	net_set_big_rx(n->net, n->v.features & F_GUEST_TSO4);
	/* An interrupt for sent frames may have been on its way. */
	n->tx_unsignalled = 1;
	loop_post(n->v.board->loop, &n->tx_work);
	return virtio_loaded(&n->v, err);
}

static void net_free_device(struct device *d)
{
	struct virtio_net *n = (struct virtio_net *)d;

	net_set_client(n->net, &(struct net_client){ 0 });
	virtio_reset(&n->v);
	virtio_fini(&n->v);
	free(n);
}

static const struct state_field net_fields[] = {
	VIRTIO_FIELDS(struct virtio_net, v),     F_BYTES(struct virtio_net, mac),
	F_BOOL(struct virtio_net, link_up),      F_BOOL(struct virtio_net, promisc),
	F_BOOL(struct virtio_net, allmulti),     F_U8(struct virtio_net, uni.count),
	F_BOOL(struct virtio_net, uni.overflow), F_BYTES(struct virtio_net, uni.mac),
	F_U8(struct virtio_net, multi.count),    F_BOOL(struct virtio_net, multi.overflow),
	F_BYTES(struct virtio_net, multi.mac),   F_END,
};
static const struct state_table net_state = { "virtio-net", 1, net_fields, net_loaded };
static const struct device_class net_class = { "virtio-net", net_reset, &net_state, net_free_device };

int virtio_net_new(struct board *b, struct net *net, const uint8_t mac[6], uint32_t instance,
		   struct virtio_device **ret, struct error *err)
{
	uint64_t features = F_CSUM | F_GUEST_CSUM | F_MAC | F_MRG_RXBUF | F_STATUS | F_CTRL_VQ | F_CTRL_RX |
			    F_CTRL_MAC_ADDR | F_GUEST_TSO4;
	struct virtio_net *n;

	if (mac[0] & 1)
		return error_set(
		    err, EINVAL,
		    "MAC address %02x:%02x:%02x:%02x:%02x:%02x is a multicast address: make its first "
		    "byte even",
		    mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
	n = calloc(1, sizeof(*n));
	if (!n)
		return error_set(err, ENOMEM, "not enough memory for a virtio network card");
	n->net = net;
	n->tx_work = (struct loop_work){ .fn = serve_tx, .opaque = n };
	loop_timer_init(b->loop, &n->tx_timer, tx_interrupt, n);
	memcpy(n->first_mac, mac, 6);
	n->link_up = true;
	clear_filters(n);
	if (net_big_tx(net))
		features |= F_HOST_TSO4;
	if (virtio_init(&n->v, b, &net_ops, &net_class, instance, features, 3, QUEUE_SIZE,
			sizeof(struct net_config))) {
		free(n);
		return error_set(err, ENOMEM, "not enough memory for a virtio network card");
	}
	net_set_client(net, &(struct net_client){ net_receive, n });
	*ret = &n->v;
	return 0;
}

void virtio_net_set_link(struct virtio_device *v, bool up)
{
	struct virtio_net *n = to_net(v);

	if (n->link_up == up)
		return;
	n->link_up = up;
	virtio_config_changed(v);
}
