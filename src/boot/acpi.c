/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables, in the order in which they lie at ACPI_AREA:
 *
 *	RSDP -> XSDT, RSDT -> FADT -> FACS, DSDT
 *	                   -> MADT
 *	                   -> HPET
 *
 * Everything is written with explicit offsets from the specification's tables,
 * so a field's place can be checked against it.
 *
 * Addresses in the tables are offsets in the area at first; a list says which
 * fields are such addresses, and which bytes are checksums of what.  For direct
 * boot the list is applied here.  Firmware allocates the memory itself, so it
 * gets the list as linker commands in the form that SeaBIOS and OVMF know.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "boot/acpi.h"
#include "boot/aml.h"
#include "dev/pc/acpi_pm.h"
#include "dev/pci/pci.h"
#include "dev/timer/hpet.h"

#define IOAPIC_ADDR 0xfec00000u
#define LAPIC_ADDR  0xfee00000u
#define RSDP_SIZE   ACPI_RSDP_SIZE
#define PCI_SLOTS   32
#define PIRQ_GSI    16 /* PIRQ line n is GSI 16 + n in APIC mode */

/* The PIC pins of the four PIRQ lines as pci_assign_resources routes them. */
static const uint8_t pirq_pic[4] = { 10, 11, 10, 11 };

#define MAX_FIXUPS 32

/* The bytes of all tables, where the next one goes, and what is to be done to them where they end up. */
struct area {
	uint8_t buf[ACPI_AREA_SIZE];
	size_t len;
	unsigned nr_fixups;
	struct fixup {
		/* A pointer of `size` bytes at `at`; or, size 0, a checksum at `at` over len bytes from
		 * start. */
		uint32_t at, size, start, len;
	} fixups[MAX_FIXUPS];
};

static void put(uint8_t *p, uint64_t v, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static uint8_t checksum(const uint8_t *p, size_t n)
{
	uint8_t sum = 0;
	for (size_t i = 0; i < n; i++)
		sum = (uint8_t)(sum + p[i]);
	return (uint8_t)-sum;
}

/* Room for a table of at most n bytes, aligned; the rest of the area is zero. */
static uint8_t *begin_table(struct area *a, size_t align)
{
	a->len = align_up(a->len, align);
	return a->buf + a->len;
}

static uint32_t address_of(const struct area *a, const uint8_t *p)
{
	return (uint32_t)(p - a->buf);
}

/* A field that holds the address of something in the area. */
static void put_pointer(struct area *a, uint8_t *p, uint32_t target, unsigned size)
{
	put(p, target, size);
	a->fixups[a->nr_fixups++] = (struct fixup){ .at = address_of(a, p), .size = size };
}

static void put_checksum(struct area *a, uint8_t *p, const uint8_t *start, size_t len)
{
	*p = 0;
	a->fixups[a->nr_fixups++] =
	    (struct fixup){ .at = address_of(a, p), .start = address_of(a, start), .len = (uint32_t)len };
}

/* The header that all tables but RSDP and FACS share (§5.2.6), and the checksum; n: bytes in all. */
static uint32_t end_table(struct area *a, uint8_t *t, const char *signature, uint8_t revision, size_t n)
{
	memcpy(t, signature, 4);
	put(t + 4, n, 4);
	t[8] = revision;
	memcpy(t + 10, "SILL  ", 6);
	memcpy(t + 16, "SILLPC  ", 8);
	put(t + 24, 1, 4);
	memcpy(t + 28, "SILL", 4);
	put(t + 32, 1, 4);
	put_checksum(a, t + 9, t, n);
	a->len += n;
	return address_of(a, t);
}

/* ---- DSDT ---- */

/* _PRT (§6.2.13): four pins of each slot, each to a global interrupt. */
static void emit_prt(struct aml *a, const char *name, bool apic)
{
	aml_name(a, name);
	aml_package(a, PCI_SLOTS * 4);
	for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
		for (unsigned pin = 0; pin < 4; pin++) {
			unsigned line = (slot + pin) & 3;
			aml_package(a, 4);
			aml_integer(a, (uint64_t)slot << 16 | 0xffff);
			aml_integer(a, pin);
			aml_integer(a, 0); /* not a link device */
			aml_integer(a, apic ? PIRQ_GSI + line : pirq_pic[line]);
			aml_close(a);
		}
	}
	aml_close(a);
}

static void emit_pci(struct aml *a, const struct acpi_config *c)
{
	aml_device(a, "PCI0");
	aml_name(a, "_HID");
	aml_eisa_id(a, "PNP0A03");
	aml_name_integer(a, "_UID", 0);
	aml_crs(a);
	aml_bus_range(a, 0, 255);
	aml_io(a, 0xcf8, 8);
	aml_io_window(a, 0, 0xcf7);
	aml_io_window(a, 0xd00, 0xffff);
	aml_memory_window32(a, (uint32_t)c->pci_mem_start, (uint32_t)PCI_WINDOW_LAST);
	if (c->pci_mem64_size)
		aml_memory_window64(a, c->pci_mem64_start, c->pci_mem64_start + c->pci_mem64_size - 1);
	aml_crs_end(a);
	emit_prt(a, "PRTP", false);
	emit_prt(a, "PRTA", true);
	aml_method(a, "_PRT", 0);
	aml_if_name(a, "\\PICF");
	aml_return_name(a, "PRTA");
	aml_close(a);
	aml_return_name(a, "PRTP");
	aml_close(a);
	aml_close(a);
}

/* A device with a PNP id and ports: len 0 ends the list. irq < 0: none. */
struct isa_device {
	const char *name, *id;
	struct {
		uint16_t base;
		uint8_t len;
	} io[3];
	int irq;
	uint8_t dma; /* channel; 0: none */
	uint8_t uid; /* 0: the only one of its kind */
};

static const struct isa_device isa_devices[] = {
	{ "COM1", "PNP0501", { { 0x3f8, 8 } }, 4, 0, 1 },
	{ "RTC_", "PNP0B00", { { 0x70, 2 } }, 8, 0, 0 },
	{ "TIMR", "PNP0100", { { 0x40, 4 } }, 0, 0, 0 },
	{ "PIC_", "PNP0000", { { 0x20, 2 }, { 0xa0, 2 }, { 0x4d0, 2 } }, 2, 0, 0 },
	{ "SPKR", "PNP0800", { { 0x61, 1 } }, -1, 0, 0 },
	{ "DMAC", "PNP0200", { { 0x00, 16 }, { 0x81, 15 }, { 0xc0, 32 } }, -1, 4, 0 },
};

static const struct isa_device floppy_device = { "FDC0", "PNP0700", { { 0x3f2, 4 }, { 0x3f7, 1 } }, 6, 2, 0 };
static const struct isa_device com2_device = { "COM2", "PNP0501", { { 0x2f8, 8 } }, 3, 0, 2 };
static const struct isa_device parallel_device = { "LPT1", "PNP0400", { { 0x378, 8 } }, 7, 0, 0 };

/* With a keyboard controller */
static const struct isa_device i8042_devices[] = {
	{ "PS2K", "PNP0303", { { 0x60, 1 }, { 0x64, 1 } }, 1, 0, 0 },
	{ "PS2M", "PNP0F13", { { 0 } }, 12, 0, 0 },
};

static void emit_isa(struct aml *a, const struct isa_device *d)
{
	aml_device(a, d->name);
	aml_name(a, "_HID");
	aml_eisa_id(a, d->id);
	if (d->uid)
		aml_name_integer(a, "_UID", d->uid);
	aml_crs(a);
	for (size_t i = 0; i < ARRAY_SIZE(d->io) && d->io[i].len; i++)
		aml_io(a, d->io[i].base, d->io[i].len);
	if (d->irq >= 0)
		aml_irq(a, (unsigned)d->irq);
	if (d->dma)
		aml_dma(a, d->dma);
	aml_crs_end(a);
	aml_close(a);
}

/* A device with a string id and one range of ports. */
static void emit_ports(struct aml *a, const char *name, const char *id, uint16_t base, uint8_t len)
{
	aml_device(a, name);
	aml_name(a, "_HID");
	aml_string(a, id);
	aml_name_integer(a, "_STA", 0x0f);
	aml_crs(a);
	aml_io(a, base, len);
	aml_crs_end(a);
	aml_close(a);
}

/* Ranges that no driver may take: power management, reset, APICs. */
static void emit_motherboard(struct aml *a, const struct acpi_config *c)
{
	aml_device(a, "MBRD");
	aml_name(a, "_HID");
	aml_eisa_id(a, "PNP0C02");
	aml_name_integer(a, "_UID", 0);
	aml_crs(a);
	aml_io(a, c->pm_base, 0x40);
	aml_memory32(a, IOAPIC_ADDR, 0x1000);
	aml_memory32(a, LAPIC_ADDR, 0x1000);
	aml_crs_end(a);
	aml_close(a);
}

static void emit_hpet(struct aml *a)
{
	aml_device(a, "HPET");
	aml_name(a, "_HID");
	aml_eisa_id(a, "PNP0103");
	aml_crs(a);
	aml_memory32(a, (uint32_t)HPET_BASE, HPET_SIZE);
	aml_crs_end(a);
	aml_close(a);
}

static void emit_cpus(struct aml *a, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		char name[8];
		snprintf(name, sizeof(name), "C%03X", i & 0xfff);
		aml_device(a, name);
		aml_name(a, "_HID");
		aml_string(a, "ACPI0007");
		aml_name_integer(a, "_UID", i);
		aml_close(a);
	}
}

static void emit_dsdt(struct aml *a, const struct acpi_config *c)
{
	/* The guest says which interrupt model it uses: 0 PIC, 1 APIC (§5.8.1). */
	aml_name_integer(a, "PICF", 0);
	aml_method(a, "_PIC", 1);
	aml_byte(a, 0x70); /* Store (Arg0, PICF) */
	aml_byte(a, 0x68);
	aml_name_string(a, "PICF");
	aml_close(a);

	/* Soft off: SLP_TYP 0 (PIIX4 datasheet, PMCNTRL). */
	aml_name(a, "_S5_");
	aml_package(a, 4);
	for (unsigned i = 0; i < 4; i++)
		aml_integer(a, 0);
	aml_close(a);

	aml_scope(a, "\\_SB_");
	emit_cpus(a, c->nr_cpus);
	emit_pci(a, c);
	emit_motherboard(a, c);
	emit_hpet(a);
	for (size_t i = 0; i < ARRAY_SIZE(isa_devices); i++)
		emit_isa(a, &isa_devices[i]);
	for (size_t i = 0; c->i8042 && i < ARRAY_SIZE(i8042_devices); i++)
		emit_isa(a, &i8042_devices[i]);
	if (c->floppy)
		emit_isa(a, &floppy_device);
	if (c->com2)
		emit_isa(a, &com2_device);
	if (c->parallel)
		emit_isa(a, &parallel_device);
	if (c->pvpanic)
		emit_ports(a, "PEVT", "QEMU0001", 0x505, 1);
	if (c->fw_cfg)
		emit_ports(a, "FWCF", "QEMU0002", 0x510, 12);
	aml_close(a);
}

static uint32_t build_dsdt(struct area *a, const struct acpi_config *c)
{
	uint8_t *t = begin_table(a, 16);
	struct aml aml = { .buf = t, .len = 36, .cap = sizeof(a->buf) - a->len };
	emit_dsdt(&aml, c);
	return aml.overflow ? 0 : end_table(a, t, "DSDT", 2, aml.len);
}

/* ---- FADT, FACS, MADT, HPET ---- */

static uint32_t build_facs(struct area *a)
{
	uint8_t *t = begin_table(a, 64);
	memcpy(t, "FACS", 4);
	put(t + 4, 64, 4);
	t[32] = 2; /* version */
	a->len += 64;
	return address_of(a, t);
}

/* Generic address structure (§5.2.3.2) for ports. */
static void put_gas(uint8_t *p, uint16_t port, uint8_t bits, uint8_t access)
{
	p[0] = 1; /* system I/O */
	p[1] = bits;
	p[2] = 0;
	p[3] = access; /* 1 byte, 2 word, 3 dword */
	put(p + 4, port, 8);
}

/* §5.2.9, revision 3 */
static uint32_t build_fadt(struct area *a, const struct acpi_config *c, uint32_t facs, uint32_t dsdt)
{
	uint8_t *t = begin_table(a, 16);
	put_pointer(a, t + 36, facs, 4);
	put_pointer(a, t + 40, dsdt, 4);
	put(t + 46, ACPI_SCI_IRQ, 2); /* SMI_CMD stays 0: always in ACPI mode */
	put(t + 56, c->pm_base + ACPI_PM1_EVT, 4);
	put(t + 64, c->pm_base + ACPI_PM1_CNT, 4);
	put(t + 76, c->pm_base + ACPI_PM_TIMER, 4);
	t[88] = 4; /* PM1_EVT_LEN */
	t[89] = 2; /* PM1_CNT_LEN */
	t[91] = 4; /* PM_TMR_LEN */
	t[92] = ACPI_GPE0_LEN;
	put(t + 80, c->pm_base + ACPI_GPE0, 4);
	put(t + 96, 0x0fff, 2); /* P_LVL2_LAT: no C2 */
	put(t + 98, 0x0fff, 2); /* P_LVL3_LAT: no C3 */
	t[108] = 0x32;          /* century byte in CMOS */
	/* Legacy devices; is there an 8042, no VGA? */
	put(t + 109, 1 | (c->i8042 ? 1 << 1 : 0) | (c->vga ? 0 : 1 << 2), 2);
	/* WBINVD, C1 on all processors, no sleep button; the power button is fixed hardware; reset register.
	 */
	put(t + 112, 1 << 0 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 10, 4);
	put_gas(t + 116, ACPI_RESET_PORT, 8, 1);
	t[128] = ACPI_RESET_VALUE;
	put_pointer(a, t + 132, facs, 8);
	put_pointer(a, t + 140, dsdt, 8);
	put_gas(t + 148, (uint16_t)(c->pm_base + ACPI_PM1_EVT), 32, 2);
	put_gas(t + 172, (uint16_t)(c->pm_base + ACPI_PM1_CNT), 16, 2);
	put_gas(t + 208, (uint16_t)(c->pm_base + ACPI_PM_TIMER), 32, 3);
	put_gas(t + 220, (uint16_t)(c->pm_base + ACPI_GPE0), 8 * ACPI_GPE0_LEN, 1);
	return end_table(a, t, "FACP", 3, 244);
}

/* §5.2.12 */
static uint32_t build_madt(struct area *a, unsigned nr_cpus)
{
	uint8_t *t = begin_table(a, 16), *p = t + 44;
	put(t + 36, LAPIC_ADDR, 4);
	put(t + 40, 1, 4); /* there are 8259s too */
	for (unsigned i = 0; i < nr_cpus; i++, p += 8) {
		p[0] = 0; /* processor local APIC */
		p[1] = 8;
		p[2] = (uint8_t)i; /* processor UID */
		p[3] = (uint8_t)i; /* APIC id */
		put(p + 4, 1, 4);  /* enabled */
	}
	p[0] = 1; /* I/O APIC, id 0, from GSI 0 */
	p[1] = 12;
	put(p + 4, IOAPIC_ADDR, 4);
	p += 12;
	static const struct {
		uint8_t irq, gsi;
		uint16_t flags;
	} overrides[] = {
		{ 0, 2, 0 },                                /* the PIT, as the bus has it */
		{ ACPI_SCI_IRQ, ACPI_SCI_IRQ, 1 | 3 << 2 }, /* active high, level */
	};
	for (size_t i = 0; i < ARRAY_SIZE(overrides); i++, p += 10) {
		p[0] = 2; /* interrupt source override, bus ISA */
		p[1] = 10;
		p[3] = overrides[i].irq;
		put(p + 4, overrides[i].gsi, 4);
		put(p + 8, overrides[i].flags, 2);
	}
	p[0] = 4; /* NMI at LINT1 of all processors */
	p[1] = 6;
	p[2] = 0xff;
	p[5] = 1;
	p += 6;
	return end_table(a, t, "APIC", 3, (size_t)(p - t));
}

/* IA-PC HPET 1.0a §3.2.4 */
static uint32_t build_hpet(struct area *a)
{
	uint8_t *t = begin_table(a, 16);
	put(t + 36, HPET_ID, 4);
	t[41] = 64; /* a generic address: memory, 64 bits from bit 0 */
	put(t + 44, HPET_BASE, 8);
	t[52] = 0; /* the first of its kind */
	put(t + 53, HPET_MIN_TICK, 2);
	return end_table(a, t, "HPET", 1, 56);
}

static uint32_t build_root(struct area *a, const char *signature, const uint32_t *tables, unsigned nr,
			   unsigned width)
{
	uint8_t *t = begin_table(a, 16);
	for (unsigned i = 0; i < nr; i++)
		put_pointer(a, t + 36 + i * width, tables[i], width);
	return end_table(a, t, signature, 1, 36 + nr * width);
}

/* All tables, the RSDP first. */
static int build(struct area *a, const struct acpi_config *c, struct error *err)
{
	if (c->nr_cpus > 255)
		return error_set(err, ENOSPC, "%u processors are too many; give at most 255", c->nr_cpus);
	a->len = 64; /* the RSDP comes first, where guests look for it */
	uint32_t facs = build_facs(a), dsdt = build_dsdt(a, c);
	if (!dsdt)
		return error_set(err, ENOSPC, "the ACPI tables do not fit; give the VM fewer processors");
	const uint32_t tables[] = { build_fadt(a, c, facs, dsdt), build_madt(a, c->nr_cpus), build_hpet(a) };
	const unsigned nr = ARRAY_SIZE(tables);
	uint32_t xsdt = build_root(a, "XSDT", tables, nr, 8), rsdt = build_root(a, "RSDT", tables, nr, 4);

	uint8_t *r = a->buf; /* §5.2.5.3 */
	memcpy(r, "RSD PTR ", 8);
	memcpy(r + 9, "SILL  ", 6);
	r[15] = 2;
	put_pointer(a, r + 16, rsdt, 4);
	put(r + 20, RSDP_SIZE, 4);
	put_pointer(a, r + 24, xsdt, 8);
	put_checksum(a, r + 8, r, 20);
	put_checksum(a, r + 32, r, RSDP_SIZE);
	return 0;
}

/* Pointers first: checksums are over them too. */
static void apply_fixups(struct area *a, uint32_t base)
{
	for (unsigned i = 0; i < a->nr_fixups; i++) {
		const struct fixup *f = &a->fixups[i];
		if (f->size) {
			uint32_t target;
			memcpy(&target, a->buf + f->at, 4);
			put(a->buf + f->at, (uint64_t)base + target, f->size);
		}
	}
	for (unsigned i = 0; i < a->nr_fixups; i++) {
		const struct fixup *f = &a->fixups[i];
		if (!f->size)
			a->buf[f->at] = checksum(a->buf + f->start, f->len);
	}
}

int acpi_build(struct mem *m, const struct acpi_config *c, gpa_t *rsdp, struct error *err)
{
	_cleanup_free_ struct area *a = calloc(1, sizeof(*a));
	if (!a)
		return error_set(err, ENOMEM, "no memory for the ACPI tables; free some and try again");
	int r = build(a, c, err);
	if (r)
		return r;
	apply_fixups(a, ACPI_AREA);
	if (mem_write(m, GPA(ACPI_AREA), a->buf, a->len) < 0)
		return error_set(err, ENOMEM,
				 "the ACPI tables need 1 MiB of memory; give the VM more (--memory)");
	*rsdp = GPA(ACPI_AREA);
	return 0;
}

/* ---- for firmware ---- */

/*
 * A linker command (QEMU's hw/acpi/bios-linker-loader.c defines the format): 128 bytes, little-endian; the
 * RSDP is a file of its own, since it must lie below 1 MiB.
 */
#define COMMAND_SIZE 128
#define NAME_SIZE    56
enum { CMD_ALLOCATE = 1, CMD_ADD_POINTER = 2, CMD_ADD_CHECKSUM = 3 };
enum { ZONE_HIGH = 1, ZONE_FSEG = 2 };

static const char rsdp_file[] = ACPI_FILE_RSDP, tables_file[] = ACPI_FILE_TABLES;

static const char *file_of(uint32_t at)
{
	return at < 64 ? rsdp_file : tables_file;
}

static uint32_t in_file(uint32_t at)
{
	return at < 64 ? at : at - 64;
}

static uint8_t *command(struct acpi_files *f, unsigned kind)
{
	uint8_t *p = f->loader + f->loader_len;
	f->loader_len += COMMAND_SIZE;
	put(p, kind, 4);
	return p + 4;
}

static void cmd_allocate(struct acpi_files *f, const char *file, uint32_t align, uint8_t zone)
{
	uint8_t *p = command(f, CMD_ALLOCATE);
	memcpy(p, file, strlen(file));
	put(p + NAME_SIZE, align, 4);
	p[NAME_SIZE + 4] = zone;
}

static void cmd_fixup(struct acpi_files *f, const struct fixup *x)
{
	const char *file = file_of(x->at);
	if (x->size) {
		uint8_t *p = command(f, CMD_ADD_POINTER);
		memcpy(p, file, strlen(file));
		memcpy(p + NAME_SIZE, tables_file, strlen(tables_file));
		put(p + 2 * NAME_SIZE, in_file(x->at), 4);
		p[2 * NAME_SIZE + 4] = (uint8_t)x->size;
	} else {
		uint8_t *p = command(f, CMD_ADD_CHECKSUM);
		memcpy(p, file, strlen(file));
		put(p + NAME_SIZE, in_file(x->at), 4);
		put(p + NAME_SIZE + 4, in_file(x->start), 4);
		put(p + NAME_SIZE + 8, x->len, 4);
	}
}

int acpi_build_files(const struct acpi_config *c, struct acpi_files *ret, struct error *err)
{
	_cleanup_free_ struct area *a = calloc(1, sizeof(*a));
	*ret = (struct acpi_files){ 0 };
	ret->loader = calloc(MAX_FIXUPS + 2, COMMAND_SIZE);
	int r = a && ret->loader
		    ? build(a, c, err)
		    : error_set(err, ENOMEM, "no memory for the ACPI tables; free some and try again");
	ret->tables = r ? NULL : malloc(a->len);
	if (!ret->tables) {
		acpi_files_free(ret);
		return r ? r
			 : error_set(err, ENOMEM, "no memory for the ACPI tables; free some and try again");
	}
	cmd_allocate(ret, rsdp_file, 16, ZONE_FSEG);
	cmd_allocate(ret, tables_file, 64, ZONE_HIGH);
	/* Pointers are offsets in the file that they point into. */
	for (unsigned i = 0; i < a->nr_fixups; i++) {
		const struct fixup *f = &a->fixups[i];
		uint32_t target;
		memcpy(&target, a->buf + f->at, 4);
		if (f->size)
			put(a->buf + f->at, in_file(target), f->size);
	}
	for (int checksums = 0; checksums < 2; checksums++)
		for (unsigned i = 0; i < a->nr_fixups; i++)
			if ((a->fixups[i].size == 0) == (checksums == 1))
				cmd_fixup(ret, &a->fixups[i]);
	memcpy(ret->rsdp, a->buf, RSDP_SIZE);
	ret->tables_len = a->len - 64;
	memcpy(ret->tables, a->buf + 64, ret->tables_len);
	return 0;
}

void acpi_files_free(struct acpi_files *f)
{
	free(f->tables);
	free(f->loader);
	*f = (struct acpi_files){ 0 };
}
