/* SPDX-License-Identifier: MIT */
/*
 * KVM_GET_NESTED_STATE and KVM_SET_NESTED_STATE (KVM api.rst): sizes, formats and the copying; what is in it is each
 * extension's (nested_vmx.c, nested_svm.c).
 *
 * The state is put together whole before it is copied out, and judged whole before it is taken, so that a failure
 * leaves a vCPU outside of VMX or SVM operation at worst, as KVM does.
 */
#include "kvm/vcpu/nested.h"
#include "kvm/vcpu/vcpu_internal.h"

#include <stdlib.h>
#include <string.h>

#define FLAGS                                                                                  \
	(KVM_STATE_NESTED_GUEST_MODE | KVM_STATE_NESTED_RUN_PENDING | KVM_STATE_NESTED_EVMCS | \
	 KVM_STATE_NESTED_MTF_PENDING | KVM_STATE_NESTED_GIF_SET)

static const struct nested_format *format_of(const struct vcpu *vcpu)
{
	return model_intel(vcpu->cpu.model) ? &nested_vmx : &nested_svm;
}

long vcpu_get_nested_state(struct vcpu *vcpu, void *arg)
{
	const struct nested_format *format = format_of(vcpu);
	struct kvm_nested_state *user = arg, *state;
	uint32_t room;
	long r = 0;

	if (!vcpu->cpu.virt)
		return -EINVAL;
	if (ioctl_copy_in(&room, &user->size, sizeof(room)))
		return -EFAULT;
	state = calloc(1, NESTED_STATE_MAX);
	if (!state)
		return -ENOMEM;
	state->size = sizeof(*state);
	format->get(vcpu, state);
	if (state->size > room)
		r = ioctl_copy_out(&user->size, &state->size, sizeof(state->size)) ? -EFAULT
										   : -E2BIG;
	else if (ioctl_copy_out(user, state, state->size))
		r = -EFAULT;
	free(state);
	return r;
}

static bool head_valid(const struct kvm_nested_state *head)
{
	if (head->size < sizeof(*head) || (head->flags & ~FLAGS))
		return false;
	return !(head->flags & KVM_STATE_NESTED_RUN_PENDING) ||
	       (head->flags & KVM_STATE_NESTED_GUEST_MODE);
}

long vcpu_set_nested_state(struct vcpu *vcpu, void *arg)
{
	const struct nested_format *format = format_of(vcpu);
	struct kvm_nested_state head;
	long r;

	if (!vcpu->cpu.virt)
		return -EINVAL;
	if (ioctl_copy_in(&head, arg, sizeof(head)))
		return -EFAULT;
	if (!head_valid(&head))
		return -EINVAL;
	r = host_fault_thread_init();
	return r ? r : format->set(vcpu, &head, ioctl_behind(arg, sizeof(head)));
}
