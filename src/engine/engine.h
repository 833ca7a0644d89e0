/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine interface: what runs vCPUs.
 *
 * Below it everything is replaceable (translation, direct execution, KVM);
 * above it nothing knows which engine runs.  A vCPU belongs to one thread,
 * which calls everything here but vcpu_kick.
 *
 * Events flow one way: a device raises an interrupt at the vCPU's LAPIC, the
 * LAPIC calls vcpu_kick, vcpu_run stops at the next instruction boundary where
 * the architecture allows, asks `board->irq_ack` for the vector and delivers
 * it.  vcpu_run returns VCPU_EXIT_KICKED after each kick, so that the caller
 * can look at its own requests and at the LAPIC's timer.
 */
#ifndef SILL_ENGINE_ENGINE_H
#define SILL_ENGINE_ENGINE_H

#include "base/clock.h"
#include "base/error.h"
#include "mem/mem.h"
#include "x86/cpuid.h"
#include "x86/state.h"

struct vcpu;
struct engine_vm;

enum vcpu_exit {
	VCPU_EXIT_KICKED,   /* vcpu_kick was called, or the armed timer passed */
	VCPU_EXIT_HALTED,   /* HLT with nothing to deliver; state.halted is set */
	VCPU_EXIT_SHUTDOWN, /* triple fault */
	VCPU_EXIT_ERROR,    /* the engine cannot go on; vcpu_error says why */
};

/* What the board offers to a vCPU. All called in the vCPU's thread. */
struct vcpu_board {
	void *opaque;
	/* True if an interrupt above the task priority waits (IF is not looked at). Cheap. */
	bool (*irq_pending)(void *opaque);
	/* Takes the highest one: its vector, or -1 if it has gone. */
	int (*irq_ack)(void *opaque);
	/* MSRs that the CPU does not own (APIC base, x2APIC, TSC deadline, KVM paravirtual). 0, or -1: the
	 * guest gets #GP. */
	int (*msr_read)(void *opaque, uint32_t index, uint64_t *value);
	int (*msr_write)(void *opaque, uint32_t index, uint64_t value);
	/* CR8, the task priority (bits 3:0). */
	uint8_t (*cr8_read)(void *opaque);
	/* A KVM hypercall by the kernel, arguments already cut to the mode's width (bits): what RAX gets. */
	uint64_t (*hypercall)(void *opaque, uint64_t nr, const uint64_t arg[4], unsigned width);
	void (*cr8_write)(void *opaque, uint8_t value);
	/* The FERR# pin (x87 errors with CR0.NE clear): asserted before an instruction that waits for errors,
	 * until the error is dealt with. Returns IGNNE#: whether the instruction is executed all the same;
	 * else the processor stands until it is interrupted. May be NULL. */
	bool (*ferr)(void *opaque, bool asserted);
	/* Four bytes of a device of the processor's own (the LAPIC), if reading them is nothing but a load;
	 * false: by mem_mmio_read. General-regs-only: translated code calls it. May be NULL. */
	bool (*peek)(void *opaque, uint64_t pa, uint32_t *value);
};

struct vcpu_config {
	struct mem *mem;
	const struct cpu_model *model;
	struct vcpu_board board;
	uint32_t apic_id;
};

struct engine_option {
	const char *tier; /* "auto", "interp", "t1", or "lockstep": both, compared */
	uint64_t code_cache_size;
	const char *stress; /* see bt/stress.h; NULL: none */
};

struct engine_stats {
	uint64_t exits, mmio_exits, pio_exits, halts, kicks, irqs;
	uint64_t blocks, guest_insns_translated, code_bytes, invalidations, flushes;
	uint64_t t2_promotions, t2_demotions, t2_stops;
	/* Stops at system calls, for the guest's faults, to map pages, at code in pages that are unfit for
	 * stubs, at breakpoints; the rest are kicks and traps. */
	uint64_t t2_syscalls, t2_faults, t2_maps, t2_unfit, t2_breaks;
	uint64_t t2_let_in;           /* pages mapped without a way to the gate */
	int64_t t2_own_ns, t2_map_ns; /* of t2_ns: the program itself; mapping */
	uint64_t interp_insns, tlb_fills, lookups, exceptions, lockstep_insns;
	int64_t interp_ns, t1_ns, t2_ns, translate_ns;
	struct {
		char name[16];
		uint64_t count;
	} interp_top[12]; /* the instructions interpreted most */
};

struct engine_ops {
	const char *name;
	int (*vm_new)(struct mem *m, unsigned nr_vcpus, const struct engine_option *o, struct engine_vm **ret,
		      struct error *err);
	void (*vm_free)(struct engine_vm *vm);
	/* Created by any thread before the vCPU's thread starts; state is RESET. */
	int (*vcpu_new)(struct engine_vm *vm, const struct vcpu_config *c, struct vcpu **ret,
			struct error *err);
	void (*vcpu_free)(struct vcpu *v);
	/* Must be called once by the vCPU's own thread before vcpu_run (signal mask, stacks). */
	int (*vcpu_thread_init)(struct vcpu *v, struct error *err);
	enum vcpu_exit (*vcpu_run)(struct vcpu *v);
	/* Makes a running (or the next) vcpu_run return soon. Any thread; async-signal-safe. */
	void (*vcpu_kick)(struct vcpu *v);
	/* Sleeps until kicked or until the armed timer passes; returns at once if either has already
	 * happened. */
	void (*vcpu_wait)(struct vcpu *v);
	/* Kicks this vCPU when the host's CLOCK_MONOTONIC reaches host_ns; INT64_MAX disarms. vCPU's thread,
	 * or any while it does not run. */
	void (*vcpu_arm_timer)(struct vcpu *v, int64_t host_ns);
	/* The architectural state; read and written only while vcpu_run is not running. After writing call
	 * vcpu_state_changed. */
	struct x86_state *(*vcpu_state)(struct vcpu *v);
	void (*vcpu_state_changed)(struct vcpu *v);
	void (*vcpu_stats)(struct vcpu *v, struct engine_stats *ret);
	const char *(*vcpu_error)(struct vcpu *v);
};

extern const struct engine_ops engine_bt;

#endif
