/* SPDX-License-Identifier: Apache-2.0 */
/* Control flow, the stack, and the decimal leftovers. */
#include "engine/bt/interp_internal.h"

void flags_write(struct vcpu *v, uint64_t val, uint64_t mask)
{
	uint64_t valid = FLAGS_ARITH | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT | FLAG_RF | FLAG_AC |
			 FLAG_VIF | FLAG_VIP | FLAG_ID;

	mask &= valid;
	v->st.rflags = (v->st.rflags & ~mask) | (val & mask) | FLAG_R1;
}

void mode_changed(struct vcpu *v)
{
	mmu_set_mode(v);
}

int branch_to(struct vcpu *v, uint64_t target, unsigned opsize)
{
	if (is_code64(v)) {
		if (opsize == 2)
			target &= 0xffff;
		if (!canonical(target))
			return exc_gp(v, 0);
	} else {
		target &= size_mask(opsize);
		if (target > v->st.seg[SEG_CS].limit)
			return exc_gp(v, 0);
	}
	v->st.rip = target;
	return 0;
}

/* Notes a data breakpoint that [lin, lin+size) hits; the trap is taken after the instruction. Always 0. */
int interp_check_watch(struct vcpu *v, uint64_t lin, unsigned size, bool write)
{
	for (int i = 0; i < 4; i++) {
		unsigned rw = v->st.dr7 >> (16 + 4 * i) & 3;
		static const uint8_t lens[4] = { 1, 2, 8, 4 };
		unsigned len = lens[v->st.dr7 >> (18 + 4 * i) & 3];
		uint64_t at = v->st.dr[i] & ~(uint64_t)(len - 1);

		if (!(v->st.dr7 >> (2 * i) & 3) || !(rw & 1) || (rw == 1 && !write))
			continue;
		if (lin < at + len && at < lin + size)
			v->exc.dr6 |= 1ull << i;
	}
	return 0;
}

bool x86_condition(unsigned cc, uint64_t f);

/* Jcc, SETcc and CMOVcc conditions (SDM 1 appendix B). */
bool x86_condition(unsigned cc, uint64_t f)
{
	bool r;

	switch (cc >> 1) {
	case 0:
		r = f & FLAG_OF;
		break;
	case 1:
		r = f & FLAG_CF;
		break;
	case 2:
		r = f & FLAG_ZF;
		break;
	case 3:
		r = f & (FLAG_CF | FLAG_ZF);
		break;
	case 4:
		r = f & FLAG_SF;
		break;
	case 5:
		r = f & FLAG_PF;
		break;
	case 6:
		r = !(f & FLAG_SF) != !(f & FLAG_OF);
		break;
	default:
		r = (f & FLAG_ZF) || !(f & FLAG_SF) != !(f & FLAG_OF);
		break;
	}
	return r ^ (cc & 1);
}

/* An explicit source operand that is a register, memory or immediate. */
static int operand_get(struct vcpu *v, const struct insn *in, unsigned i, unsigned size, uint64_t *val)
{
	switch (in->ops[i].type) {
	case ZYDIS_OPERAND_TYPE_REGISTER:
		if (in->ops[i].cls == ZYDIS_REGCLASS_SEGMENT)
			*val = v->st.seg[in->ops[i].reg].sel;
		else
			*val = reg_get(v, in->ops[i].reg, size);
		return 0;
	case ZYDIS_OPERAND_TYPE_MEMORY:
		*val = 0;
		return vmem_read(v, in->seg, insn_ea(v, in), val, size);
	default:
		*val = (uint64_t)in->imm[0];
		return 0;
	}
}

/* Near branches: operand size is 64 bits in 64-bit mode (Intel and, without a prefix, AMD). */
static unsigned branch_size(const struct vcpu *v, const struct insn *in)
{
	return is_code64(v) ? 8 : in->opsize;
}

static int far_pointer(struct vcpu *v, const struct insn *in, uint16_t *sel, uint64_t *off)
{
	if (in->ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY) {
		uint8_t buf[10] = { 0 };
		uint64_t ea = insn_ea(v, in);

		if (vmem_read(v, in->seg, ea, buf, in->opsize + 2))
			return -1;
		*off = 0;
		memcpy(off, buf, in->opsize);
		memcpy(sel, buf + in->opsize, 2);
		return 0;
	}
	*off = (uint64_t)in->imm[0] & size_mask(in->opsize);
	*sel = (uint16_t)in->imm[1];
	return 0;
}

static int do_jmp_call(struct vcpu *v, const struct insn *in, bool call)
{
	unsigned size = branch_size(v, in);
	uint64_t next = v->st.rip, target, old_rip = v->st.rip;
	uint16_t sel;

	if (in->far) {
		if (far_pointer(v, in, &sel, &target))
			return -1;
		return call ? far_call(v, sel, target, in->opsize, next)
			    : far_jump(v, sel, target, in->opsize, next);
	}
	if (in->imm_relative)
		target = next + (uint64_t)in->imm[0];
	else if (operand_get(v, in, 0, size, &target))
		return -1;
	if (branch_to(v, target, size))
		return -1;
	if (call && push_val(v, old_rip, size))
		return -1;
	return 0;
}

static int do_ret(struct vcpu *v, const struct insn *in)
{
	unsigned size = branch_size(v, in);
	unsigned release =
	    in->nops && in->ops[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? (uint16_t)in->imm[0] : 0;
	uint64_t target, rsp = v->st.gpr[RSP];

	if (in->far)
		return far_ret(v, in->opsize, release);
	if (pop_val(v, &target, size))
		return -1;
	if (branch_to(v, target, size)) {
		v->st.gpr[RSP] = rsp;
		return -1;
	}
	if (release)
		addr_set(v, RSP, stack_width(v), v->st.gpr[RSP] + release);
	return 0;
}

static int do_cond(struct vcpu *v, const struct insn *in, bool *handled)
{
	unsigned size = branch_size(v, in);
	uint64_t target = v->st.rip + (uint64_t)in->imm[0], count;
	bool take;

	*handled = true;
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_JCXZ:
	case ZYDIS_MNEMONIC_JECXZ:
	case ZYDIS_MNEMONIC_JRCXZ:
		take = reg_get(v, RCX, in->addrsize) == 0;
		break;
	case ZYDIS_MNEMONIC_LOOP:
	case ZYDIS_MNEMONIC_LOOPE:
	case ZYDIS_MNEMONIC_LOOPNE:
		count = (v->st.gpr[RCX] - 1) & size_mask(in->addrsize);
		take = count != 0;
		if (in->mnemonic == ZYDIS_MNEMONIC_LOOPE)
			take &= !!(v->st.rflags & FLAG_ZF);
		else if (in->mnemonic == ZYDIS_MNEMONIC_LOOPNE)
			take &= !(v->st.rflags & FLAG_ZF);
		if (take && branch_to(v, target, size))
			return -1;
		addr_set(v, RCX, in->addrsize, count);
		return 0;
	default:
		if (!in->imm_relative) {
			*handled = false;
			return 0;
		}
		take = x86_condition(in->cond, v->st.rflags);
		break;
	}
	return take ? branch_to(v, target, size) : 0;
}

static int do_push(struct vcpu *v, const struct insn *in)
{
	uint64_t val;

	if (operand_get(v, in, 0, in->opsize, &val))
		return -1;
	if (in->opsize == 4 && in->ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
	    in->ops[0].cls == ZYDIS_REGCLASS_SEGMENT && v->model->vendor_intel) {
		/* Intel moves the 16 bits and leaves the upper half of the slot as it was, AMD zero-extends
		 * (SDM 2B PUSH). */
		unsigned w = stack_width(v);
		uint64_t sp = (v->st.gpr[RSP] - 4) & size_mask(w);

		if (vmem_write(v, SEG_SS, sp, &val, 2))
			return -1;
		addr_set(v, RSP, w, sp);
		return 0;
	}
	return push_val(v, val, in->opsize);
}

static int do_pop(struct vcpu *v, const struct insn *in)
{
	uint64_t val, rsp = v->st.gpr[RSP];

	if (in->ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER && in->ops[0].cls == ZYDIS_REGCLASS_SEGMENT) {
		unsigned seg = in->ops[0].reg;

		if (pop_val(v, &val, in->opsize))
			return -1;
		if (seg_load(v, seg, (uint16_t)val)) {
			v->st.gpr[RSP] = rsp;
			return -1;
		}
		if (seg == SEG_SS)
			v->st.shadow = X86_SHADOW_SS;
		mode_changed(v);
		return 0;
	}
	if (pop_val(v, &val, in->opsize))
		return -1;
	if (in->ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY) {
		/* The address uses the incremented RSP. */
		if (vmem_write(v, in->seg, insn_ea(v, in), &val, in->opsize)) {
			v->st.gpr[RSP] = rsp;
			return -1;
		}
		return 0;
	}
	reg_set(v, in->ops[0].reg, in->opsize, val);
	return 0;
}

static int do_pusha(struct vcpu *v, unsigned size)
{
	static const uint8_t order[8] = { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI };
	uint64_t rsp = v->st.gpr[RSP];

	for (int i = 0; i < 8; i++)
		if (push_val(v, order[i] == RSP ? rsp : v->st.gpr[order[i]], size)) {
			v->st.gpr[RSP] = rsp;
			return -1;
		}
	return 0;
}

static int do_popa(struct vcpu *v, unsigned size)
{
	static const uint8_t order[8] = { RDI, RSI, RBP, RSP, RBX, RDX, RCX, RAX };
	uint64_t rsp = v->st.gpr[RSP], val[8];

	for (int i = 0; i < 8; i++)
		if (pop_val(v, &val[i], size)) {
			v->st.gpr[RSP] = rsp;
			return -1;
		}
	for (int i = 0; i < 8; i++)
		if (order[i] != RSP)
			reg_set(v, order[i], size, val[i]);
	return 0;
}

static int do_pushf(struct vcpu *v, unsigned size)
{
	if (is_v86(v) && (v->st.rflags >> 12 & 3) < 3)
		return exc_gp(v, 0);
	return push_val(v, v->st.rflags & ~(uint64_t)(FLAG_RF | FLAG_VM), size);
}

static int do_popf(struct vcpu *v, unsigned size)
{
	uint64_t val, mask = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_AC | FLAG_ID;
	unsigned io = (unsigned)(v->st.rflags >> 12 & 3);

	if (is_v86(v) && io < 3)
		return exc_gp(v, 0);
	if (pop_val(v, &val, size))
		return -1;
	if (!is_v86(v)) {
		if (cpl(v) == 0 || !(v->st.cr0 & CR0_PE))
			mask |= FLAG_IOPL | FLAG_IF;
		else if (cpl(v) <= io)
			mask |= FLAG_IF;
	} else {
		mask |= FLAG_IF;
	}
	if (size == 2)
		mask &= 0xffff;
	flags_write(v, val, mask);
	v->st.rflags &= ~(uint64_t)FLAG_RF;
	mode_changed(v);
	return 0;
}

static int do_enter(struct vcpu *v, const struct insn *in)
{
	unsigned size = in->opsize, w = stack_width(v), level = (unsigned)in->imm[1] & 31;
	uint64_t alloc = (uint16_t)in->imm[0], rsp = v->st.gpr[RSP], rbp = v->st.gpr[RBP], frame;

	if (push_val(v, rbp, size))
		return -1;
	frame = v->st.gpr[RSP];
	if (level) {
		for (unsigned i = 1; i < level; i++) {
			uint64_t val = 0;

			rbp -= size;
			if (vmem_read(v, SEG_SS, rbp & size_mask(w), &val, size) || push_val(v, val, size))
				goto undo;
		}
		if (push_val(v, frame, size))
			goto undo;
	}
	addr_set(v, RSP, w, v->st.gpr[RSP] - alloc);
	if (vmem_probe_write(v, SEG_SS, v->st.gpr[RSP] & size_mask(w), size))
		goto undo;
	reg_set(v, RBP, size, frame);
	return 0;
undo:
	v->st.gpr[RSP] = rsp;
	return -1;
}

static int do_leave(struct vcpu *v, const struct insn *in)
{
	unsigned w = stack_width(v);
	uint64_t rsp = v->st.gpr[RSP], val;

	addr_set(v, RSP, w, v->st.gpr[RBP]);
	if (pop_val(v, &val, in->opsize)) {
		v->st.gpr[RSP] = rsp;
		return -1;
	}
	reg_set(v, RBP, in->opsize, val);
	return 0;
}

/* ---- decimal adjust: no encodings in 64-bit mode, so the one place where arithmetic is written out ---- */

static void set_szp(struct vcpu *v, uint8_t r)
{
	v->st.rflags &= ~(uint64_t)(FLAG_SF | FLAG_ZF | FLAG_PF);
	if (r & 0x80)
		v->st.rflags |= FLAG_SF;
	if (!r)
		v->st.rflags |= FLAG_ZF;
	if (!(__builtin_popcount(r) & 1))
		v->st.rflags |= FLAG_PF;
}

static void do_daa_das(struct vcpu *v, bool sub)
{
	uint8_t al = (uint8_t)v->st.gpr[RAX], old = al;
	bool cf = v->st.rflags & FLAG_CF, af = v->st.rflags & FLAG_AF, ncf = false;

	if ((al & 15) > 9 || af) {
		ncf = cf || (sub ? al < 6 : al > 0xf9);
		al = sub ? al - 6 : al + 6;
		af = true;
	} else {
		af = false;
	}
	if (old > 0x99 || cf) {
		al = sub ? al - 0x60 : al + 0x60;
		ncf = true;
	}
	reg_set(v, RAX, 1, al);
	v->st.rflags &= ~(uint64_t)(FLAG_CF | FLAG_AF);
	v->st.rflags |= (ncf ? FLAG_CF : 0) | (af ? FLAG_AF : 0);
	set_szp(v, al);
}

static void do_aaa_aas(struct vcpu *v, bool sub)
{
	uint16_t ax = (uint16_t)v->st.gpr[RAX];
	bool adj = (ax & 15) > 9 || (v->st.rflags & FLAG_AF);

	if (adj) {
		if (sub) {
			ax = (uint16_t)(ax - 6);
			ax = (uint16_t)(ax - 0x100);
		} else {
			ax = (uint16_t)(ax + 0x106);
		}
	}
	ax &= 0xff0f;
	reg_set(v, RAX, 2, ax);
	v->st.rflags &= ~(uint64_t)(FLAG_CF | FLAG_AF);
	v->st.rflags |= adj ? FLAG_CF | FLAG_AF : 0;
}

static int do_aam(struct vcpu *v, uint8_t base)
{
	uint8_t al = (uint8_t)v->st.gpr[RAX];

	if (!base) {
		exc_set(v, EXC_DE, false, 0);
		return -1;
	}
	reg_set(v, RAX, 2, (uint64_t)(al / base) << 8 | al % base);
	set_szp(v, al % base);
	v->st.rflags &= ~(uint64_t)(FLAG_CF | FLAG_AF | FLAG_OF);
	return 0;
}

static int do_aad(struct vcpu *v, uint8_t base)
{
	uint8_t al = (uint8_t)v->st.gpr[RAX], ah = (uint8_t)(v->st.gpr[RAX] >> 8);

	al = (uint8_t)(al + ah * base);
	reg_set(v, RAX, 2, al);
	set_szp(v, al);
	v->st.rflags &= ~(uint64_t)(FLAG_CF | FLAG_AF | FLAG_OF);
	return 0;
}

static int do_int(struct vcpu *v, const struct insn *in)
{
	uint64_t next = v->st.rip;
	uint8_t vector = in->mnemonic == ZYDIS_MNEMONIC_INT3   ? EXC_BP
			 : in->mnemonic == ZYDIS_MNEMONIC_INTO ? EXC_OF
			 : in->mnemonic == ZYDIS_MNEMONIC_INT1 ? EXC_DB
							       : (uint8_t)in->imm[0];

	if (in->mnemonic == ZYDIS_MNEMONIC_INTO && !(v->st.rflags & FLAG_OF))
		return 0;
	if (in->mnemonic == ZYDIS_MNEMONIC_INT && is_v86(v) && (v->st.rflags >> 12 & 3) < 3)
		return exc_gp(v, 0);
	v->st.rip = v->insn_rip;
	return event_software(v, vector, next, in->mnemonic == ZYDIS_MNEMONIC_INT1);
}

static int do_bound(struct vcpu *v, const struct insn *in)
{
	int64_t idx = (int64_t)sign_extend(v->st.gpr[in->ops[0].reg], in->opsize), lo, hi;
	uint8_t b[8] = { 0 };
	uint64_t x = 0;

	if (vmem_read(v, in->seg, insn_ea(v, in), b, 2 * in->opsize))
		return -1;
	memcpy(&x, b, in->opsize);
	lo = (int64_t)sign_extend(x, in->opsize);
	x = 0;
	memcpy(&x, b + in->opsize, in->opsize);
	hi = (int64_t)sign_extend(x, in->opsize);
	if (idx < lo || idx > hi) {
		exc_set(v, EXC_BR, false, 0);
		return -1;
	}
	return 0;
}

static int do_xlat(struct vcpu *v, const struct insn *in)
{
	uint64_t off = (v->st.gpr[RBX] + (v->st.gpr[RAX] & 0xff)) & size_mask(in->addrsize);
	uint8_t b;

	if (vmem_read(v, in->seg, off, &b, 1))
		return -1;
	reg_set(v, RAX, 1, b);
	return 0;
}

int interp_control(struct vcpu *v, const struct insn *in)
{
	bool handled;
	int r;

	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_JMP:
		return do_jmp_call(v, in, false);
	case ZYDIS_MNEMONIC_CALL:
		return do_jmp_call(v, in, true);
	case ZYDIS_MNEMONIC_RET:
		return do_ret(v, in);
	case ZYDIS_MNEMONIC_PUSH:
		return do_push(v, in);
	case ZYDIS_MNEMONIC_POP:
		return do_pop(v, in);
	case ZYDIS_MNEMONIC_PUSHA:
		return do_pusha(v, 2);
	case ZYDIS_MNEMONIC_PUSHAD:
		return do_pusha(v, 4);
	case ZYDIS_MNEMONIC_POPA:
		return do_popa(v, 2);
	case ZYDIS_MNEMONIC_POPAD:
		return do_popa(v, 4);
	case ZYDIS_MNEMONIC_PUSHF:
		return do_pushf(v, 2);
	case ZYDIS_MNEMONIC_PUSHFD:
		return do_pushf(v, 4);
	case ZYDIS_MNEMONIC_PUSHFQ:
		return do_pushf(v, 8);
	case ZYDIS_MNEMONIC_POPF:
		return do_popf(v, 2);
	case ZYDIS_MNEMONIC_POPFD:
		return do_popf(v, 4);
	case ZYDIS_MNEMONIC_POPFQ:
		return do_popf(v, 8);
	case ZYDIS_MNEMONIC_ENTER:
		return do_enter(v, in);
	case ZYDIS_MNEMONIC_LEAVE:
		return do_leave(v, in);
	case ZYDIS_MNEMONIC_INT:
	case ZYDIS_MNEMONIC_INT1:
	case ZYDIS_MNEMONIC_INT3:
	case ZYDIS_MNEMONIC_INTO:
		return do_int(v, in);
	case ZYDIS_MNEMONIC_IRET:
		return iret(v, 2);
	case ZYDIS_MNEMONIC_IRETD:
		return iret(v, 4);
	case ZYDIS_MNEMONIC_IRETQ:
		return iret(v, 8);
	case ZYDIS_MNEMONIC_LEA:
		reg_set(v, in->ops[0].reg, in->opsize, insn_ea(v, in));
		return 0;
	case ZYDIS_MNEMONIC_XLAT:
		return do_xlat(v, in);
	case ZYDIS_MNEMONIC_BOUND:
		return do_bound(v, in);
	case ZYDIS_MNEMONIC_SALC:
		reg_set(v, RAX, 1, v->st.rflags & FLAG_CF ? 0xff : 0);
		return 0;
	case ZYDIS_MNEMONIC_DAA:
		do_daa_das(v, false);
		return 0;
	case ZYDIS_MNEMONIC_DAS:
		do_daa_das(v, true);
		return 0;
	case ZYDIS_MNEMONIC_AAA:
		do_aaa_aas(v, false);
		return 0;
	case ZYDIS_MNEMONIC_AAS:
		do_aaa_aas(v, true);
		return 0;
	case ZYDIS_MNEMONIC_AAM:
		return do_aam(v, (uint8_t)in->imm[0]);
	case ZYDIS_MNEMONIC_AAD:
		return do_aad(v, (uint8_t)in->imm[0]);
	default:
		r = do_cond(v, in, &handled);
		return handled ? r : 1;
	}
}
