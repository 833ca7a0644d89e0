/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Error reports that a person reads.
 *
 * Functions return 0 or -errno.  Where a user will see the cause, the last
 * parameter is a `struct error *`: one sentence that names the file, the value
 * and the remedy.  The innermost function that knows the cause fills it; its
 * callers pass it up untouched.  A NULL error pointer is allowed everywhere.
 */
#ifndef SILL_BASE_ERROR_H
#define SILL_BASE_ERROR_H

struct error {
	char message[512];
};

/* Formats the sentence into err (may be NULL) and returns -code. code > 0 (an errno value). */
int error_set(struct error *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
