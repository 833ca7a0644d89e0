/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linux: Documentation/virt/kvm/x86/msr.rst.
 *
 * The guest gives, by MSR, an address where it wants to find
 *
 *	u32 version          odd while it changes
 *	u32 pad
 *	u64 tsc_timestamp    at this value of its TSC ...
 *	u64 system_time      ... this many nanoseconds had passed since boot
 *	u32 tsc_to_system_mul
 *	s8  tsc_shift        ns = ((tsc - tsc_timestamp) << shift) * mul >> 32
 *	u8  flags            bit 0: the same on all vCPUs
 *	u8  pad[2]
 *
 * All vCPUs get the same pair (TSC, time), taken once: only then is a thread
 * that moves between vCPUs sure never to see time go back.  The pair is taken
 * anew when the virtual clock was stopped.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <x86intrin.h>

#include "dev/kvmclock.h"

#define MSR_WALL_CLOCK_OLD  0x11u
#define MSR_SYSTEM_TIME_OLD 0x12u
#define MSR_WALL_CLOCK      0x4b564d00u
#define MSR_SYSTEM_TIME     0x4b564d01u
#define MSR_STEAL_TIME      0x4b564d03u

#define SYSTEM_TIME_ENABLE 1u
#define STEAL_TIME_ENABLE  1u
#define STEAL_TIME_RSVD    0x3eu

/* CPUID 40000001H EAX */
#define FEATURE_CLOCKSOURCE        (1u << 0)
#define FEATURE_NOP_IO_DELAY       (1u << 1)
#define FEATURE_CLOCKSOURCE2       (1u << 3)
#define FEATURE_STEAL_TIME         (1u << 5)
#define FEATURE_CLOCKSOURCE_STABLE (1u << 24)

struct pvclock_page {
	uint32_t version, pad;
	uint64_t tsc_timestamp, system_time;
	uint32_t mul;
	int8_t shift;
	uint8_t flags, pad2[2];
};

struct steal_page {
	uint64_t steal;
	uint32_t version, flags;
};

struct kvmclock {
	struct device dev;
	struct board *board;
	unsigned nr_vcpus;
	uint32_t mul; /* of the TSC's frequency */
	int8_t shift;

	/* All [io]; `stale` and the steal MSRs are also peeked at without it. */
	uint64_t ref_tsc; /* of the host, at virtual time ref_ns */
	int64_t ref_ns;
	bool stale[KVMCLOCK_MAX_VCPUS];
	uint64_t last_delay[KVMCLOCK_MAX_VCPUS];

	/* state */
	uint64_t wall_clock;
	uint64_t system_time[KVMCLOCK_MAX_VCPUS];
	uint64_t steal_time[KVMCLOCK_MAX_VCPUS];
	uint64_t stolen_ns[KVMCLOCK_MAX_VCPUS];
};

/* ns per tick as shift and 32-bit fraction, with as many significant bits as fit. */
static void set_rate(struct kvmclock *k, uint32_t tsc_khz)
{
	uint64_t hz = (uint64_t)(tsc_khz ? tsc_khz : 1) * 1000;
	k->shift = 0;
	/* mul = (10^9 << 32) / hz must be below 2^32 and at least 2^31. */
	while (hz <= 1000000000) {
		hz <<= 1;
		k->shift++;
	}
	while (hz > 2000000000) {
		hz >>= 1;
		k->shift--;
	}
	/* Exactly, not with the bits that hz lost: scale the dividend instead. */
	unsigned __int128 dividend = (unsigned __int128)1000000000 << 32;
	uint64_t exact = (uint64_t)(tsc_khz ? tsc_khz : 1) * 1000;
	if (k->shift < 0)
		dividend <<= -k->shift;
	else
		dividend >>= k->shift;
	k->mul = (uint32_t)(dividend / exact);
}

/* The pair, with the TSC reading that took the least time around the clock's. */
static void take_reference(struct kvmclock *k)
{
	uint64_t best = UINT64_MAX;
	for (unsigned i = 0; i < 8; i++) {
		uint64_t before = __rdtsc();
		int64_t ns = clock_now_ns(k->board->clock);
		uint64_t after = __rdtsc();
		if (after - before >= best)
			continue;
		best = after - before;
		k->ref_tsc = before + best / 2;
		k->ref_ns = ns;
	}
}

static void write_system_time(struct kvmclock *k, unsigned vcpu, uint64_t tsc_offset)
{
	uint64_t msr = k->system_time[vcpu];
	k->stale[vcpu] = false;
	if (!(msr & SYSTEM_TIME_ENABLE))
		return;
	gpa_t at = GPA(msr & ~(uint64_t)SYSTEM_TIME_ENABLE);
	uint32_t version;
	if (mem_read(k->board->mem, at, &version, sizeof(version)) < 0)
		return; /* not RAM: the guest's loss */
	struct pvclock_page p = {
		.version = (version | 1) + 1,
		.tsc_timestamp = k->ref_tsc + tsc_offset,
		.system_time = (uint64_t)k->ref_ns,
		.mul = k->mul,
		.shift = k->shift,
		.flags = 1,
	};
	version |= 1;
	mem_write(k->board->mem, at, &version, sizeof(version));
	mem_write(k->board->mem, GPA(at.v + 4), &p.pad, sizeof(p) - 4);
	mem_write(k->board->mem, at, &p.version, sizeof(p.version));
}

/* The wall-clock time at system time 0. */
static void write_wall_clock(struct kvmclock *k)
{
	uint32_t page[3];
	gpa_t at = GPA(k->wall_clock);
	if (mem_read(k->board->mem, at, page, sizeof(page)) < 0)
		return;
	int64_t boot = clock_wall_ns(k->board->clock) - clock_now_ns(k->board->clock);
	page[0] = (page[0] | 1) + 1;
	page[1] = (uint32_t)(boot / 1000000000);
	page[2] = (uint32_t)(boot % 1000000000);
	mem_write(k->board->mem, at, page, sizeof(page));
}

static void write_steal_time(struct kvmclock *k, unsigned vcpu)
{
	uint64_t msr = k->steal_time[vcpu];
	struct steal_page p;
	if (!(msr & STEAL_TIME_ENABLE) || mem_read(k->board->mem, GPA(msr & ~63ull), &p, sizeof(p)) < 0)
		return;
	uint32_t odd = p.version | 1;
	p = (struct steal_page){ .steal = k->stolen_ns[vcpu], .version = odd + 1 };
	mem_write(k->board->mem, GPA((msr & ~63ull) + 8), &odd, sizeof(odd));
	mem_write(k->board->mem, GPA(msr & ~63ull), &p.steal, sizeof(p.steal));
	mem_write(k->board->mem, GPA((msr & ~63ull) + 8), &p.version, sizeof(p.version));
}

int kvmclock_msr_read(struct kvmclock *k, unsigned vcpu, uint32_t index, uint64_t *value)
{
	int r = 0;
	mutex_lock(k->board->io_lock);
	switch (index) {
	case MSR_WALL_CLOCK_OLD:
	case MSR_WALL_CLOCK:
		*value = k->wall_clock;
		break;
	case MSR_SYSTEM_TIME_OLD:
	case MSR_SYSTEM_TIME:
		*value = k->system_time[vcpu];
		break;
	case MSR_STEAL_TIME:
		*value = k->steal_time[vcpu];
		break;
	default:
		r = -ENOENT;
	}
	mutex_unlock(k->board->io_lock);
	return r;
}

static int msr_write(struct kvmclock *k, unsigned vcpu, uint64_t tsc_offset, uint32_t index, uint64_t value)
{
	switch (index) {
	case MSR_WALL_CLOCK_OLD:
	case MSR_WALL_CLOCK:
		k->wall_clock = value;
		write_wall_clock(k);
		return 0;
	case MSR_SYSTEM_TIME_OLD:
	case MSR_SYSTEM_TIME:
		k->system_time[vcpu] = value;
		write_system_time(k, vcpu, tsc_offset);
		return 0;
	case MSR_STEAL_TIME:
		if (value & STEAL_TIME_RSVD)
			return -EINVAL;
		__atomic_store_n(&k->steal_time[vcpu], value, __ATOMIC_RELAXED);
		write_steal_time(k, vcpu);
		return 0;
	default:
		return -ENOENT;
	}
}

int kvmclock_msr_write(struct kvmclock *k, unsigned vcpu, uint64_t tsc_offset, uint32_t index, uint64_t value)
{
	mutex_lock(k->board->io_lock);
	int r = msr_write(k, vcpu, tsc_offset, index, value);
	mutex_unlock(k->board->io_lock);
	return r;
}

void kvmclock_clock_changed(struct kvmclock *k)
{
	take_reference(k);
	for (unsigned i = 0; i < k->nr_vcpus; i++)
		__atomic_store_n(&k->stale[i], true, __ATOMIC_RELAXED);
}

bool kvmclock_wants_steal(const struct kvmclock *k, unsigned vcpu)
{
	return __atomic_load_n(&k->steal_time[vcpu], __ATOMIC_RELAXED) & STEAL_TIME_ENABLE;
}

void kvmclock_refresh(struct kvmclock *k, unsigned vcpu, uint64_t tsc_offset, uint64_t run_delay_ns)
{
	/* last_delay belongs to the vCPU's thread. Less than 1 ms more is not worth the lock. */
	uint64_t delay = run_delay_ns - k->last_delay[vcpu];
	bool steal = kvmclock_wants_steal(k, vcpu) && run_delay_ns > k->last_delay[vcpu] && delay >= 1000000;
	if (!steal && !__atomic_load_n(&k->stale[vcpu], __ATOMIC_RELAXED))
		return;
	mutex_lock(k->board->io_lock);
	if (k->stale[vcpu])
		write_system_time(k, vcpu, tsc_offset);
	if (steal) {
		if (k->last_delay[vcpu]) /* what was before the guest asked is not its business */
			k->stolen_ns[vcpu] += delay;
		k->last_delay[vcpu] = run_delay_ns;
		write_steal_time(k, vcpu);
	}
	mutex_unlock(k->board->io_lock);
}

void kvmclock_cpuid(struct cpuid_regs leaf[2])
{
	leaf[0].eax = 0x40000001;
	memcpy(&leaf[0].ebx, "KVMK", 4);
	memcpy(&leaf[0].ecx, "VMKV", 4);
	memcpy(&leaf[0].edx, "M\0\0\0", 4);
	leaf[1] = (struct cpuid_regs){
		.eax = FEATURE_CLOCKSOURCE | FEATURE_NOP_IO_DELAY | FEATURE_CLOCKSOURCE2 |
		       FEATURE_STEAL_TIME | FEATURE_CLOCKSOURCE_STABLE,
	};
}

/* ---- device ---- */

static void kvmclock_reset(struct device *d)
{
	struct kvmclock *k = (struct kvmclock *)d;
	k->wall_clock = 0;
	memset(k->system_time, 0, sizeof(k->system_time));
	memset(k->steal_time, 0, sizeof(k->steal_time));
	memset(k->stolen_ns, 0, sizeof(k->stolen_ns));
	take_reference(k);
}

static int kvmclock_loaded(void *obj, struct error *err)
{
	struct kvmclock *k = obj;
	for (unsigned i = 0; i < KVMCLOCK_MAX_VCPUS; i++)
		if (k->steal_time[i] & STEAL_TIME_RSVD)
			return error_set(
			    err, EINVAL,
			    "the saved state has an impossible steal-time register; it is damaged");
	kvmclock_clock_changed(k);
	return 0;
}

static void kvmclock_free(struct device *d)
{
	free(d);
}

static const struct state_field kvmclock_fields[] = {
	F_U64(struct kvmclock, wall_clock),
	F_U64S(struct kvmclock, system_time, KVMCLOCK_MAX_VCPUS),
	F_U64S(struct kvmclock, steal_time, KVMCLOCK_MAX_VCPUS),
	F_U64S(struct kvmclock, stolen_ns, KVMCLOCK_MAX_VCPUS),
	F_END,
};
static const struct state_table kvmclock_state = { "kvmclock", 1, kvmclock_fields, kvmclock_loaded };
static const struct device_class kvmclock_class = { "kvmclock", kvmclock_reset, &kvmclock_state,
						    kvmclock_free };

int kvmclock_new(struct board *b, unsigned nr_vcpus, uint32_t tsc_khz, struct kvmclock **ret,
		 struct error *err)
{
	if (nr_vcpus > KVMCLOCK_MAX_VCPUS)
		return error_set(err, EINVAL, "%u processors are too many; give at most %d", nr_vcpus,
				 KVMCLOCK_MAX_VCPUS);
	struct kvmclock *k = calloc(1, sizeof(*k));
	if (!k)
		return error_set(err, ENOMEM, "no memory for the paravirtual clock; free some and try again");
	k->board = b;
	k->nr_vcpus = nr_vcpus;
	set_rate(k, tsc_khz);
	board_add(b, &k->dev, &kvmclock_class, 0);
	kvmclock_reset(&k->dev);
	*ret = k;
	return 0;
}
