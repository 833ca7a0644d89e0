/* SPDX-License-Identifier: Apache-2.0 */
/* The IDE function: primary master a disk, secondary master a CD drive, secondary slave a read-only disk. */
#include "dev/storage/ide.h"
#include "dev/storage/test_disk.h"

#define BM   0xc000u /* where pci_assign_resources puts the bus-master registers */
#define PRDT 0x10000u
#define BUF  0x20000u

static struct test_storage s;
static struct ide *ide;
static bool irq[2];

static void line(void *opaque, unsigned pin, bool level)
{
	(void)opaque;
	irq[pin] = level;
}

static int setup(void **state)
{
	(void)state;
	ts_init(&s);
	assert_int_equal(ide_new(&s.t.b, s.bus, (struct irq_line){ .set = line, .pin = 0 },
				 (struct irq_line){ .set = line, .pin = 1 }, &ide, NULL),
			 0);
	ide_add_disk(ide, 0, ts_disk(&s, false), "disk0");
	ide_add_cd(ide, 2, ts_disk(&s, true), "cd0");
	ide_add_disk(ide, 3, ts_disk(&s, true), "disk1");
	ts_start(&s);
	pci_bus_config_write(s.bus, PCI_DEVFN(1, 1), PCI_COMMAND, 5, 2);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	ts_fini(&s);
	return 0;
}

static void command(uint16_t base, uint8_t device, uint8_t c, uint32_t lba, uint8_t n)
{
	test_out(&s.t, base + 6, device | 0xe0 | (lba >> 24 & 15), 1);
	test_out(&s.t, base + 2, n, 1);
	for (unsigned i = 0; i < 3; i++)
		test_out(&s.t, (uint16_t)(base + 3 + i), lba >> (8 * i) & 0xff, 1);
	test_out(&s.t, base + 7, c, 1);
	ts_settle(&s);
}

static uint8_t status(uint16_t base)
{
	return (uint8_t)test_in(&s.t, base + 7, 1);
}

static uint32_t pio_sector(uint16_t base)
{
	uint32_t first = test_in(&s.t, base, 4);

	for (unsigned i = 1; i < 128; i++)
		test_in(&s.t, base, 4);
	ts_settle(&s);
	return first;
}

static void identify(void **state)
{
	(void)state;
	command(0x1f0, 0, 0xec, 0, 0);
	assert_true(irq[0]);
	assert_int_equal(status(0x1f0), 0x58);
	assert_false(irq[0]);
	for (unsigned i = 0; i < 100; i++)
		test_in(&s.t, 0x1f0, 2);
	assert_int_equal(test_in(&s.t, 0x1f0, 2), TEST_SECTORS);
	for (unsigned i = 101; i < 256; i++)
		test_in(&s.t, 0x1f0, 2);
	assert_int_equal(status(0x1f0), 0x50);
	/* No slave; a CD drive refuses, and shows what it is. */
	command(0x1f0, 0x10, 0xec, 0, 0);
	assert_int_equal(status(0x1f0), 0);
	command(0x170, 0, 0xec, 0, 0);
	assert_int_equal(status(0x170) & 0x89, 0x01);
	assert_int_equal(test_in(&s.t, 0x174, 1), 0x14);
	assert_int_equal(test_in(&s.t, 0x175, 1), 0xeb);
	command(0x170, 0, 0xa1, 0, 0);
	assert_int_equal(status(0x170) & 8, 8);
}

static void programmed_io(void **state)
{
	(void)state;
	command(0x1f0, 0, 0x20, 77, 3);
	for (uint32_t i = 0; i < 3; i++) {
		assert_true(irq[0]);
		assert_int_equal(status(0x1f0), 0x58);
		assert_int_equal(pio_sector(0x1f0), 77 + i);
	}
	assert_int_equal(status(0x1f0), 0x50);
	command(0x1f0, 0, 0x30, 5, 1);
	assert_int_equal(status(0x1f0), 0x58);
	for (unsigned i = 0; i < 256; i++)
		test_out(&s.t, 0x1f0, 0x1234, 2);
	ts_settle(&s);
	assert_int_equal(status(0x1f0), 0x50);
	command(0x1f0, 0, 0x20, 5, 1);
	assert_int_equal(pio_sector(0x1f0), 0x12341234);
	command(0x1f0, 0, 0x20, TEST_SECTORS - 1, 2);
	assert_int_equal(status(0x1f0), 0x51);
	assert_int_equal(test_in(&s.t, 0x1f1, 1), 0x10);
	command(0x170, 0x10, 0x30, 5, 1); /* protected */
	assert_int_equal(status(0x170), 0x51);
}

/* The first word of a sector by cylinder, head and sector; UINT32_MAX: refused. */
static uint32_t by_chs(unsigned c, unsigned h, unsigned sector)
{
	test_out(&s.t, 0x1f6, 0xa0 | h, 1);
	test_out(&s.t, 0x1f2, 1, 1);
	test_out(&s.t, 0x1f3, sector, 1);
	test_out(&s.t, 0x1f4, c & 0xff, 1);
	test_out(&s.t, 0x1f5, c >> 8, 1);
	test_out(&s.t, 0x1f7, 0x20, 1);
	ts_settle(&s);
	return status(0x1f0) & 1 ? UINT32_MAX : pio_sector(0x1f0);
}

static void geometry(void **state)
{
	(void)state;
	assert_int_equal(by_chs(0, 3, 5), 3 * 63 + 4);
	assert_int_equal(by_chs(0, 3, 0), UINT32_MAX);
	assert_int_equal(by_chs(0, 3, 64), UINT32_MAX);
	/* The host may count otherwise: 4 heads, 17 sectors. */
	test_out(&s.t, 0x1f6, 0xa3, 1);
	test_out(&s.t, 0x1f2, 17, 1);
	test_out(&s.t, 0x1f7, 0x91, 1);
	assert_int_equal(status(0x1f0), 0x50);
	assert_int_equal(by_chs(2, 3, 17), (2 * 4 + 3) * 17 + 16);
	assert_int_equal(by_chs(2, 4, 17), UINT32_MAX);
	command(0x1f0, 0, 0xec, 0, 0);
	for (unsigned i = 0; i < 54; i++)
		test_in(&s.t, 0x1f0, 2);
	assert_int_equal(test_in(&s.t, 0x1f0, 2), TEST_SECTORS / 68);
	assert_int_equal(test_in(&s.t, 0x1f0, 2), 4);
	assert_int_equal(test_in(&s.t, 0x1f0, 2), 17);
	assert_int_equal(test_in(&s.t, 0x1f0, 4), TEST_SECTORS / 68 * 68);
	test_out(&s.t, 0x3f6, 4, 1); /* until a reset */
	test_out(&s.t, 0x3f6, 0, 1);
	assert_int_equal(by_chs(0, 3, 5), 3 * 63 + 4);
	/* A disk too small for a cylinder has two all the same. */
	struct ata_geometry g = ata_geometry(ide_add_disk(ide, 1, ts_disk_of(&s, true, 100), "disk2"));
	assert_int_equal(g.cylinders, 2);
	assert_int_equal(g.heads, 16);
	assert_int_equal(g.sectors, 63);
}

static void dma(uint8_t c, uint32_t lba, uint8_t n, bool to_memory, bool before)
{
	ts_put(&s, PRDT, BUF);
	ts_put(&s, PRDT + 4, 0x200);
	ts_put(&s, PRDT + 8, BUF + 0x200);
	ts_put(&s, PRDT + 12, 0x80000000u | (n * 512u - 0x200));
	test_out(&s.t, BM + 4, PRDT, 4);
	test_out(&s.t, BM + 2, 6, 1);
	test_out(&s.t, BM, to_memory ? 8 : 0, 1);
	if (before)
		test_out(&s.t, BM, to_memory ? 9 : 1, 1);
	command(0x1f0, 0, c, lba, n);
	if (!before)
		test_out(&s.t, BM, to_memory ? 9 : 1, 1);
	ts_settle(&s);
}

static void bus_master(void **state)
{
	(void)state;
	assert_int_equal(pci_bus_config_read(s.bus, PCI_DEVFN(1, 1), 0x20, 2) & ~1u, BM);
	for (unsigned i = 0; i < 2; i++) {
		dma(0xc8, 200, 4, true, i);
		assert_int_equal(ts_get(&s, BUF), 200);
		assert_int_equal(ts_get(&s, BUF + 3 * 512), 203);
		assert_int_equal(test_in(&s.t, BM + 2, 1) & 7, 4);
		assert_int_equal(status(0x1f0), 0x50);
		test_out(&s.t, BM, 0, 1);
	}
	ts_put(&s, BUF, 0xabcdef);
	dma(0xca, 300, 2, false, false);
	test_out(&s.t, BM, 0, 1);
	dma(0xc8, 300, 2, true, false);
	assert_int_equal(ts_get(&s, BUF), 0xabcdef);
	/* A table that ends too early, and one outside memory. */
	test_out(&s.t, BM, 0, 1);
	dma(0xc8, 0, 2, true, false);
	test_out(&s.t, BM, 0, 1);
	ts_put(&s, PRDT + 4, 0x80000200);
	test_out(&s.t, BM, 9, 1);
	command(0x1f0, 0, 0xc8, 0, 2);
	assert_int_equal(test_in(&s.t, BM + 2, 1) & 3, 2);
	assert_int_equal(status(0x1f0) & 1, 1);
	test_out(&s.t, BM, 0, 1);
	test_out(&s.t, BM + 4, 0xfffffffc, 4);
	test_out(&s.t, BM, 9, 1);
	command(0x1f0, 0, 0xc8, 0, 2);
	assert_int_equal(status(0x1f0) & 1, 1);
}

static void packet(const uint8_t *p)
{
	test_out(&s.t, 0x176, 0xa0, 1);
	test_out(&s.t, 0x171, 0, 1);
	test_out(&s.t, 0x174, 0, 1);
	test_out(&s.t, 0x175, 8, 1); /* 2048 bytes at a time */
	test_out(&s.t, 0x177, 0xa0, 1);
	assert_int_equal(status(0x170) & 0x88, 8);
	for (unsigned i = 0; i < 6; i++)
		test_out(&s.t, 0x170, p[2 * i] | p[2 * i + 1] << 8, 2);
	ts_settle(&s);
}

static void packets(void **state)
{
	(void)state;
	packet((const uint8_t[12]){ 0x28, 0, 0, 0, 0, 7, 0, 0, 2 });
	for (uint32_t i = 0; i < 2; i++) {
		assert_true(irq[1]);
		assert_int_equal(status(0x170) & 0x89, 8);
		assert_int_equal(test_in(&s.t, 0x172, 1), 2);
		assert_int_equal(pio_sector(0x170), 28 + 4 * i);
		for (unsigned k = 1; k < 4; k++)
			pio_sector(0x170);
	}
	assert_int_equal(status(0x170) & 0x89, 0);
	assert_int_equal(test_in(&s.t, 0x172, 1), 3);
	packet((const uint8_t[12]){ 0xee });
	assert_int_equal(status(0x170) & 1, 1);
	assert_int_equal(test_in(&s.t, 0x171, 1) >> 4, 5);
}

static void resets(void **state)
{
	(void)state;
	command(0x1f0, 0, 0x20, 0, 4);
	test_out(&s.t, 0x3f6, 4, 1);
	assert_int_equal(status(0x1f0), 0x80);
	test_out(&s.t, 0x3f6, 0, 1);
	assert_int_equal(status(0x1f0), 0x50);
	assert_int_equal(test_in(&s.t, 0x1f2, 1), 1);
	test_out(&s.t, 0x3f6, 2, 1); /* no interrupts */
	command(0x1f0, 0, 0x20, 0, 1);
	assert_false(irq[0]);
	test_out(&s.t, 0x3f6, 0, 1);
	assert_true(irq[0]);
}

static void hostile(void **state)
{
	uint32_t x = 9;

	(void)state;
	for (unsigned i = 0; i < 100000; i++) {
		static const uint16_t ports[] = { 0x1f0, 0x170, 0x3f6, 0x376, BM, BM + 8 };
		static const uint8_t commands[] = { 0x20, 0x30, 0xc8, 0xca, 0xa0, 0xec, 0x25, 0x34,
						    0xc4, 0xc5, 0xc6, 0x08, 0x90, 0xef, 0xe7, 0x10 };

		x = x * 1664525 + 1013904223;
		uint16_t port = (uint16_t)(ports[x >> 29 < 6 ? x >> 29 : 0] + (x >> 4 & 7));
		uint32_t v = (port & 7) == 7 && port < 0x200 ? commands[x >> 8 & 15] : x >> 12;
		if (x >> 3 & 1)
			test_out(&s.t, port, v, 1u << (x >> 16 & 1));
		else
			test_in(&s.t, port, 1u << (x >> 16 & 1));
		if (!(x >> 20 & 0xff))
			ts_settle(&s);
	}
	ts_settle(&s);
}

static void round_trip(void **state)
{
	(void)state;
	command(0x1f0, 0, 0x20, 50, 3);
	assert_int_equal(pio_sector(0x1f0), 50);
	test_in(&s.t, 0x1f0, 4);
	mutex_lock(&s.t.io);
	test_round_trip(&s.t);
	mutex_unlock(&s.t.io);
	for (unsigned i = 1; i < 128; i++)
		assert_int_equal(test_in(&s.t, 0x1f0, 4), 51);
	ts_settle(&s);
	assert_int_equal(pio_sector(0x1f0), 52);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(identify), T(programmed_io), T(geometry), T(bus_master),
		T(packets),  T(resets),        T(hostile),  T(round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
