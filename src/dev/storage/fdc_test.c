/* SPDX-License-Identifier: Apache-2.0 */
/* The floppy controller and the DMA controllers, as drivers program them. Drive 0 has a diskette of 1440K. */
#include "dev/pc/dma.h"
#include "dev/storage/fdc.h"
#include "dev/test_board.h"

#define DOR  0x3f2
#define MSR  0x3f4
#define FIFO 0x3f5
#define DIR  0x3f7
#define BUF  0x10000u

static struct test_board t;
static struct dma *dma;
static struct fdc *fdc;
static struct block *block[2];
static bool irq;

static void line(void *opaque, unsigned pin, bool level)
{
	(void)opaque;
	(void)pin;
	irq = level;
}

static struct block *diskette(uint32_t sectors, bool readonly)
{
	char path[] = "/tmp/sill-floppy-XXXXXX";
	uint32_t sector[128] = { 0 };
	struct block *b;
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	for (uint32_t i = 0; i < sectors; i++) {
		sector[0] = i;
		assert_int_equal(write(fd, sector, sizeof(sector)), sizeof(sector));
	}
	close(fd);
	assert_int_equal(block_open(t.b.loop, path, readonly, BLOCK_FORMAT_RAW, &b, NULL), 0);
	unlink(path);
	return b;
}

static void settle(void)
{
	mutex_lock(&t.io);
	block_drain(block[0]);
	block_drain(block[1]);
	mutex_unlock(&t.io);
}

static uint8_t status(void)
{
	return (uint8_t)test_in(&t, MSR, 1);
}

static void send(const uint8_t *bytes, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(status() & 0xc0, 0x80);
		test_out(&t, FIFO, bytes[i], 1);
	}
	settle();
}
#define SEND(...) send((const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

static uint8_t result[16];
static unsigned nr_results;

static void get(void)
{
	for (nr_results = 0; (status() & 0xc0) == 0xc0 && nr_results < 16; nr_results++)
		result[nr_results] = (uint8_t)test_in(&t, FIFO, 1);
}

/* The result is these bytes. */
static void expect(const uint8_t *bytes, unsigned n)
{
	get();
	assert_int_equal(nr_results, n);
	assert_memory_equal(result, bytes, n);
}
#define EXPECT(...) expect((const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

/* To a cylinder (unit: drive, and 4 for the second head), and asks how it went. */
static void seek(uint8_t unit, uint8_t cylinder)
{
	SEND(0x0f, unit, cylinder);
	SEND(0x08);
	EXPECT(0x20 | unit, cylinder);
}

static void program_dma(bool to_memory, uint32_t addr, uint32_t len)
{
	test_out(&t, 0x0a, 6, 1);
	test_out(&t, 0x0c, 0, 1);
	test_out(&t, 0x0b, to_memory ? 0x46 : 0x4a, 1);
	test_out(&t, 0x04, addr & 0xff, 1);
	test_out(&t, 0x04, addr >> 8 & 0xff, 1);
	test_out(&t, 0x81, addr >> 16, 1);
	test_out(&t, 0x05, (len - 1) & 0xff, 1);
	test_out(&t, 0x05, (len - 1) >> 8, 1);
	test_out(&t, 0x0a, 2, 1);
}

static void start(void)
{
	test_out(&t, DOR, 0, 1);
	test_out(&t, DOR, 0x1c, 1);
	assert_true(irq);
	for (uint8_t i = 0; i < 4; i++) {
		SEND(0x08);
		EXPECT(0xc0 | i, 0);
	}
	assert_false(irq);
	test_out(&t, DIR, 0, 1); /* 500 kbit/s */
	SEND(0x03, 0xaf, 0x02);
}

static int setup(void **state)
{
	(void)state;
	test_board_init(&t);
	assert_int_equal(dma_new(&t.b, &dma, NULL), 0);
	assert_int_equal(fdc_new(&t.b, (struct irq_line){ .set = line, .pin = 6 }, dma, &fdc, NULL), 0);
	block[0] = diskette(2880, false);
	block[1] = diskette(2880, true);
	assert_int_equal(fdc_insert(fdc, 0, block[0], "a", NULL), 0);
	assert_int_equal(fdc_insert(fdc, 1, block[1], "b", NULL), 0);
	mutex_lock(&t.io);
	board_reset(&t.b);
	mutex_unlock(&t.io);
	start();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	settle();
	mutex_lock(&t.io);
	board_free_devices(&t.b);
	block_close(block[0]);
	block_close(block[1]);
	mutex_unlock(&t.io);
	test_board_fini(&t);
	return 0;
}

static uint32_t ram(uint32_t gpa)
{
	uint32_t v;

	assert_int_equal(mem_read(t.b.mem, GPA(gpa), &v, 4), 0);
	return v;
}

static void says_what_it_is(void **state)
{
	(void)state;
	SEND(0x10);
	EXPECT(0x90);
	SEND(0x94);
	EXPECT(0x10);
	SEND(0x14);
	EXPECT(0x00);
	SEND(0x12, 0x04);
	SEND(0x13, 0, 0x17, 0x05);
	SEND(0x0e);
	EXPECT(0, 0, 0, 0, 0xaf, 0x02, 0, 0x04, 0x17, 0x05);
	SEND(0x18);
	EXPECT(0x80);
	SEND(0x08);
	EXPECT(0x80); /* nothing to tell */
	assert_int_equal(fdc_cmos_types(fdc), 0x44);
	struct error err;
	struct block *odd = diskette(2881, false);
	assert_int_equal(fdc_insert(fdc, 0, odd, "odd.img", &err), -22);
	assert_non_null(strstr(err.message, "odd.img"));
	mutex_lock(&t.io);
	block_close(odd);
	mutex_unlock(&t.io);
}

/* Another diskette in drive 0. */
static void exchange(uint32_t sectors, uint8_t cmos_types)
{
	mutex_lock(&t.io);
	block_close(block[0]);
	mutex_unlock(&t.io);
	block[0] = diskette(sectors, false);
	assert_int_equal(fdc_insert(fdc, 0, block[0], "another", NULL), 0);
	assert_int_equal(fdc_cmos_types(fdc), cmos_types);
}

/* An image of 10 sectors is the start of a diskette of 1440K. */
static void cut_short(void **state)
{
	(void)state;
	exchange(10, 0x44);
	SEND(0x07, 0);
	SEND(0x08);
	EXPECT(0x20, 0);
	program_dma(true, BUF, 11 * 512);
	SEND(0xe6, 0, 0, 0, 1, 2, 18, 0x1b, 0xff);
	EXPECT(0, 0, 0, 0, 0, 12, 2);
	assert_int_equal(ram(BUF + 9 * 512), 9);
	assert_int_equal(ram(BUF + 10 * 512), 0);
}

/* More on a diskette than was meant: 1600K, 3840K, and a track beyond the 80th. */
static void crowded(void **state)
{
	(void)state;
	exchange(3200, 0x44);
	seek(4, 79);
	program_dma(true, BUF, 2 * 512);
	SEND(0xe6, 4, 79, 1, 19, 2, 20, 0x1b, 0xff);
	EXPECT(0, 0, 0, 80, 0, 1, 2);
	assert_int_equal(ram(BUF), 3198);
	assert_int_equal(ram(BUF + 512), 3199);
	exchange(7680, 0x54);
	test_out(&t, DIR, 3, 1); /* 1 Mbit/s */
	program_dma(true, BUF, 48 * 512);
	SEND(0xe6, 0, 79, 0, 1, 2, 48, 0x1b, 0xff);
	EXPECT(4, 0, 0, 79, 1, 1, 2);
	assert_int_equal(ram(BUF + 47 * 512), 79 * 96 + 47);
	exchange(2988, 0x44);
	test_out(&t, DIR, 0, 1);
	seek(4, 82);
	program_dma(true, BUF, 512);
	SEND(0xe6, 4, 82, 1, 18, 2, 18, 0x1b, 0xff);
	EXPECT(0, 0, 0, 83, 0, 1, 2);
	assert_int_equal(ram(BUF), 2987);
}

/* 160K: one side of 8 sectors. */
static void single_sided(void **state)
{
	(void)state;
	exchange(320, 0x14);
	test_out(&t, DIR, 2, 1); /* 250 kbit/s */
	seek(0, 3);
	program_dma(true, BUF, 2 * 512);
	SEND(0xe6, 0, 3, 0, 7, 2, 8, 0x1b, 0xff);
	EXPECT(0, 0, 0, 4, 0, 1, 2);
	assert_int_equal(ram(BUF), 3 * 8 + 6);
	assert_int_equal(ram(BUF + 512), 3 * 8 + 7);
	SEND(0xe6, 4, 3, 1, 1, 2, 8, 0x1b, 0xff); /* no second side */
	EXPECT(0x44, 0x04, 0, 3, 1, 1, 2);
	SEND(0x4a, 4);
	EXPECT(0x44, 0x01, 0, 3, 1, 1, 2);
}

/* A reset interrupts even if polling is off and stays so. */
static void resets(void **state)
{
	(void)state;
	SEND(0x13, 0, 0x57, 0);
	SEND(0x94);
	EXPECT(0x10);
	test_out(&t, DOR, 0x00, 1);
	assert_false(irq);
	test_out(&t, DOR, 0x1c, 1);
	assert_true(irq);
	/* Who does not ask why has the end of a seek next. */
	SEND(0x07, 0);
	assert_true(irq);
	SEND(0x08);
	EXPECT(0x20, 0);
	SEND(0x0e);
	get();
	assert_int_equal(result[8], 0x57);
}

static void seeks(void **state)
{
	(void)state;
	assert_int_equal(test_in(&t, DIR, 1), 0x80); /* never looked at */
	SEND(0x0f, 0x00, 42);
	assert_true(irq);
	assert_int_equal(status() & 0x0f, 1);
	SEND(0x08);
	EXPECT(0x20, 42);
	assert_false(irq);
	assert_int_equal(test_in(&t, DIR, 1), 0);
	SEND(0x04, 0x04);
	EXPECT(0x2c);
	SEND(0x8f, 0x00, 2); /* relative: out, in */
	SEND(0x08);
	EXPECT(0x20, 40);
	SEND(0xcf, 0x00, 5);
	SEND(0x08);
	EXPECT(0x20, 45);
	SEND(0x07, 0x00);
	SEND(0x08);
	EXPECT(0x20, 0);
	SEND(0x04, 0x01);
	EXPECT(0x79);     /* protected, track 0 */
	SEND(0x07, 0x03); /* no drive */
	SEND(0x08);
	EXPECT(0x73, 0);
}

static void reads(void **state)
{
	(void)state;
	/* Sectors 17 of head 0 to 2 of head 1, across the heads, until DMA has enough. */
	program_dma(true, BUF, 4 * 512);
	SEND(0xe6, 0, 0, 0, 17, 2, 18, 0x1b, 0xff);
	assert_true(irq);
	EXPECT(4, 0, 0, 0, 1, 3, 2);
	assert_false(irq);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(ram(BUF + i * 512), 16 + i);
	assert_int_equal(test_in(&t, 0x08, 1) & 4, 4); /* terminal count */
	/* To the end of the cylinder. */
	program_dma(true, BUF, 36 * 512);
	SEND(0xe6, 0, 0, 0, 1, 2, 18, 0x1b, 0xff);
	EXPECT(0, 0, 0, 1, 0, 1, 2);
	/* The host wants more than there is. */
	program_dma(true, BUF, 3 * 512);
	SEND(0x46, 0, 0, 0, 18, 2, 18, 0x1b, 0xff);
	EXPECT(0x40, 0x80, 0, 1, 0, 1, 2);
	/* DMA that is set up later. */
	test_out(&t, 0x0a, 6, 1);
	SEND(0x46, 0, 0, 0, 5, 2, 18, 0x1b, 0xff);
	assert_int_equal(status(), 0x10);
	program_dma(true, BUF, 512);
	settle();
	EXPECT(0, 0, 0, 0, 0, 6, 2);
	SEND(0x4a, 0x04);
	EXPECT(0x04, 0, 0, 0, 1, 1, 2);
	/* Verify moves nothing. */
	SEND(0x56, 0, 0, 0, 1, 2, 18, 0x1b, 0xff);
	get();
	assert_int_equal(result[0], 0);
}

/* With a last sector that no track has, reads and writes go across cylinders. */
static void many_tracks(void **state)
{
	uint32_t mark = 0xfeedface;

	(void)state;
	program_dma(true, BUF, 100 * 512);
	SEND(0xe6, 4, 0, 1, 17, 2, 116, 0x1b, 0xff);
	EXPECT(4, 0, 0, 3, 1, 9, 2);
	for (uint32_t i = 0; i < 100; i++)
		assert_int_equal(ram(BUF + i * 512), 18 + 16 + i);
	/* The heads are back afterwards. */
	mem_write(t.b.mem, GPA(BUF + 512), &mark, 4);
	program_dma(false, BUF, 2 * 512);
	SEND(0xc5, 4, 0, 1, 18, 2, 19, 0x1b, 0xff);
	EXPECT(0, 0, 0, 1, 0, 2, 2);
	program_dma(true, BUF, 3 * 512);
	SEND(0xe6, 4, 0, 1, 18, 2, 20, 0x1b, 0xff);
	EXPECT(0, 0, 0, 1, 0, 3, 2);
	assert_int_equal(ram(BUF + 512), mark);
	assert_int_equal(ram(BUF + 1024), 37);
	SEND(0x4a, 0);
	EXPECT(0, 0, 0, 0, 0, 1, 2);
	/* Not beyond the last cylinder. */
	SEND(0x0f, 0, 79);
	SEND(0x08);
	get();
	program_dma(true, BUF, 2 * 512);
	SEND(0xe6, 4, 79, 1, 18, 2, 19, 0x1b, 0xff);
	EXPECT(0x40, 0x80, 0, 80, 0, 1, 2);
}

static void writes_and_formats(void **state)
{
	uint32_t mark = 0xfeedface;

	(void)state;
	mem_write(t.b.mem, GPA(BUF), &mark, 4);
	mem_write(t.b.mem, GPA(BUF + 512), &mark, 4);
	program_dma(false, BUF, 1024);
	SEND(0xc5, 0, 0, 0, 3, 2, 18, 0x1b, 0xff);
	EXPECT(0, 0, 0, 0, 0, 5, 2);
	program_dma(true, BUF, 4 * 512);
	SEND(0xe6, 0, 0, 0, 2, 2, 18, 0x1b, 0xff);
	get();
	assert_int_equal(ram(BUF), 1);
	assert_int_equal(ram(BUF + 512), mark);
	assert_int_equal(ram(BUF + 1024), mark);
	assert_int_equal(ram(BUF + 1536), 4);
	program_dma(false, BUF, 18 * 4);
	SEND(0x4d, 0x04, 2, 18, 0x54, 0xf6);
	get();
	assert_int_equal(nr_results, 7);
	assert_int_equal(result[0] & 0xc0, 0);
	program_dma(true, BUF, 512);
	SEND(0x46, 0x04, 0, 1, 18, 2, 18, 0x1b, 0xff);
	get();
	assert_int_equal(ram(BUF), 0xf6f6f6f6);
	/* Protected. */
	test_out(&t, DOR, 0x2d, 1);
	program_dma(false, BUF, 512);
	SEND(0x45, 1, 0, 0, 1, 2, 18, 0x1b, 0xff);
	EXPECT(0x41, 0x02, 0, 0, 0, 1, 2);
}

static void programmed_io(void **state)
{
	(void)state;
	SEND(0x03, 0xaf, 0x03);
	SEND(0x46, 0, 0, 0, 17, 2, 18, 0x1b, 0xff);
	assert_int_equal(status(), 0xf0);
	for (unsigned i = 0; i < 2 * 512; i++) {
		uint8_t v = (uint8_t)test_in(&t, FIFO, 1);

		if (!(i & 511))
			assert_int_equal(v, 16 + i / 512);
	}
	EXPECT(0x40, 0x80, 0, 1, 0, 1, 2);
	SEND(0x45, 0, 0, 0, 18, 2, 18, 0x1b, 0xff);
	for (unsigned i = 0; i < 512; i++) {
		assert_int_equal(status(), 0xb0);
		test_out(&t, FIFO, 0x77, 1);
	}
	settle();
	EXPECT(0x40, 0x80, 0, 1, 0, 1, 2);
}

static void wrong_places(void **state)
{
	(void)state;
	program_dma(true, BUF, 512);
	SEND(0x46, 0, 80, 0, 1, 2, 18, 0x1b, 0xff); /* the heads cannot be there */
	EXPECT(0x40, 0x04, 0x10, 80, 0, 1, 2);
	SEND(0x46, 0, 7, 0, 1, 2, 18, 0x1b, 0xff); /* they go there */
	EXPECT(0, 0, 0, 7, 0, 2, 2);
	assert_int_equal(ram(BUF), 7 * 36);
	program_dma(true, BUF, 512);
	SEND(0x46, 0, 0, 0, 19, 2, 18, 0x1b, 0xff);
	EXPECT(0x40, 0x04, 0, 0, 0, 19, 2);
	SEND(0x46, 0, 0, 0, 0, 2, 18, 0x1b, 0xff);
	EXPECT(0x40, 0x04, 0, 0, 0, 0, 2);
	SEND(0x46, 0, 0, 0, 1, 3, 18, 0x1b, 0xff); /* 1024-byte sectors */
	get();
	assert_int_equal(result[1], 0x04);
	SEND(0x0f, 0, 90);
	SEND(0x08);
	get();
	SEND(0x46, 0, 90, 0, 1, 2, 18, 0x1b, 0xff);
	get();
	assert_int_equal(result[0] & 0xc0, 0x40);
	test_out(&t, DIR, 2, 1); /* another data rate: nothing to be seen */
	SEND(0x4a, 0);
	get();
	assert_int_equal(result[1], 0x01);
	SEND(0x46, 2, 0, 0, 1, 2, 18, 0x1b, 0xff); /* no such drive */
	get();
	assert_int_equal(result[1], 0x01);
}

static void dma_registers(void **state)
{
	(void)state;
	test_out(&t, 0x0d, 0, 1);
	assert_int_equal(test_in(&t, 0x0f, 1), 0xff);
	test_out(&t, 0x0c, 0, 1);
	test_out(&t, 0x00, 0x34, 1);
	test_out(&t, 0x00, 0x12, 1);
	assert_int_equal(test_in(&t, 0x00, 1), 0x34);
	assert_int_equal(test_in(&t, 0x00, 1), 0x12);
	test_out(&t, 0xd8, 0, 1);
	test_out(&t, 0xc6, 0x78, 1);
	test_out(&t, 0xc6, 0x56, 1);
	assert_int_equal(test_in(&t, 0xc6, 1), 0x78);
	test_out(&t, 0x83, 0x9a, 1);
	assert_int_equal(test_in(&t, 0x83, 1), 0x9a);
	/* A word channel; downwards; automatic; at the end of a page. */
	uint8_t data[16] = "0123456789abcdef", back[16] = { 0 };
	bool tc;
	test_out(&t, 0xd8, 0, 1);
	test_out(&t, 0xc4, 0x00, 1);
	test_out(&t, 0xc4, 0x80, 1);
	test_out(&t, 0xc6, 7, 1);
	test_out(&t, 0xc6, 0, 1);
	test_out(&t, 0x8b, 0x02, 1);
	test_out(&t, 0xd6, 0x55, 1);
	test_out(&t, 0xd4, 1, 1);
	assert_int_equal(dma_transfer(dma, 5, true, data, 16, &tc), 16);
	assert_true(tc && dma_ready(dma, 5));
	assert_int_equal(mem_read(t.b.mem, GPA(0x30000), back, 16), 0);
	assert_memory_equal(back, data, 16);
	program_dma(true, 0x1fffe, 8);
	assert_int_equal(dma_transfer(dma, 2, true, data, 16, &tc), 8);
	assert_int_equal(mem_read(t.b.mem, GPA(0x10000), back, 6), 0);
	assert_memory_equal(back, data + 2, 6);
	assert_false(dma_ready(dma, 2));
	assert_int_equal(dma_transfer(dma, 2, true, data, 16, &tc), 0);
	program_dma(true, 0x20003, 4);
	test_out(&t, 0x0b, 0x66, 1);
	dma_transfer(dma, 2, true, data, 4, &tc);
	assert_int_equal(mem_read(t.b.mem, GPA(0x20000), back, 4), 0);
	assert_memory_equal(back, "3210", 4);
	program_dma(false, 0xfffff0, 4); /* nothing is there */
	assert_int_equal(dma_transfer(dma, 2, false, back, 4, &tc), 4);
	assert_memory_equal(back, "\xff\xff\xff\xff", 4);
}

static void hostile(void **state)
{
	uint32_t x = 5;

	(void)state;
	for (unsigned i = 0; i < 200000; i++) {
		static const uint16_t ports[] = { 0x3f2, 0x3f4, 0x3f5, 0x3f5, 0x3f5, 0x3f5, 0x3f5, 0x3f7,
						  0x0a,  0x0b,  0x04,  0x05,  0x81,  0x0f,  0x08,  0x0c };
		static const uint8_t bytes[] = { 0x46, 0xc5, 0xe6, 0x4d, 0x0f, 0x07, 0x1c, 0x00,
						 0x01, 0x02, 0x12, 0x14, 0x42, 0x56, 0x0a, 0x08 };

		x = x * 1664525 + 1013904223;
		uint16_t port = ports[x >> 28];
		if (x >> 8 & 1 || port == 0x3f2)
			test_out(&t, port,
				 port == 0x3f2 ? (x >> 9 & 31 ? 0x1c : 0x18 | (x & 3))
				 : x >> 20 & 3 ? bytes[x >> 16 & 15]
					       : x >> 12 & 0xff,
				 1);
		else
			test_in(&t, port, 1);
		if (!(x >> 4 & 0xfff))
			settle();
	}
	settle();
}

static void round_trip(void **state)
{
	(void)state;
	SEND(0x0f, 0x00, 42);
	SEND(0x08);
	get();
	SEND(0x03, 0xaf, 0x03);
	SEND(0x46, 0, 42, 0, 1, 2, 18, 0x1b, 0xff);
	for (unsigned i = 0; i < 513; i++)
		test_in(&t, FIFO, 1);
	mutex_lock(&t.io);
	test_round_trip(&t);
	mutex_unlock(&t.io);
	for (unsigned i = 0; i < 17 * 512 - 1; i++)
		test_in(&t, FIFO, 1);
	EXPECT(0x40, 0x80, 0, 43, 0, 1, 2);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(says_what_it_is), T(cut_short),     T(crowded),     T(single_sided),       T(resets),
		T(seeks),           T(reads),         T(many_tracks), T(writes_and_formats), T(programmed_io),
		T(wrong_places),    T(dma_registers), T(hostile),     T(round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
