/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gate's code (stub.h): does the calls at R12, R13 of them, and traps.
 * R14 holds 0 if all succeeded, else what the failed one returned.  Copied to
 * STUB_GATE, so position-independent; uses no stack.
 *
 * From stub_gate_flags it makes EFLAGS.ID and NT, which ptrace leaves alone, what they are in the word at RSP, of
 * which there are four below: NT is bit 0 of their number, ID bit 1.
 */
	.intel_syntax noprefix
	.section .rodata
	.globl stub_gate_code, stub_gate_after, stub_gate_flags, stub_gate_words, stub_gate_end
	.balign 16
stub_gate_code:
	xor r14d, r14d
	test r13, r13
	jz 2f
1:	mov rax, [r12]
	mov rdi, [r12 + 8]
	mov rsi, [r12 + 16]
	mov rdx, [r12 + 24]
	mov r10, [r12 + 32]
	mov r8, [r12 + 40]
	mov r9, [r12 + 48]
	syscall
stub_gate_after:
	cmp rax, -4095
	jae 3f
	add r12, 56
	dec r13
	jnz 1b
2:	int3
3:	mov r14, rax
	int3
stub_gate_flags:
	popfq
	int3
	.balign 8
stub_gate_words:
	.quad 0x202, 0x4202, 0x200202, 0x204202
stub_gate_end:
	.section .note.GNU-stack, "", @progbits
