/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI fixed hardware: PM1a, the PM timer, GPE0, and the APM command port.
 *
 * For the FADT: PM1a_EVT_BLK ACPI_PM1_EVT (4 bytes), PM1a_CNT_BLK ACPI_PM1_CNT
 * (2), PM_TMR_BLK ACPI_PM_TIMER (4), TMR_VAL_EXT clear (the timer is 24 bits wide),
 * GPE0_BLK ACPI_GPE0 (4 bytes: 2 of status, 2 of enable), SCI_INT ACPI_SCI_IRQ
 * (level, active low or high as one likes), SMI_CMD 0 (the machine is always in ACPI mode),
 * _S5 with SLP_TYPa 0.
 */
#ifndef SILL_DEV_PC_ACPI_PM_H
#define SILL_DEV_PC_ACPI_PM_H

#include "dev/device.h"

struct acpi_pm;

#define ACPI_PM_BASE 0x600u
/* Offsets from the base */
#define ACPI_PM1_EVT   0x00u
#define ACPI_PM1_CNT   0x04u
#define ACPI_PM_TIMER  0x08u
#define ACPI_GPE0      0x20u
#define ACPI_GPE0_LEN  4u
#define ACPI_SCI_IRQ   9u
#define ACPI_SMI_CMD   0xb2u
#define ACPI_S5_TYPE   0u
#define ACPI_PM_TMR_HZ 3579545u

/* sci: the line of ACPI_SCI_IRQ. On the board's list. 0 or -errno. */
int acpi_pm_new(struct board *b, struct irq_line sci, struct acpi_pm **ret, struct error *err);
/*
 * [io] Where the registers are, 64 ports from base on; 0: nowhere. They begin at ACPI_PM_BASE. moved, if not
 * NULL, is called after each change.
 */
void acpi_pm_set_base(struct acpi_pm *p, uint16_t base);
void acpi_pm_on_move(struct acpi_pm *p, void (*moved)(void *opaque, uint16_t base), void *opaque);
/* Presses the power button: the guest gets an SCI if it enabled the event. [io lock] */
void acpi_pm_power_button(struct acpi_pm *p);
/* Sets a general-purpose event's status bit (0..15). [io lock] */
void acpi_pm_gpe(struct acpi_pm *p, unsigned gpe);

#endif
