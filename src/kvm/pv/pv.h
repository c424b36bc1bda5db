/* SPDX-License-Identifier: MIT */
/*
 * What a hypervisor offers beside the architecture: KVM's own interface (kvmclock, steal time, PV EOI,
 * asynchronous page faults, hypercalls; Linux's Documentation/virt/kvm/x86), Hyper-V's (hv.h) and Xen's (xen.h).
 * Room header of kvm/pv. One struct pv per vCPU, one struct pv_vm per VM.
 *
 * vCPU thread only, in KVM_RUN or with vcpu->mutex and slots_lock held, unless said otherwise.
 */
#ifndef KVM_PV_PV_H
#define KVM_PV_PV_H

#include "kvm/vcpu/vcpu.h"
#include "silicon/cpu/platform.h"

struct pv;
struct pv_vm;

/* PV_UNKNOWN: as if the MSR did not exist (KVM_MSR_EXIT_REASON_UNKNOWN). PV_DENIED: #GP(0), or a refused ioctl. */
enum pv_result { PV_OK, PV_UNKNOWN, PV_DENIED };

/* ---- vm.c, pv.c: life ---- */

/* At the VM's making and end. 0 or -ENOMEM; destroy takes what create left. */
int pv_vm_create(struct vm *vm);
void pv_vm_destroy(struct vm *vm);
/* NULL: no memory. */
struct pv *pv_create(struct vcpu *vcpu);
/* No timer of the vCPU can expire any more, or its service is there to stop it. */
void pv_destroy(struct pv *pv);
/* RESET and INIT: what KVM drops at both. */
void pv_reset(struct vcpu *vcpu);
/* The guest's CPUID was set. */
void pv_cpuid_changed(struct vcpu *vcpu);
/* KVM_RUN is entered, or goes on after a wait: time that was stolen meanwhile. */
void pv_entered(struct vcpu *vcpu);
/* The local APIC was changed by its owner; it may have been enabled. */
void pv_apic_changed(struct vcpu *vcpu);
/* A GSI route of a type that is this room's. irq_lock held. As vm_set_irq(). */
int pv_route(struct vm *vm, const struct kvm_irq_routing_entry *e, int level);

/* ---- msrs.c ---- */

/* MSRs of this room: PV_UNKNOWN if none of them. host: the program, by ioctl. */
enum pv_result pv_msr_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret);
enum pv_result pv_msr_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val);
/* EAX of CPUID leaf KVM_CPUID_FEATURES: only what works. Any thread. */
uint32_t pv_features(void);
/* The guest may use a KVM_FEATURE_*; always, without KVM_CAP_ENFORCE_PV_FEATURE_CPUID. */
bool pv_has(const struct vcpu *vcpu, unsigned feature);

/* ---- kvmclock.c ---- */

/* Write the pages that show the clock, those that are set; on REQ_CLOCK_UPDATE and when tsc_offset changes. */
void pv_clock_update(struct vcpu *vcpu);
/* The VM's clock line was set. Any thread. */
void pv_clock_changed(struct vm *vm);
/* KVM_KVMCLOCK_CTRL: 0, or -EINVAL without an active page; the caller requests a clock update. */
int pv_clock_paused(struct pv *pv);

/* ---- steal.c ---- */

/* The host tells how long threads waited for a processor. Any thread. */
bool pv_steal_available(void);
/* REQ_STEAL: show the guest what was stolen. */
void pv_steal_update(struct vcpu *vcpu);
/* The vCPU's thread is about to sleep: until the next pv_entered() others may leave requests in memory. */
void pv_steal_preempted(struct vcpu *vcpu);

/* ---- msrs.c ---- */

/* MSR_KVM_POLL_CONTROL: halts may poll. */
bool pv_poll_allowed(const struct vcpu *vcpu);

/* ---- apf.c ---- */

/* REQ_APF: a page-ready event may be waiting, and the guest may have room for it. */
void pv_apf_ready(struct vcpu *vcpu);

/* ---- eoi.c ---- */

/*
 * PV EOI. sync: take over what the guest did in memory, before anybody looks at the local APIC. offer: an
 * interrupt was just acknowledged; allow the guest to end it in memory.
 */
void pv_eoi_sync_slow(struct vcpu *vcpu);
void pv_eoi_offer(struct vcpu *vcpu, uint8_t vector);
static inline void pv_eoi_sync(struct vcpu *vcpu)
{
	if (vcpu->eoi_offered)
		pv_eoi_sync_slow(vcpu);
}

/* ---- hypercall.c ---- */

/* platform->hypercall of the vCPU. USER: *pv_hypercall_exit() says what goes to user space. */
enum platform_answer pv_hypercall(struct vcpu *vcpu, bool foreign, uint64_t *ret);

/* An exit that this room wants; reason: KVM_EXIT_HYPERCALL, _HYPERV or _XEN. */
struct pv_exit {
	uint32_t reason;
	union {
		struct kvm_hyperv_exit hyperv;
		struct kvm_xen_exit xen;
		struct {
			uint64_t nr, args[6];
			uint64_t flags;
		} hypercall;
	};
};
const struct pv_exit *pv_hypercall_exit(const struct vcpu *vcpu);
/* User space answered that exit, by its struct kvm_run: RAX. Sets what else the ABI returns. */
uint64_t pv_hypercall_result(struct vcpu *vcpu, const struct kvm_run *run);

#endif
