/* SPDX-License-Identifier: MIT */
/* Private to kvm/vcpu: nested state, one format for each vendor. */
#ifndef KVM_VCPU_NESTED_H
#define KVM_VCPU_NESTED_H

#include "kvm/vcpu/vcpu.h"

#include <linux/kvm.h>

#define NESTED_STATE_MAX (sizeof(struct kvm_nested_state) + 2 * PAGE_SIZE)

struct nested_format {
	/* Fill *state, of NESTED_STATE_MAX zeroed bytes; ->size is the header's already. */
	void (*get)(struct vcpu *vcpu, struct kvm_nested_state *state);
	/* head is valid as far as the formats have it in common; data: the program's. 0 or -errno. */
	long (*set)(struct vcpu *vcpu, const struct kvm_nested_state *head, const void *data);
};

extern const struct nested_format nested_vmx, nested_svm;

#endif
