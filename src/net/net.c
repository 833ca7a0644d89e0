/* SPDX-License-Identifier: Apache-2.0 */
#include "net/net.h"

#include <errno.h>
#include <stdlib.h>

void net_send(struct net *n, const uint8_t *frame, size_t len)
{
	if (len >= NET_ETH_HEADER && len <= NET_FRAME_MAX)
		n->ops->send(n, frame, len);
}

bool net_send_pieces(struct net *n, const uint8_t *head, size_t len, struct iovec *iov, unsigned cnt)
{
	return n->ops->send_pieces && len >= NET_ETH_HEADER && len <= NET_FRAME_MAX &&
	       n->ops->send_pieces(n, head, len, iov, cnt);
}

void net_flush(struct net *n)
{
	if (n->ops->flush)
		n->ops->flush(n);
}

void net_rx_ready(struct net *n)
{
	if (n->ops->rx_ready)
		n->ops->rx_ready(n);
}

void net_set_client(struct net *n, const struct net_client *c)
{
	/* A backend's thread may be looking already (see net.h): it never sees one half with the other's
	 * opaque. */
	__atomic_store_n(&n->client.receive, NULL, __ATOMIC_RELEASE);
	__atomic_store_n(&n->client.opaque, c->opaque, __ATOMIC_RELEASE);
	__atomic_store_n(&n->client.receive, c->receive, __ATOMIC_RELEASE);
}

void net_set_big_rx(struct net *n, bool big_rx)
{
	n->big_rx = big_rx;
}

bool net_big_tx(const struct net *n)
{
	return n->ops->big_tx;
}

void net_set_running(struct net *n, bool running)
{
	if (n->ops->set_running)
		n->ops->set_running(n, running);
}

void net_free(struct net *n)
{
	if (n)
		n->ops->free(n);
}

/* ---- the null backend ---- */

static void null_send(struct net *n, const uint8_t *frame, size_t len)
{
	(void)n;
	(void)frame;
	(void)len;
}

static void null_free(struct net *n)
{
	free(n);
}

static const struct net_ops null_ops = {
	.name = "null", .big_tx = true, .send = null_send, .free = null_free
};

int net_null_new(struct net **ret, struct error *err)
{
	struct net *n = calloc(1, sizeof(*n));

	if (!n)
		return error_set(err, ENOMEM, "not enough memory for a network backend");
	n->ops = &null_ops;
	n->link_up = true;
	*ret = n;
	return 0;
}
