/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every device has in common: a name, a reset, a state table, and
 * interrupt lines.
 *
 * A device file holds, in this order: the specification it follows and what it
 * does; register constants; the struct (with `struct device dev` first);
 * read/write; reset; the state table; one `const struct device_class`.
 * x_new() makes a device and wires it to the board, x_free() undoes it.
 */
#ifndef SILL_DEV_DEVICE_H
#define SILL_DEV_DEVICE_H

#include "base/loop.h"
#include "mem/mem.h"
#include "state/fields.h"

struct device;

struct device_class {
	const char *name;                /* unique, stable: names the state section */
	void (*reset)(struct device *d); /* to power-on values; [io lock] */
	const struct state_table
	    *state; /* applied to the struct that begins with struct device; may be NULL */
	void (*free)(struct device *d);
};

struct device {
	const struct device_class *cls;
	uint32_t instance;
	struct device *next; /* board's list, in order of registration */
};

/* BOARD_INIT: a reset of the processors only, as old ports make it ("soft"). */
enum board_request { BOARD_POWEROFF, BOARD_RESET, BOARD_INIT, BOARD_PANIC, BOARD_EXIT };

/*
 * The board as devices see it: what they may call. Filled in by src/vm. Devices
 * keep a pointer to it; it outlives them.
 */
struct board {
	struct mem *mem;
	struct loop *loop;
	struct clock *clock;
	struct mutex *io_lock;
	struct device *devices;
	bool soft_reset; /* board_reset stands for what firmware does after BOARD_INIT: keep what it would not
			    know of */
	/* The guest asked for: power off, reset, an end with a status, or reported a panic (pvpanic). Under
	 * the I/O lock, any thread. */
	void (*request)(void *opaque, enum board_request what);
	void *request_opaque;
	uint8_t exit_status; /* with BOARD_EXIT: what the program should end with */
};

/* Asks the machine for it; nothing happens where nobody listens (tests). */
static inline void board_ask(struct board *b, enum board_request what)
{
	if (b->request)
		b->request(b->request_opaque, what);
}

/* Puts the device on the board's list (reset, save and load walk it in this order). */
void board_add(struct board *b, struct device *d, const struct device_class *cls, uint32_t instance);
void board_reset(struct board *b);        /* resets every device; [io lock] */
void board_free_devices(struct board *b); /* frees in reverse order */

/* What an edge would meet at the end of an interrupt line. */
enum irq_state {
	IRQ_IDLE,    /* it would be noticed at once */
	IRQ_SERVED,  /* wait until the guest has finished with the last one */
	IRQ_PENDING, /* be lost, since the last one waits */
	IRQ_MASKED,
};

/* An interrupt line: an input pin of some controller. Its functions may be called under the I/O lock from any
 * thread. */
struct irq_line {
	void (*set)(void *opaque, unsigned pin, bool level);
	void *opaque;
	unsigned pin;
	enum irq_state (*state)(void *opaque, unsigned pin); /* NULL: not known */
};

static inline void irq_set(const struct irq_line *l, bool level)
{
	if (l->set)
		l->set(l->opaque, l->pin, level);
}

static inline enum irq_state irq_state(const struct irq_line *l)
{
	return l->state ? l->state(l->opaque, l->pin) : IRQ_IDLE;
}

/*
 * For edges that come again and again, of which those that come while the one before waits are owed: n more
 * are due, and the line was in this state.  True: give one now.  At most `most` stay owed; a guest that does
 * not want them is owed none.
 */
static inline bool irq_owe(enum irq_state state, uint64_t n, uint64_t most, uint32_t *owed)
{
	uint64_t all = *owed + n;
	bool give = n || (all && state == IRQ_IDLE);

	if (give)
		all -= state != IRQ_PENDING;
	*owed = state == IRQ_MASKED ? 0 : (uint32_t)(all < most ? all : most);
	return give;
}

#endif
