/* SPDX-License-Identifier: MIT */
/*
 * A virtual CPU: one processor of silicon/, its local APIC, its kvm_run page and what KVM keeps
 * beside them. Room header of kvm/vcpu.
 *
 * Another thread reaches a vCPU by vcpu_request() and vcpu_kick() only.
 */
#ifndef KVM_VCPU_VCPU_H
#define KVM_VCPU_VCPU_H

#include "kvm/vm/vm.h"
#include "silicon/cpu/cpu.h"

struct lapic; /* silicon/chips/lapic.h */

/* Requests: bits of vcpu->requests, served on the vCPU thread by vcpu_service(). */
enum vcpu_request {
	REQ_KICK,	   /* leave guest code; serve nothing in particular */
	REQ_FLUSH,	   /* memory slots changed: flush every cached translation */
	REQ_FLUSH_WRITES,  /* dirty log re-armed */
	REQ_EVENT,	   /* interrupt state changed */
	REQ_NMI, REQ_SMI, REQ_INIT, REQ_SIPI,
	REQ_CLOCK_UPDATE,  /* kvmclock page must be written */
	REQ_STEAL_UPDATE,
	REQ_MSR_FILTER,
	REQ_TRIPLE_FAULT,
	REQ_TIMER,	   /* local APIC timer expired */
	REQ_UNBLOCK,	   /* wake from HLT or wait-for-SIPI */
	REQ_VM_DEAD,
};

struct vcpu {
	struct cpu cpu;		/* first: struct platform's opaque is the vcpu */
	struct vm *vm;
	uint32_t id, index;
	uint64_t inode;
	pthread_mutex_t mutex;	/* held by every vCPU ioctl, KVM_RUN included */

	struct kvm_run *run;	/* shared file mapping: run page, pio page, coalesced ring page */
	uint8_t *pio_data;
	size_t run_size;

	struct lapic *lapic;	/* NULL without an in-kernel local APIC */
	uint64_t apic_base;
	uint32_t mp_state;	/* KVM_MP_STATE_* */

	uint64_t requests;	/* atomic */
	uint32_t kicked;	/* futex: 1 = leave or wake up */
	uint32_t running;	/* 1 inside KVM_RUN, 2 inside cpu_run(); atomic, futex for safepoints */
	pid_t	 tid;		/* of the thread in KVM_RUN, or 0; atomic */
	bool	 signal_pending; /* a signal asked for EINTR; set by the handler; atomic */
	uint64_t safepoint;	/* slots generation last seen; atomic */

	/* The one continuation across exits to user space; NULL when nothing is open. */
	int (*complete)(struct vcpu *vcpu);
	unsigned next_write;	/* into cpu.out: fragments handed out so far */

	sigset_t sigmask;
	bool sigmask_set;

	struct kvm_cpuid_entry2 *cpuid;
	unsigned nr_cpuid;
	int64_t tsc_offset;
	uint64_t tsc_khz;
	uint32_t guest_debug;	/* KVM_GUESTDBG_* */
	bool tpr_access_reporting;
	gpa_t vapic_addr;
	uint8_t sipi_vector;
	int interrupt_injected;	/* KVM_INTERRUPT's vector waiting, or -1 */
	struct pv *pv;		/* kvm/pv */
	struct stats_block *stats;
};

/* Any thread. Raise a request; the vCPU serves it before its next instruction once kicked. */
void vcpu_request(struct vcpu *vcpu, enum vcpu_request req);
/* Any thread. Make the vCPU look: out of guest code within one block, out of HLT. */
void vcpu_kick(struct vcpu *vcpu);
/* Any thread, no vcpu->mutex of a running vCPU held: returns after each vCPU passed a safepoint. */
void vcpu_request_all(struct vm *vm, enum vcpu_request req, bool wait);

#endif
