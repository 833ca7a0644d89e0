/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "cli/options.h"

struct option {
	const char *name;     /* without the dashes */
	const char *argument; /* for the help; NULL: a flag */
	const char *help;
	const char *const *choices; /* NULL: anything that parse takes */
	size_t string;              /* offset in struct options of a const char *, if there is no parse */
	int (*parse)(struct options *o, const char *value, struct error *err);
	bool repeatable;
};

int options_parse_size(const char *text, uint64_t *ret)
{
	static const char suffixes[] = "KMG";
	char *end;
	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	unsigned long long n = strtoull(text, &end, 10);
	const char *suffix = *end ? strchr(suffixes, toupper((unsigned char)*end)) : NULL;
	if (errno || !suffix || end[1])
		return -EINVAL;
	unsigned shift = 10 * (unsigned)(suffix - suffixes + 1);
	if (n > UINT64_MAX >> shift)
		return -EINVAL;
	*ret = (uint64_t)n << shift;
	return 0;
}

static int parse_memory(struct options *o, const char *value, struct error *err)
{
	uint64_t size;
	if (options_parse_size(value, &size) < 0)
		return error_set(err, EINVAL,
				 "--memory %s: not a size; give a number with K, M or G, such as 1G", value);
	if (size < VM_MIN_MEMORY || size > VM_MAX_MEMORY || size % MIB(1))
		return error_set(err, EINVAL,
				 "--memory %s: not possible; give whole megabytes from 16M to 1024G", value);
	o->vm.memory = size;
	return 0;
}

static int parse_cpus(struct options *o, const char *value, struct error *err)
{
	char *end;
	errno = 0;
	unsigned long n = strtoul(value, &end, 10);
	if (errno || *end || !isdigit((unsigned char)*value) || n < 1 || n > VM_MAX_CPUS)
		return error_set(err, EINVAL, "--cpus %s: not possible; give a number from 1 to %d", value,
				 VM_MAX_CPUS);
	o->vm.nr_cpus = (unsigned)n;
	return 0;
}

static bool is_word(const char *p, size_t n, const char *word)
{
	return strlen(word) == n && !strncmp(p, word, n);
}

#define DISK_BUSES "bus=virtio, bus=ide, bus=ahci, bus=scsi, bus=usb"
#define CD_BUSES   "bus=ide, bus=ahci, bus=scsi or bus=usb"

static const struct {
	const char *word;
	enum vm_bus bus;
} buses[] = {
	{ "bus=virtio", VM_BUS_VIRTIO }, { "bus=ide", VM_BUS_IDE }, { "bus=ahci", VM_BUS_AHCI },
	{ "bus=scsi", VM_BUS_SCSI },     { "bus=usb", VM_BUS_USB },
};

static bool is_bus(const char *p, size_t n, enum vm_bus *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(buses); i++) {
		if (!is_word(p, n, buses[i].word))
			continue;
		*ret = buses[i].bus;
		return true;
	}
	return false;
}

/* FILE[,bus=BUS]: only a bus at the end is an option, so a FILE may contain commas. */
static int parse_cdrom(struct options *o, const char *value, struct error *err)
{
	if (o->vm.nr_cds == VM_MAX_CDS)
		return error_set(err, EINVAL, "--cdrom %s: too many; give at most %d discs", value,
				 VM_MAX_CDS);
	struct vm_disk *d = &o->vm.cds[o->vm.nr_cds];
	const char *comma = strrchr(value, ',');
	size_t len = strlen(value);
	*d = (struct vm_disk){ .readonly = true, .bus = VM_BUS_IDE };
	if (comma && !strncmp(comma, ",bus=", 5)) {
		if (!is_bus(comma + 1, strlen(comma + 1), &d->bus) || d->bus == VM_BUS_VIRTIO)
			return error_set(err, EINVAL, "--cdrom %s: no CD drive has this bus; use " CD_BUSES,
					 value);
		len = (size_t)(comma - value);
	}
	if (!len)
		return error_set(err, EINVAL, "--cdrom %s: names no file; give FILE[,bus=BUS]", value);
	d->path = strndup(value, len);
	if (!d->path)
		return error_set(err, ENOMEM, "no memory; free some and try again");
	o->vm.nr_cds++;
	return 0;
}

/* FILE[,readonly][,bus=BUS][,format=raw]: what follows the first comma is options, so a FILE cannot contain
 * one. */
static int parse_disk(struct options *o, const char *value, struct error *err)
{
	if (o->vm.nr_disks == VM_MAX_DISKS)
		return error_set(err, EINVAL, "--disk %s: too many; give at most %d disks", value,
				 VM_MAX_DISKS);
	struct vm_disk *d = &o->vm.disks[o->vm.nr_disks];
	size_t len = strcspn(value, ",");
	if (!len)
		return error_set(err, EINVAL, "--disk %s: names no file; give FILE[,readonly][,format=raw]",
				 value);
	bool readonly = false;
	enum vm_bus bus = VM_BUS_VIRTIO;
	for (const char *p = value + len; *p;) {
		p++;
		size_t n = strcspn(p, ",");
		if (is_word(p, n, "readonly"))
			readonly = true;
		else if (!is_bus(p, n, &bus) && !is_word(p, n, "format=raw"))
			return error_set(err, EINVAL,
					 "--disk %s: \"%.*s\" is not an option; use readonly, " DISK_BUSES
					 " and format=raw (a file name with a comma needs a link without)",
					 value, (int)n, p);
		p += n;
	}
	d->path = strndup(value, len);
	if (!d->path)
		return error_set(err, ENOMEM, "no memory; free some and try again");
	d->readonly = readonly;
	d->bus = bus;
	o->vm.nr_disks++;
	return 0;
}

/* FILE[,readonly]: only that at the end is an option, so a FILE may contain commas. */
static int parse_floppy(struct options *o, const char *value, struct error *err)
{
	struct vm_disk *d = &o->vm.floppies[o->vm.nr_floppies];
	const char *comma = strrchr(value, ',');
	bool readonly = comma && !strcmp(comma, ",readonly");
	size_t len = readonly ? (size_t)(comma - value) : strlen(value);
	if (o->vm.nr_floppies == VM_MAX_FLOPPIES)
		return error_set(err, EINVAL, "--floppy %s: too many; give at most %d diskettes", value,
				 VM_MAX_FLOPPIES);
	if (!len)
		return error_set(err, EINVAL, "--floppy %s: names no file; give FILE[,readonly]", value);
	d->path = strndup(value, len);
	if (!d->path)
		return error_set(err, ENOMEM, "no memory; free some and try again");
	d->readonly = readonly;
	o->vm.nr_floppies++;
	return 0;
}

/* FILE[ ARGUMENTS] */
static int parse_module(struct options *o, const char *value, struct error *err)
{
	if (o->vm.nr_modules == VM_MAX_MODULES)
		return error_set(err, EINVAL, "--module %s: too many; give at most %d", value,
				 VM_MAX_MODULES);
	o->vm.modules[o->vm.nr_modules++] = value;
	return 0;
}

static int parse_net(struct options *o, const char *value, struct error *err)
{
	if (!strcmp(value, "none")) {
		o->vm.net = false;
		return 0;
	}
	/* model= is the card's; the rest is the network's. */
	static const struct {
		const char *text;
		enum vm_nic nic;
	} models[] = { { ",model=virtio", VM_NIC_VIRTIO }, { ",model=e1000", VM_NIC_E1000 } };
	_cleanup_free_ char *network = strdup(value);
	char *model = network ? strstr(network, ",model=") : NULL;
	if (!network)
		return error_set(err, ENOMEM, "no memory; free some and try again");
	if (model) {
		size_t n = strcspn(model + 1, ",") + 1, i = 0;
		while (i < ARRAY_SIZE(models) && !is_word(model, n, models[i].text))
			i++;
		if (i == ARRAY_SIZE(models))
			return error_set(
			    err, EINVAL,
			    "--net %s: the card's model is not known; use model=virtio or model=e1000",
			    value);
		o->vm.nic = models[i].nic;
		memmove(model, model + n, strlen(model + n) + 1);
	}
	int r = net_user_parse(network, &o->vm.net_user, err);
	if (!r)
		o->vm.net = true;
	return r;
}

/* The first one is COM1, the second COM2. */
static int parse_serial(struct options *o, const char *value, struct error *err)
{
	static const struct {
		const char *prefix;
		enum vm_serial kind;
	} kinds[] = { { "file:", VM_SERIAL_FILE },
		      { "unix:", VM_SERIAL_UNIX },
		      { "none", VM_SERIAL_NONE },
		      { "stdio", VM_SERIAL_STDIO } };
	enum vm_serial *kind = o->nr_serials ? &o->vm.serial2 : &o->vm.serial;
	const char **path = o->nr_serials ? &o->vm.serial2_path : &o->vm.serial_path;
	size_t i = 0, n = 0;
	if (o->nr_serials == 2)
		return error_set(err, EINVAL, "--serial %s: too many; a PC has two serial ports", value);
	for (; i < ARRAY_SIZE(kinds); i++) {
		n = strlen(kinds[i].prefix);
		/* A path follows the colon, nothing follows a word. */
		if (!strncmp(value, kinds[i].prefix, n) && !value[n] == (kinds[i].prefix[n - 1] != ':'))
			break;
	}
	if (i == ARRAY_SIZE(kinds))
		return error_set(err, EINVAL,
				 "--serial %s: not possible; give stdio, none, file:PATH or unix:PATH",
				 value);
	if (o->nr_serials && kinds[i].kind == VM_SERIAL_STDIO)
		return error_set(err, EINVAL,
				 "--serial stdio: for COM1 only; give none, file:PATH or unix:PATH for COM2");
	*kind = kinds[i].kind;
	*path = value + n;
	o->nr_serials++;
	return 0;
}

static int parse_parallel(struct options *o, const char *value, struct error *err)
{
	bool file = !strncmp(value, "file:", 5) && value[5];
	if (!file && strcmp(value, "none") != 0)
		return error_set(err, EINVAL, "--parallel %s: not possible; give none or file:PATH", value);
	o->vm.parallel = file ? value + 5 : NULL;
	return 0;
}

static int read_password(const char *path, char **ret, struct error *err)
{
	char line[64];
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	if (!f || !fgets(line, sizeof(line), f))
		return error_set(
		    err, EINVAL,
		    "--display: password-file=%s: %s; give a file with the password in its first "
		    "line",
		    path, f ? "empty" : strerror(errno));
	line[strcspn(line, "\r\n")] = 0;
	*ret = strdup(line);
	return *ret ? 0 : error_set(err, ENOMEM, "no memory; free some and try again");
}

/* none|window|vnc=ADDR[,password=TEXT|,password-file=FILE] */
static int parse_display(struct options *o, const char *value, struct error *err)
{
	if (!strcmp(value, "none"))
		return 0;
	if (!strcmp(value, "window")) {
		o->vm.window = true;
		return 0;
	}
	size_t len = strcspn(value, ",");
	if (strncmp(value, "vnc=", 4) != 0 || len == 4)
		return error_set(
		    err, EINVAL,
		    "--display %s: not possible; give none, window, or vnc=ADDR:PORT, vnc=:PORT or "
		    "vnc=unix:PATH, and perhaps ,password=TEXT or ,password-file=FILE",
		    value);
	const char *rest = value + len;
	int r = 0;
	if (!strncmp(rest, ",password=", 10) && rest[10])
		o->vnc_password = strdup(rest + 10);
	else if (!strncmp(rest, ",password-file=", 15) && rest[15])
		r = read_password(rest + 15, &o->vnc_password, err);
	else if (*rest)
		r = error_set(
		    err, EINVAL,
		    "--display %s: \"%s\" is not an option; use password=TEXT or password-file=FILE", value,
		    rest + 1);
	if (r)
		return r;
	if (o->vnc_password && (!*o->vnc_password || strlen(o->vnc_password) > 8))
		return error_set(err, EINVAL,
				 "--display: a VNC password has 1 to 8 characters; give one of that length");
	o->vnc = strndup(value + 4, len - 4);
	o->vm.vnc = o->vnc;
	o->vm.vnc_password = o->vnc_password;
	return o->vnc ? 0 : error_set(err, ENOMEM, "no memory; free some and try again");
}

/* unix:PATH|on */
static int parse_control(struct options *o, const char *value, struct error *err)
{
	o->control_by_name = !strcmp(value, "on");
	if (!o->control_by_name && (strncmp(value, "unix:", 5) != 0 || !value[5]))
		return error_set(
		    err, EINVAL,
		    "--control %s: not possible; give unix:PATH, or on for a place by the VM's name", value);
	o->vm.control = o->control_by_name ? NULL : value + 5;
	return 0;
}

/* WHAT[,vars=FILE] */
static int parse_firmware(struct options *o, const char *value, struct error *err)
{
	const char *vars = strstr(value, ",vars=");
	size_t len = vars ? (size_t)(vars - value) : strlen(value);
	if (!len || (vars && !vars[6]))
		return error_set(err, EINVAL,
				 "--firmware %s: names no file; give bios, uefi, uefi-secure or PATH, and "
				 "perhaps ,vars=FILE",
				 value);
	o->firmware = strndup(value, len);
	if (!o->firmware)
		return error_set(err, ENOMEM, "no memory; free some and try again");
	o->vm.firmware = o->firmware;
	o->vm.firmware_vars = vars ? vars + 6 : NULL;
	return 0;
}

/* disk|cdrom|floppy|network[,...][,menu] */
static int parse_boot(struct options *o, const char *value, struct error *err)
{
	static const char *const kinds[] = { NULL, "disk", "cdrom", "floppy", "network" };
	unsigned nr = 0;
	memset(o->vm.boot, 0, sizeof(o->vm.boot));
	for (const char *p = value;; p++) {
		size_t n = strcspn(p, ",");
		unsigned kind = 0;
		for (unsigned i = 1; i < ARRAY_SIZE(kinds); i++)
			if (strlen(kinds[i]) == n && !strncmp(p, kinds[i], n))
				kind = i;
		for (unsigned i = 0; i < nr; i++)
			if (kind && o->vm.boot[i] == kind)
				return error_set(err, EINVAL, "--boot %s: %s is there twice; name it once",
						 value, kinds[kind]);
		if (kind)
			o->vm.boot[nr++] = (enum vm_boot)kind;
		else if (n == 4 && !strncmp(p, "menu", n))
			o->vm.boot_menu = true;
		else
			return error_set(
			    err, EINVAL,
			    "--boot %s: \"%.*s\" is nothing to boot from; use disk, cdrom, floppy and "
			    "network, in the order in which to try them, and menu for a menu",
			    value, (int)n, p);
		p += n;
		if (!*p)
			break;
	}
	o->boot_given = true;
	return 0;
}

static int parse_usb(struct options *o, const char *value, struct error *err)
{
	if (strcmp(value, "none") != 0 && strcmp(value, "xhci") != 0)
		return error_set(err, EINVAL, "--usb %s: there is no such controller; give xhci or none",
				 value);
	o->vm.no_usb = !strcmp(value, "none");
	return 0;
}

static int parse_vga(struct options *o, const char *value, struct error *err)
{
	(void)err;
	o->vm.vga = !strcmp(value, "none")     ? VM_VGA_NONE
		    : !strcmp(value, "virtio") ? VM_VGA_VIRTIO
					       : VM_VGA_STD;
	return 0;
}

static int parse_input(struct options *o, const char *value, struct error *err)
{
	(void)err;
	o->vm.virtio_input = !strcmp(value, "virtio");
	return 0;
}

static int parse_debug_exit(struct options *o, const char *value, struct error *err)
{
	char *end;
	unsigned long port = strtoul(value, &end, 0);
	if (!*value || *end || port < 1 || port > 0xfffc)
		return error_set(err, EINVAL, "--debug-exit %s: not a port; give one such as 0xf4", value);
	o->vm.debug_exit = (uint16_t)port;
	return 0;
}

static int parse_testdev(struct options *o, const char *value, struct error *err)
{
	(void)value;
	(void)err;
	o->vm.testdev = true;
	return 0;
}

static int parse_no_reboot(struct options *o, const char *value, struct error *err)
{
	(void)value;
	(void)err;
	o->vm.no_reboot = true;
	return 0;
}

static int parse_stats(struct options *o, const char *value, struct error *err)
{
	(void)value;
	(void)err;
	o->stats = true;
	return 0;
}

static int parse_help(struct options *o, const char *value, struct error *err)
{
	(void)value;
	(void)err;
	o->help = true;
	return 0;
}

static const char *const engines[] = { "auto", "bt", NULL };
static const char *const tiers[] = { "auto", "interp", "t1", "lockstep", NULL };
static const char *const vgas[] = { "std", "virtio", "none", NULL };
static const char *const inputs[] = { "ps2", "virtio", NULL };
static const char *const cpus[] = { "host", "v2", "v3", NULL };

#define STRING(member) offsetof(struct options, vm.member)

/* clang-format off */
static const struct option table[] = {
	{ "kernel", "FILE", "boot this kernel directly: bzImage, ELF vmlinux, Multiboot", NULL, STRING(kernel), NULL, false },
	{ "initrd", "FILE", "initial RAM disk for it", NULL, STRING(initrd), NULL, false },
	{ "module", "FILE[ ARGUMENTS]", "module for a Multiboot kernel; repeat for more", NULL, 0, parse_module, true },
	{ "append", "STRING", "kernel command line", NULL, STRING(cmdline), NULL, false },
	{ "firmware", "bios|uefi|uefi-secure|PATH[,vars=FILE]", "start from firmware (default bios, without --kernel)", NULL, 0, parse_firmware, false },
	{ "boot", "ORDER", "what firmware tries: disk,cdrom,floppy,network in any order; menu", NULL, 0, parse_boot, false },
	{ "firmware-log", "FILE", "where firmware's debug messages go", NULL, STRING(firmware_log), NULL, false },
	{ "memory", "SIZE", "memory, with suffix K, M or G (default 1G)", NULL, 0, parse_memory, false },
	{ "cpus", "N", "virtual processors, 1 to 16 (default 1)", NULL, 0, parse_cpus, false },
	{ "cpu", "MODEL", "what they look like: host, v2 or v3 (default host)", cpus, STRING(cpu), NULL, false },
	{ "disk", "FILE[,readonly][,bus=virtio|ide|ahci|scsi|usb]", "disk image; repeat for more (default bus virtio)", NULL, 0, parse_disk, true },
	{ "cdrom", "FILE[,bus=ide|ahci|scsi|usb]", "disc image (ISO) in a CD-ROM drive; repeat for more", NULL, 0, parse_cdrom, true },
	{ "floppy", "FILE[,readonly]", "diskette image in a floppy drive; repeat for a second", NULL, 0, parse_floppy, true },
	{ "net", "user[,hostfwd=tcp:ADDR:PORT-:PORT][,model=virtio|e1000]|none", "network (default user: NAT); also tftp=DIR, bootfile=NAME, restrict=on", NULL, 0, parse_net, false },
	{ "display", "none|window|vnc=ADDR:PORT[,password=TEXT]", "where the screen is shown (default none); also vnc=unix:PATH", NULL, 0, parse_display, false },
	{ "vga", "std|virtio|none", "graphics card: VGA, or virtio-gpu without VGA (default std)", vgas, 0, parse_vga, false },
	{ "input", "ps2|virtio", "keyboard and mouse; virtio adds a keyboard and a tablet (default ps2)", inputs, 0, parse_input, false },
	{ "usb", "xhci|none", "USB controller, with keyboard and tablet if there is a screen (default xhci)", NULL, 0, parse_usb, false },
	{ "control", "unix:PATH|on", "socket for sill ctl (on: found by the VM's --name)", NULL, 0, parse_control, false },
	{ "serial", "stdio|none|file:PATH|unix:PATH", "where COM1 goes (default stdio); a second time: COM2 (default none)", NULL, 0, parse_serial, true },
	{ "parallel", "none|file:PATH", "what the parallel port prints into (default none)", NULL, 0, parse_parallel, false },
	{ "engine", "ENGINE", "what runs the processors: auto or bt (default auto)", engines, STRING(engine), NULL, false },
	{ "tier", "TIER", "highest tier of the bt engine: auto, interp or t1", tiers, STRING(tier), NULL, false },
	{ "name", "NAME", "name of the VM, for messages", NULL, STRING(name), NULL, false },
	{ "no-reboot", NULL, "a guest that resets the machine ends it: status 0, by a triple fault 3", NULL, 0, parse_no_reboot, false },
	{ "debug-exit", "PORT", "a write of N to this port ends Sill with status 2N+1", NULL, 0, parse_debug_exit, false },
	{ "testdev", NULL, "add the device that test suites for VMs use (pc-testdev)", NULL, 0, parse_testdev, false },
	{ "stress", "LIST", "make rare things in the engine frequent, for tests", NULL, STRING(stress), NULL, false },
	{ "stats", NULL, "print what the engine did when the VM ends", NULL, 0, parse_stats, false },
	{ "help", NULL, "this", NULL, 0, parse_help, false },
};
/* clang-format on */

void options_print_help(FILE *f)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		char left[80];
		snprintf(left, sizeof(left), "--%s%s%s", table[i].name, table[i].argument ? " " : "",
			 table[i].argument ? table[i].argument : "");
		/* A long left column gets a line of its own. */
		if (strlen(left) > 24)
			fprintf(f, "  %s\n  %-24s  %s\n", left, "", table[i].help);
		else
			fprintf(f, "  %-24s  %s\n", left, table[i].help);
	}
}

static int check_choice(const struct option *opt, const char *value, struct error *err)
{
	char all[128] = "";
	if (!opt->choices)
		return 0;
	for (const char *const *c = opt->choices; *c; c++) {
		if (!strcmp(*c, value))
			return 0;
		size_t n = strlen(all);
		snprintf(all + n, sizeof(all) - n, "%s%s", n ? ", " : "", *c);
	}
	return error_set(err, EINVAL, "--%s %s: not known; choose from %s", opt->name, value, all);
}

static const struct option *find_option(const char *name, size_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (strlen(table[i].name) == len && !strncmp(table[i].name, name, len))
			return &table[i];
	return NULL;
}

static int apply(const struct option *opt, const char *value, struct options *o, struct error *err)
{
	int r = check_choice(opt, value, err);
	if (r)
		return r;
	if (opt->parse)
		return opt->parse(o, value, err);
	*(const char **)((char *)o + opt->string) = value;
	return 0;
}

static int check_together(const struct options *o, struct error *err)
{
	if (o->help)
		return 0;
	const struct vm_config *c = &o->vm;
	if (c->kernel && c->firmware)
		return error_set(err, EINVAL,
				 "--kernel and --firmware: a VM starts from one of them; give one");
	if (c->kernel && (o->boot_given || c->firmware_log))
		return error_set(err, EINVAL,
				 "--boot and --firmware-log are for firmware; leave them out with --kernel");
	if (c->vga == VM_VGA_NONE && (c->vnc || c->window))
		return error_set(
		    err, EINVAL,
		    "--vga none and --display: there is no screen to show; leave one of them out");
	if (!c->kernel && (c->initrd || c->nr_modules || c->cmdline[0]))
		return error_set(err, EINVAL,
				 "--initrd, --module and --append go with a kernel; give --kernel FILE too");
	for (unsigned i = 0; c->no_usb && i < c->nr_disks + c->nr_cds; i++) {
		const struct vm_disk *d = i < c->nr_disks ? &c->disks[i] : &c->cds[i - c->nr_disks];
		if (d->bus == VM_BUS_USB)
			return error_set(err, EINVAL,
					 "%s,bus=usb needs a USB controller; leave out --usb none", d->path);
	}
	if (!c->kernel && !c->firmware && !c->nr_disks && !c->nr_cds && !c->nr_floppies && !o->boot_given)
		return error_set(
		    err, EINVAL,
		    "nothing to boot; give --disk FILE, --cdrom FILE, --kernel FILE or --boot network");
	return 0;
}

int options_parse(int argc, char *const *argv, struct options *ret, struct error *err)
{
	uint64_t seen = 0;
	int r;
	*ret = (struct options){
		.vm = { .name = "vm",
			.engine = "auto",
			.tier = "auto",
			.cpu = "host",
			.nr_cpus = 1,
			.memory = GIB(1),
			.cmdline = "",
			.net = true,
			.boot = { VM_BOOT_DISK, VM_BOOT_CDROM, VM_BOOT_FLOPPY },
			.serial = VM_SERIAL_STDIO,
			.serial2 = VM_SERIAL_NONE },
	};
	for (int i = 0; i < argc; i++) {
		const char *arg = argv[i];
		if (strncmp(arg, "--", 2) != 0)
			return error_set(
			    err, EINVAL,
			    "\"%s\" is not an option; options begin with --, see sill run --help", arg);
		size_t len = strcspn(arg + 2, "=");
		const struct option *opt = find_option(arg + 2, len);
		if (!opt)
			return error_set(err, EINVAL, "there is no option %s; see sill run --help", arg);
		const char *value = arg[2 + len] ? arg + 2 + len + 1 : NULL;
		if (!opt->argument && value)
			return error_set(err, EINVAL, "--%s takes no value; leave \"=%s\" out", opt->name,
					 value);
		if (opt->argument && !value) {
			if (i + 1 == argc)
				return error_set(err, EINVAL, "--%s needs a value: %s", opt->name,
						 opt->argument);
			value = argv[++i];
		}
		if (opt->argument && !*value && opt->string != STRING(cmdline))
			return error_set(err, EINVAL, "--%s has an empty value; give %s", opt->name,
					 opt->argument);
		uint64_t bit = 1ull << (opt - table);
		if ((seen & bit) && !opt->repeatable)
			return error_set(err, EINVAL, "--%s is given twice; give it once", opt->name);
		seen |= bit;
		r = apply(opt, value, ret, err);
		if (r)
			return r;
	}
	r = check_together(ret, err);
	if (!r && !ret->vm.kernel && !ret->vm.firmware)
		ret->vm.firmware = "bios";
	return r;
}

void options_free(struct options *o)
{
	for (unsigned i = 0; i < o->vm.nr_disks; i++)
		free(o->vm.disks[i].path);
	o->vm.nr_disks = 0;
	for (unsigned i = 0; i < o->vm.nr_cds; i++)
		free(o->vm.cds[i].path);
	o->vm.nr_cds = 0;
	for (unsigned i = 0; i < o->vm.nr_floppies; i++)
		free(o->vm.floppies[i].path);
	o->vm.nr_floppies = 0;
	free(o->firmware);
	free(o->vnc);
	free(o->vnc_password);
	o->firmware = o->vnc = o->vnc_password = NULL;
}
