/* SPDX-License-Identifier: Apache-2.0 */
/* What the fuzzers of whole boards share: reading the input, and damaged saves. */
#ifndef SILL_FUZZ_INPUT_H
#define SILL_FUZZ_INPUT_H

#include <stdlib.h>

#include "dev/device.h"
#include "state/fields.h"

struct fuzz_input {
	const uint8_t *data;
	size_t left;
};

/* The next bytes, little-endian; zeros behind the end. */
static inline uint8_t fuzz_u8(struct fuzz_input *in)
{
	if (!in->left)
		return 0;
	in->left--;
	return *in->data++;
}

static inline uint32_t fuzz_u16(struct fuzz_input *in)
{
	uint32_t v = fuzz_u8(in);

	return v | (uint32_t)fuzz_u8(in) << 8;
}

static inline uint32_t fuzz_u32(struct fuzz_input *in)
{
	uint32_t v = fuzz_u16(in);

	return v | fuzz_u16(in) << 16;
}

/* Writes n bytes of the input, at most 64, somewhere into the first MiB. */
static inline void fuzz_fill(struct mem *m, struct fuzz_input *in, unsigned n)
{
	uint32_t at = fuzz_u16(in) << 4;
	uint8_t bytes[64];

	for (unsigned i = 0; i < n; i++)
		bytes[i] = fuzz_u8(in);
	mem_write(m, GPA(at), bytes, n);
}

static inline void fuzz_quit(void *opaque)
{
	loop_quit(opaque);
}

/* Has the loop do what it has to do now. */
static inline void fuzz_run_loop(struct loop *l)
{
	struct loop_work w = { .fn = fuzz_quit, .opaque = l };

	loop_post(l, &w);
	loop_run(l);
}

/* Saves every device and lets the input damage a few bytes. s is empty; to be freed by fuzz_load. */
static inline void fuzz_save(struct board *b, struct fuzz_input *in, struct state_buf *s)
{
	unsigned damage = fuzz_u8(in) & 3;

	for (struct device *d = b->devices; d; d = d->next)
		if (d->cls->state && state_save(s, d->cls->state, d->instance, d) < 0)
			abort();
	for (unsigned i = 0; i < damage; i++) {
		uint32_t at = fuzz_u32(in);

		s->data[at % s->len] ^= fuzz_u8(in);
	}
}

/* Loads what can be loaded, under the I/O lock. */
static inline void fuzz_load(struct board *b, struct state_buf *s)
{
	for (struct device *d = b->devices; d; d = d->next)
		if (d->cls->state && state_load(s, d->cls->state, d->instance, d, NULL) < 0)
			break;
	state_buf_free(s);
}

#endif
