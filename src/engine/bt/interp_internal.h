/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the interpreter's files. */
#ifndef SILL_ENGINE_BT_INTERP_INTERNAL_H
#define SILL_ENGINE_BT_INTERP_INTERNAL_H

#include <string.h>

#include "engine/bt/interp.h"
#include "engine/bt/native.h"

/*
 * Called from translated code (v->in_gpr), a semantic function may meet what
 * needs ordinary C: a device, code in a page that is written.  It then gives up
 * before it has changed anything, and the instruction is done again by the
 * interpreter proper.  True: give up, return -1.
 */
static inline bool needs_full(struct vcpu *v)
{
	if (v->in_gpr)
		v->bail = true;
	return v->in_gpr;
}

/* ---- registers ---- */

static inline uint64_t size_mask(unsigned size)
{
	return size >= 8 ? ~0ull : (1ull << (8 * size)) - 1;
}

static inline uint64_t sign_extend(uint64_t val, unsigned size)
{
	unsigned sh = 64 - 8 * size;

	return (uint64_t)((int64_t)(val << sh) >> sh);
}

static inline uint64_t reg_get(const struct vcpu *v, unsigned r, unsigned size)
{
	return v->st.gpr[r] & size_mask(size);
}

/* Writes a register at an operand size: 32-bit writes clear the upper half, smaller ones keep the rest. */
static inline void reg_set(struct vcpu *v, unsigned r, unsigned size, uint64_t val)
{
	if (size == 8)
		v->st.gpr[r] = val;
	else if (size == 4)
		v->st.gpr[r] = (uint32_t)val;
	else if (size == 2)
		v->st.gpr[r] = (v->st.gpr[r] & ~0xffffull) | (val & 0xffff);
	else
		v->st.gpr[r] = (v->st.gpr[r] & ~0xffull) | (val & 0xff);
}

/* Writes by address size: the bits beyond it are kept (16) or cleared (32). For RSP, RCX, RSI, RDI. */
static inline void addr_set(struct vcpu *v, unsigned r, unsigned size, uint64_t val)
{
	reg_set(v, r, size, val);
}

static inline bool is_code64(const struct vcpu *v)
{
	return x86_code64(&v->st);
}

static inline unsigned cpl(const struct vcpu *v)
{
	return x86_cpl(&v->st);
}

static inline unsigned iopl(const struct vcpu *v)
{
	return (unsigned)(v->st.rflags >> 12) & 3;
}

static inline bool is_v86(const struct vcpu *v)
{
	return v->st.rflags & FLAG_VM;
}

static inline bool is_protected(const struct vcpu *v)
{
	return x86_protected(&v->st);
}

/* Width in bytes of the stack pointer: 8 in 64-bit mode, else by SS.B. */
static inline unsigned stack_width(const struct vcpu *v)
{
	if (is_code64(v))
		return 8;
	return (v->st.seg[SEG_SS].attr & SEG_DB) ? 4 : 2;
}

/* Sets RIP after a near branch of the given operand size. -1: #GP, target outside the segment or
 * non-canonical. */
int branch_to(struct vcpu *v, uint64_t target, unsigned opsize);

/* ---- guest-virtual memory (vmem_gpr.c) ---- */

/* Linear address of [off, off+size) in a segment, with all its checks. acc: ACC_R or ACC_W. */
int seg_linear(struct vcpu *v, unsigned seg, uint64_t off, unsigned size, unsigned acc, uint64_t *lin);
/* Effective address of the memory operand (offset in its segment). */
uint64_t insn_ea(const struct vcpu *v, const struct insn *in);

/* Linear-address access with explicit ACC_* flags; whole access is probed before any byte is written. */
int lin_read(struct vcpu *v, uint64_t lin, void *buf, unsigned size, unsigned acc);
int lin_write(struct vcpu *v, uint64_t lin, const void *buf, unsigned size, unsigned acc);

/* Access through a segment with the current privilege. */
int vmem_read(struct vcpu *v, unsigned seg, uint64_t off, void *buf, unsigned size);
int vmem_write(struct vcpu *v, unsigned seg, uint64_t off, const void *buf, unsigned size);
/* Checks that a write would succeed. */
int vmem_probe_write(struct vcpu *v, unsigned seg, uint64_t off, unsigned size);

/* A memory operand that the processor itself will access: a host pointer, or a bounce buffer. */
struct mref {
	void *host;
	uint64_t lin;
	unsigned size, acc;
	bool bounce, write, code;
	uint64_t pa[2]; /* physical addresses of the two parts when bounced */
	void *part[2];  /* their host pointers; NULL: MMIO */
	unsigned first; /* bytes in the first part */
	uint64_t skip;  /* with masks: bit per byte that must not be written */
	uint8_t buf[256] __attribute__((aligned(64)));
};
/* Opens lin..lin+size for the native instruction (size <= 128). */
int mref_open(struct vcpu *v, uint64_t lin, unsigned size, bool read, bool write, struct mref *m);
/* After the instruction: writes a bounce buffer back and invalidates code. */
void mref_close(struct vcpu *v, struct mref *m);

#define UNDO_MAX 256
struct undo_log {
	unsigned n, step;
	struct {
		void *host;
		unsigned len, step;
		uint8_t old[128], now[128];
	} e[UNDO_MAX];
};
/* Notes what is about to be overwritten, if a log is kept. */
void undo_note(struct vcpu *v, void *host, unsigned len);

/* ---- stack ---- */

int push_val(struct vcpu *v, uint64_t val, unsigned size);
int pop_val(struct vcpu *v, uint64_t *val, unsigned size); /* moves RSP */

/* ---- segments (seg_gpr.c, task_gpr.c) ---- */

struct descriptor {
	uint32_t lo, hi;
	uint64_t base; /* with the upper half of a 16-byte descriptor where it is one */
	uint32_t limit;
	uint16_t attr;
	uint64_t addr; /* linear address of the descriptor */
};

/* Reads the descriptor of a selector. -1 with exception `vec`(selector) if outside its table. */
int desc_read(struct vcpu *v, uint16_t sel, uint8_t vec, struct descriptor *d);
int desc_set_accessed(struct vcpu *v, struct descriptor *d);
/* True if the selector is null (index 0 of the GDT). */
static inline bool sel_null(uint16_t sel)
{
	return (sel & ~3) == 0;
}
/* MOV/POP to a segment register, in any mode. */
int seg_load(struct vcpu *v, unsigned seg, uint16_t sel);
void seg_from_desc(struct x86_seg *s, uint16_t sel, const struct descriptor *d);
/* Real and virtual-8086 mode. */
void seg_load_real(struct vcpu *v, unsigned seg, uint16_t sel);
int far_jump(struct vcpu *v, uint16_t sel, uint64_t off, unsigned opsize, uint64_t next);
int far_call(struct vcpu *v, uint16_t sel, uint64_t off, unsigned opsize, uint64_t next);
int far_ret(struct vcpu *v, unsigned opsize, unsigned release);
int iret(struct vcpu *v, unsigned opsize);
int load_ldtr(struct vcpu *v, uint16_t sel);
int load_tr(struct vcpu *v, uint16_t sel);

enum task_reason { TASK_JMP, TASK_CALL, TASK_IRET, TASK_INT };
/* Hardware task switch (SDM 3A 8.3). next: RIP to save in the old task; error code pushed in the new one if
 * has_error. */
int task_switch(struct vcpu *v, uint16_t sel, enum task_reason why, uint64_t next, bool has_error,
		uint32_t error);

/* Stack of a more privileged level from the TSS: ss:esp (16/32-bit TSS) or rsp (64-bit, level 0..2; ist 1..7
 * if nonzero). */
int tss_stack(struct vcpu *v, unsigned level, unsigned ist, uint16_t *ss, uint64_t *sp, uint8_t *vec);

/* The descriptor check for a new stack segment of level `level`; on success *s is filled. */
int check_stack_segment(struct vcpu *v, uint16_t sel, unsigned level, uint8_t vec, struct x86_seg *s);

/* After anything that changes CPL, CR0, CR3, CR4, EFER or EFLAGS.AC. */
void mode_changed(struct vcpu *v);
/* RFLAGS as PUSHF shows them, and a write of them limited to the given mask. */
void flags_write(struct vcpu *v, uint64_t val, uint64_t mask);

/* ---- instruction groups ---- */

/* Each handles the mnemonics of its group: 0 or -1; 1 if the mnemonic is not its own. */
int interp_control(struct vcpu *v, const struct insn *in); /* interp_ctl_gpr.c */
int interp_system(struct vcpu *v, const struct insn *in);  /* interp_sys_gpr.c */
/* Of these, SYSCALL and SYSRET, st.rip being behind them. 0 or -1. */
int interp_syscall(struct vcpu *v);
int interp_sysret(struct vcpu *v, bool to64);
int interp_string(struct vcpu *v, const struct insn *in); /* interp_str_gpr.c */
int interp_fpstate(struct vcpu *v,
		   const struct insn *in); /* interp_fpu.c: FXSAVE, XSAVE, masked stores, gathers */

int interp_vector(struct vcpu *v, const struct insn *in); /* interp_vec.c: gathers, scatters, masked stores */

/* ---- system instructions (interp_sys_gpr.c and beside it): 0 or -1 ---- */

/* interp_msr_gpr.c: RDMSR, WRMSR. */
int interp_msr(struct vcpu *v, bool write);
/* interp_cr_gpr.c: MOV to and from CRn and DRn; LMSW of the word w, whose privilege is checked; XCR0. */
int interp_mov_cr(struct vcpu *v, const struct insn *in);
int interp_mov_dr(struct vcpu *v, const struct insn *in);
int interp_lmsw(struct vcpu *v, uint16_t w);
int interp_xgetbv(struct vcpu *v);
int interp_xsetbv(struct vcpu *v);
/* May the current privilege access `size` bytes at a port (IOPL, the TSS's bitmap)? -1: #GP or a page fault.
 */
int io_permitted(struct vcpu *v, uint16_t port, unsigned size);

/* #GP unless at CPL 0. */
static inline int privileged(struct vcpu *v)
{
	return (v->st.cr0 & CR0_PE) && cpl(v) ? exc_gp(v, 0) : 0;
}

static inline uint64_t guest_tsc(const struct vcpu *v)
{
	return __builtin_ia32_rdtsc() + v->st.tsc_offset;
}

/* ---- state of the FPU and vector registers ---- */

/* Bytes of a standard-format image, of a compacted one, with these components. */
unsigned xsave_standard_size(const struct vcpu *v, uint64_t bv);
unsigned xsave_compact_size(const struct vcpu *v, uint64_t bv);
/* FOP, FIP, FDP hold host values: the guest gets zeros, which is what AMD shows without a pending exception.
 */
void xsave_scrub(uint8_t *image);
/* The same for what FNSTENV or FNSAVE, which `in` is, has stored. */
void fpu_env_scrub(uint8_t *env, const struct insn *in);
/* interp_fpu_gpr.c: those of the instructions above that need not leave translated code. 1: the interpreter
 * must do it. */
bool interp_fpstate_is_live(const struct insn *in);
int interp_fpstate_live(struct vcpu *v, const struct insn *in);
/* Writes the initial values of the components whose XSTATE_BV bit is clear into a standard-format image. */
void xsave_spell_out(const struct vcpu *v, uint8_t *image);

/* The memory operand of a masked instruction: enabled elements in m's buffer, and back. */
int masked_open(struct vcpu *v, const struct insn *in, uint64_t off, struct mref *m);
int masked_close(struct vcpu *v, const struct insn *in, struct mref *m);

/* Code bytes at [host, host+len) in a RAM page changed. */
void bt_code_written(struct vcpu *v, const void *host, uint64_t len);
/* Raised by interp when a breakpoint or single step is due after the instruction. */
int interp_check_watch(struct vcpu *v, uint64_t lin, unsigned size, bool write);

#endif
