/* SPDX-License-Identifier: Apache-2.0 */
#include "net/packet.h"

#include <string.h>

#include "net/net.h"

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86dd
#define PROTO_TCP      6
#define PROTO_ICMP6    58
#define ICMP6_RS       133
#define ICMP6_RA       134
#define IP_MF          0x2000
#define IP_OFFSET_MASK 0x1fff
#define TCP_SYN        0x02
#define TCP_FIN_PSH    0x09

uint16_t packet_sum(const uint8_t *p, size_t len, uint32_t initial)
{
	uint64_t sum = 0;

	/* Byte order does not matter for a one's complement sum (RFC 1071 §2B): sum words natively, swap
	 * once. */
	for (; len >= 8; p += 8, len -= 8) {
		uint64_t v;

		memcpy(&v, p, 8);
		sum += v & 0xffffffff;
		sum += v >> 32;
	}
	for (; len >= 2; p += 2, len -= 2) {
		uint16_t v;

		memcpy(&v, p, 2);
		sum += v;
	}
	if (len)
		sum += *p;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum >> 8 | sum << 8) & 0xffff;
	sum += initial;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

bool packet_finish_csum(uint8_t *frame, size_t len, size_t start, size_t offset)
{
	uint16_t csum;

	if (start > len || offset > len || start + offset + 2 > len)
		return false;
	csum = (uint16_t)~packet_sum(frame + start, len - start, 0);
	packet_put16(frame + start + offset,
		     csum ? csum : 0xffff); /* 0 would say "none" in UDP; in TCP both are right */
	return true;
}

static bool find_ip4(const uint8_t *frame, size_t len, size_t *ret_header, size_t *ret_total)
{
	size_t header, total;

	if (len < NET_ETH_HEADER + 20 || packet_get16(frame + 12) != ETHERTYPE_IPV4)
		return false;
	header = (frame[14] & 15) * 4u;
	total = packet_get16(frame + 16);
	if (frame[14] >> 4 != 4 || header < 20 || total < header || total > len - NET_ETH_HEADER)
		return false;
	*ret_header = header;
	*ret_total = total;
	return true;
}

bool packet_find_tcp4(const uint8_t *frame, size_t len, struct packet_tcp *ret)
{
	size_t header, total;
	struct packet_tcp t;

	if (!find_ip4(frame, len, &header, &total) || frame[14 + 9] != PROTO_TCP)
		return false;
	if (packet_get16(frame + 14 + 6) & (IP_MF | IP_OFFSET_MASK))
		return false;
	t.ip = NET_ETH_HEADER;
	t.tcp = t.ip + header;
	t.end = t.ip + total;
	if (t.end - t.tcp < 20)
		return false;
	t.data = t.tcp + (frame[t.tcp + 12] >> 4) * 4u;
	if (t.data < t.tcp + 20 || t.data > t.end)
		return false;
	*ret = t;
	return true;
}

bool packet_raise_mss(uint8_t *frame, size_t len, uint16_t mss)
{
	struct packet_tcp t;

	if (!packet_find_tcp4(frame, len, &t) || !(frame[t.tcp + 13] & TCP_SYN))
		return false;
	for (size_t p = t.tcp + 20; p < t.data && frame[p] != 0;) {
		if (frame[p] == 1) {
			p++;
			continue;
		}
		if (p + 1 >= t.data || frame[p + 1] < 2 || frame[p + 1] > t.data - p)
			return false;
		if (frame[p] == 2 && frame[p + 1] == 4 && packet_get16(frame + p + 2) < mss) {
			/* RFC 1624: HC' = ~(~HC + ~m + m'); a byte-shifted field weighs 256 times as much. */
			uint16_t old = packet_get16(frame + p + 2), csum = packet_get16(frame + t.tcp + 16),
				 a = old, b = mss;
			uint32_t sum;

			if ((p - t.tcp) & 1) {
				a = (uint16_t)(a << 8 | a >> 8);
				b = (uint16_t)(b << 8 | b >> 8);
			}
			sum = (uint32_t)(uint16_t)~csum + (uint16_t)~a + b;
			while (sum >> 16)
				sum = (sum & 0xffff) + (sum >> 16);
			packet_put16(frame + p + 2, mss);
			packet_put16(frame + t.tcp + 16, (uint16_t)~sum);
			return true;
		}
		p += frame[p + 1];
	}
	return false;
}

bool packet_answer_rs(const uint8_t *frame, size_t len, uint8_t ret[PACKET_RA_SIZE])
{
	static const uint8_t mac[6] = { 0x52, 0x55, 0x0a, 0x00, 0x02, 0x02 };
	static const uint8_t router[16] = { 0xfe, 0x80, [15] = 2 };
	static const uint8_t all_nodes[16] = { 0xff, 0x02, [15] = 1 }, nobody[16] = { 0 };
	const uint8_t *ip = frame + NET_ETH_HEADER;

	if (len < NET_ETH_HEADER + 48 || packet_get16(frame + 12) != ETHERTYPE_IPV6 || ip[0] >> 4 != 6 ||
	    ip[6] != PROTO_ICMP6 || ip[7] != 255 || ip[40] != ICMP6_RS)
		return false;
	memset(ret, 0, PACKET_RA_SIZE);
	memcpy(ret, frame + 6, 6);
	memcpy(ret + 6, mac, 6);
	packet_put16(ret + 12, ETHERTYPE_IPV6);
	uint8_t *out = ret + NET_ETH_HEADER, *ra = out + 40;
	out[0] = 0x60;
	packet_put16(out + 4, 24);
	out[6] = PROTO_ICMP6;
	out[7] = 255;
	memcpy(out + 8, router, 16);
	memcpy(out + 24, memcmp(ip + 8, nobody, 16) ? ip + 8 : all_nodes, 16);
	ra[0] = ICMP6_RA;
	ra[4] = 64; /* hop limit; no flags, and a lifetime of 0: no default router */
	ra[16] = 1; /* option: our link-layer address */
	ra[17] = 1;
	memcpy(ra + 18, mac, 6);
	packet_put16(ra + 2, (uint16_t)~packet_sum(ra, 24, packet_sum(out + 8, 32, 24 + PROTO_ICMP6)));
	return true;
}

bool packet_fragment4(const uint8_t *frame, size_t len,
		      void (*emit)(void *opaque, const uint8_t *frame, size_t len), void *opaque)
{
	uint8_t out[NET_FRAME_USUAL];
	size_t header, total, pos, chunk;
	unsigned frag;

	if (!find_ip4(frame, len, &header, &total) || header != 20)
		return false; /* with options, some would have to go into the first fragment only; nobody
				 sends such */
	frag = packet_get16(frame + 14 + 6);
	chunk = (NET_FRAME_USUAL - NET_ETH_HEADER - header) & ~(size_t)7;
	for (pos = header; pos < total; pos += chunk) {
		size_t n = total - pos < chunk ? total - pos : chunk;
		unsigned offset = (frag & IP_OFFSET_MASK) + (unsigned)((pos - header) / 8);
		bool more = pos + n < total || (frag & IP_MF);

		memcpy(out, frame, NET_ETH_HEADER + header);
		memcpy(out + NET_ETH_HEADER + header, frame + NET_ETH_HEADER + pos, n);
		packet_put16(out + 14 + 2, (uint16_t)(header + n));
		packet_put16(out + 14 + 6, (uint16_t)((offset & IP_OFFSET_MASK) | (more ? IP_MF : 0)));
		packet_put16(out + 14 + 10, 0);
		packet_put16(out + 14 + 10, (uint16_t)~packet_sum(out + 14, header, 0));
		emit(opaque, out, NET_ETH_HEADER + header + n);
	}
	return true;
}

bool packet_segment4(const uint8_t *frame, size_t len, size_t mss,
		     void (*emit)(void *opaque, const uint8_t *frame, size_t len), void *opaque)
{
	uint8_t out[NET_FRAME_USUAL];
	struct packet_tcp t;
	uint32_t seq;
	uint16_t id;

	if (!packet_find_tcp4(frame, len, &t) || !mss)
		return false;
	if (mss > sizeof(out) - t.data)
		mss = sizeof(out) - t.data;
	seq = (uint32_t)packet_get16(frame + t.tcp + 4) << 16 | packet_get16(frame + t.tcp + 6);
	id = packet_get16(frame + t.ip + 4);
	for (size_t pos = t.data; pos == t.data || pos < t.end; pos += mss) {
		size_t n = t.end - pos < mss ? t.end - pos : mss;
		uint32_t s = seq + (uint32_t)(pos - t.data);

		memcpy(out, frame, t.data);
		memcpy(out + t.data, frame + pos, n);
		packet_put16(out + t.ip + 2, (uint16_t)(t.data - t.ip + n));
		packet_put16(out + t.ip + 4, id++);
		packet_put16(out + t.ip + 10, 0);
		packet_put16(out + t.ip + 10, (uint16_t)~packet_sum(out + t.ip, t.tcp - t.ip, 0));
		packet_put16(out + t.tcp + 4, (uint16_t)(s >> 16));
		packet_put16(out + t.tcp + 6, (uint16_t)s);
		if (pos + n < t.end)
			out[t.tcp + 13] &= (uint8_t)~TCP_FIN_PSH; /* for the last one */
		packet_put16(out + t.tcp + 16, 0);
		packet_put16(out + t.tcp + 16,
			     (uint16_t)~packet_sum(
				 out + t.tcp, t.data - t.tcp + n,
				 packet_sum(out + t.ip + 12, 8, (uint32_t)(PROTO_TCP + t.data - t.tcp + n))));
		emit(opaque, out, t.data + n);
	}
	return true;
}
