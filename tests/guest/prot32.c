/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 32-bit protected mode by the manual: segments and their limits (SDM 3A 5), call gates (5.8), task switches
 * (8), virtual-8086 mode (21), 32-bit and PAE paging (4).
 */
#include <stdbool.h>
#include <stdint.h>

#include "print_hex.h"

struct frame {
	uint32_t edi, esi, ebp, esp0, ebx, edx, ecx, eax, ds;
	uint32_t vector, error, eip, cs, eflags;
	uint32_t esp, ss;                /* from an outer ring */
	uint32_t v_es, v_ds, v_fs, v_gs; /* from V86 */
};

struct tss {
	uint32_t link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi,
	    edi;
	uint32_t es, cs, ss, ds, fs, gs, ldt;
	uint16_t trap, iomap;
	uint8_t bits[40];
};

int try_call(void (*fn)(uint32_t), uint32_t arg);
void to_user(uint32_t eip, uint32_t esp, uint32_t eflags);
void to_v86(uint32_t cs, uint32_t ip, uint32_t eflags);
void setup(void);
void guest_main(void);
void on_exception(struct frame *f);
extern char try_fault[], stack_top[];
extern uint32_t stubs[64];

uint32_t try_esp;
int last_vector;
static struct frame last;
static uint32_t last_cr2, frame_at;
static bool (*hook)(struct frame *f);

static void outb(uint16_t port, uint8_t v)
{
	__asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port) : "memory");
}

static uint8_t inb(uint16_t port)
{
	uint8_t v;

	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static void print(const char *s)
{
	for (; *s; s++)
		outb(0x3f8, (uint8_t)*s);
}

static void expect(const char *name, uint32_t got, uint32_t want)
{
	print(got == want ? "ok " : "FAIL ");
	print(name);
	if (got != want) {
		print(": got ");
		print_hex(got);
		print(", want ");
		print_hex(want);
	}
	print("\n");
}

/* ---- descriptors ---- */

enum {
	CODE = 0x08,
	DATA = 0x10,
	UCODE = 0x18,
	UDATA = 0x20,
	TSS_MAIN = 0x28,
	TSS_TASK = 0x30,
	TEST = 0x38, /* what the test at hand wants */
	GATE = 0x40,
	TASK_GATE = 0x48,
	TSS_SHORT = 0x50,
	CONFORMING = 0x58,
	LDT = 0x60,
	GDT_END = 0x68,
};

static uint64_t gdt[GDT_END / 8] __attribute__((aligned(16)));
static uint64_t idt[64] __attribute__((aligned(16)));
static uint64_t ldt[2];
static struct tss tss_main, tss_task;
struct {
	uint16_t limit;
	uint32_t base;
} __attribute__((packed)) gdtr = { sizeof gdt - 1, (uint32_t)gdt }, idtr = { sizeof idt - 1, (uint32_t)idt };

#define G  0x8
#define DB 0x4

static uint64_t segment(uint32_t base, uint32_t limit, unsigned access, unsigned flags)
{
	return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)access << 40 |
	       (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)flags << 52 | (uint64_t)(base >> 24) << 56;
}

static uint64_t gate(uint16_t sel, uint32_t off, unsigned access, unsigned count)
{
	return (off & 0xffff) | (uint64_t)sel << 16 | (uint64_t)count << 32 | (uint64_t)access << 40 |
	       (uint64_t)(off >> 16) << 48;
}

static uint8_t ring0_stack[8192] __attribute__((aligned(16)));
static uint8_t user_stack[4096] __attribute__((aligned(16)));

void setup(void)
{
	gdt[CODE / 8] = segment(0, 0xfffff, 0x9b, G | DB);
	gdt[DATA / 8] = segment(0, 0xfffff, 0x93, G | DB);
	gdt[UCODE / 8] = segment(0, 0xfffff, 0xfb, G | DB);
	gdt[UDATA / 8] = segment(0, 0xfffff, 0xf3, G | DB);
	gdt[TSS_MAIN / 8] = segment((uint32_t)&tss_main, sizeof tss_main - 1, 0x89, 0);
	gdt[CONFORMING / 8] = segment(0, 0xfffff, 0x9f, G | DB);
	gdt[LDT / 8] = segment((uint32_t)ldt, sizeof ldt - 1, 0x82, 0);
	tss_main.ss0 = DATA;
	tss_main.esp0 = (uint32_t)ring0_stack + sizeof ring0_stack;
	tss_main.iomap = 104;
	for (unsigned i = 0; i < 64; i++)
		idt[i] = gate(CODE, stubs[i], i == 3 || i == 4 || i == 0x30 ? 0xee : 0x8e, 0);
}

void on_exception(struct frame *f)
{
	uint32_t cr2;

	__asm__ volatile("mov %%cr2, %0" : "=r"(cr2));
	if (hook && hook(f))
		return;
	last = *f;
	frame_at = (uint32_t)f;
	last_vector = (int)f->vector;
	last_cr2 = cr2;
	if (!try_esp) {
		print("FAIL unexpected exception ");
		print_hex(f->vector);
		print(" at ");
		print_hex(f->eip);
		print("\n");
		__asm__ volatile("outw %%ax, %%dx" ::"a"(0x2000), "d"(0x604));
		for (;;)
			__asm__ volatile("hlt");
	}
	/* Back to try_call by jumping: the stack may be another. */
	__asm__ volatile("mov %0, %%ds; jmp *%1" ::"r"(DATA), "r"(try_fault));
	__builtin_unreachable();
}

/* vector << 16 | error code of what ends fn; 0xffffffff: nothing. */
static uint32_t outcome(void (*fn)(uint32_t), uint32_t arg)
{
	int r = try_call(fn, arg);

	return r < 0 ? ~0u : (uint32_t)r << 16 | (last.error & 0xffff);
}

#define NONE   ~0u
#define GP(e)  (13u << 16 | (e))
#define SS_(e) (12u << 16 | (e))
#define NP(e)  (11u << 16 | (e))
#define TS(e)  (10u << 16 | (e))
#define PF(e)  (14u << 16 | (e))
#define UD     (6u << 16)

/* ---- segments ---- */

static void load_ds(uint32_t sel)
{
	__asm__ volatile("mov %0, %%ds; mov %1, %%ds" ::"r"(sel), "r"(DATA) : "memory");
}
static void load_es(uint32_t sel)
{
	__asm__ volatile("mov %0, %%es; mov %1, %%es" ::"r"(sel), "r"(DATA) : "memory");
}
static void load_ss(uint32_t sel)
{
	__asm__ volatile("mov %0, %%ss; mov %1, %%ss" ::"r"(sel), "r"(DATA) : "memory");
}
static void read8(uint32_t at)
{
	__asm__ volatile("mov %0, %%fs; movb %%fs:(%1), %%al" ::"r"(TEST), "r"(at) : "eax", "memory");
}
static void read32(uint32_t at)
{
	__asm__ volatile("mov %0, %%fs; movl %%fs:(%1), %%eax" ::"r"(TEST), "r"(at) : "eax", "memory");
}
static void write8(uint32_t at)
{
	__asm__ volatile("mov %0, %%fs; movb $0, %%fs:(%1)" ::"r"(TEST), "r"(at) : "memory");
}
static void read_null(uint32_t at)
{
	__asm__ volatile("mov %0, %%fs; movb %%fs:(%1), %%al" ::"r"(0), "r"(at) : "eax", "memory");
}
static void far_jmp(uint32_t sel)
{
	struct {
		uint32_t off;
		uint16_t sel;
	} __attribute__((packed)) p = { 0x00100000, (uint16_t)sel };

	__asm__ volatile("ljmp *%0" ::"m"(p) : "memory");
}
static void read_ss(uint32_t at)
{
	__asm__ volatile("mov %0, %%ss; movl %%ss:(%1), %%eax; mov %2, %%ss" ::"r"(TEST), "r"(at), "r"(DATA)
			 : "eax", "memory");
}

static uint8_t area[0x20000] __attribute__((aligned(4096)));

static void segments(void)
{
	gdt[TEST / 8] = segment((uint32_t)area, 0xfff, 0x92, DB);
	expect("limit, last byte", outcome(read8, 0xfff), NONE);
	expect("accessed bit", gdt[TEST / 8] >> 40 & 1, 1);
	expect("limit, one beyond", outcome(read8, 0x1000), GP(0));
	expect("limit, last dword", outcome(read32, 0xffc), NONE);
	expect("limit, dword across", outcome(read32, 0xffd), GP(0));
	gdt[TEST / 8] = segment((uint32_t)area, 0xfff, 0x96, DB);
	expect("expand-down, at limit", outcome(read8, 0xfff), GP(0));
	expect("expand-down, above", outcome(read8, 0x1000), NONE);
	expect("expand-down, top", outcome(write8, 0xfff000), NONE);
	expect("expand-down, dword from below", outcome(read32, 0xffe), GP(0));
	gdt[TEST / 8] = segment((uint32_t)area, 0xfff, 0x96, 0);
	expect("expand-down 16-bit, last", outcome(read8, 0xffff), NONE);
	expect("expand-down 16-bit, beyond", outcome(read8, 0x10000), GP(0));
	expect("expand-down 16-bit, dword across", outcome(read32, 0xfffd), GP(0));
	gdt[TEST / 8] = segment((uint32_t)area, 0xfff, 0x90, DB);
	expect("read-only, read", outcome(read8, 0), NONE);
	expect("read-only, write", outcome(write8, 0), GP(0));
	expect("read-only into SS", outcome(load_ss, TEST), GP(TEST));
	gdt[TEST / 8] = segment((uint32_t)area, 0xfff, 0x98, DB);
	expect("execute-only into DS", outcome(load_ds, TEST), GP(TEST));
	gdt[TEST / 8] = segment((uint32_t)area, 0xfff, 0x9a, DB);
	expect("readable code, read", outcome(read8, 0), NONE);
	expect("readable code, write", outcome(write8, 0), GP(0));
	expect("null, load", outcome(load_ds, 3), NONE);
	expect("null, use", outcome(read_null, 0), GP(0));
	expect("null into SS", outcome(load_ss, 0), GP(0));
	gdt[TEST / 8] = segment((uint32_t)area, 0xfff, 0x12, DB);
	expect("not present into DS", outcome(load_ds, TEST), NP(TEST));
	expect("not present into SS", outcome(load_ss, TEST), SS_(TEST));
	expect("beyond the table", outcome(load_es, GDT_END | 0), GP(GDT_END));
	__asm__ volatile("lldt %w0" ::"r"(0)); /* after RESET there is one, at 0 */
	expect("in an absent LDT", outcome(load_es, 4), GP(4));
	expect("a TSS into DS", outcome(load_ds, TSS_MAIN), GP(TSS_MAIN));
	expect("SS of another ring", outcome(load_ss, UDATA), GP(UDATA));
	expect("SS with RPL 3", outcome(load_ss, DATA | 3), GP(DATA));
	expect("DS with RPL 3", outcome(load_ds, DATA | 3), GP(DATA));
	gdt[TEST / 8] = segment(0, 0xfff, 0x92, G | DB);
	expect("stack segment", outcome(read_ss, 0xfffffc), NONE);
	expect("stack segment, beyond", outcome(read_ss, 0xfffffd), SS_(0));
	expect("far jump to data", outcome(far_jmp, TEST), GP(TEST));
	gdt[TEST / 8] = segment(0, 0xfff, 0x9a, DB);
	expect("far jump beyond the limit", outcome(far_jmp, TEST), GP(0));
	gdt[TEST / 8] = segment(0, 0xfffff, 0x1a, DB | G);
	expect("far jump to what is not present", outcome(far_jmp, TEST), NP(TEST));
	expect("far jump to null", outcome(far_jmp, 0), GP(0));
	expect("far jump to user code", outcome(far_jmp, UCODE), GP(UCODE));
	expect("far jump to a busy TSS", outcome(far_jmp, TSS_MAIN), GP(TSS_MAIN));
}

static uint32_t lar(uint32_t sel)
{
	uint32_t v = 0xdead;
	bool ok;

	__asm__ volatile("lar %2, %0; setz %1" : "+r"(v), "=q"(ok) : "r"(sel) : "cc");
	return ok ? v & 0xf0ff00 : 0xffffffff;
}

static uint32_t lsl(uint32_t sel)
{
	uint32_t v = 0xdead;
	bool ok;

	__asm__ volatile("lsl %2, %0; setz %1" : "+r"(v), "=q"(ok) : "r"(sel) : "cc");
	return ok ? v : 0xeeeeeeee;
}

static uint32_t ver(uint32_t sel)
{
	bool r, w;

	__asm__ volatile("verr %%ax; setz %0; verw %%ax; setz %1" : "=&q"(r), "=&q"(w) : "a"(sel) : "cc");
	return (uint32_t)r | (uint32_t)w << 1;
}

static void load_ldt(uint32_t sel)
{
	__asm__ volatile("lldt %w0" ::"r"(sel));
}
static void load_task(uint32_t sel)
{
	__asm__ volatile("ltr %w0" ::"r"(sel));
}

static void inspection(void)
{
	uint32_t a = 0x11, b = 0x13;

	expect("LAR of code", lar(CODE), 0xc09b00);
	expect("LSL of code", lsl(CODE), 0xffffffff);
	expect("LSL of a TSS", lsl(TSS_MAIN), sizeof tss_main - 1);
	expect("LAR of a busy TSS", lar(TSS_MAIN), 0x008b00);
	gdt[GATE / 8] = gate(CODE, 0, 0x8c, 0);
	expect("LAR of a call gate", lar(GATE), 0x008c00);
	expect("LSL of a call gate", lsl(GATE), 0xeeeeeeee);
	gdt[GATE / 8] = gate(CODE, 0, 0x8e, 0);
	expect("LAR of an interrupt gate", lar(GATE), 0xffffffff);
	expect("LAR of null", lar(0), 0xffffffff);
	expect("LAR beyond", lar(GDT_END), 0xffffffff);
	expect("VERR VERW of data", ver(DATA), 3);
	expect("VERR VERW of code", ver(CODE), 1);
	expect("VERR VERW of data, RPL 3", ver(DATA | 3), 0);
	expect("VERR VERW of conforming, RPL 3", ver(CONFORMING | 3), 1);
	expect("VERR VERW of a TSS", ver(TSS_MAIN), 0);
	__asm__ volatile("arpl %w1, %w0" : "+r"(a) : "r"(b) : "cc");
	expect("ARPL", a, 0x13);
	expect("LLDT", outcome(load_ldt, LDT), NONE);
	ldt[0] = segment((uint32_t)area, 0xff, 0x92, DB);
	expect("a segment of the LDT", outcome(load_es, 4), NONE);
	expect("beyond the LDT", outcome(load_es, 0x14), GP(0x14));
	expect("LLDT of data", outcome(load_ldt, DATA), GP(DATA));
	expect("LLDT in the LDT", outcome(load_ldt, LDT | 4), GP(LDT | 4));
	expect("LLDT of null", outcome(load_ldt, 0), NONE);
	expect("LTR of a busy TSS", outcome(load_task, TSS_MAIN), GP(TSS_MAIN));
	expect("LTR of null", outcome(load_task, 0), GP(0));
}

/* ---- rings and gates ---- */

uint32_t seen[8];

/* Called through a gate with two parameters: frame is EIP, CS, params, ESP, SS. */
void gate_target(void);
__asm__("gate_target:\n"
	"	movl 0(%esp), %eax\n	movl %eax, %ss:seen\n"
	"	movl 4(%esp), %eax\n	movl %eax, %ss:seen+4\n"
	"	movl 8(%esp), %eax\n	movl %eax, %ss:seen+8\n"
	"	movl 12(%esp), %eax\n	movl %eax, %ss:seen+12\n"
	"	movl 16(%esp), %eax\n	movl %eax, %ss:seen+16\n"
	"	movl 20(%esp), %eax\n	movl %eax, %ss:seen+20\n"
	"	xorl %eax, %eax\n	movw %cs, %ax\n	movl %eax, %ss:seen+24\n"
	"	movl %esp, %ss:seen+28\n"
	"	lretl $8\n");

void user_gate(void);
void user_gate_end(void);
void user_back(void);
__asm__("user_gate:\n"
	"	pushl $0x2222\n	pushl $0x1111\n"
	"	lcall $0x43, $0\n"
	"user_gate_end:\n"
	"	int $0x30\n"
	"user_int3:	int3\n"
	"user_cli:	cli\n"
	"user_hlt:	hlt\n"
	"user_int:	int $0x31\n"
	"user_cr:	movl %cr0, %eax\n"
	"user_in:	inb $0x80, %al\n"
	"user_ud:	ud2\n");
extern char user_int3[], user_cli[], user_hlt[], user_int[], user_cr[], user_in[], user_ud[];

static void user(uint32_t at)
{
	to_user(at, (uint32_t)user_stack + sizeof user_stack, 2);
}
static void call_gate(uint32_t sel)
{
	(void)sel;
	__asm__ volatile("pushl $0x4444; pushl $0x3333; lcall $0x40, $0" ::: "eax", "memory");
}

static void rings(void)
{
	uint32_t top = (uint32_t)user_stack + sizeof user_stack, esp0 = tss_main.esp0;

	gdt[GATE / 8] = gate(CODE, (uint32_t)gate_target, 0xec, 2);
	expect("call gate from ring 3", outcome(user, (uint32_t)user_gate), 0x300000);
	expect("its EIP", seen[0], (uint32_t)user_gate_end);
	expect("its CS", seen[1] & 0xffff, UCODE | 3);
	expect("its parameters", seen[2] << 16 | seen[3], 0x11112222);
	expect("its ESP", seen[4], top - 8);
	expect("its SS", seen[5] & 0xffff, UDATA | 3);
	expect("CS in the gate's code", seen[6], CODE);
	expect("the stack it ran on", seen[7], esp0 - 24);
	expect("back: EIP", last.eip, (uint32_t)user_gate_end + 2);
	expect("back: ESP", last.esp, top);
	expect("back: CS", last.cs & 0xffff, UCODE | 3);
	expect("call gate from ring 0", outcome(call_gate, 0), NONE);
	expect("no stack switch", seen[2] << 16 | seen[3], 0x33334444);
	gdt[GATE / 8] = gate(CODE, (uint32_t)gate_target, 0x8c, 2);
	expect("gate of ring 0 from ring 3", outcome(user, (uint32_t)user_gate), GP(GATE));
	gdt[GATE / 8] = gate(CODE, (uint32_t)gate_target, 0x6c, 2);
	expect("gate not present", outcome(user, (uint32_t)user_gate), NP(GATE));
	gdt[GATE / 8] = gate(DATA, (uint32_t)gate_target, 0xec, 2);
	expect("gate to data", outcome(user, (uint32_t)user_gate), GP(DATA));
	gdt[GATE / 8] = gate(0, (uint32_t)gate_target, 0xec, 2);
	expect("gate to null", outcome(user, (uint32_t)user_gate), GP(0));
	expect("INT3 from ring 3", outcome(user, (uint32_t)user_int3), 3u << 16);
	expect("its frame's place", frame_at, esp0 - 20 - 44 + 0);
	expect("CLI in ring 3", outcome(user, (uint32_t)user_cli), GP(0));
	expect("HLT in ring 3", outcome(user, (uint32_t)user_hlt), GP(0));
	expect("INT to a gate of ring 0", outcome(user, (uint32_t)user_int), GP(0x31 * 8 + 2));
	expect("MOV from CR0 in ring 3", outcome(user, (uint32_t)user_cr), GP(0));
	expect("IN without permission", outcome(user, (uint32_t)user_in), GP(0));
	tss_main.bits[16] = 0xfe;
	expect("IN with permission", outcome(user, (uint32_t)user_in), UD);
	tss_main.bits[16] = 0xff;
	tss_main.ss0 = UDATA;
	gdt[GATE / 8] = gate(CODE, (uint32_t)gate_target, 0xec, 2);
	hook = 0;
	tss_main.ss0 = DATA;
}

/* ---- tasks ---- */

static uint8_t task_stack[8192] __attribute__((aligned(16)));
static uint32_t task_ran, task_flags, task_cr0;

static void task_entry(void)
{
	for (;;) {
		task_ran++;
		__asm__ volatile("pushfl; popl %0; movl %%cr0, %1" : "=r"(task_flags), "=r"(task_cr0));
		__asm__ volatile("clts; iretl" ::: "memory");
	}
}

static void task_jumps_back(void)
{
	for (;;) {
		task_ran++;
		__asm__ volatile("clts; ljmp $0x28, $0");
	}
}

static void fresh_task(void (*entry)(void))
{
	uint8_t *p = (uint8_t *)&tss_task;

	for (unsigned i = 0; i < sizeof tss_task; i++)
		p[i] = 0;
	tss_task.eip = (uint32_t)entry;
	tss_task.eflags = 2;
	tss_task.esp = (uint32_t)task_stack + sizeof task_stack;
	tss_task.cs = CODE;
	tss_task.ss = tss_task.ds = tss_task.es = tss_task.fs = tss_task.gs = DATA;
	tss_task.esp0 = tss_main.esp0;
	tss_task.ss0 = DATA;
	tss_task.iomap = 104;
	gdt[TSS_TASK / 8] = segment((uint32_t)&tss_task, 103, 0x89, 0);
	gdt[TSS_MAIN / 8] = segment((uint32_t)&tss_main, sizeof tss_main - 1, 0x8b, 0);
}

static void call_task(uint32_t arg)
{
	(void)arg;
	__asm__ volatile("lcall $0x30, $0" ::: "memory");
}
static void jump_task(uint32_t arg)
{
	(void)arg;
	__asm__ volatile("ljmp $0x30, $0" ::: "memory");
}
static void call_task_gate(uint32_t arg)
{
	(void)arg;
	__asm__ volatile("lcall $0x48, $0" ::: "memory");
}
static void iret_nt(uint32_t arg)
{
	(void)arg;
	__asm__ volatile("pushfl; orl $0x4000, (%%esp); popfl; iretl" ::: "memory", "cc");
}
static void int_31(uint32_t arg)
{
	(void)arg;
	__asm__ volatile("int $0x31" ::: "memory");
}
/* The main TSS again, after a fault in the other task. */
static void main_again(void)
{
	gdt[TSS_MAIN / 8] &= ~(2ull << 40);
	__asm__ volatile("ltr %w0; clts; pushfl; andl $~0x4000, (%%esp); popfl" ::"r"(TSS_MAIN)
			 : "memory", "cc");
}

static void tasks(void)
{
	fresh_task(task_entry);
	expect("CALL to a task and IRET", outcome(call_task, 0), NONE);
	expect("it ran", task_ran, 1);
	expect("NT in it", task_flags & 0x4000, 0x4000);
	expect("TS in it", task_cr0 & 8, 8);
	expect("backlink", tss_task.link, TSS_MAIN);
	expect("busy bits after",
	       (uint32_t)(gdt[TSS_TASK / 8] >> 40 & 0xff) << 8 | (uint32_t)(gdt[TSS_MAIN / 8] >> 40 & 0xff),
	       0x898b);
	__asm__ volatile("clts");
	expect("again, from behind IRET", outcome(call_task, 0), NONE);
	expect("it ran twice", task_ran, 2);
	gdt[TASK_GATE / 8] = gate(TSS_TASK, 0, 0x85, 0);
	expect("by a task gate", outcome(call_task_gate, 0), NONE);
	expect("thrice", task_ran, 3);
	__asm__ volatile("clts");
	idt[0x31] = gate(TSS_TASK, 0, 0x85, 0);
	expect("by an interrupt", outcome(int_31, 0), NONE);
	expect("four times", task_ran, 4);
	__asm__ volatile("clts");
	idt[0x31] = gate(CODE, stubs[0x31], 0x8e, 0);
	fresh_task(task_jumps_back);
	task_ran = 0;
	expect("JMP there and back", outcome(jump_task, 0), NONE);
	expect("it ran", task_ran, 1);
	expect("main busy, it not",
	       (uint32_t)(gdt[TSS_TASK / 8] >> 40 & 0xff) << 8 | (uint32_t)(gdt[TSS_MAIN / 8] >> 40 & 0xff),
	       0x898b);
	gdt[TSS_TASK / 8] = segment((uint32_t)&tss_task, 102, 0x89, 0);
	expect("TSS too short", outcome(jump_task, 0), TS(TSS_TASK));
	gdt[TSS_TASK / 8] = segment((uint32_t)&tss_task, 103, 0x09, 0);
	expect("TSS not present", outcome(jump_task, 0), NP(TSS_TASK));
	gdt[TSS_TASK / 8] = segment((uint32_t)&tss_task, 103, 0x8b, 0);
	expect("TSS busy", outcome(jump_task, 0), GP(TSS_TASK));
	tss_main.link = DATA;
	expect("IRET to a link that is no TSS", outcome(iret_nt, 0), TS(DATA));
	/* Faults of the new task: its CS:EIP is in the frame. */
	fresh_task(task_entry);
	tss_task.ss = UDATA;
	expect("new SS of another ring", outcome(jump_task, 0), TS(UDATA));
	expect("in the new task", last.eip, (uint32_t)task_entry);
	main_again();
	fresh_task(task_entry);
	gdt[TEST / 8] = segment((uint32_t)area, 0xfff, 0x12, DB);
	tss_task.es = TEST;
	expect("new ES not present", outcome(jump_task, 0), NP(TEST));
	main_again();
	fresh_task(task_entry);
	tss_task.ldt = DATA;
	expect("new LDT is none", outcome(jump_task, 0), TS(DATA));
	main_again();
	fresh_task(task_entry);
	tss_task.trap = 1;
	expect("debug trap bit", outcome(jump_task, 0), 1u << 16);
	expect("before its first instruction", last.eip, (uint32_t)task_entry);
	{
		uint32_t dr6;

		__asm__ volatile("mov %%dr6, %0" : "=r"(dr6));
		expect("DR6.BT", dr6 & 0x8000, 0x8000);
		__asm__ volatile("mov %0, %%dr6" ::"r"(0xffff0ff0));
	}
	main_again();
}

/* ---- virtual-8086 mode ---- */

static uint32_t v86_flags;

static void v86(uint32_t at)
{
	to_v86(0x900, at, v86_flags);
}

static void virtual_8086(void)
{
	static const uint8_t code[] = {
		0xfa,                         /*  0: cli */
		0xcd, 0x30,                   /*  1: int 30h */
		0xcc,                         /*  3: int3 */
		0x9c,                         /*  4: pushf */
		0xcd, 0x30,                   /*  5: int 30h */
		0x8c, 0xc8,                   /*  7: mov ax, cs */
		0x8e, 0xd8,                   /*  9: mov ds, ax */
		0xa1, 0x00, 0x00,             /* 11: mov ax, [0] */
		0x0f, 0x0b,                   /* 14: ud2 */
		0xf4,                         /* 16: hlt */
		0xe4, 0x80,                   /* 17: in al, 80h */
		0x0f, 0x0b,                   /* 19: ud2 */
		0xa1, 0xff, 0xff,             /* 21: mov ax, [ffff]: across the limit */
		0x0f, 0x01, 0xe0,             /* 24: smsw ax */
		0x0f, 0x0b,                   /* 27: ud2 */
		0x0f, 0x00, 0xc8,             /* 29: str ax */
		0xea, 0x23, 0x00, 0x00, 0x09, /* 32: jmp 900:23 */
	};
	volatile uint8_t *to = (volatile uint8_t *)0x9000;

	for (unsigned i = 0; i < sizeof code; i++)
		to[i] = code[i];
	to[0x23] = 0x0f; /* over the jump's own tail, and on */
	for (unsigned i = sizeof code; i < 64; i++)
		to[i] = i & 1 ? 0x0b : 0x0f;
	v86_flags = 2;
	expect("V86: CLI, IOPL 0", outcome(v86, 0), GP(0));
	expect("pushed VM", last.eflags >> 17 & 1, 1);
	expect("pushed CS", last.cs & 0xffff, 0x900);
	expect("pushed SS:ESP", (last.ss & 0xffff) << 16 | (last.esp & 0xffff), 0x10000ff0);
	expect("pushed ES DS", (last.v_es & 0xffff) << 16 | (last.v_ds & 0xffff), 0x10011002);
	expect("pushed FS GS", (last.v_fs & 0xffff) << 16 | (last.v_gs & 0xffff), 0x10031004);
	expect("V86: INT, IOPL 0", outcome(v86, 1), GP(0));
	expect("V86: INT3, IOPL 0", outcome(v86, 3), 3u << 16);
	expect("V86: PUSHF, IOPL 0", outcome(v86, 4), GP(0));
	expect("V86: segments", outcome(v86, 7), UD);
	expect("V86: data through them", last.eax & 0xffff, 0xcdfa);
	expect("V86: HLT", outcome(v86, 16), GP(0));
	expect("V86: IN without permission", outcome(v86, 17), GP(0));
	tss_main.bits[16] = 0xfe;
	expect("V86: IN with permission", outcome(v86, 17), UD);
	tss_main.bits[16] = 0xff;
	expect("V86: word across the limit", outcome(v86, 21), GP(0));
	expect("V86: SMSW", outcome(v86, 24), UD);
	expect("V86: STR", outcome(v86, 29), UD);
	expect("V86: STR's place", last.eip, 29);
	v86_flags = 0x3002;
	expect("V86: CLI and INT, IOPL 3", outcome(v86, 0), 0x300000);
	expect("its return address", last.eip, 3);
	expect("V86: PUSHF, IOPL 3", outcome(v86, 4), 0x300000);
	expect("what it pushed", *(volatile uint16_t *)0x10fee, 0x3002);
	expect("V86: HLT, IOPL 3", outcome(v86, 16), GP(0));
	expect("V86: IN, IOPL 3", outcome(v86, 17), GP(0));
}

/* ---- paging ---- */

static uint32_t pd[1024] __attribute__((aligned(4096))), pt[1024] __attribute__((aligned(4096)));
static uint64_t pdpt[4] __attribute__((aligned(32))), pd64[512] __attribute__((aligned(4096))),
    pt64[512] __attribute__((aligned(4096)));
static uint8_t page_a[4096] __attribute__((aligned(4096))), page_b[4096] __attribute__((aligned(4096)));

#define VA 0x08000000u

static void rd(uint32_t at)
{
	(void)*(volatile uint8_t *)at;
}
static void wr(uint32_t at)
{
	*(volatile uint8_t *)at = 1;
}
static void ex(uint32_t at)
{
	((void (*)(void))at)();
}
static void set_cr3(uint32_t v)
{
	__asm__ volatile("mov %0, %%cr3" ::"r"(v) : "memory");
}
static void set_cr4(uint32_t v)
{
	__asm__ volatile("mov %0, %%cr4" ::"r"(v) : "memory");
}
static void set_cr0(uint32_t v)
{
	__asm__ volatile("mov %0, %%cr0" ::"r"(v) : "memory");
}
static uint32_t get_cr0(void)
{
	uint32_t v;

	__asm__ volatile("mov %%cr0, %0" : "=r"(v));
	return v;
}

/* Ring 3 that reads, or writes, [ebx]. */
void user_read(void);
void user_write(void);
__asm__("user_read: movb (%ebx), %al\n	int $0x30\n"
	"user_write: movb $1, (%ebx)\n	int $0x30\n");
static uint32_t user_va;
static void user_rd(uint32_t at)
{
	(void)at;
	/* to_user passes EFLAGS in EBX: so the address is that, with flags that may be any. */
	to_user((uint32_t)user_read, (uint32_t)user_stack + sizeof user_stack, user_va);
}
static void user_wr(uint32_t at)
{
	(void)at;
	to_user((uint32_t)user_write, (uint32_t)user_stack + sizeof user_stack, user_va);
}

static void paging(void)
{
	page_a[0] = page_b[0] = 0xc3;
	for (unsigned i = 0; i < 1024; i++)
		pd[i] = i << 22 | 0x87; /* 4 MiB pages, ring 3 too */
	pd[VA >> 22] = (uint32_t)pt | 7;
	pt[0] = (uint32_t)page_a | 3;
	pt[1] = (uint32_t)page_a | 1;
	pt[2] = (uint32_t)page_b | 7;
	pt[3] = (uint32_t)page_b | 5;
	set_cr4(0x610); /* PSE */
	set_cr3((uint32_t)pd);
	set_cr0(get_cr0() | 0x80000000u);
	expect("read", outcome(rd, VA), NONE);
	expect("A, not D", pt[0] & 0x60, 0x20);
	expect("A of the directory's entry", pd[VA >> 22] & 0x20, 0x20);
	expect("write", outcome(wr, VA + 8), NONE);
	expect("A and D", pt[0] & 0x60, 0x60);
	expect("write to a read-only page, WP 0", outcome(wr, VA + 0x1008), NONE);
	set_cr0(get_cr0() | 0x10000);
	expect("WP 1", outcome(wr, VA + 0x1008), PF(3));
	expect("CR2", last_cr2, VA + 0x1008);
	expect("not present", outcome(rd, VA + 0x4000), PF(0));
	expect("not present, write", outcome(wr, VA + 0x4000), PF(2));
	expect("fetch, not present", outcome(ex, VA + 0x4000), PF(0));
	user_va = VA + 0x2002;
	expect("ring 3 reads", outcome(user_rd, 0), 0x300000);
	user_va = VA + 0x0002;
	expect("ring 3 reads the kernel's", outcome(user_rd, 0), PF(5));
	expect("ring 3 writes the kernel's", outcome(user_wr, 0), PF(7));
	user_va = VA + 0x3002;
	expect("ring 3 writes a read-only page", outcome(user_wr, 0), PF(7));
	user_va = VA + 0x2002;
	expect("ring 3 writes", outcome(user_wr, 0), 0x300000);
	/* Large pages: D in the directory's entry; bit 21 is reserved. */
	pd[(VA >> 22) + 1] = 0x83;
	set_cr3((uint32_t)pd);
	expect("4 MiB page", outcome(rd, VA + 0x400000 + 0x200000), NONE);
	expect("A", pd[(VA >> 22) + 1] & 0x60, 0x20);
	pd[(VA >> 22) + 1] = 0x200083;
	set_cr3((uint32_t)pd);
	expect("reserved bit", outcome(rd, VA + 0x400000), PF(9));
	/* PSE off: the bit means nothing, and the entry names a table. */
	set_cr0(get_cr0() & ~0x80010000u);

	/* PAE. */
	for (unsigned i = 0; i < 512; i++)
		pd64[i] = (uint64_t)i << 21 | 0x87;
	pdpt[0] = (uint32_t)pd64 | 1;
	pd64[VA >> 21] = (uint32_t)pt64 | 7;
	pt64[0] = (uint32_t)page_a | 3;
	pt64[1] = (uint32_t)page_a | 3 | 1ull << 63;
	pt64[2] = (uint32_t)page_b | 3 | 1ull << 51;
	set_cr4(0x620);
	__asm__ volatile("rdmsr; orl $0x800, %%eax; wrmsr" ::"c"(0xc0000080) : "eax", "edx"); /* NXE */
	set_cr3((uint32_t)pdpt);
	set_cr0(get_cr0() | 0x80010000u);
	expect("PAE: write", outcome(wr, VA + 8), NONE);
	expect("PAE: A and D", (uint32_t)pt64[0] & 0x60, 0x60);
	expect("PAE: fetch", outcome(ex, VA), NONE);
	expect("PAE: fetch, NX", outcome(ex, VA + 0x1000), PF(0x11));
	expect("PAE: read, NX", outcome(rd, VA + 0x1000), NONE);
	expect("PAE: reserved bit", outcome(rd, VA + 0x2000), PF(9));
	expect("PAE: no pointer", outcome(rd, 0x40000000), PF(0));
	/* The pointers are loaded with CR3, not walked. */
	pdpt[1] = (uint32_t)pd64 | 1;
	expect("PAE: a pointer not loaded yet", outcome(rd, 0x40000000 + VA), PF(0));
	set_cr3((uint32_t)pdpt);
	expect("PAE: loaded", outcome(rd, 0x40000000 + VA), NONE);
	pdpt[2] = (uint32_t)pd64 | 3;
	expect("PAE: pointer with a reserved bit", outcome(set_cr3, (uint32_t)pdpt), GP(0));
	pdpt[2] = 0;
	expect("PAE: large page", outcome(rd, VA + 0x200000), NONE);
	pd64[(VA >> 21) + 1] |= 0x2000;
	set_cr3((uint32_t)pdpt);
	expect("PAE: large page, reserved bit", outcome(rd, VA + 0x200000), PF(9));
	set_cr0(get_cr0() & ~0x80010000u);
	set_cr4(0x600);
}

/* Address 0, which the compiler is not to know. */
static const volatile uint32_t *volatile low_memory;

/* What a Multiboot kernel finds, because a BIOS has run on other machines. */
static void bios_state(void)
{
	const volatile uint32_t *vectors = low_memory;
	uint8_t first;

	expect("interrupts that a BIOS allows", inb(0x21) << 8 | inb(0xa1), 0xb88e);
	expect("the timer's vector in real mode", vectors[8], 0xf000fea5);
	expect("not those of other interrupts", vectors[15] != vectors[0x77] && vectors[15] != vectors[0x21],
	       1);
	outb(0x43, 0); /* latch the counter */
	first = inb(0x40);
	first ^= inb(0x40);
	for (unsigned i = 0; i < 100000; i++) {
		outb(0x43, 0);
		if ((inb(0x40) ^ inb(0x40)) != first) {
			expect("the timer runs", 1, 1);
			return;
		}
	}
	expect("the timer runs", 0, 1);
}

void guest_main(void)
{
	bios_state();
	for (unsigned i = 0; i < sizeof tss_main.bits; i++)
		tss_main.bits[i] = 0xff;
	segments();
	inspection();
	rings();
	tasks();
	virtual_8086();
	paging();
}
