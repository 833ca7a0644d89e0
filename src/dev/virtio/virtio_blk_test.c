/* SPDX-License-Identifier: Apache-2.0 */
/* The disk end to end: a driver's chains on one side, a file on the other. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "dev/virtio/test_driver.h"
#include "dev/virtio/virtio_blk.h"

#define DISK_SIZE (MIB(8) + 512)
#define SECTORS   (DISK_SIZE / 512)

#define HEADER TD_DATA
#define STATUS (TD_DATA + 0x100)
#define RANGE  (TD_DATA + 0x200)
#define BUF    (TD_DATA + 0x1000)

#define F_SEG_MAX (1ull << 2)
#define F_RO      (1ull << 5)
#define F_FLUSH   (1ull << 9)
#define F_DISCARD (1ull << 13)
#define F_ZEROES  (1ull << 14)

struct fixture {
	struct test_driver t;
	char path[64];
	struct block *block;
	unsigned code_writes; /* pages that the engine was told of */
};

static void attach(struct fixture *f, bool readonly)
{
	struct virtio_device *v;
	struct error err;

	if (block_open(f->t.loop, f->path, readonly, BLOCK_FORMAT_RAW, &f->block, &err))
		fail_msg("%s", err.message);
	assert_int_equal(virtio_blk_new(&f->t.board, f->block, "serial-0123456789abcdef", 2, 0, &v, &err), 0);
	td_attach(&f->t, v);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	int fd;

	td_init(&f->t);
	strcpy(f->path, "/tmp/sill-vblk-XXXXXX");
	fd = mkstemp(f->path);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, DISK_SIZE), 0);
	close(fd);
	attach(f, false);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	/* The device goes before the block it uses. */
	board_free_devices(&f->t.board);
	block_close(f->block);
	unlink(f->path);
	td_fini(&f->t);
	free(f);
	return 0;
}

static void put_header(struct fixture *f, uint64_t at, uint32_t type, uint64_t sector)
{
	struct {
		uint32_t type, reserved;
		uint64_t sector;
	} h = { type, 0, sector };

	td_put(&f->t, at, &h, sizeof(h));
}

/* Offers header + one data buffer (len may be 0) + status as descriptors 3*slot... Returns nothing; kick
 * apart. */
static void offer(struct fixture *f, unsigned slot, uint32_t type, uint64_t sector, uint64_t buf,
		  uint32_t len, bool device_writes)
{
	struct test_driver *t = &f->t;
	uint16_t d = (uint16_t)(slot * 3);
	uint8_t poison = 0xee;

	put_header(f, HEADER + slot * 16, type, sector);
	td_put(t, STATUS + slot, &poison, 1);
	td_desc(t, 0, d, HEADER + slot * 16, 16, TD_NEXT, d + 1);
	td_desc(t, 0, d + 1u, buf, len, TD_NEXT | (device_writes ? TD_WRITE : 0), d + 2);
	td_desc(t, 0, d + 2u, STATUS + slot, 1, TD_WRITE, 0);
	td_offer(t, 0, d);
}

static uint8_t status(struct fixture *f, unsigned slot)
{
	uint8_t s;

	td_get(&f->t, STATUS + slot, &s, 1);
	return s;
}

static uint8_t request(struct fixture *f, uint32_t type, uint64_t sector, uint64_t buf, uint32_t len,
		       bool device_writes)
{
	uint16_t before = td_used_idx(&f->t, 0);

	offer(f, 0, type, sector, buf, len, device_writes);
	virtio_notify(f->t.v, 0);
	block_drain(f->block);
	assert_int_equal((uint16_t)(before + 1), td_used_idx(&f->t, 0));
	return status(f, 0);
}

static void test_config(void **state)
{
	struct fixture *f = *state;
	struct virtio_device *v = f->t.v;

	assert_int_equal(virtio_config_read(v, 0, 4), SECTORS);
	assert_int_equal(virtio_config_read(v, 4, 4), 0);
	assert_int_equal(virtio_config_read(v, 12, 4), 510); /* seg_max */
	assert_int_equal(virtio_config_read(v, 20, 4), 512); /* blk_size */
	assert_int_equal(virtio_config_read(v, 34, 2), 2);   /* num_queues */
	assert_int_equal(virtio_config_read(v, 40, 4), 1);   /* max_discard_seg */
	assert_int_equal(virtio_config_read(v, 56, 1), 1);   /* write_zeroes_may_unmap */
	assert_int_equal(virtio_config_read(v, 60, 4), 0);
	assert_true(v->host_features & F_FLUSH);
	assert_false(v->host_features & F_RO);
}

static void test_read_write(void **state)
{
	struct fixture *f = *state;
	struct test_driver *t = &f->t;
	uint8_t data[8192], back[8192];
	int fd;

	assert_true(td_start(t, F_FLUSH, 64) & VIRTIO_S_DRIVER_OK);
	for (unsigned i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 5 + (i >> 8));
	td_put(t, BUF, data, sizeof(data));
	assert_int_equal(request(f, 1, 3, BUF, sizeof(data), false), 0);
	assert_int_equal(td_used_len(t, 0, 0), 1);
	assert_true(t->irqs[0] >= 1);
	assert_int_equal(request(f, 4, 0, BUF, 0, false), 0);
	fd = open(f->path, O_RDONLY);
	assert_int_equal(pread(fd, back, sizeof(back), 3 * 512), sizeof(back));
	close(fd);
	assert_memory_equal(data, back, sizeof(data));
	memset(back, 0, sizeof(back));
	assert_int_equal(request(f, 0, 3, BUF + 0x10000, sizeof(data), true), 0);
	assert_int_equal(td_used_len(t, 0, 2), sizeof(data) + 1);
	td_get(t, BUF + 0x10000, back, sizeof(back));
	assert_memory_equal(data, back, sizeof(data));

	/* A big one goes through the threads. */
	assert_int_equal(request(f, 0, 0, BUF, 1 << 20, true), 0);
	td_get(t, BUF + 3 * 512, back, sizeof(back));
	assert_memory_equal(data, back, sizeof(data));

	/* The last sector, and past it. */
	assert_int_equal(request(f, 0, SECTORS - 1, BUF, 512, true), 0);
	assert_int_equal(request(f, 0, SECTORS - 1, BUF, 1024, true), 1);
	assert_int_equal(request(f, 0, SECTORS, BUF, 512, true), 1);
	assert_int_equal(request(f, 1, UINT64_MAX, BUF, 512, false), 1);
	assert_int_equal(request(f, 1, UINT64_MAX / 512, BUF, 512, false), 1);
	assert_int_equal(request(f, 0, 0, BUF, 511, true), 1);
	assert_int_equal(request(f, 0, 0, BUF, 0, true), 0);
	assert_int_equal(request(f, 99, 0, BUF, 512, true), 2);
	assert_false(td_is_broken(t));
}

static void test_id(void **state)
{
	struct fixture *f = *state;
	char id[20];

	td_start(&f->t, 0, 64);
	assert_int_equal(request(f, 8, 0, BUF, 20, true), 0);
	assert_int_equal(td_used_len(&f->t, 0, 0), 21);
	td_get(&f->t, BUF, id, 20);
	assert_memory_equal(id, "serial-0123456789abc", 20);
	assert_int_equal(request(f, 8, 0, BUF, 4, true), 0); /* less room: less of it */
	assert_int_equal(request(f, 8, 0, BUF, 0, true), 0);
}

static uint8_t range_request(struct fixture *f, uint32_t type, uint64_t sector, uint32_t n, uint32_t flags)
{
	struct {
		uint64_t sector;
		uint32_t n, flags;
	} r[2] = { { sector, n, flags }, { 0, 1, 0 } };

	td_put(&f->t, RANGE, r, sizeof(r));
	return request(f, type, 0, RANGE, 16, false);
}

static void test_zeroes_discard(void **state)
{
	struct fixture *f = *state;
	uint8_t data[2048], zero[2048] = { 0 };

	td_start(&f->t, F_DISCARD | F_ZEROES, 64);
	memset(data, 0xaa, sizeof(data));
	td_put(&f->t, BUF, data, sizeof(data));
	assert_int_equal(request(f, 1, 8, BUF, sizeof(data), false), 0);
	assert_int_equal(range_request(f, 13, 9, 1, 0), 0);
	assert_int_equal(range_request(f, 13, 11, 1, 1), 0);
	assert_int_equal(request(f, 0, 8, BUF, sizeof(data), true), 0);
	memset(data + 512, 0, 512);
	memset(data + 1536, 0, 512);
	td_get(&f->t, BUF, zero, sizeof(zero));
	assert_memory_equal(data, zero, sizeof(data));
	assert_int_equal(range_request(f, 11, 8, 4, 0), 0);
	/* Not within the disk, too much at once, unknown flags, not one range */
	assert_int_equal(range_request(f, 13, SECTORS, 1, 0), 1);
	assert_int_equal(range_request(f, 13, UINT64_MAX, 1, 0), 1);
	assert_int_equal(range_request(f, 11, 0, UINT32_MAX, 0), 1);
	assert_int_equal(range_request(f, 13, 0, 1, 2), 2);
	assert_int_equal(range_request(f, 11, 0, 1, 1), 2);
	assert_int_equal(request(f, 11, 0, RANGE, 32, false), 1);
	assert_int_equal(request(f, 11, 0, RANGE, 15, false), 1);
	assert_int_equal(request(f, 11, 0, RANGE, 0, false), 1);
}

static void test_readonly(void **state)
{
	struct fixture *f = *state;

	board_free_devices(&f->t.board);
	block_close(f->block);
	attach(f, true);
	assert_true(f->t.v->host_features & F_RO);
	td_start(&f->t, F_RO, 64);
	assert_int_equal(request(f, 0, 0, BUF, 512, true), 0);
	assert_int_equal(request(f, 1, 0, BUF, 512, false), 1);
	assert_int_equal(range_request(f, 13, 0, 1, 0), 1);
	assert_int_equal(range_request(f, 11, 0, 1, 0), 1);
	assert_int_equal(request(f, 4, 0, BUF, 0, false), 0);
}

static void code_written(void *opaque, void *host, uint64_t len)
{
	struct fixture *f = opaque;

	/* The engine must find the new bytes already there, and the driver must not know yet. */
	assert_int_equal(*(const uint8_t *)host, 0x5a);
	assert_int_equal(len, 4096);
	assert_int_equal(td_used_idx(&f->t, 0), 1);
	f->code_writes++;
}

/* Code that the guest loads from disk over code it ran: the engine hears of it. */
static void test_code_invalidation(void **state)
{
	struct fixture *f = *state;
	struct mem_notifier n = { .code_written = code_written, .opaque = f };
	uint8_t data[4096];
	uint64_t page = align_up(BUF, 4096);

	td_start(&f->t, 0, 64);
	memset(data, 0x5a, sizeof(data));
	td_put(&f->t, BUF, data, sizeof(data));
	assert_int_equal(request(f, 1, 0, BUF, sizeof(data), false), 0);
	td_put(&f->t, page, (uint8_t[4096]){ 0 }, 4096);
	mem_set_notifier(f->t.mem, &n);
	*mem_page_flags(f->t.mem, mem_ram_ptr(f->t.mem, GPA(page), 1)) = MEM_PAGE_CODE;
	assert_int_equal(request(f, 0, 0, page, 4096, true), 0);
	assert_int_equal(f->code_writes, 1);
	assert_true(*mem_page_flags(f->t.mem, mem_ram_ptr(f->t.mem, GPA(page), 1)) & MEM_PAGE_DIRTY);
	mem_set_notifier(f->t.mem, &(struct mem_notifier){ 0 });
}

/* Many at once, answered by the event loop. */
static void test_batch(void **state)
{
	struct fixture *f = *state;
	uint8_t byte;

	td_start(&f->t, VIRTIO_F_EVENT_IDX, 64);
	for (unsigned i = 0; i < 16; i++) {
		byte = (uint8_t)(i + 1);
		memset(mem_ram_ptr(f->t.mem, GPA(BUF + i * 0x20000), 0x20000), byte, 0x20000);
		offer(f, i, 1, i * 256, BUF + i * 0x20000, 0x20000, false);
	}
	virtio_notify(f->t.v, 0);
	for (int i = 0; i < 500 && td_used_idx(&f->t, 0) < 16; i++)
		td_run(&f->t, 10);
	assert_int_equal(td_used_idx(&f->t, 0), 16);
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(status(f, i), 0);
	assert_true(f->t.irqs[0] >= 1);
	for (unsigned i = 0; i < 16; i++) {
		assert_int_equal(request(f, 0, i * 256 + 255, BUF, 512, true), 0);
		td_get(&f->t, BUF + 511, &byte, 1);
		assert_int_equal(byte, i + 1);
	}
}

/* Reset with requests in flight: nothing of them reaches the rings afterwards. */
static void test_reset(void **state)
{
	struct fixture *f = *state;

	td_start(&f->t, 0, 64);
	for (unsigned i = 0; i < 8; i++)
		offer(f, i, 0, 0, BUF + i * 0x20000, 0x20000, true);
	virtio_notify(f->t.v, 0);
	virtio_set_status(f->t.v, 0);
	assert_int_equal(block_in_flight(f->block), 0);
	memset(mem_ram_ptr(f->t.mem, GPA(TD_RING(0)), 0x10000), 0, 0x10000);
	td_run(&f->t, 2);
	assert_int_equal(td_used_idx(&f->t, 0), 0);
	assert_int_equal(f->t.v->features, 0);
	assert_false(f->t.v->vq[0].enabled);
	/* And it works again. */
	td_start(&f->t, 0, 64);
	assert_int_equal(request(f, 0, 0, BUF, 512, true), 0);
	board_reset(&f->t.board);
	assert_int_equal(f->t.v->status, 0);
}

static void test_hostile(void **state)
{
	struct fixture *f = *state;
	struct test_driver *t = &f->t;

	/* No status */
	td_start(t, 0, 64);
	put_header(f, HEADER, 0, 0);
	td_desc(t, 0, 0, HEADER, 16, 0, 0);
	td_kick(t, 0, 0);
	assert_true(td_is_broken(t));
	/* No header */
	td_start(t, 0, 64);
	td_desc(t, 0, 0, STATUS, 1, TD_WRITE, 0);
	td_kick(t, 0, 0);
	assert_true(td_is_broken(t));
	/* A header cut in three, data and status in one buffer */
	td_start(t, 0, 64);
	td_desc(t, 0, 0, HEADER, 1, TD_NEXT, 1);
	td_desc(t, 0, 1, HEADER + 1, 14, TD_NEXT, 2);
	td_desc(t, 0, 2, HEADER + 15, 1, TD_NEXT, 3);
	td_desc(t, 0, 3, BUF, 513, TD_WRITE, 0);
	td_kick(t, 0, 0);
	block_drain(f->block);
	assert_int_equal(td_used_idx(t, 0), 1);
	assert_int_equal(td_used_len(t, 0, 0), 513);
	/* The same chain made available over and over while it is in flight: bounded by the queue's size. */
	td_start(t, 0, 4);
	put_header(f, HEADER, 4, 0);
	td_desc(t, 0, 0, HEADER, 16, TD_NEXT, 1);
	td_desc(t, 0, 1, STATUS, 1, TD_WRITE, 0);
	for (unsigned i = 0; i < 4; i++)
		td_offer(t, 0, 0);
	virtio_notify(t->v, 0);
	for (unsigned i = 0; i < 4; i++)
		td_offer(t, 0, 0);
	virtio_notify(t->v, 0);
	assert_true(block_in_flight(f->block) <= 4);
	block_drain(f->block);
	assert_int_equal(td_used_idx(t, 0), 8);
	assert_false(td_is_broken(t));
}

static void test_save_load(void **state)
{
	struct fixture *f = *state;
	struct test_driver *t = &f->t;
	const struct device *d = &t->v->dev;
	struct state_buf b = { 0 };
	struct error err;

	td_start(t, F_FLUSH | VIRTIO_F_EVENT_IDX, 64);
	assert_int_equal(request(f, 0, 0, BUF, 512, true), 0);
	offer(f, 1, 0, 0, BUF, 512, true); /* available, not announced */
	block_drain(f->block);
	assert_int_equal(state_save(&b, d->cls->state, d->instance, d), 0);
	d->cls->reset(&t->v->dev);
	assert_int_equal(state_load(&b, d->cls->state, d->instance, t->v, &err), 0);
	assert_true(virtio_has(t->v, F_FLUSH));
	td_run(t, 5);
	block_drain(f->block);
	assert_int_equal(td_used_idx(t, 0), 2);
	assert_int_equal(status(f, 1), 0);
	assert_int_equal(request(f, 0, 0, BUF, 512, true), 0);
	state_buf_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_config, setup, teardown),
		cmocka_unit_test_setup_teardown(test_read_write, setup, teardown),
		cmocka_unit_test_setup_teardown(test_id, setup, teardown),
		cmocka_unit_test_setup_teardown(test_zeroes_discard, setup, teardown),
		cmocka_unit_test_setup_teardown(test_readonly, setup, teardown),
		cmocka_unit_test_setup_teardown(test_code_invalidation, setup, teardown),
		cmocka_unit_test_setup_teardown(test_batch, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reset, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile, setup, teardown),
		cmocka_unit_test_setup_teardown(test_save_load, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
