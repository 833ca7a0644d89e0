/* SPDX-License-Identifier: Apache-2.0 */
/* A driver for the card in a few lines, on a network that remembers what it was sent. */
#include "dev/net/e1000.h"

#include <stdlib.h>

#include "dev/pci/pci.h"
#include "dev/test_board.h"
#include "net/packet.h"

enum {
	CTRL = 0x00,
	STATUS = 0x08,
	EECD = 0x10,
	EERD = 0x14,
	MDIC = 0x20,
	VET = 0x38,
	ICR = 0xc0,
	ITR = 0xc4
};
enum { ICS = 0xc8, IMS = 0xd0, IMC = 0xd8, RCTL = 0x100, TCTL = 0x400, RDBAL = 0x2800, TDBAL = 0x3800 };
enum { LEN = 8, HEAD = 16, TAIL = 24 }; /* from a ring's BAL */
enum {
	GPRC = 0x4074,
	GPTC = 0x4080,
	RXCSUM = 0x5000,
	MTA = 0x5200,
	RAL = 0x5400,
	RAH = 0x5404,
	VFTA = 0x5600
};

#define TXDW 0x01u
#define TXQE 0x02u
#define LSC  0x04u
#define RXO  0x40u
#define RXT0 0x80u
#define MDAC 0x200u

#define RCTL_ON 0x04008002u /* enabled, broadcasts, without CRC */
#define RING    8u
#define TX_RING 0x10000u
#define RX_RING 0x11000u
#define TX_BUF  0x20000u
#define RX_BUF  0x80000u

static const uint8_t mac[6] = { 0x52, 0x54, 0, 0xaa, 0xbb, 0xcc };

struct wire {
	struct net n;
	unsigned sent, ready;
	size_t len;
	uint8_t frame[NET_FRAME_MAX];
};

static struct test_board t;
static struct pci_bus *bus;
static struct pci_device *card;
static struct wire wire;
static uint64_t base, ports;
static unsigned tx_tail;

static void wire_send(struct net *n, const uint8_t *frame, size_t len)
{
	(void)n;
	wire.sent++;
	wire.len = len;
	memcpy(wire.frame, frame, len);
}

static void wire_ready(struct net *n)
{
	(void)n;
	wire.ready++;
}

static void wire_free(struct net *n)
{
	(void)n;
}

static const struct net_ops big_ops = { "big", true, wire_send, NULL, NULL, wire_ready, NULL, wire_free };
static const struct net_ops small_ops = {
	"small", false, wire_send, NULL, NULL, wire_ready, NULL, wire_free
};

static uint32_t rd(unsigned reg)
{
	return (uint32_t)mem_mmio_read(t.b.mem, GPA(base + reg), 4);
}

static void wr(unsigned reg, uint32_t v)
{
	mem_mmio_write(t.b.mem, GPA(base + reg), v, 4);
}

static uint8_t *ram(uint64_t gpa, uint64_t len)
{
	uint8_t *p = mem_ram_ptr(t.b.mem, GPA(gpa), len);

	assert_non_null(p);
	return p;
}

static void start(void)
{
	board_reset(&t.b);
	assert_int_equal(pci_assign_resources(bus, NULL), 0);
	pci_bus_config_write(bus, card->devfn, PCI_COMMAND, 7, 2);
	assert_true(pci_bar_mapped(card, 0, &base));
	assert_true(pci_bar_mapped(card, 1, &ports));
}

/* Both rings of RING descriptors; all receive descriptors but one are the card's. */
static void start_rings(void)
{
	for (unsigned i = 0; i < RING; i++) {
		uint64_t d[2] = { RX_BUF + i * 0x4000, 0 };

		memcpy(ram(RX_RING + 16 * i, 16), d, 16);
	}
	wr(TDBAL, TX_RING);
	wr(TDBAL + LEN, RING * 16);
	wr(TCTL, 2);
	wr(RDBAL, RX_RING);
	wr(RDBAL + LEN, RING * 16);
	wr(RDBAL + TAIL, RING - 1);
	wr(RCTL, RCTL_ON);
	tx_tail = 0;
	rd(ICR);
}

static int setup(void **state)
{
	(void)state;
	memset(&wire, 0, sizeof(wire));
	wire.n.ops = &big_ops;
	wire.n.link_up = true;
	test_board_init(&t);
	assert_int_equal(pci_bus_new(&t.b, t.router, &bus, NULL), 0);
	assert_int_equal(e1000_new(&t.b, bus, &wire.n, mac, 0, &card, NULL), 0);
	start();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	test_board_fini(&t);
	return 0;
}

/* ---- registers ---- */

static void power_on(void **state)
{
	(void)state;
	assert_int_equal(pci_bus_config_read(bus, card->devfn, PCI_VENDOR_ID, 4), 0x100e8086);
	assert_int_equal(pci_bus_config_read(bus, card->devfn, PCI_REVISION_ID, 4) >> 8, 0x020000);
	assert_int_equal(rd(STATUS), 0x83); /* link, full duplex, 1000 Mb/s */
	assert_int_equal(rd(VET), 0x8100);
	assert_int_equal(rd(RCTL) | rd(TCTL) | rd(IMS) | rd(ICR), 0);
	assert_int_equal(rd(RAL), 0xaa005452);
	assert_int_equal(rd(RAH), 0x8000ccbb);
	wr(STATUS, 0xffffffff);
	assert_int_equal(rd(STATUS), 0x83);
	wr(RCTL, 0x1234);
	wr(IMS, LSC);
	wr(CTRL, 0x40); /* the driver sets the link up */
	assert_true(card->intx_level);
	wr(CTRL, 0x04000000); /* RST */
	assert_false(card->intx_level);
	assert_int_equal(rd(RCTL) | rd(IMS), 0);
	wire.n.link_up = false;
	board_reset(&t.b);
	start();
	assert_int_equal(rd(STATUS), 0x81);
}

static unsigned eerd(unsigned at)
{
	wr(EERD, at << 8 | 1);
	assert_true(rd(EERD) & 0x10);
	return rd(EERD) >> 16;
}

static void clock_bit(unsigned bit)
{
	wr(EECD, 0x42 | bit << 2);
	wr(EECD, 0x43 | bit << 2);
}

static unsigned microwire(unsigned command)
{
	unsigned v = 0;

	wr(EECD, 0x40);
	assert_true(rd(EECD) & 0x80); /* granted */
	for (unsigned i = 9; i-- > 0;)
		clock_bit(command >> i & 1);
	for (unsigned i = 0; i < 16; i++) {
		assert_true(i || !(rd(EECD) & 8)); /* a dummy zero comes first */
		clock_bit(0);
		v = v << 1 | (rd(EECD) >> 3 & 1);
	}
	wr(EECD, 0);
	return v;
}

static void eeprom(void **state)
{
	unsigned sum = 0;

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(eerd(i), mac[2 * i] | mac[2 * i + 1] << 8);
	for (unsigned i = 0; i < 64; i++)
		sum += eerd(i);
	assert_int_equal(sum & 0xffff, 0xbaba);
	assert_int_equal(eerd(64), 0);
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(microwire(0x180 | i), eerd(i));
	assert_int_equal(microwire(0x140 | 1), 0); /* a write */
	assert_int_equal(eerd(1), mac[2] | mac[3] << 8);
}

static unsigned mdic(unsigned v)
{
	wr(MDIC, v);
	assert_true(rd(MDIC) & 0x10000000);
	return rd(MDIC);
}

static void phy(void **state)
{
	(void)state;
	assert_int_equal(mdic(0x08000000 | 1 << 21 | 2 << 16) & 0xffff, 0x0141);
	assert_true(mdic(0x08000000 | 1 << 21 | 1 << 16) & 0x24); /* negotiated, link */
	assert_false(rd(ICR) & MDAC);                             /* nobody asked for an interrupt */
	mdic(0x04000000 | 1 << 21 | 4 << 16 | 0x1e1);
	assert_int_equal(mdic(0x28000000 | 1 << 21 | 4 << 16) & 0xffff, 0x1e1);
	assert_true(rd(ICR) & MDAC);
	mdic(0x04000000 | 1 << 21 | 2 << 16 | 0xffff); /* an identifier is not written */
	assert_int_equal(mdic(0x08000000 | 1 << 21 | 2 << 16) & 0xffff, 0x0141);
	assert_true(mdic(0x08000000 | 2 << 21) & 0x40000000); /* there is no PHY 2 */
	assert_false(mdic(0x48000000 | 1 << 21) & 0x40000000);
}

static void io_window(void **state)
{
	(void)state;
	test_out(&t, (uint16_t)ports, RAL, 4);
	assert_int_equal(test_in(&t, (uint16_t)ports, 4), RAL);
	assert_int_equal(test_in(&t, (uint16_t)ports + 4, 4), 0xaa005452);
	test_out(&t, (uint16_t)ports + 4, 0x11223344, 4);
	assert_int_equal(rd(RAL), 0x11223344);
	test_out(&t, (uint16_t)ports, 0xfffffffc, 4);
	test_out(&t, (uint16_t)ports + 4, 1, 4);
	assert_int_equal(test_in(&t, (uint16_t)ports + 4, 4), 0);
}

/* ---- interrupts ---- */

static void interrupts(void **state)
{
	(void)state;
	wr(ICS, TXDW | LSC);
	assert_false(card->intx_level);
	wr(IMS, LSC);
	assert_true(card->intx_level);
	wr(IMC, LSC);
	assert_false(card->intx_level);
	wr(IMS, LSC);
	wr(ICR, LSC); /* written ones clear */
	assert_false(card->intx_level);
	wr(ICS, LSC);
	assert_int_equal(rd(ICR), 0x80000000 | TXDW | LSC);
	assert_int_equal(rd(ICR), 0);
	assert_false(card->intx_level);
	assert_int_equal(rd(IMS), LSC);
	assert_int_equal(rd(IMC) | rd(ICS), 0);
}

static void throttling(void **state)
{
	(void)state;
	wr(IMS, LSC);
	wr(ITR, 40000); /* 10.24 ms */
	wr(ICS, LSC);
	assert_true(card->intx_level);
	rd(ICR);
	wr(ICS, LSC); /* too soon */
	assert_false(card->intx_level);
	test_advance(&t, 10000000);
	wr(ICS, LSC);
	assert_false(card->intx_level);
	test_run(&t, 1000000);
	assert_true(card->intx_level);
}

/* ---- transmission ---- */

/* Appends a descriptor; does not tell the card. */
static uint8_t *tx_add(uint64_t address, uint64_t rest)
{
	uint64_t d[2] = { address, rest };
	uint8_t *p = ram(TX_RING + 16 * tx_tail, 16);

	memcpy(p, d, 16);
	tx_tail = (tx_tail + 1) % RING;
	return p;
}

static void tx_go(void)
{
	wr(TDBAL + TAIL, tx_tail);
}

#define CMD(c)     ((uint64_t)(c) << 24)
#define DEXT       CMD(0x20)
#define DATA       (DEXT | 1ull << 20)
#define SPECIAL(v) ((uint64_t)(v) << 48)
#define POPTS(v)   ((uint64_t)(v) << 40)

static void legacy_descriptors(void **state)
{
	uint8_t *buf = ram(TX_BUF, 2000), *d;

	(void)state;
	start_rings();
	for (unsigned i = 0; i < 2000; i++)
		buf[i] = (uint8_t)(i * 7);
	tx_add(TX_BUF, 14 | CMD(0));
	d = tx_add(TX_BUF + 14, 50 | CMD(0x09)); /* EOP, RS */
	assert_int_equal(wire.sent, 0);
	tx_go();
	assert_int_equal(wire.sent, 1);
	assert_int_equal(wire.len, 64);
	assert_memory_equal(wire.frame, buf, 64);
	assert_int_equal(d[12] & 1, 1);
	assert_int_equal(rd(TDBAL + HEAD), 2);
	assert_int_equal(rd(ICR), TXDW | TXQE);
	assert_int_equal(rd(GPTC), 1);
	assert_int_equal(rd(GPTC), 0);            /* reading clears */
	for (unsigned i = 0; i < 3 * RING; i++) { /* around the ring */
		tx_add(TX_BUF + i, 60 | CMD(0x01));
		tx_go();
		assert_memory_equal(wire.frame, buf + i, 60);
	}
	assert_int_equal(wire.sent, 1 + 3 * RING);
	assert_int_equal(rd(ICR), TXQE); /* without RS nothing is reported */
	/* IC: a checksum from CSS (byte 13) to the end at CSO (byte 10). */
	memset(buf, 0, 64);
	buf[20] = 0x12;
	buf[21] = 0x34;
	tx_add(TX_BUF, 64 | 30ull << 16 | CMD(0x05) | 20ull << 40);
	tx_go();
	assert_int_equal(packet_get16(wire.frame + 30), 0xffff & ~0x1234);
	assert_int_equal(packet_sum(wire.frame + 20, 44, 0), 0xffff);
}

/* An IPv4 TCP segment with so much data; the checksums are the card's. */
static uint32_t tcp_frame(uint8_t *p, unsigned data)
{
	static const uint8_t head[54] = { 0x52, 0x55, 10,   0,    2,    2, 0x52, 0x54, 0,  0xaa, 0xbb,
					  0xcc, 8,    0,    0x45, 0,    0, 0,    0x12, 0,  0x40, 0,
					  64,   6,    0,    0,    10,   0, 2,    15,   10, 0,    2,
					  2,    0x80, 1,    0,    80,   0, 0,    1,    0,  0,    0,
					  0,    0,    0x50, 0x18, 0x20, 0, 0,    0,    0,  0 };

	memcpy(p, head, sizeof(head));
	packet_put16(p + 16, (uint16_t)(40 + data));
	for (unsigned i = 0; i < data; i++)
		p[54 + i] = (uint8_t)(i * 13 + 5);
	/* As drivers leave it: the pseudo-header's sum. */
	packet_put16(p + 50, packet_sum(p + 26, 8, 6 + 20 + data));
	return 54 + data;
}

static void assert_sums(const uint8_t *frame, size_t len)
{
	struct packet_tcp x;

	assert_true(packet_find_tcp4(frame, len, &x));
	assert_int_equal(packet_sum(frame + x.ip, x.tcp - x.ip, 0), 0xffff);
	assert_int_equal(packet_sum(frame + x.tcp, x.end - x.tcp,
				    packet_sum(frame + x.ip + 12, 8, (uint32_t)(6 + x.end - x.tcp))),
			 0xffff);
}

/* IP header from 14, its sum at 24, to 33; TCP from 34, its sum at 50, to the end. */
static void context(unsigned command, unsigned header, unsigned mss)
{
	tx_add(14 | 24u << 8 | 33u << 16 | 34ull << 32 | 50ull << 40,
	       DEXT | CMD(command) | (uint64_t)header << 40 | SPECIAL(mss));
}

static void offloads(void **state)
{
	uint8_t *buf = ram(TX_BUF, 70000);
	uint32_t len;

	(void)state;
	start_rings();
	len = tcp_frame(buf, 101);
	context(3, 0, 0);
	tx_add(TX_BUF, DATA | 54 | POPTS(3));
	tx_add(TX_BUF + 54, DATA | (len - 54) | CMD(0x09));
	tx_go();
	assert_int_equal(wire.len, len);
	assert_sums(wire.frame, len);
	assert_memory_equal(wire.frame + 54, buf + 54, len - 54);
	/* A big segment goes out whole if the other end takes it... */
	len = tcp_frame(buf, 5000);
	packet_put16(buf + 50, packet_sum(buf + 26, 8, 6)); /* no length in it for segmentation */
	context(3, 54, 1460);
	tx_add(TX_BUF, DATA | len | CMD(0x05) | POPTS(3));
	tx_go();
	assert_int_equal(wire.sent, 2);
	assert_int_equal(wire.len, len);
	assert_sums(wire.frame, len);
	/* ... and else in pieces. */
	wire.n.ops = &small_ops;
	context(3, 54, 1000);
	tx_add(TX_BUF, DATA | len | CMD(0x05) | POPTS(3));
	tx_go();
	assert_int_equal(wire.sent, 2 + 5);
	assert_int_equal(wire.len, 54 + 1000);
	assert_sums(wire.frame, wire.len);
	assert_int_equal(packet_get16(wire.frame + 40), (1 << 8) + 4000); /* the sequence number's low half */
	assert_memory_equal(wire.frame + 54, buf + 54 + 4000, 1000);
}

/* Offsets in the context are those of the frame without its tag. */
static void vlan_tags_go_in_last(void **state)
{
	uint8_t *buf = ram(TX_BUF, 70000), plain[2048];
	uint32_t len;

	(void)state;
	start_rings();
	wr(CTRL, 0x40000000); /* VME */
	len = tcp_frame(buf, 200);
	context(3, 0, 0);
	tx_add(TX_BUF, DATA | len | CMD(0x41) | POPTS(3) | SPECIAL(0x6007));
	tx_go();
	assert_int_equal(wire.len, len + 4);
	assert_int_equal(packet_get16(wire.frame + 12), 0x8100);
	assert_int_equal(packet_get16(wire.frame + 14), 0x6007);
	memcpy(plain, wire.frame, 12);
	memcpy(plain + 12, wire.frame + 16, len - 12);
	assert_sums(plain, len);
	/* Each segment of a big one has it, and none is bigger than a tagged frame may be. */
	len = tcp_frame(buf, 2920);
	context(3, 54, 1460);
	tx_add(TX_BUF, DATA | len | CMD(0x45) | POPTS(3) | SPECIAL(0x6007));
	tx_go();
	assert_int_equal(wire.sent, 3);
	assert_int_equal(wire.len, 1518);
	assert_int_equal(packet_get16(wire.frame + 14), 0x6007);
	memcpy(plain, wire.frame, 12);
	memcpy(plain + 12, wire.frame + 16, 1514 - 12);
	assert_sums(plain, 1514);
	wr(CTRL, 0); /* the driver may switch it off */
	tx_add(TX_BUF, 60 | CMD(0x41) | SPECIAL(7));
	tx_go();
	assert_int_equal(wire.len, 60);
}

/* ---- reception ---- */

static bool deliver(const uint8_t *to, unsigned len)
{
	static const struct net_frame_info info;
	uint8_t frame[NET_FRAME_USUAL + 4];
	uint8_t *exact = malloc(len); /* so that a sanitizer sees what reads beyond */
	bool taken;

	for (unsigned i = 0; i < sizeof(frame); i++)
		frame[i] = (uint8_t)(i * 3 + 1);
	memcpy(frame, to, 6);
	packet_put16(frame + 12, 0x88b5);
	assert_non_null(exact);
	memcpy(exact, frame, len);
	taken = wire.n.client.receive(wire.n.client.opaque, exact, len, &info);
	free(exact);
	return taken;
}

static void receives(void **state)
{
	const uint8_t *d;

	(void)state;
	start_rings();
	assert_true(deliver(mac, 100));
	d = ram(RX_RING, 16);
	assert_int_equal(d[8] | d[9] << 8, 100);
	assert_int_equal(d[12] & 3, 3); /* DD, EOP */
	assert_memory_equal(ram(RX_BUF, 6), mac, 6);
	assert_int_equal(ram(RX_BUF, 100)[99], (uint8_t)(99 * 3 + 1));
	assert_int_equal(rd(RDBAL + HEAD), 1);
	assert_true(rd(ICR) & RXT0);
	assert_int_equal(rd(GPRC), 1);
	assert_true(deliver(mac, 20)); /* padded, as on the wire */
	d = ram(RX_RING + 16, 16);
	assert_int_equal(d[8], 60);
	assert_int_equal(ram(RX_BUF + 0x4000, 60)[40], 0);
	wr(RCTL, RCTL_ON & ~0x04000000u); /* with CRC */
	assert_true(deliver(mac, 100));
	assert_int_equal(ram(RX_RING + 32, 16)[8], 104);
	wr(RCTL, 0);
	assert_true(deliver(mac, 100)); /* taken and forgotten */
	assert_int_equal(rd(RDBAL + HEAD), 3);
}

static void rings_wrap_and_fill(void **state)
{
	(void)state;
	start_rings();
	for (unsigned i = 0; i < RING - 1; i++)
		assert_true(deliver(mac, 64));
	rd(ICR);
	assert_false(deliver(mac, 64)); /* the backend keeps it */
	assert_true(rd(ICR) & RXO);
	assert_int_equal(rd(RDBAL + HEAD), RING - 1);
	wire.ready = 0;
	wr(RDBAL + TAIL, 2);
	assert_int_equal(wire.ready, 1);
	/* One frame over three descriptors, the second of them the ring's first. */
	wr(RCTL, RCTL_ON | 2 << 16); /* 512 bytes each */
	assert_true(deliver(mac, 1300));
	assert_int_equal(rd(RDBAL + HEAD), 2);
	assert_int_equal(ram(RX_RING + 16 * (RING - 1), 16)[12] & 3, 1);
	assert_int_equal(ram(RX_RING, 16)[12] & 3, 1);
	assert_int_equal(ram(RX_RING + 16, 16)[12] & 3, 3);
	assert_int_equal(ram(RX_RING + 16, 16)[8] | ram(RX_RING + 16, 16)[9] << 8, 1300 - 1024);
	assert_int_equal(ram(RX_BUF + 0x4000, 276)[275], (uint8_t)(1299 * 3 + 1));
	assert_false(deliver(mac, 64));
}

static bool arrives(const uint8_t *to)
{
	uint32_t before = rd(RDBAL + HEAD);

	assert_true(deliver(to, 64));
	bool yes = rd(RDBAL + HEAD) != before;
	wr(RDBAL + TAIL, (rd(RDBAL + HEAD) + RING - 1) % RING);
	return yes;
}

static void filters(void **state)
{
	static const uint8_t all[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	static const uint8_t other[6] = { 0x52, 0x54, 0, 1, 2, 3 };
	static const uint8_t group[6] = { 1, 0, 0x5e, 0, 0x12, 0x34 };
	unsigned hash = (0x12 | 0x34 << 8) >> 4;

	(void)state;
	start_rings();
	assert_true(arrives(mac));
	assert_true(arrives(all));
	assert_false(arrives(other));
	assert_false(arrives(group));
	wr(RCTL, RCTL_ON & ~0x8000u);
	assert_false(arrives(all));
	wr(RCTL, RCTL_ON | 8); /* UPE */
	assert_true(arrives(other));
	assert_false(arrives(group));
	wr(RCTL, RCTL_ON | 16); /* MPE */
	assert_false(arrives(other));
	assert_true(arrives(group));
	wr(RCTL, RCTL_ON);
	wr(MTA + hash / 32 * 4, 1u << hash % 32);
	assert_true(arrives(group));
	wr(RAL + 8, 0x01005452);
	wr(RAH + 8, 0x0302);
	assert_false(arrives(other)); /* not valid yet */
	wr(RAH + 8, 0x80000302);
	assert_true(arrives(other));
}

static bool deliver_tagged(unsigned id, unsigned len)
{
	static const struct net_frame_info info;
	uint8_t *frame = calloc(1, len);
	bool taken;

	assert_non_null(frame);
	memcpy(frame, mac, 6);
	packet_put16(frame + 12, 0x8100);
	if (len >= 16)
		packet_put16(frame + 14, (uint16_t)id);
	if (len >= 20)
		frame[16] = 0xab;
	taken = wire.n.client.receive(wire.n.client.opaque, frame, len, &info);
	free(frame);
	return taken;
}

static void vlan_filter(void **state)
{
	const uint8_t *d = ram(RX_RING, 16);

	(void)state;
	start_rings();
	wr(RCTL, RCTL_ON | 0x40000); /* VFE */
	wr(CTRL, 0x40000000);
	wr(VFTA + 4, 1u << 3); /* 35 */
	assert_true(deliver_tagged(36, 100));
	assert_int_equal(rd(RDBAL + HEAD), 0);
	assert_true(deliver_tagged(35 | 0xe000, 100));
	assert_int_equal(d[8], 96);
	assert_true(d[12] & 8);
	assert_int_equal(d[14] | d[15] << 8, 35 | 0xe000);
	assert_int_equal(ram(RX_BUF, 16)[12], 0xab);
	assert_true(deliver_tagged(0, 14)); /* an Ethernet header and no more, of a VLAN that has no number */
	assert_true(deliver_tagged(0xfff, 1518));
}

static void checksum_status(void **state)
{
	static const struct net_frame_info info;
	uint8_t frame[200];
	uint32_t len = tcp_frame(frame, 40);

	(void)state;
	start_rings();
	memcpy(frame, mac, 6);
	assert_true(wire.n.client.receive(wire.n.client.opaque, frame, len, &info));
	assert_int_equal(ram(RX_RING, 16)[12], 0x07); /* nothing was looked at */
	wr(RXCSUM, 0x300);
	assert_true(wire.n.client.receive(wire.n.client.opaque, frame, len, &info));
	assert_int_equal(ram(RX_RING + 16, 16)[12], 0x63);
}

/* ---- a hostile guest ---- */

static void rings_that_lie(void **state)
{
	static const uint32_t lens[] = { 0, 16, 127, 128, 0xfff80, 0xffffffff };
	static const uint64_t bases[] = { 0, TEST_RAM - 16, TEST_RAM, 0xfffffffffffffff0, 0xfee00000 };

	(void)state;
	start_rings();
	for (unsigned l = 0; l < ARRAY_SIZE(lens); l++) {
		for (unsigned b = 0; b < ARRAY_SIZE(bases); b++) {
			for (unsigned r = 0; r < 2; r++) {
				unsigned bal = r ? TDBAL : RDBAL;

				wr(bal, (uint32_t)bases[b]);
				wr(bal + 4, (uint32_t)(bases[b] >> 32));
				wr(bal + LEN, lens[l]);
				wr(bal + HEAD, 0xffff);
				wr(bal + TAIL, 3);
				deliver(mac, 1400);
				wr(bal + HEAD, 2);
				wr(bal + TAIL, 0xffff);
				deliver(mac, 1400);
			}
		}
	}
	/* A tail outside the ring: one turn, no more. */
	memset(ram(TX_RING, 16 * RING), 0, 16 * RING);
	wr(TDBAL, TX_RING);
	wr(TDBAL + 4, 0);
	wr(TDBAL + LEN, RING * 16);
	wr(TDBAL + HEAD, 0);
	rd(ICR);
	wr(TDBAL + TAIL, 0x1000);
	assert_int_equal(rd(TDBAL + HEAD), 0);
	assert_false(rd(ICR) & TXQE); /* it is not empty */
	/* The card writes into its own ring and sends it. */
	wr(RDBAL, TX_RING);
	wr(RDBAL + 4, 0);
	wr(RDBAL + LEN, RING * 16);
	wr(RDBAL + HEAD, 0);
	wr(RDBAL + TAIL, 5);
	deliver(mac, 1400);
	wr(TDBAL + TAIL, 7);
	/* Without leave to use the bus nothing moves. */
	pci_bus_config_write(bus, card->devfn, PCI_COMMAND, 3, 2);
	uint32_t head = rd(RDBAL + HEAD);
	deliver(mac, 64);
	wr(TDBAL + TAIL, 1);
	assert_int_equal(rd(RDBAL + HEAD), head);
}

static void frames_without_end(void **state)
{
	(void)state;
	start_rings();
	for (unsigned i = 0; i < 40; i++) { /* gathers far more than a frame may have */
		tx_add(TX_BUF, DATA | 0xfffff | CMD(i % 7 == 6 ? 0x05 : 0x04) | POPTS(3));
		tx_go();
	}
	context(3, 255, 0xffff);
	tx_add(TX_BUF, DATA | 10 | CMD(0x05) | POPTS(3));
	tx_go();
	context(3, 0, 0);
	tx_add(TEST_RAM - 8, DATA | 100 | CMD(0x41) | POPTS(3));
	tx_go();
	for (unsigned i = 0; i < 60; i++) { /* checksums of what is not there */
		tx_add(0x0101010101010101ull * (i * 5), DEXT | 0x0101010101000000ull * i);
		tx_add(TX_BUF, DATA | (i + 10) | CMD(0x01 | (i & 1) << 2) | POPTS(i & 3));
		tx_go();
	}
	board_reset(&t.b);
}

static void random_registers(void **state)
{
	static const uint16_t useful[] = { CTRL,  EECD,      EERD,        MDIC,         ICR,
					   ITR,   ICS,       IMS,         RCTL,         TCTL,
					   RDBAL, RDBAL + 4, RDBAL + LEN, RDBAL + HEAD, RDBAL + TAIL,
					   TDBAL, TDBAL + 4, TDBAL + LEN, TDBAL + HEAD, TDBAL + TAIL,
					   RAL,   RAH,       RXCSUM,      MTA,          VFTA };
	uint64_t x = 0x9e3779b97f4a7c15ull;

	(void)state;
	start_rings();
	for (unsigned i = 0; i < 60000; i++) {
		unsigned reg, size;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		reg = x & 3 ? useful[(x >> 8) % ARRAY_SIZE(useful)] : (unsigned)(x >> 8) & 0x1ffff;
		size = x >> 60 ? 4 : 1u << (x >> 58 & 3);
		if ((reg & ~0x1000u) == RDBAL + 4)
			continue; /* rings stay near the RAM */
		mem_mmio_write(t.b.mem, GPA(base + reg), x >> 24 & (x & 64 ? 0x1fffff : 0xfff), size);
		mem_mmio_read(t.b.mem, GPA(base + (x >> 30 & 0x1ffff)), size);
		if (x % 16 == 0)
			deliver(x & 256 ? mac : ram((x >> 32) % 0x1000, 6), 14 + (unsigned)(x >> 40) % 1500);
		if (x % 512 == 1)
			memset(ram(x >> 33 & 0xfffff, 64), (int)(x >> 20), 64);
	}
}

static void round_trip(void **state)
{
	uint8_t *buf = ram(TX_BUF, 2000);

	(void)state;
	start_rings();
	wr(IMS, TXDW);
	wr(ITR, 40000);
	tcp_frame(buf, 200);
	context(3, 0, 0);
	tx_add(TX_BUF, DATA | 54 | CMD(0x08) | POPTS(3)); /* half a frame */
	tx_go();
	clock_bit(1);
	test_round_trip(&t);
	assert_int_equal(rd(TDBAL + HEAD), 2);
	assert_int_equal(rd(RAL), 0xaa005452);
	tx_add(TX_BUF + 54, DATA | 200 | CMD(0x01));
	tx_go();
	assert_int_equal(wire.len, 254);
	assert_sums(wire.frame, 254);
	assert_true(card->intx_level);
	rd(ICR);
	wr(ICS, TXDW); /* what it waited for before is forgotten */
	assert_true(card->intx_level);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(power_on, setup, teardown),
		cmocka_unit_test_setup_teardown(eeprom, setup, teardown),
		cmocka_unit_test_setup_teardown(phy, setup, teardown),
		cmocka_unit_test_setup_teardown(io_window, setup, teardown),
		cmocka_unit_test_setup_teardown(interrupts, setup, teardown),
		cmocka_unit_test_setup_teardown(throttling, setup, teardown),
		cmocka_unit_test_setup_teardown(legacy_descriptors, setup, teardown),
		cmocka_unit_test_setup_teardown(offloads, setup, teardown),
		cmocka_unit_test_setup_teardown(vlan_tags_go_in_last, setup, teardown),
		cmocka_unit_test_setup_teardown(receives, setup, teardown),
		cmocka_unit_test_setup_teardown(rings_wrap_and_fill, setup, teardown),
		cmocka_unit_test_setup_teardown(filters, setup, teardown),
		cmocka_unit_test_setup_teardown(vlan_filter, setup, teardown),
		cmocka_unit_test_setup_teardown(checksum_status, setup, teardown),
		cmocka_unit_test_setup_teardown(rings_that_lie, setup, teardown),
		cmocka_unit_test_setup_teardown(frames_without_end, setup, teardown),
		cmocka_unit_test_setup_teardown(random_registers, setup, teardown),
		cmocka_unit_test_setup_teardown(round_trip, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
