/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "mem/mem.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

struct fixture {
	struct mutex lock;
	struct mem *m;
	char log[256];
	gpa_t code_gpa;
	uint64_t code_len;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	mutex_init(&f->lock, LOCK_RANK_IO, "io");
	/* Sparse: 3 GiB below the hole and 16 MiB above 4 GiB. */
	assert_int_equal(mem_new(MEM_LOW_MAX + MIB(16), &f->lock, &f->m, NULL), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	mem_free(f->m);
	mutex_destroy(&f->lock);
	free(f);
	return 0;
}

static void refuses_odd_sizes(void **state)
{
	(void)state;
	struct mem *m = NULL;
	struct error err;
	assert_int_equal(mem_new(4096, NULL, &m, &err), -EINVAL);
	assert_non_null(strstr(err.message, "4096"));
	assert_int_equal(mem_new(MIB(1) + 1, NULL, &m, NULL), -EINVAL);
	assert_int_equal(mem_new(UINT64_MAX & PAGE_MASK, NULL, &m, NULL), -EINVAL);
	assert_null(m);
	mem_free(NULL);
}

static void ram_layout(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(mem_low_ram_size(f->m), MEM_LOW_MAX);
	assert_int_equal(mem_high_ram_size(f->m), MIB(16));
	assert_true(mem_is_ram(f->m, GPA(0)));
	assert_true(mem_is_ram(f->m, GPA(MEM_LOW_MAX - 1)));
	assert_false(mem_is_ram(f->m, GPA(MEM_LOW_MAX)));
	assert_false(mem_is_ram(f->m, GPA(GIB(4) - 1)));
	assert_true(mem_is_ram(f->m, GPA(GIB(4))));
	assert_false(mem_is_ram(f->m, GPA(GIB(4) + MIB(16))));
	assert_false(mem_is_ram(f->m, GPA(UINT64_MAX)));
	uint8_t *high = mem_ram_ptr(f->m, GPA(GIB(4) + 5), 3);
	assert_ptr_equal(high, (uint8_t *)mem_ram_base(f->m) + MEM_LOW_MAX + 5);
	assert_int_equal(mem_ptr_to_gpa(f->m, high).v, GIB(4) + 5);
	assert_null(mem_ram_ptr(f->m, GPA(MEM_LOW_MAX - 4), 8));
	assert_null(mem_ram_ptr(f->m, GPA(GIB(4)), UINT64_MAX));
	assert_null(mem_ram_ptr(f->m, GPA(8), UINT64_MAX));
}

static void copies_are_all_or_nothing(void **state)
{
	struct fixture *f = *state;
	uint8_t buf[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
	assert_int_equal(mem_write(f->m, GPA(MEM_LOW_MAX - 4), buf, 8), -EFAULT);
	uint64_t v = 7;
	assert_int_equal(mem_read(f->m, GPA(MEM_LOW_MAX - 4), &v, 4), 0);
	assert_int_equal(v, 0);
	assert_int_equal(mem_read(f->m, GPA(MEM_LOW_MAX - 4), &v, 8), -EFAULT);
	for (unsigned size = 1; size <= 8; size++) {
		for (unsigned off = 0; off < 4; off++) {
			uint8_t back[8] = { 0 };
			assert_int_equal(mem_write(f->m, GPA(0x2000 + off), buf, size), 0);
			assert_int_equal(mem_read(f->m, GPA(0x2000 + off), back, size), 0);
			assert_memory_equal(buf, back, size);
		}
	}
	assert_int_equal(mem_write(f->m, GPA(0), buf, 0), 0);
}

static void code_written(void *opaque, void *host, uint64_t len)
{
	struct fixture *f = opaque;
	f->code_gpa = mem_ptr_to_gpa(f->m, host);
	f->code_len += len;
}

static void writes_mark_pages(void **state)
{
	struct fixture *f = *state;
	mem_set_notifier(f->m, &(struct mem_notifier){ .code_written = code_written, .opaque = f });
	uint8_t *flags = mem_page_flags(f->m, mem_ram_ptr(f->m, GPA(GIB(4) + PAGE_SIZE), 1));
	uint8_t buf[4096] = { 1 };
	assert_int_equal(mem_write(f->m, GPA(GIB(4) + PAGE_SIZE - 8), buf, 16), 0);
	assert_int_equal(flags[0], MEM_PAGE_DIRTY);
	assert_int_equal(flags[-1], MEM_PAGE_DIRTY);
	assert_int_equal(flags[1], 0);
	assert_int_equal(f->code_len, 0);
	flags[0] |= MEM_PAGE_CODE;
	assert_int_equal(mem_write(f->m, GPA(GIB(4) + PAGE_SIZE - 8), buf, 24), 0);
	assert_int_equal(f->code_gpa.v, GIB(4) + PAGE_SIZE);
	assert_int_equal(f->code_len, 16);
	mem_written(f->m, GPA(GIB(4) + PAGE_SIZE * 2 - 1), 4096);
	assert_int_equal(f->code_len, 17);
	mem_written(f->m, GPA(UINT64_MAX - 1), 4096);
}

static void memory_is_provided(void **state)
{
	struct fixture *f = *state;
	uint8_t *p = mem_ram_ptr(f->m, GPA(MIB(1)), KIB(192));
	uint8_t *flags = mem_page_flags(f->m, p);
	uint8_t *last = (uint8_t *)mem_ram_base(f->m) + (mem_nr_pages(f->m) - 1) * PAGE_SIZE;

	mem_provide(f->m, p + KIB(64) - 1, 2);
	for (unsigned i = 0; i < 32; i++)
		assert_true(flags[i] & MEM_PAGE_READY);
	assert_false(flags[32] & MEM_PAGE_READY);
	assert_false(flags[-1] & MEM_PAGE_READY);
	assert_int_equal(p[0], 0);
	p[0] = 1;
	mem_provide(f->m, p, KIB(192));
	assert_true(flags[47] & MEM_PAGE_READY);
	assert_int_equal(p[0], 1);
	mem_provide(f->m, last, PAGE_SIZE);
	assert_true(*mem_page_flags(f->m, last) & MEM_PAGE_READY);
}

static bool soon_ready(const uint8_t *flags)
{
	for (unsigned i = 0; i < 5000; i++) {
		if (__atomic_load_n(flags, __ATOMIC_RELAXED) & MEM_PAGE_READY)
			return true;
		usleep(1000);
	}
	return false;
}

/* Whoever fills memory upwards finds more of it than he has asked for, to a limit. */
static void memory_is_provided_ahead(void **state)
{
	struct fixture *f = *state;
	uint8_t *p = mem_ram_ptr(f->m, GPA(MIB(64)), MIB(8));
	uint8_t *flags = mem_page_flags(f->m, p);

	mem_ahead_start(f->m);
	/* Not after three pieces, not over a block's end, not downwards: the last of these is answered, so
	 * the others would have been. */
	mem_provide(f->m, p + MIB(5), KIB(192));
	mem_provide(f->m, p + MIB(4) - KIB(256), KIB(256));
	for (unsigned i = 4; i; i--)
		mem_provide(f->m, p + MIB(7) + i * KIB(64), 1);
	p[0] = 1;
	mem_provide(f->m, p, KIB(256));
	assert_true(soon_ready(&flags[64]));
	assert_true(soon_ready(&flags[64 + 127]));
	assert_false(flags[64 + 128] & MEM_PAGE_READY);
	assert_false(flags[(MIB(5) + KIB(192)) / PAGE_SIZE] & MEM_PAGE_READY);
	assert_false(flags[MIB(4) / PAGE_SIZE] & MEM_PAGE_READY);
	assert_false(flags[(MIB(7) + KIB(320)) / PAGE_SIZE] & MEM_PAGE_READY);
	assert_int_equal(p[0], 1);
}

/* MiB of guest memory that this process maps in huge pages. */
static unsigned long long huge_mib(void)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	unsigned long long kib, sum = 0;
	char line[256];

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "ShmemPmdMapped: %llu kB", &kib) == 1)
			sum += kib;
	fclose(f);
	return sum >> 10;
}

static void ripe_memory_becomes_huge(void **state)
{
	struct fixture *f = *state;
	uint8_t *p = mem_ram_ptr(f->m, GPA(MIB(16)), MIB(6));
	volatile uint8_t *guests = p + 5000; /* who does not stop meanwhile */
	uint8_t n = 0;

	p[MIB(4)] = 1;
	if (madvise(p + MIB(4), MIB(2), MADV_COLLAPSE)) {
		print_message("this host puts no shared memory into huge pages (%s)\n", strerror(errno));
		skip();
	}
	mem_huge_start(f->m);
	for (unsigned i = 0; i < KIB(512); i += 4)
		memcpy(p + i, &i, 4);
	mem_provide(f->m, p, MIB(1));
	/* The other chunk has too little. */
	mem_provide(f->m, p + MIB(2), KIB(960));
	for (unsigned wait = 0; huge_mib() < 4 && wait < 10000; wait++) {
		*guests = ++n;
		usleep(1000);
		assert_int_equal(*guests, n);
	}
	assert_int_equal(huge_mib(), 4);
	*guests = (uint8_t)5000;
	for (unsigned i = 0; i < KIB(512); i += 4)
		assert_memory_equal(p + i, &i, 4);
	for (unsigned i = KIB(512); i < MIB(4); i += PAGE_SIZE)
		assert_int_equal(p[i], 0);
}

static uint64_t log_read(void *opaque, uint64_t offset, unsigned size)
{
	struct fixture *f = opaque;
	size_t n = strlen(f->log);
	snprintf(f->log + n, sizeof(f->log) - n, "r%x.%u ", (unsigned)offset, size);
	assert_true(mutex_held(&f->lock));
	return 0x8877665544332211ull + offset;
}

static void log_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct fixture *f = opaque;
	size_t n = strlen(f->log);
	snprintf(f->log + n, sizeof(f->log) - n, "w%x.%u=%llx ", (unsigned)offset, size,
		 (unsigned long long)value);
}

static uint64_t const_read(void *opaque, uint64_t offset, unsigned size)
{
	(void)offset;
	(void)size;
	return (uintptr_t)opaque;
}

static void mmio_dispatch(void **state)
{
	struct fixture *f = *state;
	struct io_region r = { .name = "dev",
			       .base = 0xd0000000,
			       .size = 0x14,
			       .read = log_read,
			       .write = log_write,
			       .opaque = f };
	assert_int_equal(mem_mmio_read(f->m, GPA(0xd0000000), 4), 0xffffffff);
	mem_map_mmio(f->m, &r);
	assert_int_equal(mem_mmio_read(f->m, GPA(0xd0000000), 8), 0x8877665544332211ull);
	assert_int_equal(mem_mmio_read(f->m, GPA(0xd0000001), 1), 0x12);
	mem_mmio_write(f->m, GPA(0xd0000002), 0xaabbccdd, 4);         /* unaligned: two halves */
	mem_mmio_write(f->m, GPA(0xd0000010), 0x1122334455667788, 8); /* past the end: the rest vanishes */
	assert_string_equal(f->log, "r0.8 r1.1 w2.2=ccdd w4.2=aabb w10.4=55667788 ");
	assert_int_equal(mem_mmio_read(f->m, GPA(0xd0000010), 8), 0xffffffff44332221ull);
	f->log[0] = 0;
	r.max_size = 2;
	mem_unmap_mmio(f->m, &r);
	assert_int_equal(mem_mmio_read(f->m, GPA(0xd0000000), 1), 0xff);
	r.base = 0xe0000000;
	mem_map_mmio(f->m, &r);
	mem_mmio_write(f->m, GPA(0xe0000000), 0x11223344, 4);
	assert_string_equal(f->log, "w0.2=3344 w2.2=1122 ");
	mem_unmap_mmio(f->m, &r);
	mem_unmap_mmio(f->m, &r);
}

static void later_regions_hide_earlier(void **state)
{
	struct fixture *f = *state;
	struct io_region a = { .base = 0xd0000000, .size = 0x100, .read = const_read, .opaque = (void *)1 };
	struct io_region b = { .base = 0xd0000040, .size = 0x10, .read = const_read, .opaque = (void *)2 };
	mem_map_mmio(f->m, &a);
	mem_map_mmio(f->m, &b);
	assert_int_equal(mem_mmio_read(f->m, GPA(0xd000003f), 1), 1);
	assert_int_equal(mem_mmio_read(f->m, GPA(0xd0000040), 1), 2);
	assert_int_equal(mem_mmio_read(f->m, GPA(0xd000004f), 1), 2);
	assert_int_equal(mem_mmio_read(f->m, GPA(0xd0000050), 1), 1);
	mem_map_mmio(f->m, &a); /* again: now the latest */
	assert_int_equal(mem_mmio_read(f->m, GPA(0xd0000040), 1), 1);
	mem_unmap_mmio(f->m, &a);
	assert_int_equal(mem_mmio_read(f->m, GPA(0xd0000040), 1), 2);
	assert_int_equal(mem_mmio_read(f->m, GPA(0xd0000050), 1), 0xff);
	/* Impossible ones are not visible; one may end with the address space. */
	struct io_region wraps = { .base = UINT64_MAX - 4, .size = 64, .read = const_read };
	struct io_region top = { .base = UINT64_MAX - 7, .size = 8, .read = const_read, .opaque = (void *)3 };
	mem_map_mmio(f->m, &wraps);
	assert_false(wraps.mapped);
	mem_map_mmio(f->m, &top);
	assert_int_equal(mem_mmio_read(f->m, GPA(UINT64_MAX), 1), 3);
}

static void ram_hides_regions(void **state)
{
	struct fixture *f = *state;
	struct io_region a = { .base = MEM_LOW_MAX - 0x1000,
			       .size = 0x2000,
			       .read = log_read,
			       .write = log_write,
			       .opaque = f };
	mem_map_mmio(f->m, &a);
	mem_mmio_write(f->m, GPA(MEM_LOW_MAX - 8), 5, 8);
	assert_string_equal(f->log, "");
	assert_int_equal(mem_mmio_read(f->m, GPA(MEM_LOW_MAX - 8), 8), 5);
	mem_mmio_write(f->m, GPA(MEM_LOW_MAX - 2), 0x11223344, 4); /* half and half */
	assert_string_equal(f->log, "w1000.1=22 w1001.1=11 ");
	assert_int_equal(mem_mmio_read(f->m, GPA(MEM_LOW_MAX - 2), 2), 0x3344);
}

static void pio_dispatch(void **state)
{
	struct fixture *f = *state;
	struct io_region a = {
		.base = 0x70, .size = 2, .max_size = 1, .read = log_read, .write = log_write, .opaque = f
	};
	struct io_region end = {
		.base = 0xffff, .size = 1, .read = log_read, .write = log_write, .opaque = f
	};
	mem_map_pio(f->m, &a);
	mem_map_pio(f->m, &end);
	assert_int_equal(mem_pio_read(f->m, 0x60, 4), 0xffffffff);
	assert_int_equal(mem_pio_read(f->m, 0x60, 1), 0xff);
	mem_pio_write(f->m, 0x70, 0x1234, 2);
	mem_pio_write(f->m, 0xffff, 0x11223344, 4);
	assert_string_equal(f->log, "w0.1=34 w1.1=12 w0.1=44 ");
	assert_int_equal(mem_pio_read(f->m, 0x71, 1), 0x12);
	assert_int_equal(mem_pio_read(f->m, 0xffff, 2), 0xff11);
}

struct race {
	struct mem *m;
	atomic_bool stop;
};

static void *reader(void *opaque)
{
	struct race *race = opaque;
	while (!atomic_load(&race->stop)) {
		uint64_t v = mem_mmio_read(race->m, GPA(0xd0000000), 4);
		assert_true(v == 42 || v == 0xffffffff);
	}
	return NULL;
}

static void moving_bar_is_safe(void **state)
{
	struct fixture *f = *state;
	struct race race = { .m = f->m };
	struct io_region r[2] = {
		{ .base = 0xd0000000, .size = 16, .read = const_read, .opaque = (void *)42 },
		{ .base = 0xd0000000, .size = 8, .read = const_read, .opaque = (void *)42, .unlocked = true },
	};
	pthread_t t[2];
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, reader, &race);
	for (int i = 0; i < 3000; i++) {
		mutex_lock(&f->lock);
		mem_map_mmio(f->m, &r[i % 2]);
		mutex_unlock(&f->lock);
		mutex_lock(&f->lock);
		mem_unmap_mmio(f->m, &r[i % 2]);
		mutex_unlock(&f->lock);
	}
	atomic_store(&race.stop, true);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
}

static void layout_changed(void *opaque)
{
	++*(int *)opaque;
}

static void keep_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	((uint64_t *)opaque)[0] = offset;
	((uint64_t *)opaque)[1] = value;
	((uint64_t *)opaque)[2] = size;
}

static void blocks_are_memory(void **state)
{
	struct fixture *f = *state;
	struct mem_block *rom;
	struct error err;
	bool readonly;
	int changes = 0;
	uint64_t wrote[3] = { 0 };
	assert_int_equal(mem_block_new(f->m, "rom", 100, &rom, &err), -ENOSPC);
	assert_int_equal(mem_block_new(f->m, "rom", MEM_BLOCKS_MAX + PAGE_SIZE, &rom, &err), -ENOSPC);
	assert_int_equal(mem_block_new(f->m, "rom", 4 * PAGE_SIZE, &rom, &err), 0);
	assert_int_equal(mem_block_size(rom), 4 * PAGE_SIZE);
	memcpy(mem_block_ptr(rom) + 2 * PAGE_SIZE, "romcode!", 8);
	mem_set_notifier(f->m,
			 &(struct mem_notifier){ .layout_changed = layout_changed, .opaque = &changes });

	struct io_region high = { .base = 0xffffe000,
				  .size = 2 * PAGE_SIZE,
				  .block = rom,
				  .block_offset = 2 * PAGE_SIZE,
				  .readonly = true,
				  .write = keep_write,
				  .opaque = wrote };
	mem_map_mmio(f->m, &high);
	assert_int_equal(changes, 1);
	uint8_t *p = mem_cpu_ptr(f->m, GPA(0xffffe000), 2 * PAGE_SIZE, &readonly);
	assert_ptr_equal(p, mem_block_ptr(rom) + 2 * PAGE_SIZE);
	assert_true(readonly);
	assert_true(mem_in_block(f->m, p));
	assert_null(mem_cpu_ptr(f->m, GPA(0xfffff000), PAGE_SIZE + 1, &readonly));
	assert_null(mem_ram_ptr(f->m, GPA(0xffffe000), 1));
	assert_int_equal(mem_mmio_read(f->m, GPA(0xffffe000), 4), 0x636d6f72);
	mem_mmio_write(f->m, GPA(0xffffe008), 0x1234, 2);
	assert_int_equal(wrote[0], 8);
	assert_int_equal(wrote[1], 0x1234);
	assert_memory_equal(p, "romcode!", 9);
	assert_int_equal(mem_write(f->m, GPA(0xffffe000), "x", 1), -EFAULT);
	char back[9] = "";
	assert_int_equal(mem_read(f->m, GPA(0xffffe000), back, 8), 0);
	assert_string_equal(back, "romcode!");
	/* A block's pages have names and flags of their own. */
	assert_true(mem_ptr_to_gpa(f->m, p).v >= GIB(4) + mem_high_ram_size(f->m));
	*mem_page_flags(f->m, p) |= MEM_PAGE_CODE;
	mem_unmap_mmio(f->m, &high);
	assert_int_equal(changes, 2);
	assert_int_equal(mem_mmio_read(f->m, GPA(0xffffe000), 4), 0xffffffff);

	/* Over RAM below 1 MiB: ROM, its read-only shadow, a device. */
	struct io_region shadow = {
		.base = 0xf0000, .size = 4 * PAGE_SIZE, .block = rom, .readonly = true, .over_ram = true
	};
	assert_int_equal(mem_write(f->m, GPA(0xf2000), "ram", 3), 0);
	mem_map_mmio(f->m, &shadow);
	assert_int_equal(mem_mmio_read(f->m, GPA(0xf2000), 4), 0x636d6f72);
	assert_null(mem_ram_ptr(f->m, GPA(0xf2000), 1));
	assert_null(mem_ram_ptr(f->m, GPA(0xef000), 2 * PAGE_SIZE));
	assert_non_null(mem_ram_ptr(f->m, GPA(0xef000), PAGE_SIZE));
	mem_unmap_mmio(f->m, &shadow);
	shadow.block = mem_ram_as_block(f->m);
	shadow.block_offset = 0xf0000;
	mem_map_mmio(f->m, &shadow);
	p = mem_cpu_ptr(f->m, GPA(0xf2000), 3, &readonly);
	assert_memory_equal(p, "ram", 3);
	assert_true(readonly);
	assert_false(mem_in_block(f->m, p));
	mem_mmio_write(f->m, GPA(0xf2000), 0, 4);
	assert_memory_equal(p, "ram", 3);
	mem_unmap_mmio(f->m, &shadow);
	struct io_region window = {
		.base = 0xa0000, .size = 0x20000, .over_ram = true, .read = const_read, .opaque = (void *)42
	};
	mem_map_mmio(f->m, &window);
	assert_int_equal(mem_mmio_read(f->m, GPA(0xb8000), 1), 42);
	assert_int_equal(mem_write(f->m, GPA(0x9ffff), "xy", 2), -EFAULT);
	mem_unmap_mmio(f->m, &window);
	assert_int_equal(mem_write(f->m, GPA(0x9ffff), "xy", 2), 0);
	mem_set_notifier(f->m, &(struct mem_notifier){ 0 });
}

static void a20_gate(void **state)
{
	struct fixture *f = *state;
	bool readonly;
	assert_int_equal(mem_write(f->m, GPA(0x10), "low", 3), 0);
	mem_set_a20(f->m, false);
	assert_memory_equal(mem_cpu_ptr(f->m, GPA(MIB(1) + 0x10), 3, &readonly), "low", 3);
	mem_mmio_write(f->m, GPA(MIB(1) + 0x10), 'L', 1);
	mem_set_a20(f->m, true);
	assert_memory_equal(mem_ram_ptr(f->m, GPA(0x10), 3), "Low", 3);
	assert_memory_equal(mem_cpu_ptr(f->m, GPA(MIB(1) + 0x10), 3, &readonly), "\0\0\0", 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refuses_odd_sizes),
		cmocka_unit_test_setup_teardown(ram_layout, setup, teardown),
		cmocka_unit_test_setup_teardown(copies_are_all_or_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(writes_mark_pages, setup, teardown),
		cmocka_unit_test_setup_teardown(mmio_dispatch, setup, teardown),
		cmocka_unit_test_setup_teardown(later_regions_hide_earlier, setup, teardown),
		cmocka_unit_test_setup_teardown(ram_hides_regions, setup, teardown),
		cmocka_unit_test_setup_teardown(pio_dispatch, setup, teardown),
		cmocka_unit_test_setup_teardown(blocks_are_memory, setup, teardown),
		cmocka_unit_test_setup_teardown(memory_is_provided, setup, teardown),
		cmocka_unit_test_setup_teardown(memory_is_provided_ahead, setup, teardown),
		cmocka_unit_test_setup_teardown(ripe_memory_becomes_huge, setup, teardown),
		cmocka_unit_test_setup_teardown(a20_gate, setup, teardown),
		cmocka_unit_test_setup_teardown(moving_bar_is_safe, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
