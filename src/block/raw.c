/* SPDX-License-Identifier: Apache-2.0 */
/* Raw disk images: byte n of the disk is byte n of the file or block device. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "base/iov.h"
#include "base/util.h"
#include "block/block_internal.h"

/*
 * From this size on, the host begins at once to write to its disk what it was given.
 * A guest that flushes after much data waits for less then; smaller writes, which may
 * be followed by others to the same place, wait for a flush or for the host's own time.
 */
#define EARLY KIB(256)

struct raw {
	int fd;
	bool is_device;
	uint64_t end; /* of the file, when it was opened */
	/* What the file system turned out not to support, so as not to ask again. Any thread. */
	atomic_bool no_read_now, no_write_now, no_punch, no_zero_range;
};

static int raw_open(int fd, const char *path, bool readonly, void **ret_state, uint64_t *ret_size,
		    struct error *err)
{
	struct raw *r;
	struct stat st;
	off_t end;

	(void)readonly;
	if (fstat(fd, &st) < 0 || (end = lseek(fd, 0, SEEK_END)) < 0) {
		int code = errno;

		return error_set(err, code, "cannot find the size of disk '%s': %s", path, strerror(code));
	}
	r = calloc(1, sizeof(*r));
	if (!r)
		return error_set(err, ENOMEM, "not enough memory to open disk '%s'", path);
	r->fd = fd;
	r->is_device = S_ISBLK(st.st_mode);
	r->end = (uint64_t)end;
	*ret_state = r;
	*ret_size = (uint64_t)end;
	return 0;
}

static void raw_close(void *state)
{
	free(state);
}

/* Moves the request's start n bytes on. */
static void advance(struct block_req *r, size_t n)
{
	r->offset += n;
	r->len -= n;
	iov_cut_front(&r->iov, &r->iovcnt, n);
}

/* The rest of a read, beyond the end of the file. */
static void read_nothing(struct block_req *r)
{
	for (unsigned i = 0; i < r->iovcnt; i++)
		memset(r->iov[i].iov_base, 0, r->iov[i].iov_len);
	r->len = 0;
}

static int transfer_count(const struct block_req *r)
{
	return r->iovcnt > IOV_MAX ? IOV_MAX : (int)r->iovcnt;
}

static int raw_rw(struct raw *raw, struct block_req *r)
{
	uint64_t offset = r->offset, len = r->len;

	while (r->len) {
		ssize_t n = r->op == BLOCK_READ
				? preadv(raw->fd, r->iov, transfer_count(r), (off_t)r->offset)
				: pwritev(raw->fd, r->iov, transfer_count(r), (off_t)r->offset);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (n == 0 && r->op == BLOCK_READ && r->offset >= raw->end)
			read_nothing(r);
		else if (n == 0) /* the file was cut behind our back */
			return -EIO;
		else
			advance(r, (size_t)n);
	}
	if (r->op == BLOCK_WRITE && len >= EARLY)
		sync_file_range(raw->fd, (off_t)offset, (off_t)len, SYNC_FILE_RANGE_WRITE);
	return 0;
}

/* Zeroes by writing them, where the file system has nothing better. */
static int write_zeroes(struct raw *raw, uint64_t offset, uint64_t len)
{
	static const uint8_t zeroes[16 << 10];
	struct iovec iov[64];

	while (len) {
		uint64_t want = min_u64(len, sizeof(zeroes) * ARRAY_SIZE(iov));
		uint64_t left = want;
		int cnt = 0;
		ssize_t n;

		for (; left; cnt++) {
			iov[cnt].iov_base = (void *)(uintptr_t)zeroes;
			iov[cnt].iov_len = (size_t)min_u64(left, sizeof(zeroes));
			left -= iov[cnt].iov_len;
		}
		n = pwritev(raw->fd, iov, cnt, (off_t)offset);
		if (n < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (n == 0)
			return -EIO;
		offset += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

/* fallocate with its "not here" answers folded into -EOPNOTSUPP and remembered. */
static int try_fallocate(struct raw *raw, atomic_bool *unsupported, int mode, uint64_t offset, uint64_t len)
{
	if (atomic_load(unsupported))
		return -EOPNOTSUPP;
	while (fallocate(raw->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len) < 0) {
		if (errno == EINTR)
			continue;
		if (errno != EOPNOTSUPP && errno != ENOSYS && errno != ENODEV)
			return -errno;
		atomic_store(unsupported, true);
		return -EOPNOTSUPP;
	}
	return 0;
}

static int raw_discard(struct raw *raw, uint64_t offset, uint64_t len)
{
	int rc;

	if (raw->is_device) {
		uint64_t range[2] = { offset, len };

		rc = ioctl(raw->fd, BLKDISCARD, range) < 0 ? -errno : 0;
	} else {
		rc = try_fallocate(raw, &raw->no_punch, FALLOC_FL_PUNCH_HOLE, offset, len);
	}
	return rc == -EOPNOTSUPP || rc == -ENOTTY || rc == -EINVAL ? 0 : rc; /* it is only a hint */
}

static int raw_zeroes(struct raw *raw, uint64_t offset, uint64_t len, bool unmap)
{
	int rc = -EOPNOTSUPP;

	if (unmap)
		rc = try_fallocate(raw, &raw->no_punch, FALLOC_FL_PUNCH_HOLE, offset, len);
	if (rc == -EOPNOTSUPP)
		rc = try_fallocate(raw, &raw->no_zero_range, FALLOC_FL_ZERO_RANGE, offset, len);
	if (rc == -EOPNOTSUPP || rc == -EINVAL)
		rc = write_zeroes(raw, offset, len);
	return rc;
}

static int raw_run(void *state, struct block_req *r)
{
	struct raw *raw = state;

	switch (r->op) {
	case BLOCK_READ:
	case BLOCK_WRITE:
		return raw_rw(raw, r);
	case BLOCK_FLUSH:
		return fdatasync(raw->fd) < 0 ? -errno : 0;
	case BLOCK_DISCARD:
		return raw_discard(raw, r->offset, r->len);
	case BLOCK_ZEROES:
		return raw_zeroes(raw, r->offset, r->len, r->unmap);
	}
	return -EINVAL;
}

/* RWF_NOWAIT: done from (or into) the page cache, or -EAGAIN. What it did in part, run() finishes. */
static int raw_try_now(void *state, struct block_req *r)
{
	struct raw *raw = state;
	atomic_bool *unsupported;
	ssize_t n;

	if (r->op == BLOCK_READ)
		unsupported = &raw->no_read_now;
	else if (r->op == BLOCK_WRITE)
		unsupported = &raw->no_write_now;
	else
		return -EAGAIN;
	if (atomic_load(unsupported))
		return -EAGAIN;
	n = r->op == BLOCK_READ ? preadv2(raw->fd, r->iov, transfer_count(r), (off_t)r->offset, RWF_NOWAIT)
				: pwritev2(raw->fd, r->iov, transfer_count(r), (off_t)r->offset, RWF_NOWAIT);
	if (n < 0 && (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL))
		atomic_store(unsupported, true);
	if (n > 0)
		advance(r, (size_t)n);
	return r->len ? -EAGAIN : 0; /* real errors show again in run() */
}

/* File systems take the file's lock for each buffered write, and whoever waits for it spins. */
static bool raw_one_writer(void *state)
{
	return !((struct raw *)state)->is_device;
}

const struct block_driver block_raw = {
	.name = "raw",
	.open = raw_open,
	.close = raw_close,
	.run = raw_run,
	.try_now = raw_try_now,
	.one_writer = raw_one_writer,
};
