/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/pc/parallel.h"
#include "dev/test_board.h"

static struct test_board t;
static struct parallel *port;
static unsigned irqs;
static bool full;
static char printed[64];
static size_t nr_printed;

static void line(void *opaque, unsigned pin, bool level)
{
	(void)opaque;
	(void)pin;
	irqs += level;
}

static size_t paper_write(struct chardev *c, const uint8_t *buf, size_t len)
{
	(void)c;
	if (full)
		return 0;
	memcpy(printed + nr_printed, buf, len);
	nr_printed += len;
	return len;
}

static void paper_ready(struct chardev *c, bool fresh)
{
	(void)c;
	(void)fresh;
}

static const struct chardev_ops paper_ops = { paper_write, paper_ready, NULL };
static struct chardev paper;

static int setup(void **state)
{
	(void)state;
	irqs = 0;
	nr_printed = 0;
	full = false;
	paper = (struct chardev){ .ops = &paper_ops };
	test_board_init(&t);
	assert_int_equal(parallel_new(&t.b, (struct irq_line){ .set = line }, &paper, &port, NULL), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	test_board_fini(&t);
	return 0;
}

static void strobe(char c)
{
	test_out(&t, 0x378, (uint8_t)c, 1);
	test_out(&t, 0x37a, 0x1d, 1);
	test_out(&t, 0x37a, 0x1c, 1);
}

static void prints(void **state)
{
	(void)state;
	assert_int_equal(test_in(&t, 0x379, 1), 0xdf);
	strobe('h');
	strobe('i');
	assert_int_equal(nr_printed, 2);
	assert_memory_equal(printed, "hi", 2);
	assert_int_equal(irqs, 2);
	/* No room: busy until there is. */
	full = true;
	strobe('!');
	assert_int_equal(test_in(&t, 0x379, 1), 0x5f);
	strobe('?'); /* not taken */
	full = false;
	paper.reader.writable(paper.reader.opaque);
	assert_int_equal(test_in(&t, 0x379, 1), 0xdf);
	assert_int_equal(nr_printed, 3);
	assert_int_equal(irqs, 3);
	/* Registers read back; the data lines can be the peripheral's. */
	test_out(&t, 0x378, 0xaa, 1);
	assert_int_equal(test_in(&t, 0x378, 1), 0xaa);
	test_out(&t, 0x37a, 0xec, 1);
	assert_int_equal(test_in(&t, 0x37a, 1), 0xec);
	assert_int_equal(test_in(&t, 0x378, 1), 0xff);
	test_out(&t, 0x379, 0, 1);
}

static void round_trip(void **state)
{
	(void)state;
	full = true;
	strobe('x');
	test_round_trip(&t);
	assert_int_equal(test_in(&t, 0x379, 1), 0x5f);
	full = false;
	paper.reader.writable(paper.reader.opaque);
	assert_int_equal(printed[0], 'x');
	board_reset(&t.b);
	assert_int_equal(test_in(&t, 0x37a, 1), 0xcc);
	assert_int_equal(test_in(&t, 0x378, 1), 0);
}

static void nothing_connected(void **state)
{
	(void)state;
	test_board_fini(&t);
	test_board_init(&t);
	assert_int_equal(parallel_new(&t.b, (struct irq_line){ .set = line }, NULL, &port, NULL), 0);
	assert_int_equal(test_in(&t, 0x379, 1), 0x7f);
	strobe('x');
	assert_int_equal(irqs, 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = { T(prints), T(round_trip), T(nothing_connected) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
