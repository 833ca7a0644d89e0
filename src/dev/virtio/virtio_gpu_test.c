/* SPDX-License-Identifier: Apache-2.0 */
/* The graphics card: a driver's commands on one side, a picture on the other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "dev/virtio/test_driver.h"
#include "dev/virtio/virtio_gpu_internal.h"

#define REQUEST TD_DATA
#define REPLY   (TD_DATA + 0x1000)
#define PIECES  (TD_DATA + 0x10000)

#define OK            0x1100u
#define ERR_UNSPEC    0x1200u
#define ERR_MEMORY    0x1201u
#define ERR_SCANOUT   0x1202u
#define ERR_RESOURCE  0x1203u
#define ERR_PARAMETER 0x1205u

struct fixture {
	struct test_driver t;
	struct display display;
	struct display_viewer viewer;
	unsigned resized, updated;
	unsigned x, y, w, h;
	uint32_t reply_len;
};

static void resized(void *opaque, struct display *d)
{
	(void)d;
	((struct fixture *)opaque)->resized++;
}

static void updated(void *opaque, struct display *d, unsigned x, unsigned y, unsigned w, unsigned h)
{
	struct fixture *f = opaque;

	(void)d;
	f->updated++;
	f->x = x;
	f->y = y;
	f->w = w;
	f->h = h;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct virtio_device *v;

	td_init(&f->t);
	assert_int_equal(virtio_gpu_new(&f->t.board, &f->display, 0, &v, NULL), 0);
	td_attach(&f->t, v);
	f->viewer = (struct display_viewer){ .resized = resized, .updated = updated, .opaque = f };
	display_add_viewer(&f->display, &f->viewer);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	td_fini(&f->t);
	free(f);
	return 0;
}

/* One request of n words after the type; the answer's type. */
static uint32_t ask(struct fixture *f, unsigned queue, uint32_t type, unsigned n, const uint32_t *words)
{
	struct test_driver *t = &f->t;
	uint32_t header[6] = { type, 1, 0x12345678, 0x9abcdef0, 7, 0 }, reply[6] = { 0 };
	uint16_t before = td_used_idx(t, queue);

	td_put(t, REQUEST, header, sizeof(header));
	if (n)
		td_put(t, REQUEST + sizeof(header), words, n * 4);
	td_desc(t, queue, 0, REQUEST, 24 + n * 4, TD_NEXT, 1);
	td_desc(t, queue, 1, REPLY, 0x1000, TD_WRITE, 0);
	td_kick(t, queue, 0);
	assert_int_equal((uint16_t)(before + 1), td_used_idx(t, queue));
	f->reply_len = td_used_len(t, queue, before);
	td_get(t, REPLY, reply, sizeof(reply));
	assert_int_equal(reply[1], 1); /* the fence, given back */
	assert_int_equal(reply[2], 0x12345678);
	assert_int_equal(reply[3], 0x9abcdef0);
	return reply[0];
}

#define ASK(f, type, ...)                                                                                    \
	ask(f, 0, type, sizeof((uint32_t[]){ __VA_ARGS__ }) / 4, (const uint32_t[]){ __VA_ARGS__ })
#define CURSOR(f, type, ...)                                                                                 \
	ask(f, 1, type, sizeof((uint32_t[]){ __VA_ARGS__ }) / 4, (const uint32_t[]){ __VA_ARGS__ })

/* A resource of w x h pixels, its memory in two pieces. */
static void make(struct fixture *f, uint32_t id, uint32_t format, uint32_t w, uint32_t h)
{
	uint32_t half = w * h * 2;

	assert_int_equal(ASK(f, 0x101, id, format, w, h), OK);
	assert_int_equal(ASK(f, 0x106, id, 2, PIECES, 0, half, 0, PIECES + 0x80000, 0, half, 0), OK);
}

static void test_info(void **state)
{
	struct fixture *f = *state;
	uint32_t info[6];
	uint8_t edid[128], sum = 0;

	td_start(&f->t, 2, 64);
	assert_int_equal(virtio_config_read(f->t.v, 8, 4), 1);
	assert_int_equal(ask(f, 0, 0x100, 0, NULL), 0x1101);
	assert_int_equal(f->reply_len, 24 + 16 * 24);
	td_get(&f->t, REPLY + 24, info, sizeof(info));
	assert_int_equal(info[2], 1280);
	assert_int_equal(info[3], 800);
	assert_int_equal(info[4], 1);
	assert_int_equal(ASK(f, 0x10a, 0, 0), 0x1104);
	td_get(&f->t, REPLY + 24, info, 4);
	assert_int_equal(info[0], 128);
	td_get(&f->t, REPLY + 32, edid, sizeof(edid));
	for (unsigned i = 0; i < 128; i++)
		sum = (uint8_t)(sum + edid[i]);
	assert_int_equal(sum, 0);
	assert_int_equal(edid[54 + 2] | (edid[54 + 4] & 0xf0) << 4, 1280);
	assert_int_equal(ASK(f, 0x10a, 1, 0), ERR_PARAMETER);
}

static void test_picture(void **state)
{
	struct fixture *f = *state;
	uint32_t *a, *b;

	td_start(&f->t, 0, 64);
	make(f, 5, 2, 64, 32);
	a = mem_ram_ptr(f->t.mem, GPA(PIECES), 64 * 32 * 2);
	b = mem_ram_ptr(f->t.mem, GPA(PIECES + 0x80000), 64 * 32 * 2);
	a[0] = 0xff112233;
	a[64 * 16 - 1] = 0x00445566;
	b[0] = 0x00778899;
	assert_int_equal(ASK(f, 0x103, 0, 0, 64, 32, 0, 5), OK);
	assert_int_equal(f->resized, 1);
	assert_int_equal(f->display.width, 64);
	assert_int_equal(ASK(f, 0x105, 0, 0, 64, 32, 0, 0, 5, 0), OK);
	assert_int_equal(ASK(f, 0x104, 0, 0, 64, 32, 5, 0), OK);
	display_refresh(&f->display, false);
	assert_int_equal(f->display.pixels[0], 0x112233);
	assert_int_equal(f->display.pixels[64 * 16 - 1], 0x445566);
	assert_int_equal(f->display.pixels[64 * 16], 0x778899);
	/* Only what is flushed is shown. */
	a[64 * 2 + 3] = 0xabcdef;
	assert_int_equal(ASK(f, 0x105, 3, 2, 1, 1, (64 * 2 + 3) * 4, 0, 5, 0), OK);
	f->updated = 0;
	display_refresh(&f->display, false);
	assert_int_equal(f->updated, 0);
	assert_int_equal(ASK(f, 0x104, 3, 2, 1, 1, 5, 0), OK);
	display_refresh(&f->display, false);
	assert_int_equal(f->updated, 1);
	assert_true(f->x == 3 && f->y == 2 && f->w == 1 && f->h == 1);
	assert_int_equal(f->display.pixels[64 * 2 + 3], 0xabcdef);
	/* Other orders of the bytes. */
	make(f, 6, 68, 8, 8);
	a[0] = 0x332211ff;
	assert_int_equal(ASK(f, 0x105, 0, 0, 8, 8, 0, 0, 6, 0), OK);
	assert_int_equal(ASK(f, 0x103, 0, 0, 8, 8, 0, 6), OK);
	display_refresh(&f->display, false);
	assert_int_equal(f->display.pixels[0], 0x332211);
	/* Off */
	assert_int_equal(ASK(f, 0x103, 0, 0, 0, 0, 0, 0), OK);
	display_refresh(&f->display, false);
	assert_int_equal(f->display.pixels[0], 0);
}

static void test_cursor(void **state)
{
	struct fixture *f = *state;
	uint32_t *a;

	td_start(&f->t, 0, 64);
	make(f, 1, 2, 128, 128);
	assert_int_equal(ASK(f, 0x103, 0, 0, 128, 128, 0, 1), OK);
	assert_int_equal(ASK(f, 0x101, 2, 1, 64, 64), OK);
	assert_int_equal(ASK(f, 0x106, 2, 1, PIECES, 0, 64 * 64 * 4, 0), OK);
	a = mem_ram_ptr(f->t.mem, GPA(PIECES), 4);
	*a = 0xff00ff00;
	assert_int_equal(ASK(f, 0x105, 0, 0, 64, 64, 0, 0, 2, 0), OK);
	assert_int_equal(CURSOR(f, 0x300, 0, 10, 20, 0, 2, 3, 4, 0), OK);
	display_refresh(&f->display, false);
	assert_int_equal(f->display.pixels[(20 - 4) * 128 + 10 - 3], 0xff00);
	assert_int_equal(CURSOR(f, 0x301, 0, 100, 100, 0, 2, 3, 4, 0), OK);
	display_refresh(&f->display, false);
	assert_int_equal(f->display.pixels[(20 - 4) * 128 + 10 - 3], 0);
	assert_int_equal(f->display.pixels[(100 - 4) * 128 + 100 - 3], 0xff00);
	assert_int_equal(CURSOR(f, 0x301, 0, 0xffffffff, 0xfffffff0, 0, 2, 0, 0, 0), OK);
	assert_int_equal(CURSOR(f, 0x300, 0, 0, 0, 0, 0, 0, 0, 0), OK);
	assert_int_equal(CURSOR(f, 0x300, 1, 0, 0, 0, 0, 0, 0, 0), ERR_SCANOUT);
	display_refresh(&f->display, true);
	assert_int_equal(f->display.pixels[(100 - 4) * 128 + 100 - 3], 0);
}

static void test_hostile(void **state)
{
	struct fixture *f = *state;
	struct test_driver *t = &f->t;
	uint32_t word = 0x100;

	td_start(t, 0, 64);
	assert_int_equal(ASK(f, 0x101, 0, 1, 8, 8), ERR_RESOURCE);
	assert_int_equal(ASK(f, 0x101, 1, 99, 8, 8), ERR_PARAMETER);
	assert_int_equal(ASK(f, 0x101, 1, 1, 0, 8), ERR_PARAMETER);
	assert_int_equal(ASK(f, 0x101, 1, 1, 0xffffffff, 0xffffffff), ERR_MEMORY);
	assert_int_equal(ASK(f, 0x101, 1, 1, 8192, 8192), ERR_MEMORY);
	assert_int_equal(ASK(f, 0x102, 1, 0), ERR_RESOURCE);
	make(f, 1, 1, 16, 16);
	assert_int_equal(ASK(f, 0x101, 1, 1, 8, 8), ERR_RESOURCE);
	assert_int_equal(ASK(f, 0x106, 1, 1, PIECES, 0, 16, 0), ERR_UNSPEC);
	/* Beyond the resource, beyond its memory */
	assert_int_equal(ASK(f, 0x105, 0, 0, 17, 1, 0, 0, 1, 0), ERR_PARAMETER);
	assert_int_equal(ASK(f, 0x105, 0xffffffff, 0, 2, 1, 0, 0, 1, 0), ERR_PARAMETER);
	assert_int_equal(ASK(f, 0x105, 0, 0, 16, 16, 4, 0, 1, 0), ERR_PARAMETER);
	assert_int_equal(ASK(f, 0x105, 0, 0, 16, 16, 0xffffffff, 0xffffffff, 1, 0), ERR_PARAMETER);
	assert_int_equal(ASK(f, 0x105, 0, 0, 16, 16, 0, 0, 9, 0), ERR_RESOURCE);
	assert_int_equal(ASK(f, 0x104, 1, 0, 16, 16, 1, 0), ERR_PARAMETER);
	assert_int_equal(ASK(f, 0x103, 0, 0, 17, 16, 0, 1), ERR_PARAMETER);
	assert_int_equal(ASK(f, 0x103, 0, 0, 0, 16, 0, 1), ERR_PARAMETER);
	assert_int_equal(ASK(f, 0x103, 0, 0, 16, 16, 1, 1), ERR_SCANOUT);
	assert_int_equal(ASK(f, 0x103, 0, 0, 16, 16, 0, 2), ERR_RESOURCE);
	/* More pieces than there are, pieces outside of RAM, none */
	assert_int_equal(ASK(f, 0x107, 1, 0), OK);
	assert_int_equal(ASK(f, 0x106, 1, 2, PIECES, 0, 16, 0), ERR_PARAMETER);
	assert_int_equal(ASK(f, 0x106, 1, 0), ERR_PARAMETER);
	assert_int_equal(ASK(f, 0x106, 1, 1, 0xfffffff0, 0xffffffff, 64, 0), ERR_PARAMETER);
	assert_int_equal(ASK(f, 0x106, 1, 1, TD_RAM - 4, 0, 8, 0), ERR_PARAMETER);
	assert_int_equal(ASK(f, 0x105, 0, 0, 1, 1, 0, 0, 1, 0), ERR_PARAMETER);
	assert_int_equal(ASK(f, 0x200, 0), ERR_UNSPEC);
	/* What is shown goes away. */
	assert_int_equal(ASK(f, 0x103, 0, 0, 16, 16, 0, 1), OK);
	assert_int_equal(ASK(f, 0x102, 1, 0), OK);
	display_refresh(&f->display, true);
	/* As many as it takes */
	for (uint32_t id = 1; id <= GPU_RESOURCES; id++)
		assert_int_equal(ASK(f, 0x101, id, 1, 4, 4), OK);
	assert_int_equal(ASK(f, 0x101, 1000, 1, 4, 4), ERR_MEMORY);
	/* A request that is none, an answer without room */
	td_put(t, REQUEST, &word, 4);
	td_desc(t, 0, 0, REQUEST, 4, TD_NEXT, 1);
	td_desc(t, 0, 1, REPLY, 4, TD_WRITE, 0);
	td_kick(t, 0, 0);
	td_get(t, REPLY, &word, 4);
	assert_int_equal(word, ERR_UNSPEC);
	td_desc(t, 0, 0, REQUEST, 4, 0, 0);
	td_kick(t, 0, 0);
	assert_false(td_is_broken(t));
}

/* Pieces of one resource are taken away between those of others. */
static void test_pieces(void **state)
{
	struct fixture *f = *state;
	struct virtio_gpu *g = (struct virtio_gpu *)f->t.v;

	td_start(&f->t, 0, 64);
	for (uint32_t id = 1; id <= 3; id++)
		make(f, id, 1, 8, 8);
	assert_int_equal(g->nr_entries, 6);
	assert_int_equal(ASK(f, 0x107, 2, 0), OK);
	assert_int_equal(g->nr_entries, 4);
	assert_int_equal(g->first[gpu_find(g, 3)], 2);
	assert_int_equal(ASK(f, 0x105, 0, 0, 8, 8, 0, 0, 3, 0), OK);
	assert_int_equal(ASK(f, 0x102, 1, 0), OK);
	assert_int_equal(g->first[gpu_find(g, 3)], 0);
	assert_int_equal(ASK(f, 0x105, 0, 0, 8, 8, 0, 0, 3, 0), OK);
}

static void test_save_load(void **state)
{
	struct fixture *f = *state;
	struct test_driver *t = &f->t;
	struct virtio_gpu *g = (struct virtio_gpu *)t->v;
	const struct device *d = &t->v->dev;
	struct state_buf b = { 0 };
	struct error err;
	uint32_t *a;

	td_start(t, 2, 64);
	make(f, 5, 2, 64, 32);
	a = mem_ram_ptr(t->mem, GPA(PIECES), 4);
	*a = 0x00a1b2c3;
	assert_int_equal(ASK(f, 0x103, 0, 0, 64, 32, 0, 5), OK);
	assert_int_equal(ASK(f, 0x105, 0, 0, 64, 32, 0, 0, 5, 0), OK);
	assert_int_equal(state_save(&b, d->cls->state, d->instance, d), 0);
	d->cls->reset(&t->v->dev);
	assert_int_equal(g->nr_entries, 0);
	assert_int_equal(gpu_find(g, 5), -1);
	display_refresh(&f->display, true);
	assert_int_equal(f->display.pixels[0], 0);
	assert_int_equal(state_load(&b, d->cls->state, d->instance, t->v, &err), 0);
	display_refresh(&f->display, true);
	assert_int_equal(f->display.width, 64);
	assert_int_equal(f->display.pixels[0], 0xa1b2c3);
	*a = 0x00ffffff;
	assert_int_equal(ASK(f, 0x105, 0, 0, 64, 32, 0, 0, 5, 0), OK);
	/* A damaged state is refused, and nothing changes. */
	g->first[0] = 7;
	state_buf_free(&b);
	b = (struct state_buf){ 0 };
	assert_int_equal(state_save(&b, d->cls->state, d->instance, d), 0);
	g->first[0] = 0;
	assert_true(state_load(&b, d->cls->state, d->instance, t->v, &err) < 0);
	assert_int_equal(gpu_find(g, 5), 0);
	state_buf_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_info, setup, teardown),
		cmocka_unit_test_setup_teardown(test_picture, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cursor, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pieces, setup, teardown),
		cmocka_unit_test_setup_teardown(test_save_load, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
