/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Motorola MC146818A with the PC's additions: century at 0x32, memory sizes and
 * checksum in CMOS, the NMI mask in bit 7 of the index port.
 *
 * The time is the host's wall clock (UTC) plus what the guest changed: seconds
 * (offset_s) and the phase of the second (phase_ns).  Nothing ticks: registers
 * and flags are computed when read.  While the guest holds the clock (SET, or
 * the divider in reset) the ten time registers are plain bytes in `held`; when it
 * lets go, the offset follows from them.  Leaving divider reset puts the next
 * update half a second ahead (MC146818A "Divider Control Bits"), which is what
 * systems that set the clock count on.
 *
 * Register A says that an update is in progress for the 2.2 ms before each second
 * (MC146818A "Update Cycle").  Systems wait for that by reading it over and over; if
 * the host ran something else just then, who reads on is told once afterwards, or
 * he would wait for another second, and another.
 *
 * PF, UF and AF rise whether or not their interrupts are enabled; a loop timer
 * runs only for those that are.  Periodic interrupts follow virtual time.
 */
#include "dev/timer/rtc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

enum {
	REG_SEC,
	REG_SEC_ALARM,
	REG_MIN,
	REG_MIN_ALARM,
	REG_HOUR,
	REG_HOUR_ALARM,
	REG_WDAY,
	REG_DAY,
	REG_MONTH,
	REG_YEAR,
	REG_A,
	REG_B,
	REG_C,
	REG_D,
};

#define A_UIP        0x80
#define A_DIV_RESET  0x60 /* both bits: divider in reset */
#define A_RATE(v)    ((v)&0x0f)
#define A_DEFAULT    0x26
#define B_SET        0x80
#define B_PIE        0x40
#define B_AIE        0x20
#define B_UIE        0x10
#define B_SQWE       0x08
#define B_BINARY     0x04
#define B_24H        0x02
#define C_IRQF       0x80
#define FLAG_P       0x40 /* in B and C alike */
#define FLAG_A       0x20
#define FLAG_U       0x10
#define FLAGS        (FLAG_P | FLAG_A | FLAG_U)
#define D_VALID      0x80
#define HOUR_PM      0x80
#define DONT_CARE    0xc0
#define NS_PER_S     1000000000ll
#define UIP_NS       2228000        /* 244 us before the update, 1984 us for it (32 kHz time base) */
#define POLL_NS      (2 * NS_PER_S) /* who reads register A as often as that waits for something */
#define SECS_PER_DAY 86400
#define CMOS_FIRST   0x0e
#define CMOS_SIZE    128
#define SUM_FIRST    0x10
#define SUM_LAST     0x2d
#define SUM_HIGH     0x2e

/* The time registers while they are held: indices of struct rtc.held. */
#define HELD_CENTURY 10
#define HELD_SIZE    11

struct rtc {
	struct device dev;
	struct board *board;
	struct irq_line irq8;
	uint8_t cmos[CMOS_SIZE]; /* alarms, A..D and RAM; the time registers are not here */
	uint8_t held[HELD_SIZE];
	uint8_t index;
	int64_t offset_s;
	int64_t phase_ns;
	int64_t seen_s;      /* flags U and A are right for all seconds up to this one */
	int64_t periodic_ns; /* virtual time of the last period that P accounts for */
	int64_t polled_ns;   /* the guest's time when register A last showed no update */
	struct loop_timer timer;
	struct io_region ports;
};

/* ---- the calendar (proleptic Gregorian) ---- */

struct date {
	int64_t year;
	unsigned month, day; /* from 1 */
};

/* Days since 1970-01-01. Years are counted from March so that the leap day comes last. */
static int64_t days_from_date(int64_t year, unsigned month, unsigned day)
{
	int64_t y = month <= 2 ? year - 1 : year, era = (y >= 0 ? y : y - 399) / 400;
	int64_t yoe = y - era * 400, m = month <= 2 ? month + 9 : month - 3;
	int64_t doy = (153 * m + 2) / 5 + day - 1;

	return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

static struct date date_from_days(int64_t days)
{
	int64_t z = days + 719468, era = (z >= 0 ? z : z - 146096) / 146097, doe = z - era * 146097;
	int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), m = (5 * doy + 2) / 153;
	struct date d = { .year = era * 400 + yoe, .day = doy - (153 * m + 2) / 5 + 1 };

	d.month = m < 10 ? m + 3 : m - 9;
	d.year += d.month <= 2;
	return d;
}

static int64_t floor_div(int64_t a, int64_t b)
{
	return a / b - (a % b < 0);
}

/* ---- formats ---- */

static uint8_t encode(const struct rtc *r, unsigned v)
{
	return r->cmos[REG_B] & B_BINARY ? v : v / 10 % 10 << 4 | v % 10;
}

static unsigned decode(const struct rtc *r, uint8_t v)
{
	return r->cmos[REG_B] & B_BINARY ? v : (v >> 4) * 10u + (v & 15);
}

static uint8_t encode_hour(const struct rtc *r, unsigned h)
{
	if (r->cmos[REG_B] & B_24H)
		return encode(r, h);
	return encode(r, h % 12 ? h % 12 : 12) | (h >= 12 ? HOUR_PM : 0);
}

static unsigned decode_hour(const struct rtc *r, uint8_t v)
{
	if (r->cmos[REG_B] & B_24H)
		return decode(r, v);
	return decode(r, v & 0x7f) % 12 + (v & HOUR_PM ? 12 : 0);
}

/* ---- the time ---- */

static int64_t wall_ns(const struct rtc *r)
{
	return clock_wall_ns(r->board->clock) + r->phase_ns;
}

/* The guest's time in seconds since 1970. */
static int64_t time_s(const struct rtc *r)
{
	return floor_div(wall_ns(r), NS_PER_S) + r->offset_s;
}

static bool held_by(uint8_t a, uint8_t b)
{
	return (b & B_SET) || (a & A_DIV_RESET) == A_DIV_RESET;
}

static bool is_held(const struct rtc *r)
{
	return held_by(r->cmos[REG_A], r->cmos[REG_B]);
}

static void fill_registers(const struct rtc *r, uint8_t *regs)
{
	int64_t t = time_s(r), days = floor_div(t, SECS_PER_DAY);
	unsigned s = t - days * SECS_PER_DAY;
	struct date d = date_from_days(days);

	memset(regs, 0, HELD_SIZE);
	regs[REG_SEC] = encode(r, s % 60);
	regs[REG_MIN] = encode(r, s / 60 % 60);
	regs[REG_HOUR] = encode_hour(r, s / 3600);
	regs[REG_WDAY] = encode(r, ((days + 4) % 7 + 7) % 7 + 1); /* day 0 was a Thursday; Sunday is 1 */
	regs[REG_DAY] = encode(r, d.day);
	regs[REG_MONTH] = encode(r, d.month);
	regs[REG_YEAR] = encode(r, d.year % 100);
	regs[HELD_CENTURY] = encode(r, d.year / 100 % 100);
}

/* Makes the registers' time the current one. Nonsense (day 77) becomes some time, never an error. */
static void take_registers(struct rtc *r, const uint8_t *regs)
{
	unsigned month = decode(r, regs[REG_MONTH]);
	int64_t year = decode(r, regs[HELD_CENTURY]) * 100ll + decode(r, regs[REG_YEAR]);
	int64_t days = days_from_date(year, month < 1 || month > 12 ? 1 : month, decode(r, regs[REG_DAY]));
	int64_t t = days * SECS_PER_DAY + decode_hour(r, regs[REG_HOUR]) * 3600ll +
		    decode(r, regs[REG_MIN]) * 60ll + decode(r, regs[REG_SEC]);

	r->offset_s += t - time_s(r);
	r->seen_s = t;
}

/* ---- flags ---- */

static int64_t period_ns(const struct rtc *r)
{
	unsigned rate = A_RATE(r->cmos[REG_A]);

	if (!rate)
		return 0;
	if (rate <= 2)
		rate += 7; /* 256 and 128 Hz, as the 32 kHz time base has them */
	return NS_PER_S * (1ll << (rate - 1)) / 32768;
}

static bool alarm_field_matches(uint8_t alarm, unsigned want, unsigned v)
{
	return alarm >= DONT_CARE || want == v;
}

/* The first second after `after` at which the alarm matches, or INT64_MAX. Skips whole hours and minutes. */
static int64_t next_alarm(const struct rtc *r, int64_t after)
{
	unsigned sec = decode(r, r->cmos[REG_SEC_ALARM]), min = decode(r, r->cmos[REG_MIN_ALARM]),
		 hour = decode_hour(r, r->cmos[REG_HOUR_ALARM]);

	for (int64_t t = after + 1; t <= after + SECS_PER_DAY + 3600;) {
		int64_t day = floor_div(t, SECS_PER_DAY) * SECS_PER_DAY;
		unsigned s = t - day;

		if (!alarm_field_matches(r->cmos[REG_HOUR_ALARM], hour, s / 3600))
			t += 3600 - s % 3600;
		else if (!alarm_field_matches(r->cmos[REG_MIN_ALARM], min, s / 60 % 60))
			t += 60 - s % 60;
		else if (!alarm_field_matches(r->cmos[REG_SEC_ALARM], sec, s % 60))
			t++;
		else
			return t;
	}
	return INT64_MAX;
}

/* Brings the flags of register C up to now. */
static void update_flags(struct rtc *r)
{
	int64_t vnow = clock_now_ns(r->board->clock), period = period_ns(r);

	if (period && vnow - r->periodic_ns >= period) {
		r->periodic_ns = vnow - (vnow - r->periodic_ns) % period;
		r->cmos[REG_C] |= FLAG_P;
	}
	if (is_held(r))
		return;
	int64_t t = time_s(r);
	if (t < r->seen_s) /* the host's clock was set back */
		r->seen_s = t;
	if (t > r->seen_s) {
		r->cmos[REG_C] |= FLAG_U;
		if (next_alarm(r, r->seen_s) <= t)
			r->cmos[REG_C] |= FLAG_A;
		r->seen_s = t;
	}
}

/* Virtual ns at which the clock will have advanced to second t. */
static int64_t when(const struct rtc *r, int64_t t)
{
	int64_t wall = wall_ns(r), left = t - time_s(r);

	return clock_now_ns(r->board->clock) + left * NS_PER_S -
	       (wall - floor_div(wall, NS_PER_S) * NS_PER_S);
}

static int64_t next_event(const struct rtc *r)
{
	uint8_t b = r->cmos[REG_B] & ~r->cmos[REG_C]; /* a flag that is up already has interrupted */
	int64_t at = INT64_MAX, period = period_ns(r);

	if ((b & B_PIE) && period)
		at = r->periodic_ns + period;
	if (is_held(r))
		return at;
	if (b & B_UIE)
		at = (int64_t)min_u64(at, when(r, r->seen_s + 1));
	if (b & B_AIE) {
		int64_t t = next_alarm(r, r->seen_s);

		if (t != INT64_MAX)
			at = (int64_t)min_u64(at, when(r, t));
	}
	return at;
}

/* Flags, the line and the timer follow from the registers. */
static void rtc_update(struct rtc *r)
{
	update_flags(r);
	if (r->cmos[REG_C] & r->cmos[REG_B] & FLAGS)
		r->cmos[REG_C] |= C_IRQF;
	else
		r->cmos[REG_C] &= ~C_IRQF;
	irq_set(&r->irq8, r->cmos[REG_C] & C_IRQF);
	int64_t at = next_event(r);
	if (at == INT64_MAX)
		loop_timer_cancel(&r->timer);
	else
		loop_timer_arm(&r->timer, at);
}

static void rtc_timer(void *opaque)
{
	rtc_update(opaque);
}

/* ---- registers ---- */

/* Index in `held` of a time register, or -1. */
static int time_register(unsigned i)
{
	if (i == RTC_CENTURY)
		return HELD_CENTURY;
	if (i > REG_YEAR || i == REG_SEC_ALARM || i == REG_MIN_ALARM || i == REG_HOUR_ALARM)
		return -1;
	return i;
}

static uint8_t read_time(const struct rtc *r, unsigned held_index)
{
	uint8_t regs[HELD_SIZE];

	if (is_held(r))
		return r->held[held_index];
	fill_registers(r, regs);
	return regs[held_index];
}

static void write_time(struct rtc *r, unsigned held_index, uint8_t v)
{
	uint8_t regs[HELD_SIZE];

	if (is_held(r)) {
		r->held[held_index] = v;
		return;
	}
	fill_registers(r, regs);
	regs[held_index] = v;
	take_registers(r, regs);
}

static bool update_in_progress(struct rtc *r)
{
	int64_t wall = wall_ns(r), phase = wall - floor_div(wall, NS_PER_S) * NS_PER_S;
	int64_t since = wall - r->polled_ns;
	bool missed = since > phase && since < POLL_NS, now = phase >= NS_PER_S - UIP_NS;

	if (is_held(r))
		return false;
	r->polled_ns = now ? 0 : wall;
	return now || missed;
}

static void write_control(struct rtc *r, uint8_t a, uint8_t b)
{
	bool was = is_held(r), now = held_by(a, b);
	bool div_released = (r->cmos[REG_A] & A_DIV_RESET) == A_DIV_RESET && (a & A_DIV_RESET) != A_DIV_RESET;

	update_flags(r);
	if (!was && now)
		fill_registers(r, r->held);
	if (A_RATE(a) != A_RATE(r->cmos[REG_A]))
		r->periodic_ns = clock_now_ns(r->board->clock);
	if (b & B_SET)
		b &= ~B_UIE; /* MC146818A "SET" */
	r->cmos[REG_A] = a & ~A_UIP;
	r->cmos[REG_B] = b;
	if (div_released) {
		int64_t wall = clock_wall_ns(r->board->clock);

		r->phase_ns = (NS_PER_S + NS_PER_S / 2 - wall % NS_PER_S) % NS_PER_S;
	}
	if (was && !now)
		take_registers(r, r->held);
}

static uint8_t read_register(struct rtc *r, unsigned i)
{
	int t = time_register(i);

	if (t >= 0)
		return read_time(r, t);
	if (i == REG_A)
		return r->cmos[REG_A] | (update_in_progress(r) ? A_UIP : 0);
	if (i == REG_D)
		return D_VALID;
	if (i != REG_C)
		return r->cmos[i];
	rtc_update(r);
	uint8_t v = r->cmos[REG_C];
	r->cmos[REG_C] = 0;
	rtc_update(r);
	return v;
}

static void write_register(struct rtc *r, unsigned i, uint8_t v)
{
	int t = time_register(i);

	if (t >= 0)
		write_time(r, t, v);
	else if (i == REG_A)
		write_control(r, v, r->cmos[REG_B]);
	else if (i == REG_B)
		write_control(r, r->cmos[REG_A], v);
	else if (i != REG_C && i != REG_D)
		r->cmos[i] = v;
	if (i < CMOS_FIRST || t >= 0)
		rtc_update(r);
}

static uint64_t ports_read(void *opaque, uint64_t offset, unsigned size)
{
	struct rtc *r = opaque;

	(void)size;
	return offset ? read_register(r, r->index & (CMOS_SIZE - 1)) : 0xff; /* the index is write-only */
}

static void ports_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct rtc *r = opaque;

	(void)size;
	if (offset)
		write_register(r, r->index & (CMOS_SIZE - 1), value);
	else
		r->index = value;
}

bool rtc_nmi_masked(const struct rtc *r)
{
	return r->index & 0x80;
}

/* ---- CMOS contents ---- */

static void put16(struct rtc *r, unsigned i, uint64_t v)
{
	r->cmos[i] = v;
	r->cmos[i + 1] = v >> 8;
}

static void update_checksum(struct rtc *r)
{
	unsigned sum = 0;

	for (unsigned i = SUM_FIRST; i <= SUM_LAST; i++)
		sum += r->cmos[i];
	r->cmos[SUM_HIGH] = sum >> 8;
	r->cmos[SUM_HIGH + 1] = sum;
}

/* What PC firmware reads: base memory in KiB, extended in KiB and 64 KiB, above 4 GiB in 64 KiB; equipment:
 * FPU. */
static void fill_memory_size(struct rtc *r)
{
	uint64_t low = mem_low_ram_size(r->board->mem), high = mem_high_ram_size(r->board->mem);
	uint64_t ext_kib = low > MIB(1) ? min_u64((low - MIB(1)) >> 10, 0xffff) : 0;

	r->cmos[0x14] = 0x02;
	put16(r, 0x15, 640);
	put16(r, 0x17, ext_kib);
	put16(r, 0x30, ext_kib);
	put16(r, 0x34, low > MIB(16) ? min_u64((low - MIB(16)) >> 16, 0xffff) : 0);
	put16(r, 0x5b, high >> 16);
	r->cmos[0x5d] = high >> 32;
	update_checksum(r);
}

void rtc_set_cmos(struct rtc *r, uint8_t index, uint8_t value)
{
	if (index < CMOS_FIRST || index >= CMOS_SIZE || index == RTC_CENTURY)
		return;
	r->cmos[index] = value;
	if (index >= SUM_FIRST && index <= SUM_LAST)
		update_checksum(r);
}

uint8_t rtc_cmos(const struct rtc *r, uint8_t index)
{
	return index >= CMOS_FIRST && index < CMOS_SIZE ? r->cmos[index] : 0;
}

/* ---- reset, state ---- */

/* The RESET pin clears interrupt enables and flags; the battery keeps the rest (MC146818A "RESET"). */
static void rtc_reset(struct device *d)
{
	struct rtc *r = (struct rtc *)d;

	r->index = 0;
	r->cmos[REG_B] &= ~(B_PIE | B_AIE | B_UIE | B_SQWE);
	r->cmos[REG_C] = 0;
	rtc_update(r);
}

static int rtc_loaded(void *obj, struct error *err)
{
	struct rtc *r = obj;
	/* Offsets of some ten thousand years are what a guest can make by setting its clock again and again.
	 */
	const int64_t most = 1ll << 40;

	if (r->offset_s < -most || r->offset_s > most || r->seen_s < -most || r->seen_s > most ||
	    r->phase_ns < 0 || r->phase_ns >= NS_PER_S || r->periodic_ns < 0 || r->polled_ns < 0)
		return error_set(err, EINVAL,
				 "the saved state of the clock (rtc) is impossible; it is damaged");
	r->cmos[REG_A] &= ~A_UIP;
	/* The controllers' saved state has the line's level already; what happened since comes by the timer.
	 */
	loop_timer_arm(&r->timer, clock_now_ns(r->board->clock));
	return 0;
}

static const struct state_field rtc_fields[] = {
	F_BYTES(struct rtc, cmos),      F_BYTES(struct rtc, held),    F_U8(struct rtc, index),
	F_U64(struct rtc, offset_s),    F_U64(struct rtc, phase_ns),  F_U64(struct rtc, seen_s),
	F_U64(struct rtc, periodic_ns), F_U64(struct rtc, polled_ns), F_END,
};
static const struct state_table rtc_state = { "rtc", 1, rtc_fields, rtc_loaded };

static void rtc_free(struct device *d)
{
	struct rtc *r = (struct rtc *)d;

	loop_timer_cancel(&r->timer);
	mem_unmap_pio(r->board->mem, &r->ports);
	free(r);
}

static const struct device_class rtc_class = { "rtc", rtc_reset, &rtc_state, rtc_free };

int rtc_new(struct board *b, struct irq_line irq8, struct rtc **ret, struct error *err)
{
	struct rtc *r = calloc(1, sizeof(*r));

	if (!r)
		return error_set(err, ENOMEM, "no memory for the clock; free some and try again");
	r->board = b;
	r->irq8 = irq8;
	r->cmos[REG_A] = A_DEFAULT;
	r->cmos[REG_B] = B_24H;
	r->seen_s = time_s(r);
	r->periodic_ns = clock_now_ns(b->clock);
	fill_memory_size(r);
	loop_timer_init(b->loop, &r->timer, rtc_timer, r);
	r->ports = (struct io_region){ .name = "rtc",
				       .base = 0x70,
				       .size = 2,
				       .read = ports_read,
				       .write = ports_write,
				       .opaque = r,
				       .max_size = 1 };
	mem_map_pio(b->mem, &r->ports);
	board_add(b, &r->dev, &rtc_class, 0);
	*ret = r;
	return 0;
}
