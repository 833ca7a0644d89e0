/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/bt/stub.h"

#include <asm/prctl.h>
#include <asm/processor-flags.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/rseq.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x10u
#endif
#ifndef PTRACE_SYSEMU
#define PTRACE_SYSEMU 31
#endif

extern const char stub_gate_code[], stub_gate_after[], stub_gate_flags[], stub_gate_words[], stub_gate_end[];

#define CALLS_OFFSET  4096
#define FILTER_OFFSET (STUB_GATE_SIZE - 4096)
#define KICK_SIGNAL   SIGURG
/* What ptrace does not change in EFLAGS. */
#define KEPT_FLAGS (X86_EFLAGS_NT | X86_EFLAGS_ID)

_Static_assert(CALLS_OFFSET + sizeof(struct stub_call) * STUB_MAX_CALLS <= FILTER_OFFSET,
	       "the calls fit into the gate");

/* ---- the gate ---- */

/* Waits for the next stop of pid; the status, or -1 if it is gone. */
static int wait_stop(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, __WALL) < 0)
		if (errno != EINTR)
			return -1;
	return WIFSTOPPED(status) ? status : -1;
}

/* Where in stubs something of the gate's code lies. */
static uint64_t in_gate(const char *what)
{
	return STUB_GATE + (uint64_t)(what - stub_gate_code);
}

/*
 * Has pid, which is stopped, go on at the gate with these registers until it traps, and reads them.  0 or
 * -ESRCH. forked: where to put the pid of a process that is created.
 */
static int gate_go(pid_t pid, struct user_regs_struct *regs, pid_t *forked)
{
	__asm__("mov %%cs, %0; mov %%ss, %1" : "=r"(regs->cs), "=r"(regs->ss));
	regs->eflags = 0x202;
	regs->orig_rax = ~0ull;
	if (ptrace(PTRACE_SETREGS, pid, NULL, regs))
		return -ESRCH;
	for (;;) {
		unsigned long child;
		int status;

		if (ptrace(PTRACE_CONT, pid, NULL, 0))
			return -ESRCH;
		status = wait_stop(pid);
		if (status < 0)
			return -ESRCH;
		if (status >> 8 == (SIGTRAP | PTRACE_EVENT_FORK << 8)) {
			if (ptrace(PTRACE_GETEVENTMSG, pid, NULL, &child))
				return -ESRCH;
			if (forked)
				*forked = (pid_t)child;
			continue;
		}
		/* Other signals (from a terminal, a late kick) are not the gate's. */
		if (WSTOPSIG(status) != SIGTRAP)
			continue;
		return ptrace(PTRACE_GETREGS, pid, NULL, regs) ? -ESRCH : 0;
	}
}

/* Executes the first n calls. 0 or the (negative) errno of the one that failed. forked: as above. */
static int gate_run(pid_t pid, unsigned n, pid_t *forked)
{
	struct user_regs_struct regs = { .rip = STUB_GATE, .r12 = STUB_GATE + CALLS_OFFSET, .r13 = n };

	return gate_go(pid, &regs, forked) ? -ESRCH : (int)(int64_t)regs.r14;
}

/* Makes KEPT_FLAGS, which a stub has as its program, or one that ran before, has left them, these. */
static int set_flags(struct stub *s, uint64_t flags)
{
	unsigned word = (flags & X86_EFLAGS_NT ? 1 : 0) + (flags & X86_EFLAGS_ID ? 2 : 0);
	struct user_regs_struct regs = {
		.rip = in_gate(stub_gate_flags),
		.rsp = in_gate(stub_gate_words) + word * sizeof(uint64_t),
	};

	if (gate_go(s->pid, &regs, NULL))
		return -1;
	s->flags = regs.eflags & KEPT_FLAGS;
	return s->flags == flags ? 0 : -1;
}

static void call_set(struct stub_call *c, uint64_t nr, uint64_t a, uint64_t b, uint64_t d, uint64_t e,
		     uint64_t f, uint64_t g)
{
	*c = (struct stub_call){ nr, { a, b, d, e, f, g } };
}

static int queue(struct stub_host *h, uint64_t nr, uint64_t a, uint64_t b, uint64_t d, uint64_t e, uint64_t f,
		 uint64_t g)
{
	if (h->n_calls >= STUB_MAX_CALLS)
		return -1;
	call_set(&h->calls[h->n_calls++], nr, a, b, d, e, f, g);
	return 0;
}

int stub_map(struct stub_host *h, uint64_t va, uint64_t len, int prot, uint64_t offset)
{
	return queue(h, SYS_mmap, va, len, (uint64_t)prot, MAP_SHARED | MAP_FIXED | MAP_POPULATE, STUB_RAM_FD,
		     offset);
}

int stub_unmap(struct stub_host *h, uint64_t va, uint64_t len)
{
	return queue(h, SYS_munmap, va, len, 0, 0, 0, 0);
}

int stub_map_ahead(struct stub_host *h, uint64_t va, uint64_t len, uint64_t first, int prot, uint64_t offset)
{
	if (queue(h, SYS_mmap, va, len, (uint64_t)prot, MAP_SHARED | MAP_FIXED, STUB_RAM_FD, offset))
		return -1;
	h->ahead = (struct stub_ahead){ va, len, first };
	return 0;
}

int stub_let_in(const struct stub *s, uint64_t va, uint64_t len)
{
	struct uffdio_continue c = { .range = { va, len } };
	int pages = 0;

	while (c.range.len) {
		int64_t done;

		c.mapped = 0;
		ioctl(s->uffd, UFFDIO_CONTINUE, &c);
		/* What it has done, perhaps before it failed, or the (negative) errno. */
		done = c.mapped;
		if (done > 0)
			pages += (int)((uint64_t)done / PAGE_SIZE);
		else if (done == -EEXIST)
			done = PAGE_SIZE;
		else
			return -1;
		c.range.start += (uint64_t)done;
		c.range.len -= (uint64_t)done;
	}
	return pages;
}

/* What has been mapped ahead is for all to use until it is registered. */
static int register_ahead(struct stub_host *h, const struct stub *s, const struct stub_ahead *a)
{
	struct uffdio_register r = {
		.range = { a->va, a->len },
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR,
	};

	if (ioctl(s->uffd, UFFDIO_REGISTER, &r) || !(r.ioctls & 1ull << _UFFDIO_CONTINUE)) {
		h->no_ahead = true;
		return -1;
	}
	/* If it cannot be let in it is let in when it is missed, or mapped anew. */
	stub_let_in(s, a->va, a->first);
	return 0;
}

int stub_flush(struct stub_host *h, struct stub *s)
{
	struct stub_ahead ahead = h->ahead;
	unsigned n = h->n_calls;

	stub_drop_calls(h);
	if (!n)
		return 0;
	if (gate_run(s->pid, n, NULL) || (ahead.len && register_ahead(h, s, &ahead)))
		return -1;
	s->cpu_ns = stub_cpu_ns(s);
	return 0;
}

void stub_drop_calls(struct stub_host *h)
{
	h->n_calls = 0;
	h->ahead.len = 0;
}

/* ---- creation ---- */

/* In the forked child. Gives up what it inherited, then has itself traced and goes to the gate, where the
 * calls that the parent has queued unmap the rest. Never returns. */
static void zygote_main(int ram_fd, int gate_fd, unsigned n_calls)
{
	struct rlimit none = { 0, 0 };
	struct sigaction dfl = { .sa_handler = SIG_DFL }, ignore = { .sa_handler = SIG_IGN };
	stack_t ss = { .ss_flags = SS_DISABLE };
	sigset_t set;

	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	setpgid(0, 0);
	setrlimit(RLIMIT_CORE, &none);
	for (int i = 1; i < 65; i++)
		sigaction(i, &dfl, NULL);
	/* Stubs are the zygote's children, and it waits for none: they shall leave no zombies. */
	sigaction(SIGCHLD, &ignore, NULL);
	sigaltstack(&ss, NULL);
	sigemptyset(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
	/* Kernel features that write to memory behind the program's back. */
	if (__rseq_size)
		syscall(SYS_rseq, (char *)__builtin_thread_pointer() + __rseq_offset, 32,
			RSEQ_FLAG_UNREGISTER, RSEQ_SIG);
	syscall(SYS_set_robust_list, NULL, 24);
	syscall(SYS_set_tid_address, NULL);
	if (mmap((void *)STUB_GATE, CALLS_OFFSET, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, gate_fd,
		 0) == MAP_FAILED ||
	    mmap((void *)(STUB_GATE + CALLS_OFFSET), STUB_GATE_SIZE - CALLS_OFFSET, PROT_READ,
		 MAP_SHARED | MAP_FIXED, gate_fd, CALLS_OFFSET) == MAP_FAILED)
		_exit(1);
	/* Descriptors: RAM at its place, nothing else. */
	if (dup2(ram_fd, STUB_RAM_FD) < 0 || syscall(SYS_close_range, 0, STUB_RAM_FD - 1, 0) ||
	    syscall(SYS_close_range, STUB_RAM_FD + 1, ~0u, 0))
		_exit(1);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		_exit(1);
	__asm__ volatile("mov %0, %%r12\n\tmov %1, %%r13\n\tjmp *%2"
			 :
			 : "r"(STUB_GATE + CALLS_OFFSET), "r"((uint64_t)n_calls), "r"(STUB_GATE)
			 : "r12", "r13", "memory");
	__builtin_unreachable();
}

/* The filter that every stub gets: three calls, and one use of a fourth, from one instruction. */
static void write_filter(uint8_t *gate)
{
	uint64_t ip = in_gate(stub_gate_after);
	struct sock_filter *f = (struct sock_filter *)(gate + FILTER_OFFSET + sizeof(struct sock_fprog));
	const struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 11),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)ip, 0, 9),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(ip >> 32), 0, 7),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 6, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_munmap, 5, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 4, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_arch_prctl, 0, 2),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH_SET_CPUID, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {
		.len = ARRAY_SIZE(code),
		.filter = (struct sock_filter *)(STUB_GATE + FILTER_OFFSET + sizeof(struct sock_fprog)),
	};

	memcpy(f, code, sizeof(code));
	memcpy(gate + FILTER_OFFSET, &prog, sizeof(prog));
}

static int gate_memory(struct stub_host *h)
{
	int fd = memfd_create("sill-gate", MFD_CLOEXEC | MFD_EXEC);

	if (fd < 0)
		fd = memfd_create("sill-gate", MFD_CLOEXEC);
	if (fd < 0)
		return -1;
	h->gate = MAP_FAILED;
	if (!ftruncate(fd, STUB_GATE_SIZE))
		h->gate = mmap(NULL, STUB_GATE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (h->gate == MAP_FAILED) {
		h->gate = NULL;
		close(fd);
		return -1;
	}
	memcpy(h->gate, stub_gate_code, (size_t)(stub_gate_end - stub_gate_code));
	h->calls = (struct stub_call *)(h->gate + CALLS_OFFSET);
	write_filter(h->gate);
	return fd;
}

int stub_host_init(struct stub_host *h, int ram_fd, struct error *err)
{
	uint8_t image[16384];
	struct iovec iov = { image, sizeof(image) };
	sigset_t all, old;
	int fd, status;

	memset(h, 0, sizeof(*h));
	h->cpu = -1;
	fd = gate_memory(h);
	if (fd < 0)
		return error_set(err, errno, "no memory for direct execution: %s", strerror(errno));
	if (sched_getaffinity(0, sizeof(h->all), &h->all))
		CPU_ZERO(&h->all);
	queue(h, SYS_munmap, 0, STUB_GATE, 0, 0, 0, 0);
	queue(h, SYS_munmap, STUB_GATE + STUB_GATE_SIZE, STUB_VA_END - STUB_GATE - STUB_GATE_SIZE, 0, 0, 0,
	      0);
	/* No handler of ours may run in the child before it has dropped them. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	h->zygote = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
	if (!h->zygote)
		zygote_main(ram_fd, fd, h->n_calls);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	h->n_calls = 0;
	close(fd);
	if (h->zygote < 0) {
		h->zygote = 0;
		stub_host_free(h);
		return error_set(err, errno, "cannot fork for direct execution: %s", strerror(errno));
	}
	status = wait_stop(h->zygote);
	if (status < 0 || WSTOPSIG(status) != SIGTRAP ||
	    ptrace(PTRACE_SETOPTIONS, h->zygote, NULL,
		   PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL | PTRACE_O_TRACEFORK) ||
	    ptrace(PTRACE_GETREGSET, h->zygote, NT_X86_XSTATE, &iov)) {
		stub_host_free(h);
		return error_set(err, EPERM, "direct execution needs ptrace, which this host refuses");
	}
	h->xsize = iov.iov_len;
	return 0;
}

static void end(pid_t pid)
{
	siginfo_t si;
	int status;

	/* One that has died by itself and been waited for: its number may be another's by now. */
	if (waitid(P_PID, (id_t)pid, &si, WEXITED | WNOHANG | WNOWAIT | __WALL))
		return;
	kill(pid, SIGKILL);
	while (waitpid(pid, &status, __WALL) < 0 && errno == EINTR)
		;
}

void stub_host_free(struct stub_host *h)
{
	if (h->zygote)
		end(h->zygote);
	if (h->gate)
		munmap(h->gate, STUB_GATE_SIZE);
	memset(h, 0, sizeof(*h));
	h->cpu = -1;
}

/*
 * 0 or a negative errno.  A filter used to slow down what runs under it, against speculation that leaks a
 * process's own secrets (Linux before 5.16: speculative store bypass, and a barrier at each switch); a stub
 * has none.
 */
static int set_filter(struct stub_host *h, pid_t pid)
{
	static const uint64_t flags[] = { SECCOMP_FILTER_FLAG_SPEC_ALLOW, 0 };
	int err = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(flags); i++) {
		call_set(&h->calls[0], SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags[i],
			 STUB_GATE + FILTER_OFFSET, 0, 0, 0);
		err = gate_run(pid, 1, NULL);
		if (err != -EINVAL)
			break;
	}
	return err;
}

/*
 * Has the new stub make a userfaultfd, which is of its memory, and takes a copy; or -1.  Faults of the
 * kernel's own are not wanted (UFFD_USER_MODE_ONLY), so that anyone may have it.
 */
static int open_uffd(struct stub_host *h, pid_t pid)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_SIGBUS | UFFD_FEATURE_MINOR_SHMEM,
	};
	int process, fd, err;

	call_set(&h->calls[0], SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY, 0, 0, 0, 0, 0);
	err = gate_run(pid, 1, NULL);
	if (err) {
		h->no_ahead = err == -ENOSYS || err == -EPERM || err == -EINVAL;
		return -1;
	}
	process = (int)syscall(SYS_pidfd_open, pid, 0);
	if (process < 0)
		return -1;
	fd = (int)syscall(SYS_pidfd_getfd, process, STUB_UFFD, 0);
	close(process);
	if (fd >= 0 && ioctl(fd, UFFDIO_API, &api)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

int stub_new(struct stub_host *h, struct stub *s)
{
	pid_t pid = 0;

	memset(s, 0, sizeof(*s));
	s->cpu = s->uffd = -1;
	call_set(&h->calls[0], SYS_clone, SIGCHLD, 0, 0, 0, 0, 0);
	if (gate_run(h->zygote, 1, &pid) < 0 || pid <= 0)
		return -1;
	if (wait_stop(pid) < 0)
		return -1;
	s->pid = pid;
	if (!h->no_ahead)
		s->uffd = open_uffd(h, pid);
	if (set_filter(h, pid)) {
		stub_kill(s);
		return -1;
	}
	s->cpu_ns = stub_cpu_ns(s);
	return 0;
}

void stub_kill(struct stub *s)
{
	if (!s->pid)
		return;
	end(s->pid);
	s->pid = 0;
	if (s->uffd >= 0)
		close(s->uffd);
	s->uffd = -1;
}

/* ---- running ---- */

void stub_kick(pid_t pid)
{
	syscall(SYS_tgkill, pid, pid, KICK_SIGNAL);
}

void stub_run(struct stub *s, struct user_regs_struct *regs, volatile pid_t *kick,
	      const volatile uint32_t *kicked, struct stub_event *ev)
{
	siginfo_t si;
	int status;

	memset(ev, 0, sizeof(*ev));
	ev->stop = STUB_REFUSED;
	regs->orig_rax = ~0ull;
	if ((regs->eflags & KEPT_FLAGS) != s->flags && set_flags(s, regs->eflags & KEPT_FLAGS))
		return;
	if (ptrace(PTRACE_SETREGS, s->pid, NULL, regs))
		return;
	/* From here the kick's handler signals the stub; a kick before this is seen in the flag. */
	*kick = s->pid;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	if (*kicked) {
		*kick = 0;
		ev->stop = STUB_KICKED;
		return;
	}
	if (ptrace(PTRACE_SYSEMU, s->pid, NULL, 0)) {
		*kick = 0;
		return;
	}
	ev->stop = STUB_DEAD;
	status = wait_stop(s->pid);
	*kick = 0;
	if (status < 0 || ptrace(PTRACE_GETREGS, s->pid, NULL, regs))
		return;
	s->flags = regs->eflags & KEPT_FLAGS;
	ev->sig = WSTOPSIG(status);
	if (ev->sig == (SIGTRAP | 0x80)) {
		ev->stop = STUB_SYSCALL;
		return;
	}
	if (ptrace(PTRACE_GETSIGINFO, s->pid, NULL, &si))
		return;
	/* Faults come from the kernel; what a process sent (a kick, a terminal) is a reason to look around.
	 */
	ev->stop = si.si_code > 0 && (ev->sig == SIGSEGV || ev->sig == SIGBUS || ev->sig == SIGFPE ||
				      ev->sig == SIGILL || ev->sig == SIGTRAP || ev->sig == SIGSYS)
		       ? STUB_SIGNAL
		       : STUB_KICKED;
	ev->code = si.si_code;
	if (ev->sig == SIGSYS)
		ev->syscall = si.si_syscall;
	else
		ev->addr = (uint64_t)si.si_addr;
}

int stub_xstate_get(const struct stub_host *h, const struct stub *s, void *image)
{
	struct iovec iov = { image, h->xsize };

	return ptrace(PTRACE_GETREGSET, s->pid, NT_X86_XSTATE, &iov) ? -1 : 0;
}

int stub_xstate_set(const struct stub_host *h, const struct stub *s, const void *image)
{
	struct iovec iov = { (void *)image, h->xsize };

	return ptrace(PTRACE_SETREGSET, s->pid, NT_X86_XSTATE, &iov) ? -1 : 0;
}

int stub_break(const struct stub *s, const uint64_t va[STUB_BREAKPOINTS])
{
	const size_t dr = offsetof(struct user, u_debugreg), dr7 = dr + 7 * sizeof(unsigned long);
	unsigned long enable = 0;

	if (ptrace(PTRACE_POKEUSER, s->pid, dr7, 0))
		return -1;
	for (unsigned i = 0; i < STUB_BREAKPOINTS; i++) {
		if (ptrace(PTRACE_POKEUSER, s->pid, dr + i * sizeof(unsigned long), va[i]))
			return -1;
		if (va[i])
			enable |= 1ul << (2 * i); /* local, execution, length 1: type and length bits are 0 */
	}
	return ptrace(PTRACE_POKEUSER, s->pid, dr7, enable) ? -1 : 0;
}

int stub_cpuid(struct stub_host *h, struct stub *s, bool faults)
{
	if (queue(h, SYS_arch_prctl, ARCH_SET_CPUID, !faults, 0, 0, 0, 0) || stub_flush(h, s))
		return -1;
	s->cpuid_faults = faults;
	return 0;
}

uint64_t stub_cpu_ns(const struct stub *s)
{
	/* The clock of another process: its inverted pid, and the scheduler's precise kind (2). */
	clockid_t clock = (clockid_t)(~(unsigned)s->pid << 3 | 2);
	struct timespec t;

	if (clock_gettime(clock, &t))
		return s->cpu_ns;
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

void stub_round_trip(struct stub_host *h, uint64_t *ticks, uint64_t *call_ns, uint64_t *fault_ns)
{
	struct stub s = { .pid = h->zygote, .uffd = -1, .cpu = -1 };
	struct user_regs_struct start;
	uint32_t no = 0;

	*ticks = *call_ns = *fault_ns = UINT64_MAX;
	stub_pin(h, &s, 0, INT64_MAX);
	for (int i = 0; i < 32; i++) {
		uint64_t used = stub_cpu_ns(&s), begin = __builtin_ia32_rdtsc();

		gate_run(h->zygote, 0, NULL);
		*ticks = min_u64(*ticks, __builtin_ia32_rdtsc() - begin);
		*call_ns = min_u64(*call_ns, stub_cpu_ns(&s) - used);
	}
	if (ptrace(PTRACE_GETREGS, h->zygote, NULL, &start))
		return;
	start.rip = 0; /* where nothing is */
	for (int i = 0; i < 32; i++) {
		struct user_regs_struct regs = start;
		uint64_t used = stub_cpu_ns(&s);
		volatile pid_t running = 0;
		struct stub_event ev;

		stub_run(&s, &regs, &running, &no, &ev);
		*fault_ns = min_u64(*fault_ns, stub_cpu_ns(&s) - used);
	}
}

/* ---- processors ---- */

/* Where the thread is, unless another of the VM's is bound there and one might be to fewer. */
static int choose(const struct stub_host *h)
{
	int best = sched_getcpu();

	if (!h->bound || !atomic_load_explicit(&h->bound[best], memory_order_relaxed))
		return best;
	for (int c = 0; c < CPU_SETSIZE; c++)
		if (CPU_ISSET(c, &h->all) && atomic_load_explicit(&h->bound[c], memory_order_relaxed) <
						 atomic_load_explicit(&h->bound[best], memory_order_relaxed))
			best = c;
	return best;
}

void stub_pin(struct stub_host *h, struct stub *s, int64_t now, int64_t period)
{
	cpu_set_t one;

	if (CPU_COUNT(&h->all) < 2)
		return;
	if (h->cpu >= 0 && now - h->bound_at > period) {
		/* A sleeper is placed anew when it wakes: on an idle processor if there is one. */
		const struct timespec moment = { 0, 1 };

		stub_unpin(h);
		nanosleep(&moment, NULL);
	}
	if (h->cpu < 0) {
		h->bound_at = now;
		h->cpu = choose(h);
		if (h->bound)
			atomic_fetch_add(&h->bound[h->cpu], 1);
		CPU_ZERO(&one);
		CPU_SET(h->cpu, &one);
		if (sched_setaffinity(0, sizeof(one), &one))
			return;
	}
	if (s->cpu != h->cpu) {
		CPU_ZERO(&one);
		CPU_SET(h->cpu, &one);
		if (!sched_setaffinity(s->pid, sizeof(one), &one))
			s->cpu = h->cpu;
	}
}

void stub_unpin(struct stub_host *h)
{
	if (h->cpu < 0)
		return;
	sched_setaffinity(0, sizeof(h->all), &h->all);
	if (h->bound)
		atomic_fetch_sub(&h->bound[h->cpu], 1);
	h->cpu = -1;
}
