/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "net/net.h"
#include "net/packet.h"

/* Builds Ethernet + IPv4 + proto with so much payload; checksums right. Returns the frame's length. */
static size_t build(uint8_t *f, uint8_t proto, size_t payload, const uint8_t *opts, size_t opt_len,
		    uint8_t flags)
{
	size_t tcp = proto == 6 ? 20 + opt_len : 0, total = 20 + tcp + payload;

	memset(f, 0, NET_ETH_HEADER + total);
	packet_put16(f + 12, 0x0800);
	f[14] = 0x45;
	packet_put16(f + 16, (uint16_t)total);
	packet_put16(f + 18, 0x1234);
	f[22] = 64;
	f[23] = proto;
	memcpy(f + 26, "\x0a\x00\x02\x0f\x0a\x00\x02\x02", 8);
	packet_put16(f + 24, (uint16_t)~packet_sum(f + 14, 20, 0));
	for (size_t i = 0; i < payload; i++)
		f[34 + tcp + i] = (uint8_t)(i * 3);
	if (proto == 6) {
		f[34 + 12] = (uint8_t)((20 + opt_len) / 4 << 4);
		f[34 + 13] = flags;
		if (opt_len)
			memcpy(f + 54, opts, opt_len);
		packet_put16(f + 50,
			     (uint16_t)~packet_sum(f + 34, tcp + payload,
						   packet_sum(f + 26, 8, (uint32_t)(6 + tcp + payload))));
	}
	return NET_ETH_HEADER + total;
}

static bool tcp_csum_ok(const uint8_t *f, size_t len)
{
	return packet_sum(f + 34, len - 34, packet_sum(f + 26, 8, (uint32_t)(6 + len - 34))) == 0xffff;
}

static void test_sum(void **state)
{
	/* RFC 1071 §3's example */
	static const uint8_t example[] = { 0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7 };
	uint8_t odd[] = { 1, 2, 3 }, big[70000];

	(void)state;
	assert_int_equal(packet_sum(example, 8, 0), 0xddf2);
	assert_int_equal(packet_sum(odd, 3, 0), 0x0402);
	assert_int_equal(packet_sum(odd, 0, 0x12345), 0x2346);
	memset(big, 0xff, sizeof(big));
	assert_int_equal(packet_sum(big, sizeof(big), 0), 0xffff);
}

static void test_finish(void **state)
{
	uint8_t f[64] = { 0 }, zero[8] = { 0xff, 0xff };

	(void)state;
	assert_false(packet_finish_csum(f, 64, 65, 0));
	assert_false(packet_finish_csum(f, 64, 60, 3));
	assert_false(packet_finish_csum(f, 64, 0xffff, 0xffff));
	assert_true(packet_finish_csum(f, 64, 60, 2));
	assert_int_equal(packet_get16(f + 62), 0xffff);
	assert_true(packet_finish_csum(zero, 8, 0, 6)); /* a sum of ffff: complement 0, sent as ffff */
	assert_int_equal(packet_get16(zero + 6), 0xffff);
}

static void test_find(void **state)
{
	uint8_t f[256];
	struct packet_tcp t;
	size_t len = build(f, 6, 10, NULL, 0, 0x10);

	(void)state;
	assert_true(packet_find_tcp4(f, len, &t));
	assert_int_equal(t.tcp, 34);
	assert_int_equal(t.data, 54);
	assert_int_equal(t.end, 64);
	assert_true(packet_find_tcp4(f, len + 6, &t)); /* padding */
	assert_int_equal(t.end, 64);
	assert_false(packet_find_tcp4(f, len - 1, &t));
	for (size_t n = 0; n < len; n++)
		assert_false(packet_find_tcp4(f, n, &t));
	f[20] = 0x20; /* a fragment */
	assert_false(packet_find_tcp4(f, len, &t));
	f[20] = 0;
	f[46] = 0xf0; /* data offset beyond the packet */
	assert_false(packet_find_tcp4(f, len, &t));
	f[46] = 0x40;
	assert_false(packet_find_tcp4(f, len, &t));
	f[46] = 0x50;
	f[14] = 0x44;
	assert_false(packet_find_tcp4(f, len, &t));
	f[14] = 0x4f;
	assert_false(packet_find_tcp4(f, len, &t));
}

static void test_mss(void **state)
{
	static const uint8_t opts[] = { 1, 2, 4, 0x05, 0xb4, 1, 1, 0 }; /* the value at an odd place */
	static const uint8_t even[] = { 2, 4, 0x05, 0xb4 }, bad[] = { 3, 9, 1, 1 }, zero[] = { 3, 0, 1, 1 };
	uint8_t f[256];
	size_t len = build(f, 6, 0, opts, 8, 0x02);

	(void)state;
	assert_true(tcp_csum_ok(f, len));
	assert_true(packet_raise_mss(f, len, 32120));
	assert_int_equal(packet_get16(f + 57), 32120);
	assert_true(tcp_csum_ok(f, len));
	assert_false(packet_raise_mss(f, len, 1460)); /* never lowered */
	len = build(f, 6, 0, even, 4, 0x12);
	assert_true(packet_raise_mss(f, len, 32120));
	assert_true(tcp_csum_ok(f, len));
	len = build(f, 6, 0, even, 4, 0x10);
	assert_false(packet_raise_mss(f, len, 32120)); /* not a SYN */
	len = build(f, 6, 0, bad, 4, 0x02);
	assert_false(packet_raise_mss(f, len, 32120));
	len = build(f, 6, 0, zero, 4, 0x02);
	assert_false(packet_raise_mss(f, len, 32120));
}

struct collected {
	unsigned n;
	size_t bytes;
	uint8_t data[8192];
};

static void collect(void *opaque, const uint8_t *f, size_t len)
{
	struct collected *c = opaque;
	size_t at = (packet_get16(f + 20) & 0x1fff) * 8u, n = packet_get16(f + 16) - 20u;

	assert_true(len <= NET_FRAME_USUAL);
	assert_int_equal(len, 34 + n);
	assert_int_equal(packet_sum(f + 14, 20, 0), 0xffff);
	assert_int_equal(packet_get16(f + 18), 0x1234);
	memcpy(c->data + at, f + 34, n);
	c->bytes += n;
	c->n++;
	assert_int_equal(!(f[20] & 0x20), c->bytes == 5000);
}

static void test_fragment(void **state)
{
	uint8_t f[8192];
	struct collected c = { 0 };
	size_t len = build(f, 17, 5000, NULL, 0, 0);

	(void)state;
	assert_true(packet_fragment4(f, len, collect, &c));
	assert_int_equal(c.n, 4);
	assert_int_equal(c.bytes, 5000);
	assert_memory_equal(c.data, f + 34, 5000);
	assert_false(packet_fragment4(f, len - 1, collect, &c));
	f[14] = 0x46;
	assert_false(packet_fragment4(f, len, collect, &c));
	f[12] = 0x86;
	assert_false(packet_fragment4(f, len, collect, &c));
}

static void collect_segment(void *opaque, const uint8_t *f, size_t len)
{
	struct collected *c = opaque;
	struct packet_tcp t;

	assert_true(packet_find_tcp4(f, len, &t));
	assert_int_equal(t.end, len);
	assert_true(t.end - t.data <= 1000 && t.end > t.data);
	assert_int_equal(packet_sum(f + 14, 20, 0), 0xffff);
	assert_true(tcp_csum_ok(f, len));
	/* The sequence number runs on, over 2^32. */
	assert_int_equal((uint32_t)packet_get16(f + 38) << 16 | packet_get16(f + 40),
			 (uint32_t)(0xfffffff0u + c->bytes));
	memcpy(c->data + c->bytes, f + t.data, t.end - t.data);
	c->bytes += t.end - t.data;
	assert_int_equal(f[47], c->bytes == 4500 ? 0x19 : 0x10);
	assert_int_equal(packet_get16(f + 18), 0x1234 + c->n);
	c->n++;
}

static void test_segment(void **state)
{
	static const uint8_t opts[] = { 1, 1, 1, 1 };
	uint8_t f[8192];
	struct collected c = { 0 };
	size_t len = build(f, 6, 4500, opts, 4, 0x19);

	(void)state;
	memset(f + 38, 0xff, 4);
	f[41] = 0xf0;
	assert_true(packet_segment4(f, len, 1000, collect_segment, &c));
	assert_int_equal(c.n, 5);
	assert_int_equal(c.bytes, 4500);
	assert_memory_equal(c.data, f + 58, 4500);
	assert_false(packet_segment4(f, len - 1, 1000, collect_segment, &c));
	assert_false(packet_segment4(f, len, 0, collect_segment, &c));
}

static void test_answer_rs(void **state)
{
	uint8_t rs[70] = { 0x33, 0x33, 0,    0, 0, 2, 0x52, 0x54, 0,  1,   2,    3,
			   0x86, 0xdd, 0x60, 0, 0, 0, 0,    8,    58, 255, 0xfe, 0x80 },
		ra[PACKET_RA_SIZE];

	(void)state;
	rs[37] = 9; /* from fe80::9 */
	rs[14 + 40] = 133;
	assert_true(packet_answer_rs(rs, 62, ra));
	assert_memory_equal(ra, rs + 6, 6);
	assert_memory_equal(ra + 14 + 24, rs + 14 + 8, 16);
	assert_int_equal(ra[14 + 40], 134);
	assert_int_equal(packet_get16(ra + 14 + 40 + 6), 0);
	/* The checksum of all, pseudo header included, is right. */
	assert_int_equal(packet_sum(ra + 14 + 40, 24, packet_sum(ra + 14 + 8, 32, 24 + 58)), 0xffff);
	memset(rs + 22, 0, 16);
	assert_true(packet_answer_rs(rs, 62, ra));
	assert_int_equal(ra[14 + 24], 0xff);
	assert_false(packet_answer_rs(rs, 61, ra));
	rs[14 + 7] = 254;
	assert_false(packet_answer_rs(rs, 62, ra));
	rs[14 + 7] = 255;
	rs[14 + 40] = 135;
	assert_false(packet_answer_rs(rs, 62, ra));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sum),       cmocka_unit_test(test_finish),
		cmocka_unit_test(test_find),      cmocka_unit_test(test_mss),
		cmocka_unit_test(test_fragment),  cmocka_unit_test(test_segment),
		cmocka_unit_test(test_answer_rs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
