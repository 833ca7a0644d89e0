/* SPDX-License-Identifier: Apache-2.0 */
/* C that translated code calls while guest vector registers are live. General-regs-only. */
#include "engine/bt/mmu.h"
#include "engine/bt/t1_internal.h"

uint64_t t1_slow_mem(struct vcpu *v, uint64_t va, uint32_t info)
{
	unsigned size = info & 0xff, acc = mmu_acc(v) | ((info & 0x100) ? ACC_W : ACC_R);
	uint64_t pa;
	void *host;
	bool code;

	/* Page crossings, non-canonical addresses, devices and faults are the interpreter's. */
	if (!size || (va & 0xfff) + size > PAGE_SIZE || !canonical(va) || v->dr_watch)
		return 1;
	v->st.rflags = (v->st.rflags & ~(uint64_t)FLAG_AC) | (v->acflag ? FLAG_AC : 0);
	if (mmu_host(v, va, acc, &host, &pa, &code) || !host || code) {
		v->exc.present = false;
		return 1;
	}
	return 0;
}
