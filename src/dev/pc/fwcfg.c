/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fw_cfg, as QEMU's docs/specs/fw_cfg describes the x86 port variant.
 *
 * Writing the selector chooses an item and rewinds it; each read of the data port
 * gives its next byte, zeros past its end.  The DMA register takes the address
 * (big-endian, written in two halves) of a 16-byte command in guest memory:
 * control, length, address, all big-endian.  Items are read-only here: a DMA write
 * sets the error bit.
 */
#include "dev/pc/fwcfg.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define PORTS        12
#define OFF_DATA     1
#define OFF_DMA      4
#define ID_TRADITION 1u
#define ID_DMA       2u

#define DMA_ERROR  1u
#define DMA_READ   2u
#define DMA_SKIP   4u
#define DMA_SELECT 8u
#define DMA_WRITE  16u
#define DMA_SIGN   0x51454d5520434647ull /* "QEMU CFG" */

#define NAME_SIZE 56
#define MAX_FILES 128

struct item {
	uint16_t selector;
	uint8_t *data;
	size_t len;
	struct item *next;
};

/* A directory entry, big-endian. */
struct dir_entry {
	uint32_t size;
	uint16_t selector;
	uint16_t reserved;
	char name[NAME_SIZE];
};

struct dma_command {
	uint32_t control;
	uint32_t length;
	uint64_t address;
};

struct fwcfg {
	struct device dev;
	struct board *board;
	struct item *items;
	uint32_t nr_files;
	uint16_t selector;
	uint32_t offset; /* in the selected item */
	uint64_t dma_address;
	struct io_region ports;
};

static struct item *find(const struct fwcfg *f, uint16_t selector)
{
	for (struct item *i = f->items; i; i = i->next)
		if (i->selector == selector)
			return i;
	return NULL;
}

/* ---- reading ---- */

static void select_item(struct fwcfg *f, uint16_t selector)
{
	f->selector = selector;
	f->offset = 0;
}

static void advance(struct fwcfg *f, uint32_t n)
{
	/* Far past the end is as far as the end of all that can be. */
	f->offset = UINT32_MAX - f->offset < n ? UINT32_MAX : f->offset + n;
}

/* The next len bytes of the selected item, with zeros past its end. */
static void read_item(struct fwcfg *f, uint8_t *buf, size_t len)
{
	const struct item *i = find(f, f->selector);
	size_t have = i && f->offset < i->len ? min_u64(i->len - f->offset, len) : 0;

	if (have)
		memcpy(buf, i->data + f->offset, have);
	memset(buf + have, 0, len - have);
	advance(f, len);
}

static int dma_read(struct fwcfg *f, uint64_t address, uint32_t len)
{
	uint8_t buf[4096];

	while (len) {
		uint32_t n = min_u64(len, sizeof(buf));

		read_item(f, buf, n);
		int r = mem_write(f->board->mem, GPA(address), buf, n);
		if (r < 0)
			return r;
		address += n;
		len -= n;
	}
	return 0;
}

static void dma_run(struct fwcfg *f, uint64_t at)
{
	struct dma_command c;

	if (mem_read(f->board->mem, GPA(at), &c, sizeof(c)) < 0)
		return;
	uint32_t control = be32toh(c.control), len = be32toh(c.length), result = 0;
	if (control & DMA_SELECT)
		select_item(f, control >> 16);
	if (control & DMA_READ) {
		if (dma_read(f, be64toh(c.address), len) < 0)
			result = DMA_ERROR;
	} else if (control & DMA_WRITE) {
		result = DMA_ERROR;
	} else if (control & DMA_SKIP) {
		advance(f, len);
	}
	c.control = htobe32(result);
	mem_write(f->board->mem, GPA(at), &c.control, sizeof(c.control));
}

/* ---- ports ---- */

static uint64_t ports_read(void *opaque, uint64_t offset, unsigned size)
{
	struct fwcfg *f = opaque;
	uint8_t v = 0;

	if (offset >= OFF_DMA) {
		/* Reading the DMA register tells that there is one. It is big-endian on the bus. */
		uint64_t sign = htobe64(DMA_SIGN);

		return sign >> 8 * (offset - OFF_DMA);
	}
	if (offset != OFF_DATA || size != 1)
		return 0;
	read_item(f, &v, 1);
	return v;
}

static void ports_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct fwcfg *f = opaque;

	if (offset == 0 && size == 2) {
		select_item(f, value);
	} else if (offset == OFF_DMA && size == 4) {
		f->dma_address = (uint64_t)be32toh((uint32_t)value) << 32;
	} else if (offset == OFF_DMA + 4 && size == 4) {
		uint64_t at = f->dma_address | be32toh((uint32_t)value);

		f->dma_address = 0;
		dma_run(f, at);
	}
}

/* ---- contents ---- */

static int put_item(struct fwcfg *f, uint16_t selector, const void *data, size_t len, struct error *err)
{
	struct item *i = calloc(1, sizeof(*i));
	uint8_t *copy = malloc(len ? len : 1);

	if (!i || !copy) {
		free(i);
		free(copy);
		return error_set(err, ENOMEM,
				 "no memory for the firmware's configuration; free some and try again");
	}
	if (len)
		memcpy(copy, data, len);
	*i = (struct item){ .selector = selector, .data = copy, .len = len, .next = f->items };
	f->items = i;
	return 0;
}

int fwcfg_add_item(struct fwcfg *f, uint16_t selector, const void *data, size_t len, struct error *err)
{
	if (selector >= FWCFG_FILE_FIRST)
		return error_set(err, EINVAL,
				 "firmware configuration item %#x lies where files are; use a lower one",
				 selector);
	if (len > UINT32_MAX)
		return error_set(err, EINVAL, "firmware configuration item %#x is larger than 4 GiB",
				 selector);
	if (find(f, selector))
		return error_set(err, EEXIST, "firmware configuration item %#x exists already", selector);
	return put_item(f, selector, data, len, err);
}

static bool name_taken(const struct item *dir, uint32_t nr, const char *name)
{
	for (uint32_t i = 0; i < nr; i++) {
		struct dir_entry e;

		memcpy(&e, dir->data + 4 + i * sizeof(e), sizeof(e));
		if (!strcmp(e.name, name))
			return true;
	}
	return false;
}

static int check_file(const struct fwcfg *f, const char *name, size_t len, struct error *err)
{
	if (!*name || strlen(name) >= NAME_SIZE)
		return error_set(err, EINVAL,
				 "the firmware configuration file name \"%s\" must have 1 to %d characters",
				 name, NAME_SIZE - 1);
	if (len > UINT32_MAX)
		return error_set(err, EINVAL, "the firmware configuration file %s is larger than 4 GiB",
				 name);
	if (f->nr_files == MAX_FILES)
		return error_set(err, ENOSPC,
				 "no room for the firmware configuration file %s: there are %d already", name,
				 MAX_FILES);
	if (name_taken(find(f, FWCFG_FILE_DIR), f->nr_files, name))
		return error_set(err, EEXIST, "the firmware configuration file %s exists already", name);
	return 0;
}

int fwcfg_add_file(struct fwcfg *f, const char *name, const void *data, size_t len, struct error *err)
{
	struct item *dir = find(f, FWCFG_FILE_DIR);
	uint16_t selector = FWCFG_FILE_FIRST + f->nr_files;
	size_t at = 4 + f->nr_files * sizeof(struct dir_entry);

	int r = check_file(f, name, len, err);
	if (r < 0)
		return r;
	uint8_t *grown = realloc(dir->data, at + sizeof(struct dir_entry));
	if (!grown)
		return error_set(err, ENOMEM,
				 "no memory for the firmware's configuration; free some and try again");
	dir->data = grown;
	r = put_item(f, selector, data, len, err);
	if (r < 0)
		return r;
	struct dir_entry e = { .size = htobe32((uint32_t)len), .selector = htobe16(selector) };
	memcpy(e.name, name, strlen(name));
	memcpy(dir->data + at, &e, sizeof(e));
	dir->len = at + sizeof(e);
	uint32_t count = htobe32(++f->nr_files);
	memcpy(dir->data, &count, sizeof(count));
	return 0;
}

void fwcfg_set_file(struct fwcfg *f, const char *name, const void *data, size_t len)
{
	const struct item *dir = find(f, FWCFG_FILE_DIR);

	for (uint32_t i = 0; i < f->nr_files; i++) {
		struct dir_entry e;

		memcpy(&e, dir->data + 4 + i * sizeof(e), sizeof(e));
		if (strcmp(e.name, name) != 0)
			continue;
		struct item *item = find(f, be16toh(e.selector));
		if (item && item->len == len)
			memcpy(item->data, data, len);
	}
}

/* ---- reset, state ---- */

static void fwcfg_reset(struct device *d)
{
	struct fwcfg *f = (struct fwcfg *)d;

	select_item(f, 0);
	f->dma_address = 0;
}

static const struct state_field fwcfg_fields[] = { F_U16(struct fwcfg, selector), F_U32(struct fwcfg, offset),
						   F_U64(struct fwcfg, dma_address), F_END };
static const struct state_table fwcfg_state = { "fwcfg", 1, fwcfg_fields, NULL };

static void fwcfg_free(struct device *d)
{
	struct fwcfg *f = (struct fwcfg *)d;

	mem_unmap_pio(f->board->mem, &f->ports);
	while (f->items) {
		struct item *i = f->items;

		f->items = i->next;
		free(i->data);
		free(i);
	}
	free(f);
}

static const struct device_class fwcfg_class = { "fwcfg", fwcfg_reset, &fwcfg_state, fwcfg_free };

static int put_builtin(struct fwcfg *f, struct error *err)
{
	const uint32_t id = htole32(ID_TRADITION | ID_DMA), none = 0;
	int r = put_item(f, FWCFG_SIGNATURE, "QEMU", 4, err);

	if (!r)
		r = put_item(f, FWCFG_ID, &id, sizeof(id), err);
	if (!r)
		r = put_item(f, FWCFG_FILE_DIR, &none, sizeof(none), err);
	return r;
}

int fwcfg_new(struct board *b, struct fwcfg **ret, struct error *err)
{
	struct fwcfg *f = calloc(1, sizeof(*f));

	if (!f)
		return error_set(err, ENOMEM,
				 "no memory for the firmware's configuration; free some and try again");
	f->board = b;
	f->ports = (struct io_region){ .name = "fwcfg",
				       .base = FWCFG_PORT,
				       .size = PORTS,
				       .read = ports_read,
				       .write = ports_write,
				       .opaque = f };
	mem_map_pio(b->mem, &f->ports);
	board_add(b, &f->dev, &fwcfg_class, 0);
	int r = put_builtin(f, err);
	if (r < 0)
		return r; /* the board frees it */
	*ret = f;
	return 0;
}
