/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/util.h"
#include "boot/acpi.h"

struct fixture {
	struct mutex lock;
	struct mem *m;
	gpa_t rsdp;
};

static const struct acpi_config config = {
	.nr_cpus = 3,
	.pci_mem_start = 0xc0000000,
	.pci_mem64_start = GIB(8),
	.pci_mem64_size = GIB(16),
	.pvpanic = true,
	.fw_cfg = true,
	.pm_base = 0x600,
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	mutex_init(&f->lock, LOCK_RANK_IO, "io");
	assert_int_equal(mem_new(MIB(2), &f->lock, &f->m, NULL), 0);
	assert_int_equal(acpi_build(f->m, &config, &f->rsdp, NULL), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	mem_free(f->m);
	mutex_destroy(&f->lock);
	free(f);
	return 0;
}

static uint64_t word(const uint8_t *p, unsigned size)
{
	uint64_t v = 0;
	memcpy(&v, p, size);
	return v;
}

static unsigned sum(const uint8_t *p, size_t n)
{
	uint8_t s = 0;
	for (size_t i = 0; i < n; i++)
		s = (uint8_t)(s + p[i]);
	return s;
}

static const uint8_t *table(struct fixture *f, uint64_t gpa, const char *signature)
{
	const uint8_t *t = mem_ram_ptr(f->m, GPA(gpa), 36);
	assert_non_null(t);
	assert_memory_equal(t, signature, 4);
	uint64_t len = word(t + 4, 4);
	assert_true(gpa >= ACPI_AREA && gpa + len <= ACPI_AREA + ACPI_AREA_SIZE);
	if (memcmp(signature, "FACS", 4) != 0)
		assert_int_equal(sum(t, len), 0);
	return t;
}

static void tables_hang_together(void **state)
{
	struct fixture *f = *state;
	const uint8_t *rsdp = mem_ram_ptr(f->m, f->rsdp, 36);
	assert_memory_equal(rsdp, "RSD PTR ", 8);
	assert_int_equal(sum(rsdp, 20), 0);
	assert_int_equal(sum(rsdp, 36), 0);
	const uint8_t *xsdt = table(f, word(rsdp + 24, 8), "XSDT"),
		      *rsdt = table(f, word(rsdp + 16, 4), "RSDT");
	assert_int_equal(word(xsdt + 36, 8), word(rsdt + 36, 4));
	assert_int_equal(word(xsdt + 44, 8), word(rsdt + 40, 4));
	const uint8_t *fadt = table(f, word(xsdt + 36, 8), "FACP");
	table(f, word(fadt + 36, 4), "FACS");
	assert_int_equal(word(fadt + 36, 4) % 64, 0);
	table(f, word(fadt + 40, 4), "DSDT");
	assert_int_equal(word(fadt + 76, 4), 0x608);
	assert_int_equal(word(fadt + 120, 8), 0xcf9);
	const uint8_t *madt = table(f, word(xsdt + 44, 8), "APIC");
	unsigned cpus = 0, ioapics = 0;
	for (size_t at = 44; at < word(madt + 4, 4); at += madt[at + 1]) {
		assert_true(madt[at + 1] >= 6);
		cpus += madt[at] == 0;
		ioapics += madt[at] == 1;
	}
	assert_int_equal(cpus, 3);
	assert_int_equal(ioapics, 1);
	const uint8_t *hpet = table(f, word(xsdt + 52, 8), "HPET");
	assert_int_equal(word(hpet + 36, 4), 0x8086a201);
	assert_int_equal(word(hpet + 44, 8), 0xfed00000);
}

static void every_size_fits(void **state)
{
	struct fixture *f = *state;
	struct acpi_config c = config;
	struct error err;
	for (c.nr_cpus = 1; c.nr_cpus <= 255; c.nr_cpus += 127)
		assert_int_equal(acpi_build(f->m, &c, &f->rsdp, &err), 0);
	c.nr_cpus = 256;
	assert_int_equal(acpi_build(f->m, &c, &f->rsdp, &err), -ENOSPC);
}

/* ACPICA's compiler takes every table apart and puts the DSDT together again without an error. */
static void iasl_accepts(void **state)
{
	struct fixture *f = *state;
	if (system("command -v iasl >/dev/null") != 0) {
		print_message("skipped: iasl is not installed (make deps)\n");
		skip();
	}
	char dir[] = "/tmp/sill-acpi-XXXXXX", path[64], command[512];
	assert_non_null(mkdtemp(dir));
	const uint8_t *rsdp = mem_ram_ptr(f->m, f->rsdp, 36), *xsdt = table(f, word(rsdp + 24, 8), "XSDT");
	const uint8_t *fadt = table(f, word(xsdt + 36, 8), "FACP");
	const uint8_t *tables[] = {
		fadt,
		table(f, word(xsdt + 44, 8), "APIC"),
		table(f, word(xsdt + 52, 8), "HPET"),
		table(f, word(fadt + 36, 4), "FACS"),
		table(f, word(fadt + 40, 4), "DSDT"),
	};
	for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
		snprintf(path, sizeof(path), "%s/%.4s.aml", dir, (const char *)tables[i]);
		_cleanup_fclose_ FILE *out = fopen(path, "wb");
		assert_non_null(out);
		assert_int_equal(fwrite(tables[i], 1, word(tables[i] + 4, 4), out), word(tables[i] + 4, 4));
	}
	snprintf(command, sizeof(command),
		 "cd %s && for t in *.aml; do iasl -d $t; done >log 2>&1 && ! grep -iE "
		 "'error|warning|checksum.*incorrect' log && "
		 "iasl -oe -p again DSDT.dsl >log2 2>&1 && grep -q ' 0 Errors, 0 Warnings' log2 || "
		 "{ cat log log2; exit 1; }",
		 dir);
	int r = system(command);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	assert_int_equal(system(command), 0);
	assert_int_equal(r, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(tables_hang_together, setup, teardown),
		cmocka_unit_test_setup_teardown(every_size_fits, setup, teardown),
		cmocka_unit_test_setup_teardown(iasl_accepts, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
