/* SPDX-License-Identifier: MIT */
/* KVM_ENABLE_CAP on a VM: what is taken and what is refused (KVM api.rst). */
#include "api_test.h"

int main(void)
{
	int kvm = open_kvm(), vm = create_vm(kvm);
	struct kvm_enable_cap cap = {.cap = KVM_CAP_EXCEPTION_PAYLOAD, .flags = 1};
	int quirks = ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_DISABLE_QUIRKS2);

	CHECK_ERR(ioctl(vm, KVM_ENABLE_CAP, BAD_POINTER), EFAULT);
	CHECK_ERR(ioctl(vm, KVM_ENABLE_CAP, &cap), EINVAL);
	CHECK_ERR(ioctl(kvm, KVM_ENABLE_CAP, &cap), EINVAL);
	CHECK_EQ(enable_cap(vm, KVM_CAP_EXCEPTION_PAYLOAD, 1), 0);
	CHECK_EQ(enable_cap(vm, KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1), 0);
	CHECK_ERR(enable_cap(vm, KVM_CAP_USER_MEMORY, 0), EINVAL);
	CHECK_ERR(enable_cap(vm, KVM_CAP_HYPERV_SYNIC, 0), EINVAL);
	CHECK_ERR(enable_cap(vm, 0x7fffffff, 0), EINVAL);
	CHECK_ERR(enable_cap(vm, KVM_CAP_X2APIC_API, 4), EINVAL);
	CHECK_EQ(enable_cap(vm, KVM_CAP_X2APIC_API, 3), 0);
	CHECK(quirks & KVM_X86_QUIRK_LINT0_REENABLED);
	CHECK_ERR(enable_cap(vm, KVM_CAP_DISABLE_QUIRKS2, quirks | 1 << 30), EINVAL);
	CHECK_EQ(enable_cap(vm, KVM_CAP_DISABLE_QUIRKS2, quirks), 0);
	CHECK_EQ(enable_cap(vm, KVM_CAP_DISABLE_QUIRKS, ~0ull), 0);
	CHECK_EQ(enable_cap(vm, KVM_CAP_X86_USER_SPACE_MSR, 7), 0);
	CHECK_EQ(ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_REGS), KVM_SYNC_X86_VALID_FIELDS);
	/* What cannot be done is not announced, and refused. */
	CHECK_ERR(enable_cap(vm, KVM_CAP_TSC_CONTROL, 1), EINVAL);
	CHECK_EQ(ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_HALT_POLL), 1);
	CHECK_ERR(enable_cap(vm, KVM_CAP_HALT_POLL, 1ull << 32), EINVAL);
	CHECK_EQ(enable_cap(vm, KVM_CAP_HALT_POLL, 0xffffffff), 0);
	CHECK_ERR(enable_cap(vm, KVM_CAP_X86_DISABLE_EXITS, 16), EINVAL);
	CHECK_EQ(enable_cap(vm, KVM_CAP_X86_DISABLE_EXITS, KVM_X86_DISABLE_EXITS_PAUSE), 0);
	CHECK_ERR(enable_cap(vm, KVM_CAP_EXIT_HYPERCALL, 1), EINVAL);
	CHECK_EQ(enable_cap(vm, KVM_CAP_EXIT_HYPERCALL, 1 << 12), 0);
	CHECK_ERR(enable_cap(vm, KVM_CAP_X86_APIC_BUS_CYCLES_NS, 0), EINVAL);
	CHECK_ERR(enable_cap(vm, KVM_CAP_X86_APIC_BUS_CYCLES_NS, 1ull << 40), EINVAL);
	CHECK_ERR(enable_cap(vm, KVM_CAP_X86_APIC_BUS_CYCLES_NS, 10), ENXIO);
	CHECK_EQ(ioctl(vm, KVM_CREATE_IRQCHIP, 0), 0);
	CHECK_EQ(enable_cap(vm, KVM_CAP_X86_APIC_BUS_CYCLES_NS, 10), 0);
	CHECK_ERR(ioctl(vm, KVM_CREATE_DEVICE, &(struct kvm_create_device){.type = 4}), ENODEV);
	CHECK_ERR(ioctl(vm, KVM_CREATE_DEVICE, BAD_POINTER), EFAULT);
	CHECK_ERR(ioctl(vm, KVM_RESET_DIRTY_RINGS, 0), EINVAL);
	CHECK_ERR(ioctl(vm, KVM_SET_TSS_ADDR, 0xffffe000ul), EINVAL);
	CHECK_ERR(ioctl(vm, KVM_SET_TSS_ADDR, 1ul << 32), EINVAL);
	CHECK_EQ(ioctl(vm, KVM_SET_TSS_ADDR, 0xfeffd000ul), 0);
	CHECK_ERR(ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, BAD_POINTER), EFAULT);
	CHECK_ERR(ioctl(vm, KVM_SET_NR_MMU_PAGES, 3), EINVAL);
	CHECK_EQ(ioctl(vm, KVM_SET_NR_MMU_PAGES, 1000), 0);
	CHECK(ioctl(vm, KVM_GET_TSC_KHZ, 0) > 100000);
	return 0;
}
