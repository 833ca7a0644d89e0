/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/pc/serial.h"
#include "dev/test_board.h"

/* A character device whose other end is the test. */
struct fake {
	struct chardev c;
	uint8_t out[4096];
	size_t len, limit;
	unsigned ready;
};

static struct test_board t;
static struct fake chr;
static unsigned rises;
static bool level;

static void line(void *opaque, unsigned pin, bool l)
{
	(void)opaque;
	(void)pin;
	rises += l && !level;
	level = l;
}

static size_t fake_write(struct chardev *c, const uint8_t *buf, size_t len)
{
	struct fake *f = (struct fake *)c;
	size_t n = min_u64(len, f->limit - f->len);

	memcpy(f->out + f->len, buf, n);
	f->len += n;
	return n;
}

static void fake_ready(struct chardev *c, bool fresh)
{
	((struct fake *)c)->ready++;
	if (fresh && c->reader.connected)
		c->reader.connected(c->reader.opaque, true);
}

static const struct chardev_ops fake_ops = { fake_write, fake_ready, NULL };

static int setup(void **state)
{
	struct serial *s;

	(void)state;
	test_board_init(&t);
	chr = (struct fake){ .c.ops = &fake_ops, .limit = sizeof(chr.out) };
	rises = 0;
	level = false;
	assert_int_equal(serial_new(&t.b, 0x3f8, (struct irq_line){ .set = line }, &chr.c, 0, &s, NULL), 0);
	board_reset(&t.b);
	test_out(&t, 0x3fc, 0x0b, 1);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	test_board_fini(&t);
	return 0;
}

static uint8_t rd(unsigned r)
{
	return test_in(&t, 0x3f8 + r, 1);
}

static void wr(unsigned r, uint8_t v)
{
	test_out(&t, 0x3f8 + r, v, 1);
}

/* Gives the port as much of the text as it has room for. */
static size_t feed(const char *s)
{
	size_t n = min_u64(strlen(s), chr.c.reader.room(chr.c.reader.opaque));

	if (n)
		chr.c.reader.read(chr.c.reader.opaque, (const uint8_t *)s, n);
	return n;
}

static void probe_like_linux(void **state)
{
	(void)state;
	wr(7, 0x5a);
	assert_int_equal(rd(7), 0x5a);
	wr(1, 0xff);
	assert_int_equal(rd(1), 0x0f);
	wr(1, 0);
	wr(4, 0x1a); /* loopback: RTS and OUT2 come back as CTS and DCD */
	assert_int_equal(rd(6) & 0xf0, 0x90);
	wr(4, 0x0b);
	assert_int_equal(rd(6) & 0xf0, 0xb0);
	wr(2, 0x01);
	assert_int_equal(rd(2), 0xc1);
	wr(2, 0x00);
	assert_int_equal(rd(2), 0x01);
	wr(3, 0x83);
	wr(0, 0x01);
	wr(1, 0x00);
	assert_int_equal(rd(0), 1);
	assert_int_equal(rd(1), 0);
	wr(3, 0x03);
	assert_int_equal(rd(5), 0x60);
}

static void sends(void **state)
{
	(void)state;
	wr(0, 'h');
	wr(0, 'i');
	assert_int_equal(chr.len, 2);
	assert_memory_equal(chr.out, "hi", 2);
	assert_int_equal(rd(5), 0x60);
}

static void thre_interrupt(void **state)
{
	(void)state;
	wr(1, 0x02); /* enabling it with THR empty is an event */
	assert_true(level);
	assert_int_equal(rd(2), 0x02);
	assert_false(level); /* reading IIR took it */
	assert_int_equal(rd(2), 0x01);
	rises = 0;
	for (unsigned i = 0; i < 5; i++)
		wr(0, 'x');
	assert_int_equal(rises, 5); /* an edge per byte */
	wr(1, 0);
	assert_false(level);
	wr(1, 2);
	assert_true(level);
	wr(4, 0x00); /* without OUT2 too */
	assert_true(level);
	wr(4, 0x10);
	assert_false(level);
}

static void pushes_back(void **state)
{
	(void)state;
	wr(2, 0x01);
	wr(1, 0x02);
	rd(2);
	chr.limit = 3;
	for (unsigned i = 0; i < 8; i++)
		wr(0, 'a' + i);
	assert_int_equal(chr.len, 3);
	assert_int_equal(rd(5) & 0x60, 0);
	assert_false(level);
	chr.limit = 100;
	chr.c.reader.writable(chr.c.reader.opaque);
	assert_memory_equal(chr.out, "abcdefgh", 8);
	assert_true(level);
	assert_int_equal(rd(2), 0xc2);
	assert_int_equal(rd(5) & 0x60, 0x60);
}

static void receives(void **state)
{
	(void)state;
	wr(1, 0x01);
	assert_int_equal(feed("abc"), 1); /* no FIFO: one at a time */
	assert_true(level);
	assert_int_equal(rd(2), 0x04);
	assert_int_equal(rd(5), 0x61);
	unsigned ready = chr.ready;
	assert_int_equal(rd(0), 'a');
	assert_int_equal(chr.ready, ready + 1);
	assert_false(level);
	assert_int_equal(rd(5), 0x60);
	rd(0); /* nothing there */
}

static void fifo_trigger_and_timeout(void **state)
{
	(void)state;
	wr(3, 0x83);
	wr(0, 1);
	wr(1, 0);
	wr(3, 0x03);
	wr(2, 0x81); /* trigger at 8 */
	wr(1, 0x01);
	assert_int_equal(feed("1234567"), 7);
	assert_false(level);
	assert_int_equal(feed("8"), 1);
	assert_true(level);
	assert_int_equal(rd(2), 0xc4);
	rd(0);
	assert_false(level);
	test_run(&t, 1000000); /* 4 characters at 115200: 350 us */
	assert_true(level);
	assert_int_equal(rd(2), 0xcc);
	rd(0);
	assert_false(level);
	assert_int_equal(feed("0123456789abcdef"), 10); /* 16 in all */
	wr(2, 0x83);                                    /* clear */
	assert_int_equal(rd(5) & 1, 0);
}

static void loopback_and_overrun(void **state)
{
	(void)state;
	wr(4, 0x1b);
	wr(1, 0x05);
	wr(0, 'x');
	assert_int_equal(chr.len, 0);
	assert_int_equal(feed("outside"), 0);
	assert_int_equal(rd(2), 0x04);
	assert_false(level); /* nothing goes outside while looping */
	wr(0, 'y');
	assert_int_equal(rd(2), 0x06);
	assert_int_equal(rd(5) & 0x03, 0x03);
	assert_int_equal(rd(5) & 0x02, 0);
	assert_int_equal(rd(0), 'y');
}

static void modem_interrupt(void **state)
{
	(void)state;
	rd(6);
	wr(1, 0x08);
	chr.c.reader.connected(chr.c.reader.opaque, false);
	assert_true(level);
	assert_int_equal(rd(2), 0x00);
	assert_int_equal(rd(6), 0x0b);
	assert_false(level);
	chr.c.reader.connected(chr.c.reader.opaque, true);
	assert_int_equal(rd(6), 0xbb);
}

static void without_a_device(void **state)
{
	struct serial *s;

	(void)state;
	assert_int_equal(serial_new(&t.b, 0x2f8, (struct irq_line){ 0 }, NULL, 1, &s, NULL), 0);
	test_out(&t, 0x2f8, 'x', 1);
	assert_int_equal(test_in(&t, 0x2fd, 1), 0x60);
	assert_int_equal(test_in(&t, 0x3ef, 1), 0xff); /* no third port */
}

static void hostile_writes_and_round_trip(void **state)
{
	uint32_t x = 9;

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		x = x * 1664525 + 1013904223;
		chr.len = 0;
		chr.limit = x >> 5 & 1;
		test_out(&t, 0x3f8 + (x >> 20 & 7), x >> 8, 1u << (x >> 6 & 3) & 7 ?: 1);
		test_in(&t, 0x3f8 + (x >> 16 & 7), 1);
		if (x & 0x80)
			feed("0123456789");
		if (x & 0x10)
			chr.c.reader.writable(chr.c.reader.opaque);
	}
	chr.limit = 0;
	chr.len = 0;
	test_round_trip(&t);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(probe_like_linux),
		T(sends),
		T(thre_interrupt),
		T(pushes_back),
		T(receives),
		T(fifo_trigger_and_timeout),
		T(loopback_and_overrun),
		T(modem_interrupt),
		T(without_a_device),
		T(hostile_writes_and_round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
