/* SPDX-License-Identifier: Apache-2.0 */
/* The VNC server's parts: connections (vnc.c), what clients say (vnc_message.c), what they get
 * (vnc_update.c). */
#ifndef SILL_UI_VNC_INTERNAL_H
#define SILL_UI_VNC_INTERNAL_H

#include <zlib.h>

#include "ui/vnc.h"

#define TILE    16u
#define TILES_X (DISPLAY_MAX_WIDTH / TILE)
#define TILES_Y (DISPLAY_MAX_HEIGHT / TILE)
#define IN_MAX  4096u

enum { ENC_RAW = 0, ENC_ZRLE = 16, ENC_DESKTOP_SIZE = -223, ENC_EXT_KEY = -258 };

enum vnc_state { WAIT_VERSION, WAIT_SECURITY, WAIT_AUTH, WAIT_INIT, RUNNING, DEAD };

struct vnc_format {
	uint8_t bpp, depth, big_endian, true_colour;
	uint16_t max[3];
	uint8_t shift[3];
};

struct vnc_client {
	struct vnc *vnc;
	struct vnc_client *next;
	int fd;
	struct loop_watch watch;
	struct loop_timer timeout; /* until the handshake is over */
	enum vnc_state state;
	unsigned minor; /* protocol 3.minor */
	uint8_t challenge[16];
	bool local;

	uint8_t in[IN_MAX];
	size_t in_len;
	uint64_t skip; /* bytes of clipboard text that are still to be thrown away */
	uint8_t *out;
	size_t out_len, out_pos, out_cap;

	struct vnc_format format;
	bool zrle, desktop_size, ext_key;
	z_stream z;
	bool z_ready;
	bool wants;             /* an update was asked for */
	bool resized;           /* the client has to be told of a new size */
	unsigned width, height; /* as the client knows them */
	uint64_t dirty[TILES_Y][TILES_X / 64];
	bool any_dirty;
	unsigned buttons;
	uint8_t keys[64]; /* that this client holds down */
	bool shift_added; /* we pressed Shift on its behalf */
};

struct vnc {
	struct loop *loop;
	struct display *display;
	struct display_viewer viewer;
	struct input *input;
	char *name, *unix_path;
	char password[8];
	bool has_password;
	int fd;
	struct loop_watch watch;
	struct loop_timer timer;
	struct vnc_client *clients;
	unsigned nr_clients;
};

/* ---- vnc.c ---- */

/* Disconnects it, when nothing uses it any more (vnc_reap). why: for the log; NULL: none is needed. */
void vnc_drop(struct vnc_client *c, const char *why);
void vnc_reap(struct vnc *v);
/* Output: room for n bytes; bytes; numbers as the protocol has them; what the socket takes of it now. */
bool vnc_reserve(struct vnc_client *c, size_t n);
void vnc_put(struct vnc_client *c, const void *p, size_t n);
void vnc_put8(struct vnc_client *c, uint8_t v);
void vnc_put16(struct vnc_client *c, uint16_t v);
void vnc_put32(struct vnc_client *c, uint32_t v);
void vnc_flush(struct vnc_client *c);

/* ---- vnc_message.c ---- */

/* Does what the bytes in c->in say, as far as whole messages are there. */
void vnc_consume(struct vnc_client *c);
void vnc_release_keys(struct vnc_client *c);

/* ---- vnc_update.c ---- */

#define VNC_REFRESH_NS 33333333
extern const struct vnc_format vnc_our_format;
void vnc_mark(struct vnc_client *c, unsigned x, unsigned y, unsigned w, unsigned h);
void vnc_mark_all(struct vnc_client *c);
void vnc_begin_rect(struct vnc_client *c, unsigned x, unsigned y, unsigned w, unsigned h, int encoding);
/* Sends what is dirty, if the client asked for it and has read what it was sent before. */
void vnc_update(struct vnc_client *c);
void vnc_refresh_timer(void *opaque);
void vnc_viewer_updated(void *opaque, struct display *d, unsigned x, unsigned y, unsigned w, unsigned h);
void vnc_viewer_resized(void *opaque, struct display *d);

#endif
