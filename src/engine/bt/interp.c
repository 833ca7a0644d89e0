/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interpreter's core: fetch, decode (cached), execute, and what is due at
 * the instruction boundary.
 *
 * The life of one instruction:
 *  1. Fetch: linear address from CS:RIP, translated for execution; the bytes
 *     of a cached decode are compared with memory, so stale entries cannot run.
 *  2. Is its unit enabled (#UD, #NM)?
 *  3. Execute: by class (decode.h).
 *  4. Advance RIP, clear RF, take single-step and data-breakpoint traps.
 *
 * Native instructions are re-encoded once into a small code arena and called
 * through native_call.  In that code guest RSP must not be in host RSP, and the
 * memory operand needs a register for its host pointer: both get registers that
 * the instruction does not use.
 */
#include "engine/bt/bt.h"
#include "engine/bt/interp_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/util.h"
#include "engine/bt/reencode.h"

#define ICACHE_SIZE 4096
#define ARENA_SIZE  (256u << 10)

struct ientry {
	uint64_t pa;
	uint8_t mode; /* code size | real << 4 */
	struct insn in;
	void *code;              /* native form, or NULL */
	uint8_t ptr_reg, sp_reg; /* host registers for the memory pointer and guest RSP; 0xff: unused */
};

struct icache {
	struct ientry e[ICACHE_SIZE];
	uint16_t last;                                /* mnemonic executed last */
	uint64_t count[ZYDIS_MNEMONIC_MAX_VALUE + 1]; /* by mnemonic, for the statistics */
	uint8_t *arena;
	size_t used;
};

int interp_init(struct vcpu *v)
{
	v->icache = calloc(1, sizeof *v->icache);
	if (!v->icache)
		return -ENOMEM;
	for (int i = 0; i < ICACHE_SIZE; i++)
		v->icache->e[i].pa = ~0ull;
	v->icache->arena =
	    mmap(NULL, ARENA_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (v->icache->arena == MAP_FAILED) {
		free(v->icache);
		v->icache = NULL;
		return -ENOMEM;
	}
	return 0;
}

void interp_free(struct vcpu *v)
{
	if (!v->icache)
		return;
	munmap(v->icache->arena, ARENA_SIZE);
	free(v->icache);
	v->icache = NULL;
}

/* ---- fetch ---- */

/* Are in's bytes those at code, of which `avail` can be read? */
static bool same_bytes(const struct insn *in, const uint8_t *code, size_t avail)
{
	uint64_t a[2], b[2];

	if (avail < sizeof a)
		return in->len <= avail && memcmp(in->bytes, code, in->len) == 0;
	_Static_assert(offsetof(struct insn, len) >= 15, "one byte more than bytes[] has is read");
	memcpy(a, in, sizeof a);
	memcpy(b, code, sizeof b);
	if (in->len <= 8)
		return (a[0] ^ b[0]) << (64 - 8 * in->len) == 0;
	return a[0] == b[0] && (a[1] ^ b[1]) << (128 - 8 * in->len) == 0;
}

static int fetch(struct vcpu *v, struct ientry **ret)
{
	struct x86_state *s = &v->st;
	bool c64 = is_code64(v);
	bool real = !(s->cr0 & CR0_PE) || is_v86(v);
	unsigned mode = c64 ? 8 : (s->seg[SEG_CS].attr & SEG_DB) ? 4 : 2;
	unsigned acc = ACC_X | mmu_acc(v);
	uint64_t lin = c64 ? s->rip : (uint32_t)(s->seg[SEG_CS].base + s->rip);
	uint64_t pa, pa2;
	uint8_t buf[16];
	const uint8_t *code;
	void *host, *host2;
	bool dummy;
	size_t avail;
	struct ientry *e;
	int r;

	if (c64 ? !canonical(lin) : s->rip > s->seg[SEG_CS].limit)
		return exc_gp(v, 0);
	if (mmu_host(v, lin, acc, &host, &pa, &dummy))
		return -1;
	avail = PAGE_SIZE - (lin & 0xfff);
	if (host) {
		code = host;
		pa = mem_ptr_to_gpa(v->mem, host).v;
	} else {
		avail = avail > 15 ? 15 : avail;
		for (size_t i = 0; i < avail; i++)
			buf[i] = (uint8_t)mem_mmio_read(v->mem, GPA(pa + i), 1);
		code = buf;
	}
	e = &v->icache->e[(pa ^ pa >> 12) & (ICACHE_SIZE - 1)];
	if (e->pa == pa && e->mode == (mode | real << 4) && same_bytes(&e->in, code, avail))
		goto found;
	e->pa = ~0ull;
	e->code = NULL;
	r = insn_decode(code, avail, mode, real, &e->in);
	if (r == DECODE_MORE) {
		uint64_t next = c64 ? lin + avail : (uint32_t)(lin + avail);

		memmove(buf, code, avail);
		if (c64 && !canonical(next))
			return exc_gp(v, 0);
		if (mmu_host(v, next, acc, &host2, &pa2, &dummy))
			return -1;
		for (size_t i = avail; i < 15; i++)
			buf[i] = host2 ? ((uint8_t *)host2)[i - avail]
				       : (uint8_t)mem_mmio_read(v->mem, GPA(pa2 + i - avail), 1);
		r = insn_decode(buf, 15, mode, real, &e->in);
	} else if (r == DECODE_OK) {
		e->pa = pa;
		e->mode = (uint8_t)(mode | real << 4);
	}
	if (r == DECODE_OK)
		insn_restrict(&e->in, v->model);
	if (r == DECODE_UD)
		return exc_ud(v);
	if (r != DECODE_OK)
		return exc_gp(v, 0);
found:
	if (!c64 && s->rip + e->in.len - 1 > s->seg[SEG_CS].limit)
		return exc_gp(v, 0);
	*ret = e;
	return 0;
}

/* ---- is the unit enabled? (SDM 3A 2.5, 13.1) ---- */

static int check_unit(struct vcpu *v, const struct insn *in)
{
	const struct x86_state *s = &v->st;

	switch (in->unit) {
	case UNIT_INT:
		return 0;
	case UNIT_X87:
		if (in->mnemonic == ZYDIS_MNEMONIC_FWAIT) {
			if ((s->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
				break;
			return 0;
		}
		if (s->cr0 & (CR0_EM | CR0_TS))
			break;
		return 0;
	case UNIT_FXSAVE:
		if (s->cr0 & (CR0_EM | CR0_TS))
			break;
		return 0;
	case UNIT_MMX:
		if (s->cr0 & CR0_EM)
			return exc_ud(v);
		if (s->cr0 & CR0_TS)
			break;
		return 0;
	case UNIT_SSE:
		if ((s->cr0 & CR0_EM) || !(s->cr4 & CR4_OSFXSR))
			return exc_ud(v);
		if (s->cr0 & CR0_TS)
			break;
		return 0;
	case UNIT_AVX:
	case UNIT_AVX512: {
		uint64_t need = in->unit == UNIT_AVX ? 6 : 0xe6;

		if (!(s->cr4 & CR4_OSXSAVE) || (s->xcr0 & need) != need || !is_protected(v))
			return exc_ud(v);
		if (s->cr0 & CR0_TS)
			break;
		return 0;
	}
	case UNIT_XSAVE:
		if (!(s->cr4 & CR4_OSXSAVE))
			return exc_ud(v);
		if (s->cr0 & CR0_TS)
			break;
		return 0;
	default:
		return 0;
	}
	exc_set(v, EXC_NM, false, 0);
	return -1;
}

/* ---- native execution ---- */

static unsigned pick_reg(uint32_t busy, bool low)
{
	static const uint8_t order[] = { RSI, RDI, RBX, RBP, RCX, RDX, RAX, R8, R9, R10, R11 };

	for (unsigned i = 0; i < sizeof order; i++)
		if (!(busy >> order[i] & 1) && (!low || order[i] < 8))
			return order[i];
	return R11;
}

/* Makes e's native code. False where none exists (cannot happen for valid instructions). */
static bool make_native(struct icache *c, struct ientry *e)
{
	const struct insn *in = &e->in;
	uint8_t map[16];
	uint32_t busy = 1u << RSP | in->regs_read | in->regs_written;
	struct host_mem hm = { .index = EMIT_NO_REG, .scale = 1 };
	struct emit em;

	if (in->high8)
		for (int i = 0; i < 3; i++)
			if (in->ops[i].high8)
				busy |= 1u << in->ops[i].reg;
	for (unsigned i = 0; i < 16; i++)
		map[i] = (uint8_t)i;
	e->ptr_reg = e->sp_reg = 0xff;
	if ((in->regs_read | in->regs_written) & 1u << RSP) {
		/* SPL and AH..BH cannot meet in one instruction, so any register will do. */
		e->sp_reg = (uint8_t)pick_reg(busy, in->reg8);
		busy |= 1u << e->sp_reg;
		map[RSP] = e->sp_reg;
	}
	if (in->has_mem) {
		e->ptr_reg = (uint8_t)pick_reg(busy, true);
		hm.base = e->ptr_reg;
	}
	if (c->used + REENCODE_MAX + 16 > ARENA_SIZE) {
		for (int i = 0; i < ICACHE_SIZE; i++)
			c->e[i].code = NULL;
		c->used = 0;
	}
	em = (struct emit){ .p = c->arena + c->used };
	e->code = NULL;
	if (!reencode(&em, in, map, &hm))
		return false;
	emit1(&em, 0xc3);
	e->code = c->arena + c->used;
	c->used = align_up((uint64_t)(em.p - c->arena), 16);
	return true;
}

/* A host fault in a native instruction is the guest's exception. */
static int native_exception(struct vcpu *v)
{
	switch (v->fault_trapno) {
	case EXC_DE:
	case EXC_MF:
	case EXC_XM:
	case EXC_UD:
		exc_set(v, (uint8_t)v->fault_trapno, false, 0);
		return -1;
	case EXC_GP:
	case EXC_AC:
		return exc_err(v, (uint8_t)v->fault_trapno, 0);
	default:
		snprintf(
		    v->error, sizeof v->error,
		    "host fault %llu at address %#llx while executing a guest instruction at %#llx (is the "
		    "host out of memory?)",
		    (unsigned long long)v->fault_trapno, (unsigned long long)v->fault_addr,
		    (unsigned long long)v->insn_rip);
		return exc_ud(v);
	}
}

/*
 * x87 errors as PCs before the 486 had them (SDM 1 8.7.2, D.2).  While CR0.NE is clear, an instruction that
 * waits for errors gives no #MF when it finds one: the processor asserts FERR#, for an interrupt, and stands
 * until one comes; the instruction has not begun.  With IGNNE# asserted it is executed as if there were no
 * error.  The error is noticed by the host's #MF, whichever tier meets it.  From then on until it is gone,
 * which takes FERR# back, x87 instructions are interpreted (control_flags).
 */
enum { IMAGE_FCW = 0, IMAGE_FSW = 2, IMAGE_FTW = 4, IMAGE_MXCSR = 24, IMAGE_BV = 512 };
#define FSW_ERRORS 0x3f
#define FSW_FLAGS  0x7f /* and the stack fault */
#define FSW_ES     0x80
#define FSW_B      0x80 /* of the high byte */

/* FERR# is asserted: takes it back if what was executed has dealt with the error. */
static void watch_ferr(struct vcpu *v)
{
	if ((v->st.xsave[IMAGE_BV] & 1) && (v->st.xsave[IMAGE_FSW] & FSW_ES))
		return;
	v->st.ferr = false;
	if (v->board.ferr)
		v->board.ferr(v->board.opaque, false);
}

static bool loads_fsw(const struct insn *in)
{
	return in->mnemonic == ZYDIS_MNEMONIC_FLDENV || in->mnemonic == ZYDIS_MNEMONIC_FRSTOR;
}

/* Executes what waits for errors with those that there are put aside. */
static int call_ignoring(struct vcpu *v, const struct insn *in, struct native_frame *f)
{
	uint8_t *x = v->st.xsave, flags = x[IMAGE_FSW] & FSW_FLAGS;
	int r;

	x[IMAGE_FSW] = 0;
	x[IMAGE_FSW + 1] &= (uint8_t)~FSW_B;
	r = native_call(f) ? native_exception(v) : 0;
	if (!r && loads_fsw(in))
		return 0;
	x[IMAGE_FSW] |= flags;
	if (flags & ~x[IMAGE_FCW] & FSW_ERRORS) {
		x[IMAGE_FSW] |= FSW_ES;
		x[IMAGE_FSW + 1] |= FSW_B;
	}
	x[IMAGE_BV] |= 1;
	return r;
}

/* 0; or -1: v->exc is the exception, or not present if the processor stands. */
static int call_native(struct vcpu *v, const struct insn *in, struct native_frame *f)
{
	if (!native_call(f))
		return 0;
	if (v->fault_trapno != EXC_MF || (v->st.cr0 & CR0_NE))
		return native_exception(v);
	if (needs_full(v))
		return -1;
	v->st.ferr = true;
	if (v->board.ferr && v->board.ferr(v->board.opaque, true))
		return call_ignoring(v, in, f);
	v->exc.present = false;
	v->st.halted = true;
	return -1;
}

/* BT/BTS/BTR/BTC with a register offset address a bit string (SDM 2A). */
static bool is_bit_string(const struct insn *in)
{
	if (!in->has_mem || in->map != ZYDIS_OPCODE_MAP_0F || in->enc != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
		return false;
	return in->opcode == 0xa3 || in->opcode == 0xab || in->opcode == 0xb3 || in->opcode == 0xbb;
}

/*
 * FNSTENV and FNSAVE store where the last x87 instruction and its operand were:
 * host addresses here.  The guest gets zeros, and never sees the others: the
 * image is made in the bounce buffer.
 */
static bool stores_fpu_env(const struct insn *in)
{
	return in->mnemonic == ZYDIS_MNEMONIC_FNSTENV || in->mnemonic == ZYDIS_MNEMONIC_FNSAVE;
}

/*
 * Intel's processors compute what they store before they look at where it goes, and changes of the x87 and
 * SSE state that this brings stay when the access then faults: an x87 store with an unmasked exception is
 * over without any access (SDM 1 8.4, 8.5), an MMX store has already made TOP (but not yet the tags) zero, a
 * conversion has set MXCSR's flags. 0: the instruction is done, -1: v->exc is the exception.
 */
static int faulting_store(struct vcpu *v, const struct insn *in, struct native_frame *f, uint8_t *buf)
{
	struct exception fault = v->exc;
	uint8_t image[X86_XSAVE_MAX], seen[128];

	memcpy(image, v->st.xsave, sizeof image);
	memset(buf, 0xa5, in->mem_size);
	memcpy(seen, buf, in->mem_size);
	if (call_native(v, in, f))
		return -1;
	if (in->unit == UNIT_X87) {
		if ((v->st.xsave[IMAGE_FSW] & FSW_ES) && !memcmp(seen, buf, in->mem_size))
			return 0;
	} else if (in->unit == UNIT_MMX) {
		v->st.xsave[IMAGE_FTW] = image[IMAGE_BV] & 1 ? image[IMAGE_FTW] : 0;
		memcpy(image, v->st.xsave, sizeof image);
	} else {
		memcpy(image + IMAGE_MXCSR, v->st.xsave + IMAGE_MXCSR, 4);
	}
	memcpy(v->st.xsave, image, sizeof image);
	v->exc = fault;
	return -1;
}

/* What is locked is atomic even across a page: done in a copy, while no other vCPU looks. */
static bool is_locked(const struct insn *in)
{
	return in->mem_write && (in->lock || in->mnemonic == ZYDIS_MNEMONIC_XCHG);
}

/* *stopped: the other vCPUs stand still. */
static int execute_native_with(struct vcpu *v, struct ientry *e, bool *stopped)
{
	const struct insn *in = &e->in;
	struct native_frame f;
	struct mref m;
	unsigned bit_reg = REG_NONE;
	uint64_t bit_val = 0;
	bool bad = false;

	if (!e->code && !make_native(v->icache, e))
		return exc_ud(v);
	if (in->has_mem) {
		uint64_t off = insn_ea(v, in), lin;

		if (is_bit_string(in)) {
			int64_t bit = (int64_t)sign_extend(v->st.gpr[in->ops[1].reg], in->opsize);

			off += (uint64_t)((bit >> (in->opsize == 8   ? 6
						   : in->opsize == 4 ? 5
								     : 4)) *
					  in->opsize);
			off &= size_mask(in->addrsize);
			bit_reg = in->ops[1].reg;
			bit_val = (uint64_t)bit & (in->opsize * 8 - 1);
		}
		if (in->mem_masked) {
			if (needs_full(v))
				return -1;
			bad = masked_open(v, in, off, &m);
		} else {
			bad = seg_linear(v, in->seg, off, in->mem_size ? in->mem_size : 1,
					 in->mem_write ? ACC_W : ACC_R, &lin);
			if (!bad && is_locked(in) && (lin & 0xfff) + in->mem_size > PAGE_SIZE &&
			    v->vm->nr_vcpus > 1) {
				bt_stop_others(v);
				*stopped = true;
			}
			bad = bad || mref_open(v, lin, in->mem_size, in->mem_read, in->mem_write, &m);
		}
		if (bad && !(in->store_state && v->model->vendor_intel))
			return -1;
	}
	memcpy(f.r, v->st.gpr, sizeof f.r);
	if (e->sp_reg != 0xff)
		f.r[e->sp_reg] = v->st.gpr[RSP];
	if (e->ptr_reg != 0xff)
		f.r[e->ptr_reg] = (uint64_t)((stores_fpu_env(in) && !m.bounce) || bad ? m.buf : m.host);
	if (bit_reg != REG_NONE)
		f.r[bit_reg == RSP ? e->sp_reg : bit_reg] = bit_val;
	f.flags = (v->st.rflags & FLAGS_ARITH) | FLAG_R1;
	f.code = e->code;
	f.xsave = in->unit == UNIT_INT ? NULL : v->st.xsave;
	f.xmask = v->xmask;
	if (bad)
		return faulting_store(v, in, &f, m.buf);
	if (call_native(v, in, &f))
		return -1;
	if (stores_fpu_env(in)) {
		fpu_env_scrub(m.bounce ? m.host : m.buf, in);
		if (!m.bounce)
			memcpy(m.host, m.buf, in->mem_size);
	}
	if (in->mem_masked && in->has_mem) {
		if (masked_close(v, in, &m))
			return -1;
	} else if (in->has_mem) {
		mref_close(v, &m);
	}
	if (bit_reg != REG_NONE) {
		v->st.rflags = (v->st.rflags & ~(uint64_t)FLAGS_ARITH) | (f.flags & FLAGS_ARITH);
		return 0;
	}
	for (unsigned i = 0; i < 16; i++) {
		if (!(in->regs_written >> i & 1))
			continue;
		v->st.gpr[i] = i == RSP ? f.r[e->sp_reg] : f.r[i];
	}
	v->st.rflags = (v->st.rflags & ~(uint64_t)FLAGS_ARITH) | (f.flags & FLAGS_ARITH);
	if (v->dr_watch && in->has_mem)
		return interp_check_watch(v, m.lin, m.size, in->mem_write);
	return 0;
}

static int execute_native(struct vcpu *v, struct ientry *e)
{
	bool stopped = false;
	int r = execute_native_with(v, e, &stopped);

	if (stopped)
		bt_resume_others(v);
	return r;
}

/* ---- debug ---- */

static bool code_breakpoint(struct vcpu *v)
{
	uint64_t lin = v->st.rip + (is_code64(v) ? 0 : v->st.seg[SEG_CS].base);
	bool hit = false;

	if (!v->dr_watch || (v->st.rflags & FLAG_RF))
		return false;
	/* Behind MOV SS and POP SS, Intel's processors do not look (SDM 3A 6.8.3). */
	if (v->st.shadow == X86_SHADOW_SS && v->model->vendor_intel)
		return false;
	for (int i = 0; i < 4; i++)
		if ((v->st.dr7 >> (2 * i) & 3) && !(v->st.dr7 >> (16 + 4 * i) & 3) && v->st.dr[i] == lin) {
			v->exc.dr6 |= 1ull << i;
			hit = true;
		}
	if (hit) {
		v->exc.vector = EXC_DB;
		v->exc.has_error = false;
		v->exc.soft = false;
		v->exc.present = true;
	}
	return hit;
}

/* ---- one instruction ---- */

static int execute(struct vcpu *v, struct ientry *e)
{
	struct insn *in = &e->in;
	int r;

	if (in->cls == INSN_UD)
		return exc_ud(v);
	if (check_unit(v, in))
		return -1;
	switch (in->cls) {
	case INSN_NOP:
		return 0;
	case INSN_NATIVE:
		return execute_native(v, e);
	default:
		break;
	}
	r = interp_control(v, in);
	if (r == 1)
		r = interp_string(v, in);
	if (r == 1)
		r = interp_system(v, in);
	if (r == 1 && in->unit != UNIT_INT && needs_full(v))
		return -1;
	if (r == 1)
		r = interp_fpstate(v, in);
	if (r == 1)
		r = interp_vector(v, in);
	if (r == 1)
		return exc_ud(v);
	return r;
}

int interp_try(struct vcpu *v)
{
	struct x86_state *s = &v->st;
	struct ientry *e;

	v->insn_rip = s->rip;
	v->exc.present = false;
	v->exc.soft = false;
	v->exc.dr6 = 0;
	v->switched = false;
	v->stats.interp_insns++;
	if (code_breakpoint(v) || fetch(v, &e))
		return -1;
	v->icache->count[e->in.mnemonic]++;
	v->icache->last = e->in.mnemonic;
	/* Default: fall through. Control flow overwrites RIP; a fault puts it back. */
	s->shadow = 0;
	s->rip += e->in.len;
	if (!is_code64(v))
		s->rip = (uint32_t)s->rip;
	if (execute(v, e)) {
		if (!v->switched)
			s->rip = v->insn_rip;
		return -1;
	}
	if (s->ferr && e->in.unit != UNIT_INT)
		watch_ferr(v);
	/* IRET has just loaded it, for the instruction that it goes to (SDM 3B 17.3.1.1). */
	if (!v->dr_watch ||
	    (e->in.mnemonic != ZYDIS_MNEMONIC_IRET && e->in.mnemonic != ZYDIS_MNEMONIC_IRETD &&
	     e->in.mnemonic != ZYDIS_MNEMONIC_IRETQ))
		s->rflags &= ~(uint64_t)FLAG_RF;
	return 0;
}

/* Is there a single-step trap after an instruction, which found TF as `before` and leaves it as `after`? */
static bool single_steps(uint16_t mnemonic, bool before, bool after)
{
	switch (mnemonic) {
	case ZYDIS_MNEMONIC_INT:
	case ZYDIS_MNEMONIC_INT1:
	case ZYDIS_MNEMONIC_INT3:
		/* Their delivery has cleared it. */
		return false;
	case ZYDIS_MNEMONIC_SYSCALL:
	case ZYDIS_MNEMONIC_SYSRET:
		/* TF counts as it is at their end (APM 3, SYSCALL). */
		return after;
	default:
		return before;
	}
}

void interp_step(struct vcpu *v)
{
	struct x86_state *s = &v->st;
	uint64_t tf = s->rflags & FLAG_TF;

	if (interp_try(v)) {
		v->held_dr6 = 0;
		if (v->exc.present)
			event_exception(v);
		return;
	}
	/* INT1 is itself the #DB that what was held joins. */
	if (v->icache->last != ZYDIS_MNEMONIC_INT1)
		v->exc.dr6 |= v->held_dr6;
	v->held_dr6 = 0;
	if (single_steps(v->icache->last, tf, s->rflags & FLAG_TF))
		v->exc.dr6 |= 1u << 14;
	if (s->shadow == X86_SHADOW_SS) {
		/* A single step is forgotten, a breakpoint waits. */
		v->held_dr6 = v->exc.dr6 & 0xf;
	} else if (v->exc.dr6) {
		v->exc = (struct exception){ .vector = EXC_DB, .dr6 = v->exc.dr6, .present = true };
		event_exception(v);
	}
}

void interp_run_until_event(struct vcpu *v)
{
	do {
		interp_step(v);
		if (v->st.halted || v->st.shutdown || v->error[0] ||
		    atomic_load_explicit(&v->kick, memory_order_relaxed))
			return;
	} while (!event_pending(v));
}

bool interp_owns_code(const struct vcpu *v, uint64_t rip)
{
	uint64_t base = (uint64_t)v->icache->arena;

	return rip >= base && rip < base + ARENA_SIZE;
}

void interp_stats(const struct vcpu *v, struct engine_stats *ret)
{
	for (unsigned m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++) {
		uint64_t n = v->icache->count[m];
		unsigned k = ARRAY_SIZE(ret->interp_top);

		while (k && n > ret->interp_top[k - 1].count) {
			if (k < ARRAY_SIZE(ret->interp_top))
				ret->interp_top[k] = ret->interp_top[k - 1];
			k--;
			ret->interp_top[k].count = n;
			snprintf(ret->interp_top[k].name, sizeof ret->interp_top[k].name, "%s",
				 ZydisMnemonicGetString((ZydisMnemonic)m));
		}
	}
}
