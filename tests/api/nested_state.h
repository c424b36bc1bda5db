/* SPDX-License-Identifier: MIT */
/* KVM_GET_NESTED_STATE and KVM_SET_NESTED_STATE (KVM api.rst) with room for either vendor's state, and what shows beside it. */
#ifndef TESTS_API_NESTED_STATE_H
#define TESTS_API_NESTED_STATE_H

#include "api_test.h"

/* The size of a state that has none. */
#define NESTED_HEAD sizeof(struct kvm_nested_state)

struct nested_state {
	struct kvm_nested_state head;
	uint8_t data[2 * 4096];
};

static inline struct nested_state nested_get(int vcpu)
{
	struct nested_state s = {.head.size = sizeof(s)};

	CHECK_EQ(ioctl(vcpu, KVM_GET_NESTED_STATE, &s), 0);
	return s;
}

/* KVM writes into what it is given. */
static inline int nested_set(int vcpu, const struct nested_state *s)
{
	struct nested_state copy = *s;

	return ioctl(vcpu, KVM_SET_NESTED_STATE, &copy);
}

static inline struct kvm_sregs sregs_of(int vcpu)
{
	struct kvm_sregs s;

	CHECK_EQ(ioctl(vcpu, KVM_GET_SREGS, &s), 0);
	return s;
}

#endif
