/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the vCPUs of a VM share.
 *
 * Code in a page is watched for all vCPUs together: MEM_PAGE_CODE of the page
 * is set while any of them has blocks from it (code_mask says which), and no
 * vCPU's TLB has a write tag for it.  Both change under `lock`.
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

struct engine_vm {
	struct mem *mem;
	struct mutex lock;
	_Atomic uint16_t *code_mask; /* by RAM page: vCPUs with blocks from it; [lock] */
	size_t code_mask_size;
	unsigned nr_vcpus;
	unsigned host_cpus; /* that this process may use */
	_Atomic uint16_t
	    bound[CPU_SETSIZE]; /* vCPU threads that direct execution has bound to each (stub_pin) */
	struct vcpu *vcpus[BT_MAX_VCPUS];
	_Atomic uint32_t stopper; /* the vCPU that has stopped the others: index + 1; 0: none */
	bool use_t1, use_t2, lockstep;
	struct stress stress;
	uint64_t code_cache_size;
};

/* Waits for the vCPUs in mask (bits by index) to serve what was posted to them; serves v's own meanwhile. */
void bt_sync(struct vcpu *v, uint32_t mask);
/* In v's thread, between what may be safe points: no other vCPU runs guest code until bt_resume_others. */
void bt_stop_others(struct vcpu *v);
void bt_resume_others(struct vcpu *v);
/* Posts: drop blocks from [host, host+len); len 0: drop write tags of host's page; host NULL: the memory
 * layout changed. Kicks. Any thread. */
void bt_post(struct vcpu *to, const void *host, uint64_t len);

#endif
