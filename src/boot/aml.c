/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "boot/aml.h"

/* Opcodes (ACPI 6.4 §20.3) */
#define OP_ZERO      0x00
#define OP_ONE       0x01
#define OP_NAME      0x08
#define OP_BYTE      0x0a
#define OP_WORD      0x0b
#define OP_DWORD     0x0c
#define OP_STRING    0x0d
#define OP_QWORD     0x0e
#define OP_SCOPE     0x10
#define OP_BUFFER    0x11
#define OP_PACKAGE   0x12
#define OP_METHOD    0x14
#define OP_DUALNAME  0x2e
#define OP_MULTINAME 0x2f
#define OP_EXT       0x5b
#define OP_DEVICE    0x82 /* after OP_EXT */
#define OP_IF        0xa0
#define OP_RETURN    0xa4

#define PKG_LENGTH_SIZE 4

void aml_byte(struct aml *a, uint8_t v)
{
	if (a->len == a->cap) {
		a->overflow = true;
		return;
	}
	a->buf[a->len++] = v;
}

void aml_bytes(struct aml *a, const void *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		aml_byte(a, ((const uint8_t *)p)[i]);
}

static void put(struct aml *a, uint64_t v, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		aml_byte(a, (uint8_t)(v >> (8 * i)));
}

void aml_name_string(struct aml *a, const char *path)
{
	if (*path == '\\')
		aml_byte(a, (uint8_t)*path++);
	unsigned segments = (unsigned)(strlen(path) + 1) / 5;
	if (segments == 2)
		aml_byte(a, OP_DUALNAME);
	if (segments > 2) {
		aml_byte(a, OP_MULTINAME);
		aml_byte(a, (uint8_t)segments);
	}
	for (unsigned i = 0; i < segments; i++)
		aml_bytes(a, path + 5 * i, 4);
}

void aml_integer(struct aml *a, uint64_t v)
{
	if (v <= 1) {
		aml_byte(a, v ? OP_ONE : OP_ZERO);
	} else if (v <= UINT8_MAX) {
		aml_byte(a, OP_BYTE);
		put(a, v, 1);
	} else if (v <= UINT16_MAX) {
		aml_byte(a, OP_WORD);
		put(a, v, 2);
	} else if (v <= UINT32_MAX) {
		aml_byte(a, OP_DWORD);
		put(a, v, 4);
	} else {
		aml_byte(a, OP_QWORD);
		put(a, v, 8);
	}
}

void aml_string(struct aml *a, const char *s)
{
	aml_byte(a, OP_STRING);
	aml_bytes(a, s, strlen(s) + 1);
}

static unsigned hex_digit(char c)
{
	return (unsigned)(c <= '9' ? c - '0' : c - 'A' + 10);
}

void aml_eisa_id(struct aml *a, const char *id)
{
	/* Three letters of five bits each, then four hex digits, most significant byte first (§19.3.4). */
	uint16_t maker = (uint16_t)((id[0] - '@') << 10 | (id[1] - '@') << 5 | (id[2] - '@'));
	aml_byte(a, OP_DWORD);
	aml_byte(a, (uint8_t)(maker >> 8));
	aml_byte(a, (uint8_t)maker);
	aml_byte(a, (uint8_t)(hex_digit(id[3]) << 4 | hex_digit(id[4])));
	aml_byte(a, (uint8_t)(hex_digit(id[5]) << 4 | hex_digit(id[6])));
}

static void open_term(struct aml *a)
{
	if (a->depth == AML_DEPTH) {
		a->overflow = true;
		return;
	}
	a->open[a->depth++] = a->len;
	put(a, 0, PKG_LENGTH_SIZE);
}

void aml_close(struct aml *a)
{
	if (a->overflow || !a->depth)
		return;
	size_t at = a->open[--a->depth];
	size_t n = a->len - at;                   /* the length counts itself */
	a->buf[at] = (uint8_t)(0xc0 | (n & 0xf)); /* three more bytes follow */
	a->buf[at + 1] = (uint8_t)(n >> 4);
	a->buf[at + 2] = (uint8_t)(n >> 12);
	a->buf[at + 3] = (uint8_t)(n >> 20);
}

void aml_scope(struct aml *a, const char *path)
{
	aml_byte(a, OP_SCOPE);
	open_term(a);
	aml_name_string(a, path);
}

void aml_device(struct aml *a, const char *name)
{
	aml_byte(a, OP_EXT);
	aml_byte(a, OP_DEVICE);
	open_term(a);
	aml_name_string(a, name);
}

void aml_method(struct aml *a, const char *name, unsigned nr_args)
{
	aml_byte(a, OP_METHOD);
	open_term(a);
	aml_name_string(a, name);
	aml_byte(a, (uint8_t)nr_args);
}

void aml_if_name(struct aml *a, const char *name)
{
	aml_byte(a, OP_IF);
	open_term(a);
	aml_name_string(a, name);
}

void aml_package(struct aml *a, unsigned nr_elements)
{
	aml_byte(a, OP_PACKAGE);
	open_term(a);
	aml_byte(a, (uint8_t)nr_elements);
}

void aml_name(struct aml *a, const char *name)
{
	aml_byte(a, OP_NAME);
	aml_name_string(a, name);
}

void aml_name_integer(struct aml *a, const char *name, uint64_t v)
{
	aml_name(a, name);
	aml_integer(a, v);
}

void aml_return_name(struct aml *a, const char *name)
{
	aml_byte(a, OP_RETURN);
	aml_name_string(a, name);
}

/* ---- resources ---- */

void aml_crs(struct aml *a)
{
	aml_name(a, "_CRS");
	aml_byte(a, OP_BUFFER);
	open_term(a);
	aml_byte(a, OP_WORD); /* the buffer's size, patched at the end */
	put(a, 0, 2);
}

void aml_crs_end(struct aml *a)
{
	put(a, 0x0079, 2); /* end tag; checksum 0: not checked */
	if (a->overflow || !a->depth)
		return;
	size_t size_at = a->open[a->depth - 1] + PKG_LENGTH_SIZE + 1;
	size_t n = a->len - (size_at + 2);
	a->buf[size_at] = (uint8_t)n;
	a->buf[size_at + 1] = (uint8_t)(n >> 8);
	aml_close(a);
}

void aml_io(struct aml *a, uint16_t base, uint8_t len)
{
	aml_byte(a, 0x47); /* small, I/O port, 7 bytes */
	aml_byte(a, 1);    /* decodes 16 bits */
	put(a, base, 2);
	put(a, base, 2);
	aml_byte(a, 1);
	aml_byte(a, len);
}

void aml_irq(struct aml *a, unsigned irq)
{
	aml_byte(a, 0x22); /* small, IRQ without flags: edge, active high, exclusive */
	put(a, 1u << irq, 2);
}

void aml_dma(struct aml *a, unsigned channel)
{
	aml_byte(a, 0x2a); /* small, DMA */
	aml_byte(a, (uint8_t)(1u << channel));
	aml_byte(a, 0); /* compatible timing, 8 bits */
}

void aml_memory32(struct aml *a, uint32_t base, uint32_t len)
{
	aml_byte(a, 0x86);
	put(a, 9, 2);
	aml_byte(a, 1); /* writable */
	put(a, base, 4);
	put(a, len, 4);
}

/* Address-space descriptors (§6.4.3.5): type 0 memory, 1 I/O, 2 bus numbers. */
static void address_space(struct aml *a, uint8_t tag, unsigned width, uint8_t type, uint8_t type_flags,
			  uint64_t first, uint64_t last)
{
	aml_byte(a, tag);
	put(a, 3 + 5 * width, 2);
	aml_byte(a, type);
	aml_byte(a, 0x0c); /* both ends fixed, positive decode, produced for children */
	aml_byte(a, type_flags);
	put(a, 0, width); /* granularity */
	put(a, first, width);
	put(a, last, width);
	put(a, 0, width); /* translation */
	put(a, last - first + 1, width);
}

void aml_bus_range(struct aml *a, uint16_t first, uint16_t last)
{
	address_space(a, 0x88, 2, 2, 0, first, last);
}

void aml_io_window(struct aml *a, uint16_t first, uint16_t last)
{
	address_space(a, 0x88, 2, 1, 3 /* the whole range, ISA and not */, first, last);
}

void aml_memory_window32(struct aml *a, uint32_t first, uint32_t last)
{
	address_space(a, 0x87, 4, 0, 1 /* writable, uncached */, first, last);
}

void aml_memory_window64(struct aml *a, uint64_t first, uint64_t last)
{
	address_space(a, 0x8a, 8, 0, 1, first, last);
}
