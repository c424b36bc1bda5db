/* SPDX-License-Identifier: MIT */
/*
 * Xen's guest interface for HVM guests (xen/include/public of the Xen project; KVM api.rst, KVM_XEN_HVM_CONFIG and
 * the KVM_XEN ioctls): hypercall page, shared info with two-level event channels, run states, timers. What is not
 * done here goes to user space with KVM_EXIT_XEN.
 *
 * vCPU thread only, in KVM_RUN or with vcpu->mutex and slots_lock held, unless said otherwise.
 */
#ifndef KVM_PV_XEN_H
#define KVM_PV_XEN_H

#include "kvm/pv/pv.h"

struct pv_time_info;

/* ---- xen.c ---- */

int pv_xen_vm_create(struct vm *vm);
void pv_xen_vm_destroy(struct vm *vm);
int pv_xen_create(struct vcpu *vcpu);
void pv_xen_destroy(struct vcpu *vcpu);
/* index is the MSR of KVM_XEN_HVM_CONFIG. Any thread. */
bool pv_xen_is_page_msr(const struct vm *vm, uint32_t index);
/* A write to it: make the hypercall page that val names. */
enum pv_result pv_xen_write_page(struct vcpu *vcpu, uint64_t val);
/* Hypercalls are Xen's. Any thread. */
bool pv_xen_calls_enabled(const struct vm *vm);

/* ---- xen_attr.c: ioctl handlers ---- */

long pv_xen_config(struct vm *vm, void *arg);
long pv_xen_vm_get_attr(struct vm *vm, void *arg);
long pv_xen_vm_set_attr(struct vm *vm, void *arg);
long pv_xen_vcpu_get_attr(struct vcpu *vcpu, void *arg);
long pv_xen_vcpu_set_attr(struct vcpu *vcpu, void *arg);
long pv_xen_evtchn_send(struct vm *vm, void *arg);

/* ---- xen_evtchn.c: any thread ---- */

/* KVM_SET_GSI_ROUTING: 0 or -EINVAL. */
int pv_xen_check_route(const struct kvm_irq_routing_xen_evtchn *e);
/* > 0: delivered; 0: was pending already; < 0: -errno. */
int pv_xen_set_evtchn(struct vm *vm, const struct kvm_irq_routing_xen_evtchn *e);
/* The VM's upcall vector if this vCPU has an upcall pending, else -1. */
int pv_xen_pending_vector(struct vcpu *vcpu);
/* The local APIC was enabled by software: an upcall by vector may be waiting. vCPU thread. */
void pv_xen_apic_enabled(struct vcpu *vcpu);
/* Raise REQ_XEN if there are events that could not be told. vCPU thread. */
void pv_xen_retry(struct vcpu *vcpu);
/* REQ_XEN: events that could not be told before; an event polled for. vCPU thread. */
void pv_xen_serve(struct vcpu *vcpu);
/* The vCPU runs again, or KVM_RUN returns: SCHEDOP_poll is over. vCPU thread. */
void pv_xen_poll_end(struct vcpu *vcpu);

/* ---- xen_time.c ---- */

void pv_xen_clock_update(struct vcpu *vcpu, const struct pv_time_info *info);
/* KVM_RUN is entered: the vCPU's run state is "running" from now on. False: no run states are kept. */
bool pv_xen_entered(struct vcpu *vcpu);
/* Xen's CPUID leaves that show the clock; r: EAX to EDX. */
void pv_xen_cpuid(const struct vcpu *vcpu, uint32_t leaf, uint32_t subleaf, uint32_t r[4]);

/* ---- xen_call.c ---- */

enum platform_answer pv_xen_call(struct vcpu *vcpu, uint64_t *ret);

#endif
