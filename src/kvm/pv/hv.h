/* SPDX-License-Identifier: MIT */
/*
 * Hyper-V's guest interface (Microsoft's Hypervisor Top-Level Functional Specification, as far as Linux 6.12's KVM
 * offers it): synthetic MSRs, hypercalls, the synthetic interrupt controller and its timers.
 *
 * vCPU thread only, in KVM_RUN or with vcpu->mutex and slots_lock held, unless said otherwise.
 */
#ifndef KVM_PV_HV_H
#define KVM_PV_HV_H

#include "kvm/pv/pv.h"

struct cpu_model;
struct kvm_hyperv_exit;
struct pv_time_info;

/* ---- hv.c ---- */

/* 0 or -ENOMEM; destroy takes what create left. */
int pv_hv_vm_create(struct vm *vm);
void pv_hv_vm_destroy(struct vm *vm);
int pv_hv_create(struct vcpu *vcpu);
void pv_hv_destroy(struct vcpu *vcpu);
void pv_hv_cpuid_changed(struct vcpu *vcpu);
/* KVM_ENABLE_CAP on a vCPU: 0 or -errno, -EINVAL also for caps that are none of Hyper-V's. */
int pv_hv_enable_cap(struct vcpu *vcpu, const struct kvm_enable_cap *cap);
/* Invariant TSC is hidden from CPUID until the guest asked for it. */
bool pv_hv_invtsc_hidden(const struct vcpu *vcpu);
/* REQ_HV_EXIT: what goes to user space with KVM_EXIT_HYPERV. */
const struct kvm_hyperv_exit *pv_hv_exit(const struct vcpu *vcpu);
/* The program answered it. */
void pv_hv_exit_done(struct vcpu *vcpu, const struct kvm_hyperv_exit *answer);
/* KVM_GET_SUPPORTED_HV_CPUID. vcpu NULL: on /dev/kvm, vmx: with nested VMX. user: struct kvm_cpuid2. Any thread. 0 or -errno. */
long pv_hv_supported_cpuid(const struct vcpu *vcpu, bool vmx, void *user);

/* ---- hv_msrs.c ---- */

/* PV_UNKNOWN if index is none of Hyper-V's. */
enum pv_result pv_hv_msr_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret);
enum pv_result pv_hv_msr_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val);

/* ---- hv_time.c ---- */

void pv_hv_clock_update(struct vcpu *vcpu, const struct pv_time_info *info);
/* Any thread. */
void pv_hv_clock_changed(struct vm *vm);

/* ---- hv_synic.c: any thread ---- */

/* A route of type KVM_IRQ_ROUTING_HV_SINT. As vm_set_irq(). */
int pv_hv_set_sint(struct vm *vm, uint32_t vp_index, uint32_t sint);
/* A synthetic interrupt source of this vCPU has this vector; and ends its interrupts by itself. */
bool pv_hv_vector_connected(const struct vcpu *vcpu, uint8_t vector);
bool pv_hv_vector_auto_eoi(const struct vcpu *vcpu, uint8_t vector);
/* vCPU thread: an interrupt ended. irq_lock not held. */
void pv_hv_eoi(struct vcpu *vcpu, uint8_t vector);

/* ---- hv_stimer.c ---- */

/* REQ_HV_STIMER. */
void pv_hv_stimers(struct vcpu *vcpu);

/* ---- hv_call.c, hv_flush.c ---- */

bool pv_hv_calls_enabled(const struct vcpu *vcpu);
enum platform_answer pv_hv_call(struct vcpu *vcpu, uint64_t *ret);
/* REQ_HV_FLUSH. */
void pv_hv_flush(struct vcpu *vcpu);
/* KVM_HYPERV_EVENTFD. Any thread. */
long pv_hv_eventfd(struct vm *vm, void *arg);

/* ---- hv_nested.c ---- */

/* REQ_HV_TRAP: a nested guest's flush is done, and its hypervisor wants to know. */
void pv_hv_trap(struct vcpu *vcpu);
/* The state of a nested guest is about to be set. */
void pv_hv_nested_restored(struct vcpu *vcpu);
/* A capability MSR of VMX, 0 for the first, as the guest reads it. */
uint64_t pv_hv_vmx_msr(const struct vcpu *vcpu, unsigned msr, uint64_t val);

#endif
