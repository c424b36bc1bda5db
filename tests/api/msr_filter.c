/* SPDX-License-Identifier: MIT */
/* The MSR filter and MSR exits to user space (KVM api.rst, KVM_X86_SET_MSR_FILTER). */
#include "api_test.h"

/* mov $0x174,%ecx; rdmsr; out %al,$0x80; mov $0x77,%al; wrmsr; hlt   (0x66 prefix: 32-bit move) */
#define READ_WRITE \
	0x66, 0xb9, 0x74, 0x01, 0x00, 0x00, 0x0f, 0x32, 0xe6, 0x80, 0xb0, 0x77, 0x0f, 0x30, 0xf4

static void test_refused(void)
{
	int kvm = open_kvm(), vm = create_vm(kvm);
	struct kvm_msr_filter filter = {.flags = KVM_MSR_FILTER_DEFAULT_DENY};
	uint8_t bits[1] = {0};

	CHECK_ERR(ioctl(vm, KVM_X86_SET_MSR_FILTER, BAD_POINTER), EFAULT);
	CHECK_ERR(ioctl(vm, KVM_X86_SET_MSR_FILTER, &filter), EINVAL);
	filter.flags = 2;
	CHECK_ERR(ioctl(vm, KVM_X86_SET_MSR_FILTER, &filter), EINVAL);
	filter.flags = 0;
	CHECK_EQ(ioctl(vm, KVM_X86_SET_MSR_FILTER, &filter), 0);
	filter.ranges[0] = (struct kvm_msr_filter_range){
		.flags = KVM_MSR_FILTER_READ, .nmsrs = 1, .base = 0x174, .bitmap = BAD_POINTER};
	CHECK_ERR(ioctl(vm, KVM_X86_SET_MSR_FILTER, &filter), EFAULT);
	filter.ranges[0].bitmap = bits;
	filter.ranges[0].flags = 0;
	CHECK_ERR(ioctl(vm, KVM_X86_SET_MSR_FILTER, &filter), EINVAL);
	filter.ranges[0].flags = 4;
	CHECK_ERR(ioctl(vm, KVM_X86_SET_MSR_FILTER, &filter), EINVAL);
	filter.ranges[0].flags = 3;
	filter.ranges[0].nmsrs = 0x3001;
	CHECK_ERR(ioctl(vm, KVM_X86_SET_MSR_FILTER, &filter), EINVAL);
	CHECK_ERR(enable_cap(vm, KVM_CAP_X86_USER_SPACE_MSR, 8), EINVAL);
}

static void test_exits(void)
{
	struct machine m = machine_open();
	uint64_t bits = 0;
	struct kvm_msr_filter filter = {0};

	filter.ranges[0] =
		(struct kvm_msr_filter_range){.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
					      .nmsrs = 1,
					      .base = 0x174,
					      .bitmap = (uint8_t *)&bits};
	CHECK_EQ(enable_cap(m.vm, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_FILTER), 0);
	CHECK_EQ(ioctl(m.vm, KVM_X86_SET_MSR_FILTER, &filter), 0);
	MACHINE_CODE(&m, READ_WRITE);
	RUN_TO(&m, KVM_EXIT_X86_RDMSR);
	CHECK_EQ(m.run->msr.index, 0x174);
	CHECK_EQ(m.run->msr.reason, KVM_MSR_EXIT_REASON_FILTER);
	m.run->msr.data = 0x1122334455667788;
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(*((uint8_t *)m.run + m.run->io.data_offset), 0x88);
	RUN_TO(&m, KVM_EXIT_X86_WRMSR);
	CHECK_EQ(m.run->msr.data, 0x1122334455667777);
	m.run->msr.error = 0;
	RUN_TO(&m, KVM_EXIT_HLT);
	/* The program itself is not filtered, and user space kept the value to itself. */
	CHECK_EQ(msr_get(m.vcpu, 0x174), 0);
}

int main(void)
{
	test_refused();
	test_exits();
	return 0;
}
