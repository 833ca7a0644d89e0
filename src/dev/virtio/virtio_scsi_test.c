/* SPDX-License-Identifier: Apache-2.0 */
/* The SCSI adapter and its targets end to end: 0 a disk, 1 a read-only disk, 2 a CD drive. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "dev/virtio/test_driver.h"
#include "dev/virtio/virtio_scsi.h"

#define SECTORS  8192u
#define REQUEST  TD_DATA
#define RESPONSE (TD_DATA + 0x200)
#define BUF      (TD_DATA + 0x1000)
#define QUEUE    2

struct response {
	uint32_t sense_len, residual;
	uint16_t qualifier;
	uint8_t status, response;
	uint8_t sense[96];
};

static struct test_driver t;
static struct virtio_device *v;
static struct block *block[3];
static struct scsi_device *target[3];
static unsigned done; /* in the used ring */

static struct block *open_disk(bool readonly)
{
	char path[] = "/tmp/sill-scsi-XXXXXX";
	uint32_t sector[128] = { 0 };
	struct block *b;
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	for (uint32_t i = 0; i < SECTORS; i++) {
		sector[0] = i;
		assert_int_equal(write(fd, sector, sizeof(sector)), sizeof(sector));
	}
	close(fd);
	assert_int_equal(block_open(t.loop, path, readonly, BLOCK_FORMAT_RAW, &b, NULL), 0);
	unlink(path);
	return b;
}

static int setup(void **state)
{
	(void)state;
	td_init(&t);
	assert_int_equal(virtio_scsi_new(&t.board, &v, NULL), 0);
	for (unsigned i = 0; i < 3; i++) {
		block[i] = open_disk(i > 0);
		target[i] = virtio_scsi_add(v, i, i == 2, block[i], "serial");
	}
	td_attach(&t, v);
	td_start(&t, 0, 64);
	done = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	board_free_devices(&t.board);
	for (unsigned i = 0; i < 3; i++)
		block_close(block[i]);
	td_fini(&t);
	return 0;
}

static void settle(void)
{
	for (unsigned i = 0; i < 3; i++)
		block_drain(block[i]);
}

/* Offers a command with data of len bytes at BUF; returns its response. */
static struct response run_on(unsigned nr, unsigned lun, const uint8_t *cdb, size_t n, uint32_t len,
			      bool write)
{
	uint8_t request[51] = { 1, (uint8_t)nr, 0x40, (uint8_t)lun };
	struct response r;

	memcpy(request + 19, cdb, n);
	td_put(&t, REQUEST, request, sizeof(request));
	memset(&r, 0xee, sizeof(r));
	td_put(&t, RESPONSE, &r, sizeof(r));
	td_desc(&t, QUEUE, 0, REQUEST, sizeof(request), TD_NEXT, write ? 1 : 2);
	td_desc(&t, QUEUE, 1, BUF, len, TD_NEXT, 2);
	td_desc(&t, QUEUE, 2, RESPONSE, sizeof(r), TD_WRITE | (len && !write ? TD_NEXT : 0), 3);
	td_desc(&t, QUEUE, 3, BUF, len, TD_WRITE, 0);
	td_kick(&t, QUEUE, 0);
	settle();
	assert_int_equal(td_used_idx(&t, QUEUE), ++done);
	td_get(&t, RESPONSE, &r, sizeof(r));
	return r;
}

#define CDB(...)             ((const uint8_t[16]){ __VA_ARGS__ })
#define RUN(cdb, len, write) run_on(0, 0, cdb, 16, len, write)

static uint8_t byte(unsigned i)
{
	uint8_t b;

	td_get(&t, BUF + i, &b, 1);
	return b;
}

static uint32_t word(unsigned i)
{
	uint32_t w;

	td_get(&t, BUF + i, &w, 4);
	return w;
}

static void good(struct response r)
{
	assert_int_equal(r.response, 0);
	assert_int_equal(r.status, 0);
	assert_int_equal(r.sense_len, 0);
}

static void bad(struct response r, uint8_t key, uint8_t asc)
{
	assert_int_equal(r.response, 0);
	assert_int_equal(r.status, 2);
	assert_int_equal(r.sense_len, 18);
	assert_int_equal(r.sense[2], key);
	assert_int_equal(r.sense[12], asc);
}

static void says_what_it_is(void **state)
{
	(void)state;
	struct response r = RUN(CDB(0x12, 0, 0, 0, 255), 255, false);

	good(r);
	assert_int_equal(r.residual, 255 - 36);
	assert_int_equal(byte(0), 0);
	assert_int_equal(byte(2), 6);
	/* Every page that is listed is there; others are not. */
	good(RUN(CDB(0x12, 1, 0, 0, 255), 255, false));
	unsigned n = byte(3);
	uint8_t pages[16];
	td_get(&t, BUF + 4, pages, n);
	for (unsigned i = 0; i < n; i++) {
		good(RUN(CDB(0x12, 1, pages[i], 0, 255), 255, false));
		assert_int_equal(byte(1), pages[i]);
	}
	bad(RUN(CDB(0x12, 1, 0xc0, 0, 255), 255, false), 5, 0x24);
	good(RUN(CDB(0x25), 8, false));
	assert_int_equal(byte(2) << 8 | byte(3), SECTORS - 1);
	assert_int_equal(byte(6), 2);
	good(RUN(CDB(0x9e, 0x10, [13] = 32), 32, false));
	assert_int_equal(byte(6) << 8 | byte(7), SECTORS - 1);
	assert_int_equal(byte(14), 0x80);
	good(RUN(CDB(0x1a, 0, 0x3f, 0, 255), 255, false));
	assert_int_equal(byte(2), 0x10);
	good(RUN(CDB(0x5a, 8, 0x08, 0, 0, 0, 0, 0, 255), 255, false));
	assert_int_equal(byte(8), 0x08);
	assert_int_equal(byte(10), 4); /* write cache */
	good(run_on(1, 0, CDB(0x1a, 0, 0x3f, 0, 255), 16, 255, false));
	assert_int_equal(byte(2), 0x90); /* protected */
	bad(RUN(CDB(0x1a, 0, 0x1c, 0, 255), 255, false), 5, 0x24);
	good(RUN(CDB(0xa0, [9] = 64), 64, false));
	assert_int_equal(byte(3), 8);
	good(RUN(CDB(0x03, 0, 0, 0, 18), 18, false));
	assert_int_equal(byte(2), 0);
	good(RUN(CDB(0x00), 0, false));
	good(RUN(CDB(0x1b), 0, false));
	bad(RUN(CDB(0xff), 0, false), 5, 0x20);
}

static void reads_and_writes(void **state)
{
	static const uint8_t read[][16] = { { 0x08, 0, 0, 7, 3 },
					    { 0x28, 0, 0, 0, 0, 7, 0, 0, 3 },
					    { 0xa8, 0, 0, 0, 0, 7, 0, 0, 0, 3 },
					    { 0x88, [9] = 7, [13] = 3 } };
	static const uint8_t write[][16] = { { 0x0a, 0, 0, 9, 1 },
					     { 0x2a, 8, 0, 0, 0, 9, 0, 0, 1 },
					     { 0xaa, 0, 0, 0, 0, 9, 0, 0, 0, 1 },
					     { 0x8a, [9] = 9, [13] = 1 },
					     { 0x2e, 0, 0, 0, 0, 9, 0, 0, 1 } };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(read); i++) {
		struct response r = RUN(read[i], 2048, false);

		good(r);
		assert_int_equal(r.residual, 512);
		assert_int_equal(word(0), 7);
		assert_int_equal(word(1024), 9);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(write); i++) {
		uint32_t v32 = 0x1000 + i;

		td_put(&t, BUF, &v32, 4);
		good(RUN(write[i], 512, true));
		good(RUN(read[0], 1536, false));
		assert_int_equal(word(1024), v32);
	}
	good(RUN(CDB(0x35), 0, false));
	good(RUN(CDB(0x2f, 0, 0, 0, 0, 0, 0, 0, 8), 0, false));
	/* The end of the disk; too little data; protected. */
	bad(RUN(CDB(0x28, 0, 0, 0, 0x1f, 0xff, 0, 0, 2), 1024, false), 5, 0x21);
	bad(RUN(CDB(0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, [13] = 1), 512, false), 5, 0x21);
	bad(RUN(CDB(0x2a, 0, 0, 0, 0, 9, 0, 0, 2), 512, true), 5, 0x24);
	bad(run_on(1, 0, CDB(0x2a, 0, 0, 0, 0, 9, 0, 0, 1), 16, 512, true), 7, 0x27);
	good(RUN(CDB(0x28, 0, 0, 0, 0, 9), 0, false)); /* nothing */
}

static void forgets(void **state)
{
	uint8_t list[40] = { 0, 38, 0, 32, [15] = 64, [19] = 8, [31] = 100, [35] = 4 };
	uint32_t x = 0x12345678;

	(void)state;
	td_put(&t, BUF, list, sizeof(list));
	good(RUN(CDB(0x42, [8] = 40), 40, true));
	list[8] = 0xff; /* beyond the disk */
	td_put(&t, BUF, list, sizeof(list));
	bad(RUN(CDB(0x42, [8] = 40), 40, true), 5, 0x21);
	bad(RUN(CDB(0x42, [8] = 4), 4, true), 5, 0x1a);
	good(RUN(CDB(0x42), 0, true));
	td_put(&t, BUF, &x, 4);
	memset(mem_ram_ptr(t.mem, GPA(BUF + 4), 508), 0, 508);
	good(RUN(CDB(0x93, [8] = 0x10, [12] = 0x08, [13] = 1), 512, true)); /* 2049 sectors from 4096 on */
	good(RUN(CDB(0x28, 0, 0, 0, 0x18, 0, 0, 0, 2), 1024, false));
	assert_int_equal(word(0), x);
	assert_int_equal(word(512), 6145);
	good(RUN(CDB(0x93, 8 | 1, [8] = 0x10, [13] = 8), 0, true));
	good(RUN(CDB(0x28, 0, 0, 0, 0x10, 0, 0, 0, 2), 1024, false));
	assert_int_equal(word(0), 0);
	bad(RUN(CDB(0x41, 0, 0, 0, 0, 0, 0, 0, 0), 512, true), 5, 0x24);
	bad(RUN(CDB(0x41, 0, 0, 0, 0, 0, 0, 0, 1), 100, true), 5, 0x24);
}

static void plays_discs(void **state)
{
	(void)state;
	target[2]->cd.changed = true;
	good(run_on(2, 0, CDB(0x12, 0, 0, 0, 36), 16, 36, false));
	assert_int_equal(byte(0), 5);
	bad(run_on(2, 0, CDB(0x00), 16, 0, false), 6, 0x28); /* medium changed: told once */
	good(run_on(2, 0, CDB(0x00), 16, 0, false));
	good(run_on(2, 0, CDB(0x28, 0, 0, 0, 0, 5, 0, 0, 2), 16, 4096, false));
	assert_int_equal(word(0), 20);
	assert_int_equal(word(2048), 24);
	cdrom_change(&target[2]->cd, NULL);
	bad(run_on(2, 0, CDB(0x28, 0, 0, 0, 0, 5, 0, 0, 2), 16, 4096, false), 2, 0x3a);
}

static void addresses(void **state)
{
	(void)state;
	assert_int_equal(run_on(3, 0, CDB(0x00), 16, 0, false).response, 3);
	assert_int_equal(run_on(255, 0, CDB(0x00), 16, 0, false).response, 3);
	bad(run_on(0, 1, CDB(0x00), 16, 0, false), 5, 0x25);
	good(run_on(0, 1, CDB(0x12, 0, 0, 0, 36), 16, 36, false));
	assert_int_equal(byte(0), 0x7f);
	good(run_on(0, 1, CDB(0xa0, [9] = 16), 16, 16, false));
}

static void control_queue(void **state)
{
	static const struct {
		uint32_t what;
		uint8_t target, answer;
	} cases[] = { { 0, 0, 0 }, { 5, 0, 0 }, { 4, 1, 0 }, { 2, 0, 11 }, { 9, 0, 11 }, { 5, 9, 3 } };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		uint8_t request[24] = { 0, 0, 0, 0, (uint8_t)cases[i].what, 0, 0, 0, 1, cases[i].target };
		uint8_t answer = 0xee;

		td_put(&t, REQUEST, request, sizeof(request));
		td_put(&t, RESPONSE, &answer, 1);
		td_desc(&t, 0, 0, REQUEST, sizeof(request), TD_NEXT, 1);
		td_desc(&t, 0, 1, RESPONSE, 1, TD_WRITE, 0);
		td_kick(&t, 0, 0);
		td_get(&t, RESPONSE, &answer, 1);
		assert_int_equal(answer, cases[i].answer);
	}
	/* Nothing to read, nothing to write into. */
	td_desc(&t, 0, 0, REQUEST, 1, 0, 0);
	td_kick(&t, 0, 0);
	td_desc(&t, 0, 0, RESPONSE, 1, TD_WRITE, 0);
	td_kick(&t, 0, 0);
	assert_false(td_is_broken(&t));
	assert_int_equal(td_used_idx(&t, 0), ARRAY_SIZE(cases) + 2);
}

static void hostile(void **state)
{
	(void)state;
	/* No room for the header; for the response. */
	td_desc(&t, QUEUE, 0, REQUEST, 20, TD_NEXT, 1);
	td_desc(&t, QUEUE, 1, RESPONSE, 108, TD_WRITE, 0);
	td_kick(&t, QUEUE, 0);
	assert_true(td_is_broken(&t));
	td_start(&t, 0, 64);
	td_desc(&t, QUEUE, 0, REQUEST, 51, TD_NEXT, 1);
	td_desc(&t, QUEUE, 1, RESPONSE, 107, TD_WRITE, 0);
	td_kick(&t, QUEUE, 0);
	assert_true(td_is_broken(&t));
	td_start(&t, 0, 64);
	done = 0;
	/* Sizes: taken within bounds, and back to normal after a reset. */
	virtio_config_write(v, 20, 0xffffffff, 4);
	assert_int_equal(virtio_config_read(v, 20, 4), 96);
	virtio_config_write(v, 20, 32, 4);
	assert_int_equal(virtio_config_read(v, 20, 4), 32);
	td_start(&t, 0, 64);
	assert_int_equal(virtio_config_read(v, 20, 4), 96);
	/* Random commands with random amounts of data. */
	uint32_t x = 1;
	done = 0;
	for (unsigned i = 0; i < 20000; i++) {
		static const uint8_t ops[] = { 0x08, 0x0a, 0x12, 0x1a, 0x25, 0x28, 0x2a, 0x41, 0x42, 0x5a,
					       0x88, 0x8a, 0x93, 0x9e, 0xa0, 0xa8, 0x03, 0x43, 0x4a, 0xbe };
		uint8_t cdb[16];

		for (unsigned k = 0; k < 16; k++) {
			x = x * 1664525 + 1013904223;
			cdb[k] = x >> 31 ? 0 : (uint8_t)(x >> 16);
		}
		if (x & 0x300)
			cdb[0] = ops[x >> 24 & 15];
		run_on(x >> 10 & 3, x >> 12 & 15 ? 0 : 1, cdb, 16, x >> 20 & 0xfff, x >> 9 & 1);
	}
}

static void round_trip(void **state)
{
	struct state_buf a = { 0 }, b = { 0 };

	(void)state;
	target[2]->cd.locked = true;
	target[2]->cd.changed = true;
	virtio_config_write(v, 20, 40, 4);
	assert_int_equal(state_save(&a, v->dev.cls->state, 0, v), 0);
	v->dev.cls->reset(&v->dev);
	assert_false(target[2]->cd.locked);
	assert_int_equal(state_load(&a, v->dev.cls->state, 0, v, NULL), 0);
	assert_int_equal(state_save(&b, v->dev.cls->state, 0, v), 0);
	assert_int_equal(a.len, b.len);
	assert_memory_equal(a.data, b.data, a.len);
	state_buf_free(&a);
	state_buf_free(&b);
	virtio_config_write(v, 20, 96, 4);
	good(RUN(CDB(0x28, 0, 0, 0, 0, 5, 0, 0, 1), 512, false));
	assert_int_equal(word(0), 5);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(says_what_it_is), T(reads_and_writes), T(forgets), T(plays_discs),
		T(addresses),       T(control_queue),    T(hostile), T(round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
