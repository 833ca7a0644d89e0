/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CPUID in stubs.
 *
 * CPUID does not trap at CPL 3, so pages that contain it are not executable in a stub
 * unless breakpoints can guard each (t2_map.c).  That is not always possible: every
 * program that links OpenSSL has a page with nine of them beside the functions that
 * wipe keys, and calls those all the time.  Intel's processors can make CPUID fault
 * (SDM 3A, "CPUID faulting"; Linux: ARCH_SET_CPUID), for each thread as it wishes; then
 * such a page may be executed as it is.
 *
 * But at each switch between threads that wish otherwise the host writes an MSR, which
 * takes a hundred cycles on a real processor and 9 us on a virtual one.  So:
 *
 *  1. Only a stub that runs into such pages often gets it (needs_cpuid).
 *  2. While it does, so does the vCPU's thread, and so does any other stub of the vCPU
 *     that runs meanwhile: between them no MSR is written.
 *  3. When no such stub has run for a while, all go back.
 *
 * A library that executes CPUID in the vCPU's thread meanwhile gets the processor's
 * answer by the signal handler (t2_cpuid_signal).
 */
#include <asm/prctl.h>
#include <cpuid.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"
#include "engine/bt/t2_internal.h"

#define OFTEN    500 /* stops in unfit pages ... */
#define WITHIN   250 /* ... in so many milliseconds are often */
#define KEEP     200 /* milliseconds that all keep it for one that needs it */
#define TRAP_GP  13
#define INSN_LEN 2

static uint64_t ms(const struct vcpu *v, unsigned n)
{
	return (uint64_t)v->model->tsc_khz * n;
}

/* Of the calling thread. False: this host cannot. */
static bool set_thread(bool faults)
{
	return syscall(SYS_arch_prctl, ARCH_SET_CPUID, !faults) == 0;
}

void t2_cpuid_init(struct vcpu *v)
{
	struct t2 *t = v->t2;

	t->cpuid_can = set_thread(true) && set_thread(false);
}

bool t2_cpuid_helps(struct vcpu *v, struct t2_map *m)
{
	uint64_t now = __builtin_ia32_rdtsc();

	if (!v->t2->cpuid_can || m->needs_cpuid)
		return false;
	if (now - m->unfit_since > ms(v, WITHIN)) {
		m->unfit_since = now;
		m->unfit_stops = 0;
	}
	if (++m->unfit_stops < OFTEN)
		return false;
	m->needs_cpuid = true;
	return true;
}

static void thread_wants(struct t2 *t, bool faults)
{
	if (faults != t->cpuid_faults && set_thread(faults))
		t->cpuid_faults = faults;
}

bool t2_cpuid_before_run(struct vcpu *v, struct t2_map *m)
{
	struct t2 *t = v->t2;
	bool want = m->needs_cpuid;
	uint64_t now;

	if (!want && !t->cpuid_faults && !m->stub.cpuid_faults)
		return true;
	now = __builtin_ia32_rdtsc();
	if (want)
		t->cpuid_needed = now;
	else
		want = t->cpuid_faults && now - t->cpuid_needed < ms(v, KEEP);
	thread_wants(t, want);
	return want == m->stub.cpuid_faults || !stub_cpuid(&t->host, &m->stub, want);
}

void t2_cpuid_idle(struct vcpu *v)
{
	if (v->t2->cpuid_faults && __builtin_ia32_rdtsc() - v->t2->cpuid_needed > ms(v, KEEP))
		thread_wants(v->t2, false);
}

bool t2_cpuid_signal(struct vcpu *v, ucontext_t *uc)
{
	greg_t *r = uc->uc_mcontext.gregs;
	unsigned a = (unsigned)r[REG_RAX], b, c = (unsigned)r[REG_RCX], d;

	/* A #GP was the instruction's, so it can be read. */
	if (!v->t2 || !v->t2->cpuid_faults || r[REG_TRAPNO] != TRAP_GP ||
	    memcmp((const void *)r[REG_RIP], "\x0f\xa2", INSN_LEN) || !set_thread(false))
		return false;
	__cpuid_count(a, c, a, b, c, d);
	set_thread(true);
	r[REG_RAX] = a;
	r[REG_RBX] = b;
	r[REG_RCX] = c;
	r[REG_RDX] = d;
	r[REG_RIP] += INSN_LEN;
	return true;
}
