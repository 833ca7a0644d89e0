/* SPDX-License-Identifier: Apache-2.0 */
/* The NAT's own end of TCP connections that the guest opens (see tcp.c). Everything is called under the I/O
 * lock. */
#ifndef SILL_NET_TCP_H
#define SILL_NET_TCP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/loop.h"

struct tcp_ops {
	/*
	 * Gives a frame to the card: head, then body_len bytes of body. With a gso_size
	 * as net.h says, and without TCP checksum; a frame without has no body. False:
	 * no room, tcp_room will say when there is.
	 */
	bool (*deliver)(void *opaque, const uint8_t *head, size_t head_len, const uint8_t *body,
			size_t body_len, uint16_t gso_size);
	/* Does the card take frames with gso_size? */
	bool (*big)(void *opaque);
	/* A SYN that could not be answered here: someone else is to. */
	void (*pass)(void *opaque, const uint8_t *frame, size_t len);
};

struct tcp;

/* loop's clock and timers, io_lock, ops and opaque must outlive it. 0 or -errno. */
int tcp_new(struct loop *loop, struct mutex *io_lock, const struct tcp_ops *ops, void *opaque,
	    struct tcp **ret);
/* NULL allowed. Not while another thread is in tcp_serve. */
void tcp_free(struct tcp *t);

/* Readable when tcp_serve is to be called. Any thread may wait for it. */
int tcp_fd(const struct tcp *t);
/* Moves data between sockets and guest. Gives the I/O lock away while it reads: for one thread only. */
void tcp_serve(struct tcp *t);

/*
 * A frame of len bytes from the guest. head: its first min(len, NET_HEAD_MAX)
 * bytes at least, and they do not change; iov: all of it (altered). check: its TCP
 * checksum is to be looked at. False: it is none of ours.
 */
bool tcp_input(struct tcp *t, const uint8_t *head, size_t len, struct iovec *iov, unsigned cnt, bool check);
/* After the last frame of a batch: acknowledges what came. */
void tcp_flush(struct tcp *t);
/* The card has room again. */
void tcp_room(struct tcp *t);

#endif
