/* SPDX-License-Identifier: MIT */
/*
 * CPUID is fixed once the guest was entered, not by a KVM_RUN that immediate_exit ended before that
 * (Linux: kvm_vcpu_has_run()).
 */
#include "../api/api_test.h"

int main(void)
{
	struct machine m = machine_open();
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entry;
	} c = {.head.nent = 1, .entry = {.function = 0, .eax = 1}};

	MACHINE_CODE(&m, 0xf4);
	m.run->immediate_exit = 1;
	CHECK_ERR(ioctl(m.vcpu, KVM_RUN, 0), EINTR);
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_CPUID2, &c), 0);
	m.run->immediate_exit = 0;
	RUN_TO(&m, KVM_EXIT_HLT);
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_CPUID2, &c), 0); /* the same again */
	c.entry.eax = 2;
	CHECK_ERR(ioctl(m.vcpu, KVM_SET_CPUID2, &c), EINVAL);
	return 0;
}
