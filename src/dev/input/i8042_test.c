/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/input-event-codes.h>

#include "dev/input/i8042.h"
#include "dev/input/ps2.h"
#include "dev/pc/sysctl.h"
#include "dev/test_board.h"

static struct test_board t;
static struct i8042 *c;
static struct input in;
static unsigned edges[2]; /* of IRQ 1 and 12 */
static bool level[2];

static void line(void *opaque, unsigned pin, bool l)
{
	(void)opaque;
	edges[pin] += l && !level[pin];
	level[pin] = l;
}

static int setup(void **state)
{
	struct sysctl *sysctl;

	(void)state;
	memset(edges, 0, sizeof(edges));
	memset(level, 0, sizeof(level));
	in = (struct input){ 0 };
	test_board_init(&t);
	assert_int_equal(sysctl_new(&t.b, true, &sysctl, NULL), 0);
	assert_int_equal(i8042_new(&t.b, (struct irq_line){ .set = line, .pin = 0 },
				   (struct irq_line){ .set = line, .pin = 1 }, sysctl, &in, &c, NULL),
			 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	test_board_fini(&t);
	return 0;
}

static uint8_t data(void)
{
	assert_true(test_in(&t, 0x64, 1) & 1);
	return (uint8_t)test_in(&t, 0x60, 1);
}

static void expect(const char *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		assert_int_equal(data(), (uint8_t)bytes[i]);
	assert_false(test_in(&t, 0x64, 1) & 1);
}
#define EXPECT(s) expect(s, sizeof(s) - 1)

static enum input_want nobody_else(void *opaque)
{
	(void)opaque;
	return INPUT_SECOND;
}

static void other_key(void *opaque, uint16_t code, bool down)
{
	(void)code;
	*(unsigned *)opaque += down;
}

/* Keys go elsewhere while nobody takes them from here: one that is not fetched, or the cable switched off. */
static void keys_for_whoever_listens(void **state)
{
	unsigned others = 0;
	struct input_sink other = {
		.takes = INPUT_KEYS, .wants = nobody_else, .key = other_key, .opaque = &others
	};

	(void)state;
	input_add(&in, &other);
	input_key(&in, KEY_A, true);
	test_advance(&t, 900000000);
	input_key(&in, KEY_A, false);
	assert_int_equal(others, 0);
	test_advance(&t, 200000000);
	input_key(&in, KEY_B, true);
	assert_int_equal(others, 1);
	EXPECT("\x1e\x9e");
	input_key(&in, KEY_C, true);
	assert_int_equal(others, 1);
	EXPECT("\x2e");
	test_out(&t, 0x64, 0xad, 1);
	input_key(&in, KEY_D, true);
	assert_int_equal(others, 2);
	input_remove(&in, &other);
	input_key(&in, KEY_E, true); /* there is no other: it waits */
	test_out(&t, 0x64, 0xae, 1);
	EXPECT("\x12");
}

static void controller(void **state)
{
	(void)state;
	test_out(&t, 0x64, 0xaa, 1);
	EXPECT("\x55");
	test_out(&t, 0x64, 0xab, 1);
	EXPECT("\x00");
	test_out(&t, 0x64, 0x20, 1);
	EXPECT("\x47"); /* interrupts, system flag, translation */
	test_out(&t, 0x64, 0x60, 1);
	test_out(&t, 0x60, 0x03, 1);
	test_out(&t, 0x64, 0x20, 1);
	EXPECT("\x03");
	test_out(&t, 0x64, 0xd3, 1); /* as if from the mouse */
	test_out(&t, 0x60, 0x5a, 1);
	assert_true(test_in(&t, 0x64, 1) & 0x20);
	EXPECT("\x5a");
	/* A20: bit 1 of the output port; the pulse of bit 0 resets. */
	bool readonly;
	uint8_t *low = mem_cpu_ptr(t.b.mem, GPA(0), 1, &readonly);
	test_out(&t, 0x64, 0xd1, 1);
	test_out(&t, 0x60, 0xdd, 1);
	assert_ptr_equal(mem_cpu_ptr(t.b.mem, GPA(0x100000), 1, &readonly), low);
	assert_int_equal(test_in(&t, 0x92, 1), 0); /* the gate is the same */
	test_out(&t, 0x92, 2, 1);
	assert_ptr_not_equal(mem_cpu_ptr(t.b.mem, GPA(0x100000), 1, &readonly), low);
	test_out(&t, 0x92, 0, 1);
	test_out(&t, 0x64, 0xd0, 1);
	assert_int_equal(data() & 3, 1);
	test_out(&t, 0x64, 0xdf, 1);
	assert_int_equal(test_in(&t, 0x92, 1), 2);
	assert_ptr_not_equal(mem_cpu_ptr(t.b.mem, GPA(0x100000), 1, &readonly), low);
	test_out(&t, 0x64, 0xa4, 1);
	EXPECT("\xf1"); /* no password */
	/* Answers interrupt, unless the keyboard is switched off. */
	edges[0] = 0;
	test_out(&t, 0x64, 0xd0, 1);
	assert_int_equal(edges[0], 1);
	data();
	test_out(&t, 0x64, 0xad, 1);
	test_out(&t, 0x64, 0xd0, 1);
	data();
	test_out(&t, 0x64, 0xae, 1);
	assert_int_equal(edges[0], 1);
	test_out(&t, 0x64, 0xff, 1);
	assert_int_equal(t.inits, 0);
	test_out(&t, 0x64, 0xfe, 1);
	assert_int_equal(t.inits, 1);
}

static void keyboard(void **state)
{
	(void)state;
	test_out(&t, 0x60, 0xff, 1);
	EXPECT("\xfa\xaa");
	test_out(&t, 0x60, 0xf2, 1);
	EXPECT("\xfa\xab\x41"); /* 83, translated */
	test_out(&t, 0x60, 0xee, 1);
	EXPECT("\xee");
	/* Translated to set 1, one interrupt a byte. */
	edges[0] = 0;
	input_key(&in, KEY_A, true);
	input_key(&in, KEY_A, false);
	input_key(&in, KEY_F7, true);
	input_key(&in, KEY_LEFT, true);
	input_key(&in, KEY_LEFT, false);
	input_key(&in, KEY_B, false); /* never went down */
	EXPECT("\x1e\x9e\x41\xe0\x4b\xe0\xcb");
	assert_int_equal(edges[0], 7);
	input_key(&in, KEY_PAUSE, true);
	input_key(&in, KEY_PAUSE, false);
	EXPECT("\xe1\x1d\x45\xe1\x9d\xc5");
	/* With Ctrl it is Break, and Print with Alt is SysRq. */
	input_key(&in, KEY_RIGHTCTRL, true);
	input_key(&in, KEY_PAUSE, true);
	input_key(&in, KEY_PAUSE, false);
	input_key(&in, KEY_RIGHTCTRL, false);
	EXPECT("\xe0\x1d\xe0\x46\xe0\xc6\xe0\x9d");
	input_key(&in, KEY_SYSRQ, true);
	input_key(&in, KEY_SYSRQ, false);
	input_key(&in, KEY_LEFTALT, true);
	input_key(&in, KEY_SYSRQ, true);
	input_key(&in, KEY_SYSRQ, false);
	input_key(&in, KEY_LEFTALT, false);
	EXPECT("\xe0\x37\xe0\xb7\x38\x54\xd4\xb8");
	/* Untranslated set 2, 1 and 3. */
	test_out(&t, 0x64, 0x60, 1);
	test_out(&t, 0x60, 0x01, 1);
	input_key(&in, KEY_A, true);
	input_key(&in, KEY_A, false);
	EXPECT("\x1c\xf0\x1c");
	test_out(&t, 0x60, 0xf0, 1);
	EXPECT("\xfa");
	test_out(&t, 0x60, 0x01, 1);
	EXPECT("\xfa");
	input_key(&in, KEY_RIGHTCTRL, true);
	EXPECT("\xe0\x1d");
	test_out(&t, 0x60, 0xf0, 1);
	test_out(&t, 0x60, 0x00, 1);
	EXPECT("\xfa\xfa\x01");
	/* Disabled, it is silent, and no sink for keys. */
	test_out(&t, 0x60, 0xf5, 1);
	EXPECT("\xfa");
	input_key(&in, KEY_A, true);
	assert_false(test_in(&t, 0x64, 1) & 1);
	test_out(&t, 0x60, 0x77, 1);
	EXPECT("\xfe");
}

static void mouse_command(uint8_t v)
{
	test_out(&t, 0x64, 0xd4, 1);
	test_out(&t, 0x60, v, 1);
}

static void mouse(void **state)
{
	(void)state;
	static const uint8_t knock[] = { 0xf3, 200, 0xf3, 100, 0xf3, 80 };

	mouse_command(0xff);
	EXPECT("\xfa\xaa\x00");
	input_move(&in, 5, 5, 0, 0);
	assert_false(test_in(&t, 0x64, 1) & 1); /* reporting is off */
	mouse_command(0xf4);
	EXPECT("\xfa");
	edges[1] = 0;
	input_move(&in, 5, 3, 0, INPUT_LEFT);
	EXPECT("\x29\x05\xfd"); /* left, y is negative: down */
	assert_int_equal(edges[1], 3);
	for (unsigned i = 0; i < sizeof(knock); i++) {
		mouse_command(knock[i]);
		EXPECT("\xfa");
	}
	mouse_command(0xf2);
	EXPECT("\xfa\x03");
	input_move(&in, 0, 0, 1, INPUT_LEFT);
	EXPECT("\x09\x00\x00\xff");
	/* A long way is several packets; a queue that is full loses nothing but time. */
	int sum = 0;
	for (int i = 0; i < 100; i++)
		input_move(&in, 300, 0, 0, INPUT_LEFT);
	while (test_in(&t, 0x64, 1) & 1) {
		uint8_t p[4] = { data(), data(), data(), data() };
		sum += p[0] & 0x10 ? (int)p[1] - 256 : p[1];
	}
	assert_in_range(sum, 1000, 30000);
	mouse_command(0xe9);
	EXPECT("\xfa\x24\x02\x50");
}

static void hostile(void **state)
{
	(void)state;
	uint32_t x = 12345;
	for (int i = 0; i < 200000; i++) {
		x = x * 1664525 + 1013904223;
		unsigned port = x >> 16 & 1 ? 0x60 : 0x64;
		uint8_t v = (uint8_t)(x >> 24);
		if (x >> 17 & 1)
			test_in(&t, (uint16_t)port, 1);
		else if (!(port == 0x64 && v >= 0xf0))
			test_out(&t, (uint16_t)port, v, 1);
		if (!(x & 0x3f00))
			input_key(&in, (uint16_t)(x >> 20), x >> 19 & 1);
		if (!(x & 0x3e00))
			input_pointer(&in, (int)(x >> 17), (int)(x >> 16 & 0x7fff), 3, x >> 28, 640, 480);
	}
	board_reset(&t.b);
	test_out(&t, 0x64, 0xaa, 1);
	EXPECT("\x55");
}

static void save_and_load(void **state)
{
	(void)state;
	const struct state_table *table = c ? ((struct device *)c)->cls->state : NULL;
	struct state_buf b = { 0 };
	struct error err;

	test_out(&t, 0x64, 0x60, 1);
	test_out(&t, 0x60, 0x45, 1);
	input_key(&in, KEY_Q, true);
	input_key(&in, KEY_W, true);
	assert_int_equal(state_save(&b, table, 0, c), 0);
	board_reset(&t.b);
	assert_int_equal(state_load(&b, table, 0, c, &err), 0);
	EXPECT("\x10\x11");
	test_out(&t, 0x64, 0x20, 1);
	EXPECT("\x45");
	state_buf_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(controller, setup, teardown),
		cmocka_unit_test_setup_teardown(keys_for_whoever_listens, setup, teardown),
		cmocka_unit_test_setup_teardown(keyboard, setup, teardown),
		cmocka_unit_test_setup_teardown(mouse, setup, teardown),
		cmocka_unit_test_setup_teardown(hostile, setup, teardown),
		cmocka_unit_test_setup_teardown(save_and_load, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
