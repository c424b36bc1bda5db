/* SPDX-License-Identifier: MIT */
/*
 * Counters of a VM or a vCPU, one row each in tables/stats.def. A block stands in a shared file
 * mapping in the layout of KVM_GET_STATS_FD (header, id, descriptors, values), so that counting is
 * an add to memory and reading is pread(2).
 *
 * Any thread may count; a vCPU's own counters are mostly counted on its own thread.
 */
#ifndef KVM_VM_STATS_H
#define KVM_VM_STATS_H

#include "host/compiler.h"

#include <stdio.h>

struct stats_block;

enum stats_scope { STATS_VM, STATS_VCPU };

/* Index into the values of a scope's block: STAT_VCPU_exits, STAT_VM_remote_tlb_flush, ... */
enum {
#define STAT_VM(name, type, unit) STAT_VM_##name,
#define STAT_VCPU(name, type, unit)
#include "stats.def"
#undef STAT_VM
#undef STAT_VCPU
	NR_STATS_VM,
};

enum {
#define STAT_VM(name, type, unit)
#define STAT_VCPU(name, type, unit) STAT_VCPU_##name,
#include "stats.def"
#undef STAT_VM
#undef STAT_VCPU
	NR_STATS_VCPU,
};

/* A new block, zeroed, named as the kernel names it: kvm-PID or kvm-PID/vcpu-ID. NULL: no memory. */
struct stats_block *stats_create(enum stats_scope scope, const char *id);
/* Unmap it after adding its values to the process totals; fds keep the file. NULL is allowed. */
void stats_destroy(struct stats_block *block);
/* A new read-only fd of the block's file, close-on-exec, or -errno. Takes a lock of the block. */
int stats_open_fd(struct stats_block *block);
/* The values, NR_STATS_* of them; NULL for NULL. */
uint64_t *stats_values(struct stats_block *block);
/* Write one "name value" line per row, summed over all blocks of this process, living and dead. */
void stats_dump(FILE *to);

static inline void stats_add(struct stats_block *block, unsigned stat, uint64_t n)
{
	uint64_t *values = stats_values(block);

	if (values)
		__atomic_fetch_add(&values[stat], n, __ATOMIC_RELAXED);
}

static inline void stats_set(struct stats_block *block, unsigned stat, uint64_t n)
{
	uint64_t *values = stats_values(block);

	if (values)
		__atomic_store_n(&values[stat], n, __ATOMIC_RELAXED);
}

#endif
