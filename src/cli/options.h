/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of `sill run`. */
#ifndef SILL_CLI_OPTIONS_H
#define SILL_CLI_OPTIONS_H

#include <stdio.h>

#include "base/error.h"
#include "vm/config.h"

struct options {
	struct vm_config vm;
	char *firmware;           /* allocated: what vm.firmware points to */
	char *vnc, *vnc_password; /* allocated, likewise */
	bool boot_given;
	unsigned nr_serials;
	bool control_by_name; /* the control socket is where the VM's name says */
	bool stats;
	bool help;
};

/*
 * Parses argv[0..argc) (without the program's name and "run") and checks every
 * value that can be checked without opening anything. Defaults for what is not
 * given. 0, or -EINVAL with a sentence that names the option, its value and what
 * would be allowed. Free with options_free in either case.
 */
int options_parse(int argc, char *const *argv, struct options *ret, struct error *err);
void options_free(struct options *o);
/* One line per option. */
void options_print_help(FILE *f);

/* A size such as 512M or 2G, in bytes. Exposed for tests. */
int options_parse_size(const char *text, uint64_t *ret);

#endif
