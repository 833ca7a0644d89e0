/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "cli/options.h"

#define ARGV(...)        ((char *const[]){ __VA_ARGS__, NULL })
#define PARSE(o, e, ...) options_parse((int)ARRAY_SIZE(ARGV(__VA_ARGS__)) - 1, ARGV(__VA_ARGS__), o, e)

static void defaults(void **state)
{
	(void)state;
	struct options o;
	assert_int_equal(PARSE(&o, NULL, "--kernel", "k"), 0);
	assert_string_equal(o.vm.kernel, "k");
	assert_null(o.vm.initrd);
	assert_string_equal(o.vm.cmdline, "");
	assert_int_equal(o.vm.memory, GIB(1));
	assert_int_equal(o.vm.nr_cpus, 1);
	assert_int_equal(o.vm.nr_disks, 0);
	assert_true(o.vm.net);
	assert_int_equal(o.vm.serial, VM_SERIAL_STDIO);
	assert_string_equal(o.vm.engine, "auto");
	assert_false(o.stats || o.help);
	options_free(&o);
}

static void everything(void **state)
{
	(void)state;
	struct options o;
	assert_int_equal(PARSE(&o, NULL, "--kernel=k", "--initrd", "i", "--append=a=b c", "--memory", "512m",
			       "--cpus", "16", "--cpu", "v3", "--disk", "a.img", "--disk",
			       "b,readonly,format=raw", "--net", "user,hostfwd=tcp:127.0.0.1:2222-:22",
			       "--serial", "file:/tmp/x=y", "--engine", "bt", "--tier", "interp", "--name",
			       "n", "--stats"),
			 0);
	assert_string_equal(o.vm.cmdline, "a=b c");
	assert_int_equal(o.vm.memory, MIB(512));
	assert_int_equal(o.vm.nr_cpus, 16);
	assert_string_equal(o.vm.cpu, "v3");
	assert_int_equal(o.vm.nr_disks, 2);
	assert_string_equal(o.vm.disks[0].path, "a.img");
	assert_false(o.vm.disks[0].readonly);
	assert_string_equal(o.vm.disks[1].path, "b");
	assert_true(o.vm.disks[1].readonly);
	assert_int_equal(o.vm.net_user.nr_fwd, 1);
	assert_int_equal(o.vm.serial, VM_SERIAL_FILE);
	assert_string_equal(o.vm.serial_path, "/tmp/x=y");
	assert_string_equal(o.vm.tier, "interp");
	assert_true(o.stats);
	options_free(&o);

	assert_int_equal(PARSE(&o, NULL, "--help"), 0);
	assert_true(o.help);
	assert_int_equal(
	    PARSE(&o, NULL, "--kernel", "k", "--net", "none", "--serial", "none", "--append", ""), 0);
	assert_false(o.vm.net);
}

/* Every refusal names the option and says what to do. */
static void refusals(void **state)
{
	(void)state;
	static const struct {
		char *option, *value;
		const char *why;
	} cases[] = {
		{ "--memory", "", "--memory" },
		{ "--memory", "1", "1G" },
		{ "--memory", "-1G", "1G" },
		{ "--memory", "1GG", "1G" },
		{ "--memory", "1T", "1G" },
		{ "--memory", "99999999999999999999G", "1G" },
		{ "--memory", "18446744073709551615G", "1G" },
		{ "--memory", "8M", "16M" },
		{ "--memory", "1025G", "1024G" },
		{ "--memory", "16385K", "whole megabytes" },
		{ "--cpus", "0", "1 to 16" },
		{ "--cpus", "17", "1 to 16" },
		{ "--cpus", "2x", "1 to 16" },
		{ "--cpus", "-1", "1 to 16" },
		{ "--cpu", "v4", "host, v2, v3" },
		{ "--engine", "kvm", "auto, bt" },
		{ "--tier", "t9", "auto, interp, t1" },
		{ "--disk", ",readonly", "names no file" },
		{ "--disk", "a,format=qcow2", "format=qcow2" },
		{ "--disk", "a,", "not an option" },
		{ "--disk", "a,bus=isa", "bus=ahci" },
		{ "--floppy", ",readonly", "names no file" },
		{ "--usb", "ehci", "xhci or none" },
		{ "--cdrom", ",bus=ide", "names no file" },
		{ "--cdrom", "a,bus=virtio", "bus=ahci" },
		{ "--net", "tap", "tap" },
		{ "--net", "user,hostfwd=nonsense", "nonsense" },
		{ "--serial", "file:", "file:PATH" },
		{ "--serial", "nonesuch", "file:PATH" },
		{ "--parallel", "stdio", "file:PATH" },
		{ "--serial", "tcp:1", "unix:PATH" },
		{ "--nonsense", "1", "--help" },
		{ "--kernel", "again", "twice" },
		{ "stray", "x", "--help" },
		{ "--stats=1", "x", "no value" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct options o;
		struct error err = { "" };
		assert_int_equal(PARSE(&o, &err, "--kernel", "k", cases[i].option, cases[i].value), -EINVAL);
		if (!strstr(err.message, cases[i].why))
			fail_msg("%s %s: '%s' does not say '%s'", cases[i].option, cases[i].value,
				 err.message, cases[i].why);
		options_free(&o);
	}
	struct options o;
	struct error err;
	assert_int_equal(PARSE(&o, &err, "--kernel"), -EINVAL);
	assert_non_null(strstr(err.message, "FILE"));
	assert_int_equal(options_parse(0, NULL, &o, &err), -EINVAL);
	assert_non_null(strstr(err.message, "--kernel FILE"));
}

static void ports(void **state)
{
	(void)state;
	struct options o;
	struct error err;
	assert_int_equal(PARSE(&o, NULL, "--kernel", "k", "--serial", "stdio", "--serial", "unix:/s",
			       "--parallel", "file:/p"),
			 0);
	assert_int_equal(o.vm.serial, VM_SERIAL_STDIO);
	assert_int_equal(o.vm.serial2, VM_SERIAL_UNIX);
	assert_string_equal(o.vm.serial2_path, "/s");
	assert_string_equal(o.vm.parallel, "/p");
	options_free(&o);
	assert_int_equal(PARSE(&o, &err, "--kernel", "k", "--serial", "none", "--serial", "stdio"), -EINVAL);
	assert_non_null(strstr(err.message, "COM1"));
	assert_int_equal(
	    PARSE(&o, &err, "--kernel", "k", "--serial", "none", "--serial", "none", "--serial", "none"),
	    -EINVAL);
	assert_non_null(strstr(err.message, "two serial ports"));
}

static void buses(void **state)
{
	(void)state;
	struct options o;
	assert_int_equal(PARSE(&o, NULL, "--disk", "a", "--disk", "b,bus=ide", "--disk",
			       "c,bus=ahci,readonly", "--cdrom", "d,e", "--cdrom", "f,bus=ahci", "--disk",
			       "g,bus=scsi", "--disk", "h,bus=usb", "--floppy", "i,j,readonly"),
			 0);
	assert_int_equal(o.vm.disks[0].bus, VM_BUS_VIRTIO);
	assert_int_equal(o.vm.disks[1].bus, VM_BUS_IDE);
	assert_int_equal(o.vm.disks[2].bus, VM_BUS_AHCI);
	assert_int_equal(o.vm.disks[3].bus, VM_BUS_SCSI);
	assert_int_equal(o.vm.disks[4].bus, VM_BUS_USB);
	assert_false(o.vm.no_usb);
	assert_string_equal(o.vm.floppies[0].path, "i,j");
	assert_true(o.vm.floppies[0].readonly);
	assert_true(o.vm.disks[2].readonly);
	assert_string_equal(o.vm.cds[0].path, "d,e");
	assert_int_equal(o.vm.cds[0].bus, VM_BUS_IDE);
	assert_string_equal(o.vm.cds[1].path, "f");
	assert_int_equal(o.vm.cds[1].bus, VM_BUS_AHCI);
	options_free(&o);
}

static void too_many_disks(void **state)
{
	(void)state;
	char *argv[2 * (VM_MAX_DISKS + 1)];
	struct options o;
	struct error err;
	for (int i = 0; i < VM_MAX_DISKS + 1; i++) {
		argv[2 * i] = "--disk";
		argv[2 * i + 1] = "d";
	}
	assert_int_equal(options_parse(2 * (VM_MAX_DISKS + 1), argv, &o, &err), -EINVAL);
	assert_non_null(strstr(err.message, "16"));
	options_free(&o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults), cmocka_unit_test(everything), cmocka_unit_test(refusals),
		cmocka_unit_test(ports),    cmocka_unit_test(buses),      cmocka_unit_test(too_many_disks),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
