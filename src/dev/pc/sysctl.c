/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System control port A (92): bit 0's rise resets the processor, bit 1 is the A20 gate.  The
 * keyboard controller's output port has the gate too; it is one and the same, so
 * that each shows what the other did and either can undo it.
 *
 * In a machine without a keyboard controller, of its command port (64) only the
 * pulse of the reset line (fe) is there, since systems reboot that way.  Reading it
 * floats (ff), by which they see that there is nothing to talk to.
 */
#include "dev/pc/sysctl.h"

#include <errno.h>
#include <stdlib.h>

#define PORT_A       0x92
#define PORT_A_RESET 0x01
#define PORT_A_A20   0x02
#define KBC_COMMAND  0x64
#define KBC_RESET    0xfe

struct sysctl {
	struct device dev;
	struct board *board;
	uint8_t port_a;
	struct io_region a, kbc;
};

void sysctl_set_a20(struct sysctl *s, bool on)
{
	s->port_a = (uint8_t)((s->port_a & ~PORT_A_A20) | (on ? PORT_A_A20 : 0));
	mem_set_a20(s->board->mem, on);
}

bool sysctl_a20(const struct sysctl *s)
{
	return s->port_a & PORT_A_A20;
}

static uint64_t a_read(void *opaque, uint64_t offset, unsigned size)
{
	const struct sysctl *s = opaque;

	(void)offset;
	(void)size;
	return s->port_a;
}

static void a_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct sysctl *s = opaque;
	bool rise = (value & PORT_A_RESET) && !(s->port_a & PORT_A_RESET);

	(void)offset;
	(void)size;
	s->port_a = value & (PORT_A_RESET | PORT_A_A20);
	sysctl_set_a20(s, value & PORT_A_A20);
	if (rise)
		board_ask(s->board, BOARD_INIT);
}

static void kbc_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct sysctl *s = opaque;

	(void)offset;
	(void)size;
	if (value == KBC_RESET)
		board_ask(s->board, BOARD_INIT);
}

static void sysctl_reset(struct device *d)
{
	struct sysctl *s = (struct sysctl *)d;

	/* The bit that asked for a reset of the processor is only cleared by one of the board. */
	s->port_a = (uint8_t)(PORT_A_A20 | (s->board->soft_reset ? s->port_a & PORT_A_RESET : 0));
	mem_set_a20(s->board->mem, true);
}

static const struct state_field sysctl_fields[] = { F_U8(struct sysctl, port_a), F_END };

static int sysctl_loaded(void *obj, struct error *err)
{
	struct sysctl *s = obj;

	(void)err;
	mem_set_a20(s->board->mem, s->port_a & PORT_A_A20);
	return 0;
}

static const struct state_table sysctl_state = { "sysctl", 1, sysctl_fields, sysctl_loaded };

static void sysctl_free(struct device *d)
{
	struct sysctl *s = (struct sysctl *)d;

	mem_unmap_pio(s->board->mem, &s->a);
	mem_unmap_pio(s->board->mem, &s->kbc);
	free(s);
}

static const struct device_class sysctl_class = { "sysctl", sysctl_reset, &sysctl_state, sysctl_free };

int sysctl_new(struct board *b, bool has_i8042, struct sysctl **ret, struct error *err)
{
	struct sysctl *s = calloc(1, sizeof(*s));

	if (!s)
		return error_set(err, ENOMEM,
				 "no memory for the system control ports; free some and try again");
	s->board = b;
	s->port_a = PORT_A_A20;
	s->a = (struct io_region){
		.name = "port92", .base = PORT_A, .size = 1, .read = a_read, .write = a_write, .opaque = s
	};
	s->kbc = (struct io_region){
		.name = "port64", .base = KBC_COMMAND, .size = 1, .write = kbc_write, .opaque = s
	};
	mem_map_pio(b->mem, &s->a);
	if (!has_i8042)
		mem_map_pio(b->mem, &s->kbc);
	board_add(b, &s->dev, &sysctl_class, 0);
	*ret = s;
	return 0;
}
