/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Network backends: what a guest's network card is plugged into.
 *
 * Frames are Ethernet without FCS.  The card (any device model) is the client:
 * it sends frames with net_send and gets frames by its `receive`, both under
 * the I/O lock.  A card without room refuses a frame; the backend keeps a
 * bounded number of them and offers them again at net_rx_ready.
 *
 * Large TCP segments: a card whose driver does segmentation offload may send
 * TCP frames of up to NET_FRAME_MAX bytes to a backend with `big_tx`, and says
 * with net_set_big_rx that it takes such frames too.  Checksums of what passes
 * here are complete and right in both directions, but for the TCP checksum of
 * frames with gso_size and of those that net_send_pieces takes: nobody needs it.
 */
#ifndef SILL_NET_NET_H
#define SILL_NET_NET_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/loop.h"

#define NET_ETH_HEADER  14u
#define NET_FRAME_USUAL 1514u                        /* header and 1500 bytes */
#define NET_HEAD_MAX    (NET_ETH_HEADER + 60u + 60u) /* Ethernet, IP and TCP */
#define NET_FRAME_MAX   (NET_ETH_HEADER + 65535u)    /* the biggest IP packet */

struct net_frame_info {
	/* Not 0: a TCP segment (IPv4) to be treated as if it had come as several with this much data each. */
	uint16_t gso_size;
	/* Only with gso_size: the frame given is no more than its headers, and goes on here. */
	const uint8_t *body;
	size_t body_len;
};

struct net_client {
	/* False: no room, keep it. A frame that is not wanted is taken and dropped. frame is valid during the
	 * call. */
	bool (*receive)(void *opaque, const uint8_t *frame, size_t len, const struct net_frame_info *info);
	void *opaque;
};

struct net;

struct net_ops {
	const char *name;
	bool big_tx;
	void (*send)(struct net *n, const uint8_t *frame, size_t len);
	/* May be NULL. */
	bool (*send_pieces)(struct net *n, const uint8_t *head, size_t len, struct iovec *iov, unsigned cnt);
	void (*flush)(struct net *n);                     /* may be NULL */
	void (*rx_ready)(struct net *n);                  /* may be NULL */
	void (*set_running)(struct net *n, bool running); /* may be NULL */
	void (*free)(struct net *n);
};

/* The common part, first in each backend's struct. [io] */
struct net {
	const struct net_ops *ops;
	struct net_client client;
	bool big_rx; /* the client takes frames with gso_size */
	bool link_up;
};

/* [io] Sends one frame of at least 14 bytes. Never blocks; what the backend cannot take is lost, as on a
 * wire. */
void net_send(struct net *n, const uint8_t *frame, size_t len);
/*
 * [io] The same for a TCP frame of len bytes that lies in guest memory and whose
 * checksum is partial, without a copy of it: head is one of its first
 * min(len, NET_HEAD_MAX) bytes, iov all of it. False: not that one, send it by
 * net_send. iov is altered if true.
 */
bool net_send_pieces(struct net *n, const uint8_t *head, size_t len, struct iovec *iov, unsigned cnt);
/* [io] After the last net_send of a batch. */
void net_flush(struct net *n);
/* [io] The client has room again. */
void net_rx_ready(struct net *n);
/* [io, but for the first card, before vCPUs run] Plugs the card in; {0} unplugs it. */
void net_set_client(struct net *n, const struct net_client *c);
void net_set_big_rx(struct net *n, bool big_rx);
/* True if the backend takes TCP frames longer than NET_FRAME_USUAL. */
bool net_big_tx(const struct net *n);
/* [io] While not running (VM paused, being saved) no frame reaches the client. Backends start running. */
void net_set_running(struct net *n, bool running);
/* NULL allowed. Called without the I/O lock: it may wait for the backend's thread. No frame arrives after it.
 */
void net_free(struct net *n);

/* ---- backends ---- */

/* Swallows what is sent; delivers nothing. */
int net_null_new(struct net **ret, struct error *err);

/*
 * User-mode NAT. The guest finds: itself 10.0.2.15 (DHCP), gateway and host
 * 10.0.2.2, DNS 10.0.2.3.
 */
#define NET_USER_MAX_FWD 32

struct net_user_fwd {
	bool udp;
	struct in_addr host_addr; /* loopback if the option names none */
	uint16_t host_port;
	struct in_addr guest_addr; /* 10.0.2.15 if the option names none */
	uint16_t guest_port;
};

struct net_user_config {
	bool restricted;    /* the guest reaches nothing but this network; forwardings still work */
	char tftp[256];     /* folder that the gateway serves by TFTP, read-only; empty: none */
	char bootfile[128]; /* what DHCP names as the file to boot; empty: none */
	unsigned nr_fwd;
	struct net_user_fwd fwd[NET_USER_MAX_FWD];
};

/*
 * Parses the text of an option:
 * user[,restrict=on|off][,tftp=DIR][,bootfile=NAME][,hostfwd=PROTO:[ADDR]:PORT-[GUEST]:PORT]... with PROTO
 * tcp or udp and IPv4 addresses. 0 or -EINVAL with a sentence; ret is untouched on failure.
 */
int net_user_parse(const char *text, struct net_user_config *ret, struct error *err);

/*
 * Starts the NAT. loop gives the clock for its timers and must outlive it;
 * io_lock is taken around everything that its thread does. A host port that is
 * taken or not permitted is one sentence. 0 or -errno.
 */
int net_user_new(struct loop *loop, struct mutex *io_lock, const struct net_user_config *cfg,
		 struct net **ret, struct error *err);

#endif
