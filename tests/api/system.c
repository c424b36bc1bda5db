/* SPDX-License-Identifier: MIT */
/* System ioctls and what they refuse (KVM api.rst; Linux's kvm_dev_ioctl and kvm_arch_dev_ioctl). */
#include "api_test.h"

static void test_plain(int kvm)
{
	CHECK_EQ(ioctl(kvm, KVM_GET_API_VERSION, 0), 12);
	CHECK_ERR(ioctl(kvm, KVM_GET_API_VERSION, 1), EINVAL);
	CHECK_EQ(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), 12288);
	CHECK_ERR(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 1), EINVAL);
	CHECK_ERR(ioctl(kvm, KVM_CREATE_VM, 31), EINVAL);
	CHECK_ERR(ioctl(kvm, KVM_CREATE_VM, -1), EINVAL);
	CHECK_ERR(ioctl(kvm, KVM_RUN, 0), EINVAL);
	CHECK_ERR(ioctl(kvm, KVM_CREATE_VCPU, 0), EINVAL);
	CHECK_ERR(ioctl(kvm, _IO(KVMIO, 0xff), 0), EINVAL);
}

/* Every capability that QEMU asks for or the selftests need, with what Linux 6.12 answers. */
static void test_capabilities(int kvm)
{
	static const struct {
		int cap, value;
	} wanted[] = {
		{KVM_CAP_IRQCHIP, 1},
		{KVM_CAP_USER_MEMORY, 1},
		{KVM_CAP_SET_TSS_ADDR, 1},
		{KVM_CAP_EXT_CPUID, 1},
		{KVM_CAP_NR_MEMSLOTS, 32764},
		{KVM_CAP_MP_STATE, 1},
		{KVM_CAP_COALESCED_MMIO, 2},
		{KVM_CAP_DESTROY_MEMORY_REGION_WORKS, 1},
		{KVM_CAP_JOIN_MEMORY_REGIONS_WORKS, 1},
		{KVM_CAP_IRQ_ROUTING, 4096},
		{KVM_CAP_MCE, 32},
		{KVM_CAP_MAX_VCPUS, 1024},
		{KVM_CAP_MAX_VCPU_ID, 4096},
		{KVM_CAP_IMMEDIATE_EXIT, 1},
		{KVM_CAP_COALESCED_PIO, 1},
		{KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 3},
		{KVM_CAP_ADJUST_CLOCK, 14},
		{KVM_CAP_XSAVE2, 4096},
		{KVM_CAP_USER_MEMORY2, 1},
		{KVM_CAP_READONLY_MEM, 1},
		{KVM_CAP_BINARY_STATS_FD, 1},
		{KVM_CAP_X2APIC_API, 3},
		{KVM_CAP_VM_TYPES, 3},
		{KVM_CAP_GUEST_MEMFD, 1},
		{KVM_CAP_MEMORY_ATTRIBUTES, 8},
		{KVM_CAP_PRE_FAULT_MEMORY, 1},
		{KVM_CAP_X86_SMM, 1},
		{KVM_CAP_MULTI_ADDRESS_SPACE, 2},
		{KVM_CAP_HYPERV, 1},
		{KVM_CAP_HYPERV_SYNIC2, 1},
		{KVM_CAP_SYS_HYPERV_CPUID, 1},
		{KVM_CAP_EXIT_HYPERCALL, 1 << 12},
		{KVM_CAP_ASYNC_PF_INT, 1},
		{KVM_CAP_TSC_CONTROL, 1},
		{KVM_CAP_VM_TSC_CONTROL, 1},
		/* What is not there. */
		{KVM_CAP_HYPERV_ENLIGHTENED_VMCS, 1},
		{KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP, 0},
		{KVM_CAP_S390_PSW, 0},
		{0x7fffffff, 0},
	};

	for (unsigned i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
		CHECK_EQ(ioctl(kvm, KVM_CHECK_EXTENSION, wanted[i].cap), wanted[i].value);
	CHECK(ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_NR_VCPUS) >= 1);
}

static void test_msr_list(int kvm, unsigned long request)
{
	struct kvm_msr_list *list = calloc(1, sizeof(*list) + 1024 * 4);
	unsigned nr;

	CHECK_ERR(ioctl(kvm, request, BAD_POINTER), EFAULT);
	CHECK_ERR(ioctl(kvm, request, list), E2BIG);
	nr = list->nmsrs;
	CHECK(nr > 0 && nr < 1024);
	list->nmsrs = nr - 1;
	CHECK_ERR(ioctl(kvm, request, list), E2BIG);
	CHECK_EQ(list->nmsrs, nr);
	CHECK_EQ(ioctl(kvm, request, list), 0);
	CHECK_EQ(list->nmsrs, nr);
	for (unsigned i = 0; i < nr; i++)
		for (unsigned j = 0; j < i; j++)
			CHECK(list->indices[i] != list->indices[j]);
	free(list);
}

static void test_feature_msrs(int kvm)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry v[256];
	} msrs = {.head.nmsrs = 256};

	CHECK_ERR(ioctl(kvm, KVM_GET_MSRS, &msrs), E2BIG);
	CHECK_ERR(ioctl(kvm, KVM_GET_MSRS, BAD_POINTER), EFAULT);
	msrs.head.nmsrs = 2;
	msrs.v[0].index = 0x8b; /* microcode revision: a feature MSR everywhere */
	msrs.v[1].index = 0xdeadbeef;
	CHECK_EQ(ioctl(kvm, KVM_GET_MSRS, &msrs), 1);
	msrs.v[0].index = 0xdeadbeef;
	CHECK_EQ(ioctl(kvm, KVM_GET_MSRS, &msrs), 0);
	msrs.head.nmsrs = 0;
	CHECK_EQ(ioctl(kvm, KVM_GET_MSRS, &msrs), 0);
}

static void test_cpuid(int kvm)
{
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + 256 * sizeof(cpuid->entries[0]));
	bool found = false;

	CHECK_ERR(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, BAD_POINTER), EFAULT);
	cpuid->nent = 1;
	CHECK_ERR(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid), E2BIG);
	cpuid->nent = 0;
	CHECK_ERR(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid), E2BIG);
	cpuid->nent = 256;
	CHECK_EQ(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid), 0);
	CHECK(cpuid->nent > 10 && cpuid->nent < 256);
	CHECK_EQ(cpuid->entries[0].function, 0);
	for (unsigned i = 0; i < cpuid->nent; i++)
		found |= cpuid->entries[i].function == 0x40000001;
	CHECK(found);
	free(cpuid);
}

static void test_attributes(int kvm)
{
	uint64_t xcr0 = 0;
	struct kvm_device_attr attr = {.addr = (uintptr_t)&xcr0};

	CHECK_EQ(ioctl(kvm, KVM_HAS_DEVICE_ATTR, &attr), 0);
	CHECK_EQ(ioctl(kvm, KVM_GET_DEVICE_ATTR, &attr), 0);
	CHECK_EQ(xcr0 & 3, 3);
	attr.addr = (uintptr_t)BAD_POINTER;
	CHECK_ERR(ioctl(kvm, KVM_GET_DEVICE_ATTR, &attr), EFAULT);
	attr.attr = 1000;
	CHECK_ERR(ioctl(kvm, KVM_GET_DEVICE_ATTR, &attr), ENXIO);
	CHECK_ERR(ioctl(kvm, KVM_HAS_DEVICE_ATTR, &attr), ENXIO);
	attr.group = 1;
	attr.attr = 0;
	CHECK_ERR(ioctl(kvm, KVM_HAS_DEVICE_ATTR, &attr), ENXIO);
	CHECK_ERR(ioctl(kvm, KVM_GET_DEVICE_ATTR, BAD_POINTER), EFAULT);
}

int main(void)
{
	int kvm = open_kvm();
	uint64_t cap;

	test_plain(kvm);
	test_capabilities(kvm);
	test_msr_list(kvm, KVM_GET_MSR_INDEX_LIST);
	test_msr_list(kvm, KVM_GET_MSR_FEATURE_INDEX_LIST);
	test_feature_msrs(kvm);
	test_cpuid(kvm);
	test_attributes(kvm);
	CHECK_EQ(ioctl(kvm, KVM_X86_GET_MCE_CAP_SUPPORTED, &cap), 0);
	CHECK(cap & 0x100);
	CHECK_ERR(ioctl(kvm, KVM_X86_GET_MCE_CAP_SUPPORTED, BAD_POINTER), EFAULT);
	/* On a VM too, so that the counters have moved. */
	CHECK_EQ(ioctl(create_vm(kvm), KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY), 1);
	return 0;
}
