/* SPDX-License-Identifier: MIT */
/*
 * PV EOI (Documentation/virt/kvm/x86/msr.rst, MSR_KVM_PV_EOI_EN; Hyper-V's APIC assist is the same): an
 * interrupt that nobody waits behind may be ended by clearing a bit in memory instead of by an access to
 * the local APIC.
 *
 * The bit is set when the interrupt is acknowledged. Whoever is about to look at the APIC's state takes it back
 * first: if the guest has cleared it, the interrupt has ended; and either way its next EOI is a real one. A
 * second interrupt makes the vCPU look, so it never waits behind a bit that was cleared.
 */
#include "kvm/pv/hv.h"
#include "kvm/pv/pv_internal.h"
#include "kvm/vm/irqchip.h"

#include <linux/kvm_para.h>

void pv_eoi_sync_slow(struct vcpu *vcpu)
{
	struct pv *pv = vcpu->pv;
	uint8_t val;

	vcpu->eoi_offered = false;
	if (!(pv->eoi_msr & PV_ENABLED) || vm_read_guest(vcpu->vm, pv->eoi_gpa, &val, sizeof(val)))
		return;
	if (!(val & KVM_PV_EOI_ENABLED)) {
		lapic_eoi(vcpu->lapic);
		return;
	}
	val = KVM_PV_EOI_DISABLED;
	vm_write_guest(vcpu->vm, pv->eoi_gpa, &val, sizeof(val));
}

void pv_eoi_offer(struct vcpu *vcpu, uint8_t vector)
{
	struct pv *pv = vcpu->pv;
	uint8_t val = KVM_PV_EOI_ENABLED;

	/* Something else is requested, or nested, or somebody must hear of the end. */
	if (!(pv->eoi_msr & PV_ENABLED) || lapic_highest_irr(vcpu->lapic) >= 0 ||
	    lapic_highest_isr(vcpu->lapic) != vector || vm_eoi_wanted(vcpu->vm, vector) ||
	    pv_hv_vector_connected(vcpu, vector))
		return;
	vcpu->eoi_offered = !vm_write_guest(vcpu->vm, pv->eoi_gpa, &val, sizeof(val));
}

enum pv_result pv_eoi_set(struct vcpu *vcpu, uint64_t val)
{
	gpa_t gpa = val & ~PV_ENABLED;

	if (gpa & 3)
		return PV_DENIED;
	if (val & PV_ENABLED && !vm_hva(vcpu->vm, gpa, sizeof(uint8_t)))
		return PV_DENIED;
	pv_eoi_sync(vcpu); /* by the old page */
	vcpu->pv->eoi_msr = val;
	vcpu->pv->eoi_gpa = gpa;
	return PV_OK;
}
