/* SPDX-License-Identifier: Apache-2.0 */
/* From a Multiboot loader's state, staying in 32-bit protected mode; exception stubs for it. */
	.section .note.pvh, "a", @note
	.balign 4
	.long 0x1badb002, 0, -0x1badb002

	.text
	.code32
	.globl start
start:
	cli
	cld
	movl $stack_top, %esp
	movl $0x600, %eax		/* OSFXSR, OSXMMEXCPT */
	movl %eax, %cr4
	call setup
	lgdt gdtr
	lidt idtr
	ljmp $0x08, $1f
1:	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %fs
	movl %eax, %gs
	movl %eax, %ss
	movl $0x28, %eax
	ltr %ax
	call guest_main
	movw $0x604, %dx
	movw $0x2000, %ax
	outw %ax, %dx
2:	hlt
	jmp 2b

	/* int try_call(void (*fn)(uint32_t), uint32_t arg): the exception that ended it, or -1. */
	.globl try_call
try_call:
	push %ebx
	push %ebp
	push %esi
	push %edi
	movl 20(%esp), %eax
	movl 24(%esp), %edx
	movl %esp, try_esp
	push %edx
	call *%eax
	addl $4, %esp
	movl $-1, %eax
try_out:
	movl $0, try_esp
	pop %edi
	pop %esi
	pop %ebp
	pop %ebx
	ret
	/* Handlers come here with the segments of the kernel. */
	.globl try_fault
try_fault:
	movl $0x10, %eax
	movl %eax, %ss
	movl try_esp, %esp
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %fs
	movl %eax, %gs
	pushl $2
	popfl
	movl last_vector, %eax
	jmp try_out

	/* void to_user(uint32_t eip, uint32_t esp, uint32_t eflags): ring 3, flat. */
	.globl to_user
to_user:
	movl 4(%esp), %ecx
	movl 8(%esp), %edx
	movl 12(%esp), %ebx
	movl $0x23, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %fs
	movl %eax, %gs
	pushl $0x23
	pushl %edx
	pushl %ebx
	pushl $0x1b
	pushl %ecx
	iretl

	/* void to_v86(uint32_t cs, uint32_t ip, uint32_t eflags): stack at 0x1000:0x0ff0, data segments 0x1000. */
	.globl to_v86
to_v86:
	movl 4(%esp), %ecx
	movl 8(%esp), %edx
	movl 12(%esp), %ebx
	pushl $0x1004
	pushl $0x1003
	pushl $0x1002
	pushl $0x1001
	pushl $0x1000
	pushl $0x0ff0
	orl $0x20000, %ebx
	pushl %ebx
	pushl %ecx
	pushl %edx
	iretl

#include "stubs.inc"
common:
	pushl %ds
	pushal
	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	cld
	movl %esp, %eax
	pushl %eax
	call on_exception
	addl $4, %esp
	popal
	popl %ds
	addl $8, %esp
	iretl

	.data
	.macro addr n
	.long stub_\n
	.endm
	.globl stubs
	.balign 4
stubs:
	.set i, 0
	.rept 64
	addr %i
	.set i, i + 1
	.endr
	.bss
	.balign 16
	.skip 16384
	.globl stack_top
stack_top:
	.section .note.GNU-stack, "", @progbits
