/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One implementation serves all backends: an input file, an output file and a
 * buffer between the device and the output.  A socket is the case where both are
 * the same file, which comes and goes.
 *
 * Writes never block: a file is written only after poll said that it takes
 * something, and then at most WRITE_CHUNK bytes, which is what pipes promise to
 * take without blocking (PIPE_BUF).  Regular files, which epoll refuses, always
 * take and give; input from one is read a piece at a time by a timer that is due at once.
 *
 * Standard output and files are written at the end of a line, when much has come together, or
 * OUTPUT_DELAY_NS after it came, so that a guest's character is not a system call.
 */
#include "dev/chardev.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/util.h"

#define WRITE_CHUNK     4096
#define READ_CHUNK      512
#define OUTPUT_ENOUGH   256
#define OUTPUT_DELAY_NS 4000000
#define LAST_WORDS_MS   1000
#define ESCAPE_KEY      0x01

struct fd_chardev {
	struct chardev c;
	struct loop *loop;
	int in, out, listener; /* -1: none */
	bool close_fds;
	bool is_socket; /* in is a client's connection, and out too until it fails */
	bool hung_up;   /* the client left; what it sent may still wait */
	bool in_plain;  /* epoll does not take it: read by the timer */
	struct loop_watch in_watch, out_watch, listen_watch;
	struct loop_timer timer, out_timer;

	uint8_t buffer[CHARDEV_BUFFER]; /* ring */
	size_t head, used;
	bool refused; /* the reader wants to hear of room */
	bool gather;  /* output may wait a little for more */

	void (*escape)(void *opaque, uint8_t c);
	void *escape_opaque;
	bool escape_seen;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
};

/* ---- the front ---- */

void chardev_set_reader(struct chardev *c, const struct chardev_reader *r)
{
	if (!c)
		return;
	c->reader = r ? *r : (struct chardev_reader){ 0 };
	c->ops->reader_ready(c, true);
}

size_t chardev_write(struct chardev *c, const void *buf, size_t len)
{
	return c ? c->ops->write(c, buf, len) : len;
}

void chardev_reader_ready(struct chardev *c)
{
	if (c)
		c->ops->reader_ready(c, false);
}

void chardev_free(struct chardev *c)
{
	if (c)
		c->ops->free(c);
}

static size_t reader_room(const struct fd_chardev *f)
{
	return f->c.reader.room ? f->c.reader.room(f->c.reader.opaque) : 0;
}

/* ---- watching ---- */

/*
 * A watch without events would still report hang-ups, over and over: it is deleted instead. in and out may be
 * the same file, which epoll takes but once, so a socket has one watch for both directions.
 */
static int set_watch(struct fd_chardev *f, struct loop_watch *w, int fd, uint32_t events)
{
	if (w->active && (!events || w->fd != fd))
		loop_watch_del(f->loop, w);
	if (!events || fd < 0)
		return 0;
	if (w->active)
		return loop_watch_mod(f->loop, w, events);
	w->fd = fd;
	w->events = events;
	return loop_watch_add(f->loop, w);
}

static void update_watches(struct fd_chardev *f)
{
	uint32_t in = f->in >= 0 && reader_room(f) ? EPOLLIN : 0;
	uint32_t out = f->out >= 0 && f->used ? EPOLLOUT : 0;

	if (f->in >= 0 && f->in == f->out) {
		/* Even with nothing to say or hear, a client that goes away should be noticed, once. */
		set_watch(f, &f->in_watch, f->in, in | out | (f->is_socket && !f->hung_up ? EPOLLRDHUP : 0));
		return;
	}
	if (!f->in_plain && set_watch(f, &f->in_watch, f->in, in) == -EPERM)
		f->in_plain = true;
	if (f->in_plain && in)
		loop_timer_arm(&f->timer, clock_now_ns(loop_clock(f->loop)));
	set_watch(f, &f->out_watch, f->out, out);
}

/* ---- output ---- */

static bool takes_output(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	return poll(&p, 1, 0) > 0;
}

/* The output is gone for good: what was for it is dropped. Input lives on until its own end. */
static void output_failed(struct fd_chardev *f)
{
	if (f->out != f->in) {
		set_watch(f, &f->out_watch, f->out, 0);
		if (f->close_fds)
			close(f->out);
	}
	f->hung_up = true;
	f->out = -1;
	f->used = 0;
}

/* Writes what the file takes now. */
static void flush(struct fd_chardev *f)
{
	while (f->used && f->out >= 0 && takes_output(f->out)) {
		size_t n = min_u64(min_u64(f->used, CHARDEV_BUFFER - f->head), WRITE_CHUNK);
		ssize_t w = f->is_socket ? send(f->out, f->buffer + f->head, n, MSG_DONTWAIT | MSG_NOSIGNAL)
					 : write(f->out, f->buffer + f->head, n);

		if (w < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (w <= 0) {
			output_failed(f);
			break;
		}
		f->head = (f->head + w) % CHARDEV_BUFFER;
		f->used -= w;
	}
}

static void tell_writable(struct fd_chardev *f)
{
	if (!f->refused || f->used == CHARDEV_BUFFER)
		return;
	f->refused = false;
	if (f->c.reader.writable)
		f->c.reader.writable(f->c.reader.opaque);
}

static void put(struct fd_chardev *f, const uint8_t *buf, size_t len)
{
	for (size_t i = 0; i < len; i++)
		f->buffer[(f->head + f->used + i) % CHARDEV_BUFFER] = buf[i];
	f->used += len;
}

static size_t fd_write(struct chardev *c, const uint8_t *buf, size_t len)
{
	struct fd_chardev *f = (struct fd_chardev *)c;
	size_t room = CHARDEV_BUFFER - f->used;

	if (f->out < 0 && f->listener < 0)
		return len; /* nobody will ever read it */
	if (f->out < 0 && len > room && len <= CHARDEV_BUFFER) {
		/* No client yet: the oldest bytes make place. */
		f->head = (f->head + (len - room)) % CHARDEV_BUFFER;
		f->used -= len - room;
		room = len;
	}
	if (len > room) {
		len = room;
		f->refused = true;
	}
	put(f, buf, len);
	if (!f->gather || f->used >= OUTPUT_ENOUGH || memchr(buf, '\n', len)) {
		flush(f);
		update_watches(f);
	} else if (!f->out_timer.armed) {
		loop_timer_arm(&f->out_timer, clock_now_ns(loop_clock(f->loop)) + OUTPUT_DELAY_NS);
	}
	return len;
}

/* ---- input ---- */

static void drop_client(struct fd_chardev *f);

/* Takes Ctrl-A sequences out of buf; the new length. */
static size_t filter_escape(struct fd_chardev *f, uint8_t *buf, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; f->escape && i < len; i++) {
		bool was = f->escape_seen;

		f->escape_seen = !was && buf[i] == ESCAPE_KEY;
		if (f->escape_seen)
			continue;
		if (!was || buf[i] == ESCAPE_KEY)
			buf[n++] = buf[i];
		else
			f->escape(f->escape_opaque, buf[i]);
	}
	return f->escape ? n : len;
}

static void end_of_input(struct fd_chardev *f)
{
	if (f->is_socket) {
		drop_client(f);
		return;
	}
	set_watch(f, &f->in_watch, f->in, 0);
	if (f->close_fds && f->in != f->out)
		close(f->in);
	f->in = -1;
}

/* Reads once, as much as the reader has room for. */
static void read_some(struct fd_chardev *f)
{
	uint8_t buf[READ_CHUNK];
	size_t room = min_u64(reader_room(f), sizeof(buf));

	if (f->in < 0 || !room)
		return;
	ssize_t n = f->is_socket ? recv(f->in, buf, room, MSG_DONTWAIT) : read(f->in, buf, room);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		end_of_input(f);
		return;
	}
	size_t keep = filter_escape(f, buf, n);
	if (keep)
		f->c.reader.read(f->c.reader.opaque, buf, keep);
}

static void fd_event(void *opaque, uint32_t events)
{
	struct fd_chardev *f = opaque;

	if (events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP))
		f->hung_up = true;
	read_some(f);
	flush(f);
	tell_writable(f);
	update_watches(f);
}

static void out_event(void *opaque, uint32_t events)
{
	struct fd_chardev *f = opaque;

	(void)events;
	flush(f);
	tell_writable(f);
	update_watches(f);
}

static void out_timer(void *opaque)
{
	out_event(opaque, 0);
}

static void fd_timer(void *opaque)
{
	fd_event(opaque, 0);
}

static void fd_reader_ready(struct chardev *c, bool fresh)
{
	struct fd_chardev *f = (struct fd_chardev *)c;

	if (fresh && f->c.reader.connected)
		f->c.reader.connected(f->c.reader.opaque, f->listener < 0 || f->in >= 0);
	update_watches(f);
}

/* ---- sockets ---- */

static void tell_connected(struct fd_chardev *f, bool yes)
{
	if (f->c.reader.connected)
		f->c.reader.connected(f->c.reader.opaque, yes);
}

static void drop_client(struct fd_chardev *f)
{
	set_watch(f, &f->in_watch, f->in, 0);
	close(f->in);
	f->in = f->out = -1;
	f->is_socket = f->hung_up = false;
	f->head = f->used = 0; /* it was for this client */
	tell_connected(f, false);
	set_watch(f, &f->listen_watch, f->listener, EPOLLIN);
}

static void listen_event(void *opaque, uint32_t events)
{
	struct fd_chardev *f = opaque;
	int fd = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if (fd < 0)
		return;
	f->in = f->out = fd;
	f->is_socket = true;
	f->hung_up = false;
	/* One at a time: the next one waits in the backlog. */
	set_watch(f, &f->listen_watch, f->listener, 0);
	tell_connected(f, true);
	flush(f);
	tell_writable(f);
	update_watches(f);
}

/* ---- making and freeing ---- */

static void fd_free(struct chardev *c)
{
	struct fd_chardev *f = (struct fd_chardev *)c;

	/* What the guest said last is often why it ended: a slow reader gets a moment for it. */
	struct pollfd p = { .fd = f->out, .events = POLLOUT };
	while (f->used && f->out >= 0 && poll(&p, 1, LAST_WORDS_MS) > 0)
		flush(f);
	loop_watch_del(f->loop, &f->in_watch);
	loop_watch_del(f->loop, &f->out_watch);
	loop_watch_del(f->loop, &f->listen_watch);
	if (f->close_fds || f->is_socket) {
		if (f->in >= 0)
			close(f->in);
		if (f->out >= 0 && f->out != f->in)
			close(f->out);
	}
	if (f->listener >= 0) {
		close(f->listener);
		unlink(f->path);
	}
	loop_timer_cancel(&f->timer);
	loop_timer_cancel(&f->out_timer);
	free(f);
}

static const struct chardev_ops fd_ops = { fd_write, fd_reader_ready, fd_free };

static struct fd_chardev *fd_alloc(struct loop *l, struct error *err)
{
	struct fd_chardev *f = calloc(1, sizeof(*f));

	if (!f) {
		error_set(err, ENOMEM, "no memory for a character device; free some and try again");
		return NULL;
	}
	f->c.ops = &fd_ops;
	f->loop = l;
	f->in = f->out = f->listener = -1;
	f->in_watch = (struct loop_watch){ .fd = -1, .fn = fd_event, .opaque = f };
	f->out_watch = (struct loop_watch){ .fd = -1, .fn = out_event, .opaque = f };
	f->listen_watch = (struct loop_watch){ .fd = -1, .fn = listen_event, .opaque = f };
	loop_timer_init(l, &f->timer, fd_timer, f);
	loop_timer_init(l, &f->out_timer, out_timer, f);
	return f;
}

int chardev_fd_new(struct loop *l, int in_fd, int out_fd, bool close_fds, struct chardev **ret,
		   struct error *err)
{
	struct fd_chardev *f = fd_alloc(l, err);

	if (!f)
		return -ENOMEM;
	f->in = in_fd;
	f->out = out_fd;
	f->close_fds = close_fds;
	*ret = &f->c;
	return 0;
}

int chardev_stdio_new(struct loop *l, void (*escape)(void *opaque, uint8_t c), void *opaque,
		      struct chardev **ret, struct error *err)
{
	struct fd_chardev *f = fd_alloc(l, err);

	if (!f)
		return -ENOMEM;
	f->in = STDIN_FILENO;
	f->out = STDOUT_FILENO;
	f->gather = true;
	if (isatty(f->in)) {
		f->escape = escape;
		f->escape_opaque = opaque;
	}
	*ret = &f->c;
	return 0;
}

int chardev_file_new(struct loop *l, const char *path, struct chardev **ret, struct error *err)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0666);

	if (fd < 0)
		return error_set(err, errno, "cannot write to %s (%s); choose another file", path,
				 strerror(errno));
	int r = chardev_fd_new(l, -1, fd, true, ret, err);
	if (r < 0)
		close(fd);
	else
		((struct fd_chardev *)*ret)->gather = true;
	return r;
}

/* Only a socket that nobody listens at is in the way by mistake. */
static void remove_stale(const struct sockaddr_un *a)
{
	struct stat st;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return;
	if (stat(a->sun_path, &st) == 0 && S_ISSOCK(st.st_mode) &&
	    connect(fd, (const struct sockaddr *)a, sizeof(*a)) < 0 && errno == ECONNREFUSED)
		unlink(a->sun_path);
	close(fd);
}

static int listen_at(const char *path, struct error *err)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(a.sun_path))
		return error_set(err, ENAMETOOLONG,
				 "the socket path %s is longer than %zu bytes; choose a shorter one", path,
				 sizeof(a.sun_path) - 1);
	strcpy(a.sun_path, path);
	remove_stale(&a);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind(fd, (const struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 4) < 0) {
		int e = errno;

		if (fd >= 0)
			close(fd);
		return error_set(err, e, "cannot listen at %s (%s); choose another path", path, strerror(e));
	}
	return fd;
}

int chardev_unix_new(struct loop *l, const char *path, struct chardev **ret, struct error *err)
{
	struct fd_chardev *f = fd_alloc(l, err);

	if (!f)
		return -ENOMEM;
	int fd = listen_at(path, err);
	if (fd < 0) {
		free(f);
		return fd;
	}
	f->listener = fd;
	strcpy(f->path, path);
	int r = set_watch(f, &f->listen_watch, fd, EPOLLIN);
	if (r < 0) {
		fd_free(&f->c);
		return error_set(err, -r, "cannot watch the socket %s (%s)", path, strerror(-r));
	}
	*ret = &f->c;
	return 0;
}
