/* SPDX-License-Identifier: MIT */
/*
 * The synthetic debugger's registers and hypercalls (KDNET over Hyper-V): kept here, served by the program, which
 * hears of a new command by KVM_EXIT_HYPERV_SYNDBG or by the hypercall's exit.
 */
#include "kvm/pv/hv_internal.h"

bool hv_syndbg_enabled(const struct vcpu *vcpu)
{
	return hv_of(vcpu)->cpuid.syndbg_eax & HV_SYNDBG_KERNEL_DEBUGGING;
}

static uint64_t *reg_of(struct hv_vm *hv, uint32_t index)
{
	switch (index) {
	case HV_MSR_SYNDBG_CONTROL:
		return &hv->syndbg.control;
	case HV_MSR_SYNDBG_STATUS:
		return &hv->syndbg.status;
	case HV_MSR_SYNDBG_SEND_BUFFER:
		return &hv->syndbg.send_page;
	case HV_MSR_SYNDBG_RECV_BUFFER:
		return &hv->syndbg.recv_page;
	case HV_MSR_SYNDBG_PENDING_BUFFER:
		return &hv->syndbg.pending_page;
	default:
		return &hv->syndbg.options;
	}
}

static void tell_program(struct vcpu *vcpu, uint32_t index)
{
	const struct hv_vm *hv = hv_vm_of(vcpu->vm);
	struct kvm_hyperv_exit *exit = &hv_of(vcpu)->exit;

	*exit = (struct kvm_hyperv_exit){.type = KVM_EXIT_HYPERV_SYNDBG};
	exit->u.syndbg.msr = index;
	exit->u.syndbg.control = hv->syndbg.control;
	exit->u.syndbg.send_page = hv->syndbg.send_page;
	exit->u.syndbg.recv_page = hv->syndbg.recv_page;
	exit->u.syndbg.pending_page = hv->syndbg.pending_page;
	vcpu_request(vcpu, REQ_HV_EXIT);
}

enum pv_result hv_syndbg_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret)
{
	if (!hv_syndbg_enabled(vcpu) && !host)
		return PV_DENIED;
	*ret = *reg_of(hv_vm_of(vcpu->vm), index);
	return PV_OK;
}

enum pv_result hv_syndbg_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	if (!hv_syndbg_enabled(vcpu) && !host)
		return PV_DENIED;
	*reg_of(hv_vm_of(vcpu->vm), index) = val;
	if (!host && (index == HV_MSR_SYNDBG_CONTROL || index == HV_MSR_SYNDBG_PENDING_BUFFER))
		tell_program(vcpu, index);
	return PV_OK;
}

uint64_t hv_syndbg_call(struct vcpu *vcpu)
{
	if (!hv_syndbg_enabled(vcpu))
		return HV_STATUS_INVALID_CODE;
	if (!(__atomic_load_n(&hv_vm_of(vcpu->vm)->syndbg.options, __ATOMIC_RELAXED) &
	      HV_SYNDBG_USE_HCALLS))
		return HV_STATUS_OPERATION_DENIED;
	return HV_TO_USER;
}
