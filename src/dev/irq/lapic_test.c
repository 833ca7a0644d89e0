/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>

#include "dev/test_board.h"

static struct test_board t;

#define BASE_EN  0x800ull
#define BASE_X2  0xc00ull
#define MASKED   0x10000u
#define PERIODIC 0x20000u
#define DEADLINE 0x40000u
#define DIVIDE_1 0xb

static int setup(void **state)
{
	(void)state;
	test_board_init(&t);
	for (t.current = 0; t.current < TEST_CPUS; t.current++) {
		test_lapic_write(&t, 0xf0, 0x1ff);
		test_lapic_write(&t, 0xd0, 1u << (24 + t.current));
	}
	t.current = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	test_board_fini(&t);
	return 0;
}

static struct lapic *cpu(unsigned i)
{
	return t.cpu[i].lapic;
}

static uint32_t rd(unsigned offset)
{
	return test_lapic_read(&t, offset);
}

static void wr(unsigned offset, uint32_t v)
{
	test_lapic_write(&t, offset, v);
}

static int rdmsr(unsigned i, uint32_t index, uint64_t *v)
{
	return lapic_msr_read(cpu(i), index, v);
}

static int wrmsr(unsigned i, uint32_t index, uint64_t v)
{
	return lapic_msr_write(cpu(i), index, v);
}

static void self(uint8_t vector)
{
	wr(0x300, 0x40000u | vector);
}

static void reset_values(void **state)
{
	uint64_t v;

	(void)state;
	board_reset(&t.b);
	assert_int_equal(rd(0x30), 0x01050014);
	assert_int_equal(rd(0x20), 0);
	assert_int_equal(rd(0xe0), 0xffffffff);
	assert_int_equal(rd(0xf0), 0xff);
	assert_int_equal(rd(0x320), MASKED);
	assert_int_equal(rd(0x350), 0x700); /* the boot CPU hears the PIC */
	assert_int_equal(rdmsr(0, 0x1b, &v), 0);
	assert_int_equal(v, 0xfee00900);
	assert_int_equal(rdmsr(1, 0x1b, &v), 0);
	assert_int_equal(v, 0xfee00800);
	t.current = 1;
	assert_int_equal(rd(0x20), 1u << 24);
	assert_int_equal(rd(0x350), MASKED);
}

static void priorities(void **state)
{
	(void)state;
	self(0x41);
	self(0x55);
	self(0x43);
	assert_int_equal(rd(0x200 + 0x20), 1u << 1 | 1u << 3 | 1u << 21);
	assert_int_equal(lapic_ack(cpu(0)), 0x55);
	assert_int_equal(rd(0xa0), 0x50);
	assert_false(lapic_irq_pending(cpu(0)));
	unsigned kicks = t.cpu[0].kicks;
	self(0x66); /* preempts */
	assert_int_equal(t.cpu[0].kicks, kicks + 1);
	assert_int_equal(lapic_ack(cpu(0)), 0x66);
	wr(0xb0, 0);
	assert_int_equal(lapic_ack(cpu(0)), -1);
	wr(0xb0, 0);
	assert_int_equal(lapic_ack(cpu(0)), 0x43);
	wr(0xb0, 0);
	assert_int_equal(lapic_ack(cpu(0)), 0x41);
	wr(0xb0, 0);
	wr(0xb0, 0); /* one too many */
	assert_int_equal(rd(0x120), 0);
}

static void task_priority(void **state)
{
	(void)state;
	wr(0x80, 0x65);
	assert_int_equal(lapic_cr8_read(cpu(0)), 6);
	assert_int_equal(rd(0xa0), 0x65);
	self(0x6f);
	assert_false(lapic_irq_pending(cpu(0)));
	lapic_cr8_write(cpu(0), 5);
	assert_int_equal(rd(0x80), 0x50);
	assert_true(lapic_irq_pending(cpu(0)));
	lapic_cr8_write(cpu(0), 0xff);
	assert_int_equal(rd(0x80), 0xf0);
	assert_int_equal(lapic_ack(cpu(0)), -1);
}

static void ipis(void **state)
{
	(void)state;
	wr(0x310, 1u << 24);
	wr(0x300, 0x4031);
	assert_int_equal(lapic_ack(cpu(1)), 0x31);
	assert_int_equal(rd(0x300), 0x4031); /* never busy */
	wr(0x300, 0xc0041);                  /* all but self */
	assert_int_equal(lapic_ack(cpu(0)), -1);
	assert_int_equal(lapic_ack(cpu(1)), 0x41);
	wr(0x300, 0x80051); /* all */
	assert_int_equal(lapic_ack(cpu(0)), 0x51);
	assert_int_equal(lapic_ack(cpu(1)), 0x51);
	wr(0x310, 0xffu << 24);
	wr(0x300, 0x61); /* broadcast */
	assert_int_equal(lapic_ack(cpu(0)), 0x61);
	assert_int_equal(lapic_ack(cpu(1)), 0x61);
	wr(0x310, 2u << 24);
	wr(0x300, 0x871); /* logical, flat */
	assert_int_equal(lapic_ack(cpu(0)), -1);
	assert_int_equal(lapic_ack(cpu(1)), 0x71);
	wr(0x310, 7u << 24);
	wr(0x300, 0x81); /* nobody */
	assert_int_equal(lapic_ack(cpu(0)), -1);
	assert_int_equal(lapic_ack(cpu(1)), -1);
}

static void cluster_model(void **state)
{
	(void)state;
	for (t.current = 0; t.current < 2; t.current++) {
		wr(0xe0, 0); /* cluster */
		assert_int_equal(rd(0xe0), 0x0fffffff);
		wr(0xd0, t.current ? 0x21000000 : 0x11000000);
	}
	t.current = 0;
	wr(0x310, 0x21000000);
	wr(0x300, 0x831);
	assert_int_equal(lapic_ack(cpu(0)), -1);
	assert_int_equal(lapic_ack(cpu(1)), 0x31);
	wr(0x310, 0x12000000);
	wr(0x300, 0x841);
	assert_int_equal(lapic_ack(cpu(0)), -1);
}

static void start_up(void **state)
{
	(void)state;
	wr(0x310, 1u << 24);
	wr(0x300, 0xc500); /* INIT, assert */
	wr(0x300, 0x8500); /* INIT, de-assert: nothing */
	wr(0x300, 0x0608);
	wr(0x300, 0x0608);
	assert_int_equal(t.cpu[1].inits, 1);
	assert_int_equal(t.cpu[1].sipis, 2);
	assert_int_equal(t.cpu[1].sipi_vector, 8);
	wr(0x300, 0x400);
	assert_int_equal(t.cpu[1].nmis, 1);
	wr(0x300, 0x80500); /* INIT to all including self is not possible */
	assert_int_equal(t.cpu[0].inits, 0);
	wr(0x300, 0xc0500);
	assert_int_equal(t.cpu[1].inits, 2);
	t.current = 1;
	wr(0x80, 0x20);
	lapic_init(cpu(1));
	assert_int_equal(rd(0x80), 0);
	assert_int_equal(rd(0xf0), 0xff);
}

static void errors(void **state)
{
	(void)state;
	wr(0x370, 0xfe);
	self(5); /* illegal vector */
	assert_int_equal(rd(0x280), 0);
	wr(0x280, 0);
	assert_int_equal(rd(0x280), 0x20);
	assert_int_equal(lapic_ack(cpu(0)), 0xfe);
	wr(0xb0, 0);
	wr(0x280, 0);
	rd(0x3d0); /* no such register */
	wr(0x280, 0);
	assert_int_equal(rd(0x280), 0x80);
	wr(0x370, 0x05); /* an error entry that is an error */
	self(5);
	wr(0x280, 0);
	assert_int_equal(rd(0x280), 0x60);
}

static void software_disable(void **state)
{
	(void)state;
	wr(0x320, 0x40);
	self(0x33);
	wr(0xf0, 0xff);
	assert_int_equal(rd(0x320), 0x10040);
	wr(0x320, 0x40);
	assert_int_equal(rd(0x320), 0x10040); /* cannot be unmasked now */
	wr(0x310, 0);
	wr(0x300, 0x44);
	assert_int_equal(lapic_ack(cpu(0)), 0x33); /* what was there before is still delivered */
	wr(0xb0, 0);
	assert_int_equal(lapic_ack(cpu(0)), -1);
}

static void timer_one_shot(void **state)
{
	(void)state;
	wr(0x3e0, DIVIDE_1);
	wr(0x320, 0x40);
	wr(0x380, 1000000);
	assert_int_equal(t.cpu[0].armed, t.clock.stopped_ns + 1000000);
	test_advance(&t, 400000);
	assert_int_equal(rd(0x390), 600000);
	lapic_timer_poll(cpu(0));
	assert_int_equal(lapic_ack(cpu(0)), -1);
	test_advance(&t, 600000);
	assert_int_equal(rd(0x390), 0);
	lapic_timer_poll(cpu(0));
	assert_int_equal(t.cpu[0].armed, INT64_MAX);
	assert_int_equal(lapic_ack(cpu(0)), 0x40);
	wr(0xb0, 0);
	test_advance(&t, 5000000);
	lapic_timer_poll(cpu(0));
	assert_int_equal(lapic_ack(cpu(0)), -1);
	/* Changing the divisor keeps the count. */
	wr(0x380, 1000);
	test_advance(&t, 500);
	wr(0x3e0, 3); /* 16 */
	assert_int_equal(rd(0x390), 500);
	test_advance(&t, 500 * 16 - 1);
	assert_int_equal(rd(0x390), 1);
	wr(0x380, 0); /* stops it */
	assert_int_equal(t.cpu[0].armed, INT64_MAX);
}

static void timer_periodic(void **state)
{
	int64_t start = t.clock.stopped_ns;

	(void)state;
	wr(0x3e0, DIVIDE_1);
	wr(0x320, 0x40 | PERIODIC);
	wr(0x380, 1000000);
	for (int i = 1; i <= 3; i++) {
		test_advance(&t, 1000000 + 10);
		lapic_timer_poll(cpu(0));
		assert_int_equal(lapic_ack(cpu(0)), 0x40);
		wr(0xb0, 0);
		assert_int_equal(t.cpu[0].armed, start + (i + 1) * 1000000); /* no drift */
	}
	test_advance(&t, 50000000); /* missed ones merge */
	assert_in_range(rd(0x390), 1, 1000000);
	lapic_timer_poll(cpu(0));
	assert_int_equal(lapic_ack(cpu(0)), 0x40);
	wr(0xb0, 0);
	assert_int_equal(lapic_ack(cpu(0)), -1);
	wr(0x320, 0x40 | PERIODIC | MASKED);
	assert_int_equal(t.cpu[0].armed, INT64_MAX);
	test_advance(&t, 10000000);
	wr(0x320, 0x40 | PERIODIC);
	assert_int_equal(lapic_ack(cpu(0)), -1); /* what passed while masked is past */
	wr(0x380, 1);                            /* a storm */
	assert_in_range(t.cpu[0].armed, t.clock.stopped_ns + 10000, INT64_MAX - 1);
}

static void timer_tsc_deadline(void **state)
{
	uint64_t v, tsc;

	(void)state;
	assert_int_equal(wrmsr(0, 0x6e0, 12345), 0); /* wrong mode: ignored */
	assert_int_equal(rdmsr(0, 0x6e0, &v), 0);
	assert_int_equal(v, 0);
	wr(0x320, 0x41 | DEADLINE);
	tsc = (uint64_t)t.clock.stopped_ns * 2;
	assert_int_equal(wrmsr(0, 0x6e0, tsc + 2001), 0);
	assert_int_equal(t.cpu[0].armed, t.clock.stopped_ns + 1001); /* rounded up */
	rdmsr(0, 0x6e0, &v);
	assert_int_equal(v, tsc + 2001);
	test_advance(&t, 1001);
	lapic_timer_poll(cpu(0));
	assert_int_equal(lapic_ack(cpu(0)), 0x41);
	wr(0xb0, 0);
	rdmsr(0, 0x6e0, &v);
	assert_int_equal(v, 0);
	wrmsr(0, 0x6e0, 1); /* long past: at once */
	assert_int_equal(lapic_ack(cpu(0)), 0x41);
	wr(0xb0, 0);
	/* The clock stood while the TSC went on, and the host forgot. */
	wrmsr(0, 0x6e0, (uint64_t)t.clock.stopped_ns * 2 + 4000);
	test_advance(&t, 1000);
	t.cpu[0].armed = INT64_MAX;
	lapic_clock_changed(cpu(0));
	assert_int_equal(t.cpu[0].armed, t.clock.stopped_ns + 1000);
	wrmsr(0, 0x6e0, UINT64_MAX);
	assert_true(t.cpu[0].armed > t.clock.stopped_ns);
	wrmsr(0, 0x6e0, 0);
	assert_int_equal(t.cpu[0].armed, INT64_MAX);
	wrmsr(0, 0x6e0, tsc * 4);
	wr(0x320, 0x41); /* leaving the mode disarms */
	assert_int_equal(t.cpu[0].armed, INT64_MAX);
}

static void base_msr(void **state)
{
	uint64_t v;

	(void)state;
	assert_int_equal(wrmsr(0, 0x1b, 0xfee00400), -1);         /* x2APIC without enable */
	assert_int_equal(wrmsr(0, 0x1b, 0xfee00901), -1);         /* reserved */
	assert_int_equal(wrmsr(0, 0x1b, 0x10000000fee00900), -1); /* beyond the address width */
	wr(0x80, 0x30);
	assert_int_equal(wrmsr(0, 0x1b, 0xfee00100), 0); /* off */
	assert_int_equal(rd(0x80), 0xffffffff);
	assert_int_equal(wrmsr(0, 0x1b, 0xfee00d00), -1); /* off -> x2APIC */
	assert_int_equal(wrmsr(0, 0x1b, 0xfee00900), 0);
	assert_int_equal(rd(0x80), 0); /* its state was lost */
	assert_int_equal(wrmsr(0, 0x1b, 0xfee00d00), 0);
	assert_int_equal(wrmsr(0, 0x1b, 0xfee00900), -1); /* x2APIC -> xAPIC */
	assert_int_equal(rd(0x80), 0xffffffff);
	assert_int_equal(rdmsr(0, 0x802, &v), 0);
	assert_int_equal(wrmsr(0, 0x1b, 0xfee00100), 0);
	assert_int_equal(rdmsr(0, 0x802, &v), -1);
	/* Moved: the page is elsewhere. */
	assert_int_equal(wrmsr(0, 0x1b, 0xfed40900), 0);
	assert_int_equal(rd(0x30), 0xffffffff);
	assert_int_equal(mem_mmio_read(t.b.mem, GPA(0xfed40030), 4), 0x01050014);
	assert_int_equal(wrmsr(0, 0x1b, 0xfed50900), 0);
	assert_int_equal(mem_mmio_read(t.b.mem, GPA(0xfed40030), 4), 0xffffffff);
	assert_int_equal(mem_mmio_read(t.b.mem, GPA(0xfed50030), 4), 0x01050014);
	assert_int_equal(wrmsr(0, 0x1b, 0xfee00900), 0);
	assert_int_equal(mem_mmio_read(t.b.mem, GPA(0xfed50030), 4), 0xffffffff);
	assert_int_equal(rd(0x30), 0x01050014);
	assert_int_equal(rdmsr(0, 0x10, &v), -1);
	assert_int_equal(wrmsr(0, 0x10, 0), -1);
}

/* IPIs by hypercall: bits name APIC IDs, whatever the sender's mode. */
static void pv_ipi(void **state)
{
	const uint64_t all[2] = { ~0ull, ~0ull }, second[2] = { 2, 0 }, none[2] = { 0, 0 },
		       high[2] = { 0, 1 };

	(void)state;
	for (unsigned i = 0; i < t.router->nr_lapics; i++)
		lapic_mmio_write(cpu(i), 0xf0, 0x1ff, 4);
	assert_int_equal(lapic_pv_ipi(cpu(0), none, 64, 0, 0x40), 0);
	assert_int_equal(lapic_pv_ipi(cpu(0), second, 64, 0, 0x40), 1);
	assert_false(lapic_irq_pending(cpu(0)));
	assert_int_equal(lapic_ack(cpu(1)), 0x40);
	assert_int_equal(lapic_pv_ipi(cpu(0), all, 64, 0, 0x41), t.router->nr_lapics);
	assert_int_equal(lapic_ack(cpu(0)), 0x41);
	assert_int_equal(lapic_pv_ipi(cpu(0), high, 32, UINT64_MAX - 30, 0x42), 0);
	assert_int_equal(lapic_pv_ipi(cpu(0), all, 64, 0xffffffff, 0), 0);
	assert_int_equal(lapic_pv_ipi(cpu(0), second, 64, 0, 0x80041), -22); /* a shorthand */
	assert_int_equal(lapic_pv_ipi(cpu(0), second, 64, 0, 0x541), -22);   /* INIT */
}

static void x2apic(void **state)
{
	static const uint16_t gp_read[] = { 0x80b, 0x80e, 0x831, 0x83f, 0x800, 0x840, 0x8ff, 0x809 };
	static const uint16_t gp_write[] = { 0x802, 0x803, 0x80a, 0x80d, 0x80e,
					     0x810, 0x820, 0x831, 0x839, 0x840 };
	uint64_t v;

	(void)state;
	assert_int_equal(rdmsr(0, 0x802, &v), -1); /* not in this mode */
	for (unsigned i = 0; i < 2; i++) {
		rdmsr(i, 0x1b, &v);
		assert_int_equal(wrmsr(i, 0x1b, v | BASE_X2), 0);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(gp_read); i++)
		assert_int_equal(rdmsr(0, gp_read[i], &v), -1);
	for (unsigned i = 0; i < ARRAY_SIZE(gp_write); i++)
		assert_int_equal(wrmsr(0, gp_write[i], 0), -1);
	assert_int_equal(wrmsr(0, 0x80b, 1), -1);
	assert_int_equal(wrmsr(0, 0x828, 1), -1);
	assert_int_equal(wrmsr(0, 0x808, 0x100), -1);
	assert_int_equal(wrmsr(0, 0x808, 1ull << 32), -1);
	rdmsr(1, 0x802, &v);
	assert_int_equal(v, 1);
	rdmsr(1, 0x80d, &v);
	assert_int_equal(v, 2);
	assert_int_equal(wrmsr(0, 0x830, 1ull << 32 | 0x31), 0);
	assert_int_equal(lapic_ack(cpu(1)), 0x31);
	rdmsr(0, 0x830, &v);
	assert_int_equal(v, 1ull << 32 | 0x31);
	wrmsr(0, 0x830, 3ull << 32 | 0x841); /* logical, both in cluster 0 */
	assert_int_equal(lapic_ack(cpu(0)), 0x41);
	assert_int_equal(lapic_ack(cpu(1)), 0x41);
	wrmsr(0, 0x830, 0x10003ull << 32 | 0x851); /* cluster 1 */
	assert_int_equal(lapic_ack(cpu(1)), -1);
	wrmsr(0, 0x830, 0xffffffffull << 32 | 0x61);
	assert_int_equal(lapic_ack(cpu(0)), 0x61);
	assert_int_equal(lapic_ack(cpu(1)), 0x61);
	wrmsr(0, 0x830, 0xffull << 32 | 0x71); /* no broadcast in this mode */
	assert_int_equal(lapic_ack(cpu(1)), -1);
	assert_int_equal(wrmsr(0, 0x83f, 0x81), 0);
	assert_int_equal(lapic_ack(cpu(0)), 0x81);
	assert_int_equal(wrmsr(0, 0x80b, 0), 0);
	msi_send(t.router, 0xfee01000, 0x91); /* 8-bit destinations still work */
	assert_int_equal(lapic_ack(cpu(1)), 0x91);
	wrmsr(0, 0x838, 1000);
	rdmsr(0, 0x839, &v);
	assert_int_equal(v, 1000);
	test_round_trip(&t);
	assert_int_equal(rdmsr(0, 0x802, &v), 0);
}

static void virtual_wire(void **state)
{
	(void)state;
	board_reset(&t.b); /* as firmware-less kernels find it: software-disabled, LINT0 open */
	test_pic_init(&t, 0, 0);
	irq_router_set_isa(t.router, 0, true);
	assert_true(lapic_irq_pending(cpu(0)));
	assert_false(lapic_irq_pending(cpu(1)));
	assert_int_equal(lapic_ack(cpu(0)), 0x20);
	test_out(&t, 0x20, 0x20, 1);
	irq_router_set_isa(t.router, 0, false);
	/* ExtINT does not care for the task priority. */
	wr(0xf0, 0x1ff);
	wr(0x80, 0xff);
	irq_router_set_isa(t.router, 0, true);
	assert_int_equal(lapic_ack(cpu(0)), 0x20);
	test_out(&t, 0x20, 0x20, 1);
	irq_router_set_isa(t.router, 0, false);
	wr(0x350, 0x10700);
	irq_router_set_isa(t.router, 0, true);
	assert_false(lapic_irq_pending(cpu(0)));
	wr(0x350, 0x700);
	assert_true(lapic_irq_pending(cpu(0)));
	/* Globally disabled, LINT0 is INTR. */
	wr(0x350, 0x10700);
	assert_int_equal(wrmsr(0, 0x1b, 0xfee00100), 0);
	assert_int_equal(lapic_ack(cpu(0)), 0x20);
}

/* The fallback of Linux' check_timer: LINT0 as an edge of a fixed vector while the PIC sees no INTA. */
static void lint0_fixed(void **state)
{
	(void)state;
	test_pic_init(&t, 0, 0);
	wr(0x80, 0);
	wr(0x350, 0x30);
	irq_router_set_isa(t.router, 0, true);
	assert_int_equal(lapic_ack(cpu(0)), 0x30);
	assert_int_equal(lapic_ack(cpu(0)), -1);
	wr(0xb0, 0);
	test_out(&t, 0x20, 0x0c, 1);
	assert_int_equal(test_in(&t, 0x20, 1), 0x80);
	test_out(&t, 0x20, 0x60, 1);
	irq_router_set_isa(t.router, 0, false);
	irq_router_set_isa(t.router, 0, true);
	assert_int_equal(lapic_ack(cpu(0)), 0x30);
}

static void nmi_line(void **state)
{
	(void)state;
	irq_router_nmi(t.router);
	assert_int_equal(t.cpu[0].nmis, 0);
	wr(0x360, 0x400);
	irq_router_nmi(t.router);
	assert_int_equal(t.cpu[0].nmis, 1);
	assert_int_equal(t.cpu[1].nmis, 0);
	wr(0x340, 0x400);
	lapic_raise_perf(cpu(0));
	assert_int_equal(t.cpu[0].nmis, 2);
	lapic_raise_perf(cpu(0)); /* masked itself */
	assert_int_equal(t.cpu[0].nmis, 2);
	wr(0x330, 0x99);
	lapic_raise_thermal(cpu(0));
	assert_int_equal(lapic_ack(cpu(0)), 0x99);
}

static void odd_accesses(void **state)
{
	(void)state;
	for (unsigned o = 0; o < 0x1000; o++)
		for (unsigned s = 1; s <= 8; s *= 2) {
			mem_mmio_read(t.b.mem, GPA(LAPIC_BASE + o), s);
			if (o != 0xf0)
				mem_mmio_write(t.b.mem, GPA(LAPIC_BASE + o), 0x12345678u * o, s);
			lapic_ack(cpu(0));
			lapic_timer_poll(cpu(0));
			test_advance(&t, 12345);
		}
	for (uint32_t m = 0x7ff; m < 0x901; m++) {
		uint64_t v;

		wrmsr(0, m, m * 0x123456789ull);
		rdmsr(0, m, &v);
	}
	test_round_trip(&t);
}

/* What is peeked at is what is read; the rest, and pages that are not there, are refused. */
static void peeks(void **state)
{
	uint64_t page = lapic_page(cpu(0));
	unsigned seen = 0;

	(void)state;
	wr(0x80, 0x21);
	wr(0x310, 0x02000000);
	for (unsigned reg = 0; reg < 0x400; reg += 16) {
		uint32_t v = ~rd(reg);

		if (!lapic_peek(cpu(0), page + reg, &v))
			continue;
		assert_int_equal(v, rd(reg));
		assert_false(lapic_peek(cpu(0), page + reg + 4, &v));
		assert_false(lapic_peek(cpu(0), page + reg + PAGE_SIZE, &v));
		seen++;
	}
	assert_true(seen >= 5);
	assert_int_equal(wrmsr(0, 0x1b, page | BASE_X2 | 0x100), 0);
	assert_false(lapic_peek(cpu(0), page + 0x20, &(uint32_t){ 0 }));
}

static void refuses_impossible_state(void **state)
{
	struct device *d = (struct device *)cpu(0);
	struct state_buf a = { 0 };
	struct error err;

	(void)state;
	assert_int_equal(state_save(&a, d->cls->state, 0, d), 0);
	a.data[1 + 5 + 12 + 1] |= 4; /* EXTD */
	a.data[1 + 5 + 12 + 1] &= ~8;
	assert_int_not_equal(state_load(&a, d->cls->state, 0, d, &err), 0);
	assert_int_equal(rd(0x30), 0x01050014);
	state_buf_free(&a);
}

static void *raise_many(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 50000; i++)
		msi_send(t.router, 0xfee00000, 0x40 + (i & 0x7f));
	return NULL;
}

/* Nothing that is raised stays unseen: at the end, what is in IRR is pending. */
static void threads(void **state)
{
	pthread_t th[2];
	unsigned taken = 0;

	(void)state;
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&th[i], NULL, raise_many, NULL), 0);
	for (unsigned i = 0; i < 20000; i++)
		if (lapic_ack(cpu(0)) >= 0) {
			taken++;
			wr(0xb0, 0);
		}
	for (unsigned i = 0; i < 2; i++)
		pthread_join(th[i], NULL);
	while (lapic_irq_pending(cpu(0))) {
		assert_true(lapic_ack(cpu(0)) >= 0x40);
		wr(0xb0, 0);
		taken++;
	}
	assert_in_range(taken, 1, 100000);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(rd(0x200 + 0x10 * i), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(reset_values),     T(priorities),     T(task_priority),  T(ipis),
		T(cluster_model),    T(start_up),       T(pv_ipi),         T(errors),
		T(software_disable), T(timer_one_shot), T(timer_periodic), T(timer_tsc_deadline),
		T(base_msr),         T(x2apic),         T(virtual_wire),   T(lint0_fixed),
		T(nmi_line),         T(odd_accesses),   T(peeks),          T(refuses_impossible_state),
		T(threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
