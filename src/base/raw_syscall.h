/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SILL_BASE_RAW_SYSCALL_H
#define SILL_BASE_RAW_SYSCALL_H

/* A system call from general-regs-only code, where libc must not be called. The kernel's result: -errno for
 * an error. */
static inline long raw_syscall4(long nr, unsigned long a, unsigned long b, unsigned long c, unsigned long d)
{
	register unsigned long r10 __asm__("r10") = d;

	__asm__ volatile("syscall" : "+a"(nr) : "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
	return nr;
}

#endif
