/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native oracle: random user-mode instruction sequences, executed by the
 * processor, by the interpreter and by translated code (twice: the second time
 * its blocks are linked), must leave the same registers, flags, vector state
 * and memory, and raise the same exceptions.
 *
 * The first difference is printed with the sequence cut down to what still
 * shows it.  SILL_SEED=N starts with (and, without SILL_ORACLE_SECONDS, runs
 * only) that sequence; SILL_ORACLE_SECONDS=N says how long to go on, for hours
 * if wanted (tools/oracle); SILL_ORACLE_KEEP=1 goes on after differences and
 * prints each mnemonic's first.
 */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/util.h"
#include "engine/bt/mmu.h"
#include "engine/bt/oracle.h"

#define BATCH 64
#define RAM   MIB(16)
/* Guest-physical places. */
#define PA_PML4   0x1000u
#define PA_KERNEL 0x10000u
#define PA_DATA   0x100000u
#define PA_CODE   0x200000u
/* Supervisor pages: a HLT for each vector, IDT, GDT, TSS, stack. */
#define KERNEL_VA 0xffff800000000000ull
#define K_HLT     0x0000u
#define K_IDT     0x1000u
#define K_GDT     0x2000u
#define K_TSS     0x2800u
#define K_STACK   0x5000u
#define K_SIZE    0x5000u

#define FLAGS_SEEN (FLAGS_ARITH | FLAG_DF | FLAG_AC | FLAG_TF | FLAG_NT | FLAG_ID)

struct guest {
	const char *name;
	struct mutex lock;
	struct mem *m;
	struct engine_vm *vm;
	struct vcpu *v;
	uint8_t *data, *code, *kernel;
	unsigned runs; /* of each job */
	unsigned last_mode;
	uint64_t count;
	pthread_t thread;
	struct outcome *out; /* [BATCH * runs] */
};

static struct cpu_model model;
static uint32_t cpu_limit;
static cpu_set_t all_cpus;

/* ---- the guests ---- */

static void put64(uint8_t *p, uint64_t val)
{
	memcpy(p, &val, 8);
}

static void make_tables(struct guest *g)
{
	uint8_t *ram = mem_ram_ptr(g->m, GPA(0), RAM), *pd = ram + 0x3000;

	put64(ram + PA_PML4, 0x2000 | 7);
	put64(ram + 0x2000, 0x3000 | 7);
	put64(pd + 8 * (DATA_VA >> 21), 0x4000 | 7);
	put64(ram + PA_PML4 + 8 * 256, 0x6000 | 3);
	put64(ram + 0x6000, 0x7000 | 3);
	put64(ram + 0x7000, 0x5000 | 3);
	for (unsigned i = 0; i < CODE_SIZE >> 21; i++) /* read-only: nothing overwrites code */
		put64(pd + 8 * ((CODE_VA >> 21) + i), (PA_CODE + (i << 21)) | 0x80 | 5);
	for (unsigned i = 0; i < DATA_SIZE >> 12; i++)
		put64(ram + 0x4000 + 8 * i,
		      (PA_DATA + (i << 12)) | 1ull << 63 | (i == (DATA_SIZE >> 12) - 1 ? 5 : 7));
	for (unsigned i = 0; i < K_SIZE >> 12; i++)
		put64(ram + 0x5000 + 8 * i, (PA_KERNEL + (i << 12)) | 3);
	g->data = ram + PA_DATA;
	g->code = ram + PA_CODE;
	g->kernel = ram + PA_KERNEL;
	memset(g->kernel + K_HLT, 0xf4, 512);
	for (unsigned i = 0; i < 256; i++) {
		uint64_t to = KERNEL_VA + K_HLT + 2 * i;
		unsigned dpl = i == EXC_BP || i == EXC_OF ? 3 : 0;

		put64(g->kernel + K_IDT + 16 * i,
		      (to & 0xffff) | 0x10ull << 16 | (0x8eull | dpl << 5) << 40 | (to >> 16 & 0xffff) << 48);
		put64(g->kernel + K_IDT + 16 * i + 8, to >> 32);
	}
	/* As Linux has it. */
	put64(g->kernel + K_GDT + 0x08, 0x00cf9b000000ffff);
	put64(g->kernel + K_GDT + 0x78,
	      0x0040f50000000000 | (cpu_limit & 0xffff) | (uint64_t)(cpu_limit >> 16 & 15) << 48);
	put64(g->kernel + K_GDT + 0x10, 0x00af9b000000ffff);
	put64(g->kernel + K_GDT + 0x18, 0x00cf93000000ffff);
	put64(g->kernel + K_GDT + 0x20, 0x00cffb000000ffff);
	put64(g->kernel + K_GDT + 0x28, 0x00cff3000000ffff);
	put64(g->kernel + K_GDT + 0x30, 0x00affb000000ffff);
	put64(g->kernel + K_TSS + 4, KERNEL_VA + K_STACK);
	g->kernel[K_TSS + 0x66] = g->kernel[K_TSS + 0x67] = 0xff; /* no I/O permission bitmap */
}

static bool guest_new(struct guest *g, const char *tier)
{
	struct engine_option o = { .tier = tier, .code_cache_size = MIB(8) };
	struct vcpu_config c = { .model = &model };
	struct error err;

	g->name = tier;
	g->runs = strcmp(tier, "interp") ? 2 : 1;
	g->out = aligned_alloc(64, align_up(sizeof(struct outcome) * BATCH * g->runs, 64));
	mutex_init(&g->lock, LOCK_RANK_IO, "io");
	if (!g->out || mem_new(RAM, &g->lock, &g->m, &err))
		return false;
	make_tables(g);
	if (engine_bt.vm_new(g->m, 1, &o, &g->vm, &err))
		return false;
	c.mem = g->m;
	return !engine_bt.vcpu_new(g->vm, &c, &g->v, &err);
}

static void guest_free(struct guest *g)
{
	engine_bt.vcpu_free(g->v);
	engine_bt.vm_free(g->vm);
	mem_free(g->m);
	mutex_destroy(&g->lock);
	free(g->out);
}

static void set_seg(struct x86_seg *s, uint16_t sel, uint16_t attr, uint64_t base)
{
	*s = (struct x86_seg){ .sel = sel, .attr = attr, .limit = 0xffffffff, .base = base };
}

static void set_state(struct guest *g, const struct job *j)
{
	struct x86_state *s = engine_bt.vcpu_state(g->v);
	uint16_t code = SEG_S | SEG_P | 3 << 5 | 0xb | SEG_G;

	memcpy(s->gpr, j->gpr, sizeof s->gpr);
	s->rip = j->at;
	s->rflags = j->rflags;
	for (int i = 0; i < SEG_COUNT; i++)
		set_seg(&s->seg[i], SEL_DATA, SEG_S | SEG_P | 3 << 5 | 3 | SEG_G | SEG_DB, 0);
	if (j->mode == 8)
		set_seg(&s->seg[SEG_CS], SEL_CS64, code | SEG_L, 0);
	else
		set_seg(&s->seg[SEG_CS], SEL_CS32, code | SEG_DB, 0);
	s->seg[SEG_FS] = (struct x86_seg){ .base = j->fs };
	s->seg[SEG_GS] = (struct x86_seg){ .base = j->gs };
	s->ldtr = (struct x86_seg){ 0 };
	s->tr =
	    (struct x86_seg){ .sel = 0x40, .attr = SEG_P | 0xb, .limit = 0x67, .base = KERNEL_VA + K_TSS };
	s->gdtr = (struct x86_dtable){ KERNEL_VA + K_GDT, 0x7f };
	s->idtr = (struct x86_dtable){ KERNEL_VA + K_IDT, 0xfff };
	s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
	s->cr2 = 0;
	s->cr3 = PA_PML4;
	s->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_FSGSBASE;
	s->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
	s->xcr0 = model.xcr0_mask;
	s->dr6 = 0xffff0ff0;
	s->dr7 = 0x400;
	s->halted = s->shutdown = false;
	s->shadow = 0;
	memcpy(s->xsave, j->xsave, sizeof s->xsave);
	/* The expensive way only now and then; else only what depends on CPL and code size. */
	if (g->count++ % 64 == 0)
		engine_bt.vcpu_state_changed(g->v);
	else
		mmu_set_mode(g->v);
}

static void guest_run(struct guest *g, const struct job *j, struct outcome *o)
{
	struct x86_state *s = engine_bt.vcpu_state(g->v);
	enum vcpu_exit e;
	uint64_t frame[6], sp;
	bool has_error;

	memcpy(g->data, j->data, DATA_SIZE);
	set_state(g, j);
	do
		e = engine_bt.vcpu_run(g->v);
	while (e == VCPU_EXIT_KICKED);
	memcpy(o->data, g->data, DATA_SIZE);
	memcpy(o->xsave, s->xsave, sizeof o->xsave);
	memcpy(o->gpr, s->gpr, sizeof o->gpr);
	o->fs = s->seg[SEG_FS].base;
	o->gs = s->seg[SEG_GS].base;
	o->cr2 = s->cr2;
	o->ds = s->seg[SEG_DS].sel;
	o->es = s->seg[SEG_ES].sel;
	o->failed = true;
	if (e != VCPU_EXIT_HALTED) {
		snprintf(o->why, sizeof o->why, "exit %d at %#llx: %s", e, (unsigned long long)s->rip,
			 engine_bt.vcpu_error(g->v));
		g->v->error[0] = 0; /* so that the next job can run */
		return;
	}
	sp = s->gpr[RSP] - KERNEL_VA;
	o->vector = (uint32_t)(s->rip - KERNEL_VA - K_HLT - 1) / 2;
	has_error =
	    o->vector == EXC_DF || (o->vector >= EXC_TS && o->vector <= EXC_PF) || o->vector == EXC_AC;
	if (o->vector > 31 || sp != K_STACK - (has_error ? 48u : 40u)) {
		snprintf(o->why, sizeof o->why, "halted at %#llx with RSP %#llx", (unsigned long long)s->rip,
			 (unsigned long long)s->gpr[RSP]);
		return;
	}
	memcpy(frame, g->kernel + sp, 48);
	memmove(frame + !has_error, frame, has_error ? 48 : 40);
	o->error = has_error ? (uint32_t)frame[0] : 0;
	o->rip = frame[1];
	o->rflags = frame[3];
	o->gpr[RSP] = frame[4];
	o->failed = false;
	o->cs = (uint16_t)frame[2];
	if (frame[5] != SEL_DATA) {
		o->failed = true;
		snprintf(o->why, sizeof o->why, "pushed SS %#llx", (unsigned long long)frame[5]);
	}
}

/* ---- comparison ---- */

static void normalise(uint8_t *x, unsigned mode)
{
	uint64_t bv;

	memcpy(&bv, x + 512, 8);
	memset(x + 6, 0, 18); /* FOP, FIP, FDP */
	memset(x + 28, 0, 4); /* MXCSR_MASK */
	memset(x + 416, 0, 96);
	for (unsigned k = 0; k < 8; k++)
		memset(x + 42 + 16 * k, 0, 6);
	if (!(bv & 1)) {
		memset(x, 0, 24);
		x[0] = 0x7f;
		x[1] = 3;
		memset(x + 32, 0, 128);
	}
	if (!(bv & 2))
		memset(x + 160, 0, 256);
	for (unsigned i = 2; i < 63; i++) {
		const struct cpuid_regs *d = &model.host_d[i];

		if (d->eax && d->ebx + d->eax <= X86_XSAVE_MAX &&
		    (!(bv >> i & 1) || !(model.xcr0_mask >> i & 1)))
			memset(x + d->ebx, 0, d->eax);
	}
	if (mode == 4) { /* the registers that 32-bit code does not see may become what they like */
		memset(x + 160 + 128, 0, 128);
		memset(x + model.host_d[2].ebx + 128, 0, 128);
		memset(x + model.host_d[6].ebx + 256, 0, 256);
		memset(x + model.host_d[7].ebx, 0, 1024);
	}
	memset(x + 512, 0, 64);
	memset(x + 2696, 0, X86_XSAVE_MAX - 2696);
}

static const char *const reg_names[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					   "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15" };

/* The item at which execution stopped; n for the final INT3. */
static unsigned stop_item(const struct job *j, const struct outcome *o)
{
	uint64_t off = o->rip - j->at;

	if (o->vector == EXC_BP)
		return j->n;
	for (unsigned i = 0; i < j->n; i++)
		if (!j->item[i].dropped && off == j->offset[i])
			return i;
	return j->n;
}

/* Flags of which nothing can be said when execution has come to item k by fault. */
static uint32_t vague_flags(const struct job *j, unsigned k, bool fault)
{
	uint32_t undefined = 0, live[MAX_SEQ + 1];

	for (unsigned i = 0; i < k; i++)
		if (!j->item[i].dropped)
			undefined = (undefined & ~j->item[i].defines) | j->item[i].undefined;
	if (!fault)
		return undefined;
	/* Translated code does not keep the flags that the rest overwrites. */
	live[j->n] = FLAGS_ARITH;
	for (unsigned i = j->n; i-- > k;) {
		const struct item *it = &j->item[i];

		if (it->dropped) {
			live[i] = live[i + 1];
			continue;
		}
		live[i] = live[i + 1];
		if (it->rel_at)
			live[i] = (it->bytes[it->rel_at - 1] == 0xeb ? 0 : live[i]) | live[it->rel_to];
		live[i] = (live[i] & ~it->kills) | it->reads;
	}
	return undefined | ~live[k];
}

/* CMPS, the one instruction that reads two operands in memory: A6 or A7 after prefixes. */
static bool is_cmps(const struct item *it)
{
	unsigned i = 0;

	while (i < sizeof(it->bytes) - 1 &&
	       (memchr("\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3", it->bytes[i], 11) ||
		(it->bytes[i] & 0xf0) == 0x40))
		i++;
	return (it->bytes[i] & 0xfe) == 0xa6;
}

/* FSTP m80 and FBSTP, which are two stores, of which the first may have happened. */
static bool stores_in_two(const struct item *it)
{
	unsigned i = 0;

	while (i < sizeof(it->bytes) - 2 &&
	       (memchr("\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3", it->bytes[i], 11) ||
		(it->bytes[i] & 0xf0) == 0x40))
		i++;
	return (it->bytes[i] == 0xdb && (it->bytes[i + 1] & 0x38) == 0x38) ||
	       (it->bytes[i] == 0xdf && (it->bytes[i + 1] & 0x38) == 0x30);
}

#define DIFFER(...) return snprintf(why, 200, __VA_ARGS__), false

static bool same(const struct job *j, struct outcome *o, bool translated, char why[200])
{
	const struct outcome *n = &j->native;
	unsigned k = stop_item(j, n), regs = j->mode == 8 ? 16 : 8;
	uint64_t mask = j->mode == 8 ? ~0ull : 0xffffffff;
	uint32_t flags = FLAGS_SEEN;
	bool bcd = false;

	if (o->failed)
		DIFFER("%s", o->why);
	/* Of a misaligned operand that is not mapped either, the processor says the former first. */
	if (n->vector == EXC_GP && (o->vector == EXC_PF || o->vector == EXC_SS) && n->rip == o->rip)
		return true;
	/* Likewise of instructions that it does not have (and whose CPUID bits no guest sees). */
	if ((n->vector == EXC_UD || n->vector == EXC_MF) && (o->vector == EXC_PF || o->vector == EXC_GP) &&
	    n->rip == o->rip)
		return true;
	/* Which of its two operands CMPS reads first. */
	if (k < j->n && is_cmps(&j->item[k]) && n->rip == o->rip &&
	    (n->vector == EXC_PF || n->vector == EXC_GP) && (o->vector == EXC_PF || o->vector == EXC_GP))
		return true;
	/* An operand across the 4 GiB limit of a flat segment: #GP or #SS on some (SDM 3A 5.3). */
	if (j->mode == 4 && n->vector == EXC_PF && (o->vector == EXC_GP || o->vector == EXC_SS) &&
	    n->rip == o->rip)
		return true;
	/* What is checked for alignment, and when, differs between processors. */
	if (n->vector == EXC_AC || o->vector == EXC_AC)
		return true;
	if (n->vector != EXC_BP && k < j->n && j->item[k].maskmov)
		return true;
	if (n->vector != o->vector)
		DIFFER("exception %u (error code %#x) at +%llu, should be %u at +%llu (%#x:%#llx)", o->vector,
		       o->error, (unsigned long long)(o->rip - j->at), n->vector,
		       (unsigned long long)(n->rip - j->at), n->cs, (unsigned long long)n->rip);
	if (n->rip != o->rip)
		DIFFER("rip +%llu, should be +%llu", (unsigned long long)(o->rip - j->at),
		       (unsigned long long)(n->rip - j->at));
	if (n->vector == EXC_PF) {
		/* The host's kernel says "present" of its own half whatever is there. */
		uint32_t m = n->cr2 >= 0x7ffffffff000 ? ~PF_P : ~0u;

		/* Which element of a masked operand is found missing first is the processor's affair. */
		if (n->cr2 != o->cr2 && !(k < j->n && (j->item[k].masked || j->item[k].bytes[0] == 0x62) &&
					  n->cr2 >> 6 == o->cr2 >> 6))
			DIFFER("cr2 %#llx, should be %#llx", (unsigned long long)o->cr2,
			       (unsigned long long)n->cr2);
		if ((n->error ^ o->error) & m)
			DIFFER("error code %#x, should be %#x", o->error, n->error);
	} else if (n->vector >= EXC_TS && n->vector <= EXC_GP && n->error != o->error) {
		DIFFER("error code %#x, should be %#x", o->error, n->error);
	}
	for (unsigned i = 0; i < regs; i++)
		if ((n->gpr[i] ^ o->gpr[i]) & mask)
			DIFFER("%s %#llx, should be %#llx", reg_names[i], (unsigned long long)o->gpr[i],
			       (unsigned long long)n->gpr[i]);
	for (unsigned i = 0; i < k; i++)
		bcd |= j->item[i].bcd;
	if (translated || bcd)
		flags &= ~vague_flags(j, k, translated && n->vector != EXC_BP);
	if ((n->rflags ^ o->rflags) & flags)
		DIFFER("rflags %#llx, should be %#llx", (unsigned long long)(o->rflags & flags),
		       (unsigned long long)(n->rflags & flags));
	if (j->mode == 8 && (n->fs != o->fs || n->gs != o->gs))
		DIFFER("fs, gs base %#llx %#llx, should be %#llx %#llx", (unsigned long long)o->fs,
		       (unsigned long long)o->gs, (unsigned long long)n->fs, (unsigned long long)n->gs);
	if (n->cs != o->cs)
		DIFFER("cs %#x, should be %#x", o->cs, n->cs);
	/* The IRET to the signal's handler makes null selectors zero. */
	o->ds = o->ds < 4 ? 0 : o->ds;
	o->es = o->es < 4 ? 0 : o->es;
	if (n->ds != o->ds || n->es != o->es)
		DIFFER("ds, es %#x %#x, should be %#x %#x", o->ds, o->es, n->ds, n->es);
	normalise(o->xsave, j->mode);
	for (unsigned i = 0; i < X86_XSAVE_MAX; i++)
		if (n->xsave[i] != o->xsave[i])
			DIFFER("byte %u of the XSAVE image %#x, should be %#x", i, o->xsave[i], n->xsave[i]);
	if (n->vector == EXC_PF && k < j->n && stores_in_two(&j->item[k]))
		return true;
	for (unsigned i = 0; i < DATA_SIZE; i++)
		if (n->data[i] != o->data[i])
			DIFFER("byte %#x of memory %#x, should be %#x", i, o->data[i], n->data[i]);
	return true;
}

/* ---- running many ---- */

static struct {
	struct job jobs[BATCH];
	unsigned n;
	bool quit;
	pthread_barrier_t start, done;
	struct guest guests[2];
} all;

static void *worker(void *arg)
{
	struct guest *g = arg;
	struct error err;

	sched_setaffinity(0, sizeof all_cpus, &all_cpus);
	if (engine_bt.vcpu_thread_init(g->v, &err))
		abort();
	for (;;) {
		pthread_barrier_wait(&all.start);
		if (all.quit)
			return NULL;
		for (unsigned i = 0; i < all.n; i++) {
			const struct job *j = &all.jobs[i];

			memcpy(g->code + (j->at - CODE_VA), j->code, j->code_len);
			mem_written(g->m, GPA(PA_CODE + (j->at - CODE_VA)), j->code_len);
			for (unsigned r = 0; r < g->runs; r++)
				guest_run(g, j, &g->out[i * g->runs + r]);
		}
		pthread_barrier_wait(&all.done);
	}
}

static void run_batch(void)
{
	for (unsigned i = 0; i < all.n; i++) {
		oracle_native_run(&all.jobs[i]);
		normalise(all.jobs[i].native.xsave, all.jobs[i].mode);
	}
	pthread_barrier_wait(&all.start);
	pthread_barrier_wait(&all.done);
}

/* The first tier that differs on job i, and how; NULL: none. */
static const char *difference(unsigned i, char why[200])
{
	for (unsigned k = 0; k < ARRAY_SIZE(all.guests); k++) {
		struct guest *g = &all.guests[k];

		for (unsigned r = 0; r < g->runs; r++)
			if (!same(&all.jobs[i], &g->out[i * g->runs + r], g->runs > 1, why))
				return g->name;
	}
	return NULL;
}

static void print_job(const struct job *j)
{
	ZydisDecoder d;
	ZydisFormatter f;

	ZydisDecoderInit(&d, j->mode == 8 ? ZYDIS_MACHINE_MODE_LONG_64 : ZYDIS_MACHINE_MODE_LEGACY_32,
			 j->mode == 8 ? ZYDIS_STACK_WIDTH_64 : ZYDIS_STACK_WIDTH_32);
	ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
	for (unsigned off = 0; off < j->code_len;) {
		ZydisDecodedInstruction z;
		ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
		char text[200];

		if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, j->code + off, j->code_len - off, &z, op)))
			break;
		ZydisFormatterFormatInstruction(&f, &z, op, z.operand_count_visible, text, sizeof text,
						j->at + off, NULL);
		printf("  +%-3u ", off);
		for (unsigned i = 0; i < z.length; i++)
			printf("%02x", j->code[off + i]);
		printf("  %s\n", text);
		off += z.length;
	}
	for (unsigned i = 0; i < (j->mode == 8 ? 16u : 8u); i++)
		printf("  %s=%llx%s", reg_names[i], (unsigned long long)j->gpr[i], i % 4 == 3 ? "\n" : "");
	printf("  rflags=%llx fs=%llx gs=%llx fcw=%02x%02x mxcsr=%02x%02x\n", (unsigned long long)j->rflags,
	       (unsigned long long)j->fs, (unsigned long long)j->gs, j->xsave[1], j->xsave[0], j->xsave[25],
	       j->xsave[24]);
}

/* Drops what the difference does not need, and prints the rest. */
static void report(unsigned index)
{
	char why[200];
	const char *tier;

	all.jobs[0] = all.jobs[index];
	all.n = 1;
	for (unsigned i = 0; i < all.jobs[0].n; i++) {
		all.jobs[0].item[i].dropped = true;
		oracle_layout(&all.jobs[0]);
		run_batch();
		if (!difference(0, why)) {
			all.jobs[0].item[i].dropped = false;
			oracle_layout(&all.jobs[0]);
		}
	}
	run_batch();
	tier = difference(0, why);
	printf("SILL_SEED=%llu, %u-bit, tier %s: %s\n", (unsigned long long)all.jobs[0].seed,
	       all.jobs[0].mode * 8, tier ? tier : "(not again)", tier ? why : "");
	printf("  native: exception %u at +%llu\n", all.jobs[0].native.vector,
	       (unsigned long long)(all.jobs[0].native.rip - all.jobs[0].at));
	print_job(&all.jobs[0]);
	fflush(stdout);
}

int main(void)
{
	const char *s = getenv("SILL_ORACLE_SECONDS"), *seed_text = getenv("SILL_SEED");
	double seconds = s ? atof(s) : seed_text ? 0 : 15, t0 = oracle_now();
	bool keep = getenv("SILL_ORACLE_KEEP");
	uint64_t seed = seed_text ? strtoull(seed_text, NULL, 0) : 1, index = 0, insns = 0, sequences = 0,
		 faults = 0;
	static uint8_t seen[ZYDIS_MNEMONIC_MAX_VALUE + 1];
	static uint8_t reported[ZYDIS_MNEMONIC_MAX_VALUE + 1];
	unsigned kinds = 0, failures = 0;
	const char *why = NULL;

	if (cpu_model_new("host", 1, &model, NULL)) {
		printf("no CPU model for this host\n");
		return 77;
	}
	/* This thread stays on one processor, whose number a segment's limit tells. */
	if (!sched_getaffinity(0, sizeof all_cpus, &all_cpus)) {
		cpu_set_t one;

		CPU_ZERO(&one);
		CPU_SET((unsigned)sched_getcpu(), &one);
		sched_setaffinity(0, sizeof one, &one);
	}
	cpu_limit = oracle_native_cpu_limit();
	for (unsigned k = 0; k < 2; k++)
		if (!guest_new(&all.guests[k], k ? "t1" : "interp"))
			return 1;
	if (!oracle_native_init(&why)) {
		printf("skipped: %s\n", why);
		return 77;
	}
	pthread_barrier_init(&all.start, NULL, 3);
	pthread_barrier_init(&all.done, NULL, 3);
	for (unsigned k = 0; k < 2; k++)
		pthread_create(&all.guests[k].thread, NULL, worker, &all.guests[k]);
	do {
		all.n = seed_text && !s ? 1 : BATCH;
		for (unsigned i = 0; i < all.n; i++)
			oracle_generate(&all.jobs[i], seed++, index++, &model);
		run_batch();
		for (unsigned i = 0; i < all.n; i++) {
			struct job *j = &all.jobs[i];
			char text[200];
			unsigned n = stop_item(j, &j->native);

			sequences++;
			insns += n;
			faults += j->native.vector != EXC_BP;
			for (unsigned q = 0; q < n; q++) {
				struct insn in;

				if (insn_decode(j->item[q].bytes, 15, j->mode, false, &in) == DECODE_OK &&
				    !seen[in.mnemonic]) {
					seen[in.mnemonic] = 1;
					kinds++;
				}
			}
			if (difference(i, text)) {
				static struct job saved[BATCH];
				unsigned saved_n = all.n;
				struct insn in;

				failures++;
				if (keep) {
					unsigned q = n < j->n ? n : j->n - 1;
					if (insn_decode(j->item[q].bytes, 15, j->mode, false, &in) ==
					    DECODE_OK) {
						if (reported[in.mnemonic])
							continue;
						reported[in.mnemonic] = 1;
					}
				}
				memcpy(saved, all.jobs, sizeof saved);
				report(i);
				if (!keep)
					break;
				memcpy(all.jobs, saved, sizeof saved);
				all.n = saved_n;
				run_batch();
			}
		}
	} while ((keep || !failures) && oracle_now() - t0 < seconds);
	all.quit = true;
	pthread_barrier_wait(&all.start);
	for (unsigned k = 0; k < 2; k++) {
		pthread_join(all.guests[k].thread, NULL);
		guest_free(&all.guests[k]);
	}
	printf("%llu sequences, %llu instructions (%u kinds), %llu faults, %u differences\n",
	       (unsigned long long)sequences, (unsigned long long)insns, kinds, (unsigned long long)faults,
	       failures);
	return failures != 0;
}
