/* SPDX-License-Identifier: Apache-2.0 */
/* The PCI transport as a driver sees it: through configuration space and MMIO only. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "dev/irq/irq.h"
#include "dev/virtio/test_driver.h"
#include "dev/virtio/virtio_pci.h"
#include "dev/virtio/virtio_rng.h"

#define SLOT  PCI_DEVFN(5, 0)
#define REGS  0xe0000000ull
#define MSIX  0xe0010000ull
#define MSG   (TD_DATA + 0x8000) /* where the test has MSI messages land */
#define MAGIC 0xc0dec0deu

struct fixture {
	struct test_driver t;
	struct irq_router *router;
	struct pci_bus *bus;
	struct virtio_device *v;
	unsigned msix_cap, cfg_cap;
	uint64_t common, isr, device, notify; /* addresses */
};

static uint32_t cfg_read(struct fixture *f, unsigned offset, unsigned size)
{
	return pci_bus_config_read(f->bus, SLOT, offset, size);
}

static void cfg_write(struct fixture *f, unsigned offset, uint32_t value, unsigned size)
{
	pci_bus_config_write(f->bus, SLOT, offset, value, size);
}

/* As a vCPU: without the I/O lock. */
static uint64_t rd(struct fixture *f, uint64_t gpa, unsigned size)
{
	uint64_t v;

	mutex_unlock(&f->t.lock);
	v = mem_mmio_read(f->t.mem, GPA(gpa), size);
	mutex_lock(&f->t.lock);
	return v;
}

static void wr(struct fixture *f, uint64_t gpa, uint64_t value, unsigned size)
{
	mutex_unlock(&f->t.lock);
	mem_mmio_write(f->t.mem, GPA(gpa), value, size);
	mutex_lock(&f->t.lock);
}

static void find_caps(struct fixture *f)
{
	unsigned n = 0;

	for (unsigned p = cfg_read(f, PCI_CAP_PTR, 1); p; p = cfg_read(f, p + 1, 1)) {
		unsigned id = cfg_read(f, p, 1), type = cfg_read(f, p + 3, 1);

		assert_true(++n < 20);
		if (id == PCI_CAP_ID_MSIX)
			f->msix_cap = p;
		if (id != PCI_CAP_ID_VNDR)
			continue;
		if (type == 1)
			f->common = REGS + cfg_read(f, p + 8, 4);
		else if (type == 2)
			f->notify = REGS + cfg_read(f, p + 8, 4);
		else if (type == 3)
			f->isr = REGS + cfg_read(f, p + 8, 4);
		else if (type == 4)
			f->device = REGS + cfg_read(f, p + 8, 4);
		else if (type == 5)
			f->cfg_cap = p;
		if (type == 2)
			assert_int_equal(cfg_read(f, p + 16, 4), 4); /* notify_off_multiplier */
	}
}

static void assign(struct fixture *f)
{
	cfg_write(f, PCI_BAR0, REGS, 4);
	cfg_write(f, PCI_BAR0 + 4, MSIX, 4);
	cfg_write(f, PCI_COMMAND, PCI_COMMAND_MEM | PCI_COMMAND_MASTER, 2);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	td_init(&f->t);
	assert_int_equal(irq_router_new(&f->t.board, &f->router, NULL), 0);
	assert_int_equal(pci_bus_new(&f->t.board, f->router, &f->bus, NULL), 0);
	assert_int_equal(virtio_rng_new(&f->t.board, 0, &f->v, NULL), 0);
	assert_int_equal(virtio_pci_new(f->bus, SLOT, f->v, VIRTIO_RNG_PCI_CLASS, 0, NULL), 0);
	board_reset(&f->t.board);
	find_caps(f);
	assign(f);
	f->t.v = f->v;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	td_fini(&f->t);
	free(f);
	return 0;
}

/* Up to DRIVER_OK by registers alone; rings as test_driver.h wants them. */
static void start(struct fixture *f, uint16_t config_vector, uint16_t queue_vector)
{
	struct test_driver *t = &f->t;

	wr(f, f->common + 20, 0, 1);
	assert_int_equal(rd(f, f->common + 20, 1), 0);
	wr(f, f->common + 20, 1, 1);
	wr(f, f->common + 20, 3, 1);
	wr(f, f->common, 1, 4);
	assert_int_equal(rd(f, f->common + 4, 4) & 1, 1); /* VERSION_1 */
	wr(f, f->common + 8, 1, 4);
	wr(f, f->common + 12, 1, 4);
	wr(f, f->common + 20, 11, 1);
	assert_int_equal(rd(f, f->common + 20, 1), 11);
	wr(f, f->common + 16, config_vector, 2);
	assert_int_equal(rd(f, f->common + 18, 2), 1);
	wr(f, f->common + 22, 0, 2);
	assert_int_equal(rd(f, f->common + 24, 2), 8);
	wr(f, f->common + 24, 4, 2);
	wr(f, f->common + 26, queue_vector, 2);
	wr(f, f->common + 32, TD_RING(0), 4);
	wr(f, f->common + 36, 0, 4);
	wr(f, f->common + 40, td_avail(0), 8); /* split by the address space */
	wr(f, f->common + 48, td_used(0), 8);
	memset(mem_ram_ptr(t->mem, GPA(TD_RING(0)), 0x10000), 0, 0x10000);
	t->avail_idx[0] = 0;
	t->size = 4;
	wr(f, f->common + 28, 1, 2);
	assert_int_equal(rd(f, f->common + 28, 2), 1);
	wr(f, f->common + 20, 15, 1);
	assert_int_equal(rd(f, f->common + 20, 1), 15);
}

static void offer(struct fixture *f)
{
	td_desc(&f->t, 0, 0, TD_DATA, 64, TD_WRITE, 0);
	td_offer(&f->t, 0, 0);
}

static bool intx(const struct fixture *f)
{
	return f->router->pirq_levels & 1u << pci_pirq(SLOT, 1);
}

static void test_identity(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(cfg_read(f, 0, 4), 0x10441af4);
	assert_true(cfg_read(f, PCI_REVISION_ID, 1) >= 1);
	assert_int_equal(cfg_read(f, PCI_CLASS_PROG, 1) | cfg_read(f, 10, 2) << 8, VIRTIO_RNG_PCI_CLASS);
	assert_int_equal(cfg_read(f, PCI_SUBSYS_VENDOR, 2), 0x1af4);
	assert_true(f->common && f->isr && f->notify && f->msix_cap && f->cfg_cap);
	assert_int_equal(f->device, 0); /* this device has no configuration */
	assert_int_equal(cfg_read(f, f->msix_cap + 2, 2) & 0x7ff, 1);
}

static void test_intx(void **state)
{
	struct fixture *f = *state;

	start(f, VIRTIO_NO_VECTOR, VIRTIO_NO_VECTOR);
	offer(f);
	assert_false(intx(f));
	wr(f, f->notify, 0, 2);
	assert_int_equal(td_used_idx(&f->t, 0), 1);
	assert_true(intx(f));
	assert_int_equal(rd(f, f->isr, 1), 1);
	assert_false(intx(f));
	assert_int_equal(rd(f, f->isr, 1), 0);
	/* Trouble: a configuration interrupt */
	td_offer(&f->t, 0, 77);
	wr(f, f->notify, 0, 2);
	assert_int_equal(rd(f, f->common + 20, 1) & 64, 64);
	assert_int_equal(rd(f, f->isr, 1), 2);
	/* Reset lowers the line. */
	offer(f);
	start(f, VIRTIO_NO_VECTOR, VIRTIO_NO_VECTOR);
	offer(f);
	wr(f, f->notify, 0, 2);
	assert_true(intx(f));
	wr(f, f->common + 20, 0, 1);
	assert_false(intx(f));
	assert_int_equal(rd(f, f->common + 24, 2), 8);
	assert_int_equal(rd(f, f->common + 28, 2), 0);
}

static void test_msix(void **state)
{
	struct fixture *f = *state;
	uint32_t got = 0;

	/* The messages go to RAM, where they can be seen. */
	wr(f, MSIX + 16, MSG, 4);
	wr(f, MSIX + 20, 0, 4);
	wr(f, MSIX + 24, MAGIC, 4);
	wr(f, MSIX + 28, 0, 4);
	wr(f, MSIX, MSG + 4, 4);
	wr(f, MSIX + 8, MAGIC + 1, 4);
	wr(f, MSIX + 12, 0, 4);
	cfg_write(f, f->msix_cap + 2, 0x8000, 2);
	start(f, 0, 1);
	assert_int_equal(rd(f, f->common + 16, 2), 0);
	assert_int_equal(rd(f, f->common + 26, 2), 1);
	offer(f);
	wr(f, f->notify, 0, 2);
	td_get(&f->t, MSG, &got, 4);
	assert_int_equal(got, MAGIC);
	assert_false(intx(f));
	assert_int_equal(rd(f, f->isr, 1), 0);
	td_offer(&f->t, 0, 77);
	wr(f, f->notify, 0, 2);
	td_get(&f->t, MSG + 4, &got, 4);
	assert_int_equal(got, MAGIC + 1);
	/* Vectors that are not there read back as none. */
	wr(f, f->common + 26, 2, 2);
	assert_int_equal(rd(f, f->common + 26, 2), VIRTIO_NO_VECTOR);
	wr(f, f->common + 16, 9, 2);
	assert_int_equal(rd(f, f->common + 16, 2), VIRTIO_NO_VECTOR);
}

static void test_config_window(void **state)
{
	struct fixture *f = *state;

	/* Memory decoding off: firmware does it this way. */
	cfg_write(f, PCI_COMMAND, 0, 2);
	cfg_write(f, f->cfg_cap + 4, 0, 1);
	cfg_write(f, f->cfg_cap + 8, (uint32_t)(f->common - REGS) + 20, 4);
	cfg_write(f, f->cfg_cap + 12, 1, 4);
	cfg_write(f, f->cfg_cap + 16, 3, 1);
	assert_int_equal(f->v->status, 3);
	assert_int_equal(cfg_read(f, f->cfg_cap + 16, 1), 3);
	cfg_write(f, f->cfg_cap + 8, (uint32_t)(f->common - REGS) + 24, 4);
	cfg_write(f, f->cfg_cap + 12, 2, 4);
	assert_int_equal(cfg_read(f, f->cfg_cap + 16, 2), 8);
	/* Windows on nothing: another BAR, beyond the end, odd sizes, unaligned */
	cfg_write(f, f->cfg_cap + 4, 1, 1);
	cfg_write(f, f->cfg_cap + 16, 0, 4);
	cfg_write(f, f->cfg_cap + 4, 0, 1);
	cfg_write(f, f->cfg_cap + 8, 0x4000, 4);
	cfg_write(f, f->cfg_cap + 16, 0, 4);
	cfg_write(f, f->cfg_cap + 8, 0xffffffff, 4);
	cfg_read(f, f->cfg_cap + 16, 4);
	cfg_write(f, f->cfg_cap + 8, 20, 4);
	cfg_write(f, f->cfg_cap + 12, 3, 4);
	cfg_write(f, f->cfg_cap + 16, 0, 4);
	cfg_write(f, f->cfg_cap + 8, 21, 4);
	cfg_write(f, f->cfg_cap + 12, 4, 4);
	cfg_write(f, f->cfg_cap + 16, 0, 4);
	assert_int_equal(f->v->status, 3);
}

/* Bus mastering off: the queues rest. */
static void test_bus_master(void **state)
{
	struct fixture *f = *state;

	start(f, VIRTIO_NO_VECTOR, VIRTIO_NO_VECTOR);
	cfg_write(f, PCI_COMMAND, PCI_COMMAND_MEM, 2);
	offer(f);
	wr(f, f->notify, 0, 2);
	assert_int_equal(td_used_idx(&f->t, 0), 0);
	cfg_write(f, PCI_COMMAND, PCI_COMMAND_MEM | PCI_COMMAND_MASTER, 2);
	td_run(&f->t, 2);
	assert_int_equal(td_used_idx(&f->t, 0), 1);
}

static void test_save_load(void **state)
{
	struct fixture *f = *state;
	struct state_buf b = { 0 };
	struct error err = { "" };

	start(f, VIRTIO_NO_VECTOR, VIRTIO_NO_VECTOR);
	offer(f);
	wr(f, f->notify, 0, 2);
	offer(f);
	for (struct device *d = f->t.board.devices; d; d = d->next)
		if (d->cls->state)
			assert_int_equal(state_save(&b, d->cls->state, d->instance, d), 0);
	board_reset(&f->t.board);
	assert_false(intx(f));
	assert_int_equal(rd(f, f->common + 20, 1), 0xff); /* the BAR is gone */
	for (struct device *d = f->t.board.devices; d; d = d->next)
		if (d->cls->state && state_load(&b, d->cls->state, d->instance, d, &err))
			fail_msg("%s", err.message);
	assert_int_equal(rd(f, f->common + 20, 1), 15);
	assert_int_equal(rd(f, f->isr, 1), 1);
	td_run(&f->t, 5);
	assert_int_equal(td_used_idx(&f->t, 0), 2);
	state_buf_free(&b);
}

/* Every register, every width, any value: nothing but answers. */
static void test_hostile(void **state)
{
	struct fixture *f = *state;
	uint64_t x = 88172645463325252ull;

	for (unsigned i = 0; i < 200000; i++) {
		unsigned size, offset;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		size = 1u << (x & 3);
		offset = (unsigned)(x >> 8) & 0x3f;
		if (x >> 60 == 0)
			offset = (unsigned)(x >> 8) & 0x3fff;
		offset &= ~(size - 1);
		if (x & 0x10)
			wr(f, REGS + offset, x & 0x20 ? x >> 32 & 0xf : x >> 24, size);
		else
			rd(f, REGS + offset, size);
	}
	assign(f);
	start(f, VIRTIO_NO_VECTOR, VIRTIO_NO_VECTOR);
	offer(f);
	wr(f, f->notify, 0, 2);
	assert_int_equal(td_used_idx(&f->t, 0), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_identity, setup, teardown),
		cmocka_unit_test_setup_teardown(test_intx, setup, teardown),
		cmocka_unit_test_setup_teardown(test_msix, setup, teardown),
		cmocka_unit_test_setup_teardown(test_config_window, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bus_master, setup, teardown),
		cmocka_unit_test_setup_teardown(test_save_load, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
