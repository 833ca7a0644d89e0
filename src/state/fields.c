/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A section on the stream:
 *
 *	u8  name length, then the name
 *	u32 instance
 *	u32 table version that wrote it
 *	u32 payload length
 *	    the fields that this version has, in table order, each element
 *	    little-endian at its own width (a bool is one byte)
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "state/fields.h"

static const uint8_t type_size[] = {
	[FIELD_U8] = 1,  [FIELD_U16] = 2,  [FIELD_U32] = 4,
	[FIELD_U64] = 8, [FIELD_BOOL] = 1, [FIELD_BYTES] = 1,
};

void state_buf_free(struct state_buf *b)
{
	free(b->data);
	*b = (struct state_buf){ 0 };
}

static int reserve(struct state_buf *b, size_t n)
{
	if (b->cap - b->len >= n)
		return 0;
	size_t cap = b->cap ? b->cap : 256;
	while (cap - b->len < n)
		cap *= 2;
	uint8_t *p = realloc(b->data, cap);
	if (!p)
		return -ENOMEM;
	b->data = p;
	b->cap = cap;
	return 0;
}

static void put(struct state_buf *b, uint64_t v, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		b->data[b->len++] = (uint8_t)(v >> (8 * i));
}

static uint64_t get(const uint8_t *p, unsigned size)
{
	uint64_t v = 0;
	for (unsigned i = 0; i < size; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

static size_t payload_size(const struct state_table *t, uint32_t version)
{
	size_t n = 0;
	for (const struct state_field *f = t->fields; f->name; f++)
		if (f->since <= version)
			n += (size_t)f->count * type_size[f->type];
	return n;
}

static void put_field(struct state_buf *b, const struct state_field *f, const void *obj)
{
	const uint8_t *p = (const uint8_t *)obj + f->offset;
	unsigned size = type_size[f->type];
	for (uint32_t i = 0; i < f->count; i++, p += size) {
		uint64_t v = 0;
		memcpy(&v, p, size); /* the host is little-endian x86-64 */
		put(b, v, size);
	}
}

static void get_field(const uint8_t **from, const struct state_field *f, void *obj)
{
	uint8_t *p = (uint8_t *)obj + f->offset;
	unsigned size = type_size[f->type];
	for (uint32_t i = 0; i < f->count; i++, p += size, *from += size) {
		uint64_t v = get(*from, size);
		if (f->type == FIELD_BOOL)
			v = v != 0; /* any other value in a bool is undefined behaviour */
		memcpy(p, &v, size);
	}
}

static void get_fields(const uint8_t *from, const struct state_table *t, uint32_t version, void *obj)
{
	for (const struct state_field *f = t->fields; f->name; f++)
		if (f->since <= version)
			get_field(&from, f, obj);
}

int state_save(struct state_buf *b, const struct state_table *t, uint32_t instance, const void *obj)
{
	size_t name_len = strlen(t->name), payload = payload_size(t, t->version);
	if (name_len > 255)
		return -EINVAL;
	int r = reserve(b, 1 + name_len + 12 + payload);
	if (r)
		return r;
	put(b, name_len, 1);
	memcpy(b->data + b->len, t->name, name_len);
	b->len += name_len;
	put(b, instance, 4);
	put(b, t->version, 4);
	put(b, payload, 4);
	for (const struct state_field *f = t->fields; f->name; f++)
		if (f->since <= t->version)
			put_field(b, f, obj);
	return 0;
}

static int truncated(const struct state_table *t, struct error *err)
{
	return error_set(err, EPROTO,
			 "the saved state ends inside section %s; it is truncated, save it again", t->name);
}

int state_load(struct state_buf *b, const struct state_table *t, uint32_t instance, void *obj,
	       struct error *err)
{
	const uint8_t *p = b->data + b->pos;
	size_t left = b->len - b->pos;
	if (!b->data || left < 1 || left < 1 + (size_t)p[0] + 12)
		return truncated(t, err);
	size_t name_len = p[0];
	const char *name = (const char *)p + 1;
	if (name_len != strlen(t->name) || memcmp(name, t->name, name_len))
		return error_set(
		    err, EPROTO,
		    "the saved state has section %.*s where %s belongs; it is of another machine",
		    (int)name_len, name, t->name);
	p += 1 + name_len;
	left -= 1 + name_len + 12;
	uint32_t found = (uint32_t)get(p, 4), version = (uint32_t)get(p + 4, 4),
		 size = (uint32_t)get(p + 8, 4);
	p += 12;
	if (found != instance)
		return error_set(
		    err, EPROTO,
		    "the saved state has %s number %u where number %u belongs; it is of another machine",
		    t->name, found, instance);
	if (version == 0 || version > t->version)
		return error_set(
		    err, EPROTO,
		    "section %s of the saved state has version %u, this Sill knows up to %u; use a newer one",
		    t->name, version, t->version);
	if (size != payload_size(t, version))
		return error_set(err, EPROTO,
				 "section %s of the saved state holds %u bytes instead of %zu; it is damaged",
				 t->name, size, payload_size(t, version));
	if (left < size)
		return truncated(t, err);

	/* The table's own check sees the object filled in; what was there comes back if it refuses. */
	struct state_buf before = { 0 };
	int r = state_save(&before, t, instance, obj);
	if (r)
		return error_set(err, ENOMEM, "no memory to load section %s; free some and try again",
				 t->name);
	get_fields(p, t, version, obj);
	r = t->loaded ? t->loaded(obj, err) : 0;
	if (r)
		get_fields(before.data + 1 + name_len + 12, t, t->version, obj);
	else
		b->pos = (size_t)(p - b->data) + size;
	state_buf_free(&before);
	return r;
}
