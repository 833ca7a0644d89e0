/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/iov.h"
#include "dev/virtio/test_driver.h"
#include "dev/virtio/virtio_net.h"
#include "net/packet.h"

#define RX   0u
#define TX   1u
#define CTRL 2u

#define F_CSUM       (1ull << 0)
#define F_GUEST_CSUM (1ull << 1)
#define F_GUEST_TSO4 (1ull << 7)
#define F_HOST_TSO4  (1ull << 11)
#define F_MRG        (1ull << 15)
#define F_STATUS     (1ull << 16)
#define F_CTRL_VQ    (1ull << 17)
#define F_CTRL_RX    (1ull << 18)
#define F_CTRL_MAC   (1ull << 23)

static const uint8_t mac[6] = { 0x52, 0x54, 0, 0xaa, 0xbb, 0xcc };

/* A backend that remembers the last frame and lets the test deliver. */
struct fake_net {
	struct net n;
	unsigned sent, flushed, ready, pieces;
	bool take_pieces;
	size_t len;
	uint8_t frame[NET_FRAME_MAX];
};

static void fake_send(struct net *n, const uint8_t *frame, size_t len)
{
	struct fake_net *f = (struct fake_net *)n;

	f->sent++;
	f->len = len;
	memcpy(f->frame, frame, len);
}

static bool fake_send_pieces(struct net *n, const uint8_t *head, size_t len, struct iovec *iov, unsigned cnt)
{
	struct fake_net *f = (struct fake_net *)n;

	if (!f->take_pieces)
		return false;
	f->pieces++;
	f->len = len;
	assert_int_equal(iov_to_buf(iov, cnt, 0, f->frame, sizeof(f->frame)), len);
	assert_memory_equal(head, f->frame, len < NET_HEAD_MAX ? len : NET_HEAD_MAX);
	return true;
}

static void fake_flush(struct net *n)
{
	((struct fake_net *)n)->flushed++;
}

static void fake_ready(struct net *n)
{
	((struct fake_net *)n)->ready++;
}

static void fake_free(struct net *n)
{
	free(n);
}

static const struct net_ops fake_ops = { "fake",     true,       fake_send, fake_send_pieces,
					 fake_flush, fake_ready, NULL,      fake_free };
static const struct net_ops small_ops = { "small",    false,      fake_send, NULL,
					  fake_flush, fake_ready, NULL,      fake_free };

struct fixture {
	struct test_driver t;
	struct fake_net *net;
};

static void attach(struct fixture *f)
{
	struct virtio_device *v;

	assert_int_equal(virtio_net_new(&f->t.board, &f->net->n, mac, 0, &v, NULL), 0);
	td_attach(&f->t, v);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	td_init(&f->t);
	f->net = calloc(1, sizeof(*f->net));
	f->net->n.ops = &fake_ops;
	attach(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	td_fini(&f->t);
	assert_null(f->net->n.client.receive);
	net_free(&f->net->n);
	free(f);
	return 0;
}

static bool deliver(struct fixture *f, const void *frame, size_t len, uint16_t gso)
{
	return f->net->n.client.receive(f->net->n.client.opaque, frame, len,
					&(struct net_frame_info){ .gso_size = gso });
}

static void test_config(void **state)
{
	struct fixture *f = *state;
	struct virtio_device *v = f->t.v;

	assert_int_equal(virtio_config_read(v, 0, 4), 0xaa005452);
	assert_int_equal(virtio_config_read(v, 4, 2), 0xccbb);
	assert_int_equal(virtio_config_read(v, 6, 2), 1);
	td_start(&f->t, F_STATUS, 16);
	virtio_net_set_link(v, false);
	assert_int_equal(virtio_config_read(v, 6, 2), 0);
	assert_int_equal(f->t.config_irqs, 1);
	assert_int_equal(v->config_generation, 1);
	virtio_net_set_link(v, false);
	assert_int_equal(f->t.config_irqs, 1);
	/* Features that need others */
	assert_false(td_start(&f->t, F_HOST_TSO4, 16) & VIRTIO_S_FEATURES_OK);
	assert_false(td_start(&f->t, F_GUEST_TSO4, 16) & VIRTIO_S_FEATURES_OK);
	assert_false(td_start(&f->t, F_CTRL_RX, 16) & VIRTIO_S_FEATURES_OK);
	assert_true(td_start(&f->t, F_GUEST_TSO4 | F_GUEST_CSUM, 16) & VIRTIO_S_FEATURES_OK);
	assert_true(f->net->n.big_rx);
	virtio_set_status(v, 0);
	assert_false(f->net->n.big_rx);
	/* A backend that takes no large frames */
	f->net->n.ops = &small_ops;
	board_free_devices(&f->t.board);
	attach(f);
	assert_false(f->t.v->host_features & F_HOST_TSO4);
	assert_int_equal(virtio_net_new(&f->t.board, &f->net->n, (uint8_t[6]){ 1 }, 1, &v, NULL), -22);
}

struct hdr {
	uint8_t flags, gso_type;
	uint16_t hdr_len, gso_size, csum_start, csum_offset, num_buffers;
};

/* Sends header and frame as two buffers. */
static void transmit(struct fixture *f, struct hdr h, const void *frame, size_t len)
{
	struct test_driver *t = &f->t;

	td_put(t, TD_DATA, &h, 12);
	td_put(t, TD_DATA + 0x1000, frame, len);
	td_desc(t, TX, 0, TD_DATA, 12, TD_NEXT, 1);
	td_desc(t, TX, 1, TD_DATA + 0x1000, (uint32_t)len, 0, 0);
	td_kick(t, TX, 0);
	td_run(t, 0);
}

static void quit_work(void *opaque)
{
	loop_quit(opaque);
}

/* Runs posted work only: no timer fires while the clock stands. */
static void serve_posted(struct fixture *f)
{
	struct loop_work w = { .fn = quit_work, .opaque = f->t.loop };

	loop_post(f->t.loop, &w);
	mutex_unlock(&f->t.lock);
	loop_run(f->t.loop);
	mutex_lock(&f->t.lock);
}

static void test_transmit(void **state)
{
	struct fixture *f = *state;
	uint8_t frame[60000];

	td_start(&f->t, F_CSUM | F_HOST_TSO4, 16);
	for (unsigned i = 0; i < sizeof(frame); i++)
		frame[i] = (uint8_t)(i * 3);
	transmit(f, (struct hdr){ 0 }, frame, 100);
	assert_int_equal(f->net->sent, 1);
	assert_int_equal(f->net->flushed, 1);
	assert_int_equal(f->net->len, 100);
	assert_memory_equal(f->net->frame, frame, 100);
	assert_int_equal(td_used_idx(&f->t, TX), 1);
	assert_int_equal(td_used_len(&f->t, TX, 0), 0);
	td_run(&f->t, 5);
	assert_int_equal(f->t.irqs[TX], 1);
	/* A checksum to finish */
	packet_put16(frame + 50, 0x1234); /* the pseudo-header's sum */
	transmit(f, (struct hdr){ .flags = 1, .csum_start = 34, .csum_offset = 16 }, frame, 101);
	assert_int_equal(f->net->sent, 2);
	td_run(&f->t, 5);
	assert_int_equal(f->t.irqs[TX], 2);
	{
		uint16_t want = (uint16_t)~packet_sum(frame + 34, 101 - 34, 0);

		assert_int_equal(packet_get16(f->net->frame + 50), want);
	}
	/* A large segment, as it is */
	transmit(
	    f,
	    (struct hdr){ .flags = 1, .gso_type = 1, .gso_size = 1448, .csum_start = 34, .csum_offset = 16 },
	    frame, sizeof(frame));
	assert_int_equal(f->net->sent, 3);
	assert_int_equal(f->net->len, sizeof(frame));
	/* The same in the guest's own memory, if the backend takes that; not what is short or without offload
	 */
	f->net->take_pieces = true;
	transmit(
	    f,
	    (struct hdr){ .flags = 1, .gso_type = 1, .gso_size = 1448, .csum_start = 34, .csum_offset = 16 },
	    frame, sizeof(frame));
	assert_int_equal(f->net->pieces, 1);
	assert_int_equal(f->net->len, sizeof(frame));
	assert_memory_equal(f->net->frame, frame, sizeof(frame));
	transmit(f, (struct hdr){ .flags = 1, .csum_start = 34, .csum_offset = 16 }, frame, 101);
	transmit(f, (struct hdr){ 0 }, frame, 1000);
	assert_int_equal(f->net->pieces, 1);
	assert_int_equal(f->net->sent, 5);
	f->net->take_pieces = false;
	f->net->sent = 3;
	/* Lost, but given back: too short, checksum outside, unknown kinds of offload, cable pulled */
	transmit(f, (struct hdr){ 0 }, frame, 13);
	transmit(f, (struct hdr){ .flags = 1, .csum_start = 100, .csum_offset = 16 }, frame, 101);
	transmit(f, (struct hdr){ .flags = 1, .csum_start = 0xffff, .csum_offset = 0xffff }, frame, 101);
	transmit(f, (struct hdr){ .gso_type = 3 }, frame, 100);
	transmit(f, (struct hdr){ .gso_type = 4 }, frame, 100);
	virtio_net_set_link(f->t.v, false);
	transmit(f, (struct hdr){ 0 }, frame, 100);
	assert_int_equal(f->net->sent, 3);
	assert_int_equal(td_used_idx(&f->t, TX), 12);
	assert_false(td_is_broken(&f->t));
	/* Longer than any frame */
	virtio_net_set_link(f->t.v, true);
	td_desc(&f->t, TX, 0, TD_DATA, 70000, 0, 0);
	td_kick(&f->t, TX, 0);
	td_run(&f->t, 0);
	assert_int_equal(f->net->sent, 3);
	/* Not even a header */
	td_desc(&f->t, TX, 0, TD_DATA, 3, 0, 0);
	td_kick(&f->t, TX, 0);
	td_run(&f->t, 0);
	assert_int_equal(f->net->sent, 3);
	assert_int_equal(td_used_idx(&f->t, TX), 14);
	/* Without TSO negotiated */
	td_start(&f->t, F_CSUM, 16);
	transmit(f, (struct hdr){ .gso_type = 1 }, frame, 100);
	assert_int_equal(f->net->sent, 3);
	/* A quarter of the ring: at once */
	td_start(&f->t, 0, 16);
	f->t.irqs[TX] = 0;
	td_put(&f->t, TD_DATA, &(struct hdr){ 0 }, 12);
	td_desc(&f->t, TX, 0, TD_DATA, 12 + 60, 0, 0);
	for (unsigned i = 0; i < 4; i++)
		td_offer(&f->t, TX, 0);
	clock_stop(&f->t.clock);
	virtio_notify(f->t.v, TX);
	serve_posted(f);
	assert_int_equal(td_used_idx(&f->t, TX), 4);
	assert_int_equal(f->t.irqs[TX], 1);
	/* A reset forgets the rest. */
	clock_start(&f->t.clock);
	transmit(f, (struct hdr){ 0 }, frame, 100);
	virtio_set_status(f->t.v, 0);
	td_run(&f->t, 5);
	assert_int_equal(f->t.irqs[TX], 1);
}

static void rx_buffer(struct fixture *f, unsigned i, uint32_t len)
{
	td_desc(&f->t, RX, i, TD_DATA + i * 0x10000, len, TD_WRITE, 0);
	td_offer(&f->t, RX, (uint16_t)i);
}

static void test_receive(void **state)
{
	struct fixture *f = *state;
	uint8_t frame[1000], got[1012];
	struct hdr h;

	for (unsigned i = 0; i < sizeof(frame); i++)
		frame[i] = (uint8_t)(i * 7);
	memcpy(frame, mac, 6);
	/* Not ready: taken and lost. Ready without buffers: refused. */
	assert_true(deliver(f, frame, sizeof(frame), 0));
	td_start(&f->t, F_GUEST_CSUM, 16);
	assert_false(deliver(f, frame, sizeof(frame), 0));
	f->net->ready = 0;
	rx_buffer(f, 0, 1600);
	virtio_notify(f->t.v, RX);
	assert_int_equal(f->net->ready, 1);
	assert_true(deliver(f, frame, sizeof(frame), 0));
	assert_int_equal(td_used_idx(&f->t, RX), 1);
	assert_int_equal(td_used_len(&f->t, RX, 0), sizeof(frame) + 12);
	assert_int_equal(f->t.irqs[RX], 1);
	td_get(&f->t, TD_DATA, got, sizeof(got));
	memcpy(&h, got, 12);
	assert_int_equal(h.flags, 2); /* DATA_VALID */
	assert_int_equal(h.gso_type, 0);
	assert_int_equal(h.num_buffers, 1);
	assert_memory_equal(got + 12, frame, sizeof(frame));
	/* A buffer that is too small stays; so does everything without MRG_RXBUF that needs two. */
	rx_buffer(f, 1, 500);
	rx_buffer(f, 2, 1600);
	assert_true(deliver(f, frame, sizeof(frame), 0));
	assert_int_equal(td_used_idx(&f->t, RX), 1);
	assert_true(deliver(f, frame, 400, 0));
	assert_int_equal(td_used_idx(&f->t, RX), 2);
	/* A large segment for a driver that does not know them */
	assert_true(deliver(f, frame, sizeof(frame), 1460));
	assert_int_equal(td_used_idx(&f->t, RX), 2);
	/* Rubbish: read-only, or shorter than the header */
	td_desc(&f->t, RX, 3, TD_DATA, 1600, 0, 0);
	td_start(&f->t, 0, 16);
	td_desc(&f->t, RX, 3, TD_DATA, 1600, 0, 0);
	td_offer(&f->t, RX, 3);
	assert_true(deliver(f, frame, 100, 0));
	assert_true(td_is_broken(&f->t));
	td_start(&f->t, 0, 16);
	rx_buffer(f, 3, 11);
	assert_true(deliver(f, frame, 100, 0));
	assert_true(td_is_broken(&f->t));
}

static void test_merge(void **state)
{
	struct fixture *f = *state;
	uint8_t frame[1000], got[1012];
	uint16_t event;
	struct hdr h;
	size_t at = 0;

	for (unsigned i = 0; i < sizeof(frame); i++)
		frame[i] = (uint8_t)(i * 11);
	memcpy(frame, mac, 6);
	td_start(&f->t, F_MRG | VIRTIO_F_EVENT_IDX, 16);
	/* The header itself cut: 11 bytes of it and then one more descriptor in the first chain */
	td_desc(&f->t, RX, 0, TD_DATA, 11, TD_WRITE | TD_NEXT, 1);
	td_desc(&f->t, RX, 1, TD_DATA + 11, 89, TD_WRITE, 0);
	td_offer(&f->t, RX, 0);
	td_desc(&f->t, RX, 2, TD_DATA + 0x20000, 500, TD_WRITE, 0);
	td_offer(&f->t, RX, 2);
	/* Not enough yet: nothing is used up. */
	assert_false(deliver(f, frame, sizeof(frame), 0));
	assert_int_equal(td_used_idx(&f->t, RX), 0);
	/* The driver is to tell of buffers after these two, not after the last one used. */
	td_get(&f->t, td_used(RX) + 4 + 8 * 16, &event, 2);
	assert_int_equal(event, 2);
	rx_buffer(f, 3, 600);
	assert_true(deliver(f, frame, sizeof(frame), 0));
	assert_int_equal(td_used_idx(&f->t, RX), 3);
	assert_int_equal(td_used_id(&f->t, RX, 0), 0);
	assert_int_equal(td_used_id(&f->t, RX, 1), 2);
	assert_int_equal(td_used_id(&f->t, RX, 2), 3);
	for (unsigned i = 0; i < 3; i++) {
		uint32_t len = td_used_len(&f->t, RX, i);

		assert_int_equal(len, i == 0 ? 100 : i == 1 ? 500 : 412);
		td_get(&f->t, TD_DATA + td_used_id(&f->t, RX, i) * 0x10000, got + at, len);
		at += len;
	}
	memcpy(&h, got, 12);
	assert_int_equal(h.num_buffers, 3);
	assert_memory_equal(got + 12, frame, sizeof(frame));
	assert_int_equal(f->t.irqs[RX], 1);
	/* All buffers together are too few bytes and the ring is full: the frame is lost, not retried for
	 * ever. */
	td_start(&f->t, F_MRG, 4);
	for (unsigned i = 0; i < 4; i++)
		rx_buffer(f, i, 20);
	assert_true(deliver(f, frame, sizeof(frame), 0));
	assert_int_equal(td_used_idx(&f->t, RX), 0);
	assert_false(td_is_broken(&f->t));
}

static void test_big_receive(void **state)
{
	struct fixture *f = *state;
	static uint8_t frame[30054], got[30054 + 12];
	size_t len = sizeof(frame), at = 0;
	struct hdr h;

	td_start(&f->t, F_MRG | F_GUEST_CSUM | F_GUEST_TSO4, 64);
	memset(frame, 0x77, len);
	memcpy(frame, mac, 6);
	packet_put16(frame + 12, 0x0800);
	memset(frame + 14, 0, 40);
	frame[14] = 0x45;
	packet_put16(frame + 16, (uint16_t)(len - 14));
	frame[23] = 6;
	memcpy(frame + 26, "\x0a\x00\x02\x02\x0a\x00\x02\x0f", 8);
	frame[46] = 0x50;
	packet_put16(frame + 50, 0xbeef);
	for (unsigned i = 0; i < 40; i++)
		td_desc(&f->t, RX, i, TD_DATA + i * 0x1000, 1526, TD_WRITE, 0),
		    td_offer(&f->t, RX, (uint16_t)i);
	assert_true(deliver(f, frame, len, 1460));
	assert_int_equal(td_used_idx(&f->t, RX), 20);
	for (unsigned i = 0; i < 20; i++) {
		td_get(&f->t, TD_DATA + i * 0x1000, got + at, td_used_len(&f->t, RX, i));
		at += td_used_len(&f->t, RX, i);
	}
	assert_int_equal(at, len + 12);
	memcpy(&h, got, 12);
	assert_int_equal(h.flags, 1);
	assert_int_equal(h.gso_type, 1);
	assert_int_equal(h.gso_size, 1460);
	assert_int_equal(h.hdr_len, 54);
	assert_int_equal(h.csum_start, 34);
	assert_int_equal(h.csum_offset, 16);
	assert_int_equal(h.num_buffers, 20);
	/* The checksum field holds the pseudo-header's sum. */
	assert_int_equal(packet_get16(got + 12 + 50), packet_sum(frame + 26, 8, (uint32_t)(6 + len - 34)));
	packet_put16(got + 12 + 50, 0xbeef);
	assert_memory_equal(got + 12, frame, len);
	/* In two parts, the same */
	{
		struct net_frame_info info = { .gso_size = 1460, .body = frame + 54, .body_len = len - 54 };
		struct net_client *c = &f->net->n.client;

		memset(got, 0, sizeof(got));
		for (unsigned i = 0; i < 20; i++)
			td_put(&f->t, TD_DATA + (20 + i) * 0x1000, got, 1526);
		assert_true(c->receive(c->opaque, frame, 54, &info));
		assert_int_equal(td_used_idx(&f->t, RX), 40);
		at = 0;
		for (unsigned i = 20; i < 40; i++) {
			td_get(&f->t, TD_DATA + i * 0x1000, got + at, td_used_len(&f->t, RX, i));
			at += td_used_len(&f->t, RX, i);
		}
		packet_put16(got + 12 + 50, 0xbeef);
		assert_int_equal(at, len + 12);
		assert_memory_equal(got + 12, frame, len);
	}
}

static uint8_t control(struct fixture *f, const void *cmd, uint32_t len)
{
	uint8_t ack = 0xee;

	td_put(&f->t, TD_DATA, cmd, len);
	td_put(&f->t, TD_DATA + 0x1000, &ack, 1);
	td_desc(&f->t, CTRL, 0, TD_DATA, len, TD_NEXT, 1);
	td_desc(&f->t, CTRL, 1, TD_DATA + 0x1000, 1, TD_WRITE, 0);
	td_kick(&f->t, CTRL, 0);
	td_get(&f->t, TD_DATA + 0x1000, &ack, 1);
	return ack;
}

/* Refused for want of buffers means that the filter let it through. */
static bool passes(struct fixture *f, const uint8_t dst[6])
{
	uint8_t frame[60] = { 0 };

	memcpy(frame, dst, 6);
	return !deliver(f, frame, sizeof(frame), 0);
}

static void test_control(void **state)
{
	struct fixture *f = *state;
	static const uint8_t other[6] = { 2, 2, 2, 2, 2, 2 }, multi[6] = { 1, 0, 0x5e, 0, 0, 1 },
			     all[6] = { 255, 255, 255, 255, 255, 255 }, fresh[6] = { 2, 9, 9, 9, 9, 9 };
	uint8_t table[2 + 4 + 6 + 4 + 6] = { 1, 0, 1 }, huge[2 + 4 + 65 * 6 + 4] = { 1, 0, 65 };

	td_start(&f->t, F_CTRL_VQ | F_CTRL_RX | F_CTRL_MAC, 16);
	assert_true(passes(f, other));
	assert_int_equal(control(f, "\0\0\0", 3), 0); /* not promiscuous */
	assert_false(passes(f, other));
	assert_false(passes(f, multi));
	assert_true(passes(f, all));
	assert_true(passes(f, mac));
	assert_int_equal(control(f, "\0\1\1", 3), 0);
	assert_true(passes(f, multi));
	assert_int_equal(control(f, "\0\1\0", 3), 0);
	memcpy(table + 6, other, 6);
	table[12] = 1;
	memcpy(table + 16, multi, 6);
	assert_int_equal(control(f, table, sizeof(table)), 0);
	assert_true(passes(f, other));
	assert_true(passes(f, multi));
	assert_int_equal(control(f, table, sizeof(table) - 1), 1);
	assert_int_equal(control(f, table, 5), 1);
	assert_true(passes(f, other)); /* as it was */
	assert_int_equal(control(f, "\1\0\xff\xff\xff\xff\0\0\0\0", 10), 1);
	assert_int_equal(control(f, huge, sizeof(huge)), 0); /* more than fit: all unicast */
	assert_true(passes(f, fresh));
	assert_false(passes(f, multi));
	assert_int_equal(control(f, "\1\0\0\0\0\0\0\0\0\0", 10), 0);
	assert_false(passes(f, fresh));
	assert_int_equal(control(f, "\1\1\2\x9\x9\x9\x9\x9", 8), 0);
	assert_true(passes(f, fresh));
	assert_false(passes(f, mac));
	assert_int_equal(virtio_config_read(f->t.v, 0, 4), 0x09090902);
	assert_int_equal(control(f, "\1\1\2\x9\x9", 5), 1);
	assert_int_equal(control(f, "\7\7\7", 3), 1);
	assert_int_equal(control(f, "\0", 1), 1);
	/* A reset takes all of it back. */
	virtio_set_status(f->t.v, 0);
	assert_int_equal(virtio_config_read(f->t.v, 0, 4), 0xaa005452);
	td_start(&f->t, 0, 16);
	assert_true(passes(f, other));
	/* No room for the answer */
	td_desc(&f->t, CTRL, 0, TD_DATA, 3, 0, 0);
	td_kick(&f->t, CTRL, 0);
	assert_true(td_is_broken(&f->t));
}

static void test_save_load(void **state)
{
	struct fixture *f = *state;
	const struct device *d = &f->t.v->dev;
	struct state_buf b = { 0 };
	struct error err;

	td_start(&f->t, F_CTRL_VQ | F_CTRL_RX | F_CTRL_MAC | F_MRG | F_GUEST_CSUM | F_GUEST_TSO4, 16);
	assert_int_equal(control(f, "\1\1\2\x9\x9\x9\x9\x9", 8), 0);
	assert_int_equal(control(f, "\0\0\0", 3), 0);
	virtio_net_set_link(f->t.v, false);
	assert_int_equal(state_save(&b, d->cls->state, 0, d), 0);
	d->cls->reset(&f->t.v->dev);
	virtio_net_set_link(f->t.v, true);
	assert_false(f->net->n.big_rx);
	assert_int_equal(state_load(&b, d->cls->state, 0, f->t.v, &err), 0);
	assert_true(f->net->n.big_rx);
	assert_int_equal(virtio_config_read(f->t.v, 0, 4), 0x09090902);
	assert_int_equal(virtio_config_read(f->t.v, 6, 2), 0);
	virtio_net_set_link(f->t.v, true);
	assert_false(passes(f, mac));
	assert_true(passes(f, (uint8_t[6]){ 2, 9, 9, 9, 9, 9 }));
	state_buf_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_config, setup, teardown),
		cmocka_unit_test_setup_teardown(test_transmit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_receive, setup, teardown),
		cmocka_unit_test_setup_teardown(test_merge, setup, teardown),
		cmocka_unit_test_setup_teardown(test_big_receive, setup, teardown),
		cmocka_unit_test_setup_teardown(test_control, setup, teardown),
		cmocka_unit_test_setup_teardown(test_save_load, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
