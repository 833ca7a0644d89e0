/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "boot/firmware.h"

/* A data folder of packages, with what a test puts there; state of VMs goes below it too. */
struct fixture {
	char folder[64];
	struct firmware *f;
	struct error err;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	strcpy(f->folder, "/tmp/sill-firmware-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	assert_int_equal(setenv("XDG_STATE_HOME", f->folder, 1), 0);
	strcat(f->folder, "/");
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char command[96];
	firmware_free(f->f);
	snprintf(command, sizeof(command), "rm -rf '%s'", f->folder);
	assert_int_equal(system(command), 0);
	free(f);
	return 0;
}

static void install(struct fixture *f, const char *name, size_t size, int fill)
{
	char path[128];
	snprintf(path, sizeof(path), "%s%s", f->folder, name);
	*strrchr(path, '/') = 0;
	mkdir(path, 0700);
	path[strlen(path)] = '/';
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	for (size_t i = 0; i < size; i++)
		fputc(fill, file);
	fclose(file);
}

static int open_it(struct fixture *f, const char *what, const char *vars)
{
	firmware_free(f->f);
	f->f = NULL;
	f->err.message[0] = 0;
	return firmware_open(f->folder, what, vars, "vm", &f->f, &f->err);
}

static void says(const struct fixture *f, const char *text)
{
	if (!strstr(f->err.message, text))
		fail_msg("\"%s\" does not say \"%s\"", f->err.message, text);
}

/* The package that is missing is named, with the file. */
static void missing_packages(void **state)
{
	struct fixture *f = *state;
	uint8_t *rom;
	size_t size;
	assert_int_equal(open_it(f, "bios", NULL), -ENOENT);
	says(f, "--firmware bios: ");
	says(f, "seabios/bios-256k.bin: No such file or directory; install the package seabios");
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(open_it(f, i ? "uefi-secure" : "uefi", NULL), -ENOENT);
		says(f, i ? "--firmware uefi-secure: " : "--firmware uefi: ");
		says(f, "OVMF/OVMF_CODE_4M.fd: No such file or directory; install the package ovmf");
	}
	/* Half a package: the code is there, the template of variables is not. */
	install(f, "OVMF/OVMF_CODE_4M.fd", 8192, 'c');
	assert_int_equal(open_it(f, "uefi", NULL), -ENOENT);
	says(f, "OVMF/OVMF_VARS_4M.fd: No such file or directory; install the package ovmf");
	assert_int_equal(open_it(f, "uefi-secure", NULL), -ENOENT);
	says(f, "OVMF/OVMF_VARS_4M.ms.fd: No such file or directory; install the package ovmf");
	assert_int_equal(firmware_read_rom(f->folder, "vga.bin", "seabios", &rom, &size, &f->err), -ENOENT);
	says(f, "vga.bin: No such file or directory; install the package seabios");
	install(f, "empty/rom", 0, 0);
	assert_int_equal(firmware_read_rom(f->folder, "empty/rom", "ipxe-qemu", &rom, &size, &f->err),
			 -EINVAL);
	says(f, "install the package ipxe-qemu anew");
}

static void images(void **state)
{
	struct fixture *f = *state;
	char path[128];
	install(f, "seabios/bios-256k.bin", 8192, 'b');
	assert_int_equal(open_it(f, "bios", NULL), 0);
	assert_int_equal(f->f->code_size, 8192);
	assert_int_equal(f->f->code[8191], 'b');
	assert_null(f->f->vars);
	assert_int_equal(open_it(f, "bios", "x"), -EINVAL);
	says(f, "only --firmware uefi");
	snprintf(path, sizeof(path), "%sseabios/bios-256k.bin", f->folder);
	assert_int_equal(open_it(f, path, NULL), 0); /* by its path */
	install(f, "seabios/bios-256k.bin", 8191, 'b');
	assert_int_equal(open_it(f, "bios", NULL), -EINVAL);
	says(f, "whole 4K pages");
	assert_int_equal(open_it(f, "nonsense", NULL), -ENOENT);
	says(f, "give bios, uefi, uefi-secure or the path");
}

/* The older package's names do too; variables are kept from one start to the next, by one VM at a time. */
static void variables(void **state)
{
	struct fixture *f = *state;
	struct firmware *other;
	install(f, "OVMF/OVMF_CODE.fd", 8192, 'c');
	install(f, "OVMF/OVMF_VARS.fd", 4096, 'v');
	assert_int_equal(open_it(f, "uefi", NULL), 0);
	assert_int_equal(f->f->vars_size, 4096);
	assert_int_equal(f->f->vars[4095], 'v');
	assert_int_equal(pwrite(f->f->vars_fd, "kept", 4, 0), 4);
	assert_int_equal(firmware_open(f->folder, "uefi", NULL, "vm", &other, &f->err), -EBUSY);
	says(f, "in use by another VM");
	assert_int_equal(open_it(f, "uefi", NULL), 0);
	assert_memory_equal(f->f->vars, "keptv", 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(missing_packages, setup, teardown),
		cmocka_unit_test_setup_teardown(images, setup, teardown),
		cmocka_unit_test_setup_teardown(variables, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
