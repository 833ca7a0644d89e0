/* SPDX-License-Identifier: Apache-2.0 */
/* The small PC devices: ACPI power management, fw_cfg, pvpanic, reset ports, x87 errors. */
#include <endian.h>
#include <errno.h>

#include "dev/pc/acpi_pm.h"
#include "dev/pc/ferr.h"
#include "dev/pc/fwcfg.h"
#include "dev/pc/pvpanic.h"
#include "dev/pc/sysctl.h"
#include "dev/test_board.h"

static struct test_board t;
static struct acpi_pm *pm;
static struct fwcfg *fw;
static struct ferr *ferr;
static bool sci, irq13;

static void line(void *opaque, unsigned pin, bool l)
{
	(void)opaque;
	*(pin == 13 ? &irq13 : &sci) = l;
}

static int setup(void **state)
{
	struct pvpanic *pv;
	struct sysctl *sc;

	(void)state;
	sci = irq13 = false;
	test_board_init(&t);
	assert_int_equal(acpi_pm_new(&t.b, (struct irq_line){ .set = line }, &pm, NULL), 0);
	assert_int_equal(ferr_new(&t.b, (struct irq_line){ .set = line, .pin = 13 }, &ferr, NULL), 0);
	assert_int_equal(fwcfg_new(&t.b, &fw, NULL), 0);
	assert_int_equal(pvpanic_new(&t.b, &pv, NULL), 0);
	assert_int_equal(sysctl_new(&t.b, false, &sc, NULL), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	test_board_fini(&t);
	return 0;
}

static void pm_timer(void **state)
{
	(void)state;
	uint32_t a = test_in(&t, 0x608, 4);
	test_advance(&t, 1000000000);
	uint32_t b = test_in(&t, 0x608, 4);
	assert_in_range((b - a) & 0xffffff, 3579544, 3579546);
	test_advance(&t, 10000000000);
	assert_int_equal(test_in(&t, 0x608, 4) >> 24, 0);
	assert_int_equal(test_in(&t, 0x609, 1), test_in(&t, 0x608, 4) >> 8 & 0xff);
	assert_int_equal(test_in(&t, 0x600, 2) & 1, 1); /* the top bit changed */
	test_out(&t, 0x600, 1, 2);
	assert_int_equal(test_in(&t, 0x600, 2) & 1, 0);
	test_out(&t, 0x602, 1, 2);
	assert_false(sci);
	test_run(&t, 2400000000);
	assert_true(sci);
	test_out(&t, 0x600, 1, 2);
	assert_false(sci);
}

static void power_button(void **state)
{
	(void)state;
	acpi_pm_power_button(pm);
	assert_false(sci);
	assert_int_equal(test_in(&t, 0x601, 1), 1);
	test_out(&t, 0x602, 0xffff, 2);
	assert_int_equal(test_in(&t, 0x602, 2), 0x0721);
	assert_true(sci);
	test_out(&t, 0x600, 0x100, 2);
	assert_false(sci);
	acpi_pm_gpe(pm, 3);
	acpi_pm_gpe(pm, 99);
	test_out(&t, 0x622, 8, 2);
	assert_true(sci);
	assert_int_equal(test_in(&t, 0x620, 4), 0x00080008);
	test_out(&t, 0x620, 8, 1);
	assert_false(sci);
	board_reset(&t.b);
	assert_int_equal(test_in(&t, 0x602, 2), 0);
}

static void sleep_and_reset(void **state)
{
	(void)state;
	assert_int_equal(test_in(&t, 0x604, 2) & 1, 1);
	test_out(&t, 0x604, 0x2401, 2); /* SLP_TYP 1: nothing */
	assert_int_equal(t.poweroffs, 0);
	test_out(&t, 0x604, 0x2001, 2);
	assert_int_equal(t.poweroffs, 1);
	assert_int_equal(test_in(&t, 0x604, 2) & 0x2000, 0);
	test_out(&t, 0x605, 0x20, 1);
	assert_int_equal(t.poweroffs, 2);
	test_out(&t, 0xb2, 0xa0, 1);
	assert_int_equal(test_in(&t, 0xb2, 1), 0xa0);
	assert_int_equal(test_in(&t, 0x64, 1), 0xff);
	test_out(&t, 0x64, 0xd1, 1);
	assert_int_equal(t.inits, 0);
	test_out(&t, 0x64, 0xfe, 1);
	assert_int_equal(t.inits, 1);
	test_out(&t, 0x92, 0x03, 1);
	test_out(&t, 0x92, 0x03, 1); /* only the rise counts */
	assert_int_equal(t.inits, 2);
	t.b.soft_reset = true;
	board_reset(&t.b);
	assert_int_equal(test_in(&t, 0x92, 1), 3);
	t.b.soft_reset = false;
	board_reset(&t.b);
	assert_int_equal(test_in(&t, 0x92, 1), 2);
	assert_int_equal(t.resets, 0);
	assert_int_equal(test_in(&t, 0x505, 1), 3);
	test_out(&t, 0x505, 2, 1);
	assert_int_equal(t.panics, 0);
	test_out(&t, 0x505, 1, 1);
	assert_int_equal(t.panics, 1);
	test_out(&t, 0x80, 0x55, 1);
	assert_int_equal(test_in(&t, 0x80, 1), 0xff);
	assert_int_equal(test_in(&t, 0xe9, 1), 0xff);
}

static void read_port(uint16_t selector, void *buf, size_t len)
{
	test_out(&t, 0x510, selector, 2);
	for (size_t i = 0; i < len; i++)
		((uint8_t *)buf)[i] = test_in(&t, 0x511, 1);
}

static void coprocessor_errors(void **state)
{
	(void)state;
	test_out(&t, 0xf0, 0, 1);
	assert_false(ferr_set(ferr, true)); /* not ignored by what was written before */
	assert_true(irq13);
	test_out(&t, 0xf0, 0, 1);
	assert_false(irq13);
	assert_true(ferr_set(ferr, true)); /* the same error: ignored, and no interrupt */
	assert_false(irq13);
	test_round_trip(&t);
	assert_true(ferr_set(ferr, true));
	assert_false(ferr_set(ferr, false));
	assert_false(ferr_set(ferr, true));
	assert_true(irq13);
	ferr_set(ferr, false);
	assert_true(irq13); /* until the write */
	test_out(&t, 0xf1, 0, 1);
	assert_false(irq13);
	ferr_set(ferr, true);
	test_out(&t, 0xf0, 0, 1);
	board_reset(&t.b);
	assert_false(ferr_set(ferr, true));
	assert_int_equal(test_in(&t, 0xf0, 2), 0xffff);
}

static void fwcfg_by_port(void **state)
{
	char buf[8];
	uint8_t entry[4 + 2 * 64];
	uint32_t n;
	struct error err;

	(void)state;
	read_port(0, buf, 6);
	assert_memory_equal(buf, "QEMU\0\0", 6);
	read_port(1, buf, 4);
	assert_memory_equal(buf, "\3\0\0\0", 4);
	assert_int_equal(fwcfg_add_item(fw, FWCFG_NB_CPUS, "\2", 2, NULL), 0);
	assert_int_equal(fwcfg_add_item(fw, FWCFG_NB_CPUS, "\2", 2, &err), -EEXIST);
	assert_int_equal(fwcfg_add_item(fw, 0x20, "\2", 2, &err), -EINVAL);
	assert_int_equal(fwcfg_add_file(fw, "etc/one", "1", 1, NULL), 0);
	assert_int_equal(fwcfg_add_file(fw, "etc/empty", NULL, 0, NULL), 0);
	assert_int_equal(fwcfg_add_file(fw, "etc/one", "2", 1, &err), -EEXIST);
	assert_int_equal(fwcfg_add_file(fw, "", "2", 1, &err), -EINVAL);
	assert_int_equal(
	    fwcfg_add_file(fw, "a-name-of-fifty-six-characters-is-one-too-many-for-this-", "2", 1, &err),
	    -EINVAL);
	read_port(0x19, entry, sizeof(entry));
	memcpy(&n, entry, 4);
	assert_int_equal(be32toh(n), 2);
	memcpy(&n, entry + 4, 4);
	assert_int_equal(be32toh(n), 1);
	assert_int_equal(entry[8] << 8 | entry[9], 0x20);
	assert_string_equal((char *)entry + 12, "etc/one");
	assert_string_equal((char *)entry + 64 + 12, "etc/empty");
	read_port(0x20, buf, 2);
	assert_memory_equal(buf, "1\0", 2);
	read_port(0x7777, buf, 2); /* no such item */
	assert_memory_equal(buf, "\0\0", 2);
}

struct dma {
	uint32_t control, length;
	uint64_t address;
};

/* Runs a command and returns what is left in its control field. */
static uint32_t run_dma(uint32_t control, uint32_t length, uint64_t address)
{
	struct dma d = { htobe32(control), htobe32(length), htobe64(address) };

	assert_int_equal(mem_write(t.b.mem, GPA(0x1000), &d, sizeof(d)), 0);
	test_out(&t, 0x514, 0, 4);
	test_out(&t, 0x518, htobe32(0x1000), 4);
	assert_int_equal(mem_read(t.b.mem, GPA(0x1000), &d, sizeof(d)), 0);
	return be32toh(d.control);
}

static void fwcfg_by_dma(void **state)
{
	char buf[16];

	(void)state;
	assert_int_equal(test_in(&t, 0x514, 4), htobe32(0x51454d55));
	assert_int_equal(test_in(&t, 0x518, 4), htobe32(0x20434647));
	fwcfg_add_file(fw, "f", "abcdefgh", 8, NULL);
	assert_int_equal(run_dma(0x20 << 16 | 8 | 2, 4, 0x2000), 0);
	assert_int_equal(run_dma(4, 2, 0), 0); /* skip */
	assert_int_equal(run_dma(2, 6, 0x2004), 0);
	mem_read(t.b.mem, GPA(0x2000), buf, 10);
	assert_memory_equal(buf, "abcdgh\0\0\0\0", 10);
	assert_int_equal(run_dma(2, 16, TEST_RAM - 8), 1); /* not all RAM */
	assert_int_equal(run_dma(2, 16, UINT64_MAX - 4), 1);
	assert_int_equal(run_dma(16, 4, 0x2000), 1); /* writes are refused */
	run_dma(4, UINT32_MAX, 0);
	run_dma(4, UINT32_MAX, 0);
	assert_int_equal(run_dma(2, 4, 0x2000), 0);
	/* Up to the end of RAM, and not a byte further. */
	assert_int_equal(run_dma(2, UINT32_MAX, 0x2000), 1);
	/* A command that lies outside RAM is not there. */
	test_out(&t, 0x514, 0xffffffff, 4);
	test_out(&t, 0x518, 0xffffffff, 4);
}

static void hostile_writes_and_round_trip(void **state)
{
	uint32_t x = 11;

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		static const uint16_t bases[] = { 0x600, 0x508, 0x510, 0xb2, 0x92, 0x620 };
		uint16_t port = bases[(x >> 20) % 6] + (x >> 8 & 15);

		x = x * 1664525 + 1013904223;
		test_out(&t, port, x * 77, 1u << (x >> 16 & 3) & 7 ?: 1);
		test_in(&t, port, 1u << (x >> 18 & 3) & 7 ?: 1);
		if (!(x & 0xf0))
			test_advance(&t, x);
	}
	test_round_trip(&t);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(pm_timer),
		T(power_button),
		T(sleep_and_reset),
		T(coprocessor_errors),
		T(fwcfg_by_port),
		T(fwcfg_by_dma),
		T(hostile_writes_and_round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
