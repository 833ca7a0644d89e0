/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/util.h"
#include "block/block.h"

struct fixture {
	struct clock clock;
	struct mutex lock;
	struct loop *loop;
	char dir[64], path[96];
	struct error err;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	log_set_level(LOG_LEVEL_ERROR);
	clock_init(&f->clock);
	mutex_init(&f->lock, LOCK_RANK_IO, "io");
	assert_int_equal(loop_new(&f->clock, &f->lock, &f->loop, NULL), 0);
	strcpy(f->dir, "/tmp/sill-block-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/disk", f->dir);
	mutex_lock(&f->lock);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	mutex_unlock(&f->lock);
	unlink(f->path);
	rmdir(f->dir);
	loop_free(f->loop);
	mutex_destroy(&f->lock);
	free(f);
	return 0;
}

static void make_file(struct fixture *f, uint64_t size)
{
	int fd = open(f->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	close(fd);
}

struct result {
	bool done;
	int rc;
};

static void on_done(struct block_req *r, int rc)
{
	struct result *res = r->opaque;

	assert_false(res->done);
	res->done = true;
	res->rc = rc;
}

static int run_v(struct block *b, enum block_op op, uint64_t offset, uint64_t len, struct iovec *iov,
		 unsigned cnt, bool unmap)
{
	struct result res = { 0 };
	struct block_req r = { .op = op,
			       .unmap = unmap,
			       .offset = offset,
			       .len = len,
			       .iov = iov,
			       .iovcnt = cnt,
			       .done = on_done,
			       .opaque = &res };

	block_submit(b, &r);
	block_drain(b);
	assert_true(res.done);
	assert_int_equal(block_in_flight(b), 0);
	return res.rc;
}

static int run(struct block *b, enum block_op op, uint64_t offset, void *buf, uint64_t len)
{
	struct iovec iov = { buf, len };

	return run_v(b, op, offset, len, &iov, buf ? 1 : 0, false);
}

static void test_read_write(void **state)
{
	struct fixture *f = *state;
	struct block *b;
	uint8_t w[4096], r[4096] = { 0 };
	struct iovec iov[3] = { { r, 100 }, { r + 100, 1 }, { r + 101, sizeof(r) - 101 } };

	make_file(f, MIB(1));
	assert_int_equal(block_open(f->loop, f->path, false, BLOCK_FORMAT_RAW, &b, &f->err), 0);
	assert_int_equal(block_size(b), MIB(1));
	for (unsigned i = 0; i < sizeof(w); i++)
		w[i] = (uint8_t)(i * 7 + 1);
	assert_int_equal(run(b, BLOCK_WRITE, 512, w, sizeof(w)), 0);
	assert_int_equal(run(b, BLOCK_FLUSH, 0, NULL, 0), 0);
	assert_int_equal(run_v(b, BLOCK_READ, 512, sizeof(r), iov, 3, false), 0);
	assert_memory_equal(r, w, sizeof(r));

	/* Zeroes and discards read as zero on a file, and touch nothing else. */
	assert_int_equal(run(b, BLOCK_ZEROES, 1024, NULL, 512), 0);
	assert_int_equal(run_v(b, BLOCK_ZEROES, 2048, 512, NULL, 0, true), 0);
	assert_int_equal(run(b, BLOCK_DISCARD, MIB(1) - 512, NULL, 512), 0);
	assert_int_equal(run(b, BLOCK_READ, 512, r, sizeof(r)), 0);
	memset(w + 512, 0, 512);
	memset(w + 1536, 0, 512);
	assert_memory_equal(r, w, sizeof(r));

	/* Outside the disk */
	assert_int_equal(run(b, BLOCK_READ, MIB(1), r, 512), -EINVAL);
	assert_int_equal(run(b, BLOCK_READ, MIB(1) - 512, r, 1024), -EINVAL);
	assert_int_equal(run(b, BLOCK_WRITE, UINT64_MAX - 511, r, 512), -EINVAL);
	assert_int_equal(run(b, BLOCK_READ, 0, NULL, 0), 0);

	/* The file shrinks behind our back: an error, not a hang and not garbage. */
	assert_int_equal(truncate(f->path, 4096), 0);
	assert_int_equal(run(b, BLOCK_READ, 4096, r, 512), -EIO);
	block_close(b);
}

#define MANY 64
static void test_many_in_flight(void **state)
{
	struct fixture *f = *state;
	struct block *b;
	static uint8_t buf[MANY][MIB(1) / 4];
	struct iovec iov[MANY];
	struct block_req r[MANY];
	struct result res[MANY] = { 0 };
	uint8_t back[MIB(1) / 4];

	make_file(f, sizeof(buf));
	assert_int_equal(block_open(f->loop, f->path, false, BLOCK_FORMAT_RAW, &b, &f->err), 0);
	for (unsigned i = 0; i < MANY; i++) {
		memset(buf[i], (int)i + 1, sizeof(buf[i]));
		iov[i] = (struct iovec){ buf[i], sizeof(buf[i]) };
		r[i] = (struct block_req){ .op = BLOCK_WRITE,
					   .offset = i * sizeof(buf[i]),
					   .len = sizeof(buf[i]),
					   .iov = &iov[i],
					   .iovcnt = 1,
					   .done = on_done,
					   .opaque = &res[i] };
		block_submit(b, &r[i]);
	}
	block_drain(b);
	for (unsigned i = 0; i < MANY; i++) {
		assert_true(res[i].done);
		assert_int_equal(res[i].rc, 0);
		assert_int_equal(run(b, BLOCK_READ, i * sizeof(buf[i]), back, sizeof(back)), 0);
		assert_memory_equal(back, buf[i], sizeof(back));
	}
	block_close(b);
}

/* Larger reads are shared with a thread, in pieces; whoever does which, all must arrive. */
static void test_large_reads(void **state)
{
	struct fixture *f = *state;
	uint64_t size = MIB(5) + 1024;
	uint8_t *disk = malloc(size), *got = malloc(size);
	struct block *b;

	make_file(f, size - 600);
	for (uint64_t i = 0; i < size; i++)
		disk[i] = (uint8_t)(i >> 9 ^ i * 7);
	assert_int_equal(block_open(f->loop, f->path, false, BLOCK_FORMAT_RAW, &b, &f->err), 0);
	assert_int_equal(run(b, BLOCK_WRITE, 0, disk, block_size(b)), 0);
	size = block_size(b);
	for (unsigned i = 0; i < 200; i++) {
		uint64_t len = KIB(500) + i * 8192, at = (i * 77777 & ~511u) % (size - len), done = 0;
		struct iovec iov[64];
		unsigned n = 0;

		memset(got, 0, len);
		while (done < len) {
			iov[n].iov_base = got + done;
			iov[n].iov_len = n == 63 ? len - done : min_u64(len - done, i * 5000 * (n & 3));
			done += iov[n++].iov_len;
		}
		if (i % 8 == 7) {
			/* Not all of it is in memory any more. */
			int fd = open(f->path, O_RDONLY | O_CLOEXEC);

			fdatasync(fd);
			posix_fadvise(fd, (off_t)(at + len / 3), (off_t)(len / 3), POSIX_FADV_DONTNEED);
			close(fd);
		}
		assert_int_equal(run_v(b, BLOCK_READ, at, len, iov, n, false), 0);
		assert_memory_equal(got, disk + at, len);
	}
	/* The file ends within the last piece, then within an earlier one. */
	assert_int_equal(run(b, BLOCK_READ, size - MIB(1), got, MIB(1)), 0);
	assert_memory_equal(got, disk + size - MIB(1), MIB(1));
	assert_int_equal(truncate(f->path, (off_t)(size - KIB(700))), 0);
	assert_int_equal(run(b, BLOCK_READ, size - MIB(1), got, MIB(1)), -EIO);
	block_close(b);
	free(disk);
	free(got);
}

static void quit_done(struct block_req *r, int rc)
{
	struct fixture *f = r->opaque;

	assert_int_equal(rc, 0);
	assert_true(mutex_held(&f->lock));
	loop_quit(f->loop);
}

/* Completions arrive by the event loop when nobody drains. */
static void test_loop_completion(void **state)
{
	struct fixture *f = *state;
	struct block_req r = { .op = BLOCK_FLUSH, .done = quit_done, .opaque = f };
	struct block *b;

	make_file(f, 4096);
	assert_int_equal(block_open(f->loop, f->path, false, BLOCK_FORMAT_RAW, &b, &f->err), 0);
	block_submit(b, &r);
	assert_int_equal(block_in_flight(b), 1);
	mutex_unlock(&f->lock);
	loop_run(f->loop);
	mutex_lock(&f->lock);
	assert_int_equal(block_in_flight(b), 0);
	/* Closing right after a completion leaves nothing behind in the loop. */
	r.done = on_done;
	r.opaque = &(struct result){ 0 };
	block_submit(b, &r);
	block_close(b);
}

static void test_locking(void **state)
{
	struct fixture *f = *state;
	struct block *a = NULL, *b = NULL;

	make_file(f, 4096);
	assert_int_equal(block_open(f->loop, f->path, false, BLOCK_FORMAT_RAW, &a, &f->err), 0);
	assert_int_equal(block_open(f->loop, f->path, false, BLOCK_FORMAT_RAW, &b, &f->err), -EBUSY);
	assert_non_null(strstr(f->err.message, f->path));
	assert_non_null(strstr(f->err.message, "in use"));
	assert_int_equal(block_open(f->loop, f->path, true, BLOCK_FORMAT_RAW, &b, &f->err), -EBUSY);
	assert_null(b);
	block_close(a);
	assert_int_equal(block_open(f->loop, f->path, true, BLOCK_FORMAT_RAW, &a, &f->err), 0);
	assert_int_equal(block_open(f->loop, f->path, true, BLOCK_FORMAT_RAW, &b, &f->err), 0);
	assert_true(block_readonly(b));
	assert_int_equal(run(b, BLOCK_WRITE, 0, (uint8_t[512]){ 0 }, 512), -EROFS);
	assert_int_equal(run(b, BLOCK_DISCARD, 0, NULL, 512), -EROFS);
	block_close(a);
	block_close(b);
}

/* A file that ends within a sector, or before what the disk should have. */
static void test_short_file(void **state)
{
	struct fixture *f = *state;
	struct block *b;
	uint8_t w[2048], r[2048], zeroes[2048] = { 0 };

	memset(w, 0x5a, sizeof(w));
	make_file(f, 1000);
	assert_int_equal(block_open(f->loop, f->path, false, BLOCK_FORMAT_RAW, &b, &f->err), 0);
	assert_int_equal(block_size(b), 1024);
	assert_int_equal(run(b, BLOCK_WRITE, 0, w, 512), 0);
	memset(r, 0xff, sizeof(r));
	assert_int_equal(run(b, BLOCK_READ, 0, r, 1024), 0);
	assert_memory_equal(r, w, 512);
	assert_memory_equal(r + 512, zeroes, 512);
	assert_int_equal(run(b, BLOCK_READ, 512, r, 1024), -EINVAL);
	block_close(b);

	assert_int_equal(block_open(f->loop, f->path, false, BLOCK_FORMAT_RAW, &b, &f->err), 0);
	block_extend(b, 512);
	assert_int_equal(block_size(b), 1024);
	block_extend(b, 8192);
	assert_int_equal(block_size(b), 8192);
	memset(r, 0xff, sizeof(r));
	assert_int_equal(run(b, BLOCK_READ, 4096, r, 2048), 0);
	assert_memory_equal(r, zeroes, 2048);
	assert_int_equal(run(b, BLOCK_WRITE, 3072, w, 1024), 0);
	assert_int_equal(run(b, BLOCK_READ, 3584, r, 2048), 0);
	assert_memory_equal(r, w, 512);
	assert_memory_equal(r + 512, zeroes, 1536);
	assert_int_equal(run(b, BLOCK_READ, 7168, r, 2048), -EINVAL);
	block_close(b);
}

static void fails(struct fixture *f, const char *path, bool readonly, int code, const char *word)
{
	struct block *b = NULL;

	f->err.message[0] = 0;
	assert_int_equal(block_open(f->loop, path, readonly, BLOCK_FORMAT_RAW, &b, &f->err), -code);
	assert_null(b);
	assert_non_null(strstr(f->err.message, path));
	assert_non_null(strstr(f->err.message, word));
}

static void test_open_errors(void **state)
{
	struct fixture *f = *state;

	fails(f, f->path, false, ENOENT, "does not exist");
	fails(f, f->dir, false, EISDIR, "directory");
	fails(f, f->dir, true, EISDIR, "directory");
	fails(f, "/dev/null", true, EINVAL, "neither a file");
	make_file(f, 0);
	fails(f, f->path, false, EINVAL, "is empty");
	block_close(NULL);
	assert_int_equal(mkfifo((unlink(f->path), f->path), 0600), 0);
	fails(f, f->path, true, EINVAL, "neither a file");
	unlink(f->path);
	make_file(f, 4096);
	assert_int_equal(chmod(f->path, 0400), 0);
	if (geteuid()) /* root may write anyway */
		fails(f, f->path, false, EACCES, "read-only");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_read_write, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_in_flight, setup, teardown),
		cmocka_unit_test_setup_teardown(test_large_reads, setup, teardown),
		cmocka_unit_test_setup_teardown(test_loop_completion, setup, teardown),
		cmocka_unit_test_setup_teardown(test_locking, setup, teardown),
		cmocka_unit_test_setup_teardown(test_short_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_open_errors, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
