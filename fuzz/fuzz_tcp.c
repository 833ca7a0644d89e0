/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that speaks TCP as it likes with the NAT, and a host that reads, writes and
 * closes: the input says what comes next.  Ports and addresses are those of a socket of
 * our own on the loopback, so no stranger is called; sequence numbers, flags, windows,
 * options and lengths are the input's, often relative to what the NAT last said, so that
 * it gets far.
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "net/net_internal.h"
#include "net/packet.h"
#include "net/tcp.h"

#include "fuzz_input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_STEPS 256
#define MAX_PEERS 4
#define HEAD_LEN  54u

static struct {
	uint32_t seq, ack; /* what the NAT last sent, and expects */
	bool refuse, big;
} nat;

static bool deliver(void *opaque, const uint8_t *h, size_t head_len, const uint8_t *body, size_t body_len,
		    uint16_t gso_size)
{
	size_t data = head_len + body_len - 34 - (h[46] >> 4) * 4u;

	(void)opaque;
	(void)body;
	if (head_len < HEAD_LEN || (gso_size && !nat.big) || (!gso_size && body_len))
		abort();
	if (nat.refuse)
		return false;
	nat.seq = packet_get32(h + 38) + (uint32_t)data + !!(h[47] & 3);
	nat.ack = packet_get32(h + 42);
	return true;
}

static bool big(void *opaque)
{
	(void)opaque;
	return nat.big;
}

static void pass(void *opaque, const uint8_t *frame, size_t len)
{
	(void)opaque;
	(void)frame;
	(void)len;
}

static const struct tcp_ops ops = { deliver, big, pass };

/* One segment; `flags` is also whether the numbers are absolute (0x80) or relative to the NAT's. */
static void segment(struct tcp *t, struct fuzz_input *in, uint16_t port)
{
	static uint8_t f[NET_FRAME_MAX];
	unsigned how = fuzz_u8(in), options = fuzz_u8(in) & 15;
	size_t n = how & 0x40 ? fuzz_u16(in) % 60000 : how & 0x20 ? fuzz_u8(in) : 0;
	size_t opt = options < 11 ? options * 4 : 0, head = HEAD_LEN + opt, cut;
	uint32_t seq = how & 0x80 ? fuzz_u32(in) : nat.ack + (uint32_t)(int8_t)fuzz_u8(in);
	uint32_t ack = how & 0x80 ? fuzz_u32(in) : nat.seq + (uint32_t)(int8_t)fuzz_u8(in);
	struct iovec iov[2];

	memset(f, 0, HEAD_LEN);
	packet_put16(f + 12, 0x0800);
	f[14] = 0x45;
	packet_put16(f + 16, (uint16_t)(20 + 20 + opt + n));
	f[22] = 64;
	f[23] = 6;
	packet_put32(f + 26, NET_USER_GUEST);
	packet_put32(f + 30, NET_USER_GATEWAY);
	packet_put16(f + 24, (uint16_t)~packet_sum(f + 14, 20, 0));
	packet_put16(f + 34, (uint16_t)(1000 + (how >> 3 & 1)));
	packet_put16(f + 36, port);
	packet_put32(f + 38, seq);
	packet_put32(f + 42, ack);
	f[46] = (uint8_t)((20 + opt) / 4 << 4);
	f[47] = fuzz_u8(in);
	packet_put16(f + 48, (uint16_t)fuzz_u16(in));
	for (size_t i = 0; i < opt; i++)
		f[HEAD_LEN + i] = fuzz_u8(in);
	cut = head + n / 3;
	iov[0] = (struct iovec){ f, cut };
	iov[1] = (struct iovec){ f + cut, head + n - cut };
	tcp_input(t, f, head + n, iov, 2, how & 1);
	if (how & 2)
		tcp_flush(t);
}

static void host(struct fuzz_input *in, int listener, int peers[MAX_PEERS])
{
	static uint8_t bulk[65536];
	unsigned how = fuzz_u8(in), k = how % MAX_PEERS;

	if (peers[k] < 0) {
		peers[k] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		return;
	}
	switch (how >> 2 & 7) {
	case 0:
		shutdown(peers[k], SHUT_WR);
		break;
	case 1:
		if (how & 0x20)
			setsockopt(peers[k], SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 0 },
				   sizeof(struct linger));
		close(peers[k]);
		peers[k] = -1;
		break;
	case 2:
	case 3:
		if (recv(peers[k], bulk, sizeof(bulk), MSG_DONTWAIT) < 0)
			break;
		break;
	default:
		if (send(peers[k], bulk, fuzz_u16(in) + 1u, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t len = sizeof(sa);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), peers[MAX_PEERS];
	struct clock clock;
	struct mutex lock;
	struct loop *l;
	struct tcp *t;

	memset(&nat, 0, sizeof(nat));
	memset(peers, -1, sizeof(peers));
	clock_init(&clock);
	mutex_init(&lock, LOCK_RANK_IO, "io");
	if (bind(listener, (struct sockaddr *)&sa, sizeof(sa)) || listen(listener, 8) ||
	    getsockname(listener, (struct sockaddr *)&sa, &len) || loop_new(&clock, &lock, &l, NULL) ||
	    tcp_new(l, &lock, &ops, NULL, &t))
		abort();
	mutex_lock(&lock);
	for (unsigned i = 0; i < MAX_STEPS && in.left; i++) {
		switch (fuzz_u8(&in) & 7) {
		case 0:
			nat.refuse = !nat.refuse;
			if (!nat.refuse)
				tcp_room(t);
			break;
		case 1:
			nat.big = !nat.big;
			break;
		case 2: /* time passes */
			clock.offset_ns += (int64_t)fuzz_u16(&in) << (fuzz_u8(&in) % 32);
			loop_clock_changed(l);
			mutex_unlock(&lock);
			fuzz_run_loop(l);
			mutex_lock(&lock);
			break;
		case 3:
		case 4:
			host(&in, listener, peers);
			tcp_serve(t);
			break;
		default:
			segment(t, &in, ntohs(sa.sin_port));
			tcp_serve(t);
		}
	}
	tcp_free(t);
	mutex_unlock(&lock);
	for (unsigned i = 0; i < MAX_PEERS; i++)
		if (peers[i] >= 0)
			close(peers[i]);
	close(listener);
	loop_free(l);
	mutex_destroy(&lock);
	return 0;
}
