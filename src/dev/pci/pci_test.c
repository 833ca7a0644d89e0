/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "dev/pc/acpi_pm.h"
#include "dev/pci/pci.h"
#include "dev/test_board.h"

struct foo {
	struct pci_device pci;
	struct io_region regs, io;
	uint32_t x;
	unsigned written;
};

static struct test_board t;
static struct pci_bus *bus;
static struct foo *foo, *bar;

static uint64_t regs_read(void *opaque, uint64_t offset, unsigned size)
{
	(void)size;
	return ((struct foo *)opaque)->x + offset;
}

static void regs_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	(void)size;
	if (!offset)
		((struct foo *)opaque)->x = value;
}

static void foo_reset(struct device *d)
{
	struct foo *f = (struct foo *)d;

	pci_device_reset(&f->pci);
	f->x = 0;
}

static int foo_loaded(void *obj, struct error *err)
{
	return pci_device_loaded(&((struct foo *)obj)->pci, err);
}

static void foo_free(struct device *d)
{
	pci_device_fini((struct pci_device *)d);
	free(d);
}

static const struct state_field foo_fields[] = { PCI_DEVICE_FIELDS(struct foo, pci), F_U32(struct foo, x),
						 F_END };
static const struct state_table foo_state = { "foo", 1, foo_fields, foo_loaded };
static const struct device_class foo_class = { "foo", foo_reset, &foo_state, foo_free };

static void config_written(struct pci_device *d, unsigned offset, unsigned len)
{
	(void)offset;
	(void)len;
	((struct foo *)d)->written++;
}

static struct foo *foo_new(uint32_t instance)
{
	static const struct pci_ids ids = {
		.vendor = 0x1af4, .device = 0x1042, .class_code = 0x010000, .subsys = 2, .intx_pin = 1
	};
	struct foo *f = calloc(1, sizeof(*f));

	assert_int_equal(pci_device_init(&f->pci, bus, PCI_DEVFN_ANY, &ids, &foo_class, instance, NULL), 0);
	f->regs = (struct io_region){ .name = "foo", .read = regs_read, .write = regs_write, .opaque = f };
	f->io = f->regs;
	assert_int_equal(pci_add_bar(&f->pci, 0, PCI_BAR_IO, 64, &f->io), 0);
	assert_int_equal(pci_msix_init(&f->pci, 3, 1), 0);
	assert_int_equal(pci_add_bar(&f->pci, 4, PCI_BAR_MEM64_PREFETCH, 0x4000, &f->regs), 0);
	f->pci.config_written = config_written;
	return f;
}

static int setup(void **state)
{
	(void)state;
	test_board_init(&t);
	for (t.current = 0; t.current < TEST_CPUS; t.current++)
		test_lapic_write(&t, 0xf0, 0x1ff);
	t.current = 0;
	struct acpi_pm *pm;
	assert_int_equal(acpi_pm_new(&t.b, (struct irq_line){ 0 }, &pm, NULL), 0);
	assert_int_equal(pci_bus_new(&t.b, t.router, &bus, NULL), 0);
	assert_int_equal(i440fx_new(bus, t.b.mem, NULL, NULL), 0);
	assert_int_equal(piix3_new(bus, NULL), 0);
	assert_int_equal(piix4_pm_new(bus, pm, false, NULL), 0);
	foo = foo_new(0);
	bar = foo_new(1);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	test_board_fini(&t);
	return 0;
}

static void select_config(uint8_t devfn, unsigned offset)
{
	test_out(&t, 0xcf8, 0x80000000u | devfn << 8 | (offset & 0xfc), 4);
}

static uint32_t cr(uint8_t devfn, unsigned offset, unsigned size)
{
	select_config(devfn, offset);
	return test_in(&t, 0xcfc + (offset & 3), size);
}

static void cw(uint8_t devfn, unsigned offset, uint32_t v, unsigned size)
{
	select_config(devfn, offset);
	test_out(&t, 0xcfc + (offset & 3), v, size);
}

#define FOO PCI_DEVFN(3, 0)

static void finds_devices(void **state)
{
	(void)state;
	/* Linux' check for mechanism #1 */
	test_out(&t, 0xcfb, 1, 1);
	test_out(&t, 0xcf8, 0x80000000, 4);
	assert_int_equal(test_in(&t, 0xcf8, 4), 0x80000000);
	assert_int_equal(test_in(&t, 0xcfc, 4), 0x12378086);
	assert_int_equal(cr(PCI_DEVFN(1, 0), 0, 4), 0x70008086);
	assert_int_equal(cr(PCI_DEVFN(1, 0), 0x0e, 1), 0x80);
	assert_int_equal(cr(PCI_DEVFN(1, 3), 0, 4), 0x71138086);
	assert_int_equal(cr(PCI_DEVFN(1, 3), 0x40, 4), 0x601);
	assert_int_equal(cr(FOO, 0, 2), 0x1af4);
	assert_int_equal(cr(FOO, 2, 2), 0x1042);
	assert_int_equal(cr(FOO, 0x0b, 1), 1);
	assert_int_equal(cr(FOO, 0x2e, 2), 2);
	assert_int_equal(cr(PCI_DEVFN(5, 0), 0, 4), 0xffffffff);
	assert_int_equal(cr(PCI_DEVFN(3, 1), 0, 4), 0xffffffff);
	test_out(&t, 0xcf8, 0x80010000, 4); /* bus 1 */
	assert_int_equal(test_in(&t, 0xcfc, 4), 0xffffffff);
	test_out(&t, 0xcf8, 0x00000000, 4); /* not enabled */
	assert_int_equal(test_in(&t, 0xcfc, 4), 0xffffffff);
	cw(FOO, 0, 0, 4); /* read-only */
	assert_int_equal(cr(FOO, 0, 4), 0x10421af4);
}

static void capabilities(void **state)
{
	(void)state;
	assert_int_equal(cr(FOO, 6, 2) & 0x10, 0x10);
	unsigned c = cr(FOO, 0x34, 1);
	assert_int_equal(cr(FOO, c, 1), 0x11);
	assert_int_equal(cr(FOO, c + 2, 2), 2);
	assert_int_equal(cr(FOO, c + 4, 4), 1);
	assert_int_equal(cr(FOO, c + 8, 4), 0x801);
	int v = pci_add_cap(&foo->pci, PCI_CAP_ID_VNDR, 20);
	assert_true(v > 0);
	assert_int_equal(cr(FOO, c + 1, 1), v);
	assert_int_equal(cr(FOO, v + 1, 1), 0);
	while ((v = pci_add_cap(&foo->pci, PCI_CAP_ID_VNDR, 13)) > 0)
		assert_true(v + 13 <= 256);
	assert_int_equal(v, -ENOSPC);
}

static void bars(void **state)
{
	uint64_t a;

	(void)state;
	cw(FOO, 0x10, 0xffffffff, 4);
	assert_int_equal(cr(FOO, 0x10, 4), 0xffffffc1);
	cw(FOO, 0x20, 0xffffffff, 4);
	cw(FOO, 0x24, 0xffffffff, 4);
	assert_int_equal(cr(FOO, 0x20, 4), 0xffffc00c);
	assert_int_equal(cr(FOO, 0x24, 4), 0xffffffff);
	assert_int_equal(cr(FOO, 0x18, 4), 0);
	cw(FOO, 0x10, 0xc000, 4);
	cw(FOO, 0x20, 0xe0000000, 4);
	cw(FOO, 0x24, 0, 4);
	assert_int_equal(test_in(&t, 0xc000, 1), 0xff);
	assert_false(pci_bar_mapped(&foo->pci, 0, &a));
	cw(FOO, 4, 3, 2);
	foo->x = 0x100;
	assert_int_equal(test_in(&t, 0xc004, 4), 0x104);
	assert_int_equal(mem_mmio_read(t.b.mem, GPA(0xe0000008), 4), 0x108);
	assert_true(pci_bar_mapped(&foo->pci, 4, &a));
	assert_int_equal(a, 0xe0000000);
	cw(FOO, 0x24, 1, 4); /* above 4 GiB */
	assert_int_equal(mem_mmio_read(t.b.mem, GPA(0xe0000008), 4), 0xffffffff);
	assert_int_equal(mem_mmio_read(t.b.mem, GPA(0x1e0000008ull), 4), 0x108);
	cw(FOO, 4, 1, 2);
	assert_int_equal(mem_mmio_read(t.b.mem, GPA(0x1e0000008ull), 4), 0xffffffff);
	cw(FOO, 0x11, 0xd0, 1); /* byte by byte */
	assert_int_equal(test_in(&t, 0xd004, 4), 0x104);
	/* Sizing with decoding on: nothing jumps to the top of memory. */
	cw(FOO, 4, 3, 2);
	cw(FOO, 0x10, 0xffffffff, 4);
	assert_false(pci_bar_mapped(&foo->pci, 0, &a));
	board_reset(&t.b);
	assert_int_equal(cr(FOO, 4, 2), 0);
	assert_int_equal(cr(FOO, 0x10, 4), 1);
}

static void bad_bars(void **state)
{
	struct io_region r = { 0 };

	(void)state;
	assert_int_equal(pci_add_bar(&foo->pci, 0, PCI_BAR_IO, 64, &r), -EINVAL);
	assert_int_equal(pci_add_bar(&foo->pci, 5, PCI_BAR_MEM32, 64, &r), -EINVAL); /* upper half of 4 */
	assert_int_equal(pci_add_bar(&foo->pci, 2, PCI_BAR_MEM32, 65, &r), -EINVAL);
	assert_int_equal(pci_add_bar(&foo->pci, 2, PCI_BAR_MEM32, 8, &r), -EINVAL);
	assert_int_equal(pci_add_bar(&foo->pci, 2, PCI_BAR_IO, 512, &r), -EINVAL);
	assert_int_equal(pci_add_bar(&foo->pci, 3, PCI_BAR_MEM64, 4096, &r), -EINVAL);
	assert_int_equal(pci_add_bar(&foo->pci, 6, PCI_BAR_MEM32, 4096, &r), -EINVAL);
	assert_int_equal(pci_msix_init(&bar->pci, 1, 2), -EINVAL);
}

static void assigns_resources(void **state)
{
	uint64_t a[2][3];

	(void)state;
	board_reset(&t.b);
	assert_int_equal(pci_assign_resources(bus, NULL), 0);
	for (unsigned i = 0; i < 2; i++) {
		struct foo *f = i ? bar : foo;

		assert_true(pci_bar_mapped(&f->pci, 0, &a[i][0]));
		assert_true(pci_bar_mapped(&f->pci, 1, &a[i][1]));
		assert_true(pci_bar_mapped(&f->pci, 4, &a[i][2]));
		assert_in_range(a[i][0], 0xc000, 0xffff);
		assert_in_range(a[i][1], 0xc0000000, 0xfebfffff);
		assert_int_equal(a[i][2] & 0x3fff, 0);
	}
	assert_int_not_equal(a[0][0], a[1][0]);
	assert_int_equal(cr(FOO, 4, 2), 3);
	assert_int_equal(cr(FOO, 0x3c, 2), 0x010b); /* (3 + 0) & 3 = line 3: IRQ 11 */
	assert_int_equal(cr(PCI_DEVFN(4, 0), 0x3c, 2), 0x010a);
	assert_int_equal(cr(PCI_DEVFN(1, 0), 0x60, 4), 0x0b0a0b0a);
	assert_int_equal(test_in(&t, 0x4d1, 1), 0x0c);
}

static void intx(void **state)
{
	(void)state;
	assert_int_equal(pci_assign_resources(bus, NULL), 0);
	test_rte(&t, 19, 0x8050, 0);
	pci_intx_set(&foo->pci, true);
	assert_int_equal(cr(FOO, 6, 2) & 8, 8);
	assert_int_equal(lapic_ack(t.cpu[0].lapic), 0x50);
	cw(FOO, 4, 0x403, 2); /* INTx off */
	test_lapic_write(&t, 0xb0, 0);
	assert_int_equal(lapic_ack(t.cpu[0].lapic), -1);
	assert_int_equal(cr(FOO, 6, 2) & 8, 8);
	cw(FOO, 4, 3, 2);
	assert_int_equal(lapic_ack(t.cpu[0].lapic), 0x50);
	/* Slots 3 and 7 share the line: both must let go. */
	struct foo *other[3] = { foo_new(2), foo_new(3), foo_new(4) };
	pci_intx_set(&other[2]->pci, true);
	pci_intx_set(&foo->pci, false);
	test_lapic_write(&t, 0xb0, 0);
	assert_int_equal(lapic_ack(t.cpu[0].lapic), 0x50);
	pci_intx_set(&other[2]->pci, false);
	test_lapic_write(&t, 0xb0, 0);
	assert_int_equal(lapic_ack(t.cpu[0].lapic), -1);
	/* By the PIC, as IRQ 11. */
	test_pic_init(&t, 0, 0);
	test_lapic_write(&t, 0x350, 0x700);
	pci_intx_set(&foo->pci, true);
	assert_int_equal(lapic_ack(t.cpu[0].lapic), 0x2b);
	board_reset(&t.b);
	assert_false(lapic_irq_pending(t.cpu[0].lapic));
}

static void msix(void **state)
{
	uint64_t page;

	(void)state;
	assert_int_equal(pci_assign_resources(bus, NULL), 0);
	unsigned c = cr(FOO, 0x34, 1);
	pci_bar_mapped(&foo->pci, 1, &page);
	assert_int_equal(mem_mmio_read(t.b.mem, GPA(page + 12), 4), 1); /* masked after reset */
	pci_msix_notify(&foo->pci, 0);
	assert_false(pci_msix_enabled(&foo->pci));
	cw(FOO, c + 2, 0xc000, 2); /* on, all masked */
	cw(FOO, 4, 7, 2);
	assert_int_equal(cr(FOO, c + 2, 2), 0xc002);
	for (unsigned v = 0; v < 3; v++) {
		mem_mmio_write(t.b.mem, GPA(page + 16 * v), 0xfee01000, 8);
		mem_mmio_write(t.b.mem, GPA(page + 16 * v + 8), 0x4050 + 16 * v, 8);
	}
	pci_msix_notify(&foo->pci, 1);
	assert_int_equal(lapic_ack(t.cpu[1].lapic), -1);
	assert_int_equal(mem_mmio_read(t.b.mem, GPA(page + 0x800), 8), 2);
	cw(FOO, c + 2, 0x8000, 2);
	assert_int_equal(lapic_ack(t.cpu[1].lapic), 0x60);
	assert_int_equal(mem_mmio_read(t.b.mem, GPA(page + 0x800), 4), 0);
	mem_mmio_write(t.b.mem, GPA(page + 2 * 16 + 12), 0xffffffff, 4);
	assert_int_equal(mem_mmio_read(t.b.mem, GPA(page + 2 * 16 + 12), 4), 1);
	pci_msix_notify(&foo->pci, 2);
	pci_msix_notify(&foo->pci, 3); /* no such vector */
	pci_msix_notify(&foo->pci, 1000);
	assert_int_equal(lapic_ack(t.cpu[1].lapic), -1);
	mem_mmio_write(t.b.mem, GPA(page + 2 * 16 + 12), 0, 4);
	assert_int_equal(lapic_ack(t.cpu[1].lapic), 0x70);
	/* Without bus mastering a message waits. */
	t.current = 1;
	test_lapic_write(&t, 0xb0, 0);
	test_lapic_write(&t, 0xb0, 0);
	cw(FOO, 4, 3, 2);
	pci_msix_notify(&foo->pci, 0);
	assert_int_equal(lapic_ack(t.cpu[1].lapic), -1);
	cw(FOO, 4, 7, 2);
	assert_int_equal(lapic_ack(t.cpu[1].lapic), 0x50);
	/* A message to RAM is a write there. */
	mem_mmio_write(t.b.mem, GPA(page), 0x3000, 8);
	pci_msix_notify(&foo->pci, 0);
	uint32_t v;
	mem_read(t.b.mem, GPA(0x3000), &v, 4);
	assert_int_equal(v, 0x4050);
	mem_mmio_write(t.b.mem, GPA(page), UINT64_MAX, 8);
	pci_msix_notify(&foo->pci, 0);
	mem_mmio_write(t.b.mem, GPA(page + 0x800), UINT64_MAX, 8); /* read-only */
	mem_mmio_write(t.b.mem, GPA(page + 48), UINT64_MAX, 8);    /* past the table */
	assert_int_equal(mem_mmio_read(t.b.mem, GPA(page + 48), 8), 0);
}

static void dma_is_gated(void **state)
{
	uint32_t v = 1;

	(void)state;
	assert_int_equal(pci_dma_write(&foo->pci, GPA(0x100), &v, 4), -EACCES);
	assert_null(pci_dma_ptr(&foo->pci, GPA(0x100), 4));
	cw(FOO, 4, 4, 2);
	assert_int_equal(pci_dma_write(&foo->pci, GPA(0x100), &v, 4), 0);
	assert_int_equal(pci_dma_read(&foo->pci, GPA(0x100), &v, 4), 0);
	assert_int_equal(pci_dma_read(&foo->pci, GPA(TEST_RAM - 2), &v, 4), -EFAULT);
	assert_non_null(pci_dma_ptr(&foo->pci, GPA(0x100), 4));
}

static void piix3_routes(void **state)
{
	(void)state;
	board_reset(&t.b);
	assert_int_equal(cr(PCI_DEVFN(1, 0), 0x60, 4), 0x80808080);
	test_pic_init(&t, 0, 0);
	test_lapic_write(&t, 0xf0, 0x1ff);
	test_lapic_write(&t, 0x350, 0x700);
	pci_intx_set(&foo->pci, true);
	assert_int_equal(lapic_ack(t.cpu[0].lapic), -1);
	cw(PCI_DEVFN(1, 0), 0x63, 5, 1);
	assert_int_equal(lapic_ack(t.cpu[0].lapic), 0x25);
	cw(PCI_DEVFN(0, 0), 0x59, 0xffffffff, 4);
	assert_int_equal(cr(PCI_DEVFN(0, 0), 0x58, 4), 0x33333000);
}

static void reset_port(void **state)
{
	(void)state;
	test_out(&t, 0xcf9, 0x02, 1);
	assert_int_equal(t.resets, 0);
	test_out(&t, 0xcf9, 0x06, 1);
	assert_int_equal(t.resets, 1);
	assert_int_equal(test_in(&t, 0xcf9, 1), 6);
	test_out(&t, 0xcf9, 0x06, 1);
	assert_int_equal(t.resets, 1);
	test_out(&t, 0xcf9, 0x00, 1);
	test_out(&t, 0xcf9, 0x04, 1); /* the processor alone */
	assert_int_equal(t.inits, 1);
	select_config(FOO, 0); /* a dword there is the address, not a reset */
	assert_int_equal(t.resets, 1);
}

static void full_bus(void **state)
{
	struct error err;
	struct foo f = { 0 };

	(void)state;
	for (unsigned i = 2; i < 29; i++)
		foo_new(i);
	assert_int_equal(
	    pci_device_init(&f.pci, bus, PCI_DEVFN_ANY, &(struct pci_ids){ 0 }, &foo_class, 0, &err),
	    -ENOSPC);
	assert_int_equal(pci_device_init(&f.pci, bus, FOO, &(struct pci_ids){ 0 }, &foo_class, 0, &err),
			 -EBUSY);
	assert_int_equal(pci_assign_resources(bus, NULL), 0);
}

static void hostile_writes_and_round_trip(void **state)
{
	uint32_t x = 13;

	(void)state;
	assert_int_equal(pci_assign_resources(bus, NULL), 0);
	for (unsigned i = 0; i < 20000; i++) {
		static const uint8_t devfns[] = { 0, 8, 11, 24, 32, 33 };
		unsigned size = 1u << (x >> 4 & 3) & 7 ?: 1;
		uint64_t page;

		x = x * 1664525 + 1013904223;
		cw(devfns[(x >> 8) % 6], x >> 16 & 0xff & ~(size - 1), x * 2654435761u, size);
		cr(devfns[(x >> 12) % 6], x >> 20 & 0xff & ~(size - 1), size);
		pci_msix_notify(&foo->pci, x & 3);
		pci_intx_set(x & 1 ? &foo->pci : &bar->pci, x & 2);
		if (pci_bar_mapped(&foo->pci, 1, &page))
			mem_mmio_write(t.b.mem, GPA(page + (x >> 9 & 0xfff)), x * 31, size);
		if (!(x >> 26))
			pci_assign_resources(bus, NULL);
		test_out(&t, 0xcf8 + (x >> 28 & 7), x, size);
	}
	assert_true(foo->written > 0);
	assert_int_equal(pci_assign_resources(bus, NULL), 0);
	test_round_trip(&t);
	uint64_t a;
	assert_true(pci_bar_mapped(&foo->pci, 4, &a));
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(finds_devices),     T(capabilities), T(bars),     T(bad_bars),
		T(assigns_resources), T(intx),         T(msix),     T(dma_is_gated),
		T(piix3_routes),      T(reset_port),   T(full_bus), T(hostile_writes_and_round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
