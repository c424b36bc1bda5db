/* SPDX-License-Identifier: MIT */
/*
 * Asynchronous page faults (Documentation/virt/kvm/x86/msr.rst, MSR_KVM_ASYNC_PF_EN): the guest's side of the
 * contract. An access of a vCPU to memory that the host has not got waits in the access itself, and nothing tells
 * of it beforehand, so no "page not present" is ever sent; and what the guest enabled the mechanism with
 * (after migration, say) is answered as KVM does, by one "all pages are ready".
 */
#include "kvm/pv/pv_internal.h"

#include <linux/kvm_para.h>

#define WAKE_ALL     UINT32_MAX
#define RESERVED     0x30
#define DELIVERED    (KVM_ASYNC_PF_ENABLED | KVM_ASYNC_PF_DELIVERY_AS_INT)
#define APF_MSR_ADDR (~0x3full)

static bool enabled(const struct pv *pv)
{
	return (pv->apf_msr & DELIVERED) == DELIVERED;
}

static gpa_t token_gpa(const struct pv *pv)
{
	return (pv->apf_msr & APF_MSR_ADDR) + offsetof(struct kvm_vcpu_pv_apf_data, token);
}

void pv_apf_ready(struct vcpu *vcpu)
{
	struct pv *pv = vcpu->pv;
	uint32_t token;

	if (!pv->apf_wakeup)
		return;
	if (enabled(pv)) {
		if (!vcpu->lapic || !lapic_hw_enabled(vcpu->lapic) ||
		    !lapic_sw_enabled(vcpu->lapic))
			return; /* asked again when it is */
		if (vm_read_guest(vcpu->vm, token_gpa(pv), &token, sizeof(token)) || token)
			return; /* the guest has not taken the last one */
		token = WAKE_ALL;
		if (!vm_write_guest(vcpu->vm, token_gpa(pv), &token, sizeof(token)))
			pv_interrupt(vcpu, pv->apf_vector);
	}
	pv->apf_wakeup = false;
}

enum pv_result pv_apf_set(struct vcpu *vcpu, uint64_t val)
{
	struct pv *pv = vcpu->pv;

	if (val & RESERVED ||
	    (val & KVM_ASYNC_PF_DELIVERY_AS_PF_VMEXIT &&
	     !pv_has(vcpu, KVM_FEATURE_ASYNC_PF_VMEXIT)) ||
	    (val & KVM_ASYNC_PF_DELIVERY_AS_INT && !pv_has(vcpu, KVM_FEATURE_ASYNC_PF_INT)))
		return PV_DENIED;
	if (!vcpu->lapic)
		return val ? PV_DENIED : PV_OK;
	pv->apf_msr = val;
	if (!enabled(pv)) {
		pv->apf_wakeup = false;
		return PV_OK;
	}
	if (!vm_hva(vcpu->vm, val & APF_MSR_ADDR, sizeof(uint64_t)))
		return PV_DENIED;
	pv->apf_wakeup = true;
	vcpu_request(vcpu, REQ_APF);
	return PV_OK;
}

/* Without an APIC 0 is taken, as of MSR_KVM_ASYNC_PF_EN: QEMU resets all MSRs that CPUID names, and ends where it cannot. */
enum pv_result pv_apf_set_vector(struct vcpu *vcpu, uint64_t val)
{
	if (val >> 8 || (val && !vcpu->lapic))
		return PV_DENIED;
	vcpu->pv->apf_vector = val;
	return PV_OK;
}

enum pv_result pv_apf_ack(struct vcpu *vcpu, uint64_t val)
{
	if (val & 1)
		pv_apf_ready(vcpu);
	return PV_OK;
}
