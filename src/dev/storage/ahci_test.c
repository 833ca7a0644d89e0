/* SPDX-License-Identifier: Apache-2.0 */
/* A driver for the controller in a few lines: port 0 a disk, 1 a read-only disk, 2 a CD drive, 3 nothing. */
#include "dev/storage/ahci.h"
#include "dev/storage/test_disk.h"

#define LIST(p)     (0x10000u + (p)*0x10000u) /* command list, then FIS area, then a table for each slot */
#define FIS(p)      (LIST(p) + 0x400)
#define TABLE(p, s) (LIST(p) + 0x800 + (s)*0x100)
#define BUF         0x100000u

enum { CLB = 0x00, FB = 0x08, IS = 0x10, IE = 0x14, CMD = 0x18, TFD = 0x20, SIG = 0x24, SSTS = 0x28 };
enum { SCTL = 0x2c, SERR = 0x30, SACT = 0x34, CI = 0x38 };

static struct test_storage s;
static struct ahci *ahci;
static struct ata_drive *cd;
static uint64_t base;

static uint32_t rd(unsigned reg)
{
	return (uint32_t)mem_mmio_read(s.t.b.mem, GPA(base + reg), 4);
}

static void wr(unsigned reg, uint32_t v)
{
	mem_mmio_write(s.t.b.mem, GPA(base + reg), v, 4);
}

static unsigned port(unsigned p, unsigned reg)
{
	return 0x100 + 0x80 * p + reg;
}

static void start_port(unsigned p)
{
	wr(port(p, CLB), LIST(p));
	wr(port(p, FB), FIS(p));
	wr(port(p, IE), 0xffffffff);
	wr(port(p, CMD), 0x10);
	wr(port(p, CMD), 0x11);
}

static int setup(void **state)
{
	(void)state;
	ts_init(&s);
	assert_int_equal(ahci_new(&s.t.b, s.bus, &ahci, NULL), 0);
	ahci_add_disk(ahci, 0, ts_disk(&s, false), "disk0");
	ahci_add_disk(ahci, 1, ts_disk(&s, true), "disk1");
	cd = ahci_add_cd(ahci, 2, ts_disk(&s, true), "cd0");
	ts_start(&s);
	assert_true(pci_bar_mapped(ahci_pci(ahci), 5, &base));
	wr(0x04, 0x80000002);
	for (unsigned p = 0; p < 3; p++)
		start_port(p);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	ts_fini(&s);
	return 0;
}

/* A command with one region of len bytes (0: none) at buf. */
static void build(unsigned p, unsigned slot, uint8_t command, uint64_t lba, uint16_t count, uint32_t buf,
		  uint32_t len, bool write)
{
	uint64_t t = TABLE(p, slot);
	bool queued = command == 0x60 || command == 0x61;
	uint8_t fis[20] = { 0x27, 0x80, command };

	fis[4] = (uint8_t)lba;
	fis[5] = (uint8_t)(lba >> 8);
	fis[6] = (uint8_t)(lba >> 16);
	fis[7] = 0x40;
	fis[8] = (uint8_t)(lba >> 24);
	fis[9] = (uint8_t)(lba >> 32);
	fis[10] = (uint8_t)(lba >> 40);
	fis[queued ? 3 : 12] = (uint8_t)count;
	fis[queued ? 11 : 13] = (uint8_t)(count >> 8);
	if (queued)
		fis[12] = (uint8_t)(slot << 3);
	memcpy(ts_ram(&s, t, 20), fis, 20);
	ts_put(&s, t + 0x80, buf);
	ts_put(&s, t + 0x84, 0);
	ts_put(&s, t + 0x8c, len - 1);
	ts_put(&s, LIST(p) + slot * 32, 5 | (write ? 0x40 : 0) | (len ? 1u << 16 : 0));
	ts_put(&s, LIST(p) + slot * 32 + 4, 0);
	ts_put(&s, LIST(p) + slot * 32 + 8, (uint32_t)t);
	ts_put(&s, LIST(p) + slot * 32 + 12, 0);
}

static void issue(unsigned p, unsigned slot)
{
	wr(port(p, CI), 1u << slot);
	ts_settle(&s);
}

static void run(unsigned p, uint8_t command, uint64_t lba, uint16_t count, uint32_t len, bool write)
{
	build(p, 0, command, lba, count, BUF, len, write);
	issue(p, 0);
}

static void finds_drives(void **state)
{
	(void)state;
	assert_int_equal(pci_bus_config_read(s.bus, PCI_DEVFN(3, 0), PCI_REVISION_ID, 4) >> 8, 0x010601);
	assert_int_equal(rd(0x0c), 0x3f);
	assert_int_equal(rd(port(0, SSTS)), 0x133);
	assert_int_equal(rd(port(0, SIG)), 0x101);
	assert_int_equal(rd(port(2, SIG)), 0xeb140101);
	assert_int_equal(rd(port(3, SSTS)), 0);
	assert_int_equal(rd(port(0, TFD)) & 0x89, 0);
	assert_int_equal(ts_ram(&s, FIS(0) + 0x40, 1)[0], 0x34); /* the signature was sent */
	/* Link reset: down, then up with something to be told of. */
	wr(port(0, SCTL), 0x301);
	assert_int_equal(rd(port(0, SSTS)), 0);
	wr(port(0, SCTL), 0x300);
	assert_int_equal(rd(port(0, SSTS)), 0x133);
	assert_true(rd(port(0, SERR)) & 0x04000000);
	assert_true(rd(port(0, IS)) & 0x40);
	wr(port(0, SERR), 0xffffffff);
	assert_false(rd(port(0, IS)) & 0x40);
}

static void identify(void **state)
{
	uint8_t *p = ts_ram(&s, BUF, 512);

	(void)state;
	run(0, 0xec, 0, 0, 512, false);
	assert_int_equal(rd(port(0, CI)), 0);
	assert_int_equal(rd(port(0, TFD)), 0x50);
	assert_int_equal(p[2 * 75], 31);
	assert_int_equal(p[2 * 100] | p[2 * 100 + 1] << 8, TEST_SECTORS);
	assert_int_equal(ts_get(&s, LIST(0) + 4), 512); /* bytes moved */
	assert_int_equal(ts_ram(&s, FIS(0) + 0x20, 1)[0], 0x5f);
	/* A CD drive says by its signature that it is one. */
	run(2, 0xec, 0, 0, 512, false);
	assert_int_equal(rd(port(2, TFD)), 0x0451);
	assert_int_equal(rd(port(2, IS)) & 0x40000000, 0x40000000);
}

static void reads_and_writes(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		static const uint8_t reads[] = { 0x25, 0x24 };

		run(0, reads[i], 5, 300, 300 * 512, false);
		assert_int_equal(ts_get(&s, BUF), 5);
		assert_int_equal(ts_get(&s, BUF + 299 * 512), 304);
		assert_int_equal(rd(port(0, TFD)), 0x50);
		assert_int_equal(rd(port(0, CI)), 0);
	}
	for (unsigned i = 0; i < 2; i++) {
		static const uint8_t writes[] = { 0x35, 0x34 };

		memset(ts_ram(&s, BUF, 300 * 512), 0x55 + (int)i, 300 * 512);
		run(0, writes[i], 1000, 300, 300 * 512, true);
		assert_int_equal(rd(port(0, TFD)), 0x50);
		run(0, 0x25, 1299, 2, 1024, false);
		assert_int_equal(ts_get(&s, BUF), 0x55555555u + i * 0x01010101u);
		assert_int_equal(ts_get(&s, BUF + 512), 1300);
	}
	run(0, 0xea, 0, 0, 0, false);
	assert_int_equal(rd(port(0, TFD)), 0x50);
}

static void queued(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 32; i++)
		build(0, i, 0x60, i * 8, 8, BUF + i * 4096, 4096, false);
	wr(port(0, SACT), 0xffffffff);
	wr(port(0, CI), 0xffffffff);
	ts_settle(&s);
	assert_int_equal(rd(port(0, CI)), 0);
	assert_int_equal(rd(port(0, SACT)), 0);
	assert_int_equal(rd(port(0, IS)) & 8, 8);
	assert_int_equal(ts_ram(&s, FIS(0) + 0x58, 1)[0], 0xa1);
	for (unsigned i = 0; i < 32; i++)
		assert_int_equal(ts_get(&s, BUF + i * 4096 + 512), i * 8 + 1);
	/* Write with FUA, several regions. */
	build(0, 3, 0x61, 2000, 2, BUF + 512, 512, true);
	ts_ram(&s, TABLE(0, 3), 8)[7] |= 0x80;
	memcpy(ts_ram(&s, TABLE(0, 3) + 0x90, 16), ts_ram(&s, TABLE(0, 3) + 0x80, 16), 16);
	ts_put(&s, TABLE(0, 3) + 0x90, BUF);
	ts_put(&s, LIST(0) + 3 * 32, 5 | 0x40 | 2u << 16);
	wr(port(0, SACT), 8);
	issue(0, 3);
	assert_int_equal(rd(port(0, SACT)), 0);
	run(0, 0x25, 2000, 2, 1024, false);
	assert_int_equal(ts_get(&s, BUF), 1);
	assert_int_equal(ts_get(&s, BUF + 512), 0);
}

static void errors(void **state)
{
	(void)state;
	run(0, 0x25, TEST_SECTORS - 1, 2, 1024, false);
	assert_int_equal(rd(port(0, TFD)), 0x1051); /* ID not found */
	assert_int_equal(rd(port(0, CI)), 1);       /* it stays issued until ST is cleared */
	assert_true(rd(port(0, IS)) & 0x40000000);
	wr(port(0, CI), 2);
	assert_int_equal(rd(port(0, CI)), 3);
	wr(port(0, CMD), 0x10);
	assert_int_equal(rd(port(0, CI)), 0);
	assert_int_equal(rd(port(0, CMD)) & 0x8000, 0);
	wr(port(0, CMD), 0x11);
	run(0, 0x25, 0, 1, 512, false);
	assert_int_equal(rd(port(0, TFD)), 0x50);
	/* Read-only: writes of both kinds. */
	run(1, 0x35, 0, 1, 512, true);
	assert_int_equal(rd(port(1, TFD)), 0x0451);
	start_port(1);
	wr(port(1, CMD), 0x10);
	start_port(1);
	build(1, 0, 0x61, 0, 1, BUF, 512, true);
	wr(port(1, SACT), 1);
	issue(1, 0);
	assert_int_equal(rd(port(1, TFD)), 0x0451);
	assert_int_equal(rd(port(1, SACT)), 1);
	/* What failed is in the log. */
	wr(port(1, CMD), 0x10);
	wr(port(1, CMD), 0x11);
	run(1, 0x2f, 0x10, 1, 512, false);
	assert_int_equal(rd(port(1, TFD)), 0x50);
	assert_int_equal(ts_ram(&s, BUF, 1)[0], 0x80);
}

static void packets(void **state)
{
	static const uint8_t read10[12] = { 0x28, 0, 0, 0, 0, 3, 0, 0, 2 }, bad[12] = { 0xee };

	(void)state;
	build(2, 0, 0xa0, 0, 0, BUF, 4096, false);
	ts_ram(&s, TABLE(2, 0), 4)[3] = 1; /* DMA */
	memcpy(ts_ram(&s, TABLE(2, 0) + 0x40, 12), read10, 12);
	cd->cd.changed = false;
	issue(2, 0);
	assert_int_equal(rd(port(2, CI)), 0);
	assert_int_equal(ts_get(&s, BUF), 12); /* CD sector 3 is sector 12 of 512 bytes */
	assert_int_equal(ts_get(&s, BUF + 4095 - 3), 19);
	/* By programmed I/O, in pieces. */
	memset(ts_ram(&s, BUF, 4096), 0, 4096);
	ts_ram(&s, TABLE(2, 0), 4)[3] = 0;
	ts_put(&s, TABLE(2, 0) + 4, 0x00080000); /* limit 2048 */
	ts_ram(&s, TABLE(2, 0), 8)[6] = 8;
	issue(2, 0);
	assert_int_equal(rd(port(2, CI)), 0);
	assert_int_equal(ts_get(&s, BUF + 4095 - 3), 19);
	memcpy(ts_ram(&s, TABLE(2, 0) + 0x40, 12), bad, 12);
	issue(2, 0);
	assert_int_equal(rd(port(2, TFD)) & 0xf001, 0x5001); /* illegal request */
}

static void interrupts(void **state)
{
	(void)state;
	wr(port(0, IS), 0xffffffff);
	wr(port(0, SERR), 0xffffffff);
	wr(0x08, 0xffffffff);
	for (unsigned p = 1; p < 3; p++) {
		wr(port(p, SERR), 0xffffffff);
		wr(port(p, IS), 0xffffffff);
	}
	wr(0x08, 0xffffffff);
	assert_false(ahci_pci(ahci)->intx_level);
	run(0, 0x25, 0, 1, 512, false);
	assert_int_equal(rd(0x08), 1);
	assert_true(ahci_pci(ahci)->intx_level);
	wr(0x08, 1); /* in the wrong order: it is still there */
	assert_int_equal(rd(0x08), 1);
	wr(port(0, IS), 1);
	wr(0x08, 1);
	assert_int_equal(rd(0x08), 0);
	assert_false(ahci_pci(ahci)->intx_level);
	wr(0x04, 1); /* reset */
	assert_int_equal(rd(0x04), 0x80000000);
	assert_int_equal(rd(port(0, CMD)), 6);
	assert_int_equal(rd(port(0, CLB)), 0);
}

static void soft_reset(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		build(0, 0, 0, 0, 0, 0, 0, false);
		ts_ram(&s, TABLE(0, 0), 16)[1] = 0;
		ts_ram(&s, TABLE(0, 0), 16)[15] = i ? 0 : 4;
		issue(0, 0);
		assert_int_equal(rd(port(0, CI)), 0);
		assert_int_equal(rd(port(0, TFD)) & 0x80, i ? 0 : 0x80);
	}
}

/* Lists, tables and regions that are not there. */
static void hostile(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 6; i++) {
		build(0, 0, i & 1 ? 0x60 : 0x25, 0, 16, BUF, 16 * 512, false);
		wr(port(0, SACT), i & 1);
		if (i < 2)
			ts_put(&s, TABLE(0, 0) + 0x84, 0xffff); /* region outside RAM */
		else if (i < 4)
			ts_put(&s, LIST(0) + 12, 0x1234); /* table outside RAM */
		else
			ts_put(&s, LIST(0), 5); /* no regions */
		issue(0, 0);
		assert_int_equal(rd(port(0, SSTS)), 0x133);
		if (i != 4) /* the drive's data goes nowhere */
			assert_true(rd(port(0, IS)) & 0x20000000);
		wr(port(0, IS), 0xffffffff);
		wr(port(0, CMD), 0x10);
		wr(port(0, CMD), 0x11);
	}
	wr(port(0, CMD), 0x10);
	wr(port(0, CLB), 0xfffffc00);
	wr(port(0, FB), 0xffffff00);
	wr(port(0, CMD), 0x11);
	wr(port(0, CI), 0xffffffff);
	wr(port(3, CMD), 0x11);
	wr(port(3, CI), 0xffffffff);
	/* Random registers, with a list that may be anything. */
	uint32_t x = 7;
	for (unsigned i = 0; i < 20000; i++) {
		x = x * 1664525 + 1013904223;
		uint32_t v = x >> 28 ? x & 0x1fffff : x * 2654435761u;

		if ((x >> 8 & 0xff8) == 0 || (x >> 20 & 3) == 0)
			ts_put(&s, v & 0x1ffffc, x);
		mem_mmio_write(s.t.b.mem, GPA(base + (x >> 12 & 0x3ff)), v, 1u << (x >> 22 & 3));
		mem_mmio_read(s.t.b.mem, GPA(base + (x >> 12 & 0xfff)), 1u << (x >> 22 & 3));
	}
	ts_settle(&s);
}

static void round_trip(void **state)
{
	(void)state;
	run(0, 0x25, 0, 1, 512, false);
	run(1, 0x35, 0, 1, 512, true);
	mutex_lock(&s.t.io);
	test_round_trip(&s.t);
	mutex_unlock(&s.t.io);
	assert_int_equal(rd(port(1, TFD)), 0x0451);
	run(0, 0x25, 9, 1, 512, false);
	assert_int_equal(ts_get(&s, BUF), 9);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(finds_drives), T(identify),   T(reads_and_writes), T(queued),  T(errors),
		T(packets),      T(interrupts), T(soft_reset),       T(hostile), T(round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
