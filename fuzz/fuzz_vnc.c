/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VNC client's side of the conversation: after the first byte, which says whether
 * there is a password and a local client, the input is what the client sends.
 * After each 64 bytes the screen changes, and sometimes its size.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "ui/vnc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_INPUT 8192u

static uint32_t pixels[640 * 480];

static void quit(void *opaque)
{
	loop_quit(opaque);
}

/* Lets the loop do what there is to do. */
static void run(struct loop *l, struct mutex *lock)
{
	struct loop_work w = { .fn = quit, .opaque = l };

	mutex_unlock(lock);
	for (unsigned i = 0; i < 3; i++) {
		loop_post(l, &w);
		loop_run(l);
	}
	mutex_lock(lock);
}

static void change(struct display *d, unsigned n)
{
	for (unsigned i = 0; i < 100; i++)
		pixels[(n * 7919 + i * 131) % ARRAY_SIZE(pixels)] = n * 0x010203;
	display_updated(d, 0, 0, d->width, d->height);
	if (n % 5 == 4) {
		d->width = n % 2 ? 320 : 640;
		d->height = n % 3 ? 200 : 480;
		display_resized(d);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct display d = { .width = 640, .height = 480, .pixels = pixels };
	struct vnc_config config = { .password = size && (data[0] & 1) ? "secret" : NULL };
	struct input in = { 0 };
	struct clock clock;
	struct mutex lock;
	struct loop *l;
	struct vnc *v;
	char drain[65536];
	int fd[2];

	clock_init(&clock);
	mutex_init(&lock, LOCK_RANK_IO, "io");
	if (loop_new(&clock, &lock, &l, NULL) || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd))
		abort();
	mutex_lock(&lock);
	if (vnc_new(l, &config, "fuzz", &d, &in, &v, NULL) || vnc_add_client(v, fd[0]))
		abort();
	for (size_t at = 1; at < size && at < MAX_INPUT; at += 64) {
		if (send(fd[1], data + at, min_u64(64, size - at), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			break; /* it was thrown out */
		run(l, &lock);
		change(&d, (unsigned)(at / 64));
		run(l, &lock);
		while (!(data[0] & 2) && recv(fd[1], drain, sizeof(drain), MSG_DONTWAIT) > 0)
			continue;
	}
	vnc_free(v);
	close(fd[1]);
	mutex_unlock(&lock);
	loop_free(l);
	mutex_destroy(&lock);
	return 0;
}
