/* SPDX-License-Identifier: Apache-2.0 */
/* PNG (ISO/IEC 15948) in its simplest form: 8-bit RGB, no filter, one IDAT chunk. */
#include "ui/png.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/util.h"

static uint8_t *put32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
	return p + 4;
}

/* A chunk whose data is in place behind the length and type: fills these in and appends the checksum. */
static uint8_t *finish(uint8_t *chunk, const char *type, size_t len)
{
	put32(chunk, (uint32_t)len);
	memcpy(chunk + 4, type, 4);
	return put32(chunk + 8 + len, (uint32_t)crc32(0, chunk + 4, (uInt)len + 4));
}

int png_encode(const uint32_t *pixels, unsigned width, unsigned height, uint8_t **ret, size_t *ret_size)
{
	size_t line = (size_t)width * 3 + 1, raw_size = line * height;
	uLongf packed = compressBound(raw_size);
	_cleanup_free_ uint8_t *raw = malloc(raw_size);
	uint8_t *out = malloc(packed + 128), *p = out;
	if (!raw || !out) {
		free(out);
		return -ENOMEM;
	}
	for (unsigned y = 0; y < height; y++) {
		uint8_t *q = raw + y * line;
		*q++ = 0;
		for (unsigned x = 0; x < width; x++, q += 3) {
			uint32_t c = pixels[(size_t)y * width + x];
			q[0] = (uint8_t)(c >> 16);
			q[1] = (uint8_t)(c >> 8);
			q[2] = (uint8_t)c;
		}
	}
	memcpy(p, "\x89PNG\r\n\x1a\n", 8);
	p += 8;
	put32(p + 8, width);
	put32(p + 12, height);
	memcpy(p + 16, "\x08\x02\x00\x00\x00", 5); /* 8 bits, RGB, deflate, filters, not interlaced */
	p = finish(p, "IHDR", 13);
	if (compress2(p + 8, &packed, raw, raw_size, Z_BEST_SPEED) != Z_OK) {
		free(out);
		return -ENOMEM;
	}
	p = finish(p, "IDAT", packed);
	p = finish(p, "IEND", 0);
	*ret = out;
	*ret_size = (size_t)(p - out);
	return 0;
}
