/* SPDX-License-Identifier: MIT */
/*
 * Nested state in SVM's format (KVM api.rst): GIF; in guest mode a VMCB, its control area as VMRUN read it and L1's
 * registers in place of its save area. The registers of the other ioctls are L2's then. What is refused, and in
 * which order, follows Linux 6.12.
 */
#include "kvm/pv/hv.h"
#include "kvm/vcpu/nested.h"
#include "kvm/vcpu/vcpu_internal.h"
#include "silicon/svm/svm.h"

#define FLAGS \
	(KVM_STATE_NESTED_GUEST_MODE | KVM_STATE_NESTED_RUN_PENDING | KVM_STATE_NESTED_GIF_SET)

_Static_assert(KVM_STATE_NESTED_SVM_VMCB_SIZE == SVM_VMCB_SIZE, "UAPI");

static void get(struct vcpu *vcpu, struct kvm_nested_state *state)
{
	struct cpu *cpu = &vcpu->cpu;

	state->format = KVM_STATE_NESTED_FORMAT_SVM;
	if (cpu->virt->gif)
		state->flags |= KVM_STATE_NESTED_GIF_SET;
	if (!cpu_guest(cpu))
		return;
	state->flags |= KVM_STATE_NESTED_GUEST_MODE;
	state->size += SVM_VMCB_SIZE;
	state->hdr.svm.vmcb_pa = svm_get_guest(cpu, (uint8_t *)state->data.svm);
}

static bool flags_valid(const struct cpu *cpu, const struct kvm_nested_state *head)
{
	if (head->format != KVM_STATE_NESTED_FORMAT_SVM || (head->flags & ~FLAGS))
		return false;
	/* Without SVM, GIF is 1. */
	if (!(cpu->msr.efer & EFER_SVME) && head->flags != KVM_STATE_NESTED_GIF_SET)
		return false;
	return !cpu->in_smm || !(head->flags & KVM_STATE_NESTED_GUEST_MODE);
}

static long set_guest(struct cpu *cpu, const struct kvm_nested_state *head, const void *data)
{
	uint64_t pa = head->hdr.svm.vmcb_pa;
	uint8_t vmcb[SVM_VMCB_SIZE];

	if ((pa & ~PAGE_MASK) || pa >> cpu->maxphyaddr || head->size < sizeof(*head) + sizeof(vmcb))
		return -EINVAL;
	if (ioctl_copy_in(vmcb, data, sizeof(vmcb)))
		return -EFAULT;
	if (!svm_guest_valid(cpu, vmcb))
		return -EINVAL;
	/* All checks passed. */
	svm_set_guest(cpu, pa, vmcb);
	return 0;
}

static long set(struct vcpu *vcpu, const struct kvm_nested_state *head, const void *data)
{
	struct cpu *cpu = &vcpu->cpu;
	long r = 0;

	if (!flags_valid(cpu, head))
		return -EINVAL;
	pv_hv_nested_restored(vcpu);
	if (head->flags & KVM_STATE_NESTED_GUEST_MODE)
		r = set_guest(cpu, head, data);
	else
		svm_leave(cpu);
	if (!r)
		svm_set_gif(cpu, head->flags & KVM_STATE_NESTED_GIF_SET);
	return r;
}

const struct nested_format nested_svm = {.get = get, .set = set};
