/* SPDX-License-Identifier: MIT */
/*
 * A program that truncates a vCPU's file, as it can no anonymous inode of the kernel's, is refused; it
 * took the kvm_run page away, and KVM_RUN died of SIGBUS.
 */
#include "../api/api_test.h"

int main(void)
{
	struct machine m = machine_open();

	MACHINE_CODE(&m, 0xf4);
	CHECK(ftruncate(m.vcpu, 0) == -1);
	CHECK(ftruncate(m.vcpu, 1 << 20) == -1);
	CHECK(ftruncate(m.vm, 1 << 20) == -1);
	RUN_TO(&m, KVM_EXIT_HLT);
	return 0;
}
