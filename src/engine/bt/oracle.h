/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native oracle's parts (tests only): a generator of random user-mode
 * instruction sequences (oracle_gen.c), the processor executing them
 * (oracle_native.c), and the engine's tiers doing so, compared (oracle_test.c).
 *
 * All three see the same virtual addresses: DATA_VA holds two read-write pages
 * and a read-only one with nothing around them, CODE_VA the code, read-only.
 */
#ifndef SILL_ENGINE_BT_ORACLE_H
#define SILL_ENGINE_BT_ORACLE_H

#include <time.h>

#include "engine/bt/decode.h"
#include "engine/bt/vcpu.h"

#define DATA_VA   0x10000000ull
#define DATA_SIZE 0x3000u
#define CODE_VA   0x20000000ull
#define CODE_SIZE 0x400000u
#define MAX_SEQ   8
#define MAX_CODE  192

/* Selectors of user code and data: Linux's, so that reading them gives the same in both. */
#define SEL_CS32 0x23
#define SEL_DATA 0x2b
#define SEL_CS64 0x33

struct item {
	uint8_t bytes[16];
	uint8_t len;
	uint8_t rip_at;                            /* offset of a RIP-relative displacement, 0: none */
	uint64_t rip_target;                       /* what it must point at */
	uint8_t rel_at;                            /* offset of a rel8 branch displacement, 0: none */
	uint8_t rel_to;                            /* item that it goes to */
	uint32_t reads, kills, undefined, defines; /* arithmetic flags */
	bool bcd;     /* decimal adjustment, which C does: undefined flags need not be the processor's */
	bool masked;  /* which of several missing elements is told is the processor's own affair */
	bool maskmov; /* whether bytes masked off fault is the processor's own affair */
	bool dropped;
};

struct outcome {
	uint64_t gpr[16], rip, rflags, fs, gs;
	uint32_t vector, error;
	uint64_t cr2;
	uint16_t ds, es, cs;
	bool failed; /* no outcome: why says */
	char why[200];
	uint8_t xsave[X86_XSAVE_MAX] __attribute__((aligned(64)));
	uint8_t data[DATA_SIZE];
};

struct job {
	uint64_t seed;
	unsigned mode; /* 8 or 4 */
	unsigned n;
	struct item item[MAX_SEQ];
	uint64_t at; /* virtual address of the code */
	uint8_t code[MAX_CODE];
	unsigned code_len;
	unsigned offset[MAX_SEQ + 1]; /* of each item in the code; of the final INT3 */
	uint64_t gpr[16], rflags, fs, gs;
	uint8_t xsave[X86_XSAVE_MAX] __attribute__((aligned(64)));
	uint8_t data[DATA_SIZE];
	struct outcome native;
};

static inline uint64_t oracle_random(uint64_t *x)
{
	uint64_t z = (*x += 0x9e3779b97f4a7c15ull);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/* Seconds on a clock that only runs forwards. */
static inline double oracle_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Makes the job that `seed` stands for, its code at a place derived from index. */
void oracle_generate(struct job *j, uint64_t seed, uint64_t index, const struct cpu_model *model);
/* Lays the items that are not dropped out as code. */
void oracle_layout(struct job *j);

/* Maps the two areas at their addresses and takes over the fault signals. False: this host cannot (why says).
 */
bool oracle_native_init(const char **why);
/* The limit of the segment in which Linux tells programs the number of the processor; natively alone. */
uint32_t oracle_native_cpu_limit(void);
/* Has the processor execute the job: j->native. */
void oracle_native_run(struct job *j);

#endif
