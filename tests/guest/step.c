/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Single-stepping through every kind of system instruction: one trap behind each (SDM 3B 17.3.1.4), none
 * behind what loads SS, one for each round of a repeated string instruction; and far transfers in 64-bit
 * mode.
 */
#include "lib.h"

/* `s` is an instruction with a trap behind it, `q` one without. */
__asm__(".macro s insn:vararg\n"
	"	\\insn\n"
	"77:	.pushsection .data.steps, \"aw\"\n"
	"	.quad 77b\n"
	"	.popsection\n"
	".endm\n"
	".macro q insn:vararg\n"
	"	\\insn\n"
	".endm\n"
	"	.pushsection .data.steps, \"aw\"\n"
	"	.balign 8\n"
	"steps_begin:\n"
	"	.popsection\n"
	"stepped:\n"
	"	push %rbx\n	push %rbp\n"
	"	pushfq\n	orq $0x100, (%rsp)\n	popfq\n"
	"	s nop\n"
	"	s cli\n"
	"	s mov %cr0, %rax\n	s mov %rax, %cr0\n"
	"	s mov %cr2, %rcx\n	s mov %rcx, %cr2\n"
	"	s mov %cr3, %rax\n	s mov %rax, %cr3\n"
	"	s mov %cr4, %rax\n	s mov %rax, %cr4\n"
	"	s mov %cr8, %rax\n	s mov %rax, %cr8\n"
	"	s mov %dr0, %rax\n	s mov %rax, %dr0\n	s mov %dr7, %rax\n"
	"	s sgdt buffer\n	s lgdt buffer\n	s sidt buffer\n	s lidt buffer\n"
	"	s sldt %eax\n	s lldt %ax\n	s str %eax\n	s smsw %eax\n	s lmsw %ax\n	s clts\n"
	"	s invlpg buffer\n	s wbinvd\n"
	"	s movl $0xc0000102, %ecx\n	s rdmsr\n	s wrmsr\n"
	"	s rdtsc\n	s xorl %eax, %eax\n	s cpuid\n"
	"	s swapgs\n	s swapgs\n"
	"	s inb $0x80, %al\n	s outb %al, $0x80\n"
	"	s pushfq\n	s popfq\n"
	"	s movl $0x18, %eax\n	s movl %eax, %ds\n	s movl %ds, %eax\n"
	"	q movl %eax, %ss\n	s nop\n"
	"	s lar %eax, %ecx\n	s lsl %eax, %ecx\n	s verr %ax\n	s verw %ax\n"
	"	s sti\n	s nop\n	s cli\n"
	"	s pause\n	s lfence\n	s clflush buffer\n	s fxsave buffer\n	s fxrstor "
	"buffer\n	s fninit\n"
	"	s movl $3, %ecx\n	s leaq buffer, %rsi\n	s leaq 8(%rsi), %rdi\n"
	"76:	.pushsection .data.steps\n	.quad 76b, 76b\n	.popsection\n"
	"	s rep movsb\n"
	"	s rep movsb\n" /* nothing left to move */
	"	call 71f\n"    /* where CALL, RET and JMP go */
	"	.pushsection .data.steps\n	.quad 71f, 72f, 73f\n	.popsection\n"
	"72:	jmp 73f\n"
	"71:	ret\n"
	"73:	s push $0x10\n	s push $74f\n"
	"	lretq\n	.pushsection .data.steps\n	.quad 74f\n	.popsection\n"
	"74:	s movl %ss, %eax\n	s movq %rsp, %rcx\n	s push %rax\n	s push %rcx\n	s "
	"pushfq\n	s push $0x10\n	s push $75f\n"
	"	iretq\n	.pushsection .data.steps\n	.quad 75f\n	.popsection\n"
	"75:	lcall *far_pointer\n"
	"	.pushsection .data.steps\n	.quad far_target, 69f\n	.popsection\n"
	"69:	s lock cmpxchg16b buffer\n	s xchg %rax, buffer\n	s enter $16, $0\n	s leave\n"
	"	s pushfq\n	s andq $~0x100, (%rsp)\n	s popfq\n"
	"	nop\n"
	"	pop %rbp\n	pop %rbx\n	ret\n"
	"far_target: lretl\n"
	"	.pushsection .data.steps\n"
	"steps_end: .popsection\n"
	"	.data\n	.balign 16\n"
	"buffer:	.skip 1024\n"
	"far_pointer: .long far_target\n	.word 0x10\n"
	"	.text\n");
void stepped(void);
extern uint64_t steps_begin[], steps_end[];
extern char far_target[];

static uint64_t trap[512];
static unsigned traps, without_bs;

static bool on_trap(struct frame *f)
{
	uint64_t dr6;

	if (f->vector != 1)
		return false;
	__asm__ volatile("mov %%dr6, %0" : "=r"(dr6));
	without_bs += !(dr6 & 0x4000);
	dr6 = 0xffff0ff0;
	__asm__ volatile("mov %0, %%dr6" ::"r"(dr6));
	if (traps < 512)
		trap[traps++] = f->rip;
	return true;
}

static void far_call(uint64_t arg)
{
	(void)arg;
	__asm__ volatile("lcall *far_pointer" ::: "memory");
}

/* The same with a stack above 4 GiB of addresses, which 32-bit pushes must not forget. */
static void far_call_high(uint64_t arg)
{
	__asm__ volatile("mov %%rsp, %%rbx; mov %0, %%rsp; lcall *far_pointer; mov %%rbx, %%rsp" ::"r"(arg)
			 : "rbx", "memory");
}

void guest_main(void)
{
	unsigned n = (unsigned)(steps_end - steps_begin), same = 0;
	uint64_t *pdpt;

	__asm__ volatile("lldt %w0" ::"r"(0));
	hook = on_trap;
	stepped();
	hook = 0;
	while (same < n && same < traps && trap[same] == steps_begin[same])
		same++;
	expect("traps", traps, n);
	expect("those in their places", same, n);
	if (same < n) {
		print("FAIL first other: ");
		print_hex(trap[same]);
		print(" instead of ");
		print_hex(steps_begin[same]);
		print("\n");
	}
	expect("traps without DR6.BS", without_bs, 0);
	make_window();
	map(0, page_a, 3);
	expect("far call", (uint64_t)(int64_t)try_call(far_call, 0), ~0ull);
	/* The window again in the upper half. */
	pml4[256] = pml4[0];
	WRITE_CR(3, READ_CR(3));
	expect("far call on a high stack",
	       (uint64_t)(int64_t)try_call(far_call_high, 0xffff800000000000ull + WINDOW + 2048), ~0ull);
	pdpt = (uint64_t *)page_a;
	expect("its frame", pdpt[(2048 - 8) / 8] >> 32, 0x10);
}
