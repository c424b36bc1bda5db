/* SPDX-License-Identifier: MIT */
/*
 * A machine with no memory: a processor at its reset vector finds none there. KVM cannot emulate the fetch and says so,
 * as often as it is asked; nothing is lost by it. A machine with no processor just ends.
 */
#include "api_test.h"

static void expect_no_fetch(int vcpu, struct kvm_run *run)
{
	struct kvm_regs regs;

	for (unsigned i = 0; i < 3; i++) {
		CHECK_EQ(ioctl(vcpu, KVM_RUN, 0), 0);
		CHECK_EQ(run->exit_reason, KVM_EXIT_INTERNAL_ERROR);
		CHECK_EQ(run->internal.suberror, KVM_INTERNAL_ERROR_EMULATION);
		CHECK_EQ(ioctl(vcpu, KVM_GET_REGS, &regs), 0);
		CHECK_EQ(regs.rip, 0xfff0);
	}
}

int main(void)
{
	int kvm = open_kvm(), vm = create_vm(kvm), empty = create_vm(kvm);
	struct kvm_userspace_memory_region slot = {.guest_phys_addr = 0xfffff000,
						   .memory_size = 4096};
	struct kvm_run *run;
	uint8_t *page;
	int vcpu;

	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	CHECK(vcpu >= 0);
	run = map_run(kvm, vcpu);
	expect_no_fetch(vcpu, run);
	/* Memory that comes is found, and missed when it has gone. */
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(page != MAP_FAILED);
	memcpy(page + 0xff0, "\xe6\x80\xeb\xfc", 4); /* 1: out 0x80, al; jmp 1b */
	slot.userspace_addr = (uintptr_t)page;
	CHECK_EQ(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot), 0);
	for (unsigned i = 0; i < 2; i++) {
		CHECK_EQ(ioctl(vcpu, KVM_RUN, 0), 0);
		CHECK_EQ(run->exit_reason, KVM_EXIT_IO);
		CHECK_EQ(run->io.port, 0x80);
	}
	slot.memory_size = 0;
	CHECK_EQ(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot), 0);
	CHECK_EQ(ioctl(vcpu, KVM_RUN, 0), 0);
	CHECK_EQ(run->exit_reason, KVM_EXIT_INTERNAL_ERROR);
	close(empty);
	return 0;
}
