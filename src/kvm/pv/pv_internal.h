/* SPDX-License-Identifier: MIT */
/* Private to kvm/pv: what hangs from a vCPU and from a VM. Threads as in pv.h. */
#ifndef KVM_PV_PV_INTERNAL_H
#define KVM_PV_PV_INTERNAL_H

#include "kvm/pv/pv.h"
#include "kvm/vcpu/vcpu.h"
#include "kvm/vm/clock.h"

struct hv;
struct hv_vm;
struct xen;
struct xen_vm;

/* Facts of the pvclock ABI, which KVM and Xen share. */
struct pv_time_info {
	uint32_t version;
	uint32_t pad0;
	uint64_t tsc_timestamp;
	uint64_t system_time;
	uint32_t tsc_to_system_mul;
	int8_t tsc_shift;
	uint8_t flags;
	uint8_t pad[2];
};

_Static_assert(sizeof(struct pv_time_info) == 32, "pvclock ABI");

#define PV_TIME_TSC_STABLE    BIT(0)
#define PV_TIME_GUEST_STOPPED BIT(1)

/* MSRs whose value is an address and a switch in bit 0. */
#define PV_ENABLED BIT(0)

struct pv {
	struct vcpu *vcpu;
	/* kvmclock */
	uint64_t system_time; /* the MSR: gpa | PV_ENABLED */
	bool paused;	      /* PV_TIME_GUEST_STOPPED is due */
	/* Steal time */
	uint64_t steal_msr;
	uint64_t last_steal;   /* ns, as of the thread that ran last */
	uint64_t steal_looked; /* when, by the host's TSC */
	int schedstat;	       /* fd; -1: none */
	int schedstat_tid;     /* whose it is */
	/* Asynchronous page faults */
	uint64_t apf_msr, apf_vector;
	bool apf_wakeup; /* "all pages are ready" waits to be told */
	/* PV EOI */
	uint64_t eoi_msr;
	gpa_t eoi_gpa;
	uint64_t poll_control;
	struct pv_exit exit;
	struct hv *hv;
	struct xen *xen;
};

struct pv_vm {
	uint64_t wall_clock; /* the MSR; atomic */
	struct hv_vm *hv;
	struct xen_vm *xen;
};

/* ---- kvmclock.c ---- */

enum pv_result pv_clock_msr_get(struct vcpu *vcpu, uint32_t index, uint64_t *ret);
enum pv_result pv_clock_msr_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val);
/* The clock as this vCPU's guest sees it; flags: PV_TIME_TSC_STABLE. */
void pv_clock_info(const struct vcpu *vcpu, struct pv_time_info *ret);

/* ---- steal.c ---- */

enum pv_result pv_steal_set(struct vcpu *vcpu, uint64_t val);
/* Nanoseconds for which this thread waited to run; 0 if the host does not tell. */
uint64_t pv_run_delay(struct vcpu *vcpu);

/* ---- apf.c, eoi.c ---- */

enum pv_result pv_apf_set(struct vcpu *vcpu, uint64_t val);
enum pv_result pv_apf_set_vector(struct vcpu *vcpu, uint64_t val);
enum pv_result pv_apf_ack(struct vcpu *vcpu, uint64_t val);
enum pv_result pv_eoi_set(struct vcpu *vcpu, uint64_t val);

/* ---- hypercall.c ---- */

/* VMCALL or VMMCALL, whichever the guest's processor has: 3 bytes. */
void pv_hypercall_insn(const struct vcpu *vcpu, uint8_t insn[3]);
/* The hypercall ABI is the 64-bit one. */
bool pv_hypercall_64bit(const struct vcpu *vcpu);
/* The vCPU with this APIC ID, or NULL. Any thread. */
struct vcpu *pv_find_apic_id(const struct vm *vm, uint32_t id);
/* A fixed interrupt to this vCPU's local APIC. Any thread. False: not taken, or no APIC. */
bool pv_interrupt(struct vcpu *vcpu, uint8_t vector);

#endif
