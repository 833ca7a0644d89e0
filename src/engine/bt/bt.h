/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the vCPUs of a VM share.
 *
 * Code in a page is watched for all vCPUs together: MEM_PAGE_CODE of the page
 * is set while any of them has blocks from it (page_vcpus says which), and no
 * vCPU's TLB has a write tag for it.  Both change under `lock`.
 *
 * Most code is written by devices or before anybody runs it, so only those who
 * may have write tags are asked to take them back.  A vCPU enters itself as a
 * writer before it looks at MEM_PAGE_CODE; who watches the page sets that before
 * it looks who writes: one of them sees the other.
 *
 * One vCPU makes another do something (drop blocks, drop write tags) by posting
 * it and kicking.  Requests are served at safe points: at the top of the run
 * loop, and while waiting for others.  bt_sync waits until those asked have
 * served or are outside vcpu_run, which serves before it runs guest code.  It
 * may not be called with the I/O lock held: a vCPU that waits for that lock in a
 * device access cannot serve.
 *
 * Locked accesses that cross a page of memory stop the world: bt_stop_others
 * waits until no other vCPU is between safe points, and keeps it so until
 * bt_resume_others.  Those who wait go on serving what is posted to them.
 */
#ifndef SILL_ENGINE_BT_BT_H
#define SILL_ENGINE_BT_BT_H

#include <sched.h>

#include "engine/bt/stress.h"
#include "engine/bt/vcpu.h"

#define BT_MAX_VCPUS 16

/* Sets of vCPUs, bits by index. Each bit is changed by its vCPU's thread alone. */
struct page_vcpus {
	_Atomic uint16_t code;    /* have blocks from the page, or are making one; [lock] */
	_Atomic uint16_t writers; /* may write to the page without looking at MEM_PAGE_CODE again */
};

struct engine_vm {
	struct mem *mem;
	struct mutex lock;
	struct page_vcpus *page_vcpus; /* by number of the RAM page */
	size_t page_vcpus_size;
	unsigned nr_vcpus;
	unsigned host_cpus; /* that this process may use */
	_Atomic uint16_t
	    bound[CPU_SETSIZE]; /* vCPU threads that direct execution has bound to each (stub_pin) */
	struct vcpu *vcpus[BT_MAX_VCPUS];
	_Atomic uint32_t stopper; /* the vCPU that has stopped the others: index + 1; 0: none */
	/* Lockstep: one vCPU at a time executes, in the order of their tickets. */
	_Atomic uint32_t turn_ticket, turn;
	bool use_t1, use_t2, lockstep;
	struct stress stress;
	uint64_t code_cache_size;
};

/* A safe point, if v->request says that there is something to do. */
void bt_serve(struct vcpu *v);
/* While another vCPU has to do something first: spin counts from 0. */
void bt_relax(unsigned spin);
/* Waits for the vCPUs in mask (bits by index) to serve what was posted to them; serves v's own meanwhile. */
void bt_sync(struct vcpu *v, uint32_t mask);
/* In v's thread, between what may be safe points: no other vCPU runs guest code until bt_resume_others. */
void bt_stop_others(struct vcpu *v);
void bt_resume_others(struct vcpu *v);
/* Posts: drop blocks from [host, host+len); len 0: drop write tags of host's page; host NULL: the memory
 * layout changed. Kicks. Any thread. */
void bt_post(struct vcpu *to, const void *host, uint64_t len);
/* To each vCPU in mask (bits by index). */
void bt_post_each(struct engine_vm *vm, uint32_t mask, const void *host, uint64_t len);

/* A timer that kicks v, of the calling thread. tag: a new address, or NULL; bt.c knows whose is which. 0 or
 * -1 with errno. */
int bt_new_timer(struct vcpu *v, void *tag, timer_t *ret);

/* v's bit in such sets. */
static inline uint16_t bt_self(const struct vcpu *v)
{
	return (uint16_t)(1u << v->index);
}

static inline struct page_vcpus *bt_page_vcpus(const struct vcpu *v, const void *host)
{
	return &v->vm->page_vcpus[mem_page_number(v->mem, host)];
}

/* v is going to write to host's page, or to get a write tag for it: before MEM_PAGE_CODE is looked at. */
static inline void bt_enter_writer(struct vcpu *v, const void *host)
{
	_Atomic uint16_t *writers = &bt_page_vcpus(v, host)->writers;

	if (!(atomic_load_explicit(writers, memory_order_relaxed) & bt_self(v)))
		atomic_fetch_or(writers, bt_self(v));
}

#endif
