/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI fixed hardware (ACPI 6.4 §4.8) at the ports that acpi_pm.h names:
 *
 *	600  PM1 status   602  PM1 enable   604  PM1 control
 *	608  PM timer (24 bits, 3.579545 MHz)
 *	620  GPE0 status  622  GPE0 enable
 *	b2/b3  APM command and status: kept and read back, nothing listens
 *
 * The machine is always in ACPI mode: SCI_EN reads as 1.  The SCI is the OR of
 * all enabled status bits, a level.  TMR_STS rises each time the timer's top bit
 * changes (every 2.3 s); a loop timer runs only while it is enabled.
 * Writing SLP_EN with SLP_TYP 0 is soft-off; other sleep types do nothing.
 */
#include "dev/pc/acpi_pm.h"

#include <errno.h>
#include <stdlib.h>

#include "base/util.h"

#define PM1_TMR    0x0001u
#define PM1_GBL    0x0020u
#define PM1_PWRBTN 0x0100u
#define PM1_SLPBTN 0x0200u
#define PM1_RTC    0x0400u
#define PM1_WAK    0x8000u
#define PM1_EVENTS (PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_SLPBTN | PM1_RTC)

#define CNT_SCI_EN     0x0001u
#define CNT_BM_RLD     0x0002u
#define CNT_SLP_TYP(v) ((v) >> 10 & 7)
#define CNT_SLP_EN     0x2000u
#define CNT_KEPT       (CNT_BM_RLD | 7u << 10)

#define TIMER_HALF (1 << 23) /* ticks from one change of the top bit to the next */
#define NS_PER_S   1000000000

/* Offsets from ACPI_PM_BASE */
#define OFF_STS   0x00
#define OFF_EN    0x02
#define OFF_CNT   0x04
#define OFF_TIMER 0x08
#define OFF_GPE   0x20
#define PORTS     0x24

struct acpi_pm {
	struct device dev;
	struct board *board;
	struct irq_line sci;
	uint16_t pm1_status, pm1_enable, pm1_control;
	uint16_t gpe_status, gpe_enable;
	uint8_t apm[2];
	int64_t half_seen; /* changes of the timer's top bit that TMR_STS accounts for */
	struct loop_timer timer;
	struct io_region ports, apm_ports;
	void (*moved)(void *opaque, uint16_t base);
	void *moved_opaque;
};

/* ---- the timer ---- */

static int64_t ticks(const struct acpi_pm *p)
{
	return (int64_t)((unsigned __int128)clock_now_ns(p->board->clock) * ACPI_PM_TMR_HZ / NS_PER_S);
}

static int64_t ns_of(int64_t t)
{
	return (int64_t)(((unsigned __int128)t * NS_PER_S + ACPI_PM_TMR_HZ - 1) / ACPI_PM_TMR_HZ);
}

/* ---- the SCI ---- */

static void pm_update(struct acpi_pm *p)
{
	int64_t half = ticks(p) / TIMER_HALF;

	if (half != p->half_seen) {
		p->half_seen = half;
		p->pm1_status |= PM1_TMR;
	}
	irq_set(&p->sci, (p->pm1_status & p->pm1_enable & PM1_EVENTS) || (p->gpe_status & p->gpe_enable));
	if ((p->pm1_enable & PM1_TMR) && !(p->pm1_status & PM1_TMR))
		loop_timer_arm(&p->timer, ns_of((half + 1) * TIMER_HALF));
	else
		loop_timer_cancel(&p->timer);
}

static void pm_timer(void *opaque)
{
	pm_update(opaque);
}

void acpi_pm_power_button(struct acpi_pm *p)
{
	p->pm1_status |= PM1_PWRBTN;
	pm_update(p);
}

void acpi_pm_gpe(struct acpi_pm *p, unsigned gpe)
{
	if (gpe >= 16)
		return;
	p->gpe_status |= 1u << gpe;
	pm_update(p);
}

/* ---- registers ---- */

static uint32_t read_dword(const struct acpi_pm *p, uint64_t offset)
{
	switch (offset) {
	case OFF_STS:
		return p->pm1_status | (uint32_t)p->pm1_enable << 16;
	case OFF_CNT:
		return p->pm1_control | CNT_SCI_EN;
	case OFF_TIMER:
		return ticks(p) & 0xffffff;
	case OFF_GPE:
		return p->gpe_status | (uint32_t)p->gpe_enable << 16;
	default:
		return 0;
	}
}

static uint64_t ports_read(void *opaque, uint64_t offset, unsigned size)
{
	struct acpi_pm *p = opaque;

	(void)size;
	pm_update(p);
	return read_dword(p, offset & ~3ull) >> 8 * (offset & 3);
}

static void control_write(struct acpi_pm *p, unsigned shift, uint8_t v)
{
	uint16_t value = (uint16_t)(v << shift), mask = (uint16_t)(0xff << shift);

	p->pm1_control = (p->pm1_control & ~mask) | (value & CNT_KEPT);
	if ((value & CNT_SLP_EN) && CNT_SLP_TYP(value) == ACPI_S5_TYPE)
		board_ask(p->board, BOARD_POWEROFF);
}

/* Sets the byte of *reg that v is meant for. */
static void set_byte(uint16_t *reg, unsigned shift, uint8_t v, uint16_t writable)
{
	uint16_t mask = (uint16_t)(0xff << shift) & writable;

	*reg = (*reg & ~mask) | ((uint16_t)(v << shift) & mask);
}

static void write_byte(struct acpi_pm *p, uint64_t offset, uint8_t v)
{
	unsigned shift = 8 * (offset & 1);

	switch (offset & ~1ull) {
	case OFF_STS:
		p->pm1_status &= ~(v << shift);
		break;
	case OFF_EN:
		set_byte(&p->pm1_enable, shift, v, PM1_EVENTS);
		break;
	case OFF_CNT:
		control_write(p, shift, v);
		break;
	case OFF_GPE:
		p->gpe_status &= ~(v << shift);
		break;
	case OFF_GPE + 2:
		set_byte(&p->gpe_enable, shift, v, 0xffff);
		break;
	default:
		break;
	}
}

static void ports_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct acpi_pm *p = opaque;

	pm_update(p); /* a TMR_STS that is due is cleared by this write, not raised after it */
	for (unsigned i = 0; i < size; i++)
		write_byte(p, offset + i, value >> 8 * i);
	pm_update(p);
}

static uint64_t apm_read(void *opaque, uint64_t offset, unsigned size)
{
	struct acpi_pm *p = opaque;

	(void)size;
	return p->apm[offset & 1];
}

static void apm_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct acpi_pm *p = opaque;

	(void)size;
	p->apm[offset & 1] = value;
}

/* ---- reset, state ---- */

static void pm_reset(struct device *d)
{
	struct acpi_pm *p = (struct acpi_pm *)d;

	p->pm1_status = p->pm1_enable = p->pm1_control = 0;
	p->gpe_status = p->gpe_enable = 0;
	p->apm[0] = p->apm[1] = 0;
	p->half_seen = ticks(p) / TIMER_HALF;
	pm_update(p);
}

static int pm_loaded(void *obj, struct error *err)
{
	struct acpi_pm *p = obj;

	(void)err;
	p->pm1_enable &= PM1_EVENTS;
	p->pm1_control &= CNT_KEPT;
	/* The controllers' saved state has the line's level already; what happened since comes by the timer.
	 */
	loop_timer_arm(&p->timer, clock_now_ns(p->board->clock));
	return 0;
}

static const struct state_field pm_fields[] = {
	F_U16(struct acpi_pm, pm1_status),  F_U16(struct acpi_pm, pm1_enable),
	F_U16(struct acpi_pm, pm1_control), F_U16(struct acpi_pm, gpe_status),
	F_U16(struct acpi_pm, gpe_enable),  F_BYTES(struct acpi_pm, apm),
	F_U64(struct acpi_pm, half_seen),   F_END,
};
static const struct state_table pm_state = { "acpi-pm", 1, pm_fields, pm_loaded };

static void pm_free(struct device *d)
{
	struct acpi_pm *p = (struct acpi_pm *)d;

	loop_timer_cancel(&p->timer);
	mem_unmap_pio(p->board->mem, &p->ports);
	mem_unmap_pio(p->board->mem, &p->apm_ports);
	free(p);
}

static const struct device_class pm_class = { "acpi-pm", pm_reset, &pm_state, pm_free };

void acpi_pm_set_base(struct acpi_pm *p, uint16_t base)
{
	uint16_t old = p->ports.mapped ? (uint16_t)p->ports.base : 0;

	if (base == old)
		return;
	mem_unmap_pio(p->board->mem, &p->ports);
	p->ports.base = base;
	if (base)
		mem_map_pio(p->board->mem, &p->ports);
	if (p->moved)
		p->moved(p->moved_opaque, base);
}

void acpi_pm_on_move(struct acpi_pm *p, void (*moved)(void *opaque, uint16_t base), void *opaque)
{
	p->moved = moved;
	p->moved_opaque = opaque;
}

int acpi_pm_new(struct board *b, struct irq_line sci, struct acpi_pm **ret, struct error *err)
{
	struct acpi_pm *p = calloc(1, sizeof(*p));

	if (!p)
		return error_set(err, ENOMEM, "no memory for power management; free some and try again");
	p->board = b;
	p->sci = sci;
	loop_timer_init(b->loop, &p->timer, pm_timer, p);
	p->half_seen = ticks(p) / TIMER_HALF;
	p->ports = (struct io_region){ .name = "acpi-pm",
				       .base = ACPI_PM_BASE,
				       .size = PORTS,
				       .read = ports_read,
				       .write = ports_write,
				       .opaque = p };
	p->apm_ports = (struct io_region){ .name = "apm",
					   .base = ACPI_SMI_CMD,
					   .size = 2,
					   .read = apm_read,
					   .write = apm_write,
					   .opaque = p,
					   .max_size = 1 };
	mem_map_pio(b->mem, &p->ports);
	mem_map_pio(b->mem, &p->apm_ports);
	board_add(b, &p->dev, &pm_class, 0);
	*ret = p;
	return 0;
}
