/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intel 82540EM ("PCI/PCI-X Family of Gigabit Ethernet Controllers Software
 * Developer's Manual", 317453): the card for which every operating system since
 * 2002 has a driver.
 *
 * Registers with a meaning have one here; the others keep what is written, as
 * drivers that tune inter-packet gaps and thresholds expect.  Descriptors are
 * served when the tail register is written, up to one ring's length at a time.
 * Frames that find no receive descriptor wait in the backend.
 *
 * Interrupts go out at once but for the throttling of ITR: then a timer sends
 * them when the interval is over.
 */
#include "dev/net/e1000.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "dev/pci/pci.h"
#include "net/packet.h"

#define MMIO_SIZE 0x20000u
#define IO_SIZE   64u
#define REGS      (0x6000u / 4) /* those that are kept */

/* Registers (chapter 13), as byte offsets */
#define CTRL      0x0000
#define STATUS    0x0008
#define EECD      0x0010
#define EERD      0x0014
#define MDIC      0x0020
#define VET       0x0038
#define ICR       0x00c0
#define ITR       0x00c4
#define ICS       0x00c8
#define IMS       0x00d0
#define IMC       0x00d8
#define RCTL      0x0100
#define TCTL      0x0400
#define PBA       0x1000
#define RDBAL     0x2800
#define RDBAH     0x2804
#define RDLEN     0x2808
#define RDH       0x2810
#define RDT       0x2818
#define TDBAL     0x3800
#define TDBAH     0x3804
#define TDLEN     0x3808
#define TDH       0x3810
#define TDT       0x3818
#define STATS     0x4000
#define STATS_END 0x4128
#define GPRC      0x4074
#define BPRC      0x4078
#define MPRC      0x407c
#define GPTC      0x4080
#define GORCL     0x4088
#define GOTCL     0x4090
#define TORL      0x40c0
#define TOTL      0x40c8
#define TPR       0x40d0
#define TPT       0x40d4
#define RXCSUM    0x5000
#define MTA       0x5200
#define RAL       0x5400
#define RAH       0x5404
#define VFTA      0x5600

#define CTRL_SLU     0x00000040
#define CTRL_RST     0x04000000
#define CTRL_VME     0x40000000
#define CTRL_PHY_RST 0x80000000
#define STATUS_FD    0x01
#define STATUS_LU    0x02
#define STATUS_1000  0x80
#define EECD_SK      0x01
#define EECD_CS      0x02
#define EECD_DI      0x04
#define EECD_DO      0x08
#define EECD_REQ     0x40
#define EECD_GNT     0x80
#define EECD_PRES    0x100
#define EERD_START   0x01
#define EERD_DONE    0x10
#define MDIC_WRITE   0x04000000u
#define MDIC_READ    0x08000000u
#define MDIC_READY   0x10000000u
#define MDIC_INT     0x20000000u
#define MDIC_ERROR   0x40000000u
#define RCTL_EN      0x02
#define RCTL_UPE     0x08
#define RCTL_MPE     0x10
#define RCTL_LPE     0x20
#define RCTL_BAM     0x8000
#define RCTL_VFE     0x40000
#define RCTL_BSEX    0x2000000
#define RCTL_SECRC   0x4000000
#define TCTL_EN      0x02
#define RAH_AV       0x80000000u

/* Interrupt causes */
#define INT_TXDW   0x01
#define INT_TXQE   0x02
#define INT_LSC    0x04
#define INT_RXDMT0 0x10
#define INT_RXO    0x40
#define INT_RXT0   0x80
#define INT_MDAC   0x200

/* Transmit descriptors */
#define TX_EOP     0x01
#define TX_IC      0x04 /* legacy: insert checksum */
#define TX_TSE     0x04 /* data: segment it */
#define TX_RS      0x08
#define TX_DEXT    0x20
#define TX_VLE     0x40
#define TX_DD      0x01
#define POPTS_IXSM 0x01
#define POPTS_TXSM 0x02
#define TU_TCP     0x01
#define TU_IP      0x02

/* Receive descriptors */
#define RX_DD    0x01
#define RX_EOP   0x02
#define RX_IXSM  0x04 /* no checksum was looked at */
#define RX_VP    0x08
#define RX_TCPCS 0x20
#define RX_IPCS  0x40

#define TX_MAX (NET_FRAME_MAX + 64)

struct tx_context {
	uint8_t ipcss, ipcso, tucss, tucso, hdr_len, command;
	uint16_t ipcse, tucse, mss;
	uint32_t pay_len;
};

struct e1000 {
	struct pci_device pci;
	struct board *board;
	struct net *net;
	struct io_region mmio, io;
	uint8_t mac[6];
	uint32_t reg[REGS];
	uint32_t io_addr;
	uint16_t eeprom[64], phy[32];
	/* The EEPROM's serial interface: bits shifted in; then (state 1) the word shifted out, ee_bits 1 from
	 * its first bit on. */
	uint8_t ee_state, ee_bits;
	uint16_t ee_in, ee_out;
	struct tx_context context;
	/* The frame that is being gathered. */
	uint8_t tx[TX_MAX];
	uint32_t tx_len;
	bool tx_tse;
	uint8_t tx_popts;
	bool tx_vlan;
	uint16_t tx_tag;
	int64_t irq_not_before;
	struct loop_timer irq_timer;
	bool sending;
};

static uint32_t get(const struct e1000 *n, unsigned at)
{
	return n->reg[at / 4];
}

static void set(struct e1000 *n, unsigned at, uint32_t v)
{
	n->reg[at / 4] = v;
}

static void count(struct e1000 *n, unsigned at, uint32_t by)
{
	uint32_t v = get(n, at);

	set(n, at, v + by < v ? UINT32_MAX : v + by);
}

static void count64(struct e1000 *n, unsigned at, uint32_t by)
{
	uint64_t v = (get(n, at) | (uint64_t)get(n, at + 4) << 32) + by;

	set(n, at, (uint32_t)v);
	set(n, at + 4, (uint32_t)(v >> 32));
}

/* ---- interrupts ---- */

static void update_irq(struct e1000 *n)
{
	bool want = get(n, ICR) & get(n, IMS);

	if (want && !n->pci.intx_level && clock_now_ns(n->board->clock) < n->irq_not_before) {
		if (!n->irq_timer.armed)
			loop_timer_arm(&n->irq_timer, n->irq_not_before);
		return;
	}
	if (want && !n->pci.intx_level && get(n, ITR))
		n->irq_not_before = clock_now_ns(n->board->clock) + (int64_t)(get(n, ITR) & 0xffff) * 256;
	pci_intx_set(&n->pci, want);
}

static void irq_timer(void *opaque)
{
	update_irq(opaque);
}

static void raise_causes(struct e1000 *n, uint32_t causes)
{
	set(n, ICR, get(n, ICR) | causes);
	update_irq(n);
}

/* ---- EEPROM and PHY ---- */

static void make_eeprom(struct e1000 *n)
{
	uint16_t sum = 0;

	memset(n->eeprom, 0, sizeof(n->eeprom));
	for (unsigned i = 0; i < 3; i++)
		n->eeprom[i] = (uint16_t)(n->mac[2 * i] | n->mac[2 * i + 1] << 8);
	n->eeprom[3] = 0x0420;
	n->eeprom[8] = 0x0000;
	n->eeprom[9] = 0x0000;
	n->eeprom[0x0a] = 0x3000 | 0x0008; /* control word 1: signature */
	n->eeprom[0x0b] = 0x1100;
	n->eeprom[0x0c] = 0x8086;
	n->eeprom[0x0d] = 0x100e;
	n->eeprom[0x0e] = 0x8086;
	n->eeprom[0x0f] = 0x3040;
	n->eeprom[0x21] = 0x0602;
	n->eeprom[0x22] = 0x280c;
	for (unsigned i = 0; i < 63; i++)
		sum = (uint16_t)(sum + n->eeprom[i]);
	n->eeprom[63] = (uint16_t)(0xbaba - sum);
}

/* Microwire: start bit, opcode, six address bits in; sixteen bits out. Only READ (110) is answered. */
static void write_eecd(struct e1000 *n, uint32_t v)
{
	uint32_t old = get(n, EECD);

	v &= EECD_SK | EECD_CS | EECD_DI | EECD_REQ;
	if (!(v & EECD_CS)) {
		n->ee_state = n->ee_bits = 0;
		n->ee_in = n->ee_out = 0;
	} else if ((v & EECD_SK) && !(old & EECD_SK)) { /* a clock's rise */
		if (n->ee_state == 1 && !n->ee_bits) {
			n->ee_bits = 1; /* the word's first bit takes the dummy zero's place */
		} else if (n->ee_state == 1) {
			n->ee_out = (uint16_t)(n->ee_out << 1);
		} else if (n->ee_bits || (v & EECD_DI)) { /* zeros before the start bit are nothing */
			n->ee_in = (uint16_t)(n->ee_in << 1 | (v & EECD_DI ? 1 : 0));
			if (++n->ee_bits == 9) {
				n->ee_state = 1;
				n->ee_out = n->ee_in >> 6 == 6 ? n->eeprom[n->ee_in & 63] : 0;
				n->ee_bits = 0;
			}
		}
	}
	set(n, EECD, v);
}

static uint32_t read_eecd(const struct e1000 *n)
{
	uint32_t v = get(n, EECD) | EECD_PRES;

	if (v & EECD_REQ)
		v |= EECD_GNT;
	if (n->ee_state == 1 && n->ee_bits && (n->ee_out & 0x8000))
		v |= EECD_DO;
	return v;
}

static void write_eerd(struct e1000 *n, uint32_t v)
{
	unsigned at = v >> 8 & 0xff;

	if (v & EERD_START)
		v = (v & 0xff00) | EERD_DONE | (uint32_t)(at < 64 ? n->eeprom[at] : 0) << 16;
	set(n, EERD, v);
}

static void reset_phy(struct e1000 *n)
{
	memset(n->phy, 0, sizeof(n->phy));
	n->phy[0] = 0x1140;                            /* full duplex, 1000 Mb/s, negotiation on */
	n->phy[1] = n->net->link_up ? 0x796d : 0x7949; /* abilities; done; link */
	n->phy[2] = 0x0141;                            /* Marvell 88E1011 */
	n->phy[3] = 0x0c20;
	n->phy[4] = 0x0de1;
	n->phy[5] = 0x45e1; /* the partner can do all of it */
	n->phy[6] = 0x0001;
	n->phy[9] = 0x0e00;
	n->phy[10] = 0x3c00;
	n->phy[15] = 0x3000;
	n->phy[16] = 0x0360;
	n->phy[17] = n->net->link_up ? 0xac08 : 0x0000;
	n->phy[20] = 0x0d60;
}

static void write_mdic(struct e1000 *n, uint32_t v)
{
	unsigned phy = v >> 21 & 31, at = v >> 16 & 31;

	v &= ~MDIC_ERROR;
	if (phy != 1) {
		v |= MDIC_ERROR;
	} else if (v & MDIC_READ) {
		v = (v & ~0xffffu) | n->phy[at];
	} else if (v & MDIC_WRITE) {
		if (at == 0 && (v & 0x8000))
			reset_phy(n);
		else if (at == 0)
			n->phy[0] = (uint16_t)(v & 0xfdff); /* negotiation restarts and is over */
		else if (at != 1 && at != 2 && at != 3 && at != 5 && at != 10 && at != 15 && at != 17)
			n->phy[at] = (uint16_t)v;
	}
	set(n, MDIC, v | MDIC_READY);
	if (v & MDIC_INT)
		raise_causes(n, INT_MDAC);
}

/* ---- rings ---- */

struct ring {
	uint64_t base;
	uint32_t size; /* descriptors; 0: not set up */
};

static struct ring ring(const struct e1000 *n, unsigned bal)
{
	return (struct ring){ (get(n, bal) & ~15u) | (uint64_t)get(n, bal + 4) << 32,
			      (get(n, bal + 8) & 0xfff80u) / 16 };
}

/* ---- transmission ---- */

static void finish_checksum(uint8_t *p, uint32_t len, unsigned start, unsigned offset, unsigned end)
{
	uint32_t last = end && end + 1 < len ? end + 1u : len;
	uint16_t sum;

	if (start >= last || offset + 2 > len)
		return;
	sum = (uint16_t)~packet_sum(p + start, last - start, 0);
	packet_put16(p + offset, sum ? sum : 0xffff); /* 0 would say "none" in UDP */
}

static void emit(void *opaque, const uint8_t *frame, size_t len)
{
	struct e1000 *n = opaque;

	net_send(n->net, frame, len);
	count(n, GPTC, 1);
	count(n, TPT, 1);
	count64(n, GOTCL, (uint32_t)len + 4);
	count64(n, TOTL, (uint32_t)len + 4);
}

/* Puts the VLAN tag into a frame of len bytes that has room for it. The length that it has then. */
static uint32_t insert_tag(const struct e1000 *n, uint8_t *frame, uint32_t len)
{
	memmove(frame + 16, frame + 12, len - 12);
	packet_put16(frame + 12, (uint16_t)get(n, VET));
	packet_put16(frame + 14, n->tx_tag);
	return len + 4;
}

static void emit_segment(void *opaque, const uint8_t *frame, size_t len)
{
	struct e1000 *n = opaque;
	uint8_t tagged[NET_FRAME_USUAL + 4];

	if (n->tx_vlan && len <= NET_FRAME_USUAL) {
		memcpy(tagged, frame, len);
		emit(n, tagged, insert_tag(n, tagged, (uint32_t)len));
	} else {
		emit(n, frame, len);
	}
}

/* A whole TCP segment of which the card makes several: its headers are right but for lengths and checksums.
 */
static void send_tso(struct e1000 *n)
{
	const struct tx_context *c = &n->context;
	struct packet_tcp t;
	uint8_t *p = n->tx;

	if (!(c->command & TU_IP) || n->tx_len < 34u || c->ipcss + 20u > n->tx_len || c->mss < 64)
		return;
	packet_put16(p + c->ipcss + 2, (uint16_t)(n->tx_len - c->ipcss));
	packet_put16(p + c->ipcss + 10, 0);
	finish_checksum(p, n->tx_len, c->ipcss, c->ipcss + 10u, c->ipcss + (p[c->ipcss] & 15u) * 4 - 1);
	if (!packet_find_tcp4(p, n->tx_len, &t))
		return;
	/* The pseudo-header's sum that the driver left there counts no length; begin anew. */
	uint16_t tcp_len = (uint16_t)(t.end - t.tcp);
	packet_put16(p + t.tcp + 16, 0);
	uint32_t sum = packet_sum(p + t.ip + 12, 8, 6u + tcp_len);
	packet_put16(p + t.tcp + 16, (uint16_t)~packet_sum(p + t.tcp, tcp_len, sum));
	if ((net_big_tx(n->net) && !n->tx_vlan) || n->tx_len <= NET_FRAME_USUAL)
		emit_segment(n, p, n->tx_len);
	else
		packet_segment4(p, n->tx_len, c->mss, emit_segment, n);
}

static void send_frame(struct e1000 *n)
{
	const struct tx_context *c = &n->context;

	/* The context's offsets are those of the frame in memory (3.3.6): the tag goes in last. */
	if (n->tx_tse) {
		send_tso(n);
	} else if (n->tx_len >= NET_ETH_HEADER) {
		if (n->tx_popts & POPTS_TXSM)
			finish_checksum(n->tx, n->tx_len, c->tucss, c->tucso, c->tucse);
		if (n->tx_popts & POPTS_IXSM)
			finish_checksum(n->tx, n->tx_len, c->ipcss, c->ipcso, c->ipcse);
		if (n->tx_vlan)
			n->tx_len = insert_tag(n, n->tx, n->tx_len); /* tx_len <= TX_MAX - 4 */
		emit(n, n->tx, n->tx_len);
	}
	n->tx_len = 0;
	n->tx_tse = n->tx_vlan = false;
	n->tx_popts = 0;
}

static void take_context(struct e1000 *n, const uint8_t *d)
{
	struct tx_context *c = &n->context;

	c->ipcss = d[0];
	c->ipcso = d[1];
	c->ipcse = (uint16_t)(d[2] | d[3] << 8);
	c->tucss = d[4];
	c->tucso = d[5];
	c->tucse = (uint16_t)(d[6] | d[7] << 8);
	c->pay_len = d[8] | (uint32_t)d[9] << 8 | (d[10] & 15u) << 16;
	c->command = d[11];
	c->hdr_len = d[13];
	c->mss = (uint16_t)(d[14] | d[15] << 8);
}

/* Legacy checksum: from css to the end, stored at cso. */
static void legacy_checksum(struct e1000 *n, const uint8_t *d)
{
	if (d[11] & TX_IC)
		finish_checksum(n->tx, n->tx_len, d[13], d[10], 0);
}

static void take_data(struct e1000 *n, const uint8_t *d)
{
	bool extended = d[11] & TX_DEXT;
	uint64_t address;
	uint32_t len = d[8] | (uint32_t)d[9] << 8 | (extended ? (d[10] & 15u) << 16 : 0);

	memcpy(&address, d, 8);
	if (!n->tx_len && extended) {
		n->tx_tse = d[11] & TX_TSE;
		n->tx_popts = d[13];
	}
	len = (uint32_t)min_u64(len, TX_MAX - 4 - n->tx_len);
	if (pci_dma_read(&n->pci, GPA(address), n->tx + n->tx_len, len) == 0)
		n->tx_len += len;
	if (!(d[11] & TX_EOP))
		return;
	if ((d[11] & TX_VLE) && (get(n, CTRL) & CTRL_VME)) {
		n->tx_vlan = true;
		n->tx_tag = (uint16_t)(d[14] | d[15] << 8);
	}
	if (!extended)
		legacy_checksum(n, d);
	send_frame(n);
}

static void transmit(struct e1000 *n)
{
	struct ring r = ring(n, TDBAL);
	uint32_t causes = 0;

	if (n->sending || !(get(n, TCTL) & TCTL_EN) || !r.size)
		return;
	n->sending = true;
	for (uint32_t done = 0; done < r.size && get(n, TDH) != get(n, TDT); done++) {
		uint32_t head = get(n, TDH);
		uint64_t at = r.base + 16ull * head;
		uint8_t d[16];

		if (head >= r.size || pci_dma_read(&n->pci, GPA(at), d, sizeof(d)) < 0)
			break;
		if ((d[11] & TX_DEXT) && (d[10] >> 4) == 0)
			take_context(n, d);
		else
			take_data(n, d);
		if (d[11] & TX_RS) {
			d[12] |= TX_DD;
			pci_dma_write(&n->pci, GPA(at + 12), d + 12, 1);
			causes |= INT_TXDW;
		}
		set(n, TDH, head + 1 == r.size ? 0 : head + 1);
	}
	n->sending = false;
	net_flush(n->net);
	raise_causes(n, causes | (get(n, TDH) == get(n, TDT) ? INT_TXQE : 0));
}

/* ---- reception ---- */

static bool wanted(const struct e1000 *n, const uint8_t *frame, size_t len)
{
	static const uint8_t broadcast[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	static const uint8_t shifts[4] = { 4, 3, 2, 0 };
	uint32_t rctl = get(n, RCTL);

	if ((rctl & RCTL_VFE) && len >= 16 && packet_get16(frame + 12) == (uint16_t)get(n, VET)) {
		unsigned id = packet_get16(frame + 14) & 0xfff;

		if (!(get(n, VFTA + id / 32 * 4) >> (id % 32) & 1))
			return false;
	}
	if (!memcmp(frame, broadcast, 6))
		return rctl & (RCTL_BAM | RCTL_MPE);
	if (rctl & (frame[0] & 1 ? RCTL_MPE : RCTL_UPE))
		return true;
	for (unsigned i = 0; i < 16; i++) {
		uint32_t lo = get(n, RAL + 8 * i), hi = get(n, RAH + 8 * i);
		uint8_t a[6] = { (uint8_t)lo,         (uint8_t)(lo >> 8), (uint8_t)(lo >> 16),
				 (uint8_t)(lo >> 24), (uint8_t)hi,        (uint8_t)(hi >> 8) };

		if ((hi & RAH_AV) && !memcmp(a, frame, 6))
			return true;
	}
	if (!(frame[0] & 1))
		return false;
	unsigned hash = (frame[4] | frame[5] << 8) >> shifts[rctl >> 12 & 3] & 0xfff;
	return get(n, MTA + hash / 32 * 4) >> (hash % 32) & 1;
}

static uint32_t buffer_size(const struct e1000 *n)
{
	static const uint32_t sizes[4] = { 2048, 1024, 512, 256 };
	uint32_t rctl = get(n, RCTL), s = sizes[rctl >> 16 & 3];

	return (rctl & RCTL_BSEX) && s != 2048 ? s * 16 : s;
}

/* Descriptors that the driver has given us. */
static uint32_t free_descriptors(const struct e1000 *n, const struct ring *r)
{
	uint32_t head = get(n, RDH), tail = get(n, RDT);

	if (!r->size || head >= r->size || tail >= r->size)
		return 0;
	return tail >= head ? tail - head : r->size - head + tail;
}

/* Frames come with right checksums (net.h), so what was looked at is right. */
static uint8_t rx_checksum_status(const struct e1000 *n, const uint8_t *frame, size_t len)
{
	uint32_t rxcsum = get(n, RXCSUM);
	struct packet_tcp t;

	if (!(rxcsum & 0x300) || len < 34 || packet_get16(frame + 12) != 0x0800)
		return RX_IXSM;
	return (uint8_t)((rxcsum & 0x100 ? RX_IPCS : 0) |
			 ((rxcsum & 0x200) && packet_find_tcp4(frame, len, &t) ? RX_TCPCS : 0));
}

static bool receive(void *opaque, const uint8_t *frame, size_t len, const struct net_frame_info *info)
{
	struct e1000 *n = opaque;
	struct ring r = ring(n, RDBAL);
	uint8_t buf[NET_FRAME_USUAL + 8], status;
	uint32_t size = buffer_size(n), at = 0;
	uint16_t tag = 0;

	(void)info;
	if (!(get(n, RCTL) & RCTL_EN) || !pci_bus_master(&n->pci))
		return true; /* the cable ends nowhere */
	if (len < NET_ETH_HEADER || len > NET_FRAME_USUAL + 4 || !wanted(n, frame, len))
		return true;
	status = rx_checksum_status(n, frame, len);
	memcpy(buf, frame, len);
	if ((get(n, CTRL) & CTRL_VME) && len >= 18 && packet_get16(frame + 12) == (uint16_t)get(n, VET)) {
		tag = packet_get16(frame + 14);
		status |= RX_VP;
		memmove(buf + 12, buf + 16, len - 16);
		len -= 4;
	}
	if (len < 60) { /* as on the wire */
		memset(buf + len, 0, 60 - len);
		len = 60;
	}
	size_t total = len + (get(n, RCTL) & RCTL_SECRC ? 0 : 4);
	if (free_descriptors(n, &r) < (total + size - 1) / size) {
		raise_causes(n, INT_RXO);
		return false;
	}
	memset(buf + len, 0, total - len); /* a CRC that nobody looks at */
	while (at < total) {
		uint32_t head = get(n, RDH), part = (uint32_t)min_u64(total - at, size);
		uint64_t where = r.base + 16ull * head, address;
		uint8_t d[16];

		if (pci_dma_read(&n->pci, GPA(where), d, sizeof(d)) < 0)
			return true;
		memcpy(&address, d, 8);
		pci_dma_write(&n->pci, GPA(address), buf + at, part);
		at += part;
		memset(d + 8, 0, 8);
		d[8] = (uint8_t)part;
		d[9] = (uint8_t)(part >> 8);
		d[12] = (uint8_t)(RX_DD | (at == total ? RX_EOP : 0) | status);
		d[14] = (uint8_t)tag;
		d[15] = (uint8_t)(tag >> 8);
		/* The status byte last: by it the driver knows. */
		pci_dma_write(&n->pci, GPA(where + 8), d + 8, 4);
		pci_dma_write(&n->pci, GPA(where + 13), d + 13, 3);
		pci_dma_write(&n->pci, GPA(where + 12), d + 12, 1);
		set(n, RDH, head + 1 == r.size ? 0 : head + 1);
	}
	count(n, GPRC, 1);
	count(n, TPR, 1);
	count64(n, GORCL, (uint32_t)total);
	count64(n, TORL, (uint32_t)total);
	if (frame[0] & 1)
		count(n, frame[0] == 0xff ? BPRC : MPRC, 1);
	bool low = free_descriptors(n, &r) * 2 <= r.size >> (get(n, RCTL) >> 8 & 3);
	raise_causes(n, INT_RXT0 | (low ? INT_RXDMT0 : 0));
	return true;
}

/* ---- registers ---- */

static void reset_registers(struct e1000 *n)
{
	memset(n->reg, 0, sizeof(n->reg));
	set(n, STATUS, STATUS_FD | STATUS_1000 | (n->net->link_up ? STATUS_LU : 0));
	set(n, CTRL, 0x00000201); /* full duplex, 1000 Mb/s */
	set(n, VET, 0x8100);
	set(n, PBA, 0x00100030);
	set(n, RAL,
	    n->mac[0] | (uint32_t)n->mac[1] << 8 | (uint32_t)n->mac[2] << 16 | (uint32_t)n->mac[3] << 24);
	set(n, RAH, n->mac[4] | (uint32_t)n->mac[5] << 8 | RAH_AV);
	n->ee_state = n->ee_bits = 0;
	n->ee_in = n->ee_out = 0;
	n->tx_len = 0;
	n->tx_tse = n->tx_vlan = false;
	n->tx_popts = 0;
	memset(&n->context, 0, sizeof(n->context));
	n->irq_not_before = 0;
	loop_timer_cancel(&n->irq_timer);
	reset_phy(n);
	pci_intx_set(&n->pci, false);
}

static void write_ctrl(struct e1000 *n, uint32_t v)
{
	if (v & CTRL_RST) {
		reset_registers(n);
		return;
	}
	if (v & CTRL_PHY_RST)
		reset_phy(n);
	bool up = !(get(n, CTRL) & CTRL_SLU) && (v & CTRL_SLU);
	set(n, CTRL, v & ~CTRL_PHY_RST);
	if (up)
		raise_causes(n, INT_LSC);
}

static uint32_t reg_read(struct e1000 *n, unsigned at)
{
	uint32_t v;

	if (at >= REGS * 4)
		return 0;
	v = get(n, at);
	switch (at) {
	case EECD:
		return read_eecd(n);
	case ICR:
		set(n, ICR, 0);
		update_irq(n);
		return v | (v & get(n, IMS) ? 0x80000000u : 0);
	case ICS:
	case IMC:
		return 0;
	default:
		if (at >= STATS && at < STATS_END) /* statistics are cleared by reading */
			set(n, at, 0);
		return v;
	}
}

static void reg_write(struct e1000 *n, unsigned at, uint32_t v)
{
	if (at >= REGS * 4)
		return;
	switch (at) {
	case CTRL:
		write_ctrl(n, v);
		break;
	case STATUS:
		break;
	case EECD:
		write_eecd(n, v);
		break;
	case EERD:
		write_eerd(n, v);
		break;
	case MDIC:
		write_mdic(n, v);
		break;
	case ICR:
		set(n, ICR, get(n, ICR) & ~v);
		update_irq(n);
		break;
	case ICS:
		raise_causes(n, v & 0x1ffff);
		break;
	case IMS:
		set(n, IMS, get(n, IMS) | (v & 0x1ffff));
		update_irq(n);
		break;
	case IMC:
		set(n, IMS, get(n, IMS) & ~v);
		update_irq(n);
		break;
	case RCTL:
		set(n, RCTL, v);
		net_rx_ready(n->net);
		break;
	case TCTL:
		set(n, TCTL, v);
		transmit(n);
		break;
	case RDH:
	case RDT:
	case TDH:
	case TDT:
		set(n, at, v & 0xffff);
		if (at == TDT)
			transmit(n);
		else if (at == RDT)
			net_rx_ready(n->net);
		break;
	default:
		if (at < STATS || at >= STATS_END)
			set(n, at, v);
		break;
	}
}

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
	uint32_t v = reg_read(opaque, (unsigned)offset & ~3u);

	(void)size;
	return v >> (8 * (offset & 3));
}

static void mmio_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	if (size == 4) /* the chip knows no others */
		reg_write(opaque, (unsigned)offset, (uint32_t)value);
}

/* I/O space: an address register and a window (13.2.2). */
static uint64_t io_read(void *opaque, uint64_t offset, unsigned size)
{
	struct e1000 *n = opaque;

	(void)size;
	return offset == 0 ? n->io_addr : offset == 4 ? reg_read(n, n->io_addr & ~3u) : 0;
}

static void io_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct e1000 *n = opaque;

	if (offset == 0)
		n->io_addr = (uint32_t)value;
	else if (offset == 4 && size == 4)
		reg_write(n, n->io_addr & ~3u, (uint32_t)value);
}

/* ---- life ---- */

static void e1000_reset(struct device *d)
{
	struct e1000 *n = (struct e1000 *)d;

	pci_device_reset(&n->pci);
	n->io_addr = 0;
	reset_registers(n);
}

static int e1000_loaded(void *obj, struct error *err)
{
	struct e1000 *n = obj;

	if (n->tx_len > TX_MAX - 4 || n->ee_state > 1 || n->ee_bits > 9)
		return error_set(err, EINVAL,
				 "the saved state of the network card (e1000) is impossible; it is damaged");
	n->irq_not_before = 0; /* of the clock as it was before */
	if (get(n, ICR) & get(n, IMS))
		loop_timer_arm(&n->irq_timer, clock_now_ns(n->board->clock));
	return pci_device_loaded(&n->pci, err);
}

static const struct state_field e1000_fields[] = {
	PCI_DEVICE_FIELDS(struct e1000, pci),
	F_U32S(struct e1000, reg, REGS),
	F_U32(struct e1000, io_addr),
	FIELD_ARRAY_(struct e1000, phy, FIELD_U16, 32, 1),
	F_U8(struct e1000, ee_state),
	F_U8(struct e1000, ee_bits),
	F_U16(struct e1000, ee_in),
	F_U16(struct e1000, ee_out),
	F_U8(struct e1000, context.ipcss),
	F_U8(struct e1000, context.ipcso),
	F_U8(struct e1000, context.tucss),
	F_U8(struct e1000, context.tucso),
	F_U8(struct e1000, context.hdr_len),
	F_U8(struct e1000, context.command),
	F_U16(struct e1000, context.ipcse),
	F_U16(struct e1000, context.tucse),
	F_U16(struct e1000, context.mss),
	F_U32(struct e1000, context.pay_len),
	F_BYTES(struct e1000, tx),
	F_U32(struct e1000, tx_len),
	F_BOOL(struct e1000, tx_tse),
	F_U8(struct e1000, tx_popts),
	F_END,
};
static const struct state_table e1000_state = { "e1000", 1, e1000_fields, e1000_loaded };

static void e1000_free(struct device *d)
{
	struct e1000 *n = (struct e1000 *)d;

	net_set_client(n->net, &(struct net_client){ 0 });
	loop_timer_cancel(&n->irq_timer);
	pci_device_fini(&n->pci);
	free(n);
}

static const struct device_class e1000_class = { "e1000", e1000_reset, &e1000_state, e1000_free };

int e1000_new(struct board *b, struct pci_bus *bus, struct net *net, const uint8_t mac[6], uint32_t instance,
	      struct pci_device **ret, struct error *err)
{
	static const struct pci_ids ids = { .vendor = 0x8086,
					    .device = 0x100e,
					    .class_code = 0x020000,
					    .revision = 3,
					    .subsys_vendor = 0x8086,
					    .subsys = 0x001e,
					    .intx_pin = 1 };
	struct e1000 *n = calloc(1, sizeof(*n));

	if (!n)
		return error_set(err, ENOMEM, "no memory for the network card; free some and try again");
	n->board = b;
	n->net = net;
	memcpy(n->mac, mac, 6);
	make_eeprom(n);
	loop_timer_init(b->loop, &n->irq_timer, irq_timer, n);
	int r = pci_device_init(&n->pci, bus, PCI_DEVFN_ANY, &ids, &e1000_class, instance, err);
	if (r < 0) {
		free(n);
		return r;
	}
	n->mmio = (struct io_region){
		.name = "e1000", .read = mmio_read, .write = mmio_write, .opaque = n, .max_size = 4
	};
	n->io = (struct io_region){ .name = "e1000-io", .read = io_read, .write = io_write, .opaque = n };
	pci_add_bar(&n->pci, 0, PCI_BAR_MEM32, MMIO_SIZE, &n->mmio);
	pci_add_bar(&n->pci, 1, PCI_BAR_IO, IO_SIZE, &n->io);
	e1000_reset(&n->pci.dev);
	net_set_client(net, &(struct net_client){ .receive = receive, .opaque = n });
	*ret = &n->pci;
	return 0;
}
