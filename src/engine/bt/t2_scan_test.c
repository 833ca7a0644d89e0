/* SPDX-License-Identifier: Apache-2.0 */
/* Which code must not run in a stub (t2_scan.c): found where it is code, and not where it is data beside
 * code. */
#include "engine/bt/t2_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* It wants the others first. */
#include <cmocka.h>

#include "base/util.h"

struct rig {
	struct vcpu v;
	struct t2 t2;
	uint8_t page[PAGE_SIZE], before[PAGE_SIZE];
};

static int setup(void **state)
{
	struct rig *r = aligned_alloc(64, (sizeof(*r) + 63) & ~63ull);

	assert_non_null(r);
	memset(r, 0, sizeof(*r));
	r->v.t2 = &r->t2;
	r->t2.scanned = t2_scanned_new();
	assert_non_null(r->t2.scanned);
	r->v.st.efer = EFER_LMA | EFER_LME;
	r->v.st.seg[SEG_CS].attr = SEG_L;
	r->v.st.cr4 = CR4_FSGSBASE;
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	free(r->t2.scanned);
	free(r);
	return 0;
}

/* What a compiler makes: 16 bytes that say nothing. */
static const uint8_t plain[] = { 0x48, 0x89, 0xc3, 0x83, 0xe0, 0x07, 0x8d, 0x04,
				 0x80, 0x0f, 0xaf, 0xc1, 0x41, 0x01, 0xc0, 0x90 };

/* A page of it, and something at a place. */
static struct t2_found look(struct rig *r, const void *what, unsigned n, unsigned at)
{
	for (unsigned i = 0; i < PAGE_SIZE; i++)
		r->page[i] = plain[i % sizeof(plain)];
	memcpy(r->page + at, what, n);
	return t2_scan(&r->v, r->page, r->before, false);
}

static void test_code_is_found(void **state)
{
	static const struct {
		const char *insn;
		unsigned n;
	} bad[] = {
		{ "\x0f\xa2", 2 },             /* CPUID */
		{ "\x0f\x00\xc0", 3 },         /* SLDT EAX */
		{ "\x0f\x00\x00", 3 },         /* SLDT [RAX] */
		{ "\x0f\x01\x4c\x24\x08", 5 }, /* SIDT [RSP + 8] */
		{ "\x0f\x01\xe0", 3 },         /* SMSW EAX */
		{ "\x48\x0f\x03\xc1", 4 },     /* LSL RAX, ECX */
		{ "\x0f\x00\xe8", 3 },         /* VERW AX */
		{ "\x0f\x34", 2 },             /* SYSENTER */
	};
	/* At the beginning of a page behind zeros, near it, and far from it. */
	static const unsigned places[] = { 0, 16, 48, 64, 2048, PAGE_SIZE - 16 };
	struct rig *r = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		for (unsigned k = 0; k < ARRAY_SIZE(places); k++) {
			struct t2_found f = look(r, bad[i].insn, bad[i].n, places[k]);

			assert_true(f.n == 1 && f.required == 1 && !f.unfit);
			assert_int_equal(f.at[0], places[k]);
		}
}

static void test_data_is_not(void **state)
{
	/* As runtimes that compile have them between functions: small numbers, tables of offsets, debug
	 * records. */
	static const uint8_t numbers[] = { 8,    0,    0,    0, 0x10, 0, 0,    0, 0x6f, 0x6b,
					   0xdc, 0xff, 0x0f, 0, 0,    0, 0x12, 0, 0,    0 };
	static const uint8_t offsets[] = { 0x58, 0x0f, 0,    0,    0x58, 0x0f, 0,    0, 0x90, 0x0f,
					   0,    0,    0x90, 0x0f, 0,    0,    0x68, 0, 0,    0 };
	static const uint8_t records[] = { 0,    0xc2, 0x10, 0,    0x92, 0, 0,    0,    0,    1,    0xf2,
					   1,    0xc8, 3,    0,    0xfe, 1, 0x13, 0,    0xc2, 0x0a, 0,
					   0xc2, 0x0b, 0,    0xc2, 0x0c, 0, 0xc1, 0x0d, 0,    0xc1, 0x0e,
					   1,    4,    0,    0xc2, 0x0f, 0, 0,    0,    0,    0 };
	static const uint8_t zeros[] = { [40] = 0x0f, [44] = 5, [64] = 0 };
	struct rig *r = *state;

	for (unsigned at = 0; at < 2048; at += 16) {
		assert_int_equal(look(r, numbers, sizeof(numbers), at).n, 0);
		/* Behind code the first is POP RAX; SLDT [RAX]. */
		assert_true(look(r, offsets, sizeof(offsets), at).n <= 1);
		assert_int_equal(look(r, records, sizeof(records), at).n, 0);
		assert_int_equal(look(r, zeros, sizeof(zeros), at).n, 0);
	}
}

/* The last bytes of an instruction: MOV BYTE [RSP + 15], 0; AND EAX, 0FFFFFh. */
static void test_inside_of_others_is_not(void **state)
{
	static const uint8_t mov[] = { 0xc6, 0x44, 0x24, 0x0f, 0x00, 0x90 },
			     and[] = { 0x25, 0xff, 0xff, 0x0f, 0x00, 0x90 };
	struct rig *r = *state;

	for (unsigned at = 0; at < 2048; at += 16) {
		assert_int_equal(look(r, mov, sizeof(mov), at).n, 0);
		assert_int_equal(look(r, and, sizeof(and), at).n, 0);
	}
}

/* More of them than there are breakpoints. */
static void test_many(void **state)
{
	static const uint8_t cpuids[] = { 0x0f, 0xa2, 0x0f, 0xa2, 0x0f, 0xa2, 0x0f, 0xa2, 0x0f, 0xa2 };
	struct rig *r = *state;

	assert_false(look(r, cpuids, 8, 512).unfit);
	assert_true(look(r, cpuids, 10, 512).unfit);
	assert_int_equal(t2_scan(&r->v, r->page, r->before, true).n, 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_code_is_found),
		TEST(test_data_is_not),
		TEST(test_inside_of_others_is_not),
		TEST(test_many),
	};

	return cmocka_run_group_tests_name("t2_scan", tests, NULL, NULL);
}
