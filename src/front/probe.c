/* SPDX-License-Identifier: MIT */
/*
 * A virtual machine of one page, by /dev/kvm as any program has it: real mode, eleven bytes. It adds two numbers
 * that the compiler of this file does not see together, tells the sum to port 0x80, and halts.
 */
#include "front/launcher.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define LOAD_AT 0x1000

/* mov dx, 0x80; mov eax, 41; inc eax; out dx, al; hlt */
static const uint8_t code[] = {0xba, 0x80, 0x00, 0x66, 0xb8, 0x29, 0, 0, 0, 0x66, 0x40, 0xee, 0xf4};

static char why[160];

static const char *fail(const char *what)
{
	snprintf(why, sizeof(why), "%s: %s", what, strerror(errno));
	return why;
}

static const char *set_registers(int vcpu)
{
	struct kvm_regs regs = {.rip = LOAD_AT, .rflags = 2};
	struct kvm_sregs sregs;

	if (ioctl(vcpu, KVM_GET_SREGS, &sregs))
		return fail("KVM_GET_SREGS");
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	if (ioctl(vcpu, KVM_SET_SREGS, &sregs) || ioctl(vcpu, KVM_SET_REGS, &regs))
		return fail("setting registers");
	return NULL;
}

static const char *run(int vcpu, struct kvm_run *run)
{
	if (ioctl(vcpu, KVM_RUN, 0))
		return fail("KVM_RUN");
	if (run->exit_reason != KVM_EXIT_IO || run->io.port != 0x80 ||
	    *((uint8_t *)run + run->io.data_offset) != 42)
		return "the guest computed something else";
	if (ioctl(vcpu, KVM_RUN, 0))
		return fail("KVM_RUN");
	return run->exit_reason == KVM_EXIT_HLT ? NULL : "the guest did not halt";
}

static const char *run_in(int vm, uint8_t *page, int size)
{
	struct kvm_userspace_memory_region region = {
		.guest_phys_addr = LOAD_AT,
		.memory_size = PAGE_SIZE,
		.userspace_addr = (uintptr_t)page,
	};
	const char *bad;
	void *state;
	int vcpu;

	memcpy(page, code, sizeof(code));
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region))
		return fail("KVM_SET_USER_MEMORY_REGION");
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	if (vcpu < 0)
		return fail("KVM_CREATE_VCPU");
	state = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (state == MAP_FAILED)
		return fail("mmap");
	bad = set_registers(vcpu);
	return bad ? bad : run(vcpu, state);
}

const char *probe_guest(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm;
	void *page;

	if (kvm < 0)
		return fail("/dev/kvm");
	if (ioctl(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		return "/dev/kvm: another version";
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0)
		return fail("KVM_CREATE_VM");
	page = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return fail("mmap");
	return run_in(vm, page, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
}
