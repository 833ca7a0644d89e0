/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lockstep: every block is executed twice, by the interpreter and by translated
 * code, and the results are compared.
 *
 *  1. The interpreter executes the block's instructions, with a copy of the
 *     registers after each and a log of what it overwrote in memory.
 *  2. Its stores are taken back, the registers restored.
 *  3. The translated block runs (never linked, so it comes back at its end).
 *  4. Registers, vector state and the logged memory must be as the interpreter
 *     left them at the instruction where the block stopped.
 *
 * The first difference stops the VM with a sentence that names the block; the
 * details go to the log.  Instructions whose result differs by nature (RDTSC,
 * RDRAND) and those that C executes in both cases are left to the interpreter
 * alone.
 *
 * Several vCPUs take turns, of some blocks each, first come, first served.
 */
#include "engine/bt/lockstep.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "engine/bt/bt.h"
#include "engine/bt/interp_internal.h"
#include "engine/bt/t1_internal.h"

#define STEPS          64
#define TURN           32 /* blocks */
#define COMPARED_FLAGS (FLAGS_ARITH | FLAG_IF | FLAG_DF | FLAG_AC)

struct snapshot {
	uint64_t gpr[16], rip, rflags, base[SEG_COUNT];
	uint16_t sel[SEG_COUNT];
};

struct lockstep {
	struct undo_log undo;
	struct snapshot at[STEPS + 1];
	unsigned steps; /* instructions that the interpreter executed */
	bool vector;    /* the block can change vector registers */
	struct x86_state start, end;
	uint64_t blocks, insns;
	unsigned turn_left; /* blocks */
};

int lockstep_init(struct vcpu *v)
{
	v->lockstep = aligned_alloc(64, align_up(sizeof *v->lockstep, 64));
	if (!v->lockstep)
		return -1;
	memset(v->lockstep, 0, sizeof *v->lockstep);
	return 0;
}

void lockstep_free(struct vcpu *v)
{
	if (v->lockstep && v->lockstep->blocks)
		log_info("lockstep: %llu blocks, %llu instructions compared",
			 (unsigned long long)v->lockstep->blocks, (unsigned long long)v->lockstep->insns);
	free(v->lockstep);
	v->lockstep = NULL;
}

void lockstep_take_turn(struct vcpu *v)
{
	struct engine_vm *vm = v->vm;
	uint32_t mine = atomic_fetch_add(&vm->turn_ticket, 1);

	for (unsigned spin = 0; atomic_load(&vm->turn) != mine; spin++) {
		bt_serve(v);
		bt_relax(spin);
	}
	v->lockstep->turn_left = TURN;
}

void lockstep_end_turn(struct vcpu *v)
{
	atomic_fetch_add(&v->vm->turn, 1);
}

bool lockstep_next_turn(struct vcpu *v)
{
	struct engine_vm *vm = v->vm;

	if (v->lockstep->turn_left) {
		v->lockstep->turn_left--;
		return false;
	}
	v->lockstep->turn_left = TURN;
	if (atomic_load(&vm->turn_ticket) == atomic_load(&vm->turn) + 1)
		return false;
	lockstep_end_turn(v);
	lockstep_take_turn(v);
	return true;
}

static void take(const struct vcpu *v, struct snapshot *s)
{
	memcpy(s->gpr, v->st.gpr, sizeof s->gpr);
	s->rip = v->st.rip;
	s->rflags = v->st.rflags & COMPARED_FLAGS;
	for (unsigned i = 0; i < SEG_COUNT; i++) {
		s->base[i] = v->st.seg[i].base;
		s->sel[i] = v->st.seg[i].sel;
	}
}

/* The image is most of the state, and most blocks leave it alone. */
static void copy_state(const struct lockstep *l, struct x86_state *to, const struct x86_state *from)
{
	memcpy(to, from, l->vector ? sizeof *to : offsetof(struct x86_state, xsave));
}

void lockstep_reference(struct vcpu *v, const struct block *b)
{
	struct lockstep *l = v->lockstep;
	unsigned k = 0;

	l->vector = b->vector;
	copy_state(l, &l->start, &v->st);
	l->undo.n = 0;
	v->undo = &l->undo;
	v->in_gpr = true;
	take(v, &l->at[0]);
	while (k < b->n_insns && k < STEPS) {
		uint64_t here = v->st.rip;

		if (here != l->start.rip + b->map[k].guest_off)
			break;
		l->undo.step = k;
		v->bail = false;
		if (interp_try(v))
			break;
		take(v, &l->at[++k]);
	}
	v->in_gpr = v->bail = false;
	v->undo = NULL;
	v->exc = (struct exception){ 0 };
	l->steps = k;
	copy_state(l, &l->end, &v->st);
	for (unsigned i = 0; i < l->undo.n; i++)
		memcpy(l->undo.e[i].now, l->undo.e[i].host, l->undo.e[i].len);
	for (unsigned i = l->undo.n; i-- > 0;) {
		/* What a store wrote is what the next overlapping one found; going backwards undoes them all.
		 */
		memcpy(l->undo.e[i].now, l->undo.e[i].host, l->undo.e[i].len);
		memcpy(l->undo.e[i].host, l->undo.e[i].old, l->undo.e[i].len);
	}
	copy_state(l, &v->st, &l->start);
	mmu_set_mode(v);
}

/* Components in their initial state may hold anything in the image: make it what it stands for. */
static void normalise(const struct vcpu *v, uint8_t *x)
{
	memset(x + 6, 0, 18); /* FOP, FIP, FDP */
	memset(x + 28, 0, 4); /* MXCSR_MASK */
	memset(x + 416, 0, 96);
	xsave_spell_out(v, x);
	memset(x + 512, 0, 64);
}

static int differ(struct vcpu *v, const struct block *b, const char *what, uint64_t want, uint64_t got)
{
	if (!v->error[0])
		snprintf(v->error, sizeof v->error,
			 "lockstep: block at %#llx (%u instructions, stopped at %#llx): %s is %#llx, the "
			 "interpreter says %#llx",
			 (unsigned long long)b->va, b->n_insns, (unsigned long long)v->st.rip, what,
			 (unsigned long long)got, (unsigned long long)want);
	return -1;
}

int lockstep_compare(struct vcpu *v, const struct block *b)
{
	static const char *const names[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					       "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15" };
	struct lockstep *l = v->lockstep;
	struct snapshot now, *ref;
	unsigned k = l->steps;
	bool whole = true;

	take(v, &now);
	/* A way out before the end may lead where the end does: to the block's beginning. */
	if (now.rip != l->at[k].rip || v->exit_reason == T1_EXIT_INTERP || v->exit_reason == T1_EXIT_KICK ||
	    (v->exit_reason == T1_EXIT_LINK && v->exit_arg && ((struct block_exit *)v->exit_arg)->no_group))
		for (k = 0; k < l->steps && l->at[k].rip != now.rip; k++)
			;
	whole = k == l->steps;
	ref = &l->at[k];
	if (now.rip != ref->rip)
		return differ(v, b, "rip", ref->rip, now.rip);
	for (unsigned i = 0; i < 16; i++)
		if (now.gpr[i] != ref->gpr[i])
			return differ(v, b, names[i], ref->gpr[i], now.gpr[i]);
	if (now.rflags != ref->rflags)
		return differ(v, b, "rflags", ref->rflags, now.rflags);
	for (unsigned i = 0; i < SEG_COUNT; i++) {
		if (now.base[i] != ref->base[i])
			return differ(v, b, "a segment's base", ref->base[i], now.base[i]);
		if (now.sel[i] != ref->sel[i])
			return differ(v, b, "a selector", ref->sel[i], now.sel[i]);
	}
	if (whole && l->vector) {
		struct x86_state *s = &l->start; /* done with it: room for a copy */

		memcpy(s->xsave, v->st.xsave, sizeof s->xsave);
		normalise(v, s->xsave);
		normalise(v, l->end.xsave);
		for (unsigned i = 0; i < X86_XSAVE_MAX; i++)
			if (s->xsave[i] != l->end.xsave[i])
				return differ(v, b, "a byte of the XSAVE image", l->end.xsave[i] | i << 8,
					      s->xsave[i] | i << 8);
	}
	for (unsigned i = 0; i < l->undo.n; i++) {
		bool last = l->undo.e[i].step < k;

		/* Later stores to the same bytes are what counts. */
		for (unsigned j = i + 1; j < l->undo.n && last; j++)
			if (l->undo.e[j].step < k &&
			    (uint8_t *)l->undo.e[j].host < (uint8_t *)l->undo.e[i].host + l->undo.e[i].len &&
			    (uint8_t *)l->undo.e[i].host < (uint8_t *)l->undo.e[j].host + l->undo.e[j].len)
				last = false;
		if (last && memcmp(l->undo.e[i].host, l->undo.e[i].now, l->undo.e[i].len)) {
			uint64_t want = 0, got = 0;

			memcpy(&want, l->undo.e[i].now, l->undo.e[i].len > 8 ? 8 : l->undo.e[i].len);
			memcpy(&got, l->undo.e[i].host, l->undo.e[i].len > 8 ? 8 : l->undo.e[i].len);
			return differ(v, b, "memory", want, got);
		}
	}
	l->blocks++;
	l->insns += k;
	v->stats.lockstep_insns = l->insns;
	return 0;
}
