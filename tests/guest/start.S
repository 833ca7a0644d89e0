/* SPDX-License-Identifier: Apache-2.0 */
/* From the PVH entry (32-bit, flat, no paging) to long mode with 1 GiB mapped one to one; exception stubs. */
	.section .note.pvh, "a", @note
	.long 4, 4, 18
	.asciz "Xen"
	.long start

	.text
	.code32
	.globl start
start:
	cli
	cld
	movl $stack_top, %esp
	movl $pd, %edi
	movl $0x83, %eax
1:	movl %eax, (%edi)
	movl $0, 4(%edi)
	addl $0x200000, %eax
	addl $8, %edi
	cmpl $(pd + 4096), %edi
	jb 1b
	/* The fourth gigabyte, where the APICs are. */
	movl $0xc0000083, %eax
	movl $pd3, %edi
2:	movl %eax, (%edi)
	movl $0, 4(%edi)
	addl $0x200000, %eax
	addl $8, %edi
	cmpl $(pd3 + 4096), %edi
	jb 2b
	movl $(pdpt + 7), pml4
	movl $(pd + 3), pdpt
	movl $(pd3 + 3), pdpt + 24
	movl $pml4, %eax
	movl %eax, %cr3
	movl $0x6a0, %eax		/* PAE, PGE, OSFXSR, OSXMMEXCPT */
	movl %eax, %cr4
	movl $0xc0000080, %ecx
	movl $0x901, %eax		/* NXE, LME, SCE */
	xorl %edx, %edx
	wrmsr
	movl $0x80010033, %eax
	movl %eax, %cr0
	lgdt gdtr
	ljmp $0x10, $3f
	.code64
3:	movl $0x18, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl $tss, %eax
	movw %ax, gdt + 0x42
	shrl $16, %eax
	movb %al, gdt + 0x44
	movb %ah, gdt + 0x47
	movl $0x40, %eax
	ltr %ax
	call setup_idt
	call guest_main
	movw $0x604, %dx
	movw $0x2000, %ax
	outw %ax, %dx
4:	hlt
	jmp 4b

	/* Application processors: copied to 0x8000, where a start-up IPI sends them; from real to long mode at once. */
	.code16
	.globl ap_boot, ap_boot_end
ap_boot:
	cli
	cld
	xorw %ax, %ax
	movw %ax, %ds
	movl $0x6a0, %eax
	movl %eax, %cr4
	movl $pml4, %eax
	movl %eax, %cr3
	movl $0xc0000080, %ecx
	movl $0x901, %eax
	xorl %edx, %edx
	wrmsr
	lgdtl 0x8000 + ap_gdtr - ap_boot
	movl $0x80010033, %eax
	movl %eax, %cr0
	ljmpl $0x10, $ap_long
ap_gdtr:
	.word 0x4f
	.long gdt
ap_boot_end:
	.code64
ap_long:
	movl $0x18, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl $1, %edi
	lock xaddl %edi, cpus_up
	movl %edi, %eax
	shll $14, %eax
	leaq ap_stacks(%rax), %rsp	/* the first has number 1 */
	lidt idtr
	call ap_main
5:	cli
	hlt
	jmp 5b

	/* int try_call(void (*fn)(uint64_t), uint64_t arg): the exception that ended it, or -1. */
	.globl try_call
try_call:
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	mov %rsp, try_rsp
	mov %rdi, %rax
	mov %rsi, %rdi
	call *%rax
	mov $-1, %eax
try_out:
	movq $0, try_rsp
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	ret
	.globl try_fault
try_fault:
	mov last_vector, %eax
	jmp try_out

	/* void enter_user(uint64_t rip, uint64_t rsp, uint64_t rflags): ends by an exception. */
	.globl enter_user
enter_user:
	push $0x2b
	push %rsi
	push %rdx
	push $0x33
	push %rdi
	iretq

#include "stubs.inc"
common:
	push %rax
	push %rcx
	push %rdx
	push %rbx
	push %rbp
	push %rsi
	push %rdi
	push %r8
	push %r9
	push %r10
	push %r11
	push %r12
	push %r13
	push %r14
	push %r15
	mov %rsp, %rdi
	cld
	call on_exception
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %r11
	pop %r10
	pop %r9
	pop %r8
	pop %rdi
	pop %rsi
	pop %rbp
	pop %rbx
	pop %rdx
	pop %rcx
	pop %rax
	add $16, %rsp
	iretq

	.data
	.macro addr n
	.quad stub_\n
	.endm
	.globl stubs
	.balign 8
stubs:
	.set i, 0
	.rept 64
	addr %i
	.set i, i + 1
	.endr
	.globl gdt, tss, pml4, pd
	.balign 16
gdt:	.quad 0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff
	.quad 0x00affb000000ffff, 0, 0x0000890000000067, 0
gdtr:	.word 0x4f
	.long gdt, 0
	.balign 16
tss:	.long 0
	.quad exc_stack_top, 0, 0, 0, df_stack_top
	.fill 10, 8, 0
	.globl cpus_up
cpus_up: .long 1
	.bss
	.globl ap_stacks
	.balign 16
ap_stacks:
	.skip 16384 * 7
	.balign 4096
pml4:	.skip 4096
pdpt:	.skip 4096
pd:	.skip 4096
pd3:	.skip 4096
	.skip 16384
stack_top:
	.skip 8192
exc_stack_top:
	.skip 4096
df_stack_top:
	.section .note.GNU-stack, "", @progbits
