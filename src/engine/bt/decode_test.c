/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decoder against Zydis: decode_cached must say what insn_decode says, for
 * every opcode with every modrm byte under many combinations of prefixes, in an
 * order that makes another instruction each time the example of its shape.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "engine/bt/decode_cache.h"

static const char *const prefixes[] = {
	"",         "\x66",         "\xf2",         "\xf3",         "\xf0",
	"\x64",     "\x65",         "\x2e",         "\x66\xf2",     "\xf3\x66",
	"\x66\xf0", "\x3e\xf2",     "\x64\x66\xf3", "\x36\x66\xf0", "\x67",
	"\x66\x66", "\x65\x64",     "\xf2\xf3",     "\x26\x65",     "\xf3\xf2",
	"\x66\x2e", "\x64\x65\x66", "\x48\x66",     "\x2e\x36",
};
static const char *const rexes[] = { "", "\x40", "\x41", "\x42", "\x44", "\x48", "\x4b", "\x4f", "\x48\x40" };

static struct cpu_model model;

static void fail_at(const uint8_t *code, const char *what)
{
	fprintf(stderr, "%s differs:", what);
	for (int i = 0; i < 16; i++)
		fprintf(stderr, " %02x", code[i]);
	fprintf(stderr, "\n");
	fail();
}

static void compare(struct decode_cache *d, const uint8_t *code, size_t n)
{
	struct insn a, b;
	int r = insn_decode(code, n, 8, false, &a);

	memset(&b, 0, sizeof b);
	if (r == DECODE_OK)
		insn_restrict(&a, &model);
	if (decode_cached(d, code, n, 8, false, &b) != r)
		fail_at(code, "the verdict");
	if (r == DECODE_OK && memcmp(&a, &b, sizeof a))
		fail_at(code, "the instruction");
}

/* Everything behind the prefixes: opcodes of a map, modrm, and what follows by chance. */
static void try_map(struct decode_cache *d, const char *prefix, const char *rex, const char *map)
{
	uint64_t rng = 0x9e3779b97f4a7c15ull ^ (uint64_t)(uint8_t)prefix[0] << 8 ^ (uint8_t)rex[0];
	uint8_t code[32] = { 0 };
	size_t at = strlen(prefix) + strlen(rex) + strlen(map);

	memcpy(code, prefix, strlen(prefix));
	memcpy(code + strlen(prefix), rex, strlen(rex));
	memcpy(code + strlen(prefix) + strlen(rex), map, strlen(map));
	for (unsigned op = 0; op < 256; op++)
		for (unsigned k = 0; k < 256; k++) {
			code[at] = (uint8_t)op;
			code[at + 1] = (uint8_t)(k * 167 + op * 13 + (rng >> 60));
			for (unsigned i = 0; i < 2; i++) {
				rng = rng * 6364136223846793005ull + 1442695040888963407ull;
				memcpy(code + at + 2 + 8 * i, &rng, 8);
			}
			compare(d, code, sizeof code);
		}
}

static void all_opcodes(void **state)
{
	struct decode_cache *d = decode_cache_new(&model);

	(void)state;
	assert_non_null(d);
	for (size_t p = 0; p < ARRAY_SIZE(prefixes); p++)
		for (size_t r = 0; r < ARRAY_SIZE(rexes); r += p < 8 ? 1 : 4) {
			try_map(d, prefixes[p], rexes[r], "");
			try_map(d, prefixes[p], rexes[r], "\x0f");
		}
	try_map(d, "", "", "\x0f\x38");
	try_map(d, "\x66", "\x48", "\x0f\x3a");
	decode_cache_free(d);
}

/* All of modrm, SIB and the ends of displacements, for an instruction that is in the cache already. */
static void all_operands(void **state)
{
	struct decode_cache *d = decode_cache_new(&model);
	uint8_t code[32] = { 0x48, 0x03 };

	(void)state;
	assert_non_null(d);
	for (unsigned rex = 0x40; rex < 0x50; rex++)
		for (unsigned modrm = 0; modrm < 256; modrm++)
			for (unsigned sib = 0; sib < 256; sib++)
				for (unsigned disp = 0x7f; disp < 0x81; disp++) {
					code[0] = (uint8_t)rex;
					code[2] = (uint8_t)modrm;
					code[3] = (uint8_t)sib;
					code[4] = code[7] = (uint8_t)disp;
					compare(d, code, sizeof code);
				}
	decode_cache_free(d);
}

/* At the end of what can be read. */
static void truncated(void **state)
{
	static const uint8_t codes[][16] = { { 0x48, 0x81, 0x84, 0x24, 1, 2, 3, 4, 5, 6, 7, 8 },
					     { 0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8 },
					     { 0x0f, 0x85, 1, 2, 3, 4 },
					     { 0x66, 0xf3, 0x65, 0x4c, 0x0f, 0xba, 0xa4, 0x9b, 1, 2, 3, 4,
					       5 } };
	struct decode_cache *d = decode_cache_new(&model);

	(void)state;
	assert_non_null(d);
	for (size_t i = 0; i < ARRAY_SIZE(codes); i++)
		for (size_t n = 16; n > 0; n--) {
			uint8_t *exact = malloc(n); /* for the sanitizer to see what is read beyond */

			assert_non_null(exact);
			memcpy(exact, codes[i], n);
			compare(d, exact, n);
			free(exact);
		}
	decode_cache_free(d);
}

/* Extensions that a model lacks are refused, or something else, from the first time on. */
static void restricted(void **state)
{
	static const struct cpu_model none;
	static const uint8_t lzcnt[16] = { 0xf3, 0x48, 0x0f, 0xbd, 0xc1 }, rdrand[16] = { 0x0f, 0xc7, 0xf1 };
	struct decode_cache *d = decode_cache_new(&none);
	struct insn in;

	(void)state;
	assert_non_null(d);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(decode_cached(d, lzcnt, 16, 8, false, &in), DECODE_OK);
		assert_false(in.needf3);
		assert_int_equal(in.regs_read, 1 << RCX | 1 << RAX);
		assert_int_equal(decode_cached(d, rdrand, 16, 8, false, &in), DECODE_OK);
		assert_int_equal(in.cls, INSN_UD);
	}
	decode_cache_free(d);
}

/* Which flags shifts and rotations may leave as they were. */
static void shift_counts(void **state)
{
	static const struct {
		uint8_t code[8];
		bool passes;
	} tests[] = {
		{ { 0x48, 0xc1, 0xe0, 3 }, false },       /* shl rax, 3 */
		{ { 0x48, 0xc1, 0xe0, 0x40 }, true },     /* shl rax, 64 */
		{ { 0xc1, 0xe0, 0x20 }, true },           /* shl eax, 32 */
		{ { 0x48, 0xc1, 0xe0, 0x20 }, false },    /* shl rax, 32 */
		{ { 0xd1, 0xf8 }, false },                /* sar eax, 1 */
		{ { 0xd3, 0xf8 }, true },                 /* sar eax, cl */
		{ { 0xc0, 0x00, 8 }, false },             /* rol byte [rax], 8 */
		{ { 0xd2, 0x10 }, true },                 /* rcl byte [rax], cl */
		{ { 0x0f, 0xac, 0xd0, 5 }, false },       /* shrd eax, edx, 5 */
		{ { 0x66, 0x0f, 0xac, 0xd0, 17 }, true }, /* shrd ax, dx, 17 */
		{ { 0x0f, 0xa5, 0xd0 }, true },           /* shld eax, edx, cl */
	};
	struct insn in;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(tests); i++) {
		assert_int_equal(insn_decode(tests[i].code, 8, 8, false, &in), DECODE_OK);
		assert_true(in.counts);
		assert_int_equal(in.flags_passed,
				 tests[i].passes ? in.flags_written | in.flags_undefined : 0);
		/* Only those that rotate through it read a flag. */
		assert_int_equal(in.flags_read, (in.modrm >> 3 & 7) == 2 && in.map == 0 ? FLAG_CF : 0);
	}
	assert_int_equal(insn_decode((const uint8_t *)"\x01\xc8", 2, 8, false, &in), DECODE_OK);
	assert_false(in.counts || in.flags_passed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_opcodes), cmocka_unit_test(all_operands), cmocka_unit_test(truncated),
		cmocka_unit_test(restricted),  cmocka_unit_test(shift_counts),
	};

	memset(&model, 0xff, sizeof model);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
