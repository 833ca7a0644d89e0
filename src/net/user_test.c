/* SPDX-License-Identifier: Apache-2.0 */
/* The parser, and the NAT itself against a guest of a few lines: ARP, DHCP, and TCP through a forwarding. */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "net/net.h"
#include "net/net_internal.h"
#include "net/packet.h"

/* ---- parser ---- */

static void test_parse_good(void **state)
{
	struct net_user_config c;
	struct error err;

	(void)state;
	assert_int_equal(net_user_parse("user", &c, &err), 0);
	assert_int_equal(c.nr_fwd, 0);
	assert_false(c.restricted);
	assert_int_equal(net_user_parse("user,hostfwd=tcp:127.0.0.1:2222-:22,restrict=on,"
					"hostfwd=udp::53-10.0.2.99:65535,hostfwd=tcp:0.0.0.0:1-:1",
					&c, &err),
			 0);
	assert_true(c.restricted);
	assert_int_equal(c.nr_fwd, 3);
	assert_false(c.fwd[0].udp);
	assert_int_equal(ntohl(c.fwd[0].host_addr.s_addr), 0x7f000001);
	assert_int_equal(c.fwd[0].host_port, 2222);
	assert_int_equal(ntohl(c.fwd[0].guest_addr.s_addr), NET_USER_GUEST);
	assert_int_equal(c.fwd[0].guest_port, 22);
	assert_true(c.fwd[1].udp);
	assert_int_equal(ntohl(c.fwd[1].host_addr.s_addr), 0x7f000001);
	assert_int_equal(ntohl(c.fwd[1].guest_addr.s_addr), 0x0a000263);
	assert_int_equal(c.fwd[1].guest_port, 65535);
	assert_int_equal(c.fwd[2].host_addr.s_addr, 0);
}

static void test_parse_bad(void **state)
{
	static const char *const bad[] = {
		"",
		"tap",
		"user,hostfwd",
		"user,hostfwd=",
		"user,hostfwd=icmp:127.0.0.1:1-:1",
		"user,hostfwd=tcp",
		"user,hostfwd=tcp:",
		"user,hostfwd=tcp:127.0.0.1:1",
		"user,hostfwd=tcp:127.0.0.1:1-",
		"user,hostfwd=tcp:127.0.0.1:1-22",
		"user,hostfwd=tcp:127.0.0.1-:22",
		"user,hostfwd=tcp:127.0.0.1:0-:22",
		"user,hostfwd=tcp:127.0.0.1:65536-:22",
		"user,hostfwd=tcp:127.0.0.1:99999999999999999999-:22",
		"user,hostfwd=tcp:127.0.0.1:+1-:22",
		"user,hostfwd=tcp:127.0.0.1:1-:22x",
		"user,hostfwd=tcp:localhost:1-:22",
		"user,hostfwd=tcp:127.0.0:1-:22",
		"user,hostfwd=tcp:127.0.0.1:1-1.2.3.4.5:22",
		"user,restrict=yes",
		"user,restrict",
		"user,bogus=1",
		"user,,",
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		struct net_user_config c = { .nr_fwd = 77 };
		struct error err = { "" };

		if (net_user_parse(bad[i], &c, &err) != -EINVAL)
			fail_msg("accepted: %s", bad[i]);
		assert_int_equal(c.nr_fwd, 77);
		assert_true(err.message[0]);
	}
	{
		char many[40 * (NET_USER_MAX_FWD + 1) + 8] = "user";
		struct net_user_config c;
		struct error err;

		for (unsigned i = 0; i <= NET_USER_MAX_FWD; i++)
			strcat(many, ",hostfwd=tcp:127.0.0.1:2222-:22");
		assert_int_equal(net_user_parse(many, &c, &err), -EINVAL);
	}
}

/* ---- the NAT ---- */

#define BULK (4u << 20)

static const uint8_t guest_mac[6] = { 0x52, 0x54, 0, 1, 2, 3 };

struct guest {
	struct clock clock;
	struct mutex lock;
	struct loop *loop;
	struct net *net;
	struct error err;
	uint16_t port; /* of the host, forwarded to 7 */

	/* under lock; filled by receive */
	unsigned arp_replies, frames, big_frames, refuse;
	uint8_t router_mac[6];
	uint8_t offered[4];
	/* the guest's end of one TCP connection */
	uint32_t my_seq, next_seq;
	uint16_t peer_port;
	bool established;
	uint64_t got;
	bool mismatch;
	bool pending_syn_ack, pending_ack; /* a card must not send from within receive */
};

static size_t ip_frame(struct guest *g, uint8_t *f, uint8_t proto, uint32_t src, uint32_t dst, size_t payload)
{
	memset(f, 0, 34);
	memset(f, 0xff, 6);
	if (dst != 0xffffffff)
		memcpy(f, g->router_mac, 6);
	memcpy(f + 6, guest_mac, 6);
	packet_put16(f + 12, 0x0800);
	f[14] = 0x45;
	packet_put16(f + 16, (uint16_t)(20 + payload));
	f[22] = 64;
	f[23] = proto;
	packet_put32(f + 26, src);
	packet_put32(f + 30, dst);
	packet_put16(f + 24, (uint16_t)~packet_sum(f + 14, 20, 0));
	return 34 + payload;
}

static void send_tcp(struct guest *g, uint8_t flags, const void *data, size_t n)
{
	static uint8_t f[NET_FRAME_MAX];
	size_t opt = flags & 2 ? 4 : 0, tcp = 20 + opt + n;
	size_t len = ip_frame(g, f, 6, NET_USER_GUEST, NET_USER_GATEWAY, tcp);

	memset(f + 34, 0, 24);
	packet_put16(f + 34, 7);
	packet_put16(f + 36, g->peer_port);
	packet_put32(f + 38, g->my_seq);
	packet_put32(f + 42, g->next_seq);
	f[46] = (uint8_t)((20 + opt) / 4 << 4);
	f[47] = flags;
	packet_put16(f + 48, 65535);
	if (opt)
		memcpy(f + 54, "\x02\x04\x05\xb4", 4);
	if (n)
		memcpy(f + 54 + opt, data, n);
	packet_put16(f + 50, (uint16_t)~packet_sum(f + 34, tcp, packet_sum(f + 26, 8, (uint32_t)(6 + tcp))));
	g->my_seq += (uint32_t)n + (flags & 2 ? 1 : 0);
	net_send(g->net, f, len);
}

static uint8_t pattern(uint64_t i)
{
	return (uint8_t)(i ^ i >> 8 ^ i >> 16);
}

static void receive_tcp(struct guest *g, const uint8_t *f, const struct packet_tcp *t)
{
	uint32_t seq = packet_get32(f + t->tcp + 4);
	size_t n = t->end - t->data;

	if (packet_get16(f + t->tcp + 2) != 7)
		return;
	if (packet_sum(f + t->tcp, t->end - t->tcp,
		       packet_sum(f + t->ip + 12, 8, (uint32_t)(6 + t->end - t->tcp))) != 0xffff)
		g->mismatch = true;
	if (f[t->tcp + 13] & 2) {
		g->peer_port = packet_get16(f + t->tcp);
		g->next_seq = seq + 1;
		g->my_seq = 1000;
		g->established = true;
		g->pending_syn_ack = true;
		return;
	}
	if (n && seq == g->next_seq) {
		for (size_t i = 0; i < n; i++)
			if (f[t->data + i] != pattern(g->got + i))
				g->mismatch = true;
		g->got += n;
		g->next_seq += (uint32_t)n;
	}
	if (n)
		g->pending_ack = true;
}

static bool receive(void *opaque, const uint8_t *f, size_t len, const struct net_frame_info *info)
{
	struct guest *g = opaque;
	struct packet_tcp t;

	assert_true(mutex_held(&g->lock));
	if (g->refuse) {
		g->refuse--;
		return false;
	}
	g->frames++;
	assert_true(len <= NET_FRAME_USUAL || info->gso_size);
	if (len > NET_FRAME_USUAL)
		g->big_frames++;
	if (packet_get16(f + 12) == 0x0806 && f[21] == 2) {
		g->arp_replies++;
		memcpy(g->router_mac, f + 22, 6);
	} else if (packet_get16(f + 12) == 0x0800 && f[23] == 17 && packet_get16(f + 36) == 68) {
		memcpy(g->offered, f + 34 + 8 + 16, 4);
	} else if (packet_find_tcp4(f, len, &t)) {
		receive_tcp(g, f, &t);
	}
	return true;
}

static void answer(struct guest *g)
{
	bool syn_ack = g->pending_syn_ack, ack = g->pending_ack;

	g->pending_syn_ack = g->pending_ack = false; /* first: sending brings new frames at once */
	if (syn_ack)
		send_tcp(g, 0x12, NULL, 0);
	else if (ack)
		send_tcp(g, 0x10, NULL, 0);
	net_flush(g->net);
}

static int guest_setup(void **state)
{
	struct guest *g = calloc(1, sizeof(*g));
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	struct net_user_config cfg = { .nr_fwd = 1 };
	socklen_t len = sizeof(sa);
	int rc = -EADDRINUSE;

	clock_init(&g->clock);
	mutex_init(&g->lock, LOCK_RANK_IO, "io");
	assert_int_equal(loop_new(&g->clock, &g->lock, &g->loop, NULL), 0);
	/* A port that the kernel chose; someone else may snatch it, so look again then. */
	for (int i = 0; i < 10 && rc == -EADDRINUSE; i++) {
		int s = socket(AF_INET, SOCK_STREAM, 0);

		sa.sin_port = 0;
		assert_int_equal(bind(s, (void *)&sa, sizeof(sa)), 0);
		assert_int_equal(getsockname(s, (void *)&sa, &len), 0);
		close(s);
		g->port = ntohs(sa.sin_port);
		cfg.fwd[0] = (struct net_user_fwd){ .host_addr = { htonl(INADDR_LOOPBACK) },
						    .host_port = g->port,
						    .guest_addr = { htonl(NET_USER_GUEST) },
						    .guest_port = 7 };
		rc = net_user_new(g->loop, &g->lock, &cfg, &g->net, &g->err);
	}
	if (rc)
		fail_msg("%s", g->err.message);
	mutex_lock(&g->lock);
	net_set_client(g->net, &(struct net_client){ receive, g });
	*state = g;
	return 0;
}

static int guest_teardown(void **state)
{
	struct guest *g = *state;

	mutex_unlock(&g->lock);
	net_free(g->net);
	loop_free(g->loop);
	mutex_destroy(&g->lock);
	free(g);
	return 0;
}

static void send_arp(struct guest *g, uint32_t target)
{
	uint8_t f[42] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

	memcpy(f + 6, guest_mac, 6);
	packet_put16(f + 12, 0x0806);
	memcpy(f + 14, "\x00\x01\x08\x00\x06\x04\x00\x01", 8);
	memcpy(f + 22, guest_mac, 6);
	packet_put32(f + 28, NET_USER_GUEST);
	packet_put32(f + 38, target);
	net_send(g->net, f, sizeof(f));
	net_flush(g->net);
}

static void test_arp_dhcp(void **state)
{
	struct guest *g = *state;
	uint8_t f[34 + 8 + 300] = { 0 };
	size_t len;

	send_arp(g, NET_USER_GATEWAY);
	assert_int_equal(g->arp_replies, 1);
	send_arp(g, NET_USER_DNS);
	assert_int_equal(g->arp_replies, 2);
	send_arp(g, 0x0a000250);
	assert_int_equal(g->arp_replies, 2);

	memset(f, 0, sizeof(f));
	f[42] = 1; /* BOOTREQUEST, Ethernet, 6 bytes */
	f[43] = 1;
	f[44] = 6;
	memcpy(f + 42 + 28, guest_mac, 6);
	memcpy(f + 42 + 236, "\x63\x82\x53\x63\x35\x01\x01\xff", 8); /* DHCPDISCOVER */
	packet_put16(f + 34, 68);
	packet_put16(f + 36, 67);
	packet_put16(f + 38, 308);
	len = ip_frame(g, f, 17, 0, 0xffffffff, 308);
	net_send(g->net, f, len);
	assert_int_equal(packet_get32(g->offered), NET_USER_GUEST);
}

/* A card without room gets the frame later. */
static void test_backlog(void **state)
{
	struct guest *g = *state;

	g->refuse = 1;
	send_arp(g, NET_USER_GATEWAY);
	send_arp(g, NET_USER_DNS);
	assert_int_equal(g->arp_replies, 0);
	net_rx_ready(g->net);
	assert_int_equal(g->arp_replies, 2);
	/* Paused: nothing arrives until it runs again. */
	net_set_running(g->net, false);
	send_arp(g, NET_USER_GATEWAY);
	net_rx_ready(g->net);
	assert_int_equal(g->arp_replies, 2);
	net_set_running(g->net, true);
	send_arp(g, NET_USER_GATEWAY);
	assert_int_equal(g->arp_replies, 3);
	/* Never taken: the backlog is bounded. */
	g->refuse = 100000;
	for (int i = 0; i < 2000; i++)
		send_arp(g, NET_USER_GATEWAY);
	g->refuse = 0;
	net_rx_ready(g->net);
	assert_int_equal(g->arp_replies, 3 + 512);
	/* Unplugged */
	net_set_client(g->net, &(struct net_client){ 0 });
	send_arp(g, NET_USER_GATEWAY);
}

static int connect_host(struct guest *g)
{
	struct sockaddr_in sa = { .sin_family = AF_INET,
				  .sin_port = htons(g->port),
				  .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int s = socket(AF_INET, SOCK_STREAM, 0);

	send_arp(g, NET_USER_GATEWAY);
	mutex_unlock(&g->lock);
	assert_int_equal(connect(s, (void *)&sa, sizeof(sa)), 0);
	mutex_lock(&g->lock);
	return s;
}

/* Plays the guest until *p reaches want, or for 20 s. */
static void play(struct guest *g, const uint64_t *p, uint64_t want)
{
	for (int i = 0; i < 20000 && *p < want; i++) {
		answer(g);
		mutex_unlock(&g->lock);
		usleep(i < 100 ? 100 : 1000);
		mutex_lock(&g->lock);
	}
	answer(g);
}

static void transfer(struct guest *g, bool big)
{
	static uint8_t buf[BULK];
	uint64_t sent = 0;
	int s;

	net_set_big_rx(g->net, big);
	for (uint64_t i = 0; i < BULK; i++)
		buf[i] = pattern(i);
	s = connect_host(g);
	/* To the guest */
	while (g->got < BULK) {
		ssize_t n = send(s, buf + sent, (size_t)min_u64(BULK - sent, 256 << 10), MSG_DONTWAIT);
		uint64_t before = g->got;

		if (n > 0)
			sent += (uint64_t)n;
		play(g, &g->got, min_u64(sent, before + 1));
		if (g->got == before && n <= 0)
			break;
	}
	assert_int_equal(g->got, BULK);
	assert_false(g->mismatch);
	if (big)
		assert_true(g->big_frames > BULK / 65536 && g->frames < BULK / 4096);
	else
		assert_int_equal(g->big_frames, 0);
	/* To the host, as one large segment */
	{
		uint8_t back[40000];
		size_t at = 0;

		send_tcp(g, 0x18, buf, sizeof(back));
		net_flush(g->net);
		mutex_unlock(&g->lock);
		while (at < sizeof(back)) {
			struct pollfd p = { .fd = s, .events = POLLIN };
			ssize_t n;

			assert_int_equal(poll(&p, 1, 10000), 1);
			n = recv(s, back + at, sizeof(back) - at, 0);
			assert_true(n > 0);
			at += (size_t)n;
		}
		mutex_lock(&g->lock);
		assert_memory_equal(back, buf, sizeof(back));
	}
	close(s);
}

static void test_tcp_usual(void **state)
{
	transfer(*state, false);
}

static void test_tcp_big(void **state)
{
	transfer(*state, true);
}

static void test_port_taken(void **state)
{
	struct guest *g = *state;
	struct net_user_config cfg = { .nr_fwd = 1 };
	struct net *n = NULL;
	char port[16];

	cfg.fwd[0] = (struct net_user_fwd){ .host_addr = { htonl(INADDR_LOOPBACK) },
					    .host_port = g->port,
					    .guest_addr = { htonl(NET_USER_GUEST) },
					    .guest_port = 7 };
	mutex_unlock(&g->lock);
	assert_int_equal(net_user_new(g->loop, &g->lock, &cfg, &n, &g->err), -EADDRINUSE);
	assert_null(n);
	snprintf(port, sizeof(port), "port %u ", g->port);
	assert_non_null(strstr(g->err.message, port));
	cfg.fwd[0].host_addr.s_addr = htonl(0xc0000201); /* 192.0.2.1, nobody's */
	assert_int_equal(net_user_new(g->loop, &g->lock, &cfg, &n, &g->err), -EADDRNOTAVAIL);
	mutex_lock(&g->lock);
}

static void test_null(void **state)
{
	struct net *n;

	(void)state;
	assert_int_equal(net_null_new(&n, NULL), 0);
	net_send(n, guest_mac, 3);
	net_send(n, (uint8_t[64]){ 0 }, 64);
	net_flush(n);
	net_rx_ready(n);
	net_set_running(n, false);
	net_free(n);
	net_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse_good),
		cmocka_unit_test(test_parse_bad),
		cmocka_unit_test(test_null),
		cmocka_unit_test_setup_teardown(test_arp_dhcp, guest_setup, guest_teardown),
		cmocka_unit_test_setup_teardown(test_backlog, guest_setup, guest_teardown),
		cmocka_unit_test_setup_teardown(test_tcp_usual, guest_setup, guest_teardown),
		cmocka_unit_test_setup_teardown(test_tcp_big, guest_setup, guest_teardown),
		cmocka_unit_test_setup_teardown(test_port_taken, guest_setup, guest_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
