/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Output collects in a buffer and goes out at the end of a line, when much has
 * come together, or 5 ms after its first byte, so that a guest's character is
 * not a system call.  What cannot be written now waits for EPOLLOUT.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/util.h"
#include "vm/console.h"

#define OUT_SIZE     65536u
#define OUT_ENOUGH   512u
#define OUT_DELAY_NS 5000000
#define ESCAPE       0x01 /* Ctrl-A */

static const char help_text[] = "\r\nCtrl-A x  end the VM at once\r\n"
				"Ctrl-A h  this help\r\n"
				"Ctrl-A Ctrl-A  send Ctrl-A\r\n";

struct console {
	struct loop *loop;
	enum vm_serial kind;
	struct console_client client;
	void (*quit)(void *opaque);
	void *quit_opaque;
	char *socket_path; /* to unlink */

	int in_fd, out_fd, listen_fd; /* -1: none; a socket is in both */
	struct loop_watch in, out, listen;
	bool in_plain; /* a regular file: always readable, epoll refuses it */
	bool in_eof;
	bool escapes, escaped;
	struct loop_work read_more;

	uint8_t buf[OUT_SIZE];
	size_t out_len;
	struct loop_timer flush_timer;
};

/* ---- output ---- */

static void drop_client(struct console *c);

static bool writable_now(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	return poll(&p, 1, 0) == 1;
}

/* Standard output is left in blocking mode: other programs share it. So ask first and write little. */
static void flush_output(struct console *c)
{
	size_t done = 0;
	while (c->out_fd >= 0 && done < c->out_len && writable_now(c->out_fd)) {
		ssize_t n = write(c->out_fd, c->buf + done, min_u64(c->out_len - done, 2048));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN) {
			/* Nobody reads any more: the line is open, bytes go nowhere. */
			if (c->kind == VM_SERIAL_UNIX)
				drop_client(c);
			done = c->out_len;
			break;
		}
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	if (c->out_fd < 0)
		done = c->out_len;
	memmove(c->buf, c->buf + done, c->out_len - done);
	c->out_len -= done;
	if (c->out_len && c->out_fd >= 0)
		loop_timer_arm(&c->flush_timer, clock_now_ns(loop_clock(c->loop)) + OUT_DELAY_NS);
	else
		loop_timer_cancel(&c->flush_timer);
}

static void flush_due(void *opaque)
{
	flush_output(opaque);
}

void console_write(struct console *c, const uint8_t *p, size_t n)
{
	if (c->out_fd < 0)
		return;
	bool was_empty = !c->out_len, line = memchr(p, '\n', n) != NULL;
	size_t take = min_u64(n, OUT_SIZE - c->out_len);
	memcpy(c->buf + c->out_len, p, take);
	c->out_len += take;
	if (line || c->out_len >= OUT_ENOUGH)
		flush_output(c);
	else if (was_empty)
		loop_timer_arm(&c->flush_timer, clock_now_ns(loop_clock(c->loop)) + OUT_DELAY_NS);
}

/* ---- input ---- */

/* Takes escapes out of n bytes; returns how many are left. */
static size_t unescape(struct console *c, uint8_t *p, size_t n)
{
	size_t out = 0;
	for (size_t i = 0; i < n; i++) {
		if (!c->escaped) {
			if (p[i] == ESCAPE)
				c->escaped = true;
			else
				p[out++] = p[i];
			continue;
		}
		c->escaped = false;
		if (p[i] == 'x' || p[i] == 'X') {
			if (c->quit)
				c->quit(c->quit_opaque);
		} else if (p[i] == 'h' || p[i] == '?') {
			console_write(c, (const uint8_t *)help_text, sizeof(help_text) - 1);
		} else if (p[i] == ESCAPE) {
			p[out++] = ESCAPE;
		}
	}
	return out;
}

static void stop_reading(struct console *c)
{
	c->in_eof = true;
	loop_watch_del(c->loop, &c->in);
	if (c->kind == VM_SERIAL_UNIX)
		drop_client(c);
}

static void read_input(struct console *c)
{
	uint8_t p[256];
	size_t room = c->client.room ? c->client.room(c->client.opaque) : 0;
	if (!room || c->in_eof || c->in_fd < 0) {
		loop_watch_del(c->loop,
			       &c->in); /* until the port has room; a hang-up must not spin meanwhile */
		return;
	}
	ssize_t n = read(c->in_fd, p, min_u64(room, sizeof(p)));
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		stop_reading(c);
		return;
	}
	size_t left = c->escapes ? unescape(c, p, (size_t)n) : (size_t)n;
	if (left)
		c->client.receive(c->client.opaque, p, left);
	if (c->in_plain)
		loop_post(c->loop, &c->read_more);
}

static void input_ready(void *opaque, uint32_t events)
{
	(void)events;
	read_input(opaque);
}

static void read_more(void *opaque)
{
	struct console *c = opaque;
	if (c->client.room && c->client.room(c->client.opaque))
		read_input(c);
}

void console_rx_ready(struct console *c)
{
	if (c->in_eof || c->in_fd < 0)
		return;
	if (c->in_plain)
		loop_post(c->loop, &c->read_more);
	else if (!c->in.active)
		loop_watch_add(c->loop, &c->in);
}

static void watch_input(struct console *c, int fd)
{
	c->in_fd = fd;
	c->in_eof = false;
	c->in = (struct loop_watch){ .fd = fd, .events = EPOLLIN, .fn = input_ready, .opaque = c };
	int r = loop_watch_add(c->loop, &c->in);
	c->in_plain = r == -EPERM; /* regular files and /dev/null */
	if (c->in_plain)
		loop_post(c->loop, &c->read_more);
	else if (r)
		c->in_eof = true;
}

void console_set_client(struct console *c, const struct console_client *client)
{
	c->client = *client;
	if (c->kind == VM_SERIAL_STDIO && client->receive)
		watch_input(c, STDIN_FILENO);
}

/* ---- socket ---- */

static void drop_client(struct console *c)
{
	if (c->in_fd < 0)
		return;
	loop_watch_del(c->loop, &c->in);
	close(c->in_fd);
	c->in_fd = c->out_fd = -1;
	c->out_len = 0;
	loop_watch_mod(c->loop, &c->listen, EPOLLIN);
}

static void client_arrived(void *opaque, uint32_t events)
{
	struct console *c = opaque;
	(void)events;
	int fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return;
	loop_watch_mod(c->loop, &c->listen, 0); /* one at a time; the next waits */
	c->out_fd = fd;
	watch_input(c, fd);
}

static int listen_unix(struct console *c, const char *path, struct error *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(addr.sun_path))
		return error_set(err, ENAMETOOLONG,
				 "--serial unix:%s: the path is too long; use at most %zu characters", path,
				 sizeof(addr.sun_path) - 1);
	strcpy(addr.sun_path, path);
	c->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->listen_fd < 0 || bind(c->listen_fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    listen(c->listen_fd, 1) < 0) {
		int e = errno;
		return error_set(
		    err, e, "--serial unix:%s: cannot make the socket: %s; %s", path, strerror(e),
		    e == EADDRINUSE ? "remove the file if no VM uses it" : "choose another path");
	}
	c->socket_path = strdup(path);
	c->listen =
	    (struct loop_watch){ .fd = c->listen_fd, .events = EPOLLIN, .fn = client_arrived, .opaque = c };
	return loop_watch_add(c->loop, &c->listen);
}

/* ---- construction ---- */

static int open_file(struct console *c, const char *path, struct error *err)
{
	c->out_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0666);
	if (c->out_fd < 0)
		return error_set(err, errno, "--serial file:%s: cannot write: %s; choose another path", path,
				 strerror(errno));
	return 0;
}

int console_new(struct loop *l, enum vm_serial kind, const char *path, void (*quit)(void *), void *opaque,
		struct console **ret, struct error *err)
{
	struct console *c = calloc(1, sizeof(*c));
	if (!c)
		return error_set(err, ENOMEM, "no memory for the serial console; free some and try again");
	*c = (struct console){
		.loop = l,
		.kind = kind,
		.quit = quit,
		.quit_opaque = opaque,
		.in_fd = -1,
		.out_fd = -1,
		.listen_fd = -1,
	};
	c->read_more = (struct loop_work){ .fn = read_more, .opaque = c };
	loop_timer_init(l, &c->flush_timer, flush_due, c);
	int r = 0;
	if (kind == VM_SERIAL_STDIO) {
		c->out_fd = STDOUT_FILENO;
		c->escapes = isatty(STDIN_FILENO);
	} else if (kind == VM_SERIAL_FILE) {
		r = open_file(c, path, err);
	} else if (kind == VM_SERIAL_UNIX) {
		r = listen_unix(c, path, err);
	}
	if (r)
		console_free(c);
	else
		*ret = c;
	return r;
}

/* At the end there is no loop to wait for: a reader that takes nothing for a second loses the rest. */
static void write_rest(struct console *c)
{
	struct pollfd p = { .fd = c->out_fd, .events = POLLOUT };
	while (c->out_len && poll(&p, 1, 1000) == 1) {
		size_t before = c->out_len;
		flush_output(c);
		if (c->out_len == before)
			break;
	}
}

void console_free(struct console *c)
{
	if (!c)
		return;
	if (c->out_fd >= 0)
		write_rest(c);
	loop_timer_cancel(&c->flush_timer);
	loop_watch_del(c->loop, &c->in);
	loop_watch_del(c->loop, &c->listen);
	if (c->kind == VM_SERIAL_UNIX && c->in_fd >= 0)
		close(c->in_fd);
	if (c->kind == VM_SERIAL_FILE && c->out_fd >= 0)
		close(c->out_fd);
	if (c->listen_fd >= 0)
		close(c->listen_fd);
	if (c->socket_path)
		unlink(c->socket_path);
	free(c->socket_path);
	free(c);
}
