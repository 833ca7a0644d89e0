/* SPDX-License-Identifier: Apache-2.0 */
/* Between the translator's files. See translate.c for how it works. */
#ifndef SILL_ENGINE_BT_TRANSLATE_INTERNAL_H
#define SILL_ENGINE_BT_TRANSLATE_INTERNAL_H

#include "engine/bt/cache.h"
#include "engine/bt/mmu.h"
#include "engine/bt/reencode.h"
#include "engine/bt/t1_internal.h"

#define MAX_INSNS    48
#define MAX_COLD     192
#define MAX_EXITS    96
#define MAX_SPECIALS 8

#define T0   R13 /* host scratch */
#define T1   R14
#define GSP  R15 /* guest RSP */
#define VCPU RSP

#define OFF(field) ((int32_t)offsetof(struct vcpu, field))
#define OFF_GPR(r) (OFF(st.gpr) + 8 * (int32_t)(r))
#define OFF_SEG(s)                                                                                           \
	((int32_t)(offsetof(struct vcpu, st.seg) + (s) * sizeof(struct x86_seg) +                            \
		   offsetof(struct x86_seg, base)))

enum where { IN_HOST = 1, IN_MEM = 2, CAN_REDO = 4 };

/* How the processor can make flags again: translate_flags.c. */
enum redo_op { REDO_CMP, REDO_TEST, REDO_ADD, REDO_SUB, REDO_INC, REDO_DEC };

struct redo {
	enum redo_op op;
	uint8_t size; /* of the operands, in bytes */
	uint8_t dst,
	    src;         /* guest registers; src REG_NONE: imm. dst holds the result, but for CMP and TEST. */
	uint16_t inputs; /* a bit for each register */
	int32_t imm;
};

enum cold_kind { COLD_MISS, COLD_GROUP, COLD_EXIT, COLD_INTERP, COLD_REDO, COLD_SPECIAL };

struct cold {
	enum cold_kind kind;
	uint8_t *patch;  /* rel32 in the hot part */
	uint8_t *retry;  /* COLD_MISS, COLD_GROUP: executable address to try again */
	uint8_t *after;  /* COLD_MISS, with `stack` COLD_GROUP: executable address behind the check */
	uint32_t info;   /* COLD_MISS, COLD_GROUP: for t1_slow_mem */
	int32_t tag;     /* COLD_MISS, COLD_GROUP: offset of the tag in the entry, to undo the XOR */
	bool stack;      /* COLD_MISS, COLD_GROUP: it was compared with the stack's page */
	uint16_t size;   /* stack: bytes of the access or range */
	uint64_t rip;    /* COLD_GROUP, COLD_EXIT, COLD_INTERP */
	unsigned exit;   /* COLD_GROUP, COLD_EXIT: index; COLD_SPECIAL: of the special */
	bool save_flags; /* COLD_INTERP, COLD_EXIT: flags are in RFLAGS only */
	bool redo_flags; /* COLD_MISS, COLD_GROUP, COLD_REDO, COLD_SPECIAL: they are to be made */
	struct redo redo;
	uint16_t at; /* COLD_REDO: offset of its code */
};

struct tr {
	struct vcpu *v;
	struct emit e;
	struct block *b;
	const uint8_t *page; /* host address of the page */
	uint64_t va;         /* of the current instruction */
	unsigned mode;       /* size of code: 8, 4 or 2 */
	unsigned stack;      /* width of the stack pointer */
	bool seg, real;      /* segmented code (translate_seg.c); of real or virtual-8086 mode */
	uint32_t cs_base;    /* seg */
	unsigned shadow;     /* nonzero: the instruction before this one holds interrupts off */
	bool pic;            /* position-independent: see the essay */
	unsigned where;      /* enum where bits: where valid flags are */
	struct redo redo;    /* where & CAN_REDO: how to make them */
	bool carry_put;      /* CF is in v->no_carry */
	unsigned redo_cold;  /* and the COLD_REDO that does so: its index + 1, 0: none */
	uint32_t flags;      /* BLOCK_* */
	unsigned n, i;
	unsigned n_cold;
	unsigned n_exits;
	struct group {
		uint64_t members; /* a bit for each instruction */
		unsigned last;    /* of them */
		bool slot;        /* its addend is in v->group */
	} groups[MAX_GROUPS];
	struct group *in_t1; /* whose addend T1 holds; NULL: T1 is nobody's between instructions */
	unsigned n_specials;
	struct origin origin;
	uint8_t *origin_patch; /* where its offset goes; NULL: none */
	bool ended;
	bool waited; /* decoding had to wait for other vCPUs: the block must not be made */
	/* What is above is zeroed for each block, the rest is written before it is read. */
	struct insn in[MAX_INSNS];
	uint32_t live[MAX_INSNS + 1]; /* flags needed before instruction i */
	struct insn_map map[MAX_INSNS];
	struct block_exit exits[MAX_EXITS];
	struct {
		struct special record;
		uint8_t *patch; /* where its address goes */
	} specials[MAX_SPECIALS];
	struct cold cold[MAX_COLD];
};

/* A memory operand in terms of the guest. */
struct ea {
	unsigned base, index; /* guest registers or EMIT_NO_REG */
	unsigned scale;
	int64_t disp;
	unsigned seg; /* SEG_FS, SEG_GS, or SEG_DS for none; in segmented code the segment */
	unsigned addrsize;
	bool absolute; /* disp is the whole linear offset */
	bool pcrel;    /* and it is relative to RIP */
	bool several;  /* accesses side by side: the address size must not wrap between them */
};

/* ---- flags (translate_flags.c) ---- */
/* From RFLAGS to t1_flags. RFLAGS survives. t1_free: T1 need not. */
void tr_save_flags(struct tr *t, bool t1_free);
/* From t1_flags to RFLAGS. */
void tr_load_flags(struct tr *t, bool t1_free);
/* CF, which is in RFLAGS, to v->no_carry. */
void tr_put_carry(struct tr *t);
/* Is the block a loop that jumps back to its beginning with CF unchanged, but other flags changed by INC or
 * DEC? */
bool tr_loop_keeps_carry(const struct tr *t);
/* Makes flags in RFLAGS. tmp: a host register that may be destroyed, or EMIT_NO_REG. */
void tr_redo_flags(struct tr *t, const struct redo *r, unsigned tmp);
/* They are nowhere, but can be made. */
bool tr_redo_only(const struct tr *t);
/* Before host flags are destroyed while `needed` of them are wanted later. T0 is destroyed. */
void tr_spare_flags(struct tr *t, uint32_t needed);
/* Before C sees them, or code that is not known. operands: T0 is in use. */
void tr_flags_to_mem(struct tr *t, bool operands);
/* Before a jump to another block: into RFLAGS if they are nowhere. T0 is destroyed. */
void tr_flags_for_exit(struct tr *t);
/* Around each instruction: can the flags still be made again? */
void tr_before_insn(struct tr *t, const struct insn *in);
void tr_after_insn(struct tr *t, const struct insn *in);
/* Before an instruction that needs the flags in RFLAGS. operands: T0 and T1 hold some of its operands. */
void tr_want_flags(struct tr *t, bool operands);

/* ---- exits, memory (translate_mem.c) ---- */
/* A code address into a host register; flags survive. */
void tr_emit_pc(struct tr *t, unsigned reg, uint64_t va);
/* The current instruction, with the flags as they are, may fault in the host. */
void tr_fault_flags(struct tr *t);
/* The jump whose rel32 is to lie at `at` leads here. */
void tr_rel32_here(struct tr *t, uint8_t *at);
/* The rel32 of a jump (opcode already emitted) to guest address va. */
void tr_exit_jump(struct tr *t, uint64_t va);
/* Ends the block: to a known address; to the address in T0; with the instruction done by C; before it, by the
 * interpreter. */
void tr_exit_to(struct tr *t, uint64_t va);
/* rsp: what of RSP the instruction has changed. */
void tr_exit_indirect(struct tr *t, int32_t rsp);
uint64_t tr_pc_mask(const struct tr *t, uint64_t pc);
void tr_exit_special(struct tr *t, const struct insn *in);
/*
 * A place to jump to where C does the current instruction if translated code cannot after all; from there the
 * next block goes on. The flags are spared. NULL: there are enough in this block.
 */
uint8_t *tr_to_special(struct tr *t, const struct insn *in);
void tr_special_here(struct tr *t, unsigned k);
void tr_exit_interp(struct tr *t);
/* The rel32 of a jump (opcode already emitted) to where the interpreter does the current instruction, of
 * which nothing has happened yet. The flags are spared already. */
void tr_interp_jump(struct tr *t);
void tr_exit_sti(struct tr *t);
/* Host register that holds guest register r, or EMIT_NO_REG for R13..R15. */
unsigned tr_host_reg(unsigned r);
bool tr_fits32(int64_t x);
/* The instruction's memory operand. */
struct ea tr_insn_operand(const struct tr *t, const struct insn *in);
/* The effective address without segment base into a host register, its lower `size` (4, 8) bytes if that is
 * less. T0 and T1 may be destroyed, flags survive. */
void tr_emit_address(struct tr *t, const struct ea *a, unsigned dst, unsigned size);
/* The effective address (with segment base) into T0. Flags survive only without a segment. */
void tr_emit_ea(struct tr *t, const struct ea *a);
/* False: something relative to RIP lies too far from the page for 32 bits. */
bool tr_in_reach(const struct tr *t, const struct insn *in);
/* The comparison of the address in T0 with its entry's tag, and the opcode of the jump, to be followed by a
 * rel32, if an access of this size misses. Afterwards T1 is the entry, T0 the offset in the page. */
void tr_tag_check(struct tr *t, unsigned size, bool write);
/* The TLB check of the address in T0; afterwards T1 is its entry, T0 the offset in the page. A miss goes back
 * to `start`. how: MISS_WRITE, MISS_LOCKED, MISS_MASKED. */
void tr_check_address(struct tr *t, uint8_t *start, unsigned size, uint32_t how);
/* The same for a group's range, of operand a, which a miss leaves for a block without groups if it must.
 * write: the first member writes; any: some member does. Afterwards T1 is the addend. */
void tr_check_range(struct tr *t, uint8_t *start, const struct ea *a, unsigned size, bool write, bool any);
/* A cold part's beginning (x->stack): the TLB after all, for the address in T0. Where that has the page it
 * becomes the stack's and the hot part goes on; else what follows does, as after any miss, by way of
 * x->patch. */
void tr_stack_missed(struct tr *t, struct cold *x);
/*
 * Makes [a, a+size) accessible, by the TLB check or because the access is in a group: *m is the host operand,
 * the value the scratch register that is free, EMIT_NO_REG: none.  May destroy host flags, but saves those in
 * `live` before.
 */
unsigned tr_check(struct tr *t, const struct ea *a, unsigned size, uint32_t how, uint32_t live,
		  struct host_mem *m);

/* ---- groups (translate_group.c) ---- */
/* If the current instruction's access is in a group: its operand and the free register, as tr_check. */
bool tr_group(struct tr *t, const struct ea *a, bool write, uint32_t live, struct host_mem *m,
	      unsigned *free_reg);
/* T1 gets another use. */
void tr_use_t1(struct tr *t);
/* Behind each instruction: has it? */
void tr_group_after(struct tr *t, const struct insn *in);

/* ---- instructions (translate_insn.c) ---- */
/* Guest R13..R15 that the instruction uses as data (not in its address): how many, which. */
unsigned tr_high_data_regs(const struct insn *in, uint8_t regs[4]);
bool tr_is_bit_string(const struct insn *in);
bool tr_can_copy(const struct tr *t, const struct insn *in);
bool tr_bit_string(struct tr *t, const struct insn *in);
void tr_copy_insn(struct tr *t, const struct insn *in);
bool tr_special(struct tr *t, const struct insn *in);

/* ---- the stack, near branches (translate_ctl.c) ---- */
/* An instruction with a one-byte opcode on size 2, 4 or 8 (1: as opcodes for bytes have it). */
void tr_mem_op(struct tr *t, unsigned size, uint8_t op, unsigned reg, const struct host_mem *m);
/* MOV of 1 to 8 bytes from or to memory. */
void tr_move_op(struct tr *t, unsigned size, bool store, unsigned reg, const struct host_mem *m);
/* An operand on the stack, relative to RSP or RBP. */
struct ea tr_stack_ea(const struct tr *t, unsigned base, int32_t disp);
/* RSP becomes guest register `from` + delta, as wide as the stack pointer is. Flags survive. */
void tr_set_sp(struct tr *t, unsigned from, int32_t delta);
bool tr_push(struct tr *t, const struct insn *in);
bool tr_pop(struct tr *t, const struct insn *in);
bool tr_leave(struct tr *t, const struct insn *in);
void tr_pushf(struct tr *t, unsigned size);
bool tr_jump(struct tr *t, const struct insn *in);
bool tr_call(struct tr *t, const struct insn *in);
bool tr_ret(struct tr *t, const struct insn *in);
bool tr_jcc(struct tr *t, const struct insn *in);

/* ---- segmented code (translate_seg.c) ---- */
/* The instruction pointer at a place. */
uint64_t tr_ip(const struct tr *t, uint64_t pc);
/* Where a branch leads whose displacement counts from `next`. */
uint64_t tr_target(const struct tr *t, const struct insn *in, uint64_t next);
/* Is the place one that translated code may go to? */
bool tr_ip_valid(const struct tr *t, uint64_t pc);
/* Can an instruction of this length there be part of a block, and the next place be gone to? */
bool tr_goes_on(const struct tr *t, uint64_t pc, unsigned len);
/* An instruction pointer of `size` bytes in T0 may lie outside of what branches reach: the interpreter's. The
 * flags are spared already. */
void tr_check_ip(struct tr *t, unsigned size);
/* T0 from instruction pointer to place. T1 is destroyed, flags survive. */
void tr_seg_place(struct tr *t);
/* A 16-bit register to a whole one. Flags survive. */
void tr_zero_extend16(struct tr *t, unsigned dst, unsigned src);
/* The linear address of an operand into T0, its segment's limit checked. T1 and flags are destroyed. */
void tr_seg_address(struct tr *t, const struct ea *a, unsigned size, bool write);
void tr_load_selector(struct tr *t, unsigned reg, unsigned seg);
/* Can a segment register be loaded here? Loads it from T0, once nothing can fail. Flags survive. */
bool tr_loads_selector(const struct tr *t, unsigned seg);
void tr_set_selector(struct tr *t, unsigned seg);
bool tr_mov_to_seg(struct tr *t, const struct insn *in);
bool tr_seg_string(struct tr *t, const struct insn *in);
bool tr_far(struct tr *t, const struct insn *in);
bool tr_load_pointer(struct tr *t, const struct insn *in, unsigned seg);
bool tr_all_registers(struct tr *t, bool push);

/* ---- strings (translate_str.c) ---- */
bool tr_string(struct tr *t, const struct insn *in);

/* ---- blocks (translate.c) ---- */
uint32_t tr_insn_kills(const struct tr *t, const struct insn *in);

#endif
