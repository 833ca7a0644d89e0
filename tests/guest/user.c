/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What user code sees and what the kernel sees of it, the same whichever tier
 * runs it: registers and flags at every kind of trap, page tables that change
 * under it, answers that must be this machine's and not the host's.  Interrupts
 * are enabled in user code (none comes), as in any program.
 */
#include "lib.h"

#define IF    0x202
#define ID    0x200000
#define NT    0x4000
#define CODE  WINDOW
#define STACK (WINDOW + 0x1ff0)
#define DATA  (WINDOW + 0x2000)
#define OTHER (WINDOW + 0x3000)

static uint8_t user_stack[4096] __attribute__((aligned(4096)));
static uint8_t data_a[4096] __attribute__((aligned(4096)));
static uint8_t data_b[4096] __attribute__((aligned(4096)));

static void user(uint64_t rflags)
{
	enter_user(CODE, STACK, rflags);
}

static void user32(uint64_t rflags)
{
	__asm__ volatile("mov %3, %%ds\n\tmov %3, %%es\n\tpush $0x2b\n\tpush %0\n\tpush %1\n\tpush "
			 "$0x23\n\tpush %2\n\tiretq" ::"r"(STACK),
			 "r"(rflags), "r"(CODE), "r"(0x2b));
}

/* Each program in a page that was not mapped last: as when a system starts one. */
static uint8_t programs[16][4096] __attribute__((aligned(4096)));
static unsigned nr_programs;

static void put(const char *bytes, unsigned n)
{
	uint8_t *p = programs[nr_programs++ % 16];

	for (unsigned i = 0; i < n; i++)
		p[i] = (uint8_t)bytes[i];
	map(0, p, 7);
}

/* Runs the bytes as a user program; the vector of the exception that ends it. */
static uint64_t code(const char *bytes, unsigned n)
{
	put(bytes, n);
	return (uint64_t)try_call(user, IF);
}
#define CODE64(s) code(s, sizeof s - 1)

static uint64_t code32(const char *bytes, unsigned n)
{
	put(bytes, n);
	return (uint64_t)try_call(user32, IF);
}
#define CODE32(s) code32(s, sizeof s - 1)

static void traps(void)
{
	expect("INT3", CODE64("\xb8\x15\x00\x00\x00\xf9\xcc"), 3); /* mov eax, 15h; stc; int3 */
	expect("its RIP", last.rip, CODE + 7);
	expect("RAX", last.rax, 0x15);
	expect("RFLAGS", last.rflags & 0xffd7, 0x203 & 0xffd7);
	expect("CS", last.cs, 0x33);
	expect("SS", last.ss, 0x2b);
	expect("RSP", last.rsp, STACK);
	expect("CD 03", CODE64("\x90\xcd\x03"), 3);
	expect("its RIP", last.rip, CODE + 3);
	expect("INT1", CODE64("\x90\xf1"), 1);
	expect("its RIP", last.rip, CODE + 2);
	expect("HLT", CODE64("\x90\xf4"), 13);
	expect("its RIP", last.rip, CODE + 1);
	expect("its error code", last.error, 0);
	expect("IN", CODE64("\x66\xba\xff\xff\xec"), 13); /* mov dx, ffffh */
	expect("CLI", CODE64("\xfa"), 13);
	expect("RDMSR", CODE64("\x0f\x32"), 13);
	expect("MOV from CR0", CODE64("\x0f\x20\xc0"), 13);
	expect("INT 20h", CODE64("\xcd\x20"), 13);
	expect("its error code", last.error, 0x20 * 8 + 2);
	expect("INT 3Fh", CODE64("\xcd\x3f"), 63);
	expect("its RIP", last.rip, CODE + 2);
	set_gate(4, stubs[4], 0, 3);
	for (unsigned i = 0; i < 2; i++) {
		/* test eax, eax; int 4. And a fault behind what only looks like it: mov ax, 04cdh; hlt. */
		expect("INT 4", CODE64("\x85\xc0\xcd\x04\xcc"), 4);
		expect("its RIP", last.rip, CODE + 4);
		expect("HLT behind CD 04", CODE64("\x31\xc0\x66\xb8\xcd\x04\xf4"), 13);
		expect("its RIP", last.rip, CODE + 6);
	}
	expect("UD2", CODE64("\x90\x90\x0f\x0b"), 6);
	expect("its RIP", last.rip, CODE + 2);
	expect("DIV by 0", CODE64("\x31\xc9\xf7\xf1"), 0);
	expect("its RIP", last.rip, CODE + 2);
	expect("a non-canonical load", CODE64("\x48\xb8\x00\x00\x00\x00\x00\x00\x00\x80\x8a\x00"), 13);
	expect("its RIP", last.rip, CODE + 10);
	/* pushf; or dword [rsp], 100h; popf; nop; nop: one instruction, then the trap */
	expect("TF", CODE64("\x9c\x81\x0c\x24\x00\x01\x00\x00\x9d\x90\x90\xcc"), 1);
	expect("its RIP", last.rip, CODE + 10);
	/* The flags that POPF may change: all but IF and IOPL. */
	expect("POPF", CODE64("\x68\xd5\x3e\x04\x00\x9d\x9c\x58\xcc"), 3);
	expect("what it changed", last.rax & 0x43fd5, 0x40ed5);
	/* ID and NT stay set, and another program has its own. pushf; or dword [rsp], 204000h; popf; pushf;
	 * pop rax; int3 */
	expect("ID and NT", CODE64("\x9c\x81\x0c\x24\x00\x40\x20\x00\x9d\x9c\x58\xcc"), 3);
	expect("set", last.rax & last.rflags & (ID | NT), ID | NT);
	expect("without", CODE64("\x9c\x58\xcc"), 3);
	expect("clear", (last.rax | last.rflags) & (ID | NT), 0);
	expect("with ID", try_call(user, IF | ID), 3);
	expect("set again", last.rax & last.rflags & (ID | NT), ID);
}

static void faults(void)
{
	/* mov al, [DATA], mov [DATA], al, call DATA */
	static const char load[] = "\xa0\x00\x20\x00\x40\x00\x00\x00\x00\xcc";
	static const char store[] = "\xa2\x00\x20\x00\x40\x00\x00\x00\x00\xcc";
	static const char run[] = "\xb8\x00\x20\x00\x40\xff\xd0\xcc";

	map(2, data_a, 0);
	expect("a load of nothing", code(load, 10), 14);
	expect("its error code", last.error, 4);
	expect("CR2", last_cr2, DATA);
	expect("RIP", last.rip, CODE);
	expect("a store to nothing", code(store, 10), 14);
	expect("its error code", last.error, 6);
	map(2, data_a, 5);
	expect("a load from what is read-only", code(load, 10), 3);
	expect("sets the accessed bit", window_pt[2] >> 5 & 3, 1);
	expect("a store to it", code(store, 10), 14);
	expect("its error code", last.error, 7);
	map(2, data_a, 3);
	expect("a load from the kernel's", code(load, 10), 14);
	expect("its error code", last.error, 5);
	map(2, data_a, 7);
	expect("a load", code(load, 10), 3);
	expect("leaves the dirty bit", window_pt[2] >> 5 & 3, 1);
	expect("a store", code(store, 10), 3);
	expect("sets it", window_pt[2] >> 5 & 3, 3);
	data_a[0] = 0xc3;
	map(2, data_a, 7);
	expect("a call", code(run, 8), 3);
	map(2, data_a, 1ull << 63 | 7);
	expect("a call of what is not executable", code(run, 8), 14);
	expect("its error code", last.error, 0x15);
	expect("CR2", last_cr2, DATA);
	expect("RIP", last.rip, DATA);
	/* A load from the kernel's half. */
	expect("the kernel's half", CODE64("\x48\xb8\x00\x00\x00\x00\x00\x80\xff\xff\x8a\x00"), 14);
	expect("its error code", last.error, 4);
	expect("CR2", last_cr2, 0xffff800000000000);
}

static void tables_change(void)
{
	/* mov eax, [DATA]; int3 */
	static const char load[] = "\xa1\x00\x20\x00\x40\x00\x00\x00\x00\xcc";
	/* mov eax, 5; mov [DATA], eax; int3 */
	static const char store[] = "\xb8\x05\x00\x00\x00\xa3\x00\x20\x00\x40\x00\x00\x00\x00\xcc";
	unsigned wrong = 0;

	*(uint32_t *)data_a = 1;
	*(uint32_t *)data_b = 2;
	for (unsigned i = 0; i < 50; i++) {
		map(2, i & 1 ? data_b : data_a, 7);
		code(load, 10);
		wrong += last.rax != 1 + (i & 1);
	}
	expect("INVLPG", wrong, 0);
	for (unsigned i = 0; i < 50; i++) {
		window_pt[2] = (uint64_t)(i & 1 ? data_b : data_a) | 7;
		WRITE_CR(3, READ_CR(3));
		code(load, 10);
		wrong += last.rax != 1 + (i & 1);
	}
	expect("CR3", wrong, 0);
	map(2, data_a, 7);
	code(store, 15);
	map(2, data_a, 5);
	expect("made read-only", code(store, 15), 14);
	expect("its error code", last.error, 7);
	/* More may be allowed without telling anyone. */
	window_pt[2] |= 2;
	expect("made writable", code(store, 15), 3);
	window_pt[2] &= ~0x60ull;
	invlpg(DATA);
	code(load, 10);
	expect("accessed anew", window_pt[2] >> 5 & 3, 1);
	code(store, 15);
	expect("dirty anew", window_pt[2] >> 5 & 3, 3);
	/* The whole table is replaced. */
	static uint64_t other[512] __attribute__((aligned(4096)));
	code(load, 10);
	for (unsigned i = 0; i < 512; i++)
		other[i] = window_pt[i];
	other[2] = (uint64_t)data_b | 7;
	window_pd[0] = (uint64_t)other | 7;
	WRITE_CR(3, READ_CR(3));
	*(uint32_t *)data_b = 77;
	try_call(user, IF);
	expect("another table", last.rax, 77);
	window_pd[0] = (uint64_t)window_pt | 7;
	WRITE_CR(3, READ_CR(3));
	code(load, 10);
	expect("the old one again", last.rax, 5);
}

static void code_changes(void)
{
	/* lea rcx, [rip+2]; jmp over; inner: mov eax, imm; ret; over: mov [rcx+1], imm; call inner; int3 */
	static const char self[] =
	    "\x48\x8d\x0d\x02\x00\x00\x00\xeb\x06\xb8\x01\x00\x00\x00\xc3\xe8\xf5\xff\xff\xff"
	    "\x89\xc3\xc7\x41\x01\x02\x00\x00\x00\xe8\xe7\xff\xff\xff\xcc";
	unsigned wrong = 0;

	expect("a program that changes itself", code(self, sizeof self - 1), 3);
	expect("ran as it was before", last.rbx, 1);
	expect("and as it is after", last.rax, 2);
	map(0, page_a, 7);
	for (unsigned i = 0; i < 100; i++) {
		char text[] = "\xb8\x00\x00\x00\x00\xcc";

		text[1] = (char)i;
		for (unsigned k = 0; k < 6; k++)
			page_a[k] = (uint8_t)text[k];
		try_call(user, IF);
		wrong += last.rax != i;
	}
	expect("a program that the kernel changes", wrong, 0);
}

static void identity(void)
{
	uint32_t a = 0, b, c = 0, d;
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) r;

	__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
	expect("CPUID", CODE64("\x31\xc0\x31\xc9\x0f\xa2\xcc"), 3);
	expect("its EAX", last.rax, a);
	expect("its EBX", last.rbx, b);
	a = 1;
	c = 0;
	__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
	CODE64("\xb8\x01\x00\x00\x00\x31\xc9\x0f\xa2\xcc");
	expect("leaf 1, EBX", last.rbx, b);
	expect("leaf 1, ECX", last.rcx, c);
	a = 0x40000000;
	__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
	CODE64("\xb8\x00\x00\x00\x40\x0f\xa2\xcc");
	expect("the hypervisor's leaf", last.rbx, b);
	__asm__ volatile("sgdt %0" : "=m"(r));
	expect("SGDT", CODE64("\x0f\x01\x44\x24\xc0\x48\x8b\x44\x24\xc2\x0f\xb7\x5c\x24\xc0\xcc"), 3);
	expect("base", last.rax, r.base);
	expect("limit", last.rbx, r.limit);
	__asm__ volatile("sidt %0" : "=m"(r));
	CODE64("\x0f\x01\x4c\x24\xc0\x48\x8b\x44\x24\xc2\xcc");
	expect("SIDT's base", last.rax, r.base);
	CODE64("\x31\xc0\x0f\x00\xc8\xcc");
	expect("STR", last.rax, 0x40);
	CODE64("\x31\xc0\x0f\x01\xe0\xcc");
	expect("SMSW", last.rax & 0xffff, READ_CR(0) & 0xffff);
	/* LSL of the TSS's neighbour and of what does not exist: mov ecx, sel; lsl eax, ecx; setz bl */
	CODE64("\xb9\x2b\x00\x00\x00\x31\xdb\x0f\x03\xc1\x0f\x94\xc3\xcc");
	expect("LSL", last.rax & 0xffffffff, 0xffffffff);
	expect("its ZF", last.rbx, 1);
	CODE64("\xb9\x7b\x00\x00\x00\x31\xdb\x0f\x03\xc1\x0f\x94\xc3\xcc");
	expect("LSL beyond the table", last.rbx, 0);
	wrmsr(0xc0000103, 4711);
	expect("RDTSCP", CODE64("\x0f\x01\xf9\xcc"), 3);
	expect("the processor's number", last.rcx, 4711);
}

/* A page with more CPUIDs than there are breakpoints, and beside them a function that is called all the time.
 */
static void busy_identity(void)
{
	static uint8_t page[4096] __attribute__((aligned(4096)));
	uint32_t a = 0, b, c = 0, d;

	for (unsigned i = 0; i < sizeof page; i++)
		page[i] = 0x90; /* nop */
	for (unsigned i = 0x200; i < 0x290; i += 16) {
		page[i] = 0x0f; /* cpuid; ret */
		page[i + 1] = 0xa2;
		page[i + 2] = 0xc3;
	}
	page[0x100] = 0xff; /* inc edi; ret */
	page[0x101] = 0xc7;
	page[0x102] = 0xc3;
	/* mov ecx, 100000; xor eax, eax; again: inc eax; dec ecx; jnz again; int3 */
	static const char loop[] = "\xb9\xa0\x86\x01\x00\x31\xc0\xff\xc0\xff\xc9\x75\xfa\xcc";
	for (unsigned i = 0; i < sizeof loop - 1; i++)
		page[0x300 + i] = (uint8_t)loop[i];
	map(3, page, 5);
	expect("a loop beside CPUIDs", CODE64("\xb8\x00\x33\x00\x40\xff\xe0"), 3); /* jmp to it */
	expect("its rounds", last.rax, 100000);
	/* mov ebx, 20000; xor edi, edi; again: mov eax, OTHER + 100h; call rax; dec ebx; jnz again;
	 * xor eax, eax; xor ecx, ecx; mov edx, OTHER + 200h; call rdx; mov ecx, edi; int3 */
	expect("a page with CPUID and more",
	       CODE64("\xbb\x20\x4e\x00\x00\x31\xff\xb8\x00\x31\x00\x40\xff\xd0\xff\xcb\x75\xf5"
		      "\x31\xc0\x31\xc9\xba\x00\x32\x00\x40\xff\xd2\x89\xf9\xcc"),
	       3);
	__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
	expect("its EAX", last.rax, a);
	expect("EBX", last.rbx, b);
	expect("EDX", last.rdx, d);
	expect("and what was called", last.rcx, 20000);
	map(3, data_b, 7);
}

static void state_stays(void)
{
	/* movd xmm7, eax (0x1234), int3; then movd ebx, xmm7, int3 */
	CODE64("\xb8\x34\x12\x00\x00\x66\x0f\x6e\xf8\xdb\xe3\xd9\xe8\xcc");
	expect("vector state", CODE64("\x31\xdb\x66\x0f\x7e\xfb\xd9\x1c\x24\x8b\x04\x24\xcc"), 3);
	expect("XMM7 from one program to the next", last.rbx, 0x1234);
	expect("and the top of the x87 stack", last.rax, 0x3f800000);
	/* ldmxcsr with all exceptions unmasked, then 1/0: #XM; the kernel puts it back. */
	WRITE_CR(4, READ_CR(4) | 1 << 10);
	expect(
	    "#XM",
	    CODE64("\xc7\x04\x24\x00\x00\x00\x00\x0f\xae\x14\x24\xb8\x01\x00\x00\x00\xf3\x0f\x2a\xc0\x0f\x57"
		   "\xc9\xf3\x0f\x5e\xc1\xcc"),
	    19);
	expect("RIP", last.rip, CODE + 23);
	CODE64("\xc7\x04\x24\x80\x1f\x00\x00\x0f\xae\x14\x24\xcc");
	/* FS and GS bases, by MSR and by instruction. */
	wrmsr(0xc0000100, (uint64_t)DATA);
	map(2, data_a, 7);
	*(uint32_t *)(data_a + 16) = 0xfeed;
	expect("FS", CODE64("\x64\x8b\x04\x25\x10\x00\x00\x00\xcc"), 3);
	expect("what lies there", last.rax, 0xfeed);
	WRITE_CR(4, READ_CR(4) | 1 << 16);
	CODE64("\xb8\x00\x30\x00\x40\xf3\x48\x0f\xae\xd8\xcc"); /* wrgsbase rax */
	expect("WRGSBASE", rdmsr(0xc0000101), OTHER);
	CODE64("\xf3\x48\x0f\xae\xc8\xcc"); /* rdgsbase rax */
	expect("RDGSBASE", last.rax, OTHER);
	/* Any canonical address will do: mov rax, ffffffff80000000h; wrgsbase rax; then to read it */
	CODE64("\x48\xb8\x00\x00\x00\x80\xff\xff\xff\xff\xf3\x48\x0f\xae\xd8\xcc");
	expect("WRGSBASE of the upper half", rdmsr(0xc0000101), 0xffffffff80000000);
	expect("and a program with it", CODE64("\xf3\x48\x0f\xae\xc8\xcc"), 3);
	expect("RDGSBASE", last.rax, 0xffffffff80000000);
	wrmsr(0xc0000101, 0);
}

static void syscalls(void)
{
	static const char enter[] = "\xb8\x2a\x00\x00\x00\xf9\x0f\x05";
	extern char syscall_entry[];

	wrmsr(0xc0000081, 0x10ull << 32 | 0x20ull << 48);
	wrmsr(0xc0000082, (uint64_t)syscall_entry);
	wrmsr(0xc0000084, 0x40700);
	__asm__ goto("jmp %l[over]\n\tsyscall_entry: ud2" : : : : over);
over:
	put(enter, 8);
	/* The entry is #UD at CPL 0 on the user's stack, which the kernel may write. */
	expect("SYSCALL", (uint64_t)try_call(user, IF), 6);
	expect("RIP", last.rip, (uint64_t)syscall_entry);
	expect("RAX", last.rax, 0x2a);
	expect("RCX", last.rcx, CODE + 8);
	expect("R11", last.r11 & 0xfff, 0x203);
	expect("CS", last.cs, 0x10);
	expect("RFLAGS", last.rflags & 0x203, 3);
}

static void compat(void)
{
	expect("32-bit code", CODE32("\xb8\x78\x56\x34\x12\x40\xcc"), 3); /* inc eax */
	expect("EAX", last.rax, 0x12345679);
	expect("CS", last.cs, 0x23);
	expect("its HLT", CODE32("\xf4"), 13);
	expect("its INT 3Fh", CODE32("\xb8\x01\x00\x00\x00\xcd\x3f"), 63);
	expect("RIP", last.rip, CODE + 7);
	/* mov ecx, 5; again: dec ecx; jnz again; mov eax, [DATA+16]; int3 */
	expect("a loop and a load", CODE32("\xb9\x05\x00\x00\x00\x49\x75\xfd\xa1\x10\x20\x00\x40\xcc"), 3);
	expect("what it loaded", last.rax, 0xfeed);
	/* A far jump to 64-bit code and back is nobody's, but legal: jmp 33h:next; next: mov rax, imm64 */
	expect("a far jump to 64-bit code",
	       CODE32("\xea\x07\x00\x00\x40\x33\x00\x48\xb8\xef\xcd\xab\x89\x67\x45\x23\x01\xcc"), 3);
	expect("RAX", last.rax, 0x0123456789abcdef);
	expect("CS", last.cs, 0x33);
	set_gate(4, stubs[4], 0, 3);
	/* CF and OF clear: INTO does nothing; then 7fffffff + 1. */
	expect("INTO", CODE32("\x31\xc0\xce\xb8\xff\xff\xff\x7f\x40\xce\xcc"), 4);
	expect("RIP", last.rip, CODE + 10);
	expect("BOUND", CODE32("\xb8\x09\x00\x00\x00\x62\x05\x20\x20\x00\x40\xcc"), 5);
	expect("RIP", last.rip, CODE + 5);
}

/*
 * Segments of a thread's own, which a system puts where Linux has them.  The program loads them itself; what
 * it gets is what the table says at that time, whatever it said before.
 */
static uint64_t table[15];

static uint64_t data_segment(uint32_t base, uint64_t attr, uint64_t limit)
{
	return limit | (base & 0xffffffull) << 16 | attr << 40 | (uint64_t)(base >> 24) << 56;
}

static void thread_segments(void)
{
	static const char load_gs[] = "\xb8\x63\x00\x00\x00\x8e\xe8\x65\xa1\x10\x00\x00\x00\xcc";
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) old, r = { sizeof table - 1, (uint64_t)table };

	__asm__ volatile("sgdt %0" : "=m"(old));
	for (unsigned i = 0; i < 10; i++)
		table[i] = gdt[i];
	__asm__ volatile("lgdt %0\n\tmov %1, %%gs\n\tmov %1, %%fs" ::"m"(r), "r"(0));
	*(uint32_t *)(data_a + 16) = 0xfeed;
	*(uint32_t *)(data_b + 16) = 0xbeef;
	expect("GS of an entry that is empty", CODE32(load_gs), 13);
	expect("its error code", last.error, 0x60);
	table[12] = data_segment(DATA, 0xc0f2, 0xffff);
	expect("GS of one that is not", CODE32(load_gs), 3);
	expect("what lies there", last.rax, 0xfeed);
	/* As when a system starts another program. */
	table[12] = data_segment(OTHER, 0xc0f2, 0xffff);
	__asm__ volatile("mov %0, %%gs" ::"r"(0));
	expect("GS of the entry, which is another", CODE32(load_gs), 3);
	expect("what lies there", last.rax, 0xbeef);
	/* mov ecx, gs:[16], before the same */
	table[12] = data_segment(DATA, 0xc0f2, 0xffff);
	expect("GS as it was and as it is",
	       CODE32("\x65\x8b\x0d\x10\x00\x00\x00\xb8\x63\x00\x00\x00\x8e\xe8\x65\xa1\x10\x00\x00\x00\xcc"),
	       3);
	expect("what lay there", last.rcx, 0xbeef);
	expect("what lies there", last.rax, 0xfeed);
	/* The last byte within it, and the first beyond: mov al, gs:[1005h]; mov al, gs:[1006h] */
	table[12] = data_segment(DATA, 0x40f2, 0x1005);
	expect("GS with a limit", CODE32(load_gs), 3);
	expect("a load beyond it", CODE32("\x65\xa0\x05\x10\x00\x00\x65\xa0\x06\x10\x00\x00\xcc"), 13);
	expect("RIP", last.rip, CODE + 6);
	/* mov word gs:[0], ax where it may only be read */
	table[12] = data_segment(DATA, 0xc0f0, 0xffff);
	expect("GS to read", CODE32(load_gs), 3);
	expect("a store to it", CODE32("\x66\x65\xa3\x00\x00\x00\x00\xcc"), 13);
	/* mov eax, 6bh; mov fs, eax; mov ecx, fs:[16]; mov eax, gs:[16] */
	table[12] = data_segment(DATA, 0xc0f2, 0xffff);
	table[13] = data_segment(OTHER, 0xc0f2, 0xffff);
	expect("GS", CODE32(load_gs), 3);
	expect("FS of the next entry",
	       CODE32("\xb8\x6b\x00\x00\x00\x8e\xe0\x64\x8b\x0d\x10\x00\x00\x00\x65\xa1\x10\x00\x00\x00\xcc"),
	       3);
	expect("what lies there", last.rcx, 0xbeef);
	expect("and in GS", last.rax, 0xfeed);
	/* mov eax, 63h; mov ss, eax; mov esp, 16; mov eax, [esp] */
	expect("SS of an entry", CODE32("\xb8\x63\x00\x00\x00\x8e\xd0\xbc\x10\x00\x00\x00\x8b\x04\x24\xcc"),
	       3);
	expect("what lies there", last.rax, 0xfeed);
	expect("SS", last.ss, 0x63);
	expect("RSP", last.rsp, 16);
	table[12] = 0;
	__asm__ volatile("mov %0, %%gs\n\tmov %0, %%fs" ::"r"(0));
	expect("GS of the entry, emptied", CODE32(load_gs), 13);
	expect("its error code", last.error, 0x60);
	__asm__ volatile("lgdt %0" ::"m"(old));
}

/* The last page below the addresses that are not canonical, and AH with memory where registers are short. */
static void edges(void)
{
	static uint64_t pdpt[512] __attribute__((aligned(4096))), pd[512] __attribute__((aligned(4096))),
	    pt[512] __attribute__((aligned(4096)));
	static uint8_t high[4096] __attribute__((aligned(4096)));

	pml4[255] = (uint64_t)pdpt | 7;
	pdpt[511] = (uint64_t)pd | 7;
	pd[511] = (uint64_t)pt | 7;
	pt[511] = (uint64_t)high | 7;
	/* nop; jmp +0x2000 */
	high[0] = 0x90;
	high[1] = 0xe9;
	high[3] = 0x20;
	high[4095] = 0x90;
	/* mov rax, 0x7ffffffff000; jmp rax */
	expect("a jump out of the lower half", CODE64("\x48\xb8\x00\xf0\xff\xff\xff\x7f\x00\x00\xff\xe0"),
	       13);
	expect("RSP", last.rsp, STACK);
	/* The same by push and ret */
	expect("again", CODE64("\x48\xb8\x00\xf0\xff\xff\xff\x7f\x00\x00\x50\xc3"), 13);
	expect("RSP", last.rsp, STACK);
	/* To its last byte */
	expect("falling out of it", CODE64("\x48\xb8\xff\xff\xff\xff\xff\x7f\x00\x00\x50\xc3"), 13);
	expect("RSP", last.rsp, STACK);
	pml4[255] = 0;
	WRITE_CR(3, READ_CR(3));
	data_a[0] = 0x5a;
	/* mov eax, 1122h; mov ebx, DATA; xor ebp, ebp; mov esi, 1; mov edi, 2; cmp rsi, rdi; mov ah,
	 * [rbx+rbp]; jb next; next: int3 */
	expect("AH from memory",
	       CODE64("\xb8\x22\x11\x00\x00\xbb\x00\x20\x00\x40\x31\xed\xbe\x01\x00\x00\x00\xbf\x02\x00\x00"
		      "\x00\x48\x39\xfe\x8a\x24\x2b\x72\x00\xcc"),
	       3);
	expect("what it is", last.rax, 0x5a22);
	/* Likewise mov [rbx+rbp+1], ah */
	expect("AH to memory",
	       CODE64("\xb8\x22\x11\x00\x00\xbb\x00\x20\x00\x40\x31\xed\xbe\x01\x00\x00\x00\xbf\x02\x00\x00"
		      "\x00\x48\x39\xfe\x88\x64\x2b\x01\x72\x00\xcc"),
	       3);
	expect("what is there", data_a[1], 0x11);
	/* stc; mov ecx, 5; mov ebx, DATA; again: dec ecx; mov al, [rbx]; lea ebx, [rbx+N]; jnz again: CF is
	 * as before, where the loop ends and where the third read faults. */
	expect("a loop by DEC",
	       CODE64("\xf9\xb9\x05\x00\x00\x00\xbb\x00\x20\x00\x40\xff\xc9\x8a\x03\x8d\x9b\x00\x00\x00\x00"
		      "\x75\xf4\xcc"),
	       3);
	expect("its flags", last.rflags & 0x8d5, 0x45);
	expect("a loop by DEC that faults",
	       CODE64("\xf9\xb9\x05\x00\x00\x00\xbb\x00\x20\x00\x40\xff\xc9\x8a\x03\x8d\x9b\x00\x10\x00\x00"
		      "\x75\xf4\xcc"),
	       14);
	expect("its flags", last.rflags & 0x8d5, 1);
	expect("RCX", last.rcx, 2);
	/* mov rsp, 8000000000000000h; mov ebx, 1234h; mov ah, [rsp]: no register may be on loan when it
	 * faults */
	WRITE_CR(3, READ_CR(3));
	expect("AH from nowhere",
	       CODE64("\x48\xbc\x00\x00\x00\x00\x00\x00\x00\x80\xbb\x34\x12\x00\x00\x8a\x24\x24\xcc"), 12);
	expect("RBX", last.rbx, 0x1234);
}

void guest_main(void)
{
	uint32_t a = 0xd, b, c = 0, d;

	make_window();
	map(0, page_a, 7);
	map(1, user_stack, 7);
	map(2, data_a, 7);
	map(3, data_b, 7);
	/* All of XCR0 that there is, as a system does that uses it. */
	WRITE_CR(4, READ_CR(4) | 1 << 18);
	__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
	__asm__ volatile("xsetbv" ::"a"(a), "d"(d), "c"(0));
	traps();
	faults();
	tables_change();
	code_changes();
	identity();
	busy_identity();
	state_stays();
	compat();
	thread_segments();
	syscalls();
	edges();
}
