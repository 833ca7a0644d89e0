/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest-virtual memory for the interpreter: segmentation, then paging, then RAM
 * or a device.  An access that touches two pages is checked on both before it
 * changes either; one that is not RAM goes to the device in naturally sized
 * pieces.
 */
#include "engine/bt/cache.h"
#include "engine/bt/interp_internal.h"

static int seg_fault(struct vcpu *v, unsigned seg)
{
	return exc_err(v, seg == SEG_SS ? EXC_SS : EXC_GP, 0);
}

int seg_linear(struct vcpu *v, unsigned seg, uint64_t off, unsigned size, unsigned acc, uint64_t *lin)
{
	const struct x86_seg *s = &v->st.seg[seg];
	uint64_t last;

	if (is_code64(v)) {
		uint64_t a = off + (seg >= SEG_FS ? s->base : 0);

		if (!canonical(a) || !canonical(a + size - 1))
			return seg_fault(v, seg);
		*lin = a;
		return 0;
	}
	last = off + size - 1;
	if (is_protected(v)) {
		if (!(s->attr & SEG_P))
			return seg_fault(v, seg);
		if (s->attr & 8) { /* code */
			if ((acc & ACC_W) || !(s->attr & 2))
				return seg_fault(v, seg);
		} else if ((acc & ACC_W) && !(s->attr & 2)) {
			return seg_fault(v, seg);
		}
	}
	if ((s->attr & 0xc) == 4) { /* expand-down data */
		uint64_t top = (s->attr & SEG_DB) ? 0xffffffffu : 0xffff;

		if (off <= s->limit || last > top)
			return seg_fault(v, seg);
	} else if (last > s->limit) {
		return seg_fault(v, seg);
	}
	*lin = (uint32_t)(s->base + off);
	return 0;
}

uint64_t insn_ea(const struct vcpu *v, const struct insn *in)
{
	uint64_t ea = (uint64_t)in->disp;

	if (in->base == REG_PC)
		ea += v->insn_rip + in->len;
	else if (in->base != REG_NONE)
		ea += v->st.gpr[in->base];
	if (in->index != REG_NONE)
		ea += v->st.gpr[in->index] * in->scale;
	return ea & size_mask(in->addrsize);
}

/* Reads/writes a device in pieces of natural size. */
static void mmio_copy(struct vcpu *v, uint64_t pa, uint8_t *buf, unsigned size, bool write)
{
	while (size) {
		unsigned n = size >= 8 && !(pa & 7)   ? 8
			     : size >= 4 && !(pa & 3) ? 4
			     : size >= 2 && !(pa & 1) ? 2
						      : 1;
		uint64_t val = 0;

		/* An unaligned access of a size that a bus can carry goes out whole. */
		if (size == 2 || size == 4 || size == 8)
			n = size;
		if (write) {
			memcpy(&val, buf, n);
			mem_mmio_write(v->mem, GPA(pa), val, n);
		} else {
			val = mem_mmio_read(v->mem, GPA(pa), n);
			memcpy(buf, &val, n);
		}
		v->stats.mmio_exits++;
		pa += n;
		buf += n;
		size -= n;
	}
}

struct part {
	void *host;
	uint64_t pa;
	unsigned len;
	bool code;
};

/* Splits an access at the page boundary and translates both parts. */
static int parts(struct vcpu *v, uint64_t lin, unsigned size, unsigned acc, struct part p[2])
{
	unsigned first = PAGE_SIZE - (lin & 0xfff);

	p[0].len = size < first ? size : first;
	p[1].len = size - p[0].len;
	if (mmu_host(v, lin, acc, &p[0].host, &p[0].pa, &p[0].code))
		return -1;
	if (p[1].len) {
		uint64_t next = lin + p[0].len;

		if (!(v->st.efer & EFER_LMA))
			next &= 0xffffffffu;
		if (mmu_host(v, next, acc, &p[1].host, &p[1].pa, &p[1].code))
			return -1;
	} else {
		p[1].host = NULL;
		p[1].code = false;
	}
	for (int i = 0; i < 2; i++)
		if (p[i].code && p[i].host && cache_may_write(v, p[i].host, p[i].len))
			p[i].code = false;
	return 0;
}

int lin_read(struct vcpu *v, uint64_t lin, void *buf, unsigned size, unsigned acc)
{
	struct part p[2];

	if (parts(v, lin, size, acc, p))
		return -1;
	if ((!p[0].host || (p[1].len && !p[1].host)) && needs_full(v))
		return -1;
	for (int i = 0; i < 2 && p[i].len; i++) {
		uint8_t *b = (uint8_t *)buf + (i ? p[0].len : 0);

		if (p[i].host)
			memcpy(b, p[i].host, p[i].len);
		else
			mmio_copy(v, p[i].pa, b, p[i].len, false);
	}
	return 0;
}

void undo_note(struct vcpu *v, void *host, unsigned len)
{
	struct undo_log *u = v->undo;

	if (!u || u->n == UNDO_MAX || len > sizeof u->e[0].old)
		return;
	u->e[u->n].host = host;
	u->e[u->n].len = len;
	u->e[u->n].step = u->step;
	memcpy(u->e[u->n].old, host, len);
	u->n++;
}

static void store_part(struct vcpu *v, const struct part *p, const uint8_t *b)
{
	if (!p->host) {
		mmio_copy(v, p->pa, (uint8_t *)b, p->len, true);
		return;
	}
	undo_note(v, p->host, p->len);
	/* Naturally aligned stores must not tear: other vCPUs and devices look on. */
	if (p->len == 8 && !((uint64_t)p->host & 7)) {
		uint64_t x;

		memcpy(&x, b, 8);
		__atomic_store_n((uint64_t *)p->host, x, __ATOMIC_RELAXED);
	} else if (p->len == 4 && !((uint64_t)p->host & 3)) {
		uint32_t x;

		memcpy(&x, b, 4);
		__atomic_store_n((uint32_t *)p->host, x, __ATOMIC_RELAXED);
	} else {
		memcpy(p->host, b, p->len);
	}
}

int lin_write(struct vcpu *v, uint64_t lin, const void *buf, unsigned size, unsigned acc)
{
	struct part p[2];

	if (parts(v, lin, size, acc | ACC_W, p))
		return -1;
	if ((!p[0].host || p[0].code || (p[1].len && (!p[1].host || p[1].code))) && needs_full(v))
		return -1;
	for (int i = 0; i < 2 && p[i].len; i++)
		store_part(v, &p[i], (const uint8_t *)buf + (i ? p[0].len : 0));
	/* Only now: what is served while this waits may take the other page's permission back. */
	for (int i = 0; i < 2 && p[i].len; i++)
		if (p[i].code)
			bt_code_written(v, p[i].host, p[i].len);
	return 0;
}

/* #AC where CR0.AM, EFLAGS.AC and CPL 3 ask for it (SDM 3A 6.15). */
static int check_alignment(struct vcpu *v, uint64_t lin, unsigned size)
{
	unsigned align = 1;

	if (!(v->st.rflags & FLAG_AC) || !(v->st.cr0 & CR0_AM) || cpl(v) != 3)
		return 0;
	if (size == 2 || size == 4 || size == 8)
		align = size;
	else if (size == 6 || size == 28 || size == 108) /* far pointer, x87 environment and state */
		align = 4;
	else if (size == 10) /* the wider far pointer, an extended-precision number */
		align = 8;
	else if (size == 14 || size == 94)
		align = 2;
	return lin & (align - 1) ? exc_err(v, EXC_AC, 0) : 0;
}

int vmem_read(struct vcpu *v, unsigned seg, uint64_t off, void *buf, unsigned size)
{
	uint64_t lin;

	if (seg_linear(v, seg, off, size, ACC_R, &lin) || check_alignment(v, lin, size) ||
	    lin_read(v, lin, buf, size, mmu_acc(v)))
		return -1;
	return v->dr_watch ? interp_check_watch(v, lin, size, false) : 0;
}

int vmem_write(struct vcpu *v, unsigned seg, uint64_t off, const void *buf, unsigned size)
{
	uint64_t lin;

	if (seg_linear(v, seg, off, size, ACC_W, &lin) || check_alignment(v, lin, size) ||
	    lin_write(v, lin, buf, size, mmu_acc(v)))
		return -1;
	return v->dr_watch ? interp_check_watch(v, lin, size, true) : 0;
}

int vmem_probe_write(struct vcpu *v, unsigned seg, uint64_t off, unsigned size)
{
	struct part p[2];
	uint64_t lin;

	if (seg_linear(v, seg, off, size, ACC_W, &lin) || check_alignment(v, lin, size))
		return -1;
	return parts(v, lin, size, mmu_acc(v) | ACC_W, p);
}

int mref_open(struct vcpu *v, uint64_t lin, unsigned size, bool read, bool write, struct mref *m)
{
	struct part p[2];
	unsigned acc = mmu_acc(v) | (write ? ACC_W : ACC_R);

	m->lin = lin;
	m->size = size;
	m->acc = acc;
	m->write = write;
	m->skip = 0;
	if (check_alignment(v, lin, size) || parts(v, lin, size, acc, p))
		return -1;
	m->code = p[0].code;
	m->part[0] = p[0].host;
	m->part[1] = p[1].len ? p[1].host : NULL;
	m->pa[0] = p[0].pa;
	m->pa[1] = p[1].pa;
	m->first = p[0].len;
	m->bounce = p[1].len || !p[0].host;
	if ((!p[0].host || p[0].code || (p[1].len && (!p[1].host || p[1].code))) && needs_full(v))
		return -1;
	if (!m->bounce) {
		m->host = p[0].host;
		if (write)
			undo_note(v, m->host, size);
		return 0;
	}
	/* Keep the guest's alignment within 64 bytes: MOVAPS and friends check it. */
	m->host = m->buf + (lin & 63);
	if (read) {
		for (int i = 0; i < 2 && p[i].len; i++) {
			uint8_t *b = (uint8_t *)m->host + (i ? p[0].len : 0);

			if (p[i].host)
				memcpy(b, p[i].host, p[i].len);
			else
				mmio_copy(v, p[i].pa, b, p[i].len, false);
		}
	}
	return 0;
}

void mref_close(struct vcpu *v, struct mref *m)
{
	if (!m->write)
		return;
	if (!m->bounce) {
		if (m->code)
			bt_code_written(v, m->host, m->size);
		return;
	}
	lin_write(v, m->lin, m->host, m->size, m->acc);
}

/* ---- stack ---- */

int push_val(struct vcpu *v, uint64_t val, unsigned size)
{
	unsigned w = stack_width(v);
	uint64_t sp = (v->st.gpr[RSP] - size) & size_mask(w);

	if (vmem_write(v, SEG_SS, sp, &val, size))
		return -1;
	addr_set(v, RSP, w, sp);
	return 0;
}

int pop_val(struct vcpu *v, uint64_t *val, unsigned size)
{
	unsigned w = stack_width(v);
	uint64_t sp = v->st.gpr[RSP] & size_mask(w);
	uint64_t x = 0;

	if (vmem_read(v, SEG_SS, sp, &x, size))
		return -1;
	*val = x;
	addr_set(v, RSP, w, sp + size);
	return 0;
}
