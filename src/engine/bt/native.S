/* SPDX-License-Identifier: Apache-2.0 */
/* See native.h. The piece of code at frame->code is called with every register but RSP the guest's. */
	.intel_syntax noprefix
	.section .rodata
	.balign 64
	/* An XSAVE image whose components are all in their initial state. */
	.globl native_fpu_default
native_fpu_default:
	.zero 24
	.long 0x1f80
	.zero 512 - 28
	.zero 64

	.text
	.globl native_call, native_fault
	.type native_call, @function
native_call:
	push rbx
	push rbp
	push r12
	push r13
	push r14
	push r15
	push rdi
	mov rcx, [rdi + 144]
	test rcx, rcx
	jz 1f
	mov eax, [rdi + 152]
	mov edx, [rdi + 156]
	xrstor64 [rcx]
1:	push qword ptr [rdi + 136]
	push qword ptr [rdi + 128]
	popfq
	mov rax, [rdi]
	mov rcx, [rdi + 8]
	mov rdx, [rdi + 16]
	mov rbx, [rdi + 24]
	mov rbp, [rdi + 40]
	mov rsi, [rdi + 48]
	mov r8, [rdi + 64]
	mov r9, [rdi + 72]
	mov r10, [rdi + 80]
	mov r11, [rdi + 88]
	mov r12, [rdi + 96]
	mov r13, [rdi + 104]
	mov r14, [rdi + 112]
	mov r15, [rdi + 120]
	mov rdi, [rdi + 56]
	call [rsp]
	pushfq
	push rdi
	mov rdi, [rsp + 24]
	mov [rdi], rax
	mov [rdi + 8], rcx
	mov [rdi + 16], rdx
	mov [rdi + 24], rbx
	mov [rdi + 40], rbp
	mov [rdi + 48], rsi
	mov [rdi + 64], r8
	mov [rdi + 72], r9
	mov [rdi + 80], r10
	mov [rdi + 88], r11
	mov [rdi + 96], r12
	mov [rdi + 104], r13
	mov [rdi + 112], r14
	mov [rdi + 120], r15
	pop qword ptr [rdi + 56]
	pop qword ptr [rdi + 128]
	add rsp, 8
	xor ebx, ebx
2:	cld
	mov rcx, [rdi + 144]
	test rcx, rcx
	jz 3f
	mov eax, [rdi + 152]
	mov edx, [rdi + 156]
	xsave64 [rcx]
	xrstor64 [rip + native_fpu_default]
3:	mov eax, ebx
	pop rdi
	pop r15
	pop r14
	pop r13
	pop r12
	pop rbp
	pop rbx
	ret
	/* [rsp] return address, [rsp+8] code, [rsp+16] frame */
native_fault:
	add rsp, 16
	mov rdi, [rsp]
	mov ebx, 1
	jmp 2b
	.size native_call, . - native_call

	/* State images (interp_fpu.c): frame code, so faults between the marks are the guest's. */
	.globl native_code_start, native_code_end
native_code_start:
	.globl native_fxsave
native_fxsave:
	fxsave [rdi]
	ret
	.globl native_fxsave64
native_fxsave64:
	fxsave64 [rdi]
	ret
	.globl native_fxrstor
native_fxrstor:
	fxrstor [rdi]
	ret
	.globl native_fxrstor64
native_fxrstor64:
	fxrstor64 [rdi]
	ret
	.globl native_xsave
native_xsave:
	xsave [rdi]
	ret
	.globl native_xsave64
native_xsave64:
	xsave64 [rdi]
	ret
	.globl native_xsavec
native_xsavec:
	xsavec [rdi]
	ret
	.globl native_xsavec64
native_xsavec64:
	xsavec64 [rdi]
	ret
	.globl native_xrstor
native_xrstor:
	xrstor [rdi]
	ret
	.globl native_xrstor64
native_xrstor64:
	xrstor64 [rdi]
	ret
native_code_end:
	.section .note.GNU-stack, "", @progbits
