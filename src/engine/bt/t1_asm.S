/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way in and out of translated code.
 *
 * Inside, host registers hold the guest's: RAX..R12 their namesakes (but RSP),
 * R15 the guest's RSP; guest R13..R15 are in memory; host R13 and R14 are
 * scratch; RSP points at struct vcpu.  Flags are in memory (t1_flags) at every
 * crossing.  Offsets come from t1_offsets.h, which asserts them in C.
 */
#include "engine/bt/t1_offsets.h"
	.intel_syntax noprefix

/* Guest registers to and from struct vcpu, which is at RSP + \at: those that a C function may change; all. */
	.macro SAVE_CALL at
	mov [rsp + \at + V_GPR], rax
	mov [rsp + \at + V_GPR + 8], rcx
	mov [rsp + \at + V_GPR + 16], rdx
	mov [rsp + \at + V_GPR + 48], rsi
	mov [rsp + \at + V_GPR + 56], rdi
	mov [rsp + \at + V_GPR + 64], r8
	mov [rsp + \at + V_GPR + 72], r9
	mov [rsp + \at + V_GPR + 80], r10
	mov [rsp + \at + V_GPR + 88], r11
	.endm
	.macro LOAD_CALL at
	mov rax, [rsp + \at + V_GPR]
	mov rcx, [rsp + \at + V_GPR + 8]
	mov rdx, [rsp + \at + V_GPR + 16]
	mov rsi, [rsp + \at + V_GPR + 48]
	mov rdi, [rsp + \at + V_GPR + 56]
	mov r8, [rsp + \at + V_GPR + 64]
	mov r9, [rsp + \at + V_GPR + 72]
	mov r10, [rsp + \at + V_GPR + 80]
	mov r11, [rsp + \at + V_GPR + 88]
	.endm
	.macro SAVE_ALL
	SAVE_CALL 0
	mov [rsp + V_GPR + 24], rbx
	mov [rsp + V_GPR + 32], r15
	mov [rsp + V_GPR + 40], rbp
	mov [rsp + V_GPR + 96], r12
	.endm
	.macro LOAD_ALL
	LOAD_CALL 0
	mov rbx, [rsp + V_GPR + 24]
	mov r15, [rsp + V_GPR + 32]
	mov rbp, [rsp + V_GPR + 40]
	mov r12, [rsp + V_GPR + 96]
	.endm

	.text
/* void t1_enter(struct vcpu *v): from v->t1_code until an exit. */
	.globl t1_enter, t1_enter_check, t1_enter_end
	.type t1_enter, @function
t1_enter:
	push rbx
	push rbp
	push r12
	push r13
	push r14
	push r15
	mov [rdi + V_HOST_RSP], rsp
	mov rsp, rdi
	mov byte ptr [rsp + V_IN_T1], 1
	/* A kick before this point is seen here; one between here and the jump is sent back here by the handler. */
t1_enter_check:
	cmp dword ptr [rsp + V_KICK], 0
	jne 1f
	mov eax, [rsp + V_XMASK]
	mov edx, [rsp + V_XMASK + 4]
	xrstor64 [rsp + V_XSAVE]
	LOAD_ALL
	mov r13, [rsp + V_RIP]
	jmp [rsp + V_T1_CODE]
t1_enter_end:
1:	mov qword ptr [rsp + V_EXIT_REASON], T1_KICK
	mov byte ptr [rsp + V_NEEDS_SYNC], 1
	jmp 2f

/* Exits jump here with everything but the registers in its place. */
	.globl t1_exit
t1_exit:
	SAVE_ALL
	mov byte ptr [rsp + V_NEEDS_SYNC], 1
	jmp t1_exit_live
	/* Registers are in st already, st.rflags is whole. */
t1_exit_saved:
	mov byte ptr [rsp + V_NEEDS_SYNC], 0
t1_exit_live:
	mov eax, [rsp + V_XMASK]
	mov edx, [rsp + V_XMASK + 4]
	xsave64 [rsp + V_XSAVE]
	xrstor64 [rip + native_fpu_default]
2:	mov byte ptr [rsp + V_IN_T1], 0
	mov rsp, [rsp + V_HOST_RSP]
	pop r15
	pop r14
	pop r13
	pop r12
	pop rbp
	pop rbx
	ret
	.size t1_enter, . - t1_enter

/*
 * The slow path of a memory access, called from a block's cold part: R13 the
 * address, R14d what t1_slow_mem takes. Returns there if the TLB now has the
 * page, else goes on in t1_fault.
 */
	.globl t1_slow_thunk
t1_slow_thunk:
	SAVE_CALL 8
	lea rdi, [rsp + 8]
	mov rsi, r13
	mov edx, r14d
	sub rsp, 8
	call t1_slow_mem
	add rsp, 8
	mov rcx, [rsp + 8 + V_DIRECT_SKIP]
	add [rsp], rcx
	/* R13 is the verdict: nonzero leaves. A kick leaves too; one after this look is sent back to it. */
	mov r13d, eax
	.globl t1_slow_check, t1_slow_end
t1_slow_check:
	or r13d, [rsp + 8 + V_KICK]
	LOAD_CALL 8
	test r13d, r13d
	jnz 3f
	ret
t1_slow_end:
3:	pop r13
	shr r14d, 16
	mov [rsp + V_SCRATCH], r13
	mov [rsp + V_SCRATCH + 16], r14
	mov [rsp + V_GPR + 24], rbx
	mov [rsp + V_GPR + 32], r15
	mov [rsp + V_GPR + 40], rbp
	mov [rsp + V_GPR + 96], r12
	mov rdi, rsp
	mov rsi, [rsp + V_SCRATCH]
	mov rdx, [rsp + V_SCRATCH + 16]
	call t1_fault
	jmp t1_special_done

/*
 * A special instruction, jumped to from a block that ends with it: R13 points
 * at struct special; flags in memory.
 */
	.globl t1_special_thunk, t1_special_check, t1_special_end
t1_special_thunk:
	SAVE_ALL
	mov rdi, rsp
	mov rsi, r13
	call t1_special
t1_special_done:
	mov [rsp + V_T1_CODE], rax
	test rax, rax
	jz t1_exit_saved
	/* From here st.rip is where to go on, and fields are those of translated code. */
t1_special_check:
	cmp dword ptr [rsp + V_KICK], 0
	jne 5f
	LOAD_ALL
	mov r13, [rsp + V_RIP]
	jmp [rsp + V_T1_CODE]
t1_special_end:
5:	mov qword ptr [rsp + V_EXIT_REASON], T1_DISPATCH
	mov byte ptr [rsp + V_NEEDS_SYNC], 1
	jmp t1_exit_live

/* SYSCALL and SYSRET, likewise, where they are plain. */
	.globl t1_syscall_thunk, t1_sysret_thunk, t1_quick_check, t1_quick_end
	.macro CALL_QUICK function
	SAVE_CALL 0
	mov [rsp + V_SCRATCH], r13
	mov rdi, rsp
	mov rsi, r13
	call \function
	.endm
t1_syscall_thunk:
	CALL_QUICK t1_syscall
	jmp 6f
t1_sysret_thunk:
	CALL_QUICK t1_sysret
6:	test rax, rax
	jz 8f
	mov [rsp + V_T1_CODE], rax
t1_quick_check:
	cmp dword ptr [rsp + V_KICK], 0
	jne 7f
	LOAD_CALL 0
	mov r13, [rsp + V_RIP]
	jmp [rsp + V_T1_CODE]
t1_quick_end:
7:	LOAD_CALL 0
	jmp t1_exit
8:	LOAD_CALL 0
	mov r13, [rsp + V_SCRATCH]
	jmp t1_special_thunk

/*
 * Jumped to from a block: R13 the guest address to go to, R14 the exit that
 * leads there or 0. Finds its code or leaves with T1_EXIT_LINK.
 */
	.globl t1_find_thunk, t1_find_check, t1_find_end
t1_find_thunk:
	mov [rsp + V_RIP], r13
	mov [rsp + V_EXIT_ARG], r14
	SAVE_CALL 0
	mov rdi, rsp
	mov rsi, r13
	mov rdx, r14
	call t1_find
	mov [rsp + V_T1_CODE], rax
t1_find_check:
	xor r14d, r14d
	mov r13, [rsp + V_T1_CODE]
	cmp r14d, [rsp + V_KICK]
	cmovne r13, r14
	LOAD_CALL 0
	test r13, r13
	jz 4f
	mov r13, [rsp + V_RIP]
	jmp [rsp + V_T1_CODE]
t1_find_end:
4:	mov qword ptr [rsp + V_EXIT_REASON], T1_LINK
	jmp t1_exit
	.section .note.GNU-stack, "", @progbits
