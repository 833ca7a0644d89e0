/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The architectural state of one vCPU, exact to the manual: the only CPU state
 * that is ever saved or sent.  Engines keep what they like beside it, but this
 * is what they agree on at every instruction boundary where they stop.
 */
#ifndef SILL_X86_STATE_H
#define SILL_X86_STATE_H

#include "x86/types.h"

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };
enum { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_COUNT };

/* RFLAGS */
#define FLAG_CF   (1u << 0)
#define FLAG_R1   (1u << 1)
#define FLAG_PF   (1u << 2)
#define FLAG_AF   (1u << 4)
#define FLAG_ZF   (1u << 6)
#define FLAG_SF   (1u << 7)
#define FLAG_TF   (1u << 8)
#define FLAG_IF   (1u << 9)
#define FLAG_DF   (1u << 10)
#define FLAG_OF   (1u << 11)
#define FLAG_IOPL (3u << 12)
#define FLAG_NT   (1u << 14)
#define FLAG_RF   (1u << 16)
#define FLAG_VM   (1u << 17)
#define FLAG_AC   (1u << 18)
#define FLAG_VIF  (1u << 19)
#define FLAG_VIP  (1u << 20)
#define FLAG_ID   (1u << 21)
/* The six that ordinary arithmetic writes. */
#define FLAGS_ARITH (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)

/* Control registers (SDM 3A 2.5) */
#define CR0_PE (1u << 0)
#define CR0_MP (1u << 1)
#define CR0_EM (1u << 2)
#define CR0_TS (1u << 3)
#define CR0_ET (1u << 4)
#define CR0_NE (1u << 5)
#define CR0_WP (1u << 16)
#define CR0_AM (1u << 18)
#define CR0_NW (1u << 29)
#define CR0_CD (1u << 30)
#define CR0_PG (1u << 31)

#define CR4_VME        (1u << 0)
#define CR4_PVI        (1u << 1)
#define CR4_TSD        (1u << 2)
#define CR4_DE         (1u << 3)
#define CR4_PSE        (1u << 4)
#define CR4_PAE        (1u << 5)
#define CR4_MCE        (1u << 6)
#define CR4_PGE        (1u << 7)
#define CR4_PCE        (1u << 8)
#define CR4_OSFXSR     (1u << 9)
#define CR4_OSXMMEXCPT (1u << 10)
#define CR4_UMIP       (1u << 11)
#define CR4_LA57       (1u << 12)
#define CR4_FSGSBASE   (1u << 16)
#define CR4_PCIDE      (1u << 17)
#define CR4_OSXSAVE    (1u << 18)
#define CR4_SMEP       (1u << 20)
#define CR4_SMAP       (1u << 21)

#define EFER_SCE (1u << 0)
#define EFER_LME (1u << 8)
#define EFER_LMA (1u << 10)
#define EFER_NXE (1u << 11)

/* Exceptions (SDM 3A 6.3) */
enum {
	EXC_DE = 0,
	EXC_DB = 1,
	EXC_NMI = 2,
	EXC_BP = 3,
	EXC_OF = 4,
	EXC_BR = 5,
	EXC_UD = 6,
	EXC_NM = 7,
	EXC_DF = 8,
	EXC_TS = 10,
	EXC_NP = 11,
	EXC_SS = 12,
	EXC_GP = 13,
	EXC_PF = 14,
	EXC_MF = 16,
	EXC_AC = 17,
	EXC_MC = 18,
	EXC_XM = 19,
};

/* Page-fault error code */
#define PF_P    (1u << 0)
#define PF_W    (1u << 1)
#define PF_U    (1u << 2)
#define PF_RSVD (1u << 3)
#define PF_I    (1u << 4)

/* A segment register with its hidden part. `attr` holds descriptor bits 40..55: type, S, DPL, P, limit bits
 * (ignored), AVL, L, D/B, G. */
struct x86_seg {
	uint16_t sel;
	uint16_t attr;
	uint32_t limit; /* in bytes, already scaled by G: the last valid offset */
	uint64_t base;
};

#define SEG_TYPE(a)  ((a)&0xf)
#define SEG_S        (1u << 4)
#define SEG_DPL(a)   (((a) >> 5) & 3)
#define SEG_P        (1u << 7)
#define SEG_AVL      (1u << 12)
#define SEG_L        (1u << 13)
#define SEG_DB       (1u << 14)
#define SEG_G        (1u << 15)
#define SEG_UNUSABLE 0u /* attr without SEG_P: a null selector was loaded */

struct x86_dtable {
	uint64_t base;
	uint16_t limit;
};

#define X86_XSAVE_MAX 4096 /* room for x87..AVX-512 and PKRU in the standard format (2696 bytes needed) */

/* Interrupt shadow. Both hold interrupts off; that of MOV SS and POP SS also debug traps (SDM 3A 6.8.3). */
enum x86_shadow { X86_SHADOW_NONE, X86_SHADOW_STI, X86_SHADOW_SS };

struct x86_state {
	uint64_t gpr[16];
	uint64_t rip;
	uint64_t rflags;
	struct x86_seg seg[SEG_COUNT];
	struct x86_seg ldtr, tr;
	struct x86_dtable gdtr, idtr;
	uint64_t cr0, cr2, cr3, cr4, cr8;
	uint64_t dr[4], dr6, dr7;
	uint64_t xcr0;

	/* MSRs that the CPU owns (the APIC's are the LAPIC's). */
	uint64_t efer, star, lstar, cstar, sfmask, kernel_gs_base;
	uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
	uint64_t pat, tsc_offset, tsc_aux, misc_enable, spec_ctrl, debugctl, tsc_adjust;
	uint64_t mtrr_def_type, mtrr_fixed[11], mtrr_base[8], mtrr_mask[8];
	uint64_t mcg_status;

	/* Events */
	bool halted;         /* in HLT, waiting for an interrupt */
	bool wait_sipi;      /* an AP before its start-up IPI */
	uint8_t nmi_pending; /* how many: at most one while blocked, two while not (see x86_nmi) */
	bool nmi_blocked;    /* until IRET */
	uint8_t shadow;      /* at this one instruction boundary: enum x86_shadow */
	bool shutdown;       /* triple fault */
	bool ferr;           /* FERR# is asserted (see struct vcpu_board) */

	/* x87, SSE, AVX...: the standard-format XSAVE image, XCR0-wide. */
	uint8_t xsave[X86_XSAVE_MAX] __attribute__((aligned(64)));
};

/* Power-on/RESET state (SDM 3A table 9-1): real mode at f000:fff0. Leaves tsc_offset and tsc_adjust alone. */
void x86_state_reset(struct x86_state *s);

/* Current privilege level: the DPL of SS (SDM 3A 5.5), 3 in virtual-8086 mode. */
static inline unsigned x86_cpl(const struct x86_state *s)
{
	return SEG_DPL(s->seg[SEG_SS].attr);
}

/* An NMI arrives. One that comes while another is latched is lost; one that is about to be taken is not
 * latched. */
static inline void x86_nmi(struct x86_state *s)
{
	if (s->nmi_pending < (s->nmi_blocked ? 1 : 2))
		s->nmi_pending++;
}

static inline bool x86_long_mode(const struct x86_state *s)
{
	return s->efer & EFER_LMA;
}

static inline bool x86_code64(const struct x86_state *s)
{
	return (s->efer & EFER_LMA) && (s->seg[SEG_CS].attr & SEG_L);
}

static inline bool x86_protected(const struct x86_state *s)
{
	return (s->cr0 & CR0_PE) && !(s->rflags & FLAG_VM);
}

#endif
