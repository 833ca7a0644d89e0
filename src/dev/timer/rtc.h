/* SPDX-License-Identifier: Apache-2.0 */
/* The MC146818 real-time clock and CMOS memory (ports 70/71). */
#ifndef SILL_DEV_TIMER_RTC_H
#define SILL_DEV_TIMER_RTC_H

#include "dev/device.h"

struct rtc;

#define RTC_CENTURY  0x32 /* for the FADT */
#define RTC_SHUTDOWN 0x0f /* what firmware is to do after a reset */

/* irq8: its line. The memory-size bytes come from the board's RAM. On the board's list. 0 or -errno. */
int rtc_new(struct board *b, struct irq_line irq8, struct rtc **ret, struct error *err);
/* Sets a CMOS byte (0x0e..0x7f) as firmware or the machine would; kept across resets. [io lock, or before the
 * vCPUs run] */
void rtc_set_cmos(struct rtc *r, uint8_t index, uint8_t value);
/* A CMOS byte that is memory, 0 for others. [as rtc_set_cmos] */
uint8_t rtc_cmos(const struct rtc *r, uint8_t index);
/* Port 70's bit 7: the guest wants no NMIs. [io lock] */
bool rtc_nmi_masked(const struct rtc *r);

#endif
