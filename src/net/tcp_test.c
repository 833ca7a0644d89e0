/* SPDX-License-Identifier: Apache-2.0 */
/* The NAT's TCP between a guest of a few lines and real sockets on the loopback. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "net/net_internal.h"
#include "net/packet.h"
#include "net/tcp.h"

#define FIN 1u
#define SYN 2u
#define RST 4u
#define ACK 16u

#define BULK (3u << 20)

static const uint8_t guest_mac[6] = { 0x52, 0x54, 0, 1, 2, 3 }, our_mac[6] = { 0x52, 0x55, 10, 0, 2, 2 };

struct guest {
	struct clock clock;
	struct mutex lock;
	struct loop *loop;
	struct tcp *tcp;
	int listener, peer;
	uint16_t port;   /* of the listener */
	uint32_t host;   /* whom the guest calls */
	uint16_t source; /* its port */

	bool big;
	unsigned refuse, lose; /* so many data frames */
	unsigned passed;
	/* what came */
	unsigned frames, big_frames, syn_acks, resets, fins, acks, out_of_order;
	bool mismatch;
	uint8_t options[8];
	uint16_t first_window;
	uint32_t ack, right_edge;
	uint64_t got, seen; /* bytes in order; bytes at all */
	/* the guest's own side */
	uint32_t snd_nxt, rcv_nxt, irs;
	uint16_t window;
	bool scaled, fin_got;
};

static uint8_t pattern(uint64_t i)
{
	return (uint8_t)(i ^ i >> 8 ^ i >> 16);
}

static bool deliver(void *opaque, const uint8_t *h, size_t head_len, const uint8_t *body, size_t body_len,
		    uint16_t gso_size)
{
	struct guest *g = opaque;
	size_t n = head_len + body_len - 54, opt = (h[46] >> 4) * 4u - 20;
	uint32_t seq = packet_get32(h + 38);

	n -= opt;
	assert_true(mutex_held(&g->lock));
	assert_int_equal(packet_sum(h + 14, 20, 0), 0xffff);
	assert_int_equal(packet_get16(h + 16), head_len + body_len - 14);
	assert_memory_equal(h, guest_mac, 6);
	assert_memory_equal(h + 6, our_mac, 6);
	assert_int_equal(packet_get32(h + 26), g->host);
	assert_int_equal(packet_get16(h + 34), g->port);
	if (packet_get16(h + 36) != g->source)
		return true;
	if (gso_size) {
		assert_true(g->big && gso_size <= 1460);
		assert_int_equal(head_len, 54);
		g->big_frames++;
	} else {
		assert_true(head_len <= NET_FRAME_USUAL && !body_len);
		assert_int_equal(
		    packet_sum(h + 34, head_len - 34, packet_sum(h + 26, 8, (uint32_t)(6 + head_len - 34))),
		    0xffff);
		body = h + 54 + opt;
	}
	if (g->refuse) {
		g->refuse--;
		return false;
	}
	g->frames++;
	g->seen += n;
	if (h[47] & RST) {
		g->resets++;
		return true;
	}
	assert_true(h[47] & ACK);
	g->ack = packet_get32(h + 42);
	if (h[47] & SYN) {
		g->syn_acks++;
		memcpy(g->options, h + 54, opt < 8 ? opt : 8);
		g->irs = seq;
		g->rcv_nxt = seq + 1;
		g->first_window = packet_get16(h + 48);
		return true;
	}
	/* The window's right edge never moves to the left. */
	{
		uint32_t edge = g->ack + ((uint32_t)packet_get16(h + 48) << (g->scaled ? 4 : 0));

		assert_true((int32_t)(edge + 15 - g->right_edge) >= 0);
		g->right_edge = edge;
	}
	if (!n && !(h[47] & FIN))
		g->acks++;
	if (n && g->lose) {
		g->lose--;
		return true;
	}
	if (seq != g->rcv_nxt) {
		g->out_of_order += n != 0;
		return true;
	}
	for (size_t i = 0; i < n; i++)
		if (body[i] != pattern(g->got + i))
			g->mismatch = true;
	g->got += n;
	g->rcv_nxt += (uint32_t)n;
	if (h[47] & FIN) {
		g->fins++;
		g->fin_got = true;
		g->rcv_nxt++;
	}
	return true;
}

static bool is_big(void *opaque)
{
	return ((struct guest *)opaque)->big;
}

static void pass(void *opaque, const uint8_t *frame, size_t len)
{
	struct packet_tcp t;

	assert_true(packet_find_tcp4(frame, len, &t));
	((struct guest *)opaque)->passed++;
}

static const struct tcp_ops ops = { deliver, is_big, pass };

/* A segment at seq, with payload of the pattern from seq on; in two pieces, as a guest's driver may have it.
 */
static bool segment(struct guest *g, unsigned flags, uint32_t seq, const uint8_t *data, size_t n)
{
	static uint8_t f[NET_FRAME_MAX];
	size_t opt = flags & SYN ? (g->scaled ? 8 : 4) : 0, tcp = 20 + opt + n;
	struct iovec iov[2] = { { f, 54 + opt + n / 3 }, { f + 54 + opt + n / 3, n - n / 3 } };

	memset(f, 0, 64);
	memcpy(f, our_mac, 6);
	memcpy(f + 6, guest_mac, 6);
	packet_put16(f + 12, 0x0800);
	f[14] = 0x45;
	packet_put16(f + 16, (uint16_t)(20 + tcp));
	f[22] = 64;
	f[23] = 6;
	packet_put32(f + 26, NET_USER_GUEST);
	packet_put32(f + 30, g->host);
	packet_put16(f + 24, (uint16_t)~packet_sum(f + 14, 20, 0));
	packet_put16(f + 34, g->source);
	packet_put16(f + 36, g->port);
	packet_put32(f + 38, seq);
	packet_put32(f + 42, g->rcv_nxt);
	f[46] = (uint8_t)((20 + opt) / 4 << 4);
	f[47] = (uint8_t)flags;
	packet_put16(f + 48, g->window);
	if (opt)
		memcpy(f + 54, "\x02\x04\x05\xb4\x01\x03\x03\x02", opt);
	if (n)
		memcpy(f + 54 + opt, data, n);
	packet_put16(f + 50, (uint16_t)~packet_sum(f + 34, tcp, packet_sum(f + 26, 8, (uint32_t)(6 + tcp))));
	return tcp_input(g->tcp, f, 34 + tcp, iov, n ? 2 : 1, true);
}

static void acknowledge(struct guest *g)
{
	assert_true(segment(g, ACK, g->snd_nxt, NULL, 0));
}

/* Sends in order. */
static void send_bytes(struct guest *g, uint64_t from, size_t n)
{
	static uint8_t buf[60000];

	for (size_t i = 0; i < n; i++)
		buf[i] = pattern(from + i);
	assert_true(segment(g, ACK, g->snd_nxt, buf, n));
	tcp_flush(g->tcp);
}

/* The NAT's thread, once: waits up to so long for its sockets. */
static bool serve(struct guest *g, int ms)
{
	struct pollfd p = { .fd = tcp_fd(g->tcp), .events = POLLIN };

	if (poll(&p, 1, ms) <= 0)
		return false;
	tcp_serve(g->tcp);
	return true;
}

static void quit(void *opaque)
{
	loop_quit(((struct guest *)opaque)->loop);
}

/* The event loop for so long. */
static void pass_time(struct guest *g, int ms)
{
	struct loop_timer t;

	loop_timer_init(g->loop, &t, quit, g);
	loop_timer_arm(&t, clock_now_ns(&g->clock) + ms * 1000000ll);
	mutex_unlock(&g->lock);
	loop_run(g->loop);
	mutex_lock(&g->lock);
}

static void new_connection(struct guest *g)
{
	g->source++;
	g->snd_nxt = 0xfffffff0u; /* numbers run over 2^32 */
	g->syn_acks = g->resets = g->fins = g->frames = g->big_frames = g->acks = g->out_of_order = 0;
	g->got = g->seen = 0;
	g->fin_got = g->mismatch = false;
	g->right_edge = g->snd_nxt;
}

static void connect_out(struct guest *g)
{
	new_connection(g);
	assert_true(segment(g, SYN, g->snd_nxt++, NULL, 0));
	if (!g->syn_acks)
		serve(g, 1000);
	assert_int_equal(g->syn_acks, 1);
	assert_int_equal(g->ack, g->snd_nxt);
	acknowledge(g);
	g->peer = accept4(g->listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(g->peer >= 0);
}

static int setup(void **state)
{
	struct guest *g = calloc(1, sizeof(*g));
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t len = sizeof(sa);

	clock_init(&g->clock);
	mutex_init(&g->lock, LOCK_RANK_IO, "io");
	assert_int_equal(loop_new(&g->clock, &g->lock, &g->loop, NULL), 0);
	g->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(g->listener, (void *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(g->listener, 1024), 0);
	assert_int_equal(getsockname(g->listener, (void *)&sa, &len), 0);
	g->port = ntohs(sa.sin_port);
	g->host = NET_USER_GATEWAY;
	g->source = 40000;
	g->window = 65535;
	g->scaled = g->big = true;
	g->peer = -1;
	assert_int_equal(tcp_new(g->loop, &g->lock, &ops, g, &g->tcp), 0);
	mutex_lock(&g->lock);
	*state = g;
	return 0;
}

static int teardown(void **state)
{
	struct guest *g = *state;

	tcp_free(g->tcp);
	mutex_unlock(&g->lock);
	close(g->listener);
	if (g->peer >= 0)
		close(g->peer);
	loop_free(g->loop);
	mutex_destroy(&g->lock);
	free(g);
	return 0;
}

static void test_open(void **state)
{
	struct guest *g = *state;

	connect_out(g);
	assert_memory_equal(g->options, "\x02\x04\x05\xb4\x01\x03\x03\x04", 8);
	assert_int_equal(g->first_window, 65535);
	assert_int_equal(segment(g, SYN, 5, NULL, 0), true); /* a challenge (RFC 5961 4.2) */
	g->acks = 0;
	tcp_flush(g->tcp);
	assert_int_equal(g->acks, 1);
	close(g->peer);
	/* No scaling asked for, none promised; the SYN again: the answer again. */
	g->scaled = false;
	connect_out(g);
	assert_memory_equal(g->options, "\x02\x04\x05\xb4", 4);
	close(g->peer);
	g->peer = -1;
	new_connection(g);
	assert_true(segment(g, SYN, 7, NULL, 0));
	serve(g, 100);
	assert_true(segment(g, SYN, 7, NULL, 0));
	assert_int_equal(g->syn_acks, 2);
	/* Not ours: strange segments, other addresses */
	new_connection(g);
	assert_false(segment(g, ACK, 1, NULL, 0));
	assert_false(segment(g, SYN | ACK, 1, NULL, 0));
	assert_false(segment(g, SYN | RST, 1, NULL, 0));
	static const uint32_t others[] = { 0x0a000203, 0x0a000204, 0x7f000001, 0xe0000001, 0xffffffff, 0 };
	for (unsigned i = 0; i < ARRAY_SIZE(others); i++) {
		g->host = others[i];
		assert_false(segment(g, SYN, 1, NULL, 0));
	}
	g->host = NET_USER_GATEWAY;
	/* Nobody there */
	g->port = 1;
	new_connection(g);
	segment(g, SYN, 1, NULL, 0);
	serve(g, 1000);
	assert_int_equal(g->syn_acks, 0);
	assert_int_equal(g->resets + g->passed, 1);
}

static void read_back(struct guest *g, uint64_t from, size_t n)
{
	uint8_t buf[4096];

	while (n) {
		ssize_t r = recv(g->peer, buf, n < sizeof(buf) ? n : sizeof(buf), MSG_DONTWAIT);

		assert_true(r > 0);
		for (ssize_t i = 0; i < r; i++)
			assert_int_equal(buf[i], pattern(from + (uint64_t)i));
		from += (uint64_t)r;
		n -= (size_t)r;
	}
}

static void test_upload(void **state)
{
	struct guest *g = *state;
	uint8_t junk[100] = { 0 };
	uint64_t sent = 0, back = 0;
	unsigned acks;

	connect_out(g);
	send_bytes(g, 0, 50000);
	g->snd_nxt += 50000;
	assert_int_equal(g->ack, g->snd_nxt);
	read_back(g, 0, 50000);
	/* Behind a gap: not taken, but answered. Old: not again. */
	acks = g->acks;
	assert_true(segment(g, ACK, g->snd_nxt + 1, junk, 100));
	assert_true(segment(g, ACK, g->snd_nxt - 100, junk, 100));
	tcp_flush(g->tcp);
	assert_int_equal(g->acks, acks + 1);
	assert_int_equal(g->ack, g->snd_nxt);
	assert_int_equal(recv(g->peer, junk, 1, MSG_DONTWAIT), -1);
	/* Half of it old */
	g->snd_nxt -= 60;
	send_bytes(g, 50000 - 60, 100);
	g->snd_nxt += 100;
	assert_int_equal(g->ack, g->snd_nxt);
	read_back(g, 50000, 40);
	/* Damaged: as if it had never been sent */
	{
		uint8_t f[74] = { 0 };
		struct iovec iov = { f, sizeof(f) };

		memcpy(f, our_mac, 6);
		packet_put16(f + 12, 0x0800);
		f[14] = 0x45;
		packet_put16(f + 16, 60);
		f[23] = 6;
		packet_put32(f + 26, NET_USER_GUEST);
		packet_put32(f + 30, g->host);
		packet_put16(f + 24, (uint16_t)~packet_sum(f + 14, 20, 0));
		packet_put16(f + 34, g->source);
		packet_put16(f + 36, g->port);
		packet_put32(f + 38, g->snd_nxt);
		f[46] = 0x50;
		f[47] = ACK;
		assert_true(tcp_input(g->tcp, f, sizeof(f), &iov, 1, true));
		assert_int_equal(recv(g->peer, junk, 1, MSG_DONTWAIT), -1);
	}
	/* A host that does not read: the window closes, nothing is lost. */
	back = sent = 50040;
	while (g->right_edge - g->snd_nxt >= 50000) {
		send_bytes(g, sent, 50000);
		assert_int_equal(g->ack, g->snd_nxt + 50000);
		g->snd_nxt += 50000;
		sent += 50000;
		assert_true(sent < 1u << 30);
	}
	send_bytes(g, sent, 60000); /* beyond the window: some is taken */
	sent += g->ack - g->snd_nxt;
	g->snd_nxt = g->ack;
	assert_true(g->right_edge - g->snd_nxt < 60000);
	acks = g->acks;
	while (back < sent) {
		uint64_t n = min_u64(sent - back, 100000);
		struct pollfd p = { .fd = g->peer, .events = POLLIN };

		serve(g, 0);
		if (poll(&p, 1, 0) == 1) {
			uint8_t b[1];

			assert_int_equal(recv(g->peer, b, 1, MSG_PEEK), 1);
			for (uint64_t i = 0; i < n; i++) {
				if (recv(g->peer, b, 1, MSG_DONTWAIT) != 1)
					break;
				assert_int_equal(b[0], pattern(back));
				back++;
			}
		}
	}
	assert_true(g->acks > acks); /* the window was opened again */
	assert_true(g->right_edge - g->snd_nxt > 200000);
	assert_int_equal(g->resets, 0);
}

static void test_close(void **state)
{
	struct guest *g = *state;
	uint8_t b[10];

	/* The guest first, the host still sending; a FIN with data; twice. */
	connect_out(g);
	for (unsigned i = 0; i < 10; i++)
		b[i] = pattern(i);
	assert_true(segment(g, ACK | FIN, g->snd_nxt, b, 10));
	assert_true(segment(g, ACK | FIN, g->snd_nxt, b, 10));
	tcp_flush(g->tcp);
	g->snd_nxt += 11;
	assert_int_equal(g->ack, g->snd_nxt);
	read_back(g, 0, 10);
	assert_int_equal(recv(g->peer, b, 1, 0), 0);
	for (unsigned i = 0; i < 10; i++)
		b[i] = pattern(i);
	assert_int_equal(send(g->peer, b, 10, 0), 10);
	assert_true(serve(g, 1000));
	assert_int_equal(g->got, 10);
	acknowledge(g);
	close(g->peer);
	assert_true(serve(g, 1000));
	assert_int_equal(g->fins, 1);
	acknowledge(g);
	/* Over: what comes now is somebody else's. */
	assert_false(segment(g, ACK, g->snd_nxt, NULL, 0));
	/* The host first */
	connect_out(g);
	shutdown(g->peer, SHUT_WR);
	assert_true(serve(g, 1000));
	assert_int_equal(g->fins, 1);
	acknowledge(g);
	assert_false(serve(g, 0)); /* nothing to wait for, no busy loop */
	send_bytes(g, 0, 100);
	g->snd_nxt += 100;
	read_back(g, 0, 100);
	assert_true(segment(g, ACK | FIN, g->snd_nxt, NULL, 0));
	tcp_flush(g->tcp);
	assert_int_equal(g->ack, g->snd_nxt + 1);
	assert_int_equal(recv(g->peer, b, 1, 0), 0);
	assert_false(segment(g, ACK, g->snd_nxt + 1, NULL, 0));
	close(g->peer);
	/* Resets: the guest's, far away first */
	connect_out(g);
	assert_true(segment(g, RST, g->snd_nxt - 1000000, NULL, 0));
	assert_true(segment(g, RST, g->snd_nxt, NULL, 0));
	assert_int_equal(recv(g->peer, b, 1, 0), -1);
	assert_int_equal(errno, ECONNRESET);
	assert_false(segment(g, ACK, g->snd_nxt, NULL, 0));
	close(g->peer);
	/* and the host's */
	connect_out(g);
	setsockopt(g->peer, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 0 }, sizeof(struct linger));
	close(g->peer);
	g->peer = -1;
	assert_true(serve(g, 1000));
	assert_int_equal(g->resets, 1);
	assert_false(segment(g, ACK, g->snd_nxt, NULL, 0));
	/* A host that is gone while the guest sends */
	connect_out(g);
	setsockopt(g->peer, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 0 }, sizeof(struct linger));
	close(g->peer);
	g->peer = -1;
	send_bytes(g, 0, 100);
	assert_int_equal(g->resets, 1);
}

/* The host sends all of BULK; the guest acknowledges, after each `every` milliseconds if nothing comes. */
static void download(struct guest *g)
{
	static uint8_t buf[BULK];
	size_t sent = 0;
	int idle = 0;

	for (uint64_t i = 0; i < BULK; i++)
		buf[i] = pattern(i);
	fcntl(g->peer, F_SETFL, O_NONBLOCK);
	while (g->got < BULK && idle < 100) {
		ssize_t n = sent < BULK ? send(g->peer, buf + sent, BULK - sent, 0) : 0;
		uint64_t before = g->got;

		if (n > 0)
			sent += (size_t)n;
		serve(g, 1);
		acknowledge(g);
		if (g->got == before) {
			pass_time(g, 50);
			idle++;
		}
	}
	assert_int_equal(g->got, BULK);
	assert_false(g->mismatch);
	assert_int_equal(g->resets, 0);
}

static void test_download(void **state)
{
	struct guest *g = *state;

	connect_out(g);
	download(g);
	assert_true(g->big_frames > BULK / 65536 && g->frames < BULK / 4096);
	assert_int_equal(g->seen, BULK); /* nothing twice */
	close(g->peer);
	/* In ordinary frames, without window scaling */
	g->big = g->scaled = false;
	connect_out(g);
	download(g);
	assert_int_equal(g->big_frames, 0);
}

static void test_loss(void **state)
{
	struct guest *g = *state;
	uint8_t b[3000];

	/* The card has no room. */
	connect_out(g);
	for (unsigned i = 0; i < sizeof(b); i++)
		b[i] = pattern(i);
	g->refuse = 1;
	assert_int_equal(send(g->peer, b, 1000, 0), 1000);
	assert_true(serve(g, 1000));
	assert_int_equal(g->got, 0);
	tcp_room(g->tcp);
	assert_int_equal(g->got, 1000);
	acknowledge(g);
	/* Lost: sent again after a time, one segment first */
	g->lose = 1;
	for (unsigned i = 0; i < sizeof(b); i++)
		b[i] = pattern(1000 + i);
	assert_int_equal(send(g->peer, b, sizeof(b), 0), sizeof(b));
	assert_true(serve(g, 1000));
	assert_int_equal(g->got, 1000);
	pass_time(g, 600);
	assert_int_equal(g->got, 1000 + sizeof(b));
	acknowledge(g);
	/* After three equal acknowledgements, at once */
	g->big = false;
	g->lose = 1;
	for (unsigned i = 0; i < sizeof(b); i++)
		b[i] = pattern(4000 + i);
	assert_int_equal(send(g->peer, b, sizeof(b), 0), sizeof(b));
	assert_true(serve(g, 1000));
	assert_int_equal(g->out_of_order, 2);
	assert_int_equal(g->got, 4000);
	for (unsigned i = 0; i < 3; i++)
		acknowledge(g);
	assert_int_equal(g->got, 7000);
	acknowledge(g);
	/* A closed window is asked after. */
	g->window = 0;
	acknowledge(g);
	for (unsigned i = 0; i < sizeof(b); i++)
		b[i] = pattern(7000 + i);
	assert_int_equal(send(g->peer, b, sizeof(b), 0), sizeof(b));
	assert_true(serve(g, 1000));
	assert_int_equal(g->got, 7000);
	g->acks = 0;
	pass_time(g, 600);
	assert_true(g->acks >= 1);
	g->window = 65535;
	acknowledge(g);
	assert_int_equal(g->got, 10000);
	acknowledge(g);
	/* After hours of silence the guest is asked whether it is still there; it is. */
	g->acks = 0;
	g->clock.offset_ns += 7300000000000;
	loop_clock_changed(g->loop);
	pass_time(g, 50);
	assert_int_equal(g->acks, 1);
	acknowledge(g);
	pass_time(g, 1500);
	assert_int_equal(g->acks, 1);
	assert_int_equal(g->resets, 0);
	assert_false(g->mismatch);
}

/* As many connections as there are, and then someone else's. */
static void test_many(void **state)
{
	struct guest *g = *state;
	unsigned n = 0;

	while (n < 2000) {
		new_connection(g);
		if (!segment(g, SYN, 1, NULL, 0))
			break;
		n++;
	}
	assert_true(n > 200 && n <= 512); /* fewer than 512, if descriptors run out */
	/* One goes; the refused SYN again: to him who had it first, though there is room now. */
	g->source--;
	assert_true(segment(g, RST, 2, NULL, 0));
	g->source++;
	assert_false(segment(g, SYN, 1, NULL, 0));
	new_connection(g);
	assert_true(segment(g, SYN, 1, NULL, 0));
}

/* Whatever the guest sends, nothing happens to us. */
static void test_rubbish(void **state)
{
	struct guest *g = *state;
	uint64_t x = 88172645463325252ull;
	uint8_t f[200];

	connect_out(g);
	for (unsigned i = 0; i < 30000; i++) {
		struct iovec iov[2];
		size_t len = sizeof(f);

		memset(f, 0, sizeof(f));
		memcpy(f, our_mac, 6);
		memcpy(f + 6, guest_mac, 6);
		packet_put16(f + 12, 0x0800);
		f[14] = 0x45;
		packet_put16(f + 16, (uint16_t)(len - 14));
		f[23] = 6;
		packet_put32(f + 26, NET_USER_GUEST);
		packet_put32(f + 30, g->host);
		packet_put16(f + 34, g->source);
		packet_put16(f + 36, g->port);
		for (unsigned k = 0; k < 4; k++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			f[14 + (x >> 8) % 60] = (uint8_t)x;
		}
		packet_put32(f + 38, g->snd_nxt + (uint32_t)(x >> 40) % 2000 - 1000);
		packet_put32(f + 42, g->irs + (uint32_t)(x >> 20) % 2000 - 1000);
		f[47] &= (uint8_t) ~(i % 8 ? RST : 0);
		packet_put32(f + 26, NET_USER_GUEST);
		packet_put32(f + 30, g->host);
		packet_put16(f + 34, g->source);
		packet_put16(f + 36, g->port);
		f[24] = f[25] = 0;
		packet_put16(f + 24, (uint16_t)~packet_sum(f + 14, (f[14] & 15) * 4u, 0));
		len -= x % 100;
		iov[0] = (struct iovec){ f, len / 2 };
		iov[1] = (struct iovec){ f + len / 2, len - len / 2 };
		tcp_input(g->tcp, f, len, iov, 2, false);
		tcp_flush(g->tcp);
		g->right_edge = g->ack - 100000000; /* numbers jump here */
		if (i % 64 == 0)
			serve(g, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_open, setup, teardown),
		cmocka_unit_test_setup_teardown(test_upload, setup, teardown),
		cmocka_unit_test_setup_teardown(test_close, setup, teardown),
		cmocka_unit_test_setup_teardown(test_download, setup, teardown),
		cmocka_unit_test_setup_teardown(test_loss, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rubbish, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
