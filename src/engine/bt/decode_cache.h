/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A faster way to insn_decode's answers for common 64-bit code: see
 * decode_cache.c.  Not for two threads at once.
 */
#ifndef SILL_ENGINE_BT_DECODE_CACHE_H
#define SILL_ENGINE_BT_DECODE_CACHE_H

#include "engine/bt/decode.h"

struct decode_cache;

/* For one CPU model, which must stay. NULL: out of memory. */
struct decode_cache *decode_cache_new(const struct cpu_model *m);
void decode_cache_free(struct decode_cache *d);

/* As insn_decode followed by insn_restrict; of in->bytes only the instruction's own count. */
int decode_cached(struct decode_cache *d, const uint8_t *code, size_t n, unsigned mode, bool real,
		  struct insn *in);

#endif
