/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ROM, and NOR flash with Intel's command set (JEDEC JEP137 command set 1; Intel
 * 28F640J3 datasheet), one byte wide, in erase blocks of 4 KiB.
 *
 * While flash shows its array it is memory like ROM, and code can run from it; a
 * write then is a command.  Most commands make reads return something else (the
 * status, the identifier, the query table), so the region becomes a device until
 * the command FFh shows the array again.  Programming can only clear bits, as in
 * the real thing; erasing sets a whole block to ones.
 *
 * Changes reach the file when the array is shown again and at the latest when
 * the event loop comes round.  A failure sets the status register's program bit,
 * so that the guest knows; what did not get there is tried again with the next
 * change and at the end.
 */
#include "dev/pc/rom.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"

#define TOP (1ull << 32)

/* ---- ROM ---- */

struct rom {
	struct device dev;
	struct board *board;
	struct mem_block *block;
	struct io_region region;
};

static void rom_reset(struct device *d)
{
	(void)d;
}

static void rom_free(struct device *d)
{
	struct rom *r = (struct rom *)d;

	mem_unmap_mmio(r->board->mem, &r->region);
	free(r);
}

static const struct state_field rom_fields[] = { F_END };
static const struct state_table rom_state = { "rom", 1, rom_fields, NULL };
static const struct device_class rom_class = { "rom", rom_reset, &rom_state, rom_free };

int rom_new(struct board *b, const uint8_t *data, size_t size, struct rom **ret, struct error *err)
{
	struct rom *r = calloc(1, sizeof(*r));

	if (!r)
		return error_set(err, ENOMEM, "no memory for the firmware; free some and try again");
	r->board = b;
	int e = mem_block_new(b->mem, "firmware", size, &r->block, err);
	if (e) {
		free(r);
		return e;
	}
	memcpy(mem_block_ptr(r->block), data, size);
	r->region = (struct io_region){
		.name = "firmware", .base = TOP - size, .size = size, .block = r->block, .readonly = true
	};
	mem_map_mmio(b->mem, &r->region);
	board_add(b, &r->dev, &rom_class, 0);
	*ret = r;
	return 0;
}

struct mem_block *rom_block(struct rom *r)
{
	return r->block;
}

/* ---- flash ---- */

#define ERASE_BLOCK 4096u

/* Commands */
#define CMD_PROGRAM_ALT  0x10
#define CMD_ERASE        0x20
#define CMD_PROGRAM      0x40
#define CMD_CLEAR_STATUS 0x50
#define CMD_LOCK_SETUP   0x60
#define CMD_READ_STATUS  0x70
#define CMD_READ_ID      0x90
#define CMD_QUERY        0x98
#define CMD_CONFIRM      0xd0
#define CMD_BUFFER       0xe8
#define CMD_READ_ARRAY   0xff

/* Status register */
#define ST_READY         0x80
#define ST_ERASE_ERROR   0x20
#define ST_PROGRAM_ERROR 0x10
#define ST_SEQUENCE      (ST_ERASE_ERROR | ST_PROGRAM_ERROR)

/* What the next write means */
enum { NEXT_COMMAND, NEXT_PROGRAM, NEXT_ERASE_CONFIRM, NEXT_LOCK, NEXT_COUNT, NEXT_DATA, NEXT_WRITE_CONFIRM };
/* What reads show */
enum { SHOW_ARRAY, SHOW_STATUS, SHOW_ID, SHOW_QUERY };

struct flash {
	struct device dev;
	struct board *board;
	struct mem_block *block;
	struct io_region region;
	int fd;
	const char *name;
	uint8_t show, next, status;
	uint32_t buffer_at;   /* offset in the array of the buffered write's block */
	uint16_t buffer_left; /* bytes that are still to come */
	uint8_t buffer[ERASE_BLOCK], buffer_set[ERASE_BLOCK / 8];
	uint64_t dirty_from, dirty_to; /* changed, not yet in the file */
	bool failing;                  /* the last attempt failed; said so */
	struct loop_work sync;
};

/* ---- the file ---- */

static void write_back(struct flash *f)
{
	const uint8_t *p = mem_block_ptr(f->block);

	while (f->dirty_from < f->dirty_to) {
		ssize_t n =
		    pwrite(f->fd, p + f->dirty_from, f->dirty_to - f->dirty_from, (off_t)f->dirty_from);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			if (!f->failing)
				log_error("%s: the firmware's variables cannot be saved: %s; make room there",
					  f->name, strerror(n < 0 ? errno : EIO));
			f->failing = true;
			f->status |= ST_PROGRAM_ERROR;
			return;
		}
		f->dirty_from += (uint64_t)n;
	}
	f->failing = false;
	f->dirty_from = f->dirty_to = 0;
}

static void sync_work(void *opaque)
{
	write_back(opaque);
}

static void changed(struct flash *f, uint64_t offset, uint64_t len)
{
	if (f->dirty_from == f->dirty_to) {
		f->dirty_from = offset;
		f->dirty_to = offset + len;
	} else {
		f->dirty_from = min_u64(f->dirty_from, offset);
		f->dirty_to = max_u64(f->dirty_to, offset + len);
	}
	mem_block_written(f->block, offset, len);
	loop_post(f->board->loop, &f->sync);
}

/* ---- commands ---- */

static void show(struct flash *f, uint8_t what)
{
	bool was_array = f->show == SHOW_ARRAY, is_array = what == SHOW_ARRAY;

	f->show = what;
	if (was_array == is_array && f->region.mapped)
		return;
	if (is_array)
		write_back(f);
	mem_unmap_mmio(f->board->mem, &f->region);
	f->region.block = is_array ? f->block : NULL;
	mem_map_mmio(f->board->mem, &f->region);
}

static void program(struct flash *f, uint64_t offset, uint8_t value)
{
	f->status |= ST_READY;
	mem_block_ptr(f->block)[offset] &= value;
	changed(f, offset, 1);
}

static void erase(struct flash *f, uint64_t offset)
{
	uint64_t start = align_down(offset, ERASE_BLOCK);

	f->status |= ST_READY;
	memset(mem_block_ptr(f->block) + start, 0xff, ERASE_BLOCK);
	changed(f, start, ERASE_BLOCK);
}

static void program_buffer(struct flash *f)
{
	for (unsigned i = 0; i < ERASE_BLOCK; i++)
		if (f->buffer_set[i / 8] >> (i % 8) & 1)
			program(f, f->buffer_at + i, f->buffer[i]);
}

static void command(struct flash *f, uint64_t offset, uint8_t v)
{
	uint8_t view = SHOW_STATUS;

	switch (v) {
	case CMD_PROGRAM:
	case CMD_PROGRAM_ALT:
		f->next = NEXT_PROGRAM;
		break;
	case CMD_ERASE:
		f->next = NEXT_ERASE_CONFIRM;
		break;
	case CMD_BUFFER:
		f->next = NEXT_COUNT;
		f->status |= ST_READY; /* drivers wait for the buffer before they give the count */
		f->buffer_at = (uint32_t)align_down(offset, ERASE_BLOCK);
		memset(f->buffer_set, 0, sizeof(f->buffer_set));
		break;
	case CMD_LOCK_SETUP:
		f->next = NEXT_LOCK;
		break;
	case CMD_CLEAR_STATUS:
		f->status = 0; /* ready comes with the next operation: OVMF knows flash by reading 0 here */
		view = f->show;
		break;
	case CMD_READ_STATUS:
	case CMD_CONFIRM:
		break;
	case CMD_READ_ID:
		view = SHOW_ID;
		break;
	case CMD_QUERY:
		view = SHOW_QUERY;
		break;
	default: /* CMD_READ_ARRAY, and what is none */
		view = SHOW_ARRAY;
		break;
	}
	show(f, view);
}

static void write_byte(struct flash *f, uint64_t offset, uint8_t v)
{
	uint8_t next = f->next;

	f->next = NEXT_COMMAND;
	switch (next) {
	case NEXT_COMMAND:
		command(f, offset, v);
		break;
	case NEXT_PROGRAM:
		program(f, offset, v);
		break;
	case NEXT_ERASE_CONFIRM:
		if (v == CMD_CONFIRM)
			erase(f, offset);
		else
			f->status |= ST_READY | ST_SEQUENCE;
		break;
	case NEXT_LOCK: /* no block can be locked, so unlocking succeeds */
		f->status |= ST_READY;
		break;
	case NEXT_COUNT:
		f->buffer_left = (uint16_t)(v + 1);
		f->next = NEXT_DATA;
		break;
	case NEXT_DATA:
		if (align_down(offset, ERASE_BLOCK) != f->buffer_at) {
			f->status |= ST_READY | ST_SEQUENCE;
			break;
		}
		f->buffer[offset % ERASE_BLOCK] = v;
		f->buffer_set[offset % ERASE_BLOCK / 8] |= (uint8_t)(1u << (offset % 8));
		f->next = --f->buffer_left ? NEXT_DATA : NEXT_WRITE_CONFIRM;
		break;
	case NEXT_WRITE_CONFIRM:
		if (v == CMD_CONFIRM)
			program_buffer(f);
		else
			f->status |= ST_READY | ST_SEQUENCE;
		break;
	}
}

static void flash_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct flash *f = opaque;

	/* A command is one write, whatever its width; data is a byte each. */
	if (f->next == NEXT_COMMAND || f->next == NEXT_ERASE_CONFIRM || f->next == NEXT_WRITE_CONFIRM ||
	    f->next == NEXT_LOCK || f->next == NEXT_COUNT)
		size = 1;
	else if (f->next == NEXT_PROGRAM)
		for (unsigned i = 1; i < size && offset + i < f->region.size; i++)
			program(f, offset + i, (uint8_t)(value >> (8 * i)));
	for (unsigned i = 0; i < size && (i == 0 || f->next == NEXT_DATA); i++)
		write_byte(f, offset + i, (uint8_t)(value >> (8 * i)));
}

/* The query table (JEP137): who we are, one region of erase blocks. */
static uint8_t query_byte(const struct flash *f, uint64_t offset)
{
	uint64_t blocks = f->region.size / ERASE_BLOCK - 1;

	switch (offset) {
	case 0x10:
		return 'Q';
	case 0x11:
		return 'R';
	case 0x12:
		return 'Y';
	case 0x13: /* Intel's command set */
		return 1;
	case 0x15: /* where its table is: there is none beyond "PRI" */
		return 0x31;
	case 0x1b: /* 4.5 to 5.5 V */
		return 0x45;
	case 0x1c:
		return 0x55;
	case 0x1f: /* 2^7 us for a byte */
		return 7;
	case 0x21: /* 2^10 ms for an erasure */
		return 10;
	case 0x27: /* 2^n bytes, rounded up */
		return (uint8_t)(64 - __builtin_clzll(f->region.size - 1));
	case 0x2a: /* buffered writes of 2^8 bytes */
		return 8;
	case 0x2c:
		return 1;
	case 0x2d:
		return (uint8_t)blocks;
	case 0x2e:
		return (uint8_t)(blocks >> 8);
	case 0x2f:
		return (uint8_t)(ERASE_BLOCK / 256);
	case 0x30:
		return (uint8_t)(ERASE_BLOCK / 256 >> 8);
	case 0x31:
		return 'P';
	case 0x32:
		return 'R';
	case 0x33:
		return 'I';
	case 0x34:
		return '1';
	case 0x35:
		return '0';
	default:
		return 0;
	}
}

static uint8_t read_byte(const struct flash *f, uint64_t offset)
{
	static const uint8_t id[2] = { 0x89, 0x18 }; /* Intel, 28F128J3 */

	switch (f->show) {
	case SHOW_STATUS:
		return f->status;
	case SHOW_ID:
		return offset % ERASE_BLOCK < 2 ? id[offset % ERASE_BLOCK] : 0;
	case SHOW_QUERY:
		return query_byte(f, offset);
	default:
		return mem_block_ptr(f->block)[offset];
	}
}

static uint64_t flash_read(void *opaque, uint64_t offset, unsigned size)
{
	const struct flash *f = opaque;
	uint64_t v = 0;

	for (unsigned i = 0; i < size; i++)
		v |= (uint64_t)read_byte(f, offset + i) << (8 * i);
	return v;
}

static void flash_reset(struct device *d)
{
	struct flash *f = (struct flash *)d;

	f->next = NEXT_COMMAND;
	f->status = ST_READY;
	f->buffer_left = 0;
	show(f, SHOW_ARRAY);
}

static int flash_loaded(void *obj, struct error *err)
{
	struct flash *f = obj;

	if (f->show > SHOW_QUERY || f->next > NEXT_WRITE_CONFIRM || f->buffer_left > 256 ||
	    (f->next == NEXT_DATA && !f->buffer_left) || f->buffer_at % ERASE_BLOCK ||
	    f->buffer_at >= f->region.size)
		return error_set(err, EINVAL,
				 "the saved state of the flash memory is impossible; it is damaged");
	uint8_t what = f->show;
	f->show = f->region.block ? SHOW_ARRAY : SHOW_STATUS;
	show(f, what);
	return 0;
}

static const struct state_field flash_fields[] = {
	F_U8(struct flash, show),          F_U8(struct flash, next),
	F_U8(struct flash, status),        F_U32(struct flash, buffer_at),
	F_U16(struct flash, buffer_left),  F_BYTES(struct flash, buffer),
	F_BYTES(struct flash, buffer_set), F_END,
};
static const struct state_table flash_state = { "flash", 1, flash_fields, flash_loaded };

static void flash_free(struct device *d)
{
	struct flash *f = (struct flash *)d;

	loop_unpost(f->board->loop, &f->sync);
	write_back(f);
	mem_unmap_mmio(f->board->mem, &f->region);
	free(f);
}

static const struct device_class flash_class = { "flash", flash_reset, &flash_state, flash_free };

int flash_new(struct board *b, gpa_t base, const uint8_t *data, size_t size, int fd, const char *name,
	      struct flash **ret, struct error *err)
{
	struct flash *f = calloc(1, sizeof(*f));

	if (!f)
		return error_set(err, ENOMEM, "no memory for the firmware's flash; free some and try again");
	f->board = b;
	f->fd = fd;
	f->name = name;
	f->sync = (struct loop_work){ .fn = sync_work, .opaque = f };
	int e = mem_block_new(b->mem, "flash", size, &f->block, err);
	if (e) {
		free(f);
		return e;
	}
	memcpy(mem_block_ptr(f->block), data, size);
	f->region = (struct io_region){ .name = "flash",
					.base = base.v,
					.size = size,
					.read = flash_read,
					.write = flash_write,
					.opaque = f,
					.readonly = true };
	flash_reset(&f->dev);
	board_add(b, &f->dev, &flash_class, 0);
	*ret = f;
	return 0;
}
