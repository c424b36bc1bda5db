/* SPDX-License-Identifier: MIT */
/* What hangs from VMs and vCPUs for the guest interfaces of this room: made, reset and unmade. */
#include "kvm/pv/hv.h"
#include "kvm/pv/pv_internal.h"
#include "kvm/pv/xen.h"
#include "kvm/pv/xen_internal.h"

#include <errno.h>
#include <linux/kvm_para.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int pv_vm_create(struct vm *vm)
{
	vm->pv = calloc(1, sizeof(*vm->pv));
	if (!vm->pv)
		return -ENOMEM;
	return pv_hv_vm_create(vm) || pv_xen_vm_create(vm) ? -ENOMEM : 0;
}

void pv_vm_destroy(struct vm *vm)
{
	if (!vm->pv)
		return;
	pv_hv_vm_destroy(vm);
	pv_xen_vm_destroy(vm);
	free(vm->pv);
}

struct pv *pv_create(struct vcpu *vcpu)
{
	struct pv *pv = calloc(1, sizeof(*pv));

	if (!pv)
		return NULL;
	pv->vcpu = vcpu;
	pv->schedstat = -1;
	pv->poll_control = 1; /* the default of KVM */
	vcpu->pv = pv;
	if (pv_hv_create(vcpu) || pv_xen_create(vcpu)) {
		pv_destroy(pv);
		vcpu->pv = NULL;
	}
	return vcpu->pv;
}

void pv_destroy(struct pv *pv)
{
	pv_hv_destroy(pv->vcpu);
	pv_xen_destroy(pv->vcpu);
	if (pv->schedstat >= 0)
		close(pv->schedstat);
	free(pv);
}

void pv_reset(struct vcpu *vcpu)
{
	struct pv *pv = vcpu->pv;

	pv->system_time = 0;
	pv->steal_msr = 0;
	pv->apf_msr = 0;
	pv->apf_vector = 0;
	pv->apf_wakeup = false;
	pv->eoi_msr = 0;
	vcpu->eoi_offered = false;
}

/* The first leaf of a hypervisor with this signature: its number and the last one it names, or 0. */
static uint32_t find_base(const struct vcpu *vcpu, const char *signature, uint32_t *ret_limit)
{
	for (uint32_t base = 0x40000000; base < 0x40010000; base += 0x100)
		for (unsigned i = 0; i < vcpu->nr_cpuid; i++) {
			const struct kvm_cpuid_entry2 *e = &vcpu->cpuid[i];
			const uint32_t text[3] = {e->ebx, e->ecx, e->edx};

			if (e->function != base || memcmp(text, signature, sizeof(text)))
				continue;
			*ret_limit = e->eax;
			return base;
		}
	*ret_limit = 0;
	return 0;
}

void pv_cpuid_changed(struct vcpu *vcpu)
{
	struct xen *xen = xen_of(vcpu);

	pv_hv_cpuid_changed(vcpu);
	xen->cpuid_base = find_base(vcpu, "XenVMMXenVMM", &xen->cpuid_limit);
}

void pv_entered(struct vcpu *vcpu)
{
	bool xen = __atomic_load_n(&xen_vm_of(vcpu->vm)->config.msr, __ATOMIC_RELAXED);

	if (xen || vcpu->pv->steal_msr & KVM_MSR_ENABLED)
		vcpu_request(vcpu, REQ_STEAL);
	/* The program may have set the flag of an upcall in memory, or brought the vCPU's info back. */
	if (xen) {
		cpu_raise(&vcpu->cpu, ATTN_EVENTS);
		pv_xen_retry(vcpu);
	}
}

void pv_apic_changed(struct vcpu *vcpu)
{
	if (!lapic_sw_enabled(vcpu->lapic))
		return;
	if (vcpu->pv->apf_wakeup)
		vcpu_request(vcpu, REQ_APF);
	pv_xen_apic_enabled(vcpu);
}

int pv_route(struct vm *vm, const struct kvm_irq_routing_entry *e, int level)
{
	int r;

	if (!level)
		return -1;
	if (e->type == KVM_IRQ_ROUTING_HV_SINT)
		return pv_hv_set_sint(vm, e->u.hv_sint.vcpu, e->u.hv_sint.sint);
	r = pv_xen_set_evtchn(vm, &e->u.xen_evtchn);
	return r;
}
