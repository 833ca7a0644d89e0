/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The protocol has the client ask: each FramebufferUpdateRequest is answered by
 * one update, when something changed.  A timer asks the display for changes some
 * 30 times a second, but only while a client waits for some and has read what it
 * was sent before: nobody watching, or a slow link, costs nothing and buffers
 * nothing.  Who does not authenticate in time is dropped.
 */
#include "ui/vnc.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "ui/vnc_internal.h"

#define HANDSHAKE_NS (30 * 1000000000ll)
#define OUT_MAX      (80u << 20) /* the biggest picture, raw, has 64 MiB */

/* ---- output ---- */

void vnc_drop(struct vnc_client *c, const char *why)
{
	if (c->state == DEAD)
		return;
	if (why)
		log_info("a VNC client is disconnected: %s", why);
	c->state = DEAD; /* reap frees it when nothing uses it any more */
	loop_timer_cancel(&c->timeout);
}

bool vnc_reserve(struct vnc_client *c, size_t n)
{
	if (c->out_len + n <= c->out_cap)
		return true;
	if (c->state == DEAD || c->out_len + n > OUT_MAX) { /* it asks for answers and does not read them */
		vnc_drop(c, "it does not read what it is sent");
		return false;
	}
	size_t cap = max_u64(c->out_cap * 2, c->out_len + n);
	uint8_t *p = realloc(c->out, cap);
	if (!p) {
		vnc_drop(c, "no memory for its picture");
		return false;
	}
	c->out = p;
	c->out_cap = cap;
	return true;
}

void vnc_put(struct vnc_client *c, const void *p, size_t n)
{
	if (!vnc_reserve(c, n))
		return;
	memcpy(c->out + c->out_len, p, n);
	c->out_len += n;
}

void vnc_put8(struct vnc_client *c, uint8_t v)
{
	vnc_put(c, &v, 1);
}

void vnc_put16(struct vnc_client *c, uint16_t v)
{
	v = htobe16(v);
	vnc_put(c, &v, 2);
}

void vnc_put32(struct vnc_client *c, uint32_t v)
{
	v = htobe32(v);
	vnc_put(c, &v, 4);
}

void vnc_flush(struct vnc_client *c)
{
	while (c->state != DEAD && c->out_pos < c->out_len) {
		ssize_t n =
		    send(c->fd, c->out + c->out_pos, c->out_len - c->out_pos, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n > 0)
			c->out_pos += (size_t)n;
		else if (n < 0 && errno == EINTR)
			continue;
		else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			break;
		else
			vnc_drop(c, NULL);
	}
	if (c->out_pos == c->out_len)
		c->out_pos = c->out_len = 0;
	if (c->state != DEAD)
		loop_watch_mod(c->vnc->loop, &c->watch, EPOLLIN | (c->out_len ? EPOLLOUT : 0u));
}

/* ---- connections ---- */

static void client_event(void *opaque, uint32_t events)
{
	struct vnc_client *c = opaque;
	struct vnc *v = c->vnc;
	(void)events;
	if (c->state != DEAD) {
		ssize_t n = recv(c->fd, c->in + c->in_len, IN_MAX - c->in_len, MSG_DONTWAIT);
		if (n > 0) {
			c->in_len += (size_t)n;
			vnc_consume(c);
		} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
			vnc_drop(c, NULL);
		}
	}
	if (c->state != DEAD)
		vnc_flush(c);
	vnc_update(c); /* what is known to have changed; the timer looks for more */
	vnc_reap(v);
}

static void handshake_timeout(void *opaque)
{
	struct vnc_client *c = opaque;
	struct vnc *v = c->vnc;
	vnc_drop(c, "it did not finish connecting within half a minute");
	vnc_reap(v);
}

static void client_free(struct vnc_client *c)
{
	vnc_release_keys(c);
	loop_timer_cancel(&c->timeout);
	loop_watch_del(c->vnc->loop, &c->watch);
	close(c->fd);
	if (c->z_ready)
		deflateEnd(&c->z);
	free(c->out);
	free(c);
}

void vnc_reap(struct vnc *v)
{
	for (struct vnc_client **p = &v->clients; *p;) {
		struct vnc_client *c = *p;
		if (c->state != DEAD) {
			p = &c->next;
			continue;
		}
		*p = c->next;
		v->nr_clients--;
		client_free(c);
	}
}

static bool is_local(int fd)
{
	struct sockaddr_storage a;
	socklen_t n = sizeof(a);
	if (getpeername(fd, (struct sockaddr *)&a, &n) < 0)
		return true;
	if (a.ss_family == AF_INET)
		return ntohl(((struct sockaddr_in *)&a)->sin_addr.s_addr) >> 24 == 127;
	if (a.ss_family == AF_INET6)
		return IN6_IS_ADDR_LOOPBACK(&((struct sockaddr_in6 *)&a)->sin6_addr);
	return true;
}

int vnc_add_client(struct vnc *v, int fd)
{
	struct vnc_client *c = v->nr_clients < VNC_MAX_CLIENTS ? calloc(1, sizeof(*c)) : NULL;
	int one = 1;
	if (!c) {
		log_warn("a VNC client is refused: there are %u already", v->nr_clients);
		close(fd);
		return -EAGAIN;
	}
	fcntl(fd, F_SETFL, O_NONBLOCK);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	c->vnc = v;
	c->fd = fd;
	c->format = vnc_our_format;
	c->local = is_local(fd);
	c->watch = (struct loop_watch){ .fd = fd, .events = EPOLLIN, .fn = client_event, .opaque = c };
	int r = loop_watch_add(v->loop, &c->watch);
	if (r < 0) {
		close(fd);
		free(c);
		return r;
	}
	loop_timer_init(v->loop, &c->timeout, handshake_timeout, c);
	loop_timer_arm(&c->timeout, clock_now_ns(loop_clock(v->loop)) + HANDSHAKE_NS);
	c->next = v->clients;
	v->clients = c;
	v->nr_clients++;
	vnc_put(c, "RFB 003.008\n", 12);
	vnc_flush(c);
	loop_timer_arm(&v->timer, clock_now_ns(loop_clock(v->loop)) + VNC_REFRESH_NS);
	return 0;
}

static void accept_event(void *opaque, uint32_t events)
{
	struct vnc *v = opaque;
	(void)events;
	int fd = accept4(v->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0)
		vnc_add_client(v, fd);
}

/* ---- listening ---- */

static int listen_unix(struct vnc *v, const char *path, struct error *err)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct stat st;
	if (strlen(path) >= sizeof(a.sun_path))
		return error_set(err, ENAMETOOLONG,
				 "--display vnc=unix:%s: the path is too long for a socket", path);
	strcpy(a.sun_path, path);
	v->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (v->fd >= 0 && !lstat(path, &st) && S_ISSOCK(st.st_mode) &&
	    connect(v->fd, (struct sockaddr *)&a, sizeof(a)) < 0 && errno == ECONNREFUSED)
		unlink(path); /* left behind by a process that is gone */
	mode_t old = umask(0177);
	int r = v->fd < 0 || bind(v->fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(v->fd, 8) < 0
		    ? -errno
		    : 0;
	umask(old);
	if (r)
		return error_set(err, -r, "--display vnc=unix:%s: cannot listen there: %s", path,
				 strerror(-r));
	v->unix_path = strdup(path);
	return 0;
}

static int listen_tcp(struct vnc *v, const char *text, struct error *err)
{
	char host[256] = "127.0.0.1";
	const char *colon = strrchr(text, ':'), *port = colon ? colon + 1 : text;
	size_t len = colon ? (size_t)(colon - text) : 0;
	char *end;
	unsigned long number = strtoul(port, &end, 10);
	struct addrinfo hints = { .ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM },
			*found;
	if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
		text++;
		len -= 2;
	}
	if (!*port || *end || number < 1 || number > 65535 || len >= sizeof(host))
		return error_set(err, EINVAL,
				 "--display vnc=%s: no address; give ADDR:PORT, :PORT or unix:PATH", text);
	if (len)
		snprintf(host, sizeof(host), "%.*s", (int)len, text);
	int r = getaddrinfo(host, port, &hints, &found);
	if (r)
		return error_set(err, EINVAL, "--display vnc=%s: %s", text, gai_strerror(r));
	int one = 1;
	v->fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (v->fd >= 0)
		setsockopt(v->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	r = v->fd < 0 || bind(v->fd, found->ai_addr, found->ai_addrlen) < 0 || listen(v->fd, 8) < 0 ? -errno
												    : 0;
	freeaddrinfo(found);
	if (r == -EADDRINUSE)
		return error_set(err, EADDRINUSE, "--display vnc=%s: port %lu is in use; choose another",
				 text, number);
	return r ? error_set(err, -r, "--display vnc=%s: cannot listen there: %s", text, strerror(-r)) : 0;
}

int vnc_new(struct loop *l, const struct vnc_config *c, const char *name, struct display *d, struct input *in,
	    struct vnc **ret, struct error *err)
{
	struct vnc *v = calloc(1, sizeof(*v));
	if (!v || !(v->name = strdup(name))) {
		free(v);
		return error_set(err, ENOMEM, "no memory for the VNC server; free some and try again");
	}
	v->loop = l;
	v->display = d;
	v->input = in;
	v->fd = -1;
	if (c->password) {
		v->has_password = true;
		memcpy(v->password, c->password, strnlen(c->password, sizeof(v->password)));
	}
	loop_timer_init(l, &v->timer, vnc_refresh_timer, v);
	int r = 0;
	if (c->address)
		r = strncmp(c->address, "unix:", 5) ? listen_tcp(v, c->address, err)
						    : listen_unix(v, c->address + 5, err);
	if (!r && v->fd >= 0) {
		v->watch =
		    (struct loop_watch){ .fd = v->fd, .events = EPOLLIN, .fn = accept_event, .opaque = v };
		r = loop_watch_add(l, &v->watch);
		if (r)
			error_set(err, -r, "the VNC server cannot wait for clients: %s", strerror(-r));
	}
	if (r) {
		if (v->fd >= 0)
			close(v->fd);
		free(v->unix_path);
		free(v->name);
		free(v);
		return r;
	}
	v->viewer = (struct display_viewer){ .resized = vnc_viewer_resized,
					     .updated = vnc_viewer_updated,
					     .opaque = v };
	display_add_viewer(d, &v->viewer);
	*ret = v;
	return 0;
}

void vnc_free(struct vnc *v)
{
	if (!v)
		return;
	display_remove_viewer(v->display, &v->viewer);
	for (struct vnc_client *c = v->clients; c; c = c->next)
		vnc_drop(c, NULL);
	vnc_reap(v);
	loop_timer_cancel(&v->timer);
	if (v->fd >= 0) {
		loop_watch_del(v->loop, &v->watch);
		close(v->fd);
	}
	if (v->unix_path)
		unlink(v->unix_path);
	free(v->unix_path);
	free(v->name);
	free(v);
}
