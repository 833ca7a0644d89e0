/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line.  Exit status: 0 the guest powered off (or Ctrl-A x), 1 an
 * error, 2 wrong usage, 3 the guest crashed; each but 0 with one sentence on
 * standard error.
 */
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "base/log.h"
#include "base/util.h"
#include "cli/ctl.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "vm/vm.h"

enum { EXIT_GUEST_OFF = 0, EXIT_ERROR = 1, EXIT_USAGE = 2, EXIT_GUEST_CRASH = 3 };

/* For the signal handler: the VM that this process runs, and what ended it. */
static struct vm *volatile running;
static volatile sig_atomic_t ended_by;

static void on_signal(int sig)
{
	ended_by = sig;
	if (running)
		vm_quit(running);
}

static void catch_signals(void)
{
	static const int ending[] = { SIGTERM, SIGINT, SIGHUP };
	for (size_t i = 0; i < ARRAY_SIZE(ending); i++) {
		struct sigaction sa = { .sa_handler = on_signal }, old;
		/* nohup and the like: what is ignored stays so. */
		if (sigaction(ending[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
			sigaction(ending[i], &sa, NULL);
	}
	signal(SIGPIPE, SIG_IGN);
}

/* As many descriptors as there may be: each stub has one, and so has each of the guest's connections. */
static void raise_descriptors(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) || r.rlim_cur == r.rlim_max)
		return;
	r.rlim_cur = r.rlim_max;
	setrlimit(RLIMIT_NOFILE, &r);
}

/* Large pieces of memory that are freed (kernels, pictures of screens) go back to the host, those of a later
 * size too: without this, the allocator keeps what is smaller than the largest that was freed before. */
static void return_large_memory(void)
{
	mallopt(M_MMAP_THRESHOLD, 1 << 20);
}

static int report(enum vm_end end, const struct vm_config *c, uint8_t status, const struct error *why)
{
	switch (end) {
	case VM_END_POWEROFF:
	case VM_END_RESET:
	case VM_END_USER:
		return EXIT_GUEST_OFF;
	case VM_END_STATUS:
		return status;
	case VM_END_CRASH:
		log_error("%s: the guest crashed: %s", c->name, why->message);
		return EXIT_GUEST_CRASH;
	case VM_END_QUIT:
		log_error("%s: ended by signal %d (%s)", c->name, (int)ended_by, strsignal(ended_by));
		return EXIT_ERROR;
	case VM_END_ERROR:
		break;
	}
	log_error("%s", why->message);
	return EXIT_ERROR;
}

static int run_vm(struct options *o)
{
	struct error err = { "" };
	_cleanup_free_ char *control = NULL;
	struct vm *vm;
	if (o->control_by_name) {
		control = control_default_path(o->vm.name);
		if (!control) {
			log_error(
			    "--name %s: not usable in a file name, which --control on needs; give --control "
			    "unix:PATH",
			    o->vm.name);
			return EXIT_USAGE;
		}
		if (control_make_folder(control, &err) < 0) {
			log_error("%s", err.message);
			return EXIT_ERROR;
		}
		o->vm.control = control;
	}
	raise_descriptors();
	return_large_memory();
	catch_signals();
	if (vm_new(&o->vm, &vm, &err) < 0) {
		log_error("%s", err.message);
		return EXIT_ERROR;
	}
	if (o->vm.serial == VM_SERIAL_STDIO && terminal_raw(&err) < 0) {
		log_error("%s", err.message);
		vm_free(vm);
		return EXIT_ERROR;
	}
	running = vm;
	if (ended_by) /* it came before there was a VM to tell */
		vm_quit(vm);
	enum vm_end end = vm_run(vm, &err);
	running = NULL;
	if (o->stats)
		vm_print_stats(vm, stderr);
	uint8_t status = vm_exit_status(vm);
	vm_free(vm); /* writes out what the guest last said */
	terminal_restore();
	return report(end, &o->vm, status, &err);
}

static int command_run(int argc, char **argv)
{
	struct options o;
	struct error err;
	int status;
	if (options_parse(argc, argv, &o, &err) < 0) {
		log_error("%s", err.message);
		status = EXIT_USAGE;
	} else if (o.help) {
		printf("usage: sill run --disk FILE | --cdrom FILE | --kernel FILE [options]\n\n");
		options_print_help(stdout);
		printf("\nExit status: 0 the guest powered off, 1 error, 2 usage, 3 the guest crashed.\n"
		       "On the console, Ctrl-A x ends the VM and Ctrl-A h shows help.\n");
		status = 0;
	} else {
		status = run_vm(&o);
	}
	options_free(&o);
	return status;
}

static int command_help(void)
{
	printf(
	    "usage: sill run --disk FILE | --cdrom FILE | --kernel FILE [options]\n"
	    "       sill ctl VM COMMAND [ARGUMENT...]\n"
	    "       sill --help | --version\n\n"
	    "Sill runs unmodified operating systems in virtual machines, without VT-x and without root.\n\n"
	    "Options of sill run:\n");
	options_print_help(stdout);
	printf("\nMore in sill(1).\n");
	return 0;
}

int main(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "";
	if (!strcmp(command, "run"))
		return command_run(argc - 2, argv + 2);
	if (!strcmp(command, "ctl"))
		return command_ctl(argc - 2, argv + 2);
	if (!strcmp(command, "--help") || !strcmp(command, "-h") || !strcmp(command, "help"))
		return command_help();
	if (!strcmp(command, "--version")) {
		printf("sill %s\n", SILL_VERSION);
		return 0;
	}
	if (argc < 2)
		log_error("nothing to do; try sill run --cdrom FILE, or sill --help");
	else
		log_error("there is no command \"%s\"; try sill run, sill ctl or sill --help", command);
	return EXIT_USAGE;
}
