/* SPDX-License-Identifier: MIT */
/*
 * KVM_PRE_FAULT_MEMORY (KVM api.rst): have memory allocated before the guest asks for it. Each page is read
 * once; the guest's translations are made when they are used.
 */
#include "kvm/vcpu/vcpu_internal.h"
#include "kvm/vm/private.h"
#include "host/guard.h"

static long fault_in(const struct vcpu *vcpu, gfn_t gfn)
{
	const struct memslot *slot = vm_slot_find_in(vcpu->vm, vcpu->cpu.in_smm, gfn);
	const uint8_t *hva;
	uint8_t byte;

	if (vm_gfn_private(vcpu->vm, gfn))
		hva = slot ? slot_private_hva(slot, gfn) : NULL;
	else if (slot)
		hva = slot->hva + ((gfn - slot->gfn) << PAGE_SHIFT);
	else
		return -ENOENT;
	return hva && host_load_8(hva, &byte) ? 0 : -EFAULT;
}

long vcpu_pre_fault_memory(struct vcpu *vcpu, void *arg)
{
	struct kvm_pre_fault_memory *range = arg;
	uint64_t wanted = range->size;
	long r = 0;

	if (range->flags)
		return -EINVAL;
	if ((range->gpa | range->size) & ~PAGE_MASK || range->gpa + range->size <= range->gpa)
		return -EINVAL;
	while (range->size) {
		r = fault_in(vcpu, range->gpa >> PAGE_SHIFT);
		if (r)
			break;
		range->gpa += PAGE_SIZE;
		range->size -= PAGE_SIZE;
	}
	return range->size == wanted ? r : 0;
}
