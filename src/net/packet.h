/* SPDX-License-Identifier: Apache-2.0 */
/* Looking into Ethernet frames: Internet checksums (RFC 1071), TCP over IPv4. All lengths are checked here.
 */
#ifndef SILL_NET_PACKET_H
#define SILL_NET_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline uint16_t packet_get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline void packet_put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static inline uint32_t packet_get32(const uint8_t *p)
{
	return (uint32_t)packet_get16(p) << 16 | packet_get16(p + 2);
}

static inline void packet_put32(uint8_t *p, uint32_t v)
{
	packet_put16(p, (uint16_t)(v >> 16));
	packet_put16(p + 2, (uint16_t)v);
}

/* One's complement sum of len bytes, added to `sum` (a folded or earlier sum). Folded to 16 bits, host order.
 */
uint16_t packet_sum(const uint8_t *p, size_t len, uint32_t sum);

/*
 * Finishes a checksum that the sender left partial (virtio 1.2 §5.1.6.2): sums
 * from `start` to the end and stores the complement at start + offset. False
 * (frame untouched) if that lies outside the frame.
 */
bool packet_finish_csum(uint8_t *frame, size_t len, size_t start, size_t offset);

struct packet_tcp {
	size_t ip, tcp, data; /* offsets in the frame */
	size_t end;           /* of the IP packet, <= frame length */
};
/* Finds the TCP segment in an unfragmented IPv4 frame. False if there is none, or if it is malformed. */
bool packet_find_tcp4(const uint8_t *frame, size_t len, struct packet_tcp *ret);

/* Raises the MSS option of a SYN to mss, and mends the checksum. Does nothing to other frames. True if
 * changed. */
bool packet_raise_mss(uint8_t *frame, size_t len, uint16_t mss);

#define PACKET_RA_SIZE (14u + 40u + 24u)
/*
 * The answer to an IPv6 router solicitation (RFC 4861 §4.1, §4.2): that there is no router and no prefix,
 * from fe80::2. False if the frame is no solicitation.
 */
bool packet_answer_rs(const uint8_t *frame, size_t len, uint8_t ret[PACKET_RA_SIZE]);

/*
 * Cuts an IPv4 frame into fragments of at most NET_FRAME_USUAL bytes (RFC 791
 * §3.2), each given to emit; a don't-fragment bit is taken off.  Returns false
 * if it is not IPv4 or is malformed; then nothing was emitted.
 */
bool packet_fragment4(const uint8_t *frame, size_t len,
		      void (*emit)(void *opaque, const uint8_t *frame, size_t len), void *opaque);

/*
 * Cuts a TCP segment (IPv4) into several with at most mss bytes of data each,
 * mss <= 1460 less the options, and gives each to emit. False, and nothing is
 * emitted, if it is no TCP segment.
 */
bool packet_segment4(const uint8_t *frame, size_t len, size_t mss,
		     void (*emit)(void *opaque, const uint8_t *frame, size_t len), void *opaque);

#endif
