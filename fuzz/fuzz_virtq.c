/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drives a virtio disk, network card, entropy source, graphics card, keyboard or tablet as a hostile guest:
 * the input is a little program that writes descriptors and rings, sets
 * registers, notifies, delivers frames, resets, saves and loads.
 *
 *	byte 0: device; then operations, each a byte (its kind modulo OP_COUNT)
 *	and its operands. What is missing at the end reads as zero.
 */
#include <sys/mman.h>

#include "block/block.h"
#include "dev/virtio/test_driver.h"
#include "dev/virtio/virtio_blk.h"
#include "dev/virtio/virtio_gpu.h"
#include "dev/virtio/virtio_input.h"
#include "dev/virtio/virtio_net.h"
#include "dev/virtio/virtio_rng.h"
#include "net/net.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DISK_SIZE KIB(64)
#define MAX_OPS   400

enum op {
	OP_START,
	OP_DESC,
	OP_OFFER,
	OP_KICK,
	OP_PUT,
	OP_STATUS,
	OP_CONFIG,
	OP_DELIVER,
	OP_STATE,
	OP_COUNT
};

struct bytes {
	const uint8_t *p;
	size_t left;
};

static uint8_t u8(struct bytes *in)
{
	if (!in->left)
		return 0;
	in->left--;
	return *in->p++;
}

static uint16_t u16(struct bytes *in)
{
	uint16_t lo = u8(in);

	return (uint16_t)(lo | u8(in) << 8);
}

static uint32_t u32(struct bytes *in)
{
	uint32_t lo = u16(in);

	return lo | (uint32_t)u16(in) << 16;
}

/* A guest address: in the rings, in the data, at the end of RAM, at the end of everything. */
static uint64_t address(struct bytes *in)
{
	uint8_t kind = u8(in);
	uint16_t offset = u16(in);

	switch (kind % 5) {
	case 0:
		return TD_DATA + offset;
	case 1:
		return TD_RING(kind / 5 % 3) + offset;
	case 2:
		return TD_RAM - offset;
	case 3:
		return UINT64_MAX - offset;
	default:
		return (uint64_t)offset << (kind / 5);
	}
}

static void op_state(struct test_driver *t, struct block *block, bool load)
{
	const struct device *d = &t->v->dev;
	struct state_buf b = { 0 };
	struct error err;

	if (block)
		block_drain(block);
	if (state_save(&b, d->cls->state, d->instance, d))
		abort();
	d->cls->reset(&t->v->dev);
	if (load)
		state_load(&b, d->cls->state, d->instance, t->v, &err);
	state_buf_free(&b);
}

/* What the world outside does to the machine's screen and input devices. */
static struct display display;
static struct input people;

static void look_and_type(struct bytes *in)
{
	uint8_t how = u8(in), a = u8(in), b = u8(in);

	display_refresh(&display, how & 1);
	input_key(&people, a, how & 2);
	input_pointer(&people, a << 7, b << 7, (int8_t)how, how >> 4, 100 + a, 100 + b);
}

static void step(struct test_driver *t, struct bytes *in, struct block *block, struct net *net)
{
	static const uint8_t sizes[] = { 1, 2, 4, 8, 16, 32, 64, 128 };
	uint8_t frame[4096], len, flags;
	uint64_t at;
	uint32_t v, size;
	unsigned q;

	switch (u8(in) % OP_COUNT) {
	case OP_START:
		v = u32(in);
		td_start(t, v, sizes[u8(in) % 8]);
		break;
	case OP_DESC:
		q = u8(in) % 3;
		v = u8(in);
		at = address(in);
		size = (uint32_t)u16(in);
		if (!(v & 1))
			size <<= u8(in) % 17;
		flags = u8(in);
		td_desc(t, q, v, at, size, flags, u8(in));
		break;
	case OP_OFFER:
		q = u8(in) % 3;
		if (t->size)
			td_offer(t, q, u8(in));
		break;
	case OP_KICK:
		virtio_notify(t->v, u8(in));
		td_run(t, 0);
		break;
	case OP_PUT:
		at = address(in);
		len = u8(in);
		for (unsigned i = 0; i < len; i++)
			frame[i] = u8(in);
		mem_write(t->mem, GPA(at), frame, len);
		break;
	case OP_STATUS:
		virtio_set_status(t->v, u8(in));
		q = u8(in) % VIRTIO_MAX_QUEUES;
		if (t->v->vq[q].enabled)
			break;
		t->v->vq[q].size = u16(in);
		t->v->vq[q].desc = address(in);
		t->v->vq[q].avail = address(in);
		t->v->vq[q].used = address(in);
		virtio_queue_enable(t->v, q);
		break;
	case OP_CONFIG:
		v = u32(in);
		virtio_config_write(t->v, v & 0xff, v, 1u << (v >> 8) % 3);
		virtio_config_read(t->v, v & 0xffff, 1u << (v >> 16) % 3);
		break;
	case OP_DELIVER: {
		struct net_frame_info info = { .gso_size = u8(in) & 1 ? 1460 : 0 };

		v = u16(in) % sizeof(frame);
		memset(frame, (uint8_t)v, sizeof(frame));
		for (unsigned i = 0; i < 60; i++)
			frame[i] = u8(in);
		if (net && net->client.receive)
			net->client.receive(net->client.opaque, frame, v, &info);
		if (!net)
			look_and_type(in);
		break;
	}
	case OP_STATE:
		op_state(t, block, u8(in) & 1);
		break;
	default:
		break;
	}
}

static struct block *open_disk(struct test_driver *t, int *ret_fd)
{
	struct block *b = NULL;
	char path[32];
	int fd = memfd_create("disk", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, DISK_SIZE))
		abort();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (block_open(t->loop, path, false, BLOCK_FORMAT_RAW, &b, NULL))
		abort();
	*ret_fd = fd;
	return b;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t mac[6] = { 0x52, 0x54, 0, 1, 2, 3 };
	struct bytes in = { data, size };
	struct virtio_device *v = NULL;
	struct block *block = NULL;
	struct net *net = NULL;
	struct test_driver t;
	int fd = -1, rc;

	td_init(&t);
	display = (struct display){ 0 };
	people = (struct input){ 0 };
	switch (u8(&in) % 6) {
	case 0:
		block = open_disk(&t, &fd);
		rc = virtio_blk_new(&t.board, block, "fuzz", 3, 0, &v, NULL);
		break;
	case 1:
		rc = net_null_new(&net, NULL) || virtio_net_new(&t.board, net, mac, 0, &v, NULL);
		break;
	case 3:
		rc = virtio_gpu_new(&t.board, &display, 0, &v, NULL);
		break;
	case 4:
	case 5:
		rc = virtio_input_new(&t.board, &people, data[0] % 6 - 4, 0, &v, NULL);
		break;
	default:
		rc = virtio_rng_new(&t.board, 0, &v, NULL);
	}
	if (rc)
		abort();
	td_attach(&t, v);
	for (unsigned n = 0; n < MAX_OPS && in.left; n++)
		step(&t, &in, block, net);
	if (block)
		block_drain(block);
	board_free_devices(&t.board);
	block_close(block);
	net_free(net);
	td_fini(&t);
	if (fd >= 0)
		close(fd);
	return 0;
}
