/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bzImage's payload is one compressed vmlinux, followed by its uncompressed
 * size in four little-endian bytes (for gzip they are the trailer's ISIZE).
 */
#include <errno.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "base/util.h"
#include "boot/image.h"

#define OUTPUT_MAX MIB(1024)

typedef int (*decoder)(const uint8_t *in, size_t in_size, uint8_t *out, size_t out_size);

static int run_lzma(lzma_stream *s, const uint8_t *in, size_t in_size, uint8_t *out, size_t out_size)
{
	s->next_in = in;
	s->avail_in = in_size;
	s->next_out = out;
	s->avail_out = out_size;
	lzma_ret r;
	do
		r = lzma_code(s, LZMA_FINISH);
	while (r == LZMA_OK && s->avail_out && s->avail_in);
	/* A legacy .lzma without end marker just fills the output. */
	bool done = r == LZMA_STREAM_END || (r == LZMA_OK && !s->avail_out);
	bool full = !s->avail_out;
	lzma_end(s);
	return done && full ? 0 : -EINVAL;
}

static int decode_xz(const uint8_t *in, size_t in_size, uint8_t *out, size_t out_size)
{
	lzma_stream s = LZMA_STREAM_INIT;
	if (lzma_stream_decoder(&s, UINT64_MAX, 0) != LZMA_OK)
		return -ENOMEM;
	return run_lzma(&s, in, in_size, out, out_size);
}

static int decode_lzma(const uint8_t *in, size_t in_size, uint8_t *out, size_t out_size)
{
	lzma_stream s = LZMA_STREAM_INIT;
	if (lzma_alone_decoder(&s, UINT64_MAX) != LZMA_OK)
		return -ENOMEM;
	return run_lzma(&s, in, in_size, out, out_size);
}

static int decode_gzip(const uint8_t *in, size_t in_size, uint8_t *out, size_t out_size)
{
	z_stream s = { 0 };
	if (inflateInit2(&s, 16 + MAX_WBITS) != Z_OK)
		return -ENOMEM;
	s.next_in = (Bytef *)(uintptr_t)in;
	s.avail_in = (uInt)in_size;
	s.next_out = out;
	s.avail_out = (uInt)out_size;
	int r = inflate(&s, Z_FINISH);
	bool full = !s.avail_out;
	inflateEnd(&s);
	return r == Z_STREAM_END && full ? 0 : -EINVAL;
}

static int decode_zstd(const uint8_t *in, size_t in_size, uint8_t *out, size_t out_size)
{
	/* The appended size is not part of the frame. */
	size_t frame = ZSTD_findFrameCompressedSize(in, in_size);
	if (ZSTD_isError(frame))
		return -EINVAL;
	size_t n = ZSTD_decompress(out, out_size, in, frame);
	return !ZSTD_isError(n) && n == out_size ? 0 : -EINVAL;
}

static const struct {
	uint8_t magic[6];
	uint8_t len;
	decoder fn;
} formats[] = {
	{ { 0xfd, '7', 'z', 'X', 'Z', 0 }, 6, decode_xz },
	{ { 0x1f, 0x8b, 8 }, 3, decode_gzip },
	{ { 0x28, 0xb5, 0x2f, 0xfd }, 4, decode_zstd },
	{ { 0x5d, 0, 0 }, 3, decode_lzma },
};

int boot_decompress(const uint8_t *data, size_t size, uint8_t **ret, size_t *ret_size)
{
	if (size < 16)
		return -EINVAL;
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		if (memcmp(data, formats[i].magic, formats[i].len) != 0)
			continue;
		size_t out_size = le_get(data + size - 4, 4);
		if (out_size < 64 || out_size > OUTPUT_MAX)
			return -EINVAL;
		uint8_t *out = malloc(out_size);
		if (!out)
			return -ENOMEM;
		int r = formats[i].fn(data, size, out, out_size);
		if (r) {
			free(out);
			return r;
		}
		*ret = out;
		*ret_size = out_size;
		return 0;
	}
	return -ENOTSUP;
}
