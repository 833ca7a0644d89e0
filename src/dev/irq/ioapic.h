/* SPDX-License-Identifier: Apache-2.0 */
/* The I/O APIC: 24 pins, version 0x20, at 0xfec00000. */
#ifndef SILL_DEV_IRQ_IOAPIC_H
#define SILL_DEV_IRQ_IOAPIC_H

#include "dev/device.h"

struct ioapic;
struct irq_router;

#define IOAPIC_BASE 0xfec00000ull
#define IOAPIC_PINS 24

/* Maps the registers and puts it on the board's list; r's lock guards it. 0 or -errno. */
int ioapic_new(struct board *b, struct irq_router *r, struct ioapic **ret, struct error *err);

/* All with the router's lock held. */
void ioapic_set_pin_locked(struct ioapic *io, unsigned pin, bool level); /* true: the pin is asserted */
enum irq_state ioapic_pin_state_locked(const struct ioapic *io, unsigned pin);
void ioapic_eoi_locked(struct ioapic *io, uint8_t vector);
/* Tries again to send the level-triggered requests that nobody took. */
void ioapic_retry_locked(struct ioapic *io);

#endif
