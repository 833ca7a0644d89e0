/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory order (SDM 3A 9.2): each shape runs on many pairs of variables between two meetings of all
 * processors, and what the manual forbids must not be seen. What it allows and processors do (store
 * buffering) is only counted.
 */
#include "lib.h"

#define CELLS  256
#define ROUNDS 200
#define TICKS  1000000000ull /* for each shape, on a host whose processors are busy */

struct cell {
	volatile uint32_t v;
	uint32_t pad[15];
};

static struct cell x[CELLS], y[CELLS];
static uint32_t out[4][2][CELLS];
static struct barrier gate;
static unsigned shape;

static inline void store_locked(volatile uint32_t *p, uint32_t v)
{
	__asm__ volatile("xchgl %0, %1" : "+r"(v), "+m"(*p)::"memory");
}

static inline void fence(void)
{
	__asm__ volatile("mfence" ::: "memory");
}

/* A locked operation on something else orders, too (SDM 3A 9.2.3.8). */
static inline void lock_elsewhere(void)
{
	__asm__ volatile("lock orl $0, (%%rsp)" ::: "memory", "cc");
}

enum { SB, SB_FENCE, SB_XCHG, SB_LOCK, MP, LB, IRIW, WW, SHAPES };
static const char *const names[SHAPES] = {
	"SB", "SB+mfence", "SB+xchg", "SB+lock", "MP", "LB", "IRIW", "2+2W"
};

/* The processors of a pair do each cell at the same time, as far as that can be had without ordering
 * anything. */
static volatile uint32_t pace[2][16];

static inline void keep_pace(unsigned cpu, uint32_t i)
{
	pace[cpu][0] = i;
	for (unsigned spin = 0; (int32_t)(pace[!cpu][0] - i) < 0; spin++)
		if (spin > 100)
			relax();
}

static void thread(unsigned cpu)
{
	static uint32_t step[4];
	struct cell *mine = cpu & 1 ? y : x, *theirs = cpu & 1 ? x : y;

	meet(&gate, cpus_up);
	if (cpu > (shape == IRIW ? 3u : 1u))
		return;
	for (unsigned i = 0; i < CELLS; i++) {
		uint32_t a, b = 0;

		if (shape != IRIW)
			keep_pace(cpu, ++step[cpu]);

		switch (shape) {
		case SB:
			mine[i].v = 1;
			a = theirs[i].v;
			break;
		case SB_FENCE:
			mine[i].v = 1;
			fence();
			a = theirs[i].v;
			break;
		case SB_XCHG:
			store_locked(&mine[i].v, 1);
			a = theirs[i].v;
			break;
		case SB_LOCK:
			mine[i].v = 1;
			lock_elsewhere();
			a = theirs[i].v;
			break;
		case MP:
			if (!cpu) {
				x[i].v = 1;
				y[i].v = 1;
				a = 0;
			} else {
				a = y[i].v;
				b = x[i].v;
			}
			break;
		case LB:
			a = theirs[i].v;
			mine[i].v = 1;
			break;
		case IRIW:
			if (cpu < 2) {
				mine[i].v = 1;
				a = 0;
			} else {
				a = mine[i].v;
				b = theirs[i].v;
			}
			break;
		default: /* 2+2W */
			mine[i].v = 1;
			theirs[i].v = 2;
			a = 0;
			break;
		}
		out[cpu][0][i] = a;
		out[cpu][1][i] = b;
	}
}

/* The outcome that the processor may not have (SB without a fence: may). */
static bool relaxed(unsigned i)
{
	switch (shape) {
	case SB:
	case SB_FENCE:
	case SB_XCHG:
	case SB_LOCK:
		return !out[0][0][i] && !out[1][0][i];
	case MP:
		return out[1][0][i] && !out[1][1][i];
	case LB:
		return out[0][0][i] && out[1][0][i];
	case IRIW:
		return out[2][0][i] && !out[2][1][i] && out[3][0][i] && !out[3][1][i];
	default:
		return x[i].v == 1 && y[i].v == 1;
	}
}

void guest_main(void)
{
	start_cpus(cpus_present());
	for (shape = 0; shape < SHAPES; shape++) {
		unsigned seen = 0, odd = 0;
		uint64_t begin = __builtin_ia32_rdtsc();

		if (shape == IRIW && cpus_up < 4)
			continue;

		for (unsigned r = 0; r < ROUNDS && __builtin_ia32_rdtsc() - begin < TICKS; r++) {
			for (unsigned i = 0; i < CELLS; i++)
				x[i].v = y[i].v = 0;
			on_all_cpus(thread);
			for (unsigned i = 0; i < CELLS; i++) {
				seen += relaxed(i);
				odd += x[i].v > 2 || y[i].v > 2 || !x[i].v || !y[i].v;
			}
		}
		if (shape == SB) {
			print("store buffering was seen ");
			print_hex(seen);
			print(" times\n");
			seen = 0;
		}
		expect(names[shape], seen, 0);
		expect("all stores arrived", odd, 0);
	}
}
