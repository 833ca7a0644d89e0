/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stub processes: where guest user code runs on the processor itself.
 *
 * A stub is a process whose address space holds nothing but pages of guest RAM,
 * placed where the guest's page tables place them, and the gate: one page of
 * code and a few of commands, both read-only to the stub.  The vCPU's thread is
 * its tracer.  The whole security argument follows from how it is resumed:
 *
 *  - With guest code, always by PTRACE_SYSEMU: whatever way of entering the
 *    host's kernel the code finds (SYSCALL, INT 80h, SYSENTER, from 64-bit or
 *    compatibility code, at the gate's own SYSCALL or elsewhere), the kernel stops
 *    the stub and hands it to the tracer instead of doing anything.  Faults are
 *    signals, which a tracer sees before anyone; none is ever delivered, so there
 *    are no handlers, signal frames or signal masks to forge.
 *  - By PTRACE_CONT only at the gate, with every register set by the tracer: the
 *    gate reads its commands from a page that the stub cannot write, does those
 *    calls, and traps.
 *  - A seccomp filter stands behind both: from the gate's one instruction mmap,
 *    munmap and mprotect, from everywhere else nothing (vsyscalls, which no other
 *    mechanism stops, are caught by it alone).
 *
 * So a stub has no trusted code or data in it, and what runs there can read and
 * write guest pages mapped for it and read the gate, which holds no secret.  A
 * stub that its tracer stops is stopped: nothing depends on its cooperation, and
 * a kick is a signal that it has no way to block.  If the tracer dies the kernel
 * kills the stub.
 *
 * Mappings are made by the gate, a stop and a resumption each.  Where the host has
 * userfaultfd(2) with minor faults, memory can be mapped ahead: all of a piece is
 * registered, so that touching it is a fault (SIGBUS) until the tracer lets a page
 * in, which it does from outside.  The kernel never lets one in by itself: neither
 * around a fault nor as part of a huge page, and what it takes away (swapping,
 * collapsing) comes back as a fault.  The registration holds while anybody has the
 * descriptor, and the stub has it, too, where it can do nothing with it.
 *
 * Stubs are forked off a zygote, one per vCPU, which is what is left of a fork of
 * the VM's process once everything but the gate is unmapped.
 *
 * A context switch to another processor costs ten times one on the same, so
 * thread and stubs are kept on one while they work together (stub_pin).
 */
#ifndef SILL_ENGINE_BT_STUB_H
#define SILL_ENGINE_BT_STUB_H

#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct user_regs_struct; /* <sys/user.h> */

/* Where the gate lies: between what systems use for programs and for libraries and stacks. */
#define STUB_GATE      0x6fffffff0000ull
#define STUB_GATE_SIZE 0x10000ull
#define STUB_VA_END    0x7ffffffff000ull
#define STUB_RAM_FD    3
#define STUB_UFFD      0 /* a stub's lowest free descriptor when it is new */

/* One system call for the gate; the layout is known to stub_asm.S. */
struct stub_call {
	uint64_t nr, arg[6];
};
#define STUB_MAX_CALLS 1024

/* What a vCPU needs for all its stubs. Used by the vCPU's own thread only, the tracer. */
struct stub_host {
	pid_t zygote;
	int ram_fd;
	uint8_t *gate; /* the gate's memory, writable here */
	struct stub_call *calls;
	unsigned n_calls; /* queued for the next stub_flush */
	struct stub_ahead {
		uint64_t va, len, first;
	} ahead;        /* likewise, to be registered; len 0: none */
	bool no_ahead;  /* the host has refused */
	uint64_t xsize; /* of an XSAVE image as ptrace takes it */
	cpu_set_t all;  /* processors that the thread may use */
	int cpu;        /* that it is bound to; -1: none */
	int64_t bound_at;
	_Atomic uint16_t *bound; /* threads of the VM that are bound to each processor (CPU_SETSIZE); NULL:
				    not counted */
};

struct stub {
	pid_t pid;
	int uffd;        /* -1: nothing can be mapped ahead in it */
	int cpu;         /* that it is bound to; -1: none */
	uint64_t cpu_ns; /* stub_cpu_ns when it last stopped, also for what it did for us */
	bool cpuid_faults;
	uint64_t flags; /* those of EFLAGS that ptrace does not change: ID and NT */
};

enum stub_stop {
	STUB_SYSCALL, /* at a system call; RIP is after the instruction */
	STUB_SIGNAL,  /* sig, and siginfo for faults */
	STUB_KICKED,
	STUB_DEAD,    /* someone killed it: its registers are lost */
	STUB_REFUSED, /* the host did not run it, for instance because it takes no such registers; they are
			 kept */
};

struct stub_event {
	enum stub_stop stop;
	int sig, code; /* signal number, si_code */
	uint64_t addr; /* si_addr */
	int syscall;   /* SIGSYS: the call's number */
};

/*
 * Creates the zygote. 0, or -1 with err: no direct execution on this host (no
 * ptrace, no seccomp).  xsize is found out here.
 */
int stub_host_init(struct stub_host *h, int ram_fd, struct error *err);
void stub_host_free(struct stub_host *h);

/* 0 or -1. The new stub has no guest memory. */
int stub_new(struct stub_host *h, struct stub *s);
void stub_kill(struct stub *s);

/* Queue calls for the gate; a full queue returns -1 (flush first). Ranges are page aligned. */
int stub_map(struct stub_host *h, uint64_t va, uint64_t len, int prot, uint64_t offset);
int stub_unmap(struct stub_host *h, uint64_t va, uint64_t len);
/*
 * Likewise, but code in the stub can use only the first `first` bytes of it; the rest stops it with SIGBUS
 * (BUS_ADRERR) until it is let in, and so may the first if the host took it away.  One between two flushes,
 * of a stub with a uffd; nothing else is to be queued for its range.
 */
int stub_map_ahead(struct stub_host *h, uint64_t va, uint64_t len, uint64_t first, int prot, uint64_t offset);
/* Lets in what was mapped ahead (and flushed). How many pages were not there; -1: the host refuses, and it
 * has to be mapped again. */
int stub_let_in(const struct stub *s, uint64_t va, uint64_t len);
/* Executes what is queued. 0; -1: one failed (too many mappings, no memory) or the stub is dead. */
int stub_flush(struct stub_host *h, struct stub *s);
/* Forgets it instead. */
void stub_drop_calls(struct stub_host *h);

/*
 * Runs guest code until it stops.  regs is read and written; *kick is the pid
 * that a kick must signal while the code runs (0: none), *kicked a flag that is
 * looked at once *kick is set.
 */
void stub_run(struct stub *s, struct user_regs_struct *regs, volatile pid_t *kick,
	      const volatile uint32_t *kicked, struct stub_event *ev);
/* Makes a stub that runs stop with STUB_KICKED. Async-signal-safe. */
void stub_kick(pid_t pid);
/* The standard-format XSAVE image of the stub, h->xsize bytes. */
int stub_xstate_get(const struct stub_host *h, const struct stub *s, void *image);
int stub_xstate_set(const struct stub_host *h, const struct stub *s, const void *image);

/* Makes the stub stop (STUB_SIGNAL, SIGTRAP, TRAP_HWBKPT) before it executes the instruction at va; 0: slot
 * unused. 0 or -1: the host has none to give. */
#define STUB_BREAKPOINTS 4
int stub_break(const struct stub *s, const uint64_t va[STUB_BREAKPOINTS]);

/* Makes CPUID in the stub a fault (SIGSEGV without an address), or what it is by itself. 0 or -1: the host's
 * processor cannot, or the stub is dead. */
int stub_cpuid(struct stub_host *h, struct stub *s, bool faults);

/* Processor time that the stub has used, in ns. Unlike elapsed time it does not count others' turns. */
uint64_t stub_cpu_ns(const struct stub *s);
/* The least time that a stub's stop and resumption take in all, in TSC ticks, and the least of it that counts
 * as the stub's own, in ns: at a system call, at a fault. */
void stub_round_trip(struct stub_host *h, uint64_t *ticks, uint64_t *call_ns, uint64_t *fault_ns);

/* Binds thread and stub to the processor where the thread is, or to one where fewer of the VM's threads are,
 * and now and then lets the scheduler choose another. now: TSC ticks; period: how long a choice holds. */
void stub_pin(struct stub_host *h, struct stub *s, int64_t now, int64_t period);
void stub_unpin(struct stub_host *h);

#endif
