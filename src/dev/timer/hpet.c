/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IA-PC HPET specification 1.0a, with three timers, all 64 bits wide and able to
 * be periodic, as QEMU's are.  The counter runs at 100 MHz.
 *
 * A timer's interrupt goes to one of the IOAPIC's pins 20 to 23, which nothing
 * else is wired to.  With legacy replacement timer 0 has IRQ 0 and timer 1 has
 * IRQ 8, and the PIT and the RTC, whose lines pass through here, have none.
 *
 * Nothing ticks.  The counter's value follows from when it was started; each
 * timer keeps the time of its next match.  Matches that are due are dealt with
 * before any register but the counter is looked at, so only the host's timer, not
 * what the guest sees, can be late.
 *
 * A comparator that is written too late, when the counter has just passed it,
 * matches at once: software that allows for the time between reading the one and
 * writing the other allows for a processor, not for a monitor's host.  (The real
 * part matches when the counter has come round.)
 *
 * Periodic matches come no closer than MIN_INTERVAL_NS; the others are lost.  Of
 * edge-triggered periodic interrupts those that come while the one before waits
 * are owed, as the PIT's are (pit.c).
 *
 * Not here: delivery by messages ("FSB"), which is optional.
 */
#include "dev/timer/hpet.h"

#include <errno.h>
#include <stdlib.h>

#include "base/util.h"
#include "dev/irq/irq.h"

#define TIMERS  3
#define TICK_NS 10

#define MIN_INTERVAL_NS (HPET_MIN_TICK * TICK_NS)
#define OWED_TICKS      (1000000000u / TICK_NS) /* at most what is due in a second */
#define LATE_TICKS      (1u << 27)              /* 1.3 s: how late a comparator may be written */
#define FAR_TICKS       (1ull << 58)            /* 91 years: never */

/* Registers (§2.3.1), 64 bits each */
#define REG_CAP     0x000
#define REG_CONFIG  0x010
#define REG_STATUS  0x020
#define REG_COUNTER 0x0f0
#define REG_TIMER   0x100
#define TIMER_SIZE  0x20
#define TIMER_CONF  0x00
#define TIMER_CMP   0x08

#define CAP_PERIOD ((uint64_t)TICK_NS * 1000000 << 32) /* in femtoseconds */

/* General configuration (§2.3.5) */
#define ENABLE   0x1
#define LEGACY   0x2
#define CONF_ALL (ENABLE | LEGACY)

/* Timer configuration (§2.3.8) */
#define T_LEVEL    0x0002
#define T_ENABLE   0x0004
#define T_PERIODIC 0x0008
#define T_CAPS     0x0030 /* periodic, 64 bits */
#define T_SET      0x0040 /* the next write to the comparator of a periodic timer sets it */
#define T_32       0x0100
#define T_ROUTE(c) ((c) >> 9 & 31)
#define T_ROUTES   0x3e00
#define T_WRITABLE (T_LEVEL | T_ENABLE | T_PERIODIC | T_SET | T_32 | T_ROUTES)

/* Where interrupts can go */
enum { LINE_IRQ0, LINE_IRQ8, LINE_PIN, LINES = LINE_PIN + 4 };
#define FIRST_PIN  20
#define ROUTE_CAPS (0xfull << FIRST_PIN)

struct hpet_timer {
	uint32_t config;
	uint64_t cmp, period;
	int64_t match_ns; /* virtual time of the next match, INT64_MAX for none */
	uint32_t owed;    /* interrupts that the guest has yet to see */
	int64_t owed_ns;  /* when to try the next of them; INT64_MAX: none is owed */
};

struct hpet {
	struct device dev;
	struct board *board;
	uint8_t config, status;
	uint64_t count; /* at start_ns, or where it stands */
	int64_t start_ns;
	struct hpet_timer timer[TIMERS];
	bool input[2];  /* what the PIT's and the RTC's lines are at */
	uint8_t levels; /* what the lines below are at */
	struct irq_line line[LINES];
	struct loop_timer wake;
	struct io_region region;
};

static int64_t now_ns(const struct hpet *h)
{
	return clock_now_ns(h->board->clock);
}

/* ---- time ---- */

static uint64_t counter(const struct hpet *h, int64_t now)
{
	return h->config & ENABLE ? h->count + (uint64_t)((now - h->start_ns) / TICK_NS) : h->count;
}

static uint64_t width(const struct hpet_timer *t)
{
	return t->config & T_32 ? UINT32_MAX : UINT64_MAX;
}

/* Finds the next match, after now. */
static void schedule(const struct hpet *h, struct hpet_timer *t, int64_t now)
{
	uint64_t left = (t->cmp - counter(h, now)) & width(t);

	if (!left && (t->config & T_32))
		left = 1ull << 32;
	t->match_ns = INT64_MAX;
	if (!(h->config & ENABLE) || !left || left > FAR_TICKS)
		return;
	t->match_ns = now - (now - h->start_ns) % TICK_NS + (int64_t)left * TICK_NS;
	if ((t->config & T_PERIODIC) && t->period < HPET_MIN_TICK)
		t->match_ns = max_i64(t->match_ns, now + MIN_INTERVAL_NS);
}

/* How often the timer has matched, up to now: moves a periodic one's comparator on. */
static uint64_t matches(const struct hpet *h, struct hpet_timer *t, int64_t now)
{
	uint64_t n = 1;

	if (now < t->match_ns)
		return 0;
	if ((t->config & T_PERIODIC) && t->period) {
		n += ((counter(h, now) - t->cmp) & width(t)) / t->period;
		t->cmp = (t->cmp + n * t->period) & width(t);
	}
	schedule(h, t, now);
	return n;
}

/* ---- interrupts ---- */

static bool legacy(const struct hpet *h)
{
	return (h->config & CONF_ALL) == CONF_ALL;
}

/* The index of a timer's line, or LINES. */
static unsigned line_of(const struct hpet *h, unsigned i)
{
	unsigned route = T_ROUTE(h->timer[i].config);

	if (legacy(h) && i < 2)
		return i ? LINE_IRQ8 : LINE_IRQ0;
	return ROUTE_CAPS >> route & 1 ? LINE_PIN + route - FIRST_PIN : LINES;
}

static bool may_interrupt(const struct hpet *h, unsigned i)
{
	return (h->config & ENABLE) && (h->timer[i].config & T_ENABLE) && line_of(h, i) < LINES;
}

/* What a line should be at. */
static bool level(const struct hpet *h, unsigned line)
{
	bool on = !legacy(h) && line < LINE_PIN && h->input[line];

	for (unsigned i = 0; i < TIMERS; i++)
		if ((h->status & 1u << i) && may_interrupt(h, i) && line_of(h, i) == line)
			on = true;
	return on;
}

static void drive(struct hpet *h)
{
	for (unsigned line = 0; line < LINES; line++) {
		bool on = level(h, line);

		if (on == (h->levels >> line & 1))
			continue;
		h->levels ^= 1u << line;
		irq_set(&h->line[line], on);
	}
}

static void pulse(struct hpet *h, unsigned line)
{
	irq_set(&h->line[line], false);
	irq_set(&h->line[line], true);
	if (!(h->levels >> line & 1))
		irq_set(&h->line[line], false);
}

static bool owes(const struct hpet_timer *t)
{
	return (t->config & T_PERIODIC) && t->period >= HPET_MIN_TICK && t->period <= OWED_TICKS;
}

static void forget_owed(struct hpet_timer *t)
{
	t->owed = 0;
	t->owed_ns = INT64_MAX;
}

/* An edge-triggered timer has matched n times more, or owes interrupts. */
static void edge(struct hpet *h, unsigned i, uint64_t n, int64_t now)
{
	struct hpet_timer *t = &h->timer[i];
	unsigned line = line_of(h, i);

	if (!may_interrupt(h, i)) {
		forget_owed(t);
		return;
	}
	if (irq_owe(irq_state(&h->line[line]), n, owes(t) ? OWED_TICKS / t->period : 0, &t->owed))
		pulse(h, line);
	t->owed_ns = t->owed ? now + max_i64((int64_t)t->period * TICK_NS / 2, MIN_INTERVAL_NS) : INT64_MAX;
}

/* Deals with all that is due. */
static void catch_up(struct hpet *h, int64_t now)
{
	for (unsigned i = 0; i < TIMERS; i++) {
		struct hpet_timer *t = &h->timer[i];
		uint64_t n = matches(h, t, now);

		if (n && (t->config & T_LEVEL))
			h->status |= 1u << i;
		else if (n || now >= t->owed_ns)
			edge(h, i, n, now);
	}
}

/* A level that is up can wait for the guest: when it takes it down, it finds what has matched since. */
static bool needs_waking(const struct hpet *h, unsigned i)
{
	return may_interrupt(h, i) && !(h->status & 1u << i);
}

static void arm(struct hpet *h)
{
	int64_t at = INT64_MAX;

	for (unsigned i = 0; i < TIMERS; i++)
		if (needs_waking(h, i))
			at = min_i64(at, min_i64(h->timer[i].match_ns, h->timer[i].owed_ns));
	if (at == INT64_MAX)
		loop_timer_cancel(&h->wake);
	else if (!h->wake.armed || h->wake.deadline_ns != at)
		loop_timer_arm(&h->wake, at);
}

static void hpet_wake(void *opaque)
{
	struct hpet *h = opaque;

	catch_up(h, now_ns(h));
	drive(h);
	arm(h);
}

/* ---- what passes through ---- */

static void input_set(void *opaque, unsigned line, bool on)
{
	struct hpet *h = opaque;

	h->input[line] = on;
	drive(h);
}

static enum irq_state input_state(void *opaque, unsigned line)
{
	struct hpet *h = opaque;

	return legacy(h) ? IRQ_MASKED : irq_state(&h->line[line]);
}

struct irq_line hpet_pit_line(struct hpet *h)
{
	return (struct irq_line){ .set = input_set, .opaque = h, .pin = LINE_IRQ0, .state = input_state };
}

struct irq_line hpet_rtc_line(struct hpet *h)
{
	return (struct irq_line){ .set = input_set, .opaque = h, .pin = LINE_IRQ8, .state = input_state };
}

/* ---- registers ---- */

static void write_config(struct hpet *h, uint8_t v, int64_t now)
{
	if ((v ^ h->config) & LEGACY)
		for (unsigned i = 0; i < TIMERS; i++)
			forget_owed(&h->timer[i]);
	if ((v ^ h->config) & ENABLE) {
		h->count = counter(h, now);
		h->start_ns = now;
	}
	h->config = v & CONF_ALL;
	for (unsigned i = 0; i < TIMERS; i++)
		schedule(h, &h->timer[i], now);
}

static void write_counter(struct hpet *h, uint64_t v, int64_t now)
{
	h->count = v;
	h->start_ns = now;
	for (unsigned i = 0; i < TIMERS; i++)
		schedule(h, &h->timer[i], now);
}

static void write_timer_config(struct hpet *h, unsigned i, uint32_t v, int64_t now)
{
	struct hpet_timer *t = &h->timer[i];

	v &= T_WRITABLE;
	if (!(ROUTE_CAPS >> T_ROUTE(v) & 1)) /* reads back as something else (§2.3.8) */
		v = (v & ~T_ROUTES) | (t->config & T_ROUTES);
	if ((v ^ t->config) & ~(uint32_t)T_SET)
		forget_owed(t);
	t->config = v;
	t->cmp &= width(t);
	t->period &= width(t);
	if (!(v & T_LEVEL))
		h->status &= ~(1u << i);
	schedule(h, t, now);
}

static void write_comparator(struct hpet *h, unsigned i, uint64_t v, uint64_t mask, int64_t now)
{
	struct hpet_timer *t = &h->timer[i];
	bool periodic = t->config & T_PERIODIC, sets = !periodic || (t->config & T_SET);

	if (periodic) {
		t->period = ((t->period & ~mask) | (v & mask)) & width(t);
		forget_owed(t);
	}
	t->config &= ~T_SET;
	if (!sets)
		return;
	t->cmp = ((t->cmp & ~mask) | (v & mask)) & width(t);
	schedule(h, t, now);
	if ((h->config & ENABLE) && ((counter(h, now) - t->cmp) & width(t)) <= LATE_TICKS)
		t->match_ns = now;
}

static uint64_t register_read(const struct hpet *h, unsigned reg, int64_t now)
{
	unsigned i = (reg - REG_TIMER) / TIMER_SIZE;

	switch (reg) {
	case REG_CAP:
		return HPET_ID | CAP_PERIOD;
	case REG_CONFIG:
		return h->config;
	case REG_STATUS:
		return h->status;
	case REG_COUNTER:
		return counter(h, now);
	}
	if (reg < REG_TIMER || i >= TIMERS)
		return 0;
	switch (reg % TIMER_SIZE) {
	case TIMER_CONF:
		return h->timer[i].config | T_CAPS | ROUTE_CAPS << 32;
	case TIMER_CMP:
		return h->timer[i].cmp;
	default:
		return 0;
	}
}

/* mask: which bits are written; the others keep their value. */
static void register_write(struct hpet *h, unsigned reg, uint64_t v, uint64_t mask, int64_t now)
{
	unsigned i = (reg - REG_TIMER) / TIMER_SIZE;
	uint64_t whole = (register_read(h, reg, now) & ~mask) | (v & mask);

	if (reg == REG_CONFIG)
		write_config(h, (uint8_t)whole, now);
	else if (reg == REG_STATUS)
		h->status &= ~(v & mask);
	else if (reg == REG_COUNTER)
		write_counter(h, whole, now);
	else if (reg >= REG_TIMER && i < TIMERS && reg % TIMER_SIZE == TIMER_CONF)
		write_timer_config(h, i, (uint32_t)whole, now);
	else if (reg >= REG_TIMER && i < TIMERS && reg % TIMER_SIZE == TIMER_CMP)
		write_comparator(h, i, v, mask, now);
}

static uint64_t hpet_read(void *opaque, uint64_t offset, unsigned size)
{
	struct hpet *h = opaque;
	unsigned reg = offset & ~7u;
	int64_t now = now_ns(h);

	(void)size;
	if (reg != REG_COUNTER) {
		catch_up(h, now);
		drive(h);
		arm(h);
	}
	return register_read(h, reg, now) >> 8 * (offset & 7);
}

/* Accesses are of 32 or 64 bits (§2.3.1). */
static void hpet_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct hpet *h = opaque;
	unsigned shift = 8 * (offset & 7);
	int64_t now = now_ns(h);

	if (size < 4)
		return;
	catch_up(h, now);
	register_write(h, offset & ~7u, value << shift, (size == 8 ? UINT64_MAX : UINT32_MAX) << shift, now);
	catch_up(h, now); /* what was written may be due */
	drive(h);
	arm(h);
}

/* ---- reset, state ---- */

static void hpet_reset(struct device *d)
{
	struct hpet *h = (struct hpet *)d;

	h->config = h->status = 0;
	h->count = 0;
	h->start_ns = now_ns(h);
	for (unsigned i = 0; i < TIMERS; i++)
		h->timer[i] = (struct hpet_timer){
			.cmp = UINT64_MAX,
			.match_ns = INT64_MAX,
			.owed_ns = INT64_MAX,
		};
	drive(h);
	arm(h);
}

static int hpet_loaded(void *obj, struct error *err)
{
	struct hpet *h = obj;
	bool possible = h->start_ns > INT64_MIN / 4 && h->start_ns < INT64_MAX / 4;

	for (unsigned i = 0; i < TIMERS; i++)
		possible = possible && h->timer[i].owed <= OWED_TICKS / HPET_MIN_TICK;
	if (!possible)
		return error_set(err, EINVAL,
				 "the saved state of the timers (hpet) is impossible; it is damaged");
	h->config &= CONF_ALL;
	h->status &= (1u << TIMERS) - 1;
	h->levels &= (1u << LINES) - 1;
	for (unsigned i = 0; i < TIMERS; i++) {
		struct hpet_timer *t = &h->timer[i];

		t->config &= T_WRITABLE;
		t->cmp &= width(t);
		t->period &= width(t);
	}
	arm(h); /* what was due while saving comes at once */
	return 0;
}

#define TIMER_FIELDS(n)                                                                                      \
	F_U32(struct hpet, timer[n].config), F_U64(struct hpet, timer[n].cmp),                               \
	    F_U64(struct hpet, timer[n].period), F_U64(struct hpet, timer[n].match_ns),                      \
	    F_U32(struct hpet, timer[n].owed), F_U64(struct hpet, timer[n].owed_ns)

static const struct state_field hpet_fields[] = {
	F_U8(struct hpet, config),
	F_U8(struct hpet, status),
	F_U64(struct hpet, count),
	F_U64(struct hpet, start_ns),
	TIMER_FIELDS(0),
	TIMER_FIELDS(1),
	TIMER_FIELDS(2),
	F_BOOL(struct hpet, input[0]),
	F_BOOL(struct hpet, input[1]),
	F_U8(struct hpet, levels),
	F_END,
};
static const struct state_table hpet_state = { "hpet", 1, hpet_fields, hpet_loaded };

static void hpet_free(struct device *d)
{
	struct hpet *h = (struct hpet *)d;

	loop_timer_cancel(&h->wake);
	mem_unmap_mmio(h->board->mem, &h->region);
	free(h);
}

static const struct device_class hpet_class = { "hpet", hpet_reset, &hpet_state, hpet_free };

int hpet_new(struct board *b, struct irq_router *r, struct hpet **ret, struct error *err)
{
	struct hpet *h = calloc(1, sizeof(*h));

	if (!h)
		return error_set(err, ENOMEM, "no memory for the event timers; free some and try again");
	h->board = b;
	h->line[LINE_IRQ0] = irq_router_isa_line(r, 0);
	h->line[LINE_IRQ8] = irq_router_isa_line(r, 8);
	for (unsigned i = LINE_PIN; i < LINES; i++)
		h->line[i] = irq_router_ioapic_line(r, FIRST_PIN + i - LINE_PIN);
	loop_timer_init(b->loop, &h->wake, hpet_wake, h);
	hpet_reset(&h->dev);
	h->region = (struct io_region){ .name = "hpet",
					.base = HPET_BASE,
					.size = HPET_SIZE,
					.read = hpet_read,
					.write = hpet_write,
					.opaque = h };
	mem_map_mmio(b->mem, &h->region);
	board_add(b, &h->dev, &hpet_class, 0);
	*ret = h;
	return 0;
}
