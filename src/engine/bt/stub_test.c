/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attacks on the gate: code that runs in a stub and tries to get out, to change
 * what is mapped, to hide from its tracer, or to outlive it.  Each attack is
 * machine code in a page of guest memory, run as a guest's program would be; what
 * is checked is that the host's kernel did nothing for it.
 */
#include <sys/user.h>
#undef PAGE_SIZE
#undef PAGE_MASK

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "engine/bt/stub.h"

#define RAM_SIZE MIB(4)
#define CODE_VA  0x400000ull
#define DATA_VA  0x500000ull
#define CANARY   0x5117c0de5117c0deull

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

extern const char stub_gate_code[], stub_gate_after[];

/* A stub with one page of code and one of data; the canary is guest memory that is not mapped in it. */
struct rig {
	struct stub_host host;
	struct stub stub;
	int fd;
	uint8_t *ram, *code, *data;
	uint64_t *canary;
	struct user_regs_struct regs;
	struct stub_event ev;
	volatile pid_t kick;
	uint32_t kicked;
};

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));
	struct error err = { 0 };

	assert_non_null(r);
	r->fd = memfd_create("ram", MFD_CLOEXEC);
	assert_int_equal(ftruncate(r->fd, RAM_SIZE), 0);
	r->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0);
	assert_true(r->ram != MAP_FAILED);
	r->code = r->ram;
	r->data = r->ram + 4096;
	r->canary = (uint64_t *)(r->ram + MIB(1));
	*r->canary = CANARY;
	if (stub_host_init(&r->host, r->fd, &err)) {
		print_message("skipped: %s\n", err.message);
		close(r->fd);
		munmap(r->ram, RAM_SIZE);
		free(r);
		*state = NULL;
		return 0;
	}
	assert_int_equal(stub_new(&r->host, &r->stub), 0);
	stub_map(&r->host, CODE_VA, 4096, PROT_READ | PROT_EXEC, 0);
	stub_map(&r->host, DATA_VA, 4096, PROT_READ | PROT_WRITE, 4096);
	assert_int_equal(stub_flush(&r->host, &r->stub), 0);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	if (!r)
		return 0;
	/* Whatever it tried: it lives, nobody else's memory changed. */
	assert_int_equal(kill(r->stub.pid, 0), 0);
	assert_true(*r->canary == CANARY);
	stub_kill(&r->stub);
	stub_host_free(&r->host);
	munmap(r->ram, RAM_SIZE);
	close(r->fd);
	free(r);
	return 0;
}

static struct rig *rig(void **state)
{
	if (!*state)
		skip();
	return *state;
}

/* Fresh registers at the start of `n` bytes of code. */
static void load(struct rig *r, const void *code, size_t n)
{
	memset(r->code, 0xf4, 4096);
	memcpy(r->code, code, n);
	memset(&r->regs, 0, sizeof(r->regs));
	r->regs.rip = CODE_VA;
	r->regs.rsp = DATA_VA + 4096 - 64;
	r->regs.cs = 0x33;
	r->regs.ss = 0x2b;
	r->regs.eflags = 0x202;
}

static void run(struct rig *r)
{
	stub_run(&r->stub, &r->regs, &r->kick, &r->kicked, &r->ev);
	assert_int_not_equal(r->ev.stop, STUB_DEAD);
}

/* The mappings of the stub, to compare. */
static void maps(const struct rig *r, char *buf, size_t size)
{
	char path[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)r->stub.pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	n = read(fd, buf, size - 1);
	assert_true(n > 0);
	buf[n] = 0;
	close(fd);
}

/* ---- attacks ---- */

static void test_only_guest_memory_is_mapped(void **state)
{
	struct rig *r = rig(state);
	char buf[4096], *line, *save = NULL;
	unsigned known = 0;

	maps(r, buf, sizeof(buf));
	for (line = strtok_r(buf, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		uint64_t from;

		assert_int_equal(sscanf(line, "%" SCNx64, &from), 1);
		if (strstr(line, "[vsyscall]"))
			continue;
		assert_true(from == CODE_VA || from == DATA_VA ||
			    (from >= STUB_GATE && from < STUB_GATE + STUB_GATE_SIZE));
		if (from >= STUB_GATE)
			assert_null(strstr(line, "rw"));
		known++;
	}
	assert_int_equal(known, 4);
}

static void test_only_ram_is_open(void **state)
{
	struct rig *r = rig(state);
	char path[64], target[128];

	for (int fd = 0; fd < 1024; fd++) {
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)r->stub.pid, fd);
		n = readlink(path, target, sizeof(target) - 1);
		if (n > 0)
			target[n] = 0;
		if (fd == STUB_RAM_FD) {
			assert_true(n > 0);
			assert_non_null(strstr(target, "memfd:ram"));
		} else if (fd == STUB_UFFD) {
			/* There even if it cannot be used. */
			assert_true(n < 0 || strstr(target, "userfaultfd"));
		} else {
			assert_int_equal(n, -1);
		}
	}
}

/* Every number, by every instruction that makes system calls in 64-bit code: stopped before anything is done.
 */
static void every_call(struct rig *r, const void *insn, size_t size, uint64_t at, uint64_t flag)
{
	char before[4096], after[4096];

	maps(r, before, sizeof(before));
	for (uint64_t nr = 0; nr < 600; nr++) {
		load(r, insn, size);
		r->regs.rip = at;
		r->regs.rax = nr | flag;
		/* Plausible arguments: munmap and mprotect of its own page, kill of everyone, exit. */
		r->regs.rdi = nr == SYS_kill ? (uint64_t)-1 : CODE_VA;
		r->regs.rsi = nr == SYS_kill ? SIGKILL : 4096;
		r->regs.rdx = 7;
		r->regs.r10 = MAP_SHARED | MAP_FIXED;
		r->regs.r8 = STUB_RAM_FD;
		r->regs.r9 = MIB(1);
		run(r);
		assert_int_equal(r->ev.stop, STUB_SYSCALL);
		assert_true(r->regs.orig_rax == (nr | flag));
	}
	maps(r, after, sizeof(after));
	assert_string_equal(before, after);
}

static void test_syscall(void **state)
{
	every_call(rig(state), "\x0f\x05", 2, CODE_VA, 0);
}

static void test_x32_syscall(void **state)
{
	every_call(rig(state), "\x0f\x05", 2, CODE_VA, 0x40000000);
}

static void test_int80(void **state)
{
	every_call(rig(state), "\xcd\x80", 2, CODE_VA, 0);
}

/* At the one instruction that the filter would let through. */
static void test_syscall_of_the_gate(void **state)
{
	every_call(rig(state), "", 0, STUB_GATE + (uint64_t)(stub_gate_after - stub_gate_code) - 2, 0);
}

/* The gate's loop, on a list of commands of the attacker's own. */
static void test_gate_with_forged_commands(void **state)
{
	struct rig *r = rig(state);
	struct stub_call calls[] = {
		{ SYS_mmap, { 0x600000, 4096, 3, MAP_SHARED | MAP_FIXED, STUB_RAM_FD, MIB(1) } },
		{ SYS_exit_group, { 0 } },
	};
	char before[4096], after[4096];

	maps(r, before, sizeof(before));
	memcpy(r->data, calls, sizeof(calls));
	load(r, "", 0);
	r->regs.rip = STUB_GATE;
	r->regs.r12 = DATA_VA;
	r->regs.r13 = 2;
	run(r);
	assert_int_equal(r->ev.stop, STUB_SYSCALL);
	maps(r, after, sizeof(after));
	assert_string_equal(before, after);
	/* And on what the tracer last asked for. */
	load(r, "", 0);
	r->regs.rip = STUB_GATE;
	r->regs.r12 = STUB_GATE + 4096;
	r->regs.r13 = 1;
	run(r);
	assert_int_equal(r->ev.stop, STUB_SYSCALL);
}

/* A forged signal frame under rt_sigreturn. */
static void test_sigreturn(void **state)
{
	struct rig *r = rig(state);

	memset(r->data, 0x41, 4096);
	load(r, "\x0f\x05", 2);
	r->regs.rax = SYS_rt_sigreturn;
	r->regs.rsp = DATA_VA;
	run(r);
	assert_int_equal(r->ev.stop, STUB_SYSCALL);
	assert_true(r->regs.rsp == DATA_VA);
	/* It still answers a kick: no signal mask was restored from the frame. */
	load(r, "\xeb\xfe", 2);
	kill(r->stub.pid, SIGURG);
	run(r);
	assert_int_equal(r->ev.stop, STUB_KICKED);
}

static void test_gate_is_read_only(void **state)
{
	struct rig *r = rig(state);

	for (uint64_t at = STUB_GATE; at < STUB_GATE + STUB_GATE_SIZE; at += 4096) {
		load(r, "\xc6\x07\x90", 3); /* mov byte [rdi], 90h */
		r->regs.rdi = at;
		run(r);
		assert_int_equal(r->ev.stop, STUB_SIGNAL);
		assert_int_equal(r->ev.sig, SIGSEGV);
		assert_true(r->ev.addr == at);
	}
	assert_memory_equal(r->host.gate, stub_gate_code, 16);
}

/* What only the kernel may do, and traps: all faults, all seen by the tracer. */
static void test_privileged(void **state)
{
	static const struct {
		const char *code;
		unsigned size;
		int sig;
	} insn[] = {
		{ "\xf4", 1, SIGSEGV },            /* HLT */
		{ "\xfa", 1, SIGSEGV },            /* CLI */
		{ "\xe4\x80", 2, SIGSEGV },        /* IN */
		{ "\xe6\x80", 2, SIGSEGV },        /* OUT */
		{ "\x0f\x30", 2, SIGSEGV },        /* WRMSR */
		{ "\x0f\x20\xc0", 3, SIGSEGV },    /* MOV RAX, CR0 */
		{ "\x0f\x23\xc0", 3, SIGSEGV },    /* MOV DR0, RAX */
		{ "\x0f\x01\x17", 3, SIGSEGV },    /* LGDT */
		{ "\x0f\x00\xd8", 3, SIGSEGV },    /* LTR */
		{ "\x0f\x01\xf8", 3, SIGSEGV },    /* SWAPGS */
		{ "\x48\x0f\x07", 3, SIGSEGV },    /* SYSRET */
		{ "\x48\xcf", 2, SIGSEGV },        /* IRETQ to selector 0 */
		{ "\xcd\x20", 2, SIGSEGV },        /* INT 20h */
		{ "\xcc", 1, SIGTRAP },            /* INT3 */
		{ "\xf1", 1, SIGTRAP },            /* INT1 */
		{ "\x0f\x0b", 2, SIGILL },         /* UD2 */
		{ "\x31\xc9\xf7\xf1", 4, SIGFPE }, /* DIV by 0 */
	};
	struct rig *r = rig(state);

	for (unsigned i = 0; i < ARRAY_SIZE(insn); i++) {
		load(r, insn[i].code, insn[i].size);
		r->regs.rsp = DATA_VA; /* zeros to return to */
		memset(r->data, 0, 64);
		run(r);
		assert_int_equal(r->ev.stop, STUB_SIGNAL);
		assert_int_equal(r->ev.sig, insn[i].sig);
	}
}

/* SYSENTER: a fault, or a stop; on no account a system call. */
static void test_sysenter(void **state)
{
	struct rig *r = rig(state);

	for (unsigned mode = 0; mode < 2; mode++) {
		load(r, "\x0f\x34", 2);
		r->regs.rax = mode ? 1 /* exit */ : SYS_exit;
		if (mode) {
			r->regs.cs = 0x23;
			r->regs.ds = r->regs.es = 0x2b;
		}
		run(r);
		assert_true(r->ev.stop == STUB_SYSCALL || r->ev.stop == STUB_SIGNAL);
	}
}

/* 32-bit code has its own ways in. */
static void test_compat(void **state)
{
	static const char *const ways[] = { "\xcd\x80", "\x0f\x05" };
	struct rig *r = rig(state);

	for (unsigned i = 0; i < ARRAY_SIZE(ways); i++)
		for (uint64_t nr = 0; nr < 460; nr++) {
			load(r, ways[i], 2);
			r->regs.cs = 0x23;
			r->regs.ds = r->regs.es = 0x2b;
			r->regs.rax = nr;
			r->regs.rbx = CODE_VA;
			r->regs.rcx = 4096;
			r->regs.rdx = 7;
			r->regs.rbp = DATA_VA;
			run(r);
			/* SYSCALL in compatibility mode is AMD's; Intel raises #UD. */
			assert_true(r->ev.stop == STUB_SYSCALL ||
				    (i == 1 && r->ev.stop == STUB_SIGNAL && r->ev.sig == SIGILL));
		}
	/* A far jump from 64-bit code into it, and the call there. */
	load(r, "\xff\x2f", 2); /* jmp far [rdi], a 16:32 pointer */
	r->regs.rdi = DATA_VA;
	r->regs.rax = 1;
	memcpy(r->code + 16, "\xcd\x80", 2);
	*(uint32_t *)r->data = CODE_VA + 16;
	*(uint16_t *)(r->data + 4) = 0x23;
	run(r);
	assert_int_equal(r->ev.stop, STUB_SYSCALL);
	assert_int_equal(r->regs.cs, 0x23);
}

/* The host's vsyscall page works without a system call: the filter alone stands there. */
static void test_vsyscall(void **state)
{
	struct rig *r = rig(state);

	for (uint64_t i = 0; i < 3; i++) {
		load(r, "\xff\xd0\xf4", 3); /* call rax */
		r->regs.rax = 0xffffffffff600000ull + i * 1024;
		r->regs.rdi = DATA_VA;
		memset(r->data, 0, 64);
		run(r);
		assert_int_equal(r->ev.stop, STUB_SIGNAL);
		assert_true(r->ev.sig == SIGSYS || r->ev.sig == SIGSEGV);
		/* gettimeofday would have written. */
		assert_true(*(uint64_t *)r->data == 0);
	}
}

/* Single-stepping itself over a system call. */
static void test_trap_flag(void **state)
{
	struct rig *r = rig(state);

	load(r, "\x9c\x81\x0c\x24\x00\x01\x00\x00\x9d\x0f\x05\xf4",
	     12); /* pushf; or [rsp], TF; popf; syscall */
	r->regs.rax = SYS_exit_group;
	run(r);
	assert_true((r->ev.stop == STUB_SIGNAL && r->ev.sig == SIGTRAP) || r->ev.stop == STUB_SYSCALL);
	r->regs.eflags &= ~0x100ull;
	r->regs.rip = CODE_VA + 11;
	run(r);
	assert_int_equal(r->ev.sig, SIGSEGV);
}

/* Kernel addresses, non-canonical ones, its own page table's holes. */
static void test_addresses(void **state)
{
	static const uint64_t at[] = { 0,
				       0x1000,
				       0x7ffffffff000,
				       0x800000000000,
				       0xdead000000000000,
				       0xffff800000000000,
				       0xffffffff81000000,
				       0xfffffffffffffff0 };
	struct rig *r = rig(state);

	for (unsigned i = 0; i < ARRAY_SIZE(at); i++) {
		load(r, "\x8a\x07", 2); /* mov al, [rdi] */
		r->regs.rdi = at[i];
		run(r);
		assert_int_equal(r->ev.stop, STUB_SIGNAL);
		assert_true(r->ev.sig == SIGSEGV || r->ev.sig == SIGBUS);
		load(r, "\xff\xe7", 2); /* jmp rdi */
		r->regs.rdi = at[i];
		run(r);
		assert_int_equal(r->ev.stop, STUB_SIGNAL);
	}
}

/* If ever it were resumed the wrong way: the filter lets three calls through at one place, no other anywhere.
 */
static void test_filter_alone(void **state)
{
	struct rig *r = rig(state);

	for (uint64_t nr = 0; nr < 500; nr++)
		for (int gate = 0; gate < 2; gate++) {
			siginfo_t si;
			int status;

			if (gate && (nr == SYS_mmap || nr == SYS_munmap || nr == SYS_mprotect))
				continue;
			/* uretprobe and uprobe: newer kernels exempt them from filters, and refuse all
			 * callers but code of their own making. */
			if (nr == 335 || nr == 336)
				continue;
			load(r, "\x0f\x05\xcc", 3);
			if (gate)
				r->regs.rip = STUB_GATE + (uint64_t)(stub_gate_after - stub_gate_code) - 2;
			r->regs.rax = nr;
			r->regs.orig_rax = ~0ull;
			assert_int_equal(ptrace(PTRACE_SETREGS, r->stub.pid, NULL, &r->regs), 0);
			assert_int_equal(ptrace(PTRACE_CONT, r->stub.pid, NULL, 0), 0);
			assert_int_equal(waitpid(r->stub.pid, &status, __WALL), r->stub.pid);
			assert_true(WIFSTOPPED(status));
			assert_int_equal(WSTOPSIG(status), SIGSYS);
			assert_int_equal(ptrace(PTRACE_GETSIGINFO, r->stub.pid, NULL, &si), 0);
			assert_int_equal(si.si_syscall, (int)nr);
		}
}

/* An endless loop stops when kicked, even if the kick came before it ran. */
static void test_kick(void **state)
{
	struct rig *r = rig(state);
	pid_t kicker;

	load(r, "\xeb\xfe", 2);
	r->kicked = 1;
	run(r);
	assert_int_equal(r->ev.stop, STUB_KICKED);
	r->kicked = 0;
	kicker = fork();
	if (!kicker) {
		usleep(20000);
		stub_kick(r->stub.pid);
		_exit(0);
	}
	run(r);
	assert_int_equal(r->ev.stop, STUB_KICKED);
	assert_int_equal(r->kick, 0);
	waitpid(kicker, NULL, 0);
}

/* Registers that the host does not take: nothing is lost, and the next may be better. */
static void test_refused(void **state)
{
	struct rig *r = rig(state);
	struct user_regs_struct before;

	load(r, "\xcc", 1);
	r->regs.gs_base = 0xffffffff80000000;
	before = r->regs;
	run(r);
	assert_int_equal(r->ev.stop, STUB_REFUSED);
	assert_int_equal(r->kick, 0);
	assert_int_equal(r->regs.rip, before.rip);
	assert_int_equal(r->regs.rsp, before.rsp);
	assert_int_equal(r->regs.gs_base, before.gs_base);
	r->regs.gs_base = 0;
	run(r);
	assert_int_equal(r->ev.stop, STUB_SIGNAL);
	assert_int_equal(r->regs.rip, CODE_VA + 1);
}

/* Whoever kills the tracer does not set its stubs free. */
static void test_dies_with_its_tracer(void **state)
{
	int fds[2];
	pid_t tracer, pids[2];

	rig(state);
	assert_int_equal(pipe(fds), 0);
	tracer = fork();
	if (!tracer) {
		struct stub_host h;
		struct stub s;
		int fd = memfd_create("ram", MFD_CLOEXEC);

		if (ftruncate(fd, 4096) || stub_host_init(&h, fd, NULL) || stub_new(&h, &s))
			_exit(1);
		pids[0] = h.zygote;
		pids[1] = s.pid;
		if (write(fds[1], pids, sizeof(pids)) != sizeof(pids))
			_exit(1);
		pause();
	}
	assert_int_equal(read(fds[0], pids, sizeof(pids)), sizeof(pids));
	kill(tracer, SIGKILL);
	waitpid(tracer, NULL, 0);
	for (int i = 0; i < 2; i++) {
		char path[64], line[256] = "";
		bool dead = false;

		for (int wait = 0; wait < 200 && !dead; wait++) {
			FILE *f;

			snprintf(path, sizeof(path), "/proc/%d/stat", (int)pids[i]);
			f = fopen(path, "re");
			/* Gone, or a zombie that nobody has collected. */
			dead =
			    !f || !fgets(line, sizeof(line), f) || strstr(line, ") Z") || strstr(line, ") X");
			if (f)
				fclose(f);
			usleep(10000);
		}
		assert_true(dead);
	}
	close(fds[0]);
	close(fds[1]);
}

/* Not even a zombie is left of a stub: a VM makes thousands. */
static void test_nothing_is_left(void **state)
{
	struct rig *r = rig(state);

	for (unsigned i = 0; i < 8; i++) {
		struct stub s;
		pid_t pid;

		assert_int_equal(stub_new(&r->host, &s), 0);
		pid = s.pid;
		stub_kill(&s);
		for (unsigned k = 0; k < 100 && !kill(pid, 0); k++)
			usleep(10000);
		assert_int_equal(kill(pid, 0), -1);
	}
}

static void test_cpuid_faults_when_asked(void **state)
{
	static const char code[] = "\x31\xc0\x0f\xa2\xcc"; /* xor eax, eax; cpuid; int3 */
	struct rig *r = rig(state);

	if (stub_cpuid(&r->host, &r->stub, true)) {
		print_message("this host's processor cannot make CPUID fault\n");
		skip();
	}
	for (int i = 0; i < 3; i++) {
		assert_int_equal(stub_cpuid(&r->host, &r->stub, i % 2 == 0), 0);
		load(r, code, sizeof(code));
		run(r);
		assert_int_equal(r->ev.stop, STUB_SIGNAL);
		assert_int_equal(r->ev.sig, i % 2 ? SIGTRAP : SIGSEGV);
		assert_int_equal(r->regs.rip, CODE_VA + (i % 2 ? 5 : 2));
	}
	/* Another stub is as it was. */
	stub_kill(&r->stub);
	assert_int_equal(stub_new(&r->host, &r->stub), 0);
	stub_map(&r->host, CODE_VA, 4096, PROT_READ | PROT_EXEC, 0);
	assert_int_equal(stub_flush(&r->host, &r->stub), 0);
	load(r, code, sizeof(code));
	run(r);
	assert_int_equal(r->ev.sig, SIGTRAP);
}

/* ptrace leaves EFLAGS.ID and NT alone; stub_run does not. */
static void test_kept_flags(void **state)
{
	/* pushf; pop rax; int3; the same after xor dword [rsp], 200000h or 4000h; popf */
	static const char look[] = "\x9c\x58\xcc";
	static const char flip_id[] = "\x9c\x81\x34\x24\x00\x00\x20\x00\x9d\x9c\x58\xcc";
	static const char flip_nt[] = "\x9c\x81\x34\x24\x00\x40\x00\x00\x9d\x9c\x58\xcc";
	const uint64_t id = 1u << 21, nt = 1u << 14, kept[] = { 0, id, nt, id | nt };
	struct rig *r = rig(state);

	for (unsigned i = 0; i < 48; i++) {
		uint64_t has = kept[i % 4], flips = kept[i / 4 % 3];

		load(r,
		     !flips        ? look
		     : flips == id ? flip_id
				   : flip_nt,
		     flips ? sizeof(flip_id) : sizeof(look));
		r->regs.eflags |= has;
		run(r);
		assert_int_equal(r->ev.sig, SIGTRAP);
		assert_true((r->regs.rax & (id | nt)) == (has ^ flips));
		assert_true((r->regs.eflags & (id | nt)) == (has ^ flips));
	}
}

/* ---- what is mapped ahead ---- */

#define AHEAD_VA     0x800000ull
#define AHEAD_PAGES  512u
#define AHEAD_FIRST  2u
#define AHEAD_OFFSET MIB(2)

/* 512 pages, the first two let in; each begins with its number. */
static struct rig *ahead(void **state)
{
	struct rig *r = rig(state);

	if (r->stub.uffd < 0) {
		print_message("this host has no userfaultfd that lets pages in\n");
		skip();
	}
	for (uint64_t i = 0; i < AHEAD_PAGES; i++)
		*(uint64_t *)(r->ram + AHEAD_OFFSET + i * 4096) = i;
	assert_int_equal(stub_map_ahead(&r->host, AHEAD_VA, (uint64_t)AHEAD_PAGES * 4096, AHEAD_FIRST * 4096,
					PROT_READ | PROT_WRITE, AHEAD_OFFSET),
			 0);
	assert_int_equal(stub_flush(&r->host, &r->stub), 0);
	return r;
}

/* Does code in the stub read the page's number in page i, or is it stopped there? */
static bool reads(struct rig *r, uint64_t i)
{
	load(r, "\x48\x8b\x07\xcc", 4); /* mov rax, [rdi]; int3 */
	r->regs.rdi = AHEAD_VA + i * 4096;
	r->regs.rax = CANARY;
	run(r);
	assert_int_equal(r->ev.stop, STUB_SIGNAL);
	if (r->ev.sig == SIGTRAP) {
		assert_true(r->regs.rax == i);
		return true;
	}
	assert_int_equal(r->ev.sig, SIGBUS);
	assert_int_equal(r->ev.code, BUS_ADRERR);
	assert_true(r->ev.addr == AHEAD_VA + i * 4096);
	assert_true(r->regs.rax == CANARY);
	return false;
}

static int let_in(struct rig *r, uint64_t i, uint64_t n)
{
	return stub_let_in(&r->stub, AHEAD_VA + i * 4096, n * 4096);
}

static void test_ahead_gives_nothing(void **state)
{
	struct rig *r = ahead(state);

	for (unsigned i = 0; i < AHEAD_PAGES; i++)
		assert_true(reads(r, i) == (i < AHEAD_FIRST));
	/* Nor by other accesses: a store, and code. */
	load(r, "\xc6\x07\x90", 3);
	r->regs.rdi = AHEAD_VA + 20 * 4096;
	run(r);
	assert_int_equal(r->ev.sig, SIGBUS);
	assert_true(*(uint64_t *)(r->ram + AHEAD_OFFSET + 20 * 4096) == 20);
	load(r, "", 0);
	r->regs.rip = AHEAD_VA;
	run(r);
	assert_int_equal(r->ev.sig, SIGSEGV);
}

static void test_ahead_lets_in_one(void **state)
{
	struct rig *r = ahead(state);

	assert_int_equal(let_in(r, 7, 1), 1);
	assert_true(!reads(r, 6) && reads(r, 7) && !reads(r, 8));
	/* Again, and around what is there. */
	assert_int_equal(let_in(r, 7, 1), 0);
	assert_int_equal(let_in(r, 5, 4), 3);
	assert_true(!reads(r, 4) && reads(r, 5) && reads(r, 8) && !reads(r, 9));
	/* The stub's stores reach RAM. */
	load(r, "\x48\xff\x07\xcc", 4); /* inc qword [rdi] */
	r->regs.rdi = AHEAD_VA + 7 * 4096;
	run(r);
	assert_int_equal(r->ev.sig, SIGTRAP);
	assert_true(*(uint64_t *)(r->ram + AHEAD_OFFSET + 7 * 4096) == 8);
	/* What was never mapped there cannot be let in, nor once it is unmapped. */
	assert_int_equal(stub_let_in(&r->stub, AHEAD_VA + AHEAD_PAGES * 4096ull, 4096), -1);
	stub_unmap(&r->host, AHEAD_VA + 4096, 4096);
	assert_int_equal(stub_flush(&r->host, &r->stub), 0);
	assert_int_equal(let_in(r, 1, 1), -1);
	load(r, "\x8a\x07", 2);
	r->regs.rdi = AHEAD_VA + 4096;
	run(r);
	assert_int_equal(r->ev.sig, SIGSEGV);
	assert_true(reads(r, 0) && !reads(r, 2));
}

/* What the host does with the memory behind it may close pages, never open one. */
static void test_ahead_survives_the_host(void **state)
{
	static const int advice[] = { MADV_COLLAPSE, MADV_PAGEOUT, MADV_HUGEPAGE, MADV_COLLAPSE };
	struct rig *r = ahead(state);

	for (unsigned k = 0; k < ARRAY_SIZE(advice); k++) {
		if (madvise(r->ram + AHEAD_OFFSET, MIB(2), advice[k]))
			print_message("advice %d: %s\n", advice[k], strerror(errno));
		for (unsigned i = AHEAD_FIRST; i < AHEAD_PAGES; i++)
			assert_false(reads(r, i));
		assert_true(let_in(r, 0, AHEAD_FIRST) >= 0);
		assert_true(reads(r, 0) && reads(r, 1) && !reads(r, 2));
	}
	/* Memory given back: there is none to let in until somebody has touched it. */
	assert_int_equal(madvise(r->ram + AHEAD_OFFSET, MIB(2), MADV_REMOVE), 0);
	for (unsigned i = 0; i < AHEAD_PAGES; i += 17)
		assert_false(reads(r, i));
	assert_int_equal(let_in(r, 0, 1), -1);
	r->ram[AHEAD_OFFSET] = 0;
	assert_int_equal(let_in(r, 0, 1), 1);
	assert_true(reads(r, 0) && !reads(r, 1));
}

/* The registration is the stub's own: it holds if the tracer has lost its descriptor. */
static void test_ahead_outlives_the_descriptor(void **state)
{
	struct rig *r = ahead(state);

	close(r->stub.uffd);
	r->stub.uffd = -1;
	for (unsigned i = 0; i < AHEAD_PAGES; i += 7)
		assert_true(reads(r, i) == (i < AHEAD_FIRST));
}

#define ATTACK(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ATTACK(test_only_guest_memory_is_mapped),
		ATTACK(test_only_ram_is_open),
		ATTACK(test_syscall),
		ATTACK(test_x32_syscall),
		ATTACK(test_int80),
		ATTACK(test_syscall_of_the_gate),
		ATTACK(test_gate_with_forged_commands),
		ATTACK(test_sigreturn),
		ATTACK(test_gate_is_read_only),
		ATTACK(test_privileged),
		ATTACK(test_sysenter),
		ATTACK(test_compat),
		ATTACK(test_vsyscall),
		ATTACK(test_trap_flag),
		ATTACK(test_addresses),
		ATTACK(test_filter_alone),
		ATTACK(test_kick),
		ATTACK(test_refused),
		ATTACK(test_dies_with_its_tracer),
		ATTACK(test_nothing_is_left),
		ATTACK(test_cpuid_faults_when_asked),
		ATTACK(test_kept_flags),
		ATTACK(test_ahead_gives_nothing),
		ATTACK(test_ahead_lets_in_one),
		ATTACK(test_ahead_survives_the_host),
		ATTACK(test_ahead_outlives_the_descriptor),
	};

	return cmocka_run_group_tests_name("stub", tests, NULL, NULL);
}
