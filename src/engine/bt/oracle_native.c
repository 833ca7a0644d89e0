/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The processor's own answer.
 *
 * Both ways, between this program and the random code, lead through a signal:
 * an INT3 here makes the handler put the job's registers into the signal frame,
 * so that its return starts the random code; the INT3 or the fault at that
 * code's end makes it keep the frame and put back the one of the first signal.
 * No assembly, and RSP, the segment registers and the whole vector state may be
 * what they like.  FS and GS bases, which frames do not hold, are set by the
 * handler itself; FS's first of all, since C code here needs it.
 */
#include "engine/bt/oracle.h"

#include <cpuid.h>
#include <immintrin.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/util.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x10u
#endif

/* The test is one program with one such runner; the handler finds it here. */
static struct {
	volatile int phase; /* 0: not ours; 1: about to enter; 2: random code runs */
	struct job *job;
	uint8_t *code; /* writable view of the code area */
	uint64_t host_fs, host_gs;
	gregset_t regs;
	uint8_t fp[X86_XSAVE_MAX];
	struct sigaction old[65];
} native;

static const int greg_of[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
				 REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };

/* The part of the frame's image that the kernel marks for itself, 464..511, stays; behind `size` is a mark
 * too. */
static void copy_image(uint8_t *to, const uint8_t *from, uint32_t size)
{
	memcpy(to, from, 464);
	memcpy(to + 512, from + 512, size - 512);
}

__attribute__((target("fsgsbase"))) static void handler(int sig, siginfo_t *si, void *ctx)
{
	ucontext_t *uc = ctx;
	greg_t *r = uc->uc_mcontext.gregs;
	uint8_t *fp = (uint8_t *)uc->uc_mcontext.fpregs;
	struct job *j = native.job;
	uint32_t size;

	/* The kernel leaves AC, and C code is not always aligned. */
	__asm__ volatile("pushfq; andl %0, (%%rsp); popfq" ::"i"(~(FLAG_AC | FLAG_NT | FLAG_ID))
			 : "memory", "cc");

	if (native.phase == 0) {
		struct sigaction *o = &native.old[sig];

		if (o->sa_flags & SA_SIGINFO)
			o->sa_sigaction(sig, si, ctx);
		else
			signal(sig, SIG_DFL);
		return;
	}
	memcpy(&size, fp + 480, 4); /* struct _fpx_sw_bytes.xstate_size */
	if (native.phase == 1) {
		uint64_t fs, gs;

		native.host_fs = _readfsbase_u64();
		native.host_gs = _readgsbase_u64();
		memcpy(native.regs, r, sizeof native.regs);
		memset(native.fp, 0, sizeof native.fp);
		copy_image(native.fp, fp, size);
		copy_image(fp, j->xsave, size);
		for (int i = 0; i < 16; i++)
			r[greg_of[i]] = (greg_t)j->gpr[i];
		r[REG_RIP] = (greg_t)j->at;
		r[REG_EFL] = (greg_t)j->rflags;
		r[REG_CSGSFS] = (greg_t)((uint64_t)SEL_DATA << 48 | (j->mode == 8 ? SEL_CS64 : SEL_CS32));
		fs = j->fs;
		gs = j->gs;
		native.phase = 2;
		_writegsbase_u64(gs);
		_writefsbase_u64(fs);
		return;
	}
	{
		uint64_t fs = _readfsbase_u64();
		struct outcome *o;

		_writefsbase_u64(native.host_fs);
		o = &j->native;
		o->fs = fs;
		o->gs = _readgsbase_u64();
		_writegsbase_u64(native.host_gs);
		for (int i = 0; i < 16; i++)
			o->gpr[i] = (uint64_t)r[greg_of[i]];
		o->rip = (uint64_t)r[REG_RIP];
		o->rflags = (uint64_t)r[REG_EFL];
		o->vector = (uint32_t)r[REG_TRAPNO];
		o->error = (uint32_t)r[REG_ERR];
		o->cr2 = (uint64_t)r[REG_CR2];
		o->cs = (uint16_t)r[REG_CSGSFS];
		__asm__ volatile("mov %%ds, %0; mov %%es, %1" : "=r"(o->ds), "=r"(o->es));
		__asm__ volatile("mov %0, %%ds; mov %0, %%es" ::"r"(SEL_DATA));
		memset(o->xsave, 0, sizeof o->xsave);
		copy_image(o->xsave, fp, size);
		memcpy(r, native.regs, sizeof native.regs);
		copy_image(fp, native.fp, size);
		native.phase = 0;
	}
}

uint32_t oracle_native_cpu_limit(void)
{
	uint32_t limit = 0;

	__asm__ volatile("lsl %1, %0" : "+r"(limit) : "r"(0x7b) : "cc");
	return limit;
}

bool oracle_native_init(const char **why)
{
	static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP };
	struct sigaction sa = { .sa_flags = SA_SIGINFO | SA_ONSTACK, .sa_sigaction = handler };
	stack_t ss = { .ss_size = 128 << 10 };
	void *p;
	int fd;

	/* AT_HWCAP2 bit 1: the kernel lets programs use RDFSBASE and its kin. */
	if (!(getauxval(AT_HWCAP2) & 2)) {
		*why = "the host has no FSGSBASE";
		return false;
	}
	p = mmap((void *)DATA_VA, DATA_SIZE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_POPULATE, -1, 0);
	if (p != (void *)DATA_VA) {
		*why = "the data area's address is taken";
		return false;
	}
	fd = memfd_create("oracle code", MFD_CLOEXEC | MFD_EXEC);
	if (fd < 0)
		fd = memfd_create("oracle code", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, CODE_SIZE)) {
		*why = "no memory for the code area";
		return false;
	}
	native.code = mmap(NULL, CODE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	p = mmap((void *)CODE_VA, CODE_SIZE, PROT_READ | PROT_EXEC,
		 MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, fd, 0);
	close(fd);
	if (p != (void *)CODE_VA || native.code == MAP_FAILED) {
		*why = "the code area's address is taken";
		return false;
	}
	ss.ss_sp = mmap(NULL, ss.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ss.ss_sp == MAP_FAILED || sigaltstack(&ss, NULL)) {
		*why = "no signal stack";
		return false;
	}
	sigemptyset(&sa.sa_mask);
	for (unsigned i = 0; i < ARRAY_SIZE(faults); i++)
		sigaction(faults[i], &sa, &native.old[faults[i]]);
	/* 32-bit code needs data segments, which a 64-bit process leaves null. */
	__asm__ volatile("mov %0, %%ds; mov %0, %%es" ::"r"(SEL_DATA));
	return true;
}

void oracle_native_run(struct job *j)
{
	uint8_t *data = (uint8_t *)DATA_VA;

	memset(&j->native, 0, offsetof(struct outcome, xsave));
	memcpy(native.code + (j->at - CODE_VA), j->code, j->code_len);
	mprotect(data + DATA_SIZE - 0x1000, 0x1000, PROT_READ | PROT_WRITE);
	memcpy(data, j->data, DATA_SIZE);
	mprotect(data + DATA_SIZE - 0x1000, 0x1000, PROT_READ);
	native.job = j;
	native.phase = 1;
	/* NT and ID, too, survive all that the kernel does. */
	__asm__ volatile("pushfq; andl %0, (%%rsp); popfq" ::"i"(~(FLAG_NT | FLAG_ID)) : "memory", "cc");
	__asm__ volatile("int3" ::: "memory");
	memcpy(j->native.data, data, DATA_SIZE);
}
