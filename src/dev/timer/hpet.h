/* SPDX-License-Identifier: Apache-2.0 */
/* The high-precision event timers (IA-PC HPET 1.0a) at 0xfed00000: a counter of 100 MHz and three timers. */
#ifndef SILL_DEV_TIMER_HPET_H
#define SILL_DEV_TIMER_HPET_H

#include "dev/device.h"

struct hpet;
struct irq_router;

#define HPET_BASE     0xfed00000ull
#define HPET_SIZE     0x400u
#define HPET_ID       0x8086a201u /* the low half of the capabilities, for the ACPI table, too */
#define HPET_MIN_TICK 5000        /* periods below this are not kept */

/* Maps the registers. On the board's list, before those whose lines it takes. 0 or -errno. */
int hpet_new(struct board *b, struct irq_router *r, struct hpet **ret, struct error *err);
/* The lines for the PIT and the RTC: they lead to IRQ 0 and 8 unless the guest lets timers 0 and 1 take their
 * place ("legacy replacement"). */
struct irq_line hpet_pit_line(struct hpet *h);
struct irq_line hpet_rtc_line(struct hpet *h);

#endif
