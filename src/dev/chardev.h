/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Character devices: where a serial port's bytes go to and come from.
 *
 * Nothing is lost and nothing blocks.  Input is read from the file only while
 * the reader has room; output that the file does not take now waits in a buffer,
 * and when that is full chardev_write takes fewer bytes and the reader's
 * `writable` is called once there is room again.  A listening socket without a
 * client keeps the last CHARDEV_BUFFER bytes for the next one.
 *
 * All functions and callbacks: I/O lock held.
 */
#ifndef SILL_DEV_CHARDEV_H
#define SILL_DEV_CHARDEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/loop.h"

#define CHARDEV_BUFFER 65536

struct chardev;

struct chardev_ops {
	/* Takes up to len bytes; how many. */
	size_t (*write)(struct chardev *c, const uint8_t *buf, size_t len);
	/* The reader may have room again; fresh: it is there for the first time, tell it whether it is
	 * connected. */
	void (*reader_ready)(struct chardev *c, bool fresh);
	void (*free)(struct chardev *c);
};

/* Who uses the device. Callbacks may be NULL. */
struct chardev_reader {
	size_t (*room)(void *opaque);                               /* how many bytes read() would take now */
	void (*read)(void *opaque, const uint8_t *buf, size_t len); /* len <= room */
	void (*writable)(void *opaque);            /* after chardev_write took less than all */
	void (*connected)(void *opaque, bool yes); /* somebody is at the other end */
	void *opaque;
};

struct chardev {
	const struct chardev_ops *ops;
	struct chardev_reader reader;
};

/* Sets the one reader (NULL: none) and tells the device that it is there. */
void chardev_set_reader(struct chardev *c, const struct chardev_reader *r);
/* All three accept NULL: a device without an other end takes everything and gives nothing. */
size_t chardev_write(struct chardev *c, const void *buf, size_t len);
void chardev_reader_ready(struct chardev *c);
void chardev_free(struct chardev *c);

/*
 * A pair of open files, -1 for none; they may be the same. close_fds: closed by chardev_free. Neither is made
 * non-blocking (that would change it for everybody who shares it): they are polled instead.
 */
int chardev_fd_new(struct loop *l, int in_fd, int out_fd, bool close_fds, struct chardev **ret,
		   struct error *err);
/*
 * Standard input and output. If the input is a terminal, escape(opaque, c) is called for Ctrl-A followed by c
 * (Ctrl-A twice sends one); escape may be NULL: then Ctrl-A is an ordinary byte. The terminal's mode is the
 * program's business.
 */
int chardev_stdio_new(struct loop *l, void (*escape)(void *opaque, uint8_t c), void *opaque,
		      struct chardev **ret, struct error *err);
/* Output to a file, created or truncated; no input. */
int chardev_file_new(struct loop *l, const char *path, struct chardev **ret, struct error *err);
/* A unix stream socket that listens at path, one client at a time. A stale socket file there is replaced. */
int chardev_unix_new(struct loop *l, const char *path, struct chardev **ret, struct error *err);

#endif
