/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The paravirtual interface that KVM guests know (Linux:
 * Documentation/virt/kvm/x86/cpuid.rst and msr.rst): a clock that a guest reads
 * from its own memory, and the time that the host took from a vCPU.
 */
#ifndef SILL_DEV_KVMCLOCK_H
#define SILL_DEV_KVMCLOCK_H

#include "dev/device.h"
#include "x86/cpuid.h"

struct kvmclock;

#define KVMCLOCK_MAX_VCPUS 64

/* Makes it for vCPUs 0..nr_vcpus-1, whose TSC runs at tsc_khz; registered with the board. 0 or -errno. */
int kvmclock_new(struct board *b, unsigned nr_vcpus, uint32_t tsc_khz, struct kvmclock **ret,
		 struct error *err);

/* CPUID leaves 40000000H and 40000001H. */
void kvmclock_cpuid(struct cpuid_regs leaf[2]);

/*
 * MSRs. tsc_offset: what the vCPU's TSC is ahead of the host's. 0, -ENOENT (not
 * one of these MSRs), or -EINVAL (the guest gets #GP). Takes the I/O lock.
 */
int kvmclock_msr_read(struct kvmclock *k, unsigned vcpu, uint32_t index, uint64_t *value);
int kvmclock_msr_write(struct kvmclock *k, unsigned vcpu, uint64_t tsc_offset, uint32_t index,
		       uint64_t value);

/* [io] The virtual clock was stopped, started or set: the guest's pages follow at the next refresh. */
void kvmclock_clock_changed(struct kvmclock *k);
/*
 * In the vCPU's thread, now and then: writes its page again if the clock
 * changed, and its steal time (run_delay_ns: what the host's scheduler made
 * this thread wait in all, ever growing). Takes the I/O lock only if there is something to do.
 */
void kvmclock_refresh(struct kvmclock *k, unsigned vcpu, uint64_t tsc_offset, uint64_t run_delay_ns);
/* True if the guest asked vCPU for steal time: then kvmclock_refresh wants a run delay. */
bool kvmclock_wants_steal(const struct kvmclock *k, unsigned vcpu);

#endif
