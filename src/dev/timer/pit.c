/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intel 8254 (order number 231164) at 40..43, clocked at 1.193182 MHz, and the
 * PC's port 61: bit 0 gates channel 2, bit 1 would turn on the speaker, bit 4
 * toggles with each memory refresh (15 us), bit 5 is channel 2's output.
 *
 * Nothing ticks.  A channel keeps the virtual time at which its count began and
 * everything else follows from how long that is ago.  Only channel 0 has a loop
 * timer, for the next rise of its output, which is IRQ 0.  A rise is given as a
 * low-high pulse: the fall before it interests nobody.  None come closer than
 * MIN_INTERVAL_NS.
 *
 * Guests count ticks, and a guest or host that is too late for some must not make
 * their clocks slow.  Of modes 2 and 3, rises that would be lost, because several
 * are due at once or because the one before has not been taken yet, are owed:
 * each comes half a period after another, once the guest has finished with that.
 * At most those of OWED_NS are, and none for a guest that masks the interrupt.
 *
 * A count written while modes 2 and 3 run takes effect when the period ends
 * (mode 3 of the real part: half period).
 */
#include "dev/timer/pit.h"

#include <errno.h>
#include <stdlib.h>

#include "base/util.h"

#define CHANNELS        3
#define REFRESH_NS      15085
#define MIN_INTERVAL_NS 50000
#define NS_PER_S        1000000000
#define OWED_NS         NS_PER_S

/* Control word */
#define CW_CHANNEL(v) ((v) >> 6 & 3)
#define CW_ACCESS(v)  ((v) >> 4 & 3)
#define CW_MODE(v)    ((v) >> 1 & 7)
#define CW_BCD        0x01
#define CW_READ_BACK  3
/* Read-back command */
#define RB_NO_COUNT  0x20
#define RB_NO_STATUS 0x10
/* Status */
#define STATUS_OUT  0x80
#define STATUS_NULL 0x40

/* Port 61 */
#define P61_GATE     0x01
#define P61_WRITABLE 0x0f
#define P61_REFRESH  0x10
#define P61_OUT      0x20

enum { ACCESS_LATCH, ACCESS_LOW, ACCESS_HIGH, ACCESS_BOTH };

struct pit_channel {
	uint8_t mode, access;
	bool bcd, gate;
	bool counting;     /* a count is loaded and, where the mode wants one, triggered */
	bool loaded;       /* a count was written since the control word */
	uint32_t reload;   /* 1..65536 */
	uint32_t next;     /* takes over when the period ends; 0: none */
	int64_t start_ns;  /* when the count began */
	int64_t held_ns;   /* modes 0 and 4 with the gate low: how far it had come */
	uint8_t write_low; /* the first of two bytes */
	bool write_second;
	bool read_second;
	uint8_t latched; /* bytes of the count latch still to be read */
	uint16_t count_latch;
	bool status_latched;
	uint8_t status_latch;
};

struct pit {
	struct device dev;
	struct board *board;
	struct irq_line irq0;
	struct pit_channel ch[CHANNELS];
	uint8_t port61;
	int64_t next_rise; /* virtual ns of channel 0's next rise, INT64_MAX for none */
	uint32_t owed;     /* rises of it that the guest has yet to see */
	struct loop_timer timer;
	struct io_region ports, speaker;
};

static int64_t now_ns(const struct pit *p)
{
	return clock_now_ns(p->board->clock);
}

/* ---- time and ticks ---- */

static int64_t ticks_of(int64_t ns)
{
	return ns <= 0 ? 0 : (int64_t)((unsigned __int128)ns * PIT_HZ / NS_PER_S);
}

/* The first ns at which that many ticks have passed. */
static int64_t ns_of(int64_t ticks)
{
	return (int64_t)(((unsigned __int128)ticks * NS_PER_S + PIT_HZ - 1) / PIT_HZ);
}

static bool periodic(const struct pit_channel *c)
{
	return c->mode == 2 || c->mode == 3;
}

static bool triggered_by_gate(const struct pit_channel *c)
{
	return c->mode == 1 || c->mode == 5;
}

/* Modes in which a low gate suspends the count. */
static bool suspended(const struct pit_channel *c)
{
	return !c->gate && !triggered_by_gate(c);
}

/* Ticks since the count began. Lets a waiting count take over first. */
static int64_t elapsed(struct pit_channel *c, int64_t now)
{
	if (suspended(c))
		return ticks_of(c->held_ns);
	int64_t t = ticks_of(now - c->start_ns);
	if (c->next && t >= c->reload) {
		c->start_ns += ns_of(c->reload);
		c->reload = c->next;
		c->next = 0;
		t = ticks_of(now - c->start_ns);
	}
	return t;
}

static bool output(struct pit_channel *c, int64_t now)
{
	if (!c->counting)
		return c->mode != 0;
	int64_t t = elapsed(c, now), n = c->reload;
	switch (c->mode) {
	case 0:
	case 1:
		return t >= n;
	case 2:
		return !c->gate || t % n != n - 1;
	case 3:
		return !c->gate || t % n < (n + 1) / 2;
	default:
		return t != n;
	}
}

static uint16_t to_bcd(unsigned v)
{
	return v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 | v / 1000 % 10 << 12;
}

static unsigned from_bcd(uint16_t v)
{
	return (v & 15) + (v >> 4 & 15) * 10 + (v >> 8 & 15) * 100 + (v >> 12) * 1000;
}

/* The counting element, as it would be read. */
static uint16_t count(struct pit_channel *c, int64_t now)
{
	int64_t n = c->reload, t = c->counting ? elapsed(c, now) : 0, wrap = c->bcd ? 10000 : 65536, v;

	if (c->mode == 2)
		v = n - t % n;
	else if (c->mode == 3)
		v = n - 2 * t % n;
	else
		v = (n - t % wrap + wrap) % wrap;
	return c->bcd ? to_bcd(v % wrap) : v;
}

/* ---- IRQ 0 ---- */

static int64_t next_rise(struct pit_channel *c, int64_t now)
{
	if (!c->counting || suspended(c))
		return INT64_MAX;
	int64_t t = elapsed(c, now), n = c->reload;
	if (periodic(c)) {
		int64_t at = c->start_ns + ns_of((t / n + 1) * n);

		return at < now + MIN_INTERVAL_NS && n < ticks_of(MIN_INTERVAL_NS) ? now + MIN_INTERVAL_NS
										   : at;
	}
	if (c->mode >= 4)
		n++; /* the strobe is low for one tick */
	return t < n ? c->start_ns + ns_of(n) : INT64_MAX;
}

/* Does channel 0 owe what is lost? Not where rises are held down anyway. */
static bool owes(const struct pit_channel *c)
{
	return periodic(c) && c->reload >= ticks_of(MIN_INTERVAL_NS);
}

static void arm(struct pit *p)
{
	int64_t half = ns_of(p->ch[0].reload) / 2, at = p->next_rise;

	if (p->owed && at != INT64_MAX)
		at = min_i64(at, now_ns(p) + (half > MIN_INTERVAL_NS ? half : MIN_INTERVAL_NS));
	if (at == INT64_MAX)
		loop_timer_cancel(&p->timer);
	else
		loop_timer_arm(&p->timer, at);
}

static void schedule(struct pit *p, int64_t now)
{
	p->next_rise = next_rise(&p->ch[0], now);
	arm(p);
}

static void rise(struct pit *p)
{
	irq_set(&p->irq0, false);
	irq_set(&p->irq0, true);
}

/* Rises of channel 0 that are due, which next_rise is the first of. */
static uint32_t due(struct pit *p, int64_t now)
{
	const struct pit_channel *c = &p->ch[0];
	int64_t period = ns_of(c->reload);

	if (now < p->next_rise)
		return 0;
	return owes(c) ? 1 + (uint32_t)min_i64((now - p->next_rise) / period, OWED_NS / period) : 1;
}

static void pit_tick(void *opaque)
{
	struct pit *p = opaque;
	enum irq_state state = irq_state(&p->irq0);
	int64_t now = now_ns(p);
	uint32_t n = due(p, now), most = owes(&p->ch[0]) ? (uint32_t)(OWED_NS / ns_of(p->ch[0].reload)) : 0;

	if (irq_owe(state, n, most, &p->owed))
		rise(p);
	if (n)
		schedule(p, now);
	else
		arm(p);
}

/* After a change to a channel: for channel 0 the line takes its output's level, and the next rise is found.
 */
static void channel_changed(struct pit *p, struct pit_channel *c)
{
	int64_t now = now_ns(p); /* one for both: a rise between two would be lost */

	if (c != &p->ch[0])
		return;
	irq_set(&p->irq0, output(c, now));
	p->owed = 0;
	schedule(p, now);
}

/* ---- registers ---- */

static void load_count(struct pit *p, struct pit_channel *c, uint16_t value)
{
	uint32_t n = c->bcd ? from_bcd(value) : value;

	if (!n)
		n = c->bcd ? 10000 : 65536;
	c->loaded = true;
	if (periodic(c) && c->counting && c->gate) {
		elapsed(c, now_ns(p));
		c->next = n;
		return;
	}
	if (triggered_by_gate(c) && c->counting) {
		c->next = n; /* for the next trigger */
		return;
	}
	c->reload = n;
	c->next = 0;
	c->counting = !triggered_by_gate(c);
	c->start_ns = now_ns(p);
	c->held_ns = 0;
	channel_changed(p, c);
}

static void set_gate(struct pit *p, struct pit_channel *c, bool gate)
{
	int64_t now = now_ns(p);

	if (gate == c->gate)
		return;
	if (!gate) {
		elapsed(c, now);
		c->held_ns = periodic(c) ? 0 : now - c->start_ns;
	} else if (triggered_by_gate(c)) {
		if (c->next)
			c->reload = c->next;
		c->next = 0;
		c->counting = c->loaded;
		c->start_ns = now;
	} else {
		/* Modes 2 and 3 begin anew, modes 0 and 4 go on. */
		c->start_ns = now - c->held_ns;
		c->held_ns = 0;
	}
	c->gate = gate;
}

static uint8_t status(struct pit *p, struct pit_channel *c)
{
	bool null_count = !c->loaded || c->next || (c->loaded && !c->counting);

	return (output(c, now_ns(p)) ? STATUS_OUT : 0) | (null_count ? STATUS_NULL : 0) | c->access << 4 |
	       c->mode << 1 | (c->bcd ? CW_BCD : 0);
}

static void latch_count(struct pit *p, struct pit_channel *c)
{
	if (c->latched)
		return; /* kept until it is read */
	c->count_latch = count(c, now_ns(p));
	c->latched = c->access == ACCESS_BOTH ? 2 : 1;
	c->read_second = false;
}

static void read_back(struct pit *p, uint8_t v)
{
	for (unsigned i = 0; i < CHANNELS; i++) {
		struct pit_channel *c = &p->ch[i];

		if (!(v & 2u << i))
			continue;
		if (!(v & RB_NO_COUNT))
			latch_count(p, c);
		if (!(v & RB_NO_STATUS) && !c->status_latched) {
			c->status_latch = status(p, c);
			c->status_latched = true;
		}
	}
}

static void control_write(struct pit *p, uint8_t v)
{
	if (CW_CHANNEL(v) == CW_READ_BACK) {
		read_back(p, v);
		return;
	}
	struct pit_channel *c = &p->ch[CW_CHANNEL(v)];
	if (CW_ACCESS(v) == ACCESS_LATCH) {
		latch_count(p, c);
		return;
	}
	*c = (struct pit_channel){
		.mode = CW_MODE(v) >= 6 ? CW_MODE(v) - 4 : CW_MODE(v), /* modes 2 and 3 ignore the top bit */
		.access = CW_ACCESS(v),
		.bcd = v & CW_BCD,
		.gate = c->gate,
		.reload = 65536,
	};
	channel_changed(p, c);
}

static void count_write(struct pit *p, struct pit_channel *c, uint8_t v)
{
	if (c->access == ACCESS_LOW) {
		load_count(p, c, v);
	} else if (c->access == ACCESS_HIGH) {
		load_count(p, c, v << 8);
	} else if (!c->write_second) {
		c->write_low = v;
		c->write_second = true;
		if (c->mode == 0 && c->counting) { /* the first byte stops mode 0 */
			c->counting = false;
			channel_changed(p, c);
		}
	} else {
		c->write_second = false;
		load_count(p, c, v << 8 | c->write_low);
	}
}

static uint8_t count_read(struct pit *p, struct pit_channel *c)
{
	if (c->status_latched) {
		c->status_latched = false;
		return c->status_latch;
	}
	uint16_t v = c->latched ? c->count_latch : count(c, now_ns(p));
	bool high = c->access == ACCESS_HIGH || (c->access == ACCESS_BOTH && c->read_second);
	if (c->access == ACCESS_BOTH)
		c->read_second = !c->read_second;
	if (c->latched)
		c->latched--;
	return high ? v >> 8 : v;
}

static uint64_t ports_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pit *p = opaque;

	(void)size;
	return offset < CHANNELS ? count_read(p, &p->ch[offset]) : 0xff; /* the control word is write-only */
}

static void ports_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pit *p = opaque;

	(void)size;
	if (offset < CHANNELS)
		count_write(p, &p->ch[offset], value);
	else
		control_write(p, value);
}

static uint64_t speaker_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pit *p = opaque;
	int64_t now = now_ns(p);

	(void)offset;
	(void)size;
	return p->port61 | (now / REFRESH_NS & 1 ? P61_REFRESH : 0) | (output(&p->ch[2], now) ? P61_OUT : 0);
}

static void speaker_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pit *p = opaque;

	(void)offset;
	(void)size;
	p->port61 = value & P61_WRITABLE;
	set_gate(p, &p->ch[2], value & P61_GATE);
}

/* ---- reset, state ---- */

/* The part has no reset; firmware leaves channel 0 in mode 3 at 18.2 Hz, masked at the PIC, and channel 1 in
 * mode 2. */
static void pit_reset(struct device *d)
{
	struct pit *p = (struct pit *)d;
	int64_t now = now_ns(p);
	static const uint8_t modes[CHANNELS] = { 3, 2, 0 };

	for (unsigned i = 0; i < CHANNELS; i++)
		p->ch[i] = (struct pit_channel){
			.mode = modes[i],
			.access = ACCESS_BOTH,
			.gate = i != 2,
			.reload = i == 1 ? 18 : 65536,
			.loaded = i != 2,
			.counting = i != 2,
			.start_ns = now,
		};
	p->port61 = 0;
	p->owed = 0;
	irq_set(&p->irq0, false);
	schedule(p, now);
}

static bool channel_possible(const struct pit_channel *c)
{
	/* Times within half the range, so that differences cannot overflow. */
	return c->mode <= 5 && c->access >= ACCESS_LOW && c->access <= ACCESS_BOTH && c->reload &&
	       c->reload <= 65536 && c->next <= 65536 && c->start_ns > INT64_MIN / 4 &&
	       c->start_ns < INT64_MAX / 4 && c->held_ns >= 0 && c->held_ns < INT64_MAX / 4 &&
	       c->latched <= 2;
}

static int pit_loaded(void *obj, struct error *err)
{
	struct pit *p = obj;

	for (unsigned i = 0; i < CHANNELS; i++)
		if (!channel_possible(&p->ch[i]))
			return error_set(err, EINVAL,
					 "the saved state of the timer (pit) is impossible; it is damaged");
	p->port61 &= P61_WRITABLE;
	if (p->owed > PIT_HZ)
		return error_set(err, EINVAL,
				 "the saved state of the timer (pit) is impossible; it is damaged");
	arm(p); /* a rise that was due while saving comes at once */
	return 0;
}

#define CHANNEL_FIELDS(n)                                                                                    \
	F_U8(struct pit, ch[n].mode), F_U8(struct pit, ch[n].access), F_BOOL(struct pit, ch[n].bcd),         \
	    F_BOOL(struct pit, ch[n].gate), F_BOOL(struct pit, ch[n].counting),                              \
	    F_BOOL(struct pit, ch[n].loaded), F_U32(struct pit, ch[n].reload),                               \
	    F_U32(struct pit, ch[n].next), F_U64(struct pit, ch[n].start_ns),                                \
	    F_U64(struct pit, ch[n].held_ns), F_U8(struct pit, ch[n].write_low),                             \
	    F_BOOL(struct pit, ch[n].write_second), F_BOOL(struct pit, ch[n].read_second),                   \
	    F_U8(struct pit, ch[n].latched), F_U16(struct pit, ch[n].count_latch),                           \
	    F_BOOL(struct pit, ch[n].status_latched), F_U8(struct pit, ch[n].status_latch)

static const struct state_field pit_fields[] = {
	CHANNEL_FIELDS(0),
	CHANNEL_FIELDS(1),
	CHANNEL_FIELDS(2),
	F_U8(struct pit, port61),
	F_U64(struct pit, next_rise),
	F_U32(struct pit, owed),
	F_END,
};
static const struct state_table pit_state = { "pit", 1, pit_fields, pit_loaded };

static void pit_free(struct device *d)
{
	struct pit *p = (struct pit *)d;

	loop_timer_cancel(&p->timer);
	mem_unmap_pio(p->board->mem, &p->ports);
	mem_unmap_pio(p->board->mem, &p->speaker);
	free(p);
}

static const struct device_class pit_class = { "pit", pit_reset, &pit_state, pit_free };

int pit_new(struct board *b, struct irq_line irq0, struct pit **ret, struct error *err)
{
	struct pit *p = calloc(1, sizeof(*p));

	if (!p)
		return error_set(err, ENOMEM, "no memory for the timer; free some and try again");
	p->board = b;
	p->irq0 = irq0;
	loop_timer_init(b->loop, &p->timer, pit_tick, p);
	p->ports = (struct io_region){ .name = "pit",
				       .base = 0x40,
				       .size = 4,
				       .read = ports_read,
				       .write = ports_write,
				       .opaque = p,
				       .max_size = 1 };
	p->speaker = (struct io_region){ .name = "port61",
					 .base = 0x61,
					 .size = 1,
					 .read = speaker_read,
					 .write = speaker_write,
					 .opaque = p };
	mem_map_pio(b->mem, &p->ports);
	mem_map_pio(b->mem, &p->speaker);
	board_add(b, &p->dev, &pit_class, 0);
	pit_reset(&p->dev);
	*ret = p;
	return 0;
}
