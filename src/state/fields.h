/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Field tables: how every device declares its state.
 *
 * A device lists the fields that make up its guest-visible state once; saving,
 * loading, dumping and comparing all come from that table.  A field names its
 * offset, size, count and the version that introduced it, so an older stream
 * can be loaded by a newer Sill (absent fields keep their reset value).
 * Numbers are stored little-endian at their own width.
 */
#ifndef SILL_STATE_FIELDS_H
#define SILL_STATE_FIELDS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum field_type { FIELD_U8, FIELD_U16, FIELD_U32, FIELD_U64, FIELD_BOOL, FIELD_BYTES };

struct state_field {
	const char *name;
	uint32_t offset;
	uint32_t count; /* elements; bytes for FIELD_BYTES */
	uint8_t type;   /* enum field_type */
	uint8_t since;  /* table version that introduced it, from 1 */
};

struct state_table {
	const char *name;
	uint32_t version;
	const struct state_field *fields; /* ends with a NULL name */
	/* After load: re-derive what is not stored, or refuse impossible values. May be NULL. */
	int (*loaded)(void *obj, struct error *err);
};

#define FIELD_(T, S, m, t, since_)                                                                           \
	{                                                                                                    \
#m, offsetof(S, m), 1, t, since_                                                             \
	}
#define FIELD_ARRAY_(S, m, t, n, since_)                                                                     \
	{                                                                                                    \
#m, offsetof(S, m), n, t, since_                                                             \
	}
#define F_U8(S, m)      FIELD_(uint8_t, S, m, FIELD_U8, 1)
#define F_U16(S, m)     FIELD_(uint16_t, S, m, FIELD_U16, 1)
#define F_U32(S, m)     FIELD_(uint32_t, S, m, FIELD_U32, 1)
#define F_U64(S, m)     FIELD_(uint64_t, S, m, FIELD_U64, 1)
#define F_BOOL(S, m)    FIELD_(bool, S, m, FIELD_BOOL, 1)
#define F_U8S(S, m, n)  FIELD_ARRAY_(S, m, FIELD_U8, n, 1)
#define F_U32S(S, m, n) FIELD_ARRAY_(S, m, FIELD_U32, n, 1)
#define F_U64S(S, m, n) FIELD_ARRAY_(S, m, FIELD_U64, n, 1)
#define F_BYTES(S, m)   FIELD_ARRAY_(S, m, FIELD_BYTES, sizeof(((S *)0)->m), 1)
#define F_END                                                                                                \
	{                                                                                                    \
		NULL, 0, 0, 0, 0                                                                             \
	}

/* A growable byte buffer that holds a stream of sections. Zero-initialise; free with state_buf_free. */
struct state_buf {
	uint8_t *data;
	size_t len, cap, pos;
};
void state_buf_free(struct state_buf *b);

/* Appends one section (name, instance, version, fields) for obj. 0 or -ENOMEM. */
int state_save(struct state_buf *b, const struct state_table *t, uint32_t instance, const void *obj);
/* Reads the section at b->pos into obj; it must be for t->name and instance. Refuses unknown newer versions,
 * wrong sizes and truncation with one sentence; obj is untouched on failure. */
int state_load(struct state_buf *b, const struct state_table *t, uint32_t instance, void *obj,
	       struct error *err);

#endif
