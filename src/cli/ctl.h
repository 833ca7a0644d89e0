/* SPDX-License-Identifier: Apache-2.0 */
/* `sill ctl`: speaks to a running VM through its control socket (docs/control.md). */
#ifndef SILL_CLI_CTL_H
#define SILL_CLI_CTL_H

#include <stddef.h>

#include "base/error.h"

/* argv: what follows "ctl". Returns the exit status. */
int command_ctl(int argc, char **argv);
/* Where the control socket of the VM of this name is: malloc'd; NULL: no memory, or the name is no file name.
 */
char *control_default_path(const char *name);
/* Makes the folder of that path, for this user alone. 0 or -errno with one sentence. */
int control_make_folder(const char *path, struct error *err);

#endif
