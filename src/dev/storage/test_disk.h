/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of disk controllers: a board with a PCI bus, and disks whose sector n holds its number. */
#ifndef SILL_DEV_STORAGE_TEST_DISK_H
#define SILL_DEV_STORAGE_TEST_DISK_H

#include "block/block.h"
#include "dev/pci/pci.h"
#include "dev/test_board.h"

#define TEST_SECTORS 4096u
#define TEST_DISKS   4

struct test_storage {
	struct test_board t;
	struct pci_bus *bus;
	struct block *block[TEST_DISKS];
	unsigned nr_blocks;
};

static inline void ts_init(struct test_storage *s)
{
	memset(s, 0, sizeof(*s));
	test_board_init(&s->t);
	assert_int_equal(pci_bus_new(&s->t.b, s->t.router, &s->bus, NULL), 0);
}

static inline struct block *ts_disk_of(struct test_storage *s, bool readonly, uint32_t sectors)
{
	char path[] = "/tmp/sill-disk-XXXXXX";
	int fd = mkstemp(path);
	uint32_t sector[128];

	assert_true(fd >= 0);
	for (uint32_t i = 0; i < sectors; i++) {
		for (unsigned k = 0; k < ARRAY_SIZE(sector); k++)
			sector[k] = i;
		assert_int_equal(write(fd, sector, sizeof(sector)), sizeof(sector));
	}
	close(fd);
	struct block **b = &s->block[s->nr_blocks++];
	assert_int_equal(block_open(s->t.b.loop, path, readonly, BLOCK_FORMAT_RAW, b, NULL), 0);
	unlink(path);
	return *b;
}

static inline struct block *ts_disk(struct test_storage *s, bool readonly)
{
	return ts_disk_of(s, readonly, TEST_SECTORS);
}

/* Gives every function its addresses, and leave to use the bus. */
static inline void ts_start(struct test_storage *s)
{
	board_reset(&s->t.b);
	assert_int_equal(pci_assign_resources(s->bus, NULL), 0);
	for (unsigned slot = 3; slot < 8; slot++)
		pci_bus_config_write(s->bus, PCI_DEVFN(slot, 0), PCI_COMMAND, 7, 2);
}

/* Everything that is in flight ends. */
static inline void ts_settle(struct test_storage *s)
{
	mutex_lock(&s->t.io);
	for (unsigned i = 0; i < s->nr_blocks; i++)
		block_drain(s->block[i]);
	mutex_unlock(&s->t.io);
}

static inline void ts_fini(struct test_storage *s)
{
	ts_settle(s);
	mutex_lock(&s->t.io);
	board_free_devices(&s->t.b);
	for (unsigned i = 0; i < s->nr_blocks; i++)
		block_close(s->block[i]);
	mutex_unlock(&s->t.io);
	test_board_fini(&s->t);
}

static inline uint32_t ts_get(struct test_storage *s, uint64_t gpa)
{
	uint32_t v;

	assert_int_equal(mem_read(s->t.b.mem, GPA(gpa), &v, 4), 0);
	return v;
}

static inline void ts_put(struct test_storage *s, uint64_t gpa, uint32_t v)
{
	assert_int_equal(mem_write(s->t.b.mem, GPA(gpa), &v, 4), 0);
}

static inline uint8_t *ts_ram(struct test_storage *s, uint64_t gpa, uint64_t len)
{
	uint8_t *p = mem_ram_ptr(s->t.b.mem, GPA(gpa), len);

	assert_non_null(p);
	return p;
}

#endif
