/* SPDX-License-Identifier: Apache-2.0 */
/* ROM, and flash as firmware drives it; its file is a memfd. */
#include "dev/pc/rom.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "dev/test_board.h"

#define SIZE  (16u << 10)
#define BLOCK 4096u
#define BASE  (0x100000000ull - 0x8000 - SIZE) /* below 32 KiB of ROM */

#define READY   0x80
#define ERASE   0x20
#define PROGRAM 0x10

static struct test_board t;
static struct flash *flash;
static int fd;
static uint8_t content[SIZE];

static uint32_t rd(unsigned at, unsigned size)
{
	return (uint32_t)mem_mmio_read(t.b.mem, GPA(BASE + at), size);
}

static void wr(unsigned at, uint32_t v, unsigned size)
{
	mem_mmio_write(t.b.mem, GPA(BASE + at), v, size);
}

static uint8_t in_file(unsigned at)
{
	uint8_t v;

	assert_int_equal(pread(fd, &v, 1, at), 1);
	return v;
}

static void make(int file)
{
	test_board_init(&t);
	assert_int_equal(flash_new(&t.b, GPA(BASE), content, SIZE, file, "vars", &flash, NULL), 0);
}

static int setup(void **state)
{
	(void)state;
	for (unsigned i = 0; i < SIZE; i++)
		content[i] = i < BLOCK ? (uint8_t)i : 0xff;
	fd = memfd_create("vars", 0);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, content, SIZE), SIZE);
	make(fd);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	test_board_fini(&t);
	close(fd);
	return 0;
}

/* ---- ROM ---- */

static void rom_is_read_only(void **state)
{
	static uint8_t code[0x8000];
	struct rom *rom;

	(void)state;
	memset(code, 0xf4, sizeof(code));
	code[0x7ff0] = 0xea;
	assert_int_equal(rom_new(&t.b, code, sizeof(code), &rom, NULL), 0);
	assert_int_equal(mem_mmio_read(t.b.mem, GPA(0xfffffff0), 2), 0xf4ea);
	mem_mmio_write(t.b.mem, GPA(0xfffffff0), 0x1234, 2);
	assert_int_equal(mem_mmio_read(t.b.mem, GPA(0xfffffff0), 2), 0xf4ea);
	assert_int_equal(mem_block_size(rom_block(rom)), sizeof(code));
	assert_int_equal(mem_mmio_read(t.b.mem, GPA(0xffff8000 - 1), 1), 0xff); /* flash's last byte */
	board_reset(&t.b);
	assert_int_equal(mem_mmio_read(t.b.mem, GPA(0xfffffff0), 1), 0xea);
}

static void sizes_are_whole_pages(void **state)
{
	struct error err = { "" };
	struct flash *f = NULL;
	struct rom *r = NULL;

	(void)state;
	assert_true(flash_new(&t.b, GPA(0xf0000000), content, 0, fd, "vars", &f, &err) < 0);
	assert_true(flash_new(&t.b, GPA(0xf0000000), content, BLOCK + 1, fd, "vars", &f, &err) < 0);
	assert_true(rom_new(&t.b, content, 100, &r, &err) < 0);
	assert_null(f);
	assert_null(r);
	assert_true(err.message[0]);
}

/* ---- commands ---- */

/* OVMF's QemuFlashDetected: clears the status, asks for it, and takes zero for flash. */
static void ovmf_finds_it(void **state)
{
	(void)state;
	wr(0x50, 0x50, 1);
	assert_int_equal(rd(0x50, 1),
			 0x50); /* the array: this byte is 50h already, so OVMF looks elsewhere */
	wr(0x51, 0x50, 1);
	assert_int_equal(rd(0x51, 1), 0x51);
	wr(0x51, 0x70, 1);
	assert_int_equal(rd(0x51, 1), 0);
	wr(0x51, 0xff, 1);
	assert_int_equal(rd(0x51, 1), 0x51);
}

/* OVMF's QemuFlashWrite: 10h and the byte for each, FFh after the last. */
static void programs_and_erases(void **state)
{
	static const char text[] = "variable";

	(void)state;
	for (unsigned i = 0; i < sizeof(text); i++) {
		wr(BLOCK + i, 0x10, 1);
		wr(BLOCK + i, (uint8_t)text[i], 1);
		assert_int_equal(rd(BLOCK, 1), READY); /* reads show the status */
	}
	assert_int_equal(in_file(BLOCK), 0xff); /* not yet */
	wr(BLOCK, 0xff, 1);
	assert_int_equal(rd(BLOCK, 4), 0x69726176);
	for (unsigned i = 0; i < sizeof(text); i++)
		assert_int_equal(in_file(BLOCK + i), text[i]);
	wr(BLOCK, 0x40, 1); /* only ones become zeros */
	wr(BLOCK, 0x8f, 1);
	wr(BLOCK, 0xff, 1);
	assert_int_equal(rd(BLOCK, 1), 'v' & 0x8f);
	/* QemuFlashEraseBlock: 20h, D0h; the neighbours stay. */
	wr(BLOCK - 1, 0x10, 1);
	wr(BLOCK - 1, 0x77, 1);
	wr(BLOCK + 123, 0x20, 1);
	wr(BLOCK + 123, 0xd0, 1);
	assert_int_equal(rd(0, 1), READY);
	wr(0, 0xff, 1);
	for (unsigned i = 0; i < BLOCK; i += 4)
		assert_int_equal(rd(BLOCK + i, 4), 0xffffffff);
	assert_int_equal(rd(BLOCK - 1, 1), 0x77);
	assert_int_equal(in_file(BLOCK), 0xff);
	assert_int_equal(in_file(BLOCK - 1), 0x77);
	assert_int_equal(lseek(fd, 0, SEEK_END), SIZE);
}

static void wrong_sequences(void **state)
{
	(void)state;
	wr(0, 0x50, 1);
	wr(0, 0x20, 1);
	wr(0, 0xff, 1); /* no confirmation */
	assert_int_equal(rd(0, 1), READY | ERASE | PROGRAM);
	wr(0, 0x50, 1);
	assert_int_equal(rd(0, 1), 0);
	wr(0, 0x60, 1); /* clear lock bits */
	wr(0, 0xd0, 1);
	assert_int_equal(rd(0, 1), READY);
	wr(0, 0xff, 1);
	assert_int_equal(rd(1, 1), 1); /* nothing was erased */
	wr(0, 0x33, 1);                /* not a command: the array stays */
	assert_int_equal(rd(1, 1), 1);
}

static void query_and_identifier(void **state)
{
	(void)state;
	wr(0, 0x98, 1);
	assert_int_equal(rd(0x10, 1), 'Q');
	assert_int_equal(rd(0x11, 2), 'R' | 'Y' << 8);
	assert_int_equal(rd(0x13, 2), 1);
	assert_int_equal(rd(0x27, 1), 14); /* 2^14 bytes */
	assert_int_equal(rd(0x2c, 1), 1);
	assert_int_equal(rd(0x2d, 1) | rd(0x2e, 1) << 8, SIZE / BLOCK - 1);
	assert_int_equal((rd(0x2f, 1) | rd(0x30, 1) << 8) * 256, BLOCK);
	unsigned pri = rd(0x15, 1);
	assert_int_equal(rd(pri, 1) | rd(pri + 1, 1) << 8 | rd(pri + 2, 1) << 16, 'P' | 'R' << 8 | 'I' << 16);
	wr(0, 0x90, 1);
	assert_int_equal(rd(0, 2), 0x1889);
	assert_int_equal(rd(2 * BLOCK, 2), 0x1889);
	assert_int_equal(rd(4, 4), 0);
	wr(0, 0xff, 1);
}

static void buffered_writes(void **state)
{
	(void)state;
	wr(0, 0x50, 1);
	wr(BLOCK, 0xe8, 1);
	assert_int_equal(rd(BLOCK, 1), READY); /* the buffer is free */
	wr(BLOCK, 5, 1);                       /* six bytes */
	wr(BLOCK + 8, 0x44332211, 4);
	wr(BLOCK + 20, 0xaa, 1);
	wr(BLOCK + 21, 0xbb, 1);
	wr(BLOCK, 0xd0, 1);
	assert_int_equal(rd(BLOCK, 1), READY);
	wr(0, 0xff, 1);
	assert_int_equal(rd(BLOCK + 8, 4), 0x44332211);
	assert_int_equal(rd(BLOCK + 20, 2), 0xbbaa);
	assert_int_equal(rd(BLOCK + 12, 4), 0xffffffff);
	assert_int_equal(in_file(BLOCK + 11), 0x44);
	/* Out of the block: refused as a whole. */
	wr(BLOCK, 0xe8, 1);
	wr(BLOCK, 1, 1);
	wr(BLOCK, 0, 1);
	wr(2 * BLOCK, 0, 1);
	assert_int_equal(rd(0, 1), READY | ERASE | PROGRAM);
	wr(0, 0xff, 1);
	assert_int_equal(rd(BLOCK, 1), 0xff);
	/* Not confirmed. */
	wr(0, 0x50, 1);
	wr(BLOCK, 0xe8, 1);
	wr(BLOCK, 0, 1);
	wr(BLOCK, 0, 1);
	wr(BLOCK, 0xff, 1);
	assert_int_equal(rd(0, 1), READY | ERASE | PROGRAM);
	wr(0, 0xff, 1);
	assert_int_equal(rd(BLOCK, 1), 0xff);
}

/* ---- the file ---- */

static void quit(void *opaque)
{
	loop_quit(opaque);
}

static void run_loop(void)
{
	struct loop_work w = { .fn = quit, .opaque = t.b.loop };

	loop_post(t.b.loop, &w);
	loop_run(t.b.loop);
}

static void loop_saves(void **state)
{
	(void)state;
	wr(2 * BLOCK, 0x10, 1);
	wr(2 * BLOCK, 0x5a, 1);
	run_loop(); /* though the guest never shows the array again */
	assert_int_equal(in_file(2 * BLOCK), 0x5a);
	wr(2 * BLOCK + 1, 0x10, 1);
	wr(2 * BLOCK + 1, 0x5b, 1);
	test_board_fini(&t); /* or the machine ends before */
	assert_int_equal(in_file(2 * BLOCK + 1), 0x5b);
	make(fd);
}

static void read_only_file(void **state)
{
	char path[64];
	int ro;

	(void)state;
	test_board_fini(&t);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY);
	assert_true(ro >= 0);
	make(ro);
	wr(BLOCK, 0x10, 1);
	wr(BLOCK, 0x12, 1);
	wr(BLOCK, 0xff, 1);
	assert_int_equal(rd(BLOCK, 1), 0x12); /* while the VM runs it is there */
	wr(BLOCK, 0x70, 1);
	assert_int_equal(rd(BLOCK, 1), READY | PROGRAM); /* and the guest can know */
	assert_int_equal(in_file(BLOCK), 0xff);
	wr(BLOCK, 0xff, 1);
	run_loop();
	test_board_fini(&t);
	close(ro);
	make(fd);
}

/* The file system takes only a part at first, then there is room. */
static void full_file_system(void **state)
{
	struct rlimit old, limit;

	(void)state;
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	limit = (struct rlimit){ BLOCK + 2048, old.rlim_max };
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	wr(BLOCK, 0x20, 1);
	wr(BLOCK, 0xd0, 1);
	wr(2 * BLOCK, 0x10, 1);
	wr(2 * BLOCK, 0x66, 1);
	wr(0, 0xff, 1);
	assert_int_equal(lseek(fd, 0, SEEK_END), BLOCK + 2048);
	wr(0, 0x70, 1);
	assert_int_equal(rd(0, 1), READY | PROGRAM);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	wr(3 * BLOCK, 0x10, 1); /* the next change takes the rest along */
	wr(3 * BLOCK, 0x67, 1);
	wr(0, 0xff, 1);
	assert_int_equal(in_file(2 * BLOCK - 1), 0xff);
	assert_int_equal(in_file(2 * BLOCK), 0x66);
	assert_int_equal(in_file(3 * BLOCK), 0x67);
}

/* ---- life ---- */

static void reset_shows_the_array(void **state)
{
	(void)state;
	wr(BLOCK, 0x10, 1);
	wr(BLOCK, 0x21, 1);
	wr(0, 0x20, 1);
	board_reset(&t.b);
	assert_int_equal(rd(7, 1), 7);
	assert_int_equal(rd(BLOCK, 1), 0x21); /* flash forgets nothing */
	assert_int_equal(in_file(BLOCK), 0x21);
	wr(0, 0xd0, 1); /* the erasure was called off */
	wr(0, 0xff, 1);
	assert_int_equal(rd(7, 1), 7);
}

static void hostile_writes(void **state)
{
	static const uint8_t commands[] = {
		0x10, 0x20, 0x40, 0x50, 0x60, 0x70, 0x90, 0x98, 0xd0, 0xe8, 0xff
	};
	uint64_t x = 0x9e3779b97f4a7c15ull;

	(void)state;
	for (unsigned i = 0; i < 100000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		unsigned at = (x & 7 ? (unsigned)(x >> 8) : SIZE - 1 - (unsigned)(x >> 8) % 8) % SIZE;
		unsigned size = 1u << (x >> 40 & 3);
		uint64_t v = x >> 32;
		if (x & 0x30)
			v = (v & ~0xffull) | commands[(x >> 50) % ARRAY_SIZE(commands)];
		mem_mmio_write(t.b.mem, GPA(BASE + at), v, size);
		mem_mmio_read(t.b.mem, GPA(BASE + (x >> 20) % SIZE), size);
	}
	run_loop();
	board_reset(&t.b);
	for (unsigned i = 0; i < SIZE; i++)
		assert_int_equal(rd(i, 1), in_file(i));
}

static void round_trip(void **state)
{
	(void)state;
	wr(BLOCK, 0xe8, 1);
	wr(BLOCK, 1, 1);
	wr(BLOCK + 3, 0x5c, 1);
	test_round_trip(&t); /* in the middle of a buffered write */
	assert_int_equal(rd(0, 1), READY);
	wr(BLOCK + 4, 0x5d, 1);
	wr(BLOCK, 0xd0, 1);
	wr(0, 0x98, 1);
	test_round_trip(&t);
	assert_int_equal(rd(0x10, 1), 'Q');
	wr(0, 0xff, 1);
	test_round_trip(&t);
	assert_int_equal(rd(BLOCK + 3, 2), 0x5d5c);
}

static void damaged_state(void **state)
{
	struct device *d = (struct device *)flash;
	struct state_buf s = { 0 };
	unsigned refused = 0;

	(void)state;
	assert_int_equal(state_save(&s, d->cls->state, d->instance, d), 0);
	for (unsigned at = 0; at < 600; at++) {
		struct error err = { "" };
		unsigned i = at < s.len ? at : at % (unsigned)s.len;
		uint8_t was = s.data[i];

		s.data[i] ^= at & 1 ? 0x80 : 0xff;
		if (state_load(&s, d->cls->state, d->instance, d, &err) < 0)
			refused++;
		s.data[i] = was;
		s.pos = 0;
		for (unsigned k = 0; k < 8; k++)
			wr(BLOCK * (k % 4), 0xd0, 4);
		board_reset(&t.b);
	}
	assert_true(refused > 0);
	state_buf_free(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(rom_is_read_only, setup, teardown),
		cmocka_unit_test_setup_teardown(sizes_are_whole_pages, setup, teardown),
		cmocka_unit_test_setup_teardown(ovmf_finds_it, setup, teardown),
		cmocka_unit_test_setup_teardown(programs_and_erases, setup, teardown),
		cmocka_unit_test_setup_teardown(wrong_sequences, setup, teardown),
		cmocka_unit_test_setup_teardown(query_and_identifier, setup, teardown),
		cmocka_unit_test_setup_teardown(buffered_writes, setup, teardown),
		cmocka_unit_test_setup_teardown(loop_saves, setup, teardown),
		cmocka_unit_test_setup_teardown(read_only_file, setup, teardown),
		cmocka_unit_test_setup_teardown(full_file_system, setup, teardown),
		cmocka_unit_test_setup_teardown(reset_shows_the_array, setup, teardown),
		cmocka_unit_test_setup_teardown(hostile_writes, setup, teardown),
		cmocka_unit_test_setup_teardown(round_trip, setup, teardown),
		cmocka_unit_test_setup_teardown(damaged_state, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
