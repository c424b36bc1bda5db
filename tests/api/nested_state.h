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

/* What anykvm says on stderr, from here on; to the test's own eyes only. */
static inline int nested_listen(int *ret_stderr)
{
	int file = memfd_create("said", 0);

	CHECK(file >= 0);
	*ret_stderr = dup(2);
	CHECK_EQ(dup2(file, 2), 2);
	return file;
}

/* Until here: at most 4095 bytes of it. */
static inline void nested_heard(int file, int saved_stderr, char ret[4096])
{
	ssize_t n;

	CHECK_EQ(dup2(saved_stderr, 2), 2);
	n = pread(file, ret, 4095, 0);
	CHECK(n >= 0);
	ret[n] = 0;
	close(file);
	close(saved_stderr);
}

#endif
