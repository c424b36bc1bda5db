/* SPDX-License-Identifier: MIT */
/*
 * The one clock of a VM, through which all guest time comes (decisions: one clock per VM). It
 * follows the host's TSC and CLOCK_MONOTONIC, or counts retired instructions (docs/deterministic.md).
 *
 * kvmclock runs on one pair {TSC, nanoseconds} taken at creation and at KVM_SET_CLOCK (KVM's master
 * clock), so every vCPU's page shows the same line. PVCLOCK_TSC_STABLE_BIT tells a guest more: that the page of one vCPU
 * holds with the TSC of any other. So it is there while the TSCs are in step (clock_tsc_in_step()).
 */
#ifndef KVM_VM_CLOCK_H
#define KVM_VM_CLOCK_H

#include "host/compiler.h"

#include <stdbool.h>

struct vm;
struct clock;

/* The line that kvmclock pages show: ns = base_ns + scaled(tsc - base_tsc). */
struct clock_line {
	uint64_t base_tsc; /* host TSC */
	uint64_t base_ns;  /* kvmclock nanoseconds at that TSC */
	uint32_t mul;	   /* 32.32 multiplier after shift */
	int8_t shift;
};

struct clock *clock_create(bool counted);
void clock_destroy(struct clock *clock);

/* Any thread, no lock held. */
uint64_t
clock_tsc(const struct vm *vm); /* host TSC now: guest TSC is this plus the vCPU's offset */
uint64_t clock_monotonic_ns(const struct vm *vm); /* timers: service_timer_arm()'s time base */
uint64_t clock_kvmclock_ns(const struct vm *vm);  /* what KVM_GET_CLOCK answers */
/* Host TSC and realtime of one moment. */
void clock_pair(const struct vm *vm, uint64_t *ret_tsc, uint64_t *ret_realtime_ns);
uint64_t clock_boot_wall_ns(const struct vm *vm); /* realtime at kvmclock 0: the wall clock page */
void clock_line(const struct vm *vm, struct clock_line *ret);

/* Of clock_tsc(). */
uint64_t clock_tsc_khz(const struct vm *vm);

/*
 * Counted clocks only. Time goes on by this count from here, or stands (NULL); whose turn it is.
 */
void clock_follow(struct vm *vm, const uint64_t *retired);
/* It stands: go forward to ns of clock_monotonic_ns(). */
void clock_jump(struct vm *vm, uint64_t ns);

/*
 * KVM's synchronization of TSCs that are set one by one. A vCPU whose TSC is set to 0, or to less than a second from where the one
 * that was set last would be now, takes part in its generation: it gets the same offset. Any other value begins a generation.
 */
struct clock_tsc_write {
	uint64_t val;
	uint64_t offset; /* that makes the TSC val now */
	uint32_t khz;
	bool by_program; /* not by the vCPU's creation: the first such value is taken as it is */
	bool exact;	 /* the offset is what is wanted (KVM_VCPU_TSC_OFFSET): never another one */
};

/* Any thread, no lock held. *generation is the vCPU's own. Returns its offset. */
uint64_t clock_tsc_write(struct vm *vm, const struct clock_tsc_write *write, uint32_t *generation);
/* All vCPUs' TSCs are of one generation. */
bool clock_tsc_in_step(const struct vm *vm);

/* Multiplier and shift that take khz cycles to nanoseconds (the pvclock ABI). */
void clock_scale(uint64_t khz, uint32_t *ret_mul, int8_t *ret_shift);

/* Ioctl handlers. */
long vm_get_clock(struct vm *vm, void *arg);
long vm_set_clock(struct vm *vm, void *arg);

#endif
