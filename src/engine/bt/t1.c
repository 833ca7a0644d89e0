/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running translated code: finding blocks, linking them, and what comes back.
 *
 * State crosses here.  In translated code the arithmetic flags, IF, DF and AC
 * live in fields of their own; st.rflags is whole again whenever other C code
 * runs (sync_out).
 *
 * Kicks.  Translated code never looks at the kick flag.  The signal's handler
 * finds out where the thread is: in a block, it unlinks that block's exits, so
 * that the next jump out of it comes here; the jump cache is swapped for one
 * that always misses.  In one of the few stretches between C and blocks, it
 * sends the thread back to that stretch's own look at the flag.
 */
#include "engine/bt/t1.h"

#include <string.h>

#include "base/util.h"
#include "engine/bt/bt.h"
#include "engine/bt/cache.h"
#include "engine/bt/interp.h"
#include "engine/bt/lockstep.h"
#include "engine/bt/mmu.h"
#include "engine/bt/t1_internal.h"
#include "engine/bt/t1_offsets.h"
#include "engine/bt/t2.h"

_Static_assert(V_GPR == offsetof(struct vcpu, st.gpr), "t1_offsets.h");
_Static_assert(V_XSAVE == offsetof(struct vcpu, st.xsave), "t1_offsets.h");
_Static_assert(V_DIRECT_SKIP == offsetof(struct vcpu, direct_skip), "t1_offsets.h");
_Static_assert(V_KICK == offsetof(struct vcpu, kick), "t1_offsets.h");
_Static_assert(V_HOST_RSP == offsetof(struct vcpu, host_rsp), "t1_offsets.h");
_Static_assert(V_IN_T1 == offsetof(struct vcpu, in_t1), "t1_offsets.h");
_Static_assert(V_XMASK == offsetof(struct vcpu, xmask), "t1_offsets.h");
_Static_assert(V_T1_CODE == offsetof(struct vcpu, t1_code), "t1_offsets.h");
_Static_assert(V_EXIT_REASON == offsetof(struct vcpu, exit_reason), "t1_offsets.h");
_Static_assert(V_EXIT_ARG == offsetof(struct vcpu, exit_arg), "t1_offsets.h");
_Static_assert(V_SCRATCH == offsetof(struct vcpu, scratch), "t1_offsets.h");
_Static_assert(V_NEEDS_SYNC == offsetof(struct vcpu, needs_sync), "t1_offsets.h");
_Static_assert(V_RIP == offsetof(struct vcpu, st.rip), "t1_offsets.h");
_Static_assert(T1_LINK == T1_EXIT_LINK && T1_KICK == T1_EXIT_KICK && T1_DISPATCH == T1_EXIT_DISPATCH,
	       "t1_offsets.h");

int t1_init(struct vcpu *v, uint64_t code_size)
{
	int r;

	v->slow_mem = (uint64_t)t1_slow_thunk;
	v->find_thunk = (uint64_t)t1_find_thunk;
	v->special_thunk = (uint64_t)t1_special_thunk;
	r = cache_init(v, code_size);
	return r;
}

void t1_free(struct vcpu *v)
{
	cache_free(v);
}

/* Times are counted in host TSC ticks; bt_stats turns them into nanoseconds. */
static int64_t ticks(void)
{
	return (int64_t)__builtin_ia32_rdtsc();
}

/* The block at va, found or made; or NULL. */
static struct block *block_at(struct vcpu *v, uint64_t va, uint32_t flags)
{
	struct block *b;
	uint64_t pa;
	void *host;
	bool dummy;

	if (mmu_host(v, pc_linear(flags, va), ACC_X | mmu_acc(v), &host, &pa, &dummy)) {
		v->exc.present = false; /* the interpreter raises it */
		return NULL;
	}
	if (!host)
		return NULL;
	pa = mem_ptr_to_gpa(v->mem, host).v;
	b = cache_find(v, pa, va, flags);
	if (!b && !cache_stormy(v, host)) {
		int64_t start = ticks();

		b = translate(v, va, pa, host, flags);
		v->stats.translate_ns += ticks() - start;
		if (b && (flags & BLOCK_USER))
			t2_translated(v);
	}
	return b;
}

/* The block at RIP, or NULL: interpret one instruction. */
static struct block *find_block(struct vcpu *v, uint32_t flags)
{
	uint64_t va = pc_of(v, flags);
	struct block *b;

	v->exc.present = false;
	if (x86_code64(&v->st) && !canonical(va))
		return NULL;
	do {
		v->cache->again = false;
		b = block_at(v, va, flags);
	} while (v->cache->again);
	cache_settle(v);
	return b && b->n_insns ? b : NULL;
}

/* Must the run loop look at events? */
static bool must_look(struct vcpu *v)
{
	return v->st.halted || v->st.shutdown || v->error[0] || event_pending(v);
}

/* Executes one instruction by interpretation; as must_look. */
static bool interpret(struct vcpu *v)
{
	int64_t start = ticks();

	interp_step(v);
	v->stats.interp_ns += ticks() - start;
	return must_look(v);
}

/* Is the code at RIP better left to the interpreter? */
static bool stormy(struct vcpu *v, uint32_t flags)
{
	uint64_t pa;
	void *host;
	bool dummy;

	if (x86_long_mode(&v->st) ||
	    mmu_host(v, pc_linear(flags, pc_of(v, flags)), ACC_X | mmu_acc(v), &host, &pa, &dummy)) {
		v->exc.present = false;
		return false;
	}
	return host && cache_stormy(v, host);
}

/* Likewise as long as code in the current mode, or at the current place, is not to be translated. */
static bool interpret_mode(struct vcpu *v)
{
	int64_t start = ticks();
	bool events;
	uint32_t flags;

	do {
		if (!v->dr_watch)
			v->st.rflags &= ~(uint64_t)FLAG_RF;
		interp_step(v);
		events = must_look(v) || atomic_load_explicit(&v->kick, memory_order_relaxed);
	} while (!events && (!t1_mode_flags(v, &flags) || stormy(v, flags)));
	v->stats.interp_ns += ticks() - start;
	return events;
}

/* An indirect jump out of the address space: back to before it, so that the interpreter does it and raises
 * the exception. */
static void undo_jump(struct vcpu *v)
{
	const struct origin *o = (const struct origin *)(v->cache->meta + v->origin);

	v->st.rip = cache_rip(v, o->from, o->guest_off);
	v->st.gpr[RSP] += (uint64_t)(int64_t)o->rsp;
}

void t1_run(struct vcpu *v)
{
	struct block_exit *link = NULL;
	uint32_t flags, last_flags = ~0u, generation = 0;
	bool asked = false;

	for (;;) {
		struct block *b;
		int64_t start;

		if (atomic_load_explicit(&v->kick, memory_order_relaxed))
			return;
		if (v->lockstep && lockstep_next_turn(v))
			link = NULL;
		if (!t1_mode_flags(v, &flags)) {
			link = NULL;
			if (interpret_mode(v))
				return;
			continue;
		}
		if (!v->dr_watch)
			v->st.rflags &= ~(uint64_t)FLAG_RF;
		if (!asked && (flags & BLOCK_USER) && t2_wants_at(v, pc_of(v, flags))) {
			struct block_exit *way = link;
			uint64_t here = v->st.rip;

			link = NULL;
			switch (t2_run(v)) {
			case T2_DONE:
				return;
			case T2_INTERP:
				if (interpret(v))
					return;
				break;
			case T2_T1_PAGE:
				/* Links do not leave a page of user code, and a loop there wants them. */
				if (v->st.rip == here)
					link = way;
				break;
			case T2_T1:
				asked = true;
				/* The way to a block without groups must not be forgotten, or the one with
				 * them is tried for ever. */
				if (v->st.rip == here && way && way->no_group)
					link = way;
				break;
			}
			continue;
		}
		asked = false;
		if (flags != last_flags) {
			/* Jump-cache entries and links belong to one set of mode flags. */
			if (flags != v->jc_flags[block_class(flags)]) {
				mmu_flush_jc(v);
				v->jc_flags[block_class(flags)] = flags;
			}
			last_flags = flags;
		}
		if (v->vm->stress.flush)
			mmu_stress_flush(v);
		b = find_block(v, flags | (link && link->no_group ? BLOCK_NOGROUP : 0));
		if (generation != v->cache->generation) {
			generation = v->cache->generation;
			link = NULL;
		}
		if (!b) {
			link = NULL;
			if (interpret_mode(v))
				return;
			continue;
		}
		if (v->links_gen != v->global_gen) {
			cache_unlink_global(v->cache);
			v->links_gen = v->global_gen;
		}
		if (v->lockstep)
			lockstep_reference(v, b);
		else if (!v->alone)
			cache_follow(v, link, b, pc_of(v, flags));
		link = NULL;
		v->cur_flags = flags;
		t1_sync_in(v);
		if (flags & BLOCK_SEG)
			t1_segments(v);
		mmu_set_mode(v);
		if (v->alone)
			v->jc_base = v->empty_jc;
		v->t1_code = (uint64_t)b->entry_jc;
		start = ticks();
		t1_enter(v);
		v->stats.t1_ns += ticks() - start;
		v->stats.exits++;
		if (v->needs_sync)
			t1_sync_out(v);
		if (v->lockstep && lockstep_compare(v, b))
			return;
		switch (v->exit_reason) {
		case T1_EXIT_LINK:
			link = (struct block_exit *)v->exit_arg;
			if (!link && v->origin && x86_code64(&v->st) && !canonical(v->st.rip)) {
				undo_jump(v);
				if (interpret(v))
					return;
			}
			break;
		case T1_EXIT_INTERP:
			if (interpret(v))
				return;
			break;
		case T1_EXIT_STI:
			/* The instruction after STI, in its shadow, then the interrupt. */
			v->st.shadow = X86_SHADOW_STI;
			if (interpret(v))
				return;
			break;
		case T1_EXIT_KICK:
			return;
		default:
			/* An instruction or an exception that C did may have halted or shut the processor
			 * down. */
			if (must_look(v))
				return;
			break;
		}
	}
}

/* ---- signals ---- */

static bool within(uint64_t x, const void *lo, const void *hi)
{
	return x >= (uint64_t)lo && x < (uint64_t)hi;
}

void t1_kick_signal(struct vcpu *v, ucontext_t *uc)
{
	greg_t *r = uc->uc_mcontext.gregs;
	uint64_t rip = (uint64_t)r[REG_RIP];
	struct bt_cache *c = v->cache;
	struct block *b;

	if (!v->in_t1 || !c)
		return;
	v->jc_base = v->empty_jc;
	if (within(rip, t1_enter_check, t1_enter_end)) {
		r[REG_RIP] = (greg_t)t1_enter_check;
	} else if (within(rip, t1_special_check, t1_special_end)) {
		r[REG_RIP] = (greg_t)t1_special_check;
	} else if (within(rip, t1_quick_check, t1_quick_end)) {
		r[REG_RIP] = (greg_t)t1_quick_check;
	} else if (within(rip, t1_slow_check, t1_slow_end)) {
		r[REG_RIP] = (greg_t)t1_slow_check;
	} else if (within(rip, t1_find_check, t1_find_end)) {
		r[REG_RIP] = (greg_t)t1_find_check;
	} else if (within(rip, c->stub_lookup, c->stub_lookup_end)) {
		r[REG_RIP] = (greg_t)c->stub_lookup;
	} else if (within(rip, c->rx, c->rx + c->size)) {
		b = cache_find_host(c, rip);
		if (b)
			cache_unlink_all(c, b);
	}
}

bool t1_fault_signal(struct vcpu *v, ucontext_t *uc)
{
	greg_t *r = uc->uc_mcontext.gregs;
	uint64_t rip = (uint64_t)r[REG_RIP], off;
	struct bt_cache *c = v->cache;
	struct block *b;

	if (!v->in_t1 || !c || !within(rip, c->rx, c->rx + c->size))
		return false;
	b = cache_find_host(c, rip);
	if (!b)
		return false;
	off = rip - (uint64_t)b->code;
	for (unsigned i = 0; i < b->n_insns; i++)
		if (off < b->map[i].host_end) {
			/* The copied instruction changed nothing; flags that were in RFLAGS go where the exit
			 * expects them. */
			bool redo = !b->map[i].in_host && b->map[i].redo;

			if (b->map[i].in_host)
				v->t1_flags =
				    ((uint64_t)r[REG_EFL] & 0xff) << 8 | ((uint64_t)r[REG_EFL] >> 11 & 1);
			if (b->map[i].string) {
				r[REG_RDI] -= r[REG_R13];
				r[REG_RSI] -= r[REG_R14];
			}
			v->st.rip = cache_rip(v, b, b->map[i].guest_off);
			v->exit_reason = T1_EXIT_INTERP;
			r[REG_RIP] = redo ? (greg_t)(b->code + b->map[i].redo) : (greg_t)t1_exit;
			r[REG_EFL] &= ~(greg_t)(FLAG_TF | FLAG_DF | FLAG_AC);
			return true;
		}
	return false;
}

/* ---- invalidation ---- */

void t1_invalidate(struct vcpu *v, const void *host, uint64_t len)
{
	cache_invalidate(v, host, len);
}

void t1_flush(struct vcpu *v)
{
	if (v->cache)
		cache_flush(v);
}
