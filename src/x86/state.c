/* SPDX-License-Identifier: Apache-2.0 */
#include "x86/state.h"

#include <string.h>

void x86_state_reset(struct x86_state *s)
{
	uint64_t offset = s->tsc_offset, adjust = s->tsc_adjust;
	uint16_t fcw = 0x37f;
	uint32_t mxcsr = 0x1f80;

	memset(s, 0, sizeof *s);
	s->tsc_offset = offset;
	s->tsc_adjust = adjust;
	s->rip = 0xfff0;
	s->rflags = FLAG_R1;
	s->cr0 = CR0_ET | CR0_CD | CR0_NW;
	s->gpr[RDX] = 0x600;
	for (int i = 0; i < SEG_COUNT; i++)
		s->seg[i] = (struct x86_seg){ .limit = 0xffff, .attr = SEG_P | SEG_S | 3 };
	s->seg[SEG_CS].sel = 0xf000;
	s->seg[SEG_CS].base = 0xffff0000u;
	s->seg[SEG_CS].attr = SEG_P | SEG_S | 0xb;
	s->ldtr = (struct x86_seg){ .limit = 0xffff, .attr = SEG_P | 2 };
	s->tr = (struct x86_seg){ .limit = 0xffff, .attr = SEG_P | 0xb };
	s->gdtr.limit = s->idtr.limit = 0xffff;
	s->dr6 = 0xffff0ff0;
	s->dr7 = 0x400;
	s->xcr0 = 1;
	s->pat = 0x0007040600070406ull;
	s->misc_enable = 1;
	/*
	 * As FNINIT leaves it, which a PC's firmware executes, but SeaBIOS does not, and systems that use the
	 * FPU without doing so rely on. RESET itself makes FCW 0040h: with all exceptions unmasked and the
	 * stack full, the first load would be an error.
	 */
	memcpy(s->xsave, &fcw, 2);
	memcpy(s->xsave + 24, &mxcsr, 4);
	s->xsave[512] = 1;
}
