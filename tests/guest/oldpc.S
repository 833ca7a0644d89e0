/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A diskette that starts from the BIOS: boot sector, calls of the BIOS, the ways between real mode, "unreal" mode,
 * 32-bit protected mode and virtual-8086 mode, start-up of another processor. oldpc16.c runs in the first of these
 * modes, oldpc32.c in protected mode; all of it lies below 64 KiB and is linked where it runs.
 */
#define CODE32 0x08
#define DATA32 0x10
#define CODE16 0x18
#define TSS    0x20

	.section .boot, "ax"
	.code16
	.globl start
start:
	ljmp $0, $1f
1:	xorw %ax, %ax
	movw %ax, %ds
	movw %ax, %ss
	movl $0x7c00, %esp
	sti
	cld
	movb %dl, boot_drive
	movw $0x7e0, %ax
	movw %ax, %es
	movw $1, %si			/* the next sector, of 18 on a track */
2:	movw %si, %ax
	xorw %dx, %dx
	movw $18, %cx
	divw %cx
	movb %dl, %cl
	incb %cl
	movb %al, %dh
	andb $1, %dh
	shrw $1, %ax
	movb %al, %ch
	movb boot_drive, %dl
	xorw %bx, %bx
	movw $0x0201, %ax
	int $0x13
	jc 3f
	movw %es, %ax
	addw $32, %ax
	movw %ax, %es
	incw %si
	cmpw $sectors, %si
	jbe 2b
	xorw %ax, %ax
	movw %ax, %es
	jmp entry16
3:	movb $'!', %al
	movw $0x3f8, %dx
	outb %al, %dx
	hlt
	jmp 3b
	.org 510
	.word 0xaa55

	.text
	.globl boot_drive
boot_drive:
	.byte 0
entry16:
	movw $bss_start, %di
	movw $bss_end, %cx
	subw %di, %cx
	xorw %ax, %ax
	rep stosb
	calll main16
	cli
	lgdt gdtr
	movl %cr0, %eax
	orl $1, %eax
	movl %eax, %cr0
	ljmpl $CODE32, $entry32

	/* void bios(unsigned n, struct regs *r): INT n */
	.globl bios
bios:
	pushal
	movl 36(%esp), %eax
	movb %al, 1f + 1
	movl 40(%esp), %ebp
	pushl %ebp
	movl 0(%ebp), %eax
	movl 4(%ebp), %ebx
	movl 8(%ebp), %ecx
	movl 12(%ebp), %edx
	movl 16(%ebp), %esi
	movl 20(%ebp), %edi
	pushw 28(%ebp)
	popw %ds
	pushw 30(%ebp)
	popw %es
	movl 24(%ebp), %ebp
	jmp 1f
1:	int $0
	pushfl
	pushl %ebp
	movl 8(%esp), %ebp
	movl %eax, 0(%ebp)
	movl %ebx, 4(%ebp)
	movl %ecx, 8(%ebp)
	movl %edx, 12(%ebp)
	movl %esi, 16(%ebp)
	movl %edi, 20(%ebp)
	popl 24(%ebp)
	movw %ds, 28(%ebp)
	movw %es, 30(%ebp)
	popl 32(%ebp)
	addl $4, %esp
	xorl %eax, %eax
	movw %ax, %ds
	movw %ax, %es
	cld
	sti
	popal
	retl

	/* Interrupt handlers for the real mode's vector table. */
	.globl on_irq0, on_tick, on_break, irq0_count, tick_count, break_count
on_irq0:
	pushw %ax
	incl %cs:irq0_count
	movb $0x20, %al
	outb %al, $0x20
	popw %ax
	iretw
on_tick:
	incl %cs:tick_count
	iretw
on_break:
	incl %cs:break_count
	iretw
	.balign 4
irq0_count:
	.long 0
tick_count:
	.long 0
break_count:
	.long 0

	/* void unreal(void): DS and ES keep limits of 4 GiB in real mode. */
	.globl unreal
unreal:
	cli
	lgdt gdtr
	movl %cr0, %eax
	orb $1, %al
	movl %eax, %cr0
	jmp 1f
1:	movw $DATA32, %cx
	movw %cx, %ds
	movw %cx, %es
	andb $0xfe, %al
	movl %eax, %cr0
	ljmp $0, $2f
2:	xorw %ax, %ax
	movw %ax, %ds
	movw %ax, %es
	sti
	retl

	/* What another processor starts with, copied to a page of its own. */
	.globl other_start, other_end
other_start:
	cli
	xorw %ax, %ax
	movw %ax, %ds
	lgdtl gdtr
	movl %cr0, %eax
	orb $1, %al
	movl %eax, %cr0
	ljmpl $CODE32, $other32
other_end:

	.code32
other32:
	movw $DATA32, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movl $0x7000, %esp
	call other_main
1:	hlt
	jmp 1b

entry32:
	movw $DATA32, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %fs
	movw %ax, %gs
	movw %ax, %ss
	movl $0x7c00, %esp
	call main32
1:	hlt
	jmp 1b

	/* Leaves protected mode for good: real mode's vector table, PICs as the BIOS has them, then main16_again. */
	.globl back_to_real
back_to_real:
	cli
	movl %cr0, %eax
	andl $0x7fffffff, %eax
	movl %eax, %cr0
	ljmp $CODE16, $1f
	.code16
1:	movl %cr0, %eax
	andb $0xfe, %al
	movl %eax, %cr0
	ljmp $0, $2f
2:	xorw %ax, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %fs
	movw %ax, %gs
	movw %ax, %ss
	movl $0x7c00, %esp
	lidt real_idtr
	calll main16_again
3:	hlt
	jmp 3b
	.code32

	/* void v86(struct v86_regs *r): until the monitor calls v86_leave. */
	.globl v86, v86_leave, v86_sp
v86:
	pushal
	movl %esp, v86_sp
	movl %esp, tss + 4
	movl 36(%esp), %eax
	pushl $0			/* GS, FS, DS, ES */
	pushl $0
	pushl 28(%eax)
	pushl 32(%eax)
	pushl 36(%eax)			/* SS:SP */
	pushl 40(%eax)
	pushl $0x20202			/* VM, IF; IOPL 0 */
	pushl 44(%eax)			/* CS:IP */
	pushl 48(%eax)
	movl 4(%eax), %ebx
	movl 8(%eax), %ecx
	movl 12(%eax), %edx
	movl 16(%eax), %esi
	movl 20(%eax), %edi
	movl 24(%eax), %ebp
	movl 0(%eax), %eax
	iretl
v86_leave:
	movl v86_sp, %esp
	movw $DATA32, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %fs
	movw %ax, %gs
	popal
	ret

#include "stubs.inc"
common:
	pushl %ds
	pushal
	movw $DATA32, %ax
	movw %ax, %ds
	movw %ax, %es
	cld
	pushl %esp
	call on_vector
	addl $4, %esp
	popal
	popl %ds
	addl $8, %esp
	iretl

	.data
	.globl tss_descriptor
	.balign 8
gdt:
	.quad 0
	.quad 0x00cf9b000000ffff
	.quad 0x00cf93000000ffff
	.quad 0x00009b000000ffff
tss_descriptor:
	.quad 0
gdt_end:
gdtr:	.word gdt_end - gdt - 1
	.long gdt
real_idtr:
	.word 0x3ff
	.long 0
v86_sp:	.long 0
	.macro addr n
	.long stub_\n
	.endm
	.globl stubs
stubs:
	.set i, 0
	.rept 64
	addr %i
	.set i, i + 1
	.endr
	.section .note.GNU-stack, "", @progbits
