/* SPDX-License-Identifier: MIT */
/*
 * Whose turn it is among the vCPUs of a deterministic VM (docs/deterministic.md). kvm/vcpu/turns.c gives turns; this is
 * what hangs from the VM.
 */
#ifndef KVM_VM_TURNS_H
#define KVM_VM_TURNS_H

#include "host/compiler.h"

struct turns {
	uint32_t holder; /* 1 + index of the vCPU that runs, or may; 0: none. Atomic */
	bool begun;	 /* a vCPU has entered: before, time stands. Atomic */
	/* The holder's: */
	uint64_t random; /* state of what draws the order */
	uint64_t end;	 /* clock_monotonic_ns() at which the turn is over */
};

#endif
