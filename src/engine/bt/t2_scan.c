/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which code must not run in a stub.
 *
 * A few instructions neither trap at CPL 3 nor give the guest's answer: they
 * read the host's identity (CPUID unless the processor is told to make it fault,
 * t2_cpuid.c; RDPID, RDTSCP), its descriptor tables (SGDT, SIDT, SLDT, STR, SMSW; LAR, LSL,
 * VERR, VERW), its time or XCR0 where they differ from the guest's, or enter the
 * host's kernel without a way back (SYSENTER).  Pages that contain one are not
 * executable in stubs, so code there runs in T1.
 *
 * Looking for bytes alone would find two-byte opcodes in many pages where they
 * are the middle of something else.  x86 code read from a wrong offset falls into
 * step within a few instructions, so a candidate counts if half of several
 * attempts to read the code before it arrive at it, and one of them by way of what a
 * program could execute: runtimes that compile as they run keep data beside code, small
 * numbers above all (0F 00 00 00), and would find most pages unfit.  Compilers put hot functions
 * beside a rare CPUID: a page with a few such instructions can be executed with
 * breakpoints on them (t2_map.c).  RDTSCP and RDPID, which CPUID does not announce, get
 * what breakpoints are left: Linux's vDSO has some lying about that are never executed,
 * beside the function that reads the clock.  Code written after its page
 * was mapped is not seen; the guest then gets the host's answer, nothing worse.
 *
 * Each program that starts maps the same libraries, so what was found is kept, under
 * a hash of all that it depends on. Whoever makes two pages with the same hash fools
 * himself.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <Zydis/Zydis.h>

#include "engine/bt/interp_internal.h"
#include "engine/bt/mmu.h"
#include "engine/bt/t2_internal.h"

#define BACK     64 /* bytes before a candidate where reading begins */
#define ATTEMPTS 8
#define CLEAN    24 /* bytes before a candidate that must look like code */
#define LONGEST  16 /* bytes of an instruction, and one */

static bool host_xcr0_differs(const struct vcpu *v)
{
	uint32_t lo, hi;

	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return ((uint64_t)hi << 32 | lo) != v->st.xcr0;
}

/* Is 0F op at p, with `left` bytes of page from there, RDTSCP or RDPID? */
static bool names_processor(const uint8_t *p, unsigned left)
{
	return left > 2 && ((p[1] == 0x01 && p[2] == 0xf9) || (p[1] == 0xc7 && p[2] >= 0xf8));
}

/* Is 0F op at p, with `left` bytes of page from there, such an instruction? */
static bool candidate(const struct vcpu *v, const uint8_t *p, unsigned left, bool cpuid_faults)
{
	uint8_t modrm = left > 2 ? p[2] : 0;
	unsigned reg = modrm >> 3 & 7;
	bool memory = modrm < 0xc0;

	switch (left > 1 ? p[1] : 0xff) {
	case 0x00: /* SLDT STR - - VERR VERW */
		return reg <= 1 || reg == 4 || reg == 5;
	case 0x01: /* SGDT SIDT - - SMSW; RDTSCP; XGETBV */
		if (modrm == 0xd0)
			return host_xcr0_differs(v);
		return (memory && reg <= 1) || reg == 4 || modrm == 0xf9;
	case 0x02: /* LAR */
	case 0x03: /* LSL */
	case 0x34: /* SYSENTER */
		return true;
	case 0xa2: /* CPUID */
		return !cpuid_faults;
	case 0x05: /* SYSCALL: from compatibility code the kernel loses RIP, ECX and EBP */
		return !x86_code64(&v->st);
	case 0x31: /* RDTSC */
		return v->st.tsc_offset != 0;
	case 0xae: /* RDFSBASE and its like */
		return !(v->st.cr4 & CR4_FSGSBASE) && !memory && reg <= 3;
	case 0xc7: /* RDPID */
		return !memory && reg == 7;
	default:
		return false;
	}
}

#define NOT_CODE INT_MIN

/*
 * Would a program execute this?  Not what is privileged, nor what compilers do not use and tables are full
 * of: ADD of a byte register to memory, of which zeros consist, SLDT [RAX] (0F 00 00), and in 64-bit code
 * returns and frames as other systems and languages had them.
 */
static bool plausible(const ZydisDecodedInstruction *in, const uint8_t *text)
{
	if (in->opcode_map == ZYDIS_OPCODE_MAP_0F && in->opcode == 0x00)
		return text[in->raw.prefix_count + 2];
	if (in->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
		return true;
	switch (in->opcode) {
	case 0x00:
	case 0x6c ... 0x6f: /* INS, OUTS */
	case 0xe4 ... 0xe7: /* IN, OUT */
	case 0xec ... 0xef:
	case 0xf4: /* HLT */
	case 0xfa: /* CLI */
	case 0xfb: /* STI */
		return false;
	case 0xc2: /* RET with a count */
	case 0xc8: /* ENTER */
	case 0xca: /* far returns */
	case 0xcb:
	case 0xcf: /* IRET */
	case 0xd7: /* XLAT */
		return in->machine_mode != ZYDIS_MACHINE_MODE_LONG_64;
	default:
		return true;
	}
}

/*
 * Where the instruction begins whose opcode is at text + at, or NOT_CODE. size: of what is there. Attempts
 * that have met go on as one.
 */
static int in_step(const ZydisDecoder *d, const uint8_t *text, unsigned at, unsigned size)
{
	unsigned first = at > BACK ? at - BACK : 0, hits = 0, attempts = at < ATTEMPTS ? at + 1 : ATTEMPTS;
	/* What became of the attempt that passed here: 0: none did; MISSED; or ARRIVED and from where. */
	enum { MISSED = 1, ARRIVED };
	uint8_t fate[BACK + 1] = { 0 };
	uint8_t way[BACK + 1];
	/* After that, the last place that is no code, from `first`, and one; or 0. */
	uint8_t last_bad[BACK + 1];
	bool clean = false;
	int begins = NOT_CODE;

	for (unsigned k = 0; k < attempts; k++) {
		unsigned here = first + k, steps = 0, end = MISSED, bad = 0;

		while (here <= at) {
			ZydisDecodedInstruction in;

			if (fate[here - first]) {
				end = fate[here - first];
				bad = last_bad[here - first] ? last_bad[here - first] : bad;
				break;
			}
			way[steps++] = (uint8_t)(here - first);
			if (ZYAN_FAILED(
				ZydisDecoderDecodeInstruction(d, NULL, text + here, size - here, &in))) {
				bad = ++here - first;
				continue;
			}
			if (here + in.raw.prefix_count == at) {
				end = ARRIVED + here - first;
				break;
			}
			if (!plausible(&in, text + here))
				bad = here - first + 1;
			here += in.length;
		}
		while (steps) {
			unsigned w = way[--steps];

			fate[w] = (uint8_t)end;
			last_bad[w] = bad > w ? (uint8_t)bad : 0;
		}
		if (end >= ARRIVED) {
			begins = (int)(first + end - ARRIVED);
			clean |= !bad || first + bad - 1 + CLEAN <= at;
			hits++;
		}
	}
	return clean && hits * 2 >= attempts ? begins : NOT_CODE;
}

/* The same of an opcode near the beginning of a page that programs may begin with, whatever lies before it.
 */
static int from_start(const ZydisDecoder *d, const uint8_t *page, unsigned at)
{
	ZydisDecodedInstruction in;
	unsigned here = 0;

	for (; here <= at; here += in.length) {
		if (ZYAN_FAILED(ZydisDecoderDecodeInstruction(d, NULL, page + here, PAGE_SIZE - here, &in)))
			return NOT_CODE;
		if (here + in.raw.prefix_count == at)
			return (int)here;
		if (!plausible(&in, page + here))
			return NOT_CODE;
	}
	return NOT_CODE;
}

/* The same in a page, before which another may lie: where it begins may then be negative. */
static int in_page(const ZydisDecoder *d, const uint8_t *page, unsigned at, const uint8_t *before)
{
	uint8_t text[2 * BACK + LONGEST];
	int begins;

	if (at >= BACK || !before)
		return in_step(d, page, at, PAGE_SIZE);
	begins = from_start(d, page, at);
	if (begins != NOT_CODE)
		return begins;
	memcpy(text, before + PAGE_SIZE - BACK, BACK);
	memcpy(text + BACK, page, BACK + LONGEST);
	begins = in_step(d, text, at + BACK, sizeof(text));
	return begins == NOT_CODE ? NOT_CODE : begins - BACK;
}

static void decoder_init(ZydisDecoder *d, const struct vcpu *v)
{
	bool code64 = x86_code64(&v->st);

	/* Lengths, prefixes and opcodes are all that is asked for. */
	ZydisDecoderInit(d, code64 ? ZYDIS_MACHINE_MODE_LONG_64 : ZYDIS_MACHINE_MODE_LONG_COMPAT_32,
			 code64 ? ZYDIS_STACK_WIDTH_64 : ZYDIS_STACK_WIDTH_32);
	ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_MINIMAL, ZYAN_TRUE);
}

static struct t2_found scan(const struct vcpu *v, const uint8_t *page, const uint8_t *before,
			    bool cpuid_faults)
{
	ZydisDecoder d;
	const uint8_t *p = page, *end = page + PAGE_SIZE;
	uint16_t spare[STUB_BREAKPOINTS];
	struct t2_found f = { 0 };
	unsigned n_spare = 0;
	bool ready = false;

	for (; (p = memchr(p, 0x0f, (size_t)(end - p))); p++) {
		unsigned at = (unsigned)(p - page);
		int begins;

		if (!candidate(v, p, PAGE_SIZE - at, cpuid_faults))
			continue;
		if (!ready)
			decoder_init(&d, v);
		ready = true;
		begins = in_page(&d, page, at, before);
		if (begins == NOT_CODE)
			continue;
		if (names_processor(p, PAGE_SIZE - at)) {
			if (begins >= 0 && n_spare < STUB_BREAKPOINTS)
				spare[n_spare++] = (uint16_t)begins;
		} else if (begins >= 0 && f.n < STUB_BREAKPOINTS) {
			f.at[f.n++] = (uint16_t)begins;
		} else {
			f.unfit = true; /* no way to stop at it from this page alone */
		}
	}
	f.required = f.n;
	for (unsigned i = 0; i < n_spare && f.n < STUB_BREAKPOINTS; i++)
		f.at[f.n++] = spare[i];
	return f;
}

/* ---- what was found before ---- */

/* Two places for each hash, the one used last first. A compiler has some five thousand pages of code. */
#define SCANNED 16384

struct t2_scanned {
	struct scanned_page {
		uint64_t hash;
		struct t2_found found;
	} e[SCANNED][2];
};

struct t2_scanned *t2_scanned_new(void)
{
	return calloc(1, sizeof(struct t2_scanned));
}

static uint64_t mix(uint64_t h, uint64_t x)
{
	h = (h ^ x) * 0x9e3779b97f4a7c15ull;
	return h ^ h >> 32;
}

static uint64_t hash(uint64_t h, const uint8_t *p, size_t n)
{
	uint64_t lane[4] = { h, h + 1, h + 2, h + 3 };

	for (size_t i = 0; i < n; i += sizeof(lane)) {
		uint64_t x[4];

		memcpy(x, p + i, sizeof(x));
		for (unsigned k = 0; k < 4; k++)
			lane[k] = mix(lane[k], x[k]);
	}
	for (unsigned k = 0; k < 4; k++)
		h = mix(h, lane[k]);
	return h;
}

struct t2_found t2_scan(const struct vcpu *v, const uint8_t *page, const uint8_t *before, bool cpuid_faults)
{
	uint64_t mode = x86_code64(&v->st) | (v->st.tsc_offset != 0) << 1 | host_xcr0_differs(v) << 2 |
			!!(v->st.cr4 & CR4_FSGSBASE) << 3 | !!before << 4 | cpuid_faults << 5 | 1u << 6;
	uint64_t h = hash(mode, page, PAGE_SIZE);
	struct scanned_page *e;

	if (before)
		h = hash(h, before + PAGE_SIZE - BACK, BACK);
	h |= 1; /* an empty place has 0 */
	e = v->t2->scanned->e[h / 2 % SCANNED];
	if (e[0].hash != h) {
		struct scanned_page other = e[1];

		e[1] = e[0];
		e[0] = other;
	}
	if (e[0].hash != h)
		e[0] = (struct scanned_page){ h, scan(v, page, before, cpuid_faults) };
	return e[0].found;
}

bool t2_behind(struct vcpu *v, const uint8_t *insn, unsigned n)
{
	uint64_t rip = v->st.rip, start = rip - n - BACK;
	uint8_t text[BACK + LONGEST];
	unsigned at = BACK;
	ZydisDecoder d;

	/* What lies in the page before may not be there. */
	if ((start ^ (rip - n)) & PAGE_MASK) {
		start = (rip - n) & PAGE_MASK;
		at = (unsigned)(rip - n - start);
	}
	if (lin_read(v, start, text, at + n, ACC_USER | ACC_R | ACC_PROBE)) {
		v->exc.present = false;
		return false;
	}
	if (memcmp(text + at, insn, n))
		return false;
	decoder_init(&d, v);
	return in_step(&d, text, at, at + n) == (int)at;
}
