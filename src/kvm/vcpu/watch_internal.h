/* SPDX-License-Identifier: MIT */
/* Private to watch*.c. vCPU thread. */
#ifndef KVM_VCPU_WATCH_INTERNAL_H
#define KVM_VCPU_WATCH_INTERNAL_H

#include "kvm/vcpu/vcpu_internal.h"
#include "kvm/vcpu/watch.h"

/* watch_ops.c: vcpu_platform, watched. */
void watch_platform(struct platform *ret);

/* Guest code is left for that reason: kvm_exit, and the clock runs. Nothing if it is left already. */
void watch_open(struct vcpu *vcpu, enum watch_reason reason, uint64_t info1, uint64_t info2);
/* It goes on: kvm_entry. Nothing if it was not left. */
void watch_close(struct vcpu *vcpu);
/* The time since `since` belongs to the last exit of that reason, which is closed already. */
void watch_more_time(struct vcpu *vcpu, enum watch_reason reason, uint64_t since);

#define WATCH_CHUNKS 4096
/* Pages told of are told of again. */
void watch_forget_touched(struct vcpu_watch *w);

/* Count an event, leave it in the ring. ev->c is filled in here; size in bytes; tsc: when, or 0 for now. */
void watch_event_at(struct vcpu *vcpu, enum watch_event id, void *ev, uint32_t size, uint64_t tsc);
static inline void watch_event(struct vcpu *vcpu, enum watch_event id, void *ev, uint32_t size)
{
	watch_event_at(vcpu, id, ev, size, 0);
}
/* The same for the ring only. */
void watch_record(struct vcpu *vcpu, unsigned id, void *ev, uint32_t size, uint64_t tsc);

/* watch_insn.c: log one instruction, if the window is open: true if it was and the vCPU stands behind it. */
bool watch_insn_step(struct vcpu *vcpu, enum cpu_exit_kind (*run)(struct cpu *cpu),
		     enum cpu_exit_kind *ret);
/* A sample is due: take it. */
void watch_sample(struct vcpu *vcpu);
void watch_sample_start(struct vcpu *vcpu);
void watch_sample_stop(struct vcpu *vcpu);

#endif
