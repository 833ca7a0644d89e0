/* SPDX-License-Identifier: Apache-2.0 */
/* What translated code asks a processor's board without leaving: general-regs-only. */
#include "vm/vm_internal.h"

bool vm_cpu_peek(void *opaque, uint64_t pa, uint32_t *value)
{
	return lapic_peek(((struct vm_cpu *)opaque)->lapic, pa, value);
}
