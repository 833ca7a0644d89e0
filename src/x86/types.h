/* SPDX-License-Identifier: Apache-2.0 */
/* Guest addresses. Distinct structs, so that the compiler catches a mix-up of physical and virtual. */
#ifndef SILL_X86_TYPES_H
#define SILL_X86_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
	uint64_t v;
} gpa_t; /* guest-physical address */
typedef struct {
	uint64_t v;
} gva_t; /* guest-virtual (linear) address */

#define GPA(x) ((gpa_t){ (x) })
#define GVA(x) ((gva_t){ (x) })

#define PAGE_SIZE 4096ull
#define PAGE_MASK (~(PAGE_SIZE - 1))

#endif
