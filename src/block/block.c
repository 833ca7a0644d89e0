/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening, locking, and the pool of I/O threads.
 *
 * A request moves: submitted -> todo list -> a worker's hands -> done list ->
 * its callback.  `lock` guards the two lists and the counters; callbacks run
 * without it but under the I/O lock, so a callback may submit again.  Where
 * writes would only wait for each other (`one_writer`), one thread has them all:
 * those that come meanwhile wait in `writes`, without a thread.  The number in
 * flight counts from submission to just before the callback, and only changes
 * under the I/O lock.
 *
 * A large read of what the host has in memory is nothing but copying, which two
 * processors do faster than one: the caller and a thread take piece after piece of
 * it until none is left (struct crew).  Where no processor is idle the thread comes
 * too late and finds nothing to do.
 */
#include "block/block.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/thread.h"
#include "base/util.h"
#include "block/block_internal.h"

#define MAX_THREADS 4u
/* Bigger transfers go to a thread even if cached: copying them would hold the I/O lock for too long. */
#define MAX_INLINE KIB(2048)
/* Reads from this size on are shared with a thread, piece by piece. */
#define MIN_SHARED KIB(512)
#define PIECE      KIB(128)
/* How many times the caller looks whether the thread has done its last piece: up to about 0.1 ms. */
#define PATIENCE 1500u

struct req_list {
	struct block_req *head, **tail;
};

struct block {
	const struct block_driver *drv;
	void *state;
	struct loop *loop;
	int fd;
	bool readonly;
	uint64_t size;
	unsigned in_flight; /* I/O lock */

	struct mutex lock;
	pthread_cond_t todo_cond;   /* something in todo, or stop */
	pthread_cond_t done_cond;   /* something in done */
	struct req_list todo, done; /* lock */
	bool shares;                /* large reads: the host has more than one processor */
	bool one_writer;
	bool writing;            /* lock; one_writer: a write is in todo or in a worker's hands */
	struct req_list writes;  /* lock */
	unsigned ntodo;          /* lock */
	unsigned nthreads, idle; /* lock; nthreads written under the I/O lock */
	bool stop;               /* lock */
	pthread_t threads[MAX_THREADS];
	struct loop_work work; /* runs the callbacks of the done list */
};

static void list_init(struct req_list *l)
{
	l->head = NULL;
	l->tail = &l->head;
}

static void list_add(struct req_list *l, struct block_req *r)
{
	r->next = NULL;
	*l->tail = r;
	l->tail = &r->next;
}

/* False: it is not there. */
static bool list_remove(struct req_list *l, struct block_req *r)
{
	struct block_req **p = &l->head;

	while (*p && *p != r)
		p = &(*p)->next;
	if (!*p)
		return false;
	*p = r->next;
	if (!*p)
		l->tail = p;
	return true;
}

static struct block_req *list_take(struct req_list *l)
{
	struct block_req *r = l->head;

	if (r) {
		l->head = r->next;
		if (!l->head)
			l->tail = &l->head;
	}
	return r;
}

/* ---- large reads ---- */

/*
 * Whoever leaves last sees to what comes next.  `again` is a piece that the caller found not to be in
 * memory; it is left to the thread.
 */
struct crew {
	struct block_req *whole;
	struct block_req help; /* what the thread is given */
	atomic_uint next;      /* piece to be taken */
	atomic_uint again;     /* NO_PIECE if none */
	atomic_uint members;
	atomic_int result;
	unsigned n;
	struct block_req piece[MAX_INLINE / PIECE];
	struct iovec iov[];
};

#define NO_PIECE UINT_MAX

static void crew_note(struct crew *c, int result)
{
	int none = 0;

	if (result)
		atomic_compare_exchange_strong(&c->result, &none, result);
}

/* The thread's part, and that of a request that is not shared. False: no callback is due. */
static bool run_request(struct block *b, struct block_req *r)
{
	struct crew *c = r->crew;
	unsigned i;

	if (!c) {
		r->result = b->drv->run(b->state, r);
		return true;
	}
	while ((i = atomic_fetch_add(&c->next, 1)) < c->n ||
	       (i = atomic_exchange(&c->again, NO_PIECE)) != NO_PIECE)
		crew_note(c, b->drv->run(b->state, &c->piece[i]));
	return atomic_fetch_sub(&c->members, 1) == 1;
}

/* ---- the threads ---- */

static void *worker(void *opaque)
{
	struct block *b = opaque;
	struct block_req *next = NULL;

	mutex_lock(&b->lock);
	for (;;) {
		struct block_req *r = next ? next : list_take(&b->todo);
		bool report;

		if (!r) {
			if (b->stop)
				break;
			b->idle++;
			pthread_cond_wait(&b->todo_cond, &b->lock.m);
			b->idle--;
			continue;
		}
		if (r != next)
			b->ntodo--;
		mutex_unlock(&b->lock);
		report = run_request(b, r);
		mutex_lock(&b->lock);
		if (!report)
			continue;
		if (b->one_writer && r->op == BLOCK_WRITE) {
			next = list_take(&b->writes);
			b->writing = next;
		} else {
			next = NULL;
		}
		list_add(&b->done, r);
		pthread_cond_signal(&b->done_cond);
		mutex_unlock(&b->lock);
		loop_post(b->loop, &b->work);
		mutex_lock(&b->lock);
	}
	mutex_unlock(&b->lock);
	return NULL;
}

/* One more thread, if the host gives it. */
static void start_thread(struct block *b)
{
	if (thread_start(&b->threads[b->nthreads], "sill-block", KIB(256), worker, b) == 0)
		b->nthreads++;
}

/* Runs the callbacks of what is done; true if there was something. One at a time: a callback may drain. [io]
 */
static bool run_done(struct block *b)
{
	bool any = false;

	for (;;) {
		struct block_req *r;

		mutex_lock(&b->lock);
		r = list_take(&b->done);
		mutex_unlock(&b->lock);
		if (!r)
			return any;
		any = true;
		b->in_flight--;
		r->done(r, r->result);
	}
}

static void done_work(void *opaque)
{
	run_done(opaque);
}

/* ---- requests ---- */

static int check(const struct block *b, const struct block_req *r)
{
	if (r->op == BLOCK_FLUSH)
		return 0;
	if (r->offset > b->size || r->len > b->size - r->offset)
		return -EINVAL;
	if (r->op != BLOCK_READ && b->readonly)
		return -EROFS;
	return 0;
}

/* Has a thread do the request. */
static void submit_to_thread(struct block *b, struct block_req *r)
{
	bool todo_only = false;

	b->in_flight++;
	mutex_lock(&b->lock);
	if (r->op == BLOCK_WRITE && b->writing) {
		list_add(&b->writes, r);
		mutex_unlock(&b->lock);
		return;
	}
	/* An idle thread that was just given something may not have woken yet: hence the comparison. */
	if (b->idle <= b->ntodo && b->nthreads < MAX_THREADS)
		start_thread(b);
	if (b->nthreads) {
		list_add(&b->todo, r);
		b->ntodo++;
		b->writing = b->writing || (b->one_writer && r->op == BLOCK_WRITE);
		pthread_cond_signal(&b->todo_cond);
		todo_only = true;
	}
	mutex_unlock(&b->lock);
	if (todo_only)
		return;
	/* No thread to be had at all: slow, but right. */
	if (run_request(b, r)) {
		b->in_flight--;
		r->done(r, r->result);
	}
}

/* The request, or -EAGAIN if that needs a thread. */
static int try_now(struct block *b, struct block_req *r)
{
	return b->drv->try_now && r->len <= MAX_INLINE ? b->drv->try_now(b->state, r) : -EAGAIN;
}

static void crew_done(struct crew *c)
{
	c->whole->done(c->whole, atomic_load(&c->result));
	free(c);
}

/* As callbacks: of a piece that was left over, and of the thread's part. */
static void piece_done(struct block_req *r, int result)
{
	crew_note(r->opaque, result);
	crew_done(r->opaque);
}

static void help_done(struct block_req *r, int result)
{
	(void)result;
	crew_done(r->opaque);
}

/* NULL: no memory. */
static struct crew *crew_new(struct block_req *r)
{
	unsigned n = (unsigned)((r->len + PIECE - 1) / PIECE), left = r->iovcnt;
	struct crew *c = calloc(1, sizeof(*c) + (r->iovcnt + n) * sizeof(struct iovec));
	struct iovec *to, *from = r->iov, head;

	if (!c)
		return NULL;
	to = c->iov;
	head = *from;
	c->whole = r;
	c->n = n;
	c->again = NO_PIECE;
	c->help = (struct block_req){ .op = BLOCK_READ, .done = help_done, .opaque = c, .crew = c };
	for (unsigned i = 0; i < n; i++) {
		uint64_t at = (uint64_t)i * PIECE, len = min_u64(PIECE, r->len - at);

		c->piece[i] = (struct block_req){ .op = BLOCK_READ,
						  .offset = r->offset + at,
						  .len = len,
						  .iov = to,
						  .done = piece_done,
						  .opaque = c };
		while (len && left) {
			*to = head;
			to->iov_len = (size_t)min_u64(head.iov_len, len);
			head.iov_base = (uint8_t *)head.iov_base + to->iov_len;
			head.iov_len -= to->iov_len;
			len -= to->iov_len;
			if (!head.iov_len && --left)
				head = *++from;
			to++;
		}
		c->piece[i].iovcnt = (unsigned)(to - c->piece[i].iov);
	}
	return c;
}

/* If the thread has not begun, it need not. */
static void call_off(struct block *b, struct crew *c)
{
	mutex_lock(&b->lock);
	if (list_remove(&b->todo, &c->help)) {
		b->ntodo--;
		atomic_fetch_sub(&c->members, 1);
	}
	mutex_unlock(&b->lock);
}

/* False: the first piece is not in memory, or there is no memory; nothing was begun. */
static bool read_shared(struct block *b, struct block_req *r)
{
	struct crew *c = crew_new(r);
	unsigned i = 0;
	int rc;

	if (!c)
		return false;
	rc = try_now(b, &c->piece[0]);
	if (rc == -EAGAIN) {
		free(c);
		return false;
	}
	atomic_store(&c->members, 2);
	atomic_store(&c->next, 1);
	submit_to_thread(b, &c->help);
	do {
		crew_note(c, rc);
		i = atomic_fetch_add(&c->next, 1);
		if (i >= c->n)
			break;
		rc = try_now(b, &c->piece[i]);
	} while (rc != -EAGAIN);
	if (i < c->n)
		atomic_store(&c->again, i);
	else
		call_off(b, c);
	for (unsigned k = 0; k < PATIENCE && i >= c->n && atomic_load(&c->members) > 1; k++)
		__builtin_ia32_pause();
	if (atomic_fetch_sub(&c->members, 1) > 1)
		return true;
	b->in_flight--;
	i = atomic_load(&c->again);
	if (i != NO_PIECE)
		submit_to_thread(b, &c->piece[i]);
	else
		crew_done(c);
	return true;
}

void block_submit(struct block *b, struct block_req *r)
{
	int rc = check(b, r);

	r->crew = NULL;
	if (!rc && r->len == 0 && r->op != BLOCK_FLUSH) {
		r->done(r, 0);
		return;
	}
	if (!rc && r->op == BLOCK_READ && r->len >= MIN_SHARED && r->len <= MAX_INLINE && b->shares) {
		if (read_shared(b, r))
			return;
		rc = -EAGAIN;
	} else if (!rc) {
		rc = try_now(b, r);
	}
	if (rc != -EAGAIN)
		r->done(r, rc);
	else
		submit_to_thread(b, r);
}

void block_drain(struct block *b)
{
	while (b->in_flight) {
		if (run_done(b))
			continue;
		mutex_lock(&b->lock);
		while (!b->done.head)
			pthread_cond_wait(&b->done_cond, &b->lock.m);
		mutex_unlock(&b->lock);
	}
}

unsigned block_in_flight(const struct block *b)
{
	return b->in_flight;
}

uint64_t block_size(const struct block *b)
{
	return b->size;
}

void block_extend(struct block *b, uint64_t size)
{
	if (size > b->size)
		b->size = size;
}

bool block_readonly(const struct block *b)
{
	return b->readonly;
}

/* ---- opening ---- */

static int lock_file(int fd, const char *path, bool readonly, struct error *err)
{
	/* An open-file-description lock: goes away with the file, and works between VMs of one process too.
	 */
	struct flock fl = { .l_type = readonly ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET };

	if (fcntl(fd, F_OFD_SETLK, &fl) == 0)
		return 0;
	if (errno != EAGAIN && errno != EACCES) {
		/* Some network file systems have only the other kind. */
		if (flock(fd, (readonly ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0)
			return 0;
		if (errno != EWOULDBLOCK) {
			log_warn(
			    "the file system of disk '%s' has no locks: take care to use it in one VM only",
			    path);
			return 0;
		}
	}
	if (readonly)
		return error_set(
		    err, EBUSY, "disk '%s' is being written to by another VM or program: stop that one first",
		    path);
	return error_set(
	    err, EBUSY,
	    "disk '%s' is in use by another VM or program: stop that one, or open it read-only in both",
	    path);
}

static int open_file(const char *path, bool readonly, int *ret_fd, struct error *err)
{
	/* O_NONBLOCK: so that a FIFO by mistake does not hang; it changes nothing for files and disks. */
	int fd = open(path, (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0) {
		int code = errno;

		switch (code) {
		case ENOENT:
			return error_set(
			    err, code, "disk '%s' does not exist: check the path, or create the image first",
			    path);
		case EISDIR:
			return error_set(
			    err, code, "disk '%s' is a directory: give the path of a disk image file", path);
		case EACCES:
		case EPERM:
		case EROFS:
			if (!readonly && access(path, R_OK) == 0)
				return error_set(
				    err, code,
				    "disk '%s' cannot be written to: make the file writable, or open it "
				    "read-only (readonly=on)",
				    path);
			return error_set(err, code,
					 "no permission to read disk '%s': change the file's mode or owner",
					 path);
		default:
			return error_set(err, code, "cannot open disk '%s': %s", path, strerror(code));
		}
	}
	if (fstat(fd, &st) < 0) {
		int code = errno;

		close(fd);
		return error_set(err, code, "cannot examine disk '%s': %s", path, strerror(code));
	}
	if (S_ISDIR(st.st_mode)) {
		close(fd);
		return error_set(err, EISDIR, "disk '%s' is a directory: give the path of a disk image file",
				 path);
	}
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		close(fd);
		return error_set(
		    err, EINVAL,
		    "disk '%s' is neither a file nor a block device: give the path of a disk image file",
		    path);
	}
	*ret_fd = fd;
	return 0;
}

static const struct block_driver *find_driver(enum block_format format)
{
	switch (format) {
	case BLOCK_FORMAT_RAW:
		return &block_raw;
	}
	return NULL;
}

int block_open(struct loop *loop, const char *path, bool readonly, enum block_format format,
	       struct block **ret, struct error *err)
{
	const struct block_driver *drv = find_driver(format);
	struct block *b;
	int rc;

	if (!drv)
		return error_set(err, EINVAL, "disk '%s': unknown format %d: the known one is raw", path,
				 (int)format);
	b = calloc(1, sizeof(*b));
	if (!b)
		return error_set(err, ENOMEM, "not enough memory to open disk '%s'", path);
	b->fd = -1;
	b->drv = drv;
	b->loop = loop;
	b->readonly = readonly;
	rc = open_file(path, readonly, &b->fd, err);
	if (!rc)
		rc = lock_file(b->fd, path, readonly, err);
	if (!rc)
		rc = drv->open(b->fd, path, readonly, &b->state, &b->size, err);
	if (!rc && !b->size) {
		rc = error_set(err, EINVAL, "disk '%s' is empty: enlarge it (truncate -s 1G)", path);
		drv->close(b->state);
	}
	if (rc) {
		if (b->fd >= 0)
			close(b->fd);
		free(b);
		return rc;
	}
	/* What a small system's build puts behind its boot sector may end anywhere. */
	b->size = align_up(b->size, BLOCK_SECTOR);
	mutex_init(&b->lock, LOCK_RANK_LEAF, "block");
	pthread_cond_init(&b->todo_cond, NULL);
	pthread_cond_init(&b->done_cond, NULL);
	list_init(&b->todo);
	list_init(&b->writes);
	b->shares = drv->try_now && thread_processors() > 1;
	b->one_writer = drv->one_writer && drv->one_writer(b->state);
	list_init(&b->done);
	b->work = (struct loop_work){ .fn = done_work, .opaque = b };
	*ret = b;
	return 0;
}

void block_close(struct block *b)
{
	if (!b)
		return;
	block_drain(b);
	mutex_lock(&b->lock);
	b->stop = true;
	pthread_cond_broadcast(&b->todo_cond);
	mutex_unlock(&b->lock);
	for (unsigned i = 0; i < b->nthreads; i++)
		pthread_join(b->threads[i], NULL);
	loop_unpost(b->loop, &b->work);
	pthread_cond_destroy(&b->todo_cond);
	pthread_cond_destroy(&b->done_cond);
	mutex_destroy(&b->lock);
	b->drv->close(b->state);
	close(b->fd);
	free(b);
}
